"""Keras 3 models, on whichever backend Keras runs."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters import keras as adapter
from divulge.adapters.predictor import needed
from divulge.adapters.records import take
from divulge.doors.arrays import to_array
from divulge.errors import InputError
from divulge.fits.naming import shown
from divulge.fits.outputs import Predict, codes_of, normalised, one_query
from divulge.fits.seeding import seeded

BLOCK = 256
"""Records scored in one go; the rest of the last block is filled up, since every new shape is compiled anew."""
SAMPLE = 8
"""Records on which is tried whether taking away the last softmax gives logits."""


@dataclass(frozen=True, repr=False)
class Keras:
    """Trains a compiled Keras model on some rows by its own fit.

    Attributes:
        build: gives a new compiled keras.Model, initialised from Keras' global seed, which is the seed's.
        epochs: passes over the model's rows.
        batch_size: rows a batch; the last one may be shorter.

    The rows are shuffled anew in each epoch. Texts among labels become the numbers of their sorted values; one-hot
    labels, and what the loss takes else, go to the model as they are. Keras' own global seed stays set afterwards.

    Raises:
        InputError: DV003, a value that cannot be; DV071, Keras is not installed.

    >>> def build():
    ...     import keras
    ...     model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)])
    ...     loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ...     model.compile(keras.optimizers.SGD(1.0), loss)
    ...     return model
    >>> Keras(build, epochs=20)
    Keras(build, epochs=20, batch_size=32)
    """

    build: Callable[[], Any]
    _: KW_ONLY
    epochs: int
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError("DV003", f"expected {name} of at least 1, got {getattr(self, name)!r}")

    def __repr__(self) -> str:
        return shown(self)

    def __call__(self, data: Any, rows: NDArray[np.int64], seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        keras = needed("keras", "keras")
        with seeded(seed):
            keras.utils.set_random_seed(seed)
            model = self.build()
            if getattr(model, "optimizer", None) is None:
                raise InputError(
                    "DV003", f"expected build() to give a compiled model, got a {type(model).__name__} that is not"
                )
            if int(model.optimizer.iterations) > 0:  # what it learned of other rows would stay in it
                raise InputError(
                    "DV003",
                    "expected build() to give a new model every time, got one that was trained before. Make the model "
                    "inside build()",
                )
            inputs = _arrays(take(data[0], rows))
            labels = to_array(data[1], "labels", set())
            labels = codes_of(labels) if labels.dtype.kind not in "biuf" else labels
            model.fit(inputs, labels[rows], batch_size=self.batch_size, epochs=self.epochs, verbose=0)
        # What compiled training keeps goes with the models, in cycles. Not clear_session: it would also forget the
        # precision and other settings of the user's, and the next model would be another.
        gc.collect()
        sample = take(inputs, np.arange(min(SAMPLE, len(rows))))

        def predict(data: Any, rows: NDArray[np.int64], query: int) -> NDArray[Any]:
            one_query(query)
            parts = []
            with adapter.predictor(model, sample) as ready:
                for start in range(0, len(rows), BLOCK):
                    part = rows[start : start + BLOCK]
                    filled = part if start == 0 else np.concatenate([part, np.full(BLOCK - len(part), part[0])])
                    outputs = ready.predict(_arrays(take(data[0], filled)))
                    parts.append(np.asarray(keras.ops.convert_to_numpy(outputs))[: len(part)])
                logits = bool(getattr(model.loss, "from_logits", False))
                return normalised(np.concatenate(parts), ready.apart(), data[1], logits=logits)

        return predict

    def brief(self) -> tuple[Keras, float]:
        """A training of one epoch, and how many times as long all of them take."""
        return replace(self, epochs=1), float(self.epochs)


def _arrays(inputs: Any) -> Any:
    """A table as an array; all else as it is."""
    return inputs.to_numpy() if hasattr(inputs, "iloc") else inputs
