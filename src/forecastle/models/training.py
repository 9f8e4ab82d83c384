"""Training: what serves is chosen, judged on a past it has not seen, and then fitted on everything known.

choose    which candidates serve, on rolling origins inside the training part (``selection``)
judge     forecast the last part of the history with a model that ended before it: the back-test
assemble  the same members fitted on all data, intervals calibrated by every out-of-sample error there is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecastle.data.examples import Examples
from forecastle.data.panel import Booleans, Floats, Integers, micros, moment
from forecastle.errors import NotEnoughHistory
from forecastle.frame import TIME
from forecastle.models.bundle import Bundle
from forecastle.models.estimators import candidates, fit_all, predict
from forecastle.models.evaluation import scores, scores_by_series, skill_interval
from forecastle.models.intervals import Errors, Spread, adapt, calibrate
from forecastle.models.learning import Fitted, Options, all_pairs, labelled, spread_out, thinned
from forecastle.models.model import Model, apply, combine
from forecastle.models.selection import VALIDATION_PAIRS, Choice, choose
from forecastle.models.tuning import tune
from forecastle.task import Task, duration_text

BACKTEST_PAIRS = 120_000  # (origin, step) pairs at most, all series together
FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Judged:
    """A back-test: what was chosen, its forecasts, every candidate's figures on the same rows, and its errors."""

    choice: Choice
    rows: pl.DataFrame
    candidates: dict[str, dict[str, Any]]
    errors: Errors


@dataclass(frozen=True)
class Trained:
    """A trained bundle, and the rows of its back-test (see ``back_test``)."""

    bundle: Bundle
    backtest: pl.DataFrame


def train(
    task: Task,
    examples: Examples,
    data_version: str,
    reference: dict[str, Any],
    now: datetime,
    folder: Path | None = None,
) -> Trained:
    """Train a task's model on all examples and judge it on the last ``training.backtest_share`` of them.

    Where the task asks for tuning, its study lies in ``folder``.
    Raises NotEnoughHistory where the examples span less than ``training.min_history``.
    """
    _require_history(task, examples, now)
    options = Options(seed=task.training.seed)
    first, last = int(examples.origins.min()), int(examples.origins.max())
    cut = first + int((last - first) * (1 - task.training.backtest_share))
    test = default_origins(examples, cut)
    past = examples.take(examples.origins <= cut).known_by(int(test.issued_at.min()))
    tuned = None
    if task.training.tune and folder is not None:
        seconds = task.training.tune.total_seconds()
        tuned = tune(past, cut, options, seconds, folder, f"{task.digest}-{data_version}")
        options = replace(options, boosting=tuned.boosting) if tuned else options
    judged = judge(task, past, test, cut, options)
    final = fit_all(judged.choice.weights, examples, int(examples.times.max()), options)
    model = assemble(task, examples, judged.choice, final, [*judged.choice.errors, judged.errors])
    bundle = Bundle(
        task=task.name,
        task_digest=task.digest,
        version="",
        data_version=data_version,
        created_at=now,
        trained_until=moment(last),
        model=model,
        features=examples.names,
        backtest=_report(judged, cut, last) | ({"tuning": asdict(tuned)} if tuned else {}),
        reference=reference,
    )
    return Trained(bundle, judged.rows)


def judge(task: Task, past: Examples, test: Examples, until: int, options: Options) -> Judged:
    """Choose and fit on ``past`` what was known up to ``until``, and forecast the origins of ``test`` with it.

    The back-test in one call: nothing of ``test`` but its features, and for the recalibration of intervals the
    outcomes known by then, is seen. Raises NotEnoughHistory where ``past`` holds nothing to learn from.
    """
    if not labelled(past, until).any():
        raise NotEnoughHistory(
            f"observed values of {task.target!r} before {moment(int(test.origins.min()))} to learn from",
            f"none that is followed by another within {duration_text(task.horizon)}",
            "Collect more history first, or mend the column.",
        )
    choice = choose(past, until, options)
    fitted = fit_all(candidates(past.recipe), past, until, options)
    model = assemble(task, past, choice, fitted, choice.errors)
    forecasts = {name: predict(one, test) for name, one in fitted.items()}
    made = combine(model, test, [forecasts[name] for name in choice.weights])
    half = adapt(test, made.value, made.half, model.coverage)
    rows = forecast_rows(test, made.value, made.value - half, made.value + half)
    figures = {name: score_candidate(rows, test, value) for name, value in forecasts.items()}
    pairs = thinned(labelled(test, FOREVER), test, VALIDATION_PAIRS)
    fold = np.full(len(pairs.row), len(choice.errors))
    errors = Errors(pairs, pairs.pick(made.value), pairs.pick(test.truth), fold)
    return Judged(choice, rows, figures, errors)


