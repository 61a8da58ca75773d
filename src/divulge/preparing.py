"""What audits have in common, whatever their records are read from: settings, progress, what controls may look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge import controls as control_family
from divulge.attacks import NamedAttack
from divulge.controls import Setting, Shared
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.metrics import Estimate
from divulge.records import Records, declared, table_of_records
from divulge.report import Report, Row
from divulge.roc import Ranked
from divulge.scoring import scores_of, with_signals
from divulge.slices import MIN_N, Merged

if TYPE_CHECKING:
    from divulge.policy import Policy

Progress = Callable[[int, int, str], None]


def check_settings(confidence: float, min_n: int = MIN_N, *, seed: int) -> None:
    """The settings of an audit.

    Raises:
        InputError: DV056, one is out of range.
    """
    if seed < 0:
        raise InputError("DV056", f"expected a seed from 0 up, got {seed!r}")
    if not 0.5 <= confidence < 1:
        raise InputError("DV056", f"expected a confidence from 0.5 up to, not including, 1, got {confidence!r}")
    if min_n < 2:
        raise InputError("DV056", f"expected min_n of at least 2, got {min_n!r}")


def check_sides(evidence: Evidence) -> None:
    """Both must be there.

    Raises:
        InputError: DV056, there are no members or no non-members.
    """
    members = int(evidence.member.sum())
    if members in (0, len(evidence.member)):
        sides = "non-members" if members else "members"
        raise InputError("DV056", f"expected members and non-members, got no {sides} among {len(evidence.member)} rows")


class Steps:
    """Tells the caller how far the audit is, in units of about one signal's threshold."""

    def __init__(self, progress: Progress | None, attacks: Sequence[NamedAttack], cuts: int, tried: int) -> None:
        """tried: rows that the controls may try the attacks on, 0 where none does."""
        self._progress, self._done, self._what = progress, 0.0, ""
        self.share = min(1.0, 2 * control_family.TRIAL_SAMPLE / max(tried, 1))
        self._times = 1 + (control_family.TRIALS * self.share if tried else 0)
        self._total = 1 + math.ceil(sum(attack.cost * self._times + 1 + cuts for attack in attacks))

    def at(self, what: str) -> None:
        """The next thing to be done."""
        self._what = what
        if self._progress is not None:
            self._progress(int(self._done), self._total, what)

    def did(self, cost: float) -> None:
        """A part of it is done."""
        self._done = min(self._done + cost, self._total - 1)
        self.at(self._what)

    def skip(self, attack: NamedAttack) -> None:
        """An attack that did not run is no part of the whole."""
        self._total = max(self._total - math.floor(attack.cost * self._times), int(self._done) + 1)

    def last(self) -> None:
        """All is done."""
        if self._progress is not None:
            self._progress(self._total, self._total, "done")


class Ready(NamedTuple):
    """What is measured: the evidence with its signals, (n,) tags, ranked scores, slices, and how the attacks ran."""

    evidence: Evidence
    tag: NDArray[np.uint8]
    scored: list[tuple[NamedAttack, Ranked]]
    statuses: list[Row]
    partitions: list[Merged]
    unscored: dict[str, tuple[int, int]]


def without_shared(evidence: Evidence, shared: Shared | None) -> Evidence:
    """The records that stand on one side only.

    Raises:
        InputError: DV059, then a side is empty.
    """
    if shared is None or shared.by is None:
        return evidence
    apart = evidence.take(~shared.rows)
    if len(set(apart.member.tolist())) < 2:
        raise InputError(
            "DV059",
            f"{shared.nonmembers:,} non-members share their {shared.by} with members, and no two sides are left: "
            "are the same records given as members and as non-members?",
        )
    return apart


def setting_of(
    ready: Ready,
    aucs: Mapping[str, Estimate],
    shared: Shared,
    given: Sequence[str],
    *,
    sizes: tuple[int, int],
    effective: tuple[float, float],
    seed: int,
    steps: Steps,
) -> Setting:
    """What the controls may look at; sizes, effective: of the audit, of which the records may be a sample."""

    def run(attack: NamedAttack, part: Evidence) -> NDArray[np.floating[Any]]:
        steps.at(f"controls: {attack.name}")
        steps.did(attack.cost * steps.share)
        return scores_of(attack, with_signals(part, [attack]), seed)

    attacks = [attack for attack, _ in ready.scored]
    part = control_family.subsample(ready.evidence, control_family.SAMPLE, seed)
    ranked = {attack.name: scores for attack, scores in ready.scored}
    return Setting(
        evidence=ready.evidence,
        part=part,
        given=tuple(given),
        attacks=attacks,
        aucs=aucs,
        unscored=ready.unscored,
        ranked=ranked,
        tag=ready.tag,
        shared=shared,
        run=run,
        seed=seed,
        sizes=sizes,
        effective=effective,
    )


def records_of(
    evidence: Evidence, ready: Ready, shared: Shared | None, *, seed: int, error: float, steps: Steps
) -> Records:
    """The records one by one, under the ids that the user gave them."""
    steps.at("records")
    rows = np.arange(len(evidence)) if shared is None or shared.by is None else np.flatnonzero(~shared.rows)
    ids = rows if evidence.ids is None else evidence.ids[rows]
    attack = declared([attack for attack, _ in ready.scored])
    ranked = next(scores for one, scores in ready.scored if one.name == attack.name)
    scores = ranked.scores(ranked.keys)[1:]
    if any(ready.unscored[attack.name]):
        scores = np.where(np.isinf(scores), np.nan, scores)  # what has no score was ranked lowest
    left_out = len(evidence) - len(rows)
    return table_of_records(ready.evidence, ids.tolist(), attack, scores, seed=seed, error=error, left_out=left_out)


def finished(
    meta: Mapping[str, Any],
    tables: Mapping[str, Any],
    tests: int,
    *,
    name: str | None = None,
    slices: Sequence[str] = (),
    records: Records | None = None,
    policy: Policy | None = None,
    baseline: Report | None = None,
) -> Report:
    """The report, held against the policy.

    Args:
        meta: its provenance.
        tables: by name.
        tests: that share the error of findings.
        name: of the model.
        slices: names of the partitions.
        records: one by one, where they were asked for.
        policy: None: nothing is gated.
        baseline: an earlier report.
    """
    about = {**meta, **({} if name is None else {"name": str(name)}), "tests": tests, "slices": list(slices)}
    content = dict(tables)
    if records is not None:
        content["records"], about["records"] = records.columns, records.about
    return Report({**about, "verdict": "NOT_GATED", "policy": None}, content).judged(policy, baseline=baseline)
