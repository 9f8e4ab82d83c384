"""A service over made-up stores, and a way to ask it."""

from __future__ import annotations

import asyncio
import runpy
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from forecastle.serving.app import create_app
from forecastle.settings import Settings
from forecastle.task import Task, load_task

ROOT = Path(__file__).parents[3]
Ask = Callable[..., httpx.Response]
MADE_UP = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_up.py"))))


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **span: float) -> None:
        self.now += timedelta(**span)


@pytest.fixture
def made_up() -> SimpleNamespace:
    """What made_up.py offers: NOW, truth, observations, forecasts, fill, publish_champion."""
    return MADE_UP


@pytest.fixture
def clock() -> Clock:
    return Clock(MADE_UP.NOW)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", _env_file=None)  # type: ignore[call-arg]


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder that holds four made-up days of the shipped task, and its champion; to be copied."""
    home = tmp_path_factory.mktemp("stores") / "home"
    settings = Settings(home=home, _env_file=None)  # type: ignore[call-arg]
    task = load_task(ROOT / "tasks" / "nyc-temperature.toml")
    MADE_UP.fill(settings, task)
    MADE_UP.publish_champion(settings, task)
    return home


@pytest.fixture
def filled(settings: Settings, stores: Path) -> Settings:
    """Settings whose stores hold four made-up days of the task, and its champion."""
    shutil.copytree(stores, settings.home)
    return settings


@pytest.fixture
def app(filled: Settings, task: Task, clock: Clock) -> FastAPI:
    """The service of the filled stores; it asks them before every answer."""
    return create_app(filled, [task], clock, poll_every=0)


@pytest.fixture
def ask(app: FastAPI) -> Ask:
    """Ask the service of the filled stores."""
    return lambda path, method="GET", headers=None, **body: _get(app, path, method, headers, **body)


@pytest.fixture
def post(app: FastAPI) -> Ask:
    """Post to the service of the filled stores."""
    return lambda path, headers=None, **body: _get(app, path, "POST", headers, **body)


@pytest.fixture
def get() -> Ask:
    """Ask any service in this process; a fault of its own is answered, not raised."""
    return _get


def _get(
    app: FastAPI, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **body: Any
) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers, **body)

    return asyncio.run(send())
