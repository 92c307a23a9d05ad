"""Which label when: borders and labels of videos put together from known clips, every output, every
way to stop."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor

import froster
import quick
from froster.errors import UsageError
from froster.evaluation.calibration import NONE, Calibration, NoneRule
from froster.inference.model_folder import ModelConfig
from froster.inference.recognizer import Recognizer, load
from froster.inference.scorer import WindowScorer, chunked
from froster.inference.segments import Segment, by_label, merged
from froster.inference.subtitles import srt, vtt
from froster.inference.timeline import Scan, smoothed, timeline
from froster.methods import METHODS
from froster.utils import interrupt
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.stream import Stream
from froster.video.windows import SlidingWindows, WindowPlan
from froster.world.files import write_video
from known_clips import LABELS, PARTS, Known
from typed import one_line
from video_files import make_video, shared


def near(found: list[Segment], expected: list[tuple[float, float, str]], within: float) -> None:
    assert [s.label for s in found] == [label for _, _, label in expected], found
    for segment, (start, end, _) in zip(found, expected, strict=True):
        assert abs(segment.start - start) <= within and abs(segment.end - end) <= within, segment
    assert all(a.end == b.start for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(("window", "stride"), [(None, None), (2.0, 0.5), (1.0, 0.25), (3.0, 0.7)])
def test_borders_are_within_a_stride(
    nano: Recognizer, known: Known, window: float | None, stride: float | None
) -> None:
    found = froster.timeline(nano, known.path, LABELS, window=window, stride=stride)
    near(found.segments, known.segments, found.plan.stride)
    assert (found.start, found.end, found.damaged, found.complete) == (0, 34, 0, True)
    assert found.scores.sum(1).allclose(torch.ones(len(found.scores)))
    assert found.at(7.5).label == "boat" and found.at(99) is None


def test_real_clips_in_a_row(nano: Recognizer, tmp_path: Path) -> None:
    """Each of three real clips is a label of its own, by the nano CLIP's embedding of it: are they
    found where they are?"""
    names = ["v_PlayingPiano_g02_c01.avi", "v_Archery_g01_c01.avi", "v_YoYo_g01_c01.avi"]
    paths = [shared("videos", "originals", name) for name in names]
    path, expected, time = tmp_path / "row.mp4", [], 0.0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for name, source in zip(names, paths, strict=True):
            with Video(source) as video:
                frames = video.read(
                    [min(round(i * video.fps / 25), video.num_frames - 1) for i in range(125)]
                )
            expected.append((time, time + 5.0, name))
            time += 5.0
            for frame in frames.numpy():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    scan = Scan(nano, names, window=2, stride=0.5)
    scan.classes = torch.stack([nano.embed_video(source) for source in paths])
    assert list(scan.run(path))[-1] == pytest.approx(15, abs=0.1)
    near(scan.result().segments, expected, 0.5)


@pytest.mark.parametrize(
    ("count", "moments"), [(1, 1), (2, 1), (5, 1), (16, 2), (31, 4), (32, 4), (33, 5)]
)
def test_videos_around_one_window_long(
    nano: Recognizer, known: Known, tmp_path: Path, count: int, moments: int
) -> None:
    with Video(known.path) as video:
        path = write_video(tmp_path / "v.mp4", video.read(range(count)).permute(0, 3, 1, 2))
    found = timeline(nano, path, LABELS)
    assert len(found.scores) == moments and found.end == pytest.approx(count / 8)
    assert [s.label for s in found.segments][:1] == ["cat"]
    assert found.segments[-1].end == found.end


def test_a_short_video_is_seen_as_classify_sees_it(
    nano: Recognizer, known: Known, tmp_path: Path
) -> None:
    with Video(known.path) as video:
        path = write_video(tmp_path / "v.mp4", video.read(range(16)).permute(0, 3, 1, 2))
    scores = dict(zip(LABELS, timeline(nano, path, LABELS).scores[0].tolist(), strict=True))
    found = nano.classify(path, LABELS)
    assert [scores[label] for label in found.labels] == pytest.approx(found.scores, abs=1e-5)


def test_a_frame_is_embedded_once_where_frames_are_seen_apart(
    nano: Recognizer, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = nano.class_embeddings(LABELS)

    def logits(apart: bool) -> Tensor:
        scorer = WindowScorer(nano)
        scorer.apart = apart
        with Stream.of_file(known.path) as stream:
            parts = chunked(SlidingWindows(stream, WindowPlan(4.0, 1.0, 8), scorer.keep), 4)
            return torch.cat([scorer(part, classes) for part in parts])

    whole = logits(apart=False)
    seen = []
    encode = nano.model.encode_frames
    monkeypatch.setattr(
        nano.model,
        "encode_frames",
        lambda frames: seen.append(frames.shape[:2].numel()) or encode(frames),
    )
    torch.testing.assert_close(logits(apart=True), whole, atol=1e-4, rtol=1e-4)
    assert (
        sum(seen) == 68
    )  # two a second of 34 seconds; windows by themselves would have cost 31 * 8


FAST = {
    *("frozen", "finetuned", "lora", "l2sp", "ewc", "text4vis", "actionclip", "efficient-prompt"),
    *("mote", "ost", "adaptformer"),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("few_templates")
def test_every_method_has_a_timeline(nano: Recognizer, known: Known, name: str) -> None:
    method = METHODS[name]
    options = {"frames": 8} if "frames" in method.__dataclass_fields__ else {}
    made = method.make(next(iter(method.variants), None), **options).for_classes(LABELS)
    model = made.build(load("nano", device="cpu").clip)
    assert model.frames_apart == (name in FAST)
    recognizer = Recognizer(
        model, nano.tokenizer, ModelConfig(made, Sampling("uniform")), device=torch.device("cpu")
    )
    found = timeline(recognizer, known.path, LABELS[:2], stride=4)
    assert found.scores.isfinite().all() and len(found.scores) == 9


def test_smoothing_is_the_mean_over_covering_windows() -> None:
    logits = torch.tensor([[0.0], [3.0], [6.0], [12.0]])
    plan = WindowPlan(2.0, 1.0, 8)
    assert smoothed(logits, plan, 5.0, "logits")[:, 0].tolist() == [0, 1.5, 4.5, 9, 12]
    assert smoothed(logits, plan, 4.5, "logits")[:, 0].tolist() == [0, 1.5, 4.5, 9, 12]
    two = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert smoothed(two, plan, 3.0, "probs")[1].exp().tolist() == pytest.approx([0.5, 0.5])


def test_merging_and_short_segments() -> None:
    best = [0, 0, 1, 0, 2, 2, 2, 1]
    scores = torch.nn.functional.one_hot(torch.tensor(best), 3) * 0.8 + torch.tensor(
        [0.1, 0.05, 0.05]
    )
    edges = [10.0 + i for i in range(9)]

    def spans(shortest: float) -> list[tuple[float, float, str]]:
        return [(s.start, s.end, s.label) for s in merged(scores, edges, "abc", shortest)]

    assert spans(0) == [(10, 12, "a"), (12, 13, "b"), (13, 14, "a"), (14, 17, "c"), (17, 18, "b")]
    assert spans(2) == [(10, 14, "a"), (14, 18, "c")]
    assert spans(100) == [(10, 18, "c")]
    assert merged(scores, edges, "abc")[0].score == pytest.approx(0.9)


def test_every_file_of_a_calibrated_timeline_says_the_same(
    run, known: Known, tmp_path: Path
) -> None:
    nano = load("nano", device="cpu")
    nano.calibration = Calibration(1.0, NoneRule(12.1, 43.2, 0.88), {"to": "a test"})
    nano.save(tmp_path / "sure")
    outputs = [tmp_path / f"found.{suffix}" for suffix in ("json", "csv", "srt", "vtt", "png")]
    asked = (
        "timeline",
        known.path,
        "--labels",
        "cat, clock",
        "--json",
        *(word for path in outputs for word in ("--out", path)),
    )
    found = run(*asked, "--model", tmp_path / "sure").json
    said = [segment["label"] for segment in found["segments"]]
    assert found["calibrated"] and "cat" in said and NONE in said
    assert found["labels"] == ["cat", "clock", NONE] and len(found["cosine"]) == len(found["times"])
    assert found["none"] == [row[-1] for row in found["scores"]]
    for start, none, (*shares, _) in zip(
        found["times"], found["none"], found["scores"], strict=True
    ):
        segment = next(s for s in found["segments"] if s["start"] <= start < s["end"])
        assert segment["label"] == (
            NONE if none > 0.5 else found["labels"][shares.index(max(shares))]
        )
    assert [row["label"] for row in csv.DictReader(outputs[1].read_text().splitlines())] == said
    for path in outputs[2:4]:
        assert re.findall(r"^(.+) \(\d+ %\)$", path.read_text(), re.MULTILINE) == said
    plain = run(*asked, "--model", "nano").json
    assert (plain["calibrated"], plain["none"], plain["labels"]) == (False, None, ["cat", "clock"])
    assert all(NONE not in path.read_text() for path in outputs[:4])


def test_one_more_probability_is_none_of_these(nano: Recognizer, known: Known) -> None:
    def doubtful(logits: Tensor) -> Tensor:
        return torch.cat([logits, logits.new_full((len(logits), 1), 1e3)], dim=1).softmax(dim=-1)

    found = timeline(nano, known.path, LABELS, scores=doubtful)
    assert found.labels == [*LABELS, NONE]
    assert [(s.label, s.start, s.end) for s in found.segments] == [(NONE, 0, 34)]


STAMP = r"\d{2,}:\d\d:\d\d[,.]\d{3}"


@pytest.mark.parametrize("write", [srt, vtt])
def test_subtitles(write) -> None:
    odd = "a <b>bold</b> & {odd} --> label\nof two lines"
    segments = [
        Segment(-0.1, 1.0004, "a", 0.5),
        Segment(1.0004, 1.0006, odd, 0.75),
        Segment(1.0006, 1.0008, "c", 1),
    ]
    text = write([*segments, Segment(3599.9996, 360000, "d", 1)])
    cues = re.findall(rf"^({STAMP}) --> ({STAMP})\n(.+)\n(?:\n|\Z)", text, re.MULTILINE)
    assert len(cues) == text.count(" --> ") == 3  # of the third one nothing is left after rounding
    point = "," if write is srt else "."
    assert cues[0] == (f"00:00:00{point}000", f"00:00:01{point}000", "a (50 %)")
    assert not set(cues[1][2]) & {"<", ">"} and "of two lines" in cues[1][2]
    assert cues[2][:2] == (f"01:00:00{point}000", f"100:00:00{point}000")
    if write is srt:
        assert re.findall(r"^\d+$", text, re.MULTILINE) == ["1", "2", "3"]
    else:
        assert text.startswith("WEBVTT\n\n") and "&amp;" in text


def test_the_command_writes_every_format(run, known: Known, tmp_path: Path) -> None:
    outputs = [tmp_path / f"found.{suffix}" for suffix in ("json", "csv", "srt", "vtt", "png")]
    asked = ("timeline", known.path, "--labels", ", ".join(LABELS), "--model", "nano", "--json")
    result = run(*asked, *(word for path in outputs for word in ("--out", path)))
    assert result.code == 0, result.err
    assert [s["label"] for s in result.json["segments"]] == [label for label, _ in PARTS]
    assert json.loads(outputs[0].read_text(encoding="utf-8")) == result.json
    rows = list(csv.DictReader(outputs[1].read_text().splitlines()))
    found = [{**row, **{key: float(row[key]) for key in ("start", "end", "score")}} for row in rows]
    assert found == result.json["segments"]
    assert outputs[2].read_text().startswith("1\n00:00:00,000 --> 00:00:0")
    assert outputs[4].read_bytes().startswith(b"\x89PNG")
    assert "34/34" in result.err and "written: " in result.err
    assert "umbrella" in run(*asked[:-1]).out


def test_mistakes_are_one_line(run, known: Known, tmp_path: Path) -> None:
    labels = ("--labels", "a, b", "--model", "nano")
    (tmp_path / "empty.mp4").write_bytes(b"")
    one_line(run("timeline", tmp_path, *labels), 1, "empty file")
    one_line(run("timeline", tmp_path / "empty.mp4", *labels), 1, "empty file")
    one_line(run("timeline", tmp_path / "none.mp4", *labels), 2, "no such file")
    one_line(run("timeline", "rtsp://127.0.0.1/a.mp4", *labels), 2, "froster watch")
    one_line(run("timeline", known.path, *labels, "--out", "x.doc"), 2, ".srt")
    one_line(
        run("timeline", known.path, *labels, "--out", tmp_path / "a" / "x.srt", "--out", tmp_path),
        2,
        "--out",
    )
    one_line(run("timeline", known.path, *labels, "--window", 0), 2, "above zero")
    one_line(run("timeline", known.path, *labels, "--window", "inf"), 2, "above zero")
    one_line(run("timeline", known.path, *labels, "--stride", 9), 2, "gaps")
    one_line(run("timeline", known.path, *labels, "--stride", 0.01), 2, "0.125 s or more")


def test_a_cut_file_is_reported(run, known: Known, tmp_path: Path) -> None:
    front = {"movflags": "faststart"}
    cut = make_video(tmp_path / "cut.mp4", 300, container_options=front)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    result = run("timeline", cut, "--labels", "a, b", "--model", "nano", "--json")
    assert result.code == 0 and result.json["end"] < result.json["stated"] == 12
    assert "states 12.0 s but ends at" in result.err


def test_ctrl_c_keeps_what_was_found(
    run, known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interrupt, "_requested", False)
    scored = []
    score = WindowScorer.__call__

    def stopping(self, windows, classes):
        scored.append(len(windows))
        if len(scored) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return score(self, windows, classes)

    monkeypatch.setattr(WindowScorer, "__call__", stopping)
    out = tmp_path / "found.json"
    asked = (
        "timeline",
        known.path,
        "--labels",
        ", ".join(LABELS),
        "--model",
        "nano",
        "--batch-size",
        4,
    )
    result = run(*asked, "--out", out)
    one_line(result, 130, "stopped at 11 s", "written")
    found = json.loads(out.read_text())
    assert not found["complete"] and found["end"] == 11
    assert [s["label"] for s in found["segments"]] == ["cat", "boat"]


CHILD = """
import resource, sys
import froster
model = froster.load("nano", device="cpu")
found = froster.timeline(model, sys.argv[1], ["cat", "tree", "boat"])
print(found.end, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Two children, the second with a ten times longer video: all its frames would be 58 MB."""
    peaks = []
    for seconds in (20, 200):
        path = make_video(
            tmp_path / f"{seconds}.mp4", 10 * seconds, "mpeg4", fps=10, size=(160, 120)
        )
        child = quick.run(
            [sys.executable, "-c", CHILD, path], check=True, capture_output=True, text=True
        )
        end, peak = map(float, child.stdout.split())
        assert end == pytest.approx(seconds)
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 20, peaks


PAGES = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("page", ["timeline.md", "watch.md"])
@pytest.mark.usefixtures("few_templates")
def test_the_pages_show_what_works(
    run, known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """Every command on the nano model, as it is written, and the Python."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday.mp4").write_bytes(known.path.read_bytes())
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    text = (PAGES / page).read_text(encoding="utf-8")
    commands = re.findall(r"^    froster (.*--model nano.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        result = run(*shlex.split(command))
        assert result.code == 0 and "cat" in result.out, result.err
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, page, "exec"), {})
    if page == "timeline.md":
        assert (tmp_path / "holiday.srt").exists() and (tmp_path / "holiday.png").exists()


