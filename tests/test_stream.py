"""audit() of a stream: the same report however the records are cut into blocks and files, near that of memory."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from divulge import Evidence, InputError, Unavailable, audit, copies, folds, identity, roc, slices
from divulge.attacks import named
from divulge.bins import Histogram
from divulge.controls import shared_records
from divulge.doors.tables import Overrides
from divulge.scoring import scores_of, with_signals
from divulge.slices import by_column
from divulge.streams import Stream, measured, planning, reading
from divulge.streams.batches import listed, parts_of
from divulge.streams.dealing import Block, dealing_of, placed
from divulge.streams.sketches import UNITS
from divulge.streams.tally import BITS, SLICE_BITS, Tally, Total, added

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
SLICES = ("class", "sex", "age", "correct")


def toy(n=600, classes=3, seed=0, leak=1.0, columns=True, **more):
    """Logits of which the true class's is higher for members; every second record is one."""
    rng = np.random.default_rng(seed)
    member, labels = rng.permutation(np.arange(n) % 2 == 0), rng.integers(0, classes, n)
    outputs = rng.normal(size=(n, classes)).astype(np.float32)
    outputs[np.arange(n), labels] += 1 + leak * member
    sexes = {"sex": rng.choice(["f", "m", "x"], n), "age": rng.integers(8, 12, n)} if columns else {}
    return Evidence(member, labels=labels, outputs=outputs, kind="logits", columns=sexes, **more)


def blocks(evidence, *cuts):
    return [evidence.take(slice(*ends)) for ends in pairwise((0, *cuts, len(evidence)))]


def saved(folder, parts, row_group=None):
    """A .parquet a part, in order."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for at, part in enumerate(parts):
        path = folder / f"{at:03}.parquet"
        part.save(path)
        if row_group:
            pq.write_table(pq.read_table(path), path, row_group_size=row_group)
    return folder


def same(report, other, records=False):
    """Whether all tables agree, NaN with NaN, and so does what is said of the data."""
    names = set(report.tables) | set(other.tables)
    differ = [name for name in sorted(names) if repr(report.tables.get(name)) != repr(other.tables.get(name))]
    assert differ == []
    assert report.meta["data"] == other.meta["data"]
    assert report.meta["stream"]["sample"] == other.meta["stream"]["sample"]
    return True


def auc(report, attack="loss"):
    rows = report.rows("results")
    return next(
        row["value"] for row in rows if (row["attack"], row["slice"], row["metric"]) == (attack, "everyone", "auc")
    )


def outcome(report, control):
    return next(row for row in report.rows("controls") if row["control"] == control)


# ------------------------------------------------------------------------------------- the same, however it is cut


@pytest.fixture(scope="module")
def evidence():
    return toy(ids=np.arange(600))


def options(**more):
    return {"attacks": ["loss", "entropy"], "slices": SLICES, "min_n": 20, "controls": (), **more}


@pytest.fixture(scope="module")
def whole(evidence):
    return audit([evidence], **options(records=True))


@settings(max_examples=12)
@given(st.data())
def test_the_report_is_the_same_whatever_the_files_row_groups_workers_blocks_and_orders(evidence, whole, data):
    order = np.random.default_rng(data.draw(st.integers(0, 9), label="order")).permutation(len(evidence))
    cuts = sorted(data.draw(st.sets(st.integers(1, 599), max_size=6), label="cuts"))
    parts = data.draw(st.permutations(blocks(evidence.take(order), *cuts)), label="names")
    group = data.draw(st.sampled_from([3, 50, 1000]), label="row group")
    workers, block = data.draw(st.integers(1, 3), label="workers"), data.draw(st.sampled_from([1, 40, 999]), label="b")
    if block == 1:
        parts = [part.take(slice(0, 20)) for part in parts[:2]]
        whole = audit(parts, **options(records=True))
    with tempfile.TemporaryDirectory() as folder:
        saved(folder, parts, group)
        report = audit(Stream(folder, workers=workers, block=block), **options(records=True))
    assert same(report, whole)


@settings(max_examples=10)
@given(st.sets(st.integers(0, 600), max_size=8), st.integers(0, 9), st.sampled_from([7, 100, 10**6]))
def test_and_of_blocks_in_memory_empty_and_one_sided_ones_too(evidence, whole, cuts, order, block):
    parts = blocks(evidence.take(np.random.default_rng(order).permutation(600)), *sorted(cuts))
    sides = [part.take(side) for part in parts for side in (part.member, ~part.member)]
    assert same(audit(iter(sides), **options(records=True)), whole)
    assert same(audit(Stream(sides, workers=3, block=block), **options(records=True)), whole)


def test_controls_and_a_sample_smaller_than_the_stream_do_not_depend_on_the_cut(tmp_path, evidence):
    saved(tmp_path, blocks(evidence.take(np.random.default_rng(1).permutation(600)), 1, 77, 400), 9)
    how = options(controls="default", records=True)
    report = audit(Stream(tmp_path, sample=150, workers=2, block=13), **how)
    assert same(report, audit(Stream([evidence], sample=150), **how))
    assert report.meta["stream"]["sample"] == {"members": 150, "rows": 300}
    assert len(report.tables["records"]["id"]) == 300
    assert set(report.tables["records"]["id"]) < set(range(600))


def test_fitted_attacks_are_the_same_by_one_sketch(tmp_path):
    evidence = toy(1200, columns=False)
    how = {"attacks": ["learned(logistic)", "class_wise(loss)", "quantile(class)"], "controls": ()}
    reports = []
    for name, cuts in (("one", ()), ("many", range(7, 1200, 97))):
        folder = saved(tmp_path / name, blocks(evidence, *cuts))  # up to 16 row groups: the sketch is all of it
        reports.append(audit(Stream(folder, workers=2, block=101), **how))
    assert reports[0].meta["stream"]["sketch"] == reports[1].meta["stream"]["sketch"] == 1200
    assert same(*reports)
    assert auc(reports[0], "learned(logistic)") > 0.6


def test_slices_stand_in_one_order_whichever_of_them_the_sketch_saw(tmp_path, monkeypatch):
    evidence = Evidence(
        np.arange(1200) % 2 == 0,
        labels=np.arange(1200) // 2 % 12,
        signals={"loss": np.sin(np.arange(1200) ** 2)},
        columns={"age": np.arange(1200) // 2 % 12 - 3.5, "code": (np.arange(1200) // 2 % 12).astype(str)},
    )
    how = {"attacks": "loss", "slices": ["class", "age", "code", "class*code"], "min_n": 5, "controls": ()}
    memory = audit(evidence, **how)
    monkeypatch.setattr("divulge.streams.batches.LOOKS", 2)
    ordered = evidence.take(np.argsort(evidence.labels, kind="stable"))
    for name, rows in (("up", ordered), ("down", ordered.take(slice(None, None, -1)))):
        saved(tmp_path / name, blocks(rows, *range(100, 1200, 100)))
    monkeypatch.setattr("divulge.streams.batches.SEEN", 60)
    streams = [audit(Stream(tmp_path / name), **how) for name in ("up", "down")]
    labels = [[row["slice"] for row in report.rows("slices")] for report in (memory, *streams)]
    assert streams[0].meta["stream"]["sketch"] < 200
    assert labels[0] == labels[1] == labels[2]
    assert same(*streams)


# --------------------------------------------------------------------------------------- near the report of memory


@settings(max_examples=25)
@given(st.integers(2, 300), st.integers(0, 10**6), st.sampled_from([np.float32, np.float64, np.float16]), st.booleans())
def test_each_point_of_the_binned_roc_is_a_point_of_the_exact_one(n, seed, dtype, coarse):
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=n) * 10.0 ** rng.integers(-3, 4, n)).astype(dtype)
    scores[rng.random(n) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0])
    member, halves = np.append(rng.random(n - 2) < 0.5, [True, False]), rng.integers(0, 2, n)
    exact = roc.exact(scores, member, halves)
    binned = Histogram.of(scores, member, halves, bits=SLICE_BITS if coarse else BITS).roc()
    points = [set(map(tuple, np.concatenate([one.tp, one.fp]).T.tolist())) for one in (binned, exact)]
    assert points[0] <= points[1]
    assert (binned.members == exact.members).all() and (binned.nonmembers == exact.nonmembers).all()


@pytest.fixture
def by_hash(monkeypatch):
    """Halves by a row's hash alone, as many rows have them."""
    monkeypatch.setattr(folds, "EXACT_BELOW", 0)


