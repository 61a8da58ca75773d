"""Probabilities of membership: beside a naive twin, against posteriors of closed form, and without a leak."""

from __future__ import annotations

import math
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from divulge import Evidence, InputError, Unavailable, likelihood, probability
from divulge.charts import look
from divulge.charts.reliability import reliability
from divulge.folds import effective_shares, folds
from divulge.likelihood import FOLDS, NEAREST
from divulge.probability import WARNING, MembershipProbability, membership_probability
from simulations import refuted

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))


class Drawn(NamedTuple):
    evidence: Evidence
    truth: np.ndarray  # (n,) log likelihood ratio of the score


def gaussian(seed: int, members: int, nonmembers: int, shift: float, exposed: float = 1.0, **more: Any) -> Drawn:
    """Members score higher by `shift`, a share `exposed` of them."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(members + nonmembers) < members
    score = rng.normal(size=len(member)) + shift * (member & (rng.random(len(member)) < exposed))
    truth = np.log1p(exposed * np.expm1(shift * score - shift**2 / 2))
    return Drawn(Evidence(member, signals={"mine": score}, **more), truth)


def told(evidence: Evidence, attacks: Any = "mine", **options: Any) -> MembershipProbability:
    return membership_probability(evidence, attacks, **options)


# ----------------------------------------------------------------------------------------------------------- twin


def naive(scores: np.ndarray, evidence: Evidence, seed: int, error: float = 0.05) -> tuple[np.ndarray, ...]:
    """Log likelihood ratios, low and high, by scikit-learn's regression and one record after another."""
    member, fold = evidence.member, folds(evidence, FOLDS, seed)
    share_m, share_n = effective_shares(member, evidence.groups)
    levels = np.unique(scores, return_inverse=True)[1].astype(float)

    def fitted(rows, asked):
        m, n = member[rows].sum() + 1, (~member[rows]).sum() + 1
        x = [-1.0, *levels[rows], levels.max() + 1]
        y = [1.0, *member[rows], 0.0]
        weight = [1 / m, *np.where(member[rows], 1 / m, 1 / n), 1 / n]
        return logit(IsotonicRegression(out_of_bounds="clip").fit(x, y, sample_weight=weight).predict(levels[asked]))

    ratio, low, high = (np.full(len(scores), np.nan) for _ in range(3))
    for k in range(FOLDS):
        own, rest = fold == k, fold != k
        tried = np.full(len(scores), np.nan)
        for other in set(range(FOLDS)) - {k}:
            tried[fold == other] = fitted(rest & (fold != other), fold == other)
        x, y = tried[rest], member[rest]
        pool = logit(y.mean())

        def unlikely(slope, x=x, y=y, pool=pool):
            return np.logaddexp(0, pool + slope * x).sum() - ((pool + slope * x) * y).sum()

        slope = minimize_scalar(unlikely, bounds=(0, 1), method="bounded", options={"xatol": 1e-9}).x
        t_squared = min(share_m, share_n) * (x @ (y - y.mean())) ** 2 / (((y - y.mean()) * x) ** 2).sum()
        kept = slope * max(0, 1 - 2 / t_squared) if x @ (y - y.mean()) > 0 else 0
        ratio[own] = kept * fitted(rest, own)
        sizes = share_m * y.sum(), share_n * (~y).sum()
        windows = [window for window in NEAREST if window < rest.sum()] + [int(rest.sum())]
        for i in np.flatnonzero(own):
            bounds = []
            for below in (True, False):
                beyond = levels[rest] <= levels[i] if below else levels[rest] >= levels[i]
                distance, sides = np.abs(levels[rest] - levels[i])[beyond], y[beyond]
                found = []
                for window in windows:
                    within = distance <= np.sort(distance)[:window][-1] if len(distance) else np.zeros(0, bool)
                    a, b = share_m * sides[within].sum(), share_n * (~sides)[within].sum()
                    alpha = error / 2 / len(windows)
                    if below:
                        found.append(beta.ppf(alpha, a, b + 1) if a >= 1 else 0.0)
                    else:
                        found.append(beta.ppf(1 - alpha, a + 1, b) if b >= 1 else 1.0)
                bounds.append(max(found) if below else min(found))
            with np.errstate(divide="ignore"):
                low[i], high[i] = logit(bounds) - math.log(sizes[0] / sizes[1])
    return ratio, np.fmin(low, ratio), np.fmax(high, ratio)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize(("members", "nonmembers"), [(100, 100), (30, 200)])
