"""Do the default attacks find what the loss alone finds, and stay quiet where nothing leaks? On the models of zoo.py.

`pytest -m slow` takes a part of the zoo, two replicates each; DIVULGE_SEEDS=200, all of it (the networks where torch
and Fashion-MNIST are there). benchmarks/attacks.py measures the same targets and writes the tables. Of single targets
few replicates show gross losses only; all together must not lose, and must gain in AUC where the table has gains.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

import divulge
from divulge.attacks import all_named, named
from simulations import refuted
from zoo import ZOO, Rows, Target, attacked, leaks, mean_interval, missing, views

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
FULL = SEEDS >= 200
LARGEST_LOSS = 0.08  # of two replicates of few records: four standard deviations
GAIN = ("digits/forest", "digits/mlp", "noisy/boosting")  # where the table of docs/zoo.md has larger AUCs
BY_NAME = {target.name: target for target in ZOO}
PART = (*GAIN, *(name for name in BY_NAME if name.startswith("cancer/")))
LEAKY = [target for target in ZOO if not target.leak_free and (FULL or target.name in PART)]
LEAK_FREE = [target for target in ZOO if target.leak_free and (FULL or target.name == "digits/forest/leak-free")]

slow = pytest.mark.slow
pytestmark = pytest.mark.default_budget


def evidence_of(target: Target, replicates: int):
    """Of each replicate and view; skips where something is not installed, or fails where all of it must be."""
    if reason := missing(target):
        if os.environ.get("DIVULGE_REQUIRE") == "all" and reason == "torch":
            pytest.fail(f"needs {reason}")
        pytest.skip(f"needs {reason}")
    for replicate in range(min(target.replicates, replicates)):
        for view, evidence in views(target.evidence(replicate)).items():
            yield replicate, view, evidence


@pytest.fixture(scope="module")
def gains() -> dict[tuple[str, str], tuple[float, float]]:
    """Of each target and view, the mean gains of score and AUC: what the tests of single targets leave for all."""
    return {}


@slow
@pytest.mark.parametrize("target", LEAKY, ids=str)
def test_the_default_attacks_find_at_least_what_the_loss_finds(target: Target, gains, record_property):
    of_views: dict[str, list[tuple[float, float]]] = {}
    for _, view, evidence in evidence_of(target, max(2, SEEDS // 10)):
        default = all_named("default", evidence)
        found = attacked(evidence, [named("loss", evidence), *(attack for attack in default if attack.name != "loss")])
        names = [attack.name for attack in default]
        score = found.score(names).value - found.score(["loss"]).value
        of_views.setdefault(view, []).append((score, found.auc(names) - found.auc(["loss"])))
    for view, values in of_views.items():
        score, auc = np.mean(values, axis=0)
        gains[target.name, view] = float(score), float(auc)
        print(f"{target}, {view}: score {score:+.3f}, AUC {auc:+.3f}")
        assert score > -LARGEST_LOSS and auc > -LARGEST_LOSS  # of few replicates more cannot be asked of each
    record_property("gains", of_views)


@slow
def test_over_all_targets_the_default_attacks_lose_nothing_to_the_loss(gains):
    """Single targets have few replicates; together they show a set that is a little worse everywhere, or no better."""
    if len(gains) < 4:
        pytest.skip("the tests of single targets were not run")
    for view in ("outputs", "features"):
        scores, aucs = zip(*(gain for (_, of), gain in gains.items() if of == view), strict=True)
        print(f"{view}: score {mean_interval(scores)[:3]}, AUC {mean_interval(aucs)[:3]} over {len(scores)} targets")
        assert ttest_1samp(scores, 0.0, alternative="less").pvalue > 0.01
        assert np.mean([gains[name, view][1] for name in GAIN]) > 0.01


@slow
def test_where_nothing_leaks_nothing_is_found(record_property):
    """An alarm: the low end of the score is above 0. Views see the same model, so each is counted by itself."""
    alarms: dict[tuple[str, str], list[bool]] = {}
    for target in LEAK_FREE:
        if missing(target):
            continue
        for _, view, evidence in evidence_of(target, max(10, SEEDS // 10)):
            for budget in ("default", "thorough") if FULL else ("default",):
                attacks = all_named(budget, evidence)
                found = attacked(evidence, attacks)
                low = found.score(attack.name for attack in attacks).low
                alarms.setdefault((view, budget), []).append(low > 0)
    assert alarms
    for key, seen in alarms.items():
        print(f"{key}: {sum(seen)} alarms of {len(seen)}")
        record_property(str(key), sum(seen))
        assert not refuted(sum(seen), len(seen), 0.05)


# ----------------------------------------------------------------------------------------------- the zoo itself


def test_the_zoo_is_as_declared():
    assert len(ZOO) == len(BY_NAME) == 31
    assert sum(target.leak_free for target in ZOO) == 5
    assert [target.replicates for target in ZOO if target.data == "noisy"] == [5] * 8
    assert {target.replicates for target in ZOO if target.data == "fashion"} == {3}
    assert {target.kind for target in ZOO} == {"probs", "logits"}
    assert all(target.overfit for target in ZOO if target.leak_free)


@pytest.mark.parametrize("name", ["wine/logistic", "cancer/bayes", "noisy/bayes", "digits/knn"])
def test_evidence_is_what_the_declaration_says(name: str):
    target = BY_NAME[name]
    evidence = target.evidence(0)
    assert (int(evidence.member.sum()), int((~evidence.member).sum())) == (target.members, target.nonmembers)
    assert evidence.kind == "probs" and evidence.outputs.dtype == np.float64
    assert evidence.features.dtype == np.float32 and len(evidence.features) == len(evidence)
    assert np.allclose(evidence.outputs.sum(axis=1), 1)
    assert np.array_equal(np.unique(evidence.labels), np.arange(evidence.outputs.shape[1]))
    right = evidence.outputs.argmax(axis=1) == evidence.labels
    assert right.mean() > 1.5 / evidence.outputs.shape[1]
    apart = views(evidence)
    assert apart["outputs"].features is None and apart["features"].features is evidence.features


def test_a_replicate_is_the_same_again_and_another_is_not():
    target = BY_NAME["wine/forest"]
    one, again, other = target.evidence(0), target.evidence(0), target.evidence(1)
    assert np.array_equal(one.outputs, again.outputs) and np.array_equal(one.features, again.features)
    assert not np.array_equal(one.features, other.features)
    twin = replace(target, name="another")
    assert not np.array_equal(one.features, twin.evidence(0).features)


@pytest.mark.parametrize("name", ["wine/logistic", "digits/forest/leak-free", "noisy/forest/leak-free"])
def test_a_model_sees_its_members_and_that_of_a_leak_free_target_neither_side(name: str):
    target, seen = BY_NAME[name], []

    def fit(rows: Rows, held: Rows, seed: int):
        seen.append(rows)
        return lambda x: np.full((len(x), 10), 0.1)

    evidence = replace(target, fit=fit).evidence(0)
    trained = {row.tobytes() for row in seen[0].x}
    shown = np.array([row.tobytes() in trained for row in evidence.features])
    assert len(trained) == len(seen[0].y) == target.members  # no data set of these holds a row twice
    assert not shown.any() if target.leak_free else np.array_equal(shown, evidence.member)


def test_a_missing_data_set_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("DIVULGE_FASHION", str(tmp_path))
    assert missing(BY_NAME["fashion/cnn-overfit"])
    assert missing(BY_NAME["wine/forest"]) is None


@slow
def test_a_network_is_trained_to_overfit_or_stopped(require):
    require("torch")
    targets = [BY_NAME["fashion/cnn-overfit"], BY_NAME["fashion/cnn-early-stopping"]]
    if reason := missing(targets[0]):
        pytest.skip(f"needs {reason}")
    gaps = []
    for target in targets:
        evidence = target.evidence(0)
        right, member = evidence.outputs.argmax(axis=1) == evidence.labels, evidence.member
        assert evidence.kind == "logits" and evidence.outputs.dtype == np.float32 and right[~member].mean() > 0.7
        gaps.append(right[member].mean() - right[~member].mean())
    assert gaps[0] > 0.08 and gaps[0] > gaps[1] + 0.03


# -------------------------------------------------------------------------------------------------- the judging


def test_a_sets_score_is_that_of_an_audit():
    evidence = BY_NAME["cancer/forest"].evidence(0)
    for view in views(evidence).values():
        attacks = all_named("default", view)
        found = attacked(view, attacks)
        for names in (list(found.scored), ["loss"]):
            audited = divulge.audit(view, attacks=names, controls=())
            assert found.score(names)[:3] == pytest.approx(audited.score[:3])
            if len(names) == 1:
                assert np.mean(found.scored["loss"].auc) == pytest.approx(found.auc(names))


def test_what_cannot_run_is_said_and_left_out():
    def refuses(evidence, rng):
        raise divulge.Unavailable("no")

    evidence = BY_NAME["wine/bayes"].evidence(0)
    found = attacked(evidence, [named("loss", evidence), named(refuses, evidence)])
    assert list(found.scored) == ["loss"] and found.skipped == {"refuses": "no"}
    assert found.score(["loss", "refuses"]) == found.score(["loss"])


def test_the_interval_of_gains_is_students():
    values = [0.1, 0.2, 0.4, 0.0]
    interval = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values)[:3] == pytest.approx((np.mean(values), interval.low, interval.high))
    assert np.isnan(mean_interval([0.1]).low) and not leaks([0.5])
    assert leaks([0.10, 0.11, 0.12]) and not leaks([0.0, 0.03, 0.06])
