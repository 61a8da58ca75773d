"""Reference models come out the same wherever and whenever they are trained, and errors name the model."""

import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from divulge import DivulgeError, InputError
from divulge.evidence import Evidence
from divulge.model_outputs import SIGNALS
from divulge.references import design, fit_references, workers
from divulge.references.executors import _stops_held, in_processes
from divulge.references.gathering import gather
from divulge.references.jobs import Failure, Job, job_seed
from divulge.references.pinning import pinned
from divulge.references.training import ASKED
from divulge.signals import signal as signal_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = (X[:, 0] + 0.5 * RNG.normal(size=60) > 0).astype(int)
DESIGN = design(60, 4)


def forest(data, rows, seed):
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(5, random_state=seed).fit(data[0][rows], data[1][rows])
    return lambda data, rows, query: model.predict_proba(data[0][rows])


def network(data, rows, seed):
    import warnings

    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged; filters are one a process, so a thread may lift another's
        model = MLPClassifier((8,), max_iter=5, random_state=seed).fit(data[0][rows], data[1][rows])
    return lambda data, rows, query: model.predict_proba(data[0][rows])


def torch_module(data, rows, seed):
    """A user's own loop, which takes all that is random from torch's global generator and forgets the seed."""
    import torch

    x, y = torch.from_numpy(data[0][rows]), torch.from_numpy(data[1][rows])
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    module.eval()
    return lambda data, rows, query: module(torch.from_numpy(data[0][rows]))


def careless(data, rows, seed):
    """Draws from the global generators of numpy and random."""
    weights = np.random.normal(size=4) + random.random()
    return lambda data, rows, query: data[0][rows] @ weights + len(rows)


def dawdling(data, rows, seed):
    """As `careless`, and slow enough for others to draw in the meantime."""
    first = np.random.normal()
    threading.Event().wait(0.05)
    weights = np.random.normal(size=4) + first
    return lambda data, rows, query: data[0][rows] @ weights


def linear(data, rows, seed):
    """Least squares: the same in any order of the rows but for rounding, and different for other rows."""
    x = data[0][rows].astype(float)
    weights = np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ (2.0 * data[1][rows] - 1))
    return lambda data, rows, query: 3 * data[0][rows].astype(float) @ weights + query


class Ridge:
    """Trains many at once: `linear`, with the sums of all models' rows as one product."""

    def __init__(self, at_once=3):
        self.at_once = at_once
        self.calls = []

    def __call__(self, data, rows, seed):
        return self.fit_many(data, [rows], [seed])[0]

    def fit_many(self, data, rows, seeds):
        self.calls.append(len(rows))
        x, y = data[0].astype(float), 2.0 * data[1] - 1
        masks = np.stack([np.bincount(each, minlength=len(x)) for each in rows])
        grams = np.einsum("rn,nd,ne->rde", masks, x, x) + 0.1 * np.eye(x.shape[1])
        weights = np.linalg.solve(grams, np.einsum("rn,nd,n->rd", masks, x, y)[..., None])[..., 0]
        return [lambda data, rows, query, w=w: 3 * data[0][rows].astype(float) @ w + query for w in weights]


def trained(fit, **options):
    return fit_references(fit, (X, Y), DESIGN, **{"signal": "log_odds", **options}).signals["log_odds"]


# ------------------------------------------------------------------------------------- what comes out, by hand


def test_signals_are_those_of_a_loop_by_hand():
    references = fit_references(linear, (X, Y), DESIGN, queries=2, seed=5)
    assert list(references.signals) == list(SIGNALS)
    assert references.source == "trained"
    assert references.target is None
    np.testing.assert_array_equal(references.trained_on, DESIGN)
    for name in SIGNALS:
        assert references.signals[name].shape == (4, 60, 2)
        assert references.signals[name].dtype == np.float32
        for i in range(4):
            predict = linear((X, Y), np.flatnonzero(DESIGN[i]), 0)
            for query in range(2):
                outputs = predict((X, Y), np.arange(60), query)
                evidence = Evidence(np.zeros(60, bool), outputs=outputs, labels=Y, kind="logits")
                expected = signal_of(evidence, name)
                np.testing.assert_allclose(references.signals[name][i, :, query], expected, rtol=1e-6, atol=1e-6)


