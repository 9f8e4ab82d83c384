"""Exactly once, with late, repeated and revised truth, and however often the process is killed."""

from __future__ import annotations

import runpy
from pathlib import Path

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

machine = runpy.run_path(str(Path(__file__).with_name("live_scoring.py")))["machine"]


def test_every_forecast_is_scored_once_by_the_newest_truth_through_crashes_and_restarts(tmp_path: Path) -> None:
    told = machine(f"sqlite:///{tmp_path}/journal.db")
    run_state_machine_as_test(
        told, settings=settings(max_examples=25, stateful_step_count=25, deadline=None, phases=[Phase.generate])
    )
