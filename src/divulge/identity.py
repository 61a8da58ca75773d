"""What a row is, and what all of them are: numbers from group, id or content, never from where the row stands.

A row's number comes from a hash of its group, else its id, else its content and, among rows of equal content, its
occurrence; so it is the same under any order, file or worker.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.hashes import STEP, Hashes, array_hashes, hasher_of, mix

if TYPE_CHECKING:
    from divulge.evidence import Evidence

HASHES = np.dtype(np.uint64)
"""Ids of this type are `identified`'s: distinct already. The doors make a user's whole numbers int64."""


def row_hashes(evidence: Evidence, seed: int) -> Hashes:
    """(n,) uint64 of each row's group, else its id, else its content and occurrence.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), ids=np.array([7, 8]))
    >>> len(set(row_hashes(evidence, 0).tolist()))
    2
    """
    if evidence.groups is not None:
        return array_hashes(evidence.groups, seed)
    ids = identified(evidence).ids
    assert ids is not None
    return array_hashes(ids, seed)


def content_hashes(evidence: Evidence) -> Hashes:
    """(n,) uint64 of outputs, labels, given signals and traces, not of the side.

    Features, or what references hold of the target, where there is nothing else.

    Equal rows have equal hashes; the same in any order and block.
    """
    arrays = [
        evidence.outputs,
        evidence.labels,
        evidence.traces,
        *(x for _, x in sorted(evidence.signals.items())),
    ]
    if all(array is None for array in arrays):
        references = evidence.references
        target = {} if references is None else references.target or {}
        arrays = [evidence.features, *(x for _, x in sorted(target.items()))]
    hashers = [hasher_of(array, at) for at, array in enumerate(arrays) if array is not None]
    hashes = np.empty(len(evidence.member), np.uint64)

    def block(rows: slice) -> None:
        mixed = np.zeros(rows.stop - rows.start, np.uint64)
        for hasher in hashers:
            mixed = mix(mixed) + hasher(rows)
        hashes[rows] = mixed

    over_rows(block, len(hashes), max([8, *(array[:1].nbytes for array in arrays if array is not None)]))
    return hashes


def identified(evidence: Evidence, contents: Hashes | None = None) -> Evidence:
    """The same evidence with distinct hashes as ids: later folds and orders need not read it all.

    And they stay the same when signals are added to it.

    Args:
        evidence: n records.
        contents: their `content_hashes`, if they are known.

    >>> from divulge.evidence import Evidence
    >>> len(identified(Evidence(np.array([True, False]), signals={"loss": np.array([-.1, -2.])})).ids)
    2
    """
    if evidence.ids is not None and evidence.ids.dtype == HASHES:
        return evidence
    if evidence.ids is not None:
        hashes = array_hashes(evidence.ids)
    else:
        hashes = sided(content_hashes(evidence) if contents is None else contents, evidence.member)
    return replace(evidence, ids=_tell_apart(hashes, evidence))


def digest(evidence: Evidence, contents: Hashes) -> str:
    """32 hex digits of all that the records hold, whatever their order.

    It names the data; it is no proof against somebody who wants two data sets to have one name.

    Args:
        evidence: n records.
        contents: their `content_hashes`.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> len(digest(evidence, content_hashes(evidence)))
    32
    """
    return digest_text(digest_sums(record_hashes(evidence, contents)))


def record_hashes(evidence: Evidence, contents: Hashes) -> Hashes:
    """(n,) uint64 of everything that a row holds.

    Args:
        evidence: n records.
        contents: their `content_hashes`.
    """
    return _with_rest(sided(contents, evidence.member), evidence)


def digest_sums(records: Hashes) -> Hashes:
    """(2,) sums of (n,) `record_hashes`, modulo 2**64: those of several blocks add up."""
    return np.array([records.sum(dtype=np.uint64), mix(records).sum(dtype=np.uint64)])


def digest_text(sums: Hashes) -> str:
    """`digest` of what has these sums.

    >>> digest_text(np.array([1, 255], np.uint64))[-2:]
    'ff'
    """
    return "".join(f"{int(total):016x}" for total in sums)


def _with_rest(hashes: Hashes, evidence: Evidence) -> Hashes:
    """Hashes of content and side made hashes of the whole row: ids, groups, features, columns and references too."""
    rest: dict[str, NDArray[Any] | None] = {
        "ids": evidence.ids,
        "groups": evidence.groups,
        "features": evidence.features,
    }
    if (references := evidence.references) is not None:
        rest |= {f"reference {name}": x.swapaxes(0, 1) for name, x in sorted(references.signals.items())}
        rest |= {f"target {name}": x for name, x in sorted((references.target or {}).items())}
        rest["trained on"] = references.trained_on.T
    for name, array in (*rest.items(), *sorted(evidence.columns.items())):
        if array is not None:
            hashes = mix(hashes) + array_hashes(_as_if_some_were_missing(np.asarray(array)), zlib.crc32(name.encode()))
    return hashes


def _as_if_some_were_missing(column: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as floats and bools as text, as the doors read a block in which one of them is missing."""
    if column.ndim > 1 or column.dtype.kind not in "biu":
        return column
    if column.dtype.kind == "b":
        return np.array(["False", "True"])[column.astype(np.int8)]
    floats = column.astype(np.float64)
    return floats if (np.abs(floats) < 2.0**53).all() else column


def sided(contents: Hashes, member: NDArray[np.bool_]) -> Hashes:
    """(n,) uint64 of content and side."""
    return mix(contents ^ member)


def _tell_apart(hashes: Hashes, evidence: Evidence) -> Hashes:
    """Give rows of equal hash different ones, by occurrence; which is which is settled by all else they hold."""
    ordered = np.sort(hashes)
    twice = ordered[1:] == ordered[:-1]
    if not twice.any():
        return hashes
    repeated = np.flatnonzero(np.isin(hashes, ordered[1:][twice]))
    rows = evidence.take(repeated)
    detail = _with_rest(sided(content_hashes(rows), rows.member), rows)
    order = np.lexsort((detail, hashes[repeated]))
    group = hashes[repeated][order]
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    occurrence = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    hashes = hashes.copy()
    hashes[repeated[order]] = mix(group + occurrence.astype(np.uint64) * STEP)
    return hashes
