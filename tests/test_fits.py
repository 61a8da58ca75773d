"""Ready fits: the same seed gives the same bits, every class has its column, and what is trained is what was asked."""

from __future__ import annotations

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from divulge.errors import InputError
from divulge.fits import Jax, Keras, LightGBM, Sklearn, Torch, XGBoost, as_fit
from divulge.fits.outputs import codes_of
from divulge.fits.sklearn import prepared
from divulge.model_outputs import kind_of, signals_of

N, CLASSES = 160, 4
EVERYONE = np.arange(N)
HALF = np.arange(0, N, 2)


def data(classes=CLASSES):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 5)).astype(np.float32)
    return x, (np.abs(3 * x[:, 0]).astype(int) + (rng.random(N) < 0.3)) % classes


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def probabilities(outputs, labels):
    return outputs if kind_of(outputs, np.asarray(labels)) == "probs" else softmax(outputs.astype(np.float64))


def assert_reproduced(fit, records, rows=HALF, draws=True):
    """The same bits again, also from a copy that travelled; others from another seed where the training draws."""
    first, again = (one(records, rows, 3)(records, EVERYONE, 0) for one in (fit, pickle.loads(pickle.dumps(fit))))
    np.testing.assert_array_equal(first, again)
    other = fit(records, rows, 4)(records, EVERYONE, 0)
    assert (first != other).any() == draws
    assert "0x" not in repr(fit)
    return first


# ------------------------------------------------------------------------------------------------- scikit-learn

