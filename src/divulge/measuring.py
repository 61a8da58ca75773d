"""From Rocs to rows of the report: estimates of everyone and of slices, their bounds, curves, Holm's p."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import intervals, metrics, selection
from divulge.exposure import distribution, distribution_rows
from divulge.metrics import FPRS, NAN, Curve, Estimate, NamedMetric
from divulge.report import LADDER, Row
from divulge.roc import CrossFit, Roc
from divulge.slices import EVERYONE, Merged

if TYPE_CHECKING:
    from divulge.evidence import Evidence


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


def accuracy(evidence: Evidence, error: float) -> list[Row]:
    """How often the model itself is right on each side."""
    if "correct" not in evidence.signals:
        return []
    right = evidence.signals["correct"] >= 1
    rows = []
    for metric, side in (("member_accuracy", evidence.member), ("nonmember_accuracy", ~evidence.member)):
        k, n = int(right[side].sum()), int(side.sum())
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


def slice_row(partition: str, label: str, member: NDArray[np.bool_]) -> Row:
    """A row of the slices for a slice of all given (n,) rows; it is not tested among the slices: p is NaN."""
    members = int(member.sum())
    return {
        "partition": partition,
        "slice": label,
        "members": members,
        "nonmembers": len(member) - members,
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
