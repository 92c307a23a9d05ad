"""What a typed command printed, and what is asked of a complaint."""

from __future__ import annotations

import json


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
