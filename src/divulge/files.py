"""Evidence to and from files: .npz (never pickled), .parquet, a folder of .parquet, .csv.

Files that `save` wrote carry a mark (the array or the schema metadata "divulge"); `load` takes them as they
are, after the checks. All others enter by the doors for tables and splits.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from divulge.atomic import replacing
from divulge.doors.archives import damaged, read_arrays, write_arrays
from divulge.doors.arrays import Rows, to_array
from divulge.doors.assemble import Flat, assemble, other_classes
from divulge.doors.names import SYNONYMS, listed, option, shown
from divulge.doors.splits import read_splits
from divulge.doors.tables import Overrides, columns_of, read_table
from divulge.errors import InputError
from divulge.evidence import Evidence, References, Source

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("divulge")
MARK = "divulge"
FORMAT = 1
SUFFIXES = (".npz", ".parquet", ".csv")
SUPPORTED = "Supported: .npz, .parquet, a folder of .parquet files, .csv."
#: Bytes of a .csv that arrow reads at a time; a row must fit, even one with a text too long to be taken.
CSV_BLOCK = 1 << 24


def load(path: str | PathLike[str], overrides: Overrides) -> Evidence:
    r"""What `Evidence.load` does.

    Raises:
        InputError: DV030 no such file or no data in a folder, DV031 a format not known, DV032 a damaged file,
            DV033 a pickle; and all that the doors raise.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "losses.csv"
    ...     _ = path.write_text("split,loss\ntrain,0.1\ntest,0.7\n")
    ...     len(load(path, Overrides()))
    2
    """
    path = Path(path)
    reader = _reader(path)
    return reader(path, overrides)


def save(evidence: Evidence, path: str | PathLike[str]) -> None:
    """What `Evidence.save` does.

    Raises:
        InputError: DV031 a suffix not known, DV034 what the format cannot carry, DV035 a place not writable.

    >>> import tempfile
    >>> evidence = Evidence(np.array([True, False]), signals={"loss": np.array([-0.1, -0.7])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(evidence, folder + "/evidence.parquet")
    ...     len(load(folder + "/evidence.parquet", Overrides()))
    2
    """
    path = Path(path)
    writers: dict[str, Callable[[Evidence, Path], None]] = {
        ".npz": _save_npz,
        ".parquet": _save_parquet,
        ".csv": _save_csv,
    }
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise InputError("DV031", f"cannot write {path.name}: expected a name that ends in .npz, .parquet or .csv.")
    if evidence.references is not None and writer is not _save_npz:
        raise InputError("DV034", f"{path.suffix} cannot carry reference models. Save as .npz.")
    with replacing(path) as temporary:
        writer(evidence, temporary)


def flat_arrays(evidence: Evidence) -> Flat:
    """The evidence under flat names, as files hold it; the arrays are the same ones, not copies.

    >>> sorted(flat_arrays(Evidence(np.array([True, False]), signals={"loss": np.array([-0.1, -0.7])})))[0]
    'member'
    """
    flat: dict[str, NDArray[Any] | None] = {
        "member": evidence.member,
        evidence.kind or "predictions": evidence.outputs,
        "labels": evidence.labels,
        **{f"signal_{name}": array for name, array in evidence.signals.items()},
        "features": evidence.features,
        "traces": evidence.traces,
        "ids": evidence.ids,
        "groups": evidence.groups,
        **{f"column_{name}": array for name, array in evidence.columns.items()},
    }
    return {name: array for name, array in flat.items() if array is not None}


def _reader(path: Path) -> Callable[[Path, Overrides], Evidence]:
    if path.is_dir():
        return _load_folder
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        raise InputError("DV030", f"{path} {found}. {SUPPORTED}")
    readers = {".npz": _load_npz, ".parquet": _load_parquet, ".csv": _load_csv}
    if path.suffix.lower() in readers:
        return readers[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError("DV030", f"{path} cannot be read: {error.strerror}.") from error
    if start.startswith(b"PK"):
        return _load_npz
    if start.startswith(b"PAR1"):
        return _load_parquet
    hint = " A .npy holds one array: put outputs, labels and member into one .npz." if start == b"\x93NUMPY" else ""
    raise InputError("DV031", f"{path.name} is of a kind that divulge does not read.{hint} {SUPPORTED}")


def _both(arguments: list[str]) -> str:
    """Arguments as Python and as the command line call them."""
    return ", ".join(f"{name}= ({option(name)})" for name in arguments)


def _settled(
    flat: Flat,
    overrides: Overrides,
    form: object,
    classes: tuple[str, ...] | None,
    references: References | None = None,
    like: Evidence | None = None,
    first: int | None = None,
) -> Evidence:
    """Evidence from what `save` wrote; of the overrides only `columns` can mean something here."""
    if form != FORMAT:
        raise InputError(
            "DV031", f"the file has divulge's format {shown(form)}, this divulge reads {FORMAT}. Update it."
        )
    if others := [name for name in overrides.given() if name != "columns"]:
        raise InputError(
            "DV017",
            f"divulge saved this file, so nothing in it is left to be said: leave out {_both(others)}.",
        )
    if like is not None and classes != like.classes:
        raise other_classes(classes, like.classes)
    member = flat.pop("member", None)
    if member is None or member.dtype != np.bool_ or member.ndim != 1:
        raise InputError(
            "DV032", "the file says that divulge saved it, and has no member column of bools: it was changed."
        )
    lengths = {name: len(array) for name, array in flat.items()}
    if strange := [name for name, length in lengths.items() if length != len(member)]:
        raise InputError("DV004", f"{shown(strange[0])} has {lengths[strange[0]]:,} rows, member {len(member):,}.")
    if overrides.columns is not None:
        had = [name.removeprefix("column_") for name in flat if name.startswith("column_")]
        if strange := [name for name in overrides.columns if name not in had]:
            raise InputError("DV001", f"the column {shown(strange[0])} is not among {listed(had)}.")
        for name in set(had) - set(overrides.columns):
            del flat[f"column_{name}"]
    rows = Rows(None, first)
    return assemble(flat, member, rows, set(), classes=classes, references=references, settled=True, like=like)


# .npz


def _save_npz(evidence: Evidence, path: Path) -> None:
    write_arrays(path, to_arrays(evidence))


def to_arrays(evidence: Evidence) -> Flat:
    """All of the evidence as named arrays; `from_arrays` undoes it.

    >>> len(from_arrays(to_arrays(Evidence(np.array([True, False]), signals={"loss": np.array([-0.1, -0.7])}))))
    2
    """
    arrays: Flat = {MARK: np.array(FORMAT)}
    for name, array in flat_arrays(evidence).items():
        arrays[name] = array
    if evidence.classes is not None:
        arrays["classes"] = np.array(evidence.classes, dtype=object)
    if (references := evidence.references) is not None:
        arrays["trained_on"] = references.trained_on
        arrays["reference_source"] = np.array(references.source)
        arrays |= {f"reference_signal_{name}": array for name, array in references.signals.items()}
        arrays |= {f"reference_target_{name}": array for name, array in (references.target or {}).items()}
    return arrays


def _load_npz(path: Path, overrides: Overrides) -> Evidence:
    arrays = read_arrays(path)
    if MARK in arrays:
        try:
            return from_arrays(arrays, overrides)
        except TypeError as error:
            raise damaged(path, error) from error
    if "classes" in arrays:
        named = arrays.pop("classes")
        overrides = overrides if overrides.classes is not None else replace(overrides, classes=named.ravel().tolist())
    if overrides.member is not None or any(name.lower() in SYNONYMS["member"] for name in arrays):
        return read_table(arrays, overrides)
    usable = ("classes", "member_values", "nonmember_values", "lower_is_member")
    if others := [name for name in overrides.given() if name not in usable]:
        raise InputError(
            "DV017",
            f"{path.name} holds pairs such as logits_train and logits_test, whose names say what they are: "
            f"leave out {_both(others)}; or add a member array and name every array as a column.",
        )
    return read_splits(
        arrays,
        columns={},
        classes=overrides.classes,
        lower_is_member=overrides.lower_is_member,
        member_values=overrides.member_values,
        nonmember_values=overrides.nonmember_values,
    )


def from_arrays(arrays: Flat, overrides: Overrides | None = None, like: Evidence | None = None) -> Evidence:
    """Evidence from what `to_arrays` made, which is emptied; like: other rows of the same table, see `assemble`.

    Raises:
        InputError: as the doors.
        TypeError: class names that are no array.
    """
    form = arrays.pop(MARK)
    classes = tuple(map(str, arrays.pop("classes"))) if "classes" in arrays else None
    references = _references(arrays)
    notes: set[str] = set()
    flat = {name: to_array(array, name, notes) for name, array in arrays.items()}
    return _settled(flat, overrides or Overrides(), form.tolist(), classes, references, like)


def _references(arrays: Flat) -> References | None:
    """Takes the arrays of the reference models out of `arrays`."""
    parts: dict[str, Flat] = {}
    for prefix in ("reference_signal_", "reference_target_"):
        names = [name for name in arrays if name.startswith(prefix)]
        parts[prefix] = {name.removeprefix(prefix): arrays.pop(name) for name in names}
    trained_on = arrays.pop("trained_on", None)
    source = str(arrays.pop("reference_source", "trained"))
    if trained_on is None:
        return None
    return References(
        signals=parts["reference_signal_"],
        target=parts["reference_target_"] or None,
        trained_on=trained_on,
        source=cast(Source, source),
    )


# .parquet


def _save_parquet(evidence: Evidence, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _arrow(array) for name, array in flat_arrays(evidence).items()}
    about = json.dumps({"format": FORMAT, "classes": evidence.classes})
    pq.write_table(pa.table(columns).replace_schema_metadata({MARK: about}), path)


def _arrow(array: NDArray[Any]) -> pa.Array:
    """A row of outputs as a fixed-size list in its own dtype: float32 would tie float64's confident rows."""
    import pyarrow as pa

    if array.ndim == 1:
        return pa.array(array)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(array).reshape(-1)), array.shape[1])


