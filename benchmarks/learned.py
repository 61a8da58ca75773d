"""How long learned attacks and budgets take.

A learned attack is held against one scikit-learn fit of its own classifier on the features that it sees: it makes the
features, fits five times on four fifths of the rows and scores every row. A budget is held against the quick one: a
whole audit, with and without controls, and the memory beyond the caller's arrays. All run in turn in one process on the
same rows; what counts is the ratio, pair by pair.

    python benchmarks/learned.py [--scale 1.0] [--repeats 5] [--only logistic boosting budgets]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from threadpoolctl import threadpool_info

from divulge import Evidence, audit
from divulge.attacks import BUDGETS
from divulge.attacks.learned import Learned

LIMITS = {"logistic": 5.0, "boosting": 15.0}
ROWS, CLASSES = 100_000, 10  # rows a side
AUDITED = {"quick": (1_000, 100_000, 1_000_000), "default": (1_000, 100_000, 1_000_000), "thorough": (1_000, 20_000)}


def make(rows: int) -> Evidence:
    """Members a little more confident."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2 * rows, CLASSES), dtype=np.float32)
    labels = rng.integers(0, CLASSES, 2 * rows)
    member = np.arange(2 * rows) < rows
    logits[np.arange(2 * rows), labels] += np.where(member, np.float32(0.2), np.float32(0))
    return Evidence(member, outputs=logits, labels=labels, kind="logits")


def one_fit(attack: Learned, evidence: Evidence) -> Callable[[], None]:
    """A fit on all rows, of features that are there already, by scikit-learn as it comes: with its own threads."""
    table = attack.table(evidence)

    def run() -> None:
        attack.estimator(evidence, 0, len(table)).fit(table, evidence.member)

    return run


def of_budget(budget: str, rows: int, repeats: int) -> None:
    """Times of audits against the quick one on the same rows; and, in a process of its own, the memory."""
    evidence = make(rows)
    took = {}
    for controls in ((), "default"):
        plain, own = (lambda b=b, c=controls: audit(evidence, attacks=b, controls=c) for b in ("quick", budget))
        plain(), own()
        took[controls] = np.array([(seconds(own), seconds(plain)) for _ in range(repeats)])
    ratios = [f"{np.median(runs[:, 0] / runs[:, 1]):.1f}" for runs in took.values()]
    times = [f"{np.median(runs[:, 0]):.2f}" for runs in took.values()]
    command = [sys.executable, __file__, "--memory", budget, str(rows)]
    memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    print(
        f"{budget}, {rows:,} a side: {' / '.join(times)} s without / with controls, "
        f"{' / '.join(ratios)} times quick; {memory}",
        flush=True,
    )


def memory_of(budget: str, rows: int) -> None:
    """In this (fresh) process: peak memory of an audit with controls beyond the caller's arrays, MB."""
    evidence = make(rows)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    audit(evidence, attacks=budget)
    print(f"{_status('VmHWM') - before:.0f} MB")


def _status(key: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=(*LIMITS, "budgets"), nargs="+", default=[*LIMITS, "budgets"])
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        memory_of(options.memory[0], int(options.memory[1]))
        return
    evidence = make(max(int(ROWS * options.scale), 100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Learned("boosting")(
            evidence.take(slice(None, None, max(len(evidence) // 2_000, 1))), np.random.default_rng(0)
        )  # loads the libraries
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    machine = f"Python {platform.python_version()}, scikit-learn {sklearn.__version__}, {platform.machine()}"
    print(f"{machine}; at most {threads} thread(s) a fit; {len(evidence):,} rows x {CLASSES}")
    if "budgets" in options.only:
        for budget in BUDGETS:
            for rows in dict.fromkeys(max(int(rows * options.scale), 200) for rows in AUDITED[budget]):
                of_budget(budget, rows, options.repeats if rows < 10**6 else 1)
    for model in (name for name in options.only if name in LIMITS):
        attack = Learned(model)
        alone = one_fit(attack, evidence)
        whole = lambda attack=attack: attack(evidence, np.random.default_rng(0))  # noqa: E731
        alone(), whole()
        runs = np.array([(seconds(whole), seconds(alone)) for _ in range(options.repeats)])
        ratio = runs[:, 0] / runs[:, 1]
        ours, theirs = np.median(runs, axis=0)
        print(
            f"{attack}: {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] of one fit, "
            f"limit {LIMITS[model]:g}; seconds: {ours:.2f} and {theirs:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
