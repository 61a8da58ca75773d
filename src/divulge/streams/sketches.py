"""Small summaries of a stream that add up: the same whatever the blocks, the files, the workers and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.hashes import Hashes

if TYPE_CHECKING:
    from divulge.evidence import Evidence

UNITS = 1 << 16
SQUARES_BITS = 14


@dataclass(frozen=True, eq=False)
class Sample:
    """A random sample of each side: the rows of the smallest hashes, whole records with all their fields.

    Attributes:
        rows: at most `size` members and `size` non-members, but for rows that agree in everything.
        hashes: (n,) of the rows, in rising order; of everything that a row holds.
        size: rows a side.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.arange(8) < 4, signals={"loss": np.arange(8.0)})
    >>> hashes, parts = np.arange(8, dtype=np.uint64), (slice(5), slice(5, 8))
    >>> two = [Sample.of(evidence.take(part), hashes[part], 2) for part in parts]
    >>> (two[0] + two[1]).rows.signals["loss"].tolist()
    [0.0, 1.0, 4.0, 5.0]
    """

    rows: Evidence
    hashes: Hashes
    size: int

    @classmethod
    def of(cls, evidence: Evidence, hashes: Hashes, size: int) -> Sample:
        """That of one block.

        Args:
            evidence: n records.
            hashes: (n,) uint64.
            size: rows a side to keep.
        """
        chosen = np.concatenate([_least(side, hashes, size) for side in _sides(evidence.member)])
        chosen = chosen[np.argsort(hashes[chosen], kind="stable")]
        return cls(evidence.take(chosen), hashes[chosen], size)

    def __add__(self, other: Sample) -> Sample:
        return Sample.together([self, other])

    @classmethod
    def together(cls, parts: Sequence[Sample]) -> Sample:
        """That of several; of many at once it is cheaper than one by one."""
        some = [part for part in parts if len(part.hashes)] or list(parts[:1])
        if len(some) == 1:
            return some[0]
        return cls.of(
            joined([part.rows for part in some]), np.concatenate([part.hashes for part in some]), some[0].size
        )

    @property
    def bounds(self) -> tuple[np.uint64, np.uint64]:
        """Hashes from which on members, non-members cannot come in any more."""
        ends = [self.hashes[side] for side in _sides(self.rows.member)]
        member, nonmember = (
            end[self.size - 1] if len(end) >= self.size else np.uint64(np.iinfo(np.uint64).max) for end in ends
        )
        return member, nonmember


def _sides(member: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.flatnonzero(member), np.flatnonzero(~member)


def _least(rows: NDArray[np.int64], hashes: Hashes, size: int) -> NDArray[np.int64]:
    """The rows of the `size` smallest hashes."""
    if len(rows) <= size:
        return rows
    return rows[np.argpartition(hashes[rows], size - 1)[:size]]


def joined(parts: Sequence[Evidence]) -> Evidence:
    """The records of several parts of one table, in order; they hold the same fields.

    >>> from divulge.evidence import Evidence
    >>> one = Evidence(np.array([True]), signals={"loss": np.array([-0.1])})
    >>> len(joined([one, one]))
    2
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    whole: dict[str, Any] = {}
    for field in fields(first):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            whole[field.name] = np.concatenate(values)
        elif isinstance(values[0], dict):
            whole[field.name] = {name: np.concatenate([value[name] for value in values]) for name in values[0]}
    return replace(first, **whole)


