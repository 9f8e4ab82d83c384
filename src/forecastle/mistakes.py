"""Mistakes in what a user wrote, as sentences: where each is, and the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the valid name nearest to a wrong one, or an empty string."""
    close = _close(name, valid)
    return f"; did you mean {close[0]!r}?" if close else ""


def describe(model: type[BaseModel], entries: Sequence[Any]) -> Iterable[str]:
    """Turn pydantic's findings into sentences with their places and the nearest valid names.

    A field that is missing because its name was misspelt is one mistake, not two.
    """
    meant = misspelt(model, entries)
    for entry in entries:
        if not (entry["type"] == "missing" and _place(model, entry["loc"])[0] in meant):
            yield from _described(model, entry)


def misspelt(model: type[BaseModel], entries: Sequence[Any]) -> set[str]:
    """Return the places of the fields that unknown ones of these findings were probably meant to be."""
    found = set()
    for entry in entries:
        if entry["type"] == "extra_forbidden":
            place, names = _place(model, entry["loc"])
            above = place.rpartition(".")[0]
            found |= {f"{above}.{one}" if above else one for one in _close(str(entry["loc"][-1]), names)}
    return found


def absent(mistakes: Iterable[str], meant: set[str], data: Mapping[str, Any]) -> list[str]:
    """Return the mistakes without those that only say what a misspelt field of the file's top leaves missing."""
    gone = {name for name in meant if name not in data}
    return [one for one in mistakes if one.partition(":")[0] not in gone]


def _described(model: type[BaseModel], entry: Any) -> Iterable[str]:
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


def _close(name: str, valid: Iterable[str]) -> list[str]:
    folded = {option.casefold(): option for option in sorted(valid)}
    return [folded[one] for one in get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)]


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
