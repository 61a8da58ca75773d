"""What every reporter says alike: marks, reasons, figures with units, what is worst, untrusted names made safe.

Class, column and file names are untrusted: every reporter passes them through `printable` or `clipped`, and escapes
what its own format reads as markup.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from divulge.metrics import Estimate
from divulge.report import Report, Row, Verdict
from divulge.slices import EVERYONE

MARKS = {"PASS": "✓", "FAIL": "✗", "INCONCLUSIVE": "?", "INVALID": "!", "NOT_GATED": "·"}

SAYS_NOT = (
    "A low score is evidence against these attacks only; it is not anonymity, not a DP guarantee, and not a "
    "probability that a given person was in the data."
)

# ------------------------------------------------------------------------------------------------- untrusted names

_ASCII = {"✓": "+", "✗": "x", "·": "-", "×": "x", "≤": "<=", "…": "...", "−": "-", "–": "-", "•": "-", "→": "->"}


def printable(text: str, *, ascii: bool = False) -> str:
    r"""Text with every control, bidirectional and other invisible character shown as its escape.

    Args:
        text: from anywhere.
        ascii: escape all that is not ASCII, too; our own symbols get a stand-in.

    >>> printable("a\x1b[31m\u202eb")
    'a\\x1b[31m\\u202eb'
    >>> len(printable("score ≤ 0.1", ascii=True))
    12
    """
    if text.isprintable() and (not ascii or text.isascii()):
        return text
    return "".join(_shown(character, ascii) for character in text)


def _shown(character: str, ascii: bool) -> str:
    if character.isprintable() and (not ascii or character.isascii()):
        return character
    if ascii and character in _ASCII:
        return _ASCII[character]
    return character.encode("unicode_escape").decode("ascii")


def clipped(name: object, limit: int, *, ascii: bool = False) -> str:
    """An untrusted name, printable and at most `limit` terminal columns wide.

    >>> clipped("a" * 10_000, 8)
    'aaaaaaa…'
    """
    from rich.cells import cell_len

    text = printable(str(name)[: 4 * limit], ascii=ascii)
    if cell_len(text) <= limit and len(str(name)) <= 4 * limit:
        return text
    dots = "..." if ascii else "…"
    end = bisect_right(range(len(text) + 1), limit - len(dots), key=lambda end: cell_len(text[:end])) - 1
    return text[: max(end, 0)] + dots


# --------------------------------------------------------------------------------------------------------- figures


class _Unit(NamedTuple):
    """How a metric's values are written: their factor, decimals (None: by size), and the sign after the value."""

    factor: float = 1
    decimals: int | None = 3
    sign: str = ""


_SHARE = _Unit(100, None, " %")
_UNITS = {
    "tail_lift": _Unit(1, 1),
    **dict.fromkeys(("tpr", "tail_tpr", "ppv", "achieved_fpr"), _SHARE),
    **dict.fromkeys(("member_accuracy", "nonmember_accuracy"), _SHARE._replace(decimals=1)),
}


def known(value: float | None) -> bool:
    """Whether a number is there: neither None nor NaN.

    >>> [int(known(value)) for value in (0.0, None, math.nan)]
    [1, 0, 0]
    """
    return value is not None and not math.isnan(value)


def is_share(metric: str) -> bool:
    """Whether a metric's values are written as percentages.

    >>> is_share("tpr"), is_share("score")
    (True, False)
    """
    return bool(_UNITS.get(metric, _Unit()).sign)


def figure(metric: str, value: float, low: float, high: float) -> str:
    """A value with its interval as text; without an interval the value alone.

    >>> figure("score", 0.4907, 0.4321, 0.5378)
    '0.491 [0.432, 0.538]'
    >>> figure("tpr", 0.0123, 0.004, 0.02)
    '1.2 % [0.4, 2.0]'
    >>> figure("ppv", 0.99998, 0.9999, 1.0)
    '99.998 % [99.990, 100.000]'
    """
    if not known(value):
        return "not measurable"
    unit = _UNITS.get(metric, _Unit())
    ends = [low, high] if known(low) and known(high) else []
    decimals = _decimals(unit, value, [value, *ends])
    text, *rest = (_written(number * unit.factor, decimals) for number in (value, *ends))
    return f"{text}{unit.sign}" + (f" [{', '.join(rest)}]" if rest else "")


