"""Series: reports over epochs, architectures or noise levels, in order; a folder of run files and back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from divulge import atomic
from divulge.comparison import COLUMNS, Comparison, Source, compare, names_of, runs_in
from divulge.errors import InputError
from divulge.report import Report, Row, frame_of

SCHEMA = "divulge-series-1"
INDEX = "series.json"

Run = Report | str | PathLike[str]


@dataclass(frozen=True, eq=False)
class Series:
    """Runs of one model family, in order.

    People enter by `Series.of` or `Series.load`; the constructor takes what is checked already.

    Attributes:
        reports: one a run.
        names: a name a run, all different.
        steps: where each run stands on the axis (epoch 10, noise multiplier 0.7), or None.
        axis: what the steps are.
        evidence: what each run was audited with, or its path, or None: pairs the runs by their records' ids.

    >>> from divulge.metrics import Estimate
    >>> from divulge.pipeline import audit
    >>> from divulge.evidence import Evidence
    >>> import numpy as np
    >>> n = np.arange(2000)
    >>> reports = [audit(Evidence(n < 1000, signals={"x": np.sin(n * n) + d * (n < 1000)})) for d in (0, 0.1, 0.3)]
    >>> series = Series.of(reports, steps=[1, 10, 100], axis="epoch")
    >>> [(row["run"], round(row["value"], 2)) for row in series.rows() if row["metric"] == "score"]
    [('epoch 1', -0.01), ('epoch 10', 0.16), ('epoch 100', 0.25)]
    """

    reports: tuple[Report, ...]
    names: tuple[str, ...]
    steps: tuple[float, ...] | None = None
    axis: str = "step"
    evidence: tuple[Source, ...] | None = None

    def __len__(self) -> int:
        """The number of runs."""
        return len(self.reports)

    def __repr__(self) -> str:
        return f"<Series of {len(self)} runs: {', '.join(map(repr, self.names))}>"

    @classmethod
    def of(
        cls,
        runs: Sequence[Run],
        *,
        names: Sequence[str] | None = None,
        steps: Sequence[float] | None = None,
        axis: str = "step",
        evidence: Sequence[Source] | None = None,
    ) -> Series:
        """A series of reports, or of paths of run files, in the order given.

        Args:
            runs: one or more; pictures and comparisons need two.
            names: what to call them; default: "axis step" where there are steps, else the file names or "run 1" ….
            steps: a different finite number a run: its epoch, its noise multiplier.
            axis: what the steps are, as a picture says it.
            evidence: as for `divulge.compare`.

        Raises:
            InputError: DV067, no runs, or names or steps that are not one a run and all different; DV055, a file that
                is not a run file.
        """
        if isinstance(runs, Report | str | PathLike) or not len(runs):
            raise InputError("DV067", f"expected a list of reports or paths, got {runs!r:.80}")
        places = None if steps is None else tuple(float(step) for step in steps)
        if places is not None and (
            len(places) != len(runs) or len(set(places)) != len(places) or not all(map(math.isfinite, places))
        ):
            raise InputError("DV067", f"expected {len(runs)} different finite steps, one a run, got {places!r:.200}")
        axis = str(axis)
        if names is not None:
            called = tuple(str(name) for name in names)
        elif places is not None:
            called = tuple(f"{axis} {step:.12g}" for step in places)
        else:
            called = names_of(runs)
        if len(called) != len(runs) or len(set(called)) != len(called):
            raise InputError("DV067", f"expected {len(runs)} different names, one a run, got {list(called)!r:.200}")
        reports = tuple(run if isinstance(run, Report) else Report.load(Path(run)) for run in runs)
        return cls(reports, called, places, axis, None if evidence is None else tuple(evidence))

    # ---------------------------------------------------------------------------------------------- what it shows

    @cached_property
    def comparison(self) -> Comparison:
        """Every run against the first; see `divulge.compare`, which says what it raises."""
        return compare(*self.reports, names=self.names, evidence=self.evidence)

    def rows(self) -> list[Row]:
        """One row a figure and run: `Comparison.rows`, and the run's step (NaN where there are none)."""
        places = dict(zip(self.names, self.steps or [math.nan] * len(self), strict=True))
        return [{**row, "step": places[row["run"]]} for row in self.comparison.rows()]

    def to_frame(self, *, backend: str | None = None) -> Any:
        """The rows as a data frame.

        Args:
            backend: "pandas", "polars" or "pyarrow"; None: the first that is installed.

        Raises:
            InputError: DV054, an unknown backend, or one that is not installed.
        """
        rows = self.rows()
        return frame_of({name: [row[name] for row in rows] for name in (*COLUMNS, "step")}, backend)

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """The comparison's page with the picture over the steps, and written to `path` if one is given."""
        from divulge.reporters import html

        return atomic.written(html.render_comparison(self.comparison, series=self), path)

    # ------------------------------------------------------------------------------------------------- its folder

    def save(self, folder: str | PathLike[str]) -> None:
        """Write a run file a run and series.json, which names them; a reader finds the old series or the new one.

        Args:
            folder: made if it is not there; run files of an earlier series in it go once the new one stands.

        Raises:
            InputError: DV035, a place that cannot be written to.
        """
        places = self.steps or [None] * len(self)
        entries = [
            Entry(store(report, at, folder), name, step)
            for at, (report, name, step) in enumerate(zip(self.reports, self.names, places, strict=True))
        ]
        write_index(folder, self.axis, entries)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Series:
        """The series of a folder; without series.json its run files, by name.

        Raises:
            InputError: DV067, a damaged series.json; DV055, no run file, or a damaged one.
        """
        place = Path(folder)
        if not (place / INDEX).is_file():
            runs, _ = runs_in(place)
            if not runs:
                raise InputError("DV055", f"expected run files in the folder {str(place)!r}, and it holds none")
            return cls.of(runs)
        axis, entries = _read_index(place / INDEX)
        steps = [entry.step for entry in entries if entry.step is not None]
        if steps and len(steps) != len(entries):
            raise InputError("DV067", f"{str(place / INDEX)!r} has a step for some runs only; expected all or none")
        files = [place / entry.file for entry in entries]
        return cls.of(files, names=[entry.name for entry in entries], steps=steps or None, axis=axis)


