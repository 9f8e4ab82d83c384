"""Requests that come at the same time are forecast together, and each is answered as if it were alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from forecastle.errors import NotEnoughHistory
from forecastle.serving.asking import Asked
from forecastle.serving.together import MOST, Together

NOW = datetime(2024, 1, 1, tzinfo=UTC)


class Bench:
    """Answers with the names that were asked for; a name that begins with "bad" is its own request's fault.

    One that begins with "worse" is found out by what is done for all at once, and so is everything by a broken one.
    """

    def __init__(self, broken: bool = False) -> None:
        self.calls: list[int] = []
        self._broken = broken

    def predict(self, asked: Sequence[Asked], now: datetime) -> list[str]:
        (answer,) = self.predict_each([asked], now)
        return answer()

    def predict_each(self, requests: Sequence[Sequence[Asked]], now: datetime) -> Iterator[Callable[[], list[str]]]:
        if self._broken:
            raise MemoryError("of all")
        self.calls.append(len(requests))
        if any(one.series_id.startswith("worse") for asked in requests for one in asked):
            raise OverflowError("of the whole turn")
        for asked in requests:
            yield lambda names=[one.series_id for one in asked]: self._tell(names)

    def _tell(self, names: list[str]) -> list[str]:
        if names[0].startswith("bad"):
            raise NotEnoughHistory("data", "none", "Wait.")
        return names


def asked(*names: str) -> list[Asked]:
    return [Asked(name, np.array([0]), np.zeros((1, 1))) for name in names]


def ask(*requests: tuple[Bench, list[Asked], datetime]) -> list[object]:
    async def all_of_them() -> list[object]:
        together = Together()
        waiting = [asyncio.ensure_future(together.predict(*one)) for one in requests]  # type: ignore[arg-type]
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_what_is_asked_at_the_same_time_is_answered_at_once_each_its_own() -> None:
    bench = Bench()
    assert ask((bench, asked("a", "b"), NOW), (bench, asked("a"), NOW)) == [["a", "b"], ["a"]]
    assert bench.calls == [2]


def test_a_fault_of_one_request_is_none_of_the_others() -> None:
    first, bad, last = ask(*((bench, asked(name), NOW) for bench in [Bench()] for name in ("a", "bad", "b")))
    assert (first, last) == (["a"], ["b"])
    assert isinstance(bad, NotEnoughHistory)


def test_a_request_that_breaks_the_shared_turn_is_answered_by_itself_and_so_are_the_others() -> None:
    bench = Bench()
    first, bad, last = ask(*((bench, asked(name), NOW) for name in ("a", "worse", "b")))
    assert (first, last) == (["a"], ["b"])
    assert isinstance(bad, OverflowError)
    assert bench.calls == [3, 1, 1, 1]


def test_a_fault_of_all_is_told_to_all() -> None:
    bench = Bench(broken=True)
    assert {type(one) for one in ask((bench, asked("a"), NOW), (bench, asked("b"), NOW))} == {MemoryError}


def test_two_models_and_two_seconds_never_share_an_answer() -> None:
    old, new = Bench(), Bench()
    ask((old, asked("a"), NOW), (new, asked("a"), NOW), (old, asked("b"), NOW + timedelta(seconds=1)))
    assert (old.calls, new.calls) == ([1, 1], [1])


def test_more_than_the_most_are_answered_in_turns() -> None:
    bench = Bench()
    assert len(ask(*((bench, asked(str(number)), NOW) for number in range(MOST + 3)))) == MOST + 3
    assert bench.calls == [MOST, 3]


def test_who_has_gone_is_not_answered_and_holds_up_nobody() -> None:
    bench = Bench()

    async def one_goes() -> list[str]:
        together = Together()
        gone = asyncio.ensure_future(together.predict(bench, asked("a"), NOW))  # type: ignore[arg-type]
        stays = asyncio.ensure_future(together.predict(bench, asked("b"), NOW))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays  # type: ignore[return-value]

    assert asyncio.run(one_goes()) == ["b"]
