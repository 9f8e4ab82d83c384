"""Bodies of requests: read whole, within bounds of size and time, and only of a kind a page elsewhere cannot forge.

A form of another site may be sent to an open service on somebody's own machine without asking; one of these kinds may
not, so a browser asks first and is told no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

READ_SECONDS = 30.0
JSON = ("application/json",)
TABLES = (*JSON, "text/csv", "application/vnd.apache.parquet", "application/octet-stream")


async def read(scope: Scope, receive: Receive, most: int, kinds: Collection[str] = JSON) -> bytes:
    """Return a request's body. HTTPException 415 for another kind, 413 for more bytes, 408 where it takes too long."""
    kind, declared = _told(scope["headers"])
    if kind not in kinds:
        raise HTTPException(415, f"content of the kind {kind or 'none'}; it takes {', '.join(kinds)}")
    if not declared.isdecimal() or int(declared) > most:
        raise HTTPException(413, f"a body of {declared[:40]} bytes; at most {most} are read")
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(READ_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":  # nobody hears the answer; without one it counts as a fault
                    raise HTTPException(400, "a body that broke off")
                parts.append(message.get("body", b""))
                size, more = size + len(parts[-1]), message.get("more_body", False)
                if size > most:
                    raise HTTPException(413, f"a body of more than {most} bytes")
    except TimeoutError:
        raise HTTPException(408, f"a body that had not come after {READ_SECONDS:g} seconds") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _told(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str]:
    """Return what kind of a body headers announce, in small letters, and of how many bytes."""
    kind, size = b"", b"0"
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            size = value
    return kind.partition(b";")[0].strip().lower().decode("latin-1"), size.decode("latin-1")
