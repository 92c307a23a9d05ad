"""A folder of whole files, here or at an address (s3://…, gs://…): what is written appears whole or
not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from froster.errors import UsageError, WriteError
from froster.utils.address import STORES, is_address
from froster.utils.files import atomic_file, writing
from froster.utils.remote import file_system

_OTHERS = ("builtins", "froster", "pyarrow")
"""Whose errors are about what is in a file; those of any other library are about its address."""


class Folder:
    """Names of files in it are relative, with `/` between them. Raises UsageError for an address
    that no installed library knows, WriteError where it cannot be reached, read or written."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/") + "/"
        self.local = None if is_address(address) else Path(address)
        if self.local is None:
            self._remote, self._root = _opened(self.address)

    def __truediv__(self, name: str) -> str:
        """What a file is called in a message."""
        return self.address + name

    def names(self, below: str = "") -> list[str]:
        """Of the files in the folder, or in the one `below` it ("parts/"), without hidden ones."""
        if self.local is not None:
            folder = self.local / below
            with writing(folder):
                files = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        else:
            with _reaching(self / below):
                self._remote.invalidate_cache()
                entries = []
                with suppress(FileNotFoundError):
                    entries = self._remote.ls(f"{self._root}/{below}".rstrip("/"), detail=True)
                files = [
                    entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file"
                ]
        return sorted(below + name for name in files if name and not name.startswith("."))

    def content(self, name: str) -> bytes | None:
        """What a file holds; None where there is none."""
        with self.open(name) as file:
            return None if file is None else file.read()

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO | None]:
        """None where there is no such file."""
        with writing(self.local / name) if self.local is not None else _reaching(self / name):
            try:
                if self.local is not None:
                    file = (self.local / name).open("rb")
                else:
                    file = self._remote.open(f"{self._root}/{name}", "rb")
            except FileNotFoundError:
                yield None
                return
            with file:
                yield file

    def write(self, name: str, data: bytes) -> None:
        if self.local is not None:
            with atomic_file(self.local / name) as part:
                part.write_bytes(data)
            return
        with _reaching(self / name):
            self._remote.pipe_file(f"{self._root}/{name}", data)

    def remove(self, name: str) -> None:
        """Also where it is gone already."""
        if self.local is not None:
            with writing(self.local / name):
                (self.local / name).unlink(missing_ok=True)
            return
        with _reaching(self / name), suppress(FileNotFoundError):
            self._remote.rm_file(f"{self._root}/{name}")


def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the folder's name in it."""
    scheme, _, place = address.partition("://")
    if scheme in ("http", "https"):
        raise UsageError(f"{address}: {scheme}:// can be read, not written")
    if scheme not in STORES:
        raise UsageError(f"{address}: {scheme}:// is no kind of address that is known")
    return file_system(scheme), place.rstrip("/")


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    """What a server or the way to it refuses is a WriteError of one sentence."""
    try:
        yield
    except PermissionError as error:
        raise WriteError(f"{address}: no right to read or write there ({_cause(error)})") from error
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, (OSError, NotImplementedError)) and library in _OTHERS:
            raise
        raise WriteError(f"{address} cannot be reached or written: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """Its first line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (text or type(error).__name__).strip().splitlines()[0][:200]


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is meant as a folder: it ends in `/`, is one already, or is an address."""
    text = str(path)
    return is_address(text) or text.endswith(("/", os.sep)) or os.path.isdir(text)
