"""scikit-learn estimators and Pipelines: logits where they make the probabilities, labels by `classes_`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import Predictor, gives
from divulge.adapters.records import take
from divulge.errors import InputError

#: Methods whose values are logits for some estimators: those for which they give what predict_proba gives.
LOGITS = ("decision_function", "predict_joint_log_proba")
#: Share of records for which the highest margin must name the predicted class: SVC breaks ties of votes in its own way.
AGREE = 0.9


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
        _check_margins(model, sample, np.asarray(classes))
        yield Predictor(model.decision_function, classes=classes)
        return
    few = take(sample, slice(0, 64))
    probs = np.asarray(model.predict_proba(few))
    candidates = [getattr(model, name) for name in LOGITS if hasattr(model, name)]
    candidates += [method for method in [_network(model)] if method]
    method = next((one for one in candidates if gives(one(few), probs)), None)
    if method is None:
        yield Predictor(model.predict_proba, kind="probs", classes=classes)
        return
    apart = not gives(method(few), probs, apart=False)
    yield Predictor(method, classes=classes, apart=lambda: apart)


def _check_margins(model: Any, sample: Any, classes: NDArray[Any]) -> None:
    """Refuse margins that are not one a class: those of pairs of classes would be read as if they were."""
    name = type(model).__name__
    if not hasattr(model, "decision_function"):
        raise InputError(
            "DV075",
            f"expected a classifier with predict_proba or decision_function, got {name} with neither: it only names "
            "a class. Give it probabilities (VotingClassifier: voting='soft'; else wrap it in CalibratedClassifierCV)",
        )
    margins, named = np.asarray(model.decision_function(sample)), np.asarray(model.predict(sample))
    if named.ndim != 1 or not len(named):  # several labels a record: a margin each
        return
    several = margins.ndim == 2 and margins.shape[1] > 1
    if (margins.shape[1] if several else 2) == len(classes):
        highest = margins.argmax(axis=1) if several else (margins.reshape(-1) > 0).astype(np.int64)
        if np.mean(classes[highest] == named) >= AGREE:
            return
    raise InputError(
        "DV075",
        f"expected a margin for each class, the highest where {name} predicts it, got margins of shape "
        f"{margins.shape} for {len(classes)} classes that name other classes than its predict: those of pairs of "
        "classes. Set decision_function_shape='ovr', or give it probabilities (CalibratedClassifierCV)",
    )


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
