"""JUnit XML: of its schema, its counts add up, and it is red exactly where the exit status is not 0."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from divulge.report import Report
from divulge.reporters.junit import render
from reports import HOSTILE, KINDS, outputs_report, policy

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "cases" / "junit.xsd"))
SAFE = etree.XMLParser(resolve_entities=False, no_network=True)


def parsed(report: Report) -> etree._Element:
    return etree.fromstring(render(report).encode(), SAFE)


def states(suite: etree._Element) -> list[str]:
    return [case[0].tag if len(case) else "passed" for case in suite.iter("testcase")]


def case(report: Report, name: str) -> etree._Element:
    return parsed(report).xpath("//testcase[starts-with(@name, $name)]", name=name)[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_report_is_of_the_schema_and_adds_up(kind) -> None:
    root = parsed(KINDS[kind]())
    SCHEMA.assertValid(root)
    for level in (root, *root):
        found = states(level)
        for state, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(level.get(count)) == found.count(state)
        assert int(level.get("tests")) == len(found)
    assert render(KINDS[kind]()) == render(KINDS[kind]())


@pytest.mark.parametrize("way", ["keep", "fail", "pass"])
@pytest.mark.parametrize("gates", [{"score": 0.01}, {"score": 0.99}, {"score": 0.39}, {"score": 0.39, "tail": 2}])
@pytest.mark.parametrize("waive", [(), ("DV101",), ("DV101", "DV102", "DV103")])
def test_it_is_red_exactly_where_the_status_is_not_0(way, gates, waive) -> None:
    report = outputs_report(controls=()).judged(policy(way, waive, **gates))
    red = {"failure", "error"} & set(states(parsed(report)))
    assert bool(red) == (report.verdict.exit_code != 0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_red_exactly_where_the_status_is_not_0(kind) -> None:
    report = KINDS[kind]()
    assert bool({"failure", "error"} & set(states(parsed(report)))) == (report.verdict.exit_code != 0)


def test_gates_fail_with_their_figure() -> None:
    failure = case(KINDS["leaking"](), "score ≤ 0.1")
    assert failure.tag == "failure" and failure.get("type") == "FAIL" and "0.390 [" in failure.get("message")
    assert case(KINDS["leaking"](), "auc").tag == "system-out"


@pytest.mark.parametrize(("way", "state"), [("keep", "failure"), ("fail", "failure"), ("pass", "skipped")])
def test_doubt_fails_where_it_stops_the_run(way, state) -> None:
    own = outputs_report(controls=())
    undecided = case(own.judged(policy(way, score=own.score.value)), "score")
    assert undecided.tag == state and undecided.get("message").startswith("INCONCLUSIVE")


def test_an_invalid_control_is_an_error_and_one_that_did_not_run_is_skipped() -> None:
    report = KINDS["invalid"]()
    assert case(report, "DV201").tag == "error" and case(report, "verdict").tag == "error"
    skipped = case(report, "DV204")
    assert skipped.tag == "skipped" and skipped.get("message") == "not run: no groups were given"


def test_a_waived_failure_is_skipped_and_seen() -> None:
    report = outputs_report(controls=()).judged(policy(score=0.1, waive=("DV101",)))
    assert report.verdict.exit_code == 0
    assert case(report, "score").tag == "skipped" and "waived" in case(report, "DV101").get("message")


def test_without_a_policy_the_findings_are_told() -> None:
    root = parsed(KINDS["loss_only"]())
    assert [suite.get("name") for suite in root] == ["divulge.gates", "divulge.controls", "divulge.findings"]
    assert case(KINDS["loss_only"](), "DV101").tag == "skipped"
    assert case(KINDS["loss_only"](), "verdict").text.startswith("NOT GATED")


def test_hostile_names_are_text() -> None:
    root = parsed(KINDS["hostile"]())
    shown = "\n".join(value for element in root.iter() for value in [element.text or "", *element.attrib.values()])
    assert HOSTILE[0] in shown and "\\x1b[31m\\x00\\x85\\u2028" in shown
    assert all(character.isprintable() for character in shown.replace("\n", ""))
    assert {element.tag for element in root.iter()} <= {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped", "system-out",
    }  # fmt: skip


def test_it_is_written_whole(tmp_path) -> None:
    text = KINDS["leaking"]().to_junit(tmp_path / "junit.xml")
    assert (tmp_path / "junit.xml").read_bytes().decode() == text
