"""What the adapters' tests share: records, and log-probabilities by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

M, N, D = 70, 45, 6


def records(classes: int = 3, seed: int = 0) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(x, y) of members and of non-members, float32 and int64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(M + N, D)).astype(np.float32)
    y = np.argmax(x[:, :classes] + rng.normal(size=(M + N, classes)), axis=1)
    return (x[:M], y[:M]), (x[M:], y[M:])


def everything(sides: Any) -> tuple[Any, Any]:
    """Both sides as one, members first: the order of Evidence."""
    return np.concatenate((sides[0][0], sides[1][0])), np.concatenate((sides[0][1], sides[1][1]))


def log_softmax(logits: Any) -> Any:
    """Naively, in float64."""
    z = np.asarray(logits, np.float64)
    if z.ndim == 1:  # one logit, of class 1
        z = np.stack((np.zeros_like(z), z), axis=1)
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def assert_same(evidence: Any, logits: Any, sides: Any) -> None:
    """The same log-probabilities as by hand, the labels and sides in the order they were given."""
    assert evidence.kind == "logits"
    assert len(evidence) == M + N
    assert evidence.member.tolist() == [True] * M + [False] * N
    np.testing.assert_allclose(log_softmax(evidence.outputs), log_softmax(logits), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(evidence.labels, everything(sides)[1])
