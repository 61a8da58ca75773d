"""Monitor: a fixed part of the records audited while a model trains; stopping, keeping, and the final report."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import divulge
from divulge.adapters.parts import in_order, length, part
from divulge.adapters.untouched import untouched
from divulge.errors import InputError
from divulge.monitor import Monitor, chosen
from divulge.series import Series

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
N = 500  # records a side of the toy


class Toy:
    """A training whose leak is a script: at each epoch members' true logits are raised by what the script says."""

    def __init__(self, leaks: list[float], skill: list[float] | None = None, n: int = N, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.y = rng.integers(0, 3, 2 * n)
        self.base = rng.normal(size=(2 * n, 3))
        self.n, self.leaks, self.skill = n, leaks, skill or [1.0] * len(leaks)

    @property
    def sides(self) -> tuple[Any, Any]:
        rows = np.arange(2 * self.n)
        return (rows[: self.n], self.y[: self.n]), (rows[self.n :], self.y[self.n :])

    def model(self, epoch: int) -> Callable[[Any], Any]:
        def predict(rows: np.ndarray) -> np.ndarray:
            z = self.base[rows].copy()
            z[np.arange(len(rows)), self.y[rows]] += self.skill[epoch - 1] + self.leaks[epoch - 1] * (rows < self.n)
            return z

        return predict

    def train(self, monitor: Monitor) -> int:
        """The epoch that training ends with."""
        for epoch in range(1, len(self.leaks) + 1):
            monitor(self.model(epoch), epoch)
            if monitor.should_stop:
                break
        return epoch


RISING = [0.0, 0.0, 0.3, 0.6, 0.9, 1.2, 1.5]


# -------------------------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_an_audit_of_the_same_records() -> None:
    toy = Toy(RISING)
    ids = np.arange(N), np.arange(N, 2 * N)
    monitor = Monitor(*toy.sides, records=200, ids=ids)
    for epoch in (1, 5):
        figures = monitor(toy.model(epoch), epoch)
    rows = [parts.watched for parts in monitor.parts]
    members, others = ((x[own], y[own]) for (x, y), own in zip(toy.sides, rows, strict=True))
    evidence = divulge.collect(
        toy.model(5), members, others, ids=tuple(i[own] for i, own in zip(ids, rows, strict=True))
    )
    report = divulge.audit(evidence, slices=["class"], controls=())
    assert (figures["score"], figures["score_low"], figures["score_high"]) == report.score[:3]
    assert figures["tail_lift"] == report.tail.lift.value
    assert figures["nonmember_accuracy"] == report.estimate("nonmember_accuracy").value
    assert figures["auc"] == max(
        row["value"] for row in report.rows("results") if row["metric"] == "auc" and row["slice"] == "everyone"
    )
    worst = [row["value"] for row in divulge.wording.worst_slices(report)]
    assert [figures[f"worst_slice_{at}"] for at in (1, 2, 3)] == worst[:3]
    loss = -divulge.signals.signal(evidence, "loss")
    assert figures["member_loss"] == pytest.approx(loss[evidence.member].mean(), rel=1e-6)
    assert figures["loss_gap"] == pytest.approx(loss[~evidence.member].mean() - loss[evidence.member].mean(), rel=1e-5)
    assert figures["accuracy_gap"] == figures["member_accuracy"] - figures["nonmember_accuracy"]
    assert "tpr@0.01" not in figures and figures["epoch"] == 5 and figures["seconds"] > 0
    assert "tpr@0.01" in Monitor(*Toy([0.0], n=1100).sides)(Toy([0.5], n=1100).model(1), 1)


def test_losses_of_each_epoch_are_the_traces_of_the_same_records() -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, records=100, every=2)
    seen = [monitor(toy.model(epoch), epoch) for epoch in range(1, 8)]
    assert [bool(figures) for figures in seen] == [False, True] * 3 + [False]
    evidence = monitor.evidence
    assert evidence is not None and evidence.traces.shape == (200, 3) and evidence.traces.dtype == np.float32
    assert evidence.ids.tolist() == [*monitor.parts[0].watched, *(N + monitor.parts[1].watched)]
    for at, epoch in enumerate((2, 4, 6)):
        z = toy.model(epoch)(evidence.ids)
        loss = np.log(np.exp(z).sum(axis=1)) - z[np.arange(200), toy.y[evidence.ids]]
        np.testing.assert_allclose(evidence.traces[:, at], loss, rtol=1e-4)


