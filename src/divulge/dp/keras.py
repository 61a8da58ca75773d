"""Differentially private training (DP-SGD) for Keras 3 on TensorFlow.

    model = keras.Sequential([...])
    trainer = divulge.dp.keras.private(model, clip=1.0, noise=1.0, records=len(x), batch_size=256, delta=1e-6)
    trainer.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    trainer.fit(x, y, epochs=10)
    print(trainer.privacy)

Each record goes through the model alone, so that no layer and no loss can mix records; what would carry data past the
noise (a layer that updates its own statistics, weights on records or classes, batches that are no Poisson samples) is
refused. Training metrics are computed from the data without noise: they are not private. Noise comes from
`tf.random.Generator` (Philox), batches from numpy's PCG64: neither is a cryptographic generator, and sums are in
float32, so the guarantee is that of the mechanism in real numbers with true randomness.

Source: Abadi et al. 2016, algorithm 1.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import needed
from divulge.dp import accounting
from divulge.dp.accounting import Privacy
from divulge.errors import InputError

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")  # Keras' names for the mean over records
WRITES = ("Assign", "ResourceScatter", "LookupTableInsert")  # how TensorFlow's names of ops that write begin
SEED = "seed_generator_state"  # Keras' name for the state of a layer's generator (dropout)


class Settings(NamedTuple):
    """What a private training was set to.

    Attributes:
        clip: L2 norm to which each record's gradient is clipped.
        noise: noise multiplier: standard deviation of the noise / clip.
        records: number of records in the training set.
        batch_size: expected size of a batch.
        delta: of the statement.
        seed: None: from the system.
        steps: most steps that may run; None: no such limit.
        chunk: records whose gradients are held at once.

    >>> Settings(1.0, 1.0, 1000, 50, 1e-5, None, None, 64).rate
    0.05
    """

    clip: float
    noise: float
    records: int
    batch_size: int
    delta: float
    seed: int | None
    steps: int | None
    chunk: int

    @property
    def rate(self) -> float:
        """Probability with which a step draws a record."""
        return self.batch_size / self.records


def private(
    model: Any,
    *,
    clip: float,
    noise: float,
    records: int,
    batch_size: int,
    delta: float,
    seed: int | None = None,
    steps: int | None = None,
    chunk: int | None = None,
) -> Any:
    """A keras.Model that trains `model`'s weights with DP-SGD: compile it, fit it, read its `privacy`.

    The weights are shared: predict with, and save, either. `fit(x, y, epochs=…)` takes arrays (or dicts or tuples of
    arrays), draws each record on its own for each step, and divides by the expected batch size. An epoch is
    records / batch_size steps. `privacy` states (epsilon, delta) of the steps that ran in this object, early stopping
    and restored weights included; what the same weights were trained with elsewhere, or by `model` itself, it cannot
    know.

    Args:
        model: any keras.Model with a `call` that treats records alike; not one with its own train_step.
        clip: L2 norm to which each record's whole gradient is clipped.
        noise: noise multiplier: standard deviation of the noise / clip; `accounting.noise_for` finds it for an
            epsilon. 0 trains without noise, and `privacy` refuses.
        records: number of records in the training set; taken as public, as batch_size is.
        batch_size: expected number of records in a batch.
        delta: of the statement; well below 1 / records.
        seed: fixes batches and noise, for tests only: whoever knows it can take the noise away. None: the system's.
        steps: refuse to train for more steps than these, which `noise` was made for.
        chunk: records whose gradients are held at once (memory: chunk times the weights); None: enough for nearly
            every batch.

    Raises:
        InputError: DV501 parameters that nothing can be stated for; DV502 a step outside fit; DV503 a model or, in
            compile and fit, an option that the accounting does not cover; DV504 data that are not `records` records, in
            fit; DV505 more steps than declared, in fit; DV506 another backend than TensorFlow.
    """
    keras = needed("keras", "tensorflow")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "DV506",
            f"divulge.dp.keras trains Keras models on TensorFlow, and this process runs Keras on "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow before Keras is imported; on JAX use "
            "divulge.dp.jax.private_keras.",
        )
    settings = _settings(clip, noise, records, batch_size, delta, seed, steps, chunk)
    for method in ("train_step", "compute_loss", "compute_metrics"):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            raise InputError("DV503", f"the model has its own {method}, which private training would not call.")
    return _trainer()(model, settings)


def _settings(
    clip: float,
    noise: float,
    records: int,
    batch_size: int,
    delta: float,
    seed: int | None,
    steps: int | None,
    chunk: int | None,
) -> Settings:
    accounting.check_training(clip=clip, noise=noise, records=records, batch_size=batch_size, delta=delta)
    # Six standard deviations above the mean: a larger batch takes a second pass, and is not cut.
    usual = math.ceil(batch_size + 6 * math.sqrt(batch_size * (1 - batch_size / records)))
    return Settings(clip, noise, records, batch_size, delta, seed, steps, min(chunk or usual, records))


def clipped_sum(trainer: Any, x: Any, y: Any, mask: Any, seeds: Any) -> tuple[list[Any], Any]:
    """The sum over records of each record's gradient, clipped as a whole, and the predictions made on the way.

    A record whose gradient is not finite adds nothing: a NaN would tell that it is there.

    Args:
        trainer: what `private` gave, compiled and built.
        x, y: (b, …) tensors, or nests of them.
        mask: (b,) bool; False: not a record, adds nothing.
        seeds: (b, s, 2) integers, a seed for each record and each of the model's generators.

    Returns:
        One tensor a trainable weight; predictions (b, …).
    """
    import keras
    import tensorflow as tf

    weights = trainer.model.trainable_variables
    generators = [state for state in trainer.model.non_trainable_variables if state.name == SEED]

    def gradient(record: Any) -> Any:
        one_x, one_y = keras.tree.map_structure(lambda part: part[None], record[:2])
        with tf.GradientTape() as tape:
            values = [tf.convert_to_tensor(weight.value) for weight in weights]
            tape.watch(values)
            state = [*zip(weights, values, strict=True), *zip(generators, tf.unstack(record[2]), strict=True)]
            # Updates of layers (their generators') stay in the scope; nothing of a record goes around the noise.
            with keras.StatelessScope(state_mapping=state, collect_losses=True):
                prediction = trainer.model(one_x, training=True)
                loss = trainer.compute_loss(x=one_x, y=one_y, y_pred=prediction, training=True)
        gradients = tape.gradient(loss, values, unconnected_gradients="zero")
        return [tf.convert_to_tensor(part) for part in gradients], prediction

    gradients, predictions = tf.vectorized_map(gradient, (x, y, seeds))
    squares = [tf.reduce_sum(tf.square(part), axis=range(1, len(part.shape))) for part in gradients]
    norms = tf.sqrt(tf.add_n(squares))
    factors = tf.minimum(1.0, trainer.settings.clip / tf.maximum(norms, 1e-30))
    factors = tf.where(mask & tf.math.is_finite(norms), factors, tf.zeros_like(factors))

    def scaled(part: Any) -> Any:  # multiply_no_nan: 0 times NaN is 0
        wide = tf.reshape(factors, [-1, *[1] * (len(part.shape) - 1)])
        return tf.reduce_sum(tf.math.multiply_no_nan(part, wide), axis=0)

    return [scaled(part) for part in gradients], keras.tree.map_structure(lambda part: part[:, 0], predictions)


def refuse_statistics(model: Any, x: Any) -> None:
    """Refuses a model with a layer that updates its own weights while it is called in training, on any backend.

    Args:
        model: a keras.Model.
        x: one record, as a batch.

    Raises:
        InputError: DV503.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        _refuse_writes(model, x)  # first: it traces only, where a call would write
    with keras.StatelessScope() as scope:
        model(x, training=True)
    states = [state for state in model.non_trainable_variables if state.name != SEED]
    changed = [state.path for state in states if scope.get_current_value(state) is not None]
    if changed:
        raise InputError(
            "DV503",
            f"training updates {changed[0]} from the records, past clipping and noise, as batch normalization does. "
            "Use GroupNormalization or LayerNormalization, or freeze the layer (trainable = False).",
        )


