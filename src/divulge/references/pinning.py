"""One thread and one seed, for as long as a job runs."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np


class _Inside:
    """How many jobs run in this process, and how to undo what the first set up."""

    lock = threading.Lock()
    count = 0
    limits: Any = None


@contextmanager
def pinned(seed: int, threads: int = 1) -> Iterator[None]:
    """Numerical libraries held to some threads, and the generators of random, numpy and torch seeded; then as before.

    A process has one of each of these generators. They are seeded where the job is the only one in its process; jobs
    that share one, on threads, must draw from generators of their own.

    >>> with pinned(0):
    ...     first = np.random.random()
    >>> with pinned(0):
    ...     first == np.random.random()
    True
    """
    from threadpoolctl import threadpool_limits

    with _Inside.lock:
        _Inside.count += 1
        alone = _Inside.count == 1
        if alone:
            _Inside.limits = threadpool_limits(threads, user_api="blas")  # one limit a process: the last one lifts it
    try:
        with (
            threadpool_limits(threads, user_api="openmp"),
            _torch_threads(threads),
            _seeded(seed) if alone else nullcontext(),
        ):
            yield
    finally:
        with _Inside.lock:
            _Inside.count -= 1
            if not _Inside.count:
                _Inside.limits.restore_original_limits()


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state()
    torch_state = None if torch is None else torch.get_rng_state()
    # The state of a device is read only where it is in use: reading it would start the device.
    devices = [] if torch is None or not torch.cuda.is_initialized() else torch.cuda.get_rng_state_all()
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch is not None:
            torch.set_rng_state(torch_state)
            if devices:
                torch.cuda.set_rng_state_all(devices)
