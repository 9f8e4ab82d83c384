"""The routes that take a body: forecasts on request, observations that are pushed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request
from pydantic_core import from_json, to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope

from forecastle.data import intake
from forecastle.data.history import History
from forecastle.data.store import task_stores
from forecastle.errors import AnswerChanged, QualityGateFailed, RequestError, SourceUnavailable, StorageUnavailable
from forecastle.http import Answer
from forecastle.monitoring import incidents, metrics, verdicts, withheld
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import PredictionLog, Row
from forecastle.serving import answers, asking, bodies, schemas
from forecastle.serving.asking import Asked
from forecastle.serving.board import Board
from forecastle.serving.problems import refusals
from forecastle.serving.together import Together
from forecastle.serving.workbench import Workbench
from forecastle.settings import Settings
from forecastle.task import Task

LOG = logging.getLogger("forecastle.service")
PREDICT = "/v1/tasks/{task}/predict"
Answering = Callable[[str, Scope, Receive], Awaitable[bytes]]
"""Reads a request's body and returns the answer as JSON; of a task, its scope and how it is received."""

FEW, SMALL = 8, 65_536  # series, and bytes of a body, answered at once; more would hold up the answers of others

_ALERTS: dict[str, Any] = {
    "type": "object",
    "required": ["alerts"],
    "properties": {
        "alerts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "status": {"type": "string", "enum": ["firing", "resolved"]},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
        }
    },
}
_KINDS: dict[str, Any] = {
    "text/csv": {"schema": {"type": "string"}},
    "application/json": {"schema": {"type": "array", "items": {"type": "object"}}},
    "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
}


def add_routes(
    app: FastAPI, settings: Settings, board: Board, log: PredictionLog, clock: Callable[[], datetime]
) -> Answering:
    """Add the routes to the service, and return what makes the answer to a request for forecasts."""

    together, aside = Together(), ThreadPoolExecutor(1, "forecasts")  # two at once would only hold up each other

    async def forecast(task: str, scope: Scope, receive: Receive) -> bytes:
        started, now = perf_counter(), clock()
        bench = await _bench(board, task, now)
        ready = perf_counter()
        body = await bodies.read(scope, receive, settings.max_body)
        started += perf_counter() - ready  # the time a client takes to send is none of ours
        asked = _asked(bench, body, now) if len(body) <= SMALL else None
        if asked is not None and len(asked) <= FEW:
            made = await together.predict(bench, asked, now)
            answer, rows = answers.tell(bench.task, bench.bundle, made, now)
        else:
            work = partial(_forecast, bench, body if asked is None else asked, now)
            answer, rows = await asyncio.get_running_loop().run_in_executor(aside, work)
        log.add(rows)
        metrics.observe_prediction(task, bench.bundle.version, perf_counter() - started)
        return answer

    @app.post(
        PREDICT,
        response_model=schemas.Predictions,
        tags=["forecasts"],
        responses=refusals(404, 408, 409, 413, 415, 422, 503),
        openapi_extra=_body({"application/json": {"schema": _schema(schemas.PredictRequest)}}),
    )
    async def predict(task: str, request: Request) -> Response:
        """Forecast from recent observations in the body, of one or many series. Features are computed here."""
        return _json(await forecast(task, request.scope, request.receive))

    @app.post(
        "/v1/tasks/{task}/observations",
        response_model=schemas.Accepted,
        tags=["observations"],
        responses=refusals(404, 408, 409, 413, 415, 422, 503),
        openapi_extra=_body(_KINDS),
    )
    async def push(task: str, request: Request) -> Response:
        """Take in observations as a table: series_id, timestamp and the task's columns, as CSV, Parquet or JSON rows.

        They go the way of what is polled: archived as they came, judged by the gate, then into the history.
        """
        known = board.task(task)
        body = await bodies.read(request.scope, request.receive, settings.max_body, bodies.TABLES)
        taken = await run_in_threadpool(_take_in, settings, board.journal, known, body, clock())
        return _json(taken.model_dump_json())

    @app.post(
        "/v1/alerts",
        response_model=schemas.Alerted,
        tags=["operation"],
        responses=refusals(400, 408, 413, 415, 422, 503),
        openapi_extra=_body({"application/json": {"schema": _ALERTS}}),
    )
    async def take_alerts(request: Request) -> Response:
        """Take in the webhook of Alertmanager or Grafana: what fires opens an incident, what is resolved closes it."""
        body = await bodies.read(request.scope, request.receive, settings.max_body)
        try:
            told = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise RequestError("a body in JSON", str(error), "Send what the webhook receivers send.") from None
        names = [one.name for one in board.tasks]
        found = await run_in_threadpool(incidents.receive, board.journal(), settings, names, told, clock())
        return _json(to_json(asdict(found)))

    return forecast


