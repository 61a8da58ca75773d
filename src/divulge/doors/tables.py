"""One table with a column that tells members from non-members -> `Evidence`; columns map by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.doors.arrays import Rows, check_finite, distinct, is_text, to_array
from divulge.doors.assemble import Flat, assemble, other_classes
from divulge.doors.labels import read_classes
from divulge.doors.names import OUTPUTS, SYNONYMS, listed, option, shown, side_of, unknown, validation_refused
from divulge.errors import InputError
from divulge.evidence import Evidence

#: Columns that belong together: prefix -> flat name. Outputs may end in any class name, the others in a
#: number.
FAMILIES = {
    "logit": "logits",
    "prob": "probs",
    "proba": "probs",
    "prediction": "predictions",
    "label": "labels",
    "trace": "traces",
    "feature": "features",
}
_FAMILY = re.compile(r"(logit|proba?)_(.+)|(prediction|label|trace|feature)_([0-9]+)", re.DOTALL)
#: How the user says otherwise.
ARGUMENT = {"member": "member", "labels": "label", "ids": "id", "groups": "group"}


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user said about a table: the arguments of `Evidence.from_table`; None and () mean nothing.

    >>> len(Overrides(columns=["age"]).given())
    1
    """

    member: str | None = None
    label: str | None = None
    id: str | None = None
    group: str | None = None
    outputs: str | Sequence[str] | None = None
    kind: str | None = None
    columns: Sequence[str] | None = None
    classes: Sequence[object] | None = None
    member_values: Sequence[object] = ()
    nonmember_values: Sequence[object] = ()
    lower_is_member: Sequence[str] = ()

    def given(self) -> list[str]:
        """The names of the arguments that were used."""
        return [name for name in self.__slots__ if (value := getattr(self, name)) is not None and value != ()]


