"""References that cost no training: of a cross-validation, a forest, a base checkpoint, models that exist."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from divulge import Evidence
from divulge.attacks.reference import Difficulty, Ratio
from divulge.errors import InputError
from divulge.model_outputs import signals_of
from divulge.references.bagged import references_from_bagging
from divulge.references.free import references_from_base, references_from_cv, references_from_outputs
from divulge.references.left_out import deal
from divulge.signals import signal

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
SHARES = np.array([0.35, 0.25, 0.15, 0.15, 0.1])


def drawn(rng, n, classes=5, width=6):
    """n records of some classes that overlap."""
    y = rng.permutation(np.repeat(np.arange(classes), np.round(SHARES * n).astype(int)))
    return rng.normal(size=(n, width)) + 0.8 * np.eye(classes, width)[y], y


def records(seed=0, m=100, n=100):
    """Members and non-members, mixed: (x, y), member."""
    rng = np.random.default_rng(seed)
    sides = [drawn(rng, m), drawn(rng, n)]
    x, y = (np.concatenate(part) for part in zip(*sides, strict=True))
    order = rng.permutation(m + n)
    return (x[order], y[order]), (np.arange(m + n) < m)[order]


def validated(model, data, member, splitter, groups=None):
    """The models of a cross-validation of the members, and the pairs."""
    x, y = data[0][member], data[1][member]
    pairs = list(splitter.split(x, y, None if groups is None else groups[member]))
    return [clone(model).fit(x[train], y[train]) for train, _ in pairs], pairs


def difficulty_auc(references, data, member, target, *, alone=False):
    """How well target - m_out tells members; alone: - m_out, without the target."""
    ((name, out),) = references.signals.items()
    own = 0.0 if alone else signals_of(target.predict_proba(data[0]), data[1], [name], "probs")[0]
    return roc_auc_score(member, own - out[0, :, 0])


SHUFFLED = StratifiedKFold(4, shuffle=True, random_state=0)


# --------------------------------------------------------------------------------------------- cross-validation


@pytest.mark.parametrize("model", [GaussianNB(), LogisticRegression(), DecisionTreeClassifier(max_depth=3)], ids=repr)
def test_a_row_is_what_the_model_that_left_it_out_says(model):
    data, member = records()
    models, pairs = validated(model, data, member, SHUFFLED)
    references = references_from_cv(models, data, pairs, member=member, signal="loss")
    assert references.source == "cv" and not references.trained_on.any()
    told = references.signals["loss"][0, :, 0]
    by_model = np.array([signals_of(one.predict_proba(data[0]), data[1], ["loss"], "probs")[0] for one in models])
    place = np.flatnonzero(member)
    for number, (_, test) in enumerate(pairs):
        np.testing.assert_allclose(told[place[test]], by_model[number, place[test]], rtol=1e-4, atol=1e-5)
    same = np.isclose(told, by_model, rtol=1e-4, atol=1e-5)
    assert same.any(axis=0).all()  # non-members too: one model each, never a mean of several


def test_each_model_is_asked_for_its_own_rows_only():
    data, member = records()
    asked = []

    def model(number):
        return lambda x: asked.append((number, len(x))) or np.zeros((len(x), 5))

    folds = np.random.default_rng(0).permutation(np.arange(100) % 4)
    references_from_cv([model(i) for i in range(4)], data, folds, member=member)
    assert [number for number, _ in asked] == [0, 1, 2, 3] and sum(rows for _, rows in asked) == 200


def test_folds_come_as_numbers_pairs_or_what_cross_validate_gives():
    data, member = records()
    x, y = data[0][member], data[1][member]
    found = cross_validate(GaussianNB(), x, y, cv=SHUFFLED, return_estimator=True, return_indices=True)
    pairs = list(SHUFFLED.split(x, y))
    numbers = np.empty(100, int)
    for number, (_, test) in enumerate(pairs):
        numbers[test] = number
    told = [
        references_from_cv(found["estimator"], data, folds, member=member).signals["log_odds"]
        for folds in (numbers, numbers.tolist(), pairs, found["indices"])
    ]
    assert all(np.array_equal(told[0], other) for other in told[1:])


def test_repetitions_are_models_of_their_own():
    data, member = records()
    splitter = RepeatedStratifiedKFold(n_splits=4, n_repeats=3, random_state=0)
    models, pairs = validated(GaussianNB(), data, member, splitter)
    flat = references_from_cv(models, data, pairs, member=member)
    assert flat.signals["log_odds"].shape == (3, 200, 1) and flat.trained_on.shape == (3, 200)
    nested = references_from_cv(
        [models[i : i + 4] for i in (0, 4, 8)], data, [pairs[i : i + 4] for i in (0, 4, 8)], member=member
    )
    np.testing.assert_array_equal(flat.signals["log_odds"], nested.signals["log_odds"])
    first = references_from_cv(models[:4], data, pairs[:4], member=member)
    np.testing.assert_array_equal(flat.signals["log_odds"][:1], first.signals["log_odds"])


def test_the_seed_deals_the_non_members_and_nothing_else():
    data, member = records()
    models, pairs = validated(GaussianNB(), data, member, SHUFFLED)
    one, again, other = (
        references_from_cv(models, data, pairs, member=member, seed=seed).signals["log_odds"][0, :, 0]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one[member], other[member])
    assert (one[~member] != other[~member]).mean() > 0.5


def test_a_regression_and_a_pipeline_and_text_labels():
    data, member = records()
    x, y = data
    folds = np.random.default_rng(0).permutation(np.arange(100) % 4)
    targets = x @ np.arange(6) + np.random.default_rng(1).normal(size=200)
    fits = [Ridge().fit(x[member][folds != k], targets[member][folds != k]) for k in range(4)]
    told = references_from_cv(fits, (x, targets), folds, member=member)
    expected = -np.abs(targets[member] - np.choose(folds, [fit.predict(x[member]) for fit in fits]))
    assert list(told.signals) == ["loss"]
    np.testing.assert_allclose(told.signals["loss"][0, member, 0], expected, atol=1e-5)
    names = np.array(["e", "d", "c", "b", "a"])[y]
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    models, pairs = validated(scaled, (x, names), member, SHUFFLED)
    told = references_from_cv(models, (x, names), pairs, member=member, signal="loss").signals["loss"][0, :, 0]
    held = pairs[0][1]
    probs = models[0].predict_proba(x[member][held])
    own = np.searchsorted(models[0].classes_, names[member][held])
    np.testing.assert_allclose(told[member][held], np.log(probs[np.arange(len(held)), own]), atol=1e-4)


def test_functions_are_read_over_all_rows_at_once():
    """A fold may lack a class, or look like probabilities by chance."""
    data, member = records()
    names = np.array(list("abcde"))[data[1]]
    folds = np.where(data[1][member] == 4, 0, np.random.default_rng(0).integers(0, 30, 100))
    folds = np.unique(folds, return_inverse=True)[1]
    models = [lambda x: 3 * x[:, :5]] * (int(folds.max()) + 1)
    told = references_from_cv(models, (data[0], names), folds, member=member)
    expected = signals_of(3 * data[0][:, :5], data[1], ["log_odds"], "logits")[0]
    np.testing.assert_allclose(told.signals["log_odds"][0, :, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("model", [GaussianNB(), LogisticRegression()], ids=repr)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_that_a_fold_lacks_has_probability_0(model, classes):
    rng = np.random.default_rng(0)
    member = np.arange(80) < 40
    y = rng.integers(0, 2, 80) if classes == 3 else np.zeros(80, int)
    x = rng.normal(size=(80, 3)) + y[:, None]
    folds = rng.permutation(np.arange(40) % 2)
    rare = classes - 1
    y[np.flatnonzero(member)[np.flatnonzero(folds == 1)[:3]]] = rare  # only model 0 is trained with them
    y[77] = rare
    train = x[member], y[member]
    usable = classes == 3 or isinstance(model, GaussianNB)
    if not usable:
        pytest.skip("a logistic regression is not fitted to one class")
    models = [clone(model).fit(train[0][folds != k], train[1][folds != k]) for k in range(2)]
    assert [len(one.classes_) for one in models] == [classes, classes - 1]
    told = references_from_cv(models, (x, y), folds, member=member, signal="loss", seed=3).signals["loss"][0, :, 0]
    dealt = deal(folds, member, y, None, np.random.default_rng(3))
    at_1 = np.flatnonzero(dealt == 1)
    wide = np.zeros((len(at_1), classes))
    wide[:, :-1] = models[1].predict_proba(x[at_1])
    np.testing.assert_allclose(told[at_1], signals_of(wide, y[at_1], ["loss"], "probs")[0], rtol=1e-4, atol=1e-5)
    assert told[at_1[y[at_1] == rare]].max() < told[at_1[y[at_1] != rare]].min()


@pytest.mark.parametrize("framework", ["torch", "xgboost"])
def test_models_of_other_frameworks(require, framework):
    module = require(framework)
    data, member = records()
    data = data[0].astype(np.float32), data[1]
    folds = np.random.default_rng(0).permutation(np.arange(100) % 2)
    if framework == "torch":
        models = [module.nn.Sequential(module.nn.Linear(6, 5), module.nn.Softmax(dim=1)) for _ in range(2)]
        outputs = [model(module.from_numpy(data[0])).detach().numpy() for model in models]
    else:
        kept = [(data[0][member][folds != k], data[1][member][folds != k]) for k in range(2)]
        models = [module.XGBClassifier(n_estimators=3, n_jobs=1).fit(*own) for own in kept]
        outputs = [model.predict_proba(data[0]) for model in models]
    told = references_from_cv(models, data, folds, member=member, signal="loss").signals["loss"][0, :, 0]
    expected = np.choose(folds, [signals_of(p, data[1], ["loss"], "probs")[0][member] for p in outputs])
    np.testing.assert_allclose(told[member], expected, atol=1e-4)


# ------------------------------------------------------------------------------------------ non-members' folds


@given(
    seed=st.integers(0, 2**16),
    k=st.integers(2, 6),
    classes=st.integers(1, 5),
    n=st.integers(0, 80),
)
def test_every_class_is_dealt_by_the_members_shares(seed, k, classes, n):
    rng = np.random.default_rng(seed)
    m = 60
    codes = np.concatenate([np.arange(classes), rng.integers(0, classes, m + n - classes)])
    member = rng.permutation(np.arange(m + n) < m)
    fold = rng.permutation(np.arange(m) % k)
    dealt = deal(fold, member, codes, None, rng)
    np.testing.assert_array_equal(dealt[member], fold)
    for code in range(classes):
        own = fold[codes[member] == code]
        shares = np.bincount(own if len(own) else fold, minlength=k) / max(len(own) or m, 1)
        counts = np.bincount(dealt[~member & (codes == code)], minlength=k)
        expected = shares * (~member & (codes == code)).sum()
        assert (np.abs(counts - expected) < 1 + 1e-9).all()


def test_a_rare_class_falls_into_each_fold_in_turn():
    """One non-member of a class: rounding must not send it to the same fold whatever the seed."""
    member = np.arange(41) < 40
    counts = np.zeros(4)
    for seed in range(400):
        counts[deal(np.arange(40) % 4, member, np.zeros(41, int), None, np.random.default_rng(seed))[-1]] += 1
    assert (np.abs(counts - 100) < 4 * np.sqrt(400 * 0.25 * 0.75)).all()


@given(seed=st.integers(0, 2**16), k=st.integers(2, 5))
def test_groups_stay_whole_also_across_the_sides(seed, k):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, 200)
    member = (groups < 15) | (rng.random(200) < 0.1)
    by_group = rng.permutation(np.arange(30) % k)
    member[np.unique(by_group[groups], return_index=True)[1]] = True  # a member in each fold
    codes = rng.integers(0, 3, 200)
    dealt = deal(by_group[groups[member]], member, codes, groups, rng)
    for group in np.unique(groups):
        assert len(set(dealt[groups == group])) == 1


def test_groups_of_any_size_are_dealt_by_rows():
    """The shares that members have are met in rows, but for one group a class."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, 400)
    groups = np.concatenate([np.arange(1000), 1000 + np.repeat(np.arange(400), sizes)])
    member = np.arange(len(groups)) < 1000
    codes = np.where(groups % 3 == 0, 1, 0)
    fold = rng.permutation(np.arange(1000) % 5)
    dealt = deal(fold, member, codes, groups, rng)
    for code in (0, 1):
        shares = np.bincount(fold[codes[member] == code], minlength=5) / (codes[member] == code).sum()
        counts = np.bincount(dealt[~member & (codes == code)], minlength=5)
        assert (np.abs(counts - shares * counts.sum()) < 6).all()


