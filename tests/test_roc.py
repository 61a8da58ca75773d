"""Counts: the exact maker against a twin that counts in Python, the binned one against the exact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divulge.bins import Histogram
from divulge.roc import Roc, exact, exact_slices, rank, tags


def naive(scores, member, halves) -> tuple[list, np.ndarray, np.ndarray]:
    """Thresholds, tp and fp by counting the rows at or above every distinct score, one at a time."""
    values = [-np.inf if np.isnan(score) else min(float(score), np.finfo(float).max) for score in scores]
    thresholds = [np.inf, *sorted(set(values), reverse=True)]
    tp, fp = np.zeros((2, len(thresholds)), int), np.zeros((2, len(thresholds)), int)
    for k, threshold in enumerate(thresholds):
        for value, is_member, half in zip(values, member, halves, strict=True):
            if value >= threshold:
                (tp if is_member else fp)[half, k] += 1
    return thresholds, tp, fp


def assert_same_counts(roc: Roc, other: Roc) -> None:
    np.testing.assert_array_equal(roc.tp, other.tp)
    np.testing.assert_array_equal(roc.fp, other.fp)
    np.testing.assert_array_equal(roc.members, other.members)
    np.testing.assert_array_equal(roc.nonmembers, other.nonmembers)


class Rows(NamedTuple):
    scores: np.ndarray
    member: np.ndarray
    halves: np.ndarray


def drawn(seed: int, n: int, scores) -> Rows:
    rng = np.random.default_rng(seed)
    return Rows(np.asarray(scores(rng, n)), rng.random(n) < 0.5, rng.integers(0, 2, n))


BEYOND_FLOAT32 = 1 + np.arange(8) * 2.0**-40  # eight doubles, one float32
SCORES = {
    "float32": lambda rng, n: rng.standard_normal(n).astype(np.float32),
    "float16": lambda rng, n: rng.standard_normal(n).astype(np.float16),
    "float64": lambda rng, n: rng.standard_normal(n),
    "float64 that float32 would tie": lambda rng, n: rng.choice(BEYOND_FLOAT32, n),
    "float64 beyond float32's range": lambda rng, n: rng.choice([-1e300, -1e-300, 0.0, 1e-300, 1e300], n),
    "float64 beyond float32, with inf and NaN": lambda rng, n: rng.choice(
        [*BEYOND_FLOAT32, np.inf, -np.inf, np.nan], n
    ),
    "ties": lambda rng, n: rng.integers(-3, 4, n).astype(np.float32),
    "signed zeros": lambda rng, n: rng.choice(np.array([-0.0, 0.0, 1.0, -1.0], np.float32), n),
    "signed zeros, float64": lambda rng, n: rng.choice([-0.0, 0.0, 1 / 3], n),
    "NaN": lambda rng, n: rng.choice(np.array([np.nan, 0, 1], np.float32), n),
    "inf": lambda rng, n: rng.choice(np.array([-np.inf, -1, 0, 1, np.inf], np.float32), n),
    "inf, float16": lambda rng, n: rng.choice(np.array([-np.inf, 0, 1, np.inf, np.nan], np.float16), n),
    "subnormal": lambda rng, n: rng.integers(-4, 5, n).astype(np.float32) * np.float32(1e-45),
    "constant": lambda rng, n: np.zeros(n, np.float32),
    "all NaN": lambda rng, n: np.full(n, np.nan, np.float32),
}


@pytest.mark.parametrize("kind", SCORES)
def test_exact_equals_counting(kind):
    rows = drawn(1, 90, SCORES[kind])
    roc = exact(*rows)
    thresholds, tp, fp = naive(*rows)
    np.testing.assert_array_equal(roc.tp, tp)
    np.testing.assert_array_equal(roc.fp, fp)
    np.testing.assert_array_equal(roc.members, tp[:, -1])
    np.testing.assert_array_equal(roc.nonmembers, fp[:, -1])
    finite = np.minimum(thresholds[1:], np.finfo(roc.thresholds.dtype).max)  # +inf counts as the largest number
    np.testing.assert_array_equal(roc.thresholds[1:], finite.astype(roc.thresholds.dtype))
    assert roc.thresholds[0] == np.inf


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(width=32), st.booleans(), st.integers(0, 1)), min_size=1, max_size=40))
def test_exact_equals_counting_for_any_scores(rows):
    scores, member, halves = (np.array(column) for column in zip(*rows, strict=True))
    roc = exact(scores.astype(np.float32), member, halves)
    _, tp, fp = naive(scores.astype(np.float32), member, halves)
    np.testing.assert_array_equal(roc.tp, tp)
    np.testing.assert_array_equal(roc.fp, fp)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.floats(width=64), st.booleans(), st.integers(0, 1)), min_size=1, max_size=40))
def test_exact_equals_counting_for_any_doubles(rows):
    scores, member, halves = (np.array(column) for column in zip(*rows, strict=True))
    _, tp, fp = naive(scores, member, halves)
    roc = exact(scores, member, halves)
    np.testing.assert_array_equal(roc.tp, tp)
    np.testing.assert_array_equal(roc.fp, fp)


@pytest.mark.parametrize("kind", SCORES)
def test_thresholds_fall_strictly_and_counts_rise(kind):
    roc = exact(*drawn(2, 300, SCORES[kind]))
    assert (np.diff(roc.thresholds.astype(float)) < 0).all()
    assert (np.diff(roc.tp) >= 0).all()
    assert (np.diff(roc.fp) >= 0).all()
    assert (np.diff(roc.tp_all + roc.fp_all) > 0).all()


def test_halves_add_up():
    rows = drawn(3, 500, SCORES["ties"])
    whole = exact(*rows)
    np.testing.assert_array_equal(whole.tp.sum(axis=0), whole.tp_all)
    assert (whole.n_members, whole.n_nonmembers) == (rows.member.sum(), (~rows.member).sum())
    for half in range(2):
        only = rows.halves == half
        alone = exact(rows.scores[only], rows.member[only], rows.halves[only])
        at = np.searchsorted(-whole.thresholds, -alone.thresholds)
        np.testing.assert_array_equal(whole.tp[half, at], alone.tp_all)
        np.testing.assert_array_equal(whole.fp[half, at], alone.fp_all)


@pytest.mark.parametrize("maker", [exact, lambda *rows: Histogram.of(*rows).roc()], ids=["exact", "binned"])
def test_row_order_does_not_matter(maker):
    rows = drawn(4, 400, SCORES["NaN"])
    order = np.random.default_rng(0).permutation(400)
    shuffled = maker(*(column[order] for column in rows))
    assert_same_counts(maker(*rows), shuffled)
    np.testing.assert_array_equal(maker(*rows).thresholds, shuffled.thresholds)


# ----------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("kind", SCORES)
def test_a_slice_is_the_roc_of_its_rows(kind):
    rows = drawn(5, 400, SCORES[kind])
    codes = np.random.default_rng(0).integers(-1, 5, 400).astype(np.int32)
    rocs = list(exact_slices(rank(rows.scores), tags(rows.member, rows.halves), codes, 5))
    assert len(rocs) == 5
    for code, roc in enumerate(rocs):
        alone = exact(*(column[codes == code] for column in rows))
        assert_same_counts(roc, alone)
        np.testing.assert_array_equal(roc.thresholds.astype(float), alone.thresholds.astype(float))


def test_overlapping_slices_are_the_rocs_of_their_rows():
    rows = drawn(6, 200, SCORES["ties"])
    inside = np.random.default_rng(0).random((200, 3)) < 0.5
    at, codes = np.nonzero(inside)
    rocs = exact_slices(rank(rows.scores), tags(rows.member, rows.halves), codes.astype(np.int32), 3, at)
    for code, roc in enumerate(rocs):
        assert_same_counts(roc, exact(*(column[inside[:, code]] for column in rows)))


def test_an_empty_slice_has_no_rows():
    rows = drawn(7, 50, SCORES["float32"])
    codes = np.full(50, 2, np.int32)
    rocs = list(exact_slices(rank(rows.scores), tags(rows.member, rows.halves), codes, 4))
    assert [roc.n_members + roc.n_nonmembers for roc in rocs] == [0, 0, 50, 0]


@pytest.mark.parametrize("slices", [0, 1, 3])
def test_no_memberships_are_empty_slices(slices):
    rows = drawn(7, 50, SCORES["float32"])
    none = np.zeros(0, np.int32)
    rocs = exact_slices(rank(rows.scores), tags(rows.member, rows.halves), none, slices, none.astype(np.int64))
    assert [roc.n_members + roc.n_nonmembers for roc in rocs] == [0] * slices


def test_one_slice_leaves_out_the_rows_in_none():
    rows = drawn(8, 50, SCORES["float32"])
    codes = np.where(np.arange(50) < 30, 0, -1).astype(np.int32)
    (roc,) = exact_slices(rank(rows.scores), tags(rows.member, rows.halves), codes, 1)
    assert_same_counts(roc, exact(*(column[:30] for column in rows)))


# ----------------------------------------------------------------------------------------------------- binned


def to_bfloat16(scores: np.ndarray) -> np.ndarray:
    return (scores.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize("kind", ["float32", "ties", "signed zeros", "NaN", "constant"])
def test_binned_equals_exact_where_bins_hold_one_score(kind):
    rows = drawn(9, 1000, SCORES[kind])
    rows = rows._replace(scores=to_bfloat16(rows.scores))
    binned, sorted_ = Histogram.of(*rows).roc(), exact(*rows)
    assert_same_counts(binned, sorted_)
    assert binned.placement == sorted_.placement


@pytest.mark.parametrize("kind", ["float32", "float64", "inf", "NaN", "subnormal"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_counts_at_a_bins_edge_are_exact(kind, bits):
    rows = drawn(10, 600, SCORES[kind])
    roc = Histogram.of(*rows, bits=bits).roc()
    assert (np.diff(roc.thresholds) < 0).all()
    scores = np.where(np.isnan(rows.scores), -np.inf, rows.scores).astype(np.float32)
    scores = np.minimum(scores, np.finfo(np.float32).max)
    for k, threshold in enumerate(roc.thresholds):
        above = scores >= threshold
        assert roc.tp_all[k] == (above & rows.member).sum()
        assert roc.fp_all[k] == (above & ~rows.member).sum()


def test_a_coarse_roc_is_made_of_points_of_the_fine_one():
    rows = drawn(11, 2000, SCORES["float32"])
    fine, coarse = exact(*rows), Histogram.of(*rows, bits=10).roc()
    points = set(zip(fine.tp_all.tolist(), fine.fp_all.tolist(), strict=True))
    assert len(coarse.thresholds) < len(fine.thresholds)
    assert set(zip(coarse.tp_all.tolist(), coarse.fp_all.tolist(), strict=True)) <= points


@pytest.mark.parametrize("slices", [3, 300])  # counted in all bins between the ends, and only in those filled
def test_blocks_add_up(slices):
    rows = drawn(12, 1000, SCORES["float32"])
    codes = np.random.default_rng(0).integers(-1, slices, 1000)
    whole = Histogram.of(*rows, codes, slices)
    starts = range(0, 1000, 300)
    blocks = [Histogram.of(*(column[at : at + 300] for column in (*rows, codes)), slices) for at in starts]
    added = blocks[0] + blocks[1] + blocks[2] + blocks[3]
    np.testing.assert_array_equal(added.counts, whole.counts)
    at_once = Histogram.together(blocks)
    np.testing.assert_array_equal(at_once.bins, whole.bins)
    np.testing.assert_array_equal(at_once.counts, whole.counts)
    for code in range(slices):
        alone = Histogram.of(*(column[codes == code] for column in rows)).roc()
        assert_same_counts(added.roc(code), alone)


# ------------------------------------------------------------------------------------------ what is read off it


def naive_placement(scores, member) -> tuple[float, float]:
    """AUC and DeLong's variance by comparing every member with every non-member."""
    x, y = scores[member].astype(float), scores[~member].astype(float)
    wins = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    of_members, of_nonmembers = wins.mean(axis=1), wins.mean(axis=0)
    variance = of_members.var(ddof=1) / len(x) + of_nonmembers.var(ddof=1) / len(y)
    return float(wins.mean()), float(variance)


