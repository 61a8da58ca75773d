"""What was counted of a stream's files, kept in one file: after a stop the same audit goes on from there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from divulge.atomic import replacing
from divulge.attacks.attack import without_address
from divulge.bins import Histogram
from divulge.doors.archives import damaged, read_arrays, write_arrays
from divulge.doors.tables import Overrides
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.files import from_arrays, to_arrays
from divulge.references.digests import code_digest
from divulge.streams.dealing import placed, unplaced
from divulge.streams.sketches import Sample, Squares, Units
from divulge.streams.tally import BITS, SLICE_BITS, Plan, Slices, Tally
from divulge.version import VERSION

FORM = 2
Arrays = dict[str, NDArray[Any]]
Stamp = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A sketch, what was asked, the tally so far, and the files that are in it.

    Attributes:
        sketch: which the attacks were fitted on; the same one is used after a stop.
        asked: what the tally depends on, as text.
        tally: of the finished files; None where there are none.
        files: their whole paths, sizes and times.
    """

    sketch: Evidence
    asked: str
    tally: Tally | None
    files: Mapping[str, Stamp]
    path: Path | None = None

    @staticmethod
    def stamp(file: Path) -> Stamp:
        """Size and time, by which a file that was changed is known."""
        about = file.stat()
        return about.st_size, about.st_mtime_ns

    def check(self, asked: str, stamps: Mapping[str, Stamp]) -> None:
        """Whether it may be gone on from, by what is asked now and with the files that are there now.

        Raises:
            InputError: DV037, other settings, or a counted file was changed, renamed or is gone.
        """
        where = str(self.path)
        if self.asked != asked:
            raise InputError(
                "DV037",
                f"{where} was begun with other settings: {_differ(self.asked, asked)}. Use those, or another "
                "checkpoint.",
            )
        for name, stamp in self.files.items():
            if name not in stamps:
                raise InputError("DV037", f"{where} has counted {name}, which is no longer there. Use another one.")
            if stamps[name] != tuple(stamp):
                raise InputError("DV037", f"{where} has counted {name}, which was changed since. Use another one.")

    def save(self, path: str | PathLike[str]) -> None:
        """Write it, whole or not at all; for its owner's eyes, since it holds some of the records."""
        arrays: Arrays = {"asked": _text(self.asked), "files": _text(json.dumps(self.files))}
        arrays |= _of_rows("sketch", self.sketch)
        arrays |= {} if self.tally is None else _of_tally(self.tally)
        with replacing(path) as temporary:
            temporary.chmod(0o600)  # while it is empty
            write_arrays(temporary, arrays)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Checkpoint | None:
        """What was saved there; None where nothing was.

        Raises:
            InputError: DV032, a file that is no checkpoint.
        """
        where = Path(path)
        if not where.exists():
            return None
        arrays = read_arrays(where)
        if not {"asked", "files"} & set(arrays):
            raise InputError("DV032", f"{where} is no checkpoint, but another .npz file. Give a checkpoint a new name.")
        try:
            files = {name: (int(size), int(at)) for name, (size, at) in json.loads(_read(arrays["files"])).items()}
            sketch = _rows(arrays, "sketch", None)
            tally = _tally(arrays, sketch) if "rows" in arrays else None
            return cls(sketch, _read(arrays["asked"]), tally, files, where)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise damaged(where, error) from error


def asked_of(plan: Plan, columns: Overrides) -> str:
    """Everything that a tally depends on but the records and the sketch.

    Asked once a run, before anything is counted: a function may change what it reads while it runs.

    Raises:
        InputError: DV403, an attack or a slicer whose code or data cannot be known.
    """
    calls: dict[str, object] = {f"the attack {attack.name}": attack.call for attack in plan.attacks}
    calls |= {f"slicer {at + 1}": slicer for at, slicer in enumerate(plan.slicers)}
    asked = {
        "version": VERSION,
        "form": FORM,
        "attacks": {attack.name: without_address(repr(attack.call)) for attack in plan.attacks},
        "slices": [without_address(repr(slicer)) for slicer in plan.slicers],
        "columns": {name: repr(getattr(columns, name)) for name in columns.given()},
        "seed": plan.seed,
        "sample": plan.sample,
        "bits": [BITS, SLICE_BITS],
        "code": {whose: _code(whose, call) for whose, call in calls.items()},
    }
    return json.dumps(asked)


def _code(whose: str, call: object) -> str:
    """A name for what is called, by its code and what that reads: functions of one name may differ."""
    try:
        return code_digest(call)
    except InputError as error:
        raise InputError(
            "DV403",
            f"{whose}: {error.message.partition(' Give arrays')[0]} A checkpoint goes on only with the same code: open "
            "files, locks and connections when it is called, or run without a checkpoint.",
        ) from error