@pytest.mark.parametrize("keyed", ["ids", "groups", "nothing"])
def test_near_the_exact_path_with_the_same_halves_and_digest(by_hash, keyed):
    more = {"ids": np.arange(4000)} if keyed == "ids" else {"groups": np.arange(4000) // 3} if keyed == "groups" else {}
    evidence = toy(4000, **more)
    contents = identity.content_hashes(evidence)
    dealing = dealing_of(with_places(evidence))
    assert dealing.by == {"nothing": "contents"}.get(keyed, keyed)
    assert (dealing.halves(evidence, contents, 3) == folds.halves(evidence, 3)).all()
    how = {"attacks": ["loss", "entropy"], "slices": ["class", "sex"], "controls": (), "seed": 3}
    memory, streamed = audit(evidence, **how), audit(blocks(evidence, 999, 1000), **how)
    assert memory.meta["data"] == streamed.meta["data"]
    assert [row["slice"] for row in memory.rows("slices")] == [row["slice"] for row in streamed.rows("slices")]
    keys = ("attack", "slice", "metric", "fpr", "prior")
    ours, theirs = (
        {tuple(map(str, map(row.get, keys))): row for row in one.rows("results")} for one in (memory, streamed)
    )
    seen = 0
    for key, row in ours.items():
        if key[2] not in ("auc", "score", "advantage") or key not in theirs:
            continue
        seen += 1
        wide = (0.001 if key[2] == "auc" else 0.01) if key[1] == "everyone" else 0.06
        assert theirs[key]["value"] == pytest.approx(row["value"], abs=wide), key
        assert theirs[key]["low"] == pytest.approx(row["low"], abs=2 * wide), key
    assert seen > 15


@pytest.mark.parametrize("fpr", [0.1, 0.01])
def test_tpr_lies_between_the_exact_ones_at_the_bins_beside_it(by_hash, fpr):
    evidence = toy(4000)
    scores = scores_of(named("loss", evidence), with_signals(evidence, [named("loss", evidence)]), 0)
    halves = folds.halves(evidence, 0)
    exact, binned = roc.exact(scores, evidence.member, halves), Histogram.of(scores, evidence.member, halves).roc()
    rank = int(fpr * exact.n_nonmembers)
    tp, fp = (int(x) for x in binned.above_rank(rank))
    best, _ = (int(x) for x in exact.above_rank(rank))
    at = int(np.flatnonzero((binned.fp_all == fp) & (binned.tp_all == tp))[0])
    assert fp <= rank and tp <= best <= int(binned.tp_all[at + 1])


def test_accuracy_and_unscored_records_are_counted_exactly():
    evidence = toy(400, columns=False)

    def gappy(block, rng):
        scores = block.outputs[:, 0].astype(float)
        scores[scores > 1.5] = np.nan
        return scores

    memory = audit(evidence, attacks=[gappy, "loss"], controls=())
    streamed = audit(blocks(evidence, 100, 101), attacks=[gappy, "loss"], controls=())
    assert memory.rows("attacks") == streamed.rows("attacks")
    rows = [[row for row in one.rows("results") if row["metric"] == "member_accuracy"] for one in (memory, streamed)]
    assert repr(rows[0]) == repr(rows[1]) and rows[0]


# ------------------------------------------------------------------------------------------------ kinds of records


def kinds():
    rng = np.random.default_rng(5)
    n, member = 300, np.arange(300) % 2 == 0
    z = rng.normal(size=(n, 4)) + member[:, None]
    hot = rng.random((n, 4)) < 0.4
    hot[:40] = np.eye(4, dtype=bool)[rng.integers(0, 4, 40)]  # a block of one label each
    yield "multilabel", Evidence(member, labels=hot, outputs=z, kind="logits")
    yield "multilabel probs", Evidence(member, labels=hot, outputs=1 / (1 + np.exp(-z)), kind="probs")
    yield "binary", Evidence(member, labels=(np.arange(n) > 200).astype(np.int64), outputs=z[:, 0], kind="logits")
    yield "regression", Evidence(member, labels=rng.normal(size=n), outputs=z[:, 0])
    yield "deviation", Evidence(member, labels=rng.normal(size=n), outputs=np.c_[z[:, 0], np.exp(z[:, 1])])
    yield "unlabelled", Evidence(member, outputs=z, kind="logits")
    yield (
        "signals",
        Evidence(member, signals={"loss": z[:, 0], "mine": z[:, 1]}, ids=np.array([f"r{i}" for i in range(n)])),
    )
    yield "loss and labels", Evidence(member, signals={"loss": z[:, 0]}, labels=np.arange(n) // 60)
    yield "groups", Evidence(member, signals={"loss": z[:, 0]}, groups=np.arange(n) // 4, features=z)
    yield "half precision", Evidence(member, labels=np.arange(n) % 4, outputs=z.astype(np.float16), kind="logits")
    texts = np.array(["a\x00b", "ü", ""], object)[np.arange(n) % 3]
    holes = np.where(np.arange(n) % 7 == 0, np.nan, np.arange(n) % 3)
    yield (
        "columns",
        Evidence(member, signals={"loss": z[:, 0]}, columns={"t": texts, "x": holes, "b": member ^ hot[:, 0]}),
    )


@pytest.mark.parametrize(("kind", "evidence"), list(kinds()), ids=[name for name, _ in kinds()])
def test_every_kind_of_record_from_blocks_and_files_alike(tmp_path, kind, evidence):
    cuts = ["class"] if evidence.labels is not None and evidence.labels.dtype.kind != "f" else []
    attack = "confidence" if kind == "unlabelled" else "loss"
    how = {"attacks": attack, "slices": [*cuts, *evidence.columns], "min_n": 5, "controls": ()}
    of_blocks = audit(blocks(evidence, 10, 30, 31, 250), **how)
    saved(tmp_path, blocks(evidence, 0, 40, 41, 200), 17)
    of_files = audit(Stream(tmp_path, block=11), **how)
    assert same(of_blocks, of_files)
    memory = audit(evidence, **how)
    assert memory.meta["data"] == of_files.meta["data"]
    if not kind.startswith("multilabel"):  # a rest of overlapping slices is not measured
        assert repr(memory.tables["slices"]["members"]) == repr(of_files.tables["slices"]["members"])
    assert auc(memory, attack) == pytest.approx(auc(of_files, attack), abs=0.01)


LABELS = {
    "float": lambda y: y.astype(np.float64),
    "int8": lambda y: y.astype(np.int8),
    "numerals": lambda y: y.astype(str),
    "texts": lambda y: np.array(["cat", "dog", "eel"])[y],
    "bool": lambda y: y > 0,
}


@pytest.mark.parametrize("outputs", [True, False])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_make_with_classes_that_a_block_lacks(tmp_path, kind, outputs):
    evidence = toy(400, columns=False, classes=2 if kind == "bool" else 3)
    order = np.argsort(evidence.labels, kind="stable")
    evidence = evidence.take(order)
    table = {"split": np.where(evidence.member, "train", "test"), "label": LABELS[kind](evidence.labels)}
    table |= {"id": np.arange(400)}
    if outputs:
        table |= {f"logit_{at}": evidence.outputs[:, at] for at in range(evidence.outputs.shape[1])}
    else:
        table["loss"] = np.abs(evidence.outputs[:, 0])
    pq.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=50)
    how = {"slices": ["class"], "min_n": 5, "controls": ()}
    memory, streamed = audit(Evidence.load(tmp_path), **how), audit(Stream(tmp_path, block=9), **how)
    assert memory.meta["data"] == streamed.meta["data"]
    assert [row["slice"] for row in memory.rows("slices")] == [row["slice"] for row in streamed.rows("slices")]
    assert memory.tables["slices"]["members"] == streamed.tables["slices"]["members"]


def test_codes_that_the_sketch_lacks_and_marks_for_no_label(tmp_path, monkeypatch):
    monkeypatch.setattr("divulge.streams.batches.LOOKS", 1)
    n = np.arange(400)

    def files(labels):
        table = pa.table({"member": n % 2, "label": labels, "loss": np.abs(np.sin(n * n))})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
        return audit(Stream(tmp_path), slices=["class"], controls=(), min_n=5)

    assert [row["slice"] for row in files(n // 100).rows("slices")][1:] == [f"class={at}" for at in range(4)]
    with pytest.raises(InputError, match=r"a\.parquet: label -1 is below 0") as caught:
        files(np.where(n < 399, n // 100, -1))
    assert caught.value.code == "DV021"


def test_a_text_class_that_the_sketch_lacks_names_the_file_and_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("divulge.streams.batches.LOOKS", 1)
    n = np.arange(200)
    table = pa.table({"member": n % 2, "label": np.array(["a", "b", "c"])[n % 2 + n // 199], "loss": np.sin(n) ** 2})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    with pytest.raises(InputError, match=r"a\.parquet.*'c'.*classes=") as caught:
        audit(Stream(tmp_path), controls=())
    assert caught.value.code == "DV024"
    report = audit(Stream(tmp_path, Overrides(classes=["a", "b", "c"])), controls=(), slices=["class"], min_n=2)
    rows = {row["slice"]: row["merged"] for row in report.rows("slices")[1:]}
    assert rows == {"class=(rest)": ["class=a", "class=b", "class=c"]}  # each on one side only


def test_a_row_of_logits_that_looks_like_probabilities_is_read_as_those_before(tmp_path):
    evidence = toy(100, classes=2, columns=False)
    evidence.outputs[99] = 0.25, 0.75
    saved(tmp_path, [evidence])
    pq.write_table(Plainly.of(evidence), tmp_path / "000.parquet")
    assert audit(Stream(tmp_path, block=1), controls=()).meta["data"]["kind"] == "logits"


class Plainly:
    """A table that divulge did not write."""

    @staticmethod
    def of(evidence):
        table = {"member": evidence.member, "label": evidence.labels}
        return pa.table(table | {f"logit_{at}": evidence.outputs[:, at] for at in range(evidence.outputs.shape[1])})


ANIMALS = ("cat", "dog", "eel")


def animals(evidence, order, names=ANIMALS):
    """A table whose output columns carry class names, in some order."""
    table = {"member": evidence.member, "label": np.array(names)[evidence.labels], "id": evidence.ids}
    return pa.table(table | {f"logit_{names[at]}": evidence.outputs[:, at] for at in order})


@pytest.mark.parametrize("classes", [None, ANIMALS])
def test_output_columns_are_found_by_their_names_in_whatever_order_they_stand(tmp_path, evidence, classes):
    parts = blocks(evidence, 250, 400)
    tables = [animals(part, order) for part, order in zip(parts, ([0, 1, 2], [2, 0, 1], [1, 2, 0]), strict=True)]
    for at, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{at}.parquet")
    expected = audit(Stream([animals(evidence, [0, 1, 2])]), controls=(), slices=["class"])
    for source in (tmp_path, tables):
        assert same(audit(Stream(source, Overrides(classes=classes)), controls=(), slices=["class"]), expected)


def test_one_file_of_other_classes_is_refused_as_in_memory(tmp_path, monkeypatch):
    for looks in (16, 1):  # seen in the sketch, or while it is counted
        monkeypatch.setattr("divulge.streams.batches.LOOKS", looks)
        for at, part in enumerate(blocks(toy(400, columns=False, ids=np.arange(400)), *range(100, 400, 100))):
            other = animals(part, [0, 1, 2], ("cat", "dog", "fox") if at == 2 else ANIMALS)
            pq.write_table(other, tmp_path / f"{at}.parquet")
        with pytest.raises(InputError, match=r"2\.parquet: these rows have the classes .*'fox'.*'eel'") as caught:
            audit(Stream(tmp_path), controls=())
        assert caught.value.code == "DV018"
    assert fails_with("DV032", lambda: Evidence.load(tmp_path))
    numbered = [
        animals(toy(200, ids=np.arange(200)), order).set_column(1, "label", [toy(200).labels])
        for order in ([0, 1, 2], [2, 1, 0])
    ]
    renamed = Overrides(classes=[0, 1, 2])  # nothing says which column is that of 0
    assert fails_with("DV018", lambda: audit(Stream(numbered, renamed), controls=()))


@pytest.mark.parametrize("first", ["no", "yes"])
def test_one_column_of_the_positive_class_from_blocks_of_one_label(tmp_path, monkeypatch, first):
    monkeypatch.setattr("divulge.streams.batches.SEEN", 20)
    n = np.arange(400)
    labels = np.where((n < 200) == (first == "no"), "no", "yes")
    columns = {"member": n % 2, "label": labels, "prob_yes": 0.5 + 0.4 * np.sin(n * n), "id": n}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "a.parquet")
    memory = audit(Evidence.from_table(table), slices=["class"], controls=(), min_n=5)
    assert [row["slice"] for row in memory.rows("slices")] == ["everyone", "class=no", "class=yes"]
    for source in (tmp_path, table.to_batches(max_chunksize=50)):
        streamed = audit(Stream(source, block=50), slices=["class"], controls=(), min_n=5)
        for column in ("slice", "members", "nonmembers"):
            assert streamed.tables["slices"][column] == memory.tables["slices"][column]
        assert streamed.meta["data"]["digest"] == memory.meta["data"]["digest"]
    pq.write_table(table.rename_columns(["member", "label", "prob_no", "id"]), tmp_path / "b.parquet")
    monkeypatch.setattr("divulge.streams.batches.LOOKS", 1)
    with pytest.raises(InputError, match=r"b\.parquet: the only output column is that of 'no'.*'yes'"):
        audit(Stream(tmp_path), controls=())


def fails_with(code, call):
    with pytest.raises(InputError) as caught:
        call()
    return caught.value.code == code


def test_missing_values_of_whole_numbers_and_bools_in_few_blocks(tmp_path):
    n = np.arange(400)
    holes = {
        "whole": [None if at == 77 else at % 3 for at in range(400)],
        "flag": [None if at == 333 else at % 3 == 0 for at in range(400)],
        "text": [None if at == 5 else str(at % 3) for at in range(400)],
        "full": (n % 2 == 0).tolist(),
    }
    pq.write_table(pa.table({"member": n % 2, "loss": np.sin(n * n) ** 2, **holes}), tmp_path / "a.parquet")
    how = {"slices": list(holes), "min_n": 5, "controls": ()}
    memory = audit(Evidence.load(tmp_path), **how)
    for block in (7, 399, 1000):
        streamed = audit(Stream(tmp_path, block=block), **how)
        assert streamed.meta["data"]["digest"] == memory.meta["data"]["digest"]
        assert streamed.tables["slices"]["slice"] == memory.tables["slices"]["slice"]


def test_values_that_the_sketch_did_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr("divulge.streams.batches.LOOKS", 1)
    n = np.arange(3000)
    age = np.where(n < 1000, n % 50, 90.0)
    age[2990:] = np.nan
    table = {"member": n % 2, "loss": np.sin(n * n) ** 2, "age": age, "place": np.where(n < 2000, "here", "there")}
    pq.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=1000)
    report = audit(Stream(tmp_path), slices=["age/2", "place"], controls=(), min_n=2)
    sizes = {row["slice"]: row["members"] + row["nonmembers"] for row in report.rows("slices")}
    assert sizes == {
        "everyone": 3000,
        "age=below 25": 500,
        "age=25 up": 2490,
        "age=(missing)": 10,
        "place=here": 2000,
        "place=there": 1000,
    }


@pytest.mark.parametrize("overlapping", [False, True])
def test_small_slices_are_merged_as_in_memory(overlapping):
    evidence = toy(500, classes=9, columns=False)
    evidence.labels[:] = np.minimum(evidence.labels, np.random.default_rng(0).integers(0, 9, 500))
    if overlapping:
        evidence = replace(evidence, labels=np.eye(9, dtype=bool)[evidence.labels] | (np.arange(9) == 0))
    memory = slices.merge_small(slices.by_class(evidence), evidence.member, 18)
    report = audit(blocks(evidence, 50, 333), slices=["class"], min_n=18, controls=(), attacks="loss")
    rows = report.rows("slices")[1:]
    assert [row["slice"] for row in rows] == list(memory.partition.labels)
    assert rows[-1]["merged"] == list(memory.merged) and len(memory.merged) > 1
    if not overlapping:
        assert [row["members"] for row in rows] == memory.members.tolist()


# ----------------------------------------------------------------------------------------------- what is not taken


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([], "DV030"),
        ([toy(200).take(slice(0))], "DV005"),
        ([toy(200).take(toy(200).member)] * 2, "DV005"),
        ([toy(200), "no"], "DV056"),
        ([7, toy(200)], "DV002"),
        ([toy(200), toy(200, classes=4)], "DV018"),
        ([toy(200), toy(200, columns=False)], "DV018"),
        ([toy(200), replace(toy(200), kind="probs")], "DV018"),
        ([toy(200), replace(toy(200), labels=None)], "DV018"),
        ([replace(toy(200), classes=("a", "b", "c")), replace(toy(200), classes=("b", "a", "c"))], "DV018"),
    ],
)
def test_blocks_that_are_no_stream(given, code, monkeypatch):
    for looked_at in (1 << 20, 1):  # found in the sketch, or while it is counted
        monkeypatch.setattr(reading, "SKETCHED", looked_at)
        with pytest.raises(InputError) as caught:
            audit(given, controls=(), attacks=["loss", "class_wise(loss)"])
        assert caught.value.code == code


def test_evidence_itself_is_a_stream_of_one_block(evidence, whole):
    assert same(audit(Stream(evidence), **options(records=True)), whole)


def odd(folder, kind):
    """Ten good files, and one in the middle that is not like them."""
    saved(folder, blocks(toy(1100), *range(100, 1100, 100)))
    path, table = folder / "005.parquet", pq.read_table(folder / "005.parquet")
    if kind == "width":
        toy(100, classes=4).save(path)
    elif kind == "classes":
        replace(toy(100), classes=("x", "y", "z")).save(path)
    elif kind == "column":
        pq.write_table(table.drop_columns(["column_sex"]), path)
    elif kind == "infinite":
        evidence = toy(100)
        evidence.outputs[3, 1] = np.inf
        evidence.save(path)
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-700])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "page":
        pq.write_table(
            table, path, compression="none", use_dictionary=False, write_page_checksum=True, row_group_size=30
        )
        damage(path)
    return path


def damage(path):
    """The last row group's outputs overwritten; the footer as it was."""
    about = pq.ParquetFile(path).metadata
    last = about.row_group(about.num_row_groups - 1)
    column = next(
        last.column(at) for at in range(last.num_columns) if last.column(at).path_in_schema.startswith("logits")
    )
    data = bytearray(path.read_bytes())
    end = column.data_page_offset + column.total_compressed_size  # numbers, so that only its checksum tells
    data[end - 24 : end] = bytes(24)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("width", "DV018"),
        ("classes", "DV018"),
        ("column", "DV018"),
        ("infinite", "DV006"),
        ("truncated", "DV032"),
        ("empty", "DV032"),
        ("page", "DV032"),
    ],
)
def test_a_file_unlike_the_others_is_named_kept_out_and_mended(tmp_path, kind, code):
    folder = tmp_path / "files"
    path = odd(folder, kind)
    with pytest.raises(InputError, match=r"005\.parquet.*Nothing is kept") as caught:
        audit(Stream(folder, block=17), **options())
    assert caught.value.code == code
    skipped = audit(Stream(folder, skip_bad_files=True, block=17), **options())
    assert list(skipped.meta["stream"]["left_out"]) == ["005.parquet"] and skipped.meta["stream"]["files"] == 10
    good = [file for file in sorted(folder.iterdir()) if file != path]
    assert same(skipped, audit(Stream(good), **options()))  # none of its row groups count
    with pytest.raises(InputError, match=r"005\.parquet.*All other files are counted and kept") as caught:
        audit(Stream(folder, checkpoint=tmp_path / "kept.npz"), **options())
    assert caught.value.code == code
    toy(1100).take(slice(500, 600)).save(path)
    seen = []
    mended = audit(
        Stream(folder, checkpoint=tmp_path / "kept.npz"),
        **options(progress=lambda done, whole, what: seen.append((done, whole)) if "records," in what else None),
    )
    assert seen == [(1100, 1100)]  # one file was left to read
    assert same(mended, audit([toy(1100)], **options()))


@pytest.mark.parametrize("at", [0, 5, 10])
@pytest.mark.parametrize("kind", ["column", "classes", "several"])
def test_one_odd_file_never_outvotes_the_others_wherever_it_stands(tmp_path, at, kind):
    parts = blocks(toy(1100, ids=np.arange(1100)), *range(100, 1100, 100))
    odd = parts[at]
    if kind == "classes":
        odd = replace(odd, classes=("x", "y", "z"))
    else:
        odd = replace(odd, columns={**odd.columns, "extra": np.arange(100.0)})
    path = saved(tmp_path, [*parts[:at], odd, *parts[at + 1 :]]) / f"{at:03}.parquet"
    if kind == "several":  # row groups, more than all other files together have
        pq.write_table(pq.read_table(path), path, row_group_size=5)
    with pytest.raises(InputError, match=rf"{path.name}: .*Nothing is kept") as caught:
        audit(Stream(tmp_path), **options())
    assert caught.value.code == "DV018"
    skipped = audit(Stream(tmp_path, skip_bad_files=True), **options())
    assert list(skipped.meta["stream"]["left_out"]) == [path.name]
    assert same(skipped, audit([*parts[:at], *parts[at + 1 :]], **options()))
    assert fails_with("DV018" if kind == "classes" else "DV032", lambda: Evidence.load(tmp_path))


def test_sides_in_files_of_other_columns_are_told_apart_by_what_is_asked_for(tmp_path):
    evidence = toy(400, ids=np.arange(400))
    for side, name in ((evidence.member, "train"), (~evidence.member, "test")):
        table = {"member": evidence.member[side], "loss": -evidence.outputs[side, 0], "age": evidence.ids[side] % 4}
        more = {"extra": evidence.ids[side]} if name == "train" else {}
        pq.write_table(pa.table(table | more), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"'extra' is in only one of .*test\.parquet and .*train\.parquet") as caught:
        audit(Stream(tmp_path), controls=())
    assert caught.value.code == "DV018"
    report = audit(Stream(tmp_path, Overrides(columns=["age"])), controls=(), slices=["age"], min_n=5)
    assert report.meta["data"]["members"] == 200 and len(report.rows("slices")) == 5


@pytest.mark.parametrize("seen", [50, 1 << 14])
def test_rows_are_named_by_their_number_in_the_file(tmp_path, monkeypatch, seen):
    monkeypatch.setattr("divulge.streams.batches.SEEN", seen)  # the sketch sees the row, or does not
    monkeypatch.setattr("divulge.streams.batches.PART", 200)
    evidence = toy(1000)
    evidence.outputs[777, 1] = np.inf
    saved(tmp_path, [evidence], 100)
    expected = r"000\.parquet: logits holds NaN or ±inf in 1 of 30 rows from row 750 on \(row 777\)"
    with pytest.raises(InputError, match=expected):
        audit(Stream(tmp_path, block=30), controls=())
    with pytest.raises(InputError, match=r"table 1: logits .* rows from row 0 on \(row 277\)"):
        audit(Stream(blocks_as_tables(evidence, 500)), controls=())


def blocks_as_tables(evidence, *cuts):
    return [Plainly.of(part) for part in blocks(evidence, *cuts)]


def test_when_every_file_is_bad_the_first_is_named_though_they_may_be_skipped(tmp_path):
    for at in range(2):
        (tmp_path / f"{at}.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"0\.parquet") as caught:
        audit(Stream(tmp_path, skip_bad_files=True))
    assert caught.value.code == "DV032"


def test_files_without_rows_and_row_groups_without_rows_are_no_harm(tmp_path, evidence, whole):
    saved(tmp_path, [evidence.take(slice(0)), *blocks(evidence, 300)])
    table = pq.read_table(tmp_path / "001.parquet")
    with pq.ParquetWriter(tmp_path / "001.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 100), table.slice(0, 0), table.slice(100)):
            writer.write_table(part)
    assert [part.rows for part in parts_of(tmp_path / "001.parquet")] == [300]
    assert parts_of(tmp_path / "000.parquet") == []
    report = audit(Stream(tmp_path), **options(records=True))
    assert same(report, whole) and report.meta["stream"]["files"] == 3


def test_one_side_after_the_other_in_one_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr("divulge.streams.batches.SEEN", 50)
    evidence = toy(1000, ids=np.arange(1000))
    evidence = evidence.take(np.argsort(~evidence.member, kind="stable"))
    saved(tmp_path, [evidence])
    report = audit(Stream(tmp_path), **options())
    assert same(report, audit([evidence], **options()))
    assert report.meta["stream"]["sketch"] > 100


def test_files_of_one_name_in_two_folders_are_two_and_a_file_named_twice_is_refused(tmp_path, evidence, whole):
    for name, side in (("train", evidence.member), ("test", ~evidence.member)):
        saved(tmp_path / name, [evidence.take(side)])
    source = [tmp_path / "train", tmp_path / "test"]
    for _ in range(2):
        report = audit(Stream(source, checkpoint=tmp_path / "kept.npz"), **options(records=True))
        assert same(report, whole) and report.meta["stream"]["files"] == 2
    (tmp_path / "link.parquet").symlink_to(tmp_path / "test" / "000.parquet")
    for other in (tmp_path / "test" / "000.parquet", tmp_path / "link.parquet", tmp_path / "train" / ".." / "test"):
        with pytest.raises(InputError) as caught:
            listed([*source, other])
        assert caught.value.code == "DV008"


# ------------------------------------------------------------------------------------- groups, copies, both sides


@pytest.mark.parametrize("groups", [True, False])
def test_effective_shares_are_those_of_memory_where_units_are_few(groups):
    rng = np.random.default_rng(2)
    n = 900
    copied = np.concatenate([np.arange(600), rng.integers(0, 300, 300)])
    member = np.arange(600) % 2 == 0
    loss = rng.normal(size=600)
    loss[500:] = 0.5  # 50 on each side that are alike: no copies
    evidence = Evidence(member[copied], signals={"loss": loss[copied]})
    if groups:
        evidence = replace(evidence, signals={"loss": rng.normal(size=n)}, groups=copied)
    with_copies = copies.with_copies_grouped(evidence, identity.content_hashes(evidence))
    expected = folds.effective_shares(evidence.member, with_copies.groups)
    found = tally_of(blocks(evidence, 100, 777))
    assert measured.effective_of(found) == pytest.approx(expected)
    assert max(expected) < 0.9


def test_saturated_rows_are_no_copies_and_count_as_one_each():
    rng = np.random.default_rng(2)
    p = rng.uniform(0.5, 0.9, 300)
    p[100:200] = 1.0
    p = np.concatenate([p, p[:60]])
    evidence = Evidence(np.arange(360) % 2 == 0, outputs=np.c_[p, 1 - p], kind="probs")
    evidence = replace(evidence, member=np.concatenate([evidence.member[:300], evidence.member[:60]]))
    with_copies = copies.with_copies_grouped(evidence, identity.content_hashes(evidence))
    expected = folds.effective_shares(evidence.member, with_copies.groups)
    assert measured.effective_of(tally_of([evidence])) == pytest.approx(expected)


@pytest.mark.parametrize("groups", [True, False])
def test_effective_shares_of_many_units_are_near(monkeypatch, groups):
    monkeypatch.setattr("divulge.streams.sketches.UNITS", 2000)
    rng = np.random.default_rng(3)
    of = np.repeat(np.arange(12_000), rng.integers(1, 5, 12_000))
    loss = rng.normal(size=len(of)) if groups else rng.normal(size=12_000)[of]
    member = of % 2 == 0
    evidence = Evidence(member, signals={"loss": loss}, groups=of if groups else None)
    expected = folds.effective_shares(member, of)
    found = measured.effective_of(tally_of(blocks(evidence, 5000, 20_000)))
    assert found == pytest.approx(expected, rel=0.05) and UNITS > 2000


def numbered(parts):
    """Blocks of one table, each with its place."""
    return [Block(part, f"block {at}", 0) for at, part in enumerate(parts)]


def with_places(evidence):
    return placed(evidence, np.arange(len(evidence), dtype=np.uint64))


def tally_of(parts):
    """What is counted of blocks, by the loss alone."""
    plan, _ = planning.planned(
        with_places(parts[0]), attacks="loss" if parts[0].signals else "confidence", slices=[], seed=0, sample=10
    )
    total = None
    for block in numbered(parts):
        counted = added(plan, [block])
        total = counted if total is None else total + counted
    return total


def test_tallies_are_added_up_before_what_waits_holds_more_than_their_sum(monkeypatch):
    evidence = toy(4000)
    parts = [evidence.take(slice(row, row + 40)) for row in range(0, len(evidence), 40)]
    plan, _ = planning.planned(evidence, attacks="loss", slices=["class", "sex"], seed=0, sample=50)
    tallies = [added(plan, [block]) for block in numbered(parts)]
    together, handled = Tally.together, []
    monkeypatch.setattr(Tally, "together", staticmethod(lambda many: handled.append(len(many)) or together(many)))
    total = Total()
    for at, one in enumerate(tallies):
        total.add(one, {str(at): at})
        assert total._size < max(total.tally.size, 1) and len(total.of) + len(total._waiting) == at + 1
    whole = total.settled()
    assert sum(handled) < 2.5 * len(parts) and list(total.of.values()) == list(range(len(parts)))
    one_by_one = reduce(lambda a, b: a + b, tallies)
    for array in (lambda one: one.rows, lambda one: one.digest, lambda one: one.copies.hashes):
        np.testing.assert_array_equal(array(whole), array(one_by_one))
    np.testing.assert_array_equal(whole.everyone["loss"].bins, one_by_one.everyone["loss"].bins)
    np.testing.assert_array_equal(whole.everyone["loss"].counts, one_by_one.everyone["loss"].counts)
    for ours, theirs in zip(whole.slices, one_by_one.slices, strict=True):
        np.testing.assert_array_equal(ours.counts["loss"].counts, theirs.counts["loss"].counts)


def test_what_the_slices_hold_is_limited_of_all_partitions_together(monkeypatch):
    evidence = toy(2000)
    cuts = (["class"], ["sex"], ["class", "sex"])
    plans = [planning.planned(evidence, attacks="loss", slices=cut, seed=0, sample=5)[0] for cut in cuts]
    *alone, both = (
        sum(part.counts["loss"].counts.size for part in added(plan, numbered([evidence])).slices) for plan in plans
    )
    monkeypatch.setattr("divulge.streams.tally.MOST_CELLS", (max(alone) + both) // 2)
    for plan in plans[:2]:
        added(plan, numbered(blocks(evidence, 1000)))
    with pytest.raises(InputError, match=r"slicing by (class|sex) makes 3 slices and more") as caught:
        added(plans[2], numbered(blocks(evidence, 1000)))
    assert caught.value.code == "DV053"


def test_what_counting_refuses_is_no_fault_of_a_file(tmp_path, evidence, monkeypatch):
    saved(tmp_path, blocks(evidence, 300))
    monkeypatch.setattr("divulge.streams.tally.MOST_CELLS", 10)
    with pytest.raises(InputError, match="slicing by class makes 3 slices") as caught:
        audit(Stream(tmp_path, skip_bad_files=True, block=100), **options(slices=["class"]))
    assert caught.value.code == "DV053" and "parquet" not in str(caught.value)


def test_what_is_left_out_at_once_would_not_have_stayed(monkeypatch):
    monkeypatch.setattr("divulge.streams.sketches.UNITS", 5)
    n = np.arange(900)
    evidence = Evidence(n % 2 == 0, signals={"loss": np.sin(n // 9)}, ids=n // 15, groups=n // 20)
    plan, _ = planning.planned(evidence, attacks="loss", slices=[], seed=0, sample=10)
    for seed in range(10):
        rows = evidence.take(np.random.default_rng(seed).permutation(900))
        at_once, bit_by_bit = added(plan, numbered([rows])), added(plan, numbered(blocks(rows, *range(30, 900, 30))))
        for name in ("ids", "groups", "copies"):
            ours, theirs = getattr(at_once, name), getattr(bit_by_bit, name)
            assert len(ours.hashes) == 5
            for column in ("hashes", "members", "nonmembers"):
                assert getattr(ours, column).tolist() == getattr(theirs, column).tolist()
        assert at_once.sample.hashes.tolist() == bit_by_bit.sample.hashes.tolist()


@pytest.mark.parametrize("by", ["id", "signals"])
def test_records_on_both_sides_are_told_of_as_in_memory_but_left_in(by):
    rng = np.random.default_rng(4)
    loss = rng.normal(size=900)
    member = np.arange(1000) < 500
    loss = np.concatenate([loss, loss[:100]])
    ids = np.concatenate([np.arange(900), np.arange(100)])
    evidence = Evidence(member, signals={"loss": loss}, ids=ids if by == "id" else None)
    shared = shared_records(evidence, identity.content_hashes(evidence))
    report = audit(blocks(evidence, 450, 950), controls=["duplicates"], attacks="loss")
    told = outcome(report, "duplicates")
    assert told["status"] == "warning" and told["value"] == shared.nonmembers / shared.of == 0.2
    assert f"share their {shared.by} with a member; counted all the same" in told["text"]
    assert report.meta["data"]["nonmembers"] == 500


def test_groups_on_both_sides_are_counted_in_the_stream_not_in_the_sample():
    n = np.arange(4000)
    evidence = Evidence(n % 2 == 0, signals={"loss": np.sin(n * n)}, groups=n // 2)
    told = outcome(audit(Stream([evidence], sample=40), controls=["groups"], attacks="loss"), "groups")
    assert told["status"] == "warning" and told["value"] == 1.0


# ------------------------------------------------------------------------------------------------ controls, callables


def labelled(n=3000, **more):
    return toy(n, leak=0.0, columns=False, ids=np.arange(n), **more)


def cheat(block, rng):
    """Knows the side."""
    return block.member + 0.1 * block.outputs[:, 0]


def blind_of_leaks(block, rng):
    """Reads the record, and says what no leak can raise."""
    return -np.abs(block.outputs).max(axis=1) + 0.0 * block.outputs[:, 0]


@pytest.mark.parametrize(
    ("sabotage", "attack", "control"),
    [
        (lambda e: replace(e, features=np.c_[e.outputs + 1.5 * e.member[:, None]]), "loss", "shift"),
        (lambda e: e, cheat, "null"),
        (lambda e: e, blind_of_leaks, "positive"),
    ],
    ids=["shift", "null", "positive"],
)
def test_a_sabotage_is_seen_as_in_memory(sabotage, attack, control):
    evidence = sabotage(labelled())
    how = {"attacks": [attack], "controls": [control]}
    memory, streamed = audit(evidence, **how), audit(Stream(blocks(evidence, 700, 1500), sample=1200), **how)
    assert outcome(memory, control)["status"] == outcome(streamed, control)["status"] == "invalid"
    assert streamed.verdict == "INVALID"


def test_sound_data_raise_no_control_and_power_speaks_of_all_rows(tmp_path):
    evidence = labelled(6000)
    memory, streamed = audit(evidence), audit(Stream(blocks(evidence, 4000), sample=500))
    assert {row["status"] for row in streamed.rows("controls")} <= {"ok", "not run"}
    power = [outcome(report, "power") for report in (memory, streamed)]
    assert repr(power[0]) == repr(power[1])
    assert outcome(streamed, "drift")["reason"].startswith("a sample of a stream has no order")


def by_row(block, rng):
    return block.outputs @ np.array([1.0, -1.0, 0.5], np.float32)


def ranked_in_block(block, rng):
    return np.argsort(np.argsort(block.outputs[:, 0])) / len(block)


def scaled_by_block(block, rng):
    return block.outputs[:, 0] / block.outputs[:, 0].max()


def drawn(block, rng):
    return rng.random(len(block))


class Ranked:
    """Ranks among the sample's."""

    def __call__(self, evidence, rng):
        raise AssertionError("a stream fits it")

    def fit(self, sample, rng):
        known = np.sort(sample.outputs[:, 0])
        return lambda block: np.searchsorted(known, block.outputs[:, 0]) / len(known)


def test_callables_that_say_of_a_row_what_it_is_run():
    report = audit(blocks(toy(), 1, 300), attacks=[by_row, Ranked()], controls=())
    assert [row["status"] for row in report.rows("attacks")] == ["ran", "ran"]


class Memory(Ranked):
    """Knows the members that it was fitted on, and nothing else."""

    fitted = True

    def fit(self, sample, rng):
        members = sample.outputs[sample.member, 0]
        return lambda block: np.isin(block.outputs[:, 0], members) + 0.01 * block.outputs[:, 0]


def test_a_row_is_scored_by_what_the_other_half_taught():
    report = audit(blocks(labelled(), 900), attacks=[Memory()], controls=(), records=True, seed=3)
    found = next(row for row in report.rows("results") if row["metric"] == "auc")
    assert found["low"] < 0.5 < found["high"]
    assert max(report.tables["records"]["score"]) < 0.5  # the sample's rows too


@pytest.mark.slow
def test_attacks_fitted_on_a_sketch_find_nothing_where_there_is_nothing(monkeypatch):
    monkeypatch.setattr(reading, "SKETCHED", 600)
    attacks = ["loss", "class_wise(loss)", "learned(logistic)", "quantile(class)"]
    alarms = 0
    for seed in range(SEEDS):
        evidence = toy(2000, seed=seed, leak=0.0)
        alarms += audit(blocks(evidence, *range(100, 2000, 100)), attacks=attacks, controls=()).score.low > 0
    assert binomtest(alarms, SEEDS, 0.05, "greater").pvalue > 0.01


class Broadcast(Ranked):
    def fit(self, sample, rng):
        return lambda block: 1.0


def test_what_fit_makes_must_give_a_number_a_record():
    with pytest.raises(InputError, match=r"shape \(\)") as caught:
        audit(blocks(toy(), 300), attacks=[Broadcast()], controls=())
    assert caught.value.code == "DV057"


def test_a_sketch_of_one_side_only_looks_on_for_the_other(tmp_path):
    evidence = toy(1000)
    evidence = evidence.take(np.argsort(evidence.member, kind="stable"))
    parts = [*blocks(evidence, *range(20, 1000, 20))]
    assert same(audit(iter(parts), **options()), audit([evidence], **options()))
    saved(tmp_path, [parts[-1], *parts[:-1]])
    assert same(audit(Stream(tmp_path), **options()), audit([evidence], **options()))


@pytest.mark.parametrize("attack", [ranked_in_block, scaled_by_block, drawn])
def test_callables_that_look_at_the_rest_of_the_block_are_refused(attack):
    for seed in range(4):
        with pytest.raises(Unavailable, match=r"depend on other records of a block: give it fit\(sample, rng\)"):
            audit(blocks(toy(seed=seed), 300), attacks=[attack], controls=())


def test_what_an_attack_raises_comes_out_at_once_and_the_limits_of_threads_with_it():
    from threadpoolctl import threadpool_info

    def late(block, rng):
        if block.ids.max() >= 500:
            raise ZeroDivisionError("mine")
        return block.outputs[:, 0]

    evidence = toy(ids=np.arange(600))
    before = [(library["prefix"], library["num_threads"]) for library in threadpool_info()]
    with pytest.raises(ZeroDivisionError, match="mine"):
        audit(Stream(blocks(evidence, 100, 400), block=50), attacks=[late], controls=())
    assert [(library["prefix"], library["num_threads"]) for library in threadpool_info()] == before


def test_after_an_error_others_begin_no_more_blocks():
    begun, calls = threading.Event(), []

    def mine(block, rng):
        if threading.current_thread() is threading.main_thread():
            return block.outputs[:, 0]
        if block.ids[0] < 100:
            begun.wait(60)
            raise ZeroDivisionError("mine")
        begun.set()
        calls.append(1)
        return block.outputs[:, 0]

    parts = blocks(toy(3100, ids=np.arange(3100)), 100)
    with pytest.raises(ZeroDivisionError):
        audit(Stream(parts, workers=2, block=1), attacks=[mine], controls=())
    assert 0 < len(calls) < 3000


def test_columns_sliced_by_a_callers_own_function():
    def thirds(evidence):
        return slices.Partition("thirds", (evidence.ids % 3).astype(np.int32), ("c", "a", "b"))

    report = audit(blocks(toy(ids=np.arange(600)), 100), slices=[thirds, by_column("sex")], controls=(), min_n=5)
    assert [row["slice"] for row in report.rows("slices")][1:4] == ["c", "a", "b"]


def by_half(block):
    above = block.outputs[:, 0] > np.median(block.outputs[:, 0])
    return slices.Partition("half", above.astype(np.int32), ("low", "high"))


def numbered_in_block(block):
    return slices.Partition("row", np.arange(len(block), dtype=np.int32) % 5, tuple("abcde"))


@pytest.mark.parametrize("slicer", [by_half, numbered_in_block, slices.crossed(by_column("sex"), by_half)])
def test_slicers_that_look_at_the_rest_of_the_block_are_refused(slicer):
    for seed in range(4):
        with pytest.raises(InputError, match=r"depend on other records of a block.*each record alone") as caught:
            audit(blocks(toy(seed=seed), 300), slices=[slicer], controls=())
        assert caught.value.code == "DV053"


def test_a_file_of_another_kind_is_refused_with_the_way_out(tmp_path):
    evidence = Evidence(np.arange(40) < 20, signals={"loss": np.sin(np.arange(40.0))})
    evidence.save(tmp_path / "x.npz")
    with pytest.raises(InputError, match=r"DV031.*x\.npz is no Parquet file.*in memory"):
        audit(Stream(tmp_path / "x.npz"))


@pytest.mark.parametrize("make", ["record batches", "a reader", "pandas", "polars"])
def test_tables_of_others_are_blocks(make):
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    member = np.arange(400) < 200
    columns = {"member": member, "loss": -np.sin(np.arange(400.0)) - 0.5 * member, "sex": np.array(["f", "m"] * 200)}
    table = pa.table(columns)
    batches = table.to_batches(max_chunksize=90)  # the first two hold members only
    tables = {
        "record batches": lambda: batches,
        "a reader": lambda: pa.RecordBatchReader.from_batches(table.schema, batches),
        "pandas": lambda: [pd.DataFrame(columns).iloc[:90], pd.DataFrame(columns).iloc[90:]],
        "polars": lambda: [pl.DataFrame(columns)[:90], pl.DataFrame(columns)[90:]],
    }
    report = audit(Stream(tables[make]()), slices=["sex"], controls=())
    whole = audit([Evidence.from_table(table)], slices=["sex"], controls=())
    assert report.score == whole.score and report.tail == whole.tail
    assert report.meta["data"]["digest"] == whole.meta["data"]["digest"]


@pytest.mark.parametrize("make", [pa.table, pa.record_batch, "pandas", "polars", dict])
def test_one_table_is_a_stream_of_one_block(make):
    import pandas as pd
    import polars as pl

    n = np.arange(200)
    columns = {"member": n % 2 == 0, "loss": np.sin(n) ** 2, "id": n}
    table = {"pandas": pd.DataFrame, "polars": pl.DataFrame}.get(make, make)(columns)
    report = audit(Stream(table), controls=())
    assert report.meta["data"]["digest"] == audit(Evidence.from_table(columns), controls=()).meta["data"]["digest"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"columns": {}}, "columns=.*Overrides.*got dict"),
        ({"workers": True}, "workers"),
        ({"block": True}, "block"),
        ({"source": 5}, "expected a folder.*got int"),
    ],
)
def test_settings_that_are_none(given, words):
    with pytest.raises(InputError, match=rf"DV056.*{words}"):
        Stream(**{"source": "folder", **given})


def test_each_block_is_looked_at_once_before_the_first_is_counted(monkeypatch):
    looked, length = [], Evidence.__len__
    monkeypatch.setattr(Evidence, "__len__", lambda self: looked.append(1) or length(self))

    def looks(number):
        looked.clear()
        with pytest.raises(ZeroDivisionError):
            reading.read(Stream([toy(4)] * number), lambda sketch: 1 / 0, lambda *done: None)
        return len(looked)

    assert looks(400) - looks(200) <= 1.1 * (looks(200) - looks(1))


def test_what_is_no_table_is_said():
    with pytest.raises(InputError, match=r"DV002.*record batches"):
        audit(Stream([3.5, 4.5]))


@pytest.mark.slow
def test_a_stream_without_a_leak_seldom_looks_like_one():
    """The default set, fitted on the sketch: the score is credibly above 0 in at most 2.5 %."""
    above = 0
    for seed in range(5 * SEEDS):
        rng = np.random.default_rng(seed)
        labels, outputs = rng.integers(0, 5, 1500), rng.normal(size=(1500, 5)).astype(np.float32)
        outputs[np.arange(1500), labels] += 1
        evidence = Evidence(rng.random(1500) < 0.5, outputs=outputs, labels=labels, kind="logits")
        parts = [evidence.take(slice(0, 500)), evidence.take(slice(500, None))]
        above += audit(parts, attacks="default", controls=(), seed=seed).score.low > 0
    assert binomtest(above, 5 * SEEDS, 0.025, "greater").pvalue > 1e-4
