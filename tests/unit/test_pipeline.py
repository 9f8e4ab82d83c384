"""The flows as they are drawn, and what a run is: its name, its folder, and how its steps end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filelock import FileLock

from forecastle import pipeline, steps
from forecastle.errors import GateError, NotEnoughHistory, SourceUnavailable, StorageUnavailable, UserError
from forecastle.frame import write_json
from forecastle.monitoring.journal import Journal
from forecastle.pipeline import FLOWS, LIVE, TRAIN, Step, open_run, passages, run_flow, run_step
from forecastle.settings import Settings
from forecastle.task import Task

NOW = datetime(2024, 1, 20, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
def filed(tmp_path: Path, small_task, observations) -> Task:
    """A task on a file of nineteen days."""
    path = tmp_path / "table.parquet"
    observations(hours=19 * 24 + 1).select("series_id", "timestamp", "y", "x").write_parquet(path)
    task: Task = small_task(source={"provider": "file", "path": str(path)})
    return task


def test_the_flows_are_the_ones_the_design_draws() -> None:
    drawn = {step.name: step.after for step in TRAIN}
    assert drawn == {
        "ingest": (),
        "quality-check": ("ingest",),
        "transform": ("quality-check",),
        "profile": ("transform",),
        "version": ("transform",),
        "train": ("profile", "version"),
        "promote": ("train",),
    }
    assert [step.name for step in LIVE] == ["ingest", "quality-check", "forecast", "score", "watch"]


@pytest.mark.parametrize("flow", FLOWS)
def test_everything_behind_the_gate_comes_after_it(flow: str) -> None:
    after = {step.name: set(step.after) for step in FLOWS[flow]}

    def forerunners(name: str) -> set[str]:
        return after[name].union(*(forerunners(one) for one in after[name]))

    behind = [step.name for step in FLOWS[flow][2:]]
    assert all("quality-check" in forerunners(name) for name in behind)
    names = list(after)
    assert all(names.index(one) < names.index(name) for name in names for one in after[name])


def test_a_run_is_named_by_its_flow_and_moment_so_that_repeating_it_repeats_into_its_folder(filed, settings) -> None:
    with open_run(filed, settings, "live", NOW + timedelta(minutes=5)) as run:
        assert run.id == "live-20240120T000500Z"
        assert run.folder == settings.home / "small" / "runs" / run.id


def test_without_a_moment_the_newest_run_of_the_flow_is_taken_up(filed, settings) -> None:
    for day in (2, 3, 1):
        (settings.home / "small" / "runs" / f"live-202401{day:02}T000000Z").mkdir(parents=True)
    (settings.home / "small" / "runs" / "train-20240110T000000Z").mkdir()
    with open_run(filed, settings, "live", None) as run:
        assert run.now == datetime(2024, 1, 3, tzinfo=UTC)


def _ended(home: Path, run: str, **steps: str | None) -> None:
    """Leave a run's folder in which these steps have succeeded (None) or failed (with this message)."""
    for name, message in steps.items():
        said = {"step": name, "ok": message is None} | ({"error": {"message": message}} if message else {})
        write_json(home / "small" / "runs" / run / "steps" / f"{name}.json", said)


def test_where_a_step_must_have_succeeded_the_newest_such_run_is_taken_up_and_what_came_of_newer_ones_is_told(
    filed, settings, caplog
) -> None:
    _ended(settings.home, "train-20240110T000000Z", ingest=None, train=None)
    _ended(settings.home, "train-20240111T000000Z", ingest="the file is gone")
    with open_run(filed, settings, "train", None, done="train") as run:
        assert run.id == "train-20240110T000000Z"
    assert "the newest is train-20240111T000000Z, whose step ingest failed: the file is gone" in caplog.text


def test_where_no_run_has_come_so_far_the_newest_is_named_with_the_step_that_failed(filed, settings) -> None:
    _ended(settings.home, "train-20240111T000000Z", ingest="the file is gone")
    with pytest.raises(NotEnoughHistory, match="step train has succeeded.*train-20240111.*ingest failed: the file"):
        with open_run(filed, settings, "train", None, done="train"):
            pass


def test_what_a_failed_run_has_not_made_is_missing_because_of_the_step_that_failed(filed, settings) -> None:
    _ended(settings.home, "train-20240111T000000Z", ingest="the file is gone")
    with open_run(filed, settings, "train", datetime(2024, 1, 11, tzinfo=UTC)) as run:
        with pytest.raises(
            NotEnoughHistory, match="model.json of run train-2024.*step ingest failed: the file is gone"
        ):
            steps.judged(run)


