"""Data whose truth is known, and how often intervals hold it; shared by test_coverage.py and benchmarks/coverage.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest

from divulge import Evidence, audit, intervals, metrics, selection
from divulge.metrics import Estimate
from divulge.policy import Policy
from divulge.roc import Roc, exact

NAN = float("nan")
ERROR = 0.05
TEN = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
GRID = np.arange(-400, 401)


def shift_of(advantage: float) -> float:
    """How far members' scores are shifted where the best threshold has this advantage: 2 Phi(d / 2) - 1."""
    return float(2 * ndtri((1 + advantage) / 2))


def preferred(advantages: dict[str, float], members: int, nonmembers: int) -> str:
    """Whom the score takes, one by one: the first that lacks at most half the best's standard error."""
    best = max(advantages.values())
    error = (((1 + best) / 2) * ((1 - best) / 2) * (1 / members + 1 / nonmembers)) ** 0.5
    for name, advantage in advantages.items():
        if advantage >= best - error / 2 - 1e-12:
            return name
    raise AssertionError


def balanced(rng: np.random.Generator, members: int, nonmembers: int) -> np.ndarray:
    """Halves as an audit draws them for everyone: each side split evenly. (Scores are exchangeable: no shuffle.)"""
    return np.concatenate((np.arange(members) % 2, np.arange(nonmembers) % 2))


def unstratified(rng: np.random.Generator, members: int, nonmembers: int) -> np.ndarray:
    """Halves as a slice gets them: it was not stratified for, so that they are uneven by chance."""
    return rng.integers(0, 2, members + nonmembers)


def lopsided(rng: np.random.Generator, members: int, nonmembers: int) -> np.ndarray:
    """Halves as large groups can make them: one holds most members and few non-members."""
    return (rng.random(members + nonmembers) < np.repeat((0.8, 0.2), (members, nonmembers))).astype(int)


@dataclass(frozen=True)
class Population:
    """Attack j scores a record weights[j] * shift * member + unit Gaussian noise; its noise correlates by half.

    step: scores are rounded to its multiples, so that many tie; 0: none do.
    exposed: the share of members that are shifted; the others score as non-members do.
    """

    shift: float
    weights: tuple[float, ...] = (1.0,)
    step: float = 0.0
    exposed: float = 1.0
    halves: Callable[[np.random.Generator, int, int], np.ndarray] = balanced

    def rocs(self, rng: np.random.Generator, members: int, nonmembers: int) -> dict[str, Roc]:
        """One sample's Roc of each attack."""
        n = members + nonmembers
        member = np.arange(n) < members
        halves = self.halves(rng, members, nonmembers)
        shifted = member & (rng.random(n) < self.exposed) if self.exposed < 1 else member
        shared = rng.standard_normal(n) * np.sqrt(0.5) if len(self.weights) > 1 else np.zeros(n)
        own = np.sqrt(0.5) if len(self.weights) > 1 else 1.0
        rocs = {}
        for at, weight in enumerate(self.weights):
            scores = shared + own * rng.standard_normal(n) + weight * self.shift * shifted
            if self.step:
                scores = np.round(scores / self.step) * self.step
            rocs[f"attack {at}"] = exact(scores.astype(np.float32), member, halves)
        return rocs

    def _above(self, weight: float, edge: np.ndarray | float) -> np.ndarray | float:
        """The share of members above an edge, for one attack."""
        shifted = ndtr(weight * self.shift - edge)
        return self.exposed * shifted + (1 - self.exposed) * ndtr(-np.asarray(edge))

    @property
    def _edges(self) -> np.ndarray:
        """Rounding puts its thresholds half a step below each multiple."""
        return (GRID - 0.5) * self.step

    @cached_property
    def advantage(self) -> float:
        """The best attack's TPR - FPR at its best threshold."""
        best = 0.0
        for weight in self.weights:
            edges = self._edges if self.step else np.array([max(weight * self.shift, 0.0) / 2])
            best = max(best, float(np.max(self._above(weight, edges) - ndtr(-edges))))
        return best

    def tpr(self, fpr: float) -> float:
        """The best attack's largest TPR among thresholds whose FPR is at most `fpr`."""
        edges = self._edges[ndtr(-self._edges) <= fpr] if self.step else -ndtri(np.array([fpr]))
        return max(float(np.max(self._above(weight, edges))) for weight in self.weights)

    @cached_property
    def auc(self) -> float:
        """Of the first attack: the chance that a member outscores a non-member, ties one half."""
        if not self.step:
            return float(self.exposed * ndtr(self.weights[0] * self.shift / np.sqrt(2)) + (1 - self.exposed) / 2)
        of_members, of_nonmembers = -np.diff(self._above(self.weights[0], self._edges)), -np.diff(ndtr(-self._edges))
        below = np.cumsum(of_nonmembers) - of_nonmembers
        return float(of_members @ (below + of_nonmembers / 2))

    def rates_above(self, threshold: float) -> tuple[float, float]:
        """TPR and FPR of "the score is above this threshold" for the first attack."""
        edge = (np.round(threshold / self.step) + 0.5) * self.step if self.step else threshold
        return float(self._above(self.weights[0], edge)), float(ndtr(-edge))