_FIGURE = re.compile(r"(?<=\d) (?=%)|\[[-\d., ]+\]")


def tied(text: str, space: str = "\u00a0") -> str:
    """Text whose figures do not break at a line's end: a number and its percent sign, and what is inside an interval.

    Args:
        text: printable.
        space: what stands there in place of a space.

    >>> tied("chance is 5 %, 0.6 [0.5, 0.7]", "_")
    'chance is 5_%, 0.6 [0.5,_0.7]'
    """
    return _FIGURE.sub(lambda found: found[0].replace(" ", space), text)


def _decimals(unit: _Unit, like: float, numbers: Sequence[float]) -> int:
    """Decimals that suit the number `like`, two digits of a share below 1 %; more where a share would look certain."""
    decimals = unit.decimals
    if decimals is None:
        size = abs(like) * unit.factor
        decimals = 1 if size >= 1 or size == 0 else min(1 - math.floor(math.log10(size)), 6)
    if unit.sign:
        while decimals < 6 and any(number < 1 and round(number * unit.factor, decimals) >= 100 for number in numbers):
            decimals += 1
    return decimals


def _written(number: float, decimals: int) -> str:
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def rate(value: float) -> str:
    """A rate as people say it.

    >>> rate(0.001)
    '0.1 %'
    """
    return f"{100 * value:g} %"


def p_text(p: float | None) -> str:
    """A p-value as people write it; none is empty.

    >>> p_text(0.00001)
    '<0.0001'
    """
    if p is None or math.isnan(p):
        return ""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


# --------------------------------------------------------------------------------------------- verdict and findings


def worded(verdict: Verdict | str) -> str:
    """A verdict or an outcome as people read it.

    >>> worded(Verdict.NOT_GATED)
    'NOT GATED'
    """
    return str(verdict).replace("_", " ")


def why(report: Report) -> str:
    """What decided the verdict, in half a sentence."""
    outcomes = {row["outcome"] for row in report.rows("gates")}
    undecided = "INCONCLUSIVE" in outcomes
    match report.verdict:
        case Verdict.PASS if undecided:
            return "no figure is credibly above its limit; gates that could not be decided pass, as asked"
        case Verdict.PASS if any(row["waived"] and row["severity"] == "fail" for row in report.findings):
            return "a limit is exceeded, and what exceeds it is waived"
        case Verdict.FAIL if undecided and "FAIL" not in outcomes:
            return "a gate could not be decided, and that fails, as asked"
    return {
        Verdict.PASS: "every limit holds",
        Verdict.FAIL: "a figure is credibly above its limit",
        Verdict.INCONCLUSIVE: "a gate could not be decided",
        Verdict.INVALID: "a control says that the test itself cannot be trusted",
        Verdict.NOT_GATED: "nothing was gated: there is no policy",
    }[report.verdict]


def model_name(report: Report) -> str:
    """What the audited model is called; empty where nobody said. Untrusted."""
    return str(report.meta.get("name") or "")


def streamed(report: Report) -> list[str]:
    """How the records of a stream were read, a sentence each; nothing for records in memory.

    >>> from divulge import Report
    >>> streamed(Report({}, {}))
    []
    """
    about = report.meta.get("stream")
    if not about:
        return []
    files = _files(about["files"]) if about["files"] else "blocks"
    members, rows = about["sample"]["members"], about["sample"]["rows"]
    said = [
        f"read once, from {files}, and counted in {about['bins']:,} bins of scores ({about['bins_of_slices']:,} in a "
        f"slice); controls look at {members:,} members and {rows - members:,} non-members drawn at random; attacks are "
        f"fitted on records among {about['sketch']:,} read beforehand"
    ]
    left_out = about["left_out"]
    if left_out:
        few = "; ".join(list(left_out.values())[:3])
        rest = f"; and {len(left_out) - 3:,} more" if len(left_out) > 3 else ""
        said.append(f"left out {_files(len(left_out))} that could not be read: {few}{rest}")
    return said


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count > 1 else ''}"


