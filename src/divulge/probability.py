"""The probability of membership of each record, calibrated, under a stated prior; and how far it may be believed.

An attack's score ranks records; this gives the share of members among records that score so. It is a statement about
an attack and a pool, never about what happened to a person: read `WARNING` before showing one to anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import attacks as attack_family
from divulge import controls as control_family
from divulge import intervals
from divulge.attacks import Attack, NamedAttack
from divulge.copies import with_copies_grouped
from divulge.errors import InputError, Unavailable
from divulge.folds import effective_shares, folds
from divulge.identity import content_hashes, identified
from divulge.metrics import NAN, Estimate, undefined
from divulge.pipeline import without_shared
from divulge.report import Row, frame_of
from divulge.roc import rank
from divulge.scoring import scores_of, with_answers, with_signals

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FOLDS = 5
NEAREST = (30, 120, 480, 1920)  # records that an interval looks at, and all there are; fixed before any data is seen
SHARES = (*np.arange(0.1, 0.95, 0.1).round(1).tolist(), 0.95, 0.99)  # of the records, below each edge of a bin
IN_BIN = 20  # records that the two highest bins hold at least, else they are left out
NOISE = 2.0  # squared standard errors; 1 lets the test of calibration reject in 6 to 8 % of leak-free runs
LARGEST_SLOPE = 50.0

WARNING = (
    "A probability of membership is that of this attack, this model, this pool and the stated prior; another attack or "
    "prior gives another. It describes records that score alike and proves nothing about one of them: it is no legal "
    "statement about a person, and a low one is no proof of absence. It is personal data where the record is: keep it "
    "out of reports that are passed on."
)


class Calibration(NamedTuple):
    """Whether probabilities can be taken at their word, measured on rows that they were not fitted on.

    slope: of the true log-odds in the predicted ones; 1 = as said, below 1 = too extreme, above 1 = too timid.
    intercept: how much higher the true log-odds are throughout (nats); 0 = as said. Neither depends on the prior.
    p: of the hypothesis that the slope is 1, two-sided; NaN where all probabilities are equal.

    >>> Calibration(Estimate(1.02, 0.9, 1.14), Estimate(0.0, -0.1, 0.1), 0.7).slope.value
    1.02
    """

    slope: Estimate
    intercept: Estimate
    p: float


@dataclass(frozen=True, eq=False, repr=False)
class MembershipProbability:
    """Each record's probability of membership under a prior, and how well it is calibrated.

    Attributes:
        probability: (n,) float64 in [0, 1], in the evidence's row order; NaN: see `left_out` and `unscored`.
        low, high: (n,) float64, a pointwise interval of the share of members among records of that score.
        member: (n,) bool, what is true.
        ids: (n,) of the evidence, or None.
        prior: share of members in the pool that a record is drawn from.
        confidence: of every interval.
        attack: the attack chosen for each fold.
        reliability: bins of the probabilities, rising: start, stop (smallest and largest probability in it), predicted
            (mean), observed (share of members at the prior) with its interval low, high; members, nonmembers (counts).
        calibration: slope and intercept of the log-odds, and a test.
        brier: mean squared error of the probabilities at the prior; 0 = all certain and right, lower is better.
        gain: by how much it is lower than that of the prior told to everybody; 0 = the attack adds nothing.
        left_out: rows that stand on both sides, as `audit` leaves them out: NaN.
        unscored: rows that the attack could not score: NaN.
        effective: as in `roc.Roc`.

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> leaky = Evidence(n < 1000, signals={"loss": np.random.default_rng(0).normal(size=2000) + (n < 1000)})
    >>> membership_probability(leaky, "loss")
    MembershipProbability(2,000 records, prior 0.5, 0.094 to 0.94, calibration slope 1.02 [0.9, 1.14])
    """

    probability: Floats
    low: Floats
    high: Floats
    member: NDArray[np.bool_]
    ids: NDArray[Any] | None
    prior: float
    confidence: float
    attack: tuple[str, ...]
    reliability: tuple[Row, ...]
    calibration: Calibration
    brier: Estimate
    gain: Estimate
    left_out: int
    unscored: int
    effective: tuple[float, float]

    def __repr__(self) -> str:
        slope = self.calibration.slope
        told = f"{slope.value:.3g} [{slope.low:.3g}, {slope.high:.3g}]" if slope.reason is None else "not measurable"
        ends = f"{np.nanmin(self.probability):.2g} to {np.nanmax(self.probability):.2g}"
        gaps = "".join(
            f", {count:,} {word}"
            for count, word in ((self.left_out, "left out"), (self.unscored, "not scored"))
            if count
        )
        return (
            f"MembershipProbability({len(self.member):,} records{gaps}, prior {self.prior:g}, {ends}, "
            f"calibration slope {told})"
        )

    @property
    def warning(self) -> str:
        """What a probability is and is not: to be shown with it."""
        return WARNING

    @property
    def members(self) -> Floats:
        """(m,) probabilities of the members, in the order of their rows."""
        return self.probability[self.member]

    @property
    def nonmembers(self) -> Floats:
        """(n - m,) probabilities of the non-members, in the order of their rows."""
        return self.probability[~self.member]

    @property
    def train_membership_probs(self) -> Floats:
        """`members`, under TensorFlow Privacy's name."""
        return self.members

    @property
    def test_membership_probs(self) -> Floats:
        """`nonmembers`, under TensorFlow Privacy's name."""
        return self.nonmembers

    def at_prior(self, prior: float) -> MembershipProbability:
        """The same under another prior, by Bayes' theorem; exactly what that prior would have given.

        Args:
            prior: in (0, 1).

        Raises:
            InputError: DV056, a prior outside (0, 1).

        >>> from divulge.evidence import Evidence
        >>> n = np.arange(2000)
        >>> leaky = Evidence(n < 1000, signals={"loss": np.random.default_rng(0).normal(size=2000) + (n < 1000)})
        >>> found = membership_probability(leaky, "loss")
        >>> [round(float(found.at_prior(prior).members.max()), 2) for prior in (0.5, 0.01)]
        [0.94, 0.13]
        """
        _check_prior(prior)
        was = _log_odds(self.prior)
        with np.errstate(divide="ignore"):
            ratio, low, high = (np.log(x) - np.log1p(-x) - was for x in (self.probability, self.low, self.high))
        reading = _Reading(ratio, low, high, self.attack)
        return _result(
            reading, self.member, self.ids, prior, self.confidence, self.effective, self.left_out, self.unscored
        )

    def to_frame(self, *, backend: str | None = None) -> Any:
        """One row a record: id (else its row number), member, probability, low, high.

        Args:
            backend: "pandas", "polars" or "pyarrow"; None: the first that is installed.

        Raises:
            InputError: DV054, an unknown backend, or one that is not installed.

        >>> from divulge.evidence import Evidence
        >>> n = np.arange(200)
        >>> evidence = Evidence(member=n < 100, signals={"loss": np.sin(n * n)})
        >>> membership_probability(evidence, "loss").to_frame(backend="pyarrow").shape
        (200, 5)
        """
        ids = np.arange(len(self.member)) if self.ids is None else self.ids
        columns = {
            "id": ids,
            "member": self.member,
            "probability": self.probability,
            "low": self.low,
            "high": self.high,
        }
        return frame_of({name: column.tolist() for name, column in columns.items()}, backend)


