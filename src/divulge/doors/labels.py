"""Labels of any make -> column numbers 0..c-1, multi-hot bools, or a regression's floats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.doors.arrays import Rows, check_finite, distinct, find_rows, is_text, to_array, too_long
from divulge.doors.names import LONGEST_TEXT, listed, shown
from divulge.doors.outputs import Outputs
from divulge.errors import InputError

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")


class Labels(NamedTuple):
    """Labels as `Evidence` holds them, and the names of their values where those are not "0".."c-1"."""

    values: NDArray[Any]
    classes: tuple[str, ...] | None


def read_classes(classes: Sequence[object] | None) -> tuple[str, ...] | None:
    """Class names as text, each once.

    Raises:
        InputError: DV002 not a sequence, DV007 a name too long, DV023 a name twice or fewer than two.

    >>> read_classes([1, 2, 10])
    ('1', '2', '10')
    """
    if classes is None:
        return None
    if isinstance(classes, str | bytes):
        raise InputError("DV023", f"classes is the text {shown(classes)}, expected a list of label values.")
    listing: Any = classes if isinstance(classes, list | tuple) else to_array(classes, "classes", set()).tolist()
    names = tuple(_text(value) for value in listing)
    for name in names:
        if len(name) > LONGEST_TEXT:
            raise too_long("classes", name, len(name))
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError("DV023", f"classes names {listed(twice)} more than once, expected each label value once.")
    if len(names) < 2:
        raise InputError("DV023", f"classes has {len(names)} names, expected one for each of two or more classes.")
    return names


def read_labels(
    labels: NDArray[Any],
    outputs: Outputs | None,
    classes: tuple[str, ...] | None,
    rows: Rows,
    notes: set[str],
) -> Labels:
    """Labels of any make, fitted to the outputs.

    Args:
        labels: (n,) int from any base, float, bool or text; (n, c) one-hot or multi-hot.
        outputs: what the labels must fit, if anything.
        classes: the label values in the order of the columns, from `read_classes`.
        rows: names rows in messages.
        notes: gets a line where texts were given columns by their order.

    Raises:
        InputError: DV003 shape, DV006 NaN, DV020 to DV024.

    >>> read_labels(np.array(["dog", "cat", "dog"]), None, None, Rows(2), set()).values.tolist()
    [1, 0, 1]
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2):
        raise InputError("DV003", f"labels has shape {labels.shape}, expected (n,), or (n, c) of 0 and 1.")
    check_finite(labels, "labels", rows, "Leave unlabelled rows out, on both sides alike.")
    if outputs is not None and outputs.name == "predictions":
        return _targets(labels, classes)
    if labels.ndim == 2:
        return _hot(labels, outputs, classes, rows)
    if labels.dtype.kind == "f":
        whole = find_rows(labels, lambda block: np.asarray(block != np.rint(block)))
        if whole.bad and outputs is None and classes is None:
            return Labels(labels, None)  # a regression of which only the loss was kept
        if whole.bad:
            raise InputError(
                "DV020",
                f"labels are not whole numbers in {whole.describe(rows)} (first: {labels[whole.first[0]]}), "
                "but the outputs are those of a classifier. For a regression pass predictions=… in place of "
                "logits or probs.",
            )
        labels = labels.astype(np.int64)
    labels = _numerals(labels)
    if classes is not None:
        return Labels(_columns(labels, classes, rows), classes)
    if outputs is None:
        return _codes(labels)
    if outputs.values.ndim == 1:
        return _binary(labels, notes)
    return _multiclass(labels, outputs.width, rows, notes)


