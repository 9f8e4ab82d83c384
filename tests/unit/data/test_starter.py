"""Task files that init writes load as they are and fit the table they were written for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle.data.starter import file_task, make_name, open_meteo_task
from forecastle.duration import parse_duration
from forecastle.errors import AnswerChanged, TaskError
from forecastle.task import load_task


@pytest.fixture
def table(tmp_path, observations) -> Path:
    path = tmp_path / "table.parquet"
    rows = observations().select("series_id", "timestamp", "y", "x")
    rows.with_columns(
        pl.when(pl.int_range(pl.len()) % 4 == 0).then(None).otherwise(pl.col("y")).alias("y")
    ).write_parquet(path)
    return path


def written(folder: Path, text: str):
    path = folder / "made.toml"
    path.write_text(text, encoding="utf-8")
    return load_task(path)


def test_the_open_meteo_task_loads(tmp_path):
    assert written(tmp_path, open_meteo_task("my-task")).source.provider == "open-meteo"


def test_the_file_task_loads_with_everything_that_was_asked_for(tmp_path, table):
    text, _ = file_task("bikes", table, tmp_path, "y", "30m", "2h", "Europe/Dublin", ["x"], 48, "observed", "IE")
    task = written(tmp_path, text)
    assert (task.target, task.covariates, task.steps, task.grid) == ("y", ("x",), 4, "observed")
    assert (task.features.season, task.features.holidays, task.timezone) == (48, "IE", "Europe/Dublin")
    assert Path(task.source.path or "") == table
    assert 'path = "table.parquet"' in text


def test_the_null_share_the_gate_accepts_is_what_the_table_shows(tmp_path, table):
    task = written(tmp_path, file_task("bikes", table, tmp_path, "y", "1h", "2h", covariates=["x"])[0])
    assert task.columns["y"].max_null_share == pytest.approx(0.26)
    assert task.columns["x"].max_null_share is None


def test_columns_with_odd_names_are_quoted(tmp_path, table):
    odd = tmp_path / "odd.csv"
    pl.read_parquet(table).rename({"y": "PM 2.5 [µg]"}).write_csv(odd)
    assert written(tmp_path, file_task("odd", odd, tmp_path, "PM 2.5 [µg]", "1h", "2h")[0]).target == "PM 2.5 [µg]"


def test_a_wrong_column_or_file_is_named_with_the_nearest(tmp_path, table):
    with pytest.raises(TaskError, match="'yy'; did you mean 'y'"):
        file_task("bikes", table, tmp_path, "yy", "1h", "2h")
    with pytest.raises(TaskError, match="no such file"):
        file_task("bikes", tmp_path / "none.csv", tmp_path, "y", "1h", "2h")
    with pytest.raises(TaskError, match="no column 'timestamp'"):
        pl.DataFrame({"series_id": ["a"], "y": [1.0]}).write_csv(tmp_path / "short.csv")
        file_task("bikes", tmp_path / "short.csv", tmp_path, "y", "1h", "2h")


def test_a_table_without_the_keys_is_told_what_to_rename_and_one_parted_otherwise_so(tmp_path):
    plain, parted = tmp_path / "plain.csv", tmp_path / "parted.csv"
    plain.write_text("date,sales\n2026-01-01,3\n")
    parted.write_text("series_id;timestamp;sales\na;2026-01-01;3\n")
    with pytest.raises(TaskError, match="Rename columns of the table: it needs series_id"):
        file_task("sales", plain, tmp_path, "sales", "1d", "7d")
    with pytest.raises(TaskError, match="part its columns by ';': write it with commas"):
        file_task("sales", parted, tmp_path, "sales", "1d", "7d")


@pytest.mark.parametrize(
    ("frequency", "horizon", "grid", "season", "line"),
    [
        ("1d", "7d", "regular", 7, "season = 7 "),
        ("1d", "7d", "observed", 5, "season = 5 "),
        ("1h", "2h", "regular", None, "# season = 24 "),
        ("30m", "2h", "regular", None, "# season = 48 "),
    ],
)
def test_steps_of_a_day_have_a_week_for_their_season_and_shorter_ones_a_day(
    tmp_path, frequency, horizon, grid, season, line
):
    days = pl.datetime_range(datetime(2024, 1, 1), datetime(2026, 1, 1), "1d", time_zone="UTC", eager=True)
    table = tmp_path / "table.csv"
    pl.DataFrame({"series_id": "a", "timestamp": days.cast(pl.String), "y": 1.0}).write_csv(table)
    text = file_task("sales", table, tmp_path, "y", frequency, horizon, grid=grid)[0]
    assert line in text and written(tmp_path, text).features.season == season


@pytest.mark.parametrize(
    ("apart", "given", "lengths"),
    [
        ("1d", {}, ("1d", "7d")),
        ("30m", {}, ("30m", "3h")),
        ("1d", {"horizon": "3d"}, ("1d", "3d")),
        ("30m", {"horizon": "90m"}, ("30m", "90m")),
        ("1d", {"frequency": "12h"}, ("12h", "3d")),
        ("7d", {}, ("1h", "6h")),
        ("500ms", {}, ("1h", "6h")),
    ],
)
def test_a_step_that_is_not_given_is_how_far_the_rows_lie_apart_where_a_day_is_made_of_such(
    tmp_path, apart, given, lengths
):
    first = datetime(2024, 1, 1, tzinfo=UTC)
    times = pl.select(pl.datetime_range(first, first + timedelta(days=70), apart, time_unit="us")).to_series().head(500)
    pl.DataFrame({"series_id": "a", "timestamp": times, "y": 1.0}).write_parquet(tmp_path / "table.parquet")
    text, notes = file_task("sales", tmp_path / "table.parquet", tmp_path, "y", **given)
    task = written(tmp_path, text)
    assert (task.frequency, task.horizon) == tuple(map(parse_duration, lengths))
    guessed = any(f"One step is {apart}, for the rows mostly lie {apart} apart (100%)" in note for note in notes)
    assert guessed == ("frequency" not in given and lengths[0] == apart)


def test_a_step_that_few_rows_tell_is_not_taken_and_one_that_was_read_off_is_named_where_it_does_not_fit(tmp_path):
    random = np.random.default_rng(0)
    first = datetime(2026, 1, 1, tzinfo=UTC)
    events = [first + timedelta(seconds=int(one)) for one in np.cumsum(random.exponential(30, 2000)).astype(int)]
    days = [first + timedelta(days=one) for one in range(400)]
    for name, times in (("events", events), ("days", days)):
        rows = pl.DataFrame({"series_id": "a", "timestamp": times, "y": 1.0}).unique("timestamp")
        rows.write_parquet(tmp_path / f"{name}.parquet")
    text, _ = file_task("events", tmp_path / "events.parquet", tmp_path, "y")
    assert written(tmp_path, text).frequency == timedelta(hours=1)
    with pytest.raises(TaskError, match="one step is 1d, for the rows mostly lie 1d apart") as wrong:
        file_task("days", tmp_path / "days.parquet", tmp_path, "y", horizon="6h")
    assert "horizon" in str(wrong.value) and "--frequency names another" in str(wrong.value)


@pytest.mark.parametrize("frequency", ["", "500000000d", "99999999999999d", "0h"])
def test_a_step_that_cannot_be_is_a_mistake_of_the_task_and_no_fault(tmp_path, table, frequency):
    with pytest.raises(TaskError, match="frequency: "):
        file_task("bikes", table, tmp_path, "y", frequency)


def test_a_name_that_cannot_be_is_refused():
    with pytest.raises(TaskError, match="small letters"):
        make_name("My Task")


@pytest.mark.parametrize("name", ["we # ird.csv", 'quo"te # [x].csv'])
def test_a_hash_in_a_path_or_a_column_is_no_comment(tmp_path, table, name):
    weird = tmp_path / name
    pl.read_parquet(table).rename({"y": "no # 1"}).write_csv(weird)
    text, _ = file_task("weird", weird, tmp_path, "no # 1", "1h", "2h")
    task = written(tmp_path, text)
    assert (task.source.path, task.target, list(task.columns)) == (str(weird), "no # 1", ["no # 1"])
    assert "# the table shows 25.0%" in text


def test_what_the_task_leaves_unused_and_how_the_rows_lie_is_said(tmp_path, observations):
    rows = observations(hours=24 * 40).select("series_id", "timestamp", "y", "x").with_columns(note=pl.lit("ok"))
    rows.filter(pl.col("timestamp").dt.day() != 2).write_csv(tmp_path / "t.csv", datetime_format="%Y-%m-%dT%H:%M:%SZ")
    _, notes = file_task("gone", tmp_path / "t.csv", tmp_path, "y", "1h", "2h", now=datetime(2100, 1, 1, tzinfo=UTC))
    unused, holes, ended = notes
    assert unused == "Unused columns: x (a covariate if named: --covariates x); note (no numbers)."
    assert "neighbouring rows lie further apart, up to 25h" in holes
    assert "ended" in ended and "add --now" in ended


def test_text_where_numbers_should_be_is_named_by_row_before_a_task_is_written(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("series_id,timestamp,y\na,2024-01-01T00:00Z,1\na,2024-01-01T01:00Z,NA\na,2024-01-01T02:00Z,wet\n")
    with pytest.raises(AnswerChanged, match="'wet' in row 3, series a"):
        file_task("words", table, tmp_path, "y", "1h", "2h")
