"""The hashes of `divulge.folds` in torch's words, bit for bit: int64 with the bits of its uint64."""

from __future__ import annotations

import numpy as np

from divulge.adapters.device.tensors import Tensor, as_numpy_has_it, row_slices
from divulge.hashes import MULTIPLIERS, SHIFTS, odd_numbers
from divulge.hashes import STEP as UNSIGNED_STEP


def _signed(number: np.uint64) -> int:
    """The int64 of a uint64's bits: torch multiplies and adds in int64, modulo 2**64."""
    return int(number.view(np.int64))


STEP = _signed(UNSIGNED_STEP)
_FIRST, _SECOND = map(_signed, MULTIPLIERS)
_SHIFTS = tuple(map(int, SHIFTS))


def content_hashes(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """(n,) int64: the bits of `divulge.identity.content_hashes`."""
    import torch

    made = torch.empty(len(outputs), dtype=torch.int64, device=outputs.device)
    width = outputs[:1].numel()
    for rows in row_slices(len(made), 4 * width):
        block = _words(outputs[rows])
        mixed = mix(torch.zeros_like(made[rows])) + _row_hashes(block, 0)
        if labels is not None:
            mixed = mix(mixed) + _row_hashes(labels[rows, None].clone(), 1)
        made[rows] = mixed
    return made


def _words(block: Tensor) -> Tensor:
    """(b, w) int64, the block's bytes as words of eight bytes if they fit, else of a number's; a copy."""
    import torch

    block = as_numpy_has_it(block).reshape(len(block), -1)
    block = block.clone(memory_format=torch.contiguous_format)  # a view as wider words must start at one
    size = block.element_size()
    if block.shape[1] * size % 8 == 0:
        return block.view(torch.int64)
    return block.view({2: torch.int16, 4: torch.int32}[size]).long() & ((1 << 8 * size) - 1)


def _row_hashes(words: Tensor, seed: int) -> Tensor:
    """(b,) hashes of (b, w) words, overwritten."""
    import torch

    multipliers = torch.from_numpy(odd_numbers(seed, words.shape[1]).view(np.int64)).to(words.device)
    return mix(scrambled(words).mul_(multipliers).sum(dim=1))


def scrambled(words: Tensor) -> Tensor:
    """In place: the high bits of each word spread to the others."""
    words ^= _shifted(words, 32)
    words *= _FIRST
    words ^= _shifted(words, 32)
    return words


def mix(x: Tensor) -> Tensor:
    """Every bit of the input reaches every bit of the output. Source: SplitMix64, Steele et al. 2014."""
    x = x + STEP
    x ^= _shifted(x, _SHIFTS[0])
    x *= _FIRST
    x ^= _shifted(x, _SHIFTS[1])
    x *= _SECOND
    x ^= _shifted(x, _SHIFTS[2])
    return x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits with zeros coming in: torch shifts int64 with its sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)
