"""The work of each step: load, call one or two functions of the rooms below, save, return a summary.

Steps talk only through the run's folder and the stores, so each can run in a process of its own, and a step that is
repeated does no harm.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.data import ingestion, intake, profiling, versioning
from forecastle.data.examples import Examples, from_table, make_examples, to_table
from forecastle.data.history import History
from forecastle.data.panel import Panel, build_panel, micros
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import make_recipe
from forecastle.errors import NotEnoughHistory, TaskError
from forecastle.frame import SERIES, TIMESTAMP, iso, write_json, write_table
from forecastle.models import bundle, explanation, pointer, predictor, promotion, registry, training
from forecastle.monitoring import alerts, drift, outcomes
from forecastle.monitoring.journal import FIGURES
from forecastle.reporting import figures
from forecastle.reporting.comparison import Comparison
from forecastle.run import Run, Summary

BACKFILLED = "backfilled.json"  # in the task's folder: what the first TRAIN has fetched need not be fetched again
CATCH_UP = timedelta(days=7)  # how far back a collection reaches for a series that has fallen silent


def ingest(run: Run) -> Summary:
    """Fetch what is new, archive the answers byte for byte, and lay the parsed batch into the run's folder."""
    start = _collect_from(run)
    archive = ingestion.Archive(run.home / "archive")
    live = run.flow == "live"
    batch = ingestion.fetch(run.task, run.settings, run.client, archive, start, run.now, run.now, live)
    ingestion.save_batch(run.folder, batch)
    return {
        "rows": batch.rows.height,
        "from": iso(batch.start),
        "to": iso(batch.end),
        "answers": len(batch.archived),
        "duplicates": batch.duplicates,
        "after_collection": batch.after_collection,
    }


def quality_check(run: Run) -> Summary:
    """Judge the batch by every check; let it into the history, or into quarantine and stop."""
    batch = ingestion.load_batch(run.folder)
    admitted = intake.admit(run.task, run.home, batch, run.now, run.folder)
    if run.flow == "train":
        write_json(run.home / BACKFILLED, {"from": min(batch.start, _backfilled_from(run))})
    return {
        "verdict": admitted.report.verdict,
        "masked": admitted.report.masked,
        "new": admitted.appended.new,
        "revised": admitted.appended.revised,
        "known": admitted.appended.known,
    }


def transform(run: Run) -> Summary:
    """Compute features and targets of all history known now: the processed training table."""
    panel = build_panel(run.history.versions(as_of=run.now), run.task)
    recipe = make_recipe(run.task, panel)
    table = to_table(make_examples(recipe, panel, np.arange(panel.size)))
    write_table(run.folder / "training.parquet", table)
    write_json(run.folder / "recipe.json", recipe.as_dict())
    return {"rows": table.height, "features": table.width, "series": len(panel.series_ids), "season": recipe.season}


def profile(run: Run) -> Summary:
    """Compute the Reference that drift is measured against, and the page that shows the training data."""
    examples = _examples(run)
    reference = profiling.reference(examples.origin_names, examples.origin)
    observations = run.history.read(as_of=run.now)
    page = profiling.save_profile(run.home / "reports" / "profile.html", run.task, observations, reference)
    write_json(run.folder / "reference.json", reference.to_dict())
    return {"features": len(examples.origin_names), "page": str(page)}


def version(run: Run) -> Summary:
    """Put the training table under version control: DVC remote and git."""
    snapshot = versioning.version_table(run.settings, run.task, _made(run.folder / "training.parquet"), run.id)
    found = {"version": snapshot.version, "commit": snapshot.commit, "rows": snapshot.rows}
    write_json(run.folder / "version.json", found)
    return found


def train(run: Run) -> Summary:
    """Back-test every candidate, fit the one that earned it on all data, and register it."""
    version_note = _load(run.folder / "version.json")
    trained = training.train(
        run.task, _examples(run), version_note["version"], _load(run.folder / "reference.json"), run.now
    )
    (run.folder / "decision.json").unlink(missing_ok=True)  # it was about another model
    folder = bundle.save(trained.bundle, run.folder / "bundle")
    write_table(run.folder / "backtest.parquet", trained.backtest)
    scores = trained.bundle.backtest
    figures.save_figures(run.folder / "figures", trained.backtest, run.task)
    if shares := explanation.importance(trained.bundle.model, trained.bundle.features):
        write_json(run.folder / "figures" / "importance.json", shares)
        figures.save_importance(run.folder / "figures" / "importance.png", shares)
    reports = [run.home / "reports" / "profile.html", run.folder / "quality.html", run.folder / "backtest.parquet"]
    reports.append(run.folder / "figures")
    registered = registry.log_training(run.settings, run.task, trained.bundle, folder, reports)
    write_json(run.folder / "model.json", {"version": registered.version, "run_id": registered.run_id})
    return {
        "model_version": registered.version,
        "estimator": trained.bundle.estimator,
        **{name: scores[name] for name in ("rmse", "skill", "coverage", "n")},
    }


