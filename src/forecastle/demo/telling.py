"""How the demo speaks: live progress at a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from forecastle.console import figure, make_console
from forecastle.models.estimators import heard
from forecastle.task import Task

_NAMES = (("rmse", "RMSE"), ("mae", "MAE"), ("r2", "R²"), ("skill", "skill"), ("coverage", "coverage"))


class Telling:
    """Tell chapters and claims on the terminal; ``plain`` writes lines without colour or movement."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain
        self.console = make_console(plain)
        self._number = 0

    def say(self, text: str) -> None:
        """Say a line."""
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def chapter(self, name: str, about: str, own_bar: bool = False) -> Iterator[None]:
        """Head a chapter and, at a terminal, turn a spinner while it works, unless it draws a bar of its own."""
        self._number += 1
        self.console.print(
            f"\n[bold cyan]{self._number}. {name}[/bold cyan]  [dim]{about.splitlines()[0]}[/dim]", soft_wrap=True
        )
        if self.plain or own_bar:
            yield
            return
        with (
            self.console.status("working…", spinner="dots") as status,
            heard(lambda record: status.update(f"{record.getMessage()}…")),
        ):
            yield

    def claim(self, text: str, held: bool) -> None:
        """Say a claim and whether it came true."""
        self.console.print(f"   {'[green]✓[/green]' if held else '[red]✗[/red]'} {escape(text)}", soft_wrap=True)

    def track(self, work: Sequence[int], unit: str) -> Iterable[int]:
        """Show how far a long loop is: a bar with the time left, or a line every tenth."""
        if self.plain:
            every = max(1, len(work) // 10)
            for number, item in enumerate(work, start=1):
                yield item
                if number % every == 0:
                    self.say(f"   {number} of {len(work)} {unit}")
            return
        columns = (
            TextColumn("  "),
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield from progress.track(work)

    def promise_and_delivery(
        self, promise: dict[str, Any], delivery: dict[str, Any], task: Task, waiting: int = 0
    ) -> None:
        """Show back-test and live figures side by side, a row a horizon and the pooled ones; ``waiting`` is how many
        live forecasts are not among them, for what came true is not settled yet."""
        table = Table(title=f"{task.name}: promised by the back-test → delivered live", title_justify="left")
        table.add_column("horizon", justify="right")
        for key, name in _NAMES:
            unit = f" {task.unit}" if key in ("rmse", "mae") and task.unit else ""
            table.add_column(f"{name}{unit}", justify="right")
        live = {row["horizon"]: row for row in delivery["horizons"]}
        for row in promise["horizons"]:
            table.add_row(f"{row['horizon']}", *_pairs(row, live.get(row["horizon"], {})))
        table.add_section()
        table.add_row("pooled", *_pairs(promise, delivery), style="bold")
        self.console.print(table)
        yet = f"; {waiting:,} more wait for what comes true to be settled" if waiting else ""
        self.say(f"   over {promise['n']:,} forecasts of the back-test and {delivery['n']:,} live ones{yet}")

    def facts(self, facts: dict[str, str]) -> None:
        """Show named facts, one a line."""
        width = max(map(len, facts))
        for name, value in facts.items():
            self.console.print(f"   [dim]{name:<{width}}[/dim]  {escape(value)}", soft_wrap=True)

    def end(self, fine: bool, seconds: float, folder: Path) -> None:
        """Say how it all ended."""
        said = "Every chapter did what it says" if fine else "Not every chapter did what it says"
        colour = "green" if fine else "red"
        self.console.print(
            f"\n[bold {colour}]{said}[/bold {colour}], in {seconds:.0f} s. Everything lies in {escape(str(folder))}/.",
            soft_wrap=True,
        )


def _pairs(promise: dict[str, Any], delivery: dict[str, Any]) -> list[str]:
    return [f"{figure(promise.get(key), 3)} → {figure(delivery.get(key), 3)}" for key, _ in _NAMES]
