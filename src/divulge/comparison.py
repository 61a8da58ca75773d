"""compare(): the main figures of several runs, each against the first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path, PurePath

from divulge import atomic
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.metrics import FPRS, NAN, Estimate
from divulge.pairing import Pairing, Scored, difference_of, pair, scored
from divulge.report import LADDER, Report, Row, Verdict
from divulge.runfile import SCHEMA as RUN_SCHEMA
from divulge.slices import EVERYONE

COLUMNS = (
    "run", "metric", "fpr", "attack", "value", "low", "high", "difference", "diff_low", "diff_high", "pairing",
    "reason",
)  # fmt: skip

SCHEMA = "divulge-comparison-1"

Source = Evidence | str | PathLike[str] | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs' main figures.

    Attributes:
        names: a name a run, the first run's first.
        verdicts: a verdict a run.
        confidence: of every interval.
        table: the rows of `rows`.
        reports: the runs.
        pairings: how each run was matched with the first; None for the first, and where evidence is missing.
    """

    names: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    confidence: float
    table: tuple[Mapping[str, object], ...]
    reports: tuple[Report, ...]
    pairings: tuple[Pairing | None, ...]

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(map(repr, self.names))}>"

    def rows(self, table: str = "comparison") -> list[Row]:
        """One row a figure and run, grouped by figure: `COLUMNS`.

        value: the run's own, of all its records.
        difference: this run's minus the first's (NaN for the first), with its interval.
        pairing: "paired": the difference is that of the records that both runs hold on the same side, and its interval
            knows how alike the two models answer. "unpaired": it is that of the values, as of independent samples; over
            the same records that is too wide, and too narrow where the members of the one are non-members of the
            other. None for the first run.

        Raises:
            InputError: DV054, no such table.
        """
        if table != "comparison":
            raise InputError("DV054", f"a comparison has no table {table!r}; it has comparison")
        return [dict(row) for row in self.table]

    def to_html(self, path: str | PathLike[str] | None = None) -> str:
        """The runs side by side as one HTML page, and written to `path` if one is given; no script, no network."""
        from divulge.reporters import html

        return atomic.written(html.render_comparison(self), path)

    def to_json(self) -> str:
        """The rows and how the runs were paired: schema divulge-comparison-1, the same bytes for the same comparison.

        What is undefined is null.
        """
        runs = [
            {"name": name, "verdict": verdict.value, "pairing": _plain(pairing)}
            for name, verdict, pairing in zip(self.names, self.verdicts, self.pairings, strict=True)
        ]
        rows = [{name: _defined(cell) for name, cell in row.items()} for row in self.table]
        body = {"schema": SCHEMA, "confidence": self.confidence, "runs": runs, "rows": rows}
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def _plain(pairing: Pairing | None) -> dict[str, object] | None:
    """Its counts; its differences stand in the rows."""
    return None if pairing is None else {k: v for k, v in pairing._asdict().items() if k != "differences"}


def _defined(cell: object) -> object:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def compare(
    *runs: Report | str | PathLike[str],
    names: Sequence[str] | None = None,
    evidence: Sequence[Source] | None = None,
) -> Comparison:
    """Put runs side by side: score, tail, best AUC, accuracy, and their differences to the first.

    Args:
        runs: two or more reports, or paths of run files.
        names: what to call them; default: the file names, "run 1" … for reports.
        evidence: what each run was audited with, in the same order, or its path; with ids. Then runs are paired: score,
            AUC and accuracies differ by what they differ over the records of both, with narrower intervals. None for a
            run that has none: it stays unpaired, as the tail always does.

    Raises:
        InputError: DV060, fewer than two runs, names that are not one a run, or runs at different confidences; DV055,
            a file that is not a run file; DV065, evidence that is not one a run, or not the run's; DV066, evidence
            without ids.

    >>> import numpy as np
    >>> from divulge.pipeline import audit
    >>> n = np.arange(2000)
    >>> both = [
    ...     Evidence(member=n < 1000, signals={"loss": np.sin(n * n) + leak * (n < 1000)}, ids=n) for leak in (0, 0.2)
    ... ]
    >>> reports = [audit(evidence) for evidence in both]
    >>> for evidence in (None, both):
    ...     row = compare(*reports, evidence=evidence).rows()[1]
    ...     [round(row[end], 2) for end in ("difference", "diff_low", "diff_high")]
    [0.25, 0.16, 0.31]
    [0.25, 0.18, 0.3]
    """
    if len(runs) < 2:
        raise InputError("DV060", f"expected two or more runs to compare, got {len(runs)}")
    called = names_of(runs) if names is None else tuple(names)
    if len(called) != len(runs) or len(set(called)) != len(called):
        raise InputError("DV060", f"expected {len(runs)} different names, one a run, got {list(called)!r:.200}")
    given = _sources(evidence, len(runs))
    reports = [run if isinstance(run, Report) else Report.load(Path(run)) for run in runs]
    confidences = [float(report.meta["confidence"]) for report in reports]
    if any(not math.isclose(confidence, confidences[0]) for confidence in confidences):
        said = ", ".join(f"{name}: {confidence:g}" for name, confidence in zip(called, confidences, strict=True))
        raise InputError("DV060", f"the runs have intervals of different confidence ({said}): audit them at one")
    pairings = _pairings(reports, called, given, 1 - confidences[0])
    figures = [_figures(report) for report in reports]
    keys = sorted(dict.fromkeys(key for own in figures for key in own), key=_order)
    table = [row for key in keys for row in _rows(key, called, [own.get(key) for own in figures], pairings)]
    verdicts = tuple(report.verdict for report in reports)
    return Comparison(called, verdicts, confidences[0], tuple(table), tuple(reports), tuple(pairings))


