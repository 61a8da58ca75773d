"""The lines of docs/any-size.md run as they stand, in one folder; its commands are the program's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from divulge.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "any-size.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_its_block_prints_what_it_shows_and_its_command_runs_on_what_it_saved(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    ((code, shown),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert capsys.readouterr().out == shown
    first, *others = re.findall(r"^    divulge (.*?)(?:  +#.*)?$", TEXT, re.MULTILINE)
    assert main(shlex.split(first)) == 0
    assert "class=" in capsys.readouterr().out
    assert len(others) == 2 and all("--engine ray" in command for command in others)
