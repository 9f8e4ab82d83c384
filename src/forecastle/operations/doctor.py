"""Look at an installation as a doctor would: what is configured, what answers, and what would stop a run.

Every examination is one function that returns what it found, or raises the error a run would meet; all of them always
run, and none changes a store. What is found ill says what to do about it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import polars as pl
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from forecastle import __version__
from forecastle.data import budget, first_look, formats, identity, remotes, store
from forecastle.data.providers import PROVIDERS, file
from forecastle.errors import ForecastleError, GateError, SettingsError, StorageUnavailable
from forecastle.frame import SERIES, TIMESTAMP
from forecastle.http import Client, Request
from forecastle.models import pointer, trees
from forecastle.monitoring.journal import Journal
from forecastle.settings import PREFIX, Settings
from forecastle.task import DAY, Task

Health = Literal["well", "hint", "ill"]

LEAST_FREE = 2 * 2**30  # bytes on the disk of the home folder
LONG_AGO = timedelta(days=400)
MOST_NAMED = 5  # series
CLOCK_ROOM = timedelta(minutes=2)  # that this clock and another's may lie apart
PACKAGES = ("polars", "lightgbm", "scikit-learn", "mlflow", "dvc", "fastapi", "obstore", "sqlalchemy")
EXTRAS = {
    "fg-data-profiling": "the full profile page (extra profile)",
    "optuna": "tuning (extra tune)",
    "dvc-s3": "training tables on S3 (extra s3)",
    "dvc-azure": "training tables on Azure (extra azure)",
}


@dataclass(frozen=True)
class Finding:
    """What one examination found: well, a hint that needs no action, or ill, with what to do and the exit code."""

    about: str
    health: Health
    found: str
    action: str = ""
    exit_code: int = 0


def examine(
    settings: Settings, tasks: Sequence[Task], now: datetime, online: bool = False, folder: Path | None = None
) -> Iterator[Finding]:
    """Yield the findings of every examination, those of the installation first, then those of each task.

    ``online`` asks the hosts of the tasks' sources too, for their first page, which counts as no call. ``folder`` is
    where a file named .env is looked for (default: the working folder).
    """
    general: tuple[tuple[str, Callable[[], Finding | str]], ...] = (
        ("versions", _versions),
        ("extras", _extras),
        ("settings", lambda: _configured(settings)),
        ("secrets", lambda: _secrets(settings, folder or Path())),
        ("home", lambda: _home(settings)),
        ("disk", lambda: _disk(settings)),
        ("stores", lambda: _stores(settings, now)),
        ("journal", lambda: _journal(settings)),
        ("registry", lambda: _registry(settings, now)),
        ("versioned data", lambda: _versioned(settings)),
        ("trees", _trees),
        ("alerts", lambda: _alerts(settings)),
        ("listening", lambda: _listening(settings)),
        ("service", lambda: _service(settings)),
    )
    for about, work in general:
        yield _examined(about, work)
    for task in tasks:
        yield _examined(f"task {task.name}", lambda task=task: _task(settings, task, now))  # type: ignore[misc]
        yield _examined(f"champion of {task.name}", lambda task=task: _champion(settings, task))  # type: ignore[misc]
    for host, address in _hosts(settings, tasks, now).items() if online else ():
        yield _examined(f"source {host}", lambda address=address: _host(settings, address, now))  # type: ignore[misc]


def _examined(about: str, work: Callable[[], Finding | str]) -> Finding:
    """Return what an examination found; an error of the system is ill, with its own exit code and advice."""
    try:
        found = work()
    except ForecastleError as error:
        return Finding(about, "ill", f"expected {error.expected}, found {error.found}", error.action, error.exit_code)
    return Finding(about, "well", found) if isinstance(found, str) else replace(found, about=about)


def _hint(found: str, action: str) -> Finding:
    return Finding("", "hint", found, action)


def _versions() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"forecastle {__version__}, Python {python}, {packages}"


def _extras() -> Finding | str:
    missing = [f"{name}: {what}" for name, what in EXTRAS.items() if not _is_installed(name)]
    if missing:
        return _hint(f"not installed: {'; '.join(missing)}", "Install an extra where you want what it brings.")
    return f"all installed: {', '.join(EXTRAS)}"


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _configured(settings: Settings) -> str:
    """Name what is set, never its value."""
    names = sorted(f"{PREFIX}{name.upper()}" for name in settings.model_fields_set)
    return f"set: {', '.join(names)}" if names else "all at their defaults"


def _secrets(settings: Settings, folder: Path) -> Finding | str:
    """Look whether others may read what holds secrets: the file .env, and the home folder, where a backup would be."""
    file = folder / ".env"
    secret = [name for name in type(settings).model_fields if isinstance(getattr(settings, name), SecretStr)]
    kept = [name for name in secret if getattr(settings, name).get_secret_value()]
    if kept and file.is_file() and file.stat().st_mode & 0o077:
        return _hint(
            f"{file.resolve()} holds settings and others may read it", f"Keep it to yourself: chmod 600 {file}"
        )
    return f"{len(kept)} set, none shown" if kept else "none set"


def _alerts(settings: Settings) -> str:
    addresses = settings.alert_addresses
    if not addresses:
        return "told to the log alone; FORECASTLE_ALERT_URLS names whom else"
    import apprise

    unknown = sum(not apprise.Apprise().add(address) for address in addresses)
    if unknown:
        raise SettingsError(
            "addresses in FORECASTLE_ALERT_URLS that Apprise knows",
            f"{unknown} of {len(addresses)} that it does not",
            "Compare them with Apprise's list; they are not shown here, as they may hold passwords.",
        )
    return f"Apprise knows all {len(addresses)} that are set; forecastle alerts test sends each a message"


def _service(settings: Settings) -> Finding | str:
    """Look whether the service answers that the embedded rules watch; that it does not stops no run."""
    address = settings.service_url.rstrip("/")
    if not address:
        return "not watched by the embedded rules: FORECASTLE_SERVICE_URL is empty"
    try:
        with Client(settings.model_copy(update={"http_attempts": 1})) as client:
            answer = client.get(Request(f"{address}/health"))
    except ForecastleError as error:
        return _hint(f"does not answer: {error.found}", "Start it, or mend FORECASTLE_SERVICE_URL.")
    said = f"{Request(address).address} answered {answer.status}"
    return said if answer.status == 200 else _hint(said, "Look whether that is the service: FORECASTLE_SERVICE_URL.")


def _home(settings: Settings) -> str:
    """Check that the home folder can be written and has a format this code reads, without making it."""
    home = settings.home.resolve()
    formats.check_home(home)
    place = next(one for one in (home, *home.parents) if one.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise StorageUnavailable(
            f"a folder that can be written at {place}", "none", "Mend its permissions, or set FORECASTLE_HOME."
        )
    return f"{home} can be written" + ("" if home.exists() else "; it will be made by the first run")


def _disk(settings: Settings) -> str:
    place = next(one for one in (settings.home.resolve(), *settings.home.resolve().parents) if one.exists())
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE:
        raise StorageUnavailable(
            f"at least {LEAST_FREE / 2**30:.0f} GiB free below {place}",
            f"{free / 2**30:.1f} GiB",
            "Make room, or let forecastle prune remove what is old.",
        )
    return f"{free / 2**30:.0f} GiB free"


def _stores(settings: Settings, now: datetime) -> str:
    """Check that the place of archive and history answers, and that its clock agrees with this one."""
    if "://" not in settings.stores:
        return settings.stores or "in the home folder"
    place = store.open_store(settings.stores, settings)
    apart = abs(datetime.fromtimestamp(place.clock(), now.tzinfo) - now)
    return f"{place.uri} answers; {_agreeing(apart, place.uri)}"


def _journal(settings: Settings) -> str:
    shown = make_url(settings.journal_url).render_as_string(hide_password=True)
    path = make_url(settings.journal_url)
    if path.get_backend_name() == "sqlite" and not Path(path.database or "").exists():
        return f"{shown} will be made by the first run"
    with Journal(settings.journal_url):
        return f"{shown} answers, its tables are of this version"


def _registry(settings: Settings, now: datetime) -> str:
    address = settings.tracking_uri
    if not address.startswith(("http://", "https://")):
        return f"{address.partition('?')[0]}"
    with Client(settings.model_copy(update={"http_attempts": 1})) as client:
        answer = client.get(Request(f"{address.rstrip('/')}/version"))
    said = f"{Request(address).address} answers: MLflow {answer.body.decode(errors='replace')[:20]}"
    if "date" not in answer.headers:
        return said
    return f"{said}; {_agreeing(abs(parsedate_to_datetime(answer.headers['date']) - now), 'the server')}"


def _agreeing(apart: timedelta, whose: str) -> str:
    """Say that two clocks agree. Raises SettingsError where they do not: times of arrival would be wrong."""
    if apart > CLOCK_ROOM:
        raise SettingsError(
            f"a clock that agrees with that of {whose}",
            f"{apart.total_seconds():.0f} s between them",
            "Let this machine keep the time by NTP.",
        )
    return f"its clock and this one are {apart.total_seconds():.0f} s apart"


def _versioned(settings: Settings) -> str:
    shown = remotes.remote(settings).shown
    return f"DVC remote {shown}, pointers " + ("committed to git" if settings.git else "without git")


def _trees() -> str:
    trees.require_library()
    return "LightGBM's library can be opened"


def _listening(settings: Settings) -> str:
    return f"the service listens on {settings.host}:{settings.port}"


def _task(settings: Settings, task: Task, now: datetime) -> Finding | str:
    """Check that a task still is what its stores were begun for, and that its schedule and key fit its source."""
    identity.require(task, settings.task_folder(task.name))
    if task.source.provider == "file":
        return _table(task, now)
    budget.check_schedule([task], settings, now)
    window = max(task.source.window, task.gate.window)
    asked = PROVIDERS[task.source.provider].requests(task.measured, settings, now - window, now, now)
    keyed = "its key is set, " if any(request.secret_params for request in asked) else ""
    return f"{task.source.provider}: {keyed}its schedule fits what may be asked"


def _table(task: Task, now: datetime) -> Finding | str:
    """Read a task's own table as a run would, and look whether it reaches to now."""
    rows = file.observations(task)
    said = f"reads {task.source.path}: {first_look.span(rows)}"
    ends = rows.group_by(SERIES).agg(pl.max(TIMESTAMP)).sort(TIMESTAMP, SERIES)
    newest: datetime = ends[TIMESTAMP][-1]
    if (ended := first_look.ended(task, newest, now)) is not None:
        rule = task.gate.checks.get("freshness")
        stops = rule is None or rule.verdict in (None, "fail")
        found, _, action = ended.partition(" If ")
        health: Health = "ill" if stops else "hint"
        return Finding("", health, f"{said}. {found}", f"If {action}", GateError.exit_code if stops else 0)
    silent = [name for name, last in ends.iter_rows() if first_look.ended(task, last, now) is not None]
    if silent:
        named = ", ".join(silent[:MOST_NAMED]) + (
            f" and {len(silent) - MOST_NAMED} more" if silent[MOST_NAMED:] else ""
        )
        return _hint(f"{said}; no longer of {named}", "Look whether these series have ended; the others go on.")
    return said


