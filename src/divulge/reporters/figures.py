"""What every form of a report tells first: the main figures, and each finding once."""

from __future__ import annotations

from typing import NamedTuple

from divulge.metrics import Estimate
from divulge.report import Report, Row
from divulge.wording import figure, known, most_urgent, of_everyone, rate, score_attack


class Figure(NamedTuple):
    """One of the main figures.

    Attributes:
        metric: its name in the results table.
        label: what it is called.
        estimate: value and interval; NaN with a reason where undefined.
        chance: what it is where nothing is learned, as text; empty for a figure that is not of an attack.
        attack: the attack behind it.
        fpr: the false-positive rate it is measured at, or None.

    >>> Figure("auc", "AUC", Estimate(0.61, 0.58, 0.64), "0.5", "loss").text()
    '0.610 [0.580, 0.640]'
    """

    metric: str
    label: str
    estimate: Estimate
    chance: str
    attack: str = ""
    fpr: float | None = None

    def text(self) -> str:
        """The value with its interval, or why there is none."""
        if known(self.estimate.value):
            return figure(self.metric, *self.estimate[:3])
        return f"not measurable: {self.estimate.reason}" if self.estimate.reason else "not measurable"


def main_figures(report: Report) -> list[Figure]:
    """Score, tail, best AUC, accuracies; what the report does not have is left out, what is undefined is not.

    >>> from divulge.report import table_of
    >>> row = {"attack": "loss", "slice": "everyone", "metric": "score", "value": 0.1, "low": 0.05, "high": 0.15}
    >>> [item.label for item in main_figures(Report({}, {"results": table_of("results", [row])}))]
    ['score']
    """
    figures = [Figure("score", "score", report.score, "0", score_attack(report))]
    if report.tails:
        tail = report.tail
        at = f"at {rate(tail.fpr)} false alarms"
        figures.append(Figure("tail_lift", f"tail: times chance {at}", tail.lift, "1", tail.attack, tail.fpr))
        if known(tail.lift.value):
            figures.append(Figure("tail_tpr", f"members found {at}", tail.tpr, rate(tail.fpr), tail.attack, tail.fpr))
    aucs = {attack: auc for attack, auc in of_everyone(report, "auc").items() if known(auc.value)}
    if aucs:
        best = max(aucs, key=lambda attack: aucs[attack].value)
        figures.append(Figure("auc", "highest AUC of an attack", aucs[best], "0.5", best))
    for metric, side in (("member_accuracy", "members"), ("nonmember_accuracy", "non-members")):
        own = of_everyone(report, metric)
        figures += [Figure(metric, f"model is right on {side}", estimate, "") for estimate in own.values()]
    return figures


def told_findings(report: Report) -> list[Row]:
    """The findings, the most urgent first and the waived last, each leak once: as a gate's failure if it is one.

    >>> len(told_findings(Report({"verdict": "PASS"}, {})))
    0
    """
    findings = most_urgent(report) + [row for row in report.findings if row["waived"]]
    failed = {_leak(row) for row in findings if row["severity"] == "fail"}
    return [row for row in findings if row["severity"] != "warning" or _leak(row) not in failed]


def _leak(finding: Row) -> tuple[str, str, bool]:
    return finding["code"], finding["slice"], finding["waived"]
