"""A folder of trained reference models' signals, so that a run that was stopped goes on where it was.

    <key>.npy         one finished model: a float32 array (s, n, q) that numpy.load reads, then a line of JSON
    references.json   the latest run: what it was made of, and its models' keys in order
    rows.npz          its design, labels, ids, members, and the target's signals

A key is a digest of all that the model depends on: its design row, number and seed, the data, the code, the signals,
the tag. Nothing is found under another key, so nothing that changed is used again. Every file is written beside its
place and renamed: a killed run leaves whole files. Nothing is ever unpickled, and nothing is deleted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.atomic import replacing
from divulge.doors.archives import read_arrays, write_arrays
from divulge.doors.names import listed, shown
from divulge.errors import InputError
from divulge.evidence import References
from divulge.version import VERSION

logger = logging.getLogger("divulge")

FORMAT = 1
INDEX = "references.json"
ROWS = "rows.npz"
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


class Status(NamedTuple):
    """How far a store's run is.

    Attributes:
        models: r, of the whole run.
        finished: how many of them are stored and sound.
        bad: names of files that are damaged or foreign; these models will be trained again.
        rows: n.
        signals: their names.
        seconds: the mean time of a model; NaN without one.
        tag: the user's.
        parts: what the run was made of: digests of data, code and target, seed, queries, kind.
    """

    models: int
    finished: int
    bad: tuple[str, ...]
    rows: int
    signals: tuple[str, ...]
    seconds: float
    tag: str
    parts: dict[str, Any]


class Recipe(NamedTuple):
    """All that a run's models depend on, but for each one's number, seed and design row.

    Attributes:
        data: its digest, labels included.
        code: the fit's digest.
        target: the digest of the target's signals; "" without one.
        signals: their names.
        queries: a record.
        kind: of outputs; "" where it is found out.
        tag: the user's.
        seed: of the run.
    """

    data: str
    code: str
    target: str
    signals: tuple[str, ...]
    queries: int
    kind: str
    tag: str
    seed: int

    def parts(self) -> dict[str, Any]:
        """As JSON has it.

        >>> Recipe("", "", "", ("loss",), 1, "", "", 0).parts()["signals"]
        ['loss']
        """
        return {**self._asdict(), "signals": list(self.signals)}


class Store:
    """A folder that one run's models are kept in.

    >>> import tempfile
    >>> recipe = Recipe("", "", "", ("loss",), 1, "", "", 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = Store(folder, recipe, Rows(np.eye(2, dtype=bool), np.arange(2), None, None, None))
    ...     store.put(1, np.zeros((1, 2, 1), np.float32), seconds=0.5)
    ...     store.get(0) is None, store.get(1).shape
    (True, (1, 2, 1))
    """

    def __init__(self, folder: str | PathLike[str], recipe: Recipe, rows: Rows) -> None:
        """Open or make the folder, and note the run in it.

        Args:
            folder: made if it is not there.
            recipe: what the models depend on.
            rows: the design and what is known of the rows.

        Raises:
            InputError: DV035, a place that cannot be written to; DV406, a foreign references.json; DV407, a store of
                another format.
        """
        self.folder = Path(folder)
        self._shape = (len(recipe.signals), rows.trained_on.shape[1], recipe.queries)
        self._about = [_about(recipe.parts(), number, row) for number, row in enumerate(rows.trained_on)]
        self.keys = [_key(about) for about in self._about]
        self._recipe, self._rows = recipe, rows
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError("DV035", f"cannot make the folder {folder}: {reason}. Choose another.") from error
        self.note()

    def get(self, number: int) -> NDArray[np.float32] | None:
        """(s, n, q) float32 of a finished model; None where there is none, or none that is sound (which is logged)."""
        path = self.folder / f"{self.keys[number]}.npy"
        found = _read(path, self._about[number], self._shape)
        if isinstance(found, str):
            logger.warning("DV406 %s is refused: %s. Model %d is trained again.", path.name, found, number)
            return None
        return None if found is None else found[0]

    def put(self, number: int, array: NDArray[np.float32], *, seconds: float) -> None:
        """Keep a finished model.

        Raises:
            InputError: DV035, the folder cannot be written to, or is full; nothing half written is left.
        """
        _write(self.folder / f"{self.keys[number]}.npy", array, {**self._about[number], "seconds": seconds})

    def note(self) -> None:
        """Make this run the folder's latest, which it is no more where another one began in the meantime."""
        recipe, rows = self._recipe, self._rows
        arrays = _arrays(rows)
        models, count = rows.trained_on.shape
        index = {
            "what": MARK,
            "format": FORMAT,
            "parts": recipe.parts(),
            "models": models,
            "rows": count,
            "queries": recipe.queries,
            "signals": list(recipe.signals),
            "keys": self.keys,
            "tag": recipe.tag,
            "seed": recipe.seed,
            "rows_digest": _digest(arrays),
            "version": VERSION,
        }
        if _index(self.folder) == index and _sound(self.folder, index):
            return  # the same run goes on; a folder that is complete may even be read-only
        with replacing(self.folder / ROWS) as temporary:
            write_arrays(temporary, arrays)
        text = json.dumps(index, indent=1, sort_keys=True) + "\n"
        with replacing(self.folder / INDEX) as temporary:
            temporary.write_bytes(text.encode())


# ------------------------------------------------------------------------------------------------ reading a store


def load_references(
    store: str | PathLike[str], *, ids: ArrayLike | None = None, labels: ArrayLike | None = None
) -> References:
    """The reference models of a store that have finished, those of its latest run.

    Args:
        store: the folder that was given to `fit_references`.
        ids: (n,) int or text, the records wanted, in this order; None: all, in the store's order. They are matched by
            value: 7, 7.0 and "7" are one id.
        labels: (n,) or (n, c) of these records, compared with the store's: a cheap check that they are the same ones.

    Returns:
        (r, n, q) float32 signals, of the r models that have finished; the log says how many are missing.

    Raises:
        InputError: DV030, no store there; DV406, a damaged references.json or rows.npz; DV407, a store of another
            format; DV408, no finished model; DV409, ids that the store lacks or has twice, or other labels.

    >>> import tempfile
    >>> from divulge.references import design, fit_references
    >>> def fit(data, rows, seed):
    ...     spread = data[0][rows].std()
    ...     return lambda data, rows, query: data[0][rows] / spread
    >>> x, y = np.linspace(-2, 2, 8), np.arange(8) >= 4
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = fit_references(fit, (x, y), design(8, 4), store=folder, ids=list("abcdefgh"))
    ...     load_references(folder, ids=["h", "a"], labels=[1, 0]).signals["log_odds"].shape
    (4, 2, 1)
    """
    folder = Path(store)
    index = _needed(folder)
    rows = _rows(folder, index)
    names = tuple(index["signals"])
    shape = (len(names), rows.trained_on.shape[1], index["queries"])
    chosen = _chosen(rows, ids, labels)
    kept, arrays, missing = [], [], 0
    for number, row in enumerate(rows.trained_on):
        path = folder / f"{index['keys'][number]}.npy"
        found = _read(path, _about(index["parts"], number, row), shape)
        if isinstance(found, str):
            logger.warning("DV406 %s is left out: %s", path.name, found)
        if found is None or isinstance(found, str):
            missing += 1
            continue
        kept.append(number)
        arrays.append(found[0][:, chosen])
    if not kept:
        raise InputError(
            "DV408",
            f"expected finished reference models in {shown(str(store))}, got none of {missing}. Run fit_references or "
            "`divulge references run` with it first.",
        )
    if missing:
        logger.warning(
            "%d of %d reference models are not finished; %d are used.", missing, missing + len(kept), len(kept)
        )
    return References(
        signals={name: np.stack([array[s] for array in arrays]) for s, name in enumerate(names)},
        target=None if rows.target is None else {name: array[chosen] for name, array in rows.target.items()},
        trained_on=rows.trained_on[kept][:, chosen],
    )


def rows_of(store: str | PathLike[str]) -> Rows:
    """What a store knows of its run's rows; errors as of `load_references`, but none for models.

    >>> import tempfile
    >>> recipe = Recipe("", "", "", ("loss",), 1, "", "", 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Store(folder, recipe, Rows(np.eye(2, dtype=bool), np.array([3, 4]), None, None, None))
    ...     rows_of(folder).labels.tolist()
    [3, 4]
    """
    return _rows(Path(store), _needed(Path(store)))


def status(store: str | PathLike[str]) -> Status:
    """How far a store's latest run is; every file is read and checked.

    Raises:
        InputError: DV030, DV406, DV407, as of `load_references`.

    >>> import tempfile
    >>> recipe = Recipe("", "", "", ("loss",), 1, "", "", 0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = Store(folder, recipe, Rows(np.eye(2, dtype=bool), np.arange(2), None, None, None))
    ...     made.put(1, np.zeros((1, 2, 1), np.float32), seconds=0.5)
    ...     status(folder).finished
    1
    """
    folder = Path(store)
    index = _needed(folder)
    trained_on = _rows(folder, index).trained_on
    shape = (len(index["signals"]), trained_on.shape[1], index["queries"])
    bad, times = [], []
    for number, row in enumerate(trained_on):
        path = folder / f"{index['keys'][number]}.npy"
        found = _read(path, _about(index["parts"], number, row), shape)
        if isinstance(found, str):
            bad.append(path.name)
        elif found is not None:
            times.append(found[1])
    seconds = float(np.mean(times)) if times else float("nan")
    names, parts = tuple(index["signals"]), dict(index["parts"])
    return Status(len(trained_on), len(times), tuple(bad), trained_on.shape[1], names, seconds, index["tag"], parts)


def _chosen(rows: Rows, ids: ArrayLike | None, labels: ArrayLike | None) -> NDArray[np.int64]:
    """The store's rows that are asked for, once ids and labels were checked."""
    from divulge.doors.arrays import to_array

    count = rows.trained_on.shape[1]
    chosen = np.arange(count)
    if ids is not None:
        if rows.ids is None:
            raise InputError("DV409", "expected a store with ids, got one without. Give ids= to fit_references too.")
        chosen = _positions(_texts(rows.ids), _texts(to_array(ids, "ids", set())))
    if labels is None:
        return chosen
    given = to_array(labels, "labels", set())
    if len(given) != len(chosen):
        raise InputError(
            "DV409", f"expected {len(chosen):,} labels, as many as the store's records, got {len(given):,}. Give ids."
        )
    if differing := _differing(rows.labels, chosen, given):
        raise InputError(
            "DV409",
            f"expected the labels of the store's records, got {differing:,} of {len(given):,} that differ: the order "
            "or the data is another. Give ids= here and to fit_references, or train references on this data.",
        )
    return chosen


def _texts(ids: NDArray[Any]) -> NDArray[Any]:
    """(n,) ids as text, numbers without their type: 7, 7.0 and "7" alike."""
    if ids.ndim != 1:
        raise InputError("DV409", f"expected (n,) ids, got shape {ids.shape}.")
    if ids.dtype.kind == "f":
        whole = np.isfinite(ids) & (np.abs(ids) < 2**53)
        if whole.all() and (ids == np.round(ids)).all():
            ids = ids.astype(np.int64)
    return ids.astype(str)


def _positions(stored: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    order = np.argsort(stored, kind="stable")
    ordered = stored[order]
    first, last = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
    for what, rows in (("lacks", first == last), ("has more than once", last - first > 1)):
        if rows.any():
            few = listed([shown(str(text)) for text in wanted[rows][:100]], limit=3)
            raise InputError(
                "DV409",
                f"expected each id once in the store, got {int(rows.sum()):,} of {len(wanted):,} that it {what}: "
                f"{few}. Use the ids that fit_references got, one a record.",
            )
    return order[first].astype(np.int64)


def _differing(stored: NDArray[Any], chosen: NDArray[np.int64], given: NDArray[Any]) -> int:
    """How many labels differ, as they are or as codes of the sorted classes: evidence holds labels coded."""
    from divulge.doors.arrays import distinct, is_text

    own = stored[chosen]
    if own.shape != given.shape:
        return len(given)
    if is_text(own) == is_text(given):
        if is_text(own) or own.dtype.kind != "f" or given.dtype.kind != "f":
            unlike = own != given
        else:
            unlike = ~np.isclose(own, given, rtol=1e-6, atol=0, equal_nan=True)  # one may have been a float32
        plain = int(unlike.reshape(len(given), -1).any(axis=1).sum())
    else:
        plain = len(given)
    if not plain or own.ndim > 1:
        return plain
    classes, codes = distinct(stored)
    numbers = not is_text(given) and given.dtype.kind in "iub"
    within = numbers and len(given) > 0 and int(given.min()) >= 0 and int(given.max()) < len(classes)
    return min(plain, int((codes[chosen] != given).sum())) if within else plain


# ------------------------------------------------------------------------------------------------- the files


def _key(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(about)).hexdigest()[:32]


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _about(parts: Mapping[str, Any], number: int, row: NDArray[np.bool_]) -> dict[str, Any]:
    """All that one model depends on."""
    return {
        "format": FORMAT,
        "model": number,
        "design": np.packbits(row).tobytes().hex(),
        "rows": len(row),
        **parts,
    }


def _write(path: Path, array: NDArray[np.float32], about: Mapping[str, Any]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)
    data = file.getvalue()
    checksum = hashlib.sha256(data + _canonical(about)).hexdigest()
    with replacing(path) as temporary:
        temporary.write_bytes(data + b"\n" + _canonical({**about, "sha256": checksum}) + b"\n")


def _read(
    path: Path, about: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], float] | str | None:
    """A model's (s, n, q) and the seconds it took; None where there is no file; why, where it cannot be used."""
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
    if trailer != about or array.shape != shape or array.dtype != np.float32:
        return "it belongs to another model"
    return array, seconds


def _arrays(rows: Rows) -> dict[str, NDArray[Any]]:
    arrays = {
        "design": np.packbits(rows.trained_on, axis=1),
        "labels": rows.labels,
        "ids": rows.ids,
        "member": rows.member,
        **{f"target.{name}": array for name, array in (rows.target or {}).items()},
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    from divulge.references.digests import data_digest

    return data_digest(dict(sorted(arrays.items())))


def _index(folder: Path) -> dict[str, Any] | None:
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


def _needed(folder: Path) -> dict[str, Any]:
    index = _index(folder)
    if index is None:
        raise InputError(
            "DV030", f"expected a store of references in {shown(str(folder))}, got no {INDEX} there. Check the path."
        )
    return index


def _rows(folder: Path, index: Mapping[str, Any]) -> Rows:
    path = folder / ROWS
    try:
        arrays = read_arrays(path)
        sound = _digest(arrays) == index["rows_digest"]
        design = np.unpackbits(arrays["design"], axis=1, count=index["rows"]).astype(bool)
        models = len(design) == index["models"] == len(index["keys"])
    except _DAMAGE as error:
        raise _foreign(path) from error
    if not sound or not models:
        raise _foreign(path)
    target = {name.removeprefix("target."): array for name, array in arrays.items() if name.startswith("target.")}
    return Rows(design, arrays["labels"], arrays.get("ids"), arrays.get("member"), target or None)


def _sound(folder: Path, index: Mapping[str, Any]) -> bool:
    try:
        _rows(folder, index)
    except InputError:
        return False
    return True


def _foreign(path: Path) -> InputError:
    return InputError(
        "DV406",
        f"expected {path} as references.json beside it describes it, got a file that is missing, damaged or of another "
        "run. Run fit_references with this store again: it writes the file anew, and keeps the models.",
    )
