"""The two sides told apart without the model, by features and columns; and what that means for an attack."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge import folds, intervals, metrics
from divulge.controls.setting import (
    CONTROL_ERROR,
    FEW,
    INVALID,
    OK,
    SAMPLE,
    WARNING,
    Outcome,
    Setting,
    how_many,
    not_run,
    subsample,
)
from divulge.doors.arrays import distinct
from divulge.folds import effective_shares
from divulge.metrics import Estimate
from divulge.roc import Roc, exact
from divulge.signals import compute, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

SHIFT_SAMPLE = SAMPLE // 5  # rows a side that boosting is fitted on
SHIFT_FOLDS = 3
MARGIN = 0.02  # a blind AUC counts from this far above 0.5
WIDE = 256  # features beyond which only the most telling half as many are fitted on
WIDEST = 4_096  # features beyond which only so many of them, evenly spaced, are looked at
TEXT = 200  # characters of a text that are looked at


def shift(setting: Setting) -> Outcome:
    """Members and non-members told apart without the model: by features and columns.

    Cross-fitted gradient boosting, and a linear model for what many features show a little each, on features, numbers,
    categories and hashed n-grams of text. Where they do as well as the best attack, the attack's success says nothing
    about training.
    """
    evidence = setting.evidence
    if evidence.features is None and not evidence.columns:
        return not_run("shift", "DV201", "needs features or columns; without them only the label mix is compared")
    if min(setting.sizes) < FEW // 2:
        return not_run("shift", "DV201", f"needs {FEW // 2} records a side")
    part = subsample(setting.part, SHIFT_SAMPLE, setting.seed)
    table, categorical, names = _table(part)
    if not names:
        return not_run("shift", "DV201", "every column numbers the rows or repeats the model's outputs")
    fold = folds.folds(part, SHIFT_FOLDS, setting.seed)
    scores = np.zeros(len(part))
    for k in range(SHIFT_FOLDS):
        held = fold == k
        if not held.any() or len(set(part.member[~held].tolist())) < 2:
            return not_run("shift", "DV201", "too few records, or groups, to fit and to measure")
        few = np.flatnonzero(np.isfinite(table[~held]).any(axis=0))  # boosting cannot bin what is missing altogether
        if len(few) > WIDE:
            few = few[_most_telling(table[~held][:, few], part.member[~held])]
        if not len(few):
            return not_run("shift", "DV201", "every feature and column is missing throughout")
        fit, measured = table[~held][:, few], table[held][:, few]
        scores[held] = _boosted(fit, part.member[~held], measured, categorical[few], setting.seed)
        scores[held] += _linear(fit, part.member[~held], measured)
    roc = exact(scores, part.member, folds.halves(part, setting.seed), fitted=True)
    roc = replace(roc, effective=effective_shares(part.member, part.groups))
    how = f"by {_foremost(table, names, part.member)}, on {how_many(part, setting.sizes)}"
    return against_attack("shift", "DV201", roc, setting, how)


def _foremost(table: NDArray[np.float64], names: list[str], member: NDArray[np.bool_]) -> str:
    """What the sides are told apart by, the most telling of it first."""
    first = names[int(np.argmax(_gaps(table, member)))]
    rest = [name for name in dict.fromkeys(names) if name != first]
    return first + (f" (with {', '.join(rest)})" if rest else "")


def _boosted(
    table: NDArray[np.float64],
    member: NDArray[np.bool_],
    measured: NDArray[np.float64],
    categorical: NDArray[np.bool_],
    seed: int,
) -> NDArray[np.float64]:
    """Log-odds of membership from gradient boosting, on one thread: several spin where the cores are shared."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=30,
        categorical_features=categorical,
        early_stopping=False,
        random_state=seed % 2**32,
    )
    with threadpool_limits(limits=1):
        return np.asarray(model.fit(table, member).decision_function(measured))


