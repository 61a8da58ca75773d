"""A report as GitHub-flavoured Markdown: a pull request's comment, or a job's summary.

Sections stand in order of importance. Over the limit, tables lose rows and then whole sections go,
and the text says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from divulge.errors import InputError
from divulge.report import Report, Row, Verdict
from divulge.reporters.figures import Figure, main_figures, told_findings
from divulge.reporters.gfm import code, heading, prose, row
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
    needs_bound_note,
    of_everyone,
    p_text,
    rate,
    references,
    streamed,
    why,
    worded,
    worst_slices,
)

COMMENT, SUMMARY = 65_536, 1_048_576
"""Bytes that GitHub takes of a comment and of a job's summary."""

LEAST = 16_384
"""Bytes that the verdict and the main figures may need, however long the names."""

_COMMENT_SLICES = 30
_FEW = 10  # rows of a table that go before a later section
_NOTE = 1_000  # bytes kept for what was left out


def render(report: Report, *, limit: int = COMMENT) -> str:
    """The report as Markdown.

    Args:
        report: of `audit`, or loaded.
        limit: bytes in UTF-8 that the text stays under; up to `COMMENT`, only the 30 most exposed slices are shown.

    Raises:
        InputError: DV061, a limit below `LEAST`.
    """
    if limit < LEAST:
        raise InputError("DV061", f"expected a limit of at least {LEAST:,} bytes, got {limit!r}")
    return _fitted(_head(report), [section for section in _sections(report, limit) if section.filled()], limit)


class _Section(NamedTuple):
    """A heading, paragraphs, a table, paragraphs."""

    title: str
    before: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def filled(self) -> bool:
        return bool(self.before or self.rows or self.after)

    def text(self, rows: int) -> str:
        """The section with this many rows of its table."""
        parts = [f"### {self.title}", *self.before]
        if self.rows:
            parts.append("\n".join([heading(self.columns), *self.rows[:rows]]))
        if rows < len(self.rows):
            parts.append(f"{len(self.rows) - rows:,} more rows left out; the run file holds all.")
        return "\n\n".join([*parts, *self.after]) + "\n\n"


def _size(text: str) -> int:
    return len(text.encode("utf-8"))


def _fitted(head: str, sections: list[_Section], limit: int) -> str:
    """The head, and of the sections what fits: a few rows of each table first, then more of the first tables."""
    room = limit - _NOTE - _size(head)
    shown: dict[int, int] = {}
    for at, section in enumerate(sections):
        few = min(_FEW, len(section.rows))
        if (size := _size(section.text(few))) <= room:
            shown[at] = few
            room -= size
    for at in shown:
        rows = sections[at].rows
        while shown[at] < len(rows) and (size := _size(rows[shown[at]]) + 1) <= room:
            shown[at] += 1
            room -= size
    text = head + "".join(sections[at].text(rows) for at, rows in shown.items())
    missing = [section.title for at, section in enumerate(sections) if at not in shown]
    if missing:
        many = "section" if len(missing) == 1 else "sections"
        text += f"{len(missing)} {many} left out: {', '.join(missing)}; the run file holds all.\n"
    return text.rstrip("\n") + "\n"


# -------------------------------------------------------------------------------------------------------- sections


def _head(report: Report) -> str:
    verdict = report.verdict
    lines = [f"## {MARKS[verdict]} {worded(verdict)}: {why(report)}"]
    if verdict is Verdict.INVALID:
        lines.append("Until that is mended, the figures here say nothing about the model.")
    if model_name(report):
        lines.append(f"Model: {code(model_name(report))}")
    data = report.meta.get("data", {})
    about = "How well a model's outputs tell who was in its training set"
    if data:
        about += f": {data['members']:,} members, {data['nonmembers']:,} non-members, {prose(data['task'], 40)}"
    lines.append(f"{about}; intervals at {rate(report.meta.get('confidence', 0.95))}.")
    lines += [f"The records: {prose(said, 1000)}." for said in streamed(report)]
    rows = [
        row([item.label, _value(item), item.chance, code(item.attack, 40) if item.attack else ""])
        for item in main_figures(report)
    ]
    lines.append("\n".join([heading(("figure", "value [interval]", "chance", "attack")), *rows]))
    return "\n\n".join(lines) + "\n\n"


def _value(item: Figure) -> str:
    return item.text() if known(item.estimate.value) else prose(item.text(), 200)


def _sections(report: Report, limit: int) -> Iterable[_Section]:
    decisive = [_gates(report), _doubts(report)]
    yield from reversed(decisive) if report.verdict is Verdict.INVALID else decisive
    yield _findings(report)
    yield _slices(report, limit)
    yield _attacks(report)
    yield _limits(report)
    yield _method(report)


def _gates(report: Report) -> _Section:
    if report.verdict is Verdict.NOT_GATED:
        return _Section("Gates", ("None: limits go into `divulge.toml`, which `--policy` names.",))
    rows = tuple(
        row([f"{MARKS[outcome]} {outcome}", prose(gate_label(gate)), _gated(gate), _gate_note(gate)])
        for gate in report.rows("gates")
        if (outcome := str(gate["outcome"]))
    )
    source = report.meta.get("policy")
    before = (f"Policy: {code(source)}.",) if source and rows else ()
    after = (BOUND_NOTE,) if needs_bound_note(report) else ()
    return _Section("Gates", before, ("outcome", "gate", "value [interval]", "note"), rows, after)


