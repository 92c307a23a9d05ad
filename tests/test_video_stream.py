"""Frames in order with times that only go forward, from files that are damaged, cut, growing or
oddly stamped."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import av
import pytest
import torch
from av.video.reformatter import VideoReformatter

from froster.errors import UsageError, VideoError
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.stream import Clock, Frame, Stream
from froster.video.windows import HeldFrame, SlidingWindows, Window, WindowPlan
from video_files import make_video, numbers, rotate_clockwise, shared


def read(path: Path) -> tuple[list[float], list[int], Stream]:
    """Times and numbers of all frames."""
    with Stream.of_file(path) as stream:
        found = [(frame.time, frame.picture.to_ndarray(format="rgb24")) for frame in stream]
    times = [time for time, _ in found]
    assert all(a < b for a, b in itertools.pairwise(times)), "times go forward"
    return times, numbers(torch.stack([torch.from_numpy(picture) for _, picture in found])), stream


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.mov", "a.avi"])
def test_every_frame_comes_once_and_at_its_time(tmp_path: Path, name: str) -> None:
    times, shown, stream = read(make_video(tmp_path / name, 60, b_frames=2))
    assert shown == list(range(60))
    assert times == pytest.approx(
        [i / 25 for i in range(60)], abs=0.002
    )  # a TS starts at 1.4 s, which is its zero
    assert stream.duration == pytest.approx(2.4, abs=0.1)
    assert stream.damaged == 0


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    stamps = [40 * i + i % 7 * 5 + i // 10 * 300 for i in range(60)]
    times, _, _ = read(make_video(tmp_path / "v.mp4", 60, b_frames=2, times=stamps))
    assert times == pytest.approx([stamp / 1000 for stamp in stamps], abs=0.002)


def test_a_file_that_states_no_length_tells_how_far_it_is_read(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", 60, container_options={"live": "1"})
    with Stream.of_file(path) as stream:
        shares = [stream.share for _ in stream]
    assert stream.duration is None
    assert shares == sorted(shares) and 0 < shares[0] < 0.3 and 0.9 < shares[-1] <= 1


def test_a_rotated_video_is_upright(tmp_path: Path) -> None:
    def middle(path: Path) -> torch.Tensor:
        with Stream.of_file(path) as stream:
            return next(iter(stream)).square(48)

    lying = middle(make_video(tmp_path / "v.mp4", 3))
    assert torch.equal(middle(rotate_clockwise(tmp_path / "v.mp4")), torch.rot90(lying, -1, (1, 2)))


def test_damage_is_counted_and_passed_over(tmp_path: Path) -> None:
    path = flip(make_video(tmp_path / "v.mp4", 100, size=(320, 240), gop=10), 97)
    times, _, stream = read(path)
    assert len(times) > 50
    assert stream.damaged > 0


@pytest.mark.parametrize("name", ["v.ts", "v.mkv", "v.avi"])
def test_whatever_is_broken_there_are_frames_or_a_clear_error(tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name == "v.avi" else "libx264"
    data = make_video(tmp_path / name, 50, codec, gop=10).read_bytes()
    ends = {"frames": 0, "error": 0}
    for step in range(11, 140, 8):
        (tmp_path / name).write_bytes(data)
        try:
            with Stream.of_file(flip(tmp_path / name, step)) as stream:
                times = [frame.time for frame in stream]
            with Video(tmp_path / name) as video:
                assert len(video.read([0])) == 1
            assert all(a < b for a, b in itertools.pairwise(times))
            ends["frames"] += 1
        except VideoError:
            ends["error"] += 1
    assert ends["frames"] > 0


def flip(path: Path, step: int, first: float = 0.25) -> Path:
    """Turns over one byte in `step` from the given share of the file up to three quarters."""
    data = bytearray(path.read_bytes())
    for place in range(int(first * len(data)), 3 * len(data) // 4, step):
        data[place] ^= 0xFF
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv", "v.ts"])
def test_a_truncated_file_gives_what_is_left(tmp_path: Path, name: str) -> None:
    front = {"movflags": "faststart"} if name == "v.mp4" else None
    codec = "mpeg4" if name == "v.avi" else "libx264"
    path = make_video(tmp_path / name, 100, codec, container_options=front)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    _, shown, _ = read(path)
    assert shown[:30] == list(range(30)) and len(shown) < 100


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    data = make_video(tmp_path / "whole.ts", 200).read_bytes()
    path = tmp_path / "growing.ts"
    path.write_bytes(data[: len(data) // 2])

    def grow() -> None:
        time.sleep(0.05)
        with path.open("ab") as file:
            file.write(data[len(data) // 2 :])

    thread = threading.Thread(target=grow)
    thread.start()
    _, shown, _ = read(path)
    thread.join()
    assert len(shown) > 80 and shown[:80] == list(range(80))


def test_files_without_frames(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        container.add_stream("aac", rate=48000)
    whole = make_video(
        tmp_path / "v.mp4", 30, container_options={"movflags": "faststart"}
    ).read_bytes()
    (tmp_path / "head.mp4").write_bytes(whole[: whole.index(b"mdat") + 8])
    for name in ("empty.mp4", "none.mp4", "a.mp4", "head.mp4", ""):
        with pytest.raises(VideoError, match=name or "directory"):
            read(tmp_path / name)


def test_real_videos_as_they_are() -> None:
    for name in ("flipping_a_pancake.mkv", "v_biking_01_01.mpg", "water_bottle_drumming.mp4"):
        with Stream.of_file(shared("videos", "originals", name)) as stream:
            times = [frame.time for frame in stream]
        assert stream.duration == pytest.approx(times[-1], abs=0.15)
        assert stream.damaged == 0


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([10, 11, 12], [0, 1, 2]),
        ([None, None, 5], [0, 1, 2]),
        ([0, None, 2, None], [0, 1, 2, 3]),
        ([0, 1, 1, 2], [0, 1, 1.001, 2]),
        ([0, 1, 0.5, 2], [0, 1, 1.001, 2]),
        ([0, 1, -500, -499], [0, 1, 2, 3]),
        ([0, 1, 5000, 5001], [0, 1, 2, 3]),
        ([0, 1, 9, 10], [0, 1, 9, 10]),
    ],
)
def test_the_clock_goes_forward(stamps: list, times: list[float]) -> None:
    clock = Clock(0.1, 1.0, 10.0)
    assert [clock.time(None if s is None else round(10 * s)) for s in stamps] == pytest.approx(
        times
    )


def test_the_clock_starts_where_the_file_does() -> None:
    assert (
        Clock(1.0, 1.0, 10.0, start=3.0).time(5) == 2.0
    )  # the sound begins two seconds before the pictures
    assert Clock(1.0, 1.0, 10.0, start=3.0).time(5000) == 0.0


CONVERTER = VideoReformatter()


def frames(count: int, fps: float, start: float = 0.0) -> list[Frame]:
    return [Frame(start + i / fps, start + (i + 1) / fps, None, CONVERTER) for i in range(count)]


def windows(made: list[Frame], plan: WindowPlan) -> tuple[list[Window], SlidingWindows, list[int]]:
    windows, held, found = (
        SlidingWindows(made, plan, lambda frame: HeldFrame(frame.time, None)),
        [],
        [],
    )
    for window in windows:
        found.append(window)
        held.append(len({id(s) for _, samples in windows.held for s in samples}))
    return found, windows, held


def test_windows_take_the_frame_shown_in_the_middle_of_each_part() -> None:
    found, over, _ = windows(frames(100, 10, start=3.0), WindowPlan(4.0, 1.0, 8))
    assert [w.start for w in found] == [3, 4, 5, 6, 7, 8, 9]
    assert [s.time for s in found[2].samples] == pytest.approx([5.2 + 0.5 * k for k in range(8)])
    assert (over.start, over.end) == pytest.approx((3, 13))
    shared_samples = {id(s) for s in found[0].samples} & {id(s) for s in found[1].samples}
    assert len(shared_samples) == 6  # overlapping windows hold the same frames, not copies


@pytest.mark.parametrize(
    ("seconds", "count"), [(3.9, 1), (4.0, 1), (4.1, 1), (4.6, 2), (5.0, 2), (5.5, 3), (0.1, 1)]
)
def test_the_last_window_reaches_the_end(seconds: float, count: int) -> None:
    found, _, _ = windows(frames(round(10 * seconds), 10), WindowPlan(4.0, 1.0, 8))
    assert len(found) == count
    assert all(len(window.samples) == 8 for window in found)
    assert found[-1].samples[-1].time > seconds - 0.6


def test_windows_hold_a_bounded_number_of_frames() -> None:
    for plan in (WindowPlan(4.0, 1.0, 8), WindowPlan(4.0, 0.3, 8), WindowPlan(2.0, 2.0, 16)):
        short, long = (max(windows(frames(n, 25), plan)[2]) for n in (500, 5000))
        assert short == long <= plan.frames * plan.window / plan.stride


def test_a_frame_that_is_shown_for_long_fills_many_windows() -> None:
    still = [Frame(0, 600, None, CONVERTER), Frame(600, 600.04, None, CONVERTER)]
    found, _, held = windows(still, WindowPlan(4.0, 1.0, 8))
    assert len(found) == 597 and max(held) <= 1


def test_plans() -> None:
    plan = WindowPlan.of(Sampling("dense"))
    assert plan.step == pytest.approx(127 / 30 / 7) and plan.stride == pytest.approx(2 * plan.step)
    assert WindowPlan.of(Sampling("uniform", 32)) == WindowPlan(4.0, 1.0, 32)
    assert WindowPlan.of(Sampling("uniform"), window=8) == WindowPlan(8, 2, 8)
    assert WindowPlan.of(Sampling("dense", frames=1)).stride > 0
    for window, stride in ((0, None), (-1, None), (4, 5), (4, 0.1), (4, 0), (float("nan"), None)):
        with pytest.raises(UsageError):
            WindowPlan.of(Sampling("uniform"), window, stride)