def score_attack(report: Report) -> str:
    """The attack behind the score of everyone; empty where there is none."""
    rows = report.rows("results")
    return next((str(row["attack"]) for row in rows if row["metric"] == "score" and row["slice"] == EVERYONE), "")


def of_everyone(report: Report, metric: str, fpr: float | None = None) -> dict[str, Estimate]:
    """One metric's estimates over all rows, by attack; fpr: where the metric has one."""
    return {
        str(row["attack"]): Estimate(row["value"], row["low"], row["high"], row["reason"])
        for row in report.rows("results")
        if row["metric"] == metric
        and row["slice"] == EVERYONE
        and (fpr is None or (row["fpr"] is not None and math.isclose(row["fpr"], fpr, rel_tol=1e-9)))
    }


def worst_slices(report: Report) -> list[Row]:
    """The scores of all slices, the most exposed first: by the score's lower end, the undefined last."""
    scores = [row for row in report.rows("results") if row["metric"] == "score" and row["slice"] != EVERYONE]
    return sorted(scores, key=lambda row: -row["low"] if known(row["low"]) else math.inf)


def most_urgent(report: Report) -> list[Row]:
    """Findings that are not waived: what decided the verdict first; then leaks before doubts about the test."""
    undecided = report.verdict is Verdict.INCONCLUSIVE

    def urgency(finding: Row) -> tuple[bool, int, bool]:
        severity = ("fail", "warning", "info").index(finding["severity"])
        decided = undecided and finding["code"] == "DV306"
        return not decided, severity, severity > 0 and str(finding["code"]).startswith("DV2")

    return sorted((row for row in report.findings if not row["waived"]), key=urgency)


# -------------------------------------------------------------------------------------------------- what was assumed

_OUTPUTS = "an attacker who sees the model's outputs for the records in question, and their labels"
_WITH_REFERENCES = "attacks that use reference models"
# Attacks by how their provenance or, without one, their name begins, and what their attacker knows; first fit wins.
# Who "also" knows something sees the outputs besides.
_KNOWLEDGE = (
    (r"LabelOnly|label_only|\w+\((signal=)?'?label_only", "label_only", "sees labels only, many for each record"),
    (r"Traces|traces", "attacks on traces", "sees the loss after every epoch"),
    (
        r"(Lira|Ratio|Rmia|Difficulty|AttackR|Chosen|lira|ratio|rmia|difficulty|attack_r|references)\b",
        _WITH_REFERENCES,
        "also knows how to train such models, and has records of the kind",
    ),
    (r"ClassWise|class_wise", "class-wise thresholds", "also knows some non-members"),
    (r"(Quantile|quantile)\((model=)?'?class", "quantiles by class", "also knows some non-members"),
    (r"Quantile|quantile", "quantiles by input", "also knows some non-members, and what else is known of each record"),
    (
        r"Learned.*columns=\([^)]|learned\(.*,",
        "attacks learned from more than outputs",
        "also knows some records of both sides, and what else is known of each record",
    ),
    (r"Learned|learned", "learned attacks", "also knows some records of both sides"),
)


def attackers(report: Report) -> str:
    """Which attackers the figures assume, by the attacks that ran.

    >>> from divulge.report import table_of
    >>> traces = table_of("attacks", [{"attack": "traces(slope)", "status": "ran"}])
    >>> attackers(Report({}, {"attacks": traces}))
    'The figures assume an attacker who sees the loss after every epoch.'
    """
    provenance = report.meta.get("attacks", {})
    ran = [str(row["attack"]) for row in report.rows("attacks") if row["status"] == "ran"]
    found = {_knowledge(str(provenance.get(name, name))) for name in ran}
    families = {family: knows for _, family, knows in _KNOWLEDGE if (family, knows) in found}
    if len(families) == 1 and None not in found and not any(knows.startswith("also") for knows in families.values()):
        return f"The figures assume an attacker who {families.popitem()[1]}."
    more = [f"for {family} one who {knows}" for family, knows in families.items()]
    models = f" Reference models: {references(report)}." if _WITH_REFERENCES in families and references(report) else ""
    return f"The figures assume {'; '.join([_OUTPUTS, *more])}.{models}"


