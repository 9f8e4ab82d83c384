"""The HTTP service: routes that translate what the board knows into answers, and nothing else.

Every answer carries the security headers and is counted and timed by route and status; every error is an RFC 9457
problem document with the three parts of a ForecastleError. The clock is an argument, so a replayed past is served as
the present was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forecastle import __version__
from forecastle.errors import DataTooOld, ForecastleError, NotEnoughHistory, OutsideError, RequestError, TaskError
from forecastle.frame import CONTROL
from forecastle.models import explanation
from forecastle.monitoring import incidents, metrics
from forecastle.monitoring.predictions import PredictionLog
from forecastle.serving import pages, posting, problems, schemas
from forecastle.serving.board import PATIENCE, Board, begin
from forecastle.serving.keys import Doorkeeper, Keyring
from forecastle.serving.lane import STORED, Lane
from forecastle.serving.snapshot import Snapshot
from forecastle.settings import Settings
from forecastle.task import Task, duration_text, nearest

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
UNMATCHED = "unmatched"

_ABOUT = "Forecasts with their intervals, the age and version of what they were made from, and what came true."
_DOWN = problems.refusals(503)
_NAMED = problems.refusals(404, 422, 503)


def create_app(
    settings: Settings, tasks: Sequence[Task], clock: Callable[[], datetime], poll_every: float = 1.0, note: str = ""
) -> FastAPI:
    """Return the service for these tasks; ``clock`` tells the time (UTC).

    The stores are asked for changes when ``poll_every`` seconds have passed by that clock or in real time (0: before
    every answer). The page shows the ``note``, if any, above all else.
    Nothing is read before the first request, so an app can be made while a store is down.
    """
    board = Board(settings, tasks, poll_every)
    log = PredictionLog(board.journal, settings.home)
    keyring = Keyring(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        log.close()
        board.close()

    app = Service(
        title="forecastle",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.predictions = log
    for kind, handler in problems.HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    _operations(app, board, clock, settings.commit or None)
    _tasks(app, board, clock)
    answering = posting.add_routes(app, settings, board, log, clock)
    pages.add_routes(app, board, keyring, clock, note)
    lane = Lane(app.within, [task.name for task in tasks], answering, partial(_stored, board, clock))
    app.way_in = Envelope(Doorkeeper(lane, keyring, settings))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


class Service(FastAPI):
    """FastAPI's application, with what concerns every request around it rather than inside.

    There nothing is between the server and a request for forecasts but its key, and a fault of ours is answered under
    the same headers as everything else.
    """

    way_in: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["app"] = self
        await self.way_in(scope, receive, send)

    async def within(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request by its route."""
        await super().__call__(scope, receive, send)


class Envelope:
    """Put the security headers on every answer, and count and time it by route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_RAW_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            metrics.observe_request(scope["method"], _route_of(scope), status, perf_counter() - started)


def _operations(app: FastAPI, board: Board, clock: Callable[[], datetime], commit: str | None) -> None:
    reading: asyncio.Future[list[metrics.Reading]] | None = None

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=schemas.Health, tags=["operation"])
    async def health() -> Response:
        """Say that the process is alive, and of which build it is: its version and, where it was told, its commit."""
        return _json(schemas.Health(version=__version__, commit=commit))

    @app.head("/ready", include_in_schema=False)
    @app.get(
        "/ready",
        response_model=schemas.Readiness,
        tags=["operation"],
        responses={503: {"model": schemas.Readiness, "description": "Not yet; each task says why."}},
    )
    async def ready() -> Response:
        """Say whether the stores answer and every task with a champion has loaded it."""
        now = clock()
        answer = await asyncio.gather(*(_readiness(board, task, now) for task in board.tasks))
        everything = all(one.ready for one in answer)
        return _json(schemas.Readiness(ready=everything, tasks=tuple(answer)), 200 if everything else 503)

    @app.get("/metrics", response_class=Response, tags=["operation"])
    async def prometheus() -> Response:
        """Show the metrics in Prometheus' text format; what a store that does not answer knows is absent."""
        nonlocal reading
        if reading is None or reading.done():  # one that hangs is asked once
            reading = begin(_readings, board, clock())
        await asyncio.wait([reading], timeout=PATIENCE)
        found = reading.result() if reading.done() else []
        content, media_type = metrics.exposition(found)
        return Response(content, media_type=media_type)


