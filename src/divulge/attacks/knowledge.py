"""What an attack knows of each record from the model's outputs and the signals that were given, as one matrix.

What that takes from all records (a class's mean, the smallest probability) is returned too, so that it can be learned
on a sample and applied to other records, one block after another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.errors import Unavailable
from divulge.signals import NAMES, compute, floor_of, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Table = NDArray[np.float32]

POOLED_ROWS = 50  # a class's mean and variance are shrunk to all records' as if by so many
TOP = 10  # of the sorted log-probabilities

_SIGNALS = {
    "multiclass": ("log_odds", "loss", "modified_entropy", "correct"),
    "binary": ("log_odds", "loss", "modified_entropy", "correct"),
    "multilabel": ("log_odds", "loss", "modified_entropy", "correct"),
    "unlabelled": ("confidence", "entropy"),
    "regression": ("loss",),
    "signals": (),
}


class Standing(NamedTuple):
    """How the first signal lies in each class: a median, and (c + 1,) means (beside it) and variances.

    The last of each is all records', for classes that were never seen.
    """

    middle: float
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


class Answers(NamedTuple):
    """What `read_outputs` learns from all records.

    Attributes:
        names: of the signals.
        floor: what a probability of 0 is taken for; 0 where there are none.
        limit: how far a signal may lie from 0.
        standing: of each class, None without classes or values.
    """

    names: tuple[str, ...]
    floor: float
    limit: float
    standing: Standing | None


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
    return read_outputs(evidence)[0]


def read_outputs(evidence: Evidence, answers: Answers | None = None) -> tuple[Table, Answers]:
    """`of_outputs`, and what it learned from all records.

    Args:
        evidence: n records.
        answers: what was learned on others, to be applied here; None: learn it here.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), signals={"mine": np.array([1., 3.])}, labels=np.array([0, 0]))
    >>> _, answers = read_outputs(evidence)
    >>> read_outputs(evidence.take([1]), answers)[0].round(2).tolist()
    [[3.0, 2.0, 0.0, 1.0]]
    """
    if answers is None:
        given = [name for name in evidence.signals if name not in NAMES or evidence.outputs is None]
        names = [name for name in _SIGNALS[evidence.task] if why_unavailable(evidence, name) is None] + given
        floor = floor_of_kind(evidence)
        answers = Answers(tuple(names), floor, limit_of(evidence, floor), None)
    names, floor, limit = list(answers.names), answers.floor, answers.limit
    values = compute(evidence, names)  # those that another attack needed come first
    parts: list[NDArray[Any]] = [np.clip(values[name], -limit, limit)[:, None] for name in names]
    labels = evidence.labels
    if parts and labels is not None and labels.ndim == 1 and labels.dtype.kind != "f":
        within, standing = _within_class(parts[0][:, 0].astype(np.float64), labels, answers.standing)
        parts.append(within)
        answers = answers._replace(standing=standing)
    if evidence.outputs is not None:
        parts.append(_shape_of(evidence, floor))
    if not parts:
        raise Unavailable("needs outputs (logits, probs or predictions) or signals, and none were given")
    return np.concatenate(parts, axis=1, dtype=np.float32), answers


def log_probabilities(evidence: Evidence, widest: int, floor: float | None = None) -> Table:
    """(n, c) float32 log-probabilities in the order of the classes; (n, 0) for other tasks and beyond `widest` classes.

    Args:
        evidence: n records.
        widest: the most classes.
        floor: what a probability of 0 is taken for; None: `floor_of` these.

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
    floor = floor_of_kind(evidence) if floor is None else floor

    def block(rows: slice) -> None:
        z = outputs[rows].astype(np.float64)
        table[rows] = _log_softmax(np.log(np.maximum(z, floor)) if evidence.kind == "probs" else z)

    over_rows(block, len(outputs), outputs.shape[1] * 8)
    return table


def _within_class(
    values: NDArray[np.float64], labels: NDArray[Any], standing: Standing | None
) -> tuple[NDArray[np.float64], Standing | None]:
    """(n, 3): the class's mean, log variance, and the record's distance from the mean; NaN where its value is.

    In float64, to be rounded to float32: the order in which the rows are summed up then leaves no trace.
    """
    known = np.isfinite(values)
    x, y = values[known], labels[known]
    table = np.full((len(values), 3), np.nan)
    if not len(x):
        return table, standing
    standing = _standing_of(x, y) if standing is None else standing
    middle, mean, variance = standing
    y = np.minimum(y, len(mean) - 1)
    x = x - middle
    table[known] = np.column_stack([middle + mean[y], np.log(variance)[y], (x - mean[y]) / np.sqrt(variance[y])])
    return table, standing


def _standing_of(x: NDArray[np.float64], y: NDArray[Any]) -> Standing:
    middle = float(np.median(x))
    x = x - middle  # equal values are 0 then: rounding errors of their mean would tell classes apart
    classes = int(y.max()) + 2  # and one that no record is of
    size = np.bincount(y, minlength=classes) + POOLED_ROWS
    mean = (np.bincount(y, x, classes) + POOLED_ROWS * x.mean()) / size
    squares = np.bincount(y, np.square(x - mean[y]), classes) + POOLED_ROWS * x.var()
    return Standing(middle, mean, squares / size + 1e-12)


def limit_of(evidence: Evidence, floor: float) -> float:
    """How far a signal may lie from 0: probabilities of 0 and 1 would else be outliers without measure.

    >>> from divulge.evidence import Evidence
    >>> limit_of(Evidence(np.array([True]), outputs=np.array([[0.0, 1.0]]), kind="probs"), 0.5).__round__(2)
    0.69
    """
    if evidence.kind != "probs" or evidence.outputs is None:
        return 1e30
    labels = evidence.labels
    summed = labels.shape[1] if labels is not None and labels.ndim == 2 else 1
    return -float(np.log(floor)) * summed


def _shape_of(evidence: Evidence, floor: float) -> Table:
    """(n, <= 10) what the outputs look like, whichever class or label it is of."""
    outputs = evidence.outputs
    assert outputs is not None
    if evidence.kind is None:
        return _of_regression(outputs)
    yes_no = evidence.task == "multilabel" or outputs.ndim == 1
    width = 1 if outputs.ndim == 1 else outputs.shape[1]
    table = np.empty((len(outputs), min(TOP, width)), np.float32)

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


def floor_of_kind(evidence: Evidence) -> float:
    """`floor_of` where the outputs are probabilities; else 0, which no one looks at.

    >>> from divulge.evidence import Evidence
    >>> floor_of_kind(Evidence(np.array([True]), outputs=np.array([[0.0, 1.0]]), kind="probs"))
    0.0002
    """
    return floor_of(evidence.outputs) if evidence.kind == "probs" and evidence.outputs is not None else 0.0
