"""Attacks that threshold a signal: as it is, or against the non-members of the record's own class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.errors import Unavailable
from divulge.folds import folds
from divulge.roc import rank
from divulge.signals import signal

if TYPE_CHECKING:
    from divulge.evidence import Evidence

FOLDS = 5
POOLED_ROWS = 50  # a class's own distribution weighs n_c, the pooled one this many rows


@dataclass(frozen=True)
class Threshold:
    """A signal as it is: a record above the threshold is called a member.

    Source: Yeom et al. 2018 (loss); Song and Mittal 2021 (modified entropy).

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> Threshold("loss")(evidence, np.random.default_rng(0)).tolist()
    [-0.1, -2.0]
    """

    signal: str = "loss"

    def __str__(self) -> str:
        return self.signal

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals to compute beforehand."""
        return (self.signal,)

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """(n,) the signal."""
        return signal(evidence, self.signal)


@dataclass(frozen=True)
class ClassWise:
    """A signal's place among the non-members of the record's own class: one threshold a class, in effect.

    score = (n_c F_c + 50 F_pool) / (n_c + 50), F the share of non-members below plus half of those equal. Members and
    non-members are split into the same folds; the rows of a fold are placed among the non-members of the others.

    Source: Song and Mittal 2021, section 3 (class-dependent thresholds); shrinkage and folds: docs/method.md.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(4000)
    >>> evidence = Evidence(member=n < 2000, labels=n % 2, signals={"loss": np.sin(n) + 9.0 * (n % 2)})
    >>> score = ClassWise("loss")(evidence, np.random.default_rng(0))
    >>> [round(float(score[n % 2 == label].mean()), 1) for label in (0, 1)]
    [0.5, 0.5]
    """

    signal: str = "loss"

    def __str__(self) -> str:
        return f"class_wise({self.signal})"

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals to compute beforehand."""
        return (self.signal,)

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """(n,) float in [0, 1], NaN where the signal is NaN."""
        labels = evidence.labels
        if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
            raise Unavailable("class-wise thresholds need one class label a record")
        values = signal(evidence, self.signal)
        ascending = ~rank(values).keys
        fold = folds(evidence, FOLDS, int(rng.integers(2**63)))
        own, size = _place(ascending, labels.astype(np.uint64), ~evidence.member, fold)
        pooled, _ = _place(ascending, np.zeros(len(values), np.uint64), ~evidence.member, fold)
        weight = size / (size + POOLED_ROWS)
        score: NDArray[np.float64] = weight * own + (1 - weight) * pooled
        score[np.isnan(values)] = np.nan
        return score


def _place(
    keys: NDArray[np.uint32],
    labels: NDArray[np.uint64],
    nonmember: NDArray[np.bool_],
    fold: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Each row's mid-distribution place among the non-members of its class in the other folds, and their number.

    One sort by class and score; then counts are differences of running sums. No such rows: place 0.5, number 0.
    """
    packed = (labels << np.uint64(32)) | keys
    order = np.argsort(packed)
    packed = packed[order]
    run = np.flatnonzero(np.append(True, packed[1:] != packed[:-1]))
    run_of = np.repeat(np.arange(len(run)), np.diff(np.append(run, len(packed))))
    label = packed[run] >> np.uint64(32)
    first_of_label = np.flatnonzero(np.append(True, label[1:] != label[:-1]))
    label_of = np.repeat(np.arange(len(first_of_label)), np.diff(np.append(first_of_label, len(run))))
    run_edges = np.append(run, len(packed))
    label_edges = np.append(run[first_of_label], len(packed))
    place, number = np.empty(len(keys)), np.empty(len(keys), np.int64)
    fit, fold = nonmember[order], fold[order]
    for k in range(FOLDS):
        before = np.concatenate(([0], np.cumsum(fit & (fold != k))))
        at_run, at_label = before[run_edges], before[label_edges]
        size = np.diff(at_label)[label_of]
        below_or_half = (at_run[:-1] + at_run[1:]) / 2 - at_label[:-1][label_of]
        share = np.divide(below_or_half, size, out=np.full(len(run), 0.5), where=size > 0)
        rows = np.flatnonzero(fold == k)
        place[order[rows]], number[order[rows]] = share[run_of[rows]], size[run_of[rows]]
    return place, number
