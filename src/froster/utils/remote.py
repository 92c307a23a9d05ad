"""Bytes at addresses: http and https by the standard library, object stores by fsspec.

A server may be slow, silent, cut off, or untruthful. Every request has a limit of time and is tried
again a few times; what is wrong in the end is one OSError whose `strerror` says it in words.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from http.client import HTTPException
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from froster.errors import UsageError, install
from froster.utils.interrupt import check

Result = TypeVar("Result")

SILENCE = 30.0
"""Seconds after which a server that says nothing is given up."""
SLOWEST = 8192
"""Bytes a second, below which one that says little is."""
PAUSES = (0.5, 2.0, 5.0)
"""Seconds before a request is made again: a server that comes back within them costs nothing."""
MOST_TEXT = 1 << 30
"""Bytes of a manifest, a list or a file of labels."""
MOST_BYTES = 1 << 35
"""Bytes of a file that is copied whole (32 GB)."""
_CHUNK = 1 << 18
_KEPT = "%/:=&?~#+!$,;'@()*[]"
"""What stands in an address as it is."""
_SETTINGS = ("AWS_", "AZURE_", "FSSPEC_", "GCSFS_", "GOOGLE_", "HF_")
"""How the settings of object stores begin."""
_FOR_A_WHILE = {408, 425, 429, 500, 502, 503, 504}
"""What a server says that may say otherwise later."""


class Named(Protocol):
    """What an `Address` says of itself."""

    text: str

    @property
    def scheme(self) -> str: ...


class RemoteState(NamedTuple):
    """By which a file is known again."""

    size: int | None
    """None where the server does not say."""
    version: str
    """Its ETag, or else when it was changed; empty where the server does not say."""
    ranges: bool
    """Whether a part of it can be had."""


class RemoteSource(Protocol):
    """A file at an address. What it raises is OSError."""

    requests: int
    received: int
    "bytes"

    def state(self) -> RemoteState: ...

    def part(self, start: int, end: int) -> tuple[bytes, RemoteState]:
        """The bytes from `start` until before `end`; fewer at the end of the file, none where parts
        cannot be had."""
        ...

    def copy(self, file: BinaryIO, most: int) -> None:
        """All of it, into a file that is empty."""
        ...


def source_of(address: Named) -> RemoteSource:
    return WebSource(address.text) if address.scheme in ("http", "https") else StoreSource(address)


def failed(words: str, code: int = errno.EIO) -> OSError:
    return OSError(code, words)


class _Again(Exception):
    """May go better the next time."""


def again(attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns, tried anew after a pause where it raises `_Again`. Raises OSError."""
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except _Again as error:
            if pause is None:
                tries = len(PAUSES) + 1
                raise failed(f"{error}, {tries} times") from error
            check()
            time.sleep(pause)
    raise AssertionError


