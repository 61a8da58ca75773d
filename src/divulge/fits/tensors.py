"""Data, devices and calls that torch's fits share, whether models are trained one by one or many at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.records import take
from divulge.errors import InputError
from divulge.fits.batches import Batch, Rows
from divulge.fits.outputs import normalised, one_query

BLOCK = 1024
"""Records scored in one go: what a convolution makes of more would not fit into the cache."""


def counted(batch: Batch) -> Batch:
    """A batch of one model without the rows that do not count: batch normalisation would see them.

    A batch of none keeps one, with weight 0, so that the optimiser takes its step as with models beside it.
    """
    index, weight = batch.rows.reshape(-1), batch.weight[0]
    kept = weight > 0 if weight.any() else slice(0, 1)
    return Batch(index[kept], weight[None, kept])


def on_device(batches: list[Batch], device: Any) -> Iterator[tuple[Any, Any]]:
    """(index, weight) of each batch as tensors, carried over together."""
    import torch

    lengths = [batch.rows.shape[-1] for batch in batches]
    index = torch.from_numpy(np.concatenate([batch.rows for batch in batches], axis=-1)).to(device)
    weight = torch.from_numpy(np.concatenate([batch.weight for batch in batches], axis=-1)).to(device)
    return zip(index.split(lengths, dim=-1), weight.split(lengths, dim=-1), strict=True)


def scores(
    module: Any, data: Any, rows: Rows, query: int, call: Callable[[Any], Any] | None = None, *, logits: bool = False
) -> NDArray[Any]:
    """(k, c) or (k,) outputs of a module in evaluation mode, logits where it ends in a softmax.

    Args:
        module: on its device.
        data: (x, y).
        rows: (k,).
        query: 0.
        call: from inputs on the device to outputs; None: the module's forward.
        logits: whether the outputs are known to be logits: one of two classes then becomes two columns.
    """
    import torch

    from divulge.adapters.torch import scoring

    one_query(query)
    with scoring(module, call or (lambda inputs: called(module, inputs))) as ready:
        parts = []
        for start in range(0, len(rows), BLOCK):
            outputs = ready.predict(take(data[0], rows[start : start + BLOCK]))
            if not isinstance(outputs, torch.Tensor):
                raise InputError(
                    "DV075",
                    f"the module gives {type(outputs).__name__}, expected one tensor, a row of numbers for each record",
                )
            outputs = outputs.detach().cpu()
            parts.append((outputs if outputs.dtype == torch.float64 else outputs.float()).numpy())
        return normalised(np.concatenate(parts), ready.apart(), data[1], logits=logits)


def place(module: Any) -> tuple[Any, Any]:
    """The device and the precision of a module."""
    import torch

    weights = [*module.parameters(), *module.buffers()]
    device = weights[0].device if weights else torch.device("cpu")
    return device, next((one.dtype for one in weights if one.is_floating_point()), torch.float32)


def as_tensors(inputs: Any, device: Any, dtype: Any) -> Any:
    """Inputs of any kind on the module's device, floats in its precision; mappings and tuples of several inputs too.

    Raises:
        InputError: DV074, texts or records of several shapes.
    """
    import torch

    if isinstance(inputs, Mapping):
        return {name: as_tensors(one, device, dtype) for name, one in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(as_tensors(one, device, dtype) for one in inputs)
    try:
        tensor = torch.as_tensor(inputs.to_numpy() if hasattr(inputs, "to_numpy") else inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "DV074",
            f"expected inputs that make a tensor, got {type(inputs).__name__}: {error}. Give numbers of one shape: a "
            "torch tensor, a numpy array or a table of numbers",
        ) from error
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def chosen(inputs: Any, index: Any) -> Any:
    """Rows of tensors by a (b,) tensor of their numbers."""
    if isinstance(inputs, Mapping):
        return {name: chosen(one, index) for name, one in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(chosen(one, index) for one in inputs)
    return inputs.index_select(0, index)  # several times as fast as inputs[index]


def called(module: Any, inputs: Any) -> Any:
    """The module's logits of a batch; the items of a mapping that its forward names go to it by name."""
    from divulge.adapters.torch import logits_of

    given, named = arguments(module, inputs)
    return logits_of(module(*given, **named))


def arguments(module: Any, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How inputs are given to a module's forward: by position and by name."""
    if isinstance(inputs, Mapping):
        parameters = inspect.signature(module.forward).parameters
        names = [name for name in inputs if name in parameters]
        anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        if names or anything:
            return (), {name: inputs[name] for name in (inputs if anything else names)}
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}
