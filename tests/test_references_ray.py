"""Reference models on a real Ray cluster of two nodes, one of which is killed while it trains."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from divulge import DivulgeError
from divulge.references import design, fit_references
from ray_cluster import two_nodes

# JAX, where other tests have loaded it, warns of the fork that starts Ray's processes; they go on to exec at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)
DESIGN = design(40, 6)


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as made:
        yield made


def fit(data, rows, seed):
    """Random by its own generator, and by the global one."""
    weights = np.linalg.lstsq(data[0][rows], 2.0 * data[1][rows] - 1, rcond=None)[0]
    shift = np.random.default_rng(seed).normal() + np.random.random()
    return lambda data, rows, query: data[0][rows] @ weights + shift


def test_a_cluster_gives_the_bits_of_the_loop_and_errors_name_the_model(cluster, tmp_path):
    expected = fit_references(fit, (X, Y), DESIGN)
    found = fit_references(fit, (X, Y), DESIGN, executor="ray", store=tmp_path)
    for name in expected.signals:
        np.testing.assert_array_equal(found.signals[name], expected.signals[name])
    assert len(list(tmp_path.glob("[!.]*.npy"))) == 6

    def failing(data, rows, seed):
        raise KeyError("age")

    with pytest.raises(DivulgeError) as caught:
        fit_references(failing, (X, Y), DESIGN, executor="ray")
    assert caught.value.code == "DV402"
    assert "KeyError: 'age'" in str(caught.value)
    import ray

    assert ray.is_initialized()  # it was there before: it stays


def test_a_cluster_at_an_address_gives_the_bits_of_the_loop_and_one_that_is_not_there_is_said(cluster):
    """From a process of its own, as from a laptop; ray:// reaches only those with Ray's client server."""
    code = """
        import sys
        import numpy as np
        import ray
        from divulge import InputError
        from divulge.references import design, fit_references

        x = np.random.default_rng(0).normal(size=(40, 3))
        def fit(data, rows, seed):
            weights = data[0][rows].mean(axis=0)
            return lambda data, rows, query: data[0][rows] @ weights + np.random.default_rng(seed).normal()

        arguments = fit, (x, np.arange(40) % 2), design(40, 4)
        here = fit_references(*arguments).signals["log_odds"]
        there = fit_references(*arguments, executor=f"ray://127.0.0.1:{sys.argv[1]}").signals["log_odds"]
        print((here == there).all(), ray.is_initialized())
        try:
            fit_references(*arguments, executor="ray://127.0.0.1:1")
        except InputError as error:
            print(error.code, ray.is_initialized())
    """
    for _ in range(3):  # Ray's client server takes a port from 23000 up, whoever else has it
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(cluster.client_port)],
            capture_output=True,
            text=True,
            timeout=150,
            env={
                **os.environ,
                "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "1",
                "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "1",
            },
        )
        if "Starting Ray client server failed" not in done.stderr:
            break
    assert done.stdout.split() == ["True", "False", "DV404", "False"], done.stderr


def test_a_node_that_dies_while_it_trains_changes_nothing(cluster, tmp_path):
    """The two nodes' first models wait until one node is dead; its model is trained again on the other."""

    def waiting(data, rows, seed):
        import os

        import ray

        node = ray.get_runtime_context().get_node_id()
        (tmp_path / f"{seed}-{node}-{os.getpid()}").touch()
        while not (tmp_path / "go on").exists():
            threading.Event().wait(0.05)
        return fit(data, rows, seed)

    told, found, errors = [], [], []

    def run():
        try:
            progress = lambda done, total, what: told.append(done)  # noqa: E731
            found.append(
                fit_references(
                    waiting, (X, Y), DESIGN, executor="ray", store=tmp_path / "store", tag="data=x", progress=progress
                )
            )
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(1200):
        begun = [path.name.split("-") for path in tmp_path.glob("*-*")]
        if len({node for _, node, _ in begun}) == 2 or errors:
            break
        threading.Event().wait(0.05)
    assert errors == []
    assert len({node for _, node, _ in begun}) == 2
    victim = next(node for node in cluster.nodes if node.node_id == begun[0][1])
    cluster.remove_node(victim, allow_graceful=False)
    (tmp_path / "go on").touch()
    thread.join(timeout=120)
    assert not thread.is_alive()
    assert errors == []

    expected = fit_references(fit, (X, Y), DESIGN)
    for name in expected.signals:
        np.testing.assert_array_equal(found[0].signals[name], expected.signals[name])
    assert told == [0, 1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "store").glob("[!.]*.npy"))) == 6
    runs = [path.name.split("-")[0] for path in tmp_path.glob("*-*")]
    assert runs.count(begun[0][0]) == 2  # on the dead node, and again
    assert len(runs) == 7
