"""What serves changes by decisions that leave a trail, and a crash anywhere is healed. On a real MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from forecastle.errors import RegistryUnavailable, StorageUnavailable, UserError
from forecastle.models import audit, bundle, pointer, publishing, registry
from forecastle.models.audit import Event
from forecastle.models.bundle import Bundle
from forecastle.models.pointer import ModelVersion, folder_digest
from forecastle.settings import Settings
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Shelf:
    """A task's models: trained here, promoted by the minute."""

    def __init__(self, settings: Settings, task: Task, make: Callable[..., Bundle], folder: Path) -> None:
        self.settings, self.task, self.make, self.folder, self.now = settings, task, make, folder, NOON

    def train(self, number: int) -> ModelVersion:
        place = bundle.save(self.make(usual=float(number)), self.folder / str(number))
        return registry.log_training(self.settings, self.task, self.make(usual=float(number)), place)

    def promote(self, version: ModelVersion) -> pointer.Pointer:
        self.now += HOUR
        place = self.folder / version.version
        return publishing.promote(self.settings, self.task, version, place, self.now, "Better.", "ann")

    def rollback(self, to: str | None = None) -> pointer.Pointer:
        self.now += HOUR
        return publishing.rollback(self.settings, self.task, self.now, "It errs.", "bob", to)

    def sync(self) -> publishing.Synced:
        self.now += HOUR
        return publishing.sync(self.settings, self.task, self.now, "cron")

    def state(self) -> tuple[str | None, str | None, list[str]]:
        """What serves, what the alias says, and the stages, version 1 first."""
        serving = pointer.published(self.settings, self.task)
        champion = registry.alias(self.settings, self.task, "champion")
        stages = [one.stage for one in registry.versions(self.settings, self.task)][::-1]
        return serving and serving.version, champion and champion.version, stages

    def events(self) -> list[tuple[str, str, str, str]]:
        return [(one.by, one.action, one.version, one.before) for one in audit.events(self.settings, self.task)]


@pytest.fixture
def shelf(settings: Settings, own_task: Task, make_bundle: Callable[..., Bundle], tmp_path: Path) -> Shelf:
    return Shelf(settings, own_task, make_bundle, tmp_path)


def test_promoting_sets_alias_stage_and_tags_and_publishes_what_the_service_reads(shelf: Shelf) -> None:
    first = shelf.train(1)
    for _ in range(2):
        shelf.now = NOON
        current = shelf.promote(first)
        assert shelf.state() == ("1", "1", ["Production"])
        assert folder_digest(current.folder) == folder_digest(shelf.folder / "1")
    assert shelf.events() == [("ann", "promote", "1", ""), ("ann", "promote", "1", "1")]
    tags = publishing.find(shelf.settings, shelf.task, "champion").tags
    told = tags["promoted_at"], tags["promoted_by"], tags["promoted_because"]
    assert told == ("2013-12-01T13:00:00Z", "ann", "Better.")


def test_rolling_back_goes_to_what_served_before_and_again_further_back_never_forth(shelf: Shelf) -> None:
    for number in (1, 2, 3):
        shelf.promote(shelf.train(number))
    assert shelf.rollback().version == "2"
    assert shelf.state() == ("2", "2", ["Archived", "Production", "Archived"])
    assert shelf.rollback().version == "1"
    assert shelf.state() == ("1", "1", ["Production", "Archived", "Archived"])
    with pytest.raises(UserError, match="served before and was not rejected; found none"):
        shelf.rollback()
    assert shelf.rollback(to="3").version == "3"
    listed = {one.version.version: one.as_dict()["rejected"] for one in publishing.listing(shelf.settings, shelf.task)}
    assert listed == {"1": True, "2": True, "3": False}
    assert shelf.events()[3:] == [("bob", "rollback", *pair) for pair in (("2", "3"), ("1", "2"), ("3", "1"))]


def test_rolling_back_works_where_somebody_has_removed_the_alias(shelf: Shelf) -> None:
    for number in (1, 2):
        shelf.promote(shelf.train(number))
    with registry._registry(shelf.settings) as client:
        client.delete_registered_model_alias(shelf.task.name, "champion")
    assert shelf.rollback().version == "1"
    assert shelf.state() == ("1", "1", ["Production", "Archived"])


