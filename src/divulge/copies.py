"""Records that stand several times: copies of one record, or rows that are alike because outputs take few values."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.hashes import Hashes, array_hashes, mix
from divulge.identity import identified, sided

if TYPE_CHECKING:
    from divulge.evidence import Evidence

MOST_COPIES = 20  # of one record; more rows alike are outputs that take few values
MIXED = 0.01  # pairs of equal rows on two sides, as a share of those on one, beyond which equal rows are no copies
SURE = 1 - 1e-6  # a probability that counts as 1


def with_copies_grouped(evidence: Evidence, contents: Hashes) -> Evidence:
    """The same evidence; records that stand several times on one side are one group each, and groups with one are one.

    An attack that is fitted on membership would else meet a record's copies, and so its side, in the fits of others.
    Copies are rows of equal content (and features, where they are given), at most 20 of one, on one side. Where rows of
    equal content are on both sides as well, outputs just take few values; and probabilities of 1 are equal for another
    reason.

    Args:
        evidence: n records, of which none stands on both sides.
        contents: their `content_hashes`.

    Returns:
        The evidence, `identified`; where none were given groups of type `HASHES` if there are copies.

    >>> from divulge.evidence import Evidence
    >>> from divulge.identity import content_hashes
    >>> evidence = Evidence(np.arange(4) < 2, signals={"loss": np.array([-.1, -.1, -.2, -.3])})
    >>> len(set(with_copies_grouped(evidence, content_hashes(evidence)).groups.tolist()))
    3
    """
    evidence = identified(evidence, contents) if evidence.groups is None else evidence
    contents = copy_hashes(evidence, contents)
    ordered = np.sort(contents)
    twice = ordered[1:] == ordered[:-1]
    if not twice.any():
        return evidence
    rows = np.flatnonzero(np.isin(contents, ordered[1:][twice]))
    _, value = np.unique(contents[rows], return_inverse=True)
    members = np.bincount(value, weights=evidence.member[rows])
    others = np.bincount(value) - members
    few = (members + others <= MOST_COPIES)[value] & may_be_copies(evidence, rows)
    copied = np.unique(value[few])
    if not are_copies(members[copied], others[copied]):
        return evidence
    copies = sided(contents[rows[few]], evidence.member[rows[few]])
    if evidence.groups is not None:
        return replace(evidence, groups=_joined(evidence.groups, rows[few], copies))
    assert evidence.ids is not None
    groups = evidence.ids.copy()
    groups[rows[few]] = copies
    return replace(evidence, groups=groups)


def _joined(groups: NDArray[Any], rows: NDArray[np.int64], copies: Hashes) -> NDArray[Any]:
    """(n,) the groups, those that have copies of one record joined: each is called as one of them was."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, first, group = np.unique(array_hashes(groups), return_index=True, return_inverse=True)
    _, copy = np.unique(copies, return_inverse=True)
    size = len(names) + int(copy.max()) + 1
    edges = coo_array((np.ones(len(rows)), (group[rows], len(names) + copy)), shape=(size, size))
    _, component = connected_components(edges, directed=False)
    _, called = np.unique(component[: len(names)], return_index=True)
    place = np.unique(component[: len(names)], return_inverse=True)[1]
    return np.asarray(groups[first[called[place[group]]]])


def are_copies(members: NDArray[Any], nonmembers: NDArray[Any]) -> bool:
    """Whether rows of equal content are copies of one record: seldom on both sides.

    Args:
        members, nonmembers: (u,) rows a side of each content that stands several times, at most `MOST_COPIES`.

    >>> are_copies(np.array([2, 3]), np.array([0, 0]))
    True
    """
    m, n = members, nonmembers
    return len(m) > 0 and bool((m * n).sum() <= MIXED * (m * (m - 1) + n * (n - 1)).sum() / 2)


def copy_hashes(evidence: Evidence, contents: Hashes) -> Hashes:
    """(n,) hashes that copies of a record share.

    Args:
        evidence: n records.
        contents: their `content_hashes`.
    """
    return contents if evidence.features is None else mix(contents) + array_hashes(evidence.features)


def may_be_copies(evidence: Evidence, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) whether rows that equal others are copies: not where a probability is 1 and nothing else tells them apart.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), outputs=np.array([[1., 0.], [.5, .5]]), kind="probs")
    >>> may_be_copies(evidence, np.arange(2)).tolist()
    [False, True]
    """
    outputs = evidence.outputs
    if outputs is None or evidence.kind != "probs" or evidence.features is not None:
        return np.ones(len(rows), bool)
    return np.asarray(~(outputs[rows].reshape(len(rows), -1).max(axis=1) >= SURE))