@pytest.mark.parametrize("kind", ["float32", "float64 that float32 would tie", "ties", "signed zeros"])
@pytest.mark.parametrize("n", [8, 90, 400])
def test_delong_equals_all_pairs(kind, n):
    rows = drawn(13, n, SCORES[kind])
    auc, variance = naive_placement(rows.scores, rows.member)
    placement = exact(*rows).placement
    assert placement.auc == pytest.approx(auc, abs=1e-12)
    assert placement.variance == pytest.approx(variance, rel=1e-10, abs=1e-15)


def test_delong_needs_two_rows_a_side():
    placement = exact(np.arange(5.0), np.array([1, 0, 0, 0, 0], bool), np.zeros(5, int)).placement
    assert placement.auc == 0.0
    assert np.isnan(placement.variance)


def test_a_separated_sample_has_no_delong_variance():
    member = np.arange(20) >= 10
    assert exact(np.arange(20.0), member, np.arange(20) % 2).placement == (1.0, 0.0)


@pytest.mark.parametrize("kind", ["float32", "ties", "constant"])
def test_above_rank_counts_strictly_above_the_next_nonmember(kind):
    rows = drawn(14, 120, SCORES[kind])
    roc = exact(*rows)
    of_nonmembers = np.sort(rows.scores[~rows.member])[::-1]
    ranks = np.arange(len(of_nonmembers))
    tp, fp = roc.above_rank(ranks)
    for k in ranks:
        above = rows.scores > of_nonmembers[k]
        assert tp[k] == (above & rows.member).sum()
        assert fp[k] == (above & ~rows.member).sum() <= k
    assert roc.above_rank(len(of_nonmembers)) == (roc.n_members, roc.n_nonmembers)


