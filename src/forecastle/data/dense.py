"""What is known of each series lately, as windows: what a request brings, completed from the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forecastle.data.panel import Floats, Integers, Panel


@dataclass(frozen=True)
class Recent:
    """The newest values of every series of a panel on the regular grid, by series: its first timestamp, (C, rows)."""

    step: int  # microseconds
    first: Mapping[str, int]
    values: Mapping[str, Floats]

    def window(self, series_id: str, origin: int, columns: int, width: int) -> Floats:
        """Return a new window (columns, width) that ends at an origin: the newest first, NaN where nothing is known."""
        found = np.empty((columns, width))
        self.fill(found, series_id, origin)
        return found

    def fill(self, window: Floats, series_id: str, origin: int) -> None:
        """Fill a window (columns, width) that ends at an origin with what is known: the newest first."""
        window.fill(np.nan)
        if series_id in self.values:
            values, width = self.values[series_id], window.shape[1]
            end = (origin - self.first[series_id]) // self.step + 1  # one past the origin's place
            upto, start = min(end, values.shape[1]), max(end - width, 0)
            if upto > start:
                window[:, end - upto : end - start] = values[:, start:upto][:, ::-1]


NOTHING = Recent(1, {}, {})


def make_recent(panel: Panel) -> Recent:
    """Return what a panel holds, each series by itself; the newest version of everything counts as known."""
    starts, ends = panel.offsets[:-1], panel.offsets[1:]
    return Recent(
        panel.step,
        {name: int(panel.timestamps[start]) for name, start in zip(panel.series_ids, starts, strict=True)},
        {
            name: panel.values[:, start:end]
            for name, start, end in zip(panel.series_ids, starts.tolist(), ends.tolist(), strict=True)
        },
    )


def lay(window: Floats, steps_back: Integers, values: Floats) -> None:
    """Lay values (columns, m), in the order of their times, so many steps back into a window; NaN leaves what is there.

    Of several in one step the last one counts.
    """
    width = window.shape[1]
    inside = (steps_back >= 0) & (steps_back < width)
    if not inside.all():
        steps_back, values = steps_back[inside], values[:, inside]
    for own, told in zip(window, values, strict=True):
        there = told == told
        if there.all():
            own[steps_back] = told
        else:
            own[steps_back[there]] = told[there]
