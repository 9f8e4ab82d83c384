"""The quarantine: what the gate refused, batch by batch, until somebody decides.

    <batch>/batch.parquet, batch.json       the refused rows (of the series that were withheld, or all)
    <batch>/quality.json, quality.html      the gate's report, with the reason
    <batch>/release.json                    who has released it, when and why; ``done`` once its rows are in the history
    <batch>/released/quality.json, .html    the report on the batch as it was let pass

A release is noted before its rows go into the history and marked done after: killed in between, it is still listed as
waiting, and done again it ends in the same state, with the moment of the first try.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from forecastle.data.ingestion import BATCH_NOTE
from forecastle.errors import StorageUnavailable, UserError, plainly
from forecastle.frame import write_json
from forecastle.rule import CONTRACT
from forecastle.task import nearest

RELEASE = "release.json"
REPORT = "quality.json"


@dataclass(frozen=True)
class Quarantined:
    """One batch in quarantine: of which task, when it was collected, how many rows, why, and whether it is released.

    ``series`` are those that were withheld; none where the whole batch was refused.
    """

    task: str
    name: str
    collected_at: datetime
    rows: int
    series: tuple[str, ...]
    checks: tuple[str, ...]
    reason: str
    released: Mapping[str, Any] | None
    folder: Path

    @property
    def is_waiting(self) -> bool:
        """Whether nobody has let it into the history yet."""
        return self.released is None or not self.released["done"]

    @property
    def page(self) -> Path:
        """The gate's report as a page."""
        return self.folder / "quality.html"

    def report(self) -> dict[str, Any]:
        """Return the gate's report as it was saved."""
        return _report(self.folder)

    def as_dict(self) -> dict[str, Any]:
        """Return what is known of it as plain data."""
        fields = ("task", "name", "collected_at", "rows", "series", "checks", "reason", "released")
        return {**{name: getattr(self, name) for name in fields}, "waiting": self.is_waiting, "page": self.page}


def quarantined(home: Path) -> tuple[Quarantined, ...]:
    """Return every batch in a task's quarantine, the oldest first; one that is still being written is left out."""
    return tuple(_read(path.parent) for path in sorted((home / "quarantine").glob(f"*/{BATCH_NOTE}")))


def find(home: Path, name: str) -> Quarantined:
    """Return one batch by its name. Raises UserError with the nearest name where there is none."""
    folder = home / "quarantine" / name
    if Path(name).name == name and (folder / BATCH_NOTE).exists():
        return _read(folder)
    there = [one.name for one in quarantined(home)]
    raise UserError(
        f"a batch in {home / 'quarantine'}", f"no {name!r}{nearest(name, there)}", "See: forecastle quarantine list"
    )


def note_release(one: Quarantined, by: str, at: datetime, because: str) -> Mapping[str, Any]:
    """Note who releases a batch, when and why, and return that note; one that is there already stays as it is.

    Raises UserError where the batch is none that the history can hold.
    """
    if one.released is not None:
        return one.released
    broken = [check for check in one.checks if check in CONTRACT]
    if broken:
        raise UserError(
            f"a batch that the history can hold in {one.folder}",
            f"it failed {', '.join(broken)}",
            "It can't be released. Mend the source, or the provider, and collect again.",
        )
    note = {"by": by, "at": at, "because": because, "done": False}
    write_json(one.folder / RELEASE, note)
    return _release(one.folder) or {}


def mark_released(one: Quarantined, note: Mapping[str, Any], **figures: int) -> None:
    """Mark a release as done: its rows are in the history."""
    write_json(one.folder / RELEASE, {**note, **figures, "done": True})


def release_of(home: Path, name: str) -> Mapping[str, Any] | None:
    """Return who released the batch of this name, when and why; None where nobody has."""
    return _release(home / "quarantine" / name)


def _read(folder: Path) -> Quarantined:
    batch, report = _load(folder / BATCH_NOTE), _report(folder)
    failed = [one for one in report["findings"] if one["verdict"] == "fail"]
    return Quarantined(
        task=report["task"],
        name=folder.name,
        collected_at=datetime.fromisoformat(batch["collected_at"]),
        rows=batch["rows"],
        series=tuple(report.get("withheld", {})),
        checks=tuple(one["check"] for one in failed),
        reason="; ".join(f"{one['check']}: {one['found']}" for one in failed),
        released=_release(folder),
        folder=folder,
    )


def _report(folder: Path) -> dict[str, Any]:
    return _load(folder / REPORT)


def _release(folder: Path) -> Mapping[str, Any] | None:
    if not (folder / RELEASE).exists():
        return None
    found = _load(folder / RELEASE)
    return {**found, "at": datetime.fromisoformat(found["at"])}


def _load(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise StorageUnavailable(
            f"a readable {file}", plainly(error), "Restore that folder from its backup, or remove it."
        ) from error
    return found
