"""Flat names and whole arrays -> checked, normalised `Evidence`. Every door ends here."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from divulge.doors.arrays import Rows, check_finite, distinct, find_rows, is_text
from divulge.doors.labels import Labels, check_codes, read_classes, read_codes, read_labels
from divulge.doors.names import KEYS, LONGEST_TEXT, LOW_FOR_MEMBERS, OUTPUTS, listed, shown, unknown
from divulge.doors.outputs import Outputs, read_outputs, sums_error, to_float
from divulge.errors import InputError
from divulge.evidence import Evidence, References

logger = logging.getLogger("divulge")
Flat = dict[str, NDArray[Any]]


def assemble(
    flat: Flat,
    member: NDArray[np.bool_],
    rows: Rows,
    notes: set[str],
    *,
    classes: Sequence[object] | None = None,
    lower_is_member: Sequence[str] = (),
    references: References | None = None,
    settled: bool = False,
    like: Evidence | None = None,
) -> Evidence:
    """Evidence from arrays under flat names, all checks done.

    Args:
        flat: flat name -> (n, …); see the package's docstring. Emptied as it is read, so that nothing is held
            twice.
        member: (n,) bool.
        rows: names rows in messages.
        notes: what the doors already want to have logged; written out here, one line each.
        classes: label values in the order of the columns.
        lower_is_member: names under `signals` to negate.
        references: passed on.
        settled: the labels are as divulge itself saved them, so they are checked and not read again.
        like: other rows of the same table, which say how labels are to be read; then one side may be missing, and
            nothing is logged.

    Raises:
        InputError: DV001 to DV024.

    >>> evidence = assemble({"loss": np.array([1.0, 2.0])}, np.array([True, False]), Rows(None), set())
    >>> evidence.signals["loss"].tolist()
    [-1.0, -2.0]
    """
    if like is None:
        _check_sides(member, rows)
    else:
        classes, settled = _read_alike(flat, like, rows, settled)
    _check_names(flat)
    outputs = _outputs(flat, rows, notes, few=like is not None)
    names = read_classes(classes)
    if names is not None and outputs is not None and outputs.width != len(names):
        raise InputError(
            "DV023",
            f"classes has {len(names)} names and the outputs tell {outputs.width} classes apart (0: a regression).",
        )
    labels = _labels(flat, outputs, names, rows, notes, settled)
    multilabel = labels is not None and labels.values.ndim == 2
    if outputs is not None and outputs.bad_sums is not None and not multilabel:
        raise sums_error(outputs, outputs.bad_sums, rows)
    signals = _signals(flat, lower_is_member, rows)
    traces = _matrix(flat, "traces", rows)
    if outputs is None and not signals and traces is None and references is None:
        raise InputError(
            "DV015",
            "there is nothing to attack: expected outputs (logits, probs or predictions), a signal (loss, "
            f"nll, entropy, perplexity, signals={{…}}), traces or references."
            f"{_unnamed_outputs(flat, labels is None)}",
        )
    kinds: dict[str, Literal["logits", "probs"] | None] = {"logits": "logits", "probs": "probs"}
    evidence = Evidence(
        member,
        labels=labels.values if labels is not None else None,
        outputs=outputs.values if outputs is not None else None,
        kind=kinds.get(outputs.name) if outputs is not None else None,
        signals=signals,
        columns=_columns(flat),
        features=_matrix(flat, "features", rows),
        ids=_keys(flat, "ids", rows),
        groups=_keys(flat, "groups", rows),
        references=references,
        traces=traces,
        classes=labels.classes if labels is not None else names,
    )
    if flat:
        raise unknown("the name", next(iter(flat)), [*KEYS[:-2], "signal_<name>", "column_<name>"])
    if like is not None:
        evidence = _widened(evidence, like)
        check_alike(evidence, like)
        return evidence
    for note in sorted(notes):
        logger.info(note)
    return evidence


def _unnamed_outputs(flat: Flat, unlabelled: bool) -> str:
    """How to say of a table's columns that they are outputs, where none is called so."""
    columns = [name.removeprefix("column_") for name in flat if name.startswith("column_")]
    numbers = [name for name in columns if flat[f"column_{name}"].dtype.kind in "fiu"]
    if not numbers:
        return ""
    first = numbers[:2]
    typed = [shlex.quote(name) if name.isprintable() and len(name) <= 40 else "COLUMN" for name in first]
    shell = "".join(f" --outputs {name}" for name in typed)
    label = " and label=… (--label COLUMN)" if unlabelled else ""
    return (
        f" The columns {listed(columns, 20)} are called none of these. If some are outputs, name them, one a class "
        f"in order, with outputs=[…] and kind=…{label}; in the shell{shell} --kind probs."
    )


