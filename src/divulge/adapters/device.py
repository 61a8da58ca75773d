"""Audits where the outputs lie: torch tensors are scored, split and sorted on their device, and only counts come down.

What stands here is `divulge.signals`, `divulge.folds` and `divulge.roc` once more in torch's words, for hundreds of
millions of records on one GPU: hashes, halves and counts are the same bit for bit, signals as far as float32 goes. The
same code runs on the CPU. float64 is needed, which Apple's MPS lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from divulge import controls, folds, measuring, metrics
from divulge.attacks import all_named
from divulge.attacks.threshold import Threshold
from divulge.doors.outputs import CLOSE, EDGE
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.pipeline import check_settings, provenance
from divulge.report import Report, Row
from divulge.roc import Roc
from divulge.signals import _TINY, LABELLED, NAMES
from divulge.slices import MIN_N

Tensor = Any  # of torch, which may not be installed

BLOCK_NUMBERS = 1 << 24
"""Numbers of a block of outputs: with its temporaries in float32 and float64 it takes about 1.3 GB at most."""

_TAG_BITS = 2  # two bits of a sort key hold side and half, as in divulge.roc


# ----------------------------------------------------------------------------------------------------- signals


def signals_on(outputs: Tensor, labels: Tensor | None, names: Iterable[str], kind: str = "logits") -> dict[str, Tensor]:
    """Several signals of every record, computed and left on the outputs' device.

    They differ from those of `divulge.signals.compute` by the rounding of sums and exponentials alone. In float64 by
    less than 1e-12 of the value. In float32 log-odds x by less than 1e-6 of max(1, abs(x)), and what fades like exp(-x)
    by that share of itself: the last digit of x is worth so much. With a thousand classes twice that.

    Beyond the outputs and the results it takes at most 16 bytes a record and about 1.3 GB.

    Args:
        outputs: (n, c) float tensor, or (n,) or (n, 1) of two classes; bfloat16 and float16 are worked on as float32.
        labels: (n,) tensor or array of whole numbers 0..c-1 (two classes: 0 and 1, or -1 and 1); None: no labels.
        names: of `divulge.signals.NAMES`.
        kind: "logits" or "probs".

    Returns:
        name -> (n,) float32 or float64 tensor, higher = more member-like; the dtype as `compute` has it: float64 where
        float32 would tie the most confident records.

    Raises:
        InputError: DV002 or DV003, no such tensors; DV004 to DV021 as `Evidence.from_splits`.
        Unavailable: a signal that is not known, or needs labels.

    >>> import torch  # doctest: +SKIP
    >>> z = torch.tensor([[40., 0.], [0., 1.]])  # doctest: +SKIP
    >>> signals_on(z, torch.tensor([0, 0]), ["log_odds"])["log_odds"].tolist()  # doctest: +SKIP
    [40.0, -1.0]
    """
    outputs, labels = _read(outputs, labels, kind)
    _check_values(outputs, kind)
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in NAMES:
            raise Unavailable(f"there is no signal {name!r} on a device; known here: {', '.join(NAMES)}")
        if labels is None and name in LABELLED:
            raise Unavailable(f"the signal {name} needs labels, and none were given")
    return (_multiclass if outputs.ndim == 2 else _yes_no)(outputs, labels, wanted, kind)


class _Pivot(NamedTuple):
    """One class of a row against all others, as in `divulge.signals`, here a row a record."""

    log_odds: Tensor
    gap: Tensor
    shares: Tensor
    total: Tensor
    logits: Tensor


def _against_others(z: Tensor, pivot: Tensor) -> _Pivot:
    """(b, c) logits, overwritten; (b,) class numbers."""
    own = z.gather(1, pivot[:, None])[:, 0]
    z.scatter_(1, pivot[:, None], -math.inf)
    largest = z.amax(dim=1)
    z -= largest[:, None]
    shares = z.exp()
    total = shares.sum(dim=1)
    gap = own - largest
    return _Pivot(gap - total.log(), gap, shares, total, z)


def _log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), exact at both ends."""
    return x.clamp(max=0) - x.abs().neg_().exp_().log1p_()