def check_codes(labels: NDArray[Any], outputs: Outputs | None, classes: tuple[str, ...] | None, rows: Rows) -> None:
    """Check labels that were normalised when they were saved; a file may have been changed since."""
    width = outputs.width if outputs is not None else len(classes or ())
    regression = outputs is not None and outputs.name == "predictions"
    if is_text(labels) or labels.ndim > 2 or (labels.dtype.kind == "f") > (regression or outputs is None):
        raise InputError("DV020", f"labels are {labels.dtype} of shape {labels.shape}; not as divulge saved them.")
    check_finite(labels, "labels", rows)
    if labels.ndim == 2 and (labels.dtype != np.bool_ or (outputs is not None and labels.shape[1] != width)):
        raise InputError("DV003", f"labels are {labels.dtype} of shape {labels.shape}; not as divulge saved them.")
    if labels.ndim == 1 and labels.dtype.kind in "biu" and width and labels.size:
        _check_range(labels, width, rows)


def read_codes(labels: NDArray[Any], rows: Rows) -> NDArray[np.int64]:
    """(n,) codes of some rows of a table without outputs or class names: a code stays, though others may be missing.

    Raises:
        InputError: DV020, DV021 or DV024, they are no codes as those of the rows before were.

    >>> read_codes(np.array(["3", "1"]), Rows(2)).tolist()
    [3, 1]
    """
    read = read_labels(labels, None, None, rows, set())
    codes = read.values
    if codes.dtype.kind == "f":
        raise InputError("DV020", "labels are fractions here, and were whole numbers in the rows before these.")
    if codes.ndim == 1 and read.classes is not None:
        if strange := [name for name in read.classes if not _INTEGER.fullmatch(name)]:
            raise InputError(
                "DV024", f"labels {listed(strange)} are text, those before them numbers: pass classes=[…]."
            )
        codes = np.array([int(name) for name in read.classes], np.int64)[codes]
    if codes.dtype.kind == "i" and codes.size and codes.min() < 0:
        raise InputError(
            "DV021",
            f"label {codes.min()} is below 0, and none of the first rows' was. Values such as -1 often mark rows "
            "without a label: leave these out; or pass classes=[…], all label values.",
        )
    return codes


def _targets(labels: NDArray[Any], classes: tuple[str, ...] | None) -> Labels:
    if is_text(labels) or labels.ndim != 1 or classes is not None:
        raise InputError(
            "DV020",
            f"labels of a regression are numbers, (n,), without classes=; got {labels.dtype} of shape "
            f"{labels.shape}. For a classifier pass logits=… or probs=… in place of predictions.",
        )
    return Labels(labels if labels.dtype.kind == "f" else labels.astype(np.float64), None)


def _hot(labels: NDArray[Any], outputs: Outputs | None, classes: tuple[str, ...] | None, rows: Rows) -> Labels:
    """One-hot -> column numbers, multi-hot -> bools."""
    width = labels.shape[1]
    columns = outputs.width if outputs is not None else width
    if columns != width or (classes is not None and len(classes) != width):
        raise InputError(
            "DV003", f"labels have {width} columns and outputs {columns}, expected the same classes in both."
        )
    if is_text(labels):
        raise InputError("DV020", "labels are text in two dimensions, expected (n,) text or (n, c) of 0 and 1.")
    soft = find_rows(labels, lambda block: np.asarray(((block != 0) & (block != 1)).any(axis=1)))
    if soft.bad:
        raise InputError(
            "DV020",
            f"labels are neither 0 nor 1 in {soft.describe(rows)}; (n, c) labels are one-hot or multi-hot. "
            "Smoothed or soft labels: pass the class that the record has.",
        )
    several = find_rows(labels, lambda block: np.asarray(np.count_nonzero(block, axis=1) != 1))
    independent = outputs is not None and outputs.bad_sums is not None
    if several.bad or independent:
        return Labels(labels.astype(np.bool_, copy=False), classes)
    return Labels(labels.argmax(axis=1), classes)


def _numerals(labels: NDArray[Any]) -> NDArray[Any]:
    """Integers, where every text is one: in the order of texts "10" would come before "2"."""
    if not is_text(labels):
        return labels.astype(np.int64, copy=False)
    values, codes = distinct(labels)
    if not all(_INTEGER.fullmatch(value) for value in values):
        return labels
    return np.array([int(value) for value in values], np.int64)[codes]


