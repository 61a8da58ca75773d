"""Two runs over the same records: which records they share, and differences that know it.

What two models say of one record is alike, so that much of the chance in one run's figure is in the other's too. An
interval of the difference that knows how alike is narrower than one as of independent samples, and as honest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import attacks as attack_family
from divulge import intervals, metrics, selection
from divulge.attacks import NamedAttack
from divulge.attacks.attack import without_address
from divulge.controls import shared_records
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.folds import effective_shares, halves
from divulge.hashes import array_hashes
from divulge.identity import content_hashes, digest, identified
from divulge.intervals import Bounds
from divulge.metrics import Estimate
from divulge.preparing import without_shared
from divulge.roc import HALVES, Ranked, Roc, exact_slices, peak, rank, tags
from divulge.scoring import scores_of, with_signals

if TYPE_CHECKING:
    from divulge.report import Report

FEW = 50  # matched records a side, counted by group, below which a run stays unpaired

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Sample(NamedTuple):
    """Records that two runs share.

    member: (n,) bool. halves: (n,) 0 or 1. effective: as in `Roc`.
    """

    member: Bools
    halves: NDArray[np.uint8]
    effective: tuple[float, float] = (1.0, 1.0)

    def rocs(self, ranked: Mapping[str, Ranked], fitted: frozenset[str] = frozenset()) -> dict[str, Roc]:
        """Each attack's Roc of these records."""
        tag, codes = tags(self.member, self.halves), np.zeros(1, np.int32)
        return {
            name: next(exact_slices(scores, tag, codes, 1, fitted=name in fitted, effective=self.effective))
            for name, scores in ranked.items()
        }


class Pairing(NamedTuple):
    """How a run was paired with the first.

    members, nonmembers: records that are in both runs, on the same side.
    left_out: records of the first run, of this run, that are not.
    crossed: records that are members of the one run and non-members of the other; counted in `left_out` too.
    differences: by metric, this run's figure minus the first's over the matched records, with its interval.
    reason: why there is no difference, or not of every figure; or None.
    """

    members: int
    nonmembers: int
    left_out: tuple[int, int]
    crossed: int
    differences: Mapping[str, Estimate]
    reason: str | None


# ------------------------------------------------------------------------------------------------ differences


def score_difference(first: Mapping[str, Ranked], own: Mapping[str, Ranked], sample: Sample, error: float) -> Estimate:
    """The score of one run minus that of the first, over the same records.

    The value is the difference of two attackers' advantages: each run's best attack and threshold, chosen on one half
    and measured on the other. The interval is for the difference of the two best advantages in the population. It
    joins the runs' own score intervals, which hold those, by how much the attackers agree about the same records; so it
    is that of independent samples where they do not agree. (Newcombe's paired interval of the two attackers' answers
    alone misses in up to 12 %: what it holds is the difference at the thresholds that were found.)

    Args:
        first, own: each attack's scores of the n records; see `roc.rank`.
        sample: the n records.
        error: total probability that the interval misses.

    Source: Zou 2007 (intervals of dependent estimates); simulated in tests/test_pairing.py.

    >>> n = np.arange(2000)
    >>> sample = Sample(n < 1000, n % 2)
    >>> one, other = ({"loss": rank(np.sin(n * n) + leak * (n < 1000))} for leak in (0.1, 0.3))
    >>> [round(end, 2) for end in score_difference(one, other, sample, 0.05)[:3]]
    [0.11, 0.08, 0.14]
    """
    ours, theirs = sample.rocs(own), sample.rocs(first)
    scores = selection.score(ours, error), selection.score(theirs, error)
    if reason := scores[0].reason or scores[1].reason:
        return metrics.undefined(reason)
    agreement = _agreement(calls(own, ours, sample.halves), calls(first, theirs, sample.halves), sample)
    return difference_of(*scores, agreement)


