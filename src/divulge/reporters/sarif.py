"""A report's findings as SARIF 2.1.0, for code scanning.

Code scanning shows a finding only at a place in a file: that is the audited file, at its first line. What really says
where a finding lies are its logical locations: the slice and the attack.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from divulge.codes import CODES
from divulge.report import Report, Row
from divulge.reporters.figures import main_figures, told_findings
from divulge.wording import clipped, known, why, worded

NAME, TEXT = 120, 1_000
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_LEVELS = {"fail": "error", "warning": "warning", "info": "note"}
_OF_BEST_ATTACK = ("DV101", "DV102", "DV103")


def render(report: Report, *, artifact: str = "run.json") -> str:
    """The findings as a SARIF log, the same text for the same report.

    Args:
        report: of `audit`, or loaded.
        artifact: the file that the findings are shown at, relative to the repository, with / between folders.

    Returns:
        JSON, ending in a newline.
    """
    findings = told_findings(report)
    codes = list(dict.fromkeys(str(row["code"]) for row in findings))
    uri = quote(artifact, errors="surrogateescape")
    run = {
        "tool": {"driver": _driver(report, codes)},
        "automationDetails": {"id": f"divulge/{uri}/"},
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": report.verdict.exit_code,
                "exitCodeDescription": f"{worded(report.verdict)}: {why(report)}",
            }
        ],
        "results": _results(report, findings, codes, uri),
        "columnKind": "unicodeCodePoints",
        "properties": _properties(report),
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, ensure_ascii=False, indent=1) + "\n"


def _driver(report: Report, codes: list[str]) -> dict[str, Any]:
    return {
        "name": "divulge",
        "version": clipped(report.meta.get("version"), NAME),
        "fullName": "divulge, membership inference with honest intervals",
        "rules": [_rule(code) for code in codes],
    }


def _rule(code: str) -> dict[str, Any]:
    if code not in CODES:  # of a later version
        return {"id": clipped(code, NAME)}
    entry = CODES[code]
    return {
        "id": code,
        "shortDescription": {"text": _text(f"{entry.title[:1].upper()}{entry.title[1:]}.")},
        "fullDescription": {"text": _text(entry.cause)},
        "help": {"text": _text(f"Likely cause: {entry.cause} What to do: {entry.fix}")},
        "properties": {"tags": ["privacy", "security"]},
    }


def _results(report: Report, findings: list[Row], codes: list[str], uri: str) -> list[dict[str, Any]]:
    seen: dict[str, int] = {}
    results = []
    for row in findings:
        mark = _fingerprint(row)
        seen[mark] = seen.get(mark, 0) + 1
        result = {
            "ruleId": clipped(row["code"], NAME),
            "ruleIndex": codes.index(str(row["code"])),
            "level": _LEVELS[row["severity"]],
            "message": {"text": _message(row)},
            "locations": [_location(row, uri)],
            # The one name that GitHub reads: without it, all findings of a code at one line would be one alert.
            "partialFingerprints": {"primaryLocationLineHash": f"{mark}:{seen[mark]}"},
        }
        if row["waived"]:
            source = clipped(report.meta.get("policy") or "the policy", NAME)
            reason = f"Waived by {source}."
            result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": _text(reason)}]
        results.append(result)
    return results


def _fingerprint(row: Row) -> str:
    """Names a finding over runs; without the best attack of a slice, which changes by chance."""
    attack = "" if row["code"] in _OF_BEST_ATTACK else row["attack"]
    identity = json.dumps([row["code"], row["slice"], attack])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _location(row: Row, uri: str) -> dict[str, Any]:
    logical = [
        {"name": clipped(row[kind], NAME), "fullyQualifiedName": f"{kind}:{clipped(row[kind], NAME)}", "kind": kind}
        for kind in ("slice", "attack")
        if row[kind]
    ]
    physical = {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}}
    return {"physicalLocation": physical, "logicalLocations": logical}


def _message(row: Row) -> str:
    places = [f"{kind} {clipped(row[kind], 60)}" for kind in ("slice", "attack") if row[kind]]
    where = f" ({', '.join(places)})" if places else ""
    return _text(f"{clipped(row['text'], TEXT)}{where}.")


def _text(text: str) -> str:
    """A message's text: braces are doubled, lest they are placeholders, and brackets make no link."""
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")


def _properties(report: Report) -> dict[str, Any]:
    figures = {
        item.metric: {"value": item.estimate.value, "low": _end(item.estimate.low), "high": _end(item.estimate.high)}
        for item in main_figures(report)
        if known(item.estimate.value)
    }
    return {"verdict": report.verdict.value, **figures}


def _end(value: float) -> float | None:
    return value if known(value) else None
