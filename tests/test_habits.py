"""Do the classes of a training set have habits? A set in which each class has its usual scene and one
in which it has not get the two answers; what cannot be measured is one sentence."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from froster.data.manifest import Item, read_items
from froster.errors import DataError, UsageError
from froster.evaluation.habits import habits
from froster.methods import METHODS
from froster.training.fine_tune import student_of
from froster.training.habits import CLASSES, measure_habits, scene_words, source_of
from froster.training.measure import Measuring
from froster.training.reporter import Reporter
from froster.world import motion, render
from froster.world.files import write_video
from froster.world.scenes import textures
from froster.world.vocabulary import COLOURS, NOUNS
from typed import one_line

pytestmark = pytest.mark.usefixtures("few_templates_throughout")

THINGS = ("cat", "key", "boat", "clock", "apple", "ladder")
CLIPS = 10


def clip(noun: str, scene: int, rng: np.random.Generator) -> torch.Tensor:
    """Two frames (2, 3, 60, 60) of a thing at rest in a scene."""
    size, (y, x) = render.FRAME_SIZE, rng.integers(0, 24, 2)
    canvas = textures()[scene, rng.integers(16, 24)][None, :, y : y + size, x : x + size].float()
    pose = motion.at_rest(*rng.uniform(18, 42, 2), rng.uniform(10, 14), rng.uniform(-0.2, 0.2))
    planes = render.coverage(torch.tensor([NOUNS.index(noun)]), torch.from_numpy(pose)[None], size)
    colour = torch.tensor([list(COLOURS.values())[rng.integers(len(COLOURS))]]).float()
    canvas = render.lay_over(canvas, planes, colour)
    return render.photograph(canvas, torch.ones(1), [rng]).repeat(2, 1, 1, 1)


def videos(root: Path, strength: float, seed: int = 0) -> Path:
    """A folder a class; a clip is in its class's usual scene with probability `strength`."""
    rng = np.random.default_rng(seed)
    for usual, thing in enumerate(THINGS):
        for number in range(CLIPS):
            scene = 2 * usual if rng.random() < strength else int(rng.integers(12))
            write_video(root / thing / f"{number}.mp4", clip(thing, scene, rng))
    return root


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("usual"), 0.9)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("free"), 0.0)


def test_the_doctor_gives_the_two_answers(run, usual: Path, free: Path) -> None:
    with_habits = run("doctor", usual, "--habits", "--model", "nano", "--workers", 0)
    assert with_habits.code == 0, with_habits.err
    assert "your classes have habits: scene words alone tell" in with_habits.out
    assert "its scene" in with_habits.out
    without = run("doctor", free, "--habits", "--model", "nano", "--workers", 0, "--json")
    values = without.json["habits"]
    assert values["kind"] == "none" and values["sentence"].startswith("no habit found: ")
    assert values["clips"] == len(THINGS) * CLIPS and values["chance"] == pytest.approx(100 / 6)
    assert values["accuracy"] - values["shuffled"] < 2 * values["error"]
    assert "habits" not in run("doctor", free, "--json").json


