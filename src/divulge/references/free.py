"""References that cost no training: models that exist already, of a cross-validation, a forest, a starting point.

All of them say what a model that did not see a record makes of it. None of them is as good as models trained for the
purpose; what each can and cannot show stands with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.adapters import adapter_of
from divulge.adapters.records import count, origins, take
from divulge.doors.arrays import distinct, is_text, to_array
from divulge.errors import InputError
from divulge.evidence import References, Source
from divulge.model_outputs import SIGNALS, coded, kind_of, signals_of
from divulge.references.left_out import Rows, check_shuffled, deal, repetitions

BLOCK = 16_384
"""Records that a model is asked about at once."""


# --------------------------------------------------------------------------------------------- cross-validation


def references_from_cv(
    estimators: Sequence[Any],
    data: tuple[Any, Any],
    folds: Any,
    *,
    member: ArrayLike,
    groups: ArrayLike | None = None,
    signal: str | Sequence[str] = SIGNALS,
    shuffled: bool = False,
    seed: int = 0,
) -> References:
    """References from the models of a cross-validation of the members: what the fold that left a record out says of it.

    Each non-member is dealt to one fold, with the shares of its class and the sizes that the members' folds have and
    groups whole, so that without a leak members and non-members are asked about alike. Never the mean over folds for
    non-members: it is steadier than one model, which alone would tell them apart. The attacker is assumed to know every
    other training record, and rows share fits, so that intervals are widened.

    Args:
        estimators: the K fitted models (`cross_validate(…, return_estimator=True)["estimator"]`), of scikit-learn or
            another framework that `divulge.collect` knows, or functions from inputs to outputs. Several repetitions:
            a list of such lists, or all in one list in the order of the pairs of `folds`.
        data: (x, y) of all n rows, members and non-members.
        folds: for each of the m members, in their order among the rows, the number 0..K-1 of the model that was not
            trained on it, (m,) int; or the splitter's (train, test) pairs of indices over the members, also as
            `cross_validate(…, return_indices=True)["indices"]`. Several repetitions: a list of those.
        member: (n,) bool.
        groups: (n,) persons or households: whole in one fold.
        signal: names as of `divulge.signals.signal`; of a regression the default is "loss".
        shuffled: that the members stood in random order before they were folded (`train_test_split` shuffles them):
            then folds of consecutive records are as good as shuffled ones.
        seed: deals the non-members.

    Returns:
        `References` of (repetitions, n, 1) signals, nothing trained on, source "cv".

    Raises:
        InputError: DV410, folds that are not shuffled, do not hold each member once, split a group, or are as many as
            the models; a model that is not fitted. DV003, DV004, shapes; DV021, a label that no model knows; else as
            `divulge.collect`.

    Source: the one rule for every calibrated score (fit on the others, score a fold by one fit), applied to models that
    exist.

    >>> x, y = np.arange(12.0)[:, None], np.arange(12) % 2
    >>> models = [lambda x: np.sin(x[:, 0]), lambda x: np.cos(x[:, 0])]
    >>> member, folds = np.arange(12) < 8, [0, 1, 1, 0, 1, 0, 0, 1]
    >>> references = references_from_cv(models, (x, y), folds, member=member)
    >>> references.signals["log_odds"].shape, round(float(references.signals["log_odds"][0, 1, 0]), 3)
    ((1, 12, 1), 0.54)
    """
    x, y, member = rows_of(data, member)
    households = None if groups is None else distinct(_column(groups, "groups", len(member)))[1]
    codes = _strata(y)
    rng = np.random.default_rng(seed)
    told, names = [], list[str]()
    for models, fold in repetitions(estimators, folds, int(member.sum())):
        check_shuffled(fold, codes[member], None if households is None else households[member], shuffled=shuffled)
        scored = _scored(models, x, y, deal(fold, member, codes, households, rng))
        names = names_of(signal, scored[0].kind)
        told.append(_told(scored, y, names))
    stacked = np.stack(told, axis=1)  # (s, repetitions, n)
    return references_of(stacked[..., None], names, np.zeros((len(told), len(member)), bool), "cv")


class _Fold(NamedTuple):
    """What the model of one fold says of its rows: (k, c) or (k,), and which classes its columns are, if it knows."""

    rows: Rows
    outputs: NDArray[Any]
    kind: str
    classes: NDArray[Any] | None


def _scored(models: Sequence[Any], x: Any, y: NDArray[Any], fold: Rows) -> list[_Fold]:
    """Each model's outputs on the rows of its fold, and on no other."""
    scored = []
    for number, model in enumerate(models):
        check_fitted(model, f"model {number}")
        rows = np.flatnonzero(fold == number)
        blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
        with adapter_of(model).predictor(model, take(x, blocks[0])) as predictor:
            outputs = [_outputs(predictor.predict(take(x, block)), len(block), number) for block in blocks]
            apart = predictor.apart()
        classes = None if predictor.classes is None else np.asarray(predictor.classes)
        # What is not of scikit-learn may end in a softmax after all: its values tell.
        kind: str = predictor.kind if predictor.kind != "logits" or classes is not None else ""
        values = np.concatenate(outputs)
        if apart and y.ndim == 1 and values.ndim == 2:
            values, kind = _normalised(values), "probs"
        scored.append(_Fold(rows, values, kind, classes))
    open_ones = [one for one in scored if not one.kind]
    if not open_ones:
        return scored
    if len({one.outputs.shape[1:] for one in open_ones}) > 1:
        raise InputError("DV003", "the models of the folds gave outputs of different widths; expected a column a class")
    rows = np.concatenate([one.rows for one in open_ones])
    kind = kind_of(np.concatenate([one.outputs for one in open_ones]), y[rows])
    return [one if one.kind else one._replace(kind=kind) for one in scored]