def membership_probability(
    evidence: Evidence,
    attacks: str | Attack | Iterable[str | Attack] = "default",
    *,
    prior: float = 0.5,
    confidence: float = 0.95,
    seed: int = 0,
) -> MembershipProbability:
    """Each record's probability of membership, from the best attack's score, calibrated on other records.

    Members and non-members are split into 5 folds, groups whole. For each fold, on the *other* folds: the attack of the
    highest AUC; the likelihood ratio of its score by isotonic regression, with one more member supposed below all
    scores and one more non-member above (a lone member at the top is not certainty); and how much of that ratio holds
    up, by calibrating each of those folds on the rest: log ratios are multiplied by the slope found there, times
    1 - 2/t², t that slope's test statistic, at most 1 and at least 0. Bayes' theorem makes a probability of it.

    A record's own membership so has no part in its probability, save where an attack is itself fitted, by folds of its
    own. Without a leak nearly everybody gets the prior: of 300 + 300 records 99 % lie within 0.05 of 0.5. (Isotonic
    regression alone, though cross-fitted, gives the highest 1 % there 0.74 on average.)

    Interval: of the share of members among records of that score under that fold's attack, pointwise. Given that a
    higher score is never less member-like, the records next below (above) bound it from below (above): Clopper-Pearson
    of the nearest 30, 120, 480, 1,920 and all of them, each at its part of the error, the tightest counts. Simulated,
    it holds the truth in 98 % or more. (The plateau's own counts hold it in 93 to 99 %, least at the top, with a
    quarter less width.) At either end one side is wide: nothing lies beyond. Where the score is not monotone the
    interval is of its neighbourhood.

    Args:
        evidence: n records, members and non-members.
        attacks: as in `audit`; the prior and the share of members in the evidence may differ.
        prior: share of members, in (0, 1), in the pool that a record is thought to come from.
        confidence: of every interval.
        seed: fixes the folds and every attack's randomness.

    Returns:
        (n,) float64 probabilities and more. A record that stands on both sides (`audit` leaves it out) or that the
        attack cannot score gets NaN and is counted.

    Raises:
        InputError: DV056, no members or no non-members, a prior or confidence outside its range; DV052, an unknown
            attack; DV059, all records stand on both sides.
        Unavailable: a named attack cannot run, or scores too few records to fit on some folds and predict the others.

    Source: Zadrozny and Elkan 2002 (isotonic calibration); Song and Marn 2020, Song and Mittal 2021, section 5 (the
        privacy risk score, from histograms); Cox 1958 (slope and intercept); Breiman 1995 (the factor).

    >>> from divulge.evidence import Evidence
    >>> n = np.arange(2000)
    >>> leaky = Evidence(n < 1000, signals={"loss": np.random.default_rng(0).normal(size=2000) + (n < 1000)})
    >>> found = membership_probability(leaky, "loss", prior=0.1)
    >>> round(float(found.members.mean()), 2), round(float(found.nonmembers.mean()), 2)
    (0.17, 0.09)
    """
    _check(evidence, prior, confidence, seed)
    chosen = attack_family.all_named(attacks, evidence)
    contents = content_hashes(evidence)
    shared = control_family.shared_records(evidence, contents)
    apart = without_shared(identified(evidence, contents), shared)
    apart = with_copies_grouped(apart, contents if shared.by is None else contents[~shared.rows])
    apart = with_answers(apart, chosen, seed)
    rows = np.flatnonzero(~shared.rows) if shared.by is not None else np.arange(len(evidence))
    fold = folds(apart, FOLDS, seed)
    scored = _scored(with_signals(apart, chosen), chosen, fold, seed)
    effective = effective_shares(apart.member, apart.groups)
    part = _cross_fitted(scored, apart.member, fold, effective, 1 - confidence)
    ratio, low, high = (_placed(values, rows, len(evidence)) for values in part[:3])
    left_out, unscored = len(evidence) - len(rows), int(np.isnan(part.ratio).sum())
    reading = _Reading(ratio, low, high, part.attack)
    return _result(reading, evidence.member, evidence.ids, prior, confidence, effective, left_out, unscored)


