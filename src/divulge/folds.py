"""Which fold or half a row belongs to: a function of what the row is, never of where it stands.

A row's number comes from a hash of its group, else its id, else its content and, among rows of equal content, its
occurrence; so it is the same under any order, file or worker, and a group stays whole. Folds are stratified by side.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Hashes = NDArray[np.uint64]

HASHES = np.dtype(np.uint64)
"""Ids of this type are `identified`'s: distinct already. The doors make a user's whole numbers int64."""

MOST_COPIES = 20  # of one record; more rows alike are outputs that take few values
MIXED = 0.01  # pairs of equal rows on two sides, as a share of those on one, beyond which equal rows are no copies
SURE = 1 - 1e-6  # a probability that counts as 1

STEP = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
"""SplitMix64's numbers. Source: Steele et al. 2014."""

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
    fold = _by_range(hashes, k)
    for value, size in enumerate(np.bincount(stratum)):
        if 0 < size < EXACT_BELOW:
            units = np.flatnonzero(stratum == value)
            order = np.argsort(hashes[units], kind="stable")
            fold[units[order]] = np.arange(len(units)) * k // len(units)
    return fold


def _by_range(hashes: Hashes, k: int) -> NDArray[np.uint8]:
    """Equal parts of the hashes' range."""
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


def halves_of_block(evidence: Evidence, contents: Hashes, seed: int) -> NDArray[np.uint8]:
    """(n,) 0 or 1: `halves` of some rows of a stream, as many rows have them, by their hashes alone.

    Args:
        evidence: n records.
        contents: their `content_hashes`.
        seed: as in `halves`.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.arange(8) < 4, ids=np.arange(8))
    >>> len(set(halves_of_block(evidence, content_hashes(evidence), 0).tolist()))
    2
    """
    if evidence.groups is not None:
        hashes = array_hashes(evidence.groups, seed)
    else:
        ids = evidence.ids
        hashes = array_hashes(_sided(contents, evidence.member) if ids is None else array_hashes(ids), seed)
    return _by_range(hashes, 2)


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
    hashers = [_hasher(array, at) for at, array in enumerate(arrays) if array is not None]
    hashes = np.empty(len(evidence.member), np.uint64)

    def block(rows: slice) -> None:
        mixed = np.zeros(rows.stop - rows.start, np.uint64)
        for hasher in hashers:
            mixed = _mix(mixed) + hasher(rows)
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
        hashes = _sided(content_hashes(evidence) if contents is None else contents, evidence.member)
    return replace(evidence, ids=_tell_apart(hashes, evidence))


def with_copies_grouped(evidence: Evidence, contents: Hashes) -> Evidence:
    """The same evidence; records that stand several times on one side are one group each, where no groups are given.

    An attack that is fitted on membership would else meet a record's copies, and so its side, in the fits of others.
    Copies are rows of equal content (and features, where they are given), at most 20 of one, on one side. Where rows of
    equal content are on both sides as well, outputs just take few values; and probabilities of 1 are equal for another
    reason.

    Args:
        evidence: n records, of which none stands on both sides.
        contents: their `content_hashes`.

    Returns:
        The evidence, `identified`; groups of type `HASHES` where there are copies.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.arange(4) < 2, signals={"loss": np.array([-.1, -.1, -.2, -.3])})
    >>> len(set(with_copies_grouped(evidence, content_hashes(evidence)).groups.tolist()))
    3
    """
    if evidence.groups is not None:
        return evidence
    evidence = identified(evidence, contents)
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
    assert evidence.ids is not None
    groups = evidence.ids.copy()
    groups[rows[few]] = _sided(contents[rows[few]], evidence.member[rows[few]])
    return replace(evidence, groups=groups)


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
    return contents if evidence.features is None else _mix(contents) + array_hashes(evidence.features)


def may_be_copies(evidence: Evidence, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(m,) whether rows that equal others are copies: not where a probability is 1 and nothing else tells them apart.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), outputs=np.array([[1., 0.], [.5, .5]]), kind="probs")
    >>> may_be_copies(evidence, np.arange(2)).tolist()
    [False, True]
    """
    return ~_sure(evidence, rows)


def _sure(evidence: Evidence, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows hold a probability of 1, where features do not tell records apart."""
    outputs = evidence.outputs
    if outputs is None or evidence.kind != "probs" or evidence.features is not None:
        return np.zeros(len(rows), bool)
    return np.asarray(outputs[rows].reshape(len(rows), -1).max(axis=1) >= SURE)


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
    return _with_rest(_sided(contents, evidence.member), evidence)


def digest_sums(records: Hashes) -> Hashes:
    """(2,) sums of (n,) `record_hashes`, modulo 2**64: those of several blocks add up."""
    return np.array([records.sum(dtype=np.uint64), _mix(records).sum(dtype=np.uint64)])


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
            hashes = _mix(hashes) + array_hashes(_as_if_some_were_missing(np.asarray(array)), zlib.crc32(name.encode()))
    return hashes


