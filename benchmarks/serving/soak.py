"""Half the peak for as long as asked, champions swapped meanwhile: ``python -m benchmarks.serving.soak --minutes 60``.

Two champions forecast different numbers from one request; every answer must be one of the two as a whole, none may
fail, and all must be in the journal at the end. Memory, without what others share, is
looked at after the first tenth and at the end.

Meanwhile the source is at fault: every few seconds it pushes what is no table, another kind, or what the gate refuses,
and must be told so. Where the journal is a database of its own (FORECASTLE_JOURNAL), ``--restart`` is the command that
restarts it, run half way.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.serving import servers, stage
from benchmarks.serving.load import measure
from forecastle.models import bundle, pointer
from forecastle.monitoring.journal import Journal
from forecastle.settings import Settings

WORKERS = 4


def main(arguments: list[str]) -> int:
    """Soak the service; return 1 where an answer was wrong, mixed or lost, or memory grew by more than 5 %."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--swap", type=float, default=300.0, help="seconds between two champions")
    parser.add_argument("--restart", default="", help="a command that restarts the journal's database")
    parser.add_argument("--home", type=Path, help="a folder that `prepare` has filled; default: one is made")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="forecastle-soak-") as folder:
        home = chosen.home or Path(folder)
        if chosen.home is None:
            stage.prepare(home, stage.now())
        found = soak(home, chosen.minutes * 60, chosen.swap, shlex.split(chosen.restart))
    print(json.dumps(found))
    return 0 if not found["wrong"] and not found["lost"] and found["growth"] <= 0.05 else 1


def soak(home: Path, seconds: float, swap_every: float, restart: Sequence[str] = ()) -> dict[str, Any]:
    """Return what came of it: answers, wrong ones, lost ones, faults that were refused, by what share memory grew."""
    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    one, body = stage.task("boosted"), stage.bodies(stage.now())["one"]
    models = _two_champions(settings, home)
    with Journal(settings.journal_url) as journal:
        before = journal.predictions(one.name)
    with servers.forecastle(home, one.name) as server:
        peak = measure(server, f"/v1/tasks/{one.name}/predict", WORKERS, 3, body)
        pause = WORKERS / (peak.per_second / 2)
        stop, told = threading.Event(), Told()
        threads = [
            threading.Thread(target=_ask, args=(server.address, one.name, body, pause, stop, told))
            for _ in range(WORKERS)
        ]
        threads.append(threading.Thread(target=_push_faults, args=(server.address, one.name, stop, told)))
        began = time.monotonic()
        for thread in threads:
            thread.start()
        memory, swaps, restarts = 0.0, 0, 0
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(min(1.0, seconds / 10))
            if passed >= seconds / 10 and not memory:
                memory = server.own_mib()
            if restart and not restarts and passed >= seconds / 2:
                subprocess.run(restart, check=True, stdout=subprocess.DEVNULL)
                restarts += 1
            if passed >= (swaps + 1) * swap_every:
                swaps += 1
                known = pointer.ModelVersion(one.name, str(1 + swaps % 2), "soak", "0" * 32)
                pointer.publish(settings, one, known, models[swaps % 2], stage.now())
        stop.set()
        for thread in threads:
            thread.join()
        grown = server.own_mib() / (memory or server.own_mib()) - 1
    with Journal(settings.journal_url) as journal:
        kept = journal.predictions(one.name) - before
    answered = told.count + round(peak.per_second * 3)
    kinds = {version: len(answers) for version, answers in told.kinds.items()}
    wrong = told.faults + sum(count - 1 for count in kinds.values())
    return {
        "answers": told.count,
        "swaps": swaps,
        "restarts": restarts,
        "faults_refused": told.refused,
        "wrong": wrong,
        "said": sorted(told.said),
        "lost": max(told.count - kept, 0),
        "journalled": kept,
        "with_warm_up_about": answered,
        "growth": round(grown, 4),
    }


class Told:
    """What was answered: how often, by which champion what, and how often not."""

    def __init__(self) -> None:
        self.count = self.faults = self.refused = 0
        self.kinds: dict[str, set[str]] = {}
        self.said: set[str] = set()
        self._lock = threading.Lock()

    def note(self, status: int, content: bytes) -> None:
        with self._lock:
            self.count += 1
            if status != 200:
                self.faults += 1
                self.said.add(f"{status}: {content[:300]!r}")
                return
            answer = json.loads(content)
            forecasts = json.dumps(answer["predictions"][0]["forecasts"])
            self.kinds.setdefault(answer["model_version"], set()).add(forecasts)


def _ask(address: str, task: str, body: bytes, pause: float, stop: threading.Event, told: Told) -> None:
    place = urlsplit(address)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    while not stop.is_set():
        began = time.monotonic()
        connection.request("POST", f"/v1/tasks/{task}/predict", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        told.note(answer.status, answer.read())
        stop.wait(max(pause - (time.monotonic() - began), 0))
    connection.close()


def _push_faults(address: str, task: str, stop: threading.Event, told: Told) -> None:
    """Push what a broken source would; it is refused, or its values are masked, and it changes no answer."""
    place = urlsplit(address)
    assert place.hostname is not None
    columns = ",".join(stage.COLUMNS)
    wild = f"series_id,timestamp,{columns}\nJFK,2020-01-01T00:00:00Z,{','.join(['9e9'] * len(stage.COLUMNS))}\n"
    bodies = [("text/csv", "<html>503</html>"), ("application/json", "[{"), ("text/html", "none"), ("text/csv", wild)]
    number = 0
    while not stop.wait(2):
        kind, body = bodies[number % len(bodies)]
        number += 1
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.request("POST", f"/v1/tasks/{task}/observations", body, {"content-type": kind})
        answer = connection.getresponse()
        status, content = answer.status, answer.read()
        connection.close()
        if status in (400, 409, 415, 422) or (body == wild and status == 200 and json.loads(content)["masked"]):
            told.refused += 1
        else:
            told.faults += 1
            told.said.add(f"{status} to a push of {body[:20]!r}")


def _two_champions(settings: Settings, home: Path) -> list[Path]:
    """Return the bundles of two champions of the first task: its own, and the blend, under the versions 1 and 2."""
    found = []
    for name in ("boosted", "blended"):
        published = pointer.published(settings, stage.task(name))
        assert published is not None
        folder = home / "soak" / name
        from dataclasses import replace

        made = replace(bundle.load(published.folder, published.version), task="boosted")
        found.append(bundle.save(made, folder))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
