"""The one HTTP client: time-outs, a size limit, retries with jitter, and no secret in anything it hands out.

The seam is the transport: the live network, or an ASGI application driven in this process (``asgi_transport``).
A provider cannot tell which it talks to.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, quote_plus, unquote, urlencode

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from forecastle.errors import AnswerChanged, SettingsError, SourceUnavailable
from forecastle.settings import Settings

Transport = httpx.BaseTransport
ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[None]]], Awaitable[None]
]

LONGEST_WAIT = 60.0
"""Seconds a single wait between two attempts may last; a source that asks for more is left alone at once."""

_HIDDEN = "***"
_USER_AND_PASSWORD = re.compile(r"(?<=//)[^/?#]*@")
_SCHEME = re.compile(r"^\w+://")
_RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)})
# The body is handed out decoded, so headers about its coding would be untrue; a cookie is a secret.
_DROPPED_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "set-cookie"})


@dataclass(frozen=True)
class Request:
    """One GET: an address, its parameters, which of them are secret; and the series it asks about, for its parser."""

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    secret_params: frozenset[str] = frozenset()
    series: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The whole address as it may be shown: secret parameters and a password in the address are hidden."""
        shown = {name: _HIDDEN if name in self.secret_params else value for name, value in self.params.items()}
        query = urlencode(shown, safe=",:/*")
        return f"{self._shown}{'&' if '?' in self._shown else '?'}{query}" if query else self._shown

    @property
    def source(self) -> str:
        """The host and path, or the file: what a message calls the source."""
        return unquote(_SCHEME.sub("", self._shown.partition("?")[0]))

    @property
    def _shown(self) -> str:
        return _USER_AND_PASSWORD.sub("", self.url)

    def hide(self, text: str) -> str:
        """Return the text with every secret of this request, plain or percent-encoded, in any case, replaced."""
        for secret in self._secrets():
            text = re.sub(re.escape(secret), _HIDDEN, text, flags=re.IGNORECASE)
        return text

    def hide_bytes(self, body: bytes) -> bytes:
        """Return the bytes with every secret of this request replaced; without one, byte for byte the same."""
        for secret in self._secrets():
            body = re.sub(re.escape(secret.encode()), _HIDDEN.encode(), body, flags=re.IGNORECASE)
        return body

    def _secrets(self) -> list[str]:
        values = [self.params[name] for name in self.secret_params if self.params.get(name)]
        spellings = {spelling for value in values for spelling in (value, quote(value, safe=""), quote_plus(value))}
        return sorted(spellings, key=len, reverse=True)


@dataclass(frozen=True)
class Answer:
    """What a source sent: the shown address, the status, the headers (names in lower case), the body's bytes."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Ask sources politely: bounded in time and size, retried on what may heal by itself.

    Network faults, 408, 425, 429 and 5xx are asked again up to ``settings.http_attempts`` times, after a random,
    growing wait or after what ``Retry-After`` asks for. ``sleep`` does the waiting.
    """

    def __init__(
        self, settings: Settings, transport: Transport | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # below that they log addresses, keys included
        self._settings = settings
        self._sleep = sleep
        self._http = httpx.Client(
            transport=transport, timeout=settings.http_timeout, headers={"user-agent": "forecastle"}
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, request: Request) -> Answer:
        """Return the source's answer; a 4xx that asking again cannot heal is an answer too.

        The body is what was sent, byte for byte after HTTP's own decoding; the one exception is a secret that the
        source echoes, which is replaced. Raises SourceUnavailable when every attempt failed, AnswerChanged for an
        answer larger than ``settings.http_max_bytes``, SettingsError for an address that is none.
        """
        attempts = Retrying(
            stop=stop_after_attempt(self._settings.http_attempts),
            wait=_seconds_to_wait,
            retry=retry_if_exception(_may_heal),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return attempts(self._ask, request)
        except _Fault as fault:
            tried = attempts.statistics.get("attempt_number", 1)
            raise SourceUnavailable(
                f"an answer from {request.source}",
                f"{fault} ({tried} attempt{'s' if tried > 1 else ''})",
                f"Ask again in {fault.retry_after:.0f} s." if fault.retry_after else "Ask again later.",
            ) from None

    def _ask(self, request: Request) -> Answer:
        deadline = time.monotonic() + self._settings.http_timeout
        try:
            url = httpx.URL(request.url).copy_merge_params(dict(request.params))
            with self._http.stream("GET", url) as response:
                body = request.hide_bytes(self._body(response, request, deadline))
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise SettingsError(
                "an address that begins with http:// or https://",
                f"{request.address} ({request.hide(str(error))})",
                "Mend the source's address in the settings.",
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Fault(f"{type(error).__name__}: {request.hide(str(error))}") from None
        if response.status_code in _RETRIED_STATUS:
            raise _Fault(f"HTTP {response.status_code}: {excerpt(body)}", _retry_after(response))
        headers = {name.lower(): request.hide(value) for name, value in response.headers.items()}
        kept = {name: value for name, value in headers.items() if name not in _DROPPED_HEADERS}
        return Answer(request.address, response.status_code, kept, body)

    def _body(self, response: httpx.Response, request: Request, deadline: float) -> bytes:
        pieces, size, most = [], 0, self._settings.http_max_bytes
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise AnswerChanged(
                    f"an answer of at most {most} bytes from {request.source}",
                    f"{size} bytes and no end",
                    "Ask for fewer series or a shorter window, or raise FORECASTLE_HTTP_MAX_BYTES.",
                )
            # httpx bounds the wait for each piece; a source that drips must be bounded as a whole.
            if time.monotonic() > deadline:
                raise _Fault(f"no end of the answer within {self._settings.http_timeout:g} s")
        return b"".join(pieces)


def asgi_transport(app: ASGIApp) -> Transport:
    """Return a transport that drives an ASGI application in this process, on an event loop of its own.

    It holds nothing open, so that one may serve any number of clients, one after the other or at once.
    """
    return _AsgiTransport(app)


def excerpt(body: bytes, length: int = 200) -> str:
    """Return the beginning of a body as one line of text, for a message."""
    text = " ".join(body[: 4 * length].decode("utf-8", errors="replace").split())
    return f"{text[:length]}…" if len(text) > length else text or "an empty body"


class _AsgiTransport(httpx.BaseTransport):
    def __init__(self, app: ASGIApp) -> None:
        self._inner = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._handle(request))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


class _Fault(Exception):
    """A failed attempt that may heal by itself."""

    def __init__(self, found: str, retry_after: float | None = None) -> None:
        super().__init__(found)
        self.retry_after = retry_after


def _may_heal(error: BaseException) -> bool:
    return isinstance(error, _Fault) and (error.retry_after or 0.0) <= LONGEST_WAIT


_jitter = wait_random_exponential(multiplier=1, max=LONGEST_WAIT / 2)


def _seconds_to_wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, _Fault) else None
    return _jitter(state) if asked is None else asked


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds ``Retry-After`` asks for, given as a number or as a date after the answer's own date."""
    asked = response.headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return max(wait.total_seconds(), 0.0)
