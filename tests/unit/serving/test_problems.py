"""Errors as problem documents: which status each kind of error has, and the three parts of every refusal."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.exceptions import HTTPException

from forecastle.errors import (
    ForecastleError,
    NotEnoughHistory,
    RegistryUnavailable,
    SettingsError,
    SourceUnavailable,
    TaskError,
)
from forecastle.serving import problems


@pytest.fixture
def refuse(get):
    """Ask a service whose only route raises this error."""

    def ask(error: Exception):
        app = FastAPI(exception_handlers=problems.HANDLERS)

        @app.get("/{number}")
        async def route(number: int) -> None:
            raise error

        return get(app, "/7")

    return ask


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        (TaskError, 404, "task-error"),
        (SettingsError, 400, "settings-error"),
        (NotEnoughHistory, 409, "not-enough-history"),
        (SourceUnavailable, 503, "source-unavailable"),
        (RegistryUnavailable, 503, "registry-unavailable"),
        (ForecastleError, 500, "forecastle-error"),
    ],
)
def test_every_kind_of_error_has_its_status_and_keeps_its_three_parts(refuse, kind, status: int, name: str) -> None:
    answer = refuse(kind("an apple", "a pear", "Look again."))
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert problem["type"] == f"urn:forecastle:problem:{name}"
    assert (problem["expected"], problem["found"], problem["action"]) == ("an apple", "a pear", "Look again.")
    assert problem["detail"] == "Expected an apple; found a pear. Look again."
    assert ("retry-after" in answer.headers) == kind.retried


def test_any_other_refusal_of_the_framework_has_the_same_shape_and_keeps_its_headers(refuse) -> None:
    answer = refuse(HTTPException(413, "too large", {"x-limit": "10"}))
    assert (answer.status_code, answer.json()["found"], answer.headers["x-limit"]) == (413, "too large", "10")


def test_an_invalid_parameter_is_named_with_its_place(get) -> None:
    app = FastAPI(exception_handlers=problems.HANDLERS)

    @app.get("/{number}")
    async def route(number: int) -> None:
        """Take a number."""

    answer = get(app, "/seven")
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "path.number: " in answer.json()["found"]
