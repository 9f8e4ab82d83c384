"""Origins with everything a model may see and what came true: the only thing models are trained on and asked with.

The processed training table (the one that is versioned) is a set of examples written as a table, so that a model is
trained from exactly the bytes its data version names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.data.panel import Booleans, Floats, Integers, Panel
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import (
    Features,
    Matrix,
    last_value,
    origin_features,
    outcomes,
    seasonal_value,
    step_features,
    target_times,
    targets,
)
from forecastle.frame import SERIES, TIME


@dataclass(frozen=True, eq=False)
class Examples:
    """n origins with F origin features, G step features for each of H steps, and the truth of those steps."""

    recipe: Recipe
    series_ids: tuple[str, ...]  # what ``series`` refers to
    series: Integers  # (n,)
    origins: Integers  # (n,) timestamp of the origin, microseconds UTC
    issued_at: Integers  # (n,) when a forecast from it could be made
    origin: Matrix  # (n, F)
    step: npt.NDArray[np.float32]  # (H, n, G)
    times: Integers  # (n, H) timestamps of the steps
    last: Floats  # (n,) the last value known: what persistence forecasts
    seasonal: Floats  # (n, H) what the seasonal naive method forecasts
    truth: Floats  # (n, H) the newest version; NaN where it is missing or has not come yet
    outcome: Floats  # (n, H) the truth a live run scores with: its first version, or the settled one
    outcome_at: Integers  # (n, H) when that became known, microseconds UTC
    origin_names: tuple[str, ...]
    step_names: tuple[str, ...]

    @property
    def steps(self) -> int:
        """The number of steps ahead, H."""
        return int(self.truth.shape[1])

    def __len__(self) -> int:
        return len(self.origins)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of a row of ``at``."""
        return (*self.origin_names, *self.step_names)

    def at(self, horizon: int) -> Matrix:
        """Return the features of every origin for one step ahead (1…H): (n, F + G)."""
        return np.hstack([self.origin, self.step[horizon - 1]])

    def take(self, chosen: Integers | Booleans) -> Examples:
        """Return the chosen origins, by number or by mask."""
        return replace(
            self,
            **{name: getattr(self, name)[chosen] for name in _BY_ORIGIN},
            step=self.step[:, chosen],
        )

    def known_by(self, moment: int) -> Examples:
        """Return them as a model may learn from them at a moment: truths as they were scored by then, none known
        later."""
        return replace(self, truth=np.where(self.outcome_at <= moment, self.outcome, np.nan))


_BY_ORIGIN = ("series", "origins", "issued_at", "origin", "times", "last", "seasonal", "truth", "outcome", "outcome_at")
_LAST = "persistence"  # the column that parts origin features from step features


def make_examples(recipe: Recipe, panel: Panel, rows: Integers, issued: Integers | None = None) -> Examples:
    """Return the examples of origin rows (n,), as known at ``issued`` (default: when each row became known)."""
    steps = range(1, recipe.steps + 1)
    at_origin = origin_features(recipe, panel, rows, issued)
    at_step: list[Features] = [step_features(recipe, panel, rows, horizon, issued) for horizon in steps]
    came = [outcomes(panel, rows, horizon) for horizon in steps]
    return Examples(
        recipe=recipe,
        series_ids=panel.series_ids,
        series=panel.series_of[rows],
        origins=panel.timestamps[rows],
        issued_at=panel.issued_at[rows] if issued is None else issued,
        origin=at_origin.matrix,
        step=np.stack([features.matrix for features in at_step]),
        times=np.column_stack([target_times(panel, rows, horizon, recipe.grid) for horizon in steps]),
        last=last_value(recipe, panel, rows, issued),
        seasonal=np.column_stack([seasonal_value(recipe, panel, rows, horizon, issued) for horizon in steps]),
        truth=np.column_stack([targets(panel, rows, horizon) for horizon in steps]),
        outcome=np.column_stack([value for value, _ in came]),
        outcome_at=np.column_stack([known_at for _, known_at in came]),
        origin_names=at_origin.names,
        step_names=at_step[0].names,
    )


def to_table(examples: Examples) -> pl.DataFrame:
    """Write examples as a table: a row an origin; what belongs to a step h carries ``@h`` in its name."""
    columns: dict[str, object] = {
        SERIES: pl.Series(examples.series_ids, dtype=pl.String).gather(examples.series),
        "origin": _times(examples.origins),
        "issued_at": _times(examples.issued_at),
    }
    columns |= {name: examples.origin[:, place] for place, name in enumerate(examples.origin_names)}
    columns[_LAST] = examples.last
    for horizon in range(1, examples.steps + 1):
        here = examples.step[horizon - 1]
        columns |= {f"{name}@{horizon}": here[:, place] for place, name in enumerate(examples.step_names)}
        columns[f"time@{horizon}"] = _times(examples.times[:, horizon - 1])
        columns[f"naive@{horizon}"] = examples.seasonal[:, horizon - 1]
        columns[f"truth@{horizon}"] = examples.truth[:, horizon - 1]
        columns[f"outcome@{horizon}"] = examples.outcome[:, horizon - 1]
        columns[f"known@{horizon}"] = _times(examples.outcome_at[:, horizon - 1])
    return pl.DataFrame(columns)


def from_table(table: pl.DataFrame, recipe: Recipe) -> Examples:
    """Read what ``to_table`` wrote, to the bit."""
    # by place, not by name: a column of the user's may be called anything
    last = table.columns.index(_LAST)
    origin_names = tuple(table.columns[3:last])
    step_names = tuple(name.removesuffix("@1") for name in table.columns[last + 1 : table.columns.index("time@1")])
    ids = tuple(sorted(table[SERIES].unique()))
    steps = range(1, recipe.steps + 1)
    return Examples(
        recipe=recipe,
        series_ids=ids,
        series=np.searchsorted(np.array(ids), table[SERIES].to_numpy().astype(str)).astype(np.int64),
        origins=table["origin"].dt.epoch("us").to_numpy(),
        issued_at=table["issued_at"].dt.epoch("us").to_numpy(),
        origin=_matrix(table, origin_names),
        step=np.stack([_matrix(table, [f"{name}@{horizon}" for name in step_names]) for horizon in steps]),
        times=np.column_stack([table[f"time@{horizon}"].dt.epoch("us").to_numpy() for horizon in steps]),
        last=table[_LAST].to_numpy(),
        seasonal=np.column_stack([table[f"naive@{horizon}"].to_numpy() for horizon in steps]),
        truth=np.column_stack([table[f"truth@{horizon}"].to_numpy() for horizon in steps]),
        outcome=np.column_stack([table[f"outcome@{horizon}"].to_numpy() for horizon in steps]),
        outcome_at=np.column_stack([table[f"known@{horizon}"].dt.epoch("us").to_numpy() for horizon in steps]),
        origin_names=origin_names,
        step_names=step_names,
    )


def _times(microseconds: Integers) -> pl.Series:
    return pl.Series(microseconds).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(TIME)


def _matrix(table: pl.DataFrame, names: Sequence[str]) -> Matrix:
    return np.column_stack([table[name].to_numpy() for name in names]).astype(np.float32, copy=False)
