"""What waits in quarantine, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from forecastle.console import OUT


def print_quarantine(batches: Sequence[Mapping[str, Any]]) -> None:
    """Print the batches of the quarantine, one a line, with the reason below each."""
    if not batches:
        OUT.print("Nothing waits in quarantine.")
    for one in batches:
        what = f"series {', '.join(one['series'])}" if one["series"] else "the whole batch"
        state = "" if one["waiting"] else f", released by {one['released']['by']}"
        line = f"{one['task']}, {one['rows']} rows, {what}{state}"
        OUT.print(f"[bold]{escape(one['name'])}[/bold]  {escape(line)}", soft_wrap=True)
        OUT.print(f"  {escape(one['reason'])}", style="dim", soft_wrap=True)


def print_quality(one: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Print a gate's report on a quarantined batch: every finding that is no pass, with its offending rows."""
    print_quarantine([one])
    OUT.print(f"  {report['rows']} rows from {report['start']} to {report['end']}, judged {report['judged_at']}")
    for finding in (finding for finding in report["findings"] if finding["verdict"] != "pass"):
        said = f"expected {finding['expected']}; found {finding['found']}"
        OUT.print(f"\n[bold]{finding['check']}[/bold]: {finding['verdict']}. {escape(said)}", soft_wrap=True)
        if finding["rows"]:
            table = Table(header_style="bold")
            for name in finding["rows"][0]:
                table.add_column(escape(name))
            for row in finding["rows"]:
                table.add_row(*("–" if value is None else escape(str(value)) for value in row.values()))
            OUT.print(table)
    OUT.print(f"\nThe page: {one['page']}", soft_wrap=True)
