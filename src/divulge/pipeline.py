"""audit(): the only file that knows the order. Evidence -> scores -> slices -> Rocs -> estimates -> Report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import attacks as attack_family
from divulge import controls as control_family
from divulge import measuring
from divulge import metrics as metric_family
from divulge import slices as slice_family
from divulge.attacks import Attack, NamedAttack
from divulge.controls import Setting, Shared
from divulge.copies import with_copies_grouped
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.folds import effective_shares, halves
from divulge.identity import content_hashes, digest, identified
from divulge.metrics import Estimate, Metric
from divulge.provenance import of_references, provenance
from divulge.records import Records, declared, table_of_records
from divulge.report import Report, Row
from divulge.roc import Ranked, Roc, exact_slices, rank, tags
from divulge.scoring import scores_of, with_answers, with_signals
from divulge.slices import MIN_N, Merged, Slicer

if TYPE_CHECKING:
    from divulge.policy import Policy
    from divulge.streams import Stream

Progress = Callable[[int, int, str], None]


def audit(
    evidence: Evidence | Stream | Iterable[Evidence],
    *,
    attacks: str | Attack | Iterable[str | Attack] = "default",
    slices: str | Slicer | Iterable[str | Slicer] = (),
    metrics: str | Metric | Iterable[str | Metric] = "default",
    controls: str | Iterable[str] = "default",
    policy: Policy | None = None,
    baseline: Report | None = None,
    name: str | None = None,
    confidence: float = 0.95,
    min_n: int = MIN_N,
    seed: int = 0,
    records: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Attack a model through its outputs and report how well that works.

    Args:
        evidence: n records, members and non-members; or a `Stream` of any number, of which an iterable of blocks is
            one: its Rocs are counted in bins, and what must hold many records at once (controls, fits, the table of
            records) is done on samples that the report states.
        attacks: a budget ("quick", "default", "thorough"), or names, objects, callables or scikit-learn classifiers,
            alone or several; of those that do about equally well the first is measured. See `divulge.attacks`.
        slices: names or callables; see `divulge.slices`. "everyone" is always one.
        metrics: "default", or names or callables; see `divulge.metrics`. The score and the tail are always there.
        controls: "default" is all of them; names run only those, "-name" all but that one, () none; the report
            says which were turned off. See `divulge.controls`.
        policy: limits to hold the report against; None: nothing is gated.
        baseline: an earlier report, for limits on an increase.
        name: what to call the model, where the report is shown; None: nothing.
        confidence: of every interval; a leak-free model raises a leak finding with at most 1 - confidence.
        min_n: rows a side below which a slice is merged into the rest.
        seed: fixes the halves and every attack's randomness: the same seed gives the same report.
        records: whether the report that is returned also has the table "records", one row a record; no file and no
            other form of a report holds it. See `divulge.records.Records`.
        progress: called with (done, the whole, what is being done); attacks that cannot run make the whole smaller.

    Raises:
        InputError: a name that is not known, no members or no non-members, a confidence outside (0, 1).
        Unavailable: an attack or a slice that was named cannot be had from this evidence.
        PolicyError: the policy limits an increase and there is no baseline.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> leaky = Evidence(member=n < 1000, signals={"loss": np.sin(n * n) + 0.2 * (n < 1000)})
    >>> [round(end, 2) for end in audit(leaky).score[:3]]
    [0.2, 0.13, 0.25]
    """
    stream = _streamed(evidence)
    _check_types(evidence if stream is None else None, policy, baseline)
    seed, min_n, confidence = int(seed), int(min_n), float(confidence)
    check_settings(confidence, min_n, seed)
    if policy is not None:
        policy.check_baseline(baseline)
    slicers = [slices] if isinstance(slices, str) or callable(slices) else list(slices)
    everyones = metric_family.all_named(metrics)
    if policy is not None:
        have = {str(metric[:3]) for metric in everyones}
        everyones += [metric for metric in policy.metrics() if str(metric[:3]) not in have]
    of_slices = metric_family.all_named(metric_family.OF_SLICES) if metrics == "default" else everyones
    trials = control_family.all_named(controls)
    if stream is not None:
        from divulge.streams import auditing

        return auditing.audit(
            stream,
            attacks=attacks,
            slices=slicers,
            everyones=everyones,
            of_slices=of_slices,
            trials=trials,
            policy=policy,
            baseline=baseline,
            name=name,
            confidence=confidence,
            min_n=min_n,
            seed=seed,
            records=records,
            progress=progress,
        )
    assert isinstance(evidence, Evidence)
    _check_sides(evidence)
    chosen = attack_family.all_named(attacks, evidence)
    cut = [slice_family.named(slicer, evidence) for slicer in slicers]
    steps = Steps(progress, chosen, len(cut), len(evidence) if trials else 0)
    error = 1 - confidence

    steps.at("reading the records")
    contents = content_hashes(evidence)
    named, taught = digest(evidence, contents), of_references(evidence, contents)
    meta = provenance(evidence, chosen, named, taught, seed=seed, confidence=confidence, min_n=min_n)
    known = identified(evidence, contents)
    shared = control_family.shared_records(evidence, contents) if "duplicates" in trials else None
    known = without_shared(known, shared)
    known = with_copies_grouped(known, contents if shared is None or shared.by is None else contents[~shared.rows])
    del contents
    known = with_answers(known, chosen, seed)
    given = sorted(known.signals)
    ready = _prepare(known, chosen, cut, seed=seed, min_n=min_n, error=error, steps=steps)
    member, tag, scored, partitions = ready.evidence.member, ready.tag, ready.scored, ready.partitions
    effective = effective_shares(member, ready.evidence.groups)
    ranks, ran = {attack.name: ranked for attack, ranked in scored}, [attack for attack, _ in scored]

    def roc_of(attack: NamedAttack) -> Roc:
        codes = np.zeros(1, np.int32)
        return next(exact_slices(ranks[attack.name], tag, codes, 1, fitted=attack.fitted, effective=effective))

    def slice_rocs(attack: NamedAttack, merged: Merged) -> Iterator[Roc]:
        part, ranked = merged.partition, ranks[attack.name]
        how_many = len(part.labels)
        return exact_slices(ranked, tag, part.codes, how_many, part.rows, fitted=attack.fitted, effective=effective)

    steps.at("measuring")
    right = measuring.right_of(ready.evidence.signals.get("correct"), member)
    found = measuring.of_all(ran, roc_of, partitions, everyones, right, error, lambda: steps.did(1))
    one_by_one = records_of(evidence, ready, shared, seed=seed, error=error, steps=steps) if records else None
    steps.at("controls")
    setting = None
    sizes = int(member.sum()), int((~member).sum())
    if trials:
        both = shared or Shared(None, np.zeros(0, bool), 0, sizes[1])
        setting = setting_of(ready, found.aucs, both, given, sizes=sizes, effective=effective, seed=seed, steps=steps)
    outcomes = control_family.run(trials, setting)
    statuses = ready.statuses
    del setting, ready, known, scored  # what is left needs only the ranked scores
    steps.at("measuring slices")
    slice_rows = measuring.of_partitions(
        found, ran, slice_rocs, partitions, of_slices, sizes, error, lambda: steps.did(1)
    )
    tables = measuring.tables(found, slice_rows, statuses, outcomes)
    meta |= {} if name is None else {"name": str(name)}
    meta |= {"tests": found.tests, "slices": [merged.partition.name for merged in partitions]}
    if one_by_one is not None:
        tables["records"] = one_by_one.columns
        meta["records"] = one_by_one.about
    steps.last()
    return Report({**meta, "verdict": "NOT_GATED", "policy": None}, tables).judged(policy, baseline=baseline)


