"""Requests that come at the same time are forecast together: several cost little more than one.

Nobody waits for others to come. What stands in line when the event loop comes round is answered as one matrix; a
request that is alone is answered alone. Every request's answer is its own: made by the model it was asked of, and a
fault of one is none of the others'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from forecastle.serving.asking import Asked
from forecastle.serving.workbench import Predicted, Workbench

MOST = 64  # requests answered at once; more would hold up what else there is to do


class _Waiting(NamedTuple):
    bench: Workbench
    asked: Sequence[Asked]
    now: datetime
    answer: asyncio.Future[list[Predicted]]


class Together:
    """Those that stand in line in one event loop."""

    def __init__(self) -> None:
        self._line: list[_Waiting] = []

    async def predict(self, bench: Workbench, asked: Sequence[Asked], now: datetime) -> list[Predicted]:
        """Forecast as the workbench does, together with whatever else is asked in this turn of the loop."""
        loop = asyncio.get_running_loop()
        if not self._line:
            loop.call_soon(self._answer)
        answer: asyncio.Future[list[Predicted]] = loop.create_future()
        self._line.append(_Waiting(bench, asked, now, answer))
        return await answer

    def _answer(self) -> None:
        turn, self._line = self._line[:MOST], self._line[MOST:]
        if self._line:
            asyncio.get_running_loop().call_soon(self._answer)
        alike: dict[tuple[int, datetime], list[_Waiting]] = {}
        for one in turn:
            if not one.answer.done():  # whoever asked may have gone
                alike.setdefault((id(one.bench), one.now.replace(microsecond=0)), []).append(one)
        for group in alike.values():
            _tell(group)


def _tell(group: Sequence[_Waiting]) -> None:
    """Answer requests to one workbench, within one second."""
    try:
        made = list(group[0].bench.predict_each([one.asked for one in group], group[-1].now))
    except Exception as error:
        for one in group:
            one.answer.set_exception(error)
        return
    for one, make in zip(group, made, strict=True):
        try:
            one.answer.set_result(make())
        except Exception as error:
            one.answer.set_exception(error)
