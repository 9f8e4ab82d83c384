"""A task proposed from one answer of an API: what the answer shows is declared, and the task reads that answer."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from forecastle.cli import main
from forecastle.data.proposal import look, propose, request_for
from forecastle.errors import AnswerChanged, TaskError
from forecastle.task import Task, load_task, make_task

HOURS = [f"2024-01-01T{hour:02}:00:00Z" for hour in range(24)]
STATIONS = {
    "status": "ok",
    "data": {
        "readings": [
            {"station": name, "at": at, "lat": 52.5, "air": {"o3": 20.5, "pm-10": None if hour == 3 else 11}}
            for hour, at in enumerate(HOURS)
            for name in ("north", "south")
        ]
    },
}
CANDLES = [
    [1_700_000_000_000 + step * 300_000, "37000.1", "12", 1_700_000_299_999 + step * 300_000] for step in range(9)
]
PRESENT = {"dt": 1_700_000_000, "main": {"temp": 3.5, "humidity": 80}, "name": "London"}


def proposed(answer: Any, url: str = "https://api.example.org/v1/readings") -> Task:
    return make_task(tomllib.loads(propose("mine", url, json.dumps(answer).encode())[0]))


def test_rows_times_series_numbers_and_step_are_found_wherever_they_lie() -> None:
    task = proposed(STATIONS)
    declared = task.source.http_json
    assert declared is not None
    assert (declared.rows, declared.time, declared.series, declared.calls) == ("data.readings", "at", "station", "all")
    assert declared.values == {"o3": "air.o3", "pm_10": 'air."pm-10"'}
    assert [one.id for one in task.series] == ["north", "south"]
    assert (task.target, task.covariates, task.steps) == ("o3", ("pm_10",), 6)


def test_lists_of_numbers_and_text_of_numbers_are_rows_too() -> None:
    task = proposed(CANDLES)
    declared = task.source.http_json
    assert declared is not None
    assert (declared.rows, declared.time, declared.time_format) == ("@", "[0]", "ms")
    assert declared.values == {"value_1": "[1]", "value_2": "[2]"}  # the candle's end is a time, and no value
    assert task.frequency.total_seconds() == 300


def test_an_answer_that_is_one_row_is_a_source_of_the_present_alone() -> None:
    task = proposed(PRESENT)
    declared = task.source.http_json
    assert declared is not None and declared.present
    assert (declared.rows, declared.time_format) == ("[@]", "s")
    assert declared.values == {"temp": "main.temp", "humidity": "main.humidity"}


@pytest.mark.parametrize(("answer", "rows"), [(STATIONS, 48), (CANDLES, 9), (PRESENT, 1)])
def test_the_proposal_reads_every_row_of_the_answer_it_was_made_from(answer: Any, rows: int) -> None:
    assert propose("mine", "https://api.example.org/v1", json.dumps(answer).encode())[1] == rows


def test_bounds_of_the_window_are_filled_in_and_a_key_is_never_written() -> None:
    url = "https://api.example.org/r?from=2024-01-01&until=2024-01-02T00:00Z&endTime=1700000000000&q={a}&apikey=s3cret"
    text, _ = propose("mine", url, json.dumps(STATIONS).encode())
    declared = make_task(tomllib.loads(text)).source.http_json
    assert declared is not None and declared.secret is not None
    assert declared.params == {"from": "{start_date}", "until": "{end_iso}", "endTime": "{end_ms}", "q": "{{a}}"}
    assert (declared.secret.param, declared.secret.setting) == ("apikey", "http_json_key")
    assert "s3cret" not in text and "s3cret" not in request_for(url).address


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"rows": []}, {"rows": [{"at": HOURS[0], "name": "a"}]}, {"rows": [{"value": 3}]}, [1, 2], "text", None],
)
def test_an_answer_without_rows_that_have_a_time_and_a_number_is_refused(answer: Any) -> None:
    assert look(answer) is None
    with pytest.raises(AnswerChanged, match="a list of rows with a time and a number"):
        propose("mine", "https://api.example.org/v1", json.dumps(answer).encode())


def test_a_name_that_no_task_can_bear_is_refused_first() -> None:
    with pytest.raises(TaskError):
        propose("My Task", "https://api.example.org/v1", b"[]")


@pytest.fixture
def api() -> Iterator[str]:
    """An API on loopback that wants a key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = "token=s3cret" in self.path
            self.send_response_only(200 if allowed else 401)
            self.end_headers()
            self.wfile.write(json.dumps(STATIONS if allowed else {}).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/readings"
        server.shutdown()


def test_init_asks_the_address_and_writes_a_task_that_loads(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "ozone", "--from-url", f"{api}?token=s3cret"]) == 0
    said = capsys.readouterr()
    assert "reads 48 rows" in said.out and "s3cret" not in said.out + said.err
    assert load_task(tmp_path / "ozone.toml").target == "o3"
    assert "s3cret" not in (tmp_path / "ozone.toml").read_text(encoding="utf-8")
    assert main(["init", "other", "--from-url", api]) == 4
    assert "status 401" in capsys.readouterr().err and not (tmp_path / "other.toml").exists()
    assert main(["init", "other", "--from-url", "nonsense"]) == 2
