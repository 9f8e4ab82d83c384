"""The laws of the bitemporal history, against a model of it that is a list of rows and two loops."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecastle.data import segments
from forecastle.data.history import History
from forecastle.frame import conform

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
    st.integers(0, 3),
    values,
    values,
)
batches_of_rows = st.lists(st.lists(received, max_size=8), max_size=14)
few_merges_or_many = st.sampled_from([1, 3, 100])


@given(batches_of_rows, few_merges_or_many, st.integers(-1, 9))
@settings(deadline=None, max_examples=60)
def test_what_is_read_is_what_a_model_of_versions_says(batches, most_batches, as_of):
    with a_history(most_batches) as history:
        for batch in batches:
            history.append(table(batch))
        rows = [row for batch in batches for row in batch]
        moment = T0 + as_of * HOUR
        assert history.versions().rows() == model_versions(rows)
        assert history.versions(as_of=moment).rows() == [row for row in model_versions(rows) if row[2] <= moment]
        assert history.read(as_of=moment).rows() == model_read(rows, moment)
        assert history.read().rows() == model_read(rows, T0 + 99 * HOUR)


@given(batches_of_rows, few_merges_or_many, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_the_order_and_the_grouping_in_which_rows_arrive_change_nothing(batches, most_batches, random_order):
    rows = [row for batch in batches for row in batch]
    shuffled = random_order.sample(rows, len(rows))
    with a_history(most_batches) as one, a_history(3) as other:
        for batch in batches:
            one.append(table(batch))
        while shuffled:
            size = random_order.randint(1, len(shuffled))
            other.append(table(shuffled[:size]))
            shuffled = shuffled[size:]
        assert one.versions().equals(other.versions())


@given(batches_of_rows, few_merges_or_many)
@settings(deadline=None, max_examples=25)
def test_appending_twice_is_appending_once(batches, most_batches):
    with a_history(most_batches) as history:
        for batch in batches:
            history.append(table(batch))
        before = history.versions()
        for batch in batches:
            again = history.append(table(batch))
            assert (again.new, again.revised, again.known) == (0, 0, len(batch))
        assert history.versions().equals(before)


@given(st.lists(received, min_size=1, max_size=30), st.integers(0, 4), st.integers(0, 4))
@settings(deadline=None, max_examples=40)
def test_bounds_on_the_timestamp_cut_the_answer_and_nothing_else(rows, first, last):
    start, end = T0 + first * HOUR, T0 + last * HOUR
    with a_history(3) as history:
        history.append(table(rows))
        inside = (pl.col("timestamp") >= start) & (pl.col("timestamp") < end)
        assert history.read(start=start, end=end).equals(history.read().filter(inside))
        assert history.versions(start=start, end=end).equals(history.versions().filter(inside))


@given(batches_of_rows, few_merges_or_many)
@settings(deadline=None, max_examples=25)
def test_merging_segments_changes_no_answer(batches, most_batches):
    with a_history(most_batches) as history:
        for batch in batches:
            history.append(table(batch))
        before = history.versions()
        history._segments.merge()
        history._receipts.merge()
        assert history.versions().equals(before)
        assert history.append(table([row for batch in batches for row in batch])).new == 0
        assert history.versions().equals(before)


class Killed(BaseException):
    """Stands for the end of the process: nothing in the code may catch it."""


@pytest.mark.parametrize("call", ["write_bytes", "unlink"])
def test_a_process_that_ends_between_any_two_writes_leaves_the_answers_of_before_or_after(tmp_path, monkeypatch, call):
    monkeypatch.setattr(segments, "MOST_BATCHES", 2)
    batches = [table(batch) for batch in story(random.Random(5), 9)]
    undisturbed = History(tmp_path / "undisturbed", COLUMNS)
    answers = [undisturbed.versions()]
    for batch in batches:
        undisturbed.append(batch)
        answers.append(undisturbed.versions())

    owner = segments if call == "write_bytes" else Path
    real = getattr(owner, call)
    for fatal in range(1, 20):
        calls = 0

        def dying(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == fatal:
                raise Killed
            return real(*arguments, **options)

        history = History(tmp_path / f"{call}-{fatal}", COLUMNS)
        monkeypatch.setattr(owner, call, dying)
        for number, batch in enumerate(batches):
            try:
                history.append(batch)
            except Killed:
                now = history.versions()
                assert now.equals(answers[number]) or now.equals(answers[number + 1])
                history.append(batch)
            assert history.versions().equals(answers[number + 1])
        monkeypatch.setattr(owner, call, real)


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
def a_history(most_batches: int) -> Iterator[History]:
    """A history of its own for each example of hypothesis, merging after so many batches."""
    before, segments.MOST_BATCHES = segments.MOST_BATCHES, most_batches
    folder = Path(tempfile.mkdtemp())
    try:
        yield History(folder / "history", COLUMNS)
    finally:
        segments.MOST_BATCHES = before
        shutil.rmtree(folder)


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
        return (row["series_id"], row["timestamp"], row["collected_at"], *known, row["available_at"])

    versions = []
    for _, of_one in groupby(sorted(rows, key=order), key=lambda row: (row["series_id"], row["timestamp"])):
        latest = None
        by_instant = {row["collected_at"]: row for row in of_one}
        for row in by_instant.values():
            if latest is None or any(row[name] != latest[name] for name in COLUMNS):
                first = row["available_at"] if latest is None else row["collected_at"]
                versions.append(
                    (row["series_id"], row["timestamp"], first, *(row[n] for n in ("collected_at", *COLUMNS)))
                )
            latest = row
    return versions


def model_read(rows: list[dict], as_of: datetime) -> list[tuple]:
    return list({row[:2]: row for row in model_versions(rows) if row[2] <= as_of}.values())


def test_the_model_itself_tells_a_value_that_changes_back():
    rows = [{"series_id": "EWR", "timestamp": T0, "b": None} for _ in range(3)]
    for hour, (row, value) in enumerate(zip(rows, (1.0, 2.0, 1.0), strict=True)):
        row.update(a=value, available_at=T0, collected_at=T0 + hour * HOUR)
    assert [row[4] for row in model_versions(rows)] == [1.0, 2.0, 1.0]
    assert conform(table(rows), COLUMNS).height == 3
