"""Incidents as a person at a terminal reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from forecastle.console import OUT


def print_incidents(found: Sequence[Mapping[str, Any]]) -> None:
    """Print the incidents, one a line, with the reason below each."""
    if not found:
        OUT.print("No incidents.")
    for one in found:
        OUT.print(_line(one), soft_wrap=True)
        OUT.print(f"  {escape(one['reason'])}", style="dim", soft_wrap=True)


def print_incident(one: Mapping[str, Any]) -> None:
    """Print an incident with a line for each of its steps."""
    OUT.print(_line(one), soft_wrap=True)
    width = max((len(step["what"]) for step in one["steps"]), default=0)
    for step in one["steps"]:
        OUT.print(escape(f"  {step['at']}  {step['what']:<{width}}  {step['detail']}".rstrip()), soft_wrap=True)


def _line(one: Mapping[str, Any]) -> str:
    until = f"closed {one['closed_at']}" if one["closed_at"] else "open"
    what = f"{one['task'] or 'the installation'}: {one['kind']}, since {one['opened_at']}, {until}"
    return f"[bold]{one['number']}[/bold]  {escape(what)}"
