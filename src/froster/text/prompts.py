"""The 28 templates of FROSTER, the prompts they make of class labels, and the labels that people give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from froster.errors import UsageError

_NOUNS = ("photo", "video", "example", "demonstration")
_TAILS = ("", "a person ", *(f"a person {verb} " for verb in ("using", "doing", "during", "performing", "practicing")))

# The article is "a" throughout, as released: "a example of …".
KINETICS_28: tuple[str, ...] = tuple(f"a {noun} of {tail}{{}}." for noun in _NOUNS for tail in _TAILS)


def class_name(label: str) -> str:
    """The name in "Name: description": everything before the first colon."""
    return label.split(":", 1)[0]


def prompts(labels: Sequence[str], templates: Sequence[str] = KINETICS_28) -> list[list[str]]:
    """Every prompt of every label, one list a template, and last the bare labels.

    As released, a template is filled with the name and followed by the whole label: "a photo of Archery. Archery: A
    person …"; a plain name therefore stands there twice.
    """
    filled = [[template.replace("{}", class_name(label)) + " " + label for label in labels] for template in templates]
    return [*filled, list(labels)]


def check_labels(labels: Sequence[str]) -> None:
    """Raises UsageError on an empty list, an empty label or two labels that differ in case and blanks only."""
    if not labels:
        raise UsageError('the list of labels is empty; give some, for example --labels "archery, surfing"')
    seen: dict[str, str] = {}
    for position, label in enumerate(labels, 1):
        key = " ".join(label.split()).casefold()
        if not key:
            raise UsageError(f"label {position} of {len(labels)} is empty")
        if key in seen:
            raise UsageError(f"label {label!r} is there twice (as {seen[key]!r}); every label must be different")
        seen[key] = label


def split_labels(text: str) -> list[str]:
    """ "a, b, c" -> ["a", "b", "c"]. An empty place between two commas stays, so that it is found by `check_labels`."""
    return [label.strip() for label in text.split(",")] if text.strip() else []


def read_labels(path: str | Path) -> list[str]:
    """Labels from a text file (one a line, blank lines ignored), a JSON list, or JSON `{"0": "Name: description"}`.

    Raises UsageError when the file cannot be read, is not UTF-8, or holds something else.
    """
    path = Path(path)
    text = read_text(path)
    if text.lstrip()[:1] not in ("[", "{"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: looks like JSON but is not ({error})") from None
    if isinstance(values, dict):
        keys = sorted(values, key=lambda key: (0, int(key), "") if key.isdecimal() else (1, 0, key))
        values = [values[key] for key in keys]
    if not all(isinstance(value, str) for value in values):
        raise UsageError(f'{path}: expected a list of labels or {{"0": "Name: description", …}}')
    return [value.strip() for value in values]


def read_text(path: Path) -> str:
    """A UTF-8 file, with or without a byte order mark. Raises UsageError naming the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(
            f"{path}, line {line}: not UTF-8 text (latin-1?); convert it: iconv -f latin1 -t utf-8 {path.name} > new.txt"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
