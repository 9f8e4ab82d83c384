"""What changes around a champion that serves: the task file, the clock, a source that fails, a silent station."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import polars as pl

from forecastle.task import make_task

HOUR = timedelta(hours=1)
FIGURES = ("series_id", "horizon", "value", "lower", "upper")


def changed(task, **fields: Any):
    return make_task(task.model_dump(mode="json") | fields)


def latest(site) -> pl.DataFrame:
    with site.journal() as journal:
        return journal.latest(site.task.name).select(FIGURES)


def test_columns_in_another_order_change_no_forecast(site) -> None:
    columns = site.task.model_dump(mode="json")["columns"]
    site.now += HOUR
    site.must_run("live", until="quality-check")
    with site.journal() as journal:
        assert journal.forecasts(site.task.name).is_empty()
    site.must_run("live")
    plain = latest(site)
    other = replace(site, task=changed(site.task, columns=dict(reversed(columns.items()))))
    other.now += HOUR
    other.must_run("live")
    assert latest(other).height == plain.height
    back = replace(site, task=site.task, now=other.now)
    assert back.must_run("live")["forecast"]["new"] == 0  # the very forecasts that are journalled already


def test_a_challenger_with_other_features_is_compared_with_the_champion_on_the_same_rows(site) -> None:
    other = replace(site, task=changed(site.task, features={"windows": [3, 12], "season": 24, "holidays": "US"}))
    other.now += timedelta(days=8)
    ended = other.must_run("train")
    assert any("champion" in reason for reason in ended["promote"]["reasons"])


def test_a_forecast_made_as_of_an_earlier_hour_starts_from_what_was_known_then(site) -> None:
    site.pass_hours(6)
    past = site.now - 3 * HOUR
    with site.journal() as journal:
        before = journal.forecasts(site.task.name)
    late = replace(site, now=past)
    assert late.must_run("live")["forecast"]["new"] == 0
    with site.journal() as journal:
        assert journal.forecasts(site.task.name).equals(before)


def test_a_source_that_is_down_opens_an_incident_that_its_return_closes(site) -> None:
    site.pass_hours(1)
    site.now += HOUR
    site.source.fault = "503"
    site.fail()
    with site.journal() as journal:
        (incident,) = journal.incidents(site.task.name)
    assert (incident.kind, incident.closed_at) == ("ingest-failed", None)
    site.source.fault = None
    site.pass_hours(1)
    with site.journal() as journal:
        (incident,) = journal.incidents(site.task.name)
    assert incident.closed_at == site.now


def test_a_series_that_was_silent_is_fetched_back_to_where_it_stopped(site) -> None:
    site.pass_hours(1)
    silent = True

    def silence(blocks: list[dict[str, Any]]) -> None:
        for values in blocks[-1]["hourly"].values():
            if silent and not isinstance(values[0], str):
                values[:] = [None] * len(values)

    site.source.change = silence
    stopped = site.now
    for _ in range(3):
        site.now += 24 * HOUR
        site.run("live")
    silent = False
    site.now += HOUR
    site.must_run("live")
    rows = site.history.read(start=stopped).group_by("series_id").len()
    assert rows["len"].n_unique() == 1, rows