def assemble(
    task: Task, examples: Examples, choice: Choice, fitted: dict[str, Fitted], errors: Sequence[Errors]
) -> Model:
    """Put the chosen members together, their intervals calibrated on out-of-sample errors."""
    usual = {
        name: float(np.nanmean(own))
        for number, name in enumerate(examples.series_ids)
        if not np.isnan(own := examples.last[examples.series == number]).all()
    }
    spread = calibrate([one for one in errors if len(one.truth)], task.training.coverage, task.training.seed)
    if not spread.quantiles:
        spread = Spread((0.0,) * examples.steps, 0.0, 0.0)
    members = tuple(fitted[name] for name in choice.weights)
    weights = tuple(choice.weights.values())
    return Model(examples.recipe, choice.estimator, members, weights, spread, task.training.coverage, usual)


def default_origins(examples: Examples, cut: int) -> Examples:
    """Return the origins after ``cut`` a back-test forecasts (see ``chosen_origins``)."""
    return examples.take(chosen_origins(examples.origins, cut, examples.steps))


def chosen_origins(origins: Integers, cut: int, steps: int) -> Booleans:
    """Tell which origins after ``cut`` a back-test forecasts: all, or an even share where there are very many."""
    chosen = origins > cut
    chosen[chosen] = spread_out(origins[chosen], BACKTEST_PAIRS // steps)
    return chosen


def back_test(model: Model, examples: Examples) -> pl.DataFrame:
    """Forecast origins a model has not seen, its intervals recalibrated by outcomes as they came."""
    made = apply(model, examples)
    half = adapt(examples, made.value, made.half, model.coverage)
    return forecast_rows(examples, made.value, made.value - half, made.value + half)


def forecast_rows(examples: Examples, value: Any, lower: Any, upper: Any) -> pl.DataFrame:
    """Return forecasts (n, H) as a table, by series, origin and horizon: series_id, origin, horizon (step 1…H),
    timestamp, value, lower, upper, actual, last (what persistence forecasts), naive (what the seasonal naive method
    forecasts).
    """
    pairs = all_pairs(examples)
    names = np.array(examples.series_ids, dtype=object)[examples.series[pairs.row]]
    numbers = {"value": value, "lower": lower, "upper": upper, "actual": examples.truth}
    return (
        pl.DataFrame(
            {
                "series_id": pl.Series(names, dtype=pl.String),
                "origin": _times(examples.origins[pairs.row]),
                "horizon": pairs.step,
                "timestamp": _times(pairs.pick(examples.times)),
                **{name: pairs.pick(values) for name, values in numbers.items()},
                "last": pairs.pick(examples.last),
                "naive": pairs.pick(examples.seasonal),
            }
        )
        .with_columns(pl.col("actual", "last", "naive").fill_nan(None))
        .sort("series_id", "origin", "horizon")
    )


def rescore(champion: Bundle, examples: Examples, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the champion's forecasts of those origins in ``rows`` that came after everything it was trained on."""
    after = examples.take(examples.origins > micros(champion.trained_until))
    if not len(after):
        return rows.clear()
    keys = ["series_id", "origin"]
    return back_test(champion.model, after).join(rows.select(keys).unique(), on=keys, how="semi")


def score_candidate(rows: pl.DataFrame, test: Examples, value: Floats) -> dict[str, Any]:
    """Return a candidate's figures on the very rows the model was scored on."""
    nothing = np.full(value.shape, np.nan)
    own = forecast_rows(test, value, nothing, nothing)
    scored = rows.select("series_id", "origin", "horizon").join(own, on=["series_id", "origin", "horizon"], how="left")
    return scores(scored)


def _report(judged: Judged, cut: int, last: int) -> dict[str, Any]:
    choice = judged.choice
    return {
        **scores(judged.rows),
        "skill_interval": skill_interval(judged.rows),
        "series": scores_by_series(judged.rows),
        "candidates": judged.candidates,
        "selection": {
            "weights": choice.weights,
            "gain": choice.gain,
            "gain_error": choice.gain_error,
            "rmse": choice.rmse,
        },
        "from": moment(cut),
        "until": moment(last),
    }


def _require_history(task: Task, examples: Examples, now: datetime) -> None:
    span = moment(int(examples.origins.max())) - moment(int(examples.origins.min()))
    if span < task.training.min_history:
        enough = now + (task.training.min_history - span)
        raise NotEnoughHistory(
            f"{duration_text(task.training.min_history)} of history to train task {task.name!r}",
            f"{span.days} days",
            f"It will be enough on {enough:%Y-%m-%d %H:%M} UTC if collection goes on.",
        )


def _times(microseconds: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(microseconds).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(TIME)
