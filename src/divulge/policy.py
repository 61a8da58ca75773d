"""Policy: limits on a report's figures -> findings and a verdict. A pure function of the report.

A gate FAILs where the lower bound of a figure is above its limit, PASSes where the upper bound is not, and is
INCONCLUSIVE in between or where the figure is undefined. Lower bounds are taken at an error level shared among all
attacks, slices and gates, so that a FAIL on sound data stays rare however much is looked at; a PASS needs every upper
bound below the limit, which needs no such share.
"""

from __future__ import annotations

import datetime
import math
from typing import NamedTuple

import numpy as np

from divulge.codes import CODES
from divulge.controls.sample import rows_for_score
from divulge.intervals import Bounds, difference
from divulge.limits import Gate, Policy, Waiver
from divulge.metrics import NAN
from divulge.report import LADDER, Report, Row, Verdict
from divulge.slices import EVERYONE

__all__ = ["Gate", "Judgement", "Policy", "Waiver", "judge"]


class Judgement(NamedTuple):
    """What a policy makes of a report: rows as in `divulge.report.COLUMNS`.

    >>> Judgement(Verdict.PASS, [], [], []).verdict.exit_code
    0
    """

    verdict: Verdict
    findings: list[Row]
    gates: list[Row]
    controls: list[Row]


LEAKS = ("DV101", "DV102", "DV103", "DV104")
_SEVERITY = {"warning": "warning", "invalid": "fail"}  # of a control's status
GATE_CODES = {"score": "DV101", "score_slice": "DV102", "tail": "DV103", "auc": "DV105"}


def judge(
    report: Report,
    policy: Policy | None,
    *,
    baseline: Report | None = None,
    today: datetime.date | None = None,
) -> Judgement:
    """Hold a report against a policy.

    Args:
        report: of `audit`, or loaded.
        policy: None: nothing is gated.
        baseline: an earlier report, for limits on an increase.
        today: for waivers; default: the clock's date.

    Raises:
        PolicyError: DV304, an increase is limited and there is no baseline.
    """
    found = [row for row in report.findings if row["code"] in LEAKS and row["severity"] == "warning"]
    leaks = [{**row, "waived": False} for row in found]
    controls = [row for row in report.rows("controls") if row["control"] != "selection"]
    controls.append(_selection(policy, told=bool(report.meta.get("selected"))))
    doubtful = [_of_control(row) for row in controls if row["status"] in _SEVERITY]
    invalid = any(row["status"] == "invalid" for row in controls)
    if policy is None:
        return Judgement(Verdict.INVALID if invalid else Verdict.NOT_GATED, doubtful + leaks, [], controls)
    policy.check_baseline(baseline)
    today = today or datetime.date.today()
    live = [waiver for waiver in policy.waivers if waiver.expires is None or waiver.expires >= today]
    index = _Index(report)
    base_index = None if baseline is None else _Index(baseline)
    gates, failures, doubts = [], [], []
    for gate in policy.gates:
        checks = _checks(gate, index, base_index, len(policy.gates))
        counted = []
        for check in checks:
            finding = _finding(gate, check) if check["outcome"] == "FAIL" else None
            if finding is not None:
                finding["waived"] = any(waiver.covers(finding) for waiver in live)
                failures.append(finding)
            if finding is None or not finding["waived"]:
                counted.append(check)
        gates.append(_gate_row(gate, counted, len(checks)))
        if gates[-1]["outcome"] == "INCONCLUSIVE":
            doubts.append(_doubt(gates[-1], policy.inconclusive))
    for row in leaks + doubtful:
        row["waived"] = row["severity"] == "warning" and any(waiver.covers(row) for waiver in live)
    findings = doubtful + failures + leaks + doubts
    findings += _about_waivers(policy, today, findings)
    return Judgement(_verdict(invalid, gates, policy.inconclusive), findings, gates, controls)


def _selection(policy: Policy | None, *, told: bool) -> Row:
    """Did the held-out records choose the model? Only the policy's author can say, or a report that knows they did."""
    row = {"control": "selection", "code": "DV210", "value": NAN, "low": NAN, "high": NAN, "text": "", "reason": None}
    if not told and (policy is None or policy.selected is None):
        why = "not declared: [test_split] used_for_selection = true or false in the policy"
        return {**row, "status": "not run", "reason": why}
    if told or (policy is not None and policy.selected):
        text = "the held-out records chose the model, so they are not clean non-members: the score leans low"
        return {**row, "status": "warning", "text": text}
    return {**row, "status": "ok", "text": "declared: the held-out records did not choose the model"}