def check_fitted(model: Any, name: str) -> None:
    """Refuse an estimator of scikit-learn that was not fitted, by name."""
    if ("sklearn", "BaseEstimator") not in origins(model):
        return
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise InputError(
            "DV410",
            f"{name}, a {type(model).__name__}, is not fitted; expected the models that were. cross_validate gives "
            "them with return_estimator=True",
        ) from error


def _outputs(given: Any, n: int, number: int) -> NDArray[Any]:
    outputs = to_array(given, "outputs", set())
    if len(outputs) != n or outputs.ndim > 2 or outputs.dtype.kind not in "fiu":
        raise InputError(
            "DV003",
            f"model {number} gave {outputs.dtype} of shape {outputs.shape} for {n:,} records; expected (n, c) or (n,) "
            "numbers",
        )
    return outputs[:, 0] if outputs.shape[1:] == (1,) else outputs


def _told(scored: Sequence[_Fold], y: NDArray[Any], names: Sequence[str]) -> NDArray[np.float32]:
    """(s, n) signals, each row's from its fold's model."""
    known = [one.classes for one in scored if one.classes is not None]
    every = distinct(np.concatenate([to_array(list(own), "classes", set()) for own in known]))[0] if known else None
    if every is not None and y.ndim == 1:
        labels = codes_of(y, every)
    else:  # all rows at once: a fold may lack a class
        labels = y if scored[0].kind == "predictions" else coded(y, scored[0].outputs)
    told = np.empty((len(names), len(y)), np.float32)
    for one in scored:
        outputs, kind = one.outputs, one.kind
        if one.classes is not None and every is not None and y.ndim == 1 and len(one.classes) < len(every):
            outputs, kind = _widened(outputs, kind, one.classes, every), "probs"
        told[:, one.rows] = signals_of(outputs, labels[one.rows], names, kind)
    return told


def codes_of(labels: NDArray[Any], classes: NDArray[Any]) -> Rows:
    """The number of each label in the models' classes."""
    if is_text(labels) == is_text(classes):
        at = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
        if (classes[at] == labels).all():
            return at.astype(np.int64)
    strange = labels[:1] if is_text(labels) != is_text(classes) else labels[classes[at] != labels][:1]
    raise InputError(
        "DV021",
        f"label {strange.tolist()[0]!r:.80} is none of the models' classes ({classes[:5].tolist()!r:.120} …); expected "
        "labels as the models were fitted with",
    )


