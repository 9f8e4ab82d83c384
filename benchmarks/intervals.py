"""Compare our intervals with quantile LightGBM's, conformalised, on the rows of a task's back-test.

    python -m benchmarks.intervals TASK.toml [--origins FILE] [--rounds N]

The other side is conformalised quantile regression (Y. Romano, E. Patterson and E. Candes, NeurIPS 2019): two boosters
of the same features learn the 5 % and the 95 % quantile on four fifths of the training part, and what they lack on the
last fifth, for each step ahead, is added to both ends. Both sides see the same past and forecast the same origins.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.backtesting import past_and_test
from forecastle.data.examples import Examples
from forecastle.data.panel import Floats
from forecastle.models.estimators import offset_of
from forecastle.models.evaluation import scored_rows
from forecastle.models.learning import BOOSTING, Options, Pairs, all_pairs, binned, labelled, load_lightgbm, thinned
from forecastle.models.training import forecast_rows, judge
from forecastle.settings import load_settings
from forecastle.task import load_task

MOST = 1.1  # our mean width to theirs
FEWEST = 500  # outcomes from which a horizon or a series is judged by itself


def main(arguments: list[str]) -> int:
    """Print both sides' coverage and mean width; return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intervals", description=__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("--origins", type=Path)
    parser.add_argument("--rounds", type=int, default=Options().rounds)
    chosen = parser.parse_args(arguments)
    task = load_task(chosen.task)
    past, test = past_and_test(task, load_settings(), datetime.now(UTC), chosen.origins)
    until, coverage = int(past.origins.max()), task.training.coverage
    own = judge(task, past, test, until, Options(seed=task.training.seed)).rows
    low, high = quantile_intervals(past, test, until, coverage, chosen.rounds)
    other = forecast_rows(test, (low + high) / 2, low, high)
    print("| side | covered | by horizon | by series | mean width |\n|---|---:|---:|---:|---:|")
    widths, missed = [], False
    for name, rows in (("forecastle", own), ("quantile LightGBM, conformalised", other)):
        rows = scored_rows(rows).with_columns(
            inside=pl.col("actual").is_between("lower", "upper"), width=pl.col("upper") - pl.col("lower")
        )
        pooled, width = rows["inside"].mean(), rows["width"].mean()
        horizons, series = (_range(rows, key) for key in ("horizon", "series_id"))
        print(f"| {name} | {pooled:.3f} | {_told(horizons)} | {_told(series)} | {width:.5g} |")
        widths.append(width)
        if name == "forecastle":
            missed = not coverage - 0.02 <= pooled <= coverage + 0.02
            ends = [end for ends in (horizons, series) if ends for end in ends]
            missed |= not all(coverage - 0.06 <= end <= coverage + 0.06 for end in ends)
    ratio = widths[0] / widths[1]
    missed |= ratio > MOST
    print(f"\nours to theirs: {ratio:.3f} (at most {MOST}); {'a bar is missed' if missed else 'all bars are met'}")
    return int(missed)


def quantile_intervals(past: Examples, test: Examples, until: int, coverage: float, rounds: int) -> tuple[Any, Any]:
    """Return the lower and upper ends (n, H) that conformalised quantile regression gives."""
    start = int(past.origins.min())
    cut = start + int((until - start) * 0.8)
    learnt = thinned(labelled(past, cut), past, Options().pairs(past.steps))
    rest = thinned(labelled(past, until) & (past.origins > cut)[:, None], past, 60_000)
    lower, upper = ((1 - coverage) / 2, (1 + coverage) / 2)
    ends = [_quantile_booster(learnt, alpha, rounds) for alpha in (lower, upper)]
    truth = rest.pick(past.truth) - rest.pick(offset_of("change", past))
    below, above = (end.predict(rest.matrix) for end in ends)
    lacking = np.maximum(below - truth, truth - above)
    added = np.array([_conformal(lacking[rest.step == step], coverage) for step in range(1, past.steps + 1)])
    pairs = all_pairs(test)
    low, high = (pairs.spread(end.predict(pairs.matrix)) + offset_of("change", test) for end in ends)
    return low - added, high + added


def _quantile_booster(pairs: Pairs, alpha: float, rounds: int) -> Any:
    parameters = {**BOOSTING, "objective": "quantile", "alpha": alpha, "num_threads": 2, "seed": 1}
    goal = pairs.pick(pairs.examples.truth) - pairs.pick(offset_of("change", pairs.examples))
    data = binned(pairs.matrix, pairs.names, goal, parameters)
    return load_lightgbm().train(parameters, data, rounds)


def _conformal(lacking: Floats, coverage: float) -> float:
    place = min(len(lacking) - 1, int(np.ceil((len(lacking) + 1) * coverage)) - 1)
    return float(np.sort(lacking)[place])


def _range(rows: pl.DataFrame, key: str) -> tuple[float, float] | None:
    """Return the least and the greatest share covered of those horizons, or series, with outcomes enough."""
    shares = rows.group_by(key).agg(pl.len(), pl.col("inside").mean()).filter(pl.col("len") >= FEWEST)["inside"]
    return (shares.min(), shares.max()) if len(shares) else None  # type: ignore[return-value]


def _told(ends: tuple[float, float] | None) -> str:
    return f"{ends[0]:.3f} – {ends[1]:.3f}" if ends else "–"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
