"""Covariates known ahead: forecasts of them as their source issued them, never what was measured or re-analysed later.

They lie in a history of their own beside that of the observations. ``timestamp`` is the time that is forecast, and both
``available_at`` and ``collected_at`` are when the forecast was issued: a newer one of the same time is a revision, and
whoever reads as of a moment sees what had been said by then. What they are used for is the feature ``ahead``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from forecastle.data.history import History
from forecastle.data.store import Place, at
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, SERIES, TIME, TIMESTAMP, conform, instant
from forecastle.task import Task

ISSUED_AT = "issued_at"
FOLDER = "issued"


def store(history: Place, columns: tuple[str, ...]) -> History:
    """Return where the forecasts of these columns lie, beside a task's history."""
    return History(at(history) / FOLDER, columns)


def read(
    history: Place, columns: tuple[str, ...], as_of: datetime | None, start: datetime | None = None
) -> pl.DataFrame | None:
    """Return every forecast of these columns issued by ``as_of`` for times from ``start`` on; None for no columns."""
    return store(history, columns).versions(as_of=as_of, start=start) if columns else None


def make_issued(task: Task, told: Sequence[pl.DataFrame], later: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """Return the forecasts that answers hold, as observations whose both times are that of issue.

    ``told`` are tables with ``issued_at`` of their own; ``later`` are rows that cannot have been measured ``now``: what
    the source says of them it has issued by now. Of those none is kept that lies further ahead than the task forecasts.
    A value outside its column's range is missing, a row without any value is none.
    """
    names = task.ahead
    near = later.filter(pl.col(TIMESTAMP) <= instant(now + task.horizon + task.frequency))
    issued = pl.col(ISSUED_AT).cast(TIME)
    rows = pl.concat(
        table.select(SERIES, TIMESTAMP, issued, *names)
        for table in (near.with_columns(instant(now).alias(ISSUED_AT)), *told)
    )
    rows = rows.filter(pl.col(ISSUED_AT) <= instant(now)).with_columns(_inside(task, name) for name in names)
    times = [pl.col(ISSUED_AT).alias(name) for name in (AVAILABLE_AT, COLLECTED_AT)]
    return conform(rows.filter(pl.any_horizontal(pl.col(names).is_not_null())).with_columns(times), names)


def _inside(task: Task, name: str) -> pl.Expr:
    column, value = task.columns[name], pl.col(name)
    low, high = (
        pl.lit(True) if bound is None else test(bound)
        for bound, test in ((column.minimum, value.ge), (column.maximum, value.le))
    )
    return pl.when(low & high).then(value).alias(name)
