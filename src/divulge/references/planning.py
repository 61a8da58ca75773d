"""Which way to train reference models is the fastest here: two short trials, and what they come to for all models."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import cores
from divulge.errors import DivulgeError, InputError
from divulge.references.jobs import AT_ONCE, job_seed
from divulge.references.pinning import pinned

START = 3.0
"""Seconds until a process is up and has imported a framework."""
ENOUGH = 2.0
"""A trial that took this many seconds is not repeated: what the first call compiles matters little then."""
REPEATS = 3
SCORED = 2048
"""Rows that are scored to see how long it takes."""


class Trial(NamedTuple):
    """What was timed.

    Attributes:
        alone: seconds that the training of one model takes on one thread, from a short one.
        scoring: seconds that one model takes to score all rows.
        stacked: seconds a model of training many at once, from a short one; None where it cannot be done.
        at_once: models that were trained at once.
        share: how many times as long a whole training takes as the short one.
        reason: why the models cannot be trained at once, if a trial found out.
        device: whether the models are trained on a device that processes would share.
    """

    alone: float
    scoring: float
    stacked: float | None = None
    at_once: int = AT_ONCE
    share: float = 1.0
    reason: str = ""
    device: bool = False


class Plan(NamedTuple):
    """How to train the reference models, and what each way would take.

    Attributes:
        executor: "loop", "processes" or "vmapped": the one with the fewest seconds.
        seconds: executor -> seconds for all models, scoring included, about.
        models: how many.
        workers: processes, or threads of models that are trained at once.
        text: what was tried and what came out, a sentence.
    """

    executor: str
    seconds: dict[str, float]
    models: int
    workers: int
    text: str


def measure(
    fit: Callable[..., Any], data: Any, trained_on: NDArray[np.bool_], *, seed: int = 0, workers: int | None = None
) -> Plan:
    """The fastest way to train reference models here, from a short training of one, and of many at once.

    A fit's `brief()`, where it has one, gives a shorter fit and how many times as long the whole one takes; else whole
    trainings are timed. Nothing that is trained here is kept.

    Args:
        fit: as of `fit_references`; `fit_many(data, rows, seeds)` makes "vmapped" possible.
        data: (x, y).
        trained_on: (r, n) bool, of the models to train.
        seed: of the trial.
        workers: processes or threads; default: the cores.

    Raises:
        DivulgeError: DV401, no models; DV402, the fit raised; or what it raised, where that is one of divulge.

    >>> fit = lambda data, rows, seed: lambda data, rows, query: data[0][rows]
    >>> measure(fit, (np.zeros(4), np.zeros(4)), np.eye(4, dtype=bool)).executor
    'loop'
    """
    trained_on = np.asarray(trained_on, bool)
    if trained_on.ndim != 2 or not len(trained_on):
        raise InputError("DV401", f"expected (r, n) bool of at least one model, got shape {trained_on.shape}")
    workers = cores() if workers is None else workers
    return choose(timed(fit, data, trained_on, seed, workers), len(trained_on), workers)


def timed(fit: Callable[..., Any], data: Any, trained_on: NDArray[np.bool_], seed: int, workers: int) -> Trial:
    """The trials; arguments as of `measure`.

    >>> fit = lambda data, rows, seed: lambda data, rows, query: data[0][rows]
    >>> timed(fit, (np.zeros(4), np.zeros(4)), np.eye(4, dtype=bool), 0, 1).stacked is None
    True
    """
    given: Any = fit
    short, share = given.brief() if hasattr(given, "brief") else (given, 1.0)
    rows = [np.flatnonzero(row) for row in trained_on]
    seeds = [job_seed(seed, i) for i in range(len(rows))]
    predict, alone = _fastest(lambda: short(data, rows[0], seeds[0]), seeds[0], 1)
    asked = np.arange(min(SCORED, trained_on.shape[1]))
    _, scoring = _fastest(lambda: predict(data, asked, 0), seeds[0], 1)
    trial = Trial(
        alone * share,
        scoring * trained_on.shape[1] / len(asked),
        share=share,
        device=str(getattr(given, "device", "")).startswith("cuda"),
    )
    if not callable(getattr(short, "fit_many", None)) or len(rows) < 2:
        return trial
    at_once = min(int(getattr(given, "at_once", AT_ONCE)), len(rows))
    try:
        stacked = _fastest(lambda: short.fit_many(data, rows[:at_once], seeds[:at_once]), seeds[0], workers)[1]
    except InputError as error:
        if error.code != "DV405":
            raise
        return trial._replace(reason=error.message)
    return trial._replace(stacked=stacked * share / at_once, at_once=at_once)


def choose(trial: Trial, models: int, workers: int) -> Plan:
    """The fastest way by what was timed.

    Args:
        trial: see above.
        models: to be trained.
        workers: processes, or threads.

    >>> plan = choose(Trial(alone=2.0, scoring=0.0, stacked=0.2, share=10), models=64, workers=2)
    >>> plan.executor, plan.seconds
    ('vmapped', {'loop': 128.0, 'processes': 67.0, 'vmapped': 12.8})
    >>> plan.text
    'vmapped: 5.2 times as fast as 2 processes in a trial of 1/10 of a training of 16 models; about 13 s for 64 models'
    """
    whole = trial.alone + trial.scoring
    seconds = {"loop": whole * models}
    if workers > 1 and models > 1 and not trial.device:
        seconds["processes"] = whole * -(-models // workers) + START
    if trial.stacked is not None:
        seconds["vmapped"] = (trial.stacked + trial.scoring) * models
    order = sorted(seconds, key=lambda name: seconds[name])  # of equal ones the plainest
    best = order[0]
    tried = "a whole training" if trial.share == 1 else f"1/{trial.share:.3g} of a training"
    many = f" of {trial.at_once} models" if trial.stacked is not None else ""
    text = f"about {lasting(seconds[best])} for {models} models"
    names = {"loop": "one by one", "processes": f"{workers} processes", "vmapped": "training at once"}
    if len(order) > 1:
        ratio = seconds[order[1]] / max(seconds[best], 1e-9)
        times = f"{ratio:.1f}" if ratio < 100 else "over 100"
        text = f"{times} times as fast as {names[order[1]]} in a trial of {tried}{many}; {text}"
    reason = f". Not at once: {trial.reason}" if trial.reason else ""
    return Plan(best, seconds, models, workers, f"{best}: {text}{reason}")


def lasting(seconds: float) -> str:
    """A time as people say it.

    >>> lasting(0.001), lasting(0.25), lasting(75), lasting(9000)
    ('0.1 s or less', '0.2 s', '75 s', '2.5 h')
    """
    if seconds < 0.1:
        return "0.1 s or less"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _fastest(work: Callable[[], Any], seed: int, threads: int) -> tuple[Any, float]:
    """What work gives, and the seconds of its fastest run: the first one loads and compiles."""
    runs: list[float] = []
    while len(runs) < REPEATS and sum(runs) < ENOUGH:
        with pinned(seed, threads):
            start = time.perf_counter()
            try:
                result = work()
            except DivulgeError:
                raise
            except (Exception, SystemExit) as error:  # the user's code, as in a run
                text = f"{type(error).__name__}: {error}"
                raise DivulgeError("DV402", f"a trial of the training failed: {text[:2000]}") from error
            runs.append(time.perf_counter() - start)
    return result, min(runs)
