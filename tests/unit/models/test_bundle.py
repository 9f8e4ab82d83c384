"""A bundle on disk is whole and as it was saved, or it is refused; loading runs nothing that was stored."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from forecastle.errors import FormatError, RegistryUnavailable
from forecastle.frame import to_json
from forecastle.models import bundle as bundles
from forecastle.models.bundle import DIGEST, FILE, Bundle, digest, examined, load, save, self_check
from forecastle.models.estimators import BOOSTED, ESTIMATORS, LEARNERS
from forecastle.models.learning import all_pairs
from forecastle.models.intervals import Errors, calibrate
from forecastle.models.model import Model, apply

NOW = datetime(2024, 3, 1, tzinfo=UTC)


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "boom")


@pytest.fixture
def examples(small_task, observations, examples_of):
    return examples_of(small_task(), observations(hours=200))


@pytest.fixture
def bundle(examples, quick) -> Bundle:
    until = int(np.median(examples.origins))
    members = tuple(ESTIMATORS[name].fit(examples, until, quick) for name in LEARNERS)
    pairs = all_pairs(examples.take(np.flatnonzero(~np.isnan(examples.truth).any(axis=1))))
    truth = pairs.pick(pairs.examples.truth)
    spread = calibrate([Errors(pairs, truth * 0.9, truth, np.arange(len(truth)) % 2)], 0.9, 0)
    weights, usual = (0.3, 0.3, 0.1, 0.1, 0.1, 0.1), {"a": 1 / 3, "b": 2.0}
    model = Model(examples.recipe, "blend", members, weights, spread, 0.9, usual)
    return Bundle("small", "abc", "", "d41d", NOW, NOW, model, examples.names, {"rmse": 0.1}, {"features": []})


def test_what_is_loaded_is_what_was_saved_and_forecasts_the_same_bits(bundle, examples, tmp_path):
    loaded = load(save(bundle, tmp_path / "b"), version="7")
    assert loaded == replace(bundle, version="7")
    before, after = apply(bundle.model, examples), apply(loaded.model, examples)
    assert before.value.tobytes() == after.value.tobytes() and before.half.tobytes() == after.half.tobytes()


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(bundle, tmp_path):
    one, two = save(bundle, tmp_path / "one"), save(save_and_load(bundle, tmp_path), tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert [str(path) for path in files] == [
        DIGEST,
        FILE,
        *(f"trees/{name}.txt" for name in sorted((*BOOSTED, "spread"))),
    ]
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)


def save_and_load(bundle: Bundle, folder: Path) -> Bundle:
    return load(save(bundle, folder / "between"))


def test_a_changed_byte_anywhere_is_refused(bundle, tmp_path):
    random = np.random.default_rng(0)
    for number in range(30):
        folder = save(bundle, tmp_path / str(number))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[number % len(files)]
        content = bytearray(path.read_bytes())
        content[random.integers(len(content))] ^= int(random.integers(1, 256))
        path.write_bytes(content)
        with pytest.raises(RegistryUnavailable, match="forecastle registry sync"):
            load(folder)


@pytest.mark.parametrize("name", [DIGEST, FILE, "trees/spread.txt", "trees/lightgbm_level.txt"])
def test_a_missing_file_is_refused(bundle, tmp_path, name):
    folder = save(bundle, tmp_path / "b")
    (folder / name).unlink()
    with pytest.raises(RegistryUnavailable, match="as it was saved|a whole model"):
        load(folder)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(RegistryUnavailable, match="a whole model"):
        load(tmp_path)


def test_trees_that_were_not_saved_with_it_are_refused(bundle, tmp_path):
    folder = save(bundle, tmp_path / "b")
    (folder / "trees" / "more.txt").write_text("tree\n")
    with pytest.raises(RegistryUnavailable):
        load(folder)


def test_a_planted_pickle_is_never_opened(bundle, examples, tmp_path):
    folder, crater = save(bundle, tmp_path / "b"), tmp_path / "crater"
    bomb = pickle.dumps(Bomb(crater))
    for name in (
        "model.pkl",
        "python_model.pkl",
        "trees/spread.pkl",
        "trees/spread.joblib",
        "MLmodel",
        "model.json.pkl",
    ):
        (folder / name).write_bytes(bomb)
    assert np.isfinite(apply(load(folder).model, examples).value).all()
    assert not crater.exists()
    pickle.loads(bomb)
    assert crater.exists()


def test_a_pickle_in_the_place_of_a_file_is_refused_unopened(bundle, tmp_path):
    crater = tmp_path / "crater"
    for number, name in enumerate((FILE, DIGEST, "trees/spread.txt")):
        folder = save(bundle, tmp_path / str(number))
        (folder / name).write_bytes(pickle.dumps(Bomb(crater)))
        with pytest.raises(RegistryUnavailable):
            load(folder)
    assert not crater.exists()


def test_a_format_newer_than_this_program_is_refused(bundle, tmp_path):
    folder = save(bundle, tmp_path / "b")
    data = json.loads((folder / FILE).read_text()) | {"format": 99}
    (folder / FILE).write_text(json.dumps(data))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in (*folder.rglob("*.txt"), folder / FILE)}
    (folder / DIGEST).write_text(digest(files) + "\n")
    with pytest.raises(FormatError, match="format 99"):
        load(folder)


def test_a_bundle_saved_anew_in_its_folder_is_the_one_loaded(bundle, tmp_path):
    folder = save(bundle, tmp_path / "b")
    assert load(folder).data_version == "d41d"
    save(replace(bundle, data_version="other"), folder)
    assert load(folder).data_version == "other"


def test_the_digest_depends_on_names_and_contents_not_on_order():
    assert digest({"a": b"1", "b": b"2"}) == digest({"b": b"2", "a": b"1"})
    assert len({digest(files) for files in ({"a": b"12"}, {"a1": b"2"}, {"a": b"1", "b": b"2"}, {})}) == 4


@pytest.fixture
def with_check(bundle, observations) -> Bundle:
    return examined(bundle, observations(hours=200))


def test_a_self_check_survives_saving_and_passes(with_check, tmp_path):
    loaded = load(save(with_check, tmp_path / "b"))
    assert loaded == with_check
    self_check(loaded)
    assert bundles.example(loaded)["series_id"].unique().sort().to_list() == ["a", "b"]


def test_the_same_model_and_observations_give_the_same_self_check_whatever_the_order(bundle, observations):
    table = observations(hours=200)
    again = examined(bundle, table.sample(fraction=1, shuffle=True, seed=3))
    assert again.check == examined(bundle, table).check
    assert len(again.check["forecasts"]["value"]) == 2 and len(again.check["forecasts"]["half"][0]) == 3


@pytest.mark.parametrize("part", ["members", "spread", "weights"])
def test_a_model_that_answers_something_else_fails_its_self_check(with_check, part):
    model = with_check.model
    other = {
        "members": tuple(reversed(model.members)),
        "spread": replace(model.spread, quantiles=tuple(1.001 * one for one in model.spread.quantiles)),
        "weights": tuple(reversed(model.weights)),
    }
    with pytest.raises(RegistryUnavailable, match="to forecast what it did when it was made; found another"):
        self_check(replace(with_check, model=replace(model, **{part: other[part]})))


def test_features_that_are_computed_otherwise_fail_the_self_check(with_check, monkeypatch):
    from forecastle.data import transformation

    lags = transformation.origin_features

    def other(*arguments):
        found = lags(*arguments)
        return replace(found, matrix=found.matrix * np.float32(1.1))

    monkeypatch.setattr("forecastle.data.examples.origin_features", other)
    with pytest.raises(RegistryUnavailable, match="another value"):
        self_check(with_check)


def test_a_self_check_that_cannot_be_made_fails(with_check):
    observations = {**with_check.check["observations"], "series_id": ["z"] * len(with_check.check["observations"]["y"])}
    with pytest.raises(RegistryUnavailable, match="that it cannot: .*'z'"):
        self_check(replace(with_check, check={**with_check.check, "observations": observations}))


def test_a_bundle_from_before_there_were_self_checks_passes(bundle, tmp_path):
    folder = save(bundle, tmp_path / "b")
    data = json.loads((folder / FILE).read_text())
    del data["check"]
    (folder / FILE).write_text(json.dumps(data))
    files = {str(path.relative_to(folder)): path.read_bytes() for path in (*folder.rglob("*.txt"), folder / FILE)}
    (folder / DIGEST).write_text(digest(files) + "\n")
    self_check(load(folder))


def test_an_interval_that_cannot_be_told_is_no_failure_and_one_that_comes_from_nowhere_is(
    bundle, observations, tmp_path
):
    spread = replace(bundle.model.spread, quantiles=(float("nan"), 1.0, 1.0))
    unknown = replace(bundle, model=replace(bundle.model, spread=spread))
    made = examined(unknown, observations(hours=200))
    assert np.isnan(np.array(made.check["forecasts"]["half"])).any()
    self_check(replace(made, check=json.loads(to_json(made.check))))
    with pytest.raises(RegistryUnavailable, match="another half"):
        self_check(replace(made, model=bundle.model))


def test_a_long_history_is_examined_by_its_newest_rows(bundle, observations):
    found = examined(bundle, observations(hours=3000, series=("a", "b")))
    assert len(found.check["observations"]["y"]) == 2 * min(bundle.recipe.reach + 1, bundles.LONGEST)
