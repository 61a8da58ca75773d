"""What an attack knows of each record, as one matrix: the model's outputs, and the columns that it names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.errors import InputError, Unavailable
from divulge.folds import row_hashes
from divulge.signals import NAMES, compute, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Table = NDArray[np.float32]

POOLED_ROWS = 50  # a class's mean and variance are shrunk to all records' as if by so many
BINS = 255
LOOKED_AT, OUTERMOST = 10_000, 0.001
TOP = 10  # of the sorted log-probabilities
VALUES = 200  # different texts of a column beyond which it is no category
CLASS, FEATURES = "class", "features"  # names for the label and for the model's inputs

_SIGNALS = {
    "multiclass": ("log_odds", "loss", "modified_entropy", "correct"),
    "binary": ("log_odds", "loss", "modified_entropy", "correct"),
    "multilabel": ("log_odds", "loss", "modified_entropy", "correct"),
    "unlabelled": ("confidence", "entropy"),
    "regression": ("loss",),
    "signals": (),
}


def in_canonical_order(evidence: Evidence) -> NDArray[np.int64]:
    """(n,) the rows in an order that does not depend on the one they came in: sums of floats then agree to the bit.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.arange(6) < 3, ids=np.array([5, 0, 4, 1, 3, 2]))
    >>> bool((evidence.ids[in_canonical_order(evidence)] == [5, 0, 4, 1, 3, 2]).all())
    False
    """
    return np.argsort(row_hashes(replace(evidence, groups=None), 0), kind="stable")


def of_outputs(evidence: Evidence) -> Table:
    """What the model's answers say about each record, in any order of its classes.

    The signals of the task, the user's own; the largest log-probabilities in falling order (of several labels: the
    least sure ones; of a regression: prediction and log of the deviation); and how the record stands in its class:
    mean and log variance of the first signal there (members and non-members together, shrunk to all records' as if by
    50 of them), and the record's distance from it in standard deviations.

    Args:
        evidence: n records.

    Returns:
        (n, d) float32, NaN where a signal is.

    Raises:
        Unavailable: there are neither outputs nor signals.

    >>> from divulge.evidence import Evidence
    >>> z = np.array([[2., 0., 1.], [0., 1., 0.]], np.float32)
    >>> of_outputs(Evidence(np.array([True, False]), outputs=z, labels=np.array([0, 1]), kind="logits")).shape
    (2, 10)
    """
    given = [name for name in evidence.signals if name not in NAMES or evidence.outputs is None]
    names = [name for name in _SIGNALS[evidence.task] if why_unavailable(evidence, name) is None] + given
    limit = _limit(evidence)
    values = compute(evidence, names)  # those that another attack needed come first
    parts: list[NDArray[Any]] = [np.clip(values[name], -limit, limit)[:, None] for name in names]
    labels = evidence.labels
    if parts and labels is not None and labels.ndim == 1 and labels.dtype.kind != "f":
        parts.append(_within_class(parts[0][:, 0].astype(np.float64), labels))
    if evidence.outputs is not None:
        parts.append(_shape_of(evidence))
    if not parts:
        raise Unavailable("needs outputs (logits, probs or predictions) or signals, and none were given")
    return np.concatenate(parts, axis=1, dtype=np.float32)


def log_probabilities(evidence: Evidence, widest: int) -> Table:
    """(n, c) float32 log-probabilities in the order of the classes; (n, 0) for other tasks and beyond `widest` classes.

    >>> from divulge.evidence import Evidence
    >>> z = np.array([[0., 0.], [0., 0.]])
    >>> np.exp(log_probabilities(Evidence(np.array([True, False]), outputs=z, kind="logits"), 10)).round(2).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    outputs = evidence.outputs
    if evidence.task not in ("multiclass", "unlabelled") or outputs is None or outputs.ndim == 1:
        return np.zeros((len(evidence), 0), np.float32)
    if outputs.shape[1] > widest:
        return np.zeros((len(evidence), 0), np.float32)
    table = np.empty(outputs.shape, np.float32)
    floor = floor_of(outputs) if evidence.kind == "probs" else 0.0

    def block(rows: slice) -> None:
        z = outputs[rows].astype(np.float64)
        table[rows] = _log_softmax(np.log(np.maximum(z, floor)) if evidence.kind == "probs" else z)

    over_rows(block, len(outputs), outputs.shape[1] * 8)
    return table


