"""The TRAIN flow over recorded answers: the first champion, a worse and a better challenger, and runs done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from forecastle import pipeline
from forecastle.cli import main
from forecastle.data.replay import replay_app
from forecastle.data.versioning import version_table
from forecastle.errors import NotEnoughHistory, SourceUnavailable
from forecastle.http import asgi_transport
from forecastle.models import bundle, pointer, registry
from forecastle.operations import restoring
from forecastle.reporting.comparison import markdown
from forecastle.settings import Settings
from forecastle.steps import CONTEST, judged
from forecastle.task import make_task

UP_TO_VERSION = ["ingest", "quality-check", "transform", "profile", "version"]


@pytest.fixture(scope="module")
def challenged(trained: Path, described, weather, tmp_path_factory) -> Iterator[Path]:
    """A home folder where, four days after the champion, a challenger was trained and not judged yet."""
    home = tmp_path_factory.mktemp("challenged") / "home"
    shutil.copytree(trained, home)
    restoring.rewrite_uris(home / "mlflow.db", trained, home)
    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    now = pointer.published(settings, make_task(described)).published_at + timedelta(days=4)
    source = asgi_transport(replay_app(weather, lambda: now))
    with pipeline.open_run(make_task(described), settings, "train", now, source) as run:
        for step in pipeline.TRAIN[:-1]:
            assert pipeline.run_step(run, step).error is None
    yield home


@pytest.fixture
def contest(site, challenged: Path):
    """A site with a champion and an unjudged challenger, at the moment of the challenger's training."""
    shutil.rmtree(site.settings.home)
    shutil.copytree(challenged, site.settings.home)
    restoring.rewrite_uris(site.settings.home / "mlflow.db", challenged, site.settings.home)
    site.now += timedelta(days=4)
    return site


def test_the_first_model_that_beats_both_naive_methods_becomes_champion(site) -> None:
    said = json.loads((site.settings.home / "said.json").read_bytes())
    assert list(said) == [*UP_TO_VERSION, "train", "promote"]
    assert said["promote"]["promoted"], said["promote"]
    assert "There is no champion yet." in said["promote"]["reasons"]
    champion = pointer.published(site.settings, site.task)
    assert champion is not None and champion.version == said["train"]["model_version"] == "1"
    loaded = bundle.load(champion.folder, champion.version)
    assert loaded.backtest["skill"] == said["train"]["skill"] > 0
    assert loaded.data_version == said["version"]["version"]
    registered = registry.alias(site.settings, site.task, "champion")
    assert registered is not None and (registered.version, registered.stage) == ("1", "Production")


def test_what_was_collected_is_the_recorded_weather_and_nothing_else(site, weather) -> None:
    known = site.history.read()
    columns = ["series_id", "timestamp", "temperature_2m", "relative_humidity_2m"]
    recorded = weather.filter(
        pl.col("series_id").is_in(site.task.series_ids),
        pl.col("timestamp").is_between(known["timestamp"].min(), known["timestamp"].max()),
        pl.any_horizontal(pl.col(columns[2:]).is_not_null()),
    )
    assert known.select(columns).rows() == recorded.select(columns).sort("series_id", "timestamp").rows()
    assert known["timestamp"].max() <= site.now


def test_the_versioned_table_is_the_one_the_model_was_trained_on(site) -> None:
    run = site.folder / "runs" / f"train-{site.now:%Y%m%dT%H%M%SZ}"
    noted = json.loads((run / "version.json").read_bytes())
    again = version_table(site.settings, site.task, run / "training.parquet", "another-run")
    assert (again.version, again.commit, again.rows) == (noted["version"], noted["commit"], noted["rows"])
    assert again.path.read_bytes() == (run / "training.parquet").read_bytes()


def test_a_model_trained_again_is_no_worse_than_the_champion_it_was_trained_like(contest) -> None:
    with pipeline.open_run(contest.task, contest.settings, "train", contest.now, contest.source) as run:
        found = judged(run)
    unseen = bundle.load(pointer.published(contest.settings, contest.task).folder, "1").trained_until
    assert found.rows["origin"].min() > unseen and found.rows["origin"].n_unique() >= 30
    assert not any("worse than the champion" in reason for reason in found.decision.reasons)
    assert found.decision.rmse["challenger"] < 1.02 * found.decision.rmse["champion"]


