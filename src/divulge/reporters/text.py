"""The terminal summary of a report, and of a comparison: plain text that reads at 60 columns and in ASCII.

Class and column names are untrusted: they pass `printable` and are never read as markup. Colour repeats what a word or
a mark already says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from divulge.codes import CODES
from divulge.metrics import Estimate
from divulge.report import Report, Row, Verdict
from divulge.reporters.page import Page
from divulge.slices import EVERYONE
from divulge.wording import (
    BOUND_NOTE,
    MARKS,
    SAYS_NOT,
    attackers,
    figure,
    gate_label,
    gate_metric,
    gate_worst,
    known,
    model_name,
    most_urgent,
    needs_bound_note,
    of_everyone,
    p_text,
    printable,
    rate,
    score_attack,
    streamed,
    why,
    worded,
    worst_slices,
)

if TYPE_CHECKING:
    pass

WIDE = 80  # from here on, attacks stand in a table
WORST_SLICES = 5

STYLES = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INVALID": "bold magenta",
    "NOT_GATED": "bold",
}


def render(report: Report, *, width: int | None = None, color: bool = False, ascii: bool = False) -> str:
    """The summary of one report.

    Args:
        report: of `audit`, or loaded.
        width: columns, 40 to 120; None: the terminal's, 80 where there is none.
        color: use the terminal's colours, on top of the words and marks.
        ascii: use ASCII characters only, for a terminal without UTF-8.

    Returns:
        Lines, each ended by a newline, none longer than `width` characters.
    """
    page = Page(width, color, ascii)
    _headline(page, report)
    _attacks(page, report)
    _gates(page, report)
    _slices(page, report)
    _first(page, report)
    _limits(page, report)
    return page.text()


def _headline(page: Page, report: Report) -> None:
    verdict = report.verdict
    data = report.meta.get("data", {})
    words = (f"{MARKS[verdict]} {worded(verdict)}", STYLES[verdict])
    page.line(words, f"  {why(report)}", indent=0, hang=2)
    if model_name(report):
        page.line(page.name(model_name(report), page.width - 4))
    if data:
        kind = f"{data['members']:,} members, {data['nonmembers']:,} non-members, {data['task']}"
        page.line((f"{kind}; intervals at {rate(report.meta.get('confidence', 0.95))}", "dim"))
    for how in streamed(report)[:1]:
        page.line((how, "dim"))
    for left_out in streamed(report)[1:]:
        page.line(("! WARNING", STYLES["INCONCLUSIVE"]), f"  {left_out}", hang=2)
    for row in report.rows("controls"):
        if row["status"] in ("invalid", "warning"):
            style = STYLES["INVALID" if row["status"] == "invalid" else "INCONCLUSIVE"]
            page.line((f"! {str(row['status']).upper()}", style), f"  control {row['control']}: {row['text']}", hang=2)
    page.heading("How much the outputs give away")
    score, attack = report.score, score_attack(report)
    if known(score.value):
        page.line("score  ", (figure("score", *score[:3]), "bold"), "  0 = chance, 1 = every record told apart", hang=7)
        page.line(f"best attack: {page.name(attack, 40)}", indent=9)
    else:
        page.line(f"score  not measurable: {score.reason}", hang=7)
    _tail(page, report)
    _accuracies(page, report)


def _tail(page: Page, report: Report) -> None:
    tail = report.tail
    if not known(tail.lift.value):
        page.line(f"tail   not measurable: {tail.lift.reason}", hang=7)
        return
    lift = figure("tail_lift", *tail.lift[:3]).replace(" [", "× [", 1)
    page.line("tail   ", (lift, "bold"), f"  times chance at {rate(tail.fpr)} false alarms; 1 = chance", hang=7)
    found = figure("tail_tpr", *tail.tpr[:3])
    page.line(f"finds {found} of the members; best attack: {page.name(tail.attack, 40)}", indent=9)


def _accuracies(page: Page, report: Report) -> None:
    rows = {row["metric"]: row for row in report.rows("results") if str(row["metric"]).endswith("member_accuracy")}
    if len(rows) == 2:
        inside, outside = (
            figure(name, rows[name]["value"], rows[name]["low"], rows[name]["high"])
            for name in ("member_accuracy", "nonmember_accuracy")
        )
        page.line(f"model  is right on {inside} of the members, {outside} of the others", hang=7)


class _Measured(NamedTuple):
    """A column of the attacks' table: its heading, its metric and FPR, and each attack's estimate."""

    heading: str
    metric: str
    estimates: dict[str, Estimate]

    def gap(self) -> str | None:
        """The reason, where no attack has it and all say the same."""
        reasons = {estimate.reason for estimate in self.estimates.values()}
        measured = any(known(estimate.value) for estimate in self.estimates.values())
        return None if measured or len(reasons) != 1 else next(iter(reasons))


def _attacks(page: Page, report: Report) -> None:
    page.heading("By attack")
    columns = [
        _Measured("AUC (0.5 = chance)", "auc", of_everyone(report, "auc")),
        *(_Measured(f"TPR at {rate(fpr)} FPR", "tpr", of_everyone(report, "tpr", fpr)) for fpr in (0.01, 0.001)),
    ]
    columns = [column for column in columns if column.estimates]
    shown = [column for column in columns if column.gap() is None]
    attacks = [row["attack"] for row in report.rows("attacks") if row["status"] == "ran"]
    cells = {
        (attack, at): figure(column.metric, *column.estimates[attack][:3]) if attack in column.estimates else ""
        for at, column in enumerate(shown)
        for attack in attacks
    }
    if shown and page.width >= WIDE:
        headings = [("attack", "left"), *((column.heading, "left") for column in shown)]
        rows = [[page.name(attack, 30), *(cells[attack, at] for at in range(len(shown)))] for attack in attacks]
        page.table(headings, rows)
    elif shown:
        for attack in attacks:
            page.line((page.name(attack, page.width - 4), "bold"))
            for at, column in enumerate(shown):
                page.line(f"{column.heading}: {cells[attack, at]}", indent=4, hang=2)
    for column in columns:
        reasons = dict.fromkeys(
            estimate.reason for estimate in column.estimates.values() if estimate.reason and column.metric != "epsilon"
        )
        for reason in reasons:
            missing = "not measurable" if column.gap() else "not everywhere"
            page.line((f"{column.heading}: {missing}: {reason}", "dim"), hang=2)


def _gates(page: Page, report: Report) -> None:
    rows = report.rows("gates")
    if not rows:
        if report.verdict is Verdict.NOT_GATED:
            page.heading("Gates")
            page.line("none; limits go into divulge.toml, which --policy names", hang=2)
        return
    page.heading(f"Gates of {page.name(report.meta.get('policy') or 'the policy', page.width - 10)}")
    wide = max(len(str(row["outcome"])) for row in rows) + 2
    labels = [printable(gate_label(row), ascii=page.ascii) for row in rows]
    wide_label = max(len(label) for label in labels)
    for row, label in zip(rows, labels, strict=True):
        outcome = str(row["outcome"])
        mark = (f"{MARKS[outcome]} {outcome}".ljust(wide), STYLES[outcome])
        value = "" if not known(row["value"]) else figure(gate_metric(row), row["value"], row["low"], row["high"])
        if wide + wide_label + len(value) + 6 <= page.width:
            page.line(mark, f"  {label.ljust(wide_label)}  {value}")
        else:
            page.line(mark, f"  {label}", hang=wide + 2)
            page.line(value, indent=wide + 4, hang=2)
        for note in _gate_notes(page, row):
            page.line((note, "dim"), indent=wide + 4, hang=2)
    if needs_bound_note(report):
        page.line((BOUND_NOTE, "dim"))


def _gate_notes(page: Page, row: Row) -> list[str]:
    notes = [str(row["reason"])] if row["reason"] else []
    worst = gate_worst(row, page.width - 30)
    return [*notes, printable(worst, ascii=page.ascii)] if worst else notes


def _slices(page: Page, report: Report) -> None:
    scores = worst_slices(report)
    page.heading("Most exposed slices")
    if not scores:
        asked = report.meta.get("slices")
        page.line("no slice is large enough" if asked else "none were asked for: --slice class --slice correct")
        _merged(page, report)
        return
    p = {row["slice"]: row["p"] for row in report.rows("slices")}
    worst = scores[:WORST_SLICES]
    cells = [
        [
            figure("score", row["value"], row["low"], row["high"]),
            f"{row['members']:,} + {row['nonmembers']:,}",
            p_text(p.get(row["slice"])),
        ]
        for row in worst
    ]
    taken = sum(max(map(len, column)) + 2 for column in zip(*cells, strict=True))
    rows = [
        [page.name(row["slice"], max(page.width - taken - 2, 8)), *others]
        for row, others in zip(worst, cells, strict=True)
    ]
    page.table([("slice", "left"), ("score", "left"), ("in + out", "right"), ("p", "right")], rows)
    note = f"Worst {len(rows)} of {len(scores):,} by the score's lower end. The intervals hold together; p is Holm's."
    page.line((note, "dim"), hang=2)
    _merged(page, report)


def _merged(page: Page, report: Report) -> None:
    merged = [name for row in report.rows("slices") for name in row["merged"] or []]
    if merged:
        names = ", ".join(page.name(name, 30) for name in merged[:3])
        more = f" and {len(merged) - 3:,} more" if len(merged) > 3 else ""
        text = f"Under {report.meta.get('min_n', 0)} a side, so counted together as (rest): {names}{more}."
        page.line((text, "dim"), hang=2)


def _first(page: Page, report: Report) -> None:
    page.heading("What to try first")
    ranked = most_urgent(report)
    waived = len(report.findings) - len(ranked)
    if ranked:
        worst = ranked[0]
        where = "" if worst["slice"] in (None, "", EVERYONE) else f" ({page.name(worst['slice'], 40)})"
        page.line(
            (str(worst["code"]), "bold"), f" {CODES[worst['code']].title}{where}" if worst["code"] in CODES else ""
        )
        page.line(str(worst["fix"]))
        rest = _counted(row for row in ranked if row["code"] != worst["code"])
        if rest:
            page.line((f"also: {rest}", "dim"), hang=2)
        page.line((f"more: divulge explain {worst['code']}", "dim"))
    else:
        page.line("nothing: no finding")
    if waived:
        page.line((f"waived: {waived} finding{'s' if waived > 1 else ''}", "dim"))


def _counted(findings: Iterable[Row]) -> str:
    counts: dict[str, int] = {}
    for row in findings:
        counts[row["code"]] = counts.get(row["code"], 0) + 1
    return ", ".join(f"{code} ×{count}" if count > 1 else code for code, count in counts.items())


def _limits(page: Page, report: Report) -> None:
    page.heading("What this does not show")
    page.line(SAYS_NOT)
    attacks = report.rows("attacks")
    ran = ", ".join(page.name(row["attack"], 40) for row in attacks if row["status"] == "ran")
    page.line(f"{attackers(report)} Tried: {ran}.")
    skipped: dict[str, list[str]] = {}
    for row in attacks:
        if row["status"] == "skipped":
            skipped.setdefault(row["reason"], []).append(page.name(row["attack"], 40))
    for reason, names in skipped.items():
        page.line(f"Not tried: {', '.join(names)}: {reason}", hang=2)
    controls = report.rows("controls")
    if all(row["status"] == "not run" for row in controls):
        page.line("No control looked whether the test itself is valid.")
        return
    for row in controls:
        if row["status"] == "not run":
            page.line(f"Not checked: {row['control']}: {row['reason']}", hang=2)


def render_verdict(report: Report, *, ascii: bool = False) -> str:
    r"""The verdict and the score, on one line.

    >>> from divulge.report import table_of
    >>> row = {"attack": "loss", "slice": "everyone", "metric": "score", "value": 0.1, "low": 0.05, "high": 0.15}
    >>> render_verdict(Report({"verdict": "PASS"}, {"results": table_of("results", [row])}))
    'PASS  score 0.100 [0.050, 0.150]\n'
    """
    score = report.score
    text = figure("score", *score[:3]) + (f": {score.reason}" if score.reason else "")
    return printable(f"{report.verdict.value}  score {text}", ascii=ascii) + "\n"


def render_code(code: str, *, width: int | None = None, color: bool = False, ascii: bool = False) -> str:
    """What a finding or error code means and what to do; arguments as for `render`.

    >>> len(render_code("DV101", width=80).splitlines()) > 5
    True
    """
    page = Page(width, color, ascii)
    entry = CODES[code]
    page.line((code, "bold"), f"  {entry.title}", indent=0, hang=7)
    page.heading("Likely cause")
    page.line(entry.cause)
    page.heading("What to do")
    page.line(entry.fix)
    return page.text()


def render_codes(*, width: int | None = None, color: bool = False, ascii: bool = False) -> str:
    """Every code with its title; arguments as for `render`.

    >>> render_codes(width=80).count("DV101")
    1
    """
    page = Page(width, color, ascii)
    for code, entry in CODES.items():
        page.line((code, "bold"), f"  {entry.title}", indent=0, hang=7)
    return page.text()
