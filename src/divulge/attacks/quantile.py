"""How far a record's signal lies above what non-members like it get: the quantile attack.

Both sides are split into the same folds, and the rows of a fold, members and non-members, are scored by one fit on the
non-members of the others: the mean of the folds for members, or the full fit, would bend the tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.columns import CLASS, FEATURES, Encoding, codes_among, column_names, read_columns
from divulge.attacks.expectation import PROBABILITY, Fitted, Floats, Known, Probability, fit_expectation
from divulge.attacks.knowledge import floor_of_kind, limit_of
from divulge.attacks.row_by_row import in_canonical_order, row_by_row, steady
from divulge.blocks import in_parallel_alone
from divulge.errors import InputError, Unavailable
from divulge.folds import folds
from divulge.signals import signal, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

FOLDS = 5
FEWEST = 20  # non-members that a fit needs
MODELS = ("linear", "boosting", "class")
_COSTS = {"linear": 800.0, "boosting": 500.0, "class": 6.0}
_SIGNAL = "log_odds"


@dataclass(frozen=True)
class Quantile:
    """How far a record's signal lies above what is expected of a non-member with its class and features.

    "linear" (the mean of the quantiles 0.25, 0.5 and 0.75) and "boosting" (the median) are fitted to the non-members'
    inputs, class and the columns that are named. score = signal - 0.6 expected - 0.4 pooled, all on a scale that
    far-off values do not stretch. Not all is taken away, since a model that remembers its members answers easy and hard
    ones alike: a wrong answer on a hard record would rank above a right one on an easy one. "class" knows the class
    alone: score = (signal - mean) / deviation of its non-members, both shrunk to the pooled.

    Attributes:
        model: "linear", "boosting" or "class".
        signal: its name; where there are no log-odds "loss", else "confidence", else the first signal that was given.
        columns: names of `evidence.columns` that the attacker knows besides. Not for "class".

    Raises:
        InputError: DV056, no model of that name, a signal or columns that are no names.

    Source: Bertran et al. 2023, Scalable membership inference attacks via quantile regression; the shares and scales
    are of ours, chosen on Fashion-MNIST and made-up data.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> hardness = np.sin(n)  # hides what members gain
    >>> evidence = Evidence(n < 1000, features=hardness[:, None], signals={"mine": 9 * hardness + (n < 1000)})
    >>> score = Quantile("boosting", "mine")(evidence, np.random.default_rng(0))
    >>> round(float((score[:1000, None] > score[None, 1000:]).mean()), 1)
    0.6
    """

    model: str = "linear"
    signal: str = _SIGNAL
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise InputError("DV056", f"there is no model {self.model!r:.80}; known: {', '.join(MODELS)}")
        if not isinstance(self.signal, str):
            raise InputError("DV056", f"expected the name of a signal, such as 'log_odds', got {self.signal!r:.80}")
        object.__setattr__(self, "columns", column_names(self.columns))
        if self.model == "class" and self.columns:
            raise InputError("DV056", f"the model 'class' knows no columns, got {self.columns!r:.80}; use 'linear'")

    def __str__(self) -> str:
        own = [] if self.signal == _SIGNAL else [f"signal={self.signal}"]
        return f"quantile({', '.join([self.model, *self.columns, *own])})"

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals to compute beforehand."""
        return (self.signal,)

    @property
    def cost(self) -> float:
        """About how many times as long as a threshold attack it takes."""
        return _COSTS[self.model]

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float64, NaN where the signal is.

        Raises:
            Unavailable: no such signal; nothing to fit it to; too few non-members.
        """
        name = self._signal_of(evidence)
        values, (known, _) = _finite(evidence, name, _limit(evidence, name)), self._knowledge(evidence)
        fold = folds(evidence, FOLDS, int(rng.integers(2**63)))
        seeds = rng.integers(2**31, size=FOLDS).tolist()
        order = in_canonical_order(evidence)
        order = order[~np.isnan(values[order])]
        values, known, fold = values[order], known.take(order), fold[order]
        nonmember = ~evidence.member[order]
        _check_enough(min(int((nonmember & (fold != k)).sum()) for k in range(FOLDS)))
        probability = _probability(evidence, name)

        def scored(k: int) -> Floats:
            inside, outside = fold == k, nonmember & (fold != k)
            fitted = self._fitted(values[outside], known.take(outside), probability, seeds[k])
            return fitted.score(values[inside], known.take(inside))

        scores = np.full(len(evidence), np.nan)
        for k, found in enumerate(in_parallel_alone(scored, range(FOLDS))):
            scores[order[fold == k]] = found
        return scores

    def fit(self, sample: Evidence, rng: np.random.Generator) -> QuantileScorer:
        """One fit to all non-members of a sample, that scores other records.

        A class that the sample lacks is expected to be like all of them, a value of a column none of the known.

        Raises:
            Unavailable: no such signal; nothing to fit it to; too few non-members.
        """
        seed = int(rng.integers(2**31))
        sample = steady(sample)
        sample = sample.take(in_canonical_order(sample))
        name = self._signal_of(sample)
        limit = _limit(sample, name)
        values, (known, reading) = _finite(sample, name, limit), self._knowledge(sample)
        rows = ~sample.member & ~np.isnan(values)
        _check_enough(int(rows.sum()))
        probability = _probability(sample, name)
        (fitted,) = in_parallel_alone(
            lambda seed: self._fitted(values[rows], known.take(rows), probability, seed), [seed]
        )
        return QuantileScorer(self, name, limit, reading, fitted.row_by_row())

    def _fitted(self, values: Floats, known: Known, probability: Probability | None, seed: int) -> Fitted:
        """To non-members' signals; see `Fitted.score`."""
        return fit_expectation(self.model, values, known, probability, seed)

    def _signal_of(self, evidence: Evidence) -> str:
        others = ("loss", "confidence", *evidence.signals) if self.signal == _SIGNAL else ()
        for name in (self.signal, *others):
            if why_unavailable(evidence, name) is None:
                return name
        raise Unavailable(str(why_unavailable(evidence, self.signal)))

    def _knowledge(self, evidence: Evidence, reading: _Reading | None = None) -> tuple[Known, _Reading]:
        """What a fit may look at, and how it was read; or as it was read in others."""
        labels = evidence.labels
        one = labels is not None and labels.ndim == 1 and labels.dtype.kind != "f"
        if self.model == "class":
            if not one:
                raise Unavailable("quantile(class) needs one class label a record; quantile(linear) takes features")
            names: list[str] = []
        else:
            several = labels is not None and labels.ndim == 2
            names = [*([FEATURES] if evidence.features is not None else []), *([CLASS] if several else [])]
            names = [*dict.fromkeys([*names, *(name for name in self.columns if not (name == CLASS and one))])]
            if not names and not (one and self.columns):
                raise Unavailable(f"needs the model's inputs (features), or columns: quantile({self.model}, age)")
        table, encodings = read_columns(evidence, names, None if reading is None else reading.encodings)
        if labels is None or not one:
            return Known(table, None, 0), _Reading(encodings, ())
        distinct, classes = np.unique(labels, return_inverse=True)
        if reading is None:
            return Known(table, classes, len(distinct)), _Reading(encodings, tuple(distinct.tolist()))
        return Known(table, codes_among(reading.classes, distinct, classes), len(reading.classes)), reading


