"""Which videos these are: a fingerprint of a file's content, and one of a list of labelled videos.

A path does not identify a video: the same file is reached through links, from another folder or
manifest, and after a move.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from froster.data.manifest import Item
from froster.utils.address import Address
from froster.utils.ranges import RemoteData

ENDS = 2**16
"""Bytes that are read at either end of a file."""
DIGITS = 12
AT_ONCE = 8


def file_fingerprint(path: Path) -> str | None:
    """Of a file's length, its first and its last bytes; None for an empty or unreadable file."""
    if isinstance(path, Address):
        return _of_address(path)
    if not os.path.isfile(path):  # opening a pipe would wait for its other end
        return None
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(f"{size}\n".encode())
            digest.update(file.read(ENDS))
            file.seek(max(ENDS, size - ENDS))
            digest.update(file.read(ENDS))
    except OSError:
        return None
    return digest.hexdigest()[:DIGITS] if size else None


def _of_address(path: Address) -> str | None:
    """The same, of two parts of the file."""
    try:
        with RemoteData(path) as file:
            size = file.size
            digest = hashlib.sha256(f"{size}\n".encode())
            digest.update(file.read(0, ENDS))
            digest.update(file.read(max(ENDS, size - ENDS), size))
    except OSError:
        return None
    return digest.hexdigest()[:DIGITS] if size else None


def file_fingerprints(
    items: Sequence[Item], on_videos: Callable[[int], None] = lambda n: None
) -> list[str | None]:
    """The fingerprint of each video's file, read by several threads, as they wait for the disk."""
    fingerprints = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for fingerprint in pool.map(file_fingerprint, [item.path for item in items]):
            fingerprints.append(fingerprint)
            on_videos(1)
    return fingerprints


def list_fingerprint(items: Sequence[Item]) -> str:
    """Of the names and labels of videos, in their order, wherever the files lie."""
    rows = [f"{item.path.name}\t{item.label}" for item in items]
    rows = [f"{row}\t{i.span}" if i.span else row for row, i in zip(rows, items, strict=True)]
    text = "\n".join(rows)
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
