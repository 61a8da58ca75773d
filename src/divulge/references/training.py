"""Train reference models and keep what they say of each record; which model sees what is fixed before the first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.blocks import cores
from divulge.doors.arrays import to_array
from divulge.doors.names import shown
from divulge.errors import DivulgeError, InputError
from divulge.evidence import References
from divulge.model_outputs import KINDS, SIGNALS, coded, kind_of, signals_of
from divulge.references import executors
from divulge.references.digests import code_digest, data_digest
from divulge.references.files import Rows
from divulge.references.jobs import AT_ONCE, Job, Take, job_seed
from divulge.references.pinning import pinned
from divulge.references.store import Recipe, Store

logger = logging.getLogger("divulge")

Predict = Callable[[Any, NDArray[np.int64], int], Any]
Fit = Callable[[Any, NDArray[np.int64], int], Predict]
Progress = Callable[[int, int, str], None]

ASKED = 1 << 14
"""Rows that a model is asked for at once."""


def fit_references(
    fit: Any,
    data: Any,
    trained_on: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    signal: str | Sequence[str] | None = None,
    queries: int = 1,
    kind: str | None = None,
    seed: int = 0,
    tag: str = "",
    target: Predict | None = None,
    executor: Any = None,
    workers: int | None = None,
    store: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    ids: ArrayLike | None = None,
    member: ArrayLike | None = None,
) -> References:
    """Reference models, trained as the target was, each on its part of the rows; what they say of every row.

    Model i is a pure function of i, its rows and the seed: it comes out the same in a loop, in processes, on a cluster,
    alone or after a crash. While a model is trained, numerical libraries are held to one thread and the generators of
    random, numpy and torch are seeded from its seed, then put back, so that a fit that forgets its seed gives the same
    bits too. Threads share those generators: on a ThreadPoolExecutor a fit must draw from generators of its own, made
    of its seed. A fit that imports torch in its own body is called twice the first time, since torch was not seeded
    before.

    Args:
        fit: fit(data, rows, seed) -> predict. rows: (m,) int64, sorted; seed: an int below 2**31. predict(data, rows,
            query) -> (k, c) or (k,) logits, probabilities or predictions of k rows, at most 16,384; query 0..q-1 is for
            augmentations. Train as the target was trained: `divulge.fits` has fits for the usual libraries, and an
            estimator with fit and get_params becomes one. A fit with gpus (a float) asks Ray for as many a model.
        data: passed on as it is; (x, y) mostly. It must be readable by its content for a store (arrays, tables, lists).
        trained_on: (r, n) bool, of `design`.
        labels: (n,) or (n, c), as of `divulge.model_outputs.signals_of`; default: data[1] of (x, y).
        signal: a name or several, as of `divulge.signals.signal`; default: log_odds and log_prob@T=2, of a regression
            (float labels other than 0 and 1) loss.
        queries: q, how often each record is asked for.
        kind: "logits", "probs" or "predictions"; None: found out, and the same for all models or refused.
        seed: another seed, other models.
        tag: a name for what is not in data or fit, such as a file that fit opens: another tag, other models. One that
            begins with "data=" also stands for what of data or fit cannot be read.
        target: the target model's predict. Its signals are kept beside the references', for several queries.
        executor: where models are trained.
            None or "loop": here, one by one.
            "processes": in processes of this machine, which may be killed and are replaced.
            "vmapped": many at once, by fit.fit_many(data, rows, seeds), a list of predict; fit.at_once of them, or 16.
            "auto": what a short trial finds fastest of these.
            "ray": a Ray cluster that is running, or else one of this machine; "ray://host:port": that one.
            Else an object with submit(function, *arguments) that gives futures with result(): an Executor of
            concurrent.futures or joblib's loky, a Dask Client. Workers need divulge installed.
        workers: processes, or, for "vmapped", threads; default: the cores.
        store: a folder. Finished models are kept in it, and found again where nothing has changed: data, code, tag,
            target, seed, signal. Whoever calls again after a stop goes on.
        progress: called with (models finished, r, what was finished).
        ids: (n,) int or text, kept in the store for `load_references`.
        member: (n,) bool, whether the target was trained on it; kept in the store.

    Returns:
        signals name -> (r, n, q) float32, higher = more member-like; target name -> (n, q), where it was given.

    Raises:
        DivulgeError: DV402, a fit or its predict raised or gave what cannot be used.
        InputError: DV003, DV004, DV056, DV072, an argument that cannot be used; DV056, models whose outputs look like
            logits and others like probabilities; DV401, a design that cannot; DV403,
            data or code that a store cannot know by content; DV404, workers lost; DV405, a fit that cannot be run that
            way; DV406, DV407, DV035, a store that cannot be used.

    Source: Carlini et al. 2022, Membership inference attacks from first principles, section IV.

    >>> from divulge.references import design
    >>> def fit(data, rows, seed):
    ...     center = data[0][rows].mean()
    ...     return lambda data, rows, query: data[0][rows] - center
    >>> x, y = np.linspace(-2, 2, 8), np.arange(8) >= 4
    >>> references = fit_references(fit, (x, y), design(8, 4))
    >>> references.signals["log_odds"].shape
    (4, 8, 1)
    """
    from divulge.fits import as_fit  # late: fits are written in terms of this package

    fit = as_fit(fit)  # a class and a module of torch are callable, too, and no fits
    design = _design(trained_on)
    truth = _labels(data, labels, design.shape[1])
    names = _names(signal, truth, kind)
    _check(queries, kind, workers, seed, tag)
    task = Training(fit, data, truth, names, int(queries), kind)
    jobs = [Job(i, job_seed(seed, i), np.packbits(row).tobytes()) for i, row in enumerate(design)]
    kinds: dict[str, str] = {}  # of outputs, and whose they were first
    asked = None
    if target is not None:
        with pinned(job_seed(seed, 0)):
            told, found_kind = task.signals(target)
        asked, kinds[found_kind] = dict(zip(names, told, strict=True)), "the target"
    kept = None
    if store is not None:
        recipe = Recipe(
            data=data_digest(data, truth, tag=tag),
            code=code_digest(fit, tag=tag),
            target="" if asked is None else data_digest(asked),
            signals=names,
            queries=int(queries),
            kind=kind or "",
            tag=tag,
            seed=int(seed),
        )
        about = Rows(design, truth, _given("ids", ids, design), _members(member, design), asked)
        kept = Store(store, recipe, about)

    signals = np.empty((len(names), *design.shape, int(queries)), np.float32)
    left = []
    for job in jobs:
        found = None if kept is None else kept.get(job.number)
        if found is None:
            left.append(job)
        else:
            signals[:, job.number] = found.signals
            _one_kind(kinds, found.kind, job.number)
    done = len(jobs) - len(left)

    def take(job: Job, outcome: Outcome) -> None:
        nonlocal done
        _one_kind(kinds, outcome.kind, job.number)
        signals[:, job.number] = outcome.signals
        if kept is not None:
            kept.put(job.number, outcome.signals, seconds=outcome.seconds, kind=outcome.kind)
        done += 1
        if progress is not None:
            progress(done, len(jobs), f"model {job.number}")

    if progress is not None:
        progress(done, len(jobs), "found in the store" if done else "training")
    where = _where(executor, task, design, left, seed, workers) if left else "nothing"
    logger.info("Reference models: %d found in the store, %d to train (%s).", done, len(left), _told(where))
    if left:
        _run(where, task, left, workers or cores(), take)
        if kept is not None:
            kept.note()
    return References(signals=dict(zip(names, signals, strict=True)), target=asked, trained_on=design, source="trained")


class Outcome(NamedTuple):
    """What a trained model comes to.

    Attributes:
        signals: (s, n, q) float32.
        seconds: it took.
        kind: of the outputs that they were read from.
    """

    signals: NDArray[np.float32]
    seconds: float
    kind: str


@dataclass(frozen=True, eq=False)
class Training:
    """What all models of a run share; called with a job, it trains one.

    >>> fit = lambda data, rows, seed: lambda data, rows, query: data[rows]
    >>> task = Training(fit, np.array([-1.0, 2.0]), np.array([0, 1]), ("log_odds",), 1, "logits")
    >>> task(Job(0, 7, np.packbits([True, False]).tobytes())).signals.tolist()
    [[[1.0], [2.0]]]
    """

    fit: Fit
    data: Any
    labels: NDArray[Any]
    names: tuple[str, ...]
    queries: int
    kind: str | None

    def __call__(self, job: Job) -> Outcome:
        """Train one model."""
        start = time.perf_counter()
        predict = self.fit(self.data, job.rows(len(self.labels)), job.seed)
        signals, kind = self.signals(predict)
        return Outcome(signals, time.perf_counter() - start, kind)

    def many(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Train several models at once, by the fit's own means."""
        start = time.perf_counter()
        rows = [job.rows(len(self.labels)) for job in jobs]
        predicts = list(self.fit.fit_many(self.data, rows, [job.seed for job in jobs]))  # type: ignore[attr-defined]
        if len(predicts) != len(jobs):
            raise InputError("DV405", f"fit.fit_many gave {len(predicts)} models for {len(jobs)} that were asked for.")
        trained = (time.perf_counter() - start) / len(jobs)
        for job, predict in zip(jobs, predicts, strict=True):
            start = time.perf_counter()
            signals, kind = self.signals(predict)
            yield job, Outcome(signals, trained + time.perf_counter() - start, kind)

    def signals(self, predict: Predict) -> tuple[NDArray[np.float32], str]:
        """(s, n, q) float32 of one model, and the kind of its outputs."""
        if not callable(predict):
            raise InputError(
                "DV003",
                f"expected fit to return predict(data, rows, query), got a {type(predict).__name__}.",
            )
        kind, truth = self.kind, None
        signals = np.empty((len(self.names), len(self.labels), self.queries), np.float32)
        for query in range(self.queries):
            blocks = self._asked(predict, query)
            if kind is None:  # a few rows do not show it: all of them are held, once
                blocks = iter(held := list(blocks))
                kind = _kind(held, self.labels)
            for rows, outputs in blocks:
                if truth is None:  # coded once, over all rows: a block may lack a class
                    shape = (len(self.labels), *outputs.shape[1:])
                    whole = np.broadcast_to(outputs.dtype.type(0), shape)
                    truth = self.labels if kind == "predictions" else coded(self.labels, whole)
                signals[:, rows, query] = signals_of(outputs, truth[rows], self.names, kind)
        return signals, kind or ""

    def _asked(self, predict: Predict, query: int) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The outputs of all rows, a block at a time."""
        shape: tuple[int, ...] | None = None
        for start in range(0, len(self.labels), ASKED):
            rows = np.arange(start, min(start + ASKED, len(self.labels)))
            outputs = to_array(predict(self.data, rows, query), "outputs", set())
            if outputs.ndim == 2 and outputs.shape[1] == 1:
                outputs = outputs[:, 0]
            if not outputs.ndim or len(outputs) != len(rows):
                raise InputError(
                    "DV004",
                    f"expected predict(data, rows, query) to give a row of numbers for each of its {len(rows):,} rows, "
                    f"got shape {outputs.shape}. Index the data with rows.",
                )
            if shape is not None and outputs.shape[1:] != shape:
                raise InputError("DV003", f"predict gave rows of shape {shape}, then of {outputs.shape[1:]}.")
            shape = outputs.shape[1:]
            yield slice(start, start + len(rows)), outputs


# --------------------------------------------------------------------------------------------- where it is done


def _where(
    executor: Any, task: Training, design: NDArray[np.bool_], left: Sequence[Job], seed: int, workers: int | None
) -> Any:
    """The executor asked for, or of those that fit the fit the fastest; checked before anything is trained."""
    if executor is None:
        return "loop"
    if executor == "auto":
        from divulge.references.planning import measure

        plan = measure(task.fit, task.data, design[[job.number for job in left]], seed=seed, workers=workers)
        logger.info("%s", plan.text)
        executor = plan.executor
    if executor == "vmapped" and not callable(getattr(task.fit, "fit_many", None)):
        raise InputError(
            "DV405",
            f"expected a fit with fit_many(data, rows, seeds) for executor='vmapped', got a {type(task.fit).__name__}. "
            "Use divulge.fits.Torch or Jax, or executor='processes'.",
        )
    named = executor in ("loop", "processes", "vmapped", "ray") or str(executor).startswith("ray://")
    if not (isinstance(executor, str) and named) and not callable(getattr(executor, "submit", None)):
        raise InputError(
            "DV001",
            f"expected an executor of loop, processes, vmapped, auto, ray, ray://host:port, or an object with submit, "
            f"got {shown(executor)}.",
        )
    return executor


def _run(where: Any, task: Training, jobs: Sequence[Job], workers: int, take: Take) -> None:
    if where == "loop":
        executors.in_loop(task, jobs, take)
    elif where == "processes":
        executors.in_processes(task, jobs, workers, take)
    elif where == "vmapped":
        _vmapped(task, jobs, workers, take)
    elif isinstance(where, str):
        from divulge.references.on_ray import on_ray

        on_ray(task, jobs, where, take, gpus=float(getattr(task.fit, "gpus", 0)))
    else:
        executors.on_threads_or_workers(task, jobs, where, take)


def _vmapped(task: Training, jobs: Sequence[Job], workers: int, take: Take) -> None:
    size = int(getattr(task.fit, "at_once", AT_ONCE))
    for start in range(0, len(jobs), size):
        batch = jobs[start : start + size]
        outcomes = task.many(batch)
        while True:
            try:
                with pinned(batch[0].seed, workers):
                    found = next(outcomes, None)
            except Exception as error:
                if isinstance(error, DivulgeError) and error.code == "DV405":  # of the fit as such
                    raise
                raise _batch_failed(batch, error) from error
            if found is None:
                break
            take(*found)


def _batch_failed(batch: Sequence[Job], error: Exception) -> DivulgeError:
    text = str(error) if isinstance(error, DivulgeError) else f"{type(error).__name__}: {error}"
    numbers = f"{batch[0].number} to {batch[-1].number}"
    return DivulgeError(
        "DV402", f"reference models {numbers} (seed {batch[0].seed} is the first's) failed: {text[:2000]}"
    )


def _told(where: Any) -> str:
    return where if isinstance(where, str) else type(where).__name__


# ------------------------------------------------------------------------------------------------ the arguments


def _design(trained_on: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(trained_on)
    if array.ndim != 2 or array.dtype != np.bool_ or not array.size:
        raise InputError(
            "DV401",
            f"expected trained_on of shape (models, rows), bool, got {array.dtype} of shape {array.shape}. "
            "divulge.design(rows, models) makes one.",
        )
    if (empty := np.flatnonzero(~array.any(axis=1))).size:
        raise InputError("DV401", f"expected every model to be trained on some row, got none for model {empty[0]}.")
    return array


def _labels(data: Any, labels: ArrayLike | None, count: int) -> NDArray[Any]:
    if labels is None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise InputError(
                "DV072", f"expected data to be (x, y), or labels=, got a {type(data).__name__} alone. Give labels=y."
            )
        labels = data[1]
    array = to_array(labels, "labels", set())
    if array.ndim not in (1, 2) or len(array) != count:
        raise InputError(
            "DV004", f"expected labels of the design's {count:,} rows, got shape {array.shape}. Give one a row."
        )
    if isinstance(data, tuple | list) and len(data) == 2:
        shape: tuple[int, ...] = tuple(getattr(data[0], "shape", ()))
        if shape and shape[0] != count:
            raise InputError("DV004", f"expected x and y of as many rows, got {shape[0]:,} and {count:,}: one is cut.")
    return array


def _names(signal: str | Sequence[str] | None, labels: NDArray[Any], kind: str | None) -> tuple[str, ...]:
    if signal is None:
        regression = (
            kind is None and labels.ndim == 1 and labels.dtype.kind == "f" and not np.isin(labels, (0, 1)).all()
        )
        return ("loss",) if regression or kind == "predictions" else SIGNALS
    names = (signal,) if isinstance(signal, str) else tuple(signal)
    if not names or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise InputError("DV056", f"expected the name of a signal, or several different ones, got {shown(names)}.")
    return names


def _check(queries: int, kind: str | None, workers: int | None, seed: int, tag: str) -> None:
    for name, value, least in (("queries", queries, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if name == "workers" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError("DV056", f"expected {name} to be a whole number of at least {least}, got {shown(value)}.")
    if kind is not None and kind not in KINDS:
        raise InputError("DV056", f"expected kind to be one of {', '.join(KINDS)}, got {shown(kind)}.")
    if not isinstance(tag, str):
        raise InputError("DV056", f"expected tag to be a text, got a {type(tag).__name__}.")


def _given(name: str, value: ArrayLike | None, design: NDArray[np.bool_]) -> NDArray[Any] | None:
    if value is None:
        return None
    array = to_array(value, name, set())
    if array.shape != design.shape[1:]:
        raise InputError("DV004", f"expected {name} of the design's {design.shape[1]:,} rows, got shape {array.shape}.")
    return array


def _members(member: ArrayLike | None, design: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    array = _given("member", member, design)
    if array is not None and array.dtype != np.bool_:
        raise InputError("DV003", f"expected member to be bool, got {array.dtype}.")
    return array


def _kind(blocks: Sequence[tuple[slice, NDArray[Any]]], labels: NDArray[Any]) -> str:
    kinds = {kind_of(outputs, labels) for _, outputs in blocks}
    return "logits" if "logits" in kinds else kinds.pop()


def _one_kind(kinds: dict[str, str], kind: str, number: int) -> None:
    """Refuses a model whose outputs look like another kind than those of the others: one of the two is misread.

    Raises:
        InputError: DV056.
    """
    if not kind:  # of a store that did not keep it
        return
    kinds.setdefault(kind, f"model {number}")
    if len(kinds) > 1:
        (one, first), (other, second) = kinds.items()
        raise InputError(
            "DV056",
            f"expected outputs of one kind, got some of {second} that look like {other}, where those of {first} look "
            f"like {one}: logits that all lie in 0..1 cannot be told from probabilities. Say which: kind='logits' or "
            "'probs'",
        )
