"""The lines of docs/attacks.md run as they stand, in order, in one folder; its tables name what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from divulge import Evidence, Report
from divulge.attacks import BUDGETS, named
from divulge.attacks.classifiers import MODELS
from divulge.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's blocks left their file."""
    return tmp_path_factory.mktemp("attacks")


def test_its_blocks_print_what_it_shows(folder, monkeypatch, capsys) -> None:
    """Words as printed; numbers may differ in another version of scikit-learn."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```python") == 3
    for code, shown in blocks:
        exec(compile(code, str(PAGE), "exec"), names)
        plain = [re.sub(r"\d\.\d+", "#", " ".join(text.split())) for text in (capsys.readouterr().out, shown)]
        assert plain[0] == plain[1]
    loss, knowing, watching, asking = (
        names["report"].estimate("auc", attack=name).value
        for name in ("loss", "learned(logistic, typo)", "traces(slope)", "label_only")
    )
    assert min(knowing, watching) > loss + 0.03 and loss > asking > 0.5


def test_its_shell_lines_run_on_what_the_blocks_saved(folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    lines = re.findall(r"^    divulge (.*)$", TEXT, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        assert main([*shlex.split(line), "--json", "run.json"]) == 0, line
    ran = [row["attack"] for row in Report.load("run.json").rows("attacks") if row["status"] == "ran"]
    assert set(ran) >= {"loss", "learned(logistic, typo)", "label_only", "traces(slope)"}
    assert "label_only" in capsys.readouterr().out


@pytest.mark.default_budget
def test_its_tables_name_every_attack_that_a_budget_runs() -> None:
    n = np.arange(4)
    fields: dict[str, Any] = {"labels": n % 2, "features": np.zeros((4, 1)), "traces": np.zeros((4, 2))}
    evidence = Evidence(n < 2, outputs=np.zeros((4, 2)), kind="logits", **fields)
    words = {word for code in re.findall(r"`([^`]+)`", TEXT) for word in re.findall(r"\w+", code)}
    for attack in BUDGETS["thorough"](evidence):
        assert set(re.findall(r"\w+", str(attack))) <= words, attack
    quick, default = ({str(attack) for attack in BUDGETS[name](evidence)} for name in ("quick", "default"))
    assert all(f"`{name}`" in TEXT for name in default)
    rows = dict(re.findall(r"^\| `(quick|default|thorough)`[^|]* \| (.*?) \|", TEXT, re.MULTILINE))
    assert set(re.findall(r"`(.*?)`", rows["quick"])) == quick
    assert set(re.findall(r"`(.*?)`", rows["default"])) == default - quick
    assert all(named(f"learned({model})", evidence) for model in MODELS)
