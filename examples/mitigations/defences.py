"""What is tried against the leak, and the loop that trains with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from data import Data, Images, augmented

import divulge


class Defence(NamedTuple):
    """One way to train.

    patience: stop after so many epochs without a better validation loss, and take the best epoch's weights; 0: never.
    noise: multiplier of DP-SGD's; None: trained plainly.
    """

    name: str
    epochs: int
    dropout: float = 0.0
    decay: float = 0.0
    augment: bool = False
    patience: int = 0
    noise: float | None = None
    rate: float = 1e-3
    batch: int = 50
    delta: float = 1e-4


def defences(epochs: int) -> list[Defence]:
    """All that are compared; the first is none, for as many epochs."""
    return [
        Defence("no defence", epochs),
        Defence("early stopping", epochs, patience=5),
        Defence("dropout + weight decay", epochs, dropout=0.5, decay=0.05),
        Defence("augmentation", epochs, augment=True),
        *(
            Defence(f"DP-SGD, noise {noise:g}", -(-5 * epochs // 8), noise=noise, rate=2e-3, batch=100)
            for noise in (0.3, 0.7, 1.3)
        ),
    ]


class Learner(Protocol):
    """A network in training, of one framework."""

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        """Train on all images once."""

    def loss(self, images: Images) -> float:
        """Mean cross entropy."""

    def weights(self) -> object:
        """A copy."""

    def restore(self, weights: object) -> None:
        """Take a copy back."""

    def epsilon(self) -> float | None:
        """Of the statement (epsilon, delta), at the defence's delta; None: trained without noise."""

    def evidence(self, members: Images, others: Images) -> divulge.Evidence:
        """What the network says of both sides."""


def train(learner: Learner, defence: Defence, data: Data, seed: int, seen: Callable[[int], None]) -> int:
    """Train; `seen` is called after each epoch. The epoch whose weights are kept."""
    rng = np.random.default_rng(seed)
    best, kept, weights = float("inf"), defence.epochs, None
    for epoch in range(1, defence.epochs + 1):
        x = augmented(data.members.x, data.flips, rng) if defence.augment else data.members.x
        learner.epoch(x, data.members.y)
        seen(epoch)
        if not defence.patience:
            continue
        loss = learner.loss(data.validation)
        if loss < best:
            best, kept, weights = loss, epoch, learner.weights()
        elif epoch - kept >= defence.patience:
            break
    if weights is not None:
        learner.restore(weights)
    return kept
