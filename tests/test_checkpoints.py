"""A stream that is stopped and goes on: nothing lost, nothing counted twice, nothing of other settings taken."""

from __future__ import annotations

import functools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from divulge import Evidence, InputError, audit
from divulge.doors.tables import Overrides
from divulge.files import to_arrays
from divulge.slices import Partition
from divulge.streams import Stream, planning
from divulge.streams.checkpoints import Checkpoint, _differ, asked_of
from divulge.streams.dealing import Block, placed
from divulge.streams.tally import added

FILES, ROWS = 12, 80


def records(n=FILES * ROWS, **more):
    rng = np.random.default_rng(0)
    member, labels = np.arange(n) % 2 == 0, rng.integers(0, 3, n)
    outputs = rng.normal(size=(n, 3)).astype(np.float32)
    outputs[np.arange(n), labels] += 1 + member
    columns = {"sex": rng.choice(["f", "m"], n), "text": np.array(["", "ü\x00z"], object)[rng.integers(0, 2, n)]}
    return Evidence(member, labels=labels, outputs=outputs, kind="logits", columns=columns, **more)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    evidence = records(ids=np.array([f"r{at}" for at in range(FILES * ROWS)]))
    for at in range(FILES):
        evidence.take(slice(at * ROWS, (at + 1) * ROWS)).save(folder / f"{at:02}.parquet")
    return folder


HOW = {"attacks": ["loss", "class_wise(loss)"], "slices": ["class", "sex", "text"], "min_n": 10, "records": True}


def tables(report):
    return {name: repr(table) for name, table in report.tables.items()}


class Stopped(Exception):
    pass


def stop_after(rows):
    def progress(done, whole, what):
        if "records," in what and done >= rows:
            raise Stopped

    return progress


def counted(folder, kept, **more):
    """The report, and the rows that were done when the first part of it was counted."""
    seen = []
    report = audit(
        Stream(folder, checkpoint=kept, workers=2, **more),
        progress=lambda done, whole, what: seen.append(done) if "records," in what else None,
        **HOW,
    )
    return report, seen


@pytest.mark.parametrize("rows", [1, 4 * ROWS, FILES * ROWS])
def test_stopped_after_some_files_it_goes_on_to_the_same_report(tmp_path, folder, rows):
    kept = tmp_path / "kept.npz"
    with pytest.raises(Stopped) as caught:
        audit(Stream(folder, checkpoint=kept, workers=2), progress=stop_after(rows), **HOW)
    assert caught.value.__traceback__ is not None  # held on to, as a debugger would: and yet
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("divulge")] == []
    done = Checkpoint.load(kept)
    finished = 0 if done is None or done.tally is None else int(done.tally.rows.sum())
    assert rows - ROWS <= finished < rows + ROWS and len(done.files) * ROWS == finished
    report, seen = counted(folder, kept)
    assert tables(report) == tables(audit(Stream(folder, workers=1), **HOW))
    assert len(seen) == FILES - len(done.files)
    again, seen = counted(folder, kept)
    assert seen == [] and tables(again) == tables(report)


def test_stopped_again_and_again(tmp_path, folder):
    kept = tmp_path / "kept.npz"
    for rows in range(ROWS, FILES * ROWS, 2 * ROWS):
        with pytest.raises(Stopped):
            audit(Stream(folder, checkpoint=kept), progress=stop_after(rows), **HOW)
    assert tables(counted(folder, kept)[0]) == tables(audit(Stream(folder), **HOW))


