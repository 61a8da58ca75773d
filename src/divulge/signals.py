"""Signals: one number a record, from a model's outputs and the record's label; higher = more member-like, always.

The outputs are read once, in blocks, in float32 (float64 only where they came so); the log-odds are computed first and
everything else from them and from the other classes' shares, which keeps the order of confident records. z logits,
y label, p = softmax(z), lse = log-sum-exp; nats throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.blocks import over_rows
from divulge.errors import Unavailable

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.floating[Any]]

LABELLED = ("log_odds", "loss", "margin", "modified_entropy", "correct")
UNLABELLED = ("entropy", "confidence")
NAMES = LABELLED + UNLABELLED

TINY = 1e-37  # below this a float32 has lost digits: keep float64


def signal(evidence: Evidence, name: str) -> Floats:
    """One signal of every record.

    Args:
        evidence: n records.
        name: a signal that the user gave, else one of `NAMES`:
            log_odds: z_y - lse over the other classes (Carlini et al. 2022); multi-label: summed over labels.
            loss: log p_y, minus the cross-entropy; regression: -abs(residual), or the log-density where the
                predictions are means and standard deviations.
            margin: z_y - the largest other logit.
            modified_entropy: minus that of Song and Mittal 2021, equation 7.
            correct: 1 where the prediction is right; multi-label: the share of labels that are.
            entropy: sum of p log p. confidence: the largest log p. Both need no labels.
            log_prob@T=2: log p_y where all logits are divided by 2 first, or by any number above 0.

    Returns:
        (n,) float32 or float64, higher = more member-like.

    Raises:
        Unavailable: the evidence does not hold what it needs.

    >>> from divulge.evidence import Evidence
    >>> z = np.array([[40., 0.], [0., 1.]], np.float32)
    >>> evidence = Evidence(member=np.array([True, False]), outputs=z, labels=np.array([0, 0]), kind="logits")
    >>> signal(evidence, "log_odds").tolist()
    [40.0, -1.0]
    """
    return compute(evidence, [name])[name]


def compute(evidence: Evidence, names: Iterable[str]) -> dict[str, Floats]:
    """Several signals in one pass over the outputs; arguments and errors as for `signal`.

    >>> from divulge.evidence import Evidence
    >>> z = np.array([[2., 0.], [0., 1.]], np.float32)
    >>> evidence = Evidence(member=np.array([True, False]), outputs=z, labels=np.array([0, 0]), kind="logits")
    >>> {name: round(float(x[0]), 3) for name, x in compute(evidence, ["loss", "entropy"]).items()}
    {'loss': -0.127, 'entropy': -0.365}
    """
    found: dict[str, Floats] = {}
    missing = []
    for name in dict.fromkeys(names):
        if name in evidence.signals:
            found[name] = evidence.signals[name]
        elif reason := why_unavailable(evidence, name):
            raise Unavailable(reason)
        else:
            missing.append(name)
    for temperature in dict.fromkeys(_temperature(name) for name in missing):
        at = {name: "loss" if "@" in name else name for name in missing if _temperature(name) == temperature}
        computed = _COMPUTE[evidence.task](evidence, list(dict.fromkeys(at.values())), temperature)
        found.update({name: computed[plain] for name, plain in at.items()})
    return found


def _temperature(name: str) -> float:
    """What the logits are divided by: T of "log_prob@T=2", else 1; NaN where it is no number above 0."""
    text = name.partition("@T=")[2]
    try:
        value = float(text or 1)
    except ValueError:
        return math.nan
    return value if 0 < value < math.inf else math.nan


def _is_tempered(name: str) -> bool:
    return name.startswith("log_prob@T=") and not math.isnan(_temperature(name))


_COARSE = 1e-2


def floor_of(probs: NDArray[Any]) -> float:
    """What a probability of 0 is taken for, so that it is no outlier of the logarithms.

    Half the smallest above 0, if that is at most 0.01: less than one tree of a forest's says. Half of coarser ones
    would say nothing, 1/2 of the 0 and 1 of a tree or a nearest neighbour: theirs is as far below 0.01 as the half is
    above. So models of one run that lie to either side of it read a 0 alike.

    Tried on trees, neighbours and forests (digits, breast cancer; 16 references): half alone makes a memorisation of
    .179 one of .016, and this one .178; at most 0.001 throughout would also mend that, and lose a forest of 100 trees a
    tenth of its true positives at 1 %.

    >>> floor_of(np.array([[0.0, 1.0], [0.99, 0.01]])), floor_of(np.array([[0.0, 1.0], [1.0, 0.0]]))
    (0.005, 0.0002)
    """
    half = max(float(np.min(probs, initial=1.0, where=probs > 0)) / 2, 1e-37)
    return half if half <= _COARSE else _COARSE**2 / half


def why_unavailable(evidence: Evidence, name: str) -> str | None:
    """Why this evidence does not give a signal, or None where it does.

    >>> from divulge.evidence import Evidence
    >>> why_unavailable(Evidence(member=np.array([True, False])), "loss")
    'the signal loss needs outputs (logits, probs or predictions), and none were given'
    """
    if name in evidence.signals:
        return None
    tempered = _is_tempered(name)
    if name not in NAMES and not tempered:
        known = ", ".join([*evidence.signals, *NAMES, "log_prob@T=2"])
        return f"there is no signal {name!r}; known here: {known}"
    if evidence.outputs is None:
        return f"the signal {name} needs outputs (logits, probs or predictions), and none were given"
    if (tempered or name in LABELLED) and evidence.labels is None:
        return f"the signal {name} needs labels, and none were given"
    if evidence.task == "regression" and name != "loss":
        return f"the signal {name} has no meaning for regression; use loss"
    return None


# ------------------------------------------------------------------------------------------ one label of c classes


class _Pivot(NamedTuple):
    """One class of a row against all others; (b,) each. log_odds, `shares` and `total` describe softmax fully.

    log_odds: z_pivot - lse of the others.     gap: z_pivot - the largest other.
    shares:   (c, b) exp(z_j - largest other), 0 at the pivot.      total: sum of the shares, >= 1.
    logits:   (c, b) z_j - largest other, -inf at the pivot.
    """

    log_odds: Floats
    gap: Floats
    shares: Floats
    total: Floats
    logits: Floats


def _against_others(z: Floats, pivot: NDArray[np.integer]) -> _Pivot:
    """(c, b) logits, overwritten; (b,) class numbers."""
    columns = np.arange(z.shape[1])
    own = z[pivot, columns]
    z[pivot, columns] = -np.inf
    largest = z.max(axis=0)
    z -= largest
    shares = np.exp(z)
    total = _over_classes(shares)
    gap = own - largest
    return _Pivot(gap - np.log(total), gap, shares, total, z)


def _over_classes(x: Floats) -> Floats:
    """(b,) sums of (c, b), class after class: numpy adds up a lone column in another order, and bits would differ."""
    x = np.ascontiguousarray(x)
    return np.asarray(x.sum(axis=0) if x.shape[1] > 1 else np.repeat(x, 2, axis=1).sum(axis=0)[:1])


def _log_sigmoid(x: Floats) -> Floats:
    """log(1 / (1 + exp(-x))), exact at both ends."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def _modified_entropy(pivot: _Pivot, log_p: Floats) -> Floats:
    """(b,) (1 - p_y) log p_y + sum over j != y of p_j log(1 - p_j), of `_loss`, log p_y."""
    log_odds = pivot.log_odds.astype(np.float64)
    decay = np.exp(-np.abs(log_odds))
    rest = np.where(log_odds > 0, decay, 1) / (1 + decay)  # 1 - p_y
    scale = rest / pivot.total  # p_j = scale * share_j
    shares = pivot.shares
    with np.errstate(divide="ignore"):  # p_j = 1 in float32: one of the few rows that are mended below
        terms = np.log1p(-shares * scale.astype(shares.dtype))
    terms *= shares
    others = scale * _over_classes(terms)
    # Below this the products underflow in float32; there log(1 - p) = -p, to float32's precision.
    small = np.flatnonzero(scale < 1e-7)
    if small.size:
        others[small] = -np.square(scale[small]) * _over_classes(np.square(shares[:, small], dtype=np.float64))
    large = np.flatnonzero(scale > 0.5)
    if large.size:
        sure = (pivot.logits[:, large], pivot.total[large], log_odds[large])
        others[large] = _others_of_sure_errors(*sure)
    return _in_order(np.asarray(rest * log_p + others), log_odds, 340.0)


