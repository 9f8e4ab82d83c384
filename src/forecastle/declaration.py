"""What a task file, or a file in ``data/providers``, says about a JSON API: what to ask, and how to read the answer.

A declaration names places in an answer by JMESPath (https://jmespath.org) and fills ``{names}`` into addresses and
parameters. It never holds a secret: it names the setting that does.
"""

from __future__ import annotations

import re
from string import Formatter
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

TIMES = frozenset(f"{end}_{form}" for end in ("start", "end") for form in ("s", "ms", "iso", "text", "date"))
"""``{start_ms}`` and its like: the window asked for, both ends included. ``text`` is 2013-01-31 06:00:00 in UTC."""

PLACES = frozenset({"series", "latitude", "longitude", "interval"})
"""What else can be filled in; beside these every setting that is an address, such as ``{binance_url}``."""

KeySetting = Literal["http_json_key", "alpha_vantage_key", "openweathermap_key", "twelve_data_key"]
KEY_SETTINGS: tuple[str, ...] = get_args(KeySetting)


def _is_an_expression(text: str) -> str:
    from jmespath import compile as compiled
    from jmespath.exceptions import JMESPathError

    try:
        compiled(text)
    except JMESPathError as error:
        raise ValueError(f"expected a JMESPath expression, found {text!r} ({str(error).splitlines()[0]})") from None
    return text


def _is_a_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression, found {text!r} ({error})") from None
    return text


def placeholders(template: str) -> frozenset[str]:
    """Return the names a template has filled in; ValueError where it is none."""
    return frozenset(name for _, name, _, _ in Formatter().parse(template) if name is not None)


def _is_a_template(text: str) -> str:
    strange = sorted(name for name in placeholders(text) - TIMES - PLACES if not re.fullmatch(r"[a-z_]+_url", name))
    if strange:
        known = ", ".join(sorted(PLACES | TIMES))
        raise ValueError(f"{{{strange[0]}}} is nothing that can be filled in; there are {known}")
    return text


def _is_a_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None
    return name


Expression = Annotated[str, AfterValidator(_is_an_expression)]
Template = Annotated[str, AfterValidator(_is_a_template)]
Pattern = Annotated[str, AfterValidator(_is_a_pattern)]


class Declared(BaseModel):
    """A frozen part of a declaration; a field it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(Declared):
    """Which parameter is the key, and which setting holds it."""

    param: str
    setting: KeySetting


class Paging(Declared):
    """How more rows than one answer holds are asked for: by shorter windows, by page numbers, or by a cursor."""

    rows: int | None = Field(default=None, gt=0)
    page: str | None = None
    cursor: str | None = None
    next: Expression | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Paging:
        if (self.cursor is None) != (self.next is None):
            raise ValueError("cursor (a parameter) and next (where an answer holds its value) belong together")
        if self.page and not self.rows:
            raise ValueError("page needs rows, the number of rows of a full page")
        if self.page and self.cursor:
            raise ValueError("page and cursor exclude each other")
        return self


class ErrorBody(Declared):
    """How an answer says that it is an error, whatever its HTTP status; ``retry`` tells what heals by waiting."""

    found: Expression
    message: Expression = "@"
    retry: Pattern | None = None


class Budget(Declared):
    """What an API may be asked in a span of time that slides, in calls or in what it counts for a call (``call``).

    ``hosts`` share one budget; elsewhere each host has its own. ``used_header`` is where an answer says how much of the
    last minute's budget is used, ``zone`` where the operator's day ends.
    """

    hosts: tuple[str, ...] = ()
    per_second: int | None = Field(default=None, gt=0)
    per_minute: int | None = Field(default=None, gt=0)
    per_hour: int | None = Field(default=None, gt=0)
    per_day: int | None = Field(default=None, gt=0)
    per_month: int | None = Field(default=None, gt=0)
    call: int = Field(default=1, gt=0)
    used_header: str | None = None
    zone: Annotated[str, AfterValidator(_is_a_zone)] = "UTC"


class HttpJson(Declared):
    """A JSON API: what is asked for a window of time, and where its answer holds rows, times and values."""

    url: Template
    params: dict[str, Template] = {}
    calls: Literal["each", "all"] = "each"
    secret: Secret | None = None
    intervals: dict[str, str] = {}
    paging: Paging = Paging()
    rows: Expression
    series: Expression | None = None
    time: Expression
    time_format: Literal["iso", "s", "ms"] = "iso"
    zone: Annotated[str, AfterValidator(_is_a_zone)] = "UTC"
    values: dict[str, Expression] = {}
    units: dict[str, str] = {}
    unit_paths: dict[str, Expression] = {}
    error: ErrorBody | None = None
    present: bool = False
    budget: Budget | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> HttpJson:
        if timed := sorted(placeholders(self.url) & TIMES):
            raise ValueError(f"url may not hold {{{timed[0]}}}; times belong in params")
        if self.calls == "all" and self.series is None:
            raise ValueError("calls = 'all' needs series, where a row names its series")
        if self.secret and self.secret.param in self.params:
            raise ValueError(f"{self.secret.param!r} is the secret's parameter; leave it out of params")
        return self
