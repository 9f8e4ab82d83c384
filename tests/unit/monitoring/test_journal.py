"""The journal records every forecast once, scores it once, and remembers what went wrong."""

from __future__ import annotations

import hashlib
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql

from forecastle.errors import SettingsError, StorageUnavailable
from forecastle.frame import TIME
from forecastle.models.intervals import follow
from forecastle.monitoring.journal import FIGURES, FORECAST, LATEST_TRUTH, OUTCOME, Heartbeat, Journal, identified
from forecastle.monitoring.rows import IDENTITY
from forecastle.monitoring.tables import FORECASTS, INCIDENTS

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path}/stores/journal.db")


def issued(
    origin: datetime = NOON, series: str = "EWR", steps: int = 3, value: float = 4.0, **other: object
) -> pl.DataFrame:
    rows = [
        {
            "task": "weather",
            "series_id": series,
            "origin": origin,
            "timestamp": origin + step * HOUR,
            "horizon": step,
            "value": value,
            "lower": value - 1,
            "upper": value + 1,
            "last": 3.0,
            "model_version": "1",
            "data_version": "abc",
            "issued_at": origin,
            "drifted": False,
            "estimator": "blend",
        }
        | other
        for step in range(1, steps + 1)
    ]
    return pl.DataFrame(rows, schema={name: FORECAST[name] for name in rows[0]})


def came_true(forecasts: pl.DataFrame, actual: float = 5.0) -> pl.DataFrame:
    return forecasts.with_columns(actual=pl.lit(actual), scored_at=pl.lit(NOON, TIME))


def test_a_recorded_forecast_is_read_back_as_it_was_issued(journal: Journal) -> None:
    forecasts = issued(origin=NOON + timedelta(microseconds=7))
    assert journal.record(forecasts) == 3
    read = journal.forecasts("weather")
    assert read.schema == FORECAST
    assert read.drop("forecast_id").equals(forecasts)


def test_a_forecast_recorded_twice_is_there_once_and_stays_as_first_issued(journal: Journal) -> None:
    journal.record(issued(value=4.0))
    assert journal.record(issued(value=9.0)) == 0
    assert journal.forecasts("weather")["value"].to_list() == [4.0] * 3


def test_another_model_version_makes_another_forecast(journal: Journal) -> None:
    journal.record(issued())
    assert journal.record(issued(model_version="2")) == 3


def test_two_horizons_that_share_a_time_are_two_forecasts(journal: Journal) -> None:
    """Where the grid is the observed one, the timestamps of bars to come are only expected ones."""
    assert journal.record(issued(steps=2, timestamp=NOON + HOUR)) == 2


def test_the_id_of_a_forecast_does_not_depend_on_its_value_or_its_company() -> None:
    together, alone = identified(issued(steps=3)), identified(issued(steps=1, value=7.0))
    assert together["forecast_id"][0] == alone["forecast_id"][0]
    assert together["forecast_id"].n_unique() == 3
    assert len(alone["forecast_id"][0]) == 32


def test_the_id_of_a_forecast_stays_what_it_was_when_its_times_were_written_one_by_one() -> None:
    for at in (NOON, NOON + timedelta(microseconds=120)):
        (made,) = identified(issued(steps=1, origin=at)).iter_rows(named=True)
        told = [made[name].isoformat() if isinstance(made[name], datetime) else str(made[name]) for name in IDENTITY]
        assert made["forecast_id"] == hashlib.sha256("\x1f".join(told).encode()).hexdigest()[:32]


def test_a_missing_last_value_is_kept_as_missing_also_when_it_comes_as_nan(journal: Journal) -> None:
    journal.record(issued(last=None))
    journal.record(issued(series="JFK", last=float("nan")))
    assert journal.forecasts("weather")["last"].to_list() == [None] * 6


def test_a_forecast_is_due_only_when_its_time_has_come(journal: Journal) -> None:
    journal.record(issued())
    assert journal.due("weather", NOON).is_empty()
    assert journal.due("weather", NOON + 2 * HOUR)["horizon"].to_list() == [1, 2]
    assert journal.due("another task", NOON + 2 * HOUR).is_empty()


