"""What only the running service knows, read from its /metrics as Prometheus would: is it up, how long do predictions
take. Only where the settings say where it is."""

from __future__ import annotations

import logging

from forecastle.errors import ForecastleError
from forecastle.http import Client, Request
from forecastle.monitoring.metrics import METRICS, Reading
from forecastle.monitoring.rules import ENTIRE
from forecastle.settings import Settings

TIMED = "forecastle_prediction_seconds"

_log = logging.getLogger(__name__)


def scrape(settings: Settings, task: str) -> list[Reading]:
    """Return the service's readings about a task; nothing where FORECASTLE_SERVICE_URL is empty, or where it answers
    that it wants a key and FORECASTLE_SERVICE_KEY is none that may read, for then it is not down."""
    if not settings.service_url:
        return []
    key = settings.service_key.get_secret_value().strip()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    request = Request(f"{settings.service_url.rstrip('/')}/metrics", headers=headers, hidden=(key,))
    try:
        with Client(settings.model_copy(update={"http_attempts": 1})) as client:
            answer = client.get(request)
    except ForecastleError:
        return [Reading("up", (ENTIRE,), 0.0)]
    if answer.status in (401, 403):
        _log.warning("%s wants a key that may read: set FORECASTLE_SERVICE_KEY", request.address)
        return []
    is_up = answer.status == 200
    found = read(answer.body.decode("utf-8", "replace"), task) if is_up else []
    return [Reading("up", (ENTIRE,), float(is_up)), *found]


def read(text: str, task: str) -> list[Reading]:
    """Return the buckets of the time that predictions of a task took, from Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    labels = (*METRICS[TIMED].labels, "le")
    return [
        Reading(sample.name, tuple(sample.labels[name] for name in labels), sample.value)
        for family in text_string_to_metric_families(text)
        if family.name == TIMED
        for sample in family.samples
        if sample.name == f"{TIMED}_bucket" and sample.labels["task"] == task
    ]
