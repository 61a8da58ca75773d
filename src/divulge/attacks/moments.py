"""What reference models trained with and without each record say of it: means, shrunk variances, degrees of freedom.

One pass over the (r, n, q) signals, in blocks of rows. Variances of few models are noisy, and so are shrunk towards
what is common to all records, as far as their spread over the records says that they are alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.errors import Unavailable
from divulge.model_outputs import signals_of
from divulge.signals import signal, why_unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence, References

Floats = NDArray[np.float64]

VARIANCES = ("shrunk", "pooled", "per-example")
ONE_SCALE = 32  # models below which members' and non-members' spread is taken for one
_NEWTON = 50


class Moments(NamedTuple):
    """What the models with and without each record say, and the target; (n, q) float64 but for the numbers of models.

    target: the target's signal.
    mean_in, mean_out: of the models trained with, without the record; NaN where there are none.
    scale_in, scale_out: their standard deviations, as `variance` asked for; NaN where nothing says what they are.
    df_in, df_out: degrees of freedom of the scales; inf where they are taken for known.
    n_in, n_out: (n,) int, numbers of models.
    """

    target: Floats
    mean_in: Floats
    mean_out: Floats
    scale_in: Floats
    scale_out: Floats
    df_in: Floats
    df_out: Floats
    n_in: NDArray[np.int64]
    n_out: NDArray[np.int64]


class Sides(NamedTuple):
    """Means and unbiased variances of the models with and without each record, (n, q) each; counts (n,).

    Means of no model and variances of fewer than two are NaN.
    """

    mean_in: Floats
    mean_out: Floats
    var_in: Floats
    var_out: Floats
    n_in: NDArray[np.int64]
    n_out: NDArray[np.int64]


class Prior(NamedTuple):
    """What records have in common: a variance, and how many degrees of freedom it weighs (inf: all are alike)."""

    df: float
    variance: float


def references_of(evidence: Evidence) -> References:
    """The reference models that an attack may use.

    Raises:
        Unavailable: there are none, or they were made from lists that name the members.
    """
    references = evidence.references
    if references is None or not references.signals or not len(references.trained_on):
        raise Unavailable(
            "needs reference models: divulge.fit_references, or one of references_from_…; in the shell "
            "`divulge references run`, then --references"
        )
    if references.source == "bagging":
        raise Unavailable(
            "out-of-bag predictions are made from lists that name the members: they tell how much single records "
            "matter, and are no attack"
        )
    return references


def signal_of(evidence: Evidence, wanted: str) -> str:
    """The wanted signal, if the references have it, else their log-odds, log-probability or first one.

    Raises:
        Unavailable: the target's own is not to be had.
    """
    references = references_of(evidence)
    known = list(references.signals)
    order = [wanted, *(name for name in ("log_odds", "loss") if name in known), *known]
    name = next(name for name in order if name in known)
    if name not in (references.target or {}) and (reason := why_unavailable(evidence, name)):
        raise Unavailable(f"the references have {', '.join(known)}, and of the target {reason}")
    return name


def target_of(evidence: Evidence, name: str) -> Floats:
    """(n, q) float64, the target's own signal; probabilities of 0 as `floor_of` says, like the references'."""
    references = references_of(evidence)
    if references.target is not None and name in references.target:
        return np.asarray(references.target[name], np.float64)
    if evidence.kind == "probs" and evidence.outputs is not None and evidence.labels is not None:
        return np.asarray(signals_of(evidence.outputs, evidence.labels, [name], "probs")[0], np.float64)[:, None]
    return np.asarray(signal(evidence, name), np.float64)[:, None]


def sides(values: NDArray[Any], trained_on: NDArray[np.bool_]) -> Sides:
    """Means and variances by whether a model was trained on the record.

    Args:
        values: (r, n, q) float.
        trained_on: (r, n) bool.

    >>> found = sides(np.array([[[1.0]], [[3.0]], [[8.0]]]), np.array([[True], [True], [False]]))
    >>> found.mean_in.item(), found.var_in.item(), found.mean_out.item()
    (2.0, 2.0, 8.0)
    """
    r, n, q = values.shape
    centre, away_in, squares_in, squares = (np.empty((n, q)) for _ in range(4))

    def block(rows: slice) -> None:
        x = values[:, rows].astype(np.float64, order="C")  # else the order of the sums would be the memory's
        with np.errstate(invalid="ignore"):  # what is without bound spoils its own record only
            centre[rows] = x.mean(axis=0)
            x -= centre[rows]  # the squares of what is left are small
            within = trained_on[:, rows].astype(np.float64)
            away_in[rows] = np.einsum("rnq,rn->nq", x, within)
            squares_in[rows] = np.einsum("rnq,rnq,rn->nq", x, x, within)
            squares[rows] = np.einsum("rnq,rnq->nq", x, x)

    over_rows(block, n, r * q * 16)
    n_in = trained_on.sum(axis=0, dtype=np.int64)
    found = []
    for total, about, of_side in ((away_in, squares_in, n_in), (-away_in, squares - squares_in, r - n_in)):
        count = of_side[:, None].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = total / count
            variance = np.where(count > 1, np.maximum(about - count * away**2, 0) / (count - 1), np.nan)
        variance[variance <= 1e-24 * np.square(centre)] = 0  # what rounding leaves where all models agree
        found.append((np.where(count > 0, centre + away, np.nan), variance))
    (mean_in, var_in), (mean_out, var_out) = found
    return Sides(mean_in, mean_out, var_in, var_out, n_in, r - n_in)


def means(
    values: NDArray[Any], trained_on: NDArray[np.bool_], of: Callable[[Floats], Floats] | None = None
) -> tuple[Floats, Floats]:
    """(n, q) means over the models trained with each record, and without it; NaN where there are none.

    Args:
        values: (r, n, q) float.
        trained_on: (r, n) bool.
        of: what to take the mean of, a function of float64 values that may overwrite them; None: the values.

    >>> with_it, without = means(np.array([[[1.0]], [[3.0]]]), np.array([[True], [True]]))
    >>> with_it.item(), without.item()
    (2.0, nan)
    """
    r, n, q = values.shape
    sums = np.empty((2, n, q))

    def block(rows: slice) -> None:
        x = values[:, rows].astype(np.float64, order="C")
        x = x if of is None else of(x)
        within = trained_on[:, rows].astype(np.float64)
        with np.errstate(invalid="ignore"):
            sums[0, rows] = np.einsum("rnq,rn->nq", x, within)
            sums[1, rows] = np.einsum("rnq,rn->nq", x, 1 - within)

    over_rows(block, n, r * q * 16)
    n_in = trained_on.sum(axis=0)[:, None]
    with np.errstate(invalid="ignore"):
        return sums[0] / n_in, sums[1] / (r - n_in)


def prior(variance: Floats, df: Floats) -> Prior:
    """What the variances of many records, each of few models, say of one record's.

    Args:
        variance: (n,) unbiased; NaN and 0 are left out.
        df: (n,) their degrees of freedom.

    Source: Smyth 2004, Linear models and empirical Bayes methods, section 6.2.

    >>> draws = np.random.default_rng(0).chisquare(3, 20_000) / 3
    >>> bool(prior(2 * draws, np.full(20_000, 3.0)).df > 100)
    True
    """
    from scipy.special import digamma, polygamma

    known = (variance > 0) & (df >= 1)
    if not known.any():
        return Prior(np.inf, 0.0)
    half = df[known] / 2
    e = np.sort(np.log(variance[known]) - digamma(half) + np.log(half))  # sorted: the sum depends on no order
    mean = float(e.mean())
    distinct, counts = np.unique(half, return_counts=True)
    spread = (float(e.var(ddof=1)) if len(e) > 1 else 0.0) - float(polygamma(1, distinct) @ counts) / len(e)
    if spread <= 0:
        return Prior(np.inf, float(np.exp(mean)))
    d0 = 2 * _trigamma_inverse(spread)
    return Prior(d0, float(np.exp(mean + digamma(d0 / 2) - np.log(d0 / 2))))


def _trigamma_inverse(value: float) -> float:
    """x of trigamma(x) = value, by Newton on 1 / trigamma, which is convex and nearly straight."""
    from scipy.special import polygamma

    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    x = 0.5 + 1 / value
    for _ in range(_NEWTON):
        at = float(polygamma(1, x))
        step = at * (1 - at / value) / float(polygamma(2, x))
        x += step
        if -step / x < 1e-10:
            break
    return x


def shrunk(variance: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Variances drawn to what records have in common, and their degrees of freedom.

    Args:
        variance: (n,) unbiased; any where df is 0.
        df: (n,) their degrees of freedom.

    Returns:
        (n,) each; variances are 0 where no record has any.

    Source: Smyth 2004, section 3.

    >>> draws = np.random.default_rng(0).chisquare(3, 20_000) / 3
    >>> round(float(shrunk(draws, np.full(20_000, 3.0))[0].std()), 1)
    0.0
    """
    common = prior(variance, df)
    if np.isinf(common.df):
        return np.full(len(variance), common.variance), np.full(len(variance), np.inf)
    return (common.df * common.variance + df * np.where(df > 0, variance, 0)) / (common.df + df), common.df + df