def test_a_scored_forecast_is_no_longer_due_and_is_never_scored_again(journal: Journal) -> None:
    journal.record(issued())
    due = journal.due("weather", NOON + HOUR)
    assert journal.score(came_true(due, 5.0)) == 1
    assert journal.score(came_true(due, 6.0)) == 0
    assert journal.due("weather", NOON + HOUR).is_empty()
    outcomes = journal.outcomes("weather")
    assert outcomes.schema == OUTCOME
    assert outcomes["actual"].to_list() == [5.0]
    assert journal.counts("weather") == {"waiting": 2, "scored": 1, "never_came": 0}


def test_an_outcome_without_its_forecast_is_a_mistake_and_nothing_is_written(journal: Journal) -> None:
    known = identified(issued(steps=1))
    journal.record(known)
    strange = identified(issued(series="nobody"))
    with pytest.raises(sql.exc.IntegrityError):
        journal.score(came_true(pl.concat([known, strange])))
    assert journal.outcomes("weather").is_empty()


def test_a_forecast_whose_truth_never_came_is_counted_not_forgotten(journal: Journal) -> None:
    journal.record(issued())
    assert journal.give_up("weather", before=NOON + 2 * HOUR) == 1
    assert journal.counts("weather") == {"waiting": 2, "scored": 0, "never_came": 1}


def test_a_truth_that_comes_after_it_was_given_up_is_scored_after_all(journal: Journal) -> None:
    journal.record(issued())
    journal.give_up("weather", before=NOON + 2 * HOUR)
    late = journal.due("weather", NOON + 9 * HOUR)
    assert late["horizon"].to_list() == [1, 2, 3]
    assert journal.score(came_true(late)) == 3
    assert journal.counts("weather") == {"waiting": 0, "scored": 3, "never_came": 0}
    assert journal.due("weather", NOON + 9 * HOUR).is_empty()


def test_a_truth_that_was_given_up_is_not_looked_for_for_ever(journal: Journal) -> None:
    journal.record(issued())
    journal.give_up("weather", before=NOON + 2 * HOUR)
    assert journal.due("weather", NOON + HOUR + LATEST_TRUTH)["horizon"].to_list() == [1, 2, 3]
    assert journal.due("weather", NOON + 2 * HOUR + LATEST_TRUTH)["horizon"].to_list() == [2, 3]


def test_the_current_forecasts_are_those_of_each_series_newest_origin(journal: Journal) -> None:
    journal.record(issued(NOON))
    journal.record(issued(NOON, "JFK"))
    journal.record(issued(NOON + HOUR))
    journal.record(issued(NOON - HOUR))
    current = journal.latest("weather")
    assert current.select("series_id", "horizon").rows() == [(s, h) for s in ("EWR", "JFK") for h in (1, 2, 3)]
    assert current["origin"].to_list() == [NOON + HOUR] * 3 + [NOON] * 3


def test_of_two_models_at_one_origin_the_one_issued_last_is_current(journal: Journal) -> None:
    journal.record(issued(model_version="2", issued_at=NOON + HOUR))
    journal.record(issued(model_version="1", issued_at=NOON))
    assert journal.latest("weather")["model_version"].to_list() == ["2"] * 3


def test_forecasts_and_outcomes_can_be_read_from_a_time_on(journal: Journal) -> None:
    journal.record(issued())
    journal.score(came_true(journal.due("weather", NOON + 3 * HOUR)))
    assert journal.forecasts("weather", since=NOON + 2 * HOUR)["horizon"].to_list() == [2, 3]
    assert journal.outcomes("weather", since=NOON + 3 * HOUR)["horizon"].to_list() == [3]


def test_scores_need_not_read_everything(journal: Journal) -> None:
    journal.record(issued())
    journal.score(came_true(journal.due("weather", NOON + 3 * HOUR)))
    assert journal.outcomes("weather", NOON, FIGURES).equals(journal.outcomes("weather", NOON).select(FIGURES))


@pytest.mark.parametrize("dtype", [pl.Datetime("ms", "UTC"), pl.Datetime("us", "Asia/Tokyo")])
def test_a_forecast_is_the_same_one_however_its_times_are_written(dtype: pl.DataType) -> None:
    made = issued(steps=3)
    other = made.with_columns(pl.col("origin", "timestamp", "issued_at").cast(dtype))
    assert identified(other)["forecast_id"].equals(identified(made)["forecast_id"])


