"""Threads that answer each other share a processor while small work lasts, and no longer."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from threading import Event, Thread

import polars as pl
import pytest

from forecastle.affinity import FEW, THREADS, one_processor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets threads be placed")


def _pool() -> list[set[int]]:
    pl.DataFrame({"there": [True]}).filter("there")
    found = []
    for one in THREADS.iterdir():
        with suppress(FileNotFoundError):  # some other test's thread has ended meanwhile
            if re.fullmatch(r"polars-\d+\n", (one / "comm").read_text()):
                found.append(os.sched_getaffinity(int(one.name)))
    return found


def test_the_caller_and_the_pool_are_on_one_processor_while_it_lasts_and_everywhere_after() -> None:
    everywhere = os.sched_getaffinity(0)
    with one_processor(3):  # by then the pool has started
        pass
    assert len(_pool()) == pl.thread_pool_size() and all(one == everywhere for one in _pool())
    with one_processor(3):
        here = os.sched_getaffinity(0)
        assert len(here) == 1 and here <= everywhere
        assert _pool() and all(one == here for one in _pool())
    assert os.sched_getaffinity(0) == everywhere
    assert all(one == everywhere for one in _pool())


def test_an_error_inside_lets_them_go_as_well() -> None:
    everywhere = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), one_processor(3):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == everywhere


@pytest.mark.parametrize("series", [0, FEW + 1])
def test_where_there_are_many_series_or_nobody_knows_how_many_nothing_changes(series: int) -> None:
    everywhere = os.sched_getaffinity(0)
    with one_processor(series):
        assert os.sched_getaffinity(0) == everywhere


def test_a_second_caller_goes_everywhere_meanwhile() -> None:
    everywhere, seen = os.sched_getaffinity(0), []

    def beside() -> None:
        os.sched_setaffinity(0, everywhere)  # a thread begins where the one that started it was
        with one_processor(3):
            seen.append(os.sched_getaffinity(0))

    with one_processor(3):
        thread = Thread(target=beside)
        thread.start()
        thread.join()
        assert len(os.sched_getaffinity(0)) == 1
    assert seen == [everywhere]


def test_threads_started_inside_are_let_go_at_the_end() -> None:
    everywhere, over = os.sched_getaffinity(0), Event()
    thread = Thread(target=over.wait)
    with one_processor(3):
        thread.start()
        assert len(os.sched_getaffinity(thread.native_id or 0)) == 1
    assert os.sched_getaffinity(thread.native_id or 0) == everywhere
    over.set()
    thread.join()


def test_threads_that_are_none_of_the_pool_stay_where_they_were_told_to_be() -> None:
    over, first = Event(), {min(os.sched_getaffinity(0))}
    thread = Thread(target=over.wait)
    thread.start()
    os.sched_setaffinity(thread.native_id or 0, first)
    with one_processor(3):
        pass
    assert os.sched_getaffinity(thread.native_id or 0) == first
    over.set()
    thread.join()
