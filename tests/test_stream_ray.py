"""Streams counted on a real Ray cluster of two nodes, one of which is killed while it counts."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from functools import reduce
from itertools import groupby
from operator import add
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divulge import Evidence, InputError, Stream, audit
from divulge.streams import batches, on_ray
from divulge.streams.batches import Part, parts_of
from divulge.streams.on_ray import bundled, on_worker, tallies
from divulge.streams.tally import NO_BOUNDS
from divulge.version import VERSION
from ray_cluster import two_nodes

# JAX, where other tests have loaded it, warns of the fork that starts Ray's processes; they go on to exec at once.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

FILES, ROWS = 12, 400  # rows a file; in groups of 100
HERE = os.getpid()


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as made:
        yield made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve files, of four parts each."""
    monkeypatch.setattr(batches, "PART", 100)
    where = tmp_path / "files"
    where.mkdir()
    rng = np.random.default_rng(0)
    rows = FILES * ROWS
    member = rng.random(rows) < 0.5
    loss = rng.normal(size=rows) + 0.3 * member
    evidence = Evidence(member, signals={"loss": loss}, columns={"age": rng.integers(0, 3, rows)}, ids=np.arange(rows))
    for at in range(FILES):
        write(evidence.take(slice(ROWS * at, ROWS * at + ROWS)), where / f"{at:02}.parquet")
    return where


def write(evidence, file):
    import pyarrow.parquet as pq

    evidence.save(file)
    pq.write_table(pq.read_table(file), file, row_group_size=100)


def doubled(evidence, rng):
    """An attack of this file, which workers cannot import."""
    return twice(evidence.signals["loss"])


doubled.needs = ("loss",)


def twice(values):
    return 2 * values


def run(stream, **arguments):
    given = {"attacks": ["loss", doubled], "slices": ["age"], "controls": (), **arguments}
    return audit(stream, **given)


def assert_same(found, expected):
    assert json.dumps(found.tables) == json.dumps(expected.tables)  # texts: NaN is NaN
    for key in ("stream", "data", "tests", "slices"):
        assert found.meta[key] == expected.meta[key]


# -------------------------------------------------------------------------------------------------- what a task counts


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=6), max_size=20), st.integers(1, 4))
def test_each_part_is_in_one_task_of_whole_files_or_of_parts_of_one(files, workers):
    parts = [Part(Path(str(at)), (i,), rows) for at, of in enumerate(files) for i, rows in enumerate(of)]
    bundles = bundled(parts, workers)
    assert Counter(part for bundle in bundles for part in bundle) == Counter(parts)
    of_file = {file: tuple(of) for file, of in groupby(parts, lambda part: part.file)}
    size = sum(part.rows for part in parts) / (on_ray.EACH * workers) + 1
    for bundle in bundles:
        inside = {part.file for part in bundle}
        assert len(inside) == 1 or all(bundle.count(part) == 1 for file in inside for part in of_file[file])
        assert len(bundle) == 1 or sum(part.rows for part in bundle) < size


def counting(part, *, bounds):
    return InputError("DV032", f"{part.file}: cut") if part.rows == 13 else Rows(part.rows)


class Rows:
    """In place of a tally: how many rows."""

    bounds, size = NO_BOUNDS, 1

    def __init__(self, rows, ballast=b""):
        self.rows, self.ballast = rows, ballast

    def __add__(self, other):
        return Rows.together([self, other])

    @staticmethod
    def together(parts):
        return parts[0] if len(parts) == 1 else Rows(sum(part.rows for part in parts))


