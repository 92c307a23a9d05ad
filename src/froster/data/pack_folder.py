"""How a folder that `froster pack` has made is known: for `manifest`, which `pack` itself needs."""

from pathlib import Path

from froster.errors import DataError
from froster.utils.address import STORES, Address, as_path, is_address

PACK, PACKED = "pack.json", "manifest.csv"
"""In a folder of `froster pack`: its mark and its manifest."""


def unpacked(source: Path) -> Path:
    """The manifest of a folder that `froster pack` has made, also of one in an object store; any
    other source as it is. Raises DataError where the pack has not been finished."""
    if is_address(source):
        source = as_path(source)
        # Of what may be a file nothing is asked.
        if not isinstance(source, Address) or source.scheme not in STORES or source.suffix:
            return source
    if not (source / PACK).is_file():
        return source
    if not (source / PACKED).is_file():
        raise DataError(f"{source}: not packed to the end: run the same froster pack once more")
    return source / PACKED
