"""A collection: archived first, then parsed, then one clean batch with its counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from forecastle.data.archive import Archive
from forecastle.data.faults import FAULTS
from forecastle.data.ingestion import Batch, fetch, load_batch, make_batch, save_batch
from forecastle.data.replay import AIRPORTS, replay_app
from forecastle.errors import AnswerChanged, ForecastleError, SourceUnavailable, UserError
from forecastle.http import Client, asgi_transport
from forecastle.settings import Settings
from forecastle.task import Task, make_task

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOW = datetime(2013, 2, 12, 8, tzinfo=UTC)
WINDOW = 48 * HOUR
Collect = Callable[..., Batch]


def weather() -> pl.DataFrame:
    """Return the hours of 200 days before NOW and 10 days after it, at each airport."""
    first, hours = NOW - 200 * 24 * HOUR, 210 * 24
    times = pl.datetime_range(first, first + hours * HOUR, "1h", time_zone="UTC", eager=True).alias("timestamp")
    counted = pl.DataFrame([times]).with_row_index("n")
    one = counted.select(
        "timestamp",
        temperature_2m=pl.col("n") % 300 / 10,
        relative_humidity_2m=50.0 + pl.col("n") % 40,
        wind_speed_10m=pl.lit(3.0),
        pressure_msl=pl.when(pl.col("n") % 10 == 0).then(None).otherwise(1013.0),
    )
    return pl.concat(one.select(pl.lit(name).alias("series_id"), pl.all()) for name in AIRPORTS)


@pytest.fixture(scope="module")
def recorded() -> pl.DataFrame:
    return weather()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def collect(task: Task, archive: Archive, recorded: pl.DataFrame) -> Iterator[Collect]:
    """Collect the task from the replayed source as of a moment, by default live and the last 48 hours."""

    def collect(now: datetime = NOW, start: datetime | None = None, live: bool = True, **replay: Any) -> Batch:
        app = replay_app(recorded, lambda: now, **replay)
        with Client(Settings(http_attempts=1), asgi_transport(app)) as client:
            return fetch(task, Settings(), client, archive, start or now - WINDOW, now, now, live)

    yield collect


def table_task(**changes: Any) -> Task:
    data: dict[str, Any] = {
        "name": "mine",
        "domain": "financial",
        "frequency": "1h",
        "horizon": "6h",
        "target": "close",
        "source": {"provider": "file", "path": "table.csv"},
        "columns": {"close": {}, "volume": {}},
    }
    return make_task(data | changes)


def parsed(*rows: tuple[int, float | None, float | None], series_id: str = "BTC") -> pl.DataFrame:
    """Return a parsed answer: rows of hours before NOW, close and volume."""
    schema = {"series_id": pl.String, "timestamp": pl.Datetime("us", "UTC"), "close": pl.Float64, "volume": pl.Float64}
    return pl.DataFrame([(series_id, NOW - ago * HOUR, *values) for ago, *values in rows], schema=schema, orient="row")


def batch_of(task: Task, *tables: pl.DataFrame, start: datetime = NOW - WINDOW, live: bool = True) -> Batch:
    return make_batch(task, tables, start, NOW, NOW, live, ["name"])


def test_a_live_window_brings_every_hour_from_start_to_now_with_both_ends(collect):
    batch = collect()
    assert batch.rows.height == 3 * 49
    assert (batch.rows["timestamp"].min(), batch.rows["timestamp"].max()) == (NOW - WINDOW, NOW)
    assert batch.rows["series_id"].unique().sort().to_list() == ["EWR", "JFK", "LGA"]


def test_live_values_count_as_known_from_their_collection(collect):
    batch = collect(live=True)
    assert batch.rows.select("available_at", "collected_at").unique().rows() == [(NOW, NOW)]


def test_backfilled_values_count_as_known_when_they_were_published(collect, task):
    batch = collect(live=False)
    assert batch.rows["available_at"].equals(batch.rows["timestamp"])  # a reading at its timestamp, without delay
    assert batch.rows["collected_at"].unique().to_list() == [NOW]


def test_publication_counts_the_step_and_the_delay_and_is_never_after_the_collection():
    task = table_task(source={"provider": "file", "path": "t.csv", "publication_delay": "2h"})
    batch = batch_of(task, parsed((9, 1, 1), (3, 1, 1), (2, 1, 1), (1, 1, 1)), live=False)
    assert batch.rows["available_at"].to_list() == [NOW - 6 * HOUR, NOW, NOW, NOW]


def test_a_backfill_takes_old_days_from_the_archive_and_recent_ones_from_the_forecast_without_a_seam(collect):
    batch = collect(start=NOW - 150 * 24 * HOUR, live=False)
    assert len(batch.archived) == 3  # the rest of two quarters, and the last 90 days
    assert batch.rows.height == 3 * (150 * 24 + 1)
    steps = batch.rows.filter(series_id="JFK")["timestamp"].diff().drop_nulls()
    assert steps.unique().to_list() == [HOUR]
    assert batch.duplicates == 0


def test_what_live_and_backfill_bring_for_an_hour_is_the_same_value(collect, task):
    columns = ["series_id", "timestamp", *task.columns]
    live, backfill = collect().rows, collect(start=NOW - 150 * 24 * HOUR, live=False).rows
    assert live.select(columns).equals(backfill.filter(pl.col("timestamp") >= NOW - WINDOW).select(columns))


def test_forecasts_in_an_answer_are_dropped_and_counted(collect):
    honest, forecasting = collect(), collect(forecast_values=True)
    assert honest.after_collection == 0
    assert forecasting.after_collection == 3 * 15  # the rest of the day, 09:00 to 23:00, at three places
    assert forecasting.rows.equals(honest.rows)


def test_a_value_over_a_step_is_not_known_before_the_step_has_ended():
    batch = batch_of(table_task(), parsed((2, 1, 1), (1, 1, 1), (0, 1, 1)))
    assert batch.rows["timestamp"].max() == NOW - HOUR
    assert batch.after_collection == 1


def test_identical_rows_are_dropped_and_counted():
    batch = batch_of(table_task(), parsed((3, 1, None), (3, 1, None), (2, 1, 2), (3, 1, None)))
    assert batch.rows.height == 2
    assert batch.duplicates == 2


def test_identical_rows_of_two_answers_are_dropped_and_counted_too():
    assert batch_of(table_task(), parsed((3, 1, 2)), parsed((3, 1, 2))).duplicates == 1


@pytest.mark.parametrize("other", [1.5, None])
def test_one_timestamp_with_two_values_is_refused_with_series_column_time_and_both_values(other):
    with pytest.raises(AnswerChanged) as refused:
        batch_of(table_task(), parsed((3, 1, 2), (2, 1, 2), (3, 1, other)))
    for word in ("series BTC", "column volume", "2013-02-12T05:00:00Z", "2.0", str(other)):
        assert word in refused.value.found


def test_rows_outside_the_window_are_left_out():
    batch = batch_of(table_task(), parsed((49, 1, 1), (48, 1, 1), (1, 1, 1)))
    assert batch.rows["timestamp"].to_list() == [NOW - 48 * HOUR, NOW - HOUR]


def test_where_all_there_is_was_asked_for_the_window_begins_with_the_first_row():
    task = table_task()
    assert batch_of(task, parsed((9, 1, 1)), start=task.start).start == NOW - 9 * HOUR
    assert batch_of(task, parsed((9, 1, 1))).start == NOW - WINDOW


def test_the_order_in_which_rows_arrive_changes_nothing():
    rows = [(3, 1.0, 2.0), (2, 3.0, 4.0), (9, 5.0, 6.0)]
    one = batch_of(table_task(), parsed(*rows), parsed(*rows, series_id="ETH"))
    other = batch_of(table_task(), parsed(*reversed(rows), series_id="ETH"), parsed(*reversed(rows)))
    assert one.rows.equals(other.rows)


def test_nothing_in_the_window_means_the_source_is_unavailable_and_its_newest_row_is_named():
    with pytest.raises(SourceUnavailable, match="newest row answered is of 2013-02-08T04:00:00Z"):
        batch_of(table_task(), parsed((100, 1, 1)))
    with pytest.raises(SourceUnavailable, match="found none"):
        make_batch(table_task(), [], NOW, NOW, NOW, True, [])


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - {"nulls", "429", "503"}))
def test_a_refused_answer_was_archived_first(collect, archive, fault):
    with pytest.raises(ForecastleError) as refused:
        collect(faults=lambda: fault)
    assert refused.value.exit_code == (4 if fault == "empty" else 3)
    (note,) = archive.root.glob("20*/**/*.json")
    archive.read(str(note.relative_to(archive.root)))


def test_an_error_answer_is_archived_and_refused_with_the_sources_own_reason(collect, archive):
    with pytest.raises(AnswerChanged, match="HTTP 400.*No data is available for this location"):
        collect(locations={"EWR": (0.0, 0.0), "JFK": (0.0, 0.0), "LGA": (0.0, 0.0)})
    assert list(archive.root.glob("20*/**/*.json"))


@pytest.mark.parametrize("fault", ["429", "503"])
def test_an_answer_the_client_refuses_is_archived_too(collect, archive, fault):
    with pytest.raises(SourceUnavailable):
        collect(faults=lambda: fault)
    (note,) = archive.root.glob("20*/**/*.json")
    assert json.loads(note.read_bytes())["status"] == int(fault)
    assert archive.read(str(note.relative_to(archive.root)))


def test_the_beginning_of_an_answer_that_is_too_large_is_archived_and_marked(task, archive, recorded):
    settings = Settings(http_max_bytes=500)
    with Client(settings, asgi_transport(replay_app(recorded, lambda: NOW))) as client:
        with pytest.raises(AnswerChanged, match="at most 500 bytes"):
            fetch(task, settings, client, archive, NOW - WINDOW, NOW, NOW, True)
    (note,) = archive.root.glob("20*/**/*.json")
    said = json.loads(note.read_bytes())
    assert said["bytes"] == 500 and said["headers"]["x-forecastle-cut"] == "the first 500 bytes"


@dataclass
class Feed:
    """A city's feed that gives validators and answers 304 to who has its last answer already."""

    tmp_path: Path
    etag: str = '"1"'
    modified: str = "Tue, 12 Feb 2013 07:59:00 GMT"
    taken: int = 5
    updated: datetime = NOW
    seen: list[httpx.Request] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        validators = {"ETag": self.etag, "Last-Modified": self.modified}
        there = {name: value for name, value in validators.items() if value}
        asked = (request.headers.get("if-none-match"), request.headers.get("if-modified-since"))
        if any(asked) and asked == (self.etag or None, self.modified or None):
            return httpx.Response(304, headers=there)
        counts = {"num_bikes_available": self.taken, "num_docks_available": 1}
        station = {"station_id": "1", **counts, "is_installed": 1, "last_reported": int(self.updated.timestamp())}
        said = {"last_updated": int(self.updated.timestamp()), "ttl": 60, "data": {"stations": [station]}}
        return httpx.Response(200, json=said, headers=there)

    def collect(self, archive: Archive, now: datetime, clock: bool = True) -> Batch:
        task = make_task(
            {
                "name": "bikes",
                "domain": "logistics",
                "frequency": "10m",
                "horizon": "1h",
                "target": "bikes",
                "source": {"provider": "gbfs", "url": "https://bikes.example/{feed}", "instantaneous": True},
                "columns": {"bikes": {}},
                "series": [{"id": "1"}],
            }
        )
        settings = Settings(home=self.tmp_path / "home", http_attempts=1)
        with Client(settings, httpx.MockTransport(self.answer)) as client:
            return fetch(task, settings, client, archive, now - HOUR, now, now, True, (lambda: now) if clock else None)


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path)


