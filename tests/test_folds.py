"""Folds and halves: a function of what a row is, never of where it stands."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divulge import Evidence, audit, blocks, identity
from divulge.copies import with_copies_grouped
from divulge.folds import EXACT_BELOW, folds, halves
from divulge.hashes import array_hashes
from divulge.identity import HASHES, content_hashes, row_hashes


def identified(evidence):
    return identity.identified(evidence, content_hashes(evidence))


def digest(evidence):
    return identity.digest(evidence, content_hashes(evidence))


def plain(n=400, c=3, seed=0, **fields):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(n, c)).astype(np.float32)
    return Evidence(
        np.arange(n) % 2 == 0, **{"outputs": outputs, "labels": rng.integers(0, c, n), "kind": "logits", **fields}
    )


def with_duplicates(n=400):
    """Each record four times, told apart by columns only."""
    rng = np.random.default_rng(0)
    outputs = np.repeat(rng.normal(size=(n // 4, 3)), 4, axis=0)
    return plain(
        n, outputs=outputs, labels=np.zeros(n, int), columns={"age": rng.permutation(n), "b": np.arange(n) % 7}
    )


TABLES = {
    "content": lambda: plain(),
    "ids": lambda: plain(ids=np.arange(400)[::-1].copy()),
    "text ids": lambda: plain(ids=np.array([f"record {i}" for i in range(400)])),
    "groups": lambda: plain(groups=np.arange(400) // 3),
    "text groups": lambda: plain(groups=np.array([f"person {i // 3}" for i in range(400)])),
    "duplicates with columns": with_duplicates,
    "signals": lambda: Evidence(
        np.arange(400) < 200, signals={"loss": np.arange(400.0) % 50}, columns={"i": np.arange(400)}
    ),
    "repeated ids": lambda: plain(ids=np.arange(400) % 40),
    "one output, features": lambda: plain(
        outputs=np.zeros((400, 3)), labels=np.zeros(400, int), features=np.arange(400.0)[:, None]
    ),
    "float16": lambda: plain(outputs=np.random.default_rng(0).normal(size=(400, 3)).astype(np.float16)),
    "many labels": lambda: plain(labels=np.random.default_rng(0).random((400, 3)) < 0.5),
    "traces": lambda: plain(
        outputs=None, labels=None, kind=None, traces=np.random.default_rng(0).normal(size=(400, 5))
    ),
    "large": lambda: plain(3 * EXACT_BELOW),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("k", [2, 5])
def test_a_row_keeps_its_fold_under_any_order(name, k):
    evidence = TABLES[name]()
    order = np.random.default_rng(1).permutation(len(evidence))
    assert np.array_equal(folds(evidence.take(order), k, 3), folds(evidence, k, 3)[order])


@pytest.mark.parametrize("name", TABLES)
def test_a_row_keeps_its_fold_when_identified_and_when_signals_are_attached(name):
    evidence = identified(TABLES[name]())
    more = replace(evidence, signals={**evidence.signals, "mine": np.arange(float(len(evidence)))})
    assert np.array_equal(halves(more, 0), halves(evidence, 0))


def test_identified_rows_keep_their_half_under_any_order():
    evidence = with_duplicates()
    order = np.random.default_rng(1).permutation(400)
    assert np.array_equal(halves(identified(evidence.take(order)), 0), halves(identified(evidence), 0)[order])


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(2, 10), st.integers(0, 2**63 - 1))
@settings(max_examples=60, deadline=None)
def test_each_side_is_spread_evenly_over_the_folds(n, share, k, seed):
    member = np.arange(n) < round(share * n)
    fold = folds(Evidence(member, ids=np.arange(n)), k, seed)
    for side in (member, ~member):
        sizes = np.bincount(fold[side], minlength=k)
        assert len(sizes) == k
        assert sizes.max() - sizes.min() <= 1


def test_many_rows_are_spread_evenly_but_for_chance():
    evidence = Evidence(np.arange(400_000) < 200_000, ids=np.arange(400_000))
    sizes = np.bincount(folds(evidence, 5, 0)[:200_000])
    assert np.abs(sizes - 40_000).max() < 5 * np.sqrt(200_000 * 0.2 * 0.8)


@pytest.mark.parametrize("text", [False, True])
def test_a_group_is_in_one_fold_whole(text):
    groups = np.random.default_rng(0).integers(0, 80, 1000)
    evidence = plain(1000, groups=np.array([f"p{g}" for g in groups]) if text else groups)
    fold = folds(evidence, 4, 0)
    assert all(len(set(fold[groups == g])) == 1 for g in range(80))
    assert len(set(fold)) == 4


def test_groups_of_one_side_are_spread_evenly():
    groups = np.arange(600) // 3
    member = groups % 2 == 0
    fold = folds(Evidence(member, groups=groups), 5, 0)
    assert np.bincount(fold[member]).tolist() == [60] * 5
    assert np.bincount(fold[~member]).tolist() == [60] * 5


@pytest.mark.parametrize("kind", [str, bytes, object])
def test_text_ids_are_told_apart_by_their_text_alone(kind):
    texts = [f"Zoë {i}" if kind is not bytes else f"Zoe {i}" for i in range(100)]
    array = (
        np.array(texts, dtype=object)
        if kind is object
        else np.array([t.encode() for t in texts] if kind is bytes else texts)
    )
    plain_text = np.array(texts)
    assert np.array_equal(array_hashes(array, 5), array_hashes(plain_text, 5))


def test_a_text_is_hashed_alike_whatever_its_neighbours():
    texts = np.array(["", "a", "ab", "b" * 3000, "é", "a\0b"], object)
    each = [array_hashes(texts[i : i + 1], 1)[0] for i in range(6)]
    assert array_hashes(texts, 1).tolist() == each
    assert len(set(each)) == 6


@pytest.mark.parametrize("kind", [str, object])
def test_texts_that_differ_after_a_nul_are_told_apart(kind):
    assert len(set(array_hashes(np.array(["a\0b", "a\0c", "a"], kind)).tolist())) == 3


def test_different_seeds_give_different_splits():
    evidence = plain(4000)
    splits = [halves(evidence, seed) for seed in range(6)]
    agreements = [np.mean(a == b) for i, a in enumerate(splits) for b in splits[:i]]
    assert min(agreements) > 0.45 and max(agreements) < 0.55


def test_duplicates_are_spread_over_both_halves():
    n = 1000
    evidence = Evidence(np.arange(n) < n // 2, outputs=np.zeros((n, 3)), labels=np.zeros(n, int), kind="logits")
    half = halves(evidence, 0)
    assert np.bincount(half[: n // 2]).tolist() == [250, 250]
    pairs = plain(2000, outputs=np.repeat(np.random.default_rng(0).normal(size=(1000, 3)), 2, axis=0))
    pairs = replace(pairs, member=np.arange(2000) < 1000, labels=np.zeros(2000, int))
    apart = np.mean(halves(pairs, 0)[::2] != halves(pairs, 0)[1::2])
    assert 0.4 < apart < 0.6


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_that_differ_in_side_only_are_told_apart(seed):
    evidence = Evidence(np.arange(20) < 10, outputs=np.zeros((20, 2)), labels=np.zeros(20, int), kind="logits")
    assert len(set(row_hashes(evidence, seed).tolist())) == 20


def test_hashes_do_not_depend_on_the_size_of_blocks(monkeypatch):
    array = np.random.default_rng(0).normal(size=(5000, 3))
    whole = array_hashes(array, 4)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1)
    assert np.array_equal(array_hashes(array, 4), whole)


def test_hashes_do_not_depend_on_the_layout_in_memory():
    array = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    wide = np.zeros((200, 6), np.float32)
    wide[::2] = array
    assert np.array_equal(array_hashes(np.asfortranarray(array)), array_hashes(array))
    assert np.array_equal(array_hashes(wide[::2]), array_hashes(array))


# -------------------------------------------------------------------------------------------- quality of the hash

MILLION = 1 << 20


def bits(columns, dtype):
    """(MILLION, columns) of every pattern of zeros and ones."""
    return ((np.arange(MILLION)[:, None] >> np.arange(columns)) & 1).astype(dtype)


STRUCTURED = {
    "counting": lambda: np.arange(MILLION),
    "counting floats": lambda: np.arange(MILLION, dtype=np.float64),
    "counting halves": lambda: np.arange(MILLION, dtype=np.float32) / 2,
    "rounded": lambda: np.stack(np.divmod(np.arange(MILLION), 1024), axis=1) / 100,
    "rounded float32": lambda: (np.stack(np.divmod(np.arange(MILLION), 1024), axis=1) / 100).astype(np.float32),
    "yes-no bytes": lambda: bits(20, np.bool_),
    "yes-no in words": lambda: bits(24, np.int8),
    "multi-hot float64": lambda: bits(20, np.float64),
    "multi-hot float32": lambda: bits(20, np.float32),
    "multi-hot float32, odd": lambda: bits(21, np.float32),
    "multi-hot float16": lambda: bits(20, np.float16),
    "powers of two": lambda: 2.0 ** (np.arange(MILLION)[:, None] // 32 ** np.arange(4) % 32),
    "powers of two float32": lambda: (2.0 ** (np.arange(MILLION)[:, None] // 32 ** np.arange(4) % 32)).astype(
        np.float32
    ),
    "one-hot and a count": lambda: np.concatenate(
        (np.eye(64, dtype=np.float32)[np.arange(MILLION) % 64], np.arange(MILLION, dtype=np.float32)[:, None] // 64),
        axis=1,
    ),
    "texts": lambda: np.arange(MILLION).astype(str),
    "zeros and ones as text": lambda: np.frombuffer((bits(20, np.uint8) + 48).tobytes(), "S20"),
}


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_million_structured_rows_have_a_million_hashes_with_balanced_bits(name):
    """A random function to 64 bits has a collision among 2**20 rows once in 33 million."""
    hashes = array_hashes(STRUCTURED[name](), 0)
    assert len(np.unique(hashes)) == MILLION
    some = hashes[:: MILLION >> 16]
    ones = [int(np.count_nonzero(some >> np.uint64(bit) & np.uint64(1))) for bit in range(64)]
    assert np.abs(np.array(ones) / len(some) - 0.5).max() < 5 * 0.5 / np.sqrt(len(some))


# --------------------------------------------------------------------------------------------------------- digest


def everything(n=60):
    rng = np.random.default_rng(0)
    return plain(
        n,
        signals={"mine": rng.normal(size=n), "other": rng.normal(size=n)},
        traces=rng.normal(size=(n, 4)).astype(np.float32),
    )


def test_the_digest_is_of_the_rows_whatever_their_order():
    evidence = everything()
    assert digest(evidence.take(np.random.default_rng(0).permutation(60))) == digest(evidence)
    assert len(digest(evidence)) == 32 and int(digest(evidence), 16)


@pytest.mark.parametrize("field", ["member", "outputs", "labels", "traces", "signals"])
def test_the_digest_is_changed_by_any_one_value(field):
    evidence = everything()
    seen = {digest(evidence)}
    for row in range(60):
        array = (evidence.signals["mine"] if field == "signals" else getattr(evidence, field)).copy()
        array[row] = ~array[row] if field == "member" else array[row] + 1
        change = {"signals": {**evidence.signals, "mine": array}} if field == "signals" else {field: array}
        seen.add(digest(replace(evidence, **change)))
    assert len(seen) == 61


def test_the_digest_is_changed_by_one_bit_of_one_float():
    evidence = everything()
    outputs = evidence.outputs.copy()
    outputs[7, 1] = np.nextafter(outputs[7, 1], np.float32(np.inf))
    assert digest(replace(evidence, outputs=outputs)) != digest(evidence)


@pytest.mark.parametrize("change", ["swap two outputs", "drop a row", "repeat a row", "swap two signals"])
def test_the_digest_is_changed_by(change):
    evidence = everything()
    outputs = evidence.outputs.copy()
    outputs[[3, 4]] = outputs[[4, 3]]
    changed = {
        "swap two outputs": replace(evidence, outputs=outputs),
        "drop a row": evidence.take(np.arange(59)),
        "repeat a row": evidence.take(np.append(np.arange(60), 5)),
        "swap two signals": replace(
            evidence, signals={"mine": evidence.signals["other"], "other": evidence.signals["mine"]}
        ),
    }[change]
    assert digest(changed) != digest(evidence)


@pytest.mark.parametrize("field", ["columns", "groups"])
def test_the_digest_is_changed_by_what_rows_are_sliced_or_grouped_by(field):
    """Both change the report, so that the same digest would claim the same data."""
    first, second = (
        replace(everything(), **{field: {"age": x} if field == "columns" else x})
        for x in (np.arange(60), np.arange(60)[::-1].copy())
    )
    assert digest(first) != digest(second)


def test_long_texts_are_hashed_in_parts_as_they_are_one_by_one():
    texts = np.array(["a" * 400_000, "b" * 700_000, "", "c" * 1_500_000, "d", "a" * 400_000], object)
    together = array_hashes(texts, 3)
    assert together.tolist() == [array_hashes(texts[i : i + 1], 3)[0] for i in range(6)]
    assert len(set(together.tolist())) == 5


# ------------------------------------------------------------------------------------------------------- copies


def with_copies(rng, copies=5, both=False, **fields):
    """500 records a side, 50 members (or of both sides) of which stand several times."""
    rows = np.concatenate([np.arange(1000), np.repeat(np.arange(50), copies - 1)])
    if both:
        rows = np.concatenate([rows, np.repeat(np.arange(500, 550), copies - 1)])
    z, y = rng.normal(size=(1000, 6)).astype(np.float32), rng.integers(0, 6, 1000)
    given = {name: values[rows] for name, values in fields.items()}
    return Evidence(rows < 500, outputs=z[rows], labels=y[rows], kind="logits", **given), rows


@pytest.mark.parametrize("both", [False, True])
def test_copies_on_one_side_are_one_group_and_stay_in_one_fold_and_half(both):
    evidence, rows = with_copies(np.random.default_rng(0), both=both)
    grouped = with_copies_grouped(evidence, content_hashes(evidence))
    assert grouped.groups.dtype == HASHES and len(set(grouped.groups.tolist())) == 1000
    for k in (2, 5):
        fold = folds(grouped, k, 3)
        assert all(len(set(fold[rows == row].tolist())) == 1 for row in rows[1000:])


def test_equal_rows_are_no_copies_where_outputs_take_few_values_or_are_sure_or_features_differ():
    rng = np.random.default_rng(0)
    coarse = Evidence(np.arange(400) < 200, signals={"loss": rng.integers(0, 80, 400) / 10})
    assert with_copies_grouped(coarse, content_hashes(coarse)).groups is None
    at = np.arange(90)  # members are all right, others all wrong
    sure = Evidence(at < 45, outputs=np.eye(9)[at % 9], labels=(at + (at >= 45)) % 9, kind="probs")
    assert with_copies_grouped(sure, content_hashes(sure)).groups is None
    evidence, rows = with_copies(rng)
    told_apart = replace(evidence, features=rng.normal(size=(len(rows), 2)))
    assert with_copies_grouped(told_apart, content_hashes(told_apart)).groups is None
    mine = replace(coarse, groups=np.arange(400))
    assert with_copies_grouped(mine, content_hashes(mine)) is mine


@pytest.mark.default_budget
@pytest.mark.parametrize("both", [False, True])
def test_copies_do_not_look_like_a_leak(both):
    """Attacks that are fitted would score a record by a fit that saw its copy: 10 of 10 of these were alarms."""
    found = [
        audit(with_copies(np.random.default_rng(seed), both=both)[0], controls=["duplicates"], seed=seed)
        for seed in range(4)
    ]
    assert sum(report.score.low > 0 for report in found) <= 1
    (text,) = (row["text"] for row in found[0].rows("controls") if row["control"] == "duplicates")
    several, rows = (100, 500) if both else (50, 250)
    assert text.endswith(f"; {several} stand several times on one side, in {rows} rows: each counts as one")


def test_groups_that_hold_copies_of_one_record_are_one():
    """A fitted attack met a record's copy under another group: score above 0 in 5 of 20 leak-free runs."""
    rng = np.random.default_rng(0)
    once = Evidence(np.arange(60) < 30, signals={"loss": rng.normal(size=60)})
    evidence = replace(once.take(np.tile(np.arange(60), 3)), groups=np.arange(180))
    joined = with_copies_grouped(evidence, content_hashes(evidence)).groups
    assert len(set(joined.tolist())) == 60
    assert (joined[:60] == joined[60:120]).all() and (joined[:60] == joined[120:]).all()
    assert set(joined.tolist()) <= set(range(180))


def test_groups_are_joined_through_others():
    loss = np.array([1.0, 2.0, 2.0, 3.0, 3.0, 4.0])
    evidence = Evidence(np.ones(6, bool), signals={"loss": loss}, groups=np.array(["a", "a", "b", "b", "c", "d"]))
    joined = with_copies_grouped(evidence, content_hashes(evidence)).groups.tolist()
    assert len(set(joined[:5])) == 1 and joined[5] == "d"
