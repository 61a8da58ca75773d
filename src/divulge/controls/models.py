"""Controls of models rather than of evidence: references that mimic the target, evaluation mode, stored outputs.

Plain functions, without a framework: reference attacks and adapters call them with numbers and with a `predict`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.controls.setting import CONTROL_ERROR, OK, WARNING, Outcome, not_run, number
from divulge.errors import InputError
from divulge.metrics import Estimate

ALIKE = 0.02  # a difference in accuracy that is too small to matter
BATCH = 8
TOLERANCE = 0.02  # of the outputs' standard deviation


def mimicry(
    target_in: float,
    target_out: float,
    reference_in: ArrayLike,
    reference_out: ArrayLike,
    *,
    margin: float = ALIKE,
) -> Outcome:
    """Whether the target could be one of the reference models, by what it does on its members and its non-members.

    The target is compared with the models' distribution: were it one of them, its difference from their mean would lie
    in a prediction interval (Student's, r - 1 degrees of freedom) 98 times in 100, for both figures together.

    Args:
        target_in: the target's accuracy, or mean of a signal, on its members.
        target_out: the same on its non-members.
        reference_in: (r,) each reference's on the rows that it was trained on.
        reference_out: (r,) each reference's on the others.
        margin: differences below this do not matter; fraction for accuracies, else in the signal's unit.

    Returns:
        An outcome of the code DV214; value, low, high: the larger of the two differences, target minus references.

    Raises:
        InputError: DV004, another number of references in than out; DV003, a number that is not finite.

    >>> outcome = mimicry(0.99, 0.80, [0.90, 0.91, 0.92, 0.91], [0.81, 0.80, 0.79, 0.80])
    >>> outcome.status, round(outcome.measured.value, 2)
    ('warning', 0.08)
    """
    from scipy.special import stdtrit

    references = np.asarray(reference_in, float).ravel(), np.asarray(reference_out, float).ravel()
    r = len(references[0])
    if len(references[1]) != r:
        raise InputError("DV004", f"expected as many references out as in ({r}), got {len(references[1])}")
    if not np.isfinite([target_in, target_out, *references[0], *references[1]]).all():
        raise InputError("DV003", "expected finite accuracies or signal means, got NaN or infinity among them")
    if r < 2:
        return not_run("mimicry", "DV214", f"needs 2 reference models, has {r}")
    reach = float(stdtrit(r - 1, 1 - CONTROL_ERROR / 2)) * math.sqrt(1 + 1 / r)
    estimates = {}
    for side, target, of_references in zip(
        ("members", "non-members"), (target_in, target_out), references, strict=True
    ):
        away, half = float(target - of_references.mean()), reach * float(of_references.std(ddof=1))
        estimates[side] = Estimate(away, away - half, away + half)
    beyond = {side: max(estimate.low, -estimate.high) for side, estimate in estimates.items()}
    worst = max(beyond, key=lambda side: (beyond[side] > margin, abs(estimates[side].value)))
    told = ", ".join(
        f"{target:.3f} on its {side} (references {of_references.mean():.3f})"
        for side, target, of_references in zip(beyond, (target_in, target_out), references, strict=True)
    )
    if beyond[worst] > margin:
        text = f"the target differs from its {r} references: {told}"
        return Outcome("mimicry", "DV214", WARNING, estimates[worst], text)
    return Outcome("mimicry", "DV214", OK, estimates[worst], f"the target is like its {r} references: {told}")


def same_in_any_batch(
    predict: Callable[[Any], ArrayLike],
    rows: Any,
    *,
    batch: int = BATCH,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Outcome:
    """Whether a record's output depends on the batch it is in: dropout or batch normalisation in training mode.

    All rows are scored twice, in small batches, dealt out anew the second time. Rounding differs from batch to batch
    too, by far less than the tolerance (raise it for bfloat16). A batch normalisation found in training mode has moved
    its running statistics: load the model again.

    Args:
        predict: from a batch of rows to (b, ...) outputs, as numbers.
        rows: n rows, an array or tensor that takes an index array, or a list. 32 are enough.
        batch: rows a batch; at least 2.
        tolerance: the largest difference allowed, in standard deviations of the outputs.
        seed: of the batches.

    Returns:
        An outcome of the code DV215; value: the largest difference, in standard deviations of the outputs.

    Raises:
        InputError: DV215, more than one row in a hundred differs; DV004, `predict` gave another number of rows.

    >>> rows = np.arange(32.0)[:, None]
    >>> same_in_any_batch(lambda batch: 3 * batch, rows).status
    'ok'
    """
    n = len(rows)
    if n < 4:
        return not_run("same_in_any_batch", "DV215", f"needs 4 records, has {n}")
    rng = np.random.default_rng(seed)
    orders = np.arange(n), rng.permutation(n)
    first, second = (_in_batches(predict, rows, order, max(2, min(batch, n // 2))) for order in orders)
    spread = float(np.std(first[np.isfinite(first)])) if np.isfinite(first).any() else 0.0
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(first - second)) / max(spread, np.finfo(np.float64).tiny)
    apart = np.where(np.isnan(apart), np.inf, apart).max(axis=1, initial=0.0)
    differ = int((apart > tolerance).sum())
    largest = float(apart.max())
    if differ > n / 100:
        raise InputError(
            "DV215",
            f"{differ:,} of {n:,} rows got other outputs in another batch, by up to {largest:.2g} standard deviations "
            f"(allowed: {tolerance:g}). The model seems to be in training mode: dropout or batch normalisation is "
            "active. Switch to evaluation mode (model.eval(), training=False), load it again if it normalises batches, "
            "and collect the outputs again.",
        )
    text = f"{n:,} rows scored in two ways of making batches differ by at most {largest:.2g} standard deviations"
    return Outcome("same_in_any_batch", "DV215", OK, number(largest), text)


def _in_batches(
    predict: Callable[[Any], ArrayLike], rows: Any, order: NDArray[np.int64], size: int
) -> NDArray[np.float64]:
    """(n, k) outputs in the order of the rows, scored in batches of a given order."""
    outputs: list[NDArray[np.float64]] = []
    for part in np.array_split(order, math.ceil(len(order) / size)):
        chosen = [rows[i] for i in part.tolist()] if isinstance(rows, list | tuple) else rows[part]
        scored = np.asarray(predict(chosen), dtype=np.float64)
        if scored.ndim == 0 or len(scored) != len(part):
            raise InputError(
                "DV004", f"predict gave outputs of shape {scored.shape} for {len(part)} rows; expected one a row"
            )
        outputs.append(scored.reshape(len(part), -1))
    together = np.concatenate(outputs)
    back = np.empty_like(together)
    back[order] = together
    return back


def check_fresh(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Refuse stored reference outputs that were made for something else.

    Args:
        found: part of the store's key -> its digest or value, as stored: target, data, signal, code ….
        expected: the same of this run.

    Raises:
        InputError: DV216, naming each part that differs.

    >>> check_fresh({"data": "9f2c", "signal": "log_odds"}, {"data": "9f2c", "signal": "log_odds"})
    """
    parts = [name for name in dict.fromkeys([*expected, *found]) if found.get(name) != expected.get(name)]
    if parts:
        told = "; ".join(
            f"{name}: stored {_shown(found, name)}, this run has {_shown(expected, name)}" for name in parts
        )
        raise InputError(
            "DV216",
            f"the stored reference outputs belong to something else ({told}). "
            "Use another store, or run the references again.",
        )


def _shown(parts: Mapping[str, str], name: str) -> str:
    return f"{parts[name]!r:.40}" if name in parts else "nothing"