def test_controls_are_off_in_between_and_the_reports_say_so() -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, records=100)
    monitor(toy.model(1), 1)
    (report,) = monitor.reports
    assert {row["status"] for row in report.rows("controls")} == {"not run"}
    assert report.meta["name"] == "epoch 1"
    final = monitor.final_report(toy.model(1))
    assert {row["control"] for row in final.rows("controls") if row["status"] == "ok"} >= {"null", "duplicates"}


def test_a_model_without_losses_has_no_traces() -> None:
    toy = Toy(RISING)

    def signals_only(model: Any, members: Any, nonmembers: Any, **others: Any) -> divulge.Evidence:
        sides = [{"signals": {"margin": model(x).max(axis=1)}} for x, _ in (members, nonmembers)]
        return divulge.Evidence.from_splits(*sides)

    monitor = Monitor(*toy.sides, slices=(), collect=signals_only)
    figures = monitor(toy.model(4), 4)
    assert "member_loss" not in figures and "score" in figures
    assert monitor.evidence.traces is None and monitor.best_epoch == 4


# ----------------------------------------------------------------------------------------------- stop and keep


def lows(toy: Toy) -> list[float]:
    free = Monitor(*toy.sides)
    return [free(toy.model(epoch), epoch)["score_low"] for epoch in range(1, len(toy.leaks) + 1)]


@pytest.mark.parametrize("by", ["low", "value", "high"])
def test_it_stops_at_exactly_the_epoch_where_the_score_crosses(by) -> None:
    toy = Toy(RISING)
    free = Monitor(*toy.sides)
    ends = [free(toy.model(e), e) for e in range(1, 8)]
    name = {"low": "score_low", "value": "score", "high": "score_high"}[by]
    expected = next(epoch for epoch, figures in enumerate(ends, 1) if figures[name] > 0.15)
    assert 2 < expected < 7
    monitor = Monitor(*toy.sides, stop_at_score=0.15, by=by)
    assert toy.train(monitor) == expected and monitor.should_stop
    assert not free.should_stop


def test_patience_counts_audits_in_a_row() -> None:
    toy = Toy([1.5, 0.0, 1.5, 1.5, 1.5])
    monitor = Monitor(*toy.sides, stop_at_score=0.2, patience=2)
    assert toy.train(monitor) == 4
    monitor(toy.model(2), 5)
    assert monitor.should_stop  # a stop is not taken back


def test_the_best_epoch_is_the_most_accurate_within_the_limit() -> None:
    toy = Toy([0.0, 0.0, 0.0, 1.5, 1.5], skill=[0.0, 1.5, 0.5, 3.0, 4.0])
    monitor = Monitor(*toy.sides, stop_at_score=0.25)
    assert toy.train(monitor) == 4
    assert monitor.best_epoch == 2 and "3 of 4" in monitor.best_reason
    free = Monitor(*toy.sides)
    toy.train(free)
    assert free.best_epoch == 5


def test_without_an_epoch_within_the_limit_it_is_the_last_before_the_crossing() -> None:
    toy = Toy([0.0, 0.0, 0.0, 1.5])
    monitor = Monitor(*toy.sides, stop_at_score=0.01)  # no interval of 500 records a side is that narrow
    toy.train(monitor)
    assert monitor.best_epoch == 3 and "last one before the limit was crossed" in monitor.best_reason
    calm = Monitor(*Toy([0.0, 0.0]).sides, stop_at_score=0.01)
    Toy([0.0, 0.0]).train(calm)
    assert calm.best_epoch == 2 and "the last one: none is credibly above it" in calm.best_reason
    early = Monitor(*toy.sides, stop_at_score=0.01)
    early(toy.model(4), 1)
    assert early.best_epoch is None and early.should_stop and "first one is above" in early.best_reason


