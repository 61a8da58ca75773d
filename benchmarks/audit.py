"""How long an audit takes and how much memory, against scipy's log_softmax and scikit-learn's roc_curve.

Both sides run in turn in one process on the same arrays; what counts is the ratio, pair by pair. The baseline is given
the two splits already joined; ours starts from the splits, and gives intervals, both halves, score, tail and findings.

    python benchmarks/audit.py [--scale 1.0] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    title: str
    rows: int  # a side
    classes: int
    slices: tuple[str, ...]
    baseline: str
    limit: float


SIGNALS = ("loss", "modified_entropy")
CASES = {
    "everyone": Case("1,000,000 + 1,000,000 x 10, everyone", 1_000_000, 10, (), "softmax and two curves", 0.5),
    "slices": Case(
        "the same, 23 slices", 1_000_000, 10, ("class", "correct", "loss/10"), "softmax and two curves", 1.0
    ),
    "classes": Case(
        "100,000 + 100,000 x 1,000, 1,013 slices", 100_000, 1000, ("class", "correct", "loss/10"), "softmax", 3.0
    ),
}

Splits = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def make(case: Case, scale: float) -> Splits:
    """Members' and non-members' logits and labels; members a little more confident."""
    rng = np.random.default_rng(0)
    sides = []
    for shift in (0.2, 0.0):
        n = max(int(case.rows * scale), 100 * case.classes if scale < 1 else 0, 2000)
        logits = rng.standard_normal((n, case.classes), dtype=np.float32)
        labels = rng.integers(0, case.classes, n)
        logits[np.arange(n), labels] += np.float32(shift)
        sides.append({"logits": logits, "labels": labels})
    return sides[0], sides[1]


def baseline(splits: Splits, curves: bool) -> Callable[[], None]:
    from scipy.special import log_softmax
    from sklearn.metrics import roc_curve

    logits = np.concatenate([side["logits"] for side in splits])
    labels = np.concatenate([side["labels"] for side in splits])
    member = np.repeat([True, False], [len(side["labels"]) for side in splits])

    def run() -> None:
        log_p = log_softmax(logits, axis=1)
        if curves:
            roc_curve(member, log_p[np.arange(len(labels)), labels])
            roc_curve(member, log_p.max(axis=1))

    return run


def ours(splits: Splits, slices: tuple[str, ...], controls: str | tuple[str, ...] = ()) -> Callable[[], None]:
    import divulge

    def run() -> None:
        evidence = divulge.Evidence.from_splits(*splits)
        divulge.audit(evidence, attacks=SIGNALS, slices=slices, controls=controls)

    return run


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Timed(NamedTuple):
    """Medians of pairs, with the least and the most: audit / baseline, the same with controls, controls / audit."""

    against: str
    controlled: str
    added: str
    seconds: list[float]


def time_case(case: Case, scale: float, repeats: int) -> Timed:
    splits = make(case, scale)
    theirs, mine = baseline(splits, case.baseline != "softmax"), ours(splits, case.slices)
    controlled = ours(splits, case.slices, "default")
    theirs(), mine(), controlled()
    runs = np.array([(seconds(mine), seconds(theirs), seconds(controlled)) for _ in range(repeats)])
    return Timed(
        against=_middle(runs[:, 0] / runs[:, 1]),
        controlled=_middle(runs[:, 2] / runs[:, 1]),
        added=_middle(runs[:, 2] / runs[:, 0] - 1),
        seconds=np.median(runs, axis=0).round(2).tolist(),
    )


def _middle(ratios: np.ndarray) -> str:
    return f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]"


def memory_of(name: str, scale: float) -> dict[str, float]:
    """In this (fresh) process: peak memory of door, audit and controls beyond the caller's arrays, MB."""
    case = CASES[name]
    splits = make(case, scale)
    own = sum(array.nbytes for side in splits for array in side.values())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    ours(splits, case.slices, "default")()
    extra = _status("VmHWM") - before
    return {"arrays": own / 1e6, "extra": extra, "allowed": 1.25 * own / 1e6 + 250}


def _status(key: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", choices=list(CASES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(json.dumps(memory_of(options.memory_of, options.scale)))
        return
    machine = f"Python {platform.python_version()}, numpy {np.__version__}, {platform.machine()}"
    print(f"{machine}; {options.scale:g} of the rows" + (": the bars are for all" if options.scale < 1 else ""))
    for name, case in CASES.items():
        timed = time_case(case, options.scale, options.repeats)
        mine, theirs, controlled = timed.seconds
        print(f"\n{case.title}\n  time:   {timed.against} of {case.baseline}, limit {case.limit}")
        print(f"          with controls {timed.controlled}; they add {timed.added} of the audit, limit 1.00")
        print(f"          seconds: {mine}, with controls {controlled}, {case.baseline} {theirs}")
        if sys.platform == "linux":
            command = [sys.executable, __file__, "--memory-of", name, "--scale", str(options.scale)]
            memory = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                "  memory: {extra:.0f} MB beyond the caller's {arrays:.0f} MB, limit {allowed:.0f} MB".format(**memory)
            )


if __name__ == "__main__":
    main()
