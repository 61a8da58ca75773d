"""How far a record's signal lies above what non-members like it get: the quantile attack.

The signal is put on a scale that its mistakes do not stretch (`_scaled`); a fit to non-members says what is expected of
each record. Both sides are split into the same folds, and the rows of a fold, members and non-members, are scored by
one fit on the non-members of the others: the mean of the folds for members, or the full fit, would bend the tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.knowledge import (
    CLASS,
    FEATURES,
    Encoding,
    Table,
    codes_among,
    column_names,
    floor_of_kind,
    in_canonical_order,
    limit_of,
    product,
    read_columns,
    row_by_row,
    steady,
)
from divulge.blocks import in_parallel_alone
from divulge.errors import InputError, Unavailable
from divulge.folds import folds
from divulge.signals import signal, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.float64]
Probability = Callable[[Floats], Floats]

FOLDS = 5
FEWEST = 20  # non-members that a fit needs
MODELS = ("linear", "boosting", "class")
POOLED_ROWS = 50  # a class's own mean and variance weigh n_c, the pooled ones this many rows
SHARE = 0.6  # of what is expected that is taken away
LEVELS = (0.25, 0.5, 0.75)  # their mean is what linear expects
_COSTS = {"linear": 800.0, "boosting": 500.0, "class": 6.0}
_SIGNAL = "log_odds"
_SLOPE = 0.15  # of the signal's own scale beside the probability's
_COMPONENTS = 64  # of the features
_CROSSED, _SLOPES = 12, 200  # of them, with a slope of each class's own; of all classes' slopes together
_CLASSES = 50  # classes beyond which each is one number, its shrunk mean
_RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_TREES = {"loss": "quantile", "quantile": 0.5, "max_iter": 60, "max_leaf_nodes": 8, "early_stopping": False}
_ROWS = 20_000  # to which a linear fit is made


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

    def _fitted(self, values: Floats, known: _Known, probability: Probability | None, seed: int) -> _Fitted:
        """To non-members' signals; see `_Fitted.score`."""
        scale = _scale_of(values, probability)
        t = scale(values)
        if self.model == "class":
            mean, deviation = _moments(t, known)
            # A class whose non-members are all but equal would otherwise rank before and behind all others.
            return _Fitted(scale, _ByClass(mean), 1.0, 0.0, np.maximum(deviation, 0.1 * t.std() or 1.0))
        expected = (_linear if self.model == "linear" else _boosting)(t, known, seed)
        return _Fitted(scale, expected, SHARE, float(np.median(t)), None)

    def _signal_of(self, evidence: Evidence) -> str:
        others = ("loss", "confidence", *evidence.signals) if self.signal == _SIGNAL else ()
        for name in (self.signal, *others):
            if why_unavailable(evidence, name) is None:
                return name
        raise Unavailable(str(why_unavailable(evidence, self.signal)))

    def _knowledge(self, evidence: Evidence, reading: _Reading | None = None) -> tuple[_Known, _Reading]:
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
                raise Unavailable("needs the model's inputs (features) or columns (columns=('age',))")
        table, encodings = read_columns(evidence, names, None if reading is None else reading.encodings)
        if labels is None or not one:
            return _Known(table, None, 0), _Reading(encodings, ())
        distinct, classes = np.unique(labels, return_inverse=True)
        if reading is None:
            return _Known(table, classes, len(distinct)), _Reading(encodings, tuple(distinct.tolist()))
        return _Known(table, codes_among(reading.classes, distinct, classes), len(reading.classes)), reading


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
    fitted: _Fitted

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


class _Known(NamedTuple):
    """What a fit may look at: (n, d) features and columns; (n,) numbers of classes up to `size`, or None.

    `size` itself is that of all classes which were never seen; no fit has one.
    """

    table: Table
    classes: NDArray[np.int64] | None
    size: int

    def take(self, rows: NDArray[Any] | slice) -> _Known:
        return _Known(self.table[rows], None if self.classes is None else self.classes[rows], self.size)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


def _exp(log_p: Floats) -> Floats:
    return np.asarray(np.exp(np.minimum(log_p, 0)))


_PROBABILITY: dict[str, Probability] = {"log_odds": _sigmoid, "loss": _exp, "confidence": _exp}