def test_it_is_the_naive_twin(members, nonmembers, decimals, grouped) -> None:
    evidence, _ = gaussian(3, members, nonmembers, 1.2)
    score = np.round(evidence.signals["mine"], decimals)
    groups = np.arange(len(evidence)) // 2 if grouped else None
    evidence = Evidence(evidence.member, signals={"mine": score}, ids=np.arange(len(evidence)), groups=groups)
    found = told(evidence, seed=4)
    assert np.ptp(found.probability) > 0.05
    for mine, twin in zip((found.probability, found.low, found.high), naive(score, evidence, 4), strict=True):
        np.testing.assert_allclose(mine, expit(twin), atol=2e-6)


def test_the_attack_of_the_highest_auc_on_the_other_folds_is_taken() -> None:
    rng = np.random.default_rng(0)
    member = np.arange(300) < 150
    signals = {name: rng.normal(size=300) + shift * member for name, shift in (("a", 0.5), ("b", 0.52), ("c", 0))}
    evidence = Evidence(member, signals=signals, ids=np.arange(300))
    fold = folds(evidence, FOLDS, 0)
    best = [
        max(signals, key=lambda name: roc_auc_score(member[fold != k], signals[name][fold != k])) for k in range(FOLDS)
    ]
    assert told(evidence, ["a", "b", "c"]).attack == tuple(best) and len(set(best)) == 2


def test_what_is_not_scored_counts_lowest_in_the_choice() -> None:
    evidence, _ = gaussian(0, 300, 300, 1.0)
    sharp = np.where(np.arange(600) < 40, 9.0 * evidence.member, np.nan)
    both = Evidence(evidence.member, signals={"sharp": sharp, **evidence.signals})
    found = told(both, ["sharp", "mine"])
    assert found.attack == ("mine",) * FOLDS and found.unscored == 0


# --------------------------------------------------------------------------------------------------------- priors


@pytest.mark.parametrize("prior", [1e-6, 0.01, 0.1, 0.5, 0.93])
def test_a_prior_is_bayes_theorem(prior) -> None:
    evidence, _ = gaussian(0, 200, 400, 1.0)
    even, direct = told(evidence), told(evidence, prior=prior)
    moved = even.at_prior(prior)
    for name in ("probability", "low", "high"):
        ratio = getattr(even, name) / np.maximum(1 - getattr(even, name), 1e-300)
        np.testing.assert_allclose(getattr(direct, name), prior * ratio / (prior * ratio + 1 - prior), rtol=1e-9)
        np.testing.assert_allclose(getattr(direct, name), getattr(moved, name), rtol=1e-9)
    assert direct.prior == moved.prior == prior
    assert direct.calibration.slope[:3] == pytest.approx(moved.calibration.slope[:3], rel=1e-6)
    assert direct.calibration.slope[:3] == pytest.approx(even.calibration.slope[:3], rel=1e-6)
    assert moved.brier[:3] == pytest.approx(direct.brier[:3]) and moved.gain[:3] == pytest.approx(direct.gain[:3])
    for one, other in zip(moved.reliability, direct.reliability, strict=True):
        assert one == pytest.approx(other)


