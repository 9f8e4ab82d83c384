"""The task: what is forecast, read from one small TOML file.

Everything that changes a forecast stands here; where things lie stands in ``settings``. A Task is frozen, and its
``digest`` names it: two tasks with one digest give the same forecasts from the same history.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from forecastle.coherence import JUDGED, incoherent
from forecastle.declaration import HttpJson
from forecastle.duration import DAY as DAY  # noqa: F401  # where others look for these three
from forecastle.duration import Duration
from forecastle.duration import duration_text as duration_text  # noqa: F401
from forecastle.duration import parse_duration as parse_duration  # noqa: F401
from forecastle.errors import TaskError, plainly
from forecastle.frame import CONTROL, to_json
from forecastle.mistakes import absent, describe, misspelt
from forecastle.mistakes import nearest as nearest
from forecastle.rule import CONTRACT, CheckName, CheckRule

Domain = Literal["environmental", "financial", "logistics"]
Verdict = Literal["warn", "mask", "fail"]
Provider = Literal[
    "open-meteo",
    "openweathermap",
    "alpha-vantage",
    "twelve-data",
    "binance",
    "gbfs",
    "gtfs-realtime",
    "http-json",
    "file",
]
Derived = Literal["realised-volatility", "share", "mean"]
INPUTS: dict[str, tuple[str, ...]] = {
    "realised-volatility": ("opening price", "closing price"),
    "share": ("part", "whole"),
    "mean": ("value",),
}


def _known_zone(name: object) -> object:
    try:
        ZoneInfo(str(name))  # which is looked up at once; listing all of them takes longer than all else of a task
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = nearest(str(name), available_timezones())
        raise ValueError(f"there is no time zone {name!r}{near}") from None
    return name


def _known_country(code: object) -> object:
    if code is None:
        return code
    import holidays

    country, _, region = str(code).partition("-")
    known: Any = getattr(holidays, country, None) if re.fullmatch("[A-Z]{2,3}", country) else None  # no other's
    if not hasattr(known, "country") or (region and region not in known.subdivisions):
        raise ValueError(f"no public holidays are known of {code!r}; give a country such as 'US', or 'DE-BY'")
    return code


def _printable(text: str) -> str:
    if re.search(CONTROL, text):
        raise ValueError(f"expected text without control characters; found {text!r}")
    return text


Day = date  # by another name, where a field is called date
Zone = Annotated[str, BeforeValidator(_known_zone)]
Label = Annotated[str, Field(min_length=1), AfterValidator(_printable)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=60)]


class Part(BaseModel):
    """A frozen part of a task; a field it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Series(Part):
    """One place, asset or stop: its id, and what its provider needs to ask for it."""

    id: Label
    source_id: Label | None = None
    latitude: float | None = Field(default=None, ge=-90, le=90)
    longitude: float | None = Field(default=None, ge=-180, le=180)

    @property
    def asked(self) -> str:
        """What the source calls the series: its ``source_id``, or else its id."""
        return self.source_id or self.id


class Column(Part):
    """One measured value: its unit, the range it can be in, and what the gate does to a value outside."""

    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    outside: Verdict = "mask"
    max_null_share: float | None = Field(default=None, ge=0, le=1)
    flatline: Duration | None = None
    derived: Derived | None = None
    inputs: tuple[str, ...] = ()
    task: Name | None = None
    column: str | None = None
    ahead: bool = False
    min_share: float = Field(default=1, gt=0, le=1)
    per_step: Literal["last", "mean", "sum", "least", "greatest"] = "last"

    @model_validator(mode="after")
    def _has_its_inputs(self) -> Column:
        wanted = INPUTS[self.derived] if self.derived else ()
        if len(self.inputs) != len(wanted):
            raise ValueError(
                f"derived = {self.derived!r} needs inputs, the columns of its {' and its '.join(wanted)}"
                if wanted
                else "inputs belong to a column that is derived"
            )
        return self

    @model_validator(mode="after")
    def _has_one_origin(self) -> Column:
        if self.task and self.derived:
            raise ValueError("a column of another task is not derived here; leave out task or derived")
        if self.column and not self.task:
            raise ValueError("column needs task, the one whose history holds it")
        if self.ahead and (self.task or self.derived):
            raise ValueError("ahead belongs to a column that the source itself forecasts; leave out task or derived")
        return self

    @model_validator(mode="after")
    def _range_is_open(self) -> Column:
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum} is not below maximum {self.maximum}")
        return self