def _probability(evidence: Evidence, name: str) -> Probability | None:
    """What a signal stands for, where there is one label a record or none."""
    labels = evidence.labels
    one = labels is None or (labels.ndim == 1 and labels.dtype.kind != "f")
    return _PROBABILITY.get(name) if one else None


def _limit(evidence: Evidence, name: str) -> float:
    """How far a signal may lie from 0: log-odds of rounded probabilities no further than half the smallest tells."""
    return limit_of(evidence, floor_of_kind(evidence)) if name in (_SIGNAL, "margin") else 1e30


def _finite(evidence: Evidence, name: str, limit: float) -> Floats:
    return np.clip(signal(evidence, name).astype(np.float64), -limit, limit)


def _check_enough(nonmembers: int) -> None:
    if nonmembers < FEWEST:
        raise Unavailable(f"needs {FEWEST} non-members (or groups of them) in every fit, has {nonmembers}")


class _Scale(NamedTuple):
    """A scale that rises with the signal: the probability it stands for, if any, and an asinh of it.

    Mistakes, the long tail of log-odds, would rule the fit otherwise. The asinh tells probabilities near 1 apart.
    """

    centre: float
    spread: float
    probability: Probability | None

    def __call__(self, values: Floats) -> Floats:
        wide = np.arcsinh((values - self.centre) / self.spread)
        return wide if self.probability is None else self.probability(values) + _SLOPE * wide


def _scale_of(fit: Floats, probability: Probability | None) -> _Scale:
    centre = float(np.median(fit))
    spread = max(float(np.median(np.abs(fit - centre))) or float(np.abs(fit - centre).mean()) or 1.0, 1e-250)
    return _Scale(centre, spread, probability)


class _Fitted(NamedTuple):
    """What is expected of non-members: `expected(rows)` on the scale, of which a share is taken away."""

    scale: _Scale
    expected: _ByClass | _Linear | _Planes | _Trees
    share: float
    middle: float
    deviation: Floats | None

    def score(self, values: Floats, rows: _Known) -> Floats:
        """(m,) how far the signals lie above that, in deviations of the class where there are any."""
        beyond = self.scale(values) - self.share * self.expected(rows)
        if self.deviation is None:
            return beyond - (1 - self.share) * self.middle
        assert rows.classes is not None
        return np.asarray(beyond / self.deviation[rows.classes])

    def row_by_row(self) -> _Fitted:
        """The same, whose sums do not depend on which rows come together."""
        return self._replace(expected=_planes(self.expected)) if isinstance(self.expected, _Linear) else self


def _moments(t: Floats, fit: _Known) -> tuple[Floats, Floats]:
    """(size + 1,) mean and standard deviation of t in each class, shrunk to the pooled ones; last these."""
    assert fit.classes is not None
    number = np.bincount(fit.classes, minlength=fit.size + 1)
    weight = number / (number + POOLED_ROWS)
    own = np.bincount(fit.classes, t, fit.size + 1) / np.maximum(number, 1)
    variance = np.bincount(fit.classes, np.square(t - own[fit.classes]), fit.size + 1) / np.maximum(number, 1)
    return weight * own + (1 - weight) * t.mean(), np.sqrt(weight * variance + (1 - weight) * t.var())


class _ByClass(NamedTuple):
    """(size + 1,) what is expected of each class."""

    level: Floats

    def __call__(self, rows: _Known) -> Floats:
        assert rows.classes is not None
        return self.level[rows.classes]


class _Components(NamedTuple):
    """(d, k) axes of the columns, each less its mean and by its width."""

    mean: Table
    width: Table
    kept: NDArray[np.bool_]
    axes: NDArray[Any]

    def standard(self, table: Table) -> Table:
        return np.asarray(np.clip((table[:, self.kept] - self.mean) / self.width, -10, 10))

    def __call__(self, table: Table) -> Floats:
        return (self.standard(table) @ self.axes).astype(np.float64) if self.kept.any() else np.zeros((len(table), 0))


