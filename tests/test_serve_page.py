"""The page in a browser, as people use it: each test is one visit, and no visit may leave a word in
the console."""

from __future__ import annotations

import base64
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from server import in_thread, wait_for  # isort: skip  # skips this file where there is no fastapi

from froster.evaluation.calibration import NONE, Calibration, NoneRule
from froster.inference.recognizer import Recognizer, load
from froster.serve.app import create_app
from froster.serve.guard import Guard
from froster.serve.limits import Limits
from froster.serve.models import Models
from froster.serve.page import add_page
from froster.serve.service import Service
from froster.world.files import write_video
from froster.world.sets import render_video
from templates import use_few
from video_files import make_video

HOSTILE = "<img src=x onerror=alert(1)>{{constructor.constructor('alert(1)')()}}${alert(1)}\"'`"
LABELS = ["cat spinning", "boat bouncing", "moon glowing"]
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = [render_video("base", label, 0, split="val") for label in (0, 5)]
    return write_video(tmp_path_factory.mktemp("page") / "clip.mp4", torch.cat(frames))


@pytest.fixture(scope="module")
def nano() -> Iterator[Recognizer]:
    """The nano CLIP with few templates, as all in this file."""
    with pytest.MonkeyPatch.context() as patch:
        use_few(patch)
        yield load("nano", device="cpu")


@pytest.fixture(scope="module")
def calibrated(nano: Recognizer) -> Recognizer:
    nano = load("nano", device="cpu")
    nano.calibration = Calibration(1.0, NoneRule(12.1, 43.2, 0.88), {"to": "a test"})
    return nano


def served(
    models: dict[str, Recognizer], token: str | None = None, samples: Path | None = None
) -> Iterator[tuple[str, Service]]:
    limits = Limits(upload=2_000_000, seconds=60)
    service = Service(Models(models, limits), limits)
    app = create_app(service)
    add_page(app, service, samples)
    with in_thread(service, Guard(app, token)) as address:
        yield address, service
    assert not service.folder.exists()


@pytest.fixture(scope="module")
def page(nano: Recognizer, calibrated: Recognizer):
    yield from served({"nano": nano, "calibrated": calibrated})


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync.sync_playwright() as playwright:
        if program is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip(
                "the browser test needs Chromium: install it, or run `playwright install chromium`"
            )
        started = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, page: tuple[str, Service]):
    """Opens the page; afterwards nothing was said in the console, and nothing asked of anybody
    else."""
    address, service = page
    wrong: list[str] = []
    contexts: list[Any] = []

    def opened(expected: str = "", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append(dialog.message))

        def watch(request: Any) -> None:
            if not request.url.startswith((address, "data:", f"blob:{address}")):
                wrong.append(request.url)

        tab.on("request", watch)

        def hear(message: Any) -> None:
            if message.type in ("error", "warning") and not (expected and expected in message.text):
                wrong.append(message.text)

        tab.on("console", hear)
        tab.goto(address)
        tab.wait_for_selector("#samples button", state="attached")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    wait_for(lambda: service.jobs.inside == 0)


def ask(tab: Any, video: Path, labels: list[str] = LABELS) -> None:
    tab.set_input_files("#file", video)
    tab.fill("#labels", "\n".join(labels))
    tab.click("#go")
    tab.wait_for_selector("#film img", timeout=30_000)


def until(tab: Any, true: str) -> None:
    """Playwright's own wait would evaluate the text within the page, which the page's policy
    forbids."""
    wait_for(lambda: tab.evaluate(true), 20)


def rows(column: Any) -> dict[str, str]:
    names = [name.removeprefix("✓ ") for name in column.locator(".bars .name").all_inner_texts()]
    return dict(zip(names, column.locator(".bars .value").all_inner_texts(), strict=True))


def seconds(tab: Any) -> float:
    return tab.evaluate("document.querySelector('#player').currentTime")