def test_a_worker_counts_files_whole_or_not_at_all(tmp_path):
    import cloudpickle

    a, b, c = (tmp_path / name for name in "abc")
    for file in (a, b, c):
        file.write_bytes(b"12345")
    parts = (Part(a, (0,), 1), Part(a, (1,), 2), Part(b, (0,), 4), Part(b, (1,), 13), Part(b, (2,), 8), Part(c, (), 16))
    payload = cloudpickle.dumps(counting)
    sizes = dict.fromkeys((a, b, c), 5)
    found = on_worker(VERSION, payload, pickle.dumps((parts, sizes, NO_BOUNDS)))
    assert found.tally.rows == 1 + 2 + 16
    assert {file: fault.code for file, fault in found.faults.items()} == {b: "DV032"}
    assert on_worker(VERSION, payload, pickle.dumps((parts[3:5], {b: None}, NO_BOUNDS))).tally is None
    with pytest.raises(
        InputError, match=r"DV030 expected .*c, of 6 bytes, got one of 5 bytes on the node .* all nodes"
    ):
        on_worker(VERSION, payload, pickle.dumps((parts[5:], {c: 6}, NO_BOUNDS)))
    with pytest.raises(InputError, match=r"DV404 expected divulge 0.0.1 on every node"):
        on_worker("0.0.1", payload, b"")


# --------------------------------------------------------------------------------------------------------- on a cluster


def test_a_cluster_gives_the_report_of_threads_and_few_tallies_reach_this_process(cluster, folder, monkeypatch):
    expected = run(Stream(folder))
    assert expected.meta["data"]["members"] + expected.meta["data"]["nonmembers"] == FILES * ROWS
    monkeypatch.chdir(folder.parent)
    told = []
    found = run(
        Stream("files", engine="ray", workers=1, block=64), progress=lambda done, total, what: told.append((done, what))
    )
    assert_same(found, expected)
    assert any(what.startswith("4,800 of 4,800 records") for _, what in told)

    parts = [part for file in sorted(folder.iterdir()) for part in parts_of(file)]
    assert len(parts) == 4 * FILES
    results = list(tallies(counting, parts, "ray", None, lambda part: NO_BOUNDS))
    assert Counter(part for of, _ in results for part in of) == Counter(parts)
    assert reduce(add, (tally for _, tally in results)).rows == FILES * ROWS
    assert len(results) <= len(parts) / 2
    import ray

    assert ray.is_initialized()  # it was there before: it stays


def test_a_damaged_file_is_named_or_left_out_and_what_was_counted_is_kept(cluster, folder, tmp_path):
    file = folder / "05.parquet"
    whole = file.read_bytes()
    broken = bytearray(whole)
    broken[4:200] = bytes(196)  # pages of the first row group: its footer still reads
    file.write_bytes(bytes(broken))
    expected = run(Stream(folder, skip_bad_files=True))
    assert list(expected.meta["stream"]["left_out"]) == [file.name]
    found = run(Stream(folder, skip_bad_files=True, engine="ray"))
    assert_same(found, expected)
    checkpoint = tmp_path / "kept"
    with pytest.raises(InputError, match=r"05\.parquet"):
        run(Stream(folder, engine="ray", checkpoint=checkpoint))
    file.write_bytes(whole)
    told = []
    mended = run(
        Stream(folder, engine="ray", checkpoint=checkpoint), progress=lambda done, total, what: told.append(what)
    )
    assert_same(mended, run(Stream(folder)))
    done = [what.partition(" of 4,800 records")[0] for what in told if " of 4,800 records" in what]
    assert done == ["4,500", "4,600", "4,700", "4,800"]  # the parts of the one that was left


def test_what_an_attack_raises_on_a_worker_is_raised_here(cluster, folder):
    def failing(evidence, rng):
        if os.getpid() != HERE:
            raise KeyError("age_band")
        return evidence.signals["loss"]

    failing.needs = ("loss",)
    with pytest.raises(KeyError, match="age_band"):
        run(Stream(folder, engine="ray"), attacks=failing)


def test_what_workers_cannot_import_is_said(cluster, folder):
    def elsewhere(evidence, rng):
        if os.getpid() != HERE:
            import not_installed_here  # noqa: F401
        return evidence.signals["loss"]

    elsewhere.needs = ("loss",)
    with pytest.raises(InputError, match=r"DV404 expected workers that can import .* 'not_installed_here'.*divulge"):
        run(Stream(folder, engine="ray"), attacks=elsewhere)


