"""audit() of records that are read once, a block at a time: any number of them, in memory that does not grow.

Sketch -> plan (attacks fitted, slices' edges settled) -> tallies of blocks, added up -> Rocs -> the same report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from divulge import controls as control_family
from divulge import measuring
from divulge.attacks import NamedAttack
from divulge.identity import digest_text
from divulge.metrics import NamedMetric
from divulge.preparing import Steps, finished, records_of, setting_of
from divulge.provenance import provenance
from divulge.report import Report
from divulge.roc import Roc
from divulge.slices import Merged, Slicer
from divulge.streams.dealing import unplaced
from divulge.streams.measured import effective_of, in_order, merged_of, ready_of, rearranged, said, shared_of
from divulge.streams.planning import planned
from divulge.streams.reading import Progress, one_sided, read
from divulge.streams.source import Stream
from divulge.streams.tally import BITS, SLICE_BITS

if TYPE_CHECKING:
    from divulge.policy import Policy


def audit(
    stream: Stream,
    *,
    attacks: Any,
    slices: Sequence[str | Slicer],
    everyones: Sequence[NamedMetric],
    of_slices: Sequence[NamedMetric],
    trials: Sequence[str],
    policy: Policy | None,
    baseline: Report | None,
    name: str | None,
    confidence: float,
    min_n: int,
    seed: int,
    records: bool,
    progress: Progress | None,
) -> Report:
    """What `divulge.audit` does with a `Stream`; the arguments are its own, with the defaults resolved."""
    error = 1 - confidence
    tell: Progress = progress or (lambda done, total, what: None)
    tell(0, 1, "looking at the records")
    settings = partial(planned, attacks=attacks, slices=slices, seed=seed, sample=stream.sample)
    found = read(stream, settings, tell)
    plan, tally = found.plan, found.tally
    if tally is None or not tally.rows.all():
        raise one_sided(*((0, 0) if tally is None else tally.rows.tolist()))
    ran, sizes, statuses = (
        list(plan.attacks),
        (int(tally.rows[0]), int(tally.rows[1])),
        said(found.statuses, plan, tally),
    )
    effective = effective_of(tally)
    cuts = {part.name: part for part in tally.slices}
    first = [slicer(found.sketch).labels for slicer in plan.slicers]
    ordered = [in_order(part, labels, found.sketch) for part, labels in zip(tally.slices, first, strict=True)]
    partitions = [merged_of(part, labels, min_n) for part, labels in zip(tally.slices, ordered, strict=True)]

    def roc_of(attack: NamedAttack) -> Roc:
        counts, centre = tally.everyone[attack.name], plan.centres[attack.name]
        return counts.roc(fitted=attack.fitted, effective=effective, centre=centre)

    def slice_rocs(attack: NamedAttack, merged: Merged) -> Iterator[Roc]:
        counts = rearranged(cuts[merged.partition.name], attack.name, merged)
        for at in range(len(merged.partition.labels)):
            yield counts.roc(at, fitted=attack.fitted, effective=effective, centre=plan.centres[attack.name])

    steps = Steps(progress, ran, len(partitions), len(tally.sample.hashes) if trials else 0)
    steps.at("measuring")
    right = None if tally.right is None else (int(tally.right[0]), int(tally.right[1]))
    of_all = measuring.of_all(ran, roc_of, partitions, everyones, right, error, lambda: steps.did(1))
    ready = ready_of(plan, tally, statuses) if trials or records else None
    one_by_one = None
    if records and ready is not None:
        one_by_one = records_of(unplaced(tally.sample.rows), ready, None, seed=seed, error=error, steps=steps)
    setting = None
    if trials and ready is not None:
        steps.at("controls")
        given, shared = sorted(tally.sample.rows.signals), shared_of(tally)
        setting = setting_of(
            ready, of_all.aucs, shared, given, sizes=sizes, effective=effective, seed=seed, steps=steps
        )
        groups = None if tally.groups is None else tally.groups.shared()
        setting = setting._replace(in_order=False, shared_groups=groups)
    outcomes = control_family.run(trials, setting)
    steps.at("measuring slices")
    rows = measuring.of_partitions(of_all, ran, slice_rocs, partitions, of_slices, sizes, error, lambda: steps.did(1))
    tables = measuring.tables(of_all, rows, statuses, outcomes)
    meta = provenance(found.sketch, ran, digest_text(tally.digest), None, seed=seed, confidence=confidence, min_n=min_n)
    meta["data"] |= {"members": sizes[0], "nonmembers": sizes[1]}
    meta["stream"] = {
        "files": found.files,
        "left_out": found.left_out,
        "bins": 1 << BITS,
        "bins_of_slices": 1 << SLICE_BITS,
        "sketch": len(found.sketch),
        "sample": {"members": int(tally.sample.rows.member.sum()), "rows": len(tally.sample.hashes)},
    }
    steps.last()
    cut = [merged.partition.name for merged in partitions]
    return finished(
        meta, tables, of_all.tests, name=name, slices=cut, records=one_by_one, policy=policy, baseline=baseline
    )
