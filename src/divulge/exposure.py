"""Where the records lie: how an attack's scores are spread, and how many members stand out how far.

Both are counts of many records, never a record's own figure.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import intervals
from divulge.metrics import NAN, allowed_rank, averaged, too_few
from divulge.report import Row
from divulge.roc import HALVES, Roc
from divulge.selection import best_on, select
from divulge.slices import EVERYONE

BINS = 30
_LOOKS = 4097
_OUTSIDE = 0.005  # share of the rows that may lie in each of the two open bins
BANDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)  # shares of the non-members that score higher


class Distribution(NamedTuple):
    """Counts of both sides in bins of an attack's scores, rising: (b,) each.

    start, stop: float, a bin's ends (a score at `start` is in it); NaN where the first and the last bin are open.
    members, nonmembers: int.

    >>> from divulge.roc import exact
    >>> member, halves = np.arange(400) < 200, np.arange(400) % 2
    >>> int(distribution(exact(np.sin(np.arange(400.0)), member, halves)).members.sum())
    200
    """

    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    members: NDArray[np.int64]
    nonmembers: NDArray[np.int64]


def distribution(roc: Roc, bins: int = BINS) -> Distribution:
    """How an attack's scores are spread.

    The bins are of one width, on the scores' own scale or, where all scores are below zero as those of a loss are, on
    that of the logarithm of their distance to zero: whichever spreads the rows more evenly.

    Args:
        roc: of any size.
        bins: how many; fewer where there are fewer distinct scores.
    """
    return max((_counted(roc, inner) for inner in _scales(roc, bins)), key=_evenness)


def _scales(roc: Roc, bins: int) -> list[NDArray[np.float64]]:
    """Inner edges, rising, of each scale that suits the scores."""
    first = _at_or_above(roc, float(np.finfo(roc.thresholds.dtype).max))  # +inf counts as the largest number
    last = _at_or_above(roc, -float(np.finfo(roc.thresholds.dtype).max))
    if last - first < 2:
        return [np.zeros(0)]
    # A few thousand of millions of thresholds say well enough where the open bins begin.
    at = np.unique(np.linspace(first, last - 1, _LOOKS).astype(np.int64))
    scores = roc.thresholds[at].astype(np.float64)
    total = roc.n_members + roc.n_nonmembers
    above = roc.tp[:, at].sum(axis=0, dtype=np.int64) + roc.fp[:, at].sum(axis=0, dtype=np.int64)
    places = np.searchsorted(above, [_OUTSIDE * total, (1 - _OUTSIDE) * total])
    top, bottom = scores[np.minimum(places, len(scores) - 1)]
    if not bottom < top:
        return [np.array([top])]
    scales = [2 * np.linspace(bottom / 2, top / 2, bins - 1)]  # halved: the distance of the ends may overflow
    if scores[0] <= 0:
        nearest = max(-top, -bottom * 1e-9)  # a loss of 0 is as near as one of a billionth of the largest
        if nearest < -bottom:
            scales.append(-np.geomspace(-bottom, nearest, bins - 1))
    return scales


def _at_or_above(roc: Roc, score: float) -> int:
    """How many thresholds are at or above a score. Not numpy's search, which would copy what falls instead of rises."""
    return bisect_right(roc.thresholds, -score, key=operator.neg)


def _counted(roc: Roc, inner: NDArray[np.float64]) -> Distribution:
    at_or_above = [_at_or_above(roc, float(edge)) - 1 for edge in inner]
    ends = np.array([len(roc.thresholds) - 1, *at_or_above, 0])
    members, nonmembers = (-np.diff(counts[:, ends].sum(axis=0, dtype=np.int64)) for counts in (roc.tp, roc.fp))
    return Distribution(np.append(NAN, inner), np.append(inner, NAN), members, nonmembers)


def _evenness(found: Distribution) -> float:
    """Entropy of the rows over the bins."""
    counts = found.members + found.nonmembers
    shares = counts[counts > 0] / max(int(counts.sum()), 1)
    return -float(shares @ np.log(shares))


