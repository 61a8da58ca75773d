"""Class labels: whether the sides hold the same mix of them, and whether each side's go with its outputs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import folds, intervals, signals
from divulge.controls.blind import MARGIN, SHIFT_FOLDS, against_attack
from divulge.controls.setting import (
    CONTROL_ERROR,
    INVALID,
    OK,
    WARNING,
    Outcome,
    Setting,
    not_run,
    number,
)
from divulge.folds import effective_shares
from divulge.metrics import NAN, Estimate
from divulge.roc import Roc, exact, exact_slices

SPARSE = 0.2  # share of records in classes too rare for a chi-square beyond which the label's AUC decides
NEAR_CHANCE = 0.25  # an accuracy is at chance below this share of the way from there to the other side's


def label_mix(setting: Setting) -> Outcome:
    """Class shares of the two sides, by chi-square; and how far the mix alone would carry an attack."""
    evidence = setting.evidence
    labels = evidence.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
        return not_run("label_mix", "DV202", "needs one class label a record")
    effective = effective_shares(evidence.member, evidence.groups)
    members, nonmembers = (np.bincount(labels[side], minlength=int(labels.max()) + 1) for side in _sides(setting))
    p, strength, sparse = _chi_square(members, nonmembers, min(effective))
    agree = f"class shares agree (Cramer's V {strength:.3f}, p {p:.2g})"
    if not sparse and (p >= CONTROL_ERROR / 2 or strength < MARGIN):
        return Outcome("label_mix", "DV202", OK, number(strength), agree)
    roc = replace(_roc_of_labels(setting, labels), effective=effective)
    outcome = against_attack("label_mix", "DV202", roc, setting, "by the class label alone")
    if sparse and outcome.status == OK:
        return outcome
    matched = _class_matched(setting)
    text = f"class shares differ (Cramer's V {strength:.3f}, p {p:.2g}); {outcome.text}; {matched}"
    return outcome._replace(status=INVALID if outcome.status == INVALID else WARNING, text=text)


def _sides(setting: Setting) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return setting.evidence.member, ~setting.evidence.member


def _chi_square(members: NDArray[np.int64], nonmembers: NDArray[np.int64], share: float) -> tuple[float, float, bool]:
    """p and Cramer's V of a two-row table; classes expected under five times are one. Are they too many for that?

    share: how many independent records each counts as; divides the chi-square (Rao and Scott 1981, first order).
    """
    from scipy.special import chdtrc

    table = np.array([members, nonmembers], float)
    total = table.sum(axis=0)
    rare = total * share * table.sum(axis=1).min() / table.sum() < 5
    sparse = bool(total[rare].sum() > SPARSE * total.sum())
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0, 0.0, sparse
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    chi2 = float((np.square(table - expected) / expected).sum())
    return float(chdtrc(table.shape[1] - 1, chi2 * share)), math.sqrt(chi2 / table.sum()), sparse


def _roc_of_labels(setting: Setting, labels: NDArray[np.int64]) -> Roc:
    """Records scored by how much more common their class is among the members of other folds."""
    evidence = setting.evidence
    fold = folds.folds(evidence, SHIFT_FOLDS, setting.seed)
    scores = np.zeros(len(labels))
    classes = int(labels.max()) + 1
    for k in range(SHIFT_FOLDS):
        fit = fold != k
        shares = [np.bincount(labels[fit & side], minlength=classes) + 0.5 for side in _sides(setting)]
        scores[~fit] = np.log(shares[0] / shares[1])[labels[~fit]]
    return exact(scores, evidence.member, folds.halves(evidence, setting.seed), fitted=True)


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


# ------------------------------------------------------------------------------------------------- alignment


class _Accuracy(NamedTuple):
    """How often the model is right on a side, how often a guess of the same class shares would be, and their limits."""

    value: float
    chance: float
    z: float
    high: float


def alignment(setting: Setting) -> Outcome:
    """Whether each side's labels go with its outputs: shuffled or misaligned labels make a leak of nothing.

    A side is out of step where its accuracy is credibly close to chance while the other's is credibly above.
    """
    evidence = setting.evidence
    if evidence.outputs is None or evidence.labels is None or evidence.task not in ("multiclass", "binary"):
        return not_run("alignment", "DV211", "needs outputs and one class label a record")
    members, nonmembers = _accuracies(setting)
    for name, own, other_name, other in (
        ("members", members, "non-members", nonmembers),
        ("non-members", nonmembers, "members", members),
    ):
        if own.z < 3 and other.z > 5 and own.high < own.chance + NEAR_CHANCE * (other.value - own.chance):
            text = (
                f"the model is right on {100 * own.value:.1f} % of the {name}, which is chance "
                f"({100 * own.chance:.1f} %), and on {100 * other.value:.1f} % of the {other_name}: are the labels "
                f"of the {name} shuffled, misaligned or coded otherwise?"
            )
            if name == "non-members":
                text += " Or has the model learned nothing but its training records?"
            return Outcome("alignment", "DV211", INVALID, Estimate(own.value, NAN, own.high), text)
    text = f"accuracy {100 * members.value:.1f} % on members, {100 * nonmembers.value:.1f} % on non-members"
    if all(own.z < 3 and own.high < own.chance + 0.1 * (1 - own.chance) for own in (members, nonmembers)):
        text += f", which is chance ({100 * members.chance:.1f} %): do the labels stand in the order of the outputs?"
        return Outcome("alignment", "DV211", WARNING, Estimate(members.value, NAN, members.high), text)
    return Outcome("alignment", "DV211", OK, number(nonmembers.value), text)


def _accuracies(setting: Setting) -> list[_Accuracy]:
    """Of members and of non-members."""
    evidence, part = setting.evidence, setting.part
    assert evidence.labels is not None and part.outputs is not None and part.labels is not None
    right = signals.signal(evidence, "correct")
    z = part.outputs
    guess = z.argmax(axis=1) if z.ndim == 2 else (z > (0.5 if part.kind == "probs" else 0)).astype(int)
    classes = max(int(evidence.labels.max()), int(guess.max())) + 1
    effective = effective_shares(evidence.member, evidence.groups)
    found = []
    for side, of_part, share in zip(_sides(setting), (part.member, ~part.member), effective, strict=True):
        n = float(side.sum()) * share
        shares = [np.bincount(x[of_part], minlength=classes) / of_part.sum() for x in (guess, part.labels)]
        chance = float(shares[0] @ shares[1])
        value = float(right[side].mean(dtype=np.float64))
        z_score = (value - chance) / math.sqrt(max(chance * (1 - chance), 1e-9) / n)
        high = float(intervals.wilson(value * n, n, CONTROL_ERROR / 5).high)
        found.append(_Accuracy(value, chance, z_score, high))
    return found