def _json(content: bytes | str) -> Response:
    return Response(content, media_type="application/json")


async def _bench(board: Board, task: str, now: datetime) -> Workbench:
    await board.state(task, now)
    bench = board.bench(task)
    return bench if bench is not None else await run_in_threadpool(board.build_bench, task, now)


def _asked(bench: Workbench, body: bytes, now: datetime) -> tuple[Asked, ...]:
    return asking.parse(body, bench.task, bench.columns, now)


def _forecast(bench: Workbench, asked: bytes | Sequence[Asked], now: datetime) -> tuple[bytes, list[Row]]:
    """Return the answer to what a body asks, read already or not, and what the journal keeps of it."""
    read = _asked(bench, asked, now) if isinstance(asked, bytes) else asked
    return answers.tell(bench.task, bench.bundle, bench.predict(read, now), now)


def _take_in(
    settings: Settings, journal: Callable[[], Journal], task: Task, body: bytes, now: datetime
) -> schemas.Accepted:
    """Take in a table that was pushed, and note the gate's verdict as of what is polled. RequestError where it is none,
    QualityGateFailed where the gate says no."""
    answer = Answer(f"push://{task.name}", 200, {}, body)
    folder, stores = settings.task_folder(task.name), task_stores(settings, task.name)
    try:
        taken = intake.accept(task, folder, answer, now, stores)
    except (AnswerChanged, SourceUnavailable) as error:
        raise RequestError(error.expected, error.found, error.action) from error
    except QualityGateFailed as refused:
        with _if_the_journal_answers(task):
            verdicts.refused(journal(), task.name, str(refused), now)
        raise
    with _if_the_journal_answers(task):
        report, batch = taken.report, taken.batch
        verdicts.pushed(journal(), task.name, report, now)
        history = History(stores / "history", tuple(task.measured.columns))
        withheld.settle(journal(), task, folder, history, batch, report, batch.start, now, polls=False)
    return schemas.Accepted(
        task=task.name,
        verdict=taken.report.verdict,
        new=taken.appended.new,
        revised=taken.appended.revised,
        known=taken.appended.known,
        masked=taken.report.masked,
        withheld=tuple(taken.report.withheld),
        warnings=tuple(f"{one.check}: {one.found}" for one in taken.report.warnings),
    )


@contextmanager
def _if_the_journal_answers(task: Task) -> Iterator[None]:
    """Note what can be noted: what became of a batch is the answer to whoever pushed it, and has been done."""
    try:
        yield
    except StorageUnavailable as silent:
        LOG.warning("the gate's verdict on a batch pushed to %s could not be noted: %s", task.name, silent)


def _schema(model: Any) -> dict[str, Any]:
    """Return a model's JSON schema in one piece."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})
    found: dict[str, Any] = _inlined(schema, parts)
    return found


def _inlined(part: Any, parts: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        if "$ref" in part:
            return _inlined(parts[part["$ref"].rsplit("/", 1)[-1]], parts)
        return {name: _inlined(one, parts) for name, one in part.items()}
    return [_inlined(one, parts) for one in part] if isinstance(part, list) else part


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}
