"""Slices against naive twins, and what people write for them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from divulge import Evidence, InputError, Unavailable, audit, slices
from divulge.signals import signal
from divulge.slices import (
    MAX_SLICES,
    MAX_VALUES,
    Partition,
    by_class,
    by_column,
    by_correctness,
    by_quantile,
    crossed,
    merge_small,
    named,
)


def plain(n=300, **fields):
    rng = np.random.default_rng(0)
    outputs = {"outputs": rng.normal(size=(n, 4)), "labels": rng.integers(0, 4, n), "kind": "logits"}
    return Evidence(np.arange(n) % 2 == 0, **{**outputs, **fields})


def with_column(values):
    values = np.asarray(values)
    return Evidence(np.arange(len(values)) % 2 == 0, columns={"x": values})


def rows_of(partition, n):
    """label -> set of rows, for labels that some row has; the naive reading of a partition."""
    rows = range(n) if partition.rows is None else partition.rows.tolist()
    found = {}
    for row, code in zip(rows, partition.codes.tolist(), strict=True):
        if code >= 0:
            found.setdefault(partition.labels[code], set()).add(row)
    return found


def naive(texts):
    found = {}
    for row, text in enumerate(texts):
        found.setdefault(text, set()).add(row)
    return found


# --------------------------------------------------------------------------------------------- class, correctness


def test_classes_have_the_names_of_the_evidence():
    evidence = plain(classes=("ant", "bee", "cat", "dog"))
    wanted = naive("class=" + evidence.classes[label] for label in evidence.labels)
    assert rows_of(by_class(evidence), 300) == wanted


def test_classes_without_names_are_their_numbers():
    evidence = plain()
    assert rows_of(by_class(evidence), 300) == naive(f"class={label}" for label in evidence.labels)


def test_classes_of_binary_labels():
    evidence = plain(outputs=np.zeros(300), labels=np.arange(300) % 2, classes=("no", "yes"))
    assert rows_of(by_class(evidence), 300) == naive(["class=no", "class=yes"] * 150)


def test_multi_label_records_are_in_each_of_their_classes():
    labels = np.random.default_rng(0).random((300, 4)) < 0.4
    part = by_class(plain(labels=labels))
    assert rows_of(part, 300) == {f"class={c}": set(np.flatnonzero(labels[:, c])) for c in range(4)}
    assert len(part.rows) == labels.sum()


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": None},
        {"outputs": np.zeros(300), "labels": np.zeros(300), "kind": None},
        {"outputs": None, "labels": np.linspace(0, 1, 300), "kind": None, "signals": {"loss": np.zeros(300)}},
    ],
    ids=["no labels", "regression", "regression by its loss alone"],
)
def test_without_class_labels_there_are_no_classes(fields):
    with pytest.raises(Unavailable, match="class"):
        by_class(plain(**fields))


def test_correctness_is_that_of_the_largest_output():
    evidence = plain()
    right = evidence.outputs.argmax(axis=1) == evidence.labels
    wanted = naive("correct=yes" if x else "correct=no" for x in right)
    assert rows_of(by_correctness(evidence), 300) == wanted


def test_multi_label_correctness_is_of_every_label():
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(300, 2)), rng.random((300, 2)) < 0.5
    wanted = naive("correct=yes" if x else "correct=no" for x in ((outputs > 0) == labels).all(axis=1))
    assert rows_of(by_correctness(plain(outputs=outputs, labels=labels)), 300) == wanted


def test_without_labels_there_is_no_correctness():
    with pytest.raises(Unavailable, match="labels"):
        by_correctness(plain(labels=None))


# ------------------------------------------------------------------------------------------------ quantiles, bins


@pytest.mark.parametrize("count", [2, 3, 4, 7, 10, 100])
@pytest.mark.parametrize("n", [100, 101, 1000, 999])
def test_quantile_slices_of_distinct_values_differ_by_at_most_one_row(n, count):
    values = np.random.default_rng(0).permutation(n).astype(float)
    codes = by_quantile("mine", count)(Evidence(values < 9, signals={"mine": values})).codes
    sizes = np.bincount(codes, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    assert (np.diff(codes[np.argsort(values)]) >= 0).all()


@given(
    hnp.arrays(np.float64, st.integers(2, 60), elements=st.integers(-3, 3).map(float)),
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5, unique=True).map(sorted),
)
@settings(max_examples=100, deadline=None)
def test_quantile_slices_rise_and_never_part_ties(values, cuts):
    part = by_quantile("mine", cuts)(Evidence(np.arange(len(values)) < 1, signals={"mine": values}))
    order = np.argsort(values, kind="stable")
    assert (np.diff(part.codes[order]) >= 0).all()
    assert all(len(set(part.codes[values == value].tolist())) == 1 for value in values)
    assert len(part.labels) == len(cuts) + 1
    assert part.codes.min() >= 0 and part.codes.max() < len(part.labels)


def test_quantile_slices_are_named_by_their_ends():
    part = by_quantile("loss", [0.01, 0.5])(plain())
    assert part.labels == ("loss=0-1%", "loss=1-50%", "loss=50-100%")
    assert part.name == "loss"


def test_quantile_slices_are_of_the_same_signal_as_the_attack():
    evidence = plain()
    codes = by_quantile("margin", 2)(evidence).codes
    margin = signal(evidence, "margin")
    assert margin[codes == 0].max() < margin[codes == 1].min()


def test_a_record_without_the_signal_is_in_no_quantile():
    values = np.array([1.0, np.nan, 2.0, 3.0, np.nan, 4.0])
    assert by_quantile("mine", 2)(Evidence(values > 2, signals={"mine": values})).codes.tolist() == [0, -1, 0, 1, -1, 1]


@pytest.mark.parametrize("quantiles", [1, 0, -3, [], [0.5, 0.5], [0.7, 0.3], [0, 0.5], [0.5, 1], [float("nan")]])
def test_quantiles_that_are_none_are_refused(quantiles):
    with pytest.raises(InputError, match="quantiles") as raised:
        by_quantile("loss", quantiles)
    assert raised.value.code == "DV053"


# ---------------------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["f", "m", "f", ""], ["f", "m", "f", "(missing)"]),
        ([True, False, True], ["True", "False", "True"]),
        ([3, 1, 3, -1], ["3", "1", "3", "-1"]),
        (np.array([3, 1], np.uint8), ["3", "1"]),
        ([0.5, np.nan, 2.0], ["0.5", "(missing)", "2"]),
        (np.array([0.1, 0.2], np.float32), ["0.1", "0.2"]),
        (np.array(["b", "", "a"], object), ["b", "(missing)", "a"]),
        (["a\0b", "a\0c", "a"], ["a\0b", "a\0c", "a"]),
        ([np.nan, np.nan], ["(missing)", "(missing)"]),
        (np.array(["2026-01-01", "2026-01-02"], "M8[D]"), ["2026-01-01", "2026-01-02"]),
        (["<script>alert(1)</script>", "\u202eevil", "a\nb"], ["<script>alert(1)</script>", "\u202eevil", "a\nb"]),
        (["x" * 10_000, "y"], ["x" * 10_000, "y"]),
    ],
)
def test_a_column_has_a_slice_a_value(values, texts):
    part = by_column("x")(with_column(values))
    assert rows_of(part, len(values)) == naive(f"x={text}" for text in texts)
    assert len(set(part.labels)) == len(part.labels)


def test_values_are_sorted():
    assert by_column("x")(with_column([10, 9, 100])).labels == ("x=9", "x=10", "x=100")
    assert by_column("x")(with_column(["b", "a", "B"])).labels == ("x=B", "x=a", "x=b")


@pytest.mark.parametrize(
    "values",
    [
        np.array([20260101.0, 20260102.0, 20260103.0]),
        np.array([0.12345671, 0.12345672]),
        np.array([16777216, 16777217], np.float64),
        np.array([1e300, -1e300, 0.0]),
    ],
)
def test_different_numbers_have_different_names(values):
    assert len(set(by_column("x")(with_column(values)).labels)) == len(values)


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.float32, np.uint8])
def test_a_numeric_column_of_many_values_is_cut_in_quarters(dtype):
    values = np.random.default_rng(0).permutation(100).astype(dtype)
    part = by_column("x")(with_column(values))
    assert np.bincount(part.codes).tolist() == [25] * 4
    assert part.labels == ("x=0 to 25", "x=25 to 50", "x=50 to 75", "x=75 to 99")


def test_a_value_that_most_records_have_makes_one_edge():
    n = np.arange(400)
    part = slices.checked(by_column("x")(with_column(np.where(n < 300, 0, n))), 400)
    assert part.labels == ("x=0 to 0", "x=0 to 300", "x=300 to 399")
    assert np.bincount(part.codes).tolist() == [0, 300, 100]


def test_a_numeric_column_is_cut_in_as_many_bins_as_asked():
    part = by_column("x", bins=10)(with_column(np.arange(1000)))
    assert np.bincount(part.codes).tolist() == [100] * 10


def test_a_numeric_column_of_few_values_is_not_cut():
    assert len(by_column("x")(with_column(np.arange(100) % MAX_VALUES)).labels) == MAX_VALUES
    assert len(by_column("x")(with_column(np.arange(100) % (MAX_VALUES + 1))).labels) == 4


def test_missing_numbers_are_a_slice_of_their_own():
    values = np.where(np.arange(100) % 10 == 0, np.nan, np.arange(100.0))
    found = rows_of(by_column("x")(with_column(values)), 100)
    assert found["x=(missing)"] == set(range(0, 100, 10))
    assert len(found) == 5


@given(hnp.arrays(np.float64, st.integers(1, 200), elements=st.integers(-40, 40).map(float)))
@settings(max_examples=60, deadline=None)
def test_bins_never_part_equal_values(values):
    part = by_column("x")(with_column(values))
    assert all(len(set(part.codes[values == value].tolist())) == 1 for value in np.unique(values))
    assert (np.diff(part.codes[np.argsort(values)]) >= 0).all()


def test_bins_with_different_rows_have_different_names():
    part = by_column("x")(with_column(20260000 + np.arange(0.0, 100.0)))
    assert len(set(part.labels)) == 4


@pytest.mark.parametrize("text", ["(missing)", "(rest)"])
def test_a_value_that_looks_like_ours_is_kept_apart_from_ours(text):
    values = np.array([text, "", "b", "c"] * 10)
    merged = merge_small(by_column("x")(with_column(values)), np.arange(40) // 4 % 2 == 0, 5)
    few = np.where(np.arange(40) < 2, "rare", values)
    merged_too = merge_small(by_column("x")(with_column(few)), np.arange(40) // 4 % 2 == 0, 3)
    for labels in (merged.partition.labels, merged_too.partition.labels):
        assert len(set(labels)) == len(labels)


def test_a_column_of_a_value_a_record_is_refused():
    values = np.array([f"v{i}" for i in range(MAX_SLICES + 1)])
    with pytest.raises(InputError, match="100,001 distinct values") as raised:
        by_column("x")(with_column(values))
    assert raised.value.code == "DV053"
    assert len(by_column("x")(with_column(values[:-1])).labels) == MAX_SLICES


# ------------------------------------------------------------------------------------------------------ crossed


def test_a_cross_has_a_slice_each_combination_that_some_record_has():
    rng = np.random.default_rng(0)
    sex, age = rng.choice(["f", "m"], 300), rng.integers(0, 5, 300)
    evidence = plain(columns={"sex": sex, "age": np.where(sex == "f", age, 0)})
    part = crossed(by_class, by_column("sex"), by_column("age"))(evidence)
    wanted = naive(
        f"class={c} & sex={s} & age={a}" for c, s, a in zip(evidence.labels, sex, evidence.columns["age"], strict=True)
    )
    assert rows_of(part, 300) == wanted
    assert set(part.labels) == set(wanted)
    assert part.name == "class & sex & age"


def test_a_record_in_none_of_one_partition_is_in_none_of_the_cross():
    values = np.array([1.0, np.nan, 2.0, 3.0])
    evidence = Evidence(values > 2, signals={"mine": values}, columns={"x": np.array(["a", "a", "b", "b"])})
    part = crossed(by_quantile("mine", 2), by_column("x"))(evidence)
    assert part.codes[1] == -1
    assert rows_of(part, 4) == {"mine=0-50% & x=a": {0}, "mine=0-50% & x=b": {2}, "mine=50-100% & x=b": {3}}


def test_a_cross_of_many_large_columns_keeps_its_names():
    columns = {name: np.roll(np.arange(10_000), shift).astype(str) for shift, name in enumerate("abcdef")}
    evidence = Evidence(np.arange(10_000) < 9, columns=columns)
    part = crossed(*(by_column(name) for name in "abcdef"))(evidence)
    row = 4321
    assert part.labels[part.codes[row]] == " & ".join(f"{name}={columns[name][row]}" for name in "abcdef")


def test_overlapping_slices_are_not_crossed():
    evidence = plain(labels=np.ones((300, 4), bool), columns={"x": np.arange(300) % 2})
    with pytest.raises(InputError, match="overlap") as raised:
        named("class*x", evidence)(evidence)
    assert raised.value.code == "DV053"


# ----------------------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("class", 4),
        ("correct", 2),
        ("age", 4),
        ("age/10", 10),
        ("sex", 2),
        ("loss", 10),
        ("loss/4", 4),
        ("mine/3", 3),
        ("class*sex", 8),
        ("class * sex * correct", 16),
        ("a/b", 3),
        ("a*b", 3),
    ],
)
def test_texts_become_slicers(text, labels):
    n = 2000
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.normal(size=n),
        "sex": rng.choice(["f", "m"], n),
        "a/b": np.arange(n) % 3,
        "a*b": np.arange(n) % 3,
    }
    evidence = plain(n, columns=columns, signals={"mine": rng.normal(size=n)})
    assert len(named(text, evidence)(evidence).labels) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clas", "did you mean 'class'"),
        ("age_bnad", "did you mean 'age_band'"),
        ("los/10", "did you mean 'loss'"),
        ("class*seks", "nothing called 'seks'"),
        ("age_band/", "number of bins"),
        ("age_band/ten", "number of bins"),
        ("age_band/1", "number of bins"),
        ("age_band/²", "number of bins"),
        ("loss/200000", "number of bins"),
        ("loss/-3", "number of bins"),
        ("class/10", "class"),
        ("", "nothing called ''"),
        ("x" * 100_000, "nothing called 'xxx"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(text, message):
    evidence = plain(columns={"age_band": np.arange(300) % 3})
    with pytest.raises(InputError) as raised:
        named(text, evidence)
    assert message in str(raised.value)
    assert raised.value.code == "DV053"
    assert len(str(raised.value)) < 2000


def test_a_number_of_bins_of_a_text_column_is_refused():
    """Silently ignored, it would slice by another partition than the one that was asked for."""
    evidence = plain(columns={"sex": np.array(["f", "m"] * 150)})
    with pytest.raises(InputError, match="bins"):
        named("sex/10", evidence)(evidence)


def test_a_column_goes_before_a_signal_of_its_name():
    evidence = plain(columns={"loss": np.array(["low", "high"] * 150)})
    assert named("loss", evidence)(evidence).labels == ("loss=high", "loss=low")


def test_a_callable_is_a_slicer():
    def mine(evidence):
        return Partition("mine", np.zeros(len(evidence), np.int32), ("mine=all",))

    assert named(mine, plain()) is mine


# ------------------------------------------------------------------------------------------------------- merging


def naive_merge(found, member, min_n, name):
    """label -> rows of the slices that stay and of the rest; and the names that were merged."""
    sizes = {label: (sum(member[list(rows)]), sum(~member[list(rows)])) for label, rows in found.items()}
    kept = {label: rows for label, rows in found.items() if min(sizes[label]) >= min_n}
    small = set(found) - set(kept)
    if small:
        kept[f"{name}=(rest)"] = set().union(*(found[label] for label in small))
    return kept, small


@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 8), st.booleans())
@settings(max_examples=150, deadline=None)
def test_merging_equals_its_naive_twin(seed, slices, min_n, overlapping):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    member = rng.random(n) < 0.5
    labels = tuple(f"x={i}" for i in range(slices))
    if overlapping:
        rows, codes = np.nonzero(rng.random((n, slices)) < 0.3)
        part = Partition("x", codes.astype(np.int32), labels, rows)
    else:
        part = Partition("x", rng.integers(-1, slices, n).astype(np.int32), labels)
    wanted, small = naive_merge(rows_of(part, n), member, min_n, "x")
    merged = merge_small(part, member, min_n)
    assert rows_of(merged.partition, n) == wanted
    assert set(merged.merged) == small
    assert set(merged.partition.labels) == set(wanted)
    for i, label in enumerate(merged.partition.labels):
        rows = list(wanted[label])
        assert merged.members[i] == member[rows].sum()
        assert merged.nonmembers[i] == (~member[rows]).sum()
        assert merged.measured[i] == (min(merged.members[i], merged.nonmembers[i]) >= min_n)
    if merged.partition.rows is not None:
        pairs = list(zip(merged.partition.rows, merged.partition.codes, strict=True))
        assert len(set(pairs)) == len(pairs)


def test_a_rest_too_small_is_named_and_not_measured():
    merged = merge_small(by_column("x")(with_column(["a"] * 20 + ["b", "c"])), np.arange(22) % 2 == 0, 5)
    assert merged.partition.labels == ("x=a", "x=(rest)")
    assert merged.measured.tolist() == [True, False]
    assert merged.merged == ("x=b", "x=c")


def test_nothing_small_makes_no_rest():
    merged = merge_small(by_column("x")(with_column(["a", "a", "b", "b"])), np.arange(4) % 2 == 0, 1)
    assert merged.partition.labels == ("x=a", "x=b")
    assert merged.merged == ()


def test_everything_small_is_one_rest():
    merged = merge_small(by_column("x")(with_column(np.arange(20))), np.arange(20) < 10, 5)
    assert merged.partition.labels == ("x=(rest)",)
    assert (merged.members[0], merged.nonmembers[0], merged.measured[0]) == (10, 10, True)


def test_empty_slices_are_dropped_and_not_called_merged():
    part = Partition("class", np.array([2, 2, 2, 2], np.int32), ("class=0", "class=1", "class=2"))
    merged = merge_small(part, np.arange(4) < 2, 1)
    assert merged.partition.labels == ("class=2",)
    assert merged.merged == ()


@pytest.mark.parametrize(
    "cut",
    [
        None,
        np.ones(300, bool),
        Partition("x", np.zeros(299, np.int32), ("x=a",)),
        Partition("x", np.zeros(300), ("x=a",)),
        Partition("x", np.ones(300, np.int32), ("x=a",)),
        Partition("x", np.full(300, -3, np.int32), ("x=a",)),
        Partition("x", np.zeros(300, np.int32), ("x=a", "x=a")),
        Partition("x", np.zeros(300, np.int32), ("everyone",)),
    ],
)
def test_what_a_slicer_of_ones_own_must_not_give(cut):
    with pytest.raises(InputError) as raised:
        audit(plain(), slices=[lambda evidence: cut], controls=())
    assert raised.value.code == "DV053"
