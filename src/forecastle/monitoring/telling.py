"""Telling people: every incident that opens or ends goes into the alert log and to whom the settings name.

What was told is noted as a step of the incident after it was told. So a crash between the two tells it twice, never
not at all; where a service of FORECASTLE_ALERT_URLS does not answer, it is told again at the next look.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from forecastle.errors import OutsideError
from forecastle.monitoring.incidents import TOLD, told
from forecastle.monitoring.journal import Incident, Journal
from forecastle.settings import Settings

RECENT = timedelta(days=7)  # what ended before that is told to nobody any more

_log = logging.getLogger(__name__)


def tell(journal: Journal, settings: Settings, task: str, now: datetime) -> int:
    """Tell of the task's incidents what has not been told yet, each opening and each end once; return how many."""
    recent = [one for one in journal.incidents(task) if one.closed_at is None or one.closed_at > now - RECENT]
    steps = journal.incident_steps([one.number for one in recent])
    count = 0
    for incident in recent:
        known = {step.detail for step in steps[incident.number] if step.what == TOLD}
        for event in ("opened", "closed") if incident.closed_at is not None else ("opened",):
            if event not in known and send(settings, incident, event):
                text = incident.reason if event == "opened" else incident.note
                told(journal, settings, incident, event, "watch", text, now)
                count += 1
    return count


def send(settings: Settings, incident: Incident, event: str) -> bool:
    """Send one message to every address of the settings; False where one of them did not take it.

    Without addresses the program's log is told.
    """
    title = f"forecastle: {incident.task}: {incident.kind} {event}"
    if event == "opened":
        body = f"{incident.reason} What to do: {settings.runbook_url}#{incident.kind}"
        return _post(settings, title, body, failure=True)
    return _post(settings, title, incident.note or "It has ended.", failure=False)


def try_addresses(settings: Settings) -> int:
    """Send one message to every address of the settings and return how many they are; without one the log is told.

    Raises OutsideError where one of them does not take it.
    """
    text = f"This is a trial: alerts arrive here. What to do about one: {settings.runbook_url}#what-to-do"
    if not _post(settings, "forecastle: a trial", text, failure=False):
        raise OutsideError(
            "every address of FORECASTLE_ALERT_URLS to take a message",
            "one that did not, or is none that Apprise knows",
            "Try them one by one; they are not shown here, as they may hold passwords.",
        )
    return len(settings.alert_addresses)


def _post(settings: Settings, title: str, body: str, failure: bool) -> bool:
    addresses = settings.alert_addresses
    if not addresses:
        _log.warning("%s. %s", title, body)
        return True
    import apprise

    kind = apprise.NotifyType.FAILURE if failure else apprise.NotifyType.SUCCESS
    post = apprise.Apprise()
    if not all([post.add(address) for address in addresses]):
        _log.error("an address of FORECASTLE_ALERT_URLS is none that Apprise knows")  # it may hold a password
    return bool(post.notify(title=title, body=body, notify_type=kind))
