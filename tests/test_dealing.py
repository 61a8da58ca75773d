"""Rows that repeat, records that stand several times, persons with many rows, scores of any scale: as in memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from divulge import Evidence, Stream, audit
from divulge.folds import effective_shares
from divulge.identity import content_hashes
from divulge.streams import measured, planning
from divulge.streams.dealing import Block, dealing_of, placed
from divulge.streams.tally import added

QUICK = {"attacks": "loss", "controls": (), "seed": 3}


def both(evidence: Evidence, **how):
    """The reports of the same records in memory, and as a stream of blocks."""
    size = len(evidence)
    cuts = pairwise([0, size // 3, size // 2, size])
    blocks = [evidence.take(slice(first, last)) for first, last in cuts]
    return audit(evidence, **{**QUICK, **how}), audit(blocks, **{**QUICK, **how})


def leaky(n: int, leak: float, seed: int = 0, **fields) -> Evidence:
    rng = np.random.default_rng(seed)
    member = rng.permutation(n) < n // 2
    return Evidence(member, signals={"loss": -np.abs(rng.normal(size=n) - leak * member)}, **fields)


def with_places(evidence: Evidence) -> Evidence:
    return placed(evidence, np.arange(len(evidence), dtype=np.uint64))


# ------------------------------------------------------------------------------------------------ rows that repeat


@pytest.mark.parametrize("values", [5, 65, 1000])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_rows_that_repeat_are_dealt_as_evenly_as_others(values, shift):
    """By their contents alone all rows of one value would come into one half: a score of .12 came out as -.03."""
    rng = np.random.default_rng(values)
    n = 20_000
    member = rng.permutation(n) < n // 2
    loss = np.round(np.clip(rng.normal(shift * member, 1), -2, 2) * values / 4) / values * 4 - 3
    memory, streamed = both(Evidence(member, signals={"loss": loss}))
    assert streamed.score.value == pytest.approx(memory.score.value, abs=0.03)
    assert streamed.score.low <= memory.score.value <= streamed.score.high


def test_answers_alone_have_a_score_in_a_stream_too():
    rng = np.random.default_rng(0)
    n = 8000
    member, labels = rng.permutation(n) < n // 2, rng.integers(0, 5, n)
    answer = np.where(rng.random(n) < 0.7 + 0.2 * member, labels, rng.integers(0, 5, n))
    memory, streamed = both(Evidence(member, outputs=np.eye(5)[answer], labels=labels, kind="probs"))
    assert streamed.score.value == pytest.approx(memory.score.value, abs=0.03)
    assert {row["code"] for row in streamed.rows("findings")} == {row["code"] for row in memory.rows("findings")}


def test_the_sample_of_rows_that_repeat_is_one_of_rows():
    """By their contents alone a sample of few values would be one of few rows, or none of some value."""
    rng = np.random.default_rng(1)
    n = 30_000
    evidence = Evidence(rng.random(n) < 0.5, signals={"loss": -(rng.random(n) < 0.2).astype(float)})
    plan, _ = planning.planned(with_places(evidence), attacks="loss", slices=[], seed=0, sample=2000)
    sample = added(plan, [Block(evidence, "a", 0)]).sample.rows
    assert len(sample) == 4000
    assert (sample.signals["loss"] == -1).mean() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("cut", [1, 7])
def test_files_read_in_parts_give_the_same_whatever_the_blocks(tmp_path, cut):
    """A row's place is its file and its number there: no worker and no block changes it."""
    evidence = replace(leaky(3000, 0.5), signals={"loss": np.round(leaky(3000, 0.5).signals["loss"], 1)})
    evidence.save(tmp_path / "a.parquet")
    whole = audit(Stream(tmp_path, workers=1), **QUICK)
    parts = audit(Stream(tmp_path, workers=2, block=3000 // cut), **QUICK)
    assert repr(whole.tables) == repr(parts.tables)


# ------------------------------------------------------------------------------------- records that stand twice


def test_copies_are_dealt_together_whatever_their_ids():
    rng = np.random.default_rng(0)
    once = leaky(600, 0.0)
    evidence = replace(once.take(np.tile(np.arange(600), 2)), ids=np.arange(1200))
    dealing = dealing_of(evidence)
    assert dealing.by == "copies"
    halves = dealing.halves(evidence, content_hashes(evidence), int(rng.integers(9)))
    assert (halves[:600] == halves[600:]).all()
    assert 0.4 < halves.mean() < 0.6


def test_what_stands_too_often_to_be_a_copy_is_dealt_row_by_row():
    once = leaky(600, 0.0)
    twice = once.take(np.concatenate([np.tile(np.arange(600), 2), np.zeros(100, int)]))
    evidence = with_places(twice)
    dealing = dealing_of(evidence)
    assert dealing.by == "copies"
    halves = dealing.halves(evidence, content_hashes(twice), 0)
    assert (halves[1:600] == halves[601:1200]).all()
    assert 0.3 < halves[1200:].mean() < 0.7


@pytest.mark.slow
@pytest.mark.default_budget
def test_copies_with_ids_are_no_leak_to_a_fitted_attack():
    alarms = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        member, labels = np.arange(600) % 2 == 0, rng.integers(0, 3, 600)
        once = Evidence(member, outputs=rng.normal(size=(600, 3)), labels=labels, kind="logits")
        evidence = replace(once.take(np.tile(np.arange(600), 2)), ids=np.arange(1200))
        alarms += audit([evidence], attacks="learned(boosting)", controls=(), seed=seed).score.low > 0
    assert alarms <= 1


# --------------------------------------------------------------------------------------- persons with many rows


def test_a_person_with_a_quarter_of_the_rows_widens_intervals_however_many_others_there_are(monkeypatch):
    monkeypatch.setattr("divulge.streams.sketches.UNITS", 500)
    rng = np.random.default_rng(0)
    n = 40_000
    groups = np.where(rng.random(n) < 0.25, 0, np.arange(n) + 1)
    member = (groups % 2 == 0) | (groups == 0)
    evidence = Evidence(member, signals={"loss": rng.normal(size=n)}, groups=groups)
    plan, _ = planning.planned(evidence, attacks="loss", slices=[], seed=0, sample=10)
    tally = added(plan, [Block(evidence.take(slice(0, 9000)), "a", 0), Block(evidence.take(slice(9000, n)), "b", 0)])
    assert measured.effective_of(tally) == pytest.approx(effective_shares(member, groups), rel=0.05)


# --------------------------------------------------------------------------------------------- scores of any scale


@pytest.mark.parametrize(
    "scale",
    [lambda x: x - 500, lambda x: 1 / (1 + np.exp(-x - 6)), lambda x: 1e6 + x, np.exp],
    ids=["far off", "probability", "farther", "positive"],
)
def test_a_rate_is_met_whatever_the_scale_of_the_scores(scale):
    """Bins that are narrow about 0 held many times the rows of a low rate: TPR 0 [0, 0] where .09 is true."""
    rng = np.random.default_rng(5)
    n = 60_000
    member = rng.permutation(n) < n // 2
    mine = scale(rng.normal(size=n) + 1.0 * member)
    evidence = Evidence(member, signals={"mine": mine})
    memory, streamed = both(evidence, attacks="mine")
    for name in ("auc", "tpr@0.01", "tpr@0.001"):
        ours, theirs = (report.estimate(name, attack="mine") for report in (memory, streamed))
        assert theirs.value == pytest.approx(ours.value, rel=0.15), name
        assert theirs.low <= ours.value <= theirs.high, name


def test_the_upper_end_of_a_tpr_holds_what_its_bin_may_hide():
    """All of the highest bin could lie above the rank: nobody can say, so the interval reaches over it."""
    rng = np.random.default_rng(0)
    n = 40_000
    member = rng.permutation(n) < n // 2
    # Nothing lies at the centre of these bins: two heaps, both far off.
    mine = np.where(rng.random(n) < 0.5, 1000.0, -1000.0) + rng.normal(size=n) + 3.0 * member
    memory, streamed = both(Evidence(member, signals={"mine": mine}), attacks="mine")
    ours, theirs = (report.estimate("tpr@0.01", attack="mine") for report in (memory, streamed))
    assert theirs.low <= ours.value <= theirs.high
