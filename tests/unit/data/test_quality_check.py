"""The gate: what each check meets, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from forecastle.data.quality_check import CHECKS, MOST_ROWS, QualityReport, judge, save_report
from forecastle.data.replay import load_nyc_weather
from forecastle.frame import conform
from forecastle.rule import CONTRACT, CheckRule
from forecastle.task import Task

NOW = datetime(2013, 2, 12, 9, tzinfo=UTC)
START = NOW - timedelta(hours=48)
HOUR = timedelta(hours=1)
T = pl.col("timestamp")


@pytest.fixture
def batch(task) -> pl.DataFrame:
    """A good batch: 48 hours of three airports, as of now."""
    steps = pl.datetime_range(START, NOW - HOUR, "1h", time_zone="UTC", eager=True).alias("timestamp")
    names = pl.DataFrame({"series_id": task.series_ids})
    hour = pl.col("timestamp").dt.epoch("s") / 3600
    table = names.join(steps.to_frame(), how="cross").with_columns(
        temperature_2m=hour % 24,
        relative_humidity_2m=40 + hour % 24,
        wind_speed_10m=hour % 7,
        pressure_msl=1000 + hour % 9,
        available_at=pl.lit(NOW),
        collected_at=pl.lit(NOW),
    )
    return conform(table, tuple(task.columns))


def report(task, rows: pl.DataFrame, start=START, end=NOW, now=NOW) -> QualityReport:
    return judge(task, rows, start, end, now)[0]


def verdicts(task, rows: pl.DataFrame, **window) -> dict[str, str]:
    """The checks that did not pass, with their verdicts."""
    return {one.check: one.verdict for one in report(task, rows, **window).findings if one.verdict != "pass"}


def put(column: str, value: object, where: pl.Expr) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda table: table.with_columns(pl.when(where).then(value).otherwise(column).alias(column))


ONE = (pl.col("series_id") == "EWR") & (T == NOW - HOUR)
FAULTS = {
    "a column gone": (lambda t: t.drop("pressure_msl"), "schema", "fail"),
    "a column of text": (lambda t: t.with_columns(pl.col("temperature_2m").cast(pl.String)), "schema", "fail"),
    "a row of no series": (put("series_id", None, ONE), "keys", "fail"),
    "a row of no time": (put("timestamp", None, ONE), "keys", "fail"),
    "an unknown series": (put("series_id", pl.lit("EWQ"), ONE), "unknown-series", "fail"),
    "a row twice": (lambda t: pl.concat([t, t.filter(ONE)]), "duplicates", "warn"),
    "two values for one time": (
        lambda t: pl.concat([t, t.filter(ONE).with_columns(temperature_2m=pl.lit(9.5))]),
        "duplicates",
        "fail",
    ),
    "a row of tomorrow": (lambda t: pl.concat([t, t.filter(ONE).with_columns(T + 24 * HOUR)]), "times", "fail"),
    "a row known before its time": (put("available_at", T - HOUR, ONE), "times", "fail"),
    "a row collected tomorrow": (put("collected_at", NOW + HOUR, ONE), "times", "fail"),
    "nothing since yesterday": (lambda t: t.filter(T < NOW - 24 * HOUR), "freshness", "fail"),
    "one station silent": (
        lambda t: t.filter((pl.col("series_id") != "EWR") | (T < NOW - 7 * HOUR)),
        "freshness",
        "warn",
    ),
    "an absent hour": (lambda t: t.filter(T != NOW - 2 * HOUR), "gaps", "warn"),
    "seven absent hours": (lambda t: t.filter(~T.is_between(NOW - 9 * HOUR, NOW - 3 * HOUR)), "gaps", "fail"),
    "the first seven hours absent": (lambda t: t.filter(T >= START + 7 * HOUR), "gaps", "fail"),
    "rows off the grid": (lambda t: t.with_columns(pl.when(~ONE).then(T - HOUR / 2).otherwise(T)), "cadence", "fail"),
    "a row off the grid": (lambda t: t.with_columns(pl.when(ONE).then(T - HOUR / 2).otherwise(T)), "cadence", "warn"),
    "rows that changed places": (lambda t: pl.concat([t[40:], t[20:40], t[:20]]), "time-order", "warn"),
    "half the hours": (lambda t: t.filter(T.dt.hour() % 2 == 0), "volume", "fail"),
    "one station gone": (lambda t: t.filter(pl.col("series_id") != "EWR"), "volume", "warn"),
    "one station of three left": (lambda t: t.filter(pl.col("series_id") == "EWR"), "volume", "warn"),
    "no rows": (lambda t: t.clear(), "volume", "fail"),
    "30 % nulls in the target": (put("temperature_2m", None, T.dt.hour() % 10 < 3), "null-share", "fail"),
    "a NaN too many": (put("temperature_2m", float("nan"), T > NOW - 3 * HOUR), "null-share", "fail"),
    "an infinite value": (put("pressure_msl", float("inf"), ONE), "finite", "mask"),
    "many infinite values": (put("temperature_2m", float("-inf"), T > NOW - 3 * HOUR), "finite", "fail"),
    "one impossible gust": (put("wind_speed_10m", 468.5, ONE), "range", "mask"),
    "all in Fahrenheit": (lambda t: t.with_columns(pl.col("temperature_2m") * 1.8 + 32), "range", "fail"),
}


def test_a_good_batch_passes_every_check(task, batch):
    good = report(task, batch)
    assert [one.check for one in good.findings] == list(CHECKS)
    assert (good.passed, good.verdict, good.masked, good.rows) == (True, "pass", 0, 144)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_that_should_meet_a_fault_meets_it(task, batch, fault):
    inject, check, verdict = FAULTS[fault]
    assert verdicts(task, inject(batch)).get(check) == verdict


@pytest.mark.parametrize("fault", FAULTS)
def test_all_checks_run_whatever_is_wrong_and_find_the_same_in_any_order_of_rows(task, batch, fault):
    broken = FAULTS[fault][0](batch)
    one, other = report(task, broken), report(task, broken.sample(fraction=1, shuffle=True, seed=3))
    assert [finding.check for finding in one.findings] == list(CHECKS)
    assert {f.check: (f.verdict, f.found) for f in one.findings if f.check != "time-order"} == {
        f.check: (f.verdict, f.found) for f in other.findings if f.check != "time-order"
    }


@pytest.mark.parametrize("fault", ["a column of text", "a row of no series", "a row of tomorrow"])
def test_without_the_checks_of_the_contract_what_no_answer_can_hold_would_pass(task, batch, fault):
    """Providers refuse such answers, so the matrix of faults cannot show that these checks are needed."""
    inject, check, _ = FAULTS[fault]
    others = {name: one for name, one in CHECKS.items() if name != check}
    judged = judge(task, inject(batch), START, NOW, NOW, checks=others)[0]
    assert check not in {one.check for one in judged.findings if one.verdict == "fail"}
    assert judged.passed


def test_rows_of_a_series_nobody_asked_for_are_withheld_and_the_others_pass(task, batch):
    judged, passed = judge(task, put("series_id", pl.lit("EWQ"), ONE)(batch), START, NOW, NOW)
    assert judged.passed and dict(judged.withheld) == {"EWQ": ("unknown-series",)}
    assert sorted(passed["series_id"].unique()) == ["EWR", "JFK", "LGA"] and passed.height == 143


@pytest.mark.parametrize("name", ["EWR\0", "EW\nR", "\x1b[2J"])
def test_a_series_whose_id_holds_a_control_character_is_withheld_and_the_others_pass(task, batch, name):
    any_series = task.model_copy(update={"series": ()})
    broken = put("series_id", pl.lit(name), pl.col("series_id") == "EWR")(batch)
    judged, passed = judge(any_series, broken, START, NOW, NOW)
    assert judged.passed and dict(judged.withheld) == {name: ("keys",)}
    assert "keys" in CONTRACT and repr(name) in judged.reason and name not in judged.reason
    assert sorted(passed["series_id"].unique()) == ["JFK", "LGA"]


def test_newest_first_is_an_order_too(task, batch):
    assert verdicts(task, batch.sort("timestamp", descending=True)) == {}


def test_the_rows_that_pass_are_in_the_contracts_order_and_a_repeated_one_is_there_once(task, batch):
    mixed = pl.concat([batch, batch.filter(ONE)]).sample(fraction=1, shuffle=True, seed=5)
    assert judge(task, mixed, START, NOW, NOW)[1].equals(batch)
    by_series_backwards = pl.concat([batch.filter(series_id=name) for name in ("LGA", "EWR", "JFK")])
    assert judge(task, by_series_backwards, START, NOW, NOW)[1].equals(batch)


def test_the_impossible_gust_of_newark_is_masked_recorded_and_null_afterwards(task, batch):
    judged, masked = judge(task, put("wind_speed_10m", 468.5, ONE)(batch), START, NOW, NOW)
    assert judged.passed and judged.masked == 1
    assert masked.filter(ONE)["wind_speed_10m"].to_list() == [None]
    assert masked.filter(~ONE).equals(batch.filter(~ONE))
    finding = next(one for one in judged.findings if one.check == "range")
    assert finding.found == "1 in wind_speed_10m, such as 468.5 at EWR 2013-02-12T08:00:00Z"
    assert finding.rows["value"].to_list() == [468.5]


@pytest.mark.parametrize("verdict", ["warn", "fail"])
def test_a_column_says_what_a_value_outside_its_range_is(task, batch, verdict):
    wind = task.columns["wind_speed_10m"].model_copy(update={"outside": verdict})
    strict = task.model_copy(update={"columns": {**task.columns, "wind_speed_10m": wind}})
    judged, kept = judge(strict, put("wind_speed_10m", 468.5, ONE)(batch), START, NOW, NOW)
    assert judged.masked == 0 and judged.verdict == "warn"
    assert dict(judged.withheld) == ({"EWR": ("range",)} if verdict == "fail" else {})
    assert kept.filter(ONE)["wind_speed_10m"].to_list() == ([468.5] if verdict == "warn" else [])


def test_a_backfill_is_not_asked_to_be_fresh(task, batch):
    assert verdicts(task, batch, now=NOW + timedelta(days=300)) == {}


@pytest.mark.parametrize("hours", [40, 48])
def test_one_silent_series_is_named_and_does_not_stop_the_others(task, batch, hours):
    silent = batch.filter((pl.col("series_id") != "JFK") | (T < START + (48 - hours) * HOUR))
    judged = report(task, silent)
    assert judged.passed
    found = next(one for one in judged.findings if one.check == "volume").found
    assert found == f"{hours} of 144 absent; JFK lacks {hours} of 48"
    assert not judged.withheld


@pytest.mark.parametrize("hours", [0, 5, 12, 23])
def test_a_daily_task_is_fresh_all_day_by_default(small_task, observations, hours):
    task = small_task(frequency="1d", horizon="1d")
    rows = observations(hours=10, step=timedelta(days=1))
    now = rows["timestamp"].max() + timedelta(days=1, hours=hours)
    aware = rows.with_columns(collected_at=pl.lit(now))
    window = {"start": rows["timestamp"].min(), "end": now, "now": now}
    assert verdicts(task, aware, **window) == {}
    late = aware.filter(T < rows["timestamp"].max() - timedelta(days=2))
    assert verdicts(task, late, **window)["freshness"] == "fail"


def test_age_counts_from_when_a_value_is_published(task, batch):
    slow = task.source.model_copy(update={"publication_delay": timedelta(hours=12)})
    late = task.model_copy(update={"source": slow})
    stale = batch.filter(T < NOW - 12 * HOUR)
    assert verdicts(task, stale)["freshness"] == "fail"
    assert "freshness" not in verdicts(late, stale)
    assert verdicts(late, stale.filter(T < NOW - 20 * HOUR))["freshness"] == "fail"


def test_one_null_of_a_single_place_is_no_failure_and_two_are(task, batch):
    alone = task.model_copy(update={"series": task.series[:1]})
    rows = batch.filter(pl.col("series_id") == "EWR")
    assert verdicts(alone, put("temperature_2m", None, NOW - HOUR == T)(rows)) == {}
    assert verdicts(alone, put("temperature_2m", None, NOW - 3 * HOUR < T)(rows)) == {"null-share": "fail"}


def test_a_year_of_recorded_weather_raises_no_false_alarm(task):
    """A window every 25 hours, so that every row is judged and every hour of the day is now."""
    weather = load_nyc_weather().select("series_id", "timestamp", *task.columns)
    rows = weather.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in task.columns))
    first = rows["timestamp"].min() + timedelta(hours=48)
    last = rows["timestamp"].max()
    by_hour = rows.with_columns(available_at="timestamp", collected_at="timestamp").sort("timestamp")
    times = by_hour["timestamp"]
    alarms = []
    for number in range((last - first) // (25 * HOUR) + 1):
        now = first + number * 25 * HOUR
        begin, end = times.search_sorted(now - timedelta(hours=48)), times.search_sorted(now, side="right")
        window = conform(by_hour[begin:end].with_columns(collected_at=pl.lit(now)), tuple(task.columns))
        if failures := report(task, window, now - timedelta(hours=48), now, now).failures:
            alarms.append((now, failures))
    assert alarms == []


def test_a_step_that_could_not_be_known_yet_is_not_missed(task, batch):
    def found(task: Task) -> str:
        judged = report(task, batch, end=NOW + timedelta(hours=20))
        assert judged.verdict == "pass"
        return next(one.found for one in judged.findings if one.check == "volume")

    assert found(task) == "3 of 147 absent"  # only the hour that has just begun
    hourly = task.model_copy(update={"source": task.source.model_copy(update={"instantaneous": False})})
    assert found(hourly) == "as expected"


def test_where_the_source_decides_which_steps_there_are_gaps_only_warn(task, batch):
    observed = task.model_copy(update={"grid": "observed"})
    assert verdicts(observed, batch.filter(T.dt.hour() % 2 == 0)) == {"volume": "warn"}
    file = task.model_copy(update={"source": task.source.model_copy(update={"provider": "file", "path": "a.csv"})})
    assert verdicts(file, batch.filter(T.dt.hour() % 2 == 0)) == {"volume": "warn", "gaps": "warn"}
    assert verdicts(file, batch.filter(T.dt.hour() > 9)) == {"volume": "warn", "gaps": "warn", "freshness": "fail"}
    assert verdicts(file, batch.with_columns(T - HOUR / 2)) == {"cadence": "warn"}
    assert verdicts(observed, batch.clear())["volume"] == "fail"


def test_a_flat_line_is_a_warning_if_the_task_asks_for_it(task, batch):
    flat = put("temperature_2m", 5.0, (pl.col("series_id") == "JFK") & (T.dt.day() == 11))(batch)
    assert verdicts(task, flat) == {}
    asking = task.model_copy(update={"gate": task.gate.model_copy(update={"flatline": timedelta(hours=12)})})
    assert verdicts(asking, flat) == {"flatline": "warn"}
    assert "JFK at 5" in next(one.found for one in report(asking, flat).findings if one.check == "flatline")
    strict = asking.model_copy(
        update={"gate": asking.gate.model_copy(update={"checks": {"flatline": CheckRule(verdict="fail")}})}
    )
    assert dict(report(strict, flat).withheld) == {"JFK": ("flatline",)}


def test_a_covariate_that_stands_still_is_found_though_values_are_missing_in_between(task, batch):
    stuck = put("pressure_msl", 1013.0, (pl.col("series_id") == "LGA") & (T.dt.day() == 11))(batch)

    def asking(hours: int) -> Task:
        column = task.columns["pressure_msl"].model_copy(update={"flatline": timedelta(hours=hours)})
        return task.model_copy(update={"columns": {**task.columns, "pressure_msl": column}})

    holed = put("pressure_msl", None, (pl.col("series_id") == "LGA") & (T.dt.day() == 11) & (T.dt.hour() % 3 == 1))(
        stuck
    )
    for table in (stuck, holed):
        (finding,) = [one for one in report(asking(12), table).findings if one.check == "flatline"]
        assert (finding.verdict, finding.rows["column"].to_list()) == ("warn", ["pressure_msl"])
        assert finding.found.startswith("LGA at 1013 pressure_msl from ")
    assert verdicts(asking(30), stuck) == {}


@pytest.mark.parametrize(
    ("rule", "refused", "withheld"),
    [
        (CheckRule(), False, ["JFK"]),
        (CheckRule(scope="batch"), True, []),
        (CheckRule(verdict="warn"), False, []),
        (CheckRule(scope="batch", verdict="warn"), False, []),
    ],
)
def test_a_task_says_whether_a_failing_series_stops_itself_all_or_none(task, batch, rule, refused, withheld):
    mad = put("temperature_2m", None, (pl.col("series_id") == "JFK") & (T > NOW - 9 * HOUR))(batch)
    own = task.model_copy(update={"gate": task.gate.model_copy(update={"checks": {"null-share": rule}})})
    judged, passed = judge(own, mad, START, NOW, NOW)
    assert (judged.refused, list(judged.withheld)) == (refused, withheld)
    assert judged.passed is not refused
    assert passed.height == (96 if withheld else 144)
    assert judged.verdict == ("fail" if refused else "warn")


def test_where_every_series_fails_something_the_batch_fails(task, batch):
    mad = put("temperature_2m", None, (pl.col("series_id") == "JFK") & (T > NOW - 9 * HOUR))(batch)
    madder = put("temperature_2m", -999.0, (pl.col("series_id") == "EWR") & (T > NOW - 9 * HOUR))(mad)
    judged = report(task, madder)
    assert judged.passed and dict(judged.withheld) == {"EWR": ("range",), "JFK": ("null-share",)}
    all_mad = pl.concat(
        [madder, madder.filter(pl.col("series_id") == "LGA").with_columns(pl.col("temperature_2m") + 1)]
    )
    judged = report(task, all_mad)
    assert judged.refused and not judged.passed and not judged.withheld and judged.verdict == "fail"
    assert {one.check for one in judged.failures} == {"range", "null-share", "duplicates"}


def test_nulls_of_one_series_that_are_few_of_the_batch_are_a_warning(task, batch):
    lenient = task.model_copy(update={"gate": task.gate.model_copy(update={"max_null_share": 0.1})})
    mad = put("temperature_2m", None, (pl.col("series_id") == "JFK") & (T > NOW - 9 * HOUR))(batch)
    assert verdicts(lenient, mad) == {"null-share": "warn"}


@pytest.mark.parametrize(("hours", "verdict"), [(1, "warn"), (6, "warn"), (7, "fail")])
def test_a_gap_fails_where_it_is_longer_than_the_limit_in_every_series(task, batch, hours, verdict):
    gap = T.is_between(NOW - 20 * HOUR, NOW - 20 * HOUR + (hours - 1) * HOUR)
    assert verdicts(task, batch.filter(~gap)) == {"gaps": verdict}
    assert verdicts(task, batch.filter(~(gap & (pl.col("series_id") == "EWR")))) == {"gaps": "warn"}
    patient = task.model_copy(update={"gate": task.gate.model_copy(update={"max_gap": 7 * HOUR})})
    assert verdicts(patient, batch.filter(~gap)) == {"gaps": "warn"}


def test_a_gap_of_a_backfill_that_no_forecast_reaches_is_a_warning(task, batch):
    long_ago = START - timedelta(days=90)
    past = pl.concat([batch.with_columns(T - timedelta(days=90)), batch]).sort("series_id", "timestamp")
    assert verdicts(task, past, start=long_ago)["gaps"] == "warn"


def test_steps_of_thousands_of_series_are_counted_in_a_report_that_stays_short(small_task, observations):
    names = tuple(f"station-{number:04d}" for number in range(2000))
    rows = observations(hours=10, series=names).filter(pl.col("timestamp").dt.hour() != 5)
    begin, end = rows["timestamp"].min(), rows["timestamp"].max() + HOUR
    judged = judge(small_task(gate={"max_missing_share": 0.05}), rows, begin, end, end)[0]
    assert all(len(one.found) < 500 and one.rows.height <= MOST_ROWS for one in judged.findings)
    assert next(one.found for one in judged.findings if one.check == "volume").startswith("2000 of 20000 absent")


def test_a_finding_names_the_nearest_series_and_keeps_at_most_fifty_rows(task, batch):
    broken = batch.with_columns(series_id=pl.lit("EWQ"))
    finding = next(one for one in report(task, broken).findings if one.check == "unknown-series")
    assert finding.scope == "batch" and finding.verdict == "fail"
    assert finding.found == "'EWQ'; did you mean 'EWR'?"
    assert finding.rows.height == MOST_ROWS


def test_the_report_is_saved_as_strict_json_and_as_a_page_without_scripts(task, batch, tmp_path):
    broken = put("series_id", pl.lit("<script>alert(1)</script>"), ONE)(put("pressure_msl", float("inf"), ONE)(batch))
    page = save_report(tmp_path, report(task, broken))
    plain = json.loads((tmp_path / "quality.json").read_text())
    assert (plain["passed"], plain["verdict"], plain["task"]) == (True, "mask", "nyc-temperature")
    assert plain["withheld"] == {"<script>alert(1)</script>": ["unknown-series"]}
    assert [one["check"] for one in plain["findings"]] == list(CHECKS)
    text = page.read_text()
    assert page == tmp_path / "quality.html"
    assert "<script" not in text and "&lt;script&gt;" in text
    assert all(f"<td>{check}</td>" in text for check in CHECKS)
    assert "2013-02-12T08:00:00Z" in text


def test_columns_without_bounds_have_no_range(small_task, observations):
    rows = observations(hours=48)
    task = small_task(columns={"y": {}, "x": {"minimum": -0.5, "max_null_share": 0.6}})
    found, passed = judge(task, rows, rows["timestamp"].min(), rows["timestamp"].max(), rows["collected_at"].max())
    assert found.passed
    assert passed["y"].null_count() == 0
    assert passed["x"].null_count() == rows.filter(pl.col("x") < -0.5).height == found.masked
