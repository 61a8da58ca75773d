"""Roc: how many members and non-members lie at or above each threshold. Every metric is a function of one.

Two makers with one meaning: `exact` (and `exact_slices`) from sorted scores, `Histogram` from integer counts that add
up across blocks, files and machines. Metrics never know which.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.integer[Any]]

HALVES = 2
TAG_BITS = 2  # two bits of a sort key hold side and half
_CODE_SHIFT = 32 + TAG_BITS
_BLOCK = 1 << 15
_SLICES = 1 << 8  # that are added up at a time
DENSE = 1 << 18  # bins of all slices together up to which empty ones are counted in: 8 MB


class CrossFit(NamedTuple):
    """The threshold of largest TPR - FPR, chosen on one half and measured on the other.

    Shapes: (2,) each, index = the half chosen on; `best_*` are scalars.

    chosen:      the advantage on the half it was chosen on (fraction, optimistic)
    tp, fp:      counts on the *other* half at that threshold
    members, nonmembers: all of that other half
    best_tp, best_fp: counts of all rows at the threshold that is best on all rows (optimistic)
    effective: as in `Roc`
    """

    chosen: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    members: NDArray[np.int64]
    nonmembers: NDArray[np.int64]
    best_tp: int
    best_fp: int
    effective: tuple[float, float]

    @property
    def lacking(self) -> str | None:
        """Why nothing can be chosen on one half and measured on the other, or None where it can."""
        if (self.members > 0).all() and (self.nonmembers > 0).all():
            return None
        return "one half holds no members or no non-members: too few rows, or too few groups, to choose and to measure"


class Placement(NamedTuple):
    """AUC (Mann-Whitney, ties one half) and its DeLong variance (NaN with fewer than two rows on a side)."""

    auc: float
    variance: float


@dataclass(frozen=True, eq=False)
class Roc:
    """Counts at thresholds, kept for the two halves of the audit's rows.

    Attributes:
        thresholds: (k,) float, strictly descending; the first is +inf, where all counts are zero. A row is counted
            at a threshold when its score is at or above it.
        tp, fp: (2, k) int, members and non-members counted, a row a half; the last column holds all.
        members, nonmembers: (2,) int, totals a half.
        fitted: the scores came from models fitted on membership (or share reference fits), so rows are not
            independent: the AUC's standard error is widened by sqrt(2).
        effective: how many independent rows each member, each non-member counts as: 1, or less where rows come in
            groups. Intervals are as wide as if there were only so many.

    >>> roc = exact(np.array([.9, .8, .3, .1]), np.array([1, 0, 1, 0], bool), np.array([0, 0, 1, 1]))
    >>> roc.tp.sum(axis=0).tolist(), roc.placement.auc
    ([0, 1, 1, 2, 2], 0.75)
    """

    thresholds: Floats
    tp: Counts
    fp: Counts
    members: NDArray[np.int64]
    nonmembers: NDArray[np.int64]
    fitted: bool = False
    effective: tuple[float, float] = (1.0, 1.0)

    @property
    def tp_all(self) -> Counts:
        """(k,) members at or above each threshold, both halves; added anew at each call."""
        return np.asarray(self.tp[0] + self.tp[1])

    @cached_property
    def fp_all(self) -> Counts:
        """(k,) non-members at or above each threshold, both halves."""
        return np.asarray(self.fp[0] + self.fp[1])

    @property
    def n_members(self) -> int:
        """All members."""
        return int(self.members.sum())

    @property
    def n_nonmembers(self) -> int:
        """All non-members."""
        return int(self.nonmembers.sum())

    @property
    def constant(self) -> bool:
        """All scores are equal: the attack says nothing."""
        return len(self.thresholds) <= 2

    @cached_property
    def cross_fit(self) -> CrossFit:
        """The best threshold of each half, measured on the other."""
        chosen, tp, fp = np.zeros(HALVES), np.zeros(HALVES, np.int64), np.zeros(HALVES, np.int64)
        for half in range(HALVES):
            at, chosen[half] = peak(self.tp[half], self.fp[half], self.members[half], self.nonmembers[half])
            tp[half], fp[half] = self.tp[1 - half, at], self.fp[1 - half, at]
        best, _ = peak(self.tp_all, self.fp_all, self.n_members, self.n_nonmembers)
        sizes = self.members[::-1], self.nonmembers[::-1]
        return CrossFit(chosen, tp, fp, *sizes, int(self.tp[:, best].sum()), int(self.fp_all[best]), self.effective)

    @cached_property
    def placement(self) -> Placement:
        """AUC and DeLong variance, from the counts alone.

        Source: DeLong, DeLong and Clarke-Pearson 1988; a member's placement is the share of non-members below it,
        ties one half, and the other way round.
        """
        m, n = self.n_members, self.n_nonmembers
        twice_wins = sum(int(tp @ below) for tp, below, _, _ in self._placements())
        auc = twice_wins / (2 * m * n)  # integers: exact whatever the ties
        if m < 2 or n < 2:
            return Placement(auc, float("nan"))
        of_members = of_nonmembers = 0.0
        for tp, below, fp, above in self._placements():
            of_members += float(tp @ np.square(below / (2 * n) - auc))
            of_nonmembers += float(fp @ np.square(above / (2 * m) - auc))
        return Placement(auc, of_members / (m - 1) / m + of_nonmembers / (n - 1) / n)

    def _placements(self) -> Iterator[tuple[Counts, Counts, Counts, Counts]]:
        """By blocks of thresholds: members there, twice the non-members below; non-members there, twice those above.

        Ties count one half. Blocks, so that the few arrays stay in a core's cache.
        """
        for start in range(0, len(self.thresholds) - 1, _BLOCK):
            tp = self.tp[:, start : start + _BLOCK + 1].sum(axis=0, dtype=np.int64)
            fp = self.fp_all[start : start + _BLOCK + 1].astype(np.int64)
            step_tp, step_fp = np.diff(tp), np.diff(fp)
            yield step_tp, 2 * self.n_nonmembers - fp[1:] - fp[:-1], step_fp, tp[1:] + tp[:-1]

    def above_rank(self, rank: int | NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Members and non-members strictly above the (rank + 1)-th largest non-member score, for one rank or many.

        With `rank` >= the number of non-members: everyone.
        """
        at = np.searchsorted(self.fp_all, np.asarray(rank + 1, self.fp_all.dtype))  # else numpy converts all of it
        at = np.minimum(at, len(self.fp_all)) - 1
        return self.tp[:, at].sum(axis=0, dtype=np.int64), self.fp_all[at].astype(np.int64)


