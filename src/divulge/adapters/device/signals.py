"""`divulge.signals` in torch's words: a row a record here, and several signals from one pass over the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from divulge.adapters.device.doors import check_values, read
from divulge.adapters.device.tensors import Tensor, row_slices, working_dtype
from divulge.errors import Unavailable
from divulge.signals import LABELLED, NAMES, TINY


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
    outputs, labels = read(outputs, labels, kind)
    check_values(outputs, kind)
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
    dtype = working_dtype(outputs)
    wide = {"modified_entropy", "entropy"}
    of_labels = {"loss": "log_odds", "confidence": "top"}  # made of these, at the end
    made = dict.fromkeys(of_labels.get(name, name) for name in names)
    out = {name: torch.empty(n, dtype=torch.float64 if name in wide else dtype, device=outputs.device) for name in made}
    for rows in row_slices(n, c):
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
    dtype = working_dtype(outputs)
    wide = {"loss", "modified_entropy", "entropy", "confidence"}
    out = {
        name: torch.empty(n, dtype=torch.float64 if name in wide else dtype, device=outputs.device) for name in names
    }
    for rows in row_slices(n, 8):  # the temporaries are float64, and several
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

    far = log_odds.dtype == torch.float32 and len(log_odds) and float(log_odds.max()) > -math.log(TINY)
    out = torch.empty_like(log_odds, dtype=torch.float64 if far else log_odds.dtype)
    for rows in row_slices(len(out), 8):
        x = log_odds[rows].to(out.dtype)
        out[rows] = _in_order(_log_sigmoid(x), x, 700.0)
    return out


def _narrow(values: Tensor, dtype: Any) -> Tensor:
    """As float32, unless the data came as float64 or the smallest numbers would not survive."""
    import torch

    if dtype == torch.float64:
        return values
    for rows in row_slices(len(values), 8):
        size = values[rows].abs()
        if bool(((size > 0) & (size < TINY)).any()):
            return values
    return values.float()