def _linear(
    table: NDArray[np.float64], member: NDArray[np.bool_], measured: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Ridge regression of membership, fitted on a table and applied to another, on about the scale of log-odds."""
    known = np.isfinite(table)
    number = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, table, 0).sum(axis=0) / number
    spread = np.sqrt(np.where(known, np.square(table - mean), 0).sum(axis=0) / number)

    def scaled(x: NDArray[np.float64]) -> NDArray[np.float64]:
        x = np.divide(x - mean, spread, out=np.zeros_like(x), where=np.isfinite(x) & (spread > 0))
        return np.clip(x, -5, 5, out=x)

    x = scaled(table)
    penalty = (0.1 * len(x) + x.shape[1]) * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + penalty, x.T @ (member - member.mean()))
    return np.asarray(4 * (scaled(measured) @ weights))


def _table(evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[str]]:
    """Features and columns as numbers for boosting: (n, d), (d,) which are categories, and a name for each.

    Left out: whole numbers that differ in every row (an index, which a table often has in the order of its sides), and
    columns that repeat the model's outputs, which tell the sides apart because the model leaks.
    """
    blocks: list[NDArray[np.float64]] = [np.zeros((len(evidence), 0))]
    categorical: list[bool] = []
    names: list[str] = []
    if evidence.features is not None:
        wide = evidence.features.reshape(len(evidence), -1)
        name = "features"
        if wide.shape[1] > WIDEST:
            name = f"features ({WIDEST:,} of {wide.shape[1]:,})"
            wide = wide[:, np.linspace(0, wide.shape[1] - 1, WIDEST).astype(int)]
        blocks.append(_finite(wide))
        categorical += [False] * wide.shape[1]
        names += [name] * wide.shape[1]
    for name, column in evidence.columns.items():
        values = np.asarray(column)
        if _is_index(values) or _is_of_the_model(values, evidence):
            continue
        block, category = _column(values)
        blocks.append(block)
        categorical += [category] * block.shape[1]
        names += [name] * block.shape[1]
    return np.hstack(blocks), np.array(categorical, bool), names


def _is_index(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "iu" and len(np.unique(values)) == len(values)


def _is_of_the_model(values: NDArray[Any], evidence: Evidence) -> bool:
    """Whether a column of numbers has the order of one of the model's signals (rank correlation above 0.95)."""
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or values.min() == values.max():
        return False
    names = [name for name in ("loss", "confidence", "entropy") if why_unavailable(evidence, name) is None]
    ranks = [np.unique(x, return_inverse=True)[1] for x in (values, *compute(evidence, names).values())]
    return any(abs(np.corrcoef(ranks[0], other)[0, 1]) > 0.95 for other in ranks[1:] if other.max() > 0)


def _finite(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """Boosting takes NaN as missing and knows no infinity; squares of float32's largest number are finite."""
    numbers = numbers.astype(np.float64)
    return np.clip(numbers, np.finfo(np.float32).min, np.finfo(np.float32).max, out=numbers)


def _column(column: NDArray[Any]) -> tuple[NDArray[np.float64], bool]:
    if column.dtype.kind in "iuf":
        return _finite(column[:, None]), False
    values, codes = distinct(column)
    if len(values) <= min(200, max(2, len(column) // 10)):
        return codes.astype(np.float64)[:, None], True
    from sklearn.feature_extraction.text import HashingVectorizer

    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=128, alternate_sign=False)
    dense = grams.transform([str(value)[:TEXT] for value in column]).toarray()
    lengths = [len(str(value)) for value in column]
    return np.column_stack([dense, codes, lengths]).astype(np.float64), False  # the codes: dates sort as text


def _most_telling(table: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The columns on which the sides differ most, in their own order."""
    return np.sort(np.argsort(-_gaps(table, member), kind="stable")[: WIDE // 2])


def _gaps(table: NDArray[np.float64], member: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(d,) how far the sides lie apart, in standard deviations: the most of mean, square and what is missing."""
    gaps = np.zeros(table.shape[1])
    for start in range(0, table.shape[1], WIDE):  # in blocks: the table may be all the memory there is
        x = table[:, start : start + WIDE]
        known = np.isfinite(x)
        x = np.where(known, x, 0)
        x = np.where(known, x - x.sum(axis=0) / np.maximum(known.sum(axis=0), 1), 0)
        for form in (x, np.square(x), known.astype(float)):
            spread = form.std(axis=0)
            gap = np.abs(form[member].mean(axis=0) - form[~member].mean(axis=0))
            gap = np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0)
            gaps[start : start + WIDE] = np.maximum(gaps[start : start + WIDE], gap)
    return gaps


def against_attack(control: str, code: str, roc: Roc, setting: Setting, how: str) -> Outcome:
    """Judge a ROC that was had without the model against the attacks' best.

    The intervals must lie apart for a mere warning: what this classifier found is the least that a shift can do.
    """
    estimate = metrics.auc(roc, 2 * CONTROL_ERROR)
    attack = setting.aucs[setting.best]
    text = f"told apart without the model at AUC {estimate.value:.3f} {how}"
    if not estimate.low > 0.5 + MARGIN:
        return Outcome(control, code, OK, estimate, text)
    curve = metrics.curve(roc, 2 * CONTROL_ERROR)
    if not attack.low > estimate.high:
        text += f": as well as the best attack ({setting.best}, AUC {attack.value:.3f}), which may show nothing else"
        return Outcome(control, code, INVALID, estimate, text, curve=curve)
    above = intervals.difference(attack.value, _ends(attack), estimate.value, _ends(estimate))
    text += (
        f"; the best attack ({setting.best}) is {attack.value - estimate.value:.3f} "
        f"[{float(above.low):.3f}, {float(above.high):.3f}] above that"
    )
    return Outcome(control, code, WARNING, estimate, text, curve=curve)


def _ends(estimate: Estimate) -> intervals.Bounds:
    return intervals.Bounds(np.asarray(estimate.low), np.asarray(estimate.high))