def runs_in(folder: str | PathLike[str]) -> tuple[list[Path], list[Path]]:
    """The run files of a folder by name, and its other .json files; hidden ones are neither.

    A file counts as a run by its schema alone, so that a damaged run is an error later and not left out.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.json").write_text('{"schema": "divulge-run-1"}')
    ...     _ = Path(folder, "b.json").write_text("[1]")
    ...     [len(found) for found in runs_in(folder)]
    [1, 1]
    """
    ours: list[Path] = []
    others: list[Path] = []
    for path in sorted(Path(folder).glob("*.json")):
        if path.is_file() and not path.name.startswith("."):
            (ours if _is_run(path) else others).append(path)
    return ours, others


def _is_run(path: Path) -> bool:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("schema") == RUN_SCHEMA


def _sources(evidence: Sequence[Source] | None, runs: int) -> list[Source]:
    """An evidence a run, or None."""
    if evidence is None:
        return [None] * runs
    if isinstance(evidence, str | PathLike | Evidence) or len(evidence) != runs:
        got = len(evidence) if isinstance(evidence, list | tuple) else repr(evidence)[:80]
        raise InputError("DV065", f"expected {runs} evidences, one for each run in the same order, got {got}")
    return list(evidence)


def _pairings(
    reports: Sequence[Report], names: Sequence[str], given: Sequence[Source], error: float
) -> list[Pairing | None]:
    """Each run matched with the first, where both have evidence; one run's records are held at a time."""
    if given[0] is None or all(source is None for source in given[1:]):
        return [None] * len(reports)
    first = _scored(reports[0], given[0], names[0])
    return [
        None if at == 0 or source is None else pair(first, _scored(report, source, name), error)
        for at, (report, source, name) in enumerate(zip(reports, given, names, strict=True))
    ]


def _scored(report: Report, source: Evidence | str | PathLike[str], name: str) -> Scored:
    return scored(report, source if isinstance(source, Evidence) else Evidence.load(source), name)


def names_of(runs: Sequence[Report | str | PathLike[str]]) -> tuple[str, ...]:
    """The shortest names that tell the runs apart: of the paths of run files, "run 1" … of reports.

    >>> names_of(["before/run.json", "after.json"])
    ('run', 'after')
    """
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
    best = best_auc(report)
    return found if best is None else {**found, ("auc", None): best}


def best_auc(report: Report) -> tuple[str, Estimate] | None:
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


def _rows(
    key: Key,
    names: Sequence[str],
    found: Sequence[tuple[str, Estimate] | None],
    pairings: Sequence[Pairing | None],
) -> list[Row]:
    rows: list[Row] = []
    for name, item, pairing in zip(names, found, pairings, strict=True):
        attack, estimate = item or ("", Estimate(NAN, NAN, NAN, f"{name} has no figure for it"))
        first = found[0][1] if rows and found[0] is not None else Estimate(NAN, NAN, NAN)
        paired = pairing.differences.get(key[0]) if pairing is not None and not _unknown(estimate, first) else None
        change = paired or _difference(estimate, first)
        fpr = NAN if key[1] is None else key[1]
        how = ("unpaired" if paired is None else "paired") if rows else None
        cells = (name, key[0], fpr, attack, *estimate[:3], *change[:3], how, estimate.reason)
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def _unknown(*estimates: Estimate) -> bool:
    return any(math.isnan(end) for estimate in estimates for end in estimate[:3])


def _difference(own: Estimate, first: Estimate) -> Estimate:
    return Estimate(NAN, NAN, NAN) if _unknown(own, first) else difference_of(own, first)