def test_a_worse_challenger_leaves_the_champion_where_it_is(contest) -> None:
    _shift_backtest(contest, pl.col("value") + 3.0)
    said = _promote(contest)
    assert not said["promoted"]
    assert any("worse than the champion on the same rows" in reason for reason in said["reasons"])
    assert pointer.published(contest.settings, contest.task).version == "1"
    assert registry.alias(contest.settings, contest.task, "champion").version == "1"
    assert registry.alias(contest.settings, contest.task, "challenger").version == "2"
    contest.now += timedelta(hours=1)
    assert contest.must_run("live")["forecast"]["model_version"] == "1"


def test_a_better_challenger_takes_over_and_the_next_forecast_is_its_own(contest) -> None:
    _shift_backtest(contest, pl.col("actual") + 0.1)
    said = _promote(contest)
    assert said["promoted"]
    assert any("better than the champion on the same rows" in reason for reason in said["reasons"])
    assert registry.alias(contest.settings, contest.task, "champion").version == "2"
    assert registry.alias(contest.settings, contest.task, "challenger") is None
    contest.now += timedelta(hours=1)
    assert contest.must_run("live")["forecast"]["model_version"] == "2"
    assert _promote(contest, again=timedelta(hours=1))["version"] == "2"
    assert pointer.published(contest.settings, contest.task).version == "2"


def test_what_was_decided_against_a_champion_that_serves_no_more_is_decided_anew(contest) -> None:
    _shift_backtest(contest, pl.col("actual") + 0.1)
    with pipeline.open_run(contest.task, contest.settings, "train", contest.now, contest.source) as run:
        assert judged(run).decision.promote
        note = run.folder / "decision.json"
        stale = json.loads(note.read_bytes()) | {
            "serving": {"version": "7", "run_id": "r"},
            "reasons": ["It is better than 7."],
        }
        note.write_text(json.dumps(stale))
        assert "It is better than 7." not in judged(run).decision.reasons
        note.write_text(json.dumps(stale))
    said = _promote(contest)
    assert "It is better than 7." not in said["reasons"]
    assert any("better than the champion on the same rows" in reason for reason in said["reasons"])
    assert json.loads(note.read_bytes())["champion"] == "1"


def test_a_champion_that_knows_none_of_the_series_is_said_to_be_no_measure(contest) -> None:
    _shift_backtest(contest, pl.col("actual") + 0.1)
    path = contest.folder / "runs" / f"train-{contest.now:%Y%m%dT%H%M%SZ}" / CONTEST
    pl.read_parquet(path).with_columns(series_id="new " + pl.col("series_id")).write_parquet(path)
    said = _promote(contest)
    assert said["promoted"] and "There is no champion yet." not in said["reasons"]
    assert any("version 1, knows none of the series" in reason for reason in said["reasons"])


def test_a_champion_of_another_registry_with_the_same_number_is_another_model(contest) -> None:
    _shift_backtest(contest, pl.col("actual") + 0.1)
    before = pointer.published(contest.settings, contest.task)
    place = contest.folder / "models" / "champion.json"
    elsewhere = json.loads(place.read_bytes()) | {"version": "2", "run_id": "of-another-registry"}
    place.write_text(json.dumps(elsewhere))
    shutil.copytree(before.folder, before.folder.with_name(f"2-{before.digest[:12]}"))
    said = _promote(contest)
    assert any("better than the champion on the same rows" in reason for reason in said["reasons"])
    champion, version = pointer.published(contest.settings, contest.task), registry.find(
        contest.settings, contest.task, "2"
    )
    assert champion.names(version) and registry.alias(contest.settings, contest.task, "champion") == version
    assert bundle.load(champion.folder, "2").created_at == contest.now


