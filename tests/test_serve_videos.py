"""Videos that are kept, their previews, attention, samples, and what a browser is told with every
answer."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import av
import pytest
import torch

from server import half, in_thread, post, refused, serving, wait_for  # isort: skip

import httpx

from froster.encoders.preprocessing import normalise
from froster.errors import UsageError, VideoError
from froster.inference.recognizer import Recognizer
from froster.inference.timeline import timeline
from froster.report.attention import cls_attention
from froster.serve import STATIC, preview, videos
from froster.serve.app import create_app
from froster.serve.guard import Guard
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.serve.page import add_page, from_folder, of_world
from froster.serve.preview import preview_size, write_preview
from froster.serve.service import Service
from froster.utils.interrupt import limited
from froster.video.reader import Video
from froster.video.transforms import inference_transform
from froster.world.files import write_video
from froster.world.sets import render_video
from video_files import make_video, numbers

LABELS = "cat spinning, fish bouncing"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [render_video("base", label, 0, split="val") for label in (0, 5)]
    return write_video(tmp_path_factory.mktemp("kept") / "clip.mp4", torch.cat(frames))


@pytest.fixture
def api(nano: Recognizer):
    with serving(nano, seconds=60, upload=1_000_000) as (client, service):
        yield client, service


def keep(client: Any, sent: Path | bytes) -> str:
    answer = post(client, "videos", sent)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def test_a_kept_video_is_answered_as_one_that_is_sent(api, video: Path) -> None:
    client, service = api
    answer = post(client, "videos", video).json()
    name = answer.pop("id")
    assert answer == {"seconds": 4.0, "width": 60, "height": 60}
    for route, fields in (
        ("classify", {"labels": LABELS}),
        ("timeline", {"labels": LABELS}),
        ("embed", {}),
        ("attention", {"at": 1}),
    ):
        by_id = post(client, route, None, id=name, **fields)
        assert by_id.status_code == 200, by_id.text
        assert by_id.json() == post(client, route, video, **fields).json()
    assert "not both" in post(client, "classify", video, id=name, labels=LABELS).json()["error"]
    assert len(list(service.folder.iterdir())) == 1
    assert client.delete(f"/v1/videos/{name}").status_code == 204
    refused(api, post(client, "classify", None, id=name, labels=LABELS), 404, "send it again")
    refused(api, client.get(f"/v1/videos/{name}/preview"), 404, "send it again")
    for other in ("..", "/etc/passwd", "", "\0"):
        refused(api, post(client, "classify", None, id=other, labels=LABELS), 404)


def test_what_is_no_video_is_not_kept(api, video: Path) -> None:
    client, _ = api
    refused(api, post(client, "videos", b"text"), 415, "not a")
    refused(api, post(client, "videos", bytes(1_000_001)), 413, "at most 1 MB")
    refused(api, post(client, "videos", None, labels="a"), 422, "video")
    refused(api, post(client, "videos", video, labels="a"), 422, "no others")


def test_kept_videos_are_few_and_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "MOST_KEPT", 3)
    kept = videos.Uploads(tmp_path)
    names = [kept.keep(kept.new()) for _ in range(3)]
    kept.get(names[0])  # used now, so that the second is the oldest
    names.append(kept.keep(kept.new()))
    with pytest.raises(Exception, match="send it again"):
        kept.get(names[1])
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(videos, "KEPT_SECONDS", 0)
    time.sleep(0.01)
    kept.sweep()
    assert list(tmp_path.iterdir()) == []


def test_an_upload_to_be_kept_that_stops_half_way(nano: Recognizer, video: Path) -> None:
    service = Service(Models({"nano": nano}, Limits()), Limits())
    with in_thread(service, Guard(create_app(service), None)) as address:
        connection = half(address, video.read_bytes(), route="/v1/videos")
        wait_for(lambda: len(list(service.folder.rglob("*"))) == 2)
        connection.close()
        wait_for(lambda: service.jobs.inside == 0)
        wait_for(lambda: list(service.folder.iterdir()) == [])


def test_attention_is_that_of_the_model(api, nano: Recognizer, video: Path) -> None:
    answer = post(api[0], "attention", video, at=1.0).json()
    assert answer["seconds"] == [0.25 + 0.5 * i for i in range(8)]
    with Video(video) as frames:
        shown = frames.read([frames.index_at(second) for second in answer["seconds"]])
    pixels = inference_transform(shown, nano.image_size, nano.preprocessing)
    expected = cls_attention(nano.model, normalise(pixels, nano.preprocessing)).patches
    assert torch.allclose(torch.tensor(answer["attention"]), expected, atol=1e-6)
    assert len(answer["frames"]) == 8 and answer["frames"][0].startswith("data:image/jpeg;base64,")
    late = post(api[0], "attention", video, at=1e9).json()
    assert late["seconds"][-1] < 4
    refused(api, post(api[0], "attention", video, at="nan"), 422, "at")


FOREIGN = {
    "a.avi": ("mpeg4", "yuv420p"),
    "b.mkv": ("ffv1", "yuv444p"),
    "c.mpg": ("mpeg2video", "yuv420p"),
    "d.wmv": ("wmv2", "yuv420p"),
    "e.mov": ("png", "rgb24"),
}


@pytest.mark.parametrize("form", preview.FORMATS, ids=lambda form: form.codec)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_preview_shows_the_same_at_the_same_time(
    name: str, form: preview.Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form.codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {form.codec}")
    monkeypatch.setattr(preview, "FORMATS", (form,))
    codec, pix_fmt = FOREIGN[name]
    source = make_video(tmp_path / name, 40, codec, pix_fmt=pix_fmt, size=(80, 48), gop=1)
    write_preview(source, tmp_path / "preview")
    with (
        Video(source) as before,
        Video(tmp_path / "preview") as after,
        av.open(str(tmp_path / "preview")) as file,
    ):
        assert form.container in file.format.name and file.streams.video[0].codec.name in (
            "h264",
            "vp9",
        )
        assert not file.streams.audio and file.streams.video[0].pix_fmt == "yuv420p"
        assert after.num_frames >= 39  # this MPEG file has a frame without a stamp
        for second in (0.02, 0.7, 1.58):
            frame, right = (video.read([video.index_at(second)]) for video in (after, before))
            assert numbers(frame) == numbers(right)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "preview"]


def test_a_preview_is_small(tmp_path: Path) -> None:
    source = make_video(tmp_path / "fast.avi", 100, "mpeg4", fps=100, size=(1280, 720))
    write_preview(source, tmp_path / "preview")
    with Video(tmp_path / "preview") as small:
        assert small.num_frames <= 31 and small.seconds == pytest.approx(1, abs=0.05)
    assert (preview_size(1280, 720), preview_size(80, 49), preview_size(1, 1)) == (
        (852, 480),
        (80, 48),
        (2, 2),
    )
    assert max(preview_size(4096, 2)) == 4096


def test_a_preview_of_what_cannot_be_shown_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"text")
    with pytest.raises(VideoError):
        write_preview(bad, tmp_path / "preview")
    long = make_video(tmp_path / "long.avi", 100, "mpeg4")

    def stop() -> None:
        if list(tmp_path.glob("*.part")):
            raise TimeoutError

    with pytest.raises(TimeoutError), limited(stop):
        write_preview(long, tmp_path / "preview")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.avi", "long.avi"]


def test_a_preview_stops_when_nobody_waits_for_it(nano: Recognizer, tmp_path: Path) -> None:
    limits = Limits(seconds=60)
    service = Service(Models({"nano": nano}, limits), limits)
    long = make_video(tmp_path / "long.avi", 1200, "mpeg4", size=(320, 240))
    with in_thread(service, Guard(create_app(service), None)) as address:
        with httpx.Client(base_url=address, timeout=60) as sender:
            name = keep(sender, long)
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{address}/v1/videos/{name}/preview", timeout=httpx.Timeout(10, read=0.3))
        wait_for(lambda: service.jobs.running is None, 2)
        assert [path.name for path in service.folder.rglob("*") if path.is_file()] == ["video"]
        answer = httpx.get(f"{address}/v1/videos/{name}/preview", timeout=60)
        assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
        again = httpx.get(f"{address}/v1/videos/{name}/preview", headers={"Range": "bytes=0-9"})
        assert (again.status_code, again.content) == (206, answer.content[:10])


@pytest.mark.usefixtures("few_templates")
def test_samples(nano: Recognizer, video: Path, tmp_path: Path) -> None:
    made = of_world(tmp_path)
    assert [sample.path.exists() for sample in made] == [True] * 3
    for sample in made:
        scores = timeline(nano, sample.path, sample.labels).scores
        assert len(scores.argmax(1).unique()) > 1  # something happens in it
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(UsageError, match="no videos"):
        from_folder(folder, Limits())
    shutil.copy(video, folder / "a.mp4")
    (folder / "b.mp4").write_bytes(b"")
    make_video(folder / "c.mp4", 100, fps=1)
    assert [sample.name for sample in from_folder(folder, Limits(seconds=60))] == ["a"]


SERVED = ["/", "/docs", "/healthz", "/static/page.js", "/page/settings", "/nothing"]
SERVED += ["/page/samples/99", "/static/../guard.py", "/static/%2e%2e/guard.py"]


def test_the_page_is_locked_in(nano: Recognizer, video: Path) -> None:
    """No script, style, picture or address of anybody else, in the files and by what every answer
    tells the browser."""
    limits = Limits()
    service = Service(Models({"nano": nano}, limits), limits)
    app = create_app(service)
    add_page(app, service, video.parent)
    with in_thread(service, Guard(app, "secret-token")) as address, ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=address))
        for path in ("/", "/static/page.js", "/page/settings", "/page/samples/0", "/nothing"):
            answer = client.get(path)
            assert answer.status_code == 401, path
        assert "asks for its token" in client.get("/", headers={"Accept": "text/html"}).text
        client.headers["Authorization"] = "Bearer secret-token"
        for path in SERVED:
            answer = client.get(path)
            assert answer.status_code == (404 if re.search("nothing|99|guard", path) else 200), path
            policy = answer.headers["content-security-policy"]
            assert (
                policy.startswith("default-src 'none'")
                and "unsafe" not in policy
                and "*" not in policy
            )
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert client.get("/page/samples/0").content[4:8] == b"ftyp"
    for file in STATIC.iterdir():
        text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(
            r"https?://|//cdn|innerHTML|eval\(|<style|<script>| style=| on\w+=", text
        ), file
