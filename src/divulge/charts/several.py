"""Pictures of several runs side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from divulge.charts.look import (
    INK,
    MUTED,
    PERCENT,
    ROW,
    SERIES,
    SHAPES,
    WIDTH,
    Chart,
    distinct,
    forest,
    inline,
    span,
    themed,
)
from divulge.errors import Unavailable
from divulge.reporters.runs import change
from divulge.reporters.wording import figure, known, rate

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


def tradeoff(comparison: Comparison) -> Chart:
    """The vulnerability score of each run against its accuracy on held-out records; both with their intervals.

    Args:
        comparison: of `compare`: runs, epochs, noise levels, in their order.

    Raises:
        Unavailable: fewer than two runs have both a score and an accuracy.
    """
    import altair as alt

    points: list[dict[str, Any]] = []
    for run, name in zip(comparison.names, distinct(comparison.names, 24), strict=True):
        own = {row["metric"]: row for row in comparison.rows() if row["run"] == run and _rate(row) is None}
        score, accuracy = own.get("score"), own.get("nonmember_accuracy")
        if score and accuracy and known(score["value"]) and known(accuracy["value"]):
            ends = {"left": accuracy["low"], "right": accuracy["high"], "low": score["low"], "high": score["high"]}
            points.append(
                {"at": len(points), "run": name, "accuracy": accuracy["value"], "score": score["value"], **ends}
            )
    if len(points) < 2:
        raise Unavailable("needs two runs or more with a score and an accuracy on held-out records")
    x_scale = alt.Scale(domain=span([x for p in points for x in (p["left"], p["right"])], []), nice=False, zero=False)
    y_scale = alt.Scale(domain=span([x for p in points for x in (p["low"], p["high"])], [0.0]), nice=False, zero=False)
    x = alt.X(
        "accuracy:Q", scale=x_scale, axis=alt.Axis(labelExpr=PERCENT, tickCount=5), title="accuracy on held-out records"
    )
    y = alt.Y("score:Q", scale=y_scale, title="vulnerability score")
    order = [point["run"] for point in points]
    few = len(points) <= len(SERIES)
    color = (
        alt.Color("run:N", scale=alt.Scale(domain=order, range=list(SERIES[: len(order)])), legend=None)
        if few
        else alt.value(SERIES[0])
    )
    shape = (
        alt.Shape("run:N", scale=alt.Scale(domain=order, range=list(SHAPES[: len(order)])), legend=None)
        if few
        else alt.value("circle")
    )
    drawn, zero = alt.Chart(inline(points)), alt.Chart(inline([{"score": 0.0}]))
    layers = [
        zero.mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y=y),
        *([drawn.mark_line(color=MUTED, strokeWidth=1).encode(x=x, y=y, order="at:Q")] if len(points) > 2 else []),
        drawn.mark_rule(strokeWidth=2, opacity=0.6).encode(
            x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=color
        ),
        drawn.mark_rule(strokeWidth=2, opacity=0.6).encode(
            y=y, x=alt.X("left:Q", scale=x_scale), x2="right:Q", color=color
        ),
        drawn.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, color=color, shape=shape),
    ]
    labelled = alt.Chart(inline(points[:LABELLED]))
    layers.append(
        labelled.mark_text(color=INK, align="right", dx=-9, dy=-9, fontSize=12).encode(x=x, y=y, text="run:N")
    )
    low, high = min(points, key=lambda p: p["score"]), max(points, key=lambda p: p["score"])
    said = (
        f"Lower and further right is better. {low['run']} leaks least ({_score(low)}), right on {_accuracy(low)} of "
        f"the held-out records; {high['run']} most ({_score(high)}), right on {_accuracy(high)}."
    )
    chart = alt.layer(*layers).properties(width=WIDTH, height=260)
    return themed(chart, "tradeoff", said, said)


def _score(point: dict[str, float]) -> str:
    return figure("score", point["score"], point["low"], point["high"])


def _accuracy(point: dict[str, float]) -> str:
    return figure("nonmember_accuracy", point["accuracy"], point["left"], point["right"])
