"""HTTP within bounds: what is no body has a size, a head has a time to come in, connections have a number.

uvicorn's own protocol bounds none of them, and nobody needs a key to send a head. For a request that comes in one piece
that is next to no work.
"""

from __future__ import annotations

import asyncio
from functools import cache
from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from forecastle.errors import RequestError
from forecastle.serving.schemas import Problem

HEAD_BYTES = 65_536
HEAD_SECONDS = 10.0
MOST = 65_536  # connections, where the system sets no bound
FILES_KEPT = 128  # of those a process may have open: for stores, models and the journal

_data_received, _on_body = HttpToolsProtocol.data_received, HttpToolsProtocol.on_body
_HOW = "See the service's documentation, and what stands between it and you."


class BoundedProtocol(HttpToolsProtocol):
    """Serve one connection, and close it where a bound is passed."""

    _size = 0  # what has come of a head, or of what stands around a body
    _is_whole = False  # whether the last request came to its end
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, where there is room for one more."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._refuse(503, f"at most {most_connections()} connections", "one more", "Ask again in a while.")
        else:
            self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come; of a request that nobody reads, or not yet, the rest has to come in time."""
        before = self.cycle
        self._size += len(data)
        _data_received(self, data)
        cycle = self.cycle
        if cycle is not before and not cycle.more_body and self.scope is cycle.scope:  # as most come
            self._size, self._is_whole = 0, True
            if self._deadline is not None:
                self._in_time()
        else:
            self._look_at(before is not cycle)

    def _look_at(self, is_new: bool) -> None:
        """Hold what has come of a request to the bounds; where it is new its head came to its end."""
        cycle = self.cycle
        self._size = 0 if is_new else max(0, self._size)
        if self.scope is not getattr(cycle, "scope", self):  # a head is coming; while the first does there is no cycle
            waits = True
        elif cycle.more_body:
            waits, self._is_whole = cycle.response_complete, False
        elif self._is_whole:
            waits = True  # for what may become a head
        else:
            waits, self._is_whole, self._size = False, True, 0
        if self._size > HEAD_BYTES:
            self._refuse(431, f"a head of at most {HEAD_BYTES} bytes", f"{self._size} and no end", _HOW)
        elif not waits:
            self._in_time()
        elif self._deadline is None:
            self._await_rest()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body, and as much again for what stands around it."""
        self._size -= 2 * len(body)
        _on_body(self, body)

    def _await_rest(self) -> None:
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
        answers = getattr(self.cycle, "response_complete", True), getattr(self.cycle, "more_body", False)
        heard = answers == (True, False)  # as before the first request, of which there is no cycle
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
    try:
        import resource
    except ImportError:  # no POSIX, no such bound
        return MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, soft - FILES_KEPT) if soft != resource.RLIM_INFINITY else MOST
