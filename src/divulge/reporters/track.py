"""Figures of a training to where people watch them: TensorBoard, MLflow, and whatever has log(dict).

A log is a function of (figures, step), or an object with a method `log` that takes a dict of figures, as a run of
Weights & Biases does; `writer` is the one door for both.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Protocol

from divulge.comparison import best_auc
from divulge.errors import InputError
from divulge.metrics import Estimate
from divulge.report import Report
from divulge.wording import known, worst_slices

Figures = Mapping[str, float]

PREFIX = "privacy/"
TAIL_FPR = 0.01
WORST = 3


class Log(Protocol):
    """A function that takes figures by name, and the step that they are of."""

    def __call__(self, figures: dict[str, float], step: int, /) -> object:
        """Write them."""


class HasLog(Protocol):
    """An object in the shape of a Weights & Biases run; `step` is passed as a keyword where its `log` takes one."""

    def log(self, figures: dict[str, float], /) -> object:
        """Write them."""


def writer(log: Log | HasLog | None) -> Log:
    """One way to write for every kind of log; a method `log` goes before being callable.

    Raises:
        InputError: DV069, it is neither, or its parameters do not fit.

    >>> writer(lambda figures, step: print(step, figures))({"score": 0.14}, 3)
    3 {'score': 0.14}
    """
    if log is None:
        return lambda figures, step: None
    method = getattr(log, "log", None)
    if callable(method):
        if _fits(method, {}, step=0):
            return lambda figures, step: method(figures, step=step)
        if _fits(method, {}):
            return lambda figures, step: method(figures)
    elif callable(log) and _fits(log, {}, 0):
        return log
    raise InputError(
        "DV069",
        f"expected a log that is a function of (figures, step), or has a method log(figures) or log(figures, step=); "
        f"got {type(log).__module__}.{type(log).__qualname__}. Wrap it: log=lambda figures, step: …",
    )


def _fits(function: Any, *given: object, **named: object) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in: it does not say what it takes
        return True
    try:
        signature.bind(*given, **named)
    except TypeError:
        return False
    return True


# -------------------------------------------------------------------------------------------------------- figures


def figures_of(report: Report) -> dict[str, float]:
    """A report's main figures by name; what is not measurable is left out.

    score, auc (of the best attack), tail_lift, tpr@0.01, member_accuracy and nonmember_accuracy, each with _low and
    _high; accuracy_gap; and worst_slice_1 … 3, the scores of the most exposed slices, which may be others each time.

    >>> from divulge.evidence import Evidence
    >>> from divulge.pipeline import audit
    >>> import numpy as np
    >>> n = np.arange(400)
    >>> report = audit(Evidence(n < 200, signals={"loss": np.sin(n * n) + 0.2 * (n < 200)}), controls=())
    >>> round(figures_of(report)["auc"], 3)
    0.59
    """
    found: dict[str, Estimate] = {"score": report.score}
    best = best_auc(report)
    if best is not None:
        found["auc"] = best[1]
    found["tail_lift"] = report.tail.lift
    found |= {f"tpr@{TAIL_FPR:g}": tail.tpr for tail in report.tails if math.isclose(tail.fpr, TAIL_FPR)}
    for row in report.rows("results"):
        if row["metric"] in ("member_accuracy", "nonmember_accuracy"):
            found[row["metric"]] = Estimate(row["value"], row["low"], row["high"])
    for at, row in enumerate(worst_slices(report)[:WORST], 1):
        found[f"worst_slice_{at}"] = Estimate(row["value"], row["low"], row["high"])
    figures = {name: estimate.value for name, estimate in found.items()}
    figures |= {f"{name}_low": estimate.low for name, estimate in found.items()}
    figures |= {f"{name}_high": estimate.high for name, estimate in found.items()}
    if {"member_accuracy", "nonmember_accuracy"} <= set(found):
        figures["accuracy_gap"] = figures["member_accuracy"] - figures["nonmember_accuracy"]
    return {name: float(value) for name, value in figures.items() if known(value)}


def log_report(report: Report, log: Log | HasLog, step: int) -> None:
    """Write a report's `figures_of`, each under "privacy/".

    Args:
        report: of `audit`, or loaded.
        log: see `writer`.
        step: the epoch or step that it is of.
    """
    writer(log)(prefixed(figures_of(report)), step)


def prefixed(figures: Figures) -> dict[str, float]:
    """Names that stand together wherever they are shown.

    >>> prefixed({"score": 0.14})
    {'privacy/score': 0.14}
    """
    return {f"{PREFIX}{name}": value for name, value in figures.items()}


# ------------------------------------------------------------------------------------------------------------ logs


class TensorBoard:
    """Scalars in a folder that TensorBoard reads; close it, or use it in a with block."""

    def __init__(self, folder: str | PathLike[str]) -> None:
        from divulge.adapters.predictor import needed

        self._writer = needed("tensorboardX", "tensorboard").SummaryWriter(fspath(folder))

    def __call__(self, figures: dict[str, float], step: int, /) -> None:
        """Write a scalar a figure, at once: a training that is killed leaves what it saw."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the folder's file."""
        self._writer.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tensorboard(folder: str | PathLike[str]) -> TensorBoard:
    """A log for TensorBoard, by tensorboardX: TensorFlow is not needed.

    Raises:
        InputError: DV071, tensorboardX is not installed.
    """
    return TensorBoard(folder)


_REFUSED = re.compile(r"[^\w\-. /]")


def mlflow(run: Any = None) -> Log:
    """A log for MLflow, into a run; names lose what MLflow refuses: tpr@0.01 becomes tpr_0.01.

    Args:
        run: of `mlflow.start_run()`, or its id; None: the active run, which is started if there is none.

    Raises:
        InputError: DV071, mlflow is not installed.
    """
    from divulge.adapters.predictor import needed

    package = needed("mlflow", "mlflow")
    if run is None:
        run = package.active_run() or package.start_run()
    run_id = run if isinstance(run, str) else run.info.run_id

    def log(figures: dict[str, float], step: int, /) -> None:
        named = {_REFUSED.sub("_", name): value for name, value in figures.items()}
        package.log_metrics(named, step=step, run_id=run_id)

    return log
