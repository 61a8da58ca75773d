"""The doors: everything that people have becomes the same table, and what is not evidence becomes one clear error."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divulge.codes import CODES
from divulge.doors.arrays import distinct, from_arrow, to_array
from divulge.doors.names import shown, split_name
from divulge.errors import InputError
from divulge.evidence import Evidence

Require = Callable[[str], ModuleType]
LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0], [1.0, 0.5, 4.0], [-2.0, 0.1, 0.2]], np.float32)
LABELS = np.array([0, 1, 2, 1])
PROBS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def splits(logits: Any = LOGITS, labels: Any = LABELS, **options: Any) -> Evidence:
    """Three members and one non-member, cut from arrays of four rows."""
    key = options.pop("key", "logits")
    return Evidence.from_splits(
        {key: logits[:3], "labels": labels[:3]}, {key: logits[3:], "labels": labels[3:]}, **options
    )


def fails(make: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.code in CODES
    assert len(caught.value.message) < 1_000
    return caught.value


# What comes in


def test_from_splits_joins_members_first_and_keeps_the_dtype() -> None:
    evidence = splits()
    assert evidence.member.tolist() == [True, True, True, False]
    assert evidence.outputs is not None and evidence.outputs.dtype == np.float32
    np.testing.assert_array_equal(evidence.outputs, LOGITS)
    np.testing.assert_array_equal(evidence.labels, LABELS)
    assert (evidence.kind, evidence.classes, evidence.task) == ("logits", None, "multiclass")


TF_PRIVACY = {
    "logits_train": LOGITS[:3],
    "logits_test": LOGITS[3:],
    "labels_train": LABELS[:3],
    "labels_test": LABELS[3:],
    "probs_train": PROBS[:3],
    "probs_test": PROBS[3:],
    "loss_train": np.array([0.1, 0.2, 0.3]),
    "loss_test": np.array([0.9]),
    "entropy_train": np.array([0.5, 0.6, 0.7]),
    "entropy_test": np.array([0.8]),
}


def test_tf_privacy_names_load_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "divulge"):
        evidence = Evidence.from_splits(TF_PRIVACY)
    np.testing.assert_array_equal(evidence.outputs, LOGITS)
    assert evidence.signals["loss"].tolist() == [-0.1, -0.2, -0.3, -0.9]
    assert evidence.signals["entropy"].tolist() == [-0.5, -0.6, -0.7, -0.8]
    assert [record.message for record in caplog.records] == ["probs are not used: logits are there, and lose less"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("logits_train", ("logits", True)),
        ("train_logits", ("logits", True)),
        ("loss_member", ("loss", True)),
        ("loss_nonmembers", ("loss", False)),
        ("loss_non_member", ("loss", False)),
        ("signal_x_test", ("signal_x", False)),
        ("y_val", ("y", None)),
        ("in_train", None),
        ("logits", None),
    ],
)
def test_split_name(name: str, parts: tuple[str, bool | None] | None) -> None:
    found = split_name(name)
    assert (None if found is None else (found.name, found.side.member)) == parts


def test_validation_data_are_non_members_only_when_named(tmp_path: Any) -> None:
    path = tmp_path / "losses.npz"
    np.savez(path, loss_train=[0.1, 0.2], loss_val=[0.9])
    assert fails(lambda: Evidence.load(path)).code == "DV011"
    assert Evidence.load(path, nonmember_values=["val"]).member.tolist() == [True, True, False]


class WithArray:
    """The least that numpy takes."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return LOGITS


class WithDlpack:
    """The least that DLPack asks."""

    def __dlpack__(self, **options: Any) -> Any:
        return LOGITS.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return LOGITS.__dlpack_device__()


class Sparse:
    """The one method of scipy's sparse matrices that matters here."""

    def toarray(self) -> Any:
        return LOGITS


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a,
        lambda a: a.tolist(),
        lambda a: tuple(map(tuple, a.tolist())),
        lambda a: list(a),
        lambda a: pd.Series(list(a)),
        lambda a: pd.Series(a.tolist()),
        lambda a: pd.DataFrame(a),
        lambda a: pl.Series(a.tolist()),
        lambda a: pl.Series(a, dtype=pl.Array(pl.Float32, 3)),
        lambda a: pl.DataFrame(a),
        lambda a: pa.array(a.tolist()),
        lambda a: pa.chunked_array([a.tolist()[:1], a.tolist()[1:]]),
        lambda a: np.array([*a, None], dtype=object)[:-1],
        lambda a: WithArray(),
        lambda a: WithDlpack(),
        lambda a: Sparse(),
        lambda a: a.astype(np.longdouble),
    ],
)
def test_any_kind_of_array(make: Callable[[Any], Any]) -> None:
    array = to_array(make(LOGITS), "logits", set())
    np.testing.assert_array_equal(array, LOGITS)
    assert array.dtype in (np.float32, np.float64)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", None], ["a", ""]),
        ([b"a", b"b"], ["a", "b"]),
        (np.array(["a", "b"], np.dtypes.StringDType()), ["a", "b"]),
        (pd.Series(["a", None]), ["a", ""]),
        (pd.Categorical(["a", "b"]), ["a", "b"]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        ([1, None], [1.0, math.nan]),
        (pd.Series([1, None], dtype="Int64"), [1.0, math.nan]),
        ([True, None], ["True", ""]),
        ([True, False], [True, False]),
        (range(2), [0, 1]),
        (pl.Series([1, 2], dtype=pl.UInt8), [1, 2]),
        (np.array(["2026-11-23"], "M8[D]"), ["2026-11-23"]),
        (pl.Series(["1.5"]).cast(pl.Decimal(10, 2)), [1.5]),
        (pa.nulls(1), [math.nan]),
    ],
)
def test_values_of_a_column(value: Any, expected: list[object]) -> None:
    np.testing.assert_array_equal(to_array(value, "x", set()), np.array(expected))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_outputs_keep_their_dtype(dtype: Any) -> None:
    evidence = splits(LOGITS.astype(dtype))
    assert evidence.outputs is not None and evidence.outputs.dtype == dtype


