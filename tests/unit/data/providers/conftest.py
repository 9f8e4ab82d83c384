"""A small source for tests of providers: it answers each call by a function and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from forecastle.data.archive import Archive
from forecastle.data.ingestion import Batch, fetch
from forecastle.http import Client
from forecastle.settings import Settings
from forecastle.task import Task

Reply = Callable[[httpx.Request], Any]


class Source(httpx.BaseTransport):
    """Answer by a function of the request: a JSON value, bytes as they are, or a whole response."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.asked: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        reply = self.reply(request)
        if isinstance(reply, httpx.Response):
            return reply
        return httpx.Response(200, content=reply if isinstance(reply, bytes) else json.dumps(reply).encode())


@pytest.fixture
def collect(tmp_path: Path) -> Callable[..., tuple[Batch, Source]]:
    """Fetch a task from a source that answers so, archive in tmp_path; return the batch and the source."""

    def collect(
        task: Task, reply: Reply, start: datetime, now: datetime, live: bool = False, **settings: Any
    ) -> tuple[Batch, Source]:
        source = Source(reply)
        chosen = Settings(http_attempts=1, _env_file=None, **settings)  # type: ignore[call-arg]
        with Client(chosen, source) as client:
            return fetch(task, chosen, client, Archive(tmp_path / "archive"), start, now, now, live), source

    return collect
