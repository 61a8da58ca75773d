"""Keras 3: these tests run with one backend a process, and start themselves again with the others."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

import divulge
from adapting import D, M, assert_same, everything, records

SIDES = records()
BACKEND = os.environ["KERAS_BACKEND"]


@pytest.fixture
def keras(require):
    require({"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[BACKEND])
    keras = require("keras")
    assert keras.backend.backend() == BACKEND
    keras.utils.set_random_seed(0)
    return keras


def body(keras):
    layers = keras.layers
    return [layers.Input((D,)), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.5)]


def by_hand(keras, model, x=None, weights=None):
    """Logits from the last dense layer's own weights, in float64: features @ kernel + bias."""
    x = everything(SIDES)[0] if x is None else x
    features = keras.Model(model.inputs, model.layers[2].output).predict(x, verbose=0).astype(np.float64)
    kernel, bias = next(layer for layer in reversed(model.layers) if layer.get_weights()).get_weights()
    return features @ kernel + bias


def heads(keras):
    layers = keras.layers

    def sequential(*end):
        return keras.Sequential([*body(keras), *end])

    def functional(*end):
        first = out = keras.Input((D,))
        for layer in [*body(keras)[1:], *end]:
            out = layer(out)
        return keras.Model(first, out)

    return {
        "logits": sequential(layers.Dense(3)),
        "softmax": sequential(layers.Dense(3, activation="softmax")),
        "functional softmax": functional(layers.Dense(3, activation="softmax")),
        "Softmax layer": sequential(layers.Dense(3), layers.Softmax()),
        "functional Softmax layer": functional(layers.Dense(3), layers.Softmax()),
        "Activation layer": sequential(layers.Dense(3), layers.Activation("softmax")),
    }


HEADS = ["logits", "softmax", "functional softmax", "Softmax layer", "functional Softmax layer", "Activation layer"]


@pytest.mark.parametrize("head", HEADS)
def test_logits_are_those_of_the_last_layer(keras, head):
    model = heads(keras)[head]
    logits, before = by_hand(keras, model), model.predict(SIDES[0][0], verbose=0)
    for _ in range(2):  # nothing of the first time is left over
        assert_same(divulge.collect(model, *SIDES, batch_size=32), logits, SIDES)
    np.testing.assert_allclose(model.predict(SIDES[0][0], verbose=0), before, atol=1e-6)


def test_a_sigmoid_a_class_is_undone_only_for_several_labels_a_record(keras):
    model = keras.Sequential([*body(keras), keras.layers.Dense(3, activation="sigmoid")])
    logits = by_hand(keras, model)
    probs = 1 / (1 + np.exp(-logits))
    evidence = divulge.collect(model, *SIDES, batch_size=32)
    assert (evidence.kind, evidence.task) == ("probs", "multiclass")
    np.testing.assert_allclose(evidence.outputs, probs / probs.sum(axis=1, keepdims=True), atol=1e-5)
    several = [(x, np.maximum(np.eye(3)[y], x[:, :3] > 1)) for x, y in SIDES]
    evidence = divulge.collect(model, *several)
    assert (evidence.kind, evidence.task) == ("logits", "multilabel")
    np.testing.assert_allclose(evidence.outputs, logits, atol=1e-4)


def test_a_saturated_softmax_is_undone_through_the_layer(keras):
    model = heads(keras)["softmax"]
    model.layers[-1].set_weights([weight * 300 for weight in model.layers[-1].get_weights()])
    evidence = divulge.collect(model, *SIDES, batch_size=32)
    assert (model.predict(SIDES[0][0], verbose=0) == 1).any()
    np.testing.assert_allclose(evidence.outputs, by_hand(keras, model), rtol=1e-4, atol=1e-2)


def test_a_sigmoid_is_undone(keras):
    sides = [(x, y.reshape(-1, 1).astype(np.float32)) for x, y in records(2)]
    model = keras.Sequential([*body(keras), keras.layers.Dense(1, activation="sigmoid")])
    logits = by_hand(keras, model, everything(sides)[0])[:, 0]
    evidence = divulge.collect(model, *sides, batch_size=32)
    assert evidence.task == "binary"
    assert_same(evidence, logits, records(2))