def _of_control(row: Row) -> Row:
    """A control's finding."""
    return {
        "code": row["code"],
        "severity": _SEVERITY[row["status"]],
        "slice": EVERYONE,
        "attack": "",
        "text": f"{row['control']}: {row['text']}",
        "fix": CODES[row["code"]].fix if row["code"] in CODES else "",
        "waived": False,
    }


def _verdict(invalid: bool, gates: list[Row], way: str) -> Verdict:
    # "pass" lets doubt through; a gate that found no figure at all was not measured, which is no doubt.
    outcomes = {
        way.upper()
        if gate["outcome"] == "INCONCLUSIVE" and way != "keep" and (gate["checked"] or way == "fail")
        else gate["outcome"]
        for gate in gates
    }
    if invalid:
        return Verdict.INVALID
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if verdict.value in outcomes:
            return verdict
    return Verdict.PASS


class _Index:
    """A report's rows with their bounds, by what they are of."""

    def __init__(self, report: Report) -> None:
        results = report.rows("results")
        bounds = {row["row"]: (row["low"], row["high"]) for row in report.rows("bounds")}
        self.error = 1 - float(report.meta["confidence"])
        self.rows = [{**row, "bounds": bounds.get(at)} for at, row in enumerate(results)]

    def of(self, gate: Gate) -> list[Row]:
        """The rows that a gate looks at."""
        wanted = gate.metric
        return [
            row
            for row in self.rows
            if row["metric"] == wanted.name
            and (row["slice"] != EVERYONE) == gate.of_slices
            and (wanted.name == "tail_lift" or _equal(row["fpr"], wanted.fpr))
            and _equal(row["prior"], wanted.prior)
            and min(row["members"], row["nonmembers"]) >= gate.min_n
        ]

    def match(self, row: Row) -> Row | None:
        """The row of the same figure; the score's and the tail's attack may differ."""
        any_attack = row["metric"] in ("score", "tail_lift")
        for other in self.rows:
            if (
                (other["metric"], other["slice"]) == (row["metric"], row["slice"])
                and (any_attack or other["attack"] == row["attack"])
                and _equal(other["fpr"], row["fpr"])
                and _equal(other["prior"], row["prior"])
            ):
                return other
        return None


def _equal(a: float | None, b: float | None) -> bool:
    a, b = (NAN if x is None else x for x in (a, b))
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=1e-9)


def _bounds_at(row: Row, share: float) -> Bounds | None:
    """A row's ends at the largest error level of the ladder that is at most a share of the report's error."""
    if row["bounds"] is None or row["reason"]:
        return None
    step = next((at for at, level in enumerate(LADDER) if level <= share * (1 + 1e-9)), None)
    if step is None:
        return None
    low, high = row["bounds"][0][step], row["bounds"][1][step]
    return None if math.isnan(low) or math.isnan(high) else Bounds(np.asarray(low), np.asarray(high))


def _checks(gate: Gate, index: _Index, base: _Index | None, gates: int) -> list[Row]:
    """Each figure under a gate with its outcome."""
    rows = index.of(gate)
    if gate.metric.name == "tail_lift" and rows:
        # An FPR too low for this sample is not measured; where all are, the highest says which sample would do.
        rows = [row for row in rows if not row["reason"]] or rows[-1:]
    if any(row["bounds"] for row in rows):
        rows = [
            row for row in rows if row["bounds"] or math.isnan(row["value"])
        ]  # constant scores: chance, and said so
    checks = []
    for row in rows:
        value, fail_at, pass_at, reason = _figure(gate, row, base, 1 / (len(rows) * gates), index.error)
        low = NAN if fail_at is None else float(fail_at.low)
        shown = (NAN, NAN) if pass_at is None else (float(pass_at.low), float(pass_at.high))
        if low > gate.limit:
            outcome, shown = "FAIL", (low, shown[1])
        elif pass_at is not None and shown[1] <= gate.limit:
            outcome = "PASS"
        else:
            outcome, reason = "INCONCLUSIVE", reason or (None if pass_at else "it has no interval")
        figure = {"value": value, "low": shown[0], "high": shown[1], "outcome": outcome, "reason": reason}
        checks.append({"attack": row["attack"], "slice": row["slice"], "fpr": row["fpr"], **figure})
    return checks


