"""Classifiers that attacks learn membership with, scikit-learn's or the user's, and how they score one record."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import per_class
from divulge.attacks.knowledge import Table
from divulge.attacks.row_by_row import product
from divulge.interrupts import heard

if TYPE_CHECKING:
    from divulge.evidence import Evidence

COSTS = {"logistic": 40.0, "per_class": 75.0, "spline": 250.0, "boosting": 500.0, "knn": 400.0, "mlp": 800.0}
MODELS = tuple(COSTS)
_FULL = 1024  # rows that a user's classifier scores at a time
_SUREST = 1e-12  # a probability of a user's classifier is kept this far from 0 and 1


class Classifier(Protocol):
    """A scikit-learn classifier: `fit(x, y)`, and `decision_function` or `predict_proba`."""

    def fit(self, x: Any, y: Any) -> Any:
        """Fit on (n, d) and (n,) bool."""
        ...


class RowByRow:
    """A fitted pipeline that ends in a linear model or a network, its sums taken in the order of the columns.

    Args:
        pipeline: fitted; its steps but the last work on each value by itself.
    """

    def __init__(self, pipeline: Any) -> None:
        self._before, last = pipeline[:-1], pipeline[-1]
        linear = hasattr(last, "coef_")
        self._layers = (
            [(last.coef_.T, last.intercept_)] if linear else list(zip(last.coefs_, last.intercepts_, strict=True))
        )
        self._most = np.inf if linear else -np.log(_SUREST)  # as a probability is

    def decision_function(self, x: Table) -> NDArray[np.float64]:
        """(n,) log-odds."""
        found = self._before.transform(x)
        for weights, intercept in self._layers[:-1]:
            found = np.maximum(product(found, weights) + intercept, 0)
        weights, intercept = self._layers[-1]
        return np.asarray(np.clip((product(found, weights) + intercept)[:, 0], -self._most, self._most))


class InFullBlocks:
    """A fitted classifier that is asked for 1,024 rows at once, never fewer: BLAS takes other ways for other shapes.

    Args:
        estimator: fitted, with `decision_function` or `predict_proba`.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def decision_function(self, x: Table) -> NDArray[np.float64]:
        """(n,) log-odds."""
        found = np.empty(len(x))
        for start in range(0, len(x), _FULL):
            rows = x[start : start + _FULL]
            found[start : start + _FULL] = log_odds_of(self._estimator, np.resize(rows, (_FULL, x.shape[1])))[
                : len(rows)
            ]
        return found


def gives_scores(model: object) -> bool:
    """Whether it is a classifier that can be an attack: an instance, with more to say than a yes or no.

    >>> gives_scores("logistic")
    False
    """
    scores = hasattr(model, "decision_function") or hasattr(model, "predict_proba")
    return scores and not isinstance(model, type) and hasattr(model, "fit") and hasattr(model, "get_params")


def _logistic(c: float = 1.0) -> Any:
    """newton-cholesky: many rows, few columns; one small system an iteration."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, solver="newton-cholesky", class_weight="balanced")


def new_classifier(model: str, evidence: Evidence, seed: int, rows: int) -> Any:
    """One of `MODELS`, not fitted.

    Args:
        model: which.
        evidence: whose table it will see.
        seed: of its randomness.
        rows: that it will be fitted on.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer, StandardScaler

    if model == "boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            max_iter=100,
            learning_rate=0.05,
            max_leaf_nodes=15,
            min_samples_leaf=40,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )
    if model == "mlp":
        from sklearn.neural_network import MLPClassifier

        network = MLPClassifier(
            (64, 32), alpha=1e-3, early_stopping=True, n_iter_no_change=5, max_iter=200, random_state=seed
        )
        return make_pipeline(StandardScaler(), network)
    if model == "knn":
        from sklearn.neighbors import KNeighborsClassifier

        return make_pipeline(StandardScaler(), KNeighborsClassifier(n_neighbors=min(50, rows // 4)))
    if model == "spline":
        curves = SplineTransformer(5, knots="quantile")
        return make_pipeline(StandardScaler(), curves, StandardScaler(), _logistic(0.1))
    pooled = make_pipeline(StandardScaler(), _logistic())
    if model == "logistic":
        return pooled
    return per_class.PerClass(pooled, per_class.features(evidence.take(slice(1))).shape[1] - 1)


class Fitted(NamedTuple):
    """A classifier and what is taken off its log-odds: those of the fit's own mix, where it takes no weights.

    >>> Fitted(None, 0.0).mix
    0.0
    """

    estimator: Any
    mix: float

    def log_odds(self, unseen: Table) -> NDArray[np.float64]:
        """(m,) log-odds of membership in a pool of as many members as non-members."""
        return log_odds_of(self.estimator, unseen) - self.mix


def fitted_on(estimator: Any, x: Table, y: NDArray[np.bool_]) -> Fitted:
    """A classifier of membership, both sides weighing alike, whatever their sizes.

    Args:
        estimator: not fitted; it, or the last step of its pipeline, is given weights if it takes any.
        x: (n, d).
        y: (n,) bool.
    """
    share = float(y.mean())
    weights = _weights_of(estimator)
    given = {} if weights is None else {weights: np.where(y, 0.5 / share, 0.5 / (1 - share))}
    with heard():
        estimator.fit(x, y, **given)
    if weights is not None:
        return Fitted(estimator, 0.0)
    plain = not _balanced(estimator) and not hasattr(estimator, "decision_function")  # a margin is of no mix
    return Fitted(estimator, float(np.log(share) - np.log1p(-share)) if plain else 0.0)


def _weights_of(estimator: Any) -> str | None:
    """What `fit` calls the rows' weights; None where it takes none, or makes its own of the sides' sizes."""
    if _balanced(estimator):
        return None
    if "sample_weight" in inspect.signature(estimator.fit).parameters:
        return "sample_weight"
    name, last = getattr(estimator, "steps", [("", None)])[-1]
    takes = last is not None and "sample_weight" in inspect.signature(last.fit).parameters
    return f"{name}__sample_weight" if takes else None


def _balanced(estimator: Any) -> bool:
    last = getattr(estimator, "steps", [("", estimator)])[-1][1]
    return isinstance(last, per_class.PerClass) or getattr(last, "class_weight", None) == "balanced"


def log_odds_of(estimator: Any, unseen: Table) -> NDArray[np.float64]:
    """(m,) log-odds of membership, as a fitted classifier has them."""
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(unseen), np.float64)
    p = np.clip(np.asarray(estimator.predict_proba(unseen), np.float64), _SUREST, 1 - _SUREST)
    return np.asarray(np.log(p[:, 1]) - np.log(p[:, 0]))
