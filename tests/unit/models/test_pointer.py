"""The pointer names what serves, and whoever follows it finds a whole bundle."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecastle.errors import StorageUnavailable
from forecastle.models.pointer import ModelVersion, folder_digest, folders, is_whole, publish, published, withdraw
from forecastle.settings import Settings
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
FIRST = ModelVersion("nyc-temperature", "1", "run-one", "abc")
SECOND = ModelVersion("nyc-temperature", "2", "run-two", "def")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "trees").mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    (folder / "trees" / "1.txt").write_text("tree")
    return folder


def test_before_anything_is_published_there_is_no_pointer(settings: Settings, task: Task) -> None:
    assert published(settings, task) is None


def test_what_is_published_is_found_again_with_every_file(settings: Settings, task: Task, bundle: Path) -> None:
    pointer = publish(settings, task, FIRST, bundle, NOON)
    assert published(settings, task) == pointer
    assert (pointer.task, pointer.version, pointer.published_at) == (task.name, "1", NOON)
    assert folder_digest(pointer.folder) == folder_digest(bundle) == pointer.digest


def test_publishing_again_changes_nothing(settings: Settings, task: Task, bundle: Path) -> None:
    first = publish(settings, task, FIRST, bundle, NOON)
    assert publish(settings, task, FIRST, bundle, NOON + timedelta(hours=1)) == first


def test_a_new_champion_takes_the_place_and_the_old_bundle_stays(settings: Settings, task: Task, bundle: Path) -> None:
    old = publish(settings, task, FIRST, bundle, NOON)
    (bundle / "model.json").write_text('{"new": 1}')
    new = publish(settings, task, SECOND, bundle, NOON)
    assert published(settings, task) == new
    assert (old.folder / "model.json").read_text() == "{}"
    assert new.previous == old, "to which the service falls back where the new one cannot be loaded"
    assert publish(settings, task, SECOND, bundle, NOON) == new


def test_after_a_rollback_what_was_turned_down_stands_in_for_nothing(
    settings: Settings, task: Task, bundle: Path
) -> None:
    folders = []
    for number, version in enumerate((FIRST, SECOND)):
        (bundle / "model.json").write_text(f'{{"number": {number}}}')
        folders.append(publish(settings, task, version, bundle, NOON).folder)
    back = publish(settings, task, FIRST, folders[0], NOON, is_rollback=True)
    assert (back.version, back.previous) == (FIRST.version, None)


def test_a_half_copied_bundle_of_an_earlier_attempt_gives_way(settings: Settings, task: Task, bundle: Path) -> None:
    half = settings.task_folder(task.name) / "models" / f"1-{folder_digest(bundle)[:12]}"
    half.mkdir(parents=True)
    (half / "model.json").write_text("{")
    pointer = publish(settings, task, FIRST, bundle, NOON)
    assert folder_digest(pointer.folder) == folder_digest(bundle)
    assert sorted(path.name for path in half.parent.iterdir()) == [half.name, "champion.json"]


def test_another_bundle_of_the_same_version_never_takes_away_what_serves(
    settings: Settings, task: Task, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = publish(settings, task, FIRST, bundle, NOON)
    (bundle / "model.json").write_text("[]")
    for crash in range(1, 9):
        with monkeypatch.context() as dying:
            dying.setattr(os, "replace", _dies_at(crash))
            try:
                publish(settings, task, FIRST, bundle, NOON)
            except KeyboardInterrupt:
                current = published(settings, task)
                assert current == before and is_whole(current), crash
            else:
                break
    current = published(settings, task)
    assert crash > 1 and current is not None and current.digest == folder_digest(bundle) and is_whole(current)


def _dies_at(number: int) -> Callable[..., None]:
    """Return a move of files that works until its so-manieth call, which never returns."""
    moves, move = itertools.count(1), os.replace

    def replace(source: Path, target: Path) -> None:
        if next(moves) == number:
            raise KeyboardInterrupt
        move(source, target)

    return replace


def test_a_champion_published_under_its_number_alone_goes_on_serving(
    settings: Settings, task: Task, bundle: Path
) -> None:
    folder = publish(settings, task, FIRST, bundle, NOON).folder
    older = folder.rename(folder.parent / "1")
    current = published(settings, task)
    assert current is not None and current.folder == older and is_whole(current)
    assert folders(settings, task, "1") == [older]
    publish(settings, task, SECOND, bundle, NOON)
    assert folders(settings, task, "1") == [older] and len(folders(settings, task, "2")) == 1


def test_a_home_that_moved_keeps_its_champion(settings: Settings, task: Task, bundle: Path, tmp_path: Path) -> None:
    publish(settings, task, FIRST, bundle, NOON)
    settings.home.rename(tmp_path / "elsewhere")
    moved = published(Settings(home=tmp_path / "elsewhere"), task)
    assert moved is not None and (moved.folder / "model.json").is_file()


@pytest.mark.parametrize("content", ["", "[]", '{"task": "x"}', '{"version": 1}'])
def test_a_pointer_that_cannot_be_read_is_named(settings: Settings, task: Task, content: str) -> None:
    place = settings.task_folder(task.name) / "models" / "champion.json"
    place.parent.mkdir(parents=True)
    place.write_text(content)
    with pytest.raises(StorageUnavailable, match="champion.json"):
        published(settings, task)


def test_a_disk_that_refuses_is_storage_that_does_not_answer(settings: Settings, task: Task, bundle: Path) -> None:
    settings.home.mkdir()
    (settings.home / task.name).touch()
    with pytest.raises(StorageUnavailable):
        publish(settings, task, FIRST, bundle, NOON)


def test_the_digest_of_a_folder_sees_names_and_bytes(bundle: Path) -> None:
    before = folder_digest(bundle)
    (bundle / "model.json").rename(bundle / "other.json")
    renamed = folder_digest(bundle)
    (bundle / "other.json").write_text("[]")
    assert len({before, renamed, folder_digest(bundle)}) == 3


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Settings, Settings]:
    """Two machines with a home of their own that share their stores."""
    stores = str(tmp_path / "stores")
    return Settings(home=tmp_path / "trainer", stores=stores), Settings(home=tmp_path / "server", stores=stores)


def test_what_one_machine_publishes_to_shared_stores_another_serves(machines, task: Task, bundle: Path) -> None:
    trainer, server = machines
    assert published(server, task) is None
    for version in (FIRST, SECOND):
        (bundle / "model.json").write_text(version.version)
        here = publish(trainer, task, version, bundle, NOON)
        there = published(server, task)
        assert there is not None and there.folder.is_relative_to(server.home)
        assert (there.version, there.digest, there.published_at) == (here.version, here.digest, here.published_at)
        assert folder_digest(there.folder) == folder_digest(bundle)
        assert published(server, task) == there
    newcomer = Settings(home=server.home.with_name("replica"), stores=server.stores)
    found = published(newcomer, task)
    assert found is not None and found.previous is not None, "the one before is fetched, too"
    assert found.previous.version == FIRST.version and (found.previous.folder / "model.json").exists()


def test_a_bundle_half_uploaded_or_damaged_in_shared_stores_is_refused_and_the_one_before_stays(
    machines, task: Task, bundle: Path, tmp_path: Path
) -> None:
    trainer, server = machines
    publish(trainer, task, FIRST, bundle, NOON)
    before = published(server, task)
    (bundle / "model.json").write_text("second")
    publish(trainer, task, SECOND, bundle, NOON)
    (place,) = (tmp_path / "stores" / task.name / "models").glob("2-*")
    whole = (place / "model.json").read_bytes()
    for damage in (lambda path: path.write_text("other"), Path.unlink):
        damage(place / "model.json")
        with pytest.raises(StorageUnavailable, match="champion"):
            published(server, task)
        assert before is not None and folder_digest(before.folder) == before.digest
    (place / "model.json").write_bytes(whole)
    found = published(server, task)
    assert found is not None and found.version == "2"


def test_what_was_published_before_the_stores_were_shared_goes_on_serving(
    machines, task: Task, bundle: Path, tmp_path: Path
) -> None:
    trainer, server = machines
    publish(Settings(home=trainer.home), task, FIRST, bundle, NOON)
    here = published(trainer, task)
    assert here is not None and here.version == "1" and published(server, task) is None
    publish(trainer, task, FIRST, bundle, NOON)
    there = published(server, task)
    assert there is not None and there.digest == here.digest


def test_what_is_withdrawn_is_gone_from_shared_stores(machines, task: Task, bundle: Path, tmp_path: Path) -> None:
    trainer, _ = machines
    publish(trainer, task, FIRST, bundle, NOON)
    publish(trainer, task, SECOND, bundle, NOON)
    withdraw(trainer, task, "1")
    kept = (tmp_path / "stores" / task.name / "models").glob("*-*/*.json")
    names = {path.parent.name.partition("-")[0] for path in kept}
    assert names == {"2"}
