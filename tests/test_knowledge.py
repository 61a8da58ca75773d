"""What a learned attack sees of each record, beside twins that go record by record."""

import numpy as np
import pytest

from divulge import Evidence, Unavailable, signals
from divulge.attacks.columns import VALUES, of_columns
from divulge.attacks.knowledge import POOLED_ROWS, TOP, log_probabilities, of_outputs
from divulge.attacks.row_by_row import binned, in_canonical_order


def rng_of(seed=0):
    return np.random.default_rng(seed)


def rows(n=200, **fields):
    return Evidence(rng_of(9).permutation(n) < n // 2, **fields)


def probabilities(n=200, classes=5, zeros=True):
    """Softmax outputs, some of them rounded to exact 0 and 1."""
    z = rng_of().normal(size=(n, classes)) * 4
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    if zeros:
        p[:50] = p[:50].round(1)
        p[:50] /= p[:50].sum(axis=1, keepdims=True)
        p[3] = np.eye(classes)[1]
    return p


LABELS = rng_of(1).integers(0, 5, 200)
SEVERAL = rng_of(1).random((200, 3)) < 0.4
NUMBERS = rng_of(1).normal(size=200)
EVIDENCE = {
    "logits": lambda: rows(outputs=rng_of().normal(size=(200, 5)) * 3, labels=LABELS, kind="logits"),
    "many logits": lambda: rows(outputs=rng_of().normal(size=(200, 60)), labels=LABELS, kind="logits"),
    "probs": lambda: rows(outputs=probabilities(zeros=False), labels=LABELS, kind="probs"),
    "probs with zeros": lambda: rows(outputs=probabilities(), labels=LABELS, kind="probs"),
    "float32 probs with zeros": lambda: rows(outputs=probabilities().astype(np.float32), labels=LABELS, kind="probs"),
    "binary": lambda: rows(outputs=rng_of().normal(size=200), labels=LABELS % 2, kind="logits"),
    "binary probs": lambda: rows(outputs=rng_of().random(200).round(1), labels=LABELS % 2, kind="probs"),
    "multi-label": lambda: rows(outputs=rng_of().normal(size=(200, 3)), labels=SEVERAL, kind="logits"),
    "multi-label probs": lambda: rows(outputs=rng_of().random((200, 3)).round(1), labels=SEVERAL, kind="probs"),
    "unlabelled": lambda: rows(outputs=rng_of().normal(size=(200, 4)), kind="logits"),
    "unlabelled probs": lambda: rows(outputs=probabilities(), kind="probs"),
    "unlabelled binary": lambda: rows(outputs=rng_of().random(200), kind="probs"),
    "regression": lambda: rows(outputs=rng_of().normal(size=200), labels=NUMBERS),
    "regression with deviations": lambda: rows(
        outputs=np.column_stack([rng_of().normal(size=200), rng_of().random(200) + 0.1]), labels=NUMBERS
    ),
    "one signal": lambda: rows(signals={"loss": rng_of().normal(size=200)}),
    "several signals": lambda: rows(signals={"mine": rng_of().normal(size=200), "loss": rng_of(2).normal(size=200)}),
    "signals and labels": lambda: rows(signals={"mine": rng_of().normal(size=200)}, labels=LABELS),
    "outputs and a signal": lambda: rows(
        outputs=rng_of().normal(size=(200, 5)),
        labels=LABELS,
        kind="logits",
        signals={"mine": rng_of(3).normal(size=200), "loss": rng_of(4).normal(size=200)},
    ),
}
SIGNALS = {
    "multiclass": ["log_odds", "loss", "modified_entropy", "correct"],
    "binary": ["log_odds", "loss", "modified_entropy", "correct"],
    "multilabel": ["log_odds", "loss", "modified_entropy", "correct"],
    "unlabelled": ["confidence", "entropy"],
    "regression": ["loss"],
    "signals": [],
}


def naive_shape(outputs, labels, kind, task, floor):
    """The answer about one record, as the docstring has it."""
    if task == "regression":
        return [outputs] if np.ndim(outputs) == 0 else [outputs[0], np.log(outputs[1])]
    if task in ("multiclass", "unlabelled") and np.ndim(outputs) == 1:
        p = np.exp(outputs - outputs.max()) if kind == "logits" else np.maximum(outputs, floor)
        return sorted(np.log(p / p.sum()), reverse=True)[:TOP]
    odds = []
    for at, z in enumerate(np.atleast_1d(outputs)):
        if kind == "probs":
            z = np.log(max(z, floor)) - np.log(max(1 - z, floor))
        odds.append(abs(z) if labels is None else z if np.atleast_1d(labels)[at] else -z)
    return sorted(odds)[:TOP]


def naive_of_outputs(evidence):
    outputs, labels, task = evidence.outputs, evidence.labels, evidence.task
    floor = 0.0
    if evidence.kind == "probs":
        half = outputs[outputs > 0].min() / 2
        floor = half if half <= 0.01 else 1e-4 / half
    names = SIGNALS[task] + [name for name in evidence.signals if name not in signals.NAMES or outputs is None]
    if outputs is not None and outputs.ndim == 1 and labels is None:
        names = ["confidence", "entropy"]
    columns = [signals.signal(evidence, name).astype(float) for name in names]
    if evidence.kind == "probs":
        least = np.log(floor) * (labels.shape[1] if task == "multilabel" else 1)
        columns = [np.clip(column, least, -least) for column in columns]
    table = []
    for i in range(len(evidence)):
        row = [column[i] for column in columns]
        if labels is not None and labels.ndim == 1 and labels.dtype.kind != "f":
            own, everyone = columns[0][labels == labels[i]], columns[0]
            size = len(own) + POOLED_ROWS
            mean = (own.sum() + POOLED_ROWS * everyone.mean()) / size
            variance = (((own - mean) ** 2).sum() + POOLED_ROWS * everyone.var()) / size + 1e-12
            row += [mean, np.log(variance), (columns[0][i] - mean) / variance**0.5]
        if outputs is not None:
            row += naive_shape(outputs[i], None if labels is None else labels[i], evidence.kind, task, floor)
        table.append(row)
    return np.array(table)


@pytest.mark.parametrize("kind", EVIDENCE)
def test_what_the_outputs_say_equals_its_naive_twin(kind):
    evidence = EVIDENCE[kind]()
    found = of_outputs(evidence)
    assert found.dtype == np.float32 and np.isfinite(found).all()
    np.testing.assert_allclose(found, naive_of_outputs(evidence), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", EVIDENCE)
def test_a_records_row_does_not_depend_on_where_it_stands(kind):
    evidence, order = EVIDENCE[kind](), rng_of(3).permutation(200)
    assert np.array_equal(of_outputs(evidence.take(order)), of_outputs(evidence)[order])


@pytest.mark.parametrize("kind", ["logits", "many logits", "probs"])
def test_the_names_of_the_classes_do_not_matter(kind):
    evidence = EVIDENCE[kind]()
    order = rng_of(3).permutation(evidence.outputs.shape[1])
    renamed = Evidence(
        evidence.member, outputs=evidence.outputs[:, order], labels=np.argsort(order)[LABELS], kind=evidence.kind
    )
    np.testing.assert_allclose(of_outputs(renamed), of_outputs(evidence), rtol=1e-4, atol=1e-4)


def test_a_signal_that_is_missing_is_missing_there_alone():
    values = rng_of().normal(size=200)
    values[[5, 70]] = np.nan
    found = of_outputs(rows(signals={"mine": values, "yours": NUMBERS}, labels=LABELS))
    assert np.flatnonzero(np.isnan(found).any(axis=1)).tolist() == [5, 70]
    assert np.isfinite(found[[5, 70], 1]).all()
    without = np.delete(np.arange(200), [5, 70])
    again = of_outputs(rows(signals={"mine": values, "yours": NUMBERS}, labels=LABELS).take(without))
    np.testing.assert_array_equal(found[without], again)


def test_a_signal_that_is_missing_everywhere_is_no_number():
    found = of_outputs(rows(signals={"mine": np.full(200, np.nan)}, labels=LABELS))
    assert np.isnan(found).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, -2.7, 1e30])
