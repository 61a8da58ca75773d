"""The quantile attack: one fit a fold, of non-members alone, for both sides."""

import os

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import roc_auc_score

from divulge import Evidence, InputError, Unavailable, metrics, signals
from divulge.attacks import Threshold, named
from divulge.attacks.expectation import POOLED_ROWS, pinball
from divulge.attacks.quantile import FEWEST, FOLDS, MODELS, Quantile
from divulge.folds import folds, halves
from divulge.roc import exact

FITTED = ("linear", "boosting")
SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))


def toy(n=600, leak=0.0, seed=0, classes=3, d=4, hard=2.0):
    """A classifier's logits; a record's first feature and its class say how hard it is."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(n) < n // 2
    labels, x = rng.integers(0, classes, n), rng.normal(size=(n, d))
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1 + leak * member + hard * x[:, 0] + labels
    return Evidence(member, outputs=logits, labels=labels, kind="logits", features=x)


def scores_of(attack, evidence, seed=5):
    return np.asarray(attack(evidence, np.random.default_rng(seed)))


def auc_of(attack, evidence):
    return roc_auc_score(evidence.member, scores_of(attack, evidence))


def fold_of(evidence, seed=5):
    return folds(evidence, FOLDS, int(np.random.default_rng(seed).integers(2**63)))


def mine(values, member=None, **fields):
    """Evidence of a signal called "mine"; without a side, every other record is a member."""
    member = np.arange(len(values)) % 2 == 0 if member is None else member
    return Evidence(member, signals={"mine": np.asarray(values)}, **fields)


# ----------------------------------------------------------------------------------------------- what it is made of


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_pinball_equals_the_linear_programme_of_scikit_learn(level):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    t = x @ rng.normal(size=5) + rng.standard_t(3, 400) * (1 + (x[:, 0] > 0))
    t /= t.std()
    twin = QuantileRegressor(quantile=level, alpha=0).fit(x, t)

    def loss(b):
        rest = t - b[0] - x @ b[1:]
        return np.maximum(level * rest, (level - 1) * rest).mean()

    least = loss(np.append(twin.intercept_, twin.coef_))
    exactly = pinball(x, t, level, 0.0, width=0.002)
    np.testing.assert_allclose(exactly, [twin.intercept_, *twin.coef_], rtol=0, atol=0.02)
    assert loss(exactly) < 1.0005 * least
    assert loss(pinball(x, t, level, 0.0)) < 1.005 * least


def test_pinball_with_hessians_of_some_rows_finds_the_same():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 3))
    t = x @ [0.5, 0.0, -0.5] + 0.5 * rng.normal(size=40_000)
    np.testing.assert_allclose(pinball(x, t, 0.5, 0.0), [0, 0.5, 0, -0.5], rtol=0, atol=0.02)
    weak, strong = (np.abs(pinball(x, t, 0.5, ridge)[1:]).sum() for ridge in (0.0, 10.0))
    assert strong < weak / 5


def naive_class(evidence, phi, seed):
    """Record by record, as the docstring has it: the signal's own scale, then the class's mean and deviation."""
    fold, scores = fold_of(evidence, seed), []
    for i in range(len(evidence)):
        fit = ~evidence.member & (fold != fold[i])
        centre = np.median(phi[fit])
        spread = np.median(abs(phi[fit] - centre))
        t = 1 / (1 + np.exp(-phi)) + 0.15 * np.arcsinh((phi - centre) / spread)
        own, pooled = t[fit & (evidence.labels == evidence.labels[i])], t[fit]
        weight = len(own) / (len(own) + POOLED_ROWS)
        mean = weight * (own.mean() if len(own) else 0) + (1 - weight) * pooled.mean()
        variance = weight * (own.var() if len(own) else 0) + (1 - weight) * pooled.var()
        scores.append((t[i] - mean) / max(variance**0.5, 0.1 * pooled.std()))
    return np.array(scores)


@pytest.mark.parametrize(("n", "classes"), [(100, 1), (300, 3), (200, 150)])
def test_class_equals_its_naive_twin(n, classes):
    evidence = toy(n=n, classes=max(classes, 2))
    if classes == 1:
        evidence = Evidence(evidence.member, outputs=evidence.outputs, labels=np.zeros(n, int), kind="logits")
    expected = naive_class(evidence, signals.signal(evidence, "log_odds").astype(float), 5)
    np.testing.assert_allclose(scores_of(Quantile("class"), evidence), expected, rtol=1e-9, atol=1e-9)


def test_linear_takes_away_the_line_through_the_non_members_of_the_other_folds(monkeypatch):
    """Twin: scikit-learn's quantile regression, a fold at a time, without a ridge."""
    monkeypatch.setattr("divulge.attacks.expectation._RIDGES", (1e-6,))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    values = x[:, 0] + rng.normal(size=400)
    evidence = mine(values, features=x)
    fold, expected = fold_of(evidence), np.empty(400)
    for k in range(FOLDS):
        fit = ~evidence.member & (fold != k)
        centre = np.median(values[fit])
        t = np.arcsinh((values - centre) / np.median(abs(values[fit] - centre)))
        lines = [QuantileRegressor(quantile=q, alpha=0).fit(x[fit], t[fit]) for q in (0.25, 0.5, 0.75)]
        line = np.mean([line.predict(x) for line in lines], axis=0)
        expected[fold == k] = (t - 0.6 * line - 0.4 * np.median(t[fit]))[fold == k]
    np.testing.assert_allclose(scores_of(Quantile(), evidence), expected, rtol=0, atol=0.03)


