"""From a sketch of a stream to what is counted of every block: attacks fitted, the edges of slices settled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge import attacks as attack_family
from divulge import controls as control_family
from divulge import scoring
from divulge import slices as slice_family
from divulge.attacks import NamedAttack
from divulge.bins import centre_of
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.identity import content_hashes
from divulge.report import Row
from divulge.slices import Slicer
from divulge.streams.dealing import dealing_of, unplaced
from divulge.streams.tally import BITS, Plan

FITTED_ON = 50_000  # rows a side that an attack is fitted on, of each half
LOOKED_AT = 1 << 15  # rows whose scores say where bins should be narrow
TRIED = 512  # rows on which is tried whether a score, or a slice, depends on other rows
ALONE = 8  # of them, one by one too: two halves may have one median


@dataclass(frozen=True)
class Crossed:
    """Scores by an attack fitted twice: each half of the rows by what was fitted on the other half of the sketch."""

    scorers: tuple[Callable[[Evidence], NDArray[np.floating[Any]]], ...]

    def __call__(self, block: Evidence, halves: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """(n,) float64."""
        scores = np.empty(len(block))
        for half, scorer in enumerate(self.scorers):
            rows = np.flatnonzero(halves != half)
            if len(rows):
                found = np.asarray(scorer(block.take(rows)))
                if found.shape != rows.shape or found.dtype.kind not in "fiub":
                    raise InputError(
                        "DV057",
                        f"what an attack's fit made gave {found.dtype} scores of shape {found.shape}; expected one "
                        f"number a record, shape {rows.shape}",
                    )
                scores[rows] = found
        return scores


@dataclass(frozen=True)
class Plain:
    """Scores by an attack that asks nothing but the record."""

    attack: NamedAttack
    seed: int

    def __call__(self, block: Evidence, halves: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """(n,) float."""
        return scoring.scores_of(self.attack, block, self.seed)


def planned(
    sketch: Evidence, *, attacks: Any, slices: Sequence[str | Slicer], seed: int, sample: int
) -> tuple[Plan, list[Row]]:
    """What is counted, from what the sketch says; and how attacks that cannot run fared.

    Args:
        sketch: some records, `placed`.
        attacks, slices, seed: as of `audit`.
        sample: rows a side that are kept.
    """
    dealing, known, sketch = dealing_of(sketch), sketch, unplaced(sketch)
    chosen = attack_family.all_named(attacks, sketch)
    slicers = tuple(slice_family.settled(slice_family.named(slicer, sketch), sketch) for slicer in slices)
    names = [slice_family.checked(slicer(sketch), len(sketch)).name for slicer in slicers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError("DV053", f"two partitions are called {min(twice)!r}: ask for each once")
    ready = with_signals(sketch, tuple(chosen))
    halves = dealing.halves(known, content_hashes(sketch), seed)
    few = np.linspace(0, len(ready) - 1, min(LOOKED_AT, len(ready))).astype(np.int64)
    some = ready.take(few)
    for slicer in slicers:
        _check_row_by_row(slicer, ready)
    scores: dict[str, Any] = {}
    centres: dict[str, float] = {}
    statuses: list[Row] = []
    for attack in chosen:
        try:
            scores[attack.name] = _score_of(attack, ready, halves, seed)
            centres[attack.name] = centre_of(scores[attack.name](some, halves[few])[~some.member], BITS)
        except Unavailable as reason:
            if attack.required:
                raise Unavailable(f"the attack {attack.name} cannot run: {reason.message}") from reason
            statuses.append({"attack": attack.name, "status": "skipped", "reason": reason.message})
    if not scores:
        reasons = "; ".join(f"{row['attack']}: {row['reason']}" for row in statuses)
        raise Unavailable(f"no attack could run on this stream ({reasons})")
    ran = tuple(attack for attack in chosen if attack.name in scores)
    return Plan(ran, scores, slicers, partial(with_signals, attacks=ran), dealing, centres, seed, sample), statuses


def with_signals(block: Evidence, attacks: Sequence[NamedAttack]) -> Evidence:
    """`scoring.with_signals`, what is computed of one type: in memory that depends on the surest record."""
    found = scoring.with_signals(block, attacks)
    if block.outputs is None or block.outputs.dtype == np.float64:
        return found
    computed = {name: x if name in block.signals else x.astype(np.float32) for name, x in found.signals.items()}
    return replace(found, signals=computed)


def _score_of(attack: NamedAttack, sketch: Evidence, halves: NDArray[np.uint8], seed: int) -> Any:
    """How an attack scores a block.

    Raises:
        Unavailable: it cannot: it needs what a stream has not, or other records than the one that it scores.
    """
    if attack.prepare is not None and not any(need in sketch.signals for need in attack.needs):
        raise Unavailable("it asks the model, and a stream is read without one: give its answers as a signal")
    fit = getattr(attack.call, "fit", None)
    if fit is not None:
        rng = scoring.rng_of(attack, seed)
        return Crossed(tuple(fit(_few(sketch.take(halves == half), seed), rng) for half in (0, 1)))
    rows = _tried(sketch)
    some, plain = sketch.take(rows), Plain(attack, seed)
    whole, parts = plain(some, halves[rows]), [slice(first, None, 2) for first in range(min(2, len(rows)))]
    if not all(_alike(whole[part], plain(some.take(part), halves[rows][part])) for part in parts):
        raise Unavailable("its scores depend on other records of a block: give it fit(sample, rng) -> scorer")
    return plain


def _tried(sketch: Evidence) -> NDArray[np.int64]:
    return np.linspace(0, len(sketch) - 1, min(TRIED, len(sketch))).astype(np.int64)


def _check_row_by_row(slicer: Slicer, sketch: Evidence) -> None:
    """That a slicer puts a record where it puts it among others.

    Raises:
        InputError: DV053, it does not.
    """
    some = sketch.take(_tried(sketch))

    def put(rows: NDArray[np.int64]) -> set[tuple[int, str]]:
        part = slice_family.checked(slicer(some.take(rows)), len(rows))
        of = rows if part.rows is None else rows[part.rows]
        inside = part.codes >= 0
        return {(row, part.labels[code]) for row, code in zip(of[inside].tolist(), part.codes[inside], strict=True)}

    every = np.arange(len(some))
    whole = put(every)
    for rows in (every[::2], every[1::2], *every[:ALONE, None]):
        among = set(rows.tolist())
        if put(rows) == {(row, label) for row, label in whole if row in among}:
            continue
        name = slicer(some).name
        raise InputError(
            "DV053",
            f"the slices by {name!r:.80} depend on other records of a block, and a stream is cut a block at a time: "
            "expected a slicer that looks at each record alone. Give it fixed cut points, or the column's name.",
        )


def _alike(scores: NDArray[Any], others: NDArray[Any]) -> bool:
    """Equal but for the rounding of sums that a library adds up otherwise in another block."""
    known = scores[np.isfinite(scores)].astype(np.float64)
    tolerance = 1e-6 * float(np.ptp(known)) if len(known) else 0.0
    return np.allclose(scores, others, rtol=1e-6, atol=tolerance, equal_nan=True)


def _few(evidence: Evidence, seed: int) -> Evidence:
    return control_family.subsample(evidence, FITTED_ON, seed)