def _tasks(app: FastAPI, board: Board, clock: Callable[[], datetime]) -> None:
    @app.get("/v1/tasks", response_model=schemas.TaskList, tags=["tasks"], responses=_DOWN)
    async def list_tasks() -> Response:
        """List what is served: series, target, unit, horizon, model and data version, back-test promise."""
        now = clock()
        infos = [_info(await board.state(task.name, now), now) for task in board.tasks]
        return _json(schemas.TaskList(tasks=tuple(infos)))

    @app.get("/v1/tasks/{task}", response_model=schemas.TaskInfo, tags=["tasks"], responses=_NAMED)
    async def show_task(task: str) -> Response:
        """Show what is served for one task."""
        now = clock()
        return _json(_info(await board.state(task, now), now))

    @app.get(
        "/v1/tasks/{task}/forecasts",
        response_model=schemas.TaskForecasts,
        tags=["forecasts"],
        responses=_NAMED,
    )
    async def list_forecasts(task: str) -> Response:
        """Show the current forecasts of every series, with the age of their data and why they are degraded if so."""
        now = clock()
        state = await board.state(task, now)
        head = schemas.TaskForecasts(task=task, **state.condition(now).fields, series=()).model_dump_json().encode()
        if state.series_ids and all(state.staleness(one, now) == "lost" for one in state.series_ids):
            raise state.too_old(state.series_ids[0], now)
        series = b",".join([await _forecasts(board, state, one, now, strict=False) for one in state.series_ids])
        return Response(head.removesuffix(b"[]}") + b"[" + series + b"]}", media_type="application/json")

    @app.get(STORED, response_model=schemas.SeriesForecasts, tags=["forecasts"], responses=_NAMED)
    async def show_forecasts(task: str, series_id: str) -> Response:
        """Show the current forecasts of one series."""
        return Response(await _stored(board, clock, task, series_id), media_type="application/json")

    @app.get(
        "/v1/tasks/{task}/explain/{series_id:path}",
        response_model=schemas.Explanation,
        tags=["forecasts"],
        responses=problems.refusals(404, 409, 422, 503),
    )
    async def explain(task: str, series_id: str, horizon: Annotated[int, Query(ge=1, le=1_000_000)] = 1) -> Response:
        """Say what moved a series' current forecast, so many steps ahead: as a sum of what each feature adds.

        It is made again from what is known of its origin now, which a late revision may have changed since.
        """
        now = clock()
        state = await board.state(task, now)
        if series_id not in state.answers:
            raise _unknown_series(state, series_id)
        return _json(await run_in_threadpool(_explained, board, state, series_id, horizon, now))

    @app.get("/v1/incidents", response_model=schemas.Incidents, tags=["operation"], responses=_NAMED)
    async def list_incidents(
        task: Annotated[str | None, Query(max_length=200, pattern=f"^[^{CONTROL[1:]}*$")] = None,
        open_only: bool = False,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """List incidents, the newest first, of one task or of all, with what was done about each."""
        found = await run_in_threadpool(lambda: incidents.listing(board.journal(), task, open_only, limit))
        if task is not None and not found and task != incidents.INSTALLATION:
            board.task(task)  # where nobody knows it the nearest is named: nothing would look as if all were well
        return _json(schemas.Incidents.model_validate({"incidents": found}))

    @app.get("/v1/tasks/{task}/scores", response_model=schemas.TaskScores, tags=["tasks"], responses=_NAMED)
    async def show_scores(task: str) -> Response:
        """Show promise against delivery: the champion's back-test beside the live scores of the last 30 days."""
        now = clock()
        state = await board.state(task, now)
        details = await run_in_threadpool(board.details, task, now)
        return _json(
            schemas.TaskScores(
                task=task,
                unit=state.task.unit,
                coverage=state.task.training.coverage,
                model_version=state.model.version if state.model else None,
                since=details.since,
                promise=state.promise,
                live=details.live,
            )
        )


async def _stored(board: Board, clock: Callable[[], datetime], task: str, series_id: str) -> bytes:
    now = clock()
    state = await board.state(task, now)
    if series_id not in state.bodies:
        raise _unknown_series(state, series_id)
    return await _forecasts(board, state, series_id, now)


async def _forecasts(board: Board, state: Snapshot, series_id: str, now: datetime, strict: bool = True) -> bytes:
    """Return a series' answer as the age of its data allows; DataTooOld, or if not ``strict`` none, past all limits."""
    staleness = state.staleness(series_id, now)
    if staleness == "fine":
        return state.body(series_id, now)
    try:
        if staleness == "stale":
            return await run_in_threadpool(board.stand_in, state.task.name, series_id, now)
        raise state.too_old(series_id, now)
    except DataTooOld:
        if strict:
            raise
        return state.without_forecasts(series_id, now)


def _readings(board: Board, now: datetime) -> list[metrics.Reading]:
    found: list[metrics.Reading] = []
    for task in board.tasks:
        with suppress(OutsideError):
            if board.is_due(task.name, now):
                board.refresh(task.name, now)
            found += board.readings(task.name, now)
    return found


async def _readiness(board: Board, task: Task, now: datetime) -> schemas.TaskReadiness:
    try:
        state = await board.state(task.name, now, PATIENCE)
    except ForecastleError as error:
        return schemas.TaskReadiness(task=task.name, ready=False, reason=str(error), model_version=None, data_age=None)
    reason = state.fault or (state.model_fault if state.model is None else None)
    return schemas.TaskReadiness(
        task=task.name,
        ready=reason is None,
        reason=reason,
        model_version=state.model.version if state.model else None,
        data_age=state.condition(now).data_age,
    )


def _info(state: Snapshot, now: datetime) -> schemas.TaskInfo:
    task = state.task
    return schemas.TaskInfo(
        task=task.name,
        description=task.description,
        domain=task.domain,
        series=state.series_ids,
        target=task.target,
        unit=task.unit,
        frequency=duration_text(task.frequency),
        horizon=duration_text(task.horizon),
        steps=task.steps,
        timezone=task.timezone,
        coverage=task.training.coverage,
        model=state.model,
        promise=state.promise,
        **state.condition(now).fields,
    )


def _explained(board: Board, state: Snapshot, series_id: str, horizon: int, now: datetime) -> schemas.Explanation:
    task, bench = state.task, board.bench(state.task.name) or board.build_bench(state.task.name, now)
    current = state.answers[series_id]
    if horizon > bench.bundle.recipe.steps:
        raise RequestError(
            f"a horizon of 1 to {bench.bundle.recipe.steps} steps", str(horizon), "GET /v1/tasks shows the steps."
        )
    if current.origin is None:
        raise NotEnoughHistory(f"a forecast of {series_id!r} to explain", "none yet", "Wait for the next live run.")
    examples = bench.current(series_id, current.origin, now)
    (found,) = explanation.explain(bench.bundle.model, examples, horizon)
    return schemas.Explanation.model_validate(
        {"task": task.name, "model_version": bench.bundle.version, **found.as_dict()}
    )


def _unknown_series(state: Snapshot, series_id: str) -> TaskError:
    known = state.series_ids
    listing = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    return TaskError(
        f"a series of task {state.task.name!r} ({listing})",
        f"{series_id!r}{nearest(series_id, known)}",
        f"GET /v1/tasks/{state.task.name} lists them.",
    )


def _json(answer: BaseModel, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


def _route_of(scope: Scope) -> str:
    """Return the route's template, never the path: what a stranger types must not become a label."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    return "/static" if scope["path"].startswith("/static/") else UNMATCHED


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with errors under the media type they really have."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operations in document["paths"].values():
            for operation in operations.values():
                for answer in operation["responses"].values():
                    content = answer.get("content", {})
                    if "Problem" in str(content.get("application/json")):
                        content[problems.MEDIA_TYPE] = content.pop("application/json")
        app.openapi_schema = document
    return app.openapi_schema


_RAW_HEADERS = tuple(
    (name.encode(), value.encode()) for name, value in {**HEADERS, "cache-control": "no-cache"}.items()
)