def _hosts(settings: Settings, tasks: Sequence[Task], now: datetime) -> dict[str, str]:
    """Return the hosts that the tasks' sources are asked at, each with the address of its first page."""
    found: dict[str, str] = {}
    then = now - LONG_AGO  # the past may be asked for at another host than the present
    spans = ((now - max(task.frequency, DAY), now) for task in tasks)
    for task, span in [*zip(tasks, spans, strict=True), *((task, (then - DAY, then)) for task in tasks)]:
        try:
            asked = PROVIDERS[task.source.provider].requests(task.measured, settings, *span, now)
        except ForecastleError:  # the task's own examination has said so
            continue
        for one in asked:
            parts = urlsplit(one.url)
            if parts.scheme in ("http", "https"):
                found[parts.netloc.rpartition("@")[2]] = f"{parts.scheme}://{parts.netloc}/"
    return found


def _host(settings: Settings, address: str, now: datetime) -> str:
    with Client(settings.model_copy(update={"http_attempts": 1})) as client:
        answer = client.get(Request(address))
    if "date" not in answer.headers:
        return "answers"
    return f"answers; {_agreeing(abs(parsedate_to_datetime(answer.headers['date']) - now), 'the source')}"


def _champion(settings: Settings, task: Task) -> Finding | str:
    current = pointer.published(settings, task)
    if current is None:
        return _hint("none yet", "Train one: forecastle run train --task FILE")
    return f"model {current.version}"
