"""Controls of models: references that mimic the target, evaluation mode, stored outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from divulge import InputError
from divulge.codes import CODES
from divulge.controls.models import check_fresh, mimicry, same_in_any_batch

# -------------------------------------------------------------------------------------------------------- mimicry

IN, OUT = [0.945, 0.952, 0.947, 0.953, 0.95, 0.953], [0.80, 0.81, 0.79, 0.80, 0.805, 0.795]


@pytest.mark.parametrize(
    ("target", "status", "value"),
    [
        ((0.951, 0.799), "ok", None),
        ((0.965, 0.81), "ok", None),
        ((1.0, 0.80), "warning", 0.05),  # trained for longer
        ((0.80, 0.79), "warning", -0.15),  # or not as long
        ((0.95, 0.90), "warning", 0.1),  # on more data
        ((0.96, 0.95), "warning", 0.15),
    ],
)
def test_a_target_trained_otherwise_is_seen(target: tuple[float, float], status: str, value: float | None) -> None:
    outcome = mimicry(*target, IN, OUT)
    assert (outcome.code, outcome.status) == ("DV214", status)
    low, high = outcome.measured.low, outcome.measured.high
    assert low < outcome.measured.value < high
    if value is not None:
        assert outcome.measured.value == pytest.approx(value, abs=1e-9)
        assert low > 0.02 or high < -0.02
    assert f"{target[0]:.3f} on its members (references 0.950)" in outcome.text


def test_a_difference_too_small_to_matter_is_none() -> None:
    same = np.full(4, 0.9)
    assert mimicry(0.915, 0.9, same, same).status == "ok"
    assert mimicry(0.915, 0.9, same, same, margin=0.01).status == "warning"


def test_signal_means_have_margins_of_their_own() -> None:
    means = [4.1, 3.9, 4.0, 4.2]
    assert mimicry(5.5, 1.0, means, [1.0, 1.1, 0.9, 1.0], margin=0.5).status == "warning"
    assert mimicry(4.4, 1.0, means, [1.0, 1.1, 0.9, 1.0], margin=0.5).status == "ok"


@pytest.mark.parametrize("r", [2, 4, 16, 64])
def test_one_of_the_references_is_rarely_called_another(r: int) -> None:
    """With no margin at all, at most 2 % of targets drawn like the references are warned of."""
    rng = np.random.default_rng(r)
    runs = 4000
    draws = 0.9 + 0.01 * rng.standard_normal((runs, 2, r + 1))
    warned = sum(mimicry(*draw[:, 0], *draw[:, 1:], margin=0).status == "warning" for draw in draws)
    assert 0.012 < warned / runs < 0.027


def test_two_references_are_the_fewest() -> None:
    assert mimicry(0.9, 0.8, [0.9], [0.8]).reason == "needs 2 reference models, has 1"
    assert mimicry(0.9, 0.8, [0.9, 0.91], [0.8, 0.79]).status == "ok"


def test_numbers_that_cannot_be_compared_are_errors() -> None:
    with pytest.raises(InputError, match="DV004"):
        mimicry(0.9, 0.8, [0.9, 0.9], [0.8])
    with pytest.raises(InputError, match="DV003"):
        mimicry(0.9, float("nan"), [0.9, 0.9], [0.8, 0.8])


# ---------------------------------------------------------------------------------------------------- any batch

ROWS = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)


def linear(batch: Any) -> np.ndarray:
    return np.asarray(batch) @ WEIGHTS


def rounding(batch: Any) -> np.ndarray:
    """Other kernels for other batches: the last digits move."""
    return linear(batch) * np.float32(1 + 1e-6 * float(np.abs(batch).sum()))


def normalised(batch: Any) -> np.ndarray:
    """Batch normalisation in training mode."""
    batch = np.asarray(batch)
    return linear((batch - batch.mean(axis=0)) / batch.std(axis=0))


class Dropout:
    def __init__(self, share: float) -> None:
        self.rng, self.share = np.random.default_rng(0), share

    def __call__(self, batch: Any) -> np.ndarray:
        batch = np.asarray(batch)
        return linear(batch * (self.rng.random(batch.shape) > self.share))


@pytest.mark.parametrize(
    "predict", [linear, rounding, lambda batch: linear(batch)[:, 0], lambda batch: linear(batch) * 0]
)
@pytest.mark.parametrize("rows", [ROWS, ROWS[:5], list(ROWS)], ids=["array", "five", "list"])
def test_a_model_in_evaluation_mode_passes(predict: Any, rows: Any) -> None:
    outcome = same_in_any_batch(predict, rows)
    assert (outcome.code, outcome.status) == ("DV215", "ok")
    assert 0 <= outcome.measured.value < 1e-3


@pytest.mark.parametrize("predict", [normalised, Dropout(0.5), Dropout(0.1)], ids=["normalised", "0.5", "0.1"])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:16], list(ROWS)], ids=["array", "sixteen", "list"])
def test_a_model_in_training_mode_is_refused(predict: Any, rows: Any) -> None:
    with pytest.raises(InputError, match=r"DV215 .* of .* rows got other outputs.*evaluation mode") as caught:
        same_in_any_batch(predict, rows)
    assert caught.value.code in CODES


def test_rows_come_back_in_their_order() -> None:
    seen: list[int] = []

    def predict(batch: np.ndarray) -> np.ndarray:
        seen.extend(batch[:, 0].tolist())
        return batch

    numbered = np.arange(30.0)[:, None]
    assert same_in_any_batch(predict, numbered, batch=4).measured.value == 0
    assert sorted(seen) == sorted([*range(30), *range(30)]) and seen[:30] == list(range(30)) != seen[30:]


def test_missing_outputs_are_the_same_only_if_missing_twice() -> None:
    def always(batch: np.ndarray) -> np.ndarray:
        return np.where(batch > 0, np.nan, np.inf)

    calls = iter(range(100))

    def at_times(batch: np.ndarray) -> np.ndarray:
        return np.where(next(calls) < 8, np.nan, batch)

    assert same_in_any_batch(always, ROWS).status == "ok"
    with pytest.raises(InputError, match="DV215"):
        same_in_any_batch(at_times, ROWS)


def test_a_wider_tolerance_takes_coarse_numbers() -> None:
    def coarse(batch: np.ndarray) -> np.ndarray:
        return np.round(linear(batch) * 10 + batch.sum() % 1) / 10

    with pytest.raises(InputError, match="DV215"):
        same_in_any_batch(coarse, ROWS)
    assert same_in_any_batch(coarse, ROWS, tolerance=0.2).status == "ok"


def test_what_cannot_be_checked_says_so() -> None:
    assert same_in_any_batch(linear, ROWS[:3]).reason == "needs 4 records, has 3"
    with pytest.raises(InputError, match="DV004"):
        same_in_any_batch(lambda batch: linear(batch)[:-1], ROWS)
    with pytest.raises(InputError, match="DV004"):
        same_in_any_batch(lambda batch: 1.0, ROWS)


@pytest.mark.parametrize("layer", ["dropout", "normalisation"])
def test_a_torch_module(layer: str, require: Any) -> None:
    torch = require("torch")
    torch.manual_seed(0)
    inner = torch.nn.Dropout(0.2) if layer == "dropout" else torch.nn.BatchNorm1d(16)
    module = torch.nn.Sequential(torch.nn.Linear(5, 16), inner, torch.nn.ReLU(), torch.nn.Linear(16, 3))

    def predict(batch: Any) -> np.ndarray:
        with torch.no_grad():
            return module(torch.as_tensor(batch)).numpy()

    for rows in (ROWS, torch.as_tensor(ROWS)):
        module.train()
        with pytest.raises(InputError, match="DV215"):
            same_in_any_batch(predict, rows)
        module.eval()
        assert same_in_any_batch(predict, rows).measured.value < 1e-4


# -------------------------------------------------------------------------------------------------------- stores

KEY = {"target": "1f", "data": "2e", "signal": "log_odds", "code": "v1"}


def test_a_store_of_this_run_is_fresh() -> None:
    check_fresh(KEY, dict(reversed(KEY.items())))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (KEY | {"data": "00"}, ["data: stored '00', this run has '2e'"]),
        (KEY | {"data": "00", "code": "v0"}, ["data: stored '00'", "code: stored 'v0', this run has 'v1'"]),
        ({"target": "1f"}, ["data: stored nothing, this run has '2e'", "signal", "code"]),
        (KEY | {"seed": "3"}, ["seed: stored '3', this run has nothing"]),
    ],
)
def test_a_stale_store_is_refused_and_every_difference_named(found: dict[str, str], told: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        check_fresh(found, KEY)
    assert caught.value.code == "DV216"
    assert all(part in caught.value.message for part in told)
    assert "target" not in caught.value.message


def test_a_stored_name_cannot_flood_the_message() -> None:
    with pytest.raises(InputError) as caught:
        check_fresh(KEY | {"data": "x\n" * 10_000}, KEY)
    assert len(caught.value.message) < 400 and "\n" not in caught.value.message
