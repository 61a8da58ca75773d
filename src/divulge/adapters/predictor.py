"""What every adapter gives: a way from a batch of inputs to a batch of outputs, and what those are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from divulge.errors import InputError

#: What a probability may differ by from the same one computed from logits in half precision.
ALIKE = 2e-3


class Predictor(NamedTuple):
    """How to score with a model that stands ready (evaluation mode, its device), and what comes out.

    Attributes:
        predict: from a batch of inputs, as the data gave them, to (b, c) or (b,) numbers of any array kind.
        kind: what they are. "logits" that turn out to be probabilities are called probs by `collect`.
        classes: the label values in the order of the columns, where the model knows them.
        names: the names of the columns: what labels are if they are text; ints are column numbers.
        apart: whether the layer that was undone is a sigmoid of each column by itself; asked after `predict`.
        doubtful: whether predictions may be a classifier's logits after all, for what the model knows.

    >>> Predictor(lambda x: x).kind
    'logits'
    """

    predict: Callable[[Any], Any]
    kind: Literal["logits", "probs", "predictions"] = "logits"
    classes: Sequence[object] | None = None
    names: Sequence[str] | None = None
    apart: Callable[[], bool] = lambda: False
    doubtful: bool = False


class Adapter(Protocol):
    """A module of this package: `predictor` makes a model ready, and leaves it as it was."""

    def predictor(self, model: Any, sample: Any) -> AbstractContextManager[Predictor]:
        """Make ready for scoring; `sample` is the inputs of the first batch, to try things on."""


def needed(module: str, extra: str) -> Any:
    """A framework's module, or what to install.

    Raises:
        InputError: DV071, it is not installed.

    >>> needed("math", "none").pi > 3
    True
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            "DV071", f"expected {module} to be installed, got: {error}. Install it: pip install 'divulge[{extra}]'"
        ) from error


def gives(logits: object, probs: object, *, apart: bool = True) -> bool:
    """Whether a softmax or sigmoid makes these probabilities of these logits: the test of an undone last layer.

    Args:
        logits: (b, c), (b, 1) or (b,).
        probs: the same shape, or (b, 2) beside (b,).
        apart: whether a sigmoid of each of several columns will do: what fits several labels a record, and no others.

    >>> gives([[0.0, 0.0]], [[0.5, 0.5]]), gives([0.0], [[0.5, 0.5]]), gives([[3.0, 0.0]], [[0.5, 0.5]])
    (True, True, False)
    """
    z, p = np.asarray(logits, np.float64), np.asarray(probs, np.float64)
    if z.ndim == 1 and p.ndim == 2 and p.shape[1] == 2:
        p = p[:, 1]
    if z.shape != p.shape or not z.size or not z.ndim:
        return False
    candidates = [_sigmoid(z)] if apart or z.ndim == 1 or z.shape[1] == 1 else []
    if z.ndim == 2:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        candidates.append(e / e.sum(axis=1, keepdims=True))
    return any(bool(np.allclose(candidate, p, rtol=0, atol=ALIKE)) for candidate in candidates)


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -z))