def promote(run: Run) -> Summary:
    """Let the challenger serve if it beats the champion and both naive methods on the same rows."""
    challenger = registry.find(run.settings, run.task, _load(run.folder / "model.json")["version"])
    current = pointer.published(run.settings, run.task)
    if current is not None and current.version == challenger.version:
        return {"promoted": True, "version": current.version, "reasons": ["It is the champion already."]}
    decision = judged(run).decision
    if decision.promote:
        registry.promote(run.settings, run.task, challenger, run.folder / "bundle", run.now, decision.reasons)
    else:
        registry.set_alias(run.settings, run.task, "challenger", challenger)
    return {"promoted": decision.promote, "version": challenger.version, "reasons": list(decision.reasons)}


def judged(run: Run) -> Comparison:
    """Return how a run's model stands beside the champion that serves, which is scored again on the same rows.

    It is decided once a run and noted, so that what was promoted can still be read against what served before.
    """
    version = _load(run.folder / "model.json")["version"]
    rows = pl.read_parquet(_made(run.folder / "backtest.parquet"))
    note, theirs = run.folder / "decision.json", run.folder / "champion.parquet"
    if not note.exists():
        current = pointer.published(run.settings, run.task)
        champion = None
        theirs.unlink(missing_ok=True)
        if current is not None and current.version != version:
            champion = _rescored(run, bundle.load(current.folder, current.version), rows)
            write_table(theirs, champion)
        decision = promotion.decide(run.task, rows, champion)
        against = None if champion is None or current is None else current.version
        write_json(note, {**decision.as_dict(), "challenger": version, "champion": against})
    said = _load(note)
    champion = pl.read_parquet(theirs) if theirs.exists() else None
    decision = promotion.Decision.from_dict(said)
    return Comparison(run.task, said["challenger"], said["champion"], decision, rows, champion)


def forecast(run: Run) -> Summary:
    """Forecast every series from the newest hour known, and journal it."""
    model = _champion(run)
    newest = _newest(run)
    if newest is None:
        raise NotEnoughHistory(
            f"observations of task {run.task.name!r} known at {iso(run.now)}",
            "none",
            "Collect some: forecastle run live --task FILE",
        )
    start = None if model.recipe.lookback is None else newest - model.recipe.lookback
    panel = _panel(run, model.recipe, start, newest)
    rows = panel.last_rows
    examples = make_examples(model.recipe, panel, rows, issued=np.full(len(rows), micros(run.now)))
    tally = run.journal.tally(run.task.name, model.version, run.now)
    made = predictor.forecast(model, examples, run.now, tally)
    reference = profiling.Reference.from_dict(model.reference)
    recorded = run.journal.record(drift.mark(made, examples, reference))
    return {
        "origin": iso(newest),
        "forecasts": made.height,
        "new": recorded,
        "model_version": model.version,
        "data_age_seconds": _seconds(run.task.age(newest, run.now)),
    }


def score(run: Run) -> Summary:
    """Join every forecast whose time has come with the observation that came true, exactly once."""
    due = run.journal.due(run.task.name, run.now)
    if due.is_empty():
        return {"due": 0, "scored": 0}
    oldest: datetime = due["origin"].min()  # type: ignore[assignment]
    known = run.history.read(as_of=run.now, start=oldest)
    scored = run.journal.score(outcomes.score(run.task, due, known, run.now))
    lost = run.journal.give_up(run.task.name, outcomes.give_up_before(run.task, run.now))
    return {"due": due.height, "scored": scored, "never_came": lost}


