"""Counts of scores in bins, which add up across blocks, files and machines; the Rocs that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.roc import TAG_BITS, Floats, Ranked, Roc, ordered_bits, tags

SLICES = 1 << 8  # that are added up at a time
DENSE = 1 << 18  # bins of all slices together up to which empty ones are counted in: 8 MB
SPILLED_AT = (0.001, 0.01, 0.05, 0.5)  # false-positive rates at which a bin must not hold too much
LARGEST_SPILL = 0.25  # of such a rate, that the bin at its rank may hold
FEWEST_BEYOND = 10  # rows beyond such a rank, to know it by


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts a bin, a side and a half, for some slices; blocks, files and machines add up with `+`.

    A bin is the leading bits of the score as a float32, so its edges need no knowledge of the data, and the counts
    at the edges are exact. The Roc has one threshold a bin that holds a row: a coarser curve, not an estimate of the
    fine one.

    Attributes:
        bins: (b,) int64 rising, the numbers of those of the 2**bits bins that hold a row.
        counts: (slices, b, 4) int64, the last axis as in `tags`.
        bits: 16 keeps 8 bits of precision of a float32 (its sign and exponent have 9), 12 keeps 4.

    >>> member, halves = np.array([True, True, False]), np.array([0, 1, 0])
    >>> one = Histogram.of(np.array([3., 2., 1.], np.float32), member, halves)
    >>> (one + one).roc().tp_all.tolist()
    [0, 2, 4, 4]
    """

    bins: NDArray[np.int64]
    counts: NDArray[np.int64]
    bits: int

    @classmethod
    def of(
        cls,
        scores: Floats,
        member: NDArray[np.bool_],
        halves: NDArray[np.integer[Any]],
        codes: NDArray[np.integer[Any]] | None = None,
        slices: int = 1,
        *,
        bits: int = 16,
    ) -> Histogram:
        """Count one block.

        Args:
            scores: (n,) float; NaN counts as the lowest.
            member: (n,) bool.
            halves: (n,) 0 or 1.
            codes: (n,) slice numbers, -1 = in none; None: one slice of all rows.
            slices: number of slices.
            bits: 2**bits bins.
        """
        cells = cells_of(scores, bits)
        return cls.counted(cells, tags(member, halves), codes, slices, bits=bits)

    @classmethod
    def counted(
        cls,
        cells: NDArray[np.uint32],
        tag: NDArray[np.uint8],
        codes: NDArray[np.integer[Any]] | None = None,
        slices: int = 1,
        *,
        bits: int,
    ) -> Histogram:
        """Count rows of which the bins are known: (n,) of `cells_of`, (n,) of `tags`; else as `of`."""
        if codes is not None and codes.min(initial=0) < 0:
            inside = codes >= 0
            cells, tag, codes = cells[inside], tag[inside], codes[inside]
        lowest = cells.min(initial=(1 << bits) - 1)
        cells = cells - lowest
        bins = np.arange(lowest, lowest + cells.max(initial=0) + 1, dtype=np.int64)
        if slices * len(bins) > DENSE:  # else counting in all is cheaper than finding the filled ones first
            seen = np.zeros(len(bins), bool)
            seen[cells] = True
            bins = bins[seen]
            cells = (np.cumsum(seen) - 1)[cells]
        width = len(bins)
        index = tag.astype(np.int64)
        index *= width
        index += cells
        if codes is not None:
            index += codes.astype(np.int64) * (width << TAG_BITS)
        counts = np.bincount(index, minlength=slices * width << TAG_BITS).reshape(slices, 1 << TAG_BITS, width)
        filled = np.flatnonzero(counts.any(axis=(0, 1)))
        found = np.ascontiguousarray(counts[:, :, filled].swapaxes(1, 2), dtype=np.int64)
        return cls(bins[filled], found, bits)

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram.together([self, other])

    @classmethod
    def together(cls, parts: Sequence[Histogram]) -> Histogram:
        """That of several; of many at once it is cheaper than one by one."""
        first = parts[0]
        seen = np.zeros(1 << first.bits, bool)
        for part in parts:
            seen[part.bins] = True
        bins = np.flatnonzero(seen)
        counts = np.zeros((len(first.counts), len(bins), 4), np.int64)
        for part in parts:
            places = np.searchsorted(bins, part.bins)
            for start in range(0, len(counts), SLICES):  # numpy copies what it adds at places
                some = slice(start, start + SLICES)
                if len(places) == len(bins):
                    counts[some] += part.counts[some]
                else:
                    counts[some, places] += part.counts[some]
        return cls(bins, counts, first.bits)

    def gathered(self, places: NDArray[np.integer[Any]], slices: int) -> Histogram:
        """The same counts under other slice numbers; slices that get one number are added up.

        Args:
            places: (old slices,) new number of each.
            slices: how many there are then.
        """
        counts = np.zeros((slices, *self.counts.shape[1:]), np.int64)
        np.add.at(counts, places, self.counts)
        return Histogram(self.bins, counts, self.bits)

    def roc(
        self, index: int = 0, *, fitted: bool = False, effective: tuple[float, float] = (1.0, 1.0), centre: float = 0.0
    ) -> Roc:
        """The Roc of one slice; fitted, effective: see `Roc`; centre: see `cells_of`."""
        filled = np.flatnonzero(self.counts[index].any(axis=1))[::-1]
        running = np.zeros((4, len(filled) + 1), np.int64)
        np.cumsum(self.counts[index][filled].T, axis=1, out=running[:, 1:])
        lowest = (self.bins[filled].astype(np.uint64) << np.uint64(32 - self.bits)).astype(np.uint32)
        thresholds = Ranked(~lowest, None).scores(~lowest)
        thresholds[np.isnan(thresholds)] = -np.inf  # the lowest bin starts among the bit patterns of NaN
        totals = running[:, -1]
        thresholds = thresholds + centre if centre else thresholds
        return Roc(thresholds, running[:2], running[2:], totals[:2], totals[2:], fitted, effective, binned=True)


