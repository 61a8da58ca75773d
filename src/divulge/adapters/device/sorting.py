"""`divulge.roc.exact` in torch's words: scores, sides and halves packed into one key a record, and one sort."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from divulge.adapters.device.doors import read_member
from divulge.adapters.device.tensors import Tensor
from divulge.errors import InputError
from divulge.roc import TAG_BITS, Roc


def roc_on(
    scores: Tensor,
    member: Tensor,
    halves: Tensor,
    *,
    fitted: bool = False,
    effective: tuple[float, float] = (1.0, 1.0),
) -> Roc:
    """The Roc of all records, every distinct score a threshold, from one sort on the scores' device.

    Thresholds and counts are those of `divulge.roc.exact`. Only they come down to the host: 20 bytes a distinct score,
    24 where float32 cannot hold the scores. On the device it takes about 60 bytes a record beyond the scores, 90 there.

    Args:
        scores: (n,) float tensor, higher = more member-like; NaN counts as the lowest. At most 2**31 - 1 of them.
        member: (n,) bool tensor.
        halves: (n,) uint8 tensor, 0 or 1.
        fitted, effective: see `Roc`.

    Raises:
        InputError: DV003, another shape or type.

    >>> import torch  # doctest: +SKIP
    >>> sides, halves = torch.tensor([True, False, True, False]), torch.tensor([0, 0, 1, 1])  # doctest: +SKIP
    >>> roc_on(torch.tensor([.9, .8, .3, .1]), sides, halves).tp_all.tolist()  # doctest: +SKIP
    [0, 1, 1, 2, 2]
    """
    import torch

    if scores.ndim != 1 or not scores.is_floating_point():
        raise InputError("DV003", f"scores are {scores.dtype} of shape {tuple(scores.shape)}, expected (n,) floats")
    member = read_member(member, scores)
    packed, values = _ranked(scores.detach())
    packed *= 1 << TAG_BITS
    packed |= halves.to(packed.device).long()
    packed |= (~member).long() << 1
    distinct, times = torch.unique(packed, return_counts=True)
    del packed
    key = distinct >> TAG_BITS
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    key = key[new]
    dtype = torch.int32 if len(scores) < torch.iinfo(torch.int32).max else torch.int64
    counts = torch.zeros((4, len(key) + 1), dtype=dtype, device=scores.device)
    place = distinct.bitwise_and_(3).mul_(counts.shape[1])
    place += new.cumsum(0)
    counts.view(-1).scatter_(0, place, times.to(dtype))
    del distinct, place, times, new
    for row in counts:
        row.cumsum_(0)
    kind: np.dtype[Any] = np.dtype(np.float32 if values is None else np.float64)
    thresholds = np.empty(len(key) + 1, kind)
    thresholds[0] = np.inf
    thresholds[1:] = (_from_order(~key) if values is None else values[key]).cpu().numpy()
    of_tags = counts.cpu().numpy()
    totals = of_tags[:, -1].astype(np.int64)
    return Roc(thresholds, of_tags[:2], of_tags[2:], totals[:2], totals[2:], fitted, effective)


def _ranked(scores: Tensor) -> tuple[Tensor, Tensor | None]:
    """`divulge.roc.rank`: (n,) int64 keys, the higher the score the smaller, and the values where they index those."""
    import torch

    narrow = scores.float()
    if scores.dtype == torch.float64 and not bool(((narrow == scores) | scores.isnan()).all()):
        most = torch.finfo(torch.float64).max
        clean = scores.nan_to_num(nan=-math.inf, posinf=most, neginf=-math.inf) + 0.0  # -0.0 + 0.0 = 0.0
        distinct, inverse = torch.unique(-clean, return_inverse=True)
        return inverse, -distinct
    most = torch.finfo(torch.float32).max
    bits = (narrow.nan_to_num(nan=-math.inf, posinf=most, neginf=-math.inf) + 0.0).view(torch.int32)
    return ~(bits ^ ((bits >> 31) & 0x7FFFFFFF)).long(), None


def _from_order(ordered: Tensor) -> Tensor:
    """(u,) float32 of integers in their order: undoes `_ranked`."""
    import torch

    bits = ordered.int()
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)
