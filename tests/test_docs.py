"""The pages: links lead somewhere, commands and options exist, what can be run is run, and every file
that a page names is there."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import froster.cli
import quick
import run_tutorial
from froster.encoders import cleaning
from froster.encoders.config import CLIPConfig, TextConfig, VisionConfig
from froster.encoders.model import CLIP
from froster.errors import install
from froster.methods import METHODS
from froster.methods.recipe import Recipe
from froster.methods.weight_names import start_of
from froster.training.distill_options import Distill
from froster.training.fine_tune import FineTuning, fine_tune
from froster.training.measure import EvalSet, measure
from froster.training.weights import towards, with_weights
from froster.world.clips import WorldClips
from froster.world.files import write_video
from froster.world.sets import render_set, render_video
from golden import close
from typed import options, parsed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FRONT = ("README.md", "CONTRIBUTING.md")
SITE = [path.relative_to(ROOT).as_posix() for path in sorted(DOCS.rglob("*.md"))]
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in (*FRONT, *SITE)}
HISTORY = {"docs/lab.md"}  # speaks of the files and options of its day
COMMANDS = {name for names in froster.cli.COMMANDS.values() for name in names}


def prose(page: str) -> str:
    """A page without its code."""
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    return re.sub(r"^    (?! *[-*\d]).*$", "", text, flags=re.MULTILINE)


def commands_of(page: str) -> list[str]:
    """Every froster command in the code of a page, broken lines joined."""
    fenced = re.findall(r"```sh\n(.*?)```", PAGES[page], re.DOTALL)
    code = "\n".join([*fenced, *re.findall(r"^    (.+)$", PAGES[page], re.MULTILINE)])
    return re.findall(r"^froster [a-z].+$", re.sub(r" *\\\n *", " ", code), re.MULTILINE)


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)", prose(page)):
        if "://" in link:
            continue
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), (link, anchor)


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_commands_are_those_of_the_command_line(page: str) -> None:
    for line in commands_of(page):
        words = shlex.split(re.split(r" [>|] ", line)[0], comments=True)[1:]
        try:
            parsed(*words)
        except Exception as error:
            pytest.fail(f"{line}: {error!r}")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_options_in_the_text_exist(page: str) -> None:
    known = {"--help", "--version"}.union(*map(options, COMMANDS))
    for span in re.findall(r"`((?:froster )?[a-z-][^`\n]*)`", prose(page)):
        first, *words = span.removeprefix("froster ").split()
        if first in COMMANDS:
            used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert used <= options(first), span
        elif span.startswith("--"):
            assert first.partition("=")[0] in known, span


@pytest.mark.parametrize("page", [page for page in PAGES if page not in HISTORY])
def test_files_that_are_named_are_there(page: str) -> None:
    """From the root, from a room, or beside another test."""
    homes = (ROOT, ROOT / "src", ROOT / "src" / "froster", ROOT / "tests")
    for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.py)", PAGES[page]):
        places = [home / name for home in homes]
        if page == "docs/add-a-method.md":
            places += [ROOT / "src" / "froster" / "methods" / name]
        made_up = name.endswith(("methods/motion.py", "encoders/lantern.py"))
        assert any(map(Path.exists, places)) or made_up, name
    for module in re.findall(r"\bfroster(?:\.[a-z_]+){2,}", PAGES[page]):
        try:
            found = find_spec(module)
        except ModuleNotFoundError:
            found = None
        parent, _, name = module.rpartition(".")
        assert found or name in vars(importlib.import_module(parent)), module


def test_the_list_of_commands_is_whole() -> None:
    assert set(re.findall(r"`froster ([a-z]+)", PAGES["docs/commands.md"])) == COMMANDS


def test_every_page_is_in_the_navigation_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = sorted(f"docs/{page}" for page in re.findall(r"([\w/-]+\.md)$", nav, re.MULTILINE))
    assert listed == SITE


def test_every_room_is_in_the_table_of_the_rooms() -> None:
    rooms = {path.parent.name for path in (ROOT / "src" / "froster").glob("*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)/` \|", PAGES["CONTRIBUTING.md"], re.MULTILINE)) == rooms


def test_python_code_is_python() -> None:
    for page, text in PAGES.items():
        for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            compile(code, page, "exec")


def test_the_reference_has_every_public_name() -> None:
    reference = PAGES["docs/api.md"]
    assert not [name for name in froster.__all__ if not re.search(rf"\b{name}\b", reference)]


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (DOCS / "figures" / "site").iterdir()}
    assert sizes and max(sizes.values()) <= 150_000, sizes


def test_nothing_tells_people_to_install_the_other_program() -> None:
    """`froster` on the package index is an S3 archive tool; ours is froster-video, or a checkout."""
    other = re.compile(r"\bfroster\[|pip3? install (?:-\S+ )*['\"]?froster(?![-\w])")
    assert other.search("pip install -U 'froster'")
    assert not other.search("pip install 'froster-video[web]'")
    files = [ROOT / name for name in ("CHANGELOG.md", "pyproject.toml", "Makefile")]
    for folder in ("src", "docs", "tests", "benchmarks"):
        files += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".js", ".html", ".toml")
        ]
    texts = PAGES | {str(path): path.read_text(encoding="utf-8") for path in files}
    wrong = [
        f"{name}: {line.strip()}"
        for name, text in texts.items()
        for line in text.splitlines()
        if other.search(line) and "other.search" not in line
    ]
    assert not wrong


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_who_is_told_to_make_an_environment_is_told_to_step_into_it(page: str) -> None:
    text = PAGES[page]
    assert "python3 -m venv .venv" in text and "source .venv/bin/activate" in text
    assert "froster-video" in text


def test_hints_of_missing_parts_are_right_for_a_release_and_a_checkout() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = re.findall(
        r"^(\w+) = \[", settings.partition("[project.optional-dependencies]")[2], re.MULTILINE
    )
    used = {
        match
        for path in (ROOT / "src").rglob("*.py")
        for match in re.findall(r"install\(['\"](\w+)['\"]\)", path.read_text(encoding="utf-8"))
    }
    assert used >= {"parquet", "web"} and used <= set(extras)
    hint = "pip install 'froster-video[web]', in a checkout pip install -e '.[web]'"
    assert install("web") == hint


def test_every_dependency_has_its_bound_explained() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = settings["optional-dependencies"]
    needed = [
        *settings["dependencies"],
        *(x for name in extras if name != "dev" for x in extras[name]),
    ]
    rows = re.findall(r"^\| (.+?) \|", PAGES["docs/dependencies.md"], re.MULTILINE)
    named = {name.strip() for row in rows for name in row.split(",")}
    for requirement in needed:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert name in named or name.startswith("mkdocs"), requirement


@pytest.mark.parametrize("page", ["many-videos", "search", "doctor"])
@pytest.mark.usefixtures("few_templates")
def test_commands_run(run, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are written, on a few videos and the nano model."""
    for number in range(3):  # of six seconds, so that none is short
        frames = torch.cat([render_video("base", 3 * number + i, 0, split="val") for i in range(3)])
        write_video(tmp_path / "videos" / f"{number}.mp4", frames)
        write_video(tmp_path / "labelled" / "ab"[number % 2] / f"{number}.mp4", frames)
    (tmp_path / "labels.txt").write_text("cat spinning\nkey pacing\n")
    monkeypatch.chdir(tmp_path)
    lines = commands_of(f"docs/{page}.md")
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0] in ("classify", "index"):
            words += ["--model", "nano"]
        if ".parquet" in line and not find_spec("pyarrow"):
            continue
        if "--address" in words or ("ray" in words and not find_spec("ray")):
            continue
        result = run(*words)
        assert result.code == 0, (words, result.err)


