"""Attacks that learn membership: twins that are loops over folds, and what no fit may ever see."""

import functools
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import divulge
from divulge import Evidence, InputError, Unavailable
from divulge.attacks import Learned, Threshold, all_named, named
from divulge.attacks.classifiers import MODELS
from divulge.attacks.learned import FEWEST, FEWEST_FOR_MLP, FOLDS
from divulge.attacks.per_class import FEW, STRENGTH, WIDEST, PerClass, features, ridge_logistic
from divulge.folds import folds

audit = functools.partial(divulge.audit, controls=())
FAST = ("logistic", "per_class", "spline", "knn")


def toy(n=600, leak=0.0, seed=0, classes=4, member=None, **fields):
    """A classifier's logits; a leak raises the members' true logit."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(n) < n // 2 if member is None else member
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 2 + leak * member
    return Evidence(member, **{"outputs": logits.astype(np.float32), "labels": labels, "kind": "logits"} | fields)


def scores_of(attack, evidence, seed=5):
    return np.asarray(attack(evidence, np.random.default_rng(seed)))


def mine(values, member):
    return Evidence(member, signals={"mine": values})


def fold_of(evidence, seed=5):
    return folds(evidence, FOLDS, int(np.random.default_rng(seed).integers(2**63)))


def auc_of(attack, evidence):
    return roc_auc_score(evidence.member, scores_of(attack, evidence))


# ----------------------------------------------------------------------------------------------- what it is made of


def exactly(c=1.0, tol=1e-12):
    return LogisticRegression(C=c, class_weight="balanced", tol=tol, max_iter=10_000, solver="newton-cholesky")


def scaled():
    return make_pipeline(StandardScaler(), exactly(tol=1e-4))  # scikit-learn's own tolerance


def naive(evidence, table, estimator, seed=5):
    """A loop over the folds, rows in the order in which they came."""
    fold, scores = fold_of(evidence, seed), np.empty(len(evidence))
    for k in range(FOLDS):
        fitted = estimator().fit(table[fold != k], evidence.member[fold != k])
        scores[fold == k] = fitted.decision_function(table[fold == k])
    return scores


@pytest.mark.parametrize("columns", [(), ("age", "class")])
@pytest.mark.parametrize("groups", [None, np.arange(600) // 4])
def test_logistic_equals_a_loop_over_the_folds(columns, groups):
    evidence = toy(leak=0.5, columns={"age": np.random.default_rng(1).normal(size=600)}, groups=groups)
    attack = Learned("logistic", columns)
    expected = naive(evidence, attack.table(evidence), scaled)
    np.testing.assert_allclose(scores_of(attack, evidence), expected, rtol=0, atol=1e-3)
    assert np.ptp(expected) > 1


@pytest.mark.parametrize("classes", [3, 40])
def test_per_class_equals_a_loop_over_folds_and_classes(classes):
    """A class's fit sees the log-odds of the fit to all, and log-probabilities where classes are few, as that does."""
    n = 900 if classes == 3 else 4000
    evidence = toy(n=n, leak=0.5, classes=classes)
    fold, table = fold_of(evidence), Learned("logistic").table(evidence)
    z = evidence.outputs.astype(float)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True)) if classes <= WIDEST else np.zeros((n, 0))
    table = np.column_stack([table, log_p]).astype(np.float32)
    expected, alone = np.empty(n), 0
    for k in range(FOLDS):
        fit, member = fold != k, evidence.member
        pooled = scaled().fit(table[fit], member[fit]).decision_function(table)
        own = np.column_stack([pooled / 2, (log_p - log_p[fit].mean(axis=0)) / (log_p[fit].std(axis=0) + 1e-6)])
        expected[~fit] = pooled[~fit]
        for label in range(classes):
            rows = fit & (evidence.labels == label)
            unseen = ~fit & (evidence.labels == label)
            if min((rows & member).sum(), (rows & ~member).sum()) < FEW:
                alone += unseen.sum()
                continue
            one = exactly(STRENGTH).fit(own[rows], member[rows])
            expected[unseen] = one.decision_function(own[unseen])
    np.testing.assert_allclose(scores_of(Learned("per_class"), evidence), expected, rtol=0, atol=1e-3)
    assert alone == 0


