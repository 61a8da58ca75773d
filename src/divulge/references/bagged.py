"""What a forest's trees say of a record that they did not draw, and of one that they did."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.doors.arrays import to_array
from divulge.errors import InputError
from divulge.evidence import References
from divulge.model_outputs import SIGNALS, signals_of
from divulge.references.free import BLOCK, check_fitted, codes_of, names_of, references_of, rows_of

logger = logging.getLogger("divulge")

FEWEST_TREES = 10
"""Of ten trees a record is drawn by all with a probability of 1 %, of five with one of 10 %."""

Floats = NDArray[np.floating[Any]]


def references_from_bagging(
    forest: Any,
    data: tuple[Any, Any],
    *,
    member: ArrayLike,
    signal: str | Sequence[str] = SIGNALS,
    seed: int = 0,
) -> References:
    """What a bagged model says of each record by the trees that did not draw it, and by those that did.

    A diagnostic of memorisation, not an attack: which tree drew which record is a list that names the members, so
    attacks refuse it. Each non-member borrows the trees of a random member, so that members and non-members are spoken
    of by as many trees, dealt alike. A probability is the mean over trees with 0.5 / B added to every class, divided
    such that a row sums to 1 again: the same floor for few trees as for many.

    Args:
        forest: fitted on exactly the members, in the order of the rows: RandomForest…, ExtraTrees… or Bagging… of
            scikit-learn, with bootstrap=True and at least ten trees.
        data: (x, y) of all n rows; x as an array.
        member: (n,) bool.
        signal: names as of `divulge.signals.signal`; of a regression the default is "loss".
        seed: deals the members' trees to the non-members.

    Returns:
        `References` of (2, n, 1) signals, source "bagging". Model 0: trees that did not draw the record. Model 1: the
        others, trained on it if it is a member; no tree was trained on a non-member. target: all trees, by the same
        formula. NaN where a member was drawn by all trees, or by none, and where a non-member borrows from such a one.

    Raises:
        InputError: DV410, another model, not fitted, not on these members in this order, without bootstrap, or with
            few trees.

    >>> from sklearn.ensemble import RandomForestClassifier
    >>> x, y = np.random.default_rng(0).random((60, 4)), np.arange(60) % 2
    >>> forest = RandomForestClassifier(50, random_state=0).fit(x[:40], y[:40])
    >>> told = references_from_bagging(forest, (x, y), member=np.arange(60) < 40).signals["log_odds"][..., 0]
    >>> [bool(mean > 4) for mean in told[:, :40].mean(axis=1)], round(float(told[1, :40].min()), 2)
    ([False, True], 4.62)
    """
    x, y, member = rows_of(data, member)
    matrix = x if hasattr(x, "tocsr") else np.asarray(x)
    drawn = _drawn(forest, int(member.sum()))
    classes = getattr(forest, "classes_", None)
    names = names_of(signal, "predictions" if classes is None else "probs")
    if classes is not None:
        y = codes_of(y, to_array(classes, "classes", set()))
    _check_order(forest, y[member], classes)
    lender = np.empty(len(member), np.int64)
    lender[member] = np.arange(drawn.shape[1])
    shuffled = np.random.default_rng(seed).permutation(drawn.shape[1])
    lender[~member] = np.resize(shuffled, int((~member).sum()))  # each member's trees about as often
    told = np.empty((3, len(names), len(member)), np.float32)
    for start in range(0, len(member), BLOCK):
        rows = slice(start, start + BLOCK)
        means = _by_trees(forest, matrix[rows], ~drawn[:, lender[rows]], classes)
        told[:, :, rows] = [_smoothed_signals(mean, y[rows], names, len(drawn), classes) for mean in means]
    unsaid = np.isnan(told[:2, 0, member]).any(axis=0)
    if unsaid.any():
        logger.warning(
            f"{int(unsaid.sum()):,} of {int(member.sum()):,} members were drawn by all {len(drawn)} trees or by none: "
            "they and the non-members that borrow from them are NaN. Grow more trees"
        )
    trained_on = np.stack([np.zeros(len(member), bool), member])
    target = {name: told[2, i][:, None] for i, name in enumerate(names)}
    return references_of(told[:2].transpose(1, 0, 2)[..., None], names, trained_on, "bagging", target)


def _drawn(forest: Any, m: int) -> NDArray[np.bool_]:
    """(B, m) which tree was fitted on which member."""
    name = type(forest).__name__
    if not hasattr(type(forest), "estimators_samples_"):
        raise InputError(
            "DV410",
            f"expected a fitted RandomForest, ExtraTrees or Bagging estimator of scikit-learn, got {name}, which does "
            "not say what each tree saw. The samples of boosted trees' rounds do not help: later rounds build on all",
        )
    if not getattr(forest, "bootstrap", False):
        raise InputError(
            "DV410", f"{name} was fitted with bootstrap=False, so that no tree left a record out at random"
        )
    check_fitted(forest, "the forest")
    if isinstance(getattr(forest, "classes_", None), list):
        raise InputError("DV410", f"{name} has {len(forest.classes_)} outputs, expected one. Fit one forest an output")
    samples = forest.estimators_samples_
    if len(samples) < FEWEST_TREES:
        raise InputError(
            "DV410", f"{name} has {len(samples)} trees, expected at least {FEWEST_TREES}: too few leave a record out"
        )
    fitted_on = int(getattr(forest, "_n_samples", max(int(np.max(sample)) for sample in samples) + 1))
    if fitted_on != m:
        raise InputError(
            "DV410",
            f"{name} was fitted on {fitted_on:,} records and {m:,} are members; expected exactly the members, in the "
            "order of the rows",
        )
    drawn = np.zeros((len(samples), m), bool)
    for tree, sample in enumerate(samples):
        drawn[tree, sample] = True
    return drawn


def _check_order(forest: Any, y: NDArray[Any], classes: NDArray[Any] | None) -> None:
    """Refuse members in another order than they were fitted in: then a tree's root counts other labels.

    Args:
        forest: fitted.
        y: (m,) the members' numbers of classes, or values of a regression.
        classes: the forest's.
    """
    trees = zip(forest.estimators_, forest.estimators_samples_, strict=True)
    for number, (tree, sample) in enumerate(trees):
        root = getattr(tree, "tree_", None)
        weighted = any(getattr(one, "class_weight", None) is not None for one in (forest, tree))
        if root is None or weighted or not np.isclose(root.weighted_n_node_samples[0], len(sample)):
            return  # no tree, or weights of which only the fit knew
        told = root.value[0, 0]
        if classes is None:
            if tree.criterion == "absolute_error":  # medians
                return
            same = np.isclose(told[0], y[sample].mean(), rtol=1e-4, atol=1e-4 * y.std())
        else:
            counts = np.bincount(y[sample], minlength=len(classes))[np.asarray(tree.classes_).astype(np.int64)]
            same = np.allclose(told / told.sum(), counts / len(sample))
        if not same:
            raise InputError(
                "DV410",
                f"tree {number} of {type(forest).__name__} was fitted on other labels than the members have that it "
                "drew; expected members in the order in which the forest was fitted on them, x[member] and y[member]",
            )


def _by_trees(
    forest: Any, x: Any, left_out: NDArray[np.bool_], classes: NDArray[Any] | None
) -> tuple[Floats, Floats, Floats]:
    """Means over the trees that left a row out, over the others, and over all: (k, c), or (k,) of a regression."""
    features = getattr(forest, "estimators_features_", None)
    shape = (left_out.shape[1],) if classes is None else (left_out.shape[1], len(classes))
    out, whole = np.zeros(shape), np.zeros(shape)
    for number, tree in enumerate(forest.estimators_):  # one call a tree, each over all rows
        said = _tree(tree, x if features is None else x[:, features[number]], shape)
        whole += said
        out += (said.T * left_out[number]).T
    n_out = left_out.sum(axis=0)
    counts = [n_out, len(left_out) - n_out, np.full(len(n_out), len(left_out))]
    with np.errstate(invalid="ignore"):  # no such tree: NaN
        means = [(total.T / number).T for total, number in zip((out, whole - out, whole), counts, strict=True)]
    return means[0], means[1], means[2]


def _tree(tree: Any, x: Any, shape: tuple[int, ...]) -> Floats:
    """One tree's (k, c) probabilities, or votes if it has none; (k,) predictions of a regression.

    Trees are fitted to the numbers of classes; one that drew not all classes has fewer columns.
    """
    if len(shape) == 1:
        return np.asarray(tree.predict(x), float)
    said = np.zeros(shape)
    if hasattr(tree, "predict_proba"):
        said[:, np.asarray(tree.classes_).astype(np.int64)] = tree.predict_proba(x)
    else:
        said[np.arange(shape[0]), np.asarray(tree.predict(x)).astype(np.int64)] = 1
    return said


def _smoothed_signals(
    mean: Floats, y: NDArray[Any], names: Sequence[str], trees: int, classes: NDArray[Any] | None
) -> NDArray[np.float32]:
    """(s, k) signals of a mean over trees; NaN where there is none."""
    unsaid = np.isnan(mean.reshape(len(mean), -1)).any(axis=1)
    if classes is None:
        told = signals_of(np.where(unsaid, 0.0, mean), y, names, "predictions")
    else:
        probs = (mean + 0.5 / trees) / (1 + 0.5 * len(classes) / trees)
        probs[unsaid] = 1 / len(classes)
        told = signals_of(probs, y, names, "probs")
    told[:, unsaid] = np.nan
    return told
