"""An Altair chart as a small SVG for a page: no script, one text alternative, the page's own colours.

The page's style sheet defines the colours as variables (`--ink`, `--member` …): a dark page needs no second picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from divulge.charts.look import PALETTE
from divulge.wording import printable

if TYPE_CHECKING:
    from markupsafe import Markup

    from divulge.charts.crowd import Crowd


class Picture(NamedTuple):
    """A picture with its words.

    question: its title. sentence: what it shows here. svg: markup, safe to insert.
    """

    question: str
    sentence: str
    svg: Markup


def picture(chart: Any, key: str) -> Picture:
    """Render a chart of `divulge.charts`.

    Args:
        chart: with its words: title, subtitle and description.
        key: of letters and digits; tells its ids from those of other pictures on the page.
    """
    import vl_convert

    spec = chart.to_dict()
    words, alternative = spec.pop("title"), spec.pop("description")
    sentence = words["subtitle"] if isinstance(words["subtitle"], str) else " ".join(words["subtitle"])
    return Picture(words["text"], sentence, _framed(_slim(vl_convert.vegalite_to_svg(spec), key), alternative))


_DROPPED = re.compile(
    r' (?:class|role|aria-[a-z]+|pointer-events|font-family|stroke-miterlimit|opacity="1"|xmlns:xlink|version)'
    r'(?:="[^"]*")?'
)
_EMPTY = re.compile(r'<path class="(?:background|foreground)"[^>]*/>')
_LONG = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_TAG = re.compile(r"<[^>]*>")


def _slim(svg: str, key: str) -> str:
    """The drawing alone: nothing that only scripts read, a tenth of a pixel at most, colours by their variables."""
    svg = _EMPTY.sub("", svg)

    def slimmer(tag: re.Match[str]) -> str:
        text = _DROPPED.sub("", tag[0])
        text = _LONG.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text)
        return re.sub(r'((?:id="|url\(#))', rf"\g<1>{key}", text)

    svg = _TAG.sub(slimmer, svg)
    for name, color in PALETTE.items():
        svg = svg.replace(f'"{color}"', f'"var(--{name})"')
    svg = re.sub(r'<rect width="\d+" height="\d+" fill="var\(--paper\)"/>', "", svg, count=1)  # the page has its own
    while (smaller := svg.replace("<g></g>", "")) != svg:
        svg = smaller
    return svg


def _framed(svg: str, alternative: str) -> Markup:
    """The drawing as one image with one text, as wide as its place and no wider than drawn."""
    from markupsafe import Markup, escape

    head = re.match(r'<svg[^>]* width="(\d+)(?:\.\d+)?" height="(\d+)(?:\.\d+)?"[^>]*>', svg)
    assert head is not None, "the renderer gives every picture its size"
    width, height = head.groups()
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'style="max-width:{round(int(width) * 1.3)}px" aria-label="{escape(printable(alternative))}">'
    )
    return Markup(opening + svg[head.end() :])


# ----------------------------------------------------------------------------------------------------- the people

_STEP, _ACROSS = 10, 50
_ICONS = (
    '<g id="p0"><circle cx="5" cy="5" r="3.6" fill="var(--member)"/></g>'
    '<g id="p1"><path d="M2 2 8 8M8 2 2 8" stroke="var(--other)" stroke-width="2.2"/></g>'
    '<g id="p2"><circle cx="5" cy="5" r="2.9" fill="none" stroke="var(--member)" stroke-width="1.2"/></g>'
    '<g id="p3"><circle cx="5" cy="5" r="1.1" fill="var(--muted)"/></g>'
)


def crowd_picture(crowd: Crowd) -> Markup:
    """One crowd as 1,000 icons, each drawn once and used many times; the page holds `icon_shapes` once."""
    counts = (
        crowd.named_members,
        crowd.named_others,
        crowd.members - crowd.named_members,
        crowd.others - crowd.named_others,
    )
    kinds = [kind for kind, count in enumerate(counts) for _ in range(count)]
    rows = [kinds[start : start + _ACROSS] for start in range(0, len(kinds), _ACROSS)]
    drawn = "".join(_row(row, at * _STEP) for at, row in enumerate(rows))
    size = f"0 0 {_ACROSS * _STEP} {len(rows) * _STEP}"
    alternative = (
        f"{crowd.members + crowd.others:,} people, of whom {crowd.members} were members. Named: {crowd.named_members} "
        f"members and {crowd.named_others} others."
    )
    return _framed_icons(size, drawn, alternative)


def _row(kinds: Sequence[int], y: int) -> str:
    """A row of icons; a whole row of one kind is used as a whole."""
    if len(kinds) == _ACROSS and len(set(kinds)) == 1:
        return f'<use href="#r{kinds[0]}" y="{y}"/>'
    return "".join(f'<use href="#p{kind}" x="{x * _STEP}" y="{y}"/>' for x, kind in enumerate(kinds))


def _framed_icons(size: str, drawn: str, alternative: str) -> Markup:
    from markupsafe import Markup, escape

    return Markup(f'<svg viewBox="{size}" role="img" aria-label="{escape(alternative)}">{drawn}</svg>')


def icon_shapes() -> Markup:
    """The shapes that `crowd_picture` uses, each alone (`p0` … `p3`) and as a whole row (`r0` … `r3`)."""
    from markupsafe import Markup

    rows = "".join(
        f'<g id="r{kind}">{"".join(f"""<use href="#p{kind}" x="{x * _STEP}"/>""" for x in range(_ACROSS))}</g>'
        for kind in range(4)
    )
    return Markup(f'<svg width="0" height="0" aria-hidden="true" class="defs"><defs>{_ICONS}{rows}</defs></svg>')


def icon(kind: int) -> Markup:
    """One icon for the key of the picture."""
    from markupsafe import Markup

    return Markup(f'<svg viewBox="0 0 10 10" aria-hidden="true" class="icon"><use href="#p{kind}"/></svg>')