# ------------------------------------------------------------------------------------------------- what it must do


@pytest.mark.parametrize("model", MODELS)
def test_direction_members_score_higher_on_a_leaky_model(model):
    assert auc_of(Quantile(model), toy(leak=1.5)) > 0.6


@pytest.mark.parametrize("model", FITTED)
def test_it_finds_a_leak_that_difficulty_hides(model):
    evidence = toy(n=2000, leak=1.0, hard=4.0)
    assert auc_of(Quantile(model), evidence) > auc_of(Threshold("log_odds"), evidence) + 0.025


def test_named_columns_and_several_labels_say_how_hard_a_record_is():
    rng = np.random.default_rng(0)
    member, hardness = np.arange(2000) % 2 == 0, rng.normal(size=2000)
    values = 3 * hardness + member + 0.5 * rng.normal(size=2000)
    evidence = mine(values, member, columns={"hardness": hardness, "noise": rng.normal(size=2000)})
    knows, not_much = (auc_of(Quantile("linear", columns=(name,)), evidence) for name in ("hardness", "noise"))
    assert knows > not_much + 0.1
    labels = rng.random((2000, 3)) < 0.5
    values = 3 * labels[:, 0] + member + 0.5 * rng.normal(size=2000)
    several = mine(values, member, labels=labels)
    assert auc_of(Quantile(), several) > roc_auc_score(member, values) + 0.05


@pytest.mark.parametrize("model", MODELS)
def test_equal_records_of_a_fold_score_alike_whichever_side_they_are_of(model):
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 3, (600, 1)).astype(float), rng.integers(0, 2, 600)
    values = rng.integers(0, 4, 600) + x[:, 0]
    evidence = mine(values, features=x, labels=labels)
    scores, fold, mixed = scores_of(Quantile(model), evidence), fold_of(evidence), 0
    for key in set(zip(fold, x[:, 0], labels, values, strict=True)):
        same = (fold == key[0]) & (x[:, 0] == key[1]) & (labels == key[2]) & (values == key[3])
        assert np.ptp(scores[same]) < 1e-12
        mixed += 0 < evidence.member[same].mean() < 1
    assert mixed > 20


@pytest.mark.parametrize("model", MODELS)
def test_what_members_are_changes_no_score_of_a_non_member(model):
    """It is not fitted on membership: members' outputs and features are not looked at."""
    evidence = toy(n=400)
    shift = np.where(evidence.member, 3.0, 0.0)[:, None]
    ids, member = np.arange(400), evidence.member
    one, two = (
        Evidence(member, outputs=evidence.outputs + by, labels=evidence.labels, kind="logits", features=x, ids=ids)
        for by, x in ((0, evidence.features), (shift * evidence.outputs, evidence.features + shift))
    )
    before, after = scores_of(Quantile(model), one), scores_of(Quantile(model), two)
    np.testing.assert_allclose(after[~member], before[~member], rtol=1e-9, atol=1e-9)
    assert not np.allclose(after[member], before[member])


