"""The command line: what a person and a script meet. Exit statuses, streams, files that are whole or not there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import divulge
from divulge import signals
from divulge.attacks import classifiers, quantile, traces
from divulge.attacks.naming import _FAMILIES
from divulge.cli import main
from divulge.cli.guides import RECIPES
from divulge.codes import CODES
from divulge.comparison import Comparison
from divulge.controls import CONTROLS
from divulge.metrics import PLAIN
from divulge.streams.checkpoints import Checkpoint

PASSING = "[gate]\nscore = { max = 0.99 }\n"
FAILING = "[gate]\nscore = { max = 0.01 }\n"
UNDECIDED = "[gate]\nscore = { max = 0.24 }\n"


def evidence(members: int = 500, leak: float = 0.6) -> divulge.Evidence:
    rng = np.random.default_rng(7)
    member = np.arange(2 * members) < members
    return divulge.Evidence(
        member=member,
        signals={"loss": rng.normal(size=2 * members) + leak * member},
        columns={"sex": np.array(["f", "m"])[rng.integers(0, 2, 2 * members)]},
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with predictions and a run, and no policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    evidence().save("predictions.npz")
    divulge.audit(evidence()).save("run.json")
    for name, text in {"pass": PASSING, "fail": FAILING, "undecided": UNDECIDED}.items():
        Path(f"{name}.toml").write_text(text)
    return tmp_path


def process(
    *arguments: str, code: str | None = None, environment: dict[str, str] | None = None, **options: object
) -> subprocess.Popen[bytes]:
    """The real program, in a process of its own; `code` runs instead of it."""
    start = [sys.executable, "-m", "divulge"] if code is None else [sys.executable, "-c", code]
    source = str(Path(divulge.__file__).parents[1])
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    streams["env"] = {**os.environ, "PYTHONPATH": source, **(environment or {})}
    return subprocess.Popen([*start, *arguments], **streams)  # type: ignore[call-overload]


# ------------------------------------------------------------------------------------------------ exit statuses


@pytest.mark.parametrize(
    ("policy", "more", "status"),
    [
        ("pass", [], 0),
        ("fail", [], 1),
        ("undecided", [], 3),
        ("undecided", ["--inconclusive", "fail"], 1),
        ("undecided", ["--inconclusive", "pass"], 0),
        ("undecided", ["--inconclusive", "keep"], 3),
    ],
)
@pytest.mark.parametrize("command", [["audit", "predictions.npz"], ["gate", "run.json"]])
def test_the_status_is_the_verdict(folder, command, policy, more, status) -> None:
    assert main([*command, "--policy", f"{policy}.toml", *more]) == status


def test_without_a_policy_nothing_is_gated(folder, capsys) -> None:
    assert main(["audit", "predictions.npz"]) == 0
    assert "nothing was gated" in capsys.readouterr().out


def test_an_invalid_control_is_status_4(folder) -> None:
    run = json.loads(Path("run.json").read_text())
    row = {"control": "shift", "code": "DV201", "status": "invalid", "value": 0.7, "low": 0.6, "high": 0.8}
    row |= {"text": "the sides differ without the model", "reason": None}
    run["tables"]["controls"] = {name: [row[name]] for name in run["tables"]["controls"]}
    Path("run.json").write_text(json.dumps(run))
    assert main(["gate", "run.json", "--policy", "pass.toml"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["audit", "nothing.npz"], "DV030"),
        (["audit", "."], "DV030"),
        (["audit", "pass.toml"], "DV031"),
        (["audit", "predictions.npz", "--slice", "age"], "DV053"),
        (["audit", "predictions.npz", "--attack", "los"], "DV052"),
        (["audit", "predictions.npz", "--metric", "tpr@2"], "DV051"),
        (["audit", "predictions.npz", "--control", "shft"], "DV058"),
        (["audit", "predictions.npz", "--confidence", "2"], "DV056"),
        (["audit", "predictions.npz", "--label", "y"], "DV017"),
        (["audit", "predictions.npz", "--policy", "nothing.toml"], "DV303"),
        (["audit", "predictions.npz", "--policy", "fail.toml", "--baseline", "fail.toml"], "DV055"),
        (["audit", "predictions.npz", "--json", "nowhere/run.json"], "DV035"),
        (["audit", "predictions.npz", "--json", "."], "DV035"),
        (["gate", "predictions.npz", "--policy", "fail.toml"], "DV055"),
        (["gate", "run.json"], "DV303"),
        (["compare", "run.json", "fail.toml"], "DV055"),
        (["explain", "DV999"], "DV001"),
    ],
)
def test_a_wrong_input_is_status_2_with_its_code(folder, capsys, arguments, code) -> None:
    before = sorted(folder.rglob("*"))
    assert main([*arguments, "-v"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{code} " in captured.err and f"divulge explain {code}\n" in captured.err
    assert "Traceback" not in captured.err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Usage"),
        (["audt"], "audit"),
        (["audit"], "FILE"),
        (["audit", "predictions.npz", "--slise", "sex"], "--slice"),
        (["audit", "predictions.npz", "--kind", "scores"], "logits"),
        (["audit", "predictions.npz", "--policy", "fail.toml", "--no-policy"], "exclude"),
        (["audit", "predictions.npz", "--baseline", "run.json"], "policy"),
        (["audit", "predictions.npz", "--inconclusive", "fail"], "policy"),
        (["audit", "predictions.npz", "--json", "predictions.npz"], "overwrite"),
        (["audit", "predictions.npz", "--policy", "fail.toml", "--json", "./fail.toml"], "overwrite"),
        (["compare", "run.json"], "two"),
        (["recipe", "torh"], "torch"),
    ],
)
def test_a_wrong_call_is_status_2_and_says_what_is_right(folder, capsys, arguments, says) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and says in captured.err and "Traceback" not in captured.err


def test_a_crash_is_status_70_and_never_a_verdict(folder, capsys, monkeypatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a defect")

    monkeypatch.setattr("divulge.cli.verdicts.audit", broken)
    assert main(["audit", "predictions.npz", "--json", "new.json"]) == 70
    captured = capsys.readouterr()
    assert captured.out == "" and "DV901" in captured.err and "a defect" in captured.err
    assert "-v" in captured.err and "Traceback" not in captured.err
    assert main(["audit", "predictions.npz", "-v"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert not Path("new.json").exists()


@pytest.mark.parametrize("error", [EOFError, MemoryError, OSError, RecursionError, AssertionError, SystemError])
def test_no_exception_of_a_defect_passes_for_something_else(folder, monkeypatch, error) -> None:
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("divulge.cli.verdicts.audit", broken)
    assert main(["audit", "predictions.npz"]) == 70


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["audit", "--help"], ["gate", "-h"]])
def test_help_and_version(capsys, arguments) -> None:
    assert main(arguments) == 0
    assert "divulge" in capsys.readouterr().out


def test_the_help_of_audit_names_every_attack_control_and_metric(capsys) -> None:
    main(["audit", "--help"])
    text = capsys.readouterr().out.partition("Attacks: ")[2]
    listed = {*CONTROLS, *PLAIN, *_FAMILIES, *signals.NAMES, *classifiers.MODELS, *quantile.MODELS, *traces.KINDS}
    assert not listed - set(re.findall(r"\w+", text))


def test_version_is_the_packages(capsys) -> None:
    main(["--version"])
    assert divulge.__version__ in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ policy


def test_the_policy_of_the_working_directory_is_taken_and_named(folder, capsys) -> None:
    Path("pyproject.toml").write_text("[tool.divulge.gate]\nscore = { max = 0.01 }\n")
    assert main(["audit", "predictions.npz"]) == 1
    assert "policy: pyproject.toml" in capsys.readouterr().err
    Path("divulge.toml").write_text(PASSING)
    assert main(["audit", "predictions.npz"]) == 0
    assert "policy: divulge.toml" in capsys.readouterr().err
    assert main(["audit", "predictions.npz", "--policy", "fail.toml"]) == 1
    assert main(["gate", "run.json"]) == 0


def test_no_policy_gates_nothing(folder, capsys) -> None:
    Path("divulge.toml").write_text(FAILING)
    assert main(["audit", "predictions.npz", "--no-policy"]) == 0
    assert "nothing was gated" in capsys.readouterr().out


def test_only_the_working_directory_counts(folder, monkeypatch) -> None:
    Path("divulge.toml").write_text(FAILING)
    below = folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert main(["audit", "../predictions.npz"]) == 0


@pytest.mark.parametrize("text", ["[tool.divulge]\n", "[tool.divulge.gat]\nscore = { max = 1 }\n", "[tool\n"])
def test_a_policy_that_cannot_be_read_is_never_skipped(folder, text) -> None:
    Path("pyproject.toml").write_text(text)
    assert main(["audit", "predictions.npz"]) == 2
    assert main(["audit", "predictions.npz", "--no-policy"]) == 0


def test_a_pyproject_of_others_is_no_policy(folder) -> None:
    Path("pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    assert main(["audit", "predictions.npz"]) == 0


def test_an_increase_is_held_against_a_baseline(folder) -> None:
    Path("divulge.toml").write_text("[gate]\nscore = { max_increase = 0.05 }\n")
    divulge.audit(evidence(leak=0)).save("before.json")
    assert main(["audit", "predictions.npz"]) == 2
    assert main(["audit", "predictions.npz", "--baseline", "before.json"]) == 1
    assert main(["gate", "run.json", "--baseline", "before.json"]) == 1


# ----------------------------------------------------------------------------------------- what comes in and out


def test_options_reach_the_audit(folder, capsys) -> None:
    rng = np.random.default_rng(1)
    lines = ["part,truth,p_cat,p_dog,who,home,age,quiet"]
    for i in range(400):
        p = rng.random()
        row = ("used" if i < 200 else "val", "cat" if rng.random() < 0.5 else "dog", p, 1 - p, i, i // 2, i % 7, p)
        lines.append(",".join(map(str, row)))
    Path("table.csv").write_text("\n".join(lines) + "\n")
    arguments = "audit table.csv --split part --label truth --id who --group home --outputs p_cat --outputs p_dog"
    arguments += " --kind probs --column age --classes cat,dog --member-value used --nonmember-value val --slice age"
    arguments += " --slice class*correct --attack loss --metric auc --confidence 0.9 --min-n 20 --seed 3"
    arguments += " --json run.json --control -shift"
    assert main(arguments.split()) == 0
    report = divulge.Report.load("run.json")
    expected = divulge.audit(
        divulge.Evidence.load(
            "table.csv", member="part", label="truth", id="who", group="home", outputs=["p_cat", "p_dog"], kind="probs",
            columns=["age"], classes=["cat", "dog"], member_values=["used"], nonmember_values=["val"],
        ),
        slices=["age", "class*correct"], attacks=["loss"], metrics=["auc"], confidence=0.9, min_n=20, seed=3,
        controls=["-shift"],
    )  # fmt: skip
    assert report.meta["command"] == f"divulge {arguments}".replace("class*correct", "'class*correct'")
    assert {**report.meta, "created": ""} == {**expected.meta, "created": "", "command": report.meta["command"]}
    assert [row["status"] for row in report.rows("controls") if row["control"] == "shift"] == ["not run"]
    assert report.rows("results")[0] == pytest.approx(expected.rows("results")[0], nan_ok=True)
    assert "mapping" in capsys.readouterr().err


def test_lower_is_member_turns_a_signal(folder) -> None:
    rng = np.random.default_rng(1)
    member = np.arange(800) < 400
    np.savez("own.npz", member=member, signal_doubt=rng.normal(size=800) - member)
    assert main(["audit", "own.npz", "--lower-is-member", "doubt", "--json", "run.json"]) == 0
    assert divulge.Report.load("run.json").estimate("auc").low > 0.5


def test_json_to_stdout_leaves_stdout_to_the_json(folder, capfd) -> None:
    assert main(["audit", "predictions.npz", "--slice", "sex", "--json", "-", "--policy", "fail.toml"]) == 1
    captured = capfd.readouterr()
    assert divulge.Report.from_json(captured.out).verdict == "FAIL"
    assert "FAIL" in captured.err


def test_quiet_says_the_verdict_only(folder, capfd) -> None:
    Path("divulge.toml").write_text(FAILING)
    assert main(["-q", "audit", "predictions.npz"]) == main(["audit", "predictions.npz", "--quiet"]) == 1
    captured = capfd.readouterr()
    assert captured.err == "" and [line.split()[0] for line in captured.out.splitlines()] == ["FAIL", "FAIL"]
    assert main(["gate", "run.json", "-q", "--json", "-"]) == 1
    captured = capfd.readouterr()
    assert captured.err == "" and json.loads(captured.out)["meta"]["verdict"] == "FAIL"


def test_verbose_says_the_steps(folder, capsys) -> None:
    main(["audit", "predictions.npz", "-v"])
    assert "attack loss" in capsys.readouterr().err
    main(["audit", "predictions.npz"])
    assert "attack loss" not in capsys.readouterr().err


def test_gate_writes_the_judged_run(folder) -> None:
    assert main(["gate", "run.json", "--policy", "fail.toml", "--json", "judged.json"]) == 1
    assert divulge.Report.load("judged.json").verdict == "FAIL"
    assert divulge.Report.load("run.json").verdict == "NOT_GATED"


def test_compare_is_status_0_whatever_the_verdicts(folder, capsys) -> None:
    main(["gate", "run.json", "--policy", "fail.toml", "--json", "judged.json"])
    capsys.readouterr()
    assert main(["compare", "run.json", "judged.json"]) == 0
    out = capsys.readouterr().out
    assert "FAIL" in out and "NOT GATED" in out and "judged" in out


@pytest.fixture
def runs(folder: Path) -> Path:
    """A folder of three runs over the same records, two other files, and the evidence of two of the runs."""
    Path("runs").mkdir()
    for name, leak in {"a": 0.2, "b": 0.6, "c": 0.9}.items():
        own = replace(evidence(leak=leak), ids=np.arange(1000))
        own.save(f"{name}.npz")
        divulge.audit(own, controls=()).save(f"runs/{name}.json")
    Path("runs/other.json").write_text("{}")
    Path("runs/notes.txt").write_text("not a run")
    return folder


def test_compare_takes_a_folder_and_says_what_it_skipped(runs, capsys) -> None:
    assert main(["compare", "runs", "run.json", "-q"]) == 0
    captured = capsys.readouterr()
    assert [captured.out.count(f"{name}  ") > 0 for name in ("a", "b", "c", "run")] == [True] * 4
    assert "other.json" in captured.err and "notes" not in captured.err


def test_a_folder_without_runs_is_an_error(folder, capsys) -> None:
    Path("empty").mkdir()
    assert main(["compare", "run.json", "empty"]) == 2
    assert "DV055" in capsys.readouterr().err


def test_compare_pairs_runs_with_their_evidence(runs, capsys) -> None:
    arguments = ["compare", "runs/a.json", "runs/b.json", "--json", "-"]
    assert main([*arguments, "--evidence", "a.npz", "--evidence", "b.npz"]) == 0
    captured = capsys.readouterr()
    rows = [row for row in json.loads(captured.out)["rows"] if row["run"] == "b" and row["metric"] == "score"]
    assert [row["pairing"] for row in rows] == ["paired"]
    assert "500 members and 500 non-members are in both" in " ".join(captured.err.split())
    assert main(arguments) == 0
    assert {row["pairing"] for row in json.loads(capsys.readouterr().out)["rows"]} == {None, "unpaired"}


@pytest.mark.parametrize(
    ("files", "code"),
    [(["a.npz"], "DV065"), (["b.npz", "a.npz"], "DV065"), (["a.npz", "nothing.npz"], "DV030")],
)
def test_compare_refuses_other_evidence(runs, capsys, files, code) -> None:
    given = [part for file in files for part in ("--evidence", file)]
    assert main(["compare", "runs/a.json", "runs/b.json", *given]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and code in captured.err


def test_compare_writes_its_rows_and_page(folder, capsys, monkeypatch) -> None:
    def page(comparison: Comparison, path: str | None = None) -> str:
        if path is not None:
            Path(path).write_text("page")
        return "page"

    monkeypatch.setattr(Comparison, "to_html", page, raising=False)
    main(["gate", "run.json", "--policy", "fail.toml", "--json", "judged.json"])
    arguments = ["compare", "run.json", "judged.json"]
    assert main([*arguments, "--json", "rows.json", "--html", "page.html"]) == 0
    assert json.loads(Path("rows.json").read_text())["schema"] == "divulge-comparison-1"
    assert Path("page.html").read_text() == "page"
    assert "score" in capsys.readouterr().out
    assert main([*arguments, "--html", "-", "-q"]) == 0
    assert capsys.readouterr().out == "page"
    assert main([*arguments, "--html", "-", "--json", "-"]) == 2
    assert main([*arguments, "--json", "run.json"]) == 2
    assert divulge.Report.load("run.json").verdict == "NOT_GATED"


@pytest.mark.parametrize("code", sorted(CODES))
def test_explain_says_cause_and_fix_of_every_code(capsys, code) -> None:
    assert main(["explain", code.lower()]) == main(["explain", code.removeprefix("DV")]) == 0
    words = capsys.readouterr().out.split()
    assert " ".join(CODES[code].fix.split()) in " ".join(words)


def test_explain_alone_lists_all(capsys) -> None:
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert all(code in out for code in CODES)


def test_recipe_alone_lists_all(capsys) -> None:
    assert main(["recipe"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == list(RECIPES)


def test_untrusted_text_reaches_the_terminal_harmless(folder, capsys) -> None:
    assert main(["audit", "\x1b[31mred\u202e.npz"]) == 2
    assert main(["audit", "predictions.npz", "--slice", "\x1b[31m"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err and "\u202e" not in err


def test_colour_is_for_terminals_only(folder, capsys, monkeypatch) -> None:
    arguments = ["gate", "run.json", "--policy", "fail.toml"]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(arguments)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    main(arguments)
    assert "\x1b" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(arguments)
    assert "\x1b" not in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------- real processes


def test_the_program_is_a_module_and_gives_its_status_to_the_shell(folder) -> None:
    run = process("gate", "run.json", "--policy", "fail.toml", environment={"COLUMNS": "60"})
    out, err = run.communicate()
    assert run.returncode == 1 and err == b""
    assert max(map(len, out.decode().splitlines())) <= 60


def test_ascii_where_the_terminal_has_no_more(folder) -> None:
    run = process("gate", "run.json", "--policy", "fail.toml", environment={"PYTHONIOENCODING": "ascii"})
    out, _ = run.communicate()
    assert run.returncode == 1 and out.isascii() and b"x FAIL" in out and b"<= 0.01" in out


@pytest.mark.parametrize("arguments", [["gate", "run.json", "--policy", "fail.toml"], ["--help"], ["explain"]])
def test_a_closed_pipe_is_status_141_without_a_word(folder, arguments) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = process(*arguments, stdout=writing)
    os.close(writing)
    _, err = run.communicate()
    assert (run.returncode, err) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("more", [[], ["--json", "-"]])
def test_a_full_disk_is_not_a_verdict(folder, more) -> None:
    with open("/dev/full", "wb") as full:
        run = process("gate", "run.json", "--policy", "pass.toml", *more, stdout=full)
        _, err = run.communicate()
    assert run.returncode == 2 and b"DV035" in err


STOPPED_WHILE_WRITING = """
import sys, threading
from divulge.cli import main
from divulge.report import Report

