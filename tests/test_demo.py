"""The demonstration does what the README says: equal accuracy, unequal leak, one FAIL, one PASS, files that load."""

from __future__ import annotations

from pathlib import Path

import pytest

import divulge
from divulge.cli import main
from divulge.demo import MEMBERS, Demonstration, demonstrate

pytestmark = pytest.mark.default_budget


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demonstration:
    return demonstrate(tmp_path_factory.mktemp("demo") / "new" / "folder")


def test_one_fails_and_one_passes(shown) -> None:
    assert {name: report.verdict.value for name, report in shown.reports.items()} == {
        "overfit": "FAIL",
        "regularised": "PASS",
    }


def test_the_overfit_model_leaks_and_is_no_worse_a_model(shown) -> None:
    overfit, regularised = shown.reports["overfit"], shown.reports["regularised"]
    assert overfit.score.low > 0.3 > 0.15 > regularised.score.high
    accuracies = [report.estimate("nonmember_accuracy").value for report in (overfit, regularised)]
    assert abs(accuracies[0] - accuracies[1]) < 0.02 and min(accuracies) > 0.94


def test_the_tail_is_measured_at_one_percent(shown) -> None:
    assert all(report.estimate("tpr@0.01", attack="loss").reason is None for report in shown.reports.values())
    assert shown.evidence["overfit"].member.sum() == MEMBERS


def test_its_files_are_a_run_each_and_predictions_to_go_on_with(shown, capsys) -> None:
    folder = shown.files[0].parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in shown.files)
    assert divulge.Report.load(folder / "overfit.json").score == shown.reports["overfit"].score
    arguments = ["audit", str(folder / "predictions.npz"), "--policy", str(folder / "demo.toml")]
    assert main([*arguments, "--slice", "class", "--json", str(folder / "run.json")]) == 1
    assert divulge.Report.load(folder / "run.json").score == shown.reports["overfit"].score


def test_the_command_shows_both_verdicts_and_what_to_do_next(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    captured = capsys.readouterr()
    assert "FAIL" in captured.out and "PASS" in captured.out
    assert "divulge audit divulge-demo/predictions.npz" in captured.out
    assert "divulge-demo/overfit.json" in captured.err
    assert Path("divulge-demo/regularised.json").exists()


def test_a_place_that_cannot_be_written_to_is_refused_before_the_training(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("divulge.demo.trained", lambda name: pytest.fail("it trained"))
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "file" / "below")]) == 2
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "DV035" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
