"""From Rocs to the tables of a report: estimates of everyone and of slices, their bounds, curves, Holm's p.

`of_all`, then `of_partitions`, then `tables`: of records in memory and of a stream alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import intervals, metrics, selection
from divulge.attacks import NamedAttack
from divulge.blocks import in_parallel
from divulge.controls import CONTROL_ERROR, Outcome
from divulge.exposure import bands, distribution, distribution_rows
from divulge.findings import leaks_by_score, leaks_of_all
from divulge.metrics import FPRS, NAN, Curve, Estimate, NamedMetric
from divulge.report import LADDER, Row, table_of
from divulge.roc import CrossFit, Roc
from divulge.slices import EVERYONE, Merged

Did = Callable[[], None]


class Results:
    """Rows of the results, and the bounds that belong to some of them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.bounds: list[Row] = []

    def add(self, rows: list[Row], bounds: list[Row]) -> None:
        """`bounds` rows count from the first of `rows`."""
        start = len(self.rows)
        self.rows += rows
        self.bounds += [{**bound, "row": start + bound["row"]} for bound in bounds]


def result_row(attack: str, slice: str, metric: str, estimate: Estimate, sizes: tuple[int, int], **rates: float) -> Row:
    """A row of the results; rates: fpr and prior, where the metric has them."""
    return {
        "attack": attack,
        "slice": slice,
        "metric": metric,
        "fpr": rates.get("fpr", NAN),
        "prior": rates.get("prior", NAN),
        **estimate._asdict(),
        "members": sizes[0],
        "nonmembers": sizes[1],
    }


def ladder_of(row: int, estimate: Estimate, at: Callable[[float], Estimate], error: float) -> list[Row]:
    """The bounds of one estimate at each level, where it has an interval."""
    if np.isnan(estimate.low) and np.isnan(estimate.high):
        return []
    ends = [estimate if level == 1 else at(error * level) for level in LADDER]
    return [{"row": row, "low": [end.low for end in ends], "high": [end.high for end in ends]}]


class OfEveryone(NamedTuple):
    """One attack's rows of the report, over all records."""

    results: list[Row]
    bounds: list[Row]
    curve: list[Row]
    distribution: list[Row]


def of_everyone(attack: str, roc: Roc, wanted: Iterable[NamedMetric], error: float) -> OfEveryone:
    """What is measured of one attack over all records."""
    rows: list[Row] = []
    bounds: list[Row] = []
    sizes = (roc.n_members, roc.n_nonmembers)
    for metric in wanted:
        estimate = metric.call(roc, error)
        bounds += ladder_of(len(rows), estimate, partial(metric.call, roc), error)
        rows.append(result_row(attack, EVERYONE, metric.name, estimate, sizes, fpr=metric.fpr, prior=metric.prior))
    curve = curve_rows(attack, metrics.curve(roc, error))
    return OfEveryone(rows, bounds, curve, distribution_rows(attack, distribution(roc)))


def curve_rows(attack: str, curve: Curve | None) -> list[Row]:
    """A curve's points as rows; None has none."""
    if curve is None:
        return []
    return [
        {"attack": attack, "slice": EVERYONE, **dict(zip(curve._fields, point, strict=True))}
        for point in zip(*(column.tolist() for column in curve), strict=True)
    ]


def best_of_everyone(rocs: Mapping[str, Roc], error: float) -> tuple[list[Row], list[Row]]:
    """The score and the tail at each FPR, with their bounds."""
    first = next(iter(rocs.values()))
    sizes = (first.n_members, first.n_nonmembers)
    score = selection.score(rocs, error)
    rows = [
        result_row(
            selection.select({name: roc.cross_fit for name, roc in rocs.items()}).attack,
            EVERYONE,
            "score",
            score,
            sizes,
        )
    ]
    bounds = ladder_of(0, score, lambda level: selection.score(rocs, level), error)
    for fpr in FPRS:
        tails = selection.tails_at(rocs, fpr, [error * level for level in LADDER])
        for metric, ends in (("tail_tpr", [t.tpr for t in tails]), ("tail_lift", [t.lift for t in tails])):
            at = dict(zip((error * level for level in LADDER), ends, strict=True))
            bounds += ladder_of(len(rows), ends[0], at.__getitem__, error)
            rows.append(result_row(tails[0].attack, EVERYONE, metric, ends[0], sizes, fpr=fpr))
    return rows, bounds