@dataclass(slots=True)
class Mapped:
    """Which columns make up which flat name, and the class names that output columns carry in their own."""

    roles: dict[str, list[str]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    positive: str | None = None

    def __str__(self) -> str:
        """One line for the log."""
        parts = [f"{_span(columns)} → {role}" for role, columns in self.roles.items()]
        rest = listed([name.removeprefix("column_") for name in self.rest], 20)
        return f"mapping: {'; '.join(parts)}; to slice by: {rest or 'nothing'}"


def read_table(frame: object, overrides: Overrides, like: Evidence | None = None, first: int | None = None) -> Evidence:
    """What `Evidence.from_table` does; like: other rows of the same table, see `assemble`; first: see `Rows`.

    >>> table = {"member": [1, 1, 0], "logit_0": [2.0, 1.0, 0.0], "logit_1": [0.0, 3.0, 1.0], "y": [0, 1, 1]}
    >>> read_table(table, Overrides()).outputs.shape
    (3, 2)
    """
    table = columns_of(frame)
    if not table:
        raise InputError("DV010", "the table has no columns.")
    mapped = map_columns(list(table), overrides)
    classes = _named_classes(mapped, overrides, like)
    notes: set[str] = {str(mapped)}
    flat: Flat = {role: _assembled(table, role, names, notes) for role, names in mapped.roles.items()}
    _add_slicing(flat, table, mapped.rest, overrides, notes)
    _check_lengths(flat)
    rows = Rows(None, first)
    member = _read_member(flat.pop("member"), mapped.roles["member"][0], overrides, rows)
    if classes is None and mapped.positive is not None:
        classes = _two_classes(flat, mapped.positive)
    lower = overrides.lower_is_member
    return assemble(flat, member, rows, notes, classes=classes, lower_is_member=lower, like=like)


def columns_of(frame: object) -> dict[str, Any]:
    """Name -> column of any frame that narwhals reads, or of a mapping; nothing is converted yet.

    Raises:
        InputError: DV002, not a frame; DV008, a column name twice.

    >>> import pyarrow as pa
    >>> len(columns_of(pa.table({"a": [1, 2]}))["a"])
    2
    """
    if isinstance(frame, Mapping):
        return {str(name): column for name, column in frame.items()}
    import narwhals as nw
    import pyarrow as pa

    # polars refuses a name twice by itself, and warns where a lazy frame is asked for its names.
    plain = frame if not hasattr(frame, "collect_schema") else None
    names = [str(name) for name in getattr(plain, "column_names", getattr(plain, "columns", []))]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise InputError("DV008", f"the table has the column {listed(twice)} more than once. Rename or drop one.")
    try:
        wrapped = nw.from_native(frame)  # type: ignore[call-overload]
    except TypeError as error:
        raise InputError(
            "DV002",
            f"the table is a {type(frame).__name__}, expected a pandas, polars or pyarrow frame, or a mapping.",
        ) from error
    if isinstance(wrapped, nw.LazyFrame):
        wrapped = wrapped.collect()
    try:
        arrow = wrapped.to_arrow()
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError("DV002", f"a column mixes types: {shown(str(error))} Make it one type first.") from error
    return {str(name): arrow.column(index) for index, name in enumerate(arrow.column_names)}


def map_columns(names: list[str], overrides: Overrides) -> Mapped:
    """Which column is what: the user's word first, then the names.

    Raises:
        InputError: DV001, a named column is not there; DV008, two columns for one thing; DV010, no member
            column.

    >>> len(map_columns(["split", "prob_0", "prob_1", "age"], Overrides()).roles["probs"])
    2
    """
    mapped = Mapped()
    for role, argument in ARGUMENT.items():
        own = getattr(overrides, argument)
        if own is not None:
            mapped.roles[role] = [_known(own, argument, names)]
    if overrides.outputs is not None:
        listing = [overrides.outputs] if isinstance(overrides.outputs, str) else list(overrides.outputs)
        mapped.roles[_output_role(listing, overrides)] = [_known(name, "outputs", names) for name in listing]
    taken = {name for columns in mapped.roles.values() for name in columns}
    _map_words([name for name in names if name not in taken], mapped, overrides)
    if "member" not in mapped.roles:
        raise InputError(
            "DV010",
            f"no column tells members from non-members: expected one of {', '.join(SYNONYMS['member'])}; "
            f"the columns are {listed(names, 20)}. Name it with member=… (--member).",
        )
    if overrides.columns is not None:
        wanted = [overrides.columns] if isinstance(overrides.columns, str) else list(overrides.columns)
        known = [*names, *(name.removeprefix("column_") for name in names if name.startswith("column_"))]
        mapped.rest = [_known(name, "columns", known) for name in wanted]
        mapped.rest = [name if name in names else f"column_{name}" for name in mapped.rest]
    return mapped


def _map_words(names: list[str], mapped: Mapped, overrides: Overrides) -> None:
    words: dict[str, list[str]] = {}
    families: dict[str, dict[str, list[str]]] = {}
    lookup = {word: role for role, synonyms in SYNONYMS.items() for word in synonyms}
    for name in names:
        role = lookup.get(name.lower())
        family = _FAMILY.fullmatch(name)
        if role is not None and _free(role, mapped, overrides):
            words.setdefault(role, []).append(name)
        elif family and _free(FAMILIES[family[1] or family[3]], mapped, overrides):
            families.setdefault(FAMILIES[family[1] or family[3]], {}).setdefault(family[1] or family[3], []).append(
                name
            )
        elif name.startswith("signal_"):
            mapped.roles[name] = [name]
        else:
            mapped.rest.append(name)
    for role, found in words.items():
        if len(found) > 1 or role in families:
            _ambiguous(role, [*found, *next(iter(families.get(role, {}).values()), [])])
        mapped.roles[_renamed(role, overrides)] = found
    for role, prefixes in families.items():
        if len(prefixes) > 1:
            _ambiguous(role, [columns[0] for columns in prefixes.values()])
        (prefix, columns), *_ = prefixes.items()
        mapped.roles[_renamed(role, overrides)] = _in_order(role, prefix, columns, mapped)


def _free(role: str, mapped: Mapped, overrides: Overrides) -> bool:
    """Whether the user left this role to the names; who names one output column has named them all."""
    return role not in mapped.roles and not (role in OUTPUTS and overrides.outputs is not None)


def _renamed(role: str, overrides: Overrides) -> str:
    if role not in OUTPUTS or overrides.kind is None:
        return role
    if overrides.kind not in OUTPUTS:
        raise unknown("kind", overrides.kind, OUTPUTS)
    return overrides.kind


def _ambiguous(role: str, found: list[str]) -> None:
    name = ARGUMENT.get(role, "outputs" if role in OUTPUTS else "")
    argument = f"{name}=… ({option(name)})" if name else "another name for one"
    raise InputError("DV008", f"{listed(found)} could each be the {role}; expected one. Say which: {argument}.")


def _output_role(columns: list[str], overrides: Overrides) -> str:
    if overrides.kind is not None:
        return _renamed("logits", overrides)
    family = _FAMILY.fullmatch(columns[0]) if columns else None
    prefix = (family[1] or family[3]) if family else ""
    role = FAMILIES.get(prefix) or {w: r for r in OUTPUTS for w in SYNONYMS[r]}.get(
        columns[0].lower() if columns else ""
    )
    if role not in OUTPUTS:
        raise InputError(
            "DV003",
            f"outputs={listed(columns)} does not say what they are. Pass kind='logits', 'probs' or 'predictions' "
            "(--kind probs).",
        )
    return role


def _in_order(role: str, prefix: str, columns: list[str], mapped: Mapped) -> list[str]:
    """Columns of a family by number; outputs that end in class names keep their order and give `classes`."""
    endings = [name[len(prefix) + 1 :] for name in columns]
    numbers = {ending for ending in endings if ending.isascii() and ending.isdigit()}
    if role in ("logits", "probs"):
        if len(endings) == 1:
            return _single(columns, endings[0], mapped)
        if numbers != {str(number) for number in range(len(endings))}:
            mapped.classes = tuple(endings)
            return columns
    if len(numbers) < len(endings):
        return columns
    return [name for _, name in sorted(zip(map(int, endings), columns, strict=True))]


def _single(columns: list[str], ending: str, mapped: Mapped) -> list[str]:
    """One output column is that of the class it names; of `prob_0` alone nobody can say whose it is."""
    if ending == "0":
        raise InputError(
            "DV008",
            f"{columns[0]} is the only output column: the value of class 0, or the one value of a binary "
            "model (that of label 1)? Rename it to logits or probs if it is label 1's.",
        )
    if ending != "1":
        mapped.positive = ending
    return columns


def _named_classes(mapped: Mapped, overrides: Overrides, like: Evidence | None) -> Sequence[object] | None:
    """The class names: those of other rows of the table, the user's, or the output columns' own.

    Columns that end in these names are put in their order, wherever they stand.

    Raises:
        InputError: DV018, columns of other classes than in other rows, or in an order that nobody knows; DV022, one
            column, which the user gives to another class than it names.
    """
    known = like.classes if like is not None else read_classes(overrides.classes)
    names = mapped.classes if known is None else known
    if mapped.positive is not None and known is not None:
        _check_positive(mapped.positive, known, overrides)
    if mapped.classes is None or names is None:
        return known
    if set(mapped.classes) != set(names) or (like is not None and known is None):
        if overrides.classes is None:
            raise other_classes(mapped.classes, known)
        if like is not None:
            raise InputError(
                "DV018",
                f"the output columns are those of {listed(mapped.classes)}, and classes= has other names "
                f"({listed(names)}): in a stream nothing says that the columns stand in one order everywhere. Name "
                "them in the order of classes=, outputs=[…].",
            )
        return known
    for role in OUTPUTS:
        ends = {found[2]: name for name in mapped.roles.get(role, ()) if (found := _FAMILY.fullmatch(name))}
        if set(ends) == set(names):
            mapped.roles[role] = [ends[name] for name in names]
    return names


def _check_positive(positive: str, names: Sequence[str], overrides: Overrides) -> None:
    if positive == names[-1]:
        return
    if overrides.classes is None:
        raise InputError(
            "DV018",
            f"the only output column is that of {shown(positive)}, in the rows before these that of "
            f"{shown(names[-1])}. Write the same class's in all.",
        )
    if positive in names:
        raise InputError(
            "DV022",
            f"the only output column is that of {shown(positive)}, and classes= gives it to {shown(names[-1])}. "
            "Pass classes=[the value for 0, the value for 1], which it is the column of.",
        )


def _two_classes(flat: Flat, positive: str) -> tuple[str, str] | None:
    """(the other label, the one that the only output column names)."""
    if "labels" not in flat:
        return None
    others = [str(value) for value in distinct(flat["labels"])[0].tolist() if str(value) != positive]
    if len(others) != 1:
        raise InputError(
            "DV022",
            f"the only output column is that of {shown(positive)}; labels hold {listed(others) or 'nothing'} besides, "
            "expected one other value. Pass classes=[the value for 0, the value for 1].",
        )
    return others[0], positive


def _known(name: str, argument: str, names: Sequence[str]) -> str:
    if name not in names:
        raise unknown(f"{argument}: the column", str(name), names)
    return name


def _assembled(table: Mapping[str, Any], role: str, names: list[str], notes: set[str]) -> NDArray[Any]:
    """The array of a role: one column, or several side by side."""
    if len(names) == 1:
        return to_array(table[names[0]], names[0], notes)
    parts = [to_array(table[name], name, notes) for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.ndim != 1 or is_text(part):
            raise InputError(
                "DV002",
                f"the column {shown(name)} holds {part.dtype}, expected numbers as one of the {role}.",
            )
        if len(part) != len(parts[0]):
            raise InputError("DV004", f"{names[0]} has {len(parts[0]):,} rows, {shown(name)} {len(part):,}.")
    return np.column_stack(parts)


def _add_slicing(flat: Flat, table: Mapping[str, Any], names: list[str], overrides: Overrides, notes: set[str]) -> None:
    for name in names:
        array = to_array(table[name], name, notes)
        if array.ndim == 2 and overrides.columns is None:
            notes.add(f"left out: {shown(name)}, which holds {array.shape[1]} values a row")
            continue
        flat[f"column_{name.removeprefix('column_')}"] = array


def _check_lengths(flat: Flat) -> None:
    lengths = {name: len(array) for name, array in flat.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{shown(name)} has {length:,} rows" for name, length in list(lengths.items())[:10])
        raise InputError("DV004", f"lengths differ: {text}. Expected one row a record in each.")


def _read_member(values: NDArray[Any], name: str, overrides: Overrides, rows: Rows) -> NDArray[np.bool_]:
    """(n,) bool from a column of two words."""
    if values.ndim != 1:
        raise InputError("DV003", f"the member column {shown(name)} has shape {values.shape}, expected (n,).")
    check_finite(values, f"the member column {shown(name)}", rows, "Every row needs its side.")
    if values.dtype == np.bool_:
        return values
    found, codes = distinct(values)
    words = [int(word) if isinstance(word, float) and word.is_integer() else word for word in found.tolist()]
    sides = [side_of(word, overrides.member_values, overrides.nonmember_values) for word in words]
    strange = [word for word, side in zip(words, sides, strict=True) if side is None]
    if strange:
        raise InputError(
            "DV009",
            f"the member column {shown(name)} holds {listed(words)}; {listed(strange)} is neither a word "
            "for members (train, member, in, 1, true) nor for non-members (test, holdout, nonmember, out, "
            "0, false). Leave these rows out, name another column with member=…, or pass member_values= / "
            "nonmember_values=.",
        )
    for word, side in zip(words, sides, strict=True):
        if side is not None and side.member is None:
            raise validation_refused(f"{shown(name)} holds {shown(word)}")
    member: NDArray[np.bool_] = np.array([bool(side and side.member) for side in sides])[codes]
    return member


def _span(columns: list[str]) -> str:
    return listed(columns) if len(columns) <= 2 else f"{shown(columns[0])} … {shown(columns[-1])}"
