"""Optional sentences that describe a class: "Archery" becomes "Archery: A person shoots arrows at a target"."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from froster.errors import UsageError
from froster.text.prompts import read_text


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def describe(names: Sequence[str], descriptions: Mapping[str, str]) -> list[str]:
    """Labels "Name: description" where there is a description, the plain name elsewhere. Case and blanks do not matter."""
    by_key = {_key(name): sentence for name, sentence in descriptions.items()}
    return [f"{name}: {by_key[_key(name)]}" if by_key.get(_key(name)) else name for name in names]


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Name -> description, from JSON `{name: sentence}` or lines "Name: sentence". Raises UsageError."""
    path = Path(path)
    text = read_text(path)
    if text.lstrip().startswith("{"):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{path}: not JSON ({error})") from None
        if not all(isinstance(value, str) for value in values.values()):
            raise UsageError(f"{path}: expected {{name: sentence}}")
        return values
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, sentence = line.partition(":")
        if line.strip() and not (colon and name.strip() and sentence.strip()):
            raise UsageError(f"{path}, line {number}: expected 'Name: description', found {line[:60]!r}")
        if line.strip():
            found[name.strip()] = sentence.strip()
    return found
