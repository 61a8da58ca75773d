"""scikit-learn estimators and Pipelines: logits where they make the probabilities, labels by `classes_`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from divulge.adapters.predictor import Predictor, gives
from divulge.adapters.records import take
from divulge.errors import InputError

#: Methods whose values are logits for some estimators: those for which they give what predict_proba gives.
LOGITS = ("decision_function", "predict_joint_log_proba")


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A classifier's logits, else its probabilities, else its margins; a regressor's predictions."""
    from sklearn.base import is_regressor

    if is_regressor(model):
        yield Predictor(model.predict, kind="predictions")
        return
    classes = getattr(model, "classes_", None)
    if classes is None or isinstance(classes, list):
        got = "no classes_" if classes is None else f"{len(classes)} outputs"
        raise InputError(
            "DV075",
            f"expected a fitted classifier or regressor with one output, got {type(model).__name__} with "
            f"{got}. Fit it first, or audit the outputs one by one",
        )
    if not hasattr(model, "predict_proba"):
        yield Predictor(model.decision_function, classes=classes)
        return
    few = take(sample, slice(0, 64))
    probs = np.asarray(model.predict_proba(few))
    candidates = [getattr(model, name) for name in LOGITS if hasattr(model, name)]
    candidates += [method for method in [_network(model)] if method]
    for method in candidates:
        if gives(method(few), probs):
            yield Predictor(method, classes=classes)
            return
    yield Predictor(model.predict_proba, kind="probs", classes=classes)


def _network(model: Any) -> Callable[[Any], Any] | None:
    """A neural network's outputs before its last activation, from a copy that ends in none; in a Pipeline too."""
    steps = getattr(model, "steps", None)
    end = steps[-1][1] if steps else model
    if not hasattr(end, "out_activation_"):
        return None
    bare = copy.copy(end)  # shares the weights
    bare.out_activation_ = "identity"
    if steps:
        whole = copy.copy(model)
        whole.steps = [*steps[:-1], (steps[-1][0], bare)]
        bare = whole
    binary = end.n_outputs_ == 1
    # For two classes predict_proba puts 1 - p beside p.
    return lambda inputs: bare.predict_proba(inputs)[:, 1] if binary else bare.predict_proba(inputs)
