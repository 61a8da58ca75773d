"""The table itself: shapes are checked, take() takes every field, nothing dumps arrays."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divulge.errors import InputError
from divulge.evidence import Evidence, References

N = 6


def full() -> Evidence:
    """Evidence with something in every field; the row number can be read off each array."""
    row = np.arange(N)
    return Evidence(
        row % 2 == 0,
        labels=row % 3,
        outputs=(row[:, None] * 10 + np.arange(3)).astype(np.float32),
        kind="logits",
        signals={"x": row / 2},
        columns={"age": row + 100, "name": np.array(list("abcdef"))},
        features=np.stack([row, -row], axis=1).astype(np.float64),
        ids=row + 1000,
        groups=np.array([f"g{i}" for i in row]),
        references=References(
            signals={"log_odds": np.arange(2 * N * 4, dtype=np.float32).reshape(2, N, 4)},
            target={"log_odds": np.arange(N * 4).reshape(N, 4)},
            trained_on=np.arange(2 * N).reshape(2, N) % 3 == 0,
        ),
        traces=np.stack([row, row + 0.5], axis=1),
        classes=("cat", "dog", "eel"),
    )


def naive_take(evidence: Evidence, rows: list[int]) -> dict[str, object]:
    """Row by row, field by field: the twin of `Evidence.take`."""
    references = evidence.references
    assert references is not None and references.target is not None
    single = ("member", "labels", "outputs", "features", "ids", "groups", "traces")
    taken: dict[str, object] = {name: [getattr(evidence, name)[i].tolist() for i in rows] for name in single}
    taken["signals"] = {name: [array[i] for i in rows] for name, array in evidence.signals.items()}
    taken["columns"] = {name: [array[i] for i in rows] for name, array in evidence.columns.items()}
    taken["references"] = [
        [[references.signals["log_odds"][r, i].tolist() for i in rows] for r in range(2)],
        [references.target["log_odds"][i].tolist() for i in rows],
        [[bool(references.trained_on[r, i]) for i in rows] for r in range(2)],
    ]
    return taken


def as_lists(evidence: Evidence) -> dict[str, object]:
    references = evidence.references
    assert references is not None and references.target is not None
    single = ("member", "labels", "outputs", "features", "ids", "groups", "traces")
    lists: dict[str, object] = {name: getattr(evidence, name).tolist() for name in single}
    lists["signals"] = {name: array.tolist() for name, array in evidence.signals.items()}
    lists["columns"] = {name: array.tolist() for name, array in evidence.columns.items()}
    lists["references"] = [
        references.signals["log_odds"].tolist(),
        references.target["log_odds"].tolist(),
        references.trained_on.tolist(),
    ]
    return lists


def test_full_evidence_leaves_no_field_out() -> None:
    assert [f.name for f in fields(Evidence) if repr(getattr(full(), f.name)) in ("None", "{}")] == []


@given(st.lists(st.integers(0, N - 1), max_size=12))
def test_take_by_number_equals_its_naive_twin(rows: list[int]) -> None:
    evidence = full()
    taken = evidence.take(np.array(rows, dtype=int))
    assert as_lists(taken) == naive_take(evidence, rows)
    assert (taken.kind, taken.classes) == (evidence.kind, evidence.classes)


@given(st.lists(st.booleans(), min_size=N, max_size=N))
def test_take_by_mask_and_by_number_agree(mask: list[bool]) -> None:
    assert as_lists(full().take(mask)) == as_lists(full().take(np.flatnonzero(mask)))


def test_take_by_slice_copies_nothing() -> None:
    evidence = full()
    part = evidence.take(slice(2, 5))
    assert as_lists(part) == naive_take(evidence, [2, 3, 4])
    assert part.outputs is not None and part.outputs.base is not None
    assert np.shares_memory(part.outputs, evidence.outputs)


@pytest.mark.parametrize(
    ("rows", "code"),
    [([True, False], "DV004"), ([0.5], "DV003"), ([[0, 1]], "DV003"), (["a"], "DV003"), (3, "DV003")],
)
def test_take_refuses_what_is_not_rows(rows: object, code: str) -> None:
    with pytest.raises(InputError) as caught:
        full().take(rows)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_take_of_a_row_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        full().take([N])


MEMBER = np.array([True, False])
TWO = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "task"),
    [
        ({"outputs": TWO, "kind": "logits", "labels": np.array([0, 1])}, "multiclass"),
        ({"outputs": TWO[:, 0], "kind": "logits", "labels": np.array([0, 1])}, "binary"),
        ({"outputs": TWO, "kind": "probs", "labels": TWO.astype(bool)}, "multilabel"),
        ({"outputs": TWO[:, 0], "labels": np.array([0.5, 1])}, "regression"),
        ({"outputs": TWO[:, :2], "labels": np.array([0.5, 1])}, "regression"),
        ({"outputs": TWO, "kind": "logits"}, "unlabelled"),
        ({"signals": {"loss": np.zeros(2)}, "labels": np.array([0, 1])}, "signals"),
    ],
)
def test_task(arguments: dict[str, object], task: str) -> None:
    assert Evidence(MEMBER, **arguments).task == task  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ({"member": np.array([1, 0])}, "DV003", "member is int"),
        ({"member": [True, False]}, "DV003", "member is a list"),
        ({"outputs": TWO}, None, ""),
        (
            {"outputs": TWO[:1], "labels": np.array([0, 1, 2])},
            "DV004",
            "labels has 3 rows, outputs has 1 rows",
        ),
        ({"signals": {"x": np.zeros(3)}}, "DV004", "signals['x'] has 3 rows"),
        ({"columns": {"x": [1, 2]}}, "DV003", "columns['x'] is a list"),
        ({"features": np.zeros(2)}, "DV003", "features is float64 of shape (2,)"),
        ({"outputs": np.zeros((2, 3, 4))}, "DV003", "(2, 3, 4)"),
        ({"outputs": TWO, "kind": "logit"}, "DV003", "'logit'"),
        ({"kind": "logits"}, "DV003", "no outputs"),
        ({"outputs": np.zeros((2, 1)), "labels": np.array([0.5, 1.5])}, "DV003", "got (2, 1)"),
        ({"outputs": TWO, "kind": "logits", "classes": ("a", "b")}, "DV023", "2 names"),
        (
            {"references": References(signals={}, trained_on=np.zeros((4, 3), bool))},
            "DV004",
            "references has 3 rows",
        ),
    ],
)
def test_constructor_checks_shapes(arguments: dict[str, object], code: str | None, words: str) -> None:
    arguments = {"member": MEMBER, **arguments}
    if code is None:
        Evidence(**arguments)  # type: ignore[arg-type]
        return
    with pytest.raises(InputError) as caught:
        Evidence(**arguments)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("signals", "target", "code"),
    [
        ({"x": np.zeros((2, 3))}, None, "DV003"),
        ({"x": np.zeros((2, 4, 1))}, None, "DV004"),
        ({"x": np.zeros((3, 3, 1))}, None, "DV004"),
        ({"x": np.zeros((2, 3, 1))}, {"x": np.zeros((2, 1))}, "DV004"),
        ({"x": np.zeros((2, 3, 1))}, {"x": np.zeros(3)}, "DV003"),
    ],
)
def test_references_check_shapes(signals: dict[str, object], target: dict[str, object] | None, code: str) -> None:
    with pytest.raises(InputError) as caught:
        References(signals=signals, target=target, trained_on=np.zeros((2, 3), bool))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_the_callers_mapping_may_change() -> None:
    signals = {"x": np.zeros(2)}
    evidence = Evidence(MEMBER, signals=signals)
    signals["y"] = np.zeros(7)
    assert list(evidence.signals) == ["x"]


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        full().labels = None  # type: ignore[misc]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_travels_to_other_processes(copied: object) -> None:
    assert as_lists(copied(full())) == as_lists(full())  # type: ignore[operator]


def test_repr_is_short_and_holds_no_values() -> None:
    assert repr(full()) == "Evidence(6 rows, 3 members, multiclass)"
    assert repr(full().references) == "References(2 models, 6 rows, signals=['log_odds'])"
