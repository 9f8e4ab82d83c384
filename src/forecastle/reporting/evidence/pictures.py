"""The pictures the report shows: each by its figure's number and path, whether it is there, and else how to take it."""

from __future__ import annotations

from dataclasses import dataclass

from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene, read_json

INDEX = "screenshots/index.json"  # what whoever took the pictures noted of each


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its title, its path beside the report, and how to take it by hand where nothing did."""

    title: str
    path: str
    how: str


_ONE, _TWO, _THREE, _FOUR = (
    f"screenshots/{name}" for name in ("phase1_data_ingestion", "phase2_mlflow", "phase3_cicd", "phase4_monitoring")
)
_RUN = "forecastle report --task FILE --screenshots, where Debian's chromium and the dev extra are installed"
_GITHUB = "push the repository to GitHub, then photograph"
_GRAFANA = "start docker/docker-compose.yml (profile core), then photograph http://127.0.0.1:3000"

FIGURES: tuple[Picture, ...] = (
    Picture("API provider selection and configuration", f"{_ONE}/01_api_selection.png", _RUN),
    Picture("Complete system architecture", "docs/architecture.png", "make architecture"),
    Picture("Data extraction implementation and output", f"{_ONE}/02_data_extraction.png", _RUN),
    Picture("Quality check passing", f"{_ONE}/03_quality_check_pass.png", _RUN),
    Picture("Quality check failing (DAG stops)", f"{_ONE}/04_quality_check_fail.png", _RUN),
    Picture("Feature engineering and transformation", f"{_ONE}/05_transformation.png", _RUN),
    Picture("Data profiling report", f"{_ONE}/06_profiling_report.png", _RUN),
    Picture("Data in cloud storage", f"{_ONE}/07_storage.png", _RUN),
    Picture("DVC versioning in Git and remote", f"{_ONE}/08_dvc_versioning.png", _RUN),
    Picture(
        "Dagshub repository dashboard",
        f"{_TWO}/01_dagshub_repo.png",
        "forecastle connect dagshub, then photograph https://dagshub.com/OWNER/NAME",
    ),
    Picture("MLflow experiment runs", f"{_TWO}/02_experiment_runs.png", _RUN),
    Picture("Logged metrics and parameters", f"{_TWO}/03_metrics.png", _RUN),
    Picture("MLflow Model Registry", f"{_TWO}/04_model_registry.png", _RUN),
    Picture("Model versions and stages", f"{_TWO}/05_model_versions.png", _RUN),
    Picture("Git branch structure", f"{_THREE}/01_branch_structure.png", _RUN),
    Picture(
        "Branch protection rules",
        f"{_THREE}/02_branch_protection.png",
        f"{_GITHUB} Settings → Rules (docs/git-workflow.md)",
    ),
    Picture("CI workflow for feature → dev", f"{_THREE}/03_ci_dev_workflow.png", f"{_GITHUB} Actions → ci-dev"),
    Picture(
        "Unit test results and coverage", f"{_THREE}/04_test_results.png", "make unit, then photograph the terminal"
    ),
    Picture("CML workflow execution", f"{_THREE}/05_cml_workflow.png", f"{_GITHUB} Actions → ci-test"),
    Picture("CML comparison report in PR", f"{_THREE}/06_cml_report.png", _RUN),
    Picture("CD workflow execution", f"{_THREE}/07_cd_workflow.png", f"{_GITHUB} Actions → cd-master"),
    Picture("Docker image build logs", f"{_THREE}/08_docker_build.png", "make image, then photograph the terminal"),
    Picture(
        "Docker image in registry",
        f"{_THREE}/09_docker_registry.png",
        "make push (with DOCKERHUB_USERNAME and DOCKERHUB_TOKEN), then photograph the repository on Docker Hub",
    ),
    Picture(
        "All services running",
        f"{_THREE}/10_docker_compose.png",
        "docker compose up --detach --wait in docker/, then photograph docker compose ps",
    ),
    Picture("API health check", f"{_THREE}/11_health_check.png", _RUN),
    Picture("Prometheus metrics endpoint", f"{_FOUR}/01_prometheus_metrics.png", _RUN),
    Picture("Prometheus targets status", f"{_FOUR}/02_prometheus_targets.png", _RUN),
    Picture("Prometheus query interface", f"{_FOUR}/03_prometheus_queries.png", _RUN),
    Picture("Complete Grafana dashboard", f"{_FOUR}/04_grafana_dashboard.png", _GRAFANA),
    Picture("Individual dashboard panels", f"{_FOUR}/05_dashboard_panels.png", _GRAFANA),
    Picture("Grafana alert rules", f"{_FOUR}/06_alert_config.png", f"{_GRAFANA}/alerting"),
    Picture("Alert notification received", f"{_FOUR}/07_alert_notification.png", _RUN),
    Picture("The page of the running service", f"{_THREE}/12_service_page.png", _RUN),
    Picture("The API's documentation", f"{_THREE}/13_api_docs.png", _RUN),
)
"""The number of each is its place, from 1; the last two are beyond the brief's."""


def pictures(scene: Scene) -> Found:
    """Find which pictures lie beside the report."""
    index = read_json(scene.output / INDEX) or {}
    rows = [
        {
            "number": number,
            "title": one.title,
            "path": one.path,
            "captured": (scene.output / one.path).is_file(),
            "how": one.how,
            "shows": index.get(one.path, {}).get("shows", ""),
            "why": index.get(one.path, {}).get("why", ""),
        }
        for number, one in enumerate(FIGURES, start=1)
    ]
    yield "pictures", Fact(rows, "the folder of the report")
    yield "pictures.captured", Fact(sum(row["captured"] for row in rows), "the folder of the report")