def test_rows_are_sorted_and_seeds_depend_on_the_model_and_the_seed_alone():
    seen = []

    def fit(data, rows, seed):
        seen.append((rows, seed))
        return linear(data, rows, seed)

    fit_references(fit, (X, Y), DESIGN, seed=9)
    assert [seed for _, seed in seen] == [job_seed(9, i) for i in range(4)]
    assert len({job_seed(seed, i) for seed in range(5) for i in range(50)}) == 250
    assert all(0 <= job_seed(3, i) < 2**31 for i in range(100))
    for (rows, _), row in zip(seen, DESIGN, strict=True):
        assert rows.dtype == np.int64
        np.testing.assert_array_equal(rows, np.flatnonzero(row))


def test_permuting_the_rows_permutes_the_result():
    order = np.random.default_rng(1).permutation(60)
    moved = fit_references(linear, (X[order], Y[order]), DESIGN[:, order], signal="log_odds").signals["log_odds"]
    np.testing.assert_allclose(moved, trained(linear)[:, order], rtol=1e-5)


def test_a_model_is_asked_for_few_rows_at_once_and_all_of_them():
    count = 2 * ASKED + 3
    sizes = []

    def fit(data, rows, seed):
        def predict(data, rows, query):
            sizes.append(len(rows))
            return data[0][rows]

        return predict

    # Labels of the third class stand in the last block alone, outputs of the first block look like probabilities.
    outputs = np.zeros((count, 3))
    outputs[:ASKED] = 1 / 3
    outputs[ASKED:, 1] = 5.0
    labels = np.array(["a", "b"] * (count // 2) + ["c"])
    references = fit_references(fit, (outputs, labels), design(count, 2), queries=2, signal=["log_odds"])
    assert sizes == [ASKED, ASKED, 3] * 4
    evidence = Evidence(
        np.zeros(count, bool), outputs=outputs, labels=np.unique(labels, return_inverse=True)[1], kind="logits"
    )
    for i in range(2):
        for query in range(2):
            np.testing.assert_allclose(
                references.signals["log_odds"][i, :, query], signal_of(evidence, "log_odds"), rtol=1e-6, atol=1e-6
            )


def test_a_regression_has_the_loss_and_the_target_stands_beside_it():
    y = X[:, 0] * 2.0 + 0.1

    def fit(data, rows, seed):
        mean = data[1][rows].mean()
        return lambda data, rows, query: np.full((len(rows), 1), mean + query)

    references = fit_references(
        fit, (X, y), DESIGN, queries=2, target=lambda data, rows, query: data[1][rows] + 0.5 + query
    )
    assert list(references.signals) == ["loss"]
    expected = -abs(y - y[DESIGN[2]].mean() - 1)
    np.testing.assert_allclose(references.signals["loss"][2, :, 1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(references.target["loss"], np.tile([-0.5, -1.5], (60, 1)), rtol=1e-5)


def faint(data, rows, seed):
    """Logits, which of models of less than half of the rows all lie in 0..1."""
    return lambda data, rows_, query: (0.5 + 0.4 * np.tanh(data[0][rows_, 0])) - (0.9 if len(rows) > 30 else 0)


UNEVEN = np.stack([np.arange(60) < count for count in (35, 35, 35, 20)])


@pytest.mark.parametrize("executor", ["loop", "processes"])
def test_models_that_look_like_probabilities_among_others_of_logits_are_refused(executor, tmp_path):
    def ask(**options):
        return fit_references(faint, (X, Y), UNEVEN, executor=executor, **options)

    with pytest.raises(InputError, match=r"DV056 .*look like (probs|logits).*kind='logits'"):
        ask()
    assert ask(kind="logits").signals["log_odds"].shape == (4, 60, 1)
    with pytest.raises(InputError, match=r"DV056 .*the target"):
        fit_references(faint, (X, Y), UNEVEN[:2], target=lambda data, rows, query: data[1][rows] * 0.5)
    for _ in range(2):  # those that a store kept are still of their kind
        with pytest.raises(InputError, match="DV056"):
            ask(store=tmp_path)


def test_labels_may_stand_apart_from_the_data():
    def fit(data, rows, seed):
        predict = linear((data["x"], data["y"]), rows, seed)
        return lambda data, rows, query: predict((data["x"], data["y"]), rows, query)

    apart = fit_references(fit, {"x": X, "y": Y}, DESIGN, labels=Y.tolist(), signal="log_odds")
    np.testing.assert_array_equal(apart.signals["log_odds"], trained(linear))


# ------------------------------------------------------------------------------------------------ everywhere alike


@pytest.fixture(scope="module")
def loop():
    pytest.importorskip("torch")  # imported first, so that its module is trained once
    return {fit: trained(fit) for fit in (forest, network, torch_module, careless)}


def test_a_loop_gives_the_same_again_and_every_model_is_another(loop):
    for fit, expected in loop.items():
        np.testing.assert_array_equal(trained(fit, executor="loop"), expected)
        assert len(np.unique(expected.reshape(4, -1), axis=0)) == 4
        assert (trained(fit, seed=1) != expected).any()


def test_a_part_of_the_models_is_the_same_as_in_the_whole(loop):
    for fit, expected in loop.items():
        part = fit_references(fit, (X, Y), DESIGN[:2], signal="log_odds").signals["log_odds"]
        np.testing.assert_array_equal(part, expected[:2])


def test_processes_give_the_bits_of_the_loop(loop):
    """Functions of a test module, which workers cannot import, and a closure over them; one pool for all four."""
    fits = list(loop)

    def all_four(data, rows, seed):
        predicts = []
        for fit in fits:
            with pinned(seed):
                predicts.append(fit(data, rows, seed))
        return lambda data, rows, query: columns(predicts[query](data, rows, 0))

    options = {"queries": 4, "kind": "logits"}
    here = trained(all_four, **options)
    there = trained(all_four, executor="processes", workers=2, **options)
    np.testing.assert_array_equal(there, here)
    assert all(len(np.unique(here[..., query])) > 4 for query in range(4))


def columns(outputs):
    """Two columns of any fit's outputs."""
    outputs = outputs.detach().numpy() if hasattr(outputs, "detach") else outputs
    return outputs if outputs.ndim == 2 else np.stack([-outputs, outputs], axis=1)


def test_threads_give_the_bits_of_the_loop(loop):
    with ThreadPoolExecutor(2) as pool:
        for fit in (forest, network):
            np.testing.assert_array_equal(trained(fit, executor=pool), loop[fit])
    with ThreadPoolExecutor(1) as pool:  # alone in its process, even a careless fit is seeded
        for fit in (torch_module, careless):
            np.testing.assert_array_equal(trained(fit, executor=pool), loop[fit])


def test_executors_of_processes_give_the_bits_of_the_loop(loop):
    from joblib.externals.loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=1)
    try:
        for fit in (network, torch_module):
            np.testing.assert_array_equal(trained(fit, executor=pool), loop[fit])
    finally:
        pool.shutdown(kill_workers=True)


def test_a_dask_cluster_gives_the_bits_of_the_loop(loop, require):
    distributed = require("distributed")
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        for fit in (forest, torch_module, careless):
            np.testing.assert_array_equal(trained(fit, executor=client), loop[fit])
        with pytest.raises(DivulgeError) as caught:
            trained(lambda data, rows, seed: 1 / 0, executor=client)
        assert caught.value.code == "DV402"


def test_threads_of_one_worker_take_turns(loop):
    """As Dask's may: they share the generators that a careless fit draws from."""

    class Threaded:
        def __init__(self, pool):
            self.submit = pool.submit

    expected = trained(dawdling)
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_array_equal(trained(dawdling, executor=Threaded(pool)), expected)


def test_where_a_parents_end_cannot_be_seen_no_worker_waits_for_it(monkeypatch):
    started = []
    monkeypatch.setattr(workers.signal, "signal", lambda *given: None)
    monkeypatch.setattr(workers.threading, "Thread", lambda **given: started.append(given) or threading.Thread())
    monkeypatch.setattr(workers.sys, "platform", "win32")
    workers.begin_worker(os.getppid(), "")
    assert not started


class Elsewhere:
    """An executor with the least an executor has; its worker shares no disk with this machine."""

    def submit(self, function, *arguments):
        token, source, job = arguments
        future = Plain(function(token, "/no/such/file" if isinstance(source, str) else source, job))
        return future


class Plain:
    def __init__(self, value):
        self.value = value

    def result(self):
        return self.value

    def cancel(self):
        return False


def test_any_object_with_submit_will_do_even_on_another_machine(loop):
    np.testing.assert_array_equal(trained(network, executor=Elsewhere()), loop[network])


def test_many_at_once_are_those_of_one_by_one():
    fit = Ridge(at_once=3)
    together = trained(fit, executor="vmapped")
    assert fit.calls == [3, 1]
    np.testing.assert_allclose(together, trained(linear), rtol=1e-5)
    with pytest.raises(InputError) as caught:
        trained(linear, executor="vmapped")
    assert caught.value.code == "DV405"


def test_a_batch_that_fails_names_its_models_and_an_error_of_the_callers_own_stays_as_it_is():
    fit = Ridge(at_once=3)
    with pytest.raises(DivulgeError) as caught:
        fit_references(
            fit, (X[:, :0], Y), DESIGN, executor="vmapped", signal="log_odds", kind="probs", labels=Y[:, None]
        )
    assert caught.value.code == "DV402"
    assert "models 0 to 2" in str(caught.value)

    def progress(done, total, what):
        raise KeyError(what)

    with pytest.raises(KeyError):
        trained(fit, executor="vmapped", progress=progress)


def test_the_fastest_executor_is_found_by_a_trial_and_said(caplog):
    with caplog.at_level(logging.INFO, "divulge"):
        found = trained(Ridge(), executor="auto", workers=2)
    np.testing.assert_allclose(found, trained(linear), rtol=1e-5)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith(("loop", "processes", "vmapped")) for line in lines[:-1]), lines


def test_an_estimator_is_a_fit():
    from sklearn.naive_bayes import GaussianNB

    found = trained(GaussianNB())
    rows = np.flatnonzero(DESIGN[1])
    expected = GaussianNB().fit(X[rows], Y[rows]).predict_joint_log_proba(X)
    expected = np.where(Y == 1, 1, -1) * (expected[:, 1] - expected[:, 0])
    np.testing.assert_allclose(found[1, :, 0], expected, rtol=1e-3, atol=1e-3)
    for wrong in ("GaussianNB", GaussianNB):
        with pytest.raises(InputError) as caught:
            trained(wrong)
        assert caught.value.code == "DV411"


# --------------------------------------------------------------------------------------- pinned, seeded, put back


def test_one_thread_while_a_model_is_trained_and_as_before_after_it(require):
    torch = require("torch")
    threads = []

    def fit(data, rows, seed):
        threads.append({*(info["num_threads"] for info in threadpool_info()), torch.get_num_threads()})
        return linear(data, rows, seed)

    torch.set_num_threads(2)
    try:
        trained(fit)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert threads == [{1}] * 4


def test_the_callers_generators_go_on_where_they_were(require):
    torch = require("torch")

    def draw():
        return np.random.random(), random.random(), float(torch.rand(()))

    np.random.seed(3)
    random.seed(3)
    torch.manual_seed(3)
    expected = [draw(), draw()]
    np.random.seed(3)
    random.seed(3)
    torch.manual_seed(3)
    first = draw()
    trained(careless)
    assert [first, draw()] == expected


def test_jobs_that_share_a_process_do_not_lift_each_others_limits():
    inside, leave = threading.Event(), threading.Event()
    before = {info["filepath"]: info["num_threads"] for info in threadpool_info()}

    def longer():
        with pinned(0):
            inside.set()
            leave.wait(30)

    other = threading.Thread(target=longer)
    other.start()
    assert inside.wait(30)
    with pinned(1):
        pass
    assert {info["num_threads"] for info in threadpool_info() if info["user_api"] == "blas"} == {1}
    leave.set()
    other.join()
    assert {info["filepath"]: info["num_threads"] for info in threadpool_info()} == before


def test_a_fit_that_imports_torch_itself_is_seeded_all_the_same(require):
    """In a fresh process torch is imported in the middle of the first model."""
    require("torch")
    code = """
        import sys
        import numpy as np
        from divulge.references import design, fit_references
        x = np.linspace(-1, 1, 12)
        def fit(data, rows, seed):
            import torch
            shift = float(torch.rand(()))
            return lambda data, rows, query: data[0][rows] + shift
        options = {"signal": "log_odds", "kind": "logits"}
        first = fit_references(fit, (x, np.arange(12) % 2), design(12, 2), **options).signals["log_odds"]
        again = fit_references(fit, (x, np.arange(12) % 2), design(12, 2), **options).signals["log_odds"]
        print((first == again).all(), first[0, 0, 0] != first[1, 0, 0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["True", "True"], done.stderr


# ----------------------------------------------------------------------------------------------- what goes wrong


class Odd(Exception):
    """Cannot be unpickled: its arguments are not its constructor's."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


def third_fails(data, rows, seed):
    if seed == job_seed(0, 2):
        raise Odd(7, "out of luck")
    return linear(data, rows, seed)


@pytest.mark.parametrize("executor", ["loop", "threads", "processes"])
def test_an_error_names_the_model_and_its_seed_and_finished_models_are_kept(executor, tmp_path):
    store = tmp_path / "store"
    done = []

    def run(where):
        return trained(third_fails, executor=where, workers=1, store=store, progress=lambda *told: done.append(told))

    with pytest.raises(DivulgeError) as caught:
        if executor == "threads":
            with ThreadPoolExecutor(1) as pool:
                run(pool)
        else:
            run(executor)
    assert caught.value.code == "DV402"
    assert f"model 2 (seed {job_seed(0, 2)})" in str(caught.value)
    assert "Odd: 7: out of luck" in str(caught.value) or "Odd" in str(caught.value.__cause__)
    assert caught.value.__cause__ is not None
    if executor == "processes":
        assert "in third_fails" in "".join(caught.value.__notes__)
    assert len(list(store.glob("[!.]*.npy"))) == len(done) - 1 >= 2


@pytest.mark.parametrize(
    ("fit", "words"),
    [
        (lambda data, rows, seed: lambda data, rows, query: np.full(len(rows), np.nan), "NaN"),
        (lambda data, rows, seed: lambda data, rows, query: np.zeros(7), "60 rows"),
        (lambda data, rows, seed: lambda data, rows, query: np.zeros((len(rows), 3, 2)), "(60, 3, 2)"),
        (lambda data, rows, seed: np.zeros(60), "ndarray"),
        (lambda data, rows, seed: lambda data: 0, "TypeError"),
        (lambda data, rows, seed: sys.exit("done here"), "SystemExit: done here"),
        (lambda data, rows, seed: lambda data, rows, query: np.full((len(rows), 2), 50.0), "percentages"),
    ],
)
def test_what_a_fit_may_do_wrong_is_said(fit, words):
    with pytest.raises(DivulgeError) as caught:
        fit_references(fit, (X, Y), DESIGN)
    assert caught.value.code == "DV402"
    assert "model 0" in str(caught.value)
    assert words in str(caught.value)


def test_a_regression_with_whole_labels_is_told_how_to_say_so():
    ages = np.arange(60)
    with pytest.raises(DivulgeError, match="labels as floats, or kind='predictions'"):
        fit_references(careless, (X, ages), DESIGN)
    found = fit_references(careless, (X, ages), DESIGN, kind="predictions")
    assert list(found.signals) == list(fit_references(careless, (X, ages.astype(float)), DESIGN).signals) == ["loss"]


@pytest.mark.parametrize(
    ("code", "arguments", "options"),
    [
        ("DV401", ((X, Y), np.ones((4, 60))), {}),
        ("DV401", ((X, Y), np.ones(60, bool)), {}),
        ("DV401", ((X, Y), np.arange(4)[:, None] + np.zeros(60) > 0), {}),
        ("DV072", (X, DESIGN), {}),
        ("DV004", ((X, Y[:-1]), DESIGN), {}),
        ("DV056", ((X, Y), DESIGN), {"queries": 0}),
        ("DV056", ((X, Y), DESIGN), {"seed": -1}),
        ("DV056", ((X, Y), DESIGN), {"workers": 0}),
        ("DV056", ((X, Y), DESIGN), {"kind": "scores"}),
        ("DV056", ((X, Y), DESIGN), {"signal": ()}),
        ("DV056", ((X, Y), DESIGN), {"signal": ("loss", "loss")}),
        ("DV056", ((X, Y), DESIGN), {"tag": 3}),
        ("DV001", ((X, Y), DESIGN), {"executor": "proceses"}),
        ("DV001", ((X, Y), DESIGN), {"executor": 3}),
        ("DV004", ((X, Y), DESIGN), {"store": "s", "ids": [1, 2]}),
        ("DV003", ((X, Y), DESIGN), {"store": "s", "member": np.ones(60, int)}),
        ("DV405", (((X, threading.Lock()), DESIGN)), {"labels": Y, "executor": "processes"}),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_before_training(code, arguments, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fit(data, rows, seed):
        raise AssertionError

    with pytest.raises(InputError) as caught:
        fit_references(fit, *arguments, **options)
    assert caught.value.code == code
    assert "expected" in str(caught.value)


def killed_once(folder):
    """The second model's first process is killed, as the kernel does where memory is short."""

    def fit(data, rows, seed):
        if seed == job_seed(0, 1) and not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return linear(data, rows, seed)

    return fit


def test_a_worker_that_is_killed_is_replaced_and_nothing_changes(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "divulge"):
        survived = trained(killed_once(tmp_path), executor="processes", workers=2)
    assert (tmp_path / "killed").exists()
    assert "A worker was lost" in caplog.text
    np.testing.assert_array_equal(survived, trained(linear))


def test_workers_that_are_always_killed_are_given_up_and_the_others_models_are_kept(tmp_path):
    def fit(data, rows, seed):
        if seed == job_seed(0, 1):
            with (tmp_path / "deaths").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        return linear(data, rows, seed)

    with pytest.raises(InputError) as caught:
        trained(fit, executor="processes", workers=1, store=tmp_path / "store")
    assert caught.value.code == "DV404"
    assert "models 1 that never finished" in str(caught.value)
    assert len(list((tmp_path / "store").glob("[!.]*.npy"))) == 3
    assert len((tmp_path / "deaths").read_text()) == 5  # once with the others, then once and three times again


def waiting(job):
    """So long that a stop finds jobs that run, jobs that wait in the pipe, and jobs behind it."""
    return sum(range(2_000_000))


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_stop_of_processes_is_silent_and_leaves_none(times, monkeypatch, capfd):
    """loky's thread said KeyError over jobs that it had dropped itself, in most stops."""
    import multiprocessing

    said = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    jobs = [Job(i, i, b"") for i in range(40)]
    for _ in range(times):
        taken = []

        def take(job, result, taken=taken):
            taken.append(job.number)
            if len(taken) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            in_processes(waiting, jobs, 2, take)
        assert 2 <= len(taken) < 40
    assert not said
    assert not [process for process in multiprocessing.active_children() if "Loky" in process.name]
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="a mask of signals is POSIX's")
def test_a_stop_waits_until_workers_are_started_and_is_not_heard_by_them():
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    after = []
    with pytest.raises(KeyboardInterrupt), _stops_held():
        signal.raise_signal(signal.SIGINT)
        after.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
    assert after == ["True"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_broken_pool_of_the_callers_is_an_error_of_its_own(tmp_path):
    import multiprocessing

    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned) as pool, pytest.raises(InputError) as caught:
        trained(lambda data, rows, seed: os.kill(os.getpid(), signal.SIGKILL), executor=pool)
    assert caught.value.code == "DV404"
    assert "models 0, 1, 2, 3" in str(caught.value)


def test_ctrl_c_keeps_what_is_finished_and_goes_on(tmp_path):
    calls = []

    def fit(data, rows, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return linear(data, rows, seed)

    with pytest.raises(KeyboardInterrupt):
        trained(fit, store=tmp_path, tag="data=calls changes")
    assert len(list(tmp_path.glob("[!.]*.npy"))) == 2


def test_ctrl_c_takes_results_that_have_come_in_and_cancels_the_rest():
    futures = [Future() for _ in range(4)]
    taken = []

    def take(job, result):
        taken.append((job.number, result))
        if job.number == 0:
            futures[2].set_result("late")
            raise KeyboardInterrupt

    futures[0].set_result("first")
    jobs = [Job(i, 0, b"") for i in range(4)]
    with pytest.raises(KeyboardInterrupt):
        gather(lambda job: futures[job.number], jobs, take)
    assert taken == [(0, "first"), (2, "late")]
    assert futures[1].cancelled()
    assert futures[3].cancelled()


def test_after_an_error_models_under_way_are_waited_for_and_others_not_begun():
    futures = [Future() for _ in range(3)]
    taken = []
    futures[1].set_running_or_notify_cancel()

    def submit(job):
        if job.number == 2:
            futures[0].set_result(Failure(ValueError("bad"), ""))
            threading.Timer(0.05, futures[1].set_result, ["under way"]).start()
        return futures[job.number]

    with pytest.raises(DivulgeError) as caught:
        gather(submit, [Job(i, 0, b"") for i in range(3)], lambda job, result: taken.append(result))
    assert caught.value.code == "DV402"
    assert taken == ["under way"]
    assert futures[2].cancelled()


def test_ctrl_c_in_a_terminal_ends_the_processes_too(tmp_path):
    """SIGINT to the whole process group, as a terminal sends it, while models are being trained."""
    code = f"""
        import os, pathlib, threading
        import numpy as np
        from divulge.references import design, fit_references
        folder = pathlib.Path({str(tmp_path)!r})
        def fit(data, rows, seed):
            if len(list(folder.glob("begun-*"))) == 2:
                (folder / f"waits-{{os.getpid()}}").touch()
                threading.Event().wait()
            (folder / f"begun-{{seed}}").touch()
            return lambda data, rows, query: data[0][rows]
        x = np.linspace(-1, 1, 12)
        fit_references(fit, (x, np.arange(12) % 2), design(12, 6), executor="processes", workers=1,
                       store=folder / "store", kind="logits")
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until(lambda: len(list((tmp_path / "store").glob("[!.]*.npy"))) == 2, run)
        waiting = until(lambda: list(tmp_path.glob("waits-*")), run)
        os.killpg(run.pid, signal.SIGINT)
        errors = run.communicate(timeout=60)[1]
    finally:
        run.kill()
        run.wait()
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert len(list((tmp_path / "store").glob("[!.]*.npy"))) == 2
    for path in waiting:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name.partition("-")[2]), 0)


def until(condition, run, seconds=90):
    """What the condition gives, once that is true; an error where the process ends or the time is over."""
    for _ in range(seconds * 20):
        if found := condition():
            return found
        assert run.poll() is None, run.stderr.read() if run.stderr else "it ended"
        threading.Event().wait(0.05)
    raise AssertionError("it never came")


# ------------------------------------------------------------------------------------------------------- it tells


def test_progress_and_the_log_say_how_far_it_is(tmp_path, caplog):
    told = []
    fit_references(linear, (X, Y), DESIGN[:2], store=tmp_path)
    with caplog.at_level(logging.INFO, "divulge"):
        fit_references(linear, (X, Y), DESIGN, store=tmp_path, progress=lambda *what: told.append(what))
    assert told == [(2, 4, "found in the store"), (3, 4, "model 2"), (4, 4, "model 3")]
    assert "2 found in the store, 2 to train (loop)" in caplog.text
    assert all(isinstance(path, Path) for path in tmp_path.iterdir())
