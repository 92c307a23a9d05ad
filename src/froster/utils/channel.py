"""What goes between processes of which any may end at any time, and between threads: messages, and
tasks that come one by one."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import Any


class Channel:
    """One end of a pair of sockets between processes of which either may die or stop in the middle
    of a message. Arrays are copied into the socket and out of it, and nowhere else."""

    def __init__(self, end: socket.socket, blocking: bool = True):
        self.socket = end
        end.setblocking(blocking)
        self._incoming = self._messages()

    def send(self, message: Any) -> None:
        """Returns once the system has taken all of it. Raises OSError if the other end is gone."""
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
        end that does not block. Raises EOFError where the other end is gone."""
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
        data = bytearray(size)
        rest = memoryview(data)
        while rest:
            try:
                received = self.socket.recv_into(rest)
            except BlockingIOError:
                yield None
                continue
            if not received:
                raise EOFError
            rest = rest[received:]
        return data


class Feed:
    """Tasks for `run` that come while it works on others."""

    def __init__(self, tasks: Iterable[Any] = (), closed: bool = False) -> None:
        self._tasks, self._added = iter(tasks), deque[Any]()
        self._closed, self._more = closed, threading.Condition()

    def add(self, task: Any) -> None:
        with self._more:
            self._added.append(task)
            self._more.notify_all()

    def close(self) -> None:
        """No more will come."""
        with self._more:
            self._closed = True
            self._more.notify_all()

    def take(self) -> tuple[Any] | None:
        """The next task, if there is one now."""
        for task in self._tasks:
            return (task,)
        return (self._added.popleft(),) if self._added else None

    @property
    def open(self) -> bool:
        """Whether tasks may come, or have come."""
        return not self._closed or bool(self._added)

    def wait(self, seconds: float) -> None:
        """Until a task is there, or none will come, but not for longer."""
        with self._more:
            self._more.wait_for(lambda: self._closed or self._added, timeout=seconds)