def _gated(gate: Row) -> str:
    return figure(gate_metric(gate), gate["value"], gate["low"], gate["high"]) if known(gate["value"]) else ""


def _gate_note(gate: Row) -> str:
    worst = gate_worst(gate, 60)
    return "; ".join(prose(note) for note in (gate["reason"], worst) if note)


def _doubts(report: Report) -> _Section:
    rows = tuple(
        row([str(control["status"]), prose(control["control"]), code(control["code"]), prose(control["text"])])
        for control in sorted(report.rows("controls"), key=lambda control: control["status"] != "invalid")
        if control["status"] in ("invalid", "warning")
    )
    return _Section("Is the test itself valid?", (), ("status", "control", "code", "what"), rows)


def _findings(report: Report) -> _Section:
    findings = told_findings(report)
    rows = tuple(
        row(
            [
                code(item["code"]),
                "waived" if item["waived"] else str(item["severity"]),
                _where(item),
                prose(item["text"]),
            ]
        )
        for item in findings
    )
    fixes: dict[str, str] = {}
    for item in findings:
        if item["fix"] and not item["waived"]:
            fixes.setdefault(str(item["code"]), str(item["fix"]))
    after = "\n".join(f"- {code(name)}: {prose(fix, 800)}" for name, fix in fixes.items())
    columns = ("code", "severity", "where", "what")
    return _Section("Findings, and what to do", (), columns, rows, (after,) if after else ())


def _where(finding: Row) -> str:
    return ", ".join(code(finding[key]) for key in ("slice", "attack") if finding[key])


def _slices(report: Report, limit: int) -> _Section:
    scores = worst_slices(report)
    if not scores:
        asked = report.meta.get("slices")
        return _Section("Most exposed slices", ("No slice is large enough." if asked else "None were asked for.",))
    p = {item["slice"]: item["p"] for item in report.rows("slices")}
    worst = scores[:_COMMENT_SLICES] if limit <= COMMENT else scores
    rows = tuple(
        row(
            [
                code(item["slice"]),
                figure("score", item["value"], item["low"], item["high"]),
                f"{item['members']:,} + {item['nonmembers']:,}",
                p_text(p.get(item["slice"])),
            ]
        )
        for item in worst
    )
    of = f"Worst {len(worst):,} of {len(scores):,}" if len(worst) < len(scores) else f"All {len(scores):,}"
    after = [f"{of}, by the score's lower end. The intervals hold together; p is Holm's."]
    merged = [name for item in report.rows("slices") for name in item["merged"] or []]
    if merged:
        names = ", ".join(code(name, 30) for name in merged[:3])
        more = f" and {len(merged) - 3:,} more" if len(merged) > 3 else ""
        few = prose(report.meta.get("min_n", 0))
        after.append(f"Under {few} a side, so counted together as `(rest)`: {names}{more}.")
    return _Section("Most exposed slices", (), ("slice", "score [interval]", "in + out", "p"), rows, tuple(after))


def _attacks(report: Report) -> _Section:
    columns, reasons = [], []
    for title, metric, fpr in (
        ("AUC (0.5 = chance)", "auc", None),
        ("TPR at 1 % FPR", "tpr", 0.01),
        ("TPR at 0.1 % FPR", "tpr", 0.001),
    ):
        estimates = of_everyone(report, metric, fpr)
        if any(known(estimate.value) for estimate in estimates.values()):
            columns.append((title, metric, estimates))
        reasons += [f"{title}: {estimate.reason}" for estimate in estimates.values() if estimate.reason]
    rows = tuple(
        row(
            [
                code(attack["attack"]),
                *(
                    figure(metric, *estimates[attack["attack"]][:3]) if attack["attack"] in estimates else ""
                    for _, metric, estimates in columns
                ),
            ]
        )
        for attack in report.rows("attacks")
        if attack["status"] == "ran"
    )
    after = tuple(f"Not measurable: {prose(reason)}." for reason in dict.fromkeys(reasons))
    titles = ("attack", *(title for title, *_ in columns))
    return _Section("By attack", (), titles, rows if columns else (), after)


def _limits(report: Report) -> _Section:
    attacks, controls = report.rows("attacks"), report.rows("controls")
    ran = ", ".join(code(item["attack"], 40) for item in attacks if item["status"] == "ran")
    lines = [f"{prose(attackers(report), 1000)} Tried: {ran or 'nothing'}."]
    skipped = [item for item in attacks if item["status"] == "skipped"]
    unchecked = [item for item in controls if item["status"] == "not run"]
    if len(unchecked) == len(controls):
        lines.append("No control looked whether the test itself is valid.")
        unchecked = []
    notes = [f"- Not tried: {code(item['attack'], 40)}: {prose(item['reason'])}" for item in skipped]
    notes += [f"- Not checked: {prose(item['control'], 40)}: {prose(item['reason'])}" for item in unchecked]
    return _Section("What this does not show", (SAYS_NOT, *lines, *(["\n".join(notes)] if notes else [])))


def _method(report: Report) -> _Section:
    meta = report.meta
    items = {
        "divulge": meta.get("version"),
        "created": meta.get("created"),
        "seed": meta.get("seed"),
        "reference models": references(report) or None,
        "records' digest": meta.get("data", {}).get("digest"),
        "command": meta.get("command"),
    }
    lines = "\n".join(f"- {name}: {code(value, 300)}" for name, value in items.items() if value is not None)
    return _Section("Method", (lines,) if lines else ())
