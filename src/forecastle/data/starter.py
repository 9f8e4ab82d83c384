"""The commented task file that ``forecastle init`` writes: one for an API, or one fitted to a table of your own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import polars as pl

from forecastle.data import first_look
from forecastle.data.providers import file
from forecastle.duration import DAY, parse_duration
from forecastle.errors import TaskError, plainly
from forecastle.frame import KEYS, TIMESTAMP
from forecastle.task import Task, duration_text, make_task, nearest

Line = tuple[str, str]  # what the file says, and the comment beside it
HOUR, MOSTLY = "1h", 0.5  # the step where none is told by that share of a table's rows
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

OPEN_METEO = """\
# What is forecast. Every line with a value that is not obvious says why it is there; delete what you do not need.
name = {name}
domain = "environmental"                 # environmental, financial or logistics
description = "Air temperature, 1 to 6 hours ahead"
timezone = "Europe/Berlin"               # calendars (hour of the day, weekday, holidays) are read in this zone
frequency = "1h"                         # one step; it divides the day
horizon = "6h"                           # how far ahead: 6 steps
target = "temperature_2m"                # one of [columns]

[source]
provider = "open-meteo"                  # no key needed; `forecastle init NAME --provider file` reads your own table
start = 2024-01-01                       # the first day of history to collect
instantaneous = true                     # a value is a reading at its timestamp, not a mean over the step after it

[[series]]                               # one place each; add as many as you like
id = "Berlin"
latitude = 52.52
longitude = 13.41

# Every measured column: its unit as the API names it, and the range it can be in. What lies outside is masked
# (becomes null and is recorded); outside = "fail" stops the run, outside = "warn" only says so.
[columns.temperature_2m]
unit = "°C"
minimum = -60
maximum = 60

[columns.relative_humidity_2m]           # columns beside the target are covariates, used at their lags
unit = "%"
minimum = 0
maximum = 100

[columns.wind_speed_10m]
unit = "m/s"
minimum = 0
maximum = 75

[gate]                                   # the mandatory quality gate judges every fetched window
window = "48h"
max_null_share = 0.01                    # of each column, unless the column says otherwise

[features]
season = 24                              # steps after which the day repeats
holidays = "DE"                          # public holidays as a feature; an ISO country code
"""

FILE_HEAD = """\
# What is forecast. The table was looked at when this file was written; where a number comes from it, the line says so.
"""


def open_meteo_task(name: str) -> str:
    """Return a commented task file for the Open-Meteo provider. Raises TaskError where the name cannot be one."""
    make_name(name)
    return OPEN_METEO.format(name=_quoted(name))


def file_task(
    name: str,
    path: Path,
    folder: Path,
    target: str,
    frequency: str | None = None,
    horizon: str | None = None,
    timezone: str = "UTC",
    covariates: Sequence[str] | None = None,
    season: int | None = None,
    grid: str = "regular",
    holidays: str | None = None,
    domain: str = "environmental",
    now: datetime | None = None,
) -> tuple[str, list[str]]:
    """Return a commented task file for a CSV or Parquet table, to be written into ``folder``, and what is to be known
    of the table besides; of its end, where ``now`` is given.

    The step defaults to how far apart the rows mostly lie (an hour where that divides no day), the horizon to six
    steps, of a day seven. Covariates default to none. The null share the gate accepts is what the table shows, rounded
    up. Raises TaskError where a column is not in the table (naming the nearest) or a value cannot be, AnswerChanged
    where a time or value of the table is none.
    """
    schema = _schema(path)
    numbers = [column for column in schema if column not in KEYS]
    chosen = [target, *(one for one in covariates or () if one != target)]
    wrong = [f"{one!r}{nearest(one, numbers)}" for one in chosen if one not in numbers]
    missing = [f"column {key!r}" for key in KEYS if key not in schema]
    if wrong or missing:
        raise TaskError(
            f"columns of {path} (it has {', '.join((*KEYS, *numbers)) if not missing else ', '.join(numbers)})",
            "; ".join([*wrong, *(f"no {one}" for one in missing)]),
            _advice(list(schema)) if missing else "Name columns the table has.",
        )
    absolute = path.resolve()
    inside = absolute.is_relative_to(folder.resolve())
    data: dict[str, object] = {
        "name": name,
        "domain": domain,
        "timezone": timezone,
        **(_lengths(HOUR, None) if frequency is None else _lengths(frequency, horizon)),
        "grid": grid,
        "target": target,
        "source": {"provider": "file", "path": str(absolute)},
        "features": {"season": season, "holidays": holidays},
        "columns": {one: {} for one in chosen},
    }
    asked = "the arguments of forecastle init"
    task = make_task(data, where=asked)
    rows = file.observations(task)
    guessed = None
    if frequency is None:
        step, guessed = _read_off(rows)
        task = make_task(data | _lengths(step, horizon), where=f"{asked} ({guessed})" if guessed else asked)
    shares = rows.select(pl.col(one).is_null().mean() for one in chosen).row(0)
    shown = str(absolute.relative_to(folder.resolve()) if inside else absolute)
    lines: list[Line] = [
        (f"name = {_quoted(name)}", ""),
        (f"domain = {_quoted(domain)}", "environmental, financial or logistics"),
        (f"timezone = {_quoted(timezone)}", "calendars (hour of the day, weekday, holidays) are read in this zone"),
        (f"frequency = {_quoted(duration_text(task.frequency))}", "one step; it divides the day"),
        (f"horizon = {_quoted(duration_text(task.horizon))}", f"how far ahead: {task.steps} steps"),
        (f"grid = {_quoted(grid)}", '"regular": by the clock; "observed": the next observed row (markets that close)'),
        (f"target = {_quoted(target)}", "one of [columns]"),
        ("", ""),
        ("[source]", ""),
        ('provider = "file"', ""),
        (f"path = {_quoted(shown)}", "a long table: series_id, timestamp (UTC), and a number in every other column"),
        ("", ""),
        ("[features]", ""),
        _season(season, task),
        (f"holidays = {_quoted(holidays)}", "") if holidays else ('# holidays = "DE"', "a country code"),
        ("", ""),
        ("# Every measured column; give it a minimum and a maximum and the gate masks what lies outside.", ""),
        *(line for one, share in zip(chosen, shares, strict=True) for line in _column(one, share)),
    ]
    text = FILE_HEAD + "".join(f"{value:<36} # {why}\n" if why else f"{value}\n" for value, why in lines[:-1])
    ended = first_look.ended(task, rows[TIMESTAMP].max(), now) if now is not None else None  # type: ignore[arg-type]
    notes = (
        None if guessed is None else f"{guessed[0].upper()}{guessed[1:]}.",
        first_look.unused(task, schema),
        first_look.zoneless(task, _times(path)),
        *first_look.spacing(task, rows),
        first_look.short(task, rows),
        ended,
    )
    return text, [one for one in notes if one is not None]


def _lengths(frequency: str, horizon: str | None) -> dict[str, str]:
    """Return the step and the horizon, which is some steps where none is given."""
    ahead = frequency
    with suppress(ValueError, OverflowError):  # of a step that cannot be, which make_task will say
        step = parse_duration(frequency)
        ahead = duration_text(step * (7 if step == DAY else 6))
    return {"frequency": frequency, "horizon": ahead if horizon is None else horizon}


def _read_off(rows: pl.DataFrame) -> tuple[str, str | None]:
    """Return the step that most of a table's rows lie apart, and where that was read off; an hour where none is."""
    found = first_look.usual_step(rows)
    if found is None or found[1] < MOSTLY or not first_look.makes_a_day(found[0]):
        return HOUR, None
    step = duration_text(found[0])
    return step, f"one step is {step}, for the rows mostly lie {step} apart ({found[1]:.0%}); --frequency names another"


