"""What runs on others' machines is what GitHub, pre-commit and the Makefile understand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
TARGETS = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_read_only_and_run_what_there_is(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]  # `on` is a boolean to YAML 1.1
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/(checkout|setup-python)@v\d+", step["uses"])
            else:
                check(step["run"])


def check(line: str) -> None:
    first, *words = line.split()
    if first == "make":
        assert words[0] in TARGETS, line
    else:
        assert first in ("python", "froster"), line
    for word in words:
        if word.startswith("tests/") or word.endswith(".txt"):
            assert (ROOT / word).is_file(), word


def test_the_workflows_are_those_that_were_promised() -> None:
    assert [path.stem for path in WORKFLOWS] == ["fast", "full", "import", "latest"]
    matrix = read(ROOT / ".github/workflows/import.yml")["jobs"]["import"]["strategy"]["matrix"]
    assert matrix["os"] == ["windows-latest", "macos-latest"]
    assert matrix["python"] == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize(
    "path", [p for p in FORMS if p.stem != "config"], ids=lambda path: path.stem
)
def test_issue_forms_have_what_github_demands(path: Path) -> None:
    form = read(path)
    assert all(form[key] for key in ("name", "description", "body"))
    fields = [element for element in form["body"] if element["type"] != "markdown"]
    assert fields and {field["type"] for field in fields} <= {"input", "textarea", "dropdown"}
    assert all(field["attributes"]["label"] for field in fields)
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]+", name) for name in ids)
    assert any("froster doctor --env --json" in str(field) for field in fields)


def test_the_other_files_are_read() -> None:
    assert read(ROOT / ".github/ISSUE_TEMPLATE/config.yml") == {"blank_issues_enabled": True}
    hooks = [
        hook["id"]
        for repo in read(ROOT / ".pre-commit-config.yaml")["repos"]
        for hook in repo["hooks"]
    ]
    assert hooks == ["ruff-check", "ruff-format", "check-yaml", "check-added-large-files"]
    cite = read(ROOT / "CITATION.cff")
    assert all(cite[key] for key in ("cff-version", "message", "title", "authors"))
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version and cite["version"] == version[1]
    assert cite["references"][0]["identifiers"][0]["value"] == "arXiv:2402.03241"
