"""Facts keep where they were read, and are shown in one way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecastle.errors import UserError
from forecastle.reporting.facts import Fact, Facts, load, plain, save, say


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (24973, "24,973"),
        (1.518324, "1.518"),
        (0.0, "0"),
        (-3.25, "−3.25"),
        (4833795.4, "4,833,795"),
        (float("nan"), "–"),
        ("2013-12-15T02:05:00Z", "2013-12-15 02:05 UTC"),
        ("words", "words"),
    ],
)
def test_a_value_is_shown_so(value: object, shown: str) -> None:
    assert say(value) == shown


def test_what_was_not_measured_says_by_what_command_it_would_be() -> None:
    facts = Facts(
        {"a": Fact(None, "journal", "forecastle live"), "b": Fact(None, "task file", "write b under [report]")}
    )
    assert facts.text("a") == "not measured: `forecastle live`"
    assert facts.text("b") == "not told: `write b under [report]`"
    assert facts.text("of a store that did not answer") == "not measured: `forecastle doctor`"
    assert "a" not in facts


def test_lists_and_units_are_shown_with_their_fact() -> None:
    facts = Facts({"lags": Fact([0, 1, 1200], "recipe"), "rmse": Fact(1.25, "bundle")})
    assert facts.text("lags") == "0, 1, 1,200" and facts.text("rmse", "°C") == "1.25 °C"


def test_places_of_this_machine_are_left_out_wherever_they_stand() -> None:
    found = [("where", Fact([{"store": "/home/ann/demo/journal.db"}], "/home/ann/demo"))]
    facts = plain(found, {"/home/ann/demo": "data"})
    assert facts.fact("where") == Fact([{"store": "data/journal.db"}], "data")


def test_what_is_saved_is_read_back_as_it_was(tmp_path: Path) -> None:
    at = datetime(2013, 12, 1, tzinfo=UTC)
    facts = plain([("at", Fact(at, "clock")), ("none", Fact(None, "journal", "forecastle live"))], {})
    assert load(save(tmp_path / "report.json", facts)).as_dict() == facts.as_dict()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 99, "facts": {}}', '{"format": 1, "facts": {"a": {}}}'])
def test_what_are_no_facts_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UserError, match="forecastle report --task"):
        load(tmp_path / "report.json")
