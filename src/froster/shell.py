"""Commands that work as they are pasted into a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

SEPARATORS = frozenset(",;\n\r")
"""A label with one of these cannot be given between commas."""


def program() -> str:
    """This very froster as a shell finds it: by its name where that leads to it, else by its path, or as a module."""
    called = Path(sys.argv[0])
    if called.stem != "froster" or not called.is_file():
        return f"{shlex.quote(sys.executable)} -m froster"
    found = shutil.which(called.name)
    if found and os.path.samefile(found, called):
        return called.name
    return shlex.quote(os.path.abspath(called))


def command(*words: object) -> str:
    return " ".join([program(), *(shlex.quote(str(word)) for word in words)])


def labels_with(label: str, others: list[str], count: int = 3) -> str | None:
    """That label and some of the others as `--labels` takes them, in no telling order. None where it has a separator."""
    if SEPARATORS & set(label):
        return None
    rest = [name for name in others if name != label and not SEPARATORS & set(name)]
    return ", ".join(sorted([label, *rest[: count - 1]]))
