"""Controls of reference models: do they behave like the target, is their design fair, are they blind to the sides?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge import metrics
from divulge.attacks.moments import means, references_of, signal_of, target_of
from divulge.controls import models
from divulge.controls.setting import CONTROL_ERROR, INVALID, OK, WARNING, Outcome, Setting, not_run, number
from divulge.folds import effective_shares
from divulge.metrics import Estimate
from divulge.roc import exact_slices, rank

if TYPE_CHECKING:
    from divulge.evidence import Evidence, References

SHARE = 0.1  # by how much the references' share of the records in training may differ from the target's
SAME = 0.95  # of the records, that a reference which is the target gives the target's own signal
IN_STEP = 0.1  # rank correlation of target and references below which they have nothing in common
FEWEST = 100  # non-members to tell that by; four times as many of fewer than four models
SURE = 2.33  # standard errors
EDGE = 0.02  # of an AUC: what a design may be off chance by without a word


def mimicry(setting: Setting) -> Outcome:
    """Whether the target could be one of the references: what it gives its members' labels, and its non-members'.

    Before that: whether it is one of them, and whether they speak of the same records in the same order.
    """
    evidence = setting.evidence
    references = references_of(evidence)
    name = signal_of(evidence, "log_odds")
    within = references.trained_on
    own = target_of(evidence, name)
    if found := _itself(evidence, references, name, own) or _out_of_step(evidence, references, name, own):
        return found
    both = within.any(axis=1) & ~within.all(axis=1)
    if references.source == "cv" or both.sum() < 2:
        return not_run("mimicry", "DV214", "needs two references that were each trained on some of the records")
    probable = name in ("log_odds", "loss") or name.startswith("log_prob@T=")
    target = _likely(own, name).mean(axis=1)
    of_references = np.zeros((2, int(both.sum())))
    for at, k in enumerate(np.flatnonzero(both)):
        values = _likely(references.signals[name][k].astype(np.float64), name).mean(axis=1)
        of_references[:, at] = np.nanmean(values[within[k]]), np.nanmean(values[~within[k]])
    margin = models.ALIKE if probable else 0.1 * float(np.std(target))
    member = evidence.member
    of_target = (float(np.nanmean(target[side])) for side in (member, ~member))
    outcome = models.mimicry(*of_target, *of_references, margin=margin)
    what = "mean probability of the label" if probable else f"mean {name}"
    return outcome._replace(text=f"{what}: {outcome.text}")


def _itself(evidence: Evidence, references: References, name: str, own: NDArray[np.float64]) -> Outcome | None:
    """A reference that is the target: attacks would find each record's own answer among those of its own side."""
    within = references.trained_on
    as_target, as_base = (within == evidence.member).all(axis=1), ~within.any(axis=1)
    for k in np.flatnonzero((as_target | as_base) & (np.ptp(own) > 0)):
        same = float(np.isclose(references.signals[name][k], own, rtol=1e-4, atol=1e-4, equal_nan=True).mean())
        if same >= (SAME if as_target[k] else 1):
            text = (
                f"reference {k} is the target itself: the same {name} of {100 * same:.0f} % of the records. Leave it "
                "out, and the reference that was trained on the other records, if there is one"
            )
            return Outcome("mimicry", "DV214", INVALID, number(same), text)
    return None


def _out_of_step(evidence: Evidence, references: References, name: str, own: NDArray[np.float64]) -> Outcome | None:
    """References whose rows are those of other records, or of models that have nothing in common with the target."""
    half = len(references.trained_on) // 2
    several = half >= 2
    _, without = means(references.signals[name], references.trained_on)
    alike, n = _correlation(evidence, own.mean(axis=1), without.mean(axis=1))
    if n < (FEWEST if several else 4 * FEWEST) or not alike < min(IN_STEP, SURE / np.sqrt(n - 1)):
        return None
    if several:
        first, second = (
            means(references.signals[name][part], references.trained_on[part])[1].mean(axis=1)
            for part in (slice(half), slice(half, None))
        )
        if not _correlation(evidence, first, second)[0] > 4 * IN_STEP:  # such models agree on no records anyway
            return None
    text = (
        f"non-members that are hard for the references are not hard for the target (rank correlation {alike:.2f}): are "
        "the references' rows in the order of the evidence's? Those of Evidence.from_splits are members first"
    )
    return Outcome("mimicry", "DV214", WARNING, number(alike), text)


def _correlation(evidence: Evidence, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, int]:
    """Spearman's, of the non-members that both tell of, and their number; NaN where one says the same of all."""
    from scipy.stats import rankdata

    known = ~evidence.member & np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 or not (np.ptp(x) and np.ptp(y)):
        return float("nan"), len(x)
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1]), len(x)


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
            f"references were trained on {100 * np.median(trained):.0f} % of the records, the target on "
            f"{100 * own:.0f} %: models of other data sizes remember otherwise"
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