def never(self):
    print("writing", file=sys.stderr, flush=True)
    threading.Event().wait()

Report.to_json = never
sys.exit(main())
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_the_old_file_and_nothing_else(folder, number, status) -> None:
    before = Path("run.json").read_bytes()
    names = sorted(path.name for path in folder.iterdir())
    run = process("audit", "predictions.npz", "--json", "run.json", code=STOPPED_WHILE_WRITING)
    assert run.stderr is not None
    assert any(line == b"writing\n" for line in run.stderr)
    assert len(list(folder.iterdir())) == len(names) + 1, "the temporary file should be there now"
    run.send_signal(number)
    out, err = run.communicate()
    assert (run.returncode, out) == (status, b"")
    assert b"stopped" in err and b"Traceback" not in err
    assert sorted(path.name for path in folder.iterdir()) == names
    assert Path("run.json").read_bytes() == before


def test_a_killed_run_leaves_the_old_file(folder) -> None:
    before = Path("run.json").read_bytes()
    run = process("audit", "predictions.npz", "--json", "run.json", code=STOPPED_WHILE_WRITING)
    assert run.stderr is not None
    assert any(line == b"writing\n" for line in run.stderr)
    run.kill()
    run.communicate()
    assert Path("run.json").read_bytes() == before


def test_importing_divulge_does_not_import_the_command_line() -> None:
    code = "import sys, divulge; sys.exit(bool({'click', 'rich', 'divulge.cli'} & set(sys.modules)))"
    run = process(code=code)
    assert (run.communicate(), run.returncode) == ((b"", b""), 0)


