"""A model on disk: ``model.json`` and LightGBM's own text beside it, held together by a digest.

Loading verifies the digest and reads JSON and text only: nothing that was stored is ever run or unpickled.

A bundle carries its own examination: a few series of recent observations with the forecasts they gave when it was
made. ``self_check`` makes them again, features and trees and all, and holds them against what they were.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forecastle.data import formats
from forecastle.data.panel import Floats
from forecastle.data.recent import newest_origins
from forecastle.data.recipe import Recipe
from forecastle.errors import ForecastleError, RegistryUnavailable
from forecastle.frame import KEYS, SERIES, TIME, TIMESTAMP, iso, to_json, write_text
from forecastle.models.intervals import Spread
from forecastle.models.learning import Fitted
from forecastle.models.model import Model, apply
from forecastle.models.trees import Trees

FORMAT = 1
FILE = "model.json"
DIGEST = "digest"
EXAMINED, LONGEST = 2, 1_000  # series of a self-check, and rows of each at most
TOLERANCE = 1e-6  # of a series' forecasts: more than another processor's rounding, less than any other model


@dataclass(frozen=True)
class Bundle:
    """A model with everything that is known about it: its task, data, back-test and the Reference for drift."""

    task: str
    task_digest: str
    version: str  # the registry's; empty until registered
    data_version: str
    created_at: datetime
    trained_until: datetime  # the newest origin it has seen
    model: Model
    features: tuple[str, ...]
    backtest: dict[str, Any]
    reference: dict[str, Any]
    check: dict[str, Any] = field(default_factory=dict)  # see ``examined``; of older bundles empty

    @property
    def estimator(self) -> str:
        """The name of what serves."""
        return self.model.estimator

    @property
    def recipe(self) -> Recipe:
        """The recipe of the model's features."""
        return self.model.recipe


def save(bundle: Bundle, folder: Path) -> Path:
    """Write a bundle into a folder, its digest last: a folder without one is no bundle."""
    (folder / DIGEST).unlink(missing_ok=True)
    texts = {f"trees/{name}.txt": trees.text for name, trees in _trees(bundle.model).items()}
    texts[FILE] = to_json(_plain(bundle), indent=1) + "\n"
    for name, text in texts.items():
        write_text(folder / name, text)
    write_text(folder / DIGEST, digest({name: text.encode() for name, text in texts.items()}) + "\n")
    return folder


def load(folder: Path, version: str = "") -> Bundle:
    """Read a bundle and verify its digest; ``version`` is the registry's name for it.

    Raises RegistryUnavailable where a file is missing or differs from what was saved, FormatError where the format is
    newer.
    """
    loaded = _load(folder, (folder / DIGEST).stat().st_mtime_ns if (folder / DIGEST).exists() else 0)
    return replace(loaded, version=version) if version else loaded


def examined(bundle: Bundle, observations: pl.DataFrame) -> Bundle:
    """Return the bundle with its self-check: observations (series_id, timestamp, the recipe's columns) of the first few
    of its series, as far back as its features look (a thousand steps at most), and what it forecasts from them."""
    recipe = bundle.recipe
    wanted = observations.select(*KEYS, *recipe.columns).filter(pl.col(SERIES).is_in(recipe.series_ids)).sort(KEYS)
    names = wanted[SERIES].unique(maintain_order=True)[:EXAMINED]
    rows = wanted.filter(pl.col(SERIES).is_in(names.to_list())).group_by(SERIES, maintain_order=True)
    kept = rows.tail(min(recipe.reach + 1, LONGEST)).with_columns(pl.col(TIMESTAMP).dt.epoch("us"))
    bare = replace(bundle, check={"observations": kept.to_dict(as_series=False)})
    return replace(bare, check={**bare.check, "forecasts": _forecasts(bare)})


def example(bundle: Bundle) -> pl.DataFrame:
    """Return the observations of a bundle's self-check: series_id, timestamp, the recipe's columns."""
    kinds = {SERIES: pl.String, TIMESTAMP: pl.Int64, **dict.fromkeys(bundle.recipe.columns, pl.Float64)}
    table = pl.DataFrame(bundle.check["observations"], schema=kinds)
    return table.with_columns(pl.from_epoch(TIMESTAMP, time_unit="us").dt.replace_time_zone("UTC").cast(TIME))


