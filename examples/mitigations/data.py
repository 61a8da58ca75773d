"""The images: a training set small enough to be learnt by heart, and others that played no part in training."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts them


class Images(NamedTuple):
    """x: (n, height, width, 1) float32 from 0 to 1. y: (n,) int64 classes. ids: (n,) int64."""

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray


class Data(NamedTuple):
    """members: trained on. validation: chooses when to stop, and is not audited. others: the audit's non-members."""

    members: Images
    validation: Images
    others: Images
    flips: bool


def load(name: str, folder: Path, seed: int) -> Data:
    """Images of "fashion" (Fashion-MNIST) or "digits" (scikit-learn's), dealt out at random."""
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        x, y, sizes = images.reshape(-1, 8, 8) / 16, labels, (400, 200, 1000)
    else:
        x, y = (_read(folder / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
        x, sizes = x / 255, (1000, 1000, 5000)
    order = np.random.default_rng(seed).permutation(len(x))
    ends = np.cumsum((0, *sizes))
    parts = [order[start:stop] for start, stop in itertools.pairwise(ends)]
    images = (Images(x[rows, ..., None].astype(np.float32), y[rows].astype(np.int64), rows) for rows in parts)
    return Data(*images, flips=name == "fashion")


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise SystemExit(
            f"expected Fashion-MNIST at {path}: install Debian's package dataset-fashion-mnist, name the folder of its "
            "four .gz files with --fashion, or take --data digits"
        )
    content = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def augmented(x: np.ndarray, flips: bool, rng: np.random.Generator) -> np.ndarray:
    """Each image moved by up to two pixels each way (small ones by one), half of them mirrored if asked."""
    n, height, width, _ = x.shape
    most = 2 if height > 10 else 1
    down, right = rng.integers(0, 2 * most + 1, (2, n))
    padded = np.pad(x, ((0, 0), (most, most), (most, most), (0, 0)))
    rows = down[:, None] + np.arange(height)
    columns = right[:, None] + np.arange(width)
    if flips:
        mirrored = rng.random(n) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    return padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