class WebSource:
    """http and https. Redirects are followed within these two."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests = self.received = 0

    def state(self) -> RemoteState:
        def ask() -> RemoteState:
            with self._asked("bytes=0-0") as answer:
                return _stated(answer)

        return again(ask)

    def part(self, start: int, end: int) -> tuple[bytes, RemoteState]:
        def ask() -> tuple[bytes, RemoteState]:
            with self._asked(f"bytes={start}-{end - 1}") as answer:
                state = _stated(answer)
                if not state.ranges:
                    return b"", state
                if state.size is not None and start >= state.size:
                    return b"", state
                if _first_byte(answer) != start:
                    raise failed("the server sends another part than the one that it was asked for")
                wanted = (end if state.size is None else min(end, state.size)) - start
                data = b"".join(self._chunks(answer, wanted))
                if len(data) < wanted:
                    raise _Again(f"the server cut off after {start + len(data)} bytes")
                return data[:wanted], state

        return again(ask)

    def copy(self, file: BinaryIO, most: int) -> None:
        version = ""

        def ask() -> None:
            nonlocal version
            done = file.tell()
            with self._asked(f"bytes={done}-" if done else None) as answer:
                state = _stated(answer)
                goes_on = done and state.version == version and _first_byte(answer) == done
                if done and not goes_on:
                    file.seek(0)
                    file.truncate()
                if done and state.ranges and not goes_on:
                    raise _Again("the file changed while it was read")
                version, stated = state.version, state.size
                if stated is not None and stated > most:
                    raise failed(f"{stated} bytes are too many: at most {most} are copied")
                for chunk in self._chunks(answer, most + 1 - file.tell()):
                    file.write(chunk)
            if file.tell() > most:
                raise failed(f"too many bytes: at most {most} are copied")
            if stated is not None and file.tell() < stated:
                raise _Again(f"ended after {file.tell()} of {stated} bytes")

        again(ask)
        file.seek(0)

    @contextmanager
    def _asked(self, part: str | None) -> Iterator[Any]:
        """The answer to one request; what goes wrong with it, also within the block, is OSError, or
        `_Again`."""
        headers = {"User-Agent": "froster", "Accept-Encoding": "identity"}
        if part is not None:
            headers["Range"] = part
        self.requests += 1
        try:
            request = urllib.request.Request(quote(self.address, _KEPT), headers=headers)
            with _opener().open(request, timeout=SILENCE) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and part is not None:  # it has no such part, or none at all
                    yield error
                    return
            _refused(error)
        except TimeoutError as error:
            raise _Again(f"the server said nothing for {SILENCE:g} seconds") from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise _Again(f"the server said nothing for {SILENCE:g} seconds") from error
            cause = getattr(error.reason, "strerror", None) or error.reason
            if isinstance(error.reason, socket.gaierror):
                raise failed(f"no connection: {cause}") from error
            raise _Again(f"no connection: {cause}") from error
        except (HTTPException, ConnectionError, ValueError) as error:
            raise _Again(f"the connection broke: {error or type(error).__name__}") from error

    def _chunks(self, answer: Any, most: int) -> Iterator[bytes]:
        """At most `most` bytes, as they come."""
        begun, count = time.monotonic(), 0
        while count < most and (chunk := answer.read1(min(_CHUNK, most - count))):
            check()
            count += len(chunk)
            self.received += len(chunk)
            if (time.monotonic() - begun - SILENCE) * SLOWEST > count:
                raise _Again(f"the server sends less than {SLOWEST} bytes a second")
            yield chunk


def _refused(error: urllib.error.HTTPError) -> None:
    if 300 <= error.code < 400:
        raise failed("the server redirects without an end, or to where froster does not follow")
    words = f"the server says {error.code} {error.reason}".strip()
    if error.code in _FOR_A_WHILE:
        raise _Again(words)
    kinds = {404: errno.ENOENT, 410: errno.ENOENT, 401: errno.EACCES, 403: errno.EACCES}
    raise failed(words, kinds.get(error.code, errno.EIO))


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Without the handlers that would follow a redirect to ftp:// or file://."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _stated(answer: Any) -> RemoteState:
    """What the headers say."""
    headers = answer.headers
    total = re.search(r"/(\d+)\s*$", headers.get("Content-Range", ""))
    length = headers.get("Content-Length", "")
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    if answer.status in (206, 416):
        return RemoteState(int(total[1]) if total else None, version, True)
    return RemoteState(int(length) if length.isdecimal() else None, version, False)


def _first_byte(answer: Any) -> int | None:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


class StoreSource:
    """What fsspec reads."""

    def __init__(self, address: Named) -> None:
        self.address = address
        self.files = file_system(address.scheme)
        self.place = _place(address)
        self.requests = self.received = 0

    def state(self) -> RemoteState:
        self.requests += 1
        about = _answer_of(self.files.info, self.place)
        if about.get("type") == "directory":
            raise failed("a directory, not a file", errno.EISDIR)
        return RemoteState(about.get("size"), _version(about), True)

    def part(self, start: int, end: int) -> tuple[bytes, RemoteState]:
        self.requests += 1
        data = _answer_of(self.files.cat_file, self.place, start=start, end=end)
        self.received += len(data)
        return data, RemoteState(None, "", True)

    def copy(self, file: BinaryIO, most: int) -> None:
        size = self.state().size or 0
        if size > most:
            raise failed(f"{size} bytes are too many: at most {most} are copied")
        for start in range(0, size, step := 1 << 23):
            check()
            data, _ = self.part(start, min(start + step, size))
            file.write(data)
        if file.tell() != size:
            raise failed(f"ended after {file.tell()} of {size} bytes")
        file.seek(0)


def _place(address: Named) -> str:
    """As fsspec's file system names it."""
    return address.text.partition("://")[2]


