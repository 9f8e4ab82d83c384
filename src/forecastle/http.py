"""The one HTTP client: time-outs, a size limit, retries with jitter, and no secret in anything it hands out.

Whom it may ask is for its ``Guard`` to say, who counts every attempt before it is made (``data.budget``).
The seam is the transport: the live network, or an ASGI application driven in this process (``asgi_transport``).
A provider cannot tell which it talks to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import quote, quote_plus, unquote, urlencode

from forecastle.errors import AnswerChanged, SettingsError, SourceUnavailable
from forecastle.settings import Settings

if TYPE_CHECKING:  # who only keeps answers, or serves, never asks: what asking takes is imported by whoever does
    import httpx
    from tenacity import RetryCallState

    Transport = httpx.BaseTransport
else:

    def __getattr__(name: str) -> Any:
        if name != "Transport":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import httpx

        return httpx.BaseTransport


ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[..., Awaitable[Any]], Callable[..., Awaitable[None]]], Awaitable[None]
]

LONGEST_WAIT = 60.0
"""Seconds a single wait between two attempts may last; a source that asks for more is left alone at once."""

REPLAY_NOW = "x-replay-now"
"""The header by which a replay says that it is one, and at which simulated moment it answers."""

CUT = "x-forecastle-cut"
"""The header that marks an answer of which only the beginning was taken."""

TOO_MANY = 429
_HIDDEN = "***"
_USER_AND_PASSWORD = re.compile(r"(?<=//)[^/?#]*@")
_SCHEME = re.compile(r"^\w+://")
_RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)})
# The body is handed out decoded, so headers about its coding would be untrue; a cookie is a secret.
_DROPPED_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "set-cookie"})


@dataclass(frozen=True)
class Request:
    """One question: an address, its parameters, which of them are secret, headers; and the series, for its parser.

    It is a GET unless ``method`` says else; ``body`` is sent as JSON, and ``hidden`` names secrets of headers and body.
    """

    url: str
    params: Mapping[str, str] = field(default_factory=dict)
    secret_params: frozenset[str] = frozenset()
    series: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    body: Mapping[str, Any] | None = None
    hidden: tuple[str, ...] = ()

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
        return without_password(self.url)

    def hide(self, text: str) -> str:
        """Return the text with every secret of this request, plain or percent-encoded, in any case, replaced."""
        for secret in self.secrets():
            text = re.sub(re.escape(secret), _HIDDEN, text, flags=re.IGNORECASE)
        return text

    def hide_bytes(self, body: bytes) -> bytes:
        """Return the bytes with every secret of this request replaced; without one, byte for byte the same."""
        for secret in self.secrets():
            body = re.sub(re.escape(secret.encode()), _HIDDEN.encode(), body, flags=re.IGNORECASE)
        return body

    def whole_secrets(self, body: bytes) -> bytes:
        """Return the beginning of a body, its secrets replaced, without an end that may be half of one."""
        longest = max((len(secret.encode()) for secret in self.secrets()), default=1)
        return body[: len(body) - longest + 1]

    @property
    def key(self) -> str:
        """What the source knows the caller by: the values of its secret parameters."""
        return "\n".join(self.params[name] for name in sorted(self.secret_params))

    def secrets(self) -> list[str]:
        """Return every spelling of every secret, the longest first."""
        values = [self.params[name] for name in self.secret_params if self.params.get(name)]
        values += filter(None, self.hidden)
        plain = {spelling for value in values for spelling in (value, quote(value, safe=""), quote_plus(value))}
        in_json = {json.dumps(value)[1:-1] for value in plain}
        slashed = {value.replace("/", slash) for value in in_json for slash in ("\\/", "\\u002f")}
        return sorted(plain | in_json | slashed, key=len, reverse=True)


@dataclass(frozen=True)
class Answer:
    """What a source sent: the shown address, the status, the headers (names in lower case), the body's bytes."""

    url: str
    status: int
    headers: dict[str, str]
    body: bytes


