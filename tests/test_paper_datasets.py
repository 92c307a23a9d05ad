"""Each official layout, as it is downloaded and as it is spoilt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from froster.data import public
from froster.data.annotations import from_folders, read_annotations
from froster.data.tree import ListedClip, Tree, split_of, split_word, stem
from froster.errors import DataError, UsageError
from golden import shared
from paper_trees import hmdb_lists, kinetics_csv, ssv2_json, ucf_lists, write


def by_name(clips: list[ListedClip]) -> dict[str, ListedClip]:
    return {clip.name: clip for clip in clips}


def tree(root: Path, dataset: str, *files: str) -> Tree:
    for file in files:
        write(root / file, "not looked into here")
    return Tree(root, dataset)


def test_names_and_partitions_are_those_of_the_data_sets() -> None:
    facts = json.loads(shared("facts", "datasets.json").read_text())
    known = {
        "k400": "kinetics400",
        "k600": "kinetics600",
        "ucf101": "ucf101",
        "hmdb51": "hmdb51",
        "ssv2": "ssv2",
    }
    for dataset, there in known.items():
        assert public.classes(dataset) == facts[there]
        assert all(public.official(dataset, name) == name for name in facts[there])
        assert all(
            public.official(dataset, public.readable(name).upper()) == name for name in facts[there]
        )
        assert all(split_word(name) is None for name in facts[there]), (
            "a class folder must not be taken for a split's"
        )
    for dataset, there in {
        "k400": "k400",
        "ucf101": "ucf101",
        "hmdb51": "hmdb",
        "ssv2": "ssv2",
    }.items():
        published = facts["base_to_novel"][there]
        for own, half in zip(public.partition(dataset), ("base", "novel"), strict=True):
            assert own == [public.official(dataset, name) for name in published[half]]
        assert sorted(name for half in public.partition(dataset) for name in half) == sorted(
            public.classes(dataset)
        )
    # UCF101 and HMDB51 are asked for as they are published, case aside.
    for dataset, there in {"ucf101": "ucf101", "hmdb51": "hmdb"}.items():
        for own, half in zip(public.partition(dataset), ("base", "novel"), strict=True):
            assert [public.readable(name).lower() for name in own] == [
                name.lower() for name in facts["base_to_novel"][there][half]
            ]
    counts, clips = public.published_clips(), facts["published_clip_counts"]
    for dataset, there in {
        "k400": "k400_s1",
        "ucf101": "ucf101",
        "hmdb51": "hmdb",
        "ssv2": "ssv2",
    }.items():
        for part, name in {"base": "val", "novel": "test"}.items():
            assert counts["base_to_novel"][dataset][part] == clips[f"B2N_{there}"][name]["clips"]
    for column, there in {"UCF": "ucf101", "HMDB": "hmdb", "K600": "k600"}.items():
        assert counts["cross_dataset"][column] == [
            clips[f"{there}_split{n}"]["test"]["clips"] for n in (1, 2, 3)
        ]
    assert public.unseen_k600() == facts["k600_unseen_splits"]
    assert [len(set(draw)) for draw in public.unseen_k600()] == [160, 160, 160]
    with pytest.raises(UsageError, match="k700"):
        public.classes("k700")


@pytest.mark.parametrize(
    ("dataset", "found", "official"),
    [
        ("ucf101", "HandStandPushups", "HandstandPushups"),
        ("ucf101", "handstand_pushups", "HandstandPushups"),
        ("hmdb51", "Brush Hair", "brush_hair"),
        ("k400", "Getting_a_tattoo", "getting a tattoo"),
        ("k400", "Eating a burger", "eating burger"),
        ("k400", "Barbecuing", "barbequing"),
        (
            "ssv2",
            "Putting a number of something onto something",
            "Putting number of something onto something",
        ),
        ("k400", "surfing on clouds", None),
    ],
)
def test_spellings(dataset: str, found: str, official: str | None) -> None:
    assert public.official(dataset, found) == official


def test_ucf101(tmp_path: Path) -> None:
    listed = [
        "Archery/v_Archery_g01_c01.avi",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "YoYo/v_YoYo_g08_c01.avi",
    ]
    ucf_lists(tmp_path / "ucfTrainTestlist", listed, [listed[:1], listed[1:2], listed[2:]])
    found = read_annotations("ucf101", tmp_path)
    clips = by_name(found.clips)
    assert (found.layout, found.notes, len(clips)) == ("ucfTrainTestlist", [], 3)
    assert clips[listed[0]] == ListedClip(
        listed[0], "Archery", ("test", "train", "train"), ("v_Archery_g01_c01",)
    )
    assert clips[listed[1]].label == "HandstandPushups"
    pushups = "HandStandPushups/v_HandstandPushups_g01_c01.avi"
    videos = tree(tmp_path / "v", "ucf101", listed[0], pushups, "YoYo/v_YoYo_g08_c01.mp4")
    located = videos.place(found.clips)
    assert set(located) == set(videos.files)
    assert videos.folder_label(pushups) == "HandstandPushups"
    (tmp_path / "ucfTrainTestlist" / "testlist03.txt").unlink()
    assert "missing lists: testlist03.txt" in read_annotations("ucf101", tmp_path).notes[0]


def test_hmdb51(tmp_path: Path) -> None:
    odd = "Golf_Tips_300+_Yards!!!_golf_f_nm_np1_fr_med_0.avi"
    codes = {
        "golf": {odd: "120"},
        "brush_hair": {"April_09_brush_hair_u_nm_np1_ba_goo_0.avi": "201"},
    }
    folder = hmdb_lists(tmp_path / "testTrainMulti_7030_splits", codes)
    write(folder / "._golf_test_split1.txt", "\x00\x05\x16")  # as a Mac's archive has them
    found = read_annotations("hmdb51", tmp_path)
    clips = by_name(found.clips)
    assert clips[f"golf/{odd}"].splits == ("train", "test", "")
    assert clips["brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi"].splits == (
        "test",
        "",
        "train",
    )
    assert "147 of 153" in found.notes[0]
    videos = tree(
        tmp_path / "v",
        "hmdb51",
        "golf/Golf_Tips_300__Yards____golf_f_nm_np1_fr_med_0.avi",
        "brush_hair/x.rar",
    )
    assert videos.place([clips[f"golf/{odd}"]]) == videos.files[:1]
    assert videos.archives == ["brush_hair/x.rar"]
    write(folder / "golf_test_split1.txt", "golf.avi 7")
    with pytest.raises(DataError, match=r"golf_test_split1.txt, line 1.*0, 1 or 2"):
        read_annotations("hmdb51", tmp_path)


@pytest.mark.parametrize("dataset", ["k400", "k600"])
def test_kinetics(tmp_path: Path, dataset: str) -> None:
    train = ("abseiling,-AbC_def123,5,15,train", '"air drumming",5JzkrOVhPOw,27,37,train')
    kinetics_csv(tmp_path / "annotations" / "train.csv", *train)
    kinetics_csv(
        tmp_path / "annotations" / "validate.csv", *["abseiling,zkXOcxGnUhs,25,35,validate"] * 2
    )
    write(
        tmp_path / "annotations" / "test.csv",
        "youtube_id,time_start,time_end,split",
        "zzzzzzzzzzz,1,11,test",
    )
    found = read_annotations(dataset, tmp_path)
    assert [(clip.name, clip.splits) for clip in found.clips] == [
        ("-AbC_def123_000005_000015", ("train",)),
        ("5JzkrOVhPOw_000027_000037", ("train",)),
        ("zkXOcxGnUhs_000025_000035", ("val",)),
    ]
    assert "listed twice" in found.notes[0] and "0 with another" in found.notes[0]
    flat = tree(
        tmp_path / "flat",
        dataset,
        "train/-AbC_def123_000005_000015.mp4",
        "train/-abc_def123_000005_000015.mp4",
        "train/5JzkrOVhPOw_27_37.mp4",
        "val/zkXOcxGnUhs.webm",
    )
    assert flat.place(found.clips) == [
        "train/-AbC_def123_000005_000015.mp4",
        "train/5JzkrOVhPOw_27_37.mp4",
        "val/zkXOcxGnUhs.webm",
    ]
    assert flat.folder_label("val/zkXOcxGnUhs.webm") is None
    # In class folders of both splits, the one of the clip's own class and split is taken.
    places = [
        f"{split}/{name}/zkXOcxGnUhs.mp4"
        for split in ("train", "val")
        for name in ("abseiling", "archery")
    ]
    folders = tree(tmp_path / "cls", dataset, *places)
    clip = found.clips[2]
    assert folders.place([clip]) == ["val/abseiling/zkXOcxGnUhs.mp4"]
    assert folders.folder_label("val/archery/zkXOcxGnUhs.mp4") == "archery"
    for start in ("five", "inf"):
        row = f"abseiling,-AbC_def123,{start},15,train"
        kinetics_csv(tmp_path / "annotations" / "train.csv", row)
        with pytest.raises(DataError, match=rf"train.csv, line 2.*seconds, found '{start}'"):
            read_annotations(dataset, tmp_path)
    kinetics_csv(tmp_path / "annotations" / "train.csv", f"{'x' * 140_000},-AbC_def123,5,15,train")
    with pytest.raises(UsageError, match=r"train.csv, line 2: no table \(field larger"):
        read_annotations(dataset, tmp_path)


def test_ssv2(tmp_path: Path) -> None:
    train = [
        ("1", "Putting [number of] [something] onto [something]"),
        ("2", "Lifting up one end of [something], then letting it drop down"),
    ]
    validation = [
        ("3", "Trying but failing to attach [something] to [something] because it doesn't stick")
    ]
    ssv2_json(tmp_path, train=train, validation=validation)
    clips = by_name(read_annotations("ssv2", tmp_path).clips)
    assert clips["1.webm"].label == "Putting number of something onto something"
    assert clips["2.webm"] == ListedClip(
        "2.webm", "Lifting up one end of something, then letting it drop down", ("train",), ("2",)
    )
    assert clips["3.webm"].splits == ("val",)
    ssv2_json(tmp_path, train=[("1", "Petting [something]")])
    with pytest.raises(DataError, match="ssv2 has no class 'Petting something'"):
        read_annotations("ssv2", tmp_path)


def test_split_and_class_folders(tmp_path: Path) -> None:
    files = [
        "train_256/air_drumming/a.mp4",
        "val_256/abseiling/b.mp4",
        "videos_test/abseiling/c.mp4",
        "val_256/d.mp4",
    ]
    found = from_folders("k400", tree(tmp_path, "k400", *files).files)
    assert [(clip.label, clip.splits[0]) for clip in found.clips] == [
        ("air drumming", "train"),
        ("abseiling", "val"),
        ("abseiling", "test"),
    ]
    assert found.notes == [
        "1 videos are left out: their folders name no split and class, such as val_256/d.mp4"
    ]
    with pytest.raises(DataError, match="no annotations were given"):
        from_folders("k400", ["abseiling/a.mp4"])


def test_lists_of_the_repositories(tmp_path: Path) -> None:
    froster = tmp_path / "B2N_hmdb"
    write(froster / "train.csv", "sword/a.avi,1", "wave/b.avi,0")
    write(froster / "val.csv", "wave/c c.avi,0")
    write(froster / "test.csv", "kick_ball/d.avi,0")
    write(froster / "train_1.csv", "not looked at")
    write(
        froster / "train_rephrased.json",
        json.dumps({"0": "Wave: a hand goes, up: down", "1": "Sword exercise: steel"}),
    )
    write(froster / "test_rephrased.json", json.dumps({"0": "Kick ball: a foot"}))
    write(froster / "raw_train_idx2cls.json", json.dumps({"0": "wrong"}))
    found = [
        (clip.name, clip.label, clip.splits) for clip in read_annotations("hmdb51", froster).clips
    ]
    assert found == [
        ("sword/a.avi", "sword_exercise", ("train",)),
        ("wave/b.avi", "wave", ("train",)),
        ("wave/c c.avi", "wave", ("test",)),
        ("kick_ball/d.avi", "kick_ball", ("test",)),
    ]
    vifi = tmp_path / "k400_splits"
    write(vifi / "base_val.txt", "abseiling/a.mp4 0")
    write(vifi / "novel_val.txt", "barbequing/b.mp4 0")
    write(vifi / "kinetics_400_base_labels.csv", "id,name", "0,abseiling")
    write(vifi / "kinetics_400_novel_labels.csv", "id,name", "0,barbecuing")
    assert [(clip.label, clip.splits) for clip in read_annotations("k400", vifi).clips] == [
        ("abseiling", ("val",)),
        ("barbequing", ("val",)),
    ]
    whole = tmp_path / "whole"
    write(whole / "test.csv", "YoYo/a.avi,1", "Archery/b.avi 0")
    with pytest.raises(DataError, match=r"labels are numbers; copy the file"):
        read_annotations("ucf101", whole)
    write(whole / "ucf101-index2cls.json", json.dumps({"0": "Archery", "1": "Yo Yo"}))
    assert [clip.label for clip in read_annotations("ucf101", whole).clips] == ["YoYo", "Archery"]
    write(whole / "test.csv", "YoYo/a.avi,7")
    with pytest.raises(DataError, match="label 7"):
        read_annotations("ucf101", whole)


def test_the_released_repository_as_a_whole(tmp_path: Path) -> None:
    """Its root is answered with the folders to take; a split's train.csv, which lists what no split
    uses, is refused."""
    hmdb = public.classes("hmdb51")
    for folder in ("B2N_hmdb", "B2N_ucf101", "hmdb_split1"):
        write(tmp_path / "zs_label_db" / folder / "test.csv", f"{hmdb[0]}/a.avi,0")
    write(
        tmp_path / "label_rephrase" / "hmdb_rephrased_classes.json",
        json.dumps(dict(enumerate(hmdb))),
    )
    with pytest.raises(
        DataError,
        match=r"lists lie below it, .*the folders zs_label_db/B2N_hmdb, zs_label_db/hmdb_split1$",
    ):
        read_annotations("hmdb51", tmp_path)
    with pytest.raises(
        DataError, match=r"expected trainlist01.*pass one of the folders zs_label_db/B2N_ucf101$"
    ):
        read_annotations("ucf101", tmp_path)
    split = tmp_path / "zs_label_db" / "hmdb_split1"
    write(
        split / "train.csv", *(f"{name}/{name}_1.avi,{number}" for number, name in enumerate(hmdb))
    )
    for labels in (None, {str(number): name for number, name in enumerate(hmdb)}):
        if labels:
            write(split / "labels.json", json.dumps(labels))
        with pytest.raises(
            DataError,
            match=r"train.csv: 51 classes, though .* 26 base classes.*testTrainMulti_7030_splits",
        ):
            read_annotations("hmdb51", split)
    (split / "train.csv").unlink()
    assert read_annotations("hmdb51", split).clips[0].splits == ("test",)


def test_wrong_annotations_are_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"no annotations of ucf101; expected trainlist01.*found nothing"
    ):
        read_annotations("ucf101", tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder"):
        read_annotations("ucf101", tmp_path / "gone")
    kinetics_csv(tmp_path / "train.csv", "acting in play,-AbC_def123,5,15,train")
    with pytest.raises(
        DataError, match=r"train.csv, line 2: k400 has no class 'acting in play'; it is one of k600"
    ):
        read_annotations("k400", tmp_path)
    with pytest.raises(DataError, match="--videos needs the folder"):
        Tree(tmp_path / "gone", "k400")


def test_links_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "Archery" / "x.avi", "")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a" / "Archery", target_is_directory=True)
    assert len(Tree(tmp_path, "ucf101").files) == 1


def test_paths() -> None:
    assert (stem("a/b.c.avi"), stem("a/b.c")) == ("b.c", "b.c")
    assert (split_of("val_256/train/x.mp4"), split_of("x/val.mp4"), split_word("testlist01")) == (
        "train",
        None,
        None,
    )


def test_names_that_look_alike(tmp_path: Path) -> None:
    """A file of exactly a clip's name is that clip's; likeness only finds files that no other clip
    has."""

    def clip(name: str, split: str) -> ListedClip:
        return ListedClip(name, "golf", (split, "", ""), (name,))

    def placed(names: list[str], *files: str) -> list[str | None]:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        found = tree(root, "hmdb51", *files).place([clip(name, "train") for name in names])
        return [
            None if path is None else path.removeprefix("golf/").removesuffix(".avi")
            for path in found
        ]

    both = ["a__b_golf", "a_b_golf"]
    assert placed(both, "golf/a__b_golf.avi", "golf/a_b_golf.avi") == both
    assert placed(both[::-1], "golf/a__b_golf.avi", "golf/a_b_golf.avi") == both[::-1]
    assert placed(both, "golf/a_b_golf.avi") == [None, "a_b_golf"], (
        "its own, though the other clip comes first"
    )
    assert placed(both, "golf/a  b golf.avi", "golf/a-b-golf.avi") == ["a  b golf", "a-b-golf"], (
        "as many signs before fewer"
    )
    assert placed(["A b", "a b"], "golf/A b.avi", "golf/a b.avi") == ["A b", "a b"]
    assert placed(["a#b(c)"], "golf/a_b_c_.avi") == ["a_b_c_"]
    assert placed(["a!b", "a?b"], "golf/a_b.avi") == ["a_b", None], "one file is one clip's"