def test_equal_signals_tell_no_class_from_another(value):
    """Nor do the rounding errors of their mean."""
    found = of_outputs(rows(signals={"loss": np.full(200, value)}, labels=LABELS))
    assert (found == found[0]).all()
    assert found[0, -1] == 0


def test_a_class_is_compared_with_itself():
    values = NUMBERS + 100 * LABELS
    raw, *_, distance = of_outputs(rows(2000, signals={"mine": np.tile(values, 10)}, labels=np.tile(LABELS, 10))).T
    assert max(abs(distance[np.tile(LABELS, 10) == label].mean()) for label in range(5)) < 0.5
    assert raw.std() > 100


def test_neither_outputs_nor_signals_is_nothing_to_see():
    with pytest.raises(Unavailable, match="needs outputs"):
        of_outputs(rows(labels=LABELS, traces=np.zeros((200, 3))))


# -------------------------------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("kind", ["logits", "probs", "probs with zeros", "unlabelled"])
def test_log_probabilities_stand_in_the_order_of_the_classes(kind):
    evidence = EVIDENCE[kind]()
    z = evidence.outputs
    if evidence.kind == "probs":
        z = np.log(np.maximum(z, z[z > 0].min() / 2))
    expected = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probabilities(evidence, 30), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["many logits", "binary", "multi-label", "regression", "one signal"])
