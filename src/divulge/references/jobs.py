"""One reference model to be trained, and what it may come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 16
"""Models that are trained together where a fit does not say how many it can."""

Task = Callable[["Job"], Any]
Take = Callable[["Job", Any], None]


class Job(NamedTuple):
    """One model to be trained.

    Attributes:
        number: which of the run's models.
        seed: below 2**31.
        bits: its rows of the design, packed, so that a thousand waiting jobs stay small.

    >>> Job(0, 7, np.packbits([False, True, True]).tobytes()).rows(3).tolist()
    [1, 2]
    """

    number: int
    seed: int
    bits: bytes

    def rows(self, count: int) -> NDArray[np.int64]:
        """(m,) int64, sorted: the rows that the model is trained on, of `count`."""
        return np.flatnonzero(np.unpackbits(np.frombuffer(self.bits, np.uint8), count=count))


class Failure(NamedTuple):
    """What a job came to that raised."""

    error: BaseException
    text: str


def job_seed(seed: int, number: int) -> int:
    """The seed of a run's model, below 2**31.

    >>> job_seed(0, 0), job_seed(0, 1)
    (1484405855, 1982462498)
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)
