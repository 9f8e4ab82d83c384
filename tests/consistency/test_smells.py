"""Shortcuts that have no place in the package, by name."""

from __future__ import annotations

import ast
import re

import pytest


@pytest.mark.parametrize(
    "smell",
    [
        r"\bTODO\b|\bFIXME\b|\bXXX\b",
        r"\bNotImplementedError\b|\bnot implemented\b",
        r"\bsys\.path\b",
        r"\blocals\(\)|^\s*global\s",
    ],
)
def test_the_package_is_free_of(smell: str, sources) -> None:
    pattern = re.compile(smell, re.IGNORECASE if "implemented" in smell else 0)
    found = [
        f"{source.name}:{number}: {line.strip()}"
        for source in sources
        for number, line in enumerate(source.text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_no_private_function_is_left_that_its_module_does_not_use(sources) -> None:
    asked_for = ["models/pyfunc.py: _load_pyfunc"]  # by MLflow
    found = [
        f"{source.name}: {node.name}"
        for source in sources
        for node in source.tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("_") and not node.name.startswith("__")
        if len(re.findall(rf"\b{node.name}\b", source.text)) == 1 and not node.decorator_list
    ]
    assert found == asked_for


def test_time_is_not_counted_in_rows(sources) -> None:
    counting_bars = {"monitoring/outcomes.py"}  # where markets close, a step is by definition the next row
    assert {source.name for source in sources if re.search(r"\.shift\(\s*-", source.text)} <= counting_bars


def test_no_handler_catches_every_exception_and_goes_on(sources) -> None:
    found = [
        f"{source.name}:{node.lineno}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node) and not _raises_again(node)
    ]
    assert found == []


def test_only_the_command_line_and_the_demo_print(sources) -> None:
    found = [
        f"{source.name}:{node.lineno}"
        for source in sources
        if not source.name.startswith(("cli/", "demo/"))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_no_module_has_a_name_that_says_nothing(sources) -> None:
    empty = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
    assert [source.name for source in sources if empty.intersection(re.split(r"[/.]", source.name))] == []


def test_no_module_is_too_long_to_read(sources) -> None:
    assert {source.name: len(source.text.splitlines()) for source in sources if source.text.count("\n") > 500} == {}


def test_every_lint_exception_states_its_code(sources) -> None:
    bare = re.compile(r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)")
    assert [source.name for source in sources if bare.search(source.text)] == []


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    caught = ast.unparse(handler.type) if handler.type else "BaseException"
    return bool(re.search(r"\b(Base)?Exception\b", caught))


def _raises_again(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))
