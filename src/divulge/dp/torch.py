"""Differentially private training (DP-SGD) for torch, by Opacus, with Poisson sampling and our own accounting.

    model, optimizer, loader, privacy, mean = divulge.dp.torch.private(
        model, optimizer, dataset, clip=1.0, noise=1.0, batch_size=256, delta=1e-6
    )
    criterion = torch.nn.CrossEntropyLoss(reduction="none")
    for epoch in range(10):
        for x, y in loader:
            optimizer.zero_grad()
            mean(criterion(model(x), y)).backward()
            optimizer.step()
    print(privacy())

The loss must be the plain mean over the batch of losses that each depend on one record; nothing here can see whether it
is. reduction="sum", or class weights in a mean (which is then over the weights), scale one record's gradient by what
else is in the batch, and the statement does not hold. `mean` of losses by record is right, with class weights too.

Noise and batches come from torch's generator, which is not a cryptographic one.

Source: Yousefpour et al. 2021 (Opacus).
"""

from __future__ import annotations

import copy
import math
import secrets
from collections.abc import Callable, Iterator
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
        loader: draws Poisson samples; some batches are larger, some smaller, a few may be empty. One step each.
        privacy: states (epsilon, delta) of the optimizer's steps so far.
        mean: the loss to call backward on, from each record's loss, (b,).

    >>> Private._fields
    ('model', 'optimizer', 'loader', 'privacy', 'mean')
    """

    model: Any
    optimizer: Any
    loader: Any
    privacy: Callable[[], Privacy]
    mean: Callable[[Any], Any]


class Loader:
    """A DataLoader of Poisson samples that notes the size of each batch it hands out.

    Attributes:
        dataset, batch_sampler, sample_rate, num_workers: of Opacus' DPDataLoader.
        collate_fn: makes a batch of a list of records.
    """

    def __init__(self, inner: Any, handed: list[int]) -> None:
        self.collate_fn = inner.collate_fn
        inner.collate_fn = _Sized(inner.collate_fn)  # sizes come with the batches, out of worker processes too
        self._inner, self._handed = inner, handed
        self.dataset, self.batch_sampler = inner.dataset, inner.batch_sampler
        self.sample_rate, self.num_workers = inner.sample_rate, inner.num_workers

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        for size, batch in self._inner:
            self._handed.append(size)
            yield batch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)


class _Sized:
    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, records: Any) -> tuple[int, Any]:
        return len(records), self.collate(records)


def mean(losses: Any) -> Any:
    """The mean of each record's loss, 0 for an empty batch.

    Args:
        losses: (b,) tensor, as of a criterion with reduction="none".

    Raises:
        InputError: DV503: not one loss a record.
    """
    if getattr(losses, "ndim", None) != 1:
        shape = tuple(getattr(losses, "shape", ()))
        raise InputError(
            "DV503",
            f"expected a loss for each record, (b,), got shape {shape}: what was summed or averaged by weights scales "
            'one record by the others. Give the criterion reduction="none", and sum what is within a record.',
        )
    return losses.sum() / max(len(losses), 1)


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
            itself; DV503 a model with layers that Opacus cannot make private, or whose output for a record is found to
            depend on the other records. From a step: DV502 not one whole batch of the loader, once; DV503 a buffer
            that changed; DV505 more steps than `epochs`.
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
    _refuse_mixing(model, loader.dataset)

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
    handed: list[int] = []  # sizes of the batches since the last step
    kept = {name: (buffer, buffer._version) for name, buffer in model.named_buffers()}

    def step(stepping: Any) -> None:
        if declared is not None and sum(steps for *_, steps in engine.accountant.history) >= declared:
            raise InputError("DV505", f"the noise was made for {declared} steps, {epochs} epochs: this is one more.")
        sizes = tuple(handed)
        handed.clear()
        _refuse_batch(stepping, sizes)
        _refuse_changed(model, kept)
        count(stepping)

    private_optimizer.attach_step_hook(step)

    def privacy() -> Privacy:
        history = engine.accountant.history or [(noise, rate, 0)]
        if len(history) > 1:
            raise InputError("DV503", "noise or rate changed in training: accumulated batches, or a noise schedule.")
        ((used, sampled, steps),) = history
        return accounting.statement(
            noise=used,
            rate=sampled,
            steps=steps,
            delta=delta,
            clip=private_optimizer.max_grad_norm,
            seeded=seed is not None,
        )

    return Private(private_model, private_optimizer, Loader(private_loader, handed), privacy, mean)


def _refuse_batch(optimizer: Any, sizes: tuple[int, ...]) -> None:
    """Refuses a step that is not on one whole batch of the private loader, used once.

    Args:
        optimizer: Opacus', before it changes a weight.
        sizes: of the batches that the loader handed out since the last step.
    """
    if optimizer._is_last_step_skipped:
        raise InputError(
            "DV502",
            "expected a step for each batch, got one made of several (signal_skip_step, as by Opacus' "
            "BatchMemoryManager): whether its parts are one Poisson sample cannot be seen. Take a smaller batch_size.",
        )
    if len(sizes) != 1:
        raise InputError(
            "DV502",
            f"expected one new batch of the private loader since the last step, got {len(sizes)}. Batches of another "
            "loader, one batch stepped on twice, several accumulated and batches passed over are no Poisson sample: "
            "step once on each batch as it comes. To look at a record, use the data set.",
        )
    rows = sorted({len(samples) for samples in optimizer.grad_samples})
    if rows and rows != [sizes[0]]:
        raise InputError(
            "DV502",
            f"expected gradients of the {sizes[0]} records that the private loader drew, got {rows} rows. Call "
            "zero_grad before backward, and give the model the whole batch, once.",
        )


def _refuse_changed(model: Any, kept: dict[str, tuple[Any, int]]) -> None:
    """Refuses a step after a buffer was written to: a record would reach it past clipping and noise."""
    for name, buffer in model.named_buffers():
        before, version = kept.get(name, (None, 0))
        if buffer is not before or buffer._version != version:
            raise InputError(
                "DV503",
                f"expected buffers that stay as they were in private(), and {name} changed: it may keep statistics of "
                "the records, past clipping and noise. Leave it out, or (weights were loaded) call private() again.",
            )


def _refuse_mixing(model: Any, dataset: Any) -> None:
    """Refuses a model whose output for a record changes with the records beside it, by trying it on a copy.

    Data sets whose records are not (x, …) with tensors of one shape, models that do not take x alone, and models with
    randomness other than of Dropout layers are not tried.
    """
    import torch

    device = next(model.parameters()).device
    outputs = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        try:
            records = [dataset[i] for i in range(min(len(dataset), 7))]
            if not all(isinstance(record, tuple | list) and torch.is_tensor(record[0]) for record in records):
                return
            x = torch.stack([record[0] for record in records]).to(device)
            trial = copy.deepcopy(model)
            for module in trial.modules():
                if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                    module.p = 0.0
                elif isinstance(getattr(module, "dropout", None), float):  # attention, recurrent layers
                    module.dropout = 0.0
            first, other = x[:3], torch.cat([x[:1], x[3:]])
            if x.is_floating_point():
                other[1:] *= 3  # where records are alike, too
            for seed, batch in ((0, first), (1, first), (0, other)):
                torch.manual_seed(seed)
                output = trial(batch)[0]
                outputs.append(output.double())
            tolerance = max(1e-2, 8 * torch.finfo(output.dtype).eps)  # kernels round by the size of the batch
        except Exception:  # what a model or a data set of the caller's may raise; the training itself will tell
            return
    plain, again, beside = outputs
    scale = float(plain.nan_to_num(0.0, 0.0, 0.0).abs().max()) if plain.numel() else 0.0
    near = {"rtol": tolerance, "atol": tolerance * scale, "equal_nan": True}
    if torch.allclose(plain, again, **near) and not torch.allclose(plain, beside, **near):
        raise InputError(
            "DV503",
            "expected a model that takes each record alone, and its output for one changes with the others of the "
            "batch: it mixes records, as batch normalization does. Use GroupNorm or LayerNorm.",
        )


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
    if len(data.sampler) != len(data.dataset):
        raise InputError(
            "DV502",
            f"expected a sampler of all {len(data.dataset)} records, got one of {len(data.sampler)}, which Poisson "
            "sampling would replace. Give a Subset of the data set, or leave num_samples out.",
        )
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
