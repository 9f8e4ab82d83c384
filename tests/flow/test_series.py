"""Series that come and go while data lives: a new one gets its past and a stand-in, a removed one is left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from forecastle.data.replay import load_nyc_weather
from forecastle.models.evaluation import scores
from forecastle.models.untrained import UNTRAINED
from forecastle.serving.app import create_app
from forecastle.task import make_task

HOUR = timedelta(hours=1)
EWR, JFK, LGA = "EWR", "JFK", "LGA"


def with_series(site, root, *names: str):
    """Return the site with these series in its task file."""
    import tomllib

    whole = tomllib.loads((root / "tasks" / "nyc-temperature.toml").read_text(encoding="utf-8"))["series"]
    chosen = [one for one in whole if one["id"] in names]
    assert len(chosen) == len(names)
    return replace(site, task=make_task(site.task.model_dump(mode="json", exclude_none=True) | {"series": chosen}))


def places(answer: Any) -> list[dict[str, Any]]:
    """Return the blocks of an answer, which of one place is that block alone."""
    return answer if isinstance(answer, list) else [answer]


def journalled(site, since: datetime | None = None) -> pl.DataFrame:
    with site.journal() as journal:
        found = journal.forecasts(site.task.name)
    return found if since is None else found.filter(pl.col("issued_at") >= since)


def test_a_new_series_gets_its_past_and_is_forecast_by_seasonal_naive_marked_as_such(site, root) -> None:
    site.pass_hours(2)
    wider = with_series(site, root, EWR, JFK, LGA)
    said = wider.pass_hours(1)
    assert said["ingest"]["backfilled"] == [LGA]
    assert said["forecast"]["untrained"] == [LGA]
    extent = {name: first for name, first, _, _ in wider.history.extent().iter_rows()}
    assert extent[LGA] == extent[EWR] == wider.task.start
    made = journalled(wider, wider.now)
    assert set(made.filter(pl.col("model_version") == UNTRAINED)["series_id"]) == {LGA}
    assert set(made.filter(pl.col("series_id") == LGA)["estimator"]) == {"seasonal_naive"}
    assert made.filter(pl.col("series_id") != LGA)["model_version"].unique().to_list() == ["1"]


def test_the_stand_in_is_the_value_of_the_day_before(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    wider.pass_hours(1)
    measured = load_nyc_weather().select("series_id", day_after="timestamp", before="temperature_2m")
    measured = measured.with_columns(timestamp=pl.col("day_after") + timedelta(days=1))
    made = journalled(wider).filter(pl.col("series_id") == LGA).join(measured, on=["series_id", "timestamp"])
    assert made.height == wider.task.steps and (made["value"] == made["before"]).all()


def test_the_interval_of_the_stand_in_holds_about_as_many_truths_as_promised(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    wider.pass_hours(60)
    with wider.journal() as journal:
        outcomes = journal.outcomes(wider.task.name)
    figures = scores(outcomes.filter(pl.col("model_version") == UNTRAINED))
    assert figures["n"] > 200
    assert 0.75 <= figures["coverage"] <= 1.0


def test_what_the_stand_in_scores_is_not_counted_as_the_champions(site, root) -> None:
    plain, wider = site, with_series(site, root, EWR, JFK, LGA)
    wider.pass_hours(8)
    with wider.journal() as journal:
        outcomes = journal.outcomes(wider.task.name)
    ours = scores(outcomes.filter(pl.col("series_id") != LGA))
    assert scores(outcomes)["n"] > ours["n"]
    answers = TestClient(create_app(wider.settings, [wider.task], lambda: wider.now), base_url="http://127.0.0.1")
    live = answers.get(f"/v1/tasks/{plain.task.name}/scores").json()["live"]
    assert (live["n"], live["rmse"]) == (ours["n"], ours["rmse"])
    text = answers.get("/metrics").text
    shown = next(
        line for line in text.splitlines() if line.startswith("forecastle_live_rmse") and 'horizon="all"' in line
    )
    assert float(shown.rpartition(" ")[2]) == pytest.approx(ours["rmse"], rel=1e-12)


def test_the_service_says_which_series_no_model_has_learnt(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    wider.pass_hours(1)
    answers = TestClient(create_app(wider.settings, [wider.task], lambda: wider.now), base_url="http://127.0.0.1")
    path = f"/v1/tasks/{wider.task.name}/forecasts"
    marks = {one["series_id"]: (one["trained"], one["estimator"]) for one in answers.get(path).json()["series"]}
    assert marks[LGA] == (False, "seasonal_naive")
    assert marks[EWR][0] is True
    assert answers.get("/").text.count("until a model is trained on this series") == 1


def test_training_makes_a_new_series_one_like_the_others(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    wider.pass_hours(1)
    wider.now += timedelta(days=2)
    said = wider.must_run("train")
    assert said["transform"]["series"] == 3
    assert any("champion" in reason for reason in said["promote"]["reasons"])


def test_a_series_too_young_for_a_season_gets_the_last_value_and_no_interval(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    young = (wider.now - timedelta(hours=12)).replace(minute=0)

    def born(answer: Any) -> None:
        for block in places(answer):
            if abs(block["latitude"] - 40.777) < 0.02:  # LaGuardia's
                hours = [datetime.fromisoformat(one).replace(tzinfo=UTC) for one in block["hourly"]["time"]]
                for values in block["hourly"].values():
                    values[:] = [
                        one if isinstance(one, str) or hour >= young else None
                        for one, hour in zip(values, hours, strict=True)
                    ]

    wider.source.change = born
    wider.pass_hours(1)
    made = journalled(wider).filter(pl.col("series_id") == LGA)
    assert set(made["estimator"]) == {"persistence"}
    assert made["value"].n_unique() == 1 and made["lower"].null_count() == made["upper"].null_count() == made.height


def test_a_new_series_whose_past_cannot_be_had_stops_no_other_and_is_told_of_once(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    asked: list[int] = []

    def nothing_alone(answer: Any) -> None:
        if len(places(answer)) == 1:
            asked.append(1)
            for values in answer["hourly"].values():
                values[:] = [one if isinstance(one, str) else None for one in values]

    wider.source.change = nothing_alone
    for _ in range(3):
        said = wider.pass_hours(1)
    assert "backfilled" not in said["ingest"] and said["forecast"]["forecasts"] > 0
    assert len(asked) == 1
    with wider.journal() as journal:
        (incident,) = journal.incidents(wider.task.name, open_only=True)
    assert incident.kind == "series-backfill-failed" and LGA in incident.reason
    wider.source.change = None
    wider.now += timedelta(days=1)
    assert wider.pass_hours(1)["ingest"]["backfilled"] == [LGA]
    with wider.journal() as journal:
        assert journal.incidents(wider.task.name, open_only=True) == ()


def test_a_run_done_again_does_not_fetch_a_past_twice(site, root) -> None:
    wider = with_series(site, root, EWR, JFK, LGA)
    wider.pass_hours(1)
    asked = wider.source.asked
    again = wider.must_run("live")
    assert "backfilled" not in again["ingest"] and wider.source.asked == asked + 1
    assert again["forecast"]["new"] == 0


def test_a_removed_series_is_collected_forecast_and_shown_no_more_and_keeps_its_history(site, root) -> None:
    site.pass_hours(2)
    before = site.history.read().filter(pl.col("series_id") == JFK)
    narrower = with_series(site, root, EWR)
    narrower.pass_hours(10)
    assert narrower.history.read().filter(pl.col("series_id") == JFK).equals(before)
    assert set(journalled(narrower, narrower.now - 9 * HOUR)["series_id"]) == {EWR}
    with narrower.journal() as journal:
        assert journal.incidents(narrower.task.name) == ()
        assert set(journal.outcomes(narrower.task.name)["series_id"]) == {EWR, JFK}
    answers = TestClient(
        create_app(narrower.settings, [narrower.task], lambda: narrower.now), base_url="http://127.0.0.1"
    )
    info = answers.get(f"/v1/tasks/{narrower.task.name}").json()
    assert info["series"] == [EWR] and info["degraded"] is False
    page = answers.get("/").text
    assert JFK not in page and "Up to date" in page
    noted = json.loads((narrower.folder / "series.json").read_text(encoding="utf-8"))["series"]
    assert "retired_at" in noted[JFK] and "retired_at" not in noted[EWR]


def test_a_removed_series_is_not_learnt_from(site, root) -> None:
    narrower = with_series(site, root, EWR)
    narrower.now += timedelta(days=1)
    assert narrower.must_run("train", until="transform")["transform"]["series"] == 1


def test_a_series_that_comes_back_is_taken_up_where_it_stopped(site, root) -> None:
    site.pass_hours(2)
    stopped = site.now
    narrower = with_series(site, root, EWR)
    narrower.pass_hours(1)
    narrower.now += timedelta(days=10)
    narrower.must_run("live")
    back = replace(site, now=narrower.now)
    said = back.pass_hours(1)
    assert said["ingest"]["backfilled"] == [JFK]
    assert said["forecast"]["untrained"] == []  # the champion has learnt it
    counts = back.history.read(start=stopped).group_by("series_id").len()
    assert dict(counts.iter_rows())[JFK] >= 10 * 24