def kinds():
    rng = np.random.default_rng(1)
    n, member = 60, np.arange(60) % 2 == 0
    z = rng.normal(size=(n, 3))
    yield Evidence(member, labels=rng.random((n, 3)) < 0.5, outputs=z, kind="logits", groups=np.arange(n) // 2)
    yield Evidence(
        member, labels=np.arange(n) % 2, outputs=1 / (1 + np.exp(-z[:, 0])), kind="probs", classes=("a", "b")
    )
    yield Evidence(member, labels=z[:, 1], outputs=np.c_[z[:, 0], np.exp(z[:, 1])], ids=np.arange(n))
    yield Evidence(member, labels=np.arange(n) % 3, outputs=z.astype(np.float16), kind="logits", traces=z, features=z)
    holes = np.where(np.arange(n) % 5 == 0, np.nan, 1.0)
    yield Evidence(
        member, signals={"loss": z[:, 0], "x y": z[:, 1]}, columns={"x": holes, "b": member, "i": np.arange(n)}
    )


@pytest.mark.parametrize("evidence", list(kinds()), ids=lambda evidence: evidence.task)
def test_what_is_kept_is_what_was_counted(tmp_path, evidence):
    cuts = [] if evidence.labels is None or evidence.labels.dtype.kind == "f" else ["class"]
    cuts += evidence.columns
    sketch = placed(evidence, np.arange(len(evidence), dtype=np.uint64))
    plan, _ = planning.planned(sketch, attacks="loss", slices=cuts, seed=1, sample=5)
    cut = [Block(evidence.take(rows), "a", rows.start) for rows in (slice(0, 41), slice(41, None))]
    tally = added(plan, cut)
    asked = asked_of(plan, Overrides())
    Checkpoint(sketch, asked, tally, {"a": (1, 2)}).save(tmp_path / "kept.npz")
    found = Checkpoint.load(tmp_path / "kept.npz")
    found.check(asked, {"a": (1, 2), "b": (3, 4)})
    assert found.files == {"a": (1, 2)}
    for ours, theirs in ((sketch, found.sketch), (tally.sample.rows, found.tally.sample.rows)):
        before, after = to_arrays(ours), to_arrays(theirs)
        assert before.keys() == after.keys()
        for name in before:
            assert before[name].dtype.kind == after[name].dtype.kind, name
            np.testing.assert_array_equal(before[name], after[name])
    both, twice = tally + tally, found.tally + tally  # it goes on as if nothing had been
    for name in ("rows", "right", "digest"):
        np.testing.assert_array_equal(getattr(both, name), getattr(twice, name))
    np.testing.assert_array_equal(both.everyone["loss"].counts, twice.everyone["loss"].counts)
    assert [part.labels for part in both.slices] == [part.labels for part in twice.slices]
    for ours, theirs in zip(both.slices, twice.slices, strict=True):
        np.testing.assert_array_equal(ours.counts["loss"].counts, theirs.counts["loss"].counts)
    for name in ("copies", "ids", "groups"):
        ours, theirs = getattr(both, name), getattr(twice, name)
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_array_equal(ours.members, theirs.members)


# ------------------------------------------------------------------------------------------------ what is refused


def begun(folder, kept):
    with pytest.raises(Stopped):
        audit(Stream(folder, checkpoint=kept), progress=stop_after(5 * ROWS), **HOW)
    return kept.read_bytes()


@pytest.mark.parametrize(
    ("how", "of_stream", "word"),
    [
        ({"attacks": ["loss"]}, {}, "attacks"),
        ({"attacks": ["loss", "class_wise(entropy)"]}, {}, "attacks"),
        ({"slices": ["class"]}, {}, "slices"),
        ({"slices": ["class", "text", "sex"]}, {}, "slices"),
        ({"seed": 1}, {}, "seed"),
        ({}, {"sample": 77}, "sample"),
        ({}, {"columns": Overrides(columns=["sex", "text"])}, "columns"),
    ],
)
def test_other_settings_are_refused_and_what_is_kept_stays(tmp_path, folder, how, of_stream, word):
    kept = tmp_path / "kept.npz"
    before = begun(folder, kept)
    with pytest.raises(InputError, match=rf"other settings: {word}") as caught:
        audit(Stream(folder, checkpoint=kept, **of_stream), **{**HOW, **how})
    assert caught.value.code == "DV037"
    assert kept.read_bytes() == before


def attacker(sign, mean=np.mean):
    names = {"sign": sign}

    def mine(evidence, rng):
        return names["sign"] * mean(evidence.outputs, axis=1)

    return mine


def slicer(least):
    def mine(evidence):
        return Partition("mine", (evidence.labels >= least).astype(np.int32), ("mine=low", "mine=high"))

    return mine


@dataclass(frozen=True)
class Scaled:
    """An attack that says nothing of its setting in its repr."""

    by: float = field(repr=False)

    def __call__(self, evidence, rng):
        return self.by * evidence.outputs[:, 0]


@functools.cache
def factor(sign=1):
    return sign


def remembering(factor):
    def mine(evidence, rng):
        return factor() * evidence.outputs[:, 0]

    return mine


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"attacks": lambda evidence, rng: evidence.outputs[:, 0]}, {"attacks": lambda e, rng: -e.outputs[:, 0]}),
        ({"attacks": attacker(1)}, {"attacks": attacker(-1)}),
        ({"attacks": attacker(1)}, {"attacks": attacker(1, np.max)}),
        ({"attacks": partial(attacker(1))}, {"attacks": partial(attacker(-1))}),
        ({"attacks": Scaled(1.0)}, {"attacks": Scaled(-1.0)}),
        ({"attacks": remembering(factor)}, {"attacks": remembering(functools.cache(lambda: -1))}),
        ({"slices": [slicer(1)]}, {"slices": [slicer(2)]}),
    ],
)
def test_other_code_under_the_same_name_is_refused(tmp_path, folder, before, after):
    kept, how = tmp_path / "kept.npz", {"attacks": "loss", "controls": ()}
    with pytest.raises(Stopped):
        audit(Stream(folder, checkpoint=kept), progress=stop_after(5 * ROWS), **{**how, **before})
    with pytest.raises(InputError, match=r"other settings: (the attack|slicer 1) .* its code, or a value") as caught:
        audit(Stream(folder, checkpoint=kept), **{**how, **after})
    assert caught.value.code == "DV037"
    report = audit(Stream(folder, checkpoint=kept), **{**how, **before})
    assert tables(report) == tables(audit(Stream(folder), **{**how, **before}))


