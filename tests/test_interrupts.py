"""A Ctrl-C that a library swallows ends the run all the same."""

import signal
import threading
import warnings

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from divulge import design, fit_references
from divulge.interrupts import heard

SLOW = MLPClassifier((64,), max_iter=10_000, tol=0, n_iter_no_change=10_000, random_state=0)


@pytest.fixture(autouse=True)
def rung():
    """Ctrl-C as a terminal's program hears it; one that was begun in the background does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallowed():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return "went on"


def test_what_is_swallowed_is_heard_at_the_end():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), heard():
        assert swallowed() == "went on"
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_not_swallowed_comes_at_once():
    with pytest.raises(KeyboardInterrupt), heard():
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")


def test_in_another_thread_nothing_is_changed():
    found = []

    def run():
        with heard():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_a_half_trained_network_of_scikit_learn_is_no_finished_model(tmp_path):
    """It ends its fit with a warning: two models were called finished, and kept."""
    x, y = np.random.default_rng(0).normal(size=(400, 5)), np.arange(400) % 2

    def fit(data, rows, seed):
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        model = SLOW.fit(data[0][rows], data[1][rows])
        return lambda data, rows, query: model.predict_proba(data[0][rows])

    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_references(fit, (x, y), design(400, 2), store=tmp_path)
    assert not list(tmp_path.glob("[!.]*.npy"))


def test_x_and_y_of_different_lengths_are_refused():
    fit = lambda data, rows, seed: lambda data, rows, query: data[0][rows]  # noqa: E731
    with pytest.raises(Exception, match=r"DV004 expected x and y of as many rows, got 100 and 90"):
        fit_references(fit, (np.zeros((100, 2)), np.arange(90) % 2), design(90, 2))
