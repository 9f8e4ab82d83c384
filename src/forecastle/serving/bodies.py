"""Bodies of requests: read whole, within bounds of size and time, and only of a kind a page elsewhere cannot forge.

A form of another site may be sent to an open service on somebody's own machine without asking; one of these kinds may
not, so a browser asks first and is told no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

READ_SECONDS = 30.0
JSON = ("application/json",)
TABLES = (*JSON, "text/csv", "application/vnd.apache.parquet", "application/octet-stream")


async def read(request: Request, most: int, kinds: Collection[str] = JSON) -> bytes:
    """Return a request's body. HTTPException 415 for another kind, 413 for more bytes, 408 where it takes too long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise HTTPException(415, f"content of the kind {kind or 'none'}; it takes {', '.join(kinds)}")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > most:
        raise HTTPException(413, f"a body of {declared[:40]} bytes; at most {most} are read")
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise HTTPException(413, f"a body of more than {most} bytes")
                parts.append(part)
    except ClientDisconnect:  # nobody hears the answer; without one it would be logged as a fault of ours
        raise HTTPException(400, "a body that broke off") from None
    except TimeoutError:
        raise HTTPException(408, f"a body that had not come after {READ_SECONDS:g} seconds") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)
