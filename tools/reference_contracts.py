"""The reference pages of what other programs rely on: the HTTP routes, the metrics, the schema of task files."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forecastle.monitoring.metrics import METRICS
from forecastle.settings import Settings
from forecastle.task import task_schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
Schema = Mapping[str, Any]


def api_page() -> str:
    """Return every route of the service, its parameters and answers, and every model, from the OpenAPI document."""
    document = _openapi()
    schemas: Schema = document["components"]["schemas"]
    parts = [f"""# The HTTP API

{document["info"]["description"]} The service
answers the same document at `/openapi.json` and as a page at `/docs`; what the routes are for stands in
[the service](service.md). Any refusal is a [`Problem`](#problem) of the type `application/problem+json`. Every route
may answer 401 or 403 where [keys](service.md) are set, and 503 while a store does not answer.

| Route | What it does |
|---|---|
{_lines(f"| [`{route}`](#{_anchor(route)}) | {_first(operation)} |" for route, operation in _routes(document))}
"""]
    for route, operation in _routes(document):
        parts.append(f"## `{route}`\n\n{_prose(operation.get('description', ''))}\n")
        if parameters := operation.get("parameters"):
            rows = (
                f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} "
                f"| {'yes' if one.get('required') else 'no'} | {_cell(one.get('description', ''))} |"
                for one in parameters
            )
            parts.append(f"| Parameter | In | Type | Required | Meaning |\n|---|---|---|---|---|\n{_lines(rows)}\n")
        if body := operation.get("requestBody"):
            kinds = (f"| `{kind}` | {_type(content.get('schema', {}))} |" for kind, content in body["content"].items())
            parts.append(f"| Body | Type |\n|---|---|\n{_lines(kinds)}\n")
        answers = (
            f"| {status} | {_type(_schema_of(answer))} | {_meaning(answer['description'])} |"
            for status, answer in operation["responses"].items()
        )
        parts.append(f"| Status | Answer | Meaning |\n|---|---|---|\n{_lines(answers)}\n")
    parts.append("## Models\n")
    for name, schema in schemas.items():
        parts.append(f"### {name}\n\n{_prose(schema.get('description', ''))}\n")
        if schema.get("properties"):
            parts.append(_fields(schema))
        elif "enum" in schema:
            parts.append(f"{_type(schema)}\n")
    return "\n".join(parts)


def metrics_page() -> str:
    """Return one table row for each metric."""
    rows = _lines(
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.help} |"
        for one in METRICS.values()
    )
    return f"""# Metrics

`GET /metrics` of [the service](service.md) answers these in the text format of Prometheus. What it counts itself starts
anew with its process; all else is read from the stores when it is asked, so it is right whichever replica answers. A
value that does not exist yet is absent, not 0. The [alert rules](incidents.md) and the dashboard are made of them.

| Metric | Kind | Labels | What it says |
|---|---|---|---|
{rows}
"""


def schema_page() -> str:
    """Return every field of a task file with its type and default, a table for each model."""
    schema = described_schema()
    parts = ["""# The task file, field by field

What is accepted, from the JSON Schema that `forecastle schema` prints
([task.schema.json](../src/forecastle/task.schema.json)): types from the code, meanings from
[the task file](task-file.md), which tells more. An editor that knows `#:schema` completes, explains and checks a task
file that starts so:

```toml
#:schema ./task.schema.json
```

A field that is not listed is refused. Durations are text such as `90s`, `10m`, `1h` or `7d`.

## Task
"""]
    parts.append(_fields(schema))
    for name, model in sorted(schema["$defs"].items()):
        parts.append(f"## {name}\n\n{_prose(model.get('description', ''))}\n\n{_fields(model)}")
    return "\n".join(parts)


def schema_file() -> str:
    """Return the JSON Schema of task files with what each field means, indented for people."""
    return json.dumps(described_schema(), indent=1, ensure_ascii=False) + "\n"


def described_schema() -> dict[str, Any]:
    """Return the JSON Schema of the code, with the meaning of each field as the tables of docs/task-file.md tell it."""
    schema = task_schema()
    for section in re.split(r"(?m)^#{2,3} ", (DOCS / "task-file.md").read_text(encoding="utf-8"))[1:]:
        heading = section.partition("\n")[0]
        place = re.fullmatch(r"`\[+([a-z_.]+?)(?:\.NAME)?\]+`", heading)
        if place is None and heading != "The task":
            continue
        model = _model(schema, place[1].split(".") if place else [])
        for row in re.findall(r"(?m)^\| (`.+`) \| (?:.*?) \| (.*) \|$", section):
            for name in re.findall(r"`([a-z_]+)`", row[0]):
                model["properties"][name]["description"] = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", row[1])
    return schema


def _model(schema: dict[str, Any], place: list[str]) -> dict[str, Any]:
    """Return the part of a schema that a table of a task file is described by."""
    model = schema
    for name in place:
        found = json.dumps(model["properties"][name])
        model = schema["$defs"][re.findall(r'"#/\$defs/(\w+)"', found)[0]]
    return model


def _openapi() -> Schema:
    from forecastle.serving.app import create_app
    from forecastle.task import load_task

    task = load_task(Path(__file__).resolve().parent.parent / "tasks" / "nyc-temperature.toml")
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), _env_file=None)  # type: ignore[call-arg]
        return create_app(settings, [task], lambda: datetime.now(UTC)).openapi()


def _routes(document: Schema) -> Iterator[tuple[str, Schema]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _fields(schema: Schema) -> str:
    required = schema.get("required", ())
    rows = (
        f"| `{name}` | {_type(field)} | {_default(name, field, required)} | {_cell(field.get('description', ''))} |"
        for name, field in schema["properties"].items()
    )
    if any(field.get("description") for field in schema["properties"].values()):
        return f"| Field | Type | Default | Meaning |\n|---|---|---|---|\n{_lines(rows)}\n"
    return "| Field | Type | Default |\n|---|---|---|\n" + _lines(row.removesuffix("  |") for row in rows) + "\n"


def _default(name: str, field: Schema, required: Any) -> str:
    if name in required:
        return "required"
    value = field.get("default")
    if "$ref" in field and value:
        return "the defaults there"
    if "const" in field or ("default" in field and value in (None, [], {}, "")) or "default" not in field:
        return "none"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_type(one) for one in options if one.get("type") != "null")
    if "allOf" in schema:
        return _type(schema["allOf"][0])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return f"table of {_type(schema['additionalProperties'])}"
    words = {"string": "text", "integer": "whole number", "object": "table", "boolean": "`true` or `false`"}
    return f"{schema.get('format') or words.get(kind, kind)}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema]
    return f", {' and '.join(found)}" if found else ""


def _schema_of(answer: Schema) -> Schema:
    content: Schema = next(iter(answer.get("content", {}).values()), {})
    found: Schema = content.get("schema", {})
    return found


def _meaning(description: str) -> str:
    return "what was asked for" if description == "Successful Response" else _cell(description)


def _first(operation: Schema) -> str:
    return _cell(_prose(operation.get("description") or operation.get("summary", "")).split("\n\n")[0])


def _anchor(route: str) -> str:
    """Return the heading's anchor as both GitHub and MkDocs make it of such a route."""
    return "".join(letter for letter in route.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


def _prose(text: str) -> str:
    return text.replace("``", "`").strip()


def _cell(text: str) -> str:
    return " ".join(_prose(text).split()).replace("|", "\\|")


def _lines(rows: Iterator[str]) -> str:
    return "\n".join(rows)
