"""Runs over the same records: who is matched, and do paired intervals hold the difference as often as they say?

`pytest -m slow` simulates 200 pairs of runs a setting; DIVULGE_SEEDS=200, ten times as many.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import ndtr

import divulge
from divulge import Evidence, intervals, selection
from divulge.attacks import named
from divulge.errors import InputError
from divulge.folds import halves
from divulge.pairing import (
    FEW,
    Sample,
    Scored,
    accuracy_difference,
    auc_difference,
    best_auc,
    calls,
    delong_covariance,
    difference_of,
    matched,
    pair,
    score_difference,
    scored,
)
from divulge.roc import rank
from simulations import Cell, Outcome, Population, balanced, cover, lopsided, preferred, refuted, shift_of

ERROR = 0.05
SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
RUNS = 10 * SEEDS
MISSED = 0.07  # an interval at 95 % may miss the truth so often

slow = pytest.mark.slow


@dataclass(frozen=True)
class Pairs:
    """Two models' scores of the same records: unit noise that correlates, members shifted by each model's own leak.

    advantages: each model's best advantage in the population.
    attacks: of decreasing strength, each with noise of its own.
    step: scores are rounded to its multiples.
    group: records of one person, all alike within each model.
    """

    correlation: float
    advantages: tuple[float, float]
    attacks: int = 1
    step: float = 0.0
    halves: Callable[[np.random.Generator, int, int], np.ndarray] = balanced
    group: int = 1

    def draw(self, rng: np.random.Generator, members: int, nonmembers: int) -> tuple[dict, dict, Sample]:
        member = np.arange(members + nonmembers) < members
        halves = self.halves(rng, members // self.group, nonmembers // self.group)
        runs: tuple[dict, dict] = ({}, {})
        for at in range(self.attacks):
            noise = rng.standard_normal((2, (members + nonmembers) // self.group))
            noise[1] = self.correlation * noise[0] + math.sqrt(1 - self.correlation**2) * noise[1]
            for run, advantage, own in zip(runs, self.advantages, noise, strict=True):
                scores = np.repeat(own, self.group) + (1 - 0.1 * at) * shift_of(advantage) * member
                if self.step:
                    scores = np.round(scores / self.step) * self.step
                run[f"attack {at}"] = rank(scores.astype(np.float32))
        return *runs, Sample(member, np.repeat(halves, self.group), (1 / self.group, 1 / self.group))

    def truth(self, metric: str) -> float:
        populations = [Population(shift_of(advantage), step=self.step) for advantage in self.advantages]
        first, own = (getattr(population, {"score": "advantage", "auc": "auc"}[metric]) for population in populations)
        return own - first


DIFFERENCES = {"score": score_difference, "auc": auc_difference}


def cell(metric: str, setting: str, pairs: Pairs, sizes: tuple[int, int]) -> Cell:
    """The paired interval; its reference is the one as of independent samples of the same figures."""
    truth, difference = pairs.truth(metric), DIFFERENCES[metric]

    def simulate(rng: np.random.Generator) -> Outcome:
        first, own, sample = pairs.draw(rng, *sizes)
        found = difference(first, own, sample, ERROR)
        alone = {"score": selection.score, "auc": lambda rocs, error: best_auc(rocs, error).estimate}[metric]
        apart = difference_of(*(alone(sample.rocs(run), ERROR) for run in (own, first)))
        return Outcome(found.low, found.high, truth, apart.high - apart.low)

    return Cell(f"paired {metric}", setting, *sizes, simulate)


def cells() -> Iterator[Cell]:
    leaks = ((0.0, 0.0), (0.3, 0.3), (0.0, 0.1), (0.1, 0.3), (0.0, 0.4))
    sizes = ((200, 200), (2000, 2000), (100, 800))
    for (metric, correlation), leak, size in itertools.product(
        [("score", 0.0), ("score", 0.5), ("score", 0.95), ("score", 1.0), ("auc", 0.0), ("auc", 0.5), ("auc", 0.95)],
        leaks,
        sizes,
    ):
        yield cell(metric, f"correlation {correlation:g}, {leak[0]:g} and {leak[1]:g}", Pairs(correlation, leak), size)
    for correlation, leak, size in itertools.product((0.95, 1.0), ((0.9, 0.95), (0.8, 0.97)), ((100, 100), (500, 500))):
        for metric in DIFFERENCES:
            name = f"correlation {correlation:g}, {leak[0]:g} and {leak[1]:g}"
            yield cell(metric, name, Pairs(correlation, leak), size)
    for setting, options in {
        "ten attacks": {"attacks": 10},
        "ties": {"step": 1.0},
        "lopsided halves": {"halves": lopsided},
        "groups of 5": {"group": 5},
    }.items():
        for metric, leak in itertools.product(DIFFERENCES, ((0.0, 0.0), (0.1, 0.3), (0.0, 0.4))):
            name = f"{setting}, correlation 0.95, {leak[0]:g} and {leak[1]:g}"
            yield cell(metric, name, Pairs(0.95, leak, **options), (500, 500))


class Rates(NamedTuple):
    """How often each of two models is right, and how alike they are."""

    first: float
    own: float
    correlation: float


def accuracy_cell(rates: Rates, n: int) -> Cell:
    rows = np.ones(n, bool)

    def simulate(rng: np.random.Generator) -> Outcome:
        noise = rng.standard_normal((2, n))
        noise[1] = rates.correlation * noise[0] + math.sqrt(1 - rates.correlation**2) * noise[1]
        found = accuracy_difference(ndtr(noise[0]) < rates.first, ndtr(noise[1]) < rates.own, rows, 1.0, ERROR)
        return Outcome(found.low, found.high, rates.own - rates.first)

    return Cell("paired accuracy", f"{rates}", n, 0, simulate)


CELLS = [
    *cells(),
    *(
        accuracy_cell(Rates(*rates, correlation), n)
        for correlation in (0.0, 0.5, 0.95, 1.0)
        for rates in ((0.9, 0.9), (0.9, 0.95), (0.8, 0.99), (0.99, 1.0))
        for n in (100, 2000)
    ),
]


@slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_paired_interval_holds_the_difference(cell: Cell, record_property):
    found = cover(cell, RUNS)
    record_property("coverage", found._asdict())
    print(f"{cell}: {found}")
    assert not refuted(found.misses, found.runs, MISSED)


@slow
@pytest.mark.parametrize("size", [200, 2000])
def test_pairing_narrows_the_score_where_the_models_answer_alike(size):
    alike = cover(cell("score", "alike", Pairs(0.95, (0.3, 0.3)), (size, size)), RUNS)
    apart = cover(cell("score", "apart", Pairs(0.0, (0.3, 0.3)), (size, size)), RUNS)
    assert alike.width < 0.62 * alike.reference
    assert apart.width == pytest.approx(apart.reference, rel=0.03)


# --------------------------------------------------------------------------------------- naive twins, closed forms


def naive_covariance(one, other, member) -> float:
    """Member by non-member, in loops."""

    def wins(a: float, b: float) -> float:
        return 1.0 if a > b else 0.5 if a == b else 0.0

    ours, theirs = np.flatnonzero(member), np.flatnonzero(~member)
    of_members = [[np.mean([wins(x[i], x[j]) for j in theirs]) for i in ours] for x in (one, other)]
    of_others = [[np.mean([wins(x[i], x[j]) for i in ours]) for j in theirs] for x in (one, other)]
    total = 0.0
    for places in (of_members, of_others):
        a, b = places
        total += sum((x - np.mean(a)) * (y - np.mean(b)) for x, y in zip(a, b, strict=True)) / (len(a) - 1) / len(a)
    return total


@pytest.mark.parametrize("step", [0.0, 1.0])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_covariance_of_two_aucs_is_delongs(step, correlation):
    first, own, sample = Pairs(correlation, (0.0, 0.3), step=step).draw(np.random.default_rng(1), 30, 40)
    one, other = (run["attack 0"] for run in (first, own))
    values = (scores.scores(scores.keys)[1:] for scores in (one, other))
    expected = naive_covariance(*values, sample.member)
    assert delong_covariance(one, other, sample.member) == pytest.approx(expected, rel=1e-9)


def test_the_covariance_with_itself_is_the_variance_of_the_roc():
    first, _, sample = Pairs(0.0, (0.2, 0.2), step=0.5).draw(np.random.default_rng(2), 50, 70)
    roc = sample.rocs(first)["attack 0"]
    found = delong_covariance(first["attack 0"], first["attack 0"], sample.member)
    assert found == pytest.approx(roc.placement.variance, rel=1e-9)


def naive_calls(run, sample) -> list[bool]:
    """Every attack and every threshold of the other half, in loops."""
    scores = {name: ranked.scores(ranked.keys)[1:].tolist() for name, ranked in run.items()}
    found = [False] * len(sample.member)
    for half in (0, 1):
        best = dict.fromkeys(scores, (0.0, math.inf))
        there = [row for row in range(len(found)) if sample.halves[row] == half]
        inside = sum(bool(sample.member[row]) for row in there)
        for name, values in scores.items():
            for threshold in sorted({values[row] for row in there}, reverse=True):
                above = [row for row in there if values[row] >= threshold]
                tp = sum(bool(sample.member[row]) for row in above)
                gap = tp / inside - (len(above) - tp) / (len(there) - inside)
                if gap > best[name][0] + 1e-12:
                    best[name] = gap, threshold
        name = preferred({name: gap for name, (gap, _) in best.items()}, inside, len(there) - inside)
        for row in range(len(found)):
            if sample.halves[row] != half:
                found[row] = scores[name][row] >= best[name][1]
    return found


@pytest.mark.parametrize("halves", [balanced, lopsided])
@pytest.mark.parametrize("step", [0.0, 1.0])
def test_whom_the_attacker_names(halves, step):
    pairs = Pairs(0.5, (0.1, 0.3), attacks=3, step=step, halves=halves)
    for seed in range(5):
        for run in (drawn := pairs.draw(np.random.default_rng(seed), 40, 60))[:2]:
            sample = drawn[2]
            assert calls(run, sample.rocs(run), sample.halves).tolist() == naive_calls(run, sample)


def test_the_attackers_names_are_those_that_the_score_counts():
    first, _, sample = Pairs(0.0, (0.3, 0.3), attacks=10).draw(np.random.default_rng(3), 300, 400)
    rocs = sample.rocs(first)
    named_members = calls(first, rocs, sample.halves)
    counts = selection.select({name: roc.cross_fit for name, roc in rocs.items()}).counts
    assert named_members[sample.member].sum() == pytest.approx(float(counts.tp))
    assert named_members[~sample.member].sum() == pytest.approx(float(counts.fp))


def test_the_scores_correlation_is_that_of_the_counts():
    """Both sides' paired counts, one record at a time; halves are even, so that each record weighs the same."""
    first, own, sample = Pairs(0.9, (0.2, 0.3)).draw(np.random.default_rng(4), 200, 300)
    answers = [calls(run, sample.rocs(run), sample.halves) for run in (own, first)]
    shared, variances = 0.0, [0.0, 0.0]
    for side in (True, False):
        table = {(a, b): 0 for a in (True, False) for b in (True, False)}
        for member, a, b in zip(sample.member, *answers, strict=True):
            if member == side:
                table[bool(a), bool(b)] += 1
        n = sum(table.values())
        mine, theirs = table[True, True] + table[True, False], table[True, True] + table[False, True]
        excess = table[True, True] * table[False, False] - table[True, False] * table[False, True]
        found = max(excess - n / 2, 0) / math.sqrt(mine * (n - mine) * theirs * (n - theirs))
        of_side = [k * (n - k) / n**3 for k in (mine, theirs)]
        variances = [total + one for total, one in zip(variances, of_side, strict=True)]
        shared += found * math.sqrt(of_side[0] * of_side[1])
    correlation = shared / math.sqrt(variances[0] * variances[1])
    expected = difference_of(*(selection.score(sample.rocs(run), ERROR) for run in (own, first)), correlation)
    assert score_difference(first, own, sample, ERROR)[:3] == pytest.approx(expected[:3], abs=1e-12)


# Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data".
@pytest.mark.parametrize(
    ("table", "ends"), [((36, 12, 2, 0), (0.0569, 0.3404)), ((54, 0, 0, 0), (-0.0664, 0.0664))], ids=str
)
def test_accuracies_differ_by_method_10(table, ends):
    answers = np.repeat([(True, True), (True, False), (False, True), (False, False)], table, axis=0)
    found = accuracy_difference(answers[:, 1], answers[:, 0], np.ones(len(answers), bool), 1.0, ERROR)
    assert found.value == pytest.approx((table[1] - table[2]) / sum(table))
    assert found[1:3] == pytest.approx(ends, abs=5e-5)


def test_a_positive_phi_is_corrected_and_a_negative_one_is_not():
    assert intervals.phi(50, 50, 50, 100) == pytest.approx((2500 - 50) / 2500)
    assert intervals.phi(0, 50, 50, 100) == -1
    assert intervals.phi(26, 50, 50, 100) == pytest.approx((26 * 26 - 24 * 24 - 50) / 2500)
    assert intervals.phi(3, 3, 100, 100) == 0


@pytest.mark.parametrize("difference", DIFFERENCES.values())
def test_the_same_scores_differ_by_nothing(difference):
    first, _, sample = Pairs(0.0, (0.3, 0.3), attacks=3).draw(np.random.default_rng(5), 1000, 1000)
    found = difference(first, first, sample, ERROR)
    assert found.value == 0
    assert -0.03 < found.low < 0 < found.high < 0.03


