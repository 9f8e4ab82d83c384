"""The sources: for each, what to ask and how to read the answer. A new one is a module and one line in PROVIDERS.

``requests(task, settings, start, end, now)`` returns what to ask so that the answers hold every observation from
``start`` to ``end`` (UTC, both included); answers may hold more. ``parse(task, request, body)`` turns one answer into
a table of series_id, timestamp (UTC) and the task's value columns (Float64, null where missing), in any order, with
repeated rows kept. It raises AnswerChanged where the answer is not what was agreed and SourceUnavailable where it is
empty; it never repairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from forecastle.data.providers import file, open_meteo
from forecastle.http import Request
from forecastle.settings import Settings
from forecastle.task import Task


@dataclass(frozen=True)
class Provider:
    """One kind of source: what to ask it, and how to read what it answers."""

    requests: Callable[[Task, Settings, datetime, datetime, datetime], tuple[Request, ...]]
    parse: Callable[[Task, Request, bytes], pl.DataFrame]


PROVIDERS: dict[str, Provider] = {
    "open-meteo": Provider(open_meteo.requests, open_meteo.parse),
    "file": Provider(file.requests, file.parse),
}