def _others_of_sure_errors(logits: Floats, total: Floats, log_odds: Floats) -> Floats:
    """As in `_modified_entropy`, where a wrong class holds over half: 1 - p_j is the sum of all others there.

    In logarithms, since that sum may be as small as e to the minus ten thousand.
    """
    logits = logits.astype(np.float64)
    log_scale = _log_sigmoid(-log_odds) - np.log(total)  # log p_j = log_scale + logits_j; the top's logit is 0
    top, columns = logits.argmax(axis=0), np.arange(logits.shape[1])
    logits[top, columns] = -np.inf
    second = np.maximum(logits.max(axis=0), -1e9)
    log_others = second + np.log(np.maximum(_over_classes(np.exp(logits - second)), np.finfo(np.float64).tiny))
    log_complement = np.logaddexp(_log_sigmoid(log_odds), log_scale + log_others)
    p = np.exp(logits + log_scale)
    return np.asarray(_over_classes(p * np.log1p(-p)) + np.exp(log_scale) * log_complement)


def _entropy(pivot: _Pivot) -> Floats:
    """(b,) sum of p log p, from the most likely class and the others' shares."""
    log_odds = pivot.log_odds.astype(np.float64)
    log_top, log_rest = _log_sigmoid(log_odds), _log_sigmoid(-log_odds)
    weighted = _over_classes(pivot.shares * np.where(pivot.shares > 0, pivot.logits, 0))
    scale = np.exp(log_rest) / pivot.total
    others = scale * weighted + np.exp(log_rest) * (log_rest - np.log(pivot.total))
    return np.asarray(np.exp(log_top) * log_top + others)


