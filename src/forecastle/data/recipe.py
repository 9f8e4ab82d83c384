"""The recipe of features: everything that decides what the features of a row are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

COVARIATE_LAGS = (0, 1, 2, 3, 6, 12)
COVARIATE_WINDOWS = (6, 24)
PROFILE_SEASONS = 7  # how many seasons the usual course of the day is the mean of
SEASONS = 8  # how many seasons back the seasonal naive method looks for a value

_DAY = 86_400_000_000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what the features of a row are; stored with the model, so that serving repeats it."""

    columns: tuple[str, ...]  # the target first
    series_ids: tuple[str, ...]  # what the series number of a row refers to
    lags: tuple[int, ...]
    windows: tuple[int, ...]
    season: int
    steps: int
    timezone: str
    grid: str
    holidays: str | None
    step: int  # microseconds
    ahead: tuple[str, ...] = ()  # the covariates of which forecasts are looked at
    cascade: tuple[int, ...] = ()  # of a target that may be a volatility: the steps of a day, a week and a month

    @property
    def week(self) -> int:
        """How many seasons make a week: seven days, five trading days, or one season where it is no shorter."""
        if self.grid == "observed":
            return 5
        return max(1, int(7 * _DAY // (self.season * self.step)))

    @property
    def reach(self) -> int:
        """How many steps before an origin its features may look back, at most."""
        seasons = max(SEASONS, PROFILE_SEASONS, 2 * self.week) + -(-self.steps // self.season)
        return max(
            *self.lags, *self.windows, *self.cascade, *COVARIATE_LAGS, *COVARIATE_WINDOWS, (seasons + 1) * self.season
        )

    @property
    def lookback(self) -> timedelta | None:
        """How much history before an origin serving has to read to see what training saw; None: all of it.

        How far so many bars reach back, nights and holidays between them, only the bars can tell.
        """
        return timedelta(microseconds=(self.reach + 1) * self.step) if self.grid == "regular" else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data that ``from_dict`` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        """Read what ``as_dict`` wrote."""
        several = ("columns", "series_ids", "lags", "windows", "ahead", "cascade")
        listed = {name: tuple(data.get(name, ())) for name in several}
        return cls(**{**data, **listed})
