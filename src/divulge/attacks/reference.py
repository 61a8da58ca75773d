"""Attacks with reference models: how unlike the models trained without a record, how like those with it, is the target?

Every attack here scores a record by the target's signal and the (r, q) values that reference models give it; none looks
at membership. Means and spreads are those of `divulge.attacks.moments`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.moments import VARIANCES, Moments, means, moments, references_of, signal_of, target_of
from divulge.blocks import over_rows
from divulge.errors import InputError, Unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence, References

Floats = NDArray[np.float64]

MODES = ("online", "offline")
FEWEST_RANKED = 4  # models without a record, of which a rank says something
_COST = 4.0


def declared(references: References) -> list[Any]:
    """The reference attacks that a default audit runs, by how many models there are: chosen before the target is seen.

    >>> from divulge.evidence import References
    >>> few = References(signals={"loss": np.zeros((2, 9, 1), np.float32)}, trained_on=np.arange(18).reshape(2, 9) < 9)
    >>> [str(attack) for attack in declared(few)]
    ['ratio', 'difficulty']
    """
    if references.source == "bagging":
        return []
    with_it, without = _fewest(references)
    if min(with_it, without) >= 2:
        improbable = not any(name == "log_odds" or name.startswith("log_prob") for name in references.signals)
        return [Ratio(), Lira()] if with_it + without >= 16 or improbable else [Ratio()]  # of a regression no ratio
    return [Ratio(), Difficulty()]


def every(references: References) -> list[Any]:
    """And every other one that these references can serve.

    >>> from divulge.evidence import References
    >>> one = References(signals={"loss": np.zeros((1, 9, 1), np.float32)}, trained_on=np.zeros((1, 9), bool))
    >>> [str(attack) for attack in every(one)]
    ['ratio', 'difficulty', 'ratio(base)', 'rmia']
    """
    if references.source == "bagging":
        return []
    with_it, without = _fewest(references)
    attacks = [*declared(references), Difficulty(), RATIO_BASE, Rmia()]
    attacks += [Lira()] if min(with_it, without) >= 2 else []
    attacks += [Lira(mode="offline")] if without >= 2 else []
    attacks += [AttackR()] if without >= FEWEST_RANKED else []
    attacks += [Lira("pooled"), Lira("per-example")] if min(with_it, without) >= 32 else []
    return list({str(attack): attack for attack in attacks}.values())


def _fewest(references: References) -> tuple[int, int]:
    """How many models were trained with, and without, the record that has the fewest."""
    within, r = references.trained_on.sum(axis=0), len(references.trained_on)
    return int(within.min(initial=r)), r - int(within.max(initial=0))


@dataclass(frozen=True)
class _FromReferences:
    """What every attack here says of itself."""

    def fitted(self, evidence: Evidence) -> bool:
        """Whether rows share fits, as those of cross-validation do: then intervals are wider."""
        return evidence.references is not None and evidence.references.source == "cv"

    @property
    def cost(self) -> float:
        """About how many times as long as a threshold attack it takes."""
        return _COST


@dataclass(frozen=True)
class Lira(_FromReferences):
    """The likelihood ratio of the target's signal: models trained with the record against models without it.

    Online: log of the density among the models with the record minus that among the models without; offline, where
    only the latter are there: how many standard deviations above them. The mean over queries.

    Attributes:
        variance: "shrunk" (default: each record's own spread, drawn to what records have in common as far as few models
            tell; Student's t, and the gap between the two means drawn to the records' mean gap), "pooled" (one of all
            records) or "per-example" (each record's own; from 64 models on).
        mode: "online" or "offline".
        signal: its name; where the references lack it, their log-odds, loss or first signal.

    Raises:
        InputError: DV056, an unknown variance or mode.

    Source: Carlini et al. 2022, Membership inference attacks from first principles; the shrinkage after Smyth 2004.

    >>> from divulge.evidence import Evidence, References
    >>> rng = np.random.default_rng(0)
    >>> trained_on = np.tile([[True], [False]], (8, 1)) ^ (rng.random(500) < 0.5)
    >>> values = rng.normal(size=(17, 500)) + 2 * np.vstack([trained_on, np.arange(500) < 250])
    >>> references = References(signals={"loss": values[:16, :, None].astype(np.float32)}, trained_on=trained_on)
    >>> evidence = Evidence(np.arange(500) < 250, signals={"loss": values[16]}, references=references)
    >>> score = Lira()(evidence, rng)
    >>> round(float((score[:250, None] > score[None, 250:]).mean()), 1)
    0.9
    """

    variance: str = "shrunk"
    mode: str = "online"
    signal: str = "log_odds"

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise InputError("DV056", f"there is no variance {self.variance!r:.80}; known: {', '.join(VARIANCES)}")
        _check_mode(self.mode)

    def __str__(self) -> str:
        words = [] if self.mode == "online" else [self.mode]
        words += [self.variance] if self.variance != "shrunk" or not words else []
        return f"lira({', '.join(words + _own(self.signal, 'log_odds'))})"

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float64, nats (online) or standard deviations (offline); NaN where a record has too few models.

        Raises:
            Unavailable: no references, or no record with two models on each side (offline: without it).
        """
        found = moments(evidence, self.signal, self.variance)
        if self.mode == "offline":
            _enough(found.n_out, "without a record; difficulty or ratio(offline) take one")
            scale = found.scale_out * (_predictive(found.n_out) if self.variance == "shrunk" else 1)
            return _mean(_divided(found.target - found.mean_out, scale), found.n_out >= 1)
        enough = np.minimum(found.n_in, found.n_out)
        _enough(enough, "with each record and two without it; lira(offline) or ratio take fewer")
        ratios = _shrunk_ratio(found) if self.variance == "shrunk" else _normal_ratio(found)
        return _mean(ratios, enough >= 2)


@dataclass(frozen=True)
class Ratio(_FromReferences):
    """The probability of the record's label by the target, against its mean over models with and without the record.

    score = log p_target - log p̄, p̄ the mean of what models with the record and models without it give on average.
    Where no model had the record (or mode is "offline"), a p_out + 1 - a stands for what one would give. Where all had
    it, what they give is p̄: to solve that for p_out would blow up what little they differ by. RMIA's rank over a
    population rises with this score, and so does InfoRMIA's.

    Attributes:
        mode: None (what there is), or "offline" (models without the record only).
        a: how far models with the record are from certain of it, offline; 1 = they are like those without.
        temperature: that the logits are divided by.

    Raises:
        InputError: DV056, an unknown mode, a or temperature out of range.

    Source: Zarifzadeh et al. 2024, Low-cost high-power membership inference attacks (RMIA), equations 9 and 10;
    Lassila et al. 2025 (BASE: temperature 1, a 1).

    >>> from divulge.evidence import Evidence, References
    >>> values = np.log(np.array([[0.5, 0.9], [0.3, 0.9]], np.float32))[:, :, None]
    >>> references = References(signals={"loss": values}, trained_on=np.array([[True, False], [False, True]]))
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.log([0.8, 0.9])}, references=references)
    >>> np.exp(Ratio(temperature=1)(evidence, np.random.default_rng(0))).round(2).tolist()
    [2.0, 1.0]
    """

    mode: str | None = None
    a: float = 0.3
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.mode is not None:
            _check_mode(self.mode)
        if not 0 < self.a <= 1:
            raise InputError("DV056", f"expected an a above 0, at most 1, got {self.a!r:.80}")
        if not 0 < self.temperature < math.inf:
            raise InputError("DV056", f"expected a temperature above 0, got {self.temperature!r:.80}")

    def __str__(self) -> str:
        base = (self.a, self.temperature) == (1.0, 1.0)
        words = [] if self.mode is None else [self.mode]
        words += ["base"] if base else [*_own(self.a, 0.3, "a="), *_own(self.temperature, 2.0, "T=")]
        return f"ratio({', '.join(words)})" if words else "ratio"

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float64, nats; NaN where a record has no model.

        Raises:
            Unavailable: no references, or none of their signals is a probability of the label.
        """
        references = references_of(evidence)
        name = _log_probability(evidence, self.temperature)
        log_p = target_of(evidence, name)
        values = references.signals[name]
        p_in, p_out = means(values, references.trained_on, _sigmoid if name == "log_odds" else _exp)
        if self.mode == "offline":
            p_in = np.full_like(p_in, np.nan)
        elif self.mode == "online" and np.isnan(p_in + p_out).all():
            raise Unavailable("needs a model with each record and one without it; ratio(offline) takes the latter")
        likely_in = np.where(np.isnan(p_in), self.a * p_out + 1 - self.a, p_in)
        likely_out = np.where(np.isnan(p_out), p_in, p_out)
        if np.isnan(likely_in + likely_out).all():
            raise Unavailable("needs a model that was not trained on each record")
        if name == "log_odds":
            log_p = _log_sigmoid(log_p)
        mean = np.maximum((likely_in + likely_out) / 2, np.finfo(np.float64).tiny)
        return np.asarray((log_p - np.log(mean)).mean(axis=1))


RATIO_BASE = Ratio(a=1.0, temperature=1.0)


@dataclass(frozen=True)
class Rmia(_FromReferences):
    """The share of all records of the audit that a record dominates: its ratio is at least gamma times theirs.

    A step function of `Ratio`, whose order it keeps; as the papers give it, between 0 and 1. The population is the
    audit's records, members and non-members alike, so that the attack does not look at membership.

    Attributes:
        gamma: the factor, at least 1.
        ratio: the ratio it is of.

    Raises:
        InputError: DV056, gamma below 1.

    Source: Zarifzadeh et al. 2024, equation 4.

    >>> from divulge.evidence import Evidence, References
    >>> references = References(signals={"loss": np.full((1, 3, 1), -1.0)}, trained_on=np.zeros((1, 3), bool))
    >>> given = {"loss": np.log([0.1, 0.3, 0.9])}
    >>> evidence = Evidence(np.array([True, False, True]), signals=given, references=references)
    >>> Rmia()(evidence, np.random.default_rng(0)).round(2).tolist()
    [0.0, 0.33, 0.67]
    """

    gamma: float = 2.0
    ratio: Ratio = Ratio()

    def __post_init__(self) -> None:
        if not 1 <= self.gamma < math.inf:
            raise InputError("DV056", f"expected a gamma of at least 1, got {self.gamma!r:.80}")

    def __str__(self) -> str:
        words = _own(self.gamma, 2.0, "gamma=") + ([] if self.ratio == Ratio() else [str(self.ratio)])
        return f"rmia({', '.join(words)})" if words else "rmia"

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float64 in 0..1; raises as `Ratio`."""
        score = self.ratio(evidence, rng)
        population = np.sort(score[~np.isnan(score)])
        share = np.searchsorted(population, score - math.log(self.gamma), side="right") / max(len(population), 1)
        return np.where(np.isnan(score), np.nan, share)


@dataclass(frozen=True)
class Difficulty(_FromReferences):
    """The signal minus its mean over models that were not trained on the record.

    Attributes:
        signal: its name; where the references lack it, their log-odds, loss or first signal.

    Source: Watson et al. 2022, On the importance of difficulty calibration in membership inference attacks.

    >>> from divulge.evidence import Evidence, References
    >>> references = References(signals={"loss": np.full((1, 2, 1), -1.0)}, trained_on=np.zeros((1, 2), bool))
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([-.5, -1.])}, references=references)
    >>> Difficulty()(evidence, np.random.default_rng(0)).tolist()
    [0.5, 0.0]
    """

    signal: str = "log_odds"

    def __str__(self) -> str:
        return "".join(["difficulty", *(f"({word})" for word in _own(self.signal, "log_odds"))])

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float64, in the signal's unit; NaN where every model was trained on the record.

        Raises:
            Unavailable: no references, or all were trained on every record.
        """
        references = references_of(evidence)
        name = signal_of(evidence, self.signal)
        _, mean_out = means(references.signals[name], references.trained_on)
        if np.isnan(mean_out).all():
            raise Unavailable("needs a model that was not trained on each record")
        return np.asarray((target_of(evidence, name) - mean_out).mean(axis=1))


@dataclass(frozen=True)
class AttackR(_FromReferences):
    """The share of the models that were not trained on the record whose signal is below the target's.

    Ties count half. With few models many records share the first place; `Lira(mode="offline")` tells those apart.

    Attributes:
        signal: its name; where the references lack it, their log-odds, loss or first signal.

    Source: Ye et al. 2022, Enhanced membership inference attacks against machine learning models, Attack R.

    >>> from divulge.evidence import Evidence, References
    >>> values = np.arange(4.0)[:, None, None] * np.ones((4, 2, 1))
    >>> references = References(signals={"loss": values}, trained_on=np.zeros((4, 2), bool))
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([9., 1.])}, references=references)
    >>> AttackR()(evidence, np.random.default_rng(0)).tolist()
    [1.0, 0.375]
    """

    signal: str = "log_odds"

    def __str__(self) -> str:
        return "".join(["attack_r", *(f"({word})" for word in _own(self.signal, "log_odds"))])

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float64 in 0..1; NaN where every model was trained on the record.

        Raises:
            Unavailable: no references, or no record with four models that were not trained on it.
        """
        references = references_of(evidence)
        name = signal_of(evidence, self.signal)
        values, target, without = references.signals[name], target_of(evidence, name), ~references.trained_on
        n_out = without.sum(axis=0)
        if n_out.max(initial=0) < FEWEST_RANKED:
            raise Unavailable(
                f"needs {FEWEST_RANKED} models that were not trained on a record, has {n_out.max(initial=0)}"
            )
        below = np.empty(target.shape)
        r, _, q = values.shape

        def block(rows: slice) -> None:
            x, out, t = values[:, rows], without[:, rows, None], target[rows]
            below[rows] = ((x < t) & out).sum(axis=0) + 0.5 * ((x == t) & out).sum(axis=0)

        over_rows(block, len(target), r * q * 8)
        return _mean(_divided(below, n_out[:, None]), n_out >= 1)