def _within_class(values: NDArray[np.float64], labels: NDArray[Any]) -> NDArray[np.float64]:
    """(n, 3): the class's mean, log variance, and the record's distance from the mean; NaN where its value is.

    In float64, to be rounded to float32: the order in which the rows are summed up then leaves no trace.
    """
    known = np.isfinite(values)
    x, y = values[known], labels[known]
    table = np.full((len(values), 3), np.nan)
    if not len(x):
        return table
    middle = np.median(x)
    x = x - middle  # equal values are 0 then: rounding errors of their mean would tell classes apart
    size = np.bincount(y) + POOLED_ROWS
    mean = (np.bincount(y, x) + POOLED_ROWS * x.mean()) / size
    squares = np.bincount(y, np.square(x - mean[y])) + POOLED_ROWS * x.var()
    variance = squares / size + 1e-12
    table[known] = np.column_stack([middle + mean[y], np.log(variance)[y], (x - mean[y]) / np.sqrt(variance[y])])
    return table


def _limit(evidence: Evidence) -> float:
    """How far a signal may lie from 0: probabilities of 0 and 1 would else be outliers without measure."""
    if evidence.kind != "probs" or evidence.outputs is None:
        return 1e30
    labels = evidence.labels
    summed = labels.shape[1] if labels is not None and labels.ndim == 2 else 1
    return -float(np.log(floor_of(evidence.outputs))) * summed


def column_names(columns: object) -> tuple[str, ...]:
    """Names of columns, checked.

    Raises:
        InputError: DV056, anything but several texts.

    >>> column_names(["age", "sex"])
    ('age', 'sex')
    """
    several = isinstance(columns, Iterable) and not isinstance(columns, str)
    names: tuple[Any, ...] = tuple(columns) if several else ()  # type: ignore[arg-type]
    if not several or not all(isinstance(name, str) for name in names):
        raise InputError("DV056", f"expected names of columns, as in columns=('age',), got {columns!r:.80}")
    return names


def of_columns(evidence: Evidence, names: Iterable[str]) -> Table:
    """Columns as numbers: numbers as they are, categories as one column a value.

    Args:
        evidence: n records.
        names: of its `columns`; "class" is the label and "features" the model's inputs, where no column is called so.

    Returns:
        (n, d) float32; a number that is missing is the column's median, with a column that says so.

    Raises:
        Unavailable: no column of that name, or a text with more than 200 different values.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), columns={"age": np.array([30., 40.]), "sex": np.array(["f", "m"])})
    >>> of_columns(evidence, ["age", "sex"]).tolist()
    [[30.0, 1.0, 0.0], [40.0, 0.0, 1.0]]
    """
    parts = [_named(evidence, name) for name in names]
    return np.concatenate([np.zeros((len(evidence), 0), np.float32), *parts], axis=1, dtype=np.float32)


def binned(table: Table) -> Table:
    """Each column's values as the number of one of at most 255 bins of about as many rows; NaN stays.

    Boosting bins them anyway, but where rows have weights takes many times as long for it as for its trees.

    >>> binned(np.array([[0.5], [7.0], [0.5], [np.nan]], np.float32)).ravel().tolist()
    [0.0, 1.0, 0.0, nan]
    """
    found = np.full(table.shape, np.nan, np.float32)
    for at, column in enumerate(table.T):
        known = np.isfinite(column)
        if known.any():
            inner = np.quantile(column[known], np.linspace(0, 1, BINS + 1)[1:-1], method="higher")
            edges = np.unique(inner[inner > column[known].min()])
            found[known, at] = np.searchsorted(edges, column[known], side="right")
    return found


