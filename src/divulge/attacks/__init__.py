"""Attacks: `attack(evidence, rng) -> (n,) scores`, higher = more member-like.

Ours are frozen dataclasses, one file a family; any callable of the same shape is an attack too. Which run by default,
and how a name becomes an attack, is said here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from divulge import signals
from divulge.attacks.threshold import ClassWise, Threshold
from divulge.errors import InputError

if TYPE_CHECKING:
    from divulge.evidence import Evidence

__all__ = ["Attack", "ClassWise", "NamedAttack", "Threshold", "all_named", "default", "named"]


class Attack(Protocol):
    """Scores records by how member-like they are.

    An attack may also say `needs`, a tuple of signal names to be computed beforehand in one pass, and `fitted`, True
    where it is fitted on membership (its intervals are then widened). Its `str` is its name in the report, its `repr`
    its provenance.
    """

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """(n,) float scores, higher = more member-like; NaN = cannot score this row.

        Raises:
            Unavailable: this evidence does not hold what the attack needs.
        """
        ...


class NamedAttack(NamedTuple):
    """An attack as the pipeline runs it. required: the user named it, so that it may not be skipped."""

    name: str
    call: Attack
    needs: tuple[str, ...]
    fitted: bool
    required: bool


def default(evidence: Evidence) -> list[Attack]:
    """The attacks that run when none is named: what these outputs, labels and given signals support.

    Signals whose ROC is another's by construction (log_odds is loss, on another scale) are left out.

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> len(default(evidence))
    1
    """
    classes = evidence.labels is not None and evidence.labels.ndim == 1 and evidence.labels.dtype.kind != "f"
    names = list(evidence.signals)
    chosen = {"multiclass": ["loss", "modified_entropy"], "unlabelled": ["confidence", "entropy"]}
    names += [name for name in chosen.get(evidence.task, ["loss"]) if name not in names]
    names = [name for name in names if signals.why_unavailable(evidence, name) is None]
    attacks: list[Attack] = [Threshold(name) for name in names]
    if classes and names:
        attacks.append(ClassWise("loss" if "loss" in names else names[0]))
    return attacks


def named(attack: str | Attack, evidence: Evidence) -> NamedAttack:
    """An attack from a signal's name, "class_wise", "class_wise(SIGNAL)" or the user's own callable.

    Raises:
        InputError: DV052, no attack of that name.
    """
    call = _from_text(attack, evidence) if isinstance(attack, str) else attack
    if not callable(call):
        raise InputError("DV052", f"expected an attack's name or a callable, got {type(call).__name__}: {call!r:.80}")
    name = without_address(str(getattr(call, "__name__", call)))
    return NamedAttack(name, call, getattr(call, "needs", ()), getattr(call, "fitted", False), True)


def without_address(text: str) -> str:
    """An object's text without its place in memory, which another run would not repeat.

    >>> len(without_address("<function f at 0x7f00>"))
    12
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def all_named(attacks: str | Attack | Iterable[str | Attack], evidence: Evidence) -> list[NamedAttack]:
    """Normalise the `attacks` argument of `audit`.

    Raises:
        InputError: DV052, an unknown name, two attacks of one name, or none at all.
    """
    if isinstance(attacks, str) and attacks == "default":
        found = [named(attack, evidence)._replace(required=False) for attack in default(evidence)]
        if not found:
            raise InputError("DV052", "no attack fits this evidence: give outputs (logits, probs) or a signal (loss)")
        return found
    given = [attacks] if isinstance(attacks, str) or callable(attacks) else list(attacks)
    found = [named(attack, evidence) for attack in given]
    names = [attack.name for attack in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not found:
        raise InputError("DV052", f"two attacks are called {twice[0]!r}" if twice else "no attack was named")
    return found


def _from_text(text: str, evidence: Evidence) -> Attack:
    known = [*evidence.signals, *signals.NAMES]
    if text in known:
        return Threshold(text)
    if text == "class_wise":
        return ClassWise()
    if text.startswith("class_wise(") and text.endswith(")") and text[11:-1] in known:
        return ClassWise(text[11:-1])
    names = [*dict.fromkeys(known), "class_wise"]
    close = get_close_matches(text, names, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError("DV052", f"there is no attack {text[:80]!r}; {hint}known here: {', '.join(names)}")