def test_code_that_cannot_be_known_is_refused_with_a_checkpoint_only(tmp_path, folder):
    lock = threading.Lock()

    def guarded(evidence, rng):
        with lock:
            return evidence.outputs[:, 0]

    with pytest.raises(
        InputError, match=r"the attack guarded: expected .* got a lock.*run without a checkpoint"
    ) as caught:
        audit(Stream(folder, checkpoint=tmp_path / "kept.npz"), attacks=guarded, controls=())
    assert caught.value.code == "DV403" and not (tmp_path / "kept.npz").exists()
    assert audit(Stream(folder), attacks=guarded, controls=()).meta["stream"]["files"] == FILES


def test_what_a_function_remembers_while_it_runs_is_no_other_code(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("divulge.streams.reading.SAVE_EVERY", 0.0)

    def made():
        seen = []

        def mine(evidence, rng):
            seen.append(len(evidence))
            return evidence.outputs[:, 0]

        return mine

    with pytest.raises(Stopped):
        audit(Stream(folder, checkpoint=tmp_path / "kept.npz"), attacks=made(), progress=stop_after(5 * ROWS))
    assert audit(Stream(folder, checkpoint=tmp_path / "kept.npz"), attacks=made()).meta["stream"]["files"] == FILES


def test_what_the_tally_does_not_depend_on_may_change(tmp_path, folder):
    kept = tmp_path / "kept.npz"
    begun(folder, kept)
    how = {**HOW, "confidence": 0.9, "min_n": 30, "controls": ()}
    report = audit(Stream(folder, checkpoint=kept, workers=1, block=7, skip_bad_files=True), **how)
    assert tables(report) == tables(audit(Stream(folder), **how))


@pytest.mark.parametrize("what", ["changed", "gone", "renamed", "cut"])
def test_a_counted_file_that_is_another_now_is_refused(tmp_path, folder, what):
    kept = tmp_path / "kept.npz"
    before = begun(folder, kept)
    file = folder / next(iter(Checkpoint.load(kept).files))
    if what == "changed":
        os.utime(file, ns=(1, 1))
    elif what == "gone":
        file.unlink()
    elif what == "renamed":
        file.rename(folder / "zz.parquet")
    else:
        file.write_bytes(file.read_bytes()[:-1000])
    for skip in (False, True):
        with pytest.raises(InputError, match=file.name) as caught:
            audit(Stream(folder, checkpoint=kept, skip_bad_files=skip), **HOW)
        assert caught.value.code == "DV037"
    assert kept.read_bytes() == before


def test_files_that_came_later_are_counted_too(tmp_path, folder):
    kept = tmp_path / "kept.npz"
    late = (folder / "11.parquet").rename(tmp_path / "late")
    first, _ = counted(folder, kept)
    late.rename(folder / "11.parquet")
    report, seen = counted(folder, kept)
    assert seen == [FILES * ROWS] and first.meta["stream"]["files"] == 11 and report.meta["stream"]["files"] == 12
    assert report.meta["data"]["members"] == FILES * ROWS // 2


def test_files_of_the_same_names_in_another_folder_change_nothing_of_those_counted(tmp_path, folder):
    kept, other = tmp_path / "kept.npz", tmp_path / "other"
    counted(folder, kept)
    other.mkdir()
    records(ids=np.array([f"s{at}" for at in range(FILES * ROWS)])).take(slice(0, ROWS)).save(other / "00.parquet")
    for _ in range(2):
        report = audit(Stream([folder, other], checkpoint=kept), **HOW)
        assert report.meta["stream"]["files"] == FILES + 1
    assert report.meta["data"]["members"] == (FILES + 1) * ROWS // 2


@pytest.mark.skipif(os.name != "posix", reason="elsewhere files have no such modes")
def test_a_checkpoint_is_for_its_owner_only(tmp_path, folder):
    counted(folder, tmp_path / "kept.npz")
    assert stat.S_IMODE((tmp_path / "kept.npz").stat().st_mode) == 0o600


def test_a_disk_that_is_full_for_a_while_is_told_of_once_and_the_run_goes_on(tmp_path, folder, monkeypatch, caplog):
    monkeypatch.setattr("divulge.streams.reading.SAVE_EVERY", 0.0)
    kept, save, tries = tmp_path / "kept.npz", Checkpoint.save, []

    def full_from_the_second_on(self, path):
        tries.append(len(self.files))
        if len(tries) > 1 and len(self.files) < room:
            raise InputError("DV035", f"cannot write {path}: No space left on device. Nothing was changed.")
        save(self, path)

    monkeypatch.setattr(Checkpoint, "save", full_from_the_second_on)
    room = FILES  # from the last file on there is some again
    report, _ = counted(folder, kept)
    assert report.meta["stream"]["files"] == FILES == len(Checkpoint.load(kept).files)
    assert len(tries) > FILES and [record.message.count("No space left") for record in caplog.records] == [1]
    kept.unlink()
    tries.clear()
    room = FILES + 1  # never
    with pytest.raises(InputError, match="No space left") as caught:
        counted(folder, kept)
    assert caught.value.code == "DV035" and len(tries) > FILES


def flipped(data):
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"", lambda data: data[:999], flipped])
def test_a_damaged_checkpoint_is_refused_and_left(tmp_path, folder, damage):
    kept = tmp_path / "kept.npz"
    data = damage(begun(folder, kept))
    kept.write_bytes(data)
    with pytest.raises(InputError, match=r"kept\.npz") as caught:
        audit(Stream(folder, checkpoint=kept), **HOW)
    assert caught.value.code == "DV032"
    assert kept.read_bytes() == data


