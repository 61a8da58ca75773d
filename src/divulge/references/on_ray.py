"""Jobs on a Ray cluster: the data go out once, and what a lost worker or node was training is trained elsewhere."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from divulge.clusters import RETRIES, TICK, connected
from divulge.errors import DivulgeError
from divulge.references.gathering import Lost, failed, none_lost
from divulge.references.jobs import Failure, Job, Take, Task
from divulge.references.workers import in_worker, packed


def on_ray(task: Task, jobs: Sequence[Job], address: str, take: Take, *, gpus: float = 0) -> None:
    """Run jobs on Ray, each on one CPU.

    Args:
        task: what all jobs share; put into Ray's object store once.
        jobs: all are submitted at once.
        address: "ray" for the cluster that this process is in, or that runs on this machine, else one that is started
            and ended here; "ray://host:port" for that one.
        take: called here with each job and its result, as they finish.
        gpus: that each job asks for; may be a part of one.

    Raises:
        DivulgeError: DV402, a job raised. InputError: DV071, Ray is not installed; DV404, the cluster is not there or
            lost a job too often; DV405, a task that cannot be sent.
    """
    payload = packed(task)
    with connected(address, "executor='ray'") as ray:
        _run(ray, payload, jobs, take, gpus)


def _run(ray: Any, payload: bytes, jobs: Sequence[Job], take: Take, gpus: float) -> None:
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(in_worker)
    token, source = secrets.token_hex(8), ray.put(payload)
    left = {remote.remote(token, source, job): job for job in jobs}
    lost: list[Job] = []
    last: BaseException | None = None
    fault: DivulgeError | None = None
    try:
        while left:
            finished, _ = ray.wait(list(left), num_returns=1, timeout=TICK)
            for reference in finished:
                job = left.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayError as error:  # jobs catch their own: this is the cluster's
                    lost.append(job)
                    last = error
                    continue
                if not isinstance(result, Failure):
                    take(job, result)
                elif fault is None:
                    fault = failed(job, result)
                    # Those not begun are dropped; whether one has begun is not told, so none is waited for long.
                    for other in left:
                        ray.cancel(other, force=False)
    except BaseException as stop:
        if not isinstance(stop, Exception) and left:
            _take_finished(ray, left, take)
        for reference in left:
            ray.cancel(reference, force=True)
        raise
    if fault is not None:
        raise fault
    none_lost(Lost(lost, last))


def _take_finished(ray: Any, left: dict[Any, Job], take: Take) -> None:
    finished, _ = ray.wait(list(left), num_returns=len(left), timeout=0)
    for reference in finished:
        job = left.pop(reference)
        try:
            result = ray.get(reference)
        except ray.exceptions.RayError:  # lost: not finished, and the run ends anyway
            continue
        if not isinstance(result, Failure):
            take(job, result)
