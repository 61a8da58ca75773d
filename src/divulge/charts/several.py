"""The main figures of several runs, one under the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from divulge.charts.look import (
    ROW,
    SERIES,
    Chart,
    distinct,
    forest,
    themed,
)
from divulge.errors import Unavailable
from divulge.wording import change, known, rate

if TYPE_CHECKING:
    from divulge.comparison import Comparison
    from divulge.report import Row

LABELLED = 14  # runs that get their name in the picture
_SHOWN = {"score": "vulnerability score", "tail_lift": "lift", "auc": "AUC", "nonmember_accuracy": "right on others, %"}
_MARKS = {"score": {0.0: "chance"}, "tail_lift": {1.0: "chance"}, "auc": {0.5: "chance"}, "nonmember_accuracy": {}}


def runs(comparison: Comparison) -> Chart:
    """The main figures of each run, one under the other, with their intervals.

    Raises:
        Unavailable: no run has any of them.
    """
    return _runs(comparison, "runs")


def _runs(comparison: Comparison, picture: str) -> Chart:
    import altair as alt

    names = dict(zip(comparison.names, distinct(comparison.names, 24), strict=True))
    plots = []
    for metric, fpr in dict.fromkeys((row["metric"], _rate(row)) for row in comparison.rows()):
        rows = [row for row in comparison.rows() if (row["metric"], _rate(row)) == (metric, fpr)]
        if metric in _SHOWN and any(known(row["value"]) for row in rows):
            axis = _SHOWN[metric] + (f" at {rate(fpr)} false alarms" if fpr is not None else "")
            few = len(names) <= len(SERIES)
            named = [{**row, "name": names[row["run"]], "kind": names[row["run"]] if few else ""} for row in rows]
            kinds = list(names.values()) if few else [""]
            if metric == "nonmember_accuracy":
                named = [{**row, **{end: 100 * row[end] for end in ("value", "low", "high")}} for row in named]
            plots.append(forest(named, axis, marks=_MARKS[metric], row=ROW, kinds=kinds))
    changed = [row for row in comparison.rows() if row["metric"] == "score" and known(row["difference"])]
    said = "; ".join(
        f"{names[row['run']]}: the score differs by {change(row)} from {names[comparison.names[0]]}"
        for row in changed[:3]
    )
    said = f"{said or 'The score of a run is not measurable'}." + (" The table has the others." if changed[3:] else "")
    if not plots:
        raise Unavailable("no run has a score, a lift, an AUC or an accuracy")
    return themed(alt.vconcat(*plots, spacing=22), picture, said, said)


def _rate(row: Row) -> float | None:
    return row["fpr"] if known(row["fpr"]) else None


def baseline(comparison: Comparison) -> Chart:
    """The main figures of a run beside those of the baseline that it was compared with.

    Args:
        comparison: of `compare(baseline, report)`.

    Raises:
        Unavailable: neither has any of them.
    """
    return _runs(comparison, "baseline")