# ------------------------------------------------------------------------------------------------------ the parts


def _shrunk_ratio(found: Moments) -> Floats:
    """(n, q) log t of the models with the record minus log t of those without, the gap drawn to the mean gap."""
    scale = np.sqrt((found.scale_in**2 + found.scale_out**2) / 2)
    few = (1 / np.maximum(found.n_in, 1) + 1 / np.maximum(found.n_out, 1))[:, None]
    gap = _divided(found.mean_in - found.mean_out, scale)
    for query in range(gap.shape[1]):
        known = np.isfinite(gap[:, query])
        ordered = np.sort(gap[known, query])  # the sums then depend on no order of rows
        if not len(ordered):
            continue
        noise = float(np.sort(few[known, 0]).mean())
        spread = max(float(ordered.var(ddof=1)) - noise, 0.0) if len(ordered) > 1 else 0.0
        weight = spread / (spread + few[:, 0])
        gap[:, query] = ordered.mean() + weight * (gap[:, query] - ordered.mean())
    mean_in = found.mean_out + scale * gap
    like_in = _log_t(found.target, mean_in, found.scale_in * _predictive(found.n_in), found.df_in)
    return like_in - _log_t(found.target, found.mean_out, found.scale_out * _predictive(found.n_out), found.df_out)


def _normal_ratio(found: Moments) -> Floats:
    infinite = np.full_like(found.target, np.inf)
    like_in = _log_t(found.target, found.mean_in, found.scale_in, infinite)
    return like_in - _log_t(found.target, found.mean_out, found.scale_out, infinite)