def _dtype(outputs: NDArray[Any]) -> np.dtype[Any]:
    """float64 stays, all else is worked on as float32."""
    return np.dtype(np.float64 if outputs.dtype == np.float64 else np.float32)


def _working(outputs: NDArray[Any], rows: slice, kind: str | None, temperature: float) -> Floats:
    """A (c, b) working copy of a block of logits; probabilities as their logs, 0 as the smallest float."""
    dtype = _dtype(outputs)
    block = np.asarray(outputs[rows].T, dtype=dtype, order="C", copy=True)
    if kind == "probs":
        np.maximum(block, np.finfo(dtype).tiny, out=block)
        np.log(block, out=block)
    if temperature != 1:
        block /= dtype.type(temperature)
    return block


def _multiclass(evidence: Evidence, names: list[str], temperature: float) -> dict[str, Floats]:
    outputs, labels = evidence.outputs, evidence.labels
    assert outputs is not None
    n, c = outputs.shape
    dtype = _dtype(outputs)
    wide = {"modified_entropy", "entropy", "loss", "confidence"}
    out: dict[str, Floats] = {name: np.empty(n, np.float64 if name in wide else dtype) for name in names}

    def block(rows: slice) -> None:
        z = _working(outputs, rows, evidence.kind, temperature)
        if not out.keys().isdisjoint(UNLABELLED):
            top = _against_others(z.copy(), z.argmax(axis=0))
            if "confidence" in out:
                out["confidence"][rows] = _loss(top.log_odds)
            if "entropy" in out:
                out["entropy"][rows] = _entropy(top)
        if out.keys().isdisjoint(LABELLED):
            return
        assert labels is not None
        y = labels[rows]
        pivot = _against_others(z, y)
        if "log_odds" in out:
            out["log_odds"][rows] = pivot.log_odds
        loss = _loss(pivot.log_odds) if not out.keys().isdisjoint({"loss", "modified_entropy"}) else None
        if "loss" in out:
            out["loss"][rows] = loss
        if "margin" in out:
            out["margin"][rows] = pivot.gap
        if "correct" in out:
            out["correct"][rows] = pivot.gap > 0
            tied = rows.start + np.flatnonzero(pivot.gap == 0)  # a prediction is the first of the largest
            out["correct"][tied] = outputs[tied].argmax(axis=1) == labels[tied]
        if loss is not None and "modified_entropy" in out:
            out["modified_entropy"][rows] = _modified_entropy(pivot, loss)

    over_rows(block, n, c * dtype.itemsize)
    for name in wide & out.keys():
        out[name] = _narrow(out[name], dtype)
    return out


def _loss(log_odds: Floats) -> Floats:
    """float64 log p_y of log-odds: float32 would tie the most confident records at 0."""
    log_odds = log_odds.astype(np.float64)
    return _in_order(_log_sigmoid(log_odds), log_odds, 700.0)


def _in_order(values: Floats, log_odds: Floats, limit: float) -> Floats:
    """Values that fade like exp(-log_odds), kept apart beyond the limit where even float64 would make them all 0.

    Off by less than 1e-290 there, and in the order of the log-odds.
    """
    far = log_odds > limit
    if not far.any():
        return values
    floor = float(np.exp(-(700.0 if limit == 700.0 else 2 * limit)))
    return np.where(far, -floor / (1 + np.maximum(log_odds - limit, 0)), values)


