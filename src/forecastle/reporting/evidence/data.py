"""What phase I left: archived answers, the gate's reports, features, the profile, storage and data versions."""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from forecastle.data import profiling, quarantine, versioning
from forecastle.data.archive import Archive
from forecastle.data.derivation import open_history
from forecastle.data.quality_check import CHECKS
from forecastle.data.recipe import COVARIATE_LAGS, COVARIATE_WINDOWS, Recipe
from forecastle.data.store import task_stores
from forecastle.http import without_password
from forecastle.models.bundle import load as load_bundle
from forecastle.models.pointer import published
from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene, read_json

MOST_FEATURES = 12  # of the profile's table
SHOWN_ANSWERS = 6


def extraction(scene: Scene) -> Found:
    """Find what was collected: answers as received, and the observations they came to."""
    measure = f"forecastle run train --task {scene.file}"
    stores = task_stores(scene.settings, scene.task.name)
    notes = list(Archive(stores / "archive").notes())
    where = f"the archive, {_shown(scene, 'archive')}"
    yield "extraction.answers", Fact(len(notes) or None, where, measure)
    yield "extraction.first", Fact(notes[0].collected_at if notes else None, where, measure)
    yield "extraction.last", Fact(notes[-1].collected_at if notes else None, where, measure)
    read = map(json.loads, (stores / "archive").get([one.name for one in notes[-SHOWN_ANSWERS:]]))
    rows = [
        {
            "collected": said["collected_at"],
            "status": said["status"],
            "bytes": said["bytes"],
            "sha256": said["sha256"][:12],
        }
        for said in read
    ]
    yield "extraction.newest", Fact(rows or None, where, measure)
    run = scene.run_with("train", "steps/ingest.json") or scene.run_with("live", "steps/ingest.json")
    said = read_json(run / "steps" / "ingest.json") if run else None
    summary = said["summary"] if said and said["ok"] else {}
    source = f"{run.name}/steps/ingest.json" if run else "a run's ingest step"
    for name in ("rows", "answers", "from", "to", "after_collection", "duplicates"):
        yield f"extraction.run.{name}", Fact(summary.get(name), source, measure)
    extent = open_history(scene.task, stores / "history").extent()
    place = f"the history, {_shown(scene, 'history')}"
    yield "extraction.observations", Fact(int(extent["rows"].sum()) or None, place, measure)
    table = [{**row, "rows": row["rows"]} for row in extent.iter_rows(named=True)]
    yield "extraction.extent", Fact(table or None, place, measure)
    yield "extraction.curve", Fact(_curve(scene), place, measure)


def gate(scene: Scene) -> Found:
    """Find a batch that the gate let through and one that it stopped, with what did not start after it."""
    yield "gate.checks", Fact(len(CHECKS), "src/forecastle/data/quality_check.py: CHECKS")
    beats = scene.journal.heartbeats(scene.task.name)
    verdicts = {work.partition(":")[2]: beat.count for work, beat in beats.items() if work.startswith("gate:")}
    measure = f"forecastle run live --task {scene.file}"
    table = [{"verdict": name, "batches": count} for name, count in sorted(verdicts.items())]
    yield "gate.verdicts", Fact(table or None, "journal: heartbeats", measure)
    reports = ((run, read_json(run / "quality.json")) for run in scene.runs[::-1])
    passed = next(((run, said) for run, said in reports if said and said["passed"]), None)
    yield from _report(
        "gate.pass", passed[1] if passed else None, f"{passed[0].name}/quality.json" if passed else "", measure
    )
    refused = [one for one in quarantine.quarantined(scene.home) if not one.series]
    newest = refused[-1] if refused else None
    demo = "forecastle demo (its sixth chapter sends a batch of nulls)"
    yield "gate.refused", Fact(len(refused), "the quarantine")
    yield from _report(
        "gate.fail", newest.report() if newest else None, f"quarantine/{newest.name}" if newest else "", demo
    )
    yield "gate.fail.reason", Fact(newest.reason if newest else None, "the quarantined batch's report", demo)
    stopped = next((run for run in scene.runs[::-1] if _refused(run)), None)
    rows = _steps(scene, stopped) if stopped else None
    yield "gate.fail.steps", Fact(rows, f"{stopped.name}/steps" if stopped else "a run's steps", demo)


def transformation(scene: Scene) -> Found:
    """Find what features are made of the observations, and how many."""
    measure = f"forecastle run train --task {scene.file}"
    run = scene.run_with("train", "recipe.json")
    source = f"{run.name}/recipe.json" if run else "a run's recipe.json"
    recipe = Recipe.from_dict(read_json(run / "recipe.json")) if run else None
    said = read_json(run / "steps" / "transform.json") if run else None
    made = said["summary"] if said else {}
    yield "features.rows", Fact(made.get("rows"), "steps/transform.json", measure)
    yield "features.columns", Fact(made.get("features"), "steps/transform.json", measure)
    yield "features.lags", Fact(list(recipe.lags) if recipe else None, source, measure)
    yield "features.windows", Fact(list(recipe.windows) if recipe else None, source, measure)
    yield "features.season", Fact(recipe.season if recipe else None, source, measure)
    yield "features.holidays", Fact((recipe.holidays or "none") if recipe else None, source, measure)
    yield "features.timezone", Fact(recipe.timezone if recipe else None, source, measure)
    yield "features.covariate_lags", Fact(list(COVARIATE_LAGS), "src/forecastle/data/recipe.py")
    yield "features.covariate_windows", Fact(list(COVARIATE_WINDOWS), "src/forecastle/data/recipe.py")
    current = published(scene.settings, scene.task)
    names = load_bundle(current.folder, current.version).features if current else ()
    yield "features.used", Fact(len(names) or None, "the champion's bundle", measure)
    yield "features.names", Fact(list(names) or None, "the champion's bundle", measure)


