"""Arrays to and from a .npz, never through a pickle, the same bytes for the same arrays."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.doors.names import shown
from divulge.errors import InputError

Arrays = dict[str, NDArray[Any]]

# What numpy and zipfile raise over a file that is cut, overwritten or made up.
_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, RuntimeError, MemoryError,
    OverflowError, SyntaxError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays of numbers or text; numpy.load reads them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_arrays(Path(folder) / "a.npz", {"loss": np.array([0.1, 0.7])})
    ...     len(read_arrays(Path(folder) / "a.npz")["loss"])
    2
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in _unpickled(arrays).items():
            # A date of its own would make the same evidence other bytes every time.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def read_arrays(path: Path) -> Arrays:
    """All arrays of a .npz by name.

    Raises:
        InputError: DV008, a name twice; DV032, a damaged file; DV033, pickled objects.
    """
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            twice = len(set(archive.namelist())) < len(archive.namelist())
            strange = [name for name in archive.namelist() if not name.endswith(".npy")]
            found = {} if strange else _with_texts({name: arrays[name] for name in arrays.files})
    except _DAMAGE as error:
        if "allow_pickle" in str(error):
            raise InputError(
                "DV033",
                f"{path.name} holds pickled Python objects, which could run code; divulge never unpickles. "
                "Save arrays of numbers or text (array.astype(str), or one rectangular array), with "
                "allow_pickle=False.",
            ) from error
        raise damaged(path, error) from error
    if twice:
        raise InputError("DV008", f"{path.name} holds an array name more than once.")
    if strange:
        raise InputError("DV032", f"{path.name} holds {shown(strange[0])}, which is not a .npy array.")
    return found


def damaged(path: Path, error: BaseException) -> InputError:
    """The error for a file whose content cannot be read, or that this user may not read: DV030."""
    if isinstance(error, PermissionError):
        return InputError("DV030", f"{path} cannot be read: this user may not. Allow it, or run as one who may.")
    reason = shown(str(error).partition("\n")[0]) or type(error).__name__
    return InputError(
        "DV032",
        f"{path.name} cannot be read as {path.suffix or 'what it starts like'}: {reason}. It may be cut "
        "off, empty or of another kind; write it again.",
    )


def _unpickled(arrays: Arrays) -> Arrays:
    """Text held as objects, which .npy would pickle, as UTF-8 bytes and where each text ends in them."""
    plain: Arrays = {}
    for name, array in arrays.items():
        if array.dtype != object:
            plain[name] = array
            continue
        texts = [str(text).encode() for text in array]
        plain[f"{name}.utf8"] = np.frombuffer(b"".join(texts), np.uint8)
        plain[f"{name}.ends"] = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return plain


def _with_texts(arrays: Arrays) -> Arrays:
    """The inverse of `_unpickled`."""
    for name in [name.removesuffix(".utf8") for name in arrays if name.endswith(".utf8")]:
        if f"{name}.ends" in arrays:
            data, ends = arrays.pop(f"{name}.utf8").tobytes(), arrays.pop(f"{name}.ends").tolist()
            texts = [data[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
            arrays[name] = np.array([*texts, None], dtype=object)[:-1]
    return arrays