def _widened(outputs: NDArray[Any], kind: str, own: NDArray[Any], every: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of every class: 0 of one that the model never saw."""
    probs = outputs.astype(np.float64)
    if probs.ndim == 1 and len(own) == 1:
        probs = np.ones((len(probs), 1))
    elif probs.ndim == 1:
        p = np.exp(-np.logaddexp(0, -probs)) if kind == "logits" else probs
        probs = np.stack([1 - p, p], axis=1)
    elif kind == "logits":
        probs = np.exp(probs - probs.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
    wide = np.zeros((len(probs), len(every)))
    wide[:, np.searchsorted(every, own)] = probs
    return wide


def _normalised(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Sigmoids of each column, such that each row sums to 1, as one-versus-rest classifiers make them."""
    log_p = -np.logaddexp(0, -logits.astype(np.float64))
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


# --------------------------------------------------------------------------------- models that are there already


def references_from_base(
    outputs: ArrayLike, labels: ArrayLike, *, kind: str | None = None, signal: str | Sequence[str] = SIGNALS
) -> References:
    """What the checkpoint that fine-tuning started from says of each record: one model that saw none of them.

    Sound where the checkpoint had seen none of the records, members and non-members alike: not a checkpoint from the
    middle of the same training.

    Args:
        outputs: (n, c) or, of two classes, (n,) logits or probabilities; (n,) predictions of a regression.
        labels: (n,) or, several a record, (n, c).
        kind: "logits", "probs" or "predictions"; None: by their values.
        signal: names as of `divulge.signals.signal`; of a regression the default is "loss".

    Returns:
        `References` of (1, n, 1) signals, nothing trained on, source "base".

    Raises:
        InputError: as `divulge.model_outputs.signals_of`.

    >>> references_from_base([[0.0, 0.0], [2.0, 0.0]], [1, 1]).signals["log_odds"][0, :, 0].tolist()
    [0.0, -2.0]
    """
    array, y = to_array(outputs, "outputs", set()), to_array(labels, "labels", set())
    nothing = np.zeros((1, len(y)), bool)
    signals, names, _ = _of_models([array], nothing, y, kind, signal)
    return references_of(signals, names, nothing, "base")


def references_from_outputs(
    outputs: Iterable[ArrayLike],
    trained_on: ArrayLike,
    labels: ArrayLike,
    *,
    kind: str | None = None,
    signal: str | Sequence[str] = SIGNALS,
    target: ArrayLike | None = None,
) -> References:
    """References from the outputs of models that are there already, read one model at a time.

    Args:
        outputs: of each of r models, (n, c), (n,) or, of q queries a record, (n, q, c): one array, a memory-mapped one,
            or anything that gives one model after the other. Of two classes or a regression with queries: (n, q, 1).
        trained_on: (r, n) bool, whether model r was trained on row n.
        labels: (n,) or, several a record, (n, c).
        kind: "logits", "probs" or "predictions"; None: by their values.
        signal: names as of `divulge.signals.signal`; of a regression the default is "loss".
        target: the target model's own outputs, shaped as one model's; needed for several queries.

    Returns:
        `References` of (r, n, q) signals, source "outputs".

    Raises:
        InputError: DV003, DV004, shapes; DV056, models of which some look like logits and some like probabilities; else
            as `divulge.model_outputs.signals_of`.

    >>> outputs = np.array([[[0.0, 1.0], [3.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])
    >>> references = references_from_outputs(outputs, [[True, False], [False, True]], [1, 0])
    >>> references.signals["log_odds"][..., 0].tolist()
    [[1.0, 3.0], [2.0, 1.0]]
    """
    y, trained = to_array(labels, "labels", set()), to_array(trained_on, "trained_on", set())
    if trained.dtype.kind in "iu" and np.isin(trained, (0, 1)).all():
        trained = trained.astype(bool)
    if trained.dtype != np.bool_ or trained.ndim != 2:
        raise InputError(
            "DV003", f"trained_on is {trained.dtype} of shape {trained.shape}, expected (models, records) of bools"
        )
    if trained.shape[1] != len(y):
        raise InputError("DV004", f"trained_on has {trained.shape[1]:,} records and labels {len(y):,}")
    signals, names, kind = _of_models(outputs, trained, y, kind, signal)
    own = None
    if target is not None:
        of_target, _, _ = _of_models([target], trained[:1], y, kind, names)
        if of_target.shape[3] != signals.shape[3]:
            raise InputError(
                "DV003", f"the target has {of_target.shape[3]} queries a record, the models {signals.shape[3]}"
            )
        own = {name: of_target[i, 0] for i, name in enumerate(names)}
    elif signals.shape[3] > 1:
        raise InputError(
            "DV003",
            f"the models have {signals.shape[3]} queries a record, and nothing says what the target answers; expected "
            "target=, its outputs of the same shape as one model's",
        )
    return references_of(signals, names, trained, "outputs", own)


def _of_models(
    outputs: Iterable[ArrayLike],
    trained_on: NDArray[np.bool_],
    y: NDArray[Any],
    kind: str | None,
    signal: str | Sequence[str],
) -> tuple[NDArray[np.float32], list[str], str]:
    """(s, r, n, q) signals, their names, and the outputs' kind."""
    told, names, found, shape = list[NDArray[np.float32]](), list[str](), kind, tuple[int, ...]()
    for number, given in enumerate(outputs):
        model = to_array(given, f"outputs of model {number}", set())
        if number == 0:
            shape = model.shape
        if model.shape != shape or model.ndim not in (1, 2, 3) or len(model) != len(y):
            raise InputError(
                "DV003",
                f"model {number} has outputs of shape {model.shape} for {len(y):,} labels"
                f"{f' and model 0 of {shape}' if number else ''}; expected (n, c), (n,) or (n, queries, c)",
            )
        queries = model if model.ndim == 3 else model[:, None]
        if queries.ndim == 2:
            queries = queries[..., None]
        flat = queries.reshape(-1, queries.shape[2])
        own = kind_of(flat[:, 0] if flat.shape[1] == 1 else flat, np.repeat(y, queries.shape[1], axis=0))
        found = found or own
        if kind is None and own != found:
            raise InputError(
                "DV056",
                f"outputs of model {number} look like {own}, those of model 0 like {found}; expected one kind. Say "
                "which: kind='logits', 'probs' or 'predictions'",
            )
        names = names_of(signal, found)
        told.append(np.stack([signals_of(queries[:, q], y, names, found) for q in range(queries.shape[1])], axis=-1))
    if len(told) != len(trained_on):
        raise InputError("DV004", f"outputs of {len(told)} models, trained_on has {len(trained_on)}; expected as many")
    if found is None:
        raise InputError("DV003", "outputs hold no model; expected one or more")
    return np.stack(told, axis=1), names, found


# --------------------------------------------------------------------------------------------------- what all need


def rows_of(data: Any, member: ArrayLike) -> tuple[Any, NDArray[Any], NDArray[np.bool_]]:
    """Inputs, labels, and who is a member."""
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InputError("DV003", f"data is a {type(data).__name__}, expected (x, y) of members and non-members")
    x, y = data[0], to_array(data[1], "labels", set())
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    who = _column(member, "member", len(y))
    if who.dtype.kind in "iu" and np.isin(who, (0, 1)).all():
        who = who.astype(bool)
    if who.dtype != np.bool_:
        raise InputError("DV003", f"member is {who.dtype}, expected ({len(y)},) bools")
    if count(x) != len(y):
        raise InputError("DV004", f"data has {count(x):,} inputs and {len(y):,} labels; expected one label a record")
    if not who.any():
        raise InputError(
            "DV005", "there are no members: expected the records that the models were trained on among them"
        )
    return x, y, who


def _column(given: ArrayLike, name: str, n: int) -> NDArray[Any]:
    array = to_array(given, name, set())
    if array.shape != (n,):
        raise InputError("DV004", f"{name} has shape {array.shape}, expected ({n},), one a record")
    return array


def _strata(y: NDArray[Any]) -> Rows:
    """(n,) number of each row's class; 0 for all of a regression or of several labels a record."""
    if y.ndim == 1 and (y.dtype.kind != "f" or bool((y == np.rint(y)).all())):
        return distinct(y)[1]
    return np.zeros(len(y), np.int64)


def names_of(signal: str | Sequence[str], kind: str) -> list[str]:
    """The signals to compute: those asked for, "loss" where the default ones are and the model is a regression."""
    if isinstance(signal, str):
        return [signal]
    names = list(signal)
    return ["loss"] if kind == "predictions" and names == list(SIGNALS) else names


def references_of(
    signals: NDArray[np.float32],
    names: Sequence[str],
    trained_on: NDArray[np.bool_],
    source: Source,
    target: Mapping[str, NDArray[np.float32]] | None = None,
) -> References:
    """`References` of (s, r, n, q) signals."""
    own = {name: np.ascontiguousarray(signals[i]) for i, name in enumerate(names)}
    return References(signals=own, target=target, trained_on=trained_on, source=source)
