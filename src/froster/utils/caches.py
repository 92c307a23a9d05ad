"""Where files lie that may be thrown away at any time, as they are made again: the user's cache.

`FROSTER_CACHE` names another folder; `off` keeps nothing at all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

VARIABLE = "FROSTER_CACHE"
_PATIENCE = 10.0
"""Seconds to wait for another process: it writes one small file."""


def cache_folder() -> Path | None:
    """The folder of this user's cache, which need not exist; None where it is switched off, or the
    user has no home."""
    stated = os.environ.get(VARIABLE, "")
    if stated.strip().lower() == "off":
        return None
    if stated:
        return Path(os.path.abspath(os.path.expanduser(stated)))
    base = _system_cache()
    return base / "froster" if base is not None and base.is_absolute() else None


def _system_cache() -> Path | None:
    """Where this system keeps caches."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else None
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    stated = os.environ.get("XDG_CACHE_HOME")
    return Path(stated) if stated else home / ".cache"


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """One process at a time; the folder is made. Raises OSError where that cannot be had, as on a
    disk that is full or read-only, or where another process keeps it for long."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=_PATIENCE, fallback_to_soft=False):
            yield
    except Timeout as error:
        raise OSError(f"{folder} is locked") from error
