"""How far a backfill is, and what it brought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from forecastle.console import make_console
from forecastle.frame import iso, to_json

if TYPE_CHECKING:
    from forecastle.data.backfill import Brought


def follow_backfill(
    pieces: Sequence[tuple[datetime, datetime]], outcomes: Iterator[Brought], plain: bool, as_json: bool
) -> list[Brought]:
    """Show how far a backfill is, by a bar at a terminal and by a line a piece elsewhere, and at the end what is left.

    Returns what became of each piece.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    ended: list[Brought] = []
    columns = (TextColumn("backfilling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out = make_console(plain)
    with Progress(*columns, console=out, transient=True, disable=as_json or not out.is_terminal or plain) as bar:
        shown = bar.add_task("", total=len(pieces))
        for one in outcomes:
            ended.append(one)
            bar.advance(shown)
            if as_json:
                out.print(to_json(_piece(one)), soft_wrap=True, markup=False)
            elif one.error is not None:
                out.print(f"[red]✗[/red] {_stretch(one)}: {escape(str(one.error))}", soft_wrap=True)
            else:
                found = f"{one.rows} rows, {one.new} of them new" if one.rows else "nothing there"
                masked = f", {one.masked} masked" if one.masked else ""
                out.print(f"[green]✓[/green] {_stretch(one)}: {found}{masked}", soft_wrap=True)
    good = [one for one in ended if one.error is None]
    said: dict[str, Any] = {"pieces": len(pieces), "done": len(good), "left": len(pieces) - len(good)}
    said |= {name: sum(getattr(one, name) for one in good) for name in ("answers", "rows", "new")}
    if as_json:
        out.print(to_json(said), soft_wrap=True, markup=False)
    elif not pieces:
        out.print("Nothing to ask for: all of it is there already.")
    else:
        out.print(
            f"{said['done']} of {said['pieces']} pieces done: {said['answers']} answers, {said['rows']} rows, "
            f"{said['new']} of them new."
            + (f" {said['left']} are left; the same command goes on with them." if said["left"] else ""),
            soft_wrap=True,
        )
    return ended


def _piece(one: Brought) -> dict[str, Any]:
    said: dict[str, Any] = {"from": one.start, "to": one.end, "ok": one.error is None}
    said |= {"answers": one.answers, "rows": one.rows, "new": one.new, "masked": one.masked}
    return said | ({} if one.error is None else {"error": str(one.error)})


def _stretch(one: Brought) -> str:
    return f"{iso(one.start)} … {iso(one.end)}"