def _load_parquet(path: Path, overrides: Overrides) -> Evidence:
    return from_arrow_table(_read_parquet(path), path, overrides)


def parquet_files(path: Path) -> list[Path]:
    """The .parquet files of a folder, by name; names that begin with . or _ are passed over, as arrow does.

    What else looks like data, and is not read, is logged.

    Raises:
        InputError: DV030, there is none, or a link that leads nowhere.
    """
    entries = sorted(path.iterdir())
    passed = {entry for entry in entries if entry.name.startswith((".", "_"))}
    files = [entry for entry in entries if entry.suffix.lower() == ".parquet" and entry not in passed]
    if broken := [file.name for file in files if not file.exists()]:
        raise InputError("DV030", f"{path} holds links that lead nowhere: {listed(broken)}. Mend or remove them.")
    files = [file for file in files if file.is_file()]
    data = [entry for entry in entries if entry.suffix.lower() in SUFFIXES or (entry.is_dir() and entry not in passed)]
    unread = [entry.name + "/" * entry.is_dir() for entry in data if entry not in set(files)]
    if not files:
        found = f"; it holds {listed(unread)}" if unread else ""
        raise InputError("DV030", f"the folder {path} holds no .parquet file{found}. {SUPPORTED}")
    if unread:
        logger.warning("%s: not read: %s. Of a folder the .parquet files in it are", path, listed(unread))
    return files


