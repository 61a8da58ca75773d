"""Which rows make up each mini-batch: fixed by a seed alone, the same for one model as for many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


class Batch(NamedTuple):
    """One step of b models.

    Attributes:
        rows: (b, k) int64, of the data; of one order for all: (k,).
        weight: (b, k) float32, what each row's loss is multiplied by before all are summed: 1 / the number of rows
            that count, and 0 for those that do not.
    """

    rows: Rows
    weight: NDArray[np.float32]


def own(rows: Sequence[Rows], seeds: Sequence[int], epoch: int, size: int) -> list[Batch]:
    """One epoch in which each model goes through its own rows in an order of its own; the last batch may be shorter.

    Args:
        rows: (m,) of each of b models; all take the same number of batches.
        seeds: of each model.
        epoch: from 0.
        size: rows a batch. Where the last batches differ in length, the shorter are filled with rows of weight 0.

    >>> [batch.rows.tolist() for batch in own([np.array([3, 5, 8])], [0], 0, 2)]
    [[[8, 3]], [[5]]]
    """
    orders = [part[shuffled(len(part), seed, epoch)] for part, seed in zip(rows, seeds, strict=True)]
    full = (max(map(len, orders)) - 1) // size  # batches that no model fills up
    batches = []
    for start in range(0, full * size, size):
        index = np.stack([order[start : start + size] for order in orders])
        batches.append(Batch(index, np.full(index.shape, 1 / size, np.float32)))
    ends = [order[full * size :] for order in orders]
    width = max(map(len, ends))
    index = np.stack([np.concatenate([end, np.full(width - len(end), end[0])]) for end in ends])
    counts = np.array([[len(end)] for end in ends])
    batches.append(Batch(index, np.where(np.arange(width) < counts, 1 / counts, 0).astype(np.float32)))
    return batches


def shared(trained_on: NDArray[np.bool_], order_seed: int, epoch: int, size: int) -> list[Batch]:
    """One epoch in which all models go through all rows in one order; a row counts for the models trained on it.

    Args:
        trained_on: (b, n).
        order_seed: of the order, for all models that are trained alike.
        epoch: from 0.
        size: rows a batch, of all models together.

    >>> [batch.weight.tolist() for batch in shared(np.array([[True, False, True]]), 0, 0, 2)]
    [[[0.5, 0.5]], [[0.0]]]
    """
    order = shuffled(trained_on.shape[1], order_seed, epoch)
    batches = []
    for start in range(0, len(order), size):
        index = order[start : start + size]
        counts = trained_on[:, index]
        weight = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        batches.append(Batch(index, weight.astype(np.float32)))
    return batches


def shuffled(count: int, seed: int, epoch: int) -> Rows:
    """(count,) the numbers below count in the order of this epoch.

    >>> shuffled(4, seed=0, epoch=1).tolist()
    [3, 0, 2, 1]
    """
    return np.random.default_rng((seed, epoch)).permutation(count)
