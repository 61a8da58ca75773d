"""DP-SGD for Keras on TensorFlow. One backend a process: with another, these tests start themselves again."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import private_training
from divulge.dp import keras as dp_keras
from divulge.dp.accounting import epsilon
from divulge.errors import InputError
from private_training import CANARY, CANARY_STEPS, assert_poisson, documented, is_noise, toy

TENSORFLOW = os.environ["KERAS_BACKEND"] == "tensorflow"
here = pytest.mark.skipif(not TENSORFLOW, reason="runs in the process that test_on_tensorflow starts")


@pytest.fixture
def keras(require):
    require("tensorflow")
    require("dp_accounting")
    keras = require("keras")
    keras.utils.set_random_seed(0)
    return keras


def dense(keras, dropout=0.0):
    layers = keras.layers
    body = [layers.Input((8,)), layers.Dense(16, "tanh", kernel_regularizer=keras.regularizers.L2(0.01))]
    return keras.Sequential([*body, *([layers.Dropout(dropout)] if dropout else []), layers.Dense(2)])


def cnn(keras):
    layers = keras.layers
    body = [layers.Input((8,)), layers.Reshape((4, 2, 1)), layers.Conv2D(3, 2, padding="same", activation="relu")]
    return keras.Sequential(
        [*body, layers.GroupNormalization(3), layers.MaxPooling2D(2), layers.Flatten(), layers.Dense(2)]
    )


def gru(keras):
    layers = keras.layers
    return keras.Sequential([layers.Input((8,)), layers.Reshape((4, 2)), layers.GRU(3), layers.Dense(2)])


def linear(keras):
    return keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )


def private(keras, model, *, loss=None, rate=0.1, optimizer=None, **settings):
    chosen = {"clip": 1.0, "noise": 1.0, "records": 400, "batch_size": 40, "delta": 1e-5, "seed": 5, **settings}
    trainer = dp_keras.private(model, **chosen)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(optimizer or keras.optimizers.SGD(rate), loss)
    return trainer


def ours(trainer, x, y, mask):
    """The sum of clipped gradients, of a model without dropout."""
    import tensorflow as tf

    generators = sum(state.name == dp_keras.SEED for state in trainer.model.non_trainable_variables)

    def total(x, y, mask):
        return dp_keras.clipped_sum(trainer, x, y, mask, tf.zeros((len(mask), generators, 2), tf.int32))[0]

    trainer.optimizer.build(trainer.model.trainable_variables)
    tensors = tf.constant(x), tf.constant(y), tf.constant(mask)
    return [part.numpy() for part in tf.function(total)(*tensors)]


def gradient(trainer, x, y):
    """Keras' own gradient of its own loss of a batch."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = trainer.compute_loss(x=x, y=y, y_pred=trainer.model(x, training=True))
    return [
        tf.convert_to_tensor(part).numpy()
        for part in tape.gradient(loss, [w.value for w in trainer.model.trainable_variables])
    ]


def clipped(parts, clip):
    norm = np.sqrt(sum(float((part.astype(np.float64) ** 2).sum()) for part in parts))
    return [part * min(1.0, clip / norm) for part in parts]


def naive(trainer, x, y, mask):
    """A loop over records."""
    total = [np.zeros(weight.shape) for weight in trainer.model.trainable_variables]
    for i in np.flatnonzero(mask):
        one = clipped(gradient(trainer, x[i : i + 1], y[i : i + 1]), trainer.settings.clip)
        total = [so_far + part for so_far, part in zip(total, one, strict=True)]
    return total


def per_batch(trainer, x, y, mask):
    """The mistake: the batch's gradient is clipped, not each record's."""
    count = int(mask.sum())
    whole = gradient(trainer, x[mask], y[mask])
    return clipped([part * count for part in whole], trainer.settings.clip * count)


def apart(one, other):
    return np.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(one, other, strict=True)))


# ------------------------------------------------------------------------------------------------- the process


@pytest.mark.skipif(TENSORFLOW, reason="this is that process")
def test_on_tensorflow(require) -> None:
    require("tensorflow")
    require("dp_accounting")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