@pytest.fixture
def astray(shelf: Shelf, tmp_path: Path) -> Shelf:
    """Versions 1 and 2 served here, and then another home of the same registry promoted 3, which was not published."""
    for number in (1, 2):
        shelf.promote(shelf.train(number))
    other = shelf.settings.model_copy(update={"home": tmp_path / "other", "mlflow_uri": shelf.settings.tracking_uri})
    third = shelf.train(3)
    shelf.now += HOUR
    publishing.promote(other, shelf.task, third, shelf.folder / "3", shelf.now, "Better.", "a pull request")
    assert shelf.state() == ("2", "3", ["Archived", "Archived", "Production"])
    return shelf


def test_rolling_back_starts_from_what_serves_whatever_the_alias_names(astray: Shelf) -> None:
    assert astray.rollback().version == "1"
    assert astray.state() == ("1", "1", ["Production", "Archived", "Archived"])
    assert astray.events()[-1] == ("bob", "rollback", "1", "2")
    with pytest.raises(UserError, match="served before and was not rejected; found none"):
        astray.rollback()  # what never served here did not serve before


def test_rolling_back_to_what_serves_brings_the_alias_back_and_turns_down_what_it_named(astray: Shelf) -> None:
    for _ in range(2):  # as one that dies before it has moved the alias is done again
        assert astray.rollback(to="2").version == "2"
        assert astray.state() == ("2", "2", ["Archived", "Production", "Archived"])
        assert publishing.find(astray.settings, astray.task, "3").tags["rejected_because"] == "It errs."
        with registry._registry(astray.settings) as client:
            client.set_registered_model_alias(astray.task.name, "champion", "3")
    assert astray.rollback().version == "1"