def test_too_many_classes_and_other_tasks_have_none(kind):
    assert log_probabilities(EVIDENCE[kind](), 30).shape == (200, 0)


# ------------------------------------------------------------------------------------------------------ columns


def test_a_number_is_itself_and_one_that_is_missing_is_the_median_and_says_so():
    found = of_columns(rows(4, columns={"age": np.array([30.0, np.nan, 50.0, 80.0])}), ["age"])
    assert found.tolist() == [[30, 0], [50, 1], [50, 0], [80, 0]]
    assert of_columns(rows(3, columns={"age": np.full(3, np.nan)}), ["age"]).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, np.float64, bool])
def test_numbers_of_any_type_are_numbers(dtype):
    values = np.array([0, 1, 1, 0, 1]).astype(dtype)
    assert of_columns(rows(5, columns={"flag": values}), ["flag"]).ravel().tolist() == [0, 1, 1, 0, 1]


@pytest.mark.parametrize("dtype", [str, object])
def test_a_text_is_a_category_and_an_empty_one_its_own(dtype):
    city = np.array(["ulm", "", "bonn", "ulm"]).astype(dtype)
    found = of_columns(rows(4, columns={"city": city}), ["city"])
    assert found.sum(axis=1).tolist() == [1, 1, 1, 1]
    assert found.shape == (4, 3)
    assert np.array_equal(found[0], found[3]) and len(np.unique(found, axis=0)) == 3


def test_a_text_of_too_many_values_is_refused_by_name():
    texts = np.array([f"id {i}" for i in range(VALUES + 1)])
    with pytest.raises(Unavailable, match=rf"the column 'id' is text with {VALUES + 1} different values.*at most 200"):
        of_columns(rows(VALUES + 1, columns={"id": texts}), ["id"])
    assert of_columns(rows(VALUES, columns={"id": texts[:-1]}), ["id"]).shape == (VALUES, VALUES)


