"""What training costs beside LightGBM's own calls: a booster over six steps ahead of 1 M rows with 40 features.

Both sides hold the 1 M rows: 34 features of the origin, 5 of each step ahead (the step is the 40th), and six truths.
"lightgbm" has the 300 000 pairs that are learnt from gathered in a matrix already; timed are its two calls, the Dataset
and the training, to the booster's text. "forecastle" holds examples, which know times, the last value and the season
before as well; timed is the candidate's whole fit: choosing the pairs, gathering them, LightGBM's calls. Both texts are
the same to the byte.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.race import Bar, Race, Side, Work
from forecastle.data.examples import Examples
from forecastle.data.recipe import Recipe
from forecastle.models.estimators import fit_all
from forecastle.models.learning import Lesson, Options, load_lightgbm, tree_names

STEPS, ORIGIN, STEP = 6, 34, 5
SERIES = 50
HOUR = 3_600_000_000
FOREVER = np.iinfo(np.int64).max
NAME = "lightgbm_level"
ORIGIN_NAMES = (*(f"origin_{place}" for place in range(ORIGIN - 1)), "series")
STEP_NAMES = tuple(f"step_{place}" for place in range(STEP))
RACES = (
    Race(
        "training-1m",
        "A booster of 1 M rows with 40 features, six steps ahead",
        "training",
        1_000_000,
        20_000,
        ("forecastle", "lightgbm"),
        (Bar("seconds", 1.3, "lightgbm"), Bar("mib", 2.0, "lightgbm")),
        3,
        4.0,
    ),
)


def prepare(folder: Path, size: int) -> None:
    """Write features of the origins (n, 34), of the steps (6, n, 5), and truths (n, 6)."""
    random = np.random.default_rng(0)
    origin = random.normal(size=(size, ORIGIN)).astype(np.float32)
    origin[:, -1] = np.arange(size) // (size // SERIES)
    step = random.normal(size=(STEPS, size, STEP)).astype(np.float32)
    truth = random.normal(size=(size, STEPS))
    for ahead in range(STEPS):
        truth[:, ahead] += 3 * origin[:, 0] * step[ahead, :, 0] + np.abs(origin[:, ahead])
    for name, values in (("origin", origin), ("step", step), ("truth", truth)):
        np.save(folder / f"{name}.npy", values)


def check(folder: Path, size: int) -> None:
    """Compare the boosters' texts, to the byte."""
    (small := folder / "few").mkdir(exist_ok=True)
    prepare(small, size)
    assert forecastle(small, size)() == lightgbm(small, size)()


def forecastle(folder: Path, size: int) -> Work:
    """Hold the examples, and fit the candidate."""
    examples = _examples(folder)
    load_lightgbm()

    def work() -> str:
        trees = fit_all([NAME], examples, FOREVER, Options())[NAME].trees
        assert trees is not None
        return trees.text

    return work


def lightgbm(folder: Path, size: int) -> Work:
    """Hold the same features and truths, and the pairs in a matrix; make LightGBM's calls."""
    origin, step, truth = (np.load(folder / f"{name}.npy") for name in ("origin", "step", "truth"))
    lesson = Lesson(_examples(folder), FOREVER, Options())
    matrix, goal, parameters = lesson.pairs.matrix, lesson.pairs.pick(truth), lesson.parameters
    names = tree_names(lesson.pairs.names)
    del lesson
    library = load_lightgbm()

    def work() -> str:
        categories = [names.index("series")]
        data = library.Dataset(matrix, goal, feature_name=names, categorical_feature=categories, params=parameters)
        text: str = library.train(parameters, data).model_to_string()
        assert len(origin) == step.shape[1]  # held all the while
        return text

    return work


SIDES: dict[str, Side] = {"forecastle": forecastle, "lightgbm": lightgbm}


def _examples(folder: Path) -> Examples:
    origin, step, truth = (np.load(folder / f"{name}.npy") for name in ("origin", "step", "truth"))
    size = len(origin)
    series, hour = np.divmod(np.arange(size), size // SERIES)
    origins = hour * HOUR
    times = origins[:, None] + HOUR * np.arange(1, STEPS + 1)
    ids = tuple(f"s{number:02d}" for number in range(SERIES))
    recipe = Recipe(("y",), ids, (0,), (2,), 24, STEPS, "UTC", "regular", None, HOUR)
    return Examples(
        recipe=recipe,
        series_ids=ids,
        series=series,
        origins=origins,
        issued_at=origins + HOUR,
        origin=origin,
        step=step,
        times=times,
        last=np.zeros(size),
        seasonal=np.zeros((size, STEPS)),
        truth=truth,
        outcome=truth,
        outcome_at=times + HOUR,
        origin_names=ORIGIN_NAMES,
        step_names=STEP_NAMES,
    )
