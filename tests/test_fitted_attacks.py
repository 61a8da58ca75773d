"""Attacks fitted on a sample: of a record the scorer says the same bits in any block, and as much as cross-fitting."""

import pickle
from dataclasses import fields, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from divulge import Evidence, InputError, Unavailable, signals
from divulge.attacks import (
    AttackR,
    ClassWise,
    LabelOnly,
    Learned,
    Lira,
    Quantile,
    Threshold,
    Traces,
    classifiers,
    learned,
)
from divulge.attacks.columns import read_columns
from divulge.attacks.knowledge import read_outputs
from divulge.attacks.quantile import FEWEST, FOLDS
from divulge.attacks.row_by_row import ROWS, bin_edges, binned, in_canonical_order, outer_limits, product, tame
from divulge.attacks.threshold import FEWEST as FEWEST_PLACED
from divulge.attacks.threshold import POOLED_ROWS
from divulge.folds import folds

CITIES = np.array(["Rome", "Oslo", "", "Bern"], object)
KNOWN = ("age", "city", "class", "features")
ATTACKS = [
    ClassWise(),
    ClassWise("modified_entropy"),
    *(Learned(model) for model in classifiers.MODELS),
    Learned("logistic", KNOWN),
    Learned("boosting", KNOWN),
    Quantile("class"),
    Quantile("linear"),
    Quantile("boosting"),
    Quantile("linear", "loss", ("age", "city")),
]
FAST = [attack for attack in ATTACKS if "mlp" not in str(attack) and "knn" not in str(attack)]
USERS = [LogisticRegression(), RandomForestClassifier(10)]


def toy(n=600, leak=0.0, seed=0, classes=4, member=None, sharp=1.0, **more):
    """A classifier's logits; a leak raises the members' true logit."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(n) < n // 2 if member is None else member
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 2 + leak * member
    age = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    columns = {"age": age, "city": CITIES[rng.integers(0, 4, n)]}
    features = rng.normal(size=(n, 5)).astype(np.float32)
    outputs = (sharp * logits).astype(np.float32)
    return Evidence(
        member,
        **{"outputs": outputs, "labels": labels, "kind": "logits", "columns": columns, "features": features} | more,
    )


def as_probs(evidence):
    z = evidence.outputs.astype(float)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = np.round(p / p.sum(axis=1, keepdims=True), 3).astype(np.float32)  # 0 and 1 are among them
    return replace(evidence, outputs=p, kind="probs")


def several_labels(evidence):
    return replace(evidence, labels=evidence.outputs > 1)


def one_number(evidence):
    return replace(evidence, outputs=evidence.outputs[:, 0], labels=evidence.outputs[:, 1], kind=None)


def no_outputs(evidence):
    mine = np.where(np.arange(len(evidence)) % 40 == 7, np.nan, evidence.outputs[:, 0] + evidence.member)
    return replace(evidence, outputs=None, kind=None, signals={"loss": mine, "mine": mine.astype(np.float32)})


def twelve(n=600, **more):
    """Sums over eight classes and more are numpy's to arrange."""
    return toy(n, classes=12, **more)


KINDS = {
    "logits": lambda n: twelve(n, leak=1.0),
    "sure logits": lambda n: twelve(n, leak=1.0, sharp=40.0),
    "probabilities": lambda n: as_probs(twelve(n, leak=1.0, sharp=3.0)),
    "many classes": lambda n: toy(n, classes=60),
    "several labels": lambda n: several_labels(twelve(n)),
    "yes or no": lambda n: replace(twelve(n), outputs=twelve(n).outputs[:, 0], labels=twelve(n).labels % 2),
    "regression": lambda n: one_number(twelve(n)),
    "no labels": lambda n: replace(twelve(n), labels=None),
    "signals": lambda n: no_outputs(twelve(n)),
}


def cannot(attack, kind):
    """Whether this attack has no meaning for this evidence."""
    name = str(attack)
    if kind in ("several labels", "regression", "no labels") and name.startswith(CLASS_BY_CLASS):
        return True
    if kind == "no labels":
        return "class" in name or "loss" in name
    return kind == "signals" and "modified_entropy" in name


