"""What a request for forecasts is answered, as JSON, and what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from math import isfinite
from os import urandom

from pydantic_core import to_json

from forecastle.data.panel import micros, moment
from forecastle.frame import iso
from forecastle.models.bundle import Bundle
from forecastle.monitoring.predictions import Row
from forecastle.serving.workbench import Predicted
from forecastle.task import Task


def tell(task: Task, model: Bundle, made: Sequence[Predicted], now: datetime) -> tuple[bytes, list[Row]]:
    """Return the answer as JSON, and what the journal keeps of it."""
    rows: list[Row] = []
    told, stamp = [], f"{micros(now) // 1000:012x}"  # ids in the order of time are quicker to keep
    for one in made:
        forecasts = _forecasts(one)
        name, reason = f"{stamp}{urandom(10).hex()}", one.reason
        degraded, why = ("false", "null") if reason is None else ("true", _text(reason))
        told.append(_ONE % (name, _text(one.series_id), _told(one.origin), one.data_age, degraded, why, forecasts))
        rows.append(
            {
                "prediction_id": name,
                "task": task.name,
                "series_id": one.series_id,
                "origin": _moment(one.origin),
                "issued_at": now,
                "model_version": model.version,
                "data_version": model.data_version,
                "estimator": model.estimator,
                "drifted": one.drifted,
                "degraded": reason is not None,
                "data_age": float(one.data_age),
                "feature_digest": one.digest,
                "forecasts": forecasts,
            }
        )
    head = {
        "task": task.name,
        "target": task.target,
        "unit": task.unit,
        "model_version": model.version,
        "data_version": model.data_version,
        "estimator": model.estimator,
        "issued_at": iso(now),
    }
    return b'%b,"predictions":[%b]}' % (to_json(head)[:-1], ",".join(told).encode()), rows


_ONE = (
    '{"prediction_id":"%s","series_id":%s,"origin":"%s","data_age":%d,'
    '"degraded":%s,"degraded_reason":%s,"forecasts":%s}'
)


def _forecasts(one: Predicted) -> str:
    numbers = [number for step in zip(one.value, one.lower, one.upper, strict=True) for number in step]
    if isfinite(sum(numbers)):
        return _form(one.times) % tuple(numbers)
    return (_form(one.times).replace("%r", "%s")) % tuple(map(_number, numbers))


@lru_cache(maxsize=256)
def _form(times: Sequence[int]) -> str:
    """Return the forecasts for some times as JSON, but for their numbers: what series have in common, and requests."""
    steps = (
        f'{{"timestamp":"{_told(at)}","horizon":{step},"value":%r,"lower":%r,"upper":%r}}'
        for step, at in enumerate(times, start=1)
    )
    return f"[{','.join(steps)}]"


def _number(value: float) -> str:
    return repr(value) if isfinite(value) else "null"


def _text(text: str) -> str:
    return to_json(text).decode()


@lru_cache(maxsize=4096)
def _told(at: int) -> str:
    """Write a time in microseconds as an answer says it."""
    return iso(moment(at))


@lru_cache(maxsize=4096)
def _moment(at: int) -> datetime:
    return moment(at)