class _Linear(NamedTuple):
    """What is expected of each row, linear in the components and the class.

    own: (size + 1,) a number of each class, where they are many; else None.
    crossed: (c,) widths of the components that have a slope of each class's own.
    b: intercept and slopes, `unit` times.
    """

    components: _Components
    size: int
    own: Floats | None
    crossed: Floats
    unit: float
    b: Floats

    def __call__(self, rows: _Known) -> Floats:
        return self.of(self.components(rows.table), rows.classes)

    def of(self, parts: Floats, classes: NDArray[np.int64] | None) -> Floats:
        """(m,) from components."""
        return np.asarray(self.unit * (self.b[0] + self.design(parts, classes) @ self.b[1:]))

    def design(self, parts: Floats, classes: NDArray[np.int64] | None) -> Floats:
        """(n, d): components of the features, an indicator of each class, and slopes of each class's own."""
        if classes is None:
            return parts
        if self.own is not None:
            return np.column_stack([parts, self.own[classes]])
        one = np.eye(self.size + 1, self.size)[classes]
        narrow = parts[:, : len(self.crossed)] / self.crossed
        crossed = (one[:, :, None] * narrow[:, None, :]).reshape(len(parts), -1)
        return np.hstack([parts, 3 * one, crossed])  # times 3: a class's own level is hardly shrunk


class _Planes(NamedTuple):
    """A `_Linear` multiplied out: (size + 1,) level and (size + 1, d) slopes of each class on the standard columns."""

    components: _Components
    level: Floats
    slopes: Floats

    def __call__(self, rows: _Known) -> Floats:
        classes = np.zeros(len(rows.table), np.int64) if rows.classes is None else rows.classes
        expected = self.level[classes]
        for column, slope in zip(self.components.standard(rows.table).T, self.slopes.T, strict=True):
            expected += slope[classes] * column  # a loop, since BLAS's sums depend on how many rows there are
        return expected


def _planes(line: _Linear) -> _Planes:
    k = line.components.axes.shape[1]
    level, slopes = [], []
    for at in range(line.size + 1):
        ends = line.of(np.vstack([np.zeros((1, k)), np.eye(k)]), np.full(k + 1, at) if line.size else None)
        level.append(ends[0])
        slopes.append(product(line.components.axes, (ends[1:] - ends[0])[:, None])[:, 0])
    return _Planes(line.components, np.array(level), np.array(slopes))


