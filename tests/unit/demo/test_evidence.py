"""The demo's claims rest on what lies in the stores: whoever changes a byte there makes a claim fail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle.data.archive import Archive
from forecastle.data.history import History
from forecastle.data.quality_check import judge, save_report
from forecastle.data.versioning import version_table
from forecastle.demo import evidence
from forecastle.http import Answer
from forecastle.settings import Settings

NOW = datetime(2024, 2, 1, tzinfo=UTC)
AT = datetime(2024, 1, 3, 5, tzinfo=UTC)


def test_an_archived_answer_counts_only_as_received_and_with_its_time(tmp_path: Path) -> None:
    name = Archive(tmp_path).save(Answer("http://source", 200, {}, b"[1, 2]"), NOW)
    assert evidence.archived_whole(tmp_path, [name], NOW) == 1
    assert evidence.archived_whole(tmp_path, [name], NOW + timedelta(seconds=1)) == 0
    (body,) = (path for path in (tmp_path / "bodies").rglob("*") if path.is_file())
    body.write_bytes(b"[1, 3]")
    assert evidence.archived_whole(tmp_path, [name], NOW) == 0


def test_a_masked_value_is_in_the_report_and_null_in_the_history(tmp_path: Path, small_task, observations) -> None:
    task = small_task(columns={"y": {"maximum": 100}, "x": {}})
    here = (pl.col("series_id") == "a") & (pl.col("timestamp") == AT)
    rows = observations().with_columns(y=pl.when(here).then(999.0).otherwise("y"))
    first, last = rows["timestamp"].min(), rows["timestamp"].max()
    report, passed = judge(task, rows, first, last, NOW)
    saved = save_report(tmp_path, report)
    assert saved.parent == tmp_path
    history, unmasked = History(tmp_path / "masked", ("y", "x")), History(tmp_path / "unmasked", ("y", "x"))
    history.append(passed)
    unmasked.append(rows)
    quality = tmp_path / "quality.json"
    assert evidence.masked_value(quality, history, "a", "y", AT) == evidence.Masked(999.0, True)
    assert evidence.masked_value(quality, unmasked, "a", "y", AT) == evidence.Masked(999.0, False)
    assert evidence.masked_value(quality, history, "b", "y", AT) is None
    assert evidence.grid_rows(history) == rows.height


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]


def test_a_version_is_one_whose_bytes_are_in_the_remote_and_whose_pointer_is_committed(
    tmp_path: Path, settings: Settings, task
) -> None:
    table, pointer = tmp_path / "training.parquet", f"{task.name}/training.parquet.dvc"
    pl.DataFrame({"y": [1.0, 2.0]}).write_parquet(table)
    snapshot = version_table(settings, task, table, "train-1")
    found = {"version": snapshot.version, "commit": snapshot.commit}
    assert evidence.is_versioned(settings, table, pointer, found)
    assert not evidence.is_versioned(settings, table, pointer, found | {"commit": "0" * 40})
    (stored,) = (path for path in (Path(settings.remote) / "files").rglob("*") if path.is_file())
    stored.unlink()
    assert not evidence.is_versioned(settings, table, pointer, found)


HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def recorded(*left: tuple[int, int | None]) -> pl.DataFrame:
    """Make recorded flights from (minutes after AT they were to leave, minutes late or None)."""
    slots = [AT + due * MINUTE for due, _ in left]
    gone = [None if late is None else slot + late * MINUTE for slot, (_, late) in zip(slots, left, strict=True)]
    times = {"slot": slots, "departed_at": pl.Series(gone, dtype=pl.Datetime("us", "UTC"))}
    return pl.DataFrame({"series_id": "EWR", **times, "delay_minutes": [late for _, late in left]})


FLIGHTS = recorded((0, 10), (10, -5), (20, 90), (30, None))


def issued(minutes: int, mean: float | None) -> pl.DataFrame:
    row = {"series_id": "EWR", "origin": AT, "issued_at": AT + minutes * MINUTE, "mean": mean}
    return pl.DataFrame([row], schema_overrides={"mean": pl.Float64})


@pytest.mark.parametrize(("minutes", "mean"), [(5, None), (60, 2.5), (109, 2.5), (110, 95 / 3)])
def test_what_the_flights_that_had_left_say_is_all_that_may_be_known(minutes: int, mean: float | None) -> None:
    assert evidence.beyond_departed(issued(minutes, mean), FLIGHTS).is_empty()
    for wrong in (mean + 0.1 if mean else 0.0, None if mean else 31.0):
        assert evidence.beyond_departed(issued(minutes, wrong), FLIGHTS).height == 1


def test_a_departure_counts_only_where_it_is_known_from_when_it_had_left() -> None:
    known = [AT + 10 * MINUTE, AT + 10 * MINUTE, AT + 110 * MINUTE]
    rows = pl.DataFrame(
        {
            "series_id": "EWR",
            "timestamp": [AT, AT + 10 * MINUTE, AT + 20 * MINUTE],
            "available_at": known,
            "delay": [10.0, -5.0, 90.0],
        }
    )
    assert evidence.told_at_departure(rows, FLIGHTS) == 3
    assert evidence.told_at_departure(rows.with_columns(pl.col("available_at") - MINUTE), FLIGHTS) == 0
    assert evidence.told_at_departure(rows.with_columns(pl.col("delay") + 1), FLIGHTS) == 0


def versions(*told: tuple[int, int, float, float]) -> pl.DataFrame:
    """Make versions of hours from (hours after AT, hours after AT it was known, mean, departures)."""
    known = [AT + hours * HOUR for _, hours, *_ in told]
    return pl.DataFrame(
        {
            "series_id": "EWR",
            "timestamp": [AT + hours * HOUR for hours, *_ in told],
            "available_at": known,
            "collected_at": known,
            "mean_delay": [mean for *_, mean, _ in told],
            "departures": [count for *_, count in told],
        }
    )


def test_the_hour_that_was_revised_most_is_shown_with_its_versions() -> None:
    told = versions(
        (0, 1, 3.0, 9.0), (0, 2, 9.0, 12.0), (1, 2, 5.0, 8.0), (1, 3, 6.0, 9.0), (2, 3, 0.0, 1.0), (2, 4, 99, 2)
    )
    assert evidence.most_revised(told, AT)["mean_delay"].to_list() == [3.0, 9.0]
    assert evidence.most_revised(told, AT + 2 * HOUR)["mean_delay"].to_list() == []
    assert evidence.most_revised(told.head(1), AT).is_empty()


def test_what_a_forecast_saw_is_the_newest_version_known_when_it_was_issued() -> None:
    told = versions((0, 1, 3.0, 9.0), (0, 3, 9.0, 12.0))
    origins = pl.concat(issued(minutes, None).drop("mean") for minutes in (30, 60, 179, 180))
    assert evidence.seen_by(told, origins).sort("issued_at")["mean"].to_list() == [None, 3.0, 3.0, 9.0]


def test_the_error_of_a_method_is_on_the_rows_that_every_method_is_scored_on() -> None:
    rows = pl.DataFrame(
        {
            "actual": [1.0, 2.0, None],
            "value": [1.0, None, 1.0],
            "last": [0.0, 0.0, 0.0],
            "naive": [4.0, 9.0, 9.0],
            "lower": [0.0] * 3,
            "upper": [9.0] * 3,
        }
    )
    assert evidence.rmse_of(rows, "naive") == 3.0
