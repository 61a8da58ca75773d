"""A folder of trained reference models' signals, so that a run that was stopped goes on where it was.

    <key>.npy         one finished model: a float32 array (s, n, q) that numpy.load reads, then a line of JSON
    references.json   the latest run: what it was made of, and its models' keys in order
    rows-<digest>.npz its design, labels, ids, members, and the target's signals

A key is a digest of all that the model depends on: its design row, number and seed, the data, the code, the signals,
the tag. Nothing is found under another key, so nothing that changed is used again. Every file is written beside its
place and renamed, and what references.json names is there before it: a run that is killed leaves whole files, and
whoever reads sees one run or the other. Nothing is ever unpickled, and nothing is deleted.
"""

from __future__ import annotations

import json
import logging
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.atomic import replacing
from divulge.doors.archives import write_arrays
from divulge.doors.names import shown
from divulge.errors import InputError
from divulge.evidence import References
from divulge.references.files import (
    FORMAT,
    INDEX,
    MARK,
    Kept,
    Rows,
    about_model,
    arrays_of,
    digest_of,
    is_sound,
    key_of,
    needed_index,
    read_index,
    read_model,
    read_rows,
    rows_path,
    write_model,
)
from divulge.references.matching import chosen_rows
from divulge.version import VERSION

logger = logging.getLogger("divulge")


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
    ...     store.get(0) is None, store.get(1).signals.shape
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
        self._about = [about_model(recipe.parts(), number, row) for number, row in enumerate(rows.trained_on)]
        self.keys = [key_of(about) for about in self._about]
        self._recipe, self._rows = recipe, rows
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError("DV035", f"cannot make the folder {folder}: {reason}. Choose another.") from error
        self.note()

    def get(self, number: int) -> Kept | None:
        """A finished model; None where there is none, or none that is sound (which is logged)."""
        path = self.folder / f"{self.keys[number]}.npy"
        found = read_model(path, self._about[number], self._shape)
        if isinstance(found, str):
            logger.warning("DV406 %s is refused: %s. Model %d is trained again.", path.name, found, number)
            return None
        return found

    def put(self, number: int, array: NDArray[np.float32], *, seconds: float, kind: str = "") -> None:
        """Keep a finished model; kind: of the outputs that its signals were read from.

        Raises:
            InputError: DV035, the folder cannot be written to, or is full; nothing half written is left.
        """
        about = {**self._about[number], "seconds": seconds, "outputs": kind}
        write_model(self.folder / f"{self.keys[number]}.npy", array, about)

    def note(self) -> None:
        """Make this run the folder's latest, which it is no more where another one began in the meantime."""
        recipe, rows = self._recipe, self._rows
        arrays = arrays_of(rows)
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
            "rows_digest": (digest := digest_of(arrays)),
            "version": VERSION,
        }
        sound = is_sound(self.folder, index)
        if read_index(self.folder) == index and sound:
            return  # the same run goes on; a folder that is complete may even be read-only
        if not sound:
            with replacing(rows_path(self.folder, digest)) as temporary:
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
        InputError: DV030, no store there; DV406, damaged references.json or rows; DV407, a store of another
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
    index = needed_index(folder)
    rows = read_rows(folder, index)
    names = tuple(index["signals"])
    shape = (len(names), rows.trained_on.shape[1], index["queries"])
    chosen = chosen_rows(rows, ids, labels)
    kept, arrays, missing = [], [], 0
    for number, row in enumerate(rows.trained_on):
        path = folder / f"{index['keys'][number]}.npy"
        found = read_model(path, about_model(index["parts"], number, row), shape)
        if isinstance(found, str):
            logger.warning("DV406 %s is left out: %s", path.name, found)
        if found is None or isinstance(found, str):
            missing += 1
            continue
        kept.append(number)
        arrays.append(found.signals[:, chosen])
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
    return read_rows(Path(store), needed_index(Path(store)))


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
    index = needed_index(folder)
    trained_on = read_rows(folder, index).trained_on
    shape = (len(index["signals"]), trained_on.shape[1], index["queries"])
    bad, times = [], []
    for number, row in enumerate(trained_on):
        path = folder / f"{index['keys'][number]}.npy"
        found = read_model(path, about_model(index["parts"], number, row), shape)
        if isinstance(found, str):
            bad.append(path.name)
        elif found is not None:
            times.append(found.seconds)
    seconds = float(np.mean(times)) if times else float("nan")
    names, parts = tuple(index["signals"]), dict(index["parts"])
    return Status(len(trained_on), len(times), tuple(bad), trained_on.shape[1], names, seconds, index["tag"], parts)
