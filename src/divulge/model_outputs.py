"""From a model's outputs, as models give them, to the signals that attacks with references read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.doors.arrays import distinct
from divulge.errors import InputError
from divulge.evidence import Evidence, Kind
from divulge.signals import compute, floor_of

KINDS = ("logits", "probs", "predictions")
SIGNALS = ("log_odds", "log_prob@T=2")
"""What attacks on classifiers read; of a regression they read "loss"."""

_NEAR_ONE = 1e-2  # how far the sum of a row of probabilities may be from 1


def signals_of(
    outputs: ArrayLike, labels: ArrayLike, names: Sequence[str], kind: str | None = None
) -> NDArray[np.float32]:
    """Signals of each record by one model.

    Args:
        outputs: (n, c) or, of two classes, (n,) logits or probabilities; (n,) predictions of a regression.
        labels: (n,) ints 0..c-1, or c distinct values in the sorted order of the columns; (n, c) bool, several a
            record; (n,) float of a regression.
        names: as of `divulge.signals.signal`.
        kind: "logits", "probs" or "predictions"; None: probs where all rows lie in 0..1 and (n, c) sum to 1. A
            probability of 0 is taken for half the smallest above it, or less (`divulge.signals.floor_of`).

    Returns:
        (s, n) float32, higher = more member-like.

    Raises:
        InputError: DV003, outputs of another shape, or not finite; DV004, another number of rows than labels; DV021,
            labels that have no column; DV056, an unknown kind.
        Unavailable: the outputs do not give such a signal.

    >>> signals_of([[0.0, 0.0], [2.0, 0.0]], ["cat", "dog"], ["log_odds"]).tolist()
    [[0.0, -2.0]]
    """
    array, y = np.asarray(outputs), np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise InputError(
            "DV003", f"a reference model gave {array.dtype} of shape {array.shape}; expected (n, c) or (n,) numbers"
        )
    if len(array) != len(y):
        raise InputError("DV004", f"a reference model gave {len(array):,} rows for {len(y):,} labels")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(
            "DV003", "a reference model gave NaN or infinite outputs: did its training diverge? Lower the rate"
        )
    kind = kind_of(array, y) if kind is None else kind
    if kind not in KINDS:
        raise InputError("DV056", f"there is no kind of outputs {kind!r:.80}; known: {', '.join(KINDS)}")
    if kind == "probs":  # a forest's 0 is less than one of its trees, and no outlier
        floor = floor_of(array)
        array = np.clip(array, floor, 1 - floor if array.ndim == 1 or y.ndim == 2 else None)
    evidence = Evidence(
        np.zeros(len(array), bool),
        outputs=array,
        labels=y.astype(np.float64) if kind == "predictions" else coded(y, array),
        kind=None if kind == "predictions" else cast(Kind, kind),
    )
    found = compute(evidence, names)
    return np.stack([found[name] for name in names]).astype(np.float32)


def kind_of(outputs: NDArray[Any], labels: NDArray[Any]) -> str:
    """What outputs are, by their values.

    Raises:
        InputError: DV003, percentages.

    >>> kind_of(np.array([[0.25, 0.75]]), np.array([0])), kind_of(np.array([[0.5, 0.8]]), np.array([0]))
    ('probs', 'logits')
    """
    if outputs.ndim == 1 and labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all():
        return "predictions"
    unit = bool((outputs >= 0).all() and (outputs <= 1).all())
    several = outputs.ndim == 1 or labels.ndim == 2
    if not unit and not several and bool((outputs >= 0).all() and (np.abs(outputs.sum(axis=1) / 100 - 1) < 1e-3).all()):
        raise InputError(
            "DV003", "outputs are percentages, rows of which sum to 100; expected probabilities: divide them by 100"
        )
    return "probs" if unit and (several or bool((np.abs(outputs.sum(axis=1) - 1) <= _NEAR_ONE).all())) else "logits"


def coded(labels: NDArray[Any], outputs: NDArray[Any]) -> NDArray[Any]:
    """Labels as `Evidence` has them: numbers of columns.

    Raises:
        InputError: DV021, labels that have no column; DV003, of another shape.
    """
    if labels.ndim == 2:
        if labels.shape != outputs.shape:
            raise InputError("DV003", f"labels are {labels.shape}, a reference model's outputs {outputs.shape}")
        return labels.astype(bool)
    if labels.ndim != 1:
        raise InputError("DV003", f"labels are of shape {labels.shape}; expected (n,) or (n, c)")
    width = 2 if outputs.ndim == 1 else outputs.shape[1]
    if labels.dtype.kind in "iub" and (not len(labels) or (int(labels.min()) >= 0 and int(labels.max()) < width)):
        return labels.astype(np.int64)
    values, codes = distinct(labels)
    if len(values) != width:
        raise InputError(
            "DV021",
            f"labels have {len(values)} distinct values, a reference model's outputs {width} columns; expected labels "
            f"0..{width - 1}, or as many values as columns"
            + (". Of a regression: labels as floats, or kind='predictions'" if outputs.ndim == 1 else ""),
        )
    return codes