def self_check(bundle: Bundle) -> None:
    """Make the forecasts of a bundle's self-check again, and raise RegistryUnavailable unless they are what they were.

    It fails where something else answers than what was trained: other trees, another way to compute features, another
    LightGBM. A bundle that was made before there were self-checks has nothing to compare, and passes.
    """
    if not bundle.check:
        return
    promised = {name: np.array(numbers, dtype=float) for name, numbers in bundle.check["forecasts"].items()}
    action = "Serve it with the forecastle and the LightGBM that trained it, or train again: forecastle run train"
    expected = f"model {bundle.version or 'of this bundle'} to forecast what it did when it was made"
    try:
        made = {name: np.array(numbers, dtype=float) for name, numbers in _forecasts(bundle).items()}
    except (ForecastleError, ValueError, KeyError) as error:
        raise RegistryUnavailable(expected, f"that it cannot: {error}", action) from error
    size = np.nansum([np.abs(one) for one in promised.values()], axis=0).max(axis=1, keepdims=True)  # of each series
    for name, numbers in promised.items():
        if made[name].shape != numbers.shape or not _agree(made[name], numbers, TOLERANCE * size):
            found = f"another {name}: {made[name].ravel()[:3].tolist()} for {numbers.ravel()[:3].tolist()}"
            raise RegistryUnavailable(expected, found, action)


def digest(files: dict[str, bytes]) -> str:
    """Return the SHA-256 of files by name, independent of their order."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return whole.hexdigest()


def _forecasts(bundle: Bundle) -> dict[str, Any]:
    """Return what the model forecasts from its example, and the half widths: each a list of steps for each series."""
    made = apply(bundle.model, newest_origins(bundle.recipe, example(bundle)))
    return {"value": made.value.tolist(), "half": made.half.tolist()}


def _agree(made: Floats, promised: Floats, within: Floats) -> bool:
    """Tell whether two tables of numbers are the same; what is missing in one is to be missing in the other."""
    missing = np.isnan(promised)
    return bool(np.array_equal(np.isnan(made), missing) and (missing | (np.abs(made - promised) <= within)).all())


@lru_cache(maxsize=16)
def _load(folder: Path, _changed: int) -> Bundle:
    try:
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.txt")}
        files[FILE] = (folder / FILE).read_bytes()
        promised = (folder / DIGEST).read_bytes()
    except OSError as error:
        raise RegistryUnavailable(
            f"a whole model in {folder}", str(error), "Publish it again: forecastle registry sync --task FILE"
        ) from error
    if f"{digest(files)}\n".encode() != promised:
        raise RegistryUnavailable(
            f"the model in {folder} as it was saved",
            "other bytes than its digest names",
            "Publish it again: forecastle registry sync --task FILE",
        )
    data = json.loads(files[FILE])
    formats.require(data["format"], FORMAT, f"the model in {folder}")
    texts = {Path(name).stem: content.decode() for name, content in files.items() if name != FILE}
    return _read(data, texts)


def _plain(bundle: Bundle) -> dict[str, Any]:
    model = bundle.model
    return {
        "format": FORMAT,
        "task": bundle.task,
        "task_digest": bundle.task_digest,
        "data_version": bundle.data_version,
        "created_at": iso(bundle.created_at),
        "trained_until": iso(bundle.trained_until),
        "estimator": model.estimator,
        "recipe": model.recipe.as_dict(),
        "members": [
            {"name": one.name, "numbers": one.numbers, "trees": one.trees is not None} for one in model.members
        ],
        "weights": list(model.weights),
        "spread": {name: value for name, value in asdict(model.spread).items() if name != "trees"}
        | {"trees": model.spread.trees is not None},
        "coverage": model.coverage,
        "features": list(bundle.features),
        "usual": model.usual,
        "backtest": bundle.backtest,
        "reference": bundle.reference,
        "check": bundle.check,
    }


def _read(data: dict[str, Any], texts: dict[str, str]) -> Bundle:
    def trees(name: str, there: bool) -> Trees | None:
        return Trees(texts[name]) if there else None

    spread = data["spread"]
    model = Model(
        recipe=Recipe.from_dict(data["recipe"]),
        estimator=data["estimator"],
        members=tuple(Fitted(one["name"], one["numbers"], trees(one["name"], one["trees"])) for one in data["members"]),
        weights=tuple(data["weights"]),
        spread=Spread(tuple(spread["quantiles"]), spread["floor"], spread["usual"], trees("spread", spread["trees"])),
        coverage=data["coverage"],
        usual=data["usual"],
    )
    return Bundle(
        task=data["task"],
        task_digest=data["task_digest"],
        version="",
        data_version=data["data_version"],
        created_at=datetime.fromisoformat(data["created_at"]),
        trained_until=datetime.fromisoformat(data["trained_until"]),
        model=model,
        features=tuple(data["features"]),
        backtest=data["backtest"],
        reference=data["reference"],
        check=data.get("check", {}),
    )


def _trees(model: Model) -> dict[str, Trees]:
    found = {one.name: one.trees for one in model.members if one.trees is not None}
    return found | ({"spread": model.spread.trees} if model.spread.trees is not None else {})
