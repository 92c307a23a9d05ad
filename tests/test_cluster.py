"""The files of docs/cluster are what their readers submit: they parse, and their options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from froster.cli import COMMANDS
from typed import arguments

FOLDER = Path(__file__).parent.parent / "docs" / "cluster"
SCRIPTS = sorted([*FOLDER.glob("*.sbatch"), *FOLDER.glob("*.sh")])
JOBS = sorted(FOLDER.glob("*.yaml"))
KNOWN = {name for names in COMMANDS.values() for name in names}


def froster_commands(text: str) -> list[list[str]]:
    """The words from the command's name on."""
    code = re.sub(r"^\s*#.*$", "", text.replace("\\\n", " "), flags=re.MULTILINE)
    names = "|".join(KNOWN)
    lines = re.findall(rf"\bfroster ((?:{names}) .+)", code)
    return [shlex.split(line, comments=True) for line in lines]


def check(words: list[str]) -> None:
    command, *rest = words
    options = {name for argument in arguments(command) for name in argument.names}
    used = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert used and used <= options, (command, used - options)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_with_options_that_exist(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (words,) = froster_commands(path.read_text())
    check(words)
    if path.suffix == ".sbatch":
        keys = re.findall(r"^#SBATCH --([a-z-]+)(?:=\S+)?$", path.read_text(), re.MULTILINE)
        assert {"job-name", "time", "output", "requeue"} <= set(keys)
    if words[0] == "train":
        assert "--resume" in words, "torchrun and Slurm start the same command again"


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_jobs_are_what_kuberay_takes(path: Path) -> None:
    job: dict[str, Any] = yaml.safe_load(path.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    (words,) = froster_commands(spec["entrypoint"])
    assert {"--engine", "--address", "--out"} <= set(words)
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) > 1
    for group in groups:
        assert "rayStartParams" in group
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"] and container["resources"]["limits"]["cpu"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    options = {name for argument in arguments(words[0]) for name in argument.names}
    if "--engine" in options:  # of a checkout that has the engine
        check(words)


def test_the_page_names_every_file() -> None:
    page = (FOLDER.parent / "cluster.md").read_text()
    assert all(f"(cluster/{path.name})" in page for path in [*SCRIPTS, *JOBS])