def right_of(correct: NDArray[np.floating[Any]] | None, member: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Members and non-members that the model gives their label, by the signal "correct"; None where there is none."""
    if correct is None:
        return None
    right = correct >= 1
    members = int((right & member).sum())
    return members, int(right.sum()) - members


def accuracy(right: tuple[int, int] | None, sizes: tuple[int, int], error: float) -> list[Row]:
    """How often the model itself is right on each side; of none known, no rows."""
    rows = []
    for metric, k, n in zip(("member_accuracy", "nonmember_accuracy"), right or (), sizes, strict=False):
        low, high = intervals.wilson(k, n, error)
        sizes = (n, 0) if metric == "member_accuracy" else (0, n)
        rows.append(result_row("(model)", EVERYONE, metric, Estimate(k / n, float(low), float(high)), sizes))
    return rows


class SliceFigures(NamedTuple):
    """One attack's figures of one slice."""

    fit: CrossFit
    estimates: list[tuple[NamedMetric, Estimate]]


def of_slices(merged: Merged, rocs: Iterable[Roc], wanted: Sequence[NamedMetric], error: float) -> list[SliceFigures]:
    """One attack's figures of every measured slice of a partition."""
    return [
        SliceFigures(roc.cross_fit, [(metric, metric.call(roc, error)) for metric in wanted])
        for roc, measured in zip(rocs, merged.measured, strict=True)
        if measured
    ]


def combined(
    merged: Merged, by_attack: Sequence[Sequence[SliceFigures]], names: Sequence[str], error: float, tests: int
) -> tuple[list[Row], list[Row], list[Row], NDArray[np.float64]]:
    """A partition's rows by attack, its scores with their bounds, and each slice's p.

    A slice's score has an interval at error / tests: all slices' hold together.
    """
    at = np.flatnonzero(merged.measured)
    labels = [merged.partition.labels[i] for i in at]
    sizes = list(zip(merged.members[at].tolist(), merged.nonmembers[at].tolist(), strict=True))
    rows = [
        result_row(name, labels[i], metric.name, estimate, sizes[i], fpr=metric.fpr, prior=metric.prior)
        for name, of_attack in zip(names, by_attack, strict=True)
        for i, of_slice in enumerate(of_attack)
        for metric, estimate in of_slice.estimates
    ]
    if not labels:
        return rows, [], [], np.zeros(0)
    chosen = [
        selection.select({name: of_attack[i].fit for name, of_attack in zip(names, by_attack, strict=True)})
        for i in range(len(labels))
    ]
    counts = intervals.AdvantageCounts(*np.array([pick.counts for pick in chosen], dtype=np.float64).T)
    tp, fp, _, _, members, nonmembers = (np.asarray(count) for count in counts)
    together = intervals.advantage(counts, error / tests)
    ladder = intervals.advantage(
        intervals.AdvantageCounts(*(np.asarray(count)[:, None] for count in counts)), error * np.array(LADDER)
    )
    value = tp / members - fp / nonmembers
    best = [
        result_row(pick.attack, label, "score", Estimate(float(v), float(low), float(high), pick.reason), size)
        for pick, label, v, low, high, size in zip(chosen, labels, value, *together, sizes, strict=True)
    ]
    bounds = [
        {"row": i, "low": ladder.low[i].tolist(), "high": ladder.high[i].tolist()}
        for i, pick in enumerate(chosen)
        if pick.reason is None
    ]
    return rows, best, bounds, intervals.advantage_p(counts)


def slice_row(partition: str, label: str, sizes: tuple[int, int]) -> Row:
    """A row of the slices for one that is not tested among them: p is NaN. sizes: members, non-members."""
    return {
        "partition": partition,
        "slice": label,
        "members": sizes[0],
        "nonmembers": sizes[1],
        "merged": [],
        "p": NAN,
    }


def slice_rows(merged: Merged, p: NDArray[np.float64]) -> list[Row]:
    """Rows of the slices of a partition; p: one a measured slice."""
    part = merged.partition
    measured = iter(p.tolist())
    return [
        {
            "partition": part.name,
            "slice": label,
            "members": int(merged.members[i]),
            "nonmembers": int(merged.nonmembers[i]),
            "merged": list(merged.merged) if merged.merged and i == len(part.labels) - 1 else [],
            "p": next(measured) if merged.measured[i] else NAN,
        }
        for i, label in enumerate(part.labels)
    ]


def holm(rows: list[Row]) -> None:
    """Replace the slices' p by Holm's, which hold together; in place."""
    tested = sorted((row for row in rows if not np.isnan(row["p"])), key=lambda row: float(row["p"]))
    largest = 0.0
    for at, row in enumerate(tested):
        largest = max(largest, min(1.0, row["p"] * (len(tested) - at)))
        row["p"] = largest


# ------------------------------------------------------------------------------------------------- in this order


class OfAll(NamedTuple):
    """What is measured of all records together.

    results: rows so far, for `of_partitions` to add to. aucs: each attack's, at the controls' error. tests: how many
    share the error budget of leak findings.
    """

    results: Results
    curve: list[Row]
    distribution: list[Row]
    bands: list[Row]
    leaks: list[Row]
    aucs: dict[str, Estimate]
    tests: int


def of_all(
    attacks: Sequence[NamedAttack],
    roc_of: Callable[[NamedAttack], Roc],
    partitions: Sequence[Merged],
    wanted: Sequence[NamedMetric],
    right: tuple[int, int] | None,
    error: float,
    did: Did,
) -> OfAll:
    """Measure everyone; the Rocs, an audit's largest arrays, are let go.

    Args:
        attacks: those that ran.
        roc_of: an attack's Roc of all records; called once for each, on any thread.
        partitions: what `of_partitions` will measure.
        wanted: metrics of everyone.
        right: see `right_of`.
        error: of the report.
        did: called after each attack.
    """

    def measured(attack: NamedAttack) -> tuple[Roc, OfEveryone]:
        roc = roc_of(attack)
        return roc, of_everyone(attack.name, roc, wanted, error)

    found = in_parallel(measured, attacks, did)
    rocs = {attack.name: roc for attack, (roc, _) in zip(attacks, found, strict=True)}
    first = next(iter(rocs.values()))
    carried = [fpr for fpr in FPRS if metrics.too_few(first, fpr) is None]
    tests = sum(int(merged.measured.sum()) for merged in partitions) + len(carried) + 1
    results = Results()
    for _, own in found:
        results.add(own.results, own.bounds)
    results.add(*best_of_everyone(rocs, error))
    results.add(accuracy(right, (first.n_members, first.n_nonmembers), error), [])
    return OfAll(
        results,
        [row for _, own in found for row in own.curve],
        [row for _, own in found for row in own.distribution],
        bands(rocs, error),
        leaks_of_all(rocs, carried, error, tests),
        {name: metrics.auc(roc, 2 * CONTROL_ERROR) for name, roc in rocs.items()},
        tests,
    )


def of_partitions(
    found: OfAll,
    attacks: Sequence[NamedAttack],
    slice_rocs: Callable[[NamedAttack, Merged], Iterable[Roc]],
    partitions: Sequence[Merged],
    wanted: Sequence[NamedMetric],
    sizes: tuple[int, int],
    error: float,
    did: Did,
) -> list[Row]:
    """Measure all slices: their results are added to `found`; gives the rows of the slices.

    Args:
        found: of `of_all`.
        attacks: those that ran.
        slice_rocs: an attack's Roc of each slice of a partition, in the slices' order.
        partitions: with small slices merged.
        wanted: metrics of slices.
        sizes: all members, all non-members.
        error: of the report.
        did: called after each attack and partition.
    """

    def measured(task: tuple[Merged, NamedAttack]) -> list[SliceFigures]:
        merged, attack = task
        return of_slices(merged, slice_rocs(attack, merged), wanted, error)

    names = [attack.name for attack in attacks]
    by_task = in_parallel(measured, [(merged, attack) for merged in partitions for attack in attacks], did)
    rows = [slice_row(EVERYONE, EVERYONE, sizes)]
    for at, merged in enumerate(partitions):
        of_partition = by_task[at * len(attacks) : (at + 1) * len(attacks)]
        results, best, bounds, p = combined(merged, of_partition, names, error, found.tests)
        found.results.add(best, bounds)
        found.results.add(results, [])
        rows += slice_rows(merged, p)
    holm(rows)
    return rows


def tables(found: OfAll, slices: list[Row], statuses: list[Row], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The tables of a report, by name: `Report(meta, tables)`.

    Args:
        found: of `of_all`, after `of_partitions`.
        slices: of `of_partitions`.
        statuses: how each attack ran.
        outcomes: of the controls.
    """
    blind = [row for outcome in outcomes for row in curve_rows(f"(blind: {outcome.control})", outcome.curve)]
    rows = {
        "results": found.results.rows,
        "bounds": found.results.bounds,
        "slices": slices,
        "attacks": statuses,
        "curve": found.curve + blind,
        "distribution": found.distribution,
        "bands": found.bands,
        "controls": [control_row(outcome) for outcome in outcomes],
        "findings": leaks_by_score(found.results.rows) + found.leaks,
        "gates": [],
    }
    return {name: table_of(name, of_table) for name, of_table in rows.items()}


def control_row(outcome: Outcome) -> Row:
    """A control's outcome as a row of the report."""
    return {
        "control": outcome.control,
        "code": outcome.code,
        "status": outcome.status,
        "value": outcome.measured.value,
        "low": outcome.measured.low,
        "high": outcome.measured.high,
        "text": outcome.text,
        "reason": outcome.reason,
    }