# ------------------------------------------------------------------------------------------------- preparation


def _streamed(evidence: object) -> Stream | None:
    """What is read a block at a time: a stream, or an iterator or list of blocks."""
    from divulge.streams import Stream

    if isinstance(evidence, Stream):
        return evidence
    return Stream(evidence) if isinstance(evidence, Iterator | list | tuple) else None


def _check_types(evidence: object, policy: object, baseline: object) -> None:
    from divulge.limits import Policy

    if not isinstance(evidence, Evidence | None):
        doors = "Evidence.from_splits, .from_table or .load, or Stream"
        raise InputError("DV056", f"expected Evidence, got {type(evidence).__name__}: make it with {doors}")
    if not isinstance(policy, Policy | None):
        raise InputError("DV056", f"expected a Policy, got {type(policy).__name__}: use Policy.load or .from_mapping")
    if not isinstance(baseline, Report | None):
        raise InputError("DV056", f"expected a Report as baseline, got {type(baseline).__name__}: use Report.load")


def check_settings(confidence: float, min_n: int, seed: int) -> None:
    """The settings of an audit.

    Raises:
        InputError: DV056, one is out of range.
    """
    if seed < 0:
        raise InputError("DV056", f"expected a seed from 0 up, got {seed!r}")
    if not 0.5 <= confidence < 1:
        raise InputError("DV056", f"expected a confidence from 0.5 up to, not including, 1, got {confidence!r}")
    if min_n < 2:
        raise InputError("DV056", f"expected min_n of at least 2, got {min_n!r}")


