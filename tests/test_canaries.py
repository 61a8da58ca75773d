"""Records made to be remembered: what they are, what training gets, and what they show."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

import divulge
from divulge.canaries import Canaries, plant_canaries
from divulge.empirical_epsilon import epsilon_one_run
from divulge.errors import InputError
from divulge.signals import signal

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))


def table(n=300, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(n, 3)), np.arange(n) + 0.5])  # the last column names the row
    return x, rng.integers(0, classes, n)


def row_of(x):
    """The rows of the data that records of `table` come from."""
    return (x[:, 3] - 0.5).astype(int)


# ------------------------------------------------------------------------------------------------ what they are


@pytest.mark.parametrize("seed", range(3))
def test_mislabelled_canaries_are_real_records_under_wrong_labels(seed):
    x, y = table()
    canaries = plant_canaries(x, y, count=50, kinds=["mislabelled", "duplicated"], copies=5, seed=seed)
    origin = row_of(canaries.x)
    np.testing.assert_array_equal(canaries.x, x[origin])
    assert (canaries.y != y[origin]).all() and set(canaries.y) == {0, 1, 2}
    assert len(set(origin)) == 100  # no record is two canaries
    assert canaries.kind.tolist() == ["mislabelled"] * 50 + ["duplicated"] * 50
    assert canaries.copies.tolist() == [1] * 50 + [5] * 50
    np.testing.assert_array_equal(np.sort(np.concatenate([origin, canaries.rows_left])), np.arange(300))


def test_a_wrong_label_is_every_other_one_alike():
    x, _ = table(1000)
    y = np.repeat([0, 1, 2], [700, 200, 100])  # however rare it is
    canaries = plant_canaries(x, y, count=500, kinds=["mislabelled"])
    of_the_first = np.bincount(canaries.y[y[row_of(canaries.x)] == 0], minlength=3)
    assert of_the_first[0] == 0 and abs(of_the_first[1] - of_the_first[2]) < 4 * np.sqrt(of_the_first.sum())


def test_out_of_distribution_canaries_mix_columns_of_other_records():
    x, y = table()
    canaries = plant_canaries(x, y, count=100, kinds=["out_of_distribution"])
    for column in range(4):
        assert np.isin(canaries.x[:, column], x[:, column]).all()
    from_rows = np.stack([np.argsort(x[:, c])[np.searchsorted(np.sort(x[:, c]), canaries.x[:, c])] for c in range(4)])
    assert (np.ptp(from_rows, axis=0) > 0).all()  # of one record none
    assert len(canaries.rows_left) == 300 and set(canaries.y) == {0, 1, 2}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_out_of_distribution_images_are_noise_over_the_range(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(20, 200, (100, 4, 4, 3)).astype(dtype)
    canaries = plant_canaries(x, rng.integers(0, 2, 100), count=50, kinds=["out_of_distribution"])
    assert canaries.x.shape == (50, 4, 4, 3) and canaries.x.dtype == dtype
    assert canaries.x.min() >= x.min() and canaries.x.max() <= x.max()
    assert abs(canaries.x.astype(float).mean() - (x.min() + float(x.max())) / 2) < 4 * 52 / np.sqrt(canaries.x.size)


def test_coins_are_fair_independent_and_kept():
    x, y = table(2000)
    included = np.array([plant_canaries(x, y, count=200, seed=seed).included for seed in range(20)])
    assert abs(included.mean() - 0.5) < 4 * 0.5 / np.sqrt(included.size)
    assert abs(np.corrcoef(included[:, :-1].ravel(), included[:, 1:].ravel())[0, 1]) < 4 / np.sqrt(included.size)
    again = plant_canaries(x, y, count=200, seed=3)
    np.testing.assert_array_equal(again.included, included[3])


# --------------------------------------------------------------------------------------------- what training gets


def test_training_gets_what_is_left_and_what_the_coin_put_in():
    x, y = table()
    canaries = plant_canaries(x, y, count=40, kinds=["mislabelled", "duplicated"], copies=5)
    inputs, labels = canaries.training(x, y)
    origin, rows = row_of(canaries.x), row_of(inputs)
    times = np.bincount(rows, minlength=300)
    assert (times[canaries.rows_left] == 1).all()
    np.testing.assert_array_equal(times[origin], np.where(canaries.included, canaries.copies, 0))
    own = np.array(y)
    own[origin] = canaries.y
    np.testing.assert_array_equal(labels, own[rows])
    assert (np.diff(rows) < 0).sum() > len(rows) / 4  # shuffled
    np.testing.assert_array_equal(canaries.training(x, y)[0], inputs)


@pytest.mark.parametrize("make", ["frame", "texts", "mapping", "tuple", "text labels", "one-hot"])
def test_data_of_other_makes(make):
    x, y = table()
    given, labels, rows_of = x, y, row_of
    kinds = ["mislabelled", "duplicated"]
    if make == "frame":
        given = pd.DataFrame(x, columns=list("abcd"), index=np.arange(300) * 7)
        given["word"] = np.where(y == 0, "yes", "no")
        kinds = ["mislabelled", "out_of_distribution"]

        def rows_of(frame):
            return row_of(frame[list("abcd")].to_numpy())

    elif make == "texts":
        given = [f"text {row}" for row in range(300)]

        def rows_of(texts):
            return np.array([int(text.split()[1]) for text in texts])

    elif make == "mapping":
        given, rows_of = {"table": x, "other": -x}, lambda inputs: row_of(inputs["table"])
    elif make == "tuple":
        given, rows_of = (x, list(range(300))), lambda inputs: np.array(inputs[1])
    elif make == "text labels":
        labels = np.array(["red", "green", "violet"])[y]
    else:
        labels = np.eye(3, dtype=np.float32)[y]
    canaries = plant_canaries(given, labels, count=30, kinds=kinds)
    inputs, told = canaries.training(given, labels)
    if make == "frame":
        assert (inputs.dtypes == given.dtypes).all() and set(canaries.x["word"]) <= {"yes", "no"}
    kept = np.isin(rows_of(inputs), canaries.rows_left)
    if make != "frame":  # there a column of the outlandish ones names some row
        np.testing.assert_array_equal(np.sort(rows_of(inputs)[kept]), canaries.rows_left)
        np.testing.assert_array_equal(told[kept], labels[rows_of(inputs)[kept]])
    assert told.dtype == labels.dtype and told.shape[1:] == labels.shape[1:]
    real = canaries.kind == "mislabelled"
    own, wrong = (part.argmax(axis=1) if part.ndim == 2 else part for part in (labels, canaries.y))
    assert (wrong[real] != own[rows_of(canaries.x)[real]]).all()


# ------------------------------------------------------------------------------------------------ what they show


@pytest.mark.parametrize("by", ["model", "outputs"])
def test_evidence_keeps_the_order_and_the_kinds(by):
    x, y = table()
    canaries = plant_canaries(x, y, count=50)
    model = LogisticRegression(max_iter=1000).fit(*canaries.training(x, y))
    if by == "model":
        evidence = canaries.evidence(model)
    else:
        evidence = canaries.evidence(outputs=model.predict_proba(canaries.x))
        assert evidence.kind == "probs"
    np.testing.assert_array_equal(evidence.member, canaries.included)
    np.testing.assert_array_equal(evidence.columns["canary"], canaries.kind)
    np.testing.assert_array_equal(evidence.ids, np.arange(150))
    np.testing.assert_array_equal(evidence.labels, canaries.y)
    expected = np.log(model.predict_proba(canaries.x)[np.arange(150), canaries.y])
    np.testing.assert_allclose(signal(evidence, "loss"), expected, atol=1e-6)
    report = divulge.audit(evidence, slices=["canary"], min_n=10, controls=())
    assert {"canary=mislabelled", "canary=duplicated"} <= {row["slice"] for row in report.rows("slices")}


def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order] / 16, y[order]
    return (x[:1000], y[:1000]), (x[1000:], y[1000:])


def aucs(model, seed=0):
    """AUC of the loss on ordinary records, and on the canaries of each kind."""
    train, held = digits()
    canaries = plant_canaries(*train, count=150, seed=seed)
    model.fit(*canaries.training(*train))
    evidence = canaries.evidence(model)
    ordinary = divulge.collect(model, tuple(part[canaries.rows_left] for part in train), held)
    found = {"ordinary": roc_auc_score(ordinary.member, signal(ordinary, "loss"))}
    scores = signal(evidence, "loss")
    for kind in ("mislabelled", "duplicated", "out_of_distribution"):
        rows = canaries.kind == kind
        found[kind] = roc_auc_score(evidence.member[rows], scores[rows])
    return found, canaries.epsilon(scores)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_an_overfit_model_remembers_canaries_far_better_than_ordinary_records():
    """0.63 of ordinary records, 0.98 to 1 of canaries; with strong weight decay 0.52, and 0.6 to 0.83."""
    overfit, bound = aucs(MLPClassifier((256,), alpha=0, max_iter=300, random_state=0))
    decayed, lower = aucs(MLPClassifier((64,), alpha=5, max_iter=100, random_state=0))
    assert overfit["ordinary"] < 0.7 and decayed["ordinary"] < 0.6
    for kind in ("mislabelled", "duplicated", "out_of_distribution"):
        assert overfit[kind] > 0.95
        assert 0.5 < decayed[kind] < overfit[kind] - 0.1
    assert bound.epsilon > 2 and lower.epsilon < 1
    assert bound.canaries == 300 and bound.guesses == 150 and bound.epsilon <= bound.at_most


@pytest.mark.slow
def test_a_model_that_saw_no_canary_tells_nothing():
    (x, y), _ = digits()
    model = LogisticRegression(max_iter=100).fit(x[:500], y[:500])
    found, bounds = [], []
    for seed in range(10 * SEEDS):
        canaries = plant_canaries(x[500:], y[500:], count=80, seed=seed)
        scores = signal(canaries.evidence(model), "loss")
        found.append(roc_auc_score(canaries.included, scores))
        bounds.append(canaries.epsilon(scores).epsilon)
    assert abs(np.mean(found) - 0.5) < 4 * np.std(found) / np.sqrt(len(found))
    positive = np.mean(np.array(bounds) > 0)
    assert positive <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(bounds))


# ----------------------------------------------------------------------------------------------- the lower bound


def coins(n=400, doubled=0, seed=0):
    rng = np.random.default_rng(seed)
    return Canaries(
        x=np.zeros((n, 2)),
        y=np.zeros(n, int),
        kind=np.array(["mislabelled"] * n),
        included=rng.random(n) < 0.5,
        copies=np.where(np.arange(n) < doubled, 8, 1),
        rows_left=np.arange(0),
        rows=n,
        made_from="",
        seed=seed,
    )


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.0, 1.0, 3.0])
def test_the_bound_holds_for_randomised_response_and_is_not_far_below(epsilon):
    bounds = []
    for seed in range(20 * SEEDS):
        canaries, rng = coins(seed=seed), np.random.default_rng([seed, 1])
        truth = 1 / (1 + np.exp(-epsilon))
        says = np.where(rng.random(400) < truth, canaries.included, ~canaries.included)
        bounds.append(canaries.epsilon(says + rng.random(400) / 2).epsilon)
    missed = np.mean(np.array(bounds) > epsilon)
    assert missed <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / len(bounds))
    assert np.median(bounds) >= epsilon - (0.0 if epsilon == 0 else 0.25 * epsilon + 0.2)


def test_guesses_are_the_highest_and_the_lowest_by_hand():
    canaries = coins(50, doubled=10)
    scores = np.random.default_rng(1).normal(size=50) + canaries.included
    found = canaries.epsilon(scores, guesses=11)
    once = [row for row in range(50) if canaries.copies[row] == 1]
    ranked = sorted(once, key=lambda row: scores[row])
    right = sum(bool(canaries.included[row]) for row in ranked[-6:]) + sum(not canaries.included[r] for r in ranked[:5])
    assert (found.right, found.guesses, found.canaries) == (right, 11, 40)
    assert found.epsilon == epsilon_one_run(40, 11, right, alpha=0.05)
    assert found.at_most == epsilon_one_run(40, 11, 11, alpha=0.05)


# ------------------------------------------------------------------------------------------------------- refused


def test_wrong_calls_say_what_is_wrong():
    x, y = table()
    canaries = plant_canaries(x, y, count=20)
    none = plant_canaries(x, y, count=1, kinds=["mislabelled"])
    for code, says, call in (
        ("DV412", "no kind of canary 'mislabeled'", lambda: plant_canaries(x, y, count=5, kinds=["mislabeled"])),
        ("DV412", "count of 1 or more", lambda: plant_canaries(x, y, count=0)),
        ("DV412", "copies of 2", lambda: plant_canaries(x, y, count=5, copies=1)),
        ("DV412", "each kind once", lambda: plant_canaries(x, y, count=5, kinds=["duplicated"] * 2)),
        ("DV412", "Plant fewer", lambda: plant_canaries(x, y, count=100)),
        ("DV412", "all labels are the same", lambda: plant_canaries(x, 0 * y, count=5)),
        ("DV412", "one 1 a row", lambda: plant_canaries(x, np.ones((300, 3)), count=5)),
        ("DV412", r"of an array of shape \(300,\)", lambda: plant_canaries(x[:, 0], y, count=5)),
        ("DV412", "of a list", lambda: plant_canaries(["a"] * 300, y, count=5)),
        ("DV004", "300 records and y 299", lambda: plant_canaries(x, y[1:], count=5)),
        ("DV004", "made from 300 records, these are 299", lambda: canaries.training(x[1:], y[1:])),
        ("DV412", "in another order", lambda: canaries.training(x[::-1], y[::-1])),
        ("DV412", "in another order", lambda: canaries.training(x, y[::-1])),
        ("DV004", "59 rows, there are 60", lambda: canaries.evidence(outputs=np.zeros((59, 3)))),
        ("DV412", "expected the model, or outputs=", lambda: canaries.evidence()),
        ("DV412", "got both", lambda: canaries.evidence(print, outputs=np.zeros((60, 3)))),
        ("DV412", "coins came up the same", lambda: none.evidence(outputs=np.zeros((1, 3)))),
        ("DV003", r"expected \(60,\) finite", lambda: canaries.epsilon(np.full(60, np.nan))),
        ("DV412", "41 guesses of 40", lambda: canaries.epsilon(np.zeros(60), guesses=41)),
        ("DV412", "0 guesses of 0", lambda: coins(10, doubled=10).epsilon(np.zeros(10))),
    ):
        with pytest.raises(InputError, match=says) as caught:
            call()
        assert caught.value.code == code, says
