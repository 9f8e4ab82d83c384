"""The loop back: what is served drifts, an alarm asks for a retrain, the live loop trains, the incident says it all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from forecastle import pipeline
from forecastle.monitoring import alert_log, incidents


def alarm(site: Any, kind: str = "data-drift") -> None:
    """Bring an alarm in from outside, as Alertmanager's webhook does."""
    labels = {"alertname": "Forecastle", "task": site.task.name, "rule": kind}
    body = {"alerts": [{"status": "firing", "labels": labels, "annotations": {"summary": "It has drifted."}}]}
    with site.journal() as journal:
        incidents.receive(journal, site.settings, [site.task.name], body, site.now)


def incident(site: Any) -> dict[str, Any]:
    with site.journal() as journal:
        (known,) = [one for one in incidents.listing(journal, site.task.name) if one["kind"] == "data-drift"]
    return known


def steps_of(site: Any) -> list[str]:
    return [step["what"] for step in incident(site)["steps"]]


def live_pass(site: Any) -> dict[str, pipeline.Outcome]:
    """One pass of ``forecastle live`` as of the site's moment: LIVE, then TRAIN where an incident wants it."""
    site.now += timedelta(hours=1)
    site.must_run("live")
    with pipeline.open_run(site.task, site.settings, "live", site.now, site.source) as run:
        return {outcome.step: outcome for outcome in pipeline.retrain_if_wanted(run)}


def test_an_alarm_from_outside_is_answered_by_a_training_as_soon_as_there_is_enough_to_learn_from(site) -> None:
    site.now += timedelta(hours=30)
    alarm(site)
    assert live_pass(site) == {}, "a day of new data is too little"
    assert steps_of(site) == ["opened", "alert fires", "told", "retrain waits"]
    site.now += timedelta(days=2)
    ended = live_pass(site)
    assert [*ended] == [step.name for step in pipeline.TRAIN]
    done = steps_of(site)
    assert done[:6] == ["opened", "alert fires", "told", "retrain waits", "retrain asked", "training started"]
    assert done[6:] == ["challenger promoted" if ended["promote"].summary["promoted"] else "challenger kept out"]
    assert live_pass(site) == {}, "asked once"
    known = incident(site)
    assert known["closed_at"] is None, "it ends when its measure is back, and no sooner"
    assert "Version 2." in known["steps"][6]["detail"]
    assert '"kind": "data-drift"' in alert_log.place(site.settings).read_text(encoding="utf-8")


def test_a_training_that_fails_is_said_and_asked_for_again_after_the_cooldown(site) -> None:
    site.now += timedelta(days=3)
    alarm(site)
    site.must_run("live")
    site.source.fault = "503"
    with pipeline.open_run(site.task, site.settings, "live", site.now, site.source) as run:
        ended = [*pipeline.retrain_if_wanted(run)]
    assert ended[-1].error is not None
    assert steps_of(site)[-2:] == ["training started", "training failed"]
    site.source.fault = None
    assert live_pass(site) == {}
    site.now += timedelta(days=1)
    assert "promote" in live_pass(site)
