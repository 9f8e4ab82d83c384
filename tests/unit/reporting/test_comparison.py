"""A comparison shows the figures the decision rests on, all on the same rows, in Markdown a comment can hold."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.models.promotion import decide
from forecastle.reporting.comparison import Comparison, markdown, save
from forecastle.task import Task

START = datetime(2013, 1, 1, tzinfo=UTC)


def forecasts(spread: float, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    keys = [(s, START + timedelta(hours=o), h) for s in ("EWR", "J|FK") for o in range(60) for h in (1, 2)]
    table = pl.DataFrame(
        keys, schema={"series_id": pl.String, "origin": pl.Datetime("us", "UTC"), "horizon": pl.Int64}, orient="row"
    )
    actual = np.sin(np.arange(len(keys)))
    value = actual + random.normal(0, spread, len(keys))
    return table.with_columns(
        timestamp=pl.col("origin") + pl.duration(hours=pl.col("horizon")),
        actual=actual,
        value=value,
        lower=value - 2 * spread,
        upper=value + 2 * spread,
        last=actual + 2.0 * np.random.default_rng(9).normal(0, 1, len(keys)),
        naive=actual + 2.5 * np.random.default_rng(8).normal(0, 1, len(keys)),
    )


@pytest.fixture
def comparison(task: Task) -> Comparison:
    rows, champion = forecasts(0.5), forecasts(1.0, 1)
    return Comparison(task, "7", "6", decide(task, rows, champion), rows, champion)


def table(text: str, head: str) -> dict[str, list[str]]:
    """Return a Markdown table's rows by their first cell."""
    lines = text[text.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_it_says_the_decision_and_its_reasons_first(comparison: Comparison) -> None:
    title, said, *_ = markdown(comparison).split("\n\n")
    assert title == "## nyc-temperature: model 7 against 6"
    assert said == "**The challenger should serve.**"
    assert all(f"- {reason}" in markdown(comparison) for reason in comparison.decision.reasons)


def test_it_names_the_challenger_s_run_and_links_to_it_where_mlflow_is_a_server(comparison: Comparison) -> None:
    assert "of MLflow" not in markdown(comparison)
    assert markdown(replace(comparison, run="c0ffee")).endswith("\n\nThe challenger is run `c0ffee` of MLflow.\n")
    linked = markdown(replace(comparison, run="c0ffee", page="https://mlflow.example/#/runs/c0ffee"))
    assert "run [`c0ffee`](https://mlflow.example/#/runs/c0ffee) of MLflow" in linked


def test_every_method_is_scored_on_the_same_rows(comparison: Comparison) -> None:
    few = comparison.champion.filter(pl.col("horizon") == 1)  # type: ignore[union-attr]
    text = markdown(Comparison(comparison.task, "7", "6", comparison.decision, comparison.rows, few))
    own = comparison.rows.filter(pl.col("horizon") == 1)
    rmse = ((own["value"] - own["actual"]) ** 2).mean() ** 0.5
    assert "the same 120 rows of 60 origins" in text
    pooled = table(text, "")
    assert list(pooled) == ["challenger", "champion", "persistence", "seasonal naive"]
    assert pooled["challenger"][0] == f"{rmse:.4g}"
    assert pooled["persistence"][3] == "0" and pooled["champion"][4] == "–"
    assert list(table(text, "RMSE, steps ahead")) == ["1"]


def test_a_series_name_cannot_break_the_table(comparison: Comparison) -> None:
    assert list(table(markdown(comparison), "RMSE, series")) == ["EWR", "J\\|FK"]


def test_the_charts_hold_a_line_for_each_method_and_a_key(comparison: Comparison) -> None:
    text = markdown(comparison)
    first, second = re.findall(r"```mermaid\n(.*?)```\n\n(.*?)\n", text, re.DOTALL)
    assert first[0].count("    line [") == 4 and first[1].count(":") == 4
    assert second[0].count("    line [") == 3 and second[1] == "grey: truth, orange: champion, blue: challenger"


def lines_of(text: str, number: int) -> tuple[list[float], list[list[float]]]:
    """Return the ends of the y-axis and the lines of a chart, read as Mermaid reads them: without exponents."""
    chart = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)[number]
    figure = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)"
    ends = re.search(rf"y-axis ({figure}) --> ({figure})\n", chart)
    lines = re.findall(rf"line \[({figure}(?:, {figure})*)\]\n", chart + "\n")
    assert ends is not None and len(lines) == chart.count("    line [")
    return list(map(float, ends.groups())), [[float(one) for one in line.split(", ")] for line in lines]


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_charts_hold_numbers_of_any_size_as_mermaid_reads_them(comparison: Comparison, size: float) -> None:
    columns = ("actual", "value", "lower", "upper", "last", "naive")
    rows = comparison.rows.with_columns(pl.col(columns) * size)
    text = markdown(Comparison(comparison.task, "1", None, decide(comparison.task, rows), rows, None))
    for number in (0, 1):
        (low, high), lines = lines_of(text, number)
        assert low < high and all(low <= value <= high for line in lines for value in line)
    assert lines_of(text, 1)[1][0][-1] == pytest.approx(
        rows.filter(pl.col("series_id") == "EWR", pl.col("horizon") == 1)["actual"][-1], rel=1e-6
    )


