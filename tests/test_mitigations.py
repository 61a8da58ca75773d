"""examples/mitigations on digits, as its first lines say: trained, audited and written with each framework."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import divulge
from divulge.series import Series

EXAMPLE = Path(__file__).parent.parent / "examples/mitigations"
NEEDS = {"torch": ("torch", "opacus"), "keras": ("keras", "tensorflow", "dp_accounting")}


@pytest.mark.slow
@pytest.mark.parametrize("framework", NEEDS)
def test_on_digits(framework, require, tmp_path) -> None:
    for name in NEEDS[framework]:
        require(name)
    command = [sys.executable, str(EXAMPLE / "mitigations.py"), "--data", "digits", "--framework", framework]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run([*command, "--out", tmp_path], capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / framework
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (folder / "table.md").read_text().splitlines()]
    table = {row[0]: row for row in rows[2:]}
    assert len(table) == 7 and all(len(row) == len(rows[0]) for row in rows)
    # More noise, less epsilon; the figure is that of the accounting, for the steps that the example takes.
    epsilons = [float(re.match(r"[\d.]+", table[f"DP-SGD, noise {noise}"][5])[0]) for noise in ("0.3", "0.7", "1.3")]
    assert epsilons == sorted(epsilons, reverse=True) and all(epsilon > 1 for epsilon in epsilons)
    assert [row[5] for name, row in table.items() if not name.startswith("DP")] == ["none"] * 4
    # Without defence the model leaks credibly, and reads new digits well all the same.
    reports = {path.stem: divulge.Report.load(path) for path in (folder / "defences").iterdir()}
    assert len(reports) == 7
    none, noisy = reports["no-defence"], reports["DP-SGD-noise-1.3"]
    assert none.score.low > 0 and none.estimate("nonmember_accuracy").value > 0.95
    assert noisy.score.value < none.score.value
    assert noisy.estimate("nonmember_accuracy").value < none.estimate("nonmember_accuracy").value
    series = Series.load(folder / "epochs")
    assert series.axis == "epoch" and list(series.steps) == sorted(series.steps) and len(series) >= 4
    assert json.loads((folder / "epochs/series.json").read_text())["schema"] == "divulge-series-1"
    for name in ("epochs.html", "defences.html", "epochs.png", "defences.png"):
        assert (folder / name).stat().st_size > 10_000
