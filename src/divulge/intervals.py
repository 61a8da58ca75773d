"""Intervals for rates, their differences and the AUC; all take counts, none sees a score.

`error` is an interval's total probability of missing the truth, half of it at each end; `alpha` is one-sided. Counts
and levels broadcast as numpy arrays do, unless the docstring says scalar.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

HANLEY_BELOW = 200  # rows on a side under which an extreme AUC's DeLong variance is not to be trusted,
HANLEY_MISPLACED = 3  # or where it rests on fewer misplaced rows than this, however many there are


class Bounds(NamedTuple):
    """Both ends of an interval, arrays or numbers."""

    low: Floats
    high: Floats


# ---------------------------------------------------------------------------------------------------- rates


def clopper_pearson_lower(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> Floats:
    """One-sided lower limit of a rate with k of n counted, at confidence 1 - alpha.

    >>> round(float(clopper_pearson_lower(310, 10_000, 0.025)), 4)
    0.0277
    """
    from scipy.special import betaincinv

    k, n, alpha = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float), np.asarray(alpha, float))
    # Counts may be fractions: rows of a group count as less than one each.
    inside = betaincinv(np.where(k > 0, k, 1), np.maximum(n - k, 0) + 1, alpha)
    ends = np.exp(np.log(alpha) / np.where(n > 0, n, 1))
    return np.where(k <= 0, 0.0, np.where(k >= n, ends, inside))


def clopper_pearson_upper(k: ArrayLike, n: ArrayLike, alpha: ArrayLike) -> Floats:
    """One-sided upper limit of a rate with k of n counted, at confidence 1 - alpha.

    >>> round(float(clopper_pearson_upper(0, 100, 0.05)), 4)
    0.0295
    """
    from scipy.special import betainccinv

    k, n, alpha = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float), np.asarray(alpha, float))
    inside = betainccinv(np.maximum(k, 0) + 1, np.where(n > k, n - k, 1), alpha)
    ends = -np.expm1(np.log(alpha) / np.maximum(n, 1))
    return np.where(k >= n, 1.0, np.where(k <= 0, ends, inside))


def wilson(k: ArrayLike, n: ArrayLike, error: ArrayLike) -> Bounds:
    """Wilson's score interval of a rate with k of n counted.

    >>> tuple(round(float(end), 4) for end in wilson(10, 100, 0.05))
    (0.0552, 0.1744)
    """
    return _wilson(np.asarray(k, float), np.asarray(n, float), _z(error))


def _wilson(k: Floats, n: Floats, z: Floats) -> Bounds:
    rate, z2 = k / n, z * z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At k = 0 and k = n the ends are 0 and 1 exactly; rounding must not say otherwise.
    low = np.where(k <= 0, 0.0, np.maximum(centre - half, 0.0))
    return Bounds(low, np.where(k >= n, 1.0, np.minimum(centre + half, 1.0)))


def _z(error: ArrayLike) -> Floats:
    from scipy.special import ndtri

    return np.asarray(-ndtri(np.asarray(error, float) / 2))


def newcombe(tp: ArrayLike, members: ArrayLike, fp: ArrayLike, nonmembers: ArrayLike, error: ArrayLike) -> Bounds:
    """Newcombe's hybrid score interval of tp/members - fp/nonmembers.

    Source: Newcombe 1998, method 10.

    >>> tuple(round(float(end), 4) for end in newcombe(56, 70, 48, 80, 0.05))
    (0.0524, 0.3339)
    """
    tp, members, fp, nonmembers = (np.asarray(x, float) for x in (tp, members, fp, nonmembers))
    return _newcombe(tp, members, fp, nonmembers, _z(error))


def _newcombe(tp: Floats, members: Floats, fp: Floats, nonmembers: Floats, z: Floats) -> Bounds:
    first, second = _wilson(tp, members, z), _wilson(fp, nonmembers, z)
    p, q = tp / members, fp / nonmembers
    low = p - q - np.hypot(p - first.low, second.high - q)
    return Bounds(low, p - q + np.hypot(first.high - p, q - second.low))


def difference(value: float, bounds: Bounds, other: float, other_bounds: Bounds, *, correlation: float = 0.0) -> Bounds:
    """Interval of value - other from the intervals of two estimates.

    Of two rates of the same rows, from `wilson` and `phi`, it is Newcombe's method 10 for paired data.

    Args:
        value, bounds: the one estimate.
        other, other_bounds: the other.
        correlation: of the two estimates; 0: they are of independent samples.

    Source: MOVER, Zou and Donner 2008; with correlation, Zou 2007, equation 15; Newcombe 1998.

    >>> apart = Bounds(0.5, 0.7), Bounds(0.4, 0.6)
    >>> [round(float(end), 3) for end in difference(0.6, apart[0], 0.5, apart[1])]
    [-0.041, 0.241]
    >>> [round(float(end), 3) for end in difference(0.6, apart[0], 0.5, apart[1], correlation=0.5)]
    [0.0, 0.2]
    """
    below = _apart(value - bounds.low, other_bounds.high - other, correlation)
    above = _apart(bounds.high - value, other - other_bounds.low, correlation)
    return Bounds(value - other - below, value - other + above)


def symmetric(value: float, variance: float, error: ArrayLike) -> Bounds:
    """The normal interval of an estimate, scalar or a level each.

    >>> [round(float(end), 3) for end in symmetric(0.1, 0.0025, 0.05)]
    [0.002, 0.198]
    """
    half = _z(error) * math.sqrt(max(variance, 0.0))
    return Bounds(value - half, value + half)


def _apart(one: ArrayLike, other: ArrayLike, correlation: float) -> Floats:
    """How far a difference reaches where its two terms reach so far; rounding must not make a square negative."""
    one, other = np.asarray(one, float), np.asarray(other, float)
    return np.asarray(np.sqrt(np.maximum(one * one + other * other - 2 * correlation * one * other, 0.0)))


def phi(both: float, first: float, second: float, n: float) -> float:
    """Correlation of two yes-or-no answers about the same n rows, scalar; a positive one is corrected towards 0.

    Without a yes or without a no in either there is none: 0.

    Args:
        both: rows with a yes in both.
        first, second: rows with a yes in the first, in the second.
        n: all rows.

    Source: Newcombe 1998 (improved intervals for paired data), method 10.

    >>> round(phi(40, 50, 50, 100), 3), phi(25, 50, 50, 100)
    (0.58, 0.0)
    """
    spread = first * (n - first) * second * (n - second)
    if not spread > 0:
        return 0.0
    excess = both * (n - first - second + both) - (first - both) * (second - both)
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(spread)


# ------------------------------------------------------------------------------------------------- advantage


class AdvantageCounts(NamedTuple):
    """What a cross-fitted advantage was counted from; numbers or arrays of one shape.

    tp, fp: pooled over the halves, at thresholds chosen on the other half.
    best_tp, best_fp: at the threshold that is best on all rows (and, for a score, the attack that is).
    members, nonmembers: totals.
    """

    tp: ArrayLike
    fp: ArrayLike
    best_tp: ArrayLike
    best_fp: ArrayLike
    members: ArrayLike
    nonmembers: ArrayLike


def advantage(counts: AdvantageCounts, error: ArrayLike) -> Bounds:
    """The score interval: holds the best advantage in the population, not that of the threshold that was found.

    The low end widens Newcombe's by sqrt(2), since a threshold chosen on half of the rows is measured; the high end is
    Newcombe's at the empirically best attack and threshold. Simulated in tests/test_coverage.py.

    >>> counts = AdvantageCounts(tp=600, fp=480, best_tp=610, best_fp=480, members=1000, nonmembers=1000)
    >>> tuple(round(float(end), 3) for end in advantage(counts, 0.05))
    (0.058, 0.173)
    """
    tp, fp, best_tp, best_fp, m, n = (np.asarray(x, float) for x in counts)
    z = _z(error)
    value = tp / m - fp / n
    low = value - math.sqrt(2) * (value - _newcombe(tp, m, fp, n, z).low)
    high = np.maximum(_newcombe(best_tp, m, best_fp, n, z).high, value)
    return Bounds(np.maximum(low, -1.0), high)


def advantage_p(counts: AdvantageCounts) -> Floats:
    """The smallest one-sided level at which `advantage`'s low end is above zero; 0.5 where it never is.

    >>> counts = AdvantageCounts(600, 480, 610, 480, 1000, 1000)
    >>> round(float(advantage_p(counts)), 6)
    7e-05
    """
    from scipy.special import ndtr

    tp, fp, _, _, m, n = (np.asarray(x, float) for x in counts)
    value = tp / m - fp / n
    bar = value * (1 - 1 / math.sqrt(2))  # low > 0 where Newcombe's low end is above this
    inside, outside = np.zeros(value.shape), np.full(value.shape, 40.0)
    for _ in range(60):
        z = (inside + outside) / 2
        above = _newcombe(tp, m, fp, n, z).low > bar
        inside, outside = np.where(above, z, inside), np.where(above, outside, z)
    return np.where(np.isnan(value), np.nan, np.where(value > 0, ndtr(-inside), 0.5))


# ------------------------------------------------------------------------------------------------------- AUC


def auc(
    value: float, variance: float, members: float, nonmembers: float, error: float, *, inflation: float = 1.0
) -> Bounds:
    """Interval of an AUC, scalar; `variance` is DeLong's, `inflation` multiplies whichever variance is used.

    On the logit scale; where the AUC is extreme and a side small, or rests on a handful of misplaced rows, by
    inverting Hanley and McNeil's variance instead, the larger of its two readings.

    Source: DeLong et al. 1988; Hanley and McNeil 1982.

    >>> tuple(round(float(end), 3) for end in auc(0.6, 0.0004, 500, 500, 0.05))
    (0.56, 0.638)
    """
    z = float(_z(error)) * math.sqrt(inflation)
    smaller = min(members, nonmembers)
    few = smaller < HANLEY_BELOW or min(value, 1 - value) * smaller < HANLEY_MISPLACED
    if few and not 0.2 <= value <= 0.8:
        return _invert_hanley_mcneil(value, members, nonmembers, z)
    if not variance >= 0:
        return Bounds(np.asarray(np.nan), np.asarray(np.nan))
    half = z * math.sqrt(variance) / (value * (1 - value))
    centre = math.log(value / (1 - value))
    low, high = (1 / (1 + math.exp(-max(min(end, 700.0), -700.0))) for end in (centre - half, centre + half))
    return Bounds(np.asarray(low), np.asarray(high))


def _hanley_mcneil(theta: float, members: float, nonmembers: float) -> float:
    q1, q2 = theta / (2 - theta), 2 * theta * theta / (1 + theta)
    spread = theta * (1 - theta)
    one_way = spread + (members - 1) * (q1 - theta**2) + (nonmembers - 1) * (q2 - theta**2)
    other_way = spread + (nonmembers - 1) * (q1 - theta**2) + (members - 1) * (q2 - theta**2)
    return max(one_way, other_way, 0.0) / (members * nonmembers)


def _invert_hanley_mcneil(value: float, members: float, nonmembers: float, z: float) -> Bounds:
    def beyond(theta: float) -> bool:
        return abs(value - theta) > z * math.sqrt(_hanley_mcneil(theta, members, nonmembers))

    def edge(outside: float) -> float:
        inside = value
        if not beyond(outside):
            return outside
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        return inside

    return Bounds(np.asarray(edge(1e-12)), np.asarray(edge(1 - 1e-12)))


# ------------------------------------------------------------------------------------------------ TPR at FPR


def fpr_ranks(fpr: ArrayLike, nonmembers: int, alpha: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The non-member ranks whose false-positive rate is credibly at most, and at least, `fpr`.

    The share of the population above the (k + 1)-th largest of N non-members is Beta(k + 1, N - k), so it is above
    f with the probability that a Binomial(N, f) is at most k.

    Args:
        fpr: (...) the target false-positive rate.
        nonmembers: N.
        alpha: one-sided error of each limit.

    Returns:
        The highest rank with upper limit <= fpr, -1 where there is none; the lowest rank with lower limit >= fpr, N
        where there is none.

    >>> [int(rank) for rank in fpr_ranks(0.01, 1000, 0.0125)]
    [3, 18]
    """
    from scipy.special import bdtr, bdtrc

    fpr, alpha = np.broadcast_arrays(np.asarray(fpr, float), np.asarray(alpha, float))

    def first(holds: Callable[[Floats], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """The smallest k in 0..N at which a condition, false then true along k, holds."""
        low, high = np.zeros(fpr.shape, np.int64), np.full(fpr.shape, nonmembers, np.int64)
        for _ in range(nonmembers.bit_length() + 1):
            middle = (low + high) // 2
            yes = holds(np.minimum(middle, nonmembers - 1).astype(float))
            low, high = np.where(yes | (low >= high), low, middle + 1), np.where(yes, middle, high)
        return np.minimum(low, nonmembers)

    below = first(lambda k: bdtr(k, nonmembers, fpr) > alpha) - 1
    above = first(lambda k: bdtrc(k, nonmembers, fpr) <= alpha)
    return below, np.where(above >= nonmembers, nonmembers, above)
