"""Anything array-like -> a plain numpy array of bool, int, float or text, copied only where it must be.

This is the one place that asks an object what it can do (`detach`, `__arrow_c_stream__`, `__array__`,
`__dlpack__`): the frameworks whose arrays come in are never imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.doors.names import LONGEST_TEXT, listed, shown
from divulge.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

#: Elements a check looks at in one go: a few MB, which stay in the cache.
BLOCK = 1 << 20
#: Row numbers that a message shows.
FEW = 3
#: Fixed-width text may take this many bytes, or WASTE times the text itself; beyond that it stays as objects.
TEXT_BYTES = 64 << 20
WASTE = 8


def to_array(value: object, name: str, notes: set[str]) -> NDArray[Any]:
    """A numpy array of bool, int, float or text (fixed-width, or str objects where that would waste memory).

    Args:
        value: numpy, lists, pandas / polars / pyarrow columns, torch tensors on any device, anything with
            `__array__`, `__dlpack__` or `toarray` (sparse).
        name: what to call it in messages.
        notes: gets a line where the values had to change their dtype.

    Raises:
        InputError: DV002, not an array, ragged, or of a type that is neither number nor text; DV007, a text
            too long.

    >>> to_array([[1, 2], [3, 4]], "logits", set()).shape
    (2, 2)
    """
    anything: Any = value
    try:
        if isinstance(value, np.ndarray):
            array = value
        elif hasattr(value, "detach") and hasattr(value, "cpu"):
            array = _from_tensor(anything, name, notes)
        elif hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
            array = _from_arrow_like(anything, name)
        elif isinstance(value, list | tuple | range):
            array = _from_sequence(value, name)
        elif hasattr(value, "toarray"):
            array = np.asarray(anything.toarray())
        elif hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            array = np.from_dlpack(anything)
        else:
            array = np.asarray(anything)
    except (ValueError, TypeError, RuntimeError, BufferError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise _not_an_array(value, name, error) from error
    return _plain(array, name, notes)


def from_arrow(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """A pyarrow column as numpy: without a copy where it has one chunk of numbers and nothing missing.

    Missing numbers become NaN, missing texts "". Lists of one length become a second axis.

    Raises:
        InputError: DV002, DV007, as `to_array`.

    >>> import pyarrow as pa
    >>> from_arrow(pa.chunked_array([[1.5, None]]), "age").tolist()
    [1.5, nan]
    """
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = _decoded(column)
    types, kind = pa.types, column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _from_lists(column, name)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _from_texts(column, name)
    if types.is_null(kind):
        return np.full(len(column), np.nan)
    if types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif types.is_temporal(kind):
        return _from_texts(column.cast(pa.string()), name)
    elif types.is_boolean(kind) and column.null_count:
        import pyarrow.compute as pc

        return _from_texts(pc.if_else(column, "True", "False"), name)  # as bools are named where none is missing
    elif not (types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)):
        raise InputError(
            "DV002", f"{name} holds {shown(str(kind))}, expected numbers, text, bools or lists of numbers."
        )
    parts = [_from_numbers(chunk) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.asarray(column.to_numpy())


def is_text(array: NDArray[Any]) -> bool:
    """Whether an array from `to_array` holds text."""
    return array.dtype.kind in "UO"


def distinct(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The (k,) distinct values in order, and (n,) codes into them.

    >>> values, codes = distinct(np.array(["no", "yes", "no"]))
    >>> codes.tolist()
    [0, 1, 0]
    """
    if not is_text(array):
        values, inverse = np.unique(array, return_inverse=True)
        return values, inverse.astype(np.int64, copy=False)
    import pyarrow as pa

    # Arrow hashes; numpy would sort two million strings.
    coded = pa.array(array.astype(object), pa.large_string()).dictionary_encode()  # of numpy's U it cuts at a NUL
    values = np.array(coded.dictionary.to_pylist(), dtype=object)
    order = np.argsort(values)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return values[order], rank[coded.indices.to_numpy()]


class Rows(NamedTuple):
    """Names a row the way its owner counts: within the split that was given, or within the table.

    first: the number, in a file, of the first row of these; None: they are all.

    >>> Rows(members=10).name(12), Rows(members=None).name(12), Rows(None, 4000).name(12)
    ('nonmembers row 2', 'row 12', 'row 4,012')
    """

    members: int | None
    first: int | None = None

    def name(self, row: int) -> str:
        """`members row 3`, `nonmembers row 2`, or `row 3` of a table."""
        if self.members is None:
            return f"row {(self.first or 0) + row:,}"
        return f"members row {row:,}" if row < self.members else f"nonmembers row {row - self.members:,}"

    def all(self, total: int) -> str:
        """`10 rows`; of a part of a file where it begins too, since row numbers are the file's."""
        return f"{total:,} rows" if self.first is None else f"{total:,} rows from row {self.first:,} on"


