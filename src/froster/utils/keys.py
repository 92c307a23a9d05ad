"""Names as 16 bytes each: which of a million are known, in 130 MB whatever their length."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from froster.utils.files import NAME_ERRORS

_BYTES = 16
"""Two of 10^9 names have the same digest with a chance of one in 10^20."""


class Keys:
    """A set of names of files, in which one can ask and which grows."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._digests: set[bytes] = set()
        for name in names:
            self.add(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _digest(_raw(name)) in self._digests

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, name: str) -> bool:
        """Whether it is new."""
        return self.add_raw(_raw(name))

    def add_raw(self, name: bytes) -> bool:
        """The same for the bytes of a name, as a file of rows holds them."""
        before = len(self._digests)
        self._digests.add(_digest(name))
        return len(self._digests) > before


def _raw(name: str) -> bytes:
    return name.encode("utf-8", NAME_ERRORS)


def _digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=_BYTES).digest()
