"""Does a network use motion? The probes change the order of a clip's frames and nothing else, and
what is said of the difference is no more than the videos show."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from froster.errors import UsageError
from froster.evaluation.metrics import Predictions, Scorer
from froster.evaluation.metrics import evaluate as scored
from froster.evaluation.probes import PROBES, Probe, frame_order
from froster.inference.recognizer import Recognizer
from froster.methods import METHODS
from froster.training.evaluate import evaluate
from froster.training.fine_tune import student_of
from froster.training.measure import EvalSet
from froster.training.probes import NO_ORDER, orders_of, probe_lines, probes_of
from froster.world.clips import WorldClips
from froster.world.files import write_video
from froster.world.sets import SETS, render_set
from typed import one_line

CLASSES = SETS["base"].classes[:4]


class CountedClips(WorldClips):
    """How often each video is read."""

    reads: Counter[int]

    def __getitem__(self, index: int):
        self.reads[index] += 1
        return super().__getitem__(index)


def some_set(model: Recognizer) -> EvalSet:
    videos = render_set("base", 2, split="val")
    some = dataclasses.replace(
        videos, frames=videos.frames[:8], labels=videos.labels[:8], classes=CLASSES
    )
    clips = CountedClips(some, model.config.sampling, train=False, views=2)
    clips.reads = Counter()
    return EvalSet("base", clips, CLASSES)


def in_orders(model: Recognizer, one: EvalSet, orders: Sequence[Probe | None]) -> list[Predictions]:
    """As `froster evaluate` scores them: all orders from one decode of a video."""
    classes = model.class_embeddings(CLASSES)
    scorers = [Scorer(model.inference, classes, model.dtype, probe=order) for order in orders]
    return scored(scorers, one.dataset, CLASSES)


def network(nano: Recognizer, name: str, variant: str | None = None) -> Recognizer:
    torch.manual_seed(0)
    return student_of(nano, METHODS[name].make(variant).for_classes(CLASSES))


def shaken(model: Recognizer) -> Recognizer:
    """Every weight of the image side a little off: what a method leaves at zero until it is trained
    does something too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.model.named_parameters():
            if weight.ndim and not name.startswith("clip.text."):
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8, 16, 32, 64])
def test_orders_keep_the_frames_and_break_every_pair_of_neighbours(frames: int) -> None:
    assert frame_order("static", frames) == [frames // 2] * frames
    assert frame_order("reversed", frames) == list(range(frames - 1, -1, -1))
    order = frame_order("shuffled", frames)
    assert sorted(order) == list(range(frames)) and order == frame_order("shuffled", frames)
    assert frames < 2 or order != list(range(frames))
    if frames >= 4:
        assert all(abs(a - b) > 1 for a, b in pairwise(order))


@pytest.mark.parametrize("name", ["frozen", "finetuned"])
def test_a_network_that_sees_frames_alone_answers_all_orders_alike(nano, name: str) -> None:
    """By construction, so that nothing is computed; and it is so where it is computed."""
    model = shaken(network(nano, name)) if name == "finetuned" else nano
    one = some_set(model)
    assert orders_of(model, PROBES) == [None, "static"]
    usual, *probed = in_orders(model, one, [None, "shuffled", "reversed"])
    lines = list(probe_lines("base", probes_of(usual, {"shuffled": usual, "reversed": usual})))
    assert len(lines) == 1 and NO_ORDER in lines[0]
    for predictions in probed:
        assert predictions.logits.argmax(1).equal(usual.logits.argmax(1))
        assert torch.allclose(predictions.logits, usual.logits, atol=1e-3)


@pytest.mark.parametrize("name", list(METHODS))
def test_only_networks_that_cannot_know_the_order_are_spared_the_work(nano, name: str) -> None:
    """The promise of `ignores_order`, of every method that can be built on the nano."""
    try:
        model = shaken(network(nano, name))
    except UsageError:
        pytest.skip("not for this encoder")
    frames = torch.rand(2, model.config.sampling.frames, 3, 60, 60)
    with torch.no_grad():
        before, after = (
            model.model.encode(frames[:, order]).video
            for order in (slice(None), frame_order("shuffled", frames.shape[1]))
        )
    if model.model.ignores_order:
        assert torch.allclose(before, after, atol=1e-5)
    assert model.model.ignores_order or name not in ("frozen", "finetuned", "lora")


def test_a_probe_shows_the_same_clips_in_its_order_from_one_decode(nano) -> None:
    model = shaken(network(nano, "vclip"))
    one = some_set(model)
    orders = orders_of(model, PROBES)
    assert orders == [None, *PROBES]
    usual, *others = in_orders(model, one, orders)
    probed = dict(zip(PROBES, others, strict=True))
    assert set(one.dataset.reads.values()) == {1}  # type: ignore[attr-defined]
    views = torch.stack([one.dataset[i].frames for i in range(8)])  # (N, V, T, 3, S, S)
    classes = model.class_embeddings(CLASSES)
    for probe, predictions in [(None, usual), *probed.items()]:
        shown = views if probe is None else views[:, :, frame_order(probe, views.shape[2])]
        seen = model.encode_clips(shown.flatten(0, 1))
        expected = model.model.logits(seen.video, classes).unflatten(0, views.shape[:2])
        assert torch.allclose(predictions.views, expected, atol=1e-3), probe
    for probe in ("static", "shuffled"):
        assert not torch.allclose(probed[probe].views, usual.views, atol=1e-3)
    # A frame of VCLIP attends to both its neighbours alike: it cannot know which came first.
    assert torch.allclose(probed["reversed"].views, usual.views, atol=1e-3)


def answers(right: list[int], classes: int = 2) -> Predictions:
    """A 1 is a video that is named right; every other video is of the second class."""
    labels = torch.arange(len(right)) % classes
    logits = torch.zeros(len(right), classes)
    wrong = (labels + 1) % classes
    best = torch.where(torch.tensor(right) > 0, labels, wrong)
    logits[torch.arange(len(right)), best] = 1
    return Predictions([f"class {i}" for i in range(classes)], labels, logits)


def test_what_is_said_is_what_the_videos_show() -> None:
    usual = answers([1] * 40)
    lost = answers([0, 1] * 20)  # the first class, whole
    report = probes_of(usual, {"static": usual.rows(list(range(40))), "shuffled": lost})
    assert report["shuffled"]["lost_classes"] == ["class 0"]
    assert list(report["shuffled"]["per_class"]) == ["class 0", "class 1"]
    assert report["shuffled"]["per_class"]["class 0"]["gain"] == -100
    assert (report["shuffled"]["gain"], report["shuffled"]["other_answers"]) == (-50, 50)
    assert report["shuffled"]["error"] == pytest.approx(100 * 20**0.5 / 40)
    static, shuffled, classes = probe_lines("test", report)
    assert "not one answer changes: no need of more than one frame is seen" in static
    assert "-50.0 ± 11.2" in shuffled and "the order of the frames is used" in shuffled
    assert "1 of 2 classes lose" in classes and classes.endswith("class 0")
    few = probes_of(answers([1] * 4), {"reversed": answers([0, 0, 1, 1])})
    (line,) = probe_lines("test", few)
    assert "within the error" in line and "no use of the direction of time is seen" in line
    assert "(less than 70.7 points would not show)" in line


def test_an_unreadable_video_is_no_answer() -> None:
    usual = answers([1, 1])
    usual.logits[1] = float("nan")
    assert probes_of(usual, {"static": usual})["static"]["other_answers"] == 0
    usual.logits[0] = float("nan")
    (line,) = probe_lines("test", probes_of(usual, {"static": usual.rows([0, 1])}))
    assert line.endswith("not one video can be read, so that nothing is known of it")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("probes")
    rendered = render_set("base", 2, split="val")
    lines = ["path,label,split"]
    for i in range(8):
        label = rendered.classes[int(rendered.labels[i])]
        write_video(root / f"{i}.mp4", rendered.frames[i])
        lines.append(f"{i}.mp4,{label},{'test' if i % 2 else 'validation'}")
    (root / "list.csv").write_text("\n".join(lines))
    return root / "list.csv"


def test_the_command_of_two_splits(run, videos: Path, nano, tmp_path: Path) -> None:
    """A network with attention over time; probes by split, in JSON and on the page."""
    shaken(network(nano, "vclip")).save(tmp_path / "m", {"base_classes": CLASSES[:2]})
    options = ("--split", "validation", "--split", "test", "--workers", 0)
    probes = [word for probe in PROBES for word in ("--probe", probe)]
    asked = ("evaluate", "--data", videos, "--model", tmp_path / "m", *options, *probes)
    result = run(*asked, "--out", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    for split in ("validation", "test"):
        values = result.json["splits"][split]
        assert list(values["probes"]) == list(PROBES)
        for probe in values["probes"].values():
            assert probe["before"] == values["top1"] and not probe["by_construction"]
            assert set(probe["groups"]) == {"base", "novel"}
            assert {name: c["before"] for name, c in probe["per_class"].items()} == values[
                "per_class"
            ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Is motion used? test" in page and "the frames of each clip backwards" in page
    shown = run(*asked)
    assert "reversed" in shown.out and "test, static (" in " ".join(shown.err.split())


def test_the_command_says_it_of_frozen_clip(run, videos: Path, tmp_path: Path) -> None:
    result = run(
        *("evaluate", "--data", videos, "--model", "nano", "--out", tmp_path / "out"),
        *("--probe", "shuffled", "--workers", 0),
    )
    assert NO_ORDER in " ".join(result.err.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert NO_ORDER in page and "probes_test" not in page
    assert "shuffled" not in result.out, "no column of zeros"


def test_another_probe_is_refused(run, videos: Path) -> None:
    one_line(
        run("evaluate", "--data", videos, "--model", "nano", "--probe", "mirrored"), 2, "probe"
    )
    with pytest.raises(UsageError, match="static, shuffled or reversed"):
        evaluate(videos, "nano", probe=["mirrored"])