def calls(ranked: Mapping[str, Ranked], rocs: Mapping[str, Roc], halves: NDArray[np.integer[Any]]) -> Bools:
    """(n,) whom the attacker calls a member, by the attack and threshold that are best on the other half.

    Args:
        ranked: each attack's scores of the n records.
        rocs: their Rocs.
        halves: (n,) 0 or 1.

    >>> scores, halves = {"loss": rank(np.array([.9, .8, .3, .1]))}, np.array([0, 1, 0, 1])
    >>> sample = Sample(np.array([1, 1, 0, 0], bool), halves)
    >>> calls(scores, sample.rocs(scores), halves).tolist()
    [True, False, False, False]
    """
    found = np.zeros(len(halves), bool)
    for half in range(HALVES):
        name = selection.best_on({name: roc.cross_fit for name, roc in rocs.items()}, half)
        roc, rows = rocs[name], halves != half
        at, _ = peak(roc.tp[half], roc.fp[half], int(roc.members[half]), int(roc.nonmembers[half]))
        keys = ranked[name].keys[rows]
        found[rows] = ranked[name].scores(keys)[1:] >= roc.thresholds[at]
    return found


def _agreement(own: Bools, first: Bools, sample: Sample) -> float:
    """Correlation of two cross-fitted advantages: of the attackers' answers, side by side, each half by its weight."""
    member, halves, effective = sample
    sizes = np.array([[(rows & (halves == half)).sum() for half in range(HALVES)] for rows in (member, ~member)])
    weight = 1 / (1 / sizes).sum(axis=0)  # as `metrics.advantage_counts` averages the halves
    weight = weight / weight.sum()
    shared, variances = 0.0, np.zeros(2)
    for side, rows in enumerate((member, ~member)):
        of_row = (weight / sizes[side])[halves[rows]]
        n = effective[side] / float(np.square(of_row).sum())
        mine, theirs, both = (float(of_row @ x[rows]) for x in (own, first, own & first))
        spread = np.array([mine * (1 - mine), theirs * (1 - theirs)]) / n
        variances += spread
        shared += intervals.phi(n * both, n * mine, n * theirs, n) * math.sqrt(max(float(spread.prod()), 0.0))
    total = math.sqrt(float(variances.prod()))
    return shared / total if total > 0 else 0.0


def auc_difference(
    first: Mapping[str, Ranked],
    own: Mapping[str, Ranked],
    sample: Sample,
    error: float,
    *,
    fitted: frozenset[str] = frozenset(),
) -> Estimate:
    """The best attack's AUC in one run minus that in the first, over the same records.

    The interval is for the difference of the two best AUCs in the population: the runs' own intervals, joined by the
    correlation of the two AUCs that are best here; or DeLong's plain one where that reaches further. (Joined alone
    they miss in up to 13 % where one AUC is near 1: the long end of its interval is taken from the other's.)

    Args:
        first, own, sample, error: as for `score_difference`.
        fitted: attacks whose scores came from models fitted on membership.

    Source: DeLong et al. 1988 (covariance); Zou 2007.

    >>> n = np.arange(2000)
    >>> sample = Sample(n < 1000, n % 2)
    >>> one, other = ({"loss": rank(np.sin(n * n) + leak * (n < 1000))} for leak in (0.1, 0.3))
    >>> [round(end, 3) for end in auc_difference(one, other, sample, 0.05)[:3]]
    [0.073, 0.069, 0.077]
    """
    ours, theirs = best_auc(sample.rocs(own, fitted), error), best_auc(sample.rocs(first, fitted), error)
    if reason := ours.estimate.reason or theirs.estimate.reason:
        return metrics.undefined(reason)
    shared = delong_covariance(own[ours.attack], first[theirs.attack], sample.member)
    total = math.sqrt(ours.variance * theirs.variance)
    value, low, high, _ = difference_of(ours.estimate, theirs.estimate, shared / total if total > 0 else 0.0)
    variance = (ours.variance + theirs.variance - 2 * shared) / min(sample.effective)
    plain = intervals.symmetric(value, variance, error)
    return Estimate(value, min(low, float(plain.low)), max(high, float(plain.high)))


