"""Non-members that differ among themselves by time: what an attack takes for membership may be drift."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge import intervals, metrics
from divulge.controls.blind import MARGIN
from divulge.controls.setting import (
    CONTROL_ERROR,
    FEW,
    INVALID,
    OK,
    SAMPLE,
    WARNING,
    Outcome,
    Setting,
    not_run,
    number,
)
from divulge.doors.arrays import distinct
from divulge.folds import effective_shares
from divulge.metrics import Estimate
from divulge.roc import Ranked, exact_slices, tags


def drift(setting: Setting) -> Outcome:
    """The best attack set to tell late non-members from early ones, within classes.

    By date, where a column holds dates: harmless where members of the same period drift alike; where the sides'
    periods differ, `shift` says so and this is silent. Without dates by the order of the rows, which may be that of
    time and may be nothing: then never more than a warning, and only where the attack found something to explain.
    """
    outside = _thinned(np.flatnonzero(~setting.evidence.member))
    if len(outside) < 2 * FEW:
        return not_run("drift", "DV213", f"needs {2 * FEW} non-members")
    dates = {name: np.asarray(x) for name, x in setting.evidence.columns.items() if _is_date(np.asarray(x))}
    for name, column in dates.items():
        found = _by_date(setting, name, column, outside, CONTROL_ERROR / len(dates))
        if found is not None:
            return found
    if dates:
        text = "no drift of their own within the non-members, by " + ", ".join(dates)
        return Outcome("drift", "DV213", OK, number(0.5), text)
    if not setting.in_order:
        return not_run("drift", "DV213", "a sample of a stream has no order: give dates in a column")
    auc = _late_from_early(setting, outside, np.arange(len(outside)), CONTROL_ERROR)
    if auc is None or not _away(auc) > MARGIN:
        return Outcome("drift", "DV213", OK, auc or number(0.5), "no drift within the non-members, by their order")
    text = f"split by their order, {setting.best} tells late non-members from early ones at AUC {auc.value:.3f}"
    if not setting.aucs[setting.best].low > 0.5:
        return Outcome("drift", "DV213", OK, auc, f"{text}; it finds no members, so there is nothing to explain")
    text += ": if that is the order of time, the sides must be of one period"
    return Outcome("drift", "DV213", WARNING, auc, text)


def _by_date(
    setting: Setting, name: str, column: NDArray[Any], outside: NDArray[np.int64], error: float
) -> Outcome | None:
    """What non-members that drift otherwise than members make of the test; None where they do not."""
    inside = _thinned(np.flatnonzero(setting.evidence.member))
    rows = np.concatenate((inside, outside))
    order = distinct(column[rows])[1]
    if _away(_sides_by(setting, rows, order, 2 * CONTROL_ERROR)) > MARGIN:
        return None  # of different periods
    auc = _late_from_early(setting, outside, order[len(inside) :], error)
    if auc is None or not _away(auc) > MARGIN:
        return None
    text = f"split by {name}, {setting.best} tells late non-members from early ones at AUC {auc.value:.3f}"
    alike = _late_from_early(setting, inside, order[: len(inside)], error)
    if alike is not None:
        ends = [intervals.Bounds(np.asarray(x.low), np.asarray(x.high)) for x in (auc, alike)]
        apart = intervals.difference(auc.value, ends[0], alike.value, ends[1])
        if apart.low <= 0 <= apart.high:
            return None
        text += f", and late members from early ones at {alike.value:.3f}"
    best = setting.aucs[setting.best]
    if best.low > 0.5 and _away(auc) >= best.value - 0.5:
        return Outcome("drift", "DV213", INVALID, auc, f"{text}: as well as members from non-members")
    return Outcome("drift", "DV213", WARNING, auc, text)


def _thinned(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most `SAMPLE` of them, evenly spaced."""
    return rows[:: max(1, math.ceil(len(rows) / SAMPLE))]


def _away(auc: Estimate) -> float:
    """How far an AUC is credibly from 0.5, either way; NaN where it has no interval."""
    return max(auc.low - 0.5, 0.5 - auc.high)


def _sides_by(setting: Setting, rows: NDArray[np.int64], order: NDArray[np.int64], error: float) -> Estimate:
    """How well the date alone tells the sides apart."""
    member, groups = setting.evidence.member[rows], setting.evidence.groups
    ranked = Ranked(order.astype(np.uint32), np.arange(len(rows))[::-1].astype(float))
    effective = effective_shares(member, None if groups is None else groups[rows])
    tag = tags(member, setting.tag[rows] & np.uint8(1))
    return metrics.auc(next(exact_slices(ranked, tag, np.zeros(1, np.int32), 1, effective=effective)), error)


def _late_from_early(
    setting: Setting, rows: NDArray[np.int64], order: NDArray[np.int64], error: float
) -> Estimate | None:
    """The best attack's AUC of the later half of each class against the earlier; None where all are of one time."""
    labels = setting.evidence.labels
    late = _later_half(order, None if labels is None else labels[rows])
    return None if late.all() or not late.any() else setting.auc_of_best(rows, late, error)


def _later_half(order: NDArray[np.int64], labels: NDArray[Any] | None) -> NDArray[np.bool_]:
    """(n,) bool: the later half of each class; rows of one time are all late or all early.

    The middle row of an odd class is late in every other class: else the rarest classes would all be late.
    """
    strata = np.zeros(len(order), np.int64)
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        strata = labels.astype(np.int64)
    by = np.lexsort((order, strata))
    starts = np.flatnonzero(np.append(True, strata[by][1:] != strata[by][:-1]))
    sizes = np.diff(np.append(starts, len(by)))
    middle = (sizes + np.arange(len(sizes)) % 2) // 2
    first = np.append(order[by], 0)[starts + middle]
    first[middle == sizes] = len(order)
    late = np.empty(len(by), bool)
    late[by] = order[by] >= np.repeat(first, sizes)
    return late


def _is_date(column: NDArray[Any]) -> bool:
    """Whether a column's texts are dates, years or months first; missing ones aside."""
    if column.dtype.kind not in "UO":
        return False
    few = [text for value in column[:: max(1, len(column) // 50)] if (text := str(value))]
    return len(set(few)) > 2 and all(re.match(r"\d{4}-\d{2}(-\d{2})?", text) for text in few)