def _placed(values: Floats, rows: Ints, n: int) -> Floats:
    """(n,) the values at their rows, NaN elsewhere."""
    whole = np.full(n, NAN)
    whole[rows] = values
    return whole


# ---------------------------------------------------------------------------------------------------- checks


def _check(evidence: object, prior: float, confidence: float, seed: int) -> None:
    from divulge.evidence import Evidence

    if not isinstance(evidence, Evidence):
        doors = "Evidence.from_splits, .from_table or .load"
        raise InputError("DV056", f"expected Evidence, got {type(evidence).__name__}: make it with {doors}")
    _check_prior(prior)
    if not 0.5 <= confidence < 1:
        raise InputError("DV056", f"expected a confidence from 0.5 up to, not including, 1, got {confidence!r}")
    if seed < 0:
        raise InputError("DV056", f"expected a seed from 0 up, got {seed!r}")
    members = int(evidence.member.sum())
    if members in (0, len(evidence)):
        sides = "non-members" if members else "members"
        raise InputError("DV056", f"expected members and non-members, got no {sides} among {len(evidence)} rows")


def _check_prior(prior: float) -> None:
    if not 0 < prior < 1:
        raise InputError(
            "DV056",
            f"expected a prior between 0 and 1, the share of members in the pool, got {prior!r}: 0.5 is an even mix",
        )


