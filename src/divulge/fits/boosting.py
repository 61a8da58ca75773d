"""XGBoost and LightGBM by their own training functions: margins as logits, of all classes of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters import lightgbm as lightgbm_adapter
from divulge.adapters import xgboost as xgboost_adapter
from divulge.adapters.predictor import Adapter, needed
from divulge.adapters.records import take
from divulge.doors.arrays import distinct, to_array
from divulge.errors import InputError
from divulge.fits.naming import shown
from divulge.fits.outputs import Predict, of_all_classes, one_query, pair
from divulge.fits.seeding import seeded

#: Other names of the seed and of the number of threads, which are set here.
XGBOOST_SET = ("seed", "random_state", "nthread", "n_jobs")
LIGHTGBM_SET = (
    *("seed", "random_seed", "random_state", "num_threads", "num_thread", "nthread", "nthreads", "n_jobs"),
    *("deterministic", "force_row_wise", "force_col_wise"),
)
SAMPLE = 64
"""Records on which is tried what the margins are."""
BRIEF = 10
"""What share of the rounds a short trial trains: one in so many."""


@dataclass(frozen=True, repr=False)
class XGBoost:
    """Trains a Booster on some rows by xgboost.train, on one thread, with the seed.

    Attributes:
        parameters: of xgboost.train; the objective is by default logistic, softmax or squared error, by the labels.
            Seed and threads in it are overridden.
        rounds: of boosting.

    >>> XGBoost({"max_depth": 4}, rounds=50)
    XGBoost({'max_depth': 4}, rounds=50)
    """

    parameters: Mapping[str, Any]
    rounds: int = 100

    def __post_init__(self) -> None:
        _check_rounds(self.rounds)

    def __repr__(self) -> str:
        return shown(self)

    def __call__(self, data: Any, rows: NDArray[np.int64], seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        xgboost = needed("xgboost", "boosting")
        x, labels = pair(data)
        y, classes = _coded(labels)
        objective = {0: "reg:squarederror", 2: "binary:logistic"}.get(classes, "multi:softprob")
        parameters = {"objective": objective, **_without(self.parameters, XGBOOST_SET)}
        if str(parameters["objective"]).startswith("multi:"):
            parameters["num_class"] = classes
        with seeded(seed):
            matrix = xgboost.DMatrix(take(x, rows), label=y[rows], enable_categorical=True)
            booster = xgboost.train({**parameters, "seed": seed, "nthread": 1}, matrix, self.rounds)
        booster.set_param({"nthread": 1})
        return _predict(xgboost_adapter, booster, take(x, rows[:SAMPLE]), classes)

    def brief(self) -> tuple[XGBoost, float]:
        """A training of a tenth of the rounds, and how many times as long all of them take."""
        rounds = -(-self.rounds // BRIEF)
        return replace(self, rounds=rounds), self.rounds / rounds


@dataclass(frozen=True, repr=False)
class LightGBM:
    """Trains a Booster on some rows by lightgbm.train, on one thread, deterministic, with the seed.

    Attributes:
        parameters: of lightgbm.train; the objective is by default binary, multiclass or regression, by the labels.
            Seed, threads and what makes it deterministic are overridden.
        rounds: of boosting.

    >>> LightGBM({"num_leaves": 15}, rounds=50).brief()
    (LightGBM({'num_leaves': 15}, rounds=5), 10.0)
    """

    parameters: Mapping[str, Any]
    rounds: int = 100

    def __post_init__(self) -> None:
        _check_rounds(self.rounds)

    def __repr__(self) -> str:
        return shown(self)

    def __call__(self, data: Any, rows: NDArray[np.int64], seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        lightgbm = needed("lightgbm", "boosting")
        x, labels = pair(data)
        y, classes = _coded(labels)
        objective = {0: "regression", 2: "binary"}.get(classes, "multiclass")
        parameters = {"objective": objective, "verbosity": -1, **_without(self.parameters, LIGHTGBM_SET)}
        if str(parameters["objective"]).startswith(("multiclass", "softmax", "ova", "ovr")):
            parameters["num_class"] = classes
        fixed = {"seed": seed, "num_threads": 1, "deterministic": True, "force_row_wise": True}
        with seeded(seed):
            table = lightgbm.Dataset(take(x, rows), label=y[rows], params={"verbosity": -1})
            booster = lightgbm.train({**parameters, **fixed}, table, self.rounds)
        return _predict(lightgbm_adapter, booster, take(x, rows[:SAMPLE]), classes)

    def brief(self) -> tuple[LightGBM, float]:
        """A training of a tenth of the rounds, and how many times as long all of them take."""
        rounds = -(-self.rounds // BRIEF)
        return replace(self, rounds=rounds), self.rounds / rounds


def _check_rounds(rounds: int) -> None:
    if rounds < 1:
        raise InputError("DV003", f"expected at least 1 round of boosting, got {rounds!r}")


def _without(parameters: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in names}


def _coded(labels: Any) -> tuple[NDArray[Any], int]:
    """(n,) numbers of the classes, or floats of a regression; and how many classes there are, 0 of a regression."""
    y = to_array(labels, "labels", set())
    if y.dtype.kind == "f" and not np.isin(y, (0, 1)).all():
        return y, 0
    values, codes = distinct(y)
    return codes, max(len(values), 2)


def _predict(adapter: Adapter, booster: Any, sample: Any, classes: int) -> Predict:
    def predict(data: Any, rows: NDArray[np.int64], query: int) -> NDArray[Any]:
        one_query(query)
        with adapter.predictor(booster, sample) as ready:
            outputs = np.asarray(ready.predict(take(data[0], rows)))
            if ready.kind == "predictions" or not classes or (outputs.ndim == 1 and classes != 2):
                return outputs
            return of_all_classes(ready, outputs, np.arange(classes), classes)

    return predict
