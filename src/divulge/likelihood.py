"""Likelihood ratios of membership from scores: how much more often members score so, calibrated on other records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import intervals
from divulge.errors import Unavailable
from divulge.metrics import NAN
from divulge.roc import rank

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
NEAREST = (30, 120, 480, 1920)  # records that an interval looks at, and all there are; fixed before any data is seen
NOISE = 2.0  # squared standard errors; 1 lets the test of calibration reject in 6 to 8 % of leak-free runs


class Scored(NamedTuple):
    """An attack's scores as ranks.

    level: (n,) int, 0 = not scored, then rising with the score, equal scores alike.
    counts: (folds, 2, u) int, non-members and members of each fold at each level.
    """

    attack: str
    level: Ints
    counts: Ints

    def without(self, *left: int) -> Ints:
        """(2, u) counts of all other folds."""
        return np.asarray(self.counts.sum(axis=0) - sum(self.counts[k] for k in left))


def levels(name: str, scores: NDArray[np.floating[Any]], member: NDArray[np.bool_], fold: NDArray[np.uint8]) -> Scored:
    """An attack's scores as ranks, counted by fold and side.

    Args:
        name: of the attack.
        scores: (n,) float, higher = more member-like; NaN = not scored.
        member: (n,) bool.
        fold: (n,) int, 0 to 4.

    Raises:
        Unavailable: too few scores to fit on some folds and predict the others.
    """
    known = ~np.isnan(scores)
    keys, inverse = np.unique(rank(scores[known]).keys, return_inverse=True)
    level = np.zeros(len(scores), np.int64)
    level[known] = len(keys) - inverse  # keys fall where scores rise
    cells = (fold.astype(np.int64) * 2 + member) * (len(keys) + 1) + level
    counts = np.bincount(cells, minlength=FOLDS * 2 * (len(keys) + 1)).reshape(FOLDS, 2, -1)
    by_fold = counts[:, :, 1:].sum(axis=2)  # (folds, 2)
    largest_two = np.sort(by_fold, axis=0)[-2:].sum(axis=0)
    if not (by_fold.sum(axis=0) > largest_two).all():
        nonmembers, members = by_fold.sum(axis=0)
        raise Unavailable(
            f"expected members and non-members (or groups of them) in at least 3 of {FOLDS} folds, got scores of "
            f"{members:,} members and {nonmembers:,} non-members that do not spread so far"
        )
    return Scored(name, level, counts)


def _auc(counts: Ints) -> float:
    """Mann-Whitney of (2, u) counts at rising levels, ties one half."""
    nonmembers, members = counts
    below = np.cumsum(nonmembers) - nonmembers / 2
    return float(members @ below) / (float(members.sum()) * float(nonmembers.sum()))


def _best(scored: Sequence[Scored], *left: int) -> tuple[Scored, Ints]:
    """The attack of the highest AUC on all but some folds, and its counts there; the first of equals."""
    counts = [one.without(*left) for one in scored]
    at = int(np.argmax([_auc(one) for one in counts])) if len(scored) > 1 else 0
    return scored[at], counts[at]


class Reading(NamedTuple):
    """Log likelihood ratios of membership, (n,) in nats, NaN = none; their bounds; the attack of each fold."""

    ratio: Floats
    low: Floats
    high: Floats
    attack: tuple[str, ...]


def cross_fitted(
    scored: Sequence[Scored],
    member: NDArray[np.bool_],
    fold: NDArray[np.uint8],
    effective: tuple[float, float],
    error: float,
) -> Reading:
    """Each fold's log likelihood ratios by what the other folds say."""
    n = len(member)
    ratio, low, high = np.full(n, NAN), np.full(n, NAN), np.full(n, NAN)
    inner: dict[tuple[int, int], tuple[Scored, Floats]] = {}  # by the two folds left out
    for first in range(FOLDS):
        for second in range(first + 1, FOLDS):
            best, counts = _best(scored, first, second)
            inner[first, second] = best, _isotonic(counts)
    names = []
    for k in range(FOLDS):
        best, counts = _best(scored, k)
        names.append(best.attack)
        tried = np.full(n, NAN)
        for other in set(range(FOLDS)) - {k}:
            theirs, ratios = inner[min(k, other), max(k, other)]
            rows = np.flatnonzero((fold == other) & (theirs.level > 0))
            tried[rows] = ratios[theirs.level[rows] - 1]
        rows = np.flatnonzero(~np.isnan(tried))
        kept = _share_that_holds(tried[rows], member[rows], min(effective))
        rows = np.flatnonzero((fold == k) & (best.level > 0))
        if not len(rows):  # of a handful of records not every fold has one
            continue
        level = best.level[rows] - 1
        ratio[rows] = kept * _isotonic(counts)[level]
        low[rows], high[rows] = _bounds(counts[:, 1:], level, effective, error)
    return Reading(ratio, np.fmin(low, ratio), np.fmax(high, ratio), tuple(names))