@dataclass(frozen=True, eq=False)
class Units:
    """How many rows some units (persons, or records) have: those of the smallest hashes, each with all its rows.

    A unit that is among the smallest of all was among the smallest of every part, so that its numbers are whole.

    Attributes:
        hashes: (u,) rising, at most `UNITS`.
        members, nonmembers: (u,) int64, rows of each.

    >>> hashes = np.array([3, 1, 3], np.uint64)
    >>> two = Units.of(hashes, np.array([True, True, False])) + Units.of(hashes[:1], np.array([True]))
    >>> two.members.tolist(), two.nonmembers.tolist()
    ([1, 2], [0, 1])
    """

    hashes: Hashes
    members: NDArray[np.int64]
    nonmembers: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: Hashes, member: NDArray[np.bool_]) -> Units:
        """Those of one block: (n,) hash of each row's unit, and its side."""
        return cls._counted(hashes, member.astype(np.int64), (~member).astype(np.int64))

    @classmethod
    def _counted(cls, hashes: Hashes, members: NDArray[np.int64], nonmembers: NDArray[np.int64]) -> Units:
        units, place = np.unique(hashes, return_inverse=True)
        sizes = (np.bincount(place, weights, len(units)).astype(np.int64)[:UNITS] for weights in (members, nonmembers))
        return cls(units[:UNITS], *sizes)

    def __add__(self, other: Units) -> Units:
        return Units.together([self, other])

    @classmethod
    def together(cls, parts: Sequence[Units]) -> Units:
        """Those of several; of many at once it is cheaper than one by one."""
        return cls._counted(
            np.concatenate([part.hashes for part in parts]),
            np.concatenate([part.members for part in parts]),
            np.concatenate([part.nonmembers for part in parts]),
        )

    @property
    def bound(self) -> np.uint64:
        """The hash from which on none can come in any more."""
        full = len(self.hashes) == UNITS
        return self.hashes[-1] if full else np.uint64(np.iinfo(np.uint64).max)

    @property
    def complete(self) -> bool:
        """Whether these are all units that there are."""
        return len(self.hashes) < UNITS

    @property
    def seen(self) -> float:
        """About the share of all units that is here, as a fraction: how far the smallest hashes go."""
        return float(self.bound) / float(np.iinfo(np.uint64).max) if len(self.hashes) == UNITS else 1.0

    def effective(self) -> tuple[float, float]:
        """How many independent records each member, each non-member counts as; see `folds.effective_shares`."""
        shares = (
            float(sizes.sum() / np.square(sizes.astype(np.float64)).sum()) if sizes.any() else 1.0
            for sizes in (self.members, self.nonmembers)
        )
        return next(shares), next(shares)

    def shared(self) -> float:
        """The share of the non-members whose unit also has members."""
        total = int(self.nonmembers.sum())
        return int(self.nonmembers[self.members > 0].sum()) / total if total else 0.0


@dataclass(frozen=True, eq=False)
class Squares:
    """The sum of squared sizes of all units, within about 1 % (95 %: 2 %): a person with many rows is not missed.

    Each unit adds its rows to one of 16,384 sums, or takes them away, as its hash says; the squares of the sums are
    expected to add up to the squares of the sizes.

    Attributes:
        sums: (2, 16384) int64, of members and of non-members.

    Source: Charikar, Chen and Farach-Colton 2002, Finding frequent items in data streams; Thorup and Zhang 2004.

    >>> from divulge.hashes import array_hashes
    >>> hashes = array_hashes(np.append(np.zeros(500), np.arange(1, 501)))  # one person has half of 1,000 rows
    >>> found = Squares.of(hashes, np.ones(1000, bool))
    >>> abs(found.of_side(0) / (500**2 + 500) - 1) < 0.02
    True
    """

    sums: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: Hashes, member: NDArray[np.bool_]) -> Squares:
        """Those of one block: (n,) hash of each row's unit, and its side."""
        at = (hashes >> np.uint64(64 - SQUARES_BITS)).astype(np.int64)
        at[~member] += 1 << SQUARES_BITS
        signs = 1.0 - 2.0 * (hashes & np.uint64(1))
        return cls(np.bincount(at, signs, 2 << SQUARES_BITS).astype(np.int64).reshape(2, -1))

    @classmethod
    def together(cls, parts: Sequence[Squares]) -> Squares:
        """That of several."""
        return cls(np.sum([part.sums for part in parts], axis=0))

    def of_side(self, side: int) -> float:
        """The sum of squared sizes of the members' units, 0, or the non-members', 1."""
        return float(np.square(self.sums[side].astype(np.float64)).sum())