def test_attacks_that_cannot_be_sent_are_said(folder):
    lock = threading.Lock()

    def locked(evidence, rng):
        with lock:
            return evidence.signals["loss"]

    locked.needs = ("loss",)
    with pytest.raises(InputError, match=r"DV405 expected attacks and slices that can be sent.*lock"):
        run(Stream(folder, engine="ray"), attacks=locked)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it needs a path that means another file elsewhere")
def test_files_that_workers_do_not_see_are_said_even_where_bad_ones_may_be_left_out(cluster, folder):
    handle = os.open(folder, os.O_RDONLY)
    mine = 900
    os.dup2(handle, mine)
    try:
        with pytest.raises(InputError, match=rf"DV030 expected /proc/self/fd/{mine}/.*parquet, of .* all nodes"):
            run(Stream(f"/proc/self/fd/{mine}", engine="ray", skip_bad_files=True))
    finally:
        os.close(handle)
        os.close(mine)


def test_a_worker_that_dies_each_time_ends_the_run_by_name(cluster, folder):
    def deadly(evidence, rng):
        if os.getpid() != HERE:
            os._exit(1)
        return evidence.signals["loss"]

    deadly.needs = ("loss",)
    with pytest.raises(InputError, match=r"DV404 expected a worker that lives until .*parquet is counted, got 4 that"):
        run(Stream(folder, engine="ray"), attacks=deadly)


CLIENT = """
    import os, sys, threading
    from pathlib import Path
    from divulge import InputError, Stream, audit
    from divulge.streams import batches

    batches.PART = 100
    engine, folder, marks = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    here = os.getpid()

    def waiting(evidence, rng):
        if os.getpid() != here and marks.name == "stop":
            (marks / str(os.getpid())).touch()
            threading.Event().wait(600)
        return evidence.signals["loss"]

    waiting.needs = ("loss",)
    report = audit(Stream(folder, engine=engine), attacks=waiting, controls=())
    print(report.score.value, *report.meta["data"].values())
    try:
        audit(Stream(folder, engine="ray://127.0.0.1:1"), attacks="loss")
    except InputError as error:
        import ray
        print(error.code, ray.is_initialized())
"""


def started(engine, folder, marks, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CLIENT), engine, str(folder), str(marks)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_cluster_at_an_address_gives_the_same_and_one_that_is_not_there_is_said(cluster, folder, tmp_path):
    """From a process of its own, as from a laptop; ray:// reaches only those with Ray's client server."""
    hasty = {f"RAY_CLIENT_{name}_CONNECTION_TIMEOUT_S": "1" for name in ("INITIAL", "MAX")}
    for _ in range(3):  # Ray's client server takes a port from 23000 up, whoever else has it
        process = started(f"ray://127.0.0.1:{cluster.client_port}", folder, tmp_path / "go", **hasty)
        out, err = process.communicate(timeout=150)
        if "Starting Ray client server failed" not in err:
            break
    expected = audit(Stream(folder), attacks="loss", controls=())
    lines = out.splitlines()
    assert len(lines) == 2, err
    assert lines[0].split() == [*map(str, (expected.score.value, *expected.meta["data"].values()))]
    assert lines[1] == "DV404 False"


def test_ctrl_c_ends_the_run_and_frees_the_workers(cluster, folder, tmp_path):
    import ray

    marks = tmp_path / "stop"
    marks.mkdir()
    process = started("ray", folder, marks, RAY_ADDRESS=cluster.address)
    try:
        wait_until(lambda: len(list(marks.iterdir())) == 2 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (-signal.SIGINT, 1)
    assert err.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: ray.available_resources().get("CPU") == 2)
    assert len(list(marks.iterdir())) == 2  # none was begun again