class Found(NamedTuple):
    """How many rows are bad, out of how many, and the first few of them."""

    bad: int
    total: int
    first: tuple[int, ...]

    def describe(self, rows: Rows) -> str:
        """`2 of 10 rows (members row 3, nonmembers row 0)`."""
        names = ", ".join(rows.name(row) for row in self.first)
        more = ", …" if self.bad > len(self.first) else ""
        return f"{self.bad:,} of {rows.all(self.total)} ({names}{more})"


def row_blocks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """The array in views of some thousand rows, each with the number of its first row."""
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    step = max(1, min(65_536, BLOCK // max(1, width)))
    for start in range(0, len(array), step):
        yield start, array[start : start + step]


def find_rows(array: NDArray[Any], is_bad: Callable[[NDArray[Any]], NDArray[np.bool_] | None]) -> Found:
    """Which rows are bad, looked at block by block.

    Args:
        array: (n, …).
        is_bad: block (b, …) -> (b,) bool, or None where the whole block is sound.

    >>> find_rows(np.array([3, -1, 2, -5]), lambda block: block < 0).first
    (1, 3)
    """
    bad, first = 0, list[int]()
    for start, block in row_blocks(array):
        mask = is_bad(block)
        if mask is None:
            continue
        bad += int(np.count_nonzero(mask))
        if len(first) < FEW:
            first += (start + np.flatnonzero(mask)[: FEW - len(first)]).tolist()
    return Found(bad, len(array), tuple(first))


def check_finite(array: NDArray[Any], name: str, rows: Rows, cause: str = "") -> None:
    """Raise DV006 where a float array holds NaN or ±inf, with the rows."""
    if array.dtype.kind != "f":
        return
    found = find_rows(array, _not_finite)
    if found.bad:
        raise InputError(
            "DV006",
            f"{name} holds NaN or ±inf in {found.describe(rows)}; expected finite numbers. "
            f"{cause or 'Find out where they come from, or leave these rows out on both sides alike.'}",
        )


def _not_finite(block: NDArray[Any]) -> NDArray[np.bool_] | None:
    finite = np.isfinite(block)
    if finite.all():
        return None
    bad: NDArray[np.bool_] = ~finite.reshape(len(block), -1).all(axis=1)
    return bad


def check_text(array: NDArray[Any], name: str) -> None:
    """Raise DV007 where a text is too long; fixed-width text is measured only where it is wide enough."""
    if array.dtype.kind == "U" and array.dtype.itemsize > 4 * LONGEST_TEXT:
        lengths = np.strings.str_len(array)
        if lengths.size and lengths.max() > LONGEST_TEXT:
            raise too_long(name, str(array[lengths.argmax()]), int(lengths.max()))


def too_long(name: str, text: str, length: int) -> InputError:
    """The error for a text that nobody could read."""
    return InputError(
        "DV007",
        f"{name} holds a text of {length:,} characters, starting {shown(text)}; at most {LONGEST_TEXT:,} "
        "are taken. A column of documents is not something to slice by: leave it out, or use a short code "
        "for it.",
    )


def _not_an_array(value: object, name: str, error: Exception) -> InputError:
    ragged = isinstance(error, ValueError) and isinstance(value, list | tuple)
    cause = "Its parts differ in length: join batches first (np.concatenate)." if ragged else shown(str(error))
    return InputError(
        "DV002",
        f"{name} is a {type(value).__name__} that cannot be read as one array of numbers or text. {cause}",
    )


def _plain(array: NDArray[Any], name: str, notes: set[str]) -> NDArray[Any]:
    """The array in one of the dtypes that Evidence holds."""
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("DV002", f"{name} is a masked array, expected every value. Leave the masked rows out.")
    kind = array.dtype.kind
    if array.dtype.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
        notes.add(f"{name}: {array.dtype.name} read as float32")
        return array.astype(np.float32)
    if kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if kind == "O":
        return _from_objects(array, name)
    if kind == "T":
        return _from_objects(array.astype(object), name)
    if kind == "S":
        return _from_objects(np.strings.decode(array, "utf-8", "replace").astype(object), name)
    if kind in "mM":
        return array.astype(str)
    if kind not in "biufU":
        raise InputError("DV002", f"{name} holds {array.dtype}, expected numbers, text or bools.")
    if array.ndim == 0:
        raise InputError("DV002", f"{name} is the single value {shown(array.item())}, expected one value a row.")
    check_text(array, name)
    return array


def _from_tensor(tensor: Any, name: str, notes: set[str]) -> NDArray[Any]:
    """A torch tensor, detached and on the CPU; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach().cpu()
    short = str(tensor.dtype).rpartition(".")[2]
    if short == "bfloat16" or short.startswith("float8"):
        notes.add(f"{name}: {short} read as float32")
        tensor = tensor.float()
    return np.asarray(tensor)


def _from_arrow_like(value: Any, name: str) -> NDArray[Any]:
    import pyarrow as pa

    if hasattr(value, "shape") and len(value.shape) == 2:  # a frame, not a column: one column a class
        return np.asarray(value)
    column = value if isinstance(value, pa.ChunkedArray) else pa.chunked_array(value)
    return from_arrow(column, name)


def _from_sequence(value: list[Any] | tuple[Any, ...] | range, name: str) -> NDArray[Any]:
    # A loop over rows: numpy would first make room for the longest text in every row.
    if any(item is None or isinstance(item, str | bytes) for item in value):
        objects = np.empty(len(value), dtype=object)
        objects[:] = value
        return objects
    return np.asarray(value)


def _from_objects(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Objects that are texts, numbers with gaps, or lists of one length; arrow tells which without waste."""
    import pyarrow as pa

    if array.ndim != 1:
        raise InputError("DV002", f"{name} holds objects in {array.ndim} dimensions, expected numbers.")
    items = [item.item() if isinstance(item, np.generic) else item for item in array]
    try:
        column = pa.array(items, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        types = sorted({type(item).__name__ for item in items[:100_000]})
        raise InputError(
            "DV002",
            f"{name} mixes {shown(', '.join(types))} or holds what is neither number nor text. Make it one type first.",
        ) from error
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    if pa.types.is_binary(chunked.type):
        chunked = chunked.cast(pa.string())
    return from_arrow(chunked, name)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories as their values; arrow cannot yet decode polars' string views, so they are cast first."""
    import pyarrow as pa

    kind = column.type.value_type
    kind = pa.large_string() if pa.types.is_string_view(kind) else kind
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(kind)).dictionary_decode()
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, kind)


def _from_lists(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """(n, width) from a column of lists, chunk by chunk: arrow would join them with 32-bit offsets."""
    import pyarrow as pa
    import pyarrow.compute as pc

    inner = column.type.value_type
    if not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)):
        raise InputError("DV002", f"{name} holds lists of {shown(str(inner))}, expected lists of numbers.")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if column.null_count or len(lengths) > 1:
        raise InputError(
            "DV002",
            f"{name} holds lists of different lengths ({listed(lengths)}); expected one length, a value a class.",
        )
    width = lengths[0] if lengths else 0
    parts = [_from_numbers(chunk.flatten()).reshape(len(chunk), width) for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty((0, width))


def _from_numbers(values: pa.Array) -> NDArray[Any]:
    """(n,) numbers or bools, missing ones as NaN; where none is, without `to_numpy`, which imports pandas: 0.2 s."""
    import pyarrow as pa

    if values.null_count:
        return np.asarray(values.to_numpy(zero_copy_only=False))
    if pa.types.is_boolean(values.type):
        return np.from_dlpack(values.cast(pa.uint8())).view(bool)
    return np.from_dlpack(values)


def _from_texts(column: pa.ChunkedArray, name: str) -> NDArray[Any]:
    """Text in numpy's fixed width, unless one long text would make every row pay for it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # large_string: every kind of text at once, and 64-bit offsets, so that joining chunks cannot overflow.
    column = column.cast(pa.large_string())
    lengths = pc.utf8_length(column)
    longest = pc.max(lengths).as_py() or 0
    if longest > LONGEST_TEXT:
        raise too_long(name, column[pc.index(lengths, longest).as_py()].as_py(), longest)
    coded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    values = np.array([*coded.dictionary.to_pylist(), ""], dtype=object)[:-1]
    fixed = 4 * longest * len(column)
    if fixed <= max(TEXT_BYTES, WASTE * (pc.sum(lengths).as_py() or 0)):
        values = values.astype(f"U{max(1, longest)}")
    texts: NDArray[Any] = values[coded.indices.to_numpy()]
    return texts