# --------------------------------------------------------------------------- a target that saw neither side


@pytest.mark.slow
@pytest.mark.parametrize("splitter", [StratifiedKFold, KFold], ids=lambda splitter: splitter.__name__)
@pytest.mark.parametrize("k", [2, 5])
def test_a_target_that_saw_neither_side_stays_at_chance(splitter, k):
    with_target, alone = [], []
    for seed in range(2 * SEEDS):
        data, member = records(seed, 200, 200)
        target = GaussianNB().fit(*drawn(np.random.default_rng([seed, 1]), 300))
        cut = splitter(k, shuffle=True, random_state=seed)
        models, pairs = validated(GaussianNB(), data, member, cut)
        references = references_from_cv(models, data, pairs, member=member, signal="loss", seed=seed)
        with_target.append(difficulty_auc(references, data, member, target))
        alone.append(difficulty_auc(references, data, member, target, alone=True))
    for aucs in (with_target, alone):
        assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs) / np.sqrt(len(aucs))
        assert np.std(aucs) < 0.045  # what independent rows give is 0.029


def test_label_sorted_folds_would_show_a_leak_where_there_is_none():
    """Why they are refused: the same by hand, without the check."""
    aucs = []
    for seed in range(10):
        data, member = records(seed, 200, 200)
        x, y = data
        place = np.flatnonzero(member)[np.argsort(y[member], kind="stable")]
        fold = np.empty(200, int)
        fold[np.argsort(y[member], kind="stable")] = np.arange(200) // 40
        models = [LogisticRegression().fit(x[member][fold != k], y[member][fold != k]) for k in range(5)]
        with pytest.raises(InputError, match=r"DV410 folds are blocks|DV410 folds hold other shares"):
            references_from_cv(models, data, fold, member=member)
        others = np.random.default_rng(seed).integers(0, 5, 400)
        others[member] = fold
        out = np.empty(400)
        for k, model in enumerate(models):
            probs = np.zeros((400, 5))
            probs[:, model.classes_] = model.predict_proba(x)
            out[others == k] = np.log(np.maximum(probs[np.arange(400), y], 1e-12))[others == k]
        target = LogisticRegression().fit(*drawn(np.random.default_rng([seed, 1]), 300))
        aucs.append(roc_auc_score(member, np.log(target.predict_proba(x)[np.arange(400), y]) - out))
        assert len(place) == 200
    assert np.mean(aucs) > 0.6


