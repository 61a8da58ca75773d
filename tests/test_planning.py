"""The fastest way to train reference models: what is timed, what it comes to, and which way is picked."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest

from divulge.errors import DivulgeError, InputError
from divulge.fits import Sklearn, Torch, Views
from divulge.references import design, fit_references
from divulge.references.planning import START, Trial, choose, lasting, measure, timed


def records(n=60):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 4)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    ("trial", "models", "workers", "picked"),
    [
        (Trial(alone=10.0, scoring=0.1), 16, 1, "loop"),
        (Trial(alone=10.0, scoring=0.1), 16, 2, "processes"),
        (Trial(alone=0.1, scoring=0.0), 16, 2, "loop"),  # over before processes are up
        (Trial(alone=10.0, scoring=0.1), 1, 8, "loop"),
        (Trial(alone=10.0, scoring=0.1, stacked=1.0), 64, 2, "vmapped"),
        (Trial(alone=10.0, scoring=0.1, stacked=6.0), 64, 2, "processes"),
        (Trial(alone=10.0, scoring=0.1, stacked=6.0), 64, 1, "vmapped"),
        (Trial(alone=10.0, scoring=0.1, stacked=11.0), 64, 1, "loop"),
        (Trial(alone=1.0, scoring=9.0, stacked=0.1), 64, 4, "processes"),  # scoring is what takes the time
        (Trial(alone=10.0, scoring=0.1, device=True), 64, 4, "loop"),
        (Trial(alone=10.0, scoring=0.1, stacked=8.0, device=True), 64, 4, "vmapped"),
    ],
)
def test_the_fastest_is_picked(trial, models, workers, picked):
    plan = choose(trial, models, workers)
    assert plan.executor == picked == min(plan.seconds, key=lambda name: plan.seconds[name])
    assert (plan.models, plan.workers) == (models, workers)
    assert plan.text.startswith(f"{picked}: ") and plan.text.count("\n") == 0


def test_what_each_way_comes_to():
    plan = choose(Trial(alone=2.0, scoring=0.5, stacked=0.25), models=9, workers=4)
    assert plan.seconds == {"loop": 22.5, "processes": 2.5 * 3 + START, "vmapped": 6.75}
    assert "processes" not in choose(Trial(1.0, 0.0, device=True), 9, 4).seconds
    assert "vmapped" not in choose(Trial(1.0, 0.0), 9, 4).seconds


def test_the_words_say_what_was_tried():
    plan = choose(Trial(alone=2.0, scoring=0.0, stacked=0.2, share=1), models=64, workers=2)
    assert "in a trial of a whole training of 16 models" in plan.text and "2 processes" in plan.text
    refused = choose(Trial(alone=20.0, scoring=0.0, share=5, reason="batch normalisation"), models=64, workers=2)
    assert refused.text == (
        "processes: 2.0 times as fast as one by one in a trial of 1/5 of a training; about 11 min for 64 models. "
        "Not at once: batch normalisation"
    )
    assert "over 100 times as fast" in choose(Trial(alone=9.0, scoring=0.0, stacked=1e-5), models=64, workers=1).text
    assert [lasting(seconds) for seconds in (0, 9.96, 100, 130, 7300)] == [
        "0.1 s or less",
        "10.0 s",
        "100 s",
        "2 min",
        "2.0 h",
    ]


class Counting:
    """A fit that keeps what it was asked for."""

    def __init__(self, share=1.0):
        self.share, self.trained, self.scored = share, [], []
        self.at_once = 3

    def __call__(self, data, rows, seed):
        self.trained.append((rows.tolist(), seed))
        return self.predict

    def predict(self, data, rows, query):
        self.scored.append(len(rows))
        return np.zeros((len(rows), 2))


class CountingAtOnce(Counting):
    def fit_many(self, data, rows, seeds):
        self.trained += [(part.tolist(), seed) for part, seed in zip(rows, seeds, strict=True)]
        self.asked = len(rows)
        return [self.predict for _ in rows]


class Refusing(CountingAtOnce):
    def fit_many(self, data, rows, seeds):
        raise InputError("DV405", "it mixes rows")


class Broken(CountingAtOnce):
    def fit_many(self, data, rows, seeds):
        raise InputError("DV003", "a wrong value")


def test_what_is_tried():
    trained_on, data = design(60, 8), records()
    plain = Counting()
    trial = timed(plain, data, trained_on, seed=0, workers=1)
    assert trial.stacked is None and trial.alone > 0 and trial.scoring > 0 and not trial.reason
    assert {tuple(rows) for rows, _ in plain.trained} == {tuple(np.flatnonzero(trained_on[0]))}
    assert set(plain.scored) == {60}
    many = CountingAtOnce()
    trial = timed(many, data, trained_on, seed=0, workers=1)
    assert trial.stacked is not None and trial.at_once == many.asked == 3
    assert len({seed for _, seed in many.trained}) == 3
    assert timed(many, data, trained_on[:2], seed=0, workers=1).at_once == 2
    assert timed(many, data, trained_on[:1], seed=0, workers=1).stacked is None
    refused = timed(Refusing(), data, trained_on, seed=0, workers=1)
    assert refused.stacked is None and refused.reason == "it mixes rows"
    with pytest.raises(InputError, match="a wrong value"):
        timed(Broken(), data, trained_on, seed=0, workers=1)
    with pytest.raises(InputError, match="DV401"):
        measure(plain, data, np.ones(60, bool))


def test_a_trial_that_raises_is_the_users_error():
    def raising(data, rows, seed):
        raise KeyError("a column")

    def stopping(data, rows, seed):
        return lambda data, rows, query: sys.exit("no more")

    for fit, words in ((raising, "KeyError: 'a column'"), (stopping, "SystemExit: no more")):
        with pytest.raises(DivulgeError, match=f"DV402 a trial of the training failed: {words}"):
            measure(fit, records(), design(60, 8), workers=1)


def test_what_is_trained_is_what_references_train():
    """The seeds and rows of the trial are those of the models, so that the trial is no other training."""
    trained_on, data = design(60, 4), records()
    tried, real = Counting(), Counting()
    timed(tried, data, trained_on, seed=5, workers=1)
    fit_references(real, data, trained_on, seed=5)
    assert real.trained[0] in tried.trained


def test_a_short_training_is_scaled():
    class Long(Counting):
        def brief(self):
            return self.short, 1000.0

    fit = Long()
    fit.short = Counting()
    trial = timed(fit, records(), design(60, 4), seed=0, workers=1)
    assert trial.share == 1000 and not fit.trained and fit.short.trained


def test_ready_fits(require):
    torch = require("torch")

    def build():
        return torch.nn.Linear(4, 2)

    trained_on, data = design(60, 4), records()
    fit = Torch(build, epochs=50, batch_size=16, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    for one in (fit, Views(fit, [np.negative])):
        plan = measure(one, data, trained_on, workers=1)
        assert plan.seconds.keys() == {"loop", "vmapped"} and "1/50 of a training of 4 models" in plan.text
    normalised = Torch(
        lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)),
        epochs=2,
        optimizer=fit.optimizer,
        batches="shared",
    )
    plan = measure(normalised, data, trained_on, workers=2)
    assert plan.seconds.keys() == {"loop", "processes"} and "batch normalisation" in plan.text
    from sklearn.naive_bayes import GaussianNB

    assert measure(Sklearn(GaussianNB()), data, trained_on, workers=1).executor == "loop"


def test_auto_trains_by_the_way_that_was_picked(require):
    torch = require("torch")

    def build():
        return torch.nn.Linear(4, 2)

    trained_on, data = design(60, 4), records()
    fit = Torch(build, epochs=3, batch_size=16, optimizer=functools.partial(torch.optim.SGD, lr=0.1))
    found = fit_references(fit, data, trained_on, executor="auto", workers=1)
    loop = fit_references(fit, data, trained_on)
    for name, signals in loop.signals.items():
        np.testing.assert_allclose(found.signals[name], signals, rtol=0, atol=1e-4)
