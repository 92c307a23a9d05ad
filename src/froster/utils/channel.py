"""Messages between two processes of which either may die or stop in the middle of one: whoever
polls never waits for the rest.

Arrays travel beside the pickle: they are copied into the socket and out of it, and nowhere else.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Generator
from typing import Any


class Channel:
    """One end of a pair of sockets."""

    def __init__(self, end: socket.socket, blocking: bool = True):
        self.socket = end
        end.setblocking(blocking)
        self._incoming = self._messages()

    def send(self, message: Any) -> None:
        """Waits until the system has taken all of it. Raises OSError where the other end is gone."""
        arrays: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, protocol=5, buffer_callback=arrays.append)
        parts: list[bytes | memoryview] = [body, *(array.raw() for array in arrays)]
        self.socket.sendall(struct.pack(f"<{1 + len(parts)}Q", len(parts), *map(len, parts)))
        for part in parts:
            self.socket.sendall(part)

    def receive(self) -> Any:
        """The next message, waited for. Raises EOFError where the other end is gone."""
        (message,) = next(self._incoming)
        return message

    def poll(self) -> tuple[Any] | None:
        """The next message, in a tuple; None where it, or the rest of it, is not here yet. For an
        end that does not block.

        Raises EOFError where the other end is gone.
        """
        return next(self._incoming)

    def close(self) -> None:
        self.socket.close()

    def _messages(self) -> Generator[Any, None, None]:
        while True:
            (count,) = struct.unpack("<Q", (yield from self._bytes(8)))
            sizes = struct.unpack(f"<{count}Q", (yield from self._bytes(8 * count)))
            parts = []
            for size in sizes:
                parts.append((yield from self._bytes(size)))
            yield (pickle.loads(parts[0], buffers=parts[1:]),)

    def _bytes(self, size: int) -> Generator[None, None, bytearray]:
        whole = bytearray(size)
        rest = memoryview(whole)
        while rest:
            try:
                taken = self.socket.recv_into(rest)
            except BlockingIOError:
                yield None
                continue
            if not taken:
                raise EOFError
            rest = rest[taken:]
        return whole
