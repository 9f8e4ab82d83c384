"""Each shipped task of a live source, from answers in the API's own layout to what its history suffices for."""

from __future__ import annotations

import io
import json
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import polars as pl
import pytest
from google.transit.gtfs_realtime_pb2 import FeedMessage

from forecastle import pipeline
from forecastle.data.derivation import open_history
from forecastle.data.history import History
from forecastle.data.replay import replay_app
from forecastle.errors import ForecastleError, NotEnoughHistory, SourceUnavailable
from forecastle.frame import iso
from forecastle.http import asgi_transport
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task, load_task, make_task

HOUR, STEP = timedelta(hours=1), timedelta(minutes=5)
NEW_YORK = ZoneInfo("America/New_York")
Reply = Callable[[httpx.Request], Any] | httpx.BaseTransport


class Market(httpx.BaseTransport):
    """Answer every call by a function of it, a JSON value or bytes, and never with what lies after now."""

    def __init__(self, reply: Callable[[httpx.Request], Any]) -> None:
        self.reply = reply

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self.reply(request)
        return httpx.Response(200, content=reply if isinstance(reply, bytes) else json.dumps(reply).encode())


@dataclass
class Desk:
    """A task with its stores and a clock; ``run`` runs a flow and returns how its steps ended."""

    task: Task
    settings: Settings
    now: datetime

    def run(self, flow: str, reply: Reply) -> dict[str, pipeline.Outcome]:
        transport = reply if isinstance(reply, httpx.BaseTransport) else Market(reply)
        with pipeline.open_run(self.task, self.settings, flow, self.now, transport) as run:
            return {outcome.step: outcome for outcome in pipeline.run_flow(run)}

    def must_run(self, flow: str, reply: Reply) -> dict[str, pipeline.Summary]:
        ended = self.run(flow, reply)
        assert {name: one.error for name, one in ended.items() if one.error} == {}
        return {name: one.summary for name, one in ended.items()}

    def error(self, flow: str, reply: Reply) -> ForecastleError | None:
        return [*self.run(flow, reply).values()][-1].error

    @property
    def history(self) -> History:
        return open_history(self.task, self.settings.task_folder(self.task.name) / "history")


def small(root: Path, name: str, start: date, min_history: str) -> Task:
    """Return the shipped task with a short past."""
    data = tomllib.loads((root / "tasks" / f"{name}.toml").read_text(encoding="utf-8"))
    data["source"]["start"] = start
    data["training"] = {"min_history": min_history}
    data["features"] = data.get("features", {}) | {"windows": [3, 6], "lags": [0, 1, 2]}
    return make_task(data)


def settings_at(home: Path) -> Settings:
    return Settings(
        home=home, http_attempts=1, alpha_vantage_key="SECRETKEY1", _env_file=None  # type: ignore[call-arg]
    )


def price(at: datetime, symbol: str) -> float:
    """Return a price that moves more in the afternoon, the same whenever it is asked for."""
    random = np.random.default_rng(int(at.timestamp()) + len(symbol) * 7)
    return float(100 * np.exp((1 + (at.hour > 12)) * random.normal(0, 0.001)))