def _log_t(x: Floats, mean: Floats, scale: Floats, df: Floats) -> Floats:
    """(n, q) log density of Student's t; of the normal distribution where df is inf."""
    from scipy.special import gammaln

    z2 = np.square(_divided(x - mean, scale))
    normal = np.isinf(df)
    finite = np.where(normal, 1.0, df)
    values, place = np.unique(finite, return_inverse=True)  # a few different ones: gammaln of each once
    constant = gammaln((values + 1) / 2) - gammaln(values / 2) - 0.5 * np.log(values * np.pi)
    density = constant[place.reshape(df.shape)] - (finite + 1) / 2 * np.log1p(z2 / finite)
    with np.errstate(divide="ignore"):
        return np.where(normal, -0.5 * math.log(2 * math.pi) - z2 / 2, density) - np.log(scale)


def _predictive(n: NDArray[np.int64]) -> Floats:
    """(n, 1) how much wider a new model's value is spread than about its true mean."""
    return np.asarray(np.sqrt(1 + 1 / np.maximum(n, 1)))[:, None]


def _sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), in place."""
    np.negative(np.maximum(x, -700, out=x), out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def _exp(x: Floats) -> Floats:
    return np.exp(x, out=x)


def _log_probability(evidence: Evidence, temperature: float) -> str:
    """The signal that is the log-probability of the label at this temperature, or as near as there is."""
    references = references_of(evidence)
    exact = [f"log_prob@T={temperature:g}"] if temperature != 1 else ["loss", "log_prob@T=1", "log_odds"]
    others = [name for name in references.signals if name.startswith("log_prob@T=")]
    known = [name for name in (*exact, *others, "loss", "log_odds") if name in references.signals]
    loss_is_none = evidence.task == "regression"
    if loss_is_none or not known:
        raise Unavailable(
            f"needs the probability of each record's label (log_prob@T={temperature:g}, loss or log_odds), the "
            f"references have {', '.join(references.signals)}" + (", of a regression" if loss_is_none else "")
        )
    return signal_of(evidence, known[0])


def _log_sigmoid(x: Floats) -> Floats:
    return np.asarray(np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x))))


def _divided(x: NDArray[Any], by: NDArray[Any]) -> Floats:
    """x / by, NaN where by is 0 or NaN."""
    found = np.full(np.broadcast(x, by).shape, np.nan)
    return np.asarray(np.divide(x, by, out=found, where=by > 0))


def _mean(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """(n,) means over the queries, NaN where a record's models are too few."""
    return np.where(known, values.mean(axis=1), np.nan)


def _enough(counts: NDArray[np.int64], what: str) -> None:
    if counts.max(initial=0) < 2:
        raise Unavailable(f"needs two models {what}")


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise InputError("DV056", f"there is no mode {mode!r:.80}; known: {', '.join(MODES)}")


def _own(value: object, usual: object, prefix: str = "") -> list[str]:
    """What a name says of a setting that is not the usual one."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return [] if value == usual else [f"{prefix or 'signal='}{text}"]
