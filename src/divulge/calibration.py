"""Whether probabilities of membership can be taken at their word: slope, intercept, Brier score and bins."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import intervals
from divulge.likelihood import log_odds
from divulge.metrics import NAN, Estimate, undefined
from divulge.report import Row

Floats = NDArray[np.float64]

SHARES = (*np.arange(0.1, 0.95, 0.1).round(1).tolist(), 0.95, 0.99)  # of the records, below each edge of a bin
IN_BIN = 20  # records that the two highest bins hold at least, else they are left out
LARGEST_SLOPE = 50.0


class Calibration(NamedTuple):
    """Whether probabilities can be taken at their word, measured on rows that they were not fitted on.

    slope: of the true log-odds in the predicted ones; 1 = as said, below 1 = too extreme, above 1 = too timid.
    intercept: how much higher the true log-odds are throughout (nats); 0 = as said. Neither depends on the prior.
    p: of the hypothesis that the slope is 1, two-sided; NaN where all probabilities are equal.

    >>> Calibration(Estimate(1.02, 0.9, 1.14), Estimate(0.0, -0.1, 0.1), 0.7).slope.value
    1.02
    """

    slope: Estimate
    intercept: Estimate
    p: float


def brier_score(
    probability: Floats, member: NDArray[np.bool_], prior: float, effective: tuple[float, float], error: float
) -> Estimate:
    """Mean squared error where a share `prior` are members; interval: normal, for these probabilities' maps."""
    value = variance = 0.0
    for side, truth, weight, share in ((member, 1.0, prior, effective[0]), (~member, 0.0, 1 - prior, effective[1])):
        squares = np.square(probability[side] - truth)
        if len(squares) < 2:
            return undefined("needs at least 2 members and 2 non-members")
        value += weight * float(squares.mean())
        variance += weight**2 * float(squares.var(ddof=1)) / (len(squares) * share)
    low, high = intervals.symmetric(value, variance, error)
    return Estimate(value, float(low), float(high))


def calibrated(ratio: Floats, member: NDArray[np.bool_], effective: tuple[float, float], error: float) -> Calibration:
    """Cox's slope and intercept in the pool of the evidence, which are those of any prior; robust standard errors."""
    from scipy.special import expit, ndtr

    pool = log_odds(float(member.mean()))
    share = min(effective)
    ones = np.ones((len(ratio), 1))
    shift = _logistic(ones, member, pool + ratio, share)
    intercept = _estimate(shift, 0, error) if shift else undefined("the sides are told apart without an error")
    if np.ptp(ratio) < 1e-9:
        return Calibration(undefined("all probabilities are equal: nobody stands out"), intercept, NAN)
    both = _logistic(np.column_stack((ones, ratio)), member, np.full(len(ratio), pool), share)
    slope = _estimate(both, 1, error) if both else undefined("the sides are told apart without an error")
    predicted = expit(pool + ratio)
    weight = predicted * (1 - predicted)
    centred = ratio - (weight @ ratio) / weight.sum()
    z = float((member - predicted) @ centred) / math.sqrt(float(weight @ np.square(centred)) / share)
    return Calibration(slope, intercept, float(2 * ndtr(-abs(z))))


class _Fit(NamedTuple):
    beta: Floats
    variance: Floats


def _logistic(x: Floats, member: NDArray[np.bool_], offset: Floats, share: float) -> _Fit | None:
    """Logistic regression of (n,) membership on (n, d) terms, sandwich variances; None where it does not converge."""
    from scipy.special import expit

    beta = np.zeros(x.shape[1])
    for _ in range(100):
        predicted = expit(offset + x @ beta)
        gradient = x.T @ (member - predicted)
        curvature = (x * (predicted * (1 - predicted))[:, None]).T @ x
        if not np.linalg.cond(curvature) < 1e12:
            return None
        step = np.linalg.solve(curvature, gradient)
        beta += step / max(1.0, float(np.abs(step).max()))  # at most 1 a step: no leap past the top
        if np.abs(beta).max() > LARGEST_SLOPE:
            return None
        if np.abs(step).max() < 1e-9:
            scores = x * (member - predicted)[:, None]
            inverse = np.linalg.inv(curvature)
            return _Fit(beta, np.diag(inverse @ (scores.T @ scores) @ inverse) / share)
    return None


def _estimate(fit: _Fit, at: int, error: float) -> Estimate:
    low, high = intervals.symmetric(float(fit.beta[at]), float(fit.variance[at]), error)
    return Estimate(float(fit.beta[at]), float(low), float(high))


def reliability_bins(
    probability: Floats, member: NDArray[np.bool_], prior: float, effective: tuple[float, float], error: float
) -> tuple[Row, ...]:
    """Bins of equal numbers of records, the highest tenth once more by its own; equal probabilities stay together.

    Interval: Clopper-Pearson of the members among a bin's records, carried to the prior.
    """
    ordered = np.sort(probability)
    shares = [share for share in SHARES if share <= 0.9 or (1 - share) * len(ordered) >= IN_BIN]
    edges = np.unique(ordered[(np.array(shares) * len(ordered)).astype(np.int64)])
    place = np.searchsorted(edges, probability, side="right")
    sizes = member.sum() * effective[0], (~member).sum() * effective[1]
    rows: list[Row] = []
    for at in np.unique(place):
        inside = place == at
        tp, fp = int((inside & member).sum()), int((inside & ~member).sum())
        k, all_k = tp * effective[0], tp * effective[0] + fp * effective[1]
        low = float(intervals.clopper_pearson_lower(k, all_k, error / 2))
        high = float(intervals.clopper_pearson_upper(k, all_k, error / 2))
        of_members, of_nonmembers = prior / member.sum(), (1 - prior) / (~member).sum()
        weight = np.where(member[inside], of_members, of_nonmembers)
        rows.append(
            {
                "start": float(probability[inside].min()),
                "stop": float(probability[inside].max()),
                "predicted": float(np.average(probability[inside], weights=weight)),
                "observed": tp * of_members / (tp * of_members + fp * of_nonmembers),
                "low": _at_prior(low, sizes, prior),
                "high": _at_prior(high, sizes, prior),
                "members": tp,
                "nonmembers": fp,
            }
        )
    return tuple(rows)


def _at_prior(share: float, sizes: tuple[float, float], prior: float) -> float:
    """A share of members in a pool of such sizes, as it is where a share `prior` are."""
    up, down = share * prior / sizes[0], (1 - share) * (1 - prior) / sizes[1]
    return float(up / (up + down))
