"""1,000 people, of whom an attacker names some: what the tail means for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from divulge.charts.look import MEMBER, MUTED, OTHER, WIDTH, Chart, inline, themed
from divulge.errors import Unavailable
from divulge.metrics import NAN
from divulge.report import Verdict
from divulge.wording import figure, known, rate

if TYPE_CHECKING:
    from divulge.report import Report

PRIORS = (0.5, 0.1, 0.01)  # shares of members among the people in the picture
PEOPLE = 1000


class Crowd(NamedTuple):
    """What an attacker would say of 1,000 people at the tail's FPR; whole people, rounded from the expectation.

    prior: share of members among them. members, others: how many people are what. named_members, named_others: of
    whom the attacker says "was in the training set"; expected: both before rounding. right: the share that is right of
    those named, with its interval.
    """

    prior: float
    members: int
    others: int
    named_members: int
    named_others: int
    expected: tuple[float, float]
    right: float
    low: float
    high: float


def crowds(report: Report) -> list[Crowd]:
    """A crowd at each of the priors 50, 10 and 1 %.

    Raises:
        Unavailable: no tail was measured, or the test is invalid.
    """
    if report.verdict is Verdict.INVALID:
        raise Unavailable("the test itself cannot be trusted, so it says nothing about people")
    tail = report.tail
    if not known(tail.tpr.value):
        raise Unavailable(f"the share of members who can be told is not measurable: {tail.tpr.reason}")
    found = []
    for prior in PRIORS:
        members = round(PEOPLE * prior)
        expected = members * tail.tpr.value, (PEOPLE - members) * tail.fpr
        named = round(expected[0]), round(expected[1])
        # Of those named p L / (p L + 1 - p) are members, where L is the lift: it rises with L, as its interval does.
        right, low, high = (prior * lift / (prior * lift + 1 - prior) if known(lift) else NAN for lift in tail.lift[:3])
        found.append(Crowd(prior, members, PEOPLE - members, *named, expected, right, low, high))
    return found


KINDS = ("member, named", "not a member, named", "member, not named", "not a member, not named")


_RING = "M0,-.5A.5,.5,0,1,1,0,.5A.5,.5,0,1,1,0,-.5ZM0,-.3A.3,.3,0,1,0,0,.3A.3,.3,0,1,0,0,-.3Z"
_DOT = "M0,-.16A.16,.16,0,1,1,0,.16A.16,.16,0,1,1,0,-.16Z"


def people(report: Report) -> Chart:
    """1,000 people as icons, of whom an attacker names some, where half, a tenth or a hundredth were members.

    Raises:
        Unavailable: no tail was measured, or the test is invalid.
    """
    import altair as alt

    found = crowds(report)
    rows = []
    for crowd in found:
        counts = (
            crowd.named_members,
            crowd.named_others,
            crowd.members - crowd.named_members,
            crowd.others - crowd.named_others,
        )
        kinds = [kind for kind, count in zip(KINDS, counts, strict=True) for _ in range(count)]
        title = f"{crowd.members} of {PEOPLE:,} were members"
        rows += [{"crowd": title, "x": at % 50, "y": at // 50, "kind": kind} for at, kind in enumerate(kinds)]
    color = alt.Scale(domain=list(KINDS), range=[MEMBER, OTHER, MEMBER, MUTED])
    shape = alt.Scale(domain=list(KINDS), range=["circle", "cross", _RING, _DOT])
    titles = list(dict.fromkeys(str(row["crowd"]) for row in rows))
    chart = (
        alt.Chart(inline(rows))
        .mark_point(filled=True, opacity=1, size=34)
        .encode(
            x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-1, 50])),
            y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[20, -1])),
            color=alt.Color("kind:N", scale=color, title=None, legend=alt.Legend(columns=2)),
            shape=alt.Shape("kind:N", scale=shape, title=None),
            row=alt.Row("crowd:N", sort=titles, title=None, header=alt.Header(labelAnchor="start", labelOrient="top")),
        )
        .properties(width=WIDTH, height=150)
    )
    return themed(chart, "people", *about_people(report, found))


def about_people(report: Report, found: Sequence[Crowd]) -> tuple[str, str]:
    """The sentence under the people, and their text alternative."""
    tail = report.tail
    said = (
        f"An attacker who is wrong about {rate(tail.fpr)} of the others names {figure('tail_tpr', *tail.tpr[:3])} of "
        f"the members. Naming is right {_right(found[0])}, and {_right(found[-1])}."
    )
    each = " ".join(
        f"Of {PEOPLE:,} people of whom {crowd.members} were members, about {crowd.named_members} members and "
        f"{crowd.named_others} others are named."
        for crowd in found
    )
    return said, f"{said} {each}"


def _right(crowd: Crowd) -> str:
    share = figure("ppv", crowd.right, crowd.low, crowd.high)
    return f"{share} of the time where {rate(crowd.prior)} are members (guessing: {rate(crowd.prior)})"
