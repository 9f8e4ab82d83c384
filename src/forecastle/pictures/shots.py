"""The shots, chapter by chapter: each opens what runs, or runs what is shown. To take another, add it where it "
"belongs."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from forecastle.data import quarantine
from forecastle.data.store import task_stores
from forecastle.errors import NotEnoughHistory, OutsideError
from forecastle.frame import iso, to_json
from forecastle.pictures.album import Album
from forecastle.pictures.camera import HEIGHT, MOST_LINES, Camera, Command
from forecastle.pictures.probing import probe
from forecastle.pictures.servers import Stage, until
from forecastle.reporting.scene import read_json

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from forecastle.models.tracking import TrackedRun

Chapter = Callable[[Stage, Camera, Album], None]

NO_GITHUB = "GitHub is not reached from here"
NO_GRAFANA = "no Grafana is installed here"
NO_DOCKER = "images are not built for the report"
LISTED = 24  # objects of the storage listing
VISITED = {
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "_mlflow_dark_mode_toggle_enabled": "false",
}
ASKING = """
import sys, urllib.request
answer = urllib.request.urlopen(sys.argv[1])
print(answer.status, answer.reason, answer.headers, answer.read().decode(), sep="\\n")
"""
PEEK = """
import polars as pl
table = pl.read_parquet("training.parquet")
wanted = [one for one in table.columns if one.startswith(("lag_", "mean_", "std_", "minute@", "season_1@"))]
chosen = [*dict.fromkeys(wanted[:2] + [one for one in wanted if not one.startswith("lag_")])][:6]
print(table.shape)
pl.Config(tbl_width_chars=116, tbl_cols=-1, tbl_hide_column_data_types=True)
print(table.select("series_id", pl.col("origin").dt.strftime("%m-%d %H:%M"), *chosen).tail(8))
"""


def service(stage: Stage, camera: Camera, album: Album) -> None:
    """The page, the API's documentation, its health and metrics; and how fast it answers."""
    task = stage.scene.task
    with album.shot(33, "The page of the service, as it was served"):
        camera.page(stage.service, album.path(33), see="svg.chart", whole=True)
    with album.shot(34, "GET /docs"):
        camera.page(f"{stage.service}/docs", album.path(34))
    with album.shot(25, "What the running service answers"):
        commands = [
            Command(f"curl --silent --show-error --include {path}", _curl(f"{stage.service}{path}"), stage.folder)
            for path in ("/health", "/ready")
        ]
        camera.terminal(album.path(25), "health and readiness of the running service", commands, stage.hide)
    with album.shot(26, "GET /metrics"):
        camera.page(f"{stage.service}/metrics", album.path(26))
    series = list(task.series_ids) or sorted(stage.scene.journal.latest(task.name)["series_id"].unique())
    if series:
        probe(stage.scene.settings, task, series, stage.service, stage.scene.output, stage.scene.made_at)


def ingestion(stage: Stage, camera: Camera, album: Album) -> None:
    """The task file, a real collection into a home of its own, the gate's pages, features, profile, storage, DVC."""
    scene, name = stage.scene, stage.scene.task.name
    said = f"--task {scene.file} --now {iso(scene.now)}"
    home = stage.scratch / "home" / name
    with album.shot(1, "The task file: provider, what is asked for, and no key"):
        words = Command.of(f"head -n 40 {scene.file}", stage.folder)
        camera.terminal(album.path(1), "the provider, chosen and configured", [words], stage.hide)
    with album.shot(3, "A collection, run for this picture, and the note of an answer it archived"):
        commands = [
            _forecastle(stage, f"ingest {said}"),
            Command(
                f"find data/{name}/archive -name '*.json' | head -n 4",
                _find(home / "archive"),
                stage.folder,
                first_lines=4,
            ),
            Command(
                f"cat data/{name}/archive/…",
                ["sh", "-c", f'cat "$(find {home}/archive -name "*.json" | sort | head -n 1)"'],
                stage.folder,
            ),
        ]
        camera.terminal(album.path(3), "data extraction", commands, stage.hide)
    passed = next(
        (one / "quality.html" for one in scene.runs[::-1] if (read_json(one / "quality.json") or {}).get("passed")),
        None,
    )
    with album.shot(4, "The gate's report on the newest batch that passed"):
        camera.page(_file(passed, "a batch that passed"), album.path(4), whole=True)
    _refusal(stage, camera, album)
    with album.shot(6, "The steps after that collection, and the last rows of the table they made"):
        commands = [_forecastle(stage, f"{step} {said}") for step in ("quality-check", "transform")]
        peek = 'python -c "print(pl.read_parquet(…/training.parquet).tail(6))"'
        run = home / "runs" / f"train-{scene.now:%Y%m%dT%H%M%SZ}"
        commands.append(Command(peek, [sys.executable, "-c", PEEK], run))
        camera.terminal(album.path(6), "feature engineering and transformation", commands, stage.hide)
    with album.shot(7, "The profile of the training data"):
        camera.page(_file(scene.home / "reports" / "profile.html", "the profile"), album.path(7), height=1500)
    with album.shot(8, "What the store of archive and history holds"):
        camera.written(album.path(8), _listing(stage))
    with album.shot(9, "The git and DVC workspace of the training tables"):
        versions = scene.settings.versions
        commands = [
            Command.of("git log --stat --max-count 3", versions),
            Command.of(f"cat {name}/training.parquet.dvc", versions),
            Command("dvc status --cloud", [sys.executable, "-m", "dvc", "status", "--cloud"], versions),
        ]
        camera.terminal(album.path(9), "data versions", commands, stage.hide)