CLASS_BY_CLASS = ("class_wise", "learned(per_class)", "quantile(class)")


def parts_of(evidence):
    n = len(evidence) // 2
    return evidence.take(slice(n)), evidence.take(slice(n, None))


def fitted(attack, sample, seed=0):
    return attack.fit(sample, np.random.default_rng(seed))


def auc_of(scores, evidence):
    return roc_auc_score(evidence.member, scores)


# ------------------------------------------------------------------------------------------------ the same in any block


def assert_of_the_row_alone(score, others):
    whole = score(others)
    assert whole.shape == (len(others),)
    assert whole.dtype == np.float64
    order = np.random.default_rng(3).permutation(len(others))
    assert score(others.take(order)).tobytes() == whole[order].tobytes()
    cuts = [0, 1, 2, 4, 7, 20, 150, len(others) - 1, len(others)]
    blocks = [score(others.take(slice(*cut))) for cut in pairwise(cuts)]
    assert np.concatenate(blocks).tobytes() == whole.tobytes()
    columns_first = others.outputs if others.outputs is None else np.asfortranarray(others.outputs)
    assert score(replace(others, outputs=columns_first)).tobytes() == whole.tobytes()
    assert score(replace(others, member=~others.member)).tobytes() == whole.tobytes()
    assert pickle.loads(pickle.dumps(score))(others).tobytes() == whole.tobytes()
    return whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_row_has_one_score_in_any_block_and_order(attack, kind):
    sample, others = parts_of(KINDS[kind](900))
    if cannot(attack, kind):
        with pytest.raises(Unavailable):
            fitted(attack, sample)
        return
    whole = assert_of_the_row_alone(fitted(attack, sample), others)
    lacking = np.arange(450, 900) % 40 == 7 if kind == "signals" else np.zeros(450, bool)
    assert np.array_equal(np.isnan(whole), lacking)


@pytest.mark.parametrize("model", USERS, ids=lambda model: type(model).__name__)
def test_a_users_classifier_too(model):
    sample, others = parts_of(twelve(leak=1.0))
    assert np.ptp(assert_of_the_row_alone(fitted(Learned(model, ("age",)), sample), others)) > 0


@pytest.mark.parametrize("attack", FAST, ids=str)
def test_more_rows_than_are_scored_at_a_time(attack):
    score = fitted(attack, twelve(leak=1.0))
    many = twelve(2 * ROWS + 1, seed=1)
    cut = [0, 100, ROWS, ROWS + 1, len(many)]
    blocks = [score(many.take(slice(*two))) for two in pairwise(cut)]
    assert np.concatenate(blocks).tobytes() == score(many).tobytes()
    assert len(score(many.take(slice(0)))) == 0


@pytest.mark.parametrize("attack", FAST, ids=str)
def test_the_order_of_the_sample_says_nothing_and_it_stays_as_it_was(attack):
    evidence = twelve(leak=1.0, sharp=3.0)
    sample, others = parts_of(replace(evidence, ids=np.arange(600)))
    before = pickle.dumps([getattr(sample, field.name) for field in fields(sample)])
    first = fitted(attack, sample)(others)
    again = fitted(attack, sample.take(np.random.default_rng(1).permutation(300)))(others)
    assert before == pickle.dumps([getattr(sample, field.name) for field in fields(sample)])
    np.testing.assert_array_equal(first, again)


# -------------------------------------------------------------------------------------------------- what it is good for


@pytest.mark.parametrize("attack", [*ATTACKS, Learned(USERS[0])], ids=str)
def test_a_leak_is_found_about_as_well_as_by_cross_fitting(attack):
    evidence = toy(n=4000, leak=1.0, seed=1)
    sample, others = parts_of(evidence)
    expected = auc_of(attack(evidence, np.random.default_rng(0)), evidence)
    found = auc_of(fitted(attack, sample)(others), others)
    assert expected > 0.6
    assert abs(found - expected) < 0.04