class Guard(Protocol):
    """Who says whether a source may be asked, and keeps count."""

    def check(self, request: Request) -> bool:
        """Tell whether this is to be one trial; raises SourceUnavailable where the source is left alone for now."""

    def charge(self, request: Request) -> float:
        """Count an attempt that is about to be made and return 0; or return how many seconds to wait before it.

        Raises SourceUnavailable where the wait would be long.
        """

    def told(self, request: Request, headers: Mapping[str, str]) -> None:
        """Take note of what an answer's headers say of the count."""

    def refused(self, request: Request, said: str, seconds: float | None) -> float | None:
        """Take note that the source said it was asked too much; return for how many seconds it wants no more."""

    def failed(self, request: Request, said: str) -> None:
        """Take note of a failure."""

    def answered(self, request: Request) -> None:
        """Take note of a good answer."""


class Unguarded:
    """Let everything pass: for what has no limits, such as a replay in this process."""

    def check(self, request: Request) -> bool:
        return False

    def charge(self, request: Request) -> float:
        return 0.0

    def told(self, request: Request, headers: Mapping[str, str]) -> None:
        pass

    def refused(self, request: Request, said: str, seconds: float | None) -> float | None:
        return seconds

    def failed(self, request: Request, said: str) -> None:
        pass

    def answered(self, request: Request) -> None:
        pass