def watch(run: Run) -> Summary:
    """Measure what is served against what was promised, and open or close incidents by the alert rules."""
    newest = _newest(run)
    measured = {
        "drift_ratio": drift.drift_ratio(run.journal.drift_flags(run.task.name, drift.WINDOW, run.now)),
        "data_age_seconds": None if newest is None else _seconds(run.task.age(newest, run.now)),
        "live": outcomes.live_scores(run.journal.outcomes(run.task.name, run.now - timedelta(days=14), FIGURES)),
    }
    opened, closed = alerts.apply(run.journal, run.task, measured, run.now)
    run.journal.beat(run.task.name, "watch", run.now)
    return {
        "drift_ratio": measured["drift_ratio"],
        "data_age_seconds": measured["data_age_seconds"],
        "opened": list(opened),
        "closed": list(closed),
    }


def _collect_from(run: Run) -> datetime:
    """Return where to collect from: the window, reaching back over any gap since the newest row; TRAIN: the start.

    It is decided once a run and noted, so that a run done again, its rows in the history by then, asks the same.
    """
    note = run.folder / "window.json"
    if note.exists():
        return datetime.fromisoformat(_load(note)["from"])
    start = run.now - max(run.task.source.window, run.task.gate.window)
    if run.flow == "train" and _backfilled_from(run) > run.task.start:
        start = run.task.start
    elif run.history.newest() is not None:
        start = min(start, _oldest_gap(run))
    write_json(note, {"from": start})
    return start


def _backfilled_from(run: Run) -> datetime:
    """Return from where on a TRAIN has collected everything already; now, where none has."""
    note = run.home / BACKFILLED
    return datetime.fromisoformat(_load(note)["from"]) if note.exists() else run.now


def _oldest_gap(run: Run) -> datetime:
    """Return the newest row of the series that is furthest behind, at most CATCH_UP ago."""
    earliest = run.now - CATCH_UP
    recent = run.history.read(as_of=run.now, start=earliest)
    last = dict(recent.group_by(SERIES).agg(pl.col(TIMESTAMP).max()).iter_rows())
    return min((last.get(name, earliest) for name in run.task.series_ids or last), default=earliest)


def _examples(run: Run) -> Examples:
    recipe = Recipe.from_dict(_load(run.folder / "recipe.json"))
    return from_table(pl.read_parquet(_made(run.folder / "training.parquet")), recipe)


def _champion(run: Run) -> bundle.Bundle:
    current = pointer.published(run.settings, run.task)
    if current is None:
        raise NotEnoughHistory(
            f"a champion of task {run.task.name!r}", "none", "Train one: forecastle run train --task FILE"
        )
    return bundle.load(current.folder, current.version)


def _rescored(run: Run, champion: bundle.Bundle, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the champion's forecasts of the rows' origins that it has not seen, from features of its own recipe."""
    panel = _panel(run, champion.recipe, None, None)
    unseen = np.flatnonzero(panel.timestamps > micros(champion.trained_until))
    return training.rescore(champion, make_examples(champion.recipe, panel, unseen), rows)


def _panel(run: Run, recipe: Recipe, start: datetime | None, until: datetime | None) -> Panel:
    """Return what is known now on the grid and in the columns of a model's recipe.

    A task may change while its champion serves, but not in what is forecast: TaskError.
    """
    asked = {"target": run.task.target, "frequency": run.task.frequency, "grid": run.task.grid}
    learnt = {"target": recipe.columns[0], "frequency": timedelta(microseconds=recipe.step), "grid": recipe.grid}
    if asked != learnt:
        raise TaskError(
            f"the champion of task {run.task.name!r} to forecast what the task asks for",
            "; ".join(f"{name} {learnt[name]}, now {asked[name]}" for name in asked if asked[name] != learnt[name]),
            "Give the changed task a name of its own.",
        )
    kept = set(recipe.columns) <= set(run.task.columns)
    history = run.history if kept else History(run.home / "history", recipe.columns)
    return build_panel(history.versions(as_of=run.now, start=start), run.task, until, recipe.columns)


def _newest(run: Run) -> datetime | None:
    """Return the newest timestamp of any series that was known now."""
    last = run.history.newest()
    if last is None or last <= run.now - run.task.knowable_after:
        return last
    found: datetime | None = run.history.read(as_of=run.now)[TIMESTAMP].max()  # type: ignore[assignment]
    return found


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())


def _made(path: Path) -> Path:
    """Return a file an earlier step of the run should have made."""
    if not path.exists():
        raise NotEnoughHistory(
            f"{path.name} of run {path.parent.name}",
            "nothing there",
            "Run the flow's earlier steps with the same --now.",
        )
    return path


def _load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_made(path).read_text(encoding="utf-8"))
    return found