def test_integer_outputs_become_float32() -> None:
    hard = np.eye(3, dtype=np.int64)[[0, 1, 2, 0]]
    evidence = splits(hard, key="probs")
    assert evidence.outputs is not None and evidence.outputs.dtype == np.float32


def test_float16_takes_one_log_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "divulge"):
        splits(LOGITS.astype(np.float16))
    assert [record.message.partition(":")[0] for record in caplog.records] == ["logits"]


def test_torch_tensors(require: Require, caplog: pytest.LogCaptureFixture) -> None:
    torch = require("torch")
    tensor = torch.tensor(LOGITS, requires_grad=True)
    np.testing.assert_array_equal(splits(tensor, torch.tensor(LABELS)).outputs, LOGITS)
    with caplog.at_level(logging.INFO, "divulge"):
        narrow = splits(tensor.bfloat16(), torch.tensor(LABELS))
    assert narrow.outputs is not None and narrow.outputs.dtype == np.float32
    np.testing.assert_allclose(narrow.outputs, LOGITS, rtol=2**-8)
    assert [record.message for record in caplog.records] == ["logits: bfloat16 read as float32"]
    half = splits(tensor.half(), torch.tensor(LABELS, dtype=torch.uint8))
    assert half.outputs is not None and half.outputs.dtype == np.float16
    if torch.cuda.is_available():
        np.testing.assert_array_equal(splits(tensor.cuda(), torch.tensor(LABELS)).outputs, LOGITS)


def test_torch_tensor_without_values_is_an_input_error(require: Require) -> None:
    torch = require("torch")
    assert fails(lambda: splits(torch.empty(4, 3, device="meta"))).code == "DV002"
    assert fails(lambda: splits([torch.zeros(2, requires_grad=True), torch.zeros(3)] * 2)).code == "DV002"


def test_ml_dtypes_bfloat16(require: Require) -> None:
    narrow = LOGITS.astype(require("ml_dtypes").bfloat16)
    evidence = splits(narrow)
    assert evidence.outputs is not None and evidence.outputs.dtype == np.float32


# Labels


BINARY = LOGITS[:, 0]
MULTI_HOT = np.array([[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]])


@pytest.mark.parametrize(
    ("logits", "labels", "classes", "codes", "names"),
    [
        (LOGITS, [0, 1, 2, 1], None, [0, 1, 2, 1], None),
        (LOGITS, [0, 0, 0, 1], None, [0, 0, 0, 1], None),
        (LOGITS, np.array([0, 1, 2, 1], np.uint8), None, [0, 1, 2, 1], None),
        (LOGITS, [0.0, 1.0, 2.0, 1.0], None, [0, 1, 2, 1], None),
        (LOGITS, [[0], [1], [2], [1]], None, [0, 1, 2, 1], None),
        (LOGITS, np.eye(3)[[0, 1, 2, 1]], None, [0, 1, 2, 1], None),
        (LOGITS, np.eye(3, dtype=bool)[[0, 1, 2, 1]], None, [0, 1, 2, 1], None),
        (LOGITS, ["dog", "ant", "cat", "ant"], None, [2, 0, 1, 0], ("ant", "cat", "dog")),
        (LOGITS, ["0", "1", "2", "1"], None, [0, 1, 2, 1], None),
        (LOGITS, ["dog", "ant", "ant", "ant"], ["dog", "ant", "cat"], [0, 1, 1, 1], ("dog", "ant", "cat")),
        (LOGITS, [1, 2, 3, 2], [1, 2, 3], [0, 1, 2, 1], ("1", "2", "3")),
        (LOGITS, [30, 10, 20, 10], np.array([10, 20, 30]), [2, 0, 1, 0], ("10", "20", "30")),
        (LOGITS[:, :2], [True, False, True, True], None, [1, 0, 1, 1], None),
        (LOGITS[:, :2], [True, False, True, True], [True, False], [0, 1, 0, 0], ("True", "False")),
        (BINARY, [0, 1, 0, 1], None, [0, 1, 0, 1], None),
        (BINARY, [1, 1, 1, 1], None, [1, 1, 1, 1], None),
        (BINARY, [True, False, True, True], None, [1, 0, 1, 1], None),
        (BINARY[:, None], [[-1], [1], [-1], [1]], None, [0, 1, 0, 1], ("-1", "1")),
        (BINARY, ["no", "yes", "no", "yes"], None, [0, 1, 0, 1], ("no", "yes")),
        (BINARY, ["no", "yes", "no", "yes"], ["yes", "no"], [1, 0, 1, 0], ("yes", "no")),
        (BINARY, [1, 2, 1, 2], [1, 2], [0, 1, 0, 1], ("1", "2")),
        (BINARY, np.eye(2)[[0, 1, 0, 1]], None, [0, 1, 0, 1], None),
        (LOGITS, MULTI_HOT, None, MULTI_HOT.tolist(), None),
        (LOGITS, MULTI_HOT.astype(float), ["a", "b", "c"], MULTI_HOT.tolist(), ("a", "b", "c")),
    ],
)
def test_labels(logits: Any, labels: Any, classes: Any, codes: list[Any], names: tuple[str, ...] | None) -> None:
    evidence = splits(logits, labels, classes=classes)
    assert evidence.labels is not None
    assert evidence.labels.tolist() == codes
    assert evidence.labels.dtype == (np.bool_ if evidence.labels.ndim == 2 else np.int64)
    assert evidence.classes == names