def profile(scene: Scene) -> Found:
    """Find what the profile says of the training data, and where its page lies."""
    measure = f"forecastle run train --task {scene.file}"
    run = scene.run_with("train", "reference.json")
    page = scene.home / "reports" / "profile.html"
    yield "profile.page", Fact(str(page) if page.is_file() else None, "the profile step", measure)
    rows: list[dict[str, Any]] | None = None
    if run:
        reference = profiling.Reference.from_dict(read_json(run / "reference.json"))
        median = profiling.LEVELS.index(0.5)
        rows = [
            {
                "feature": name,
                "nulls": float(reference.null_share[number]),
                "minimum": float(reference.minimum[number]),
                "median": float(reference.quantiles[median, number]),
                "maximum": float(reference.maximum[number]),
            }
            for number, name in enumerate(reference.names[:MOST_FEATURES])
        ]
        yield "profile.features", Fact(len(reference.names), f"{run.name}/reference.json")
    else:
        yield "profile.features", Fact(None, "a run's reference.json", measure)
    yield "profile.table", Fact(rows, f"{run.name}/reference.json" if run else "a run's reference.json", measure)
    full = sorted((scene.home / "reports" / "profile").glob("*.html"))
    yield "profile.full_pages", Fact(len(full), "reports/profile/")


def storage(scene: Scene) -> Found:
    """Find where things are stored, without a secret, and the versions of the training table."""
    settings = scene.settings
    places = (
        ("archive and history", settings.stores or str(settings.home)),
        ("DVC remote", settings.remote),
        ("journal", settings.journal_url),
        ("experiments and registry", settings.tracking_uri),
    )
    rows = [{"store": name, "address": without_password(place) if "://" in place else place} for name, place in places]
    yield "storage.places", Fact(rows, "settings")
    measure = f"forecastle run train --task {scene.file}"
    records = versioning.records(settings, scene.task)
    told = [
        {
            "version": one.version[:12],
            "rows": one.rows,
            "as of": one.as_of,
            "answers": one.answers,
            "run": one.run,
            "commit": (full.commit if (full := versioning.record(settings, scene.task, one.version)) else "")[:10],
        }
        for one in records
    ]
    yield "storage.versions", Fact(told or None, "the DVC workspace's records, data/versions", measure)
    pointer = settings.versions / scene.task.name / "training.parquet.dvc"
    text = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else None
    yield "storage.pointer", Fact(text, "training.parquet.dvc", measure)


def _report(name: str, said: dict[str, Any] | None, source: str, measure: str) -> Found:
    where = source or "a gate report"
    for field in ("judged_at", "start", "end", "rows", "masked", "verdict"):
        yield f"{name}.{field}", Fact(said[field] if said else None, where, measure)
    rows = None
    if said:
        rows = [{key: one[key] for key in ("check", "verdict", "expected", "found")} for one in said["findings"]]
    yield f"{name}.findings", Fact(rows, where, measure)


def _refused(run: Any) -> bool:
    said = read_json(run / "steps" / "quality-check.json")
    return bool(said) and not said["ok"]


def _steps(scene: Scene, run: Any) -> list[dict[str, Any]]:
    flow = run.name.partition("-")[0]
    found = []
    for name, after in scene.flows.get(flow, ()):
        said = read_json(run / "steps" / f"{name}.json")
        ended = "did not start" if said is None else "succeeded" if said["ok"] else "refused: " + said["error"]["kind"]
        found.append({"step": name, "after": ", ".join(after) or "–", "ended": ended})
    return found


def _curve(scene: Scene) -> list[dict[str, Any]] | None:
    """Return the daily mean of the target of each series: what the extraction's chart draws."""
    history = open_history(scene.task, task_stores(scene.settings, scene.task.name) / "history")
    rows = history.read(as_of=scene.now)
    if rows.is_empty():
        return None
    daily = rows.group_by("series_id", pl.col("timestamp").dt.truncate("1d").alias("day")).agg(
        value=pl.col(scene.task.target).mean().round(3)
    )
    first = sorted(daily["series_id"].unique())[:4]
    chosen = daily.filter(pl.col("series_id").is_in(first)).drop_nulls().sort("series_id", "day")
    every = max(1, chosen.height // 600)
    return [
        {"series": row["series_id"], "day": f"{row['day']:%Y-%m-%d}", "value": row["value"]}
        for row in chosen.gather_every(every).iter_rows(named=True)
    ]


def _shown(scene: Scene, store: str) -> str:
    return f"{scene.settings.stores or 'data'}/{scene.task.name}/{store}"
