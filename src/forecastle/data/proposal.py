"""A task for a JSON API, proposed from one answer of it: where its rows, times, series and numbers seem to be.

What is proposed is only what was seen. It is written as a commented task file, loaded, and held against the very answer
before anybody gets it; a key of the address is named in it as a parameter and is not in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from forecastle.data.providers import http_json
from forecastle.data.providers.answers import read_json
from forecastle.data.starter import make_name
from forecastle.errors import AnswerChanged, TaskError
from forecastle.http import Request
from forecastle.task import duration_text, make_task

Path = tuple[str | int, ...]  # to a place in an answer
Row = Mapping[Path, Any]

MOST_ROWS, MOST_DEPTH, MOST_COLUMNS, MOST_SERIES = 500, 6, 8, 50
HOUR = timedelta(hours=1)
TIMELY = re.compile(r"time|date|stamp|_at$|^ts$|^dt$|^t$", re.IGNORECASE)
NAMELY = re.compile(r"id$|station|symbol|name|code|sensor|series|ticker|place|city", re.IGNORECASE)
NO_VALUE = re.compile(r"^(id|lat|latitude|lon|lng|long|longitude|elevation|index|status|code)$", re.IGNORECASE)
SECRET = re.compile(r"^(api_?key|key|token|access_token|appid|app_id|apikey|auth)$", re.IGNORECASE)
WINDOW = {"start": re.compile(r"^(start|from|begin|since)", re.I), "end": re.compile(r"^(end|to$|until|to_)", re.I)}
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
SPANS = {"s": (946_684_800, 4_102_444_800), "ms": (946_684_800_000, 4_102_444_800_000)}  # the years 2000 to 2100
WANTED = "a list of rows with a time and a number each, or one such row"


@dataclass(frozen=True)
class Seen:
    """What an answer seems to be made of; ``names`` are the series it holds, where a row names its own."""

    rows: str
    time: str
    form: str
    series: str | None
    names: tuple[str, ...]
    values: dict[str, str]
    step: timedelta
    present: bool


def request_for(url: str) -> Request:
    """Return the call for an address as somebody wrote it; what looks like a key in it counts as secret."""
    given = urlsplit(url)
    params = dict(parse_qsl(given.query, keep_blank_values=True))
    return Request(_base(url), params, frozenset(name for name in params if SECRET.match(name)))


def propose(name: str, url: str, body: bytes) -> tuple[str, int]:
    """Return a commented task file for an API, and how many rows of this answer it reads.

    Raises AnswerChanged where nothing in it looks like rows with a time and a number.
    """
    make_name(name)
    request = request_for(url)
    seen = look(read_json(request, body))
    if seen is None:
        raise AnswerChanged(
            f"{WANTED}, from {request.source}",
            "none that could be recognised",
            "Declare it yourself: docs/howto-provider.md shows how.",
        )
    lines = list(_lines(name, request, seen))
    import tomllib

    text = HEAD + "".join(f"{value:<44} # {why}\n" if why else f"{value}\n" for value, why in lines)
    task = make_task(tomllib.loads(text), where="the proposal")
    asked = Request(request.url, request.params, request.secret_params, tuple(one.id for one in task.series))
    return text, http_json.parse(task, asked, body).height


def look(answer: Any) -> Seen | None:
    """Return what an answer seems to be made of: the longest list of rows that have a time and a number; else
    itself."""
    lists = sorted(_candidates(answer, ()), key=lambda pair: -len(pair[1]))
    for place, rows in lists:
        if (seen := _read(place, rows)) is not None:
            return seen
    return _read(None, [answer]) if isinstance(answer, dict) else None


HEAD = """\
# Proposed from one answer of the API; look at every line before you trust it. What a field means: docs/task-file.md
"""


def _lines(name: str, request: Request, seen: Seen) -> Iterator[tuple[str, str]]:
    columns = list(seen.values)
    yield f"name = {_text(name)}", ""
    yield 'domain = "environmental"', "environmental, financial or logistics"
    yield 'timezone = "UTC"', "the zone calendars are read in"
    step = duration_text(seen.step)
    yield f'frequency = "{step}"', (
        "one step, as the answer has it" if not seen.present else "one step; the answer shows none"
    )
    yield f'horizon = "{duration_text(6 * seen.step)}"', "how far ahead: 6 steps"
    yield f"target = {_text(columns[0])}", f"one of {', '.join(columns)}"
    yield "", ""
    yield "[source]", ""
    yield 'provider = "http-json"', ""
    yield "instantaneous = true", "a value is a reading at its time; false: it covers the step that starts there"
    yield "", ""
    yield "[source.http_json]", ""
    yield f"url = {_text(_braced(request.url))}", "{series} fills in the name of a series"
    params = {one: _windowed(one, value) for one, value in request.params.items() if one not in request.secret_params}
    if params:
        listed = ", ".join(f"{_key(one)} = {_text(value)}" for one, value in params.items())
        yield f"params = {{ {listed} }}", "{start_iso}, {end_date} and their like fill in the window"
    if request.secret_params:
        yield (
            f'secret = {{ param = {_text(min(request.secret_params))}, setting = "http_json_key" }}',
            "the key is FORECASTLE_HTTP_JSON_KEY",
        )
    if seen.series is not None:
        yield 'calls = "all"', "one call for all series"
    yield f"rows = {_text(seen.rows)}", "where the answer holds its rows"
    if seen.series is not None:
        yield f"series = {_text(seen.series)}", "where a row names its series"
    yield f"time = {_text(seen.time)}", ""
    if seen.form != "iso":
        yield f'time_format = "{seen.form}"', "since 1970"
    if seen.present:
        yield "present = true", "the answer holds the present alone"
    yield "", ""
    yield "[source.http_json.values]", ""
    for column, place in seen.values.items():
        yield f"{_key(column)} = {_text(place)}", ""
    for one in seen.names or ("here",):
        yield "", ""
        yield "[[series]]", ""
        yield f"id = {_text(one)}", "" if seen.names else "the answer names none; call it what it is"
    yield "", ""
    yield "# Give each column its unit and the range it can be in; the gate masks what lies outside.", ""
    for column in columns:
        yield f"[columns.{_key(column)}]", ""


def _candidates(value: Any, place: Path) -> Iterator[tuple[Path, list[Any]]]:
    """Yield every list of rows (records, or lists of scalars) in an answer, with its place."""
    if len(place) > MOST_DEPTH:
        return
    if isinstance(value, list) and value:
        if all(isinstance(one, dict) for one in value) or all(isinstance(one, list) for one in value):
            yield place, value[:MOST_ROWS]
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _candidates(inner, (*place, name))


def _read(place: Path | None, given: list[Any]) -> Seen | None:
    """Return what rows seem to be made of; None where they have no time, or no number."""
    rows = [dict(_scalars(one, ())) for one in given]
    shared = [one for one in rows[0] if all(one in row for row in rows)]
    forms = {one: form for one in shared if (form := _form([row[one] for row in rows])) is not None}
    if not forms:
        return None
    time = min(forms, key=lambda one: (not TIMELY.search(str(one[-1])), len(one)))
    numeric = [one for one in rows[0] if one not in forms and _is_numeric([row.get(one) for row in rows])]
    values = [one for one in numeric if not NO_VALUE.match(str(one[-1]))][:MOST_COLUMNS]
    if not values:
        return None
    series = _series(rows, [one for one in shared if one not in forms and one not in numeric])
    names = tuple(dict.fromkeys(str(row[series]) for row in rows))[:MOST_SERIES] if series is not None else ()
    first = [row for row in rows if series is None or str(row[series]) == names[0]]
    return Seen(
        rows="[@]" if place is None else _expression(place) or "@",
        time=_expression(time),
        form=forms[time],
        series=None if series is None else _expression(series),
        names=names,
        values=_named(values),
        step=_step([_moment(row[time], forms[time]) for row in first]),
        present=place is None or len(first) == 1,
    )


def _scalars(value: Any, place: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every scalar of a row with its place in it."""
    if len(place) > MOST_DEPTH:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _scalars(inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:20]):
            yield from _scalars(inner, (*place, number))
    elif place:
        yield place, value


