"""Limits: what a policy file may say, and reading one. `divulge.policy` holds a report against them."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divulge.codes import CODES
from divulge.errors import InputError, PolicyError
from divulge.metrics import NAN, NamedMetric, named

if TYPE_CHECKING:
    from divulge.report import Report, Row

_WITHOUT_BOUNDS = ("max_advantage", "epsilon")
INCONCLUSIVE_WAYS = ("keep", "fail", "pass")


@dataclass(frozen=True)
class Gate:
    """One limit.

    Attributes:
        name: as the policy writes it: "score", "auc", "tail", "tpr@0.001", "score_slice" ….
        limit: the largest allowed value, or increase.
        kind: "max" or "max_increase".
        min_n: slices with fewer rows on a side are left out.

    >>> Gate("score", 0.1).limit
    0.1
    """

    name: str
    limit: float
    kind: str = "max"
    min_n: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("max", "max_increase") or not abs(self.limit) < 1e300:
            raise PolicyError("DV302", f"gate {self.name!r}: expected a finite max or max_increase, got {self.limit!r}")
        base = self.name.removesuffix("_slice")
        if base in _WITHOUT_BOUNDS or (self.of_slices and base != "score"):
            raise PolicyError(
                "DV302",
                f"gate {self.name!r} could never be decided: that figure has no two-sided interval in a report. "
                "Gate score, score_slice, tail, auc, advantage, balanced_accuracy, tpr@FPR or ppv@FPR,PRIOR",
            )
        _ = self.metric  # an unknown name is refused here

    @property
    def of_slices(self) -> bool:
        """Every slice but everyone is held to it."""
        return self.name.endswith("_slice")

    @property
    def metric(self) -> NamedMetric:
        """The rows of the results that it looks at, by metric, FPR and prior; NaN FPR of the tail: any."""
        name = self.name.removesuffix("_slice")
        if name in ("score", "tail"):
            return NamedMetric({"tail": "tail_lift"}.get(name, name), NAN, NAN, _not_computed)
        return named(name)


def _not_computed(*_: Any) -> Any:
    raise NotImplementedError("score and tail are of several attacks' Rocs: divulge.selection")


@dataclass(frozen=True)
class Waiver:
    """A finding that is accepted for a time.

    Attributes:
        code: the finding's code.
        reason: why it is accepted.
        slice, attack: None: any.
        expires: the last day on which it holds; None: it does not expire.

    >>> Waiver("DV102", "see DPIA-17", slice="correct=no").code
    'DV102'
    """

    code: str
    reason: str
    slice: str | None = None
    attack: str | None = None
    expires: datetime.date | None = None

    def covers(self, finding: Row) -> bool:
        """Whether a finding is the one that it waives."""
        return (
            finding["code"] == self.code
            and self.slice in (None, finding["slice"])
            and self.attack in (None, finding["attack"])
        )


@dataclass(frozen=True)
class Policy:
    """Limits, waivers and what to make of doubt.

    Attributes:
        gates: the limits; none of them empty.
        waivers: accepted findings.
        inconclusive: "keep", "fail" or "pass": the verdict an INCONCLUSIVE becomes.
        selected: whether the held-out records chose the model; None: not declared.
        source: where it was read, for the report.

    >>> Policy.from_mapping({"gate": {"score": {"max": 0.1}}}).gates[0].limit
    0.1
    """

    gates: tuple[Gate, ...]
    waivers: tuple[Waiver, ...] = ()
    inconclusive: str = "keep"
    selected: bool | None = None
    source: str = "given in Python"

    def __post_init__(self) -> None:
        if not self.gates:
            raise PolicyError("DV303", f"the policy ({self.source}) sets no limit: it would pass everything")
        if self.inconclusive not in INCONCLUSIVE_WAYS:
            ways = ", ".join(INCONCLUSIVE_WAYS)
            raise PolicyError("DV302", f"inconclusive: expected one of {ways}, got {self.inconclusive!r}")

    def metrics(self) -> list[NamedMetric]:
        """The metrics of everyone that the gates need and an audit might not measure otherwise, each once."""
        of_everyone = [gate for gate in self.gates if gate.name not in ("score", "score_slice", "tail")]
        return list({str(gate.metric[:3]): gate.metric for gate in of_everyone}.values())

    def check_baseline(self, baseline: Report | None) -> None:
        """Raise PolicyError DV304 where the policy limits an increase and there is nothing to compare with."""
        if baseline is None and any(gate.kind == "max_increase" for gate in self.gates):
            raise PolicyError("DV304", "the policy limits an increase (max_increase): pass baseline= (--baseline RUN)")

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a TOML file: [gate], [[waive]] and [test_split], under [tool.divulge] in a pyproject.toml.

        Raises:
            PolicyError: DV303 no such file, not TOML or without gates; DV301, DV302 as `from_mapping`.
        """
        path = Path(path)
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PolicyError("DV303", f"expected a policy in TOML at {str(path)!r}: {error}") from error
        if path.name == "pyproject.toml":
            tools = content.get("tool")
            content = tools.get("divulge", {}) if isinstance(tools, dict) else {}
            if not content:
                raise PolicyError("DV303", f"{str(path)!r} has no [tool.divulge] table")
        return cls.from_mapping(content, source=str(path))

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], *, source: str = "given in Python") -> Policy:
        """A policy from {"gate": {...}, "waive": [...], "test_split": {...}}.

        Raises:
            PolicyError: DV301 an unknown key, DV302 a value that cannot be used, DV303 no gate at all.
        """
        _known(content, ("gate", "waive", "test_split"), "the policy")
        table = content.get("gate")
        if not isinstance(table, Mapping) or not table:
            raise PolicyError("DV303", f"the policy ({source}) has no [gate] table: it would pass everything")
        gates = [gate for name, value in table.items() if name != "inconclusive" for gate in _gates(name, value)]
        if not gates:
            raise PolicyError("DV303", f"the policy ({source}) sets no limit: it would pass everything")
        way = table.get("inconclusive", "keep")
        if way not in INCONCLUSIVE_WAYS:
            raise PolicyError("DV302", f"inconclusive: expected one of {', '.join(INCONCLUSIVE_WAYS)}, got {way!r}")
        waivers = content.get("waive", [])
        if not isinstance(waivers, list):
            raise PolicyError("DV302", "waive: expected [[waive]] tables")
        split = content.get("test_split", {})
        _known(split, ("used_for_selection",), "[test_split]")
        selected = split.get("used_for_selection")
        if not isinstance(selected, bool | None):
            raise PolicyError("DV302", f"used_for_selection: expected true or false, got {selected!r}")
        return cls(tuple(gates), tuple(_waiver(item) for item in waivers), way, selected, source)


