"""Where a report goes: every form by one mechanism, refused before the work, whole or not there."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

import divulge
from divulge.cli import main
from divulge.cli.places import FORMS, named
from divulge.report import Report
from divulge.reporters.markdown import SUMMARY
from reports import outputs_report

AUDIT = ["audit", "predictions.npz"]
GATE = ["gate", "run.json", "--policy", "fail.toml"]


def evidence() -> divulge.Evidence:
    n = np.arange(1000)
    return divulge.Evidence(member=n < 500, signals={"loss": np.sin(n * n) + 0.6 * (n < 500)})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    evidence().save("predictions.npz")
    divulge.audit(evidence(), controls=()).save("run.json")
    Path("fail.toml").write_text("[gate]\nscore = { max = 0.01 }\n")
    return tmp_path


def reads(form: str, text: str) -> bool:
    """Whether a text is of a form."""
    match form:
        case "json":
            return Report.from_json(text).verdict == "FAIL"
        case "html":
            return text.lower().startswith("<!doctype html>")
        case "markdown":
            return text.startswith("## ✗ FAIL")
        case "junit":
            return ElementTree.fromstring(text.encode()).get("name") == "divulge"
        case "sarif":
            return json.loads(text)["version"] == "2.1.0"
        case _:
            return text.startswith("---\ntags:")


# ----------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("command", [[*AUDIT, "--policy", "fail.toml"], GATE])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_to_its_file_and_stdout_says_the_summary(capsys, command, form) -> None:
    assert main([*command, named(form), "out.x"]) == 1
    captured = capsys.readouterr()
    assert reads(form, Path("out.x").read_text(encoding="utf-8"))
    assert "✗ FAIL" in captured.out and "wrote out.x" in captured.err


@pytest.mark.parametrize("form", FORMS)
def test_every_form_goes_to_stdout_and_the_summary_to_stderr(capfd, form) -> None:
    assert main([*GATE, named(form), "-", "--github"]) == 1
    captured = capfd.readouterr()
    assert reads(form, captured.out)
    assert "FAIL" in captured.err and "::error title=divulge%3A FAIL" in captured.err


def test_all_forms_at_once(capsys) -> None:
    options = [part for form in FORMS for part in (named(form), f"out.{form}")]
    assert main([*GATE, *options]) == 1
    assert all(reads(form, Path(f"out.{form}").read_text(encoding="utf-8")) for form in FORMS)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--json", "-", "--sarif", "-"], "--json and --sarif both name -"),
        (["--json", "a.json", "--html", "./a.json"], "--json and --html both name ./a.json"),
        (["--markdown", "fail.toml"], "--markdown fail.toml would overwrite"),
        (["--model-card", "predictions.npz"], "would overwrite"),
        (["--junit", "linked.npz"], "would overwrite"),
    ],
)
def test_a_place_that_is_read_or_wanted_twice_is_refused(capsys, monkeypatch, more, says) -> None:
    os.symlink("predictions.npz", "linked.npz")
    monkeypatch.setattr("divulge.cli.verdicts.audit", lambda *_, **__: pytest.fail("the work began"))
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert main([*AUDIT, "--policy", "fail.toml", *more]) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_policy_that_was_found_here_is_read_too(capsys) -> None:
    Path("fail.toml").rename("divulge.toml")
    assert main([*AUDIT, "--sarif", "divulge.toml"]) == 2
    assert "would overwrite" in capsys.readouterr().err


def test_only_the_run_file_may_replace_the_run(capsys) -> None:
    assert main([*GATE, "--html", "run.json"]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert main([*GATE, "--json", "run.json"]) == 1
    assert Report.load("run.json").verdict == "FAIL"


def test_a_table_in_the_audited_folder_is_not_replaced(capsys) -> None:
    Path("data").mkdir()
    evidence().save("data/part.parquet")
    assert main(["audit", "data", "--json", "data/part.parquet"]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert main(["audit", "data", "--json", "data/run.json"]) == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["nowhere/out", ".", "pipe"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(capsys, monkeypatch, form, place) -> None:
    os.mkfifo("pipe")
    monkeypatch.setattr("divulge.cli.verdicts.audit", lambda *_, **__: pytest.fail("the work began"))
    assert main([*AUDIT, named(form), place]) == 2
    assert "DV035" in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_fails_to_be_written_is_no_verdict(capsys, monkeypatch, form) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("divulge.atomic.os.replace", full)
    Path("out.x").write_text("before")
    assert main([*AUDIT, "--no-policy", named(form), "out.x"]) == 2
    assert "DV035" in capsys.readouterr().err and Path("out.x").read_text() == "before"


def test_sarif_shows_its_findings_at_the_audited_file() -> None:
    Path("da ta").mkdir()
    evidence().save("da ta/p.npz")
    for source, uri in (("da ta/p.npz", "da%20ta/p.npz"), (str(Path("da ta/p.npz").absolute()), "da%20ta/p.npz")):
        main(["audit", source, "--sarif", "out.sarif"])
        result = json.loads(Path("out.sarif").read_text())["runs"][0]["results"][0]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": uri}


def test_sarif_of_a_file_elsewhere_says_its_name_only(monkeypatch) -> None:
    Path("here").mkdir()
    monkeypatch.chdir("here")
    main(["audit", "../predictions.npz", "--sarif", "out.sarif"])
    text = Path("out.sarif").read_text()
    assert '"uri": "predictions.npz"' in text and ".." not in text


# --------------------------------------------------------------------------------------------------------- command


def test_a_run_says_the_command_that_wrote_it_and_gate_keeps_it() -> None:
    main([*AUDIT, "--attack", "loss", "--json", "new run.json"])
    command = "divulge audit predictions.npz --attack loss --json 'new run.json'"
    assert Report.load("new run.json").meta["command"] == command
    main(["gate", "new run.json", "--policy", "fail.toml", "--json", "judged.json", "--markdown", "out.md"])
    assert Report.load("judged.json").meta["command"] == command
    assert f"command: `{command}`" in Path("out.md").read_text()


def test_a_name_that_is_no_text_is_escaped_in_the_command() -> None:
    name = os.fsdecode(b"run\xff.json")
    assert main([*AUDIT, "--json", name, "--sarif", "out.sarif"]) == 0
    assert r"run\udcff.json" in Report.load(name).meta["command"]


# ---------------------------------------------------------------------------------------------------------- github


def test_annotations_follow_a_summary_that_github_does_not_read(capsys) -> None:
    assert main([*GATE, "--github"]) == 1
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    token = lines[0].removeprefix("::stop-commands::")
    end = lines.index(f"::{token}::")
    assert len(token) == 32 and end > 5
    assert lines[end + 1].startswith("::error title=divulge%3A FAIL::")
    assert "GITHUB_STEP_SUMMARY is not set" in captured.err


def test_the_token_is_new_each_time(capsys) -> None:
    tokens = set()
    for _ in range(2):
        main([*GATE, "--github", "-q"])
        tokens.add(capsys.readouterr().out.splitlines()[0])
    assert len(tokens) == 2


def test_the_jobs_summary_is_added_to_what_is_there(monkeypatch) -> None:
    Path("summary.md").write_text("earlier")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert main([*GATE, "--github"]) == main([*GATE, "--github"]) == 1
    text = Path("summary.md").read_text(encoding="utf-8")
    assert text.startswith("earlier\n\n## ✗ FAIL") and text.count("\n\n## ✗ FAIL") == 2


@pytest.mark.parametrize("taken", [0, SUMMARY - 30_000, SUMMARY - 16_386])
def test_the_jobs_summary_stays_under_what_github_takes(monkeypatch, taken) -> None:
    outputs_report(n=4000, names=tuple(f"class {at}" * 20 for at in range(60)), min_n=10).save("many.json")
    Path("summary.md").write_bytes(b"x" * taken)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert main(["gate", "many.json", "--policy", "fail.toml", "--github"]) == 1
    assert taken < Path("summary.md").stat().st_size < SUMMARY


@pytest.mark.parametrize("place", ["full.md", "nowhere/summary.md", "."])
def test_a_jobs_summary_that_cannot_be_written_is_refused_before_the_work(capsys, monkeypatch, place) -> None:
    Path("full.md").write_bytes(b"x" * (SUMMARY - 1000))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", place)
    monkeypatch.setattr("divulge.cli.verdicts.audit", lambda *_, **__: pytest.fail("the work began"))
    assert main([*AUDIT, "--github"]) == 2
    captured = capsys.readouterr()
    assert "DV035" in captured.err and captured.out == ""


def test_without_github_its_variable_is_nothing(monkeypatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "nowhere/summary.md")
    assert main(GATE) == 1