def _check_sides(evidence: Evidence) -> None:
    members = int(evidence.member.sum())
    if members in (0, len(evidence.member)):
        sides = "non-members" if members else "members"
        raise InputError("DV056", f"expected members and non-members, got no {sides} among {len(evidence.member)} rows")


class Steps:
    """Tells the caller how far the audit is, in units of about one signal's threshold."""

    def __init__(self, progress: Progress | None, attacks: Sequence[NamedAttack], cuts: int, tried: int) -> None:
        """tried: rows that the controls may try the attacks on, 0 where none does."""
        self._progress, self._done, self._what = progress, 0.0, ""
        self.share = min(1.0, 2 * control_family.TRIAL_SAMPLE / max(tried, 1))
        self._times = 1 + (control_family.TRIALS * self.share if tried else 0)
        self._total = 1 + math.ceil(sum(attack.cost * self._times + 1 + cuts for attack in attacks))

    def at(self, what: str) -> None:
        """The next thing to be done."""
        self._what = what
        if self._progress is not None:
            self._progress(int(self._done), self._total, what)

    def did(self, cost: float) -> None:
        """A part of it is done."""
        self._done = min(self._done + cost, self._total - 1)
        self.at(self._what)

    def skip(self, attack: NamedAttack) -> None:
        """An attack that did not run is no part of the whole."""
        self._total = max(self._total - math.floor(attack.cost * self._times), int(self._done) + 1)

    def last(self) -> None:
        """All is done."""
        if self._progress is not None:
            self._progress(self._total, self._total, "done")


class Ready(NamedTuple):
    """What is measured: the evidence with its signals, (n,) tags, ranked scores, slices, and how the attacks ran."""

    evidence: Evidence
    tag: NDArray[np.uint8]
    scored: list[tuple[NamedAttack, Ranked]]
    statuses: list[Row]
    partitions: list[Merged]
    unscored: dict[str, tuple[int, int]]