def test_labels_by_themselves_may_overlap() -> None:
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.6], [0.2, 0.7], [0.9, 0.2]])
    edges, labels = [0.0, 1.0, 2.0, 3.0, 4.0], ["a", "b"]
    segments = by_label(scores, edges, labels, [0.5, 0.6])
    assert [(s.start, s.end, s.label) for s in segments] == [(0, 2, "a"), (1, 3, "b"), (3, 4, "a")]
    assert segments[0].score == pytest.approx(0.85)
    assert [s.label for s in by_label(scores, edges, labels, [0.5, 0.6], 1.5)] == ["a", "b"]
    assert by_label(scores, edges, labels, [0.95, 0.95]) == []


def test_multi_label_is_that_of_classify(run, nano: Recognizer, known: Known) -> None:
    labels = ["cat spinning", "a thing", "car pacing"]
    seconds = known.segments[-1][1]
    whole = nano.timeline(known.path, labels, window=seconds, stride=seconds, multi_label=True)
    (answer,) = [nano.classify(known.path, labels, multi_label=True)]
    assert whole.thresholds == [0.5, 0.5, 0.5] and whole.scores.shape[1] == 3
    likely = dict(zip(answer.labels, answer.scores, strict=True))
    assert whole.scores[0].tolist() == pytest.approx([likely[label] for label in labels], abs=0.02)
    asked = ("--labels", ",".join(labels), "--multi-label", "--model", "nano")
    result = run("timeline", known.path, *asked, "--json")
    assert result.code == 0 and result.json["none"] is None, result.err
    assert result.json["thresholds"] == [0.5, 0.5, 0.5]
    for segment in result.json["segments"]:
        assert segment["score"] >= 0.5
    with pytest.raises(UsageError, match="leave scores out"):
        timeline(nano, known.path, labels, multi_label=True, scores=lambda x: x.softmax(-1))
