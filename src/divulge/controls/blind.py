"""The two sides told apart without the model: by features, by the class label, by time."""

from __future__ import annotations

import math
import re
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
    number,
    subsample,
)
from divulge.doors.arrays import distinct
from divulge.metrics import Estimate
from divulge.roc import Roc, exact, exact_slices

if TYPE_CHECKING:
    from divulge.evidence import Evidence

SHIFT_SAMPLE = 4_000  # rows a side that boosting is fitted on
SHIFT_FOLDS = 3
MARGIN = 0.02  # a blind AUC counts from this far above 0.5
WIDE = 256  # features beyond which random projections of them are used


def shift(setting: Setting) -> Outcome:
    """Members and non-members told apart without the model: by features and columns.

    A cross-fitted gradient boosting on features, numbers, categories and hashed n-grams of text. Where it does as well
    as the best attack, the attack's success says nothing about training.
    """
    evidence = setting.evidence
    if evidence.features is None and not evidence.columns:
        return not_run("shift", "DV201", "needs features or columns; without them only the label mix is compared")
    if min(setting.sizes) < FEW // 2:
        return not_run("shift", "DV201", f"needs {FEW // 2} records a side")
    part = subsample(setting.part, SHIFT_SAMPLE, setting.seed)
    table, categorical, what = _blind_table(part, setting.seed)
    fold = folds.folds(part, SHIFT_FOLDS, setting.seed)
    scores = np.zeros(len(part))
    for k in range(SHIFT_FOLDS):
        held = fold == k
        if len(set(part.member[~held].tolist())) < 2:
            return not_run("shift", "DV201", "too few records, or groups, to fit and to measure")
        model = _boosting(categorical, setting.seed).fit(table[~held], part.member[~held])
        scores[held] = model.decision_function(table[held])
    roc = exact(scores, part.member, folds.halves(part, setting.seed), fitted=True)
    return _blind("shift", "DV201", roc, setting, f"by {what}, on {how_many(part, evidence)}")


def _boosting(categorical: list[bool], seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60,
        max_leaf_nodes=15,
        categorical_features=categorical,
        early_stopping=False,
        random_state=seed % 2**32,
    )


