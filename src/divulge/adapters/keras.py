"""Keras 3 on TensorFlow, JAX or torch: called with training=False, without the softmax of its last layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from divulge.adapters.predictor import Predictor, gives
from divulge.adapters.records import take


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A model's logits, if taking away its last activation proves right on a few records; else its own outputs."""
    import keras

    few = take(sample, slice(0, 8))
    with ExitStack() as stack:
        if keras.backend.backend() == "torch":
            from divulge.adapters.torch import evaluating

            stack.enter_context(evaluating(model))
        whole = _forward(model)
        last = _last(model)
        cut, apart = None, False
        if isinstance(last, keras.layers.Softmax):
            if getattr(model, "outputs", None) and last.output is model.outputs[0]:
                cut = _forward(keras.Model(model.inputs, last.input))
        elif last is not None:
            probs = _numbers(whole(few))
            activation = last.activation
            stack.callback(setattr, last, "activation", activation)
            last.activation = keras.activations.linear
            cut = _forward(model)
            logits = _numbers(cut(few))
            apart = activation is keras.activations.sigmoid
            if not gives(logits, probs):  # that layer is not what the model ends in
                last.activation, cut, apart = activation, None, False
        yield Predictor(cut or whole, apart=lambda: apart)


def _last(model: Any) -> Any:
    """The last layer if it is, or ends in, a softmax or sigmoid, looked for inside nested models; else None."""
    import keras

    ends = [keras.activations.softmax, keras.activations.sigmoid]
    last = model
    while getattr(last, "layers", None):
        last = last.layers[-1]
    return last if isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) in ends else None


def _forward(model: Any) -> Callable[[Any], Any]:
    """The model compiled as it is now; its own predict would keep an activation that is taken away."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        variables = model.variables

        # Stateless: random seeds and statistics that a call would change stay in the model as they are.
        def call(values: Any, inputs: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return model(inputs, training=False)

        jitted = jax.jit(call)
        return lambda inputs: jitted([variable.value for variable in variables], inputs)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled: Callable[[Any], Any] = tf.function(
            lambda inputs: model(inputs, training=False), reduce_retracing=True
        )
        return compiled
    import torch

    def eager(inputs: Any) -> Any:
        with torch.no_grad():
            return model(inputs, training=False)

    return eager


def _numbers(outputs: Any) -> Any:
    import keras

    # Several outputs have no one softmax; collect refuses them.
    return np.nan if isinstance(outputs, list | tuple | dict) else np.asarray(keras.ops.convert_to_numpy(outputs))
