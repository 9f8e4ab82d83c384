"""The live errors of a task, summed up by the journal's database: a loop asks for them at every pass.

The figures are those of ``models.evaluation``, of the same rows; only R² is not among them, and a number whose square
no database holds leaves its row out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import sqrt
from typing import Any

import sqlalchemy as sql

from forecastle.models.untrained import UNTRAINED
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.tables import OUTCOMES

LARGEST = 1e150


def live_figures(journal: Journal, task: str, since: datetime) -> dict[str, Any]:
    """Return RMSE, MAE, skill, coverage and n of what models forecast for ``since`` and later, pooled and for each
    ``horizon``; a figure that cannot be had is None."""
    error, naive = OUTCOMES.c.value - OUTCOMES.c.actual, OUTCOMES.c.last - OUTCOMES.c.actual
    inside = sql.case((OUTCOMES.c.actual.between(OUTCOMES.c.lower, OUTCOMES.c.upper), 1), else_=0)
    judged = sql.case((OUTCOMES.c.lower.is_not(None) & OUTCOMES.c.upper.is_not(None), 1), else_=0)
    sums = (sql.func.sum(one) for one in (error * error, sql.func.abs(error), naive * naive, judged, judged * inside))
    of_models = (OUTCOMES.c.task == task) & (OUTCOMES.c.timestamp >= since) & (OUTCOMES.c.model_version != UNTRAINED)
    numbers = (OUTCOMES.c.value, OUTCOMES.c.last, OUTCOMES.c.actual)
    whole = sql.and_(*(one.between(-LARGEST, LARGEST) for one in numbers))  # and so not null
    query = sql.select(OUTCOMES.c.horizon, sql.func.count(), *sums).where(of_models & whole)
    with journal.transaction() as connection:
        rows = connection.execute(query.group_by(OUTCOMES.c.horizon).order_by(OUTCOMES.c.horizon)).all()
    pooled: Sequence[Any] = [sum(column) for column in zip(*(row[1:] for row in rows), strict=True)] or [0] * 6
    return {**_figures(*pooled), "horizons": [{"horizon": row[0], **_figures(*row[1:])} for row in rows]}


def _figures(n: int, squared: float, absolute: float, naive: float, judged: int, inside: int) -> dict[str, Any]:
    return {
        "rmse": sqrt(squared / n) if n else None,
        "mae": absolute / n if n else None,
        "skill": 1 - sqrt(squared / naive) if naive else None,
        "coverage": inside / judged if judged else None,
        "n": n,
    }
