"""The sources: for each, what to ask and how to read the answer.

A new one is a declaration (``<name>.toml`` here, see ``http_json``) or a module, and one line in PROVIDERS.

``requests(task, settings, start, end, now)`` returns what to ask so that the answers hold every observation from
``start`` to ``end`` (UTC, both included); answers may hold more. ``parse(task, request, body)`` turns one answer into
a table of series_id, timestamp (UTC) and the task's value columns (Float64, null where missing), in any order, with
repeated rows kept. It raises AnswerChanged where the answer is not what was agreed and SourceUnavailable where it is
empty; it never repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from forecastle.data.archive import Archive
from forecastle.data.providers import alpha_vantage, file, gbfs, gtfs_realtime, http_json, open_meteo
from forecastle.data.providers.pieces import months
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task


def _no_more(task: Task, request: Request, body: bytes) -> Request | None:
    return None


def _as_they_are(task: Task, tables: Sequence[pl.DataFrame]) -> Sequence[pl.DataFrame]:
    return tables


def _never(task: Task) -> bool:
    return False


def _always(task: Task, request: Request, archive: Archive, now: datetime) -> bool:
    return True


def _nothing_more(task: Task, archive: Archive, start: datetime, now: datetime) -> Sequence[pl.DataFrame]:
    return ()


def _none(task: Task, archive: Archive, start: datetime, now: datetime) -> tuple[str, ...]:
    return ()


def _one(request: Request) -> int:
    return 1


def _by_the_month(start: datetime, end: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    return months(start, end)


@dataclass(frozen=True)
class Provider:
    """One kind of source: what to ask it, and how to read what it answers.

    ``following`` returns the call for an answer's next page, ``join`` puts the tables of several feeds together,
    ``gives_present_only`` tells that the past cannot be asked for, ``gives_events`` that a step without a row is no
    gap. ``wanted`` tells, when a call's turn comes, whether what is archived makes it needless, and ``recall`` returns
    the rows that only several archived answers together tell; ``recalled`` names those. ``cost`` is how many calls the
    source counts for one, ``pieces`` cuts a long past (start, end, now) where the source's own answers end, each piece
    from its start up to but without its end.
    """

    requests: Callable[[Task, Settings, datetime, datetime, datetime], tuple[Request, ...]]
    parse: Callable[[Task, Request, bytes], pl.DataFrame]
    following: Callable[[Task, Request, bytes], Request | None] = _no_more
    join: Callable[[Task, Sequence[pl.DataFrame]], Sequence[pl.DataFrame]] = _as_they_are
    gives_present_only: Callable[[Task], bool] = _never
    gives_events: Callable[[Task], bool] = _never
    wanted: Callable[[Task, Request, Archive, datetime], bool] = _always
    recall: Callable[[Task, Archive, datetime, datetime], Sequence[pl.DataFrame]] = _nothing_more
    recalled: Callable[[Task, Archive, datetime, datetime], tuple[str, ...]] = _none
    cost: Callable[[Request], int] = _one
    pieces: Callable[[datetime, datetime, datetime], Iterator[tuple[datetime, datetime]]] = _by_the_month


DECLARED = Provider(
    http_json.requests, http_json.parse, http_json.following, gives_present_only=http_json.gives_present_only
)

PROVIDERS: dict[str, Provider] = {
    "open-meteo": Provider(
        open_meteo.requests, open_meteo.parse, join=open_meteo.join, cost=open_meteo.cost, pieces=open_meteo.pieces
    ),
    "openweathermap": DECLARED,
    "alpha-vantage": Provider(alpha_vantage.requests, alpha_vantage.parse, pieces=alpha_vantage.pieces),
    "twelve-data": DECLARED,
    "binance": DECLARED,
    "gbfs": Provider(gbfs.requests, gbfs.parse, join=gbfs.join, gives_present_only=gbfs.gives_present_only),
    "gtfs-realtime": Provider(
        gtfs_realtime.requests,
        gtfs_realtime.parse,
        gives_present_only=gtfs_realtime.gives_present_only,
        gives_events=gtfs_realtime.gives_events,
        wanted=gtfs_realtime.wanted,
        recall=gtfs_realtime.recall,
        recalled=gtfs_realtime.recalled,
    ),
    "http-json": DECLARED,
    "file": Provider(file.requests, file.parse),
}


def gives_events(task: Task) -> bool:
    """Tell whether rows are of what happened, so that a step without one is no gap: by the task or by its provider."""
    return task.source.events or PROVIDERS[task.source.provider].gives_events(task)