def test_free_references_find_more_than_the_loss_alone():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:1000]
    x, y, member = x[order] / 16, y[order], np.arange(1000) < 500
    forest = RandomForestClassifier(50, random_state=0)
    target = clone(forest).fit(x[member], y[member])
    models, pairs = validated(forest, (x, y), member, StratifiedKFold(5, shuffle=True, random_state=0))
    references = references_from_cv(models, (x, y), pairs, member=member)
    evidence = Evidence(member, outputs=target.predict_proba(x), labels=y, kind="probs", references=references)
    found = {str(attack): roc_auc_score(member, attack(evidence, None)) for attack in (Ratio(), Difficulty())}
    loss = roc_auc_score(member, signal(evidence, "loss"))
    assert found["ratio"] > loss + 0.08 and found["difficulty"] > loss + 0.05


# ------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("splitter", "says"),
    [
        (KFold(4), "blocks of consecutive"),
        (StratifiedKFold(4), "blocks of consecutive"),
        (ShuffleSplit(4, random_state=0), "a second time|in no fold"),
        (TimeSeriesSplit(4), "in no fold"),
    ],
    ids=repr,
)
def test_folds_that_are_no_shuffled_partition_are_refused(splitter, says):
    data, member = records()
    models, pairs = validated(GaussianNB(), data, member, splitter)
    with pytest.raises(InputError, match=says) as caught:
        references_from_cv(models, data, pairs, member=member)
    assert caught.value.code == "DV410"