def moments(evidence: Evidence, wanted: str = "log_odds", variance: str = "shrunk") -> Moments:
    """What the references and the target say of each record.

    Args:
        evidence: n records with references.
        wanted: the signal's name; see `signal_of`.
        variance: "shrunk" (below 32 models one for both sides), "pooled" (one of all records) or "per-example"; a
            record whose models all agree has the pooled one there.

    Raises:
        Unavailable: no references, no such signal of the target, or models that all agree on every record.
    """
    references = references_of(evidence)
    name = signal_of(evidence, wanted)
    found = sides(references.signals[name], references.trained_on)
    df_in, df_out = (np.maximum(n - 1, 0).astype(np.float64) for n in (found.n_in, found.n_out))
    one = variance == "shrunk" and len(references.trained_on) < ONE_SCALE
    scaled: list[list[tuple[Floats, Floats]]] = []
    for query in range(found.mean_in.shape[1]):
        var_in, var_out = found.var_in[:, query], found.var_out[:, query]
        if one:
            scaled.append([shrunk(*_together(var_in, df_in, var_out, df_out))] * 2)
        elif variance == "shrunk":
            scaled.append([shrunk(var_in, df_in), shrunk(var_out, df_out)])
        else:
            alone = variance == "per-example"
            scaled.append([_pooled(var_in, df_in, alone=alone), _pooled(var_out, df_out, alone=alone)])
    (squared_in, freedom_in), (squared_out, freedom_out) = (
        tuple(np.stack([of_query[side][part] for of_query in scaled], axis=1) for part in (0, 1)) for side in (0, 1)
    )
    if not (squared_in > 0).any() and not (squared_out > 0).any() and max(df_in.max(), df_out.max()) > 0:
        raise Unavailable(f"the reference models give each record one value of {name}")
    return Moments(
        target_of(evidence, name),
        found.mean_in,
        found.mean_out,
        np.sqrt(squared_in),
        np.sqrt(squared_out),
        freedom_in,
        freedom_out,
        found.n_in,
        found.n_out,
    )


def _together(var_in: Floats, df_in: Floats, var_out: Floats, df_out: Floats) -> tuple[Floats, Floats]:
    """(n,) the variance about the own side's mean, and its degrees of freedom: few models tell one better than two."""
    df = df_in + df_out
    squares = np.where(df_in > 0, df_in * var_in, 0) + np.where(df_out > 0, df_out * var_out, 0)
    return squares / np.maximum(df, 1), df


def _pooled(variance: Floats, df: Floats, *, alone: bool) -> tuple[Floats, Floats]:
    """(n,) one variance of all records, or each record's own where it has one; taken for known."""
    known = (df > 0) & np.isfinite(variance)  # a record of which a model said nothing spoils its own only
    total = df[known].sum()
    pooled = float(np.sort(df[known] * variance[known]).sum() / total) if total else np.nan
    found = np.where(alone & known & (variance > 0), variance, pooled)
    return found, np.full(len(variance), np.inf)