def test_without_a_moment_and_without_a_run_there_is_nothing_to_take_up(filed, settings) -> None:
    with pytest.raises(NotEnoughHistory, match="a live run to go on with"), open_run(filed, settings, "live", None):
        pass


def test_a_step_leaves_how_it_ended_as_a_file(filed, settings) -> None:
    def fail(run: pipeline.Run) -> dict[str, Any]:
        raise SourceUnavailable("an answer", "none", "Ask again.")

    with open_run(filed, settings, "live", NOW) as run:
        good, bad = run_step(run, Step("good", lambda _: {"rows": 3}, ())), run_step(run, Step("bad", fail, ()))
        said = {one: json.loads((run.folder / "steps" / f"{one}.json").read_bytes()) for one in ("good", "bad")}
    assert good.error is None and said["good"]["ok"] and said["good"]["summary"] == {"rows": 3}
    assert isinstance(bad.error, SourceUnavailable) and not said["bad"]["ok"]
    assert said["bad"]["error"] == {"kind": "SourceUnavailable", "message": str(bad.error)}


@pytest.mark.parametrize("fails", [False, True])
def test_a_journal_that_is_out_while_a_step_is_told_of_is_how_the_step_ended(filed, settings, fails: bool) -> None:
    class Silent(Journal):
        def open_incident(self, *_: object) -> bool:
            raise StorageUnavailable("the journal to answer", "nothing", "Wait.")

        close_incident = open_incident

    def work(run: pipeline.Run) -> dict[str, Any]:
        if fails:
            raise SourceUnavailable("an answer", "none", "Ask again.")
        return {}

    with open_run(filed, settings, "live", NOW) as run:
        out = replace(run, journal=Silent(settings.journal_url))
        ended = list(run_flow(out, [Step("one", work, ()), Step("two", work, ())]))
        said = json.loads((run.folder / "steps" / "one.json").read_bytes())
    assert [type(one.error) for one in ended] == [SourceUnavailable if fails else StorageUnavailable]
    assert not said["ok"]


def test_a_note_that_the_disk_refuses_is_how_the_step_ended(filed, settings) -> None:
    def work(run: pipeline.Run) -> dict[str, Any]:
        run.folder.mkdir(parents=True)
        (run.folder / "steps").touch()
        return {}

    with open_run(filed, settings, "train", NOW) as run:
        ended = list(run_flow(run, [Step("one", work, ())]))
    assert [type(one.error) for one in ended] == [StorageUnavailable]


def test_a_fault_of_ours_is_not_swallowed(filed, settings) -> None:
    def crash(run: pipeline.Run) -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), open_run(filed, settings, "live", NOW) as run:
        run_step(run, Step("crash", crash, ()))


def test_a_step_starts_only_after_its_forerunners_have_succeeded_in_this_run(filed, settings) -> None:
    started: list[str] = []
    late = Step("late", lambda _: {"started": started.append("late")}, ("early",))
    with open_run(filed, settings, "live", NOW) as run:
        assert "it has not run" in str(run_step(run, late).error)
        run_step(run, Step("early", lambda _: _fail(), ()))
        blocked = run_step(run, late)
        assert isinstance(blocked.error, GateError) and blocked.error.exit_code == 3 and started == []
        run_step(run, Step("early", lambda _: {}, ()))
        assert run_step(run, late).error is None and started == ["late"]


@pytest.mark.parametrize("torn", ["window.json", "batch.json", "batch.parquet", "steps/ingest.json"])
def test_what_a_cut_of_the_power_left_empty_counts_as_not_done(filed, settings, torn) -> None:
    ingest, check, *_ = TRAIN
    with open_run(filed, settings, "train", NOW) as run:
        whole = run_step(run, ingest).summary
        (run.folder / torn).write_bytes(b"")
        ended = run_step(run, check)
        assert torn == "window.json" or isinstance(ended.error, GateError | UserError), ended
        assert run_step(run, ingest).summary == whole
        assert run_step(run, check).error is None


def test_a_step_that_did_not_start_opens_no_incident_and_one_that_failed_does(filed, settings) -> None:
    with open_run(filed, settings, "live", NOW) as run:
        run_step(run, LIVE[2])
        assert run.journal.incidents(filed.name) == ()
        run_step(run, Step("early", lambda _: _fail(), ()))
        assert [one.kind for one in run.journal.incidents(filed.name)] == ["early-failed"]


def test_a_step_of_both_flows_that_is_lacking_is_named_with_its_flow(filed, settings) -> None:
    with open_run(filed, settings, "live", NOW) as run:
        assert "forecastle quality-check --flow live, with the same --task and --now" in str(
            run_step(run, LIVE[2]).error
        )
    with open_run(filed, settings, "train", NOW) as run:
        assert "forecastle quality-check, with the same --task and --now" in str(run_step(run, TRAIN[2]).error)


