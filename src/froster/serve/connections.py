"""Connections: what sends no whole request is closed after some seconds, and gives way at once to
what asks."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""From the first byte that may be a request's to the last one of its head."""
MOST_CONNECTIONS = 200


class Connection(H11Protocol):
    """uvicorn's, which by itself waits for the head of a request without end, and refuses everybody
    meanwhile."""

    _deadline: asyncio.TimerHandle | None = None
    idle_since = 0.0

    @property
    def idle(self) -> bool:
        """No request is in hand."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
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
        super().connection_lost(exc)

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

    def _make_room(self) -> None:
        """Closes the connection that has been idle for longest; where all are asking, uvicorn
        answers 503."""
        idle = [
            connection
            for connection in self.connections
            if isinstance(connection, Connection)
            and connection is not self
            and connection.idle
            and not connection.transport.is_closing()
        ]
        if idle:
            min(idle, key=lambda connection: connection.idle_since).transport.close()
