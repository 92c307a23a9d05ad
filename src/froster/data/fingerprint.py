"""Which videos these are: a fingerprint of a file's content, and one of a list of labelled videos.

A path does not identify a video: the same file is reached through links, from another folder or
manifest, and after a move.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from froster.data.items import Item, any_segment, labels_of, names_of
from froster.errors import VideoError
from froster.utils.address import Address
from froster.utils.ranges import RemoteData
from froster.video.tar_shards import is_file, member, open_bytes

ENDS = 2**16
"""Bytes that are read at either end of a file."""
DIGITS = 12
AT_ONCE = 8
_PART = 4096


def file_fingerprint(path: Path) -> str | None:
    """Of a file's length, its first and its last bytes; None for an empty or unreadable file."""
    try:
        if isinstance(path, Address) and member(path) is None:
            return _of_address(path)
        if not is_file(path):  # opening a pipe would wait for its other end
            return None
        with open_bytes(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.sha256(f"{size}\n".encode())
            digest.update(file.read(ENDS))
            file.seek(max(ENDS, size - ENDS))
            digest.update(file.read(ENDS))
    except (OSError, VideoError):
        return None
    return digest.hexdigest()[:DIGITS] if size else None


def _of_address(path: Address) -> str | None:
    """The same, of two parts of the file."""
    try:
        with RemoteData(path) as file:
            size = file.size
            digest = hashlib.sha256(f"{size}\n".encode())
            digest.update(file.between(0, ENDS))
            digest.update(file.between(max(ENDS, size - ENDS), size))
    except OSError:
        return None
    return digest.hexdigest()[:DIGITS] if size else None


def file_fingerprints(
    items: Sequence[Item], on_videos: Callable[[int], None] = lambda n: None
) -> list[str | None]:
    """The fingerprint of each video's file, read by several threads, as they wait for the disk."""
    fingerprints = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for begin in range(0, len(items), _PART):
            paths = [item.path for item in items[begin : begin + _PART]]
            for fingerprint in pool.map(file_fingerprint, paths):
                fingerprints.append(fingerprint)
                on_videos(1)
    return fingerprints


def list_fingerprint(items: Sequence[Item]) -> str:
    """Of the names and labels of videos, in their order, wherever the files lie."""
    labels = labels_of(items)
    spans = (item.span for item in items) if any_segment(items) else repeat(None)
    digest, begin = hashlib.sha256(), ""
    for name, code, span in zip(names_of(items), labels.codes.tolist(), spans, strict=False):
        row = f"{begin}{name}\t{labels.values[code]}"
        digest.update(os.fsencode(f"{row}\t{span}" if span else row))
        begin = "\n"
    return digest.hexdigest()[:16]
