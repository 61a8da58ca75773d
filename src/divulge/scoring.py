"""Evidence -> an attack's scores: the signals that it needs, its own random numbers, what may come back."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.attacks import NamedAttack
from divulge.doors.names import shown
from divulge.errors import InputError, Unavailable
from divulge.evidence import Evidence
from divulge.signals import compute, why_unavailable


def with_signals(evidence: Evidence, attacks: Iterable[NamedAttack]) -> Evidence:
    """The evidence with all signals that will be needed, computed in one pass over the outputs."""
    wanted = dict.fromkeys([*(need for attack in attacks for need in attack.needs), "correct"])
    have = [name for name in wanted if why_unavailable(evidence, name) is None]
    return replace(evidence, signals={**evidence.signals, **compute(evidence, have)})


def scores_of(attack: NamedAttack, evidence: Evidence, seed: int) -> NDArray[np.floating[Any]]:
    """(n,) scores of one attack, by random numbers of its own, whichever other attacks run.

    Raises:
        Unavailable: the evidence does not hold what the attack needs.
        InputError: DV057, scores of another shape or type.
    """
    given = attack.call(_read_only(evidence), rng_of(attack, seed))
    try:
        scores = np.asarray(given)
    except ValueError as error:
        raise InputError(
            "DV057",
            f"the attack {attack.name} gave scores that are no array: {shown(str(error))}; expected one a record",
        ) from error
    if scores.shape != evidence.member.shape or scores.dtype.kind not in "fiub":
        raise InputError(
            "DV057",
            f"the attack {attack.name} gave {scores.dtype} scores of shape {scores.shape}; "
            f"expected one number a record, shape {evidence.member.shape}",
        )
    return scores if scores.dtype.kind == "f" else scores.astype(np.float64)


def _read_only(evidence: Evidence) -> Evidence:
    """The same records, not to be written to: an attack that did would change the data, and what other attacks see."""

    def view(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = value.view()
            value.flags.writeable = False
            return value
        return {name: view(array) for name, array in value.items()} if isinstance(value, dict) else value

    return replace(evidence, **{field.name: view(getattr(evidence, field.name)) for field in fields(evidence)})


def with_answers(evidence: Evidence, attacks: Iterable[NamedAttack], seed: int) -> Evidence:
    """The evidence with the signals that attacks ask of the model themselves: once an audit.

    They are asked of evidence whose membership is dealt out at random, since an answer must not depend on it. An attack
    that cannot ask is left to say so when it runs.

    Raises:
        InputError: DV057, a signal of another shape.
    """
    found = dict(evidence.signals)
    for attack in attacks:
        if attack.prepare is None:
            continue
        with contextlib.suppress(Unavailable):
            rng = rng_of(attack, seed)
            dealt = replace(evidence, member=np.random.default_rng(seed).permutation(evidence.member))
            found |= attack.prepare(dealt, rng)
        wrong = [name for name, values in found.items() if np.shape(values) != evidence.member.shape]
        if wrong:
            raise InputError(
                "DV057",
                f"the attack {attack.name} prepared a signal {wrong[0]!r} of shape {np.shape(found[wrong[0]])}; "
                f"expected one number a record, shape {evidence.member.shape}",
            )
    return replace(evidence, signals=found)


def rng_of(attack: NamedAttack, seed: int) -> np.random.Generator:
    """An attack's own random numbers, whichever others run."""
    return np.random.default_rng([seed, zlib.crc32(attack.name.encode())])
