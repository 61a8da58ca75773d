"""Which fold or half a row belongs to: a function of what the row is, never of where it stands.

It follows from the row's number (`divulge.identity`): the same under any order, file or worker, and a group stays
whole. Folds are stratified by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.hashes import Hashes, array_hashes
from divulge.identity import row_hashes

if TYPE_CHECKING:
    from divulge.evidence import Evidence

EXACT_BELOW = 1 << 16
"""Units a side up to which folds are balanced to within one. Above, a row's hash alone decides (and a stream needs no
second pass): the sizes of two halves then differ by about 1 / sqrt(n), under 0.4 %."""


def halves(evidence: Evidence, seed: int) -> NDArray[np.uint8]:
    """(n,) 0 or 1: the half of each row on which thresholds are chosen or measured.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.arange(8) < 4, ids=np.arange(8))
    >>> [int(half) for half in np.bincount(halves(evidence, 0)[:4])]
    [2, 2]
    """
    return folds(evidence, 2, seed)


def folds(evidence: Evidence, k: int, seed: int) -> NDArray[np.uint8]:
    """(n,) fold numbers 0..k-1, groups whole, each side spread evenly.

    Args:
        evidence: n records.
        k: 2 to 255 folds.
        seed: another seed, another split.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.arange(20) < 10, ids=np.arange(20))
    >>> [int(size) for size in np.bincount(folds(evidence, 5, 0)[10:])]
    [2, 2, 2, 2, 2]
    """
    hashes = row_hashes(evidence, seed)
    if evidence.groups is None:
        return _spread(hashes, evidence.member.astype(np.uint8), k)
    groups, inverse = np.unique(hashes, return_inverse=True)
    members = np.bincount(inverse, weights=evidence.member)
    sizes = np.bincount(inverse)
    # Groups of members, of non-members and of both are spread apart from each other.
    stratum = np.where(members == sizes, 1, np.where(members == 0, 0, 2)).astype(np.uint8)
    return _spread(groups, stratum, k)[inverse]


def _spread(hashes: Hashes, stratum: NDArray[np.uint8], k: int) -> NDArray[np.uint8]:
    """(u,) fold of each unit: equal parts of the hash's range, or of its ranks where units are few."""
    fold = by_range(hashes, k)
    for value, size in enumerate(np.bincount(stratum)):
        if 0 < size < EXACT_BELOW:
            units = np.flatnonzero(stratum == value)
            order = np.argsort(hashes[units], kind="stable")
            fold[units[order]] = np.arange(len(units)) * k // len(units)
    return fold


def by_range(hashes: Hashes, k: int) -> NDArray[np.uint8]:
    """(u,) 0..k-1: equal parts of the hashes' range."""
    return ((hashes >> np.uint64(32)) * np.uint64(k) >> np.uint64(32)).astype(np.uint8)


def effective_shares(member: NDArray[np.bool_], groups: NDArray[Any] | None) -> tuple[float, float]:
    """How many independent records each member, each non-member counts as: 1, less where they come in groups.

    The records of a group may be alike in any degree, so a side counts as its Kish number of groups,
    (sum of sizes)^2 / sum of squared sizes: right when they are fully alike, wide when they are not.

    Args:
        member: (n,) bool.
        groups: (n,) group of each record, or None.

    >>> effective_shares(np.arange(6) < 2, np.array([0, 1, 2, 2, 3, 3]))
    (1.0, 0.5)
    """
    if groups is None:
        return 1.0, 1.0
    hashes = array_hashes(groups)
    shares = []
    for side in (member, ~member):
        sizes = np.unique(hashes[side], return_counts=True)[1].astype(float)
        shares.append(float(sizes.sum() / np.square(sizes).sum()))
    return shares[0], shares[1]
