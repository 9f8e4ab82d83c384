"""The command line translates: arguments to a call, what comes back to lines or JSON, an error to its exit code."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from filelock import FileLock
from typer.main import get_command

from forecastle import pipeline
from forecastle.cli import app, main
from forecastle.cli.flows import STEPS
from forecastle.monitoring.journal import Journal
from forecastle.pipeline import FLOWS
from forecastle.settings import load_settings
from forecastle.task import load_task

COLUMNS = ["series_id", "origin", "horizon", "timestamp", "value", "lower", "upper", "actual"]
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAYS = 40
INIT = ("--provider", "file", "--target", "y", "--frequency", "1h", "--horizon", "2h")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON it printed, an object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every command where it can do no harm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORECASTLE_HTTP_ATTEMPTS", "1")
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    """Run a command in this process."""

    def run(*words: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture
def table(tmp_path: Path, observations) -> Path:
    """A long table of two series of a few weeks, as a user would bring it."""
    path = tmp_path / "table.csv"
    observations(hours=24 * DAYS).select("series_id", "timestamp", "y", "x").write_csv(path)
    return path


@pytest.fixture
def task_file(call, table: Path) -> Path:
    """A task file on that table, as init writes it."""
    assert call("init", "mine", *INIT, "--path", table.name).code == 0
    return Path("mine.toml")


def test_every_step_of_the_flows_is_a_command_and_no_other_step_is() -> None:
    assert set(STEPS) == {step.name for flow in FLOWS.values() for step in flow}


@pytest.mark.parametrize("name", sorted(get_command(app).commands))
def test_the_help_of_a_command_ends_with_an_example_of_it(call, name: str) -> None:
    ended = call(name, "--help")
    assert ended.code == 0
    assert re.search(rf"Example:\s+forecastle\s+{name}\b", ended.out)


def test_without_arguments_the_help_is_shown_and_nothing_is_complained_of(call) -> None:
    ended = call()
    assert ended.code == 2
    assert "Start with: forecastle demo" in ended.out and ended.err == ""


def test_tasks_that_together_exceed_the_budget_of_a_key_are_not_served(call, root: Path) -> None:
    text = (root / "tasks" / "equity-volatility.toml").read_text(encoding="utf-8")
    for name in ("one", "two"):
        Path(f"{name}.toml").write_text(text.replace("equity-volatility", name), encoding="utf-8")
    ended = call("serve", "--tasks", "one.toml", "two.toml", "--port", "0")
    assert ended.code == 2
    assert "at most 25 calls a day of alpha-vantage" in ended.err and "48 calls a day by 'one'" in ended.err


def test_the_version_is_printed(call) -> None:
    from forecastle import __version__

    assert call("--version") == Ended(0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["ingest"], "Missing option '--task'"),
        (["ingest", "--tsk", "a.toml"], "--tsk"),
        (["demo", "--days", "3"], "14"),
        (["run", "tarin", "--task", "mine.toml"], "did you mean 'train'"),
        (["run", "train", "--task", "mine.toml", "--until", "trian"], "did you mean 'train'"),
        (["quality-check", "--task", "mine.toml", "--flow", "liv"], "did you mean 'live'"),
        (["run", "live", "--task", "mime.toml"], "did you mean 'mine.toml'"),
        (["run", "live", "--task", "mine.toml", "--now", "yesterday"], "ISO 8601"),
        (["run", "live", "--task", "mine.toml", "--now", "2190-01-01T00:00Z"], "a moment that has been"),
        (["serve", "--tasks", "nowhere"], "no such file"),
        (["serve", "--tasks", "mine.toml", "--port", "99999"], "FORECASTLE_PORT"),
        (["replay", "--from", "noon"], "ISO 8601"),
        (["backtest", "--task", "mine.toml", "--origins", "none.parquet"], "none.parquet"),
        (["init", "x", "--provider", "fil"], "did you mean 'file'"),
        (["init", "x", "--provider", "file"], "no --path and no --target"),
        (["init", "My Task"], "small letters"),
    ],
)
def test_a_mistake_of_the_user_is_named_and_exits_with_2(call, task_file, words: list[str], said: str) -> None:
    ended = call(*words)
    assert ended.code == 2
    assert said in ended.err and "Traceback" not in ended.err
    assert ended.out == ""


def test_too_little_data_exits_with_3_and_says_what_to_do(call) -> None:
    call("init", "empty")
    assert call("backtest", "--task", "empty.toml").code == 3
    ended = call("forecast", "--task", "empty.toml")
    assert ended.code == 3 and "Start one with: forecastle ingest" in ended.err


def test_a_step_whose_forerunners_have_not_run_exits_with_3_and_names_them(call, task_file) -> None:
    ended = call("promote", "--task", task_file, "--now", "2024-02-01")
    assert ended.code == 3
    assert "step train of run train-20240201T000000Z to have succeeded; found it has not run" in ended.err


def test_a_source_that_does_not_answer_exits_with_4(call, monkeypatch) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))  # bound, not listening: refused
        monkeypatch.setenv("FORECASTLE_OPEN_METEO_URL", f"http://127.0.0.1:{door.getsockname()[1]}")
        call("init", "mine")
        ended = call("ingest", "--task", "mine.toml", "--flow", "live")
    assert ended.code == 4
    assert "ingest" in ended.out and "failed" in ended.out and "1 attempt" in ended.err


def test_ctrl_c_exits_with_130_and_says_how_to_go_on(call, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("forecastle.task.load_task", stop)
    ended = call("ingest", "--task", "mine.toml")
    assert ended.code == 130 and "may be run again" in ended.err


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback(task_file) -> None:
    program = f"{sys.executable} -m forecastle --help | head -c 1"
    ended = subprocess.run(["bash", "-c", program], capture_output=True, text=True)
    assert "Traceback" not in ended.stderr


def test_init_writes_a_commented_task_file_that_loads_and_says_what_comes_next(call) -> None:
    ended = call("init", "my-task")
    assert ended.out == "Wrote my-task.toml. Next: forecastle run train --task my-task.toml\n"
    assert load_task("my-task.toml").source.provider == "open-meteo"
    assert Path("my-task.toml").read_text().count("#") > 10


def test_init_takes_everything_a_table_of_ones_own_needs(call, table) -> None:
    options = ("--timezone", "Europe/Dublin", "--covariates", "x", "--season", 48, "--grid", "observed")
    more = ("--holidays", "IE", "--domain", "logistics", "--frequency", "30m")
    ended = call("init", "mine", *INIT, "--path", table.name, *options, *more)
    *notes, last = ended.out.splitlines()
    assert last == "Wrote mine.toml. Next: forecastle backtest --task mine.toml"
    assert "mostly lie 1h apart" in notes[0] and "ended" in notes[1]
    task = load_task("mine.toml")
    assert (task.target, task.covariates, task.timezone, task.domain) == ("y", ("x",), "Europe/Dublin", "logistics")
    assert (task.features.season, task.grid, task.features.holidays, task.steps) == (48, "observed", "IE", 4)
    assert task.source.path == str(table)


def test_a_live_run_that_fails_looks_at_the_rules_all_the_same_and_tells_of_it(call, table) -> None:
    assert call("init", "mine", *INIT, "--path", table.name).code == 0
    assert call("run", "live", "--task", "mine.toml").code == 4  # the table ended long ago
    with Journal(load_settings().journal_url) as journal:
        beats = journal.heartbeats("mine")
        assert "watch" in beats and "forecast" not in beats
        assert [one.kind for one in journal.incidents("mine", open_only=True)] == ["ingest-failed"]


def test_init_overwrites_nothing_unless_told_to(call) -> None:
    Path("mine.toml").write_text("mine")
    ended = call("init", "mine")
    assert ended.code == 2 and "--force" in ended.err
    assert Path("mine.toml").read_text() == "mine"
    assert call("init", "mine", "--force").code == 0
    assert load_task("mine.toml").name == "mine"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--target", "yy"], "'yy'; did you mean 'y'"),
        (["--frequency", "7h"], "does not divide the day"),
        (["--horizon", "0h"], "horizon"),
        (["--timezone", "Europe/Dublyn"], "did you mean 'Europe/Dublin'"),
        (["--grid", "regulr"], "did you mean 'regular'"),
        (["--holidays", "Ireland"], "holidays"),
        (["--path", "tabel.csv"], "no such file"),
    ],
)
def test_init_names_an_option_that_cannot_be_and_writes_nothing(call, table, options: list[str], said: str) -> None:
    ended = call("init", "mine", *INIT, "--path", table.name, *options)
    assert ended.code == 2 and said in ended.err
    assert not Path("mine.toml").exists()


def test_three_mistakes_in_a_task_file_are_named_at_once_with_place_and_nearest_name(call, task_file) -> None:
    text = task_file.read_text().replace('target = "y"', 'target = "z"').replace("grid =", "gird =")
    task_file.write_text(re.sub(r'timezone = "[^"]*"', 'timezone = "Europe/Belrin"', text))
    ended = call("backtest", "--task", task_file)
    assert ended.code == 2
    assert "3 mistakes" in ended.err and "mine.toml" in ended.err
    assert "gird: there is no such field; did you mean 'grid'?" in ended.err
    assert "timezone: there is no time zone 'Europe/Belrin'; did you mean 'Europe/Berlin'?" in ended.err
    assert "target: 'z' is not one of [columns]" in ended.err


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("horizon", "0h", "horizon: '0h' is no time ahead"),
        ("frequency", "7h", "frequency: '7h' does not divide the day"),
        ("timezone", "Mars/Olympus", "timezone: there is no time zone 'Mars/Olympus'"),
    ],
)
def test_a_value_that_cannot_be_is_named(call, task_file, field: str, value: str, said: str) -> None:
    task_file.write_text(re.sub(rf'{field} = "[^"]*"', f'{field} = "{value}"', task_file.read_text()))
    ended = call("backtest", "--task", task_file)
    assert ended.code == 2 and said in ended.err


@pytest.fixture
def origins(tmp_path: Path):
    """Write a table of origins for --origins."""

    def write(*rows: tuple[str, datetime]) -> Path:
        path = tmp_path / "origins.parquet"
        pl.DataFrame(list(rows), schema=["series_id", "origin"], orient="row").write_parquet(path)
        return path

    return write


def test_backtest_writes_one_row_a_forecast_for_exactly_the_asked_origins(call, task_file, origins) -> None:
    last = START + (24 * DAYS - 1) * HOUR  # nothing came true of it yet
    asked = [("a", START + 800 * HOUR), ("b", START + 900 * HOUR), ("b", last)]
    ended = call("backtest", "--task", task_file, "--origins", origins(*asked), "--output", "out.parquet", "--json")
    assert ended.code == 0, ended.err
    rows = pl.read_parquet("out.parquet")
    assert rows.columns == COLUMNS
    assert rows.select("series_id", "origin").unique().sort("origin").rows() == asked
    assert rows["horizon"].to_list() == [1, 2] * len(asked)
    assert (rows["timestamp"] == rows["origin"] + HOUR * rows["horizon"]).all()
    assert rows.select(pl.col("value", "lower", "upper").is_not_null().all()).row(0) == (True, True, True)
    assert rows.filter(pl.col("origin") == last)["actual"].null_count() == 2
    (scores,) = ended.lines
    assert scores["n"] == 4 and [one["horizon"] for one in scores["horizons"]] == [1, 2]


@pytest.mark.parametrize(
    ("series", "origin", "said"),
    [
        ("aa", START + 800 * HOUR, "'aa'; did you mean 'a'"),
        ("a", START + 800 * HOUR + HOUR / 2, "2024-02-03 08:30"),
        ("a", START - HOUR, "2023-12-31 23:00"),
    ],
)
def test_an_origin_that_is_none_is_named(call, task_file, origins, series: str, origin: datetime, said: str) -> None:
    ended = call("backtest", "--task", task_file, "--origins", origins((series, origin)), "--output", "out.parquet")
    assert ended.code == 2 and said in ended.err
    assert not Path("out.parquet").exists()


def test_a_step_prints_one_line_and_with_json_one_object(call, task_file) -> None:
    moment = (START + DAYS * 24 * HOUR).isoformat()
    ended = call("ingest", "--task", task_file, "--now", moment)
    assert ended.code == 0 and len(ended.out.splitlines()) == 1 and "ingest" in ended.out
    (told,) = call("quality-check", "--task", task_file, "--now", moment, "--json").lines
    assert (told["step"], told["ok"]) == ("quality-check", True)
    assert told["summary"]["new"] == 2 * 24 * DAYS


def test_a_step_waits_for_another_process_that_runs_its_flow(call, task_file, monkeypatch) -> None:
    monkeypatch.setattr(pipeline, "PATIENCE", timedelta(seconds=0.1))
    call("ingest", "--task", task_file, "--now", (START + DAYS * 24 * HOUR).isoformat())
    (runs,) = Path.cwd().rglob("runs")
    with FileLock(runs.with_name("train.lock")):
        ended = call("quality-check", "--task", task_file)
    assert ended.code == 4 and "train.lock" in ended.err
    assert call("quality-check", "--task", task_file).code == 0


def test_a_step_without_now_goes_on_with_the_newest_run(call, task_file) -> None:
    moment = (START + DAYS * 24 * HOUR).isoformat()
    call("ingest", "--task", task_file, "--now", moment)
    assert call("quality-check", "--task", task_file).code == 0
    (told,) = call("transform", "--task", task_file, "--json").lines
    assert told["summary"]["rows"] == 2 * 24 * DAYS


def test_a_flow_prints_a_json_object_a_step_and_ends_with_the_one_that_failed(call, task_file) -> None:
    moment = START + DAYS * 24 * HOUR
    ended = call("run", "live", "--task", task_file, "--now", moment.isoformat(), "--json")
    assert ended.code == 3  # there is no champion
    assert [(one["step"], one["ok"]) for one in ended.lines] == [
        ("ingest", True),
        ("quality-check", True),
        ("forecast", False),
    ]
    assert "champion" in ended.lines[-1]["error"] and "forecastle run train" in ended.err


def test_live_ends_after_the_passes_it_was_given_with_the_code_of_the_last(call, task_file) -> None:
    ended = call("live", "--task", task_file, "--passes", 1, "--json")
    assert ended.code == 4
    assert [one["step"] for one in ended.lines][0] == "ingest"
    assert ended.lines[-1]["ok"] is False


def test_live_says_why_a_pass_failed(call, task_file) -> None:
    ended = call("live", "--task", task_file, "--passes", 1)
    assert "ingest" in ended.out and "Expected observations of task" in ended.err


def test_incidents_are_listed_by_a_tasks_name_or_its_file(call, task_file) -> None:
    with Journal(load_settings().journal_url) as journal:
        journal.open_incident("mine", "data-stale", "Nothing comes.", datetime(2024, 1, 1, tzinfo=UTC))
    for given, said in (("mine", "data-stale"), (task_file, "data-stale"), ("other", "No incidents")):
        assert said in call("incidents", "list", "--task", given).out
    assert call("incidents", "list", "--task", "gone.toml").code == 2


def test_init_takes_a_path_for_the_file_provider(call, task_file, tmp_path) -> None:
    ended = call("init", "other", "--path", tmp_path / "none.csv", "--target", "y")
    assert ended.code == 2 and "none.csv" in ended.err


def test_a_country_without_known_holidays_is_a_mistake_of_the_task(call, task_file) -> None:
    task_file.write_text(task_file.read_text().replace("[features]\n", "[features]\nholidays = 'ZZ'\n"))
    ended = call("backtest", "--task", task_file)
    assert ended.code == 2 and "no public holidays are known of 'ZZ'" in ended.err


def test_serve_names_a_port_that_is_taken(call, task_file) -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        ended = call("serve", "--tasks", task_file, "--port", door.getsockname()[1])
    assert ended.code == 2
    assert "--port" in ended.err and "Address already in use" in ended.err


def test_replay_answers_as_the_api_does_until_it_is_stopped_by_ctrl_c() -> None:
    process, address = _started("replay", "--from", "2013-12-01T12:00Z", "--speed", "0", "--port", "0")
    query = "latitude=40.69&longitude=-74.17&hourly=temperature_2m&past_days=1&forecast_days=1"
    hourly = json.loads(_get(f"{address}/v1/forecast?{query}"))["hourly"]
    known = [time for time, value in zip(hourly["time"], hourly["temperature_2m"], strict=True) if value is not None]
    assert len(hourly["time"]) == 48 and known[-1] == "2013-12-01T12:00"
    _, complaints = _stopped(process)
    assert "Traceback" not in complaints


def test_serve_says_where_it_serves_and_stops_by_ctrl_c(task_file) -> None:
    process, address = _started("serve", "--tasks", str(task_file), "--port", "0")
    assert json.loads(_get(f"{address}/health"))
    _, complaints = _stopped(process)
    assert "Traceback" not in complaints


def test_the_shipped_tasks_load(root: Path) -> None:
    for file in (root / "tasks").glob("*.toml"):
        assert load_task(file).name == tomllib.loads(file.read_text(encoding="utf-8"))["name"]


def _started(*words: str) -> tuple[subprocess.Popen[str], str]:
    """Start a command that serves, and return its process and its address."""
    pipe = subprocess.PIPE
    program = [sys.executable, "-u", "-m", "forecastle", *words]
    process = subprocess.Popen(program, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found is not None, process.communicate()
    return process, found[0]


def _get(url: str) -> bytes:
    """Return what a service that has just said its address answers."""
    until = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def _stopped(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    said, complaints = process.communicate(timeout=20)
    assert process.returncode in (0, 130), complaints
    return said, complaints
