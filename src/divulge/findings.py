"""Leak findings, within the error budget: on a model that leaks nothing at most 5 % of reports raise one.

Half of the budget is the score of everyone's (the low end of its interval), half is one family: all slices' scores, the
tail at each FPR, and one test of the attacks' direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from divulge import metrics, selection
from divulge.codes import CODES
from divulge.report import Row
from divulge.roc import Roc
from divulge.slices import EVERYONE
from divulge.wording import figure, rate


def leaks_by_score(results: Sequence[Row]) -> list[Row]:
    """A leak finding a score whose interval is above 0; a slice's interval already allows for all tests."""
    return [
        _leak(
            "DV101" if row["slice"] == EVERYONE else "DV102",
            row["slice"],
            row["attack"],
            f"score {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}] is credibly above 0",
        )
        for row in results
        if row["metric"] == "score" and row["low"] > 0
    ]


def leaks_of_all(rocs: Mapping[str, Roc], carried: Sequence[float], error: float, tests: int) -> list[Row]:
    """Leak findings of the tail and of the attacks' direction: with the slices one family of `tests`."""
    findings = []
    for fpr in carried:
        tail = selection.tail_at(rocs, fpr, error / tests)
        if tail.tpr.low > fpr:
            found = figure("tail_tpr", *tail.tpr[:3])
            text = (
                f"at {rate(fpr)} false alarms the attack finds {found} of the members, {tail.lift.value:.1f} times "
                "chance (the interval allows for all tests)"
            )
            findings.append(_leak("DV103", EVERYONE, tail.attack, text))
    for name, roc in rocs.items():
        estimate = metrics.auc(roc, error / (tests * len(rocs)))
        if estimate.high < 0.5:
            ends = f"[{estimate.low:.3f}, {estimate.high:.3f}]"
            text = f"the AUC of {name} is {estimate.value:.3f} {ends}, credibly below 0.5: its direction is wrong"
            findings.append(_leak("DV104", EVERYONE, name, text))
    return findings


def _leak(code: str, slice: str, attack: str, text: str) -> Row:
    return {
        "code": code,
        "severity": "warning",
        "slice": slice,
        "attack": attack,
        "text": text,
        "fix": CODES[code].fix,
        "waived": False,
    }