@pytest.mark.parametrize("prior", [0.1, 0.7])
def test_isotonic_regression_under_a_prior_is_that_of_another_moved(prior) -> None:
    """Why one regression serves all priors: weights of the sides do not change the plateaus."""
    evidence, _ = gaussian(1, 80, 120, 0.8)
    level = np.argsort(np.argsort(evidence.signals["mine"]))
    counts = np.zeros((2, 201), int)
    counts[evidence.member.astype(int), level + 1] = 1
    weight = np.where(evidence.member, prior / 81, (1 - prior) / 121)
    x, y = [-1, *level, 200], [1, *evidence.member, 0]
    fit = IsotonicRegression().fit(x, y, sample_weight=[prior / 81, *weight, (1 - prior) / 121])
    moved = expit(likelihood._isotonic(counts) + logit(prior))
    np.testing.assert_allclose(fit.predict(np.arange(200)), moved, atol=1e-12)


# -------------------------------------------------------------------------------------------------- what must hold


def test_the_order_of_the_rows_does_not_matter() -> None:
    evidence, _ = gaussian(0, 150, 250, 0.8, ids=np.arange(400))
    order = np.random.default_rng(1).permutation(400)
    one, other = told(evidence), told(evidence.take(order))
    np.testing.assert_allclose(one.probability[order], other.probability, rtol=1e-12)
    np.testing.assert_allclose(one.low[order], other.low, rtol=1e-12)
    assert one.calibration.slope[:3] == pytest.approx(other.calibration.slope[:3]) and one.attack == other.attack


def test_only_the_order_of_the_scores_matters() -> None:
    evidence, _ = gaussian(0, 150, 250, 0.8, ids=np.arange(400))
    bent = Evidence(evidence.member, signals={"mine": np.exp(evidence.signals["mine"])}, ids=evidence.ids)
    np.testing.assert_array_equal(told(evidence).probability, told(bent).probability)


@pytest.mark.parametrize("row", [0, 3, 17, 199])
def test_a_records_own_side_has_no_part_in_its_probability(row, monkeypatch) -> None:
    evidence, _ = gaussian(0, 100, 100, 1.0, ids=np.arange(200))
    monkeypatch.setattr(probability, "folds", lambda evidence, k, seed: np.asarray(evidence.ids % k).astype(np.uint8))
    monkeypatch.setattr(probability, "identified", lambda evidence, contents: evidence)
    member = evidence.member.copy()
    member[row] = not member[row]
    one, other = told(evidence), told(Evidence(member, signals=evidence.signals, ids=evidence.ids))
    assert one.probability[row] == other.probability[row]
    assert one.low[row] == other.low[row] and one.high[row] == other.high[row]
    assert (one.probability != other.probability).sum() > 50


def test_nobody_is_certain() -> None:
    """Sides that part cleanly are certain only as far as the sample goes."""
    member = np.arange(200) < 100
    found = told(Evidence(member, signals={"mine": member + np.linspace(0, 0.5, 200)}))
    assert np.sort(found.members)[1] > 0.9 and np.sort(found.nonmembers)[-2] < 0.1
    assert 0.4 < found.members.min() < 0.6, "the lowest member lies between the sides where it does not count itself"
    assert found.probability.min() > 0 and found.probability.max() < 1
    assert found.members.max() < found.at_prior(0.9).members.max()
    assert found.calibration.slope.reason and math.isnan(found.calibration.slope.value)
    assert found.brier.high < 0.01 and found.gain.low > 0.24


@pytest.mark.parametrize(("members", "nonmembers"), [(10, 5000), (5000, 10), (3, 3)])
def test_very_unbalanced_sides(members, nonmembers) -> None:
    found = told(gaussian(0, members, nonmembers, 0.0).evidence)
    assert np.isfinite(found.probability).all() and found.probability.mean() == pytest.approx(0.5, abs=0.1)
    assert (found.low <= found.probability).all() and (found.probability <= found.high).all()