@pytest.mark.parametrize(("etag", "modified"), [('"1"', ""), ("", "Tue, 12 Feb 2013 07:59:00 GMT"), ('W/"a"', "x")])
def test_an_address_with_validators_is_asked_for_news_alone_and_no_news_is_the_archived_answer(
    feed, archive, etag, modified
):
    feed.etag, feed.modified = etag, modified
    first, second, third = (feed.collect(archive, NOW + minute * MINUTE) for minute in (0, 10, 20))
    conditions = [(one.headers.get("if-none-match"), one.headers.get("if-modified-since")) for one in feed.seen]
    assert conditions == [(None, None), *[(etag or None, modified or None)] * 2]
    values = ["series_id", "timestamp", "bikes"]
    assert first.rows.select(values).equals(second.rows.select(values))
    assert second.rows.select(values).equals(third.rows.select(values))


def test_no_news_is_archived_as_a_note_of_the_same_body(feed, archive):
    names = [feed.collect(archive, NOW + minute * MINUTE).archived[0] for minute in (0, 10)]
    first, second = (json.loads((archive.root / name).read_bytes()) for name in names)
    assert (first["status"], second["status"]) == (200, 304)
    assert first["sha256"] == second["sha256"]
    assert archive.read(names[0]) == archive.read(names[1])