def models(stage: Stage, camera: Camera, album: Album) -> None:
    """MLflow's pages: the experiment, a run with its parameters and figures, the registry."""
    album.miss(
        10, "no DagsHub repository is connected" if not stage.scene.settings.dagshub else "DagsHub asks for a login"
    )
    name = stage.scene.task.name
    with album.shot(11, "MLflow: the task's experiment"):
        _mlflow(stage, camera, album.path(11), f"experiments/{_trained(stage).experiment}/runs")
    with album.shot(12, "MLflow: a run"):
        run = _trained(stage)
        _mlflow(stage, camera, album.path(12), f"experiments/{run.experiment}/runs/{run.run_id}", 1500)
    with album.shot(13, "MLflow: the model registry"):
        _mlflow(stage, camera, album.path(13), "models")
    with album.shot(14, "MLflow: the versions of the task's model; the stage stands among their tags"):
        _mlflow(stage, camera, album.path(14), f"models/{name}")


def delivery(stage: Stage, camera: Camera, album: Album) -> None:
    """How the code is delivered: what of it runs on this machine."""
    root = stage.scene.repository
    album.miss(16, NO_GITHUB)
    album.miss(21, NO_GITHUB)
    for number in (22, 23, 24):
        album.miss(number, NO_DOCKER)
    if root is None:
        for number in (15, 17, 18, 19):
            album.miss(number, "there is no clone of the repository")
    else:
        with album.shot(15, "How changes came together, the newest first"):
            words = Command.of("git log --graph --oneline --no-decorate --max-count 34", root)
            camera.terminal(album.path(15), "git branches", [words], stage.hide)
        with album.shot(17, "Steps of ci-dev, run on this machine"):
            commands = [_make(stage, "style"), _make(stage, "layers", 40)]
            camera.terminal(album.path(17), "the workflow ci-dev, on this machine", commands, stage.hide)
        with album.shot(18, "The tests of one room with their coverage, run for this picture; make unit runs all"):
            camera.terminal(album.path(18), "unit tests and coverage", _tests(stage), stage.hide)
    compared = stage.scratch / "compared"
    with album.shot(19, "Steps of ci-test on the newest training, run on this machine"):
        commands = [
            _forecastle(stage, f"compare --task {stage.scene.file} --output {compared}", reading=True),
            _forecastle(stage, f"compare --task {stage.scene.file} --fail-if-worse", reading=True, lines=24),
        ]
        camera.terminal(album.path(19), "the workflow ci-test, on this machine", commands, stage.hide)
    with album.shot(
        20, "The Markdown that is posted to a pull request, rendered; GitHub draws its Mermaid charts itself"
    ):
        camera.written(album.path(20), _comment(compared / "comparison.md"))


