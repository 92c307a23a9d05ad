"""The page: its parts, what of Gradio's server is open, and the page in a browser."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from server import half, in_thread, wait_for  # isort: skip  # skips this file where there is no fastapi

import httpx

from froster.errors import UsageError
from froster.evaluation.calibration import NONE, Calibration, NoneRule
from froster.inference.recognizer import Classification, Recognizer, load
from froster.inference.timeline import timeline
from froster.serve import parts
from froster.serve.app import Service, create_app
from froster.serve.gate import Gate, sweep
from froster.serve.guard import Guard
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.serve.samples import Sample, from_folder, of_world
from froster.world.files import write_video
from froster.world.sets import render_set
from video_files import make_video

HOSTILE = "<img src=x onerror=alert(1)>{{constructor.constructor('alert(1)')()}}${alert(1)}\"'`"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = render_set("base", 1, split="val")
    return write_video(
        tmp_path_factory.mktemp("page") / "clip.mp4",
        torch.cat([videos.frames[0], videos.frames[5]]),
    )


def test_parts_are_escaped_and_tell_the_scores(nano: Recognizer, video: Path) -> None:
    labels = ["cat spinning", HOSTILE, *map(str, range(10))]
    found = {
        "first": nano.classify(video, labels),
        HOSTILE: Classification(labels, [1.0, *[0.0] * 11], 0.6),
    }
    lines = {"first": timeline(nano, video, labels), HOSTILE: timeline(nano, video, labels)}
    models = Models({"first": nano, HOSTILE: nano}, Limits())
    look = models.look(video, 1.0)
    assert look.frames.shape == (8, 3, 160, 160) and look.heats["first"].shape == (8, 5, 5)  # type: ignore[union-attr]
    first = labels[:8]
    made = [
        parts.bars(found, first),
        parts.lanes(lines, first, 1.0),
        parts.moment(lines, first, 1.0, look),
    ]
    for part in made:
        assert not any(sign in part for sign in ("<img src=x", "{", "}", "$", "`"))
    assert (
        f"{100 * found['first'].probabilities[0]:.1f} %" in made[0]
        and "and 4 more labels" in made[0]
    )
    assert (
        made[0].count(NONE) == 2
        and "cosine of the best label" in made[0]
        and NONE not in made[1] + made[2]
    )
    assert (
        'data-start="0.000"' in made[1]
        and 'data-end="4.000"' in made[1]
        and "--at:0.25000" in made[1]
    )
    assert made[2].count("<figure>") == 24 and "At 1 s" in made[2]


def test_bars_and_moments_say_the_same(video: Path) -> None:
    """Rows by what is shown, the answer marked, and no number that contradicts another."""
    nano = load("nano", device="cpu")
    nano.calibration = Calibration(1.0, NoneRule(12.1, 43.2, 0.88), {"to": "a test"})
    first = {"m": Classification(["surfing", "skiing"], [0.6, 0.4], 0.45, 0.2)}
    bar = re.compile(r'f-bar( f-best)?"><span class="f-name" title="(.+?)">.*?f-value">([0-9.]+) %')
    shown = bar.findall(parts.bars(first, ["surfing"]))
    assert shown == [("", NONE, "45.0"), (" f-best", "surfing", "33.0"), ("", "skiing", "22.0")]
    labels = ["moon glowing", "cat spinning"]
    lines = {"m": timeline(nano, video, labels)}
    look = Models({"m": nano}, Limits()).look(video, 3.0)
    for at in (0.5, 3.5):
        row = parts.moment_index(lines["m"], at)
        made = parts.moment(lines, labels, at, look)
        shown = bar.findall(made)
        told = dict(zip([*labels, NONE], lines["m"].scores[row].tolist(), strict=True))
        assert [name for _, name, _ in shown] == sorted(told, key=lambda name: -told[name])
        assert {name: share for _, name, share in shown} == {
            name: f"{100 * share:.1f}" for name, share in told.items()
        }
        assert [name for best, name, _ in shown if best] == [lines["m"].at(at).label]


def test_labels_in_the_field_keep_their_form() -> None:
    pytest.importorskip("gradio", reason="the page needs froster-video[web]")
    from froster.serve.page import with_labels

    sample = Sample(Path("x.mp4"), "x", torch.zeros(3, 1, 1), ("a", "b"))
    assert with_labels("", sample) == "a, b"
    assert with_labels("surfing, b", sample) == "a, surfing, b"
    assert with_labels("surfing\nb", sample) == "a\nsurfing\nb"
    assert with_labels('["salt, pepper"]', sample) == '["a", "b", "salt, pepper"]'
    assert with_labels('"salt, ', sample) == 'a, b, "salt, '


def test_samples(nano: Recognizer, video: Path, tmp_path: Path) -> None:
    made = of_world(tmp_path)
    assert [sample.path.exists() for sample in made] == [True] * 3
    for sample in made:
        scores = timeline(nano, sample.path, sample.labels).scores
        assert len(scores.argmax(1).unique()) > 1  # something happens in it
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(UsageError, match="no videos"):
        from_folder(folder, Limits())
    shutil.copy(video, folder / "a.mp4")
    (folder / "b.mp4").write_bytes(b"")
    make_video(folder / "c.mp4", 100, fps=1)
    assert [sample.name for sample in from_folder(folder, Limits(seconds=60))] == ["a"]


def test_what_is_old_or_too_much_is_swept(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).mkdir()
        (tmp_path / name / "video").touch()
        time.sleep(0.02)
    sweep(tmp_path, 60, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", "d"]
    sweep(tmp_path, 0, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def page(nano: Recognizer):
    pytest.importorskip("gradio", reason="the page needs froster-video[web]")
    from froster.serve.page import add_page

    limits = Limits(upload=1_000_000, seconds=30, idle=1.0)
    service = Service(Models({"nano": nano, "again": load("nano", device="cpu")}, limits), limits)
    app = create_app(service)
    add_page(app, service)
    with in_thread(service, Guard(app, None)) as address:
        yield address, service
    assert not service.folder.exists()


def upload(address: str, data: bytes) -> httpx.Response:
    return httpx.post(
        f"{address}/gradio_api/upload", files={"files": ("../../x.mp4", data)}, timeout=20
    )


def run(address: str, number: int, data: list[Any], session: str = "s1", **more: Any) -> Any:
    """Calls the page's function `number` as the page does: the last message of the queue, or the
    refusal."""
    call = {"data": data, "fn_index": number, "session_hash": session, **more}
    joined = httpx.post(f"{address}/gradio_api/queue/join", json=call, timeout=20)
    if joined.status_code != 200:
        return joined
    with httpx.stream(
        "GET", f"{address}/gradio_api/queue/data?session_hash={session}", timeout=30
    ) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: ") and '"process_completed"' in line:
                return json.loads(line[6:])
    raise AssertionError("no answer")


def test_the_page_obeys_the_limits_and_opens_no_other_files(page, video: Path) -> None:
    """About 10 s, most of it Gradio's import."""
    address, service = page
    folder = service.folder / "page"
    text = httpx.get(address).text
    assert "froster" in text
    assert "fonts.googleapis" not in text
    functions = {each["id"]: each for each in httpx.get(f"{address}/config").json()["dependencies"]}
    analyse = next(id for id, each in functions.items() if len(each["outputs"]) == 4)

    assert upload(address, bytes(1_000_001)).status_code == 413
    assert httpx.post(f"{address}/gradio_api/upload", data={"a": "b"}).status_code == 415
    assert list(folder.rglob("video*")) == []
    (path,) = upload(address, video.read_bytes()).json()
    assert Path(path).is_relative_to(folder) and "x.mp4" not in path

    def named(path: str, **more: Any) -> list[Any]:
        return [
            {"path": path, "meta": {"_type": "gradio.FileData"}, **more},
            "cat spinning, fish bouncing",
        ]

    done = run(address, analyse, named(path))
    assert done["success"], done
    assert "cat spinning" in done["output"]["data"][0] and "f-track" in done["output"]["data"][1]
    for other in (
        "/etc/passwd",
        str(video),
        "http://127.0.0.1:1/x.mp4",
        f"{folder}/../../x",
        "video.mp4",
        "\0",
        5,
    ):
        refused = run(address, analyse, named(other))  # type: ignore[arg-type]
        assert refused.status_code == 403, (other, refused)
    file = named(path)[0]
    for data, words in (
        ([file, ""], "no labels"),
        ([file, "a," * 300], "labels"),
        ([None, "a"], "video"),
    ):
        failed = run(address, analyse, data)
        assert not failed["success"] and words in json.dumps(failed["output"])
        assert str(folder) not in json.dumps(failed["output"])
    (bad,) = upload(address, b"no video").json()
    assert "not a" in run(address, analyse, named(bad))["output"]["error"]

    for closed in (
        "gradio_api/run/predict",
        "gradio_api/call/analyse",
        "gradio_api/api/x",
        "gradio_api/component_server",
        "gradio_api/proxy=http://127.0.0.1:1/",
        "gradio_api/stream/x",
        "monitoring",
        "dev/reload",
        "gradio_api/custom_component/a/b/c/d",
        "gradio_api/vibe-edit",
        "gradio_api/process_recording",
    ):
        for method in ("GET", "POST"):
            assert httpx.request(method, f"{address}/{closed}").status_code == 404, closed
    for other in (
        "/etc/passwd",
        str(video),
        f"{folder}/../../../etc/passwd",
        "http://127.0.0.1:1/",
    ):
        assert httpx.get(f"{address}/gradio_api/file={other}").status_code == 403
    assert httpx.get(f"{address}/gradio_api/file={path}").content == video.read_bytes()
    files = {"video": ("v", video.read_bytes())}
    assert (
        httpx.post(f"{address}/v1/classify", files=files, data={"labels": "a"}).status_code == 200
    )
    assert httpx.post(f"{address}/gradio_api/queue/join", content=b"[" * 100_000).status_code == 400


