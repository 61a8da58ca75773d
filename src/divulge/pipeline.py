"""audit(): the order of things. Evidence -> scores -> slices -> Rocs -> estimates -> Report.

Records that do not fit into memory, or lie on a device, are audited in the same order by `divulge.streams.auditing` and
`divulge.adapters.device.auditing`; what all three share is `divulge.preparing` and `divulge.measuring`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from divulge import attacks as attack_family
from divulge import controls as control_family
from divulge import measuring
from divulge import metrics as metric_family
from divulge import slices as slice_family
from divulge.attacks import Attack, NamedAttack
from divulge.controls import Shared
from divulge.copies import with_copies_grouped
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.folds import effective_shares, halves
from divulge.identity import content_hashes, digest, identified
from divulge.metrics import Metric
from divulge.preparing import (
    Progress,
    Ready,
    Steps,
    check_settings,
    check_sides,
    finished,
    records_of,
    setting_of,
    without_shared,
)
from divulge.provenance import of_references, provenance
from divulge.report import Report, Row
from divulge.roc import Ranked, Roc, exact_slices, rank, tags
from divulge.scoring import scores_of, with_answers, with_signals
from divulge.slices import MIN_N, Merged, Slicer

if TYPE_CHECKING:
    from divulge.policy import Policy
    from divulge.streams import Stream


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
        InputError: a name that is not known, no members or no non-members, a confidence outside [0.5, 1).
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
    check_settings(confidence, min_n, seed=seed)
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
    check_sides(evidence)
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
    steps.last()
    cuts = [merged.partition.name for merged in partitions]
    return finished(
        meta, tables, found.tests, name=name, slices=cuts, records=one_by_one, policy=policy, baseline=baseline
    )


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
            if np.isnan(scores).all():
                raise Unavailable(f"it scored none of the {len(scores):,} records")
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