def test_the_page_on_adding_a_method_adds_one(
    nano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the code of docs/add-a-method.md, and trains its method for an epoch."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGES["docs/add-a-method.md"], re.DOTALL)
    assert len(code.splitlines()) < 60
    module = types.ModuleType("motion")
    monkeypatch.setitem(sys.modules, "motion", module)
    exec(compile(code, "docs/add-a-method.md", "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, "motion", module.Motion)

    torch.manual_seed(0)
    towers = VisionConfig(32, 8, 64, 2, 1), TextConfig(20, 99, 64, 1, 1)
    clip = CLIP(CLIPConfig(*towers, embed_dim=32)).eval()
    frames = torch.randn(2, 4, 3, 32, 32)
    start, plain = start_of(clip), clip.encode_image(frames).detach()
    model = module.Motion().build(clip)
    close(model.encode_frames(frames), plain, atol=1e-6)
    state = {
        name: torch.randn_like(x) if ".motion." in name else x.clone()
        for name, x in model.state_dict().items()
    }
    model.load_state_dict(state)
    assert not torch.allclose(model.encode_frames(frames), plain, atol=1e-3)
    model.load_state_dict(towards(start, state, 1.0, module.Motion.output_layers))
    close(model.encode_frames(frames), plain, atol=1e-6)

    videos = render_set("order", 2, 0, "train")
    sampling, how = nano.config.sampling, Recipe(epochs=1, batch_size=16, lr=3e-4)
    clips = WorldClips(videos, sampling, train=True)
    settings = FineTuning(module.Motion(), Distill(), how)
    student, trained = fine_tune(nano, settings, clips, videos.classes, tmp_path / "run")
    moved = [name for name, x in trained.last.items() if ".motion." in name and x.any()]
    # The first block sees equal class tokens.
    assert len(moved) == nano.clip.config.vision.layers - 1
    test = EvalSet("order", WorldClips(videos, sampling, train=False), videos.classes)
    tuned = with_weights(student, trained.last)
    assert measure(tuned, [test])["order"].logits.isfinite().all()
    again = froster.load(tuned.save(tmp_path / "model"), device="cpu")
    assert again.config.method == module.Motion()


def test_the_page_on_adding_an_encoder_adds_one(
    nano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the code of docs/add-an-encoder.md: the family, its fixture, its test, and a file of
    class embeddings."""
    page = PAGES["docs/add-an-encoder.md"]
    module = types.ModuleType("lantern")
    monkeypatch.setitem(sys.modules, "lantern", module)
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        assert len(code.splitlines()) < 60
        exec(compile(code, "docs/add-an-encoder.md", "exec"), module.__dict__)
    module.test_lantern(tmp_path)
    names = ["打太极拳", "archery"]
    module.save_classes(tmp_path / "classes.safetensors", names, nano.embed_text(names))
    given = froster.load("nano", classes=tmp_path / "classes.safetensors")
    assert given.class_file is not None and given.class_file.names == names
    for row in re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE):
        assert cleaning.RULES[row[0]]("Playing_Guitar, live!") == row[1]


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
# The workflow builds the site too. Quick: links, navigation and the names of the reference, above.
@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors, navigation and the reference; pictures are there, nothing is loaded from
    elsewhere. 8 seconds."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    elsewhere = r"""<(?:script|link|iframe)[^>]+(?:src|href)=["']?(?:https?:)?//"""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(elsewhere, text), page.name
        images = Images()
        images.feed(text)
        for source in images.sources:
            root = site if source.startswith("/") else page.parent
            assert "://" not in source, (page.name, source)
            assert (root / source.lstrip("/")).is_file(), (page.name, source)
    reference = (site / "api.html").read_text(encoding="utf-8")
    assert "Which of <code>labels</code> fits the video" in reference


def smaller(page: str) -> str:
    """The tutorial with half of its clips, fewer epochs and windows: the same commands say the same
    words."""
    changes = {
        "range(6 if folder in (*things, *parts.values()) else 0)": (
            "range(4 if folder in parts.values() else 2 if folder in things else 0)"
        ),
        "range(6)": "range(3)",
        "--holdout 0.5 --epochs 6": "--holdout 0.25 --epochs 4 --blend-points 2",
        "--stride 0.5": "--stride 1",
        "swinging-5": "swinging-3",
        "bouncing-2": "bouncing-1",
    }
    for old, new in changes.items():
        assert old in page
        page = page.replace(old, new)
    return re.sub(r"^\w+-[2-5]\.mp4\n", "", page, flags=re.MULTILINE)


# As it stands on the page it takes 90 seconds; each of its commands is guarded by the smaller one.
@pytest.mark.parametrize("change", [smaller, pytest.param(str, marks=pytest.mark.slow)])
def test_the_tutorial_runs_and_says_what_the_page_shows(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    """In an empty folder, offline."""
    python = (sys.executable, quick.__file__, quick.server())
    steps = run_tutorial.run(change(PAGES["docs/tutorial.md"]), tmp_path, python)
    shown = [step for step in steps if step.shown is not None]
    assert len(shown) >= 9
    for step in shown:
        assert run_tutorial.words(step.printed) == run_tutorial.words(step.shown), step.code
    pictures = ("timeline.png", "attention.png", "found.png")
    for name in (*pictures, "long.srt", "runs/first/report.html"):
        assert (tmp_path / name).stat().st_size > 0
