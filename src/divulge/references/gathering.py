"""Jobs submitted to an executor, and their results taken as they come."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any, NamedTuple

from divulge.clusters import TICK
from divulge.doors.names import listed, shown
from divulge.errors import DivulgeError, InputError
from divulge.references.jobs import Failure, Job, Take

logger = logging.getLogger("divulge")


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
            f"expected workers that live until their models are trained, got models {numbers} that never finished "
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
