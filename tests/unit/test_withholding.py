"""A series that the gate withholds is told with why and what to do, and stays told until nothing of it is missing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecastle.data import intake
from forecastle.pipeline import COLLECT, open_run, run_flow
from forecastle.settings import Settings
from forecastle.task import Task
from forecastle.withholding import KIND

NOW = datetime(2024, 1, 20, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def collect(tmp_path: Path, small_task: Callable[..., Task], observations) -> Callable[..., tuple[Any, list[str]]]:
    """Collect a table of nineteen days as of NOW, series b of which is mad at first or sane; return what the gate says
    and the incidents that are open then."""
    path = tmp_path / "table.parquet"
    settings = Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]
    rows = observations(hours=19 * 24 + 1).select("series_id", "timestamp", "y", "x")
    until = [datetime(2024, 1, 10, tzinfo=UTC)]

    def task_of(start: str | None = None) -> Task:
        named = {} if start is None else {"start": start}
        return small_task(source={"provider": "file", "path": str(path), **named})

    def run(
        flow: str,
        sane: bool = False,
        without: pl.Expr | None = None,
        now: datetime = NOW,
        mended: float | None = None,
        start: str | None = None,
    ) -> tuple[Any, list[str]]:
        mad = (pl.col("series_id") == "b") & (pl.col("timestamp") < until[-1])
        values = rows if sane else rows.with_columns(pl.when(~mad).then("y").alias("y"))
        if mended is not None:
            first = (pl.col("series_id") == "a") & (pl.col("timestamp") == rows["timestamp"].min())
            values = values.with_columns(pl.when(first).then(mended).otherwise("y").alias("y"))
        (values if without is None else values.filter(~without)).write_parquet(path)
        task = task_of(start)
        with open_run(task, settings, flow, now) as opened:
            *_, last = run_flow(opened, COLLECT)
            assert last.error is None, last.error
            return last.summary, [one.kind for one in opened.journal.incidents(task.name, open_only=True)]

    run.task, run.mad_until = task_of, until.append  # type: ignore[attr-defined]
    return run


def test_a_training_says_which_series_is_withheld_why_and_what_to_do(collect) -> None:
    said, incidents = collect("train")
    assert said["withheld"] == ["b"] and incidents == [KIND]
    assert said["notes"][0].startswith("Withheld: b, for null-share: expected at most 1.0% null in y")
    assert "train again: forecastle run train --task FILE" in said["notes"][1]
    assert "forecastle quarantine release 20240120T010000Z-" in said["notes"][1]


def test_that_its_last_days_pass_does_not_end_the_incident_while_its_past_is_missing(collect) -> None:
    collect("train")
    said, incidents = collect("live")
    assert said["withheld"] == [] and said["new"] > 0
    assert incidents == [KIND]
    assert said["notes"][0].startswith(
        "Missing in the history since the gate withheld it: b (forecastle quarantine show"
    )


@pytest.mark.parametrize("start", [None, "2024-01-01"])
def test_what_was_released_is_not_withheld_again_by_the_next_training_which_reads_the_table_whole(
    collect, tmp_path: Path, start: str | None
) -> None:
    home = tmp_path / "home" / "small"
    collect("train", start=start)
    (batch,) = (home / "quarantine").iterdir()
    intake.release(collect.task(start), home, batch.name, "ann", NOW)
    said, incidents = collect("train", start=start, now=NOW + HOUR, mended=9.5)
    assert said["withheld"] == [] and incidents == [] and "notes" not in said
    assert (said["new"], said["revised"]) == (0, 1) and said["verdict"] == "warn"
    assert len(list((home / "quarantine").iterdir())) == 1


def test_rows_that_turned_bad_since_a_release_are_withheld(collect, tmp_path: Path) -> None:
    home = tmp_path / "home" / "small"
    collect("train", sane=True, now=NOW - HOUR)
    collect("train")
    (batch,) = (home / "quarantine").iterdir()
    intake.release(collect.task(), home, batch.name, "ann", NOW)
    collect.mad_until(datetime(2024, 1, 16, tzinfo=UTC))
    said, incidents = collect("train", now=NOW + HOUR)
    assert said["withheld"] == ["b"] and incidents == [KIND]


def test_quarantine_that_cannot_be_read_keeps_the_incident_open_and_stops_no_batch(collect, tmp_path: Path) -> None:
    collect("train")
    (batch,) = (tmp_path / "home" / "small" / "quarantine").iterdir()
    (batch / "quality.json").write_text("{", encoding="utf-8")
    said, incidents = collect("live")
    assert said["new"] > 0 and incidents == [KIND]
    assert "could not be learnt" in said["notes"][0]


def test_a_table_that_was_mended_is_read_whole_by_the_next_training_and_ends_the_incident(collect) -> None:
    collect("train")
    collect("live")
    said, incidents = collect("train", sane=True)
    assert said["withheld"] == [] and said["new"] + said["revised"] > 9 * 24
    assert incidents == [] and "notes" not in said


@pytest.mark.parametrize("left_out", [pl.col("timestamp") > NOW - 2 * HOUR, pl.col("timestamp") < NOW - 8 * DAY])
def test_rows_that_were_withheld_and_are_left_out_of_the_mended_table_are_not_waited_for(
    collect, left_out: pl.Expr
) -> None:
    collect("train")
    said, incidents = collect("train", sane=True, without=(pl.col("series_id") == "b") & left_out, now=NOW + HOUR)
    assert said["withheld"] == [] and incidents == [] and "notes" not in said


def test_a_series_that_the_mended_table_holds_no_more_is_waited_for(collect) -> None:
    collect("train")
    said, incidents = collect("train", sane=True, without=pl.col("series_id") == "b", now=NOW + HOUR)
    assert incidents == [KIND] and said["notes"][0].startswith("Missing in the history")
