"""Records one by one: who an attack names at a stated false-discovery rate, and what reference models say of each.

Made on request only (`audit(records=True)`), and kept out of every file and form of a report: it is about people. All
intervals are pointwise: of many records some miss, and the most exposed of many looks more exposed than it is.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import AttackR, Difficulty, Lira, NamedAttack, Ratio, Rmia
from divulge.attacks.choosing import Chosen
from divulge.attacks.moments import references_of, target_of
from divulge.errors import Unavailable
from divulge.folds import folds
from divulge.hashes import array_hashes
from divulge.identity import sided
from divulge.influence import (
    Floats,
    Interval,
    averaged,
    exposure,
    memorisation,
    out_p_value,
    ranks,
    ranks_by_halves,
    signal_read,
    stability,
)
from divulge.naming_members import RATE, MemberList, list_of_groups, member_list, sizes_of
from divulge.report import RECORD_COLUMNS

if TYPE_CHECKING:
    from divulge.evidence import Evidence


_SPLIT = zlib.crc32(b"records")  # apart from the halves of the audit
_FROM_REFERENCES = (Lira, Ratio, Rmia, Difficulty, AttackR, Chosen)


class Records(NamedTuple):
    """Records one by one.

    columns: `divulge.report.RECORD_COLUMNS`, n cells each, in the order of the evidence; undefined: NaN, or None of
    `listed` and the ranks. Records that stand on both sides are left out, as in all of the audit.

        id                    the user's, else the row's number in the evidence, from 0
        member                bool
        score                 of the attack that `about` names; higher = more member-like
        p_value               1 + how many calibration non-members score as high, / 1 + how many there are
        q_value               p, adjusted over members and test non-members (Benjamini-Hochberg)
        listed                q is at most the stated rate; False of a calibration non-member
                              Where there are groups (persons, or copies of a record), all three are the group's:
                              groups are counted, by the mean of their records' scores, and named as a whole.
        exposure              (mean with - mean without) / standard deviation of the reference models' signal
        exposure_low, _high   its interval
        out_p_value           of the target's signal, or a higher one, from a model trained without the record
        memorisation          mean probability of the label by models with the record - that without, in [-1, 1]
        memorisation_low, _high   its interval
        rank                  by exposure, 1 = the most exposed; equal exposures share the better rank
        rank_low, rank_high   the smaller and the larger of its ranks by each half of the reference models

    about: attack, unit ("record", or "group" where there are groups: what the next are numbers of), rate (stated),
    observed (share of non-members among the listed; None: nobody is), listed, members, calibration, test
    (non-members), smallest_p, fewest (names in the shortest list that can come out), reason (why
    the list is not measurable, or None), models, source, signal, stability (Spearman's correlation of the ranks by the
    two halves, or None), undefined (why the references say nothing, or None), left_out (records on both sides).
    """

    columns: dict[str, list[Any]]
    about: dict[str, Any]


def declared(attacks: Sequence[NamedAttack]) -> NamedAttack:
    """The attack whose scores the member list is of, chosen by kind and never by what it found.

    The first that uses reference models, else the first that is not fitted on membership, else the first.

    >>> from divulge.attacks import named
    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> declared([named(attack, evidence) for attack in ("learned", "loss", "lira")]).name
    'lira(shrunk)'
    """
    return min(attacks, key=lambda attack: (not _by_references(attack), attack.fitted))


def _by_references(attack: NamedAttack) -> bool:
    return isinstance(attack.call, _FROM_REFERENCES)


def table_of_records(
    evidence: Evidence,
    ids: Sequence[Any],
    attack: NamedAttack,
    scores: NDArray[np.floating[Any]],
    *,
    seed: int,
    error: float,
    left_out: int = 0,
) -> Records:
    """All that is known of each record.

    Args:
        evidence: n records of one side each.
        ids: n, what to call them.
        attack: that the scores are of.
        scores: (n,) float, higher = more member-like; NaN = lowest.
        seed: splits the non-members.
        error: total probability that an interval misses.
        left_out: how many records were on both sides.

    >>> from divulge.attacks import named
    >>> from divulge.evidence import Evidence
    >>> n = np.arange(4000)
    >>> loss = np.sin(n) + 9 * (n % 50 == 0) * (n < 2000)
    >>> evidence = Evidence(n < 2000, signals={"loss": loss})
    >>> found = table_of_records(evidence, n.tolist(), named("loss", evidence), loss, seed=0, error=0.05)
    >>> found.about["listed"], round(found.about["observed"], 2)
    (41, 0.02)
    """
    member = evidence.member
    calibration = ~member & (folds(evidence, 2, seed + _SPLIT) == 0)
    groups, first = _groups(evidence)
    if attack.fitted and not _by_references(attack):
        named = _not_measured(attack, len(member))
    elif groups is None:
        named = member_list(scores, member, calibration)
    else:
        named = list_of_groups(scores, member, calibration, groups)
    found, sizes = _of_references(evidence, error), sizes_of(member[first], calibration[first])
    count, listed = int(named.listed[first].sum()), named.listed.astype(object)
    if named.reason is not None:
        listed[~calibration] = None  # nobody is cleared by a list that cannot come out
    cells = {
        "id": list(ids),
        "member": member.tolist(),
        "score": scores.astype(np.float64).tolist(),
        "p_value": named.p_value.tolist(),
        "q_value": named.q_value.tolist(),
        "listed": listed.tolist(),
        **found.cells,
    }
    about = {
        "attack": attack.name,
        "unit": "record" if groups is None else "group",
        "rate": RATE,
        "observed": int((named.listed & ~member)[first].sum()) / count if count else None,
        "listed": count,
        "members": sizes.members,
        "calibration": sizes.calibration,
        "test": sizes.test,
        "smallest_p": 1 / (sizes.calibration + 1),
        "fewest": sizes.fewest(RATE),
        "reason": named.reason,
        **found.about,
        "left_out": left_out,
    }
    return Records({name: cells[name] for name in RECORD_COLUMNS}, about)


def _groups(evidence: Evidence) -> tuple[NDArray[np.int64] | None, Any]:
    """(n,) numbers of groups, each on one side, and a row of each: None and all rows where there are no groups."""
    if evidence.groups is None:
        return None, slice(None)
    _, first, groups = np.unique(
        sided(array_hashes(evidence.groups), evidence.member), return_index=True, return_inverse=True
    )
    return groups, first


def _not_measured(attack: NamedAttack, n: int) -> MemberList:
    reason = (
        f"not measurable: the attack {attack.name} is fitted on membership, so that the calibration non-members took "
        "part in the fits that score the others; audit with a threshold (loss) or with reference models as well"
    )
    nothing = np.full(n, np.nan)
    return MemberList(nothing, nothing, np.zeros(n, bool), reason)


# ------------------------------------------------------------------------------------------- from reference models


class _Found(NamedTuple):
    """Cells by column, and what is said of them all."""

    cells: dict[str, list[Any]]
    about: dict[str, Any]


def _of_references(evidence: Evidence, error: float) -> _Found:
    """The columns that reference models fill."""
    nothing = np.full(len(evidence.member), np.nan)
    d = kept = Interval(nothing, nothing, nothing)
    p, ranked, halves = nothing, nothing, (nothing, nothing)
    references, name, reasons = evidence.references, None, []
    try:
        usable = references_of(evidence)
        name = signal_read(usable)
        values, within = averaged(usable.signals[name]), usable.trained_on
        d = exposure(values, within, error)
        ranked, halves = ranks(d.value), ranks_by_halves(values, within)
        p = out_p_value(values, within, averaged(target_of(evidence, name)[None])[0, :, 0])
    except Unavailable as reason:
        reasons.append(f"{'exposure and ' if name is None else ''}out_p_value: {reason.message}")
    try:
        if references is not None:
            kept = memorisation(references, evidence.task, error)
    except Unavailable as reason:
        reasons.append(f"memorisation: {reason.message}")
    numbers = {
        **dict(zip(("exposure", "exposure_low", "exposure_high"), d, strict=True)),
        **dict(zip(("memorisation", "memorisation_low", "memorisation_high"), kept, strict=True)),
        "out_p_value": p,
    }
    places = {"rank": ranked, "rank_low": np.minimum(*halves), "rank_high": np.maximum(*halves)}
    about = {
        "models": None if references is None else len(references.trained_on),
        "source": None if references is None else references.source,
        "signal": name,
        "stability": stability(*halves),
        "undefined": "; ".join(reasons) or None,
    }
    cells: dict[str, list[Any]] = {column: found.tolist() for column, found in numbers.items()}
    return _Found(cells | {column: _whole(found) for column, found in places.items()}, about)


def _whole(values: Floats) -> list[int | None]:
    return [None if math.isnan(value) else int(value) for value in values.tolist()]
