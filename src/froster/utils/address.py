"""Files at addresses (s3://…, https://…): which are read, how they are named, and what keeps every
other one from being taken for a local path, "s3:/…"."""

from __future__ import annotations

import os
import re
import sys
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from froster.errors import UsageError

STORES = ("s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss")
"""Schemes that fsspec reads. Not every scheme that it knows: some lead to files of this machine, or
through one address to another."""
SCHEMES = ("http", "https", *STORES)
# A scheme has two letters at least: C:\\videos is a path.
_ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
# What `Path` has left of one. A folder may be called "notes:", so only these are taken for
# addresses.
_MANGLED = re.compile(
    r"(s3[an]?|gc?s|hf|https?|s?ftps?|file|rt[sm]ps?|az|abfss?|wasbs?|hdfs|ssh):/", re.IGNORECASE
)

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())


class Address(_Path):
    """A file or folder at an address: a Path with those methods of one that only name and read.

    Reading raises OSError with the cause in `strerror`. Whatever would use it as a file of this
    machine raises UsageError.
    """

    text: str

    def __new__(cls, text: str) -> Address:
        self: Address = super().__new__(cls, text)
        self.text = text
        return self

    def __init__(self, text: str) -> None:
        if sys.version_info >= (3, 12):  # there `Path` is made here
            super().__init__(text)

    def __reduce__(self) -> Any:
        return Address, (self.text,)

    def __fspath__(self) -> str:
        raise UsageError(refusal(self.text))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Address({self.text!r})"

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and other.text == self.text

    def __lt__(self, other: Any) -> bool:
        return str(self) < str(other)

    @property
    def scheme(self) -> str:
        return self.text.partition("://")[0]

    @property
    def _place(self) -> str:
        """Without what follows a `?`: a signature, in an address of the web."""
        return self.text.partition("?")[0] if self.scheme in ("http", "https") else self.text

    @property
    def name(self) -> str:
        return unquoted(self, self._place.partition("://")[2].rstrip("/").rpartition("/")[2])

    @property
    def suffix(self) -> str:
        stem, dot, ending = self.name.rpartition(".")
        return f".{ending}" if dot and stem.strip(".") and ending else ""

    @property
    def stem(self) -> str:
        return self.name.removesuffix(self.suffix)

    @property
    def parent(self) -> Address:
        scheme, _, place = self._place.partition("://")
        host, slash, rest = place.rstrip("/").partition("/")
        return Address(f"{scheme}://{host}{slash}{rest.rpartition('/')[0]}" if rest else self.text)

    def __truediv__(self, name: str | PathLike[str]) -> Path:  # type: ignore[override]
        name = str(name)
        if is_address(name) or os.path.isabs(name):
            return as_path(name)
        scheme, _, place = self._place.partition("://")
        parts = place.rstrip("/").split("/")
        if scheme in ("http", "https"):  # a file may be called so, and an address goes on there
            name = name.replace("?", "%3F").replace("#", "%23")
        for part in name.split("/"):
            if part == "..":
                parts = parts[:-1] or parts
            elif part not in ("", "."):
                parts.append(part)
        return Address(f"{scheme}://{'/'.join(parts)}")

    def joinpath(self, *names: str | PathLike[str]) -> Path:  # type: ignore[override]
        path: Path = self
        for name in names:
            path = path / name
        return path

    def with_name(self, name: str) -> Address:
        return Address(f"{self.parent.text.rstrip('/')}/{name}")

    def absolute(self) -> Address:
        return self

    def as_posix(self) -> str:
        return self.text

    def is_relative_to(self, *other: Any) -> bool:
        return False

    def is_dir(self) -> bool:
        """Whether there are files below it. Of the web nobody can say, so that it is a file."""
        from froster.utils.remote import is_folder

        return is_folder(self)

    def is_file(self) -> bool:
        from froster.utils.remote import state_of

        try:
            state_of(self)
        except OSError:
            return False
        return True

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def read_bytes(self) -> bytes:
        from froster.utils.remote import read_whole

        return read_whole(self)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def files(self) -> list[Address]:
        """All below it but hidden ones, in the order of their names. Raises OSError."""
        from froster.utils.remote import files_below

        return [Address(text) for text in files_below(self)]

    def with_suffix(self, suffix: str) -> Address:
        return self.with_name(f"{self.stem}{suffix}")


def unquoted(address: Address, name: str) -> str:
    """The name as people read it: of an address of the web without %20."""
    return unquote(name) if address.scheme in ("http", "https") else name


def is_address(path: str | PathLike[str]) -> bool:
    if isinstance(path, Address):
        return True
    if isinstance(path, str):
        return _ADDRESS.match(path) is not None
    name = os.fspath(path)
    return _MANGLED.match(name) is not None and not os.path.exists(name)


def as_path(path: str | PathLike[str]) -> Path:
    """A local path, or the `Address` that a text is; also of what `Path` has left of one. file://
    is a local path. Raises UsageError for an address that froster does not read, and for an empty
    text, which would be the current folder."""
    if path == "":
        raise UsageError("an empty text names no file or folder")
    if isinstance(path, Address) or not is_address(path):
        return path if isinstance(path, Path) else Path(path)
    name = os.fspath(path).strip()
    scheme, _, place = name.partition(":")
    scheme, place = scheme.lower(), place.removeprefix("/").removeprefix("/")
    if scheme == "file":
        return _local(place, name)
    if scheme not in SCHEMES:
        raise UsageError(refusal(name))
    if not place.partition("/")[0]:
        raise UsageError(f"{name}: an address needs a {'host' if scheme[0] == 'h' else 'bucket'}")
    return Address(f"{scheme}://{place}")


def _local(place: str, name: str) -> Path:
    """file:///home/x or file://localhost/home/x, which the web writes with %20; of what `Path` has
    left of it home/x."""
    host, slash, rest = place.partition("/")
    if host not in ("", "localhost"):
        rest, slash = (place, "/") if "://" not in name else ("", "")
    if not slash:
        raise UsageError(f"{name} is no file of this machine: give its path, without file://")
    path = Path(f"/{rest}")
    return path if os.path.lexists(path) else Path(unquote(str(path)))


def located(base: str | PathLike[str], name: str) -> Path:
    """`name` from the folder `base`, unless it is an address or a whole path itself."""
    return as_path(name) if is_address(name) else as_path(base) / name


def whole_name(path: str | PathLike[str]) -> str:
    """By which the file is named from any folder."""
    return str(as_path(path)) if is_address(path) else os.path.abspath(path)


def refusal(address: str | PathLike[str]) -> str:
    """What is said of it where a file of this machine is meant, with what to do."""
    name = str(address)
    scheme = name.strip().partition(":")[0].lower()
    if scheme == "file":
        what = "give the path alone, without file://"
    elif scheme == "hf":
        what = "a model of the hub is named by its id, USER/NAME"
    elif scheme in ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "tcp", "udp"):
        what = "download it and give its path (froster watch reads streams)"
    else:
        what = "copy to or from it yourself, and give a path"
    return f"{name} is an address; froster reads and writes local files here: {what}"


def refuse_address(*paths: str | PathLike[str] | None) -> None:
    """Raises UsageError where one of them is an address."""
    for path in paths:
        if path is not None and is_address(path):
            raise UsageError(refusal(path))