def test_a_step_takes_back_what_was_said_of_those_after_it_but_not_of_those_beside_it(filed, settings) -> None:
    steps = {step.name: Step(step.name, lambda _: {}, step.after) for step in TRAIN}
    with open_run(filed, settings, "train", NOW) as run:
        for name in ("ingest", "quality-check", "transform", "version", "profile"):
            assert run_step(run, steps[name]).error is None
        assert run_step(run, steps["train"]).error is None
        assert run_step(run, steps["transform"]).error is None
        notes = {path.stem for path in (run.folder / "steps").iterdir()}
    assert notes == {"ingest", "quality-check", "transform"}


def test_after_the_first_error_nothing_more_of_a_flow_starts(filed, settings) -> None:
    with open_run(filed, settings, "live", NOW) as run:
        ended = list(run_flow(run))
    assert [one.step for one in ended] == ["ingest", "quality-check", "forecast"]
    assert isinstance(ended[-1].error, NotEnoughHistory)
    assert not (run.folder / "steps" / "score.json").exists()


def test_a_training_collects_everything_and_its_table_holds_every_origin(filed, settings) -> None:
    with open_run(filed, settings, "train", NOW) as run:
        said = {step.name: run_step(run, step) for step in TRAIN[:4]}
        assert [one.error for one in said.values()] == [None] * 4
        table = pl.read_parquet(run.folder / "training.parquet")
    assert said["ingest"].summary["rows"] == table.height == 2 * (19 * 24 + 1) - 2  # one hour is not over yet
    assert said["transform"].summary["season"] == 24
    assert (settings.home / "small" / "reports" / "profile.html").exists()


def test_a_run_done_again_asks_for_the_same_window_though_its_rows_are_known_by_then(filed, settings) -> None:
    with open_run(filed, settings, "train", NOW) as run:
        first = [run_step(run, step).summary for step in TRAIN[:2]]
        again = [run_step(run, step).summary for step in TRAIN[:2]]
    assert again[0] == first[0]
    assert (again[1]["new"], again[1]["known"]) == (0, first[1]["new"])


def test_a_flow_that_another_process_runs_is_waited_for_and_then_given_up(filed, settings, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "PATIENCE", timedelta(seconds=0.1))
    folder = settings.home / "small"
    folder.mkdir(parents=True)
    with FileLock(folder / "live.lock"), open_run(filed, settings, "live", NOW) as run:
        (ended,) = run_flow(run)
    assert ended.step == "ingest" and isinstance(ended.error, StorageUnavailable)
    with open_run(filed, settings, "live", NOW) as run:
        assert [one.step for one in run_flow(run)][0] == "ingest"
    assert not (settings.home / "collecting.db").exists()  # a file has no budget


def test_passes_follow_the_clock_and_a_failed_one_ends_only_itself(filed, settings) -> None:
    moments = iter(NOW + timedelta(microseconds=1) * number for number in range(10))
    ended = list(passages(filed, settings, 1, lambda: next(moments)))
    assert [one.step for one in ended] == ["ingest", "quality-check", "forecast"]
    assert (settings.home / "small" / "runs" / "live-20240120T000000Z").is_dir()


def test_a_journal_that_is_out_between_two_passes_ends_no_loop(filed, settings, monkeypatch) -> None:
    def out(*_: object) -> None:
        raise StorageUnavailable("the journal to answer", "nothing", "Wait.")

    monkeypatch.setattr(pipeline.retraining, "wanted", out)
    monkeypatch.setattr(pipeline, "_sleep_until", lambda *_: None)
    ended = list(passages(filed, settings, 2, lambda: NOW))
    assert [one.step for one in ended] == ["ingest", "quality-check", "forecast"] * 2


def test_between_two_passes_a_source_that_is_asked_more_often_is_collected_alone(
    small_task, settings, tmp_path, monkeypatch
) -> None:
    source = {"provider": "file", "path": str(tmp_path / "none.csv"), "every": "20m"}
    clock = [NOW + timedelta(seconds=31)]
    monkeypatch.setattr(
        "forecastle.pipeline.time.sleep", lambda seconds: clock.append(clock[-1] + timedelta(seconds=seconds))
    )
    passes = passages(small_task(source=source), settings, 2, lambda: clock[-1])
    begun = [(one.step, clock[-1]) for one in passes]
    assert begun == [
        ("ingest", NOW + timedelta(minutes=minutes, seconds=31 if minutes == 0 else 30)) for minutes in (0, 20, 40, 60)
    ]


def _fail() -> dict[str, Any]:
    raise NotEnoughHistory("more", "less", "Wait.")
