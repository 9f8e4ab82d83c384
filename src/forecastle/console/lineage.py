"""A lineage as a tree."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from forecastle.console import OUT, figure
from forecastle.frame import iso

if TYPE_CHECKING:
    from rich.tree import Tree

    from forecastle.lineage import Lineage
    from forecastle.task import Task

MOST_LEAVES = 12  # of a tree
LONG_LINE = 1000


def print_lineage(found: Lineage, task: Task) -> None:
    """Print a lineage as a tree, from the forecast down to the answers."""
    from rich.tree import Tree

    model, data, made = found.model, found.data, found.forecast
    words = (
        [f"model version {model.version}", model.stage, model.estimator] if model else ["model no longer registered"]
    )
    if model is not None:
        words += [f"run {model.run_id}", f"forecastle {model.code or 'unknown'}"]
    said = escape(", ".join(word for word in words if word))
    if made is None:
        root = node = Tree(said)
    else:
        value = f"{figure(made['value'])} {task.unit}".strip()
        root = Tree(
            escape(
                f"forecast {made['forecast_id']}: {made['series_id']} at {iso(made['timestamp'])}, {value}; "
                f"from data up to {iso(made['origin'])}, issued {iso(made['issued_at'])}"
            )
        )
        node = root.add(said)
    known = ", of which this workspace has no record"
    if data is not None:
        moment = f" as known at {iso(data.as_of)}" if data.as_of else ""
        known = f": {data.rows} rows{moment}, by run {data.run}, in {data.remote}"
    node = node.add(escape(f"data version {found.data_version}{known}"))
    if data is not None:
        node.add(f"git commit {data.commit}" if data.commit else "no git commit: its record is in the workspace")
        lost = f", {len(found.missing)} of them no longer in the archive" if found.missing else ""
        node.add(f"made by forecastle {data.code} of {len(found.answers)} archived answers{lost}")
        _add_answers(node.children[-1], found)
    # A tree breaks what is wider than its console, and lines in a file are for searching.
    console = OUT if sys.stdout.isatty() else Console(highlight=False, no_color=True, width=LONG_LINE)
    console.print(root)


def _add_answers(branch: Tree, found: Lineage) -> None:
    """Add the answers as leaves: all, or the first and the last where there are many."""
    names, lost, half = found.answers, set(found.missing), MOST_LEAVES // 2
    many = len(names) > MOST_LEAVES
    for name in names[:half] if many else names:
        branch.add(f"{name}{' (missing)' if name in lost else ''}")
    if many:
        branch.add(f"… {len(names) - 2 * half} more; --json names them all")
        for name in names[-half:]:
            branch.add(f"{name}{' (missing)' if name in lost else ''}")
