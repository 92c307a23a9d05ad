"""What people hand over as a video: files in all forms, frames of any length, and lists of them."""

from __future__ import annotations

import dataclasses
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import froster
from froster.errors import BatchError, UsageError, VideoError
from froster.inference.recognizer import Recognizer
from froster.video.reader import Video
from froster.video.sampling import Sampling
from froster.video.transforms import inference_transform
from shared_files import World
from video_files import make_video

LABELS = ["cat spinning", "boat pacing", "key hopping"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("inputs")
    return [World("base", 1).write(number, folder / f"{number}.mp4") for number in range(3)]


@pytest.fixture(scope="module")
def site(files: list[Path]) -> Iterator[str]:
    """A real server of the folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/cut.mp4":  # says more than it sends
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.wfile.write(files[0].read_bytes()[:500])
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files[0].parent)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_file_is_the_same_in_every_form(nano: Recognizer, files: list[Path], site: str) -> None:
    data = files[0].read_bytes()
    expected = nano.classify(files[0], LABELS)
    with files[0].open("rb") as opened:
        forms = (str(files[0]), data, bytearray(data), memoryview(data), io.BytesIO(data), opened)
        for form in (*forms, f"{site}/0.mp4"):
            assert nano.classify(form, LABELS) == expected
    assert torch.equal(nano.embed_video(data), nano.embed_video(files[0]))
    segments = nano.timeline(files[0], LABELS).segments
    for form in (data, io.BytesIO(data), f"{site}/0.mp4"):
        assert nano.timeline(form, LABELS).segments == segments


def test_a_list_gives_a_list(nano: Recognizer, files: list[Path], site: str) -> None:
    one_by_one = [nano.classify(file, LABELS) for file in files]
    assert nano.classify(files, LABELS) == one_by_one
    assert nano.classify(tuple(map(str, files)), LABELS, workers=2) == one_by_one
    mixed: list[Any] = [files[0], files[1].read_bytes(), f"{site}/2.mp4"]
    assert nano.classify(mixed, LABELS) == one_by_one
    together = nano.classify(files, LABELS, batch_size=2)
    assert [answer.labels for answer in together] == [answer.labels for answer in one_by_one]
    embeddings = nano.embed_video(files, workers=1)
    assert torch.equal(embeddings, torch.stack([nano.embed_video(file) for file in files]))
    assert nano.classify([], LABELS) == [] and nano.embed_video([]).shape == (0, 128)


@pytest.fixture(scope="module")
def dense() -> Recognizer:
    """Clips of 4 seconds, three of them, as FROSTER samples."""
    model = froster.load("nano", device="cpu")
    model.config = dataclasses.replace(model.config, sampling=Sampling("dense"), views=3)
    return model


def test_frames_of_any_length_in_any_form(dense: Recognizer, files: list[Path]) -> None:
    with Video(files[0]) as video:
        frames = video.read(range(video.num_frames))
    for count in (1, 2, 7, 9, len(frames)):
        part = frames[:count]
        answer = dense.classify(part, LABELS)
        pictures = [Image.fromarray(frame.numpy()) for frame in part]
        forms: list[Any] = [part.numpy(), list(part), list(part.numpy()), pictures, tuple(pictures)]
        for form in forms:
            assert dense.classify(form, LABELS) == answer


def test_as_many_as_the_network_reads_are_taken_as_they_are(
    nano: Recognizer, dense: Recognizer, files: list[Path]
) -> None:
    with Video(files[0]) as video:
        frames = video.read([0, 1, 2, 3, 8, 9, 10, 11])
    clip = inference_transform(frames, 60, nano.preprocessing)
    classes = nano.class_embeddings(LABELS)
    for model in (nano, dense):
        assert [model.classify(frames, LABELS)] == model.classify_clips(
            clip[None, None], LABELS, classes
        )


def test_many_frames_are_sampled_as_their_file(dense: Recognizer, tmp_path: Path) -> None:
    """An mkv states no length, so that its clips have even steps."""
    path = tmp_path / "long.mkv"
    make_video(path, 200)
    with Video(path) as video:
        decoded, rate = video.read(range(video.num_frames)), video.fps
    assert len(decoded) > 128 * rate / 30  # longer than a clip
    assert dense.classify(decoded, LABELS, fps=rate) == dense.classify(path, LABELS)
    assert dense.classify(decoded, LABELS, fps=rate / 2) != dense.classify(path, LABELS)
    for rate in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="fps is frames per second"):
            dense.classify(decoded, LABELS, fps=rate)


def test_lists_of_frames_and_of_videos_are_told_apart(nano: Recognizer, files: list[Path]) -> None:
    with Video(files[0]) as video:
        frames = video.read(range(12)).numpy()
    answer = nano.classify(frames, LABELS)
    assert nano.classify([*frames], LABELS) == answer  # pictures: one video
    assert nano.classify([frames], LABELS) == [answer]
    assert (
        nano.classify([frames, [*frames], [*map(Image.fromarray, frames)]], LABELS) == [answer] * 3
    )
    with pytest.raises(UsageError, match="entry 1 is a picture, entry 0 is none"):
        nano.classify([frames, frames[0]], LABELS)


def test_a_million_frames_are_no_trouble(nano: Recognizer) -> None:
    frames = np.broadcast_to(np.zeros((1, 40, 40, 3), np.uint8), (10**6, 40, 40, 3))
    assert nano.classify(frames, LABELS).labels


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (b"", "0 bytes: empty file"),
        (b"no video", "8 bytes: not a readable video"),
        (io.BytesIO(b""), "the BytesIO: nothing left to read"),
    ],
)
def test_bytes_that_are_no_video(nano: Recognizer, video: Any, words: str) -> None:
    with pytest.raises(VideoError, match=words) as caught:
        nano.classify(video, LABELS)
    assert "/froster-" not in str(caught.value)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (io.StringIO("text"), "opened as text"),
        ({"a": 1}, "a dict of 1"),
        (iter([]), "list_iterator"),
        ([[]], "a list of 0"),
        ([["a.mp4"]], "not 'a.mp4'"),
        (Image.new("RGB", (4, 4)), "a list of pictures, not <PIL"),
        (
            [Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))],
            "a picture of 5 x 4 pixels as frame 1",
        ),
        ([np.zeros((4, 4), np.uint8)], r"\(4, 4\) uint8"),
        ([np.zeros((4, 4, 3))], "float64"),
        (np.zeros((2, 2, 4, 4, 3), np.uint8), "several videos as a list"),
        ("ssh://host/a.mp4", "is an address"),
    ],
)
def test_what_is_no_video(nano: Recognizer, video: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        nano.classify(video, LABELS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_addresses_that_give_no_video(nano: Recognizer, site: str, monkeypatch) -> None:
    monkeypatch.setattr("froster.utils.remote.PAUSES", ())
    for name, words in (
        ("none.mp4", "the server says 404"),
        ("cut.mp4", "ended after 500 of 100000 bytes"),
    ):
        with pytest.raises(VideoError, match=words):
            nano.classify(f"{site}/{name}", LABELS)
    with pytest.raises(VideoError, match="no connection"):
        nano.classify("http://127.0.0.1:9/x.mp4", LABELS)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_bad_video_costs_no_answer(nano: Recognizer, files: list[Path], workers: int) -> None:
    bad: list[Any] = [files[0], b"nonsense", files[1], files[0].parent / "gone.mp4"]
    with pytest.raises(BatchError, match="2 of 4 videos cannot be read") as caught:
        nano.classify(bad, LABELS, workers=workers)
    good = [nano.classify(file, LABELS) for file in files[:2]]
    assert caught.value.results == [good[0], None, good[1], None]
    assert list(caught.value.errors) == [1, 3] and "gone.mp4" in caught.value.errors[3]


def test_a_bar_is_shown_where_asked_for(
    nano: Recognizer, files: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    nano.classify(files[:2], LABELS)
    assert capfd.readouterr().err == ""
    nano.classify(files[:2], LABELS, progress=True)
    nano.timeline(files[0], LABELS, progress=True)
    shown = capfd.readouterr().err
    assert "classify" in shown and "2/2" in shown and "seconds of video" in shown


def test_a_timeline_is_of_a_file(nano: Recognizer, files: list[Path]) -> None:
    for video in (np.zeros((9, 4, 4, 3), np.uint8), files):
        with pytest.raises(UsageError, match="a timeline is of one video file"):
            froster.timeline(nano, video, LABELS)  # type: ignore[arg-type]
