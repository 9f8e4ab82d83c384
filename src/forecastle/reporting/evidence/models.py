"""What phase II left: the experiment's runs, the registry's versions and who decided, and what DagsHub is used for."""

from __future__ import annotations

from forecastle.http import without_password
from forecastle.models import audit, registry
from forecastle.models.bundle import load as load_bundle
from forecastle.models.pointer import published
from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene

SHOWN_PARAMS = (
    *("estimator", "features", "data_version", "git_commit", "trained_until", "training.backtest_share"),
    *("training.coverage", "training.seed", "weights", "lightgbm.num_leaves", "lightgbm.learning_rate"),
    *("lightgbm.min_data_in_leaf", "lightgbm.num_iterations"),
)
SHOWN_METRICS = ("rmse", "mae", "r2", "skill", "coverage")
MOST_RUNS = 10


def dagshub(scene: Scene) -> Found:
    """Find whether DagsHub is used, and for what."""
    settings = scene.settings
    measure = "forecastle connect dagshub (with FORECASTLE_DAGSHUB=owner/name)"
    yield "dagshub.repository", Fact(settings.dagshub or None, "FORECASTLE_DAGSHUB", measure)
    told = settings.dagshub_token.get_secret_value().strip()
    yield "dagshub.token", Fact("set, its value is never shown" if told else "not set", "FORECASTLE_DAGSHUB_TOKEN")
    yield "dagshub.mlflow", Fact(without_password(settings.at_dagshub("mlflow")) or None, "settings", measure)
    yield "dagshub.dvc", Fact(without_password(settings.at_dagshub("dvc")) or None, "settings", measure)


def experiment(scene: Scene) -> Found:
    """Find the experiment's runs with their parameters and figures."""
    measure = f"forecastle run train --task {scene.file}"
    found = registry.runs(scene.settings, scene.task, MOST_RUNS)
    yield "experiment.name", Fact(scene.task.name, "MLflow")
    yield "experiment.runs", Fact(len(found) or None, "MLflow: search_runs", measure)
    table = [
        {
            "run": one.name,
            "id": one.run_id[:8],
            "status": one.status,
            **{name: one.metrics.get(f"backtest.{name}") for name in SHOWN_METRICS},
        }
        for one in found
    ]
    yield "experiment.table", Fact(table or None, "MLflow: search_runs", measure)
    newest = next((one for one in found if one.params), None)
    params = (
        [{"parameter": name, "value": newest.params[name]} for name in SHOWN_PARAMS if name in newest.params]
        if newest
        else []
    )
    yield "experiment.params", Fact(params or None, f"MLflow: run {newest.run_id[:8]}" if newest else "MLflow", measure)
    yield "experiment.params_logged", Fact(len(newest.params) if newest else None, "MLflow", measure)
    yield "experiment.metrics_logged", Fact(len(newest.metrics) if newest else None, "MLflow", measure)
    candidates = sorted({name.split(".")[0] for name in newest.metrics} if newest else set())
    rows = [
        {"method": name.replace("_", " "), **{key: newest.metrics.get(f"{name}.{key}") for key in SHOWN_METRICS}}
        for name in candidates
        if newest and f"{name}.rmse" in newest.metrics
    ]
    rows.sort(key=lambda row: row["rmse"] or 0.0)
    yield "experiment.candidates", Fact(
        rows or None, f"MLflow: metrics of run {newest.run_id[:8]}" if newest else "MLflow", measure
    )


def registered(scene: Scene) -> Found:
    """Find the registry's versions with aliases and stages, and the trail of who decided what."""
    measure = f"forecastle run train --task {scene.file}"
    table = [
        {
            "version": int(one.version),
            "alias": ", ".join(one.aliases) or "–",
            "stage": one.stage or "None",
            "estimator": one.estimator,
            "data": one.data_version[:12],
            "gate": one.tags.get("gate", ""),
        }
        for one in registry.versions(scene.settings, scene.task, with_aliases=True)
    ]
    yield "registry.versions", Fact(table or None, "MLflow: model registry", measure)
    stages = [{"alias": name, "stage": stage} for name, stage in registry.STAGES.items()]
    yield "registry.stages", Fact(stages, "src/forecastle/models/registry.py: STAGES")
    trail = [
        {
            "at": one.at,
            "what": one.action,
            "version": int(one.version),
            "before": one.before or "–",
            "by": one.by,
            "why": one.why,
        }
        for one in audit.events(scene.settings, scene.task)
    ]
    yield "registry.trail", Fact(trail or None, "the models' audit trail", measure)
    current = published(scene.settings, scene.task)
    yield "registry.champion", Fact(int(current.version) if current else None, "models/champion.json", measure)
    yield "registry.since", Fact(current.published_at if current else None, "models/champion.json", measure)
    made = load_bundle(current.folder, current.version) if current else None
    members = zip(made.model.members, made.model.weights, strict=True) if made else ()
    rows = [{"member": one.name.replace("_", " "), "weight": float(weight)} for one, weight in members]
    yield "registry.members", Fact(rows or None, "the champion's bundle", measure)
    yield "registry.estimator", Fact(made.estimator if made else None, "the champion's bundle", measure)
