"""A run names the pages that are there to look at."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forecastle.frame import write_json
from forecastle.http import Client
from forecastle.monitoring.journal import Journal
from forecastle.run import Run
from forecastle.settings import Settings

NOW = datetime(2013, 12, 1, tzinfo=UTC)


def _run(task: Any, tmp_path: Path, **fields: Any) -> Run:
    settings = Settings(home=tmp_path / "home", _env_file=None, **fields)  # type: ignore[call-arg]
    run = Run(task, settings, "train", NOW, Client(settings), Journal("sqlite://"))
    write_json(run.folder / "model.json", {"version": "1", "run_id": "abc"})
    for page in (run.folder / "quality.html", run.home / "reports" / "profile.html"):
        page.parent.mkdir(parents=True, exist_ok=True)
        page.touch()
    return run


def test_the_pages_of_a_run_are_files_and_without_an_mlflow_server_there_is_no_page_of_it(task, tmp_path) -> None:
    run = _run(task, tmp_path)
    assert run.pages == {
        "gate": (run.folder / "quality.html").as_uri(),
        "profile": (run.home / "reports" / "profile.html").as_uri(),
    }


def test_where_a_browser_finds_the_home_folder_and_mlflow_pages_are_addresses_without_a_password(
    task, tmp_path
) -> None:
    run = _run(task, tmp_path, pages_url="https://pages.example/f/", mlflow_uri="https://me:secret@mlflow.example/")
    assert run.pages == {
        "gate": f"https://pages.example/f/{task.name}/runs/{run.id}/quality.html",
        "profile": f"https://pages.example/f/{task.name}/reports/profile.html",
        "mlflow": "https://mlflow.example/#/runs/abc",
    }


def test_a_run_that_has_made_nothing_has_no_pages(task, tmp_path) -> None:
    settings = Settings(home=tmp_path, _env_file=None)  # type: ignore[call-arg]
    assert Run(task, settings, "live", NOW, Client(settings), Journal("sqlite://")).pages == {}
