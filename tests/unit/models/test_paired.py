"""The paired test is seldom wrong: simulated errors of two methods, many times over, at the bars it has to keep.

The seeds are others than those the test was chosen by (docs/promotion.md).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.signal import lfilter

from forecastle.models.paired import above_zero, diebold_mariano, smaller_errors

START = datetime(2013, 1, 1, tzinfo=UTC)
TRIES = 300
Errors = tuple[np.ndarray, np.ndarray]


def rows_of(origins: int, series: int = 1, steps: int = 1) -> pl.DataFrame:
    """Return keys in the order of series, step and time."""
    moments = [START + timedelta(hours=number) for number in range(origins)]
    keys = [(f"s{one}", moment, step) for one in range(series) for step in range(1, steps + 1) for moment in moments]
    kinds = {"series_id": pl.String, "origin": pl.Datetime("us", "UTC"), "horizon": pl.Int64}
    return pl.DataFrame(keys, schema=kinds, orient="row")


def follow(fresh: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Return errors each of which holds that share of the one before, without the first fifty."""
    return lfilter([1], [1, -share], fresh, axis=-1)[..., 50:]


def pairs(seed: int, ratio: float, origins: int = 1000, tries: int = TRIES) -> list[Errors]:
    """Return errors of champion and challenger in time order: Student t with 5 degrees of freedom, correlated .9
    between the two, each .5 of the one before; the challenger's are so many times as large."""
    random, shape = np.random.default_rng(seed), (tries, origins + 50)
    one, two = random.normal(size=(2, *shape))
    both = np.stack([one, 0.9 * one + 0.19**0.5 * two]) / np.sqrt(random.chisquare(5, shape) / 5)
    champion, challenger = follow(both)
    return list(zip(champion, ratio * challenger, strict=True))


def share_won(drawn: list[Errors]) -> float:
    """Return how often the challenger is called better."""
    rows = rows_of(len(drawn[0][0]))
    return float(np.mean([smaller_errors(rows, challenger, champion, 1) < 0.05 for champion, challenger in drawn]))


def noise(share: float, tries: int = TRIES) -> float:
    """Return two standard errors of a share counted over so many tries."""
    return 2 * (share * (1 - share) / tries) ** 0.5


def test_an_equal_challenger_is_called_better_once_in_twenty_times_at_most() -> None:
    assert share_won(pairs(1_001, 1.0)) <= 0.05 + noise(0.05)


def test_a_challenger_five_percent_worse_is_never_called_better_and_mostly_worse() -> None:
    drawn = pairs(1_002, 1 / 0.95)
    assert share_won(drawn) <= 0.01
    assert share_won([(challenger, champion) for champion, challenger in drawn]) >= 0.8


def test_a_challenger_five_percent_better_is_missed_less_than_once_in_five_times() -> None:
    assert share_won(pairs(1_003, 0.95)) >= 0.8


@pytest.mark.parametrize("window", [50, 100, 200])
def test_a_lucky_challenger_better_in_one_window_and_a_little_worse_elsewhere_is_not_promoted(window: int) -> None:
    random, drawn = np.random.default_rng(window), pairs(1_004, 1.03, tries=200)
    for _, challenger in drawn:
        start = random.integers(0, 1000 - window)
        challenger[start : start + window] *= 0.85
    assert share_won(drawn) <= 0.05 + noise(0.05, 200)


def test_equal_errors_of_another_memory_bias_or_shape_are_called_better_once_in_five_times_at_most() -> None:
    random = np.random.default_rng(1_005)
    fresh = random.standard_t(5, (3, 200, 1050)) * 0.6**0.5
    other = 0.9 * fresh[0] + 0.19**0.5 * fresh[1]
    normal = 0.9 * fresh[0] + 0.19**0.5 * random.normal(size=(200, 1050))
    size = (1 / (1 - 0.25)) ** 0.5  # of errors that follow at .5
    nulls = {
        "memory": (follow(fresh[0], 0.3) * 0.91**0.5, follow(other, 0.7) * 0.51**0.5),
        "bias": (follow(fresh[0]) / size, follow(other) / size * 0.91**0.5 + 0.3),
        "shape": (follow(fresh[0]) / size, follow(normal) / size),
    }
    for name, (champion, challenger) in nulls.items():
        for drawn in (zip(champion, challenger, strict=True), zip(challenger, champion, strict=True)):
            assert share_won(list(drawn)) <= 0.2 + noise(0.2, 200), name


