"""Facts: what the report says, each with where it was read, or with the command that would measure it.

A report is made in two steps that share nothing but these facts: ``evidence`` reads them from what ran, ``chapters``
make sentences, tables and charts of them. Whatever the report shows can therefore be found in ``report.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from forecastle.errors import UserError, plainly
from forecastle.frame import to_json, write_text

FORMAT = 1
NOT_MEASURED = "not measured"
NOT_TOLD = "not told"


@dataclass(frozen=True)
class Fact:
    """One thing that was read: a number, a text, a list of texts or of rows; ``value`` None where it was not measured,
    and then ``measure`` is the command that would."""

    value: Any
    source: str
    measure: str = ""


Found = Iterator[tuple[str, Fact]]
SILENT = Fact(None, "a store that did not answer", "forecastle doctor")


class Facts:
    """All facts of a report by their names, such as ``results.backtest.rmse``."""

    def __init__(self, facts: Mapping[str, Fact]) -> None:
        self._facts = dict(facts)

    def __contains__(self, name: str) -> bool:
        return self.fact(name).value is not None

    def fact(self, name: str) -> Fact:
        """Return a fact; one of a store that did not answer is not measured."""
        return self._facts.get(name, SILENT)

    def value(self, name: str) -> Any:
        """Return a fact's value, None where it was not measured."""
        return self.fact(name).value

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return a fact that is a table, none where it was not measured."""
        return list(self.fact(name).value or ())

    def text(self, name: str, unit: str = "") -> str:
        """Return a fact as it is shown, or that it was not measured and how it would be."""
        fact = self.fact(name)
        if fact.value is None:
            return unmeasured(fact)
        shown = ", ".join(map(say, fact.value)) if isinstance(fact.value, list) else say(fact.value)
        return f"{shown} {unit}".strip()

    def names(self) -> tuple[str, ...]:
        """Return the names of all facts."""
        return tuple(self._facts)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: asdict(fact) for name, fact in self._facts.items()}


def unmeasured(fact: Fact) -> str:
    """Return what stands in the place of a fact that was not measured."""
    missing = NOT_TOLD if "[report]" in fact.measure else NOT_MEASURED
    return f"{missing}: `{fact.measure}`" if fact.measure else missing


def say(value: Any) -> str:
    """Return a value as the report shows it: four significant digits, thousands apart, moments to the minute."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _number(value)
    return _moment(value) if isinstance(value, str) else str(value)


def save(path: Path, facts: Facts) -> Path:
    """Write the facts as JSON, whole or not at all."""
    return write_text(path, to_json({"format": FORMAT, "facts": facts.as_dict()}, indent=1) + "\n")


def load(path: Path) -> Facts:
    """Read what ``save`` wrote. Raises UserError where that is not there or of another format."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"format {found['format']}")
        return Facts({name: Fact(**fact) for name, fact in found["facts"].items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the facts of a report at {path}", plainly(error), "Gather them: forecastle report --task FILE"
        ) from error


def plain(found: Iterable[tuple[str, Fact]], hide: Mapping[str, str]) -> Facts:
    """Return facts as JSON holds them, with places of this machine (``hide``: place → what is shown) left out."""
    read = {name: json.loads(to_json(asdict(fact))) for name, fact in found}
    return Facts({name: Fact(**_without(fact, hide)) for name, fact in read.items()})


def _without(value: Any, hide: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for place, shown in hide.items():
            value = value.replace(place, shown)
        return value
    if isinstance(value, list):
        return [_without(one, hide) for one in value]
    if isinstance(value, dict):
        return {name: _without(one, hide) for name, one in value.items()}
    return value


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.4g}"
    return text.replace("-", "−") if "e" not in text else text


def _moment(text: str) -> str:
    if len(text) >= 19 and text[4:5] == "-" and text[10:11] == "T":
        try:
            return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"
        except ValueError:
            return text
    return text
