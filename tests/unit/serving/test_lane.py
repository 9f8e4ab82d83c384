"""Forecasts, asked for or stored, go past the router, and are answered, counted and refused as if they had not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from forecastle.errors import NotEnoughHistory
from forecastle.serving.lane import Lane


class Passed(Exception):
    """The request went on to the router."""


async def router(scope: Scope, receive: Receive, send: Send) -> None:
    raise Passed


def answered(path: str, method: str = "POST", fault: Exception | None = None, **others: Any) -> tuple[Scope, list[Any]]:
    """Return the scope and what was sent where a request came along the lane."""
    scope = {"type": "http", "method": method, "path": path, "headers": [], "app": FastAPI(), "query_string": b""}
    scope |= {"server": ("service", 80), "scheme": "http", **others}
    sent: list[Any] = []

    async def answering(task: str, scope: Scope, receive: Receive) -> bytes:
        if fault is not None:
            raise fault
        return task.encode()

    async def showing(task: str, series_id: str) -> bytes:
        if fault is not None:
            raise fault
        return f"{task} of {series_id}".encode()

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        asyncio.run(Lane(router, ["weather"], answering, showing)(scope, receive, send))
    except ZeroDivisionError as error:
        assert error is fault
    return scope, sent


def test_a_request_for_forecasts_of_a_task_is_answered_and_counted_by_its_route() -> None:
    scope, (head, body) = answered("/v1/tasks/weather/predict")
    assert (head["status"], body["body"]) == (200, b"weather")
    assert dict(head["headers"]) == {b"content-type": b"application/json", b"content-length": b"7"}
    assert scope["route"].path == "/v1/tasks/{task}/predict"


@pytest.mark.parametrize("series_id", ["JFK", "a/b", "of/forecasts/too", "Zürich"])
def test_the_stored_forecasts_of_a_series_are_shown_and_counted_by_their_route(series_id: str) -> None:
    scope, (head, body) = answered(f"/v1/tasks/weather/forecasts/{series_id}", "GET")
    assert (head["status"], body["body"].decode()) == (200, f"weather of {series_id}")
    assert scope["route"].path == "/v1/tasks/{task}/forecasts/{series_id:path}"


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("/v1/tasks/waether/forecasts/JFK", {"method": "GET"}),
        ("/v1/tasks/weather/forecasts/", {"method": "GET"}),
        ("/v1/tasks/weather/forecasts", {"method": "GET"}),
        ("/v1/tasks/weather/forecasts/JFK", {"method": "HEAD"}),
        ("/v1/tasks/weather/forecasts/JFK", {"method": "GET", "root_path": "/behind"}),
        ("/v1/tasks/waether/predict", {}),
        ("/v1/tasks/weather/predict/", {}),
        ("/v1/tasks/weather/observations", {}),
        ("/v1/tasks/weather/predict", {"method": "GET"}),
        ("/v1/tasks/weather/predict", {"root_path": "/behind"}),
    ],
)
def test_whatever_else_is_asked_goes_on_to_the_router(path: str, others: dict[str, str]) -> None:
    with pytest.raises(Passed):
        answered(path, **others)


WAYS = [("/v1/tasks/weather/predict", "POST"), ("/v1/tasks/weather/forecasts/JFK", "GET")]


@pytest.mark.parametrize(("path", "method"), WAYS)
def test_what_is_refused_is_a_problem_document(path: str, method: str) -> None:
    _, (head, body) = answered(path, method, fault=NotEnoughHistory("data", "none", "Wait."))
    assert head["status"] == 409
    assert json.loads(body["body"])["action"] == "Wait."


@pytest.mark.parametrize(("path", "method"), WAYS)
def test_a_fault_of_ours_is_told_without_what_it_was_and_goes_on_to_the_log(path: str, method: str) -> None:
    _, (head, body) = answered(path, method, fault=ZeroDivisionError("a secret"))
    assert head["status"] == 500
    assert b"secret" not in body["body"]
