"""A series in full, by fg-data-profiling: minimal, time-series mode, in a process of its own.

The library takes seconds to import, hundreds of megabytes and as long as it likes; a process of its own gives them
back, can be stopped, and cannot take the training run down with it. What it fails of is said, never passed over.

    python -m forecastle.data.full_profile FOLDER SECONDS    reads <n>.parquet and titles.json, writes <n>.html
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forecastle.frame import write_bytes
from forecastle.settings import apply_library_defaults

if TYPE_CHECKING:
    import polars as pl

    from forecastle.task import Task

MOST_SERIES, MOST_COLUMNS, MOST_ROWS = 12, 24, 20_000  # in full: the first series and columns, the newest rows
ENOUGH_SECONDS = 15.0  # after which no further series is begun
MOST_SECONDS = 45.0  # after which the process is stopped
TITLES = "titles.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """The pages that were made (series and file name), and why others were not; empty where all were."""

    pages: tuple[tuple[str, str], ...]
    reason: str


def make(folder: Path, task: Task, tables: Mapping[str, pl.DataFrame]) -> Made:
    """Make a page for each series' observations (in time order) in a folder; bounded in series, rows and seconds.

    Whatever the library fails of is logged and returned as the reason; pages made until then stay.
    """
    apply_library_defaults()
    names = list(tables)[:MOST_SERIES]
    columns = list(task.columns)[:MOST_COLUMNS]
    with tempfile.TemporaryDirectory(prefix="forecastle-profile-") as place:
        for number, name in enumerate(names):
            tables[name].select("timestamp", *columns).tail(MOST_ROWS).write_parquet(Path(place) / f"{number}.parquet")
        titles = [f"{task.name}: {name}" for name in names]
        (Path(place) / TITLES).write_text(json.dumps(titles), encoding="utf-8")
        failure = _run(place)
        pages = []
        for number, name in enumerate(names):
            made = Path(place) / f"{number}.html"
            if made.exists():
                write_bytes(folder / made.name, made.read_bytes())
                pages.append((name, made.name))
    if failure:
        log.warning("No full profile of task %s: %s", task.name, failure)
        return Made(tuple(pages), failure)
    return Made(tuple(pages), _left_out(len(tables), len(pages), len(task.columns)))


def _left_out(series: int, made: int, columns: int) -> str:
    said = []
    if made < series:
        said.append(f"The first {made} of {series} series are shown in full.")
    if columns > MOST_COLUMNS:
        said.append(f"The first {MOST_COLUMNS} of {columns} columns are.")
    return " ".join(said)


def _run(place: str) -> str:
    """Run the library over a folder; return why it failed, or nothing."""
    command = [sys.executable, "-W", "ignore", "-m", "forecastle.data.full_profile", place, str(ENOUGH_SECONDS)]
    # Its standard input ends with this process, however that ends, and it with its standard input.
    reader, writer = os.pipe()
    try:
        done = subprocess.run(command, stdin=reader, capture_output=True, text=True, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        return f"fg-data-profiling took more than {MOST_SECONDS:.0f} s and was stopped."
    except OSError as error:
        return f"fg-data-profiling could not be started: {error}"
    finally:
        os.close(reader)
        os.close(writer)
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if last.startswith("ModuleNotFoundError"):
        return f"The extra `profile` is not installed ({last})."
    return f"fg-data-profiling failed: {last}"


def _profile(place: Path, enough: float) -> None:
    """Write a page for each table of a folder until so many seconds have passed."""
    began = time.monotonic()
    import pandas as pd
    from data_profiling import ProfileReport  # type: ignore[import-untyped]  # it ships no types
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    # Each drawing that is saved would be drawn once more, for a window that is not there.
    FigureCanvasAgg.draw_idle = lambda canvas, *args, **kwargs: None  # type: ignore[method-assign]
    titles = json.loads((place / TITLES).read_text(encoding="utf-8"))
    for number, title in enumerate(titles):
        if number and time.monotonic() - began > enough:
            return
        table = pd.read_parquet(place / f"{number}.parquet").set_index("timestamp")
        # The library puts the title into the page as it is, and undoes what is escaped.
        plain = re.sub("[<>&\"']", " ", title)
        report = ProfileReport(table, title=plain, tsmode=True, minimal=True, progress_bar=False)
        write_bytes(place / f"{number}.html", report.to_html().encode())


def _end_with_parent() -> None:
    os.read(0, 1)  # not through sys.stdin, whose lock the interpreter would want at its end
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _profile(Path(sys.argv[1]), float(sys.argv[2]))