# ---------------------------------------------------------------------------------------------------- scores


class _Scored(NamedTuple):
    """An attack's scores as ranks.

    level: (n,) int, 0 = not scored, then rising with the score, equal scores alike.
    counts: (folds, 2, u) int, non-members and members of each fold at each level.
    """

    attack: str
    level: Ints
    counts: Ints

    def without(self, *left: int) -> Ints:
        """(2, u) counts of all other folds."""
        return np.asarray(self.counts.sum(axis=0) - sum(self.counts[k] for k in left))


def _scored(evidence: Evidence, attacks: Sequence[NamedAttack], fold: NDArray[np.uint8], seed: int) -> list[_Scored]:
    """Those attacks that run and score enough on each side."""
    found, reasons = [], []
    for attack in attacks:
        try:
            found.append(_levels(attack.name, scores_of(attack, evidence, seed), evidence.member, fold))
        except Unavailable as reason:
            if attack.required:
                raise Unavailable(f"the attack {attack.name} cannot run: {reason.message}") from reason
            reasons.append(f"{attack.name}: {reason.message}")
    if not found:
        raise Unavailable(f"no attack could run on this evidence ({'; '.join(reasons)})")
    return found


def _levels(
    name: str, scores: NDArray[np.floating[Any]], member: NDArray[np.bool_], fold: NDArray[np.uint8]
) -> _Scored:
    known = ~np.isnan(scores)
    keys, inverse = np.unique(rank(scores[known]).keys, return_inverse=True)
    level = np.zeros(len(scores), np.int64)
    level[known] = len(keys) - inverse  # keys fall where scores rise
    cells = (fold.astype(np.int64) * 2 + member) * (len(keys) + 1) + level
    counts = np.bincount(cells, minlength=FOLDS * 2 * (len(keys) + 1)).reshape(FOLDS, 2, -1)
    by_fold = counts[:, :, 1:].sum(axis=2)  # (folds, 2)
    largest_two = np.sort(by_fold, axis=0)[-2:].sum(axis=0)
    if not (by_fold.sum(axis=0) > largest_two).all():
        nonmembers, members = by_fold.sum(axis=0)
        raise Unavailable(
            f"expected members and non-members (or groups of them) in at least 3 of {FOLDS} folds, got scores of "
            f"{members:,} members and {nonmembers:,} non-members that do not spread so far"
        )
    return _Scored(name, level, counts)


def _auc(counts: Ints) -> float:
    """Mann-Whitney of (2, u) counts at rising levels, ties one half."""
    nonmembers, members = counts
    below = np.cumsum(nonmembers) - nonmembers / 2
    return float(members @ below) / (float(members.sum()) * float(nonmembers.sum()))


def _best(scored: Sequence[_Scored], *left: int) -> tuple[_Scored, Ints]:
    """The attack of the highest AUC on all but some folds, and its counts there; the first of equals."""
    counts = [one.without(*left) for one in scored]
    at = int(np.argmax([_auc(one) for one in counts])) if len(scored) > 1 else 0
    return scored[at], counts[at]


# ------------------------------------------------------------------------------------------------ likelihood


class _Reading(NamedTuple):
    """Log likelihood ratios of membership, (n,) in nats, NaN = none; their bounds; the attack of each fold."""

    ratio: Floats
    low: Floats
    high: Floats
    attack: tuple[str, ...]


