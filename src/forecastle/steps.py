"""The work of each step: load, call one or two functions of the rooms below, save, return a summary.

Steps talk only through the run's folder and the stores, so each can run in a process of its own, and a step that is
repeated does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle import collecting, withholding
from forecastle.data import admissions, ahead, ingestion, intake, profile_page, profiling, versioning
from forecastle.data import backfill as backfills
from forecastle.data import roster
from forecastle.data.examples import Examples, from_table, make_examples, to_table
from forecastle.data.history import History
from forecastle.data.panel import Panel, build_panel, micros
from forecastle.data.recipe import Recipe
from forecastle.data.transformation import make_recipe
from forecastle.errors import (
    ForecastleError,
    NotEnoughHistory,
    OutsideError,
    QualityGateFailed,
    RegistryUnavailable,
    TaskError,
    UserError,
)
from forecastle.frame import SERIES, TIMESTAMP, iso, read_note, write_json, write_table
from forecastle.memory import hand_back
from forecastle.models import (
    baked,
    bundle,
    explanation,
    pointer,
    predictor,
    promotion,
    publishing,
    registry,
    training,
    untrained,
)
from forecastle.models.learning import load_lightgbm
from forecastle.monitoring import concept, drift, incidents, metrics, retraining, verdicts
from forecastle.reporting import figures
from forecastle.reporting.comparison import Comparison
from forecastle.run import Run, Summary, failure
from forecastle.settings import Settings
from forecastle.task import DAY
from forecastle.watching import newest_of, seconds

FORECASTS_ON = "What forecasts on is version"
CONTEST = "contest.parquet"  # in a training's folder: its forecasts that a champion is met on, if not the back-test's


def ingest(run: Run) -> Summary:
    """Fetch what is new, archive the answers byte for byte, and lay the parsed batch into the run's folder."""
    welcomed = collecting.welcome(run)
    start = collecting.collect_from(run)
    archive = ingestion.Archive(run.stores / "archive")
    live = run.flow == "live"
    batch = ingestion.fetch(run.task, run.settings, run.client, archive, start, run.now, run.now, live, run.clock)
    ingestion.save_batch(run.folder, batch, flushed=False)
    return {
        "rows": batch.rows.height,
        "from": iso(batch.start),
        "to": iso(batch.end),
        **({"newest": iso(batch.rows[TIMESTAMP].max())} if batch.rows.height else {}),  # type: ignore[arg-type]
        "answers": len(batch.archived),
        "duplicates": batch.duplicates,
        "after_collection": batch.after_collection,
        **({"issued": batch.issued.height} if run.task.ahead else {}),
        **({"backfilled": welcomed} if welcomed else {}),
    }


def quality_check(run: Run) -> Summary:
    """Judge the batch by every check; let it into the history, or into quarantine and stop."""
    batch = ingestion.load_batch(run.folder)
    try:
        admitted = intake.admit(run.task, run.home, batch, run.now, run.folder, run.stores)
    except QualityGateFailed as refused:
        verdicts.stopped(run.journal, run.task.name, run.now)
        if run.flow != "train":
            raise
        raise _with_its_report_logged(run, refused) from None
    verdicts.polled(run.journal, run.task.name, admitted.report, run.now)
    withheld = admitted.report.withheld
    if not withheld:  # what a series lacks still has to be asked for
        backfills.note(run.task, run.settings, batch.start, batch.end, run.now)
    if run.flow == "train":
        if batch.start <= run.task.start:
            roster.enrol(run.home, [name for name in run.task.series_ids if name not in withheld], run.now)
        write_json(run.home / collecting.BACKFILLED, {"from": min(batch.start, collecting.backfilled_from(run))})
    notes = withholding.tell(run, batch, admitted.report, collecting.collect_from(run))
    return {
        "verdict": admitted.report.verdict,
        "masked": admitted.report.masked,
        "withheld": list(withheld),
        "new": admitted.appended.new,
        "revised": admitted.appended.revised,
        "known": admitted.appended.known,
        **({"warned": [one.check for one in warned]} if (warned := admitted.report.warnings) else {}),
        **({"notes": notes} if notes else {}),
    }


