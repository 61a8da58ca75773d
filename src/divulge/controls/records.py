"""Records and persons on both sides; outputs that are tied or of the wrong kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge import intervals, signals
from divulge.controls.setting import (
    CONTROL_ERROR,
    FEW,
    OK,
    WARNING,
    Outcome,
    Setting,
    Shared,
    more_often,
    not_run,
    number,
)
from divulge.hashes import array_hashes
from divulge.identity import HASHES
from divulge.metrics import Estimate

if TYPE_CHECKING:
    from divulge.evidence import Evidence

TIED = 0.1  # share of records that may be tied with many others
MANY = 1e-5  # of the records, tied with each other, that matter: of millions of float32 some are equal by chance
TIED_AT_TOP = 0.01  # share of records that may share the highest value


def shared_records(evidence: Evidence, contents: NDArray[np.uint64]) -> Shared:
    """Find records that are members and non-members at once.

    By id where there are ids. Else by equal feature rows, equal outputs and label, or equal outputs to a few digits
    (equal signals where there are no outputs), in this order; such twins count where they are more common across the
    sides than among the members, so that data in which equal rows are usual raises nothing.

    Args:
        evidence: n records.
        contents: their `identity.content_hashes`.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(np.array([True, True, False]), ids=np.array([1, 2, 2]))
    >>> shared_records(evidence, np.arange(3, dtype=np.uint64)).nonmembers
    1
    """
    none, of = np.zeros(len(evidence.member), bool), int((~evidence.member).sum())
    if evidence.ids is not None and evidence.ids.dtype != HASHES:
        rows, _ = _on_both_sides(array_hashes(evidence.ids), evidence.member)
        if rows.any():
            return Shared("id", rows, int((rows & ~evidence.member).sum()), of)
    members = int(evidence.member.sum())
    for by, hashes in _twin_keys(evidence, contents):
        rows, usual = _on_both_sides(hashes, evidence.member)
        found = int((rows & ~evidence.member).sum())
        if unusual(found, of, usual, members):
            return Shared(by, rows, found, of)
    return Shared(None, none, 0, of)


def unusual(found: int, nonmembers: int, usual: int, members: int) -> bool:
    """Whether so many of the non-members have a twin among the members, where so many members have one among members.

    >>> unusual(30, 1000, 2, 1000), unusual(30, 1000, 30, 1000)
    (True, False)
    """
    p = more_often(found, nonmembers, usual, members)
    return found >= 3 and found / nonmembers > 2 * usual / members + 0.001 and p < CONTROL_ERROR / 2


def _twin_keys(evidence: Evidence, contents: NDArray[np.uint64]) -> Iterator[tuple[str, NDArray[np.uint64]]]:
    """Ways in which two rows may be one record, and each row's hash by it."""
    if evidence.features is not None:
        yield "feature row", array_hashes(evidence.features)
    if evidence.outputs is not None and evidence.task != "regression":
        yield "output row", contents
        if evidence.outputs.ndim == 2 and evidence.outputs.shape[1] > 2:  # fewer numbers agree by chance
            digits = 4 if evidence.kind == "probs" else 3  # logits of 10 differ by 1e-5 from batch to batch in float32
            yield "output row, rounded", array_hashes(evidence.outputs, decimals=digits)
    elif evidence.outputs is None and evidence.signals:
        yield "signals", contents


