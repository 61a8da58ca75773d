"""Files: what is saved comes back the same, a killed save changes nothing, and bad content is one clear error."""

from __future__ import annotations

import io
import os
import pickle
import string
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divulge import files
from divulge.atomic import replacing
from divulge.doors.archives import write_arrays
from divulge.errors import InputError
from divulge.evidence import Evidence, References
from divulge.streams.batches import listed

FORMATS = ["npz", "parquet", "csv"]
in_the_same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
words = st.sampled_from(["ant", "bee", "", "naïve", 'a "quoted" one', "two\nlines", "comma, too"])


@st.composite
def evidences(draw: st.DrawFn, *, csv: bool = False) -> Evidence:
    """Evidence of every task, with any fields; for .csv without what .csv cannot say."""
    n, c, seed = draw(st.integers(2, 6)), draw(st.integers(2, 4)), draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    task = draw(st.sampled_from(["multiclass", "binary", "multilabel", "regression", "unlabelled", "signals"]))
    logits = rng.normal(scale=5, size=(n, c)).astype(dtype)
    given_: dict[str, Any] = {"outputs": logits, "kind": "logits", "labels": rng.integers(0, c, n)}
    if task == "binary":
        given_ = {"outputs": rng.random(n).astype(dtype), "kind": "probs", "labels": np.arange(n) % 2}
    elif task == "multilabel":
        given_ |= {"labels": (rng.random((n, c)) < 0.5) | (np.arange(n)[:, None] == 0)}
    elif task == "regression":
        given_ = {"outputs": np.abs(logits[:, :2]) + 1, "labels": rng.normal(size=n)}
    elif task == "unlabelled":
        del given_["labels"]
    elif task == "signals":
        given_ = {"labels": np.arange(n) % c} if draw(st.booleans()) else {}
    width = {
        "binary": 2,
        "regression": 0,
        "signals": int(given_["labels"].max()) + 1 if "labels" in given_ else 0,
    }
    if (k := width.get(task, c)) and draw(st.booleans()):
        given_["classes"] = tuple(string.ascii_lowercase[:k])
    name = st.from_regex(r"[a-z]\w{0,5}", fullmatch=True) if csv else names
    given_["signals"] = {"x": rng.normal(size=n)} | {
        key: rng.normal(size=n) for key in draw(st.lists(name, max_size=2))
    }
    texts = draw(st.lists(words, min_size=n, max_size=n))
    given_["columns"] = {
        "text": np.array([*texts[:-1], "z"] if csv else texts),
        "gaps": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
        "yes": rng.random(n) < 0.5,
        draw(name) + "_": rng.integers(-5, 5, n),
    }
    for key, array in (
        ("features", rng.normal(size=(n, 2)).astype(np.float32)),
        ("traces", rng.normal(size=(n, 3))),
        ("ids", np.arange(n) + 7),
        ("groups", np.array([f"person {i // 2}" for i in range(n)])),
    ):
        if draw(st.booleans()):
            given_[key] = array
    return Evidence(np.arange(n) % 2 == 0, **given_)


def assert_same(a: Any, b: Any, *, dtypes: bool) -> None:
    """Every field equal, NaN and order of mappings included; with `dtypes` also their types."""
    for field in fields(type(a)):
        one, two = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, dict):
            assert list(one) == list(two) or (not dtypes and sorted(one) == sorted(two))
            pairs = [(one[name], two[name]) for name in one]
        elif isinstance(one, np.ndarray):
            pairs = [(one, two)]
        elif isinstance(one, References):
            assert_same(one, two, dtypes=dtypes)
            continue
        else:
            assert one == two, field.name
            continue
        for left, right in pairs:
            assert right.shape == left.shape
            if left.dtype.kind == "f":  # a .csv has no dtypes, but it gives every digit back
                np.testing.assert_array_equal(right.astype(left.dtype), left)
            else:
                np.testing.assert_array_equal(right, left)
            assert not dtypes or (right.dtype == left.dtype or left.dtype.kind == "U")


