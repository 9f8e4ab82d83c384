"""The laws of the bitemporal history, against a model of it that is a list of rows and two loops."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from forecastle.data import segments
from forecastle.data.history import History
from forecastle.data.segments import Segments
from forecastle.data.store import Bucket, at
from forecastle.frame import TIME, conform

COLUMNS = ("a", "b")
T0 = datetime(2013, 1, 31, 22, tzinfo=UTC)  # two hours before a month ends: the rows lie in two months
HOUR = timedelta(hours=1)

values = st.sampled_from([None, 1.0, 2.0])
received = st.builds(
    lambda series, step, collected, delay, a, b: {
        "series_id": series,
        "timestamp": T0 + step * HOUR,
        "available_at": T0 + max(0, collected - delay) * HOUR,
        "collected_at": T0 + collected * HOUR,
        "a": a,
        "b": b,
    },
    st.sampled_from(["EWR", "JFK"]),
    st.integers(0, 3),
    st.integers(0, 7),
    st.sampled_from([0, 0, 1, 2, 3, -1, -2, -4]),  # known before it was collected, or released from quarantine after
    values,
    values,
)
batches_of_rows = st.lists(st.lists(received, max_size=8), max_size=14)
few_merges_or_many = st.sampled_from([1, 3, 100])
places = st.sampled_from(["folder", "memory"])


@given(batches_of_rows, few_merges_or_many, st.integers(-1, 9), places)
@settings(deadline=None, max_examples=60)
def test_what_is_read_is_what_a_model_of_versions_says(batches, most_batches, as_of, place):
    with a_history(most_batches, place) as history:
        for batch in batches:
            history.append(table(batch))
        rows = [row for batch in batches for row in batch]
        moment = T0 + as_of * HOUR
        assert history.versions().rows() == model_versions(rows)
        assert history.versions(as_of=moment).rows() == [row for row in model_versions(rows) if row[2] <= moment]
        assert history.read(as_of=moment).rows() == model_read(rows, moment)
        assert history.read().rows() == model_read(rows, T0 + 99 * HOUR)


@given(batches_of_rows, few_merges_or_many, st.randoms(use_true_random=False), places)
@settings(deadline=None, max_examples=40)
def test_the_order_and_the_grouping_in_which_rows_arrive_change_nothing(batches, most_batches, random_order, place):
    rows = [row for batch in batches for row in batch]
    shuffled = random_order.sample(rows, len(rows))
    with a_history(most_batches, place) as one, a_history(3, place) as other:
        for batch in batches:
            one.append(table(batch))
        while shuffled:
            size = random_order.randint(1, len(shuffled))
            other.append(table(shuffled[:size]))
            shuffled = shuffled[size:]
        assert one.versions().equals(other.versions())


@given(batches_of_rows, few_merges_or_many, places)
@settings(deadline=None, max_examples=25)
def test_appending_twice_is_appending_once(batches, most_batches, place):
    with a_history(most_batches, place) as history:
        for batch in batches:
            history.append(table(batch))
        before = history.versions()
        for batch in batches:
            again = history.append(table(batch))
            assert (again.new, again.revised, again.known) == (0, 0, len(batch))
        assert history.versions().equals(before)


def test_what_a_receipt_was_given_for_is_not_stored_when_it_comes_again_though_its_instant_is_contested_by_then():
    def row(collected: int, value: float | None) -> dict:
        at = T0 + collected * HOUR
        return {"series_id": "EWR", "timestamp": T0, "available_at": at, "collected_at": at, "a": value, "b": value}

    batches = [[row(2, None)], [row(0, 1.0)], [row(2, 1.0), row(3, 1.0)], [row(1, None)]]
    with a_history(1) as history:
        for batch in batches:
            history.append(table(batch))
        before = history.state()
        assert sum(history.append(table(batch)).known for batch in batches) == 5
        assert history.state() == before


@given(st.lists(received, min_size=1, max_size=30), st.integers(0, 4), st.integers(0, 4))
@settings(deadline=None, max_examples=40)
def test_bounds_on_the_timestamp_cut_the_answer_and_nothing_else(rows, first, last):
    start, end = T0 + first * HOUR, T0 + last * HOUR
    with a_history(3) as history:
        history.append(table(rows))
        inside = (pl.col("timestamp") >= start) & (pl.col("timestamp") < end)
        assert history.read(start=start, end=end).equals(history.read().filter(inside))
        assert history.versions(start=start, end=end).equals(history.versions().filter(inside))


@given(batches_of_rows, few_merges_or_many, places)
@settings(deadline=None, max_examples=25)
def test_merging_segments_changes_no_answer(batches, most_batches, place):
    with a_history(most_batches, place) as history:
        for batch in batches:
            history.append(table(batch))
        before = history.versions()
        history._segments.merge()
        history._receipts.merge()
        assert history.versions().equals(before)
        assert history.append(table([row for batch in batches for row in batch])).new == 0
        assert history.versions().equals(before)


moments = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=2)


@given(
    st.lists(st.sampled_from([1.0, 2.0]), min_size=6, max_size=6),
    st.lists(moments, min_size=2, max_size=3),
    st.lists(st.integers(0, 5), max_size=2),
    st.sampled_from([1, 2, 9]),
    st.randoms(use_true_random=True),
)
@settings(deadline=None, max_examples=200)
def test_appenders_at_once_end_as_one_after_the_other_however_their_requests_interleave(
    values, appenders, stored, most_batches, chance
):
    """One observation said again and again: what one appender only confirms, another overtakes. What was collected at
    one instant is the same for all; see the decision record on stores without locks for what that leaves out."""

    def said(collections):
        one = {"series_id": "EWR", "timestamp": T0, "available_at": T0, "b": None}
        return [{**one, "collected_at": T0 + hour * HOUR, "a": values[hour]} for hour in collections]

    with a_history(most_batches, "memory") as history:
        history.append(table(said(stored)))
        turns = Turns(chance)
        at_once = History(Watched(history.root, turns.wait), COLUMNS)

        def append(batches):
            for batch in batches:
                at_once.append(table(said(batch)))

        turns.run(*(partial(append, batches) for batches in appenders))
        rows = said([*stored, *(hour for batches in appenders for batch in batches for hour in batch)])
        assert history.versions().rows() == model_versions(rows)
        assert history.append(table(rows)).new == 0
        assert history.versions().rows() == model_versions(rows)


numbers = st.lists(st.integers(0, 5), min_size=1, max_size=3)


@given(st.lists(numbers, max_size=4), st.lists(numbers, max_size=4), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_no_merger_removes_what_another_keeps_and_a_reader_sees_all_that_was_added(one, other, chance):
    plain = memory()
    turns, added, seen = Turns(chance), [], []
    folder = Segments(Watched(plain, turns.wait), by="at", most_batches=1)

    def rows(values):
        return pl.DataFrame(
            {"at": [T0 + value * HOUR for value in values], "x": values}, schema_overrides={"x": pl.Int64}
        )

    def add(batches):
        for batch in batches:
            segment = folder.add(rows(batch))
            added.extend(batch)
            folder.merge_if_many(segment)

    def read():
        for _ in range(3):
            before = set(added)
            seen.append((before, set(folder.read({"at": TIME, "x": pl.Int64()})["x"])))

    turns.run(lambda: add(one), lambda: add(other), read)
    assert set(Segments(plain, by="at").read({"x": pl.Int64()})["x"]) == set(added)
    assert all(before <= found <= set(added) for before, found in seen)


class Killed(BaseException):
    """Stands for the end of the process: nothing in the code may catch it."""


@pytest.mark.parametrize("place", ["folder", "memory"])
@pytest.mark.parametrize("call", ["put", "delete"])
def test_a_process_that_ends_between_any_two_writes_leaves_the_answers_of_before_or_after(call, place):
    batches = [table(batch) for batch in story(random.Random(5), 9)]
    with a_history(2, place) as undisturbed:
        answers = [undisturbed.versions()]
        for batch in batches:
            undisturbed.append(batch)
            answers.append(undisturbed.versions())
    for fatal in range(1, 20):
        calls = []

        def dying(operation, calls=calls, fatal=fatal):
            calls.extend([1] * (operation == call))
            if operation == call and len(calls) == fatal:
                raise Killed

        with a_history(2, place) as plain:
            history = History(Watched(at(plain.root), dying), COLUMNS)
            for number, batch in enumerate(batches):
                try:
                    history.append(batch)
                except Killed:
                    now = history.versions()
                    assert now.equals(answers[number]) or now.equals(answers[number + 1])
                    history.append(batch)
                assert history.versions().equals(answers[number + 1])


def test_a_writer_killed_at_random_moments_loses_nothing_and_a_rerun_heals_it(tmp_path):
    expected = History(tmp_path / "expected", COLUMNS)
    whole_batches = [expected.versions()]
    for batch in story(random.Random(7), 30):
        expected.append(table(batch))
        whole_batches.append(expected.versions())
    root, moments = tmp_path / "killed", random.Random(11)
    program = (
        "import random, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_history_laws import COLUMNS, History, story, table\n"
        "print('ready', flush=True)\n"
        f"for batch in story(random.Random(7), 30): History(Path({str(root)!r}), COLUMNS).append(table(batch))\n"
    )
    seen = 0
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            try:
                writer.wait(timeout=moments.uniform(0.02, 0.25))
            except subprocess.TimeoutExpired:
                writer.kill()
        left = History(root, COLUMNS).versions()
        assert seen <= (seen := max(n for n, whole in enumerate(whole_batches) if left.equals(whole)))
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    assert History(root, COLUMNS).versions().equals(expected.versions())


@contextmanager
def a_history(most_batches: int, place: str = "folder") -> Iterator[History]:
    """A history of its own for each example of hypothesis, merging after so many batches."""
    before, segments.MOST_BATCHES = segments.MOST_BATCHES, most_batches
    folder = Path(tempfile.mkdtemp())
    try:
        yield History(folder / "history" if place == "folder" else memory(), COLUMNS)
    finally:
        segments.MOST_BATCHES = before
        shutil.rmtree(folder)


def memory() -> Bucket:
    return Bucket("memory://history", MemoryStore()) / "history"


class Watched:
    """A store of which somebody is told before each of its operations."""

    def __init__(self, store, before) -> None:
        self.store, self.before, self.uri = store, before, store.uri

    def __truediv__(self, part):
        return Watched(self.store / part, self.before)

    def put(self, name, content):
        self.before("put")
        self.store.put(name, content)

    def get(self, names):
        return [content for name in names for content in self._get(name)]

    def _get(self, name):
        self.before("get")
        return self.store.get([name])

    def list(self, below=True):
        self.before("list")
        return self.store.list(below)

    def exists(self, name):
        self.before("exists")
        return self.store.exists(name)

    def delete(self, name):
        self.before("delete")
        self.store.delete(name)

    def sweep(self):
        self.store.sweep()


class Turns:
    """Threads of which one runs at a time, from one operation to the next, in an order that chance decides."""

    def __init__(self, chance: random.Random) -> None:
        self.chance, self.me, self.back = chance, threading.local(), threading.Semaphore(0)

    def wait(self, operation: str) -> None:
        self.back.release()
        self.me.turn.acquire()

    def run(self, *works) -> None:
        faults: list[BaseException] = []
        alive = {}

        def passage(turn, work):
            self.me.turn = turn
            turn.acquire()
            try:
                work()
            except BaseException as fault:  # raised again below
                faults.append(fault)
            finally:
                del alive[turn]
                self.back.release()

        for work in works:
            turn = threading.Semaphore(0)
            alive[turn] = threading.Thread(target=passage, args=(turn, work), daemon=True)  # an example may break off
        threads = list(alive.values())
        for thread in threads:
            thread.start()
        while alive:
            self.chance.choice(list(alive)).release()
            self.back.acquire()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]


def table(rows: list[dict]) -> pl.DataFrame:
    schema = {"series_id": pl.String, "a": pl.Float64, "b": pl.Float64}
    times = {name: pl.Datetime("us", "UTC") for name in ("timestamp", "available_at", "collected_at")}
    return pl.DataFrame(rows, schema={**schema, **times})


def story(rng: random.Random, batches: int) -> list[list[dict]]:
    """Polls of the last three hours of two series, with late answers and values that change and change back."""
    told = []
    for step in range(batches):
        collected = T0 + (step - rng.choice([0, 0, 0, 2])) * HOUR
        for series in ("EWR", "JFK"):
            for back in range(3):
                timestamp = T0 + (step - back) * HOUR
                row = {"series_id": series, "timestamp": timestamp, "a": rng.choice([1.0, 1.0, 2.0]), "b": None}
                told.append({**row, "available_at": min(timestamp, collected), "collected_at": collected})
    return [told[start : start + 6] for start in range(0, len(told), 6)]


def model_versions(rows: list[dict]) -> list[tuple]:
    """The versions that rows tell: by observation in the order of collection, each that differs from the one before."""

    def order(row):
        known = [(-1.0 if row[name] is None else row[name]) for name in COLUMNS]
        late = row["available_at"] > row["collected_at"]
        return (row["series_id"], row["timestamp"], row["collected_at"], not late, *known, T0 - row["available_at"])

    versions: list[list] = []
    for _, of_one in groupby(sorted(rows, key=order), key=lambda row: (row["series_id"], row["timestamp"])):
        told = list(of_one)
        first = min((row["collected_at"] for row in told if row["available_at"] <= row["collected_at"]), default=None)
        latest = None
        for row in {row["collected_at"]: row for row in told}.values():
            known = row["available_at"]
            if first is not None and row["collected_at"] > first:
                known = max(known, row["collected_at"])
            if latest is None or any(row[name] != latest[name] for name in COLUMNS):
                versions.append(
                    [row["series_id"], row["timestamp"], known, *(row[n] for n in ("collected_at", *COLUMNS))]
                )
            versions[-1][2] = min(versions[-1][2], known)
            latest = row
    return [tuple(version) for version in versions]


def model_read(rows: list[dict], as_of: datetime) -> list[tuple]:
    return list({row[:2]: row for row in model_versions(rows) if row[2] <= as_of}.values())


def test_the_model_itself_tells_a_value_that_changes_back():
    rows = [{"series_id": "EWR", "timestamp": T0, "b": None} for _ in range(3)]
    for hour, (row, value) in enumerate(zip(rows, (1.0, 2.0, 1.0), strict=True)):
        row.update(a=value, available_at=T0, collected_at=T0 + hour * HOUR)
    assert [row[4] for row in model_versions(rows)] == [1.0, 2.0, 1.0]
    assert conform(table(rows), COLUMNS).height == 3
