"""Which files a model was read from: while these are the same, what was computed from all of its
weights need not be computed again, and weights that nothing asks for need not be read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import froster
from froster.errors import FrosterError, WriteError
from froster.inference.loading import NANO
from froster.inference.model_folder import resolve
from froster.utils.caches import cache_folder, cache_lock
from froster.utils.files import write_text

_KEPT = 4096
"""Fingerprints on the disk, of which each has some 40 bytes."""


def state_of_files(source: str | Path) -> str | None:
    """A digest of the names, sizes and times of the files of a model on this machine; None where
    the cache is switched off, or there is no such model, which who loads it will say.

    Among the times that of the last change, which no copy and no archive sets: a file that another
    one was copied over, with its time, may differ in nothing else.
    """
    if cache_folder() is None:
        return None
    try:
        path = NANO if str(source) == "nano" else resolve(source)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        states = [(str(file), file.stat()) for file in files]
    except (OSError, FrosterError):
        return None
    facts = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in states]
    text = repr((os.path.realpath(path), facts))
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def remembered(state: str | None, what: str, compute: Callable[[], str]) -> str:
    """The fingerprint `what` of the files in this `state`, from the user's cache where it is kept.
    Without a state it is computed."""
    folder = cache_folder()
    if state is None or folder is None:
        return compute()
    made_of = f"{froster.__version__} {state} {what}"
    key = hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()
    file = folder / "fingerprints" / key
    with suppress(OSError, UnicodeDecodeError):
        if _is_digest(text := file.read_text(encoding="ascii")):
            return text
    fingerprint = compute()
    with suppress(OSError, WriteError), cache_lock(file.parent):
        if len(os.listdir(file.parent)) > _KEPT:
            for old in file.parent.iterdir():
                old.unlink(missing_ok=True)
        write_text(file, fingerprint)
    return fingerprint


def _is_digest(text: str) -> bool:
    return len(text) == 32 and set(text) <= set("0123456789abcdef")
