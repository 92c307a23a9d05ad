"""The loop: schedule, clipping, DDP, atomic checkpoints, exact resume, averaging over the epochs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from froster.data.dataset import Batch
from froster.data.loader import batches
from froster.errors import FrosterError, UsageError
from froster.methods.recipe import Recipe
from froster.methods.weight_names import new_weights
from froster.text.bank import PromptBank
from froster.training.checkpoint import Checkpoints, RunningMean
from froster.training.optim import adamw, draw_template, epoch_order, sgd
from froster.training.task import Losses, Task, ranks
from froster.utils import strict_json as json
from froster.utils.files import cannot_write, write_text
from froster.utils.interrupt import check
from froster.utils.progress import console
from froster.utils.tensors import StateDict, cpu_state


@dataclass
class Trained:
    """The weights a run ends with, and what it could not read."""

    last: StateDict
    average: StateDict
    averaged: int
    unreadable: dict[str, int]
    """Message -> how often it was met."""
    epochs: int
    """Epochs done: fewer than the recipe's where the run was stopped early."""
    history: list[dict[str, float]]
    """What was measured after each epoch."""


def epoch_of(line: str) -> float | None:
    """A line's epoch; None for a line that cannot be read."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return None
    return epoch if isinstance(epoch, (int, float)) else None


class MetricsLog:
    """`metrics.jsonl`: one object a line. Lines of epochs that a resumed run will repeat are
    dropped, and what cannot be read: a last line that a kill has cut off, which is written again,
    and others, which are counted in `lost`."""

    def __init__(self, path: Path, epochs_done: int, active: bool):
        self.path, self.active = path, active
        self.lost = 0
        if active:
            text = path.read_text(errors="replace") if path.exists() and epochs_done else ""
            lines = [line for line in text.split("\n") if line]
            epochs = [epoch_of(line) for line in lines]
            self.lost = epochs[:-1].count(None)
            kept = [
                line
                for line, epoch in zip(lines, epochs, strict=True)
                if epoch is not None and epoch <= epochs_done
            ]
            write_text(path, "".join(line + "\n" for line in kept))

    def write(self, **values: Any) -> None:
        """Raises WriteError where the disk is full."""
        if not self.active:
            return
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise cannot_write(self.path, error) from error


def train(
    task: Task,
    dataset: Dataset,
    recipe: Recipe,
    out: Path,
    *,
    run: dict[str, Any] | None = None,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    watch: Callable[[int], dict[str, float]] | None = None,
) -> Trained:
    """Train `task` on `dataset` (whose items `collate` understands), continuing what
    `out/checkpoints` holds.

    `run` identifies the run: a checkpoint of another run is refused. `on_step(done, total,
    metrics)`, `on_epoch(epoch, metrics)` and `watch(epoch)` are called on rank 0 only. What `watch`
    measures after an epoch, by `base` of which the run may be stopped, goes into the checkpoint, so
    that a resumed run stops where the other would.
    """
    world, rank = ranks(), dist.get_rank() if dist.is_initialized() else 0
    num_frames = dataset.sampling.frames  # type: ignore[attr-defined]
    steps = max(1, len(dataset) // recipe.batch_size)  # type: ignore[arg-type]
    batch = global_batch(recipe, len(dataset))  # type: ignore[arg-type]
    optimizer = optimizer_of(task, recipe)
    average = RunningMean()
    checkpoints = Checkpoints(out / "checkpoints", recipe.keep)
    run = {**asdict(recipe), **(run or {}), "clips": len(dataset), "world": world}  # type: ignore[arg-type]
    for name in (
        "workers",
        "keep",
        "compile",
        "checkpointing",
    ):  # what changes speed and memory may change on the way
        del run[name]
    unreadable: dict[str, int] = {}
    history: list[dict[str, float]] = []
    first = checkpoints.resume(task.trained(), optimizer, average, unreadable, run, history)
    log = MetricsLog(out / "metrics.jsonl", first, active=rank == 0)
    if rank == 0:
        say_damage(checkpoints, first, log)
    stepper = DistributedDataParallel(task) if world > 1 else task

    done = first
    for epoch in range(first, recipe.epochs):
        if gains_no_more(history, recipe.patience):
            break
        task.train()
        loader = epoch_loader(dataset, recipe, epoch, steps, batch, known=unreadable)
        sums: dict[str, float] = {}
        taken = 0
        met: list[str] = []
        for started in late(
            start_steps(stepper, task, optimizer, loader, recipe, epoch, steps, num_frames, met)
        ):
            metrics = started.metrics()
            if not all(map(math.isfinite, metrics.values())):
                where = f"epoch {epoch + 1}, step {started.step + 1}"
                raise FrosterError(
                    f"the loss is not finite in {where}: lower --lr; the checkpoints of earlier"
                    " epochs are kept"
                )
            step = epoch * steps + started.step + 1
            log.write(
                epoch=epoch + 1, step=step, lr=started.lr, template=started.template, **metrics
            )
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value
            taken += 1
            if on_step is not None and rank == 0:
                on_step(step, recipe.epochs * steps, metrics)
        for message in from_all_ranks(met):
            unreadable[message] = unreadable.get(message, 0) + 1
        if not taken:
            raise FrosterError(
                f"no training video could be read; the first: {next(iter(unreadable), '?')}"
            )
        sums = {name: value / taken for name, value in sums.items()}
        if epoch + 1 >= recipe.first_averaged:
            average.add(cpu_state(task.student))
        if watch is not None:
            history.append(from_rank_0(watch(epoch + 1) if rank == 0 else None))
        log.write(
            epoch=epoch + 1,
            mean=sums,
            averaged=average.count,
            **({"watched": history[-1]} if watch else {}),
        )
        if rank == 0:
            checkpoints.save(
                epoch + 1, task.trained(), optimizer, average, unreadable, run, history
            )
        if world > 1:
            dist.barrier()
        if on_epoch is not None and rank == 0:
            on_epoch(epoch + 1, sums)
        done = epoch + 1

    last = cpu_state(task.student)
    return Trained(
        last,
        average.weights(like=last) if average.count else last,
        average.count,
        unreadable,
        done,
        history,
    )


def say_damage(checkpoints: Checkpoints, first: int, log: MetricsLog) -> None:
    for line in checkpoints.passed_over:
        console.print(
            f"{line}: going on from epoch {first}, the newest whole checkpoint",
            style="yellow",
            soft_wrap=True,
        )
    if log.lost:
        console.print(
            f"{log.path}: {log.lost} lines cannot be read and are left out",
            style="yellow",
            soft_wrap=True,
        )


def gains_no_more(history: Sequence[dict[str, float]], patience: int | None) -> bool:
    """Is the best accuracy on the watched base videos `patience` epochs old? An epoch that equals
    it is as good."""
    if not patience or not history:
        return False
    accuracies = [values["base"] for values in history]
    return accuracies[::-1].index(max(accuracies)) >= patience


def from_rank_0(values: Any) -> Any:
    if ranks() == 1:
        return values
    parcel = [values]
    dist.broadcast_object_list(parcel, src=0)
    return parcel[0]


@dataclass
class Started:
    """A step that has been started. A GPU may still be at it: whoever asks for its numbers waits."""

    step: int
    """In its epoch."""
    lr: float
    template: int
    total: float
    """Clips, over all ranks."""
    means: Tensor
    names: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """The global means of the losses, the norm of the gradient, the accuracy in per cent."""
        loss, ce, vision, text, regulariser, right, norm = self.means.tolist()
        found = {
            "loss": loss,
            "ce": ce,
            "grad_norm": norm,
            "accuracy": 100 * right / self.total,
            "distill_v": vision,
            "distill_t": text,
            "regulariser": regulariser,
        }
        return {name: found[name] for name in self.names}


def late(steps: Iterator[Started]) -> Iterator[Started]:
    """Each step once the next one has been started, so that a GPU always has work."""
    waiting = None
    for step in steps:
        if waiting is not None:
            yield waiting
        waiting = step
    if waiting is not None:
        yield waiting


def start_steps(
    stepper: torch.nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    loader: Iterator[Batch],
    recipe: Recipe,
    epoch: int,
    steps: int,
    num_frames: int,
    met: list[str],
) -> Iterator[Started]:
    """The optimiser steps of one epoch, as they are started. `met` receives what cannot be read."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    for step, samples in enumerate(loader):
        rate = recipe.rate(epoch + step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        check()
        met += [message for _, message in samples.errors]
        template = draw_template(recipe.seed, epoch, step, task.bank.num_templates)
        rng = random.Random(f"step/{recipe.seed}/{epoch}/{step}/{rank}")
        torch.manual_seed(rng.getrandbits(63))  # dropout, the same after a resume
        rows = rows_of_step(recipe.draw, template, task.bank)
        found = start_step(
            stepper, task, optimizer, samples, rows, rng, recipe.clip_norm, num_frames
        )
        if found is not None:
            yield Started(step, rate, template, *found)


def global_batch(recipe: Recipe, clips: int) -> int:
    """Clips a step, over all ranks: as the recipe says, or of fewer videos as many as the ranks can
    share out evenly.

    Raises UsageError where that is none, or where the recipe's cannot be shared out.
    """
    world = ranks()
    batch = recipe.batch_size if clips >= recipe.batch_size else clips // world * world
    if batch % world or not batch:
        raise UsageError(
            f"a batch of {min(recipe.batch_size, clips)} clips cannot be shared out evenly over"
            f" {world} processes"
        )
    return batch


def optimizer_of(task: Task, recipe: Recipe) -> torch.optim.Optimizer:
    groups = {
        "decay": recipe.decay,
        "new": {f"student.{name}" for name in new_weights(task.student)},
        "new_scale": recipe.new_scale,
        "clip_scale": recipe.clip_scale,
    }
    if recipe.optimizer == "sgd":
        return sgd(task, recipe.lr, recipe.weight_decay, **groups)
    return adamw(task, recipe.lr, recipe.weight_decay, recipe.betas, **groups)


def rows_of_step(draw: str, template: int, bank: PromptBank) -> list[int]:
    """The rows of prompts that a step uses: one template (in FROSTER's form with the bare label,
    the last row), or all."""
    if draw != "one":
        return bank.rows
    return [template, bank.rows[-1]] if len(bank.rows) > bank.num_templates > 0 else [template]


def epoch_loader(
    dataset: Dataset, recipe: Recipe, epoch: int, steps: int, batch: int, known: Container[str] = ()
) -> Iterator[Batch]:
    """This rank's clips of every step of one epoch: clip i of a global batch goes to rank i modulo
    the ranks.

    `known` is what could not be read in earlier epochs (`batches`).
    """
    order = epoch_order(len(dataset), recipe.seed, epoch)  # type: ignore[arg-type]
    world, rank = ranks(), dist.get_rank() if dist.is_initialized() else 0
    shares = [order[s * batch : (s + 1) * batch][rank::world] for s in range(steps)]
    dataset.set_epoch(epoch)  # type: ignore[attr-defined]
    return batches(dataset, shares, recipe.workers, known=known, pin=torch.cuda.is_available())


def from_all_ranks(messages: list[str]) -> list[str]:
    if ranks() == 1:
        return messages
    gathered: list[list[str] | None] = [None] * ranks()
    dist.all_gather_object(gathered, messages)
    return [message for part in gathered for message in part or []]


def start_step(
    stepper: torch.nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer,
    samples: Batch,
    rows: list[int],
    rng: random.Random,
    clip_norm: float | None,
    num_frames: int,
) -> tuple[float, Tensor, tuple[str, ...]] | None:
    """One optimiser step; returns what `Started` holds of it, or None when no rank could read a
    clip.

    Ranks may hold different numbers of readable clips. Each rank's mean is weighted by its share,
    so that the gradient is that of the mean over all clips; a rank with none computes on a blank
    clip of weight zero, as DDP needs it to.
    """
    device = task.student.clip.logit_scale.device
    mine = total = float(len(samples.labels))
    if ranks() > 1:
        count = torch.tensor([mine], device=device)
        dist.all_reduce(count)
        total = float(count)
    if not total:
        return None
    frames, labels = (x.to(device, non_blocking=True) for x in (samples.frames, samples.labels))
    if not mine:
        size = task.student.clip.config.vision.image_size
        frames = torch.zeros(1, num_frames, 3, size, size, dtype=torch.uint8, device=device)
        labels = torch.zeros(1, dtype=torch.long, device=device)
    losses: Losses = stepper(frames, labels, rows, rng, weight=mine * ranks() / total)
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(trained, math.inf if clip_norm is None else clip_norm)
    optimizer.step()
    right = (losses.predicted == labels).float().sum() * (mine > 0)
    means = torch.stack(
        [
            losses.total.detach(),
            losses.ce,
            losses.vision,
            losses.text,
            losses.regulariser,
            right,
            norm,
        ]
    )
    if ranks() > 1:
        dist.all_reduce(means[:6])
        means[:5] /= ranks()
    names = ["loss", "ce", "grad_norm", "accuracy"]
    names += ["distill_v", "distill_t"] if task.distill is not None else []
    names += ["regulariser"] if task.regulariser is not None else []
    return total, means, tuple(names)