class Best(NamedTuple):
    """An attack, its AUC with an interval for the largest AUC in the population, and the variance of its own.

    >>> Best("loss", Estimate(0.6, 0.5, 0.7), 0.0025).variance
    0.0025
    """

    attack: str
    estimate: Estimate
    variance: float


def best_auc(rocs: Mapping[str, Roc], error: float) -> Best:
    """The attack of largest AUC; the low end is the largest of the attacks' at error / attacks, the high end at error.

    >>> n = np.arange(400)
    >>> rocs = Sample(n < 200, n % 2).rocs({"loss": rank(np.sin(n * n) + (n < 200)), "other": rank(np.sin(n * n))})
    >>> best_auc(rocs, 0.05).attack
    'loss'
    """
    known = {name: roc for name, roc in rocs.items() if metrics.auc(roc, error).reason is None}
    if not known:
        return Best("", metrics.undefined("no attack's AUC has an interval"), metrics.NAN)
    top = max(known, key=lambda name: known[name].placement.auc)
    value, variance = known[top].placement
    low = max(metrics.auc(roc, error / len(known)).low for roc in known.values())
    high = max(metrics.auc(roc, error).high for roc in known.values())
    # What shared fits add to the variance is not known to be common to both runs: the correlation is of all of it.
    return Best(top, Estimate(value, min(low, value), max(high, value)), variance * (2 if known[top].fitted else 1))


def delong_covariance(one: Ranked, other: Ranked, member: Bools) -> float:
    """Covariance of the AUCs of two scores of the same n records; of one score with itself, its variance.

    Args:
        one, other: (n,) scores each.
        member: (n,) bool, two or more a side.

    Source: DeLong, DeLong and Clarke-Pearson 1988, section 3.

    >>> scores = rank(np.array([.9, .3, .8, .1]))
    >>> delong_covariance(scores, scores, np.array([1, 1, 0, 0], bool))
    0.125
    """
    total = 0.0
    for rows in (member, ~member):
        ours, theirs = _placements(one.keys, rows), _placements(other.keys, rows)
        total += float((ours - ours.mean()) @ (theirs - theirs.mean())) / (len(ours) - 1) / len(ours)
    return total


def _placements(keys: NDArray[np.uint32], rows: Bools) -> Floats:
    """Of each of some rows, the share of the other side whose key is larger (the score lower), ties one half."""
    others, asked = np.sort(keys[~rows]), keys[rows]
    smaller_or_half = np.searchsorted(others, asked, "left") + np.searchsorted(others, asked, "right")
    return np.asarray(1 - smaller_or_half / (2 * len(others)))


def accuracy_difference(first: Bools, own: Bools, rows: Bools, effective: float, error: float) -> Estimate:
    """How much more often one model is right than the first, on the same records.

    Args:
        first, own: (n,) whether each model is right.
        rows: (n,) bool, the side that counts.
        effective: as how many independent records each counts.
        error: total probability that the interval misses.

    Source: Newcombe 1998 (improved intervals for paired data), method 10.

    >>> n = np.arange(1000)
    >>> change = accuracy_difference(n % 5 > 0, n % 10 > 0, n >= 0, 1.0, 0.05)
    >>> [round(end, 3) for end in change[:3]]
    [0.1, 0.082, 0.119]
    """
    n = effective * float(rows.sum())
    mine, theirs, both = (effective * float((right & rows).sum()) for right in (own, first, own & first))
    correlation = intervals.phi(both, mine, theirs, n)
    ours, others = intervals.wilson(mine, n, error), intervals.wilson(theirs, n, error)
    ends = intervals.difference(mine / n, ours, theirs / n, others, correlation=correlation)
    return Estimate((mine - theirs) / n, float(ends.low), float(ends.high))


