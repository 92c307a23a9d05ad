"""Connections: what sends no whole request, or does not take its answer, is closed after some
seconds, and gives way at once to what asks."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the first byte that may be a request's to the last one of its head."""
READ_SECONDS = 60.0
"""In which a client takes at least a part of what waits for it."""
MOST_CONNECTIONS = 200


class Connection(H11Protocol):
    """uvicorn's, which by itself waits without end for the head of a request, and for a client to
    take an answer, and refuses everybody meanwhile."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    "while a part of an answer waits for the client"
    idle_since = 0.0

    @property
    def idle(self) -> bool:
        """No request is in hand."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits(self) -> bool:
        """Is it for the client to ask, or to take an answer?"""
        return self._unread is not None or (self.idle and not self.transport.is_closing())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that all that is not taken at once is told
        self._await_head()
        if len(self.connections) >= MOST_CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.idle:
            self._await_head()
        else:
            self._head_came()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._all_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.idle_since = self.loop.time()
        self._await_reader()

    def resume_writing(self) -> None:
        self._all_read()
        super().resume_writing()

    def _await_head(self) -> None:
        if self._deadline is None:
            self.idle_since = self.loop.time()
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self.idle:
            self.transport.close()

    def _await_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(READ_SECONDS, self._check_reader, left)

    def _check_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._await_reader()
        else:
            self._drop()

    def _all_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _drop(self) -> None:
        """At once, while `close` would wait until all that was written is taken."""
        self._all_read()
        self.transport.abort()

    def _make_room(self) -> None:
        """Closes the connection that has been idle for longest, or has not taken its answer; where
        all are asking, uvicorn answers 503."""
        others = (other for other in self.connections if isinstance(other, Connection))
        waiting = [other for other in others if other is not self and other.waits]
        if waiting:
            min(waiting, key=lambda other: other.idle_since)._drop()
