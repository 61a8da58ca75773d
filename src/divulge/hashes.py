"""Hashes of rows: of what they hold, the same in any order and block of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows

Hashes = NDArray[np.uint64]

STEP = np.uint64(0x9E3779B97F4A7C15)
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
"""SplitMix64's numbers. Source: Steele et al. 2014."""


def array_hashes(array: NDArray[Any], seed: int = 0, *, decimals: int | None = None) -> Hashes:
    """(n,) uint64 hashes of the rows of an (n, ...) array of numbers or strings; the same in any order and block.

    Args:
        array: of any dtype.
        seed: another seed, other hashes.
        decimals: round floats so first: rows that differ by rounding errors then mostly agree.

    >>> bool((array_hashes(np.array(["a", "bc"])) == array_hashes(np.array(["a", "bc"], object))).all())
    True
    """
    hasher = hasher_of(array, seed, decimals)
    hashes = np.empty(len(array), np.uint64)

    def block(rows: slice) -> None:
        hashes[rows] = hasher(rows)

    over_rows(block, len(array), max(array[:1].nbytes, 8))
    return hashes


def hasher_of(array: NDArray[Any], seed: int, decimals: int | None = None) -> Callable[[slice], Hashes]:
    """A function from a block of rows to their hashes."""
    if array.dtype.kind in "OUST":
        return _text_hashes(array, seed).__getitem__
    array = array.reshape(len(array), math.prod(array.shape[1:]))
    size = array.dtype.itemsize if decimals is None else np.dtype(np.float32).itemsize
    width = array.shape[1] * size
    word = np.dtype(np.uint64 if width % 8 == 0 else f"u{size}")
    multipliers = odd_numbers(seed, width // word.itemsize)

    def hasher(rows: slice) -> Hashes:
        part = array[rows]
        if decimals is not None:  # in float64: float16 overflows at 6.5 where it is rounded to four digits
            part = np.round(part.astype(np.float64), decimals).astype(np.float32) + 0  # + 0: no -0
        words = np.ascontiguousarray(part).view(word).astype(np.uint64)
        words ^= words >> np.uint64(32)
        words *= MULTIPLIERS[0]
        words ^= words >> np.uint64(32)  # floats of few digits have only high bits: spread them before the sum
        return mix(words @ multipliers)

    return hasher


def odd_numbers(seed: int, count: int) -> Hashes:
    """(count,) random odd uint64, what the words of a row are multiplied by.

    >>> int(odd_numbers(0, 3)[2] % 2)
    1
    """
    random = np.random.default_rng(seed % 2**64).integers(0, 2**63, count, dtype=np.uint64)
    return random * np.uint64(2) + np.uint64(1)


def _text_hashes(array: NDArray[Any], seed: int) -> Hashes:
    """A polynomial in each distinct text's UTF-8 bytes, over Arrow's flat buffer, a part of it at a time."""
    import pyarrow as pa

    # Through objects: of numpy's fixed-width texts Arrow would cut at a NUL.
    items = array.astype(str).astype(object) if array.dtype.kind == "S" else array.astype(object)
    coded = pa.array(items, pa.large_string()).dictionary_encode()
    text = coded.dictionary
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    flat = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    base = np.uint64(int(np.random.default_rng(seed % 2**64).integers(0, 2**62)) * 2 + 1)
    lengths = np.diff(ends)
    powers = np.multiply.accumulate(np.full(max(int(lengths.max(initial=0)), 1), base, np.uint64))
    hashes = np.empty(len(text) + 1, np.uint64)
    hashes[-1] = mix(np.array([base]))[0]  # of what is missing
    start = 0
    while start < len(text):
        stop = max(start + 1, int(np.searchsorted(ends, ends[start] + (1 << 20), side="right")) - 1)
        part, size = flat[ends[start] : ends[stop]].astype(np.uint64) + np.uint64(1), lengths[start:stop]
        place = np.arange(len(part)) - np.repeat(ends[start:stop] - ends[start], size)
        sums = np.zeros(len(part) + 1, np.uint64)
        np.cumsum(part * powers[place], out=sums[1:])
        edges = ends[start : stop + 1] - ends[start]
        hashes[start:stop] = mix(sums[edges[1:]] - sums[edges[:-1]] + size.astype(np.uint64))
        start = stop
    codes = coded.indices.fill_null(len(text)).to_numpy(zero_copy_only=False)
    return np.asarray(hashes[codes])


def mix(x: Hashes) -> Hashes:
    """Every bit of the input reaches every bit of the output. Source: SplitMix64, Steele et al. 2014."""
    x = np.asarray(x + STEP)
    x ^= x >> SHIFTS[0]
    x *= MULTIPLIERS[0]
    x ^= x >> SHIFTS[1]
    x *= MULTIPLIERS[1]
    x ^= x >> SHIFTS[2]
    return x
