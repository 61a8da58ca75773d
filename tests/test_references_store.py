"""A store takes up where a run stopped, uses nothing that changed, and never loses or believes the wrong file."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from divulge import DivulgeError, Evidence, InputError, atomic
from divulge.references import design, fit_references, load_references
from divulge.references import store as store_module
from divulge.references.store import rows_of, status

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
DESIGN = design(40, 4)
IDS = np.array([f"record {i}" for i in range(40)])


class Counted:
    """Least squares; what it was called with does not count as its settings."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.seeds = []

    def __getstate__(self):
        return {"scale": self.scale}

    def __call__(self, data, rows, seed):
        self.seeds.append(seed)
        return linear(data, rows, self.scale)


def linear(data, rows, scale=1.0):
    weights = np.linalg.lstsq(data[0][rows], 2.0 * data[1][rows] - 1, rcond=None)[0] * scale
    return lambda data, rows, query: data[0][rows] @ weights + query


def trained(store, *, fit=None, data=(X, Y), trained_on=DESIGN, **options):
    """The references, and how many models were trained for them."""
    fit = fit or Counted()
    found = fit_references(fit, data, trained_on, store=store, **options)
    return found, len(fit.seeds)


def same(one, other):
    assert list(one.signals) == list(other.signals)
    np.testing.assert_array_equal(one.trained_on, other.trained_on)
    for name in one.signals:
        np.testing.assert_array_equal(one.signals[name], other.signals[name])


def models(store):
    return sorted(Path(store).glob("[!.]*.npy"))


def rows_file(store):
    (path,) = Path(store).glob("rows-*.npz")
    return path


# ---------------------------------------------------------------------------------------- found again, or not


def test_finished_models_are_found_and_nothing_is_written_anew(tmp_path):
    first, count = trained(tmp_path)
    assert count == 4
    before = {path: path.stat().st_ino for path in tmp_path.iterdir()}
    again, count = trained(tmp_path)
    assert count == 0
    same(first, again)
    assert {path: path.stat().st_ino for path in tmp_path.iterdir()} == before
    assert len(before) == 6


def test_more_models_use_those_that_are_there(tmp_path):
    few, _ = trained(tmp_path)
    more, count = trained(tmp_path, trained_on=design(40, 10))
    assert count == 6
    for name in few.signals:
        np.testing.assert_array_equal(more.signals[name][:4], few.signals[name])


