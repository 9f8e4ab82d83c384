"""A registered model as MLflow's ``pyfunc`` flavour loads it, for whoever has forecastle installed.

    model = mlflow.pyfunc.load_model("models:/nyc-temperature@champion")
    forecasts = model.predict(observations)

MLflow imports this module by its name (``loader_module``) and gives it the folder of the bundle, so nothing is ever
unpickled. ``observations`` is a table of recent observations of one or more of the model's series: series_id, timestamp
(the start of the step, UTC, without a zone, as MLflow's signatures want it), and the columns the model reads. The
newest timestamp of all is the origin; the further back the table reaches (``Recipe.lookback``), the more the features
know. The answer has a row for each series and step ahead: series_id, origin, horizon, timestamp, value, lower, upper.
Its intervals are those of the back-test: what was recalibrated from live outcomes since lies in the journal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from forecastle.data.recent import newest_origins
from forecastle.models.bundle import Bundle, load
from forecastle.models.model import apply
from forecastle.models.training import forecast_rows

if TYPE_CHECKING:
    import pandas as pd

ANSWER = ("series_id", "origin", "horizon", "timestamp", "value", "lower", "upper")


class Forecaster:
    """A loaded bundle that answers tables with tables."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Forecast every step ahead of the newest observation, for every series in the table. ``params`` has none."""
        import pandas as pd

        given = {name: pl.Series(name, _plain(model_input[name])) for name in map(str, model_input.columns)}
        made = forecast(self.bundle, pl.DataFrame(given))
        columns: dict[str, Any] = {name: made[name].to_numpy() for name in ANSWER[1:]}
        return pd.DataFrame({"series_id": made["series_id"].to_list(), **columns})


def forecast(bundle: Bundle, observations: pl.DataFrame) -> pl.DataFrame:
    """Return the forecasts of ANSWER from a table of recent observations (see ``recent.newest_origins``)."""
    examples = newest_origins(bundle.recipe, observations)
    made = apply(bundle.model, examples)
    rows = forecast_rows(examples, made.value, made.value - made.half, made.value + made.half)
    times = [pl.col(name).dt.replace_time_zone(None) for name in ("origin", "timestamp")]
    return rows.select(ANSWER).with_columns(*times)


def _load_pyfunc(path: str) -> Forecaster:
    """Load the bundle in a folder; the name is MLflow's."""
    return Forecaster(load(Path(path)))


def _plain(column: Any) -> Any:
    """Return a pandas column as an array that polars reads: text as a list, everything else as it is."""
    values = column.to_numpy()
    return [None if one is None or one != one else one for one in values] if values.dtype == np.object_ else values
