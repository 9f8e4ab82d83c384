"""The routes a person's browser asks for: the page, its fragment, the documentation, the form that asks for a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Header, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from forecastle.serving import bodies, docs, page
from forecastle.serving.board import Board
from forecastle.serving.keys import LOGIN, Keyring, cookie
from forecastle.serving.snapshot import Details, Snapshot

MOST_FORM = 2_000  # bytes


def add_routes(app: FastAPI, board: Board, keyring: Keyring, clock: Callable[[], datetime], note: str) -> None:
    """Add the routes to the service; the page shows the note, if there is one."""
    drawn: dict[str, Any] = {}

    def draw(states: Sequence[tuple[Snapshot, Details]], now: datetime) -> str:
        """Draw the board, at most once a minute while nothing changes."""
        key = (*(one for state in states for one in map(id, state)), now.replace(second=0, microsecond=0))
        if drawn.get("key") != key:
            # The states are kept with the drawing, so that no other object can take over their ids.
            drawn.update(html=page.board(states, now, note), states=states, key=key)
        return str(drawn["html"])

    async def board_html() -> str:
        now = clock()
        states = []
        for task in board.tasks:
            state = await board.state(task.name, now)
            states.append((state, await run_in_threadpool(board.details, task.name, now)))
        return await run_in_threadpool(draw, states, now)

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def show_page() -> Response:
        return HTMLResponse(page.page(await board_html()))

    @app.get(page.FRAGMENT, include_in_schema=False)
    async def show_fragment(if_none_match: Annotated[str, Header()] = "") -> Response:
        html = await board_html()
        tag = f'"{page.etag(html)}"'
        if tag in (known.strip().removeprefix("W/") for known in if_none_match.split(",")):
            return Response(status_code=304, headers={"etag": tag})
        return HTMLResponse(html, headers={"etag": tag})

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> Response:
        return HTMLResponse(docs.render(app.openapi()))

    @app.get(LOGIN, include_in_schema=False)
    async def ask_for_key() -> Response:
        return _login(refused=False)

    @app.post(LOGIN, include_in_schema=False)
    async def take_key(request: Request) -> Response:
        body = await bodies.read(request.scope, request.receive, MOST_FORM, ("application/x-www-form-urlencoded",))
        given = parse_qs(body.decode("utf-8", "replace")).get("key", [""])[0].strip()
        key = keyring.find(given)
        if key is None or "read" not in key.scopes:
            return _login(refused=True)
        secure = request.url.scheme == "https"
        return RedirectResponse("/", 303, headers={"set-cookie": cookie(given, secure)})


def _login(refused: bool) -> Response:
    html = page.environment().get_template("login.html").render(refused=refused)
    return HTMLResponse(html, 401 if refused else 200)
