"""What is said before a training begins: each warning on data that deserves it, and silence on data
that does not."""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path

import av
import pytest
from av.video.reformatter import VideoReformatter

from froster.data.manifest import Item
from froster.data.rows import read_table
from froster.data.splits import SPARE_MOST, misspelt, split
from froster.errors import DataError
from froster.inference.recognizer import load
from froster.methods.recipe import FROSTER, Recipe
from froster.training import checks, plan
from froster.video.reader import Video
from golden import shared
from shared_files import World


def items(counts: dict[str, int], word: str | None = None) -> list[Item]:
    return [
        Item(Path(f"{label}/{i}.mp4"), label, word) for label, n in counts.items() for i in range(n)
    ]


def again(source: Path, target: Path, scale: float, crf: int) -> Path:
    """The same video, scaled and encoded anew."""
    with Video(source) as video:
        frames, fps = video.read(range(video.num_frames)).numpy(), round(video.fps)
    height, width = (int(side * scale) // 2 * 2 for side in frames.shape[1:3])
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        converter = VideoReformatter()
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = converter.reformat(picture, width, height, threads=1)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target


def test_classes_with_few_clips() -> None:
    assert checks.few_clips(items({"a": 4, "b": 9})) == []
    (line,) = checks.few_clips(items({"a": 1, "b": 9, "c": 3}))
    assert line.startswith("2 of 3 classes have fewer than 4 training videos") and line.endswith(
        "a (1), c (3)"
    )


def test_classes_of_unequal_size() -> None:
    assert checks.imbalance(items({"a": 4, "b": 20})) == []
    (line,) = checks.imbalance(items({"a": 4, "b": 21}))
    assert "b has 21 training videos, a 4" in line and "--shots 4" in line


def test_classes_without_a_test_video() -> None:
    parts = split([*items({"a": 3, "b": 3}, "train"), *items({"a": 1}, "test")])
    assert checks.missing_tests(parts) == [
        "1 of 2 classes have no test video, so nothing is known of b"
    ]


def test_labels_that_clip_reads_as_the_same() -> None:
    """Nano tells the two ways to move apart in half of the cases: its text embeddings nearly
    coincide."""
    nano = load("nano", device="cpu")
    assert (
        checks.same_labels(nano, ["cat spinning", "cat pulsing", "car swinging", "car pacing"])
        == []
    )
    (line,) = checks.same_labels(nano, ["cat moving left", "fish bouncing", "cat moving right"])
    assert "a pair of labels" in line and "'cat moving left' and 'cat moving right' (0.999)" in line


def test_the_same_video_in_training_and_test(tmp_path: Path) -> None:
    videos = World("base", 2)
    paths = [videos.write(i, tmp_path / f"{i}.mp4") for i in range(6)]
    known = [Item(path, "x") for path in paths]
    copy = Item(again(paths[3], tmp_path / "copy.mp4", 1.5, 28), "x")
    (tmp_path / "broken.mp4").write_bytes(b"x")
    assert checks.near_duplicates(known[:3], known[3:]) == []
    (line,) = checks.near_duplicates([*known, Item(tmp_path / "broken.mp4", "x")], [copy])
    assert "1 of 1 test videos" in line and line.endswith("copy.mp4 = 3.mp4")
    assert checks.near_duplicates([], [copy]) == []


def test_real_clips_that_are_there_twice_are_found_and_no_others(tmp_path: Path) -> None:
    """Weizmann's camera stands still: those clips differ in what moves alone."""
    root = shared("videos")
    rows = list(csv.DictReader((root / "manifest.csv").read_text().splitlines()))
    clips = [
        Item(root / row["path"], row["label"]) for row in rows if row["dataset"] == "Weizmann"
    ][:30]
    copies = [
        Item(again(item.path, tmp_path / f"copy-{i}.mp4", 1, 28), "x")
        for i, item in enumerate(clips[:9:4])
    ]
    assert checks.near_duplicates(clips[:15], clips[15:]) == []
    (line,) = checks.near_duplicates(clips, copies)
    assert line.startswith("3 of 3 test videos")
    assert all(f"copy-{i}.mp4 = {clips[4 * i].path.name}" in line for i in range(3))


def test_defaults_follow_the_number_of_videos() -> None:
    few = split(items(dict.fromkeys("abcd", 10)), holdout=0.2, validation=0.0)
    found = plan.choose(FROSTER.recipe, few, set(), plain=True)
    assert (found.recipe.batch_size, found.recipe.epochs, found.recipe.patience) == (4, 19, None)
    assert [line.split()[0] for line in found.why] == ["batch", "up", "fewer", "all"]
    many = split(items({f"{i}": 200 for i in range(10)}), validation=0.1)
    found = plan.choose(FROSTER.recipe, many, set(), plain=True)
    assert (found.recipe.batch_size, found.recipe.epochs, found.recipe.patience) == (32, 12, 6)


def test_what_was_asked_for_is_obeyed() -> None:
    parts = split(items({f"{i}": 20 for i in range(10)}), validation=0.1)
    own = Recipe(epochs=2, batch_size=64, patience=1)
    asked = plan.choose(own, parts, {"epochs", "batch_size", "patience", "shots"}, plain=True)
    assert asked == plan.ChosenRecipe(own, [])
    asked = plan.choose(Recipe(epochs=50), parts, {"epochs"}, plain=True)
    assert (asked.recipe.epochs, asked.recipe.patience) == (50, None), "--epochs 50 is fifty epochs"


def test_published_recipes_are_left_alone() -> None:
    named = items({"a": 3, "b": 3}, "train")
    assert not plan.is_plain(named, None)
    assert not plan.is_plain(items({"a": 3}), "froster")
    parts = split(named, validation=0.0)
    assert plan.choose(FROSTER.recipe, parts, set(), plain=False) == plan.ChosenRecipe(
        FROSTER.recipe, []
    )


def test_nothing_depends_on_the_number_of_processes() -> None:
    parts = split(items({f"{i}": 200 for i in range(10)}), validation=0.1)
    few = split(items({"a": 20, "b": 20}), validation=0.0)
    for world in (2, 3, 8):
        alone = plan.choose(FROSTER.recipe, parts, set(), True)
        assert plan.choose(FROSTER.recipe, parts, set(), True, world) == alone
        found = plan.choose(FROSTER.recipe, few, set(), True, world)
        assert found.recipe.batch_size == 4
        idle = [line for line in found.why if "leaves 4 of 8 processes without any" in line]
        assert bool(idle) == (world == 8)


def test_what_is_watched_is_taken_from_training_only_if_nothing_is_left_over() -> None:
    counts = dict.fromkeys("abc", 20)
    parts = split(items(counts), holdout=0.2, validation=0.25)
    assert (len(parts.train), len(parts.base_test), len(parts.validation)) == (36, 12, 12)
    assert not {i.path for i in parts.validation} & {
        i.path for i in (*parts.train, *parts.base_test)
    }
    assert not split(items(counts), holdout=0.2, validation=0.0, shots=5).validation
    shots = split(items(counts), holdout=0.2, validation=0.25, shots=5)
    assert (len(shots.train), len(shots.validation)) == (15, 33), "those that the shots leave over"
    assert shots.train == split(items(counts), holdout=0.2, shots=5).train
    validation = [*items(counts, "train"), *items(counts, "test"), *items({"a": 4, "b": 2}, "val")]
    assert (len(split(validation, validation=0.25).train), len(split(validation).validation)) == (
        60,
        6,
    )
    assert split(items({"a": 4, "b": 4}), validation=0.5).validation == [], (
        "too few to take any away"
    )
    assert len(split(items(dict.fromkeys("ab", 2000)), shots=100).validation) == SPARE_MOST


def test_how_many_are_watched_follows_their_number() -> None:
    assert plan.validation_share(99) is None
    watched = [n * (plan.validation_share(n) or 0) for n in (100, 125, 200, 1000, 10_000)]
    assert watched == pytest.approx([20, 25, 25, 100, 200])


def test_a_mistyped_label_is_named() -> None:
    counts = Counter(
        {"archery": 12, "archry": 1, "Surfing": 8, "surfnig": 2, "key 1": 1, "key 2": 9}
    )
    (note,) = misspelt(counts)
    assert "'archry' (1) and 'archery' (12), 'surfnig' (2) and 'Surfing' (8)" in note
    assert "key" not in note
    assert not misspelt(
        Counter({"a": 1, "b": 9, "walking": 5, "talking": 5, "punch": 1, "run": 20})
    )


def test_captions_of_a_video_or_two_are_not_compared() -> None:
    """A hundred thousand took 20 s and 1.7 GB."""
    captions = Counter(
        {f"a person who does {number:b}": 1 + number % 2 for number in range(30_000)}
    )
    begun = time.process_time()
    assert not misspelt(captions) and not misspelt(Counter())
    assert time.process_time() - begun < 1


def test_a_video_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0" * 10)
    with pytest.raises(DataError, match="is a video: expected a folder"):
        read_table(tmp_path / "a.mp4")