def klines(request: httpx.Request) -> list[list[Any]]:
    asked = request.url.params
    begin, end = (int(asked[name]) for name in ("startTime", "endTime"))
    found = []
    for opened in range(-(-begin // 300_000) * 300_000, end + 1, 300_000):
        at = datetime.fromtimestamp(opened / 1000, UTC)
        first, last = price(at, asked["symbol"]), price(at + STEP, asked["symbol"])
        texts = [f"{one:.8f}" for one in (first, max(first, last), min(first, last), last, 12.5)]
        found.append([opened, *texts, opened + 299_999, "1250.0", 40, "6.0", "600.0", "0"])
    return found


def test_crypto_volatility_from_candles_to_scored_forecasts(root, tmp_path):
    now = datetime(2026, 3, 20, 0, 2, tzinfo=UTC)
    desk = Desk(small(root, "crypto-volatility", date(2026, 3, 1), "14d"), settings_at(tmp_path), now)
    trained = desk.must_run("train", klines)
    assert trained["ingest"]["rows"] == 2 * 19 * 288  # the candle opened at midnight is not known yet
    assert trained["quality-check"]["verdict"] == "pass"
    assert trained["transform"]["rows"] == 2 * 19 * 24
    assert trained["promote"]["promoted"], trained["promote"]["reasons"]
    hours = desk.history.read()
    assert hours["available_at"].equals(hours["timestamp"] + HOUR)
    for _ in range(2):
        desk.now += HOUR
        ended = desk.must_run("live", klines)
    assert ended["forecast"]["origin"] == iso(desk.now.replace(minute=0) - HOUR)
    assert ended["forecast"]["forecasts"] == 2 * 6
    with Journal(desk.settings.journal_url) as journal:
        scored = journal.outcomes(desk.task.name)
    assert scored.height == 2
    truth = {(row["series_id"], row["timestamp"]): row["volatility"] for row in desk.history.read().to_dicts()}
    assert all(row["actual"] == truth[row["series_id"], row["timestamp"]] for row in scored.to_dicts())
    data = desk.task.model_dump(mode="json", exclude_none=True)
    del data["columns"]["volume"]
    fewer = replace(desk, task=make_task(data), now=desk.now + HOUR)
    fewer.must_run("live", klines)
    with Journal(desk.settings.journal_url) as journal:
        latest = journal.forecasts(desk.task.name).filter(pl.col("issued_at") == fewer.now)
    assert latest.height == 2 * 6, "the champion goes on serving without a covariate"
    newest = fewer.history.read().group_by("series_id").agg(pl.col("volatility").sort_by("timestamp").last())
    assert dict(latest.select("series_id", "last").iter_rows()) == dict(newest.iter_rows())


def month_of_bars(now: Callable[[], datetime]) -> Reply:
    """Answer as Alpha Vantage does: the bars of a month's sessions, New York's time, newest first."""

    def reply(request: httpx.Request) -> dict[str, Any]:
        symbol, month = request.url.params["symbol"], request.url.params["month"]
        day = datetime.fromisoformat(f"{month}-01").replace(tzinfo=NEW_YORK)
        bars: dict[str, Any] = {}
        while f"{day:%Y-%m}" == month:
            for bar in range(78) if day.weekday() < 5 else ():
                at = day.replace(hour=9, minute=30) + bar * STEP
                if at <= now():
                    first, last = (f"{price(one.astimezone(UTC), symbol):.4f}" for one in (at, at + STEP))
                    names = ("1. open", "2. high", "3. low", "4. close", "5. volume")
                    bars[f"{at:%Y-%m-%d %H:%M:%S}"] = dict(zip(names, (first, first, last, last, "900"), strict=True))
            day += timedelta(days=1)
        newest_first = dict(sorted(bars.items(), reverse=True))
        return {
            "Meta Data": {"2. Symbol": symbol, "4. Interval": "5min", "6. Time Zone": "US/Eastern"},
            "Time Series (5min)": newest_first,
        }

    return reply


def test_equity_volatility_from_bars_to_forecasts_over_a_night(root, tmp_path):
    now = datetime(2026, 3, 27, 20, 30, tzinfo=UTC)  # a Friday after the close; the clocks changed on the 8th
    desk = Desk(small(root, "equity-volatility", date(2026, 1, 1), "60d"), settings_at(tmp_path), now)
    reply = month_of_bars(lambda: desk.now)
    trained = desk.must_run("train", reply)
    hours = desk.history.read()
    local = hours["timestamp"].dt.convert_time_zone("America/New_York").dt.hour()
    assert sorted(set(local)) == [9, 10, 11, 12, 13, 14, 15]
    assert trained["transform"]["rows"] == hours.height == 62 * 7  # every weekday since New Year
    assert hours.filter(hours["available_at"] < hours["timestamp"] + HOUR).is_empty()
    desk.now += 64 * HOUR  # Monday, 12:30 UTC, before the opening
    assert trained["promote"]["promoted"], trained["promote"]["reasons"]
    ended = desk.must_run("live", reply)
    assert ended["forecast"]["origin"] == "2026-03-27T19:00:00Z"
    assert ended["forecast"]["forecasts"] == 3
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "archive" in path.parts)
    assert b"SECRETKEY1" not in kept


def stations(now: Callable[[], datetime], task: Task) -> Reply:
    """Answer as a city's feeds do at that moment."""

    def reply(request: httpx.Request) -> dict[str, Any]:
        updated = int(now().timestamp()) - 20
        ids = [one.asked for one in task.series]
        if "station_information" in request.url.path:
            said = [{"station_id": one, "name": "A street", "capacity": 20} for one in ids]
        else:
            taken = now().hour % 20
            counts = {"num_bikes_available": taken, "num_docks_available": 20 - taken}
            installed = {"is_installed": 1, "is_renting": 1, "last_reported": updated - 30}
            said = [{"station_id": one, **counts, **installed} for one in ids]
        return {"last_updated": updated, "ttl": 60, "version": "2.3", "data": {"stations": said}}

    return reply


def test_bike_availability_is_collected_from_now_on_and_training_says_when_it_will_be_enough(root, tmp_path):
    task = load_task(root / "tasks" / "bike-availability.toml")
    desk = Desk(task, settings_at(tmp_path), datetime(2026, 7, 16, 10, 0, 30, tzinfo=UTC))
    reply = stations(lambda: desk.now, task)
    for _ in range(6):
        with pytest.raises(NotEnoughHistory, match="a champion of task"):
            raise desk.error("live", reply) or AssertionError("there is no champion to forecast with")
        desk.now += timedelta(minutes=10)
    found = desk.history.read().filter(series_id="mission-1st")
    assert found.height == 6
    assert found["availability"].to_list() == [50.0] * 6
    error = desk.error("train", reply)
    assert isinstance(error, NotEnoughHistory)
    assert "It will be enough on 2026-07-30" in str(error)


def weather_and_departures(now: Callable[[], datetime]) -> httpx.BaseTransport:
    """Answer as `forecastle replay` does: hourly weather, and busier, windier evenings with later departures."""
    first = datetime(2026, 1, 1, tzinfo=UTC)
    weather, flights = [], []
    for number, airport in enumerate(("EWR", "JFK", "LGA")):
        random = np.random.default_rng(number)
        for hour in range(60 * 24):
            at = first + hour * HOUR
            wind = float(5 + 3 * np.sin(hour / 9) + random.normal(0, 0.5))
            values = {"temperature_2m": 5.0, "relative_humidity_2m": 60.0, "pressure_msl": 1010.0}
            weather.append({"series_id": airport, "timestamp": at, "wind_speed_10m": wind, **values})
            for minute in range(0, 60, 15) if 11 <= at.hour or at.hour < 4 else ():
                late = int(2 * wind + (at.hour > 18) * 20 + random.normal(0, 6)) + (40 if random.random() < 0.1 else 0)
                slot = at + minute * timedelta(minutes=1)
                flights.append((airport, "XX1", slot, slot + late * timedelta(minutes=1), late))
    names = ["series_id", "flight", "slot", "departed_at", "delay_minutes"]
    table = pl.DataFrame(flights, orient="row", schema=names).sort("slot", "series_id")
    return asgi_transport(replay_app(pl.DataFrame(weather), now, flights=lambda: table, forecast_values=True))


def test_departure_delays_with_another_tasks_weather_from_departures_to_settled_scores(root, tmp_path):
    now = datetime(2026, 2, 20, 0, 5, tzinfo=UTC)
    settings = settings_at(tmp_path)
    weather = Desk(small(root, "nyc-temperature", date(2026, 1, 5), "14d"), settings, now)
    desk = Desk(small(root, "nyc-departure-delay", date(2026, 1, 20), "14d"), settings, now)
    source = weather_and_departures(lambda: desk.now)
    error = desk.error("train", source)
    assert isinstance(error, NotEnoughHistory) and "observations of task 'nyc-temperature'" in str(error)
    weather.run("train", source)
    trained = desk.must_run("train", source)
    assert trained["promote"]["promoted"], trained["promote"]["reasons"]
    hours = desk.history.versions()
    assert sorted(set(hours["timestamp"].dt.hour())) == [0, 1, 2, 3, *range(11, 24)]  # no night, and no zero in it
    assert hours["wind_speed"].null_count() == 0
    told = hours.filter(pl.struct("series_id", "timestamp").is_duplicated())
    assert told.height > 100
    assert (hours["available_at"] >= hours["timestamp"] + HOUR).all()
    assert (hours["available_at"] < hours["timestamp"] + 4 * HOUR).all()  # known when they left, not when collected
    for _ in range(9):
        desk.now = weather.now = desk.now + HOUR
        weather.must_run("live", source)
        ended = desk.must_run("live", source)
        with Journal(settings.journal_url) as journal:
            scored = journal.outcomes(desk.task.name)
        assert scored.filter(scored["timestamp"] + 7 * HOUR > desk.now).is_empty()  # an hour, and six to settle
    assert ended["forecast"]["origin"] == "2026-02-20T03:00:00Z"  # the night has no flights
    assert sorted(scored["horizon"]) == [1] * 6 + [2] * 3  # of the hours that began at one and at two
    truth = {(row["series_id"], row["timestamp"]): row["mean_delay"] for row in desk.history.read().to_dicts()}
    assert all(row["actual"] == truth[row["series_id"], row["timestamp"]] for row in scored.to_dicts())


class Line:
    """A line of two ways with a train every ten minutes from five to one, later in the afternoon, as its feed tells."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.trips = {
            f"{way}-{number}": (way, [(stop, place, minutes + 6 * place) for place, stop in enumerate(stops, 1)])
            for way, stops in {"S": ("70028", "70026", "70024"), "N": ("70025", "70027", "70029")}.items()
            for number, minutes in enumerate(range(5 * 60, 25 * 60, 10))
        }

    def __call__(self, request: httpx.Request) -> bytes:
        return self.timetable() if request.url.path.endswith(".zip") else self.feed()

    def timetable(self) -> bytes:
        calls = [
            f"{trip},{at // 60}:{at % 60:02}:00,{at // 60}:{at % 60:02}:00,{stop},{place}"
            for trip, (_, stops) in self.trips.items()
            for stop, place, at in stops
        ]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as folder:
            folder.writestr("agency.txt", "agency_id,agency_timezone\n1,America/New_York\n")
            folder.writestr("trips.txt", "\n".join(["route_id,trip_id", *(f"Orange,{trip}" for trip in self.trips)]))
            header = "trip_id,arrival_time,departure_time,stop_id,stop_sequence"
            folder.writestr("stop_times.txt", "\n".join([header, *calls]))
        return packed.getvalue()

    def feed(self) -> bytes:
        now = int(self.now().timestamp())
        feed = FeedMessage()
        feed.header.gtfs_realtime_version, feed.header.timestamp = "2.0", now
        feed.entity.add(id="bus").trip_update.trip.route_id = "1"  # something always runs
        for day in {(self.now() - back * 24 * HOUR).astimezone(NEW_YORK).date() for back in (0, 1)}:
            midnight = int(datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).timestamp())
            for trip, (_, stops) in self.trips.items():
                ahead = [(place, stop, midnight + 60 * at + self.late(day, at)) for stop, place, at in stops]
                ahead = [(place, stop, at) for place, stop, at in ahead if at > now]
                if ahead and ahead[0][2] < now + 1800:
                    update = feed.entity.add(id=f"{day}-{trip}").trip_update
                    update.trip.trip_id, update.trip.route_id = trip, "Orange"
                    update.trip.start_date = f"{day:%Y%m%d}"
                    for place, stop, at in ahead:
                        said = update.stop_time_update.add(stop_sequence=place, stop_id=stop)
                        said.arrival.time = at + (at - now) // 10
        return bytes(feed.SerializeToString())

    @staticmethod
    def late(day: date, minutes: int) -> int:
        noise = np.random.default_rng(day.toordinal() * 2000 + minutes).integers(-20, 20)
        return int(60 + 180 * (15 <= minutes // 60 <= 19) + noise)


def test_transit_delay_from_predictions_to_scored_forecasts_over_a_night(root, tmp_path):
    """Ask every ten minutes, which is as seldom as may be, for a day of trains, and by the hour in the night."""
    data = tomllib.loads((root / "tasks" / "transit-delay.toml").read_text(encoding="utf-8"))
    data |= {"frequency": "10m", "horizon": "30m", "training": {"min_history": "20h", "backtest_share": 0.3}}
    data["source"]["every"] = "10m"
    data["features"] = {"windows": [2, 4], "lags": [0, 1, 2], "season": 6}
    desk = Desk(make_task(data), settings_at(tmp_path), datetime(2026, 7, 14, 20, 55, 30, tzinfo=UTC))
    line = Line(lambda: desk.now)
    pauses = [10] * 51 + [60] * 4 + [10] * 72  # from five in the afternoon to one, then from five in the morning on
    with pipeline.open_run(desk.task, desk.settings, "live", desk.now, Market(line)) as opened:
        for number, minutes in enumerate(pauses):
            desk.now += timedelta(minutes=minutes)
            ended = [*pipeline.run_flow(replace(opened, now=desk.now), pipeline.COLLECT)]
            assert number < 2 or not ended[-1].error, (desk.now, ended[-1].error)
    trains = History(desk.settings.task_folder(desk.task.name) / "history", ("delay",)).read()
    assert trains["delay"].min() >= 40
    assert 320 > trains["delay"].max() > 250  # told a tenth of what was ahead too late, and at most ten minutes before
    assert trains.height / 2 > 0.95 * (51 + 72)
    hours = desk.history.read()["timestamp"].dt.convert_time_zone("America/New_York").dt.hour()
    assert set(hours) & {2, 3, 4} == set()
    trained = desk.must_run("train", line)
    assert trained["promote"]["promoted"], trained["promote"]["reasons"]
    for _ in range(3):
        desk.now += timedelta(minutes=10)
        ended = desk.must_run("live", line)
    assert ended["forecast"]["forecasts"] == 2 * 3
    with Journal(desk.settings.journal_url) as journal:
        scored = journal.outcomes(desk.task.name)
    assert scored.height >= 2


def test_transit_delay_says_when_its_history_will_be_enough(root, tmp_path):
    task = load_task(root / "tasks" / "transit-delay.toml")
    desk = Desk(task, settings_at(tmp_path), datetime(2026, 7, 14, 14, 0, 30, tzinfo=UTC))
    line = Line(lambda: desk.now)
    error = desk.error("live", line)
    assert isinstance(error, SourceUnavailable)
    assert "becomes an observation once its stop is passed" in str(error)
    for _ in range(9):
        desk.now += timedelta(minutes=4)
        desk.run("live", line)
    error = desk.error("train", line)
    assert isinstance(error, NotEnoughHistory)
    assert "28d of history" in str(error)
    assert "It will be enough on 2026-08-11" in str(error)


SHIPPED = ["crypto-volatility", "equity-volatility", "bike-availability", "transit-delay", "nyc-departure-delay"]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_task_loads_and_says_what_it_forecasts(root, name):
    task = load_task(root / "tasks" / f"{name}.toml")
    assert task.name == name
    assert task.description
    assert task.columns[task.target].derived
    assert make_task(task.model_dump(mode="json")).digest == task.digest
