"""From the counts of a stream to what an audit in memory has: slices, shares, samples."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from divulge import preparing, signals
from divulge.bins import Histogram
from divulge.controls import Shared
from divulge.controls.records import unusual
from divulge.copies import MOST_COPIES, are_copies, with_copies_grouped
from divulge.evidence import Evidence
from divulge.identity import content_hashes, identified
from divulge.report import Row
from divulge.roc import rank, tags
from divulge.slices import BELOW, MISSING, REST, Merged, Partition
from divulge.streams.sketches import Units
from divulge.streams.tally import Plan, Slices, Tally


def said(statuses: Sequence[Row], plan: Plan, tally: Tally) -> list[Row]:
    """How each attack ran: rows of the report; statuses: those that could not."""
    rows = list(statuses)
    for attack in plan.attacks:
        members, nonmembers = tally.unscored[attack.name].tolist()
        text = f"{members:,} members and {nonmembers:,} non-members not scored: counted lowest"
        rows.append({"attack": attack.name, "status": "ran", "reason": text if members or nonmembers else None})
    return rows


def effective_of(tally: Tally) -> tuple[float, float]:
    """See `folds.effective_shares`; of groups, else of copies of a record."""
    if tally.groups is not None:
        return _of_groups(tally.groups, tally)
    copies = tally.copies
    both = copies.members + copies.nonmembers
    several = (both > 1) & (both <= MOST_COPIES)
    if not are_copies(copies.members[several], copies.nonmembers[several]):
        return 1.0, 1.0
    few = both <= MOST_COPIES
    members, nonmembers = (
        _share(sizes[few].astype(np.float64), copies.seen * float(rows))
        for sizes, rows in zip((copies.members, copies.nonmembers), tally.rows, strict=True)
    )
    return members, nonmembers


def _of_groups(groups: Units, tally: Tally) -> tuple[float, float]:
    """Of all groups where they were counted one by one; of more by the sum of their squared sizes."""
    if groups.complete or tally.sizes is None:
        return groups.effective()
    members, nonmembers = (min(1.0, float(rows) / tally.sizes.of_side(side)) for side, rows in enumerate(tally.rows))
    return members, nonmembers


def _share(sizes: NDArray[np.float64], rows: float) -> float:
    """Kish's number of units per row; of the rows, those that are in none of these are units of their own."""
    alone = max(0.0, rows - float(sizes.sum()))
    return float((sizes.sum() + alone) / (np.square(sizes).sum() + alone))


def shared_of(tally: Tally) -> Shared:
    """Records on both sides, by what was counted of ids, else of contents; they are left in."""
    none = np.zeros(0, bool)
    if tally.ids is not None:
        found = int(tally.ids.nonmembers[tally.ids.members > 0].sum())
        if found:
            return Shared("id", none, found, int(tally.ids.nonmembers.sum()))
    copies = tally.copies
    found, of = int(copies.nonmembers[copies.members > 0].sum()), int(copies.nonmembers.sum())
    usual, members = int(copies.members[copies.members > 1].sum()), int(copies.members.sum())
    if of and members and unusual(found, of, usual, members):
        return Shared("output row" if tally.sample.rows.outputs is not None else "signals", none, found, of)
    return Shared(None, none, 0, max(of, 1))


def in_order(part: Slices, first: Sequence[str], sketch: Evidence) -> list[str]:
    """The labels as a partition of all records has them, whichever of them the sketch holds.

    By class, number or text; those of a user's own slicer as the sketch has them, then others.
    """
    names = part.name.split(" & ")
    known = {"class", "correct", *sketch.columns, *sketch.signals, *signals.NAMES}
    order = {label: at for at, label in enumerate(first)}
    if not known.issuperset(names) or any(len(label.split(" & ")) != len(names) for label in part.labels):
        return sorted(part.labels, key=lambda label: (order.get(label, len(order)), label))
    classes = {name: at for at, name in enumerate(sketch.classes or ())}

    def place(name: str, label: str) -> tuple[float, str]:
        value = label.removeprefix(f"{name}=")
        if name == "class" and value in classes:
            return classes[value], ""
        column = sketch.columns.get(name)
        if name == "correct" or (column is not None and column.dtype.kind not in "iuf"):
            return 0.0, "" if value == MISSING else value.strip('"')
        if value.startswith(BELOW):
            return -math.inf, ""
        number = re.match(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|[-+]?inf", value)
        return (float(number[0]), "") if number else (math.inf, value)

    return sorted(part.labels, key=lambda label: [place(*pair) for pair in zip(names, label.split(" & "), strict=True)])


def merged_of(part: Slices, labels: Sequence[str], min_n: int) -> Merged:
    """The partition, of labels in this order, with its small slices merged, as `slices.merge_small`.

    A rest of overlapping slices is not measured: a row may be in several of them.
    """
    members, nonmembers = _sizes(part)
    rows = {label: (int(members[at]), int(nonmembers[at])) for at, label in enumerate(part.labels)}
    kept = [label for label in labels if min(rows[label]) >= min_n]
    small = [label for label in labels if min(rows[label]) < min_n and any(rows[label])]
    found = [rows[label] for label in kept]
    if small:
        kept.append(f"{part.name}={REST}")
        found.append((sum(rows[label][0] for label in small), sum(rows[label][1] for label in small)))
    sizes = np.array(found, np.int64).reshape(-1, 2)
    measured: NDArray[np.bool_] = sizes.min(axis=1, initial=np.iinfo(np.int64).max) >= min_n
    if small and part.overlapping:
        measured[-1] = False
    partition = Partition(part.name, np.zeros(0, np.int32), tuple(kept))
    return Merged(partition, sizes[:, 0], sizes[:, 1], tuple(small), measured)


def _sizes(part: Slices) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = next(iter(part.counts.values())).counts
    return counts[:, :, :2].sum(axis=(1, 2)), counts[:, :, 2:].sum(axis=(1, 2))


def rearranged(part: Slices, attack: str, merged: Merged) -> Histogram:
    """An attack's counts by the labels of the merged partition; one more, at the end, for what is in none."""
    labels = merged.partition.labels
    place = {label: at for at, label in enumerate(labels)} | dict.fromkeys(merged.merged, len(labels) - 1)
    places = np.array([place.get(label, len(labels)) for label in part.labels], np.int64)
    return part.counts[attack].gathered(places, len(labels) + 1)


def ready_of(plan: Plan, tally: Tally, statuses: list[Row]) -> preparing.Ready:
    """The sample as an audit in memory has its records."""
    rows = tally.sample.rows
    contents = content_hashes(rows)
    halves = plan.dealing.halves(rows, contents, plan.seed)
    evidence = plan.prepared(with_copies_grouped(identified(rows, contents), contents))
    scored = [(attack, rank(plan.scores[attack.name](evidence, halves))) for attack in plan.attacks]
    unscored = {name: (int(of[0]), int(of[1])) for name, of in tally.unscored.items()}
    return preparing.Ready(evidence, tags(rows.member, halves), scored, statuses, [], unscored)
