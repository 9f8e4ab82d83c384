"""The report's PDF and pictures by a real Chromium: what ran is photographed, what did not is said."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecastle import pipeline
from forecastle.frame import write_table, write_text
from forecastle.monitoring import uptime
from forecastle.monitoring.journal import Journal
from forecastle.pictures import shots, take
from forecastle.pictures.album import Album
from forecastle.pictures.camera import Camera, Command, open_camera
from forecastle.reporting.evidence.pictures import FIGURES, INDEX
from forecastle.reporting.printing import browser, print_pdf
from forecastle.reporting.scene import Scene, read_json
from forecastle.settings import Settings
from forecastle.task import load_task

pytestmark = pytest.mark.browser
AT = datetime(2026, 3, 1, tzinfo=UTC)
START, HOURS = datetime(2024, 1, 1, tzinfo=UTC), 400
NOW = START + timedelta(hours=HOURS)
TASK = """
name = "e2e"
domain = "environmental"
frequency = "1h"
horizon = "3h"
target = "y"

[source]
provider = "file"
path = "table.parquet"

[columns.y]

[training]
min_history = "10d"
"""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A task on a table, trained once and forecast once, and the report of it that is to be made."""
    folder = tmp_path_factory.mktemp("site")
    hours, random = np.arange(HOURS), np.random.default_rng(0)
    warm = 10 + 5 * np.sin(hours * 2 * np.pi / 24) + random.normal(0, 0.3, len(hours))
    times = [START + timedelta(hours=int(one)) for one in hours]
    write_table(folder / "table.parquet", pl.DataFrame({"series_id": "a", "timestamp": times, "y": warm}))
    write_text(folder / "e2e.toml", TASK)
    task = load_task(folder / "e2e.toml")
    settings = Settings(home=folder / "home", profile="plain", _env_file=None)  # type: ignore[call-arg]
    for flow in ("train", "live"):
        with pipeline.open_run(task, settings, flow, NOW) as run:
            assert [one.error for one in pipeline.run_flow(run) if one.error] == []
    flows = {name: [(step.name, step.after) for step in steps] for name, steps in pipeline.FLOWS.items()}
    with Journal(settings.journal_url) as journal:
        yield Scene(task, folder / "e2e.toml", settings, journal, NOW, AT, folder / "report", flows, (), None)


@pytest.fixture
def camera() -> Iterator[Camera]:
    with open_camera() as opened:
        yield opened


@pytest.fixture(autouse=True)
def _needs_chromium(missing_component: Callable[[str], None]) -> None:
    if browser() is None:
        missing_component("no Chromium on this machine: tools/debian-package chromium chromium installs it")


def test_a_page_is_printed_whole(tmp_path: Path) -> None:
    page = write_text(tmp_path / "report.html", "<!doctype html><h1>Report</h1>")
    assert print_pdf(page, tmp_path / "new" / "report.pdf") == ""
    printed = (tmp_path / "new" / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF-") and printed.rstrip().endswith(b"%%EOF")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.pdf"]


def test_what_a_command_printed_and_what_a_page_shows_are_photographed(camera: Camera, tmp_path: Path) -> None:
    album = Album(tmp_path, lambda _: None, AT)
    page = write_text(tmp_path / "page.html", "<!doctype html><p id=there>here</p>")
    with album.shot(3, "a command") as path:
        camera.terminal(path, "title", [Command("python …", [sys.executable, "-c", "print(6 * 7)"], tmp_path)], {})
    with album.shot(4, "a page") as path:
        camera.page(page.as_uri(), path, see="#there")
    assert all((tmp_path / FIGURES[number].path).read_bytes().startswith(PNG) for number in (2, 3))
    album.save()
    noted = read_json(tmp_path / INDEX)
    assert {one["captured"] for one in noted.values()} == {True}


def test_what_fails_leaves_no_picture_and_says_why(camera: Camera, tmp_path: Path) -> None:
    album = Album(tmp_path, lambda _: None, AT)
    stale = write_text(tmp_path / FIGURES[2].path, "of an earlier report")
    failing = Command("python …", [sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path)
    with album.shot(3, "a command") as path:
        camera.terminal(path, "title", [failing], {})
    album.miss(16, "GitHub is not reached from here")
    album.save()
    assert not stale.exists()
    index = (tmp_path / "screenshots" / "index.md").read_text(encoding="utf-8")
    assert "exit 1: no such thing" in index and "GitHub is not reached from here" in index


def test_what_runs_here_is_photographed_and_the_rest_named(
    scene: Scene, missing_component: Callable[[str], None]
) -> None:
    if lacking := [name for name in ("prometheus", "prometheus-alertmanager") if shutil.which(name) is None]:
        missing_component(f"no {', '.join(lacking)}: tools/debian-package NAME NAME installs each")
    said: list[str] = []
    album = take(scene, said.append, (shots.service, shots.ingestion, shots.monitoring, shots.delivery))
    taken = {one.path.rpartition("/")[2] for one in FIGURES if album.taken.get(one.path, {}).get("captured")}
    wanted = {"01_api_selection.png", "02_data_extraction.png", "03_quality_check_pass.png", "05_transformation.png"}
    wanted |= {"06_profiling_report.png", "07_storage.png", "08_dvc_versioning.png", "11_health_check.png"}
    wanted |= {"12_service_page.png", "13_api_docs.png", "05_cml_workflow.png", "06_cml_report.png"}
    wanted |= {"01_prometheus_metrics.png", "02_prometheus_targets.png", "03_prometheus_queries.png"}
    assert wanted | {"07_alert_notification.png"} == taken, said
    refused = album.taken["screenshots/phase1_data_ingestion/04_quality_check_fail.png"]
    assert not refused["captured"] and "a batch that was refused to show" in refused["why"]
    probed = read_json(scene.output / "probe.json")
    assert probed["faults"] == 0 and 0 < probed["p50_ms"] <= probed["p95_ms"] <= probed["p99_ms"]
    # the stores it is about are as before: no second run, no incident of the staged alarm
    assert len(list((scene.home / "runs").iterdir())) == 2
    assert scene.journal.incidents() == () and uptime.uptime(scene.journal) is None
