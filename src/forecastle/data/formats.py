"""Which format the stores of a home folder have, so that no code reads what it does not understand.

    <home>/store.json    {"format": 1, "forecastle": "0.1.0"}: how files below the home folder are laid out

A file that travels alone (an archived answer's note, a batch, a model, a backup) carries a ``format`` of its own; one
without was written before there were formats and counts as 1. The journal keeps its revision in its own database
(``monitoring.migrations``). Older code refuses what is newer; what is older is brought forward by ``forecastle
migrate``, or at once where nothing has to be rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecastle import __version__
from forecastle.errors import FormatError, SettingsError, StorageUnavailable, plainly
from forecastle.frame import write_json

NOTE = "store.json"
RESTORING = "restoring.json"  # there while a backup is being put into place


@dataclass(frozen=True)
class Migration:
    """A step from one layout of a home folder to the next; ``work`` may be done again after a crash anywhere.

    A ``harmless`` one rewrites nothing that older code reads, and is done by whoever opens the stores first.
    """

    to: int
    says: str
    work: Callable[[Path], None]
    harmless: bool = False


def _nothing(home: Path) -> None:
    """The first format is the layout there was before formats were noted: only the note is new."""


MIGRATIONS: tuple[Migration, ...] = (Migration(1, "note the format of the stores", _nothing, harmless=True),)
FORMAT = MIGRATIONS[-1].to


def open_home(home: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Make sure that the home folder can be used: note the format of a new one, bring one forward where harmless.

    Raises FormatError where it is newer than this code, needs ``forecastle migrate``, or holds half a restored backup.
    """
    check_home(home, migrations)
    if pending(home, migrations) or not (home / NOTE).exists():
        migrate_home(home, migrations)


def check_home(home: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Raise FormatError unless the home folder can be used as it is, or after a harmless step; write nothing."""
    refuse_newer(home, migrations)
    if any(not one.harmless for one in pending(home, migrations)):
        raise FormatError(
            f"the stores in {home} in format {migrations[-1].to}",
            f"format {found_format(home)}",
            "Stop what runs on them, make a backup, then run: forecastle migrate",
        )


def refuse_newer(home: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> None:
    """Raise FormatError where the home folder is newer than this code, or holds half a restored backup."""
    if (home / RESTORING).exists():
        raise FormatError(
            f"whole stores in {home}",
            "a backup that was being restored when something stopped it",
            "Restore it again: forecastle restore --from BACKUP --force",
        )
    found = found_format(home)
    if found is not None:
        require(found, migrations[-1].to, f"the stores in {home}", wrote=_noted(home))


def pending(home: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> tuple[Migration, ...]:
    """Return the steps that a home folder still needs, in order; a new one needs none."""
    found = found_format(home)
    return () if found is None else tuple(one for one in migrations if one.to > found)


def migrate_home(home: Path, migrations: tuple[Migration, ...] = MIGRATIONS) -> tuple[Migration, ...]:
    """Bring a home folder forward, step by step, each noted when it is done; return the steps that were taken."""
    steps = pending(home, migrations)
    for one in steps:
        one.work(home)
        _write(home, one.to)
    if not (home / NOTE).exists():
        _write(home, migrations[-1].to)
    return steps


def found_format(home: Path) -> int | None:
    """Return the format a home folder is in: 0 for one from before formats, None for one without any store yet."""
    note = _noted(home)
    if note:
        return int(note.get("format", 0))
    old = home.is_dir() and any(
        one.name in ("journal.db", "mlflow.db", "versions") or (one / "archive").is_dir() or (one / "models").is_dir()
        for one in home.iterdir()
    )
    return 0 if old else None


def require(found: int, known: int, what: str, wrote: Mapping[str, Any] | None = None) -> None:
    """Raise FormatError where a format is newer than the newest this code knows."""
    if found > known:
        writer = (wrote or {}).get("forecastle")
        raise FormatError(
            f"{what} in format {known} or older",
            f"format {found}" + (f", written by forecastle {writer}" if writer else ""),
            f"Use forecastle {writer} or newer; this is {__version__}." if writer else "Use a newer forecastle.",
        )


def _noted(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / NOTE).read_bytes())
        return {**found, "format": int(found["format"])}
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise SettingsError(f"a folder at {home}", "a file on the way to it", "Mend FORECASTLE_HOME.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(
            f"a readable note of the stores' format at {home / NOTE}",
            plainly(error),
            "Restore the home from its backup.",
        ) from error


def _write(home: Path, number: int) -> None:
    write_json(home / NOTE, {"format": number, "forecastle": __version__})