def in_folder(folder: str | PathLike[str]) -> tuple[list[Path], list[Path]]:
    """The run files of a folder, and what else lies there that might have been one.

    With series.json: those that it names, in its order; run files that it does not name are others.

    Raises:
        InputError: DV067, a damaged series.json.
    """
    place = Path(folder)
    runs, others = runs_in(place)
    if not (place / INDEX).is_file():
        return runs, others
    named = [place / entry.file for entry in _read_index(place / INDEX)[1]]
    return named, [path for path in (*runs, *others) if path not in named and path.name != INDEX]


class Entry(NamedTuple):
    """A run in series.json: its file, its name, its step or None.

    >>> Entry("0001-0badcafe.json", "epoch 1", 1.0).step
    1.0
    """

    file: str
    name: str
    step: float | None


_OURS = re.compile(r"\d{4,}-[0-9a-f]{8}\.json")


def store(report: Report, at: int, folder: str | PathLike[str]) -> str:
    """Write the run file of the run at place `at`, and give its name: it sorts by place and tells contents apart.

    A changed run gets another name, so that until series.json names it the earlier series stays whole.
    """
    text = report.to_json()
    name = f"{at + 1:04d}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError("DV035", f"cannot make the folder {str(place)!r}: {reason}. Choose another.") from error
    if not (place / name).is_file():
        atomic.written(text, place / name)
    return name


def write_index(folder: str | PathLike[str], axis: str, entries: Sequence[Entry]) -> None:
    """Write series.json, then remove the run files that only the earlier one named."""
    place = Path(folder) / INDEX
    before: list[Entry] = []
    if place.is_file():
        with contextlib.suppress(InputError):  # damaged: what it named is not known, so nothing of it goes
            before = _read_index(place)[1]
    body = {"schema": SCHEMA, "axis": axis, "runs": [entry._asdict() for entry in entries]}
    atomic.written(json.dumps(body, ensure_ascii=False, allow_nan=False, indent=1) + "\n", place)
    for name in {entry.file for entry in before} - {entry.file for entry in entries}:
        if _OURS.fullmatch(name):
            (place.parent / name).unlink(missing_ok=True)


def _read_index(path: Path) -> tuple[str, list[Entry]]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["schema"] != SCHEMA:
            raise ValueError(f"schema {body['schema']!r}, expected {SCHEMA!r}")
        entries = [_entry(item) for item in body["runs"]]
        if not entries:
            raise ValueError("no runs")
        return str(body["axis"]), entries
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        told = f"expected a series.json that divulge wrote at {str(path)!r}: {error!r:.200}"
        raise InputError("DV067", told) from error


def _entry(item: Mapping[str, Any]) -> Entry:
    file, step = str(item["file"]), item["step"]
    if Path(file).name != file:
        raise ValueError(f"a run file outside the folder: {file!r:.80}")
    return Entry(file, str(item["name"]), None if step is None else float(step))
