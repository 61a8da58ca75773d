"""How long a learned attack takes, against one scikit-learn fit of its own classifier on the features that it sees.

The attack makes the features, fits five times on four fifths of the rows and scores every row. Both sides run in turn
in one process on the same rows; what counts is the ratio, pair by pair.

    python benchmarks/learned.py [--scale 1.0] [--repeats 5] [--only logistic]
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable

import numpy as np
import sklearn
from threadpoolctl import threadpool_info

from divulge import Evidence
from divulge.attacks.learned import Learned

LIMITS = {"logistic": 5.0, "boosting": 15.0}
ROWS, CLASSES = 100_000, 10  # rows a side


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
        attack.estimator(0, len(evidence)).fit(table, evidence.member)

    return run


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=tuple(LIMITS), nargs="+", default=list(LIMITS))
    options = parser.parse_args()
    evidence = make(max(int(ROWS * options.scale), 100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Learned("boosting")(evidence.take(slice(None, None, 100)), np.random.default_rng(0))  # loads the libraries
    threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    machine = f"Python {platform.python_version()}, scikit-learn {sklearn.__version__}, {platform.machine()}"
    print(f"{machine}; at most {threads} thread(s) a fit; {len(evidence):,} rows x {CLASSES}")
    for model in options.only:
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
