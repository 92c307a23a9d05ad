"""What every method promises: its start, what it trains, what it sees, and how it is saved."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from froster.data.dataset import Batch
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP, unit
from froster.errors import UsageError
from froster.evaluation.metrics import ensemble
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.methods import METHODS, Method, VideoCLIP, class_embeddings
from froster.methods.actionclip import ActionCLIP, in_batch_kl, same_class
from froster.methods.aim import AIM
from froster.methods.efficient_prompt import PromptedNet
from froster.methods.heads import ConvHead, ones_at_classes
from froster.methods.openvclip import InterpolatedWeights
from froster.methods.penalised import Penalty, fisher
from froster.methods.recipe import Recipe
from froster.methods.weight_names import new_weights, start_of
from froster.methods.xclip import XCLIPNet
from froster.report.methods import facts
from froster.text.bank import PromptBank
from froster.text.labels import place_of
from froster.text.prompts import Prompting
from froster.training.attach import attach, freeze
from froster.training.batches import rows_of_step
from froster.training.contrast import task_class
from froster.training.distill_options import Distill
from froster.training.fine_tune import student_of, training_clips
from froster.training.optim import optimizer_of
from froster.training.reporter import Drawn
from froster.training.task import Task, Teacher
from froster.training.weights import towards
from froster.utils.progress import progress
from golden import close
from train_worker import small_world

TINY = CLIPConfig(VisionConfig(32, 8, 128, 3, 2), TextConfig(77, 99, 64, 1, 1), embed_dim=64)
T, LABELS = 4, ["cat", "dog", "key"]
EVERY = [(name, variant) for name, method in METHODS.items() for variant in method.variants or [""]]
FIRST = {(name, next(iter(method.variants), "")) for name, method in METHODS.items()}
LATER_SLOW = [one if one in FIRST else pytest.param(*one, marks=pytest.mark.slow) for one in EVERY]
"""For promises that a method keeps in all variants if it does in one."""
TRAINABLE = [(name, variant) for name, variant in EVERY if name != "frozen"]


@pytest.mark.parametrize(("name", "variant"), [("dualpath", ""), ("vita-clip", "class")])
def test_a_closed_set_tells_classes_of_one_name_apart(name: str, variant: str) -> None:
    teas = ["drink: tea", "drink: coffee"]
    method: Any = METHODS[name].make(variant or None).for_classes(teas)
    known = {label: i for i, label in enumerate(method.classes)}
    assert [place_of(label, known) for label in [*teas, "eat: a cake"]] == [0, 1, None]
    method = METHODS[name].make(variant or None).for_classes(["tea: hot", "coffee"])
    known = {label: i for i, label in enumerate(method.classes)}
    assert [place_of(label, known) for label in ("coffee: black", "tea")] == [1, 0]


def test_what_is_asked_of_a_closed_set_are_its_classes() -> None:
    teas = ("drink: tea", "drink: coffee")
    bank: Any = SimpleNamespace(labels=teas[::-1])
    assert ones_at_classes(bank, [0], teas, "")[0].tolist() == [[0, 1], [1, 0]]
    bank.labels = ["drink"]
    with pytest.raises(UsageError, match="'drink' is none of them"):
        ones_at_classes(bank, [0], teas, "")


@cache
def drawn_clip() -> CLIP:
    torch.manual_seed(0)
    return CLIP(TINY).eval()


def tiny_clip() -> CLIP:
    """A copy, which is cheaper than to draw the weights again."""
    clip = copy.deepcopy(drawn_clip())
    torch.manual_seed(0)
    return clip


def method_of(name: str, variant: str = "", frames: int = T, **options) -> Method:
    method = METHODS[name].make(variant or None, **options).for_classes(LABELS)
    return dataclasses.replace(method, frames=frames) if getattr(method, "frames", 0) else method


def network(
    name: str, variant: str = "", *, frames: int = T, moved: bool = True, **options
) -> VideoCLIP:
    """A method on the tiny CLIP; `moved`: its new weights are drawn, so that what starts at zero
    shows."""
    model = method_of(name, variant, frames, **options).build(tiny_clip()).eval()
    if moved:
        torch.manual_seed(1)
        new = new_weights(model)
        for weight, parameter in model.named_parameters():
            if weight in new:
                torch.nn.init.normal_(
                    parameter, std=0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
                )
    return model


def clips(count: int = 2, frames: int = T) -> Tensor:
    return torch.randn(count, frames, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def tokens(*lengths: int) -> Tensor:
    """Rows of start, name and end tokens; the start is the second largest id, the end the largest."""
    rows = torch.zeros(len(lengths), max(lengths) + 2, dtype=torch.long)
    for row, length in zip(rows, lengths, strict=True):
        row[: length + 2] = torch.tensor([97, *range(1, length + 1), 98])
    return rows


IDENTITIES = [
    ("aim", "official"),
    ("aim", "ssv2"),
    ("aim", "froster"),
    ("st-adapter", "k400"),
    ("st-adapter", "ssv2"),
    ("st-adapter", "froster"),
    ("adaptformer", "official"),
    ("adaptformer", "froster"),
    ("lora", "r2-qkv"),
    ("lora", "r16-qkvo"),
]


@pytest.mark.parametrize(("name", "variant"), IDENTITIES)
@torch.no_grad()
def test_starts_as_clip(name: str, variant: str) -> None:
    model, plain = network(name, variant, moved=False), tiny_clip()
    close(model.encode_frames(clips()), plain.encode_image(clips()), atol=1e-6, rtol=0)
    close(model.encode_text(tokens(2, 5)), plain.encode_text(tokens(2, 5)), atol=1e-6, rtol=0)
    assert not torch.allclose(
        network(name, variant).encode_frames(clips()), plain.encode_image(clips()), atol=1e-3
    )


@pytest.mark.parametrize(("name", "variant"), EVERY)
@torch.no_grad()
def test_videos_of_a_batch_do_not_see_each_other(name: str, variant: str) -> None:
    model = network(name, variant)
    both, swapped = model.encode(clips(3)), model.encode(clips(3)[[2, 0, 1]])
    for whole, other in ((both.frames, swapped.frames), (both.video, swapped.video)):
        close(other, whole[[2, 0, 1]])
    close(model.encode(clips(3)[:1]).video, both.video[:1])


BLIND = {
    ("frozen", ""),
    ("finetuned", "both"),
    ("finetuned", "image"),
    ("finetuned", "text"),
    ("actionclip", "meanp"),
    ("xclip", "message"),
    ("aim", "froster"),
    ("adaptformer", "official"),
    ("adaptformer", "froster"),
    ("lora", "r2-qkv"),
    ("lora", "r16-qkvo"),
    ("lora", "image"),
    ("text4vis", "mean"),
    ("l2sp", "both"),
    ("l2sp", "image"),
    ("l2sp", "text"),
    ("ewc", "both"),
    ("ewc", "image"),
    ("ewc", "text"),
    ("bdc-clip", ""),
    ("ost", ""),
    ("tc-clip", ""),  # as long as there is nothing to merge, which goes by the order
}


@pytest.mark.parametrize(("name", "variant"), EVERY)
@torch.no_grad()
def test_which_networks_know_the_order_of_the_frames(name: str, variant: str) -> None:
    model, frames = network(name, variant, frames=9), clips(frames=9)
    difference = (
        model.encode(frames).video - model.encode(frames[:, [0, 5, 1, 6, 2, 7, 3, 8, 4]]).video
    )
    assert (float(difference.abs().max()) < 1e-5) == ((name, variant) in BLIND)


COUNTS = {
    ("finetuned", "both"): 86_192_640 + 63_428_096 - 25_296_896 + 1,
    ("finetuned", "image"): 86_192_640,
    ("finetuned", "text"): 63_428_096 - 25_296_896,
    ("vclip", "step1"): 149_620_737,
    ("openvclip", "released"): 86_192_640 + 1,
    ("actionclip", "transf"): 149_620_737 + 18_953_728,
    ("actionclip", "meanp"): 149_620_737,
    ("actionclip", "tsm"): 149_620_737,
    ("xclip", "full"): 86_192_640 + 35_453_952 + 3_156_480 + 6_303_232 + 394_752,
    ("xclip", "message"): 86_192_640 + 35_453_952,
    ("efficient-prompt", ""): 39_424 + 16 * 512 + 2 * 3_152_384,
    ("text4vis", "transf"): 86_192_640 + 18_953_728 + 1,
    ("aim", "official"): 10_651_392 + 8 * 768 + 1_536,
    ("aim", "ssv2"): 48 * 295_872 + 8 * 768 + 1_536,
    ("aim", "froster"): 10_651_392 + 1_536,
    ("st-adapter", "k400"): 12 * 592_512,
    ("st-adapter", "ssv2"): 24 * 592_512,
    ("st-adapter", "froster"): 12 * 592_512,
    ("adaptformer", "official"): 1_189_632,
    ("adaptformer", "froster"): 3_550_464,
    ("vita-clip", "generic"): 28_366_848 + 2 * 73_728 + 6_144 + 4_096 + 1,
    ("stan", "third"): 149_620_737 + 40_218_624,
    ("lora", "r2-qkv"): 110_592 + 73_728,
    ("lora", "r16-qkvo"): 12 * 4 * 16 * 2 * (768 + 512),
    ("mote", ""): 86_192_640 + 37_845_504 + 1,
    ("bdc-clip", ""): 149_620_737 + 272_385 + 2 * 18_529,
    ("ost", ""): 149_620_737 - 25_296_896,
    ("ez-clip", ""): 12 * 295_872 + 12 * 131_712 + 12 * 8 * 768,
    ("dualpath", "closed"): 17_752_320 + 524_800 + 2 * 513 + 2 * 151_296 + 768,
    ("dualpath", "open"): 17_752_320 + 2 * 151_296 + 768 + 1,
    ("tc-clip", ""): 149_620_737 + 264 + 3_153_408 + 2_048,
    ("frozen", ""): 0,
}


@pytest.mark.parametrize(("name", "variant"), COUNTS)
def test_trained_weights_of_b16(name: str, variant: str) -> None:
    """The counts of the papers' methods, on the meta device."""
    assert facts(METHODS[name].make(variant or None))["trained"] == COUNTS[name, variant]


