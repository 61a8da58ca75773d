"""Many attacks' Rocs -> the vulnerability score and the tail: the best attack, without the bias of picking it.

The attack (and its threshold) is chosen on one half of the rows and measured on the other, both ways, so ten attacks
on leak-free data do not look better than one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from divulge import intervals
from divulge.metrics import (
    FPRS,
    NAN,
    Estimate,
    advantage_counts,
    advantage_estimate,
    too_few,
    tpr_bounds,
    undefined,
)
from divulge.roc import HALVES, CrossFit, Roc

HARDLY = 0.5  # standard errors


class Selected(NamedTuple):
    """The best attack of some rows: its name on all rows (for people to read) and the counts behind the score.

    reason: why there is no score (the counts are then NaN), or None.
    """

    attack: str
    counts: intervals.AdvantageCounts
    reason: str | None


def select(fits: Mapping[str, CrossFit]) -> Selected:
    """Choose attack and threshold on one half, measure on the other, both ways.

    Args:
        fits: each attack's, of the same rows, the plainer ones first: see `best_on`.

    >>> from divulge.roc import exact
    >>> roc = exact(np.array([.9, .8, .3, .1]), np.array([1, 1, 0, 0], bool), np.array([0, 1, 0, 1]))
    >>> select({"loss": roc.cross_fit}).counts.tp
    1.0
    """
    names, first = list(fits), next(iter(fits.values()))
    m, n = first.members.sum(), first.nonmembers.sum()
    top = max(names, key=lambda name: fits[name].best_tp / m - fits[name].best_fp / n)
    if first.lacking:
        return Selected(top, intervals.AdvantageCounts(*[NAN] * 6), first.lacking)
    best = [fits[best_on(fits, half)] for half in range(HALVES)]
    counts = advantage_counts(best, fits[top])
    return Selected(top, counts, None)


def best_on(fits: Mapping[str, CrossFit], half: int) -> str:
    """The attack to be measured on the other half: the first that is hardly worse than the best on this one.

    Hardly: by at most half a standard error of the best one's advantage. Where records are few the best of many is
    mostly the luckiest; the interval holds whichever is chosen, since it is measured on other rows.

    Args:
        fits: each attack's, of the same rows, in order of preference.
        half: 0 or 1, which to choose on.

    >>> from divulge.roc import exact
    >>> roc = exact(np.array([.9, .8, .3, .1]), np.array([1, 1, 0, 0], bool), np.array([0, 1, 0, 1]))
    >>> best_on({"loss": roc.cross_fit, "other": roc.cross_fit}, 0)
    'loss'
    """
    chosen = {name: float(fit.chosen[half]) for name, fit in fits.items()}
    best = max(chosen, key=lambda name: chosen[name])
    fit = fits[best]
    members, nonmembers = fit.effective[0] * fit.members[1 - half], fit.effective[1] * fit.nonmembers[1 - half]
    variance = (1 - chosen[best] ** 2) / 4 * (1 / members + 1 / nonmembers)  # of two rates (1 +- advantage) / 2
    enough = chosen[best] - HARDLY * math.sqrt(variance)
    return next(name for name in fits if chosen[name] >= enough)


def score(rocs: Mapping[str, Roc], error: float) -> Estimate:
    """The vulnerability score: the best attack's advantage, cross-fitted; 0 = nothing learned, 1 = all told apart.

    Args:
        rocs: an attack's Roc each, all of the same rows.
        error: total probability that the interval misses the best attack's best advantage.

    >>> from divulge.roc import exact
    >>> member, halves = np.arange(400) < 200, np.arange(400) % 2
    >>> rocs = {"loss": exact(np.sin(np.arange(400.0)) + 0.5 * member, member, halves)}
    >>> [round(x, 3) for x in score(rocs, 0.05)[:3]]
    [0.32, 0.184, 0.403]
    """
    selected = select({name: roc.cross_fit for name, roc in rocs.items()})
    return advantage_estimate(selected.counts, error) if selected.reason is None else undefined(selected.reason)


class Tail(NamedTuple):
    """How well the most exposed few can be told: TPR and lift (TPR / FPR; 1 = chance) at a low FPR.

    >>> Tail(Estimate(.04, .03, .05), Estimate(4., 3., 5.), 0.01, "loss").lift.low
    3.0
    """

    tpr: Estimate
    lift: Estimate
    fpr: float
    attack: str


def tail_at(rocs: Mapping[str, Roc], fpr: float, error: float) -> Tail:
    """The best attack's TPR at one FPR; the interval holds the largest TPR of any of the attacks.

    The value's attack is chosen on one half and its TPR measured on the other; lift is TPR / FPR. The low end is the
    largest of the attacks' low ends, each at error / attacks; the high end the largest of their high ends at error.

    >>> from divulge.roc import exact
    >>> member, halves = np.arange(4000) < 2000, np.arange(4000) % 2
    >>> rocs = {"loss": exact(np.sin(np.arange(4000.0)) + 0.5 * member, member, halves)}
    >>> round(tail_at(rocs, 0.01, 0.05).lift.low, 1)
    30.8
    """
    return tails_at(rocs, fpr, [error])[0]


def tails_at(rocs: Mapping[str, Roc], fpr: float, errors: Sequence[float]) -> list[Tail]:
    """`tail_at` at several error probabilities, for little more than one.

    >>> tails_at({"loss": Roc(np.array([np.inf]), *np.zeros((4, 2, 1), int)[:2], *np.ones((2, 2), int))}, 0.01, [0.05])[
    ...     0].tpr.reason
    'needs 1,000 non-members at FPR 0.01, has 2'
    """
    roc = next(iter(rocs.values()))
    if reason := too_few(roc, fpr) or roc.cross_fit.lacking:
        gap = undefined(reason)
        return [Tail(gap, gap, fpr, "")] * len(errors)
    names = list(rocs)
    by_half = {name: _tpr_by_half(rocs[name], fpr) for name in names}
    measured = [by_half[max(names, key=lambda name: by_half[name][1 - half])][half] for half in range(HALVES)]
    value = float(np.mean(measured))
    at = np.asarray(errors, float)
    lows = {name: tpr_bounds(rocs[name], fpr, at / len(names)).low for name in names}
    high = np.max([tpr_bounds(rocs[name], fpr, at).high for name in names], axis=0)
    tails = []
    for i in range(len(errors)):
        top = max(names, key=lambda name: (float(lows[name][i]), float(by_half[name].mean())))
        # The bounds hold the population's; where the point lies outside, the point moves.
        low, most = float(lows[top][i]), float(high[i])
        tpr = Estimate(min(max(value, low), most), low, most)
        tails.append(Tail(tpr, Estimate(tpr.value / fpr, tpr.low / fpr, tpr.high / fpr), fpr, top))
    return tails


def _tpr_by_half(roc: Roc, fpr: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(2,) TPR at this FPR in each half; both hold members and non-members.

    Above the (k + 1)-th largest of n non-members a share (k + 1) / (n + 1) of the population's is expected. Two
    neighbouring ranks are mixed so that it is the FPR that was asked for, and an attack that guesses has a TPR of that.
    """
    tprs = np.zeros(HALVES)
    for half in range(HALVES):
        rank = max(fpr * (int(roc.nonmembers[half]) + 1) - 1, 0.0)
        ranks = np.array([math.floor(rank), math.floor(rank) + 1], roc.fp.dtype)
        at = np.minimum(np.searchsorted(roc.fp[half], ranks + 1), len(roc.thresholds)) - 1
        lower, upper = roc.tp[half, at] / roc.members[half]
        tprs[half] = lower + (rank - math.floor(rank)) * (upper - lower)
    return tprs


def headline(tails: Sequence[Tail]) -> Tail:
    """The tail to show first: the measured FPR whose lift has the largest low end, else the lowest measured.

    Args:
        tails: one an FPR, in rising order.

    >>> headline([]).tpr.reason
    'needs 200 non-members at FPR 0.05, has fewer'
    """
    carried = [tail for tail in tails if tail.tpr.reason is None]
    if not carried:
        reason = tails[-1].tpr.reason if tails else f"needs 200 non-members at FPR {FPRS[-1]:g}, has fewer"
        return Tail(undefined(reason or ""), undefined(reason or ""), tails[-1].fpr if tails else NAN, "")
    return max(carried, key=lambda tail: tail.lift.low)
