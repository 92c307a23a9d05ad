"""Timelines as files: of label tools, which are read again as training data, and cut to clips."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from froster.data.dataset import VideoDataset
from froster.data.label_tools import ENDINGS, LabelledSpan, SegmentedVideo, read_segments, tool_of
from froster.data.manifest import Item, read_items
from froster.data.splits import hold_out
from froster.errors import DataError, UsageError
from froster.inference.segment_files import VideoTimeline, clip_folders, form_of, write_timelines
from froster.inference.segments import Segment
from froster.inference.timeline import Timeline
from froster.utils.files import write_text
from froster.video.cut import clip_name, cut
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.windows import WindowPlan
from known_clips import Known
from typed import one_line
from video_files import make_video, numbers

pytestmark = pytest.mark.usefixtures("few_templates_throughout")

LABELS = ["cat spinning", 'a <b> & "c"', "tai chi: slow / soft", "Ünï 漢字"]
LABEL_OPTION = "cat spinning, star bouncing, car pacing, mushroom pulsing"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segments")
    make_video(folder / "a.mp4", 250)
    (folder / "sub").mkdir()
    make_video(folder / "sub" / "b c.mp4", 100, fps=10)
    return folder


def segmented(folder: Path, name: str, seed: int) -> SegmentedVideo:
    rng = random.Random(seed)
    with Video(folder / name) as video:
        edges = sorted(rng.sample(range(1, int(video.seconds * 1000)), 8))
        spans = [
            LabelledSpan(a / 1000, b / 1000, rng.choice(LABELS), round(rng.random(), 4))
            for a, b in zip(edges[::2], edges[1::2], strict=True)
        ]
        return SegmentedVideo(
            name, spans, video.seconds, video.fps, video.num_frames, video.width, video.height
        )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_is_read_again(videos: Path, ending: str, seed: int) -> None:
    """To a millisecond, also where the format counts frames."""
    tool = tool_of(Path(f"x{ending}"))
    assert tool is not None
    names = ["a.mp4", "sub/b c.mp4"][: 2 if tool.several else 1]
    written = [segmented(videos, name, seed) for name in names]
    path = videos / f"x{ending}"
    path.write_text(tool.write(written))
    items = read_items(path)
    expected = [(video.path, span) for video in written for span in video.spans]
    assert len(items) == len(expected)
    for item, (name, span) in zip(items, expected, strict=True):
        assert item.path == videos / name and item.label == span.label and item.split is None
        assert item.span == pytest.approx(span[:2], abs=1e-3)


ODD = ["why?.mp4", "a#b.mp4", "50%20 off.mp4", "co:lon.mp4", " a\nb.mp4"]
NO_XML = ["a\x01b.mp4", os.fsdecode(b"caf\xe9.mp4")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_any_name_of_a_file_is_read_again(tmp_path: Path, ending: str) -> None:
    tool, source = tool_of(Path(f"x{ending}")), make_video(tmp_path / "v.mp4", 25)
    assert tool is not None
    for name in (*ODD, *NO_XML):
        shutil.copy(source, tmp_path / name)
        video = replace(segmented(tmp_path, name, 0), url=(tmp_path / name).as_uri())
        path = tmp_path / f"x{ending}"
        write_text(path, tool.write([video]))
        assert {item.path for item in read_items(path)} == {tmp_path / name}


def test_videos_of_one_name_keep_their_endings(videos: Path, tmp_path: Path) -> None:
    written = []
    for seed, name in enumerate(("same.mp4", "same.avi", "other.mp4")):
        shutil.copy(videos / "a.mp4", tmp_path / name)
        written.append(segmented(tmp_path, name, seed))
    path = tmp_path / "x.fiftyone.json"
    tool = tool_of(path)
    assert tool is not None
    path.write_text(tool.write(written))
    assert list(json.loads(path.read_text())["labels"]) == ["same.mp4", "same.avi", "other"]
    expected = {(tmp_path / video.path, len(video.spans)) for video in written}
    assert set(Counter(item.path for item in read_items(path)).items()) == expected
    path.write_text(tool.write(written[:1]))
    with pytest.raises(DataError, match=r"'same' may be same\.avi or same\.mp4"):
        read_items(path)
    assert clip_folders(["a/b.mp4", "a/b.mov", "c.mp4"], Path("clips")) == {
        "a/b.mp4": Path("clips/a/b.mp4"),
        "a/b.mov": Path("clips/a/b.mov"),
        "c.mp4": Path("clips/c"),
    }


def test_segments_that_overlap_are_in_tiers_of_their_own_in_elan(videos: Path) -> None:
    times = ((0, 4), (2, 6), (4, 5), (5, 7), (1, 2))
    spans = [LabelledSpan(float(a), float(b), f"{a} {b}") for a, b in times]
    text = tool_of(Path("x.eaf")).write([replace(segmented(videos, "a.mp4", 0), spans=spans)])  # type: ignore[union-attr]
    tiers = {
        tier.get("TIER_ID"): [value.text for value in tier.iter("ANNOTATION_VALUE")]
        for tier in ElementTree.fromstring(text).iter("TIER")
    }
    assert tiers == {"froster": ["0 4", "4 5", "5 7"], "froster 2": ["1 2", "2 6"]}
    (read,) = read_segments(Path("x.eaf"), text, lambda name: 25.0)
    assert sorted(read.spans) == sorted(spans)


def test_a_csv_of_several_videos_keeps_the_bytes_of_their_names(tmp_path: Path) -> None:
    plan, name = WindowPlan(10.0, 10.0, 8), os.fsdecode(b"caf\xe9.mp4")
    timeline = Timeline(
        ["x"], [Segment(0.0, 10.0, "x", 0.5)], [0.0, 10.0], torch.ones(1, 1), plan, 0, None, True
    )
    write_timelines([VideoTimeline(Path(name), name, timeline)] * 2, tmp_path / "f.csv", {}, True)
    assert (tmp_path / "f.csv").read_bytes().count(b"caf\xe9.mp4,0.000,10.000,x,") == 2


def test_elan_is_told_where_the_video_lies(videos: Path, tmp_path: Path) -> None:
    plan, found = WindowPlan(10.0, 10.0, 8), [Segment(0.0, 10.0, "x", 0.5)]
    timeline = Timeline(["x"], found, [0.0, 10.0], torch.ones(1, 1), plan, 0, None, True)
    one = VideoTimeline(videos / "a.mp4", "a.mp4", timeline)
    write_timelines([one], tmp_path / "far" / "a.eaf", {}, False)
    media = ElementTree.parse(tmp_path / "far" / "a.eaf").find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None and media.get("MEDIA_URL") == (videos / "a.mp4").as_uri()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("address", ["s3://bucket/a b/c%20d.mp4", "https://host:81/a.mp4?x=1&y=2"])
def test_a_video_at_an_address_keeps_it(ending: str, address: str) -> None:
    tool = tool_of(Path(f"x{ending}"))
    assert tool is not None
    video = SegmentedVideo(address, [LabelledSpan(1.0, 2.0, "a cat")], 4.0, 25.0, 100, 64, 64)
    (read,) = read_segments(Path(f"x{ending}"), tool.write([video]), lambda name: 25.0)
    assert read.name == address and read.spans[0].label == "a cat"


@pytest.mark.parametrize("ending", [".labelstudio.json", ".cvat.xml"])
def test_frames_that_a_person_moved_count(videos: Path, ending: str) -> None:
    """The seconds beside them are then those of before."""
    tool = tool_of(Path(f"x{ending}"))
    assert tool is not None
    video = segmented(videos, "a.mp4", 0)
    span = LabelledSpan(2.0, 4.0, "x")
    text = tool.write([SegmentedVideo(**{**vars(video), "spans": [span]})])
    moved = text.replace('frame="100"', 'frame="150"').replace('"end": 100', '"end": 150')
    assert moved != text
    (videos / f"m{ending}").write_text(moved)
    (item,) = read_items(videos / f"m{ending}")
    assert item.span == pytest.approx((2.0, 6.0))


def test_what_tools_ask_of_their_files(videos: Path) -> None:
    video = segmented(videos, "a.mp4", 1)
    text = {ending: tool_of(Path(f"x{ending}")).write([video]) for ending in ENDINGS}  # type: ignore[union-attr]
    eaf = ElementTree.fromstring(text[".eaf"])
    # EAF 2.8: what its schema requires, in its order.
    assert [child.tag for child in eaf] == ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE"]
    assert {"AUTHOR", "DATE", "VERSION", "FORMAT"} <= set(eaf.attrib)
    types = {kind.get("LINGUISTIC_TYPE_ID") for kind in eaf.iter("LINGUISTIC_TYPE")}
    slots = [slot.get("TIME_SLOT_ID") for slot in eaf.iter("TIME_SLOT")]
    assert len(set(slots)) == len(slots)
    media = eaf.find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None and {"MEDIA_URL", "MIME_TYPE"} <= set(media.attrib)
    assert all(tier.get("LINGUISTIC_TYPE_REF") in types for tier in eaf.iter("TIER"))
    for annotation in eaf.iter("ALIGNABLE_ANNOTATION"):
        assert {annotation.get("TIME_SLOT_REF1"), annotation.get("TIME_SLOT_REF2")} <= set(slots)
        assert annotation.get("ANNOTATION_ID")
    cvat = ElementTree.fromstring(text[".cvat.xml"])
    assert cvat.findtext("version") == "1.1" and cvat.findtext("meta/task/size") == "250"
    known = {name.text for name in cvat.iter("name")}
    for track in cvat.iter("track"):
        assert track.get("label") in known and track.get("id") is not None
        boxes = list(track)
        assert [box.get("outside") for box in boxes] in (["0", "1"], ["0"])
        needs = {"frame", "outside", "occluded", "keyframe", "xtl", "ytl", "xbr", "ybr"}
        assert all(needs <= set(box.attrib) and int(box.get("frame", "")) < 250 for box in boxes)
    (task,) = json.loads(text[".labelstudio.json"])
    for row in task["predictions"][0]["result"]:
        assert row["type"] == "timelinelabels" and row["id"] and row["from_name"] and row["to_name"]
        (one,) = row["value"]["ranges"]
        assert 1 <= one["start"] <= one["end"] <= 250 and len(row["value"]["timelinelabels"]) == 1
    fiftyone = json.loads(text[".fiftyone.json"])
    assert set(fiftyone) == {"classes", "labels"} and list(fiftyone["labels"]) == ["a"]
    activitynet = json.loads(text[".activitynet.json"])
    assert set(activitynet) == {"version", "taxonomy", "database"}
    entry = activitynet["database"]["a.mp4"]
    assert {"duration", "subset", "annotations"} <= set(entry)


def test_files_as_the_tools_themselves_write_them(videos: Path) -> None:
    """Without what froster adds, and with names as each tool has them."""
    files: dict[str, Any] = {
        "results.json": {
            "version": "1.3",
            "results": {"a": [{"label": "x", "score": 1, "segment": [1, 2]}]},
        },
        "truth.json": {
            "database": {
                "a": {"subset": "training", "annotations": [{"label": "x", "segment": [1, 2]}]}
            }
        },
        "supports.json": {"labels": {"a": [{"label": "x", "support": [26, 50]}]}},
        "studio.json": [
            {
                "id": 1,
                "data": {"video": "/data/local-files/?d=clips/a.mp4"},
                "annotations": [
                    {
                        "result": [
                            {"type": "choices", "value": {"choices": ["x"]}},
                            {
                                "type": "timelinelabels",
                                "value": {
                                    "ranges": [{"start": 26, "end": 50}],
                                    "timelinelabels": ["x"],
                                },
                            },
                        ]
                    }
                ],
                "predictions": [],
            }
        ],
    }
    for name, data in files.items():
        (videos / name).write_text(json.dumps(data))
        (item,) = read_items(videos / name)
        assert (item.path, item.label) == (videos / "a.mp4", "x")
        assert item.span == pytest.approx((1.0, 2.0))
        assert item.split == ("training" if name == "truth.json" else None)


HALVES = {
    "a.json": ({"database": {"a": {}}}, "the annotations of a should be a list and is missing"),
    "b.json": (
        {"database": {"a": {"annotations": [{"label": "x"}]}}},
        "a: a segment has no start and end",
    ),
    "c.json": (
        {"database": {"a": {"annotations": [{"segment": [1, 2]}]}}},
        "a segment has no label",
    ),
    "d.json": (
        {"database": {"a": {"annotations": [{"segment": [2, 1], "label": "x"}]}}},
        "not after its start",
    ),
    "e.json": (
        {"database": {"gone": {"annotations": [{"segment": [1, 2], "label": "x"}]}}},
        "do not exist below",
    ),
    "f.json": ({"database": {"a": {"annotations": []}}}, "no segment is labelled"),
    "g.json": (
        {"labels": {"a": [{"label": 3, "timestamps": [1, 2]}]}, "classes": ["x"]},
        "has no label",
    ),
    "h.json": ({"labels": {"a": [{"label": "x"}]}}, "no start and end, but None"),
    "i.json": ([{"data": {}}], "task 1 names no video"),
    "j.json": (
        [{"data": {"video": "a.mp4"}, "annotations": [{}]}],
        "the result of task 1 should be a list",
    ),
    "k.json": ({"what": 1}, "JSON of another kind"),
    "l.json": ("{", "not JSON"),
    "m.xml": ("<a>", "not XML"),
    "n.xml": ("<a/>", "XML of another kind"),
    "o.eaf": ("<ANNOTATION_DOCUMENT/>", "names no media file"),
    "p.eaf": (
        '<ANNOTATION_DOCUMENT><HEADER><MEDIA_DESCRIPTOR MEDIA_URL="a.mp4"/></HEADER>'
        '<TIER><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"/></ANNOTATION></TIER>'
        "</ANNOTATION_DOCUMENT>",
        "annotation a1: a segment has no start and end",
    ),
    "q.xml": ("<annotations/>", "names no video"),
    "r.xml": (
        '<annotations><meta><task><source>a.mp4</source></task></meta><track id="7" label="x"/></annotations>',
        "track 7 has no shape with a frame",
    ),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_file_is_one_sentence(videos: Path, name: str) -> None:
    data, words = HALVES[name]
    (videos / name).write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(DataError, match=words) as caught:
        read_items(videos / name)
    assert str(videos / name) in str(caught.value) and "\n" not in str(caught.value)


# Segments as training data


def test_only_frames_of_the_segment_are_read(videos: Path) -> None:
    items = [
        Item(videos / "a.mp4", label, span=span)
        for label, span in (("x", (2, 4)), ("y", (6, 6.01)))
    ]
    for train in (True, False):
        for sampling in (Sampling("dense"), Sampling("uniform")):
            dataset = VideoDataset(items, ["x", "y"], sampling, 48, views=2, train=train)
            first, second = dataset[0], dataset[1]
            assert first.error is None and second.error is None
    with Video(videos / "a.mp4") as video:
        from froster.video.part import VideoPart

        part = VideoPart(video, 2, 4)
        assert part.num_frames == 50
        assert numbers(part.at([0, 25, 49])) == [50, 75, 99]
        assert VideoPart(video, 6, 6.01).num_frames == 1
        assert (
            VideoPart(video, 9.5, 60).num_frames == 13 - 1
            or VideoPart(video, 9.5, 60).num_frames == 13
        )
        assert VideoPart(video, 600, 700).num_frames == 1
        assert max(Sampling("uniform").view_indices(part.timing, 1)[0]) < 50


def test_segments_of_a_video_stay_together() -> None:
    items = [
        Item(Path(f"{video}.mp4"), label, span=(start, start + 1))
        for video in range(10)
        for start, label in enumerate("abc")
    ]
    train, test = hold_out(items, 0.2, 0)
    assert not {item.path for item in train} & {item.path for item in test}
    assert len({item.path for item in test}) == 2 and {i.label for i in train} == set("abc")
    rare = [*items, Item(Path("rare.mp4"), "d", span=(0, 1))]
    assert "d" in {item.label for item in hold_out(rare, 0.9, 0)[0]}


def test_a_label_tools_file_trains(run, known: Known, tmp_path: Path) -> None:
    for number in range(3):
        shutil.copy(known.path, tmp_path / f"{number}.mp4")
    database = {
        f"{number}": {
            "annotations": [
                {"label": label, "segment": [start, end]} for start, end, label in known.segments
            ]
        }
        for number in range(3)
    }
    (tmp_path / "data.json").write_text(json.dumps({"database": database}))
    result = run("evaluate", "--data", tmp_path / "data.json", "--model", "nano", "--json")
    assert result.code == 0, result.err
    assert result.json["splits"]["all"]["top1"] > 60


def test_a_manifest_may_say_from_when_to_when(run, known: Known, tmp_path: Path) -> None:
    """By its columns start and end, as `froster label` writes them."""
    rows = [f"{known.path},{label},{start},{end}" for start, end, label in known.segments]
    table = tmp_path / "parts.csv"
    table.write_text("\n".join(["path,label,start,end", *rows, f"{known.path},all,,"]) + "\n")
    *parts, everything = read_items(table)
    assert [(i.span, i.label) for i in parts] == [((s, e), x) for s, e, x in known.segments]
    assert everything.span is None

    table.write_text("\n".join(["path,label,start,end", *rows]) + "\n")
    scored = run("evaluate", "--data", table, "--model", "nano", "--json")
    assert scored.code == 0 and scored.json["splits"]["all"]["top1"] > 60, scored.err
    taught = run("teach", table, "--out", tmp_path / "t", "--model", "nano", "--steps", 5)
    assert taught.code == 0 and f"{len(rows)} videos of" in taught.err, taught.err
    again = run("teach", table, "--out", tmp_path / "t", "--model", "nano", "--steps", 5)
    assert "features of frames: 0 clips computed" in again.err


@pytest.mark.parametrize(
    ("times", "words"),
    [("1,", "both a start and an end"), ("a,b", "seconds, not a and b"), ("3,2", "ends at 2 s")],
)
def test_times_that_are_none_are_one_line(run, known: Known, tmp_path: Path, times, words) -> None:
    table = tmp_path / "parts.csv"
    table.write_text(f"path,label,start,end\n{known.path},x,{times}\n")
    result = run("teach", table, "--out", tmp_path / "t", "--model", "nano")
    one_line(result, 1, f"{table}, line 2: ", words)


# Files of a timeline, and clips


def test_an_unknown_ending_is_one_sentence(run, known: Known) -> None:
    for name in ("x.avi", "x", ".srt", "x.xml"):
        with pytest.raises(UsageError, match=r"ending in \.png, .*\.activitynet\.json"):
            form_of(Path(name))
    result = run("timeline", known.path, "--labels", "a, b", "--model", "nano", "--out", "x.avi")
    one_line(result, 2, "not 'x.avi'")


def test_a_folder_of_videos(run, known: Known, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(known.path, folder / "one.mp4")
    shutil.copy(known.path, folder / "sub" / "one.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    outs = [
        tmp_path / f"found{end}" for end in (".json", ".csv", ".srt", ".eaf", ".activitynet.json")
    ]
    words = [word for out in outs for word in ("--out", out)]
    result = run(
        *("timeline", folder, "--labels", LABEL_OPTION, "--model", "nano", "--json"),
        *(*words, "--clips", tmp_path / "clips"),
    )
    assert result.code == 1 and "broken.mp4" in result.err
    rows = result.json["results"]
    assert [("error" in row, Path(row["video"]).name) for row in rows] == [
        (False, "one.mp4"),
        (False, "one.mp4"),
        (True, "broken.mp4"),
    ]
    assert len(json.loads(outs[0].read_text())["results"]) == 2
    assert outs[1].read_text().startswith("video,start,end,label,score\n")
    for ending in (".srt", ".eaf"):
        for name in ("one.mp4", "sub/one.mp4"):
            assert (tmp_path / "found" / f"{name}{ending}").stat().st_size > 0
    items = read_items(outs[4])
    assert {item.path.resolve() for item in items} == {
        (folder / "one.mp4").resolve(),
        (folder / "sub" / "one.mp4").resolve(),
    }
    segments = rows[0]["segments"]
    assert [item.label for item in items[: len(segments)]] == [s["label"] for s in segments]
    clips = sorted((tmp_path / "clips" / "one").iterdir())
    assert len(clips) == len(segments)
    for clip, segment in zip(clips, segments, strict=True):
        with Video(clip) as video:
            assert video.seconds == pytest.approx(segment["end"] - segment["start"], abs=0.2)


def test_clips_hold_the_frames_of_their_stretch(videos: Path, tmp_path: Path) -> None:
    stretches = [
        (2.0, 4.0, tmp_path / "a"),
        (3.0, 3.4, tmp_path / "b"),
        (9.0, 99.0, tmp_path / "c"),
    ]
    files = cut(videos / "a.mp4", stretches)
    assert [file.stem for file in files] == ["a", "b", "c"]
    for file, (first, last) in zip(files, ((50, 99), (75, 84), (225, 249)), strict=True):
        with Video(file) as video:
            shown = numbers(video.read(range(video.num_frames)))
        assert (shown[0], shown[-1], len(shown)) == (first, last, last - first + 1)
    assert clip_name(1.5, 62, "a/b: \x1b..") == "00001.500-00062.000 a_b_ _"
    assert cut(videos / "a.mp4", [(50.0, 60.0, tmp_path / "beyond")]) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in files)


def test_answers_of_a_search_are_cut(run, known: Known, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    shutil.copy(known.path, tmp_path / "videos" / "one.mp4")
    assert run("index", tmp_path / "videos", "--out", tmp_path / "i", "--model", "nano").code == 0
    found = run(
        "search", tmp_path / "i", "cat spinning", "--top", 2, "--clips", tmp_path / "c", "--json"
    )
    assert found.code == 0, found.err
    hits, clips = found.json["hits"], sorted((tmp_path / "c").iterdir())
    assert len(clips) == len(hits) == 2
    with Video(clips[0]) as video:
        assert video.seconds == pytest.approx(hits[0]["end"] - hits[0]["start"], abs=0.2)
    (tmp_path / "file").write_text("")
    one_line(run("search", tmp_path / "i", "cat", "--clips", tmp_path / "file"), 2, "is a file")
