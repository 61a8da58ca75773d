"""Attacks that learn membership: a classifier, scikit-learn's or the user's, cross-fitted on the model's answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import per_class
from divulge.attacks.classifiers import (
    COSTS,
    MODELS,
    Classifier,
    Fitted,
    InFullBlocks,
    RowByRow,
    fitted_on,
    gives_scores,
    new_classifier,
)
from divulge.attacks.columns import FEATURES, Encoding, column_names, read_columns
from divulge.attacks.knowledge import Answers, Table, read_outputs
from divulge.attacks.row_by_row import (
    bin_edges,
    binned,
    in_canonical_order,
    outer_limits,
    row_by_row,
    steady,
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
        return COSTS.get(str(self.model), 500.0) * (3 if FEATURES in self.columns else 1)

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
        self._check_enough([y[fold != k] for k in range(FOLDS)])
        answers = self._answers(x)
        if self.model != "boosting":
            tame(answers)

        def scored(k: int) -> NDArray[np.float64]:
            fit, rows = fold != k, fold == k
            if not rows.any():  # of a few groups not every fold has one
                return np.zeros(0)
            return fitted_on(self.estimator(evidence, seeds[k], int(fit.sum())), x[fit], y[fit]).log_odds(x[rows])

        scores = np.full(len(evidence), np.nan)
        if _says_nothing(answers):
            scores[order] = 0.0
            return scores
        for k, found in enumerate(in_parallel_alone(scored, range(FOLDS))):
            scores[order[fold == k]] = found
        return scores

    def fit(self, sample: Evidence, rng: np.random.Generator) -> LearnedScorer:
        """One fit to all records of a sample, that scores others: how it sees them is learned there too.

        A class, or a value of a column, that the sample lacks counts as no known one. The user's own classifier is
        always asked for 1,024 rows at once, so that what it says of one does not depend on how many there are.

        Raises:
            Unavailable: no outputs and no signals, no column of a name, too few members or non-members.
        """
        seed = int(rng.integers(2**31))
        sample = steady(sample)
        sample = sample.take(in_canonical_order(sample))
        x, view = self._seen(sample)
        known = np.isfinite(x.sum(axis=1, dtype=np.float64))
        x, y = x[known], sample.member[known]
        self._check_enough([y])
        answers = self._answers(x)
        if self.model != "boosting":
            view = view._replace(limits=outer_limits(answers))
            tame(answers, view.limits)
        if _says_nothing(answers):
            return LearnedScorer(self, view, None)
        fresh = self.estimator(sample, seed, len(x))
        if self.model == "knn":
            fresh.set_params(kneighborsclassifier__algorithm="kd_tree")  # else by BLAS, in blocks
        (fitted,) = in_parallel_alone(lambda estimator: fitted_on(estimator, x, y), [fresh])
        estimator = fitted.estimator
        if self.model in ("logistic", "spline", "mlp"):
            estimator = RowByRow(estimator)
        elif isinstance(estimator, per_class.PerClass):
            estimator = estimator.row_by_row(RowByRow(estimator.pooled))
        elif not isinstance(self.model, str):
            estimator = InFullBlocks(estimator)
        return LearnedScorer(self, view, Fitted(estimator, fitted.mix))

    def table(self, evidence: Evidence) -> Table:
        """(n, d) float32 what it sees of each record.

        Raises:
            Unavailable: no outputs and no signals, or no column of a name.
        """
        return self._seen(evidence)[0]

    def _seen(self, evidence: Evidence, view: View | None = None) -> tuple[Table, View]:
        """The table, and what of it was learned from all records; or as learned from others."""
        outputs, answers = read_outputs(evidence, None if view is None else view.answers)
        columns, encodings = read_columns(evidence, self.columns, None if view is None else view.encodings)
        parts = [outputs, columns]
        if self.model == "per_class":
            parts.append(per_class.features(evidence, answers.floor))
        table = np.concatenate(parts, axis=1)
        if self.model == "boosting":
            edges = bin_edges(table) if view is None else view.edges
            return binned(table, edges), View(answers, encodings, edges, None)
        if view is not None and view.limits is not None:
            tame(self._answers(table), view.limits)
        return table, View(answers, encodings, None, None if view is None else view.limits)

    def _answers(self, x: Table) -> Table:
        """A view of the columns that say something; of per_class the last is the label."""
        return x[:, :-1] if self.model == "per_class" else x

    def _check_enough(self, fits: list[NDArray[np.bool_]]) -> None:
        """Every fit needs both sides."""
        needed = FEWEST_FOR_MLP if self.model == "mlp" else FEWEST
        fewest = min(int((member == side).sum()) for member in fits for side in (True, False))
        if fewest < needed:
            raise Unavailable(
                f"needs {needed} members and {needed} non-members (or groups of them) in every fit, has {fewest}"
            )

    def estimator(self, evidence: Evidence, seed: int, rows: int) -> Any:
        """A classifier of its kind for so many rows of this evidence's table, not fitted."""
        if isinstance(self.model, str):
            return new_classifier(self.model, evidence, seed, rows)
        from sklearn.base import clone

        fresh = clone(self.model)
        chances = [name for name in fresh.get_params() if re.fullmatch(r"(.*__)?random_state", name)]
        return fresh.set_params(**dict.fromkeys(chances, seed))


class View(NamedTuple):
    """How `Learned` sees a record: what its table takes from all records; `edges` for boosting, else `limits`."""

    answers: Answers
    encodings: tuple[tuple[Encoding, ...], ...]
    edges: list[NDArray[np.float32]] | None
    limits: tuple[Table, Table] | None


@dataclass(frozen=True, eq=False, repr=False)
class LearnedScorer:
    """What `Learned.fit` found; of a record it says the same bits in any block.

    Attributes:
        attack: whose it is.
        view: how it sees a record.
        classifier: a fitted one with `decision_function` or `predict_proba`; None: there was nothing to learn.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> evidence = Evidence(n < 1000, signals={"mine": np.sin(n) + (n < 1000)})
    >>> score = Learned().fit(evidence.take(n % 2 == 0), np.random.default_rng(0))(evidence.take(n % 2 == 1))
    >>> round(float((score[:500, None] > score[None, 500:]).mean()), 1)
    0.8
    """

    attack: Learned
    view: View
    classifier: Fitted | None

    def __call__(self, evidence: Evidence) -> NDArray[np.floating[Any]]:
        """(n,) float64 log-odds of membership, NaN where an output or a signal is."""
        return row_by_row(self._scored, evidence)

    def _scored(self, evidence: Evidence) -> NDArray[np.float64]:
        x, _ = self.attack._seen(evidence, self.view)
        known = np.isfinite(x.sum(axis=1, dtype=np.float64))
        scores = np.where(known, 0.0, np.nan)
        if self.classifier is not None and known.any():
            scores[known] = self.classifier.log_odds(x[known])
        return scores


def _says_nothing(answers: Table) -> bool:
    """All rows are alike: a fit would give its rounding errors."""
    return np.array_equal(answers.min(axis=0), answers.max(axis=0))
