"""Errors as RFC 9457 problem documents: a ForecastleError's three parts, and every other refusal in the same shape."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from forecastle.errors import DataTooOld, ForecastleError, GateError, OutsideError, RequestError, TaskError, UserError
from forecastle.serving.schemas import Problem
from forecastle.task import nearest

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 10

Handler = Callable[[Request, Exception], Response]
MEANINGS = {
    400: "A request that cannot be.",
    401: "No key, where one is needed, or none that is valid.",
    403: "A key without the scope that is needed.",
    404: "No such task, or no such series where the path names one; the nearest is named.",
    408: "The body did not come in time.",
    409: "The data must not go on: the gate refused it, or there is too little.",
    413: "A body of too many bytes.",
    415: "A body of a kind that is not taken.",
    422: "A parameter or body that cannot be; the place is named.",
    503: "A store does not answer and nothing is known yet, or what is known is too old.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of these refusals."""
    return {status: {"model": Problem, "description": MEANINGS[status]} for status in statuses}


def refuse(
    request: Request, status: int, kind: str, parts: tuple[str, str, str], headers: dict[str, str] | None = None
) -> Response:
    """Return a problem document; its parts are what was expected, what was found and what to do."""
    expected, found, action = parts
    problem = Problem(
        type=f"urn:forecastle:problem:{kind}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=str(ForecastleError(expected, found, action)),
        instance=request.url.path,
        expected=expected,
        found=found,
        action=action,
    )
    return Response(problem.model_dump_json(), status, headers, MEDIA_TYPE)


def answer(request: Request, error: ForecastleError | HTTPException) -> Response:
    """Return the problem document of an error that is told to whoever asked."""
    return (_on_forecastle_error if isinstance(error, ForecastleError) else _on_http_error)(request, error)


def _on_forecastle_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ForecastleError)
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    wait = error.retry_after if isinstance(error, DataTooOld) else RETRY_SECONDS
    headers = {"retry-after": str(wait)} if error.retried else None
    kind = "".join(f"-{one.lower()}" if one.isupper() else one for one in type(error).__name__).lstrip("-")
    return refuse(request, status, kind, (error.expected, error.found, error.action), headers)


def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = sorted({str(getattr(route, "path", "")) for route in request.app.routes} - {"/openapi.json", ""})
    path, method = request.url.path, request.method
    parts = {
        404: ("a route of this service", f"{path!r}{nearest(path, known)}", "GET /docs lists them."),
        405: (f"a method that {path} answers", method, "GET /docs lists them."),
    }
    fallback = ("a request this service can answer", str(error.detail), "GET /docs shows how to ask.")
    headers = dict(error.headers or {})
    return refuse(request, error.status_code, "http", parts.get(error.status_code, fallback), headers)


def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return refuse(request, 422, "invalid", ("valid parameters", found, "GET /docs shows them."))


def fault(request: Request, error: Exception) -> Response:
    """Return the problem document of a fault of ours; what it was is for the log alone."""
    parts = ("to answer", f"an unexpected fault ({type(error).__name__})", "Look at the service's log.")
    return refuse(request, 500, "fault", parts)


_STATUS: dict[type[ForecastleError], int] = {
    TaskError: 404,
    RequestError: 422,
    UserError: 400,
    GateError: 409,
    OutsideError: 503,
    ForecastleError: 500,
}
HANDLERS: dict[type[Exception], Handler] = {
    ForecastleError: _on_forecastle_error,
    HTTPException: _on_http_error,
    RequestValidationError: _on_invalid,
    Exception: fault,
}
