"""Training: what serves is chosen, judged on a past it has not seen, and then fitted on everything known.

choose    which candidates serve, on rolling origins inside the training part (``selection``)
judge     forecast the last part of the history with a model that ended before it: the back-test
contest   where a champion has learnt from some of that part, forecast what came after, for promotion to compare
assemble  the same members fitted on all data, intervals calibrated by every out-of-sample error there is
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
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
from forecastle.models.learning import (
    Fitted,
    Options,
    Pairs,
    all_pairs,
    both,
    labelled,
    one_thread_each,
    spread_out,
    thinned,
)
from forecastle.models.model import Model, apply, combine
from forecastle.models.promotion import MIN_ORIGINS
from forecastle.models.selection import VALIDATION_PAIRS, Choice, choose
from forecastle.models.trees import THREADS
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
    """A trained bundle, the rows of its back-test (see ``back_test``), and those a champion is to be met on, where the
    back-test's are not fair (see ``contest``)."""

    bundle: Bundle
    backtest: pl.DataFrame
    contest: pl.DataFrame | None = None


def train(
    task: Task,
    examples: Examples,
    data_version: str,
    reference: dict[str, Any],
    now: datetime,
    folder: Path | None = None,
    champion_until: datetime | None = None,
) -> Trained:
    """Train a task's model on all examples and judge it on the last ``training.backtest_share`` of them.

    Where the task asks for tuning, its study lies in ``folder``. ``champion_until`` is the newest origin the champion
    has seen, where there is one that the model is to be compared with.
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
    until = int(examples.times.max())
    with one_thread_each(), ThreadPoolExecutor(THREADS) as pool:
        begun: list[Future[dict[str, Fitted]]] = []

        def begin(choice: Choice) -> None:
            begun.append(pool.submit(fit_all, choice.weights, examples, until, options))

        judged = judge(task, past, test, cut, options, begin)
        met = None
        if champion_until is not None and micros(champion_until) > cut:
            met = pool.submit(contest, task, examples, judged, fair_cut(examples, micros(champion_until)), options)
        spread = spread_of(task, [*judged.choice.errors, judged.errors])
        model = assemble(task, examples, judged.choice, begun[0].result(), spread)
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
    return Trained(bundle, judged.rows, None if met is None else met.result())


def judge(
    task: Task,
    past: Examples,
    test: Examples,
    until: int,
    options: Options,
    chosen: Callable[[Choice], None] = lambda _: None,
) -> Judged:
    """Choose and fit on ``past`` what was known up to ``until``, and forecast the origins of ``test`` with it.

    The back-test in one call: nothing of ``test`` but its features, and for the recalibration of intervals the
    outcomes known by then, is seen. ``chosen`` hears what serves as soon as that is decided, while candidates are still
    being fitted. Raises NotEnoughHistory where ``past`` holds nothing to learn from.
    """
    if not labelled(past, until).any():
        raise NotEnoughHistory(
            f"observed values of {task.target!r} before {moment(int(test.origins.min()))} to learn from",
            f"none that is followed by another within {duration_text(task.horizon)}",
            "Collect more history first, or mend the column.",
        )

    def choosing() -> Choice:
        choice = choose(past, until, options)
        chosen(choice)
        return choice

    choice, fitted = both(choosing, partial(fit_all, candidates(past.recipe), past, until, options))
    model = assemble(task, past, choice, fitted, spread_of(task, choice.errors))
    forecasts = {name: predict(one, test) for name, one in fitted.items()}
    made = combine(model, test, [forecasts[name] for name in choice.weights])
    half = adapt(test, made.value, made.half, model.coverage)
    rows = forecast_rows(test, made.value, made.value - half, made.value + half)
    figures = {name: score_candidate(rows, test, value) for name, value in forecasts.items()}
    pairs = thinned(labelled(test, FOREVER), test, VALIDATION_PAIRS)
    fold = np.full(len(pairs.row), len(choice.errors))
    errors = Errors(pairs, pairs.pick(made.value), pairs.pick(test.truth), fold)
    return Judged(choice, rows, figures, errors)


def contest(task: Task, examples: Examples, judged: Judged, cut: int, options: Options) -> pl.DataFrame:
    """Return forecasts of the origins after ``cut`` by what was chosen, fitted on what was known at the first of them.

    A back-test's model ends long before a champion that was trained since: on the rows that neither has seen it would
    be the older of the two, though what is to serve has learnt from everything.
    """
    test = default_origins(examples, cut)
    if not len(test):
        return judged.rows.clear()
    known = int(test.issued_at.min())
    past = examples.take(examples.origins <= cut).known_by(known)
    fitted = fit_all(judged.choice.weights, past, cut, options)
    errors = [*judged.choice.errors, _known_errors(judged.errors, min(cut, known))]
    return back_test(assemble(task, past, judged.choice, fitted, spread_of(task, errors)), test)


def fair_cut(examples: Examples, champion_until: int) -> int:
    """Return where a contest begins: half of the way from the champion's newest origin to the newest of all.

    What is to serve has learnt from what came since the champion, so its stand-in learns from half of it, and the other
    half is met. Where that leaves too few origins to judge, less is learnt from, down to what the champion knew.
    """
    since = np.unique(examples.origins[examples.origins > champion_until])
    spare = min(len(since) // 2, len(since) - MIN_ORIGINS - examples.steps)
    return int(since[spare - 1]) if spare > 0 else champion_until


def assemble(task: Task, examples: Examples, choice: Choice, fitted: dict[str, Fitted], spread: Spread) -> Model:
    """Put the chosen members together with the width of their intervals."""
    usual = {
        name: float(np.nanmean(own))
        for number, name in enumerate(examples.series_ids)
        if not np.isnan(own := examples.last[examples.series == number]).all()
    }
    members = tuple(fitted[name] for name in choice.weights)
    weights = tuple(choice.weights.values())
    return Model(examples.recipe, choice.estimator, members, weights, spread, task.training.coverage, usual)


def spread_of(task: Task, errors: Sequence[Errors]) -> Spread:
    """Return how wide intervals are, calibrated on out-of-sample errors; no width where there are none."""
    spread = calibrate([one for one in errors if len(one.truth)], task.training.coverage, task.training.seed)
    return spread if spread.quantiles else Spread((0.0,) * task.steps, 0.0, 0.0)


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


def _known_errors(errors: Errors, moment: int) -> Errors:
    """Return the errors whose outcome was known at a moment, as it was."""
    examples = errors.pairs.examples
    kept = (errors.pairs.pick(examples.times) <= moment) & (errors.pairs.pick(examples.outcome_at) <= moment)
    pairs = Pairs(examples, errors.pairs.row[kept], errors.pairs.step[kept])
    return Errors(pairs, errors.forecast[kept], pairs.pick(examples.outcome), errors.fold[kept])


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
            f"It will be enough on {enough:%Y-%m-%d %H:%M} UTC if collection goes on; or lower [training] min_history.",
        )


def _times(microseconds: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(microseconds).cast(TIME)
