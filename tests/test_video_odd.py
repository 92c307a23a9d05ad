"""Videos that are to be shown otherwise than they are stored, or timed otherwise than they state:
what must be read."""

from __future__ import annotations

import csv
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from froster.cli.attend import read_clip
from froster.data.dataset import ReadViews
from froster.data.inspect import inspect
from froster.serve.limits import Limits
from froster.video.container import UPRIGHT, Orientation
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.stream import Clock, Stream
from froster.video.units import message_kinds
from froster.video.windows import ReadSegments, VideoSegment, VideoSummary
from test_doctor import encode, moving
from video_files import (
    join,
    make_video,
    numbers,
    orientation_message,
    shared,
    with_units,
    write_matrix,
)

# Matrix, what it asks for in NumPy on (n, H, W, 3), and what the doctor says.
ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), lambda x: x, None),
    "left to right": ((-1, 0, 0, 1), lambda x: x[:, :, ::-1], ("mirrored", "left to right")),
    "top to bottom": ((1, 0, 0, -1), lambda x: x[:, ::-1], ("mirrored", "top to bottom")),
    "by 180": ((-1, 0, 0, -1), lambda x: x[:, ::-1, ::-1], ("rotated", "by 180 degrees")),
    "clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, -1, (1, 2)), ("rotated", "by 270 degrees")),
    "counter-clockwise": (
        (0, -1, 1, 0),
        lambda x: np.rot90(x, 1, (1, 2)),
        ("rotated", "by 90 degrees"),
    ),
    "transposed": (
        (0, 1, 1, 0),
        lambda x: x.swapaxes(1, 2),
        ("mirrored", "left to right, then turned by 90 degrees"),
    ),
    "transposed, the other way": (
        (0, -1, -1, 0),
        lambda x: x.swapaxes(1, 2)[:, ::-1, ::-1],
        ("mirrored", "left to right, then turned by 270 degrees"),
    ),
    "scaled": ((2, 0, 0, 1), lambda x: x, ("pixels-not-square", "shown 192 x 64, read 96 x 64")),
    "scaled and turned": (
        (0, 3, -3, 0),
        lambda x: np.rot90(x, -1, (1, 2)),
        ("rotated", "by 270 degrees"),
    ),
    "a little off": (
        (1e-4, 1, -1, 1e-4),
        lambda x: np.rot90(x, -1, (1, 2)),
        ("rotated", "by 270 degrees"),
    ),
    "zero": ((0, 0, 0, 0), lambda x: x, None),
    "singular": ((1, 0, 0, 0), lambda x: x, None),
    "singular, turned": ((0, 1, 0, 0), lambda x: x, None),
    "by 45": ((0.7, 0.7, -0.7, 0.7), lambda x: x, None),
    "slanted": ((1, 1, 1, 1), lambda x: x, None),
}


def frames(path: Path) -> np.ndarray:
    with Video(path) as video:
        found = video.read(range(video.num_frames)).numpy()
        assert (video.height, video.width) == found.shape[1:3] and video.damaged == 0
        last = video.num_frames - 1
        assert np.array_equal(video.read([last, 3])[1].numpy(), found[3])
    return found


def squares(path: Path, size: int) -> np.ndarray:
    with Stream.of_file(path) as stream:
        return np.stack([frame.square(size).permute(1, 2, 0).numpy() for frame in stream])


def findings(run, path: Path) -> set[tuple[str, str]]:
    report = run(
        "doctor", path, "--workers", 0, "--min-frames", 1, "--min-seconds", 0.1, "--json"
    ).json
    return {(problem["kind"], problem["why"]) for problem in report["problems"]}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_file_is_shown_as_its_matrix_asks(run, tmp_path: Path, name: str) -> None:
    matrix, shown, finding = ORIENTATIONS[name]
    plain = encode(tmp_path / "plain.mp4", moving(0, 12))
    stored = frames(plain)
    path = write_matrix(Path(shutil.copy(plain, tmp_path / "v.mp4")), *matrix)
    expected = shown(stored)
    assert np.array_equal(frames(path), expected)
    height, width = expected.shape[1:3]
    if name != "scaled":  # the shape of the square is that of what is cut out of the picture
        assert np.array_equal(squares(path, 64), shown(squares(plain, 64)))
    measured = Limits().measure(path)
    assert (measured.width, measured.height) == (width, height)
    (found,) = [each for each in inspect(str(path)) if each is not None]
    assert (found.width, found.height) == (width, height)
    assert findings(run, path) == ({finding} if finding else set())


