"""Work over many rows, a block at a time, on all cores: numpy releases the interpreter's lock inside each block."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any, TypeVar

_ONE_AT_A_TIME = threading.RLock()  # BLAS has one limit a process: two that set and restore it would leave it set

_INSIDE = threading.local()  # whether this thread is one of several that each do a block: then it starts no others

T = TypeVar("T")
R = TypeVar("R")

BLOCK_BYTES = 1 << 20  # a block and its few temporaries stay in a core's cache


def cores() -> int:
    """Cores that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(work: Callable[[T], R], items: Iterable[T], done: Callable[[], None] | None = None) -> list[R]:
    """`work` of each item, on threads, results in the items' order; the first error is raised and ends the rest.

    Args:
        work: called on any thread.
        items: what it is called with.
        done: called on this thread after each item, in order.

    >>> in_parallel(abs, [-1, 2])
    [1, 2]
    """
    items = list(items)
    results = []
    workers = 1 if getattr(_INSIDE, "alone", False) else min(cores(), len(items))
    with ThreadPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        try:
            for result in map(work, items) if pool is None else pool.map(work, items):
                results.append(result)
                if done is not None:
                    done()
        except BaseException:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            raise
    return results


@contextmanager
def alone() -> Iterator[None]:
    """What this thread does within, it and the libraries that it calls do on this thread: others do the like beside it.

    BLAS has one limit a process: who starts the threads sets it, by `one_thread_each`.

    >>> with alone():
    ...     in_parallel(lambda _: threading.current_thread() is threading.main_thread(), range(2))
    [True, True]
    """
    before, _INSIDE.alone = getattr(_INSIDE, "alone", False), True
    try:
        with _libraries(len(sys.modules)).limit(limits=1, user_api="openmp"):  # a thread's own
            yield
    finally:
        _INSIDE.alone = before


@contextmanager
def one_thread_each() -> Iterator[None]:
    """BLAS on one thread for every thread of the process, for those that are then `alone`.

    >>> with one_thread_each(), alone():
    ...     in_parallel_alone(abs, [-1])
    [1]
    """
    with _ONE_AT_A_TIME, _libraries(len(sys.modules)).limit(limits=1, user_api="blas"):
        yield


def over_rows(work: Callable[[slice], None], rows: int, row_bytes: int) -> None:
    """Call `work` on consecutive slices that cover `rows` rows of about `row_bytes` bytes.

    >>> seen = []
    >>> over_rows(seen.append, 3, 8)
    >>> seen
    [slice(0, 3, None)]
    """
    step = max(256, BLOCK_BYTES // max(row_bytes, 1))
    in_parallel(work, [slice(start, min(start + step, rows)) for start in range(0, rows, step)])


def in_parallel_alone(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`in_parallel`, each item on one thread: a library's own threads would spin against each other's.

    The limit of OpenMP is a thread's own, that of BLAS the process's.

    >>> in_parallel_alone(abs, [-1, 2])
    [1, 2]
    """
    if getattr(_INSIDE, "alone", False):
        return in_parallel(work, items)
    loaded = _libraries(len(sys.modules))

    def alone(item: T) -> R:
        with loaded.limit(limits=1, user_api="openmp"):
            return work(item)

    with _ONE_AT_A_TIME, loaded.limit(limits=1, user_api="blas"):
        return in_parallel(alone, items)


@lru_cache(1)
def _libraries(modules: int) -> Any:
    """What runs threads of its own; looked for anew once more modules are loaded, since that takes milliseconds."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
