"""Differentially private training (DP-SGD) for JAX by jax-privacy, and by the same library for Keras 3 on JAX.

    training = divulge.dp.jax.private(
        loss, optimizer, clip=1.0, noise=1.0, records=len(x), batch_size=256, delta=1e-6
    )  # loss(params, x, y) of one record; an optax optimizer
    state = optimizer.init(params)
    for _ in range(1000):
        params, state = training.step(params, state, x, y)
    print(training.privacy())

Noise comes from JAX's threefry, batches from numpy's PCG64: neither is a cryptographic generator.

Source: jax-privacy 2.0 (clipped_grad, CyclicPoissonSampling, gaussian_privatizer, keras_api).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from divulge.adapters.predictor import needed
from divulge.dp import accounting
from divulge.dp.accounting import Privacy
from divulge.errors import InputError


class Private(NamedTuple):
    """A private update, and the statement of what it guarantees.

    Attributes:
        step: (params, optimizer state, *data) -> (params, optimizer state). Draws its own batch from the data, arrays
            (or pytrees of them) with a row a record. Call it from Python: it is compiled already, and inside jit, scan
            or vmap, where one batch and one noise would be drawn for all calls, it refuses (DV503).
        privacy: states (epsilon, delta) of all calls of `step`, whatever became of their results.

    >>> Private._fields
    ('step', 'privacy')
    """

    step: Callable[..., tuple[Any, Any]]
    privacy: Callable[[], Privacy]


class PrivateKeras(NamedTuple):
    """A Keras model on JAX whose fit is private, and the statement of what that guarantees.

    >>> PrivateKeras._fields
    ('model', 'privacy')
    """

    model: Any
    privacy: Callable[[], Privacy]


def private(
    loss: Callable[..., Any],
    optimizer: Any,
    *,
    clip: float,
    noise: float,
    records: int,
    batch_size: int,
    delta: float,
    seed: int | None = None,
    steps: int | None = None,
    chunk: int | None = None,
) -> Private:
    """A private update step for a loss of one record.

    Args:
        loss: (params, *record) -> scalar, of one record without a batch axis; the same parts as `step` is given.
        optimizer: an optax.GradientTransformation.
        clip: L2 norm to which each record's gradient is clipped.
        noise: noise multiplier: standard deviation of the noise / clip. 0 trains without noise, and `privacy` refuses.
        records, batch_size: rows of the data, and the expected number of them in a batch.
        delta: of the statement; well below 1 / records.
        seed: fixes batches and noise, for tests only. None: from the system.
        steps: refuse a step beyond these.
        chunk: records whose gradients are held at once; None: enough for nearly every batch.

    Raises:
        InputError: DV501 parameters that nothing can be stated for; DV503, DV504, DV505 from a step: a call inside
            jit, scan or vmap; data that are not `records` rows; more steps than declared.
    """
    jax_privacy = needed("jax_privacy", "dp-jax")
    import dp_accounting
    import jax
    import optax

    accounting.check_training(clip=clip, noise=noise, records=records, batch_size=batch_size, delta=delta)
    rate = batch_size / records
    size = min(chunk or math.ceil(batch_size + 6 * math.sqrt(batch_size * (1 - rate))), records)
    entropy, key = _randomness(seed)
    # A batch of one step; step t's is a pure function of the entropy and t, as is its noise, so that no restored state
    # brings either back.
    sampling = jax_privacy.batch_selection.CyclicPoissonSampling(sampling_prob=rate, iterations=1)

    def update(params: Any, state: Any, key: Any, padding: Any, rows: tuple[Any, ...]) -> tuple[Any, Any]:
        clipped = jax_privacy.clipped_grad(
            loss,
            l2_clip_norm=clip,
            normalize_by=batch_size,
            batch_argnums=tuple(range(1, len(rows) + 1)),
            keep_batch_dim=False,
            microbatch_size=size,
        )
        gradient = clipped(params, *rows, is_padding_example=padding)
        deviation = noise * clipped.sensitivity(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
        privatizer = jax_privacy.noise_addition.gaussian_privatizer(stddev=deviation, prng_key=key)
        noised, _ = privatizer.update(gradient, privatizer.init(gradient))
        updates, state = optimizer.update(noised, state, params)
        return optax.apply_updates(params, updates), state

    compiled: Callable[..., tuple[Any, Any]] = jax.jit(update)
    taken = 0

    def step(params: Any, state: Any, *data: Any) -> tuple[Any, Any]:
        nonlocal taken
        # The zero tells of a jit around a call whose arguments are constants: what is made there is traced.
        for part in jax.tree.leaves((params, state, data, jax.numpy.zeros(()))):
            if isinstance(part, jax.core.Tracer):
                raise InputError(
                    "DV503",
                    "expected a call from Python, got one traced by jit, scan, vmap or another transformation, which "
                    "would repeat one batch and one noise and count one step. Call step outside jit/scan/vmap: it "
                    "draws its batch and counts in Python, and is compiled already.",
                )
        if steps is not None and taken >= steps:
            raise InputError("DV505", f"{steps} steps were declared, and this is one more.")
        for part in jax.tree.leaves(data):
            if np.shape(part)[:1] != (records,):
                raise InputError("DV504", f"{records} records were declared, and the data have {np.shape(part)[:1]}.")
        drawn = next(sampling.batch_iterator(records, rng=np.random.default_rng([entropy, taken])))
        rows = np.zeros(size * max(1, -(-len(drawn) // size)), np.int64)
        rows[: len(drawn)] = drawn
        padding = np.arange(len(rows)) >= len(drawn)
        number, taken = taken, taken + 1  # counted before it runs: a step that fails half-way is none too few
        batch = jax.tree.map(lambda part: part[rows], data)
        return compiled(params, state, jax.random.fold_in(key, number), padding, batch)

    def privacy() -> Privacy:
        return accounting.statement(
            noise=noise, rate=rate, steps=taken, delta=delta, clip=clip, seeded=seed is not None
        )

    return Private(step, privacy)


def private_keras(
    model: Any,
    *,
    clip: float,
    noise: float,
    records: int,
    batch_size: int,
    delta: float,
    steps: int,
    seed: int | None = None,
) -> PrivateKeras:
    """Makes a Keras model's fit private, in place, by jax-privacy's keras_api with Poisson sampling.

    Around that library stand checks which it lacks (2.0.0): a layer that keeps statistics of the records is
    refused; steps are counted apart from the weights, where restoring an earlier epoch would take them back; noise and
    batches are drawn afresh for each fit, where a restored or seeded generator would repeat them; weights on records
    or classes are refused, and so are train_on_batch and train_step, on batches of the caller's.

    Args:
        model: a keras.Model on the JAX backend, not yet compiled.
        clip, noise, records, batch_size, delta, seed: as of `private`.
        steps: most steps that may run; the library needs to know.

    Raises:
        InputError: DV501 parameters that nothing can be stated for; DV506 another backend; from fit: DV503 an option
            or a layer that the accounting does not cover; DV504 data that are not `records` rows; DV505 more steps
            than declared; from train_on_batch: DV502.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise InputError("DV506", f"expected Keras on JAX, and this process runs it on {keras.backend.backend()}.")
    needed("jax_privacy", "dp-jax")
    from jax_privacy import keras_api

    from divulge.dp.keras import refuse_statistics

    accounting.check_training(clip=clip, noise=noise, records=records, batch_size=batch_size, delta=delta)
    accounting.check(noise, batch_size / records, delta)  # the library trains with noise only
    entropy, _ = _randomness(seed)
    config = keras_api.DPKerasConfig(
        epsilon=1e12,  # ours is the accounting; this one only must not stop the training
        delta=delta,
        clipping_norm=clip,
        batch_size=batch_size,
        gradient_accumulation_steps=1,
        train_steps=steps,
        train_size=records,
        noise_multiplier=noise,
        poisson_sampling_in_fit=True,
        rescale_to_unit_norm=False,
        seed=0,  # replaced before each fit
    )
    model = keras_api.make_private(model, config)
    inner, taken, fitting = model.fit, 0, False

    class Count(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            nonlocal taken
            taken += 1

    def fit(x: Any, y: Any, *, epochs: int = 1, callbacks: Any = (), **options: Any) -> Any:
        """keras.Model.fit on arrays; of its options those about validation, initial_epoch, steps_per_epoch, verbose."""
        nonlocal fitting
        allowed = {"validation_data", "validation_freq", "validation_batch_size", "initial_epoch", "steps_per_epoch"}
        if unknown := options.keys() - allowed - {"verbose"}:
            raise InputError("DV503", f"private training takes no {sorted(unknown)[0]}= in fit.")
        if model.steps_per_execution != 1 or model.optimizer.gradient_accumulation_steps not in (None, 1):
            raise InputError("DV503", "private training takes no steps_per_execution and no gradient accumulation.")
        x, y = (keras.tree.map_structure(np.asarray, part) for part in (x, y))
        if any(part.shape[:1] != (records,) for part in keras.tree.flatten((x, y))):
            raise InputError(
                "DV504", f"expected the {records:,} records that were declared, got {len(keras.tree.flatten(x)[0]):,}."
            )
        per_epoch = options.get("steps_per_epoch") or max(1, records // batch_size)
        coming = (epochs - options.get("initial_epoch", 0)) * per_epoch
        if taken + coming > steps:
            raise InputError("DV505", f"{taken} steps ran and {coming} more are asked for; {steps} were declared.")
        refuse_statistics(model, keras.tree.map_structure(lambda part: part[:1], x))
        fresh = np.random.SeedSequence(entropy, spawn_key=(taken,)).generate_state(4)
        weights = {weight.name: weight for weight in model.non_trainable_variables}
        weights["_rng"].assign(fresh[:2])
        weights["_optimizer_steps"].assign(np.array([taken], np.uint32))
        model._dp_params = dataclasses.replace(config, seed=int(fresh[2:].view(np.uint64)[0] >> 1))
        options = {**options, "steps_per_epoch": per_epoch}
        chosen = {"epochs": epochs, "batch_size": batch_size, "callbacks": [Count(), *(callbacks or ())], **options}
        fitting = True
        try:
            return inner(x=x, y=y, **chosen)
        finally:
            fitting = False
            model.train_function = None  # compiled: it would run on any batch, uncounted

    def train_on_batch(*batch: Any, **options: Any) -> Any:
        """Refused: a batch chosen by the caller is no Poisson sample."""
        raise InputError("DV502", "private training draws its batches itself: use fit.")

    one_step = model.train_step

    def train_step(state: Any, data: Any) -> Any:
        if not fitting:
            raise InputError("DV502", "expected a step of fit, which draws its batch and counts; got train_step alone.")
        return one_step(state, data)

    model.fit, model.train_on_batch, model.train_step = fit, train_on_batch, train_step

    def privacy() -> Privacy:
        rate = batch_size / records
        return accounting.statement(
            noise=noise, rate=rate, steps=taken, delta=delta, clip=clip, seeded=seed is not None
        )

    return PrivateKeras(model, privacy)


def _randomness(seed: int | None) -> tuple[int, Any]:
    """Entropy for the batches, and a key for the noise: 64 bits of it, where a number would give 32."""
    import jax

    sequence = np.random.SeedSequence(seed)
    entropy = int(sequence.entropy)  # type: ignore[arg-type]  # one number, as one was given or none
    return entropy, jax.random.wrap_key_data(jax.numpy.asarray(sequence.spawn(1)[0].generate_state(2)))
