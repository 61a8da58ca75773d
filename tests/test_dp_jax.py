"""DP-SGD for JAX, and for Keras on JAX, by jax-privacy behind our doors."""

from __future__ import annotations

import os

import numpy as np
import pytest

import private_training
from divulge.dp import jax as dp_jax
from divulge.dp.accounting import epsilon
from divulge.errors import InputError
from private_training import CANARY, CANARY_STEPS, TRIALS, assert_poisson, canary_data, documented, is_noise, toy


@pytest.fixture
def jax(require):
    require("jax_privacy")
    return require("jax")


@pytest.fixture
def keras(require, jax):
    keras = require("keras")
    if os.environ["KERAS_BACKEND"] != "jax":
        pytest.skip("Keras runs on another backend in this process")
    keras.utils.set_random_seed(0)
    return keras


def cross_entropy(params, x, y):
    import optax
    from jax.numpy import tanh

    return optax.softmax_cross_entropy_with_integer_labels(tanh(x @ params["first"]) @ params["last"], y)


def start(jax):
    keys = jax.random.split(jax.random.key(0))
    return {"first": 0.3 * jax.random.normal(keys[0], (8, 16)), "last": 0.3 * jax.random.normal(keys[1], (16, 2))}


def private(loss=cross_entropy, rate=0.5, **settings):
    import optax

    chosen = {"clip": 1.0, "noise": 1.0, "records": 400, "batch_size": 40, "delta": 1e-5, "seed": 5, **settings}
    return dp_jax.private(loss, optax.sgd(rate), **chosen), optax.sgd(rate)


def run(training, optimizer, params, data, steps):
    """The parameters before the first step and after each."""
    state, path = optimizer.init(params), [params]
    for _ in range(steps):
        params, state = training.step(params, state, *data)
        path.append(params)
    return path


def flat(params):
    from jax.tree import leaves

    return np.concatenate([np.asarray(part, np.float64).ravel() for part in leaves(params)])


def draws(steps, records=400, batch_size=40, **settings):
    """The rows that each step draws: each record's gradient is a coordinate of its own."""
    from jax.numpy import zeros

    training, optimizer = private(
        lambda params, x: -params @ x, 1.0, noise=0.0, records=records, batch_size=batch_size, **settings
    )
    path = run(training, optimizer, zeros(records), (np.eye(records, dtype=np.float32),), steps)
    return [np.flatnonzero(moved) for moved in np.diff(np.array([np.asarray(params) for params in path]), axis=0)]


# ------------------------------------------------------------------------------------------------------------ JAX


@pytest.mark.parametrize("clip", [0.05, 5.0])
@pytest.mark.parametrize("chunk", [None, 7])
def test_one_step_against_a_loop_over_records(jax, clip, chunk) -> None:
    x, y = toy()
    x[::3] *= 5
    training, optimizer = private(clip=clip, noise=0.0, rate=1.0, chunk=chunk)
    params = start(jax)
    after = run(training, optimizer, params, (x, y), 1)[-1]
    expected = 0.0
    for row in draws(1)[0]:
        gradient = flat(jax.grad(cross_entropy)(params, x[row], y[row]))
        expected = expected + gradient * min(1.0, clip / np.linalg.norm(gradient))
    assert flat(params) - flat(after) == pytest.approx(expected / 40, abs=1e-5)


@pytest.mark.parametrize("value", [1e6, np.nan, np.inf])
def test_a_wild_record_moves_a_step_by_clip_at_most(jax, value) -> None:
    x, y = toy()
    ends = []
    for first in (0.0, value):
        data = x.copy()
        data[draws(1)[0][0]] = first
        training, optimizer = private(clip=0.1, noise=0.0, rate=1.0)
        ends.append(flat(run(training, optimizer, start(jax), (data, y), 1)[-1]))
    assert np.isfinite(ends[1]).all()
    assert np.linalg.norm(ends[0] - ends[1]) <= 2 * 0.1 / 40 * (1 + 1e-4)  # the record in its place had a gradient too


