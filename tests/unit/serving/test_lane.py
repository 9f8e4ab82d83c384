"""Requests for forecasts go past the router, and are answered, counted and refused as if they had not."""

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

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        asyncio.run(Lane(router, ["weather"], answering)(scope, receive, send))
    except ZeroDivisionError as error:
        assert error is fault
    return scope, sent


def test_a_request_for_forecasts_of_a_task_is_answered_and_counted_by_its_route() -> None:
    scope, (head, body) = answered("/v1/tasks/weather/predict")
    assert (head["status"], body["body"]) == (200, b"weather")
    assert dict(head["headers"]) == {b"content-type": b"application/json", b"content-length": b"7"}
    assert scope["route"].path == "/v1/tasks/{task}/predict"


@pytest.mark.parametrize(
    ("path", "others"),
    [
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


def test_what_is_refused_is_a_problem_document() -> None:
    _, (head, body) = answered("/v1/tasks/weather/predict", fault=NotEnoughHistory("data", "none", "Wait."))
    assert head["status"] == 409
    assert json.loads(body["body"])["action"] == "Wait."


def test_a_fault_of_ours_is_told_without_what_it_was_and_goes_on_to_the_log() -> None:
    _, (head, body) = answered("/v1/tasks/weather/predict", fault=ZeroDivisionError("a secret"))
    assert head["status"] == 500
    assert b"secret" not in body["body"]
