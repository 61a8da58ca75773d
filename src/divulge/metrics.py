"""Metrics: short functions of one Roc and an error probability, each giving an Estimate.

    Metric = Callable[[Roc, float], Estimate]     # the float: total probability that the interval misses the truth

A metric is a plain function, or a frozen dataclass where it has a parameter (`TprAtFpr(0.01)`); `named` gives either
the name, FPR and prior under which the report keeps it. What the sample cannot carry is NaN with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import intervals
from divulge.empirical_epsilon import EPSILON_RANKS, epsilon_at_ranks
from divulge.errors import InputError
from divulge.roc import HALVES, CrossFit, Roc, peak

NAN = float("nan")
FPRS = (0.0001, 0.001, 0.01, 0.05)  # where the tail is measured
PRIORS = (0.5, 0.1, 0.01, 0.001)  # share of members in the attacker's pool
OPTIMISTIC = "no interval: chosen and measured on the same rows, so it leans high"


class Estimate(NamedTuple):
    """A number with its interval; undefined is NaN with a reason, never 0.

    >>> Estimate(0.14, 0.13, 0.15).low
    0.13
    """

    value: float
    low: float
    high: float
    reason: str | None = None


Metric = Callable[[Roc, float], Estimate]


def undefined(reason: str) -> Estimate:
    """An estimate that cannot be given, and why.

    >>> undefined("no rows").value
    nan
    """
    return Estimate(NAN, NAN, NAN, reason)


def needed_nonmembers(fpr: float) -> int:
    """The fewest non-members at which a true-positive rate at this FPR is measured: ten expected false positives.

    >>> needed_nonmembers(0.001)
    10000
    """
    return math.ceil(10 / fpr - 1e-6)


def auc(roc: Roc, error: float) -> Estimate:
    """Area under the ROC (Mann-Whitney, ties one half); 0.5 = chance. Interval: DeLong on the logit scale.

    >>> from divulge.roc import exact
    >>> member = np.arange(400) < 200
    >>> score = np.sin(np.arange(400.0)) + 0.5 * member
    >>> [round(x, 3) for x in auc(exact(score, member, np.arange(400) % 2), 0.05)[:3]]
    [0.692, 0.639, 0.74]
    """
    value, variance = roc.placement
    if roc.constant:
        return Estimate(value, NAN, NAN, "all scores are equal: the attack says nothing")
    inflation = 2.0 if roc.fitted else 1.0  # of the variance: rows that share fits are not independent
    share_m, share_n = roc.effective
    sizes = share_m * roc.n_members, share_n * roc.n_nonmembers
    low, high = intervals.auc(value, variance / min(roc.effective), *sizes, error, inflation=inflation)
    if math.isnan(low):
        return Estimate(value, NAN, NAN, "needs at least 2 members and 2 non-members")
    return Estimate(value, float(low), float(high))


def advantage_counts(chosen: Sequence[CrossFit], best: CrossFit) -> intervals.AdvantageCounts:
    """What a cross-fitted advantage is counted from: the rates of both ways, averaged by precision.

    Averaged, not pooled: where groups make the halves uneven, pooling counts at two thresholds would make an advantage
    of the difference in make-up. The counts are those that have the averages' precision.

    Args:
        chosen: for each half, the cross-fit whose threshold was chosen on it; all of the same rows.
        best: that of the attack that is best on all rows.
    """
    tp, fp = (np.array([getattr(fit, side)[half] for half, fit in enumerate(chosen)]) for side in ("tp", "fp"))
    mean = averaged(tp[:, None], fp[:, None], best.members, best.nonmembers, best.effective)
    count_m, count_n = mean.members, mean.nonmembers
    of_all = count_m * best.best_tp / float(best.members.sum()), count_n * best.best_fp / float(best.nonmembers.sum())
    tpr, fpr = float(mean.tpr[0]), float(mean.fpr[0])
    return intervals.AdvantageCounts(count_m * tpr, count_n * fpr, *of_all, count_m, count_n)


class Averaged(NamedTuple):
    """Rates of two halves averaged by precision: (k,) TPR and FPR, and how many rows have the averages' precision."""

    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]
    members: float
    nonmembers: float


