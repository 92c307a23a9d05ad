"""How a folder that `froster pack` has made is known: for `manifest`, which `pack` itself needs."""

from pathlib import Path

from froster.data.label_tools import READ
from froster.data.rows import MANIFESTS
from froster.errors import DataError
from froster.utils.address import STORES, Address, as_path, is_address
from froster.video.container import VIDEO_SUFFIXES

PACK, PACKED = "pack.json", "manifest.csv"
"""In a folder of `froster pack`: its mark and its manifest."""


def unpacked(source: Path) -> Path:
    """The manifest of a folder that `froster pack` has made, also of one in an object store; any
    other source as it is. Raises DataError where the pack has not been finished."""
    if is_address(source):
        source = as_path(source)
        # Of what is named as a file nothing is asked.
        is_file = source.suffix.lower() in (*MANIFESTS, *READ, *VIDEO_SUFFIXES)
        if not isinstance(source, Address) or source.scheme not in STORES or is_file:
            return source
    if not (source / PACK).is_file():
        return source
    if not (source / PACKED).is_file():
        raise DataError(f"{source}: not packed to the end: run the same froster pack once more")
    return source / PACKED
