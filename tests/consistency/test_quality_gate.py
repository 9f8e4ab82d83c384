"""The page on the quality gate, the checks, the names a task file may give them, and the faults are of one mind."""

from __future__ import annotations

import re
from typing import get_args

from forecastle.data.faults import FAULTS
from forecastle.data.quality_check import CHECKS
from forecastle.rule import CONTRACT, CheckName

PAGE = "docs/quality-gate.md"


def _rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its own two heading lines."""
    below = page.split(f"\n{heading}\n")[1].split("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_page_lists_every_check_with_its_scope_and_verdicts(documents) -> None:
    listed = [(name, scope, one, every) for name, _, scope, one, every in _rows(documents[PAGE], "## Checks")]
    assert listed == [(name, check.scope, check.one, check.all) for name, check in CHECKS.items()]


def test_a_task_file_may_name_every_check_and_no_other() -> None:
    assert get_args(CheckName) == tuple(CHECKS)
    assert set(CONTRACT) <= set(CHECKS)


def test_the_page_lists_every_fault_with_what_catches_it(documents) -> None:
    listed = [tuple(row) for row in _rows(documents[PAGE], "## The fault matrix")]
    assert listed == [(name, one.what, one.caught, one.becomes) for name, one in FAULTS.items()]


def test_what_the_page_says_cannot_be_softened_is_the_contract(documents) -> None:
    said = re.search(r"`(\w+)`, `(\w+)` and `(\w+)` cannot be made to warn", documents[PAGE])
    assert said is not None and said.groups() == CONTRACT