def difference_of(own: Estimate, first: Estimate, correlation: float = 0.0) -> Estimate:
    """One estimate minus another: of independent samples, or with the correlation of the two.

    >>> [round(end, 2) for end in difference_of(Estimate(0.5, 0.4, 0.6), Estimate(0.5, 0.4, 0.6), 1.0)[:3]]
    [0.0, 0.0, 0.0]
    """
    bounds = [Bounds(np.asarray(estimate.low), np.asarray(estimate.high)) for estimate in (own, first)]
    ends = intervals.difference(own.value, bounds[0], first.value, bounds[1], correlation=correlation)
    return Estimate(own.value - first.value, float(ends.low), float(ends.high))


# --------------------------------------------------------------------------------------------------- the runs


@dataclass(frozen=True, eq=False)
class Scored:
    """A run's records, scored anew by the attacks of its audit.

    Attributes:
        member: (n,) bool.
        ids: (n,) int or text.
        groups: (n,) or None.
        ranked: each attack's scores; none where one cannot be repeated.
        fitted: attacks fitted on membership.
        right: (n,) whether the model is right, or None.
        seed: of the run.
        lacking: why the scores are not here, or None.
    """

    member: Bools
    ids: NDArray[Any]
    groups: NDArray[Any] | None
    ranked: Mapping[str, Ranked]
    fitted: frozenset[str]
    right: Bools | None
    seed: int
    lacking: str | None


def scored(report: Report, evidence: Evidence, name: str) -> Scored:
    """A run's records as its audit scored them.

    Args:
        report: the run.
        evidence: what it was audited with.
        name: what to call the run in errors.

    Raises:
        InputError: DV065, it was audited with something else; DV066, there are no ids.

    >>> from divulge.pipeline import audit
    >>> evidence = Evidence(np.arange(8) < 4, signals={"loss": np.arange(8.0)}, ids=np.arange(8))
    >>> len(scored(audit(evidence, controls=()), evidence, "run").ranked["loss"].keys)
    8
    """
    contents = content_hashes(evidence)
    found, wanted = digest(evidence, contents), report.meta.get("data", {}).get("digest")
    if found != wanted:
        raise InputError("DV065", f"expected for {name} the evidence of digest {wanted}, got {evidence!r} of {found}")
    if evidence.ids is None:
        raise InputError("DV066", f"expected ids in the evidence for {name}, got {evidence!r} without any")
    looked = any(row["control"] == "duplicates" and row["status"] != "not run" for row in report.rows("controls"))
    shared = shared_records(evidence, contents) if looked else None
    kept = np.ones(len(evidence), bool) if shared is None or shared.by is None else ~shared.rows
    known = without_shared(identified(evidence, contents), shared)
    attacks, lacking = _attacks_of(report, evidence)
    known = with_signals(known, attacks)
    seed = int(report.meta["seed"])
    return Scored(
        known.member,
        evidence.ids[kept],
        known.groups,
        {attack.name: rank(scores_of(attack, known, seed)) for attack in attacks},
        frozenset(attack.name for attack in attacks if attack.fitted),
        known.signals["correct"] >= 1 if "correct" in known.signals else None,
        seed,
        lacking,
    )


def _attacks_of(report: Report, evidence: Evidence) -> tuple[list[NamedAttack], str | None]:
    """The attacks that ran, by their names; or none and the reason where one is not what its name says."""
    found = []
    for row in report.rows("attacks"):
        if row["status"] != "ran":
            continue
        try:
            attack = attack_family.named(row["attack"], evidence)
        except (InputError, Unavailable):
            attack = None
        provenance = report.meta.get("attacks", {}).get(row["attack"])
        if attack is None or without_address(repr(attack.call)) != provenance:
            return [], f"the attack {str(row['attack'])[:40]} is a function of one's own and cannot be repeated here"
        found.append(attack)
    return found, None