def test_equal_scores_leave_the_prior_exactly() -> None:
    member = np.arange(500) < 90
    found = told(Evidence(member, signals={"mine": np.zeros(500)}), prior=0.2)
    np.testing.assert_allclose(found.probability, 0.2, rtol=1e-12)
    assert (found.low < 0.2).all() and (found.high > 0.2).all()
    assert found.calibration.slope.reason == "all probabilities are equal: nobody stands out"
    assert found.gain[:3] == pytest.approx((0, 0, 0)) and len(found.reliability) == 1
    assert "calibration slope not measurable" in repr(found)


def test_an_attack_that_points_the_wrong_way_leaves_the_prior() -> None:
    evidence, _ = gaussian(0, 300, 300, -1.5)
    np.testing.assert_allclose(told(evidence).probability, 0.5)


def test_a_higher_score_is_never_less_likely_within_a_fold() -> None:
    evidence, _ = gaussian(2, 300, 300, 0.7, ids=np.arange(600))
    found, fold = told(evidence), folds(evidence, FOLDS, 0)
    for k in range(FOLDS):
        ordered = found.probability[fold == k][np.argsort(evidence.signals["mine"][fold == k])]
        assert (np.diff(ordered) >= 0).all() and np.ptp(ordered) > 0.3


def test_infinite_scores_are_the_ends() -> None:
    evidence, _ = gaussian(0, 200, 200, 1.5)
    score = evidence.signals["mine"].copy()
    score[np.argmax(score)], score[np.argmin(score)] = np.inf, -np.inf
    found = told(Evidence(evidence.member, signals={"mine": score}, ids=np.arange(400)))
    plain = told(Evidence(evidence.member, signals=evidence.signals, ids=np.arange(400)))
    np.testing.assert_array_equal(found.probability, plain.probability)


def test_a_record_that_cannot_be_scored_has_no_probability() -> None:
    evidence, _ = gaussian(0, 200, 200, 1.5)
    score = evidence.signals["mine"].copy()
    score[[1, 5, 8]] = np.nan
    found = told(Evidence(evidence.member, signals={"mine": score}))
    for values in (found.probability, found.low, found.high):
        assert np.flatnonzero(np.isnan(values)).tolist() == [1, 5, 8]
    assert found.unscored == 3 and found.left_out == 0 and "3 not scored" in repr(found)
    assert sum(row["members"] + row["nonmembers"] for row in found.reliability) == 397


def test_a_record_on_both_sides_has_no_probability() -> None:
    evidence, _ = gaussian(0, 200, 200, 1.5)
    ids = np.arange(400)
    ours, theirs = np.flatnonzero(evidence.member)[7], np.flatnonzero(~evidence.member)[9]
    ids[theirs] = ids[ours]
    found = told(Evidence(evidence.member, signals=evidence.signals, ids=ids))
    assert np.flatnonzero(np.isnan(found.probability)).tolist() == sorted([ours, theirs])
    assert found.left_out == 2 and "2 left out" in repr(found) and len(found.members) == 200


def test_groups_widen_the_intervals() -> None:
    evidence, _ = gaussian(0, 400, 400, 1.0)
    many = evidence.take(np.repeat(np.arange(800), 4))
    grouped = Evidence(many.member, signals=many.signals, groups=np.repeat(np.arange(800), 4))
    apart, _ = gaussian(0, 1600, 1600, 1.0)
    wide, narrow = (np.median(found.high - found.low) for found in (told(grouped), told(apart)))
    assert wide > 1.4 * narrow
    assert told(grouped).calibration.slope.high > told(apart).calibration.slope.high


# ----------------------------------------------------------------------------------------------------- the result


def test_members_and_nonmembers_in_their_order_and_under_the_old_names() -> None:
    found = told(gaussian(0, 100, 150, 1.0).evidence)
    np.testing.assert_array_equal(found.members, found.probability[found.member])
    np.testing.assert_array_equal(found.train_membership_probs, found.members)
    np.testing.assert_array_equal(found.test_membership_probs, found.probability[~found.member])
    assert found.probability.dtype == found.low.dtype == found.high.dtype == np.float64
    assert found.warning == WARNING and "legal" in WARNING and len(repr(found)) < 150


