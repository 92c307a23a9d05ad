"""Every index exact, on every kind of file that fools decoders; a VideoError where no frame can be
had."""

import gc
import json
import os
import random
import sys
import textwrap
import wave
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

import quick
from froster.errors import VideoError
from froster.video.container import VIDEO_SUFFIXES
from froster.video.reader import Video
from froster.video.units import unreferenced
from video_files import cut_without_decoding, make_video, numbers, rotate_clockwise, shared

VP9 = {"deadline": "realtime", "cpu-used": "8"}
KINDS = {
    "h264.mp4": {"b_frames": 2},
    "h264_no_b.mp4": {},
    "open_gop.mp4": {"b_frames": 2, "options": {"x264-params": "open-gop=1"}},
    "variable_rate.mp4": {
        "b_frames": 2,
        "times": [40 * i + i % 7 * 5 + i // 10 * 300 for i in range(60)],
    },
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "b_frames": 2},
    "h264_b.avi": {"b_frames": 2},
    "h264.mkv": {"b_frames": 2},
    "no_key_frames.mkv": {"options": {"x264-params": "intra-refresh=1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "vp8.webm": {
        "codec": "libvpx",
        "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "500k"},
    },
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2, "options": {"b": "2M"}},
    "mpeg1.mpg": {"codec": "mpeg1video", "options": {"b": "2M"}},
    "h264.ts": {"b_frames": 2},
    "picture.gif": {"codec": "gif", "pix_fmt": "rgb8", "fps": 10},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "odd.mp4": {"size": (67, 51), "pix_fmt": "yuv444p", "b_frames": 2},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_index_is_exact(tmp_path, name):
    path = make_video(tmp_path / name, 60, **KINDS[name])
    with Video(path) as video:
        assert video.num_frames == 60
        frames = video.read(range(60))
        assert frames.shape == (60, video.height, video.width, 3)
        assert numbers(frames) == list(range(60))
        mixed = [40, 3, 3, 59, 17, 0]
        assert numbers(video.read(mixed)) == mixed
        alone = [0, 11, 12, 23, 35, 36, 47, 59]
        assert [numbers(video.read([index]))[0] for index in reversed(alone)] == alone[::-1]
        assert video.damaged == 0


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "name", ["h264.mp4", "mpeg4.avi", "h264.mkv", "vp9.webm", "mpeg2.mpg", "picture.gif"]
)
def test_very_short_videos(tmp_path, name, count):
    with Video(make_video(tmp_path / name, count, **KINDS[name])) as video:
        assert video.num_frames == count
        assert numbers(video.read([count - 1, 0, 0])) == [count - 1, 0, 0]
        assert video.fps > 0


def test_variable_rate_keeps_the_times(tmp_path):
    times = KINDS["variable_rate.mp4"]["times"]
    with Video(make_video(tmp_path / "v.mp4", 60, **KINDS["variable_rate.mp4"])) as video:
        steps = np.diff(video.timing.pts) / np.diff(times)
        assert np.allclose(steps, steps[0], rtol=0.05)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path, suffix):
    whole = make_video(tmp_path / f"whole.{suffix}", 60, b_frames=2, gop=30)
    with Video(cut_without_decoding(whole, tmp_path / f"cut.{suffix}", 40)) as video:
        assert video.num_frames == 20
        assert numbers(video.read([19, 0, 7])) == [59, 40, 47]


def test_a_rotated_video_is_shown_upright(tmp_path):
    path = make_video(tmp_path / "v.mp4", 30)
    with Video(path) as video:
        lying = video.read([21])[0].numpy()
    with Video(rotate_clockwise(path)) as video:
        assert (video.width, video.height) == (48, 80)
        assert np.array_equal(video.read([21])[0].numpy(), np.rot90(lying, -1))


def test_only_what_is_needed_is_decoded(tmp_path, monkeypatch):
    path = make_video(tmp_path / "long.mp4", 600, gop=20)
    decoded = []
    original = Video._frames

    def counting(self, packets):
        for frame in original(self, packets):
            decoded.append(frame.pts)
            yield frame

    with Video(path) as video:
        monkeypatch.setattr(Video, "_frames", counting)
        assert numbers(video.read([5, 305, 306, 599])) == [5, 305, 306, 599]
    assert len(decoded) < 60


@pytest.fixture
def counted(monkeypatch):
    """How many frames were decoded, in a list of one number."""
    count = [0]
    original = Video._frames

    def counting(self, packets):
        for frame in original(self, packets):
            count[0] += 1
            yield frame

    monkeypatch.setattr(Video, "_frames", counting)
    return count


def in_full(video: Video, indices: list[int]) -> Tensor:
    """What `read` falls back on: every frame decoded from the key frame on, and until the last is
    out."""
    pictures = np.empty((len(indices), video.height, video.width, 3), np.uint8)
    video._fill(pictures, indices, video._shown)
    return torch.from_numpy(pictures)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.mov"])