def _blind_table(evidence: Evidence, seed: int) -> tuple[NDArray[np.float32], list[bool], str]:
    """Features and columns as numbers for boosting: (n, d), which are categories, and what they are."""
    blocks: list[NDArray[np.float32]] = []
    categorical: list[bool] = []
    names = list(evidence.columns)
    if evidence.features is not None:
        wide = evidence.features.reshape(len(evidence), -1).astype(np.float32)
        if wide.shape[1] > WIDE:
            weights = np.random.default_rng(seed).standard_normal((wide.shape[1], WIDE // 2), dtype=np.float32)
            wide = (wide - wide.mean(axis=0)) @ weights
        blocks.append(wide)
        categorical += [False] * wide.shape[1]
        names.insert(0, "features")
    for column in evidence.columns.values():
        block, category = _blind_column(np.asarray(column))
        blocks.append(block)
        categorical += [category] * block.shape[1]
    return np.hstack(blocks), categorical, ", ".join(names)


def _blind_column(column: NDArray[Any]) -> tuple[NDArray[np.float32], bool]:
    if column.dtype.kind in "iuf":
        return column.astype(np.float32)[:, None], False
    values, codes = distinct(column)
    if len(values) <= min(200, max(2, len(column) // 10)):
        return codes.astype(np.float32)[:, None], True
    from sklearn.feature_extraction.text import HashingVectorizer

    grams = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=128, alternate_sign=False)
    dense = grams.transform([str(value)[:1000] for value in column]).toarray().astype(np.float32)
    return np.hstack([dense, codes.astype(np.float32)[:, None]]), False  # the codes: dates sort as text


def _blind(control: str, code: str, roc: Roc, setting: Setting, how: str) -> Outcome:
    """Judge a ROC that was had without the model against the attacks' best."""
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


def label_mix(setting: Setting) -> Outcome:
    """Class shares of the two sides, by chi-square; and how far the mix alone would carry an attack."""
    evidence = setting.evidence
    labels = evidence.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
        return not_run("label_mix", "DV202", "needs one class label a record")
    classes = int(labels.max()) + 1
    members = np.bincount(labels[evidence.member], minlength=classes)
    nonmembers = np.bincount(labels[~evidence.member], minlength=classes)
    p, strength = _chi_square(members, nonmembers)
    if p >= CONTROL_ERROR / 2 or strength < MARGIN:
        text = f"class shares agree (Cramer's V {strength:.3f}, p {p:.2g})"
        return Outcome("label_mix", "DV202", OK, number(strength), text)
    fold = folds.folds(evidence, SHIFT_FOLDS, setting.seed)
    scores = np.zeros(len(labels))
    for k in range(SHIFT_FOLDS):
        fit = fold != k
        shares = [
            np.bincount(labels[fit & side], minlength=classes) + 0.5 for side in (evidence.member, ~evidence.member)
        ]
        scores[~fit] = np.log(shares[0] / shares[1])[labels[~fit]]
    roc = exact(scores, evidence.member, folds.halves(evidence, setting.seed))
    outcome = _blind("label_mix", "DV202", roc, setting, "by the class label alone")
    matched = _class_matched(setting)
    text = f"class shares differ (Cramer's V {strength:.3f}, p {p:.2g}); {outcome.text}; {matched}"
    return outcome._replace(status=INVALID if outcome.status == INVALID else WARNING, text=text)


def _chi_square(members: NDArray[np.int64], nonmembers: NDArray[np.int64]) -> tuple[float, float]:
    """p and Cramer's V of a two-row table; classes expected under five times are one."""
    from scipy.special import chdtrc

    table = np.array([members, nonmembers], float)
    total = table.sum(axis=0)
    rare = total * table.sum(axis=1).min() / table.sum() < 5
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chi2 = float((np.square(table - expected) / expected).sum())
    return float(chdtrc(table.shape[1] - 1, chi2)), math.sqrt(chi2 / table.sum())


def _class_matched(setting: Setting) -> str:
    """The best attack's AUC within classes, each weighing as among all records: the mix plays no part."""
    labels = setting.evidence.labels
    assert labels is not None
    rocs = exact_slices(setting.ranked[setting.best], setting.tag, labels, int(labels.max()) + 1)
    aucs = [(roc.placement.auc, roc.n_members + roc.n_nonmembers) for roc in rocs if roc.n_members and roc.n_nonmembers]
    if not aucs:
        return "no class is on both sides"
    values, sizes = np.array(aucs).T
    return f"with the mix made equal the AUC of {setting.best} is {float(values @ sizes / sizes.sum()):.3f}"


def drift(setting: Setting) -> Outcome:
    """Non-members split by date or by order, within classes: a drift that the attack takes for membership."""
    outside = np.flatnonzero(~setting.evidence.member)
    if len(outside) < 2 * FEW:
        return not_run("drift", "DV213", f"needs {2 * FEW} non-members")
    outside = outside[:: math.ceil(len(outside) / SAMPLE)]
    orders = {"row order": np.arange(len(outside))}
    for name, column in setting.evidence.columns.items():
        if _is_date(np.asarray(column)):
            orders[name] = distinct(np.asarray(column)[outside])[1]
    gap = abs(setting.aucs[setting.best].value - 0.5)
    found = Outcome("drift", "DV213", OK, number(0.5), "no drift within the non-members, by " + ", ".join(orders))
    labels = setting.evidence.labels
    for name, order in orders.items():
        late = _later_half(order, None if labels is None else labels[outside])
        if late.all() or not late.any():
            continue
        auc = setting.auc_of_best(outside, late, CONTROL_ERROR / 5 / len(orders))
        away = max(auc.low - 0.5, 0.5 - auc.high)
        if not away > MARGIN:
            continue
        text = f"split by {name}, {setting.best} tells late non-members from early ones at AUC {auc.value:.3f}"
        if away >= gap:
            return Outcome("drift", "DV213", INVALID, auc, f"{text}: as well as members from non-members")
        found = Outcome("drift", "DV213", WARNING, auc, text)
    return found


def _later_half(order: NDArray[np.int64], labels: NDArray[Any] | None) -> NDArray[np.bool_]:
    """(n,) bool: the later half of each class."""
    strata = np.zeros(len(order), np.int64)
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        strata = labels.astype(np.int64)
    by = np.lexsort((order, strata))
    starts = np.flatnonzero(np.append(True, strata[by][1:] != strata[by][:-1]))
    sizes = np.diff(np.append(starts, len(by)))
    place = np.arange(len(by)) - np.repeat(starts, sizes)
    late = np.empty(len(by), bool)
    late[by] = place >= np.repeat(sizes, sizes) / 2
    return late


def _is_date(column: NDArray[Any]) -> bool:
    if column.dtype.kind not in "UO" or not len(column):
        return False
    few = [str(value) for value in column[:: max(1, len(column) // 50)]]
    return all(re.match(r"\d{4}-\d{2}(-\d{2})?", value) for value in few) and len(set(few)) > 2
