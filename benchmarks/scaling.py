"""How training grows with the number of series: 10, 100 and 1 000 of them, 720 hours each, six hours ahead.

Timed is all of it, from observations to a trained model: the grid, the features, the choice among all candidates on
rolling origins, the back-test, the final fit and the intervals. Time grows linearly at most (what is learnt from is
thinned where there is much); memory is the features and truths of all rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.race import Bar, Race, Side, Work
from benchmarks.tables import hourly, hourly_task
from forecastle.data.examples import make_examples
from forecastle.data.panel import build_panel
from forecastle.data.transformation import make_recipe
from forecastle.models.estimators import load_lightgbm
from forecastle.models.training import train

COUNTS = (10, 100, 1_000)
NAME = "scaling"
RACES = (
    Race(
        NAME,
        "Training on 10, 100 and 1 000 series",
        "scaling",
        720,
        0,
        tuple(f"{count} series" for count in COUNTS),
        (
            Bar("seconds", 11, "100 series", "1000 series"),
            Bar("mib", 11, "100 series", "1000 series"),
        ),
        1,
        6.0,
    ),
)


def prepare(folder: Path, size: int) -> None:
    """Write a table of each number of series."""
    for count in COUNTS:
        hourly(count, size).write_parquet(folder / f"{count}.parquet", compression="uncompressed")


def check(folder: Path, size: int) -> None:
    """There are no two answers to compare: each side trains on series of its own number."""


def _side(count: int) -> Side:
    def load(folder: Path, size: int) -> Work:
        load_lightgbm()
        held = [pl.read_parquet(folder / f"{count}.parquet").rechunk()]
        return partial(_train, held)

    return load


SIDES: dict[str, Side] = {f"{count} series": _side(count) for count in COUNTS}


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw seconds and memory over the number of series, both axes by decades, beside a straight line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for place, (key, unit) in enumerate((("seconds", "s"), ("mib", "MiB")), start=1):
        own = figure.add_subplot(1, 2, place)
        seen = [min(run[key] for run in found["runs"][f"{count} series"]) for count in COUNTS]
        own.loglog(COUNTS, seen, marker="o", label="measured")
        own.loglog(COUNTS, [seen[-1] * count / COUNTS[-1] for count in COUNTS], ls=":", color="grey", label="linear")
        own.set_xlabel("series of 720 hours")
        own.set_ylabel(unit)
        own.legend()
    figure.savefig(path, format="svg", metadata={"Date": None})


def _train(held: list[pl.DataFrame]) -> object:
    task = hourly_task(horizon="6h", training={"min_history": "20d"})
    panel = build_panel(held.pop(), task)
    examples = make_examples(make_recipe(task, panel), panel, np.arange(panel.size))
    del panel
    return train(task, examples, "", {}, datetime(2026, 1, 1, tzinfo=UTC))