def test_frames_that_no_other_needs_are_passed_over(tmp_path, counted, name):
    path = make_video(tmp_path / name, 120, b_frames=3, gop=250)
    with Video(path) as video:
        counted[0] = 0
        for index in (100, 101, 102, 103):  # referenced or not
            assert numbers(video.read([index])) == [index]
        spared, counted[0] = counted[0], 0
        for index in (100, 101, 102, 103):
            assert numbers(in_full(video, [index])) == [index]
        assert spared < 0.65 * counted[0]


def test_the_decoder_is_emptied_after_the_last_packet_needed(tmp_path, counted):
    """In place of pushing the frames that it holds back out with further ones, before every seek."""
    path = make_video(
        tmp_path / "v.mp4",
        120,
        b_frames=2,
        gop=12,
        options={"x264-params": "rc-lookahead=0:scenecut=0"},
    )
    with Video(path) as video:
        counted[0] = 0
        keys = [video._pts.index(key) for key in video._keys]
        assert numbers(video.read(keys)) == keys
        assert counted[0] == len(keys)


def test_damage_is_left_to_the_full_decoding(tmp_path, monkeypatch):
    """The nearest frame that stands in for a lost one may be one that is otherwise passed over."""
    path = make_video(
        tmp_path / "v.mkv", 60, b_frames=2, gop=30, options={"x264-params": "scenecut=0"}
    )
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux() if packet.size]
        stamps = sorted(packet.pts for packet in packets)
        lost = next(packet for packet in packets[6:] if not unreferenced(packet, 4))
        data, payload = bytearray(path.read_bytes()), bytes(lost)
    place = data.index(payload)
    data[place + 4 : place + len(payload)] = b"\xff" * (len(payload) - 4)
    path.write_bytes(data)
    indices = [*range(0, 60, 5), stamps.index(lost.pts)]
    with Video(path) as video:
        found, damaged = video.read(indices), video.damaged
    with Video(path) as video:
        assert torch.equal(found, in_full(video, indices))
        assert video.damaged == damaged


