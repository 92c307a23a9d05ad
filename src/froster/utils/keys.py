"""Which of a million names are known, in some 200 MB at most, however long they are."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from froster.utils.files import NAME_ERRORS

_LONGEST = 64
"""Bytes of a name that is kept as it is; of a longer one a digest of 32 bytes is."""


class Keys:
    """A set of names of files, in which one can ask and which grows."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._kept: set[bytes] = set()
        for name in names:
            self.add(name)

    def __contains__(self, name: Any) -> bool:
        raw: bytes = name.encode("utf-8", NAME_ERRORS)
        return (raw if len(raw) <= _LONGEST else _digest(raw)) in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, name: str) -> bool:
        """Whether it is new."""
        return self.add_raw(name.encode("utf-8", NAME_ERRORS))

    def add_raw(self, raw: bytes) -> bool:
        """The same for the bytes of a name, as a file of rows holds them."""
        before = len(self._kept)
        self._kept.add(raw if len(raw) <= _LONGEST else _digest(raw))
        return len(self._kept) > before


def _digest(raw: bytes) -> bytes:
    return blake2b(raw, digest_size=32).digest()
