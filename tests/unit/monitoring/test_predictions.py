"""Forecasts on request on their way into the journal: at once taken, soon written, and not lost where it is down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecastle.errors import StorageUnavailable
from forecastle.monitoring import predictions
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import PredictionLog, asked

NOW = datetime(2013, 12, 16, 19, 10, tzinfo=UTC)


def row(name: str) -> dict[str, object]:
    return {
        "prediction_id": name,
        "task": "t",
        "series_id": "JFK",
        "origin": NOW.replace(minute=0),
        "issued_at": NOW,
        "model_version": "3",
        "data_version": "9f",
        "estimator": "blend",
        "drifted": True,
        "degraded": False,
        "data_age": 600.0,
        "feature_digest": "0" * 32,
        "forecasts": '[{"horizon":1,"value":4.1}]',
    }


class Down:
    """A journal that does not answer until it is mended."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.mended = journal, False

    def __call__(self) -> Journal:
        if not self.mended:
            raise StorageUnavailable("the journal to answer", "nothing", "Wait.")
        return self.journal


@pytest.fixture
def journal(tmp_path: Path):
    with Journal(f"sqlite:///{tmp_path / 'journal.db'}") as made:
        yield made


def names(journal: Journal) -> set[str]:
    return {str(one["prediction_id"]) for one in asked(journal, "t")}


def test_what_is_taken_is_in_the_journal_once_the_log_is_flushed_whatever_was_told_twice(journal, tmp_path) -> None:
    log = PredictionLog(lambda: journal, tmp_path, every=3600)
    log.add([row("a"), row("b")])
    log.flush()
    log.add([row("b"), row("c")])
    log.close()
    assert names(journal) == {"a", "b", "c"}
    assert next(one for one in asked(journal, "t") if one["prediction_id"] == "a") == row("a")
    assert journal.drift_flags("t", 10, NOW) == (True, True, True)


def test_it_is_flushed_by_itself_soon_after(journal, tmp_path) -> None:
    log = PredictionLog(lambda: journal, tmp_path, every=0.01)
    log.add([row("a")])
    until = time.monotonic() + 60
    while not names(journal) and time.monotonic() < until:
        time.sleep(0.01)
    assert names(journal) == {"a"}
    log.close()


def test_while_the_journal_is_down_rows_wait_on_the_disk_and_any_process_brings_them_in(journal, tmp_path) -> None:
    down = Down(journal)
    log = PredictionLog(down, tmp_path, every=3600)
    log.add([row("a")])
    log.flush()
    log.add([row("b")])
    log.flush()
    assert len(list((tmp_path / predictions.FOLDER).iterdir())) == 2
    assert names(journal) == set()
    another = PredictionLog(lambda: journal, tmp_path, every=3600)
    another.flush()
    assert names(journal) == {"a", "b"}
    assert list((tmp_path / predictions.FOLDER).iterdir()) == []
    assert next(one for one in asked(journal, "t") if one["prediction_id"] == "b") == row("b")


