"""docs/notebook.ipynb as Jupyter runs it, and the Dockerfile: built where docker is there, checked by
eye where it is not."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from froster.world.files import write_video
from froster.world.sets import SETS, record

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """The value of the last line, as a notebook shows it."""
    tree = ast.parse(source)
    *rest, last = tree.body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(rest, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 seconds."""
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 4)
    world = SETS["base"]
    folders = {"cat": "cat", "boat": "boat", "ladder": "part_17", "key": "part_23"}
    for label, action in enumerate(world.actions):
        for take in range(3 if action.noun in folders else 0):
            frames = record(world, label, np.random.default_rng([label, take]))
            name = f"{action.verb}-{take}.mp4"
            write_video(tmp_path / "videos" / folders[action.noun] / name, frames)
    long = [record(world, label, np.random.default_rng(label)) for label in range(6)]
    write_video(tmp_path / "long.mp4", torch.cat(long))

    monkeypatch.chdir(tmp_path)
    displayed: list[Any] = []
    names: dict[str, Any] = {"display": displayed.append}
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(cells) == 3 and all(cell["outputs"] == [] for cell in cells)
    shown = [run_cell("".join(cell["source"]), names) for cell in cells]
    assert all("<table>" in result._repr_html_() for result in shown)
    assert displayed[0]._repr_png_().startswith(b"\x89PNG")
    assert shown[0].label == "cat spinning"


def instructions() -> list[tuple[str, str]]:
    """Each with its word."""
    lines = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_copies_what_is_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for word, rest in instructions():
        if word == "COPY":
            for name in rest.split()[:-1]:
                assert (ROOT / name).exists() and f"!{name}" in ignored, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    copied = " ".join(rest for word, rest in instructions() if word == "COPY")
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= set(copied.split())


def test_the_dockerfile_installs_what_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = [word for word, _ in instructions()]
    assert set(words) <= {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT"}
    (python,) = re.findall(r"^ARG PYTHON=3\.(\d+)$", DOCKERFILE, re.MULTILINE)
    assert int(python) >= int(project["requires-python"].removeprefix(">=3."))
    runs = [rest for word, rest in instructions() if word == "RUN"]
    assert all(run.startswith("pip install --no-cache-dir -c constraints.txt ") for run in runs)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    stated = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    assert set(re.findall(r"\$\{(\w+)\}", DOCKERFILE)) == stated
    place = words.index("FROM")
    assert words.index("ARG", place) < words.index(
        "RUN"
    )  # what stands before FROM is gone after it
    (entry,) = (rest for word, rest in instructions() if word == "ENTRYPOINT")
    assert json.loads(entry) == list(project["scripts"])
    assert words.index("USER") > max(i for i, word in enumerate(words) if word == "RUN")


def docker() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not docker(), reason="needs docker, and a network to fetch torch by")
def test_the_image_is_built_and_answers() -> None:
    """Some minutes."""
    subprocess.run(["docker", "build", "-t", "froster-test", "."], cwd=ROOT, check=True)
    command = ["docker", "run", "--rm", "--network", "none", "froster-test", "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)
