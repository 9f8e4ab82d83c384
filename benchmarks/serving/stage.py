"""What is served: two tasks over the same made-up weather, and a model for MLflow of the very same size.

The task looks like the shipped ``nyc-temperature``: hourly, six steps ahead, three covariates, local clock, holidays.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.data import profiling
from forecastle.data.examples import Examples, make_examples
from forecastle.data.history import History
from forecastle.data.panel import build_panel, micros
from forecastle.data.present import Present
from forecastle.data.transformation import make_recipe
from forecastle.frame import conform
from forecastle.models import bundle, pointer, predictor
from forecastle.models.estimators import fit_all, predict
from forecastle.models.intervals import Errors, calibrate
from forecastle.models.learning import Fitted, Options, labelled, thinned
from forecastle.models.model import Model
from forecastle.monitoring import drift
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings
from forecastle.task import Task, make_task

HOUR = timedelta(hours=1)
SERIES = ("EWR", "JFK", "LGA")
COLUMNS = ("temperature_2m", "relative_humidity_2m", "wind_speed_10m", "pressure_msl")
CHAMPIONS = {"boosted": {"lightgbm_change": 1.0}, "blended": {"ridge": 0.75, "lightgbm_change": 0.25}}
OBSERVATIONS = 200
DAYS = 365


def task(name: str) -> Task:
    """Return a task of that name."""
    return make_task(
        {
            "name": name,
            "domain": "environmental",
            "timezone": "America/New_York",
            "frequency": "1h",
            "horizon": "6h",
            "target": COLUMNS[0],
            "source": {"provider": "file", "path": "made-up.parquet", "instantaneous": True},
            "columns": {column: {"minimum": -1e5, "maximum": 1e5} for column in COLUMNS},
            "series": [{"id": one} for one in SERIES],
            "features": {"season": 24, "holidays": "US"},
        }
    )


def weather(series: tuple[str, ...], hours: int, last: datetime, seed: int = 0) -> pl.DataFrame:
    """Return hourly observations of made-up weather up to a time."""
    random = np.random.default_rng(seed)
    at = np.arange(hours)
    tables = []
    for number, name in enumerate(series):
        cycle = np.sin((at - 9) * 2 * np.pi / 24)
        front = np.cumsum(random.normal(0, 0.3, hours)) * 0.3
        columns = {
            COLUMNS[0]: 10 + number + 5 * cycle + front + random.normal(0, 0.5, hours),
            COLUMNS[1]: 60 - 15 * cycle + random.normal(0, 4, hours),
            COLUMNS[2]: np.abs(random.normal(5, 2, hours)),
            COLUMNS[3]: 1013 - 2 * front + random.normal(0, 1, hours),
        }
        times = [last - (hours - 1 - one) * HOUR for one in range(hours)]
        known = {"available_at": times, "collected_at": [last] * hours}
        rounded = {column: np.round(values, 1) for column, values in columns.items()}
        tables.append(pl.DataFrame({"series_id": name, "timestamp": times, **known, **rounded}))
    return conform(pl.concat(tables), COLUMNS)


def prepare(home: Path, now: datetime) -> None:
    """Fill a home folder with both tasks: history, champion, current forecasts."""
    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    last = now.replace(minute=0, second=0, microsecond=0)
    rows = weather(SERIES, DAYS * 24, last)
    first = task("boosted")
    panel = build_panel(rows, first)
    recipe = make_recipe(first, panel)
    examples = make_examples(recipe, panel, np.arange(panel.size))
    learnt = fit_all(CHAMPIONS["blended"], examples, int(examples.times.max()), Options())
    for name, weights in CHAMPIONS.items():
        one = task(name)
        publish(settings, one, examples, learnt, weights, now)
        History(settings.task_folder(name) / "history", COLUMNS).append(rows)
        issue(settings, one, now)


def publish(
    settings: Settings,
    one: Task,
    examples: Examples,
    learnt: Mapping[str, Fitted],
    weights: Mapping[str, float],
    now: datetime,
    version: str = "1",
) -> None:
    """Publish a champion of these members, its intervals calibrated on what it was fitted on: only time counts."""
    pairs = thinned(labelled(examples, int(examples.times.max())), examples, 30_000)
    value = sum(weight * predict(learnt[name], examples) for name, weight in weights.items())
    errors = Errors(pairs, pairs.pick(np.asarray(value)), pairs.pick(examples.truth), np.zeros(len(pairs.row), int))
    spread = calibrate([errors], one.training.coverage, 0)
    members = tuple(learnt[name] for name in weights)
    usual = dict.fromkeys(SERIES, 10.0)
    estimator = "blend" if len(members) > 1 else members[0].name
    model = Model(examples.recipe, estimator, members, tuple(weights.values()), spread, one.training.coverage, usual)
    made = bundle.Bundle(
        task=one.name,
        task_digest=one.digest,
        version=version,
        data_version="0" * 32,
        created_at=now,
        trained_until=now,
        model=model,
        features=Present(examples.recipe).names,
        backtest={},
        reference=profiling.reference(examples.origin_names, examples.origin).to_dict(),
    )
    known = pointer.ModelVersion(one.name, version, f"run-{version}", made.data_version)
    with tempfile.TemporaryDirectory() as folder:
        pointer.publish(settings, one, known, bundle.save(made, Path(folder)), now)


def issue(settings: Settings, one: Task, now: datetime) -> None:
    """Journal the current forecasts, as a live run does."""
    published = pointer.published(settings, one)
    assert published is not None
    model = bundle.load(published.folder, published.version)
    history = History(settings.task_folder(one.name) / "history", COLUMNS)
    panel = build_panel(history.versions(as_of=now), one)
    rows = panel.last_rows
    examples = make_examples(model.recipe, panel, rows, np.full(len(rows), micros(now)))
    made = predictor.forecast(model, examples, now, {})
    reference = profiling.Reference.from_dict(model.reference)
    with Journal(settings.journal_url) as journal:
        journal.record(drift.mark(made, examples, reference))


def bodies(now: datetime, many: int = 100) -> dict[str, bytes]:
    """Return what is posted: one series of 200 hourly observations in all columns, and as many of 100 series."""
    last = now.replace(minute=0, second=0, microsecond=0)
    names = ("JFK", *(f"S{number}" for number in range(1, many)))
    rows = weather(names, OBSERVATIONS, last, seed=1)
    series = []
    for (name,), own in rows.group_by("series_id", maintain_order=True):
        times = [f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in own["timestamp"]]
        series.append({"series_id": name, "timestamps": times, "values": {one: own[one].to_list() for one in COLUMNS}})
    return {
        "one": json.dumps({"series": series[:1]}).encode(),
        "many": json.dumps({"series": series}).encode(),
    }


def mlflow_model(folder: Path, home: Path, now: datetime, signed: bool) -> dict[str, bytes]:
    """Save the booster of the first champion as MLflow's model; return bodies of one and 100 ready-made rows.

    With a signature, which MLflow asks every model to have, it checks each row by name and type before it forecasts.
    """
    import lightgbm
    import mlflow.lightgbm

    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    one = task("boosted")
    published = pointer.published(settings, one)
    assert published is not None
    (member,) = bundle.load(published.folder, "1").model.members
    assert member.trees is not None
    booster = lightgbm.Booster(model_str=member.trees.text)
    names = booster.feature_name()
    signature = None
    if signed:
        import pandas as pd
        from mlflow.models import infer_signature

        some = pd.DataFrame(np.random.default_rng(0).normal(10, 5, (5, len(names))), columns=names)
        signature = infer_signature(some, booster.predict(some))
    mlflow.lightgbm.save_model(booster, str(folder), signature=signature, pip_requirements=["lightgbm", "mlflow"])
    row = np.round(np.random.default_rng(0).normal(10, 5, len(names)), 3).tolist()

    def body(rows: int) -> bytes:
        return json.dumps({"dataframe_split": {"columns": names, "data": [row] * rows}}).encode()

    return {"one": body(1), "many": body(100)}


def now() -> datetime:
    """Return the present: the servers under test read the real clock."""
    return datetime.now(UTC)


def facts(home: Path) -> dict[str, Any]:
    """Return what the champion is made of."""
    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    published = pointer.published(settings, task("boosted"))
    assert published is not None
    model = bundle.load(published.folder, "1")
    trees = model.model.members[0].trees
    return {"features": len(model.features), "trees": trees.text.count("Tree=") if trees else 0}