class Hanging:
    """A journal that answers nothing and refuses nothing until it is let go."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.asked, self.let_go = journal, threading.Event(), threading.Event()

    def __call__(self) -> Journal:
        self.asked.set()
        assert self.let_go.wait(60)
        return self.journal


def lines(folder: Path, suffix: str = predictions.SUFFIX) -> list[str]:
    """Return the ids of what lies in the files that were set aside, in the order of their lines."""
    files = sorted((folder / predictions.FOLDER).glob(f"*{suffix}"))
    return [json.loads(line)["prediction_id"] for file in files for line in file.read_text().splitlines()]


def until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


def test_while_the_journal_hangs_what_it_was_given_and_what_comes_after_is_on_the_disk(journal, tmp_path) -> None:
    hanging = Hanging(journal)
    log = PredictionLog(hanging, tmp_path, every=0.01)
    log.add([row("a")])
    assert hanging.asked.wait(60)
    log.add([row("b")])
    assert until(lambda: set(lines(tmp_path)) == {"a", "b"})
    log.add([row("c")])
    assert until(lambda: set(lines(tmp_path)) == {"a", "b", "c"})
    assert names(journal) == set()
    hanging.let_go.set()
    assert until(lambda: names(journal) == {"a", "b", "c"} and not lines(tmp_path))
    log.close()


def test_told_to_stop_while_the_journal_hangs_it_stops_and_what_waited_is_on_the_disk(
    journal, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(predictions, "STOP_SECONDS", 0.05)
    hanging = Hanging(journal)
    log = PredictionLog(hanging, tmp_path, every=3600)
    log.add([row("a")])
    log.close()
    assert lines(tmp_path) == ["a"]
    hanging.let_go.set()


@pytest.mark.parametrize("ill", [None, 2**80], ids=["of what it lacks", "of a size"])
def test_a_row_that_no_journal_can_hold_is_kept_beside_and_holds_up_no_other(journal, tmp_path, ill) -> None:
    log = PredictionLog(lambda: journal, tmp_path, every=3600)
    log.add([row("a"), row("b"), row("ill") | {"series_id": ill}, row("c")])
    log.flush()
    log.add([row("d")])
    log.close()
    assert names(journal) == {"a", "b", "c", "d"}
    assert lines(tmp_path) == []
    assert lines(tmp_path, predictions.REFUSED) == ["ill"]


@pytest.mark.parametrize("content", ["{", "[]\n", '{"prediction_id": "x"}\n', "\x00\x00", "\xff"])
def test_a_file_that_cannot_be_read_is_moved_aside_and_holds_up_nothing(journal, tmp_path, content) -> None:
    folder = tmp_path / predictions.FOLDER
    folder.mkdir()
    (folder / "0.jsonl").write_text(content, encoding="latin-1")
    log = PredictionLog(Down(journal), tmp_path, every=3600)
    log.add([row("a")])
    log.flush()
    log = PredictionLog(lambda: journal, tmp_path, every=3600)
    log.add([row("b")])
    log.close()
    assert names(journal) == {"a", "b"}
    assert [one.name for one in folder.iterdir()] == ["0.refused"]
    assert (folder / "0.refused").read_text(encoding="latin-1") == content


def test_what_is_journalled_is_not_set_aside_though_a_file_cannot_be_brought_in(journal, tmp_path) -> None:
    log = PredictionLog(Down(journal), tmp_path, every=3600)
    log.add([row("a")])
    log.flush()

    class Half(Journal):
        def record_predictions(self, rows) -> None:
            if rows[0]["prediction_id"] == "a":
                raise StorageUnavailable("the journal to answer", "nothing", "Wait.")
            super().record_predictions(rows)

    with Half(journal.engine.url.render_as_string()) as half:
        log = PredictionLog(lambda: half, tmp_path, every=3600)
        log.add([row("b")])
        log.flush()
        log.add([row("c")])
        log.flush()
    assert names(journal) == {"b", "c"}
    assert lines(tmp_path) == ["a"]


def test_where_neither_journal_nor_disk_takes_any_rows_wait_in_memory_up_to_a_bound(
    journal, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(predictions, "MOST_WAITING", 2)
    (tmp_path / predictions.FOLDER).write_text("not a folder")
    down = Down(journal)
    log = PredictionLog(down, tmp_path, every=3600)
    log.add([row("a"), row("b")])
    log.flush()
    with pytest.raises(StorageUnavailable, match="to journal what is answered"):
        log.add([row("c")])
    down.mended = True
    (tmp_path / predictions.FOLDER).unlink()
    log.flush()
    log.add([row("c")])
    log.close()
    assert names(journal) == {"a", "b", "c"}


def test_a_process_that_is_killed_loses_no_row_that_was_taken_a_flush_ago(journal, tmp_path) -> None:
    program = f"""
import time, sys
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_predictions import row
from forecastle.monitoring.journal import Journal
from forecastle.monitoring.predictions import PredictionLog
journal = Journal({journal.engine.url.render_as_string()!r})
log = PredictionLog(lambda: journal, Path({str(tmp_path)!r}), every=0.2)
for number in range(100_000):
    log.add([row(f"n{{number}}")])
    print(number, flush=True)
    time.sleep(0.002)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(300)]
    until = time.monotonic() + 60
    while f"n{told[100]}" not in names(journal) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    kept = sorted(int(name[1:]) for name in names(journal))
    assert kept == list(range(len(kept))), "what was written is whole"
    assert len(kept) > 100
