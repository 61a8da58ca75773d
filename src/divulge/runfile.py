"""The run file: a report as JSON, schema divulge-run-1 (schemas/run-1.schema.json), and back.

Texts that repeat are written once, so that names of any length cost little; NaN is null. What is read is checked cell
by cell, so that a report that loads can be judged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from divulge.errors import InputError
from divulge.metrics import NAN
from divulge.report import COLUMNS, LADDER, Report, Table, Verdict

SCHEMA = "divulge-run-1"


def written(report: Report) -> str:
    """A report's text, the same bytes for the same report.

    >>> written(Report({"verdict": "PASS"}, {}))[:26]
    '{"schema":"divulge-run-1",'
    """
    tables = {
        name: {column: _packed(report.tables[name][column]) for column in COLUMNS[name]}
        for name in COLUMNS
        if name in report.tables
    }
    body = {"schema": SCHEMA, "meta": report.meta, "tables": tables}
    return json.dumps(_plain(body), ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"


def parsed(text: str, source: str) -> tuple[Mapping[str, Any], Mapping[str, Table]]:
    """The meta and the tables of a report's text; `source` names it in errors.

    Raises:
        InputError: DV055, not a run file of this schema.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("DV055", f"{source} is not JSON ({error}); expected a file that divulge wrote") from error
    found = body.get("schema") if isinstance(body, dict) else None
    if found != SCHEMA:
        raise InputError("DV055", f"{source} has schema {found!r}, expected {SCHEMA!r}; write it with divulge audit")
    try:
        verdict, tables = Verdict(body["meta"]["verdict"]), _renamed(body["tables"])
        loaded = {
            name: {column: _unpacked(name, column, tables[name][column]) for column in columns}
            for name, columns in COLUMNS.items()
            if name in tables
        }
        missing = [name for name in ("results", "slices", "attacks", "findings", "bounds") if name not in loaded]
        for table in loaded.values():
            if len({len(cells) for cells in table.values()}) > 1:
                raise ValueError("columns of different lengths")
        confidence = body["meta"]["confidence"]
        _check_meta(body["meta"])
        if not _is_number(confidence) or not 0.5 <= confidence < 1:
            raise ValueError(f"a confidence of {confidence!r:.80}")
        if max(loaded.get("bounds", {}).get("row", ()), default=-1) >= len(loaded["results"]["value"]):
            raise ValueError("bounds of a row that results do not have")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise InputError("DV055", f"{source} is damaged: {type(error).__name__} {error}") from error
    if missing:
        raise InputError("DV055", f"{source} is damaged: no table {missing[0]!r}")
    return {**body["meta"], "verdict": verdict.value}, loaded


def _renamed(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was called "records" until there were records one by one, under its name."""
    old = tables.get("records")
    return {**tables, "bands": old} if old is not None and "bands" not in tables else tables


def _check_meta(meta: Mapping[str, Any]) -> None:
    """What readers of a report rely on, where it is there."""
    data = meta.get("data", {})
    if data and not all(type(data.get(side)) is int and 0 <= data[side] < 2**63 for side in ("members", "nonmembers")):
        raise ValueError("data without numbers of members and non-members")
    lists = {"slices": meta.get("slices", []), **{f"data.{name}": data.get(name, []) for name in ("given", "columns")}}
    for name, found in lists.items():
        if type(found) is not list or not all(type(item) is str for item in found):
            raise ValueError(f"{name} is no list of names")
    attacks = meta.get("attacks", {})
    if type(attacks) is not dict or not all(type(item) is str for item in attacks.values()):
        raise ValueError("attacks is no mapping of names to texts")


_NUMBERS = {"fpr", "prior", "value", "low", "high", "p", "limit", "threshold", "tpr", "start", "stop", "probability"}


def _packed(cells: Sequence[Any]) -> Any:
    """A column of texts as its distinct texts and their numbers: a name of any length is written once."""
    if not any(isinstance(cell, str) for cell in cells) or len(set(map(str, cells))) * 2 > len(cells):
        return list(cells)
    texts = list(dict.fromkeys(cell for cell in cells if cell is not None))
    place: dict[Any, int] = {text: at for at, text in enumerate(texts)}
    return {"texts": texts, "codes": [-1 if cell is None else place[cell] for cell in cells]}


def _unpacked(table: str, name: str, column: Any) -> list[Any]:
    """A column's cells, each of the kind that the schema says."""
    if isinstance(column, dict):
        texts, codes = column["texts"], column["codes"]
        if not all(type(code) is int and -1 <= code < len(texts) for code in codes):
            raise ValueError(f"{table}.{name} has a code without a text")
        column = [None if code < 0 else texts[code] for code in codes]
    elif type(column) is not list:
        raise ValueError(f"{table}.{name} is no list")
    if table == "bounds" and name != "row":
        cells = [[_number(item) for item in cell] for cell in column]
        right = all(len(cell) == len(LADDER) for cell in cells)
    elif name in _NUMBERS:
        numbers = [_number(cell) for cell in column]
        if table == "curve" and name in ("tpr", "fpr") and not all(map(math.isfinite, numbers)):
            raise ValueError(f"{table}.{name} has gaps")
        return numbers
    else:
        cells = column
        right = all(map(_KINDS.get(name, _is_text), cells))
    if not right:
        raise ValueError(f"{table}.{name} holds another kind of value")
    return cells


def _is_number(cell: Any) -> bool:
    return type(cell) in (int, float)


def _is_text(cell: Any) -> bool:
    return cell is None or type(cell) is str


def _is_count(cell: Any) -> bool:
    return type(cell) is int and 0 <= cell < 2**63


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda cell: cell in words


_KINDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("members", "nonmembers", "checked", "row"), _is_count),
    "merged": lambda cell: type(cell) is list and all(type(name) is str for name in cell),
    "waived": lambda cell: type(cell) is bool,
    "status": _one_of("ran", "skipped", "ok", "warning", "invalid", "not run"),
    "severity": _one_of("fail", "warning", "info"),
    "outcome": _one_of("PASS", "FAIL", "INCONCLUSIVE"),
    "kind": _one_of("max", "max_increase"),
}


def _number(cell: Any) -> float:
    """null is NaN."""
    if cell is None:
        return NAN
    if not _is_number(cell):
        raise ValueError(f"expected a number, got {cell!r:.80}")
    return float(cell)


def _plain(value: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
