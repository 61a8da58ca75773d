"""What an attack knows of each record from the columns that it names, as one matrix of numbers.

How each column is read (a category's values, what stands for a missing number) is returned too, so that it can be
learned on a sample and applied to other records, one block after another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.knowledge import Table
from divulge.attacks.row_by_row import LOOKED_AT
from divulge.errors import InputError, Unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

VALUES = 200  # different texts of a column beyond which it is no category
CLASS, FEATURES = "class", "features"  # names for the label and for the model's inputs


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
