"""torch modules, on the device they are on: evaluation mode, no graph, the input of a last softmax layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from divulge.adapters.predictor import Predictor


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A module's outputs, its `logits` where it gives a mapping or an object with that name."""
    with scoring(model) as predictor:
        yield predictor


@contextmanager
def scoring(model: Any, call: Callable[[Any], Any] | None = None) -> Iterator[Predictor]:
    """From a batch of inputs to logits; at the end the module is as it was before.

    Args:
        model: a torch.nn.Module.
        call: from a batch on the device to outputs; None: the module's forward, with a mapping's items by name.
    """
    import torch

    model = getattr(model, "_orig_mod", model)  # of torch.compile: hooks on compiled code would compile it again
    weights = list(chain(model.parameters(), model.buffers()))
    device = weights[0].device if weights else torch.device("cpu")
    dtype = next((one.dtype for one in weights if one.is_floating_point()), torch.float32)
    last: list[tuple[Any, Any, Any]] = []  # the softmax or sigmoid that ran last, what went into it, what came out
    apart = False

    def keep(module: Any, given: Any, made: Any) -> None:
        last[:] = [(module, given[0], made)] if given else []

    heads = (torch.nn.Softmax, torch.nn.LogSoftmax, torch.nn.Sigmoid, torch.nn.LogSigmoid)
    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, heads)]

    def forward(inputs: Any) -> Any:
        nonlocal apart
        last.clear()
        # Not inference_mode: what a module keeps from such a pass could not be trained with afterwards.
        with torch.no_grad():
            inputs = _moved(inputs, device, dtype)
            outputs = logits_of(call(inputs) if call else _called(model, inputs))
        if not isinstance(outputs, torch.Tensor):
            return outputs  # several, which the caller refuses
        if last:
            head, given, made = last[0]
            before = _before(given, made, outputs)
            apart = before is not outputs and isinstance(head, torch.nn.Sigmoid | torch.nn.LogSigmoid)
            outputs = before
        last.clear()
        return outputs[None] if outputs.ndim == 0 else outputs  # a batch of one, squeezed

    try:
        with evaluating(model):
            yield Predictor(forward, apart=lambda: apart)
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every submodule has its own flag again."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        model.train(flags[0][1])  # for what a module's own train() does besides
        for module, training in flags:
            module.training = training


def logits_of(outputs: Any) -> Any:
    """The logits among what a module gives: what has this name, else all of it."""
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return outputs["logits"]
    return getattr(outputs, "logits", outputs)


def _before(given: Any, made: Any, outputs: Any) -> Any:
    """What went into the last softmax, if the model's outputs are what came out of it, at most in another shape."""
    if made is outputs:
        return given
    same = made.numel() == outputs.numel() and made.data_ptr() == outputs.data_ptr()
    return given.reshape(outputs.shape) if same and bool((made.reshape(outputs.shape) == outputs).all()) else outputs


def _called(model: Any, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        parameters = inspect.signature(model.forward).parameters
        names = [name for name in inputs if name in parameters]
        anything = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        if names or anything:
            return model(**(inputs if anything else {name: inputs[name] for name in names}))
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def _moved(inputs: Any, device: Any, dtype: Any) -> Any:
    """On the model's device, and of its precision: float64 arrays go into a float32 model."""
    import torch

    if isinstance(inputs, Mapping):
        return {name: _moved(value, device, dtype) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(_moved(value, device, dtype) for value in inputs)
    if isinstance(inputs, list) and isinstance(inputs[0], Mapping | torch.Tensor):
        return _moved(torch.utils.data.default_collate(inputs), device, dtype)
    if hasattr(inputs, "iloc"):
        inputs = inputs.to_numpy()
    tensor = torch.as_tensor(inputs)
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
