"""The README's lines run as they stand, in order, in one folder; so do those of docs/reports.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from divulge.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """The indented lines that call divulge, without what follows a #."""
    lines = re.findall(r"^    (divulge .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.default_budget
def test_the_lines_run_in_order(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    first, second = fenced(README, "python")
    exec(compile(first, "README", "exec"), names)
    (policy,) = fenced(README, "toml")
    audit, gated, gate, compare = commands(README)
    assert main(audit) == 0  # nothing is gated yet
    assert Path("privacy.html").stat().st_size > 50_000 and Path("run.json").exists()
    exec(compile(second, "README", "exec"), names)
    assert names["report"].score.low < 0 and Path("roc.png").exists()
    Path("divulge.toml").write_text(policy, encoding="utf-8")
    assert main(gated) == main(gate) == 3  # 100 records a class and side are too few for a limit on slices
    assert "::error title=divulge%3A INCONCLUSIVE" in capsys.readouterr().out
    for name in ("before", "after"):
        Path("run.json").rename(f"{name}.json")
        Path("predictions.npz").rename(f"{name}.npz")
        exec(compile(first, "README", "exec"), names)
        assert main(["audit", "predictions.npz", "--no-policy", "--json", "run.json", "-q"]) == 0
    capsys.readouterr()
    assert main(compare[:5]) == 0 and Path("compare.html").exists()
    assert main(compare) == 2  # there are no ids to pair by, and it says so
    assert "DV066" in capsys.readouterr().err


def test_it_is_short_and_shows_the_picture_on_its_first_screen() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    at = next(number for number, line in enumerate(lines) if "<img" in line)
    assert at < 20 and (ROOT / "docs/report.png").stat().st_size < 200_000
    assert all((ROOT / link).exists() for link in re.findall(r"\]\(([^)#:]+)\)", README))


@pytest.mark.default_budget
def test_the_picture_shows_the_figures_that_the_text_beside_it_says(tmp_path) -> None:
    from divulge.demo import demonstrate

    reports = demonstrate(tmp_path).reports
    for report in reports.values():
        score, right = report.score, report.estimate("nonmember_accuracy").value
        assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in README
        assert f"{100 * right:.1f} %" in README


def test_the_pictures_of_the_docs_are_drawn(tmp_path, monkeypatch) -> None:
    from reports import leaking

    monkeypatch.chdir(tmp_path)
    (block,) = fenced((ROOT / "docs/reports.md").read_text(encoding="utf-8"), "python")
    exec(compile(block, "docs/reports.md", "exec"), {"report": leaking()})
    assert Path("slices.png").stat().st_size > 5_000
