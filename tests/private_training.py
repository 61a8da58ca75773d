"""What the tests of private training share: a toy, Poisson samples' moments, a canary, the documentation's code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from divulge.empirical_epsilon import epsilon_clopper_pearson

DOCUMENT = Path(__file__).parent.parent / "docs" / "private-training.md"
TRIALS = 200  # a world; 400 trainings can show an epsilon of up to 3.9
CANARY = {"clip": 1.0, "noise": 2.0, "records": 20, "batch_size": 10, "delta": 1e-5}
CANARY_STEPS = 4


def toy(n=400, seed=0):
    """(n, 8) float32 and a class that the first feature tells."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    return x, (x[:, 0] + 0.2 * rng.normal(size=n) > 0).astype(np.int64)


def canary_data(canary):
    """Records of a least-squares fit through 0; the last is an outlier on a feature of its own, or nothing."""
    rng = np.random.default_rng(1)
    x = np.zeros((CANARY["records"], 4), np.float32)
    x[:-1, :3] = rng.normal(size=(CANARY["records"] - 1, 3))
    y = x[:, :1] * 0.5
    if canary:  # where it is not, its gradient is 0: as if the record were not there
        x[-1, 3], y[-1] = 1.0, 100.0
    return x, y.astype(np.float32)


def shown_epsilon(without, with_canary):
    """Lower bound (95 %) on epsilon from the canary's weight at the end of each training.

    The threshold is fixed: three standard deviations of the noise that so many steps add.
    """
    threshold = 3 * CANARY["noise"] * CANARY["clip"] / CANARY["batch_size"] * np.sqrt(CANARY_STEPS)
    counts = int((with_canary > threshold).sum()), len(with_canary), int((without > threshold).sum()), len(without)
    return epsilon_clopper_pearson(*counts, alpha=0.05, delta=CANARY["delta"])


def assert_poisson(draws, records, rate):
    """Sizes are binomial, every record comes at the rate, and two records come independently."""
    n = len(draws)
    drawn = np.zeros((n, records), bool)
    for row, draw in zip(drawn, draws, strict=True):
        assert len(set(draw)) == len(draw)
        row[draw] = True
    sizes, variance = drawn.sum(1), records * rate * (1 - rate)
    assert abs(sizes.mean() - records * rate) < 4.5 * np.sqrt(variance / n)
    assert abs(sizes.var() / variance - 1) < 4.5 * np.sqrt(2 / n)
    assert np.abs(drawn.mean(0) - rate).max() < 5 * np.sqrt(rate * (1 - rate) / n)
    apart = np.corrcoef(drawn.T) - np.eye(records)
    assert np.abs(apart).max() < 6 / np.sqrt(n)
    later = np.corrcoef(drawn[1:, 0], drawn[:-1, 0])[0, 1]
    assert abs(later) < 5 / np.sqrt(n)


def is_noise(draws, deviation):
    """Whether draws have mean 0, this standard deviation and a Gaussian's tails."""
    z = np.asarray(draws, np.float64).ravel() / deviation
    n = z.size
    return bool(
        abs(z.mean()) < 4.5 / np.sqrt(n)
        and abs(z.var() - 1) < 4.5 * np.sqrt(2 / n)
        and abs((z**4).mean() - 3) < 4.5 * np.sqrt(96 / n)
    )


def documented(heading):
    """The first block of Python under a heading of docs/private-training.md."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]
