"""Tensors, taken by blocks of rows so that temporaries stay small, and the type that they are worked on in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Tensor = Any  # of torch, which may not be installed

BLOCK_NUMBERS = 1 << 24
"""Numbers of a block of outputs: with its temporaries in float32 and float64 it takes about 1.3 GB at most."""


def row_slices(rows: int, width: int) -> Iterator[slice]:
    """Consecutive slices that cover the rows, about `BLOCK_NUMBERS` numbers each."""
    step = max(1, BLOCK_NUMBERS // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def working_dtype(outputs: Tensor) -> Any:
    """float64 stays, all else is worked on as float32."""
    import torch

    return torch.float64 if outputs.dtype == torch.float64 else torch.float32


def as_numpy_has_it(block: Tensor) -> Tensor:
    """bfloat16, which numpy lacks, as float32."""
    import torch

    return block.float() if block.dtype == torch.bfloat16 else block
