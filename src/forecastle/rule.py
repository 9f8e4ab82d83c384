"""What a task may say of the gate's checks, by their names; the checks themselves are ``data.quality_check.CHECKS``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

CheckName = Literal[
    "schema",
    "keys",
    "unknown-series",
    "duplicates",
    "time-order",
    "times",
    "freshness",
    "volume",
    "cadence",
    "gaps",
    "null-share",
    "finite",
    "range",
    "flatline",
    "unit-jump",
]
CONTRACT: tuple[CheckName, ...] = ("schema", "keys", "times")
"""Checks of what the history cannot hold: no task may soften them."""


class CheckRule(BaseModel):
    """What a failure of one check of the gate means, where the task wants it otherwise than the check itself does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: Literal["batch", "series"] | None = None
    verdict: Literal["warn", "fail"] | None = None