@pytest.mark.parametrize(
    ("labels", "codes", "names"),
    [
        ([0, 2, 1, 1], [0, 2, 1, 1], None),
        ([1, 3, 3, 7], [0, 1, 1, 2], ("1", "3", "7")),
        (["b", "a", "a", "b"], [1, 0, 0, 1], ("a", "b")),
        (["10", "9", "9", "10"], [1, 0, 0, 1], ("9", "10")),
        ([0.5, 1.5, 2.0, 3.0], [0.5, 1.5, 2.0, 3.0], None),
    ],
)
def test_labels_without_outputs(labels: Any, codes: list[float], names: tuple[str, ...] | None) -> None:
    loss = np.arange(4.0)
    evidence = splits(loss, labels, key="loss")
    assert evidence.labels is not None
    assert (evidence.labels.tolist(), evidence.classes, evidence.task) == (codes, names, "signals")


def test_one_hot_with_sigmoid_outputs_is_multi_label() -> None:
    independent = np.full((4, 3), 0.9, np.float32)
    assert splits(independent, np.eye(3)[LABELS], key="probs").task == "multilabel"
    assert splits(PROBS, np.eye(3)[LABELS], key="probs").task == "multiclass"


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.permutations(list("abcdefghij")))
def test_labels_in_any_spelling_mean_the_same(codes: list[int], names: list[str]) -> None:
    labels = np.array(codes)
    logits = np.arange(len(labels) * 10.0).reshape(-1, 10)

    def read(labels: Any, classes: Any = None) -> list[int]:
        members, others = (
            {"logits": logits[:1], "labels": labels[:1]},
            {"logits": logits[1:], "labels": labels[1:]},
        )
        read = Evidence.from_splits(members, others, classes=classes).labels
        assert read is not None
        return read.tolist()  # type: ignore[no-any-return]

    assert read(labels) == codes
    assert read(np.eye(10)[labels]) == codes
    assert read(labels.astype(str)) == codes
    assert read(labels + 1, range(1, 11)) == codes
    assert read([names[code] for code in codes], names) == codes


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), min_size=1))
def test_distinct_equals_its_naive_twin(texts: list[str]) -> None:
    values, codes = distinct(np.array(texts))
    assert values.tolist() == sorted(set(texts))
    assert codes.tolist() == [sorted(set(texts)).index(text) for text in texts]


def test_regression() -> None:
    for predictions in (LOGITS[:, 0], np.abs(LOGITS[:, :2]) + 0.1):
        evidence = splits(predictions, [1, 2, 3, 4], key="predictions")
        assert (evidence.task, evidence.kind) == ("regression", None)
        assert evidence.labels is not None and evidence.labels.dtype == np.float64


# Signals and the rest


def test_low_for_members_is_negated_once_and_others_are_not() -> None:
    given_ = {"nll": [1.0], "perplexity": [2.0], "signals": {"loss": [3.0], "x": [4.0], "y": [5.0]}}
    evidence = Evidence.from_splits(given_, given_, lower_is_member=["y"])
    assert {name: array[0].item() for name, array in evidence.signals.items()} == {
        "nll": -1.0,
        "perplexity": -2.0,
        "loss": 3.0,
        "x": 4.0,
        "y": -5.0,
    }


def test_features_of_any_shape_and_traces() -> None:
    side = {"loss": [1.0, 2.0], "features": np.zeros((2, 4, 5), np.uint8), "traces": np.zeros((2, 3))}
    evidence = Evidence.from_splits(side, side)
    assert evidence.features is not None and evidence.traces is not None
    assert (evidence.features.shape, evidence.features.dtype) == ((4, 20), np.float32)
    assert evidence.traces.shape == (4, 3)


def test_columns_come_in_either_way_and_may_have_gaps() -> None:
    side = {"loss": [1.0, 2.0], "columns": {"age": [30, None]}}
    evidence = Evidence.from_splits(side, side, columns={"band": (["a", "b"], ["c", None])})
    np.testing.assert_array_equal(evidence.columns["age"], [30, np.nan, 30, np.nan])
    assert evidence.columns["band"].tolist() == ["a", "b", "c", ""]


def test_one_long_text_does_not_make_every_row_pay() -> None:
    texts = ["x" * 9_000] + ["short"] * 20_000
    array = to_array(texts, "note", set())
    assert array.dtype == object
    assert array.tolist() == texts


