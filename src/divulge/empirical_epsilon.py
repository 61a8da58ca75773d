"""Lower bounds on epsilon that counts of an attack, or guesses about canaries, carry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from divulge.intervals import clopper_pearson_lower, clopper_pearson_upper

EPSILON_RANKS = (0.001, 0.01, 0.05, 0.1, 0.3)  # non-member ranks fixed before any data is seen


def epsilon_clopper_pearson(
    tp: float, members: float, fp: float, nonmembers: float, *, alpha: float, delta: float = 0.0, tests: int = 1
) -> float:
    """Lower bound on epsilon from one threshold fixed in advance, scalar, in nats.

    Args:
        tp, members, fp, nonmembers: counts at that threshold.
        alpha: one-sided error of the bound; split over its two rates and over `tests`.
        delta: of the (epsilon, delta) claim.
        tests: thresholds that share alpha.

    >>> round(epsilon_clopper_pearson(310, 10_000, 10, 10_000, alpha=0.05), 6)
    2.712257
    """
    a = alpha / (2 * tests)
    ratios = (
        (clopper_pearson_lower(tp, members, a), clopper_pearson_upper(fp, nonmembers, a)),
        (
            clopper_pearson_lower(nonmembers - fp, nonmembers, a),
            clopper_pearson_upper(members - tp, members, a),
        ),
    )
    terms = [math.log((hit - delta) / false) for hit, false in ratios if hit - delta > 0]
    return max(0.0, *terms) if terms else 0.0


def epsilon_at_ranks(
    points: Sequence[tuple[float, float]], members: float, nonmembers: float, *, alpha: float, delta: float = 0.0
) -> float:
    """Lower bound on epsilon where thresholds come from the data: non-member ranks fixed in advance.

    Args:
        points: (members strictly above, non-members strictly above) the (k + 1)-th largest non-member, a rank each.
        members, nonmembers: totals.
        alpha: one-sided error, split over the ranks.
        delta: of the claim.

    >>> epsilon_at_ranks([(52, 50), (310, 300)], 1000, 1000, alpha=0.05)
    0.0
    """
    shared = {"alpha": alpha, "delta": delta}
    return max(epsilon_clopper_pearson(tp, members, fp, nonmembers, tests=len(points), **shared) for tp, fp in points)


def epsilon_gaussian(tp: int, members: int, fp: int, nonmembers: int, *, alpha: float, delta: float) -> float:
    """Lower bound on epsilon at delta if the trade-off curve is Gaussian, scalar. Only say so where it is.

    >>> round(epsilon_gaussian(310, 10_000, 10, 10_000, alpha=0.05, delta=1e-5), 5)
    4.32039
    """
    from scipy.special import ndtri

    fpr = clopper_pearson_upper(fp, nonmembers, alpha / 2)
    fnr = clopper_pearson_upper(members - tp, members, alpha / 2)
    return epsilon_of_mu(max(0.0, float(-ndtri(fpr) - ndtri(fnr))), delta)


def epsilon_of_mu(mu: float, delta: float) -> float:
    """The epsilon at which mu-Gaussian differential privacy reaches delta.

    Source: Dong, Roth and Su 2022, corollary 2.13.

    >>> round(epsilon_of_mu(1.0, 1e-5), 3)
    4.377
    """
    from scipy.special import log_ndtr

    def reached(epsilon: float) -> float:
        return math.exp(log_ndtr(-epsilon / mu + mu / 2)) - math.exp(epsilon + log_ndtr(-epsilon / mu - mu / 2))

    if mu <= 0 or reached(0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while reached(high) > delta:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > delta else (low, middle)
    return low


def epsilon_one_run(canaries: int, guesses: int, right: int, *, alpha: float, delta: float = 0.0) -> float:
    """Lower bound on epsilon from one training run with coin-flipped canaries.

    Args:
        canaries: m records, each included by a fair, recorded coin.
        guesses: r of them guessed, fixed in advance.
        right: v right guesses.
        alpha: error of the bound.
        delta: of the claim.

    Source: Steinke, Nasr and Jagielski 2023, theorem 5.2.

    >>> round(epsilon_one_run(1000, 600, 600, alpha=0.05, delta=1e-5), 6)
    5.270399
    """
    from scipy.special import bdtr, bdtrc

    _check_guesses(canaries, guesses, right)
    if right == 0:
        return 0.0
    steps = np.arange(1, right + 1)

    def p_value(epsilon: float) -> float:
        q = 1 / (1 + math.exp(-epsilon))
        tail = float(bdtrc(right - 1, guesses, q))
        lower = np.where(right - steps > 0, bdtr(np.maximum(right - steps - 1, 0), guesses, q), 0.0)
        window = bdtr(right - 1, guesses, q) - lower
        return min(1.0, tail + 2 * canaries * delta * float(np.max(window / steps)))

    return _largest(lambda epsilon: p_value(epsilon) < alpha)


def epsilon_one_run_fdp(canaries: int, guesses: int, right: int, *, alpha: float, delta: float) -> float:
    """As `epsilon_one_run`, under the hypothesis of a Gaussian mechanism: tighter, and only then true.

    Source: Mahloujifar, Melis and Chaudhuri 2024.

    >>> round(epsilon_one_run_fdp(1000, 100, 100, alpha=0.05, delta=1e-5), 4)
    5.549
    """
    from scipy.special import ndtr, ndtri

    _check_guesses(canaries, guesses, right)

    def rejected(mu: float) -> bool:
        r = alpha * right / canaries
        h = alpha * (guesses - right) / canaries
        for i in range(right - 1, -1, -1):  # each step needs the one before
            step = max(h, float(ndtr(ndtri(r) - mu)))
            r += i / (guesses - i) * (step - h)
            h = step
            if r + h > 1:
                break
        return r + h > guesses / canaries

    return epsilon_of_mu(_largest(rejected), delta)


def _check_guesses(canaries: int, guesses: int, right: int) -> None:
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"expected 0 <= right <= guesses <= canaries, got {right}, {guesses}, {canaries}")


def _largest(holds: Callable[[float], bool], limit: float = 100.0) -> float:
    """The largest number at which a condition, true then false, holds; 0 where it never does."""
    if not holds(0.0):
        return 0.0
    low, high = 0.0, limit
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
