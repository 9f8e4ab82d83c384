"""Mistakes in what a user wrote, as sentences: where each is, and the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the valid name nearest to a wrong one, or an empty string."""
    folded = {option.casefold(): option for option in sorted(valid)}
    close = get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def describe(model: type[BaseModel], entry: Any) -> Iterable[str]:
    """Turn one of pydantic's findings into sentences with their place and the nearest valid name."""
    place, names = _place(model, entry["loc"])
    kind, found = entry["type"], entry.get("input")
    if kind == "value_error":
        message = str(entry["ctx"]["error"])
        yield from message.splitlines() if not entry["loc"] else [f"{place}: {message}"]
    elif kind == "extra_forbidden":
        yield f"{place}: there is no such field{nearest(str(entry['loc'][-1]), names)}"
    elif kind == "missing":
        yield f"{place}: missing"
    elif kind == "literal_error":
        options = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        yield f"{place}: expected one of {', '.join(options)}; found {found!r}{nearest(str(found), options)}"
    else:
        yield f"{place}: {entry['msg'][0].lower()}{entry['msg'][1:]}; found {found!r}"


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """Return a location as text, and the field names that are valid beside its last part."""
    text, here, siblings = "", model, list(model.model_fields)
    for part in (one for one in location if one != "[key]"):
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        siblings = list(here.model_fields)
        if isinstance(part, str) and part in here.model_fields:
            here = _inner(here.model_fields[part].annotation) or here
    return text, siblings


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _inner(argument))), None)
