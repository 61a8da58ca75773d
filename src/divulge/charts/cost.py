"""Privacy against accuracy over several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from divulge.charts.look import (
    INK,
    MUTED,
    PERCENT,
    SERIES,
    SHAPES,
    WIDTH,
    Chart,
    distinct,
    inline,
    span,
    themed,
)
from divulge.errors import Unavailable
from divulge.report import Verdict
from divulge.wording import figure, known

if TYPE_CHECKING:
    from divulge.comparison import Comparison

HEIGHT = 280
LABELLED = 14  # runs that get their name in the picture
Side = Literal["left", "right"]
_LETTER, _LINE = 6.4, 14  # pixels of a letter's width, of a line's height


class _Point(NamedTuple):
    """A run: accuracy and score with their ends."""

    run: str
    accuracy: float
    left: float
    right: float
    score: float
    low: float
    high: float


def tradeoff(comparison: Comparison) -> Chart:
    """The vulnerability score of each run against its accuracy on held-out records; both with their intervals.

    Args:
        comparison: of `compare`: runs, epochs, noise levels.

    Raises:
        Unavailable: fewer than two runs whose test is valid have both a score and an accuracy.
    """
    import altair as alt

    points = _points(comparison)
    if len(points) < 2:
        raise Unavailable("needs two runs or more with a valid test, a score and an accuracy on held-out records")
    across = span([end for point in points for end in (point.left, point.right)], [])
    up = span([end for point in points for end in (point.low, point.high)], [0.0])
    x_scale, y_scale = alt.Scale(domain=across, nice=False, zero=False), alt.Scale(domain=up, nice=False, zero=False)
    axis = alt.Axis(labelExpr=PERCENT, tickCount=5)
    x = alt.X("accuracy:Q", scale=x_scale, axis=axis, title="accuracy on held-out records")
    y = alt.Y("score:Q", scale=y_scale, title="vulnerability score")
    order = [point.run for point in points]
    kinds = len(order) if len(order) <= len(SERIES) else 1  # more than there are colours: all alike
    colors, shapes = (
        alt.Scale(domain=order, range=[of[at % kinds] for at in range(len(order))]) for of in (SERIES, SHAPES)
    )
    color, shape = alt.Color("run:N", scale=colors, legend=None), alt.Shape("run:N", scale=shapes, legend=None)
    drawn = alt.Chart(inline(point._asdict() for point in points))
    chance = alt.Chart(inline([{"score": 0.0}]))
    bars = drawn.mark_rule(strokeWidth=2, opacity=0.5)
    layers = [
        chance.mark_rule(color=MUTED, strokeDash=[3, 3]).encode(y=y),
        bars.encode(x=x, y=alt.Y("low:Q", scale=y_scale), y2="high:Q", color=color),
        bars.encode(y=y, x=alt.X("left:Q", scale=x_scale), x2="right:Q", color=color),
        drawn.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, color=color, shape=shape),
        *(
            alt.Chart(inline([{"run": label.run, "accuracy": label.x, "score": label.y} for label in labels]))
            .mark_text(color=INK, align=side, baseline="middle", fontSize=12)
            .encode(x=x, y=y, text="run:N")
            for side, labels in _labels(points[:LABELLED], across, up).items()
            if labels
        ),
    ]
    low, high = min(points, key=lambda point: point.score), max(points, key=lambda point: point.score)
    said = f"Lower and further right is better. The lowest score is that of {low.run} ({_score(low)}), right on "
    said += f"{_accuracy(low)} of the held-out records"
    said += "." if high is low else f"; the highest that of {high.run} ({_score(high)}), right on {_accuracy(high)}."
    if high is not low and low.high >= high.low:
        said += " Their intervals overlap."
    if invalid := sum(verdict is Verdict.INVALID for verdict in comparison.verdicts):
        said += f" Left out: {invalid} of {len(comparison.names)} runs, whose test is invalid."
    return themed(alt.layer(*layers).properties(width=WIDTH, height=HEIGHT), "tradeoff", said, said)


def _points(comparison: Comparison) -> list[_Point]:
    found = []
    names = distinct(comparison.names, 24)
    for run, name, verdict in zip(comparison.names, names, comparison.verdicts, strict=True):
        if verdict is Verdict.INVALID:
            continue  # its figures say nothing about the model
        own = {row["metric"]: row for row in comparison.rows() if row["run"] == run and not known(row["fpr"])}
        score, accuracy = own.get("score"), own.get("nonmember_accuracy")
        if score and accuracy and known(score["value"]) and known(accuracy["value"]):
            figures = (row[key] for row in (accuracy, score) for key in ("value", "low", "high"))
            found.append(_Point(name, *figures))
    return found


def _score(point: _Point) -> str:
    return figure("score", point.score, point.low, point.high)


def _accuracy(point: _Point) -> str:
    return figure("nonmember_accuracy", point.accuracy, point.left, point.right)


class _Label(NamedTuple):
    """A run's name: where it starts or ends on the axes, and the pixels that it takes (left, right, middle line)."""

    run: str
    x: float
    y: float
    box: tuple[float, float, float]


def _labels(points: Sequence[_Point], across: Sequence[float], up: Sequence[float]) -> dict[Side, list[_Label]]:
    """Each name beside its point, on the first place where it covers no other name; by side of the text."""
    placed: dict[Side, list[_Label]] = {"left": [], "right": []}
    for point in sorted(points, key=lambda point: -point.score):
        at_x = WIDTH * (point.accuracy - across[0]) / (across[1] - across[0])
        at_y = HEIGHT * (up[1] - point.score) / (up[1] - up[0])
        wide = _LETTER * len(point.run)
        tries: list[tuple[float, int, Side, tuple[float, float, float]]] = []
        for down in (-11, 11, *(sign * step * _LINE for step in range(2, 9) for sign in (-1, 1))):
            starts: dict[Side, float] = {"right": at_x - 9 - wide, "left": at_x + 9}
            for side, start in starts.items():
                box = (start, start + wide, at_y + down)
                outside = max(-start, start + wide - WIDTH, 0) + max(-box[2], box[2] - HEIGHT, 0)
                covers = sum(_overlap(box, other.box) for own in placed.values() for other in own)
                tries.append((covers + outside, len(tries), side, box))
        _, _, side, box = min(tries)
        x = box[0] if side == "left" else box[1]
        on_axes = across[0] + x / WIDTH * (across[1] - across[0]), up[1] - box[2] / HEIGHT * (up[1] - up[0])
        placed[side].append(_Label(point.run, *on_axes, box))
    return placed


def _overlap(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Pixels by which two names cover each other, along the line."""
    return max(min(one[1], other[1]) - max(one[0], other[0]), 0.0) if abs(one[2] - other[2]) < _LINE else 0.0