def _isotonic(counts: Ints) -> Floats:
    """(u,) log likelihood ratio of membership at each level, rising and finite, from (2, 1 + u) counts.

    A member weighs one over all members, a non-member one over all non-members, so the ratio is of no prior: the
    regression under any prior has the same plateaus. One more member lies below all, one more non-member above. Levels
    that hold nobody here lie between their neighbours.
    """
    from sklearn.isotonic import isotonic_regression

    nonmembers, members = counts[:, 1:]
    seen = np.flatnonzero(members + nonmembers)
    of_member, of_nonmember = 1 / (members.sum() + 1), 1 / (nonmembers.sum() + 1)
    up = np.concatenate(([of_member], members[seen] * of_member, [0.0]))
    weight = up + np.concatenate(([0.0], nonmembers[seen] * of_nonmember, [of_nonmember]))
    fitted = isotonic_regression(up / weight, sample_weight=weight)[1:-1]
    share = np.interp(np.arange(len(members)), seen, fitted)
    return np.asarray(np.log(share) - np.log1p(-share))


def _share_that_holds(ratio: Floats, member: NDArray[np.bool_], effective: float) -> float:
    """The part, 0 to 1, of log likelihood ratios that holds up on rows that they were not fitted on.

    The slope of a logistic regression of membership on them through the pool's own log-odds, at most 1, times
    1 - 2/t², t its test statistic: what may well be noise is none.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    if member.all() or not member.any():
        return 0.0
    pool = log_odds(float(member.mean()))

    def excess(slope: float) -> float:
        return float((member - expit(pool + slope * ratio)) @ ratio)

    start = excess(0.0)
    if not start > 0:
        return 0.0
    slope = 1.0 if excess(1.0) >= 0 else float(brentq(excess, 0.0, 1.0, xtol=1e-6))
    t_squared = effective * start**2 / float(np.square((member - member.mean()) * ratio).sum())
    return slope * max(0.0, 1 - NOISE / t_squared)


def _bounds(counts: Ints, level: Ints, effective: tuple[float, float], error: float) -> tuple[Floats, Floats]:
    """Pointwise bounds of the log likelihood ratio at some levels; infinite where nothing bounds it.

    Args:
        counts: (2, u) non-members and members at rising levels.
        level: (p,) int, 0-based.
        effective: as in `roc.Roc`.
        error: total, half at each end, shared by the windows.
    """
    asked, inverse = np.unique(level, return_inverse=True)
    before = np.zeros((2, counts.shape[1] + 1), np.int64)
    np.cumsum(counts, axis=1, out=before[:, 1:])
    records = before.sum(axis=0)
    windows = [*(window for window in NEAREST if window < records[-1]), int(records[-1])]
    alpha = error / 2 / len(windows)
    lows, highs = np.zeros(len(asked)), np.ones(len(asked))
    for window in windows:
        # A window is so many records whoever they are: chosen by the scores alone, ties whole.
        start = np.searchsorted(records, records[asked + 1] - window, side="right") - 1
        stop = np.minimum(np.searchsorted(records, records[asked] + window), len(records) - 1)
        below = before[:, asked + 1] - before[:, np.maximum(start, 0)]
        above = before[:, stop] - before[:, asked]
        np.maximum(lows, _limit(below, effective, alpha, lower=True), out=lows)
        np.minimum(highs, _limit(above, effective, alpha, lower=False), out=highs)
    sizes = before[:, -1] * np.array(effective[::-1])
    with np.errstate(divide="ignore"):
        low, high = (np.log(share) - np.log1p(-share) + math.log(sizes[0] / sizes[1]) for share in (lows, highs))
    return low[inverse], high[inverse]


def _limit(counts: Ints, effective: tuple[float, float], alpha: float, *, lower: bool) -> Floats:
    """(p,) Clopper-Pearson limit of the members' share of (2, p) counts; each distinct pair is computed once."""
    nonmembers, members = counts
    _, first, inverse = np.unique(members * (nonmembers.max() + 1) + nonmembers, return_index=True, return_inverse=True)
    k, others = effective[0] * members[first], effective[1] * nonmembers[first]
    if lower:
        k = np.where(k < 1, 0.0, k)  # where records come in groups, less than one counts as none
        return np.asarray(intervals.clopper_pearson_lower(k, k + others, alpha)[inverse])
    others = np.where(others < 1, 0.0, others)
    limit = intervals.clopper_pearson_upper(k, k + others, alpha)
    return np.asarray(np.where(k + others > 0, limit, 1.0)[inverse])


def log_odds(share: float) -> float:
    """In nats.

    >>> log_odds(0.5)
    0.0
    """
    return math.log(share) - math.log1p(-share)
