"""Parquet files as blocks of Evidence, in memory that does not grow with the files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from divulge.doors.archives import damaged
from divulge.doors.names import listed as named
from divulge.doors.names import shown
from divulge.doors.tables import Overrides, map_columns
from divulge.errors import InputError
from divulge.files import check_saved_alike, from_arrow_table, parquet_files
from divulge.streams.dealing import Block, placed, places_of, unplaced

if TYPE_CHECKING:
    import pyarrow as pa

    from divulge.evidence import Evidence

BLOCK = 1 << 18  # rows that are worked on at a time
PART = 1 << 20  # rows of a file after which a part of it ends
LOOKS = 16  # row groups that the sketch looks into
SEEN = 1 << 14  # rows that it reads of each
#: What more rows may mend: one side only, or too few label values.
LACKING = ("DV005", "DV022")
MORE = 256  # times `SEEN` rows that are read for label values: there may be no more of them


class Part(NamedTuple):
    """Some row groups of a file: what one worker reads at a time.

    >>> Part(Path("a.parquet"), (0, 1), 2000).rows
    2000
    """

    file: Path
    row_groups: tuple[int, ...]
    rows: int


class Seen(NamedTuple):
    """Some rows of a file, as Arrow has them. first: the number that the first of them has there."""

    file: Path
    first: int
    table: pa.Table


def listed(source: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    """The Parquet files of a folder, or those that are named, by name.

    Raises:
        InputError: DV030, there are none, or one is not there; DV031, a file of another kind.
    """
    named = [source] if isinstance(source, str | PathLike) else list(source)
    if strange := [path for path in named if not isinstance(path, str | PathLike)]:
        raise InputError("DV056", f"expected paths, or blocks of Evidence, got {type(strange[0]).__name__}")
    files: list[Path] = []
    for path in map(Path, named):
        if path.is_dir():
            files += parquet_files(path)
        elif path.is_file() and path.suffix.lower() in (".npz", ".csv"):
            hint = "Audit it in memory, or write its records as .parquet (Evidence.save)."
            raise InputError("DV031", f"{path} is no Parquet file, and a stream is read from such. {hint}")
        elif path.is_file():
            files.append(path)
        else:
            raise InputError("DV030", f"{path} does not exist. Expected .parquet files, or folders of them.")
    if not files:
        raise InputError("DV030", "there are no files to read. Expected .parquet files, or folders of them.")
    real = [os.path.realpath(file) for file in files]
    if len(set(real)) < len(files):
        twice = next(file for at, file in enumerate(files) if real[at] in real[:at])
        raise InputError("DV008", f"{twice} is given twice, and its records would count twice. Name it once.")
    return sorted(files)


def parts_of(file: Path) -> list[Part]:
    """A file in parts of about a million rows.

    Raises:
        InputError: DV032, no Parquet file, or one that was cut.
    """
    with _opened(file) as parquet:
        rows = [parquet.metadata.row_group(at).num_rows for at in range(parquet.metadata.num_row_groups)]
    parts: list[Part] = []
    begun: list[int] = []
    size = 0
    for at in filter(rows.__getitem__, range(len(rows))):
        begun.append(at)
        size += rows[at]
        if size >= PART:
            parts.append(Part(file, tuple(begun), size))
            begun, size = [], 0
    return [*parts, Part(file, tuple(begun), size)] if begun else parts


def blocks_of(part: Part, overrides: Overrides, like: Evidence, rows: int = BLOCK) -> Iterator[Block]:
    """The records of a part, so many at a time.

    Args:
        part: of a file.
        overrides: what the user said of the columns.
        like: the sketch, which says how they are read.
        rows: in a block.

    Raises:
        InputError: DV032, a damaged file; else as the doors.
    """
    for seen in _tables(part, rows):
        yield Block(_read(seen, overrides, like), part.file.name, seen.first)


def _read(seen: Seen, overrides: Overrides, like: Evidence) -> Evidence:
    try:
        return from_arrow_table(seen.table, seen.file, overrides, like, seen.first)
    except InputError as error:
        raise _told_of(seen, error) from error


def _told_of(seen: Seen, error: InputError) -> InputError:
    named = str(seen.file) in error.message
    return error if named else InputError(error.code, f"{seen.file}: {error.message}")


def of_tables(tables: Iterable[object], overrides: Overrides) -> Iterator[Evidence]:
    """The records of Arrow's record batches, or of other tables that speak its protocol (pandas, polars), one by one.

    The first, so many that both sides are there, say how the others are read; they are held until then.

    Args:
        tables: parts of one table.
        overrides: what the user said of the columns.

    Raises:
        InputError: DV002, no table; DV005, one side only; else as the doors.

    >>> import pyarrow as pa
    >>> two = [pa.record_batch({"member": [side], "loss": [0.5]}) for side in (True, False)]
    >>> [len(block) for block in of_tables(two, Overrides())]
    [1, 1]
    """
    every = (Seen(Path(f"table {at}"), 0, _as_table(found)) for at, found in enumerate(tables))
    filled = (seen for seen in every if len(seen.table))
    begun: list[Seen] = []
    for seen in filled:
        begun.append(seen)
        fault = _fault(overrides, _one_row(begun[0]), seen)
        if fault is None:
            break
        if fault.code not in LACKING or (fault.code != "DV005" and len(begun) == LOOKS):
            raise fault
    if not begun:
        raise InputError("DV005", "the tables hold no records. Expected members and non-members.")
    like = unplaced(_together(begun, overrides))
    for seen in itertools.chain(begun, filled):
        yield _read(seen, overrides, like)


def is_table(source: object) -> bool:
    """Whether this is one table, of Arrow, pandas or polars, or a mapping of columns: going over it gives columns.

    >>> is_table({"loss": [0.5]}), is_table("folder")
    (True, False)
    """
    return isinstance(source, Mapping) or hasattr(type(source), "columns")


def _as_table(found: object) -> pa.Table:
    import pyarrow as pa

    try:
        return pa.table(found)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(
            "DV002",
            f"expected blocks of Evidence, Arrow's record batches, or tables of pandas or polars, got "
            f"{type(found).__name__}: {shown(str(error))}",
        ) from error


def sketched(parts: Sequence[Part], overrides: Overrides) -> Evidence:
    """Records, `placed`, of a few row groups all over the files: what the columns are, and a sample to fit attacks on.

    Where these hold one side only, or too few label values, more are read until they are there. Files that cannot be
    read, or not together with most others, are left to be named when they are counted.

    Raises:
        InputError: as the doors; DV005, no members or no non-members in all that there is.
    """
    groups = [Part(part.file, (at,), 0) for part in parts for at in part.row_groups]
    looks = min(LOOKS, len(groups))
    broken: list[InputError] = []
    tables = list(_seen((groups[at * len(groups) // looks] for at in range(looks)), 1, broken))
    if not tables:
        raise next(iter(broken), InputError("DV005", "the files hold no records. Expected members and non-members."))
    try:
        return _together(tables, overrides)
    except InputError as error:
        lacking = fault = error
    if fault.code not in LACKING:
        tables, wrong = _most(tables, overrides)
        try:
            return _together(tables, overrides)
        except InputError as error:
            if error.code not in LACKING:
                raise _told_of(tables[0], error) from error
            lacking, fault = error, next(iter(wrong), fault)
    more = itertools.islice(_seen(groups, None, []), None if lacking.code == "DV005" else MORE)
    for other in more:
        found = _fault(overrides, _one_row(tables[0]), other)
        if found is None:
            return _together(_most([*tables, other, *itertools.islice(more, LOOKS - 1)], overrides)[0], overrides)
    raise fault


def _one_row(seen: Seen) -> Seen:
    return seen._replace(table=seen.table.slice(0, 1))


def _seen(groups: Iterable[Part], most: int | None, broken: list[InputError]) -> Iterator[Seen]:
    """The first rows of row groups, `SEEN` at a time, at most so many times; what cannot be read goes to `broken`."""
    for group in groups:
        try:
            yield from itertools.islice(_tables(group, SEEN), most)
        except InputError as error:
            broken.append(error)


def _together(tables: Sequence[Seen], overrides: Overrides) -> Evidence:
    import pyarrow as pa

    first = tables[0]
    for other in tables[1:]:
        _check_columns(first, other, overrides)
    try:
        whole = pa.concat_tables([one.table for one in tables], promote_options="permissive")
    except pa.ArrowException as error:
        reason = shown(str(error).partition("\n")[0])
        raise InputError("DV018", f"the files do not have the same columns: {reason}") from error
    whole = whole.replace_schema_metadata(first.table.schema.metadata)
    rows = from_arrow_table(whole, first.file, overrides, first=first.first if len(tables) == 1 else None)
    places = [places_of(one.file.name, one.first, len(one.table)) for one in tables]
    return placed(rows, np.concatenate(places))


def _check_columns(one: Seen, other: Seen, overrides: Overrides) -> None:
    """That two files hold the same of what is read: Arrow would fill a column up with nulls."""
    check_saved_alike(other.file, other.table, one.file, one.table)
    names = [seen.table.column_names for seen in (one, other)]
    if set(names[0]) == set(names[1]):
        return
    mapped = [map_columns(of, overrides) for of in names]
    read = [{*itertools.chain(*of.roles.values()), *of.rest} for of in mapped]
    if strange := sorted(read[0] ^ read[1]):
        verb = "is" if len(strange) == 1 else "are"
        raise InputError(
            "DV018",
            f"{named(strange)} {verb} in only one of {one.file} and {other.file}; expected the same columns in all.",
        )


def _fault(overrides: Overrides, base: Seen, other: Seen) -> InputError | None:
    """Why `other` cannot be read together with `base`."""
    try:
        _together([base, other], overrides)
    except InputError as error:
        fault = error
    else:
        return None
    if fault.code not in LACKING:
        try:
            _together([other], overrides)
        except InputError as error:
            fault = fault if error.code in LACKING else error  # by itself it says which row
    return _told_of(other, fault)


def _most(tables: Sequence[Seen], overrides: Overrides) -> tuple[list[Seen], list[InputError]]:
    """Those that each can be read with one of them, of the most files that there are; what is wrong with the others.

    Raises:
        InputError: none can be read.
    """
    pairs = [[_fault(overrides, base, other) for other in tables] for base in tables]
    groups = [[at for at, fault in enumerate(of) if fault is None or fault.code in LACKING] for of in pairs]
    best = max(range(len(tables)), key=lambda at: (len({tables[one].file for one in groups[at]}), len(groups[at])))
    wrong = [fault for fault in pairs[best] if fault is not None and fault.code not in LACKING]
    if not groups[best]:
        raise wrong[0]
    return [tables[at] for at in groups[best]], wrong


def _tables(part: Part, rows: int) -> Iterator[Seen]:
    """The rows of a part; the last may be fewer."""
    import pyarrow as pa

    with _opened(part.file) as parquet:
        first = sum(parquet.metadata.row_group(at).num_rows for at in range(part.row_groups[0]))
        try:
            for batch in parquet.iter_batches(rows, row_groups=list(part.row_groups), use_threads=False):
                if len(batch):
                    table = pa.Table.from_batches([batch]).replace_schema_metadata(parquet.schema_arrow.metadata)
                    yield Seen(part.file, first, table)
                first += len(batch)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(part.file, error) from error


def _opened(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(file, error) from error
