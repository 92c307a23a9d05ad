"""Commands that work as they are pasted into a shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from froster.utils.printable import printable


def program() -> str:
    """This very froster as a shell finds it: by its name where that leads to it, else by its path,
    or as a module."""
    called = Path(sys.argv[0])
    if called.stem != "froster" or not called.is_file():
        return f"{quoted(sys.executable)} -m froster"
    found = shutil.which(called.name)
    if found and os.path.samefile(found, called):
        return called.name
    return quoted(os.path.abspath(called))


def command(*words: object) -> str:
    return " ".join([program(), *(quoted(str(word)) for word in words)])


def quoted(word: str) -> str:
    """A word as a shell takes it, which can be shown: what `printable` would write out stands as
    bash's `$'\\xe9'`."""
    if printable(word) == word:
        return shlex.quote(word)
    return (
        "$'"
        + "".join(
            f"\\{c}" if c in "\\'" else c if printable(c) == c else _bytes_of(c) for c in word
        )
        + "'"
    )


def _bytes_of(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