def test_the_sides_are_copied_once() -> None:
    evidence = splits()
    assert evidence.outputs is not None and evidence.outputs.base is None
    table = {"member": [True, False, True, False], "logits": LOGITS, "labels": LABELS}
    assert np.shares_memory(Evidence.from_table(table).outputs, LOGITS)  # type: ignore[arg-type]


# Tables


TABLE: Mapping[str, Any] = {
    "Split": ["train", "Test", "train", "holdout"],
    "logit_0": LOGITS[:, 0],
    "logit_2": LOGITS[:, 2],
    "logit_1": LOGITS[:, 1],
    "y": LABELS,
    "loss": [0.1, 0.2, 0.3, 0.4],
    "signal_x": [1.0, 2.0, 3.0, 4.0],
    "id": ["a", "b", "c", "d"],
    "group": [1, 1, 2, 2],
    "trace_1": [3.0, 3.0, 3.0, 3.0],
    "trace_0": [4.0, 4.0, 4.0, 4.0],
    "feature_0": [1.0, 2.0, 3.0, 4.0],
    "age": [30, 40, 50, 60],
    "feature_note": ["p", "q", "r", "s"],
}
FRAMES: Mapping[str, Callable[[Any], Any]] = {
    "mapping": dict,
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
    "lazy polars": pl.LazyFrame,
    "pyarrow": lambda table: pa.table({name: pa.array(column) for name, column in table.items()}),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_columns_map_themselves(frame: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "divulge"):
        evidence = Evidence.from_table(FRAMES[frame](dict(TABLE)))
    assert evidence.member.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(evidence.outputs, LOGITS)
    assert evidence.outputs is not None and evidence.outputs.dtype == np.float32
    np.testing.assert_array_equal(evidence.labels, LABELS)
    np.testing.assert_array_equal(evidence.signals["loss"], [-0.1, -0.2, -0.3, -0.4])
    np.testing.assert_array_equal(evidence.signals["x"], [1, 2, 3, 4])
    np.testing.assert_array_equal(evidence.ids, list("abcd"))
    np.testing.assert_array_equal(evidence.groups, [1, 1, 2, 2])
    np.testing.assert_array_equal(evidence.traces, [[4, 3]] * 4)
    np.testing.assert_array_equal(evidence.features, [[1], [2], [3], [4]])
    assert list(evidence.columns) == ["age", "feature_note"]
    assert len([record for record in caplog.records if record.message.startswith("mapping: ")]) == 1


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64(), pa.bool_()], ids=str
)
@pytest.mark.parametrize("missing", [False, True])
def test_arrow_numbers_are_read_as_arrow_says_them(kind: pa.DataType, missing: bool) -> None:
    bits = pa.array([None if missing and at == 5 else at % 3 != 0 for at in range(20)])
    whole = bits.cast(pa.int8()).cast(kind)
    for parts in ([whole], [whole[3:11], whole[1:2], whole[:0]], [whole[:0]], []):
        column = pa.chunked_array(parts, kind)
        expected = column.to_numpy()
        if missing and kind == pa.bool_() and column.null_count:
            expected = np.array(["" if x is None else str(x) for x in column.to_pylist()])
        found = from_arrow(column, "x")
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["probs", "probabilities"])
@pytest.mark.parametrize(
    "frame",
    [
        lambda t: pd.DataFrame(t),
        lambda t: pl.DataFrame(t),
        lambda t: pl.DataFrame(t, schema_overrides={"probs": pl.Array(pl.Float32, 3)}),
        lambda t: pa.table(t),
    ],
)
def test_outputs_as_lists(name: str, frame: Callable[[Any], Any]) -> None:
    table = {"is_member": [1, 0, 1, 0], name: PROBS.tolist(), "target": LABELS.tolist()}
    evidence = Evidence.from_table(frame(table))
    np.testing.assert_allclose(np.asarray(evidence.outputs), PROBS, rtol=1e-6)
    assert (evidence.task, evidence.kind) == ("multiclass", "probs")


def test_output_columns_name_the_classes() -> None:
    table = {"in_train": [True, True, False, False], "label": ["eel", "ant", "ant", "cat"]}
    table |= {f"proba_{name}": PROBS[:, column] for column, name in enumerate(["eel", "ant", "cat"])}
    evidence = Evidence.from_table(table)
    assert evidence.classes == ("eel", "ant", "cat")
    assert evidence.labels is not None and evidence.labels.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(evidence.outputs, PROBS)


def test_output_columns_that_classes_names_are_taken_by_name_in_its_order() -> None:
    table = {"in_train": [True, True, False, False], "label": ["eel", "ant", "ant", "cat"]}
    for prefix, names in (("prob", ["eel", "ant", "cat"]), ("logit", ["cat", "eel", "ant"])):
        table |= {f"{prefix}_{name}": LOGITS[:, ["ant", "cat", "eel"].index(name)] for name in names}
    for classes in (None, ["ant", "cat", "eel"]):
        evidence = Evidence.from_table(table, classes=classes)
        order = [["ant", "cat", "eel"].index(name) for name in evidence.classes or ()]
        np.testing.assert_array_equal(evidence.outputs, LOGITS[:, order])
    assert order == [0, 1, 2]