def _prepare(
    evidence: Evidence,
    attacks: Sequence[NamedAttack],
    slicers: Sequence[Slicer],
    *,
    seed: int,
    min_n: int,
    error: float,
    steps: Steps,
) -> Ready:
    """Halves, signals, slices and every attack's scores."""
    tag = tags(evidence.member, halves(evidence, seed))
    evidence = with_signals(evidence, attacks)
    cuts = [slice_family.checked(slicer(evidence), len(evidence)) for slicer in slicers]
    partitions = [slice_family.merge_small(cut, evidence.member, min_n) for cut in cuts]
    names = [merged.partition.name for merged in partitions]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError("DV053", f"two partitions are called {min(twice)!r}: ask for each once")
    scored: list[tuple[NamedAttack, Ranked]] = []
    statuses: list[Row] = []
    unscored: dict[str, tuple[int, int]] = {}
    for attack in attacks:
        steps.at(f"attack {attack.name}")
        try:
            scores = scores_of(attack, evidence, seed)
            steps.did(attack.cost)
        except Unavailable as reason:
            if attack.required:
                raise Unavailable(f"the attack {attack.name} cannot run: {reason.message}") from reason
            steps.skip(attack)
            statuses.append({"attack": attack.name, "status": "skipped", "reason": reason.message})
            continue
        gaps = np.isnan(scores)
        members = int((gaps & evidence.member).sum())
        unscored[attack.name] = members, int(gaps.sum()) - members
        text = "{:,} members and {:,} non-members not scored: counted lowest".format(*unscored[attack.name])
        statuses.append({"attack": attack.name, "status": "ran", "reason": text if gaps.any() else None})
        scored.append((attack, rank(scores)))
    if not scored:
        reasons = "; ".join(f"{row['attack']}: {row['reason']}" for row in statuses)
        raise Unavailable(f"no attack could run on this evidence ({reasons})")
    return Ready(evidence, tag, scored, statuses, partitions, unscored)


def without_shared(evidence: Evidence, shared: Shared | None) -> Evidence:
    """The records that stand on one side only.

    Raises:
        InputError: DV059, then a side is empty.
    """
    if shared is None or shared.by is None:
        return evidence
    apart = evidence.take(~shared.rows)
    if len(set(apart.member.tolist())) < 2:
        raise InputError(
            "DV059",
            f"{shared.nonmembers:,} non-members share their {shared.by} with members, and no two sides are left: "
            "are the same records given as members and as non-members?",
        )
    return apart


def setting_of(
    ready: Ready,
    aucs: Mapping[str, Estimate],
    shared: Shared,
    given: Sequence[str],
    *,
    sizes: tuple[int, int],
    effective: tuple[float, float],
    seed: int,
    steps: Steps,
) -> Setting:
    """What the controls may look at; sizes, effective: of the audit, of which the records may be a sample."""

    def run(attack: NamedAttack, part: Evidence) -> NDArray[np.floating[Any]]:
        steps.at(f"controls: {attack.name}")
        steps.did(attack.cost * steps.share)
        return scores_of(attack, with_signals(part, [attack]), seed)

    attacks = [attack for attack, _ in ready.scored]
    part = control_family.subsample(ready.evidence, control_family.SAMPLE, seed)
    ranked = {attack.name: scores for attack, scores in ready.scored}
    return Setting(
        evidence=ready.evidence,
        part=part,
        given=tuple(given),
        attacks=attacks,
        aucs=aucs,
        unscored=ready.unscored,
        ranked=ranked,
        tag=ready.tag,
        shared=shared,
        run=run,
        seed=seed,
        sizes=sizes,
        effective=effective,
    )


def records_of(
    evidence: Evidence, ready: Ready, shared: Shared | None, *, seed: int, error: float, steps: Steps
) -> Records:
    """The records one by one, under the ids that the user gave them."""
    steps.at("records")
    rows = np.arange(len(evidence)) if shared is None or shared.by is None else np.flatnonzero(~shared.rows)
    ids = rows if evidence.ids is None else evidence.ids[rows]
    attack = declared([attack for attack, _ in ready.scored])
    ranked = next(scores for one, scores in ready.scored if one.name == attack.name)
    scores = ranked.scores(ranked.keys)[1:]
    if any(ready.unscored[attack.name]):
        scores = np.where(np.isinf(scores), np.nan, scores)  # what has no score was ranked lowest
    left_out = len(evidence) - len(rows)
    return table_of_records(ready.evidence, ids.tolist(), attack, scores, seed=seed, error=error, left_out=left_out)
