"""What runs in a worker's process, and how its task comes there."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from divulge.clusters import TICK
from divulge.errors import InputError
from divulge.interrupts import heard
from divulge.references.jobs import Failure, Job, Task
from divulge.references.pinning import pinned
from divulge.shipping import pickled

ABSENT = "the task's file is not on this worker's machine"


def in_worker(token: str, source: Any, job: Job) -> Any:
    """A job's result or `Failure` in a process that gets its task by a file or as bytes, and keeps it.

    Args:
        token: of the run; another means another task.
        source: the file's path, or the task's bytes.
        job: the job.
    """
    with _TURN:
        if token not in _TASKS:
            try:
                payload = Path(source).read_bytes() if isinstance(source, str) else source
            except FileNotFoundError:
                return ABSENT
            _TASKS.clear()  # one at a time: a task may hold gigabytes
            try:
                _TASKS[token] = pickle.loads(payload)
            except Exception as error:
                return _portable(Failure(error, traceback.format_exc()))
        result = attempt(_TASKS[token], job)
    return _portable(result) if isinstance(result, Failure) else result


_TASKS: dict[str, Task] = {}  # a worker's own memory of what was sent to it
_TURN = threading.RLock()
"""A worker's threads, as Dask has them, take turns: a process has one of each generator that is seeded. A job may call
`fit_references` itself, which this thread then goes on with."""


def attempt(task: Task, job: Job) -> Any:
    """A job's result, or the `Failure` it came to; one thread, and the global generators seeded by the job.

    A fit that is the first to import torch, in its own body, is called twice: torch was neither seeded nor held to one
    thread the first time.
    """
    try:
        late = "torch" not in sys.modules
        with heard(), pinned(job.seed):
            result = task(job)
        if late and "torch" in sys.modules:
            with heard(), pinned(job.seed):
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


def begin_worker(parent: int, folder: str) -> None:
    """Ctrl-C, which reaches every process of a terminal, is the parent's to act on; and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "win32":  # it tells the number of a parent that is gone as if it were there: nothing to wait for
        return
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()


def _end_with(parent: int, folder: str) -> None:
    """End this process once its parent was killed, in the middle of a training too; the data are not left lying."""
    while os.getppid() == parent:
        time.sleep(TICK)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def packed(task: Task) -> bytes:
    """The task's bytes.

    Raises:
        InputError: DV405, what cannot be sent.
    """
    return pickled(
        task,
        expected="a fit and data that can be sent to other processes",
        hint="Open files, connections and locks inside fit; or use executor=None, a loop.",
    )


@contextmanager
def on_disk(task: Task) -> Iterator[Path]:
    """A file with the task, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="divulge-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "task"
        try:
            path.write_bytes(packed(task))
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError("DV035", f"cannot write {folder}: {reason}. Set TMPDIR to a larger place.") from error
        yield path
