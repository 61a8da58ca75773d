"""Whom an attack names as members, with the share of non-members among the named held at a stated rate."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RATE = 0.1
"""The false-discovery rate of the member list."""
GREATEST_SHARE = 0.1  # of the members, that the shortest possible list may hold before it is called not measurable


class MemberList(NamedTuple):
    """Who is named as a member: (n,) each.

    p_value: float, NaN of calibration non-members. q_value: float, adjusted. listed: bool. reason: why the list is not
    measurable, or None.
    """

    p_value: Floats
    q_value: Floats
    listed: NDArray[np.bool_]
    reason: str | None


class Sizes(NamedTuple):
    """How many members, calibration and test non-members there are: records, or groups of them."""

    members: int
    calibration: int
    test: int

    def fewest(self, rate: float) -> int:
        """The names in the shortest list that can come out: as many must share the smallest p."""
        return math.ceil((self.members + self.test) / ((self.calibration + 1) * rate) - 1e-9)


def sizes_of(member: NDArray[np.bool_], calibration: NDArray[np.bool_]) -> Sizes:
    """Of (n,) bools; test non-members are those that do not calibrate."""
    held = int(calibration.sum())
    return Sizes(int(member.sum()), held, int((~member).sum()) - held)


def member_list(
    scores: NDArray[np.floating[Any]],
    member: NDArray[np.bool_],
    calibration: NDArray[np.bool_],
    rate: float = RATE,
    unit: str = "record",
) -> MemberList:
    """Who scores higher than non-members do, with the share of non-members among the named held at a rate.

    A record's p counts the calibration non-members that score as high as it does. Members and the other (test)
    non-members are one pool, and Benjamini and Hochberg's list of it is expected to hold at most `rate` times the
    pool's share of non-members of non-members. In another pool, with fewer members, more of a list is wrong.

    Args:
        scores: (n,) higher = more member-like; NaN = lowest.
        member: (n,) bool.
        calibration: (n,) bool, non-members that no score was fitted on.
        rate: the false-discovery rate.
        unit: what the rows are, "record" or "group", for the words of the reason.

    Source: Bates et al. 2023, Testing for outliers with conformal p-values, sections 2 and 3.

    >>> scores, n = np.append(np.full(40, 2.0), np.sin(np.arange(800.0))), np.arange(840)
    >>> found = member_list(scores, n < 440, (n >= 440) & (n % 2 == 0))
    >>> int(found.listed.sum()), round(float(found.q_value[0]), 3)
    (46, 0.069)
    """
    score = np.where(np.isnan(scores), -np.inf, scores)
    held = np.sort(score[calibration])
    as_high = len(held) - np.searchsorted(held, score, side="left")
    p = np.where(calibration, np.nan, (1 + as_high) / (len(held) + 1))
    q = np.full(len(p), np.nan)
    pool = np.flatnonzero(~calibration)
    q[pool] = benjamini_hochberg(p[pool])
    with np.errstate(invalid="ignore"):
        listed = q <= rate * (1 + 1e-12)
    sizes = sizes_of(member, calibration)
    fewest = sizes.fewest(rate)
    if listed.any() or fewest <= GREATEST_SHARE * sizes.members:
        return MemberList(p, q, listed, None)
    return MemberList(p, q, listed, _too_few(sizes, fewest, rate, unit))


def list_of_groups(
    scores: NDArray[np.floating[Any]],
    member: NDArray[np.bool_],
    calibration: NDArray[np.bool_],
    groups: NDArray[np.integer[Any]],
) -> MemberList:
    """`member_list` of groups: a group has one p and one place in the pool, and is named or not as a whole.

    The records of a group are alike: as many p of them would say the same again and again, and calibration groups say
    as much as there are of them, not as there are records in them. A group scores the mean of its records: what leaks
    of a person shows in most of their records and adds up, while their largest score would also be larger for a
    person with more records.

    Args:
        scores: (n,) of the records, higher = more member-like; NaN = none.
        member: (n,) bool.
        calibration: (n,) bool, one value a group.
        groups: (n,) int 0..u-1, each on one side.

    Returns:
        (n,) each: every record has what its group has.

    >>> groups = np.repeat(np.arange(840), 2)
    >>> scores, n = np.append(np.full(40, 2.0), np.sin(np.arange(800.0)))[groups], groups
    >>> found = list_of_groups(scores, n < 440, (n >= 440) & (n % 2 == 0), groups)
    >>> int(found.listed.sum()), round(float(found.q_value[0]), 3)
    (92, 0.069)
    """
    first = np.unique(groups, return_index=True)[1]
    found = member_list(mean_scores(scores, groups), member[first], calibration[first], unit="group")
    return MemberList(found.p_value[groups], found.q_value[groups], found.listed[groups], found.reason)


def mean_scores(scores: NDArray[np.floating[Any]], groups: NDArray[np.integer[Any]]) -> Floats:
    """(u,) mean of each group's scores; NaN of a group that has none.

    The same in any order of the records, and of equal scores exactly that: copies of a record keep its ties.

    Args:
        scores: (n,) NaN = none.
        groups: (n,) int 0..u-1.

    >>> mean_scores(np.array([0.1, 0.1, 0.1, 2.0, np.nan]), np.array([0, 0, 0, 1, 1])).tolist()
    [0.1, 2.0]
    """
    score = scores.astype(np.float64)
    rows = np.lexsort((score, groups))
    rows = rows[~np.isnan(score[rows])]
    scored, start, size = np.unique(groups[rows], return_index=True, return_counts=True)
    found, lowest = np.full(int(groups.max()) + 1, np.nan), score[rows][start]
    with np.errstate(invalid="ignore"):
        above = np.add.reduceat(score[rows] - np.repeat(lowest, size), start) if len(rows) else lowest
        mean = lowest + above / size
    found[scored] = np.where(np.isnan(mean), lowest, mean)  # infinite ones
    return found


def benjamini_hochberg(p: Floats) -> Floats:
    """(m,) the smallest false-discovery rate at which each is found.

    Args:
        p: (m,) without gaps.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.9])).round(3).tolist()
    [0.04, 0.053, 0.053, 0.9]
    """
    order = np.argsort(p, kind="stable")
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return np.minimum(q, 1)


def _too_few(sizes: Sizes, fewest: int, rate: float, unit: str) -> str:
    smallest, of, names = rate * GREATEST_SHARE * sizes.members, "", "names"
    if unit == "group":
        of, names = "groups of ", "groups"
    text = (
        f"not measurable: with {sizes.calibration:,} {of}calibration non-members a list holds {fewest:,} {names} or "
        f"none, more than {100 * GREATEST_SHARE:.0f} % of the {sizes.members:,} {of}members; "
    )
    if smallest <= 1:
        return (
            f"{text}needs more {of}members: about {math.ceil(3 / (rate * GREATEST_SHARE) - 1e-9):,} {unit}s of each "
            "side do"
        )
    half = math.ceil(sizes.members * (1 - rate * GREATEST_SHARE) / (smallest - 1))
    return f"{text}needs about {2 * half:,} {of}non-members"