def test_news_is_taken_as_it_is_sent(feed, archive):
    feed.collect(archive, NOW)
    feed.etag, feed.taken, feed.updated = '"2"', 9, NOW + 10 * MINUTE
    assert feed.collect(archive, NOW + 10 * MINUTE).rows["bikes"].to_list() == [9.0]
    feed.collect(archive, NOW + 20 * MINUTE)
    assert feed.seen[-1].headers["if-none-match"] == '"2"'


def test_where_the_archived_answer_is_lost_all_is_asked_for_again(feed, archive):
    feed.collect(archive, NOW)
    for body in (archive.root / "bodies").rglob("*"):
        if body.is_file():
            body.unlink()
    assert feed.collect(archive, NOW + 10 * MINUTE).rows.height == 1
    assert "if-none-match" not in feed.seen[-1].headers


def test_an_answer_that_was_refused_is_not_what_is_asked_for_again(feed, archive):
    good, feed.answer = feed.answer, lambda request: httpx.Response(200, content=b"{}", headers={"ETag": '"1"'})
    with pytest.raises(AnswerChanged):
        feed.collect(archive, NOW)
    feed.answer = good
    feed.collect(archive, NOW + MINUTE)
    assert "if-none-match" not in feed.seen[-1].headers


def test_an_answer_without_validators_is_always_asked_for_whole(feed, archive):
    feed.etag = feed.modified = ""
    for minute in (0, 10):
        feed.collect(archive, NOW + minute * MINUTE)
    assert all("if-none-match" not in one.headers and "if-modified-since" not in one.headers for one in feed.seen)