def test_every_reader_shows_it_alike(tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.mp4", moving(0, 12))
    path = write_matrix(Path(shutil.copy(plain, tmp_path / "v.mp4")), 0, 1, 1, 0)
    sampling = Sampling("uniform", 4)
    (views,), (upright,) = (
        ReadViews(sampling, 1, 64)(str(path)),
        ReadViews(sampling, 1, 64)(str(plain)),
    )
    assert np.array_equal(views.clips, upright.clips.swapaxes(-1, -2))
    clip, whole = read_clip(path, sampling, 1).frames, read_clip(plain, sampling, 1).frames
    assert np.array_equal(clip.numpy(), whole.numpy().swapaxes(1, 2))
    segments = [
        [part for part in ReadSegments(4, 64, 4.0)(str(each)) if isinstance(part, VideoSegment)]
        for each in (path, plain)
    ]
    assert np.array_equal(segments[0][0].clip, segments[1][0].clip.swapaxes(-1, -2))


def test_the_eight_orientations_are_all_and_no_copies() -> None:
    all_eight = {Orientation.of_matrix(*matrix) for matrix, _, _ in ORIENTATIONS.values()}
    assert len(all_eight) == 8
    assert {(each.mirrored, each.rotation) for each in all_eight} == {
        (m, r) for m in (False, True) for r in (0, 90, 180, 270)
    }
    picture = np.zeros((4, 6, 3), np.uint8)
    for each in all_eight:
        assert np.shares_memory(each.applied(picture), picture)
        assert each.stored(*each.stored(6, 4)) == (6, 4)
        assert each.applied(picture).shape[:2] == each.stored(6, 4)[::-1]
    assert UPRIGHT.applied(picture) is picture


@pytest.mark.parametrize(
    "case", ["mirrored/hflip.mp4", "mirrored/vflip.mp4", "zero-matrix/zero.mp4"]
)
def test_given_matrices(case: str) -> None:
    path = shared("cases", *case.split("/"))
    base = frames(path.with_name("base.mp4"))
    shown = {"hflip.mp4": base[:, :, ::-1], "vflip.mp4": base[:, ::-1], "zero.mp4": base}
    assert np.array_equal(frames(path), shown[path.name])


GOP = {
    "libx264": {"x264-params": "scenecut=0"},
    "libx265": {"x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0"},
}


@pytest.mark.parametrize("codec", GOP)
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize(
    ("degrees", "mirrored"), [(90, False), (180, False), (270, False), (0, True), (90, True)]
)
def test_the_stream_may_ask_to_be_turned(
    tmp_path: Path, codec: str, suffix: str, degrees: int, mirrored: bool
) -> None:
    """A message at every key frame, as FFmpeg hands it on with that frame alone in H.264."""
    plain = make_video(tmp_path / "plain.mkv", 30, codec, b_frames=2, gop=12, options=GOP[codec])
    message = orientation_message(degrees, mirrored, hevc=codec == "libx265")
    path = with_units(
        plain,
        tmp_path / f"v.{suffix}",
        lambda packet, number: message if packet.is_keyframe else b"",
    )
    stored = frames(plain)
    shown = np.rot90(stored[:, :, ::-1] if mirrored else stored, degrees // 90, (1, 2))
    assert np.array_equal(frames(path), shown)
    with Video(path) as video:
        for index in (29, 13, 0, 17):
            assert np.array_equal(video.read([index])[0].numpy(), shown[index])
    with Stream.of_file(path) as stream:
        assert {(frame.orientation.rotation, frame.orientation.mirrored) for frame in stream} == {
            (degrees, mirrored)
        }
        assert stream.damaged == 0


def test_a_turn_on_the_way_holds_from_there(tmp_path: Path) -> None:
    """Frames that are then of another shape are fitted to that of the first."""
    plain = make_video(
        tmp_path / "plain.mp4", 36, b_frames=2, gop=12, size=(96, 64), options=GOP["libx264"]
    )
    messages = {0: orientation_message(90), 12: orientation_message(180)}
    path = with_units(plain, tmp_path / "v.mp4", lambda packet, number: messages.get(number, b""))
    stored, found = frames(plain), frames(path)
    assert np.array_equal(found[:12], np.rot90(stored[:12], 1, (1, 2)))
    with Stream.of_file(path) as stream:
        assert [frame.orientation.rotation for frame in stream] == [90] * 12 + [180] * 12 + [0] * 12
    assert found.shape == (36, 96, 64, 3)
    assert numbers(tensor(found[12:24, :, ::-1])) == list(range(12, 24))
    assert numbers(tensor(found[24:])) == list(range(24, 36))


def tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures))