def test_train_says_it_and_the_page_shows_it(run, usual: Path, tmp_path: Path) -> None:
    options = ("--model", "nano", "--epochs", 1, "--workers", 0, "--blend-points", 0, "--json")
    result = run("train", "--data", usual, *options, "--out", tmp_path / "run")
    assert result.code == 0, result.err
    measured = result.json["habits"]
    assert measured["kind"] == "habits" and measured["sentence"] in result.err
    assert measured["clips"] == result.json["training_videos"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Habits of the classes" in page and measured["habits"][0]["word"] in page
    for path in [path for thing in THINGS[:2] for path in sorted((usual / thing).iterdir())[:4]]:
        (tmp_path / "few" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "few" / path.parent.name)
    blind = ("--data", tmp_path / "few", "--no-look", "--out", tmp_path / "blind")
    again = run("train", *options, *blind)
    assert again.json["habits"] is None
    assert "Habits" not in (tmp_path / "blind" / "report.html").read_text()


def drawn(seed: int, strength: float) -> tuple[list[int], list[str]]:
    """Words and labels of 400 clips of 8 classes with 8 words."""
    rng = random.Random(seed)
    labels = [i % 8 for i in range(400)]
    best = [label if rng.random() < strength else rng.randrange(8) for label in labels]
    return best, [f"class {label}" for label in labels]


WORDS = [f"word {i}" for i in range(8)]


def test_the_number_is_what_the_words_tell() -> None:
    whole = habits(WORDS, *drawn(0, 1.0), range(400))
    assert (whole.accuracy, whole.share, whole.kind) == (100, 100, "habits")
    assert whole.habits[0].share == 100 and whole.habits[0].elsewhere == 0
    assert whole.habits[0].word == whole.habits[0].label.replace("class", "word")
    half = habits(WORDS, *drawn(1, 0.5), range(400))
    assert half.accuracy == pytest.approx(100 * (0.5 + 0.5 / 8), abs=2 * half.error)
    for seed in range(5):
        none = habits(WORDS, *drawn(seed, 0.0), range(400))
        assert none.kind == "none", none.sentence
        assert none.shuffled == pytest.approx(12.5, abs=3) and none.chance == 12.5


def test_a_large_class_is_no_habit() -> None:
    rng = random.Random(0)
    labels = ["large"] * 180 + ["small"] * 20
    result = habits(WORDS, [rng.randrange(8) for _ in labels], labels, range(200))
    assert result.chance == 90 and result.accuracy == pytest.approx(90, abs=3)
    assert result.kind != "habits"


def test_few_clips_are_said_to_be_few() -> None:
    result = habits(WORDS, [0, 1, 0, 1, 2, 2, 3, 1], ["a", "b"] * 4, range(8))
    assert result.kind == "too few" and result.sentence.startswith("too few clips to tell")


def test_clips_of_one_video_are_held_out_together() -> None:
    """Ten clips of one recording look alike, whatever is done in it; told from each other they would
    be a habit."""
    rng = random.Random(0)
    words = [f"word {i}" for i in range(40)]
    best, labels, sources = [], [], []
    for source in range(40):
        for _ in range(10):
            best.append(rng.randrange(40) if rng.random() < 0.1 else source)
            labels.append(f"class {source % 4}")
            sources.append(source)
    assert habits(words, best, labels, range(400)).kind == "habits"
    together = habits(words, best, labels, sources)
    assert together.kind != "habits"
    assert together.error > habits(words, best, labels, range(400)).error


@pytest.mark.parametrize(
    ("name", "columns", "source"),
    [
        ("v_Archery_g08_c02.avi", {"group": "g08"}, "v_Archery_g08"),
        ("0wR5jVB-WPk_000417_000427.mp4", {}, "0wR5jVB-WPk"),
        ("a.mp4", {"group": "film 3"}, "film 3"),
        ("a.mp4", {"group": ""}, "x/a.mp4"),
    ],
)
def test_what_a_clip_was_cut_from(name: str, columns: dict[str, str], source: str) -> None:
    assert source_of(Item(Path("x", name), "", columns=columns)) == source


def test_what_cannot_be_measured_is_one_sentence(nano, usual: Path, tmp_path: Path) -> None:
    def items(*labels: str) -> list[Item]:
        return [Item(usual / "cat" / f"{i}.mp4", label) for i, label in enumerate(labels)]

    for some, words in (
        (items("a", "a", "a"), "1 class with clips has no habit that others have not"),
        (items("a", "b", "c"), "no class has two clips of different videos"),
        (items("a", "a", "b", "c"), "only one class has clips of two videos"),
        ([], "0 class"),
    ):
        with pytest.raises(DataError, match=words):
            measure_habits(nano, some, Measuring())
    gone = [Item(tmp_path / f"{i}.mp4", "ab"[i % 2]) for i in range(4)]
    with pytest.raises(DataError, match="none of the 4 videos can be read"):
        measure_habits(nano, gone, Measuring())
    tuned = student_of(nano, METHODS["vclip"].make())
    with pytest.raises(UsageError, match="by a frozen CLIP, not by one that is vclip"):
        measure_habits(tuned, items("a", "a", "b", "b"), Measuring())


def test_of_many_classes_some_are_looked_at(
    nano, usual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of very many there was a video each, and none to hold out."""
    monkeypatch.setattr("froster.training.habits.MOST", 4)
    monkeypatch.setattr("froster.training.habits.CLASSES", 2)
    items = [Item(usual / thing / f"{i}.mp4", thing) for thing in THINGS for i in range(3)]
    lines: list[str] = []
    reporter = Reporter()
    reporter.say = lines.append  # type: ignore[method-assign]
    result = measure_habits(nano, items, Measuring(reporter=reporter))
    assert (result.clips, result.classes) == (4, 2)
    assert lines == [f"habits are looked for in 2 of {len(THINGS)} classes, drawn"]


def test_hundreds_of_classes_share_scenes() -> None:
    """Why some are drawn: eight in ten clips in their class's usual scene, and nothing is seen."""
    rng = random.Random(0)
    words = [str(number) for number in range(123)]

    def found(classes: int, clips: int) -> str:
        usual = [rng.randrange(20) for _ in range(classes)]
        labels = [f"{c}" for c in range(classes) for _ in range(clips)]
        best = [usual[int(c)] if rng.random() < 0.8 else rng.randrange(123) for c in labels]
        return habits(words, best, labels, range(len(labels))).kind

    assert (found(400, 5), found(CLASSES, 80)) == ("none", "habits")


def test_the_doctor_says_it_too(run, usual: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "empty").mkdir()
    for number in range(2):
        (tmp_path / "one" / "cat" / f"{number}.mp4").symlink_to(usual / "cat" / f"{number}.mp4")
    asked = ("--habits", "--model", "nano", "--workers", 0)
    result = run("doctor", tmp_path / "one", *asked)
    assert result.code == 0
    assert "habits of the classes are not known: 1 class with clips" in " ".join(result.out.split())
    one_line(run("doctor", usual / "cat" / "0.mp4", *asked), 2, "--habits needs labels")
    one_line(run("doctor", usual, "--model", "nano"), 2, "--model is for --habits")


def test_the_doctor_looks_at_the_same_parts_and_labels_as_train(
    run, nano, usual: Path, tmp_path: Path
) -> None:
    rows = [
        f"{usual / thing}/{i}.mp4,{label},{span}"
        for thing in THINGS[:2]
        for i in range(3)
        for label, span in ((thing, "0,0.125"), ("all", "0,0.125"), (thing, "0.125,0.25"))
    ]
    (tmp_path / "m.csv").write_text("\n".join(["path,label,start,end", *rows]))
    result = run("doctor", tmp_path / "m.csv", "--habits", "-m", "nano", "--workers", 0, "--json")
    expected = measure_habits(nano, read_items(tmp_path / "m.csv"), Measuring())
    assert result.json["habits"] == expected.to_dict() and expected.clips == len(rows)


def test_the_shipped_words_are_scenes(nano) -> None:
    words = scene_words()
    assert len(set(words)) == len(words) > 100
    # Things are none: "in a boat" tells the classes with a boat, wherever they are filmed.
    assert not {word for line in words for word in line.split()} & set(NOUNS)
    nano.tokenizer([f"a photo taken {word}." for word in words], 77, False)  # none is too long
    assert {"in a swimming pool", "at night", "indoors", "outdoors", "from above"} <= set(words)
