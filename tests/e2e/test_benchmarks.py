"""The benchmarks run, and what they compare does the same work."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec


def test_every_race_runs_on_small_tables_and_its_sides_agree(root, missing_component):
    absent = [name for name in ("mlforecast", "pandera", "psutil") if find_spec(name) is None]
    if absent:
        missing_component(f"{', '.join(absent)} not installed: pip install 'forecastle[bench]'")
    kept = (root / "benchmarks" / "results.json").read_bytes()
    source = os.pathsep.join([str(root / "src"), os.environ.get("PYTHONPATH", "")])
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert answer.returncode == 0, answer.stderr
    races = [line for line in answer.stdout.splitlines() if line.startswith("### ")]
    assert [line.partition("`")[2].rstrip("`)") for line in races] == [
        "features-1m",
        "gate-5m",
        "history-wide",
        "history-long",
        "journal-year",
        "training-1m",
    ]
    assert (root / "benchmarks" / "results.json").read_bytes() == kept, "a quick run keeps no figures"


def test_a_side_that_answers_otherwise_ends_the_race_before_it_is_timed(root, tmp_path):
    broken = "from benchmarks import journal; journal.outcome_weight = lambda shared: 1.0"
    ask = "from pathlib import Path; folder = Path(r'%s'); journal.prepare(folder, 100); journal.check(folder, 100)"
    answer = subprocess.run(
        [sys.executable, "-c", f"{broken}; {ask % tmp_path}"], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 1 and "AssertionError" in answer.stderr


def test_the_study_of_drift_finds_a_shift_by_its_errors_and_a_lost_covariate_by_the_gate(root):
    ask = """
from datetime import UTC, datetime
from benchmarks import drift
task = drift.load_task(drift.ROOT / "tasks" / "nyc-temperature.toml")
observed = drift.observations(task)
model, since = drift.Model(task, observed), datetime(2013, 8, 20, tzinfo=UTC)
live = model.live(observed, since - drift.BEFORE * drift.HOUR, since + drift.AFTER * drift.HOUR)
name, rows = next(drift._changed(model, observed, live, since, "JFK"))
print(name, drift.delay(model, "JFK", rows, since))
print("lost", drift.noticed(task, observed, drift.lost_covariate(observed, since), "JFK", since))
"""
    answer = subprocess.run([sys.executable, "-c", ask], cwd=root, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    found = dict(line.rsplit(" ", 1) for line in answer.stdout.splitlines())
    assert found.keys() == {"shift", "lost"}
    assert int(found["shift"]) <= 72 and 24 <= int(found["lost"]) <= 30
