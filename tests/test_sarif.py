"""SARIF: of its schema, no errors by the validator of its makers, and the same alert for the same finding."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from jsonschema import Draft202012Validator

from divulge.codes import CODES
from divulge.report import Report, table_of
from divulge.reporters.sarif import render
from reports import KINDS, outputs_report, policy

CASES = Path(__file__).parent / "cases"
SCHEMA = json.loads((CASES / "sarif-2.1.0.schema.json").read_text(encoding="utf-8"))


def run(report: Report, **options: str) -> dict[str, Any]:
    return json.loads(render(report, **options))["runs"][0]


def fingerprints(report: Report) -> list[str]:
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in run(report)["results"]]


@pytest.fixture
def multitool() -> str:
    """npm's @microsoft/sarif-multitool-linux; a missing one skips the test, or fails it in the full run."""
    found = shutil.which(os.environ.get("DIVULGE_SARIF_MULTITOOL", "Sarif.Multitool"))
    if found is None and os.environ.get("DIVULGE_REQUIRE") != "all":
        pytest.skip("DIVULGE_SARIF_MULTITOOL names no program")
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_report_is_of_the_schema(kind) -> None:
    text = render(KINDS[kind]())
    Draft202012Validator(SCHEMA).validate(json.loads(text))
    assert text == render(KINDS[kind]())


def test_the_makers_validator_finds_no_error(multitool, tmp_path) -> None:
    for kind, made in KINDS.items():
        made().to_sarif(tmp_path / f"{kind}.sarif", artifact=f"data/{kind} ü#1.npz")
    arguments = ["validate", str(tmp_path / "*.sarif"), "-o", str(tmp_path / "found.json"), "--rule-kind", "Sarif;Ghas"]
    environment = {**os.environ, "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
    done = subprocess.run([multitool, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8-sig"))["runs"][0]
    # One warning a file, so that all were looked at: the project has no address yet that could be its informationUri.
    assert [result["ruleId"] for result in found["results"]] == ["SARIF2005"] * len(KINDS)


def test_it_says_level_rule_place_and_what_to_do() -> None:
    log = run(KINDS["leaking"](), artifact="predictions.npz")
    assert [rule["id"] for rule in log["tool"]["driver"]["rules"]] == ["DV101", "DV103", "DV102"]
    assert CODES["DV101"].fix in log["tool"]["driver"]["rules"][0]["help"]["text"]
    assert {result["level"] for result in log["results"]} == {"error"}
    slices = [result for result in log["results"] if result["ruleId"] == "DV102"]
    assert [place["name"] for place in slices[0]["locations"][0]["logicalLocations"]] == ["class=a", "class_wise(loss)"]
    assert slices[0]["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "predictions.npz"}
    assert log["invocations"][0]["exitCode"] == 1 and log["properties"]["verdict"] == "FAIL"
    assert log["properties"]["score"]["value"] == KINDS["leaking"]().score.value


def test_levels_are_the_severities() -> None:
    levels = {result["ruleId"]: result["level"] for result in run(KINDS["undecided"]())["results"]}
    assert levels["DV101"] == "warning" and levels["DV306"] == "note"


@pytest.mark.parametrize("name", ["a b.npz", "ü#1?.npz", "x:y.npz", "100%.npz", "d/[e].npz", "\udcff.npz"])
def test_the_artifact_is_a_relative_uri(name) -> None:
    uri = run(KINDS["leaking"](), artifact=name)["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert unquote(uri["uri"], errors="surrogateescape") == name
    assert uri["uri"].isascii() and not set(uri["uri"]) & set(" #?:[]")


def test_a_fingerprint_is_of_the_finding_and_not_of_its_figures() -> None:
    gates = policy(score=0.01, score_slice=0.01, tail=1.01)
    more, less = (outputs_report(leak, controls=()).judged(gates) for leak in (1.5, 1.4))
    assert [row["text"] for row in more.findings] != [row["text"] for row in less.findings]
    assert set(fingerprints(more)) == set(fingerprints(less))
    assert len(set(fingerprints(more))) == len(fingerprints(more)) > 4


def test_the_best_attack_of_a_slice_may_change_and_the_alert_stays() -> None:
    report = KINDS["leaking"]()
    rows = [{**row, "attack": "another"} for row in report.findings]
    other = replace(report, tables={**report.tables, "findings": table_of("findings", rows)})
    assert fingerprints(other) == fingerprints(report)


def test_two_findings_of_one_code_and_place_are_two_alerts() -> None:
    report = outputs_report(controls=()).judged(policy(**{"tpr@0.01": 0.001, "tpr@0.05": 0.001}))
    assert len(set(fingerprints(report))) == len(fingerprints(report))


def test_a_waived_finding_is_suppressed() -> None:
    report = outputs_report(controls=()).judged(policy(score=0.1, waive=("DV101",)))
    waived = [result for result in run(report)["results"] if "suppressions" in result]
    assert [result["ruleId"] for result in waived] == ["DV101"]
    assert waived[0]["suppressions"][0]["status"] == "accepted"


def test_a_sound_model_has_no_result() -> None:
    assert run(KINDS["sound"]())["results"] == []


def test_hostile_names_are_no_links_and_no_placeholders() -> None:
    for result in run(KINDS["hostile"]())["results"]:
        text = result["message"]["text"]
        assert "](" not in text and text.isprintable()
        assert not text.replace("{{", "").replace("}}", "").count("{")


def test_a_code_of_a_later_version_is_a_rule_too() -> None:
    report = KINDS["leaking"]()
    rows = [{**row, "code": "DV199"} for row in report.findings]
    later = replace(report, tables={**report.tables, "findings": table_of("findings", rows)})
    Draft202012Validator(SCHEMA).validate(json.loads(render(later)))


def test_it_is_written_whole(tmp_path) -> None:
    text = KINDS["leaking"]().to_sarif(tmp_path / "leaks.sarif")
    assert (tmp_path / "leaks.sarif").read_bytes().decode() == text
