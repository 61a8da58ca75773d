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

from divulge.attacks.knowledge import CLASS, FEATURES, Table, column_names, floor_of, in_canonical_order, of_columns
from divulge.blocks import in_parallel_alone
from divulge.errors import InputError, Unavailable
from divulge.folds import folds
from divulge.signals import signal, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.float64]

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
        values, known = _finite(evidence, name), self._knowledge(evidence)
        fold = folds(evidence, FOLDS, int(rng.integers(2**63)))
        seeds = rng.integers(2**31, size=FOLDS).tolist()
        order = in_canonical_order(evidence)
        order = order[~np.isnan(values[order])]
        values, known, fold = values[order], known.take(order), fold[order]
        nonmember = ~evidence.member[order]
        fewest = min(int((nonmember & (fold != k)).sum()) for k in range(FOLDS))
        if fewest < FEWEST:
            raise Unavailable(f"needs {FEWEST} non-members (or groups of them) in every fit, has {fewest}")
        probability = _PROBABILITY.get(name) if known.classes is not None or evidence.labels is None else None

        def scored(k: int) -> Floats:
            inside, outside = fold == k, nonmember & (fold != k)
            fit, rows = known.take(outside), known.take(inside)
            t, unseen = _scaled(values[outside], values[inside], probability)
            if self.model == "class":
                return _class_scores(t, unseen, fit, rows)
            expected = (_linear if self.model == "linear" else _boosting)(t, fit, rows, seeds[k])
            return unseen - SHARE * expected - (1 - SHARE) * np.median(t)

        scores = np.full(len(evidence), np.nan)
        for k, found in enumerate(in_parallel_alone(scored, range(FOLDS))):
            scores[order[fold == k]] = found
        return scores

    def _signal_of(self, evidence: Evidence) -> str:
        others = ("loss", "confidence", *evidence.signals) if self.signal == _SIGNAL else ()
        for name in (self.signal, *others):
            if why_unavailable(evidence, name) is None:
                return name
        raise Unavailable(str(why_unavailable(evidence, self.signal)))

    def _knowledge(self, evidence: Evidence) -> _Known:
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
        if labels is None or not one:
            return _Known(of_columns(evidence, names), None, 0)
        distinct, classes = np.unique(labels, return_inverse=True)
        return _Known(of_columns(evidence, names), classes, len(distinct))


class _Known(NamedTuple):
    """What a fit may look at: (n, d) features and columns; (n,) numbers of classes below `size`, or None."""

    table: Table
    classes: NDArray[np.int64] | None
    size: int

    def take(self, rows: NDArray[Any] | slice) -> _Known:
        return _Known(self.table[rows], None if self.classes is None else self.classes[rows], self.size)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


_PROBABILITY: dict[str, Callable[[Floats], Floats]] = {
    "log_odds": _sigmoid,
    "loss": lambda log_p: np.exp(np.minimum(log_p, 0)),
    "confidence": lambda log_p: np.exp(np.minimum(log_p, 0)),
}


def _finite(evidence: Evidence, name: str) -> Floats:
    """(n,) the signal; log-odds of rounded probabilities no further out than half the smallest above 0 tells."""
    limit = 1e30
    if evidence.kind == "probs" and evidence.outputs is not None and name in (_SIGNAL, "margin"):
        labels = evidence.outputs.shape[1] if evidence.task == "multilabel" else 1
        limit = -np.log(floor_of(evidence.outputs)) * labels
    return np.clip(signal(evidence, name).astype(np.float64), -limit, limit)


def _scaled(fit: Floats, unseen: Floats, probability: Callable[[Floats], Floats] | None) -> tuple[Floats, Floats]:
    """Both on a scale that rises with the signal: the probability it stands for, if any, and an asinh of it.

    Mistakes, the long tail of log-odds, would rule the fit otherwise. The asinh tells probabilities near 1 apart.
    """
    centre = np.median(fit)
    spread = max(float(np.median(np.abs(fit - centre))) or float(np.abs(fit - centre).mean()) or 1.0, 1e-250)

    def scale(values: Floats) -> Floats:
        wide = np.arcsinh((values - centre) / spread)
        return wide if probability is None else probability(values) + _SLOPE * wide

    return scale(fit), scale(unseen)


