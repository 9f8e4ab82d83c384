"""How an application is served: on a port that is really ours, until stopped, or in the background of this process."""

from __future__ import annotations

import gc
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from typing import Any

import uvicorn

from forecastle.data import formats, identity
from forecastle.errors import SettingsError, StorageUnavailable
from forecastle.serving.app import create_app
from forecastle.serving.heartbeat import beating, now_in_utc
from forecastle.serving.keys import require_keys
from forecastle.serving.protocol import BoundedProtocol
from forecastle.settings import Settings
from forecastle.task import Task

START_SECONDS = 20.0
SWITCH_SECONDS = 0.0005  # for which a thread that journals or reads stores may hold up answers, rather than 5 ms
BACKLOG = 2048
STOP_SECONDS = 10


def serve_forever(settings: Settings, tasks: Sequence[Task], say: Callable[[str], None]) -> None:
    """Serve the tasks until SIGINT or SIGTERM, saying where; requests under way are answered first.

    Raises SettingsError where it would be open to others without a key, TaskError where a task's stores were begun for
    something else, FormatError where they are of another version.
    """
    require_keys(settings)
    _require_stores(settings, tasks)
    with listen(settings.host, settings.port) as (door, address):
        app = create_app(settings, tasks, now_in_utc)
        say(f"Serving {', '.join(task.name for task in tasks)} at {address}")
        gc.freeze()  # what is there now stays, and need not be looked at again
        gc.enable()
        sys.setswitchinterval(SWITCH_SECONDS)
        with beating(settings):
            serve(app, door)


@contextmanager
def running(
    settings: Settings, tasks: Sequence[Task], clock: Callable[[], datetime], note: str = "", beats: bool = True
) -> Iterator[str]:
    """Serve the tasks in the background of this process, by the given clock; gives the service's address.

    The page shows the note, if there is one. Without ``beats`` its being there is no part of the uptime.

    Raises StorageUnavailable where it does not come up, else as ``serve_forever``.
    """
    _require_stores(settings, tasks)
    with listen(settings.host, settings.port) as (door, address):
        server = _server(create_app(settings, tasks, clock, note=note))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, name="service", daemon=True)
        thread.start()
        until = time.monotonic() + START_SECONDS
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        try:
            if not server.started:
                raise StorageUnavailable(
                    f"the service to come up at {address}", "it did not", "See what it logged, then start it again."
                )
            with beating(settings) if beats else nullcontext():
                yield address
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)


def serve(app: Any, door: socket.socket) -> None:
    """Serve an ASGI application on a bound socket until SIGINT or SIGTERM."""
    _server(app).run(sockets=[door])


@contextmanager
def listen(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Bind a port (0: a free one) and give the socket and its address; SettingsError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # named as TCP, or asyncio leaves Nagle's algorithm on for its connections, which costs an answer 40 ms
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"to listen on {host}:{port}",
                error.strerror or str(error),
                "Choose another --port; 0 takes a free one.",
            ) from None
        door.listen(BACKLOG)  # from here on a connection waits for the server instead of being refused
        shown = f"[{host}]" if ":" in host else host
        yield door, f"http://{shown}:{door.getsockname()[1]}"


def _require_stores(settings: Settings, tasks: Sequence[Task]) -> None:
    formats.check_home(settings.home)
    for task in tasks:
        identity.require(task, settings.task_folder(task.name))


def _server(app: Any) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        server_header=False,
    )
    return uvicorn.Server(config)