def distribution_rows(attack: str, found: Distribution) -> list[Row]:
    """A distribution's bins as rows."""
    return [
        {"attack": attack, "slice": EVERYONE, **dict(zip(found._fields, cells, strict=True))}
        for cells in zip(*(column.tolist() for column in found), strict=True)
    ]


def bands(rocs: Mapping[str, Roc], error: float) -> list[Row]:
    """How many members stand out how far: is it everyone a little, or a few people a lot?

    A band holds the records that score above one share of the non-members and not above another. Attack and thresholds
    are chosen on one half and counted on the other, both ways. A band's probability is that of a record in it to be a
    member, where half of all were (0.5 = chance).

    Interval: Clopper-Pearson of the members among a band's records, given how many those are; pointwise.

    Args:
        rocs: an attack's Roc each, all of the same rows.
        error: total probability that a band's interval misses.

    Returns:
        Rows of the report's "bands", the most exposed first; none where a half lacks a side.

    >>> from divulge.roc import exact
    >>> member, halves = np.arange(4000) < 2000, np.arange(4000) % 2
    >>> rocs = {"loss": exact(np.sin(np.arange(4000.0)) + 0.5 * member, member, halves)}
    >>> [round(row["probability"], 2) for row in bands(rocs, 0.05)]
    [0.97, 0.13, 0.22, 0.35, 0.48, 0.4]
    """
    picked = select({name: roc.cross_fit for name, roc in rocs.items()})
    first = next(iter(rocs.values()))
    if picked.reason is not None:
        return []
    stops = [*(share for share in BANDS if too_few(first, share) is None), 1.0]
    counts = [_above(_chosen_on(rocs, half), half, stops) for half in range(HALVES)]
    tp, fp = (np.array(side) for side in zip(*counts, strict=True))  # (h, k) each, of the half not chosen on
    mean = averaged(tp, fp, first.members[::-1], first.nonmembers[::-1], first.effective)
    rows: list[Row] = []
    for at, (start, stop) in enumerate(zip([0.0, *stops[:-1]], stops, strict=True)):
        share_m, share_n = mean.tpr[at + 1] - mean.tpr[at], mean.fpr[at + 1] - mean.fpr[at]
        rows.append(
            {
                "attack": picked.attack,
                "slice": EVERYONE,
                "start": start,
                "stop": stop,
                "members": int((tp[:, at + 1] - tp[:, at]).sum()),
                "nonmembers": int((fp[:, at + 1] - fp[:, at]).sum()),
                **_probability(float(share_m), float(share_n), mean.members, mean.nonmembers, error),
            }
        )
    return rows


def _chosen_on(rocs: Mapping[str, Roc], half: int) -> Roc:
    return rocs[best_on({name: roc.cross_fit for name, roc in rocs.items()}, half)]


def _above(roc: Roc, half: int, stops: list[float]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(k + 1,) members and non-members of the other half above the thresholds of one half, from none to all."""
    ranks = [allowed_rank(stop, int(roc.nonmembers[half])) for stop in stops[:-1]]
    inner = np.searchsorted(roc.fp[half], np.array(ranks, roc.fp.dtype) + 1) - 1
    at = np.concatenate(([0], inner, [len(roc.thresholds) - 1])).astype(np.int64)
    return roc.tp[1 - half, at].astype(np.int64), roc.fp[1 - half, at].astype(np.int64)


def _probability(share_m: float, share_n: float, members: float, nonmembers: float, error: float) -> dict[str, float]:
    if share_m + share_n <= 0:
        return {"probability": NAN, "low": NAN, "high": NAN}
    found, all_found = members * share_m, members * share_m + nonmembers * share_n
    low = float(intervals.clopper_pearson_lower(found, all_found, error / 2))
    high = float(intervals.clopper_pearson_upper(found, all_found, error / 2))

    def at_even_prior(share: float) -> float:
        per_member, per_nonmember = share / members, (1 - share) / nonmembers
        return per_member / (per_member + per_nonmember)

    return {"probability": share_m / (share_m + share_n), "low": at_even_prior(low), "high": at_even_prior(high)}
