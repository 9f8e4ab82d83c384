"""Windows: what a request brings, completed from what is known of a series."""

from __future__ import annotations

import numpy as np
import pytest

from forecastle.data.dense import NOTHING, Recent, lay

HOUR = 3_600_000_000
NAN = float("nan")


@pytest.fixture
def recent() -> Recent:
    """Five hours of two columns of series ``a``, from hour 10 on."""
    return Recent(HOUR, {"a": 10 * HOUR}, {"a": np.array([[1.0, 2.0, NAN, 4.0, NAN], [10.0, 20.0, 30.0, 40.0, 50.0]])})


@pytest.mark.parametrize(
    ("hour", "expected"),
    [
        (14, [[NAN, 4.0, NAN], [50.0, 40.0, 30.0]]),
        (12, [[NAN, 2.0, 1.0], [30.0, 20.0, 10.0]]),
        (10, [[1.0, NAN, NAN], [10.0, NAN, NAN]]),
        (16, [[NAN, NAN, NAN], [NAN, NAN, 50.0]]),
        (17, [[NAN] * 3] * 2),
        (9, [[NAN] * 3] * 2),
    ],
)
def test_a_window_ends_at_its_origin_newest_first_and_is_empty_where_nothing_is_known(recent, hour, expected) -> None:
    assert np.array_equal(recent.window("a", hour * HOUR, 2, 3), expected, equal_nan=True)


def test_of_an_unknown_series_nothing_is_known(recent) -> None:
    assert np.isnan(recent.window("b", 12 * HOUR, 2, 3)).all()
    assert np.isnan(NOTHING.window("b", 12 * HOUR, 2, 3)).all()


def test_values_are_laid_over_what_is_there_and_those_missing_leave_it(recent) -> None:
    window = recent.window("a", 14 * HOUR, 2, 3)
    lay(window, np.array([4, 1, 0, 0]), np.array([[9.0, NAN, 7.0, 8.0], [9.0, 41.0, NAN, NAN]]))
    assert np.array_equal(window, [[8.0, 4.0, NAN], [50.0, 41.0, 30.0]], equal_nan=True)
