"""What a person reads while a service is tried: a line a thing, and loudly what it cannot do."""

from __future__ import annotations

from rich.markup import escape

from forecastle.console import OUT

MARKS = {"works": "[green]✓[/green]", "lacks": "[bold yellow]![/bold yellow]", "fails": "[red]✗[/red]"}


def print_finding(what: str, said: str, address: str, works: bool, lacks: bool) -> None:
    """Print what came of trying one thing, in one line."""
    mark = MARKS["fails" if not works else "lacks" if lacks else "works"]
    shown = f"[bold yellow]{escape(said)}[/bold yellow]" if works and lacks else escape(said)
    OUT.print(f"{mark} [bold]{what:<14}[/bold] {shown} [dim]({escape(address)})[/dim]", soft_wrap=True)
