"""Two mappings of arrays, or one in TF Privacy's names -> `Evidence`; joining the sides is the one copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.doors.arrays import Rows, is_text, to_array
from divulge.doors.assemble import Flat, assemble
from divulge.doors.names import (
    KEYS,
    OUTPUTS,
    ROLES,
    listed,
    shown,
    split_name,
    unknown,
    validation_refused,
)
from divulge.errors import InputError
from divulge.evidence import Evidence

Pair = tuple[object, object]
Pairs = dict[str, Pair]


def read_splits(
    members: Mapping[str, object],
    nonmembers: Mapping[str, object] | None = None,
    *,
    columns: Mapping[str, Pair],
    classes: Sequence[object] | None = None,
    lower_is_member: Sequence[str] = (),
    member_values: Sequence[object] = (),
    nonmember_values: Sequence[object] = (),
) -> Evidence:
    """What `Evidence.from_splits` does; `_values` are further words for the sides of a single mapping.

    >>> loss = {"loss_train": [0.1, 0.2], "loss_test": [0.9]}
    >>> read_splits(loss, columns={"age": ([30, 40], [50])}).columns["age"].tolist()
    [30, 40, 50]
    """
    if nonmembers is None:
        pairs = _pairs_of_one(_mapping(members, "members"), member_values, nonmember_values)
    else:
        pairs = _pairs_of_two(_mapping(members, "members"), _mapping(nonmembers, "nonmembers"))
    for name, pair in columns.items():
        pairs[f"column_{name}"] = _column_pair(str(name), pair, twice=f"column_{name}" in pairs)
    return join(pairs, classes=classes, lower_is_member=lower_is_member)


def join(pairs: Pairs, *, classes: Sequence[object] | None, lower_is_member: Sequence[str]) -> Evidence:
    """Evidence from flat name -> (members' values, non-members' values); empties `pairs` as it goes."""
    if not pairs:
        raise InputError("DV015", "there is nothing to attack: the mappings are empty.")
    notes: set[str] = set()
    if "logits" in pairs and "probs" in pairs:  # before any array is copied for nothing
        del pairs["probs"]
        notes.add("probs are not used: logits are there, and lose less")
    arrays = {name: _both_arrays(name, pairs.pop(name), notes) for name in list(pairs)}
    m, n = _check_lengths(arrays)
    member = np.zeros(m + n, np.bool_)
    member[:m] = True
    if m == 0 or n == 0:  # before joining: an empty side often has a shape of its own
        arrays = {}
    flat: Flat = {name: _joined(name, *arrays.pop(name)) for name in list(arrays)}
    return assemble(flat, member, Rows(m), notes, classes=classes, lower_is_member=lower_is_member)


def _mapping(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InputError(
            "DV002",
            f"{name} is a {type(value).__name__}, expected a mapping such as {{'logits': …, 'labels': …}}. "
            "For one table with a split column use Evidence.from_table.",
        )
    # A None is a field that was left out, as in TF Privacy's AttackInputData.
    return {str(key): array for key, array in value.items() if array is not None}


def _pairs_of_two(members: Mapping[str, object], nonmembers: Mapping[str, object]) -> Pairs:
    sides = (_flattened(members), _flattened(nonmembers))
    for name in sides[0].keys() ^ sides[1].keys():
        there, missing = ("members", "nonmembers") if name in sides[0] else ("nonmembers", "members")
        raise InputError("DV004", f"{shown(name)} is given for {there} and not for {missing}; expected on both sides.")
    return {name: (sides[0][name], sides[1][name]) for name in sides[0]}


def _flattened(side: Mapping[str, object]) -> dict[str, object]:
    """Nested `signals` and `columns` under flat names."""
    flat: dict[str, object] = {}
    for key, value in side.items():
        if key not in KEYS:
            raise unknown("the key", key, KEYS)
        if key in ("signals", "columns"):
            if not isinstance(value, Mapping):
                raise InputError("DV002", f"{key} is a {type(value).__name__}, expected a mapping of names to arrays.")
            flat |= {f"{key[:-1]}_{name}": array for name, array in value.items()}
        else:
            flat[key] = value
    return flat


def _pairs_of_one(names: Mapping[str, object], members: Sequence[object], nonmembers: Sequence[object]) -> Pairs:
    """Pairs from `logits_train`, `logits_test` and the like."""
    sides: dict[bool, dict[str, object]] = {True: {}, False: {}}
    for given, value in names.items():
        split = split_name(given, members, nonmembers)
        if split is None:
            raise InputError(
                "DV001",
                f"{shown(given)} does not say which side it belongs to. One mapping alone takes names such "
                "as logits_train and logits_test; otherwise pass members and nonmembers.",
            )
        if split.side.member is None:
            raise validation_refused(shown(given))
        name = _flat_name(split.name)
        if name in sides[split.side.member]:
            raise InputError("DV008", f"{shown(given)} names {shown(name)} a second time on the same side.")
        sides[split.side.member][name] = value
    for name in sides[True].keys() ^ sides[False].keys():
        raise InputError(
            "DV004",
            f"{shown(name)} is there for one side only; expected {shown(name + '_train')} and {shown(name + '_test')}.",
        )
    return {name: (sides[True][name], sides[False][name]) for name in sides[True]}


def _flat_name(name: str) -> str:
    if name.startswith(("signal_", "column_")):
        return name
    role = ROLES.get(name.lower())
    if role is None or role == "member":
        raise unknown("the name", name, [*KEYS[:-2], "signal_<name>", "column_<name>"])
    return role


def _column_pair(name: str, pair: object, *, twice: bool) -> Pair:
    if twice:
        raise InputError("DV008", f"the column {shown(name)} is given twice.")
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(
            "DV003",
            f"columns[{shown(name)}] is a {type(pair).__name__}, expected (members' values, non-members' values).",
        )
    return pair[0], pair[1]


def _both_arrays(name: str, pair: Pair, notes: set[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    return to_array(pair[0], name, notes), to_array(pair[1], name, notes)


def _check_lengths(arrays: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> tuple[int, int]:
    for side, which in enumerate(("members", "nonmembers")):
        lengths = {name: len(pair[side]) for name, pair in arrays.items()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{name} has {length:,} rows" for name, length in list(lengths.items())[:10])
            raise InputError("DV004", f"lengths differ among {which}: {text}. Expected one row a record in each.")
    first = next(iter(arrays.values()))
    return len(first[0]), len(first[1])


def _joined(name: str, members: NDArray[Any], nonmembers: NDArray[Any]) -> NDArray[Any]:
    """Members first, in one new array: the only copy that is made of them."""
    if members.shape[1:] != nonmembers.shape[1:]:
        # (m, 1) beside (n,) is the same thing written twice.
        members, nonmembers = (side[:, 0] if side.shape[1:] == (1,) else side for side in (members, nonmembers))
    if members.shape[1:] != nonmembers.shape[1:]:
        raise InputError(
            "DV003",
            f"{name} has shape {members.shape} for members and {nonmembers.shape} for nonmembers; expected "
            "the same after the first axis. Are both from the same model?",
        )
    if is_text(members) != is_text(nonmembers):
        raise InputError(
            "DV002", f"{name} is text on one side and numbers on the other ({_first(members, nonmembers)})."
        )
    if name in OUTPUTS and members.dtype.kind != "f" and nonmembers.dtype.kind != "f" and members.dtype.itemsize <= 2:
        return np.concatenate([members, nonmembers], dtype=np.float32, casting="unsafe")
    return np.concatenate([members, nonmembers])


def _first(members: NDArray[Any], nonmembers: NDArray[Any]) -> str:
    return listed([*members.ravel()[:1].tolist(), *nonmembers.ravel()[:1].tolist()])