def file_system(scheme: str) -> Any:
    """fsspec's, which takes its settings from the environment and from its own files: another one
    where the environment names another server or other rights. Raises UsageError."""
    settings = {name: os.environ[name] for name in os.environ if name.startswith(_SETTINGS)}
    return _file_system(scheme, tuple(sorted(settings.items())))


@lru_cache(maxsize=8)
def _file_system(scheme: str, settings: tuple[tuple[str, str], ...]) -> Any:
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True}
    if scheme != "hf":  # whose listings are of a commit
        options["use_listings_cache"] = False
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        other = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
        library = other.get(scheme, "s3fs")
        how = f"pip install {library}" if scheme in other else install("remote")
        raise UsageError(f"{scheme}:// needs {library}: {how}") from error
    except Exception as error:  # of any library below fsspec
        raise UsageError(f"{scheme}:// cannot be used: {_words(error)}") from error


def _version(about: dict[str, Any]) -> str:
    names = ("ETag", "etag", "md5Hash", "generation", "blob_id", "oid", "LastModified")
    stated = (about.get(name) for name in (*names, "last_modified", "updated", "mtime"))
    return next((str(value) for value in stated if value), "")


def _answer_of(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What fsspec answers; what it raises is OSError in words. It tries again itself."""
    from fsspec.asyn import AsyncFileSystem

    timed = isinstance(getattr(call, "__self__", None), AsyncFileSystem)
    if timed:
        named["timeout"] = 2 * SILENCE
    check()
    try:
        return call(*arguments, **named)
    except FileNotFoundError as error:
        bucket = "bucket" in str(error).lower()
        raise failed("no such bucket" if bucket else "no such file", errno.ENOENT) from error
    except PermissionError as error:
        raise failed("no right to read it", errno.EACCES) from error
    except IsADirectoryError as error:
        raise failed("a directory, not a file", errno.EISDIR) from error
    except TimeoutError as error:  # fsspec's is one too
        raise failed(f"no answer within {2 * SILENCE:g} seconds") from error
    except Exception as error:  # of any library below fsspec
        raise failed(f"not to be had: {_words(error)}") from error


def _words(error: Exception) -> str:
    text = re.sub(r"^\[Errno -?\d+\] ", "", " ".join(str(error).split()))
    return text[:200] or type(error).__name__


def state_of(address: Named) -> RemoteState:
    """Raises OSError."""
    return source_of(address).state()


def read_whole(address: Named, most: int = MOST_TEXT) -> bytes:
    """Of a small file. Raises OSError."""
    with tempfile.TemporaryFile() as file:
        source_of(address).copy(file, most)
        return file.read()


def version_number(state: RemoteState) -> int:
    """A number that changes with the version, where a time of change stands for local files."""
    digest = hashlib.sha256(f"{state.size} {state.version}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def is_folder(address: Named) -> bool:
    """Whether something lies below it, as far as can be seen. Of the web nobody can say."""
    if address.scheme in ("http", "https"):
        return False
    files = file_system(address.scheme)
    try:
        return bool(_answer_of(files.isdir, _place(address)))
    except OSError:
        return False


def files_below(address: Named) -> list[str]:
    """All files, in the order of their names, but for hidden ones. Raises OSError."""
    places = _answer_of(file_system(address.scheme).find, _place(address))
    scheme, base = address.scheme, _place(address).rstrip("/")
    shown = [
        place
        for place in places
        if not any(part.startswith(".") for part in place.removeprefix(base).split("/"))
    ]
    return [f"{scheme}://{place}" for place in sorted(shown)]
