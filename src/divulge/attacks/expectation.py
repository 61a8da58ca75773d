"""What a non-member's signal is expected to be, given its class, features and columns: one of three fits.

Each is made to non-members on a scale that a signal's mistakes do not stretch: a mean of each class, three linear
quantiles, or the median by boosted trees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.knowledge import Table
from divulge.attacks.row_by_row import product

Floats = NDArray[np.float64]
Probability = Callable[[Floats], Floats]

POOLED_ROWS = 50  # a class's own mean and variance weigh n_c, the pooled ones this many rows
SHARE = 0.6  # of what is expected that is taken away
LEVELS = (0.25, 0.5, 0.75)  # their mean is what linear expects
_SLOPE = 0.15  # of the signal's own scale beside the probability's
_COMPONENTS = 64  # of the features
_CROSSED, _SLOPES = 12, 200  # of them, with a slope of each class's own; of all classes' slopes together
_CLASSES = 50  # classes beyond which each is one number, its shrunk mean
_RIDGES = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_TREES = {"loss": "quantile", "quantile": 0.5, "max_iter": 60, "max_leaf_nodes": 8, "early_stopping": False}
_ROWS = 20_000  # to which a linear fit is made


class Known(NamedTuple):
    """What a fit may look at: (n, d) features and columns; (n,) numbers of classes up to `size`, or None.

    `size` itself is that of all classes which were never seen; no fit has one.
    """

    table: Table
    classes: NDArray[np.int64] | None
    size: int

    def take(self, rows: NDArray[Any] | slice) -> Known:
        """Of some rows."""
        return Known(self.table[rows], None if self.classes is None else self.classes[rows], self.size)


def fit_expectation(model: str, values: Floats, known: Known, probability: Probability | None, seed: int) -> Fitted:
    """What is expected of non-members, fitted to their (n,) finite signals and to what is known of them.

    Of the models "linear", "boosting" and "class" the last needs classes. `probability` is what a signal stands for.

    >>> values = np.array([1.0, 2.0, 3.0, 7.0, 8.0, 9.0])
    >>> known = Known(np.zeros((6, 0), np.float32), np.array([0, 0, 0, 1, 1, 1]), 2)
    >>> fit_expectation("class", values, known, None, 0).score(values, known).round(1).tolist()
    [-1.2, -1.0, -0.7, 0.7, 1.0, 1.2]
    """
    scale = _scale_of(values, probability)
    t = scale(values)
    if model == "class":
        mean, deviation = _moments(t, known)
        # A class whose non-members are all but equal would otherwise rank before and behind all others.
        return Fitted(scale, _ByClass(mean), 1.0, 0.0, np.maximum(deviation, 0.1 * t.std() or 1.0))
    expected = (_linear if model == "linear" else _boosting)(t, known, seed)
    return Fitted(scale, expected, SHARE, float(np.median(t)), None)


class Fitted(NamedTuple):
    """What is expected of non-members: `expected(rows)` on the scale, of which a share is taken away."""

    scale: _Scale
    expected: _ByClass | _Linear | _Planes | _Trees
    share: float
    middle: float
    deviation: Floats | None

    def score(self, values: Floats, rows: Known) -> Floats:
        """(m,) how far the signals lie above that, in deviations of the class where there are any."""
        beyond = self.scale(values) - self.share * self.expected(rows)
        if self.deviation is None:
            return beyond - (1 - self.share) * self.middle
        assert rows.classes is not None
        return np.asarray(beyond / self.deviation[rows.classes])

    def row_by_row(self) -> Fitted:
        """The same, whose sums do not depend on which rows come together."""
        return self._replace(expected=_planes(self.expected)) if isinstance(self.expected, _Linear) else self


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


def _sigmoid(x: Floats) -> Floats:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


def _exp(log_p: Floats) -> Floats:
    return np.asarray(np.exp(np.minimum(log_p, 0)))


PROBABILITY: dict[str, Probability] = {"log_odds": _sigmoid, "loss": _exp, "confidence": _exp}


def _moments(t: Floats, fit: Known) -> tuple[Floats, Floats]:
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

    def __call__(self, rows: Known) -> Floats:
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

    def __call__(self, rows: Known) -> Floats:
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

    def __call__(self, rows: Known) -> Floats:
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


def _linear(t: Floats, fit: Known, seed: int) -> _Linear:
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

    def table(self, rows: Known) -> NDArray[Any]:
        return rows.table if rows.classes is None else np.column_stack([rows.table, self.codes[rows.classes]])

    def __call__(self, rows: Known) -> Floats:
        return np.asarray(self.trees.predict(self.table(rows)), np.float64)


def _boosting(t: Floats, fit: Known, seed: int) -> _Trees:
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
