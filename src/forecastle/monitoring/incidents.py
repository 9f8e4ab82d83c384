"""Incidents as people and other systems meet them: listed, found, closed by hand, and told by a webhook.

An incident is opened once a task and kind, notes each step that is taken with its time, and ends when it is closed.
Whoever asks for a retrain does it by an open incident alone (see ``retraining``); nothing is called from here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from forecastle.errors import UserError
from forecastle.frame import CONTROL, iso, to_json
from forecastle.monitoring import alert_log
from forecastle.monitoring.journal import Incident, IncidentStep, Journal
from forecastle.settings import Settings
from forecastle.task import duration_text, nearest

INSTALLATION = ""  # the task of what is about none
TOLD = "told"
FIRES, STILL, ENDED, LAPSED = "alert fires", "alert still fires", "alert ended", "alert lapsed"  # by its labels
REPEATED_EVERY = timedelta(hours=12)  # by our Alertmanager and Grafana of what still fires; by themselves four hours
LAPSES_AFTER = 3 * REPEATED_EVERY  # without having been repeated
REFUSED = "champion-refused"
RESOLVED = "The alert is resolved: the measure is back."
UNHEARD = f"Its alert has not been repeated for {duration_text(LAPSES_AFTER)}, and counts as ended."
MOST_ALERTS = 200  # of one webhook; Alertmanager's own default is no bound
MOST_TEXT = 1000


@dataclass(frozen=True)
class Received:
    """What a webhook brought: incidents opened and closed, as ``task: kind``, and what was left out, with why."""

    opened: tuple[str, ...]
    closed: tuple[str, ...]
    ignored: tuple[str, ...]


def receive(journal: Journal, settings: Settings, tasks: Collection[str], body: object, now: datetime) -> Received:
    """Take in the webhook of Alertmanager (version 4) or Grafana: a firing alert opens the incident of its task and
    rule, a resolved one closes it unless another alert of them still fires. Told twice it changes nothing more.

    ``body`` is the parsed JSON, ``tasks`` the names that are known. An alert's labels say ``task`` and ``rule``; one
    without a task is about the installation and kept under an empty name. All of its labels tell it from others of the
    same incident, whose steps note which fire, for they may come in messages of their own; one not repeated for
    ``LAPSES_AFTER`` counts as ended. UserError where the body is no such webhook.
    """
    opened: list[str] = []
    closed: list[str] = []
    ignored: list[str] = []
    # what fires first: nothing is closed by an alert that another of the same message outlasts
    for number, alert in sorted(enumerate(_alerts(body)), key=lambda one: one[1].get("status") != "firing"):
        labels, annotations = _texts(alert.get("labels")), _texts(alert.get("annotations"))
        task, kind = labels.get("task", INSTALLATION), labels.get("rule") or labels.get("alertname", "")
        status = alert.get("status")
        if re.search(CONTROL, task + kind):
            ignored.append(f"alert {number}: its task or its rule holds a control character")
        elif not kind or status not in ("firing", "resolved"):
            ignored.append(f"alert {number}: it has no rule, or is neither firing nor resolved")
        elif task and task not in tasks:
            ignored.append(f"alert {number}: no task {task!r} here{nearest(task, tasks)}")
        elif status == "firing":
            reason = annotations.get("summary") or annotations.get("description") or f"The alert {kind} fires."
            reason = reason.replace("\0", "\ufffd")  # which PostgreSQL does not hold
            is_new = journal.open_incident(task, kind, reason, now)
            for known in [one for one in journal.incidents(task, open_only=True) if one.kind == kind]:
                said = to_json(dict(sorted(labels.items())))
                last = _heard(journal.incident_steps([known.number])[known.number]).get(said)
                if last is None or last.what not in (FIRES, STILL):
                    journal.note_step(known.number, FIRES, said, now)
                elif now - last.at >= REPEATED_EVERY / 2:  # it comes with each news of its group, too
                    journal.note_step(known.number, STILL, said, now)
                if is_new:
                    opened.append(f"{task}: {kind}")
                    told(journal, settings, known, "opened", "webhook", reason, now)
        else:
            for known in [one for one in journal.incidents(task, open_only=True) if one.kind == kind]:
                heard = _heard(journal.incident_steps([known.number])[known.number])
                said = to_json(dict(sorted(labels.items())))
                if said in heard and heard[said].what in (FIRES, STILL):
                    journal.note_step(known.number, ENDED, said, now)
                if not _firing(heard, now) - {said} and journal.close_incident(task, kind, now, RESOLVED):
                    closed.append(f"{task}: {kind}")
                    told(journal, settings, known, "closed", "webhook", RESOLVED, now)
    return Received(tuple(opened), tuple(closed), tuple(ignored))


def lapse(journal: Journal, task: str, now: datetime, but: Collection[str] = ()) -> tuple[str, ...]:
    """Close the incidents of a task whose alerts have all ended, one at least by not having been repeated; return their
    kinds. What fires by the embedded rules, ``but``, stays as it is.

    Alertmanager and Grafana repeat what still fires; the end of an alert is never heard where they, or the rule, were
    taken away meanwhile.
    """
    known = [one for one in journal.incidents(task, open_only=True) if one.kind not in but]
    steps = journal.incident_steps([one.number for one in known]) if known else {}
    closed: list[str] = []
    for one in known:
        heard = _heard(steps[one.number])
        firing = _firing(heard, now)
        unheard = [labels for labels, step in heard.items() if step.what in (FIRES, STILL) and labels not in firing]
        for labels in unheard:
            journal.note_step(one.number, LAPSED, labels, now)
        has_lapsed = bool(unheard) or any(step.what == LAPSED for step in heard.values())
        if has_lapsed and not firing and journal.close_incident(task, one.kind, now, UNHEARD):
            closed.append(one.kind)
    return tuple(closed)


def told(
    journal: Journal, settings: Settings, incident: Incident, event: str, by: str, text: str, now: datetime
) -> None:
    """Put the opening or closing of an incident into the alert log, then note that people have been told of it."""
    named = {"number": incident.number, "task": incident.task, "kind": incident.kind, "text": text}
    alert_log.append(settings, {"at": iso(now), "event": event, "by": by, **named})
    journal.note_step(incident.number, TOLD, event, now)


def listing(
    journal: Journal, task: str | None = None, open_only: bool = False, limit: int = 100
) -> list[dict[str, Any]]:
    """Return the newest incidents first, at most so many, each with its steps, as plain data for JSON."""
    found = journal.incidents(task, open_only)[::-1][:limit]
    steps = journal.incident_steps([one.number for one in found])
    return [as_dict(one, steps[one.number]) for one in found]


def find(journal: Journal, number: int) -> tuple[Incident, tuple[IncidentStep, ...]]:
    """Return the incident of a number with its steps; UserError where there is none."""
    for incident in journal.incidents():
        if incident.number == number:
            return incident, journal.incident_steps([number])[number]
    raise UserError("the number of an incident", str(number), "See them: forecastle incidents list")


def close(journal: Journal, settings: Settings, number: int, note: str, now: datetime) -> bool:
    """Close an incident by hand, with what is to be said of it; False where it is closed already."""
    incident, _ = find(journal, number)
    if incident.closed_at is not None or not journal.close_incident(incident.task, incident.kind, now, note):
        return False
    told(journal, settings, incident, "closed", "hand", note, now)
    return True


def as_dict(incident: Incident, steps: Collection[IncidentStep]) -> dict[str, Any]:
    """Return an incident as plain data for JSON."""
    return {
        "number": incident.number,
        "task": incident.task,
        "kind": incident.kind,
        "reason": incident.reason,
        "opened_at": iso(incident.opened_at),
        "closed_at": None if incident.closed_at is None else iso(incident.closed_at),
        "note": incident.note,
        "steps": [{"at": iso(one.at), "what": one.what, "detail": one.detail} for one in steps],
    }


def _heard(steps: Iterable[IncidentStep]) -> dict[str, IncidentStep]:
    """Return what webhooks have told last of each of an incident's alerts, by its labels."""
    return {step.detail: step for step in steps if step.what in (FIRES, STILL, ENDED, LAPSED)}


def _firing(heard: Mapping[str, IncidentStep], now: datetime) -> set[str]:
    """Return the labels of the alerts that fire, as far as webhooks have told of late."""
    return {labels for labels, step in heard.items() if step.what in (FIRES, STILL) and now - step.at < LAPSES_AFTER}


def _alerts(body: object) -> list[Mapping[str, Any]]:
    alerts = body.get("alerts") if isinstance(body, Mapping) else None
    if not isinstance(alerts, list) or not all(isinstance(one, Mapping) for one in alerts):
        raise UserError(
            "the webhook of Alertmanager or Grafana: an object with a list of alerts",
            "something else",
            "Send what their webhook receivers send; see docs/incidents.md.",
        )
    if len(alerts) > MOST_ALERTS:
        raise UserError(f"at most {MOST_ALERTS} alerts", str(len(alerts)), "Set max_alerts of the webhook receiver.")
    return alerts


def _texts(given: object) -> dict[str, str]:
    """Return what is text in a mapping, each cut to a bounded length."""
    if not isinstance(given, Mapping):
        return {}
    return {str(name): text[:MOST_TEXT] for name, text in given.items() if isinstance(text, str)}