@pytest.mark.parametrize("attack", FAST, ids=str)
def test_without_a_leak_it_is_at_chance(attack):
    aucs = []
    for seed in range(20):
        sample, others = parts_of(toy(n=600, seed=seed))
        aucs.append(auc_of(fitted(attack, sample)(others), others))
    assert 0.5 - 0.035 < np.mean(aucs) < 0.5 + 0.02  # 3 standard errors of a mean of 20; some lean below


@pytest.mark.parametrize("model", classifiers.MODELS)
def test_the_scorer_says_what_the_classifier_says_that_was_fitted_to_the_sample(model):
    """Twin: scikit-learn's own decision_function or predict_proba."""
    sample, others = parts_of(toy(n=2000, leak=1.5))
    sample, others = (replace(rows, outputs=rows.outputs.astype(float)) for rows in (sample, others))
    sample = sample.take(in_canonical_order(sample))
    attack = Learned(model, ("age", "city"))
    x, view = attack._seen(sample)
    unseen = attack._seen(others, view)[0]
    if model != "boosting":
        limits = outer_limits(x)
        for table in (x, unseen):
            wide = table[:, :-1] if model == "per_class" else table
            wide[:] = np.clip(wide, *(limit[: wide.shape[1]] for limit in limits))
    seed = int(np.random.default_rng(0).integers(2**31))
    twin = attack.estimator(sample, seed, len(sample))
    share = sample.member.mean()
    weight = 0.5 / np.where(sample.member, share, 1 - share)
    by = {"boosting": "sample_weight", "mlp": "mlpclassifier__sample_weight"}.get(model)
    twin.fit(x, sample.member, **({by: weight} if by else {}))
    if hasattr(twin, "decision_function"):
        expected = twin.decision_function(unseen)
    else:
        p = np.clip(twin.predict_proba(unseen).astype(float), 1e-12, 1 - 1e-12)
        expected = np.log(p[:, 1] / p[:, 0])
    if model == "knn":  # it takes no weights
        expected = expected - np.log(share / (1 - share))
    np.testing.assert_allclose(fitted(attack, sample)(others), expected, rtol=0, atol=2e-3)
    assert np.ptp(expected) > 1


@pytest.mark.parametrize("model", ["class", "linear", "boosting"])
@pytest.mark.parametrize("classes", [4, 60])
def test_what_is_expected_is_the_same_row_by_row(model, classes):
    """The planes of a linear fit are its own, multiplied out."""
    evidence = toy(n=900, classes=classes)
    attack = Quantile(model)
    known, _ = attack._knowledge(evidence)
    values = signals.signal(evidence, "log_odds").astype(float)
    found = attack._fitted(values, known, None, 0)
    np.testing.assert_allclose(found.row_by_row().score(values, known), found.score(values, known), rtol=0, atol=1e-4)
    assert np.ptp(found.expected(known)) > 0.02


# ------------------------------------------------------------------------------------------------------- class by class


def naive_places(sample, others, name):
    """Record by record."""
    at, known = signals.signal(others, name), signals.signal(sample, name)
    scores = []
    for value, label in zip(at.tolist(), others.labels.tolist(), strict=True):
        pool = [known[i] for i in range(len(sample)) if not sample.member[i]]
        own = [known[i] for i in range(len(sample)) if not sample.member[i] and sample.labels[i] == label]
        shares = [
            (sum(x < value for x in some) + 0.5 * sum(x == value for x in some)) / len(some) if some else 0.5
            for some in (own, pool)
        ]
        weight = len(own) / (len(own) + POOLED_ROWS)
        scores.append(weight * shares[0] + (1 - weight) * shares[1])
    return np.array(scores)


@pytest.mark.parametrize("name", ["loss", "correct"])
@pytest.mark.parametrize("classes", [4, 150])
def test_class_wise_equals_its_naive_twin(name, classes):
    evidence = toy(n=400, classes=classes, leak=1.0)
    outputs = np.round(evidence.outputs.astype(float))  # ties
    sample, others = parts_of(replace(evidence, outputs=outputs))
    expected = naive_places(sample, others, name)
    assert set(others.labels.tolist()) - set(sample.labels[~sample.member].tolist()) or classes == 4
    np.testing.assert_allclose(fitted(ClassWise(name), sample)(others), expected, rtol=0, atol=1e-12)


