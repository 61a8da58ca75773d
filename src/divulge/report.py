"""Report: what an audit found, as columns; rows, lookups, judgement, JSON.

A report holds no record's data, but for the table "records" where an audit was asked for it; no file and no other form
of a report ever holds that. A report is enough to judge again under another policy: the bounds of every estimate that
has an interval are kept at a ladder of error levels, so that a gate can take the level its error budget asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divulge import atomic
from divulge.codes import CODES
from divulge.errors import InputError, PrivacyGateError
from divulge.metrics import Estimate, named
from divulge.selection import Tail, headline
from divulge.slices import EVERYONE

if TYPE_CHECKING:
    import datetime

    from divulge.comparison import Comparison
    from divulge.policy import Policy

LADDER = tuple(4.0**-step for step in range(11))
"""Shares of the report's error probability at which bounds are kept; a gate takes the first that is small enough."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "results": (
        "attack", "slice", "metric", "fpr", "prior", "value", "low", "high", "members", "nonmembers", "reason",
    ),
    "slices": ("partition", "slice", "members", "nonmembers", "merged", "p"),
    "attacks": ("attack", "status", "reason"),
    "findings": ("code", "severity", "slice", "attack", "text", "fix", "waived"),
    "controls": ("control", "code", "status", "value", "low", "high", "text", "reason"),
    "gates": (
        "gate", "kind", "limit", "attack", "slice", "fpr", "value", "low", "high", "checked", "outcome", "reason",
    ),
    "curve": ("attack", "slice", "threshold", "tpr", "fpr", "low", "high"),
    "distribution": ("attack", "slice", "start", "stop", "members", "nonmembers"),
    "bands": ("attack", "slice", "start", "stop", "members", "nonmembers", "probability", "low", "high"),
    "bounds": ("row", "low", "high"),
}  # fmt: skip
"""Column names of each table of a run file; `bounds` is for gates: a row of results, its ends at each level of the
ladder."""

RECORD_COLUMNS = (
    "id", "member", "score", "p_value", "q_value", "listed", "exposure", "exposure_low", "exposure_high", "out_p_value",
    "memorisation", "memorisation_low", "memorisation_high", "rank", "rank_low", "rank_high",
)  # fmt: skip
"""Column names of the table "records" of `audit(records=True)`, which is in no file; see `divulge.records.Records`."""

Row = dict[str, Any]
Table = Mapping[str, Sequence[Any]]


