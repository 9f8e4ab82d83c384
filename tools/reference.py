"""Write the reference pages of docs/ from the code: `make docs`. With --check, only say which pages are out of date."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from forecastle.settings import PREFIX, Settings

from reference_contracts import api_page, metrics_page, schema_file, schema_page
from reference_figures import with_figures
from reference_flows import flows_picture

DOCS = Path(__file__).resolve().parent.parent / "docs"
SCHEMA = DOCS.parent / "src" / "forecastle" / "task.schema.json"
NOTE = "<!-- Written by `make docs` from {source}; change it there. -->\n"


def main(arguments: list[str]) -> int:
    pages = {
        DOCS / "commands.md": commands_page(),
        DOCS / "settings.md": settings_page(),
        DOCS / "metrics.md": NOTE.format(source="src/forecastle/monitoring/metrics.py") + "\n" + metrics_page(),
        DOCS / "api.md": NOTE.format(source="src/forecastle/serving/") + "\n" + api_page(),
        DOCS / "task-schema.md": NOTE.format(source="src/forecastle/task.py") + "\n" + schema_page(),
        SCHEMA: schema_file(),
        DOCS / "images" / "flows.svg": flows_picture(),
        DOCS.parent / ".env.example": example(),
        DOCS.parent / "README.md": with_figures((DOCS.parent / "README.md").read_text(encoding="utf-8")),
    }
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is not what the code says; run: make docs")
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


def commands_page() -> str:
    """Return Typer's own Markdown for the command line."""
    page = subprocess.run(
        [sys.executable, "-m", "typer", "--app", "app", "forecastle.cli", "utils", "docs", "--name", "forecastle"],
        env={**os.environ, "COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    body = page.partition("\n")[2].strip()
    sections = re.split(r"(?m)^(?=## )", body)
    body = "".join(_linked(section) for section in sections)
    return f"{NOTE.format(source='src/forecastle/cli/')}\n# Commands\n\n{body}\n"


def _linked(section: str) -> str:
    """Let a list of commands lead to their sections; what Typer says of each there is cut short."""
    heading = re.match(r"## `([a-z -]+)`", section)
    words = heading[1].replace(" ", "-") if heading else "forecastle"
    return re.sub(r"(?m)^\* `([a-z][a-z-]*)`: .*$", rf"* [`\1`](#{words}-\1)", section)


def example() -> str:
    """Return every setting as a line of a .env file that changes nothing: commented, at its default."""
    parts = [
        "# Written by `make docs` from src/forecastle/settings.py. Copy it to .env and uncomment what is to differ."
    ]
    for name, field in Settings.model_fields.items():
        told = re.sub(r"\(([a-z-]+\.md)\)", r"(docs/\1)", str(field.description))
        parts.append(f"# {told}\n#{PREFIX}{name.upper()}={_in_a_file(field.default)}")
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """Return one table row for each setting."""
    rows = "\n".join(
        f"| `{PREFIX}{name.upper()}` | {_kind(field.annotation)} | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    )
    return f"""{NOTE.format(source='src/forecastle/settings.py')}
# Settings

Settings say where things lie and what is secret; what changes a forecast stands in the [task file](task-file.md).
Each is an environment variable. A file named `.env` in the working folder may hold them too; the environment wins.
A variable of either that starts with `{PREFIX}` and is not in this table is refused, so that a misspelt one is
noticed. In a container, secrets may be files instead: `/run/secrets/forecastle_journal` holds the value of
`FORECASTLE_JOURNAL`.

| Variable | Kind | Default | What it is |
|---|---|---|---|
{rows}
"""


def _kind(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{option}`" for option in get_args(annotation))
    names = {
        "str": "text",
        "SecretStr": "secret text",
        "int": "whole number",
        "float": "number",
        "Path": "folder",
        "bool": "`true` or `false`",
        "dict": "JSON",
    }
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name)


def _in_a_file(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value == {} or not str(value).strip("*") else str(value)


def _default(value: object) -> str:
    return f"`{value}`" if str(value) and value != {} else "(empty)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