def _in_order(values: Tensor, log_odds: Tensor, limit: float) -> Tensor:
    """Values that fade like exp(-log_odds), kept apart beyond the limit where even float64 would make them all 0."""
    import torch

    floor = math.exp(-(700.0 if limit == 700.0 else 2 * limit))
    return torch.where(log_odds > limit, -floor / (1 + (log_odds - limit).clamp(min=0)), values)


def _modified_entropy(pivot: _Pivot) -> Tensor:
    """(b,) float64 (1 - p_y) log p_y + sum over j != y of p_j log(1 - p_j)."""
    import torch

    log_odds = pivot.log_odds.double()
    decay = log_odds.abs().neg_().exp_()
    log_p = log_odds.clamp(max=0) - decay.log1p()
    rest = torch.where(log_odds > 0, decay, 1.0) / (1 + decay)  # 1 - p_y
    scale = rest / pivot.total  # p_j = scale * share_j
    shares = pivot.shares
    terms = (shares * -scale.to(shares.dtype)[:, None]).log1p_()
    terms *= shares
    others = scale * terms.sum(dim=1)
    del terms
    # Below this the products underflow in float32; there log(1 - p) = -p, to float32's precision.
    small = (scale < 1e-7).nonzero()[:, 0]
    others[small] = -scale[small].square() * shares[small].square_().sum(dim=1, dtype=torch.float64)
    large = (scale > 0.5).nonzero()[:, 0]
    others[large] = _others_of_sure_errors(pivot.logits[large].double(), pivot.total[large], log_odds[large])
    return _in_order(rest * log_p + others, log_odds, 340.0)


def _others_of_sure_errors(logits: Tensor, total: Tensor, log_odds: Tensor) -> Tensor:
    """As in `_modified_entropy`, where a wrong class holds over half; in logarithms. logits: float64, overwritten."""
    import torch

    log_scale = _log_sigmoid(-log_odds) - total.log()  # log p_j = log_scale + logits_j; the top's logit is 0
    logits.scatter_(1, logits.argmax(dim=1, keepdim=True), -math.inf)
    second = logits.amax(dim=1).clamp(min=-1e9)
    tiny = torch.finfo(torch.float64).tiny
    log_others = second + (logits - second[:, None]).exp_().sum(dim=1).clamp(min=tiny).log()
    log_complement = torch.logaddexp(_log_sigmoid(log_odds), log_scale + log_others)
    p = logits.add_(log_scale[:, None]).exp_()
    return (p * (-p).log1p_()).sum(dim=1) + log_scale.exp() * log_complement


def _entropy(pivot: _Pivot) -> Tensor:
    """(b,) float64 sum of p log p, from the most likely class and the others' shares; the logits are overwritten."""
    log_odds = pivot.log_odds.double()
    log_top, log_rest = _log_sigmoid(log_odds), _log_sigmoid(-log_odds)
    weighted = pivot.logits.masked_fill_(pivot.shares == 0, 0).mul_(pivot.shares).sum(dim=1)
    scale = log_rest.exp() / pivot.total
    others = scale * weighted + log_rest.exp() * (log_rest - pivot.total.log())
    return log_top.exp() * log_top + others


def _multiclass(outputs: Tensor, labels: Tensor | None, names: list[str], kind: str) -> dict[str, Tensor]:
    import torch

    n, c = outputs.shape
    dtype = _working_dtype(outputs)
    wide = {"modified_entropy", "entropy"}
    of_labels = {"loss": "log_odds", "confidence": "top"}  # made of these, at the end
    made = dict.fromkeys(of_labels.get(name, name) for name in names)
    out = {name: torch.empty(n, dtype=torch.float64 if name in wide else dtype, device=outputs.device) for name in made}
    for rows in _blocks(n, c):
        z = outputs[rows].to(dtype, copy=True)
        if kind == "probs":
            z.clamp_(min=torch.finfo(dtype).tiny).log_()
        if {"top", "entropy"} & out.keys():
            top = _against_others(z.clone(), z.argmax(dim=1))
            if "top" in out:
                out["top"][rows] = top.log_odds
            if "entropy" in out:
                out["entropy"][rows] = _entropy(top)
            del top
        if labels is None or out.keys() <= {"top", "entropy"}:
            continue
        y = labels[rows]
        pivot = _against_others(z, y)
        if "log_odds" in out:
            out["log_odds"][rows] = pivot.log_odds
        if "margin" in out:
            out["margin"][rows] = pivot.gap
        if "correct" in out:
            right = pivot.gap > 0
            tied = (pivot.gap == 0).nonzero()[:, 0]  # a prediction is the first of the largest
            right[tied] = outputs[rows][tied].argmax(dim=1) == y[tied]
            out["correct"][rows] = right.to(dtype)
        if "modified_entropy" in out:
            out["modified_entropy"][rows] = _modified_entropy(pivot)
        del pivot, z
    found = {}
    for name in names:
        values = out[of_labels.get(name, name)]
        found[name] = _loss(values) if name in of_labels else _narrow(values, dtype) if name in wide else values
    return found


