"""The commands on the pages about many videos run as they are written, on a few videos and the nano
model."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch

from froster.world.files import write_video
from froster.world.sets import render_set

DOCS = Path(__file__).parents[1] / "docs"


def commands(page: str) -> list[list[str]]:
    """The indented lines of a page that begin with `froster`, without their comments."""
    lines = re.findall(
        r"^    (froster .*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE
    )
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("page", ["many-videos.md", "search.md", "doctor.md"])
def test_commands_run(run, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = render_set("base", 1, split="val")
    for number in range(3):  # of six seconds, so that none is short
        write_video(
            tmp_path / "videos" / f"{number}.mp4",
            torch.cat(list(videos.frames[3 * number : 3 * number + 3])),
        )
    (tmp_path / "labels.txt").write_text("cat spinning\nkey pacing\n")
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert len(found) >= 3
    for command in found:
        if command[0] in ("classify", "index"):
            command += ["--model", "nano"]
        if ".parquet" in " ".join(command) and not importlib.util.find_spec("pyarrow"):
            continue
        result = run(*command)
        assert result.code == 0, (command, result.err)
