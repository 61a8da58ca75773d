"""Where jobs run: in a loop, in processes of this machine, on threads, or on any executor with `submit`.

A job is a pure function of its number, its rows and its seed, so where it runs, in what order, and how often, makes no
difference to what comes out. A task is what all jobs share (the fit, the data): it travels once to each worker.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import random
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.clusters import TICK, shipped
from divulge.doors.names import listed, shown
from divulge.errors import DivulgeError, InputError

logger = logging.getLogger("divulge")

Task = Callable[["Job"], Any]
Take = Callable[["Job", Any], None]

LOSSES = 3
"""How often workers may be lost in a row, without a model finished in between, before it is given up."""

_ABSENT = "the task's file is not on this worker's machine"
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB")}


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
    with _on_disk(task) as path:
        elsewhere: list[Job] = []

        def taken(job: Job, result: Any) -> None:
            elsewhere.append(job) if isinstance(result, str) and result == _ABSENT else take(job, result)

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
    with _on_disk(task) as path:
        while left:
            workers = min(workers, len(left))
            with _stops_held():
                pool = ProcessPoolExecutor(
                    workers, initializer=_begin, initargs=(os.getpid(), str(path.parent)), env=_ONE_THREAD
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


class Lost(NamedTuple):
    """Jobs whose worker went, in the order they were submitted, and the last word of the executor."""

    jobs: list[Job]
    error: BaseException | None


def gather(submit: Callable[[Job], Any], jobs: Sequence[Job], take: Take, *, killed: bool = False) -> Lost:
    """Submit all jobs, and take their results as they come; those of a broken executor come back.

    After a job that raised no other is begun; those under way are waited for and taken. On Ctrl-C those that have
    finished are taken, and no other.

    Args:
        submit: gives a future of a job.
        jobs: all are submitted at once.
        take: called here with each job and its result, as they finish.
        killed: whether the caller kills the pool where this raises. Then futures are not cancelled: loky's thread would
            fail over them, and leave the workers alive.

    Raises:
        DivulgeError: DV402, a job raised.
    """
    done: queue.SimpleQueue[int] = queue.SimpleQueue()
    left: dict[int, tuple[Job, Any]] = {}
    lost: dict[int, Job] = {}
    error: BaseException | None = None
    fault: DivulgeError | None = None
    try:
        for i, job in enumerate(jobs):
            try:
                future = submit(job)
            except Exception as broken:  # a pool that broke in the meantime takes no more
                lost[i], error = job, broken
                continue
            left[i] = job, future
            if hasattr(future, "add_done_callback"):
                future.add_done_callback(lambda _, i=i: done.put(i))
            else:  # no way to be told: they are waited for in turn
                done.put(i)
        while left:
            i = _next(done)
            if i not in left:
                continue
            job, future = left.pop(i)
            try:
                result = future.result()
            except CancelledError as broken:
                lost[i], error = job, broken
            except Exception as broken:  # jobs catch their own: this is the executor's
                lost[i], error = job, broken
            else:
                if not isinstance(result, Failure):
                    take(job, result)
                elif fault is None:
                    fault = failed(job, result)
                    # Futures that say they still run are waited for.
                    left = {i: entry for i, entry in left.items() if _begun(entry[1], killed)}
                    if left:
                        logger.warning("%s; waiting for %d models that are being trained.", fault, len(left))
    except BaseException as stop:
        if not isinstance(stop, Exception):
            _take_finished(left, take)
        for _, future in left.values():
            _begun(future, killed)
        raise
    if fault is not None:
        raise fault
    return Lost([lost[i] for i in sorted(lost)], error)


def _begun(future: Any, killed: bool) -> bool:
    """Whether a job must be waited for; one that has not begun is cancelled, or will be killed."""
    return bool(future.running()) if killed else future.cancel() is False


def _next(done: queue.SimpleQueue[int]) -> int:
    while True:
        try:
            return done.get(timeout=TICK)
        except queue.Empty:
            continue


def _take_finished(left: dict[int, tuple[Job, Any]], take: Take) -> None:
    for job, future in left.values():
        if hasattr(future, "done") and future.done():
            try:
                result = future.result()
            except (Exception, CancelledError):  # lost: not finished, and the run ends anyway
                continue
            if not isinstance(result, Failure):
                take(job, result)


def none_lost(lost: Lost) -> None:
    """Raise DV404 where jobs were lost."""
    if lost.jobs:
        numbers = listed([job.number for job in lost.jobs], limit=8)
        raise InputError(
            "DV404",
            f"expected workers that live until their models are trained, got models {numbers} without an end "
            f"({type(lost.error).__name__}: {shown(str(lost.error))}). Mostly memory ran out: use fewer workers. "
            "Finished models are kept in the store, where there is one.",
        ) from lost.error


def failed(job: Job, failure: Failure) -> DivulgeError:
    """The error for a job that raised, chained to its own.

    >>> str(failed(Job(3, 7, b""), Failure(ValueError("no rows"), "")))
    'DV402 reference model 3 (seed 7) failed: ValueError: no rows'
    """
    error = failure.error
    text = f"{type(error).__name__}: {error}" if not isinstance(error, DivulgeError) else str(error)
    found = DivulgeError("DV402", f"reference model {job.number} (seed {job.seed}) failed: {text[:2000]}")
    found.__cause__ = error
    if failure.text:
        found.add_note(failure.text)
    return found


# -------------------------------------------------------------------------------------------------- on a worker


def in_worker(token: str, source: Any, job: Job) -> Any:
    """A job's result or `Failure` in a process that gets its task by a file or as bytes, and keeps it.

    Args:
        token: of the run; another means another task.
        source: the file's path, or the task's bytes.
        job: the job.
    """
    if token not in _TASKS:
        try:
            payload = Path(source).read_bytes() if isinstance(source, str) else source
        except FileNotFoundError:
            return _ABSENT
        _TASKS.clear()  # one at a time: a task may hold gigabytes
        try:
            _TASKS[token] = pickle.loads(payload)
        except Exception as error:
            return _portable(Failure(error, traceback.format_exc()))
    result = attempt(_TASKS[token], job)
    return _portable(result) if isinstance(result, Failure) else result


_TASKS: dict[str, Task] = {}  # a worker's own memory of what was sent to it


def attempt(task: Task, job: Job) -> Any:
    """A job's result, or the `Failure` it came to; one thread, and the global generators seeded by the job.

    A fit that is the first to import torch, in its own body, is called twice: torch was neither seeded nor held to one
    thread the first time.
    """
    try:
        late = "torch" not in sys.modules
        with pinned(job.seed):
            result = task(job)
        if late and "torch" in sys.modules:
            with pinned(job.seed):
                result = task(job)
        return result
    except (Exception, SystemExit) as error:
        return Failure(error, "")


def _portable(failure: Failure) -> Failure:
    """A failure that reaches the parent: some exceptions cannot be pickled, or not back."""
    text = "".join(traceback.format_exception(failure.error))
    try:
        error = pickle.loads(pickle.dumps(failure.error))
    except Exception:  # whatever their own __reduce__ or __init__ raises
        error = RuntimeError(f"{type(failure.error).__name__}: {failure.error}")
    if type(error).__module__ == "__main__":  # a class that the parent's __main__ need not have
        error = RuntimeError(f"{type(failure.error).__name__}: {failure.error}")
    return Failure(error, text)


def _begin(parent: int, folder: str) -> None:
    """Ctrl-C, which reaches every process of a terminal, is the parent's to act on; and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()