def test_a_class_of_few_records_keeps_the_score_of_all():
    labels = np.where(np.arange(600) < 560, 0, 1)
    evidence = toy(leak=0.5, labels=labels)
    expected = naive(evidence, np.column_stack([Learned().table(evidence), features(evidence)[:, :-1]]), scaled)
    found = scores_of(Learned("per_class"), evidence)
    np.testing.assert_allclose(found[labels == 1], expected[labels == 1], rtol=0, atol=1e-3)
    assert np.abs(found - expected)[labels == 0].max() > 0.05


@pytest.mark.parametrize("strength", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    ("n", "d", "gap", "share"),
    [(200, 3, 1, 0.5), (60, 10, 8, 0.5), (400, 5, 8, 0.1), (1000, 4, 1, 0.02), (100, 60, 8, 0.3), (40, 2, 0, 0.5)],
    ids=["plain", "separable", "separable and uneven", "uneven", "as many columns as rows", "nothing to find"],
)
def test_ridge_logistic_equals_scikit_learns(n, d, gap, share, strength):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), np.arange(n) < n * share
    x[y, 0] += gap
    twin = exactly(strength).fit(x, y)
    np.testing.assert_allclose(
        ridge_logistic(x, y, strength), np.append(twin.coef_, twin.intercept_), rtol=0, atol=1e-6
    )


def test_what_a_class_sees_is_log_probabilities_and_its_label():
    evidence = toy()
    found = features(evidence)
    assert np.array_equal(found[:, -1], evidence.labels)
    np.testing.assert_allclose(np.exp(found[:, :-1].astype(float)).sum(axis=1), 1, rtol=1e-5)
    assert features(toy(classes=WIDEST + 1)).shape == (600, 1)


@pytest.mark.parametrize("labels", [None, np.zeros((600, 4), bool), np.linspace(0, 1, 600)])
def test_per_class_needs_one_class_a_record(labels):
    kind = {} if labels is None or labels.ndim == 2 else {"outputs": np.zeros(600), "kind": None}
    with pytest.raises(Unavailable, match="one class label a record"):
        scores_of(Learned("per_class"), toy(labels=labels, **kind))


def test_per_class_is_fitted_where_pooled_is_anything_with_a_decision_function():
    evidence = toy(leak=1.0)
    table = np.column_stack([Learned().table(evidence), features(evidence)])
    fitted = PerClass(RidgeClassifier(), 4).fit(table, evidence.member)
    assert roc_auc_score(evidence.member, fitted.decision_function(table)) > 0.6


# ------------------------------------------------------------------------------------------- what no fit may ever see


class Spy(ClassifierMixin, BaseEstimator):
    """Writes down what it is fitted on and what it scores. The calls are the class's: the attack clones it."""

    calls: ClassVar[list] = []

    def fit(self, x, y, sample_weight=None):
        self.classes_ = np.array([False, True])
        self.seen_ = x.copy()
        self.y_, self.weight_ = y.copy(), sample_weight
        return self

    def decision_function(self, x):
        Spy.calls.append((self.seen_, self.y_, self.weight_, x.copy()))
        return x[:, 0].astype(float)


@pytest.fixture
def spied(monkeypatch):
    monkeypatch.setattr(Spy, "calls", [])
    return Spy.calls


def test_every_row_is_scored_once_by_a_fit_that_did_not_see_it(spied):
    evidence = toy(columns={"number": np.arange(600)})
    scores = scores_of(Learned(Spy(), ("number",)), evidence)
    assert len(spied) == FOLDS
    for seen, y, _, scored in spied:
        fit, unseen = seen[:, -1].astype(int), scored[:, -1].astype(int)
        assert sorted([*fit, *unseen]) == list(range(600))
        assert np.array_equal(y, evidence.member[fit])
        assert evidence.member[unseen].mean() == pytest.approx(0.5, abs=0.01)
    assert sorted(np.concatenate([scored[:, -1] for *_, scored in spied])) == list(range(600))
    assert np.array_equal(scores, Learned().table(evidence)[:, 0].astype(float))


