"""The picture of a series: leakage over epochs, noise levels or architectures, and what the model is worth there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from divulge.charts.look import MEMBER, MUTED, OTHER, PERCENT, WIDTH, Chart, distinct, inline, span, themed
from divulge.errors import Unavailable
from divulge.wording import clipped, figure, known

if TYPE_CHECKING:
    from divulge.report import Row
    from divulge.series import Series

BANDED = 12  # runs above which intervals are a band and no longer a line each
_LOGARITHMIC = re.compile(r"noise|epsilon|ε|sigma|σ", re.IGNORECASE)


def over(series: Series) -> Chart:
    """The vulnerability score of each run with its interval, and beneath it the accuracy on held-out records.

    Args:
        series: of `Series.of` or `.load`: its steps are the axis, logarithmic for noise and epsilon over more than a
            decade; without steps the runs stand side by side.

    Raises:
        Unavailable: fewer than two runs have a score.
    """
    import altair as alt

    if len(series) < 2:
        raise Unavailable("needs two runs or more with a score")
    names = dict(zip(series.names, distinct(series.names, 24), strict=True))
    scores, accuracies = (_points(series, names, metric) for metric in ("score", "nonmember_accuracy"))
    if len(scores) < 2:
        raise Unavailable("needs two runs or more with a score")
    x = _axis(series, list(names.values()))
    panels = [_panel(scores, x, "vulnerability score", MEMBER, chance=0.0, height=170)]
    if accuracies:
        panels.append(_panel(accuracies, x, "right on held-out records", OTHER, share=True, height=130))
    said = _said("score", "The vulnerability score", scores)
    if accuracies:
        said += " " + _said("nonmember_accuracy", "Accuracy on held-out records", accuracies)
    top = max(scores, key=lambda point: point["value"])
    more = f"{said} The score is highest at {top['name']}: {_figure('score', top)}. 0 is chance, the dashed line."
    return themed(alt.vconcat(*panels, spacing=18), "over", said, more)


def _points(series: Series, names: dict[str, str], metric: str) -> list[dict[str, Any]]:
    """What was measured, with its place, in order."""
    return [
        {"name": names[row["run"]], "step": row["step"], **{end: row[end] for end in ("value", "low", "high")}}
        for row in series.rows()
        if row["metric"] == metric and not known(row["fpr"]) and _whole(row)
    ]


def _whole(row: Row) -> bool:
    return all(known(row[end]) for end in ("value", "low", "high"))


def _axis(series: Series, names: Sequence[str]) -> Any:
    """The same horizontal axis for both panels."""
    import altair as alt

    if series.steps is None:
        return alt.X("name:N", sort=list(names), title=None, axis=alt.Axis(labelAngle=-30, labelLimit=150))
    low, high = min(series.steps), max(series.steps)
    title = clipped(series.axis, 60)
    if low > 0 and high > 10 * low and _LOGARITHMIC.search(series.axis):
        scale = alt.Scale(type="log", domain=[low / 1.1, high * 1.1], nice=False)
        return alt.X("step:Q", scale=scale, title=f"{title} (logarithmic)", axis=alt.Axis(grid=False, tickCount=6))
    whole = all(step == math.floor(step) for step in series.steps)
    axis = alt.Axis(grid=False, tickCount=8, tickMinStep=1 if whole else alt.Undefined)
    return alt.X("step:Q", scale=alt.Scale(domain=span(series.steps, []), nice=False), title=title, axis=axis)


def _panel(
    points: Sequence[dict[str, Any]],
    x: Any,
    title: str,
    color: str,
    *,
    height: int,
    chance: float | None = None,
    share: bool = False,
) -> Chart:
    import altair as alt

    ends = [point[end] for point in points for end in ("low", "high")]
    marks = [] if chance is None else [chance]
    scale = alt.Scale(domain=span(ends, marks), nice=False, zero=False)
    axis = alt.Axis(tickCount=5, labelExpr=PERCENT if share else alt.Undefined)
    y = alt.Y("value:Q", scale=scale, title=title, axis=axis)
    low = alt.Y("low:Q", scale=scale, title=title, axis=axis)
    drawn = alt.Chart(inline(points))
    layers = []
    if chance is not None:
        line = alt.Chart(inline([{"value": chance, "word": "chance"}]))
        layers.append(line.mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y=y))
        words = line.mark_text(color=MUTED, align="right", baseline="bottom", dy=-3, fontSize=11)
        layers.append(words.encode(x=alt.value(WIDTH), y=y, text="word:N"))
    on_axis = math.isfinite(points[0]["step"])
    if on_axis and len(points) > BANDED:
        layers.append(drawn.mark_area(color=color, opacity=0.2).encode(x=x, y=low, y2="high:Q"))
    else:
        layers.append(drawn.mark_rule(color=color, strokeWidth=2, opacity=0.6).encode(x=x, y=low, y2="high:Q"))
    if on_axis:
        layers.append(drawn.mark_line(color=color, strokeWidth=2).encode(x=x, y=y))
    layers.append(drawn.mark_point(color=color, filled=True, size=50, opacity=1).encode(x=x, y=y))
    return alt.layer(*layers).properties(width=WIDTH, height=height)


def _said(metric: str, what: str, points: Sequence[dict[str, Any]]) -> str:
    first, last = points[0], points[-1]
    return f"{what} goes from {_figure(metric, first)} at {first['name']} to {_figure(metric, last)} at {last['name']}."


def _figure(metric: str, point: dict[str, Any]) -> str:
    return figure(metric, point["value"], point["low"], point["high"])
