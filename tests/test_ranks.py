"""Two processes that hold unequal numbers of readable clips compute what one with all of them does."""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Subset

import quick
from froster.data.dataset import Batch, Sample
from froster.errors import FrosterError
from froster.evaluation.metrics import Predictions, Scorer, evaluate
from froster.evaluation.spread import ALONE, Scores, Spread
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS
from froster.methods.penalised import Penalty, fisher
from froster.methods.recipe import Recipe
from froster.training.attach import freeze
from froster.training.batches import global_batch
from froster.training.contrast import task_class
from froster.training.distill_options import Distill
from froster.training.distributed import AllRanks, spread_over_ranks
from froster.training.fine_tune import student_of
from froster.training.task import Task, Teacher
from froster.world.clips import WorldClips
from train_worker import small_world

LABELS = ["cat spinning", "boat pacing", "bird hopping", "key glowing"]
SHARES = [(2, 2), (3, 1), (4, 0)]
CASES = {
    "within the batch, text": ("actionclip", Distill(beta_v=0.0), None, False),
    "within the batch, sums": ("actionclip", Distill(reduction="sum", unit=False), None, False),
    "sets within the batch": ("ost", Distill(beta_v=0.0), None, False),
    "classes, text": ("finetuned", Distill(), None, False),
    "held by L2-SP": ("l2sp", Distill(kind="none"), None, True),
    "relations of clips": (
        "finetuned",
        Distill("plain", beta_v=100.0, target="similarities", level="video"),
        None,
        False,
    ),
    "relations within the batch": ("actionclip", Distill("plain", target="pkt"), None, False),
    "anchors": ("finetuned", Distill("plain", target="anchors", level="video"), None, False),
    "logits within the batch": ("actionclip", Distill("plain", target="logits"), None, False),
    "soft targets": ("finetuned", Distill(kind="none"), 0.1, False),
}


def clips(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(0, 256, (count, 2, 3, 60, 60), dtype=torch.uint8, generator=generator),
        torch.arange(count) % 4,
    )


def task_of(base: Recognizer, case: str) -> Task:
    """A student that has moved away from its teacher."""
    name, distill, smoothing, held = CASES[case]
    method = METHODS[name].make("meanp" if name == "actionclip" else None)
    student = student_of(base, method)
    freeze(student.model, method, "both")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in student.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    torch.manual_seed(0)
    return task_class(method)(
        student.model,
        student.bank(LABELS),
        Recipe(tune="both", label_smoothing=smoothing or 0.0),
        teacher=Teacher(base.clip, distill) if distill.kind != "none" else None,
        regulariser=Penalty(base.clip, 0.1) if held else None,
    )


class First(random.Random):
    """Every clip takes the first template, on every rank."""

    def choice(self, options):
        return options[0]


def gradient(
    net: nn.Module, task: Task, frames: Tensor, labels: Tensor, weight: float = 1.0
) -> Tensor:
    task.zero_grad()
    rows = task.bank.rows[:2]
    losses, _ = net(frames, labels, rows, First(0), weight=weight)
    sum(losses.values()).backward()
    return torch.cat([p.grad.flatten() for p in task.student.parameters() if p.grad is not None])


def importance(base: Recognizer, kind: str, first: int, count: int) -> Tensor:
    student = student_of(base, METHODS["finetuned"].make("image")).model.requires_grad_(False)
    student.clip.visual.proj.requires_grad_(True)
    frames, _ = clips(4)
    classes = student.classes(student.prompts(base.bank(LABELS), [0]).float())
    with torch.no_grad():
        labels = student(frames.float() / 255 - 0.5, classes).argmax(-1)
    part = slice(first, first + count)
    batch = Batch(
        frames[part] if count else torch.empty(0, dtype=torch.uint8),
        labels[part],
        torch.arange(count),
        [],
    )
    return fisher(student, lambda: classes, [batch], kind, 0)["clip.visual.proj"]