def test_the_records_of_a_person_are_in_one_fold(spied):
    people = np.random.default_rng(0).integers(0, 100, 600)
    scores_of(Learned(Spy(), ("person",)), toy(columns={"person": people}, groups=people))
    for seen, *_, scored in spied:
        assert not set(seen[:, -1]) & set(scored[:, -1])
        assert len(seen) + len(scored) == 600


def test_uneven_sides_are_used_whole_and_weigh_alike(spied):
    evidence = toy(n=5050, member=np.arange(5050) < 50)
    scores_of(Learned(Spy()), evidence)
    for seen, y, weight, scored in spied:
        assert len(seen) + len(scored) == 5050
        assert weight[y].sum() == pytest.approx(weight[~y].sum())
        assert weight.sum() == pytest.approx(len(y))


def test_a_classifier_that_remembers_every_row_stays_at_chance():
    rng = np.random.default_rng(0)
    evidence = Evidence(
        rng.random(2000) < 0.5, signals={"loss": rng.normal(size=2000)}, features=rng.normal(size=(2000, 3))
    )
    memory = KNeighborsClassifier(1)
    attack = Learned(memory, ("features",))
    assert 0.46 < auc_of(attack, evidence) < 0.54
    table = attack.table(evidence)
    assert roc_auc_score(evidence.member, memory.fit(table, evidence.member).predict_proba(table)[:, 1]) == 1


@pytest.mark.parametrize("model", FAST)
def test_uneven_sides_find_a_leak(model):
    evidence = toy(n=5050, leak=1.5, member=np.arange(5050) < 50)
    assert auc_of(Learned(model), evidence) > 0.6


@pytest.mark.parametrize("model", ["boosting", "knn", "mlp"])
def test_more_non_members_make_no_attack_weaker(model):
    """Unweighted, a network that stops by its accuracy learned to say no: AUC .57 of 300 + 3,000, .76 of 300 + 300."""
    rng = np.random.default_rng(0)
    member = np.arange(3300) < 300
    values = np.where(member, 0.0, rng.choice([-1.3, 1.3], 3300)) + 0.7 * rng.normal(size=3300)
    uneven = mine(values, member)
    even = uneven.take(slice(0, 600))
    assert auc_of(Learned(model), uneven) > auc_of(Learned(model), even) - 0.03


def test_a_users_pipeline_weighs_both_sides_alike():
    rng = np.random.default_rng(0)
    member = np.arange(3300) < 300
    evidence = mine(rng.normal(size=3300) + 1.0 * member, member)
    for last in (LogisticRegression(), LogisticRegression(class_weight="balanced")):
        scores = np.asarray(Learned(make_pipeline(StandardScaler(), last))(evidence, np.random.default_rng(0)))
        assert abs(np.median(scores[member]) + np.median(scores[~member])) < 0.3  # the middle lies between the sides


def test_neighbours_are_held_against_the_mix_of_their_fold():
    """With groups of very different sizes the folds' mixes differ: unmended, the AUC without a leak was .39."""
    aucs = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sizes = np.append(np.full(3, 60), np.ones(117, int))
        groups = np.repeat(np.arange(120), sizes)
        member = rng.permutation(120)[groups] < 60
        evidence = replace(mine(rng.normal(size=len(groups)), member), groups=groups)
        aucs.append(auc_of(Learned("knn"), evidence))
    assert np.mean(aucs) > 0.45


