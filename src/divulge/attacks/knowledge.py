"""What an attack knows of each record, as one matrix: the model's outputs, and the columns that it names.

What that takes from all records (a class's mean, a column's values, edges of bins) is returned too, so that it can be
learned on a sample and applied to other records, one block after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import BLOCK_BYTES, in_parallel_alone, over_rows
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
ROWS = 8192  # that a fitted attack scores at a time, at most
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
        floor: what a probability of 0 is taken for; None: half the smallest above 0 here.

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
    return read_columns(evidence, names)[0]


class Number(NamedTuple):
    """How a column of numbers is read: what stands for a missing one, and whether a second column says so."""

    middle: float
    says_so: bool


class Category(NamedTuple):
    """How a category is read: the values that have a column each."""

    values: tuple[Any, ...]


Encoding = Number | Category | None  # None: as it is


def read_columns(
    evidence: Evidence, names: Iterable[str], encodings: tuple[tuple[Encoding, ...], ...] | None = None
) -> tuple[Table, tuple[tuple[Encoding, ...], ...]]:
    """`of_columns`, and how each column is read.

    Args:
        evidence: n records.
        names: as for `of_columns`.
        encodings: what was learned on other records, to be applied here; None: learn it here. A value of a category
            that those did not have is none of theirs: 0 in all of its columns. A number that is missing is their
            median, and is marked only where some of theirs are missing too.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), columns={"sex": np.array(["f", "m"])})
    >>> other = Evidence(np.array([True, False]), columns={"sex": np.array(["m", "x"])})
    >>> read_columns(other, ["sex"], read_columns(evidence, ["sex"])[1])[0].tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    names = tuple(names)
    known: Iterable[tuple[Encoding, ...] | None] = [None] * len(names) if encodings is None else encodings
    read = [_named(evidence, name, learned) for name, learned in zip(names, known, strict=True)]
    parts = [np.zeros((len(evidence), 0), np.float32), *(part for part, _ in read)]
    return np.concatenate(parts, axis=1, dtype=np.float32), tuple(learned for _, learned in read)


def binned(table: Table, edges: list[NDArray[np.float32]] | None = None) -> Table:
    """Each column's values as the number of one of at most 255 bins of about as many rows; NaN stays.

    Boosting bins them anyway, but where rows have weights takes many times as long for it as for its trees.

    Args:
        table: (n, d).
        edges: `bin_edges` of another table; None: of this one.

    >>> binned(np.array([[0.5], [7.0], [0.5], [np.nan]], np.float32)).ravel().tolist()
    [0.0, 1.0, 0.0, nan]
    """
    found = np.full(table.shape, np.nan, np.float32)
    for at, (column, inner) in enumerate(zip(table.T, bin_edges(table) if edges is None else edges, strict=True)):
        known = np.isfinite(column)
        found[known, at] = np.searchsorted(inner, column[known], side="right")
    return found


def bin_edges(table: Table) -> list[NDArray[np.float32]]:
    """For each column its (at most 254,) rising inner edges: a value belongs to the bin that its edge opens.

    >>> [edges.tolist() for edges in bin_edges(np.array([[0.5], [7.0], [0.5], [np.nan]], np.float32))]
    [[7.0]]
    """
    found = []
    for column in table.T:
        column = column[np.isfinite(column)]
        inner = column[:0]
        if len(column):
            inner = np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1], method="higher")
            inner = np.unique(inner[inner > column.min()])
        found.append(inner)
    return found


def tame(table: Table, limits: tuple[Table, Table] | None = None) -> None:
    """Bring values that lie far out nearer, in place: one of them would rule the scale of all others.

    To at most four times as far from a column's median as its outermost thousandth, on either side; columns of which a
    thousandth or less differs from the median stay as they are.

    Args:
        table: (n, d), finite.
        limits: `outer_limits` of another table; None: of this one.

    >>> values = np.append(np.linspace(-1, 1, 1001), 1e6).astype(np.float32)[:, None]
    >>> tame(values)
    >>> round(float(values.max()))
    4
    """
    least, most = outer_limits(table) if limits is None else limits
    np.clip(table, least, most, out=table)