def test_a_tally_follows_a_model_s_outcomes_by_series_and_horizon(journal: Journal) -> None:
    for hours, actual in enumerate([4.0, 5.0, 6.0]):
        journal.record(issued(NOON + hours * HOUR, steps=1, lower=3.0))
        journal.score(came_true(journal.due("weather", NOON + 9 * HOUR), actual))
    journal.record(issued(NOON, "JFK", steps=1, lower=None))
    journal.record(issued(NOON, steps=1, model_version="2"))
    journal.score(came_true(journal.due("weather", NOON + 9 * HOUR), 9.0))
    moved = (0.0, 0.0)
    for missed in (False, False, True):
        moved = follow(*moved, missed, 1.0, 0.9)
    assert journal.tally("weather", "1", NOON, 0.9) == {("EWR", 0): moved[0], ("EWR", 1): moved[1]}
    moved = follow(0.0, 0.0, True, 1.0, 0.8)
    assert journal.tally("weather", "2", NOON, 0.8) == {("EWR", 0): moved[0], ("EWR", 1): moved[1]}
    assert journal.tally("weather", "3", NOON, 0.9) == {}


def test_a_tally_as_of_a_past_moment_counts_only_what_was_scored_by_then(journal: Journal) -> None:
    journal.record(issued(steps=2))
    first, second = journal.due("weather", NOON + HOUR), journal.due("weather", NOON + 2 * HOUR)[1:]
    journal.score(first.with_columns(actual=pl.lit(9.0), scored_at=pl.lit(NOON + HOUR, TIME)))
    journal.score(second.with_columns(actual=pl.lit(9.0), scored_at=pl.lit(NOON + 2 * HOUR, TIME)))
    assert journal.tally("weather", "1", NOON, 0.9) == {}
    assert set(journal.tally("weather", "1", NOON + HOUR, 0.9)) == {("EWR", 0), ("EWR", 1)}
    assert set(journal.tally("weather", "1", NOON + 2 * HOUR, 0.9)) == {("EWR", 0), ("EWR", 1), ("EWR", 2)}


def test_an_empty_journal_answers_with_empty_tables(journal: Journal) -> None:
    assert journal.record(issued().clear()) == journal.score(came_true(identified(issued())).clear()) == 0
    assert journal.latest("weather").schema == FORECAST
    assert journal.drift_flags("weather", 500, NOON) == ()
    assert journal.revision("weather") == journal.revision("another task")


def test_drift_flags_count_a_prediction_once_and_come_newest_first(journal: Journal) -> None:
    for hours, drifted in enumerate([True, False, True, True]):
        journal.record(issued(NOON + hours * HOUR, drifted=drifted))
    assert journal.drift_flags("weather", 3, NOON + 3 * HOUR) == (True, True, False)


def test_drift_flags_as_of_a_past_moment_are_those_of_the_predictions_issued_by_then(journal: Journal) -> None:
    for hours, drifted in enumerate([True, False, True, True]):
        journal.record(issued(NOON + hours * HOUR, drifted=drifted))
    assert journal.drift_flags("weather", 500, NOON + HOUR) == (False, True)
    assert journal.drift_flags("weather", 500, NOON - HOUR) == ()


def test_the_revision_changes_with_every_change_of_its_own_task_and_with_no_other(journal: Journal) -> None:
    seen = [journal.revision("weather")]

    def differs() -> bool:
        seen.append(journal.revision("weather"))
        return seen[-1] not in seen[:-1]

    journal.record(issued())
    assert differs()
    journal.score(came_true(journal.due("weather", NOON + HOUR)))
    assert differs()
    journal.give_up("weather", before=NOON + 3 * HOUR)
    assert differs()
    journal.score(came_true(journal.due("weather", NOON + 2 * HOUR)))  # a truth that came after all
    assert differs()
    journal.open_incident("weather", "gate", "nulls", NOON)
    assert differs()
    journal.close_incident("weather", "gate", NOON + HOUR)
    assert differs()
    journal.record(issued(task="another task"))
    assert not differs()