def _moments(t: Floats, fit: _Known) -> tuple[Floats, Floats]:
    """(size,) mean and standard deviation of t in each class, shrunk to the pooled ones."""
    assert fit.classes is not None
    number = np.bincount(fit.classes, minlength=fit.size)
    weight = number / (number + POOLED_ROWS)
    own = np.bincount(fit.classes, t, fit.size) / np.maximum(number, 1)
    variance = np.bincount(fit.classes, np.square(t - own[fit.classes]), fit.size) / np.maximum(number, 1)
    return weight * own + (1 - weight) * t.mean(), np.sqrt(weight * variance + (1 - weight) * t.var())


def _class_scores(t: Floats, unseen: Floats, fit: _Known, rows: _Known) -> Floats:
    mean, deviation = _moments(t, fit)
    # A class whose non-members are all but equal would otherwise rank before and behind all others.
    deviation = np.maximum(deviation, 0.1 * t.std() or 1.0)
    return np.asarray((unseen - mean[rows.classes]) / deviation[rows.classes])


def _linear(t: Floats, fit: _Known, rows: _Known, seed: int) -> Floats:
    """(m,) mean of three conditional quantiles of t, each linear in the design."""
    t, fit = t[:_ROWS], fit.take(slice(_ROWS))
    x, unseen = _design(t, fit, rows, seed)
    scale = float(t.std()) or 1.0
    ridge, start = _best_ridge(x, t / scale)
    b = np.mean([pinball(x, t / scale, level, ridge, start=start) for level in LEVELS], axis=0)
    return np.asarray(scale * (b[0] + unseen @ b[1:]))


def _design(t: Floats, fit: _Known, rows: _Known, seed: int) -> tuple[Floats, Floats]:
    """(n, d), (m, d): components of the features, an indicator of each class, and slopes of each class's own."""
    parts, unseen = _components(fit.table, rows.table, seed)
    if fit.classes is None or rows.classes is None:
        return parts, unseen
    if fit.size > _CLASSES:
        mean, _ = _moments(t, fit)
        own = (mean - mean.mean()) / (mean.std() or 1.0)
        return np.column_stack([parts, own[fit.classes]]), np.column_stack([unseen, own[rows.classes]])
    first = slice(min(_CROSSED, _SLOPES // fit.size))
    width = np.maximum(parts[:, first].std(axis=0), 1e-9)
    both = []
    for x, classes in ((parts, fit.classes), (unseen, rows.classes)):
        one = np.eye(fit.size)[classes]
        crossed = (one[:, :, None] * (x[:, first] / width)[:, None, :]).reshape(len(x), -1)
        both.append(np.hstack([x, 3 * one, crossed]))  # times 3: a class's own level is hardly shrunk
    return both[0], both[1]


def _components(table: Table, unseen: Table, seed: int) -> tuple[Floats, Floats]:
    """Principal components of the standardised columns, at most one for ten rows; unit: their root mean square."""
    mean, width = table.mean(axis=0, dtype=np.float64), table.std(axis=0, dtype=np.float64)
    kept = width > 1e-6 * np.maximum(np.abs(mean), 1e-30)  # the others are constant
    if not kept.any():
        return np.zeros((len(table), 0)), np.zeros((len(unseen), 0))

    def standard(x: Table) -> Table:
        scaled = (x[:, kept] - mean[kept].astype(np.float32)) / width[kept].astype(np.float32)
        return np.asarray(np.clip(scaled, -10, 10))

    from sklearn.utils.extmath import randomized_svd

    number = max(1, min(_COMPONENTS, len(table) // 10, int(kept.sum())))
    _, length, axes = randomized_svd(standard(table), number, random_state=seed)
    axes = axes.T * float(np.sqrt(len(table) / np.square(length).mean()))
    return (standard(table) @ axes).astype(np.float64), (standard(unseen) @ axes).astype(np.float64)


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


def _boosting(t: Floats, fit: _Known, rows: _Known, seed: int) -> Floats:
    """(m,) the conditional median of t, by boosted trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    x, unseen, categories = fit.table, rows.table, None
    if fit.classes is not None and rows.classes is not None:
        few = fit.size <= _CLASSES
        codes: NDArray[Any] = np.arange(fit.size) if few else _moments(t, fit)[0]
        categories = [x.shape[1]] if few else None
        x, unseen = np.column_stack([x, codes[fit.classes]]), np.column_stack([unseen, codes[rows.classes]])
    trees = HistGradientBoostingRegressor(**_TREES, categorical_features=categories, random_state=seed)
    return np.asarray(trees.fit(x, t).predict(unseen), np.float64)