def test_the_gate_judges_the_path_that_is_served(tmp_path: Path) -> None:
    """One that would lie in the folder if it were decoded once more goes no further; Gradio does
    not decode it again."""
    said: list[Any] = []

    async def gradio(*_: object) -> None:
        said.append("Gradio's")

    async def send(message: Any) -> None:
        said.append(message.get("status"))

    for name in ("x%2fy%2fz/../../secret", "x%2fy/%2e%2e/../../../secret", "x%2f..%2fkept"):
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/gradio_api/file={tmp_path}/{name}",
            "headers": [],
        }
        asyncio.run(Gate(gradio, None, tmp_path)(scope, None, send))  # type: ignore[arg-type]
    assert said == [403, None, 403, None, "Gradio's"]


def test_samples_that_are_picked_again_and_again_fill_no_disk(page, video: Path) -> None:
    address, service = page
    folder = service.folder / "page"
    functions = {each["id"]: each for each in httpx.get(f"{address}/config").json()["dependencies"]}
    pick = next(
        id
        for id, each in functions.items()
        if len(each["inputs"]) == 1 and len(each["outputs"]) == 2
    )
    most = 0
    for number in range(40):
        done = run(address, pick, ["a"], event_data={"index": number % 2})
        assert done["success"], done
        if number % 2:
            upload(address, video.read_bytes())
        most = max(most, len(list(folder.iterdir())))
    assert most == 16
    copies = [path for path in folder.rglob("sample*") if path.is_file()]
    assert len(copies) <= 2
    long = httpx.post(
        f"{address}/gradio_api/upload",
        content=b"x",
        headers={"Content-Type": "multipart/form-data; boundary=" + "b" * 300},
    )
    assert long.status_code == 400 and "boundary" in long.json()["error"]
    assert httpx.head(address).status_code == httpx.head(f"{address}/config").status_code == 200


