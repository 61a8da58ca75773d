"""The files of a store of reference models, each written whole or not at all, and known by its content."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.atomic import replacing
from divulge.doors.archives import read_arrays
from divulge.doors.names import shown
from divulge.errors import InputError

FORMAT = 1
INDEX = "references.json"
OLD_ROWS = "rows.npz"
"""What the rows' file was called before its name said which run it is of."""
MARK = "divulge references"
_DAMAGE = (OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, OverflowError, RecursionError)


class Rows(NamedTuple):
    """What a store knows of its run's rows.

    Attributes:
        trained_on: (r, n) bool.
        labels: (n,) or (n, c), as the user's.
        ids: (n,) int or text | None.
        member: (n,) bool | None.
        target: name -> (n, q) float32 | None.
    """

    trained_on: NDArray[np.bool_]
    labels: NDArray[Any]
    ids: NDArray[Any] | None
    member: NDArray[np.bool_] | None
    target: Mapping[str, NDArray[np.float32]] | None


def key_of(about: Mapping[str, Any]) -> str:
    """A model's file's name, from all that it depends on."""
    return hashlib.sha256(_canonical(about)).hexdigest()[:32]


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def about_model(parts: Mapping[str, Any], number: int, row: NDArray[np.bool_]) -> dict[str, Any]:
    """All that one model depends on."""
    return {
        "format": FORMAT,
        "model": number,
        "design": np.packbits(row).tobytes().hex(),
        "rows": len(row),
        **parts,
    }


def write_model(path: Path, array: NDArray[np.float32], about: Mapping[str, Any]) -> None:
    """A model's (s, n, q) signals, and what it is, with a checksum.

    Raises:
        InputError: DV035, the place cannot be written to.
    """
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    data = file.getvalue()
    checksum = hashlib.sha256(data + _canonical(about)).hexdigest()
    with replacing(path) as temporary:
        temporary.write_bytes(data + b"\n" + _canonical({**about, "sha256": checksum}) + b"\n")


class Kept(NamedTuple):
    """A model's (s, n, q) signals, the seconds it took, and the kind of outputs they were read from ("": not kept)."""

    signals: NDArray[np.float32]
    seconds: float
    kind: str


def read_model(path: Path, about: Mapping[str, Any], shape: tuple[int, ...]) -> Kept | str | None:
    """A finished model; None where there is no file; why, where it cannot be used."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or type(error).__name__
    try:
        data, _, line = content.removesuffix(b"\n").rpartition(b"\n")
        trailer = json.loads(line)
        checksum, seconds = trailer.pop("sha256"), float(trailer["seconds"])
        true = hashlib.sha256(data + _canonical(trailer)).hexdigest()
        if checksum != true:  # before numpy reads it, which fails in more ways over a damaged header than are known
            return "its checksum differs: it was changed or damaged"
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except _DAMAGE:
        return "it is cut off or no file of divulge"
    trailer.pop("seconds")
    kind = str(trailer.pop("outputs", ""))
    if trailer != about or array.shape != shape or array.dtype != np.float32:
        return "it belongs to another model"
    return Kept(array, seconds, kind)


def arrays_of(rows: Rows) -> dict[str, NDArray[Any]]:
    """The arrays of the rows' file, by name."""
    arrays = {
        "design": np.packbits(rows.trained_on, axis=1),
        "labels": rows.labels,
        "ids": rows.ids,
        "member": rows.member,
        **{f"target.{name}": array for name, array in (rows.target or {}).items()},
    }
    return {name: array for name, array in arrays.items() if array is not None}


def digest_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Of named arrays, whatever their order."""
    from divulge.references.digests import data_digest

    return data_digest(dict(sorted(arrays.items())))


def read_index(folder: Path) -> dict[str, Any] | None:
    """What references.json says; None where there is none.

    Raises:
        InputError: DV406, not a file of divulge; DV407, another format.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError("DV035", f"cannot read {path}: {error.strerror or error}. Choose another folder.") from error
    except (ValueError, RecursionError):
        index = None
    if not isinstance(index, dict) or index.get("what") != MARK or not (_whole(index) or index.get("format") != FORMAT):
        raise InputError(
            "DV406",
            f"expected {path} to be of a store of references, got another file or a damaged one. Move it away (the "
            "models beside it are kept), or choose another folder.",
        )
    if index.get("format") != FORMAT:
        raise InputError(
            "DV407",
            f"expected a store of format {FORMAT}, got {shown(str(index.get('format')))} in {path}, of divulge "
            f"{shown(str(index.get('version')))}. Choose another folder, or use that version.",
        )
    return index


def _whole(index: Mapping[str, Any]) -> bool:
    """Whether all is there that this format has."""
    kinds = {"parts": dict, "keys": list, "signals": list, "models": int, "rows": int, "queries": int, "seed": int}
    kinds |= {"tag": str, "rows_digest": str}
    if not all(isinstance(index.get(name), kind) for name, kind in kinds.items()):
        return False
    # Said twice: one that was edited would give signals another name.
    return all(index["parts"].get(name) == index[name] for name in ("signals", "queries", "tag", "seed"))


def needed_index(folder: Path) -> dict[str, Any]:
    """`read_index`, where there must be one.

    Raises:
        InputError: DV030, there is none; DV406, DV407.
    """
    index = read_index(folder)
    if index is None:
        raise InputError(
            "DV030", f"expected a store of references in {shown(str(folder))}, got no {INDEX} there. Check the path."
        )
    return index


def rows_path(folder: Path, digest: str) -> Path:
    """Where the rows of a run are, by the digest of their arrays: another run's stay where they are beside them."""
    return folder / f"rows-{digest[:32]}.npz"


def read_rows(folder: Path, index: Mapping[str, Any]) -> Rows:
    """What the rows' file says, if it is the one that the index is of.

    Raises:
        InputError: DV406, it is damaged, missing or of another run.
    """
    path = rows_path(folder, index["rows_digest"])
    if not path.exists() and (folder / OLD_ROWS).exists():
        path = folder / OLD_ROWS
    try:
        arrays = read_arrays(path)
        sound = digest_of(arrays) == index["rows_digest"]
        design = np.unpackbits(arrays["design"], axis=1, count=index["rows"]).astype(bool)
        models = len(design) == index["models"] == len(index["keys"])
    except _DAMAGE as error:
        raise _foreign(path) from error
    if not sound or not models:
        raise _foreign(path)
    target = {name.removeprefix("target."): array for name, array in arrays.items() if name.startswith("target.")}
    return Rows(design, arrays["labels"], arrays.get("ids"), arrays.get("member"), target or None)


def is_sound(folder: Path, index: Mapping[str, Any]) -> bool:
    """Whether the rows are there as the index describes it."""
    try:
        read_rows(folder, index)
    except InputError:
        return False
    return True


def _foreign(path: Path) -> InputError:
    return InputError(
        "DV406",
        f"expected {path} as references.json beside it describes it, got a file that is missing, damaged or of another "
        "run. Run fit_references with this store again: it writes the file anew, and keeps the models.",
    )
