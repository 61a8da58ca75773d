"""Canaries: records made to be remembered, put into training by a fair coin, to see the worst that a model gives away.

An audit of all records shows what an average person risks; mislabelled, repeated and outlandish records show what the
few do that a model learns by heart. The coin flips are kept, so they also carry a lower bound on the privacy loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.adapters import collect
from divulge.adapters.records import count as count_of
from divulge.adapters.records import take
from divulge.doors.arrays import distinct, to_array
from divulge.empirical_epsilon import epsilon_one_run
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.model_outputs import kind_of
from divulge.references.digests import UNREAD, data_digest

KINDS = ("mislabelled", "duplicated", "out_of_distribution")

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Canaries:
    """k canaries of a data set, and the coins that say which of them go into training.

    Attributes:
        x: (k, …) inputs, of the same make as the data's: an array, a table, or a list.
        y: (k,) labels, or (k, c) one-hot ones.
        kind: (k,) text: mislabelled, duplicated, out_of_distribution.
        included: (k,) bool, the coin: whether the canary goes into training.
        copies: (k,) int, how many times it does.
        rows_left: (m,) int, rising: the rows of the data that stay in training. The records that canaries were made
            from leave it, or a canary would stand beside its right label.
        rows: how many rows the data had.
        made_from: the digest of the data.
        seed: shuffles the training data.

    >>> x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    >>> canaries = plant_canaries(x, y, count=3, kinds=["mislabelled"])
    >>> len(canaries), len(canaries.rows_left), len(canaries.training(x, y)[1]) - int(canaries.included.sum())
    (3, 17, 17)
    """

    x: Any
    y: NDArray[Any]
    kind: NDArray[Any]
    included: NDArray[np.bool_]
    copies: Rows
    rows_left: Rows
    rows: int
    made_from: str
    seed: int

    def __len__(self) -> int:
        """The number of canaries, k."""
        return len(self.included)

    def __repr__(self) -> str:
        return f"Canaries({len(self)}, {int(self.included.sum())} of them in training)"

    def training(self, x: Any, y: ArrayLike) -> tuple[Any, NDArray[Any]]:
        """What to train on: the data without the canaries' originals, with the canaries whose coin says so, shuffled.

        Args:
            x: the data that the canaries were made from, (n, …), in the same order.
            y: its labels.

        Returns:
            (x, y) of len(rows_left) + the copies of what is included.

        Raises:
            InputError: DV004, DV412, other records than the canaries were made from, or another order of them: their
                originals would stay beside them.

        >>> x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
        >>> canaries = plant_canaries(x, y, count=4, kinds=["duplicated"], copies=3)
        >>> int(canaries.included.sum()), len(canaries.training(x, y)[1])
        (4, 28)
        """
        x, labels = _records(x, y)
        if len(labels) != self.rows:
            raise InputError(
                "DV004", f"the canaries were made from {self.rows:,} records, these are {len(labels):,}: give the same"
            )
        if _digest(x, labels) != self.made_from:
            raise InputError(
                "DV412",
                "the canaries were made from other records, or from these in another order or of another type: their "
                "originals would stay in training. Expected the x and y that plant_canaries got",
            )
        planted = np.repeat(np.flatnonzero(self.included), self.copies[self.included])
        order = np.random.default_rng([self.seed, 1]).permutation(len(self.rows_left) + len(planted))
        inputs = _joined([take(x, self.rows_left), take(self.x, planted)])
        return take(inputs, order), np.concatenate([labels[self.rows_left], self.y[planted]])[order]

    def evidence(
        self,
        model: Any = None,
        *,
        outputs: ArrayLike | None = None,
        kind: str | None = None,
        classes: Sequence[object] | None = None,
    ) -> Evidence:
        """Evidence of the canaries, in their order: members are those in training; a column tells their kinds.

        Held against the model's audit of ordinary records it says how much worse the worst case is:
        `divulge.audit(canaries.evidence(model), slices=["canary"])`.

        Args:
            model: trained on `training(…)`, as for `divulge.collect`; or give its outputs.
            outputs: (k, c) or (k,), what it says of `x`.
            kind: of the outputs: "logits", "probs" or "predictions"; None: by their values.
            classes: the c label values in the order of the output columns.

        Raises:
            InputError: DV412, neither a model nor outputs, or coins that all fell alike; else as `divulge.collect`.

        >>> x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
        >>> canaries = plant_canaries(x, y, count=10, kinds=["mislabelled"])
        >>> evidence = canaries.evidence(outputs=np.zeros(10), kind="logits")
        >>> int((evidence.member == canaries.included).sum()), str(evidence.columns["canary"][0])
        (10, 'mislabelled')
        """
        sides = [np.flatnonzero(self.included), np.flatnonzero(~self.included)]
        if not all(map(len, sides)):
            raise InputError(
                "DV412", f"all {len(self)} coins came up the same, so one side is empty: plant more canaries"
            )
        numbers = np.arange(len(self))
        if outputs is None:
            if model is None:
                raise InputError("DV412", "expected the model, or outputs=, what it says of the canaries' x")
            found = collect(
                model,
                *((take(self.x, rows), self.y[rows]) for rows in sides),
                columns={"canary": (self.kind[sides[0]], self.kind[sides[1]])},
                ids=(numbers[sides[0]], numbers[sides[1]]),
                classes=classes,
            )
        else:
            if model is not None:
                raise InputError("DV412", "expected a model or outputs, got both")
            array = to_array(outputs, "outputs", set())
            if len(array) != len(self):
                raise InputError("DV004", f"outputs have {len(array):,} rows, there are {len(self):,} canaries")
            called = kind or kind_of(array, self.y)
            members, others = ({called: array[rows], "labels": self.y[rows], "ids": numbers[rows]} for rows in sides)
            columns = {"canary": (self.kind[sides[0]], self.kind[sides[1]])}
            found = Evidence.from_splits(members, others, columns=columns, classes=classes)
        return found.take(np.argsort(np.concatenate(sides)))

    def epsilon(
        self, scores: ArrayLike, *, guesses: int | None = None, alpha: float = 0.05, delta: float = 0.0
    ) -> OneRun:
        """Lower bound on the epsilon of training, from this one run.

        The guesses are fixed in advance: of canaries that are once in training, the highest-scored half of `guesses`
        are guessed to be in, the lowest-scored half to be out. Canaries of several copies are left out: a bound on them
        is one of several records together. It bounds the training's epsilon because these canaries are records that one
        may have; it speaks of these canaries, not of ordinary records, which may be better protected.

        Args:
            scores: (k,) of all canaries, higher = more member-like, by an attack that did not see the coins.
            guesses: how many canaries to guess; None: half of those that are once in training.
            alpha: error of the bound.
            delta: of the claim.

        Returns:
            The bound, with what it is made from.

        Raises:
            InputError: DV412, no canary that is in training once, or more guesses than there are; DV003, scores that
                are not finite.

        Source: Steinke, Nasr and Jagielski 2023, theorem 5.2.

        >>> x, y = np.random.default_rng(0).random((800, 2)), np.arange(800) % 2
        >>> canaries = plant_canaries(x, y, count=400, kinds=["mislabelled"])
        >>> found = canaries.epsilon(1.0 * canaries.included)
        >>> round(found.epsilon, 2), found.right, found.guesses
        (4.19, 200, 200)
        """
        once = np.flatnonzero(self.copies == 1)
        array = to_array(scores, "scores", set()).astype(np.float64)
        if array.shape != (len(self),) or not np.isfinite(array).all():
            raise InputError("DV003", f"scores are of shape {array.shape}, expected ({len(self)},) finite numbers")
        r = len(once) // 2 if guesses is None else int(guesses)
        if not 2 <= r <= len(once):
            raise InputError(
                "DV412",
                f"{r} guesses of {len(once)} canaries that are in training once; expected 2 or more guesses, of "
                "mislabelled or out_of_distribution ones",
            )
        order = once[np.argsort(array[once], kind="stable")]
        low, high = order[: r // 2], order[len(order) - (r - r // 2) :]
        right = int(self.included[high].sum() + (~self.included[low]).sum())
        bound, most = (epsilon_one_run(len(once), r, v, alpha=alpha, delta=delta) for v in (right, r))
        return OneRun(bound, right, r, len(once), most)


class OneRun(NamedTuple):
    """A lower bound on epsilon from one training run, and how it came about.

    Attributes:
        epsilon: the bound; 0 where the guesses do not beat chance.
        right: right guesses.
        guesses: of so many.
        canaries: among so many whose coin was flipped.
        at_most: the bound if all guesses had been right: more than this the run could not have shown.

    >>> OneRun(0.5, 60, 100, 200, 3.5).epsilon
    0.5
    """

    epsilon: float
    right: int
    guesses: int
    canaries: int
    at_most: float


def plant_canaries(
    x: Any,
    y: ArrayLike,
    *,
    count: int,
    kinds: Sequence[str] = KINDS,
    copies: int = 8,
    seed: int = 0,
) -> Canaries:
    """Canaries made from one's own training data, each to be put into training by a fair coin.

    mislabelled: a record of the data under a wrong label, drawn evenly from the other ones. duplicated: the same,
    `copies` times. out_of_distribution: of a table, each column drawn from a record of its own; of images and other
    arrays of more dimensions, even noise over the data's range; under a random label.

    Args:
        x: (n, …) inputs, the training data: an array, a pandas table, or a list such as of texts.
        y: (n,) labels of any kind, or (n, c) one-hot ones.
        count: canaries of each kind. For the slices of an audit 100 of a kind are few, and 400 good.
        kinds: which; see above.
        copies: of a duplicated canary.
        seed: fixes records, labels, noise and coins. Keep it from whoever attacks: it tells the coins.

    Raises:
        InputError: DV412, an unknown kind, too few records or labels, or inputs that out-of-distribution ones cannot be
            made of; DV004, another number of labels than inputs.

    >>> x, y = np.random.default_rng(0).random((500, 4)), np.arange(500) % 3
    >>> canaries = plant_canaries(x, y, count=100)
    >>> len(canaries), len(canaries.rows_left), sorted(set(canaries.copies.tolist()))
    (300, 300, [1, 8])
    """
    x, labels = _records(x, y)
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if strange := [kind for kind in kinds if kind not in KINDS]:
        raise InputError("DV412", f"there is no kind of canary {strange[0]!r:.80}; known: {', '.join(KINDS)}")
    if count < 1 or copies < 2 or not kinds or len(set(kinds)) < len(kinds):
        raise InputError(
            "DV412",
            f"expected a count of 1 or more, copies of 2 or more and each kind once, got {count}, {copies}, {kinds}",
        )
    real = [kind for kind in kinds if kind != "out_of_distribution"]
    if count * len(real) > len(labels) // 2:
        raise InputError(
            "DV412",
            f"{count} canaries of {len(real)} kinds would take {count * len(real):,} of {len(labels):,} records out of "
            "training, expected at most half of them. Plant fewer",
        )
    rng = np.random.default_rng(seed)
    taken = rng.permutation(len(labels))[: count * len(real)].reshape(len(real), count)
    originals = iter(taken)
    inputs, told = [], []
    for kind in kinds:
        if kind == "out_of_distribution":
            inputs.append(_outlandish(x, len(labels), count, rng))
            told.append(_labels(labels, None, count, rng))
        else:
            rows = next(originals)
            inputs.append(take(x, rows))
            told.append(_labels(labels, rows, count, rng))
    of_each = np.repeat(np.array(kinds), count)
    return Canaries(
        x=_joined(inputs),
        y=np.concatenate(told),
        kind=of_each,
        included=rng.random(len(of_each)) < 0.5,
        copies=np.where(of_each == "duplicated", copies, 1),
        rows_left=np.setdiff1d(np.arange(len(labels)), taken),
        rows=len(labels),
        made_from=_digest(x, labels),
        seed=seed,
    )


def _records(x: Any, y: ArrayLike) -> tuple[Any, NDArray[Any]]:
    """Inputs as they are if they are a table, a list or several of a kind, else as an array; labels as an array."""
    labels = to_array(y, "labels", set())
    labels = labels[:, 0] if labels.shape[1:] == (1,) else labels
    if not hasattr(x, "iloc") and not isinstance(x, list | tuple | Mapping):
        x = to_array(x, "x", set())
    if count_of(x) != len(labels):
        raise InputError("DV004", f"x has {count_of(x):,} records and y {len(labels):,} labels; expected one a record")
    if labels.ndim != 1 and (labels.ndim > 2 or not _one_hot(labels)):
        raise InputError("DV412", f"labels are of shape {labels.shape}, expected (n,), or (n, c) with one 1 a row")
    return x, labels


def _digest(x: Any, labels: NDArray[Any]) -> str:
    return data_digest(x, labels, tag=UNREAD)  # what cannot be read counts by its type: no reason to refuse it here


def _one_hot(labels: NDArray[Any]) -> bool:
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _labels(labels: NDArray[Any], rows: Rows | None, k: int, rng: np.random.Generator) -> NDArray[Any]:
    """k labels, drawn evenly from those that there are: from all, or from all but that of each row."""
    codes = labels.argmax(axis=1) if labels.ndim == 2 else distinct(labels)[1]
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    if len(first) < 2:
        raise InputError("DV412", "all labels are the same, so that none is wrong; expected two or more")
    if rows is None:
        drawn = rng.integers(0, len(first), k)
    else:
        drawn = (codes[rows] + rng.integers(1, len(first), k)) % len(first)
    told: NDArray[Any] = labels[first[drawn]]
    return told


def _outlandish(x: Any, n: int, k: int, rng: np.random.Generator) -> Any:
    """k inputs unlike all: each column from a record of its own, or noise over the range."""
    if hasattr(x, "iloc") and getattr(x, "ndim", 1) == 2 and x.shape[1] > 1:
        import pandas as pd

        columns = [x.iloc[rng.integers(0, n, k), column] for column in range(x.shape[1])]
        return pd.concat([column.reset_index(drop=True) for column in columns], axis=1)
    if isinstance(x, np.ndarray) and x.ndim == 2 and x.shape[1] > 1:
        return x[rng.integers(0, n, (k, x.shape[1])), np.arange(x.shape[1])]
    if isinstance(x, np.ndarray) and x.ndim > 2 and x.dtype.kind in "biuf":
        low, high = np.nanmin(x), np.nanmax(x)
        shape = (k, *x.shape[1:])
        if x.dtype.kind == "f":
            return rng.uniform(low, high, shape).astype(x.dtype)
        return rng.integers(int(low), int(high), shape, endpoint=True).astype(x.dtype)
    form = f"an array of shape {x.shape}" if isinstance(x, np.ndarray) else f"a {type(x).__name__}"
    raise InputError(
        "DV412",
        f"out-of-distribution canaries cannot be made of {form}; expected a table of two or more columns, or numbers "
        "of more dimensions, such as images. Leave them out: kinds=('mislabelled', 'duplicated')",
    )


def _joined(parts: Sequence[Any]) -> Any:
    """Inputs of one make, one after the other."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        return tuple(_joined(part) for part in zip(*parts, strict=True))
    if isinstance(first, list):
        return [one for part in parts for one in part]
    if hasattr(first, "iloc"):
        import pandas as pd

        return pd.concat(parts, ignore_index=True)
    return np.concatenate(parts)
