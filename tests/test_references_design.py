"""Which model sees which row: counts, sizes, groups, complements, growth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divulge import InputError
from divulge.references import design
from divulge.references.designs import _traded

ROWS, MODELS, SEEDS = st.integers(12, 120), st.integers(1, 24), st.integers(0, 2**40)


def shares(count, fraction):
    """The whole numbers that fraction * count may become."""
    exact = round(count * fraction, 9)
    return {int(np.floor(exact)), int(np.ceil(exact))}


@given(ROWS, MODELS, SEEDS)
def test_at_one_half_pairs_are_complements_and_rows_are_in_half_the_models(rows, models, seed):
    trained_on = design(rows, models, seed=seed)
    assert trained_on.shape == (models, rows)
    assert trained_on.dtype == bool
    assert set(trained_on.sum(axis=0).tolist()) <= shares(models, 0.5)
    assert set(trained_on.sum(axis=1).tolist()) <= shares(rows, 0.5)
    pairs = models // 2
    assert (trained_on[: 2 * pairs : 2] ^ trained_on[1 : 2 * pairs : 2]).all()


@given(ROWS, MODELS, SEEDS)
def test_at_one_half_a_design_of_more_models_begins_with_that_of_fewer(rows, models, seed):
    np.testing.assert_array_equal(design(rows, 24, seed=seed)[:models], design(rows, models, seed=seed))


@given(ROWS, st.integers(2, 24), st.sampled_from([0.2, 0.25, 0.3, 1 / 3, 0.7, 0.75, 0.9]), SEEDS)
def test_other_fractions_are_balanced_both_ways(rows, models, fraction, seed):
    trained_on = design(rows, models, fraction=fraction, seed=seed)
    assert set(trained_on.sum(axis=0).tolist()) <= shares(models, fraction)
    sizes = trained_on.sum(axis=1)
    assert int(sizes.max() - sizes.min()) <= 1
    assert abs(int(trained_on.sum()) - rows * models * fraction) <= 1


@given(st.lists(st.integers(0, 12), min_size=10, max_size=80), st.sampled_from([0.5, 0.25, 0.7]), SEEDS)
def test_groups_stay_whole_and_are_balanced(codes, fraction, seed):
    codes = np.array([*codes, 100, 101, 102, 103])
    trained_on = design(len(codes), 12, fraction=fraction, groups=codes, seed=seed)
    values, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    of_groups = trained_on[:, first]
    np.testing.assert_array_equal(of_groups[:, inverse], trained_on)
    assert set(of_groups.sum(axis=0).tolist()) <= shares(12, fraction)
    sizes = of_groups.sum(axis=1)
    assert int(sizes.max() - sizes.min()) <= 1
    if fraction == 0.5:
        assert set(sizes.tolist()) <= shares(len(values), 0.5)


def test_group_ids_may_be_of_any_type_and_only_tell_apart():
    numbers = np.repeat(np.arange(20), 3)
    texts = np.array([f"person {i:02}" for i in numbers])
    expected = design(60, 8, groups=numbers, seed=4)
    for ids in (texts, texts.tolist(), texts.astype(object), numbers.astype(float), numbers + 1000):
        np.testing.assert_array_equal(design(60, 8, groups=ids, seed=4), expected)


def test_designs_are_random_and_repeat_by_their_seed():
    """Other fractions too are no fixed pattern: two models share as many rows as two random sets of their sizes do."""
    np.testing.assert_array_equal(design(50, 6, fraction=0.3, seed=1), design(50, 6, fraction=0.3, seed=1))
    assert (design(50, 6, fraction=0.3, seed=1) != design(50, 6, fraction=0.3, seed=2)).any()
    for fraction in (0.25, 0.5, 0.7):
        trained_on = design(3000, 16, fraction=fraction, seed=0)
        kinds = np.unique(trained_on.T, axis=0)
        assert len(kinds) > (200 if fraction == 0.5 else 500)
        pairs = np.corrcoef(trained_on)[np.triu_indices(16, 1)]
        within = pairs[pairs > -0.9]  # but for complements
        # Balanced rows make any two models a little unlike each other, by 1 / (r - 1).
        mean = 0 if fraction == 0.5 else -1 / 15
        assert abs(within.mean() - mean) < 0.01
        assert 0.7 < within.std() * np.sqrt(3000) < 1.3


def test_a_large_design_is_dealt_in_parts():
    """More pairs of rows than are traded at a time."""
    trained_on = design(140_001, 4, fraction=0.25, seed=3)
    assert (trained_on.sum(axis=0) == 1).all()
    assert set(trained_on.sum(axis=1).tolist()) <= {35_000, 35_001}
    shares_of_later = trained_on[:, -1000:].mean(axis=1)
    assert (abs(shares_of_later - 0.25) < 0.08).all()


@given(st.integers(1, 40), st.integers(1, 12), SEEDS)
def test_trading_keeps_what_both_have_and_how_many_each_has(pairs, models, seed):
    rng = np.random.default_rng(seed)
    before = rng.random((pairs, 2, models)) < 0.4
    after = _traded(before, rng)
    for old, new in zip(before, after, strict=True):  # a naive check, pair by pair
        assert new.sum(axis=1).tolist() == old.sum(axis=1).tolist()
        np.testing.assert_array_equal(old.sum(axis=0), new.sum(axis=0))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((1, 4), {}),
        ((10, 0), {}),
        ((10.0, 4), {}),
        ((10, 4), {"fraction": 0}),
        ((10, 4), {"fraction": 1}),
        ((10, 4), {"fraction": float("nan")}),
        ((10, 4), {"fraction": "half"}),
        ((10, 4), {"fraction": 0.01}),
        ((10, 4), {"fraction": 0.99}),
        ((10, 4), {"groups": [1, 2, 3]}),
        ((10, 4), {"groups": [7] * 10}),
        ((10, 4), {"seed": -1}),
    ],
)
def test_designs_that_cannot_be_made_are_refused(arguments, options):
    with pytest.raises(InputError) as caught:
        design(*arguments, **options)
    assert caught.value.code == "DV401"
    assert "expected" in str(caught.value)
