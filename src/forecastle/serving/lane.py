"""A lane of its own for forecasts, those that are asked for and those that are stored: past the router.

The router costs as much as the forecast itself. What is answered, counted and refused is the same; whatever does not
look like the plain path of a task that is served goes on to the router. The routes stand there too, for the OpenAPI
document and for what has a mount's prefix.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from forecastle.errors import ForecastleError
from forecastle.serving import problems
from forecastle.serving.posting import PREDICT, Answering

STORED = "/v1/tasks/{task}/forecasts/{series_id:path}"
Showing = Callable[[str, str], Awaitable[bytes]]
"""Returns the current forecasts of a task's series as JSON."""

_BEFORE, _AFTER = PREDICT.split("{task}")
_BETWEEN = STORED.split("{task}")[1].split("{series_id")[0]
_JSON = (b"content-type", b"application/json")


@dataclass(frozen=True)
class Matched:
    """The route that a request was answered by, as the router would have noted it."""

    path: str


class Lane:
    """Answer requests for forecasts of tasks, and pass on every other one."""

    def __init__(self, app: ASGIApp, tasks: Collection[str], answering: Answering, showing: Showing) -> None:
        self._app, self._answering, self._showing = app, answering, showing
        self._asked = {f"{_BEFORE}{task}{_AFTER}": task for task in tasks}
        self._shown = {f"{_BEFORE}{task}": task for task in tasks}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self._answer(scope, receive) if scope["type"] == "http" and not scope.get("root_path") else None
        if answer is None:
            return await self._app(scope, receive, send)
        try:
            content = await answer
        except (ForecastleError, HTTPException) as error:
            return await problems.answer(Request(scope), error)(scope, receive, send)
        except Exception as error:
            await problems.fault(Request(scope), error)(scope, receive, send)
            raise  # to be logged
        headers = [_JSON, (b"content-length", b"%d" % len(content))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: Scope, receive: Receive) -> Awaitable[bytes] | None:
        """Return what will be the answer; None where the router is to find it."""
        path = scope["path"]
        if scope["method"] == "POST" and (task := self._asked.get(path)) is not None:
            scope["route"] = _PREDICT
            return self._answering(task, scope, receive)
        if scope["method"] == "GET":
            before, _, series_id = path.partition(_BETWEEN)
            if series_id and (task := self._shown.get(before)) is not None:
                scope["route"] = _STORED
                return self._showing(task, series_id)
        return None


_PREDICT, _STORED = Matched(PREDICT), Matched(STORED)
