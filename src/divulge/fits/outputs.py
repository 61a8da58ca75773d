"""What a trained model says, in the form that the signals of reference models are read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import Predictor
from divulge.doors.arrays import distinct, to_array
from divulge.errors import InputError

_LOG_ZERO = float(np.log(np.finfo(np.float32).tiny))

Predict = Callable[[Any, NDArray[np.int64], int], NDArray[Any]]
"""From (data, (k,) rows, the query's number) to (k, c) or (k,) logits, probabilities or predictions."""


def one_query(query: int) -> None:
    """Refuses a query of which a fit by itself knows nothing.

    Raises:
        InputError: DV003, another query than the first.

    >>> one_query(0)
    """
    if query:
        raise InputError(
            "DV003",
            f"expected one query a record, got query {query}: a model says the same of the same inputs. Give the "
            "views of a record that it is to be asked about: divulge.fits.Views(fit, [as_it_is, mirrored])",
        )


def pair(data: Any) -> tuple[Any, Any]:
    """Inputs and labels of data; weights beside them are refused, since no fit here would heed them.

    Raises:
        InputError: DV003, data that are not (x, y).

    >>> pair(([[0.0]], [1]))
    ([[0.0]], [1])
    """
    if isinstance(data, tuple | list) and len(data) == 2:
        return data[0], data[1]
    found = f"{len(data)} parts" if isinstance(data, tuple | list) else f"a {type(data).__name__}"
    raise InputError(
        "DV003",
        f"expected data to be (x, y), got {found}. Sample weights and other parts are not passed on: for them write "
        "def fit(data, rows, seed): that trains on these rows and returns predict(data, rows, query)",
    )


def codes_of(labels: Any) -> NDArray[Any]:
    """Labels as the networks are trained on them.

    Args:
        labels: (n,) ints from 0, which stay; other ints, texts, bools or floats of 0 and 1, which become the numbers
            of their sorted values; (n,) other floats; (n, c), several a record, which become float32.

    Returns:
        (n,) int64 or float64, (n, c) float32.

    >>> codes_of(["dog", "cat"]).tolist(), codes_of([2, 0]).tolist(), codes_of([0.5, 2.0]).tolist()
    ([1, 0], [2, 0], [0.5, 2.0])
    """
    y = to_array(labels, "labels", set())
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2:
        return y.astype(np.float32)
    if y.dtype.kind == "f" and not np.isin(y, (0, 1)).all():
        return y.astype(np.float64)
    if y.dtype.kind in "iu" and (not len(y) or int(y.min()) >= 0):
        return y.astype(np.int64)
    return distinct(y)[1].astype(np.int64)


def of_all_classes(ready: Predictor, outputs: Any, present: NDArray[np.int64], count: int) -> NDArray[Any]:
    """A classifier's outputs with a column for each class of the data, also those that its rows lacked.

    Those have the probability 0; among logits, one of 1e-38, as which the signals read a 0. Of two classes there are
    two columns, so that no value is taken for a probability that is none.

    Args:
        ready: what the outputs are.
        outputs: (k, c') or, of two classes, (k,).
        present: (c',) the numbers of its classes among all.
        count: c, of all classes.

    Returns:
        (k, c) of the outputs' own float dtype.

    >>> of_all_classes(Predictor(abs, kind="probs"), [[0.25, 0.75]], np.array([0, 2]), 3).tolist()
    [[0.25, 0.0, 0.75]]
    >>> of_all_classes(Predictor(abs), [3.0], np.array([0, 1]), 2).tolist()
    [[-1.5, 1.5]]
    """
    values = np.asarray(outputs)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1 and len(present) == 1:
        values = values[:, None]
    if values.ndim == 1 and len(present) == 2:
        values = np.stack([1 - values, values] if ready.kind == "probs" else [-values / 2, values / 2], axis=1)
    if values.ndim != 2 or values.shape[1] != len(present):
        raise InputError(
            "DV075", f"the model gave outputs of shape {values.shape}, expected a column for each of {len(present)}"
        )
    kind = ready.kind
    if kind == "logits" and len(present) > 2 and ready.apart():
        values, kind = normalised(values, True, present), "probs"
    if len(present) == count:
        return values
    absent = np.zeros((len(values), 1), values.dtype)
    if kind == "logits":
        top = values.max(axis=1, keepdims=True)
        absent = top + np.log(np.exp(values - top).sum(axis=1, keepdims=True)) + _LOG_ZERO
    spread = np.repeat(absent, count, axis=1)
    spread[:, present] = values
    return spread


def normalised(outputs: NDArray[Any], apart: bool, labels: Any, *, logits: bool = False) -> NDArray[Any]:
    """Outputs as they are, where nothing can be mistaken.

    Where each of several columns is a sigmoid's and a record has one label: probabilities. One logit of two classes:
    two columns, so that no model whose logits all lie in 0..1 is taken to give probabilities.

    Args:
        outputs: (k, c) or (k,).
        apart: whether a sigmoid of each column was undone.
        labels: (n,) or (n, c).
        logits: whether they are known to be logits.

    >>> normalised(np.array([[0.0, 0.0, 0.0, 0.0]]), True, np.array([3])).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    >>> normalised(np.array([0.5, 1.0]), False, np.array([0, 1, 1]), logits=True).tolist()
    [[-0.25, 0.25], [-0.5, 0.5]]
    """
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        z = outputs.reshape(-1) / 2
        return np.stack([-z, z], axis=1) if (apart or logits) and _of_classes(labels) else outputs
    if not apart or np.ndim(labels) > 1:
        return outputs
    log_p = -np.logaddexp(0, -outputs)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _of_classes(labels: Any) -> bool:
    """Whether labels are one a record and of classes: no floats but 0 and 1."""
    y = to_array(labels, "labels", set())
    return y.ndim == 1 and (y.dtype.kind != "f" or bool(np.isin(y, (0, 1)).all()))