def _columns(labels: NDArray[Any], classes: tuple[str, ...], rows: Rows) -> NDArray[np.int64]:
    """The column of each label by its name in `classes`."""
    number = {name: column for column, name in enumerate(classes)}
    # A bool came in as 0 or 1, and may be listed as False and True.
    if set(classes) <= {"False", "True"}:
        number |= {str(int(name == "True")): column for name, column in list(number.items())}
    values, codes = distinct(labels)
    found = np.array([number.get(_text(value), -1) for value in values], np.int64)
    if (found < 0).any():
        strange = values[found < 0].tolist()
        row = int(np.argmax(found[codes] < 0))
        raise InputError(
            "DV024",
            f"labels {listed(strange)} are not among classes ({listed(classes)}); first at "
            f"{rows.name(row)}. Add them to classes= in the order of the output columns, or leave these "
            "rows out.",
        )
    return found[codes]


def _codes(labels: NDArray[Any]) -> Labels:
    """Without outputs only equality matters: 0..k-1 in the order of the values."""
    if not is_text(labels) and labels.size and labels.min() >= 0 and labels.max() <= 1 << 20:
        seen = np.bincount(labels)
        if seen.all():
            return Labels(labels, None)
    values, codes = distinct(labels)
    return Labels(codes, tuple(_text(value) for value in values))


def _binary(labels: NDArray[Any], notes: set[str]) -> Labels:
    if is_text(labels):
        values, codes = distinct(labels)
        if len(values) != 2:
            raise InputError(
                "DV022",
                f"labels have {len(values)} distinct values ({listed(values)}), and one output column tells "
                "two apart. Pass classes=[the value for 0, the value for 1].",
            )
        names = tuple(map(str, values))
        notes.add(f"labels: {shown(names[0])} is 0 and {shown(names[1])} is 1, by their order; else pass classes=")
        return Labels(codes, names)
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 1)
    if low >= 0 and high <= 1:
        return Labels(labels, None)
    if low == -1 and high <= 1 and not (labels == 0).any():
        return Labels((labels + 1) // 2, ("-1", "1"))
    values, _ = distinct(labels)
    raise InputError(
        "DV022",
        f"one output column tells 0 and 1 (or -1 and 1) apart; labels are {listed(values)}. "
        "Pass classes=[the value for 0, the value for 1], or one output column a class.",
    )


def _multiclass(labels: NDArray[Any], width: int, rows: Rows, notes: set[str]) -> Labels:
    if not is_text(labels):
        if labels.size:
            _check_range(labels, width, rows)
        return Labels(labels, None)
    values, codes = distinct(labels)
    if len(values) != width:
        raise InputError(
            "DV022",
            f"labels have {len(values)} distinct texts ({listed(values)}) and outputs {width} columns, so "
            "it is open which text has which column. Pass classes=[…], the texts in the order of the "
            "columns.",
        )
    notes.add(f"labels: the {width} texts are the columns in sorted order ({listed(values)}); else pass classes=")
    return Labels(codes, tuple(map(str, values)))


def _check_range(labels: NDArray[Any], width: int, rows: Rows) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low >= 0 and high < width:
        return
    if low >= 1 and high == width:
        every = ", ".join(map(str, range(1, width + 1))) if width <= 3 else f"1, …, {width}"
        raise InputError(
            "DV021",
            f"label {high} has no column: outputs have {width} columns (0..{width - 1}), labels run "
            f"{low}..{high}. Subtract 1, or pass classes=[{every}]",
        )
    found = find_rows(labels, lambda block: np.asarray((block < 0) | (block >= width)))
    strange = np.unique(labels[(labels < 0) | (labels >= width)]).tolist()
    raise InputError(
        "DV021",
        f"labels {listed(strange)} have no column: outputs have {width} columns (0..{width - 1}); "
        f"{found.describe(rows)}. Values such as -1 or 255 often mark rows without a label: leave these "
        "out. Other numbering: pass classes=[…], the label values in the order of the columns.",
    )


def _text(value: object) -> str:
    """A label value as text, the same for 1, 1.0 and np.int64(1)."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)