class Source(Part):
    """Which API (or file) the observations come from, and how they are asked for."""

    provider: Provider
    start: date | None = None
    step: Duration | None = None
    window: Duration = JUDGED
    publication_delay: Duration = timedelta(0)
    settles_after: Duration = timedelta(0)
    instantaneous: bool = False
    events: bool = False
    path: str | None = None
    issued: str | None = None
    url: str | None = None
    every: Duration | None = None
    timetable: str | None = None
    key_param: str | None = Field(default=None, min_length=1)
    http_json: HttpJson | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Source:
        if self.provider == "file" and not self.path:
            raise ValueError("provider 'file' needs path = \"table.parquet\" (or .csv)")
        if self.issued and self.provider != "file":
            raise ValueError("issued, a table of forecasts, belongs to provider 'file'; an API's are in its answers")
        if self.provider == "gbfs" and "{feed}" not in (self.url or ""):
            raise ValueError(
                "provider 'gbfs' needs url, the address of the feeds with {feed} in the place of their name"
            )
        if self.url and self.provider not in ("gbfs", "gtfs-realtime"):
            raise ValueError(
                f"url belongs to providers 'gbfs' and 'gtfs-realtime'; that of {self.provider!r} is "
                + ("in [source.http_json]" if self.provider == "http-json" else "a setting, see docs/settings.md")
            )
        if self.events and self.step:
            raise ValueError("events come when they come; leave out step")
        if self.provider == "gtfs-realtime" and not self.url:
            raise ValueError("provider 'gtfs-realtime' needs url, the address of the agency's TripUpdates")
        if self.provider != "gtfs-realtime" and (self.timetable or self.key_param):
            raise ValueError("timetable and key_param belong to provider 'gtfs-realtime'")
        if self.every is not None and self.every <= timedelta(0):
            raise ValueError("every is how often the source is asked, such as '2m'")
        if (self.provider == "http-json") != (self.http_json is not None):
            raise ValueError("provider 'http-json' and [source.http_json], which declares the API, belong together")
        return self


class Gate(Part):
    """How strict the mandatory quality gate is."""

    window: Duration = JUDGED
    max_null_share: float = Field(default=0.01, ge=0, le=1)
    max_missing_share: float = Field(default=0.25, ge=0, le=1)
    max_age: Duration = timedelta(hours=6)
    max_gap: Duration = timedelta(hours=6)
    flatline: Duration | None = None
    checks: dict[CheckName, CheckRule] = {}

    @model_validator(mode="after")
    def _keeps_the_contract(self) -> Gate:
        for name in CONTRACT:
            if name in self.checks and self.checks[name].verdict == "warn":
                raise ValueError(f"checks.{name} cannot only warn: the history holds nothing that fails it")
        return self


class Features(Part):
    """What a model sees beside the calendar; lengths are in steps of the task's frequency."""

    lags: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    windows: tuple[Annotated[int, Field(ge=2)], ...] = (3, 6, 24)
    season: int | None = Field(default=None, ge=1)
    holidays: Annotated[str | None, BeforeValidator(_known_country)] = None


class Training(Part):
    """How models are fitted and judged."""

    backtest_share: float = Field(default=0.15, gt=0, lt=0.5)
    min_history: Duration = timedelta(days=30)
    coverage: float = Field(default=0.9, gt=0.5, lt=1)
    series_tolerance: float = Field(default=0.05, ge=0)
    seed: int = 0
    tune: Duration | None = None

    @model_validator(mode="after")
    def _has_time_to_tune(self) -> Training:
        if self.tune is not None and self.tune <= timedelta(0):
            raise ValueError("tune is how long to search for better parameters, such as '5m'")
        return self


class Monitoring(Part):
    """When data is stale, when drift is an alarm, and when an alarm may train anew: at most once in
    ``retrain_cooldown``, and only with so much newer data as ``retrain_after`` says."""

    stale_after: Duration = timedelta(hours=3)
    drift_ratio: float = Field(default=0.1, gt=0, lt=1)
    retrain_cooldown: Duration = timedelta(days=1)
    retrain_after: Duration = timedelta(days=2)


class Report(Part):
    """What the final report says that nobody can measure: its title page, and why this is forecast."""

    title: str = Field(default="", max_length=200)
    team: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    date: Day | None = None
    domain: str = Field(default="", max_length=200)
    why: str = Field(default="", max_length=2000)
    provider: str = Field(default="", max_length=200)
    documentation: str = Field(default="", pattern=r"^(https?://\S+)?$")


