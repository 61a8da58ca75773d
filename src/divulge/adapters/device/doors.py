"""What the tensors must be, as the doors have it for arrays: of their shapes and types, finite, of their kind."""

from __future__ import annotations

import math

from divulge.adapters.device.tensors import Tensor, row_slices, working_dtype
from divulge.doors.outputs import CLOSE, EDGE, sum_tolerance
from divulge.errors import InputError


def read(outputs: Tensor, labels: Tensor | None, kind: str) -> tuple[Tensor, Tensor | None]:
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


def read_member(member: Tensor, outputs: Tensor) -> Tensor:
    """(n,) bool on the outputs' device."""
    import torch

    member = torch.as_tensor(member, device=outputs.device)
    if member.dtype != torch.bool or member.shape != outputs.shape[:1]:
        raise InputError(
            "DV003",
            f"member is {member.dtype} of shape {tuple(member.shape)}, expected bool of shape ({len(outputs)},)",
        )
    return member


def check_values(outputs: Tensor, kind: str) -> None:
    """What the doors refuse: NaN and infinity, probabilities that are none, logits that are probabilities."""
    width = outputs.shape[1] if outputs.ndim == 2 else 1
    tolerance = sum_tolerance(width)
    alike = kind == "logits" and outputs.ndim == 2 and len(outputs) > 0  # so far, all rows look like probabilities
    for rows in row_slices(len(outputs), width):
        block = outputs[rows].to(working_dtype(outputs))
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
