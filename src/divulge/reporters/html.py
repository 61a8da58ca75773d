"""The report as one HTML page: no script, no network, no record's data; for an engineer, an officer and a checker.

Fifteen sections in one order, whatever the report holds; where it does not carry one, the section says why. Names are
untrusted: they are made printable, cut, and escaped by the template engine. The page forbids scripts and every load
to the browser that shows it, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from divulge import charts
from divulge.charts import crowd
from divulge.charts.look import QUESTIONS
from divulge.codes import CODES
from divulge.errors import DivulgeError, InputError, Unavailable
from divulge.report import Verdict
from divulge.reporters import svg, tables
from divulge.reporters.tables import NAME, TEXT, Table
from divulge.slices import EVERYONE
from divulge.version import VERSION
from divulge.wording import (
    BOUND_NOTE,
    MARKS,
    SAYS_NOT,
    attackers,
    clipped,
    figure,
    known,
    model_name,
    most_urgent,
    needs_bound_note,
    printable,
    rate,
    references,
    score_attack,
    streamed,
    tied,
    why,
    worded,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from divulge.comparison import Comparison
    from divulge.report import Report, Row
    from divulge.series import Series


class Section(NamedTuple):
    """One section of the page.

    key: its anchor. label: in the list of contents. heading: the question. sentence: what the picture shows. drawing:
    the picture. reading: how to read it. tables: its numbers. gap: why there is nothing to show.
    """

    key: str
    label: str
    heading: str
    sentence: str = ""
    drawing: Markup | None = None
    reading: str = ""
    tables: tuple[Table, ...] = ()
    gap: str = ""


# ------------------------------------------------------------------------------------------------------- the pages


def render(report: Report, *, baseline: Report | None = None, series: Comparison | None = None) -> str:
    """The page of one report.

    Args:
        report: of `audit`, or loaded.
        baseline: an earlier run to show beside it.
        series: runs to show privacy against accuracy of.

    Returns:
        HTML, the same bytes for the same report; under 1 MB with 1,000 slices.

    Raises:
        InputError: DV061, a baseline or a series of another type.
    """
    from divulge.comparison import Comparison
    from divulge.report import Report

    if not isinstance(baseline, Report | None) or not isinstance(series, Comparison | None):
        found = f"{type(baseline).__name__} and {type(series).__name__}"
        raise InputError("DV061", f"expected a Report as baseline and a Comparison as series, got {found}")
    sections = [
        Section("verdict", "Verdict", f"{MARKS[report.verdict]} {worded(report.verdict)}"),
        _people(report),
        *_pictures(report),
        _baseline(report, baseline),
        _series(series),
        Section(
            "validity",
            "Validity",
            "Can this test be trusted, and what could it have seen?",
            tables=(tables.controls(report),),
        ),
        Section("findings", "Findings", "What was found, and what to do about it?"),
        Section("coverage", "Coverage", "What was not tested?"),
        Section("method", "Method", "How was this measured?"),
        Section("meaning", "Meaning", "What does this score not mean?"),
    ]
    return _page(
        "report.html",
        title=f"{worded(report.verdict)}: privacy report{_of(report)}",
        name=clipped(model_name(report), NAME),
        sections=sections,
        card=_card(report),
        crowds=_crowds(report),
        findings=_findings(report),
        attackers=attackers(report),
        untested=_untested(report),
        method=_method(report),
        power=_power(report),
        says_not=SAYS_NOT,
    )


def _of(report: Report) -> str:
    return f" of {clipped(model_name(report), NAME)}" if model_name(report) else ""


def render_card(report: Report) -> str:
    """What a notebook shows: the verdict card and the ROC; no script, styles that stay within."""
    drawing = _shown("roc", "ROC", charts.roc, report)
    return _page("card.html", card=_card(report), drawing=drawing)


def render_comparison(comparison: Comparison, *, series: Series | None = None) -> str:
    """The page of several runs side by side; the same bytes for the same runs.

    Args:
        comparison: of `compare`.
        series: the same runs with their places on an axis, which get a picture of their own.
    """
    names = [cell.text for cell in tables.run_names(comparison)]
    rates = [_rates(name, report) for name, report in zip(names, comparison.reports, strict=True)]
    along = [] if series is None else [_shown("over", "Over the steps", charts.over, series, tables.over)]
    sections = [
        *along,
        _shown("roc", "ROC", charts.rocs, comparison)._replace(tables=tuple(rates)),
        _shown("tradeoff", "Trade-off", charts.tradeoff, comparison, tables.tradeoff),
        _shown("runs", "Figures", charts.runs, comparison, tables.comparison),
    ]
    cards = [{"name": name, **_card(report)} for name, report in zip(names, comparison.reports, strict=True)]
    return _page(
        "comparison.html",
        title=f"{len(cards)} runs: privacy comparison",
        sections=sections,
        cards=cards,
        confidence=rate(comparison.confidence),
        says_not=SAYS_NOT,
    )


def _rates(name: str, report: Report) -> Table:
    table = tables.roc(report)
    return table._replace(caption=f"{table.caption}: {name}")


def _page(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(version=VERSION, **values)


def _printable(value: Any) -> Any:
    """What a template prints: unseen characters as their escapes, figures tied; our own markup as it is."""
    from markupsafe import Markup

    return tied(printable(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("divulge", "reporters/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


# ------------------------------------------------------------------------------------------------------- pictures

READING = {
    "people": (
        "Each icon is one person. The attacker names the same shares of members and of others in all three; the rarer "
        "members are, the more often naming somebody is wrong."
    ),
    "gates": (
        "The grey zone is allowed, the black line the limit; the bar is the interval. Left of the line: pass. Right of "
        "it: fail. Across it: the records are too few to say."
    ),
    "roc": (
        "Each point is one threshold of an attack. On the dotted diagonal the attack guesses. The left edge is what an "
        "attacker who must be nearly certain can do. Both axes are logarithmic; the band is the pointwise interval."
    ),
    "distributions": (
        "Two shapes on top of each other: the score says nothing about membership. Bins are of one width, or of one "
        "width in the logarithm; the outermost are open."
    ),
    "attacks": (
        "Dots are attacks, lines their intervals. A square, if there is one, needs no model: it should be at chance."
    ),
    "slices": (
        "Each line is a group of records. All the intervals hold together, so that looking at many groups does not "
        "make one look bad by luck."
    ),
    "records": (
        "Records are put into bands by where they would stand among the non-members; thresholds are chosen on one half "
        "and counted on the other. Each interval is that of its band alone, at the thresholds that were found."
    ),
    "baseline": "Dots are the runs' figures, lines their intervals.",
    "tradeoff": "Each point is a run, with the intervals of both figures. The dashed line is chance.",
    "over": (
        "Above, how much is given away; beneath, what the model is worth on records it never saw. Lines or bands are "
        "the intervals of each run by itself; the dashed line is chance."
    ),
    "runs": "Dots are the runs' figures, lines their intervals.",
}
"""How to read each picture."""

Shown = TypeVar("Shown", "Report", "Comparison", "Series")


def _shown(
    picture: str,
    label: str,
    chart: Callable[[Shown], Any],
    shown: Shown,
    *numbers: Callable[[Shown], Table],
) -> Section:
    """A picture with its table, or the reason why there is none to show."""
    try:
        drawn = svg.picture(chart(shown), picture)
    except Unavailable as reason:
        return Section(picture, label, QUESTIONS[picture], gap=_sentence(reason.message))
    found = tuple(table(shown) for table in numbers)
    return Section(picture, label, drawn.question, drawn.sentence, drawn.svg, READING[picture], found)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{clipped(text[1:], TEXT)}."


def _pictures(report: Report) -> list[Section]:
    """The sections that are one picture with its table, in order."""
    return [
        _shown("gates", "Gates", charts.gates, report, _gates_table),
        _shown("roc", "ROC", charts.roc, report, tables.roc),
        _shown("distributions", "Scores", charts.distributions, report, tables.distribution),
        _shown("attacks", "Attacks", charts.attacks, report, tables.attacks),
        _shown("slices", "Slices", charts.slices, report, _slices_table),
        _shown("records", "Records", charts.records, report, tables.records),
    ]


def _gates_table(report: Report) -> Table:
    table = tables.gates(report)
    return table._replace(notes=[BOUND_NOTE]) if needs_bound_note(report) else table


def _slices_table(report: Report) -> Table:
    merged = [name for row in report.rows("slices") for name in row["merged"] or []]
    if not merged:
        return tables.slices(report)
    shown = ", ".join(clipped(name, 40) for name in merged[:12]) + (" …" if merged[12:] else "")
    note = (
        f"Under {report.meta.get('min_n', 0)} a side, so counted together as (rest): {shown} ({len(merged):,} in all)."
    )
    return tables.slices(report)._replace(notes=[note])


def _people(report: Report) -> Section:
    label, question = "People", QUESTIONS["people"]
    try:
        sentence, _ = crowd.about_people(report, crowd.crowds(report))
    except Unavailable as reason:
        return Section("people", label, question, gap=_sentence(reason.message))
    return Section("people", label, question, sentence, reading=READING["people"], tables=(tables.people(report),))


def _crowds(report: Report) -> dict[str, Any]:
    """The icons of the people's section; empty where there is no tail."""
    try:
        found = crowd.crowds(report)
    except Unavailable:
        return {}
    pictures = [
        {"title": f"{one.members} of {crowd.PEOPLE:,} were members", "svg": svg.crowd_picture(one)} for one in found
    ]
    key = [(svg.icon(kind), word) for kind, word in enumerate(crowd.KINDS)]
    return {"shapes": svg.icon_shapes(), "pictures": pictures, "key": key}


