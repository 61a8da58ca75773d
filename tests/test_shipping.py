"""What is sent to workers brings the code of the user's own modules, however deep it lies."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

from divulge import InputError
from divulge.fits.views import Views
from divulge.references.training import Training
from divulge.references.workers import packed
from divulge.shipping import installed, pickled

OURS = """
from neighbour import doubled

def less(x, by=0):
    return doubled(x) - by

def fit(data, rows, seed):
    mean = data[0][rows].mean()
    return lambda data, rows, query: data[0][rows] - mean
"""


@pytest.fixture
def ours(tmp_path, monkeypatch):
    """A module of the user's own, which imports another beside it."""
    (tmp_path / "ours.py").write_text(OURS)
    (tmp_path / "neighbour.py").write_text("def doubled(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("ours")
    for name in ("ours", "neighbour"):
        sys.modules.pop(name, None)


def elsewhere(payload: bytes, expression: str) -> str:
    """What a process that has no such modules says of the thing that it is sent."""
    code = f"import pickle, sys; import numpy as np; thing = pickle.loads(sys.stdin.buffer.read()); print({expression})"
    found = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode().strip()


def sent(thing: object) -> bytes:
    return pickled(thing, expected="a thing", hint="Mend it.")


@pytest.mark.parametrize(
    ("wrap", "call"),
    [
        (lambda f: f, "thing(3, 1)"),
        (lambda f: partial(f, by=1), "thing(3)"),
        (lambda f: {"a": [f]}, "thing['a'][0](3, 1)"),
    ],
    ids=["plain", "partial", "nested"],
)
def test_a_function_of_ones_own_runs_where_its_module_is_not(ours, wrap, call):
    assert elsewhere(sent(wrap(ours.less)), call) == "5"


def test_what_a_fit_of_divulges_wraps_is_found_too(ours):
    """The task's fit is a class of divulge, what it holds is the user's."""
    x, labels = np.arange(4.0), np.array([0, 1, 0, 1])
    task = Training(Views(ours.fit, [ours.less]), (x, labels), labels, ("log_odds",), 1, "logits")
    predicted = "thing.fit(thing.data, np.array([0, 1]), 0)(thing.data, np.array([3]), 0).tolist()"
    assert elsewhere(packed(task), predicted) == "[5.5]"


def test_arrays_travel_once_and_are_no_matter_for_the_search(ours):
    big = np.zeros(1_000_000)
    assert len(sent((ours.less, big))) < 1.01 * big.nbytes


def test_what_cannot_be_sent_is_an_error_that_says_what_was_expected():
    with pytest.raises(InputError, match=r"DV405 expected a thing, got TypeError: .*lock.* Mend it\."):
        sent(threading.Lock())


def test_nothing_stays_registered(ours):
    import cloudpickle

    before = set(cloudpickle.list_registry_pickle_by_value())
    sent(ours.less)
    assert set(cloudpickle.list_registry_pickle_by_value()) == before


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("json", True),
        ("numpy.linalg", True),
        ("divulge.evidence", True),
        ("__main__", False),
        ("nowhere", False),
        (None, False),
    ],
)
def test_which_modules_are_installed(module, expected):
    assert installed(module) is expected