def peak(tp: Counts, fp: Counts, members: int, nonmembers: int) -> tuple[int, float]:
    """Index and height of the largest TPR - FPR; the highest threshold among equals. 0 rows on a side: (0, 0.).

    >>> peak(np.array([0, 8, 10]), np.array([0, 2, 10]), 10, 10)
    (1, 0.6)
    """
    best_at, best = 0, 0.0
    if members == 0 or nonmembers == 0:
        return best_at, best
    for start in range(0, len(tp), _BLOCK):
        height = tp[start : start + _BLOCK] * np.float64(nonmembers)
        height -= fp[start : start + _BLOCK] * np.float64(members)
        at = int(np.argmax(height))
        if height[at] > best:
            best_at, best = start + at, float(height[at])
    return best_at, best / (members * nonmembers)


# ---------------------------------------------------------------------------------------------------- exact


class Ranked(NamedTuple):
    """Scores as integers in the opposite order: the higher the score, the smaller the integer. NaN is lowest.

    keys: (n,) uint32. values: None where the keys are the float32's own bits, else the (u,) distinct scores,
    descending, that the keys index.
    """

    keys: NDArray[np.uint32]
    values: Floats | None

    def scores(self, keys: NDArray[np.uint32]) -> Floats:
        """(u + 1,) +inf and the scores that u keys stand for."""
        dtype: np.dtype[Any] = np.dtype(np.float32 if self.values is None else np.float64)
        scores = np.empty(len(keys) + 1, dtype)
        scores[0] = np.inf
        scores[1:] = _from_ordered_bits(~keys) if self.values is None else self.values[keys]
        return scores


def rank(scores: Floats) -> Ranked:
    """Integer keys of (n,) float scores, any float dtype.

    float32 keeps its own bits, made to order like integers (one pass); float64 that float32 cannot hold is replaced
    by its rank among the distinct scores (one sort). Equal scores have equal keys, 0.0 and -0.0 too; +inf counts as
    the largest finite number, since no score may reach the first threshold.
    """
    scores = np.asarray(scores)
    with np.errstate(over="ignore"):
        narrow = scores.astype(np.float32, copy=False)
    if scores.dtype == np.float64:
        with np.errstate(invalid="ignore"):
            if not np.array_equal(narrow, scores, equal_nan=True):
                clean = np.where(np.isnan(scores), -np.inf, np.minimum(scores, np.finfo(np.float64).max))
                distinct, inverse = np.unique(-clean, return_inverse=True)
                return Ranked(inverse.astype(np.uint32), -distinct)
    if not np.isfinite(narrow).all():
        narrow = np.where(np.isnan(narrow), np.float32(-np.inf), np.minimum(narrow, np.finfo(np.float32).max))
    return Ranked(~ordered_bits(narrow), None)


