"""torch modules: mini-batches in an order of the seed's, one model at a time, or many at once (see `vmapped`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import needed
from divulge.adapters.records import take
from divulge.errors import InputError
from divulge.fits.batches import Batch, Rows, own, shared
from divulge.fits.naming import shown
from divulge.fits.outputs import Predict, codes_of
from divulge.fits.seeding import seeded
from divulge.fits.tensors import as_tensors, called, chosen, counted, on_device, place, scores
from divulge.references.jobs import AT_ONCE

_USED = "_divulge_used"  # marks a parameter that a model was trained with; a copy of it has no such mark


@dataclass(frozen=True, repr=False)
class Torch:
    """Trains a torch module on some rows; `many` trains a batch of them at once.

    Attributes:
        build: gives a new module, initialised from torch's global random numbers, which are the seed's.
        epochs: passes over the model's rows.
        batch_size: rows a batch; the last one may be shorter (batch normalisation does not take a last batch of one).
        optimizer: from a list of parameters to an optimiser: functools.partial(torch.optim.SGD, lr=0.1).
        loss: from (b, …) outputs and (b, …) targets to (b,) losses of each row by itself. None: cross-entropy of
            logits, of one or several columns.
        device: where to train; None: where build() puts the module.
        batches: "own": each model shuffles its own rows. "shared": all models go through all n rows in one order, and
            a row counts for those trained on it, so that a batch holds about fraction * batch_size of a model's rows.
        order_seed: of the order that "shared" has.
        schedule: from (optimiser, number of steps) to a learning rate scheduler, which is stepped after every batch.
        at_once: how many models `many` is given in a batch.

    The module is trained in the mode in which build() gives it, and scored in evaluation mode.

    Raises:
        InputError: DV003, a value that cannot be; DV071, torch is not installed.

    >>> def build():
    ...     import torch
    ...     return torch.nn.Linear(4, 2)
    >>> def optimizer(parameters):
    ...     import torch
    ...     return torch.optim.SGD(parameters, lr=0.1)
    >>> Torch(build, epochs=20, optimizer=optimizer).brief()
    (Torch(build, epochs=1, batch_size=64, optimizer=optimizer, loss=None, device=None, batches='own', order_seed=0, \
schedule=None, at_once=16), 20.0)
    """

    build: Callable[[], Any]
    _: KW_ONLY
    epochs: int
    batch_size: int = 64
    optimizer: Callable[[Any], Any]
    loss: Callable[[Any, Any], Any] | None = None
    device: Any = None
    batches: Literal["own", "shared"] = "own"
    order_seed: int = 0
    schedule: Callable[[Any, int], Any] | None = None
    at_once: int = AT_ONCE

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "at_once"):
            if getattr(self, name) < 1:
                raise InputError("DV003", f"expected {name} of at least 1, got {getattr(self, name)!r}")
        if self.batches not in ("own", "shared"):
            raise InputError("DV003", f"expected batches 'own' or 'shared', got {self.batches!r:.80}")

    def __repr__(self) -> str:
        return shown(self)

    def __call__(self, data: Any, rows: Rows, seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        needed("torch", "torch")
        with seeded(seed):
            module = self.built()
            device, dtype = place(module)
            labels = codes_of(data[1])
            n = len(labels)
            if self.batches == "own":  # only its rows go to the device
                inputs = as_tensors(take(data[0], rows), device, dtype)
                targets = self.targets(labels, rows, device, dtype)
                rows = np.arange(len(rows))
            else:
                inputs = as_tensors(data[0], device, dtype)
                targets = self.targets(labels, slice(None), device, dtype)
            parameters = [one for one in module.parameters() if one.requires_grad]
            optimizer = self.optimizer(parameters)
            steps = -(-(len(rows) if self.batches == "own" else n) // self.batch_size)
            schedule = self.schedule(optimizer, self.epochs * steps) if self.schedule else None
            for batches in self.steps([rows], [seed], n):
                for index, weight in on_device([counted(batch) for batch in batches], device):

                    def closure(index: Any = index, weight: Any = weight[0]) -> Any:
                        optimizer.zero_grad()
                        loss = (self.losses(called(module, chosen(inputs, index)), targets[index]) * weight).sum()
                        loss.backward()
                        return loss

                    optimizer.step(closure)
                    if schedule is not None:
                        schedule.step()
        return lambda data, rows, query: scores(module, data, rows, query, logits=self.loss is None)

    def fit_many(self, data: Any, rows: Sequence[Rows], seeds: Sequence[int]) -> list[Predict]:
        """Models trained side by side as one stacked module: each as by itself but for rounding, and much faster.

        Models are stacked that take the same number of batches; where the last ones differ in length, the shorter are
        filled with rows of weight 0, which change nothing. A module that mixes the rows of a batch (batch
        normalisation) is stacked only with models of as many rows. Dropout draws other masks than one by one, which
        also depend on the models beside it. On a CPU each of torch's threads trains a stack of its own, unless the
        module draws random numbers.

        Args:
            data: (x, y).
            rows: (m,) int64 of each model.
            seeds: of each model.

        Raises:
            InputError: DV405, a module or an optimiser that works otherwise when stacked.
        """
        from divulge.fits.vmapped import train

        return train(self, data, rows, seeds)

    def brief(self) -> tuple[Torch, float]:
        """A training of one epoch, and how many times as long all of them take."""
        return replace(self, epochs=1), float(self.epochs)

    def built(self) -> Any:
        """A new module on its device.

        Raises:
            InputError: DV003, one that was trained before: what it learned of other rows would stay in it.
        """
        module = self.build()
        for name, one in module.named_parameters():
            if one.requires_grad and getattr(one, _USED, False):
                raise InputError(
                    "DV003",
                    f"expected build() to give a new module every time, got one whose {name} was trained for another "
                    "model. Make the module inside build(), or copy.deepcopy it there",
                )
            setattr(one, _USED, True)
        return module if self.device is None else module.to(self.device)

    def steps(self, rows: Sequence[Rows], seeds: Sequence[int], n: int) -> Iterator[list[Batch]]:
        """The batches of each epoch of b models that take as many of them."""
        trained_on = np.zeros((len(rows), n if self.batches == "shared" else 0), bool)
        if self.batches == "shared":
            for one, part in zip(trained_on, rows, strict=True):
                one[part] = True
        for epoch in range(self.epochs):
            if self.batches == "shared":
                yield shared(trained_on, self.order_seed, epoch, self.batch_size)
            else:
                yield own(rows, seeds, epoch, self.batch_size)

    def targets(self, labels: NDArray[Any], rows: Any, device: Any, dtype: Any) -> Any:
        """Labels as the loss takes them: int64 column numbers, or floats.

        Raises:
            InputError: DV003, labels of a regression without a loss.
        """
        torch = needed("torch", "torch")
        if labels.dtype.kind == "f" and self.loss is None and labels.ndim == 1:
            raise InputError(
                "DV003",
                "expected labels of classes, got floats without a loss, which cross-entropy does not take. For a "
                "regression give loss=lambda outputs, targets: (outputs.reshape(-1) - targets) ** 2",
            )
        tensor = torch.from_numpy(np.ascontiguousarray(labels[rows]))
        return tensor.to(device, torch.int64 if tensor.ndim == 1 and not tensor.is_floating_point() else dtype)

    def losses(self, outputs: Any, targets: Any) -> Any:
        """(b,) of each row.

        Raises:
            InputError: DV003, a loss that is not one number a row.
        """
        from torch.nn import functional

        if self.loss is not None:
            losses = self.loss(outputs, targets)
            if tuple(getattr(losses, "shape", (0, 0))) != (len(targets),):
                raise InputError(
                    "DV003",
                    f"expected a loss of each row, of shape ({len(targets)},), got "
                    f"{tuple(getattr(losses, 'shape', ()))}. Give one that does not average: reduction='none'",
                )
            return losses
        if targets.ndim == 1 and outputs.ndim == 2 and outputs.shape[1] > 1:
            return functional.cross_entropy(outputs, targets, reduction="none")
        outputs = outputs.reshape(targets.shape)
        losses = functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype), reduction="none")
        return losses if losses.ndim == 1 else losses.mean(dim=1)
