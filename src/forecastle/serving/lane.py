"""A lane of its own for requests for forecasts: past the router, which costs as much as the forecast itself.

What is answered, counted and refused is the same; whatever does not look like the plain path of a task that is served
goes on to the router. The route stands there too, for the OpenAPI document and for what has a mount's prefix.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from forecastle.errors import ForecastleError
from forecastle.serving import problems
from forecastle.serving.posting import PREDICT, Answering

_BEFORE, _AFTER = PREDICT.split("{task}")
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True)
class Matched:
    """The route that a request was answered by, as the router would have noted it."""

    path: str


class Lane:
    """Answer requests for forecasts of tasks, and pass on every other one."""

    def __init__(self, app: ASGIApp, tasks: Collection[str], answering: Answering) -> None:
        self._app, self._answering = app, answering
        self._tasks = {f"{_BEFORE}{task}{_AFTER}": task for task in tasks}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        task = self._tasks.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if task is None or scope.get("root_path"):
            return await self._app(scope, receive, send)
        scope["route"] = _ROUTE
        try:
            content = await self._answering(task, scope, receive)
        except (ForecastleError, HTTPException) as error:
            return await problems.answer(Request(scope), error)(scope, receive, send)
        except Exception as error:
            await problems.fault(Request(scope), error)(scope, receive, send)
            raise  # to be logged
        headers = [_JSON, (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})


_ROUTE = Matched(PREDICT)