def test_scores_of_two_models_side_by_side(
    visit, video: Path, nano: Recognizer, calibrated: Recognizer
) -> None:
    tab = visit()
    labels = [*LABELS[:2], HOSTILE.replace(",", "")]
    ask(tab, video, labels)
    columns = tab.locator("#scores .column").all()
    assert [column.locator("h3").inner_text() for column in columns] == ["nano", "calibrated"]
    lefts = [column.bounding_box() for column in columns]
    assert lefts[0]["y"] == lefts[1]["y"] and lefts[0]["x"] < lefts[1]["x"]
    for column, model in zip(columns, (nano, calibrated), strict=True):
        right = model.classify(video, labels)
        shares = dict(zip(right.labels, right.probabilities, strict=True))
        if right.none is not None:
            shares[NONE] = right.none
        order = sorted(shares, key=lambda label: -shares[label])
        assert rows(column) == {label: f"{100 * shares[label]:.1f} %" for label in order}
        assert list(rows(column)) == order
        assert column.locator(".best .name").inner_text() == f"✓ {right.answer or NONE}"
    assert (
        "cosine of the best label" in columns[0].inner_text()
        and NONE not in columns[0].inner_text()
    )
    assert "Not calibrated: nano." in tab.inner_text("#scores-part")
    assert tab.inner_text("#status").startswith("nano: cat spinning; calibrated: ")
    assert tab.locator("#film img").count() == 16 and tab.locator("#film canvas").count() == 16
    tab.uncheck("#attention")
    assert tab.locator("#film canvas").first.is_hidden()
    tab.uncheck("#models input >> nth=1")
    tab.click("#go")
    until(tab, "document.querySelectorAll('#scores .column').length === 1")


def test_the_timeline_seeks_and_follows_the_video(visit, video: Path) -> None:
    tab = visit()
    ask(tab, video)
    track = tab.locator(".track").nth(1)
    track.scroll_into_view_if_needed()
    box = track.bounding_box()
    tab.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 5)
    until(tab, "document.querySelector('#moment-title').textContent === 'At 3 s'")
    assert seconds(tab) == pytest.approx(3, abs=0.05)
    slider = tab.locator("[role=slider]").first
    slider.focus()
    for key, at in (("ArrowLeft", 2), ("Home", 0), ("ArrowRight", 1), ("End", 4)):
        tab.keyboard.press(key)
        assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(at, abs=0.05)
        until(tab, f"Math.abs(document.querySelector('#player').currentTime - {at}) < 0.1")
    assert slider.get_attribute("aria-valuetext").startswith("4 s: ")
    tab.click("summary >> text=as a list")
    tab.click(".segments button >> nth=0")
    assert tab.inner_text("#moment-title") != "At 4 s"
    tab.keyboard.press("Home")
    tab.evaluate("document.querySelector('#player').currentTime = 0")
    tab.evaluate("document.querySelector('#player').play()")
    until(tab, "document.querySelector('#player').currentTime > 1")
    moved = "Number(document.querySelector('[role=slider]').getAttribute('aria-valuenow')) > 0.8"
    until(tab, moved)
    tab.evaluate("document.querySelector('#player').pause()")


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "mpeg4"),
        pytest.param("b.mkv", "ffv1", marks=pytest.mark.slow),
        ("c.mpg", "mpeg2video"),
    ],
)
def test_what_the_browser_cannot_play_is_played_as_a_preview(
    visit, name: str, codec: str, tmp_path: Path
) -> None:
    tab = visit()
    file = make_video(
        tmp_path / name, 100, codec, pix_fmt="yuv444p" if codec == "ffv1" else "yuv420p"
    )
    tab.set_input_files("#file", file)
    tab.wait_for_selector("#player", timeout=20_000)
    assert "small and without sound" in tab.inner_text("#player-note")
    assert tab.evaluate("document.querySelector('#player').duration") == pytest.approx(4, abs=0.1)
    tab.fill("#labels", "\n".join(LABELS))
    tab.click("#go")
    tab.wait_for_selector("#film img", timeout=30_000)
    tab.locator("[role=slider]").first.focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    stride = float(tab.locator("[role=slider]").first.get_attribute("aria-valuenow"))
    until(tab, f"Math.abs(document.querySelector('#player').currentTime - {stride}) < 0.05")


FOCUS = """() => {
  const focused = document.activeElement;
  const outlined = focused.id === "file" ? document.querySelector("#drop") : focused;
  return getComputedStyle(outlined).outlineStyle;
}"""


def test_by_the_keyboard_alone(visit) -> None:
    """From the first tab to a moment of a sample; what has the focus can be seen."""
    tab = visit()
    for _ in range(12):
        tab.keyboard.press("Tab")
        assert tab.evaluate(FOCUS) == "solid"
        if tab.evaluate("document.activeElement.closest('#samples') !== null"):
            break
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#film img", timeout=30_000)
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.getAttribute('role')") == "slider":
            break
    tab.keyboard.press("End")
    assert tab.inner_text("#moment-title") == "At 18 s"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")  # opens the list of segments
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#moment-title") not in ("At 18 s", "")


