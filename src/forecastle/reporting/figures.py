"""Pictures of a back-test, as PNG files. Rows are those of ``models.training.forecast_rows``.

Every picture is drawn by one function of (axes, rows, task) named in FIGURES; the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl

from forecastle.frame import write_bytes
from forecastle.models.evaluation import scored_rows
from forecastle.task import Task

BLUE, ORANGE, GREY = "#1f6feb", "#d4760a", "#6e7781"
SIZE = (9.0, 3.6)  # inches
SHOWN = 7  # days of forecasts against truth
BINS = 60


def forecast_against_truth(axes: Any, rows: pl.DataFrame, task: Task) -> None:
    """Draw the last week of one-step forecasts of the first series, their intervals, and what came true."""
    name = str(rows["series_id"].min())
    first = rows.filter(pl.col("series_id") == name, pl.col("horizon") == 1).sort("timestamp")
    shown = first.filter(pl.col("timestamp") > pl.col("timestamp").max() - timedelta(days=SHOWN))
    times = shown["timestamp"].dt.convert_time_zone(task.calendar).dt.replace_time_zone(None).to_list()
    axes.fill_between(times, shown["lower"], shown["upper"], color=BLUE, alpha=0.15, linewidth=0, label="interval")
    axes.plot(times, shown["value"], color=BLUE, linewidth=1.2, label="forecast")
    axes.plot(times, shown["actual"], color=ORANGE, linewidth=1.2, label="truth")
    axes.set_title(f"{name}, one step ahead")
    axes.set_ylabel(f"{task.target} {task.unit}".strip())
    axes.legend(frameon=False, ncols=3)


def residuals(axes: Any, rows: pl.DataFrame, task: Task) -> None:
    """Draw how the errors are spread: the first step ahead beside the last."""
    first, last = rows.select(pl.min("horizon"), pl.max("horizon").alias("last")).row(0)
    for horizon, colour in {last: ORANGE, first: BLUE}.items():
        errors = rows.filter(pl.col("horizon") == horizon).select(pl.col("value") - pl.col("actual")).to_series()
        axes.hist(errors.to_numpy(), bins=BINS, histtype="step", density=True, color=colour, label=f"step {horizon}")
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_title("Errors: forecast minus truth")
    axes.set_xlabel(task.unit or task.target)
    axes.legend(frameon=False)


def error_by_hour(axes: Any, rows: pl.DataFrame, task: Task) -> None:
    """Draw the RMSE by the local hour of the target, beside that of persistence."""
    hour = pl.col("timestamp").dt.convert_time_zone(task.calendar).dt.hour().alias("hour")
    table = rows.group_by(hour).agg(**_rmse()).sort("hour")
    _two_lines(axes, table, "hour", f"RMSE by hour of the day ({task.calendar})", task)


def error_by_horizon(axes: Any, rows: pl.DataFrame, task: Task) -> None:
    """Draw the RMSE by steps ahead, beside that of persistence."""
    table = rows.group_by("horizon").agg(**_rmse()).sort("horizon")
    _two_lines(axes, table, "horizon", "RMSE by steps ahead", task)


FIGURES: dict[str, Callable[..., None]] = {
    "forecast-against-truth": forecast_against_truth,
    "residuals": residuals,
    "error-by-hour": error_by_hour,
    "error-by-horizon": error_by_horizon,
}


def save_figures(folder: Path, rows: pl.DataFrame, task: Task) -> tuple[Path, ...]:
    """Draw every picture of FIGURES into ``<folder>/<name>.png``; rows without truth or forecast are left out."""
    scored = scored_rows(rows)
    if scored.is_empty():
        return ()
    return tuple(
        save_figure(folder / f"{name}.png", partial(draw, rows=scored, task=task)) for name, draw in FIGURES.items()
    )


def save_importance(path: Path, importance: Mapping[str, float], most: int = 20) -> Path:
    """Draw the share of each feature in what a model has learnt, the most important first."""
    chosen = sorted(importance.items(), key=lambda item: item[1], reverse=True)[:most][::-1]

    def draw(axes: Any) -> None:
        axes.barh([name for name, _ in chosen], [100 * share for _, share in chosen], color=BLUE)
        axes.set_title("Importance: share of the error that splits on a feature saved")
        axes.set_xlabel("%")

    return save_figure(path, draw, (SIZE[0], max(2.0, 0.26 * len(chosen) + 1)))


def warm() -> None:
    """Import what draws, which takes a second the first time."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401


def save_figure(path: Path, draw: Callable[[Any], None], size: tuple[float, float] = SIZE) -> Path:
    """Draw on axes of a new picture and write it as PNG, whole or not at all. Needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.2)
    draw(axes)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return write_bytes(path, buffer.getvalue())


def _rmse() -> dict[str, pl.Expr]:
    return {
        name: ((pl.col(column) - pl.col("actual")) ** 2).mean().sqrt()
        for name, column in (("model", "value"), ("persistence", "last"))
    }


def _two_lines(axes: Any, table: pl.DataFrame, along: str, title: str, task: Task) -> None:
    axes.plot(table[along], table["model"], color=BLUE, marker="o", markersize=3, label="model")
    axes.plot(table[along], table["persistence"], color=GREY, linestyle="--", label="persistence")
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set_ylabel(f"RMSE {task.unit}".strip())
    axes.legend(frameon=False)
