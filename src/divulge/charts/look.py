"""How the pictures look: one palette safe for colour-blind readers, one type scale, and the forest plot of intervals.

Meaning is never in colour alone: a shape, a dash or a word says it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divulge.wording import clipped

if TYPE_CHECKING:
    import altair as alt

INK, MUTED, LINE, SHADE, PAPER = "#1c2127", "#59636e", "#d3d9e0", "#e9edf1", "#ffffff"
MEMBER, OTHER, THIRD, FOURTH = "#b5480a", "#1065a8", "#0b7a5b", "#7d1fc2"
PALETTE = {"ink": INK, "muted": MUTED, "line": LINE, "shade": SHADE, "paper": PAPER}
PALETTE |= {"member": MEMBER, "other": OTHER, "third": THIRD, "fourth": FOURTH}
"""Every colour of the pictures, by what it is for: a page may put its own in their place."""

QUESTIONS = {
    "people": "If an attacker says “this person was in the data”, how often is that right?",
    "gates": "Does the model stay within the policy's limits?",
    "roc": "How many members does an attacker find at few false alarms?",
    "distributions": "Do members score differently from non-members?",
    "attacks": "Which attack works best, and does anything but the model explain it?",
    "slices": "Who is exposed more than others?",
    "records": "Is it everyone a little, or a few people a lot?",
    "baseline": "What changed against the baseline?",
    "tradeoff": "What does privacy cost in accuracy?",
    "over": "How does leakage change along the way, and accuracy with it?",
    "reliability": "Can the probabilities of membership be taken at their word?",
    "runs": "How do the runs differ?",
}
"""What each picture answers: its title."""

SERIES = (MEMBER, OTHER, THIRD, FOURTH, INK, MUTED)
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
WIDTH, ROW = 380, 22  # of a plot, and of a line of a forest plot, in pixels
NAME = 30  # longest name in a picture, in characters

PERCENT = "format(datum.value * 100, '~r') + ' %'"  # the label of a share on an axis

Chart = Any  # altair.LayerChart and its kin, which have no type of their own in common
Cells = Mapping[str, Any]


def inline(rows: Iterable[Cells]) -> alt.InlineData:
    """Rows as a chart's own data; NaN is null."""
    import altair as alt

    return alt.InlineData(values=[{name: _plain(cell) for name, cell in row.items()} for row in rows])


def _plain(cell: Any) -> Any:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def themed(chart: Chart, picture: str, sentence: str, alternative: str) -> Chart:
    """A picture with its words: its question as the title, a sentence under it, and the text alternative."""
    import textwrap

    import altair as alt

    lines = textwrap.wrap(sentence, 76)
    title = alt.Title(QUESTIONS[picture], subtitle=lines, anchor="start", frame="bounds", offset=14)
    named = chart.properties(title=title, description=alternative)
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    return (
        named.configure(font="Helvetica, Arial, sans-serif", aria=False, background=PAPER, padding=6)
        .configure_view(stroke=None)
        .configure_axis(**text, gridColor=LINE, domainColor=MUTED, tickColor=MUTED, titlePadding=8, labelLimit=190)
        .configure_legend(**text, symbolStrokeWidth=2.2, symbolSize=110, labelLimit=260, orient="bottom")
        .configure_title(color=INK, subtitleColor=MUTED, fontSize=16, subtitleFontSize=12, subtitlePadding=6)
        .configure_header(labelColor=INK, labelFontSize=12, titleColor=INK)
    )


def distinct(names: Sequence[str], limit: int = NAME) -> list[str]:
    """Names short enough for a picture, told apart where clipping makes them alike.

    >>> distinct(["a" * 99, "a" * 98], 6)
    ['aaaaa…', 'aaa… 2']
    """
    found: list[str] = []
    for name in names:
        short, count = clipped(name, limit), 1
        while short in found:
            count += 1
            short = f"{clipped(name, limit - 1 - len(str(count)))} {count}"
        found.append(short)
    return found


def span(values: Iterable[float], include: Sequence[float]) -> list[float]:
    """A domain that holds all finite values and `include`, with a little air.

    >>> span([0.5, float("nan")], [0.0])
    [-0.02, 0.52]
    """
    finite = [value for value in (*values, *include) if math.isfinite(value)]
    air = 0.04 * ((max(finite) - min(finite)) or 1)
    return [min(finite) - air, max(finite) + air]


def forest(
    rows: Sequence[Cells],
    axis: str,
    *,
    marks: Mapping[float, str],
    include: Sequence[float] = (),
    kinds: Sequence[str] = ("",),
    row: int = ROW,
    width: int = WIDTH - 90,
) -> Chart:
    """Names down the side, a value with its interval each.

    Args:
        rows: name, value, low, high and, where there are several, kind; in the order to show.
        axis: what the values are.
        marks: places to mark by an upright line, with a word each.
        include: values that the axis holds in any case.
        kinds: of the rows, each with a colour and a shape.
        row, width: pixels of a line, and of the plot.
    """
    import altair as alt

    names = [str(item["name"]) for item in rows]
    ends = [float(item[key]) for item in rows for key in ("value", "low", "high")]
    scale = alt.Scale(domain=span(ends, [*marks, *include]), nice=False, zero=False)
    y = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    x = alt.X("value:Q", scale=scale, title=axis, axis=alt.Axis(tickCount=6))
    color = alt.Color("kind:N", scale=alt.Scale(domain=list(kinds), range=list(SERIES[: len(kinds)])), legend=None)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=list(kinds), range=list(SHAPES[: len(kinds)])), legend=None)
    measured = [{"kind": kinds[0], **item} for item in rows if math.isfinite(item["value"])]
    gaps = [item for item in rows if not math.isfinite(item["value"])]
    held = [item for item in measured if math.isfinite(item["low"]) and math.isfinite(item["high"])]
    upright = inline({"value": place, "word": word} for place, word in marks.items())
    layers = [
        alt.Chart(upright).mark_rule(color=MUTED, strokeDash=[3, 3]).encode(x=x),
        alt.Chart(upright)
        .mark_text(color=MUTED, align="center", baseline="bottom", dy=-3, fontSize=11)
        .encode(x=x, y=alt.value(0), text="word:N"),
        alt.Chart(inline(held))
        .mark_rule(strokeWidth=2.4)
        .encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=y, color=color),
        alt.Chart(inline(measured))
        .mark_point(filled=True, size=64, opacity=1)
        .encode(x=x, y=y, color=color, shape=shape),
    ]
    if gaps:
        said = inline({"name": item["name"], "word": "not measurable"} for item in gaps)
        words = alt.Chart(said).mark_text(align="left", color=MUTED, fontStyle="italic", fontSize=11)
        layers.append(words.encode(x=alt.value(6), y=y, text="word:N"))
    return alt.layer(*layers).properties(width=width, height=alt.Step(row))
