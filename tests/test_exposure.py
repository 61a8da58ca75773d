"""Where the records lie: counts beside naive twins, every record in one bin, and intervals that hold the truth."""

from __future__ import annotations

import math
import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, norm

from divulge.exposure import BANDS, BINS, bands, distribution, distribution_rows
from divulge.roc import exact
from simulations import preferred, refuted

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
ERROR = 0.05


def sample(seed: int = 0, n: int = 4000, shift: float = 0.7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, membership, halves of n records."""
    rng = np.random.default_rng(seed)
    member = rng.random(n) < 0.6
    return rng.normal(size=n) + shift * member, member, rng.integers(0, 2, n)


def odd_scores() -> dict[str, np.ndarray]:
    score, *_ = sample()
    rng = np.random.default_rng(1)
    return {
        "normal": score,
        "float32": score.astype(np.float32),
        "ties": np.round(score, 1),
        "few values": np.sign(score),
        "two values": (score > 0).astype(float),
        "constant": np.full(len(score), 0.25),
        "loss": -np.exp(3 * score),
        "loss with zeros": -np.where(score > 1, 0.0, np.exp(3 * score)),
        "undefined": np.where(score > 1, np.nan, score),
        "all undefined": np.full(len(score), np.nan),
        "minus infinity": np.where(score < -1, -np.inf, score),
        "plus infinity": np.where(score > 1, np.inf, score),
        "both infinities": np.where(np.abs(score) > 1, np.inf * score, score),
        "huge": score * 4e307,
        "tiny": score * 1e-310,
        "neighbours": 1.0 + np.spacing(1.0) * rng.integers(0, 3, len(score)),
        "outlier": np.where(np.arange(len(score)) == 7, 1e30, score),
    }


# --------------------------------------------------------------------------------------------------- distribution


def counted_one_by_one(scores, member, start, stop) -> tuple[list[int], list[int]]:
    """Members and non-members of each bin, by looking at each record alone; NaN is lowest."""
    sides = ([0] * len(start), [0] * len(start))
    for score, is_member in zip(scores.tolist(), member.tolist(), strict=True):
        place = -math.inf if math.isnan(score) else min(score, 1.7e308)
        for at, (low, high) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
            if (math.isnan(low) or place >= low) and (math.isnan(high) or place < high):
                sides[0 if is_member else 1][at] += 1
    return sides


@pytest.mark.parametrize("kind", odd_scores())
def test_every_record_is_in_one_bin_and_counted_on_its_side(kind) -> None:
    score = odd_scores()[kind]
    _, member, halves = sample()
    found = distribution(exact(score, member, halves))
    assert found.members.sum() == member.sum() and found.nonmembers.sum() == (~member).sum()
    assert (found.members.tolist(), found.nonmembers.tolist()) == counted_one_by_one(score, member, *found[:2])


@pytest.mark.parametrize("kind", odd_scores())
def test_bins_join_and_the_outermost_are_open(kind) -> None:
    score = odd_scores()[kind]
    found = distribution(exact(score, *sample()[1:]))
    assert math.isnan(found.start[0]) and math.isnan(found.stop[-1])
    assert found.start[1:].tolist() == found.stop[:-1].tolist()
    edges = found.stop[:-1].tolist()
    assert np.isfinite(edges).all() and all(low <= high for low, high in pairwise(edges))
    assert 1 <= len(found.members) <= BINS


@given(st.lists(st.floats(width=32), min_size=2, max_size=40), st.integers(2, 12))
def test_any_scores_are_counted_once(values, bins) -> None:
    score = np.array(values)
    member = np.arange(len(score)) % 2 == 0
    found = distribution(exact(score, member, np.arange(len(score)) // 2 % 2), bins)
    assert (found.members.tolist(), found.nonmembers.tolist()) == counted_one_by_one(score, member, *found[:2])
    assert len(found.members) <= bins


def test_infinite_scores_leave_the_others_spread() -> None:
    score = odd_scores()["both infinities"]
    found = distribution(exact(score, *sample()[1:]))
    finite = np.isfinite(score).sum()
    assert (found.members + found.nonmembers)[1:-1].sum() > 0.9 * finite
    assert found.members.max() < 0.5 * len(score)


def test_few_records_lie_in_the_open_bins_of_spread_scores() -> None:
    found = distribution(exact(*sample()))
    both = found.members + found.nonmembers
    assert len(both) == BINS and 0 < both[0] <= 21 and 0 < both[-1] <= 21


def test_a_losss_bins_are_even_in_the_logarithm_and_a_logits_are_not() -> None:
    def ratios(kind):
        edges = distribution(exact(odd_scores()[kind], *sample()[1:])).stop[:-1]
        return edges[1:] / edges[:-1], np.diff(edges)

    ratio, _ = ratios("loss")
    assert np.ptp(ratio) < 1e-6 < 0.1 < abs(ratio[0] - 1)
    _, step = ratios("normal")
    assert np.ptp(step) < 1e-6


def test_rows_are_the_bins_in_order() -> None:
    found = distribution(exact(*sample()))
    rows = distribution_rows("loss", found)
    assert {(row["attack"], row["slice"]) for row in rows} == {("loss", "everyone")}
    assert [row["members"] for row in rows] == found.members.tolist()
    assert [row["stop"] for row in rows[:-1]] == [row["start"] for row in rows[1:]] == found.stop[:-1].tolist()


# ---------------------------------------------------------------------------------------------------------- bands


def best_gap(scores: list[float], sides: list[bool]) -> float:
    """The largest TPR - FPR over every threshold, by trying all."""
    m = sum(sides)
    n = len(sides) - m
    gaps = [0.0]
    for cut in set(scores):
        tp = sum(s >= cut for s, side in zip(scores, sides, strict=True) if side)
        fp = sum(s >= cut for s, side in zip(scores, sides, strict=True) if not side)
        gaps.append(tp / m - fp / n)
    return max(gaps)


def banded_one_by_one(attacks: dict[str, np.ndarray], member: np.ndarray, halves: np.ndarray) -> list[dict]:
    """`bands`, by looking at each record alone."""
    n_all = int((~member).sum())
    stops = [share for share in BANDS if n_all >= 10 / share - 1e-9] + [1.0]
    counts, sizes = [], []
    for half in (0, 1):
        own, other = halves == half, halves != half
        gaps = {name: best_gap(score[own].tolist(), member[own].tolist()) for name, score in attacks.items()}
        sizes_here = int((own & member).sum()), int((own & ~member).sum())
        score = attacks[preferred(gaps, *sizes_here)]
        outside = sorted(score[own & ~member].tolist(), reverse=True)
        found = []
        for stop in stops:
            rank = math.floor(stop * len(outside) + 1e-9)
            cut = outside[rank] if rank < len(outside) else -math.inf
            above = [s > cut or rank >= len(outside) for s in score[other].tolist()]
            sides = member[other].tolist()
            found.append(
                [sum(a and side is want for a, side in zip(above, sides, strict=True)) for want in (True, False)]
            )
        counts.append(
            [[b - a for a, b in zip(first, second, strict=True)] for first, second in pairwise([[0, 0], *found])]
        )
        sizes.append((int((other & member).sum()), int((other & ~member).sum())))
    weights = [1 / (1 / m + 1 / n) for m, n in sizes]
    weights = [weight / sum(weights) for weight in weights]
    many = [1 / sum(w**2 / size[side] for w, size in zip(weights, sizes, strict=True)) for side in (0, 1)]
    rows = []
    for at, (start, stop) in enumerate(pairwise([0.0, *stops])):
        shares = [
            sum(w * count[at][side] / size[side] for w, count, size in zip(weights, counts, sizes, strict=True))
            for side in (0, 1)
        ]
        found, others = many[0] * shares[0], many[1] * shares[1]
        low = beta.ppf(ERROR / 2, found, others + 1) if found else 0.0
        high = beta.ppf(1 - ERROR / 2, found + 1, others) if others else 1.0
        ends = [(p / many[0]) / (p / many[0] + (1 - p) / many[1]) for p in (low, high)]
        total = sum(shares)
        row = {"start": start, "stop": stop, "probability": shares[0] / total if total else math.nan}
        row |= {"low": ends[0], "high": ends[1]} if total else {"low": math.nan, "high": math.nan}
        row |= {side: sum(count[at][i] for count in counts) for i, side in enumerate(("members", "nonmembers"))}
        rows.append(row)
    return rows


@pytest.mark.parametrize("n", [90, 700])
@pytest.mark.parametrize("decimals", [0, 1, 9])
@pytest.mark.parametrize("seed", range(3))
def test_bands_are_those_of_the_naive_twin(n, decimals, seed) -> None:
    score, member, halves = sample(seed, n)
    other = np.random.default_rng(seed + 50).normal(size=n) + 0.9 * member
    attacks = {"loss": np.round(score, decimals), "other": np.round(other, decimals)}
    found = bands({name: exact(values, member, halves) for name, values in attacks.items()}, ERROR)
    wanted = banded_one_by_one(attacks, member, halves)
    assert len(found) == len(wanted)
    for row, twin in zip(found, wanted, strict=True):
        assert {key: row[key] for key in ("start", "stop", "members", "nonmembers")} == {
            key: twin[key] for key in ("start", "stop", "members", "nonmembers")
        }
        for key in ("probability", "low", "high"):
            assert row[key] == pytest.approx(twin[key], abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("kind", odd_scores())
def test_every_record_is_in_one_band(kind) -> None:
    score = odd_scores()[kind]
    _, member, halves = sample()
    rows = bands({"loss": exact(score, member, halves)}, ERROR)
    assert sum(row["members"] for row in rows) == member.sum()
    assert sum(row["nonmembers"] for row in rows) == (~member).sum()
    assert rows[0]["start"] == 0 and rows[-1]["stop"] == 1
    assert all(first["stop"] == second["start"] for first, second in pairwise(rows))
    for row in rows:
        if row["members"] + row["nonmembers"]:
            assert 0 <= row["low"] <= row["probability"] <= row["high"] <= 1
        else:
            assert all(math.isnan(row[key]) for key in ("low", "probability", "high"))


def test_equal_scores_are_one_band_at_chance() -> None:
    _, member, halves = sample()
    *empty, last = bands({"loss": exact(np.zeros(len(member)), member, halves)}, ERROR)
    assert all(row["members"] == row["nonmembers"] == 0 for row in empty)
    assert last["probability"] == pytest.approx(0.5)


def test_a_band_stands_where_ten_non_members_would() -> None:
    for n, first in ((30, 0.5), (150, 0.1), (1500, 0.01), (15_000, 0.001)):
        member = np.arange(2 * n) < n
        score = np.sin(np.arange(2.0 * n) ** 2) + member
        rows = bands({"loss": exact(score, member, np.arange(2 * n) % 2)}, ERROR)
        assert rows[0]["stop"] == first


def test_without_a_side_in_a_half_there_are_no_bands() -> None:
    member = np.arange(40) < 20
    assert bands({"loss": exact(np.arange(40.0), member, member.astype(int))}, ERROR) == []


# ----------------------------------------------------------------------------------------------------- simulation


def truths(score: np.ndarray, member: np.ndarray, halves: np.ndarray, shift: float, stops: list[float]) -> np.ndarray:
    """The bands' probabilities in the population, given the thresholds that this sample chose."""
    shares, weights = [], []
    for half in (0, 1):
        outside = np.sort(score[(halves == half) & ~member])[::-1]
        cuts = [outside[math.floor(stop * len(outside) + 1e-9)] for stop in stops[:-1]] + [-np.inf]
        shares.append([np.diff([0, *norm.sf(np.array(cuts) - mean)]) for mean in (shift, 0.0)])
        sizes = [((halves != half) & side).sum() for side in (member, ~member)]
        weights.append(1 / (1 / sizes[0] + 1 / sizes[1]))
    of_members, of_others = np.average(shares, axis=0, weights=weights)
    return of_members / (of_members + of_others)


@pytest.mark.slow
@pytest.mark.parametrize("n", [400, 4000])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_a_bands_interval_holds_the_truth(shift, n, record_property) -> None:
    misses = looked = 0
    widest = 0.0
    for seed in range(10 * SEEDS):
        score, member, halves = sample(seed, n, shift)
        rows = bands({"loss": exact(score, member, halves)}, ERROR)
        true = truths(score, member, halves, shift, [row["stop"] for row in rows])
        if shift == 0:
            assert true == pytest.approx(0.5)
        for row, probability in zip(rows, true, strict=True):
            misses += not row["low"] <= probability <= row["high"]
            looked += 1
            widest = max(widest, row["high"] - row["low"] if row["start"] == 0.25 else 0)
    record_property("coverage", 1 - misses / looked)
    print(f"shift {shift}, {n} records: {1 - misses / looked:.4f} of {looked} bands")
    assert not refuted(misses, looked, 0.06)
    assert misses / looked > 0.005 and 0 < widest < 12 / math.sqrt(n), "an interval that holds all says nothing"