UNNAMED = """() => {
  const kinds = "button, input, textarea, video, progress, [role=slider], summary, img:not([alt=''])";
  const named = (each) => each.ariaLabel || each.labels?.length || each.textContent.trim()
    || each.alt || each.getAttribute("aria-labelledby");
  const unnamed = [...document.querySelectorAll(kinds)].filter((each) => !named(each));
  return unnamed.map((each) => each.outerHTML);
}"""


def test_every_control_has_a_name_and_results_are_announced(visit, video: Path) -> None:
    tab = visit()
    ask(tab, video)
    assert tab.evaluate(UNNAMED) == []
    roles = {
        each: tab.locator(f"#{each}").get_attribute("role")
        for each in ("status", "error", "film-note", "player-note")
    }
    assert roles == {
        "status": "status",
        "error": "alert",
        "film-note": "status",
        "player-note": "status",
    }
    assert tab.locator("main").count() == tab.locator("h1").count() == 1
    assert "the model looks most at the " in tab.locator("#film img").first.get_attribute("alt")


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const linear = (value) => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
  const light = (name) => {
    canvas.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => linear(value / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const pairs = [["--text", "--card"], ["--soft", "--card"], ["--soft", "--back"],
    ["--error", "--card"], ["--accent", "--card"], ["--on-accent", "--accent"]];
  return pairs.map(([one, other]) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + .05) / (dark + .05);
  });
}"""


def test_light_and_dark_can_be_read(visit) -> None:
    """Contrasts of 4.5 and more, as WCAG's AA asks."""
    backs = []
    for scheme in ("light", "dark"):
        tab = visit(color_scheme=scheme)
        assert min(tab.evaluate(CONTRAST)) >= 4.5
        backs.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backs == ["rgb(246, 247, 248)", "rgb(20, 23, 26)"]


def test_a_phone_needs_no_sideways_scroll(visit, video: Path) -> None:
    tab = visit(has_touch=True)
    tab.set_viewport_size({"width": 360, "height": 740})
    ask(
        tab,
        video,
        [
            *LABELS,
            "a label that is a good deal longer than a phone is wide, without a doubt",
            "x" * 60,
        ],
    )
    tab.click("summary >> text=as a list")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    right = "Array.from(document.querySelectorAll('.answered *'), (each) => each.getBoundingClientRect().right)"
    assert max(tab.evaluate(right)) <= 361
    boxes = [column.bounding_box() for column in tab.locator("#scores .column").all()]
    assert boxes[0]["y"] < boxes[1]["y"] and boxes[0]["x"] == boxes[1]["x"]
    track = tab.locator(".track").first
    track.scroll_into_view_if_needed()
    box = track.bounding_box()
    tab.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 5)
    until(tab, "document.querySelector('#moment-title').textContent === 'At 2 s'")


def test_mistakes_are_told_in_plain_words(visit, video: Path, tmp_path: Path) -> None:
    tab = visit(
        expected="Failed to load resource"
    )  # as Chromium reports every answer of 400 and more
    tab.click("#go")
    assert tab.inner_text("#error") == "Choose a video first."
    tab.set_input_files("#file", video)
    tab.fill("#labels", " \n")
    tab.click("#go")
    assert tab.inner_text("#error") == "Write some labels first."
    assert tab.evaluate("document.activeElement.id") == "labels"
    tab.fill("#labels", "cat, , dog")
    tab.click("#go")
    tab.wait_for_selector("text=Label 2 of 3 is empty")
    assert tab.locator("#cancel").is_disabled() and tab.locator("#progress").is_hidden()
    (tmp_path / "big.mp4").write_bytes(bytes(2_500_000))
    tab.set_input_files("#file", tmp_path / "big.mp4")
    assert tab.inner_text("#error") == "big.mp4 has 2.5 MB: at most 2 MB are taken."
    (tmp_path / "text.mp4").write_bytes(b"no video")
    tab.set_input_files("#file", tmp_path / "text.mp4")
    until(tab, "document.querySelector('#error').textContent.includes('not a')")
    until(tab, "document.querySelector('#player-note').textContent.startsWith('No preview')")
    ask(tab, video)
    assert tab.inner_text("#error") == ""