def _cross_fitted(
    scored: Sequence[_Scored],
    member: NDArray[np.bool_],
    fold: NDArray[np.uint8],
    effective: tuple[float, float],
    error: float,
) -> _Reading:
    """Each fold's log likelihood ratios by what the other folds say."""
    n = len(member)
    ratio, low, high = np.full(n, NAN), np.full(n, NAN), np.full(n, NAN)
    inner: dict[tuple[int, int], tuple[_Scored, Floats]] = {}  # by the two folds left out
    for first in range(FOLDS):
        for second in range(first + 1, FOLDS):
            best, counts = _best(scored, first, second)
            inner[first, second] = best, _isotonic(counts)
    names = []
    for k in range(FOLDS):
        best, counts = _best(scored, k)
        names.append(best.attack)
        tried = np.full(n, NAN)
        for other in set(range(FOLDS)) - {k}:
            theirs, ratios = inner[min(k, other), max(k, other)]
            rows = np.flatnonzero((fold == other) & (theirs.level > 0))
            tried[rows] = ratios[theirs.level[rows] - 1]
        rows = np.flatnonzero(~np.isnan(tried))
        kept = _share_that_holds(tried[rows], member[rows], min(effective))
        rows = np.flatnonzero((fold == k) & (best.level > 0))
        if not len(rows):  # of a handful of records not every fold has one
            continue
        level = best.level[rows] - 1
        ratio[rows] = kept * _isotonic(counts)[level]
        low[rows], high[rows] = _bounds(counts[:, 1:], level, effective, error)
    return _Reading(ratio, np.fmin(low, ratio), np.fmax(high, ratio), tuple(names))


def _isotonic(counts: Ints) -> Floats:
    """(u,) log likelihood ratio of membership at each level, rising and finite, from (2, 1 + u) counts.

    A member weighs one over all members, a non-member one over all non-members, so the ratio is of no prior: the
    regression under any prior has the same plateaus. One more member lies below all, one more non-member above. Levels
    that hold nobody here lie between their neighbours.
    """
    from sklearn.isotonic import isotonic_regression

    nonmembers, members = counts[:, 1:]
    seen = np.flatnonzero(members + nonmembers)
    of_member, of_nonmember = 1 / (members.sum() + 1), 1 / (nonmembers.sum() + 1)
    up = np.concatenate(([of_member], members[seen] * of_member, [0.0]))
    weight = up + np.concatenate(([0.0], nonmembers[seen] * of_nonmember, [of_nonmember]))
    fitted = isotonic_regression(up / weight, sample_weight=weight)[1:-1]
    share = np.interp(np.arange(len(members)), seen, fitted)
    return np.asarray(np.log(share) - np.log1p(-share))


def _share_that_holds(ratio: Floats, member: NDArray[np.bool_], effective: float) -> float:
    """The part, 0 to 1, of log likelihood ratios that holds up on rows that they were not fitted on.

    The slope of a logistic regression of membership on them through the pool's own log-odds, at most 1, times
    1 - 2/t², t its test statistic: what may well be noise is none.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    if member.all() or not member.any():
        return 0.0
    pool = _log_odds(float(member.mean()))

    def excess(slope: float) -> float:
        return float((member - expit(pool + slope * ratio)) @ ratio)

    start = excess(0.0)
    if not start > 0:
        return 0.0
    slope = 1.0 if excess(1.0) >= 0 else float(brentq(excess, 0.0, 1.0, xtol=1e-6))
    t_squared = effective * start**2 / float(np.square((member - member.mean()) * ratio).sum())
    return slope * max(0.0, 1 - NOISE / t_squared)


def _bounds(counts: Ints, level: Ints, effective: tuple[float, float], error: float) -> tuple[Floats, Floats]:
    """Pointwise bounds of the log likelihood ratio at some levels; infinite where nothing bounds it.

    Args:
        counts: (2, u) non-members and members at rising levels.
        level: (p,) int, 0-based.
        effective: as in `roc.Roc`.
        error: total, half at each end, shared by the windows.
    """
    asked, inverse = np.unique(level, return_inverse=True)
    before = np.zeros((2, counts.shape[1] + 1), np.int64)
    np.cumsum(counts, axis=1, out=before[:, 1:])
    records = before.sum(axis=0)
    windows = [*(window for window in NEAREST if window < records[-1]), int(records[-1])]
    alpha = error / 2 / len(windows)
    lows, highs = np.zeros(len(asked)), np.ones(len(asked))
    for window in windows:
        # A window is so many records whoever they are: chosen by the scores alone, ties whole.
        start = np.searchsorted(records, records[asked + 1] - window, side="right") - 1
        stop = np.minimum(np.searchsorted(records, records[asked] + window), len(records) - 1)
        below = before[:, asked + 1] - before[:, np.maximum(start, 0)]
        above = before[:, stop] - before[:, asked]
        np.maximum(lows, _limit(below, effective, alpha, lower=True), out=lows)
        np.minimum(highs, _limit(above, effective, alpha, lower=False), out=highs)
    sizes = before[:, -1] * np.array(effective[::-1])
    with np.errstate(divide="ignore"):
        low, high = (np.log(share) - np.log1p(-share) + math.log(sizes[0] / sizes[1]) for share in (lows, highs))
    return low[inverse], high[inverse]


def _limit(counts: Ints, effective: tuple[float, float], alpha: float, *, lower: bool) -> Floats:
    """(p,) Clopper-Pearson limit of the members' share of (2, p) counts; each distinct pair is computed once."""
    nonmembers, members = counts
    _, first, inverse = np.unique(members * (nonmembers.max() + 1) + nonmembers, return_index=True, return_inverse=True)
    k, others = effective[0] * members[first], effective[1] * nonmembers[first]
    if lower:
        k = np.where(k < 1, 0.0, k)  # where records come in groups, less than one counts as none
        return np.asarray(intervals.clopper_pearson_lower(k, k + others, alpha)[inverse])
    others = np.where(others < 1, 0.0, others)
    limit = intervals.clopper_pearson_upper(k, k + others, alpha)
    return np.asarray(np.where(k + others > 0, limit, 1.0)[inverse])