def _read_alike(flat: Flat, like: Evidence, rows: Rows, settled: bool) -> tuple[Sequence[object] | None, bool]:
    """The classes by which labels are read, and whether they stay as they are: as those of other rows were."""
    labels = flat.get("labels")
    if labels is None or like.labels is None:
        return like.classes, settled
    if like.labels.ndim == 2 and labels.ndim == 2 and not is_text(labels) and np.isin(labels, (0, 1)).all():
        flat["labels"] = labels.astype(np.bool_)  # a block of one label each would be read as one-hot
        return like.classes, True
    if like.outputs is None and like.classes is None:
        if like.labels.dtype.kind == "f" and not is_text(labels):
            flat["labels"] = to_float(labels)
        elif not settled:
            flat["labels"] = read_codes(labels, rows)
        return None, True  # codes, of which a block may lack some
    return like.classes, settled


def _widened(evidence: Evidence, like: Evidence) -> Evidence:
    """The same rows, floats as wide as in others: whole numbers are float64 only in blocks that have large ones."""

    def widened(array: Any, other: Any) -> Any:
        if array is None or other is None or array.dtype.kind != "f" or array.dtype == other.dtype:
            return array
        if is_text(other) and np.isnan(array).all():
            return np.full(len(array), "")  # a file of which a text column is missing throughout
        return array.astype(np.result_type(array, other)) if other.dtype.kind == "f" else array

    found: dict[str, Any] = {
        name: widened(getattr(evidence, name), getattr(like, name))
        for name in ("labels", "outputs", "features", "traces")
    }
    for name in ("signals", "columns"):
        others = getattr(like, name)
        found[name] = {one: widened(array, others.get(one)) for one, array in getattr(evidence, name).items()}
    return replace(evidence, **found)


def check_alike(evidence: Evidence, like: Evidence) -> None:
    """That blocks of one table hold the same fields, of the same widths.

    Raises:
        InputError: DV018, they do not.
    """
    for name in ("task", "kind"):
        found, expected = getattr(evidence, name), getattr(like, name)
        if found != expected:
            raise InputError("DV018", f"these rows have the {name} {found}, those before them {expected}.")
    if evidence.classes != like.classes:
        raise other_classes(evidence.classes, like.classes)
    for name in ("labels", "outputs", "features", "ids", "groups", "traces"):
        shapes = [
            None if array is None else array.shape[1:] for array in (getattr(evidence, name), getattr(like, name))
        ]
        if shapes[0] != shapes[1]:
            words = [
                "no such column" if shape is None else f"shape (n, {', '.join(map(str, shape))})" for shape in shapes
            ]
            raise InputError("DV018", f"{name}: these rows have {words[0]}, those before them {words[1]}.")
    for name in ("signals", "columns"):
        found, expected = set(getattr(evidence, name)), set(getattr(like, name))
        if found != expected:
            strange = sorted(found ^ expected)
            raise InputError("DV018", f"{name}: {listed(strange)} is not in all blocks; expected the same in each.")


def other_classes(found: Sequence[str] | None, expected: Sequence[str] | None) -> InputError:
    """The error for rows whose labels are coded otherwise than those of others."""
    named = ["no names of classes" if names is None else f"the classes {listed(names)}" for names in (found, expected)]
    return InputError(
        "DV018",
        f"these rows have {named[0]}, those before them {named[1]}: one code would be two classes. "
        "Make all with the same classes=[…].",
    )


def _check_sides(member: NDArray[np.bool_], rows: Rows) -> None:
    count = int(np.count_nonzero(member))
    for side, size in (("members", count), ("non-members", len(member) - count)):
        if size == 0:
            raise InputError(
                "DV005",
                f"there are no {side}: {count:,} members and {len(member) - count:,} non-members came in, "
                "and an audit compares the two. Give records that the model was trained on, and fresh ones "
                "of the same kind.",
            )


def _check_names(flat: Flat) -> None:
    for name in flat:
        if len(name) > LONGEST_TEXT:
            raise InputError("DV007", f"a name has {len(name):,} characters: {shown(name)}; at most {LONGEST_TEXT:,}.")