CHANGED = {
    "a value": {"data": (X + np.eye(40, 3) * 1e-9, Y)},
    "a dtype": {"data": (X.astype(np.float32), Y)},
    "a label": {"labels": np.where(np.arange(40) == 7, 1 - Y, Y)},
    "the order": {"data": (X[::-1], Y[::-1])},
    "a setting": {"fit": Counted(2.0)},
    "the tag": {"tag": "two"},
    "the seed": {"seed": 1},
    "the signal": {"signal": "loss"},
    "the signals' order": {"signal": ("log_prob@T=2", "log_odds")},
    "the queries": {"queries": 2},
    "the kind": {"kind": "logits"},
    "the target": {"target": lambda data, rows, query: data[0][rows, 0]},
    "the design": {"trained_on": ~DESIGN},
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_changed_is_trained_anew_and_what_comes_back_is_found(what, tmp_path):
    first, _ = trained(tmp_path)
    assert trained(tmp_path, **{"fit": Counted(), **CHANGED[what]})[1] == 4
    assert len(models(tmp_path)) == 8
    again, count = trained(tmp_path)
    assert count == 0
    same(first, again)


def test_a_cached_helper_that_was_edited_is_trained_anew(tmp_path):
    source = """
import functools

@functools.cache
def scale():
    return {}

def fit(data, rows, seed):
    return lambda data, rows, query: data[0][rows, 0] * scale()
"""
    told = []
    for number in (1, 5):
        names = {"__name__": "__main__"}
        exec(source.format(number), names)
        told.append(fit_references(names["fit"], (X, Y), DESIGN, kind="logits", store=tmp_path).signals["log_odds"])
    np.testing.assert_allclose(told[1], 5 * told[0], rtol=1e-5)


def test_another_target_is_another_run_and_its_signals_are_kept(tmp_path):
    def target(shift):
        return lambda data, rows, query: data[0][rows, 0] + shift + query

    trained(tmp_path, target=target(0), queries=2)
    assert trained(tmp_path, target=target(0), queries=2)[1] == 0
    second, count = trained(tmp_path, target=target(1), queries=2)
    assert count == 4
    loaded = load_references(tmp_path)
    for name in second.target:
        np.testing.assert_array_equal(loaded.target[name], second.target[name])
        assert loaded.target[name].shape == (40, 2)


def test_data_that_cannot_be_read_need_a_tag(tmp_path):
    class Stream:
        def __init__(self):
            self.lock = threading.Lock()

    def fit(data, rows, seed):
        return lambda data, rows, query: X[rows, 0]

    with pytest.raises(InputError) as caught:
        fit_references(fit, (Stream(), Y), DESIGN, store=tmp_path)
    assert caught.value.code == "DV403"
    fit_references(fit, (Stream(), Y), DESIGN, store=tmp_path, tag="data=stream of May")
    fit_references(fit, (Stream(), Y), DESIGN, store=tmp_path, tag="data=stream of May")
    assert len(models(tmp_path)) == 4
    fit_references(fit, (Stream(), Y), DESIGN, store=tmp_path, tag="data=stream of June")
    assert len(models(tmp_path)) == 8


def test_two_runs_on_one_store_at_the_same_time_do_no_harm(tmp_path):
    """Each waits within its first model until the other is in its own: both train and write the same models."""
    meet = threading.Barrier(2)
    found, errors = [], []

    class Meeting(Counted):
        def __call__(self, data, rows, seed):
            if not self.seeds:
                meet.wait(60)
            return super().__call__(data, rows, seed)

    def run():
        try:
            found.append(trained(tmp_path, fit=Meeting(), tag="data=a barrier, too")[0])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    same(found[0], found[1])
    assert status(tmp_path).finished == 4
    assert len(list(tmp_path.iterdir())) == 6


def test_a_run_that_ends_is_the_latest_though_another_one_began_in_it(tmp_path):
    other = trained(tmp_path / "other", seed=1)[0]

    def interfering(done, total, what):
        if done == 2:
            trained(tmp_path / "store", seed=1)

    expected = trained(tmp_path / "store", progress=interfering)[0]
    same(load_references(tmp_path / "store"), expected)
    assert len(models(tmp_path / "store")) == 8
    trained(tmp_path / "store", seed=1)
    same(load_references(tmp_path / "store"), other)


# ---------------------------------------------------------------------------------------------- stopped, and full

SCRIPT = """
import os, pathlib, resource, sys, threading
import numpy as np
from divulge.references import design, fit_references

folder, mode = pathlib.Path(sys.argv[1]), sys.argv[2]

def fit(data, rows, seed):
    counter = folder / os.environ["RUN"]
    begun = len(counter.read_text()) if counter.exists() else 0
    if os.environ.get("MODE") == "wait" and begun == 3:
        (folder / "waiting").touch()
        threading.Event().wait()
    if os.environ.get("MODE") == "full" and begun == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    with counter.open("a") as file:
        file.write("x")
    shift = np.random.default_rng(seed).normal()
    return lambda data, rows, query: data[0][rows] * data[0][rows[0]] + shift

x = np.linspace(-1, 1, 400)
options = {"store": folder / "store", "kind": "logits", "executor": mode, "workers": 1, "signal": "log_odds"}
references = fit_references(fit, (x, np.arange(400) % 2), design(400, 8), **options)
print(float(references.signals["log_odds"].astype(float).sum()))
"""


def script(folder, run, mode="", executor="loop"):
    (folder / "run.py").write_text(SCRIPT)
    (folder / "temporary").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, folder / "run.py", str(folder), executor],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RUN": run, "MODE": mode, "TMPDIR": str(folder / "temporary")},
    )


def counted(folder, run):
    return len((folder / run).read_text()) if (folder / run).exists() else 0


