"""A store's records found again in the evidence that is audited: by ids, else by order and labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.doors.names import listed, shown
from divulge.errors import InputError
from divulge.references.files import Rows

if TYPE_CHECKING:
    from divulge.evidence import Evidence, References


def with_references(evidence: Evidence, store: str) -> Evidence:
    """The evidence with a store's references: by ids, else in the order of the rows, checked by labels.

    A .npz of pairs comes members first: where the store knows who is a member, that order is tried too.

    Args:
        evidence: n records.
        store: the folder of `divulge references run` or `divulge.fit_references`.

    Raises:
        InputError: DV409, the records cannot be told to be the same; else as `divulge.load_references`.
    """
    from divulge.references.store import load_references, rows_of

    known = rows_of(store)
    labels = _as_stored(evidence, known.labels)
    if evidence.ids is not None and known.ids is not None:
        return replace(evidence, references=load_references(store, ids=evidence.ids, labels=labels))
    lacking = {
        "the evidence (ids beside logits and labels)": evidence.ids,
        "the store (ids in FILE.py, or ids= of fit_references)": known.ids,
    }
    add = f"Add ids to {' and to '.join(name for name, ids in lacking.items() if ids is None)}"
    count = known.trained_on.shape[1]
    if count != len(evidence):
        raise InputError(
            "DV409",
            f"the store {store} has {count:,} records, the evidence {len(evidence):,}; expected the same. {add}",
        )
    if labels is None:
        raise InputError("DV409", f"the evidence has no labels to check its records against those of {store}. {add}")
    for order in _orders(known.member, count):
        agree = known.member is None or bool((known.member[order] == evidence.member).all())
        if agree and _alike(known.labels[order], labels):
            found: References = load_references(store)
            return replace(evidence, references=found.take(order))
    if known.member is None:
        tried = "in this order their labels differ"
        add += "; or member in FILE.py, for evidence that has members first"
    else:
        tried = "neither in this order nor members first are members and labels the same"
    raise InputError("DV409", f"the store {store} and the evidence have {count:,} records each, but {tried}. {add}")


def _orders(member: NDArray[np.bool_] | None, count: int) -> list[NDArray[np.int64]]:
    """The store's rows as they may stand in the evidence."""
    if member is None:
        return [np.arange(count)]
    return [np.arange(count), np.argsort(~member, kind="stable")]


def _as_stored(evidence: Evidence, stored: NDArray[Any]) -> NDArray[Any] | None:
    """The evidence's labels as the user's, whose names its classes are."""
    labels, classes = evidence.labels, evidence.classes
    if labels is None or classes is None or labels.ndim != 1 or labels.dtype.kind not in "iu" or stored.ndim != 1:
        return labels
    values = np.array(classes)
    if stored.dtype.kind not in "UO":
        try:
            values = values.astype(float)
        except ValueError:
            return labels
    named: NDArray[Any] = values[labels]
    return named


def _alike(stored: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Whether labels are the same, as they are or once each is numbered in the order of its values."""
    from divulge.doors.arrays import distinct, is_text

    if stored.ndim == 2 and labels.ndim == 1:  # one-hot
        stored = stored.argmax(axis=1)
    if stored.shape != labels.shape:
        return False
    if is_text(stored) == is_text(labels) and bool((stored == labels).all()):
        return True
    if stored.ndim == 1 and stored.dtype.kind == "f" and labels.dtype.kind == "f":
        return bool(np.isclose(stored, labels, rtol=1e-6, atol=0).all())  # one may have been a float32
    return stored.ndim == 1 and bool((distinct(stored)[1] == distinct(labels)[1]).all())


def chosen_rows(rows: Rows, ids: ArrayLike | None, labels: ArrayLike | None) -> NDArray[np.int64]:
    """The store's rows that are asked for, once ids and labels were checked."""
    from divulge.doors.arrays import to_array

    count = rows.trained_on.shape[1]
    chosen = np.arange(count)
    if ids is not None:
        if rows.ids is None:
            raise InputError("DV409", "expected a store with ids, got one without. Give ids= to fit_references too.")
        chosen = _positions(_texts(rows.ids), _texts(to_array(ids, "ids", set())))
    if labels is None:
        return chosen
    given = to_array(labels, "labels", set())
    if len(given) != len(chosen):
        raise InputError(
            "DV409", f"expected {len(chosen):,} labels, as many as the store's records, got {len(given):,}. Give ids."
        )
    if differing := _differing(rows.labels, chosen, given):
        raise InputError(
            "DV409",
            f"expected the labels of the store's records, got {differing:,} of {len(given):,} that differ: the order "
            "or the data is another. Give ids= here and to fit_references, or train references on this data.",
        )
    return chosen


def _texts(ids: NDArray[Any]) -> NDArray[Any]:
    """(n,) ids as text, numbers without their type: 7, 7.0 and "7" alike."""
    if ids.ndim != 1:
        raise InputError("DV409", f"expected (n,) ids, got shape {ids.shape}.")
    if ids.dtype.kind == "f":
        whole = np.isfinite(ids) & (np.abs(ids) < 2**53)
        if whole.all() and (ids == np.round(ids)).all():
            ids = ids.astype(np.int64)
    return ids.astype(str)


def _positions(stored: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    order = np.argsort(stored, kind="stable")
    ordered = stored[order]
    first, last = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    for what, rows in (("lacks", first == last), ("has more than once", last - first > 1)):
        if rows.any():
            few = listed([shown(str(text)) for text in wanted[rows][:100]], limit=3)
            raise InputError(
                "DV409",
                f"expected each id once in the store, got {int(rows.sum()):,} of {len(wanted):,} that it {what}: "
                f"{few}. Use the ids that fit_references got, one a record.",
            )
    return order[first].astype(np.int64)


def _differing(stored: NDArray[Any], chosen: NDArray[np.int64], given: NDArray[Any]) -> int:
    """How many labels differ, as they are or as codes of the sorted classes: evidence holds labels coded."""
    from divulge.doors.arrays import distinct, is_text

    own = stored[chosen]
    if own.shape != given.shape:
        return len(given)
    if is_text(own) == is_text(given):
        if is_text(own) or own.dtype.kind != "f" or given.dtype.kind != "f":
            unlike = own != given
        else:
            unlike = ~np.isclose(own, given, rtol=1e-6, atol=0, equal_nan=True)  # one may have been a float32
        plain = int(unlike.reshape(len(given), -1).any(axis=1).sum())
    else:
        plain = len(given)
    if not plain or own.ndim > 1:
        return plain
    classes, codes = distinct(stored)
    numbers = not is_text(given) and given.dtype.kind in "iub"
    within = numbers and len(given) > 0 and int(given.min()) >= 0 and int(given.max()) < len(classes)
    return min(plain, int((codes[chosen] != given).sum())) if within else plain
