"""What a control sees and what it says."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import metrics
from divulge.attacks import NamedAttack
from divulge.folds import effective_shares
from divulge.identity import row_hashes
from divulge.metrics import NAN, Curve, Estimate
from divulge.roc import Ranked, exact_slices, tags

if TYPE_CHECKING:
    from divulge.evidence import Evidence

SAMPLE = 20_000  # rows a side that controls look at where all are not needed
CONTROL_ERROR = 0.01  # one-sided, of each control's own test
FEW = 50  # rows a side below which the intervals are not promised to hold; docs/coverage.md

OK, WARNING, INVALID, NOT_RUN = "ok", "warning", "invalid", "not run"


class Outcome(NamedTuple):
    """What a control found.

    status: "ok", "warning", "invalid" or "not run". value, low, high: what it measured, NaN where it has none.
    text: one sentence. reason: why it was not run. curve: a ROC without the model, for the report's picture.

    >>> Outcome("ties", "DV205", "ok", Estimate(0.01, NAN, NAN), "1 % of the records are tied").measured.value
    0.01
    """

    control: str
    code: str
    status: str
    measured: Estimate
    text: str
    reason: str | None = None
    curve: Curve | None = None


class Shared(NamedTuple):
    """Records that stand on both sides.

    by: what they share: "id", "feature row", "output row", "output row, rounded", "signals", or None. rows: (n,) bool,
    the records that are left out for it; none of a stream. nonmembers, of: how many non-members share it, of how many.

    >>> Shared(None, np.zeros(2, bool), 0, 1).nonmembers
    0
    """

    by: str | None
    rows: NDArray[np.bool_]
    nonmembers: int
    of: int


class Setting(NamedTuple):
    """What a control may look at.

    evidence: n records, with ids; its `signals` are the given ones and those the audit computed.
    part: a random subsample of them, `SAMPLE` a side, in an order that does not depend on that of the rows.
    given: the names of the given ones.
    attacks: those that ran.
    aucs: each one's AUC with its interval.
    unscored: each one's numbers of members and non-members that it could not score.
    ranked: each one's scores of the evidence.
    tag: (n,) side and half of each record.
    shared: what `shared_records` found, before they were left out.
    run: an attack's (n,) scores of some evidence, with the signals it needs computed.
    seed: of the audit.
    sizes: members and non-members of the audit, of which the evidence may be a sample.
    effective: how many independent records each counts as; see `folds.effective_shares`.
    in_order: whether the records are in the order in which they came; not those of a stream.
    shared_groups: share of all non-members whose group also has members; None: as in the evidence.
    """

    evidence: Evidence
    part: Evidence
    given: tuple[str, ...]
    attacks: Sequence[NamedAttack]
    aucs: Mapping[str, Estimate]
    unscored: Mapping[str, tuple[int, int]]
    ranked: Mapping[str, Ranked]
    tag: NDArray[np.uint8]
    shared: Shared
    run: Callable[[NamedAttack, Evidence], NDArray[np.floating[Any]]]
    seed: int
    sizes: tuple[int, int]
    effective: tuple[float, float]
    in_order: bool = True
    shared_groups: float | None = None

    def auc_of_best(self, rows: NDArray[np.integer[Any]], member: NDArray[np.bool_], error: float) -> Estimate:
        """The best attack's AUC on some of the records, under another membership of them."""
        ranked = self.ranked[self.best]
        halves = self.tag[rows] & np.uint8(1)
        few = Ranked(ranked.keys[rows], ranked.values)
        fitted = next(attack.fitted for attack in self.attacks if attack.name == self.best)
        groups = self.evidence.groups
        effective = effective_shares(member, None if groups is None else groups[rows])
        roc = exact_slices(few, tags(member, halves), np.zeros(1, np.int32), 1, fitted=fitted, effective=effective)
        return metrics.auc(next(roc), error)

    def rng(self, name: str) -> np.random.Generator:
        """A control's own random numbers, whichever others run."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    @property
    def best(self) -> str:
        """The attack of the largest AUC."""
        return max(self.aucs, key=lambda name: self.aucs[name].value)


Control = Callable[[Setting], Outcome]


def not_run(control: str, code: str, reason: str) -> Outcome:
    """An outcome of a control that had nothing to look at."""
    return Outcome(control, code, NOT_RUN, Estimate(NAN, NAN, NAN), "", reason)


def number(value: float) -> Estimate:
    """A measured quantity without an interval."""
    return Estimate(value, NAN, NAN)


def subsample(evidence: Evidence, rows: int, seed: int) -> Evidence:
    """At most `rows` members and `rows` non-members, those of the smallest hashes, in the order of their hashes.

    Rows are drawn, not groups: so as many groups as can be are in the sample.

    >>> from divulge.evidence import Evidence
    >>> len(subsample(Evidence(np.arange(30) < 10, ids=np.arange(30)), 8, 0))
    16
    """
    hashes = row_hashes(evidence if evidence.groups is None else replace(evidence, groups=None), seed)
    few = []
    for side in (np.flatnonzero(evidence.member), np.flatnonzero(~evidence.member)):
        least = np.argpartition(hashes[side], rows - 1)[:rows] if len(side) > rows else slice(None)
        few.append(side[least])
    chosen = np.concatenate(few)
    return evidence.take(chosen[np.argsort(hashes[chosen], kind="stable")])


def how_many(part: Evidence, sizes: tuple[int, int]) -> str:
    """What a subsample of so many members and non-members is, in words."""
    members = int(part.member.sum())
    if len(part) == sum(sizes):
        return "all records"
    return f"a random {members:,} members and {len(part) - members:,} non-members"


def more_often(k: int, n: int, j: int, m: int) -> float:
    """One-sided p that k of n is no higher a rate than j of m: given k + j, binomial; exact where both are rare.

    >>> round(more_often(9, 1000, 0, 1000), 4)
    0.002
    """
    from scipy.special import bdtrc

    return float(bdtrc(k - 1, k + j, n / (n + m))) if k else 1.0