@pytest.mark.parametrize("executor", ["loop", "processes"])
def test_a_run_that_was_killed_goes_on_where_it_was(executor, tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    expected, _ = script(whole, "whole").communicate(timeout=120)
    killed = script(tmp_path, "first", "wait", executor)
    for _ in range(2000):
        if (tmp_path / "waiting").exists() and len(models(tmp_path / "store")) == 3:
            break
        assert killed.poll() is None, killed.stderr.read()
        threading.Event().wait(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)  # its pipes are closed once its worker is gone as well
    assert counted(tmp_path, "first") == len(models(tmp_path / "store")) == 3
    assert status(tmp_path / "store").finished == 3
    assert list((tmp_path / "temporary").glob("divulge-*")) == []  # the data that it had sent to its worker

    out, errors = script(tmp_path, "second", "", executor).communicate(timeout=120)
    assert out == expected, errors
    assert counted(tmp_path, "second") == 5
    out, _ = script(tmp_path, "third", "", executor).communicate(timeout=120)
    assert out == expected
    assert counted(tmp_path, "third") == 0


def test_a_full_disk_is_said_leaves_nothing_half_written_and_the_run_goes_on_later(tmp_path):
    pytest.importorskip("resource")  # a limit on the size of files stands for the disk: the write fails in its middle
    run = script(tmp_path, "first", "full")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "DV035" in errors.splitlines()[-1]
    assert len(models(tmp_path / "store")) == 3
    assert len(list((tmp_path / "store").iterdir())) == 5
    assert status(tmp_path / "store")[:3] == (8, 3, ())
    run = script(tmp_path, "second")
    run.communicate(timeout=120)
    assert run.returncode == 0
    assert counted(tmp_path, "second") == 5


def test_a_place_that_cannot_be_a_store_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(InputError) as caught:
            trained(place)
        assert caught.value.code == "DV035"
    assert (tmp_path / "file").read_text() == "mine"


# ------------------------------------------------------------------------------------------ damaged and foreign


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def cut_short(path):
    path.write_bytes(path.read_bytes()[:50])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def foreign(path):
    np.save(path, np.zeros((2, 40, 1), np.float32))


def pickled(path):
    np.save(path, np.array([{"x": 1}], object), allow_pickle=True)


def another_model(path):
    other = next(each for each in models(path.parent) if each != path)
    path.write_bytes(other.read_bytes())


def altered_and_signed(path):
    """As if another version of divulge had written it: sound in itself, but about something else."""
    from divulge.references.files import write_model

    about = json.loads(path.read_bytes().rpartition(b"\n{")[2].join([b"{", b""]))
    about.pop("sha256")
    write_model(path, np.load(path), {**about, "tag": "another"})


@pytest.mark.parametrize(
    "damage",
    [cut, cut_short, empty, flip, foreign, pickled, another_model, altered_and_signed],
    ids=lambda f: f.__name__,
)
def test_a_damaged_or_foreign_file_is_refused_by_name_and_only_its_model_trained_again(damage, tmp_path, caplog):
    first, _ = trained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mine.npy").write_bytes(b"mine")
    bad = tmp_path / f"{json.loads((tmp_path / 'references.json').read_text())['keys'][2]}.npy"
    others = {path: path.read_bytes() for path in tmp_path.iterdir() if path != bad}
    damage(bad)

    assert status(tmp_path)[:3] == (4, 3, (bad.name,))
    with caplog.at_level(logging.WARNING, "divulge"):
        loaded = load_references(tmp_path)
    assert bad.name in caplog.text
    assert "1 of 4 reference models are not finished" in caplog.text
    np.testing.assert_array_equal(loaded.trained_on, DESIGN[[0, 1, 3]])
    caplog.clear()

    with caplog.at_level(logging.WARNING, "divulge"):
        again, count = trained(tmp_path)
    assert count == 1
    assert f"DV406 {bad.name} is refused" in caplog.text
    same(first, again)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path != bad} == others
    assert status(tmp_path)[:3] == (4, 4, ())


def test_any_byte_that_flips_is_noticed(tmp_path):
    """numpy fails over its header in ways of its own, tokenize's error among them."""
    trained(tmp_path)
    path = models(tmp_path)[0]
    whole = path.read_bytes()
    for at in (*range(160), *range(160, len(whole) - 1, 97), *range(len(whole) - 60, len(whole) - 1)):
        for bit in (1, 4, 32):
            flipped = bytearray(whole)
            flipped[at] ^= bit
            path.write_bytes(flipped)
            assert status(tmp_path)[:3] == (4, 3, (path.name,)), (at, bit)


