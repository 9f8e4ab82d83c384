"""What tests of monitoring share: what the gate says of a batch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import polars as pl
import pytest

from forecastle.data.checks.finding import Finding
from forecastle.data.quality_check import QualityReport

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def judged() -> Callable[..., QualityReport]:
    """Return the report on a batch that passed, but for the series that are named, which are withheld."""

    def judge(*withheld: str) -> QualityReport:
        verdict = "fail" if withheld else "pass"
        finding = Finding("values", "none" if withheld else "values", pl.DataFrame(), verdict, check="null-share")
        held = {name: ("null-share",) for name in withheld}
        return QualityReport("t", NOON, NOON, NOON, 24, 0, (finding,), refused=False, withheld=held)

    return judge