def test_batches_are_poisson_samples(jax) -> None:
    assert_poisson(draws(3000, 60, 6), 60, 0.1)
    assert {len(rows) for rows in draws(60, 60, 6, chunk=4)} > {4, 5}


def test_noise_by_its_moments_and_an_empty_batch_has_it_too(jax) -> None:
    x = np.ones((40, 1), np.float32)
    settings = {"records": 40, "batch_size": 1, "clip": 2.0, "noise": 1.5}
    sizes = np.array([len(rows) for rows in draws(40, 40, 1)])
    training, optimizer = private(lambda params, x: 0 * params.sum(), 1.0, **settings)
    moved = np.diff(np.array(run(training, optimizer, jax.numpy.zeros(2000), (x,), 40)), axis=0)
    assert (sizes == 0).any() and training.privacy().steps == 40
    assert is_noise(moved, 1.5 * 2.0) and is_noise(moved[sizes == 0], 1.5 * 2.0)
    assert not is_noise(moved, 1.5) and not is_noise(moved, 1.5 * 2.0 * 1.02)
    assert np.abs(np.corrcoef(moved) - np.eye(40)).max() < 0.12  # each step has its own


def test_noise_is_divided_by_the_expected_batch_size(jax) -> None:
    training, optimizer = private(lambda params, x: 0 * params.sum(), 1.0, clip=2.0, noise=1.5)
    moved = np.diff(np.array(run(training, optimizer, jax.numpy.zeros(2000), (np.ones((400, 1)),), 20)), axis=0)
    assert is_noise(moved, 1.5 * 2.0 / 40) and not is_noise(moved, 1.5 * 2.0)


def test_a_restored_state_brings_no_noise_back(jax) -> None:
    training, optimizer = private(lambda params, x: 0 * params.sum(), 1.0)
    params, data = jax.numpy.zeros(50), (np.ones((400, 1)),)
    state = optimizer.init(params)
    once, _ = training.step(params, state, *data)
    again, _ = training.step(params, state, *data)
    assert (np.asarray(once) != np.asarray(again)).all() and training.privacy().steps == 2


@pytest.mark.parametrize("way", ["jit", "closed", "scan", "vmap", "data"])
def test_a_traced_step_is_refused(jax, way) -> None:
    """Its batch and noise would be constants of the compiled code, and its steps uncounted."""
    (x, y), params = toy(), start(jax)
    training, optimizer = private(steps=3)
    state = optimizer.init(params)

    def step(params):
        return training.step(params, state, x, y)[0]

    ways = {
        "jit": lambda: jax.jit(step)(params),
        "closed": lambda: jax.jit(lambda scale: step(params)["first"] * scale)(1.0),
        "scan": lambda: jax.lax.scan(lambda params, _: (step(params), None), params, length=5),
        "vmap": lambda: jax.vmap(step)(jax.tree.map(lambda part: part[None], params)),
        "data": lambda: jax.jit(lambda x: training.step(params, state, x, y))(x),
    }
    with pytest.raises(InputError, match="outside jit/scan/vmap") as error:
        ways[way]()
    assert error.value.code == "DV503" and training.privacy().steps == 0
    run(training, optimizer, params, (x, y), 3)


def test_the_statement_counts_and_steps_end_where_declared(jax) -> None:
    training, optimizer = private(noise=0.8, steps=12)
    assert training.privacy().epsilon == 0 and "known seed" in str(training.privacy())
    run(training, optimizer, start(jax), toy(), 12)
    assert training.privacy().epsilon == epsilon(0.8, 0.1, 12, 1e-5) and training.privacy().clip == 1.0
    with pytest.raises(InputError, match="12 steps") as error:
        run(training, optimizer, start(jax), toy(), 1)
    assert error.value.code == "DV505" and training.privacy().steps == 12


def test_without_noise_nothing_is_stated(jax) -> None:
    with pytest.raises(InputError, match="infinite"):
        private(noise=0.0)[0].privacy()