def test_who_stops_taking_stops_the_workers_though_the_cluster_stays(cluster, folder, tmp_path):
    import ray

    def waiting(part, *, bounds):
        if part.rows > 10:
            (tmp_path / part.file.name).touch()
            threading.Event().wait(600)
        return Rows(part.rows)

    parts = [Part(file, (0,), at + 10) for at, file in enumerate(sorted(folder.iterdir()))]
    taking = tallies(waiting, parts, "ray", 2, lambda part: NO_BOUNDS)
    assert next(taking)[1].rows == 10
    wait_until(lambda: list(tmp_path.glob("*.parquet")))
    taking.close()
    wait_until(lambda: ray.available_resources().get("CPU") == 2)


def wait_until(true):
    for _ in range(600):
        if true():
            return
        threading.Event().wait(0.1)
    raise AssertionError("waited for a minute")


def test_a_node_that_dies_while_it_counts_changes_nothing(cluster, folder, tmp_path):
    """The two nodes' first tasks wait until one node is dead, with others counted before: what it did is done again."""
    marks = tmp_path / "marks"
    marks.mkdir()

    def waiting(evidence, rng):
        if os.getpid() != HERE:
            import ray

            first = int(evidence.ids.min())
            if first >= FILES * ROWS // 2:  # the first half is counted, and taken or not
                (marks / f"{first}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()
                while not (tmp_path / "go on").exists():
                    threading.Event().wait(0.05)
        return evidence.signals["loss"]

    waiting.needs = ("loss",)
    told, found, errors = [], [], []

    def work():
        try:
            stream = Stream(folder, engine="ray", checkpoint=tmp_path / "kept")
            found.append(run(stream, attacks=waiting, progress=lambda done, total, what: told.append((done, what))))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def begun():
        return [path.name.split("-") for path in marks.iterdir()]

    wait_until(lambda: len({node for _, node, _ in begun()}) == 2 or errors)
    assert errors == []
    first, dead, _ = begun()[0]
    kill(cluster, dead)
    (tmp_path / "go on").touch()
    thread.join(timeout=120)
    assert not thread.is_alive()
    assert errors == []
    assert_same(found[0], run(Stream(folder), attacks=waiting))
    data = found[0].meta["data"]
    assert data["members"] + data["nonmembers"] == FILES * ROWS
    counted = [done for done, what in told if "records" in what]
    assert counted == sorted(set(counted))
    assert counted[-1] == FILES * ROWS
    assert {node for at, node, _ in begun() if at == first} == {dead, *(node for _, node, _ in begun())}  # again
    cluster.nodes.append(cluster.add_node(num_cpus=1))


def kill(cluster, identity):
    node = next(node for node in cluster.nodes if node.node_id == identity)
    cluster.nodes.remove(node)
    cluster.remove_node(node, allow_graceful=False)


def test_a_tally_that_was_lost_before_it_was_taken_is_made_again_and_counts_once(cluster, folder, tmp_path):
    """Ended, but still on its node: it is too large to be sent along with the word that it has ended."""
    import ray

    def large(part, *, bounds):
        (tmp_path / f"{part.file.stem}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()
        return Rows(part.rows, bytes(1 << 20))

    parts = [Part(file, (0,), at + 10) for at, file in enumerate(sorted(folder.iterdir()))]
    taking = tallies(large, parts, "ray", 2, lambda part: NO_BOUNDS)
    taken = [next(taking)]
    assert len(taken[0][0]) == 1

    def others():
        begun = (path.name.split("-") for path in tmp_path.glob("*-*-*"))
        return [(name, node) for name, node, _ in begun if name != taken[0][0][0].file.stem]

    wait_until(lambda: others() and ray.available_resources().get("CPU") == 2)  # the other task has begun, and ended
    (lost,) = others()
    kill(cluster, lost[1])
    taken += taking
    assert Counter(part for of, _ in taken for part in of) == Counter(parts)
    assert sum(tally.rows for _, tally in taken) == sum(part.rows for part in parts)
    assert len(list(tmp_path.glob(f"{lost[0]}-*"))) == 2  # on the dead node, and again
    cluster.nodes.append(cluster.add_node(num_cpus=1))