@pytest.mark.skipif(TENSORFLOW, reason="needs another backend")
def test_another_backend_is_refused(require) -> None:
    keras = require("keras")
    with pytest.raises(InputError, match="KERAS_BACKEND=tensorflow") as error:
        dp_keras.private(keras.Sequential(), clip=1.0, noise=1.0, records=10, batch_size=2, delta=1e-5)
    assert error.value.code == "DV506"


# ---------------------------------------------------------------------------------------------------- clipping


@here
@pytest.mark.parametrize("model", [dense, cnn, gru])
@pytest.mark.parametrize("rows", [1, 5, 32])
@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
def test_clipping_is_that_of_a_loop_over_records(keras, model, rows, clip) -> None:
    trainer = private(keras, model(keras), clip=clip)
    x, y = toy(rows)
    x[::3] *= 5  # norms of all sizes
    mask = np.arange(rows) % 4 != 3
    for got, expected in zip(ours(trainer, x, y, mask), naive(trainer, x, y, mask), strict=True):
        assert got == pytest.approx(expected, abs=1e-5)


@here
def test_an_empty_batch_sums_to_nothing(keras) -> None:
    trainer = private(keras, dense(keras))
    assert all((part == 0).all() for part in ours(trainer, *toy(6), np.zeros(6, bool)))


@here
@pytest.mark.parametrize(("total", "holds"), [(ours, True), (naive, True), (per_batch, False)])
def test_a_huge_record_moves_the_sum_by_clip_at_most(keras, total, holds) -> None:
    """And the same test finds out a clipping of batches."""
    trainer = private(keras, dense(keras), clip=0.1)
    x, y = toy(16)
    x[0] *= 1e4
    everyone, others = np.ones(16, bool), np.arange(16) > 0
    moved = apart(total(trainer, x, y, everyone), total(trainer, x, y, others))
    assert (moved <= 0.1 * (1 + 1e-4)) == holds
    assert moved > 0.05


@here
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_gradient_that_is_no_number_adds_nothing(keras, value) -> None:
    loss = keras.losses.MeanSquaredError()
    trainer = private(keras, linear(keras), loss=loss)
    x, y = np.ones((3, 4), np.float32), np.ones((3, 1), np.float32)
    x[1] = value
    y[1] = value
    got = ours(trainer, x, y, np.ones(3, bool))
    expected = ours(trainer, x, y, np.array([True, False, True]))
    assert np.isfinite(got[0]).all() and apart(got, expected) == 0


@here
def test_a_step_divides_by_the_expected_batch_size(keras) -> None:
    trainer = private(keras, dense(keras), noise=0.0, rate=1.0, clip=0.2)
    x, y = toy()
    rows = trainer.draw(0)
    assert len(rows) != 40
    before = trainer.model.get_weights()
    expected = [
        w - part / 40
        for w, part in zip(before, naive(trainer, x[rows], y[rows], np.ones(len(rows), bool)), strict=True)
    ]
    trainer.fit(x, y, steps_per_epoch=1, verbose=0)
    for weight, after in zip(trainer.model.get_weights(), expected, strict=True):
        assert weight == pytest.approx(after, abs=1e-5)


@here
@pytest.mark.parametrize("chunk", [7, 64])
def test_chunks_change_nothing(keras, chunk) -> None:
    x, y = toy()
    weights = []
    for size in (None, chunk):
        keras.utils.set_random_seed(0)
        trainer = private(keras, dense(keras), noise=0.0, chunk=size)
        trainer.fit(x, y, epochs=1, verbose=0)
        weights.append(trainer.model.get_weights())
    assert apart(*weights) < 1e-5


@here
def test_dropout_differs_between_records_and_steps(keras) -> None:
    import tensorflow as tf

    trainer = private(keras, dense(keras, dropout=0.5))
    x, y = np.ones((20, 8), np.float32), np.zeros(20, np.int64)
    seeds = trainer.generator.uniform([20, 1, 2], 0, 2**31 - 1, tf.int32)
    _, outputs = dp_keras.clipped_sum(trainer, tf.constant(x), tf.constant(y), tf.ones(20, bool), seeds)
    assert len(np.unique(np.round(outputs.numpy()[:, 0], 6))) > 15


