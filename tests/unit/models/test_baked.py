"""A champion that an image carries: baked from the registry, served alone or where the published one cannot be had."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from forecastle.errors import NotEnoughHistory, StorageUnavailable
from forecastle.models import bundle, registry
from forecastle.models.baked import bake, carried, serving
from forecastle.models.pointer import ModelVersion, publish, published
from forecastle.settings import Settings
from forecastle.task import Task

NOON = datetime(2013, 12, 1, 12, tzinfo=UTC)
MADE_UP = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "serving" / "made_up.py")))
PUBLISHED = ModelVersion("nyc-temperature", "9", "run-nine", "abc")
BAKED = ModelVersion("nyc-temperature", "3", "run-three", "def")


@pytest.fixture
def settings(tmp_path: Path, task: Task) -> Settings:
    """Settings with version 9 published and version 3 baked."""
    made = tmp_path / "bundle"
    made.mkdir()
    (made / "model.json").write_text("{}")
    home, image = tmp_path / "home", tmp_path / "image"
    publish(Settings(home=image), task, BAKED, made, NOON)
    publish(Settings(home=home), task, PUBLISHED, made, NOON)
    return Settings(home=home, baked=str(image))


def _version(settings: Settings, task: Task) -> str | None:
    found = serving(settings, task)
    return found and found.version


def test_the_published_champion_serves_before_the_baked_one(settings: Settings, task: Task) -> None:
    assert _version(settings, task) == "9"


def test_an_image_told_to_serves_what_it_carries(settings: Settings, task: Task) -> None:
    assert _version(settings.model_copy(update={"model_source": "image"}), task) == "3"


def test_where_nothing_was_published_the_baked_one_serves(settings: Settings, task: Task, tmp_path: Path) -> None:
    assert _version(settings.model_copy(update={"home": tmp_path / "empty"}), task) == "3"


def test_where_the_pointer_cannot_be_read_the_baked_one_serves(settings: Settings, task: Task) -> None:
    (settings.task_folder(task.name) / "models" / "champion.json").write_text("{")
    assert _version(settings, task) == "3"
    with pytest.raises(StorageUnavailable, match="champion.json"):
        serving(settings.model_copy(update={"baked": ""}), task)


def test_an_image_that_carries_nothing_serves_nothing_of_its_own(settings: Settings, task: Task) -> None:
    assert carried(settings.model_copy(update={"baked": ""}), task) is None


def test_baking_fetches_the_champion_from_the_registry(task: Task, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    with pytest.raises(NotEnoughHistory, match="run train"):
        bake(settings, task, tmp_path / "image", NOON)
    MADE_UP.publish_champion(settings, task)
    made = published(settings, task)
    assert made is not None
    version = registry.register(settings, task, made.folder, {}, {}, tags={"data_version": "abc"})
    registry.set_alias(settings, task, "champion", version)
    pointer = bake(settings, task, tmp_path / "image", NOON)
    assert (pointer.version, pointer.data_version, pointer.digest) == (version.version, "abc", made.digest)
    assert bundle.load(pointer.folder).task == task.name
    found = serving(Settings(home=tmp_path / "none", baked=str(tmp_path / "image"), model_source="image"), task)
    assert found == pointer
