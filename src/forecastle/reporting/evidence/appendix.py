"""What the appendix and the end need: code locations, decisions, tree, key files, settings, commands, limits."""

from __future__ import annotations

import re
from importlib.metadata import version

from forecastle import __version__
from forecastle.reporting.evidence.delivery import CLONE, tree
from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene
from forecastle.settings import PREFIX, Settings

LOCATIONS: dict[str, tuple[str, ...]] = {
    "2.2": ("src/forecastle/data/providers/", "src/forecastle/declaration.py"),
    "2.3": ("src/forecastle/task.py", "tasks/"),
    "ingestion": ("src/forecastle/data/ingestion.py", "src/forecastle/data/archive.py", "src/forecastle/http.py"),
    "processing": (
        *("src/forecastle/data/quality_check.py", "src/forecastle/data/checks/"),
        *("src/forecastle/data/history.py", "src/forecastle/data/transformation.py"),
    ),
    "training": ("src/forecastle/models/training.py", "src/forecastle/models/registry.py"),
    "serving": ("src/forecastle/serving/app.py", "src/forecastle/serving/board.py"),
    "monitoring": ("src/forecastle/monitoring/journal.py", "src/forecastle/monitoring/drift.py"),
    "3": ("src/forecastle/pipeline.py", "dags/forecastle_dag.py", "tools/architecture.py"),
    "4.1": ("src/forecastle/data/ingestion.py", "src/forecastle/collecting.py"),
    "4.2": ("src/forecastle/data/quality_check.py", "src/forecastle/data/quarantine.py"),
    "4.3": ("src/forecastle/data/transformation.py", "src/forecastle/data/recipe.py"),
    "4.4": ("src/forecastle/data/profiling.py", "src/forecastle/data/profile_page.py"),
    "4.5": ("src/forecastle/data/versioning.py", "src/forecastle/data/store.py"),
    "5.1": ("src/forecastle/delivery/dagshub.py",),
    "5.2": ("src/forecastle/models/training.py", "src/forecastle/models/tracking.py"),
    "5.3": ("src/forecastle/models/registry.py", "src/forecastle/models/promotion.py"),
    "6.1": (".github/rulesets/", "docs/git-workflow.md"),
    "6.2": (".github/workflows/ci-dev.yml",),
    "6.3": (".github/workflows/ci-test.yml", "src/forecastle/reporting/comparison.py"),
    "6.4": (".github/workflows/cd-master.yml", "tools/deploy"),
    "6.5": ("docker/Dockerfile.api", "docker/docker-compose.yml"),
    "7.1": ("src/forecastle/monitoring/metrics.py", "monitoring/prometheus/prometheus.yml"),
    "7.2": ("src/forecastle/monitoring/dashboard.py", "monitoring/grafana/dashboards/forecastle.json"),
    "7.3": ("src/forecastle/monitoring/rules.py", "monitoring/prometheus/rules.yml"),
    "8.1": ("src/forecastle/models/evaluation.py", "src/forecastle/monitoring/outcomes.py"),
    "8.2": ("src/forecastle/monitoring/uptime.py", "src/forecastle/pictures/probing.py"),
    "8.3": ("src/forecastle/monitoring/drift.py", "src/forecastle/monitoring/incidents.py"),
    "8.4": ("benchmarks/",),
    "9": ("docs/decisions/",),
    "11": ("src/forecastle/reporting/",),
}
KEY_FILES = {
    "src/forecastle/pipeline.py": "the flows, from top to bottom",
    "src/forecastle/task.py": "the task file",
    "src/forecastle/settings.py": "every environment variable",
    "src/forecastle/data/quality_check.py": "the mandatory gate",
    "src/forecastle/data/transformation.py": "the one definition of features",
    "src/forecastle/models/training.py": "back-test and fit",
    "src/forecastle/models/registry.py": "the only importer of MLflow",
    "src/forecastle/serving/app.py": "the HTTP service",
    "src/forecastle/monitoring/journal.py": "forecasts, outcomes, incidents",
    "dags/forecastle_dag.py": "the flows as Airflow's DAGs",
    "docker/docker-compose.yml": "the whole system in containers",
    "Makefile": "what people and workflows call",
}
PACKAGES = (
    "polars",
    "lightgbm",
    "scikit-learn",
    "mlflow",
    "dvc",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "prometheus-client",
)
REFERENCES = (
    ("Apache Airflow", "https://airflow.apache.org/docs/", "scheduler of the flows"),
    ("DVC", "https://dvc.org/doc", "versions of training tables"),
    ("MLflow", "https://mlflow.org/docs/latest/", "experiments and model registry"),
    ("DagsHub", "https://dagshub.com/docs/", "remote for both"),
    ("FastAPI", "https://fastapi.tiangolo.com/", "the service"),
    ("Prometheus", "https://prometheus.io/docs/", "metrics and alerts"),
    ("Grafana", "https://grafana.com/docs/grafana/latest/", "dashboard"),
    ("LightGBM", "https://lightgbm.readthedocs.io/", "boosted trees"),
    ("CML", "https://cml.dev/doc", "reports in pull requests"),
    ("Docker", "https://docs.docker.com/", "containers"),
)