# ----------------------------------------------------------------------------------------------- one interval


class Outcome(NamedTuple):
    """One simulated interval, the truth it should hold, and the width of a reference interval on the same data."""

    low: float
    high: float
    truth: float
    reference: float = NAN


class Cell(NamedTuple):
    """One setting: `simulate` draws a sample and gives the interval.

    simulate: None where the sample leaves the figure undefined.
    asserted: False where nothing is promised (fewer than 50 rows a side) and the table only says what holds.
    chance: the figure without a leak, where low > chance is a false alarm; NaN where there is a leak.
    """

    family: str
    setting: str
    members: int
    nonmembers: int
    simulate: Callable[[np.random.Generator], Outcome | None]
    asserted: bool = True
    chance: float = NAN

    @property
    def bounded_width(self) -> bool:
        """The score's interval is to be at most twice as wide as one at a threshold known before: from 200 rows a side.

        Not where halves are lopsided (there are fewer rows than it seems) or few members are exposed (the best
        threshold lies where rates hardly vary, and is not known).
        """
        apart = "lopsided" in self.setting or "exposed" in self.setting
        return self.family == "score" and min(self.members, self.nonmembers) >= 200 and not apart

    def __str__(self) -> str:
        return f"{self.family}, {self.setting}, {self.members}+{self.nonmembers}"


class Coverage(NamedTuple):
    """How often a cell's intervals missed: counts of `runs`, those in which it is defined; widths are means.

    too_high: low end above the truth. too_low: high end below it. alarms: low end above chance, without a leak.
    """

    runs: int
    too_high: int
    too_low: int
    alarms: int
    truth: float
    width: float
    reference: float

    @property
    def misses(self) -> int:
        """Runs whose interval did not hold the truth."""
        return self.too_high + self.too_low


def cover(cell: Cell, runs: int, seed: int = 0) -> Coverage:
    """Simulate a cell."""
    rng = np.random.default_rng([seed, *str(cell).encode()])
    outcomes = [outcome for _ in range(runs) if (outcome := cell.simulate(rng)) is not None]
    low, high, truth, reference = np.array(outcomes).T
    slack = 1e-12  # an end that equals the truth holds it
    return Coverage(
        len(outcomes),
        int((low > truth + slack).sum()),
        int((high < truth - slack).sum()),
        int((low > cell.chance + slack).sum()),
        float(truth.mean()),
        float((high - low).mean()),
        float(reference.mean()),
    )


def refuted(misses: int, runs: int, promised: float, level: float = 1e-4) -> bool:
    """Whether this many misses are all but impossible if the promised rate of misses is kept."""
    return bool(binomtest(misses, runs, promised, alternative="greater").pvalue < level)


# -------------------------------------------------------------------------------------------------- the cells