@pytest.mark.parametrize(
    "missing", ["copies hashes", "everyone 0 bins", "names", "files", "sketch member", "sample size"]
)
def test_a_checkpoint_that_lacks_something_is_damaged(tmp_path, folder, missing):
    kept = tmp_path / "kept.npz"
    begun(folder, kept)
    with np.load(kept) as arrays:
        left = {name: arrays[name] for name in arrays.files if name != missing}
        assert len(left) < len(arrays.files)
    np.savez(kept, **left)
    with pytest.raises(InputError) as caught:
        audit(Stream(folder, checkpoint=kept), **HOW)
    assert caught.value.code == "DV032"


def test_evidence_in_place_of_a_checkpoint_is_not_overwritten(tmp_path, folder):
    records().save(tmp_path / "records.npz")
    before = (tmp_path / "records.npz").read_bytes()
    with pytest.raises(InputError) as caught:
        audit(Stream(folder, checkpoint=tmp_path / "records.npz"), **HOW)
    assert caught.value.code == "DV032" and (tmp_path / "records.npz").read_bytes() == before
    assert "records.npz is no checkpoint" in caught.value.message and "write it again" not in caught.value.message


def test_a_place_that_cannot_be_written_is_told_of_before_anything_is_counted(tmp_path, folder):
    seen = []
    with pytest.raises(InputError) as caught:
        counted_ = Stream(folder, checkpoint=tmp_path / "none" / "kept.npz")
        audit(counted_, progress=lambda done, whole, what: seen.append(what), **HOW)
    assert caught.value.code == "DV035" and not [what for what in seen if "records," in what]