def tame(table: Table) -> None:
    """Bring values that lie far out nearer, in place: one of them would rule the scale of all others.

    To at most four times as far from a column's median as its outermost thousandth, on either side; columns of which a
    thousandth or less differs from the median stay as they are.

    Args:
        table: (n, d), finite, its rows in an order that says nothing: of many, 10,000 are looked at.

    >>> values = np.append(np.linspace(-1, 1, 1001), 1e6).astype(np.float32)[:, None]
    >>> tame(values)
    >>> round(float(values.max()))
    4
    """
    ordered = np.sort(np.ascontiguousarray(table[:: -(-len(table) // LOOKED_AT)].T), axis=1)
    last = ordered.shape[1] - 1
    middle = ordered[:, last // 2]
    low, high = ordered[:, math.ceil(OUTERMOST * last)], ordered[:, math.floor((1 - OUTERMOST) * last)]
    least = np.where(low < middle, middle - 4 * (middle - low), -np.inf)
    most = np.where(high > middle, middle + 4 * (high - middle), np.inf)
    np.clip(table, least.astype(np.float32), most.astype(np.float32), out=table)


def _named(evidence: Evidence, name: str) -> NDArray[Any]:
    labels = evidence.labels
    if name in evidence.columns:
        return _encoded(name, evidence.columns[name])
    if name == CLASS and labels is not None:
        return (
            labels.astype(np.float32) if labels.ndim == 2 else _encoded(name, labels, category=labels.dtype.kind != "f")
        )
    if name == FEATURES:
        if evidence.features is None:
            raise Unavailable("needs the model's inputs (features)")
        none = np.zeros((len(evidence), 0))
        return np.hstack([none, *(_encoded(name, column) for column in evidence.features.T)])
    known = [*evidence.columns, *([CLASS] if labels is not None else [])]
    known += [FEATURES] if evidence.features is not None else []
    raise Unavailable(f"there is no column {name!r:.80}; known here: {', '.join(known) or 'none'}")


def _encoded(name: str, column: NDArray[Any], *, category: bool = False) -> NDArray[Any]:
    """(n, k): a number's own column and whether it is missing; a category's, one a value."""
    if column.dtype.kind in "iufb" and not category:
        numbers = np.clip(column.astype(np.float64), -1e30, 1e30)
        missing = np.isnan(numbers)
        if not missing.any():
            return numbers[:, None]
        middle = np.median(numbers[~missing]) if not missing.all() else 0.0
        return np.column_stack([np.where(missing, middle, numbers), missing])
    from divulge.doors.arrays import distinct

    values, codes = (np.unique(column, return_inverse=True)) if category else distinct(column)
    if len(values) > VALUES and not category:
        raise Unavailable(
            f"the column {name!r} is text with {len(values):,} different values; expected at most {VALUES}: "
            "group them, or give a number"
        )
    return np.eye(len(values), dtype=np.float32)[codes]


def _shape_of(evidence: Evidence) -> Table:
    """(n, <= 10) what the outputs look like, whichever class or label it is of."""
    outputs = evidence.outputs
    assert outputs is not None
    if evidence.kind is None:
        return _of_regression(outputs)
    yes_no = evidence.task == "multilabel" or outputs.ndim == 1
    width = 1 if outputs.ndim == 1 else outputs.shape[1]
    table = np.empty((len(outputs), min(TOP, width)), np.float32)
    floor = floor_of(outputs) if evidence.kind == "probs" else 0.0

    def block(rows: slice) -> None:
        z = outputs[rows].astype(np.float64).reshape(rows.stop - rows.start, width)
        if evidence.kind == "probs":
            z = np.log(np.maximum(z, floor)) - (np.log(np.maximum(1 - z, floor)) if yes_no else 0)
        if yes_no:
            wanted = z if evidence.labels is None else np.where(evidence.labels[rows].reshape(z.shape), z, -z)
            table[rows] = np.sort(wanted if evidence.labels is not None else np.abs(z), axis=1)[:, :TOP]
            return
        z = _log_softmax(z)
        if width > 4 * TOP:
            z = np.partition(z, width - TOP, axis=1)[:, width - TOP :]
        table[rows] = np.sort(z, axis=1)[:, ::-1][:, :TOP]

    over_rows(block, len(outputs), width * 8)
    return table


def _of_regression(outputs: NDArray[Any]) -> Table:
    if outputs.ndim == 1:
        return outputs.astype(np.float32)[:, None]
    return np.column_stack([outputs[:, 0], np.log(outputs[:, 1])]).astype(np.float32)


def _log_softmax(z: NDArray[np.float64]) -> NDArray[np.float64]:
    z = z - z.max(axis=1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=1, keepdims=True)))


def floor_of(probs: NDArray[Any]) -> float:
    """Half the smallest probability above 0: what a 0 is taken for, so that it is no outlier of the logarithms.

    >>> floor_of(np.array([[0.0, 1.0], [0.5, 0.5]]))
    0.25
    """
    smallest = float(np.min(probs, initial=1.0, where=probs > 0))
    return max(smallest / 2, 1e-37)