ESTIMATORS = {
    "logistic": (LogisticRegression(), "logits", False),
    "forest": (RandomForestClassifier(8, n_jobs=-1), "probs", True),
    "boosting": (GradientBoostingClassifier(n_estimators=5, subsample=0.5), "logits", True),
    "network": (MLPClassifier((8,), max_iter=5), "logits", True),
    "bayes": (GaussianNB(), "logits", False),
    "margins": (LinearSVC(), "logits", False),
    "pipeline": (make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=5)), "logits", True),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators(name, classes):
    estimator, kind, draws = ESTIMATORS[name]
    records = data(classes)
    before = repr(estimator)
    outputs = assert_reproduced(Sklearn(estimator), records, draws=draws)
    assert repr(estimator) == before and not hasattr(estimator, "classes_")
    assert outputs.shape == (N, classes) and kind_of(outputs, records[1]) == kind
    if name != "margins":
        fitted = prepared(estimator, 3).fit(records[0][HALF], records[1][HALF])
        np.testing.assert_allclose(
            probabilities(outputs, records[1]), fitted.predict_proba(records[0]), rtol=1e-4, atol=1e-6
        )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_class_that_the_rows_lack_has_probability_0(name):
    estimator, kind, _ = ESTIMATORS[name]
    x, y = data()
    rows = np.flatnonzero(y != 1)[::2]
    outputs = Sklearn(estimator)((x, y), rows, 0)((x, y), EVERYONE, 0)
    assert outputs.shape == (N, CLASSES) and np.isfinite(outputs).all() and kind_of(outputs, y) == kind
    p = probabilities(outputs, y)
    assert p[:, 1].max() < 1e-30
    log_odds = signals_of(outputs, y, ["log_odds"])[0]
    assert log_odds[y == 1].max() < (-60 if kind == "logits" else -2) and np.median(log_odds[y != 1]) > -2
    # The other columns are what they would be if that class did not exist.
    short = np.flatnonzero(y != 1)
    without = x[short], y[short]
    among = Sklearn(estimator)(without, np.searchsorted(short, rows), 0)(without, np.arange(len(short)), 0)
    np.testing.assert_allclose(p[short][:, [0, 2, 3]], probabilities(among, without[1]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["forest", "network", "margins", "pipeline", "xgboost", "lightgbm"])
@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_columns_are_those_of_the_fits_labels_whoever_asks(require, name, texts):
    """Asked about fewer records, in another order, of fewer classes, or without labels."""
    x, y = data()
    labels = np.array([f"class {one}" for one in y]) if texts else y
    if name in ESTIMATORS:
        fit = Sklearn(ESTIMATORS[name][0])
    else:
        require(name)
        fit = {"xgboost": XGBoost({}, rounds=4), "lightgbm": LightGBM({}, rounds=4)}[name]
    rows = np.flatnonzero(y != 1)[::2]
    predict = fit((x, labels), rows, 0)
    expected = predict((x, labels), EVERYONE, 0)
    few = np.flatnonzero(y == 3)[::-1]
    for given in (labels[few], None):
        np.testing.assert_array_equal(predict((x[few], given), np.arange(len(few)), 0), expected[few])


def test_rows_of_one_class_are_sure_of_it():
    x, y = data()
    rows = np.flatnonzero(y == 2)
    outputs = Sklearn(RandomForestClassifier(2))((x, y), rows, 0)((x, y), EVERYONE, 0)
    np.testing.assert_array_equal(outputs, np.eye(CLASSES)[np.full(N, 2)])


@pytest.mark.parametrize("name", ["sklearn", "xgboost", "lightgbm"])
def test_weights_beside_the_labels_are_refused(require, name):
    if name != "sklearn":
        require(name)
    fit = {"sklearn": Sklearn(GaussianNB()), "xgboost": XGBoost({}), "lightgbm": LightGBM({})}[name]
    x, y = data()
    for wrong in ((x, y, np.ones(N)), {"x": x, "y": y}):
        with pytest.raises(InputError, match=r"DV003 .*\(x, y\).*weights.*def fit"):
            fit(wrong, HALF, 0)


def test_texts_tables_and_regressions():
    x, _ = data(2)
    frame, labels = pd.DataFrame(x, columns=list("abcde")), pd.Series(np.where(x[:, 0] > 0, "yes", "no"))
    outputs = Sklearn(LogisticRegression())((frame, labels), HALF, 0)((frame, labels), EVERYONE, 0)
    assert (outputs.argmax(axis=1) == (x[:, 0] > 0)).mean() > 0.9
    y = x[:, 0].astype(np.float64)
    for estimator in (Ridge(), RandomForestRegressor(4)):
        predictions = Sklearn(estimator)((x, y), HALF, 0)((x, y), EVERYONE, 0)
        assert predictions.shape == (N,) and np.corrcoef(predictions, y)[0, 1] > 0.8


def test_every_random_state_is_set_and_every_thread_but_one_taken():
    model = prepared(make_pipeline(StandardScaler(), RandomForestClassifier(n_jobs=-1)), 7)
    assert model[-1].random_state is not None and model[-1].n_jobs == 1
    two = make_pipeline(RandomForestClassifier(), RandomForestClassifier())
    states = [step.random_state for step in prepared(two, 7).named_steps.values()]
    assert len(set(states)) == 2 and all(0 <= state < 2**31 for state in states)


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm", "catboost"])
def test_wrappers_of_boosting(require, name, classes):
    boosting = require(name)
    x, y = data(classes)
    estimator = {
        "xgboost": lambda: boosting.XGBClassifier(n_estimators=5, subsample=0.5),
        "lightgbm": lambda: boosting.LGBMClassifier(n_estimators=5, subsample=0.5, subsample_freq=1, verbosity=-1),
        "catboost": lambda: boosting.CatBoostClassifier(iterations=5, verbose=False),
    }[name]()
    outputs = assert_reproduced(Sklearn(estimator), (x, y))
    assert outputs.shape == (N, classes) and kind_of(outputs, y) == "logits"
    fitted = prepared(estimator, 3).fit(x[HALF], y[HALF])
    np.testing.assert_allclose(softmax(outputs), fitted.predict_proba(x), rtol=1e-3, atol=1e-5)
    rows = np.flatnonzero(y != 1)[::2] if classes > 2 else HALF
    lacking = probabilities(
        Sklearn(make_pipeline(StandardScaler(), estimator))((x, y), rows, 0)((x, y), EVERYONE, 0), y
    )
    assert lacking.shape == (N, classes) and (classes == 2 or lacking[:, 1].max() < 1e-30)


# --------------------------------------------------------------------------------------------- boosting, natively


@pytest.mark.parametrize("classes", [2, CLASSES])
@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_boosting(require, name, classes):
    boosting = require(name)
    x, y = data(classes)
    fit = {
        "xgboost": XGBoost({"max_depth": 3, "subsample": 0.5, "seed": 1, "n_jobs": 4}, rounds=8),
        "lightgbm": LightGBM(
            {"num_leaves": 7, "bagging_fraction": 0.5, "bagging_freq": 1, "n_jobs": 4, "random_state": 1}, rounds=8
        ),
    }[name]
    outputs = assert_reproduced(fit, (x, y))
    assert outputs.shape == (N, classes) and kind_of(outputs, y) == "logits"
    objective = {"xgboost": ("binary:logistic", "multi:softprob"), "lightgbm": ("binary", "multiclass")}[name]
    parameters = {
        **{key: value for key, value in fit.parameters.items() if key not in ("seed", "n_jobs", "random_state")},
        "objective": objective[classes > 2],
        "seed": 3,
    }
    if classes > 2:
        parameters["num_class"] = classes
    if name == "xgboost":
        booster = boosting.train({**parameters, "nthread": 1}, boosting.DMatrix(x[HALF], y[HALF]), 8)
        p = booster.predict(boosting.DMatrix(x))
    else:
        fixed = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}
        booster = boosting.train({**parameters, **fixed}, boosting.Dataset(x[HALF], y[HALF]), 8)
        p = booster.predict(x)
    p = np.stack([1 - p, p], axis=1) if p.ndim == 1 else p
    np.testing.assert_allclose(softmax(outputs.astype(np.float64)), p, rtol=1e-4, atol=1e-6)
    texts = np.array(["a", "b", "c", "d"])[y]
    np.testing.assert_array_equal(fit((x, texts), HALF, 3)((x, texts), EVERYONE, 0), outputs)
    assert fit.brief()[0].rounds == 1 and fit.brief()[1] == 8


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_boosting_without_a_class_and_of_a_regression(require, name):
    require(name)
    x, y = data()
    fit = {"xgboost": XGBoost({}, rounds=8), "lightgbm": LightGBM({}, rounds=8)}[name]
    rows = np.flatnonzero(y != 1)[::2]
    outputs = fit((x, y), rows, 0)((x, y), EVERYONE, 0)
    assert outputs.shape == (N, CLASSES) and np.isfinite(outputs).all()
    p = softmax(outputs.astype(np.float64))
    assert p[:, 1].mean() < 0.2 and p[:, 1].mean() < p[:, [0, 2, 3]].mean(axis=0).min()
    predictions = fit((x, x[:, 0]), HALF, 0)((x, x[:, 0]), EVERYONE, 0)
    assert predictions.shape == (N,) and np.corrcoef(predictions, x[:, 0])[0, 1] > 0.7
    with pytest.raises(InputError, match="DV003"):
        type(fit)({}, rounds=0)
    with pytest.raises(InputError, match=r"DV003 .*Views"):
        fit((x, y), rows, 0)((x, y), EVERYONE, 1)