def _yes_no(outputs: Tensor, labels: Tensor | None, names: list[str], kind: str) -> dict[str, Tensor]:
    """Two classes, (n,) outputs: log-odds phi = (2y - 1) z."""
    import torch

    n = len(outputs)
    dtype = _working_dtype(outputs)
    wide = {"loss", "modified_entropy", "entropy", "confidence"}
    out = {
        name: torch.empty(n, dtype=torch.float64 if name in wide else dtype, device=outputs.device) for name in names
    }
    for rows in _blocks(n, 8):  # the temporaries are float64, and several
        z = outputs[rows].to(dtype)
        if kind == "probs":
            tiny = torch.finfo(dtype).tiny
            z = z.clamp(min=tiny).log_() - (1 - z).clamp_(min=tiny).log_()
        phi = z if labels is None else torch.where(labels[rows] != 0, z, -z)
        for name, values in out.items():
            if name != "correct":
                values[rows] = _of_phi(name, phi)
            elif labels is not None:
                values[rows] = ((z > 0) == (labels[rows] != 0)).to(dtype)
    return {name: _narrow(x, dtype) if name in wide else x for name, x in out.items()}


def _of_phi(name: str, phi: Tensor) -> Tensor:
    """(b,) one signal of one label's log-odds."""
    wide = phi.double()
    log_p = _log_sigmoid(wide)
    if name == "loss":
        return _in_order(log_p, wide, 700.0)
    if name == "modified_entropy":
        return 2 * _log_sigmoid(-wide).exp_() * log_p
    if name == "entropy":
        log_rest = _log_sigmoid(-wide)
        return log_p.exp() * log_p + log_rest.exp() * log_rest
    return _log_sigmoid(wide.abs()) if name == "confidence" else phi


def _loss(log_odds: Tensor) -> Tensor:
    """log p_y of log-odds; in float64 where float32 would tie the most confident records at 0."""
    import torch

    far = log_odds.dtype == torch.float32 and len(log_odds) and float(log_odds.max()) > -math.log(_TINY)
    out = torch.empty_like(log_odds, dtype=torch.float64 if far else log_odds.dtype)
    for rows in _blocks(len(out), 8):
        x = log_odds[rows].to(out.dtype)
        out[rows] = _in_order(_log_sigmoid(x), x, 700.0)
    return out


def _narrow(values: Tensor, dtype: Any) -> Tensor:
    """As float32, unless the data came as float64 or the smallest numbers would not survive."""
    import torch

    if dtype == torch.float64:
        return values
    for rows in _blocks(len(values), 8):
        size = values[rows].abs()
        if bool(((size > 0) & (size < _TINY)).any()):
            return values
    return values.float()


def _working_dtype(outputs: Tensor) -> Any:
    """float64 stays, all else is worked on as float32."""
    import torch

    return torch.float64 if outputs.dtype == torch.float64 else torch.float32