def test_the_same_answers_differ_by_nothing():
    right = np.arange(1000) % 10 > 0
    found = accuracy_difference(right, right, np.ones(1000, bool), 1.0, ERROR)
    assert found.value == 0
    assert -0.005 < found.low < 0 < found.high < 0.005


@pytest.mark.parametrize("difference", DIFFERENCES.values())
def test_records_of_a_group_count_as_one(difference):
    first, own, sample = Pairs(0.9, (0.1, 0.3), group=4).draw(np.random.default_rng(6), 800, 800)
    grouped = difference(first, own, sample, ERROR)
    alone = difference(first, own, sample._replace(effective=(1.0, 1.0)), ERROR)
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high - grouped.low == pytest.approx(2 * (alone.high - alone.low), rel=0.1)


def test_a_run_that_gives_no_interval_leaves_the_difference_undefined():
    first, own, sample = Pairs(0.0, (0.0, 0.3)).draw(np.random.default_rng(7), 60, 60)
    constant = {"attack 0": rank(np.zeros(120))}
    assert math.isnan(auc_difference(constant, own, sample, ERROR).value)
    one_half = sample._replace(halves=np.zeros(120, np.uint8))
    assert "half" in str(score_difference(first, own, one_half, ERROR).reason)


# -------------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize("kinds", [(np.int64, np.int64), (np.int32, np.int64), (np.int64, str), (str, object)])
def test_records_are_matched_by_id_whatever_its_type(kinds):
    first, own = (np.array(ids).astype(kind) for ids, kind in zip(([5, 7, 9, 7, 1], [1, 9, 2, 5]), kinds, strict=True))
    rows, others = matched(first, own)
    assert rows.tolist() == [0, 2, 4]
    assert others.tolist() == [3, 1, 0]