# ---------------------------------------------------------------------------------------------------- result


def _log_odds(share: float) -> float:
    return math.log(share) - math.log1p(-share)


def _result(
    reading: _Reading,
    member: NDArray[np.bool_],
    ids: NDArray[Any] | None,
    prior: float,
    confidence: float,
    effective: tuple[float, float],
    left_out: int,
    unscored: int,
) -> MembershipProbability:
    """Bayes' theorem, and what comes of it."""
    from scipy.special import expit

    prior, error = float(prior), 1 - confidence
    at = _log_odds(prior)
    probability, low, high = (np.asarray(expit(at + ratio)) for ratio in reading[:3])
    known = np.flatnonzero(~np.isnan(probability))
    brier = _brier(probability[known], member[known], prior, effective, error)
    plain = prior * (1 - prior)
    return MembershipProbability(
        probability,
        low,
        high,
        member,
        ids,
        prior,
        confidence,
        reading.attack,
        _reliability(probability[known], member[known], prior, effective, error),
        _calibration(reading.ratio[known], member[known], effective, error),
        brier,
        Estimate(plain - brier.value, plain - brier.high, plain - brier.low, brier.reason),
        left_out,
        unscored,
        effective,
    )


def _brier(
    probability: Floats, member: NDArray[np.bool_], prior: float, effective: tuple[float, float], error: float
) -> Estimate:
    """Mean squared error where a share `prior` are members; interval: normal, for these probabilities' maps."""
    value = variance = 0.0
    for side, truth, weight, share in ((member, 1.0, prior, effective[0]), (~member, 0.0, 1 - prior, effective[1])):
        squares = np.square(probability[side] - truth)
        if len(squares) < 2:
            return undefined("needs at least 2 members and 2 non-members")
        value += weight * float(squares.mean())
        variance += weight**2 * float(squares.var(ddof=1)) / (len(squares) * share)
    low, high = intervals.symmetric(value, variance, error)
    return Estimate(value, float(low), float(high))


