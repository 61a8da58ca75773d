"""What is counted of a stream's records, a block at a time: it adds up, in any order, to the same counts.

A `Plan` says what is counted; `count` makes the `Tally` of a block, and tallies are added with `+`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import NamedAttack
from divulge.bins import Histogram, cells_of
from divulge.copies import copy_hashes, may_be_copies
from divulge.errors import InputError
from divulge.hashes import Hashes, array_hashes
from divulge.identity import content_hashes, digest_sums, record_hashes
from divulge.roc import tags
from divulge.slices import Slicer, checked
from divulge.streams.dealing import Block, Dealing, told_apart
from divulge.streams.sketches import Sample, Squares, Units

if TYPE_CHECKING:
    from divulge.evidence import Evidence

BITS = 16  # of everyone's bins
SLICE_BITS = 12
NO_BOUND = np.uint64(np.iinfo(np.uint64).max)
MOST_CELLS = (
    1 << 24
)  # counts that the slices of a tally may hold: 134 MB, and several times that while tallies are added

Summary = TypeVar("Summary", Units, Squares)
Score = Callable[["Evidence", NDArray[np.uint8]], NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Plan:
    """What is counted of every block.

    Attributes:
        attacks: those that run.
        scores: by attack's name, a function of a block, with the signals that it needs, and of its rows' halves.
        slicers: with cut points of their own, so that they cut every block alike.
        prepared: gives a block the signals that attacks and slicers need.
        dealing: by what rows are dealt to the halves.
        centres: by attack's name, where its bins are narrowest; see `roc.cells_of`.
        seed: of the audit.
        sample: rows a side that are kept.
    """

    attacks: tuple[NamedAttack, ...]
    scores: Mapping[str, Score]
    slicers: tuple[Slicer, ...]
    prepared: Callable[[Evidence], Evidence]
    dealing: Dealing
    centres: Mapping[str, float]
    seed: int
    sample: int


class Slices(NamedTuple):
    """Counts by slice of one partition.

    name: of the partition. labels: rising. counts: by attack, a histogram with a slice a label.
    overlapping: whether a row may be in several.
    """

    name: str
    labels: tuple[str, ...]
    counts: dict[str, Histogram]
    overlapping: bool

    def plus(self, other: Slices) -> Slices:
        """Of both."""
        if self.labels == other.labels:
            counts = {name: counts + other.counts[name] for name, counts in self.counts.items()}
            return self._replace(counts=counts, overlapping=self.overlapping or other.overlapping)
        labels = tuple(sorted({*self.labels, *other.labels}))
        number = {label: at for at, label in enumerate(labels)}
        both = []
        for part in (self, other):
            places = np.array([number[label] for label in part.labels], np.int64)
            both.append({name: counts.gathered(places, len(labels)) for name, counts in part.counts.items()})
        counts = {name: both[0][name] + both[1][name] for name in both[0]}
        return Slices(self.name, labels, counts, self.overlapping or other.overlapping)


class Bounds(NamedTuple):
    """Hashes from which on nothing can come into the sketches of what is counted with these rows; they only fall.

    members, nonmembers: of the sample. copies, ids, groups: of the units.
    """

    members: np.uint64 = NO_BOUND
    nonmembers: np.uint64 = NO_BOUND
    copies: np.uint64 = NO_BOUND
    ids: np.uint64 = NO_BOUND
    groups: np.uint64 = NO_BOUND

    def lower(self, other: Bounds) -> Bounds:
        """The lower of each."""
        return Bounds(*map(min, self, other))


NO_BOUNDS = Bounds()


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of some blocks.

    Attributes:
        rows: (2,) int64, members and non-members.
        right: (2,) int64 of them that the model gives their label; None where that is not known.
        unscored: by attack, (2,) int64 that it could not score.
        digest: (2,) uint64, of `folds.digest_sums`.
        everyone: by attack, the histogram of all rows.
        slices: one a slicer, in their order.
        sample: of whole records.
        copies: how many rows have equal contents (and features); those apart that equal others by saturation.
        ids: how many rows ids have; None where there are none.
        groups: how many rows groups have; None where there are none.
        sizes: the groups' squared sizes, added up; None where there are none.
    """

    rows: NDArray[np.int64]
    right: NDArray[np.int64] | None
    unscored: dict[str, NDArray[np.int64]]
    digest: Hashes
    everyone: dict[str, Histogram]
    slices: tuple[Slices, ...]
    sample: Sample
    copies: Units
    ids: Units | None
    groups: Units | None
    sizes: Squares | None

    @cached_property
    def bounds(self) -> Bounds:
        """What need not be looked at of rows that are counted with these."""
        units = (NO_BOUND if one is None else one.bound for one in (self.copies, self.ids, self.groups))
        return Bounds(*self.sample.bounds, *units)

    @cached_property
    def size(self) -> int:
        """About how many numbers it holds: what it costs to add it to another, and to keep it."""
        units = sum(3 * len(one.hashes) for one in (self.copies, self.ids, self.groups) if one is not None)
        counts = [*self.everyone.values(), *(one for part in self.slices for one in part.counts.values())]
        return units + len(self.sample.hashes) + sum(one.counts.size for one in counts)

    def __add__(self, other: Tally) -> Tally:
        return Tally.together([self, other])

    @classmethod
    def together(cls, parts: Sequence[Tally]) -> Tally:
        """That of several; of many at once it is cheaper than one by one.

        Raises:
            InputError: DV053, slices that would hold more than `MOST_CELLS` counts.
        """
        first, rest = parts[0], parts[1:]
        if not rest:
            return first
        _check_cells(parts)
        rights = [part.right for part in parts if part.right is not None]
        return cls(
            np.sum([part.rows for part in parts], axis=0),
            np.sum(rights, axis=0) if len(rights) == len(parts) else None,
            {name: np.sum([part.unscored[name] for part in parts], axis=0) for name in first.unscored},
            np.sum([part.digest for part in parts], axis=0, dtype=np.uint64),
            {name: Histogram.together([part.everyone[name] for part in parts]) for name in first.everyone},
            tuple(reduce(Slices.plus, of_slicer) for of_slicer in zip(*(part.slices for part in parts), strict=True)),
            Sample.together([part.sample for part in parts]),
            Units.together([part.copies for part in parts]),
            _all([part.ids for part in parts]),
            _all([part.groups for part in parts]),
            _all([part.sizes for part in parts]),
        )


