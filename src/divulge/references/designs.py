"""Which reference model is trained on which rows: the one random choice of a whole run, made before it starts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.errors import InputError

_TRADES = 8  # rounds; after each, a unit's models are a fresh draw from its own and its partner's
_PAIRS = 1 << 15  # dealt at a time: a few MB


def design(
    rows: int, models: int, *, fraction: float = 0.5, groups: ArrayLike | None = None, seed: int = 0
) -> NDArray[np.bool_]:
    """Which model is trained on which row, as evenly as can be.

    Every row is in exactly fraction * models models, or, where that is no whole number, in the whole number below or
    above. Models' sizes differ by at most one row (one group). At one half, models 2j and 2j+1 are complements, and
    they depend on the seed and j alone: a design of more models begins with that of fewer.

    Args:
        rows: n, members and non-members of the target alike.
        models: r.
        fraction: of the rows that each model is trained on, between 0 and 1.
        groups: (n,) ids of any type; rows of one id go together, such as a person's. Sizes are then counted in groups.
        seed: another seed, another design.

    Returns:
        (r, n) bool.

    Raises:
        InputError: DV401, a design that cannot be made.

    Source: Carlini et al. 2022, section VI-A (half of the records each; pairs are antithetic besides).

    >>> trained_on = design(1000, 16)
    >>> int(trained_on.sum(axis=0).min()), int(trained_on.sum(axis=1).max())
    (8, 500)
    """
    share = _checked(rows, models, fraction, seed)
    codes = None if groups is None else _codes(groups, rows)
    units = rows if codes is None else int(codes.max()) + 1
    if units < 2:
        raise InputError("DV401", "expected at least 2 groups, got 1: some rows must be in a model and others not.")
    made = _halves(units, models, seed) if share == Fraction(1, 2) else _shares(units, models, share, seed)
    sizes = made.sum(axis=1)
    if sizes.min() == 0 or sizes.max() == units:
        what = "rows" if codes is None else "groups"
        raise InputError(
            "DV401",
            f"expected each model to be trained on some of the {units} {what} and not on all, got {sizes.min()} to "
            f"{sizes.max()}. Take a fraction nearer to 0.5.",
        )
    return made if codes is None else made[:, codes]


def _checked(rows: int, models: int, fraction: float, seed: int) -> Fraction:
    for name, value, least in (("rows", rows, 2), ("models", models, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError("DV401", f"expected {name} to be a whole number of at least {least}, got {value!r:.40}.")
    if isinstance(fraction, bool) or not isinstance(fraction, int | float | np.floating) or not 0 < fraction < 1:
        raise InputError("DV401", f"expected fraction to lie between 0 and 1, got {fraction!r:.40}.")
    return Fraction(float(fraction)).limit_denominator(10**6)


def _codes(groups: ArrayLike, rows: int) -> NDArray[np.int64]:
    """(n,) number of each row's group."""
    from divulge.doors.arrays import distinct, to_array

    array = to_array(groups, "groups", set())
    if array.shape != (rows,):
        raise InputError("DV401", f"expected groups of shape ({rows},), one id a row, got {array.shape}.")
    return distinct(array)[1]


def _halves(units: int, models: int, seed: int) -> NDArray[np.bool_]:
    """(r, u) bool: pairs of complements."""
    made = np.empty((models, units), bool)
    for j in range((models + 1) // 2):  # a loop over models: each pair has its own generator
        rng = _generator(seed, j + 1)
        chosen = rng.permutation(units) < (units + (units % 2) * rng.integers(2)) // 2
        made[2 * j] = chosen
        made[2 * j + 1 :][:1] = ~chosen
    return made


def _shares(units: int, models: int, share: Fraction, seed: int) -> NDArray[np.bool_]:
    """(r, u) bool: dealt in turn, which is even, then traded between units, which is random and stays even."""
    rng = _generator(seed, 0)
    turns = np.arange(units + 1) * (share.numerator * models) // share.denominator
    places = (np.arange(models) - turns[:-1, None]) % models
    dealt = (places < np.diff(turns)[:, None])[rng.permutation(units)]
    for _ in range(_TRADES):
        order = rng.permutation(units)
        for start in range(0, units // 2, _PAIRS):
            pairs = order[2 * start : 2 * min(start + _PAIRS, units // 2)].reshape(-1, 2)
            dealt[pairs] = _traded(dealt[pairs], rng)
    return np.ascontiguousarray(dealt[:, rng.permutation(models)].T)


def _traded(pairs: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """(p, 2, r) bool: models that only one of two units has are pooled and dealt out anew, as many to each as before.

    Source: Strona et al. 2014, A fast and unbiased procedure to randomize ecological binary matrices.
    """
    first, second = pairs[:, 0], pairs[:, 1]
    apart = first ^ second
    keys = np.where(apart, rng.random(apart.shape, np.float32), np.float32(2))
    ranks = keys.argsort(axis=1).argsort(axis=1)
    to_first = apart & (ranks < (first & ~second).sum(axis=1, keepdims=True))
    both = first & second
    return np.stack([both | to_first, both | (apart & ~to_first)], axis=1)


def _generator(seed: int, stream: int) -> np.random.Generator:
    """Apart from the generators of the models' own seeds, which are made of (seed, model)."""
    return np.random.default_rng([seed, stream, 1])