def averaged(
    tp: NDArray[np.integer[Any]],
    fp: NDArray[np.integer[Any]],
    members: NDArray[np.int64],
    nonmembers: NDArray[np.int64],
    effective: tuple[float, float],
) -> Averaged:
    """Average the halves' rates by precision; pooling their counts would mistake a difference in make-up for a signal.

    Args:
        tp, fp: (2, k) int, counted in a half.
        members, nonmembers: (2,) int, all of that half.
        effective: as in `Roc`.

    >>> four = np.array([4, 4])
    >>> averaged(np.array([[1], [3]]), np.array([[0], [0]]), four, four, (1.0, 1.0)).tpr.tolist()
    [0.5]
    """
    weight = 1 / (1 / members + 1 / nonmembers)
    weight = weight / weight.sum()
    count_m, count_n = (
        share / float((np.square(weight) / sizes).sum())
        for share, sizes in zip(effective, (members, nonmembers), strict=True)
    )
    return Averaged(weight / members @ tp, weight / nonmembers @ fp, count_m, count_n)


def advantage_estimate(counts: intervals.AdvantageCounts, error: float) -> Estimate:
    """The cross-fitted advantage and its score interval, from counts; scalar."""
    tp, fp, _, _, members, nonmembers = (float(x) for x in counts)  # type: ignore[arg-type]
    if members < 2 or nonmembers < 2:
        return undefined("needs at least 2 members and 2 non-members: the threshold is chosen on half of them")
    low, high = intervals.advantage(counts, error)
    return Estimate(tp / members - fp / nonmembers, float(low), float(high))


def advantage(roc: Roc, error: float) -> Estimate:
    """TPR - FPR at a threshold chosen on one half and measured on the other, both ways; 0 = chance, 1 = all told apart.

    May be negative: it is shown as it is. Interval: `intervals.advantage`, for the best advantage in the population.
    """
    fit = roc.cross_fit
    if fit.lacking:
        return undefined(fit.lacking)
    return advantage_estimate(advantage_counts([fit] * HALVES, fit), error)


def max_advantage(roc: Roc, error: float) -> Estimate:
    """The largest abs(TPR - FPR) over all thresholds, as TensorFlow Privacy reports it: optimistic, no interval."""
    m, n = roc.n_members, roc.n_nonmembers
    tp, fp = roc.tp_all, roc.fp_all
    largest = max(peak(tp, fp, m, n)[1], peak(fp, tp, n, m)[1])
    return Estimate(largest, NAN, NAN, OPTIMISTIC)


def balanced_accuracy(roc: Roc, error: float) -> Estimate:
    """(1 + advantage) / 2: the share an attacker guesses right when half of the pool are members."""
    value, low, high, reason = advantage(roc, error)
    return Estimate((1 + value) / 2, (1 + low) / 2, (1 + high) / 2, reason)


def allowed_rank(fpr: float, nonmembers: int) -> int:
    """k: how many of N non-members may lie above a threshold at this FPR."""
    return math.floor(fpr * nonmembers + 1e-9)


def tpr_bounds(roc: Roc, fpr: float | NDArray[np.float64], error: float | NDArray[np.float64]) -> intervals.Bounds:
    """Interval of the population's TPR at the population's FPR, both estimated; holds for any sample size.

    The low end counts members above the highest rank whose FPR is credibly at most `fpr`, the high end above the
    lowest whose FPR is credibly at least that; each limit at error / 4. `fpr` and `error` broadcast.
    """
    quarter, (m, n) = error / 4, _effective_sizes(roc)
    below, above = intervals.fpr_ranks(fpr, math.floor(n), quarter)
    thin = roc.n_members / m, roc.n_nonmembers / n  # rows that count as one
    rank_low = np.floor((np.maximum(below, 0) + 1) * thin[1]).astype(np.int64) - 1
    rank_high = np.ceil((above + 1) * thin[1]).astype(np.int64) - 1
    low = intervals.clopper_pearson_lower(roc.above_rank(rank_low)[0] / thin[0], m, quarter)
    high = intervals.clopper_pearson_upper(roc.most_above_rank(rank_high) / thin[0], m, quarter)
    return intervals.Bounds(np.where(below >= 0, low, 0.0), np.where(above < math.floor(n), high, 1.0))


def _effective_sizes(roc: Roc) -> tuple[float, float]:
    """Members and non-members, each group counted as one where rows come in groups."""
    return roc.effective[0] * roc.n_members, roc.effective[1] * roc.n_nonmembers


