"""Label-set distances as the released code has them and as they are defined, and the pictures made
from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from froster.encoders.model import unit
from froster.errors import UsageError
from froster.evaluation.metrics import Predictions
from froster.inference.recognizer import load
from froster.report.distance import (
    Nearest,
    class_gains,
    confusion_matrix,
    confusion_picture,
    gain_scatter,
    nearest,
    rank_correlation,
    similarity_histogram,
)
from golden import shared
from typed import one_line


def facts() -> dict:
    return json.loads(shared("fixtures", "facts_dataset_distance.json").read_text())


def measured(names: list[str], to_names: list[str], table: dict, **options) -> Nearest:
    features = lambda chosen: torch.tensor([table[name] for name in chosen])  # noqa: E731
    found = nearest(names, features(names), to_names, features(to_names), **options)
    assert found is not None
    return found


@pytest.mark.parametrize("case", ["all", "remove_overlap", "split_half_of_source"])
def test_the_released_numbers(case: str) -> None:
    known = facts()
    source, target, table = known["source"], known["target"], known["features"]
    if case == "split_half_of_source":
        found = measured(source[1::2], source[::2], table)
    else:
        found = measured(target, source, table, overlap=case == "all")
    expected = known[case]
    assert found.mean == pytest.approx(expected["mean_of_max_exact"], abs=1e-7)
    assert round(found.mean, 4) == expected["mean_of_max"]
    assert found.largest == pytest.approx(expected["max_of_max"], abs=1e-6)
    assert found.smallest == pytest.approx(expected["min_of_max"], abs=1e-6)


def test_hausdorff_is_the_largest_step_to_a_nearest_name() -> None:
    """By its definition, pair by pair, and not the same in both directions."""
    known = facts()
    source, target = known["source"], known["target"]
    x = {name: unit(torch.tensor(values)) for name, values in known["features"].items()}
    steps = {}
    for A, B in ((source, target), (target, source)):
        by_hand = max(min(1 - float(x[a] @ x[b]) for b in B) for a in A)
        steps[len(A)] = measured(A, B, known["features"]).hausdorff
        assert steps[len(A)] == pytest.approx(by_hand, abs=1e-6)
    assert steps[len(source)] != steps[len(target)]
    assert measured(source[:3], source, known["features"]).hausdorff == pytest.approx(0, abs=1e-6)


def test_nothing_is_left_of_equal_sets() -> None:
    names = ["a", "b"]
    assert nearest(names, torch.eye(2), names, torch.eye(2), overlap=False) is None
    found = nearest(["A", "b"], torch.eye(2), names, torch.eye(2), overlap=False)
    assert found is not None
    assert found.names == ["A"]  # spelt exactly alike, as the released code compares


def test_distance_of_label_sets(run, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(
        "ball bouncing: it goes up and down\nmoon glowing\nguitar tumbling\n"
    )
    out = tmp_path / "distance.png"
    result = run(
        "distance",
        "moon glowing, kite flying",
        tmp_path / "train.txt",
        "--model",
        "nano",
        "--out",
        out,
        "--json",
    )
    assert result.code == 0, result.err
    report = result.json
    assert [entry["labels"] for entry in report["sets"]] == [2, 3]
    assert report["overlap"] == ["moon glowing"]
    there, back = report["directions"]
    assert (there["released"]["names"], there["released_without_overlap"]["names"]) == (2, 1)
    assert there["released"]["max_of_max"] == pytest.approx(1, abs=1e-5)
    assert there["hausdorff"] == pytest.approx(1 - there["released"]["min_of_max"], abs=1e-6)
    assert report["hausdorff"] == max(there["hausdorff"], back["hausdorff"])
    # The bare names through the text tower, whatever templates the model has.
    model = load("nano", device="cpu")
    with torch.no_grad():
        a, b = (
            unit(model.clip.encode_text(model.tokenizer([name], 77)))
            for name in ("kite flying", "moon glowing")
        )
    assert there["released"]["min_of_max"] >= float(a @ b.T) - 1e-5
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert min(picture.shape[:2]) > 300
    assert (picture.reshape(-1, 3) != 255).any(axis=1).mean() > 0.02
    text = run("distance", "moon glowing,", tmp_path / "train.txt", "-m", "nano").out
    assert "Hausdorff" in text
    assert "without equal names" in text


def test_names_that_clip_reads_alike_are_equal(run) -> None:
    """CLIP's tokenizer knows no capitals."""
    result = run(
        "distance",
        "Archery, surfing",
        "archery, Sky  Diving, SURFING, sky diving in a suit",
        "-m",
        "nano",
        "--json",
    )
    report = result.json
    assert report["overlap"] == ["Archery", "surfing"]
    there, back = report["directions"]
    assert (
        there["hausdorff"] == pytest.approx(0, abs=1e-6)
        and there["released_without_overlap"] is None
    )
    assert back["released_without_overlap"]["names"] == 2
    assert (
        "equal names: 2"
        in run("distance", "Archery, surfing", "archery, SURFING", "-m", "nano").out
    )


