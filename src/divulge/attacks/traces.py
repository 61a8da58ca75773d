"""Attacks on the training itself: from the loss of each record after every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.errors import InputError, Unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

KINDS = ("iqr", "mean", "slope")


@dataclass(frozen=True)
class Traces:
    """A record's losses over the epochs in one number, higher = more member-like.

    Its attacker has watched the training (a federated server, whoever holds the checkpoints): stronger than one who
    sees the finished model alone, so no set but "thorough" runs it. It tells which records are at risk, with no other
    model trained.

    Attributes:
        kind: "iqr", how far the loss moved: its upper quartile minus its lower; "mean", how low it was: minus the mean;
            "slope", how fast it fell: minus the least-squares slope an epoch.

    Raises:
        InputError: DV056, no kind of that name.

    Source: Pollock et al. 2024, Free record-level privacy risk evaluation through artifact-based methods (iqr).

    >>> from divulge.evidence import Evidence
    >>> traces = np.array([[2., 1., 0., 0.], [2., 2., 2., 2.]])
    >>> Traces("iqr")(Evidence(np.array([True, False]), traces=traces), np.random.default_rng(0)).tolist()
    [1.25, 0.0]
    """

    kind: str = "iqr"

    needs: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[float] = 3.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError("DV056", f"there is no attack traces({self.kind!r:.80}); known: {', '.join(KINDS)}")

    def __str__(self) -> str:
        return f"traces({self.kind})"

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.float64]:
        """(n,) float64 in the unit of the losses, NaN where one is."""
        if evidence.traces is None:
            raise Unavailable("needs each record's loss after every epoch (traces)")
        return summary(evidence.traces, self.kind)


def summary(traces: NDArray[np.floating], kind: str) -> NDArray[np.float64]:
    """(n,) a kind of `Traces` of (n, e) losses.

    Raises:
        Unavailable: fewer than 2 epochs, which do not move.

    >>> summary(np.array([[3., 2., 1.]]), "slope").tolist()
    [1.0]
    """
    epochs = traces.shape[1]
    if epochs < 2:
        raise Unavailable(f"needs losses of at least 2 epochs, has {epochs}")
    found = np.empty(len(traces))
    time = np.arange(epochs) - (epochs - 1) / 2

    def block(rows: slice) -> None:
        losses = traces[rows].astype(np.float64)
        if kind == "iqr":
            low, high = np.quantile(losses, [0.25, 0.75], axis=1)
            found[rows] = high - low
        elif kind == "mean":
            found[rows] = -losses.mean(axis=1)
        else:
            found[rows] = -(losses @ time) / (time @ time)

    with np.errstate(invalid="ignore"):  # of losses without bound
        over_rows(block, len(traces), epochs * 8)
    return found