@dataclass(frozen=True, eq=False, repr=False)
class QuantileScorer:
    """What `Quantile.fit` found; of a record it says the same bits in any block.

    Attributes:
        attack: whose it is.
        signal: the name of that which was chosen.
        limit: how far it may lie from 0.
        reading: how classes and columns are read.
        fitted: what is expected of a non-member.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> evidence = Evidence(n < 1000, labels=n % 5, signals={"mine": np.sin(n) + n % 5 + (n < 1000)})
    >>> score = Quantile("class").fit(evidence.take(n % 2 == 0), np.random.default_rng(0))(evidence.take(n % 2 == 1))
    >>> round(float((score[:500, None] > score[None, 500:]).mean()), 1)
    0.8
    """

    attack: Quantile
    signal: str
    limit: float
    reading: _Reading
    fitted: Fitted

    def __call__(self, evidence: Evidence) -> NDArray[np.floating[Any]]:
        """(n,) float64, NaN where the signal is."""
        return row_by_row(self._scored, evidence)

    def _scored(self, evidence: Evidence) -> Floats:
        values, (known, _) = _finite(evidence, self.signal, self.limit), self.attack._knowledge(evidence, self.reading)
        return self.fitted.score(values, known)


class _Reading(NamedTuple):
    """How classes (their values) and columns were read."""

    encodings: tuple[tuple[Encoding, ...], ...]
    classes: tuple[int, ...]


def _probability(evidence: Evidence, name: str) -> Probability | None:
    """What a signal stands for, where there is one label a record or none."""
    labels = evidence.labels
    one = labels is None or (labels.ndim == 1 and labels.dtype.kind != "f")
    return PROBABILITY.get(name) if one else None


def _limit(evidence: Evidence, name: str) -> float:
    """How far a signal may lie from 0: log-odds of rounded probabilities no further than what a 0 is taken for."""
    return limit_of(evidence, floor_of_kind(evidence)) if name in (_SIGNAL, "margin") else 1e30


def _finite(evidence: Evidence, name: str, limit: float) -> Floats:
    return np.clip(signal(evidence, name).astype(np.float64), -limit, limit)


def _check_enough(nonmembers: int) -> None:
    if nonmembers < FEWEST:
        raise Unavailable(f"needs {FEWEST} non-members (or groups of them) in every fit, has {nonmembers}")
