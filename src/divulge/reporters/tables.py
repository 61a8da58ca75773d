"""Tables of a page: the numbers under each picture, as text for people and as numbers for machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from divulge.charts import crowd
from divulge.charts.look import distinct
from divulge.charts.single import band_name
from divulge.metrics import NAN
from divulge.reporters.pairings import pairings
from divulge.wording import (
    MARKS,
    change,
    clipped,
    figure,
    gate_label,
    gate_metric,
    gate_worst,
    known,
    of_everyone,
    p_text,
    rate,
    run_label,
    score_attack,
    worded,
    worst_slices,
)

if TYPE_CHECKING:
    from divulge.comparison import Comparison
    from divulge.report import Report, Row
    from divulge.series import Series

NAME, TEXT = 80, 400  # longest name and text on a page, in characters


class Cell(NamedTuple):
    """A cell: its text, and the numbers behind it (value, then low and high end), if any.

    >>> Cell.of("score", 0.12345678, 0.1, 0.15).numbers
    ('0.123457', '0.1', '0.15')
    """

    text: str
    numbers: tuple[str, ...] = ()

    @classmethod
    def of(cls, metric: str, value: float, low: float = NAN, high: float = NAN) -> Cell:
        """A figure with its interval."""
        ends = [number for number in (value, low, high) if known(number)]
        return cls(figure(metric, value, low, high), tuple(f"{number:.6g}" for number in ends))

    @classmethod
    def whole(cls, number: int) -> Cell:
        """A whole number."""
        return cls(f"{number:,}", (str(number),))


class Table(NamedTuple):
    """A table of cells.

    caption: what it holds. headings: text and side ("left", "right") a column. rows: cells, the first a row's heading.
    notes: said below it.
    """

    caption: str
    headings: list[tuple[str, str]]
    rows: list[list[Cell]]
    notes: list[str] = []  # noqa: RUF012  (never changed)


def name(text: object) -> Cell:
    """An untrusted name."""
    return Cell(clipped(text, NAME) if str(text).strip() else "(blank)")


def people(report: Report) -> Table:
    """Of 1,000 people, whom an attacker names."""
    rows = [
        [
            Cell(f"{one.members} of {crowd.PEOPLE:,}"),
            *(Cell(f"{number:.1f}", (f"{number:.6g}",)) for number in one.expected),
            Cell.of("ppv", one.right, one.low, one.high),
        ]
        for one in crowd.crowds(report)
    ]
    headings = [
        ("were members", "left"),
        *_right("members named, expected", "others named, expected", "right when naming"),
    ]
    return Table("Whom the attacker names, of 1,000 people", headings, rows)


def gates(report: Report) -> Table:
    """Every gate with its worst figure."""
    rows = [
        [
            Cell(gate_label(row)),
            Cell(f"{MARKS[row['outcome']]} {worded(row['outcome'])}"),
            _gate_value(row),
            Cell(gate_worst(row, NAME) or ""),
            Cell(clipped(row["reason"] or "", TEXT)),
        ]
        for row in report.rows("gates")
    ]
    headings = [*_left("gate", "outcome"), *_right("value"), *_left("of", "note")]
    return Table("Gates", headings, rows)


def _gate_value(row: Row) -> Cell:
    """The figure that decided; none where all that could fail are waived."""
    waived = row["outcome"] == "PASS" and not known(row["value"])
    return Cell("") if waived else Cell.of(gate_metric(row), row["value"], row["low"], row["high"])


def roc(report: Report) -> Table:
    """Each attack's AUC and its TPR at the FPRs that were asked for."""
    results = report.rows("results")
    fprs = list(dict.fromkeys(row["fpr"] for row in results if row["metric"] == "tpr"))
    columns = [
        ("AUC (0.5 = chance)", "auc", of_everyone(report, "auc")),
        *((f"TPR at {rate(fpr)} FPR", "tpr", of_everyone(report, "tpr", fpr)) for fpr in fprs),
    ]
    columns = [column for column in columns if column[2]]
    ran = [str(row["attack"]) for row in report.rows("attacks") if row["status"] == "ran"]
    rows = [
        [
            name(attack),
            *(Cell.of(metric, *found[attack][:3]) if attack in found else Cell("") for _, metric, found in columns),
        ]
        for attack in ran
    ]
    reasons = dict.fromkeys(e.reason for *_, found in columns for e in found.values() if e.reason)
    headings = [("attack", "left"), *_right(*(heading for heading, *_ in columns))]
    return Table("Rates by attack", headings, rows, [clipped(reason, TEXT) for reason in reasons])


def distribution(report: Report) -> Table:
    """The bins of the best attack's scores."""
    attack = score_attack(report)
    rows = [
        [
            Cell(f"{row['start']:.4g}" if known(row["start"]) else "below"),
            Cell(f"{row['stop']:.4g}" if known(row["stop"]) else "above"),
            Cell.whole(row["members"]),
            Cell.whole(row["nonmembers"]),
        ]
        for row in report.rows("distribution")
        if row["attack"] == attack
    ]
    headings = [("score from", "left"), *_right("to, not including", "members", "non-members")]
    return Table(f"Scores of {clipped(attack, NAME)}", headings, rows)


_ELSEWHERE = ("score", "tail_tpr", "tail_lift", "tpr", "achieved_fpr", "ppv", "max_advantage", "balanced_accuracy")