def test_what_others_said_is_kept_without_control_characters(journal: Journal) -> None:
    journal.open_incident("weather", "gate", "an error: \0\x1b[2J\nof\ttwo lines", NOON)
    journal.close_incident("weather", "gate", NOON, "b\0ck")
    journal.beat("weather", "ingest", NOON, "\0")
    (one,) = journal.incidents("weather")
    assert (one.reason, one.note) == ("an error: \\x00\\x1b[2J\nof\ttwo lines", "b\\x00ck")
    assert [step.detail for step in journal.incident_steps([one.number])[one.number]] == [one.reason, one.note]
    assert journal.heartbeats("weather")["ingest"].detail == "\\x00"


def test_one_incident_of_a_kind_is_open_at_a_time(journal: Journal) -> None:
    assert journal.open_incident("weather", "gate", "nulls", NOON)
    assert not journal.open_incident("weather", "gate", "more nulls", NOON + HOUR)
    assert journal.open_incident("weather", "drift", "a sensor", NOON)
    assert journal.close_incident("weather", "gate", NOON + 2 * HOUR, "healed")
    assert not journal.close_incident("weather", "gate", NOON + 2 * HOUR)
    assert journal.open_incident("weather", "gate", "again", NOON + 3 * HOUR)
    closed, drift, again = journal.incidents("weather")
    assert (closed.reason, closed.closed_at, closed.note) == ("nulls", NOON + 2 * HOUR, "healed")
    assert journal.incidents(open_only=True) == (drift, again)


def test_work_done_as_of_the_past_counts_but_is_not_the_newest(journal: Journal) -> None:
    journal.beat("weather", "gate:fail", NOON, "now")
    journal.beat("weather", "gate:fail", NOON - 72 * HOUR, "a backfill")
    assert journal.heartbeats("weather")["gate:fail"] == Heartbeat("weather", "gate:fail", NOON, 2, "now")


def test_a_heartbeat_keeps_its_last_time_and_counts(journal: Journal) -> None:
    for hours in range(3):
        journal.beat("weather", "forecast", NOON + hours * HOUR, f"hour {hours}")
    assert journal.heartbeats("weather") == {
        "forecast": Heartbeat("weather", "forecast", NOON + 2 * HOUR, 3, "hour 2"),
    }


def test_what_was_recorded_is_there_for_another_process(journal: Journal) -> None:
    journal.record(issued())
    with Journal(str(journal.engine.url)) as other:
        assert other.forecasts("weather").height == 3


def test_many_writers_at_once_lose_and_double_nothing(journal: Journal) -> None:
    def write(series: str) -> None:
        with Journal(str(journal.engine.url)) as own:
            for hour in range(5):
                own.record(issued(NOON + hour * HOUR, series))
                own.record(issued(NOON + hour * HOUR, "shared"))

    writers = [threading.Thread(target=write, args=(f"s{number}",)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert journal.forecasts("weather").height == 5 * 5 * 3


def test_a_file_that_is_no_database_is_storage_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("this is not a database " * 100)
    with pytest.raises(StorageUnavailable, match="not a database"):
        Journal(f"sqlite:///{tmp_path}/journal.db")


def test_a_folder_that_cannot_be_made_is_storage_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match="folder"):
        Journal(f"sqlite:///{tmp_path}/file/journal.db")


@pytest.mark.parametrize(
    "url", ["journal.db", "mysql://user:hunter2@host/name", "nonsense+db://user:hunter2@host/name"]
)
def test_an_address_that_cannot_be_is_named_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as error:
        Journal(url)
    assert "FORECASTLE_JOURNAL" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_the_statements_are_postgresql_too() -> None:
    insert = postgresql.insert(INCIDENTS).on_conflict_do_nothing(
        index_elements=["task", "kind"], index_where=INCIDENTS.c.closed_at.is_(None)
    )
    assert "ON CONFLICT (task, kind) WHERE closed_at IS NULL DO NOTHING" in str(
        insert.compile(dialect=postgresql.dialect())
    )
    table = str(sql.schema.CreateTable(FORECASTS).compile(dialect=postgresql.dialect()))
    assert "TIMESTAMP WITH TIME ZONE" in table and "DOUBLE PRECISION" in table