def live(task: Task, archive: Archive, app: Any, now: datetime, wall: datetime, home: Path) -> Batch:
    """Collect as a door does, whose clock shows ``wall``."""
    settings = Settings(home=home, http_attempts=1)
    with Client(settings, app) as client:
        return fetch(task, settings, client, archive, now - WINDOW, now, now, True, lambda: wall)


def unmarked(app: Any) -> httpx.BaseTransport:
    """Return a transport to an application whose answers do not say that they are a replay."""
    inner = asgi_transport(app)

    def answer(request: httpx.Request) -> httpx.Response:
        response = inner.handle_request(request)
        return httpx.Response(response.status_code, content=response.read())

    return httpx.MockTransport(answer)


def test_a_replay_is_believed_at_whichever_moment(task, archive, recorded, tmp_path):
    app = asgi_transport(replay_app(recorded, lambda: NOW))
    batch = live(task, archive, app, NOW, NOW + 5_000 * 24 * HOUR, tmp_path)
    assert batch.collected_at == NOW


@pytest.mark.parametrize("away", [-11 * MINUTE, 11 * MINUTE, 5_000 * 24 * HOUR])
def test_a_live_source_is_not_asked_as_of_another_moment(task, archive, recorded, tmp_path, away):
    with pytest.raises(UserError, match="forecastle replay") as refused:
        live(task, archive, unmarked(replay_app(recorded, lambda: NOW)), NOW, NOW + away, tmp_path)
    assert refused.value.exit_code == 2 and "--now 2013-02-12T08:00:00Z" in refused.value.found
    (note,) = archive.root.glob("*/*/*/*.json")
    assert datetime.fromisoformat(json.loads(note.read_bytes())["collected_at"]) == NOW + away


