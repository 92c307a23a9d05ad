"""The documentation site: it is whole, its commands exist, and its tutorial runs as it stands
there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest

import froster.cli
import run_tutorial
from typed import parsed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
COMMANDS = {name for names in froster.cli.COMMANDS.values() for name in names}


def commands_of(page: str) -> list[str]:
    """Every froster command in the code of a page, broken lines joined."""
    fenced = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    code = re.sub(
        r" *\\\n *", " ", "\n".join([*fenced, *re.findall(r"^    (.+)$", page, re.MULTILINE)])
    )
    return re.findall(r"^froster .+$", code, re.MULTILINE)


def test_every_page_is_in_the_navigation_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"([\w/-]+\.md)$", nav, re.MULTILINE)) == sorted(PAGES)


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_relative_links_lead_somewhere(page: str) -> None:
    folder, text = (
        (ROOT, (ROOT / page).read_text(encoding="utf-8"))
        if page == "README.md"
        else (DOCS, PAGES[page])
    )
    links = re.findall(
        r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    )
    here = (folder / page).parent
    broken = [link for link in links if "://" not in link and not (here / link).exists()]
    assert not broken


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if commands_of(text)])
def test_commands_are_those_of_the_command_line(page: str) -> None:
    for line in commands_of(PAGES[page]):
        _, name, *arguments = shlex.split(re.split(r" [>|] ", line)[0], comments=True)
        try:
            parsed(name, *arguments)
        except Exception as error:
            pytest.fail(f"{line}: {error!r}")


def test_the_list_of_commands_is_whole() -> None:
    listed = set(re.findall(r"`froster ([a-z]+)", PAGES["commands.md"]))
    assert listed == COMMANDS


def test_python_code_is_python() -> None:
    for page, text in PAGES.items():
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            compile(code, page, "exec")


def test_the_reference_has_every_public_name() -> None:
    reference = PAGES["api.md"]
    missing = [name for name in froster.__all__ if not re.search(rf"\b{name}\b", reference)]
    assert not missing
    for home in re.findall(r"^::: (froster\.\S+)", reference, re.MULTILINE):
        module, _, name = home.rpartition(".")
        assert (
            find_spec(home)
            if home == "froster.errors"
            else hasattr(__import__(module, fromlist=[name]), name)
        )


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (DOCS / "figures" / "site").iterdir()}
    assert sizes and max(sizes.values()) <= 150_000, sizes


class Images(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(dict(attrs)["src"] or "")


@pytest.mark.skipif(
    not all(map(find_spec, ("mkdocs", "material", "mkdocstrings_handlers"))),
    reason="needs mkdocs-material and mkdocstrings: pip install -e '.[docs]'",
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors, navigation and the reference; pictures are there, nothing is loaded from
    elsewhere. 8 seconds."""
    call = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(
            r"""<(?:script|link|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//""", text
        ), page.name
        images = Images()
        images.feed(text)
        for source in images.sources:
            root = tmp_path / "site" if source.startswith("/") else page.parent
            assert "://" not in source and (root / source.lstrip("/")).is_file(), (
                f"{page.name}: {source}"
            )
    assert "Which of <code>labels</code> fits the video" in (
        tmp_path / "site" / "api.html"
    ).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_runs_and_says_what_the_page_shows(tmp_path: Path) -> None:
    """In an empty folder, offline; 40 seconds on a core."""
    steps = run_tutorial.run(PAGES["tutorial.md"], tmp_path)
    shown = [step for step in steps if step.shown is not None]
    assert len(shown) >= 9
    for step in shown:
        assert run_tutorial.words(step.printed) == run_tutorial.words(step.shown), step.code
    for name in (
        "timeline.png",
        "attention.png",
        "found.png",
        "long.srt",
        "runs/first/report.html",
    ):
        assert (tmp_path / name).stat().st_size > 0
