"""Differentially private training (DP-SGD) for torch, by Opacus, with Poisson sampling and our own accounting.

    model, optimizer, loader, privacy = divulge.dp.torch.private(
        model, optimizer, dataset, clip=1.0, noise=1.0, batch_size=256, delta=1e-6
    )
    for epoch in range(10):
        for x, y in loader:
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()
    print(privacy())

Losses are means over the batch. Noise and batches come from torch's generator, which is not a cryptographic one.

Source: Yousefpour et al. 2021 (Opacus).
"""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

from divulge.adapters.predictor import needed
from divulge.dp import accounting
from divulge.dp.accounting import Privacy
from divulge.errors import InputError


class Private(NamedTuple):
    """What to train with in place of one's own.

    Attributes:
        model: Opacus' GradSampleModule around the model; the weights are shared.
        optimizer: clips, adds noise, counts.
        loader: draws Poisson samples; some batches are larger, some smaller, a few may be empty.
        privacy: states (epsilon, delta) of the optimizer's steps so far.

    >>> Private._fields
    ('model', 'optimizer', 'loader', 'privacy')
    """

    model: Any
    optimizer: Any
    loader: Any
    privacy: Callable[[], Privacy]


def private(
    model: Any,
    optimizer: Any,
    data: Any,
    *,
    clip: float,
    delta: float,
    noise: float | None = None,
    epsilon: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Private:
    """Model, optimizer and loader for DP-SGD, and the statement of what they guarantee.

    An epoch is len(loader) steps, and the sampling rate 1 / len(loader), as Opacus has it. A gradient that is not
    finite makes the weights NaN, which tells that such a record is there: leave such records out beforehand.

    Args:
        model: torch.nn.Module, in training mode, of layers that Opacus supports.
        optimizer: any torch optimizer over its parameters.
        data: a map-style Dataset (give batch_size) or a DataLoader (its dataset, batch size, collate_fn and workers are
            used, its sampler is replaced).
        clip: L2 norm to which each record's gradient is clipped.
        delta: of the statement; well below 1 / records.
        noise: noise multiplier; or epsilon and epochs: the least noise that keeps to them, and no step beyond.
        epsilon: nats.
        epochs: that will be run.
        batch_size: expected size of a batch, where data is a Dataset.
        seed: fixes batches and noise, for tests only. None: from the system.

    Raises:
        InputError: DV501 parameters that nothing can be stated for; DV502 a loader that weights or orders records
            itself; DV503 a model with layers that Opacus cannot make private; DV505, from a step: more steps than
            `epochs`.
    """
    opacus = needed("opacus", "dp-torch")
    import torch

    if (noise is None) == (epsilon is None) or (epsilon is None) != (epochs is None):
        raise InputError("DV501", "expected noise=, or epsilon= with epochs= (and not both).")
    if not (math.isfinite(clip) and clip > 0):
        raise InputError("DV501", f"expected clip, a norm above 0, got {clip!r}.")
    loader = _loader(data, batch_size)
    _refuse_statistics(model)
    rate, declared = 1 / len(loader), None if epochs is None else epochs * len(loader)
    if epsilon is not None and declared is not None:
        noise = accounting.noise_for(epsilon, rate, declared, delta)
    accounting.check(noise or 0.0, rate, delta)
    accounting.warn_of_delta(delta, len(loader.dataset))

    entropy = secrets.randbits(62) if seed is None else seed
    engine = opacus.PrivacyEngine()
    loader = copy.copy(loader)  # the caller's keeps its generator
    loader.generator = torch.Generator().manual_seed(entropy)
    device = next(model.parameters()).device
    try:
        private_model, private_optimizer, private_loader = engine.make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=noise,
            max_grad_norm=clip,
            noise_generator=torch.Generator(device).manual_seed(entropy + 1),
        )
    except (ValueError, NotImplementedError) as error:  # Opacus' validators raise these, with the reason in words
        raise InputError("DV503", f"Opacus cannot make this training private: {error}") from error
    count = engine.accountant.get_optimizer_hook_fn(sample_rate=rate)

    def step(stepping: Any) -> None:
        if declared is not None and sum(steps for *_, steps in engine.accountant.history) >= declared:
            raise InputError("DV505", f"the noise was made for {declared} steps, {epochs} epochs: this is one more.")
        count(stepping)

    private_optimizer.attach_step_hook(step)

    def privacy() -> Privacy:
        history = engine.accountant.history or [(noise, rate, 0)]
        if len(history) > 1:
            raise InputError("DV503", "noise or rate changed in training: accumulated batches, or a noise schedule.")
        ((used, sampled, steps),) = history
        return accounting.statement(
            noise=used, rate=sampled, steps=steps, delta=delta, clip=private_optimizer.max_grad_norm
        )

    return Private(private_model, private_optimizer, private_loader, privacy)


def _loader(data: Any, batch_size: int | None) -> Any:
    from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

    if not isinstance(data, DataLoader):
        if batch_size is None:
            raise InputError("DV501", "expected batch_size= with a Dataset.")
        data = DataLoader(data, batch_size=batch_size)
    elif batch_size not in (None, data.batch_size):
        raise InputError("DV501", f"batch_size={batch_size} was given, and the DataLoader has {data.batch_size}.")
    if isinstance(data.dataset, IterableDataset):
        raise InputError("DV502", "an IterableDataset comes in its own order; Poisson samples need records by index.")
    plain = type(data.batch_sampler) is BatchSampler and type(data.sampler) in (RandomSampler, SequentialSampler)
    if not plain:
        raise InputError("DV502", "the DataLoader has a sampler of its own, which Poisson sampling would replace.")
    return data


def _refuse_statistics(model: Any) -> None:
    """Opacus looks only at layers with trainable parameters; others may still keep statistics of the records."""
    from torch.nn.modules.batchnorm import _NormBase

    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and ("BatchNorm" in type(module).__name__ or module.track_running_stats):
            raise InputError(
                "DV503",
                f"{name or 'the model'} ({type(module).__name__}) mixes records or keeps statistics of them. Use "
                "GroupNorm or LayerNorm (opacus.validators.ModuleValidator.fix puts them in place).",
            )