def test_it_is_honest_over_series_and_overlapping_steps_in_storm_and_calm() -> None:
    random, rows, steps, origins = np.random.default_rng(1_006), rows_of(200, 3, 6), 6, 200
    won = 0
    for _ in range(TRIES):
        storm = np.exp(lfilter([0.3], [1, -0.95], random.normal(size=origins + steps)))
        weather, both = random.standard_t(5, origins + steps), []
        for scale in (1, 10, 100):
            shocks = scale * storm * (0.6 * weather + 0.8 * random.standard_t(5, origins + steps))
            for step in range(1, steps + 1):
                base = np.convolve(shocks, 0.9 ** np.arange(step))[steps : steps + origins]
                own = random.standard_t(5, (2, origins)) * 0.6**0.5 * storm[steps:] * base.std()
                both.append(0.9**0.5 * base + 0.1**0.5 * own)
        champion, challenger = np.concatenate(both, axis=1)
        won += smaller_errors(rows, challenger, champion, steps) < 0.05
    assert won / TRIES <= 0.05 + noise(0.05)


def test_nothing_of_it_depends_on_the_order_of_rows_or_on_the_unit() -> None:
    rows, (champion, challenger) = rows_of(100, 2, 3), np.random.default_rng(1).normal(size=(2, 600))
    found = smaller_errors(rows, 0.9 * challenger, champion, 3)
    order = np.random.default_rng(2).permutation(600)
    assert smaller_errors(rows[order], 0.9 * challenger[order], champion[order], 3) == pytest.approx(found, rel=1e-9)
    assert smaller_errors(rows, 90 * challenger, 100 * champion, 3) == pytest.approx(found, rel=1e-9)


def test_the_same_errors_are_no_smaller_and_larger_ones_never_are() -> None:
    rows, errors = rows_of(50), np.random.default_rng(1).normal(size=50)
    assert smaller_errors(rows, errors, errors, 1) == 0.5
    assert smaller_errors(rows, np.zeros(50), np.zeros(50), 1) == 0.5
    assert smaller_errors(rows, 1.01 * errors, errors, 1) == 1.0
    assert smaller_errors(rows, 0.5 * errors, errors, 1) < 0.01


def test_a_few_wild_rows_do_not_promote() -> None:
    rows, (champion, challenger) = rows_of(1000), np.random.default_rng(2).normal(size=(2, 1000))
    champion[:3] = 100.0
    assert smaller_errors(rows, challenger, champion, 1) > 0.05


def test_a_mean_above_zero_is_seen_through_a_few_wild_rows() -> None:
    moments, gain = rows_of(1000)["origin"], np.random.default_rng(2).normal(0.2, 1, 1000)
    assert above_zero(moments, gain, 1) < 0.01
    gain[:3] = -1000.0
    assert above_zero(moments, gain, 1) < 0.01


def test_the_mean_of_differences_that_follow_one_another_is_judged_honestly() -> None:
    gains = follow(np.random.default_rng(7).normal(size=(400, 350)))
    assert np.mean([diebold_mariano(gain, 6) < 0.05 for gain in gains]) < 0.09


def test_it_is_symmetric_and_decides_what_never_varies() -> None:
    gain = np.random.default_rng(3).normal(0.1, 1, 100)
    assert diebold_mariano(gain, 6) + diebold_mariano(-gain, 6) == pytest.approx(1)
    assert [diebold_mariano(np.full(50, value), 6) for value in (1.0, 0.0, -1.0)] == [0.0, 0.5, 1.0]