@pytest.mark.parametrize("settings", [{"clip": 0.0}, {"noise": -1.0}, {"batch_size": 401}, {"delta": 0.0}])
def test_settings_that_mean_nothing_are_refused(jax, settings) -> None:
    with pytest.raises(InputError) as error:
        private(**settings)
    assert error.value.code == "DV501"


def test_data_of_another_size_are_refused(jax) -> None:
    training, optimizer = private()
    x, y = toy()
    for data in ((x[:-1], y), (x, y[:-1]), (x, 1.0)):
        with pytest.raises(InputError) as error:
            run(training, optimizer, start(jax), data, 1)
        assert error.value.code == "DV504" and training.privacy().steps == 0


def test_the_same_seed_gives_the_same_weights_and_none_does_not(jax) -> None:
    def trained(seed):
        training, optimizer = private(seed=seed)
        return flat(run(training, optimizer, start(jax), toy(), 10)[-1])

    assert (trained(1) == trained(1)).all()
    assert np.abs(trained(1) - trained(2)).max() > 0.01
    assert np.abs(trained(None) - trained(None)).max() > 0.01


def test_with_little_noise_it_learns(jax) -> None:
    training, optimizer = private(noise=0.3)
    params = run(training, optimizer, start(jax), toy(), 80)[-1]
    x, y = toy(300, 1)
    assert (np.argmax(np.tanh(x @ params["first"]) @ params["last"], axis=1) == y).mean() > 0.9


def test_the_document(jax, capsys) -> None:
    import optax

    x, y = toy(2000)
    have = {"loss": cross_entropy, "optimizer": optax.adam(1e-2), "params": start(jax), "x_train": x, "y_train": y}
    exec(documented("JAX"), have)
    assert "40 steps" in capsys.readouterr().out


def last_weights(jax, canary, clip):
    """The canary's weight after each of many short trainings, started anew every few steps."""
    settings = {key: CANARY[key] for key in ("records", "batch_size", "delta")}
    noise = CANARY["noise"] * CANARY["clip"] / clip  # of the same size, whatever is clipped
    training, optimizer = private(
        lambda params, x, y: (x @ params - y[0]) ** 2, 1.0, clip=clip, noise=noise, **settings
    )
    data = canary_data(canary)
    ends = [run(training, optimizer, jax.numpy.zeros(4), data, CANARY_STEPS)[-1] for _ in range(TRIALS)]
    return np.array([end[3] for end in ends])


@pytest.mark.slow
def test_a_canary_shows_no_more_than_was_stated_unless_nothing_is_clipped(jax) -> None:
    stated = epsilon(CANARY["noise"], CANARY["batch_size"] / CANARY["records"], CANARY_STEPS, CANARY["delta"])
    sound = [last_weights(jax, canary, CANARY["clip"]) for canary in (False, True)]
    assert private_training.shown_epsilon(*sound) <= stated
    unclipped = [last_weights(jax, canary, 1e4) for canary in (False, True)]
    assert private_training.shown_epsilon(*unclipped) > stated


# --------------------------------------------------------------------------------------------------- Keras on JAX


def private_keras(keras, *layers, rate=0.3, **settings):
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(16, "tanh"), *layers, keras.layers.Dense(2)])
    chosen = {
        "clip": 1.0,
        "noise": 1.0,
        "records": 400,
        "batch_size": 40,
        "delta": 1e-5,
        "steps": 100,
        "seed": 5,
    }
    training = dp_jax.private_keras(model, **{**chosen, **settings})
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    training.model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return training


def test_keras_trains_and_states_what_ran(keras) -> None:
    training = private_keras(keras, keras.layers.Dropout(0.1), noise=0.3)
    history = training.model.fit(*toy(), epochs=8, verbose=0, validation_data=toy(300, 1)).history
    assert history["val_accuracy"][-1] > 0.9
    assert training.privacy().steps == 80 and training.privacy().epsilon == epsilon(0.3, 0.1, 80, 1e-5)
    with pytest.raises(InputError, match="80 steps ran and 30 more") as error:
        training.model.fit(*toy(), epochs=3, verbose=0)
    assert error.value.code == "DV505"