def run(n: int = 400, leak: float = 0.5, ids: np.ndarray | None = None, seed: int = 0, **fields: object) -> Evidence:
    rng = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    outputs = rng.standard_normal((2 * n, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 2 * n)
    outputs[np.arange(2 * n), labels] += 1 + leak * member
    given = {"ids": np.arange(2 * n) if ids is None else ids, "member": member, **fields}
    return Evidence(outputs=outputs, labels=labels, kind="logits", **given)


def rescored(evidence: Evidence, **options: object) -> Scored:
    return scored(divulge.audit(evidence, **{"controls": (), **options}), evidence, "run")


def test_a_run_scored_anew_gives_the_audits_score():
    evidence = run()
    report = divulge.audit(evidence, seed=3, controls=("duplicates",))
    again = scored(report, evidence, "run")
    found = pair(again, again, ERROR)
    assert set(again.ranked) == {"loss", "modified_entropy", "class_wise(loss)"}
    assert found.differences.keys() == {"score", "auc", "member_accuracy", "nonmember_accuracy"}
    half = halves(evidence, 3)
    rocs = Sample(evidence.member, half).rocs(again.ranked)
    assert selection.score(rocs, ERROR)[:3] == pytest.approx(report.score[:3], abs=1e-12)


def test_the_order_of_records_does_not_matter():
    first, own = run(seed=1), run(seed=2, leak=1.0)
    turned = own.take(np.random.default_rng(0).permutation(800))
    assert pair(rescored(first), rescored(own), ERROR) == pair(rescored(first), rescored(turned), ERROR)


def test_records_left_out_are_counted():
    member = np.arange(800) < 400
    member[[0, 1, 799]] ^= True
    ids = np.arange(800)
    ids[10:15] += 10_000
    ids[20] = 21
    found = pair(rescored(run()), rescored(run(seed=1, ids=ids, member=member)), ERROR)
    assert found.crossed == 3
    assert (found.members, found.nonmembers) == (400 - 2 - 5 - 2, 400 - 1)
    assert found.left_out == (800 - 391 - 399, 800 - 391 - 399)
    assert found.reason is None


def test_records_on_both_sides_of_a_run_are_not_matched():
    ids = np.arange(800)
    ids[700] = 5
    own = run(seed=1, ids=ids)
    for controls in ((), ("duplicates",)):
        found = pair(rescored(run()), rescored(own, controls=controls), ERROR)
        assert (found.members, found.nonmembers) == (399, 399)


@pytest.mark.parametrize("shared", [FEW - 1, FEW])
def test_too_few_matches_stay_unpaired_with_the_reason(shared):
    ids = np.arange(800)
    ids[shared:400] += 10_000
    found = pair(rescored(run()), rescored(run(seed=1, ids=ids)), ERROR)
    assert found.members == shared
    assert bool(found.differences) == (shared == FEW)
    assert (found.reason is None) == (shared == FEW)


def test_groups_count_as_one_and_need_enough():
    groups = np.arange(800) // 5
    found = pair(rescored(run(groups=groups)), rescored(run(seed=1)), ERROR)
    alone = pair(rescored(run()), rescored(run(seed=1)), ERROR)
    widths = [one.differences["score"].high - one.differences["score"].low for one in (found, alone)]
    assert widths[0] > 1.8 * widths[1]
    few = pair(rescored(run()), rescored(run(seed=1, groups=np.arange(800) // 10)), ERROR)
    assert not few.differences and "counted by group" in str(few.reason)


def test_runs_that_group_records_differently_stay_unpaired():
    one, other = run(groups=np.arange(800) // 2), run(seed=1, groups=(np.arange(800) + 1) // 2)
    assert "different groups" in str(pair(rescored(one), rescored(other), ERROR).reason)
    renamed = run(seed=1, groups=np.array([f"person {at // 2}" for at in range(800)]))
    assert pair(rescored(one), rescored(renamed), ERROR).reason is None


def test_the_halves_are_the_first_runs():
    """A run audited at another seed has its records in the first run's halves: the same scores differ by nothing."""
    evidence = run()
    first, own = rescored(evidence, attacks="loss", seed=0), rescored(evidence, attacks="loss", seed=9)
    assert pair(first, own, ERROR).differences["score"].value == 0


def test_an_attack_of_ones_own_leaves_accuracies_paired():
    def loss(evidence: Evidence, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(named("entropy", evidence).call(evidence, rng))

    found = pair(rescored(run()), rescored(run(seed=1), attacks=[loss]), ERROR)
    assert found.differences.keys() == {"member_accuracy", "nonmember_accuracy"}
    assert "the attack loss" in str(found.reason)


def test_evidence_of_another_run_is_refused():
    evidence = run()
    report = divulge.audit(evidence, controls=())
    for other in (run(seed=1), evidence.take(slice(0, 799)), replace(evidence, ids=np.arange(800) + 1)):
        with pytest.raises(InputError, match="digest") as caught:
            scored(report, other, "new")
        assert caught.value.code == "DV065"


def test_evidence_without_ids_is_refused():
    with pytest.raises(InputError, match="ids") as caught:
        rescored(replace(run(), ids=None))
    assert caught.value.code == "DV066"