class Client:
    """Ask sources politely: bounded in time and size, retried on what may heal by itself.

    Network faults, 408, 425, 429 and 5xx are asked again up to ``settings.http_attempts`` times, after a random,
    growing wait or after what ``Retry-After`` asks for. ``sleep`` does the waiting.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        guard: Guard | None = None,
    ) -> None:
        import httpx

        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)  # below that they log addresses, keys included
        self._settings = settings
        self._sleep = sleep
        self._guard = guard or Unguarded()
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

    def get(self, request: Request, keep: Callable[[Answer], object] = lambda answer: None) -> Answer:
        """Return the source's answer; a 4xx that asking again cannot heal is an answer too.

        The body is what was sent, byte for byte after HTTP's own decoding; the one exception is a secret that the
        source echoes, which is replaced. Raises SourceUnavailable when every attempt failed or none may be made,
        AnswerChanged for an answer larger than ``settings.http_max_bytes``, SettingsError for an address that is none.
        ``keep`` is given what came of an answer that is refused so: the last attempt's, or as much as was taken.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        trial = self._guard.check(request)
        attempts = Retrying(
            stop=stop_after_attempt(1 if trial else self._settings.http_attempts),
            wait=_seconds_to_wait,
            retry=retry_if_exception(_may_heal),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return attempts(self._ask, request, keep)
        except _Fault as fault:
            if fault.answer is not None:
                keep(fault.answer)
            if fault.retry_after is None and not _is_replayed(fault.answer):
                self._guard.failed(request, str(fault))
            tried = attempts.statistics.get("attempt_number", 1)
            raise SourceUnavailable(
                f"an answer from {request.source}",
                f"{fault} ({tried} attempt{'s' if tried > 1 else ''})",
                f"Ask again in {fault.retry_after:.0f} s." if fault.retry_after else "Ask again later.",
            ) from None

    def send(self, request: Request) -> Answer:
        """Send what may be sent twice without harm, whatever its method; return the answer, as ``get`` does."""
        return self.get(request)

    @contextmanager
    def judging(self, request: Request, answer: Answer) -> Iterator[None]:
        """Let the caller judge an answer: where that ends in SourceUnavailable the guard is told what was found."""
        try:
            yield
        except SourceUnavailable as error:
            if not _is_replayed(answer):
                if self._guard.refused(request, error.found, _seconds(answer.headers)) is None:
                    self._guard.failed(request, error.found)
            raise
        except AnswerChanged:
            self._guard.answered(request)
            raise
        self._guard.answered(request)

    def _ask(self, request: Request, keep: Callable[[Answer], object]) -> Answer:
        import httpx

        while wait := self._guard.charge(request):
            self._sleep(wait)
        deadline = time.monotonic() + self._settings.http_timeout
        try:
            url = httpx.URL(request.url).copy_merge_params(dict(request.params))
            headers = dict(request.headers)
            with self._http.stream(request.method, url, headers=headers, json=request.body) as response:
                headers = {name.lower(): request.hide(value) for name, value in response.headers.items()}
                self._guard.told(request, headers)
                body, whole = self._body(response, request, deadline)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise SettingsError(
                "an address that begins with http:// or https://",
                f"{request.address} ({request.hide(str(error))})",
                "Mend the source's address in the settings.",
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Fault(f"{type(error).__name__}: {request.hide(str(error))}") from None
        kept = {name: value for name, value in headers.items() if name not in _DROPPED_HEADERS}
        answer = Answer(request.address, response.status_code, kept, body)
        if not whole:
            keep(replace(answer, headers={**kept, CUT: f"the first {len(body)} bytes"}))
            raise AnswerChanged(
                f"an answer of at most {self._settings.http_max_bytes} bytes from {request.source}",
                "more, and no end",
                "Ask for fewer series or a shorter window, or raise FORECASTLE_HTTP_MAX_BYTES.",
            )
        if response.status_code in _RETRIED_STATUS:
            said, seconds = f"HTTP {response.status_code}: {excerpt(body)}", _seconds(headers)
            asked_to_wait = response.status_code == TOO_MANY or seconds is not None
            if asked_to_wait and not _is_replayed(answer):  # what is simulated is over as soon as its clock is turned
                seconds = self._guard.refused(request, said, seconds)
            raise _Fault(said, seconds, answer)
        return answer

    def _body(self, response: httpx.Response, request: Request, deadline: float) -> tuple[bytes, bool]:
        """Return the body and True, or its beginning and False where it is larger than an answer may be."""
        pieces, size, most = [], 0, self._settings.http_max_bytes
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                return request.whole_secrets(request.hide_bytes(b"".join(pieces)))[:most], False
            # httpx bounds the wait for each piece; a source that drips must be bounded as a whole.
            if time.monotonic() > deadline:
                raise _Fault(f"no end of the answer within {self._settings.http_timeout:g} s")
        return request.hide_bytes(b"".join(pieces)), True


def asgi_transport(app: ASGIApp) -> Transport:
    """Return a transport that drives an ASGI application in this process, on an event loop of its own.

    It holds nothing open, so that one may serve any number of clients, one after the other or at once.
    """
    import httpx

    class AsgiTransport(httpx.BaseTransport):
        def __init__(self) -> None:
            self._inner = httpx.ASGITransport(app)

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return asyncio.run(self._handle(request))

        async def _handle(self, request: httpx.Request) -> httpx.Response:
            response = await self._inner.handle_async_request(request)
            return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())

    return AsgiTransport()


def without_password(url: str) -> str:
    """Return an address without the user and password in it, as it may be shown."""
    return _USER_AND_PASSWORD.sub("", url)


def excerpt(body: bytes, length: int = 200) -> str:
    """Return the beginning of a body as one line of text, for a message."""
    text = " ".join(body[: 4 * length].decode("utf-8", errors="replace").split())
    return f"{text[:length]}…" if len(text) > length else text or "an empty body"


class _Fault(Exception):
    """A failed attempt that may heal by itself."""

    def __init__(self, found: str, retry_after: float | None = None, answer: Answer | None = None) -> None:
        super().__init__(found)
        self.retry_after = retry_after
        self.answer = answer


def _is_replayed(answer: Answer | None) -> bool:
    return answer is not None and REPLAY_NOW in answer.headers


def _may_heal(error: BaseException) -> bool:
    return isinstance(error, _Fault) and (error.retry_after or 0.0) <= LONGEST_WAIT


def _seconds_to_wait(state: RetryCallState) -> float:
    from tenacity import wait_random_exponential

    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, _Fault) else None
    return wait_random_exponential(multiplier=1, max=LONGEST_WAIT / 2)(state) if asked is None else asked


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds ``Retry-After`` asks for, given as a number or as a date after the answer's own date."""
    asked = headers.get("retry-after", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return max(wait.total_seconds(), 0.0)