# ------------------------------------------------------------------------------------------------------- noise


def weights_without_gradient(keras, seed, x, steps=20, batch_size=4, noise=1.5):
    """How each step moves a model whose loss is constant, (steps, weights)."""
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(500, kernel_initializer="zeros")])
    trainer = private(
        keras,
        model,
        loss=lambda y, prediction: 0.0 * prediction,
        rate=1.0,
        noise=noise,
        clip=2.0,
        seed=seed,
        records=len(x),
        batch_size=batch_size,
    )
    path = [trainer.model.get_weights()]
    record = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: path.append(trainer.model.get_weights())
    )
    trainer.fit(x, np.zeros((len(x), 500), np.float32), steps_per_epoch=steps, verbose=0, callbacks=[record])
    flat = np.array([np.concatenate([part.ravel() for part in weights]) for weights in path])
    return np.diff(flat.astype(np.float64), axis=0), trainer


@here
def test_noise_by_its_moments(keras) -> None:
    draws, _ = weights_without_gradient(keras, 1, toy(100)[0])
    assert is_noise(draws, 1.5 * 2.0 / 4)
    assert not is_noise(draws, 1.5 * 2.0)  # as if it were added after averaging
    assert not is_noise(draws, 1.5 / 4)  # as if clip were forgotten
    assert not is_noise(draws, 1.5 * 2.0 / 4 * 1.02)  # and two in a hundred are seen
    steps = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(steps).max() < 0.1  # each step has its own


@here
def test_noise_does_not_depend_on_the_batch(keras) -> None:
    x = toy(20)[0]
    one, trainer = weights_without_gradient(keras, 2, x, batch_size=1)
    other, _ = weights_without_gradient(keras, 2, 1e3 * x, batch_size=1)
    sizes = [len(trainer.draw(step)) for step in range(20)]
    assert 0 in sizes and max(sizes) > 1
    assert (one == other).all()
    assert is_noise(one[np.array(sizes) == 0], 1.5 * 2.0)  # an empty batch is a step too
    assert trainer.privacy.steps == 20


@here
def test_the_same_seed_gives_the_same_weights_and_none_does_not(keras) -> None:
    x, y = toy()

    def trained(seed):
        keras.utils.set_random_seed(0)
        trainer = private(keras, dense(keras, dropout=0.2), seed=seed)
        trainer.fit(x, y, epochs=1, verbose=0)
        trainer.fit(x, y, epochs=1, verbose=0)
        return trainer.model.get_weights()

    assert apart(trained(3), trained(3)) == 0
    assert apart(trained(3), trained(4)) > 0.01
    assert apart(trained(None), trained(None)) > 0.01


# ---------------------------------------------------------------------------------------------------- sampling


@here
def test_batches_are_poisson_samples(keras) -> None:
    trainer = private(keras, dense(keras), records=60, batch_size=6)
    assert_poisson([trainer.draw(step) for step in range(4000)], 60, 0.1)


@here
def test_the_model_is_fed_what_was_drawn(keras) -> None:
    import tensorflow as tf

    trainer = private(keras, dense(keras), records=60, batch_size=6, chunk=5)
    x = np.arange(60, dtype=np.float32)[:, None]
    sizes = set()
    for step, (fed, y, mask) in enumerate(trainer._batches(x, x, 3).take(40)):
        assert isinstance(fed, tf.Tensor) and len(fed) % 5 == 0 and len(fed) >= 5
        assert (
            fed.numpy()[mask.numpy()][:, 0].tolist()
            == trainer.draw(step + 3).tolist()
            == y.numpy()[mask.numpy(), 0].tolist()
        )
        sizes.add(len(fed))
    assert len(sizes) > 1  # more than one chunk, too