def backfill(run: Run, pieces: Sequence[tuple[datetime, datetime]], keep_going: bool) -> Iterator[backfills.Brought]:
    """Bring the pieces of a backfill's plan into the history; after a whole one TRAIN fetches nothing of it again."""

    def now() -> datetime:
        """Return the present, which moves on while a long past is fetched; where it is simulated, the run's."""
        wall = run.now if run.clock is None else run.clock().replace(microsecond=0)
        return run.now if abs(wall - run.now) > DAY else wall

    yield from backfills.bring(run.task, run.settings, run.client, pieces, keep_going, now, run.clock)
    if backfills.is_whole(run.task, run.settings, run.now):
        write_json(run.home / collecting.BACKFILLED, {"from": min(run.task.start, collecting.backfilled_from(run))})


def transform(run: Run) -> Summary:
    """Compute features and targets of all history known now: the processed training table."""
    issued = ahead.read(run.stores / "history", run.task.ahead, run.now)
    panel = build_panel(roster.in_service(run.task, run.history.versions(as_of=run.now)), run.task, ahead=issued)
    recipe = make_recipe(run.task, panel)
    table = to_table(make_examples(recipe, panel, np.arange(panel.size)))
    write_table(run.folder / "training.parquet", table)
    write_json(run.folder / "recipe.json", recipe.as_dict())
    write_json(run.folder / "made-of.json", {"as_of": run.now, "answers": len(_answers(run))})
    return {"rows": table.height, "features": table.width, "series": len(panel.series_ids), "season": recipe.season}


def profile(run: Run) -> Summary:
    """Compute the Reference that drift is measured against, and the page that shows the training data."""
    examples = _examples(run)
    margin = drift.margin_of(examples.origin_names, examples.origin, examples.origins)
    reference = replace(profiling.reference(examples.origin_names, examples.origin), margin=margin)
    observations = roster.in_service(run.task, run.history.read(as_of=run.now))
    full = run.settings.profile == "full"
    page = profile_page.save_profile(run.home / "reports" / "profile.html", run.task, observations, reference, full)
    write_json(run.folder / "reference.json", reference.to_dict())
    return {"features": len(examples.origin_names), "page": str(page)}


def version(run: Run) -> Summary:
    """Put the training table under version control: DVC remote and git."""
    made_of = _load(run.folder / "made-of.json")["answers"]
    table = _made(run.folder / "training.parquet")
    snapshot = versioning.version_table(run.settings, run.task, table, run.id, run.now, made_of)
    found = {"version": snapshot.version, "commit": snapshot.commit, "rows": snapshot.rows}
    write_json(run.folder / "version.json", found)
    return found


def train(run: Run) -> Summary:
    """Back-test every candidate, fit the one that earned it on all data, and register it."""
    try:
        return _train(run)
    finally:
        hand_back()


def _train(run: Run) -> Summary:
    version_note = _load(run.folder / "version.json")
    load_lightgbm()
    with ThreadPoolExecutor(1) as beside:
        beside.submit(_warm, run.settings)
        trained = training.train(
            run.task,
            _examples(run),
            version_note["version"],
            _load(run.folder / "reference.json"),
            run.now,
            run.home,
            _champion_until(run),
        )
    (run.folder / "decision.json").unlink(missing_ok=True)  # it was about another model
    made = bundle.examined(trained.bundle, _recent(run, trained.bundle.recipe))
    folder = bundle.save(made, run.folder / "bundle")
    write_table(run.folder / "backtest.parquet", trained.backtest)
    (run.folder / CONTEST).unlink(missing_ok=True)
    if trained.contest is not None:
        write_table(run.folder / CONTEST, trained.contest)
    scores = trained.bundle.backtest
    figures.save_figures(run.folder / "figures", trained.backtest, run.task)
    if shares := explanation.importance(trained.bundle.model, trained.bundle.features):
        write_json(run.folder / "figures" / "importance.json", shares)
        figures.save_importance(run.folder / "figures" / "importance.png", shares)
    profiles = [run.home / "reports" / name for name in ("profile.html", "profile")]
    reports = [*profiles, *_gate_reports(run), run.folder / "backtest.parquet", run.folder / "figures"]
    gate = str(_load(run.folder / "quality.json")["verdict"])
    data = versioning.record(run.settings, run.task, version_note["version"])
    registered = registry.log_training(run.settings, run.task, made, folder, reports, gate, data)
    write_json(run.folder / "model.json", {"version": registered.version, "run_id": registered.run_id})
    return {
        "model_version": registered.version,
        "estimator": trained.bundle.estimator,
        **{name: scores[name] for name in ("rmse", "skill", "coverage", "n")},
    }