@pytest.mark.parametrize(
    ("folder", "step"),
    [
        ("originals", 4),
        pytest.param("originals", 1, marks=pytest.mark.slow),
        pytest.param("clips", 10, marks=pytest.mark.slow),
    ],
)
def test_real_frames_are_those_of_the_full_decoding(folder, step, counted):
    """Some originals, all of them (12 s) or every tenth clip (12 s): eight frames over the whole and
    five in a row."""
    paths = sorted(
        path for path in shared("videos", folder).rglob("*.*") if path.suffix in VIDEO_SUFFIXES
    )
    spared = whole = 0
    for path in paths[::step]:
        with Video(path) as video, Video(path) as other:
            n = video.num_frames
            for indices in (
                [n * k // 8 for k in range(8)],
                list(range(max(0, n // 2 - 5), n // 2)),
            ):
                counted[0] = 0
                found = video.read(indices)
                spared, counted[0] = spared + counted[0], 0
                assert torch.equal(found, in_full(other, indices)), path
                whole += counted[0]
            assert video.damaged == other.damaged == 0 and video.num_frames == n
            assert video._sound == video._trusted, path
    assert spared < 0.9 * whole


def test_an_index_outside_is_an_error(tmp_path):
    with Video(make_video(tmp_path / "v.mp4", 3)) as video:
        for index in (-1, 3):
            with pytest.raises(IndexError, match=f"no frame {index} among 3"):
                video.read([index])
        assert video.read([]).shape == (0, 48, 80, 3)


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv", "v.mpg"])
def test_a_truncated_video_gives_what_is_left(tmp_path, name):
    codec = {"avi": "mpeg4", "mpg": "mpeg2video"}.get(name[2:], "libx264")
    front = {"movflags": "faststart"} if name == "v.mp4" else None
    path = make_video(tmp_path / name, 100, codec, options={"b": "300k"}, container_options=front)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with Video(path) as video:
        assert 10 < video.num_frames < 100
        sound = range(video.num_frames - 3)
        assert numbers(video.read(sound)) == list(sound)
        assert numbers(video.read([video.num_frames - 1]))[0] in range(video.num_frames + 1)


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv", "v.webm"])
def test_corrupt_bits_spoil_only_their_neighbourhood(tmp_path, name):
    kind = {"avi": {"codec": "mpeg4"}, "webm": {"codec": "libvpx-vp9", "options": VP9}}.get(
        name[2:], {}
    )
    path = make_video(tmp_path / name, 120, gop=10, **kind)
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 40):
        data[place] ^= 0x5A
    path.write_bytes(data)
    with Video(path) as video:
        found = numbers(video.read(range(video.num_frames)))
        # A cluster of a mkv is skipped to its end where one of its headers is hit, in avi one
        # packet.
        assert len(set(found)) >= (60 if name in ("v.mkv", "v.webm") else 100)
        assert found[:20] == list(range(20))


def test_a_stand_in_is_the_nearest_frame_and_is_counted(tmp_path):
    path = make_video(tmp_path / "v.mov", 20, "mjpeg", pix_fmt="yuvj420p")
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux() if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in packets[8:10]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    with Video(path) as video:
        assert video.num_frames == 20
        assert numbers(video.read([7, 8, 9, 9, 10])) == [7, 7, 10, 10, 10]
        assert video.damaged == 2


def test_packets_that_mislead_are_replaced_by_a_count(tmp_path):
    """Every second packet is emptied of its picture without any error: the decoded frames become
    the index."""
    path = make_video(tmp_path / "v.mp4", 30, b_frames=2)
    with Video(path) as video:
        video._pts = sorted([*video._pts, video._pts[20] + 1])
        video._place = {pts: index for index, pts in enumerate(video._pts)}
        assert numbers(video.read([3, 25, 30])) == [3, 25, 29]
        assert video.num_frames == 30


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files without a frame, with a part of the message that each must give."""
    tail = make_video(folder / "tail.mp4", 20)
    tail.write_bytes(tail.read_bytes()[:800])  # the table of contents is at the end
    empty = folder / "empty.mp4"
    empty.touch()
    text, text_as_video, noise = folder / "notes.txt", folder / "notes.mp4", folder / "noise.avi"
    text.write_text("no video at all\n" * 50)
    text_as_video.write_text("no video at all\n" * 50)
    noise.write_bytes(random.Random(0).randbytes(5000))
    playlist = folder / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n")
    sound = folder / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    pipe = folder / "pipe.mp4"
    os.mkfifo(pipe)
    return {
        "no table": (tail, "not a readable video"),
        "empty": (empty, "empty file"),
        "text": (text, "text"),
        "text as mp4": (text_as_video, "not a readable video"),
        "noise": (noise, ""),
        "playlist": (playlist, "play list"),
        "audio": (sound, "audio only"),
        "directory": (folder, "directory"),
        "missing": (folder / "nowhere.mp4", "no such file"),
        "pipe": (pipe, "not a regular file"),
    }


def test_files_without_frames_are_named_with_the_cause(tmp_path):
    for name, (path, cause) in broken_files(tmp_path).items():
        with pytest.raises(VideoError) as caught:
            Video(path)
        message = str(caught.value)
        assert str(path) in message and cause in message and "\n" not in message, (name, message)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open(tmp_path):
    path = make_video(tmp_path / "v.avi", 30, "mpeg4", b_frames=2)
    broken = [path for path, _ in broken_files(tmp_path).values()]
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with Video(path) as video:
            video.read([0, 29])
        for other in broken:
            with pytest.raises(VideoError):
                Video(other)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_video(tmp_path / "v.mp4", 3).rename("http:v é%d.mp4")
    with Video("http:v é%d.mp4") as video:
        assert video.num_frames == 3


def test_150_damaged_files_neither_hang_nor_crash(tmp_path):
    """About 5 s. In a process of its own, so that a hang or a crash of the decoder is a failure and
    not the end."""
    for name in (
        "h264.mp4",
        "mpeg4.avi",
        "mpeg4_b.avi",
        "h264.mkv",
        "vp9.webm",
        "mpeg2.mpg",
        "picture.gif",
        "h264.ts",
    ):
        make_video(tmp_path / name, 60, **KINDS[name])
    script = """
        import json, pathlib, random, sys
        from froster.errors import VideoError
        from froster.video.reader import Video

        folder, counts = pathlib.Path(sys.argv[1]), {"read": 0, "refused": 0}
        sources = sorted(folder.iterdir())
        for seed in range(150):
            rng = random.Random(seed)
            source = rng.choice(sources)
            data = bytearray(source.read_bytes())
            kind = seed % 5
            if kind == 0:
                del data[rng.randrange(len(data)):]
            elif kind == 1:
                for _ in range(rng.randint(1, 60)):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            elif kind == 2:
                start = rng.randrange(len(data)); data[start:start + 300] = bytes(len(data[start:start + 300]))
            elif kind == 3:
                for _ in range(8):
                    data[rng.randrange(min(600, len(data)))] = rng.randrange(256)
            else:
                start = rng.randrange(len(data)); del data[start:start + rng.randrange(400)]
            damaged = folder.parent / f"damaged{source.suffix}"
            damaged.write_bytes(data)
            print(seed, source.name, file=sys.stderr, flush=True)
            try:
                with Video(damaged) as video:
                    n = video.num_frames
                    frames = video.read([rng.randrange(n) for _ in range(8)])
                    assert frames.shape == (8, video.height, video.width, 3)
                counts["read"] += 1
            except VideoError:
                counts["refused"] += 1
        print(json.dumps(counts))
    """
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in [path for path in tmp_path.iterdir() if path.is_file()]:
        path.rename(sources / path.name)
    done = quick.run(
        [sys.executable, "-c", textwrap.dedent(script), str(sources)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["read"] + counts["refused"] == 150
    assert counts["read"] >= 90


@pytest.mark.slow
def test_all_real_clips_open_and_give_eight_frames():
    """About 15 s: 605 clips and their originals, of eight data sets."""
    manifest = shared("videos", "manifest.csv")
    for path in sorted(manifest.parent.rglob("*.*")):
        if path.suffix in (".mp4", ".avi", ".mkv", ".mpg"):
            with Video(path) as video:
                n = video.num_frames
                assert video.read([n * k // 8 for k in range(8)]).shape == (
                    8,
                    video.height,
                    video.width,
                    3,
                )
                assert video.damaged == 0, path
