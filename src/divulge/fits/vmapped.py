"""Many torch models of one kind trained side by side: their weights stacked, one forward and one backward for all.

The stacked weights are the optimiser's parameters, and the sum of the models' mean losses is what it lowers: each
model's gradients are its own. What would make this wrong is looked for beforehand, on a few records and on random
numbers, and refused.
"""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import needed
from divulge.adapters.records import take
from divulge.errors import DivulgeError, InputError
from divulge.fits.batches import Rows
from divulge.fits.naming import value
from divulge.fits.outputs import Predict, codes_of
from divulge.fits.seeding import seeded

if TYPE_CHECKING:
    from divulge.fits.torch import Torch

FEW = 4
"""Records on which stacked modules are compared with themselves one by one."""
LOOKED_AT = 64
"""Records among which one is looked for that differs from another."""
CLOSE = 1e-2
"""How far their outputs may differ, as a share of the largest: convolutions on a GPU round to a thousandth."""
FIX = "Train the models one by one, in several processes: executor='processes'"


def train(fit: Torch, data: Any, rows: Sequence[Rows], seeds: Sequence[int]) -> list[Predict]:
    """`Torch.many`.

    >>> from divulge.fits import Torch
    >>> train(Torch(dict, epochs=1, optimizer=dict), (np.eye(2), [0, 1]), [], [])
    []
    """
    from divulge.fits.tensors import as_tensors, place

    if not rows:
        return []
    torch = needed("torch", "torch")
    with seeded(seeds[0]):
        module = fit.build()
        mixing, drawing = _kind(module, data)
    if mixing and fit.batches == "shared":
        raise InputError(
            "DV405",
            "expected a module whose outputs for a row do not depend on the other rows of its batch, got one with "
            f"batch normalisation or the like, and batches='shared', which mix the rows of all models. {FIX}, or give "
            "batches='own'",
        )
    device, dtype = place(module if fit.device is None else module.to(fit.device))
    labels = codes_of(data[1])
    inputs, targets = as_tensors(data[0], device, dtype), fit.targets(labels, slice(None), device, dtype)
    groups: dict[int, list[int]] = defaultdict(list)
    for i, part in enumerate(rows):
        own = len(part) if mixing else -(-len(part) // fit.batch_size)
        groups[0 if fit.batches == "shared" else own].append(i)
    threads = torch.get_num_threads()
    alone = drawing or device.type != "cpu"
    # Each thread has a stack of its own: what is as small as these models is not worth sharing step by step, and
    # threads that wait for each other at every step crawl where a core is busy with something else. The generator
    # that dropout draws from is one for all threads.
    parts = [
        part for members in groups.values() for part in _dealt(members, 1 if alone else min(threads, len(members)))
    ]

    stop = threading.Event()

    def stacked(part: list[int]) -> list[Predict]:
        if len(parts) > 1 and not alone:
            torch.set_num_threads(1)
        try:
            stack = _Stack(fit, [seeds[i] for i in part], data)
            with seeded(int(np.random.SeedSequence(stack.seeds).generate_state(1)[0])) if alone else nullcontext():
                stack.train(inputs, targets, [rows[i] for i in part], len(labels), stop)
        except BaseException:
            stop.set()  # the others would train to their end first
            raise
        return [stack.predict(i) for i in range(len(part))]

    try:
        if len(parts) > 1 and not alone:
            with ThreadPoolExecutor(threads) as pool:
                try:
                    done = list(pool.map(stacked, parts))
                except BaseException:  # Ctrl-C reaches this thread alone
                    stop.set()
                    raise
        else:
            done = [stacked(part) for part in parts]
    finally:
        torch.set_num_threads(threads)
    trained = {
        i: predict for part, made in zip(parts, done, strict=True) for i, predict in zip(part, made, strict=True)
    }
    return [trained[i] for i in range(len(rows))]


def _dealt(members: list[int], parts: int) -> list[list[int]]:
    return [members[i::parts] for i in range(parts)]


class _Stack:
    """Models of one group: `parameters` and `buffers` hold a tensor each by name, with the models as first axis."""

    def __init__(self, fit: Torch, seeds: Sequence[int], data: Any) -> None:
        """Builds each model as `Torch` would by itself, and checks that stacking them changes nothing."""
        import torch

        self.fit, self.seeds = fit, seeds
        self.parameters: dict[str, Any] = {}
        self.buffers: dict[str, Any] = {}
        expected = []
        for i, seed in enumerate(seeds):
            with seeded(seed):
                module = fit.built()
            if i == 0:
                self.module = module
                self.trainable = {name for name, one in module.named_parameters() if one.requires_grad}
                few = self._few(data)
                self.parameters = {name: _room(one, len(seeds)) for name, one in module.named_parameters()}
                self.buffers = {name: _room(one, len(seeds)) for name, one in module.named_buffers()}
            named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            stacked = {**self.parameters, **self.buffers}
            if {name: one.shape for name, one in named.items()} != {n: one.shape[1:] for n, one in stacked.items()}:
                raise InputError("DV405", f"expected build() to give modules of one shape, got others by chance. {FIX}")
            with torch.no_grad():
                for name, one in named.items():
                    stacked[name][i] = one
            expected.append(_scored(module, few))
        self._check_stacked(few, expected)

    def _few(self, data: Any) -> Any:
        from divulge.fits.tensors import as_tensors, place

        return as_tensors(take(data[0], np.arange(min(FEW, len(data[1])))), *place(self.module))

    def _check_stacked(self, few: Any, expected: list[Any]) -> None:
        """Refuses a module that vmap does not take, or that holds numbers which are neither parameter nor buffer."""
        import torch

        from divulge.adapters.torch import evaluating

        with evaluating(self.module), torch.no_grad():
            try:
                got = self._forward(shared=True)(self.parameters, self.buffers, few)
            except (RuntimeError, ValueError, TypeError) as error:
                raise self._not_stackable(error, "in evaluation mode") from error
        want = torch.stack(expected)
        if got.shape != want.shape or not bool(((got - want).abs() <= CLOSE * want.abs().max()).all()):
            raise InputError(
                "DV405",
                f"expected stacked modules to give what they give one by one, got other outputs from "
                f"{type(self.module).__name__}: build() draws something by chance that is neither a parameter nor a "
                f"buffer. Make it a buffer (register_buffer). {FIX}",
            )

    def _not_stackable(self, error: Exception, when: str) -> InputError:
        return InputError(
            "DV405",
            f"expected a module that torch.func.vmap can run, got {type(self.module).__name__}, which fails there "
            f"{when}: {_first_line(error)}. {FIX}",
        )

    def _forward(self, shared: bool) -> Callable[[Any, Any, Any], Any]:
        """From parameters, buffers and inputs to (b, k, …) outputs; `shared`: the same (k, …) inputs for all models."""
        import torch

        from divulge.adapters.torch import logits_of
        from divulge.fits.tensors import arguments

        def one(parameters: Any, buffers: Any, inputs: Any) -> Any:
            given, named = arguments(self.module, inputs)
            return logits_of(torch.func.functional_call(self.module, (parameters, buffers), given, named))

        mapped: Callable[[Any, Any, Any], Any] = torch.func.vmap(
            one, in_dims=(0, 0, None if shared else 0), randomness="different"
        )
        return mapped

    def train(self, inputs: Any, targets: Any, rows: Sequence[Rows], n: int, stop: threading.Event) -> None:
        """All epochs.

        Args:
            inputs: of all rows, on the device.
            targets: of all rows, on the device.
            rows: of each model.
            n: how many rows there are.
            stop: ends the training where it is.
        """
        from divulge.fits.tensors import chosen, on_device

        fit, b = self.fit, len(rows)
        shared = fit.batches == "shared"
        forward = self._forward(shared)

        def loss(parameters: Any, buffers: Any, index: Any, weight: Any) -> Any:
            batch = chosen(inputs, index.reshape(-1))
            outputs = forward(parameters, buffers, batch if shared else _folded(batch, b))
            wanted = targets[index].expand(b, *(-1,) * targets.ndim) if shared else targets[index]
            # A loss is of a row by itself, so that the models' rows may lie in one axis.
            losses = fit.losses(outputs.flatten(0, 1), wanted.flatten(0, 1))
            return (losses.reshape(weight.shape) * weight).sum()

        first = next(fit.steps(rows, self.seeds, n))
        index, weight = next(on_device(first[:1], targets.device))
        own = {name: one for name, one in self.module.named_parameters() if name in self.trainable}
        try:
            leaves, orders = self._leaves(lambda parameters, buffers: loss(parameters, buffers, index, weight))
        except DivulgeError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:  # what a module does in training mode only
            raise self._not_stackable(error, "in a step of the training") from error
        optimizer = _optimizer(fit, own, leaves)
        schedule = fit.schedule(optimizer, len(first) * fit.epochs) if fit.schedule else None

        def turned() -> dict[str, Any]:
            return {name: one.permute(order) for (name, order), one in zip(orders.items(), leaves, strict=True)}

        for batches in fit.steps(rows, self.seeds, n):
            for index, weight in on_device(batches, targets.device):
                if stop.is_set():
                    return
                optimizer.zero_grad()
                loss({**self.parameters, **turned()}, self.buffers, index, weight).backward()
                optimizer.step()
                if schedule is not None:
                    schedule.step()
        self.parameters.update({name: one.detach() for name, one in turned().items()})

    def _leaves(self, loss: Callable[[Any, Any], Any]) -> tuple[list[Any], dict[str, list[int]]]:
        """The stacked parameters to be trained, each with its numbers in the order in which its gradient has them.

        Otherwise every step copies a gradient from one order into the other, which takes as long as a product.

        Returns:
            The parameters with their axes in that order; by name, how to turn them into what the module takes.
        """
        import torch

        names = [name for name in self.parameters if name in self.trainable]
        wanted = [self.parameters[name].requires_grad_() for name in names]
        buffers = {name: one.clone() for name, one in self.buffers.items()}  # statistics of this trial do not count
        gradients = torch.autograd.grad(loss(self.parameters, buffers), wanted, allow_unused=True)
        leaves, orders = [], {}
        for name, gradient in zip(names, gradients, strict=True):
            one = self.parameters[name].detach()
            order = list(range(one.ndim))
            if gradient is not None and all(gradient.shape) and not gradient.is_contiguous():
                order[1:] = [
                    1 + int(axis) for axis in np.argsort([-step for step in gradient.stride()[1:]], kind="stable")
                ]
            leaves.append(one.permute(order).contiguous().requires_grad_())
            orders[name] = [order.index(axis) for axis in range(one.ndim)]
            del self.parameters[name]
        return leaves, orders

    def predict(self, i: int) -> Predict:
        """Of model i: its weights stay where they are in the stack."""
        import torch

        from divulge.fits.tensors import arguments, scores

        def predict(data: Any, rows: NDArray[np.int64], query: int) -> NDArray[Any]:
            module = copy.deepcopy(self.module)  # its mode changes for a while: other threads have their own
            weights = {name: one[i] for name, one in {**self.parameters, **self.buffers}.items()}

            def call(inputs: Any) -> Any:
                given, named = arguments(module, inputs)
                return torch.func.functional_call(module, weights, given, named)

            return scores(module, data, rows, query, call, logits=self.fit.loss is None)

        return predict


def _room(one: Any, b: int) -> Any:
    """An empty tensor for b of the same shape."""
    import torch

    return torch.empty((b, *one.shape), dtype=one.dtype, device=one.device)


def _folded(batch: Any, b: int) -> Any:
    """(b * k, …) inputs as (b, k, …)."""
    if isinstance(batch, dict):
        return {name: _folded(one, b) for name, one in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_folded(one, b) for one in batch)
    return batch.reshape(b, -1, *batch.shape[1:])


def _scored(module: Any, few: Any) -> Any:
    import torch

    from divulge.adapters.torch import evaluating
    from divulge.fits.tensors import called

    with evaluating(module), torch.no_grad():
        return called(module, few)


def _kind(module: Any, data: Any) -> tuple[bool, bool]:
    """How a module behaves as it is trained.

    Returns:
        Whether a row's outputs, or the module's buffers, depend on another row of the batch; whether it draws random
        numbers.
    """
    import torch

    from divulge.fits.tensors import as_tensors, called, chosen, place

    inputs = as_tensors(take(data[0], np.arange(min(LOOKED_AT, len(data[1])))), *place(module))
    other = _unlike(inputs, FEW - 1)
    if other is None:
        return True, True  # not seen, so that nothing is taken for granted
    made, drawing = [], False
    for last in (FEW - 1, other):
        batch = chosen(inputs, torch.tensor([*range(FEW - 1), last], device=place(module)[0]))
        trial = copy.deepcopy(module)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # the same masks of dropout
            before = torch.get_rng_state()
            outputs = called(trial, batch)
            drawing = drawing or not torch.equal(before, torch.get_rng_state())
        made.append([outputs[: FEW - 1], *trial.buffers()])
    mixing = not all(torch.equal(one, other) for one, other in zip(*made, strict=True))
    return mixing, drawing


def _unlike(inputs: Any, row: int) -> int | None:
    """The first record after a row that differs from it; None where there is none."""
    import torch

    if isinstance(inputs, dict | tuple):
        found = [_unlike(one, row) for one in (inputs.values() if isinstance(inputs, dict) else inputs)]
        return next((one for one in found if one is not None), None)
    return next((i for i in range(row + 1, len(inputs)) if not torch.equal(inputs[i], inputs[row])), None)


def _optimizer(fit: Torch, own: dict[str, Any], leaves: list[Any]) -> Any:
    """The fit's optimiser of stacked parameters, in its fused form where it has one: it reads memory half as often.

    Args:
        fit: whose optimiser it is.
        own: the parameters of one model, by name.
        leaves: the stacked ones, in the same order.

    Raises:
        InputError: DV405, it moves stacked parameters otherwise than each model's.
    """
    name = _set_otherwise(fit, own, leaves)
    if name is not None:
        raise InputError(
            "DV405",
            f"expected an optimiser that has the same settings for a parameter and for a stack of them, got "
            f"{value(fit.optimizer)}, whose settings of {name} differ: they are chosen by its shape. {FIX}",
        )
    shapes = [tuple(one.shape[1:]) for one in leaves]
    reason = _why_apart(fit, shapes, fused=False)
    if reason is None:
        optimizer = fit.optimizer(leaves)
        fused = _fused(optimizer)
        return optimizer if fused is None or _why_apart(fit, shapes, fused=True) else fused
    raise InputError(
        "DV405",
        f"expected an optimiser that moves each number by its own gradient, got {value(fit.optimizer)}, which "
        f"{reason}. {FIX}, or take another (SGD, Adam, AdamW)",
    )


def _set_otherwise(fit: Torch, own: dict[str, Any], leaves: list[Any]) -> str | None:
    """The first parameter for which the optimiser has other settings as it is than when it is stacked."""

    def settings(parameters: list[Any]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for group in fit.optimizer(parameters).param_groups:
            plain = {name: one.tolist() if hasattr(one, "tolist") else one for name, one in group.items()}
            del plain["params"]
            found |= {id(one): plain for one in group["params"]}
        return [found.get(id(one), {}) for one in parameters]

    try:
        alone, stacked = settings(list(own.values())), settings(leaves)
    except (RuntimeError, ValueError, TypeError):
        return None  # found out by a trial of it, with the reason
    return next((name for name, one, other in zip(own, alone, stacked, strict=True) if one != other), None)


def _fused(optimizer: Any) -> Any:
    """The same optimiser in its fused form; None where it has none, or its maker chose another."""
    import torch

    if type(optimizer) not in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        return None
    groups = optimizer.param_groups
    if any(group.get(name) for group in groups for name in ("foreach", "fused", "differentiable", "capturable")):
        return None
    try:
        return type(optimizer)([{**group, "fused": True} for group in groups], **{**optimizer.defaults, "fused": True})
    except (RuntimeError, TypeError):  # not on this device, or not in this version
        return None


def _why_apart(fit: Torch, shapes: list[tuple[int, ...]], *, fused: bool) -> str | None:
    """How an optimiser moves stacked parameters otherwise than each by itself, on small random ones; None: it does not.

    Args:
        fit: whose optimiser is tried.
        shapes: of the parameters of one model; tried are as many, with as many axes, shorter ones.
        fused: whether the stacked ones are moved by its fused form.
    """
    import torch

    models, steps = 3, 4
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([1.0, 0.1, 10.0])  # what looks at all of a tensor sees three different models
    small = [tuple(min(size, 3) for size in shape) for shape in shapes]
    start = [torch.randn(models, *shape, generator=generator) for shape in small]
    gradients = [
        [torch.randn(one.shape, generator=generator) * scales.reshape(-1, *(1,) * (one.ndim - 1)) for one in start]
        for _ in range(steps)
    ]

    def moved(parameters: list[Any], given: list[list[Any]], fused: bool = False) -> list[Any]:
        leaves = [one.clone().requires_grad_() for one in parameters]
        optimizer = fit.optimizer(leaves)
        optimizer = _fused(optimizer) if fused else optimizer
        schedule = fit.schedule(optimizer, steps) if fit.schedule else None
        for gradient in given:
            for leaf, one in zip(leaves, gradient, strict=True):
                leaf.grad = one.clone()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        return [leaf.detach() for leaf in leaves]

    try:
        together = moved(start, gradients, fused)
        apart = [
            moved([one[i] for one in start], [[one[i] for one in gradient] for gradient in gradients])
            for i in range(models)
        ]
    except (RuntimeError, ValueError, TypeError) as error:
        return f"fails on stacked parameters: {_first_line(error)}"
    for i, own in enumerate(apart):
        if not all(
            torch.allclose(one[i], other, rtol=1e-4, atol=1e-6) for one, other in zip(together, own, strict=True)
        ):
            return "moves stacked parameters otherwise than each model's"
    return None


def _first_line(error: Exception) -> str:
    return f"{next(iter(str(error).strip().splitlines()), type(error).__name__):.300}"
