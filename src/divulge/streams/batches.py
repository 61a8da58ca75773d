"""Parquet files as blocks of Evidence, in memory that does not grow with the files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from divulge.doors.archives import damaged
from divulge.doors.names import shown
from divulge.doors.tables import Overrides
from divulge.errors import InputError
from divulge.files import from_arrow_table, parquet_files
from divulge.streams.dealing import Block, placed, places_of, unplaced

if TYPE_CHECKING:
    import pyarrow as pa

    from divulge.evidence import Evidence

BLOCK = 1 << 18  # rows that are worked on at a time
PART = 1 << 20  # rows of a file after which a part of it ends
LOOKS = 16  # row groups that the sketch looks into
SEEN = 1 << 14  # rows that it reads of each


class Part(NamedTuple):
    """Some row groups of a file: what one worker reads at a time.

    starts: the row of the file at which each begins.

    >>> Part(Path("a.parquet"), (0, 1), 2000).rows
    2000
    """

    file: Path
    row_groups: tuple[int, ...]
    rows: int
    starts: tuple[int, ...] = (0,)


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
    starts = list(itertools.accumulate(rows, initial=0))
    parts: list[Part] = []
    begun: list[int] = []

    def part() -> Part:
        return Part(file, tuple(begun), sum(rows[at] for at in begun), tuple(starts[at] for at in begun))

    for at in filter(rows.__getitem__, range(len(rows))):
        begun.append(at)
        if part().rows >= PART:
            parts.append(part())
            begun = []
    return [*parts, part()] if begun else parts


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
    row = part.starts[0]
    for table in _tables(part, rows):
        try:
            yield Block(from_arrow_table(table, part.file, overrides, like), part.file.name, row)
        except InputError as error:
            raise InputError(error.code, f"{part.file}: {error.message}") from error
        row += len(table)


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
    begun: list[Seen] = []
    like: Evidence | None = None
    one_sided = InputError("DV005", "the tables hold no records. Expected members and non-members.")
    for at, found in enumerate(tables):
        begun.append(Seen(Path(f"table {at}"), _as_table(found), 0))
        if not len(begun[-1].table):
            begun.pop()
            continue
        if like is None:
            try:
                like = unplaced(_together(begun, overrides))
            except InputError as error:
                if error.code != "DV005":
                    raise
                one_sided = error
                continue
        for one in begun:
            yield from_arrow_table(one.table, one.file, overrides, like)
        begun = []
    if like is None:
        raise one_sided


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

    Where these hold one side only, more are read until both are there. Files that cannot be read, or not together with
    most others, are left to be named when they are counted.

    Raises:
        InputError: as the doors; DV005, no members or no non-members in all that there is.
    """
    groups = [
        Part(part.file, (at,), 0, (start,))
        for part in parts
        for at, start in zip(part.row_groups, part.starts, strict=True)
    ]
    looks = min(LOOKS, len(groups))
    broken: list[InputError] = []
    tables = list(_seen((groups[at * len(groups) // looks] for at in range(looks)), 1, broken))
    if not tables:
        raise next(iter(broken), InputError("DV005", "the files hold no records. Expected members and non-members."))
    try:
        return _together(tables, overrides)
    except InputError as error:
        if error.code != "DV005":
            if most := _most(tables, overrides):
                return _together(most, overrides)
            raise InputError(error.code, f"{tables[0].file}: {error.message}") from error
        one_sided = error
    rest = _seen(groups, None, [])
    few = tables[0]._replace(table=tables[0].table.slice(0, 1))
    for other in rest:
        if _fails(overrides, few, other) != "DV005":
            return _together([*tables, other, *itertools.islice(rest, LOOKS - 1)], overrides)
    raise one_sided


class Seen(NamedTuple):
    """Some rows of a file, and the place of the first."""

    file: Path
    table: pa.Table
    first: int


def _seen(groups: Iterable[Part], most: int | None, broken: list[InputError]) -> Iterator[Seen]:
    """The first rows of row groups, `SEEN` at a time, at most so many times; what cannot be read goes to `broken`."""
    for group in groups:
        try:
            row = group.starts[0]
            for table in itertools.islice(_tables(group, SEEN), most):
                yield Seen(group.file, table, row)
                row += len(table)
        except InputError as error:
            broken.append(error)


def _together(tables: Sequence[Seen], overrides: Overrides) -> Evidence:
    import pyarrow as pa

    first = tables[0]
    try:
        whole = pa.concat_tables([one.table for one in tables], promote_options="permissive")
    except pa.ArrowException as error:
        reason = shown(str(error).partition("\n")[0])
        raise InputError("DV018", f"the files do not have the same columns: {reason}") from error
    rows = from_arrow_table(whole.replace_schema_metadata(first.table.schema.metadata), first.file, overrides)
    places = [places_of(one.file.name, one.first, len(one.table)) for one in tables]
    return placed(rows, np.concatenate(places))


def _fails(overrides: Overrides, *tables: Seen) -> str | None:
    """The code for which these cannot be read together."""
    try:
        _together(tables, overrides)
    except InputError as error:
        return error.code
    return None


def _most(tables: Sequence[Seen], overrides: Overrides) -> list[Seen]:
    """Those that each can be read with one of them: the most that there are."""
    readable = [[table for table in tables if _fails(overrides, base, table) in (None, "DV005")] for base in tables]
    return max(readable, key=len)


def _tables(part: Part, rows: int) -> Iterator[pa.Table]:
    """As Arrow has them; the last may be shorter."""
    import pyarrow as pa

    with _opened(part.file) as parquet:
        try:
            for batch in parquet.iter_batches(rows, row_groups=list(part.row_groups), use_threads=False):
                if len(batch):
                    yield pa.Table.from_batches([batch]).replace_schema_metadata(parquet.schema_arrow.metadata)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise damaged(part.file, error) from error


def _opened(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(file, error) from error