def test_blocks_of_members_in_random_order_are_taken_on_the_callers_word():
    data, member = records()
    models, pairs = validated(GaussianNB(), data, member, StratifiedKFold(4))
    assert len(references_from_cv(models, data, pairs, member=member, shuffled=True)) == 200


def test_folds_by_class_are_refused_also_in_random_order():
    data, member = records()
    rng = np.random.default_rng(0)
    folds = np.where(rng.random(100) < 0.8, np.minimum(data[1][member], 3), rng.integers(0, 4, 100))
    models = [GaussianNB().fit(data[0][member], data[1][member])] * 4
    with pytest.raises(InputError, match=r"DV410 folds hold other shares of the classes \(chi-square p = "):
        references_from_cv(models, data, folds, member=member, shuffled=True)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_folds_are_hardly_ever_refused(seed):
    """Of few members, of many classes, of persons with one class each, of one record a fold."""
    rng = np.random.default_rng(seed)
    for m, classes, k in ((12, 2, 2), (60, 30, 5), (400, 100, 10), (40, 3, 40)):
        member = np.arange(m + 10) < m
        x, y = rng.normal(size=(m + 10, classes)), rng.integers(0, classes, m + 10)
        y[:classes] = np.arange(classes)
        folds = rng.permutation(np.arange(m) % k)
        references_from_cv([lambda x: x] * k, (x, y), folds, member=member)
    groups = np.repeat(np.arange(60), 40)
    y = (groups % 2).astype(int)  # fold shares vary as 60 coins do, not as 2,400
    member = np.ones(2400, bool)
    fold_of_group = rng.permutation(np.arange(60) % 5)
    models = [lambda x: x] * 5
    references_from_cv(models, (np.zeros((2400, 2)), y), fold_of_group[groups], member=member, groups=groups)


