"""Which model of a cross-validation left out whom, and which of them a non-member is to be asked of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.doors.arrays import to_array
from divulge.errors import InputError

BEYOND_CHANCE = 1e-6
"""Folds that shuffled ones would be like with less than this probability are taken for unshuffled."""
FEWEST_EXPECTED = 5
"""Records of a class that a fold should expect for the chi-square law to hold; rarer classes count as one."""

_SHUFFLE = (
    "A model that was trained without a kind of record finds the members of that fold strange, and non-members less: "
    "attacks would see a leak where there is none (with folds sorted by label AUC 0.72). Cross-validate with "
    "StratifiedKFold(5, shuffle=True, random_state=0)"
)

Rows = NDArray[np.int64]


def repetitions(estimators: Sequence[Any], folds: Any, m: int) -> list[tuple[list[Any], Rows]]:
    """Each repetition's K models, and each member's fold."""
    listed = list(estimators)
    if not listed:
        raise InputError("DV410", "expected the models of a cross-validation, got none (return_estimator=True)")
    if isinstance(listed[0], list | tuple):
        if isinstance(folds, Mapping) or len(folds) != len(listed):
            got = "one mapping" if isinstance(folds, Mapping) else len(folds)
            raise InputError(
                "DV410", f"{len(listed)} repetitions of models, expected a list of as many folds, got {got}"
            )
        return [one for models, own in zip(listed, folds, strict=True) for one in repetitions(models, own, m)]
    found = _pairs_folds(folds, m) if _are_pairs(folds) else [_numbers(folds, m)]
    sizes = [int(fold.max()) + 1 for fold in found]
    if sum(sizes) != len(listed):
        raise InputError(
            "DV410",
            f"{len(listed)} models and {sum(sizes)} folds: expected the model of each fold, in the order of the folds. "
            "The model that was fitted to all members in the end is the target, not one of these",
        )
    starts = np.cumsum([0, *sizes])
    return [(listed[start:stop], fold) for fold, start, stop in zip(found, starts[:-1], starts[1:], strict=True)]


def _are_pairs(folds: Any) -> bool:
    if isinstance(folds, Mapping):
        return True
    return isinstance(folds, list | tuple) and len(folds) > 0 and isinstance(folds[0], tuple | list)


def _pairs_folds(folds: Any, m: int) -> list[Rows]:
    """The folds of a splitter's pairs; a new repetition begins when every member was left out once."""
    if isinstance(folds, Mapping):
        if not {"train", "test"} <= folds.keys():
            raise InputError("DV410", f"folds has the keys {sorted(folds)!r:.80}, expected 'train' and 'test'")
        folds = list(zip(folds["train"], folds["test"], strict=True))
    found, fold, number = list[Rows](), np.full(m, -1), 0
    for pair in folds:
        if len(pair) != 2:
            raise InputError("DV410", f"a fold has {len(pair)} parts, expected (train, test) indices over the members")
        train, test = (_indices(part, m) for part in pair)
        if np.isin(test, train).any():
            raise InputError("DV410", f"fold {number} was trained on records that it is to have left out")
        if (fold[test] >= 0).any() or not len(test):
            raise InputError(
                "DV410",
                f"fold {number} leaves {'out a member a second time' if len(test) else 'nobody out'}; expected folds "
                "that leave each member out once, as KFold or StratifiedKFold make them (not ShuffleSplit)",
            )
        fold[test] = number
        number += 1
        if (fold >= 0).all():
            found.append(fold)
            fold, number = np.full(m, -1), 0
    if number:
        raise InputError(
            "DV410",
            f"{int((fold < 0).sum()):,} of {m:,} members are in no fold; expected folds that leave each member out "
            "once, of all members (not TimeSeriesSplit)",
        )
    return found


def _indices(part: Any, m: int) -> Rows:
    index = np.asarray(part)
    if index.dtype == np.bool_ and index.shape == (m,):
        return np.flatnonzero(index)
    if index.ndim != 1 or (index.size and (index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= m)):
        got = f"{index.dtype} of shape {index.shape}"
        if index.size and index.dtype.kind in "iu":
            got = f"{index.min()}..{index.max()}" if index.ndim == 1 else got
        raise InputError(
            "DV410",
            f"folds have indices {got}, expected 0..{m - 1} over the {m:,} members: cross-validate the members only, "
            "x[member] and y[member]",
        )
    return index.astype(np.int64)


def _numbers(folds: Any, m: int) -> Rows:
    fold = to_array(folds, "folds", set())
    if fold.shape != (m,) or fold.dtype.kind not in "iu":
        raise InputError(
            "DV410",
            f"folds are {fold.dtype} of shape {fold.shape}, expected ({m},) ints, one a member in their order among "
            "the rows, or (train, test) pairs of indices over the members",
        )
    sizes = np.bincount(fold) if fold.min() >= 0 else np.zeros(1, np.int64)
    if (sizes == 0).any() or len(sizes) < 2:
        raise InputError(
            "DV410", f"folds are numbered {fold.min()}..{fold.max()}, expected 0..K-1, two or more, each with members"
        )
    return fold.astype(np.int64)


