"""What a person at a terminal reads: step lines and score tables; without a TTY, no colour and no movement."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from forecastle.task import Task

PLAIN_WIDTH = 120  # where nobody looks at a terminal


def make_console(plain: bool = False) -> Console:
    """Return a console: as the terminal is, or without colour and movement."""
    plain = plain or not sys.stdout.isatty()
    return Console(highlight=False, no_color=plain or None, width=PLAIN_WIDTH if plain else None)


OUT = make_console()


def print_outcome(step: str, seconds: float, summary: dict[str, Any], error: Exception | None) -> None:
    """Print how a step ended, in one line: what it found, or that it failed; below it, what else is to be known."""
    mark = "[green]✓[/green]" if error is None else "[red]✗[/red]"
    said = ", ".join(f"{name.replace('_', ' ')} {_short(value)}" for name, value in summary.items() if name != "notes")
    OUT.print(f"{mark} [bold]{step:<14}[/bold] {escape(said) or 'failed'} [dim]({seconds:.2f} s)[/dim]", soft_wrap=True)
    for note in summary.get("notes", ()):
        OUT.print(f"  {'':<14} {note}", style="yellow", markup=False, soft_wrap=True)


def score_table(scores: dict[str, Any], task: Task, title: str) -> Table:
    """Return back-test or live scores as a table: one row a horizon, and the pooled figures."""
    unit = f" {task.unit}" if task.unit else ""
    table = Table(title=escape(title), title_justify="left", header_style="bold")
    for name in ("horizon", f"RMSE{unit}", f"MAE{unit}", "R²", "skill", "coverage"):
        table.add_column(name, justify="right")
    for row in scores["horizons"]:
        table.add_row(f"{row['horizon']}", *_figures(row))
    table.add_section()
    table.add_row("pooled", *_figures(scores), style="bold")
    return table


def print_scores(scores: dict[str, Any], task: Task, title: str) -> None:
    """Print back-test or live scores as a table."""
    OUT.print(score_table(scores, task, title))
    if weights := scores.get("weights"):
        members = " + ".join(f"{weight:.2f} {name}" for name, weight in weights.items())
        OUT.print(f"Forecast by {members}" + (": nothing trained beat it." if "persistence" in weights else "."))
    said = "Skill is 1 - RMSE / RMSE of persistence on the same rows"
    if interval := scores.get("skill_interval"):
        low, high = map(figure, interval)
        said += f"; pooled it lies between {low} and {high} (95 %, weeks drawn anew)"
    OUT.print(f"{said}.", style="dim")


def figure(value: float | None, digits: int = 4) -> str:
    """Return a number with so many significant digits, or a dash where it is not known."""
    return "–" if value is None else f"{value:.{digits}g}"


def _figures(row: dict[str, Any]) -> list[str]:
    return [figure(row.get(name)) for name in ("rmse", "mae", "r2", "skill", "coverage")]


def _short(value: object) -> str:
    if isinstance(value, float):
        return figure(value)
    if isinstance(value, list):
        sentences = all(str(one).endswith(".") for one in value)
        return (" " if sentences else "; ").join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value not in (None, "") else "none"