class Names:
    """A tokenizer of names by their letters, as large as the tiny CLIP's vocabulary."""

    def __call__(self, texts: list[str], context: int, truncate: bool = False) -> Tensor:
        rows = torch.zeros(len(texts), max(map(len, texts)) + 2, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            row[: len(text) + 2] = torch.tensor(
                [97, *(1 + ord(letter) % 90 for letter in text), 98]
            )
        return rows


PROMPTING = Prompting(("a {}", "{}"), "plain")


def step(
    name: str, variant: str, distill: str = "none", tune: str = "method", **options
) -> tuple[Task, Tensor]:
    """One step of training from moved weights; returns the task with its gradients, and the loss."""
    method = method_of(name, variant)
    student = network(name, variant)
    freeze(student, method, tune)
    recipe = Recipe(tune=tune, label_smoothing=0.1, mixup=0.8, draw="all")
    bank = PromptBank(Names(), LABELS, 77, PROMPTING)  # type: ignore[arg-type]
    torch.manual_seed(0)
    config = Distill(kind=distill, level=method.level, zero_init=False)  # type: ignore[arg-type]
    own = bank if method.learns_prompts else None
    teacher = Teacher(tiny_clip(), config, own) if distill != "none" else None
    task = task_class(method)(student, bank, recipe, teacher=teacher, **options).train()
    frames = torch.randint(
        0, 256, (3, T, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
    )
    rows = rows_of_step("all", 0, bank)
    losses, _ = task(frames, torch.tensor([0, 2, 1]), rows, random.Random(0))
    total = sum(losses.values())
    total.backward()
    return task, total


@pytest.mark.parametrize("distill", [pytest.param("none", marks=pytest.mark.slow), "residual"])
@pytest.mark.parametrize(("name", "variant"), TRAINABLE)
def test_gradients_reach_what_is_trained_and_nothing_else(
    name: str, variant: str, distill: str
) -> None:
    task, loss = step(name, variant, distill)
    assert loss.isfinite()
    method = method_of(name, variant)
    for weight, parameter in task.student.named_parameters():
        if method.trains(weight):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), weight
            # ST-Adapter's last adapter changes the patches after the last attention, where nobody
            # reads them.
            assert parameter.grad.abs().max() > 0 or ".2.before_mlp." in weight, weight
        else:
            assert parameter.grad is None, weight
    for weight, parameter in task.named_parameters():
        if weight.startswith("distill."):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, weight


@pytest.mark.parametrize("name", ["aim", "xclip", "openvclip", "text4vis"])
def test_tune_both_trains_the_text_tower_too(name: str) -> None:
    task, _ = step(name, next(iter(METHODS[name].variants)), tune="both")
    assert all(p.grad is not None for p in task.student.clip.text.parameters())
    task, _ = step(name, next(iter(METHODS[name].variants)), tune="text")
    assert all(p.grad is None for p in task.student.clip.visual.parameters())


def test_new_weights_have_their_own_rate() -> None:
    task, _ = step("actionclip", "transf")
    optimizer = optimizer_of(task, Recipe(lr=1e-3, new_scale=10, weight_decay=0.2, decay="all"))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    for name, parameter in task.student.named_parameters():
        assert rates[id(parameter)] == pytest.approx(1e-2 if name.startswith("head.") else 1e-3)
    assert decays == {0.2}


@pytest.mark.usefixtures("few_templates")
@pytest.mark.parametrize(("name", "variant"), LATER_SLOW)
def test_a_saved_network_is_the_same_network(name: str, variant: str, tmp_path: Path) -> None:
    nano = load("nano")
    method = METHODS[name].make(variant or None).for_classes(LABELS)
    if getattr(method, "frames", 0):
        method = dataclasses.replace(method, frames=8)
    torch.manual_seed(3)
    model = Recognizer(
        method.build(nano.clip), nano.tokenizer, ModelConfig(method, nano.config.sampling)
    )
    video = torch.randint(0, 256, (8, 70, 80, 3), dtype=torch.uint8)
    again = load(model.save(tmp_path / "m"))
    assert again.config == model.config
    found, expected = again.classify(video, LABELS), model.classify(video, LABELS)
    assert found.labels == expected.labels and found.scores == pytest.approx(
        expected.scores, abs=1e-5
    )
    close(again.embed_video(video), model.embed_video(video))
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["method"]["name"] == name


# What single methods promise.


@torch.no_grad()
def test_actionclip_conv_starts_as_a_shift_with_skip() -> None:
    z = torch.randn(2, 5, 8)
    later, earlier = torch.zeros_like(z), torch.zeros_like(z)
    later[:, :-1], earlier[:, 1:] = z[:, 1:], z[:, :-1]
    shifted = torch.cat([earlier[..., :2], z[..., 2:6], later[..., 6:]], dim=-1)
    close(ConvHead(8, scrambled=False)(z), (shifted + z).mean(1))


def test_actionclip_contrast() -> None:
    target = same_class(torch.tensor([0, 1, 0, 2]))
    close(target.sum(-1), torch.ones(4))
    assert target[0, 0] == target[0, 2] > 0.49
    v, t = unit(torch.randn(4, 8)), unit(torch.randn(4, 8))
    for one, other in zip(
        in_batch_kl(9 * v @ t.T, target), in_batch_kl(9 * t @ v.T, target)[::-1], strict=True
    ):
        close(one, other)


def test_actionclip_averages_the_templates_probabilities() -> None:
    model = ActionCLIP(head="meanp").build(tiny_clip())
    v, prompts = unit(torch.randn(2, 64)), torch.randn(5, 3, 64)
    scores = model.logits(v, model.classes(prompts)).softmax(-1)
    each = [(model.clip.logit_scale.exp() * v @ unit(p).T).softmax(-1) for p in prompts]
    close(scores, torch.stack(each).mean(0))


@torch.no_grad()
def test_xclip_without_alpha_has_the_same_text_for_every_video() -> None:
    model = network("xclip", "full")
    assert isinstance(model, XCLIPNet)
    model.video_prompts.alpha.zero_()
    features, classes = model.encode(clips()), model.classes(torch.randn(1, 3, 64))
    close(
        model.logits(features.video, classes, features.context),
        model.clip.logit_scale.exp() * features.video @ unit(classes).T,
        atol=1e-4,
    )
    block = model.clip.visual.transformer.resblocks[0]
    assert block(torch.randn(2 * T, 17, 128), T).shape == (2 * T, 17, 128)


@torch.no_grad()
def test_learned_prompts_surround_the_name() -> None:
    model = network("efficient-prompt", prefix=3, postfix=2)
    assert isinstance(model, PromptedNet)
    rows = tokens(1, 4)
    columns = model.places(rows, 12)
    assert columns.tolist() == [
        [0, -1, -1, -1, 1, -1, -1, 2, -1, -1, -1, -1],
        [0, -1, -1, -1, 1, 2, 3, 4, -1, -1, 5, -1],
    ]
    close(
        model.encode_text(rows)[:1], model.encode_text(rows[:1, :3])
    )  # cut to its own length: the same
    model.text_prompt.weight[5] += torch.randn(
        64
    )  # stands behind the short name, under the long one
    moved = network("efficient-prompt", prefix=3, postfix=2).encode_text(rows) - model.encode_text(
        rows
    )
    assert moved[0].abs().max() > 1e-4 and moved[1].abs().max() < 1e-6
    with pytest.raises(UsageError, match="does not fit"):
        network("efficient-prompt", prefix=40, postfix=34).encode_text(tokens(4))


@torch.no_grad()
def test_a_class_specific_context_leaves_new_classes_alone() -> None:
    bank = lambda labels: PromptBank(Names(), labels, 77, PROMPTING)  # type: ignore[arg-type]  # noqa: E731
    model, plain = network("vita-clip", "class"), tiny_clip()
    old, new = bank(LABELS[::-1]), bank(["cow", "car"])
    assert not torch.allclose(model.prompts(old, [0]), old.embed(plain.encode_text, [0]), atol=1e-3)
    close(model.prompts(old, [0, 1]).flip(1), model.prompts(bank(LABELS), [0, 1]))
    close(model.prompts(new, [0]), new.embed(plain.encode_text, [0]))


@torch.no_grad()
def test_lora_folds_into_plain_weights() -> None:
    for variant in ("r2-qkv", "r16-qkvo"):
        model = network("lora", variant)
        merged = model.merged()
        assert merged is not None and merged.state_dict().keys() == tiny_clip().state_dict().keys()
        close(merged.encode_image(clips()), model.encode_frames(clips()), atol=1e-4)
        close(merged.encode_text(tokens(3)), model.encode_text(tokens(3)), atol=1e-4)


def test_frames_must_be_those_the_network_was_made_for() -> None:
    for name in ("aim", "vita-clip", "xclip", "efficient-prompt", "ez-clip"):
        with pytest.raises(UsageError, match="frames"):
            network(name).encode(clips(frames=T + 1))


# Open-VCLIP, L2-SP, EWC and weights after training.


def gradients(task: Task) -> dict[str, Tensor]:
    return {
        name: p.grad.clone() for name, p in task.student.named_parameters() if p.grad is not None
    }


class NoMixing:
    """An IWR whose draw is fixed."""

    def __init__(self, a: float, exact: bool):
        self.iwr = InterpolatedWeights(tiny_clip(), 0.5, 0.6, exact)
        self.iwr.draw = lambda rng: a  # type: ignore[method-assign]


def test_iwr_gradients() -> None:
    plain = gradients(step("openvclip", "released")[0])
    at_zero = gradients(step("openvclip", "released", regulariser=NoMixing(0.0, False).iwr)[0])
    for name, gradient in plain.items():
        close(
            at_zero[name], 1.5 * gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-8, rtol=1e-4
        )
    released = gradients(step("openvclip", "released", regulariser=NoMixing(0.4, False).iwr)[0])
    exact = gradients(step("openvclip", "released", regulariser=NoMixing(0.4, True).iwr)[0])
    for name, gradient in plain.items():
        extra = released[name] - gradient
        close(
            exact[name] - gradient,
            0.6 * extra,
            atol=1e-5 * float(extra.abs().max()) + 1e-8,
            rtol=1e-3,
        )


def test_penalties_are_zero_at_the_start_and_for_adapters() -> None:
    model = network("aim", "official")
    freeze(model, AIM(), "method")
    start = tiny_clip()
    held = Penalty(start, 10.0)
    assert float(held.of(model).detach()) == 0  # ln_post is where it was, the adapters are free
    tuned = network("finetuned", "both")
    freeze(tuned, METHODS["finetuned"](), "method")
    value = held.of(tuned)
    value.backward()
    assert float(value.detach()) == 0 and all(
        p.grad is None or not p.grad.any() for p in tuned.parameters()
    )
    with torch.no_grad():
        tuned.clip.visual.proj += 0.1
    close(held.of(tuned), torch.tensor(10 / 2 * 0.01 * tuned.clip.visual.proj.numel()), atol=1e-3)


@pytest.mark.parametrize("kind", ["batch", "sampled"])
def test_fisher(kind: str) -> None:
    model = network("finetuned", "image")
    freeze(model, METHODS["finetuned"].make("image"), "method")
    classes = unit(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))
    frames = torch.randint(0, 256, (4, T, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        from froster.encoders.preprocessing import normalise

        labels = model(normalise(frames), classes).argmax(-1)
    wrong = labels.clone()
    wrong[0] = (labels[0] + 1) % 3
    batch = lambda y: Batch(frames, y, torch.arange(4), [])  # noqa: E731
    found = fisher(model, lambda: classes, [batch(labels)], kind, 0)
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all((x >= 0).all() for x in found.values()) and any(x.any() for x in found.values())
    if kind == "batch":  # only what CLIP gets right counts: the mean gradient of those, squared
        loss = torch.nn.functional.cross_entropy(model(normalise(frames[1:]), classes), labels[1:])
        expected = torch.autograd.grad(loss, model.clip.visual.proj)[0].square()
        other = fisher(model, lambda: classes, [batch(wrong)], kind, 0)
        close(other["clip.visual.proj"], expected, atol=1e-6, rtol=1e-3)
    # A text tower that is trained gets its share.
    both = network("finetuned", "both")
    freeze(both, METHODS["finetuned"](), "method")
    text = lambda: unit(both.encode_text(tokens(1, 2, 3)))  # noqa: E731
    assert fisher(both, text, [batch(labels)], "sampled", 0)["clip.text.text_projection"].any()


def test_the_bar_over_the_fisher_information_ends_at_its_total() -> None:
    """Whatever is left of the clips after the last whole batch."""
    base = load("nano", device="cpu")
    clips = small_world(base)  # 12
    recipe = Recipe(epochs=1, batch_size=5, workers=0)
    with progress(quiet=True) as bars:
        student = student_of(base, METHODS["ewc"]())
        freeze(student.model, METHODS["ewc"](), "method")
        bank = student.bank(clips.videos.classes)
        seen = training_clips(student, bank, clips, recipe, Drawn(bars))
        METHODS["ewc"]().regulariser(base.clip, student.model, seen)
        (bar,) = bars.tasks
    assert (bar.completed, bar.total) == (2, 2)


def test_weights_after_training() -> None:
    tuned = network("adaptformer", "official")
    state, start = (
        {name: x.clone() for name, x in tuned.state_dict().items()},
        start_of(tiny_clip()),
    )
    layers = METHODS["adaptformer"].output_layers
    with torch.no_grad():
        tuned.load_state_dict(towards(start, state, 1.0, layers))
        close(tuned.encode_frames(clips()), tiny_clip().encode_image(clips()), atol=1e-6)
        tuned.load_state_dict(towards(start, state, 0.0, layers))
        close(
            tuned.encode_frames(clips()),
            network("adaptformer", "official").encode_frames(clips()),
            atol=0,
            rtol=0,
        )
    frozen, other = torch.randn(2, 5), torch.randn(2, 5)
    for space, same_as in (("logit", lambda x: x), ("prob", lambda x: x.softmax(-1))):
        assert torch.equal(ensemble(frozen, other, 1.0, space), same_as(frozen))  # type: ignore[arg-type]
        assert torch.equal(ensemble(frozen, other, 0.0, space), same_as(other))  # type: ignore[arg-type]


# Where distillation attaches.


def attached(
    name: str, variant: str, level: str = "frame", tune: str = "method"
) -> tuple[bool, bool, list[str]]:
    method = method_of(name, variant)
    model = method.build(tiny_clip())
    freeze(model, method, tune)
    return attach(model, Distill(level=level), name)  # type: ignore[arg-type]


def test_distillation_says_where_it_has_no_gradient() -> None:
    assert attached("vclip", "step1") == (True, True, [])
    vision, text, notes = attached("aim", "official")
    assert (vision, text) == (True, False) and "text is frozen" in notes[0]
    vision, text, notes = attached("finetuned", "text")
    assert (vision, text) == (False, True) and "image side is frozen" in notes[0]
    assert attached("efficient-prompt", "", "video") == (True, True, [])
    with pytest.raises(UsageError, match="--level video"):
        attached("efficient-prompt", "", "frame")
    with pytest.raises(UsageError, match="--distill none"):
        attached("frozen", "")


def test_a_student_equal_to_its_teacher_is_not_pulled() -> None:
    """RFD at exact initialisation: no loss and no gradient; VCLIP with CLIP's weights is another
    network already."""
    bank = PromptBank(Names(), LABELS, 77, PROMPTING)  # type: ignore[arg-type]
    frames = clips()
    for name, equal in (("finetuned", True), ("vclip", False)):
        student = network(name, next(iter(METHODS[name].variants)))
        task = Task(student, bank, teacher=Teacher(tiny_clip(), Distill()))
        rng = random.Random(0)
        outputs = task.outputs(frames, torch.tensor([0, 1]), [0, 1], rng)
        losses, report = task.losses(frames, outputs, rng)
        assert (float(report["distill_v"]) < 1e-6) == equal
        assert float(report["distill_t"]) < 1e-6
        assert task.distill is not None
        sum(losses.values()).backward()
        w1 = task.distill.projector_v.w1.weight.grad  # type: ignore[union-attr]
        assert w1 is not None and not w1.any()  # W1 waits until W2 has moved


@torch.no_grad()
def test_text_cut_to_its_length_is_the_same_for_learned_prompts() -> None:
    long = torch.nn.functional.pad(tokens(2, 5), (0, 20))
    for name in ("efficient-prompt", "vita-clip", "finetuned"):
        model = network(name)
        close(
            class_embeddings(model.encode_text(long)[None]),
            class_embeddings(model.encode_text(tokens(2, 5))[None]),
            atol=1e-5,
        )