def outer_limits(table: Table) -> tuple[Table, Table]:
    """The (d,) least and (d,) largest value that `tame` leaves in each column.

    Args:
        table: (n, d), finite, its rows in an order that says nothing: of many, 10,000 are looked at.

    >>> least, most = outer_limits(np.linspace(-1, 1, 1001, dtype=np.float32)[:, None])
    >>> most.round().tolist()
    [4.0]
    """
    ordered = np.sort(np.ascontiguousarray(table[:: -(-len(table) // LOOKED_AT)].T), axis=1)
    last = ordered.shape[1] - 1
    middle = ordered[:, last // 2]
    low, high = ordered[:, math.ceil(OUTERMOST * last)], ordered[:, math.floor((1 - OUTERMOST) * last)]
    least = np.where(low < middle, middle - 4 * (middle - low), -np.inf)
    most = np.where(high > middle, middle + 4 * (high - middle), np.inf)
    return least.astype(np.float32), most.astype(np.float32)


def _named(
    evidence: Evidence, name: str, learned: tuple[Encoding, ...] | None
) -> tuple[NDArray[Any], tuple[Encoding, ...]]:
    """The (n, k) columns of a name, and how each of the arrays behind it is read."""
    labels = evidence.labels
    if name in evidence.columns:
        part, encoding = _encoded(name, evidence.columns[name], None if learned is None else learned[0])
        return part, (encoding,)
    if name == CLASS and labels is not None:
        if labels.ndim == 2:
            return labels.astype(np.float32), (None,)
        category = labels.dtype.kind != "f"
        part, encoding = _encoded(name, labels, None if learned is None else learned[0], category=category)
        return part, (encoding,)
    if name == FEATURES:
        if evidence.features is None:
            raise Unavailable("needs the model's inputs (features)")
        each: Iterable[Encoding] = [None] * evidence.features.shape[1] if learned is None else learned
        read = [_encoded(name, column, one) for column, one in zip(evidence.features.T, each, strict=True)]
        return np.hstack([np.zeros((len(evidence), 0)), *(part for part, _ in read)]), tuple(one for _, one in read)
    known = [*evidence.columns, *([CLASS] if labels is not None else [])]
    known += [FEATURES] if evidence.features is not None else []
    raise Unavailable(f"there is no column {name!r:.80}; known here: {', '.join(known) or 'none'}")


def _encoded(
    name: str, column: NDArray[Any], learned: Encoding, *, category: bool = False
) -> tuple[NDArray[Any], Encoding]:
    """(n, k): a number's own column and whether it is missing; a category's, one a value."""
    number = column.dtype.kind in "iufb" and not category
    if learned is not None and number != isinstance(learned, Number):
        expected, got = ("numbers", "text") if isinstance(learned, Number) else ("text", "numbers")
        raise InputError(
            "DV003",
            f"column {name!r}: expected {expected}, as in the records that the attack was fitted on, got {got}. "
            "Give all records one type.",
        )
    if number:
        numbers = np.clip(column.astype(np.float64), -1e30, 1e30)
        missing = np.isnan(numbers)
        if not isinstance(learned, Number):
            some = bool(missing.any())
            looked_at = numbers[~missing] if some else numbers[:: max(1, len(numbers) // LOOKED_AT)]
            learned = Number(float(np.median(looked_at)) if len(looked_at) else 0.0, some)
        filled = np.where(missing, learned.middle, numbers)
        return (np.column_stack([filled, missing]) if learned.says_so else filled[:, None]), learned
    from divulge.doors.arrays import distinct

    values, codes = (np.unique(column, return_inverse=True)) if category else distinct(column)
    if not isinstance(learned, Category):
        if len(values) > VALUES and not category:
            raise Unavailable(
                f"the column {name!r} is text with {len(values):,} different values; expected at most {VALUES}: "
                "group them, or give a number"
            )
        learned = Category(tuple(values.tolist()))
    return _one_of(learned.values, values, codes), learned


def _one_of(known: tuple[Any, ...], values: NDArray[Any], codes: NDArray[np.int64]) -> Table:
    """(n, k) 1 in the column of a row's value, 0 in all where that is none of the known."""
    return np.eye(len(known) + 1, len(known), dtype=np.float32)[codes_among(known, values, codes)]


def codes_among(known: tuple[Any, ...], values: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the place of each row's value among k known ones, k where it is none of them.

    Args:
        known: k values.
        values: the distinct ones here.
        codes: (n,) each row's number in these.

    >>> codes_among((3, 5), np.array([5, 8]), np.array([1, 0, 0])).tolist()
    [2, 1, 1]
    """
    place = {value: at for at, value in enumerate(known)}
    return np.array([place.get(value, len(known)) for value in values.tolist()], np.int64)[codes]


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


def floor_of(probs: NDArray[Any]) -> float:
    """Half the smallest probability above 0: what a 0 is taken for, so that it is no outlier of the logarithms.

    >>> floor_of(np.array([[0.0, 1.0], [0.5, 0.5]]))
    0.25
    """
    smallest = float(np.min(probs, initial=1.0, where=probs > 0))
    return max(smallest / 2, 1e-37)


def floor_of_kind(evidence: Evidence) -> float:
    """`floor_of` where the outputs are probabilities; else 0, which no one looks at.

    >>> from divulge.evidence import Evidence
    >>> floor_of_kind(Evidence(np.array([True]), outputs=np.array([[0.0, 1.0]]), kind="probs"))
    0.5
    """
    return floor_of(evidence.outputs) if evidence.kind == "probs" and evidence.outputs is not None else 0.0


# ------------------------------------------------------------------------------ the same bits in any block and order


def steady(evidence: Evidence) -> Evidence:
    """The same records with their outputs as float64 in rows: what is computed of one is its own then.

    Of float32, a block's surest record decides whether the loss of all of them is told in float64.

    >>> from divulge.evidence import Evidence
    >>> steady(Evidence(np.array([True]), outputs=np.zeros((1, 2), np.float32), kind="logits")).outputs.dtype.name
    'float64'
    """
    outputs = evidence.outputs
    wide = None if outputs is None else np.ascontiguousarray(outputs, np.float64)
    return replace(evidence, outputs=wide, references=None, traces=None)


def row_by_row(score: Callable[[Evidence], NDArray[np.floating[Any]]], evidence: Evidence) -> NDArray[np.floating[Any]]:
    """(n,) float64 scores of `steady` records, some at a time: no more memory for many rows than for few.

    Never one at a time: numpy adds the classes of a lone row in another order.

    Args:
        score: of a row it says the same whatever other rows there are, if at least one.
        evidence: n records.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), signals={"mine": np.array([1., 3.])})
    >>> row_by_row(lambda rows: rows.signals["mine"], evidence).tolist()
    [1.0, 3.0]
    """
    width = 1 if evidence.outputs is None or evidence.outputs.ndim == 1 else evidence.outputs.shape[1]
    step = min(ROWS, max(256, BLOCK_BYTES // (8 * width)))  # no more than `compute` takes at a time
    scores, bare = np.empty(len(evidence)), replace(evidence, references=None, traces=None)

    def block(start: int) -> None:
        rows = slice(start, min(start + step, len(evidence)))
        alone = rows.stop - start == 1
        scores[rows] = score(steady(bare.take([start, start] if alone else rows)))[: rows.stop - start]

    in_parallel_alone(block, range(0, len(evidence), step))
    return scores


def signals_row_by_row(evidence: Evidence, name: str) -> NDArray[np.floating[Any]]:
    """(n,) float64 signal; of a row the same bits in any block and order, if it is computed here and not given.

    >>> from divulge.evidence import Evidence
    >>> z = np.array([[2., 0.], [0., 1.]], np.float32)
    >>> evidence = Evidence(np.array([True, False]), outputs=z, labels=np.array([0, 0]), kind="logits")
    >>> signals_row_by_row(evidence, "log_odds").tolist()
    [2.0, -1.0]
    """
    return row_by_row(lambda rows: compute(rows, [name])[name], evidence)


def product(x: NDArray[Any], w: NDArray[Any]) -> NDArray[np.float64]:
    """(n, k) float64 x @ w, each row summed from left to right: BLAS's order depends on how many rows there are.

    Args:
        x: (n, d).
        w: (d, k).

    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])).tolist()
    [[11.0]]
    """
    found = np.zeros((w.shape[1], len(x)))
    columns, w = np.ascontiguousarray(x.T, np.float64), w.astype(np.float64)
    step = max(256, 16_384 // max(1, w.shape[1]))  # what is added up stays in the cache
    for rows in (slice(start, start + step) for start in range(0, len(x), step)):
        for column, weights in zip(columns, w, strict=True):
            found[:, rows] += weights[:, None] * column[rows]
    return found.T