def test_forecasts_far_from_zero_are_drawn_in_their_own_range(comparison: Comparison) -> None:
    columns = ("actual", "value", "lower", "upper", "last", "naive")
    rows = comparison.rows.with_columns(pl.col(columns) + 1013)
    text = markdown(Comparison(comparison.task, "1", None, decide(comparison.task, rows), rows, None))
    assert lines_of(text, 0)[0][0] == 0 and lines_of(text, 1)[0][0] > 1000


def test_without_a_first_step_the_next_one_is_drawn(comparison: Comparison) -> None:
    rows = comparison.rows.filter(pl.col("horizon") == 2)
    text = markdown(Comparison(comparison.task, "1", None, decide(comparison.task, rows), rows, None))
    assert 'title "EWR: 2 steps ahead' in text


def test_hundreds_of_series_and_steps_still_fit_into_a_comment(comparison: Comparison) -> None:
    rows = pl.concat(
        comparison.rows.filter(pl.col("series_id") == "EWR").with_columns(
            series_id=pl.lit(f"stop-{number:03}"),
            horizon=pl.col("horizon") + 2 * (number % 150),
            value=pl.col("actual") + (pl.col("value") - pl.col("actual")) * (1 + (number == 77)),
        )
        for number in range(300)
    )
    text = markdown(Comparison(comparison.task, "1", None, decide(comparison.task, rows), rows, None))
    series, steps = table(text, "RMSE, series"), table(text, "RMSE, steps ahead")
    assert len(text) < 30_000
    assert next(iter(series)) == "stop-077" and len(series) == 20 and "280 more are not shown" in text
    assert len(steps) == 24 and {"1", "300"} <= set(steps)


def test_without_a_champion_there_is_no_column_of_it(comparison: Comparison) -> None:
    alone = Comparison(comparison.task, "1", None, decide(comparison.task, comparison.rows), comparison.rows, None)
    text = markdown(alone)
    assert text.startswith("## nyc-temperature: model 1\n") and "| champion" not in text


def test_too_few_rows_to_judge_are_said_without_tables(comparison: Comparison) -> None:
    rows = comparison.rows.with_columns(actual=pl.lit(None, dtype=pl.Float64))
    text = markdown(Comparison(comparison.task, "1", None, decide(comparison.task, rows), rows, None))
    assert "Only 0 origins" in text and "|" not in text


def test_pictures_lie_beside_the_text(comparison: Comparison, tmp_path: Path) -> None:
    path = save(tmp_path / "report", comparison)
    assert path.read_text(encoding="utf-8") == markdown(comparison)
    names = {picture.name for picture in path.parent.glob("*.png")}
    assert names == {"forecast-against-truth.png", "residuals.png", "error-by-hour.png", "error-by-horizon.png"}
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in path.parent.glob("*.png"))


def test_the_same_rows_give_the_same_pictures(comparison: Comparison, tmp_path: Path) -> None:
    first, second = (save(tmp_path / name, comparison).parent for name in ("a", "b"))
    assert [one.read_bytes() for one in sorted(first.iterdir())] == [
        one.read_bytes() for one in sorted(second.iterdir())
    ]