def _as_if_some_were_missing(column: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as floats and bools as text, as the doors read a block in which one of them is missing."""
    if column.ndim > 1 or column.dtype.kind not in "biu":
        return column
    if column.dtype.kind == "b":
        return np.array(["False", "True"])[column.astype(np.int8)]
    floats = column.astype(np.float64)
    return floats if (np.abs(floats) < 2.0**53).all() else column


def _sided(contents: Hashes, member: NDArray[np.bool_]) -> Hashes:
    return _mix(contents ^ member)


def _tell_apart(hashes: Hashes, evidence: Evidence) -> Hashes:
    """Give rows of equal hash different ones, by occurrence; which is which is settled by all else they hold."""
    ordered = np.sort(hashes)
    twice = ordered[1:] == ordered[:-1]
    if not twice.any():
        return hashes
    repeated = np.flatnonzero(np.isin(hashes, ordered[1:][twice]))
    rows = evidence.take(repeated)
    detail = _with_rest(_sided(content_hashes(rows), rows.member), rows)
    order = np.lexsort((detail, hashes[repeated]))
    group = hashes[repeated][order]
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    occurrence = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    hashes = hashes.copy()
    hashes[repeated[order]] = _mix(group + occurrence.astype(np.uint64) * STEP)
    return hashes


def array_hashes(array: NDArray[Any], seed: int = 0, *, decimals: int | None = None) -> Hashes:
    """(n,) uint64 hashes of the rows of an (n, ...) array of numbers or strings; the same in any order and block.

    Args:
        array: of any dtype.
        seed: another seed, other hashes.
        decimals: round floats so first: rows that differ by rounding errors then mostly agree.

    >>> bool((array_hashes(np.array(["a", "bc"])) == array_hashes(np.array(["a", "bc"], object))).all())
    True
    """
    hasher = _hasher(array, seed, decimals)
    hashes = np.empty(len(array), np.uint64)

    def block(rows: slice) -> None:
        hashes[rows] = hasher(rows)

    over_rows(block, len(array), max(array[:1].nbytes, 8))
    return hashes


def _hasher(array: NDArray[Any], seed: int, decimals: int | None = None) -> Callable[[slice], Hashes]:
    """A function from a block of rows to their hashes."""
    if array.dtype.kind in "OUST":
        return _text_hashes(array, seed).__getitem__
    array = array.reshape(len(array), -1)
    size = array.dtype.itemsize if decimals is None else np.dtype(np.float32).itemsize
    width = array.shape[1] * size
    word = np.dtype(np.uint64 if width % 8 == 0 else f"u{size}")
    multipliers = odd_numbers(seed, width // word.itemsize)

    def hasher(rows: slice) -> Hashes:
        part = array[rows]
        if decimals is not None:  # in float64: float16 overflows at 6.5 where it is rounded to four digits
            part = np.round(part.astype(np.float64), decimals).astype(np.float32) + 0  # + 0: no -0
        words = np.ascontiguousarray(part).view(word).astype(np.uint64)
        words ^= words >> np.uint64(32)
        words *= MULTIPLIERS[0]
        words ^= words >> np.uint64(32)  # floats of few digits have only high bits: spread them before the sum
        return _mix(words @ multipliers)

    return hasher


def odd_numbers(seed: int, count: int) -> Hashes:
    """(count,) random odd uint64, what the words of a row are multiplied by.

    >>> int(odd_numbers(0, 3)[2] % 2)
    1
    """
    random = np.random.default_rng(seed % 2**64).integers(0, 2**63, count, dtype=np.uint64)
    return random * np.uint64(2) + np.uint64(1)


def _text_hashes(array: NDArray[Any], seed: int) -> Hashes:
    """A polynomial in each distinct text's UTF-8 bytes, over Arrow's flat buffer, a part of it at a time."""
    import pyarrow as pa

    # Through objects: of numpy's fixed-width texts Arrow would cut at a NUL.
    items = array.astype(str).astype(object) if array.dtype.kind == "S" else array.astype(object)
    coded = pa.array(items, pa.large_string()).dictionary_encode()
    text = coded.dictionary
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    flat = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    base = np.uint64(int(np.random.default_rng(seed % 2**64).integers(0, 2**62)) * 2 + 1)
    lengths = np.diff(ends)
    powers = np.multiply.accumulate(np.full(max(int(lengths.max(initial=0)), 1), base, np.uint64))
    hashes = np.empty(len(text) + 1, np.uint64)
    hashes[-1] = _mix(np.array([base]))[0]  # of what is missing
    start = 0
    while start < len(text):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + (1 << 20), side="right")) - 1)
        part, size = flat[ends[start] : ends[stop]].astype(np.uint64) + np.uint64(1), lengths[start:stop]
        place = np.arange(len(part)) - np.repeat(ends[start:stop] - ends[start], size)
        sums = np.zeros(len(part) + 1, np.uint64)
        np.cumsum(part * powers[place], out=sums[1:])
        edges = ends[start : stop + 1] - ends[start]
        hashes[start:stop] = _mix(sums[edges[1:]] - sums[edges[:-1]] + size.astype(np.uint64))
        start = stop
    codes = coded.indices.fill_null(len(text)).to_numpy(zero_copy_only=False)
    return np.asarray(hashes[codes])


def _mix(x: Hashes) -> Hashes:
    """Every bit of the input reaches every bit of the output. Source: SplitMix64, Steele et al. 2014."""
    x = np.asarray(x + STEP)
    x ^= x >> SHIFTS[0]
    x *= MULTIPLIERS[0]
    x ^= x >> SHIFTS[1]
    x *= MULTIPLIERS[1]
    x ^= x >> SHIFTS[2]
    return x
