"""What moves a forecast, as a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from forecastle.console import OUT, figure
from forecastle.frame import iso

if TYPE_CHECKING:
    from forecastle.models.explanation import Explanation
    from forecastle.task import Task

MOST_FEATURES = 15


def print_explanation(told: Explanation, task: Task) -> None:
    """Print a forecast as a sum: where it starts from, and the features that add most to it."""
    ahead = f"{told.horizon} {'step' if told.horizon == 1 else 'steps'} ahead of {iso(told.origin)}"
    value = f"{told.value:.4f} {task.unit}".strip()
    line = f"{told.series_id} at {iso(told.timestamp)}, {ahead}: {value}"
    OUT.print(f"[bold]{escape(line)}[/bold]", soft_wrap=True)
    table = Table(header_style="bold")
    table.add_column("part")
    for name in ("its value", "adds"):
        table.add_column(name, justify="right")
    for name, part in told.start.items():
        table.add_row(escape(name), "", f"{part:+.4f}")
    table.add_section()
    shown = list(told.features.items())[:MOST_FEATURES]
    for name, part in shown:
        number = told.inputs.get(name)
        missing = "missing" if number is not None and math.isnan(number) else figure(number)
        table.add_row(escape(name), "" if number is None else missing, f"{part:+.4f}")
    if rest := list(told.features.values())[MOST_FEATURES:]:
        table.add_row(f"{len(rest)} more features", "", f"{math.fsum(rest):+.4f}")
    OUT.print(table)