def test_one_output_column_is_that_of_the_class_it_names() -> None:
    table = {
        "member": [1, 1, 0, 0],
        "label": ["yes", "zero", "yes", "zero"],
        "proba_yes": [0.9, 0.2, 0.7, 0.4],
    }
    evidence = Evidence.from_table(table)
    assert evidence.labels is not None
    assert (evidence.task, evidence.classes, evidence.labels.tolist()) == (
        "binary",
        ("zero", "yes"),
        [1, 0, 1, 0],
    )
    table = {"member": [1, 1, 0, 0], "label": [1, 0, 1, 0], "prob_1": [0.9, 0.2, 0.7, 0.4]}
    assert Evidence.from_table(table).task == "binary"


def test_overrides() -> None:
    table = {
        "part": ["old", "new", "old", "val"],
        "split": ["x", "y", "z", "x"],
        "label": ["noise"] * 4,
        "species": LABELS,
        "score": LOGITS,
        "record": [7, 8, 9, 10],
        "person": ["p", "p", "q", "q"],
        "age": [1, 2, 3, 4],
    }
    evidence = Evidence.from_table(
        table, member="part", label="species", id="record", group="person", outputs="score", kind="logits",
        columns=["age", "split"], member_values=["OLD"], nonmember_values=["new", "val"],
    )  # fmt: skip
    assert evidence.member.tolist() == [True, False, True, False]
    np.testing.assert_array_equal(evidence.labels, LABELS)
    np.testing.assert_array_equal(evidence.outputs, LOGITS)
    assert (list(evidence.columns), evidence.kind) == (["age", "split"], "logits")
    assert evidence.ids is not None and evidence.ids.tolist() == [7, 8, 9, 10]
    assert evidence.groups is not None and evidence.groups.tolist() == ["p", "p", "q", "q"]


def test_output_columns_by_name() -> None:
    table = {"split": [1, 0, 1, 0], "a": LOGITS[:, 0], "b": LOGITS[:, 1], "c": LOGITS[:, 2], "prob_x": LABELS}
    evidence = Evidence.from_table(table, outputs=["c", "a", "b"], kind="logits")
    np.testing.assert_array_equal(evidence.outputs, LOGITS[:, [2, 0, 1]])
    assert list(evidence.columns) == ["prob_x"]


def test_a_list_column_that_nobody_asked_for_is_left_out_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = {"split": [1, 0, 1, 0], "loss": [1.0, 2.0, 3.0, 4.0], "embedding": LOGITS}
    with caplog.at_level(logging.INFO, "divulge"):
        assert Evidence.from_table(table).columns == {}
    assert any("left out: 'embedding'" in record.message for record in caplog.records)


# What is refused: one row each


def table(**changes: Any) -> dict[str, Any]:
    """A sound table with some columns changed or, with None, gone."""
    whole = {"split": ["train", "test", "train", "test"], "logits": LOGITS, "label": LABELS, **changes}
    return {name: column for name, column in whole.items() if column is not None}


def with_value(array: Any, place: Any, value: float) -> Any:
    changed = array.copy()
    changed[place] = value
    return changed


