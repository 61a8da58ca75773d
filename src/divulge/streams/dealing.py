"""By what the rows of a stream are dealt to the two halves: persons, copies of a record, ids, contents or places.

In memory a row without an id is told from its equals by its occurrence. A stream cannot count those without remembering
every row, so what its rows are known by is settled once, on the sketch.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.copies import MOST_COPIES, are_copies, copy_hashes, may_be_copies
from divulge.evidence import Evidence
from divulge.folds import by_range
from divulge.hashes import Hashes, array_hashes, mix
from divulge.identity import HASHES, content_hashes, sided


class Block(NamedTuple):
    """Some rows of a stream that follow each other. name: of the file or block that they are of; first: their place."""

    rows: Evidence
    name: str
    first: int

    @property
    def places(self) -> Hashes:
        """(n,) uint64 of where each row stands.

        >>> rows = Evidence(np.array([True, False]), signals={"loss": np.zeros(2)})
        >>> bool(Block(rows, "a", 0).places[1] == Block(rows, "a", 1).places[0])
        True
        """
        return places_of(self.name, self.first, len(self.rows))


def places_of(name: str, first: int, count: int) -> Hashes:
    """(count,) uint64 of rows that follow each other.

    >>> bool(places_of("a", 1, 1)[0] == places_of("a", 0, 2)[1])
    True
    """
    return array_hashes(np.arange(first, first + count, dtype=np.uint64), zlib.crc32(name.encode()))


def placed(rows: Evidence, places: Hashes) -> Evidence:
    """The rows with their places as ids, where they have none."""
    return rows if rows.ids is not None else replace(rows, ids=places.astype(HASHES))


def unplaced(rows: Evidence) -> Evidence:
    """The rows as the user gave them.

    >>> rows = Evidence(np.array([True, False]), signals={"loss": np.zeros(2)})
    >>> unplaced(placed(rows, np.arange(2, dtype=np.uint64))).ids is None
    True
    """
    return replace(rows, ids=None) if rows.ids is not None and rows.ids.dtype == HASHES else rows


def told_apart(records: Hashes, rows: Evidence) -> Hashes:
    """(n,) hashes of all that rows hold, and of where they stand if that is what they are known by."""
    return records if rows.ids is None or rows.ids.dtype != HASHES else mix(records + rows.ids)


@dataclass(frozen=True, eq=False)
class Dealing:
    """By what rows are dealt.

    Attributes:
        by: "groups"; "copies", so that no fit meets the copy of a record that it does not see; "ids"; "contents", where
            no other row has them; or "places" (file and row number), where contents repeat and rows have no ids.
        heavy: (h,) rising `copy_hashes` that stand too often to be copies of a record; None unless by copies.

    >>> rows = Evidence(np.arange(8) < 4, signals={"loss": np.arange(8.0)})
    >>> sorted(set(Dealing("contents").halves(rows, content_hashes(rows), 0).tolist()))
    [0, 1]
    """

    by: str
    heavy: Hashes | None = None

    def known(self, block: Block) -> Evidence:
        """The block's rows, with their places as ids where they may be told apart by nothing else."""
        return placed(block.rows, block.places) if self.by in ("places", "copies") else block.rows

    def halves(self, rows: Evidence, contents: Hashes, seed: int) -> NDArray[np.uint8]:
        """(n,) 0 or 1: the half of each row, by its hash alone: the same whatever rows stand beside it.

        Where all of a stream's rows are in memory, `folds.halves` deals out the same to 65,536 rows a side and more;
        but for copies with ids, and rows known by their places.

        Args:
            rows: as `known` gives them.
            contents: their `content_hashes`.
            seed: another seed, other halves.
        """
        return by_range(array_hashes(self._keys(rows, contents), seed), 2)

    def _keys(self, rows: Evidence, contents: Hashes) -> NDArray[np.generic]:
        if self.by == "groups":
            assert rows.groups is not None
            return rows.groups
        if self.by == "contents":
            return sided(contents, rows.member)
        assert rows.ids is not None
        if self.by == "ids":
            return array_hashes(rows.ids)
        if self.by == "places":
            return mix(sided(contents, rows.member) + array_hashes(rows.ids))
        copied = copy_hashes(rows, contents)
        keys = sided(copied, rows.member)
        heavy = np.zeros(0, np.uint64) if self.heavy is None else self.heavy
        alone = ~may_be_copies(rows, np.arange(len(rows))) | np.isin(copied, heavy)
        keys[alone] = mix(keys[alone] + array_hashes(rows.ids[alone]))
        return keys


def dealing_of(sketch: Evidence) -> Dealing:
    """How the rows of a stream are dealt, by what its sketch holds.

    Args:
        sketch: some of the rows, `placed`.

    >>> few_values = Evidence(np.arange(8) < 4, signals={"loss": np.arange(8) % 2.0})
    >>> dealing_of(placed(few_values, np.arange(8, dtype=np.uint64))).by
    'places'
    """
    if sketch.groups is not None:
        return Dealing("groups")
    contents = content_hashes(sketch)
    copied = copy_hashes(sketch, contents)
    values, place, times = np.unique(copied, return_inverse=True, return_counts=True)
    members = np.bincount(place, sketch.member, len(values)).astype(np.int64)
    sure = np.bincount(place, ~may_be_copies(sketch, np.arange(len(sketch))), len(values)) > 0
    several = (times > 1) & (times <= MOST_COPIES) & ~sure
    if are_copies(members[several], (times - members)[several]):
        return Dealing("copies", values[times > MOST_COPIES])
    if unplaced(sketch).ids is not None:
        return Dealing("ids")
    return Dealing("places" if len(np.unique(contents)) < len(sketch) else "contents")