# ------------------------------------------------------------------------------------------------ a stream of files


@pytest.fixture
def hundred(folder: Path) -> Path:
    """A hundred small files, of which one in the middle was cut off."""
    records, files = evidence(1000), folder / "files"
    files.mkdir()
    for at in range(100):
        records.take(slice(at, None, 100)).save(files / f"{at:02}.parquet")
    cut = files / "50.parquet"
    cut.write_bytes(cut.read_bytes()[:-300])
    return cut


@pytest.mark.parametrize("kept", [True, False])
def test_a_truncated_file_among_a_hundred_is_named_and_with_leave_left_out(
    hundred: Path, capsys: pytest.CaptureFixture[str], kept: bool
) -> None:
    command = ["audit", "files", "--engine", "stream", "--budget", "quick", "--workers", "2", "--json", "stream.json"]
    command += ["--checkpoint", "kept.npz"] if kept else []
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "DV032" in err and "50.parquet" in err
    assert ("All other files are counted and kept" if kept else "Nothing is kept: no checkpoint") in err
    assert not Path("stream.json").exists() and Path("kept.npz").exists() == kept
    if kept:
        done = Checkpoint.load("kept.npz")
        assert done is not None and done.tally is not None
        assert len(done.files) == 99 and int(done.tally.rows.sum()) == 1980
    assert main([*command, "--skip-bad-files"]) == 0
    out = capsys.readouterr().out
    assert "99 files" in out and "left out 1 file that could not be read" in out and "50.parquet" in out
    meta = json.loads(Path("stream.json").read_text())["meta"]
    assert list(meta["stream"]["left_out"]) == ["50.parquet"] and meta["stream"]["files"] == 99
    assert meta["data"]["members"] + meta["data"]["nonmembers"] == 1980
    evidence(1000).take(slice(50, None, 100)).save(hundred)
    assert main(command) == 0
    whole = json.loads(Path("stream.json").read_text())["meta"]
    assert whole["stream"]["left_out"] == {} and whole["data"]["members"] == whole["data"]["nonmembers"] == 1000