def _warm(settings: Settings) -> None:
    """Import what a training needs in the end while its models are fitted."""
    registry.warm(settings)
    figures.warm()


def promote(run: Run) -> Summary:
    """Let the challenger serve if it beats the champion and both naive methods on the same rows; tell the incidents
    that wait for a training what came of it."""
    with publishing.alone(run.settings, run.task):  # what it is judged by is what it takes the place of
        summary = _promote(run)
    version, promoted, why = summary["version"], summary["promoted"], " ".join(summary["reasons"])
    retraining.settle(run.journal, run.task, version, promoted, why, run.now)
    return summary


def _promote(run: Run) -> Summary:
    challenger = registry.find(run.settings, run.task, _load(run.folder / "model.json")["version"])
    current = pointer.published(run.settings, run.task)
    if current is not None and current.names(challenger):
        return {"promoted": True, "version": current.version, "reasons": ["It is the champion already."]}
    if registry.REJECTED in challenger.tags:
        by, why = (challenger.tags.get(name, "") for name in registry.REJECTION[1:])
        return {"promoted": False, "version": challenger.version, "reasons": [f"{by} has rejected it: {why}"]}
    comparison = judged(run)
    decision = comparison.decision
    promised = pl.read_parquet(_made(run.folder / "backtest.parquet"))
    write_json(concept.place(run.home, challenger.version), concept.profile(run.task, promised))
    why = " ".join(decision.reasons)
    if decision.promote:
        publishing.promote(run.settings, run.task, challenger, run.folder / "bundle", run.now, why, run.id)
    else:
        publishing.challenge(run.settings, run.task, challenger, run.now, why, run.id)
    result = "promoted" if decision.promote else "kept"
    run.journal.beat(run.task.name, f"{metrics.TRAINED}{result}", run.now, challenger.version)
    return {"promoted": decision.promote, "version": challenger.version, "reasons": list(decision.reasons)}


def judged(run: Run) -> Comparison:
    """Return how a run's model stands beside the champion that serves, which is scored again on the same rows.

    It is decided once a run and noted, so that what was promoted can still be read against what served before. Where
    another champion has come to serve since, it is decided anew, against that one.
    """
    challenger, current = _load(run.folder / "model.json"), pointer.published(run.settings, run.task)
    met = run.folder / CONTEST
    rows = pl.read_parquet(met if met.exists() else _made(run.folder / "backtest.parquet"))
    note, theirs = run.folder / "decision.json", run.folder / "champion.parquet"
    noted = read_note(note)
    if noted is None or _named(current) not in (noted.get("serving"), challenger):
        champion, alone, older = None, promotion.NO_CHAMPION, None
        theirs.unlink(missing_ok=True)
        against = None if current is None or _named(current) == challenger else current.version
        if current is not None and against is not None:
            serving = bundle.load(current.folder, current.version)
            older = _older(run, serving)
            if older is None and set(serving.recipe.series_ids) & set(rows[SERIES]):
                champion = _rescored(run, serving, rows)
                write_table(theirs, champion)
            else:
                alone = f"The champion, version {against}, knows none of the series judged, so it is no measure."
        elif current is not None:
            alone = "It serves already, so there is no other to be compared with."
        decision = promotion.decide(run.task, rows, champion, alone) if older is None else promotion.keep(rows, older)
        said = {"challenger": challenger["version"], "champion": against, "serving": _named(current)}
        write_json(note, {**decision.as_dict(), **said})
    said = _load(note)
    champion = pl.read_parquet(theirs) if theirs.exists() else None
    decision = promotion.Decision.from_dict(said)
    serves = _named(current) == challenger
    return Comparison(
        run.task,
        said["challenger"],
        said["champion"],
        decision,
        rows,
        champion,
        serves,
        challenger["run_id"],
        run.pages.get("mlflow", ""),
    )


