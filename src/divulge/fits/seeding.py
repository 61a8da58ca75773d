"""The same seed gives the same model: every global random state is set for a training, and put back after it."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from divulge.adapters.untouched import untouched

_ONE = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, numpy's and, where it is loaded, torch's random numbers start from the seed; afterwards as before.

    A process has one of each of these generators, so threads take turns.

    Args:
        seed: from 0 below 2**32.

    >>> with seeded(3):
    ...     first = np.random.random()
    >>> with seeded(3):
    ...     print(np.random.random() == first)
    True
    """
    with _ONE, untouched():
        random.seed(seed)
        np.random.seed(seed)
        torch = sys.modules.get("torch")
        if torch is not None:
            torch.manual_seed(seed)
        yield