def pair(first: Scored, own: Scored, error: float) -> Pairing:
    """Match two runs' records by id, and give the differences over those that are in both on the same side.

    Halves are those of the first run's seed, so that a record is in the same half for both.

    Args:
        first, own: the runs.
        error: total probability that an interval misses.

    >>> n = np.arange(400)
    >>> run = Scored(n < 200, n, None, {"loss": rank(np.sin(n))}, frozenset(), None, 0, None)
    >>> pair(run, run, 0.05).members
    200
    """
    rows = matched(first.ids, own.ids)
    same = first.member[rows[0]] == own.member[rows[1]]
    of_first, of_own = (found[same] for found in rows)
    member = first.member[of_first]
    members = int(member.sum())
    left_out = len(first.member) - len(member), len(own.member) - len(member)
    groups, reason = _groups(first, own, of_first, of_own)
    effective = effective_shares(member, groups)
    sizes = effective[0] * members, effective[1] * (len(member) - members)
    if min(sizes) < FEW:
        counted = "" if groups is None else ", counted by group"
        has = f"{math.floor(sizes[0]):,} members and {math.floor(sizes[1]):,} non-members"
        reason = f"only {has} are in both{counted}; to pair them takes {FEW} a side"
    differences: dict[str, Estimate] = {}
    if reason is None:
        half = halves(Evidence(member, ids=first.ids[of_first], groups=groups), first.seed)
        sample = Sample(member, half, effective)
        differences = _differences(first, of_first, own, of_own, sample, error)
        reason = first.lacking or own.lacking
    crossed = int((~same).sum())
    return Pairing(members, len(member) - members, left_out, crossed, differences, reason)


def matched(first: NDArray[Any], own: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the records that are in both, an id each; ids that a run has twice name no record.

    Args:
        first: (n,) int or text.
        own: (m,) int or text; where the two differ in kind, numbers count as their texts.

    >>> [rows.tolist() for rows in matched(np.array([1, 2, 2, 3]), np.array(["3", "2", "1"]))]
    [[0, 3], [2, 0]]
    """
    numbers = first.dtype.kind in "iu" and own.dtype.kind in "iu"
    found = []
    for ids in (first, own):
        hashes = array_hashes(ids.astype(np.int64) if numbers else ids.astype(str))
        distinct, row, count = np.unique(hashes, return_index=True, return_counts=True)
        found.append((distinct[count == 1], row[count == 1]))
    (ours, rows), (theirs, other_rows) = found
    _, at, other_at = np.intersect1d(ours, theirs, assume_unique=True, return_indices=True)
    order = np.argsort(rows[at])
    return rows[at][order], other_rows[other_at][order]


def _groups(
    first: Scored, own: Scored, of_first: NDArray[np.int64], of_own: NDArray[np.int64]
) -> tuple[NDArray[Any] | None, str | None]:
    """The matched records' groups, of the run that has them; and why there are none where the runs disagree."""
    given = [run.groups[rows] for run, rows in ((first, of_first), (own, of_own)) if run.groups is not None]
    if len(given) == 2:
        hashes = np.stack([array_hashes(groups) for groups in given], axis=1)
        together = len(np.unique(hashes, axis=0))
        if any(len(np.unique(column)) != together for column in hashes.T):
            return given[0], "the two runs put the same records into different groups"
    return (given[0] if given else None), None


def _differences(
    first: Scored, of_first: NDArray[np.int64], own: Scored, of_own: NDArray[np.int64], sample: Sample, error: float
) -> dict[str, Estimate]:
    """By metric, what is defined over the matched records."""
    found: dict[str, Estimate] = {}
    if first.ranked and own.ranked:
        theirs, ours = (
            {name: Ranked(scores.keys[rows], scores.values) for name, scores in run.ranked.items()}
            for run, rows in ((first, of_first), (own, of_own))
        )
        found["score"] = score_difference(theirs, ours, sample, error)
        found["auc"] = auc_difference(theirs, ours, sample, error, fitted=first.fitted | own.fitted)
    if first.right is not None and own.right is not None:
        for metric, rows, share in zip(
            ("member_accuracy", "nonmember_accuracy"), (sample.member, ~sample.member), sample.effective, strict=True
        ):
            right = first.right[of_first], own.right[of_own]
            found[metric] = accuracy_difference(*right, rows, share, error)
    return {metric: estimate for metric, estimate in found.items() if estimate.reason is None}
