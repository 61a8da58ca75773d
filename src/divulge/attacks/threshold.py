"""Attacks that threshold a signal: as it is, or against the non-members of the record's own class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.row_by_row import signals_row_by_row
from divulge.errors import Unavailable
from divulge.folds import folds
from divulge.roc import rank
from divulge.signals import signal

if TYPE_CHECKING:
    from divulge.evidence import Evidence

FOLDS = 5
FEWEST = 20  # non-members of a sample
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
        labels = _classes(evidence)
        values = signal(evidence, self.signal)
        ascending = ~rank(values).keys
        fold = folds(evidence, FOLDS, int(rng.integers(2**63)))
        own, size = _place(ascending, labels.astype(np.uint64), ~evidence.member, fold)
        pooled, _ = _place(ascending, np.zeros(len(values), np.uint64), ~evidence.member, fold)
        return _shrunk(own, size, pooled, np.isnan(values))

    def fit(self, sample: Evidence, rng: np.random.Generator) -> Places:
        """The places among all non-members of a sample; rng is not used.

        Raises:
            Unavailable: no such signal, no class labels, fewer than 20 non-members.
        """
        labels, values = _classes(sample), signals_row_by_row(sample, self.signal)
        number = int((~sample.member).sum())
        if number < FEWEST:
            raise Unavailable(f"needs {FEWEST} non-members in the sample, has {number}")
        classes, codes = np.unique(labels[~sample.member], return_inverse=True)
        distinct, place = np.unique(_ordered(values[~sample.member]), return_inverse=True)
        pooled, own = np.sort(place), np.sort(codes * len(distinct) + place)
        return Places(self.signal, tuple(classes.tolist()), distinct, pooled, own)


@dataclass(frozen=True, eq=False, repr=False)
class Places:
    """What `ClassWise.fit` found: a signal's place among the sample's non-members, of its class and of all.

    Attributes:
        signal: its name.
        classes: the c classes of the sample's non-members; of any other only the place among all is told.
        distinct: (k,) float64 their signals, rising.
        pooled: (m,) int64 each non-member's number among these, rising.
        own: (m,) int64 the same plus k times the number of its class, rising.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(4000)
    >>> sample = Evidence(member=n < 2000, labels=n % 2, signals={"loss": np.sin(n) + 9.0 * (n % 2)})
    >>> other = Evidence(member=n < 2, labels=n % 2, signals={"loss": 9.0 * (n % 2)})
    >>> ClassWise().fit(sample, np.random.default_rng(0))(other)[:2].round(1).tolist()
    [0.5, 0.5]
    """

    signal: str
    classes: tuple[int, ...]
    distinct: NDArray[np.float64]
    pooled: NDArray[np.int64]
    own: NDArray[np.int64]

    def __call__(self, evidence: Evidence) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1], NaN where the signal is NaN."""
        values = signals_row_by_row(evidence, self.signal)
        ordered, width = _ordered(values), len(self.distinct)
        first = np.searchsorted(self.distinct, ordered)
        equal = self.distinct[np.minimum(first, width - 1)] == ordered
        below = np.append(0, np.cumsum(np.bincount(self.pooled, minlength=width)))
        pooled = (below[first] + below[first + equal]) / 2 / len(self.pooled)
        code = self._codes(_classes(evidence))
        starts = np.searchsorted(self.own, np.arange(len(self.classes) + 2) * width)
        start, size = starts[code], np.diff(starts)[code]
        key = code * width + first
        low = np.searchsorted(self.own, key)
        high = low.copy()
        some = np.flatnonzero(equal)
        high[some] = np.searchsorted(self.own, key[some], side="right")
        share = np.divide((low + high) / 2 - start, size, out=np.full(len(values), 0.5), where=size > 0)
        return _shrunk(share, size, pooled, np.isnan(values))

    def _codes(self, labels: NDArray[Any]) -> NDArray[np.int64]:
        """(n,) the place of each label among the classes; c of what is not among them."""
        known = np.asarray(self.classes, np.int64)
        table = np.full(max(int(known.max(initial=0)), int(labels.max(initial=0))) + 1, len(known))
        table[known] = np.arange(len(known))
        return np.asarray(table[labels])


def _classes(evidence: Evidence) -> NDArray[Any]:
    labels = evidence.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind == "f":
        raise Unavailable("class-wise thresholds need one class label a record")
    return labels


def _ordered(values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(n,) float64 as `rank` orders them: NaN first, infinity as the largest number."""
    wide = values.astype(np.float64)
    return np.where(np.isnan(wide), -np.inf, np.minimum(wide, np.finfo(np.float64).max))


def _shrunk(
    own: NDArray[np.float64], size: NDArray[np.int64], pooled: NDArray[np.float64], unknown: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(n,) place in the class, shrunk to that among all; NaN where unknown."""
    weight = size / (size + POOLED_ROWS)
    score: NDArray[np.float64] = weight * own + (1 - weight) * pooled
    score[unknown] = np.nan
    return score


def _place(
    keys: NDArray[np.uint32],
    labels: NDArray[np.uint64],
    nonmember: NDArray[np.bool_],
    fold: NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Each row's mid-distribution place among the non-members of its class in the other folds, and their number.

    What `Places` looks up for rows of any block, here for all folds at once, which is several times as fast: one sort
    by class and score; then counts are differences of running sums. No such rows: place 0.5, number 0.
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