def ordered_bits(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """(n,) uint32 that sort as (n,) float32 do: negative numbers flipped, others above them."""
    bits = (scores + np.float32(0.0)).view(np.uint32)  # -0.0 + 0.0 = 0.0
    sign = (bits.view(np.int32) >> np.int32(31)).view(np.uint32)  # all ones where negative
    return bits ^ (sign | np.uint32(1 << 31))


def _from_ordered_bits(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Undo `ordered_bits`."""
    nonnegative = (bits.view(np.int32) >> np.int32(31)).view(np.uint32)  # all ones where not negative
    return (bits ^ (~nonnegative | np.uint32(1 << 31))).view(np.float32)


def tags(member: NDArray[np.bool_], halves: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """(n,) 0, 1 = a member of half 0, 1; 2, 3 = a non-member of half 0, 1."""
    return (~member).view(np.uint8) << np.uint8(1) | halves.astype(np.uint8)


def exact(scores: Floats, member: NDArray[np.bool_], halves: NDArray[np.integer[Any]], *, fitted: bool = False) -> Roc:
    """The Roc of all rows, every distinct score a threshold.

    Args:
        scores: (n,) float, higher = more member-like; NaN counts as the lowest.
        member: (n,) bool.
        halves: (n,) 0 or 1.
        fitted: see `Roc`.
    """
    codes = np.zeros(1, np.uint64)
    return next(exact_slices(rank(scores), tags(member, halves), codes, 1, fitted=fitted))


def exact_slices(
    ranked: Ranked,
    tag: NDArray[np.uint8],
    codes: NDArray[np.integer[Any]],
    slices: int,
    rows: NDArray[np.int64] | None = None,
    *,
    fitted: bool = False,
    effective: tuple[float, float] = (1.0, 1.0),
) -> Iterator[Roc]:
    """One Roc a slice, in the order of the codes, from one sort of all rows.

    Args:
        ranked: scores of the n rows.
        tag: (n,) of `tags`.
        codes: (p,) int slice numbers, -1 = in none; or (1,), the same for all.
        slices: number of slices.
        rows: (p,) int row numbers, where slices overlap; None: p = n.
        fitted, effective: see `Roc`.
    """
    keys, tag = (ranked.keys, tag) if rows is None else (ranked.keys[rows], tag[rows])
    sliced = slices > 1 or codes.min(initial=0) < 0
    packed = codes.astype(np.uint64) if sliced else keys.astype(np.uint64)
    if sliced:
        packed <<= np.uint64(32)  # code -1 sorts behind every slice
        packed |= keys
    packed <<= np.uint64(TAG_BITS)
    packed |= tag
    packed.sort()
    firsts = np.searchsorted(packed, np.arange(slices + 1, dtype=np.uint64) << np.uint64(_CODE_SHIFT))
    tag = packed.astype(np.uint8)
    tag &= np.uint8(3)
    packed >>= np.uint64(TAG_BITS)
    last = np.append(packed[1:] != packed[:-1], np.ones(min(len(packed), 1), bool))  # of each run of equal scores
    sorted_keys = packed.astype(np.uint32)
    del packed, keys
    dtype: np.dtype[Any] = np.dtype(np.int32 if len(tag) < np.iinfo(np.int32).max else np.int64)
    for start, stop in itertools.pairwise(firsts):
        ends = last[start:stop]
        counts = np.zeros((4, np.count_nonzero(ends) + 1), dtype)
        for value in range(4):
            np.compress(ends, np.cumsum(tag[start:stop] == value, dtype=dtype), out=counts[value, 1:])
        thresholds = ranked.scores(sorted_keys[start:stop][ends])
        totals = counts[:, -1].astype(np.int64)
        yield Roc(thresholds, counts[:2], counts[2:], totals[:2], totals[2:], fitted, effective)


# --------------------------------------------------------------------------------------------------- binned


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
            for start in range(0, len(counts), _SLICES):  # numpy copies what it adds at places
                some = slice(start, start + _SLICES)
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

    def roc(self, index: int = 0, *, fitted: bool = False, effective: tuple[float, float] = (1.0, 1.0)) -> Roc:
        """The Roc of one slice; fitted, effective: see `Roc`."""
        filled = np.flatnonzero(self.counts[index].any(axis=1))[::-1]
        running = np.zeros((4, len(filled) + 1), np.int64)
        np.cumsum(self.counts[index][filled].T, axis=1, out=running[:, 1:])
        lowest = (self.bins[filled].astype(np.uint64) << np.uint64(32 - self.bits)).astype(np.uint32)
        thresholds = Ranked(~lowest, None).scores(~lowest)
        thresholds[np.isnan(thresholds)] = -np.inf  # the lowest bin starts among the bit patterns of NaN
        totals = running[:, -1]
        return Roc(thresholds, running[:2], running[2:], totals[:2], totals[2:], fitted, effective)


def cells_of(scores: Floats, bits: int) -> NDArray[np.uint32]:
    """(n,) the bin of each score: the leading bits of the float32, in the scores' order; NaN in the lowest.

    >>> cells_of(np.array([-1.0, 0.0, 1.0]), 2).tolist()
    [1, 2, 2]
    """
    with np.errstate(over="ignore"):
        narrow = np.asarray(scores).astype(np.float32)
    if not np.isfinite(narrow).all():
        narrow = np.where(np.isnan(narrow), np.float32(-np.inf), np.minimum(narrow, np.finfo(np.float32).max))
    return np.asarray(ordered_bits(narrow) >> np.uint32(32 - bits))