def _form(values: list[Any]) -> str | None:
    """Return how these are times (iso, s or ms since 1970); None where one of them is none."""
    for form in ("iso", "s", "ms"):
        if all(_is_time(one, form) for one in values):
            return form
    return None


def _is_time(value: Any, form: str) -> bool:
    if form == "iso":
        if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d", value):
            return False
        try:
            datetime.fromisoformat(value.strip())
        except ValueError:
            return False
        return True
    low, high = SPANS[form]
    return _is_numeric([value]) and low <= float(value) <= high and float(value).is_integer()


def _moment(value: Any, form: str) -> datetime:
    if form == "iso":
        found = datetime.fromisoformat(value.strip())
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return datetime.fromtimestamp(float(value) / (1000 if form == "ms" else 1), UTC)


def _is_numeric(values: list[Any]) -> bool:
    """Tell whether these are numbers, or text of numbers, some of which may be missing."""
    known = [one for one in values if one is not None]
    return bool(known) and all(
        (isinstance(one, int | float) and not isinstance(one, bool))
        or (isinstance(one, str) and NUMBER.fullmatch(one) is not None)
        for one in known
    )


def _series(rows: list[dict[Path, Any]], places: list[Path]) -> Path | None:
    """Return where a row names its series: text that differs between rows and comes again, by a telling name first."""
    found = []
    for one in places:
        names = {row[one] for row in rows if isinstance(row[one], str)}
        if 1 < len(names) <= MOST_SERIES and (len(names) < len(rows) or NAMELY.search(str(one[-1]))):
            found.append(one)
    return min(found, key=lambda one: (not NAMELY.search(str(one[-1])), len(one)), default=None)


