"""What the service answers, field by field: the response models behind the routes and the OpenAPI document.

Times are UTC with a zone; durations are written as in a task file ("1h"); ``data_age`` is whole seconds since the
newest value could be known, null where there is none; a number that is not known is null.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """A frozen answer."""

    model_config = ConfigDict(frozen=True)


class Problem(Answer):
    """An error as an RFC 9457 problem document: what was expected, what was found, what to do."""

    type: str = Field(description="Names the kind of problem; stable.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path that was asked for.")
    expected: str
    found: str
    action: str


class Health(Answer):
    """The process is alive."""

    status: Literal["ok"] = "ok"
    version: str
    commit: str | None = None


class TaskReadiness(Answer):
    """Whether the service can answer for one task, and how old the data is (which never makes it unready)."""

    task: str
    ready: bool
    reason: str | None
    model_version: str | None
    data_age: int | None


class Readiness(Answer):
    """Whether the stores answer and every task with a champion has loaded it."""

    ready: bool
    tasks: tuple[TaskReadiness, ...]


class Model(Answer):
    """The model that serves: its registry version, the data it was trained on, and what it is."""

    version: str
    data_version: str
    estimator: str
    created_at: datetime
    task_changed: bool = Field(
        default=False, description="Whether the task file has changed since; true until a model trained by it serves."
    )


class HorizonScores(Answer):
    """Scores of the forecasts made that many steps ahead."""

    horizon: int
    rmse: float | None = None
    mae: float | None = None
    r2: float | None = None
    skill: float | None = None
    coverage: float | None = None
    n: int | None = None


class Scores(Answer):
    """Scores pooled over series and horizons: errors in the target's unit, skill over persistence on the same rows."""

    rmse: float | None = None
    mae: float | None = None
    r2: float | None = None
    skill: float | None = None
    coverage: float | None = None
    n: int | None = None
    horizons: tuple[HorizonScores, ...] = ()


class TaskInfo(Answer):
    """What is served for one task."""

    task: str
    description: str
    domain: str
    series: tuple[str, ...]
    target: str
    unit: str
    frequency: str
    horizon: str
    steps: int
    timezone: str
    coverage: float = Field(description="The share of truths the interval promises to hold.")
    model: Model | None
    promise: Scores | None = Field(description="The champion's back-test; null without a champion.")
    data_age: int | None
    degraded: bool
    degraded_reason: str | None


class TaskList(Answer):
    """Every task this service answers for."""

    tasks: tuple[TaskInfo, ...]


class Forecast(Answer):
    """One forecast: the value expected at ``timestamp``, within ``lower`` and ``upper`` at the task's coverage."""

    forecast_id: str | None = Field(
        description="Names this forecast for ever; what `forecastle lineage` asks for. Null where one stands in for "
        "those of the model, whose data is too old."
    )
    timestamp: datetime
    horizon: int
    value: float | None
    lower: float | None
    upper: float | None


class SeriesForecasts(Answer):
    """The current forecasts of one series, made from data up to ``origin``."""

    task: str
    series_id: str
    target: str
    unit: str
    data_age: int | None
    degraded: bool
    degraded_reason: str | None
    origin: datetime | None
    issued_at: datetime | None
    model_version: str | None
    data_version: str | None
    estimator: str | None = Field(description="What made the forecasts.")
    trained: bool | None = Field(
        description="False where a naive method stands in: the model in service has not learnt this series yet, or the "
        "data is too old for it."
    )
    forecasts: tuple[Forecast, ...]


class TaskForecasts(Answer):
    """The current forecasts of every series of a task."""

    task: str
    data_age: int | None
    degraded: bool
    degraded_reason: str | None
    series: tuple[SeriesForecasts, ...]


class TaskScores(Answer):
    """Promise against delivery: the back-test's scores beside the live ones since a time."""

    task: str
    unit: str
    coverage: float
    model_version: str | None
    since: datetime
    promise: Scores | None
    live: Scores | None


class SeriesObservations(BaseModel):
    """Recent observations of one series, in any order: a list of times, and as many numbers or nulls a column."""

    model_config = ConfigDict(extra="forbid")

    series_id: str = Field(min_length=1, max_length=200, description="Text that can be printed.")
    timestamps: tuple[datetime, ...] = Field(
        min_length=1, max_length=10_000, description="ISO 8601, UTC; not before 1970."
    )
    values: dict[str, tuple[float | None, ...]] = Field(description="By column; the target has to be among them.")


class PredictRequest(BaseModel):
    """What to forecast from. What the features look back on and the body lacks is taken from the history."""

    model_config = ConfigDict(extra="forbid")

    series: tuple[SeriesObservations, ...] = Field(min_length=1, max_length=1000)


class StepForecast(Answer):
    """One forecast on request."""

    timestamp: datetime
    horizon: int
    value: float | None
    lower: float | None
    upper: float | None


class Prediction(Answer):
    """The forecasts of one series, made from the observations of the request up to ``origin``."""

    prediction_id: str = Field(description="Names it in the journal.")
    series_id: str
    origin: datetime
    data_age: int
    degraded: bool
    degraded_reason: str | None
    forecasts: tuple[StepForecast, ...]


class Predictions(Answer):
    """What a request for forecasts is answered with: a prediction for each series, in the order they were asked for."""

    task: str
    target: str
    unit: str
    model_version: str
    data_version: str
    estimator: str
    issued_at: datetime
    predictions: tuple[Prediction, ...]


class Accepted(Answer):
    """What became of observations that were pushed."""

    task: str
    verdict: str = Field(description="The gate's: pass or warn.")
    new: int
    revised: int
    known: int
    masked: int = Field(description="Values that count as missing, being outside what a column can be.")
    withheld: tuple[str, ...] = Field(description="Series that the gate keeps in quarantine.")
    warnings: tuple[str, ...] = Field((), description="What the gate found and let pass, each by its check.")


class Part(Answer):
    """Where a forecast starts from, in the target's unit."""

    name: str
    adds: float


class FeaturePart(Answer):
    """What a feature was (null: missing), and what it adds to the forecast in the target's unit."""

    name: str
    value: float | None
    adds: float


class Explanation(Answer):
    """A forecast as a sum: where it starts from, and what each feature adds, in the target's unit."""

    task: str
    series_id: str
    origin: datetime
    timestamp: datetime
    horizon: int
    model_version: str
    value: float
    start: tuple[Part, ...]
    features: tuple[FeaturePart, ...] = Field(description="The largest first; features that add nothing are left out.")


class IncidentStep(Answer):
    """Something that was done about an incident."""

    at: datetime
    what: str
    detail: str


class Incident(Answer):
    """What went wrong, from when to when."""

    number: int
    task: str
    kind: str
    reason: str
    opened_at: datetime
    closed_at: datetime | None
    note: str
    steps: tuple[IncidentStep, ...] = ()


class Incidents(Answer):
    """The newest incidents first."""

    incidents: tuple[Incident, ...]


class Alerted(Answer):
    """What a webhook of alerts came to: incidents opened and closed, and what was left out, with why."""

    opened: tuple[str, ...]
    closed: tuple[str, ...]
    ignored: tuple[str, ...]
