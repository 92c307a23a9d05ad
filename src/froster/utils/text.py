"""Text for people: names of which nothing is obeyed, in any encoding, and commands that work as
they are pasted."""

from __future__ import annotations

import codecs
import os
import shlex
import shutil
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

_JOINERS = "\u200c\u200d"
"""Emoji and some scripts are not the same without them."""
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Control and format characters (with those that turn the direction of what follows), halves of
characters, line ends."""
_SIGNS = {"█": "#", "…": "...", "→": "->", "±": "+-", "×": "x", "·": "."}
_SIGNS |= dict.fromkeys("━–—−", "-")
"""What stands for our own signs where they have no code."""


def printable(text: str) -> str:
    """The text with everything written out that a terminal would obey or hide: `\\x1b`, `\\n`,
    `\\u202e`.

    A byte of a file name that is no UTF-8 is written out too, `\\xe9`. For eyes only: nothing reads
    it back.
    """
    if text.isprintable():
        return text
    return "".join(
        _written_out(c) if unicodedata.category(c) in _HIDDEN and c not in _JOINERS else c
        for c in text
    )


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; names of files need not be."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _written_out(character: str) -> str:
    byte = ord(character) - 0xDC00  # how Python holds a byte that it cannot decode
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(character)[1:-1]


def short_names(paths: Sequence[PurePath | str]) -> list[str]:
    """The file name of each path, with as many of its folders as tell it from other paths of that
    name."""
    parts = [PurePath(path).parts for path in paths]
    lengths = [1] * len(parts)
    while True:
        names = [
            str(PurePath(*part[-length:])) for part, length in zip(parts, lengths, strict=True)
        ]
        shared = Counter(name for name, _ in set(zip(names, parts, strict=True)))
        longer = [
            length + (shared[name] > 1 and length < len(part))
            for name, part, length in zip(names, parts, lengths, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def use_any_encoding() -> None:
    """Signs for which standard output or error has no code are replaced, where they would have
    raised an error."""
    codecs.register_error("froster", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what is no text file takes any sign
            stream.reconfigure(errors="froster")


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SIGNS.get(c, "?") for c in error.object[error.start : error.end]), error.end


def program() -> str:
    """This very froster as a shell finds it: by its name where that leads to it, else by its path,
    or as a module."""
    called = Path(sys.argv[0])
    if called.stem != "froster" or not called.is_file():
        return f"{quoted(sys.executable)} -m froster"
    on_path = shutil.which(called.name)
    if on_path and os.path.samefile(on_path, called):
        return called.name
    return quoted(os.path.abspath(called))


def shell_command(*words: object) -> str:
    return " ".join([program(), *(quoted(str(word)) for word in words)])


def quoted(word: str) -> str:
    """A word as a shell takes it, which can be shown: what `printable` would write out stands as
    bash's `$'\\xe9'`."""
    if printable(word) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_ansi_quoted, word))}'"


def _ansi_quoted(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if printable(character) == character:
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