def test_the_given_stream_that_turns_itself() -> None:
    path = shared("cases", "orientation-in-the-stream", "rotate_90.mkv")
    found = frames(path)
    assert found.shape == (10, 96, 64, 3) and len({picture.tobytes() for picture in found}) == 10


def test_messages_are_told_apart() -> None:
    assert message_kinds(bytes([5, 255, 2]) + bytes(257) + bytes([47, 3, 8, 0, 1, 0x80])) == [5, 47]
    assert message_kinds(orientation_message(90)[1:]) == [47]
    assert message_kinds(b"") == [] and message_kinds(bytes([255, 255])) == []


def two_tracks(path: Path, default: tuple[bool, bool]) -> Path:
    """One of darkness, then one of numbers."""
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, marked in zip(streams, default, strict=True):
            stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
            stream.disposition = (
                av.stream.Disposition.default if marked else av.stream.Disposition(0)
            )
        with av.open(str(make_video(path.with_name("numbers.mkv"), 20))) as source:
            for frame in source.decode(video=0):
                dark = av.VideoFrame.from_ndarray(np.zeros((48, 80, 3), np.uint8), format="rgb24")
                for stream, picture in zip(streams, (dark, frame), strict=True):
                    picture.pts, picture.time_base = frame.pts, frame.time_base
                    container.mux(stream.encode(picture))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("default", "numbered"), [((False, True), True), ((True, False), False), ((True, True), False)]
)
def test_the_track_that_is_marked_as_default_is_read(
    tmp_path: Path, default: tuple[bool, bool], numbered: bool
) -> None:
    path = two_tracks(tmp_path / "v.mkv", default)
    expected = list(range(20)) if numbered else [0] * 20
    with Video(path) as video:
        assert numbers(video.read(range(20))) == expected
    with Stream.of_file(path) as stream:
        assert (
            numbers(
                tensor(np.stack([frame.picture.to_ndarray(format="rgb24") for frame in stream]))
            )
            == expected
        )


