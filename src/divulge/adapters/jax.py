"""Flax modules and jitted functions: NNX in evaluation mode, bound Linen modules, anything that JAX compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divulge.adapters.predictor import Predictor
from divulge.adapters.records import origins
from divulge.errors import InputError


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A module's outputs, compiled; a copy of an NNX module is switched to evaluation, which shares its arrays."""
    import jax

    kinds = origins(model)
    if kinds[0][0] in ("jax", "jaxlib") or not any(package == "flax" for package, _ in kinds):
        yield Predictor(model)
        return
    from flax import linen, nnx

    if isinstance(model, nnx.Module):
        copy = nnx.merge(*nnx.split(model))
        copy.eval()
        # Split again at every call: a module that counts its calls or moves its statistics must not leak tracers.
        graph, state = nnx.split(copy)
        compiled = jax.jit(lambda state, inputs: nnx.merge(graph, state)(inputs))
        yield Predictor(lambda inputs: compiled(state, inputs))
    elif isinstance(model, linen.Module) and model.scope is not None:
        module, variables = model.unbind()
        applied = jax.jit(module.apply)
        yield Predictor(lambda inputs: applied(variables, inputs))
    else:
        raise InputError(
            "DV070",
            f"{type(model).__name__} holds no weights, or more than a model; expected an NNX module, a bound Linen "
            "module (module.bind(variables)) or a function. Pass lambda x: module.apply(variables, x, train=False)",
        )