@pytest.mark.parametrize("backend", ["pandas", "polars", "pyarrow"])
def test_a_frame_has_a_row_a_record(backend, require) -> None:
    require(backend)
    evidence, _ = gaussian(0, 60, 60, 1.0)
    named = Evidence(evidence.member, signals=evidence.signals, ids=np.array([f"p{i}" for i in range(120)]))
    for given, first in ((evidence, 0), (named, "p0")):
        frame = told(given).to_frame(backend=backend)
        columns = frame.column_names if backend == "pyarrow" else list(frame.columns)
        assert columns == ["id", "member", "probability", "low", "high"]
        values = frame["id"].to_pylist() if backend == "pyarrow" else frame["id"].to_list()
        assert values[0] == first and len(values) == 120


def test_reliability_counts_every_record_once() -> None:
    found = told(gaussian(0, 2500, 1500, 1.0).evidence, prior=0.2)
    rows = found.reliability
    assert sum(row["members"] for row in rows) == 2500 and sum(row["nonmembers"] for row in rows) == 1500
    assert all(one["stop"] < other["start"] for one, other in pairwise(rows))
    assert 8 < len(rows) <= 12
    for row in rows:
        inside = (found.probability >= row["start"]) & (found.probability <= row["stop"])
        weight = np.where(found.member, 0.2 / 2500, 0.8 / 1500)[inside]
        assert row["predicted"] == pytest.approx(np.average(found.probability[inside], weights=weight))
        assert row["observed"] == pytest.approx(np.average(found.member[inside], weights=weight))
        assert row["low"] <= row["observed"] <= row["high"]


def test_the_slope_is_a_logistic_regressions_and_the_brier_score_the_mean_square() -> None:
    found = told(gaussian(0, 900, 600, 1.0).evidence, prior=0.3)
    model = LogisticRegression(C=1e12, tol=1e-10).fit(logit(found.probability)[:, None], found.member)
    assert found.calibration.slope.value == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.calibration.intercept.low < 0 < found.calibration.intercept.high
    weight = np.where(found.member, 0.3 / 900, 0.7 / 600)
    assert found.brier.value == pytest.approx(weight @ (found.probability - found.member) ** 2)
    assert found.gain.value == pytest.approx(0.21 - found.brier.value) and found.gain.low > 0


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("prior", [0, 1, -0.1, 1.5, math.nan])
def test_a_prior_must_be_a_share(prior) -> None:
    evidence, _ = gaussian(0, 50, 50, 0.0)
    with pytest.raises(InputError, match="DV056 expected a prior between 0 and 1"):
        told(evidence, prior=prior)
    with pytest.raises(InputError, match="DV056 expected a prior"):
        told(evidence).at_prior(prior)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ([0.1], {}, "expected Evidence, got list"),
        (Evidence(np.ones(9, bool), signals={"mine": np.zeros(9)}), {}, "got no non-members among 9 rows"),
        (Evidence(np.zeros(9, bool), signals={"mine": np.zeros(9)}), {}, "got no members among 9 rows"),
        (gaussian(0, 50, 50, 0.0).evidence, {"confidence": 1.0}, "expected a confidence"),
        (gaussian(0, 50, 50, 0.0).evidence, {"seed": -1}, "expected a seed from 0 up"),
    ],
)
def test_what_cannot_be_used_is_refused(given, options, said) -> None:
    with pytest.raises(InputError, match=f"DV056.*{said}"):
        told(given, **options)


def test_too_few_scores_are_refused_where_the_attack_was_named() -> None:
    evidence, _ = gaussian(0, 50, 50, 0.0)
    few = np.where(np.cumsum(evidence.member) * evidence.member > 2, np.nan, evidence.signals["mine"])
    with pytest.raises(Unavailable, match=r"the attack mine cannot run: .* 2 members and 50 non-members"):
        told(Evidence(evidence.member, signals={"mine": few}))
    with pytest.raises(InputError, match="DV052"):
        told(evidence, "lyra")
    with pytest.raises(Unavailable, match="the attack class_wise"):
        told(evidence, "class_wise(mine)")