class Verdict(StrEnum):
    """What a policy says of a report; INVALID goes before FAIL, FAIL before INCONCLUSIVE, that before PASS.

    >>> Verdict("PASS").exit_code
    0
    """

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"
    NOT_GATED = "NOT_GATED"

    @property
    def exit_code(self) -> int:
        """The command line's exit status for it."""
        return {"PASS": 0, "NOT_GATED": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INVALID": 4}[self.value]


def table_of(name: str, rows: Sequence[Row]) -> Table:
    """Rows as columns, in the table's order; a missing cell is None.

    >>> len(table_of("attacks", [{"attack": "loss", "status": "ran"}])["reason"])
    1
    """
    return {column: [row.get(column) for row in rows] for column in COLUMNS[name]}


def frame_of(columns: Mapping[str, list[Any]], backend: str | None) -> Any:
    """Columns as a data frame of "pandas", "polars" or "pyarrow"; None: of the first that is installed.

    Raises:
        InputError: DV054, an unknown backend, or one that is not installed.
    """
    import importlib

    makers = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "table"}
    if backend not in (None, *makers):
        raise InputError("DV054", f"expected a backend of {', '.join(makers)}, got {backend!r}")
    for name in [backend] if backend else makers:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return getattr(module, makers[name])(columns)
    raise InputError("DV054", f"{backend or 'pandas, polars or pyarrow'} is not installed")


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of one audit.

    Attributes:
        meta: what was audited and how: version, created, seed, confidence, data (sizes, task, digest), attacks (their
            reprs), policy, verdict.
        tables: columns by table name; see `COLUMNS`. Undefined numbers are NaN with a reason.

    >>> Report({"verdict": "PASS"}, {}).verdict.value
    'PASS'
    """

    meta: Mapping[str, Any]
    tables: Mapping[str, Table]

    def __repr__(self) -> str:
        score = self.score
        return (
            f"<Report {self.verdict.value}: score {score.value:.3f} [{score.low:.3f}, {score.high:.3f}], "
            f"{len(self.tables['slices']['slice'])} slices, {len(self.findings)} findings>"
        )

    def rows(self, table: str) -> list[Row]:
        """One table as a list of dicts.

        Args:
            table: "results", "slices", "attacks", "findings", "controls", "gates", "curve", "distribution" (of the
                scores), "bands" (how many records stand out how far, never one by itself) or, of
                `audit(records=True)`, "records" (one row a record; see `divulge.records.Records`).

        Raises:
            InputError: DV054, no such table, or an audit that was not asked for "records".
        """
        self._columns(table)
        columns = self.tables.get(table, {})
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def to_frame(self, table: str = "results", *, backend: str | None = None) -> Any:
        """One table as a data frame.

        Args:
            table: as for `rows`.
            backend: "pandas", "polars" or "pyarrow"; None: the first that is installed.

        Raises:
            InputError: DV054, an unknown table or backend, or one that is not installed.
        """
        rows = self.rows(table)
        return frame_of({name: [row[name] for row in rows] for name in self._columns(table)}, backend)

    def _columns(self, table: str) -> tuple[str, ...]:
        if table == "records":
            if table not in self.tables:
                raise InputError(
                    "DV054",
                    "this report has no table 'records': audit with records=True, and read them from the report that "
                    "audit gives. A run file never holds them. How many records stand out how far is in 'bands'",
                )
            return RECORD_COLUMNS
        if table not in COLUMNS:
            raise InputError("DV054", f"a report has no table {table!r}; it has {', '.join([*COLUMNS, 'records'])}")
        return COLUMNS[table]

    def estimate(
        self,
        metric: str,
        *,
        attack: str | None = None,
        slice: str = EVERYONE,
        fpr: float | None = None,
        prior: float | None = None,
    ) -> Estimate:
        """One estimate of the results table.

        Args:
            metric: "auc", "score", "tpr@0.001", "ppv@0.01,0.1" …; or "tpr" with fpr=.
            attack: an attack's name; may be left out where only one row fits.
            slice: a slice's name.
            fpr, prior: rates, where the metric's name does not say them.

        Raises:
            InputError: DV054, no row or more than one fits.

        >>> results = table_of("results", [
        ...     {"attack": "loss", "slice": "everyone", "metric": "auc", "value": .6, "low": .5, "high": .7}])
        >>> Report({}, {"results": results}).estimate("auc").high
        0.7
        """
        if "@" in metric:
            known = named(metric)
            metric, fpr, prior = known.name, known.fpr, known.prior
        rows = [
            row
            for row in self.rows("results")
            if row["metric"] == metric
            and row["slice"] == slice
            and attack in (None, row["attack"])
            and (fpr is None or _same(fpr, row["fpr"]))
            and (prior is None or _same(prior, row["prior"]))
        ]
        if len(rows) != 1:
            raise InputError("DV054", self._not_one(rows, metric, attack, slice))
        return _estimate(rows[0])

    def _not_one(self, rows: list[Row], metric: str, attack: str | None, slice: str) -> str:
        wanted = f"{metric!r} of slice {slice!r}" + (f" by attack {attack!r}" if attack else "")
        if rows:
            choices = ", ".join(f"{row['attack']} (fpr {row['fpr']})" for row in rows[:10])
            return f"{len(rows)} estimates of {wanted}: say which attack, fpr or prior; there are {choices}"
        results = self.tables["results"]
        has = {name: sorted({str(x) for x in results[name]})[:12] for name in ("metric", "attack", "slice")}
        return f"no estimate of {wanted}; there are " + "; ".join(f"{k}: {', '.join(v)}" for k, v in has.items())

    @property
    def score(self) -> Estimate:
        """The vulnerability score: 0 = nothing learned about membership, 1 = every record told apart."""
        return self.estimate("score")

    @property
    def tail(self) -> Tail:
        """How well the most exposed few are told: TPR and lift at the low FPR where most is certain."""
        return headline(self.tails)

    @property
    def tails(self) -> list[Tail]:
        """The tail at every FPR that was asked for, rising."""
        rows = self.rows("results")
        tprs = [row for row in rows if row["metric"] == "tail_tpr" and row["slice"] == EVERYONE]
        lifts = [row for row in rows if row["metric"] == "tail_lift" and row["slice"] == EVERYONE]
        return [
            Tail(_estimate(tpr), _estimate(lift), tpr["fpr"], tpr["attack"])
            for tpr, lift in zip(tprs, lifts, strict=True)
        ]

    @property
    def findings(self) -> list[Row]:
        """The findings, as `rows("findings")`."""
        return self.rows("findings")

    @property
    def verdict(self) -> Verdict:
        """PASS, FAIL, INCONCLUSIVE, INVALID, or NOT_GATED where no policy was given."""
        return Verdict(self.meta["verdict"])

    def judged(
        self, policy: Policy | None, *, baseline: Report | None = None, today: datetime.date | None = None
    ) -> Report:
        """This report under another policy: the same numbers, findings and verdict anew.

        Args:
            policy: None: nothing is gated.
            baseline: an earlier run, for limits on an increase.
            today: for waivers that expire; default: the date of the clock.
        """
        from divulge.policy import judge

        judgement = judge(self, policy, baseline=baseline, today=today)
        tables = {
            **self.tables,
            "findings": table_of("findings", judgement.findings),
            "gates": table_of("gates", judgement.gates),
            "controls": table_of("controls", judgement.controls),
        }
        meta = {
            **self.meta,
            "verdict": judgement.verdict.value,
            "policy": None if policy is None else policy.source,
        }
        return replace(self, meta=meta, tables=tables)

    def check(self, *, inconclusive: bool = True) -> None:
        """Raise unless the verdict lets a release through.

        Args:
            inconclusive: raise on INCONCLUSIVE as well as on FAIL and INVALID.

        Raises:
            PrivacyGateError: with the first finding that decided it.
        """
        stops = {Verdict.FAIL, Verdict.INVALID} | ({Verdict.INCONCLUSIVE} if inconclusive else set())
        if self.verdict not in stops:
            return
        if self.verdict is Verdict.INVALID:
            blocking = [row for row in self.rows("controls") if row["status"] == "invalid"]
        else:
            live = [row for row in self.findings if not row["waived"]]
            blocking = [row for row in live if row["severity"] == "fail"] or [r for r in live if r["code"] == "DV306"]
        first = blocking[0] if blocking else {"code": "DV306", "text": CODES["DV306"].title}
        raise PrivacyGateError(str(first["code"]), f"verdict {self.verdict.value}: {first['text']}")

    # ---------------------------------------------------------------------------------------------- JSON

    def to_json(self) -> str:
        """The run file's text: schema divulge-run-1, the same bytes for the same report."""
        from divulge.runfile import written

        return written(self)

    @classmethod
    def from_json(cls, text: str, *, source: str = "the text") -> Report:
        """Read a run file's text; errors as for `load`."""
        from divulge.runfile import parsed

        return cls(*parsed(text, source))

    def save(self, path: str | Path) -> None:
        """Write the run file, whole or not at all."""
        with atomic.replacing(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a run file.

        Raises:
            InputError: DV055, not a run file of this schema.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise InputError(
                "DV055", f"expected a run file at {str(path)!r}, and it cannot be read: {error}"
            ) from error
        return cls.from_json(text, source=str(path))

    # ------------------------------------------------------------------------------------------- other forms

    def to_html(
        self, path: str | Path | None = None, *, baseline: Report | None = None, series: Comparison | None = None
    ) -> str:
        """The report as one HTML page, and written to `path` if one is given: no script, no network, under 1 MB.

        Args:
            path: where to write it, whole or not at all.
            baseline: an earlier run to show beside this one.
            series: of `compare`: runs, epochs or noise levels to show privacy against accuracy of.
        """
        from divulge.reporters import html

        return atomic.written(html.render(self, baseline=baseline, series=series), path)

    def _repr_html_(self) -> str:
        """The verdict card and the ROC, for a notebook."""
        from divulge.reporters import html

        return html.render_card(self)

    def to_markdown(self, path: str | Path | None = None, *, limit: int = 65_536) -> str:
        """The report as GitHub-flavoured Markdown, and written to `path` if one is given.

        Args:
            path: where to write it, whole or not at all.
            limit: bytes that the text stays under; a pull request's comment holds 65,536, a job's summary 1,048,576.

        Raises:
            InputError: DV061, a limit too low for the verdict and the main figures.
        """
        from divulge.reporters import markdown

        return atomic.written(markdown.render(self, limit=limit), path)

    def to_junit(self, path: str | Path | None = None) -> str:
        """The report as JUnit XML, red exactly where the exit status is not 0; written to `path` if one is given."""
        from divulge.reporters import junit

        return atomic.written(junit.render(self), path)

    def to_sarif(self, path: str | Path | None = None, *, artifact: str = "run.json") -> str:
        """The findings as SARIF 2.1.0, and written to `path` if one is given.

        Args:
            path: where to write it, whole or not at all.
            artifact: the file that the findings are shown at, relative to the repository, with / between folders.
        """
        from divulge.reporters import sarif

        return atomic.written(sarif.render(self, artifact=artifact), path)

    def to_model_card(
        self,
        path: str | Path | None = None,
        *,
        model: str | None = None,
        dataset: str = "not named",
        task: str = "membership-inference",
    ) -> str:
        """The report as a Hugging Face model card, and written to `path` if one is given.

        Args:
            path: where to write it, whole or not at all.
            model: the model's name; None: what `audit` was told, "model" where it was told nothing.
            dataset: the name of the data that members and non-members were drawn from.
            task: the kind of task that the figures are listed under.

        Raises:
            InputError: DV061, an empty name.
        """
        from divulge.reporters import model_card

        return atomic.written(model_card.render(self, model=model, dataset=dataset, task=task), path)


def _same(wanted: float, found: float | None) -> bool:
    if found is None or math.isnan(found):
        return math.isnan(wanted)
    return math.isclose(wanted, found, rel_tol=1e-9)


def _estimate(row: Row) -> Estimate:
    return Estimate(row["value"], row["low"], row["high"], row.get("reason"))