def forecast(run: Run) -> Summary:
    """Forecast every series from the newest hour known, and journal it."""
    model = champion(run)
    newest, panel, examples = newest_origins(run, model)
    _require_unseen(run, model, newest)
    known = untrained.known(model.recipe, panel)[examples.series]
    ours = examples.take(known)
    tally = run.journal.tally(run.task.name, model.version, run.now, model.model.coverage)
    made = untrained.forecast(run.task, model.recipe, panel, examples.take(~known), run.now)
    naive = sorted(made[SERIES].unique())
    if len(ours):
        reference = profiling.Reference.from_dict(model.reference)
        marked = drift.mark(predictor.forecast(model, ours, run.now, tally), ours, reference)
        made = pl.concat([marked, made], how="diagonal")
    ages = {origin: run.task.age(origin, run.now).total_seconds() for origin in made["origin"].unique()}
    made = made.with_columns(pl.col("origin").replace_strict(ages, return_dtype=pl.Float64).alias("data_age"))
    recorded = run.journal.record(made)
    return {
        "origin": iso(newest),
        "forecasts": made.height,
        "new": recorded,
        "model_version": model.version,
        "task_changed": model.task_digest != run.task.digest,
        "untrained": naive,
        "data_age_seconds": seconds(run.task.age(newest, run.now)),
    }


def champion(run: Run) -> bundle.Bundle:
    """Return the champion that serves, which has passed its self-check.

    Where it has not, the one before forecasts on and an incident says so. Raises NotEnoughHistory where there is none.
    """
    current = baked.serving(run.settings, run.task)
    if current is None:
        judged = sorted(run.home.glob("runs/train-*/decision.json"))
        if not judged:
            found, action = "none", "Train one: forecastle run train --task FILE"
        else:
            reasons = " ".join(_load(judged[-1])["reasons"])
            found, action = f"none, for the newest model was not promoted. {reasons}", "Train again with more history."
        raise NotEnoughHistory(f"a champion of task {run.task.name!r}", found, action)
    try:
        _examine(current.folder, current.version, current.digest)
    except ForecastleError as error:
        if (before := current.previous) is None or not _passes(before):
            raise
        told = f"{FORECASTS_ON} {before.version}: version {current.version} is refused, {error.found}"
        run.journal.open_incident(run.task.name, incidents.REFUSED, told, run.now)
        return bundle.load(before.folder, before.version)
    for one in run.journal.incidents(run.task.name, open_only=True):
        if one.kind == incidents.REFUSED and one.reason.startswith(FORECASTS_ON):  # not what a service refuses
            run.journal.close_incident(one.task, one.kind, run.now, f"Version {current.version} forecasts.")
    return bundle.load(current.folder, current.version)


def newest_origins(run: Run, model: bundle.Bundle) -> tuple[datetime, Panel, Examples]:
    """Return what a model forecasts from now: the newest hour known, and with it as the origin every series."""
    newest = newest_of(run)
    if newest is None:
        raise NotEnoughHistory(
            f"observations of task {run.task.name!r} known at {iso(run.now)}",
            "none",
            "Collect some: forecastle run live --task FILE",
        )
    start = None if model.recipe.lookback is None else newest - model.recipe.lookback
    panel = _panel(run, model.recipe, start, newest)
    rows = panel.last_rows
    return newest, panel, make_examples(model.recipe, panel, rows, issued=np.full(len(rows), micros(run.now)))


def _examples(run: Run) -> Examples:
    recipe = Recipe.from_dict(_load(run.folder / "recipe.json"))
    return from_table(pl.read_parquet(_made(run.folder / "training.parquet")), recipe)


def _gate_reports(run: Run) -> list[Path]:
    return [run.folder / "quality.html", run.folder / "quality.json"]


def _with_its_report_logged(run: Run, refused: QualityGateFailed) -> QualityGateFailed:
    """Log the report of a refused training batch and return the gate's error; a registry that is down is told in it."""
    try:
        registry.log_refusal(run.settings, run.task, run.id, refused.found, _gate_reports(run))
    except RegistryUnavailable as down:
        action = f"{refused.action} The report could not be logged to MLflow: {down}"
        return QualityGateFailed(refused.expected, refused.found, action)
    return refused