def locations(scene: Scene) -> Found:
    """Find whether each code location that a part names exists."""
    words = {True: "there", False: "missing", None: "not there: no repository beside the installed package"}
    for part, paths in LOCATIONS.items():
        rows = [{"path": path, "found": words[scene.exists(path)]} for path in paths]
        yield f"code.{part}", Fact(rows, "the file system")
    yield "code.repository", Fact(scene.repository is not None, "the file system")


def decisions(scene: Scene) -> Found:
    """Find the decisions, each with the challenge it answers and what was decided."""
    folder = scene.repository / "docs" / "decisions" if scene.repository else None
    files = sorted(folder.glob("0*.md")) if folder else []
    rows = [row for path in files if (row := _decision(path.name, path.read_text(encoding="utf-8")))]
    yield "decisions.table", Fact(rows or None, "docs/decisions/", CLONE)
    yield "decisions.count", Fact(len(rows) or None, "docs/decisions/", CLONE)
    status = scene.repository / "docs" / "status.md" if scene.repository else None
    text = status.read_text(encoding="utf-8") if status and status.is_file() else ""
    known = [_unlinked(one) for one in re.findall(r"^- (.+(?:\n  .+)*)", text.partition("Known and left")[2], re.M)]
    yield "conclusion.left", Fact(known or None, "docs/status.md", CLONE)


def appendix(scene: Scene) -> Found:
    """Find the tree, the key files, the settings without values, the commands, the packages."""
    told = {True: "there", False: "missing", None: "not there"}
    files = [{"file": path, "about": about, "found": told[scene.exists(path)]} for path, about in KEY_FILES.items()]
    yield "appendix.files", Fact(files, "the file system")
    listed = tree(scene.repository, ()) if scene.repository else []
    yield "appendix.tree", Fact(listed or None, "git ls-files", CLONE)
    given = scene.settings.model_fields_set
    names = [
        {"variable": f"{PREFIX}{name.upper()}", "set": name in given, "what it is": _first(str(field.description))}
        for name, field in Settings.model_fields.items()
    ]
    yield "appendix.settings", Fact(names, "src/forecastle/settings.py, values left out")
    commands = [{"command": f"forecastle {words}", "what it does": said} for words, said in scene.commands]
    yield "appendix.commands", Fact(commands, "the command line's own help")
    yield "appendix.version", Fact(__version__, "the package")
    packages = [{"package": name, "version": version(name)} for name in PACKAGES]
    yield "appendix.packages", Fact(packages, "importlib.metadata")
    references = [{"name": name, "address": address, "for": what} for name, address, what in REFERENCES]
    yield "references", Fact(references, "src/forecastle/reporting/evidence/appendix.py")


def _decision(name: str, text: str) -> dict[str, str] | None:
    title = re.match(r"# \d+\. (.+)", text)
    context = re.search(r"\*\*Context\.\*\*\s+(.+?)(?:\n\n|\Z)", text, re.S)
    decided = re.search(r"\*\*Decision\.\*\*\s+(.+?)(?:\n\n|\Z)", text, re.S)
    if not (title and context and decided):
        return None
    challenge, solution = (_unlinked(one[1]) for one in (context, decided))
    return {"file": f"docs/decisions/{name}", "title": title[1], "challenge": challenge, "solution": solution}


def _unlinked(text: str) -> str:
    """Return a page's text in one line; its links, which lead from that page, as their words."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", " ".join(text.split()))


def _first(text: str) -> str:
    """Return what a setting is, without where to read more of it."""
    return _unlinked(re.sub(r"(;| -)? [Ss]ee \[.*", "", text)).rstrip(".") + "."