class SomeUnreadable(WorldClips):
    """Of 12 videos two cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        if index in (3, 8):
            return Sample(index, None, self.label(index), f"{index}: damaged")
        return super().__getitem__(index)


def measured(base: Recognizer, videos: int, spread: Spread) -> Predictions:
    """Batches of 4; of 4 videos there is nothing for a second process."""
    clips = small_world(base)
    clips = SomeUnreadable(clips.videos, base.config.sampling, train=False)
    some = Subset(clips, range(videos))
    some.label, some.views = clips.label, 2  # type: ignore[attr-defined]
    classes = clips.videos.classes
    also = {"others": ["red", "green"]}
    scorer = Scorer(
        base.inference,
        base.class_embeddings(classes),
        base.dtype,
        also=[base.class_embeddings(also["others"])],
    )
    (result,) = evaluate([scorer], some, classes, batch_size=4, also=also, spread=spread)
    return result


def rank(number: int, folder: str) -> None:
    """A process of two. What it found of each case is left in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    base = load("nano", device="cpu")
    found = {}
    frames, labels = clips(4)
    for share in SHARES:
        first, mine = sum(share[:number]), share[number]
        x, y = frames[first : first + mine], labels[first : first + mine]
        if not mine:  # as `Trainer.step` does
            x, y = torch.zeros_like(frames[:1]), torch.zeros_like(labels[:1])
        for case in CASES:
            task = task_of(base, case)
            found[case, share] = gradient(DistributedDataParallel(task), task, x, y, mine * 2 / 4)
        found["importance", share] = importance(base, "batch", first, mine)
    assert global_batch(Recipe(batch_size=7), 100) == 7, "the ranks' shares need not be equal"
    assert global_batch(Recipe(batch_size=8), 5) == 5
    scores = {videos: measured(base, videos, spread_over_ranks()) for videos in (12, 4)}
    failure = MemoryError("no more memory") if number else None
    with pytest.raises((FrosterError, MemoryError), match="no more memory") as error:
        AllRanks().join([range(4)], Scores(1, 2), failure)
    assert number or str(error.value).startswith("process 1 could not score its videos")
    if number == 0:
        torch.save(scores, f"{folder}/scores.pt")
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


def test_unequal_shares_of_a_batch_are_one_batch(tmp_path: Path) -> None:
    command = [sys.executable, __file__, tmp_path]
    ranks = [
        quick.Popen([*command, str(number)], stderr=quick.PIPE, text=True) for number in range(2)
    ]
    for process in ranks:
        assert process.communicate(timeout=240) and process.returncode == 0
    found = torch.load(tmp_path / "found.pt")
    base = load("nano", device="cpu")
    whole = {}
    for case in CASES:
        task = task_of(base, case)
        whole[case] = gradient(task, task, *clips(4))
    whole["importance"] = importance(base, "batch", 0, 4)
    for videos, scores in torch.load(tmp_path / "scores.pt", weights_only=False).items():
        alone = measured(base, videos, ALONE)
        assert scores.errors == alone.errors and len(alone.errors) == (2 if videos == 12 else 1)
        for name in ("logits", "views", "labels"):
            for a, b in ((scores, alone), (scores.also["others"], alone.also["others"])):
                assert torch.equal(getattr(a, name).nan_to_num(), getattr(b, name).nan_to_num())
    for (case, share), tensor in found.items():
        error = float((tensor - whole[case]).norm() / whole[case].norm())
        assert error < 1e-5, (case, share, error)


def test_a_teacher_stays_as_it_is_used() -> None:
    base = load("nano", device="cpu")
    teacher = copy.deepcopy(base.clip)
    teacher.visual.dropout = nn.Dropout(0.5)  # as a foreign CLIP may have
    student = student_of(base, METHODS["vclip"].make())
    freeze(student.model, student.config.method, "both")
    task = Task(student.model, student.bank(LABELS), teacher=Teacher(teacher, Distill()))
    for mode in (True, False, True):
        assert task.train(mode) is task
        assert task.training == mode and all(
            module.training == mode for module in task.student.modules()
        )
        assert task.teacher is not None and not any(
            module.training for module in task.teacher.modules()
        )


if __name__ == "__main__":
    rank(int(sys.argv[2]), sys.argv[1])