@lru_cache(maxsize=16)
def _examine(folder: Path, version: str, _digest: str) -> None:
    """Let a champion pass its self-check before it forecasts: once in the life of a process."""
    bundle.self_check(bundle.load(folder, version))


def _passes(one: pointer.Pointer) -> bool:
    try:
        _examine(one.folder, one.version, one.digest)
    except ForecastleError:
        return False
    return True


def _recent(run: Run, recipe: Recipe) -> pl.DataFrame:
    """Return the newest observations known now, as far back as a recipe's features look."""
    newest = newest_of(run)
    start = None if newest is None or recipe.lookback is None else newest - recipe.lookback
    return roster.in_service(run.task, run.history.read(as_of=run.now, start=start))


def _champion_until(run: Run) -> datetime | None:
    """Return the newest origin the champion has seen; None where none serves, or none that can be read."""
    try:
        current = pointer.published(run.settings, run.task)
        return None if current is None else bundle.load(current.folder, current.version).trained_until
    except OutsideError:
        return None


def _require_unseen(run: Run, model: bundle.Bundle, newest: datetime) -> None:
    """Raise UserError where a run as of the past would forecast what the champion, made since, was trained on: a truth
    it knows is no promise, and its score would count as one."""
    if run.now < model.created_at and newest < model.trained_until:
        raise UserError(
            f"a moment from {iso(model.created_at)} on, when version {model.version}, which forecasts, was trained",
            f"{iso(run.now)}, whose next hours it has learnt from",
            "See what would have been forecast then: forecastle backtest --task FILE --now MOMENT",
        )


def _older(run: Run, champion: bundle.Bundle) -> str | None:
    """Say why a model of the past is no challenger to the champion, which was made later, of newer data; None where it
    was not."""
    made = bundle.load(run.folder / "bundle")
    if made.created_at >= champion.created_at or made.trained_until >= champion.trained_until:
        return None
    return (
        f"It is a model of the past: made as of {iso(made.created_at)}, of data until {iso(made.trained_until)}, where"
        f" the champion, version {champion.version}, has learnt from data until {iso(champion.trained_until)}."
    )


def _rescored(run: Run, champion: bundle.Bundle, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the champion's forecasts of the rows' origins that it has not seen, from features of its own recipe."""
    panel = _panel(run, champion.recipe, None, None)
    known = untrained.known(champion.recipe, panel)[panel.series_of]
    unseen = np.flatnonzero(known & (panel.timestamps > micros(champion.trained_until)))
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
    gone = [name for name in recipe.columns if name not in run.task.columns]
    plain = gone and not run.task.is_derived  # what a source says goes on being stored
    history = History(run.stores / "history", recipe.columns) if plain else run.history
    versions = roster.in_service(run.task, history.versions(as_of=run.now, start=start))
    if not plain:
        versions = versions.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in gone)
    issued = ahead.read(run.stores / "history", recipe.ahead, run.now, start)
    return build_panel(versions, run.task, until, recipe.columns, issued)


def _named(current: pointer.Pointer | None) -> dict[str, str] | None:
    """Return what tells one model that serves from another; a version alone does not, across registries."""
    return None if current is None else {"version": current.version, "run_id": current.run_id}


def _answers(run: Run) -> tuple[str, ...]:
    """Return the archived answers whose observations were in the history as of now, those of joined tasks too."""
    return admissions.rested_on(run.settings, run.task, run.now)


def _made(path: Path) -> Path:
    """Return a file an earlier step of the run should have made."""
    if not path.exists():
        raise _missing(path)
    return path


def _load(path: Path) -> dict[str, Any]:
    found = read_note(path)
    if found is None:
        raise _missing(path)
    return found


def _missing(path: Path) -> NotEnoughHistory:
    """Say that a run has not made a file: for a step of it failed, or none has come so far."""
    wanted, failed = f"{path.name} of run {path.parent.name}", failure(path.parent)
    if failed is None:
        return NotEnoughHistory(wanted, "nothing there", "Run the flow's earlier steps with the same --now.")
    return NotEnoughHistory(wanted, f"none, for its step {failed}", "Mend that, then run its flow again.")