def _baseline(report: Report, earlier: Report | None) -> Section:
    label, question = "Baseline", QUESTIONS["baseline"]
    if earlier is None:
        return Section(
            "baseline", label, question, gap="None was given: --baseline run.json shows an earlier run here."
        )
    from divulge.comparison import compare

    try:
        both = compare(earlier, report, names=("baseline", "this run"))
    except DivulgeError as error:
        return Section("baseline", label, question, gap=f"The baseline cannot be shown: {error.message}.")
    if Verdict.INVALID in both.verdicts:
        whose = "this run's" if report.verdict is Verdict.INVALID else "the baseline's"
        gap = f"Not shown: {whose} test is INVALID, and its figures say nothing about the model."
        return Section("baseline", label, question, gap=gap)
    return _shown("baseline", label, charts.baseline, both, tables.comparison)


def _series(series: Comparison | None) -> Section:
    if series is None:
        gap = "No series was given: divulge compare shows several runs, epochs or noise levels."
        return Section("tradeoff", "Trade-off", QUESTIONS["tradeoff"], gap=gap)
    return _shown("tradeoff", "Trade-off", charts.tradeoff, series, tables.tradeoff)


# --------------------------------------------------------------------------------------------------------- words


def _card(report: Report) -> dict[str, Any]:
    """The verdict card."""
    data = report.meta.get("data", {})
    accuracy = {
        row["metric"]: figure(row["metric"], row["value"], row["low"], row["high"])
        for row in report.rows("results")
        if str(row["metric"]).endswith("member_accuracy")
    }
    score, tail = report.score, report.tail
    first = most_urgent(report)[:1]
    return {
        "verdict": report.verdict.value,
        "mark": MARKS[report.verdict],
        "word": worded(report.verdict),
        "why": why(report),
        "score": tables.Cell.of("score", *score[:3]),
        "score_gap": clipped(score.reason, TEXT) if not known(score.value) else "",
        "score_attack": clipped(score_attack(report), NAME),
        "score_gauge": _gauge(score[:3], (-0.1, 1.0), 0.0),
        "tail": tables.Cell.of("tail_lift", *tail.lift[:3]),
        "tail_gap": clipped(tail.lift.reason, TEXT) if not known(tail.lift.value) else "",
        "tail_fpr": rate(tail.fpr) if known(tail.fpr) else "",
        "tail_gauge": _gauge([_log(end) for end in tail.lift[:3]], (-1.0, 2.0), 0.0),
        "tail_tpr": figure("tail_tpr", *tail.tpr[:3]),
        "tail_attack": clipped(tail.attack, NAME),
        "accuracy": accuracy,
        "data": f"{data['members']:,} members, {data['nonmembers']:,} non-members, {data['task']}" if data else "",
        "confidence": rate(report.meta.get("confidence", 0.95)),
        "policy": clipped(report.meta.get("policy") or "", NAME),
        "alarms": [
            (str(row["status"]), clipped(row["control"], NAME), clipped(row["text"], TEXT))
            for row in report.rows("controls")
            if row["status"] in ("invalid", "warning")
        ],
        "first": _first(first[0]) if first else None,
    }


