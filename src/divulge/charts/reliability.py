"""Whether probabilities of membership can be taken at their word: told against found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from divulge.charts.look import (
    MEMBER,
    MUTED,
    OTHER,
    PERCENT,
    WIDTH,
    Chart,
    inline,
    themed,
)
from divulge.wording import figure, known, rate

if TYPE_CHECKING:
    import altair as alt

    from divulge.probability import MembershipProbability

HEIGHT, RUG = 300, 64
BARS = 40
RARE = 0.1  # below this prior the axes are logarithmic


def reliability(found: MembershipProbability) -> Chart:
    """Shares of members found among records that were told a probability, and where the records lie.

    Points on the diagonal: the probabilities are right on average. Axes are logarithmic where members are rare. It
    shows bins of records, no record of its own.

    Args:
        found: of `divulge.membership_probability`.

    >>> from divulge import Evidence
    >>> from divulge.probability import membership_probability
    >>> n = np.arange(400)
    >>> reliability(membership_probability(Evidence(member=n < 200, signals={"loss": np.sin(n * n)}))).spacing
    26
    """
    import altair as alt

    low, top = _ends(found)
    scale = _scale(low, top)
    labels = _axis(low)
    bare = _axis(low, labels=False, ticks=False)
    y = alt.Y("observed:Q", scale=scale, axis=labels, title=f"members found, where {rate(found.prior)} are")

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=scale, axis=bare, title=None)

    inside = ("predicted", "observed", "low", "high")
    points = alt.Chart(inline({key: min(max(row[key], low), top) for key in inside} for row in found.reliability))
    diagonal = alt.Chart(inline([{"predicted": end, "observed": end} for end in (low, top)]))
    at_prior = alt.Chart(inline([{"predicted": found.prior}]))
    upper = alt.layer(
        diagonal.mark_line(color=MUTED, strokeWidth=1.2, strokeDash=[2, 3]).encode(x=x("predicted"), y=y),
        at_prior.mark_rule(color=MUTED, strokeDash=[6, 3]).encode(x=x("predicted")),
        at_prior.mark_text(color=MUTED, align="center", baseline="bottom", dy=-3, fontSize=11).encode(
            x=x("predicted"), y=alt.value(0), text=alt.value("prior")
        ),
        points.mark_rule(color=MEMBER, strokeWidth=2.4).encode(
            x=x("predicted"), y=alt.Y("low:Q", scale=scale), y2="high:Q"
        ),
        points.mark_point(color=MEMBER, filled=True, size=64, opacity=1).encode(x=x("predicted"), y=y),
    ).properties(width=WIDTH, height=HEIGHT)
    return themed(alt.vconcat(upper, _rug(found, low, top), spacing=26), "reliability", *_words(found))


def _ends(found: MembershipProbability) -> tuple[float, float]:
    """Of the axes: 0 and 1; where members are rare, a power of ten below every probability told, and 1."""
    if found.prior >= RARE:
        return 0.0, 1.0
    return 10.0 ** math.floor(math.log10(float(np.nanmin(found.probability)))), 1.0


def _scale(low: float, top: float) -> alt.Scale:
    import altair as alt

    if low > 0:
        return alt.Scale(type="log", domain=[low, top], nice=False)
    return alt.Scale(domain=[low - 0.02, top + 0.02], nice=False, zero=False)


def _axis(low: float, *, labels: bool = True, ticks: bool = True, grid: bool = True) -> alt.Axis:
    import altair as alt

    places = np.arange(0.0, 1.01, 0.2) if low == 0 else 10.0 ** np.arange(round(math.log10(low)), 1)
    return alt.Axis(values=places.tolist(), labelExpr=PERCENT, labels=labels, ticks=ticks, grid=grid)


def _rug(found: MembershipProbability, low: float, top: float) -> Chart:
    """How many of each side were told what, as two histograms."""
    import altair as alt

    edges = np.geomspace(low, top, BARS + 1) if low > 0 else np.linspace(low, top, BARS + 1)
    rows = []
    for side, values in (("members", found.members), ("non-members", found.nonmembers)):
        values = np.clip(values[~np.isnan(values)], low, top)
        shares = np.histogram(values, edges)[0] / max(len(values), 1)
        rows += [
            {"side": side, "told": float(at), "share": float(share)}
            for at, share in zip(edges, [*shares, shares[-1]], strict=True)
        ]
    x = alt.X(
        "told:Q",
        scale=_scale(low, top),
        axis=_axis(low, grid=False),
        title=f"probability of membership told, prior {rate(found.prior)}",
    )
    y = alt.Y("share:Q", axis=alt.Axis(labelExpr=PERCENT, tickCount=2), title="of a side")
    members = alt.Chart(inline(row for row in rows if row["side"] == "members"))
    others = alt.Chart(inline(row for row in rows if row["side"] == "non-members"))
    return alt.layer(
        members.mark_area(interpolate="step-after", opacity=0.45, color=MEMBER).encode(x=x, y=y),
        others.mark_line(interpolate="step-after", strokeWidth=1.6, strokeDash=[6, 2], color=OTHER).encode(x=x, y=y),
        *(
            alt.Chart(inline([{}]))
            .mark_text(color=color, align="left", baseline="bottom", fontSize=12, fontWeight="bold")
            .encode(x=alt.value(place), y=alt.value(-5), text=alt.value(word))
            for place, color, word in ((0, MEMBER, "members (filled)"), (130, OTHER, "non-members (dashed)"))
        ),
    ).properties(width=WIDTH, height=RUG)


def _words(found: MembershipProbability) -> tuple[str, str]:
    slope = found.calibration.slope
    held = sum(row["low"] <= row["predicted"] <= row["high"] for row in found.reliability)
    if known(slope.value):
        text = figure("auc", slope.value, slope.low, slope.high)
        said = (
            f"Calibration slope {text}; 1 is as told, below 1 too extreme. "
            f"{held} of {len(found.reliability)} intervals hold the diagonal."
        )
    else:
        said = "Nobody stands out: the slope of the calibration is not measurable."
    count = int((~np.isnan(found.probability)).sum())
    more = (
        f"{said} {count:,} records in {len(found.reliability)} bins: probability told across, share of members found "
        "up, with its interval; the dotted diagonal is as told. Below, how many of each side were told what."
    )
    return said, more
