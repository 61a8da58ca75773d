"""The probability of membership of each record, calibrated, under a stated prior; and how far it may be believed.

An attack's score ranks records; this gives the share of members among records that score so. It is a statement about
an attack and a pool, never about what happened to a person: read `WARNING` before showing one to anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge import attacks as attack_family
from divulge import controls as control_family
from divulge.attacks import Attack, NamedAttack
from divulge.calibration import Calibration, brier_score, calibrated, reliability_bins
from divulge.copies import with_copies_grouped
from divulge.errors import InputError, Unavailable
from divulge.folds import effective_shares, folds
from divulge.identity import content_hashes, identified
from divulge.likelihood import FOLDS, Reading, Scored, cross_fitted, levels, log_odds
from divulge.metrics import NAN, Estimate
from divulge.preparing import check_settings, check_sides, without_shared
from divulge.report import Row, frame_of
from divulge.scoring import scores_of, with_answers, with_signals

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


WARNING = (
    "A probability of membership is that of this attack, this model, this pool and the stated prior; another attack or "
    "prior gives another. It describes records that score alike and proves nothing about one of them: it is no legal "
    "statement about a person, and a low one is no proof of absence. It is personal data where the record is: keep it "
    "out of reports that are passed on."
)


@dataclass(frozen=True, eq=False, repr=False)
class MembershipProbability:
    """Each record's probability of membership under a prior, and how well it is calibrated.

    Attributes:
        reading: log likelihood ratios of membership (nats), which depend on no prior, and the attack of each fold.
        probability: (n,) float64 in [0, 1], in the evidence's row order; NaN: see `left_out` and `unscored`.
        low, high: (n,) float64, a pointwise interval of the share of members among records of that score.
        member: (n,) bool, what is true.
        ids: (n,) of the evidence, or None.
        prior: share of members in the pool that a record is drawn from.
        confidence: of every interval.
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

    reading: Reading
    probability: Floats
    low: Floats
    high: Floats
    member: NDArray[np.bool_]
    ids: NDArray[Any] | None
    prior: float
    confidence: float
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
    def attack(self) -> tuple[str, ...]:
        """The name of the attack chosen for each fold."""
        return self.reading.attack

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
        return _result(
            self.reading, self.member, self.ids, prior, self.confidence, self.effective, self.left_out, self.unscored
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
        InputError: DV056, no members or no non-members, a prior outside (0, 1), a confidence outside [0.5, 1);
            DV052, an unknown attack; DV059, all records stand on both sides.
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
    part = cross_fitted(scored, apart.member, fold, effective, 1 - confidence)
    ratio, low, high = (_placed(values, rows, len(evidence)) for values in part[:3])
    left_out, unscored = len(evidence) - len(rows), int(np.isnan(part.ratio).sum())
    reading = Reading(ratio, low, high, part.attack)
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
    check_settings(confidence, seed=seed)
    check_sides(evidence)


def _check_prior(prior: float) -> None:
    if not 0 < prior < 1:
        raise InputError(
            "DV056",
            f"expected a prior between 0 and 1, the share of members in the pool, got {prior!r}: 0.5 is an even mix",
        )


# ---------------------------------------------------------------------------------------------------- scores


def _scored(evidence: Evidence, attacks: Sequence[NamedAttack], fold: NDArray[np.uint8], seed: int) -> list[Scored]:
    """Those attacks that run and score enough on each side."""
    found, reasons = [], []
    for attack in attacks:
        try:
            found.append(levels(attack.name, scores_of(attack, evidence, seed), evidence.member, fold))
        except Unavailable as reason:
            if attack.required:
                raise Unavailable(f"the attack {attack.name} cannot run: {reason.message}") from reason
            reasons.append(f"{attack.name}: {reason.message}")
    if not found:
        raise Unavailable(f"no attack could run on this evidence ({'; '.join(reasons)})")
    return found


# ---------------------------------------------------------------------------------------------------- result


def _result(
    reading: Reading,
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
    at = log_odds(prior)
    probability, low, high = (np.asarray(expit(at + ratio)) for ratio in reading[:3])
    known = np.flatnonzero(~np.isnan(probability))
    brier = brier_score(probability[known], member[known], prior, effective, error)
    plain = prior * (1 - prior)
    return MembershipProbability(
        reading,
        probability,
        low,
        high,
        member,
        ids,
        prior,
        confidence,
        reliability_bins(probability[known], member[known], prior, effective, error),
        calibrated(reading.ratio[known], member[known], effective, error),
        brier,
        Estimate(plain - brier.value, plain - brier.high, plain - brier.low, brier.reason),
        left_out,
        unscored,
        effective,
    )