def _narrow(values: Floats, dtype: np.dtype[Any]) -> Floats:
    """As float32, unless the data came as float64 or the smallest numbers would not survive."""
    if dtype == np.float64:
        return values
    smallest = np.min(np.abs(values), initial=np.inf, where=values != 0)
    return values if smallest < TINY else values.astype(np.float32)


# ---------------------------------------------------------------------------------- yes or no, one label or many


def _yes_no(evidence: Evidence, names: list[str], temperature: float) -> dict[str, Floats]:
    """Binary, (n,) outputs, or multi-label, (n, c): each label's log-odds phi = (2y - 1) z, its signals summed."""
    outputs, labels = evidence.outputs, evidence.labels
    assert outputs is not None
    n = len(outputs)
    dtype = _dtype(outputs)
    wide = {"loss", "modified_entropy", "entropy", "confidence"}
    out: dict[str, Floats] = {name: np.empty(n, np.float64 if name in wide else dtype) for name in names}

    def block(rows: slice) -> None:
        z = outputs[rows].astype(dtype).reshape(rows.stop - rows.start, -1)
        if evidence.kind == "probs":
            tiny = np.finfo(dtype).tiny
            z = np.log(np.maximum(z, tiny)) - np.log(np.maximum(1 - z, tiny))
        if temperature != 1:
            z /= dtype.type(temperature)
        phi = z if labels is None else np.where(labels[rows].reshape(z.shape), z, -z)
        for name, values in out.items():
            values[rows] = _OF_PHI[name](phi)
        if "correct" in out and labels is not None:
            right = (z > 0) == labels[rows].reshape(z.shape).astype(bool)
            out["correct"][rows] = right.mean(axis=1)

    over_rows(block, n, outputs[:1].nbytes * 4)
    return {name: _narrow(x, dtype) if name in wide else x for name, x in out.items()}


def _surprise(phi: Floats) -> Floats:
    """(1 - p) log p of the label's probability p = sigmoid(phi)."""
    wide = phi.astype(np.float64)
    return np.exp(_log_sigmoid(-wide)) * _log_sigmoid(wide)


def _p_log_p(phi: Floats) -> Floats:
    log_p = _log_sigmoid(phi.astype(np.float64))
    return np.exp(log_p) * log_p


_OF_PHI: dict[str, Callable[[Floats], Floats]] = {
    "log_odds": lambda phi: phi.sum(axis=1),
    "margin": lambda phi: phi.sum(axis=1),  # with one label, z_y minus the other's logit, 0
    "loss": lambda phi: _loss(phi.astype(np.float64)).sum(axis=1),
    "modified_entropy": lambda phi: 2 * _surprise(phi).sum(axis=1),
    "entropy": lambda phi: (_p_log_p(phi) + _p_log_p(-phi)).sum(axis=1),
    "confidence": lambda phi: _log_sigmoid(np.abs(phi.astype(np.float64))).sum(axis=1),
    "correct": lambda phi: (phi > 0).mean(axis=1),
}


# ------------------------------------------------------------------------------------------------- regression


def _regression(evidence: Evidence, names: list[str], temperature: float) -> dict[str, Floats]:
    outputs, labels = evidence.outputs, evidence.labels
    assert outputs is not None and labels is not None
    dtype = np.result_type(outputs.dtype, labels.dtype, np.float32)
    if outputs.ndim == 1:
        return {"loss": -np.abs(outputs.astype(dtype) - labels.astype(dtype))}
    mean, deviation = outputs[:, 0].astype(dtype), outputs[:, 1].astype(dtype)
    standard = (labels.astype(dtype) - mean) / deviation
    return {"loss": -0.5 * np.square(standard) - np.log(deviation) - 0.5 * np.log(2 * np.pi).astype(dtype)}


def _unlabelled(evidence: Evidence, names: list[str], temperature: float) -> dict[str, Floats]:
    assert evidence.outputs is not None
    return (_multiclass if evidence.outputs.ndim == 2 else _yes_no)(evidence, names, temperature)


_COMPUTE: dict[str, Callable[[Evidence, list[str], float], dict[str, Floats]]] = {
    "multiclass": _multiclass,
    "binary": _yes_no,
    "multilabel": _yes_no,
    "regression": _regression,
    "unlabelled": _unlabelled,
}
