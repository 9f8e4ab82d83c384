"""A flow at a terminal: the step at work, for how long, and how long it took the last time; elsewhere nothing moves."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from forecastle.console.following import follow, usual_seconds
from forecastle.frame import write_json
from forecastle.pipeline import Outcome

STEPS = ("ingest", "train")


@pytest.fixture
def run(tmp_path: Path) -> SimpleNamespace:
    """A run with two before it: the newer one failed at its second step."""
    notes = {
        "train-1": {"ingest": (True, 9.0), "train": (True, 41.6)},
        "train-2": {"ingest": (True, 2.5), "train": (False, 1.0)},
    }
    for name, steps in notes.items():
        for step, (ok, seconds) in steps.items():
            write_json(tmp_path / "runs" / name / "steps" / f"{step}.json", {"ok": ok, "seconds": seconds})
    (tmp_path / "runs" / "live-9" / "steps").mkdir(parents=True)
    (tmp_path / "runs" / "train-2" / "steps" / "torn.json").write_text("{", encoding="utf-8")
    return SimpleNamespace(home=tmp_path, flow="train", folder=tmp_path / "runs" / "train-3")


def shown(run: SimpleNamespace, terminal: bool, outcomes: list[Outcome]) -> tuple[list[str], str]:
    told = io.StringIO()
    console = Console(file=told, force_terminal=terminal, width=100)
    return [one.step for one in follow(run, STEPS, iter(outcomes), console)], told.getvalue()  # type: ignore[arg-type]


def test_each_step_took_as_long_as_in_the_newest_run_that_has_done_it(run) -> None:
    assert usual_seconds(run) == {"ingest": 2.5, "train": 41.6}


def test_a_terminal_shows_the_step_at_work_and_how_long_it_took_the_last_time(run) -> None:
    steps, told = shown(run, True, [Outcome("ingest", 1.0, {}), Outcome("train", 2.0, {})])
    assert steps == ["ingest", "train"]
    assert "train" in told and "of about 42 s" in told and "0:00:0" in told


def test_elsewhere_nothing_is_shown(run) -> None:
    assert shown(run, False, [Outcome("ingest", 1.0, {}), Outcome("train", 2.0, {})]) == (["ingest", "train"], "")


def test_a_flow_that_ends_early_ends_what_is_shown(run) -> None:
    assert shown(run, True, [Outcome("ingest", 1.0, {})])[0] == ["ingest"]