def _all(parts: Sequence[Summary | None]) -> Summary | None:
    given = [part for part in parts if part is not None]
    return type(given[0]).together(given) if len(given) == len(parts) else None


def _check_cells(parts: Sequence[Tally]) -> None:
    """Whether the slices of several tallies, all partitions together, are few enough to be added up."""
    cells: dict[str, int] = {}
    labels: dict[str, int] = {}
    for of_slicer in zip(*(part.slices for part in parts), strict=True):
        name = of_slicer[0].name
        labels[name] = len({label for part in of_slicer for label in part.labels})
        bins = (max(len(part.counts[attack].bins) for part in of_slicer) for attack in of_slicer[0].counts)
        cells[name] = 4 * labels[name] * sum(bins)
    if sum(cells.values()) > MOST_CELLS:
        most = max(cells, key=cells.__getitem__)
        raise InputError(
            "DV053",
            f"slicing by {most} makes {labels[most]:,} slices and more, too many for a stream: all slices would hold "
            f"{sum(cells.values()):,} counts, of at most {MOST_CELLS:,}. Slice by a column of fewer values, by fewer "
            "columns, or run fewer attacks",
        )


class Total:
    """Tallies added up as they come: as soon as those that wait hold as much as what they are added to.

    So a number is added few times, however many tallies come, and what waits takes no more room than the sum.

    Attributes:
        tally: of those that are added up; None of none.
        of: what came with these, by name.
    """

    def __init__(self, tally: Tally | None = None, of: Mapping[str, Any] | None = None) -> None:
        self.tally, self.of = tally, dict(of or {})
        self._waiting: list[tuple[Tally, Mapping[str, Any]]] = []
        self._size = 0  # of those that wait

    @property
    def bounds(self) -> Bounds:
        """What need not be looked at of rows that are counted with these; asked from any thread."""
        tally = self.tally
        return NO_BOUNDS if tally is None else tally.bounds

    def add(self, tally: Tally, of: Mapping[str, Any] | None = None) -> None:
        """One more; it is in with what it is of, or neither is, wherever Ctrl-C comes."""
        self._waiting.append((tally, of or {}))
        self._size += tally.size
        if self.tally is None or self._size >= self.tally.size:
            self.settled()

    def settled(self) -> Tally | None:
        """The sum, with those that wait; None of none."""
        if self._waiting:
            parts = [*([] if self.tally is None else [self.tally]), *(one for one, _ in self._waiting)]
            tally = parts[0].together(parts)
            of = {**self.of}
            for _, more in self._waiting:
                of |= more
            self.tally, self.of, self._waiting, self._size = tally, of, [], 0  # no Ctrl-C comes between
        return self.tally