@here
def test_each_step_has_its_own_batch_and_no_step_is_traced_again(keras, monkeypatch) -> None:
    x, y = toy()
    trainer = private(keras, dense(keras), chunk=16)
    drawn, draw, traced = [], trainer.draw, []
    step = trainer.train_step
    trainer.draw = lambda number: drawn.append(number) or draw(number)
    trainer.train_step = lambda data: traced.append(1) or step(data)
    for _ in range(2):
        trainer.fit(x, y, epochs=2, verbose=0)
    assert len(traced) <= 2  # Keras may trace once for shapes
    assert set(range(40)) <= set(drawn)


# ------------------------------------------------------------------------------------------------ the statement


@here
def test_the_statement_counts_what_ran(keras) -> None:
    x, y = toy()
    trainer = private(keras, dense(keras), noise=0.8)
    assert trainer.privacy.epsilon == 0
    trainer.fit(x, y, epochs=2, verbose=0, validation_data=toy(50, 1))
    trainer.fit(x, y, steps_per_epoch=3, verbose=0)
    privacy = trainer.privacy
    assert (privacy.steps, privacy.noise, privacy.rate, privacy.clip) == (23, 0.8, 0.1, 1.0)
    assert privacy.epsilon == epsilon(0.8, 0.1, 23, 1e-5)


@here
def test_early_stopping_and_restored_weights_take_no_step_back(keras) -> None:
    x, y = toy()
    trainer = private(keras, dense(keras))
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=1, restore_best_weights=True)
    history = trainer.fit(x, y, epochs=30, verbose=0, callbacks=[stop])
    assert len(history.history["loss"]) < 30
    assert trainer.privacy.steps == 10 * len(history.history["loss"])
    trainer.set_weights([0 * weight for weight in trainer.get_weights()])
    assert trainer.privacy.steps == 10 * len(history.history["loss"])


@here
def test_without_noise_nothing_is_stated(keras) -> None:
    trainer = private(keras, dense(keras), noise=0.0)
    with pytest.raises(InputError, match="infinite"):
        _ = trainer.privacy


@here
def test_no_more_steps_than_declared(keras) -> None:
    trainer = private(keras, dense(keras), steps=25)
    trainer.fit(*toy(), epochs=2, verbose=0)
    with pytest.raises(InputError, match="20 steps ran and 10 more") as error:
        trainer.fit(*toy(), verbose=0)
    assert error.value.code == "DV505" and trainer.privacy.steps == 20


# ----------------------------------------------------------------------------------------------------- refusals


@here
@pytest.mark.parametrize(
    ("option", "code"),
    [
        ({"class_weight": {0: 1.0, 1: 2.0}}, "DV503"),
        ({"sample_weight": np.ones(400)}, "DV503"),
        ({"validation_split": 0.1}, "DV503"),
        ({"batch_size": 8}, "DV503"),
        ({"shuffle": True}, "DV503"),
        ({"x": toy(399)[0]}, "DV504"),
        ({"y": toy(401)[1]}, "DV504"),
        ({"y": None}, "DV504"),
        ({"x": (row for row in toy()[0])}, "DV504"),
    ],
)
def test_what_fit_refuses(keras, option, code) -> None:
    x, y = toy()
    trainer = private(keras, dense(keras))
    with pytest.raises(InputError) as error:
        trainer.fit(**{"x": x, "y": y, "verbose": 0, **option})
    assert error.value.code == code and trainer.privacy.steps == 0


@here
def test_a_stream_is_refused(keras) -> None:
    import tensorflow as tf

    trainer = private(keras, dense(keras))
    with pytest.raises(InputError, match="row a record"):
        trainer.fit(tf.data.Dataset.from_tensor_slices(toy()).batch(40), toy()[1])
    with pytest.raises(InputError, match="fit") as error:
        trainer.train_on_batch(*toy())
    assert error.value.code == "DV502"


