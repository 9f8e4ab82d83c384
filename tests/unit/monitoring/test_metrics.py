"""What Prometheus reads: the service's own counts, and what the stores say; nothing before there is something."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prometheus_client.parser import text_string_to_metric_families

from forecastle.frame import TIME
from forecastle.monitoring import metrics
from forecastle.monitoring.journal import FORECAST, Journal

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(f"sqlite:///{tmp_path}/journal.db")


def hourly(count: int, drifted: int) -> pl.DataFrame:
    rows = [
        ("", "t", "EWR", at, at + h * HOUR, h, 4.0, 2.0, 6.0, 2.0, "1", "d", at, n >= count - drifted, "x")
        for n in range(count)
        for h in (1, 2)
        for at in [NOON + n * HOUR]
    ]
    return pl.DataFrame(rows, schema=FORECAST, orient="row")


def samples(found: list[metrics.Reading]) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return what is exposed by name and label values, in the order the metric declares its labels."""
    text = metrics.exposition(found)[0].decode()
    return {
        (sample.name, tuple(sample.labels[label] for label in declared(sample))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def declared(sample: Any) -> list[str]:
    """Return a sample's labels as METRICS declares them, a histogram's bucket last."""
    metric = metrics.METRICS.get(re.sub("_(bucket|count|sum)$", "", sample.name))
    order = metric.labels if metric else ()
    return sorted(sample.labels, key=lambda label: order.index(label) if label in order else len(order))


def test_before_there_is_data_every_reading_is_absent(journal: Journal) -> None:
    assert list(metrics.readings(journal, "t", NOON)) == []


def test_the_stores_say_what_was_forecast_and_what_came_of_it(journal: Journal) -> None:
    journal.record(hourly(60, drifted=6))
    now = NOON + 59 * HOUR
    truth = journal.due("t", now).with_columns(actual=pl.lit(5.0), scored_at=pl.lit(now, TIME))
    journal.score(truth)
    journal.give_up("t", before=now + 2 * HOUR)
    journal.open_incident("t", "data-drift", "a sensor", now)
    journal.beat("t", "watch", now)
    journal.beat("t", "alert:data-drift", now)
    found = samples(list(metrics.readings(journal, "t", now, age=HOUR)))
    assert found["forecastle_predictions_total", ("t",)] == 60
    assert found["forecastle_outcomes_total", ("t",)] == truth.height == 117
    assert found["forecastle_truth_never_came_total", ("t",)] == 2
    assert found["forecastle_forecasts_waiting", ("t",)] == 1
    assert found["forecastle_data_age_seconds", ("t",)] == 3600
    assert found["forecastle_drift_ratio", ("t",)] == pytest.approx(0.1)
    assert found["forecastle_live_rmse", ("t", "all")] == found["forecastle_live_rmse", ("t", "2")] == 1.0
    assert found["forecastle_live_skill", ("t", "1")] == pytest.approx(1 - 1 / 3)
    assert found["forecastle_live_coverage", ("t", "all")] == 1.0
    assert found["forecastle_incidents_open", ("t", "data-drift")] == 1
    assert found["forecastle_work_total", ("t", "watch")] == 1
    assert found["forecastle_work_last_seconds", ("t", "watch")] == now.timestamp()
    assert ("forecastle_work_total", ("t", "alert:data-drift")) not in found


def test_what_never_came_never_counts_backwards_also_where_it_comes_after_all_or_is_forgotten(
    journal: Journal,
) -> None:
    def lost() -> float:
        return samples(list(metrics.readings(journal, "t", NOON + 99 * HOUR)))[
            "forecastle_truth_never_came_total", ("t",)
        ]

    journal.record(hourly(10, drifted=0))
    journal.give_up("t", before=NOON + 99 * HOUR)
    assert lost() == 20
    late = journal.due("t", NOON + 99 * HOUR).head(6)
    assert journal.score(late.with_columns(actual=pl.lit(5.0), scored_at=pl.lit(NOON + 99 * HOUR, TIME))) == 6
    assert lost() == 20
    journal.forget("t", NOON + 5 * HOUR, [])
    assert lost() == 20


def test_the_drift_ratio_is_absent_below_fifty_predictions(journal: Journal) -> None:
    journal.record(hourly(49, drifted=49))
    assert "forecastle_drift_ratio" not in {one.metric for one in metrics.readings(journal, "t", NOON + 60 * HOUR)}


def test_requests_are_counted_and_timed_by_route_and_status() -> None:
    before = samples([]).get(("forecastle_requests_total", ("GET", "/a/{b}", "200")), 0)
    metrics.observe_request("GET", "/a/{b}", 200, 0.02)
    found = samples([])
    assert found["forecastle_requests_total", ("GET", "/a/{b}", "200")] == before + 1
    assert found["forecastle_request_seconds_count", ("GET", "/a/{b}")] >= 1


def test_a_method_that_http_does_not_know_becomes_no_label_of_its_own() -> None:
    before = samples([]).get(("forecastle_requests_total", ("other", "/a", "405")), 0)
    for method in ("BREW", "get", "x" * 500):
        metrics.observe_request(method, "/a", 405, 0.001)
    found = samples([])
    assert found["forecastle_requests_total", ("other", "/a", "405")] == before + 3
    assert {labels[0] for name, labels in found if name == "forecastle_requests_total"} <= metrics.METHODS | {"other"}


def test_predictions_are_timed_by_task_and_model() -> None:
    metrics.observe_prediction("t", "7", 0.004)
    assert samples([])["forecastle_prediction_seconds_bucket", ("t", "7", "0.005")] >= 1


def test_the_model_that_serves_is_told_by_labels() -> None:
    found = samples([metrics.model_reading("t", "3", "abc", "blend")])
    assert found["forecastle_model_info", ("t", "3", "abc", "blend")] == 1


def test_every_exposed_name_and_label_is_declared(journal: Journal) -> None:
    metrics.observe_request("GET", "/", 200, 0.1)
    metrics.observe_prediction("t", "7", 0.004)
    journal.record(hourly(60, drifted=1))
    text, media_type = metrics.exposition(list(metrics.readings(journal, "t", NOON)))
    assert media_type.startswith("text/plain")
    for family in text_string_to_metric_families(text.decode()):
        if family.name.startswith("forecastle_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            metric = metrics.METRICS[name]
            assert (family.type, family.documentation) == (metric.kind, metric.help)
            for sample in family.samples:
                assert set(sample.labels) - {"le"} == set(metric.labels)


def test_a_batch_refused_at_a_later_time_does_not_count_for_a_run_that_acts_as_of_an_earlier_one(
    journal: Journal,
) -> None:
    journal.beat("a", f"{metrics.GATE}pass", NOON)
    journal.beat("a", f"{metrics.GATE}fail", NOON + timedelta(days=900))
    for now, failing in ((NOON, 0.0), (NOON + timedelta(days=900), 1.0)):
        assert samples(list(metrics.readings(journal, "a", now)))[("forecastle_gate_failing", ("a",))] == failing