class Curve(NamedTuple):
    """Points of a ROC, rising: (p,) each. threshold: NaN where nothing lies above. low, high: pointwise TPR interval.

    >>> from divulge.roc import exact
    >>> curve(exact(np.array([.9, .1]), np.array([True, False]), np.array([0, 1])), 0.05).tpr.tolist()
    [0.0, 1.0, 1.0]
    """

    threshold: NDArray[np.float64]
    tpr: NDArray[np.float64]
    fpr: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curve(roc: Roc, error: float, points: int = 512) -> Curve:
    """A ROC thinned for drawing: evenly spaced both in FPR and in its logarithm.

    Args:
        roc: of any size.
        error: of each point's interval, pointwise.
        points: at most this many.
    """
    n = roc.n_nonmembers
    half = max(points // 2 - 1, 1)
    counts = np.concatenate(([0.0], np.geomspace(1, n, half), np.linspace(0, n, half)))
    at = np.unique(np.searchsorted(roc.fp_all, np.floor(counts), side="right") - 1)
    at = np.unique(np.concatenate(([0], at)))
    tpr, fpr = roc.tp[:, at].sum(axis=0) / roc.n_members, roc.fp_all[at] / n
    low, high = tpr_bounds(roc, fpr, error)
    threshold = np.where(np.isinf(roc.thresholds[at]), NAN, roc.thresholds[at].astype(np.float64))
    return Curve(threshold, tpr, fpr, np.minimum(low, tpr), np.maximum(high, tpr))


def too_few(roc: Roc, fpr: float) -> str | None:
    """Why a TPR at this FPR cannot be measured with so few non-members, or None where it can."""
    needed, has = needed_nonmembers(fpr), math.floor(_effective_sizes(roc)[1] + 1e-9)
    if has < needed:
        counted = "" if roc.effective[1] == 1 else ", counted by group"
        return f"needs {needed:,} non-members at FPR {fpr:g}, has {has:,}{counted}"
    return None


@dataclass(frozen=True)
class TprAtFpr:
    """The share of members scored above all but a share `fpr` of the non-members; chance level is `fpr`.

    Undefined below 10 / fpr non-members. Interval: `tpr_bounds`.

    >>> from divulge.roc import exact
    >>> member = np.arange(2000) < 1000
    >>> score = np.sin(np.arange(2000.0)) + 0.5 * member
    >>> [round(x, 3) for x in TprAtFpr(0.01)(exact(score, member, np.arange(2000) % 2), 0.05)[:3]]
    [0.331, 0.298, 0.37]
    """

    fpr: float

    def __call__(self, roc: Roc, error: float) -> Estimate:
        """The TPR and its interval."""
        if reason := too_few(roc, self.fpr):
            return undefined(reason)
        tp, _ = roc.above_rank(allowed_rank(self.fpr, roc.n_nonmembers))
        value = int(tp) / roc.n_members
        low, high = tpr_bounds(roc, self.fpr, error)
        # Under ties the empirical point lies low: no row of a tie is above it. The interval must hold it all the same.
        return Estimate(value, min(float(low), value), max(float(high), value))


@dataclass(frozen=True)
class AchievedFpr:
    """The share of non-members above the threshold that `TprAtFpr(fpr)` uses, with the limits of the population's."""

    fpr: float

    def __call__(self, roc: Roc, error: float) -> Estimate:
        """The achieved rate and its interval."""
        if reason := too_few(roc, self.fpr):
            return undefined(reason)
        fp = int(roc.above_rank(allowed_rank(self.fpr, roc.n_nonmembers))[1])
        low, high = _achieved_bounds(roc, self.fpr, fp, error / 2)
        return Estimate(fp / roc.n_nonmembers, low, high)


def _achieved_bounds(roc: Roc, fpr: float, fp: int, alpha: float) -> tuple[float, float]:
    """Limits of the FPR at a non-member rank: that of the rank above, of the count (fewer under ties) below."""
    share, n = roc.effective[1], _effective_sizes(roc)[1]
    low = intervals.clopper_pearson_lower(share * fp, n, alpha)
    high = intervals.clopper_pearson_upper(share * allowed_rank(fpr, roc.n_nonmembers), n, alpha)
    return float(low), float(high)


@dataclass(frozen=True)
class Ppv:
    """The share of true members among the records that an attacker names at this FPR, at a prior share of members.

    Interval: from the limits of the TPR and of the achieved FPR at that threshold, each at error / 4.

    >>> from divulge.roc import exact
    >>> member = np.arange(2000) < 1000
    >>> score = np.sin(np.arange(2000.0)) + 0.5 * member
    >>> [round(x, 3) for x in Ppv(0.01, 0.1)(exact(score, member, np.arange(2000) % 2), 0.05)[:3]]
    [0.786, 0.628, 0.904]
    """

    fpr: float
    prior: float

    def __call__(self, roc: Roc, error: float) -> Estimate:
        """The PPV and its interval."""
        if reason := too_few(roc, self.fpr):
            return undefined(reason)
        tp, fp = (int(count) for count in roc.above_rank(allowed_rank(self.fpr, roc.n_nonmembers)))
        if tp + fp == 0:
            return undefined("no record lies above the threshold: the top scores are tied")
        m, quarter = _effective_sizes(roc)[0], error / 4
        fpr_low, fpr_high = _achieved_bounds(roc, self.fpr, fp, quarter)
        value = self._ppv(tp / roc.n_members, fp / roc.n_nonmembers)
        found = roc.effective[0] * tp
        low = self._ppv(float(intervals.clopper_pearson_lower(found, m, quarter)), fpr_high)
        high = self._ppv(float(intervals.clopper_pearson_upper(found, m, quarter)), fpr_low)
        return Estimate(value, low, high)

    def _ppv(self, tpr: float, fpr: float) -> float:
        return self.prior * tpr / (self.prior * tpr + (1 - self.prior) * fpr)


@dataclass(frozen=True)
class Epsilon:
    """Empirical lower bound on epsilon (nats) at `delta`, one-sided: descriptive, never a certificate.

    Thresholds are non-member ranks fixed in advance (0.1, 1, 5, 10, 30 %), so noise does not prove a leak. On ordinary
    records of one model it says that a mechanism with a smaller epsilon would rarely give such counts.
    """

    delta: float = 0.0

    def __call__(self, roc: Roc, error: float) -> Estimate:
        """The bound, as value and low end."""
        n, (share_m, share_n) = roc.n_nonmembers, roc.effective
        ranks = {allowed_rank(share, n) for share in EPSILON_RANKS}
        points = [(share_m * int(roc.above_rank(rank)[0]), share_n * rank) for rank in sorted(ranks)]
        bound = epsilon_at_ranks(points, *_effective_sizes(roc), alpha=error, delta=self.delta)
        return Estimate(bound, bound, NAN, "one-sided lower bound, descriptive")


# -------------------------------------------------------------------------------------------------- by name


class NamedMetric(NamedTuple):
    """A metric under the name, FPR and prior (NaN: none) that the report's columns show."""

    name: str
    fpr: float
    prior: float
    call: Metric


PLAIN: dict[str, Metric] = {
    "auc": auc,
    "advantage": advantage,
    "max_advantage": max_advantage,
    "balanced_accuracy": balanced_accuracy,
    "epsilon": Epsilon(),
}
DEFAULT = (
    *PLAIN,
    *(f"{name}@{fpr:g}" for fpr in FPRS for name in ("tpr", "achieved_fpr")),
    *(f"ppv@0.01,{prior:g}" for prior in PRIORS),
)
OF_SLICES = ("auc", "advantage", "tpr@0.01")


def named(metric: str | Metric) -> NamedMetric:
    """A metric from its name ("auc", "tpr@0.001", "ppv@0.01,0.1": FPR, prior), or the user's own callable.

    Raises:
        InputError: DV051, an unknown name or a rate outside (0, 1).

    >>> named("tpr@0.001").fpr
    0.001
    """
    if not isinstance(metric, str):
        call = metric
    elif metric in PLAIN:
        return NamedMetric(metric, NAN, NAN, PLAIN[metric])
    else:
        call = _parametric(metric)
    if isinstance(call, TprAtFpr):
        return NamedMetric("tpr", call.fpr, NAN, call)
    if isinstance(call, AchievedFpr):
        return NamedMetric("achieved_fpr", call.fpr, NAN, call)
    if isinstance(call, Ppv):
        return NamedMetric("ppv", call.fpr, call.prior, call)
    return NamedMetric(getattr(call, "__name__", str(call)), NAN, NAN, call)


def _parametric(text: str) -> Metric:
    name, _, rest = text.partition("@")
    try:
        rates = [float(part) for part in rest.split(",")]
    except ValueError:
        rates = []
    if all(0 < rate < 1 for rate in rates):
        if name == "tpr" and len(rates) == 1:
            return TprAtFpr(rates[0])
        if name == "achieved_fpr" and len(rates) == 1:
            return AchievedFpr(rates[0])
        if name == "ppv" and len(rates) == 2:
            return Ppv(*rates)
    known = ", ".join([*PLAIN, "tpr@FPR", "achieved_fpr@FPR", "ppv@FPR,PRIOR"])
    raise InputError("DV051", f"unknown metric {text!r}: expected one of {known}, rates between 0 and 1")


def all_named(metrics: str | Metric | Iterable[str | Metric]) -> list[NamedMetric]:
    """Normalise the `metrics` argument of `audit`."""
    if metrics == "default":
        metrics = DEFAULT
    found = [named(metric) for metric in ([metrics] if isinstance(metrics, str) or callable(metrics) else metrics)]
    keys = [(metric.name, str(metric.fpr), str(metric.prior)) for metric in found]
    if twice := {name for name, *_ in (key for key in keys if keys.count(key) > 1)}:
        raise InputError("DV051", f"two metrics are called {min(twice)!r}: ask for each once")
    return found
