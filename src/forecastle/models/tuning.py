"""Tuning of boosted trees within a budget of time, by Optuna (T. Akiba and others, KDD 2019), where a task asks for it.

What is tried is judged by the error of two boosters on the last fold inside the training part: the part the back-test
forecasts is never seen. The first trial is the defaults, so that what is found is no worse than they are there. A study
lies in the task's folder and is taken up again where it was left, its seed and what of its time is left included. How
many trials fit into a time hangs on the machine: a tuned training is as reproducible as its study.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from forecastle.data.examples import Examples
from forecastle.errors import UserError
from forecastle.models.learning import BOOSTING, Options, tamed
from forecastle.models.selection import FOLDS, validate

LOG = logging.getLogger("forecastle.training")
STUDY = "tuning.log"
MOST = 200  # trials
JUDGED = ("lightgbm_level", "lightgbm_change")
SPACE: dict[str, tuple[float, float]] = {  # bounds, each searched by its logarithm
    "learning_rate": (0.02, 0.2),
    "num_leaves": (7, 127),
    "min_data_in_leaf": (10, 400),
    "feature_fraction": (0.15, 1.0),
    "lambda_l2": (0.1, 30.0),
    "num_iterations": (60, 400),
}


@dataclass(frozen=True)
class Tuned:
    """What a study found: the best parameters and how many trials it took; with what error, and with the defaults."""

    boosting: Mapping[str, float]
    trials: int
    rmse: float
    default_rmse: float


def tune(examples: Examples, until: int, options: Options, seconds: float, folder: Path, name: str) -> Tuned | None:
    """Search for the boosters' parameters for so many seconds in all, those a study of that name has spent included.

    A trial that has begun is ended, and the defaults are tried however short the time is; None where there is nothing
    to validate on. Raises UserError where Optuna is not installed.
    """
    optuna = _optuna()

    def objective(trial: Any) -> float:
        chosen = {key: _suggest(trial, key) for key in SPACE}
        found = validate(examples, until, FOLDS[-1], replace(options, boosting=chosen), JUDGED)
        if found is None:
            raise optuna.TrialPruned
        pairs, forecasts = found
        error = tamed(np.mean([forecasts[one] for one in JUDGED], axis=0) - pairs.pick(examples.truth))
        return float(np.sqrt(np.mean(error**2)))

    folder.mkdir(parents=True, exist_ok=True)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / STUDY))
    study = optuna.create_study(
        study_name=name,
        storage=optuna.storages.JournalStorage(backend),
        sampler=optuna.samplers.TPESampler(seed=options.seed),
        load_if_exists=True,
    )
    complete = optuna.trial.TrialState.COMPLETE
    if not study.get_trials(states=(complete,)):
        study.enqueue_trial(_defaults(options), skip_if_exists=True)
        study.optimize(objective, n_trials=1)
    ended = study.get_trials(states=(complete,))
    if not ended:
        return None
    left = seconds - sum(one.duration.total_seconds() for one in ended)
    if left > 0 and len(ended) < MOST:
        study.optimize(objective, n_trials=MOST - len(ended), timeout=left)
    ended = study.get_trials(states=(complete,))
    LOG.info("tuned over %s trials: RMSE %.4g, with the defaults %.4g", len(ended), study.best_value, ended[0].value)
    return Tuned(study.best_params, len(ended), study.best_value, ended[0].value)


def _defaults(options: Options) -> dict[str, float]:
    known = {**BOOSTING, "num_leaves": 31, "num_iterations": options.rounds}
    return {key: min(max(known[key], low), high) for key, (low, high) in SPACE.items()}


def _suggest(trial: Any, key: str) -> float:
    low, high = SPACE[key]
    suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
    found: float = suggest(key, low, high, log=True)
    return found


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError(
            "Optuna, which [training] tune needs", "it is not installed", "pip install 'forecastle[tune]'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
