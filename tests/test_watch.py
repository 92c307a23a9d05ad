"""A source as it comes: at its own pace, too fast for the model, stalling, ending, coming back;
labels that change."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from froster.errors import UsageError, VideoError
from froster.evaluation.calibration import NONE, Calibration, NoneRule
from froster.inference.recognizer import Recognizer, load
from froster.inference.scorer import WindowScorer
from froster.inference.watch import LabelFile, Watch, WatchResult
from froster.utils import interrupt
from froster.video.live import Policy, StreamSource
from froster.video.reader import Video
from froster.video.stream import Stream
from known_clips import LABELS, Known
from typed import one_line
from video_files import make_video, shared


def test_a_line_says_what_was_fitted(run, known: Known, tmp_path: Path) -> None:
    nano = load("nano", device="cpu")
    nano.calibration = Calibration(1.0, NoneRule(12.1, 43.2, 0.88), {"to": "a test"})
    nano.save(tmp_path / "sure")
    (tmp_path / "labels.csv").write_text("id,name\n0,clock\n1,umbrella\n")
    asked = (
        "watch",
        known.path,
        "--labels",
        tmp_path / "labels.csv",
        "--limit",
        1,
        "--json",
        "--model",
    )
    for model, calibrated in (("nano", False), (tmp_path / "sure", True)):
        result = run(*asked, model)
        assert "read as a file of labels" in result.err
        found = json.loads(result.out.splitlines()[0])
        assert found["calibrated"] == calibrated and -1 < found["cosine"] < 1
        assert list(found["scores"]) == ["clock", "umbrella", *([NONE] if calibrated else [])]
        assert found["none"] == (found["scores"][NONE] if calibrated else None)
        assert found["label"] == (
            NONE if calibrated else max(found["scores"], key=found["scores"].get)
        )
        assert found["answer"] == (None if calibrated else found["label"])
        assert found["score"] == found["scores"][found["label"]]


def transport_stream(path: Path, frames: np.ndarray, fps: int) -> bytes:
    """Frames (n, H, W, 3) uint8 as MPEG-TS, with a key frame every fifth frame, as cameras send it."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream(
            "libx264", rate=fps, options={"tune": "zerolatency", "preset": "ultrafast", "crf": "10"}
        )
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 5
        for frame in frames:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
                )
            )
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.fixture(scope="module")
def broadcast(known: Known, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Seconds 4 to 8 of the known video, cats and then boats."""
    with Video(known.path) as video:
        frames = video.read(range(32, 64)).numpy()
    return transport_stream(tmp_path_factory.mktemp("ts") / "a.ts", frames, 8)


class Server:
    """Gives each connection in turn one script: bytes to send evenly over some seconds, then
    seconds of silence.

    After the last script nobody is let in any more.
    """

    def __init__(self, *scripts: tuple[bytes, float, float], header: bytes = b""):
        self.scripts, self.header = scripts, header
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for script in self.scripts:
            connection, _ = self.listening.accept()
            threading.Thread(target=self._play, args=(connection, *script), daemon=True).start()
        self.listening.close()

    def _play(self, connection: socket.socket, data: bytes, seconds: float, silence: float) -> None:
        with connection, contextlib.suppress(OSError):
            if self.header:
                connection.recv(4096)
                connection.sendall(self.header)
            began, parts = time.monotonic(), 50
            for part in range(parts):
                connection.sendall(
                    data[part * len(data) // parts : (part + 1) * len(data) // parts]
                )
                time.sleep(max(0.0, began + seconds * (part + 1) / parts - time.monotonic()))
            time.sleep(silence)


HTTP = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


def seen_until_the_end(watch: Watch) -> tuple[list[WatchResult], str]:
    """What was seen, and the error that it ended with."""
    seen, error = [], ""
    with watch:
        try:
            seen += watch
        except VideoError as end:
            error = str(end)
    return seen, error


def test_a_stream_that_stalls_ends_and_comes_back(nano: Recognizer, broadcast: bytes) -> None:
    """It stalls once, is cut off once, ends once, and then is gone for good: about 4 s."""
    server = Server(
        (broadcast, 1.0, 30.0),
        (broadcast[: len(broadcast) // 3], 0.3, 0.0),
        (broadcast, 0.5, 0.0),
        header=HTTP,
    )
    notes: list[str] = []
    policy = Policy(stall=1.0, reconnect=0.1, tries=2)
    source = f"http://{server.address}/live.ts"
    watch = Watch(nano, source, LABELS, window=1.0, stride=0.5, policy=policy, on_note=notes.append)
    seen, error = seen_until_the_end(watch)
    assert "gave up after 2 tries" in error
    assert "nothing came for 1 s; reconnecting in 0.1 s" in notes[0], notes
    assert sum("connected again" in note for note in notes) == watch.live.connections - 1 == 2
    assert any("the stream ended" in note or "cannot be read" in note for note in notes)
    assert all(a.time < b.time for a, b in itertools.pairwise(seen)), (
        "time goes on over reconnections"
    )
    assert seen[0].label == "cat" and seen[-1].label == "boat"
    assert [label for label, _ in itertools.groupby(s.label for s in seen)] == [
        "cat",
        "boat",
        "cat",
        "boat",
    ]


def test_a_real_clip_over_tcp(nano: Recognizer, tmp_path: Path) -> None:
    with Video(shared("videos", "originals", "v_Archery_g01_c01.avi")) as video:
        data = transport_stream(tmp_path / "a.ts", video.read(range(55)).numpy(), 25)
    server = Server((data, 2.2, 0.0))
    watch = Watch(
        nano, f"tcp://{server.address}", ["a", "b"], window=0.8, stride=0.2, policy=Policy(tries=0)
    )
    seen, error = seen_until_the_end(watch)
    assert "the stream ended; gave up" in error
    # What came while the stream was being recognised is there at once; then there is a line a
    # stride to the end.
    steps = [b.time - a.time for a, b in itertools.pairwise(seen) if a.time > 1]
    assert sorted(steps)[len(steps) // 2] == pytest.approx(0.2, abs=0.05)
    assert seen[-1].time > 1.9
    assert sorted(s.lag for s in seen)[len(seen) // 2] < watch.plan.step


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2.4 seconds at 25 frames a second, a key frame every half second."""
    return make_video(
        tmp_path_factory.mktemp("numbered") / "a.mp4", 60, gop=12, options={"preset": "ultrafast"}
    )


def test_at_its_own_pace_there_is_a_result_a_stride(nano: Recognizer, numbered: Path) -> None:
    began = time.monotonic()
    watch = Watch(nano, str(numbered), ["a", "b"], window=0.8, stride=0.2)
    seen, error = seen_until_the_end(watch)
    assert not error and time.monotonic() - began > 2.2
    assert len(seen) + watch.skipped == 12
    assert all(abs(s.time - 0.2 * round(s.time / 0.2)) < 0.05 for s in seen)
    assert sorted(s.lag for s in seen)[len(seen) // 2] < watch.plan.step


def test_a_slow_model_drops_frames_and_never_falls_behind(
    nano: Recognizer, numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = 1.0
    score = WindowScorer.__call__
    monkeypatch.setattr(WindowScorer, "__call__", lambda *given: time.sleep(slow) or score(*given))
    watch = Watch(nano, str(numbered), ["a", "b"], window=0.8, stride=0.2)
    seen, _ = seen_until_the_end(watch)
    assert 2 <= len(seen) <= 4
    assert seen[-1].dropped > 0 and seen[-1].skipped >= 4
    assert (
        max(one.lag for one in seen) < 3
    )  # all frames, one after the other, would be 10 s late in the end
    assert seen[-1].time > 0.9


def test_a_slow_decoder_passes_over_packets(
    nano: Recognizer, numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Stream.decode
    monkeypatch.setattr(
        Stream, "decode", lambda self, packet: time.sleep(0.2) or decode(self, packet)
    )
    watch = Watch(nano, str(numbered), ["a", "b"], window=0.8, stride=0.2)
    began = time.monotonic()
    seen, _ = seen_until_the_end(watch)
    assert time.monotonic() - began < 8  # decoding all of it would take 12 s
    assert seen[-1].dropped > 20 and max(s.lag for s in seen) < 4


def test_labels_change_while_it_runs(nano: Recognizer, known: Known, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("cat\ntree\n")
    notes: list[str] = []
    watch = Watch(
        nano, str(known.path), ["cat", "tree"], window=1.0, stride=0.125, on_note=notes.append
    )
    file = LabelFile(path, ["cat", "tree"], watch.relabel, watch.live.notes.put)
    stages = ["clock\nclock\n", "boat\nclock\n", "cat\nboat\n"]
    labels: list[list[str]] = []
    with watch:
        for seen in watch:
            labels.append(seen.labels)
            if len(notes) + len(stages) == 3 and stages:  # what was written before has been taken
                path.write_text(stages.pop(0))
            if seen.labels == ["cat", "boat"]:
                break
    file.close()
    assert [key for key, _ in itertools.groupby(labels)] == [
        ["cat", "tree"],
        ["boat", "clock"],
        ["cat", "boat"],
    ]
    assert notes[0].startswith("labels not changed") and "clock" in notes[0]
    assert notes[1] == "2 labels from now on: boat, clock"
    assert watch.skipped < len(labels) / 2, "encoding the text did not hold it up"


def test_labels_that_do_not_fit_into_memory_leave_the_old_ones(tmp_path: Path) -> None:
    """And the file is still looked at."""
    path = tmp_path / "labels.txt"
    path.write_text("cat\ntree\n")
    taken: list[list[str]] = []
    notes: queue.Queue[str] = queue.Queue()

    def apply(labels: list[str]) -> None:
        if len(labels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        taken.append(labels)

    file = LabelFile(path, ["cat", "tree"], apply, notes.put)
    try:
        path.write_text("boat\nclock\ncat\n")
        assert notes.get(timeout=20) == "labels not changed: OutOfMemoryError: CUDA out of memory."
        path.write_text("boat\nclock\n")
        assert notes.get(timeout=20) == "2 labels from now on: boat, clock" and taken == [
            ["boat", "clock"]
        ]
    finally:
        file.close()


def test_sources() -> None:
    assert (
        StreamSource("/dev/video0").is_camera
        and StreamSource("a.mp4").is_file
        and StreamSource("RTSP://camera/1").protocol == "rtsp"
    )
    for bad in ("file:///etc/passwd", "concat://a|b", "data://x", "subfile://x", "gopher://a"):
        with pytest.raises(UsageError, match="rtsp://"):
            StreamSource(bad)


def test_a_file_at_an_address_plays_once(nano: Recognizer, numbered: Path) -> None:
    data = numbered.read_bytes()
    server = Server(
        (data, 0, 0),
        (data, 0, 0),
        header=b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data),
    )
    began = time.monotonic()
    watch = Watch(nano, f"http://{server.address}/a.mp4", ["a", "b"], window=0.8, stride=0.4)
    seen, error = seen_until_the_end(watch)
    assert not error and watch.live.connections == 1 and time.monotonic() - began > 2
    assert len(seen) + watch.skipped == 6


def test_a_silent_source_does_not_outlive_its_seconds(nano: Recognizer) -> None:
    server, began = Server((b"", 0, 5)), time.monotonic()
    seen, error = seen_until_the_end(Watch(nano, f"tcp://{server.address}", ["a"], seconds=0.3))
    assert not seen and "could not be opened before the time was over" in error
    assert time.monotonic() - began < 3


class EndlessLists(BaseHTTPRequestHandler):
    """Every address is a play list of fifty others."""

    protocol_version = "HTTP/1.1"
    numbers = itertools.count()

    def do_GET(self) -> None:
        line = f"#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://127.0.0.1:{self.server.server_address[1]}/x{{}}.m3u8\n"
        body = ("#EXTM3U\n" + "".join(line.format(next(self.numbers)) for _ in range(50))).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.parametrize("seconds", [[], pytest.param(["--seconds", "1"], marks=pytest.mark.slow)])
def test_play_lists_without_end_are_given_up_with_their_memory(seconds: list[str]) -> None:
    """About 5 s each, most of it the start of the command."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EndlessLists) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/x.m3u8"
        code = (
            "import re, sys, froster.cli as c\ntry: c.main()\nexcept SystemExit as end:"
            " print(end.code, re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
        )
        asked = [
            "watch",
            address,
            "--labels",
            "a, b",
            "--model",
            "nano",
            "--tries",
            "1",
            "--stall",
            "2",
            *seconds,
        ]
        done = subprocess.run(
            [sys.executable, "-c", code, *asked], capture_output=True, text=True, timeout=60
        )
        server.shutdown()
    status, kilobytes = map(int, done.stdout.split())
    assert status == 1 and kilobytes < 700_000
    assert (
        done.stderr.count("froster: ") == 1
        and address in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_play_list_that_leads_to_a_stream_is_followed(
    nano: Recognizer, broadcast: bytes, tmp_path: Path
) -> None:
    (tmp_path / "a.ts").write_bytes(broadcast)
    (tmp_path / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "main.m3u8").write_text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nlist.m3u8\n")
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *args: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        source = f"http://127.0.0.1:{server.server_address[1]}/main.m3u8"
        seen, error = seen_until_the_end(
            Watch(nano, source, LABELS, window=1.0, stride=0.5, policy=Policy(tries=1))
        )
        server.shutdown()
    assert not error and [label for label, _ in itertools.groupby(s.label for s in seen)] == [
        "cat",
        "boat",
    ]


def test_play_lists_do_not_open_local_files(nano: Recognizer, known: Known, tmp_path: Path) -> None:
    listed = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{known.path}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(listed)
    seen, error = seen_until_the_end(Watch(nano, str(tmp_path / "list.m3u8"), LABELS))
    assert not seen and "list.m3u8" in error
    for address in (known.path, f"file://{known.path}"):
        server = Server(
            *[(listed.replace(str(known.path), str(address)).encode(), 0, 0)] * 3,
            header=HTTP.replace(b"mp2t", b"x"),
        )
        policy = Policy(stall=1, reconnect=0, tries=1)
        seen, error = seen_until_the_end(
            Watch(nano, f"http://{server.address}/list.m3u8", LABELS, policy=policy)
        )
        assert not seen and "list.m3u8" in error


def test_the_command_prints_a_line_a_stride(run, known: Known) -> None:
    asked = (
        "watch",
        known.path,
        "--labels",
        ", ".join(LABELS),
        "--model",
        "nano",
        "--window",
        0.8,
        "--limit",
        3,
    )
    result = run(*asked, "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and len(lines) == 3
    assert all(
        line["label"] == "cat" and line["score"] == max(line["scores"].values()) for line in lines
    )
    fitted = {"answer", "calibrated", "none", "cosine"}
    assert (
        lines[0].keys()
        == {"time", "label", "score", "lag", "dropped", "skipped", "scores"} | fitted
    )
    assert "3 lines, 0 frames dropped" in result.err
    assert run(*asked).out.count("cat") == 3
    assert run(*asked[:-2], "--seconds", 0.5).code == 0


def test_ctrl_c_ends_with_a_summary(run, known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_requested", False)
    threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    result = run("watch", known.path, "--labels", "cat, boat", "--model", "nano", "--window", 0.8)
    one_line(result, 130, "stopped", "lines", "0 frames dropped")
    assert len(result.out.splitlines()) > 2


def test_mistakes_are_one_line(run, tmp_path: Path) -> None:
    labels = ("--labels", "a, b", "--model", "nano")
    one_line(run("watch", "gopher://a", *labels), 2, "rtsp://")
    one_line(run("watch", "/dev/video97", *labels), 2, "no such file: /dev/video97")
    for model in ("nano", tmp_path / "none"):  # what is not there is found before a model is loaded
        one_line(
            run("watch", tmp_path / "none.mp4", "--labels", "a, b", "--model", model),
            2,
            "no such file",
            "none.mp4",
        )
    one_line(run("watch", tmp_path, *labels), 1, "directory")
    one_line(run("watch", "tcp://127.0.0.1:1", *labels), 1, "refused")
    one_line(run("watch", "tcp://127.0.0.1:1", *labels, "--window", -1), 2, "above zero")