def _knowledge(attack: str) -> tuple[str, str] | None:
    """An attack's family and what its attacker knows; None: outputs and labels, as far as anybody can tell."""
    fits = (family for family in _KNOWLEDGE if re.match(family[0], attack, re.DOTALL))
    return next(((family, knows) for _, family, knows in fits), None)


_SOURCES = {
    "trained": "trained for this, each on some of the records",
    "cv": "of a cross-validation",
    "bagging": "members of a bagged ensemble",
    "base": "trained on none of the records",
    "outputs": "given by their outputs",
}


def references(report: Report) -> str:
    """How many reference models there were, and where they come from; empty where there were none.

    >>> references(Report({"data": {"references": {"models": 16, "source": "cv"}}}, {}))
    '16, of a cross-validation'
    """
    about = report.meta.get("data", {}).get("references")
    return f"{about['models']:,}, {_SOURCES[about['source']]}" if about else ""


# --------------------------------------------------------------------------------------------------- several runs

_OF_RUNS = {
    "score": "score",
    "auc": "AUC, best attack",
    "member_accuracy": "right on members",
    "nonmember_accuracy": "right on others",
}


def run_label(row: Row) -> str:
    """What a row of a comparison is the figure of.

    >>> run_label({"metric": "tail_lift", "fpr": 0.01})
    'lift at 1 % FPR'
    """
    return f"lift at {rate(row['fpr'])} FPR" if known(row["fpr"]) else _OF_RUNS.get(row["metric"], str(row["metric"]))


def run_figure(row: Row) -> str:
    """A run's figure with its interval."""
    return figure(row["metric"], row["value"], row["low"], row["high"])


def change(row: Row) -> str:
    """A difference to the first run with its sign; percentages as points; empty where there is none.

    >>> change({"metric": "score", "difference": 0.1, "diff_low": 0.05, "diff_high": 0.15})
    '+0.100 [0.050, 0.150]'
    """
    if not known(row["difference"]):
        return ""
    text = figure(row["metric"], row["difference"], row["diff_low"], row["diff_high"]).replace(" %", "", 1)
    return text if text.startswith("-") else f"+{text}"


# ----------------------------------------------------------------------------------------------------------- gates


def gate_metric(row: Row) -> str:
    """The metric behind a gate's name: the unit of its values.

    >>> gate_metric({"gate": "tail"}), gate_metric({"gate": "tpr@0.01"})
    ('tail_lift', 'tpr')
    """
    stem = str(row["gate"]).removesuffix("_slice").partition("@")[0]
    return {"tail": "tail_lift"}.get(stem, stem)


def gate_label(row: Row) -> str:
    """A gate with its limit.

    >>> gate_label({"gate": "tail", "kind": "max", "limit": 10.0})
    'tail lift ≤ 10'
    >>> gate_label({"gate": "tpr@0.01", "kind": "max", "limit": 0.05})
    'tpr@0.01 ≤ 5 %'
    """
    more = " increase" if row["kind"] == "max_increase" else ""
    limit = f"{100 * row['limit']:g} %" if is_share(gate_metric(row)) else f"{row['limit']:g}"
    return f"{'tail lift' if row['gate'] == 'tail' else clipped(row['gate'], 30)}{more} ≤ {limit}"


def gate_worst(row: Row, limit: int) -> str | None:
    """Of which figure a gate of several shows the value, or None; the name at most `limit` columns wide."""
    if row["slice"] not in (None, EVERYONE):
        return f"worst of {row['checked']:,} figures: {clipped(row['slice'], limit)}"
    if row["checked"] > 1 and row["attack"]:
        at = f" at FPR {row['fpr']:g}" if row["gate"] == "tail" and known(row["fpr"]) else ""
        return f"worst of {row['checked']:,} figures: {clipped(row['attack'], limit)}{at}"
    return None


BOUND_NOTE = "A failing gate's lower bound allows for all figures looked at, so it lies below the one above."
"""Said where `needs_bound_note`."""


def needs_bound_note(report: Report) -> bool:
    """Whether a failing gate shows another lower end than its figure's interval."""
    rows = report.rows("gates")
    return any(row["outcome"] == "FAIL" for row in rows) and sum(row["checked"] for row in rows) > 1
