"""How numbers, times and durations are written for people."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from forecastle.task import Task, duration_text

UNKNOWN = "–"
MINUS = "−"
A_YEAR = timedelta(days=300)  # from which on a day without its year would be taken for another


def number(value: float | None, decimals: int) -> str:
    """Write a number with that many decimals, a real minus, and a dash where there is none."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:,.{decimals}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.lstrip("-")


def percent(value: float | None, decimals: int = 0, signed: bool = False) -> str:
    """Write a share as a percentage."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = number(100 * value, decimals)
    return f"{'+' if signed and value > 0 else ''}{text} %"


def clock(moment: datetime, task: Task, now: datetime | None = None) -> str:
    """Write a time in the task's own zone, with its year where ``now`` is far away; where a step is a day or longer,
    only its day."""
    local = moment.astimezone(task.zone)
    year = f" {local:%Y}" if now is not None and abs(now - moment) > A_YEAR else ""
    if task.frequency >= timedelta(days=1):
        return f"{local:%a} {local.day} {local:%b}{year}"
    return f"{local:%a} {local.day} {local:%b}{year}, {local:%H:%M}"


def day(moment: datetime, task: Task) -> str:
    """Write a day in the task's own zone, with its year."""
    local = moment.astimezone(task.zone)
    return f"{local.day} {local:%b %Y}"


def spoken(duration: timedelta) -> str:
    """Write a duration in words: "1 hour", "90 minutes"."""
    text = duration_text(duration)
    unit = {"d": "day", "h": "hour", "m": "minute", "s": "second"}[text[-1]]
    count = int(text[:-1])
    return f"{count} {unit}{'' if count == 1 else 's'}"


def interval(lower: float | None, upper: float | None, places: int) -> str:
    """Write an interval, or a dash where an end of it is missing."""
    return UNKNOWN if lower is None or upper is None else f"{number(lower, places)} to {number(upper, places)}"
