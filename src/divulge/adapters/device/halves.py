"""Ids, copies and the digest, as `divulge.identity` and `divulge.copies` have them, from one sort; then the halves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from divulge import folds
from divulge.adapters.device.doors import read, read_member
from divulge.adapters.device.hashes import STEP, content_hashes, mix, scrambled
from divulge.adapters.device.tensors import Tensor, as_numpy_has_it, row_slices
from divulge.copies import MOST_COPIES, SURE, are_copies
from divulge.evidence import Evidence
from divulge.hashes import odd_numbers
from divulge.identity import HASHES, digest_text


def halves_on(outputs: Tensor, labels: Tensor | None, member: Tensor, *, kind: str = "logits", seed: int = 0) -> Tensor:
    """The half of each record on which thresholds are chosen or measured, from hashes computed on the device.

    The same as `audit` deals out, bit for bit: `divulge.folds.halves` of the evidence with copies grouped. A side of
    fewer than `folds.EXACT_BELOW` records (or groups of copies) is dealt out by that function itself.

    Beyond the outputs it takes about 50 bytes a record to sort the hashes, 90 where nearly all of them are copies.

    Args:
        outputs, labels, kind: as for `signals_on`.
        member: (n,) bool tensor or array.
        seed: another seed, another split.

    Returns:
        (n,) uint8 tensor on the device, 0 or 1.

    Raises:
        InputError: as `signals_on`.

    >>> import torch  # doctest: +SKIP
    >>> z = torch.sin(torch.arange(16.)).reshape(8, 2)  # doctest: +SKIP
    >>> halves_on(z, None, torch.arange(8) < 4)[:4].sum().item()  # doctest: +SKIP
    2
    """
    outputs, labels = read(outputs, labels, kind)
    member = read_member(member, outputs)
    return halves_of(identified(outputs, labels, member, kind), member, seed)


class Identified(NamedTuple):
    """(n,) int64 ids and groups of copies, if any; digest, shares, units.

    units: how many members (or groups of their copies) there are, and how many non-members.
    """

    ids: Tensor
    groups: Tensor | None
    digest: str
    effective: tuple[float, float]
    units: tuple[int, int]


def identified(outputs: Tensor, labels: Tensor | None, member: Tensor, kind: str) -> Identified:
    """`identified`, `with_copies_grouped`, `digest` and `effective_shares`, from one sort."""
    import torch

    contents = content_hashes(outputs, labels)
    ids, sums = torch.empty_like(contents), [0, 0]
    for rows in row_slices(len(ids), 8):
        ids[rows] = mix(contents[rows] ^ member[rows])
        sums[0] += int(ids[rows].sum())
        sums[1] += int(mix(ids[rows]).sum())
    digest = digest_text(np.array([total % 2**64 for total in sums], HASHES))
    members = int(member.sum())
    units = members, len(member) - members

    ordered, order = torch.sort(contents, stable=True)
    del contents
    equal = ordered[1:] == ordered[:-1]
    edge = equal.new_zeros(1)
    in_run = (torch.cat([edge, equal]) | torch.cat([equal, edge])).nonzero()[:, 0]
    if not len(in_run):
        return Identified(ids, None, digest, (1.0, 1.0), units)
    contents, rows = ordered[in_run], order[in_run]
    del ordered, order, equal, in_run

    first = torch.cat([torch.ones_like(edge), contents[1:] != contents[:-1]])
    starts, run = first.nonzero()[:, 0], first.long().cumsum(0) - 1
    inside = member[rows]
    before = inside.long().cumsum(0) - inside.long()
    before -= before[starts][run]  # members of the same content that come before
    place = torch.arange(len(run), device=run.device) - starts[run]
    occurrence = torch.where(inside, before, place - before)
    del before, place, first
    m = torch.zeros_like(starts).index_add_(0, run, inside.long())
    n = torch.bincount(run, minlength=len(m)) - m
    sided = mix(contents ^ inside)
    again = torch.where(inside, m[run], n[run]) > 1
    ids[rows[again]] = mix(sided[again] + occurrence[again] * STEP)

    few = (m + n <= MOST_COPIES)[run]
    if kind == "probs":
        few &= ~_sure(outputs, rows)
    copied = torch.zeros_like(m, dtype=torch.bool)
    copied[run[few]] = True
    m, n = m[copied], n[copied]
    if not are_copies(m.double(), n.double()):  # a share of torch's whole numbers would be float32
        return Identified(ids, None, digest, (1.0, 1.0), units)
    groups = ids.clone()
    groups[rows[few]] = sided[few]
    shares = [
        float(side / (side - int(sizes.sum()) + int(sizes.square().sum())))
        for side, sizes in zip(units, (m, n), strict=True)
    ]
    fewer = [side - int(sizes.sum()) + int((sizes > 0).sum()) for side, sizes in zip(units, (m, n), strict=True)]
    return Identified(ids, groups, digest, (shares[0], shares[1]), (fewer[0], fewer[1]))


def _sure(outputs: Tensor, rows: Tensor) -> Tensor:
    """(r,) which of these rows hold a probability of 1."""
    import torch

    sure = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
    for part in row_slices(len(rows), outputs[:1].numel()):
        block = as_numpy_has_it(outputs[rows[part]])
        highest = block.reshape(len(block), -1).amax(dim=1)
        sure[part] = highest >= torch.tensor(SURE, dtype=block.dtype, device=block.device)
    return sure


def halves_of(found: Identified, member: Tensor, seed: int) -> Tensor:
    """(n,) uint8 from the hashes' first bit; a small side is dealt out evenly by `divulge.folds`."""
    import torch

    of_unit = found.ids if found.groups is None else found.groups
    half = torch.empty(len(member), dtype=torch.uint8, device=member.device)
    multiplier = int(odd_numbers(seed, 1).view(np.int64)[0])
    for rows in row_slices(len(half), 8):
        half[rows] = mix(scrambled(of_unit[rows].clone()).mul_(multiplier)) < 0
    for side, units in zip((member, ~member), found.units, strict=True):
        if 0 < units < folds.EXACT_BELOW:
            at = side.nonzero()[:, 0]
            groups = None if found.groups is None else _down(found.groups[at])
            small = Evidence(np.ones(len(at), bool), ids=_down(found.ids[at]), groups=groups)
            half[at] = torch.from_numpy(folds.halves(small, seed)).to(half.device)
    return half


def _down(hashes: Tensor) -> Any:
    return hashes.cpu().numpy().view(HASHES)
