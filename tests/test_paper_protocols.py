"""The published partitions, counts and choices, on manifests of the published sizes."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from froster.data import public
from froster.data.manifest import Item
from froster.errors import DataError, UsageError
from froster.paper.protocols import (
    Options,
    base_to_novel,
    base_to_novel_sets,
    cross_dataset,
    cross_training,
    read_list,
)
from froster.video.augment import FROSTER_AUGMENT
from froster.video.sampling import Sampling, Timing
from golden import shared
from paper_trees import write

RELEASED = Options()


def hmdb() -> list[Item]:
    """51 classes of 70 training, 30 test and 30 unused videos, others in each split."""
    items = []
    for name in public.classes("hmdb51"):
        for i in range(130):
            words = [
                "test" if (i + 30 * n) % 130 < 30 else "train" if (i + 30 * n) % 130 < 100 else ""
                for n in range(3)
            ]
            columns = dict(zip(("split", "split2", "split3"), words, strict=True))
            items.append(
                Item(
                    Path(f"/v/{name}/{name}_{i}.avi"),
                    public.readable(name),
                    words[0] or None,
                    columns,
                )
            )
    return items


def simple(dataset: str, train: int, test: int, split: str) -> list[Item]:
    return [
        Item(Path(f"/v/{number}_{i}.mp4"), name, "train" if i < train else split)
        for number, name in enumerate(public.classes(dataset))
        for i in range(train + test)
    ]


def ids(items: list[Item]) -> list[str]:
    return [item.path.stem for item in items]


def test_base_to_novel_has_the_published_classes_and_counts() -> None:
    counts = json.loads(shared("facts", "datasets.json").read_text())["published_clip_counts"][
        "B2N_hmdb"
    ]
    sets = base_to_novel_sets("hmdb51", hmdb(), RELEASED)
    assert len(sets) == 3
    for split in sets:
        assert (len(split.base), len(split.novel)) == (26, 25)
        parts = {"train": split.train, "val": split.base_test, "test": split.novel_test}
        assert {name: len(part) for name, part in parts.items()} == {
            name: counts[name]["clips"] for name in parts
        }
        assert split.notes == []
        assert set(Counter(item.label for item in split.train).values()) == {16}
        assert (
            {item.label for item in split.base_test}
            == set(split.base)
            == {item.label for item in split.train}
        )
        assert {item.label for item in split.novel_test} == set(split.novel)
        assert not {item.path for item in split.train} & {item.path for item in split.base_test}
    for dataset, base, shots in (("ssv2", 87, 1392), ("k400", 200, 3200)):
        split = base_to_novel(dataset, simple(dataset, 20, 3, "val"), RELEASED)
        assert (len(split.base), len(split.train), len(split.base_test)) == (base, shots, 3 * base)
        assert any(f"base test: {3 * base} videos, published" in note for note in split.notes)


def test_three_seeded_base_sets_differ_and_are_reproducible() -> None:
    first = [ids(split.train) for split in base_to_novel_sets("hmdb51", hmdb(), RELEASED)]
    assert first[0] != first[1] != first[2] != first[0]
    shuffled = [
        dataclasses.replace(item, path=Path("/elsewhere") / item.path.name) for item in hmdb()
    ]
    random.Random(3).shuffle(shuffled)
    again = [ids(split.train) for split in base_to_novel_sets("hmdb51", shuffled, RELEASED)]
    assert first == again, (
        "a draw depends neither on the order of a manifest nor on where the videos lie"
    )
    tests = [ids(split.novel_test) for split in base_to_novel_sets("hmdb51", hmdb(), RELEASED)]
    assert tests[0] == tests[1] == tests[2]
    assert len(base_to_novel_sets("hmdb51", hmdb(), Options(base_sets=1))) == 1
    assert len(base_to_novel("hmdb51", hmdb(), Options(shots=4)).train) == 4 * 26


def test_given_lists_take_the_place_of_the_draws(tmp_path: Path) -> None:
    one = write(
        tmp_path / "train_s1.csv", "wave/wave_40.mp4,25", "pour/pour_41.avi,0", "pour/gone.avi,0"
    )
    two = write(tmp_path / "train_s2.txt", "wave/WAVE_50.avi 25")
    assert read_list(one) == ["wave_40", "pour_41", "gone"]
    sets = base_to_novel_sets("hmdb51", hmdb(), RELEASED, [one, two])
    assert [ids(split.train) for split in sets] == [["wave_40", "pour_41"], ["wave_50"]]
    twins = [
        Item(Path(f"/v/wave/{name}.avi"), "wave", "train")
        for name in ("wave_v_A", "wave_v_a", "Wave_V_a")
    ]
    (split,) = base_to_novel_sets(
        "hmdb51", hmdb() + twins, RELEASED, [write(two, "wave/WAVE_v_A.avi 25")]
    )
    assert ids(split.train) == ["wave_v_a"], (
        "of names that differ by case alone the last, whatever Python's seed"
    )
    assert "1 of 3 given training videos are not in the manifest, such as gone" in sets[0].notes
    assert "training: 2 videos, published 416" in sets[0].notes
    write(one, "wave/wave_40.mp4;25")
    with pytest.raises(DataError, match="line 1: expected 'path,number'"):
        read_list(one)


def test_hmdb_labels_swap_four_names_and_nothing_else() -> None:
    released, fixed = (
        base_to_novel("hmdb51", hmdb(), Options(hmdb_labels=kind)) for kind in ("released", "fixed")
    )
    assert (released.base, released.novel) == (fixed.base, fixed.novel)
    assert [name for name in released.base if "sword" in name] == ["sword exercise", "sword"]
    changed = {}
    clips = 0
    for part in ("train", "base_test", "novel_test"):
        for a, b in zip(getattr(released, part), getattr(fixed, part), strict=True):
            assert b.label == public.readable(b.path.parent.name)
            assert a.path == b.path
            if a.label != b.label:
                changed[b.label] = a.label
                clips += 1
    assert changed == {
        "sword": "sword exercise",
        "sword exercise": "sword",
        "kick": "kick ball",
        "kick ball": "kick",
    }
    assert clips == 32 + 60 + 60
    crossed = [
        cross_dataset({"hmdb51": hmdb()}, Options(hmdb_labels=kind))
        for kind in ("released", "fixed")
    ]
    assert crossed[0] == crossed[1]


def test_cross_dataset_has_the_published_columns_and_counts() -> None:
    k600 = simple("k600", 1, 50, "val")
    words = ("split", "split2", "split3")
    ucf = [
        dataclasses.replace(i, columns=dict.fromkeys(words, i.split or ""))
        for i in simple("ucf101", 10, 4, "test")
    ]
    sets = cross_dataset({"k600": k600, "hmdb51": hmdb(), "ucf101": ucf}, RELEASED)
    assert [one.name for one in sets] == [
        "UCF*",
        "UCF 1",
        "UCF 2",
        "UCF 3",
        "HMDB*",
        "HMDB 1",
        "HMDB 2",
        "HMDB 3",
        "K600 1",
        "K600 2",
        "K600 3",
    ]
    found = {one.name: one for one in sets}
    for name in ("HMDB*", "HMDB 1", "HMDB 2", "HMDB 3"):
        assert len(found[name].items) == found[name].published
    assert len(found["UCF*"].items) == 14 * 101
    unseen = public.unseen_k600()
    for number in (1, 2, 3):
        one = found[f"K600 {number}"]
        assert (one.classes, len(one.items)) == (unseen[number - 1], 160 * 50)
        assert {item.label for item in one.items} == set(one.classes) and {
            item.split for item in one.items
        } == {"val"}
    assert [one.published for one in sets[-3:]] == [7276, 7226, 7261]
    everything = cross_dataset({"hmdb51": hmdb()}, Options(hmdb_full="all"))
    assert [len(one.items) for one in everything] == [130 * 51, 1530, 1530, 1530]
    assert len({tuple(ids(one.items)) for one in everything}) == 4
    train, classes = cross_training(simple("k400", 2, 1, "val"))
    assert (len(train), classes) == (800, public.classes("k400"))


def test_sampling_and_flip_change_what_they_say() -> None:
    mp4 = Timing(range(300), 30.0, 300, 300)
    short = Timing(range(90), 30.0, 90, 90)
    released, even = Options().frames_of(), Options(clamp="even").frames_of()
    assert released == Sampling("dense")
    assert released.view_indices(mp4, 3)[0] == [0, 18, 36, 54, 72, 90, 108, 112]
    assert [view[0] for view in even.view_indices(mp4, 3)] == [0, 86, 172]
    assert even.view_indices(mp4, 3)[2] == [172, 190, 208, 226, 244, 262, 280, 299]
    assert released.view_indices(short, 1)[0][-3:] == [89, 89, 89]
    assert even.view_indices(short, 1)[0] == [0, 12, 25, 38, 50, 63, 76, 89]
    assert all(0 <= i < 300 for u in range(50) for i in even.train_indices(mp4, random.Random(u)))
    assert Options(sampling="uniform").frames_of() == Sampling("uniform")
    assert [Options(ssv2_flip=on).augment("ssv2").flip for on in (True, False)] == [True, False]
    assert Options(ssv2_flip=False).augment("ucf101") == FROSTER_AUGMENT


def test_the_report_says_what_was_used() -> None:
    def said(dataset: str, protocol: str = "base-to-novel", **options: object) -> str:
        return "\n".join(Options(**options).words(dataset, protocol))  # type: ignore[arg-type]

    assert "swapped as in the released files" in said("hmdb51")
    assert "right, unlike the released files" in said("hmdb51", hmdb_labels="fixed")
    assert "mirrored at random" in said("ssv2") and "not mirrored" in said("ssv2", ssv2_flip=False)
    assert "last index clamped as released" in said("k400") and "not as released" in said(
        "k400", clamp="even"
    )
    assert "uniform" in said("k400", sampling="uniform") and "clamp" not in said(
        "k400", sampling="uniform"
    )
    assert "mirrored" not in said("k400") and "names" not in said("k400")
    assert "training and test videos of split 1" in said("hmdb51", "cross-dataset")
    assert "all videos" in said("hmdb51", "cross-dataset", hmdb_full="all")
    with pytest.raises(UsageError, match="hmdb_labels must be released or fixed"):
        Options(hmdb_labels="mended")  # type: ignore[arg-type]


def test_manifests_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        DataError, match="is no class of hmdb51; is it the manifest of another data set"
    ):
        base_to_novel("hmdb51", simple("k400", 1, 1, "val"), RELEASED)
    with pytest.raises(DataError, match="no base test videos"):
        base_to_novel("k400", simple("k400", 2, 0, "val"), RELEASED)
    with pytest.raises(DataError, match="UCF 2"):
        one_split = [
            dataclasses.replace(item, columns={"split": "test"})
            for item in simple("ucf101", 1, 1, "test")
        ]
        cross_dataset({"ucf101": one_split}, RELEASED)
    with pytest.raises(UsageError, match="data set of base and novel"):
        base_to_novel("k600", simple("k600", 1, 1, "val"), RELEASED)
    few = base_to_novel("k400", simple("k400", 12, 1, "val"), RELEASED)
    assert "200 base classes have fewer than 16 training videos" in few.notes[0]
