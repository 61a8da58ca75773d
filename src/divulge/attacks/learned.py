"""Attacks that learn membership: a classifier, scikit-learn's or the user's, cross-fitted on the model's answers."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import per_class
from divulge.attacks.knowledge import (
    FEATURES,
    Table,
    binned,
    column_names,
    in_canonical_order,
    of_columns,
    of_outputs,
    tame,
)
from divulge.blocks import in_parallel_alone
from divulge.errors import InputError, Unavailable
from divulge.folds import folds

if TYPE_CHECKING:
    from divulge.evidence import Evidence

FOLDS = 5
FEWEST = 10  # records of a side that a fit needs
FEWEST_FOR_MLP = 200  # with fewer it stops by too few held-out ones, and misses what is there
_COSTS = {"logistic": 40.0, "per_class": 75.0, "spline": 250.0, "boosting": 500.0, "knn": 400.0, "mlp": 800.0}
MODELS = tuple(_COSTS)
_SUREST = 1e-12  # a probability of a user's classifier is kept this far from 0 and 1


class Classifier(Protocol):
    """A scikit-learn classifier: `fit(x, y)`, and `decision_function` or `predict_proba`."""

    def fit(self, x: Any, y: Any) -> Any:
        """Fit on (n, d) and (n,) bool."""
        ...


@dataclass(frozen=True)
class Learned:
    """A classifier of membership, cross-fitted: a row is scored by a model that was fitted on the other folds.

    It sees what `knowledge.of_outputs` gives (signals, sorted log-probabilities, how the record stands in its class)
    and the columns that it names. Both sides are used whole, weighted to count alike. Scores are log-odds, pooled over
    the folds; without a leak their AUC leans below 0.5 (0.49 with 50 records a side), never above.

    Attributes:
        model: "logistic"; "per_class", on top of that one for each class, of all log-probabilities (Shokri's);
            "spline", logistic with a smooth curve for each feature; "boosting", "knn", "mlp"; or a scikit-learn
            classifier, which is cloned.
        columns: names of `evidence.columns` that the attacker knows; also "class" (the label), "features" (the inputs).
        name: what the report calls it; None: learned(MODEL, COLUMNS …).

    Source: Shokri et al. 2017; Salem et al. 2019 (sorted outputs).

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> two_sided = np.where(n < 1000, 0, np.where(n % 2, 3, -3)) + np.sin(n)  # members lie between the others
    >>> evidence = Evidence(n < 1000, signals={"mine": two_sided})
    >>> score = Learned("boosting")(evidence, np.random.default_rng(0))
    >>> round(float((score[:1000, None] > score[None, 1000:]).mean()), 1)
    1.0
    """

    model: str | Classifier = "logistic"
    columns: tuple[str, ...] = ()
    name: str | None = None

    fitted: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not (self.name is None or isinstance(self.name, str)):
            raise InputError("DV056", f"expected a text as the attack's name, got {self.name!r:.80}")
        object.__setattr__(self, "columns", column_names(self.columns))
        if isinstance(self.model, str) and self.model not in MODELS:
            known = ", ".join(MODELS)
            raise InputError(
                "DV056", f"there is no model {self.model!r:.80}; known: {known}, or a scikit-learn classifier"
            )
        if not isinstance(self.model, str) and not gives_scores(self.model):
            raise InputError(
                "DV056",
                "expected a scikit-learn classifier with decision_function or predict_proba, not fitted, "
                f"got {self.model!r:.80}",
            )

    def __str__(self) -> str:
        model = self.model if isinstance(self.model, str) else type(self.model).__name__
        return self.name or f"learned({', '.join([model, *self.columns])})"

    @property
    def cost(self) -> float:
        """About how many times as long as a threshold attack it takes."""
        return _COSTS.get(str(self.model), 500.0) * (3 if FEATURES in self.columns else 1)

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.float64]:
        """(n,) float64 log-odds of membership, NaN where an output or a signal is."""
        fold = folds(evidence, FOLDS, int(rng.integers(2**63)))
        seeds = rng.integers(2**31, size=FOLDS).tolist()
        order = in_canonical_order(evidence)
        order = order[np.argsort(fold[order], kind="stable")]
        x = self.table(evidence)[order]
        known = np.isfinite(x.sum(axis=1, dtype=np.float64))
        if not known.all():
            x, order = x[known], order[known]
        y, fold = evidence.member[order], fold[order]
        _check_enough(y, fold, FEWEST_FOR_MLP if self.model == "mlp" else FEWEST)
        answers = x[:, :-1] if self.model == "per_class" else x  # there the last column is the label
        if self.model != "boosting":
            tame(answers)

        def scored(k: int) -> NDArray[np.float64]:
            fit, rows = fold != k, fold == k
            return _fitted_and_scored(self.estimator(evidence, seeds[k], int(fit.sum())), x[fit], y[fit], x[rows])

        scores = np.full(len(evidence), np.nan)
        if np.array_equal(answers.min(axis=0), answers.max(axis=0)):
            scores[order] = 0.0  # nothing to learn from; a fit would give its rounding errors
            return scores
        for k, found in enumerate(in_parallel_alone(scored, range(FOLDS))):
            scores[order[fold == k]] = found
        return scores

    def table(self, evidence: Evidence) -> Table:
        """(n, d) float32 what it sees of each record.

        Raises:
            Unavailable: no outputs and no signals, or no column of a name.
        """
        parts = [of_outputs(evidence), of_columns(evidence, self.columns)]
        if self.model == "per_class":
            parts.append(per_class.features(evidence))
        table = np.concatenate(parts, axis=1)
        return binned(table) if self.model == "boosting" else table

    def estimator(self, evidence: Evidence, seed: int, rows: int) -> Any:
        """A classifier of its kind for so many rows of this evidence's table, not fitted."""
        if isinstance(self.model, str):
            return _new(self.model, evidence, seed, rows)
        from sklearn.base import clone

        fresh = clone(self.model)
        chances = [name for name in fresh.get_params() if re.fullmatch(r"(.*__)?random_state", name)]
        return fresh.set_params(**dict.fromkeys(chances, seed))


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


def _new(model: str, evidence: Evidence, seed: int, rows: int) -> Any:
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


def _fitted_and_scored(estimator: Any, x: Table, y: NDArray[np.bool_], unseen: Table) -> NDArray[np.float64]:
    """(m,) log-odds of the unseen rows; both sides weigh alike where the classifier takes weights."""
    share = float(y.mean())
    if "sample_weight" in inspect.signature(estimator.fit).parameters:
        weight = np.where(y, 0.5 / share, 0.5 / (1 - share))
        estimator.fit(x, y, sample_weight=weight)
    else:
        estimator.fit(x, y)
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(unseen), np.float64)
    p = np.clip(np.asarray(estimator.predict_proba(unseen), np.float64), _SUREST, 1 - _SUREST)
    return np.asarray(np.log(p[:, 1]) - np.log(p[:, 0]))


def _check_enough(member: NDArray[np.bool_], fold: NDArray[np.uint8], needed: int) -> None:
    """Every fit needs both sides."""
    fewest = min(int((member[fold != k] == side).sum()) for k in range(FOLDS) for side in (True, False))
    if fewest < needed:
        raise Unavailable(
            f"needs {needed} members and {needed} non-members (or groups of them) in every fit, has {fewest}"
        )
