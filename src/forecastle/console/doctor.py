"""What `forecastle doctor` says at a terminal: a line a finding, and below an ill one what to do."""

from __future__ import annotations

from rich.markup import escape

from forecastle.console import OUT
from forecastle.operations.doctor import Finding

MARKS = {"well": "[green]✓[/green]", "hint": "[yellow]·[/yellow]", "ill": "[red]✗[/red]"}


def print_finding(finding: Finding) -> None:
    """Print one finding."""
    OUT.print(
        f"{MARKS[finding.health]} [bold]{escape(finding.about):<16}[/bold] {escape(finding.found)}", soft_wrap=True
    )
    if finding.action:
        OUT.print(f"  {'':<16} {escape(finding.action)}", style="dim", soft_wrap=True)
