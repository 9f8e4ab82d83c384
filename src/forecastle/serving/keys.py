"""API keys: who may ask the service for what.

A key is random text of 256 bits; kept of it are its name, its scopes and its SHA-256, a line each, in the setting
``FORECASTLE_API_KEYS`` or in the file of ``FORECASTLE_API_KEYS_FILE``, which is read again when it changes:

    dashboard:read:1f0c…        collector:write:77ab…        operations:read+write+admin:90de…

Of so many bits no table of hashes can be made, so a plain SHA-256 is enough; comparing takes the same time whatever is
presented. Any number of keys is valid at once: a new one is added before the old one is taken out.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from threading import Lock
from time import monotonic
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from forecastle.errors import SettingsError
from forecastle.serving import problems
from forecastle.settings import PREFIX, Settings

LOG = logging.getLogger("forecastle.service")

SCOPES = ("read", "write", "admin")
COOKIE = "forecastle_key"
LOGIN = "/login"
LOOK_AGAIN = 1.0  # seconds after which the file is looked at again
OPEN = frozenset({"/health", "/ready", LOGIN})
_PORT = re.compile(r":\d*$")
_LINE = re.compile(r"(?P<name>[\w.-]{1,60}):(?P<scopes>[a-z+]+):(?P<digest>[0-9a-f]{64})")


@dataclass(frozen=True)
class Key:
    """What is kept of a key: its name, what it may do, and the SHA-256 of it."""

    name: str
    scopes: frozenset[str]
    digest: str


def make_key(name: str, scopes: Collection[str]) -> tuple[str, str]:
    """Return a new key, which nobody will see again, and the line that is kept of it."""
    key = f"fck_{secrets.token_urlsafe(32)}"
    line = f"{name}:{'+'.join(dict.fromkeys(scopes))}:{_digest(key)}"
    if _LINE.fullmatch(line) is None or not {*scopes} <= {*SCOPES}:
        raise SettingsError(
            f"a name of letters, digits, dots and dashes, and scopes of {', '.join(SCOPES)}",
            f"{name!r} and {', '.join(scopes) or 'none'}",
            "Write it like: forecastle new-key dashboard --scope read",
        )
    return key, line


def parse_keys(text: str, where: str) -> tuple[Key, ...]:
    """Return the keys of lines (or of a list with commas); ``#`` begins a comment. SettingsError for any other line."""
    found = []
    for number, line in enumerate(re.split(r"[\n,]", text), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        scopes = frozenset(match["scopes"].split("+")) if match else frozenset()
        if match is None or not scopes <= {*SCOPES}:
            raise SettingsError(
                f"name:scopes:sha256 in entry {number} of {where}, scopes of {', '.join(SCOPES)} joined by +",
                "something else",  # which may be a key that somebody put there as it is
                "Make a key and its line with: forecastle new-key NAME --scope read",
            )
        found.append(Key(match["name"], scopes, match["digest"]))
    return tuple(found)


class Keyring:
    """The keys that are valid now."""

    def __init__(self, settings: Settings) -> None:
        self._fixed = parse_keys(settings.api_keys.get_secret_value(), f"{PREFIX}API_KEYS")
        self._file = settings.api_keys_file
        self._lock, self._looked, self._seen = Lock(), float("-inf"), (0, 0, 0)
        self._from_file: tuple[Key, ...] = ()
        if self._file is not None:
            self._seen, self._from_file = _state(self._file), _read(self._file)
            self._looked = monotonic()

    @property
    def is_open(self) -> bool:
        """Whether no keys are asked for. A file without a line in it lets nobody in."""
        return self._file is None and not self._fixed

    def find(self, presented: str) -> Key | None:
        """Return the key that was presented, or None where it is none of those valid now."""
        digest, found = _digest(presented), None
        for key in self._valid():  # every one is compared, so that time tells nothing
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _valid(self) -> Sequence[Key]:
        if self._file is not None and monotonic() - self._looked >= LOOK_AGAIN and self._lock.acquire(blocking=False):
            try:
                self._looked = monotonic()
                state = _state(self._file)
                if state != self._seen:
                    self._from_file, self._seen = _read(self._file), state
            except SettingsError as error:
                LOG.error("the keys stay as they were: %s", error)
            finally:
                self._lock.release()
        return (*self._fixed, *self._from_file)


def require_keys(settings: Settings) -> None:
    """Raise SettingsError where the service would listen beyond this machine without asking anybody for a key."""
    if settings.serve_without_keys or _is_loopback(settings.host) or not Keyring(settings).is_open:
        return
    raise SettingsError(
        f"API keys, where the service listens on {settings.host}",
        "none",
        f"Make one (forecastle new-key NAME --scope read) and put its line into {PREFIX}API_KEYS, listen on 127.0.0.1, "
        f"or say {PREFIX}SERVE_WITHOUT_KEYS=true if anybody who can reach it may read and write.",
    )


def scope_of(method: str, path: str) -> str | None:
    """Return the scope that a request needs, None where everybody may ask."""
    if path in OPEN or path.startswith("/static/"):
        return None
    if method in ("GET", "HEAD", "OPTIONS") or path.endswith("/predict"):
        return "read"
    return "write" if path.endswith("/observations") else "admin"


class Doorkeeper:
    """Let through who has a key with the scope that is needed; where there are no keys, everybody.

    Where the service is open to this machine alone, it has to be asked by a name of this machine: a page elsewhere,
    whose own name was made to lead here, would be read by a browser as if it were the service's.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, settings: Settings) -> None:
        self._app, self._keyring = app, keyring
        self._hosts = {one.strip().lower() for one in settings.hosts.split(",")} - {""}
        self._is_ours = lru_cache(maxsize=64)(self._name_is_ours) if _is_loopback(settings.host) else _whatever

    def _name_is_ours(self, host: bytes) -> bool:
        name = _PORT.sub("", host.decode("latin-1").strip().lower())
        return _is_loopback(name) or name in self._hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._keyring.is_open:
            for name, value in scope["headers"]:
                if name == b"host" and not self._is_ours(value):
                    return await _misdirected(scope, value)(scope, receive, send)
            return await self._app(scope, receive, send)
        needed = scope_of(scope["method"], scope["path"])
        if needed is None:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        presented = _presented(headers, scope["method"])
        key = self._keyring.find(presented) if presented else None
        if key is not None and needed in key.scopes:
            return await self._app(scope, receive, send)
        if key is None and scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            return await RedirectResponse(LOGIN, 303)(scope, receive, send)
        if key is None:
            parts = ("a valid API key", "none" if not presented else "another", "Send it as: Authorization: Bearer KEY")
            answer = problems.refuse(Request(scope), 401, "no-key", parts, {"www-authenticate": "Bearer"})
        else:
            told = f"one with {', '.join(sorted(key.scopes))}"
            parts = (f"a key with the scope {needed}", told, "Use a key that has it.")
            answer = problems.refuse(Request(scope), 403, "scope", parts)
        await answer(scope, receive, send)


def _whatever(_: bytes) -> bool:
    return True


def _misdirected(scope: Scope, host: bytes) -> Response:
    parts = (
        "a service without keys to be asked by a name of this machine, such as 127.0.0.1",
        repr(host.decode("latin-1")[:200]),
        f"Ask it by that, or name this host in {PREFIX}HOSTS.",
    )
    return problems.refuse(Request(scope), 421, "host", parts)


def cookie(key: str, secure: bool) -> str:
    """Return the header that keeps a key for the page: for half a day, out of reach of scripts and other sites."""
    return f"{COOKIE}={quote(key)}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def _presented(headers: Headers, method: str) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    if own := headers.get("x-api-key"):
        return own
    if method not in ("GET", "HEAD"):  # what changes anything is never done by a cookie
        return ""
    try:
        kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return kept.value if kept is not None else ""


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _read(file: Path) -> tuple[Key, ...]:
    try:
        return parse_keys(file.read_text(encoding="utf-8").replace(",", "\n"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"a readable file of keys at {file}", str(error), f"Mend {PREFIX}API_KEYS_FILE.") from None


def _state(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
