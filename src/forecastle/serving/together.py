"""Requests that come at the same time are forecast together: several cost little more than one.

Nobody waits for others to come. What stands in line when the event loop comes round is answered as one matrix; a
request that is alone is answered alone. Every request's answer is its own: made by the model it was asked of, and a
fault of one is none of the others', for where they cannot be answered together each is answered by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from forecastle.serving.asking import Asked
from forecastle.serving.workbench import Predicted, Workbench

MOST = 64  # requests answered at once; more would hold up what else there is to do

_Key = tuple[int, datetime]


@dataclass(eq=False)
class _Line:
    """Requests to one workbench within one second, and the turn in which they are answered."""

    bench: Workbench
    now: datetime
    requests: list[Sequence[Asked]] = field(default_factory=list)
    turn: asyncio.Task[list[Callable[[], list[Predicted]]]] | None = None


class Together:
    """Those that stand in line in one event loop."""

    def __init__(self) -> None:
        self._lines: dict[_Key, _Line] = {}

    async def predict(self, bench: Workbench, asked: Sequence[Asked], now: datetime) -> list[Predicted]:
        """Forecast as the workbench does, together with whatever else is asked in this turn of the loop."""
        key = id(bench), now.replace(microsecond=0)
        line = self._lines.get(key)
        if line is None or line.turn is None or len(line.requests) >= MOST:
            line = self._lines[key] = _Line(bench, now)
            line.turn = asyncio.create_task(self._answer(key, line))  # begins when the loop comes round
        place = len(line.requests)
        line.requests.append(asked)
        try:
            made = await asyncio.shield(line.turn)  # whoever asked may go, and the others still be answered
        except Exception:
            if len(line.requests) == 1:
                raise
            return bench.predict(asked, line.now)  # who is at fault is told so, and nobody else
        return made[place]()

    async def _answer(self, key: _Key, line: _Line) -> list[Callable[[], list[Predicted]]]:
        if self._lines.get(key) is line:
            del self._lines[key]
        return list(line.bench.predict_each(line.requests, line.now))
