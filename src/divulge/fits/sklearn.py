"""scikit-learn estimators and Pipelines, and the wrappers of XGBoost, LightGBM and CatBoost, in Pipelines too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from divulge.adapters import ADAPTERS
from divulge.adapters.predictor import Adapter
from divulge.adapters.records import origins, take
from divulge.doors.arrays import distinct, to_array
from divulge.fits.naming import shown
from divulge.fits.outputs import Predict, normalised, of_all_classes, one_query, pair
from divulge.fits.seeding import seeded

SAMPLE = 64
"""Records on which is tried whether an estimator's margins are logits."""


@dataclass(frozen=True, repr=False)
class Sklearn:
    """Trains a copy of an estimator on some rows, with every `random_state` in it set by the seed.

    Attributes:
        estimator: anything with fit and get_params; it is not touched. Every n_jobs in it is 1 while it trains.

    `predict` gives a column for each class of the whole y of the fit, logits where the estimator has them: a class that
    the rows lacked has the probability 0. A regressor gives its predictions.

    >>> from sklearn.linear_model import LogisticRegression
    >>> x, y = np.arange(6.0)[:, None], np.array(["no", "no", "maybe", "maybe", "yes", "yes"])
    >>> predict = Sklearn(LogisticRegression())((x, y), np.array([0, 1, 4, 5]), 0)
    >>> predict((x, y), np.array([0, 5]), 0).argmax(axis=1).tolist()
    [1, 2]
    """

    estimator: Any

    def __repr__(self) -> str:
        return shown(self)

    def __call__(self, data: Any, rows: NDArray[np.int64], seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        x, whole = pair(data)
        inputs, labels = take(x, rows), take(whole, rows)
        with seeded(seed):
            model = prepared(self.estimator, seed)
            if any(("xgboost", "XGBClassifier") in origins(one) for one in _within(model)):
                labels = distinct(to_array(labels, "labels", set()))[1]  # it takes no others than 0..c-1
            model.fit(inputs, labels)
        adapter, sample = _adapter(model), take(inputs, slice(0, SAMPLE))
        y = to_array(whole, "labels", set())
        # Kept, since the columns are the fit's: whoever asks may have other records, of fewer classes.
        present, classes = None, 0
        if y.ndim == 1:
            values, codes = distinct(y)
            present, classes = np.unique(codes[np.asarray(rows)]), len(values)

        def predict(data: Any, rows: NDArray[np.int64], query: int) -> NDArray[Any]:
            one_query(query)
            with adapter.predictor(model, sample) as ready:
                outputs = ready.predict(take(data[0], rows))
                if ready.kind == "predictions" or present is None or ready.classes is None:
                    return normalised(np.asarray(outputs), ready.apart(), y[:1])
                return of_all_classes(ready, outputs, present, classes)

        return predict


def prepared(estimator: Any, seed: int) -> Any:
    """An unfitted copy that trains the same way every time: seeded, on one thread.

    >>> from sklearn.ensemble import RandomForestClassifier
    >>> forest = prepared(RandomForestClassifier(n_jobs=-1), seed=0)
    >>> forest.random_state, forest.n_jobs
    (1838574579, 1)
    """
    from sklearn.base import clone

    model = clone(estimator)
    given = model.get_params(deep=True)
    states = [name for name in sorted(given) if name.rpartition("__")[2] == "random_state"]
    drawn = np.random.SeedSequence(seed).generate_state(len(states) + 1) >> 1  # most take no more than 31 bits
    fixed: dict[str, Any] = {name: int(one) for name, one in zip(states, drawn[1:], strict=True)}
    for name, value in given.items():
        if name.rpartition("__")[2] == "n_jobs" and value is not None:
            fixed[name] = 1
    model.set_params(**fixed)
    for one in _within(model):
        kinds = origins(one)
        if any(package == "catboost" for package, _ in kinds):
            seeds = {} if "random_state" in one.get_params() else {"random_seed": int(drawn[0])}  # one of the two
            one.set_params(thread_count=1, allow_writing_files=False, **seeds)
        elif any(package == "lightgbm" for package, _ in kinds):
            columns = bool(one.get_params().get("force_col_wise"))  # one of the two, or threads decide by their speed
            one.set_params(n_jobs=1, deterministic=True, force_row_wise=not columns)
        elif any(package == "xgboost" for package, _ in kinds):
            one.set_params(n_jobs=1)
    return model


def _within(model: Any) -> Iterator[Any]:
    """An estimator and those that it is made of."""
    yield model
    yield from (
        one for one in model.get_params(deep=True).values() if hasattr(one, "get_params") and hasattr(one, "fit")
    )


def _adapter(model: Any) -> Adapter:
    name = next((ADAPTERS[package] for package, _ in origins(model) if package in ADAPTERS), "sklearn")
    return cast(Adapter, import_module(f"divulge.adapters.{name}"))
