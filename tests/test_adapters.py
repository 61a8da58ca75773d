"""`collect` with plain functions: forms of data, order, memory, kinds, refusals. No framework is needed."""

from __future__ import annotations

import tracemalloc
from itertools import chain

import numpy as np
import pytest

import divulge
from adapting import D, M, N, assert_same, everything, records
from divulge.adapters import ADAPTERS
from divulge.adapters.predictor import needed
from divulge.adapters.records import batches, count, take

WEIGHTS = np.random.default_rng(1).normal(size=(D, 3)).astype(np.float32)
SIDES = records()


def model(x):
    return np.asarray(x) @ WEIGHTS


def softmax(x):
    e = np.exp(model(x))
    return e / e.sum(axis=1, keepdims=True)


def in_batches(side, size=16):
    return [(side[0][i : i + size], side[1][i : i + size]) for i in range(0, len(side[1]), size)]


FORMS = {
    "pair": lambda side: side,
    "with weights": lambda side: (*side, np.ones(len(side[1]))),
    "lists": lambda side: (side[0].tolist(), side[1].tolist()),
    "list of batches": in_batches,
    "generator of batches": lambda side: (batch for batch in in_batches(side)),
    "sequence of records": lambda side: list(zip(side[0], side[1].tolist(), strict=True)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_every_form_of_data_gives_the_same_rows_in_order(form, batch_size):
    evidence = divulge.collect(model, *map(FORMS[form], SIDES), batch_size=batch_size)
    assert_same(evidence, model(everything(SIDES)[0]), SIDES)


def test_frames_and_sparse_matrices():
    import pandas as pd
    import polars as pl
    from scipy.sparse import csr_array

    for make in (pd.DataFrame, pl.DataFrame, csr_array):
        given = [(make(x), y) for x, y in SIDES]
        evidence = divulge.collect(
            lambda x: (x.toarray() if hasattr(x, "toarray") else x) @ WEIGHTS, *given, batch_size=9
        )
        assert_same(evidence, model(everything(SIDES)[0]), SIDES)
    frames = [(pd.DataFrame(x, index=range(900, 900 + len(x))), pd.Series(y, index=range(len(y)))) for x, y in SIDES]
    assert_same(divulge.collect(model, *frames, batch_size=9), model(everything(SIDES)[0]), SIDES)


def test_several_inputs_in_a_mapping_or_a_tuple():
    named = [({"left": x[:, :3], "right": x[:, 3:]}, y) for x, y in SIDES]
    evidence = divulge.collect(lambda x: model(np.hstack((x["left"], x["right"]))), *named, batch_size=8)
    assert_same(evidence, model(everything(SIDES)[0]), SIDES)
    positional = [((x[:, :3], x[:, 3:]), y) for x, y in SIDES]
    evidence = divulge.collect(lambda x: model(np.hstack(x)), *positional, batch_size=8)
    assert_same(evidence, model(everything(SIDES)[0]), SIDES)


def test_several_inputs_in_a_list():
    """As Keras takes them; a list of arrays of other lengths stays a list of records."""
    whole = [([x[:, :3], x[:, 3:]], y) for x, y in SIDES]
    parts = [[([x[i : i + 9, :3], x[i : i + 9, 3:]], y[i : i + 9]) for i in range(0, len(y), 9)] for x, y in SIDES]
    rows = [[([x[i, :3], x[i, 3:]], int(y[i])) for i in range(len(y))] for x, y in SIDES]
    for form in (whole, parts, rows):
        evidence = divulge.collect(lambda x: model(np.hstack(x)), *form, batch_size=8)
        assert_same(evidence, model(everything(SIDES)[0]), SIDES)
    lists = [([list(row) for row in x], y) for x, y in SIDES]
    assert_same(divulge.collect(model, *lists), model(everything(SIDES)[0]), SIDES)


def test_three_parts_are_read_only_where_the_last_are_weights():
    for third in (SIDES[0][1], SIDES[0][1].tolist(), SIDES[0][1] > 0):
        for data in ((*SIDES[0], third), [(*SIDES[0], third)], list(zip(*SIDES[0], third, strict=True))):
            with pytest.raises(divulge.InputError, match=r"DV074 .*\(x, y, weights\) or \(\(x, k\), y\)"):
                divulge.collect(model, data, SIDES[1])
    for weights in (np.ones(M, np.float16), [0.5] * M, None):
        assert len(divulge.collect(model, (*SIDES[0], weights), SIDES[1])) == M + N


def test_columns_ids_and_groups_stay_with_their_rows():
    ids = np.arange(M), np.arange(M, M + N)
    evidence = divulge.collect(
        model, *SIDES, columns={"first": (SIDES[0][0][:, 0], SIDES[1][0][:, 0])}, ids=ids, groups=ids
    )
    assert evidence.ids.tolist() == evidence.groups.tolist() == list(range(M + N))
    np.testing.assert_array_equal(evidence.columns["first"], everything(SIDES)[0][:, 0])
    with pytest.raises(divulge.InputError, match="DV003 ids is a ndarray"):
        divulge.collect(model, *SIDES, ids=np.arange(3))


def test_classes_place_labels_that_count_from_one():
    shifted = [(x, y + 1) for x, y in SIDES]
    assert divulge.collect(model, *shifted, classes=[1, 2, 3]).labels.tolist() == everything(SIDES)[1].tolist()
    with pytest.raises(divulge.InputError, match="DV021"):
        divulge.collect(model, *shifted)


def test_progress_counts_records_of_each_side():
    told = []
    divulge.collect(model, *SIDES, batch_size=32, progress=lambda *step: told.append(step))
    assert told == [
        (32, M, "members"),
        (64, M, "members"),
        (70, M, "members"),
        (32, N, "nonmembers"),
        (45, N, "nonmembers"),
    ]
    told.clear()
    divulge.collect(model, *map(in_batches, SIDES), progress=lambda *step: told.append(step))
    assert told[0] == (16, None, "members")


def test_one_batch_is_in_memory_at_a_time():
    """Twenty batches of 8 MB of inputs come from a generator; the peak is a few of them, whatever their number."""
    side = 20, 2_000_000

    def loader():
        for _ in range(side[0]):
            yield np.ones((4, side[1] // 4), np.float32), np.array([0, 1, 0, 1])

    tracemalloc.start()
    divulge.collect(lambda x: x[:, :2] * [[1.0, -3.0]], loader(), loader(), check=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 4 * side[1]


def test_arrays_are_read_in_views():
    x = np.zeros((100, 3), np.float32)
    seen = []
    divulge.collect(
        lambda part: (seen.append(np.shares_memory(part, x)), np.add(part, [1.0, 2, 4]))[1],
        (x, [0] * 100),
        (x, [0] * 100),
        check=False,
    )
    assert all(seen)


# ------------------------------------------------------------------------------------------------ what outputs are


def test_probabilities_are_not_called_logits(caplog):
    evidence = divulge.collect(softmax, *SIDES)
    assert evidence.kind == "probs" and "could not be undone" in caplog.text
    one = [(x, y % 2) for x, y in SIDES]
    assert divulge.collect(lambda x: 1 / (1 + np.exp(-model(x)[:, :1])), *one).task == "binary"
    assert divulge.collect(lambda x: 1 / (1 + np.exp(-model(x)[:, :1])), *one).kind == "probs"
    hot = [(x, np.eye(3)[y]) for x, y in SIDES]
    evidence = divulge.collect(lambda x: 1 / (1 + np.exp(-model(x))), *hot)
    assert (evidence.kind, evidence.task) == ("probs", "multilabel")


def test_a_sigmoid_a_class_and_one_label_a_record_are_no_logits(caplog):
    sigmoids = lambda x: 1 / (1 + np.exp(-model(x)))  # noqa: E731
    evidence = divulge.collect(sigmoids, *SIDES)
    probs = sigmoids(everything(SIDES)[0])
    assert (evidence.kind, evidence.task) == ("probs", "multiclass")
    assert caplog.text.count("a probability of its own") == 1
    np.testing.assert_allclose(evidence.outputs, probs / probs.sum(axis=1, keepdims=True), rtol=1e-5)


def test_fractions_as_labels_are_a_regression():
    targets = [(x, x[:, :1] * 2.5) for x, _ in SIDES]
    assert divulge.collect(lambda x: x[:, :1], *targets).task == "regression"
    ages = [(x, 20.0 + np.arange(len(x))) for x, _ in SIDES]
    assert divulge.collect(lambda x: x[:, :1], *ages).task == "regression"
    signs = [(x, np.sign(x[:, 0])) for x, _ in SIDES]
    assert divulge.collect(lambda x: x[:, :1], *signs).task == "binary"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_precision_of_the_outputs_is_kept(dtype):
    assert divulge.collect(lambda x: model(x).astype(dtype), *SIDES).outputs.dtype == dtype


def test_a_model_in_half_precision_may_round_differently_in_another_batch():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    calls = iter(range(1000))

    def rough(x):
        return (model(x) * (1 + 4e-3 * (next(calls) % 2))).astype(ml_dtypes.bfloat16)

    assert divulge.collect(rough, *SIDES).outputs.dtype == np.float32


# ---------------------------------------------------------------------------------------------------- refusals


def test_a_function_in_training_mode_is_caught():
    rng = np.random.default_rng(0)
    noisy = lambda x: model(x) * (rng.random((len(x), 3)) < 0.8)  # noqa: E731
    with pytest.raises(divulge.InputError, match=r"DV215 .* of 32 rows"):
        divulge.collect(noisy, *SIDES)
    divulge.collect(noisy, *SIDES, check=False)
    with pytest.raises(divulge.InputError, match="DV215"):
        divulge.collect(lambda x: model(x) - model(x).mean(axis=0), *SIDES)


X, Y = SIDES[0]
REFUSED = {
    "no labels": ((X,), "DV072 expected members with a label"),
    "an array": (X, "DV072"),
    "None as labels": ((X, None), "DV072"),
    "a mapping without labels": ({"input_ids": X}, r"DV072 .* with \['input_ids'\] without labels"),
    "batches of inputs": ([X, X], "DV072"),
    "generator of inputs": ((x for x in X), "DV072"),
    "lengths": ((X, Y[:-1]), "DV004 members has 70 inputs and 69 labels"),
    "empty arrays": ((X[:0], Y[:0]), "DV005"),
    "empty list": ([], "DV005"),
    "empty generator": (iter(()), "DV005"),
    "a number": (7, "DV074"),
    "a path": ("train.csv", "DV072"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_are_refused(case):
    data, message = REFUSED[case]
    with pytest.raises(divulge.InputError, match=message):
        divulge.collect(model, data, SIDES[1])


@pytest.mark.parametrize("case", ["no labels", "lengths", "empty arrays", "a number"])
def test_the_other_side_is_looked_at_too(case):
    data, message = REFUSED[case]
    with pytest.raises(divulge.InputError, match=message.replace("members", "nonmembers")):
        divulge.collect(model, SIDES[0], data)


def test_models_and_outputs_that_are_refused():
    widths = iter([3, 3, 3, 2])
    for wrong, message in {
        object(): "DV070 expected a model of catboost, .* got builtins.object",
        "model.h5": "DV070 .* path of an .onnx file",
        lambda x: (model(x), x): "DV075 the model gives 2 outputs",
        lambda x: {"a": model(x)}: "DV075 the model gives 1 outputs",
        lambda x: model(x)[1:]: "DV004 the model gave",
        lambda x: model(x)[:, None]: "DV075 the model gave float32 of shape",
        lambda x: model(x)[:, : next(widths)]: "DV075 .* as in the first batch",
    }.items():
        with pytest.raises(divulge.InputError, match=message):
            divulge.collect(wrong, *SIDES, batch_size=20, check=False)
    with pytest.raises(divulge.InputError, match="DV074 expected a batch_size"):
        divulge.collect(model, *SIDES, batch_size=0)


def test_a_framework_that_is_missing_is_named_with_its_extra():
    with pytest.raises(divulge.InputError, match=r"DV071 .* pip install 'divulge\[onnx\]'"):
        needed("no_such_runtime", "onnx")


def test_too_few_records_to_check_the_mode_are_logged(caplog):
    assert divulge.collect(model, *SIDES, batch_size=2).kind == "logits"
    assert "evaluation mode is not checked: needs 4 records, has 2" in caplog.text


def test_an_interruption_passes_through():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        divulge.collect(interrupted, *SIDES)


# --------------------------------------------------------------------------------------------------- the parts


def test_batches_cover_the_data_once():
    found = batches((np.arange(10), np.arange(10)), 3, "members")
    parts = [batch.inputs.tolist() for batch in found.blocks]
    assert list(chain(*parts)) == list(range(10)) and max(map(len, parts)) == 3


def test_take_and_count_agree_over_kinds():
    rows = np.array([3, 0])
    for inputs in (np.arange(5), list(range(5)), {"a": np.arange(5)}, (np.arange(5), list("abcde"))):
        assert count(inputs) == 5 and count(take(inputs, rows)) == 2 and count(take(inputs, slice(1, 4))) == 3


def test_every_framework_has_a_file_of_one_shape():
    from importlib import import_module

    for name in set(ADAPTERS.values()):
        assert callable(import_module(f"divulge.adapters.{name}").predictor)