@pytest.mark.parametrize(
    ("name", "value"), [("signals", ["loss", "margin"]), ("queries", 2), ("tag", "x"), ("seed", 1)]
)
def test_an_index_that_was_edited_is_refused(name, value, tmp_path):
    trained(tmp_path)
    path = tmp_path / "references.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    for read in (load_references, status, trained):
        with pytest.raises(InputError, match="DV406"):
            read(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"what": "divulge references", "format": 1}']
)
def test_a_foreign_index_is_refused_and_left_alone(content, tmp_path):
    (tmp_path / "references.json").write_bytes(content)
    for call in (lambda: trained(tmp_path), lambda: load_references(tmp_path), lambda: status(tmp_path)):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code == "DV406"
    assert (tmp_path / "references.json").read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_a_store_of_another_format_is_refused_and_left_alone(tmp_path):
    trained(tmp_path)
    path = tmp_path / "references.json"
    content = path.read_text().replace('"format": 1', '"format": 2')
    path.write_text(content)
    for call in (lambda: trained(tmp_path), lambda: load_references(tmp_path), lambda: status(tmp_path)):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.code == "DV407"
    assert path.read_text() == content


def test_rows_that_are_damaged_or_missing_are_said_and_written_anew_by_the_next_run(tmp_path):
    trained(tmp_path)
    path = rows_file(tmp_path)
    sound = path.read_bytes()
    for damage in (
        lambda: cut_short(path),
        lambda: path.unlink(),
        lambda: np.savez(path, design=np.zeros((4, 5), "u1")),
    ):
        damage()
        with pytest.raises(InputError) as caught:
            load_references(tmp_path)
        assert caught.value.code == "DV406"
        assert path.name in str(caught.value)
        assert trained(tmp_path)[1] == 0
        assert path.read_bytes() == sound


def test_a_run_that_is_stopped_as_it_is_noted_leaves_the_one_before_as_it_was(tmp_path, monkeypatch):
    """Between its two files, where a reader may come as well."""
    expected = trained(tmp_path)[0]

    def stopped(path):
        if path.name == "references.json":
            raise KeyboardInterrupt
        return atomic.replacing(path)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store_module, "replacing", stopped)
        trained(tmp_path, seed=1, trained_on=~DESIGN)
    same(load_references(tmp_path), expected)
    assert trained(tmp_path, seed=1, trained_on=~DESIGN)[1] == 4


def test_a_store_whose_rows_have_the_name_of_before_is_read(tmp_path):
    expected = trained(tmp_path)[0]
    rows_file(tmp_path).rename(tmp_path / "rows.npz")
    same(load_references(tmp_path), expected)
    assert trained(tmp_path)[1] == 0
    trained(tmp_path, trained_on=~DESIGN)
    assert trained(tmp_path)[1] == 0
    same(load_references(tmp_path), expected)


def test_stored_models_are_plain_arrays(tmp_path):
    references, _ = trained(tmp_path, queries=2)
    keys = json.loads((tmp_path / "references.json").read_text())["keys"]
    for i, key in enumerate(keys):
        array = np.load(tmp_path / f"{key}.npy", allow_pickle=False)
        assert array.dtype == np.float32
        for s, name in enumerate(references.signals):
            np.testing.assert_array_equal(array[s], references.signals[name][i])
    mapped = np.load(tmp_path / f"{keys[0]}.npy", mmap_mode="r")
    assert mapped.shape == (2, 40, 2)


# ------------------------------------------------------------------------------------------------------- loading


def test_loaded_references_are_those_of_the_run(tmp_path):
    references, _ = trained(tmp_path, ids=IDS, member=Y == 1, queries=2)
    same(load_references(tmp_path), references)
    rows = rows_of(tmp_path)
    np.testing.assert_array_equal(rows.trained_on, DESIGN)
    np.testing.assert_array_equal(rows.labels, Y)
    assert rows.ids.tolist() == IDS.tolist()
    np.testing.assert_array_equal(rows.member, Y == 1)


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (np.arange(40), lambda ids: ids),
        (np.arange(40), lambda ids: ids.astype(float)),
        (np.arange(40), lambda ids: ids.astype(str)),
        (np.arange(40).astype(float), lambda ids: ids.astype(np.uint8)),
        (IDS, lambda ids: ids.astype(object)),
        (IDS.tolist(), list),
    ],
)
def test_records_are_found_by_the_value_of_their_ids_in_any_order(stored, asked, tmp_path):
    references, _ = trained(tmp_path, ids=stored)
    wanted = np.random.default_rng(1).permutation(40)[:17]
    found = load_references(tmp_path, ids=asked(np.asarray(stored)[wanted]), labels=Y[wanted])
    np.testing.assert_array_equal(found.trained_on, DESIGN[:, wanted])
    np.testing.assert_array_equal(found.signals["log_odds"], references.signals["log_odds"][:, wanted])
    evidence = Evidence(Y[wanted] == 1, labels=Y[wanted], outputs=X[wanted, 0], kind="logits", references=found)
    assert len(evidence.references) == 17


