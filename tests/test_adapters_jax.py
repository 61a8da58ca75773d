"""JAX: jitted functions, Flax NNX and Linen."""

from __future__ import annotations

import numpy as np
import pytest

import divulge
from adapting import D, assert_same, everything, records

SIDES = records()


@pytest.fixture
def jax(require):
    return require("jax")


@pytest.fixture
def nnx(require):
    require("flax")
    from flax import nnx

    return nnx


def test_functions_jitted_or_not(jax):
    weights = jax.numpy.asarray(np.random.default_rng(0).normal(size=(D, 3)), np.float32)
    logits = everything(SIDES)[0] @ np.asarray(weights)
    for model in (lambda x: x @ weights, jax.jit(lambda x: x @ weights)):
        for given in (SIDES, [tuple(map(jax.numpy.asarray, side)) for side in SIDES]):
            assert_same(divulge.collect(model, *given, batch_size=20), logits, SIDES)
    half = divulge.collect(lambda x: (x @ weights).astype(jax.numpy.bfloat16), *SIDES)
    assert half.outputs.dtype == np.float32


def test_an_nnx_module_is_switched_to_evaluation_in_a_copy(nnx):
    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(D, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(self.norm(self.first(x))))

    model = Network(nnx.Rngs(0))
    model.train()
    before = np.asarray(model.norm.mean[...]).copy()
    evidence = divulge.collect(model, *SIDES, batch_size=20)
    assert not model.drop.deterministic and not model.norm.use_running_average
    np.testing.assert_array_equal(np.asarray(model.norm.mean[...]), before)
    model.eval()
    assert_same(evidence, model(everything(SIDES)[0]), SIDES)


def test_an_nnx_module_that_drops_in_any_mode_is_caught(nnx):
    class Dropping(nnx.Module):
        def __init__(self, rngs):
            self.last, self.drop = nnx.Linear(D, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(x, deterministic=False))

    with pytest.raises(divulge.InputError, match="DV215"):
        divulge.collect(Dropping(nnx.Rngs(0)), *SIDES)


def test_linen_bound_and_unbound(jax, nnx):
    from flax import linen

    module = linen.Dense(3)
    variables = module.init(jax.random.key(0), SIDES[0][0][:1])
    logits = module.apply(variables, everything(SIDES)[0])
    assert_same(divulge.collect(module.bind(variables), *SIDES, batch_size=20), logits, SIDES)
    assert_same(divulge.collect(lambda x: module.apply(variables, x), *SIDES, batch_size=20), logits, SIDES)
    with pytest.raises(divulge.InputError, match="DV070 Dense holds no weights"):
        divulge.collect(module, *SIDES)
