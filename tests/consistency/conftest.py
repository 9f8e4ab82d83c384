"""What the consistency tests look at: the repository's files, the package's source, the command line."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Source:
    """One module of the package: its path below src/forecastle, its text and its syntax tree."""

    name: str
    text: str
    tree: ast.Module

    def imports(self, top_level_only: bool = False) -> Iterator[tuple[str, int]]:
        """Yield every imported module with its line; optionally only what runs when this module is imported."""
        for node in _nodes(self.tree, top_level_only):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module, node.lineno


@pytest.fixture(scope="session")
def sources(root: Path) -> list[Source]:
    package = root / "src" / "forecastle"
    texts = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    return [Source(name, text, ast.parse(text)) for name, text in sorted(texts.items())]


@pytest.fixture(scope="session")
def documents(root: Path) -> dict[str, str]:
    """Every Markdown page of the repository, by its path."""
    paths = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


@pytest.fixture(scope="session")
def commands() -> Mapping[str, Any]:
    """Every command by its words ('run train'), as the command line's own objects; the program itself is ''."""
    from typer.main import get_command

    from forecastle.cli import app

    found: dict[str, Any] = {}

    def walk(words: str, command: Any) -> None:
        found[words] = command
        for name, child in getattr(command, "commands", {}).items():
            walk(f"{words} {name}".strip(), child)

    walk("", get_command(app))
    return found


def _nodes(tree: ast.AST, top_level_only: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if top_level_only and (later or typing_only):
            continue
        yield node
        yield from _nodes(node, top_level_only)