def test_packaged_data_sets(run) -> None:
    names = pytest.importorskip("froster.data.public")
    assert "ucf101" in names.DATASETS
    result = run("distance", "HMDB51", "k400", "--model", "nano", "--json")
    there, back = result.json["directions"]
    # As the released code counts them: one HMDB name is spelt as in Kinetics-400.
    assert (there["released"]["names"], there["released_without_overlap"]["names"]) == (51, 50)
    assert (back["released"]["names"], back["released_without_overlap"]["names"]) == (400, 399)
    assert 0 < there["released"]["min_of_max"] < there["released"]["mean_of_max"] < 1


def test_distance_says_what_is_wrong(run, tmp_path: Path) -> None:
    one_line(run("distance", "k401", "a, b", "-m", "nano"), 2, "'k401'", "neither a file", "k400")
    one_line(run("distance", "a, b", "a, A", "-m", "nano"), 2, "more than once")
    one_line(run("distance", "a, b", "c, d", "-m", "nano", "--out", tmp_path / "x.pdf"), 2, ".png")


def points() -> tuple[dict[str, float], dict[str, float], Nearest]:
    """Thirty classes that gain the more the nearer they are to training."""
    names = [f"class {i}" for i in range(30)]
    similarity = torch.linspace(0.5, 0.95, 30)
    before = dict.fromkeys(names, 40.0)
    after = {
        name: 40 + 60 * (float(s) - 0.7) + (i % 3)
        for i, (name, s) in enumerate(zip(names, similarity, strict=True))
    }
    return before, after, Nearest(names, names, similarity)


def test_gains_against_distance(tmp_path: Path) -> None:
    before, after, training = points()
    shuffled = dict(sorted(after.items(), key=lambda item: item[1]))
    gains = class_gains(before, shuffled, training)
    assert [point.name for point in gains] == list(before)
    assert gains[0].similarity == pytest.approx(0.5)
    assert gains[-1].gain == pytest.approx(60 * 0.25 + 29 % 3)
    path = gain_scatter(gains, tmp_path / "gain.png", "a over b")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    green = (np.abs(picture - np.array([64, 182, 150])).sum(axis=2) < 60).nonzero()
    orange = (np.abs(picture - np.array([223, 134, 64])).sum(axis=2) < 60).nonzero()
    assert len(green[0]) > 100
    assert len(orange[0]) > 100
    # Classes that lost stand below and, in these points, to the left of those that gained.
    assert green[0].mean() < orange[0].mean()
    assert green[1].mean() > orange[1].mean()
    with pytest.raises(
        UsageError,
        match="1 of 30 classes are not in the tuned model's result, for example 'class 3'",
    ):
        class_gains(before, {name: x for name, x in after.items() if name != "class 3"}, training)
    with pytest.raises(UsageError, match="no class"):
        gain_scatter([], tmp_path / "none.png")
    gain_scatter(gains[:1], tmp_path / "one.png")


def test_rank_correlation() -> None:
    assert rank_correlation([1, 2, 3, 10], [0, 1, 5, 6]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, -100]) == pytest.approx(-1)
    # Worked by hand: ranks (0, 1.5, 1.5, 3) and (0, 1, 2, 3).
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(rank_correlation([1, 1], [1, 2]))


def test_confusion(tmp_path: Path) -> None:
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    seen = torch.tensor([0, 1, 1, 2, 0, 2])
    logits: Tensor = torch.nn.functional.one_hot(seen, 3).float()
    logits[5] = float("nan")  # an unreadable video
    counts = confusion_matrix(Predictions(["a", "b", "c"], labels, logits))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    path = confusion_picture(counts, ["a", "b", "c"], tmp_path / "confusion.png", "three classes")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    dark = np.array([8, 48, 107])  # a whole row in one cell: class b
    assert (np.abs(picture - dark).sum(axis=2) < 12).sum() > 500
    many = torch.eye(150, dtype=torch.long)
    assert (
        confusion_picture(many, [str(i) for i in range(150)], tmp_path / "many.png").stat().st_size
        > 10_000
    )


def test_histogram_of_one_direction(tmp_path: Path) -> None:
    path = similarity_histogram(
        {"a → b": Nearest(["x"], ["y"], torch.tensor([1.0000002]))}, tmp_path / "one.png"
    )
    assert Image.open(path).size[0] > 300
