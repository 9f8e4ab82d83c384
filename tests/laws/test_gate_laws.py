"""What holds of the gate for every batch, however broken: it judges, by every check, and the same in any order."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from forecastle.data.quality_check import CHECKS, QualityReport, judge
from forecastle.frame import as_arrived, to_json
from forecastle.task import make_task

HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = START + 48 * HOUR
SOURCE = {"provider": "http-json", "http_json": {"url": "https://a.example/{series}", "rows": "r", "time": "t"}}
TASK = make_task(
    {
        "name": "any",
        "domain": "environmental",
        "frequency": "1h",
        "horizon": "3h",
        "target": "y",
        "source": SOURCE,
        "series": [{"id": "a"}, {"id": "b"}],
        "columns": {"y": {"minimum": -5, "maximum": 5}, "x": {"outside": "fail", "maximum": 7}},
        "gate": {"flatline": "3h"},
    }
)
VALUES = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 4.0, 6.0, -1e308, float("inf"), float("-inf"), float("nan")]))
TIMES = st.one_of(st.none(), st.integers(-3, 60).map(lambda hour: START + hour * HOUR + timedelta(minutes=hour % 7)))
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "", None]), TIMES, TIMES, TIMES, VALUES, VALUES), max_size=40)


def table(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    time = pl.Datetime("us", "UTC")
    schema = {"series_id": pl.String, "timestamp": time, "available_at": time, "collected_at": time}
    return pl.DataFrame(rows, schema={**schema, "y": pl.Float64, "x": pl.Float64}, orient="row")


def said(report: QualityReport) -> dict[str, tuple[object, ...]]:
    """What each check said that does not depend on how rows lie beside each other."""
    return {
        one.check: (one.verdict, one.scope, one.withholds, one.found)
        for one in report.findings
        if one.check != "time-order"
    }


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, recent=ROWS)
def test_every_batch_is_judged_by_every_check_and_the_report_can_be_written(rows, recent) -> None:
    known = as_arrived(table([row for row in recent if row[0] and row[1]]), ["y", "x"])
    report, passed = judge(TASK, table(rows), START, NOW, NOW, known)
    assert [one.check for one in report.findings] == list(CHECKS)
    assert json.loads(to_json(report.as_dict()))["passed"] is report.passed
    assert report.passed is not report.refused
    assert not set(passed["series_id"].drop_nulls()) & set(report.withheld)
    assert not report.withheld or set(report.withheld) < set(table(rows)["series_id"])


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_the_order_in_which_rows_arrive_changes_no_verdict_but_that_on_their_order(rows, seed) -> None:
    one = judge(TASK, table(rows), START, NOW, NOW)[0]
    mixed = table(rows).sample(fraction=1, shuffle=True, seed=seed)
    other = judge(TASK, mixed, START, NOW, NOW)[0]
    assert said(one) == said(other)
    assert (one.refused, one.masked) == (other.refused, other.masked)
    assert dict(one.withheld) == dict(other.withheld) or "time-order" in str(other.withheld)


@settings(max_examples=100, deadline=None)
@given(rows=ROWS)
def test_what_passed_passes_again_without_a_mask(rows) -> None:
    first, passed = judge(TASK, table(rows), START, NOW, NOW)
    if first.passed:
        second, again = judge(TASK, passed, START, NOW, NOW)
        assert second.masked == 0 and (not second.passed or again.equals(passed))
