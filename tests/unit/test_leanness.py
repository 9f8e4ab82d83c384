"""A process of forecastle's own imports LightGBM without scikit-learn, and learns the same; another gets it whole."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys

from forecastle.leanness import own_process

if sys.argv[1] == "own":
    own_process()
import numpy as np

from forecastle.models.learning import load_lightgbm

lightgbm = load_lightgbm()
there = "sklearn" in sys.modules
rows = np.random.default_rng(0).normal(size=(500, 4))
booster = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(rows, rows[:, 0]), 5)
import sklearn.linear_model

fitted = sklearn.linear_model.Ridge().fit(rows, rows[:, 0])
print(json.dumps([there, booster.model_to_string(), round(float(fitted.coef_[0]), 2)]))
"""


def test_what_is_imported_for_others_is_left_out_by_a_process_of_its_own_alone() -> None:
    own, other = (
        json.loads(subprocess.run([sys.executable, "-c", PROGRAM, whose], check=True, capture_output=True).stdout)
        for whose in ("own", "other")
    )
    assert (own[0], other[0]) == (False, True)
    assert own[1:] == other[1:], "trees are the same, and whoever imports scikit-learn afterwards has it"