def naive_cross_fit(rows: Rows, half: int) -> tuple[float, int, int]:
    """The best threshold of one half, by trying the scores from the top, and the other half's counts at it."""
    own, other = rows.halves == half, rows.halves != half
    m, n = (own & rows.member).sum(), (own & ~rows.member).sum()
    best, at = 0.0, np.inf
    for threshold in np.unique(rows.scores)[::-1]:
        above = own & (rows.scores >= threshold)
        gap = ((above & rows.member).sum() * int(n) - (above & ~rows.member).sum() * int(m)) / (int(m) * int(n))
        if gap > best:
            best, at = gap, threshold
    above = other & (rows.scores >= at)
    return best, int((above & rows.member).sum()), int((above & ~rows.member).sum())


@pytest.mark.parametrize("kind", ["float32", "ties", "constant"])
@pytest.mark.parametrize("seed", range(5))
def test_cross_fit_chooses_on_one_half_and_counts_on_the_other(kind, seed):
    rows = drawn(seed, 100, SCORES[kind])
    fit = exact(*rows).cross_fit
    for half in range(2):
        chosen, tp, fp = naive_cross_fit(rows, half)
        assert fit.chosen[half] == pytest.approx(chosen, abs=1e-12)
        assert (fit.tp[half], fit.fp[half]) == (tp, fp)


def test_a_half_without_members_chooses_nothing():
    member = np.array([True, True, False, False])
    fit = exact(np.array([4.0, 3, 2, 1]), member, np.array([0, 0, 0, 1])).cross_fit
    assert fit.chosen.tolist() == [1.0, 0.0]
    assert (fit.tp[1], fit.fp[1]) == (0, 0)


def test_constant_scores_are_said_to_be():
    assert exact(*drawn(0, 20, SCORES["constant"])).constant
    assert not exact(*drawn(0, 20, SCORES["ties"])).constant