def test_cancel_stops_the_work(visit, page, tmp_path: Path) -> None:
    service = page[1]
    long = make_video(tmp_path / "long.mp4", 4000, "mpeg4", fps=100, size=(32, 32))
    tab = visit()
    tab.set_input_files("#file", long)
    tab.wait_for_selector("text=Sent: 40 s")
    tab.wait_for_selector("#player", timeout=20_000)  # the preview of what the browser cannot play
    for press in (lambda: tab.click("#cancel"), lambda: tab.keyboard.press("Escape")):
        tab.click("#go")
        wait_for(lambda: service.jobs.running)
        press()
        assert tab.inner_text("#status") == "Cancelled."
        wait_for(lambda: service.jobs.inside == 0, 3)
        assert tab.locator("#cancel").is_disabled() and tab.locator("#scores-part").is_hidden()
    tab.click("#go")
    tab.wait_for_selector("#film img", timeout=60_000)


def test_a_busy_server_is_waited_for_and_a_deleted_video_is_sent_again(
    visit, page, video: Path
) -> None:
    service = page[1]
    before = set(service.videos._kept)
    tab = visit(expected="Failed to load resource")
    tab.set_input_files("#file", video)
    tab.wait_for_selector("text=Sent: 4 s")
    (name,) = set(service.videos._kept) - before
    service.videos.delete(name)
    room, service.jobs.room = service.jobs.room, 0
    tab.fill("#labels", "\n".join(LABELS))
    tab.click("#go")
    tab.wait_for_selector("text=The server is busy")
    service.jobs.room = room
    tab.wait_for_selector("#film img", timeout=30_000)
    assert name not in service.videos._kept and len(set(service.videos._kept) - before) == 1


DROP = """(data) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "dropped.mp4", { type: "video/mp4" }));
  const options = { dataTransfer, bubbles: true, cancelable: true };
  for (const name of ["dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(name, options));
  }
}"""


def test_a_file_is_dropped_and_deleted_with_the_page(visit, page, video: Path) -> None:
    service = page[1]
    tab = visit()
    before = set(service.videos._kept)
    tab.evaluate(DROP, base64.b64encode(video.read_bytes()).decode())
    tab.wait_for_selector("text=Sent: 4 s")
    assert tab.inner_text("#file-name") == "dropped.mp4"
    (name,) = set(service.videos._kept) - before
    tab.goto("about:blank")
    wait_for(lambda: name not in service.videos._kept)


def test_a_sample_brings_its_labels(visit) -> None:
    tab = visit()
    tab.fill("#labels", "surfing")
    tab.click("#samples button >> nth=1")
    tab.wait_for_selector("#film img", timeout=30_000)
    assert tab.input_value("#labels").split("\n") == [
        "bird swinging",
        "green cup circling",
        "blue carrot swinging",
        "surfing",
    ]
    assert float(tab.locator("[role=slider]").first.get_attribute("aria-valuemax")) == 18


def test_the_token_opens_the_page(browser: Any, nano: Recognizer, video: Path) -> None:
    for address, _ in served({"nano": nano}, TOKEN, video.parent):
        tab = browser.new_page()
        tab.goto(address)
        assert (
            tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 248)"
        )
        for given in ("wrong", TOKEN):
            tab.fill("#token", given)
            with tab.expect_navigation():
                tab.keyboard.press("Enter")
            assert (tab.locator("[role=alert]").first.inner_text() == "That is not the token.") == (
                given == "wrong"
            )
        tab.click("#samples button >> nth=0")
        tab.fill("#labels", "\n".join(LABELS))
        tab.click("#go")
        tab.wait_for_selector("#film img", timeout=30_000)
        tab.close()


def test_the_documentation_lists_every_route(visit, page) -> None:
    tab = visit()
    tab.click("footer a")
    tab.wait_for_selector("#routes h2 >> nth=7")
    titles = tab.locator("#routes h2").all_inner_texts()
    assert {
        "POST /v1/classify",
        "POST /v1/videos",
        "GET /v1/videos/{name}/preview",
        "GET /healthz",
    } <= set(titles)
    text = tab.inner_text("main")
    assert (
        f"curl -F video=@holiday.mp4 -F 'labels=surfing, skiing, cooking' {page[0]}/v1/classify"
        in text
    )
    assert "Try again after" in text or "try again after" in text
    tab.set_viewport_size({"width": 360, "height": 740})
    time.sleep(0.1)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