@pytest.mark.parametrize("model", MODELS)
def test_row_permutation_permutes_the_scores(model):
    evidence = toy()
    order = np.random.default_rng(3).permutation(len(evidence))
    assert np.array_equal(scores_of(Quantile(model), evidence.take(order)), scores_of(Quantile(model), evidence)[order])


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_null_random_membership_raises_few_alarms_and_bends_no_tail(model):
    seeds, error, alarms, rates = 5 * SEEDS, 0.05, 0, []
    for seed in range(seeds):
        evidence = toy(n=400, seed=seed, d=10)
        scores = scores_of(Quantile(model), evidence, seed)
        roc = exact(scores, evidence.member, halves(evidence, seed))
        alarms += metrics.auc(roc, error).low > 0.5
        others = np.sort(scores[~evidence.member])[::-1]
        # A member is as likely as any of 200 others to be one of the ten highest of 201.
        rates.append((scores[evidence.member] > others[9]).mean() - 10 / 201)
    assert binomtest(alarms, seeds, error / 2, alternative="greater").pvalue > 0.01, alarms
    # A non-member that lies high raises what is expected of the other folds, never of its own: pooled, members lean
    # below chance (.047 for .050 by classes of 67 non-members), and never above.
    noise = np.std(rates) / np.sqrt(seeds)
    assert -0.1 * 10 / 201 - 4 * noise < np.mean(rates) < 3 * noise, np.mean(rates)


# -------------------------------------------------------------------------------------------- what it may be given


@pytest.mark.parametrize("model", MODELS)
def test_a_record_without_a_signal_has_no_score_and_changes_no_other(model):
    evidence = toy(n=300)
    values = signals.signal(evidence, "log_odds").astype(float)
    values[[3, 200]] = np.nan
    given = mine(values, evidence.member, labels=evidence.labels, features=evidence.features)
    assert np.flatnonzero(np.isnan(scores_of(Quantile(model, "mine"), given))).tolist() == [3, 200]


HARMLESS = {
    "many classes": {"labels": np.arange(200) % 90},
    "one class": {"labels": np.zeros(200, int)},
    "constant features": {"features": np.ones((200, 3)), "labels": np.arange(200) % 2},
    "more features than records": {"features": np.random.default_rng(1).normal(size=(200, 500))},
    "missing features": {"features": np.where(np.arange(600).reshape(200, 3) % 7, 1.0, np.nan)},
    "huge features": {"features": np.where(np.arange(600).reshape(200, 3) % 7, 1.0, np.inf)},
}