def _blocks(rows: int, width: int) -> Iterator[slice]:
    """Consecutive slices that cover the rows, about `BLOCK_NUMBERS` numbers each."""
    step = max(1, BLOCK_NUMBERS // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


# ------------------------------------------------------------------------------------------------------ checks


def _read(outputs: Tensor, labels: Tensor | None, kind: str) -> tuple[Tensor, Tensor | None]:
    """Outputs (n, c) or (n,), and (n,) int64 labels on their device, in 0..c-1."""
    import torch

    if not isinstance(outputs, torch.Tensor):
        raise InputError("DV002", f"outputs are a {type(outputs).__name__}, expected a torch tensor. Use divulge.audit")
    if outputs.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise InputError("DV002", f"outputs are {outputs.dtype}, expected floats: float16, bfloat16, float32, float64")
    if outputs.device.type == "mps":
        raise InputError("DV002", "outputs are on MPS, which lacks float64. Pass them to divulge.audit, or call .cpu()")
    if kind not in ("logits", "probs"):
        raise InputError("DV003", f"kind is {kind!r}, expected 'logits' or 'probs'")
    outputs = outputs.detach()
    if outputs.ndim == 2 and outputs.shape[1] == 1:
        outputs = outputs[:, 0]
    if outputs.ndim not in (1, 2) or 0 in outputs.shape[1:]:
        raise InputError("DV003", f"{kind} has shape {tuple(outputs.shape)}, expected (n, c), or (n,) if binary")
    if labels is None:
        return outputs, None
    labels = torch.as_tensor(labels, device=outputs.device)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise InputError(
            "DV003",
            f"labels has shape {tuple(labels.shape)}, expected (n,) class numbers. One-hot: labels.argmax(dim=1); "
            "several labels a record: divulge.audit",
        )
    if len(labels) != len(outputs):
        raise InputError("DV004", f"lengths differ: outputs has {len(outputs):,} rows, labels has {len(labels):,} rows")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError("DV020", f"labels are {labels.dtype}, expected whole numbers. A regression: divulge.audit")
    labels = labels.long()
    if not len(labels):
        return outputs, labels
    low, high = int(labels.min()), int(labels.max())
    width = 2 if outputs.ndim == 1 else outputs.shape[1]
    if outputs.ndim == 1 and low == -1 and high <= 1 and not bool((labels == 0).any()):
        return outputs, (labels + 1) // 2
    if low < 0 or high >= width:
        raise InputError(
            "DV021" if outputs.ndim == 2 else "DV022",
            f"labels run {low}..{high}, expected 0..{width - 1}, the numbers of the output columns. Labels that count "
            "from 1: subtract 1; -1 or 255 for rows without a label: leave these out",
        )
    return outputs, labels


def _check_values(outputs: Tensor, kind: str) -> None:
    """What the doors refuse: NaN and infinity, probabilities that are none, logits that are probabilities."""
    width = outputs.shape[1] if outputs.ndim == 2 else 1
    tolerance = min(0.02, max(CLOSE, 5e-4 * width))
    alike = kind == "logits" and outputs.ndim == 2 and len(outputs) > 0  # so far, all rows look like probabilities
    for rows in _blocks(len(outputs), width):
        block = outputs[rows].to(_working_dtype(outputs))
        low, high = float(block.min()), float(block.max())
        if not math.isfinite(low) or not math.isfinite(high):  # NaN is the least and the most of what it is among
            bad = (~block.isfinite().reshape(len(block), -1).all(dim=1)).nonzero()[:, 0]
            raise InputError(
                "DV006",
                f"{kind} holds NaN or ±inf in row {rows.start + int(bad[0]):,} and {len(bad) - 1:,} rows after it in a "
                f"block of {len(block):,}; expected finite numbers. exp of a large logit, or log of 0? Give logits, in "
                "float32",
            )
        if kind == "probs" and (low < -EDGE or high > 1 + EDGE):
            raise InputError(
                "DV014", f"probs lie outside 0..1: {low if low < -EDGE else high:.4g}. Scores before a softmax: logits"
            )
        alike = alike and low >= 0 and high <= 1
        if outputs.ndim == 2 and (alike or kind == "probs"):
            away = (block.sum(dim=1) - 1).abs()
            if kind == "probs" and bool((away > tolerance).any()):
                row = int(away.argmax())
                raise InputError(
                    "DV012",
                    f"probs rows do not sum to 1 (row {rows.start + row:,}: {float(block[row].sum()):.4g}). A class "
                    "may be missing; one probability a label: divulge.audit, with multi-hot labels",
                )
            alike = alike and bool((away <= CLOSE).all())
    if alike:
        raise InputError(
            "DV013",
            "every row of logits lies between 0 and 1 and sums to 1: these look like probabilities, the output of a "
            "softmax. Pass kind='probs', or better the values before the softmax",
        )


# ------------------------------------------------------------------------------------------------ who is who


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
    outputs, labels = _read(outputs, labels, kind)
    return _halves(_identified(outputs, labels, _sides(member, outputs), kind), _sides(member, outputs), seed)


class _Identified(NamedTuple):
    """What `divulge.folds` says of the records: (n,) int64 ids and groups of copies, if any; digest, shares, units.

    units: how many members (or groups of their copies) there are, and how many non-members.
    """

    ids: Tensor
    groups: Tensor | None
    digest: str
    effective: tuple[float, float]
    units: tuple[int, int]


def _sides(member: Tensor, outputs: Tensor) -> Tensor:
    """(n,) bool on the outputs' device."""
    import torch

    member = torch.as_tensor(member, device=outputs.device)
    if member.dtype != torch.bool or member.shape != outputs.shape[:1]:
        raise InputError(
            "DV003",
            f"member is {member.dtype} of shape {tuple(member.shape)}, expected bool of shape ({len(outputs)},)",
        )
    return member


def _identified(outputs: Tensor, labels: Tensor | None, member: Tensor, kind: str) -> _Identified:
    """`identified`, `with_copies_grouped`, `digest` and `effective_shares` of `divulge.folds`, from one sort."""
    import torch

    contents = _contents(outputs, labels)
    ids, sums = torch.empty_like(contents), [0, 0]
    for rows in _blocks(len(ids), 8):
        ids[rows] = _mix(contents[rows] ^ member[rows])
        sums[0] += int(ids[rows].sum())
        sums[1] += int(_mix(ids[rows]).sum())
    digest = "".join(f"{total % 2**64:016x}" for total in sums)
    members = int(member.sum())
    units = members, len(member) - members

    ordered, order = torch.sort(contents, stable=True)
    del contents
    equal = ordered[1:] == ordered[:-1]
    edge = equal.new_zeros(1)
    in_run = (torch.cat([edge, equal]) | torch.cat([equal, edge])).nonzero()[:, 0]
    if not len(in_run):
        return _Identified(ids, None, digest, (1.0, 1.0), units)
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
    sided = _mix(contents ^ inside)
    again = torch.where(inside, m[run], n[run]) > 1
    ids[rows[again]] = _mix(sided[again] + occurrence[again] * _ODD)

    few = (m + n <= folds.MOST_COPIES)[run]
    if kind == "probs":
        few &= ~_sure(outputs, rows)
    copied = torch.zeros_like(m, dtype=torch.bool)
    copied[run[few]] = True
    m, n = m[copied], n[copied]
    mixed, alike = int((m * n).sum()), int((m * (m - 1) + n * (n - 1)).sum())
    if mixed > folds.MIXED * alike / 2 or not len(m):
        return _Identified(ids, None, digest, (1.0, 1.0), units)
    groups = ids.clone()
    groups[rows[few]] = sided[few]
    shares = [
        float(side / (side - int(sizes.sum()) + int(sizes.square().sum())))
        for side, sizes in zip(units, (m, n), strict=True)
    ]
    fewer = [side - int(sizes.sum()) + int((sizes > 0).sum()) for side, sizes in zip(units, (m, n), strict=True)]
    return _Identified(ids, groups, digest, (shares[0], shares[1]), (fewer[0], fewer[1]))


def _sure(outputs: Tensor, rows: Tensor) -> Tensor:
    """(r,) which of these rows hold a probability of 1."""
    import torch

    sure = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
    for part in _blocks(len(rows), outputs[:1].numel()):
        block = _as_numpy_has_it(outputs[rows[part]])
        highest = block.reshape(len(block), -1).amax(dim=1)
        sure[part] = highest >= torch.tensor(1 - 1e-6, dtype=block.dtype, device=block.device)
    return sure


def _halves(found: _Identified, member: Tensor, seed: int) -> Tensor:
    """(n,) uint8 from the hashes' first bit; a small side is dealt out evenly by `divulge.folds`."""
    import torch

    of_unit = found.ids if found.groups is None else found.groups
    half = torch.empty(len(member), dtype=torch.uint8, device=member.device)
    multiplier = int(_multipliers(seed, 1)[0])
    for rows in _blocks(len(half), 8):
        half[rows] = _mix(_scrambled(of_unit[rows].clone()).mul_(multiplier)) < 0
    for side, units in zip((member, ~member), found.units, strict=True):
        if 0 < units < folds.EXACT_BELOW:
            at = side.nonzero()[:, 0]
            groups = None if found.groups is None else _down(found.groups[at])
            small = Evidence(np.ones(len(at), bool), ids=_down(found.ids[at]), groups=groups)
            half[at] = torch.from_numpy(folds.halves(small, seed)).to(half.device)
    return half


def _down(hashes: Tensor) -> Any:
    return hashes.cpu().numpy().view(folds.HASHES)


def _contents(outputs: Tensor, labels: Tensor | None) -> Tensor:
    """(n,) int64: the bits of `divulge.folds.content_hashes`."""
    import torch

    made = torch.empty(len(outputs), dtype=torch.int64, device=outputs.device)
    width = outputs[:1].numel()
    for rows in _blocks(len(made), 4 * width):
        block = _words(outputs[rows])
        mixed = _mix(torch.zeros_like(made[rows])) + _row_hashes(block, 0)
        if labels is not None:
            mixed = _mix(mixed) + _row_hashes(labels[rows, None].clone(), 1)
        made[rows] = mixed
    return made


def _as_numpy_has_it(block: Tensor) -> Tensor:
    """bfloat16, which numpy lacks, as float32."""
    import torch

    return block.float() if block.dtype == torch.bfloat16 else block


def _words(block: Tensor) -> Tensor:
    """(b, w) int64, the block's bytes as words of eight bytes if they fit, else of a number's; a copy."""
    import torch

    block = _as_numpy_has_it(block).reshape(len(block), -1)
    block = block.clone(memory_format=torch.contiguous_format)  # a view as wider words must start at one
    size = block.element_size()
    if block.shape[1] * size % 8 == 0:
        return block.view(torch.int64)
    return block.view({2: torch.int16, 4: torch.int32}[size]).long() & ((1 << 8 * size) - 1)


def _row_hashes(words: Tensor, seed: int) -> Tensor:
    """(b,) hashes of (b, w) words, overwritten."""
    import torch

    multipliers = torch.from_numpy(_multipliers(seed, words.shape[1])).to(words.device)
    return _mix(_scrambled(words).mul_(multipliers).sum(dim=1))


def _multipliers(seed: int, width: int) -> Any:
    """(w,) odd int64, those of `divulge.folds`."""
    random = np.random.default_rng(seed % 2**64).integers(0, 2**63, width, dtype=np.uint64)
    return (random * np.uint64(2) + np.uint64(1)).view(np.int64)


def _scrambled(words: Tensor) -> Tensor:
    """In place: the high bits of each word spread to the others."""
    words ^= _shifted(words, 32)
    words *= _FIRST
    words ^= _shifted(words, 32)
    return words


def _signed(number: int) -> int:
    """The int64 of a uint64's bits: torch multiplies and adds in int64, modulo 2**64."""
    return number - 2**64 if number >= 2**63 else number


_ODD = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _mix(x: Tensor) -> Tensor:
    """Every bit of the input reaches every bit of the output. Source: SplitMix64, Steele et al. 2014."""
    x = x + _ODD
    x ^= _shifted(x, 30)
    x *= _FIRST
    x ^= _shifted(x, 27)
    x *= _SECOND
    x ^= _shifted(x, 31)
    return x


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits with zeros coming in: torch shifts int64 with its sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


# ------------------------------------------------------------------------------------------------------ counts


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
    member = _sides(member, scores)
    packed, values = _ranked(scores.detach())
    packed *= 1 << _TAG_BITS
    packed |= halves.to(packed.device).long()
    packed |= (~member).long() << 1
    distinct, times = torch.unique(packed, return_counts=True)
    del packed
    key = distinct >> _TAG_BITS
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


# ------------------------------------------------------------------------------------------------------- audit


def audit_on_device(
    outputs: Tensor,
    labels: Tensor | None,
    member: Tensor,
    *,
    kind: str = "logits",
    attacks: str | Iterable[str] = ("loss", "modified_entropy"),
    confidence: float = 0.95,
    seed: int = 0,
    name: str | None = None,
) -> Report:
    """The report of `audit(evidence, controls=())`, with signals, halves and sorts on the outputs' device.

    Halves and digest are the same, scores as near as those of `signals_on`; the report says that no control ran.
    Attacks are thresholds on signals: what is fitted, slices, references and controls are `audit`'s. Beyond the outputs
    it takes about 100 bytes a record and 1.3 GB on the device, and 30 bytes a distinct score and attack on the host.

    Args:
        outputs, labels, kind: as for `signals_on`, labels of two classes as they are.
        member: (n,) bool tensor or array.
        attacks: names of `divulge.signals.NAMES`, the plainer first; see `audit`.
        confidence, seed, name: as for `audit`.

    Raises:
        InputError: DV005, one side has no records; DV052, an attack that is no such threshold; DV056, a confidence or
            a seed outside its range; else as `signals_on`.
        Unavailable: an attack needs labels and there are none.

    >>> import torch  # doctest: +SKIP
    >>> z = 3 * torch.sin(torch.arange(8000.).square()).reshape(4000, 2)  # doctest: +SKIP
    >>> member, labels = torch.arange(4000) < 2000, torch.zeros(4000, dtype=torch.int64)  # doctest: +SKIP
    >>> z[member, 0] += 1  # doctest: +SKIP
    >>> round(audit_on_device(z, labels, member).score.value, 2)  # doctest: +SKIP
    0.1
    """
    outputs, labels = _read(outputs, labels, kind)
    member = _sides(member, outputs)
    members = int(member.sum())
    sizes = members, len(member) - members
    if 0 in sizes:
        raise InputError("DV005", f"expected members and non-members, got {sizes[0]:,} and {sizes[1]:,}: give both")
    stand_in = _stand_in(outputs, labels, kind)
    check_settings(float(confidence), MIN_N, int(seed))
    chosen = all_named(attacks, stand_in)
    if other := [
        attack.name for attack in chosen if not isinstance(attack.call, Threshold) or attack.name not in NAMES
    ]:
        raise InputError(
            "DV052",
            f"expected signals to threshold ({', '.join(NAMES)}), got {other[0]!r}: other attacks need divulge.audit",
        )
    names = [attack.name for attack in chosen]
    values = signals_on(outputs, labels, [*names, *([] if labels is None else ["correct"])], kind)
    right = None
    if labels is not None:
        correct = values["correct"] >= 1
        right = int((correct & member).sum()), int((correct & ~member).sum())
        del correct
        if "correct" not in names:
            del values["correct"]

    found = _identified(outputs, labels, member, kind)
    halves, digest, effective = _halves(found, member, int(seed)), found.digest, found.effective
    del found
    # One at a time, each signal let go once it is counted: the measuring would ask for several at once.
    rocs = {name: roc_on(values.pop(name), member, halves, effective=effective) for name in names}
    del halves

    error = 1 - float(confidence)
    meta = provenance(stand_in, chosen, digest, None, seed=int(seed), confidence=float(confidence), min_n=MIN_N)
    meta["data"] |= {"members": sizes[0], "nonmembers": sizes[1]}
    measured = measuring.of_all(
        chosen, lambda attack: rocs.pop(attack.name), [], metrics.all_named("default"), right, error, _nothing
    )
    slices = measuring.of_partitions(measured, chosen, lambda attack, merged: [], [], [], sizes, error, _nothing)
    statuses: list[Row] = [{"attack": name, "status": "ran", "reason": None} for name in names]
    tables = measuring.tables(measured, slices, statuses, controls.run([], None))
    meta |= {} if name is None else {"name": str(name)}
    meta |= {"tests": measured.tests, "slices": []}
    return Report({**meta, "verdict": "NOT_GATED", "policy": None}, tables).judged(None)


def _stand_in(outputs: Tensor, labels: Tensor | None, kind: str) -> Evidence:
    """Evidence of two rows that has the shape and the types of what lies on the device, as a door would give them."""
    types = {"torch.float16": np.float16, "torch.float64": np.float64}
    return Evidence(
        np.array([True, False]),
        outputs=np.zeros((2, *outputs.shape[1:]), types.get(str(outputs.dtype), np.float32)),
        labels=None if labels is None else np.zeros(2, np.int64),
        kind="logits" if kind == "logits" else "probs",
    )


def _nothing() -> None:
    pass