def _on_both_sides(keys: NDArray[np.uint64], member: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """(n,) bool: rows whose key stands on both sides; and how many members have a key that another member has."""
    ours, theirs = np.sort(keys[member]), np.sort(keys[~member])
    first = np.append(True, ours[1:] != ours[:-1])
    alone = first & np.append(first[1:], True)
    both = np.sort(np.concatenate((ours[first], theirs[np.append(True, theirs[1:] != theirs[:-1])])))
    shared = both[1:][both[1:] == both[:-1]]
    return (np.isin(keys, shared) if len(shared) else np.zeros(len(keys), bool)), int((~alone).sum())


def duplicates(setting: Setting) -> Outcome:
    """Records on both sides; the audit has left them out."""
    found = setting.shared
    share = found.nonmembers / found.of
    copies = _copies(setting.evidence.groups)
    if found.by is None:
        return Outcome("duplicates", "DV203", OK, number(0.0), f"no record stands on both sides{copies}")
    text = f"{found.nonmembers:,} of {found.of:,} non-members share their {found.by} with a member; "
    left_out = int(found.rows.sum())
    text += f"left out, {left_out:,} rows of both sides{copies}" if left_out else "counted all the same, as of a stream"
    low, high = intervals.wilson(found.nonmembers, found.of, 2 * CONTROL_ERROR)
    return Outcome("duplicates", "DV203", WARNING, Estimate(share, float(low), float(high)), text)


def _copies(groups: NDArray[Any] | None) -> str:
    """What the audit made of records that stand several times on one side."""
    if groups is None or groups.dtype != HASHES:
        return ""
    sizes = np.unique(groups, return_counts=True)[1]
    several = sizes[sizes > 1]
    return f"; {len(several):,} stand several times on one side, in {int(several.sum()):,} rows: each counts as one"


def groups(setting: Setting) -> Outcome:
    """Persons (or households) with records on both sides; and the best attack without them."""
    evidence = setting.evidence
    if evidence.groups is None or evidence.groups.dtype == HASHES:  # copies of one record: see duplicates
        return not_run("groups", "DV204", "no groups were given")
    rows, _ = _on_both_sides(array_hashes(evidence.groups), evidence.member)
    share = float(rows[~evidence.member].mean()) if setting.shared_groups is None else setting.shared_groups
    if not share:
        return Outcome("groups", "DV204", OK, number(0.0), "no group stands on both sides")
    apart = np.flatnonzero(~rows)
    text = f"{100 * share:.2f} % of the non-members belong to a group that has members"
    if len(apart) < len(rows) and 0 < int(evidence.member[apart].sum()) < len(apart):
        auc = setting.auc_of_best(apart, evidence.member[apart], 2 * CONTROL_ERROR)
        text += f"; without those groups the AUC of {setting.best} is {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
    return Outcome("groups", "DV204", WARNING, number(share), text)


def ties(setting: Setting) -> Outcome:
    """Records whose signal equals many others', above all at its top: outputs rounded, or saturated in float32."""
    evidence = setting.evidence
    known = _available(evidence)
    name = next((name for name in ("loss", *setting.given, "confidence") if name in known), None)
    if name is None:
        return not_run("ties", "DV205", "no signal to look at")
    share, top = _tied(signals.signal(evidence, name))
    if (share > TIED or top > TIED_AT_TOP) and "log_odds" in known and name not in setting.given:
        share, top = _tied(signals.signal(evidence, "log_odds"))  # a float32 loss underflows to 0 from log-odds of 104
    if share == 1 == top:
        return not_run("ties", "DV205", f"all records have the same {name}")
    text = f"{100 * share:.1f} % of the records have the same {name} as others"
    if share <= TIED and top <= TIED_AT_TOP:
        return Outcome("ties", "DV205", OK, number(share), text)
    if top > TIED_AT_TOP:
        text += f", {100 * top:.1f} % the highest"
    text += ": rounded, saturated or few-valued outputs, so figures at low FPR are not measurable; export logits"
    return Outcome("ties", "DV205", WARNING, number(share), text)


def _tied(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """The share of (n,) values that are equal to many others, and the share that is equal to the largest."""
    values = np.sort(values)
    runs = np.diff(np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1], [True]))))
    many = runs[runs > max(1.0, MANY * len(values))]
    return int(many.sum()) / len(values), int(runs[-1]) / len(values) if runs[-1] > FEW // 10 else 0.0


def _available(evidence: Evidence) -> list[str]:
    names = [*evidence.signals, "log_odds", "loss", "confidence"]
    return [name for name in names if signals.why_unavailable(evidence, name) is None]


def kind(setting: Setting) -> Outcome:
    """Whether the outputs look like the kind they were given as, beyond what the doors refuse."""
    evidence = setting.evidence
    outputs = evidence.outputs
    if outputs is None or evidence.kind is None:
        return not_run("kind", "DV206", "no logits or probabilities were given")
    part = setting.part.outputs
    assert part is not None
    if evidence.kind == "logits" and float(part.min()) >= 0 and float(part.max()) <= 1:
        text = "all logits lie between 0 and 1: are they probabilities? Then pass them as probs"
        return Outcome("kind", "DV206", WARNING, number(1.0), text)
    return Outcome("kind", "DV206", OK, number(0.0), f"the {evidence.kind} look like {evidence.kind}")