@in_the_same_folder
@given(evidence=evidences(), suffix=st.sampled_from(["npz", "parquet"]))
def test_what_is_saved_comes_back(tmp_path: Path, evidence: Evidence, suffix: str) -> None:
    path = tmp_path / f"evidence.{suffix}"
    evidence.save(path)
    assert_same(evidence, Evidence.load(path), dtypes=True)


@in_the_same_folder
@given(evidence=evidences(csv=True))
def test_what_is_saved_as_csv_comes_back(tmp_path: Path, evidence: Evidence) -> None:
    path = tmp_path / "evidence.csv"
    if evidence.labels is not None and evidence.labels.ndim == 2 and evidence.classes:
        evidence = replace(evidence, labels=None)  # multi-hot columns are numbered, and take their names from outputs
    evidence.save(path)
    assert_same(evidence, Evidence.load(path), dtypes=False)


def test_references_come_back_from_npz_and_are_refused_elsewhere(tmp_path: Path) -> None:
    references = References(
        signals={
            "log_odds": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
            "log_prob@T=2": np.ones((2, 3, 1)),
        },
        target={"log_odds": np.zeros((3, 2))},
        trained_on=np.array([[True, False, True], [False, True, False]]),
    )
    evidence = Evidence(np.array([True, False, True]), references=references)
    evidence.save(tmp_path / "e.npz")
    assert_same(evidence, Evidence.load(tmp_path / "e.npz"), dtypes=True)
    for suffix in ("csv", "parquet"):
        error = fails(lambda suffix=suffix: evidence.save(tmp_path / f"e.{suffix}"))  # type: ignore[misc]
        assert (error.code, ".npz" in error.message) == ("DV034", True)


def test_long_texts_come_back_from_npz_without_a_pickle(tmp_path: Path) -> None:
    texts = np.array(["x" * 9_000, "ü", "", "a"], dtype=object)
    evidence = Evidence(np.array([True, False] * 2), signals={"x": np.zeros(4)}, columns={"note": texts})
    evidence.save(tmp_path / "e.npz")
    assert Evidence.load(tmp_path / "e.npz").columns["note"].tolist() == texts.tolist()


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_evidence_is_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    evidence = small()
    evidence.save(tmp_path / f"a.{suffix}")
    evidence.save(tmp_path / f"b.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def small() -> Evidence:
    return Evidence(np.array([True, False]), signals={"x": np.array([1.0, 0.0])}, columns={"age": np.array([30, 40])})


def fails(make: Callable[[], object]) -> InputError:
    with pytest.raises(InputError) as caught:
        make()
    assert len(caught.value.message) < 1_000
    return caught.value


def test_parquet_holds_fixed_size_lists(tmp_path: Path) -> None:
    outputs = np.zeros((2, 3), np.float32)
    Evidence(np.array([True, False]), outputs=outputs, kind="logits").save(tmp_path / "e.parquet")
    assert pq.read_schema(tmp_path / "e.parquet").field("logits").type == pa.list_(pa.float32(), 3)


def test_columns_may_be_chosen_of_a_saved_file_and_nothing_else(tmp_path: Path) -> None:
    small().save(tmp_path / "e.npz")
    assert list(Evidence.load(tmp_path / "e.npz", columns=[]).columns) == []
    assert list(Evidence.load(tmp_path / "e.npz", columns=["age"]).columns) == ["age"]
    assert fails(lambda: Evidence.load(tmp_path / "e.npz", columns=["aeg"])).code == "DV001"
    assert fails(lambda: Evidence.load(tmp_path / "e.npz", label="y")).code == "DV017"


# Files that others wrote


def test_npz_in_tf_privacys_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"logits_{side}": rng.normal(size=(n, 4)) for side, n in (("train", 5), ("test", 3))}
    arrays |= {"labels_train": np.arange(5) % 4, "labels_test": np.arange(3)}
    np.savez(tmp_path / "p.npz", **arrays)
    evidence = Evidence.load(tmp_path / "p.npz")
    assert_same(evidence, Evidence.from_splits(arrays), dtypes=True)
    assert fails(lambda: Evidence.load(tmp_path / "p.npz", label="y")).code == "DV017"


