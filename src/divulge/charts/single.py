"""Pictures of one report."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from divulge.charts.look import (
    INK,
    LINE,
    MEMBER,
    MUTED,
    OTHER,
    PAPER,
    PERCENT,
    SHADE,
    WIDTH,
    Chart,
    distinct,
    forest,
    inline,
    span,
    themed,
)
from divulge.errors import InputError, Unavailable
from divulge.metrics import NAN
from divulge.report import Verdict
from divulge.wording import (
    MARKS,
    clipped,
    figure,
    gate_label,
    gate_metric,
    is_share,
    known,
    of_everyone,
    rate,
    score_attack,
    worded,
    worst_slices,
)

if TYPE_CHECKING:
    from divulge.report import Report, Row

WORST = 30


# --------------------------------------------------------------------------------------------- score distributions


def distributions(report: Report, attack: str | None = None) -> Chart:
    """How one attack's scores are spread over members and over non-members.

    Args:
        report: of `audit`, or loaded.
        attack: its name; None: the best.

    Raises:
        Unavailable: the report holds no distribution of that attack.
    """
    import altair as alt

    name = attack or score_attack(report)
    bins = [row for row in report.rows("distribution") if row["attack"] == name]
    if not bins:
        raise Unavailable(f"the report holds no distribution of scores of {clipped(name, 60)!r}")
    totals = [sum(row[side] for row in bins) for side in ("members", "nonmembers")]
    steps = [
        {"side": side, "at": at, "share": row[key] / total}
        for side, key, total in zip(("members", "non-members"), ("members", "nonmembers"), totals, strict=True)
        for at, row in [*enumerate(bins), (len(bins), bins[-1])]
    ]
    ticks = _ticks([row["start"] for row in bins[1:]])
    labels = "{" + ",".join(f"'{at}':'{label}'" for at, label in ticks.items()) + "}[datum.value]"
    x = alt.X(
        "at:Q",
        scale=alt.Scale(domain=[0, len(bins)], nice=False),
        axis=alt.Axis(values=list(ticks), labelExpr=labels, grid=False),
        title=f"score of {clipped(name, 40)}: the further right, the more like a member",
    )
    y = alt.Y("share:Q", axis=alt.Axis(labelExpr=PERCENT, tickCount=5), title="share of each side")
    members = alt.Chart(inline(row for row in steps if row["side"] == "members"))
    others = alt.Chart(inline(row for row in steps if row["side"] == "non-members"))
    chart = alt.layer(
        members.mark_area(interpolate="step-after", opacity=0.45, color=MEMBER).encode(x=x, y=y),
        others.mark_line(interpolate="step-after", strokeWidth=2, strokeDash=[6, 2], color=OTHER).encode(x=x, y=y),
        *(
            alt.Chart(inline([{}]))
            .mark_text(color=color, align="left", baseline="bottom", fontSize=12, fontWeight="bold")
            .encode(x=alt.value(place), y=alt.value(-5), text=alt.value(word))
            for place, color, word in ((0, MEMBER, "members (filled)"), (130, OTHER, "non-members (dashed)"))
        ),
    ).properties(width=WIDTH, height=220)
    auc = of_everyone(report, "auc").get(name)
    said = "The further the two shapes part, the better a score tells who was a member."
    if auc is not None and known(auc.value):
        text = figure("auc", *auc[:3])
        said += f" AUC {text}: how often a member scores above a non-member; 0.5 is chance."
    more = f"{said} Two histograms of {len(bins)} bins: members filled, non-members as a dashed outline."
    return themed(chart, "distributions", said, more)


def _ticks(edges: list[float]) -> dict[float, str]:
    """Where some ticks stand, in bins, and what they say: round numbers where the bins are of one width.

    Args:
        edges: where each bin but the first begins.

    >>> list(_ticks([-0.73, -0.33, 0.07, 0.47]).values())
    ['-0.6', '-0.4', '-0.2', '0', '0.2', '0.4']
    """
    widths = [after - before for before, after in pairwise(edges)]
    if not widths or min(widths) <= 0 or max(widths) > 1.001 * min(widths):
        every = max((len(edges) + 1) // 5, 1)
        return {at: f"{edges[at - 1]:.2g}" for at in range(every, len(edges) + 1, every)}
    wanted = (edges[-1] - edges[0]) / 7
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= wanted)
    first, last = math.ceil(edges[0] / step), math.floor(edges[-1] / step)
    return {
        round(1 + (number * step - edges[0]) / widths[0], 4): f"{number * step:.6g}"
        for number in range(first, last + 1)
    }


# ------------------------------------------------------------------------------------------------- attacks, slices


def attacks(report: Report) -> Chart:
    """The AUC of every attack, and of what tells the sides apart without the model, with their intervals.

    Raises:
        Unavailable: no AUC was measured.
    """
    found = of_everyone(report, "auc")
    if not found:
        raise Unavailable("no AUC was asked for")
    ordered = sorted(found, key=lambda name: -found[name].value if known(found[name].value) else 1.0)
    rows = [{"name": name, **found[name]._asdict(), "kind": "attack"} for name in ordered]
    blind = [row for row in report.rows("controls") if row["control"] == "shift" and known(row["value"])]
    rows += [{**row, "name": "without the model (shift)", "kind": "control"} for row in blind]
    for row, name in zip(rows, distinct([str(row["name"]) for row in rows]), strict=True):
        row["name"] = name
    chart = forest(rows, "AUC", marks={0.5: "chance"}, include=[0.4, 0.6], kinds=["attack", "control"])
    top = rows[0]
    text = figure("auc", top["value"], top["low"], top["high"])
    said = f"{top['name']} has the highest AUC: {text}; 0.5 is chance."
    if not known(top["value"]):
        said = f"No AUC is measurable: {clipped(top['reason'], 200)}."
    if blind:
        text = figure("auc", blind[0]["value"], blind[0]["low"], blind[0]["high"])
        said += f" Without the model, the two sides are told apart at {text} (square)."
    else:
        said += " Whether the two sides differ without the model was not checked."
    return themed(chart, "attacks", said, said)


def slices(report: Report, worst: int = WORST) -> Chart:
    """The scores of the most exposed slices, with intervals that hold together, beside everyone's.

    Args:
        report: of `audit`, or loaded.
        worst: how many to show; the report's table has all.

    Raises:
        Unavailable: no slice was measured.
    """
    if worst < 1:
        raise InputError("DV061", f"expected one slice or more to show, got worst={worst!r}")
    found = worst_slices(report)
    if not found:
        raise Unavailable("no slice was asked for, or none is large enough")
    shown = found[:worst]
    names = distinct([str(row["slice"]) for row in shown])
    rows = [{**row, "name": name} for row, name in zip(shown, names, strict=True)]
    everyone = report.score.value
    marks = {0.0: "chance"} | ({everyone: "everyone"} if known(everyone) and abs(everyone) > 0.08 else {})
    chart = forest(rows, "vulnerability score", marks=marks, include=[0.2], row=17)
    top = shown[0]
    above = sum(row["low"] > 0 for row in found if known(row["low"]))
    said = f"{above:,} of {len(found):,} slices leak credibly (interval above 0; all intervals hold together)."
    if not any(known(row["value"]) for row in found):
        said = f"No slice's score is measurable, of {len(found):,}."
    if above:
        said += f" Highest lower end: {names[0]}, {figure('score', top['value'], top['low'], top['high'])}."
    cut = f" The picture shows the {len(shown)} with the highest lower ends." if len(found) > len(shown) else ""
    return themed(chart, "slices", said + cut, said + cut)


# ----------------------------------------------------------------------------------------------------------- gates


def gates(report: Report) -> Chart:
    """Each gate as a bullet chart: the interval of its worst figure against the limit.

    Raises:
        Unavailable: nothing was gated.
    """
    import altair as alt

    rows = report.rows("gates")
    if not rows:
        raise Unavailable("nothing was gated: there is no policy, or it has no gates")
    order = {"FAIL": 0, "INCONCLUSIVE": 1, "PASS": 2}
    shown = sorted(rows, key=lambda row: (order[row["outcome"]], _room(row)))[:12]
    counted = ", ".join(
        f"{sum(row['outcome'] == outcome for row in rows)} {worded(outcome)}"
        for outcome in order
        if any(row["outcome"] == outcome for row in rows)
    )
    said = f"{counted}. A gate fails when its whole interval lies above the limit."
    cut = f" Shown are the worst {len(shown)}." if len(rows) > len(shown) else ""
    each = "; ".join(f"{gate_label(row)}: {worded(row['outcome'])}" for row in shown)
    chart = alt.vconcat(*(_bullet(row) for row in shown), spacing=14)
    return themed(chart, "gates", said + cut, f"{said}{cut} {each}.")


def _room(row: Row) -> float:
    """How far below its limit a gate's figure credibly is, as a share of the limit; unmeasured: none."""
    end = row["high"] if known(row["high"]) else row["limit"]
    return float(row["limit"] - end) / (abs(row["limit"]) or 1.0)