def test_an_upload_to_the_page_that_stops_half_way(page, video: Path) -> None:
    address, service = page
    before = set((service.folder / "page").rglob("*"))
    connection = half(address, video.read_bytes(), route="/gradio_api/upload", name="files")

    wait_for(lambda: service.jobs.inside == 1)
    wait_for(lambda: len(set((service.folder / "page").rglob("*"))) == len(before) + 2)
    connection.close()
    wait_for(lambda: service.jobs.inside == 0)
    assert set((service.folder / "page").rglob("*")) == before


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync.sync_playwright() as playwright:
        if program is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(
                "the browser test needs Chromium: install it, or run `playwright install chromium`"
            )
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


def test_the_page_in_a_browser(page, browser: Any, nano: Recognizer, video: Path) -> None:
    """As somebody new would: a video, labels, the button, a click and a key in the timeline, a
    mistake, a sample, a phone."""
    address, service = page
    wrong: list[str] = []
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    tab.on("dialog", lambda dialog: wrong.append(dialog.message))
    tab.on(
        "request",
        lambda sent: (
            None if sent.url.startswith((address, "data:", "blob:")) else wrong.append(sent.url)
        ),
    )
    tab.goto(address)

    labels = ["cat spinning", "boat bouncing", HOSTILE.replace(",", "")]
    tab.set_input_files("#froster-video input[type=file]", video)
    tab.wait_for_selector("#froster-video video")
    tab.fill("#froster-labels textarea", "\n".join(labels))
    tab.click("#froster-go")
    tab.wait_for_selector("#froster-moment img")
    columns = tab.locator("#froster-scores .f-column")
    assert [column.locator("h3").inner_text() for column in columns.all()] == ["nano", "again"]
    right = nano.classify(video, labels)
    for column in columns.all():
        rows = dict(
            zip(
                column.locator(".f-name").all_inner_texts(),
                column.locator(".f-value").all_inner_texts(),
                strict=True,
            )
        )
        told = dict(zip(right.labels, right.scores, strict=True))
        assert rows == {label: f"{100 * share:.1f} %" for label, share in told.items()}
        assert f"cosine of the best label {right.cosine:.3f}" in column.inner_text()
    assert "Not calibrated: nano, again." in tab.locator("#froster-scores").inner_text()
    assert tab.locator("#froster-moment img").count() == 24

    track = tab.locator(".f-track").nth(1)
    track.scroll_into_view_if_needed()
    box = track.bounding_box()
    tab.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 5)
    tab.wait_for_function(
        "document.querySelector('#froster-moment h2').textContent.startsWith('At 3')"
    )
    player = "document.querySelector('#froster-video video').currentTime"
    assert tab.evaluate(player) == pytest.approx(3, abs=0.05)
    tab.locator(".f-lanes").first.focus()
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_function(
        "document.querySelector('#froster-moment h2').textContent.startsWith('At 2')"
    )
    assert tab.evaluate(player) == pytest.approx(2, abs=0.05)

    tab.fill("#froster-labels textarea", "cat, , dog")
    tab.click("#froster-go")
    tab.wait_for_selector("text=label 2 of 3 is empty")
    tab.fill("#froster-labels textarea", "surfing")
    tab.click("#froster-samples button >> nth=1")
    tab.wait_for_selector(".f-lanes[data-end='18.000']")
    assert (
        tab.input_value("#froster-labels textarea")
        == "bird swinging, cup circling, carrot swinging, surfing"
    )
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert wrong == []
    tab.close()
    wait_for(lambda: service.jobs.inside == 0)