def _calibration(ratio: Floats, member: NDArray[np.bool_], effective: tuple[float, float], error: float) -> Calibration:
    """Cox's slope and intercept in the pool of the evidence, which are those of any prior; robust standard errors."""
    from scipy.special import expit, ndtr

    pool = _log_odds(float(member.mean()))
    share = min(effective)
    ones = np.ones((len(ratio), 1))
    shift = _logistic(ones, member, pool + ratio, share)
    intercept = _estimate(shift, 0, error) if shift else undefined("the sides are told apart without an error")
    if np.ptp(ratio) < 1e-9:
        return Calibration(undefined("all probabilities are equal: nobody stands out"), intercept, NAN)
    both = _logistic(np.column_stack((ones, ratio)), member, np.full(len(ratio), pool), share)
    slope = _estimate(both, 1, error) if both else undefined("the sides are told apart without an error")
    predicted = expit(pool + ratio)
    weight = predicted * (1 - predicted)
    centred = ratio - (weight @ ratio) / weight.sum()
    z = float((member - predicted) @ centred) / math.sqrt(float(weight @ np.square(centred)) / share)
    return Calibration(slope, intercept, float(2 * ndtr(-abs(z))))


class _Fit(NamedTuple):
    beta: Floats
    variance: Floats


def _logistic(x: Floats, member: NDArray[np.bool_], offset: Floats, share: float) -> _Fit | None:
    """Logistic regression of (n,) membership on (n, d) terms, sandwich variances; None where it does not converge."""
    from scipy.special import expit

    beta = np.zeros(x.shape[1])
    for _ in range(100):
        predicted = expit(offset + x @ beta)
        gradient = x.T @ (member - predicted)
        curvature = (x * (predicted * (1 - predicted))[:, None]).T @ x
        if not np.linalg.cond(curvature) < 1e12:
            return None
        step = np.linalg.solve(curvature, gradient)
        beta += step / max(1.0, float(np.abs(step).max()))  # at most 1 a step: no leap past the top
        if np.abs(beta).max() > LARGEST_SLOPE:
            return None
        if np.abs(step).max() < 1e-9:
            scores = x * (member - predicted)[:, None]
            inverse = np.linalg.inv(curvature)
            return _Fit(beta, np.diag(inverse @ (scores.T @ scores) @ inverse) / share)
    return None


def _estimate(fit: _Fit, at: int, error: float) -> Estimate:
    low, high = intervals.symmetric(float(fit.beta[at]), float(fit.variance[at]), error)
    return Estimate(float(fit.beta[at]), float(low), float(high))


def _reliability(
    probability: Floats, member: NDArray[np.bool_], prior: float, effective: tuple[float, float], error: float
) -> tuple[Row, ...]:
    """Bins of equal numbers of records, the highest tenth once more by its own; equal probabilities stay together.

    Interval: Clopper-Pearson of the members among a bin's records, carried to the prior.
    """
    ordered = np.sort(probability)
    shares = [share for share in SHARES if share <= 0.9 or (1 - share) * len(ordered) >= IN_BIN]
    edges = np.unique(ordered[(np.array(shares) * len(ordered)).astype(np.int64)])
    place = np.searchsorted(edges, probability, side="right")
    sizes = member.sum() * effective[0], (~member).sum() * effective[1]
    rows: list[Row] = []
    for at in np.unique(place):
        inside = place == at
        tp, fp = int((inside & member).sum()), int((inside & ~member).sum())
        k, all_k = tp * effective[0], tp * effective[0] + fp * effective[1]
        low = float(intervals.clopper_pearson_lower(k, all_k, error / 2))
        high = float(intervals.clopper_pearson_upper(k, all_k, error / 2))
        of_members, of_nonmembers = prior / member.sum(), (1 - prior) / (~member).sum()
        weight = np.where(member[inside], of_members, of_nonmembers)
        rows.append(
            {
                "start": float(probability[inside].min()),
                "stop": float(probability[inside].max()),
                "predicted": float(np.average(probability[inside], weights=weight)),
                "observed": tp * of_members / (tp * of_members + fp * of_nonmembers),
                "low": _at_prior(low, sizes, prior),
                "high": _at_prior(high, sizes, prior),
                "members": tp,
                "nonmembers": fp,
            }
        )
    return tuple(rows)


def _at_prior(share: float, sizes: tuple[float, float], prior: float) -> float:
    """A share of members in a pool of such sizes, as it is where a share `prior` are."""
    up, down = share * prior / sizes[0], (1 - share) * (1 - prior) / sizes[1]
    return float(up / (up + down))
