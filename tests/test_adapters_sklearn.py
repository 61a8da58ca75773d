"""scikit-learn, XGBoost, LightGBM, CatBoost: logits by their names there, labels by `classes_`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import (
    calibration,
    ensemble,
    linear_model,
    model_selection,
    multiclass,
    multioutput,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

import divulge
from adapting import M, assert_same, everything, log_softmax, records

# In float64: the probabilities that are compared with would round at 1 otherwise.
SIDES = {classes: [(x.astype(np.float64), y) for x, y in records(classes)] for classes in (2, 3)}


def fitted(model, classes=3, names=None):
    x, y = SIDES[classes][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y if names is None else np.asarray(names)[y])


def scaled(model):
    return pipeline.make_pipeline(preprocessing.StandardScaler(), model)


LOGITS = {
    "logistic": linear_model.LogisticRegression(),
    "pipeline": scaled(linear_model.LogisticRegression()),
    "search": model_selection.GridSearchCV(linear_model.LogisticRegression(), {"C": [0.1, 1]}, cv=2),
    "boosting": ensemble.GradientBoostingClassifier(n_estimators=3),
    "histogram boosting": ensemble.HistGradientBoostingClassifier(max_iter=3),
    "network": neural_network.MLPClassifier((4,), max_iter=5),
    "network in a pipeline": scaled(neural_network.MLPClassifier((4,), max_iter=5)),
    "naive Bayes": naive_bayes.GaussianNB(),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_those_that_make_the_probabilities(name, classes):
    model, sides = fitted(LOGITS[name], classes), SIDES[classes]
    evidence = divulge.collect(model, *sides, batch_size=20)
    probs = model.predict_proba(everything(sides)[0])
    assert_same(evidence, np.log(probs), sides)
    assert evidence.classes == tuple(map(str, range(classes)))


@pytest.mark.parametrize(
    "model",
    [
        ensemble.RandomForestClassifier(n_estimators=4),
        tree.DecisionTreeClassifier(),
        calibration.CalibratedClassifierCV(svm.LinearSVC(), cv=2),
        multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
        linear_model.SGDClassifier(loss="log_loss"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_without_logits_give_probabilities_and_the_log_says_so(model, caplog):
    caplog.set_level("INFO")
    evidence = divulge.collect(fitted(model), *SIDES[3], batch_size=20)
    assert evidence.kind == "probs" and caplog.text.count("this model has no logits") == 1
    np.testing.assert_allclose(evidence.outputs, model.predict_proba(everything(SIDES[3])[0]), atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_margins_where_there_are_no_probabilities(classes):
    model = fitted(svm.LinearSVC(), classes)
    evidence = divulge.collect(model, *SIDES[classes], batch_size=20)
    np.testing.assert_allclose(evidence.outputs, model.decision_function(everything(SIDES[classes])[0]), atol=1e-12)
    right = model.predict(everything(SIDES[classes])[0]) == everything(SIDES[classes])[1]
    np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)


def test_labels_are_placed_by_classes_and_strangers_refused():
    names = np.array(["zebra", "ant", "cat"])  # classes_ sorts them
    model = fitted(linear_model.LogisticRegression(), names=names)
    sides = [(x, names[y]) for x, y in SIDES[3]]
    evidence = divulge.collect(model, *sides, batch_size=20)
    assert evidence.classes == ("ant", "cat", "zebra")
    right = model.predict(everything(sides)[0]) == everything(sides)[1]
    np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)
    strange = sides[1][0], np.where(sides[1][1] == "ant", "emu", sides[1][1])
    with pytest.raises(divulge.InputError, match=r"DV024 .*emu"):
        divulge.collect(model, sides[0], strange)
    binary = fitted(linear_model.LogisticRegression(), 2, names=[5, 3])
    evidence = divulge.collect(binary, *[(x, np.array([5, 3])[y]) for x, y in SIDES[2]])
    assert evidence.task == "binary" and evidence.classes == ("3", "5")
    assert divulge.signals.signal(evidence, "correct").mean() > 0.6


def test_frames_keep_their_names_and_regressors_predict():
    import pandas as pd

    frames = [(pd.DataFrame(x, columns=list("abcdef")), x[:, 0] * 1.5) for x, _ in SIDES[3]]
    model = scaled(linear_model.Ridge()).fit(*frames[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn warns where names are lost
        evidence = divulge.collect(model, *frames, batch_size=20)
    assert evidence.task == "regression"
    np.testing.assert_allclose(evidence.outputs[:M], model.predict(frames[0][0]), rtol=1e-6)


def test_several_outputs_and_unfitted_models_are_refused():
    x, y = SIDES[3][0]
    both = np.stack((y, 2 - y), axis=1)
    for model in (
        ensemble.RandomForestClassifier(n_estimators=2),
        multioutput.MultiOutputClassifier(tree.DecisionTreeClassifier()),
    ):
        with pytest.raises(divulge.InputError, match=r"DV075 .* 2 outputs"):
            divulge.collect(model.fit(x, both), (x, both), (x, both))
    with pytest.raises(divulge.InputError, match="DV075 the model predicts 2 targets"):
        divulge.collect(linear_model.LinearRegression().fit(x, x[:, :2]), (x, y * 0.3), (x, y * 0.3))
    with pytest.raises(divulge.InputError, match=r"DV075 .* no classes_"):
        divulge.collect(linear_model.LogisticRegression(), *SIDES[3])


def test_several_labels_a_record():
    (x, y), (x_test, y_test) = SIDES[3]
    sides = [(x, np.eye(3, dtype=int)[y]), (x_test, np.eye(3, dtype=int)[y_test])]
    sides[0][1][::3, 0] = sides[1][1][::3, 0] = 1
    model = multiclass.OneVsRestClassifier(linear_model.LogisticRegression()).fit(*sides[0])
    evidence = divulge.collect(model, *sides)
    assert evidence.task == "multilabel" and evidence.kind == "logits"
    np.testing.assert_allclose(1 / (1 + np.exp(-evidence.outputs[:M])), model.predict_proba(x), atol=1e-6)


def test_a_network_is_left_as_it_was():
    model = fitted(neural_network.MLPClassifier((4,), max_iter=3))
    before = model.predict_proba(SIDES[3][0][0])
    divulge.collect(model, *SIDES[3])
    assert model.out_activation_ == "softmax"
    np.testing.assert_array_equal(model.predict_proba(SIDES[3][0][0]), before)


# ------------------------------------------------------------------------------------------------------ boosting


def boosted(require, library, classes):
    x, y = SIDES[classes][0]
    module = require(library)
    if library == "xgboost":
        model = module.XGBClassifier(n_estimators=4, n_jobs=1).fit(x, y)
        return model, model.get_booster(), model.predict_proba
    if library == "lightgbm":
        model = module.LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1, n_jobs=1).fit(x, y)
        return model, model.booster_, lambda x: model.booster_.predict(np.asarray(x))
    model = module.CatBoostClassifier(iterations=4, verbose=False, thread_count=1, allow_writing_files=False).fit(x, y)
    return model, model, model.predict_proba


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_boosted_classifiers_give_margins(require, library, classes):
    model, booster, predict = boosted(require, library, classes)
    sides = SIDES[classes]
    probs = predict(everything(sides)[0])
    probs = probs if probs.ndim == 2 else np.stack((1 - probs, probs), axis=1)
    for one in (model, booster):
        evidence = divulge.collect(one, *sides, batch_size=20)
        assert_same(evidence, np.log(probs), sides)
        assert evidence.task == ("binary" if classes == 2 else "multiclass")


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "catboost"])
def test_boosted_regressors_predict(require, library):
    module = require(library)
    make = {
        "xgboost": lambda: module.XGBRegressor(n_estimators=3),
        "lightgbm": lambda: module.LGBMRegressor(n_estimators=3, min_child_samples=5, verbose=-1),
        "catboost": lambda: module.CatBoostRegressor(iterations=3, verbose=False, allow_writing_files=False),
    }[library]
    sides = [(x, x[:, 0] * 1.5) for x, _ in SIDES[3]]
    model = make().fit(*sides[0])
    evidence = divulge.collect(model, *sides, batch_size=20)
    assert evidence.task == "regression"
    np.testing.assert_allclose(evidence.outputs, model.predict(everything(sides)[0]), rtol=1e-6)


def test_text_classes_of_boosted_models(require):
    names = np.array(["zebra", "ant", "cat"])
    sides = [(x, names[y]) for x, y in SIDES[3]]
    for make in (
        lambda: require("lightgbm").LGBMClassifier(n_estimators=4, min_child_samples=5, verbose=-1),
        lambda: require("catboost").CatBoostClassifier(iterations=4, verbose=False, allow_writing_files=False),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = make().fit(*sides[0])
            evidence = divulge.collect(model, *sides)
            right = np.ravel(model.predict(everything(sides)[0])) == everything(sides)[1]
        assert evidence.classes == ("ant", "cat", "zebra")
        np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)


def test_the_data_of_the_libraries_themselves(require):
    xgboost, catboost = require("xgboost"), require("catboost")
    matrices = [xgboost.DMatrix(x, label=y) for x, y in SIDES[3]]
    wrapper, booster, _ = boosted(require, "xgboost", 3)
    logits = wrapper.predict(everything(SIDES[3])[0], output_margin=True)
    for model in (wrapper, booster):
        assert_same(divulge.collect(model, *matrices), logits, SIDES[3])
    with pytest.raises(divulge.InputError, match="DV072"):
        divulge.collect(booster, xgboost.DMatrix(SIDES[3][0][0]), matrices[1])
    pools = [catboost.Pool(x, y) for x, y in SIDES[3]]
    model = boosted(require, "catboost", 3)[0]
    logits = model.predict(everything(SIDES[3])[0], prediction_type="RawFormulaVal")
    assert_same(divulge.collect(model, *pools), logits, SIDES[3])


def test_early_stopping_of_a_wrapper_holds(require):
    xgboost = require("xgboost")
    model = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=2, n_jobs=1, learning_rate=1.0)
    model.fit(*SIDES[3][0], eval_set=[SIDES[3][1]], verbose=False)
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    probs = model.predict_proba(everything(SIDES[3])[0])
    for sides in (SIDES[3], [xgboost.DMatrix(x, label=y) for x, y in SIDES[3]]):
        assert_same(divulge.collect(model, *sides), np.log(probs), SIDES[3])


def test_a_slope_of_lightgbm_and_objectives_that_are_refused(require):
    lightgbm, xgboost = require("lightgbm"), require("xgboost")
    x, y = SIDES[2][0]
    quiet = {"verbose": -1, "min_data_in_leaf": 5, "num_threads": 1}
    model = lightgbm.train({"objective": "binary", "sigmoid": 2.5, **quiet}, lightgbm.Dataset(x, y), 4)
    probs = model.predict(everything(SIDES[2])[0])
    evidence = divulge.collect(model, *SIDES[2])
    np.testing.assert_allclose(log_softmax(evidence.outputs)[:, 1], np.log(probs), atol=1e-6)
    data = lightgbm.Dataset(x, y, group=[35, 35])
    ranked = [lightgbm.train({"objective": "lambdarank", **quiet}, data, 2)]
    matrix = xgboost.DMatrix(x, label=y, group=[35, 35])
    ranked.append(xgboost.train({"objective": "rank:ndcg"}, matrix, 2))
    for model in ranked:
        with pytest.raises(divulge.InputError, match=r"DV075 the model was trained for (lambdarank|rank:ndcg)"):
            divulge.collect(model, *SIDES[2])


# ------------------------------------------------------------------------------------- outputs that are no logits


def of_one_against_the_rest(probs):
    return np.log(probs / probs.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("wrap", [lambda model: model, scaled])
def test_margins_of_pairs_of_classes_are_refused(wrap):
    model = fitted(wrap(svm.SVC(decision_function_shape="ovo")))
    with pytest.raises(divulge.InputError, match=r"DV075 .*decision_function_shape='ovr'"):
        divulge.collect(model, *SIDES[3])
    assert divulge.collect(fitted(wrap(svm.SVC())), *SIDES[3]).kind == "logits"
    assert divulge.collect(fitted(svm.SVC(decision_function_shape="ovo"), 2), *SIDES[2]).task == "binary"
    assert divulge.collect(fitted(linear_model.RidgeClassifier()), *SIDES[3]).kind == "logits"


def test_margins_of_more_pairs_than_classes_are_refused():
    rng = np.random.default_rng(0)
    sides = [(rng.normal(size=(80, 4)), np.arange(80) % 4) for _ in range(2)]
    with pytest.raises(divulge.InputError, match=r"DV075 .*\(80, 6\) for 4 classes"):
        divulge.collect(svm.SVC(decision_function_shape="ovo").fit(*sides[0]), *sides)


def test_a_classifier_that_only_names_a_class_is_refused():
    model = fitted(ensemble.VotingClassifier([("tree", tree.DecisionTreeClassifier())], voting="hard"))
    with pytest.raises(divulge.InputError, match=r"DV075 .*VotingClassifier with neither.*voting='soft'"):
        divulge.collect(model, *SIDES[3])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_a_random_forest_of_lightgbm_gives_probabilities(require, classes):
    options = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7, "min_child_samples": 5}
    model = fitted(require("lightgbm").LGBMClassifier(**options, n_estimators=4, verbose=-1, n_jobs=1), classes)
    probs = model.predict_proba(everything(SIDES[classes])[0])
    for one in (model, model.booster_):
        evidence = divulge.collect(one, *SIDES[classes], batch_size=20)
        assert evidence.kind == "probs"
        np.testing.assert_allclose(evidence.outputs, probs[:, 1] if evidence.outputs.ndim == 1 else probs, atol=1e-9)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_one_against_the_rest_is_no_softmax(require, caplog):
    lightgbm = require("lightgbm").LGBMClassifier(
        objective="multiclassova", n_estimators=30, min_child_samples=5, verbose=-1, n_jobs=1
    )
    catboost = require("catboost").CatBoostClassifier(
        iterations=30, loss_function="MultiClassOneVsAll", verbose=False, thread_count=1, allow_writing_files=False
    )
    for model in map(fitted, (lightgbm, catboost)):
        caplog.clear()
        evidence = divulge.collect(model, *SIDES[3], batch_size=20)
        probs = model.predict_proba(everything(SIDES[3])[0])
        assert evidence.kind == "probs" and caplog.text.count("a probability of its own") == 1
        np.testing.assert_allclose(np.log(evidence.outputs), of_one_against_the_rest(probs), atol=1e-6)


def test_several_labels_of_catboost_stay_logits(require):
    x, y = SIDES[3][0]
    several = np.stack((y == 0, y == 1, x[:, 0] > 0), axis=1).astype(int)
    model = require("catboost").CatBoostClassifier(
        iterations=5, loss_function="MultiLogloss", verbose=False, thread_count=1, allow_writing_files=False
    )
    evidence = divulge.collect(model.fit(x, several), (x, several), (x[:40], several[:40]))
    assert (evidence.task, evidence.kind) == ("multilabel", "logits")
    np.testing.assert_allclose(1 / (1 + np.exp(-evidence.outputs[:M])), model.predict_proba(x), atol=1e-6)


def test_an_objective_of_ones_own_is_not_taken_for_a_regression(require):
    xgboost = require("xgboost")

    def logistic(margins, data):
        probs = 1 / (1 + np.exp(-margins))
        return probs - data.get_label(), probs * (1 - probs)

    matrices = [xgboost.DMatrix(x, label=y) for x, y in SIDES[2]]
    booster = xgboost.train({"base_score": 0.0}, matrices[0], 10, obj=logistic)
    for data in (matrices, SIDES[2]):
        with pytest.raises(divulge.InputError, match=r"DV075 .*objective of its own.*output_margin=True"):
            divulge.collect(booster, *data)
    evidence = divulge.collect(lambda x: booster.predict(xgboost.DMatrix(x), output_margin=True), *SIDES[2])
    assert (evidence.task, evidence.kind) == ("binary", "logits")
    targets = [(x, x[:, 0] * 2) for x, _ in SIDES[2]]
    regression = xgboost.train({}, xgboost.DMatrix(targets[0][0], label=targets[0][1]), 3)
    assert divulge.collect(regression, *targets).task == "regression"
    assert divulge.collect(xgboost.XGBRegressor(n_estimators=20).fit(*SIDES[2][0]), *SIDES[2]).task == "regression"
