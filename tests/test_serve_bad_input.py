"""What people and files get wrong: over HTTP, and at the doors that the server leads to. A clear
answer, and nothing left."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from server import post, refused, serving  # isort: skip  # skips this file where there is no fastapi

from froster.errors import CheckpointError, UsageError, VideoError
from froster.inference.recognizer import Recognizer, load
from froster.inference.timeline import timeline
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.utils.interrupt import check, limited
from shared_files import World
from video_files import make_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return World("base", 1).write(0, tmp_path_factory.mktemp("bad") / "clip.mp4")


@pytest.fixture(scope="module")
def api(nano: Recognizer):
    with serving(nano, seconds=60, upload=1_000_000) as (client, service):
        yield client, service


BAD_FIELDS = [
    ({}, 422, "labels: Field required"),
    ({"labels": ""}, 422, "no labels"),
    ({"labels": "a,,b"}, 422, "label 2 of 3 is empty"),
    ({"labels": "a, A"}, 422, "more than once"),
    ({"labels": '["a", 5]'}, 422, "labels.1"),
    ({"labels": '{"a": 5}'}, 200, ""),  # a name like another
    ({"labels": '["a\\nb"]'}, 422, "line end: 'a\\nb'"),
    ({"labels": '["a\\u2028b", "c"]'}, 422, "line end: 'a\\u2028b'"),
    ({"labels": '"a, b'}, 422, "not closed"),
    ({"labels": "a, none of these"}, 422, "no label fits"),
    ({"labels": '["a"'}, 422, "not a JSON list"),
    ({"labels": "[" * 100_000}, 422, "not a JSON list"),
    ({"labels": '["\\ud800"]'}, 422, "label"),
    ({"labels": "x" * 300}, 422, "tokens"),
    ({"labels": "x" * 300, "truncate": "true"}, 200, ""),
    ({"labels": "猫が回る, 🐈‍⬛, قطة, e\u0301, <b>{{a}}</b>, a\0b"}, 200, ""),
    ({"labels": "x" * 1001}, 422, "1001 characters"),
    ({"labels": ",".join(map(str, range(10_000)))}, 422, "10000 labels: at most 200"),
    ({"labels": "a", "views": "0"}, 422, "views"),
    ({"labels": "a", "views": "11"}, 422, "at most 10"),
    ({"labels": "a", "views": "many"}, 422, "views"),
    ({"labels": "a", "top": "-1"}, 422, "top"),
    ({"labels": "a", "truncate": "perhaps"}, 422, "truncate"),
    ({"labels": "a", "path": "/etc/passwd"}, 422, "path"),
    ({"labels": "a", "model": "../nano"}, 422, "no model"),
]


@pytest.mark.parametrize(("fields", "status", "word"), BAD_FIELDS, ids=range(len(BAD_FIELDS)))
def test_fields(api, video: Path, fields: dict[str, str], status: int, word: str) -> None:
    answer = post(api[0], "classify", video, **fields)
    if status == 200:
        assert answer.status_code == 200, answer.text
    else:
        refused(api, answer, status, word)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"window": "nan"}, "window"),
        ({"window": "0"}, "window"),
        ({"window": "1", "stride": "2"}, "gaps"),
        ({"window": "1e-6", "stride": "1e-6"}, "moments"),
        ({"stride": "1e-9"}, "stride"),
        ({"min_segment": "-1"}, "min_segment"),
    ],
)
def test_windows(api, video: Path, fields: dict[str, str], word: str) -> None:
    refused(api, post(api[0], "timeline", video, labels="a,b", **fields), 422, word)


def bad_videos(folder: Path, good: Path) -> dict[str, tuple[bytes, int, str]]:
    """Files that are no videos, or too much of one: their bytes, the status and a word of the
    answer."""
    data = good.read_bytes()
    minutes = make_video(folder / "minutes.mp4", 60, "mpeg4", fps=Fraction(1, 4), size=(16, 16))
    fast = make_video(folder / "fast.mp4", 7500, "mpeg4", fps=1000, size=(16, 16))
    wide = make_video(folder / "wide.mp4", 1, size=(4098, 4096), options={"preset": "ultrafast"})
    header = make_video(
        folder / "moov.mp4", 30, container_options={"movflags": "+faststart"}
    ).read_bytes()
    return {
        "empty": (b"", 415, "empty"),
        "text": (b"not a video at all\n" * 100, 415, "not a"),
        "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not a"),
        "concat": (b"ffconcat version 1.0\nfile /etc/passwd\n", 415, "not a"),
        "sdp": (
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n",
            415,
            "not a",
        ),
        "zeros": (bytes(100_000), 415, "not a"),
        "no index": (data[: len(data) // 2], 415, "not a"),
        "no decoder": (header.replace(b"avc1", b"zzzz"), 415, "no decoder"),
        "no frames": (header[: header.index(b"mdat") + 6], 422, "frame"),
        "minutes": (minutes.read_bytes(), 422, "longer than 60 s"),
        "fast": (fast.read_bytes(), 422, "frames"),
        "wide": (wide.read_bytes(), 422, "4098 x 4096"),
        "big": (bytes(1_000_001), 413, "at most 1 MB"),
    }


# Every file at one route and every route with several, or all of them.
@pytest.mark.parametrize("routes_of_a_file", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_files_that_are_no_videos(api, video: Path, tmp_path: Path, routes_of_a_file: int) -> None:
    routes = itertools.cycle(["classify", "timeline", "embed"])
    for name, (data, status, word) in bad_videos(tmp_path, video).items():
        for route in itertools.islice(routes, routes_of_a_file):
            began = time.monotonic()
            refused(api, post(api[0], route, data, labels="a,b"), status, word)
            assert time.monotonic() - began < 5, name


def test_a_cut_file_gives_what_it_holds(api, tmp_path: Path) -> None:
    whole = make_video(
        tmp_path / "moov.mp4", 60, container_options={"movflags": "+faststart"}
    ).read_bytes()
    assert post(api[0], "classify", whole[: len(whole) * 2 // 3], labels="a,b").status_code == 200


def test_paths_and_addresses_are_not_opened(api, video: Path) -> None:
    client, _ = api
    for text in (str(video), "file:///etc/passwd", "http://127.0.0.1:1/clip.mp4"):
        refused(api, post(client, "classify", None, labels="a", video=text), 422, "must be a file")


def test_forms_that_are_none(api, video: Path) -> None:
    client, _ = api
    url, form = "/v1/classify", "multipart/form-data; boundary=x"
    refused(api, client.post(url, json={"labels": "a"}), 415, "multipart/form-data")
    refused(api, client.post(url, data={"labels": "a"}), 415, "multipart/form-data")
    refused(api, client.post(url), 415)
    refused(
        api,
        client.post(url, content=b"rubbish", headers={"content-type": form}),
        400,
        "well-formed",
    )
    refused(
        api, client.post(url, content=b"", headers={"content-type": form}), 400, "in the middle"
    )
    half = (
        b'--x\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
        + video.read_bytes()[:999]
    )
    refused(
        api, client.post(url, content=half, headers={"content-type": form}), 400, "in the middle"
    )
    refused(api, post(client, "classify", None, labels="a"), 422, "video")
    twice = [("video", ("a", b"1")), ("video", ("b", b"2"))]
    refused(api, client.post(url, files=twice, data={"labels": "a"}), 422, "one file")
    refused(api, client.post(url, files={"other": ("a", b"1")}), 422, "one file")
    refused(api, post(client, "classify", video, labels="a" * 1_000_001), 413, "labels")
    refused(
        api, client.post(url, files={"video": ("a", b"1")}, data={"labels": b"\xff"}), 422, "UTF-8"
    )
    refused(api, client.post("/v1/nothing"), 404)
    refused(api, client.get(url), 405)


def test_views_that_would_fill_the_memory(nano: Recognizer, tmp_path: Path) -> None:
    wide = make_video(tmp_path / "wide.mp4", 4, size=(640, 480))
    with serving(nano, memory=3 * 640 * 480 * 8 * 2) as api:
        refused(api, post(api[0], "classify", wide, labels="a", views=3), 422, "fewer views")
        assert post(api[0], "classify", wide, labels="a", views=2).status_code == 200


BAD_LABELS: list[tuple[Any, str]] = [
    (None, "list of names"),
    (5, "list of names"),
    ("cat", "list of names"),
    (b"cat", "list of names"),
    ({"cat": 1}, "list of (names|prompts)"),
    ({"cat"}, "list of names"),
    (iter(["cat"]), "list of names"),
    ([], "no labels"),
    (["cat", ""], "label 2 of 2 is empty"),
    (["cat", " \t"], "is empty"),
    ([": described"], "is empty"),
    (["cat", 1], "label 2 of 2 is no text"),
    ([None], "is no text"),
    ([["cat"]], "is no text"),
    ([b"cat"], "is no text"),
    (["\ud800"], "half a character"),
    (["cat", "Cat "], "more than once"),
    (["x" * 300], "at most 256"),
]


@pytest.mark.parametrize(("labels", "words"), BAD_LABELS, ids=range(len(BAD_LABELS)))
def test_labels_that_are_none(nano: Recognizer, video: Path, labels: Any, words: str) -> None:
    for ask in (
        nano.classify,
        lambda video, labels: timeline(nano, video, labels),
        lambda _, labels: nano.embed_text(labels),
    ):
        with pytest.raises(UsageError, match=words):
            ask(video, labels)


def test_unusual_labels_are_labels(nano: Recognizer, video: Path) -> None:
    labels = ["猫が回る", "🐈‍⬛", "قطة", "e\u0301te\u0301", "{0} %s \\ \0", "a, b; c", "x" * 60]
    assert sorted(nano.classify(video, labels).labels) == sorted(labels)
    assert nano.classify(video, np.array(["cat", "fish"])).label in ("cat", "fish")
    assert set(nano.classify(video, ("x" * 300, "cat"), truncate=True).labels) == {"x" * 300, "cat"}


def test_bytes_that_are_no_video(nano: Recognizer) -> None:
    with pytest.raises(VideoError, match="8 bytes: not a readable video"):
        nano.classify(b"clip.mp4", ["cat"])


@pytest.mark.parametrize("given", [5, None, [1], np.zeros(3)], ids=range(4))
def test_videos_that_are_none(nano: Recognizer, given: Any) -> None:
    words = (
        r"expected uint8 frames .* got \(3,\) float64"
        if isinstance(given, np.ndarray)
        else "a video is a path"
    )
    with pytest.raises(UsageError, match=words):
        nano.classify(given, ["cat"])


def test_frames_of_another_form(nano: Recognizer) -> None:
    whole = torch.zeros(8, 8, 8, 3, dtype=torch.uint8)
    for frames in (whole[:0], whole.float(), whole.movedim(-1, 1)):
        with pytest.raises(UsageError, match="expected uint8 frames"):
            nano.classify(frames, ["cat"])


def test_a_picture_of_a_gigapixel_is_not_decoded(nano: Recognizer, tmp_path: Path) -> None:
    """A small file that would take gigabytes: its header is made to say so."""
    path = make_video(tmp_path / "wide.mov", 2, "png", size=(64, 64), pix_fmt="rgb24")
    data = path.read_bytes()
    at = data.index(b"IHDR") + 4
    path.write_bytes(data.replace(data[at : at + 8], (40_000).to_bytes(4, "big") * 2))
    with pytest.raises(VideoError, match=r"wide\.mov"):
        nano.classify(path, ["cat"])


def test_work_under_watch_stops_within_its_loops(nano: Recognizer, tmp_path: Path) -> None:
    """Decoding, the windows of a timeline and the encoding of labels ask again and again whether
    they are still wanted."""
    long = make_video(tmp_path / "long.mp4", 400, size=(32, 32))
    for work in (
        lambda: nano.read_views(long),
        lambda: timeline(nano, long, ["cat"]),
        lambda: nano.prompts([f"cat {i}" for i in range(130)]),
    ):
        calls = 0

        def watch() -> None:
            nonlocal calls
            calls += 1
            if calls == 20:
                raise TimeoutError

        with pytest.raises(TimeoutError), limited(watch):
            work()
        assert calls == 20
    check()  # no longer watched


def test_a_server_does_not_begin_with_a_damaged_tokenizer(nano: Recognizer, tmp_path: Path) -> None:
    """Which is read late, and would be an error of every request."""
    nano.save(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a readable"):
        Models({"m": load(tmp_path / "m", device="cpu")}, Limits())