def count(plan: Plan, block: Block, bounds: Bounds = NO_BOUNDS) -> Tally:
    """The tally of a block.

    Args:
        plan: what to count.
        block: n records, of either side or both.
        bounds: of a tally that it will be added to.
    """
    rows, known = block.rows, plan.dealing.known(block)
    contents = content_hashes(rows)
    halves = plan.dealing.halves(known, contents, plan.seed)
    tag, member = tags(rows.member, halves), rows.member
    whole = record_hashes(rows, contents)
    evidence = plan.prepared(rows)
    everyone, unscored, scores = {}, {}, {}
    for attack in plan.attacks:
        found = plan.scores[attack.name](evidence, halves)
        unscored[attack.name] = _of_sides(np.isnan(found), member)
        scores[attack.name] = cells_of(found, BITS, plan.centres[attack.name])
        everyone[attack.name] = Histogram.counted(scores[attack.name], tag, bits=BITS)
    slices = tuple(_sliced(slicer, evidence, scores, tag) for slicer in plan.slicers)
    correct = evidence.signals.get("correct")
    return Tally(
        _of_sides(np.ones(len(member), bool), member),
        None if correct is None else _of_sides(correct >= 1, member),
        unscored,
        digest_sums(whole),
        everyone,
        slices,
        _sampled(known, told_apart(whole, known), plan.sample, bounds),
        _copied(rows, contents, bounds.copies),
        _units(rows.ids, member, bounds.ids),
        _units(rows.groups, member, bounds.groups),
        None if rows.groups is None else Squares.of(array_hashes(rows.groups), member),
    )


def added(plan: Plan, blocks: Iterable[Block], bounds: Bounds = NO_BOUNDS) -> Tally | None:
    """The tally of some blocks; None of none. The arguments are those of `count`."""
    total = Total()
    for block in blocks:
        total.add(count(plan, block, bounds.lower(total.bounds)))
    return total.settled()


def _of_sides(rows: NDArray[np.bool_], member: NDArray[np.bool_]) -> NDArray[np.int64]:
    members = int((rows & member).sum())
    return np.array([members, int(rows.sum()) - members])


def _sampled(block: Evidence, hashes: Hashes, size: int, bounds: Bounds) -> Sample:
    rows = np.flatnonzero(hashes < max(bounds.members, bounds.nonmembers))
    rows = rows[hashes[rows] < np.where(block.member[rows], bounds.members, bounds.nonmembers)]
    return Sample.of(block.take(rows), hashes[rows], size)


def _units(keys: NDArray[Any] | None, member: NDArray[np.bool_], bound: np.uint64) -> Units | None:
    return None if keys is None else _among(array_hashes(keys), member, bound)


def _copied(block: Evidence, contents: Hashes, bound: np.uint64) -> Units:
    hashes = copy_hashes(block, contents)
    rows = np.flatnonzero(hashes <= bound)
    rows = rows[may_be_copies(block, rows)]
    return Units.of(hashes[rows], block.member[rows])


def _among(hashes: Hashes, member: NDArray[np.bool_], bound: np.uint64) -> Units:
    rows = hashes <= bound
    return Units.of(hashes[rows], member[rows])


def _sliced(
    slicer: Slicer, evidence: Evidence, cells: Mapping[str, NDArray[np.uint32]], tag: NDArray[np.uint8]
) -> Slices:
    """Counts by slice; bins of a slice are those of everyone, sixteen in one."""
    part = checked(slicer(evidence), len(evidence))
    order = sorted(range(len(part.labels)), key=lambda at: part.labels[at])
    labels = tuple(part.labels[at] for at in order)
    places = np.empty(len(labels) + 1, np.int64)
    places[order], places[-1] = np.arange(len(labels)), -1  # code -1, in none, stays
    codes = places[part.codes]
    counts = {}
    for name, of_all in cells.items():
        coarse = of_all >> np.uint32(BITS - SLICE_BITS)
        if part.rows is not None:
            counts[name] = Histogram.counted(coarse[part.rows], tag[part.rows], codes, len(labels), bits=SLICE_BITS)
        else:
            counts[name] = Histogram.counted(coarse, tag, codes, len(labels), bits=SLICE_BITS)
    return Slices(part.name, labels, counts, part.rows is not None)