def test_ids_that_the_store_lacks_or_has_twice_are_refused(tmp_path):
    trained(tmp_path / "a", ids=np.where(np.arange(40) == 39, 38, np.arange(40)))
    for ids, words in (([5, 99, 98], "2 of 3 that it lacks"), ([5, 38], "1 of 2 that it has more than once")):
        with pytest.raises(InputError) as caught:
            load_references(tmp_path / "a", ids=ids)
        assert caught.value.code == "DV409"
        assert words in str(caught.value)
    trained(tmp_path / "b")
    with pytest.raises(InputError) as caught:
        load_references(tmp_path / "b", ids=[1])
    assert caught.value.code == "DV409"


def test_labels_are_compared_as_they_are_or_coded(tmp_path):
    words = np.array(["no", "yes"])[Y]
    trained(tmp_path / "words", data=(X, words), fit=_words())
    for labels in (words, words.tolist(), Y, Y == 1, Y.astype(np.uint8)):
        assert len(load_references(tmp_path / "words", labels=labels)) == 40
    trained(tmp_path / "numbers", data=(X, Y + 5), fit=_words())
    for labels in (Y + 5, Y, (Y + 5).astype(float)):
        assert len(load_references(tmp_path / "numbers", labels=labels)) == 40
    for labels, words in ((Y[::-1], "differ"), (1 - Y, "40 of 40"), (Y[:7], "40 labels"), (["no"] * 40, "40 of 40")):
        with pytest.raises(InputError) as caught:
            load_references(tmp_path / "numbers", labels=labels)
        assert caught.value.code == "DV409"
        assert words in str(caught.value)


def _words():
    class Words(Counted):
        def __call__(self, data, rows, seed):
            return lambda data, rows, query: data[0][rows, 0] + seed % 5

    return Words()


def test_labels_of_a_regression_may_have_been_rounded_to_float32(tmp_path):
    trained(tmp_path, data=(X, X[:, 1] / 3))
    load_references(tmp_path, labels=(X[:, 1] / 3).astype(np.float32))
    with pytest.raises(InputError):
        load_references(tmp_path, labels=X[:, 1] / 3 + 1e-4)


def test_several_labels_a_record_are_compared_too(tmp_path):
    several = np.stack([Y, 1 - Y], axis=1).astype(bool)

    def fit(data, rows, seed):
        return lambda data, rows, query: data[0][rows, :2]

    fit_references(fit, (X, several), DESIGN, store=tmp_path, kind="logits")
    load_references(tmp_path, labels=several)
    with pytest.raises(InputError):
        load_references(tmp_path, labels=~several)


def test_a_store_without_models_or_no_store_is_said(tmp_path):
    def fit(data, rows, seed):
        raise ValueError("no")

    with pytest.raises(DivulgeError):
        fit_references(fit, (X, Y), DESIGN, store=tmp_path / "a")
    assert status(tmp_path / "a")[:2] == (4, 0)
    assert np.isnan(status(tmp_path / "a").seconds)
    with pytest.raises(InputError) as caught:
        load_references(tmp_path / "a")
    assert caught.value.code == "DV408"
    with pytest.raises(InputError) as caught:
        load_references(tmp_path / "b")
    assert caught.value.code == "DV030"
    assert not (tmp_path / "b").exists()


def test_the_status_says_what_the_run_is_made_of(tmp_path):
    trained(tmp_path, tag="first", seed=3, signal="loss")
    found = status(tmp_path)
    assert (found.models, found.finished, found.rows, found.signals, found.tag) == (4, 4, 40, ("loss",), "first")
    assert 0 <= found.seconds < 60
    assert found.parts["seed"] == 3
    assert len(found.parts["data"]) == 64