# ------------------------------------------------------------------------------------------------------- Keras


def dense(classes=CLASSES):
    import keras

    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(8, activation="relu")])
    model.add(keras.layers.Dense(classes, activation="softmax"))
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


def test_keras(require):
    keras = require("keras")
    x, y = data()
    fit = Keras(dense, epochs=3, batch_size=16)
    outputs = fit((x, y), HALF, 3)((x, y), EVERYONE, 0)
    assert kind_of(outputs, y) == "logits", "the last softmax is taken away"
    keras.utils.set_random_seed(3)
    model = dense()
    model.fit(x[HALF], y[HALF], epochs=3, batch_size=16, verbose=0)
    np.testing.assert_allclose(softmax(outputs), model.predict(x, verbose=0), atol=1e-5)
    texts = np.array(["a", "b", "c", "d"])[y]
    again = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(again((x, texts), HALF, 3)((x, texts), EVERYONE, 0), outputs)
    assert (fit((x, y), HALF, 4)((x, y), EVERYONE, 0) != outputs).any()
    assert fit.brief() == (Keras(dense, epochs=1, batch_size=16), 3.0) and repr(fit) == repr(again)


def test_keras_wants_a_new_compiled_model(require):
    keras = require("keras")
    with pytest.raises(InputError, match=r"DV003 .*compiled"):
        Keras(lambda: keras.Sequential([keras.layers.Dense(2)]), epochs=1)(data(), HALF, 0)
    kept = dense()
    kept.fit(*data(), verbose=0)
    with pytest.raises(InputError, match=r"DV003 .*new model"):
        Keras(lambda: kept, epochs=1)(data(), HALF, 0)
    with pytest.raises(InputError, match=r"DV003 .*epochs"):
        Keras(dense, epochs=0)


# --------------------------------------------------------------------------------------------------------- JAX


def init(key, x):
    import jax

    first, second = jax.random.split(key)
    return {"in": jax.random.normal(first, (x.shape[1], 8)) / 2, "out": jax.random.normal(second, (8, CLASSES)) / 2}


