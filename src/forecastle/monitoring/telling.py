"""Telling people: every incident that opens or ends goes into the alert log and to whom the settings name.

What was told is noted as a step of the incident after it was told. So a crash between the two tells it twice, never
not at all. Who of FORECASTLE_ALERT_URLS did not take it is told again at the next look, and nobody else: steps note who
took it, by digests of the addresses, which may hold passwords.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from forecastle.errors import OutsideError
from forecastle.monitoring.incidents import TOLD, told
from forecastle.monitoring.journal import Incident, Journal
from forecastle.settings import Settings

RECENT = timedelta(days=7)  # what ended before that is told to nobody any more
REACHED = "told in part"  # the step that notes one address of several which took it

_log = logging.getLogger(__name__)


def tell(journal: Journal, settings: Settings, task: str, now: datetime) -> int:
    """Tell of the task's incidents what has not been told yet, each opening and each end once to each address; return
    how many were told to all."""
    recent = [one for one in journal.incidents(task) if one.closed_at is None or one.closed_at > now - RECENT]
    steps = journal.incident_steps([one.number for one in recent]) if recent else {}
    count = 0
    for incident in recent:
        known = {step.detail for step in steps[incident.number] if step.what == TOLD}
        reached = {step.detail for step in steps[incident.number] if step.what == REACHED}
        for event in ("opened", "closed") if incident.closed_at is not None else ("opened",):
            if event in known:
                continue
            keys = {address: f"{event} {_digest(address)}" for address in settings.alert_addresses}
            left = [address for address, key in keys.items() if key not in reached]
            took = send(settings, incident, event, left) if left or not keys else []
            if len(took) == len(left):
                text = incident.reason if event == "opened" else incident.note
                told(journal, settings, incident, event, "watch", text, now)
                count += 1
            else:
                for address in took:
                    journal.note_step(incident.number, REACHED, keys[address], now)
    return count


def send(settings: Settings, incident: Incident, event: str, addresses: Sequence[str]) -> list[str]:
    """Send one message to addresses and return those that took it; without any the program's log is told."""
    title = f"forecastle: {incident.task}: {incident.kind} {event}"
    if event == "opened":
        body = f"{incident.reason} What to do: {settings.runbook_url}#{incident.kind}"
        return _post(addresses, title, body, failure=True)
    return _post(addresses, title, incident.note or "It has ended.", failure=False)


def try_addresses(settings: Settings) -> int:
    """Send one message to every address of the settings and return how many they are; without one the log is told.

    Raises OutsideError where one of them does not take it.
    """
    text = f"This is a trial: alerts arrive here. What to do about one: {settings.runbook_url}#what-to-do"
    addresses = settings.alert_addresses
    if len(_post(addresses, "forecastle: a trial", text, failure=False)) < len(addresses):
        raise OutsideError(
            "every address of FORECASTLE_ALERT_URLS to take a message",
            "one that did not, or is none that Apprise knows",
            "Try them one by one; they are not shown here, as they may hold passwords.",
        )
    return len(addresses)


def _post(addresses: Sequence[str], title: str, body: str, failure: bool) -> list[str]:
    if not addresses:
        _log.warning("%s. %s", title, body)
        return []
    import apprise

    kind = apprise.NotifyType.FAILURE if failure else apprise.NotifyType.SUCCESS
    took = []
    for address in addresses:
        post = apprise.Apprise()
        if not post.add(address):
            _log.error("an address of FORECASTLE_ALERT_URLS is none that Apprise knows")  # it may hold a password
        elif post.notify(title=title, body=body, notify_type=kind):
            took.append(address)
    return took


def _digest(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:12]
