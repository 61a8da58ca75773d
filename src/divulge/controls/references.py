"""Controls of reference models: do they behave like the target, is their design fair, are they blind to the sides?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge import metrics
from divulge.attacks.moments import means, references_of, signal_of, target_of
from divulge.controls import models
from divulge.controls.setting import CONTROL_ERROR, INVALID, OK, WARNING, Outcome, Setting, not_run, number
from divulge.folds import effective_shares
from divulge.metrics import Estimate
from divulge.roc import exact_slices, rank

SHARE = 0.1  # by how much the references' share of the records in training may differ from the target's
EDGE = 0.02  # of an AUC: what a design may be off chance by without a word


def mimicry(setting: Setting) -> Outcome:
    """Whether the target could be one of the references: what it gives its members' labels, and its non-members'."""
    evidence = setting.evidence
    references = references_of(evidence)
    name = signal_of(evidence, "log_odds")
    within = references.trained_on
    both = within.any(axis=1) & ~within.all(axis=1)
    if references.source == "cv" or both.sum() < 2:
        return not_run("mimicry", "DV214", "needs two references that were each trained on some of the records")
    probable = name in ("log_odds", "loss") or name.startswith("log_prob@T=")
    target = _likely(target_of(evidence, name), name).mean(axis=1)
    of_references = np.zeros((2, int(both.sum())))
    for at, k in enumerate(np.flatnonzero(both)):
        values = _likely(references.signals[name][k].astype(np.float64), name).mean(axis=1)
        of_references[:, at] = values[within[k]].mean(), values[~within[k]].mean()
    margin = models.ALIKE if probable else 0.1 * float(np.std(target))
    member = evidence.member
    outcome = models.mimicry(float(target[member].mean()), float(target[~member].mean()), *of_references, margin=margin)
    what = "mean probability of the label" if probable else f"mean {name}"
    return outcome._replace(text=f"{what}: {outcome.text}")


def _likely(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """The label's probability, where the signal says it."""
    if name == "log_odds":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -700, 700))))
    return np.exp(values) if name == "loss" or name.startswith("log_prob@T=") else values


def design_balance(setting: Setting) -> Outcome:
    """Whether the number of references that were trained on a record tells its side, before any is asked."""
    evidence = setting.evidence
    references = references_of(evidence)
    counts = references.trained_on.sum(axis=0)
    if counts.min() < counts.max():
        for sign, more in ((1, "members"), (-1, "non-members")):
            auc = _auc(setting, sign * counts.astype(np.float64), fitted=False)
            if auc.low > 0.5:
                text = (
                    f"more references were trained on {more}: the numbers alone tell the sides apart, AUC "
                    f"{auc.value:.3f}"
                )
                return Outcome("design_balance", "DV413", INVALID, auc, text)
    share, own = references.trained_on.mean(axis=1), float(evidence.member.mean())
    trained = share[share > 0]
    if references.source == "trained" and len(trained) and abs(float(np.median(trained)) - own) > SHARE:
        text = (
            f"references were trained on {np.median(trained):.0%} of the records, the target on {own:.0%}: "
            "models of other data sizes remember otherwise"
        )
        return Outcome("design_balance", "DV413", WARNING, number(float(np.median(trained))), text)
    text = "each record is in as many references, whichever its side"
    return Outcome("design_balance", "DV413", OK, number(float(counts.mean())), text)


def exchangeable(setting: Setting) -> Outcome:
    """Whether references that did not see a record tell its side without the target: minus what they say of it."""
    evidence = setting.evidence
    references = references_of(evidence)
    name = signal_of(evidence, "log_odds")
    _, without = means(references.signals[name], references.trained_on)
    score = -without.mean(axis=1)
    if np.isnan(score).any():
        return not_run("exchangeable", "DV414", "some records have no reference that was not trained on them")
    shared = references.source == "cv"
    auc = _auc(setting, score, fitted=shared)
    if auc.low > 0.5:
        text = f"without the target, references tell the sides apart: AUC {auc.value:.3f} by minus their mean {name}"
        return Outcome("exchangeable", "DV414", INVALID, auc, text)
    if auc.high < 0.5 - EDGE:
        text = f"members are easier for models that never saw them: AUC {auc.value:.3f}; the score leans low"
        return Outcome("exchangeable", "DV414", WARNING, auc, text)
    text = f"models that did not see a record say the same of both sides: AUC {auc.value:.3f} without the target"
    return Outcome("exchangeable", "DV414", OK, auc, text)


def _auc(setting: Setting, score: NDArray[np.float64], *, fitted: bool) -> Estimate:
    evidence = setting.evidence
    effective = effective_shares(evidence.member, evidence.groups)
    codes: NDArray[Any] = np.zeros(1, np.int32)
    roc = next(exact_slices(rank(score), setting.tag, codes, 1, fitted=fitted, effective=effective))
    return metrics.auc(roc, CONTROL_ERROR)
