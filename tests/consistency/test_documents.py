"""The documents name what exists: files, targets, commands, options, settings, fields of a task."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from forecastle.cli import main
from forecastle.data.budget import SPANS, limits, shipped
from forecastle.data.providers import PROVIDERS
from forecastle.settings import PREFIX, Settings
from forecastle.task import Task

PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/index.md", "docs/architecture.md", "docs/task-file.md")
FOLDERS = r"(?:src|docs|tests|tools|tasks|requirements|docker|deploy|dags|\.ci|\.github)"


def test_the_pages_a_newcomer_looks_for_are_there(documents) -> None:
    assert set(PAGES) - set(documents) == set()


def test_the_reference_pages_are_what_the_code_says(root: Path) -> None:
    answer = subprocess.run([sys.executable, "tools/reference.py", "--check"], cwd=root, capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr


def test_every_command_and_every_option_is_documented(documents, commands) -> None:
    page = documents["docs/commands.md"]
    missing = [words for words in commands if words and f"`forecastle {words}`" not in page]
    missing += [
        f"{words} {option}"
        for words, command in commands.items()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option not in page
    ]
    assert missing == []


def test_every_setting_is_documented(documents) -> None:
    names = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    assert [name for name in names if f"| `{name}` |" not in documents["docs/settings.md"]] == []


def test_every_setting_a_document_names_exists(documents) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    named = {word for text in documents.values() for word in re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", text)}
    assert named - known == set()


def test_every_field_of_a_task_file_is_documented(documents) -> None:
    page = documents["docs/task-file.md"]
    undocumented = [field for field in _fields(Task) if not re.search(rf"`{field}`|`\[+{field}\b", page)]
    assert sorted(set(undocumented)) == []


def test_the_schema_for_editors_says_of_every_field_of_a_table_what_it_means(capsys) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    tables = ("Source", "HttpJson", "Column", "Series", "Gate", "Features", "Training", "Monitoring")
    models = {"": schema, **{name: schema["$defs"][name] for name in tables}}
    silent = [
        f"{model}.{name}"
        for model, fields in models.items()
        for name, field in fields["properties"].items()
        if not field.get("description") and "$ref" not in json.dumps(field)
    ]
    assert silent == []
    assert "](" not in json.dumps([field.get("description") for field in models["Gate"]["properties"].values()])


def test_the_limits_of_providers_are_those_of_the_code(documents) -> None:
    spans = list(SPANS)
    told = {}
    for line in re.findall(r"^\| `([a-z-]+)` \|(.*)\|$", documents["docs/collecting.md"], re.MULTILINE):
        cells = [cell.strip() for cell in line[1].split("|")]
        told[line[0]] = {span: int(cell) for span, cell in zip(spans, cells, strict=False) if cell}, cells[-1]
    known = {name: (dict(limits(budget)), str(budget.call)) for name, budget in shipped().items()}
    several = [name for name, provider in PROVIDERS.items() if provider.cost is not PROVIDERS["file"].cost]
    for name in several:  # what such a call counts as is a formula
        assert not told[name][1].isdecimal()
        known[name] = known[name][0], told[name][1]
    assert told == known


def test_every_room_is_on_the_map(documents, root: Path) -> None:
    package = root / "src" / "forecastle"
    files = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    page = documents["docs/architecture.md"]
    assert sorted(room for room in files | folders if f"| `src/forecastle/{room}` |" not in page) == []


def test_links_lead_to_files_that_exist(documents, root: Path) -> None:
    broken = [
        f"{page}: {target}"
        for page, text in documents.items()
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if "://" not in target and not (root / page).parent.joinpath(target).exists()
    ]
    assert broken == []


def test_paths_in_documents_exist(documents, root: Path) -> None:
    missing = [
        f"{page}: {path}"
        for page, text in documents.items()
        for path in re.findall(rf"(?<![\w/.<]){FOLDERS}/[\w./-]*[\w/]", text)
        if not (root / path).exists() and not (root / page).parent.joinpath(path).exists()
    ]
    assert missing == []


def test_make_targets_in_documents_exist(documents, root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        target for text in documents.values() for target in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE)
    }
    assert named - targets == set()


def test_commands_in_documents_exist_with_their_options(documents, commands) -> None:
    wrong = [
        f"{page}: {line}"
        for page, text in documents.items()
        if page != "docs/commands.md"
        for line in _calls(text)
        if not _is_a_call(line, commands)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["src", "docs", "tests", "tools", "tasks", "requirements"])
def test_no_file_names_a_place_of_one_machine(folder: str, root: Path) -> None:
    place = re.compile(r"(?<![\w.])/(?:work|root)/\w")
    files = [
        path for path in (root / folder).rglob("*") if path.suffix in {".py", ".md", ".toml", ".txt", ".html", ".css"}
    ]
    assert [str(path.relative_to(root)) for path in files if place.search(path.read_text(encoding="utf-8"))] == []


def _fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for inner in _models(field.annotation):
            yield from _fields(inner)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _calls(text: str) -> Iterator[str]:
    """Yield every call of forecastle in code, blocks (with continued lines joined) and inline."""
    for block in re.findall(r"^```(?:console|bash|sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.match(r"\s*(?:\$ )?(?:\S*/)?forecastle (.+)", line):
                yield match[1].split("#")[0].strip()
    yield from re.findall(r"(?<!`)`forecastle ([^`\n]+)`", text)


def _is_a_call(line: str, commands: Mapping[str, Any]) -> bool:
    words = re.split(r"\s+", line)
    name = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in commands), "")
    options = {option for parameter in commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help"}
    used = {word.split("=")[0] for word in words if word.startswith("--")}
    return (bool(name) or words[0].startswith("--")) and used <= options
