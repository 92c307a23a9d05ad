"""A form with a file in it, written to disk while it arrives, so that what is too big is never
stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from froster.serve.limits import MB, Limits
from froster.serve.refusal import Refusal

_MOST_FIELDS = 20
_LONGEST_FIELD = 1 * MB
# A field that may be sent again and again, a label or some each; its values become the lines of
# one.
_REPEATED = "labels"
_MOST_REPEATED = 1000
_LONGEST_HEADER = 8192
_BODY_SECONDS = 20.0
# Beside the file: the other fields and what separates them.
_ROOM = 2 * MB


@dataclass
class Form:
    fields: dict[str, str] = field(default_factory=dict)
    file: Path | None = None


async def receive(request: Request, path: Path, limits: Limits, name: str = "video") -> Form:
    """The form of a request; its file, the field `name`, is written to `path`, whatever the client
    calls it.

    Raises Refusal where it is no form, has too much, stops or takes too long, and starlette's
    ClientDisconnect.
    """
    stated = request.headers.get("content-length", "")
    too_big = Refusal(413, f"the upload is too big: at most {limits.upload / MB:g} MB are taken")
    if stated.isascii() and stated.isdigit() and int(stated) > limits.upload + _ROOM:
        raise too_big
    received = 0
    body = request.stream()
    reading = _Reading(request.headers.get("content-type", ""), path, name, limits.upload, too_big)
    loop = asyncio.get_running_loop()
    end = loop.time() + limits.uploading
    try:
        while True:
            try:
                chunk = await asyncio.wait_for(
                    _next(body), min(limits.idle, max(0.0, end - loop.time()))
                )
            except TimeoutError:
                raise Refusal(408, "the upload came too slowly or stopped") from None
            if chunk is None:
                return reading.form()
            received += len(chunk)
            if received > limits.upload + _ROOM:
                raise too_big
            reading.feed(chunk)
    finally:
        reading.close()


async def read_body(request: Request, most: int) -> bytes:
    """A body of at most so many bytes. Raises Refusal where it is longer or does not come."""
    body = bytearray()

    async def read() -> None:
        async for chunk in request.stream():
            body.extend(chunk)
            if len(body) > most:
                raise Refusal(413, "the request is too long")

    try:
        await asyncio.wait_for(read(), _BODY_SECONDS)
    except TimeoutError:
        raise Refusal(408, "the request came too slowly or stopped") from None
    return bytes(body)


async def _next(body: AsyncIterator[bytes]) -> bytes | None:
    return await anext(body, None)


class _Reading:
    """What the multipart parser calls as it goes through the body."""

    def __init__(self, content_type: str, path: Path, name: str, most: int, too_big: Refusal):
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise Refusal(415, "send a form: multipart/form-data")
        self._path, self._name, self._most, self._too_big = path, name, most, too_big
        self._found = Form()
        self._file: BinaryIO | None = None
        self._size = 0
        self._header, self._value, self._disposition = b"", b"", b""
        self._key: str | None = None
        self._field = bytearray()
        self._repeated: list[str] = []
        self._whole = False
        events = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "end",
        )
        callbacks = {f"on_{event}": getattr(self, f"_{event}") for event in events}
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        except FormParserError:
            raise Refusal(400, "not a well-formed form: its boundary is too long") from None

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise Refusal(400, "not a well-formed multipart/form-data body") from None
        except OSError as error:
            raise Refusal(507, f"the upload cannot be stored: {error.strerror}") from None

    def form(self) -> Form:
        if not self._whole:
            raise Refusal(400, "the form ends in the middle")
        if self._repeated:
            self._found.fields[_REPEATED] = "\n".join(self._repeated)
        return self._found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header) + len(self._value) > _LONGEST_HEADER:
            raise Refusal(400, "a header of the form is too long")

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        key = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            if key != self._name or self._found.file is not None:
                raise Refusal(422, f"one file is taken, in the field {self._name!r}")
            self._key, self._found.file = None, self._path
            self._file = self._path.open("xb")
            return
        if key == self._name:
            raise Refusal(
                422, f"{self._name!r} must be a file that is sent along, not a name or an address"
            )
        again = key == _REPEATED and len(self._repeated) < _MOST_REPEATED
        if (key in self._found.fields and not again) or len(self._found.fields) == _MOST_FIELDS:
            raise Refusal(422, f"the field {key[:50]!r} is one too many")
        self._key = key
        self._field.clear()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._size += end - start
            if self._size > self._most:
                raise self._too_big
            self._file.write(data[start:end])
            return
        self._field += data[start:end]
        before = sum(map(len, self._repeated)) if self._key == _REPEATED else 0
        if before + len(self._field) > _LONGEST_FIELD:
            raise Refusal(413, f"the field {(self._key or '')[:50]!r} is too long")

    def _part_end(self) -> None:
        if self._file is not None:
            self.close()
        elif self._key is not None:
            try:
                value = self._field.decode("utf-8")
                if self._key == _REPEATED:
                    self._repeated.append(value)
                self._found.fields[self._key] = value
            except UnicodeDecodeError:
                raise Refusal(422, f"the field {self._key[:50]!r} is not UTF-8") from None

    def _end(self) -> None:
        self._whole = True