def test_folds_that_split_persons_are_refused():
    data, member = records()
    groups = np.arange(200) // 4
    models, pairs = validated(GaussianNB(), data, member, SHUFFLED)
    with pytest.raises(InputError, match="DV410 folds split groups"):
        references_from_cv(models, data, pairs, member=member, groups=groups)
    models, pairs = validated(GaussianNB(), data, member, GroupKFold(4, shuffle=True, random_state=0), groups)
    assert len(references_from_cv(models, data, pairs, member=member, groups=groups)) == 200


def test_wrong_calls_of_a_cross_validation_say_what_is_wrong():
    (x, y), member = records()
    models, pairs = validated(GaussianNB(), (x, y), member, SHUFFLED)
    folds = np.random.default_rng(0).permutation(np.arange(100) % 4)

    def called(estimators=models, data=(x, y), cut=pairs, who=member, **more):
        return references_from_cv(estimators, data, cut, member=who, **more)

    overlapping = [(np.arange(100), test) for _, test in pairs]
    whole = list(SHUFFLED.split(x, y))  # of members and non-members
    for code, says, arguments in (
        ("DV410", "5 models and 4 folds", {"estimators": [*models, models[0]]}),
        ("DV410", "3 models and 4 folds", {"estimators": models[:3], "cut": folds}),
        ("DV410", "got none", {"estimators": []}),
        ("DV410", "is not fitted", {"estimators": [*models[:3], GaussianNB()]}),
        ("DV410", "2 repetitions", {"estimators": [models, models]}),
        ("DV410", "trained on records", {"cut": overlapping}),
        ("DV410", r"expected \(100,\) ints", {"cut": np.zeros(200, int)}),
        ("DV410", "numbered 1..4", {"cut": folds + 1}),
        ("DV410", "numbered 0..0", {"cut": 0 * folds}),
        ("DV410", "'train' and 'test'", {"cut": {"tests": []}}),
        ("DV410", r"expected 0\.\.99 .* cross-validate the members only", {"cut": whole}),
        ("DV410", r"float64 of shape", {"cut": [(train / 2, test) for train, test in pairs]}),
        ("DV003", r"expected \(x, y\)", {"data": x}),
        ("DV004", "200 inputs and 199 labels", {"data": (x, y[1:]), "who": member[1:]}),
        ("DV004", "member has shape", {"who": member[1:]}),
        ("DV003", "bools", {"who": np.arange(200)}),
        ("DV005", "no members", {"who": np.zeros(200, bool)}),
        ("DV021", "label 7", {"data": (x, np.where(y == 4, 7, y))}),
        ("DV021", "label '[a-e]' is none", {"data": (x, np.array(list("abcde"))[y])}),
        ("DV004", "groups has shape", {"groups": [1, 2]}),
        ("DV003", "model 0 gave", {"estimators": [lambda x: np.zeros(3)] * 4}),
        ("DV075", "neither", {"estimators": [LinearSVC().fit(x, y)] * 3 + [KMeansLike().fit(x, y)]}),
        ("DV070", "expected a model", {"estimators": [1, 2, 3, 4]}),
    ):
        with warnings.catch_warnings(), pytest.raises(InputError, match=says) as caught:
            warnings.simplefilter("ignore")
            called(**arguments)
        assert caught.value.code == code, says