def apply(parameters, x):
    import jax

    return jax.nn.relu(x @ parameters["in"]) @ parameters["out"]


def apply_normalised(parameters, x):
    z = apply(parameters, x)
    return (z - z.mean(axis=0)) / (z.std(axis=0) + 0.1)


def momentum():
    import optax

    return optax.sgd(0.1, momentum=0.9)


def clipped():
    """What looks at all numbers of a model, but not beyond it."""
    import optax

    return optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2))


@pytest.mark.parametrize(("function", "optimizer"), [(apply, momentum), (apply, clipped), (apply_normalised, momentum)])
def test_jax_at_once_is_one_by_one(require, function, optimizer):
    require("jax"), require("optax")
    records = data()
    fit = Jax(init, function, epochs=3, batch_size=16, optimizer=optimizer)
    rows = [np.sort(np.random.default_rng(i).permutation(N)[: 75 + i % 2 * 4]) for i in range(4)]
    one_by_one = [fit(records, part, i)(records, EVERYONE, 0) for i, part in enumerate(rows)]
    at_once = [predict(records, EVERYONE, 0) for predict in fit.fit_many(records, rows, range(4))]
    assert np.abs(one_by_one[0] - one_by_one[1]).max() > 0.1
    np.testing.assert_allclose(at_once, one_by_one, rtol=0, atol=1e-5)
    np.testing.assert_allclose(fit.fit_many(records, rows[:1], [0])[0](records, EVERYONE, 0), one_by_one[0], atol=1e-5)


def test_jax_is_the_loop_that_one_would_write(require):
    jax, optax = require("jax"), require("optax")
    x, y = data()
    fit = Jax(init, apply, epochs=3, batch_size=16, optimizer=momentum)
    outputs = assert_reproduced(fit, (x, y))
    parameters = init(jax.random.PRNGKey(3), x)
    optimizer = momentum()
    state = optimizer.init(parameters)

    def loss(parameters, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply(parameters, x), y).mean()

    for epoch in range(3):
        order = HALF[np.random.default_rng((3, epoch)).permutation(len(HALF))]
        for start in range(0, len(HALF), 16):
            part = order[start : start + 16]
            updates, state = optimizer.update(jax.grad(loss)(parameters, x[part], y[part]), state, parameters)
            parameters = optax.apply_updates(parameters, updates)
    np.testing.assert_allclose(outputs, apply(parameters, x), rtol=0, atol=1e-5)
    assert fit.fit_many((x, y), [], []) == [] and fit.brief()[1] == 3


def test_jax_losses(require):
    require("jax"), require("optax")
    x, y = data(2)
    one = Jax(lambda key, x: np.zeros(5), lambda w, x: x @ w, epochs=3, batch_size=16, optimizer=momentum)
    for labels in (y, np.array(["no", "yes"])[y]):
        assert one((x, labels), HALF, 0)((x, labels), EVERYONE, 0).shape == (N, 2)
    with pytest.raises(InputError, match=r"DV003 .*regression"):
        one((x, x[:, 0]), HALF, 0)
    squared = Jax(
        one.init, one.apply, epochs=9, optimizer=momentum, loss=lambda outputs, targets: (outputs - targets) ** 2
    )
    predictions = squared((x, x[:, 0]), HALF, 0)((x, x[:, 0]), EVERYONE, 0)
    assert np.corrcoef(predictions, x[:, 0])[0, 1] > 0.9
    averaged = Jax(one.init, one.apply, epochs=1, optimizer=momentum, loss=lambda outputs, targets: outputs.mean())
    with pytest.raises(InputError, match=r"DV003 .*loss of each row"):
        averaged((x, y), HALF, 0)


# ---------------------------------------------------------------------------------------------- one logit of two


def half_torch(end=None):
    """A module that gives every record a logit of 0.5, or its probability."""
    import torch

    last = torch.nn.Linear(5, 1)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.constant_(last.bias, 0.5)
    return last if end is None else torch.nn.Sequential(last, end())


def half_keras(activation=None):
    import keras

    model = keras.Sequential([keras.layers.Input((5,))])
    half = keras.initializers.Constant(0.5)
    model.add(keras.layers.Dense(1, activation=activation, kernel_initializer="zeros", bias_initializer=half))
    loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


