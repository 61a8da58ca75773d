"""Logs: figures come back as they went in, from TensorBoard's own reader and from MLflow's store."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest

import divulge
from divulge.errors import InputError
from divulge.monitor import Monitor
from divulge.reporters import track


def report(leak: float = 1.0, n: int = 1200) -> divulge.Report:
    rng = np.random.default_rng(0)
    member, labels = np.arange(2 * n) < n, rng.integers(0, 4, 2 * n)
    outputs = rng.normal(size=(2 * n, 4))
    outputs[np.arange(2 * n), labels] += 1 + leak * member
    evidence = divulge.Evidence(member, labels=labels, outputs=outputs, kind="logits")
    return divulge.audit(evidence, slices=["class"], controls=())


@pytest.fixture(scope="module")
def audited() -> divulge.Report:
    return report()


# ----------------------------------------------------------------------------------------------------- figures


def test_figures_are_the_reports_own(audited) -> None:
    figures = track.figures_of(audited)
    assert figures["score"] == audited.score.value and figures["score_high"] == audited.score.high
    assert figures["tpr@0.01"] == next(tail for tail in audited.tails if tail.fpr == 0.01).tpr.value
    assert figures["tail_lift"] == audited.tail.lift.value
    assert figures["nonmember_accuracy"] == audited.estimate("nonmember_accuracy").value
    slices = [row for row in audited.rows("results") if row["metric"] == "score" and row["slice"] != "everyone"]
    assert figures["worst_slice_1_low"] == max(row["low"] for row in slices)
    assert len(slices) == 4 and "worst_slice_4" not in figures
    assert all(type(value) is float and math.isfinite(value) for value in figures.values())


def test_what_is_not_measurable_is_left_out() -> None:
    small = track.figures_of(report(n=100))
    assert "tpr@0.01" not in small and "score" in small


# -------------------------------------------------------------------------------------------------------- doors


class Run:
    """In the shape of a Weights & Biases run."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, float], Any]] = []

    def log(self, data: dict[str, float], step: int | None = None, commit: bool | None = None) -> None:
        self.seen.append((data, step))


class Plain:
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def log(self, data: dict[str, float]) -> None:
        self.seen.append(data)


class Both(Run):
    def __call__(self, figures: dict[str, float], step: int) -> None:
        raise AssertionError("log goes first")


def test_a_run_gets_the_step_and_a_plain_log_the_figures(audited) -> None:
    for run in (Run(), Both()):
        track.log_report(audited, run, 7)
        ((figures, step),) = run.seen
        assert step == 7 and figures["privacy/score"] == audited.score.value
    plain = Plain()
    track.log_report(audited, plain, 7)
    assert plain.seen == [figures]


def test_a_function_and_what_does_not_say_its_parameters() -> None:
    seen: list[Any] = []
    track.writer(lambda figures, step: seen.append((figures, step)))({"a": 1.0}, 2)
    assert seen == [({"a": 1.0}, 2)]
    assert track.writer(None)({"a": 1.0}, 2) is None
    track.writer(dict.fromkeys)({"a": 1.0}, 2)  # built in


@pytest.mark.parametrize(
    "log", [3, "runs/", lambda figures: None, logging.getLogger("x")], ids=lambda log: type(log).__name__
)
def test_what_takes_no_figures_is_refused_before_the_training(log) -> None:
    with pytest.raises(InputError) as caught:
        track.writer(log)
    assert caught.value.code == "DV069"


# ------------------------------------------------------------------------------------------- TensorBoard, MLflow


def watched(log: Any) -> Monitor:
    """Three looks at a model that memorises."""
    x, y = np.sin(np.arange(1800.0) ** 2).reshape(600, 3), np.arange(600) % 3
    learned = np.eye(3)[y] * (np.arange(600) < 300)[:, None]
    monitor = Monitor((np.arange(300), y[:300]), (np.arange(300, 600), y[300:]), log=log)
    for epoch in (1, 2, 3):
        monitor(lambda rows, epoch=epoch: x[rows] + epoch / 4 * learned[rows], epoch)
    monitor.finish()
    return monitor


def test_tensorboards_own_reader_reads_them_back(require, tmp_path) -> None:
    require("tensorboardX")
    events = require("tensorboard.backend.event_processing.event_accumulator")
    with track.tensorboard(tmp_path / "runs") as log:
        monitor = watched(log)
    read = events.EventAccumulator(str(tmp_path / "runs"))
    read.Reload()
    scores = read.Scalars("privacy/score")
    assert [event.step for event in scores] == [1, 2, 3]
    expected = [one.score.value for one in monitor.reports]
    np.testing.assert_allclose([event.value for event in scores], expected, rtol=1e-6)
    tags = read.Tags()["scalars"]
    assert {f"privacy/{name}" for name in monitor.figures} <= set(tags)
    assert len(read.Scalars("privacy/overhead_seconds")) == 1


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_them_back_from_sqlite(require, tmp_path, monkeypatch) -> None:
    mlflow = require("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        experiment = mlflow.create_experiment("watched", artifact_location=str(tmp_path / "artifacts"))
        with mlflow.start_run(experiment_id=experiment) as run:
            monitor = watched(track.mlflow())
        track.log_report(report(), track.mlflow(run.info.run_id), 9)  # after it ended, by its id
        client = mlflow.MlflowClient()
        history = client.get_metric_history(run.info.run_id, "privacy/score")
        assert [one.step for one in history] == [1, 2, 3, 9]
        assert [one.value for one in history[:3]] == [one.score.value for one in monitor.reports]
        (tpr,) = client.get_metric_history(run.info.run_id, "privacy/tpr_0.01")
        assert tpr.value == track.figures_of(report())["tpr@0.01"]
        assert {name.replace("@", "_") for name in track.prefixed(monitor.figures)} <= set(
            client.get_run(run.info.run_id).data.metrics
        )
    finally:
        mlflow.set_tracking_uri(before)