def _refuse_writes(model: Any, x: Any) -> None:
    """Refuses a model that in training writes to TensorFlow's own variables, which Keras does not know of.

    Keras' own, those of its generators among them, are written to the scope instead, and are not in the graph.
    """
    import keras
    import tensorflow as tf

    def call(x: Any) -> None:
        with keras.StatelessScope():
            model(x, training=True)

    graph = tf.function(call).get_concrete_function(x).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    written = [node for node in nodes if node.op.startswith(WRITES)]
    if written:
        raise InputError(
            "DV503",
            f"expected a model that writes nothing in training, and {written[0].name} ({written[0].op}) writes to a "
            "tf.Variable, past clipping and noise. Leave the layer out, or have it keep nothing.",
        )


@functools.cache
def _trainer() -> Any:
    """The class, made when Keras is there: it cannot be written at the top of a module that must not import Keras."""
    import keras
    import tensorflow as tf

    class DPModel(keras.Model):  # type: ignore[misc]
        """A Keras model whose training is private; made by `private`."""

        def __init__(self, model: Any, settings: Settings) -> None:
            super().__init__(name=f"private_{model.name}")
            self.model, self._settings, self._fitting = model, settings, False
            # The system's randomness unless a test asks otherwise: 128 bits for batches, Philox' own state for noise.
            self.entropy: Any = np.random.SeedSequence(settings.seed).entropy
            if settings.seed is None:
                self.generator = tf.random.Generator.from_non_deterministic_state(alg="philox")
            else:
                self.generator = tf.random.Generator.from_seed(settings.seed, alg="philox")
            # Not a Keras weight: restoring the weights of an earlier epoch must not take steps back, nor noise.
            self.taken = tf.Variable(0, dtype=tf.int64, trainable=False)

        @property
        def settings(self) -> Settings:
            """As given to `private`; read-only, as the statement is of all steps."""
            return self._settings

        @property
        def privacy(self) -> Privacy:
            """(epsilon, delta) of the steps that ran.

            Raises:
                InputError: DV501: there was no noise.
            """
            one = self.settings
            return accounting.statement(
                noise=one.noise,
                rate=one.rate,
                steps=int(self.taken.numpy()),
                delta=one.delta,
                clip=one.clip,
                seeded=one.seed is not None,
            )

        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.model(x, training=training)

        def compile(
            self,
            optimizer: Any = "sgd",
            loss: Any = None,
            *,
            loss_weights: Any = None,
            metrics: Any = None,
            run_eagerly: bool = False,
        ) -> None:
            """As keras.Model.compile, without what the accounting does not cover."""
            for one in keras.tree.flatten(loss):
                if isinstance(one, keras.losses.Loss) and one.reduction not in MEANS:
                    raise InputError(
                        "DV503",
                        f"the loss has reduction={one.reduction!r}; private training averages over the expected batch "
                        "size. Leave the reduction at its default, and scale the learning rate.",
                    )
            optimizer = keras.optimizers.get(optimizer)
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                raise InputError("DV503", "loss scaling does not go with clipped gradients. Train in float32.")
            if (optimizer.gradient_accumulation_steps or 1) > 1:
                raise InputError(
                    "DV503",
                    "gradient accumulation adds up noise. Leave it out: chunk= bounds the memory of a batch.",
                )
            super().compile(
                optimizer,
                loss,
                loss_weights=loss_weights,
                metrics=metrics,
                run_eagerly=run_eagerly,
                jit_compile=False,  # the rows that metrics see are as many as were drawn
                auto_scale_loss=False,
            )

        def fit(
            self,
            x: Any = None,
            y: Any = None,
            *,
            epochs: int = 1,
            steps_per_epoch: int | None = None,
            initial_epoch: int = 0,
            callbacks: Any = None,
            validation_data: Any = None,
            validation_batch_size: int | None = None,
            validation_freq: int = 1,
            verbose: Any = "auto",
            batch_size: int | None = None,
            shuffle: bool | None = None,
            validation_split: float = 0.0,
            class_weight: Any = None,
            sample_weight: Any = None,
        ) -> Any:
            """As keras.Model.fit on arrays; steps_per_epoch None: records / batch_size.

            The last five arguments are there to be refused, with the reason (batch_size may repeat the declared one).
            """
            one = self.settings
            refused = {
                "batch_size": (batch_size not in (None, one.batch_size), "it was declared in private()"),
                "shuffle": (shuffle is not None, "each step draws its records independently"),
                "validation_split": (validation_split != 0, "it changes the number of records; give validation_data"),
                "class_weight": (class_weight is not None, "weights change what clipping was chosen for"),
                "sample_weight": (sample_weight is not None, "weights change what clipping was chosen for"),
            }
            for name, (given, reason) in refused.items():
                if given:
                    raise InputError("DV503", f"private training takes no {name}=: {reason}.")
            if tf.distribute.has_strategy():
                raise InputError("DV503", "private training runs on one device, and a tf.distribute strategy is set.")
            x, y = _arrays(x, one.records), _arrays(y, one.records)
            per_epoch = steps_per_epoch or max(1, round(one.records / one.batch_size))
            start, coming = int(self.taken.numpy()), (epochs - initial_epoch) * per_epoch
            if one.steps is not None and start + coming > one.steps:
                raise InputError(
                    "DV505", f"{start} steps ran and {coming} more are asked for, but {one.steps} were declared."
                )
            self._build_all(x, y)
            self._fitting = True
            try:
                return super().fit(
                    self._batches(x, y, start),
                    epochs=epochs,
                    steps_per_epoch=per_epoch,
                    initial_epoch=initial_epoch,
                    callbacks=callbacks,
                    shuffle=False,  # of the steps, which are random draws as they come
                    validation_data=validation_data,
                    validation_batch_size=validation_batch_size or one.batch_size,
                    validation_freq=validation_freq,
                    verbose=verbose,
                )
            finally:
                self._fitting = False

        def train_on_batch(self, *batch: Any, **options: Any) -> Any:
            """Refused: a batch chosen by the caller is no Poisson sample."""
            raise InputError("DV502", "private training draws its batches itself: use fit.")

        def draw(self, step: int) -> NDArray[np.int64]:
            """The rows of one step: each with probability `rate`, a pure function of the entropy and the step."""
            rng = np.random.default_rng([self.entropy, step])
            return np.flatnonzero(rng.random(self.settings.records) < self.settings.rate)

        def train_step(self, data: Any) -> Any:
            """One step: clipped gradients summed chunk by chunk, noise, the expected batch size, the optimizer.

            Raises:
                InputError: DV502: called by anything but `fit`.
            """
            if not self._fitting:
                raise InputError(
                    "DV502", "expected a step of fit, which draws its batch; got train_step alone. Use fit."
                )
            x, y, mask = keras.utils.unpack_x_y_sample_weight(data)
            one, weights = self.settings, self.model.trainable_variables
            generators = sum(state.name == SEED for state in self.model.non_trainable_variables)

            def add(k: Any, sums: Any) -> Any:
                rows = k * one.chunk + tf.range(one.chunk)
                part_x, part_y, real = keras.tree.map_structure(lambda whole: tf.gather(whole, rows), (x, y, mask))
                seeds = self.generator.uniform([one.chunk, generators, 2], 0, 2**31 - 1, tf.int32)
                gradients, prediction = clipped_sum(self, part_x, part_y, real, seeds)
                self._report(part_x, part_y, real, prediction)
                return k + 1, [total + gradient for total, gradient in zip(sums, gradients, strict=True)]

            chunks = tf.shape(mask)[0] // one.chunk
            zeros = [tf.zeros(weight.shape, weight.dtype) for weight in weights]
            _, sums = tf.while_loop(lambda k, _: k < chunks, add, (tf.constant(0), zeros))
            deviation = one.noise * one.clip
            noised = [total + self.generator.normal(total.shape, 0.0, deviation, total.dtype) for total in sums]
            self.taken.assign_add(1)
            self.optimizer.apply([total / one.batch_size for total in noised], weights)
            return self.get_metrics_result()

        def _report(self, x: Any, y: Any, mask: Any, prediction: Any) -> None:
            """Updates loss and metrics with the rows that are records; not private."""
            count = tf.reduce_sum(tf.cast(mask, tf.int32))

            def update() -> Any:
                parts = keras.tree.map_structure(lambda part: tf.boolean_mask(part, mask), (x, y, prediction))
                loss = self.compute_loss(x=parts[0], y=parts[1], y_pred=parts[2], training=True)
                tracker = next(metric for metric in self.metrics if metric.name == "loss")
                tracker.update_state(loss, sample_weight=count)
                self.compute_metrics(*parts)
                return count

            tf.cond(count > 0, update, lambda: count)

        def _build_all(self, x: Any, y: Any) -> None:
            """Makes every variable before the step is traced, where none may be made."""
            first_x, first_y = keras.tree.map_structure(lambda whole: tf.convert_to_tensor(whole[:1]), (x, y))
            prediction = self(first_x, training=False)
            self.compute_loss(x=first_x, y=first_y, y_pred=prediction, training=False)
            self.compute_metrics(first_x, first_y, prediction)
            self.reset_metrics()
            refuse_statistics(self.model, first_x)
            if len({weight.dtype for weight in self.model.trainable_variables} & {"float32", "float64"}) != 1:
                raise InputError("DV503", "expected trainable weights, all float32 or all float64.")
            self.optimizer.build(self.model.trainable_variables)

        def _batches(self, x: Any, y: Any, start: int) -> Any:
            """An endless tf.data.Dataset of (x, y, mask), padded to a multiple of `chunk` rows, at least one chunk."""
            chunk, numbers = self.settings.chunk, itertools.count(start)

            def batches() -> Iterator[Any]:
                for step in numbers:  # shared: a second iterator goes on where the first stopped, and repeats no draw
                    rows = self.draw(step)
                    padded = np.zeros(chunk * max(1, -(-len(rows) // chunk)), np.int64)
                    padded[: len(rows)] = rows
                    batch = keras.tree.map_structure(lambda whole: whole[padded], (x, y))  # noqa: B023
                    yield *batch, np.arange(len(padded)) < len(rows)

            signature = keras.tree.map_structure(
                lambda whole: tf.TensorSpec((None, *whole.shape[1:]), whole.dtype), (x, y, np.zeros(1, bool))
            )
            return tf.data.Dataset.from_generator(batches, output_signature=signature)

    return DPModel


def _arrays(data: Any, records: int) -> Any:
    """Arrays, or nests of them, floats in Keras' own precision; each with a row a record."""
    import keras

    def array(part: Any) -> Any:
        whole = np.asarray(part)
        if whole.dtype.kind not in "biuf" or not whole.ndim:
            raise InputError(
                "DV504", f"expected arrays with a row a record, got {type(part).__name__}: no step can draw from it."
            )
        if len(whole) != records:
            raise InputError("DV504", f"{records} records were declared, and the data have {len(whole)}.")
        return whole.astype(keras.config.floatx()) if whole.dtype.kind == "f" else whole

    return keras.tree.map_structure(array, data)
