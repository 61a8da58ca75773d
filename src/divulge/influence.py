"""What training on a record does to what models say of it, by reference models: exposure, memorisation, ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.moments import ONE_SCALE, Sides, shrunk, sides
from divulge.errors import Unavailable

if TYPE_CHECKING:
    from divulge.evidence import References

Floats = NDArray[np.float64]
HEADROOM = 4  # models' worth of the largest variance that a probability may have, added to each record's own


class Interval(NamedTuple):
    """(n,) float64 each: an estimate a record, and the ends of its interval; NaN where undefined."""

    value: Floats
    low: Floats
    high: Floats


def signal_read(references: References) -> str:
    """The name of the signal that exposure is of: log-odds, else the log-probability, else the first.

    >>> from divulge.evidence import References
    >>> signals = {"margin": np.zeros((2, 3, 1)), "log_odds": np.zeros((2, 3, 1))}
    >>> len(signal_read(References(signals=signals, trained_on=np.ones((2, 3), bool))))
    8
    """
    return next(name for name in ("log_odds", "loss", *references.signals) if name in references.signals)


def averaged(values: NDArray[Any]) -> NDArray[Any]:
    """(r, n, 1) of (r, n, q): the mean over the queries.

    >>> averaged(np.array([[[1.0, 2.0]]])).tolist()
    [[[1.5]]]
    """
    return values if values.shape[2] == 1 else values.mean(axis=2, dtype=np.float64, keepdims=True)


def exposure(values: NDArray[Any], trained_on: NDArray[np.bool_], error: float) -> Interval:
    """How far apart models with and without a record are in what they say of it, in standard deviations (d').

    Standard deviations are drawn to what records have in common as far as few models tell, so that the estimate over
    its own error has Student's noncentral t distribution. Its interval joins those of the gap and of the standard
    deviation (Zou and Donner's method). Below 32 models the two sides have one standard deviation. At 95 % it holds the
    truth of 92 to 96 % of records whose signal is normal, of 84 % where it has heavy tails and the gap is large.

    Args:
        values: (r, n, 1) the models' signal, higher = more member-like.
        trained_on: (r, n) bool.
        error: total probability that a record's interval misses.

    Returns:
        Standard deviations; NaN where a side has no model, or nothing tells the spread.

    Source: Smyth 2004, Linear models and empirical Bayes methods, section 3; Zou and Donner 2008, Construction of
    confidence limits about effect measures.

    >>> rng, within = np.random.default_rng(0), np.arange(16)[:, None] % 2 == np.zeros(400)
    >>> found = exposure((rng.normal(size=(16, 400)) + 2 * within)[..., None], within, 0.05)
    >>> round(float(found.value.mean()), 1), bool(((found.low < 2) & (2 < found.high)).mean() > 0.93)
    (2.0, True)
    """
    from scipy.special import chdtri, ndtri

    gap, scale, noise, df = _gaps(values, trained_on)
    d = _divided(gap, scale)
    z = -float(ndtri(error / 2))
    df = np.minimum(df, 1e9)  # beyond, the standard deviation is as good as known
    shrink, stretch = (np.sqrt(chdtri(df, share) / df) for share in (1 - error / 2, error / 2))
    sure, far = z * np.sqrt(noise), np.abs(d)
    near_end, far_end = far - np.hypot(sure, far * (1 - shrink)), far + np.hypot(sure, far * (stretch - 1))
    return Interval(d, np.where(d >= 0, near_end, -far_end), np.where(d >= 0, far_end, -near_end))


def _gaps(values: NDArray[Any], trained_on: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats, Floats]:
    """(n,) mean with - mean without; standard deviation; variance of the gap in its squares; its degrees of freedom."""
    found = sides(values, trained_on)
    n_in, n_out = (np.where(n > 0, n, np.nan) for n in (found.n_in, found.n_out))
    d_in, d_out = (np.maximum(n - 1, 0).astype(np.float64) for n in (found.n_in, found.n_out))
    var_in, var_out = (np.where(d > 0, v[:, 0], 0) for v, d in ((found.var_in, d_in), (found.var_out, d_out)))
    if len(values) < ONE_SCALE:
        d = d_in + d_out
        squared, df = shrunk((d_in * var_in + d_out * var_out) / np.maximum(d, 1), d)
        noise = 1 / n_in + 1 / n_out
    else:
        (in_, df_in), (out, df_out) = shrunk(var_in, d_in), shrunk(var_out, d_out)
        squared = (in_ + out) / 2
        noise = _divided(in_ / n_in + out / n_out, squared)
        df = _divided(4 * squared**2, in_**2 / df_in + out**2 / df_out, np.inf)
    noise = noise + _opposed(values, trained_on, found, squared)
    return found.mean_in[:, 0] - found.mean_out[:, 0], np.sqrt(squared), noise, df


def _opposed(values: NDArray[Any], trained_on: NDArray[np.bool_], found: Sides, squared: Floats) -> Floats:
    """(n,) by how much the gap varies more since models 2j and 2j + 1 had opposite halves of the records.

    What is good for a record in the one's half is missing in the other's: in small data their values correlate by as
    little as -0.6, and intervals that take them for independent hold 84 % for 95. One correlation of all records.
    """
    pairs = np.flatnonzero((trained_on[:-1:2] ^ trained_on[1::2]).all(axis=1))
    mean_in, mean_out = found.mean_in[:, 0], found.mean_out[:, 0]
    n_in, n_out = (np.maximum(n, 1).astype(np.float64) for n in (found.n_in, found.n_out))
    products = np.zeros(len(squared))
    for j in pairs:
        first, second = (values[2 * j + k, :, 0].astype(np.float64) for k in (0, 1))
        within = trained_on[2 * j]
        products += (np.where(within, first, second) - mean_in) * (np.where(within, second, first) - mean_out)
    free = len(pairs) * (1 - 1 / n_in - 1 / n_out + len(pairs) / (n_in * n_out))
    known = (free > 0.5) & (squared > 0) & np.isfinite(products)
    if not known.any():
        return np.zeros(len(squared))
    each = np.sort(products[known] / (free[known] * squared[known]))  # sorted: the sum depends on no order
    correlation = min(max(float(each.mean()), -1.0), 0.0)
    return np.asarray(-2 * len(pairs) * correlation / (n_in * n_out))


def out_p_value(values: NDArray[Any], trained_on: NDArray[np.bool_], target: Floats) -> Floats:
    """How often a model that was not trained on a record gives it the target's signal or a higher one.

    The spread is that of the models without the record alone: models with it often vary less, and their spread would
    make p too small (at most 0.05 of 9 to 10 % of non-members where they vary half as much).

    Args:
        values: (r, n, 1) the reference models' signal.
        trained_on: (r, n) bool.
        target: (n,) the target's signal.

    Returns:
        (n,) in 0..1; NaN where every model was trained on the record, or nothing tells the spread.

    Source: Carlini et al. 2022, Membership inference attacks from first principles, section V; with Student's t.

    >>> values, within = np.random.default_rng(0).normal(size=(8, 1000, 1)), np.arange(8)[:, None] % 2 == np.zeros(1000)
    >>> round(float((out_p_value(values, within, np.zeros(1000)) < 0.5).mean()), 1)
    0.5
    """
    from scipy.special import stdtr

    found = sides(values, trained_on)
    d = np.maximum(found.n_out - 1, 0).astype(np.float64)
    squared, df = shrunk(np.where(d > 0, found.var_out[:, 0], 0), d)
    spread = np.sqrt(squared * (1 + 1 / np.maximum(found.n_out, 1)))
    p: Floats = stdtr(np.minimum(df, 1e9), -_divided(target - found.mean_out[:, 0], spread))
    return p


def memorisation(references: References, task: str, error: float) -> Interval:
    """How much more probable models trained with a record find its label than models without it.

    Each side's mean is of probabilities, so its variance is at most that of as many coin flips; how much smaller it is,
    a record's few models tell badly, so they count as if four more had shown the largest. Its interval is Wilson's, of
    as many flips as would have that variance, with Student's t; the two are joined by Newcombe's method. At 95 % it
    holds the truth of 93 to 100 % of records, whatever the shape of the probabilities: wide where models are few.

    Args:
        references: with log-odds of the label.
        task: as of `Evidence.task`.
        error: total probability that a record's interval misses.

    Returns:
        In -1..1; NaN where a side has no model; no interval where one has a single model.

    Raises:
        Unavailable: no log-odds, or several labels a record, of which they are the sum.

    Source: Feldman and Zhang 2020, What neural networks memorize and why, section 2; Newcombe 1998, method 10.

    >>> from divulge.evidence import References
    >>> within = np.arange(8)[:, None] % 2 == np.zeros(3)
    >>> odds = np.where(within, 3.0, -3.0)[..., None]
    >>> found = memorisation(References(signals={"log_odds": odds}, trained_on=within), "multiclass", 0.05)
    >>> [round(float(end[0]), 2) for end in found]
    [0.91, 0.27, 0.97]
    """
    from scipy.special import expit

    if "log_odds" not in references.signals:
        raise Unavailable(
            f"needs log_odds of the reference models, which have {', '.join(references.signals) or 'nothing'}"
        )
    if task == "multilabel":
        raise Unavailable("a record has several labels, and its log-odds are their sum")
    odds = references.signals["log_odds"]
    p = np.empty((*odds.shape[:2], 1), np.float32)
    for k, of_model in enumerate(odds):  # one model's at a time: they may be memory-mapped
        p[k, :, 0] = expit(of_model.astype(np.float64)).mean(axis=1)
    found = sides(p, references.trained_on)
    with_it, without = found.mean_in[:, 0], found.mean_out[:, 0]
    low_in, high_in = _of_flips(with_it, found.var_in[:, 0], found.n_in, error)
    low_out, high_out = _of_flips(without, found.var_out[:, 0], found.n_out, error)
    value = with_it - without
    low = value - np.hypot(with_it - low_in, high_out - without)
    high = value + np.hypot(high_in - with_it, without - low_out)
    return Interval(value, np.maximum(low, -1), np.minimum(high, 1))


def _of_flips(mean: Floats, variance: Floats, n: NDArray[np.int64], error: float) -> tuple[Floats, Floats]:
    """(n,) Wilson's limits of a mean of n probabilities; NaN where n is below 2."""
    from scipy.special import stdtrit

    d = np.where(n > 1, n - 1.0, np.nan)
    most = np.maximum(mean * (1 - mean), np.finfo(np.float64).tiny)
    seen = np.minimum((d * variance + HEADROOM * most) / (d + HEADROOM), most)
    t2, flips = stdtrit(d + HEADROOM, 1 - error / 2) ** 2, n * most / seen
    middle = (mean + t2 / (2 * flips)) / (1 + t2 / flips)
    half = np.sqrt(t2 * (mean * (1 - mean) / flips + t2 / (4 * flips**2))) / (1 + t2 / flips)
    return np.minimum(middle - half, mean), np.maximum(middle + half, mean)


def ranks(values: Floats) -> Floats:
    """(n,) 1 = the highest; equal values share the better rank, NaN has none.

    >>> ranks(np.array([2.0, 5.0, np.nan, 2.0])).tolist()
    [2.0, 1.0, nan, 2.0]
    """
    known = ~np.isnan(values)
    rising = np.sort(values[known])
    found = np.full(len(values), np.nan)
    found[known] = len(rising) - np.searchsorted(rising, values[known], side="right") + 1
    return found


def ranks_by_halves(values: NDArray[Any], trained_on: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Ranks by exposure, by each half of the models alone, among the records that both halves tell of.

    Models are dealt to the halves two by two, so that a model and its complement stay together. Where a half has no
    two models on a side, the gap alone is ranked.

    Args:
        values: (r, n, 1) the models' signal.
        trained_on: (r, n) bool.

    Returns:
        (n,) float each, NaN where a half has no model on a side, and of fewer than four models.

    >>> within = np.arange(8)[:, None] % 2 == np.zeros(3)
    >>> first, second = ranks_by_halves((within * np.array([1.0, 3.0, 2.0]))[..., None], within)
    >>> first.tolist(), second.tolist()
    ([3.0, 1.0, 2.0], [3.0, 1.0, 2.0])
    """
    if len(values) < 4:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing
    of_half = np.arange(len(values)) // 2 % 2
    found = []
    for half in (0, 1):
        gap, scale, *_ = _gaps(values[of_half == half], trained_on[of_half == half])
        found.append(_divided(gap, scale if (scale > 0).any() else np.ones(len(gap))))
    unknown = np.isnan(found[0] + found[1])
    first, second = (ranks(np.where(unknown, np.nan, d)) for d in found)
    return first, second


def stability(first: Floats, second: Floats) -> float | None:
    """Spearman's correlation of two rankings; None of fewer than three records, or where all are equal.

    >>> stability(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    0.5
    """
    from scipy.stats import rankdata

    known = ~np.isnan(first + second)
    if known.sum() < 3:
        return None
    a, b = (rankdata(ranking[known]) for ranking in (first, second))
    if not (np.ptp(a) and np.ptp(b)):
        return None
    return round(float(np.corrcoef(a, b)[0, 1]), 12)  # beyond, the order of the rows shows


def _divided(x: Floats, by: Floats, otherwise: float = np.nan) -> Floats:
    """x / by, where by is above 0."""
    found: Floats = np.full(len(x), otherwise)
    np.divide(x, by, out=found, where=by > 0)
    return found