def _first(finding: Row) -> dict[str, str]:
    code = str(finding["code"])
    where = "" if finding["slice"] in (None, "", EVERYONE) else clipped(finding["slice"], NAME)
    return {
        "code": code,
        "title": CODES[code].title if code in CODES else "",
        "where": where,
        "fix": clipped(finding["fix"], 1000),
    }


def _gauge(estimate: Sequence[float], ends: tuple[float, float], chance: float) -> dict[str, float] | None:
    """Places of a value, its interval and chance on a line of 100, or None where nothing was measured."""
    value, low, high = estimate
    if not known(value):
        return None

    def place(number: float) -> float:
        return round(100 * (min(max(number, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0]), 1)

    low, high = (low, high) if known(low) and known(high) else (value, value)
    return {"low": place(low), "high": place(high), "value": place(value), "chance": place(chance)}


def _log(lift: float) -> float:
    return math.log10(max(lift, 0.01)) if known(lift) else lift


def _findings(report: Report) -> list[dict[str, Any]]:
    """Findings by code, the most urgent first, the waived at the end."""
    grouped: dict[tuple[str, bool], list[Row]] = {}
    for row in [*most_urgent(report), *(row for row in report.findings if row["waived"])]:
        grouped.setdefault((str(row["code"]), bool(row["waived"])), []).append(row)
    return [
        {
            "code": code,
            "severity": str(rows[0]["severity"]),
            "mark": {"fail": "✗", "warning": "!", "info": "·"}[rows[0]["severity"]],
            "waived": waived,
            "title": CODES[code].title if code in CODES else "",
            "cause": CODES[code].cause if code in CODES else "",
            "fix": clipped(rows[0]["fix"], 1000),
            "rows": [(clipped(row["slice"] or EVERYONE, NAME), _text(row)) for row in rows],
        }
        for (code, waived), rows in grouped.items()
    ]


def _text(row: Row) -> str:
    return clipped(row["text"], 300) + (f" ({clipped(row['attack'], 60)})" if row["attack"] else "")


_FAMILIES = {
    "learned": "attacks that learn membership from outputs (a larger --budget runs them)",
    "lira": "attacks with reference models (LiRA, RMIA), which find more at low false-positive rates",
    "label_only": "attackers who see labels only, and ask again about records a little changed",
    "traces": "attacks on the training itself: losses of every epoch",
    "gradients": "gradients, poisoned records",
    "white": "attackers who hold the model's weights",
    "other": "attribute inference, reconstruction, extraction of training text; what the features themselves reveal",
}
_REFERENCE_ATTACKS = ("lira", "ratio", "rmia", "difficulty", "attack_r", "references")


def _untested(report: Report) -> dict[str, list[tuple[str, str]]]:
    attacks, controls = report.rows("attacks"), report.rows("controls")
    ran = " ".join(str(row["attack"]) for row in attacks if row["status"] == "ran")
    return {
        "ran": [(clipped(row["attack"], NAME), "") for row in attacks if row["status"] == "ran"],
        "skipped": [
            (clipped(row["attack"], NAME), clipped(row["reason"], TEXT))
            for row in attacks
            if row["status"] == "skipped"
        ],
        "controls": [
            (clipped(row["control"], NAME), clipped(row["reason"], TEXT))
            for row in controls
            if row["status"] == "not run"
        ],
        "families": [
            (text, "") for key, text in _FAMILIES.items() if key not in ran and not _by_references(key, attacks)
        ],
    }


def _by_references(family: str, attacks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether this is the family of attacks with reference models, and one of them ran."""
    names = (str(row["attack"]) for row in attacks if row["status"] == "ran")
    return family == "lira" and any(name.startswith(_REFERENCE_ATTACKS) for name in names)


def _power(report: Report) -> str:
    return next((str(row["text"]) for row in report.rows("controls") if row["control"] == "power" and row["text"]), "")


def _method(report: Report) -> list[tuple[str, str]]:
    meta: Mapping[str, Any] = report.meta
    data: Mapping[str, Any] = meta.get("data", {})
    command = meta.get("command")
    skipped = {str(row["attack"]) for row in report.rows("attacks") if row["status"] == "skipped"}
    rows = [
        ("divulge", meta.get("version")),
        ("created", meta.get("created")),
        ("model", clipped(model_name(report), NAME)),
        ("command", None if command is None else clipped(command, 1000)),
        ("policy", clipped(meta.get("policy") or "none", NAME)),
        ("members, non-members", f"{data['members']:,}, {data['nonmembers']:,}" if data else None),
        ("outputs", _outputs(data)),
        ("signals given", _listed(data.get("given", ()))),
        ("columns", _listed(data.get("columns", ()))),
        ("reference models", references(report)),
        ("data digest", data.get("digest")),
        *(("the stream", clipped(said, 1000)) for said in streamed(report)),
        ("sliced by", _listed(meta.get("slices", ()))),
        ("fewest records a side of a slice", meta.get("min_n")),
        ("confidence of the intervals", rate(meta["confidence"]) if "confidence" in meta else None),
        ("tests that share the error budget", meta.get("tests")),
        ("seed", meta.get("seed")),
        *(
            (f"attack {clipped(name, 60)}", f"{'skipped: ' if name in skipped else ''}{clipped(text, 300)}")
            for name, text in meta.get("attacks", {}).items()
        ),
    ]
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def _outputs(data: Mapping[str, Any]) -> str | None:
    if not data.get("outputs"):
        return None
    return f"{data['outputs']} a record, {data['kind'] or 'predictions'}, {data['dtype']}, {data['task']}"


def _listed(names: Iterable[object]) -> str:
    found = [clipped(name, 60) for name in names]
    return ", ".join(found[:40]) + (f" and {len(found) - 40:,} more" if found[40:] else "")
