"""The score and the tail: chosen on one half, measured on the other, whatever the number of attacks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from divulge import intervals, metrics, selection
from divulge.metrics import Estimate
from divulge.roc import exact
from divulge.selection import Tail, headline
from simulations import TEN, Population, preferred

ERROR = 0.05


def rocs(seed: int = 0, sizes: tuple[int, int] = (1000, 1000), **population):
    return Population(**{"shift": 1.0, **population}).rocs(np.random.default_rng(seed), *sizes)


def test_one_attacks_score_is_its_advantage():
    one = rocs(1)
    assert selection.score(one, ERROR) == metrics.advantage(one["attack 0"], ERROR)


@pytest.mark.parametrize("step", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_each_halfs_attack_is_chosen_on_that_half_and_measured_on_the_other(seed, step):
    several = rocs(seed, (60, 80), shift=0.5, weights=TEN, step=step)
    tp = fp = 0
    for half in (0, 1):
        best = preferred({name: roc.cross_fit.chosen[half] for name, roc in several.items()}, 30, 40)
        tp, fp = tp + several[best].cross_fit.tp[half], fp + several[best].cross_fit.fp[half]
    score, value = selection.score(several, ERROR), tp / 60 - fp / 80
    below = value - float(intervals.newcombe(tp, 60, fp, 80, ERROR).low)
    assert score.value == pytest.approx(value, abs=1e-12)
    assert score.low == pytest.approx(value - math.sqrt(2) * below, abs=1e-12)


def test_the_high_end_is_newcombes_of_the_attack_that_is_best_on_all_rows():
    several = rocs(11, weights=TEN)
    best = max((roc.cross_fit for roc in several.values()), key=lambda fit: fit.best_tp - fit.best_fp)
    expected = intervals.newcombe(best.best_tp, 1000, best.best_fp, 1000, ERROR).high
    assert selection.score(several, ERROR).high == pytest.approx(float(expected), abs=1e-12)


def test_the_first_of_equal_attacks_is_named():
    roc = rocs(12)["attack 0"]
    assert selection.tail_at({"b": roc, "a": roc}, 0.01, ERROR).attack == "b"


def test_the_named_attack_is_the_best_on_all_rows():
    assert selection.tail_at(rocs(2, weights=(0.1, 1.0, 0.2)), 0.01, ERROR).attack == "attack 1"


def test_score_does_not_depend_on_the_order_of_attacks_that_differ():
    several = rocs(3, weights=(1.0, 0.6, 0.3))
    turned = dict(reversed(several.items()))
    assert selection.score(several, ERROR) == selection.score(turned, ERROR)


@pytest.mark.parametrize(("sizes", "taken"), [((100, 100), "attack 0"), ((20_000, 20_000), "attack 1")])
def test_a_later_attack_is_taken_where_it_is_better_by_more_than_half_a_standard_error(sizes, taken):
    several = rocs(4, sizes, weights=(0.97, 1.0), shift=2.0)
    fits = {name: roc.cross_fit for name, roc in several.items()}
    assert {selection.best_on(fits, half) for half in (0, 1)} == {taken}


def test_a_group_counts_as_one_record_when_attacks_are_chosen():
    fits = {name: roc.cross_fit for name, roc in rocs(4, (20_000, 20_000), weights=(0.97, 1.0), shift=2.0).items()}
    in_groups = {name: fit._replace(effective=(0.005, 0.005)) for name, fit in fits.items()}
    assert selection.best_on(in_groups, 0) == "attack 0" != selection.best_on(fits, 0)


def test_a_score_needs_two_rows_a_side():
    assert math.isnan(selection.score(rocs(5, (1, 40)), ERROR).value)


# ----------------------------------------------------------------------------------------------------- tail


def naive_tail_value(several, fpr: float) -> float:
    """By thresholds of each half, from the counts at every threshold in turn."""
    names = list(several)
    tprs = {name: [] for name in names}
    for name in names:
        roc = several[name]
        for half in (0, 1):
            rank = fpr * (int(roc.nonmembers[half]) + 1) - 1  # above it an expected FPR of just this
            below, above = (
                max(at for at in range(len(roc.thresholds)) if roc.fp[half, at] <= k)
                for k in (math.floor(rank), math.floor(rank) + 1)
            )
            found = roc.tp[half, below] + (rank % 1) * (int(roc.tp[half, above]) - int(roc.tp[half, below]))
            tprs[name].append(found / roc.members[half])
    measured = []
    for half in (0, 1):
        best = max(names, key=lambda name: tprs[name][1 - half])
        measured.append(tprs[best][half])
    return float(np.mean(measured))


@pytest.mark.parametrize("step", [0.0, 0.5])
@pytest.mark.parametrize("fpr", [0.01, 0.05])
def test_tail_is_measured_on_the_half_that_did_not_choose(step, fpr):
    several = rocs(6, weights=TEN, step=step)
    assert selection.tail_at(several, fpr, ERROR).tpr.value == pytest.approx(naive_tail_value(several, fpr))


def test_tail_shares_its_error_over_the_attacks_below_and_not_above():
    several = rocs(7, weights=(1.0, 0.99, 0.98))
    tail = selection.tail_at(several, 0.01, ERROR)
    lows = [float(metrics.tpr_bounds(roc, 0.01, ERROR / 3).low) for roc in several.values()]
    highs = [float(metrics.tpr_bounds(roc, 0.01, ERROR).high) for roc in several.values()]
    assert tail.tpr.low == pytest.approx(max(lows))
    assert tail.tpr.high == pytest.approx(max(highs))


def test_lift_is_tpr_over_fpr_with_its_ends():
    tail = selection.tail_at(rocs(8), 0.01, ERROR)
    assert [end / 0.01 for end in tail.tpr[:3]] == pytest.approx(tail.lift[:3])


@pytest.mark.parametrize(("n", "fpr"), [(200, 0.05), (1000, 0.01), (1500, 0.01)])
def test_an_attack_that_guesses_has_a_lift_of_one(n, fpr):
    rng, member = np.random.default_rng(n), np.arange(2 * n) < n
    lifts = []
    for _ in range(300):
        several = {"noise": exact(rng.normal(size=2 * n), member, rng.integers(0, 2, 2 * n))}
        lifts.append(selection.tail_at(several, fpr, ERROR).lift.value)
    assert abs(np.mean(lifts) - 1) < 4 * np.std(lifts) / math.sqrt(len(lifts))


def test_an_interval_is_not_moved_to_meet_its_point():
    """Members far above: the bounds are those of the rates, and no point lies outside."""
    n = 1000
    member = np.arange(2 * n) < n
    scores = np.where(member, 6.0, 0.0) + np.random.default_rng(0).normal(size=2 * n)
    several = {"loss": exact(scores, member, np.arange(2 * n) % 2)}
    tail = selection.tail_at(several, 0.01, ERROR)
    assert tail.lift.low == pytest.approx(float(metrics.tpr_bounds(several["loss"], 0.01, ERROR).low) / 0.01)
    assert tail.lift.low > 98
    assert tail.lift.low <= tail.lift.value <= tail.lift.high == 100


def test_noise_is_lifted_once_on_average():
    lifts = [selection.tail_at(rocs(seed, shift=0.0, weights=TEN), 0.01, ERROR).lift.value for seed in range(150)]
    mean, error = np.mean(lifts), np.std(lifts) / np.sqrt(len(lifts))
    assert abs(mean - 1) < 4 * error


def test_a_tail_of_too_few_is_undefined():
    tail = selection.tail_at(rocs(9, (1000, 999)), 0.01, ERROR)
    assert math.isnan(tail.tpr.value)
    assert math.isnan(tail.lift.low)
    assert tail.tpr.reason == "needs 1,000 non-members at FPR 0.01, has 999"


@pytest.mark.parametrize("lacking", ["members", "non-members"])
def test_a_half_without_a_side_leaves_score_and_tail_undefined(lacking):
    """As where all members are one group: nothing is chosen on one half, or nothing measured on the other."""
    member = np.arange(2000) < 1000
    halves = np.where(member == (lacking == "members"), 0, np.arange(2000) % 2)
    several = {"attack": exact(np.random.default_rng(0).standard_normal(2000), member, halves)}
    for estimate in (selection.score(several, ERROR), selection.tail_at(several, 0.01, ERROR).tpr):
        assert math.isnan(estimate.value)
        assert math.isnan(estimate.low)
        assert "half" in estimate.reason


def test_ties_at_the_top_name_nobody():
    several = {"attack": rocs(10, step=20.0)["attack 0"]}
    tail = selection.tail_at(several, 0.01, ERROR)
    assert tail.tpr.value == 0.0
    assert tail.tpr.low == 0.0
    assert tail.tpr.high > 0.0


def carried(fpr: float, low: float) -> Tail:
    return Tail(Estimate(0.1, 0.05, 0.2), Estimate(low + 1, low, low + 2), fpr, "loss")


UNDEFINED = Tail(metrics.undefined("too few"), metrics.undefined("too few"), 0.0001, "")


@pytest.mark.parametrize(
    ("tails", "fpr"),
    [
        ([UNDEFINED, carried(0.001, 3.0), carried(0.01, 5.0), carried(0.05, 2.0)], 0.01),
        ([UNDEFINED, carried(0.001, 0.0), carried(0.01, 0.0)], 0.001),
    ],
    ids=["the largest low end", "else the lowest measured"],
)
def test_headline(tails, fpr):
    assert headline(tails).fpr == fpr


def test_headline_of_nothing_measured_says_what_it_needs():
    assert headline([UNDEFINED]).tpr.reason == "too few"