def test_collecting_again_up_to_the_versioned_table_changes_nothing(site) -> None:
    noted = json.loads((site.settings.home / "said.json").read_bytes())["version"]
    before = site.state()
    said = site.must_run("train", until="version")
    assert said["version"] == noted
    assert site.state() == before


def test_a_source_that_is_down_ends_a_training_before_anything_was_written(empty_site) -> None:
    empty_site.source.fault = "503"
    ended = empty_site.fail("train")
    assert ended.step == "ingest" and isinstance(ended.error, SourceUnavailable)
    archive = empty_site.folder / "archive"
    left = [path.name for path in empty_site.folder.rglob("*.json") if not path.is_relative_to(archive)]
    assert sorted(left) == ["ingest.json", "window.json"]


def test_too_short_a_history_is_refused_with_the_day_on_which_it_will_be_enough(empty_site, described) -> None:
    data = {**described, "training": {"min_history": "60d"}}
    empty_site.task = make_task(data)
    ended = empty_site.fail("train")
    assert ended.step == "train" and isinstance(ended.error, NotEnoughHistory) and ended.error.exit_code == 3
    assert "60d of history" in str(ended.error) and "2013-12-" in str(ended.error)


def _shift_backtest(site, value: pl.Expr) -> None:
    """Let the challenger's back-test have forecast something else: a step knows only what lies in its run's folder."""
    path = site.folder / "runs" / f"train-{site.now:%Y%m%dT%H%M%SZ}" / CONTEST
    pl.read_parquet(path).with_columns(value.alias("value")).write_parquet(path)


def _promote(site, again: timedelta = timedelta(0)):
    """Run the last step of the training that was left open, and return its summary."""
    with pipeline.open_run(site.task, site.settings, "train", site.now - again, site.source) as run:
        ended = pipeline.run_step(run, pipeline.TRAIN[-1])
    assert ended.error is None, ended.error
    return ended.summary


def test_a_first_training_collects_from_the_start_whatever_live_runs_have_fetched(empty_site) -> None:
    empty_site.run("live")
    assert empty_site.history.newest() is not None
    said = empty_site.must_run("train", until="quality-check")
    assert said["ingest"]["from"].startswith(f"{empty_site.task.source.start}")
    again = empty_site
    again.now += timedelta(hours=1)
    assert again.must_run("train", until="quality-check")["ingest"]["rows"] < 200


def test_a_comparison_shows_what_promotion_decides_before_and_after_it(contest) -> None:
    champion = pointer.published(contest.settings, contest.task)
    with pipeline.open_run(contest.task, contest.settings, "train", contest.now, contest.source) as run:
        before = judged(run)
        assert (before.challenger_version, before.champion_version) == ("2", "1")
        unseen = bundle.load(champion.folder, "1").trained_until
        assert before.champion is not None and before.champion["origin"].min() > unseen
        said = pipeline.run_step(run, pipeline.TRAIN[-1]).summary
        assert tuple(said["reasons"]) == before.decision.reasons
        after = judged(run)
        assert after.serves is said["promoted"]
        assert markdown(replace(after, serves=False)) == markdown(before)


@pytest.mark.parametrize(("worse", "code"), [(False, 0), (True, 5)])
def test_the_pull_request_check_fails_only_where_the_challenger_does_harm(
    contest, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worse: bool, code: int
) -> None:
    with pipeline.open_run(contest.task, contest.settings, "train", contest.now, contest.source) as run:
        if worse:
            rows = pl.read_parquet(run.folder / CONTEST)
            off = 3 * (pl.col("last") - pl.col("actual"))
            rows.with_columns(pl.col("value", "lower", "upper") + off).write_parquet(run.folder / CONTEST)
        assert judged(run).decision.worse is worse
    monkeypatch.setenv("FORECASTLE_HOME", str(contest.settings.home))
    file, report = root / "tasks" / "nyc-temperature.toml", tmp_path / "report"
    assert main(["compare", "--task", str(file), "--output", str(report), "--fail-if-worse"]) == code
    assert ("The challenger does harm" in (report / "comparison.md").read_text(encoding="utf-8")) is worse
    assert (report / "residuals.png").exists()