class KMeansLike(GaussianNB):
    """A classifier that only names a class."""

    predict_proba = property(lambda self: (_ for _ in ()).throw(AttributeError()))


# --------------------------------------------------------------------------------------------------------- forests


def by_hand(forest, data, member, classes):
    """Each member's smoothed probabilities by the trees that did not draw it, and by those that did; row by row."""
    x, y = data
    rows = np.flatnonzero(member)
    found = np.full((2, len(rows)), np.nan)
    for place, row in enumerate(rows):
        votes = {False: [], True: []}
        for tree, sample in zip(forest.estimators_, forest.estimators_samples_, strict=True):
            probs = np.zeros(classes)
            probs[tree.classes_.astype(int)] = tree.predict_proba(x[row : row + 1])[0]
            votes[bool((sample == place).any())].append(probs)
        for drew, own in votes.items():
            if own:
                p = np.mean(own, axis=0) + 0.5 / len(forest.estimators_)
                p /= p.sum()
                found[int(drew), place] = np.log(p[y[row]]) - np.log(np.delete(p, y[row]).sum())
    return found


@pytest.mark.parametrize(
    "forest",
    [
        RandomForestClassifier(12, max_depth=3, random_state=0),
        ExtraTreesClassifier(12, bootstrap=True, max_samples=0.5, random_state=0),
        BaggingClassifier(DecisionTreeClassifier(max_depth=3), 12, random_state=0),
        BaggingClassifier(KNeighborsClassifier(3), 12, max_samples=9, random_state=0),  # some draw not all classes
    ],
    ids=repr,
)
def test_trees_are_told_apart_as_by_hand(forest):
    data, member = records(m=40, n=40)
    forest = clone(forest).fit(data[0][member], data[1][member])
    references = references_from_bagging(forest, data, member=member, signal="log_odds")
    told = references.signals["log_odds"][..., 0]
    np.testing.assert_allclose(told[:, member], by_hand(forest, data, member, 5), rtol=1e-4, atol=1e-5)
    assert references.source == "bagging"
    np.testing.assert_array_equal(references.trained_on, [np.zeros(80, bool), member])
    missing = [int(np.isnan(told[0, side]).sum()) for side in (member, ~member)]
    assert missing[0] == missing[1] and len(references.target["log_odds"]) == 80


def test_a_non_member_is_spoken_of_by_as_many_trees_as_a_member():
    data, member = records(m=40, n=80)
    forest = RandomForestRegressor(20, random_state=0).fit(data[0][member], data[1][member])
    for number, tree in enumerate(forest.estimators_):  # trees that say their number's power of 2
        tree.tree_.value[tree.tree_.children_left < 0] = 2.0**number
    told = references_from_bagging(forest, data, member=member).signals["loss"][0, :, 0]
    said = data[1] - told
    drawn_by = np.zeros((20, 40), bool)
    for number, sample in enumerate(forest.estimators_samples_):
        drawn_by[number, sample] = True
    powers = 2.0 ** np.arange(20)
    out = np.array([powers[~column].mean() for column in drawn_by.T])
    np.testing.assert_allclose(said[member], out, rtol=1e-5)
    # Each member's trees are lent to two non-members.
    np.testing.assert_allclose(np.sort(said[~member]), np.sort(np.repeat(out, 2)), rtol=1e-5)


def test_probabilities_sum_to_1_and_few_trees_have_the_same_floor():
    """A record that all trees are sure of is told the same by those that drew it and those that did not."""
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 2)) + 20 * y[:, None]
    member = np.arange(60) < 40
    forest = RandomForestClassifier(50, random_state=0).fit(x[member], y[member])
    references = references_from_bagging(forest, (x, y), member=member, signal=["log_odds", "loss"])
    np.testing.assert_allclose(references.signals["log_odds"], np.log(1.01 / 0.01), rtol=1e-4)
    np.testing.assert_allclose(references.signals["loss"], np.log(1.01 / 1.02), rtol=1e-4)
    np.testing.assert_allclose(references.target["log_odds"], np.log(1.01 / 0.01), rtol=1e-4)