LONG = "x" * 1_000_000
BAD_SPLITS: list[tuple[str, Callable[[], object], str, list[str]]] = [
    ("unknown key", lambda: splits(key="logit"), "DV001", ["'logit'", "Did you mean 'logits'?"]),
    ("unknown name in one mapping", lambda: Evidence.from_splits({"logit_train": [], "logit_test": []}), "DV001",
     ["'logit'", "'logits'"]),
    ("one mapping without sides", lambda: Evidence.from_splits({"logits": LOGITS}), "DV001", ["logits_train"]),
    ("sample weights", lambda: Evidence.from_splits(TF_PRIVACY | {"sample_weight_train": [1] * 3}), "DV001",
     ["sample_weight"]),
    ("one side of a pair", lambda: Evidence.from_splits({"loss_train": [1.0]}), "DV004", ["'loss_test'"]),
    ("validation in one mapping", lambda: Evidence.from_splits({"loss_train": [1.0], "loss_val": [1.0]}), "DV011",
     ["loss_val", "nonmember_values"]),
    ("a name twice", lambda: Evidence.from_splits({"y_train": [1], "labels_train": [1]}), "DV008", ["labels"]),
    ("not a mapping", lambda: Evidence.from_splits(LOGITS), "DV002", ["ndarray"]),  # type: ignore[arg-type]
    ("nothing at all", lambda: Evidence.from_splits({}, {}), "DV015", ["empty"]),
    ("only labels", lambda: Evidence.from_splits({"labels": [0]}, {"labels": [1]}), "DV015", ["nothing to attack"]),
    ("given on one side", lambda: Evidence.from_splits({"loss": [1.0]}, {"nll": [1.0]}), "DV004", ["not for"]),
    ("ragged", lambda: splits([[1.0, 2.0], [1.0], [1.0, 2.0], [1.0, 2.0]]), "DV002", ["logits is a list", "join"]),
    ("ragged objects", lambda: splits(np.array([[1.0, 2.0], [1.0], None, [2.0]], object)), "DV002", ["logits"]),
    ("mixed", lambda: splits(labels=["a", 1, "b", "c"]), "DV002", ["labels", "int", "str"]),
    ("dicts", lambda: splits(labels=[{"a": 1}] * 4), "DV002", ["labels"]),
    ("complex", lambda: splits(LOGITS.astype(complex)), "DV002", ["complex128"]),
    ("masked", lambda: splits(np.ma.masked_greater(LOGITS, 3)), "DV002", ["masked"]),
    ("a single text", lambda: Evidence.from_splits({"loss": "abc"}, {"loss": "abc"}), "DV002", ["'abc'"]),
    ("text outputs", lambda: splits(LOGITS.astype(str)), "DV002", ["text"]),
    ("text and numbers", lambda: splits(labels=np.array(["a", "b", "c", 1], object)[[0, 1, 2, 3]].tolist()),
     "DV002", ["labels"]),
    ("text on one side", lambda: Evidence.from_splits({"loss": [1.0], "ids": ["a"]}, {"loss": [1.0], "ids": [1]}),
     "DV002", ["ids is text on one side"]),
    ("text signal", lambda: splits(np.array(list("abcd")), key="loss"), "DV003", ["'a'"]),
    ("wide signal", lambda: splits(LOGITS, key="loss"), "DV003", ["(4, 3)"]),
    ("outputs of a sequence", lambda: splits(np.zeros((4, 3, 2))), "DV003", ["(4, 3, 2)"]),
    ("widths differ", lambda: Evidence.from_splits({"logits": LOGITS}, {"logits": LOGITS[:, :2]}), "DV003",
     ["(4, 3)", "(4, 2)", "same model"]),
    ("three predictions", lambda: splits(LOGITS, key="predictions"), "DV003", ["mean and standard deviation"]),
    ("column pair", lambda: splits(columns={"age": [1, 2, 3]}), "DV003", ["columns['age']"]),
    ("wide column", lambda: splits(columns={"age": (LOGITS[:3], LOGITS[3:])}), "DV003", ["'age'"]),
    ("label width", lambda: splits(labels=np.eye(4)), "DV003", ["4 columns", "3"]),
    ("lengths", lambda: Evidence.from_splits({"logits": LOGITS, "labels": LABELS[:2], "ids": range(4)},
                                             {"logits": LOGITS, "labels": LABELS, "ids": range(4)}),
     "DV004", ["members", "labels has 2 rows", "logits has 4 rows", "ids has 4 rows"]),
    ("no members", lambda: Evidence.from_splits({"logits": [], "labels": []}, {"logits": LOGITS, "labels": LABELS}),
     "DV005", ["no members"]),
    ("no non-members", lambda: Evidence.from_splits({"loss": [1.0]}, {"loss": []}), "DV005", ["no non-members"]),
    ("NaN", lambda: splits(with_value(LOGITS, (1, 2), np.nan)), "DV006", ["logits", "1 of 4", "members row 1"]),
    ("inf", lambda: splits(with_value(LOGITS, 3, -np.inf)), "DV006", ["logits", "nonmembers row 0"]),
    ("NaN in float16", lambda: splits(with_value(LOGITS.astype("f2"), 0, np.nan)), "DV006", ["members row 0"]),
    ("NaN loss", lambda: splits(with_value(np.ones(4), 2, np.nan), key="loss"), "DV006", ["loss", "members row 2"]),
    ("NaN label", lambda: splits(labels=[0, np.nan, 1, 2]), "DV006", ["labels", "members row 1"]),
    ("missing label", lambda: splits(labels=[0, None, 1, 2]), "DV006", ["labels", "members row 1"]),
    ("NaN feature", lambda: Evidence.from_splits(*[{"loss": [1.0], "features": [[np.nan]]}] * 2), "DV006",
     ["features", "2 of 2"]),
    ("NaN trace", lambda: Evidence.from_splits(*[{"traces": [[1.0, np.nan]]}] * 2), "DV006", ["traces"]),
    ("missing id", lambda: Evidence.from_splits(*[{"loss": [1.0, 2.0], "ids": ["a", None]}] * 2), "DV006",
     ["ids is missing", "members row 1"]),
    ("missing group", lambda: Evidence.from_splits(*[{"loss": [1.0, 2.0], "groups": [1, None]}] * 2), "DV006",
     ["groups"]),
    ("long label", lambda: splits(labels=["a", "b", LONG, "a"]), "DV007", ["1,000,000", "labels"]),
    ("long label, numpy", lambda: splits(labels=np.array(["a", "b", LONG, "a"])), "DV007", ["1,000,000"]),
    ("long column", lambda: splits(columns={"note": (["a", "b", LONG], ["a"])}), "DV007", ["note"]),
    ("long class", lambda: splits(classes=["a", "b", LONG]), "DV007", ["classes"]),
    ("long key", lambda: splits(key=LONG), "DV001", ["'xxx"]),
    ("signal twice", lambda: Evidence.from_splits(*[{"loss": [1.0], "signals": {"loss": [1.0]}}] * 2), "DV008",
     ["loss"]),
    ("column twice", lambda: Evidence.from_splits({"loss": [1.0], "columns": {"a": [1]}}, {"loss": [1.0],
     "columns": {"a": [1]}}, columns={"a": ([1], [1])}), "DV008", ["'a'"]),
    ("predictions and logits", lambda: Evidence.from_splits(*[{"logits": LOGITS, "predictions": LABELS}] * 2),
     "DV008", ["logits and predictions"]),
    ("logits called probs", lambda: splits(LOGITS, key="probs"), "DV012",
     ["do not sum to 1", "members row 1: 4", "75.0 % of 4 rows", "These look like logits: pass logits="]),
    ("a class missing", lambda: splits(PROBS[:, :2], labels=[0, 1, 0, 1], key="probs"), "DV012", ["members row 0"]),
    ("unlabelled sums", lambda: Evidence.from_splits({"probs": PROBS[:, :2]}, {"probs": PROBS}), "DV003", []),
    ("probs called logits", lambda: splits(PROBS), "DV013", ["probabilities", "probs="]),
    ("sigmoid logits", lambda: splits(BINARY, labels=[0, 1, 0, 1], key="probs"), "DV014", ["0..1", "logits="]),
    ("multi-label logits", lambda: splits(LOGITS - 3, labels=MULTI_HOT, key="probs"), "DV012", ["logits="]),
    ("a deviation of 0", lambda: splits(np.zeros((4, 2)), key="predictions"), "DV016", ["not positive", "4 of 4"]),
    ("soft labels", lambda: splits(labels=np.full((4, 3), 1 / 3)), "DV020", ["neither 0 nor 1"]),
    ("regression labels", lambda: splits(labels=[0.5, 1.5, 2.0, 1.0]), "DV020", ["predictions="]),
    ("text regression", lambda: splits(BINARY, labels=list("abcd"), key="predictions"), "DV020", ["regression"]),
    ("two-dimensional text", lambda: splits(labels=np.array([list("abc")] * 4)), "DV020", ["text"]),
    ("minus one", lambda: splits(labels=[-1, 0, 1, -1]), "DV021", ["-1", "0..2", "members row 0", "nonmembers row 0"]),
    ("far out", lambda: splits(labels=[0, 255, 1, 11]), "DV021", ["11, 255", "2 of 4"]),
    ("too few texts", lambda: splits(labels=list("abab")), "DV022", ["2 distinct", "3 columns", "classes="]),
    ("one text, binary", lambda: splits(BINARY, labels=list("aaaa")), "DV022", ["1 distinct", "classes="]),
    ("1 and 2, binary", lambda: splits(BINARY, labels=[1, 2, 1, 2]), "DV022", ["1, 2", "classes="]),
    ("classes too short", lambda: splits(classes=["a", "b"]), "DV023", ["2 names", "3 classes"]),
    ("classes twice", lambda: splits(classes=["a", "b", "b"]), "DV023", ["'b'"]),
    ("classes as text", lambda: splits(classes="abc"), "DV023", ["'abc'"]),
    ("class not named", lambda: splits(labels=["a", "b", "z", "a"], classes=["a", "b", "c"]), "DV024",
     ["'z'", "members row 2"]),
    ("lower_is_member", lambda: splits(lower_is_member=["x"]), "DV001", ["'x'"]),
]  # fmt: skip
BAD_TABLES: list[tuple[str, Callable[[], object], str, list[str]]] = [
    ("not a frame", lambda: Evidence.from_table(3), "DV002", ["int"]),
    ("no columns", lambda: Evidence.from_table({}), "DV010", []),
    ("no member column", lambda: Evidence.from_table(table(split=None)), "DV010",
     ["'logits', 'label'", "member=… (--member)"]),
    ("outputs of unknown names", lambda: Evidence.from_table({"split": ["train", "test"], "y": [0, 1], "p0": [0.5, 0.5],
     "p 1": [0.5, 0.5]}), "DV015", ["'p0', 'p 1'", "outputs=[…]", "--outputs p0 --outputs 'p 1' --kind probs"]),
    ("labels of unknown names", lambda: Evidence.from_table({"split": ["train", "test"], "p0": [0.5, 0.5]}), "DV015",
     ["label=… (--label COLUMN)"]),
    ("outputs of a nameless kind", lambda: Evidence.from_table({"split": ["train", "test"], "p": [0.5, 0.5]},
     outputs="p"), "DV003", ["--kind probs"]),
    ("no signal is there to be low", lambda: Evidence.from_table(table(), lower_is_member=["loss"]), "DV001",
     ["none here"]),
    ("three values", lambda: Evidence.from_table(table(split=["train", "test", "other", "test"])), "DV009",
     ["'other'", "'train'", "'split'"]),
    ("three numbers", lambda: Evidence.from_table(table(split=[0, 1, 2, 1])), "DV009", ["2"]),
    ("missing side", lambda: Evidence.from_table(table(split=["train", None, "test", "test"])), "DV009", ["''"]),
    ("missing side, numbers", lambda: Evidence.from_table(table(split=[1, None, 0, 0])), "DV006", ["row 1"]),
    ("validation", lambda: Evidence.from_table(table(split=["train", "val", "test", "test"])), "DV011", ["'val'"]),
    ("one side", lambda: Evidence.from_table(table(split=["train"] * 4)), "DV005", ["no non-members"]),
    ("two label columns", lambda: Evidence.from_table(table(y=LABELS)), "DV008", ["'label', 'y'", "label="]),
    ("two member columns", lambda: Evidence.from_table(table(member=[1, 0, 1, 0])), "DV008", ["member="]),
    ("outputs twice", lambda: Evidence.from_table(table(logit_0=BINARY, logit_1=BINARY)), "DV008", ["outputs="]),
    ("prob and proba", lambda: Evidence.from_table(table(logits=None, prob_0=BINARY, proba_0=BINARY)), "DV008", []),
    ("prob_0 alone", lambda: Evidence.from_table(table(logits=None, prob_0=BINARY)), "DV008", ["prob_0"]),
    ("three labels for one column", lambda: Evidence.from_table(table(logits=None, proba_1a=BINARY)), "DV022", []),
    ("one column for the other class", lambda: Evidence.from_table(
        table(label=list("abab"), logits=None, prob_a=BINARY), classes=["a", "b"]), "DV022", ["'a'", "'b'"]),
    ("label override", lambda: Evidence.from_table(table(), label="lable"), "DV001", ["Did you mean 'label'?"]),
    ("columns override", lambda: Evidence.from_table(table(), columns=["age"]), "DV001", ["'age'"]),
    ("kind", lambda: Evidence.from_table(table(), kind="prob"), "DV001", ["Did you mean 'probs'?"]),
    ("outputs without kind", lambda: Evidence.from_table(table(logits=None, score=LOGITS), outputs="score"), "DV003",
     ["kind="]),
    ("lengths", lambda: Evidence.from_table(table(age=[1, 2])), "DV004", ["age", "2 rows"]),
    ("NaN", lambda: Evidence.from_table(table(logits=with_value(LOGITS, 2, np.nan))), "DV006", ["(row 2)"]),
    ("1-based", lambda: Evidence.from_table(table(label=[1, 2, 3, 1])), "DV021", ["label 3 has no column"]),
    ("text in a family", lambda: Evidence.from_table(table(trace_0=list("abcd"), trace_1=LABELS)), "DV002",
     ["'trace_0'"]),
    ("ragged lists", lambda: Evidence.from_table(pa.table(table(logits=[[1.0, 2.0], [1.0], [2.0], [1.0]]))), "DV002",
     ["logits", "2, 1"]),
    ("mixed types", lambda: Evidence.from_table(pd.DataFrame(table(logits=None, loss=LABELS, a=["x", 1, 2, 3]))),
     "DV002", []),
    ("long document", lambda: Evidence.from_table(table(note=["a", "b", LONG, "c"])), "DV007", ["note", "1,000,000"]),
    ("long name", lambda: Evidence.from_table(table() | {LONG: LABELS}), "DV007", ["1,000,00"]),
    ("columns twice, pandas", lambda: Evidence.from_table(pd.DataFrame([[1, 2]], columns=["a", "a"])), "DV008",
     ["'a'"]),
    ("columns twice, pyarrow", lambda: Evidence.from_table(pa.table([[1], [2]], names=["a", "a"])), "DV008", ["'a'"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [pytest.param(*row[1:], id=row[0]) for row in [*BAD_SPLITS, *BAD_TABLES]],
)
def test_bad_input(make: Callable[[], object], code: str, words: list[str]) -> None:
    error = fails(make)
    assert error.code == code, error.message
    assert [word for word in words if word not in error.message] == [], error.message


def test_messages_of_the_documentation() -> None:
    logits = np.tile(np.arange(10.0), (2, 1))
    error = fails(
        lambda: Evidence.from_splits({"logits": logits, "labels": [1, 10]}, {"logits": logits, "labels": [2, 3]})
    )
    assert str(error) == (
        "DV021 label 10 has no column: outputs have 10 columns (0..9), labels run 1..10. "
        "Subtract 1, or pass classes=[1, …, 10]"
    )
    logits[0, 0] = 7.31 - logits[0].sum()
    error = fails(lambda: Evidence.from_splits({"probs": logits}, {"probs": logits}))
    assert str(error) == (
        "DV012 probs rows do not sum to 1 (members row 0: 7.31; 100.0 % of 4 rows). "
        "These look like logits: pass logits=…"
    )


@given(st.integers(2, 60), st.sampled_from([np.float16, np.float32, np.float64]), st.booleans())
def test_rounded_probabilities_are_probabilities(c: int, dtype: Any, three_digits: bool) -> None:
    logits = np.random.default_rng(c).normal(size=(50, c)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probs = (np.round(probs, 3) if three_digits else probs).astype(dtype)
    evidence = Evidence.from_splits({"probs": probs[:20]}, {"probs": probs[20:]})
    np.testing.assert_array_equal(evidence.outputs, probs)


@given(st.integers(0, 2**32), st.integers(0, 69_999), st.integers(0, 2))
def test_a_bad_value_is_found_in_whatever_block_it_lies(seed: int, row: int, column: int) -> None:
    logits = np.zeros((70_000, 3), np.float32)
    logits[:, 0] = 2
    logits[row, column] = [np.nan, np.inf, -np.inf][seed % 3]
    error = fails(lambda: Evidence.from_splits({"logits": logits}, {"logits": [[0.0, 0.0, 2.0]]}))
    assert f"1 of 70,001 rows (members row {row:,})" in error.message


def test_huge_finite_values_are_finite() -> None:
    huge = np.full((4, 3), np.finfo(np.float32).max)
    assert splits(huge).outputs is not None


def test_shown_never_shows_control_characters_or_much() -> None:
    assert shown("\x1b[31mred\n") == r"'\x1b[31mred\n'"
    assert len(shown(LONG)) < 50


def test_logits_that_may_be_probabilities_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "divulge"):
        splits(np.full(4, 0.5, np.float32), [0, 1, 0, 1])
    assert [record.message for record in caplog.records if "pass probs=" in record.message] != []