def cells_of(scores: Floats, bits: int, centre: float = 0.0) -> NDArray[np.uint32]:
    """(n,) the bin of each score: the leading bits of the float32, in the scores' order; NaN in the lowest.

    Args:
        scores: (n,) float.
        bits: 2**bits bins.
        centre: what is taken off the scores first; bins are narrowest about it.

    >>> cells_of(np.array([-1.0, 0.0, 1.0]), 2).tolist()
    [1, 2, 2]
    """
    with np.errstate(over="ignore"):
        scores = np.asarray(scores)
        narrow = (scores - scores.dtype.type(centre) if centre else scores).astype(np.float32)
    if not np.isfinite(narrow).all():
        narrow = np.where(np.isnan(narrow), np.float32(-np.inf), np.minimum(narrow, np.finfo(np.float32).max))
    return np.asarray(ordered_bits(narrow) >> np.uint32(32 - bits))


def centre_of(nonmembers: Floats, bits: int) -> float:
    """Where bins should be narrowest, so that low false-positive rates are met: 0, if bins as they are will do.

    Bins are narrow about 0, where the highest losses lie. Of a probability, or of scores far from 0, one bin may hold
    many times the rows that a low rate allows.

    Args:
        nonmembers: (n,) scores of some non-members, higher = more member-like.
        bits: 2**bits bins.

    >>> centre_of(np.random.default_rng(0).normal(size=10_000), 16)
    0.0
    >>> round(centre_of(np.random.default_rng(0).normal(-500, 1, size=10_000), 16))
    -498
    """
    scores = np.sort(nonmembers[np.isfinite(nonmembers)].astype(np.float64))
    if not len(scores):
        return 0.0
    candidates = [0.0, *np.quantile(scores, [0.999, 0.99, 0.5], method="nearest").tolist()]
    spill = [_spill(scores, bits, centre) for centre in candidates]
    return 0.0 if spill[0] <= LARGEST_SPILL else candidates[int(np.argmin(spill))]


def _spill(scores: NDArray[np.float64], bits: int, centre: float) -> float:
    """The largest share of a low false-positive rate that the bin at its rank holds, where its rows differ."""
    cells = cells_of(scores, bits, centre)  # rising, as the scores are
    worst = 0.0
    for fpr in SPILLED_AT:
        if fpr * len(cells) < FEWEST_BEYOND:
            continue
        at = cells[min(int((1 - fpr) * len(cells)), len(cells) - 1)]
        first, last = np.searchsorted(cells, at), np.searchsorted(cells, at, side="right") - 1
        if scores[first] < scores[last]:
            worst = max(worst, (last - first) / len(cells) / fpr)
    return worst