def _load_folder(path: Path, overrides: Overrides) -> Evidence:
    import pyarrow as pa

    files = parquet_files(path)
    tables = [_read_parquet(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        check_saved_alike(file, table, files[0], tables[0])
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise InputError(
            "DV032",
            f"the files in {path} do not have the same columns: {shown(str(error))} Expected one table in parts.",
        ) from error
    return from_arrow_table(table, path, overrides)


def check_saved_alike(file: Path, table: pa.Table, other: Path, of_other: pa.Table) -> None:
    """That two files of one table were both saved by divulge, of the same classes, or both by others.

    Raises:
        InputError: DV018, they were not.
    """
    about = [(one.schema.metadata or {}).get(MARK.encode()) for one in (table, of_other)]
    if about[0] != about[1]:
        raise InputError(
            "DV018",
            f"{file.name} and {other.name} were not saved by divulge alike: one has other classes, or only one was. "
            "Save them from evidence of the same classes.",
        )


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not pq.read_table: it would make columns of folder names such as "split=train".
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error


def from_arrow_table(
    table: pa.Table, path: Path, overrides: Overrides, like: Evidence | None = None, first: int | None = None
) -> Evidence:
    """Evidence from some rows of a .parquet file; like: other rows of it, see `assemble`; first: see `Rows`."""
    metadata: Mapping[bytes, bytes] = table.schema.metadata or {}
    if MARK.encode() not in metadata:
        return read_table(table, overrides, like, first)
    try:
        about = json.loads(metadata[MARK.encode()])
        form, classes = about["format"], about["classes"]
        classes = None if classes is None else tuple(map(str, classes))
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, error) from error
    notes: set[str] = set()
    flat = {name: to_array(column, name, notes) for name, column in columns_of(table).items()}
    return _settled(flat, overrides, form, classes, like=like, first=first)


# .csv


def _save_csv(evidence: Evidence, path: Path) -> None:
    import pyarrow as pa
    from pyarrow import csv

    csv.write_csv(pa.table(_csv_columns(evidence)), path)


def _csv_columns(evidence: Evidence) -> Flat:
    """One column a number; the output columns carry the class names, and labels are written as these."""
    flat = flat_arrays(evidence)
    classes = evidence.classes
    if classes is not None and ("" in classes or (evidence.task == "binary" and classes[1] == "0")):
        raise InputError("DV034", f".csv cannot carry the class names {listed(classes)}. Save as .npz or .parquet.")
    labels = flat.get("labels")
    if labels is not None and labels.ndim == 2 and (labels.sum(axis=1) == 1).all():
        raise InputError(
            "DV034", ".csv cannot tell these multi-hot labels from one-hot ones. Save as .npz or .parquet."
        )
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu" and classes is not None:
        flat["labels"] = np.array(classes, dtype=object)[labels]
    columns: Flat = {}
    for name, array in flat.items():
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        prefix = {"features": "feature", "traces": "trace"}.get(name, name.removesuffix("s"))
        if array.ndim == 2:
            endings = (
                classes if classes is not None and name in ("logits", "probs") else map(str, range(array.shape[1]))
            )
            columns |= {f"{prefix}_{ending}": array[:, column] for column, ending in enumerate(endings)}
        elif name in ("logits", "probs") and classes is not None:
            columns[f"{prefix}_{classes[1]}"] = array
        else:
            columns[name] = array
    return columns


def _load_csv(path: Path, overrides: Overrides) -> Evidence:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(block_size=CSV_BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True),
        )
        _ = table.column_names  # decoded here: a file that is not UTF-8 fails now
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error
    return read_table(table, overrides)
