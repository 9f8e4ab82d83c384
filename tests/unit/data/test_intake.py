"""The one way into the history: through the gate, or into quarantine."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data.history import History
from forecastle.data.ingestion import Batch, load_batch, make_batch
from forecastle.data.intake import accept, admit
from forecastle.errors import AnswerChanged, QualityGateFailed
from forecastle.http import Answer
from forecastle.task import Task

HOUR = timedelta(hours=1)
NOW = datetime(2013, 2, 12, 8, tzinfo=UTC)


def table(task: Task, now: datetime = NOW, hours: int = 49) -> pl.DataFrame:
    """Return a parsed answer without a flaw: so many hours of every series, the last of them at now."""
    times = [now - ago * HOUR for ago in reversed(range(hours))]
    rows = [
        (series_id, at, 5.0 + at.hour / 10 + at.day, 60.0 + at.hour, 3.0 + at.hour / 7, 1013.0 + at.hour / 5)
        for series_id in task.series_ids
        for at in times
    ]
    schema = {"series_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), **dict.fromkeys(task.columns, pl.Float64)}
    return pl.DataFrame(rows, schema=schema, orient="row")


def batch(task: Task, rows: pl.DataFrame | None = None, now: datetime = NOW) -> Batch:
    return make_batch(task, [table(task, now) if rows is None else rows], now - 48 * HOUR, now, now, True, ["name"])


def holed(task: Task, now: datetime = NOW) -> Batch:
    """Return a batch that lacks three targets in ten."""
    gone = pl.int_range(pl.len()) % 10 < 3
    target = pl.col(task.target)
    return batch(
        task, table(task, now).with_columns(pl.when(gone).then(None).otherwise(target).alias(task.target)), now
    )


def known(task: Task, folder: Path) -> pl.DataFrame:
    return History(folder / "history", (task.target, *task.covariates)).read()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_good_batch_goes_into_the_history_and_its_report_is_saved(task, tmp_path):
    intake = admit(task, tmp_path, batch(task), NOW, tmp_path / "run")
    assert intake.report.passed
    assert (intake.appended.new, intake.appended.revised, intake.appended.known) == (147, 0, 0)
    assert known(task, tmp_path).height == 147
    assert files(tmp_path / "run") == ["quality.html", "quality.json"]
    assert not (tmp_path / "quarantine").exists()


def test_without_a_place_for_it_the_report_lies_with_the_tasks_reports(task, tmp_path):
    admit(task, tmp_path, batch(task), NOW)
    assert [Path(file).name for file in files(tmp_path / "reports" / "intake")] == ["quality.html", "quality.json"]


def test_taking_a_batch_in_twice_is_taking_it_in_once(task, tmp_path):
    admit(task, tmp_path, batch(task), NOW)
    before = files(tmp_path / "reports")
    again = admit(task, tmp_path, batch(task), NOW)
    assert (again.appended.new, again.appended.revised, again.appended.known) == (0, 0, 147)
    assert files(tmp_path / "reports") == before


def test_a_masked_value_never_reaches_the_history(task, tmp_path):
    gale = pl.when((pl.col("series_id") == "EWR") & (pl.col("timestamp") == NOW)).then(468.66)
    rows = table(task).with_columns(gale.otherwise(pl.col("wind_speed_10m")).alias("wind_speed_10m"))
    intake = admit(task, tmp_path, batch(task, rows), NOW)
    assert intake.report.masked == 1
    newest = known(task, tmp_path).filter(series_id="EWR", timestamp=NOW).row(0, named=True)
    assert newest["wind_speed_10m"] is None
    assert newest["temperature_2m"] is not None


def test_a_failed_batch_goes_into_quarantine_with_its_report_and_nothing_into_the_history(task, tmp_path):
    with pytest.raises(QualityGateFailed):
        admit(task, tmp_path, holed(task), NOW, tmp_path / "run")
    assert known(task, tmp_path).is_empty()
    (quarantined,) = (tmp_path / "quarantine").iterdir()
    assert files(quarantined) == ["batch.json", "batch.parquet", "quality.html", "quality.json"]
    assert load_batch(quarantined).rows.equals(holed(task).rows)
    assert (quarantined / "quality.json").read_bytes() == (tmp_path / "run" / "quality.json").read_bytes()
    assert json.loads((tmp_path / "run" / "quality.json").read_bytes())


def test_the_refusal_names_the_failed_check_what_was_found_and_where_the_batch_lies(task, tmp_path):
    with pytest.raises(QualityGateFailed) as refused:
        admit(task, tmp_path, holed(task), NOW)
    assert "temperature_2m" in refused.value.found
    assert str(tmp_path / "quarantine") in refused.value.action
    assert "heals the gap" in refused.value.action


def test_a_batch_that_fails_twice_is_quarantined_once(task, tmp_path):
    for _ in range(2):
        with pytest.raises(QualityGateFailed):
            admit(task, tmp_path, holed(task), NOW)
    assert len(list((tmp_path / "quarantine").iterdir())) == 1


def test_the_next_good_batch_heals_the_gap(task, tmp_path):
    admit(task, tmp_path, batch(task), NOW)
    later = NOW + HOUR
    with pytest.raises(QualityGateFailed):
        admit(task, tmp_path, holed(task, later), later)
    healed = admit(task, tmp_path, batch(task, now=later + HOUR), later + HOUR)
    assert healed.appended.new == 6
    hours = known(task, tmp_path).filter(series_id="LGA")["timestamp"]
    assert hours.diff().drop_nulls().unique().to_list() == [HOUR]


def test_pushed_observations_are_archived_and_known_from_the_push(task, tmp_path):
    body = table(task, hours=2).write_csv().encode()
    intake = accept(task, tmp_path, Answer("push://sensor", 200, {}, body), NOW)
    assert intake.appended.new == 6
    assert known(task, tmp_path)["available_at"].unique().to_list() == [NOW]
    (archived,) = [path for path in (tmp_path / "archive" / "bodies").rglob("*") if path.is_file()]
    assert archived.read_bytes() == body


def test_a_push_that_cannot_be_read_is_archived_before_it_is_refused(task, tmp_path):
    with pytest.raises(AnswerChanged, match="series_id"):
        accept(task, tmp_path, Answer("push://sensor", 200, {}, b"hello\nworld\n"), NOW)
    assert files(tmp_path / "archive" / "bodies")
