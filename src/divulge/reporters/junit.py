"""A report as JUnit XML: gates and controls as test cases, red exactly where the exit status is not 0.

    FAIL                            failure
    INCONCLUSIVE                    failure where doubt stops the run (kept, or mapped to FAIL), else skipped
    waived, warnings, not run       skipped, with the reason; JUnit has no warning
    INVALID control                 error

Without a policy nothing can fail: the findings then stand as skipped cases. The case `verdict` fails with the exit
status, whatever the others are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from divulge.report import Report, Row, Verdict
from divulge.reporters.figures import main_figures, told_findings
from divulge.slices import EVERYONE
from divulge.wording import (
    clipped,
    figure,
    gate_label,
    gate_metric,
    gate_worst,
    known,
    why,
    worded,
)

NAME, TEXT = 120, 1_000


class _Case(NamedTuple):
    """A test case: its state is "passed", "failure", "error" or "skipped"."""

    name: str
    state: str
    text: str
    kind: str = ""


def render(report: Report) -> str:
    """The report as JUnit XML, the same text for the same report.

    Returns:
        An XML document in the schema that Jenkins publishes, ending in a newline.
    """
    gates = [_verdict(report), *_gates(report), *_waived(report)]
    suites = {"gates": gates, "controls": [_control(row) for row in report.rows("controls")]}
    if not report.rows("gates"):
        suites["findings"] = [_finding(row) for row in told_findings(report)]
    everything = [case for cases in suites.values() for case in cases]
    root = ElementTree.Element("testsuites", {"name": "divulge", **_counts(everything)})
    for name, cases in suites.items():
        root.append(_suite(f"divulge.{name}", cases, report))
    root[0].insert(0, _properties(report))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


# ----------------------------------------------------------------------------------------------------------- cases


def _verdict(report: Report) -> _Case:
    verdict = report.verdict
    state = {0: "passed", Verdict.INVALID.exit_code: "error"}.get(verdict.exit_code, "failure")
    return _Case("verdict", state, f"{worded(verdict)}: {why(report)}", verdict.value)


def _gates(report: Report) -> list[_Case]:
    mapped = any(row["code"] == "DV306" and row["severity"] == "fail" for row in report.findings)
    stops = report.verdict is Verdict.INCONCLUSIVE or (report.verdict is Verdict.FAIL and mapped)
    states = {"PASS": "passed", "FAIL": "failure", "INCONCLUSIVE": "failure" if stops else "skipped"}
    cases = []
    for row in report.rows("gates"):
        all_waived = row["outcome"] == "PASS" and row["reason"] and not known(row["value"])
        state = "skipped" if all_waived else states[row["outcome"]]
        cases.append(_Case(gate_label(row), state, _gate_text(row), str(row["outcome"])))
    return cases


def _gate_text(row: Row) -> str:
    value = figure(gate_metric(row), row["value"], row["low"], row["high"]) if known(row["value"]) else ""
    notes = [value, row["reason"], gate_worst(row, 60)]
    return f"{row['outcome']}: {'; '.join(clipped(note, TEXT) for note in notes if note)}"


def _waived(report: Report) -> list[_Case]:
    """Findings that would have failed a gate; without them the file would not show that a limit is exceeded."""
    waived = [row for row in report.findings if row["waived"] and row["severity"] == "fail"]
    return [_Case(_where(row), "skipped", f"waived: {row['text']}") for row in waived]


def _finding(row: Row) -> _Case:
    return _Case(_where(row), "skipped", f"{row['severity']}, not gated: {row['text']}")


def _where(row: Row) -> str:
    places = [clipped(row[key], 60) for key in ("slice", "attack") if row[key] and row[key] != EVERYONE]
    return f"{row['code']} {', '.join(places)}".rstrip()


def _control(row: Row) -> _Case:
    name = f"{row['code']} {row['control']}"
    match row["status"]:
        case "invalid":
            return _Case(name, "error", f"invalid: {row['text']}", "INVALID")
        case "warning":
            return _Case(name, "skipped", f"warning: {row['text']}")
        case "ok":
            return _Case(name, "passed", f"ok: {row['text']}")
        case _:
            return _Case(name, "skipped", f"{row['status']}: {row['reason']}")


# ------------------------------------------------------------------------------------------------------------- XML


def _counts(cases: Sequence[_Case]) -> dict[str, str]:
    states = [case.state for case in cases]
    numbers = {f"{state}s": states.count(state) for state in ("failure", "error")}
    numbers = {"tests": len(cases), **numbers, "skipped": states.count("skipped")}
    return {**{name: str(number) for name, number in numbers.items()}, "time": "0"}


def _suite(name: str, cases: Sequence[_Case], report: Report) -> ElementTree.Element:
    head = {"name": name, **_counts(cases)}
    # The schema's date-time has no zone.
    if created := re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", str(report.meta.get("created"))):
        head["timestamp"] = created[0]
    suite = ElementTree.Element("testsuite", head)
    suite.extend(_element(name, case) for case in cases)
    return suite


def _properties(report: Report) -> ElementTree.Element:
    meta = report.meta
    own = {
        "verdict": report.verdict.value,
        "exit status": report.verdict.exit_code,
        **{item.label: item.text() for item in main_figures(report)},
        "policy": meta.get("policy"),
        "version": meta.get("version"),
        "seed": meta.get("seed"),
        "digest": meta.get("data", {}).get("digest"),
    }
    properties = ElementTree.Element("properties")
    for key, value in own.items():
        if value is not None:
            ElementTree.SubElement(properties, "property", {"name": key, "value": clipped(value, NAME)})
    return properties


def _element(suite: str, case: _Case) -> ElementTree.Element:
    # `clipped` shows characters that XML forbids as their escapes.
    head = {"name": clipped(case.name, NAME), "classname": suite, "time": "0"}
    element = ElementTree.Element("testcase", head)
    text = clipped(case.text, TEXT)
    if case.state == "passed":
        ElementTree.SubElement(element, "system-out").text = text
    elif case.state == "skipped":
        ElementTree.SubElement(element, "skipped", {"message": text})
    else:
        ElementTree.SubElement(element, case.state, {"message": text, "type": case.kind})
    return element