def _linear(t: Floats, fit: _Known, seed: int) -> _Linear:
    """The mean of three conditional quantiles of t, each linear in the design."""
    t, fit = t[:_ROWS], fit.take(slice(_ROWS))
    components = _components(fit.table, seed)
    parts = components(fit.table)
    own = None
    if fit.classes is not None and fit.size > _CLASSES:
        mean, _ = _moments(t, fit)
        own = (mean - mean[:-1].mean()) / (mean[:-1].std() or 1.0)
    several = fit.classes is not None and own is None
    first = slice(min(_CROSSED, _SLOPES // fit.size) if several else 0)
    widths = np.maximum(parts[:, first].std(axis=0), 1e-9)
    line = _Linear(components, fit.size, own, widths, float(t.std()) or 1.0, np.zeros(1))
    x = line.design(parts, fit.classes)
    ridge, start = _best_ridge(x, t / line.unit)
    b = np.mean([pinball(x, t / line.unit, level, ridge, start=start) for level in LEVELS], axis=0)
    return line._replace(b=b)


def _components(table: Table, seed: int) -> _Components:
    """Principal components of the standardised columns, at most one for ten rows; unit: their root mean square."""
    mean, width = table.mean(axis=0, dtype=np.float64), table.std(axis=0, dtype=np.float64)
    kept = width > 1e-6 * np.maximum(np.abs(mean), 1e-30)  # the others are constant
    found = _Components(mean[kept].astype(np.float32), width[kept].astype(np.float32), kept, np.zeros((0, 0)))
    if not kept.any():
        return found
    from sklearn.utils.extmath import randomized_svd

    number = max(1, min(_COMPONENTS, len(table) // 10, int(kept.sum())))
    _, length, axes = randomized_svd(found.standard(table), number, random_state=seed)
    return found._replace(axes=axes.T * float(np.sqrt(len(table) / np.square(length).mean())))


def _best_ridge(x: Floats, t: Floats) -> tuple[float, Floats]:
    """That which predicts the median of the last fifth from the others, which are in no order, and its coefficients."""
    cut = len(t) - len(t) // 5
    b, losses, found = None, [], []
    for ridge in _RIDGES:
        b = pinball(x[:cut], t[:cut], 0.5, ridge, start=b, exact=False)
        losses.append(np.abs(t[cut:] - b[0] - x[cut:] @ b[1:]).mean())
        found.append(b)
    best = int(np.argmin(losses))
    return _RIDGES[best], found[best]


def pinball(
    x: Floats,
    t: Floats,
    level: float,
    ridge: float,
    *,
    width: float = 0.05,
    start: Floats | None = None,
    exact: bool = True,
) -> Floats:
    """A linear quantile: smoothed pinball loss with a ridge, by Newton steps whose Hessian is of some of the rows.

    mean of level r + h log(1 + exp(-r / h)), r = t - b0 - x b, plus ridge / 2 |b|²; h falls to `width`.

    Args:
        x: (n, d) float64.
        t: (n,) float64, of about unit width.
        level: of the quantile, between 0 and 1.
        ridge: 0 or more; not of the intercept.
        width: to what the loss's corner is rounded.
        start: (d + 1,) to start from, and without detours.
        exact: whether to go on until the loss falls by less than 1e-7; else 1e-5.

    Returns:
        (d + 1,) float64 intercept and slopes.

    Source: He et al. 2023, Smoothed quantile regression with large-scale inference.

    >>> pinball(np.zeros((5, 0)), np.array([1., 2., 3., 4., 9.]), 0.5, 0.0, width=0.01).round(1).tolist()
    [3.0]
    """
    n, d = x.shape
    z = np.column_stack([np.ones(n), x])
    some = slice(None, None, max(1, n // max(4096, 10 * d)))
    part = z[some].astype(np.float32)  # steps need not be exact, where they lead is
    penalty = np.append(0.0, np.full(d, ridge))
    b = np.append(np.quantile(t, level), np.zeros(d)) if start is None else start

    def loss(b: Floats, h: float) -> float:
        r = t - z @ b
        return float((level * r + h * np.logaddexp(0, -r / h)).mean() + (penalty * b * b).sum() / 2)

    for h in [h for h in (0.5, 0.15, 0.05, 0.015) if h > width and start is None] + [width]:
        now = loss(b, h)
        for _ in range(30):
            below = _sigmoid((z @ b - t) / h)
            gradient = z.T @ (below - level) / n + penalty * b
            weight = (below * (1 - below))[some] / h
            hessian = ((part.T * weight.astype(np.float32)) @ part).astype(np.float64) / len(part)
            hessian += np.diag(penalty + 1e-9)
            step = np.linalg.solve(hessian + 1e-6 * np.trace(hessian) / (d + 1) * np.eye(d + 1), gradient)
            length = 1.0
            while (then := loss(b - length * step, h)) > now - 1e-4 * length * (gradient @ step) and length > 1e-6:
                length /= 2
            if then >= now:
                break
            b, now, gained = b - length * step, then, now - then
            if gained < (1e-7 if exact else 1e-5):
                break
    return b


class _Trees(NamedTuple):
    """Boosted trees, and (size + 1,) how each class is told to them."""

    codes: Floats
    trees: Any

    def table(self, rows: _Known) -> NDArray[Any]:
        return rows.table if rows.classes is None else np.column_stack([rows.table, self.codes[rows.classes]])

    def __call__(self, rows: _Known) -> Floats:
        return np.asarray(self.trees.predict(self.table(rows)), np.float64)


def _boosting(t: Floats, fit: _Known, seed: int) -> _Trees:
    """The conditional median of t, by boosted trees; to them a class that was never seen is a missing one."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    codes, categories = np.zeros(0), None
    if fit.classes is not None:
        few = fit.size <= _CLASSES
        codes = np.append(np.arange(fit.size), np.nan) if few else _moments(t, fit)[0]
        categories = [fit.table.shape[1]] if few else None
    trees = HistGradientBoostingRegressor(**_TREES, categorical_features=categories, random_state=seed)
    found = _Trees(codes, trees)
    trees.fit(found.table(fit), t)
    return found