def test_class_wise_is_the_scorers_of_its_folds():
    values = np.round(np.random.default_rng(0).normal(size=900), 1)
    values[::70], values[10:40], values[40:70], values[75] = np.nan, np.inf, np.finfo(float).max, -np.inf
    evidence = replace(toy(n=900), outputs=None, kind=None, signals={"loss": values})
    fold = folds(evidence, FOLDS, int(np.random.default_rng(5).integers(2**63)))
    expected = np.empty(900)
    for k in range(FOLDS):
        expected[fold == k] = fitted(ClassWise(), evidence.take(fold != k))(evidence.take(fold == k))
    assert ClassWise()(evidence, np.random.default_rng(5)).tobytes() == expected.tobytes()


# ------------------------------------------------------------------------------------------------ what the sample lacks


def named(evidence, city, label):
    n = len(evidence)
    columns = {**evidence.columns, "city": np.full(n, city, object)}
    return replace(evidence, columns=columns, labels=np.full(n, label))


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_a_class_and_a_city_that_the_sample_lacks_are_scored_as_none_of_the_known(attack):
    sample, others = parts_of(toy(n=900, classes=7, labels=np.random.default_rng(0).integers(0, 5, 900)))
    score = fitted(attack, sample)
    unseen = score(named(others, "Paris", 5))
    assert np.isfinite(unseen).all()
    again = score(replace(named(others, "Lima", 5)))
    np.testing.assert_array_equal(again, unseen)


def test_of_a_class_that_the_sample_lacks_only_the_place_among_all_is_told():
    sample, others = parts_of(toy(classes=7, labels=np.random.default_rng(0).integers(0, 5, 600)))
    others = named(others, "", 6)
    pool = signals.signal(sample, "loss")[~sample.member]
    values = signals.signal(others, "loss")
    expected = (pool[None] < values[:, None]).mean(axis=1) + (pool[None] == values[:, None]).mean(axis=1) / 2
    np.testing.assert_allclose(fitted(ClassWise(), sample)(others), expected, atol=1e-7)
    *_, answers = read_outputs(sample)
    mean, log_variance, _ = read_outputs(others, answers)[0][:, 4:7].T
    first = read_outputs(sample)[0][:, 0].astype(float)
    np.testing.assert_allclose(mean, first.mean(), rtol=1e-5)
    np.testing.assert_allclose(log_variance, np.log(first.var()), rtol=1e-4)


def test_columns_are_read_as_in_the_sample():
    sample = Evidence(np.arange(4) < 2, columns={"age": np.array([1.0, 9.0, np.nan, 2.0]), "n": np.array([1, 5, 3, 9])})
    other = Evidence(np.arange(2) < 1, columns={"age": np.array([np.nan, 7.0]), "n": np.array([np.nan, 8.0])})
    _, encodings = read_columns(sample, ["age", "n"])
    assert read_columns(other, ["age", "n"], encodings)[0].tolist() == [[2, 1, 4], [7, 0, 8]]
    text = replace(other, columns={"age": np.array(["a", "b"]), "n": np.array([1, 2])})
    with pytest.raises(InputError, match=r"'age': expected numbers.*got text"):
        read_columns(text, ["age", "n"], encodings)


def test_bins_and_limits_are_the_samples():
    table, other = np.random.default_rng(0).normal(size=(2, 3000, 3)).astype(np.float32)
    other[0] = [1e6, -1e6, 0]
    edges = bin_edges(table)
    expected = [[sum(edge <= value for edge in edges[at]) for at, value in enumerate(row)] for row in other[:20]]
    assert binned(other, edges)[:20].tolist() == expected
    assert np.array_equal(binned(table, edges), binned(table))
    least, most = outer_limits(table)
    tame(other, (least, most))
    assert other[0].tolist() == [most[0], least[1], 0]