def test_a_rollback_from_an_alias_astray_that_dies_is_finished_and_never_lets_that_one_serve(
    astray: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag, calls = registry.tag, []

    def die_after(*told: object) -> None:
        tag(*told)  # type: ignore[arg-type]
        calls.append(told)
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(registry, "tag", die_after)
        for _ in range(2):  # each time before the alias is moved
            with pytest.raises(KeyboardInterrupt):
                astray.rollback()
    assert len(calls) == 2 and astray.state()[0] == "2"
    assert astray.rollback().version == "1"
    assert astray.state()[:2] == ("1", "1")


def test_where_nothing_was_published_a_rollback_starts_from_the_alias(astray: Shelf, tmp_path: Path) -> None:
    empty = astray.settings.model_copy(update={"home": tmp_path / "empty", "mlflow_uri": astray.settings.tracking_uri})
    assert publishing.rollback(empty, astray.task, astray.now, "It errs.", "cd", "2").version == "2"
    assert astray.state() == ("2", "2", ["Archived", "Production", "Archived"])


def test_a_rejected_challenger_wants_to_serve_no_more_and_what_serves_cannot_be_rejected(shelf: Shelf) -> None:
    shelf.promote(shelf.train(1))
    publishing.challenge(shelf.settings, shelf.task, shelf.train(2), NOON, "No better.", "run")
    assert shelf.state() == ("1", "1", ["Production", "Staging"])
    publishing.reject(shelf.settings, shelf.task, "challenger", NOON + HOUR, "A sensor was moved.", "bob")
    assert shelf.state() == ("1", "1", ["Production", "Archived"])
    assert registry.alias(shelf.settings, shelf.task, "challenger") is None
    tags = publishing.find(shelf.settings, shelf.task, "2").tags
    assert (tags["rejected_by"], tags["rejected_because"]) == ("bob", "A sensor was moved.")
    with pytest.raises(UserError, match="version 1, the champion"):
        publishing.reject(shelf.settings, shelf.task, "1", NOON, "Out.", "bob")
    assert ("run", "keep", "2", "1") in shelf.events() and ("bob", "reject", "2", "1") in shelf.events()


def test_sync_publishes_what_somebody_made_the_champion_in_mlflow(shelf: Shelf) -> None:
    shelf.promote(shelf.train(1))
    shelf.train(2)
    with registry._registry(shelf.settings) as client:
        client.set_registered_model_alias(shelf.task.name, "champion", "2")
    assert shelf.state() == ("1", "2", ["Production", ""])
    listed = publishing.listing(shelf.settings, shelf.task)
    assert [(one.version.version, one.version.aliases, one.serves) for one in listed] == [
        ("2", ("champion",), False),
        ("1", (), True),
    ]
    assert shelf.sync() == publishing.Synced("2", "1", True)
    assert shelf.state() == ("2", "2", ["Archived", "Production"])
    assert shelf.events()[-1] == ("cron", "sync", "2", "1")
    assert shelf.sync() == publishing.Synced("2", "2", False)
    assert len(shelf.events()) == 2
    assert shelf.rollback().version == "1"


def test_whoever_decides_what_serves_waits_for_another_who_does(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PATIENCE", 0.05)
    settings, task = shelf.settings, shelf.task
    shelf.promote(shelf.train(1))
    second = shelf.train(2)
    decisions: list[Callable[[], object]] = [
        lambda: shelf.promote(second),
        lambda: publishing.promote_registered(settings, task, "2", NOON, "Better.", "ann"),
        lambda: publishing.challenge(settings, task, second, NOON, "No better.", "run"),
        lambda: publishing.reject(settings, task, "2", NOON, "Out.", "ann"),
        shelf.rollback,
        shelf.sync,
    ]
    with FileLock(settings.task_folder(task.name) / "champion.lock"):
        for decide in decisions:
            with pytest.raises(StorageUnavailable, match="to decide alone what serves"):
                decide()
    assert shelf.state() == ("1", "1", ["Production", ""]) and len(shelf.events()) == 1
    with publishing.alone(settings, task):  # who has it may decide several times
        shelf.promote(second)


def test_after_a_move_to_another_registry_the_same_number_is_not_taken_for_what_serves(shelf: Shelf) -> None:
    first = shelf.train(1)
    place = bundle.save(shelf.make(usual=9.0), shelf.folder / "older")
    pointer.publish(shelf.settings, shelf.task, replace(first, run_id="of-another-registry"), place, NOON)
    assert [one.serves for one in publishing.listing(shelf.settings, shelf.task)] == [False]
    with registry._registry(shelf.settings) as client:
        client.set_registered_model_alias(shelf.task.name, "champion", "1")
    with pytest.raises(UserError, match="forecastle registry sync"):
        shelf.rollback()
    assert shelf.sync().moved
    current = pointer.published(shelf.settings, shelf.task)
    assert current is not None and current.names(first)
    assert folder_digest(current.folder) == folder_digest(shelf.folder / "1")
    assert not shelf.sync().moved


@pytest.mark.parametrize("crash", ["set_alias", "tag", "record", "publish"])
def test_a_promotion_that_dies_anywhere_is_healed_by_the_next_and_by_sync(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    shelf.promote(shelf.train(1))
    second = shelf.train(2)
    room = {"record": audit, "publish": pointer}.get(crash, registry)
    with monkeypatch.context() as dying:
        dying.setattr(room, crash, die)
        with pytest.raises(Killed):
            shelf.promote(second)
    assert pointer.published(shelf.settings, shelf.task).version == "1"  # type: ignore[union-attr]
    moved = crash != "set_alias"
    assert shelf.sync() == publishing.Synced("2" if moved else "1", "1", moved)
    shelf.promote(second)
    assert shelf.state() == ("2", "2", ["Archived", "Production"])
    assert shelf.events()[-1][1:3] == ("promote", "2")


@pytest.mark.parametrize(("room", "crash"), [(audit, "record"), (pointer, "publish")])
@pytest.mark.parametrize("by_sync", [False, True])
def test_a_rollback_that_dies_goes_no_further_back_and_keeps_its_reason(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, room: object, crash: str, by_sync: bool
) -> None:
    for number in (1, 2, 3):
        shelf.promote(shelf.train(number))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(room, crash, die)
        with pytest.raises(KeyboardInterrupt):
            shelf.rollback()
    if by_sync:
        assert shelf.sync().moved
    else:
        assert shelf.rollback().version == "2"
    event = audit.events(shelf.settings, shelf.task)[-1]
    assert (event.version, event.before) == ("2", "3") and "It errs." in event.why
    assert (event.by, event.action) == (("cron", "sync") if by_sync else ("bob", "rollback"))
    assert shelf.state() == ("2", "2", ["Archived", "Production", "Archived"])
    assert shelf.rollback().version == "1"


def test_a_rejection_that_dies_is_in_the_trail_only_where_the_registry_has_it(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.promote(shelf.train(1))
    shelf.train(2)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(registry, "reject", die)
        with pytest.raises(KeyboardInterrupt):
            publishing.reject(shelf.settings, shelf.task, "2", NOON, "Out.", "bob")
    assert [one[1] for one in shelf.events()] == ["promote"]


def test_sync_replaces_a_published_bundle_that_was_damaged(shelf: Shelf) -> None:
    current = shelf.promote(shelf.train(1))
    (current.folder / "model.json").write_text("{}")
    assert shelf.sync().moved
    assert folder_digest(current.folder) == current.digest


def test_without_a_champion_in_the_registry_what_serves_goes_on(shelf: Shelf) -> None:
    assert shelf.sync() == publishing.Synced(None, None, False)
    shelf.promote(shelf.train(1))
    with registry._registry(shelf.settings) as client:
        client.delete_registered_model_alias(shelf.task.name, "champion")
    assert shelf.sync() == publishing.Synced(None, "1", False)
    assert pointer.published(shelf.settings, shelf.task) is not None


def test_a_model_that_fails_its_self_check_is_not_promoted_and_changes_nothing(shelf: Shelf) -> None:
    shelf.promote(shelf.train(1))
    second = shelf.train(2)
    wrong = shelf.make(usual=9.0)
    wrong.check["forecasts"]["value"][0][0] += 0.1
    bundle.save(wrong, shelf.folder / "2")
    with pytest.raises(RegistryUnavailable, match="to forecast what it did"):
        shelf.promote(second)
    assert shelf.state() == ("1", "1", ["Production", ""]) and len(shelf.events()) == 1


def test_a_version_is_shown_with_its_scores_what_it_learnt_from_and_its_trail(shelf: Shelf) -> None:
    shelf.promote(shelf.train(1))
    found = publishing.show(shelf.settings, shelf.task, "1").as_dict()
    assert (found["version"], found["stage"], found["aliases"], found["serves"]) == (
        "1",
        "Production",
        ["champion"],
        True,
    )
    assert (found["rmse"], found["skill"], found["git_commit"]) == (2.0, 0.25, "c0ffee")
    assert found["weights"] == {"persistence": 1.0} and found["importance"] == {}
    assert set(found["backtest"]["candidates"]) == {"ridge", "persistence"}
    assert [one["why"] for one in found["events"]] == ["Better."]


def test_an_alias_that_names_no_version_yet_is_told_as_such(shelf: Shelf) -> None:
    with pytest.raises(UserError, match="a champion of task .*; found none yet. Train one"):
        publishing.find(shelf.settings, shelf.task, "champion")


def test_an_unknown_version_is_answered_with_those_there_are(shelf: Shelf) -> None:
    shelf.train(1)
    with pytest.raises(UserError, match=r"\(1\), champion or challenger; found 'champoin'; did you mean 'champion'"):
        publishing.find(shelf.settings, shelf.task, "champoin")


def test_an_event_is_kept_once_however_often_it_is_told_and_two_at_one_moment_are_two(own_task, tmp_path) -> None:
    settings = Settings(home=tmp_path)
    first = Event(NOON, "ann", "promote", "1", "", "Why – not?")
    for event in (first, first, Event(NOON, "bob", "promote", "1", "", "Why not?")):
        audit.record(settings, own_task, event)
    assert set(audit.events(settings, own_task)) == {first, Event(NOON, "bob", "promote", "1", "", "Why not?")}
    assert audit.events(Settings(home=tmp_path / "empty"), own_task) == ()