def _end_with(parent: int, folder: str) -> None:
    """End this process once its parent was killed, in the middle of a training too; the data are not left lying."""
    while os.getppid() == parent:
        time.sleep(TICK)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


# ---------------------------------------------------------------------------------------------------- shipping


def packed(task: Task) -> bytes:
    """The task's bytes, functions of the user's own module included, which workers may not find by name.

    Raises:
        InputError: DV405, what cannot be sent.
    """
    import cloudpickle

    try:
        with shipped(_own_module(task)):
            return bytes(cloudpickle.dumps(task, protocol=pickle.HIGHEST_PROTOCOL))
    except Exception as error:  # each type says in its own way that it cannot be pickled
        raise InputError(
            "DV405",
            f"expected a fit and data that can be sent to other processes, got {type(error).__name__}: "
            f"{shown(str(error))}. Open files, connections and locks inside fit; or use executor=None, a loop.",
        ) from error


def _own_module(task: Task) -> list[ModuleType]:
    """The module of a task's fit, where it is a file of the user's own."""
    from divulge.references.digests import _installed

    fit = getattr(task, "fit", None)
    name = getattr(fit, "__module__", None) or type(fit).__module__
    if name in ("__main__", __name__) or name.partition(".")[0] == "divulge" or _installed(name):
        return []
    return [sys.modules[name]] if name in sys.modules else []


@contextmanager
def _on_disk(task: Task) -> Iterator[Path]:
    """A file with the task, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="divulge-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "task"
        try:
            path.write_bytes(packed(task))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError("DV035", f"cannot write {folder}: {reason}. Set TMPDIR to a larger place.") from error
        yield path


# ---------------------------------------------------------------------------------- one thread, one seed, a while


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