def test_keras_weights_of_an_earlier_epoch_take_no_step_back_and_no_noise(keras) -> None:
    training = private_keras(keras)
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True)
    epochs = len(training.model.fit(*toy(), epochs=8, verbose=0, callbacks=[stop]).history["loss"])
    assert epochs < 8 and training.privacy().steps == 10 * epochs
    counted = {weight.name: weight for weight in training.model.non_trainable_variables}
    assert counted["_optimizer_steps"].numpy()[0] < 10 * epochs  # the library's own count went back
    key = counted["_rng"].numpy()
    training.model.fit(*toy(), epochs=1, verbose=0)
    assert training.privacy().steps == counted["_optimizer_steps"].numpy()[0] == 10 * (epochs + 1)
    assert (counted["_rng"].numpy() != key).any()


def test_keras_noise_by_its_moments(keras) -> None:
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(500, kernel_initializer="zeros")])
    settings = {"records": 100, "batch_size": 4, "delta": 1e-5, "steps": 40, "seed": 1}
    dp_jax.private_keras(model, clip=2.0, noise=1.5, **settings)
    model.compile(keras.optimizers.SGD(1.0), lambda y, prediction: 0.0 * keras.ops.sum(prediction, -1))
    moved = []
    for _ in range(3):
        before = np.concatenate([part.ravel() for part in model.get_weights() if part.dtype == np.float32])
        model.fit(toy(100)[0], np.zeros((100, 500), np.float32), steps_per_epoch=10, verbose=0)
        after = np.concatenate([part.ravel() for part in model.get_weights() if part.dtype == np.float32])
        moved.append(after - before)
    assert is_noise(moved, 1.5 * 2.0 / 4 * np.sqrt(10))
    assert np.abs(np.corrcoef(moved) - np.eye(3)).max() < 0.1  # a seed does not begin again with each fit


@pytest.mark.parametrize(
    ("option", "code"),
    [
        ({"class_weight": {0: 1.0, 1: 2.0}}, "DV503"),
        ({"sample_weight": np.ones(400)}, "DV503"),
        ({"validation_split": 0.1}, "DV503"),
        ({"batch_size": 8}, "DV503"),
        ({"x": toy(399)[0]}, "DV504"),
    ],
)
def test_what_fit_refuses(keras, option, code) -> None:
    x, y = toy()
    training = private_keras(keras)
    with pytest.raises(InputError) as error:
        training.model.fit(**{"x": x, "y": y, "verbose": 0, **option})
    assert error.value.code == code and training.privacy().steps == 0


def test_keras_steps_outside_fit_are_refused(keras) -> None:
    training, (x, y) = private_keras(keras), toy()
    model = training.model
    for _ in range(2):  # before and after a fit has compiled the step
        before = model.get_weights()
        state = [
            [part.value for part in parts]
            for parts in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
        ]
        for step in (lambda: model.train_on_batch(x[:40], y[:40]), lambda: model.train_step(state, (x[:40], y[:40]))):  # noqa: B023
            with pytest.raises(InputError) as error:
                step()
            assert error.value.code == "DV502"
        assert model.train_function is None
        assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))
        model.fit(x, y, verbose=0)
    assert training.privacy().steps == 20


def test_keras_layers_that_keep_statistics_are_refused(keras) -> None:
    training = private_keras(keras, keras.layers.BatchNormalization())
    with pytest.raises(InputError, match="moving_mean") as error:
        training.model.fit(*toy(), verbose=0)
    assert error.value.code == "DV503" and training.privacy().steps == 0


def test_keras_without_noise_is_refused(keras) -> None:
    with pytest.raises(InputError, match="infinite"):
        private_keras(keras, noise=0.0)


def test_the_document_for_keras(keras, capsys) -> None:
    x, y = toy(2000)
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(2)])
    exec(documented("Keras 3 on JAX"), {"keras": keras, "model": model, "x_train": x, "y_train": y})
    assert "40 steps" in capsys.readouterr().out
