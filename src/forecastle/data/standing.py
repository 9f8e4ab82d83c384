"""What was released from quarantine stays released: the gate judges the rest of a batch that brings it once more.

A table of one's own that is read whole, or a live window, brings rows again that somebody has let into the history
against the gate's verdict. Where the gate stops a batch, or series of it, it looks at the batch without those rows too,
and withholds only what still fails then. A row is one that was released if its series, time and values, as they came,
are the same. What fails for rows that are not there, or could not have been released, fails as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from forecastle.data import quality_check, quarantine
from forecastle.data.ingestion import Batch, load_batch
from forecastle.data.quality_check import QualityReport
from forecastle.frame import KEYS, SERIES
from forecastle.rule import CONTRACT
from forecastle.task import Task

OF_ABSENCE = ("freshness", "volume", "gaps")
"""Checks of rows that are not there: no row that somebody let pass answers for those."""


def judge(
    task: Task,
    home: Path,
    batch: Batch,
    now: datetime,
    recent: pl.DataFrame,
    released: Mapping[str, Any] | None,
) -> tuple[QualityReport, pl.DataFrame]:
    """Return what ``quality_check.judge`` says of a batch; what failed by rows that were released before passes.

    The report names who released them last. ``home`` is the task's, ``released`` the release of this very batch.
    """

    def judged(rows: pl.DataFrame, note: Mapping[str, Any] | None, without: tuple[str, ...] = ()) -> Any:
        checks = {name: one for name, one in quality_check.CHECKS.items() if name not in without}
        return quality_check.judge(task, rows, batch.start, batch.end, now, recent, note, checks)

    report, passed = judged(batch.rows, released)
    failed = {one.check for one in report.failures}
    if not failed or released is not None or failed & {*OF_ABSENCE, *CONTRACT}:
        return report, passed
    note, rest = _not_released(home, batch.rows, now)
    if note is None:
        return report, passed
    of_rest, _ = judged(rest, None, OF_ABSENCE)
    if of_rest.refused:
        return report, passed
    everything, masked = judged(batch.rows, note)
    held = of_rest.withheld
    return replace(everything, refused=False, withheld=held), masked.filter(~pl.col(SERIES).is_in(list(held)))


def _not_released(home: Path, rows: pl.DataFrame, now: datetime) -> tuple[Mapping[str, Any] | None, pl.DataFrame]:
    """Return the last release by which rows of these are in the history, None where there is none, and the others."""
    said = [*KEYS, *(name for name in rows.columns if rows[name].dtype == pl.Float64)]
    last: Mapping[str, Any] | None = None
    for one in quarantine.quarantined(home):
        if one.released is None or one.is_waiting:
            continue
        let_in = load_batch(one.folder)
        is_known = not let_in.live or one.released["at"] <= now  # what was not live counts as known long ago
        if not is_known or not set(said) <= set(let_in.rows.columns):  # or of a task that measured other columns then
            continue
        rest = rows.join(let_in.rows, on=said, how="anti", nulls_equal=True, maintain_order="left")
        if rest.height < rows.height:
            last = one.released if last is None or one.released["at"] >= last["at"] else last
            rows = rest
    return last, rows