def _figure(
    gate: Gate, row: Row, base: _Index | None, share: float, error: float
) -> tuple[float, Bounds | None, Bounds | None, str | None]:
    """The gated value, its bounds at the failing and at the passing level, or the reason it has none."""
    levels = (share, 1.0)
    if gate.kind == "max" or row["reason"]:
        fail_at, pass_at = (_bounds_at(row, level) for level in levels)
        return row["value"], fail_at, pass_at, row["reason"]
    other = None if base is None else base.match(row)
    if base is None or other is None:
        return NAN, None, None, "the baseline has no such figure"
    fail_at, pass_at = (
        _increase(row, _bounds_at(row, level), other, _bounds_at(other, level * error / base.error)) for level in levels
    )
    return row["value"] - other["value"], fail_at, pass_at, None if pass_at else other["reason"]


def _increase(row: Row, own: Bounds | None, other: Row, its: Bounds | None) -> Bounds | None:
    return None if own is None or its is None else difference(row["value"], own, other["value"], its)


def _gate_row(gate: Gate, checks: list[Row], checked: int) -> Row:
    """A gate's row: its worst figure."""
    head = {"gate": gate.name, "kind": gate.kind, "limit": gate.limit, "checked": checked}
    if not checks:
        nothing = {"fpr": NAN, "value": NAN, "low": NAN, "high": NAN}
        if checked:
            return {**head, **nothing, "outcome": "PASS", "reason": "every figure above the limit is waived"}
        what = "no slice was asked for, or none is large enough" if gate.of_slices else "the report has no such figure"
        return {**head, **nothing, "outcome": "INCONCLUSIVE", "reason": what}

    def badness(check: Row) -> tuple[int, float]:
        end = check["low"] if check["outcome"] == "FAIL" else check["high"]
        return ("PASS", "INCONCLUSIVE", "FAIL").index(check["outcome"]), -math.inf if math.isnan(end) else end

    worst: Row = max(checks, key=badness)
    return {**head, **worst}


def _finding(gate: Gate, check: Row) -> Row:
    name = gate.name if gate.name in GATE_CODES else gate.name.removesuffix("_slice")
    code = GATE_CODES.get(name, "DV106")
    what = gate.name
    if gate.kind == "max_increase":
        code, what = "DV107", f"the increase of {gate.name}"
    text = f"{what} is {check['value']:.4g}, credibly above its limit {gate.limit:g}: lower bound {check['low']:.4g}"
    return {
        "code": code,
        "severity": "fail",
        "slice": check["slice"],
        "attack": check["attack"],
        "text": text,
        "fix": CODES[code].fix,
        "waived": False,
    }


def _doubt(gate: Row, way: str) -> Row:
    why = gate.get("reason") or f"its interval [{gate['low']:.4g}, {gate['high']:.4g}] straddles it"
    text = f"{gate['gate']} cannot be held against its limit {gate['limit']:g}: {why}"
    if gate["gate"] == "score" and gate["kind"] == "max" and gate["limit"] > 0:
        text += f"; a model that leaks nothing needs about {rows_for_score(gate['limit']):,} records a side to pass it"
    return {
        "code": "DV306",
        "severity": "fail" if way == "fail" else "info",
        "slice": gate.get("slice") or EVERYONE,
        "attack": gate.get("attack") or "",
        "text": text,
        "fix": CODES["DV306"].fix,
        "waived": False,
    }


def _about_waivers(policy: Policy, today: datetime.date, findings: list[Row]) -> list[Row]:
    rows = []
    for waiver in policy.waivers:
        what = f"{waiver.code}" + (f" of {waiver.slice}" if waiver.slice else "")
        if waiver.expires is not None and waiver.expires < today:
            code, text = "DV305", f"the waiver of {what} expired on {waiver.expires}: {waiver.reason}"
        elif not any(waiver.covers(finding) for finding in findings):
            code, text = "DV307", f"the waiver of {what} matches no finding"
        else:
            continue
        rows.append(
            {
                "code": code,
                "severity": "info",
                "slice": waiver.slice or EVERYONE,
                "attack": waiver.attack or "",
                "text": text,
                "fix": CODES[code].fix,
                "waived": False,
            }
        )
    return rows