def test_npz_with_one_array_a_column(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "p.npz",
        split=["train", "test"],
        loss=[0.1, 0.7],
        age=[3, 4],
        y=["b", "a"],
        classes=["a", "b"],
    )
    evidence = Evidence.load(tmp_path / "p.npz", columns=["age"])
    assert (evidence.signals["loss"].tolist(), list(evidence.columns)) == ([-0.1, -0.7], ["age"])
    assert (evidence.classes, np.asarray(evidence.labels).tolist()) == (("a", "b"), [1, 0])


def test_a_folder_of_parquet_is_one_table_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "split=train"
    folder.mkdir()
    for part, (split, loss) in {"b": ("test", 0.7), "a": ("train", 0.1), "c": ("train", 0.2)}.items():
        pq.write_table(pa.table({"split": [split], "loss": [loss]}), folder / f"{part}.parquet")
    (folder / "_SUCCESS").touch()
    evidence = Evidence.load(folder)
    assert evidence.signals["loss"].tolist() == [-0.1, -0.7, -0.2]
    assert evidence.member.tolist() == [True, False, True]
    pq.write_table(pa.table({"other": [1]}), folder / "d.parquet")
    assert fails(lambda: Evidence.load(folder)).code == "DV032"


@pytest.mark.parametrize("read", [Evidence.load, listed], ids=["memory", "stream"])
def test_what_a_folder_holds_beside_its_files_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, read: Callable[[Path], object]
) -> None:
    table = pa.table({"split": ["train", "test"], "loss": [0.1, 0.7]})
    for name in ("a.parquet", ".b.parquet", "_c.parquet"):
        pq.write_table(table, tmp_path / name)
    for name in ("_SUCCESS", "_metadata", ".a.parquet.crc", "notes.txt", "d.npz"):
        (tmp_path / name).touch()
    for name in ("part.parquet", "more", ".ipynb_checkpoints"):
        (tmp_path / name).mkdir()
    found = read(tmp_path)
    assert found == [tmp_path / "a.parquet"] or (isinstance(found, Evidence) and len(found) == 2)
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "not read: '.b.parquet', '_c.parquet', 'd.npz', 'more/', 'part.parquet/'." in line
    (tmp_path / "e.parquet").symlink_to(tmp_path / "gone.parquet")
    error = fails(lambda: read(tmp_path))
    assert (error.code, "'e.parquet'" in error.message) == ("DV030", True)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "g.parquet").mkdir()
    assert "it holds 'g.parquet/'" in fails(lambda: read(tmp_path / "f")).message


def test_content_is_looked_at_where_the_suffix_says_nothing(tmp_path: Path) -> None:
    for suffix in ("npz", "parquet"):
        small().save(tmp_path / f"e.{suffix}")
        (tmp_path / f"e.{suffix}").rename(tmp_path / "download")
        assert len(Evidence.load(tmp_path / "download")) == 2


