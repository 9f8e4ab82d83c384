"""A table of recent observations as origins to forecast from: no task and no history is needed, only a recipe.

Everything in the table counts as known. What is missing is missing: a table that reaches back less than
``Recipe.lookback`` gives forecasts that rest on less.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from forecastle.data.examples import Examples, make_examples
from forecastle.data.panel import build_panel
from forecastle.data.recipe import Recipe
from forecastle.duration import duration_text
from forecastle.errors import UserError
from forecastle.frame import AVAILABLE_AT, COLLECTED_AT, KEYS, SERIES, TIME, TIMESTAMP, conform
from forecastle.task import Task, make_task, nearest


def newest_origins(recipe: Recipe, observations: pl.DataFrame) -> Examples:
    """Return the newest step of the table as the origin of every series in it, whatever the order of its rows.

    ``observations`` has series_id, timestamp (UTC where it names no zone) and the recipe's columns; others are left
    out, and of a covariate that is missing nothing is known. Raises UserError for a table without rows or target, and
    for a series that the recipe does not know.
    """
    wanted = (*KEYS, recipe.columns[0])
    if absent := [name for name in wanted if name not in observations.columns]:
        listing = "; ".join(f"no {name!r}{nearest(name, observations.columns)}" for name in absent)
        raise UserError(f"the columns {', '.join(wanted)}", listing, "Give a row for every series and timestamp.")
    try:
        rows = observations.with_columns(
            pl.col(SERIES).cast(pl.String), _utc(observations[TIMESTAMP]).alias(TIMESTAMP)
        ).drop_nulls(KEYS)
        given = [name for name in recipe.columns if name in rows.columns]
        rows = rows.with_columns(pl.col(name).cast(pl.Float64) for name in given)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise UserError(
            "times as ISO 8601 and values as numbers", str(error).splitlines()[0], "Mend that column."
        ) from None
    if rows.is_empty():
        raise UserError("recent observations to forecast from", "no row", "Give at least the newest of every series.")
    if strange := sorted(set(rows[SERIES]) - set(recipe.series_ids)):
        raise UserError(
            f"series the model has learnt: {', '.join(recipe.series_ids)}",
            ", ".join(f"{name!r}{nearest(name, recipe.series_ids)}" for name in strange),
            "Leave the others out, or train on them first.",
        )
    known = pl.col(TIMESTAMP) + timedelta(microseconds=recipe.step)
    rows = rows.with_columns(known.alias(AVAILABLE_AT), known.alias(COLLECTED_AT))
    newest: datetime = rows[TIMESTAMP].max()  # type: ignore[assignment]
    panel = build_panel(conform(rows, recipe.columns), _like(recipe), newest, recipe.columns)
    return make_examples(recipe, panel, panel.last_rows)


def _like(recipe: Recipe) -> Task:
    """Return a task whose observations lie on the recipe's grid."""
    step = timedelta(microseconds=recipe.step)
    return make_task(
        {
            "name": "recent",
            "domain": "environmental",
            "timezone": recipe.timezone,
            "frequency": duration_text(step),
            "horizon": duration_text(step * recipe.steps),
            "grid": recipe.grid,
            "target": recipe.columns[0],
            "source": {"provider": "file", "path": "recent"},
            "columns": {name: {} for name in recipe.columns},
        }
    )


def _utc(times: pl.Series) -> pl.Series:
    """Return times as UTC, which they are where they name no zone; text is read as ISO 8601."""
    if times.dtype == pl.String:
        read = [None if one is None else datetime.fromisoformat(one) for one in times]
        found = [one if one is None or one.tzinfo else one.replace(tzinfo=UTC) for one in read]
        return pl.Series(TIMESTAMP, [None if one is None else one.astimezone(UTC) for one in found], dtype=TIME)
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None:
        return times.dt.convert_time_zone("UTC").cast(TIME)
    return times.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(TIME)
