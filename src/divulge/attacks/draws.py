"""Random numbers of each row by a key of its own: the same whichever rows stand beside it, in any order and block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.hashes import STEP, Hashes, mix


def stream(keys: Hashes, number: int) -> Hashes:
    """(b,) other hashes for each number: streams that have nothing to do with each other."""
    return mix(keys ^ mix(np.array([number], np.uint64)))


def uniforms(keys: Hashes, width: int) -> NDArray[np.float32]:
    """(b, width) float32 in [0, 1), of 24 bits; a row's depend on its key alone.

    Source: SplitMix64 from the key on, Steele et al. 2014.

    >>> round(float(uniforms(np.arange(1000, dtype=np.uint64), 100).mean()), 2)
    0.5
    """
    steps = np.arange((width + 1) // 2, dtype=np.uint64) * STEP
    numbers = np.empty((len(keys), 2 * len(steps)), np.float32)

    def block(rows: slice) -> None:
        words = mix(keys[rows, None] + steps).view(np.uint32)
        np.multiply(words >> np.uint32(8), np.float32(2**-24), out=numbers[rows])

    over_rows(block, len(keys), 8 * max(len(steps), 1))
    return numbers[:, :width]


def normals(keys: Hashes, width: int) -> NDArray[np.float32]:
    """(b, width) standard normal float32, within 5.8; a row's depend on its key alone.

    Source: Box and Muller 1958.

    >>> round(float(normals(np.arange(1000, dtype=np.uint64), 100).std()), 2)
    1.0
    """
    half = (width + 1) // 2
    numbers = uniforms(keys, 2 * half)

    def block(rows: slice) -> None:
        radius = np.sqrt(-2 * np.log1p(-numbers[rows, :half]))
        angle = np.float32(2 * np.pi) * numbers[rows, half:]
        numbers[rows, :half], numbers[rows, half:] = radius * np.cos(angle), radius * np.sin(angle)

    over_rows(block, len(keys), 8 * max(half, 1))
    return numbers[:, :width]