class Evil:
    """Unpickling this would leave a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def _bytes(save: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


GOOD_NPZ = _bytes(lambda file: np.savez(file, loss_train=np.ones(50), loss_test=np.zeros(50)))
GOOD_PARQUET = _bytes(lambda file: pq.write_table(pa.table({"split": ["train", "test"], "loss": [0.1, 0.7]}), file))
BAD_FILES: list[tuple[str, str, bytes, str, list[str]]] = [
    ("empty npz", "p.npz", b"", "DV032", ["p.npz"]),
    ("cut npz", "p.npz", GOOD_NPZ[:300], "DV032", ["p.npz"]),
    ("text as npz", "p.npz", b"split,loss\n", "DV032", [".npz"]),
    ("pickle as npz", "p.npz", pickle.dumps(Evil()), "DV032", []),
    ("pickled array", "p.npz", _bytes(lambda f: np.savez(f, loss_train=np.array([Evil()]), loss_test=[1.0])), "DV033",
     ["pickle"]),
    ("object texts", "p.npz", _bytes(lambda f: np.savez(f, y_train=np.array(["a"], object))), "DV033", ["astype(str)"]),
    ("no arrays", "p.npz", _bytes(lambda f: np.savez(f)), "DV015", []),
    ("unknown array", "p.npz", _bytes(lambda f: np.savez(f, arr_0=[1])), "DV001", ["'arr_0'", "logits_train"]),
    ("npy", "p.npy", _bytes(lambda f: np.save(f, np.ones(3))), "DV031", [".npy", ".npz"]),
    ("pickle", "p.pkl", pickle.dumps(Evil()), "DV031", [".npz", ".csv", ".parquet"]),
    ("empty csv", "p.csv", b"", "DV032", ["p.csv"]),
    ("header only", "p.csv", b"split,loss\n", "DV005", ["no members"]),
    ("ragged csv", "p.csv", b"split,loss\ntrain,1\ntest,1,2\n", "DV032", ["p.csv"]),
    ("binary csv", "p.csv", bytes(range(256)) * 10, "DV032", []),
    ("csv, name twice", "p.csv", b"split,loss,loss\ntrain,1,2\ntest,3,4\n", "DV008", ["'loss'"]),
    ("csv, NaN", "p.csv", b"split,loss\ntrain,1\ntest,nan\n", "DV006", ["(row 1)"]),
    ("csv, gap", "p.csv", b"split,loss\ntrain,\ntest,1\n", "DV006", ["(row 0)"]),
    ("csv, text loss", "p.csv", b"split,loss\ntrain,low\ntest,1\n", "DV003", ["loss"]),
    ("csv, long cell", "p.csv", b"split,label,loss\ntrain,%s,1\ntest,b,1\n" % (b"x" * 1_000_000), "DV007", ["label"]),
    ("csv, long name", "p.csv", b"split,loss,%s\ntrain,1,1\ntest,1,1\n" % (b"x" * 1_000_000), "DV007", []),
    ("csv, third split", "p.csv", b"split,loss\ntrain,1\ntest,1\nextra,1\n", "DV009", ["'extra'"]),
    ("empty parquet", "p.parquet", b"", "DV032", ["p.parquet"]),
    ("cut parquet", "p.parquet", GOOD_PARQUET[:-20], "DV032", ["p.parquet"]),
    ("npz as parquet", "p.parquet", GOOD_NPZ, "DV032", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "code", "words"), [pytest.param(*row[1:], id=row[0]) for row in BAD_FILES])
def test_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, code: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    error = fails(lambda: Evidence.load(tmp_path / name))
    assert error.code == code, error.message
    assert [word for word in words if word not in error.message] == [], error.message
    assert os.listdir(tmp_path) == [name]


def test_places_that_are_no_file(tmp_path: Path) -> None:
    assert fails(lambda: Evidence.load(tmp_path / "none.npz")).code == "DV030"
    assert fails(lambda: Evidence.load(tmp_path)).code == "DV030"
    os.mkfifo(tmp_path / "pipe.npz")
    assert fails(lambda: Evidence.load(tmp_path / "pipe.npz")).code == "DV030"


@settings(in_the_same_folder, max_examples=300)
@given(data=st.data(), kind=st.sampled_from(["npz", "parquet"]))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    content = bytearray({"npz": GOOD_NPZ, "parquet": GOOD_PARQUET}[kind])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / f"p.{kind}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        Evidence.load(path)
    except InputError as error:
        assert len(error.message) < 1_000


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"divulge": np.array(2)}, "DV031"),
        ({"member": np.array([1, 0])}, "DV032"),
        ({"member": np.array([True, True])}, "DV005"),
        ({"signal_x": np.array([1.0, np.nan])}, "DV006"),
        ({"signal_x": np.array([1.0])}, "DV004"),
        ({"what": np.array([1.0, 2.0])}, "DV001"),
        ({"logits": np.zeros((2, 3)), "labels": np.array([0, 3])}, "DV021"),
        ({"logits": np.zeros((2, 3)), "labels": np.array([0.0, 1.0])}, "DV020"),
        ({"logits": np.zeros((2, 3)), "labels": np.array(["a", "b"])}, "DV020"),
        ({"logits": np.zeros((2, 3)), "labels": np.zeros((2, 3), int)}, "DV003"),
        ({"probs": np.zeros((2, 3))}, "DV012"),
        ({"reference_signal_x": np.zeros((1, 2, 1)), "trained_on": np.zeros((2, 2), bool)}, "DV004"),
    ],
)
def test_a_saved_file_that_was_changed_is_checked(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    arrays = {"divulge": np.array(1), "member": np.array([True, False]), "signal_x": np.zeros(2)}
    write_arrays(tmp_path / "e.npz", arrays | changes)
    assert fails(lambda: Evidence.load(tmp_path / "e.npz")).code == code


# Saving is all or nothing


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError, MemoryError])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_save_that_stops_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, stop: type[BaseException]
) -> None:
    path = tmp_path / f"e.{suffix}"
    small().save(path)
    before = path.read_bytes()
    monkeypatch.setattr("divulge.atomic._to_disk", lambda path: (_ for _ in ()).throw(stop()))
    with pytest.raises(InputError if stop is OSError else stop):
        small().take([0]).save(path)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == before


def test_half_a_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "run.json") as temporary:
        temporary.write_text("{")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    assert fails(lambda: small().save(tmp_path / "none" / "e.npz")).code == "DV035"
    (tmp_path / "folder.npz").mkdir()
    assert fails(lambda: small().save(tmp_path / "folder.npz")).code == "DV035"
    assert fails(lambda: small().save(tmp_path / "e.json")).code == "DV031"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ("a", "")}, "class names"),
        ({"labels": np.eye(2, dtype=bool)}, "multi-hot"),
        ({"outputs": np.zeros(2), "labels": np.array([0, 1]), "classes": ("1", "0")}, "class names"),
    ],
)
def test_what_csv_cannot_say(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    evidence = Evidence(np.array([True, False]), **{"outputs": np.zeros((2, 2)), "kind": "logits"} | changes)
    error = fails(lambda: evidence.save(tmp_path / "e.csv"))
    assert (error.code, words in error.message) == ("DV034", True)
    assert os.listdir(tmp_path) == []
    evidence.save(tmp_path / "e.npz")
    assert_same(evidence, Evidence.load(tmp_path / "e.npz"), dtypes=True)


def test_flat_names_are_those_of_every_file() -> None:
    assert list(files.flat_arrays(small())) == ["member", "signal_x", "column_age"]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "latest.npz").symlink_to(tmp_path / "real.npz")
    small().save(tmp_path / "latest.npz")
    assert (tmp_path / "latest.npz").is_symlink()
    assert len(Evidence.load(tmp_path / "real.npz")) == len(small())
    os.mkfifo(tmp_path / "pipe.npz")
    assert fails(lambda: small().save(tmp_path / "pipe.npz")).code == "DV035"
    assert not (tmp_path / "pipe.npz").is_file()


def test_a_csv_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes("split,größe,loss\ntrain,1,2\n".encode("latin-1"))
    assert fails(lambda: Evidence.load(tmp_path / "e.csv")).code == "DV032"


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch, suffix) -> None:
    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / f"p{suffix}"
    path.write_bytes(b"")
    for name in ("zipfile.ZipFile", "pyarrow.parquet.ParquetFile", "pyarrow.csv.read_csv"):
        monkeypatch.setattr(name, refused)
    error = fails(lambda: Evidence.load(path))
    assert error.code == "DV030" and "this user may not" in error.message and "write it again" not in error.message
