"""What a pull request trains is judged by production's champion, and production keeps what it has."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from forecastle.cli import main
from forecastle.models import pointer, registry
from forecastle.models.promotion import CHAMPION, same_rows
from forecastle.pipeline import CHALLENGE, open_run, run_flow
from forecastle.steps import judged


@pytest.fixture
def production(site, monkeypatch: pytest.MonkeyPatch):
    """A home with a registry of its own whose champion serves."""
    monkeypatch.setenv("FORECASTLE_HOME", str(site.settings.home))
    return site


@pytest.fixture
def job(production, tmp_path: Path, root: Path):
    """A job four days later: a home of its own that was given production's champion, and the same source."""
    home = tmp_path / "job"
    assert main(["bake", "--task", str(root / "tasks" / "nyc-temperature.toml"), "--to", str(home)]) == 0
    settings = production.settings.model_copy(update={"home": home})
    return type(production)(production.task, settings, production.weather, production.now + timedelta(days=4))


def test_a_challenge_is_compared_with_production_s_champion_on_the_same_rows_and_moves_nothing(production, job) -> None:
    before = state(production)
    with open_run(job.task, job.settings, "train", job.now, job.source) as run:
        ended = list(run_flow(run, CHALLENGE))
        assert [one.step for one in ended] == [step.name for step in CHALLENGE] and ended[-1].error is None
        found = judged(run)
    champion = pointer.published(production.settings, production.task)
    assert champion is not None and found.champion_version == champion.version
    rows = same_rows(found.rows, found.champion)
    assert CHAMPION in rows.columns and rows["origin"].n_unique() >= 30
    assert found.decision.rmse[CHAMPION] > 0 and found.decision.rows == rows.height

    assert state(production) == before
    (own,) = registry.versions(job.settings, job.task, with_aliases=True)
    assert own.aliases == () and own.run_id == found.run and own.tags["bundle_digest"]
    serving = pointer.published(job.settings, job.task)
    assert serving is not None and serving.run_id == champion.run_id  # it was judged, and serves not even here
    assert json.loads((run.folder / "decision.json").read_text())["champion"] == champion.version


def state(site) -> tuple[object, ...]:
    """What a registry and a home say serves, and every version there is."""
    known = registry.versions(site.settings, site.task, with_aliases=True)
    return registry.alias(site.settings, site.task, "champion"), pointer.published(site.settings, site.task), known
