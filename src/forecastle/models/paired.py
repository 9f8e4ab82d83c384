"""Whether one of two methods has the smaller errors, or chance would do as much: paired tests over the same rows.

Errors resemble those of the origin before, of their neighbours in horizon and of the other series, and have heavy
tails. docs/promotion.md says how often the tests are wrong, and how that was measured.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

DRAWN_IN = 0.9
"""The outer tenth of the loss differences is drawn in to the size of this quantile of their sizes."""
MOST_TAKEN = 0.5
"""How much of an error's resemblance to the one before is taken out, at most."""
MOST_CHANCE = 0.2
"""The p-value the plain errors may have at most, whatever is seen in what is new in them."""
MOST_PERSISTENCE = 0.9  # of loss differences that is taken out before their variance is estimated
LEVEL = 0.05  # at which MOST_CHANCE is asked for
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def smaller_errors(rows: pl.DataFrame, own: Floats, other: Floats, steps: int) -> float:
    """Return the one-sided p-value that the mean of ``own`` squared is below that of ``other`` squared.

    ``rows`` says of which series_id, origin and horizon the errors are, ``steps`` how many horizons overlap. Two tests
    have to agree (Diebold & Mariano, see ``diebold_mariano``; the rows of one origin count as one, by their mean):

    - one on what is new in the errors. The errors of a series and horizon resemble those of the origin before, alike
      for both methods (they met the same weather), so a share of the one before, estimated from both together and half
      at most, is taken out of each. What is left says the same about equally persistent errors with far less noise.
      Its loss differences have tails so heavy that a few rows decide their mean: the outer tenth is drawn in
      (winsorised, alike on both sides).
    - one on the errors as they are, which has to be below MOST_CHANCE, and holds whatever the two have not in common.

    The p-value is below 5 % where the first is and the second is below MOST_CHANCE; and it is 1 where the errors'
    squares are not smaller at all.
    """
    if np.mean(own**2) > np.mean(other**2):
        return 1.0
    keys = rows.select("series_id", "horizon", "origin").with_row_index("row").sort("series_id", "horizon", "origin")
    keys = keys.select(
        "row",
        chain=pl.struct("series_id", "horizon").rle_id().cast(pl.Int64),
        moment=pl.col("origin").rank("dense").cast(pl.Int64) - 1,
    )
    order, chain, moment = (keys[name].to_numpy() for name in ("row", "chain", "moment"))
    errors = np.stack([own[order], other[order]])
    fresh = _fresh(errors, chain)
    doubt = diebold_mariano(_by_moment(errors[1] ** 2 - errors[0] ** 2, moment), steps)
    return max(
        diebold_mariano(_drawn_in(_by_moment(fresh[1] ** 2 - fresh[0] ** 2, moment)), steps),
        doubt * LEVEL / MOST_CHANCE,
    )


def above_zero(origins: pl.Series, gain: Floats, steps: int) -> float:
    """Return the one-sided p-value that the mean of some rows is above zero; those of one origin count as one."""
    moments = pl.DataFrame({"origin": origins, "gain": gain}).group_by("origin").agg(pl.col("gain").mean())
    return diebold_mariano(_drawn_in(moments.sort("origin")["gain"].to_numpy()), steps)


def diebold_mariano(gain: Floats, horizon: int) -> float:
    """Return the one-sided p-value that the mean of a series of loss differences in time order is above zero.

    Diebold & Mariano (1995) with the small-sample correction of Harvey, Leybourne & Newbold (1997), Student's t with
    n - 1 degrees of freedom. The long-run variance uses Bartlett weights (Newey & West 1987), which keep it positive,
    over at least ``horizon`` - 1 lags, of what is left when each difference's share of the one before is taken out
    (prewhitening, Andrews & Monahan 1992). Without any variation the p-value is 0, 1 or, for no difference, 0.5.
    """
    from scipy.special import stdtr  # type: ignore[import-untyped]  # scipy ships no types

    size = len(gain)
    centred = gain - gain.mean()
    power = float(centred @ centred)
    if power <= 1e-12 * size * float(np.mean(gain**2)):
        return 0.5 if not gain.mean() else float(gain.mean() < 0)
    passed_on = float(np.clip(centred[1:] @ centred[:-1] / power, -MOST_PERSISTENCE, MOST_PERSISTENCE))
    fresh = centred[1:] - passed_on * centred[:-1]
    lags = min(max(horizon - 1, int(4 * (size / 100) ** (2 / 9))), len(fresh) - 1)
    weights = 1 - np.arange(1, lags + 1) / (lags + 1)
    covariances = np.array([fresh[lag:] @ fresh[:-lag] for lag in range(1, lags + 1)]) / len(fresh)
    variance = float(fresh @ fresh / len(fresh) + 2 * weights @ covariances) / (1 - passed_on) ** 2 / size
    steps = min(horizon, size // 2)
    correction = (size + 1 - 2 * steps + steps * (steps - 1) / size) / size
    statistic = float(gain.mean()) / variance**0.5 * correction**0.5
    return float(stdtr(size - 1, -statistic))


def _fresh(errors: Floats, chain: Integers) -> Floats:
    """Return what is new in errors, two rows of them in time order within each chain; the first of a chain has none
    before, and is brought to the others' size."""
    first = np.diff(chain, prepend=-1) != 0
    before = np.where(first, 0.0, np.roll(errors, 1, axis=1))
    passed_on, size = (np.bincount(chain, weights) for weights in ((errors * before).sum(0), (errors**2).sum(0)))
    share = np.divide(passed_on, size, out=np.zeros_like(size), where=size > 0).clip(-MOST_TAKEN, MOST_TAKEN)[chain]
    fresh: Floats = np.where(first, np.sqrt(1 - share**2) * errors, errors - share * before)
    return fresh


def _by_moment(gain: Floats, moment: Integers) -> Floats:
    """Return the mean of the rows of each moment, in time order."""
    return np.bincount(moment, gain) / np.bincount(moment)


def _drawn_in(means: Floats) -> Floats:
    most = float(np.quantile(np.abs(means), DRAWN_IN))
    return np.clip(means, -most, most) if most > 0 else means
