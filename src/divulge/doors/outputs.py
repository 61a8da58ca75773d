"""What a model's outputs must be: finite, of the right shape, and of the kind that they were called."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.doors.arrays import Found, Rows, check_finite, find_rows, is_text, row_blocks
from divulge.errors import InputError

#: How far a probability may lie outside 0..1: the rounding of a float32 sum, no more.
EDGE = 1e-6
#: How far a row of logits may be from summing to 1 and still be called probabilities.
CLOSE = 1e-3


class Outputs(NamedTuple):
    """Outputs after their checks, and the rows of `probs` that do not sum to 1 (bad if multi-class)."""

    values: NDArray[Any]
    name: str
    bad_sums: Found | None

    @property
    def width(self) -> int:
        """How many label values they tell apart: c, 2 for binary, 0 for regression."""
        if self.name == "predictions":
            return 0
        return 2 if self.values.ndim == 1 else int(self.values.shape[1])


def read_outputs(values: NDArray[Any], name: str, rows: Rows, notes: set[str], *, few: bool = False) -> Outputs:
    """Check outputs of the kind `name` (logits, probs or predictions); (n, 1) becomes (n,), integers float32.

    Args:
        values: of n rows.
        name: the kind.
        rows: names rows in messages.
        notes: gets a line for what is unusual.
        few: they are some rows of many that were checked: too few to tell logits from probabilities.

    Raises:
        InputError: DV002 text, DV003 shape, DV006 not finite, DV013 logits that are probabilities, DV014
            outside 0..1, DV016 a standard deviation that is not positive.

    >>> read_outputs(np.array([[0.2, 0.8], [0.5, 0.5]]), "probs", Rows(1), set()).width
    2
    """
    if is_text(values):
        raise InputError("DV002", f"{name} holds text, expected numbers: one row a record, one column a class.")
    values = to_float(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    widths = "(n,) or (n, 2): mean and standard deviation" if name == "predictions" else "(n, c), or (n,) if binary"
    narrow = name != "predictions" or values.ndim == 1 or values.shape[1:] == (2,)
    if values.ndim not in (1, 2) or 0 in values.shape[1:] or not narrow:
        raise InputError("DV003", f"{name} has shape {values.shape}, expected {widths}.")
    if values.dtype == np.float16:
        notes.add(f"{name}: float16 kept as it is; float32 logits would tell confident records apart better")
    cause = "exp of a large logit, or log of 0? Export logits, in float32." if name != "predictions" else ""
    check_finite(values, name, rows, cause)
    if name == "probs":
        return Outputs(values, name, _check_probs(values, rows))
    if name == "logits":
        if not few:
            _check_logits(values, notes)
    elif values.ndim == 2:
        _check_deviation(values, rows)
    return Outputs(values, name, None)


def to_float(values: NDArray[Any]) -> NDArray[Any]:
    """Floats as they are; bools and integers as float32, or float64 where that would round them off."""
    if values.dtype.kind == "f":
        return values
    wide = values.dtype.itemsize > 2 and values.size and max(-int(values.min()), int(values.max())) > 1 << 24
    return values.astype(np.float64 if wide else np.float32)


def sum_tolerance(width: int) -> float:
    """How far a row of so many probabilities may be from summing to 1.

    >>> sum_tolerance(10)
    0.005
    """
    # Rounding to three digits moves each value by up to 5e-4; float16 by less.
    return min(0.02, max(CLOSE, 5e-4 * width))


def sums_error(outputs: Outputs, found: Found, rows: Rows) -> InputError:
    """The error for rows of multi-class `probs` that do not sum to 1."""
    row = found.first[0]
    total = float(outputs.values[row].sum(dtype=np.float64))
    share = 100 * found.bad / found.total
    percent = f"{share:.1f}" if share >= 0.1 else f"{share:.2g}"
    return InputError(
        "DV012",
        f"probs rows do not sum to 1 ({rows.name(row)}: {total:.4g}; {percent} % of {rows.all(found.total)}). "
        "The values lie between 0 and 1, so a class may be missing; or they are one probability a label: "
        "pass multi-hot labels.",
    )


def _row_sums(block: NDArray[Any]) -> NDArray[Any]:
    """(b,) sums, in float32 at least; a product with ones is five times faster than sum(axis=1)."""
    dtype = np.result_type(block.dtype, np.float32)
    return block.astype(dtype, copy=False) @ np.ones(block.shape[1], dtype)


def _check_probs(values: NDArray[Any], rows: Rows) -> Found | None:
    def outside(block: NDArray[Any]) -> NDArray[np.bool_] | None:
        if block.min() >= -EDGE and block.max() <= 1 + EDGE:
            return None
        bad = (block < -EDGE) | (block > 1 + EDGE)
        return bad if bad.ndim == 1 else np.asarray(bad.any(axis=1))

    tolerance = sum_tolerance(values.shape[1] if values.ndim == 2 else 1)

    def far(block: NDArray[Any]) -> NDArray[np.bool_] | None:
        return np.asarray(np.abs(_row_sums(block) - 1) > tolerance)

    found = find_rows(values, outside)
    if found.bad:
        raise _outside_error(values, found, find_rows(values, far) if values.ndim == 2 else None, rows)
    if values.ndim == 1:
        return None
    sums = find_rows(values, far)
    return sums if sums.bad else None


def _outside_error(values: NDArray[Any], found: Found, sums: Found | None, rows: Rows) -> InputError:
    if sums is not None and sums.bad:
        row = sums.first[0]
        total = float(values[row].sum(dtype=np.float64))
        return InputError(
            "DV012",
            f"probs rows do not sum to 1 ({rows.name(row)}: {total:.4g}; "
            f"{100 * sums.bad / sums.total:.1f} % of {rows.all(sums.total)}). These look like logits: pass "
            "logits=…",
        )
    row = found.first[0]
    worst = float(values[row].min()) if values[row].min() < -EDGE else float(values[row].max())
    return InputError(
        "DV014",
        f"probs lie outside 0..1 in {found.describe(rows)}: {worst:.4g}. Probabilities were expected; if "
        "these are scores before the softmax or sigmoid, pass logits=…",
    )


def _check_logits(values: NDArray[Any], notes: set[str]) -> None:
    """Refuse probabilities called logits: an early way out at the first block that is not made of them."""
    for _, block in row_blocks(values):
        if not (block.min() >= 0 and block.max() <= 1):
            return
        if values.ndim == 2 and not (np.abs(_row_sums(block) - 1) <= CLOSE).all():
            return
    if values.ndim == 2 and len(values):
        raise InputError(
            "DV013",
            "every row of logits lies between 0 and 1 and sums to 1: these look like probabilities, the "
            "output of a softmax. Pass probs=…, or better the values before the softmax.",
        )
    notes.add("logits: all lie between 0 and 1. If they are probabilities (after a sigmoid), pass probs=")


def _check_deviation(values: NDArray[Any], rows: Rows) -> None:
    found = find_rows(values, lambda block: np.asarray(block[:, 1] <= 0))
    if found.bad:
        raise InputError(
            "DV016",
            "predictions' second column, the standard deviation, is not positive in "
            f"{found.describe(rows)}. If it is a log variance, pass np.exp(0.5 * log_variance); if these "
            "are two targets, audit them one by one.",
        )
