"""Records one by one: who an attack names at a stated false-discovery rate, and what reference models say of each.

Made on request only (`audit(records=True)`), and kept out of every file and form of a report: it is about people. All
intervals are pointwise: of many records some miss, and the most exposed of many looks more exposed than it is.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import AttackR, Difficulty, Lira, NamedAttack, Ratio, Rmia
from divulge.attacks.moments import ONE_SCALE, Sides, references_of, shrunk, sides, target_of
from divulge.errors import Unavailable
from divulge.folds import folds
from divulge.references.choosing import Chosen
from divulge.report import RECORD_COLUMNS

if TYPE_CHECKING:
    from divulge.evidence import Evidence, References

Floats = NDArray[np.float64]

RATE = 0.1
"""The false-discovery rate of the member list."""

GREATEST_SHARE = 0.1  # of the members, that the shortest possible list may hold before it is called not measurable
HEADROOM = 4  # models' worth of the largest variance that a probability may have, added to each record's own
_SPLIT = zlib.crc32(b"records")  # apart from the halves of the audit
_FROM_REFERENCES = (Lira, Ratio, Rmia, Difficulty, AttackR, Chosen)


class Records(NamedTuple):
    """Records one by one.

    columns: `divulge.report.RECORD_COLUMNS`, n cells each, in the order of the evidence; undefined: NaN, or None of
    `listed` and the ranks. Records that stand on both sides are left out, as in all of the audit.

        id                    the user's, else the row's number in the evidence, from 0
        member                bool
        score                 of the attack that `about` names; higher = more member-like
        p_value               1 + how many calibration non-members score as high, / 1 + how many there are
        q_value               p, adjusted over members and test non-members (Benjamini-Hochberg)
        listed                q is at most the stated rate; False of a calibration non-member
        exposure              (mean with - mean without) / standard deviation of the reference models' signal
        exposure_low, _high   its interval
        out_p_value           of the target's signal, or a higher one, from a model trained without the record
        memorisation          mean probability of the label by models with the record - that without, in [-1, 1]
        memorisation_low, _high   its interval
        rank                  by exposure, 1 = the most exposed; equal exposures share the better rank
        rank_low, rank_high   the smaller and the larger of its ranks by each half of the reference models

    about: attack, rate (stated), observed (share of non-members among the listed; None: nobody is), listed, members,
    calibration, test (non-members), smallest_p, fewest (names in the shortest list that can come out), reason (why
    the list is not measurable, or None), models, source, signal, stability (Spearman's correlation of the ranks by the
    two halves, or None), undefined (why the references say nothing, or None), left_out (records on both sides).
    """

    columns: dict[str, list[Any]]
    about: dict[str, Any]


def declared(attacks: Sequence[NamedAttack]) -> NamedAttack:
    """The attack whose scores the member list is of, chosen by kind and never by what it found.

    The first that uses reference models, else the first that is not fitted on membership, else the first.

    >>> from divulge.attacks import named
    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> declared([named(attack, evidence) for attack in ("learned", "loss", "lira")]).name
    'lira(shrunk)'
    """
    return min(attacks, key=lambda attack: (not _by_references(attack), attack.fitted))


def _by_references(attack: NamedAttack) -> bool:
    return isinstance(attack.call, _FROM_REFERENCES)


def table_of_records(
    evidence: Evidence,
    ids: Sequence[Any],
    attack: NamedAttack,
    scores: NDArray[np.floating[Any]],
    *,
    seed: int,
    error: float,
    left_out: int = 0,
) -> Records:
    """All that is known of each record.

    Args:
        evidence: n records of one side each.
        ids: n, what to call them.
        attack: that the scores are of.
        scores: (n,) float, higher = more member-like; NaN = lowest.
        seed: splits the non-members.
        error: total probability that an interval misses.
        left_out: how many records were on both sides.

    >>> from divulge.attacks import named
    >>> from divulge.evidence import Evidence
    >>> n = np.arange(4000)
    >>> loss = np.sin(n) + 9 * (n % 50 == 0) * (n < 2000)
    >>> evidence = Evidence(n < 2000, signals={"loss": loss})
    >>> found = table_of_records(evidence, n.tolist(), named("loss", evidence), loss, seed=0, error=0.05)
    >>> found.about["listed"], round(found.about["observed"], 2)
    (41, 0.02)
    """
    member = evidence.member
    calibration = ~member & (folds(evidence, 2, seed + _SPLIT) == 0)
    if attack.fitted and not _by_references(attack):
        named = _not_measured(attack, len(member))
    else:
        named = member_list(scores, member, calibration)
    found, sizes = _of_references(evidence, error), _sizes(member, calibration)
    count, listed = int(named.listed.sum()), named.listed.astype(object)
    if named.reason is not None:
        listed[~calibration] = None  # nobody is cleared by a list that cannot come out
    cells = {
        "id": list(ids),
        "member": member.tolist(),
        "score": scores.astype(np.float64).tolist(),
        "p_value": named.p_value.tolist(),
        "q_value": named.q_value.tolist(),
        "listed": listed.tolist(),
        **found.cells,
    }
    about = {
        "attack": attack.name,
        "rate": RATE,
        "observed": int((named.listed & ~member).sum()) / count if count else None,
        "listed": count,
        "members": sizes.members,
        "calibration": sizes.calibration,
        "test": sizes.test,
        "smallest_p": 1 / (sizes.calibration + 1),
        "fewest": sizes.fewest(RATE),
        "reason": named.reason,
        **found.about,
        "left_out": left_out,
    }
    return Records({name: cells[name] for name in RECORD_COLUMNS}, about)


def _not_measured(attack: NamedAttack, n: int) -> MemberList:
    reason = (
        f"not measurable: the attack {attack.name} is fitted on membership, so that the calibration non-members took "
        "part in the fits that score the others; audit with a threshold (loss) or with reference models as well"
    )
    nothing = np.full(n, np.nan)
    return MemberList(nothing, nothing, np.zeros(n, bool), reason)


# -------------------------------------------------------------------------------------------------- the member list


class MemberList(NamedTuple):
    """Who is named as a member: (n,) each.

    p_value: float, NaN of calibration non-members. q_value: float, adjusted. listed: bool. reason: why the list is not
    measurable, or None.
    """

    p_value: Floats
    q_value: Floats
    listed: NDArray[np.bool_]
    reason: str | None


class _Sizes(NamedTuple):
    members: int
    calibration: int
    test: int

    def fewest(self, rate: float) -> int:
        """The names in the shortest list that can come out: as many must share the smallest p."""
        return math.ceil((self.members + self.test) / ((self.calibration + 1) * rate) - 1e-9)


def _sizes(member: NDArray[np.bool_], calibration: NDArray[np.bool_]) -> _Sizes:
    held = int(calibration.sum())
    return _Sizes(int(member.sum()), held, int((~member).sum()) - held)


def member_list(
    scores: NDArray[np.floating[Any]],
    member: NDArray[np.bool_],
    calibration: NDArray[np.bool_],
    rate: float = RATE,
) -> MemberList:
    """Who scores higher than non-members do, with the share of non-members among the named held at a rate.

    A record's p counts the calibration non-members that score as high as it does. Members and the other (test)
    non-members are one pool, and Benjamini and Hochberg's list of it is expected to hold at most `rate` times the
    pool's share of non-members of non-members. In another pool, with fewer members, more of a list is wrong.

    Args:
        scores: (n,) higher = more member-like; NaN = lowest.
        member: (n,) bool.
        calibration: (n,) bool, non-members that no score was fitted on.
        rate: the false-discovery rate.

    Source: Bates et al. 2023, Testing for outliers with conformal p-values, sections 2 and 3.

    >>> scores, n = np.append(np.full(40, 2.0), np.sin(np.arange(800.0))), np.arange(840)
    >>> found = member_list(scores, n < 440, (n >= 440) & (n % 2 == 0))
    >>> int(found.listed.sum()), round(float(found.q_value[0]), 3)
    (46, 0.069)
    """
    score = np.where(np.isnan(scores), -np.inf, scores)
    held = np.sort(score[calibration])
    as_high = len(held) - np.searchsorted(held, score, side="left")
    p = np.where(calibration, np.nan, (1 + as_high) / (len(held) + 1))
    q = np.full(len(p), np.nan)
    pool = np.flatnonzero(~calibration)
    q[pool] = benjamini_hochberg(p[pool])
    with np.errstate(invalid="ignore"):
        listed = q <= rate * (1 + 1e-12)
    sizes = _sizes(member, calibration)
    fewest = sizes.fewest(rate)
    if listed.any() or fewest <= GREATEST_SHARE * sizes.members:
        return MemberList(p, q, listed, None)
    return MemberList(p, q, listed, _too_few(sizes, fewest, rate))


def benjamini_hochberg(p: Floats) -> Floats:
    """(m,) the smallest false-discovery rate at which each is found.

    Args:
        p: (m,) without gaps.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.9])).round(3).tolist()
    [0.04, 0.053, 0.053, 0.9]
    """
    order = np.argsort(p, kind="stable")
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return np.minimum(q, 1)


def _too_few(sizes: _Sizes, fewest: int, rate: float) -> str:
    smallest = rate * GREATEST_SHARE * sizes.members
    text = (
        f"not measurable: with {sizes.calibration:,} calibration non-members a list holds {fewest:,} names or none, "
        f"more than {GREATEST_SHARE:.0%} of the {sizes.members:,} members; "
    )
    if smallest <= 1:
        return (
            f"{text}needs more members: about {math.ceil(3 / (rate * GREATEST_SHARE) - 1e-9):,} records of each side do"
        )
    half = math.ceil(sizes.members * (1 - rate * GREATEST_SHARE) / (smallest - 1))
    return f"{text}needs about {2 * half:,} non-members"


# ------------------------------------------------------------------------------------------- from reference models


class Interval(NamedTuple):
    """(n,) float64 each: an estimate a record, and the ends of its interval; NaN where undefined."""

    value: Floats
    low: Floats
    high: Floats


class _Found(NamedTuple):
    """Cells by column, and what is said of them all."""

    cells: dict[str, list[Any]]
    about: dict[str, Any]


def _of_references(evidence: Evidence, error: float) -> _Found:
    """The columns that reference models fill."""
    nothing = np.full(len(evidence.member), np.nan)
    d = kept = Interval(nothing, nothing, nothing)
    p, ranked, halves = nothing, nothing, (nothing, nothing)
    references, name, reasons = evidence.references, None, []
    try:
        usable = references_of(evidence)
        name = signal_read(usable)
        values, within = averaged(usable.signals[name]), usable.trained_on
        d = exposure(values, within, error)
        ranked, halves = ranks(d.value), ranks_by_halves(values, within)
        p = out_p_value(values, within, averaged(target_of(evidence, name)[None])[0, :, 0])
    except Unavailable as reason:
        reasons.append(f"{'exposure and ' if name is None else ''}out_p_value: {reason.message}")
    try:
        if references is not None:
            kept = memorisation(references, evidence.task, error)
    except Unavailable as reason:
        reasons.append(f"memorisation: {reason.message}")
    numbers = {
        **dict(zip(("exposure", "exposure_low", "exposure_high"), d, strict=True)),
        **dict(zip(("memorisation", "memorisation_low", "memorisation_high"), kept, strict=True)),
        "out_p_value": p,
    }
    places = {"rank": ranked, "rank_low": np.minimum(*halves), "rank_high": np.maximum(*halves)}
    about = {
        "models": None if references is None else len(references.trained_on),
        "source": None if references is None else references.source,
        "signal": name,
        "stability": stability(*halves),
        "undefined": "; ".join(reasons) or None,
    }
    cells: dict[str, list[Any]] = {column: found.tolist() for column, found in numbers.items()}
    return _Found(cells | {column: _whole(found) for column, found in places.items()}, about)


def _whole(values: Floats) -> list[int | None]:
    return [None if math.isnan(value) else int(value) for value in values.tolist()]


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