def test_probabilities_of_0_are_what_they_are_in_the_sample():
    """A block without any probability of 0 and one whose smallest is far smaller are read alike."""
    sample, others = parts_of(as_probs(toy(sharp=3.0, leak=1.0)))
    tiny = others.outputs.copy()
    tiny[0] = [1e-30, 1, 0, 0]
    for attack in (Learned(), Learned("per_class"), Quantile("class"), Quantile()):
        score = fitted(attack, sample)
        found = score(replace(others, outputs=tiny))
        assert np.array_equal(found[1:], score(others.take(slice(1, None))))
        assert np.isfinite(found).all()


# ------------------------------------------------------------------------------------------------------ where it cannot


@pytest.mark.parametrize(
    ("attack", "fewest"),
    [(ClassWise(), FEWEST_PLACED), (Quantile(), FEWEST), (Quantile("class"), FEWEST), (Learned(), learned.FEWEST)],
    ids=str,
)
def test_a_sample_that_is_too_small(attack, fewest):
    enough = toy(n=400, member=np.arange(400) >= fewest)
    assert np.isfinite(fitted(attack, enough)(toy(n=100, seed=1))).all()
    with pytest.raises(Unavailable, match=f"needs {fewest} .*has {fewest - 1}"):
        fitted(attack, enough.take(slice(1, None)))


def test_a_network_needs_more():
    with pytest.raises(Unavailable, match=f"needs {learned.FEWEST_FOR_MLP} members"):
        fitted(Learned("mlp"), toy(n=2 * learned.FEWEST_FOR_MLP - 2))


@pytest.mark.parametrize(
    "attack", [ClassWise(), Learned(), Quantile("class"), Quantile("linear"), Quantile("boosting")], ids=str
)
def test_a_sample_without_what_it_needs(attack):
    with pytest.raises(Unavailable):
        fitted(attack, Evidence(np.arange(200) < 100, traces=np.zeros((200, 3))))


def test_names_that_are_not_there():
    with pytest.raises(Unavailable, match="no column 'aeg'"):
        fitted(Learned("logistic", ("aeg",)), toy())
    with pytest.raises(Unavailable, match="class label"):
        fitted(ClassWise("entropy"), replace(toy(), labels=None))


def test_a_sample_that_says_nothing_gives_zeros():
    same = Evidence(np.arange(200) < 100, signals={"mine": np.ones(200)})
    other = Evidence(np.arange(3) < 1, signals={"mine": np.array([1.0, 2.0, np.nan])})
    np.testing.assert_array_equal(fitted(Learned(), same)(other), [0, 0, np.nan])


@pytest.mark.parametrize("attack", [Threshold(), LabelOnly(), Lira(), AttackR(), Traces()], ids=str)
def test_what_reads_more_than_a_record_has_no_fit(attack):
    assert not hasattr(attack, "fit")


# --------------------------------------------------------------------------------------------------- what it is made of


class Spy(ClassifierMixin, BaseEstimator):
    """Writes down how many rows it is asked for at once."""

    asked: ClassVar[list] = []

    def fit(self, x, y):
        self.classes_ = np.array([False, True])
        return self

    def decision_function(self, x):
        Spy.asked.append(len(x))
        return x[:, 0].astype(float)


def test_a_users_classifier_is_always_asked_for_as_many_rows(monkeypatch):
    monkeypatch.setattr(Spy, "asked", [])
    score = fitted(Learned(Spy()), toy())
    others = toy(n=2500)
    np.testing.assert_allclose(score(others), signals.signal(others, "log_odds"), rtol=1e-5, atol=1e-6)
    score(others.take([0]))
    assert Spy.asked == [1024] * 4


@pytest.mark.parametrize("shape", [(1, 1, 1), (700, 13, 64), (20_000, 3, 1), (5, 0, 2), (0, 4, 2)])
def test_product_is_the_matrix_product(shape):
    n, d, k = shape
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(n, d)).astype(np.float32), rng.normal(size=(d, k))
    np.testing.assert_allclose(product(x, w), x.astype(float) @ w, rtol=1e-12, atol=1e-12)
