"""Slices: partitions of the records, so that one grouped sort measures all slices of a partition at once.

    Slicer = Callable[[Evidence], Partition]

A slicer is any such function. `named` makes one of a text: "class", "correct", a column ("age_band"; numbers in
quarters, or "age/10"), a signal's quantiles ("loss/10"), or a cross of those ("class*age_band").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import signals
from divulge.doors.arrays import distinct
from divulge.errors import InputError, Unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

EVERYONE = "everyone"
MIN_N = 50  # rows a side below which a slice is merged into the rest
MAX_VALUES = 20  # a numeric column with more distinct values is binned
MAX_SLICES = 100_000
MAX_BINS = 1_000
MISSING = "(missing)"
REST = "(rest)"
BELOW = "below "  # begins the name of the lowest slice of a column of which not all values are known


class Partition(NamedTuple):
    """Which slice each row belongs to.

    name: what it is by. codes: (p,) int32 slice numbers, -1 = in none. labels: a name a slice, "class=3". rows: (p,)
    row numbers where slices overlap, a (row, code) pair a membership; None: p = n, in order.

    >>> Partition("class", np.array([0, 1, 1], np.int32), ("class=a", "class=b")).labels[1]
    'class=b'
    """

    name: str
    codes: NDArray[np.int32]
    labels: tuple[str, ...]
    rows: NDArray[np.int64] | None = None


Slicer = Callable[["Evidence"], Partition]


def by_class(evidence: Evidence) -> Partition:
    """One slice a label; multi-label records are in each of theirs, so that slices overlap.

    >>> from divulge.evidence import Evidence
    >>> len(by_class(Evidence(member=np.array([True, False]), labels=np.array([0, 2]))).labels)
    3
    """
    labels = evidence.labels
    if labels is None or labels.dtype.kind == "f":
        raise Unavailable("slicing by class needs class labels, and none were given")
    if labels.ndim == 2:
        rows, codes = np.nonzero(labels)
        return Partition("class", codes.astype(np.int32), _class_labels(evidence, labels.shape[1]), rows)
    return Partition("class", labels.astype(np.int32), _class_labels(evidence, int(labels.max()) + 1))


def _class_labels(evidence: Evidence, count: int) -> tuple[str, ...]:
    names = evidence.classes if evidence.classes is not None else range(count)
    return tuple(f"class={name}" for name in names)


def by_correctness(evidence: Evidence) -> Partition:
    """Rightly and wrongly classified records; multi-label: right in every label.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"correct": np.array([1., 0.])})
    >>> by_correctness(evidence).codes.tolist()
    [1, 0]
    """
    right = signals.signal(evidence, "correct") >= 1
    return Partition("correct", right.astype(np.int32), ("correct=no", "correct=yes"))


@dataclass(frozen=True)
class _Quantiles:
    """What `by_quantile` makes."""

    signal: str
    cuts: tuple[float, ...]

    def __call__(self, evidence: Evidence) -> Partition:
        return self.settled(evidence)(evidence)

    def settled(self, evidence: Evidence) -> _Between:
        """The same with the cut points that these records have."""
        ends = [f"{100 * cut:g}" for cut in (0.0, *self.cuts, 1.0)]
        labels = tuple(f"{self.signal}={low}-{high}%" for low, high in pairwise(ends))
        edges = _edges(signals.signal(evidence, self.signal), self.cuts)
        return _Between(self.signal, False, tuple(edges.tolist()), labels)


@dataclass(frozen=True)
class _Between:
    """Slices of a signal, or of a numeric column, between fixed edges; what is missing is in none, or in its own."""

    name: str
    is_column: bool
    edges: tuple[float, ...]
    labels: tuple[str, ...]

    def __call__(self, evidence: Evidence) -> Partition:
        if not self.is_column:
            return Partition(self.name, _between(signals.signal(evidence, self.name), self.edges), self.labels)
        codes, labels = _between(np.asarray(evidence.columns[self.name]), self.edges), self.labels
        if (codes < 0).any():
            codes[codes < 0] = len(labels)
            labels = (*labels, f"{self.name}={MISSING}")
        return Partition(self.name, codes, labels)


def by_quantile(signal: str = "loss", quantiles: int | Sequence[float] = 10) -> Slicer:
    """Slices between quantiles of a signal over all records; the first holds the least member-like.

    Args:
        signal: a signal's name.
        quantiles: how many equal slices, or the inner cut points (fractions, rising).

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False] * 4), signals={"loss": np.arange(8.)})
    >>> by_quantile("loss", 2)(evidence).codes.tolist()
    [0, 0, 0, 0, 1, 1, 1, 1]
    """
    return _Quantiles(signal, _cuts(quantiles))


def settled(slicer: Slicer, evidence: Evidence) -> Slicer:
    """A slicer that cuts any block of records where it would cut these; slices by value know no cut points.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False] * 4), signals={"loss": np.arange(8.)})
    >>> settled(by_quantile("loss", 2), evidence)(evidence.take(slice(3, 5))).codes.tolist()
    [0, 1]
    """
    if isinstance(slicer, _Quantiles | _Column | _Crossed):
        return slicer.settled(evidence)
    return slicer


def _cuts(quantiles: int | Sequence[float]) -> tuple[float, ...]:
    if isinstance(quantiles, int):
        if quantiles < 2:
            raise InputError("DV053", f"expected at least 2 quantiles, got {quantiles}")
        return tuple(i / quantiles for i in range(1, quantiles))
    cuts = tuple(float(cut) for cut in quantiles)
    if not cuts or any(not 0 < cut < 1 for cut in cuts) or any(a >= b for a, b in pairwise(cuts)):
        raise InputError("DV053", f"expected rising quantiles between 0 and 1, got {list(quantiles)}")
    return cuts


def _edges(values: NDArray[Any], cuts: tuple[float, ...]) -> NDArray[Any]:
    """The values at the cuts; NaN aside."""
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    ranks = np.ceil(np.array(cuts) * len(known) - 1e-9).astype(np.int64).clip(0, max(len(known) - 1, 0))
    return np.sort(known)[ranks] if len(known) else np.zeros(len(cuts))  # many quantiles: a sort beats a selection


def _between(values: NDArray[Any], edges: Sequence[float]) -> NDArray[np.int32]:
    """(n,) codes by the edges, -1 for NaN; equal values are never parted."""
    codes = np.zeros(len(values), np.int32)
    for edge in edges:  # a pass an edge beats a binary search a row
        codes += values >= edge
    if values.dtype.kind == "f":
        codes[np.isnan(values)] = -1
    return codes


@dataclass(frozen=True)
class _Column:
    """What `by_column` makes. cut: whether a numeric one is cut at its quantiles; None: where it has many values."""

    name: str
    bins: int | None
    cut: bool | None = None

    def __call__(self, evidence: Evidence) -> Partition:
        name, values = self.name, self._values(evidence)
        if values.dtype.kind in "iuf":
            found = np.unique(values[~np.isnan(values)] if values.dtype.kind == "f" else values)
            if len(found) > MAX_VALUES and self.cut is not False:
                return self._between(values)(evidence)
            codes = np.searchsorted(found, values).astype(np.int32)
            texts = [_numeral(value) for value in found]
            if values.dtype.kind == "f" and np.isnan(values).any():
                codes[np.isnan(values)] = len(texts)
                texts.append(MISSING)
        else:
            found, place = distinct(values)
            if self.bins is not None and values.dtype.kind != "b":
                raise InputError(
                    "DV053", f"the column {name!r} holds text: it has no {self.bins} bins, only its values"
                )
            codes, texts = place.astype(np.int32), [_word(str(value)) for value in found]
        if len(texts) > MAX_SLICES:
            raise InputError("DV053", f"the column {name!r} has {len(texts):,} distinct values: too many to slice by")
        return Partition(name, codes, tuple(f"{name}={text}" for text in texts))

    def settled(self, evidence: Evidence) -> _Column | _Between:
        """The same with the cut points that these records have; by value where they have few."""
        values = self._values(evidence)
        if values.dtype.kind in "iuf" and len(np.unique(values[values == values])) > MAX_VALUES:
            return self._between(values, ends=False)
        return _Column(self.name, self.bins, cut=False)

    def _values(self, evidence: Evidence) -> NDArray[Any]:
        if self.name not in evidence.columns:
            raise InputError("DV053", _unknown(self.name, evidence))
        return np.asarray(evidence.columns[self.name])

    def _between(self, values: NDArray[Any], *, ends: bool = True) -> _Between:
        """ends: whether these are all records, so that the outer slices end at their least and greatest."""
        edges = np.unique(_edges(values, _cuts(self.bins or 4)))  # once, where many records have one value
        bounds = [_numeral(edge) for edge in (np.nanmin(values), *edges, np.nanmax(values))]
        texts = [f"{low} to {high}" for low, high in pairwise(bounds)]
        if not ends:
            texts[0], texts[-1] = f"{BELOW}{bounds[1]}", f"{bounds[-2]} up"
        return _Between(self.name, True, tuple(edges.tolist()), tuple(f"{self.name}={text}" for text in texts))


def by_column(name: str, *, bins: int | None = None) -> Slicer:
    """One slice a value of a column; a numeric column of over 20 values is cut at its quantiles.

    Args:
        name: one of the evidence's columns.
        bins: quantile bins of a numeric column of many values; default 4.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), columns={"sex": np.array(["f", "m"])})
    >>> by_column("sex")(evidence).labels
    ('sex=f', 'sex=m')
    """
    return _Column(name, bins)


def _numeral(value: np.generic) -> str:
    """The shortest text that is this number and no other of its type."""
    return str(value).removesuffix(".0")


def _word(text: str) -> str:
    """A column's text as a slice's name; one that reads like a name of ours is quoted."""
    return f'"{text}"' if text in (MISSING, REST) else text or MISSING


@dataclass(frozen=True)
class _Crossed:
    """What `crossed` makes."""

    slicers: tuple[Slicer, ...]

    def __call__(self, evidence: Evidence) -> Partition:
        parts = [slicer(evidence) for slicer in self.slicers]
        if any(part.rows is not None for part in parts):
            raise InputError("DV053", "overlapping slices (multi-label classes) cannot be crossed")
        inside = np.all([part.codes >= 0 for part in parts], axis=0)
        codes, labels = np.zeros(int(inside.sum()), np.int64), [""]
        for part in parts:  # one at a time: the product of all their sizes might not fit a number
            found, codes = np.unique(codes * len(part.labels) + part.codes[inside], return_inverse=True)
            if len(found) > MAX_SLICES:
                raise InputError("DV053", f"the cross has {len(found):,} slices: too many to measure")
            pairs = [divmod(number, len(part.labels)) for number in found.tolist()]
            labels = [f"{labels[left]} & {part.labels[right]}".removeprefix(" & ") for left, right in pairs]
        all_codes = np.full(len(evidence), -1, np.int32)
        all_codes[inside] = codes
        return Partition(" & ".join(part.name for part in parts), all_codes, tuple(labels))

    def settled(self, evidence: Evidence) -> _Crossed:
        """The same with the cut points that these records have."""
        return _Crossed(tuple(settled(slicer, evidence) for slicer in self.slicers))


def crossed(*slicers: Slicer) -> Slicer:
    """Every combination of two or more partitions that some record has: "class=3 & sex=f".

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), labels=np.array([0, 1]),
    ...                     columns={"sex": np.array(["f", "m"])})
    >>> crossed(by_class, by_column("sex"))(evidence).labels
    ('class=0 & sex=f', 'class=1 & sex=m')
    """
    return _Crossed(slicers)


def named(slicer: str | Slicer, evidence: Evidence) -> Slicer:
    """A slicer from its text (see the module), or the user's own function.

    Raises:
        InputError: DV053, nothing of that name.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), columns={"age": np.array([30., 60.])})
    >>> named("age", evidence)(evidence).codes.tolist()
    [0, 1]
    """
    if not isinstance(slicer, str):
        return slicer
    if slicer in evidence.columns:
        return by_column(slicer)
    if "*" in slicer:
        return crossed(*(named(part.strip(), evidence) for part in slicer.split("*")))
    name, slash, count = slicer.partition("/")
    if slash and not (count.isdecimal() and 2 <= int(count) <= MAX_BINS):
        raise InputError("DV053", f"expected a number of bins from 2 to {MAX_BINS} after {name!r}/, got {count!r}")
    if name in evidence.columns:
        return by_column(name, bins=int(count))
    if name == "class" and not slash:
        return by_class
    if name == "correct" and not slash:
        return by_correctness
    if name in evidence.signals or name in signals.NAMES:
        return by_quantile(name, int(count) if slash else 10)
    raise InputError("DV053", _unknown(name, evidence))


def _unknown(name: str, evidence: Evidence) -> str:
    known = list(dict.fromkeys(["class", "correct", *evidence.columns, *evidence.signals, *signals.NAMES]))
    close = get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"there is nothing called {name[:80]!r} to slice by; {hint}known here: {', '.join(known)}"


def checked(partition: Partition, rows: int) -> Partition:
    """A partition of so many rows, as a slicer must give it.

    Raises:
        InputError: DV053, something else.

    >>> len(checked(Partition("x", np.array([0, -1], np.int32), ("x=a",)), 2).codes)
    2
    """
    wanted = f"a Partition(name, ({rows},) whole codes from -1 to k - 1, k different labels)"
    if not isinstance(partition, Partition) or not isinstance(partition.codes, np.ndarray):
        raise InputError("DV053", f"a slicer gave {type(partition).__name__}; expected {wanted}")
    codes, labels = partition.codes, partition.labels
    size = rows if partition.rows is None else len(partition.rows)
    if codes.dtype.kind not in "iu" or codes.shape != (size,):
        raise InputError("DV053", f"a slicer gave {codes.dtype} codes of shape {codes.shape}; expected {wanted}")
    if int(codes.min(initial=-1)) < -1 or int(codes.max(initial=-1)) >= len(labels):
        raise InputError("DV053", f"a slicer gave codes from {codes.min()} to {codes.max()}; expected {wanted}")
    if len(set(labels)) < len(labels) or EVERYONE in labels:
        raise InputError("DV053", f"a slicer gave a name twice, or {EVERYONE!r}; expected {wanted}")
    return partition._replace(codes=codes.astype(np.int32, copy=False))


class Merged(NamedTuple):
    """A partition whose small slices are one, "(rest)".

    partition: as `Partition`. members, nonmembers: (s,) int, rows a slice. merged: the labels in the rest.
    measured: (s,) bool, False for a rest that is itself too small.
    """

    partition: Partition
    members: NDArray[np.int64]
    nonmembers: NDArray[np.int64]
    merged: tuple[str, ...]
    measured: NDArray[np.bool_]


def merge_small(partition: Partition, member: NDArray[np.bool_], min_n: int = MIN_N) -> Merged:
    """Merge the slices with fewer than `min_n` members or non-members; drop the empty ones.

    Args:
        partition: of n rows.
        member: (n,) bool.
        min_n: rows a side that a slice needs.

    >>> codes = np.array([0, 0, 1, 1, 2, 2], np.int32)
    >>> small = merge_small(Partition("x", codes, ("x=a", "x=b", "x=c")), np.array([1, 1, 1, 0, 0, 1], bool), 1)
    >>> small.partition.labels, small.merged
    (('x=b', 'x=c', 'x=(rest)'), ('x=a',))
    """
    side = member if partition.rows is None else member[partition.rows]
    count = len(partition.labels)
    inside = partition.codes >= 0
    members = np.bincount(partition.codes[side & inside], minlength=count)
    nonmembers = np.bincount(partition.codes[~side & inside], minlength=count)
    small = ((members < min_n) | (nonmembers < min_n)) & (members + nonmembers > 0)
    kept = np.flatnonzero((members >= min_n) & (nonmembers >= min_n))
    new = np.full(count + 1, -1, np.int32)
    new[kept] = np.arange(len(kept))
    labels = [partition.labels[i] for i in kept]
    if small.any():
        new[np.flatnonzero(small)] = len(kept)
        labels.append(f"{partition.name}={REST}")
    codes, rows = new[partition.codes], partition.rows
    if rows is not None and small.any():
        rows, codes = _once(rows, codes, len(kept))
        side = member[rows]
    members = np.bincount(codes[side & (codes >= 0)], minlength=len(labels))
    nonmembers = np.bincount(codes[~side & (codes >= 0)], minlength=len(labels))
    merged = tuple(partition.labels[i] for i in np.flatnonzero(small))
    measured = (members >= min_n) & (nonmembers >= min_n)
    return Merged(Partition(partition.name, codes, tuple(labels), rows), members, nonmembers, merged, measured)


def _once(rows: NDArray[np.int64], codes: NDArray[np.int32], rest: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Overlapping slices: a row that was in two merged slices is in the rest once."""
    in_rest = codes == rest
    first = np.unique(rows[in_rest])
    return (
        np.concatenate((rows[~in_rest], first)),
        np.concatenate((codes[~in_rest], np.full(len(first), rest, np.int32))),
    )