@pytest.mark.parametrize("model", ["logistic", "per_class", "boosting", "knn"])
def test_a_fold_without_a_record_is_passed_over(model):
    # Three groups a side, five folds.
    evidence = replace(toy(n=240), member=np.repeat([True, False], 120), groups=np.arange(240) // 40)
    assert np.isfinite(scores_of(Learned(model), evidence)).all()


@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize("model", ["logistic", "per_class"])
def test_without_a_leak_the_auc_leans_below_a_half_if_anywhere(model, n):
    aucs = [auc_of(Learned(model), toy(n=2 * n, seed=seed)) for seed in range(60)]
    assert 0.45 < np.mean(aucs) < 0.5 + 2 * np.std(aucs) / np.sqrt(60)


# ---------------------------------------------------------------------------------------------- what it is good for


@pytest.mark.parametrize("model", ["spline", "boosting", "knn", "mlp"])
def test_what_lies_on_both_sides_of_the_others_is_found_by_what_can_bend(model):
    rng = np.random.default_rng(0)
    member = np.arange(1000) < 500
    values = np.where(member, rng.normal(size=1000), rng.choice([-3, 3], 1000) + rng.normal(size=1000))
    evidence = Evidence(member, signals={"mine": values})
    assert auc_of(Learned("logistic"), evidence) < 0.6
    assert auc_of(Learned(model), evidence) > 0.9


def test_what_differs_from_class_to_class_is_found_by_one_fit_a_class():
    """The members of even classes have the larger first logit, those of odd ones the smaller."""
    evidence = toy(n=4000, classes=4)
    z = evidence.outputs.copy()
    z[:, 0] += np.where(evidence.member, 1.0, 0.0) * np.where(evidence.labels % 2, 1, -1)
    evidence = replace(evidence, outputs=z)
    assert auc_of(Learned("per_class"), evidence) > auc_of(Learned("logistic"), evidence) + 0.03


@pytest.mark.parametrize("model", [*FAST, "boosting", "mlp"])
def test_a_named_column_is_knowledge(model):
    rng = np.random.default_rng(0)
    evidence = toy(n=1500)
    evidence = replace(
        evidence, columns={"age": rng.normal(size=1500) + 1.5 * evidence.member, "noise": rng.normal(size=1500)}
    )
    assert auc_of(Learned(model), evidence) < 0.56
    assert auc_of(Learned(model, ("age",)), evidence) > 0.75
    assert auc_of(Learned(model, ("noise",)), evidence) < 0.56


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "fields",
    [
        {"outputs": np.random.default_rng(1).random((600, 4)).round(1) + 1e-9, "kind": "probs"},
        {"outputs": np.random.default_rng(1).normal(size=600), "labels": np.arange(600) % 2},
        {"labels": np.random.default_rng(1).random((600, 4)) < 0.3},
        {"labels": None},
        {"outputs": np.random.default_rng(1).normal(size=600), "labels": np.linspace(0, 1, 600), "kind": None},
        {"outputs": np.random.default_rng(1).random((600, 2)) + 0.1, "labels": np.linspace(0, 1, 600), "kind": None},
        {"outputs": None, "kind": None, "signals": {"mine": np.arange(600) % 7.0}},
        {"outputs": None, "kind": None, "labels": None, "signals": {"mine": np.arange(600) % 7.0}},
        {"outputs": np.eye(4)[np.arange(600) % 4], "kind": "probs"},
        {"outputs": np.random.default_rng(1).normal(size=(600, 4)) * 1e4},
    ],
    ids=[
        "probs",
        "binary",
        "multi-label",
        "unlabelled",
        "regression",
        "regression with deviations",
        "a signal and labels",
        "a signal",
        "probabilities of 0 and 1",
        "enormous logits",
    ],
)
def test_every_kind_of_evidence_has_a_finite_score_or_a_reason(model, fields, recwarn):
    evidence = toy(**fields)
    one_class = evidence.labels is not None and evidence.labels.ndim == 1 and evidence.labels.dtype.kind != "f"
    if model == "per_class" and not one_class:
        with pytest.raises(Unavailable):
            scores_of(Learned(model), evidence)
        return
    scores = scores_of(Learned(model), evidence)
    assert scores.shape == (600,) and np.isfinite(scores).all()
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e30])
def test_equal_answers_are_equal_scores(model, value, recwarn):
    labels = np.random.default_rng(1).integers(0, 7, 600)
    evidence = Evidence(np.arange(600) < 300, signals={"loss": np.full(600, value)}, labels=labels)
    assert np.unique(scores_of(Learned(model), evidence)).tolist() == [0.0]
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("model", MODELS)
def test_what_has_no_signal_has_no_score_and_does_not_change_the_others(model):
    values = np.random.default_rng(0).normal(size=600)
    values[[3, 60, 61]] = np.nan
    ids = np.arange(600)
    evidence = Evidence(ids < 300, labels=ids % 2, signals={"mine": values}, ids=ids)
    scores = scores_of(Learned(model), evidence)
    assert np.flatnonzero(np.isnan(scores)).tolist() == [3, 60, 61]
    assert np.isfinite(np.delete(scores, [3, 60, 61])).all()