def score_cell(setting: str, population: Population, members: int, nonmembers: int) -> Cell:
    """The vulnerability score, beside Newcombe's interval at the population's best threshold."""
    best = population.shift * max(population.weights) / 2

    def simulate(rng: np.random.Generator) -> Outcome:
        rocs = population.rocs(rng, members, nonmembers)
        estimate = selection.score(rocs, ERROR)
        first = rocs["attack 0"]
        at = int(np.searchsorted(-first.thresholds, -best, side="right")) - 1
        known = intervals.newcombe(first.tp_all[at], members, first.fp_all[at], nonmembers, ERROR)
        return Outcome(estimate.low, estimate.high, population.advantage, float(known.high - known.low))

    chance = 0.0 if population.advantage < 1e-9 else NAN
    return Cell("score", setting, members, nonmembers, simulate, min(members, nonmembers) >= 50, chance)


def metric_cell(
    family: str,
    setting: str,
    population: Population,
    sizes: tuple[int, int],
    metric: metrics.Metric,
    truth: float,
) -> Cell:
    """A metric of one Roc whose truth is a number of the population."""

    def simulate(rng: np.random.Generator) -> Outcome:
        estimate = metric(population.rocs(rng, *sizes)["attack 0"], ERROR)
        return Outcome(estimate.low, estimate.high, truth)

    return Cell(family, setting, *sizes, simulate, min(sizes) >= 50 or family == "TPR at FPR")


def at_threshold_cell(
    family: str,
    setting: str,
    population: Population,
    sizes: tuple[int, int],
    metric: metrics.TprAtFpr | metrics.AchievedFpr | metrics.Ppv,
) -> Cell:
    """A metric whose truth is the population's figure at the threshold that this sample used."""

    def simulate(rng: np.random.Generator) -> Outcome | None:
        roc = population.rocs(rng, *sizes)["attack 0"]
        estimate = metric(roc, ERROR)
        k = metrics.allowed_rank(metric.fpr, roc.n_nonmembers)
        threshold = float(roc.thresholds[int(np.searchsorted(roc.fp_all, k + 1))])  # the (k + 1)-th largest's score
        tpr, fpr = population.rates_above(threshold)
        if isinstance(metric, metrics.Ppv):
            if estimate.reason:
                return None  # the top scores are tied: nobody is named
            named, falsely = metric.prior * tpr, (1 - metric.prior) * fpr
            return Outcome(estimate.low, estimate.high, named / (named + falsely))
        return Outcome(estimate.low, estimate.high, fpr)

    return Cell(family, setting, *sizes, simulate)


def tail_cell(setting: str, population: Population, sizes: tuple[int, int], fpr: float) -> Cell:
    """The tail's TPR."""

    def simulate(rng: np.random.Generator) -> Outcome:
        estimate = selection.tail_at(population.rocs(rng, *sizes), fpr, ERROR).tpr
        return Outcome(estimate.low, estimate.high, population.tpr(fpr))

    return Cell(f"tail at {fpr:g}", setting, *sizes, simulate, chance=fpr if population.shift == 0 else NAN)


def epsilon_cell(setting: str, epsilon: float, sizes: tuple[int, int]) -> Cell:
    """Randomised response: a yes is e^epsilon times as likely from a member, a no from a non-member."""
    rate = 1 / (1 + np.exp(-epsilon))

    def simulate(rng: np.random.Generator) -> Outcome:
        members, nonmembers = sizes
        member = np.arange(members + nonmembers) < members
        said = rng.random(len(member)) < np.where(member, rate, 1 - rate)
        noise = rng.random(len(member))  # tells equal answers apart without telling members
        estimate = metrics.Epsilon()(exact(said + noise, member, balanced(rng, *sizes)), ERROR)
        return Outcome(estimate.low, NAN, epsilon)

    return Cell("epsilon", setting, *sizes, simulate)