# ----------------------------------------------------------------------------------------------------- simulation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("members", "nonmembers", "shift", "exposed"),
    [
        (100, 100, 0.0, 1.0),
        (1000, 1000, 0.0, 1.0),
        (100, 100, 0.5, 1.0),
        (1000, 1000, 0.5, 1.0),
        (1000, 1000, 1.5, 1.0),
        (60, 2000, 1.0, 1.0),
        (2000, 60, 1.0, 1.0),
        (2000, 2000, 4.0, 0.02),
    ],
)
def test_an_interval_holds_the_posterior_and_probabilities_are_calibrated(members, nonmembers, shift, exposed) -> None:
    """Of all records, and of the 2 % that score highest; truth: the posterior of the very score."""
    held, top_held, slopes, widths, top = [], [], [], [], []
    for seed in range(5 * SEEDS):
        drawn = gaussian(seed, members, nonmembers, shift, exposed)
        found, true = told(drawn.evidence), expit(drawn.truth)
        highest = np.argsort(-drawn.evidence.signals["mine"])[: len(true) // 50]
        inside = (found.low <= true) & (true <= found.high)
        held.append(inside.mean())
        top_held.append(inside[highest].mean())
        widths.append(np.median(found.high - found.low))
        slopes.append(found.calibration.slope.value)
        top.append((found.probability[highest].mean(), true[highest].mean()))
    said, was = np.mean(top, axis=0)
    slope = np.nanmedian(slopes)
    print(
        f"{members} + {nonmembers}, shift {shift} of {exposed}: held {np.mean(held):.4f}, top 2 % "
        f"{np.mean(top_held):.4f}, width {np.mean(widths):.3f}, slope {slope:.2f}, top 2 % told {said:.3f}, "
        f"is {was:.3f}"
    )
    assert np.mean(held) >= 0.95 and np.mean(top_held) >= 0.94
    assert np.mean(widths) < 2.5 * min(members, nonmembers) ** (-1 / 3)
    assert said <= was + 0.03, "too sure of the most exposed"
    if shift and min(members, nonmembers) >= 1000:
        assert 0.97 <= slope <= 1.15 and said >= was - 0.12


@pytest.mark.slow
def test_errors_fall_with_the_number_of_records() -> None:
    errors = []
    for n in (100, 1000, 10_000):
        runs = [gaussian(seed, n, n, 1.0) for seed in range(max(SEEDS // 4, 4))]
        errors.append(np.mean([np.abs(told(run.evidence).probability - expit(run.truth)).mean() for run in runs]))
    print("mean absolute errors", np.round(errors, 4))
    assert errors[0] < 0.09 and errors[1] < 0.045 and errors[2] < 0.02
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


@pytest.mark.slow
@pytest.mark.parametrize("attacks", ["one", "default", "grouped"])
@pytest.mark.parametrize(("members", "nonmembers"), [(100, 100), (300, 300), (1000, 60)])
def test_without_a_leak_everybody_has_the_prior(members, nonmembers, attacks) -> None:
    rejected = gained = runs = 0
    beyond, extremes = [], []
    for seed in range(10 * SEEDS):
        rng = np.random.default_rng([seed, members])
        n = members + nonmembers
        member = rng.permutation(n) < members
        if attacks == "default":
            outputs, labels = rng.normal(size=(n, 4)), rng.integers(0, 4, n)
            outputs[np.arange(n), labels] += 2
            found = membership_probability(Evidence(member, outputs=outputs, labels=labels, kind="logits"))
        elif attacks == "grouped":
            score, groups = np.repeat(rng.normal(size=n), 3), np.repeat(np.arange(n), 3)
            found = told(Evidence(np.repeat(member, 3), signals={"mine": score}, groups=groups))
        else:
            found = told(Evidence(member, signals={"mine": rng.normal(size=n)}))
        runs += 1
        rejected += found.calibration.p < 0.05
        gained += found.gain.low > 0
        away = np.abs(found.probability - 0.5)
        beyond.append((away > 0.05).mean())
        extremes.append(away.max())
    print(
        f"{attacks}, {members} + {nonmembers}: rejected {rejected / runs:.3f}, gain above 0 {gained / runs:.3f}, "
        f"beyond 0.05 {np.mean(beyond):.4f}, farthest (95 % of runs) {np.quantile(extremes, 0.95):.3f}"
    )
    assert not refuted(rejected, runs, 0.05) and not refuted(gained, runs, 0.025)
    assert np.mean(beyond) < 0.02 and np.quantile(extremes, 0.9) < 0.25


@pytest.mark.slow
def test_the_brier_score_and_the_slope_hold_their_truths() -> None:
    """Truth of the score: its mean over all records there are, by the posterior at each one's own score."""
    missed = runs = 0
    for seed in range(10 * SEEDS):
        drawn = gaussian(seed, 800, 800, 1.0)
        found, true = told(drawn.evidence), expit(drawn.truth)
        value = (true * (1 - found.probability) ** 2 + (1 - true) * found.probability**2).mean()
        missed += not found.brier.low <= value <= found.brier.high
        missed += not found.calibration.slope.low <= 1 <= found.calibration.slope.high
        runs += 2
    assert not refuted(missed, runs, 0.05)


# -------------------------------------------------------------------------------------------------------- picture


def datasets(chart: Any) -> list[dict[str, Any]]:
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


@pytest.mark.parametrize("prior", [0.5, 0.01])
def test_the_picture_shows_the_bins_and_no_record(prior, tmp_path) -> None:
    import vl_convert

    found = told(gaussian(0, 1000, 1000, 1.0).evidence, prior=prior)
    chart = reliability(found)
    shown = [row for row in datasets(chart) if "low" in row]
    assert [row["observed"] for row in shown] == pytest.approx([row["observed"] for row in found.reliability])
    assert len(datasets(chart)) < 120 < len(found.member)
    sides = {}
    for row in datasets(chart):
        if "share" in row:
            sides.setdefault(row["side"], []).append(row["share"])
    assert [sum(shares[:-1]) for shares in sides.values()] == pytest.approx([1, 1])
    spec = chart.to_dict()
    assert spec["title"]["text"] == look.QUESTIONS["reliability"]
    slope = found.calibration.slope.value
    assert f"Calibration slope {slope:.3f}" in spec["description"]
    svg = vl_convert.vegalite_to_svg(spec)
    assert set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg)) <= {*look.PALETTE.values(), "none", "transparent"}
    chart.save(tmp_path / "reliability.png", scale_factor=0.3)


def test_the_picture_of_no_leak_says_so() -> None:
    found = told(Evidence(np.arange(50) < 25, signals={"mine": np.zeros(50)}))
    assert "Nobody stands out" in reliability(found).to_dict()["description"]


# ----------------------------------------------------------------------------------------------------------- page

PAGE = Path(__file__).parents[1] / "docs" / "membership-probability.md"


def test_the_lines_of_the_page_run_and_print_what_it_shows(capsys, tmp_path, monkeypatch) -> None:
    """Words as printed; numbers may differ in another version of scikit-learn."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```\n(.*?)```)?", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    for code, shown in blocks:
        exec(compile(code, str(PAGE), "exec"), names)
        plain = [
            re.sub(r"-?\d[\d.,]*(e-\d+)?", "#", " ".join(text.split())) for text in (capsys.readouterr().out, shown)
        ]
        assert plain[0] == plain[1]
    assert Path("reliability.png").stat().st_size > 5_000
