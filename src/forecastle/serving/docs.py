"""The OpenAPI document as a page to read: the usual viewers need scripts from elsewhere, this needs none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forecastle.serving.page import environment


def render(openapi: Mapping[str, Any]) -> str:
    """Return the OpenAPI document as a readable page without scripts."""
    routes = [
        _route(method.upper(), path, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    models = {
        name: [(field, _type_text(schema), schema.get("description", "")) for field, schema in fields.items()]
        for name, model in openapi["components"]["schemas"].items()
        if (fields := model.get("properties"))
    }
    about = {name: openapi["components"]["schemas"][name].get("description", "") for name in models}
    template = environment().get_template("docs.html")
    return template.render(info=openapi["info"], routes=routes, models=models, about=about)


def _route(method: str, path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    answers = []
    for status, answer in operation["responses"].items():
        content: Mapping[str, Any] = next(iter(answer.get("content", {}).values()), {})
        answers.append((status, answer["description"], _type_text(content.get("schema", {}))))
    parameters = [
        (one["name"], one["in"], _type_text(one["schema"]), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    about = operation.get("description") or operation.get("summary", "")
    return {"method": method, "path": path, "about": about, "parameters": parameters, "answers": answers}


def _type_text(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(map(_type_text, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type_text(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("const") or schema.get("type", ""))
