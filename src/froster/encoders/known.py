"""Other projects' configs, read strictly: what one says and we do not know is an error that names
it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from froster.errors import CheckpointError
from froster.utils import strict_json as json


def strangers(
    values: Mapping[str, Any], where: str, neutral: Mapping[str, Any], known: Collection[str]
) -> list[str]:
    """The entries of a config that we cannot honour, each as "where.key is value".

    `neutral`: what a key must say, as our network computes nothing else. `known`: keys that are
    read elsewhere, or that do not change what the network computes. A key that says null says
    nothing.
    """
    found = []
    for key, value in values.items():
        if value is None or key in known or (key in neutral and value == neutral[key]):
            continue
        wanted = f" (froster's has {neutral[key]!r})" if key in neutral else ""
        found.append(f"{where}{key} is {value!r:.60}{wanted}")
    return found


def refuse(found: list[str], what: str) -> None:
    """Raises CheckpointError where there are strangers: "what: the first of them"."""
    if found:
        more = f", and {len(found) - 4} more" if len(found) > 4 else ""
        raise CheckpointError(f"{what}: {', '.join(found[:4])}{more}")


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON file that holds an object. Raises CheckpointError naming the file and `what` it should
    be."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable {what} ({error!r:.200})") from None
    return as_object(values, f"{path}: not a readable {what}")


def as_object(values: Any, complaint: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise CheckpointError(f"{complaint} (expected an object, found {type(values).__name__})")
    return values