def test_class_is_the_label_as_a_category():
    evidence = rows(4, labels=np.array([2, 0, 2, 1]), outputs=np.zeros((4, 3)), kind="logits")
    assert of_columns(evidence, ["class"]).tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert np.array_equal(of_columns(EVIDENCE["multi-label"](), ["class"]), SEVERAL)
    assert np.array_equal(of_columns(EVIDENCE["regression"](), ["class"])[:, 0], NUMBERS.astype(np.float32))


def test_a_column_that_is_called_class_goes_before_the_label():
    evidence = rows(200, labels=LABELS, columns={"class": NUMBERS, "features": -NUMBERS}, features=np.zeros((200, 2)))
    expected = np.column_stack([NUMBERS, -NUMBERS]).astype(np.float32)
    assert np.array_equal(of_columns(evidence, ["class", "features"]), expected)


def test_features_are_the_models_inputs_with_gaps():
    features = rng_of().normal(size=(200, 3))
    features[4, 1] = np.nan
    found = of_columns(rows(features=features), ["features"])
    assert found.shape == (200, 4)
    assert found[4].tolist() == pytest.approx(
        [features[4, 0], np.nanmedian(features[:, 1]), 1, features[4, 2]], abs=1e-6
    )


def test_columns_stand_side_by_side_in_the_order_that_they_are_named():
    evidence = rows(3, columns={"a": np.array([1, 2, 3]), "b": np.array([4, 5, 6])})
    assert of_columns(evidence, ["b", "a"]).tolist() == [[4, 1], [5, 2], [6, 3]]
    assert of_columns(evidence, []).shape == (3, 0)


def test_a_name_that_is_no_column_is_refused_with_those_that_are():
    evidence = rows(labels=LABELS, columns={"age": NUMBERS, "sex": NUMBERS})
    with pytest.raises(Unavailable, match="there is no column 'aeg'; known here: age, sex, class"):
        of_columns(evidence, ["aeg"])
    with pytest.raises(Unavailable, match="features"):
        of_columns(evidence, ["features"])
    with pytest.raises(Unavailable, match="known here: none"):
        of_columns(rows(4), ["class"])


def test_far_off_and_infinite_numbers_stay_finite():
    found = of_columns(rows(3, columns={"age": np.array([np.inf, 1.0, -np.inf])}), ["age"])
    assert np.isfinite(found).all() and found[0, 0] > 1e29


# --------------------------------------------------------------------------------------------------------- bins


def test_bins_keep_the_order_and_hold_about_as_many_rows_each():
    values = np.append(rng_of().normal(size=5000), [np.nan, 1e30, -1e30]).astype(np.float32)[:, None]
    found = binned(values).ravel()
    assert np.isnan(found[5000]) and np.isfinite(np.delete(found, 5000)).all()
    order = np.argsort(values.ravel()[:5000])
    assert (np.diff(found[:5000][order]) >= 0).all()
    sizes = np.bincount(found[:5000].astype(int))
    assert len(sizes) == 255 and sizes.min() >= 15 and sizes.max() <= 25


def test_few_values_have_a_bin_each():
    values = rng_of().integers(0, 7, 1000).astype(np.float32)
    assert np.array_equal(binned(values[:, None] * 11)[:, 0], values)
    rare = np.append(np.zeros(10_000), 1.0).astype(np.float32)
    assert np.unique(binned(rare[:, None])).tolist() in ([0.0], [0.0, 1.0])
    assert np.isnan(binned(np.full((3, 1), np.nan, np.float32))).all()


# -------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("fields", [{}, {"ids": np.arange(200)}, {"groups": np.arange(200) // 3}])
def test_the_canonical_order_is_of_the_records_not_of_how_they_came(fields):
    values = rng_of().normal(size=200)
    evidence, order = rows(signals={"mine": values}, **fields), rng_of(3).permutation(200)
    first = values[in_canonical_order(evidence)]
    assert sorted(first) == sorted(values)
    assert np.array_equal(first, values[order][in_canonical_order(evidence.take(order))])