def check_shuffled(fold: Rows, codes: Rows, groups: Rows | None, *, shuffled: bool) -> None:
    """Refuse folds that are not random parts of the members."""
    if groups is not None:
        by_group = np.full(int(groups.max()) + 1, -1)
        by_group[groups] = fold
        if (split := by_group[groups] != fold).any():
            raise InputError(
                "DV410",
                f"folds split groups ({np.unique(groups[split]).size:,} of {np.unique(groups).size:,}): a model that "
                "left a member out has seen another record of the same person. Cross-validate with "
                "StratifiedGroupKFold",
            )
    if not shuffled and _log_chance_in_order(fold, codes) < np.log(BEYOND_CHANCE):
        raise InputError(
            "DV410",
            f"folds are blocks of consecutive members. {_SHUFFLE}; or, if the members stood in random order before, "
            "say so with shuffled=True",
        )
    if (p := _share_p(fold, codes, groups)) < BEYOND_CHANCE:
        raise InputError("DV410", f"folds hold other shares of the classes (chi-square p = {p:.1g}). {_SHUFFLE}")


def _log_chance_in_order(fold: Rows, codes: Rows) -> float:
    """Log-probability that shuffled folds would be runs of consecutive members in every class; 0 where they are not.

    Per class, since StratifiedKFold deals each class's members in their order.
    """
    from scipy.special import gammaln

    order = np.argsort(codes, kind="stable")
    fold, codes = fold[order], codes[order]
    runs = 1 + np.count_nonzero((fold[1:] != fold[:-1]) | (codes[1:] != codes[:-1])) if len(fold) else 0
    counts = _table(fold, codes)
    if runs > np.count_nonzero(counts):
        return 0.0
    of_class = (counts > 0).sum(axis=1)
    ways = gammaln(of_class + 1).sum() + gammaln(counts + 1).sum()
    return float(ways - gammaln(counts.sum(axis=1) + 1).sum())


def _share_p(fold: Rows, codes: Rows, groups: Rows | None) -> float:
    """The chi-square test's p of classes' shares in folds; groups count as their Kish number."""
    from scipy.special import chdtrc

    counts = _table(fold, codes).astype(float)
    if groups is not None:
        sizes = np.bincount(groups)
        counts *= sizes.sum() / np.square(sizes).sum()
    rare = counts.sum(axis=1) * counts.sum(axis=0).min() / counts.sum() < FEWEST_EXPECTED
    counts = np.vstack([counts[~rare], counts[rare].sum(axis=0)[None][: int(rare.any())]])
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    freedom = (len(counts) - 1) * (counts.shape[1] - 1)
    return float(chdtrc(freedom, (np.square(counts - expected) / expected).sum())) if freedom else 1.0


def _table(fold: Rows, codes: Rows) -> Rows:
    """(classes, folds) numbers of members."""
    k = int(fold.max()) + 1
    return np.bincount(codes * k + fold, minlength=(int(codes.max()) + 1) * k).reshape(-1, k)


def deal(fold: Rows, member: NDArray[np.bool_], codes: Rows, groups: Rows | None, rng: np.random.Generator) -> Rows:
    """(n,) every row's fold: members' own, non-members dealt so that each class has the members' shares of folds."""
    everyone = np.full(len(member), -1)
    everyone[member] = fold
    units = np.arange(len(member)) if groups is None else groups
    by_unit = np.full(int(units.max()) + 1, -1)
    by_unit[units[member]] = fold
    everyone = np.where(member, everyone, by_unit[units])  # a person with records on both sides stays whole
    others = np.flatnonzero(everyone < 0)
    if not len(others):
        return everyone
    own, at = np.unique(units[others], return_inverse=True)
    weights = np.bincount(at).astype(float)
    stratum = _commonest(codes[others], at, len(own))
    shares = _table(fold, codes[member]).astype(float)
    missing = int(codes.max()) + 1 - len(shares)
    shares = np.vstack([shares, np.zeros((missing, shares.shape[1]))])
    shares[shares.sum(axis=1) == 0] = shares.sum(axis=0)  # a class without members: by the sizes of the folds
    edges = np.cumsum(shares, axis=1) / shares.sum(axis=1, keepdims=True)
    edges[:, -1] = 1
    # Each class's units in random order are laid along 0..1 from a random start, and cut at the members' shares: a unit
    # falls in a fold with exactly that probability, and a fold's count is off by less than one unit.
    order = np.lexsort((rng.random(len(own)), stratum))
    stratum, weights = stratum[order], weights[order]
    total = np.bincount(stratum, weights=weights, minlength=len(edges))
    before = np.cumsum(weights) - weights - (np.cumsum(total) - total)[stratum]
    place = (before + weights * rng.random(len(edges))[stratum]) / total[stratum]
    place = np.minimum(place, np.nextafter(1.0, 0.0))
    k = edges.shape[1]
    bounds = (edges + np.arange(len(edges))[:, None]).ravel()
    dealt = np.empty(len(own), np.int64)
    dealt[order] = np.clip(np.searchsorted(bounds, stratum + place, side="right") - stratum * k, 0, k - 1)
    everyone[others] = dealt[at]
    return everyone


def _commonest(codes: Rows, at: Rows, units: int) -> Rows:
    """(u,) the commonest class of each unit's rows."""
    width = int(codes.max()) + 1
    pairs, counts = np.unique(at * width + codes, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the last that is written is the commonest
    found = np.zeros(units, np.int64)
    found[pairs[order] // width] = pairs[order] % width
    return found