def _bullet(row: Row) -> Chart:
    import altair as alt

    limit, metric = float(row["limit"]), gate_metric(row)
    scale = alt.Scale(domain=span([row["value"], row["low"], row["high"], limit], [0.0]), nice=False, zero=False)
    bottom, top = scale.domain
    why = clipped(row["reason"] or "not measurable", 60)
    value = figure(metric, row["value"], row["low"], row["high"]) if known(row["value"]) else why
    mark = f"{MARKS[row['outcome']]} {worded(row['outcome'])}"
    title = alt.Title(
        f"{gate_label(row)}", subtitle=f"{mark}: {value}", fontSize=12, fontWeight="bold", offset=6, anchor="start"
    )
    color = {"FAIL": MEMBER, "PASS": OTHER, "INCONCLUSIVE": MUTED}[row["outcome"]]
    labels = PERCENT if is_share(metric) else "datum.label"
    axis = alt.Axis(tickCount=5, grid=False, labelExpr=labels)
    base = {"low": row["low"], "high": row["high"], "value": row["value"], "limit": limit, "start": bottom, "end": top}
    chart = alt.Chart(inline([base]))
    x = alt.X("limit:Q", scale=scale, axis=axis, title=None)
    layers = [
        chart.mark_rect(color=SHADE).encode(x=alt.X("start:Q", scale=scale, axis=axis, title=None), x2="limit:Q"),
        chart.mark_rect(color=PAPER, stroke=LINE).encode(x=x, x2="end:Q"),
        chart.mark_tick(color=INK, thickness=3, size=24).encode(x=x),
    ]
    if known(row["value"]):
        inner = alt.X("value:Q", scale=scale, axis=axis, title=None)
        if known(row["low"]) and known(row["high"]):
            bar = alt.X("low:Q", scale=scale, axis=axis, title=None)
            layers.append(chart.mark_bar(color=color, height=8, opacity=0.55).encode(x=bar, x2="high:Q"))
        layers.append(chart.mark_point(color=color, filled=True, size=80, opacity=1).encode(x=inner))
    return alt.layer(*layers).properties(width=WIDTH, height=24, title=title)