@here
def test_layers_that_keep_statistics_are_refused(keras) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((8,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
    trainer = private(keras, model)
    with pytest.raises(InputError, match=r"moving_mean.*GroupNormalization") as error:
        trainer.fit(*toy(), verbose=0)
    assert error.value.code == "DV503" and trainer.privacy.steps == 0
    assert (model.layers[1].moving_mean.numpy() == 0).all()
    model.layers[1].trainable = False  # frozen, it is an affine layer
    trainer = private(keras, model)
    trainer.fit(*toy(), verbose=0)
    assert trainer.privacy.steps == 10


@here
@pytest.mark.parametrize("way", ["assign", "scatter", "nested"])
def test_layers_with_variables_that_keras_does_not_know_are_refused(keras, way) -> None:
    import tensorflow as tf

    class Sums(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.total = tf.Variable(tf.zeros(8), trainable=False)

        def call(self, x, training=None):
            def write():
                if way == "scatter":
                    self.total.scatter_nd_add([[0]], [tf.reduce_sum(x)])
                else:
                    self.total.assign_add(tf.reduce_sum(x, 0))
                return x

            if way == "nested":
                return tf.cond(tf.reduce_sum(x) < 1e9, write, lambda: x)
            return write() if training else x

    layer = Sums()
    trainer = private(keras, keras.Sequential([keras.layers.Input((8,)), layer, keras.layers.Dense(2)]))
    with pytest.raises(InputError, match=r"tf\.Variable") as error:
        trainer.fit(*toy(), verbose=0)
    assert error.value.code == "DV503" and trainer.privacy.steps == 0
    assert way == "nested" or (layer.total.numpy() == 0).all()


@here
def test_layers_that_keep_nothing_are_not_refused(keras) -> None:
    layers = keras.layers
    frozen = layers.BatchNormalization(trainable=False)
    whole = layers.Input((8,))
    parts = layers.GaussianNoise(0.1)(layers.SpatialDropout1D(0.2)(layers.Reshape((4, 2))(whole)))
    parts = layers.GroupNormalization(2)(layers.Conv1D(4, 2, padding="same")(parts))
    parts = layers.MultiHeadAttention(2, 3, dropout=0.2)(parts, parts)
    parts = layers.LSTM(4, return_sequences=True, recurrent_dropout=0.1)(layers.GRU(4, return_sequences=True)(parts))
    words = layers.Embedding(5, 4)(layers.Lambda(lambda x: keras.ops.cast(x > 0, "int32"))(whole))
    both = layers.Concatenate()([layers.Flatten()(parts), layers.Flatten()(words)])
    model = keras.Model(whole, layers.Dense(2)(layers.Dropout(0.3)(frozen(layers.LayerNormalization()(both)))))
    dp_keras.refuse_statistics(model, toy(1)[0])


@here
def test_settings_stay_and_steps_are_those_of_fit(keras) -> None:
    trainer, (x, y) = private(keras, dense(keras)), toy()
    for _ in range(2):
        with pytest.raises(AttributeError):
            trainer.settings = trainer.settings._replace(noise=9.0)
        with pytest.raises(InputError, match="fit") as error:
            trainer.train_step((x[:40], y[:40], np.ones(40, bool)))
        assert error.value.code == "DV502" and trainer.privacy.noise == 1.0
        trainer.fit(x, y, verbose=0)
    assert trainer.privacy.steps == 20 and "known seed" in str(trainer.privacy)


@here
def test_what_compile_refuses(keras) -> None:
    trainer = private(keras, dense(keras))
    losses, optimizers = keras.losses, keras.optimizers
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    for optimizer, one, word in [
        ("sgd", losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), "reduction"),
        ("sgd", losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none"), "reduction"),
        (optimizers.SGD(gradient_accumulation_steps=2), loss, "accumulation"),
        (optimizers.LossScaleOptimizer(optimizers.SGD()), loss, "scaling"),
    ]:
        with pytest.raises(InputError, match=word) as error:
            trainer.compile(optimizer, one)
        assert error.value.code == "DV503"


@here
def test_a_training_step_of_the_model_is_not_passed_over(keras) -> None:
    class Own(keras.Sequential):
        def train_step(self, data):
            raise AssertionError

    with pytest.raises(InputError, match="train_step"):
        private(keras, Own([keras.layers.Dense(2)]))


@here
@pytest.mark.parametrize(
    "settings", [{"clip": 0.0}, {"clip": np.inf}, {"noise": -1.0}, {"batch_size": 401}, {"delta": 0}]
)
def test_settings_that_mean_nothing_are_refused(keras, settings) -> None:
    with pytest.raises(InputError) as error:
        private(keras, dense(keras), **settings)
    assert error.value.code == "DV501"


@here
def test_a_large_delta_is_warned_of(keras) -> None:
    with pytest.warns(UserWarning, match="1 / records"):
        private(keras, dense(keras), delta=1e-2)


# ------------------------------------------------------------------------------------------------- it does train


@here
def test_with_little_noise_it_learns(keras) -> None:
    x, y = toy()
    trainer = dp_keras.private(dense(keras, 0.1), clip=1.0, noise=0.3, records=400, batch_size=40, delta=1e-4, seed=0)
    trainer.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    trainer.optimizer.learning_rate = 0.05
    history = trainer.fit(x, y, epochs=8, verbose=0, validation_data=toy(300, 1)).history
    assert history["val_accuracy"][-1] > 0.9 and history["accuracy"][-1] > 0.85
    assert history["loss"][-1] < history["loss"][0]
    held_out = toy(300, 1)
    assert trainer.evaluate(*held_out, verbose=0)[1] == pytest.approx(history["val_accuracy"][-1])
    assert (trainer.predict(x, verbose=0) == trainer.model.predict(x, verbose=0)).all()


@here
def test_several_inputs_and_outputs(keras) -> None:
    x, y = toy()
    layers = keras.layers
    left, right = layers.Input((4,), name="left"), layers.Input((4,), name="right")
    body = layers.Concatenate()([left, right])
    model = keras.Model([left, right], {"a": layers.Dense(2, name="a")(body), "b": layers.Dense(1, name="b")(body)})
    loss = {"a": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "b": "mse"}
    trainer = private(keras, model, loss=loss)
    trainer.fit({"left": x[:, :4], "right": x[:, 4:]}, {"a": y, "b": x[:, :1]}, verbose=0)
    assert trainer.privacy.steps == 10


@here
def test_the_document(keras, capsys) -> None:
    x, y = toy(2000)
    exec(documented("Keras 3 on TensorFlow"), {"x_train": x, "y_train": y, "keras": keras, "model": dense(keras)})
    assert "-differentially private" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------ a canary


def last_weights(keras, canary):
    """The canary's weight after each of many short trainings, run as one fit that starts anew every few steps."""
    trainer = private(keras, linear(keras), loss="mse", rate=1.0, **CANARY)
    found = []

    def restart(batch, logs):
        if (batch + 1) % CANARY_STEPS == 0:
            (weight,) = trainer.model.get_weights()
            found.append(weight[3, 0])
            trainer.model.set_weights([0 * weight])

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=restart)
    trainer.fit(
        *private_training.canary_data(canary),
        steps_per_epoch=private_training.TRIALS * CANARY_STEPS,
        verbose=0,
        callbacks=[callback],
    )
    return np.array(found)


@here
@pytest.mark.slow
def test_a_canary_shows_no_more_than_was_stated_unless_nothing_is_clipped(keras, monkeypatch) -> None:
    stated = epsilon(CANARY["noise"], CANARY["batch_size"] / CANARY["records"], CANARY_STEPS, CANARY["delta"])
    assert private_training.shown_epsilon(last_weights(keras, False), last_weights(keras, True)) <= stated

    sound = dp_keras.clipped_sum

    def unclipped(trainer, *batch):
        once = trainer.settings
        trainer._settings = once._replace(clip=1e9)
        result = sound(trainer, *batch)
        trainer._settings = once
        return result

    monkeypatch.setattr(dp_keras, "clipped_sum", unclipped)
    assert private_training.shown_epsilon(last_weights(keras, False), last_weights(keras, True)) > stated
