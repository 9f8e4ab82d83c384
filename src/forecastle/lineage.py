"""Lineage: from a forecast back to the answers it rests on, by what each store wrote down at the time.

    forecast → model version → data version → archived answers → git commit

The journal knows which model made a forecast, the registry which table a model learnt, the workspace of versions which
moment's knowledge a table holds (and the commit of its pointer), the admissions which archived answers had been let
in by then. Nothing is guessed: what no store knows is None, or said to be missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forecastle.data import admissions, versioning
from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.providers import gives_events
from forecastle.data.store import task_stores
from forecastle.data.versioning import Record
from forecastle.errors import UserError
from forecastle.frame import iso
from forecastle.models import pointer, publishing, registry
from forecastle.models.pointer import ModelVersion
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task

SHORTEST = 8  # digits of a forecast's id
NEWEST = 5  # ids that are offered where one is unknown


@dataclass(frozen=True)
class Lineage:
    """What a forecast or a model rests on; ``missing`` names the answers that the archive no longer holds.

    Answers of a task that this one joins are named ``<task>: <name>``. One that brought nothing new may have been
    pruned since: nothing rests on it, and it is not listed then.
    ``forecast`` is the journal's row. ``data`` is None where the workspace has no record of the data version.
    """

    task: str
    forecast: dict[str, Any] | None
    model: ModelVersion | None
    data_version: str
    data: Record | None
    answers: tuple[str, ...]
    missing: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        kept = ("forecast_id", "series_id", "origin", "timestamp", "horizon", "value", "lower", "upper", "issued_at")
        found = self.forecast
        return {
            "task": self.task,
            "forecast": None if found is None else {name: found[name] for name in kept},
            "model": None if self.model is None else _fields(self.model),
            "data_version": self.data_version,
            "data": None if self.data is None else _fields(self.data),
            "answers": list(self.answers),
            "missing": list(self.missing),
        }


@dataclass(frozen=True)
class Needed:
    """What the lineage of live models rests on, by the names the stores use; ``runs`` are MLflow's, ``folders`` those
    of our own runs (``runs/<name>``). Archived answers of joined tasks are named ``<task>: <name>``."""

    archived: frozenset[str]
    data_versions: frozenset[str]
    model_versions: frozenset[str]
    runs: frozenset[str]
    folders: frozenset[str]


def trace(settings: Settings, task: Task, journal: Journal, name: str) -> Lineage:
    """Return the lineage of a forecast (its id, or its first digits, at least eight) or of a model version.

    ``champion`` and ``challenger`` name the version they stand for. Raises UserError for a name nobody knows, with the
    newest that are known.
    """
    if name in publishing.ALIASES or re.fullmatch(r"\d{1,7}", name):
        model = publishing.find(settings, task, name.lstrip("0") or name)
        return _of_data(settings, task, None, model, model.data_version)
    forecast = _forecast(task, journal, name.lower())
    found = {one.version: one for one in registry.versions(settings, task)}.get(forecast["model_version"])
    return _of_data(settings, task, forecast, found, forecast["data_version"])


def needed(settings: Settings, task: Task, journal: Journal) -> Needed:
    """Return what must stay for the lineage of live models: those that serve, want to, or have forecasts waiting.

    Raises RegistryUnavailable or StorageUnavailable where a store does not answer: then nothing may be deleted.
    """
    known = {one.version: one for one in registry.versions(settings, task)}
    serving = pointer.published(settings, task)
    named = [registry.alias(settings, task, "champion"), registry.alias(settings, task, "challenger")]
    waiting = journal.waiting_models(task.name)
    models = {one.version for one in named if one is not None} | {version for version, _ in waiting}
    data = {one.data_version for version, one in known.items() if version in models} | {one for _, one in waiting}
    if serving is not None:
        models, data = models | {serving.version}, data | {serving.data_version}
    records = [one for one in versioning.records(settings, task) if one.version in data]
    unknown = data - {one.version for one in records}
    # A table without a record may rest on anything that was ever let in.
    until = None if unknown else max((one.as_of for one in records if one.as_of), default=None)
    return Needed(
        archived=frozenset(admissions.rested_on(settings, task, until) if data else ()),
        data_versions=frozenset(data),
        model_versions=frozenset(models),
        runs=frozenset(known[version].run_id for version in models if version in known),
        folders=frozenset(one.run for one in records),
    )


def _of_data(
    settings: Settings, task: Task, forecast: dict[str, Any] | None, model: ModelVersion | None, data_version: str
) -> Lineage:
    data = versioning.record(settings, task, data_version)
    let_in = admissions.rested_on(settings, task, data.as_of) if data is not None and data.as_of else ()
    gone: dict[str, list[str]] = {}
    for name in let_in:
        owner, archived = _owner(task, name)
        if not Archive(task_stores(settings, owner) / "archive").holds(archived):
            gone.setdefault(owner, []).append(name)
    missing = {name for owner, names in gone.items() for name in _brought(settings, task, owner, names)}
    idle = {name for names in gone.values() for name in names} - missing
    answers = tuple(name for name in let_in if name not in idle)
    return Lineage(
        task.name, forecast, model, data_version, data, answers, tuple(name for name in answers if name in missing)
    )


def _owner(task: Task, name: str) -> tuple[str, str]:
    """Return the task an answer was collected for, and its name in that task's archive."""
    owner, marked, archived = name.partition(": ")
    return (owner, archived) if marked else (task.name, name)


def _brought(settings: Settings, task: Task, owner: str, names: Sequence[str]) -> list[str]:
    """Return those of a task's answers that brought rows its history holds; of events, any may have."""
    if owner == task.name and gives_events(task):
        return list(names)
    times = History(task_stores(settings, owner) / "history", ()).collections()
    brought = {f"{one:%Y/%m/%d/%H%M%S}" for one in times}
    return [name for name in names if _owner(task, name)[1][:17] in brought]


def _forecast(task: Task, journal: Journal, digits: str) -> dict[str, Any]:
    if re.fullmatch(rf"[0-9a-f]{{{SHORTEST},32}}", digits):
        found = journal.find(task.name, digits)
        if found.height == 1:
            return found.row(0, named=True)
        if found.height > 1:
            raise UserError(
                f"one forecast of task {task.name!r} whose id begins with {digits}",
                "several",
                "Give more of its digits.",
            )
    newest = journal.latest(task.name).sort("issued_at", "timestamp", descending=True)
    listing = "; ".join(
        f"{row['forecast_id'][:12]} ({row['series_id']}, {iso(row['timestamp'])})"
        for row in newest.head(NEWEST).iter_rows(named=True)
    )
    raise UserError(
        f"a forecast's id (32 hexadecimal digits, or the first {SHORTEST}) or a model version of task {task.name!r};"
        f" the newest: {listing or 'none yet'}",
        repr(digits),
        "Ids stand in the service's answers and tables, versions in the registry.",
    )


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
