"""The running server: it swaps champions under load, and stops without losing what it is at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from forecastle.errors import SettingsError
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import asked
from forecastle.serving.server import running, serve_forever

PREDICT = "/v1/tasks/nyc-temperature/predict"
HOUR = timedelta(hours=1)


def request(task, made_up) -> dict[str, object]:
    last = made_up.NOW.replace(minute=0)
    times = [last - one * HOUR for one in range(30)]
    values = {task.target: [made_up.truth("JFK", at) for at in times]}
    return {"series": [{"series_id": "JFK", "timestamps": [at.isoformat() for at in times], "values": values}]}


def test_no_answer_fails_or_mixes_models_while_champions_change(filled, task, clock, made_up) -> None:
    body = request(task, made_up)
    settings = filled.model_copy(update={"port": 0})
    made_up.publish_champion(filled, task, "4", member="seasonal_naive")
    with running(settings, [task], clock) as address:
        with httpx.Client(base_url=address) as client:
            expected = {}
            for version, member in (("4", "seasonal_naive"), ("3", "persistence")):
                made_up.publish_champion(filled, task, version, member=member)
                expected[version] = answered(client, body, version)
        assert expected["3"] != expected["4"]
        stop = threading.Event()

        def ask() -> list[dict]:
            with httpx.Client(base_url=address) as client:
                found = []
                while not stop.is_set():
                    answer = client.post(PREDICT, json=body)
                    assert answer.status_code == 200, answer.text
                    found.append(answer.json())
                return found

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask) for _ in range(4)]
            for number in range(6):
                version, member = (("4", "seasonal_naive"), ("3", "persistence"))[number % 2]
                made_up.publish_champion(filled, task, version, member=member)
                with httpx.Client(base_url=address) as client:
                    answered(client, body, version)
            stop.set()
            answers = [one for each in asking for one in each.result()]
        assert {one["model_version"] for one in answers} == {"3", "4"}
        for one in answers:
            assert one["predictions"][0]["forecasts"] == expected[one["model_version"]]
    with Journal(filled.journal_url) as journal:
        kept = {one["prediction_id"]: one for one in asked(journal, task.name, 1_000_000)}
    for one in answers:
        row = kept[one["predictions"][0]["prediction_id"]]
        assert row["model_version"] == one["model_version"]
        assert json.loads(row["forecasts"]) == one["predictions"][0]["forecasts"]


def answered(client: httpx.Client, body: dict, version: str) -> list[dict]:
    """Ask until a champion answers, and return its forecasts."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        answer = client.post(PREDICT, json=body)
        assert answer.status_code == 200, answer.text
        if answer.json()["model_version"] == version:
            return answer.json()["predictions"][0]["forecasts"]
        time.sleep(0.05)
    raise AssertionError(f"champion {version} was never picked up")


def test_told_to_stop_it_answers_what_is_under_way_and_journals_what_it_answered(
    filled, task, made_up, root, tmp_path
) -> None:
    program = f"""
import runpy
from forecastle.serving import server
from forecastle.settings import Settings
from forecastle.task import load_task
made_up = runpy.run_path({str(Path(__file__).with_name("made_up.py"))!r})
task = load_task({str(root / "tasks" / "nyc-temperature.toml")!r})
app = server.create_app(Settings(home={str(filled.home)!r}, _env_file=None), [task], lambda: made_up["NOW"])
with server.listen("127.0.0.1", 0) as (door, address):
    print(address, flush=True)
    server.serve(app, door)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    content = json.dumps(request(task, made_up)).encode()
    begun, go_on = threading.Event(), threading.Event()

    def slowly():
        yield content[:100]
        begun.set()
        go_on.wait(60)
        yield content[100:]

    def ask() -> httpx.Response:
        headers = {"content-type": "application/json"}
        return httpx.post(address + PREDICT, content=slowly(), headers=headers, timeout=60)

    with ThreadPoolExecutor(1) as pool:
        httpx.get(address + "/health", timeout=60)
        under_way = pool.submit(ask)
        assert begun.wait(60)
        time.sleep(0.5)  # for the first part to arrive
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.5)
        go_on.set()
        answer = under_way.result()
    assert answer.status_code == 200
    assert process.wait(60) in (0, -signal.SIGTERM)
    process.stdout.close()
    with Journal(filled.journal_url) as journal:
        kept = {one["prediction_id"] for one in asked(journal, task.name)}
    assert answer.json()["predictions"][0]["prediction_id"] in kept


def test_it_refuses_to_listen_for_others_without_keys(filled, task) -> None:
    with pytest.raises(SettingsError, match="API keys"):
        serve_forever(filled.model_copy(update={"host": "0.0.0.0", "port": 0}), [task], print)
