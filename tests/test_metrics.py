"""Metrics of one Roc: against scikit-learn on the same scores, and against twins written out in Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score, roc_auc_score, roc_curve

from divulge import empirical_epsilon, intervals, metrics
from divulge.errors import InputError
from divulge.metrics import AchievedFpr, Epsilon, Ppv, TprAtFpr
from divulge.roc import Roc, exact

ERROR = 0.05


def sample(seed: int, members: int, nonmembers: int, *, shift: float = 0.7, step: float = 0.0):
    """Scores and membership, and their Roc with even halves."""
    rng = np.random.default_rng(seed)
    member = np.arange(members + nonmembers) < members
    scores = rng.standard_normal(len(member)) + shift * member
    scores = np.round(scores / step) * step if step else scores
    return scores, member, exact(scores, member, np.arange(len(member)) % 2)


def separated(members: int, nonmembers: int) -> Roc:
    member = np.arange(members + nonmembers) < members
    return exact(member.astype(float) + np.arange(len(member)) * 1e-6, member, np.arange(len(member)) % 2)


def constant(members: int, nonmembers: int) -> Roc:
    member = np.arange(members + nonmembers) < members
    return exact(np.zeros(len(member)), member, np.arange(len(member)) % 2)


# ----------------------------------------------------------------------------------- equal to scikit-learn


def assert_equals_scikit_learn(scores: np.ndarray, member: np.ndarray, roc: Roc) -> None:
    assert metrics.auc(roc, ERROR).value == pytest.approx(roc_auc_score(member, scores), abs=1e-12)
    fpr, tpr, _ = roc_curve(member, scores, drop_intermediate=False)
    assert metrics.max_advantage(roc, ERROR).value == pytest.approx(np.abs(tpr - fpr).max(), abs=1e-12)


SAMPLES = {
    "no ties": {"members": 300, "nonmembers": 200},
    "ties": {"members": 300, "nonmembers": 200, "step": 0.5},
    "two values": {"members": 40, "nonmembers": 90, "step": 20.0},
    "below chance": {"members": 60, "nonmembers": 70, "shift": -1.5},
    "uneven": {"members": 3, "nonmembers": 2000, "step": 0.1},
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_auc_and_max_advantage_equal_scikit_learn(kind):
    assert_equals_scikit_learn(*sample(1, **SAMPLES[kind]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30), st.lists(st.integers(-4, 4), min_size=1, max_size=30))
def test_auc_and_max_advantage_equal_scikit_learn_whatever_the_ties(of_members, of_nonmembers):
    scores = np.array([*of_members, *of_nonmembers], np.float32)
    member = np.arange(len(scores)) < len(of_members)
    assert_equals_scikit_learn(scores, member, exact(scores, member, np.arange(len(scores)) % 2))


@pytest.mark.parametrize("step", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("fpr", [0.01, 0.05])
def test_ppv_at_the_samples_own_prior_is_scikit_learns_precision(step, fpr):
    scores, member, roc = sample(2, 700, 1000, step=step)
    threshold = np.sort(scores[~member])[::-1][math.floor(fpr * 1000)]
    expected = precision_score(member, scores > threshold)
    assert Ppv(fpr, 700 / 1700)(roc, ERROR).value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(20, 80))
def test_ppv_at_the_samples_own_prior_is_precision_whatever_the_ties(seed, members, nonmembers):
    scores, member, roc = sample(seed, members, nonmembers, step=0.5)
    above = scores > np.sort(scores[~member])[::-1][nonmembers // 2]
    estimate = Ppv(0.5, members / (members + nonmembers))(roc, ERROR)
    if above.any():
        assert estimate.value == pytest.approx(precision_score(member, above), abs=1e-12)
    else:
        assert "tied" in estimate.reason


# --------------------------------------------------------------------------------------- against a naive twin


def naive_tpr(scores: np.ndarray, member: np.ndarray, fpr: float) -> tuple[float, float]:
    """TPR and FPR strictly above the (k + 1)-th largest non-member, by sorting and counting."""
    of_nonmembers = sorted(scores[~member], reverse=True)
    threshold = of_nonmembers[math.floor(fpr * len(of_nonmembers) + 1e-9)]
    return tuple(sum(score > threshold for score in scores[side]) / side.sum() for side in (member, ~member))


@pytest.mark.parametrize("nonmembers", [200, 201, 999, 1000, 1999])
@pytest.mark.parametrize("step", [0.0, 0.5, 20.0])
def test_tpr_at_fpr_equals_counting(nonmembers, step):
    scores, member, roc = sample(3, 150, nonmembers, shift=1.0, step=step)
    for fpr in (0.05, 0.1, 0.29):  # 0.29 * 200 is 57.99… in binary
        tpr, achieved = naive_tpr(scores, member, fpr)
        assert TprAtFpr(fpr)(roc, ERROR).value == pytest.approx(tpr, abs=1e-15)
        assert AchievedFpr(fpr)(roc, ERROR).value == pytest.approx(achieved, abs=1e-15)
        assert achieved <= fpr


def test_tpr_interval_is_clopper_pearson_at_the_credible_ranks():
    scores, member, roc = sample(4, 400, 1000)
    below, above = intervals.fpr_ranks(0.05, 1000, ERROR / 4)
    ranked = np.sort(scores[~member])[::-1]
    counts = [int((scores[member] > ranked[int(rank)]).sum()) for rank in (below, above)]
    estimate = TprAtFpr(0.05)(roc, ERROR)
    assert estimate.low == pytest.approx(float(intervals.clopper_pearson_lower(counts[0], 400, ERROR / 4)))
    assert estimate.high == pytest.approx(float(intervals.clopper_pearson_upper(counts[1], 400, ERROR / 4)))


def naive_advantage(scores: np.ndarray, member: np.ndarray, halves: np.ndarray) -> float:
    """TPR - FPR with the threshold of the other half, for even halves: the mean of the two."""
    found = []
    for half in (0, 1):
        own, other = halves == half, halves != half
        gaps = {
            threshold: (scores[own & member] >= threshold).mean() - (scores[own & ~member] >= threshold).mean()
            for threshold in sorted(set(scores[own]), reverse=True)
        }
        best = max(gaps, key=gaps.__getitem__)
        best = best if gaps[best] > 0 else np.inf
        found.append((scores[other & member] >= best).mean() - (scores[other & ~member] >= best).mean())
    return float(np.mean(found))


@pytest.mark.parametrize("step", [0.0, 0.5, 20.0])
@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0])
def test_advantage_equals_choosing_on_one_half_and_measuring_on_the_other(step, shift):
    scores, member, roc = sample(5, 80, 120, shift=shift, step=step)
    expected = naive_advantage(scores, member, np.arange(200) % 2)
    assert metrics.advantage(roc, ERROR).value == pytest.approx(expected, abs=1e-12)


def test_halves_of_uneven_make_up_do_not_make_an_advantage():
    """Noise, and groups that leave one half nine tenths of the members and a tenth of the non-members."""
    rng = np.random.default_rng(0)
    alarms, runs = 0, 300
    member = np.arange(400) < 200
    for _ in range(runs):
        halves = (rng.random(400) < np.where(member, 0.9, 0.1)).astype(int)
        alarms += metrics.advantage(exact(rng.standard_normal(400), member, halves), ERROR).low > 0
    assert alarms <= 0.07 * runs


def test_balanced_accuracy_is_half_of_one_plus_the_advantage():
    _, _, roc = sample(6, 100, 100)
    advantage, accuracy = metrics.advantage(roc, ERROR), metrics.balanced_accuracy(roc, ERROR)
    assert accuracy[:3] == pytest.approx(tuple((1 + end) / 2 for end in advantage[:3]))


def test_an_attack_fitted_on_membership_has_a_wider_auc_by_root_two():
    scores, member, roc = sample(7, 400, 400)
    fitted = exact(scores, member, np.arange(800) % 2, fitted=True)
    value, low, high, _ = metrics.auc(roc, ERROR)
    _, wide_low, wide_high, _ = metrics.auc(fitted, ERROR)

    def logit(p: float) -> float:
        return math.log(p / (1 - p))

    assert logit(wide_high) - logit(value) == pytest.approx(math.sqrt(2) * (logit(high) - logit(value)))
    assert logit(value) - logit(wide_low) == pytest.approx(math.sqrt(2) * (logit(value) - logit(low)))


def test_an_extreme_auc_of_few_rows_is_widened_too_where_the_attack_is_fitted():
    scores, member, roc = sample(7, 60, 60, shift=2.0)
    fitted = exact(scores, member, np.arange(120) % 2, fitted=True)
    assert metrics.auc(fitted, ERROR).low < metrics.auc(roc, ERROR).low - 0.01
    assert metrics.auc(fitted, ERROR).high > metrics.auc(roc, ERROR).high


@pytest.mark.parametrize("prior", [0.5, 0.1, 0.001])
def test_ppv_is_bayes_rule_of_the_two_rates(prior):
    _, _, roc = sample(8, 500, 2000, shift=1.5)
    tpr, fpr = TprAtFpr(0.01)(roc, ERROR).value, AchievedFpr(0.01)(roc, ERROR).value
    assert Ppv(0.01, prior)(roc, ERROR).value == pytest.approx(prior * tpr / (prior * tpr + (1 - prior) * fpr))


def test_epsilon_counts_at_ranks_fixed_in_advance():
    scores, member, roc = sample(9, 2000, 1000, shift=2.0)
    ranks = [1, 10, 50, 100, 300]
    ranked = np.sort(scores[~member])[::-1]
    points = [(int((scores[member] > ranked[rank]).sum()), rank) for rank in ranks]
    expected = max(
        empirical_epsilon.epsilon_clopper_pearson(tp, 2000, fp, 1000, alpha=ERROR, tests=len(ranks))
        for tp, fp in points
    )
    assert Epsilon()(roc, ERROR).value == pytest.approx(expected)
    assert expected > 1


# -------------------------------------------------------------------------------------------- what is undefined


@pytest.mark.parametrize("metric", [TprAtFpr(0.01), AchievedFpr(0.01), Ppv(0.01, 0.1)], ids=str)
def test_a_low_fpr_needs_ten_expected_false_positives(metric):
    short, enough = metric(sample(10, 50, 999)[2], ERROR), metric(sample(10, 50, 1000)[2], ERROR)
    assert math.isnan(short.value)
    assert math.isnan(short.low)
    assert math.isnan(short.high)
    assert short.reason == "needs 1,000 non-members at FPR 0.01, has 999"
    assert enough.low <= enough.value <= enough.high
    assert enough.reason is None


@pytest.mark.parametrize(
    ("fpr", "needed"), [(0.0001, 100_000), (0.001, 10_000), (0.01, 1000), (0.05, 200), (0.03, 334)]
)
def test_needed_nonmembers(fpr, needed):
    assert metrics.needed_nonmembers(fpr) == needed


@pytest.mark.parametrize(("fpr", "n", "k"), [(0.01, 1000, 10), (0.29, 200, 58), (0.1, 30, 3), (0.01, 1099, 10)])
def test_allowed_rank_is_not_lost_to_rounding(fpr, n, k):
    assert metrics.allowed_rank(fpr, n) == k


def test_constant_scores_are_chance_with_the_reason():
    value, low, high, reason = metrics.auc(constant(100, 100), ERROR)
    assert value == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert reason == "all scores are equal: the attack says nothing"


def test_constant_scores_have_no_advantage_and_name_nobody():
    roc = constant(200, 1000)
    advantage = metrics.advantage(roc, ERROR)
    assert advantage.value == 0.0
    assert advantage.low < 0 < advantage.high
    assert TprAtFpr(0.01)(roc, ERROR).value == 0.0
    ppv = Ppv(0.01, 0.1)(roc, ERROR)
    assert math.isnan(ppv.value)
    assert ppv.reason == "no record lies above the threshold: the top scores are tied"


@pytest.mark.parametrize("sizes", [(1, 50), (50, 1)])
def test_one_row_on_a_side_has_no_interval(sizes):
    roc = sample(11, *sizes)[2]
    for metric in (metrics.advantage, metrics.balanced_accuracy):
        estimate = metric(roc, ERROR)
        assert math.isnan(estimate.value)
        assert "half" in estimate.reason


def test_a_separated_sample_is_told_apart_but_not_with_certainty():
    auc = metrics.auc(separated(50, 60), ERROR)
    assert (auc.value, round(auc.high, 6)) == (1.0, 1.0)
    assert 0.9 < auc.low < 1.0
    advantage = metrics.advantage(separated(50, 60), ERROR)
    assert 0.5 < advantage.low < advantage.value <= advantage.high == pytest.approx(1.0)


def test_max_advantage_has_no_interval_and_says_why():
    estimate = metrics.max_advantage(sample(12, 50, 50)[2], ERROR)
    assert math.isnan(estimate.low)
    assert "leans high" in estimate.reason


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(200, 400), st.sampled_from([0.0, 0.5, 3.0]))
def test_every_interval_holds_its_value(seed, members, nonmembers, step):
    roc = sample(seed, members, nonmembers, step=step)[2]
    for metric in (metrics.auc, metrics.advantage, TprAtFpr(0.05), AchievedFpr(0.05), Ppv(0.05, 0.1), Epsilon()):
        estimate = metric(roc, ERROR)
        for end, below in ((estimate.low, True), (estimate.high, False)):
            if not math.isnan(end):
                assert (end <= estimate.value + 1e-12) if below else (end >= estimate.value - 1e-12)


# ------------------------------------------------------------------------------------------- curves and names


def test_a_curve_is_made_of_points_of_the_roc():
    _, _, roc = sample(13, 3000, 5000)
    curve = metrics.curve(roc, ERROR, points=100)
    points = set(zip((roc.tp_all / 3000).tolist(), (roc.fp_all / 5000).tolist(), strict=True))
    assert set(zip(curve.tpr.tolist(), curve.fpr.tolist(), strict=True)) <= points
    assert len(curve.tpr) <= 100
    assert (curve.tpr[0], curve.fpr[0], curve.tpr[-1], curve.fpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(curve.fpr) >= 0).all()
    assert (np.diff(curve.tpr) >= 0).all()
    assert ((curve.low <= curve.tpr) & (curve.tpr <= curve.high)).all()


@pytest.mark.parametrize(
    ("text", "call"),
    [("auc", metrics.auc), ("tpr@0.001", TprAtFpr(0.001)), ("ppv@0.01,0.1", Ppv(0.01, 0.1))],
)
def test_a_metric_has_a_name(text, call):
    assert metrics.named(text).call == call


@pytest.mark.parametrize("text", ["aucc", "tpr", "tpr@2", "tpr@0", "tpr@x", "ppv@0.1", "tpr@0.1,0.2"])
def test_an_unknown_metric_is_refused(text):
    with pytest.raises(InputError, match="DV051"):
        metrics.named(text)
