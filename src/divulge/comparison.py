"""compare(): the main figures of several runs, each against the first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path, PurePath

import numpy as np

from divulge.errors import InputError
from divulge.intervals import Bounds, difference
from divulge.metrics import FPRS, NAN, Estimate
from divulge.report import LADDER, Report, Row, Verdict
from divulge.slices import EVERYONE

COLUMNS = (
    "run", "metric", "fpr", "attack", "value", "low", "high", "difference", "diff_low", "diff_high", "reason",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs' main figures.

    Attributes:
        names: a name a run, the first run's first.
        verdicts: a verdict a run.
        confidence: of every interval.
        table: the rows of `rows`.
    """

    names: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    confidence: float
    table: tuple[Mapping[str, object], ...]

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(map(repr, self.names))}>"

    def rows(self, table: str = "comparison") -> list[Row]:
        """One row a figure and run, grouped by figure: `COLUMNS`.

        difference: this run's value minus the first run's (NaN for the first), with its interval. It treats the runs
        as independent samples; runs over the same records differ less by chance, so that it is then too wide.

        Raises:
            InputError: DV054, no such table.
        """
        if table != "comparison":
            raise InputError("DV054", f"a comparison has no table {table!r}; it has comparison")
        return [dict(row) for row in self.table]


def compare(*runs: Report | str | PathLike[str], names: Sequence[str] | None = None) -> Comparison:
    """Put runs side by side: score, tail, best AUC, accuracy, and their differences to the first.

    Args:
        runs: two or more reports, or paths of run files.
        names: what to call them; default: the file names, "run 1" … for reports.

    Raises:
        InputError: DV060, fewer than two runs, names that are not one a run, or runs at different confidences; DV055,
            a file that is not a run file.

    >>> from divulge.evidence import Evidence
    >>> from divulge.pipeline import audit
    >>> n = np.arange(2000)
    >>> reports = [
    ...     audit(Evidence(member=n < 1000, signals={"loss": np.sin(n * n) + leak * (n < 1000)})) for leak in (0, 0.2)
    ... ]
    >>> round(compare(*reports).rows()[1]["difference"], 1)
    0.2
    """
    if len(runs) < 2:
        raise InputError("DV060", f"expected two or more runs to compare, got {len(runs)}")
    called = _names(runs) if names is None else tuple(names)
    if len(called) != len(runs) or len(set(called)) != len(called):
        raise InputError("DV060", f"expected {len(runs)} different names, one a run, got {list(called)!r:.200}")
    reports = [run if isinstance(run, Report) else Report.load(Path(run)) for run in runs]
    confidences = [float(report.meta["confidence"]) for report in reports]
    if any(not math.isclose(confidence, confidences[0]) for confidence in confidences):
        said = ", ".join(f"{name}: {confidence:g}" for name, confidence in zip(called, confidences, strict=True))
        raise InputError("DV060", f"the runs have intervals of different confidence ({said}): audit them at one")
    figures = [_figures(report) for report in reports]
    keys = sorted(dict.fromkeys(key for own in figures for key in own), key=_order)
    table = [row for key in keys for row in _rows(key, called, [own.get(key) for own in figures])]
    return Comparison(called, tuple(report.verdict for report in reports), confidences[0], tuple(table))


def _names(runs: Sequence[Report | str | PathLike[str]]) -> tuple[str, ...]:
    """The shortest names that tell the runs apart."""
    paths = [None if isinstance(run, Report) else PurePath(fspath(run)) for run in runs]
    for of in (lambda path: path.stem, lambda path: path.name, str):
        names = tuple(f"run {at + 1}" if path is None else str(of(path)) for at, path in enumerate(paths))
        if len(set(names)) == len(names):
            return names
    return tuple(f"{at + 1}: {name}" for at, name in enumerate(names))


Key = tuple[str, float | None]
_METRICS = ("score", "tail_lift", "auc", "nonmember_accuracy", "member_accuracy")


def _order(key: Key) -> tuple[int, float]:
    return _METRICS.index(key[0]), key[1] or 0.0


def _figures(report: Report) -> dict[Key, tuple[str, Estimate]]:
    """A run's figures by metric and FPR, with the attack that gave each."""
    found: dict[Key, tuple[str, Estimate]] = {}
    for row in report.rows("results"):
        if row["slice"] != EVERYONE or row["metric"] not in _METRICS or row["metric"] == "auc":
            continue
        fpr = next((rate for rate in FPRS if math.isclose(rate, row["fpr"], rel_tol=1e-9)), None)
        estimate = Estimate(row["value"], row["low"], row["high"], row["reason"])
        if fpr is None or not math.isnan(estimate.value):
            found[row["metric"], fpr] = (str(row["attack"]), estimate)
    best = _best_auc(report)
    return found if best is None else {**found, ("auc", None): best}


def _best_auc(report: Report) -> tuple[str, Estimate] | None:
    """The largest AUC of the run's attacks; its interval holds the best attack's in the population.

    The low end is the largest of the attacks' low ends, each at error / attacks; the high end the largest of their
    high ends: picking the best of many does not make a run look worse.
    """
    bounds = {row["row"]: row for row in report.rows("bounds")}
    rows = [
        (row, bounds[at])
        for at, row in enumerate(report.rows("results"))
        if row["metric"] == "auc" and row["slice"] == EVERYONE and at in bounds
    ]
    if not rows:
        return None
    step = next((at for at, share in enumerate(LADDER) if share <= 1 / len(rows)), len(LADDER) - 1)
    top, _ = max(rows, key=lambda item: item[0]["value"])
    low = max(bound["low"][step] for _, bound in rows)
    high = max(bound["high"][0] for _, bound in rows)
    value = float(top["value"])
    return str(top["attack"]), Estimate(value, min(low, value), max(high, value))


def _rows(key: Key, names: Iterable[str], found: Sequence[tuple[str, Estimate] | None]) -> list[Row]:
    rows: list[Row] = []
    for name, item in zip(names, found, strict=True):
        attack, estimate = item or ("", Estimate(NAN, NAN, NAN, f"{name} has no figure for it"))
        change = _difference(estimate, found[0][1]) if rows and found[0] is not None else (NAN, NAN, NAN)
        fpr = NAN if key[1] is None else key[1]
        cells = (name, key[0], fpr, attack, *estimate[:3], *change, estimate.reason)
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def _difference(own: Estimate, first: Estimate) -> tuple[float, float, float]:
    if any(math.isnan(end) for estimate in (own, first) for end in estimate[:3]):
        return NAN, NAN, NAN
    ends = difference(
        own.value,
        Bounds(np.asarray(own.low), np.asarray(own.high)),
        first.value,
        Bounds(np.asarray(first.low), np.asarray(first.high)),
    )
    return own.value - first.value, float(ends.low), float(ends.high)
