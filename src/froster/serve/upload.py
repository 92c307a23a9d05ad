"""A form with a file in it, written to disk while it arrives, so that what is too big is never
stored."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from froster.serve import Refusal
from froster.serve.limits import MB, Limits

_MOST_FIELDS, _LONGEST_TEXT = 20, 1 * MB
"""Fields of a form beside the file, and bytes of all of them."""
_REPEATED, _MOST_REPEATED = "labels", 1000
"""A field that may be sent again and again, a label or some each; its values become the lines of
one."""
_ROOM = 2 * MB
"""Bytes beside the file: the other fields and what separates them."""
_BODY_SECONDS = 20.0


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
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refusal(415, "send a form: multipart/form-data")
    reader = _FormReader(request, path, name, limits)
    try:
        form = await reader.parse()
    except MultiPartException as error:
        why = str(error.__cause__ or error.message).lower()
        raise Refusal(400, f"not a well-formed form: {why}") from None
    except OSError as error:
        raise Refusal(507, f"the upload cannot be stored: {error.strerror}") from None
    finally:
        if reader.file is not None:
            reader.file.close()
    if not reader.complete:
        raise Refusal(400, "the form ends in the middle")
    texts = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
    fields = dict(texts)
    if _REPEATED in fields:
        fields[_REPEATED] = "\n".join(value for key, value in texts if key == _REPEATED)
    return Form(fields, None if reader.file is None else path)


def too_big(limits: Limits) -> Refusal:
    return Refusal(413, f"the upload is too big: at most {limits.upload / MB:g} MB are taken")


async def chunks(request: Request, limits: Limits) -> AsyncGenerator[bytes, None]:
    """The body of a request. Raises Refusal where it is too big or comes too slowly."""
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > limits.upload + _ROOM:
        raise too_big(limits)
    received, body, loop = 0, request.stream(), asyncio.get_running_loop()
    end = loop.time() + limits.uploading
    while True:
        try:
            async with asyncio.timeout(min(limits.idle, max(0.0, end - loop.time()))):
                chunk = await anext(body, None)
        except TimeoutError:
            raise Refusal(408, "the upload came too slowly or stopped") from None
        if chunk is None:
            return
        received += len(chunk)
        if received > limits.upload + _ROOM:
            raise too_big(limits)
        yield chunk


async def read_body(request: Request, most: int) -> bytes:
    """A body of at most so many bytes. Raises Refusal where it is longer or does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body.extend(chunk)
                if len(body) > most:
                    raise Refusal(413, "the request is too long")
    except TimeoutError:
        raise Refusal(408, "the request came too slowly or stopped") from None
    return bytes(body)


class _FormReader(MultiPartParser):
    """starlette's, which would keep the file in a place of its own."""

    def __init__(self, request: Request, path: Path, name: str, limits: Limits):
        super().__init__(request.headers, chunks(request, limits), max_fields=math.inf)
        self.path, self.name, self.limits = path, name, limits
        self.file: BinaryIO | None = None
        self.complete = False
        self._fields: Counter[str] = Counter()
        self._text = self._stored = 0

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part, key = self._current_part, self._current_part.field_name
        if part.file is not None:
            if key != self.name or self.file is not None:
                raise Refusal(422, f"one file is taken, in the field {self.name!r}")
            part.file.file.close()
            self.file = part.file.file = self.path.open("x+b")
            return
        if key == self.name:
            raise Refusal(
                422, f"{self.name!r} must be a file that is sent along, not a name or an address"
            )
        most = _MOST_REPEATED if key == _REPEATED else 1
        if self._fields[key] == most or len(self._fields) == _MOST_FIELDS:
            raise Refusal(422, f"the field {key[:50]!r} is one too many")
        self._fields[key] += 1

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._text += end - start
            if self._text > _LONGEST_TEXT:
                raise Refusal(413, f"the field {self._current_part.field_name[:50]!r} is too long")
        else:
            self._stored += end - start
            if self._stored > self.limits.upload:
                raise too_big(self.limits)
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        part = self._current_part
        try:
            part.data.decode("utf-8")
        except UnicodeDecodeError:
            raise Refusal(422, f"the field {part.field_name[:50]!r} is not UTF-8") from None
        super().on_part_end()

    def on_end(self) -> None:
        self.complete = True