def monitoring(stage: Stage, camera: Camera, album: Album) -> None:
    """Prometheus and Alertmanager at work on the service; then a source that has been silent for too long."""
    for number in (29, 30, 31):
        album.miss(number, NO_GRAFANA)
    task = stage.scene.task
    with album.shot(27, "Prometheus scrapes the running service"):
        until(lambda: _asks(stage, "up") == 1, 30)
        camera.page(_classic(stage, "targets"), album.path(27), settle=2)
    with album.shot(28, "What Prometheus answers to a query: the live errors, by steps ahead"):
        camera.page(f"{_classic(stage, 'graph')}?g0.expr=forecastle_live_rmse&g0.tab=1", album.path(28), settle=3)
    patience = task.patience(task.monitoring.stale_after)
    hours = (patience + timedelta(hours=1)).total_seconds() / 3600
    shows = f"Staged: the service's clock stands {hours:g} hours later, as if its source had been silent"
    with album.shot(32, f"{shows}; Alertmanager told a receiver of this machine"):
        assert stage.prometheus and stage.alertmanager
        stage.late = timedelta(hours=hours)
        if not until(lambda: stage.told("data-stale") is not None, 60):
            raise OutsideError("a notification", "none came within a minute", "See Prometheus' alerts.")
        with tempfile.TemporaryDirectory() as aside:
            alerts, received = Path(aside) / "alerts.png", Path(aside) / "received.png"
            camera.page(_classic(stage, "alerts"), alerts, settle=2)
            _received(stage, camera, received)
            stacked(album.path(32), alerts, received)
    stage.late = timedelta(0)


CHAPTERS: tuple[Chapter, ...] = (service, ingestion, models, monitoring, delivery)


def _refusal(stage: Stage, camera: Camera, album: Album) -> None:
    """Photograph a batch that was refused: the DAG that stopped, where Airflow is named; else the gate's report."""
    url = stage.scene.settings.airflow_url.rstrip("/")
    shows = "Airflow: the DAG stopped at the gate" if url else "The gate's report on the batch that it refused"
    with album.shot(5, shows):
        if url:
            camera.page(
                f"{url}/dags/{stage.scene.task.name}-live",
                album.path(5),
                before=lambda page: _log_in(stage, page),
                settle=5,
            )
            return
        refused = [one for one in quarantine.quarantined(stage.scene.home) if not one.series]
        camera.page(_file(refused[-1].page if refused else None, "a batch that was refused"), album.path(5))


def _log_in(stage: Stage, page: Page) -> None:
    settings = stage.scene.settings
    page.locator("input[name=username]").wait_for()
    page.fill("input[name=username]", settings.airflow_user)
    page.fill("input[name=password]", settings.airflow_password.get_secret_value())
    page.click("button[type=submit]")
    page.wait_for_url(lambda address: "login" not in address)
    page.goto(f"{settings.airflow_url.rstrip('/')}/dags/{stage.scene.task.name}-live")
    page.get_by_text("quality-check").first.wait_for()


def _trained(stage: Stage) -> TrackedRun:
    """Return the newest run that trained a model."""
    from forecastle.models import registry

    found = next((one for one in registry.runs(stage.scene.settings, stage.scene.task, 10) if one.params), None)
    if found is None:
        raise NotEnoughHistory("a run to show", "none", f"Train first: forecastle run train --task {stage.scene.file}")
    return found


def _mlflow(stage: Stage, camera: Camera, path: Path, page: str, height: int = HEIGHT) -> None:
    """Photograph a page of MLflow's, without what it opens over it at the first visit."""
    camera.page(f"{stage.mlflow}/#/{page}", path, before=_escape, settle=3, height=height, remembered=VISITED)


def _escape(page: Page) -> None:
    page.wait_for_timeout(2500)
    page.keyboard.press("Escape")


def _classic(stage: Stage, page: str) -> str:
    """Return the address of a page of Prometheus: the classic one where Debian's build has no other."""
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{stage.prometheus}/{page}", timeout=10):
            return f"{stage.prometheus}/{page}"
    except urllib.error.HTTPError:
        return f"{stage.prometheus}/classic/{page}"