def score_cells() -> Iterator[Cell]:
    """1 and 10 attacks, with and without a leak, ties, reversed attacks, uneven halves and uneven sides."""
    for members, nonmembers in ((20, 20), (50, 50), (200, 200), (2000, 2000), (20, 2000), (50, 2000)):
        for advantage in (0.0, 0.12, 0.38):
            shift = shift_of(advantage)
            for name, weights in (("1 attack", (1.0,)), ("10 attacks", TEN)):
                yield score_cell(f"{name}, advantage {advantage:g}", Population(shift, weights), members, nonmembers)
    for n in (50, 200, 2000):
        for advantage in (0.0, 0.12, 0.38):
            shift = shift_of(advantage)
            for name, population in (
                ("ties", Population(shift, step=1.0)),
                ("10 attacks, 3 reversed", Population(shift, (*TEN[:7], -1.0, -0.6, -0.3))),
                ("10 attacks, the best last", Population(shift, TEN[::-1])),
                ("unstratified halves", Population(shift, halves=unstratified)),
                ("lopsided halves", Population(shift, halves=lopsided)),
            ):
                yield score_cell(f"{name}, advantage {advantage:g}", population, n, n)
    for n in (50, 200):
        yield score_cell("1 attack, advantage 0.9", Population(shift_of(0.9)), n, n)
    for n in (50, 200, 2000):
        yield score_cell("10 attacks, 5 % exposed", Population(4.0, TEN, exposed=0.05), n, n)


def auc_cells() -> Iterator[Cell]:
    """From chance to all but separated, even and uneven sides, ties, below chance."""
    sizes = ((20, 20), (50, 50), (200, 200), (2000, 2000), (20, 2000), (50, 2000), (2000, 50))
    for members, nonmembers in sizes:
        for auc in (0.1, 0.5, 0.6, 0.75, 0.9, 0.99):
            population = Population(float(np.sqrt(2) * ndtri(auc)))
            yield metric_cell("AUC", f"AUC {auc:g}", population, (members, nonmembers), metrics.auc, auc)
    for sizes in ((200, 200), (2000, 2000), (300, 10_000), (2000, 200)):
        for auc in (0.001, 0.995, 0.999):
            population = Population(float(np.sqrt(2) * ndtri(auc)))
            yield metric_cell("AUC", f"AUC {auc:g}", population, sizes, metrics.auc, auc)
    for n in (50, 200):
        for shift in (0.0, 0.5, 2.5):
            population = Population(shift, step=1.0)
            yield metric_cell("AUC", f"ties, shift {shift:g}", population, (n, n), metrics.auc, population.auc)
        few = Population(4.0, exposed=0.05)
        yield metric_cell("AUC", "5 % exposed", few, (n, n), metrics.auc, few.auc)


def tail_sizes(fpr: float) -> tuple[int, int]:
    """The fewest non-members at which an FPR is measured, and ten times as many."""
    return round(10 / fpr), round(100 / fpr)


def tpr_cells() -> Iterator[Cell]:
    """TPR at 1 % and 0.1 %, from the fewest non-members that it needs, 20 to 10,000 members."""
    for fpr in (0.01, 0.001):
        for nonmembers in tail_sizes(fpr):
            for shift in (0.0, 1.0, 2.0):
                for members in (20, 200, 10_000) if nonmembers <= 10_000 else (20, 10_000):
                    population, size = Population(shift), (members, nonmembers)
                    name, metric = f"FPR {fpr:g}, shift {shift:g}", metrics.TprAtFpr(fpr)
                    yield metric_cell("TPR at FPR", name, population, size, metric, population.tpr(fpr))
    for step in (0.5, 1.0):
        for shift in (0.0, 1.0):
            population = Population(shift, step=step)
            name = f"FPR 0.01, shift {shift:g}, ties {step:g}"
            yield metric_cell("TPR at FPR", name, population, (200, 1000), metrics.TprAtFpr(0.01), population.tpr(0.01))


def tail_cells() -> Iterator[Cell]:
    """The tail over 1 and 10 attacks."""
    for fpr, sizes in ((0.05, (200, 200)), (0.01, (1000, 1000)), (0.01, (50, 1000)), (0.01, (10_000, 10_000))):
        for shift in (0.0, 1.0):
            for name, weights in (("1 attack", (1.0,)), ("10 attacks", TEN)):
                yield tail_cell(f"{name}, shift {shift:g}", Population(shift, weights), sizes, fpr)
    yield tail_cell("10 attacks, shift 1, ties", Population(1.0, TEN, step=0.5), (1000, 1000), 0.01)
    yield tail_cell("10 attacks, 5 % exposed", Population(4.0, TEN, exposed=0.05), (1000, 1000), 0.01)


