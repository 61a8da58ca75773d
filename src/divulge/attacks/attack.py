"""What an attack is: `attack(evidence, rng) -> (n,) scores`, higher = more member-like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Prepare = Callable[["Evidence", np.random.Generator], Mapping[str, NDArray[Any]]]


class Attack(Protocol):
    """Scores records by how member-like they are.

    An attack may also say

    - `needs`, a tuple of signal names to be computed beforehand in one pass;
    - `fitted`, True where it is fitted on membership (its intervals are then widened), or a function of the evidence;
    - `cost`, about how many times as long as a threshold attack it takes, for the time left;
    - `prepare(evidence, rng)`, signals by name that it asks of the model, whoever is a member; asked once an audit;
    - `fit(sample, rng)`, for streams, what `attack(evidence, rng)` would learn, learned on all records of a sample: a
      function of evidence, (n,) float scores, that can be pickled, draws nothing, and says of a record the same bits in
      any block and order; NaN = cannot score this row. It raises Unavailable where the sample does not hold enough.

    Its `str` is its name in the report, its `repr` its provenance.
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
    cost: float
    prepare: Prepare | None


def without_address(text: str) -> str:
    """An object's text without its place in memory, which another run would not repeat.

    >>> len(without_address("<function f at 0x7f00>"))
    12
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