def _outputs(flat: Flat, rows: Rows, notes: set[str], *, few: bool) -> Outputs | None:
    given = [name for name in OUTPUTS if name in flat]
    if "predictions" in given and len(given) > 1:
        raise InputError(
            "DV008",
            f"{' and '.join(given)} are both given: predictions are a regression's, the others a classifier's.",
        )
    if given == ["logits", "probs"]:
        notes.add("probs are not used: logits are there, and lose less")
        del flat["probs"]
    return read_outputs(flat.pop(given[0]), given[0], rows, notes, few=few) if given else None


def _labels(
    flat: Flat,
    outputs: Outputs | None,
    classes: tuple[str, ...] | None,
    rows: Rows,
    notes: set[str],
    settled: bool,
) -> Labels | None:
    labels = flat.pop("labels", None)
    if labels is None:
        return None
    if not settled:
        return read_labels(labels, outputs, classes, rows, notes)
    check_codes(labels, outputs, classes, rows)
    return Labels(labels, classes)


def _signals(flat: Flat, lower_is_member: Sequence[str], rows: Rows) -> Flat:
    """The user's signals, higher = more member-like: what is low for members is negated, only here."""
    signals: Flat = {}
    given = [name for name in flat if name.startswith("signal_")]
    lower = [lower_is_member] if isinstance(lower_is_member, str) else list(lower_is_member)
    for name in lower:
        if f"signal_{name}" not in flat:
            raise unknown("lower_is_member", name, [own.removeprefix("signal_") for own in given])
    for name in [*given, *(own for own in LOW_FOR_MEMBERS if own in flat)]:
        short = name.removeprefix("signal_")
        if short in signals:
            raise InputError("DV008", f"the signal {short} is given twice, as {short} and under signals. Give one.")
        values = _signal(flat.pop(name), name, rows)
        signals[short] = -values if name in LOW_FOR_MEMBERS or short in lower else values
    return signals


def _signal(values: NDArray[Any], name: str, rows: Rows) -> NDArray[Any]:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if is_text(values) or values.ndim != 1:
        raise InputError(
            "DV003",
            f"{name} is {_kind(values)} of shape {values.shape}, expected (n,) numbers: one a record.",
        )
    check_finite(values, name, rows, "An infinite loss comes from a probability of exactly 0: give the logits instead.")
    values = to_float(values)
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _matrix(flat: Flat, name: str, rows: Rows) -> NDArray[Any] | None:
    """Features and traces: (n, d) finite floats; more axes are laid side by side."""
    if name not in flat:
        return None
    values = flat.pop(name)
    if is_text(values):
        raise InputError("DV002", f"{name} holds text, expected numbers. Encode categories as numbers first.")
    check_finite(values, name, rows)
    values = to_float(values)
    values = values.astype(np.float32) if values.dtype == np.float16 else values
    return values if values.ndim == 2 else values.reshape(len(values), -1)


def _columns(flat: Flat) -> Flat:
    columns: Flat = {}
    for name in [name for name in flat if name.startswith("column_")]:
        values = flat.pop(name)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        short = name.removeprefix("column_")
        if values.ndim != 1:
            raise InputError("DV003", f"the column {shown(short)} has shape {values.shape}, expected (n,).")
        columns[short] = values.astype(np.float32) if values.dtype == np.float16 else values
    return columns


def _keys(flat: Flat, name: str, rows: Rows) -> NDArray[Any] | None:
    """Identities, `ids` and `groups`: (n,) integers or text, none missing."""
    if name not in flat:
        return None
    values = flat.pop(name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError("DV003", f"{name} has shape {values.shape}, expected (n,).")
    if is_text(values):
        missing = find_rows(values, lambda block: np.asarray(block == ""))
        if missing.bad:
            raise InputError("DV006", f"{name} is missing in {missing.describe(rows)}; expected one for each record.")
        return values
    check_finite(values, name, rows, f"{name} are missing there: give every record one.")
    whole = values.astype(np.int64)
    if values.dtype.kind == "f" and (whole != values).any():
        raise InputError("DV002", f"{name} are fractions, expected whole numbers or text.")
    return whole


def _kind(values: NDArray[Any]) -> str:
    return f"text ({listed(distinct(values.ravel())[0], 2)})" if is_text(values) else str(values.dtype)