def threshold_cells() -> Iterator[Cell]:
    """Figures at the threshold that was used: the achieved FPR and the PPV."""
    for sizes in ((1000, 1000), (50, 1000), (1000, 10_000)):
        for shift in (0.0, 1.0):
            for step in (0.0, 0.25, 1.0):
                population = Population(shift, step=step)
                name = f"FPR 0.01, shift {shift:g}" + (f", ties {step:g}" if step else "")
                yield at_threshold_cell("achieved FPR", name, population, sizes, metrics.AchievedFpr(0.01))
                yield at_threshold_cell("PPV, prior 0.1", name, population, sizes, metrics.Ppv(0.01, 0.1))


def epsilon_cells() -> Iterator[Cell]:
    """No leak, and randomised response."""
    for epsilon in (0.0, 0.5, 2.0):
        for n in (200, 2000):
            yield epsilon_cell(f"randomised response, epsilon {epsilon:g}", epsilon, (n, n))


FAMILIES: dict[str, Callable[[], Iterator[Cell]]] = {
    "score": score_cells,
    "auc": auc_cells,
    "tpr": tpr_cells,
    "tail": tail_cells,
    "threshold": threshold_cells,
    "epsilon": epsilon_cells,
}


# ----------------------------------------------------------------------------------------------- whole audits

GATES = Policy.from_mapping(
    {
        "gate": {
            "score": {"max": 0.10},
            "auc": {"max": 0.60},
            "tail": {"max_lift": 10},
            "tpr@0.01": {"max": 0.02},
            "score_slice": {"max": 0.20, "min_n": 50},
        }
    }
)
AT_CHANCE = Policy.from_mapping(
    {
        "gate": {
            "score": {"max": 0.0},
            "auc": {"max": 0.5},
            "tail": {"max_lift": 1},
            "tpr@0.01": {"max": 0.01},
            "score_slice": {"max": 0.0},
        }
    }
)
SLICES = ("class", "correct", "loss/10")
LEAKS = ("DV101", "DV102", "DV103", "DV104")


class Audited(NamedTuple):
    """What one audit of leak-free data said."""

    alarm: bool
    failed: bool
    failed_at_chance: bool
    score: Estimate


def leak_free(rng: np.random.Generator, n: int, classes: int) -> Evidence:
    """n members and n non-members of one distribution: logits of a model that is right on most, by class."""
    labels = rng.integers(0, classes, 2 * n)
    logits = rng.standard_normal((2 * n, classes), dtype=np.float32)
    easiness = rng.uniform(0, 3, classes) + 0.5 * np.log(classes)
    logits[np.arange(2 * n), labels] += (easiness[labels] + rng.standard_normal(2 * n)).astype(np.float32)
    return Evidence(member=np.arange(2 * n) < n, outputs=logits, labels=labels, kind="logits")


def audited(seed: int, n: int, classes: int) -> Audited:
    """Audit one leak-free data set, under a policy."""
    rng = np.random.default_rng([seed, n, classes])
    report = audit(leak_free(rng, n, classes), slices=SLICES, policy=GATES, controls=(), seed=seed)
    leaks = [row for row in report.findings if row["severity"] in ("warning", "fail") and row["code"] in LEAKS]
    failed, at_chance = (
        any(gate["outcome"] == "FAIL" for gate in judged.rows("gates")) for judged in (report, report.judged(AT_CHANCE))
    )
    return Audited(bool(leaks) or failed, failed, at_chance, report.score)


class Budget(NamedTuple):
    """Leak-free audits: how many raised an alarm, FAILed, or had a score interval that missed 0.

    fails_at_chance: FAILs of a policy whose limits are what chance gives, so that nothing but the error budget helps.
    """

    runs: int
    alarms: int
    fails: int
    fails_at_chance: int
    misses: int


def budget(seeds: Sequence[int], n: int, classes: int) -> Budget:
    """Audit one data set a seed."""
    runs = [audited(seed, n, classes) for seed in seeds]
    missed = sum(not run.score.low <= 0 <= run.score.high for run in runs)
    alarms, fails = sum(run.alarm for run in runs), sum(run.failed for run in runs)
    return Budget(len(runs), alarms, fails, sum(run.failed_at_chance for run in runs), missed)