def attacks(report: Report) -> Table:
    """What became of each attack, and its figures, those that a user defined among them."""
    metrics = {"auc": "AUC", "advantage": "advantage, cross-fitted", "epsilon": "empirical ε, lower bound"}
    own = dict.fromkeys(str(row["metric"]) for row in report.rows("results") if row["attack"] != "(model)")
    metrics |= {metric: clipped(metric, 40) for metric in own if metric not in (*metrics, *_ELSEWHERE)}
    found = {metric: of_everyone(report, metric) for metric in metrics}
    shown = [metric for metric in metrics if found[metric]]
    rows = []
    for row in report.rows("attacks"):
        figures = [
            Cell.of(metric, *found[metric][row["attack"]][:3]) if row["attack"] in found[metric] else Cell("")
            for metric in shown
        ]
        rows.append([name(row["attack"]), Cell(row["status"]), *figures, Cell(clipped(row["reason"] or "", TEXT))])
    headings = [*_left("attack", "status"), *_right(*(metrics[metric] for metric in shown)), ("note", "left")]
    return Table("Attacks", headings, rows)


def slices(report: Report) -> Table:
    """Every slice, the most exposed first."""
    about = {row["slice"]: row for row in report.rows("slices")}
    scored = worst_slices(report)
    rows = [
        [
            name(row["slice"]),
            Cell.of("score", row["value"], row["low"], row["high"]),
            _p(about[row["slice"]]["p"] if row["slice"] in about else None),
            Cell.whole(row["members"]),
            Cell.whole(row["nonmembers"]),
        ]
        for row in scored
    ]
    headings = [("slice", "left"), *_right("score", "p (Holm)", "members", "non-members")]
    return Table("Slices, the most exposed first", headings, rows)


def _p(p: float | None) -> Cell:
    return Cell(p_text(p), () if p is None or not known(p) else (f"{p:.6g}",))


def records(report: Report) -> Table:
    """The bands of records."""
    rows = [
        [
            Cell(band_name(row)),
            Cell.of("ppv", row["probability"], row["low"], row["high"]),
            Cell.whole(row["members"]),
            Cell.whole(row["nonmembers"]),
        ]
        for row in report.rows("bands")
    ]
    headings = [("where the non-members' …", "left"), *_right("members where half are", "members", "non-members")]
    return Table("Bands of records, the most exposed first", headings, rows)


def controls(report: Report) -> Table:
    """Whether the test itself can be trusted."""
    marks = {"ok": "✓ ok", "warning": "! warning", "invalid": "✗ INVALID", "not run": "· not run"}
    rows = [
        [
            name(row["control"]),
            Cell(marks[row["status"]]),
            Cell(clipped(row["text"] or row["reason"] or "", TEXT)),
            _code(row),
        ]
        for row in report.rows("controls")
    ]
    return Table("Controls", _left("control", "outcome", "what it saw", "code"), rows)


def _code(row: Row) -> Cell:
    return Cell(str(row["code"] or "") if row["status"] in ("warning", "invalid") else "")


def run_names(found: Comparison) -> list[Cell]:
    """The runs' names, told apart where clipping makes them alike."""
    return [name(short) for short in distinct(found.names, NAME)]


def comparison(found: Comparison) -> Table:
    """Every figure of every run, with its difference to the first."""
    called = dict(zip(found.names, run_names(found), strict=True))
    rows = [
        [
            Cell(run_label(row)),
            called[row["run"]],
            Cell.of(row["metric"], row["value"], row["low"], row["high"]),
            Cell(change(row), Cell.of(row["metric"], row["difference"], row["diff_low"], row["diff_high"]).numbers),
            Cell(str(row["pairing"] or "")),
        ]
        for row in found.rows()
    ]
    against = f"change against {clipped(found.names[0], 30)}"
    headings = [*_left("figure", "run"), *_right("value", against), ("pairing", "left")]
    reasons = dict.fromkeys(f"Not measurable: {row['reason']}." for row in found.rows() if row["reason"])
    return Table("The runs' figures", headings, rows, [*reasons, *pairings(found)])


def tradeoff(found: Comparison) -> Table:
    """Each run's score and accuracy."""
    rows = []
    for run, called in zip(found.names, run_names(found), strict=True):
        own = {row["metric"]: row for row in found.rows() if row["run"] == run}
        figures = [own.get(metric) for metric in ("score", "nonmember_accuracy", "member_accuracy")]
        cells = [Cell.of(row["metric"], row["value"], row["low"], row["high"]) if row else Cell("") for row in figures]
        rows.append([called, *cells])
    headings = [("run", "left"), *_right("vulnerability score", "right on others", "right on members")]
    return Table("Privacy and accuracy by run", headings, rows)


def over(series: Series) -> Table:
    """Each run's place on the axis, its score and its accuracy."""
    table = tradeoff(series.comparison)
    if series.steps is None:
        return table
    rows = [
        [row[0], Cell(f"{step:.6g}", (f"{step:.12g}",)), *row[1:]]
        for row, step in zip(table.rows, series.steps, strict=True)
    ]
    first, *rest = table.headings
    return table._replace(rows=rows, headings=[first, (clipped(series.axis, 40), "right"), *rest])


def _left(*texts: str) -> list[tuple[str, str]]:
    return [(text, "left") for text in texts]


def _right(*texts: str) -> list[tuple[str, str]]:
    return [(text, "right") for text in texts]
