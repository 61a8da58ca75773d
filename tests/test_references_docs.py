"""The lines of docs/references.md run as they stand, in order, in one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from divulge.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "references.md"
TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page's blocks left their files."""
    return tmp_path_factory.mktemp("references")


def test_its_blocks_print_what_it_shows(folder, monkeypatch, capsys) -> None:
    """Words as printed; numbers may differ a little in another version of scikit-learn."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```python") == 6
    for code, shown in blocks:
        exec(compile(code, str(PAGE), "exec"), names)
        found = capsys.readouterr().out
        plain = [re.sub(r"\d+(\.\d+)?", "#", " ".join(text.split())) for text in (found, shown)]
        assert plain[0] == plain[1]
        numbers = [[float(x) for x in re.findall(r"\d\.\d+", text)] for text in (found, shown)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.05, rel=0.2)


def test_its_shell_lines_run_on_what_the_blocks_saved(folder, monkeypatch, capsys) -> None:
    monkeypatch.chdir(folder)
    lines = re.findall(r"^    divulge (.*)$", TEXT, re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        assert main(shlex.split(line)) == 0, line
    assert "lira" in capsys.readouterr().out