@pytest.mark.parametrize("signal", ["noise", "constant", "extreme"])
@pytest.mark.parametrize("fields", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("model", MODELS)
def test_odd_data_are_scored(model, fields, signal):
    noise = np.random.default_rng(0).normal(size=200)
    values = {"noise": noise, "constant": np.ones(200), "extreme": np.where(noise > 1, np.inf, noise * 1e-300)}[signal]
    if model == "class" and "labels" not in fields:
        pytest.skip("knows classes alone")
    columns = ("class",) if model != "class" and "features" not in fields else ()
    scores = scores_of(Quantile(model, columns=columns), mine(values, **fields))
    assert np.isfinite(scores).all()
    if signal == "constant" and model != "boosting":
        assert np.ptp(scores) < 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_features_and_signals_may_be_of_any_number_type(dtype):
    rng = np.random.default_rng(0)
    x = (10 * rng.normal(size=(200, 3))).astype(dtype)
    assert np.isfinite(scores_of(Quantile(), mine(x[:, 0], features=x))).all()


Z = np.random.default_rng(0).normal(size=(300, 3))
SIDE = np.arange(300) % 2 == 0
TASKS = {
    "binary": ({"outputs": Z[:, 0], "labels": SIDE.astype(int)[::-1].copy(), "kind": "logits"}, "log_odds"),
    "multi-label": ({"outputs": Z, "labels": Z > 0.3, "kind": "logits"}, "log_odds"),
    "unlabelled": ({"outputs": Z, "kind": "logits"}, "confidence"),
    "regression": ({"outputs": Z[:, 0], "labels": Z[:, 1].copy()}, "loss"),
    "loss alone": ({"signals": {"loss": -np.exp(Z[:, 0])}}, "loss"),
    "a signal alone": ({"signals": {"mine": Z[:, 0]}}, "mine"),
}


@pytest.mark.parametrize(("fields", "used"), TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("model", FITTED)
def test_every_task_is_scored_by_the_signal_that_it_has(model, fields, used):
    evidence = Evidence(SIDE, features=Z, **fields)
    scores = scores_of(Quantile(model), evidence)
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, scores_of(Quantile(model, used), evidence))


def test_rounded_probabilities_are_no_outliers():
    rng = np.random.default_rng(0)
    labels, p = rng.integers(0, 2, 400), rng.integers(0, 11, 400) / 10
    outputs = np.column_stack([1 - p, p])
    evidence = Evidence(np.arange(400) < 200, outputs=outputs, labels=labels, kind="probs")
    assert np.abs(scores_of(Quantile("class"), evidence)).max() < 4


@pytest.mark.parametrize(
    ("attack", "fields", "message"),
    [
        (Quantile(), {"signals": {"loss": np.zeros(100)}}, r"needs the model's inputs \(features\), or columns"),
        (
            Quantile("boosting"),
            {"signals": {"loss": np.zeros(100)}},
            r"needs the model's inputs \(features\), or columns",
        ),
        (
            Quantile(),
            {"signals": {"loss": np.zeros(100)}, "labels": np.zeros(100, int)},
            r"inputs \(features\), or columns",
        ),
        (Quantile("class"), {"signals": {"loss": np.zeros(100)}}, "needs one class label a record"),
        (Quantile("class"), {"signals": {"loss": np.zeros(100)}, "labels": np.zeros(100)}, "one class label"),
        (Quantile(), {"labels": np.zeros(100, int)}, "needs outputs"),
        (Quantile("linear", "margin"), {"signals": {"loss": np.zeros(100)}, "features": np.zeros((100, 1))}, "margin"),
        (Quantile("linear", columns=("age",)), {"signals": {"loss": np.zeros(100)}}, "there is no column 'age'"),
    ],
)
def test_what_cannot_be_scored_says_why(attack, fields, message):
    with pytest.raises(Unavailable, match=message):
        attack(Evidence(np.arange(100) < 50, **fields), np.random.default_rng(0))


@pytest.mark.parametrize("model", MODELS)
def test_too_few_non_members_are_said_in_numbers(model):
    few = mine(np.arange(2.0 * FEWEST), labels=np.zeros(2 * FEWEST, int), features=np.zeros((2 * FEWEST, 1)))
    with pytest.raises(Unavailable, match=f"needs {FEWEST} non-members .* in every fit, has 16"):
        Quantile(model)(few, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("forest",), "there is no model 'forest'; known: linear, boosting, class"),
        ((3,), "there is no model 3"),
        (("linear", None), "expected the name of a signal"),
        (("linear", "loss", "age"), "expected names of columns, as in columns="),
        (("linear", "loss", (3,)), "expected names of columns"),
        (("class", "loss", ("age",)), "the model 'class' knows no columns"),
    ],
)
def test_arguments_that_are_none_are_refused(arguments, message):
    with pytest.raises(InputError) as raised:
        Quantile(*arguments)
    assert message in str(raised.value) and raised.value.code == "DV056"


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (Quantile(), "quantile(linear)"),
        (Quantile("class"), "quantile(class)"),
        (Quantile("boosting", columns=["age", "sex"]), "quantile(boosting, age, sex)"),
        (Quantile("linear", "margin", ("age",)), "quantile(linear, age, signal=margin)"),
    ],
)
def test_its_name_says_what_it_is_and_is_read_back(attack, name):
    assert str(attack) == name
    assert named(name, toy(n=20)).call == attack
    assert eval(repr(attack)) == attack
    assert not getattr(attack, "fitted", False)