def test_a_signal_that_nobody_has_is_too_little():
    evidence = Evidence(np.arange(400) < 200, signals={"mine": np.full(400, np.nan)})
    with pytest.raises(Unavailable, match="has 0"):
        scores_of(Learned(), evidence)


@pytest.mark.parametrize("model", MODELS)
def test_too_few_records_are_too_few(model):
    needed, few, enough = (FEWEST_FOR_MLP, 240, 260) if model == "mlp" else (FEWEST, 12, 13)
    with pytest.raises(Unavailable, match=rf"needs {needed} members and {needed} non-members .*in every fit, has"):
        scores_of(Learned(model), toy(n=2 * few, member=np.arange(2 * few) < few))
    assert np.isfinite(scores_of(Learned(model), toy(n=2 * enough, member=np.arange(2 * enough) < enough))).all()
    with pytest.raises(Unavailable, match="has"):
        scores_of(Learned(model), toy(n=500, member=np.arange(500) < 11))


def test_few_people_of_many_records_are_too_few_where_a_fold_takes_them_all():
    groups = np.repeat(np.arange(3), 200)
    with pytest.raises(Unavailable, match="or groups of them"):
        scores_of(Learned(), toy(groups=groups, member=groups == 0))


@pytest.mark.parametrize(
    ("columns", "message"),
    [(("aeg",), "there is no column 'aeg'; known here: age, class"), (("features",), "features")],
)
def test_a_column_that_is_not_there_is_an_error(columns, message):
    evidence = toy(columns={"age": np.zeros(600)})
    with pytest.raises(Unavailable, match=message) as raised:
        audit(evidence, attacks=[Learned("logistic", columns)])
    assert "the attack learned(logistic" in str(raised.value)


@pytest.mark.parametrize("columns", ["age", (3,), (None,)])
def test_columns_are_names(columns):
    with pytest.raises(InputError, match=r"columns=\('age',\)") as raised:
        Learned("logistic", columns)
    assert raised.value.code == "DV056"


def test_a_list_of_columns_will_do():
    assert Learned("logistic", ["age"]) == Learned("logistic", ("age",))


# ------------------------------------------------------------------------------------------------ with other attacks


def of_attack(report, name):
    rows = [row for row in report.rows("results") if row["attack"] == name]
    return [row for row in rows if not row["metric"].startswith(("score", "tail"))]


