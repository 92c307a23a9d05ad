"""Makes the pictures of the site from commands, on rendered videos only.

    python docs/screenshots.py TUTORIAL DEMO

TUTORIAL is a folder in which `docs/run_tutorial.py` ran, DEMO one that `froster demo` wrote. Needs
`froster-video[web]` and Chromium, which Playwright drives.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FOLDER = Path(__file__).with_name("figures") / "site"
LARGEST = 150_000
WIDTH = 1400


def keep(picture: Image.Image, name: str) -> None:
    """Writes FOLDER/name, with as many colours as LARGEST bytes allow."""
    picture = picture.convert("RGB")
    if picture.width > WIDTH:
        picture = picture.resize(
            (WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS
        )
    for colours in (256, 128, 64, 32):
        buffer = io.BytesIO()
        picture.quantize(colours).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LARGEST:
            break
    else:
        raise SystemExit(
            f"{name}: more than {LARGEST:,} bytes whatever the colours; make it smaller"
        )
    (FOLDER / name).write_bytes(buffer.getvalue())
    print(f"{name}: {picture.width} x {picture.height}, {colours} colours, {buffer.tell():,} bytes")


def evaluate(tutorial: Path) -> None:
    """Writes TUTORIAL/scores."""
    call = "evaluate --data videos --model runs/first --out scores"
    subprocess.run(
        [sys.executable, "-m", "froster", *call.split()],
        cwd=tutorial,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def top_of(browser: Browser, page: Path, height: int) -> Image.Image:
    tab = browser.new_page(viewport={"width": 1100, "height": height})
    tab.goto(page.resolve().as_uri())
    return Image.open(io.BytesIO(tab.screenshot()))


@contextmanager
def serving(tutorial: Path) -> Iterator[str]:
    """The address of a server with both models."""
    call = "serve --model runs/first --compare nano --port 0"
    server = subprocess.Popen(
        [sys.executable, "-m", "froster", *call.split()],
        cwd=tutorial,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        yield next(line.split()[1] for line in server.stderr if line.startswith("serving "))
    finally:
        server.terminate()
        server.wait()


def answered(
    browser: Browser, address: str, scheme: Literal["light", "dark"], part: str
) -> Image.Image:
    """The web page after a sample was picked and classified, from one of its parts on."""
    tab = browser.new_page(viewport={"width": 1200, "height": 1000}, color_scheme=scheme)
    tab.goto(address)
    tab.click("#samples button >> nth=1")
    tab.wait_for_selector("#film img")
    tab.locator(part).evaluate("(part) => part.scrollIntoView()")
    tab.wait_for_timeout(500)
    return Image.open(io.BytesIO(tab.screenshot()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tutorial", type=Path)
    parser.add_argument("demo", type=Path)
    given = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    evaluate(given.tutorial)
    keep(Image.open(given.tutorial / "timeline.png"), "timeline.png")
    keep(Image.open(given.tutorial / "found.png"), "found.png")
    keep(Image.open(given.tutorial / "attention.png"), "attention.png")
    keep(Image.open(given.tutorial / "scores" / "confusion_test.png"), "confusion.png")
    keep(Image.open(given.demo / "figures" / "accuracy.png"), "demo.png")
    keep(Image.open(given.demo / "figures" / "clips.png"), "../demo.png")
    with sync_playwright() as play:
        system = Path("/usr/bin/chromium")
        browser = play.chromium.launch(
            executable_path=system if system.exists() else None, args=["--no-sandbox"]
        )
        keep(top_of(browser, given.tutorial / "runs" / "first" / "report.html", 445), "report.png")
        with serving(given.tutorial) as address:
            keep(answered(browser, address, "light", "body"), "page.png")
            keep(answered(browser, address, "dark", "#moment-part"), "page_dark.png")
        browser.close()