def _advice(columns: Sequence[str]) -> str:
    """Return what to do about a table that lacks a key."""
    apart = next((one for one in ";\t|" if len(columns) == 1 and one in columns[0]), None)
    if apart is not None:
        return f"It seems to part its columns by {apart!r}: write it with commas."
    return (
        "Rename columns of the table: it needs series_id (what a row is about; the same name everywhere where there is "
        "but one), timestamp (such as 2026-11-26T13:00:00Z) and at least one number a row."
    )


def _season(given: int | None, task: Task) -> Line:
    """Return the line of the season: of steps of a day it is a week, or seasonal naive would be the last value
    again."""
    a_day = max(1, round(DAY / task.frequency))
    if given is None and task.frequency == DAY:
        return f"season = {5 if task.grid == 'observed' else 7}", "a week; by default it would be a day: one step"
    return (f"season = {given}", "") if given else (f"# season = {a_day}", "default: the steps of a day")


def make_name(name: str) -> str:
    """Return the name if a task can bear it, else raise TaskError."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) or len(name) > 60:
        raise TaskError(
            "a name of small letters, digits and hyphens, such as 'my-task'", repr(name), "Choose another name."
        )
    return name


def _schema(path: Path) -> dict[str, pl.DataType]:
    if path.suffix not in (".csv", ".parquet") or not path.is_file():
        found = "no such file" if path.suffix in (".csv", ".parquet") else f"a file named {path.name}"
        raise TaskError(f"a .csv or .parquet table at {path}", found, "Give its path with --path FILE.")
    try:
        if path.suffix == ".parquet":
            return dict(pl.read_parquet_schema(path))
        missing = [written for one in file.MISSING for written in {one, one.upper(), one.title(), "NaN"}]
        return dict(pl.scan_csv(path, infer_schema_length=None, glob=False, null_values=missing).collect_schema())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TaskError(f"a readable table at {path}", plainly(error), "Mend the file.") from None


def _times(path: Path) -> pl.Series:
    """Return the times as the table writes them."""
    table = pl.scan_parquet(path, glob=False)
    if path.suffix == ".csv":
        table = pl.scan_csv(path, infer_schema=False, glob=False)
    return table.select(TIMESTAMP).collect().to_series()


def _column(name: str, null_share: float | None) -> Iterator[Line]:
    """Yield the lines of a column's table, and an empty one behind it."""
    yield f"[columns.{name if _BARE_KEY.fullmatch(name) else _quoted(name)}]", ""
    if null_share and null_share > 0.01:
        share = math.ceil(null_share * 100 + 1) / 100
        yield f"max_null_share = {min(share, 1.0):.2f}", f"the table shows {null_share:.1%}"
    yield "", ""


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
