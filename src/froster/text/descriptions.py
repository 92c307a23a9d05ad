"""A sentence about each class, which tells a text tower more than the class's name does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from froster.errors import UsageError
from froster.text.prompts import parse_json, read_labels, read_utf8


def describe(names: Sequence[str], descriptions: Mapping[str, str]) -> list[str]:
    """Class names -> labels, "Name: description" where there is a description and the plain name
    elsewhere.

    Names match whatever their case, spaces and underscores: folders call a class `brush_hair` or
    `BrushHair`. Raises UsageError when two descriptions are meant for the same name.
    """
    by_key = _unique((_key(name), text) for name, text in descriptions.items())
    return [
        f"{name}: {' '.join(by_key[_key(name)].splitlines())}" if _key(name) in by_key else name
        for name in names
    ]


DATA = Path(__file__).parent / "data"
SHIPPED = ("kinetics400", "kinetics600", "ucf101", "hmdb51", "ssv2")
"""Data sets whose classes have a sentence each in this package."""


def read_descriptions(path: str | Path) -> dict[str, str]:
    """Read {name: description} from a `.json` object, or from "Name: description" entries, one a
    line.

    The released label files, `{"0": "Name: description", …}`, are such entries too; a name in
    `SHIPPED` stands for the sentences that come with the package. Raises UsageError naming the
    file.
    """
    path = DATA / f"{path}.json" if str(path) in SHIPPED and not Path(path).exists() else Path(path)
    if path.suffix.lower() == ".json":
        table = parse_json(read_utf8(path), path)
        if isinstance(table, dict) and not all(key.isdecimal() for key in table):
            if not all(isinstance(text, str) for text in table.values()):
                raise UsageError(f"{path}: expected a JSON object of class names and sentences")
            return table
    entries = [entry.partition(":") for entry in read_labels(path)]
    for name, colon, text in entries:
        if not (name.strip() and colon and text.strip()):
            raise UsageError(f'{path}: expected "Name: description", found {name + colon + text!r}')
    try:
        return _unique((name.strip(), text.strip()) for name, _, text in entries)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _key(name: str) -> str:
    return "".join(name.casefold().replace("_", " ").split())


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    table: dict[str, str] = {}
    for name, text in pairs:
        if table.setdefault(name, text) != text:
            raise UsageError(f"there are two descriptions for {name!r}")
    return table
