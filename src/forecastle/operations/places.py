"""Where the stores of an installation lie on this machine, and which lie elsewhere: what a backup can hold.

home/          the home folder: every task's archive, history, quarantine, models, reports, runs; MLflow's artifacts;
               the workspace of versions
journal.db     the journal, where it is SQLite
mlflow.db      MLflow's tracking store and registry, where it is SQLite
dvc-remote/    the DVC remote, where it is a folder
stores/        every task's archive and history, where FORECASTLE_STORES names another folder than the home folder
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from forecastle.settings import Settings

HOME, JOURNAL, REGISTRY, REMOTE, STORES = "home", "journal.db", "mlflow.db", "dvc-remote", "stores"


@dataclass(frozen=True)
class Places:
    """The local places by their name in a backup (absolute), and for each store that lies elsewhere what to do."""

    local: dict[str, Path]
    elsewhere: dict[str, str]


def places(settings: Settings) -> Places:
    """Return where the stores are, by the settings."""
    local = {HOME: settings.home.resolve()}
    elsewhere = {}
    for name, url, advice in (
        (JOURNAL, settings.journal_url, "back it up with pg_dump, before this backup"),
        (REGISTRY, settings.registry_uri, "back up the MLflow server's database and artifacts, after this backup"),
    ):
        path = _sqlite(url)
        if path is None:
            elsewhere[name] = advice
        else:
            local[name] = path
    if "://" in settings.remote:
        elsewhere[REMOTE] = "turn on the bucket's versioning, or copy it after this backup"
    else:
        local[REMOTE] = Path(settings.remote).resolve()
    if "://" in settings.stores:
        elsewhere[STORES] = (
            "history and archive are there: turn on the bucket's versioning, or copy it after this backup"
        )
    elif settings.stores and Path(settings.stores).resolve() != local[HOME]:
        local[STORES] = Path(settings.stores).resolve()
    return Places(local, elsewhere)


def _sqlite(url: str) -> Path | None:
    """Return the file of a SQLite address, None for any other."""
    try:
        address = make_url(url)
    except ArgumentError:
        return None
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        return None
    return Path(address.database).resolve()
