"""Do the intervals hold the truth as often as they say, and does a leak-free model stay without findings?

`pytest -m slow` simulates 200 samples a setting and audits 20 data sets a size; DIVULGE_SEEDS=200, ten times as many.
A test fails where the promised rate is all but impossible given what was seen (p < 1e-4), not where luck ran out.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from simulations import FAMILIES, Cell, Population, budget, cover, leak_free, refuted, shift_of

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
RUNS = 10 * SEEDS
HUGE = 50_000  # rows from which a tenth of the runs must do
MISSED = 0.07  # an interval at 95 % may miss the truth so often
ALARMED = 0.025  # one side of it
CELLS = [cell for family in FAMILIES.values() for cell in family() if cell.asserted]

slow = pytest.mark.slow


@slow
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_an_interval_holds_the_truth(cell: Cell, record_property):
    found = cover(cell, RUNS if cell.nonmembers < HUGE else RUNS // 10)
    record_property("coverage", found._asdict())
    print(f"{cell}: {found}")
    assert found.runs > 0
    assert not refuted(found.misses, found.runs, MISSED)
    assert not refuted(found.alarms, found.runs, ALARMED)


@slow
@pytest.mark.parametrize("cell", [c for c in CELLS if c.bounded_width], ids=str)
def test_the_scores_interval_is_not_absurdly_wide(cell: Cell):
    found = cover(cell, RUNS)
    assert found.width <= 2 * found.reference


@slow
@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("n", [200, 1000, 10_000])
def test_a_model_without_a_leak_raises_no_alarm(n: int, classes: int, record_property):
    found = budget(range(SEEDS), n, classes)
    record_property("budget", found._asdict())
    print(f"{n} a side, {classes} classes: {found}")
    assert not refuted(found.alarms, found.runs, 0.05)
    assert not refuted(found.fails, found.runs, 0.05)
    assert not refuted(found.fails_at_chance, found.runs, ALARMED)
    assert not refuted(found.misses, found.runs, 0.05)


# ------------------------------------------------------------------------------- the simulations themselves


def test_a_broken_promise_is_seen():
    assert refuted(60, 200, 0.07)
    assert not refuted(20, 200, 0.07)
    assert not refuted(0, 20, 0.07)


def test_simulated_data_without_a_leak_varies_in_correctness():
    evidence = leak_free(np.random.default_rng(0), 2000, 10)
    right = evidence.outputs.argmax(axis=1) == evidence.labels
    by_class = [right[evidence.labels == label].mean() for label in range(10)]
    assert 0.3 < right.mean() < 0.95
    assert max(by_class) - min(by_class) > 0.1


@pytest.mark.parametrize("advantage", [0.0, 0.12, 0.38, 0.9])
def test_the_truth_of_a_population_is_that_of_many_draws(advantage: float):
    rng = np.random.default_rng(0)
    for population in (
        Population(shift_of(advantage)),
        Population(shift_of(advantage), step=1.0),
        Population(shift_of(advantage), exposed=0.3),
    ):
        roc = population.rocs(rng, 200_000, 200_000)["attack 0"]
        gaps = roc.tp_all / 200_000 - roc.fp_all / 200_000
        tp, _ = roc.above_rank(np.array([2000]))
        assert gaps.max() == pytest.approx(population.advantage, abs=0.008)
        assert roc.placement.auc == pytest.approx(population.auc, abs=0.008)
        if not population.step:
            assert float(tp[0]) / 200_000 == pytest.approx(population.tpr(0.01), abs=0.01)
            tpr, fpr = population.rates_above(1.0)
            above = int(np.searchsorted(-roc.thresholds, -1.0))
            assert (roc.tp_all[above] / 200_000, roc.fp_all[above] / 200_000) == pytest.approx((tpr, fpr), abs=0.008)
