"""HTTP within bounds: what is no body has a size, a head has a time to come in, connections have a number.

uvicorn's own protocol bounds none of them, and nobody needs a key to send a head. For a request that comes in one piece
that is next to no work.
"""

from __future__ import annotations

import asyncio
import resource
from functools import cache
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from forecastle.errors import RequestError
from forecastle.serving.schemas import Problem

HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0
FILES_KEPT = 128  # of those a process may have open: for stores, models and the journal

_HOW = "See the service's documentation, and what stands between it and you."


class BoundedProtocol(HttpToolsProtocol):
    """Serve one connection, and close it where a bound is passed."""

    _size = 0  # what has come since the last request was whole, but for its body
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, where there is room for one more."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._refuse(503, f"at most {most_connections()} connections", "one more", "Ask again in a while.")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come; of a request that nobody reads, or not yet, the rest has to come in time."""
        self._size += len(data)
        super().data_received(data)
        if self._size > HEAD_BYTES:
            self._refuse(431, f"a head of at most {HEAD_BYTES} bytes", f"{self._size} and no end", _HOW)
        elif self._deadline is None and (self._size if self._in_head else self.cycle.response_complete):
            self._await_head()

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        super().on_headers_complete()
        self._in_head = False
        self._in_time()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, and as much again for what stands around it."""
        self._size = max(0, self._size - 2 * len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self._size, self._in_head = 0, True
        self._in_time()
        super().on_message_complete()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._refuse(408, f"a whole request {HEAD_SECONDS:g} seconds after it began", "a part of it", _HOW)

    def _refuse(self, status: int, expected: str, found: str, action: str) -> None:
        """Close the connection, and say why where nothing else is being said."""
        self._in_time()
        if self.transport.is_closing():
            return
        heard = self._in_head and (self.cycle is None or self.cycle.response_complete)
        if heard and (self._size or status != 408):
            problem = Problem(
                type="urn:forecastle:problem:http",
                title=HTTPStatus(status).phrase,
                status=status,
                detail=str(RequestError(expected, found, action)),
                instance="",
                expected=expected,
                found=found,
                action=action,
            )
            content = problem.model_dump_json().encode()
            told = b"content-type: application/problem+json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(STATUS_LINE[status] + told % len(content) + content)
        self.transport.close()


@cache
def most_connections() -> int:
    """Return how many connections there may be at once, so that files can still be opened."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, soft - FILES_KEPT) if soft != resource.RLIM_INFINITY else 65_536