@pytest.mark.parametrize("away", [-2 * MINUTE, 0 * MINUTE, 10 * MINUTE])
def test_a_pass_may_take_a_while_and_be_tried_again(task, archive, recorded, tmp_path, away):
    app = unmarked(replay_app(recorded, lambda: NOW))
    assert live(task, archive, app, NOW, NOW + away, tmp_path).rows.height == 3 * 49


def test_nulls_in_an_answer_are_for_the_gate_to_judge(collect):
    batch = collect(faults=lambda: "nulls")
    assert batch.rows.height == 3 * 49
    assert 0.25 < batch.rows["temperature_2m"].null_count() / batch.rows.height < 0.35


def test_every_answer_of_a_batch_can_be_read_from_the_archive(collect, archive):
    batch = collect(start=NOW - 150 * 24 * HOUR, live=False)
    assert all(archive.read(name).startswith(b"[{") for name in batch.archived)


def test_a_file_is_archived_too_and_a_rerun_stores_its_bytes_only_once(tmp_path, archive):
    path = tmp_path / "table.csv"
    path.write_text("series_id,timestamp,close,volume\nBTC,2013-02-12T05:00:00Z,1,2\n")
    task = table_task(source={"provider": "file", "path": str(path)})
    with Client(Settings()) as client:
        batches = [fetch(task, Settings(), client, archive, task.start, now, now, False) for now in (NOW, NOW + HOUR)]
    assert batches[0].rows.drop("collected_at").equals(batches[1].rows.drop("collected_at"))
    assert archive.read(batches[0].archived[0]) == path.read_bytes()
    assert len([body for body in (archive.root / "bodies").rglob("*") if body.is_file()]) == 1


def test_a_saved_batch_is_loaded_as_it_was(collect, tmp_path):
    batch = replace(collect(), duplicates=2, after_collection=3)
    loaded = load_batch(save_batch(tmp_path / "run", batch))
    assert loaded.rows.equals(batch.rows)
    assert replace(loaded, rows=batch.rows) == replace(batch, rows=batch.rows)


def test_without_a_batch_the_message_says_to_ingest_first(tmp_path):
    with pytest.raises(UserError, match="Run the ingest step of this run first"):
        load_batch(tmp_path)


@pytest.mark.parametrize("lost", ["batch.json", "batch.parquet"])
def test_half_a_batch_is_none(collect, tmp_path, lost):
    save_batch(tmp_path, collect())
    (tmp_path / lost).unlink()
    with pytest.raises(UserError, match="a whole batch"):
        load_batch(tmp_path)


def test_a_new_table_beside_an_old_note_is_no_batch(tmp_path):
    save_batch(tmp_path, batch_of(table_task(), parsed((3, 1, 2))))
    note = (tmp_path / "batch.json").read_bytes()
    save_batch(tmp_path, batch_of(table_task(), parsed((3, 1, 2), (2, 1, 2))))
    (tmp_path / "batch.json").write_bytes(note)
    with pytest.raises(UserError, match="a whole batch"):
        load_batch(tmp_path)