# --------------------------------------------------------------------------------------------------------- records


def records(report: Report) -> Chart:
    """How far the members stand out, band by band: everyone a little, or a few people a lot?

    Raises:
        Unavailable: the report holds no bands, or the test is invalid.
    """
    if report.verdict is Verdict.INVALID:
        raise Unavailable("the test itself cannot be trusted, so it says nothing about people")
    rows = report.rows("bands")
    measured = [row for row in rows if known(row["probability"])]
    if len(measured) < 2:
        raise Unavailable(
            "the report does not say how far the records stand out: too few of them or of their scores, or an older "
            "run file"
        )
    total = sum(row["members"] for row in rows)
    shown = [
        {
            **row,
            "value": row["probability"],
            "name": f"{band_name(row)}: {figure('tpr', row['members'] / total, NAN, NAN)} of members",
        }
        for row in rows
    ]
    chart = forest(
        shown,
        "probability of membership, in an even mix",
        marks={0.5: "chance"},
        include=[0.0, 1.0],
        row=26,
        width=WIDTH - 90,
    )
    first = measured[0]
    share = figure("ppv", first["probability"], first["low"], first["high"])
    said = (
        f"Of the records that score like the {band_name(first)} of the non-members, {share} are members in an even "
        "mix; by chance half."
    )
    flat = (
        "Bands at chance mean that nobody stands out; bands that fall step by step, that everyone leaks a little; a "
        "first band far above the others, that a few people carry the risk."
    )
    return themed(chart, "records", f"{said} {flat}", f"{said} {flat}")


def band_name(row: Row) -> str:
    """A band of records by where they stand among the non-members.

    >>> band_name({"start": 0.0, "stop": 0.01}), band_name({"start": 0.5, "stop": 1.0})
    ('top 1 %', '50 to 100 %')
    """
    return f"top {rate(row['stop'])}" if row["start"] == 0 else f"{100 * row['start']:g} to {rate(row['stop'])}"