def test_subclassed_and_nested_models(keras):
    inner = heads(keras)["softmax"]

    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = inner

        def call(self, x, training=None):
            return self.inner(x, training=training)

    for model in (Wrapped(), keras.Sequential([keras.Input((D,)), inner])):
        model(SIDES[0][0][:2])
        assert_same(divulge.collect(model, *SIDES, batch_size=32), by_hand(keras, inner), SIDES)


def test_a_softmax_that_is_not_a_layer_gives_probabilities_and_says_so(keras, caplog):
    first = keras.Input((D,))
    gate = keras.layers.Dense(3)(first)
    model = keras.Model(first, keras.ops.softmax(gate))
    assert divulge.collect(model, *SIDES).kind == "probs"

    class Odd(keras.Model):  # its last layer is a gate, not its output
        def __init__(self):
            super().__init__()
            self.out, self.gate = keras.layers.Dense(3), keras.layers.Dense(3, activation="sigmoid")

        def call(self, x):
            return self.out(x) * self.gate(x)

    odd = Odd()
    probs = odd(SIDES[0][0][:1])
    evidence = divulge.collect(odd, *SIDES)
    assert evidence.kind == "logits" and odd.gate.activation is keras.activations.sigmoid
    np.testing.assert_allclose(evidence.outputs[:1], keras.ops.convert_to_numpy(probs), atol=1e-5)
    assert caplog.text.count("could not be undone") == 1


