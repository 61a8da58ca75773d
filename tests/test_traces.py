"""Attacks on the losses after every epoch: twins that go record by record, and which records they name."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import divulge
from divulge import Evidence, InputError, Unavailable
from divulge.attacks import Traces, named
from divulge.attacks.traces import KINDS, summary


def score_of(losses, kind):
    """One record's, by the definitions."""
    if kind == "iqr":
        return np.percentile(losses, 75) - np.percentile(losses, 25)
    if kind == "mean":
        return -sum(losses) / len(losses)
    return -np.polyfit(range(len(losses)), losses, 1)[0]


def evidence_of(traces, **fields):
    return Evidence(np.arange(len(traces)) % 2 == 0, traces=traces, **fields)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("epochs", [2, 3, 10, 101])
def test_a_summary_equals_its_naive_twin(kind, dtype, epochs):
    traces = np.random.default_rng(0).gamma(2, size=(50, epochs)).astype(dtype)
    expected = [score_of(losses.astype(float), kind) for losses in traces]
    found = summary(traces, kind)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert np.array_equal(Traces(kind)(evidence_of(traces), np.random.default_rng(0)), found)


@pytest.mark.parametrize("kind", KINDS)
def test_many_rows_are_scored_in_blocks(kind):
    traces = np.random.default_rng(0).gamma(2, size=(20_000, 12))
    found = summary(traces, kind)
    for i in (0, 1, 9_999, 19_999):
        assert found[i] == pytest.approx(score_of(traces[i], kind), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trace_with_a_gap_has_no_score(kind):
    traces = np.random.default_rng(0).gamma(2, size=(40, 5))
    traces[3, 0] = traces[7, 2] = np.nan
    found = Traces(kind)(evidence_of(traces), np.random.default_rng(0))
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 7]


def test_losses_that_fall_more_are_more_member_like():
    flat, slow, fast = [1.0] * 5, [2.0, 1.8, 1.6, 1.4, 1.2], [2.0, 1.0, 0.5, 0.2, 0.0]
    for kind in KINDS:
        found = summary(np.array([flat, slow, fast]), kind)
        assert found[2] == max(found)
        if kind != "mean":  # the flat one is lower than the slow one throughout
            assert found[0] == 0 and found[1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_epoch_does_not_move(kind):
    with pytest.raises(Unavailable, match="at least 2 epochs, has 1"):
        Traces(kind)(evidence_of(np.ones((4, 1))), np.random.default_rng(0))


def test_without_traces_it_is_an_error_where_it_was_named():
    evidence = Evidence(np.arange(40) < 20, signals={"loss": np.arange(40.0)})
    with pytest.raises(Unavailable, match=r"the attack traces\(iqr\) cannot run: .*traces"):
        divulge.audit(evidence, attacks=["traces"], controls=())


def test_an_unknown_kind_is_refused_with_those_that_are_known():
    with pytest.raises(InputError, match="iqr, mean, slope") as raised:
        named("traces(median)", evidence_of(np.ones((4, 2))))
    assert raised.value.code == "DV056"


def trained_watched(seed, n=300, d=400, epochs=60, flipped=0.15):
    """Logistic regression by gradient descent on n of 2 n records, more weights than records: it remembers all.

    Some labels are wrong, on both sides: of the members those can only be learned by heart.

    Returns:
        (2 n, epochs) losses; (2 n,) whether the label is wrong. The first n are members.
    """
    rng = np.random.default_rng(seed)
    x, truth = rng.normal(size=(2 * n, d)), rng.normal(size=d)
    wrong = rng.random(2 * n) < flipped
    x += 0.15 * np.outer(np.sign(x @ truth), truth)  # most labels can be guessed
    y = np.where((x @ truth > 0) ^ wrong, 1.0, -1.0)
    weights, losses = np.zeros(d), []
    for _ in range(epochs):
        margins = y * (x @ weights)
        losses.append(np.logaddexp(0, -margins))
        pull = y[:n] / (1 + np.exp(margins[:n]))
        weights += 0.5 * x[:n].T @ pull / n
    return np.array(losses).T, wrong


def test_they_name_the_records_that_were_learned_by_heart():
    """Among the members, those of wrong labels fall latest and from furthest up; the mean says the opposite of them."""
    for seed in range(3):
        traces, wrong = trained_watched(seed)
        member = np.arange(len(traces)) < len(traces) // 2
        assert traces[member, -1].max() < np.log(2) < traces[~member & wrong, -1].mean()
        moved = summary(traces, "iqr")
        assert roc_auc_score(wrong[member], moved[member]) > 0.8
        top = np.argsort(-moved[member])[: wrong[member].sum() // 2]
        assert wrong[member][top].mean() > 3 * wrong[member].mean()


@pytest.mark.parametrize("kind", ["mean", "slope"])
def test_they_tell_members_of_a_training_that_was_watched(kind):
    traces, _ = trained_watched(0)
    evidence = Evidence(np.arange(len(traces)) < len(traces) // 2, traces=traces)
    report = divulge.audit(evidence, attacks=[Traces(kind)], controls=())
    assert report.estimate("auc").low > 0.6
    assert report.score.low > 0.1