def of_torch(require, end=None, **options):
    torch = require("torch")
    optimizer = functools.partial(torch.optim.SGD, lr=0.0)
    return Torch(
        functools.partial(half_torch, end and getattr(torch.nn, end)), epochs=1, optimizer=optimizer, **options
    )


def of_jax(require):
    require("jax"), require("optax")
    return Jax(lambda key, x: np.zeros(5), lambda w, x: x @ w * 0 + 0.5, epochs=1, optimizer=momentum)


def of_keras(require, activation=None):
    require("keras")
    return Keras(functools.partial(half_keras, activation), epochs=1)


def on_probabilities(outputs, targets):
    from torch.nn import functional

    return functional.binary_cross_entropy(outputs.reshape(-1), targets.float(), reduction="none")


@pytest.mark.parametrize(
    "make",
    [
        of_torch,
        lambda require: of_torch(require, "Sigmoid", loss=on_probabilities),
        of_jax,
        of_keras,
        lambda require: of_keras(require, "sigmoid"),
    ],
    ids=["torch", "torch with a sigmoid", "jax", "keras", "keras with a sigmoid"],
)
def test_one_logit_is_never_taken_for_a_probability_however_small_it_is(require, make):
    """By its values 0.5 is a probability: half of the models of one run would be read as one thing, half as another."""
    fit, (x, y) = make(require), data(2)
    outputs = fit((x, y), HALF, 0)((x, y), EVERYONE, 0)
    np.testing.assert_allclose(outputs, np.tile([-0.25, 0.25], (N, 1)), atol=1e-6)
    assert kind_of(outputs, y) == "logits"
    if hasattr(fit, "many"):
        np.testing.assert_allclose(fit.fit_many((x, y), [HALF], [0])[0]((x, y), EVERYONE, 0), outputs, atol=1e-6)


# ------------------------------------------------------------------------------------------------ what is a fit


def test_what_people_give_becomes_a_fit():
    def fit(data, rows, seed):
        return lambda data, rows, query: np.zeros((len(rows), 2))

    assert as_fit(fit) is fit
    partial = functools.partial(fit, seed=0)
    assert as_fit(partial) is partial
    own = Torch(dict, epochs=1, optimizer=dict)
    assert as_fit(own) is own
    estimator = make_pipeline(StandardScaler(), LogisticRegression())
    assert as_fit(estimator).estimator is estimator
    for wrong in (LogisticRegression, 3, "fit", None):
        with pytest.raises(InputError, match="DV411"):
            as_fit(wrong)


@pytest.mark.parametrize(
    ("package", "make", "words"),
    [
        ("torch", lambda torch: torch.nn.Linear(2, 2), "fits.Torch"),
        ("keras", lambda keras: keras.Sequential([keras.layers.Dense(2)]), "fits.Keras"),
        ("xgboost", lambda xgboost: xgboost.Booster(), "fits.XGBoost"),
    ],
)
def test_a_model_does_not_say_how_it_was_trained(require, package, make, words):
    with pytest.raises(InputError, match=rf"DV411 .*{words}"):
        as_fit(make(require(package)))


def test_a_compiled_function_is_a_function(require):
    function = require("jax").jit(lambda x: x)
    assert as_fit(function) is function


def test_a_repr_names_all_that_changes_the_training():
    names = [repr(Sklearn(LogisticRegression(C=c))) for c in (0.5, 2.0)]
    assert names[0] != names[1] and "C=0.5" in names[0]
    long = repr(Sklearn(make_pipeline(StandardScaler(), RandomForestClassifier(max_features=0.25))))
    assert "max_features=0.25" in long and "…" not in long and "..." not in long


def test_labels_as_networks_take_them():
    assert codes_of(np.array([3, 0])).tolist() == [3, 0]
    assert codes_of([-1, 1, 1]).tolist() == [0, 1, 1]
    assert codes_of([True, False]).tolist() == [1, 0]
    assert codes_of([1.0, 0.0]).dtype == np.int64
    assert codes_of(np.eye(3, dtype=bool)).dtype == np.float32
    assert codes_of([[2], [1]]).tolist() == [2, 1]


def test_fits_are_quiet(require, capsys):
    require("lightgbm"), require("xgboost")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fit in (LightGBM({}, rounds=2), XGBoost({}, rounds=2)):
            fit(data(), HALF, 0)(data(), EVERYONE, 0)
    said = capsys.readouterr()
    assert said.out == said.err == ""