def _differ(one: str, other: str) -> str:
    before, now = json.loads(one), json.loads(other)
    name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
    if name == "code":  # of as many attacks and slicers, called the same
        whose = next(whose for whose, digest in now[name].items() if before[name].get(whose) != digest)
        return f"{whose} is called as before, but its code, or a value that it reads, is another"
    was, has = (re.sub(r"<function ([^>]*)>", r"\1", f"{found.get(name)!r:.200}") for found in (before, now))
    return f"{name} was {was}, is {has}"


def _text(text: str) -> NDArray[Any]:
    return np.frombuffer(text.encode(), np.uint8)


def _read(array: NDArray[Any]) -> str:
    return array.astype(np.uint8).tobytes().decode()


def _under(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


# -------------------------------------------------------------------------------------------------- tally <-> arrays


def _of_tally(tally: Tally) -> Arrays:
    names = {
        "attacks": list(tally.everyone),
        "slices": [[part.name, list(part.labels), part.overlapping] for part in tally.slices],
    }
    arrays: Arrays = {"names": _text(json.dumps(names)), "rows": tally.rows, "digest": tally.digest}
    if tally.right is not None:
        arrays["right"] = tally.right
    for at, name in enumerate(tally.everyone):
        arrays[f"unscored {at}"] = tally.unscored[name]
        arrays |= _of_histogram(f"everyone {at}", tally.everyone[name])
        for number, part in enumerate(tally.slices):
            arrays |= _of_histogram(f"slices {number} {at}", part.counts[name])
    arrays["sample size"], arrays["sample hashes"] = np.array(tally.sample.size), tally.sample.hashes
    arrays |= _of_rows("sample rows", tally.sample.rows)
    for name, units in (("copies", tally.copies), ("ids", tally.ids), ("groups", tally.groups)):
        if units is not None:
            columns = {"hashes": units.hashes, "members": units.members, "nonmembers": units.nonmembers}
            arrays |= {f"{name} {column}": array for column, array in columns.items()}
    if tally.sizes is not None:
        arrays["sizes"] = tally.sizes.sums
    return arrays


def _of_rows(name: str, rows: Evidence) -> Arrays:
    """Places, which are no ids of the user's, apart."""
    plain = unplaced(rows)
    arrays = {f"{name} {field}": array for field, array in to_arrays(plain).items()}
    return arrays if plain is rows or rows.ids is None else {**arrays, f"places of {name}": rows.ids}


def _rows(arrays: Arrays, name: str, like: Evidence | None) -> Evidence:
    rows = from_arrays(_under(arrays, f"{name} "), like=like)
    return placed(rows, arrays[f"places of {name}"]) if f"places of {name}" in arrays else rows


def _of_histogram(name: str, counts: Histogram) -> Arrays:
    return {f"{name} bins": counts.bins, f"{name} counts": counts.counts, f"{name} bits": np.array(counts.bits)}


def _tally(arrays: Arrays, sketch: Evidence) -> Tally:
    names = json.loads(_read(arrays["names"]))
    attacks = list(enumerate(cast(list[str], names["attacks"])))
    slices = tuple(
        Slices(
            name, tuple(labels), {attack: _histogram(arrays, f"slices {number} {at}") for at, attack in attacks}, both
        )
        for number, (name, labels, both) in enumerate(names["slices"])
    )
    sample = Sample(_rows(arrays, "sample rows", unplaced(sketch)), arrays["sample hashes"], int(arrays["sample size"]))
    copies = _units(arrays, "copies")
    if copies is None:
        raise KeyError("copies")
    return Tally(
        arrays["rows"],
        arrays.get("right"),
        {attack: arrays[f"unscored {at}"] for at, attack in attacks},
        arrays["digest"],
        {attack: _histogram(arrays, f"everyone {at}") for at, attack in attacks},
        slices,
        sample,
        copies,
        _units(arrays, "ids"),
        _units(arrays, "groups"),
        Squares(arrays["sizes"]) if "sizes" in arrays else None,
    )


def _histogram(arrays: Arrays, name: str) -> Histogram:
    return Histogram(arrays[f"{name} bins"], arrays[f"{name} counts"], int(arrays[f"{name} bits"]))


def _units(arrays: Arrays, name: str) -> Units | None:
    if f"{name} hashes" not in arrays:
        return None
    return Units(*(arrays[f"{name} {column}"] for column in ("hashes", "members", "nonmembers")))
