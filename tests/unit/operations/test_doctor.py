"""The doctor: all of an installation is looked at, nothing is changed, and what is ill says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import polars as pl
import pytest

from forecastle.cli import main
from forecastle.data.formats import NOTE
from forecastle.operations.doctor import Finding, examine
from forecastle.rule import CheckRule
from forecastle.settings import Settings, load_settings
from forecastle.task import Gate, Task, load_task

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def keyed(root: Path) -> Task:
    return load_task(root / "tasks" / "equity-volatility.toml")


def findings(settings: Settings, *tasks: Task, **how: object) -> dict[str, Finding]:
    return {one.about: one for one in examine(settings, tasks, NOW, **how)}  # type: ignore[arg-type]


class Answering(BaseHTTPRequestHandler):
    """A server that answers whatever is asked, with a clock of its own."""

    clock = NOW

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.send_header("date", format_datetime(self.clock, usegmt=True))
        self.end_headers()
        self.wfile.write(b"3.17.2")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(apart: timedelta = timedelta(0)) -> Iterator[str]:
    """Yield the address of a server whose clock is so far from NOW."""
    handler = type("Handler", (Answering,), {"clock": NOW + apart})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_fresh_installation_is_well_and_nothing_is_made(tmp_path: Path, root: Path) -> None:
    home = tmp_path / "not" / "there"
    found = findings(load_settings(home=home), load_task(root / "tasks" / "nyc-temperature.toml"))
    assert {one.about for one in found.values() if one.health == "ill"} == set()
    assert found["champion of nyc-temperature"].health == "hint"
    assert not home.exists()


def test_a_missing_key_is_ill_and_says_which_variable_wants_it(tmp_path: Path, keyed: Task) -> None:
    ill = findings(load_settings(home=tmp_path), keyed)["task equity-volatility"]
    assert (ill.health, ill.exit_code) == ("ill", 2)
    assert "FORECASTLE_ALPHA_VANTAGE_KEY" in ill.found and ill.action


def test_a_key_that_is_set_is_well_and_is_not_shown(tmp_path: Path, keyed: Task) -> None:
    found = findings(load_settings(home=tmp_path, alpha_vantage_key="a-secret"), keyed)
    assert found["task equity-volatility"].health == "well"
    assert "a-secret" not in str(found)


def test_stores_of_a_newer_version_are_ill(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text('{"format": 99, "forecastle": "9.9.9"}')
    ill = findings(load_settings(home=tmp_path))["home"]
    assert (ill.health, ill.exit_code) == ("ill", 2)
    assert "9.9.9" in ill.action


def test_a_registry_that_does_not_answer_is_ill_and_all_else_is_examined_still(tmp_path: Path) -> None:
    found = findings(load_settings(home=tmp_path, mlflow_uri="http://127.0.0.1:9", http_timeout=1))
    assert (found["registry"].health, found["registry"].exit_code) == ("ill", 4)
    assert found["trees"].health == "well"


@pytest.mark.parametrize(("apart", "health"), [(timedelta(seconds=5), "well"), (timedelta(hours=1), "ill")])
def test_a_clock_that_differs_from_the_servers_is_ill(tmp_path: Path, apart: timedelta, health: str) -> None:
    with answering(apart) as address:
        assert findings(load_settings(home=tmp_path, mlflow_uri=address))["registry"].health == health


def test_what_is_set_is_named_and_never_shown(tmp_path: Path) -> None:
    found = findings(load_settings(home=tmp_path, alpha_vantage_key="a-secret"), folder=tmp_path)
    assert found["settings"].found == "set: FORECASTLE_ALPHA_VANTAGE_KEY, FORECASTLE_HOME"
    assert found["secrets"].found == "1 set, none shown" and "a-secret" not in str(found)


def test_a_file_of_secrets_that_others_may_read_is_a_hint(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("FORECASTLE_ALPHA_VANTAGE_KEY=a-secret\n", encoding="utf-8")
    settings = load_settings(home=tmp_path, alpha_vantage_key="a-secret")
    health = []
    for mode in (0o644, 0o600):
        file.chmod(mode)
        health.append(findings(settings, folder=tmp_path)["secrets"].health)
    assert health == ["hint", "well"]


def test_an_address_for_alerts_that_is_none_is_ill_and_not_shown(tmp_path: Path) -> None:
    found = findings(load_settings(home=tmp_path, alert_urls="json://127.0.0.1:9 nonsense://hunter2"))["alerts"]
    assert (found.health, found.exit_code) == ("ill", 2)
    assert "1 of 2" in found.found and "hunter2" not in str(found)


def test_a_service_that_does_not_answer_is_a_hint_as_it_stops_no_run(tmp_path: Path) -> None:
    down = load_settings(home=tmp_path, service_url="http://127.0.0.1:9", http_timeout=1)
    assert (findings(down)["service"].health, findings(down)["service"].exit_code) == ("hint", 0)
    with answering() as address:
        assert findings(load_settings(home=tmp_path, service_url=address))["service"].health == "well"


def test_the_hosts_of_sources_are_asked_only_when_wanted(tmp_path: Path, root: Path) -> None:
    task = load_task(root / "tasks" / "nyc-temperature.toml")
    with answering(timedelta(hours=3)) as address:
        settings = load_settings(home=tmp_path, open_meteo_url=address, open_meteo_archive_url="http://127.0.0.1:9")
        settings = settings.model_copy(update={"http_timeout": 1.0})
        assert [about for about in findings(settings, task) if about.startswith("source ")] == []
        found = findings(settings, task, online=True)
    present, past = found[f"source {address.removeprefix('http://')}"], found["source 127.0.0.1:9"]
    assert (present.health, present.exit_code) == ("ill", 2) and "clock" in present.found
    assert (past.health, past.exit_code) == ("ill", 4)


def test_the_command_exits_with_the_code_of_the_gravest_fault(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORECASTLE_HOME", str(tmp_path))
    assert main(["doctor"]) == 0
    assert main(["doctor", "--task", str(root / "tasks" / "equity-volatility.toml"), "--json"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any('"health": "ill"' in line for line in lines)


def test_a_table_that_ended_long_ago_is_ill_as_a_run_by_the_clock_would_be_refused(
    tmp_path: Path, small_task, observations
) -> None:
    observations(hours=48).select("series_id", "timestamp", "y", "x").write_parquet(tmp_path / "t.parquet")
    task = small_task(source={"provider": "file", "path": str(tmp_path / "t.parquet")})
    found = findings(load_settings(home=tmp_path / "home"), task)["task small"]
    assert (found.health, found.exit_code) == ("ill", 3)
    assert "96 rows of 2 series" in found.found and "The table ended" in found.found and "--now" in found.action
    told = task.model_copy(update={"gate": Gate(checks={"freshness": CheckRule(verdict="warn")})})
    assert findings(load_settings(home=tmp_path / "home"), told)["task small"].health == "hint"


def test_a_table_of_which_a_series_has_ended_is_a_hint_that_names_it(tmp_path: Path, small_task, observations) -> None:
    rows = observations(hours=48).select("series_id", "timestamp", "y", "x")
    newest = rows["timestamp"].max()
    rows = rows.with_columns(pl.col("timestamp") + (NOW - timedelta(hours=1) - newest))
    ended = (pl.col("series_id") == "a") & (pl.col("timestamp") > NOW - timedelta(hours=30))
    rows.filter(~ended).write_parquet(tmp_path / "t.parquet")
    task = small_task(source={"provider": "file", "path": str(tmp_path / "t.parquet")})
    found = findings(load_settings(home=tmp_path / "home"), task)["task small"]
    assert (found.health, found.exit_code) == ("hint", 0) and found.found.endswith("no longer of a")
