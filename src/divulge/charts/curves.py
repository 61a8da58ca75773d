"""The ROC on logarithmic axes: of one report's attacks, and of several runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from divulge.charts.look import (
    DASHES,
    MUTED,
    NAME,
    PERCENT,
    SERIES,
    SHADE,
    WIDTH,
    Chart,
    distinct,
    inline,
    themed,
)
from divulge.errors import Unavailable
from divulge.wording import clipped, figure, known, of_everyone, rate, score_attack

if TYPE_CHECKING:
    from divulge.comparison import Comparison
    from divulge.report import Report, Row

CURVES, POINTS = 5, 90  # in a picture, and of a curve
HEIGHT = 300


def roc(report: Report) -> Chart:
    """The ROC of each attack on logarithmic axes, the best one's with its band; grey where the sample runs out.

    Raises:
        Unavailable: the report holds no curve.
    """
    curves = _curves(report)
    limit = measured_from(report)
    names = dict(zip(curves, distinct(list(curves)), strict=True))
    best = next(iter(names.values()))
    chart = _drawn({names[name]: rows for name, rows in curves.items()}, limit, banded=[best])
    return themed(chart, "roc", *_about_roc(report, limit))


def rocs(comparison: Comparison) -> Chart:
    """The best attack's ROC of each run on logarithmic axes, each with its band; at most five.

    Raises:
        Unavailable: no run holds a curve.
    """
    names = distinct(comparison.names, 40)
    found = {
        name: [row for row in report.rows("curve") if row["attack"] == best]
        for name, report, best in zip(names, comparison.reports, map(score_attack, comparison.reports), strict=True)
    }
    curves = {name: rows for name, rows in list(found.items())[:CURVES] if rows}
    if not curves:
        raise Unavailable("no run holds a ROC curve")
    chart = _drawn(curves, min(measured_from(report) for report in comparison.reports), banded=list(curves))
    whose = "Each run's" if len(names) <= CURVES else f"The first {CURVES} of {len(names)} runs', each's"
    said = f"{whose} best attack, with its band; the dotted diagonal is chance."
    return themed(chart, "roc", said, f"{said} Runs: {', '.join(curves)}. The table below has the rates.")


def _drawn(curves: Mapping[str, Sequence[Row]], limit: float, banded: Sequence[str]) -> Chart:
    """Curves by name on one plane; grey left of `limit`."""
    import altair as alt

    floor = 10.0 ** math.floor(math.log10(limit / 10) + 1e-9)
    points = [
        {"curve": name} | {key: max(row[key], floor) for key in ("fpr", "tpr", "low", "high")}
        for name, rows in curves.items()
        for row in thinned(rows, floor)
    ]
    scale = alt.Scale(type="log", domain=[floor, 1], nice=False)
    axis = alt.Axis(values=[10.0**power for power in range(-6, 1)], labelExpr=PERCENT)
    x = alt.X("fpr:Q", scale=scale, axis=axis, title="false-positive rate: non-members wrongly named (log)")
    y = alt.Y("tpr:Q", scale=scale, axis=axis, title="true-positive rate: members found (log)")
    order = list(curves)
    colors = alt.Scale(domain=order, range=list(SERIES[: len(order)]))
    dashes = alt.Scale(domain=order, range=list(DASHES[: len(order)]))
    color = alt.Color("curve:N", scale=colors, title=None, legend=alt.Legend(columns=2))
    unmeasured = alt.Chart(inline([{"fpr": floor, "to": limit}]))
    chance = alt.Chart(inline([{"fpr": floor, "tpr": floor}, {"fpr": 1, "tpr": 1}]))
    word = alt.Chart(inline([{"fpr": 0.4, "tpr": 0.4}]))
    bands = [
        alt.Chart(inline(row for row in points if row["curve"] == name))
        .mark_area(opacity=0.17, color=SERIES[order.index(name)])
        .encode(x=x, y=alt.Y("low:Q", scale=scale), y2="high:Q")
        for name in banded
    ]
    return alt.layer(
        unmeasured.mark_rect(color=SHADE).encode(x=x, x2="to:Q", y=alt.value(0), y2=alt.value(HEIGHT)),
        unmeasured.mark_text(color=MUTED, align="left", baseline="top", dx=6, dy=6, fontSize=11).encode(
            x=x, y=alt.value(0), text=alt.value("too few non-members")
        ),
        chance.mark_line(color=MUTED, strokeWidth=1, strokeDash=[2, 3]).encode(x=x, y=y),
        word.mark_text(color=MUTED, angle=323, dy=12, fontSize=11).encode(x=x, y=y, text=alt.value("chance")),
        *bands,
        alt.Chart(inline(points))
        .mark_line(strokeWidth=2)
        .encode(x=x, y=y, color=color, strokeDash=alt.StrokeDash("curve:N", scale=dashes, title=None)),
    ).properties(width=WIDTH, height=HEIGHT)


def _about_roc(report: Report, limit: float) -> tuple[str, str]:
    tail = report.tail
    if known(tail.tpr.value):
        found, chance = figure("tail_tpr", *tail.tpr[:3]), rate(tail.fpr)
        said = f"At {chance} false alarms the best attack finds {found} of the members; chance is {chance}."
    else:
        said = f"Rates at few false alarms are not measurable: {clipped(tail.tpr.reason, 200)}."
    aucs = ", ".join(
        f"{clipped(name, NAME)} {figure('auc', *auc[:3])}" for name, auc in of_everyone(report, "auc").items()
    )
    more = f" Left of a false-positive rate of {100 * limit:.2g} % the sample holds too few non-members."
    return said, f"{said} Area under the curve (0.5 is chance): {aucs}.{more} The table below has the rates."


def _curves(report: Report) -> dict[str, list[Row]]:
    """Points by attack, the best attack first, then the blind ones; at most `CURVES`."""
    found: dict[str, list[Row]] = {}
    for row in report.rows("curve"):
        found.setdefault(str(row["attack"]), []).append(row)
    if not found:
        raise Unavailable("the report holds no ROC curve")
    best, aucs = score_attack(report), of_everyone(report, "auc")

    def place(name: str) -> tuple[bool, bool, float]:
        return name != best, not name.startswith("(blind"), -aucs[name].value if name in aucs else 0.0

    return {name: found[name] for name in sorted(found, key=place)[:CURVES]}


def measured_from(report: Report) -> float:
    """The lowest FPR at which this sample measures a TPR: ten expected false positives."""
    gaps = [row["fpr"] for row in report.rows("results") if row["metric"] == "tail_tpr" and row["reason"]]
    nonmembers = int(report.meta.get("data", {}).get("nonmembers", 0))
    return float(max(10 / max(nonmembers, 10), *gaps, 1e-6))


def thinned(rows: Sequence[Row], floor: float, points: int = POINTS) -> list[Row]:
    """A curve's points, evenly spaced on a logarithmic axis that starts at `floor`, the ends among them."""
    kept: dict[int, Row] = {}
    for row in rows:
        place = math.log(max(row["fpr"], floor) / floor) / -math.log(floor)
        kept[round(place * points)] = row  # the highest of those that would fall together
    return list(kept.values())
