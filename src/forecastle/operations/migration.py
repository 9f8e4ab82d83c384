"""Bringing the stores of an older forecastle forward: ``forecastle migrate``."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import make_url
from sqlalchemy.exc import DatabaseError, InterfaceError

from forecastle.data import formats
from forecastle.errors import StorageUnavailable, plainly
from forecastle.monitoring import migrations
from forecastle.monitoring.tables import make_engine
from forecastle.operations.places import JOURNAL, places
from forecastle.settings import Settings


@dataclass(frozen=True)
class Step:
    """One step forward of one store: from and to which format, and what it does."""

    store: str
    to: str
    says: str


def migrate(settings: Settings, dry_run: bool = False) -> tuple[Step, ...]:
    """Bring the home folder and the journal to the formats of this code; return the steps (to be) taken, in order.

    Done again, after a crash anywhere, it goes on where it stopped; stop what runs on the stores first. MLflow's own
    database is MLflow's to migrate. Raises FormatError where a store is newer than this code.
    """
    home = settings.home
    formats.refuse_newer(home)
    steps = [Step("home", str(one.to), one.says) for one in formats.pending(home)]
    file = places(settings).local.get(JOURNAL)
    engine = make_engine(settings.journal_url) if file is None or file.exists() else None
    try:
        if engine is not None:
            steps += [Step("journal", one, "run the script of this revision") for one in migrations.pending(engine)]
        if not dry_run and steps:
            formats.migrate_home(home)
            if engine is not None:
                migrations.open_schema(engine, forward=True)
    except (DatabaseError, InterfaceError) as error:
        raise StorageUnavailable(
            f"the journal at {make_url(settings.journal_url).render_as_string(hide_password=True)} to answer",
            plainly(getattr(error, "orig", None) or error),
            "Mend the database or restore it from a backup, then migrate again.",
        ) from error
    finally:
        if engine is not None:
            engine.dispose()
    return tuple(steps)
