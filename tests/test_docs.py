"""The pages show code that runs and tables that are true."""

from __future__ import annotations

import re
import shlex
import sys
import types
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from froster.cli import app
from froster.cli.methods import fill
from froster.encoders.model import CLIP, CLIPConfig, TextConfig, VisionConfig
from froster.errors import install
from froster.inference.recognizer import load
from froster.methods import METHODS
from froster.methods.recipe import Recipe
from froster.methods.weight_names import start_of
from froster.training.distill import Distill
from froster.training.fine_tune import EvalSet, fine_tune, measure, with_weights
from froster.training.weights import towards
from froster.utils.progress import progress
from froster.world.clips import WorldClips
from froster.world.sets import render_set
from golden import close

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_tables_are_up_to_date(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "`st-adapter`" in text
    assert fill(text) == text, "run: make docs"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        *(f"docs/{name}.md" for name in ("blend", "fine-tune", "none-of-these", "share")),
    ],
)
def test_commands_have_the_options_that_the_pages_show(page: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = re.findall(
        r"^    froster (\S+) ?(.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert shown
    for name, rest in shown:
        known = {
            option
            for parameter in commands[name].params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        used = {
            word.partition("=")[0]
            for word in shlex.split(rest, comments=True)
            if word.startswith("-")
        }
        assert used <= known, (name, used - known)


def test_nothing_tells_people_to_install_the_other_program() -> None:
    """`froster` on the package index is an S3 archive tool; ours is froster-video, or a checkout."""
    other = re.compile(r"\bfroster\[|pip3? install (?:-\S+ )*['\"]?froster(?![-\w])")
    assert other.search("pip install -U 'froster'") and not other.search(
        "pip install 'froster-video[web]'"
    )
    files = [ROOT / name for name in ("README.md", "CHANGELOG.md", "pyproject.toml", "Makefile")]
    for folder in ("src", "docs", "tests", "benchmarks"):
        files += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.suffix in (".py", ".md", ".js", ".html", ".toml")
        ]
    wrong = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in path.read_text(encoding="utf-8").splitlines()
        if other.search(line) and "other.search" not in line
    }
    assert not wrong


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_who_is_told_to_make_an_environment_is_told_to_step_into_it(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert (
        "python3 -m venv .venv" in text
        and "source .venv/bin/activate" in text
        and "froster-video" in text
    )


def test_hints_of_missing_parts_are_right_for_a_release_and_a_checkout() -> None:
    _, _, optional = (
        (ROOT / "pyproject.toml")
        .read_text(encoding="utf-8")
        .partition("[project.optional-dependencies]")
    )
    extras = re.findall(r"^(\w+) = \[", optional, re.MULTILINE)
    used = {
        match
        for path in (ROOT / "src").rglob("*.py")
        for match in re.findall(r"install\(['\"](\w+)['\"]\)", path.read_text(encoding="utf-8"))
    }
    assert used >= {"parquet", "web"} and used <= set(extras)
    assert (
        install("web") == "pip install 'froster-video[web]', in a checkout pip install -e '.[web]'"
    )


def test_the_page_on_adding_a_method_adds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the code of docs/add-a-method.md, and trains its method for an epoch."""
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) < 60
    module = types.ModuleType("motion")
    monkeypatch.setitem(sys.modules, "motion", module)
    exec(compile(code, "docs/add-a-method.md", "exec"), module.__dict__)
    monkeypatch.setitem(METHODS, "motion", module.Motion)

    torch.manual_seed(0)
    clip = CLIP(
        CLIPConfig(VisionConfig(32, 8, 64, 2, 1), TextConfig(20, 99, 64, 1, 1), embed_dim=32)
    ).eval()
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

    base = load("nano", device="cpu")
    videos = render_set("order", 2, 0, "train")
    clips = WorldClips(videos, base.config.sampling, train=True)
    recipe = Recipe(epochs=1, batch_size=16, lr=3e-4)
    with progress(quiet=True) as bars:
        student, trained = fine_tune(
            base,
            module.Motion(),
            Distill(),
            recipe,
            clips,
            videos.classes,
            tmp_path / "run",
            bars,
            "motion",
        )
        moved = [name for name, x in trained.last.items() if ".motion." in name and x.any()]
        assert (
            len(moved) == base.clip.config.vision.layers - 1
        )  # the first block sees equal class tokens
        test = EvalSet(
            "order", WorldClips(videos, base.config.sampling, train=False), videos.classes
        )
        found = measure(with_weights(student, trained.last), [test], bars, "motion")["order"]
    again = load(with_weights(student, trained.last).save(tmp_path / "model"), device="cpu")
    assert again.config.method == module.Motion()
    assert found.logits.isfinite().all()
