"""Training goes on after an audit as if there had been none: the random numbers that it would have drawn are kept."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def untouched() -> Iterator[None]:
    """Puts back the global random states of Python, numpy and torch (every device in use) as they were before.

    JAX has none; Keras' live in the model, which `collect` leaves as it was. What is not loaded stays so.

    >>> np.random.seed(0)
    >>> with untouched():
    ...     _ = np.random.random(100)
    >>> round(float(np.random.random()), 4)
    0.5488
    """
    python, legacy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    cpu = devices = None
    if torch is not None:
        cpu = torch.get_rng_state()
        # Asking would start CUDA in a process that has not, and break the ones that it forks later.
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        if torch is not None:
            torch.set_rng_state(cpu)
            if devices is not None:
                torch.cuda.set_rng_state_all(devices)
