"""Intervals from counts: against closed forms, scipy.stats and published examples."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

from divulge import empirical_epsilon, intervals
from divulge.intervals import AdvantageCounts

CASES = json.loads((Path(__file__).parent / "cases" / "epsilon.json").read_text())["cases"]

# ------------------------------------------------------------------------------------------------------ rates


@pytest.mark.parametrize("n", [1, 2, 7, 100, 10_000])
@pytest.mark.parametrize("alpha", [0.025, 0.005, 1e-6])
def test_clopper_pearson_equals_scipy_stats(n, alpha):
    for k in {0, 1, n // 3, n - 1, n}:
        expected = binomtest(k, n).proportion_ci(1 - 2 * alpha, method="exact")
        assert float(intervals.clopper_pearson_lower(k, n, alpha)) == pytest.approx(expected.low, rel=1e-9)
        assert float(intervals.clopper_pearson_upper(k, n, alpha)) == pytest.approx(expected.high, rel=1e-9)


@pytest.mark.parametrize("n", [1, 30, 1_000_000])
def test_clopper_pearson_has_closed_forms_at_none_and_all(n):
    assert float(intervals.clopper_pearson_lower(0, n, 0.025)) == 0.0
    assert float(intervals.clopper_pearson_upper(n, n, 0.025)) == 1.0
    assert float(intervals.clopper_pearson_upper(0, n, 0.025)) == pytest.approx(-math.expm1(math.log(0.025) / n))
    assert float(intervals.clopper_pearson_lower(n, n, 0.025)) == pytest.approx(0.025 ** (1 / n))


@settings(deadline=None)
@given(st.integers(1, 5000), st.data())
def test_clopper_pearson_limits_are_where_the_binomial_tail_is_alpha(n, data):
    k = data.draw(st.integers(0, n))
    alpha = data.draw(st.sampled_from([0.025, 1e-4]))
    low, high = (float(end(k, n, alpha)) for end in (intervals.clopper_pearson_lower, intervals.clopper_pearson_upper))
    assert low <= k / n <= high
    if k > 0:
        assert stats.binom.sf(k - 1, n, low) == pytest.approx(alpha, rel=1e-6)
    if k < n:
        assert stats.binom.cdf(k, n, high) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 29, 263, 10_000])
def test_wilson_equals_scipy_stats(n):
    for k in {0, 1, n // 2, n - 1, n}:
        expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
        low, high = intervals.wilson(k, n, 0.05)
        assert float(low) == pytest.approx(expected.low, abs=1e-12)
        assert float(high) == pytest.approx(expected.high, abs=1e-12)


# Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
WILSON_PUBLISHED = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("k", "n", "low", "high"), WILSON_PUBLISHED)
def test_wilson_equals_newcombes_table(k, n, low, high):
    assert tuple(round(float(end), 4) for end in intervals.wilson(k, n, 0.05)) == (low, high)


# Newcombe 1998, "Interval estimation for the difference between independent proportions", table II, method 10.
NEWCOMBE_PUBLISHED = [
    (56, 70, 48, 80, 0.0524, 0.3339),
    (9, 10, 3, 10, 0.1705, 0.8090),
    (6, 7, 2, 7, 0.0582, 0.8062),
    (5, 56, 0, 29, -0.0381, 0.1926),
    (0, 10, 0, 20, -0.1611, 0.2775),
    (0, 10, 0, 10, -0.2775, 0.2775),
    (10, 10, 0, 20, 0.6791, 1.0),
    (10, 10, 0, 10, 0.6075, 1.0),
]


@pytest.mark.parametrize(("a", "m", "b", "n", "low", "high"), NEWCOMBE_PUBLISHED)
def test_newcombe_equals_its_paper(a, m, b, n, low, high):
    assert tuple(round(float(end), 4) for end in intervals.newcombe(a, m, b, n, 0.05)) == (low, high)


def test_newcombe_turns_round_with_its_sides():
    low, high = intervals.newcombe(30, 90, 50, 110, 0.01)
    mirrored = intervals.newcombe(50, 110, 30, 90, 0.01)
    assert (float(low), float(high)) == pytest.approx((-float(mirrored.high), -float(mirrored.low)))


def test_a_difference_of_wilson_intervals_is_newcombe():
    first, second = intervals.wilson(56, 70, 0.05), intervals.wilson(48, 80, 0.05)
    ends = intervals.difference(56 / 70, first, 48 / 80, second)
    assert [float(end) for end in ends] == pytest.approx(
        [float(end) for end in intervals.newcombe(56, 70, 48, 80, 0.05)]
    )


def test_counts_and_levels_broadcast():
    k, error = np.arange(4)[:, None], np.array([0.05, 0.001])
    for limit in (intervals.clopper_pearson_lower, intervals.clopper_pearson_upper):
        together = limit(k, 9, error)
        assert together.shape == (4, 2)
        assert float(together[2, 1]) == float(limit(2, 9, 0.001))
    assert intervals.newcombe(k, 9, 1, 9, error).low.shape == (4, 2)


# -------------------------------------------------------------------------------------------------- advantage

COUNTS = st.tuples(st.integers(2, 3000), st.integers(2, 3000)).flatmap(
    lambda sizes: st.tuples(
        st.integers(0, sizes[0]),
        st.integers(0, sizes[1]),
        st.integers(0, sizes[0]),
        st.integers(0, sizes[1]),
        st.just(sizes[0]),
        st.just(sizes[1]),
    )
)


def test_score_interval_is_newcombes_widened_below_and_of_the_best_above():
    counts = AdvantageCounts(600, 480, 610, 470, 1000, 900)
    value = 600 / 1000 - 480 / 900
    low, high = intervals.advantage(counts, 0.05)
    below = value - float(intervals.newcombe(600, 1000, 480, 900, 0.05).low)
    assert float(low) == pytest.approx(value - math.sqrt(2) * below)
    assert float(high) == pytest.approx(float(intervals.newcombe(610, 1000, 470, 900, 0.05).high))


@settings(max_examples=300, deadline=None)
@given(COUNTS)
def test_score_interval_holds_its_value_and_grows_with_confidence(counts):
    counts = AdvantageCounts(*counts)
    value = counts.tp / counts.members - counts.fp / counts.nonmembers
    low, high = intervals.advantage(counts, np.array([0.2, 0.05, 1e-6]))
    assert (np.diff(low) <= 1e-12).all()
    assert (np.diff(high) >= -1e-12).all()
    assert (low <= value + 1e-12).all()
    assert (high >= value - 1e-12).all()
    assert (low >= -1).all()
    assert (high <= 1 + 1e-12).all()


@settings(max_examples=300, deadline=None)
@given(COUNTS)
def test_advantage_p_is_the_level_at_which_low_is_zero(counts):
    counts = AdvantageCounts(*counts)
    p = float(intervals.advantage_p(counts))
    if counts.tp * counts.nonmembers <= counts.fp * counts.members:
        assert p == 0.5
    elif p > 1e-250:
        assert float(intervals.advantage(counts, 2 * p).low) == pytest.approx(0.0, abs=1e-8)


def test_advantage_p_agrees_with_the_interval():
    counts = AdvantageCounts(*np.array([[600, 480, 610, 480, 1000, 1000], [520, 480, 530, 480, 1000, 1000]]).T)
    p = intervals.advantage_p(counts)
    for level in (0.2, 0.025, 1e-3, 1e-5):
        assert ((intervals.advantage(counts, 2 * level).low > 0) == (p < level)).all()


# -------------------------------------------------------------------------------------------------------- AUC


def test_auc_interval_is_symmetric_on_the_logit_scale():
    low, high = (float(end) for end in intervals.auc(0.7, 0.0009, 400, 300, 0.05))
    half = 1.959963984540054 * 0.03 / (0.7 * 0.3)
    centre = math.log(0.7 / 0.3)
    assert (math.log(low / (1 - low)), math.log(high / (1 - high))) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(("value", "m", "n"), [(0.9, 50, 80), (0.05, 199, 1000), (0.97, 20, 20)])
def test_an_extreme_auc_of_few_rows_has_the_ends_that_hanley_and_mcneil_allow(value, m, n):
    z = 1.959963984540054

    def deviations(theta: float) -> float:
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        one, other = ((a - 1) * (q1 - theta**2) + (b - 1) * (q2 - theta**2) for a, b in ((m, n), (n, m)))
        return (value - theta) / math.sqrt((theta * (1 - theta) + max(one, other)) / (m * n))

    low, high = (float(end) for end in intervals.auc(value, 1e-4, m, n, 0.05))
    assert (deviations(low), deviations(high)) == pytest.approx((z, -z), rel=1e-6)


@pytest.mark.parametrize("sizes", [(10, 10), (500, 500), (2, 3000)])
def test_a_separated_sample_has_an_interval(sizes):
    low, high = (float(end) for end in intervals.auc(1.0, 0.0, *sizes, 0.05))
    assert 0.2 < low < 1.0
    assert high == pytest.approx(1.0)
    mirrored = intervals.auc(0.0, 0.0, *sizes, 0.05)
    assert (float(mirrored.low), float(mirrored.high)) == pytest.approx((0.0, 1 - low), abs=1e-9)


def test_an_auc_without_variance_has_no_interval():
    assert all(math.isnan(end) for end in intervals.auc(0.6, float("nan"), 1, 50, 0.05))


# ------------------------------------------------------------------------------------------------- TPR at FPR


def naive_ranks(fpr: float, n: int, alpha: float) -> tuple[int, int]:
    """By trying every rank: the share above the (k + 1)-th largest of n is Beta(k + 1, n - k)."""
    at_most = [k for k in range(n) if stats.beta.sf(fpr, k + 1, n - k) <= alpha]
    at_least = [k for k in range(n) if stats.beta.cdf(fpr, k + 1, n - k) <= alpha]
    return max(at_most, default=-1), min(at_least, default=n)


@pytest.mark.parametrize("n", [1, 2, 10, 200, 1000])
@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("alpha", [0.0125, 1e-4])
def test_fpr_ranks_equal_trying_every_rank(n, fpr, alpha):
    assert tuple(int(rank) for rank in intervals.fpr_ranks(fpr, n, alpha)) == naive_ranks(fpr, n, alpha)


def test_fpr_ranks_at_the_ends_of_the_roc():
    below, above = intervals.fpr_ranks(np.array([0.0, 1.0]), 100, 0.0125)
    assert below.tolist() == [-1, 99]
    assert above.tolist() == [0, 100]


def test_fpr_ranks_of_many_rates_equal_one_at_a_time():
    rates = np.geomspace(1e-4, 0.9, 40)
    together = intervals.fpr_ranks(rates, 777, 0.0125)
    alone = [intervals.fpr_ranks(rate, 777, 0.0125) for rate in rates]
    assert [(int(a), int(b)) for a, b in zip(*together, strict=True)] == [(int(a), int(b)) for a, b in alone]


# --------------------------------------------------------------------------------------------------- epsilon


def bound(case: dict) -> float:
    of_counts = {key: case[key] for key in ("tp", "members", "fp", "nonmembers", "alpha", "delta") if key in case}
    of_guesses = {key: case[key] for key in ("canaries", "guesses", "right", "alpha", "delta") if key in case}
    return {
        "clopper_pearson": lambda: empirical_epsilon.epsilon_clopper_pearson(**of_counts),
        "gaussian_dp": lambda: empirical_epsilon.epsilon_gaussian(**of_counts),
        "one_run": lambda: empirical_epsilon.epsilon_one_run(**of_guesses),
        "one_run_fdp": lambda: empirical_epsilon.epsilon_one_run_fdp(**of_guesses),
    }[case["bound"]]()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(value) for value in case.values()))
def test_epsilon_equals_the_published_case(case):
    assert bound(case) == pytest.approx(case["epsilon"], abs=1e-6)


def test_epsilon_is_that_of_the_more_telling_side():
    telling = empirical_epsilon.epsilon_clopper_pearson(990, 1000, 500, 1000, alpha=0.05)
    turned = empirical_epsilon.epsilon_clopper_pearson(500, 1000, 10, 1000, alpha=0.05)
    assert telling == pytest.approx(turned)
    assert telling > 3


def test_epsilon_of_several_ranks_pays_for_each():
    alone = empirical_epsilon.epsilon_clopper_pearson(310, 10_000, 10, 10_000, alpha=0.05)
    shared = empirical_epsilon.epsilon_at_ranks([(310, 10), (900, 1000)], 10_000, 10_000, alpha=0.05)
    half = empirical_epsilon.epsilon_clopper_pearson(310, 10_000, 10, 10_000, alpha=0.025)
    assert shared == pytest.approx(half)
    assert shared < alone


def test_epsilon_falls_as_delta_grows():
    bounds = [
        empirical_epsilon.epsilon_clopper_pearson(310, 1000, 10, 1000, alpha=0.05, delta=d) for d in (0, 0.01, 0.1, 0.5)
    ]
    assert all(a > b for a, b in pairwise(bounds))
    assert bounds[-1] == 0.0


def test_delta_of_a_gaussian_mechanism_is_reached_at_its_epsilon():
    for mu, delta in ((0.5, 1e-5), (1.0, 1e-5), (3.0, 1e-9), (8.0, 1e-3)):
        epsilon = empirical_epsilon.epsilon_of_mu(mu, delta)
        reached = stats.norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * stats.norm.cdf(-epsilon / mu - mu / 2)
        assert reached == pytest.approx(delta, rel=1e-6)


def test_no_leak_and_any_delta_is_epsilon_zero():
    assert empirical_epsilon.epsilon_of_mu(0.0, 1e-5) == 0.0
    assert empirical_epsilon.epsilon_of_mu(0.1, 0.2) == 0.0


def test_one_run_without_delta_is_a_binomial_test():
    epsilon = empirical_epsilon.epsilon_one_run(1000, 500, 400, alpha=0.05)
    rate = 1 / (1 + math.exp(-epsilon))
    assert stats.binom.sf(399, 500, rate) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(("canaries", "guesses", "right"), [(10, 11, 5), (10, 5, 6), (10, 5, -1)])
def test_one_run_refuses_impossible_counts(canaries, guesses, right):
    with pytest.raises(ValueError, match="expected 0 <= right <= guesses <= canaries"):
        empirical_epsilon.epsilon_one_run(canaries, guesses, right, alpha=0.05)


@pytest.mark.parametrize(("canaries", "guesses", "right"), [(10, 11, 5), (10, 5, 6), (10, 5, -1)])
def test_one_run_fdp_refuses_impossible_counts(canaries, guesses, right):
    with pytest.raises(ValueError, match="expected 0 <= right <= guesses <= canaries"):
        empirical_epsilon.epsilon_one_run_fdp(canaries, guesses, right, alpha=0.05, delta=1e-5)


def test_no_guess_proves_nothing():
    assert empirical_epsilon.epsilon_one_run(10, 0, 0, alpha=0.05) == 0.0
    assert empirical_epsilon.epsilon_one_run(10, 5, 0, alpha=0.05, delta=1e-5) == 0.0
    assert empirical_epsilon.epsilon_one_run_fdp(10, 5, 0, alpha=0.05, delta=1e-5) == 0.0
