"""Tallies of Parquet files by the workers of a Ray cluster, added up where they are made.

A task counts some parts of one file, or some whole files, and adds them up there: what reaches this process is few
tallies, and each still says of which files it is. A task is a pure function of its parts and is taken once, so that one
that Ray begins again, after a worker or a node was lost, changes nothing.
"""

from __future__ import annotations

import logging
import pickle
import platform
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from divulge.blocks import alone, one_thread_each
from divulge.clusters import RETRIES, TICK, connected
from divulge.doors.names import shown
from divulge.errors import InputError
from divulge.shipping import pickled
from divulge.streams.batches import PART, Part
from divulge.streams.tally import Bounds, Tally, Total
from divulge.version import VERSION

logger = logging.getLogger("divulge")

MOST = 16 * PART
"""Rows of a task at most, but for a part that alone has more."""

EACH = 8
"""Tasks a worker at least, where there are so many parts: none waits long for the last one."""

Parts = tuple[Part, ...]
Work = Callable[..., Tally | InputError]


def tallies(
    work: Work, parts: Sequence[Part], engine: str, workers: int | None, bounds: Callable[[Part], Bounds]
) -> Iterator[tuple[Parts, Tally | InputError]]:
    """Parts of one file, or of several whole ones, and what they add up to; or one, and why it cannot be read.

    After a part that cannot be read no other of its file is begun.

    Args:
        work: called on the workers with a part and its bounds; it is sent there once.
        parts: all of each file, file by file.
        engine: "ray" or "ray://host:port"; see `clusters.connected`.
        workers: tasks at a time, each on one CPU; None: as the cluster has CPUs.
        bounds: what need not be looked at of a part, asked when it is sent.

    Raises:
        InputError: DV030, a worker does not see a file that is here; DV071, Ray is not installed; DV404, the cluster is
            not there, lost a task too often, or has another divulge; DV405, attacks or slices that cannot be sent.
        Exception: what an attack or a slicer raised on a worker.
    """
    if not parts:
        return
    payload = pickled(
        work,
        expected="attacks and slices that can be sent to other processes",
        hint="Open files, connections and locks when they are called, or use engine='threads'.",
    )
    with connected(engine, "engine='ray'") as ray:
        yield from _run(ray, payload, parts, workers, bounds)


