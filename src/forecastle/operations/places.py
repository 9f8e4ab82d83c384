"""Where the stores of an installation lie, and which of them a backup cannot reach.

home/          the home folder: every task's archive, history, quarantine, models, reports, runs; MLflow's artifacts;
               the workspace of versions
journal.db     the journal, where it is SQLite
mlflow.db      MLflow's tracking store and registry, where it is SQLite
dvc-remote/    the DVC remote, where it is a folder
stores/        every task's archive and history, where FORECASTLE_STORES names a bucket, or another folder than the home
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from forecastle.data.store import Store, open_store
from forecastle.monitoring.tables import make_engine
from forecastle.settings import Settings

HOME, JOURNAL, REGISTRY, REMOTE, STORES = "home", "journal.db", "mlflow.db", "dvc-remote", "stores"


@dataclass(frozen=True)
class Places:
    """The local places by their name in a backup (absolute), for each store that lies elsewhere what to do, and the
    bucket of archive and history, where they lie in one."""

    local: dict[str, Path]
    elsewhere: dict[str, str]
    bucket: Store | None = None

    @property
    def known(self) -> dict[str, str]:
        """The address of each store that a backup holds, by its name there."""
        found = {name: str(path) for name, path in self.local.items()}
        return found if self.bucket is None else {**found, STORES: self.bucket.uri}


def places(settings: Settings) -> Places:
    """Return where the stores are, by the settings. Raises SettingsError for an address that cannot be."""
    local = {HOME: settings.home.resolve()}
    elsewhere = {}
    for name, url, advice in (
        (JOURNAL, settings.journal_url, "back it up with pg_dump, before this backup"),
        (REGISTRY, settings.registry_uri, "back up the MLflow server's database and artifacts, after this backup"),
    ):
        path = _sqlite(url)
        if path is None:
            if name == JOURNAL:
                make_engine(url).dispose()  # an address that cannot be is a mistake, and no other machine's
            elsewhere[name] = advice
        else:
            local[name] = path
    if "://" in settings.remote:
        elsewhere[REMOTE] = "turn on the bucket's versioning, or copy it after this backup"
    else:
        local[REMOTE] = Path(settings.remote).resolve()
    bucket = None
    if "://" in settings.stores:
        bucket = open_store(settings.stores, settings)
    elif settings.stores and Path(settings.stores).resolve() != local[HOME]:
        local[STORES] = Path(settings.stores).resolve()
    return Places(local, elsewhere, bucket)


def _sqlite(url: str) -> Path | None:
    """Return the file of a SQLite address, None for any other."""
    try:
        address = make_url(url)
    except ArgumentError:
        return None
    if address.get_backend_name() != "sqlite" or not address.database or address.database == ":memory:":
        return None
    return Path(address.database).resolve()