@pytest.mark.parametrize("name", [f"learned({model})" for model in MODELS])
@pytest.mark.parametrize(
    "fields",
    [{}, {"groups": np.arange(600) // 3}, {"ids": np.arange(600)}, {"signals": {"mine": np.arange(600) % 11.0}}],
    ids=["plain", "groups", "ids", "a signal"],
)
def test_an_attacks_scores_do_not_depend_on_which_others_run(name, fields):
    """Signals that others need are computed first, and a learned attack sees signals."""
    evidence = toy(leak=0.5, **fields)
    alone = audit(evidence, attacks=[name])
    together = audit(evidence, attacks=["margin", "quick", "entropy", "quantile(class)", name])
    np.testing.assert_equal(of_attack(together, name), of_attack(alone, name))
    assert len(of_attack(alone, name)) > 10


def test_an_audit_measures_the_scores_that_the_attack_gives():
    evidence = toy(leak=0.5, ids=np.arange(600))
    own = audit(evidence, attacks=["learned(logistic)"]).estimate("auc").value
    assert own == pytest.approx(auc_of(Learned(), evidence), abs=0.02)  # its folds come from the audit's generator


# -------------------------------------------------------------------------------------------- classifiers of the user


class Silent(ClassifierMixin, BaseEstimator):
    """Says yes or no, and no more."""

    def fit(self, x, y):
        return self

    def predict(self, x):
        return np.zeros(len(x), bool)


class Failing(Silent):
    """Cannot be fitted."""

    def fit(self, x, y):
        raise ValueError("no fit today")

    def decision_function(self, x):
        return np.zeros(len(x))


CLASSIFIERS = {
    "learned(RandomForestClassifier)": lambda: RandomForestClassifier(30, min_samples_leaf=5),
    "learned(Pipeline)": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(30, min_samples_leaf=5)),
    "learned(GaussianNB)": GaussianNB,
    "learned(RidgeClassifier)": RidgeClassifier,  # decision_function alone
    "learned(KNeighborsClassifier)": lambda: KNeighborsClassifier(20),  # predict_proba alone
    "learned(IsolationForest)": IsolationForest,  # learns no membership, but is welcome
}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in a list"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_an_attack(name, alone):
    model = CLASSIFIERS[name]()
    before = repr(model.get_params())
    evidence = toy(leak=1.5)
    report, again = (audit(evidence, attacks=model if alone else ["loss", model]) for _ in range(2))
    assert report.estimate("auc", attack=name).value > (0.4 if "Isolation" in name else 0.6)
    assert report.meta["attacks"][name].startswith("Learned(model=")
    assert repr(model.get_params()) == before
    assert not [key for key in vars(model) if key.endswith("_")]
    assert of_attack(again, name) == of_attack(report, name)  # the audit's seed is its chance, in pipelines too


def test_probabilities_of_0_and_1_are_not_infinite():
    scores = scores_of(Learned(KNeighborsClassifier(1)), toy(leak=1.0))
    assert np.isfinite(scores).all() and len(np.unique(scores)) == 2


def test_what_a_classifier_raises_is_raised():
    with pytest.raises(ValueError, match="no fit today"):
        audit(toy(), attacks=[Failing()])


@pytest.mark.parametrize("model", [Silent(), LinearRegression(), KMeans(2), StandardScaler(), 3, None, GaussianNB])
def test_what_gives_no_scores_is_refused(model):
    with pytest.raises(InputError, match="decision_function or predict_proba") as raised:
        Learned(model)
    assert raised.value.code == "DV056"


@pytest.mark.parametrize("model", [RandomForestClassifier, Learned])
def test_a_class_is_no_attack(model):
    with pytest.raises(InputError, match="a scikit-learn classifier, got") as raised:
        named(model, toy())
    assert raised.value.code == "DV052"


def test_two_classifiers_of_one_name_can_be_given_names():
    models = [RandomForestClassifier(5), RandomForestClassifier(6)]
    with pytest.raises(InputError, match=r"two attacks are called .*give one another name=") as raised:
        all_named(models, toy())
    assert raised.value.code == "DV052"
    attacks = all_named([Learned(models[0], name="five"), models[1]], toy())
    assert [attack.name for attack in attacks] == ["five", "learned(RandomForestClassifier)"]


def test_an_unknown_model_is_refused_with_those_that_are_known():
    with pytest.raises(InputError, match="there is no model 'forest'; known: logistic, per_class") as raised:
        Learned("forest")
    assert raised.value.code == "DV056"


def test_a_learned_attack_says_that_it_is_fitted_and_what_it_costs():
    attack = named("learned(logistic)", toy())
    assert attack.fitted and not named("loss", toy()).fitted
    costs = [named(f"learned({model})", toy()).cost for model in MODELS]
    assert min(costs) > named(Threshold("loss"), toy()).cost
    assert named(GaussianNB(), toy()).cost > 1


def test_its_auc_has_the_wider_interval():
    evidence = toy(leak=0.5)
    found = audit(evidence, attacks=["learned(logistic)", "loss"])
    own, plain = (found.estimate("auc", attack=name) for name in ("learned(logistic)", "loss"))
    assert (own.high - own.low) / (plain.high - plain.low) == pytest.approx(np.sqrt(2), rel=0.1)