def test_a_model_that_stays_in_training_mode_is_caught(keras):
    class Dropping(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop, self.out = keras.layers.Dropout(0.5), keras.layers.Dense(3)

        def call(self, x, training=None):
            return self.out(self.drop(x, training=True))

    model = Dropping()
    model(SIDES[0][0][:2])
    with pytest.raises(divulge.InputError, match="DV215"):
        divulge.collect(model, *SIDES)


def test_an_interruption_leaves_the_activation(keras):
    def stop(*step):
        raise KeyboardInterrupt

    model = heads(keras)["softmax"]
    with pytest.raises(KeyboardInterrupt):
        divulge.collect(model, *SIDES, progress=stop)
    assert model.layers[-1].activation is keras.activations.softmax


def test_a_py_dataset(keras):
    class Batches(keras.utils.PyDataset):
        def __init__(self, side):
            super().__init__()
            self.side = side

        def __len__(self):
            return -(-len(self.side[1]) // 16)

        def __getitem__(self, i):
            return tuple(part[16 * i : 16 * i + 16] for part in self.side)

    model = heads(keras)["softmax"]
    assert_same(divulge.collect(model, *map(Batches, SIDES)), by_hand(keras, model), SIDES)


@pytest.mark.filterwarnings("error:The structure of `inputs`")
def test_several_inputs_in_a_list(keras):
    left, right = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([left, right], keras.layers.Dense(3)(keras.layers.Concatenate()([left, right])))
    kernel, bias = model.layers[-1].get_weights()
    logits = everything(SIDES)[0].astype(np.float64) @ kernel + bias
    whole = [([x[:, :3], x[:, 3:]], y) for x, y in SIDES]
    parts = [[([x[i : i + 16, :3], x[i : i + 16, 3:]], y[i : i + 16]) for i in range(0, len(y), 16)] for x, y in SIDES]
    for form in (whole, parts):
        assert_same(divulge.collect(model, *form, batch_size=16), logits, SIDES)


def test_several_inputs_by_name(keras):
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    model = keras.Model(
        {"left": left, "right": right}, keras.layers.Dense(3)(keras.layers.Concatenate()([left, right]))
    )
    kernel, bias = model.layers[-1].get_weights()
    sides = [({"left": x[:, :3], "right": x[:, 3:]}, y) for x, y in SIDES]
    assert_same(divulge.collect(model, *sides, batch_size=32), everything(SIDES)[0] @ kernel + bias, SIDES)
    both = keras.Model(left, [keras.layers.Dense(3, "softmax")(left), keras.layers.Dense(3, "softmax")(left)])
    with pytest.raises(divulge.InputError, match="DV075 the model gives 2 outputs"):
        divulge.collect(both, *[(x[:, :3], y) for x, y in SIDES])
    assert both.layers[-1].activation is keras.activations.softmax


def test_while_it_trains(keras):
    """In a callback, as often as one likes; training goes on as if nothing had been looked at."""
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(divulge.collect(self.model, *SIDES, batch_size=32))

    weights = []
    for callbacks in ([], [Look()]):
        keras.utils.set_random_seed(3)
        model = heads(keras)["softmax"]
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.fit(*SIDES[0], batch_size=16, epochs=3, verbose=0, callbacks=callbacks)
        weights.append(model.get_weights())
    for plain, looked in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, looked, rtol=1e-5, atol=1e-6)
    assert_same(seen[-1], by_hand(keras, model), SIDES)
    assert np.abs(seen[0].outputs - seen[1].outputs).max() > 1e-3


def test_a_tf_data_set(keras):
    if BACKEND != "tensorflow":
        pytest.skip("of TensorFlow")
    import tensorflow as tf

    model = heads(keras)["softmax"]
    plain = [tf.data.Dataset.from_tensor_slices(side) for side in SIDES]
    logits = by_hand(keras, model)
    for given in (
        plain,
        [one.batch(16).prefetch(1) for one in plain],
        [tuple(map(tf.constant, side)) for side in SIDES],
    ):
        assert_same(divulge.collect(model, *given, batch_size=32), logits, SIDES)
    with pytest.raises(divulge.InputError, match=r"DV073 expected for members a tf.data"):
        divulge.collect(model, plain[0].shuffle(8).batch(16), plain[1])
    with pytest.raises(divulge.InputError, match="DV072"):
        divulge.collect(model, tf.data.Dataset.from_tensor_slices(SIDES[0][0]), plain[1])


def test_a_torch_loader(keras):
    if BACKEND != "torch":
        pytest.skip("of torch")
    import torch

    model = heads(keras)["softmax"]
    flags = [module.training for module in model.modules()]
    sets = [torch.utils.data.TensorDataset(*map(torch.from_numpy, side)) for side in SIDES]
    assert_same(divulge.collect(model, *sets, batch_size=32), by_hand(keras, model), SIDES)
    assert [module.training for module in model.modules()] == flags


@pytest.mark.parametrize("backend", sorted({"tensorflow", "jax", "torch"} - {BACKEND}))
def test_other_backend(backend):
    missing = [name for name in ("keras", backend) if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("DIVULGE_REQUIRE") != "all":
        pytest.skip(f"{missing} not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "not other_backend", __file__],
        env={**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


assert M % 32  # the last batch is a smaller one


def test_tf_data_that_repeats_or_is_not_in_batches(keras):
    if BACKEND != "tensorflow":
        pytest.skip("tf.data is TensorFlow's")
    import tensorflow as tf

    model = heads(keras)["logits"]
    logits = by_hand(keras, model)
    tensors = tf.data.Dataset.from_tensor_slices
    plain = [tensors(side) for side in SIDES]
    for endless in (plain[0].repeat(), plain[0].repeat(3).batch(8).prefetch(1), plain[0].repeat().batch(8)):
        with pytest.raises(divulge.InputError, match=r"DV073 .*before \.repeat"):
            divulge.collect(model, endless, plain[1])
    hot = [tensors((x, np.eye(3)[y])) for x, y in SIDES]
    several = [one.batch(9, drop_remainder=True).unbatch().map(lambda x, y: (x, y)) for one in hot]
    for form in (hot, [one.batch(5, drop_remainder=True) for one in hot]):
        assert_same(divulge.collect(model, *form), logits, SIDES)
    assert len(divulge.collect(model, *several)) == 63 + 45
    square = tf.data.Dataset.from_tensors((np.zeros(3), np.eye(3)[0]))
    with pytest.raises(divulge.InputError, match=r"DV074 .*of one record or of as many"):
        divulge.collect(model, square, hot[1])
    whole = [tf.data.Dataset.from_tensors(side) for side in SIDES]
    assert_same(divulge.collect(model, *whole), logits, SIDES)
    left, right = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([left, right], keras.layers.Dense(3)(keras.layers.Concatenate()([left, right])))
    kernel, bias = model.layers[-1].get_weights()
    two = [tensors(((x[:, :3], x[:, 3:]), np.eye(3)[y])) for x, y in SIDES]
    assert_same(divulge.collect(model, *two), everything(SIDES)[0].astype(np.float64) @ kernel + bias, SIDES)