def test_blocks_in_memory_have_no_checkpoint(tmp_path):
    for wanted in ({"checkpoint": tmp_path / "kept.npz"}, {"engine": "ray"}):
        with pytest.raises(InputError) as caught:
            audit(Stream([records()], **wanted), **HOW)
        assert caught.value.code == "DV056"


def test_words_for_columns_are_the_same_after_a_stop(tmp_path):
    n = np.arange(400)
    for at in range(4):
        rows = n[at * 100 : at * 100 + 100]
        table = pa.table({"member": rows % 2, "signal_mine": np.sin(rows * rows) + rows % 2})
        pq.write_table(table, tmp_path / f"{at}.parquet")
    files, kept = sorted(tmp_path.glob("*.parquet")), tmp_path / "kept.npz"
    with pytest.raises(Stopped):
        audit(Stream(files, checkpoint=kept), progress=stop_after(200), controls=())
    with pytest.raises(InputError, match="columns was") as caught:
        audit(Stream(files, Overrides(lower_is_member=("mine",)), checkpoint=kept), controls=())
    assert caught.value.code == "DV037"


# --------------------------------------------------------------------------------------------------- killed, ^C


CHILD = """
import os, signal, sys, threading
from divulge import audit
from divulge.attacks import Threshold
from divulge.streams import Stream, reading

folder, kept, how = sys.argv[1:]
reading.SAVE_EVERY = 0.0
count = []

def mine(evidence, rng):
    count.append(1)
    if len(count) == 8 and sys.argv[-1] == "interrupt":  # a name of this file would be part of the attack's code
        os.kill(os.getpid(), signal.SIGINT)  # from a worker's thread: it reaches the main one wherever that is
    return evidence.outputs[:, 0]

def progress(done, whole, what):
    if "records," in what and done >= 400:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)

try:
    audit(Stream(folder, checkpoint=kept, workers=2), attacks=["loss", mine], controls=(), progress=progress)
except KeyboardInterrupt:
    left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    print("stopped", left, flush=True)
    sys.exit(130)
"""


def child(tmp_path, folder, how):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), str(folder), str(tmp_path / "kept.npz"), how]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_killed_in_the_middle_it_goes_on_from_its_checkpoint(tmp_path, folder):
    ended = child(tmp_path, folder, "kill")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    kept = Checkpoint.load(tmp_path / "kept.npz")
    assert 0 < len(kept.files) < FILES and int(kept.tally.rows.sum()) == ROWS * len(kept.files)
    assert sorted(tmp_path.glob(".kept.*")) == []
    ended = child(tmp_path, folder, "on")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(Checkpoint.load(tmp_path / "kept.npz").tally.rows.sum()) == FILES * ROWS


def test_interrupted_it_saves_and_ends_with_no_thread_left_and_nothing_on_stderr(tmp_path, folder):
    ended = child(tmp_path, folder, "interrupt")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "stopped []\n", "")
    kept = Checkpoint.load(tmp_path / "kept.npz")
    assert len(kept.files) < FILES
    assert (0 if kept.tally is None else int(kept.tally.rows.sum())) == ROWS * len(kept.files)


def test_a_function_is_called_by_its_name_where_settings_differ() -> None:
    one, other = (json.dumps({"slices": [f"<function {name}>"]}) for name in ("by_class", "by_age"))
    assert _differ(one, other) == "slices was ['by_class'], is ['by_age']"