def _step(times: list[datetime]) -> timedelta:
    """Return the commonest distance between neighbouring times, if it divides the day; else an hour."""
    apart = Counter(after - before for before, after in pairwise(sorted(set(times))))
    found = apart.most_common(1)[0][0] if apart else HOUR
    return found if found >= timedelta(minutes=1) and not timedelta(days=1) % found else HOUR


def _named(places: list[Path]) -> dict[str, str]:
    """Return places by a column's name: the last word of each, or more of them where two would be called alike."""
    named: dict[str, str] = {}
    for one in places:
        words = [re.sub(r"\W+", "_", str(part)).strip("_").lower() for part in one]
        words = [f"value_{word}" if word.isdecimal() else word for word in words]
        name = next((tail for size in range(1, len(words) + 1) if (tail := "_".join(words[-size:])) not in named), "")
        named[name or f"value_{len(named)}"] = _expression(one)
    return named


def _expression(place: Path) -> str:
    """Return a place as JMESPath says it."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z_]\w*", part, re.ASCII)
            text += f"{'.' if text else ''}{part if plain else json.dumps(part, ensure_ascii=False)}"
    return text


def _windowed(name: str, value: str) -> str:
    """Return a parameter's value; where it bounds the window by a time, what fills that in."""
    end = next((end for end, pattern in WINDOW.items() if pattern.match(name)), None)
    if end is None:
        return _braced(value)
    forms = {r"\d{4}-\d\d-\d\d": "date", r"\d{10}": "s", r"\d{13}": "ms", r"\d{4}-\d\d-\d\d .*": "text"}
    form = next((form for pattern, form in forms.items() if re.fullmatch(pattern, value)), None)
    if form is None and re.match(r"\d{4}-\d\d-\d\dT", value):
        form = "iso"
    return f"{{{end}_{form}}}" if form else _braced(value)


def _base(url: str) -> str:
    given = urlsplit(url)
    if given.scheme not in ("http", "https") or not given.netloc:
        raise TaskError("an address such as https://api.example.org/readings", repr(url), "Give it whole.")
    return given._replace(query="", fragment="").geturl()


def _braced(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