def _known(table: Any, names: Sequence[str], where: str) -> None:
    if not isinstance(table, Mapping):
        raise PolicyError("DV302", f"{where}: expected a table, got {table!r:.80}")
    for key in table:
        if key not in names:
            close = get_close_matches(str(key), names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise PolicyError("DV301", f"{where} has an unknown key {str(key)[:80]!r}{hint} Known: {', '.join(names)}")


def _gates(name: str, value: Any) -> list[Gate]:
    base = name.removesuffix("_slice")
    if base not in ("score", "tail"):
        try:
            named(base)
        except InputError as error:
            names = (
                "score",
                "score_slice",
                "tail",
                "auc",
                "advantage",
                "tpr@FPR",
                "ppv@FPR,PRIOR",
                "inconclusive",
            )
            close = get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise PolicyError(
                "DV301", f"[gate] has an unknown key {name[:80]!r}{hint} Known: {', '.join(names)}"
            ) from error
    largest = "max_lift" if base == "tail" else "max"
    options = [largest, "max_increase"] + (["min_n"] if name.endswith("_slice") else [])
    _known(value, options, f"gate {name!r}")
    min_n = value.get("min_n", 0)
    if isinstance(min_n, bool) or not isinstance(min_n, int) or min_n < 0:
        raise PolicyError("DV302", f"gate {name!r}: expected min_n to be a whole number from 0 up, got {min_n!r}")
    gates = []
    for option in (largest, "max_increase"):
        if option in value:
            limit = value[option]
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not abs(limit) < 1e300:
                raise PolicyError("DV302", f"gate {name!r}: expected {option} to be a number, got {limit!r}")
            gates.append(Gate(name, float(limit), "max" if option == largest else option, min_n))
    if not gates:
        raise PolicyError("DV302", f"gate {name!r} sets no limit: expected {largest} or max_increase")
    return gates


def _waiver(item: Any) -> Waiver:
    _known(item, ("code", "slice", "attack", "reason", "expires"), "a waiver")
    code, reason, expires = item.get("code"), item.get("reason"), item.get("expires")
    if not isinstance(code, str) or code not in CODES:
        raise PolicyError("DV302", f"a waiver's code: expected a finding's code such as DV102, got {code!r}")
    if not isinstance(reason, str) or not reason.strip():
        raise PolicyError("DV302", f"the waiver of {code} gives no reason")
    for key in ("slice", "attack"):
        if not isinstance(item.get(key, ""), str):
            raise PolicyError("DV302", f"the waiver of {code}: expected {key} to be a name, got {item[key]!r:.80}")
    if isinstance(expires, datetime.datetime):
        expires = expires.date()
    if expires is not None and not isinstance(expires, datetime.date):
        raise PolicyError("DV302", f"the waiver of {code}: expected expires to be a date (2027-03-01), got {expires!r}")
    return Waiver(code, reason, item.get("slice"), item.get("attack"), expires)
