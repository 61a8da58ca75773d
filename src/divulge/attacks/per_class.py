"""A classifier of membership for each class of the model's, on top of one for all: the attack model of Shokri et al."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.knowledge import Table, log_probabilities
from divulge.attacks.row_by_row import product
from divulge.errors import Unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

STRENGTH = 0.1  # of a class's data against its ridge
FEW = 20  # records of a side below which a class keeps the classifier of all
WIDEST = 30  # classes up to which a class's classifier sees every log-probability


def features(evidence: Evidence, floor: float | None = None) -> Table:
    """What a class's own classifier sees beside the score of the one for all: (n, c + 1), last the label.

    Log-probabilities in the order of the classes; none beyond 30 classes.

    Args:
        evidence: n records.
        floor: what a probability of 0 is taken for; None: `divulge.signals.floor_of` these.

    Raises:
        Unavailable: there is not one class label a record.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), outputs=np.zeros((2, 3)), labels=np.array([0, 2]), kind="logits")
    >>> features(evidence)[:, -1].tolist()
    [0.0, 2.0]
    """
    labels = evidence.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
        raise Unavailable("an attack for each class needs one class label a record")
    return np.column_stack([log_probabilities(evidence, WIDEST, floor), labels.astype(np.float32)])


class PerClass:
    """Fits one classifier on all rows and, where a class has enough of them, one on the class's that corrects it.

    That on all rows sees the log-probabilities in the order of the classes too, so it is more than learned(logistic).

    Args:
        pooled: a classifier with `decision_function`, not fitted; sees all columns but the label.
        wide: how many of the last columns, before the label, are log-probabilities.

    Source: Shokri et al. 2017, section V.C (one attack model a class), shrunk to the one for all.
    """

    def __init__(self, pooled: Any, wide: int) -> None:
        self._pooled, self._wide = pooled, wide
        self._product: Callable[..., Any] = np.matmul
        self._of_class: dict[float, NDArray[np.float64]] = {}

    def fit(self, x: Table, y: NDArray[np.bool_]) -> PerClass:
        """(n, d) table, last column the label; (n,) membership."""
        self._pooled.fit(x[:, :-1], y)
        self._center, self._spread = self._log_p(x).mean(axis=0), self._log_p(x).std(axis=0) + 1e-6
        table, labels = self._seen(x), x[:, -1]
        for label in np.unique(labels).tolist():
            rows = labels == label
            if min(int(y[rows].sum()), int((~y[rows]).sum())) >= FEW:
                self._of_class[label] = ridge_logistic(table[rows], y[rows], STRENGTH)
        return self

    def decision_function(self, x: Table) -> NDArray[np.float64]:
        """(n,) log-odds of membership."""
        scores = np.array(self._pooled.decision_function(x[:, :-1]), np.float64)
        table, labels = self._seen(x, scores), x[:, -1]
        for label, own in self._of_class.items():
            rows = np.flatnonzero(labels == label)
            if len(rows):
                scores[rows] = self._product(table[rows], own[:-1, None])[:, 0] + own[-1]
        return scores

    def row_by_row(self, pooled: Any) -> PerClass:
        """The same, fitted, whose sums do not depend on which rows come together; `pooled` is so, of that on all."""
        steady = copy(self)
        steady._pooled, steady._product = pooled, product
        return steady

    @property
    def pooled(self) -> Any:
        """The classifier on all rows."""
        return self._pooled

    def _log_p(self, x: Table) -> Table:
        return x[:, x.shape[1] - 1 - self._wide : -1]

    def _seen(self, x: Table, scores: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        scores = self._pooled.decision_function(x[:, :-1]) if scores is None else scores
        return np.column_stack([scores / 2, (self._log_p(x) - self._center) / self._spread])


def ridge_logistic(x: NDArray[np.float64], y: NDArray[np.bool_], strength: float) -> NDArray[np.float64]:
    """Coefficients of a logistic regression, the intercept last: scikit-learn's with C = strength, both sides alike.

    Ours, because scikit-learn's checks of its input take ten times as long as fits as small as a class's.

    Args:
        x: (n, d), scaled.
        y: (n,), both values among them.
        strength: weight of the rows' loss against half the squared coefficients.

    >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> ridge_logistic(x, np.array([False, False, True, True]), 0.1).round(2).tolist()
    [0.24, 0.0]
    """
    table = np.column_stack([x, np.ones(len(x))])
    weight = strength * np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum()))
    ridge = np.append(np.ones(x.shape[1]), 1e-9)
    found = np.zeros(x.shape[1] + 1)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(table @ found, -30, 30)))
        slope = table.T @ (weight * (p - y)) + ridge * found
        bend = (table.T * (weight * p * (1 - p))) @ table + np.diag(ridge)
        step = np.linalg.solve(bend, slope)
        found -= step / max(1.0, float(np.abs(step).max()) / 2)  # a long step may overshoot
        if float(np.abs(step).max()) < 1e-7:
            break
    return found
