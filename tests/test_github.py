"""Annotations: one command a line whatever the names, and no more of a kind than GitHub shows."""

from __future__ import annotations

import re

import pytest

from divulge.reporters.github import SHOWN, annotations, muted
from reports import KINDS, outputs_report, policy

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,]*)::(.*)")


@pytest.mark.parametrize("kind", KINDS)
def test_every_line_is_one_command_and_no_kind_has_too_many(kind) -> None:
    found = [COMMAND.fullmatch(line) for line in annotations(KINDS[kind]()).splitlines()]
    assert found and all(found)
    kinds = [match[1] for match in found if match]
    assert max(kinds.count(name) for name in kinds) <= SHOWN
    assert not any("%" in re.sub("%(25|0A|0D|3A|2C)", "", match[0]) for match in found if match)


@pytest.mark.parametrize(
    ("kind", "starts"),
    [
        ("leaking", "::error title=divulge%3A FAIL::a figure is credibly above its limit; score 0.390"),
        ("invalid", "::error title=divulge%3A INVALID::"),
        ("undecided", "::error title=divulge%3A INCONCLUSIVE::"),
        ("sound", "::notice title=divulge%3A PASS::every limit holds"),
        ("loss_only", "::warning title=DV101 "),
    ],
)
def test_the_verdict_comes_first_and_is_an_error_where_it_stops_the_job(kind, starts) -> None:
    assert annotations(KINDS[kind]()).startswith(starts)
    assert ("::error title=divulge%3A" in annotations(KINDS[kind]())) == (KINDS[kind]().verdict.exit_code != 0)


def test_the_rest_is_counted() -> None:
    report = KINDS["hostile"]()
    errors = [line for line in annotations(report).splitlines() if line.startswith("::error")]
    failed = sum(row["severity"] == "fail" and not row["waived"] for row in report.findings)
    assert len(errors) == SHOWN and failed > SHOWN
    assert errors[-1] == f"::error title=divulge::{failed + 1 - (SHOWN - 1)} more findings; the run file holds all"


def test_a_waived_finding_is_no_annotation() -> None:
    report = outputs_report(controls=()).judged(policy(score=0.1, waive=("DV101",)))
    assert "DV101" not in annotations(report)


def test_a_muted_text_is_between_the_token() -> None:
    assert muted("a\n", "t") == "::stop-commands::t\na\n::t::\n"
