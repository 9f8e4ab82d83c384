"""What the task file says: the title page, the domain, the API, the predictive task; and which keys are stored."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from forecastle.data.archive import Archive
from forecastle.data.store import task_stores
from forecastle.reporting.facts import Fact, Found
from forecastle.reporting.scene import Scene
from forecastle.settings import PREFIX
from forecastle.task import duration_text

LOOKED = 100  # answers, from the first and from the last
PROVIDERS_TOLD: dict[str, tuple[str, str, str]] = {  # what each is called, its documentation, the setting of its key
    "open-meteo": ("Open-Meteo", "https://open-meteo.com/en/docs", ""),
    "openweathermap": ("OpenWeatherMap", "https://openweathermap.org/current", "openweathermap_key"),
    "alpha-vantage": ("Alpha Vantage", "https://www.alphavantage.co/documentation/", "alpha_vantage_key"),
    "twelve-data": ("Twelve Data", "https://twelvedata.com/docs", "twelve_data_key"),
    "binance": ("Binance", "https://github.com/binance/binance-spot-api-docs", ""),
    "gbfs": ("GBFS feeds", "https://gbfs.org/specification/reference", ""),
    "gtfs-realtime": ("GTFS-realtime feeds", "https://gtfs.org/documentation/realtime/reference/", "gtfs_realtime_key"),
    "http-json": ("An API declared in the task file", "", "http_json_key"),
    "file": ("a table of one's own", "", ""),
}


def title(scene: Scene) -> Found:
    """Find what stands on the title page."""
    task, said, source = scene.task, scene.task.report, f"{scene.file.name}: [report]"
    words = task.name.replace("-", " ").capitalize()
    yield "title.title", Fact(said.title or f"{words}: final report", source if said.title else "the task's name")
    missing = f"write team under [report] in {scene.file.name}"
    yield "title.team", Fact(list(said.team) or None, source, missing)
    day = said.date or scene.made_at.date()
    yield "title.date", Fact(str(day), source if said.date else "the clock, when this was made")
    yield "title.domain", Fact(said.domain or task.domain.capitalize(), source if said.domain else "domain")
    told, _, _ = PROVIDERS_TOLD[task.source.provider]
    yield "title.provider", Fact(said.provider or told, source if said.provider else "source.provider")
    yield "title.made_at", Fact(scene.made_at, "the clock")
    yield "title.as_of", Fact(scene.now, "the moment the report stands for (--now)")


def problem(scene: Scene) -> Found:
    """Find what is predicted, from what, and why."""
    task, said, source = scene.task, scene.task.report, scene.file.name
    _, documentation, setting = PROVIDERS_TOLD[task.source.provider]
    yield "problem.task_file", Fact(f"tasks/{scene.file.name}", "the command line")
    yield "problem.description", Fact(task.description or task.name, f"{source}: description")
    missing = f"write why under [report] in {source}"
    yield "problem.why", Fact(said.why or None, f"{source}: [report] why", missing)
    yield "problem.domain", Fact(task.domain, f"{source}: domain")
    yield "problem.documentation", Fact(said.documentation or documentation or None, "the provider's page")
    yield "problem.target", Fact(f"{task.target} ({task.unit})" if task.unit else task.target, f"{source}: target")
    yield "problem.covariates", Fact(list(task.covariates), f"{source}: [columns]")
    yield "problem.frequency", Fact(duration_text(task.frequency), f"{source}: frequency")
    yield "problem.horizon", Fact(duration_text(task.horizon), f"{source}: horizon")
    yield "problem.steps", Fact(task.steps, "horizon divided by frequency")
    series = task.series_ids or tuple(sorted(scene.journal.latest(task.name)["series_id"].unique()))
    yield "problem.series", Fact(list(series), f"{source}: [[series]]")
    yield "problem.timezone", Fact(task.timezone, f"{source}: timezone")
    yield "problem.coverage", Fact(task.training.coverage, f"{source}: training.coverage")
    yield "problem.needs_key", Fact(bool(setting), "the provider")
    if setting:
        kept = getattr(scene.settings, setting).get_secret_value().strip()
        shown = f"{PREFIX}{setting.upper()}: {'set, its value is never shown' if kept else 'not set'}"
    else:
        shown = "none is needed"
    yield "problem.key", Fact(shown, "settings")
    yield "problem.calls", Fact(_calls(scene), "the archive's notes", _live(scene))


def _calls(scene: Scene) -> list[str] | None:
    """Return the addresses, without their parameters, that were asked first and last; no secret is in what is
    archived."""
    archive = task_stores(scene.settings, scene.task.name) / "archive"
    names = [note.name for note in Archive(archive).notes()]
    chosen = list(dict.fromkeys([*names[:LOOKED], *names[-LOOKED:]]))
    asked = {urlsplit(json.loads(note)["url"])._replace(query="", fragment="").geturl() for note in archive.get(chosen)}
    return sorted(asked) or None


def _live(scene: Scene) -> str:
    return f"forecastle run live --task {scene.file}"
