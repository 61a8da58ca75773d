"""The same network in Keras 3 on TensorFlow, trained plainly or with DP-SGD."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from data import Images
from defences import Defence, Learner

import divulge
from divulge.dp.keras import private

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def learner(defence: Defence, members: Images, seed: int) -> Learner:
    """The network and its optimizer, ready to train."""
    keras.utils.set_random_seed(seed)
    return KerasLearner(defence, members, seed)


class KerasLearner:
    """See `defences.Learner`."""

    def __init__(self, defence: Defence, members: Images, seed: int) -> None:
        self.net = keras.Sequential(
            [
                keras.Input(members.x.shape[1:]),
                keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dropout(defence.dropout),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dropout(defence.dropout),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        self.batch, self.private, self.trained = defence.batch, None, self.net
        if defence.noise is not None:
            # No seed: who has it can draw the noise again and take it off. So these figures vary a little between runs.
            self.private = self.trained = private(
                self.net,
                clip=1.0,
                noise=defence.noise,
                records=len(members.y),
                batch_size=defence.batch,
                delta=defence.delta,
            )
        optimizer = keras.optimizers.AdamW(defence.rate, weight_decay=defence.decay)
        self.trained.compile(optimizer, "sparse_categorical_crossentropy")

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        options = {} if self.private is not None else {"batch_size": self.batch}
        self.trained.fit(x, y, epochs=1, verbose=0, **options)

    def loss(self, images: Images) -> float:
        probs = np.asarray(self.net(images.x, training=False))
        return float(-np.log(np.maximum(probs[np.arange(len(images.y)), images.y], 1e-12)).mean())

    def weights(self) -> object:
        return self.net.get_weights()

    def restore(self, weights: object) -> None:
        self.net.set_weights(weights)

    def epsilon(self) -> float | None:
        return None if self.private is None else self.private.privacy.epsilon

    def evidence(self, members: Images, others: Images) -> divulge.Evidence:
        sides = [(images.x, images.y) for images in (members, others)]
        return divulge.collect(self.net, *sides, batch_size=1000, ids=(members.ids, others.ids))