def test_a_record_that_every_tree_drew_is_nan_and_said(caplog):
    data, member = records(m=100, n=20)
    forest = RandomForestClassifier(10, random_state=0).fit(data[0][member], data[1][member])
    drew = np.array([np.isin(np.arange(100), sample) for sample in forest.estimators_samples_])
    missing = drew.all(axis=0) | ~drew.any(axis=0)
    assert missing.any()
    told = references_from_bagging(forest, data, member=member).signals["log_odds"][..., 0]
    np.testing.assert_array_equal(np.isnan(told[:, member]).any(axis=0), missing)
    assert f"{missing.sum()} of 100 members" in caplog.text


@pytest.mark.slow
def test_trees_that_drew_nobody_tell_nothing():
    aucs = []
    for seed in range(SEEDS):
        data, member = records(seed, 100, 100)
        forest = RandomForestClassifier(20, random_state=seed).fit(data[0][member], data[1][member])
        told = references_from_bagging(forest, data, member=member, seed=seed).signals["log_odds"][..., 0]
        found = np.isfinite(told[0])
        aucs.append(roc_auc_score(member[found], told[0][found]))
        found = np.isfinite(told).all(axis=0)
        assert roc_auc_score(member[found], told[1][found]) > 0.8
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs) / np.sqrt(len(aucs))


def test_a_bagged_regression_is_a_mean_without_a_floor():
    data, member = records(m=40, n=20)
    y = data[0][:, 0]
    bagged = BaggingRegressor(n_estimators=15, max_features=3, random_state=0).fit(data[0][member], y[member])
    references = references_from_bagging(bagged, (data[0], y), member=member)
    np.testing.assert_allclose(references.target["loss"][:, 0], -np.abs(y - bagged.predict(data[0])), atol=1e-5)


def test_forests_that_left_nobody_out_are_refused():
    data, member = records(m=40, n=40)
    x, y = data[0][member], data[1][member]
    for model, says in (
        (RandomForestClassifier(20, bootstrap=False).fit(x, y), "bootstrap=False"),
        (ExtraTreesClassifier(20).fit(x, y), "bootstrap=False"),
        (RandomForestClassifier(9).fit(x, y), "9 trees"),
        (RandomForestClassifier(20), "is not fitted"),
        (RandomForestClassifier(20).fit(x[1:], y[1:]), "fitted on 39 records and 40"),
        (RandomForestClassifier(20).fit(x[::-1], y[::-1]), "in the order in which"),
        (BaggingClassifier(DecisionTreeClassifier(), 12).fit(x[::-1], y[::-1]), "in the order in which"),
        (RandomForestRegressor(20).fit(x[::-1], y[::-1]), "in the order in which"),
        (RandomForestClassifier(20).fit(x, np.stack([y, y], axis=1)), "2 outputs"),
        (GradientBoostingClassifier(subsample=0.5).fit(x, y), "boosted"),
        (GaussianNB().fit(x, y), "expected a fitted RandomForest"),
        (make_pipeline(RandomForestClassifier(20)).fit(x, y), "expected a fitted RandomForest"),
    ):
        with pytest.raises(InputError, match=says) as caught:
            references_from_bagging(model, data, member=member)
        assert caught.value.code == "DV410"


