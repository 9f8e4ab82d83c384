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
    found = rows.select("series_id", "origin", "horizon").with_columns(own=own, other=other)
    size, passed_on = pl.col("own") ** 2 + pl.col("other") ** 2, _times_the_one_before("own", "other")
    share = (_of_chain(passed_on.sum()) / _of_chain(size.sum())).fill_nan(0).clip(-MOST_TAKEN, MOST_TAKEN)
    found = found.with_columns(share=share)
    found = found.with_columns(_of_chain(_fresh(name)).alias(f"fresh_{name}") for name in ("own", "other"))
    gains = {"plain": ("own", "other"), "fresh": ("fresh_own", "fresh_other")}
    moments = found.group_by("origin").agg(
        (pl.col(two) ** 2 - pl.col(one) ** 2).mean().alias(name) for name, (one, two) in gains.items()
    )
    plain, fresh = (moments.sort("origin")[name].to_numpy() for name in gains)
    if np.mean(own**2) > np.mean(other**2):
        return 1.0
    doubt = diebold_mariano(plain, steps)
    return max(diebold_mariano(_drawn_in(fresh), steps), doubt * LEVEL / MOST_CHANCE)


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


def _of_chain(what: pl.Expr) -> pl.Expr:
    """Return what is computed within each series and horizon, in time order."""
    return what.over("series_id", "horizon", order_by="origin")


def _times_the_one_before(*names: str) -> pl.Expr:
    return pl.sum_horizontal(pl.col(name) * pl.col(name).shift(1) for name in names)


def _fresh(name: str) -> pl.Expr:
    """Return what is new in errors; the first of a chain has none before and is brought to the others' size."""
    share = pl.col("share")
    return (pl.col(name) - share * pl.col(name).shift(1)).fill_null((1 - share**2).sqrt() * pl.col(name))


def _drawn_in(means: Floats) -> Floats:
    most = float(np.quantile(np.abs(means), DRAWN_IN))
    return np.clip(means, -most, most) if most > 0 else means