class Task(Part):
    """What is forecast: source, series, target, frequency, horizon, gate, features, training, monitoring."""

    name: Name
    domain: Domain
    description: str = ""
    timezone: Zone = "UTC"
    frequency: Duration
    horizon: Duration
    grid: Literal["regular", "observed"] = "regular"
    target: str
    source: Source
    series: tuple[Series, ...] = ()
    columns: dict[Label, Column]
    gate: Gate = Gate()
    features: Features = Features()
    training: Training = Training()
    monitoring: Monitoring = Monitoring()
    report: Report = Report()

    @property
    def steps(self) -> int:
        """The number of forecasts an origin gets: horizon divided by frequency."""
        return self.horizon // self.frequency

    @property
    def series_ids(self) -> tuple[str, ...]:
        """The ids the task names, in order; empty where the source decides (a file may hold any series)."""
        return tuple(series.id for series in self.series)

    @property
    def source_step(self) -> timedelta:
        """The step of the source's own rows: the task's frequency unless the source names a finer one."""
        return self.source.step or self.frequency

    @cached_property
    def knowable_after(self) -> timedelta:
        """How long after its timestamp a value can be known at all: one step, or nothing for instantaneous values.

        A step made of several readings is known when it has ended, an event as such at its own time.
        """
        reading = not self.is_derived if self.source.events else self.source_step == self.frequency
        reading = reading and (self.source.instantaneous or self.source.events)
        return timedelta(0) if reading else self.frequency

    @property
    def settled_after(self) -> timedelta:
        """How long after its timestamp a value counts as the truth: at once when it is known, or when it has settled
        where the source goes on revising it."""
        if not self.source.settles_after:
            return timedelta(0)
        return self.knowable_after + self.source.publication_delay + self.source.settles_after

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other values; what was computed of this task once, and kept, is computed of it anew."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("knowable_after", "is_derived"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def others(self) -> tuple[str, ...]:
        """The names of the other tasks whose histories some columns are read from, in order."""
        return tuple(sorted({one.task for one in self.columns.values() if one.task}))

    @cached_property
    def is_derived(self) -> bool:
        """Whether a step's values are computed from other rows, or other columns, than the source has of it."""
        elsewhere = any(one.derived or one.task for one in self.columns.values())
        return self.source_step != self.frequency or elsewhere

    @property
    def measured(self) -> Task:
        """The task as its source measures it: the source's own step (of events: each a reading of its moment), and no
        column that is derived or another task's. What is asked for and what the gate judges; where nothing is derived,
        the task itself."""
        if not self.is_derived:
            return self
        columns = {name: column for name, column in self.columns.items() if not (column.derived or column.task)}
        target = self.target if self.target in columns else next(iter(columns))
        return self.model_copy(update={"frequency": self.source_step, "columns": columns, "target": target})

    @property
    def covariates(self) -> tuple[str, ...]:
        """The measured columns beside the target, in the order of the task file."""
        return tuple(name for name in self.columns if name != self.target)

    @property
    def ahead(self) -> tuple[str, ...]:
        """The covariates of which forecasts are used, as their source had issued them."""
        return tuple(name for name, column in self.columns.items() if column.ahead)

    @property
    def unit(self) -> str:
        """The target's unit."""
        return self.columns[self.target].unit

    @property
    def calendar(self) -> str:
        """The zone calendars are read in: the task's; of dates (steps of a day, from 00:00 UTC) that is UTC."""
        return "UTC" if self.grid == "regular" and self.frequency == DAY else self.timezone

    @property
    def zone(self) -> ZoneInfo:
        """The time zone calendars are read in."""
        return ZoneInfo(self.calendar)

    @property
    def start(self) -> datetime:
        """The first moment of history to collect (UTC)."""
        first = self.source.start or date(1970, 1, 1)
        return datetime(first.year, first.month, first.day, tzinfo=UTC)

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with anything that changes a forecast.

        What is as by default is left out, so that a field which a newer forecastle adds changes no task of old.
        """
        what = self.model_dump(mode="json", exclude={"description", "report"}, exclude_defaults=True)
        return hashlib.sha256(to_json(what).encode()).hexdigest()[:12]

    def age(self, newest: datetime, now: datetime) -> timedelta:
        """Return how long ago the value at ``newest`` could be known: its age, never below zero."""
        return max(now - newest - self.knowable_after - self.source.publication_delay, timedelta(0))

    def patience(self, limit: timedelta) -> timedelta:
        """Return a limit of age, raised to two steps where it is less.

        The newest value ages a whole step before the next can be known, and that one may come a little late.
        """
        return max(limit, 2 * self.frequency)

    @model_validator(mode="before")
    @classmethod
    def _parts_fit(cls, data: Any) -> Any:
        """Check what spans several fields before the fields, so that every mistake is named in one answer."""
        mistakes = list(incoherent(data, get_args(Provider))) if isinstance(data, dict) else []
        if not mistakes:
            return data
        raise ValueError("\n".join(dict.fromkeys(_all_mistakes(cls, data, mistakes))))


def load_task(path: Path | str) -> Task:
    """Read a task file; relative paths inside it are relative to the file.

    Raises TaskError with every mistake at once, each with its place and the nearest valid name.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        neighbours = [str(other) for other in sorted(path.parent.glob("*.toml"))] if path.parent.is_dir() else []
        raise TaskError(
            f"a task file at {path}",
            f"no such file{nearest(str(path), neighbours)}",
            "Write one with: forecastle init my-task",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TaskError(f"a readable TOML file at {path}", plainly(error), "Mend the file at that place.") from None
    source = data.get("source")
    if isinstance(source, dict):
        places = {name: source[name] for name in ("path", "issued") if isinstance(source.get(name), str)}
        source |= {name: str((path.parent / place).resolve()) for name, place in places.items()}
    return make_task(data, where=str(path))


def task_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a task file; dates and times of TOML count as text."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Task.model_json_schema()}


def make_task(data: dict[str, Any], where: str = "the task") -> Task:
    """Build a Task from plain data, or raise a TaskError that names every mistake."""
    try:
        return Task.model_validate(data)
    except ValidationError as error:
        mistakes = list(dict.fromkeys(describe(Task, error.errors())))
    count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    listing = "".join(f"\n  - {mistake}" for mistake in mistakes)
    raise TaskError(f"a valid task in {where}", f"{count}:{listing}\n", "Mend each line named above.")


def load_tasks(places: Iterable[Path | str]) -> tuple[Task, ...]:
    """Read task files, and every ``*.toml`` of folders, in order; two tasks of one name are a TaskError."""
    tasks: dict[str, Task] = {}
    for place in map(Path, places):
        files = sorted(place.glob("*.toml")) if place.is_dir() else [place]
        if not files:
            raise TaskError(f"task files in {place}", "none", "Write one with: forecastle init my-task")
        for file in files:
            task = load_task(file)
            if task.name in tasks:
                raise TaskError("tasks with names of their own", f"{task.name!r} twice", f"Rename the one in {file}.")
            tasks[task.name] = task
    if mistakes := [mistake for task in tasks.values() for mistake in _mistakes_between(task, tasks)]:
        raise TaskError(
            "columns that the other tasks named measure, of series they have", "; ".join(mistakes), "Mend those lines."
        )
    return tuple(tasks.values())


def _mistakes_between(task: Task, tasks: dict[str, Task]) -> Iterable[str]:
    """Yield the columns and series that a task reads from another one of those at hand, and that this does not have."""
    for name, column in task.columns.items():
        other = tasks[column.task].measured if column.task in tasks else None
        if other is None:
            continue
        if (wanted := column.column or name) not in other.columns:
            yield f"{task.name}: columns.{name}: {other.name} has no {wanted!r}{nearest(wanted, other.columns)}"
        strange = sorted(set(task.series_ids) - set(other.series_ids or task.series_ids))
        if strange:
            yield f"{task.name}: columns.{name}: {other.name} has no series {strange[0]!r}"


def _all_mistakes(model: type[Task], data: dict[str, Any], spanning: list[str]) -> list[str]:
    """Return the mistakes of single fields, found without the checks that span several, before these."""
    plain = {name: (field.annotation, field) for name, field in model.model_fields.items()}
    from pydantic import create_model

    shadow = create_model("Task", __config__=model.model_config, **plain)  # type: ignore[call-overload]
    try:
        shadow.model_validate(data)
    except ValidationError as error:
        found = error.errors()
        return [*describe(model, found), *absent(spanning, misspelt(model, found), data)]
    return spanning
