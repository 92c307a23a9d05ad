"""What a typed command printed, and what is asked of a complaint."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from cyclopts.argument import Argument

from froster.cli import app


class Result:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict:
        return json.loads(self.out)


def one_line(result: Result, code: int, *words: str) -> None:
    """Exactly one line of complaint, which says these words, and this exit code."""
    lines = [line for line in result.err.splitlines() if line.startswith("froster:")]
    assert result.code == code, result.err
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]


@cache
def arguments(command: str) -> list[Argument]:
    """What a command takes, each with all its names."""
    with app.app_stack([command]):
        collection = app[command].assemble_argument_collection()
    return [argument for argument in collection if argument.name != "*"]


@cache
def options(command: str) -> set[str]:
    """Every option of a command as it is typed."""
    return {"--config", *(name for argument in arguments(command) for name in argument.names)}


def parsed(*words: str) -> dict[str, Any]:
    """The parameters of a command that is typed and not run. Raises CycloptsError."""
    _, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    bound.apply_defaults()
    return bound.arguments