@pytest.mark.parametrize(
    "forest",
    [
        RandomForestClassifier(20, class_weight="balanced_subsample"),
        RandomForestClassifier(20, class_weight={0: 3.0}),
        RandomForestClassifier(20, max_samples=0.5),
        RandomForestRegressor(20, criterion="absolute_error"),
        RandomForestRegressor(20, max_samples=15),
        BaggingClassifier(DecisionTreeClassifier(class_weight="balanced"), 12, max_samples=9),
        BaggingClassifier(DecisionTreeClassifier(), 12, max_samples=4),
        BaggingRegressor(DecisionTreeRegressor(), 12),
    ],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:class_weight presets")
def test_a_forest_that_was_fitted_in_the_order_of_the_members_is_taken_whatever_its_weights(forest, weighted):
    data, member = records(m=40, n=40)
    weights = np.random.default_rng(0).random(40) if weighted else None
    fitted = clone(forest).fit(data[0][member], data[1][member], sample_weight=weights)
    assert references_from_bagging(fitted, data, member=member).source == "bagging"


# -------------------------------------------------------------------------------------------- outputs that exist


@pytest.mark.parametrize("shape", ["logits", "probs", "binary logits", "binary probs", "predictions", "queries"])
def test_outputs_are_read_model_by_model(shape):
    rng = np.random.default_rng(0)
    r, n, q = 3, 20, 4
    trained_on = rng.random((r, n)) < 0.5
    labels = rng.integers(0, 2 if "binary" in shape else 3, n)
    names, kind = ["log_odds", "loss"], shape.split()[-1]
    outputs = rng.normal(size=(r, n) if "binary" in shape or shape == "predictions" else (r, n, 3))
    if shape == "predictions":
        labels, names = rng.normal(size=n), ["loss"]
    elif shape == "queries":
        outputs, kind = rng.normal(size=(r, n, q, 3)), "logits"
    elif shape == "probs":
        outputs = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    elif shape == "binary probs":
        outputs = 1 / (1 + np.exp(-outputs))
    target = outputs[0] + 0.0
    told = references_from_outputs(outputs, trained_on, labels, signal=names, target=target)
    assert told.source == "outputs" and set(told.signals) == set(names)
    np.testing.assert_array_equal(told.trained_on, trained_on)
    for model in range(r):
        for query in range(q if shape == "queries" else 1):
            own = outputs[model][:, query] if shape == "queries" else outputs[model]
            expected = signals_of(own, labels, names, kind)
            for i, name in enumerate(names):
                np.testing.assert_array_equal(told.signals[name][model, :, query], expected[i])
    for name in names:
        np.testing.assert_array_equal(told.target[name], told.signals[name][0])
    one_by_one = (model for model in outputs)
    lazily = references_from_outputs(one_by_one, trained_on, labels, signal=names, target=target)
    np.testing.assert_array_equal(lazily.signals[names[0]], told.signals[names[0]])


def test_a_base_model_is_one_model_that_saw_nobody():
    rng = np.random.default_rng(0)
    outputs, labels = rng.normal(size=(10, 3)).astype(np.float32), rng.integers(0, 3, 10)
    told = references_from_base(outputs, labels)
    assert told.source == "base" and told.trained_on.shape == (1, 10) and not told.trained_on.any()
    np.testing.assert_array_equal(
        told.signals["log_prob@T=2"][0, :, 0], signals_of(outputs, labels, ["log_prob@T=2"])[0]
    )


def test_wrong_outputs_say_what_is_wrong():
    rng = np.random.default_rng(0)
    outputs, labels, trained = rng.normal(size=(2, 6, 3)), np.arange(6) % 3, np.ones((2, 6), bool)
    for code, says, arguments in (
        ("DV004", "outputs of 1 models, trained_on has 2", (outputs[:1], trained, labels)),
        ("DV004", "trained_on has 5 records", (outputs, trained[:, :5], labels)),
        ("DV003", "trained_on is float64", (outputs, trained * 0.5, labels)),
        ("DV003", r"model 0 has outputs of shape \(5, 3\)", (outputs[:, :5], trained, labels)),
        ("DV003", r"model 1 has outputs .* model 0 of", ([outputs[0], outputs[1, :, :2]], trained, labels)),
        ("DV056", "look like logits, those of model 0 like probs", ([np.eye(3)[labels], outputs[1]], trained, labels)),
        ("DV003", "NaN", (outputs * np.nan, trained, labels)),
        ("DV003", "hold no model", ([], trained[:0], labels)),
    ):
        with pytest.raises(InputError, match=says) as caught:
            references_from_outputs(*arguments)
        assert caught.value.code == code, says
    with pytest.raises(InputError, match="nothing says what the target answers"):
        references_from_outputs(rng.normal(size=(2, 6, 4, 3)), trained, labels)
    with pytest.raises(InputError, match="1 queries a record, the models 4"):
        references_from_outputs(rng.normal(size=(2, 6, 4, 3)), trained, labels, target=outputs[0])
