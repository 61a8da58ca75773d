"""Where jobs run: in a loop, in processes of this machine, on threads, or on any executor with `submit`.

A job is a pure function of its number, its rows and its seed, so where it runs, in what order, and how often, makes no
difference to what comes out. A task is what all jobs share (the fit, the data): it travels once to each worker.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from typing import Any

from divulge.doors.names import shown
from divulge.references.gathering import failed, gather, none_lost
from divulge.references.jobs import Failure, Job, Take, Task
from divulge.references.workers import ABSENT, attempt, begin_worker, in_worker, on_disk, packed

logger = logging.getLogger("divulge")


LOSSES = 3
"""How often workers may be lost in a row, without a model finished in between, before it is given up."""

_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB")}


# ------------------------------------------------------------------------------------------------ where jobs run


def in_loop(task: Task, jobs: Sequence[Job], take: Take) -> None:
    """One after another, here.

    Raises:
        DivulgeError: DV402, a job raised.
    """
    for job in jobs:
        result = attempt(task, job)
        if isinstance(result, Failure):
            raise failed(job, result)
        take(job, result)


def on_threads_or_workers(task: Task, jobs: Sequence[Job], executor: Any, take: Take) -> None:
    """On an executor of the caller's, which is left running: threads, processes, joblib's, Dask's, and others.

    Args:
        task: goes to threads as it is, to Dask's workers by its scatter, to others by a file of this machine, or with
            each job where that file is not found.
        jobs: all are submitted at once; a few bytes each.
        executor: has submit(function, *arguments), which gives a future with result().
        take: called here with each job and its result, as they finish.

    Raises:
        DivulgeError: DV402, a job raised. InputError: DV404, the executor lost jobs; DV405, nothing to send.
    """
    if isinstance(executor, ThreadPoolExecutor):
        lost = gather(lambda job: executor.submit(attempt, task, job), jobs, take)
        none_lost(lost)
        return
    token = secrets.token_hex(8)
    if hasattr(executor, "scatter"):
        payload = executor.scatter(packed(task), broadcast=True)
        none_lost(gather(partial(executor.submit, in_worker, token, payload), jobs, take))
        return
    with on_disk(task) as path:
        elsewhere: list[Job] = []

        def taken(job: Job, result: Any) -> None:
            elsewhere.append(job) if isinstance(result, str) and result == ABSENT else take(job, result)

        none_lost(gather(partial(executor.submit, in_worker, token, str(path)), jobs, taken))
        if elsewhere:
            payload = path.read_bytes()
            none_lost(gather(partial(executor.submit, in_worker, token, payload), elsewhere, take))


def in_processes(task: Task, jobs: Sequence[Job], workers: int, take: Take) -> None:
    """In processes of this machine (joblib's loky), one thread each.

    A process that is killed, for memory mostly, takes the whole pool with it: the jobs that are left go to a fresh
    one, those that may have been at fault last, and with half the workers.

    Raises:
        DivulgeError: DV402, a job raised. InputError: DV404, workers were lost too often; DV405, nothing to send.
    """
    from joblib.externals.loky import ProcessPoolExecutor

    left, losses, token = list(jobs), 0, secrets.token_hex(8)
    with on_disk(task) as path:
        while left:
            workers = min(workers, len(left))
            with _stops_held():
                pool = ProcessPoolExecutor(
                    workers, initializer=begin_worker, initargs=(os.getpid(), str(path.parent)), env=_ONE_THREAD
                )

            def begin(job: Job, pool: Any = pool) -> Any:
                with _stops_held():  # it starts workers: one whose start is interrupted is known to nobody
                    return pool.submit(in_worker, token, str(path), job)

            sound = False
            try:
                lost = gather(begin, left, take, killed=True)
                sound = not lost.jobs
            finally:
                if not sound:
                    _drop_waiting(pool)
                pool.shutdown(wait=True, kill_workers=not sound)
            losses = losses + 1 if len(lost.jobs) == len(left) else min(1, len(lost.jobs))
            if losses > LOSSES:
                none_lost(lost)
            if lost.jobs:
                logger.warning(
                    "A worker was lost (%s); %d models are trained again.", shown(str(lost.error)), len(lost.jobs)
                )
            left = lost.jobs[workers:] + lost.jobs[:workers]
            workers = max(1, workers // 2)


def _drop_waiting(pool: Any) -> None:
    """Empty loky's list of jobs that have not begun: killed with jobs in it, its thread fails over them in public."""
    waiting = getattr(pool, "_work_ids", None)  # no public way is known; without it only the noise is back
    while waiting is not None:
        try:
            waiting.get_nowait()
        except queue.Empty:
            return


@contextmanager
def _stops_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM are acted on after the block; processes that it starts never hear a Ctrl-C."""
    held: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other is interrupted, or may set these
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (None, signal.SIG_IGN, signal.SIG_DFL):
                before[number] = signal.signal(number, lambda number, frame: held.append(number))
    masked = None
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # begun within, it would lift the mask
        # A mask is inherited, a handler is not: without it a worker that still imports says KeyboardInterrupt.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if masked is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])