def _asks(stage: Stage, query: str) -> float | None:
    import json
    import urllib.request

    with urllib.request.urlopen(f"{stage.prometheus}/api/v1/query?query={query}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def _received(stage: Stage, camera: Camera, path: Path) -> None:
    """Photograph what Alertmanager says of its alerts, and what it sent to the receiver."""
    sent = stage_text(to_json(stage.told("data-stale"), indent=2), stage)
    note = stage.scratch / "received.json"
    note.write_text(f"{sent}\n", encoding="utf-8")
    commands = [Command("cat received.json", ["cat", str(note)], stage.scratch)]
    if shutil.which("amtool"):
        words = ["amtool", "alert", "query", f"--alertmanager.url={stage.alertmanager}"]
        commands.insert(0, Command("amtool alert query", words, stage.scratch))
    camera.terminal(path, "Alertmanager, and what its receiver was sent", commands, stage.hide)


def stacked(path: Path, above: Path, below: Path) -> None:
    """Save two pictures one above the other; of the upper one no more than its first 620 rows."""
    from PIL import Image

    with Image.open(above) as first, Image.open(below) as second:
        top = first.convert("RGB").crop((0, 0, first.width, min(first.height, 620)))
        whole = Image.new("RGB", (top.width, top.height + second.height), "white")
        whole.paste(top, (0, 0))
        whole.paste(second.convert("RGB"), (0, top.height))
    whole.save(path)


def stage_text(text: str, stage: Stage) -> str:
    """Return text without places of this machine."""
    for place, shown in stage.hide.items():
        text = text.replace(place, shown)
    return text


def _file(path: Path | None, what: str) -> str:
    if path is None or not path.is_file():
        raise NotEnoughHistory(f"{what} to show", "none", "Let the system run first.")
    return path.resolve().as_uri()


def _forecastle(stage: Stage, words: str, reading: bool = False, lines: int = MOST_LINES) -> Command:
    shown = stage_text(f"forecastle {words}", stage)
    environment = stage.reading if reading else stage.environment
    argv = [sys.executable, "-m", "forecastle", *words.split()]
    return Command(shown, argv, stage.folder, environment, first_lines=lines)


def _make(stage: Stage, target: str, lines: int = 30) -> Command:
    return Command(f"make {target}", ["make", target], stage.folder, stage.environment, first_lines=lines)


def _tests(stage: Stage) -> list[Command]:
    """Return the commands that run one room's tests and say what of it they cover."""
    own = {"COVERAGE_FILE": str(stage.scratch / "coverage"), "COLUMNS": "110"}
    environment = {name: value for name, value in stage.environment.items() if not name.startswith("FORECASTLE_")} | own
    words = (
        "coverage run -m pytest -q -p no:cacheprovider tests/unit/delivery",
        "coverage combine --quiet",
        "coverage report --include=src/forecastle/delivery/* --fail-under=0 --no-skip-covered",
    )
    return [
        Command(f"python -m {one}", [sys.executable, "-m", *one.split()], stage.folder, environment) for one in words
    ]


def _curl(address: str) -> list[str]:
    if shutil.which("curl"):
        return ["curl", "--silent", "--show-error", "--include", address]
    return [sys.executable, "-c", ASKING, address]


def _find(folder: Path) -> list[str]:
    return ["find", str(folder), "-name", "*.json"]


def _listing(stage: Stage) -> str:
    """Return the store's objects as a page: what it itself says of each."""
    store = task_stores(stage.scene.settings, stage.scene.task.name)
    found = [(f"{part}/{one.name}", one.size) for part in ("history", "archive") for one in (store / part).entries()]
    kept = [one for one in found if one[0].startswith("history/")][: LISTED // 2]
    kept += [one for one in found if one[0].startswith("archive/")][: LISTED - len(kept)]
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{size:,}</td></tr>" for name, size in kept)
    total = sum(size for _, size in found)
    return (
        '<style>body{margin:0;padding:22px 26px;font:14px/1.4 "DejaVu Sans",sans-serif;color:#16232d;background:#fff}'
        'table{border-collapse:collapse;width:100%;font:13px "DejaVu Sans Mono",monospace}'
        "td,th{padding:4px 8px;border-bottom:1px solid "
        "#d3dce1;text-align:left}td:last-child,th:last-child{text-align:right}</style>"
        f"<h2>{escape(stage_text(store.uri, stage))}</h2><p>{len(found):,} objects, {total:,} bytes; the first of each "
        "store:</p>"
        f"<table><tr><th>object</th><th>bytes</th></tr>{rows}</table>"
    )


def _comment(path: Path) -> str:
    """Return a comment's Markdown as a page."""
    from markdown_it import MarkdownIt

    text = path.read_text(encoding="utf-8")
    text = re.sub(r"```mermaid\n(.*?)```", lambda found: f"*(chart: {_title(found[1])})*", text, flags=re.DOTALL)
    body = MarkdownIt("commonmark").enable("table").render(text)
    return (
        '<style>body{margin:0;background:#f6f8fa;padding:22px;font:14px/1.5 "DejaVu Sans",sans-serif;color:#1f2328}'
        "article{background:#fff;border:1px solid #d1d9e0;border-radius:8px;padding:18px 24px}"
        "table{border-collapse:collapse;margin:12px 0}td,th{border:1px solid #d1d9e0;padding:5px 12px;text-align:right}"
        f"td:first-child,th:first-child{{text-align:left}}</style><article>{body}</article>"
    )


def _title(chart: str) -> str:
    found = re.search(r'title "(.*)"', chart)
    return found[1] if found else "Mermaid"
