"""What estimators learn from: pairs of an origin and a step ahead whose truth is known, thinned where there are many.

A Lesson holds what all estimators of one fit share, above all the matrix in LightGBM's bins: it is made once, whatever
number of boosters learns from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from forecastle.data.examples import Examples
from forecastle.data.panel import Booleans, Floats, Integers
from forecastle.data.transformation import Matrix
from forecastle.models.trees import THREADS, Trees, one_thread
from forecastle.settings import apply_library_defaults

Given = TypeVar("Given")
Found = TypeVar("Found")
Other = TypeVar("Other")

MANY = 200_000  # pairs learnt from
ENOUGH = 100_000  # pairs from which a second thread is worth its waiting
TAME = 30.0  # spreads of the middle 95 %
MANY_STEPS = 6  # steps ahead up to which each may see all its rows
FEWEST_PAIRS = 120_000  # that boosters see of more steps, where there are so many
LEAVES, GROWTH = "leaves_factor", "rounds_factor"

BOOSTING: dict[str, Any] = {
    "objective": "l2",
    "learning_rate": 0.07,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 63,
    "bin_construct_sample_cnt": 20_000,
    "verbosity": -1,
    "deterministic": True,
    "force_col_wise": True,
}


@dataclass(frozen=True)
class Options:
    """How much an estimator may learn from, and how long: the defaults are the same for every task."""

    rows: int = 300_000  # (origin, step) pairs boosters see at most, evenly thinned
    ridge_rows: int = 60_000  # origins a step ahead ridge sees at most, fewer where there are many steps
    rounds: int = 150  # trees of a booster; where it learns from many pairs, eight fifths of them
    seed: int = 0
    threads: int = THREADS
    boosting: Mapping[str, float] = field(default_factory=dict)
    """Where they are tuned, LightGBM's parameters; LEAVES and GROWTH as factors of what so many pairs usually have."""

    def pairs(self, steps: int) -> int:
        """Return how many pairs boosters see of so many steps ahead.

        Steps of one origin lie the closer together the more there are, and tell the less that is new.
        """
        return self.rows if steps <= MANY_STEPS else min(self.rows, max(FEWEST_PAIRS, self.rows * MANY_STEPS // steps))


@dataclass(frozen=True)
class Fitted:
    """What an estimator learnt: its name, numbers that survive JSON, and trees where it has any."""

    name: str
    numbers: dict[str, Any] = field(default_factory=dict)
    trees: Trees | None = None

    @cached_property
    def by_step(self) -> tuple[tuple[Floats, Floats, Floats], ...]:
        """Mean, deviation and weights of what was learnt for each step ahead, as arrays."""
        return tuple(
            (np.array(one["mean"]), np.array(one["deviation"]), np.array(one["weights"]))
            for one in self.numbers["steps"]
        )


@dataclass(frozen=True)
class Pairs:
    """(origin, step ahead) pairs of some examples: the rows a booster sees."""

    examples: Examples
    row: Integers  # (m,)
    step: Integers  # (m,) 1…H

    @property
    def matrix(self) -> Matrix:
        """The features of each pair, the step ahead last: (m, F + G + 1)."""
        width = len(self.examples.origin_names)
        found = np.empty((len(self.row), len(self.names)), dtype=np.float32)
        found[:, :width] = self.examples.origin[self.row]
        found[:, width:-1] = self.examples.step[self.step - 1, self.row]
        found[:, -1] = self.step
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the matrix's columns."""
        return (*self.examples.names, "step_ahead")

    def pick(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return of values (n, H), or (n,), the one that belongs to each pair."""
        return values[self.row] if values.ndim == 1 else values[self.row, self.step - 1]

    def spread(self, values: Floats) -> Floats:
        """Return values of all pairs of all examples (m = n · H, by step then row) as a matrix (n, H)."""
        return values.reshape(self.examples.steps, len(self.examples)).T


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the estimators of one fit learn from: the examples whose truth is not after ``until`` (microseconds)."""

    examples: Examples
    until: int
    options: Options
    shared: bool = False  # whether several boosters learn from it, each with a copy of the bins

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs boosters see."""
        most = self.options.pairs(self.examples.steps)
        return thinned(labelled(self.examples, self.until), self.examples, most)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """LightGBM's parameters; where there is much to learn from, trees are larger and more."""
        rows, rounds, tuned = len(self.pairs.row), self.options.rounds, dict(self.options.boosting)
        leaves = (63 if rows >= MANY else 31) * tuned.pop(LEAVES, 1.0)
        growth = (rounds * 8 // 5 if rows >= MANY else rounds) * tuned.pop(GROWTH, 1.0)
        return {
            **BOOSTING,
            "num_leaves": max(2, round(leaves)),
            "num_iterations": max(1, round(growth)),
            "num_threads": fit_threads(rows, self.options.threads),
            "seed": self.options.seed + 1,
            **tuned,
        }

    @cached_property
    def binned(self) -> Any:
        """The pairs' matrix as LightGBM's Dataset, its labels still to be set."""
        return binned(self.pairs.matrix, self.pairs.names, np.zeros(len(self.pairs.row)), self.parameters)

    def labelled_with(self, goal: Floats) -> Any:
        """Return the Dataset with a goal (m,) as its labels."""
        data = self.binned.subset(np.arange(len(goal))) if self.shared else self.binned
        return data.construct().set_label(goal)


def binned(matrix: Matrix, names: Sequence[str], goal: Floats, parameters: dict[str, Any]) -> Any:
    """Return LightGBM's Dataset of rows (m, F); the series is a category."""
    data = load_lightgbm().Dataset(
        matrix,
        goal,
        feature_name=tree_names(names),
        categorical_feature=[names.index("series")],
        params=parameters,
    )
    return data.construct()


def at_once(work: Callable[[Given], Found], given: Sequence[Given]) -> list[Found]:
    """Return what a function makes of each of what is given, in order; as many threads as may learn share the work.

    LightGBM and most of NumPy let other threads run meanwhile.
    """
    if len(given) < 2:
        return [work(one) for one in given]
    with one_thread_each(), ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, given))


def both(first: Callable[[], Found], second: Callable[[], Other]) -> tuple[Found, Other]:
    """Return what two calls return that are made at once, so that neither's last fit leaves a processor idle."""
    with one_thread_each(), ThreadPoolExecutor(1) as pool:
        other = pool.submit(second)
        return first(), other.result()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let LightGBM and the libraries of linear algebra work for each caller by one thread.

    Theirs is one number for the whole process, and the last bits of a sum hang on it: what goes on beside would change
    what is learnt. May be nested, and in threads within.
    """
    load_lightgbm()  # and with it all these libraries: only those that are there can be told
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"), one_thread():
        yield


def all_pairs(examples: Examples) -> Pairs:
    """Return every pair, step by step."""
    size, steps = len(examples), examples.steps
    return Pairs(examples, np.tile(np.arange(size), steps), np.repeat(np.arange(1, steps + 1), size))


def labelled(examples: Examples, until: int) -> Booleans:
    """Return which pairs (n, H) have a truth not after ``until`` (microseconds) and a last value to start from."""
    return (examples.times <= until) & ~np.isnan(examples.truth) & ~np.isnan(examples.last)[:, None]


def thinned(chosen: Booleans, examples: Examples, most: int) -> Pairs:
    """Return the chosen pairs (n, H), evenly thinned over time to at most ``most``, each step with its own phase."""
    order = np.lexsort((examples.series, examples.origins))
    rows, steps, share = [], [], most // examples.steps
    for step in range(1, examples.steps + 1):
        here = order[chosen[order, step - 1]]
        if len(here) > share:
            phase = (step - 1) / examples.steps
            here = here[((np.arange(share) + phase) * len(here) / share).astype(np.int64)]
        rows.append(here)
        steps.append(np.full(len(here), step))
    return Pairs(examples, np.concatenate(rows), np.concatenate(steps))


def spread_out(origins: Integers, most: int) -> Booleans:
    """Tell which of some origins make an even share of their moments, of about ``most`` origins, all series alike.

    The stride shares no factor with 24 or 7, so that every hour and weekday is met.
    """
    stride = max(1, -(-len(origins) // max(most, 1)))
    while stride > 1 and any(stride % prime == 0 for prime in (2, 3, 7)):
        stride += 1
    chosen: Booleans = np.isin(origins, np.unique(origins)[::stride])
    return chosen


def tamed(values: Floats) -> Floats:
    """Return values with those a sensor's fault alone can explain moved to the edge of what may be.

    The edge lies thirty times the spread of the middle 95 % away from it: no weather and no market goes there, and a
    single fault beyond it would outweigh all else in a squared error. Where the middle has no spread, nothing is moved.
    """
    present = values[~np.isnan(values)]
    if not len(present):
        return values
    low, high = np.quantile(present, (0.025, 0.975))
    room = TAME * (high - low)
    found: Floats = np.clip(values, low - room, high + room) if room > 0 else values
    return found


def fit_threads(rows: int, most: int = THREADS) -> int:
    """Return how many threads learn from so many rows; little work is done sooner by one than by two that wait."""
    return most if rows >= ENOUGH else 1


def tree_names(names: Sequence[str]) -> list[str]:
    """Return names that LightGBM's text can hold, each once: a column of the user's may be called anything."""
    plain = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in names]
    return [name if plain.count(name) == 1 else f"{name}_{place}" for place, name in enumerate(plain)]


def load_lightgbm() -> Any:
    """Import LightGBM, its threads told first not to spin while they wait."""
    apply_library_defaults()
    import lightgbm

    return lightgbm
