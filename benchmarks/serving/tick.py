"""10 000 series forecast anew after a tick: read what is known, compute features, forecast, journal. Run in a process
of its own, which prints its figures as JSON: ``python -m benchmarks.serving.tick FOLDER``."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from benchmarks.serving import stage
from forecastle.data.history import History
from forecastle.data.panel import build_panel, micros
from forecastle.data.examples import make_examples
from forecastle.models import bundle, pointer, predictor
from forecastle.monitoring import drift
from forecastle.data.profiling import Reference
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings

SERIES = 10_000


def main(home: Path) -> None:
    """Prepare the history of so many series where there is none, then time one pass."""
    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    one = stage.task("boosted")
    published = pointer.published(settings, one)
    assert published is not None
    model = bundle.load(published.folder, "1")
    now = stage.now()
    names = tuple(f"P{number:05}" for number in range(SERIES))
    history = History(home / "many" / "history", stage.COLUMNS)
    if history.newest() is None:
        _fill(history, names, model.recipe.reach + 1, now)
        return
    recipe = replace(model.recipe, series_ids=names)
    model = replace(model, model=replace(model.model, recipe=recipe))
    parts = {}
    began, spent = time.perf_counter(), time.process_time()
    newest = history.newest()
    assert newest is not None and recipe.lookback is not None
    versions = history.versions(as_of=now, start=newest - recipe.lookback)
    parts["read"] = time.perf_counter()
    panel = build_panel(versions, one)
    del versions  # as in a live pass, which keeps the panel alone
    rows = panel.last_rows
    examples = make_examples(recipe, panel, rows, np.full(len(rows), micros(now)))
    parts["features"] = time.perf_counter()
    made = predictor.forecast(model, examples, now, {})
    marked = drift.mark(made, examples, Reference.from_dict(model.reference))
    parts["forecast"] = time.perf_counter()
    with Journal(f"sqlite:///{home / 'many' / 'journal.db'}") as journal:
        journal.record(marked)
    parts["journal"] = time.perf_counter()
    steps = dict(zip(parts, np.diff([began, *parts.values()]).round(2).tolist(), strict=True))
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cpu = round(time.process_time() - spent, 2)
    seconds = round(parts["journal"] - began, 2)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "mib": round(mib), "steps": steps}))


def _fill(history: History, names: tuple[str, ...], hours: int, now) -> None:  # type: ignore[no-untyped-def]
    last = now.replace(minute=0, second=0, microsecond=0) - timedelta(0)
    for start in range(0, len(names), 2_000):
        history.append(stage.weather(names[start : start + 2_000], hours, last, seed=start))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