PARTS = {
    "equal": [24, 24, 24, 24],
    "of a fifth of a second": [5] * 10,
    "of all lengths": [20, 7, 60, 5, 12],
    "two": [15, 24],
}


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("codec", ["mpeg2video", "libx264", "all key frames"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("suffix", ["ts", "m2ts"])
def test_joined_parts_follow_one_another(
    tmp_path: Path, parts: str, codec: str, b_frames: int, suffix: str
) -> None:
    how = (
        {"codec": "mpeg2video", "gop": 1}
        if codec == "all key frames"
        else {"codec": codec, "b_frames": b_frames}
    )
    options = {"b": "600k"}
    made = [
        make_video(tmp_path / f"{number}.{suffix}", count, options=options, **how)
        for number, count in enumerate(PARTS[parts])
    ]
    path = join(tmp_path / f"v.{suffix}", made)
    count = sum(PARTS[parts])
    expected = pytest.approx([number / 25 for number in range(count)], abs=0.001)
    with Stream.of_file(path) as stream:
        shown = list(stream)
    assert [frame.time - shown[0].time for frame in shown] == expected
    assert shown[-1].end - shown[0].time == pytest.approx(count / 25, abs=0.001)
    with Video(path) as video:
        assert numbers(video.read(range(count))) == [
            number for part in PARTS[parts] for number in range(part)
        ]
        assert video.times() == expected
        assert video.seconds == pytest.approx(count / 25, abs=0.001)
        assert [video.index_at(number / 25 + 0.01) for number in range(count)] == list(range(count))
    assert Limits().measure(path).seconds == pytest.approx(count / 25, abs=0.04)


def test_given_joined_parts(run) -> None:
    path = shared("cases", "joined-short-parts", "joined4.ts")
    found = run("timeline", path, "--labels", "cat, boat", "--model", "nano", "--json").json
    assert found["end"] - found["start"] == pytest.approx(3.84, abs=0.05)


@pytest.mark.parametrize(
    ("stamps", "keys", "times"),
    [
        ([0, 1, 2, 0, 1, 2], {0, 3}, [0, 1, 2, 3, 4, 5]),
        ([5, 6, 7, 3, 4, 5], {0, 3}, [0, 1, 2, 3, 4, 5]),  # before where the first part began
        ([0, 1, 2, 3, 1, 2, 3, 4, 5], {0, 4}, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ([0, 1, 2, 0, 1, 2], set(range(6)), [0, 1, 2, 3, 4, 5]),
        ([0, 1, 2, 4, 3, 5], set(range(6)), [0, 1, 2, 4, 4.001, 5]),
        ([0, 1, 2, 4, 3, 5], {0, 4}, [0, 1, 2, 4, 4.001, 5]),
        ([0, 2, 1, 3, 4], {0}, [0, 2, 2.001, 3, 4]),
        ([0, 4, 2, 1, 3, 5], {0}, [0, 4, 4.001, 4.002, 4.003, 5]),
        (
            [0, 1, 2, 3, 1, 5, 6],
            {0, 4},
            [0, 1, 2, 3, 4, 5, 6],
        ),  # back and forth again, though a key frame
        ([0, 1, 2, 3, 1, 2, 5], {0}, [0, 1, 2, 3, 3.001, 3.002, 5]),
    ],
)
def test_a_new_beginning_and_disorder(
    stamps: list[int], keys: set[int], times: list[float]
) -> None:
    """In frames of a twenty-fifth of a second, some of them key frames."""
    clock = Clock(0.04, 0.04, 10.0)
    found = [clock.time(stamp, number in keys) for number, stamp in enumerate(stamps)]
    expected = [int(time) / 25 + time % 1 for time in times]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "mov"])
def test_seconds_are_those_of_the_frames(run, tmp_path: Path, suffix: str) -> None:
    """Not the frames by the rate that the header states, on which the sampling goes on to rely."""
    times = [
        40 * number if number < 25 else 1000 + 200 * (number - 25) for number in range(36)
    ]  # the last at 3 s
    codec = {"webm": "libvpx"}.get(suffix, "libx264")
    path = make_video(tmp_path / f"v.{suffix}", 36, codec, times=times)
    with Stream.of_file(path) as stream:
        shown = list(stream)
    length = shown[-1].end - shown[0].time
    assert 3.0 < length < 3.25
    with Video(path) as video:
        assert video.times() == pytest.approx([time / 1000 for time in times], abs=0.002)
        assert video.seconds == pytest.approx(length, abs=0.001)
        assert [video.index_at(time / 1000 + 0.003) for time in times] == list(range(36))
    sampling = Sampling("uniform", 4)
    (views,) = ReadViews(sampling, 1, 32)(str(path))
    (whole,) = [
        part for part in ReadSegments(4, 32, 4.0)(str(path)) if isinstance(part, VideoSummary)
    ]
    (found,) = [each for each in inspect(str(path)) if each is not None]
    seconds = [views.seconds, whole.seconds, found.seconds]
    assert seconds == pytest.approx([length] * 3, abs=0.002)
    assert Limits().measure(path).seconds == pytest.approx(length, abs=0.04)
    assert read_clip(path, sampling, 1).seconds == pytest.approx(
        [times[index] / 1000 for index in (4, 13, 22, 31)], abs=0.002
    )
    run("classify", path, "--labels", "cat, boat", "--model", "nano", "--out", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["seconds"]) == pytest.approx(length, abs=0.002)


@pytest.mark.parametrize(("name", "seconds"), [("vfr.webm", 2.0), ("slowing.mp4", 3.64)])
def test_given_variable_rates(name: str, seconds: float) -> None:
    path = shared("cases", "variable-rate-seconds", name)
    (views,) = ReadViews(Sampling("uniform", 4), 1, 32)(str(path))
    (inspection,) = [each for each in inspect(str(path)) if each is not None]
    found = [views.seconds, Limits().measure(path).seconds, inspection.seconds]
    assert found == pytest.approx([seconds] * 3, abs=0.04)


def described(path: Path, **of_context: object) -> Path:
    """Encoded anew with what an encoder states of its pixels. Without loss, for else x264 may give
    other pixels each time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for name, value in of_context.items():
            setattr(stream.codec_context, name, value)
        for picture in moving(0, 30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("aspect", "shown"), [("2/1", "192 x 64"), ("64/45", "137 x 64"), ("1/2", "96 x 128")]
)
def test_the_doctor_says_that_pixels_are_not_square(
    run, tmp_path: Path, aspect: str, shown: str
) -> None:
    """They are read as they are, as in the reference implementations, whose numbers depend on it."""
    plain = described(tmp_path / "plain.mp4")
    path = described(tmp_path / "v.mp4", sample_aspect_ratio=Fraction(aspect))
    assert np.array_equal(frames(path), frames(plain))
    assert findings(run, path) == {("pixels-not-square", f"shown {shown}, read 96 x 64")}
    assert findings(run, plain) == set()


@pytest.mark.parametrize(("number", "name"), [(18, "arib-std-b67"), (16, "smpte2084")])
def test_the_doctor_says_that_the_dynamic_range_is_high(
    run, tmp_path: Path, number: int, name: str
) -> None:
    path = described(tmp_path / "v.mp4", color_trc=number, color_primaries=9, colorspace=9)
    ((kind, why),) = findings(run, path)
    assert kind == "high-dynamic-range" and name in why and "ffmpeg -i IN -vf zscale" in why
    assert (
        findings(
            run, described(tmp_path / "plain.mp4", color_trc=1, color_primaries=1, colorspace=1)
        )
        == set()
    )


def test_given_pixels(run) -> None:
    kinds_of = {
        name: {kind for kind, _ in findings(run, shared("cases", *name.split("/")))}
        for name in (
            "pixels-not-square/sar2.mp4",
            "high-dynamic-range/hlg.mp4",
            "high-dynamic-range/sdr.mp4",
        )
    }
    assert list(kinds_of.values()) == [{"pixels-not-square"}, {"high-dynamic-range"}, set()]


def test_the_doctor_says_that_frames_are_interlaced(run, tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mpg", moving(0, 30), "mpeg2video", 25, flags="+ildct+ilme", top="1")
    assert {kind for kind, _ in findings(run, path)} == {"interlaced"}


def test_ffmpeg_shows_the_same(tmp_path: Path) -> None:
    """Where the command is there: it turns and mirrors by itself."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("there is no ffmpeg command")
    for name, (matrix, _, _) in ORIENTATIONS.items():
        if name in ("by 45", "slanted"):  # ffmpeg turns these into a frame with black corners
            continue
        path = write_matrix(
            make_video(tmp_path / "v.mp4", 6, size=(96, 64), pix_fmt="yuv444p"), *matrix
        )
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            str(path),
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        assert frames(path).tobytes() == shown, name