def bundled(parts: Sequence[Part], workers: int) -> list[Parts]:
    """What each task counts: parts of one file, or whole files.

    Args:
        parts: all of each file, file by file.
        workers: tasks at a time.

    >>> a, b, c = Path("a"), Path("b"), Path("c")
    >>> parts = [Part(a, (0,), 3), Part(b, (0,), 3), *(Part(c, (at,), 6) for at in range(7))]
    >>> [(len(bundle), sum(part.rows for part in bundle)) for bundle in bundled(parts, 1)]
    [(1, 6), (1, 6), (1, 6), (1, 6), (1, 6), (1, 6), (1, 6), (2, 6)]
    """
    size = min(MOST, -(-sum(part.rows for part in parts) // (EACH * workers)))
    bundles: list[Parts] = []
    small: Parts = ()  # whole files that do not fill a task yet
    for _, of_file in groupby(parts, lambda part: part.file):
        whole = tuple(of_file)
        if _rows(whole) <= size:
            if small and _rows(small) + _rows(whole) > size:
                bundles.append(small)
                small = ()
            small += whole
            continue
        begun: Parts = ()
        for part in whole:
            if begun and _rows(begun) + part.rows > size:
                bundles.append(begun)
                begun = ()
            begun += (part,)
        bundles.append(begun)
    return [*bundles, small] if small else bundles


def _rows(parts: Parts) -> int:
    return sum(part.rows for part in parts)


# ------------------------------------------------------------------------------------------------- in this process


def _run(
    ray: Any, payload: bytes, parts: Sequence[Part], workers: int | None, bounds: Callable[[Part], Bounds]
) -> Iterator[tuple[Parts, Tally | InputError]]:
    def task(version: str, payload: bytes, bundle: bytes) -> Found:
        from divulge.streams.on_ray import on_worker  # sent with its code, and bytes: workers may lack divulge

        return on_worker(version, payload, bundle)

    remote = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(task)
    plan = ray.put(payload)
    if not _cpus(ray):
        logger.warning("The Ray cluster has no CPU yet; waiting for a node that has.")
    bad: set[Path] = set()
    left = (bundle for bundle in bundled(parts, workers or max(1, _cpus(ray))) if bundle[0].file not in bad)
    under_way: dict[Any, Parts] = {}
    try:
        while True:
            free = (workers or max(1, _cpus(ray))) - len(under_way)
            for bundle in islice(left, max(0, free)):
                there = tuple(part._replace(file=part.file.absolute()) for part in bundle)
                sent = pickle.dumps((there, _sizes(there), bounds(bundle[0])))
                under_way[remote.remote(VERSION, plan, sent)] = bundle
            if not under_way:
                return
            finished, _ = ray.wait(list(under_way), num_returns=1, timeout=TICK)
            for reference in finished:
                bundle = under_way.pop(reference)
                tally, faults = _taken(ray, reference, bundle)
                files = dict(zip((part.file.absolute() for part in bundle), bundle, strict=True))
                for file, fault in faults.items():
                    bad.add(files[file].file)
                    message = fault.message.replace(str(file), str(files[file].file))
                    yield (files[file],), InputError(fault.code, message)
                good = tuple(part for part in bundle if part.file not in bad)
                if tally is not None and good:
                    yield good, tally
    finally:
        if ray.is_initialized():  # else Ray would start another cluster for the call
            for reference in under_way:
                ray.cancel(reference, force=True)


def _cpus(ray: Any) -> int:
    return int(ray.cluster_resources().get("CPU", 0))


def _sizes(parts: Parts) -> dict[Path, int | None]:
    """Bytes of each file; None where it is not here either."""
    found: dict[Path, int | None] = {}
    for file in {part.file for part in parts}:
        try:
            found[file] = file.stat().st_size
        except OSError:
            found[file] = None
    return found


def _taken(ray: Any, reference: Any, bundle: Parts) -> Found:
    """What a task gave.

    Raises:
        InputError: DV404, it was lost.
        Exception: what it raised, as it would have here.
    """
    try:
        found: Found = ray.get(reference)
        return found
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ModuleNotFoundError):
            raise InputError(
                "DV404",
                f"expected workers that can import what this process can, got: {shown(str(cause))}. Install it, and "
                f"divulge {VERSION}, on every node of the cluster.",
            ) from error
        if not isinstance(cause, Exception):
            raise
        raise cause from error
    except ray.exceptions.RayError as error:
        raise InputError(
            "DV404",
            f"expected a worker that lives until {bundle[0].file} is counted, got {RETRIES + 1} that were lost "
            f"({type(error).__name__}: {shown(str(error))}). Mostly memory ran out: use fewer workers, or a smaller "
            "block. Files that were counted are in the checkpoint, where there is one.",
        ) from error


# ----------------------------------------------------------------------------------------------------- on a worker


class Found(NamedTuple):
    """What a task came to. tally: of the files that could be read; None of none. faults: by file, why it could not."""

    tally: Tally | None
    faults: dict[Path, InputError]


def on_worker(version: str, payload: bytes, bundle: bytes) -> Found:
    """What some parts add up to; of a file that cannot be read, nothing.

    Args:
        version: the sender's divulge.
        payload: the pickled work, of `tallies`.
        bundle: pickled: parts of one file, or of several whole ones; bytes of each file, None where the sender does not
            see it; what need not be looked at.

    Raises:
        InputError: DV030, a file is not here, or is another one; DV404, this is another divulge.
    """
    if version != VERSION:
        raise InputError(
            "DV404",
            f"expected divulge {version} on every node of the cluster, got {VERSION} on {platform.node()}. Install "
            f"it there: pip install divulge=={version}",
        )
    work = _unpickled(payload)
    parts, sizes, bounds = pickle.loads(bundle)
    total = Total()
    faults: dict[Path, InputError] = {}
    with one_thread_each(), alone():
        for file, of_file in groupby(parts, lambda part: part.file):
            _check_seen(file, sizes[file])
            counted = Total()
            for part in of_file:
                result = work(part, bounds=bounds.lower(total.bounds).lower(counted.bounds))
                if isinstance(result, InputError):
                    faults[file], counted = result, Total()
                    break
                counted.add(result)
            tally = counted.settled()
            if tally is not None:
                total.add(tally)
    return Found(total.settled(), faults)


def _check_seen(file: Path, size: int | None) -> None:
    if size is None:  # it is gone for the sender too: not a matter of the place
        return
    try:
        found = file.stat().st_size
    except OSError as error:
        what = f"{error.strerror or type(error).__name__} on the node {platform.node()}"
    else:
        if found == size:
            return
        what = f"one of {found:,} bytes on the node {platform.node()}"
    raise InputError(
        "DV030",
        f"expected {file}, of {size:,} bytes, got {what}. Files must lie where all nodes of the cluster read them "
        "under the same name: on a shared or mounted disk.",
    )


@lru_cache(1)  # a worker counts many bundles of one run
def _unpickled(payload: bytes) -> Work:
    work: Work = pickle.loads(payload)
    return work