def test_the_best_epoch_is_always_an_earlier_choice_or_the_latest() -> None:
    """So one copy of the weights is enough."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        toy = Toy(list(rng.uniform(0, 1.5, 6)), skill=list(rng.uniform(0, 3, 6)), n=100)
        monitor = Monitor(*toy.sides, stop_at_score=0.35, patience=9, slices=())
        kept = None
        for epoch in range(1, 7):
            monitor(toy.model(epoch), epoch)
            assert monitor.best_epoch in (kept, epoch)
            kept = monitor.best_epoch


def test_reports_that_chose_the_model_say_so() -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, stop_at_score=0.2)
    toy.train(monitor)
    for report in (*monitor.reports, monitor.final_report(toy.model(3), controls=())):
        (row,) = [row for row in report.rows("controls") if row["control"] == "selection"]
        assert (row["status"], row["code"]) == ("warning", "DV210")
        assert "DV210" in {finding["code"] for finding in report.findings}
        assert report.judged(divulge.Policy.from_mapping({"gate": {"score": {"max": 0.9}}})).findings
    apart = Monitor(*toy.sides, stop_at_score=0.2, final=0.5)
    toy.train(apart)
    final = apart.final_report(toy.model(3), controls=())
    assert "DV210" not in {finding["code"] for finding in final.findings}


def test_a_policys_word_does_not_hide_that_they_chose_it() -> None:
    toy = Toy(RISING)
    told = {"gate": {"score": {"max": 0.9}}, "test_split": {"used_for_selection": False}}
    monitor = Monitor(*toy.sides, stop_at_score=0.2, policy=divulge.Policy.from_mapping(told))
    monitor(toy.model(1), 1)
    (row,) = [row for row in monitor.reports[0].rows("controls") if row["control"] == "selection"]
    assert row["status"] == "warning"
    assert monitor.reports[0].verdict == "PASS"


# ------------------------------------------------------------------------------------------------- the records


def test_the_records_are_the_same_at_every_look_and_for_the_same_seed() -> None:
    seen: list[list[int]] = []
    toy = Toy(RISING)

    def collect(model: Any, members: Any, nonmembers: Any, **others: Any) -> divulge.Evidence:
        seen.append([*members[0], *nonmembers[0]])
        return divulge.collect(model, members, nonmembers, **others)

    for seed in (0, 0, 1):
        monitor = Monitor(*toy.sides, records=50, seed=seed, collect=collect)
        for epoch in (1, 2):
            monitor(toy.model(epoch), epoch)
    assert seen[0] == seen[1] == seen[2] == seen[3] and seen[4] != seen[0]
    assert len(seen[0]) == 100


def test_what_is_kept_for_the_end_is_never_looked_at() -> None:
    toy = Toy(RISING)
    seen: list[set[int]] = []

    def collect(model: Any, members: Any, nonmembers: Any, **others: Any) -> divulge.Evidence:
        seen.append({*members[0].tolist(), *nonmembers[0].tolist()})
        return divulge.collect(model, members, nonmembers, **others)

    monitor = Monitor(*toy.sides, final=0.4, collect=collect)
    monitor(toy.model(1), 1)
    report = monitor.final_report(toy.model(1), controls=())
    assert not seen[0] & seen[1] and len(seen[0]) == 600 and len(seen[1]) == 400
    assert report.meta["data"]["members"] == 200


def test_groups_stay_whole_and_on_one_side_of_the_split() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.integers(0, 60, 400).astype(str), rng.integers(30, 90, 300).astype(str)]
    parts = [chosen(len(own), own, 100, 0.5, 3, side) for side, own in enumerate(groups)]
    for own, (watched, final) in zip(groups, parts, strict=True):
        assert len(watched) <= 100 and len(final) > 50
        for group in set(own):
            rows = set(np.flatnonzero(own == group))
            assert any(rows <= set(part) or not rows & set(part) for part in (watched, final))
            assert not (rows & set(watched) and rows & set(final))
            assert rows & set(watched) == rows or not rows & set(watched)
    watched, final = (np.concatenate([own[part[at]] for own, part in zip(groups, parts, strict=True)]) for at in (0, 1))
    assert not set(watched) & set(final)


def test_groups_ids_and_columns_go_along() -> None:
    toy = Toy(RISING)
    rows = np.arange(2 * N)
    pair = lambda values: (values[:N], values[N:])  # noqa: E731
    monitor = Monitor(
        *toy.sides,
        records=100,
        slices=["site"],
        final=0.3,
        ids=pair(rows + 7),
        groups=pair(rows // 2),
        columns={"site": pair(list(np.array(["a", "b"])[rows % 2]))},
    )
    monitor(toy.model(1), 1)
    evidence = monitor.evidence
    assert (evidence.columns["site"] == np.array(["a", "b"])[(evidence.ids - 7) % 2]).all()
    assert (evidence.groups == (evidence.ids - 7) // 2).all()
    assert not set(evidence.groups) & set((np.concatenate([p.final for p in monitor.parts]) // 2)[:10])


@pytest.mark.parametrize(
    "change",
    [{"every": 0}, {"records": 1}, {"patience": 0}, {"final": 1.0}, {"final": -0.1}, {"by": "mean"}, {"final": 0.999}]
    + [{"stop_at_score": limit} for limit in (float("nan"), float("inf"), -1, 1.01, 20)],
    ids=str,
)
def test_arguments_that_cannot_be_used_are_refused(change) -> None:
    with pytest.raises(InputError) as caught:
        Monitor(*Toy(RISING).sides, **change)
    assert caught.value.code == "DV068"


def test_data_that_can_be_read_only_once_is_refused() -> None:
    (x, y), others = Toy(RISING).sides
    with pytest.raises(InputError, match="read again") as caught:
        Monitor(iter([(x, y)]), others)
    assert caught.value.code == "DV068"


def test_epochs_rise() -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides)
    monitor(toy.model(1), 3)
    with pytest.raises(InputError, match="after 3"):
        monitor(toy.model(1), 3)


@pytest.mark.parametrize("epoch", [1.5, float("nan")])
def test_epochs_are_whole(epoch) -> None:
    with pytest.raises(InputError, match=r"DV068 .*whole number"):
        Monitor(*Toy(RISING).sides)(Toy(RISING).model(1), epoch)


def test_a_policy_on_an_increase_has_nothing_to_compare_with() -> None:
    limit = divulge.Policy.from_mapping({"gate": {"score": {"max_increase": 0.1}}})
    with pytest.raises(divulge.PolicyError):
        Monitor(*Toy(RISING).sides, policy=limit)


# ------------------------------------------------------------------------------------------ what must not end training


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [1, 3])
def test_outputs_that_are_not_finite_cost_a_look_and_no_training(bad, at, caplog) -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, records=100)
    for epoch in range(1, 6):
        figures = monitor(toy.model(epoch) if epoch != at else lambda rows: np.full((len(rows), 3), bad), epoch)
        assert bool(figures) == (epoch != at)
    assert len(monitor.epochs) == 4 == monitor.evidence.traces.shape[1] and at not in monitor.epochs
    assert caplog.text.count(f"epoch {at} is not audited") == 1 and "DV006" in caplog.text


def test_a_log_that_fails_costs_its_entry(caplog) -> None:
    def broken(figures: dict[str, float], step: int) -> None:
        raise ConnectionError("no route")

    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, records=100, log=broken)
    assert monitor(toy.model(1), 1)["epoch"] == 1
    monitor.finish()
    assert monitor.epochs == (1,) and caplog.text.count("ConnectionError('no route')") == 2

    def stopped(figures: dict[str, float], step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Monitor(*toy.sides, records=100, log=stopped)(toy.model(1), 1)


def test_a_regression_is_watched_without_slices_by_class() -> None:
    y = np.random.default_rng(0).normal(size=400)
    sides = (np.arange(200), y[:200]), (np.arange(200, 400), y[200:])
    monitor = Monitor(*sides)
    assert "score" in monitor(lambda rows: y[rows] + 0.1 * (rows % 7), 1)
    assert monitor.evidence.task == "regression"
    assert monitor.final_report(lambda rows: y[rows] + 0.1 * (rows % 7), controls=()).score
    toy = Toy(RISING)
    by_class = Monitor(*toy.sides)
    assert "worst_slice_1" in by_class(toy.model(5), 5)


# ------------------------------------------------------------------------------------------- log, folder, overhead


def test_figures_go_to_the_log_and_the_overhead_once() -> None:
    lines: list[tuple[dict[str, float], int]] = []
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, log=lambda figures, step: lines.append((figures, step)))
    monitor(toy.model(1), 1)
    monitor(toy.model(2), 2, step=640)
    assert [step for _, step in lines] == [1, 640]
    assert lines[1][0]["privacy/score"] == monitor.figures["score"] and lines[1][0]["privacy/epoch"] == 2
    overhead = monitor.finish()
    assert monitor.finish() == overhead == monitor.overhead
    assert len(lines) == 3 and lines[2][0]["privacy/overhead_share"] == overhead.share
    assert overhead.audits == 2 and overhead.share > 0 and overhead.training < overhead.seconds


def test_the_end_is_said(caplog) -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides)
    with caplog.at_level(logging.INFO, "divulge"):
        toy.train(monitor)
        monitor.finish()
    assert "7 audits" in caplog.text and "best epoch" in caplog.text


def test_each_report_is_saved_at_once_as_a_series(tmp_path) -> None:
    toy = Toy(RISING)
    monitor = Monitor(*toy.sides, folder=tmp_path / "watched", every=3)
    for epoch in range(1, 8):
        monitor(toy.model(epoch), epoch)
        if epoch >= 3:
            assert len(Series.load(tmp_path / "watched")) == epoch // 3
    loaded = Series.load(tmp_path / "watched")
    assert loaded.names == ("epoch 3", "epoch 6") == monitor.series.names
    assert loaded.steps == (3.0, 6.0) and loaded.axis == "epoch"
    assert [one.to_json() for one in loaded.reports] == [one.to_json() for one in monitor.reports]


def test_nothing_seen_is_no_series(caplog) -> None:
    monitor = Monitor(*Toy(RISING).sides)
    with pytest.raises(InputError, match=r"DV067 .*nothing was audited yet"):
        _ = monitor.series
    assert monitor.finish().audits == 0 and np.isnan(monitor.overhead.share)
    assert monitor.finish() and caplog.text.count("no epoch was audited, with every=1") == 1


# ---------------------------------------------------------------------------------------------- what it leaves


def test_random_numbers_stay_as_they_were() -> None:
    toy = Toy(RISING)

    def careless(rows: np.ndarray) -> np.ndarray:
        random.random(), np.random.random()
        return toy.model(1)(rows)

    random.seed(1), np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1), np.random.seed(1)
    monitor = Monitor(*toy.sides)
    monitor(careless, 1)
    monitor.final_report(careless)
    assert (random.random(), np.random.random()) == expected
    with pytest.raises(ZeroDivisionError), untouched():
        np.random.random(1 // 0)


# ------------------------------------------------------------------------------------------------ parts of data


def test_a_part_of_batches_of_mappings_and_of_lists() -> None:
    x, y = np.arange(10.0), np.arange(10)
    rows = np.array([0, 3, 4, 9])
    batches = [({"a": x[i : i + 4]}, y[i : i + 4]) for i in (0, 4, 8)]
    inputs, labels = part(batches, rows, 4, "members")
    assert inputs["a"].tolist() == labels.tolist() == rows.tolist()
    assert length(batches, 4, "members") == 10
    inputs, labels = part([{"text": f"t{i}", "label": i} for i in range(10)], rows, 3, "members")
    assert [one["text"] for one in inputs] == ["t0", "t3", "t4", "t9"] and labels == rows.tolist()
    ragged = [(np.zeros((2, width)), np.arange(2)) for width in (3, 5)]
    found = part(ragged, np.array([0, 2, 3]), 2, "members")
    assert [block[0].shape for block in found] == [(1, 3), (2, 5)]


def test_a_part_of_torch_data(require) -> None:
    torch = require("torch")
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    rows = np.array([1, 2, 7])
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
    state = torch.get_rng_state()
    for source in ((x, y), data, loader, torch.utils.data.DataLoader(data, batch_size=3)):
        inputs, labels = part(source, rows, 2, "members")
        assert torch.equal(inputs, x[rows]) and torch.equal(labels, y[rows])
        assert length(source, 2, "members") == 10
    assert torch.equal(torch.get_rng_state(), state)
    half = torch.utils.data.DataLoader(data, sampler=torch.utils.data.SubsetRandomSampler(range(5)))
    assert in_order(half) is half
    with pytest.raises(InputError, match="order"):
        length(half, 2, "members")


# ------------------------------------------------------------------------------------------------- simulations


def leaks(report: divulge.Report) -> bool:
    return any(finding["code"].startswith("DV1") for finding in report.findings)


@pytest.mark.slow
def test_the_final_report_is_honest_after_stopping_early() -> None:
    """Nothing leaks; each epoch is new noise. Some look raises an alarm far more often than the kept records do."""
    finals = looks = stops = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, 2, 800)
        outputs = rng.normal(size=(9, 800, 2))
        sides = [(np.arange(400), y[:400]), (np.arange(400, 800), y[400:])]
        monitor = Monitor(*sides, stop_at_score=0.1, by="value", final=0.5, slices=(), seed=seed)
        for epoch in range(1, 9):
            monitor(lambda rows, own=outputs[epoch]: own[rows], epoch)
            if monitor.should_stop:
                break
        kept = outputs[monitor.best_epoch or epoch]
        finals += leaks(monitor.final_report(lambda rows, own=kept: own[rows], controls=()))
        looks += any(leaks(report) for report in monitor.reports)
        stops += monitor.should_stop
    assert finals <= 0.05 * SEEDS + 2 * np.sqrt(0.05 * 0.95 * SEEDS)
    assert stops > 0
    if SEEDS >= 200:  # fewer tell nothing of rates that low; of 200: 2 finals, 13 looks
        assert looks > 2 * finals


@pytest.mark.slow
def test_the_final_report_holds_the_truth_where_the_chosen_look_shows_too_little() -> None:
    """Each epoch leaks the same; the one that looks least leaky is kept, so that look itself shows too little."""
    from scipy.special import ndtr

    truth, shift = float(2 * ndtr(0.25) - 1), 0.5
    held, looks, finals = 0, list[float](), list[float]()
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(13, 1600)) + shift * (np.arange(1600) < 800)

        def collect(model: Any, members: Any, nonmembers: Any, **others: Any) -> divulge.Evidence:
            sides = [{"signals": {"x": model(x)}} for x, _ in (members, nonmembers)]
            return divulge.Evidence.from_splits(*sides, columns=None)

        sides = [(rows, np.zeros(800)) for rows in (np.arange(800), np.arange(800, 1600))]
        monitor = Monitor(*sides, final=0.5, slices=(), seed=seed, collect=collect)
        for epoch in range(1, 13):
            monitor(lambda rows, own=values[epoch]: own[rows], epoch)
        least = int(np.argmin([report.score.value for report in monitor.reports]))
        final = monitor.final_report(lambda rows, own=values[least + 1]: own[rows], controls=()).score
        held += final.low <= truth <= final.high
        looks.append(monitor.reports[least].score.value)
        finals.append(final.value)
    assert held >= 0.95 * SEEDS - 2 * np.sqrt(0.05 * 0.95 * SEEDS)
    assert np.mean(looks) < np.mean(finals) - 0.04 and abs(np.mean(finals) - truth) < 0.03
