"""What the fields of a task file must be to each other: checked on plain data, before any field by itself."""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import timedelta
from typing import Any

from forecastle.duration import DAY, duration_text, parse_duration
from forecastle.mistakes import nearest

JUDGED = timedelta(hours=48)
"""The stretch of time that a live batch holds, and the gate judges, where a task does not say."""

LAST_SEEN = timedelta(minutes=10)
"""How long before a stop is passed a prediction may have been seen, and still be an observation of the passing."""


def incoherent(data: dict[str, Any], providers: Container[str]) -> Iterable[str]:
    """Yield the mistakes that no single field of a task shows, as sentences; ``providers`` are those there are."""
    frequency, horizon = _duration_or_none(data.get("frequency")), _duration_or_none(data.get("horizon"))
    if frequency is not None and (frequency <= timedelta(0) or DAY % frequency):
        yield f"frequency: {data['frequency']!r} does not divide the day; use one that does, such as '1h' or '10m'"
    elif frequency is not None and horizon is not None and horizon % frequency:
        yield f"horizon: {data['horizon']!r} is not a whole number of steps of {data['frequency']!r}"
    if horizon is not None and horizon <= timedelta(0):
        yield f"horizon: {data['horizon']!r} is no time ahead; use at least one step, such as {data.get('frequency')!r}"
    columns = data.get("columns")
    if isinstance(columns, dict) and isinstance(data.get("target"), str) and data["target"] not in columns:
        yield f"target: {data['target']!r} is not one of [columns]{nearest(data['target'], columns)}"
    yield from _derivation_mistakes(columns if isinstance(columns, dict) else {}, data, frequency)
    yield from _ahead_mistakes(columns if isinstance(columns, dict) else {}, data)
    yield from _flatline_mistakes(columns if isinstance(columns, dict) else {}, data)
    series = [one for one in data.get("series") or () if isinstance(one, dict)]
    ids = [one["id"] for one in series if isinstance(one.get("id"), str)]
    for twice in sorted({one for one in ids if ids.count(one) > 1}):
        yield f"series: {twice!r} is listed twice"
    source = data.get("source")
    provider = source.get("provider") if isinstance(source, dict) else None
    if provider in providers and provider != "file" and not series:
        place = ", latitude and longitude" if provider == "open-meteo" else ""
        yield f"series: provider {provider!r} needs at least one [[series]] with id{place}"
    if provider == "open-meteo":
        for number, one in enumerate(series):
            for field in ("latitude", "longitude"):
                if field not in one:
                    yield f"series[{number}].{field}: missing; provider 'open-meteo' asks by coordinates"


def _derivation_mistakes(columns: dict[str, Any], data: dict[str, Any], frequency: timedelta | None) -> Iterable[str]:
    elsewhere = {name for name, one in columns.items() if isinstance(one, dict) and one.get("task")}
    measured = {name for name, one in columns.items() if not (isinstance(one, dict) and one.get("derived"))} - elsewhere
    if data.get("target") in elsewhere:
        yield f"target: {data['target']!r} is a column of another task; forecast it there"
    for name in elsewhere:
        if columns[name]["task"] == data.get("name"):
            yield f"columns.{name}.task: this is the task itself"
    for name in columns.keys() - measured - elsewhere:
        for given in columns[name].get("inputs") or ():
            if given not in measured:
                yield f"columns.{name}.inputs: {given!r} is no measured column{nearest(str(given), measured)}"
    if columns and not measured:
        yield "columns: all are derived, or another task's; name the ones they are derived from too"
    source = data.get("source")
    if isinstance(source, dict) and source.get("events") is True and not columns.keys() - measured - elsewhere:
        yield "source.events: no column is derived from the events; a mean of them, for one"
    given = source.get("step") if isinstance(source, dict) else None
    step = _duration_or_none(given)
    if step is not None and frequency and (step <= timedelta(0) or frequency % step):
        yield f"source.step: {given!r} does not divide the frequency {data['frequency']!r}"
    given = source.get("every") if isinstance(source, dict) else None
    every = _duration_or_none(given)
    if every is not None and frequency and every > timedelta(0) and frequency % every:
        yield f"source.every: {given!r} does not divide the frequency {data['frequency']!r}"
    apart = every or frequency
    if isinstance(source, dict) and source.get("provider") == "gtfs-realtime" and apart and apart > LAST_SEEN:
        most = duration_text(LAST_SEEN)
        yield f"source.every: a feed of predictions has to be asked at least every {most}; write one, such as '2m'"


def _ahead_mistakes(columns: dict[str, Any], data: dict[str, Any]) -> Iterable[str]:
    ahead = [name for name, one in columns.items() if isinstance(one, dict) and one.get("ahead") is True]
    source = data["source"] if isinstance(data.get("source"), dict) else {}
    if data.get("target") in ahead:
        yield f"columns.{data['target']}.ahead: this is the target; forecasts of covariates are what a model may use"
    if ahead and data.get("grid") == "observed":
        yield f"columns.{ahead[0]}.ahead: on the observed grid nobody knows when the next bars will be"
    if ahead and (source.get("step") is not None or source.get("events") is True):
        yield f"columns.{ahead[0]}.ahead: the source's rows are not the task's steps; leave out step or events"
    if source.get("provider") == "file" and bool(ahead) != bool(source.get("issued")):
        yield "source.issued: a table of forecasts, and columns with ahead = true that it holds, belong together"


def _flatline_mistakes(columns: dict[str, Any], data: dict[str, Any]) -> Iterable[str]:
    both = [data[name] if isinstance(data.get(name), dict) else {} for name in ("gate", "source")]
    window = max(_duration_or_none(part.get("window")) or JUDGED for part in both)
    for place, part in {"gate": both[0], **{f"columns.{name}": one for name, one in columns.items()}}.items():
        limit = _duration_or_none(part.get("flatline")) if isinstance(part, dict) else None
        if limit is not None and not timedelta(0) < limit < window:
            told = duration_text(window)
            yield f"{place}.flatline: {part['flatline']!r} cannot be seen in the {told} that a live batch holds"


def _duration_or_none(value: object) -> timedelta | None:
    try:
        return parse_duration(value)
    except ValueError:
        return None
