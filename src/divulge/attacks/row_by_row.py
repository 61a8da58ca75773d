"""What is learned on a sample and applied row by row: of a record the same bits in any block and order.

Edges of bins and limits of values are learned; sums go from left to right, since those of BLAS and numpy depend on how
many rows there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.knowledge import Table
from divulge.blocks import BLOCK_BYTES, in_parallel_alone
from divulge.identity import row_hashes
from divulge.signals import compute

if TYPE_CHECKING:
    from divulge.evidence import Evidence

BINS = 255
LOOKED_AT, OUTERMOST = 10_000, 0.001
ROWS = 8192  # that a fitted attack scores at a time, at most


def in_canonical_order(evidence: Evidence) -> NDArray[np.int64]:
    """(n,) the rows in an order that does not depend on the one they came in: sums of floats then agree to the bit.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.arange(6) < 3, ids=np.array([5, 0, 4, 1, 3, 2]))
    >>> bool((evidence.ids[in_canonical_order(evidence)] == [5, 0, 4, 1, 3, 2]).all())
    False
    """
    return np.argsort(row_hashes(replace(evidence, groups=None), 0), kind="stable")


def steady(evidence: Evidence) -> Evidence:
    """The same records with their outputs as float64 in rows: what is computed of one is its own then.

    Of float32, a block's surest record decides whether the loss of all of them is told in float64.

    >>> from divulge.evidence import Evidence
    >>> steady(Evidence(np.array([True]), outputs=np.zeros((1, 2), np.float32), kind="logits")).outputs.dtype.name
    'float64'
    """
    outputs = evidence.outputs
    wide = None if outputs is None else np.ascontiguousarray(outputs, np.float64)
    return replace(evidence, outputs=wide, references=None, traces=None)


def row_by_row(score: Callable[[Evidence], NDArray[np.floating[Any]]], evidence: Evidence) -> NDArray[np.floating[Any]]:
    """(n,) float64 scores of `steady` records, some at a time: no more memory for many rows than for few.

    Never one at a time: numpy adds the classes of a lone row in another order.

    Args:
        score: of a row it says the same whatever other rows there are, if at least one.
        evidence: n records.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), signals={"mine": np.array([1., 3.])})
    >>> row_by_row(lambda rows: rows.signals["mine"], evidence).tolist()
    [1.0, 3.0]
    """
    width = 1 if evidence.outputs is None or evidence.outputs.ndim == 1 else evidence.outputs.shape[1]
    step = min(ROWS, max(256, BLOCK_BYTES // (8 * width)))  # no more than `compute` takes at a time
    scores, bare = np.empty(len(evidence)), replace(evidence, references=None, traces=None)

    def block(start: int) -> None:
        rows = slice(start, min(start + step, len(evidence)))
        alone = rows.stop - start == 1
        scores[rows] = score(steady(bare.take([start, start] if alone else rows)))[: rows.stop - start]

    in_parallel_alone(block, range(0, len(evidence), step))
    return scores


def signals_row_by_row(evidence: Evidence, name: str) -> NDArray[np.floating[Any]]:
    """(n,) float64 signal; of a row the same bits in any block and order, if it is computed here and not given.

    >>> from divulge.evidence import Evidence
    >>> z = np.array([[2., 0.], [0., 1.]], np.float32)
    >>> evidence = Evidence(np.array([True, False]), outputs=z, labels=np.array([0, 0]), kind="logits")
    >>> signals_row_by_row(evidence, "log_odds").tolist()
    [2.0, -1.0]
    """
    return row_by_row(lambda rows: compute(rows, [name])[name], evidence)


def product(x: NDArray[Any], w: NDArray[Any]) -> NDArray[np.float64]:
    """(n, k) float64 x @ w, each row summed from left to right: BLAS's order depends on how many rows there are.

    Args:
        x: (n, d).
        w: (d, k).

    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).tolist()
    [[11.0]]
    """
    found = np.zeros((w.shape[1], len(x)))
    columns, w = np.ascontiguousarray(x.T, np.float64), w.astype(np.float64)
    step = max(256, 16_384 // max(1, w.shape[1]))  # what is added up stays in the cache
    for rows in (slice(start, start + step) for start in range(0, len(x), step)):
        for column, weights in zip(columns, w, strict=True):
            found[:, rows] += weights[:, None] * column[rows]
    return found.T


def binned(table: Table, edges: list[NDArray[np.float32]] | None = None) -> Table:
    """Each column's values as the number of one of at most 255 bins of about as many rows; NaN stays.

    Boosting bins them anyway, but where rows have weights takes many times as long for it as for its trees.

    Args:
        table: (n, d).
        edges: `bin_edges` of another table; None: of this one.

    >>> binned(np.array([[0.5], [7.0], [0.5], [np.nan]], np.float32)).ravel().tolist()
    [0.0, 1.0, 0.0, nan]
    """
    found = np.full(table.shape, np.nan, np.float32)
    for at, (column, inner) in enumerate(zip(table.T, bin_edges(table) if edges is None else edges, strict=True)):
        known = np.isfinite(column)
        found[known, at] = np.searchsorted(inner, column[known], side="right")
    return found


def bin_edges(table: Table) -> list[NDArray[np.float32]]:
    """For each column its (at most 254,) rising inner edges: a value belongs to the bin that its edge opens.

    >>> [edges.tolist() for edges in bin_edges(np.array([[0.5], [7.0], [0.5], [np.nan]], np.float32))]
    [[7.0]]
    """
    found = []
    for column in table.T:
        column = column[np.isfinite(column)]
        inner = column[:0]
        if len(column):
            inner = np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1], method="higher")
            inner = np.unique(inner[inner > column.min()])
        found.append(inner)
    return found


def tame(table: Table, limits: tuple[Table, Table] | None = None) -> None:
    """Bring values that lie far out nearer, in place: one of them would rule the scale of all others.

    To at most four times as far from a column's median as its outermost thousandth, on either side; columns of which a
    thousandth or less differs from the median stay as they are.

    Args:
        table: (n, d), finite.
        limits: `outer_limits` of another table; None: of this one.

    >>> values = np.append(np.linspace(-1, 1, 1001), 1e6).astype(np.float32)[:, None]
    >>> tame(values)
    >>> round(float(values.max()))
    4
    """
    least, most = outer_limits(table) if limits is None else limits
    np.clip(table, least, most, out=table)


def outer_limits(table: Table) -> tuple[Table, Table]:
    """The (d,) least and (d,) largest value that `tame` leaves in each column.

    Args:
        table: (n, d), finite, its rows in an order that says nothing: of many, 10,000 are looked at.

    >>> least, most = outer_limits(np.linspace(-1, 1, 1001, dtype=np.float32)[:, None])
    >>> most.round().tolist()
    [4.0]
    """
    ordered = np.sort(np.ascontiguousarray(table[:: -(-len(table) // LOOKED_AT)].T), axis=1)
    last = ordered.shape[1] - 1
    middle = ordered[:, last // 2]
    low, high = ordered[:, math.ceil(OUTERMOST * last)], ordered[:, math.floor((1 - OUTERMOST) * last)]
    least = np.where(low < middle, middle - 4 * (middle - low), -np.inf)
    most = np.where(high > middle, middle + 4 * (high - middle), np.inf)
    return least.astype(np.float32), most.astype(np.float32)
