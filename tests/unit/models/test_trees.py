"""LightGBM's library answers through its C interface what the package answers, bit for bit, without being imported."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import numpy as np
import pytest

from forecastle.errors import RegistryUnavailable
from forecastle.models.learning import load_lightgbm
from forecastle.models.trees import FEW, Trees, _library, one_thread

RANDOM = np.random.default_rng(4)
MATRIX = RANDOM.normal(size=(3 * FEW, 5))
MATRIX[RANDOM.random(MATRIX.shape) < 0.1] = np.nan


@pytest.fixture(scope="module")
def booster():
    lightgbm = load_lightgbm()
    goal = np.nan_to_num(MATRIX[:, 0]) + np.nan_to_num(MATRIX[:, 1]) ** 2
    data = lightgbm.Dataset(MATRIX, goal, params={"verbosity": -1})
    return lightgbm.train({"verbosity": -1, "num_threads": 1, "deterministic": True}, data, 20)


@pytest.fixture(scope="module")
def trees(booster) -> Trees:
    return Trees(booster.model_to_string())


@pytest.mark.parametrize("rows", [1, 7, 3 * FEW])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_answer_has_the_bits_of_the_package(booster, trees: Trees, rows: int, dtype: type) -> None:
    some = MATRIX[:rows].astype(dtype)
    assert trees.predict(some).tobytes() == booster.predict(some).tobytes()
    assert trees.contributions(some).tobytes() == booster.predict(some, pred_contrib=True).tobytes()


def test_rows_that_do_not_lie_together_are_read_right(trees: Trees) -> None:
    turned = np.asfortranarray(MATRIX[:50])
    assert trees.predict(turned[::2]).tobytes() == trees.predict(MATRIX[:50:2].copy()).tobytes()


def test_gains_are_the_packages(booster, trees: Trees) -> None:
    assert trees.gains().tolist() == booster.feature_importance(importance_type="gain").tolist()


def test_one_thread_is_all_the_library_takes_until_the_last_that_asked_for_it_is_done() -> None:
    def most() -> int:
        found = ctypes.c_int()
        _library().LGBM_GetMaxThreads(ctypes.byref(found))
        return found.value

    before = most()
    with one_thread():
        with one_thread():
            assert most() == 1
        assert most() == 1
    assert most() == before != 1


def test_nothing_asked_is_nothing_answered(trees: Trees) -> None:
    assert trees.predict(MATRIX[:0]).shape == (0,)


def test_rows_of_another_width_are_refused(trees: Trees) -> None:
    with pytest.raises(ValueError, match="rows of 5 features"):
        trees.predict(MATRIX[:, :4])


def test_text_that_is_no_model_is_said_so() -> None:
    with pytest.raises(RegistryUnavailable, match="trees that LightGBM can read"):
        Trees("tree\nnonsense\n").predict(MATRIX[:1])


def test_the_package_is_not_imported_for_a_forecast(trees: Trees, tmp_path) -> None:
    (tmp_path / "trees.txt").write_text(trees.text, encoding="utf-8")
    program = (
        "import sys, numpy; from forecastle.models.trees import Trees;"
        f"print(Trees(open({str(tmp_path / 'trees.txt')!r}).read()).predict(numpy.zeros((1, 5)))[0]);"
        "print('lightgbm' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert float(said[0]) == trees.predict(np.zeros((1, 5)))[0] and said[1] == "False"
