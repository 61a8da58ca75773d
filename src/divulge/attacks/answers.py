"""What a model that gives only labels has answered, counted as right or wrong, whatever way labels are written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from divulge.doors.arrays import distinct, is_text, row_blocks, to_array
from divulge.doors.names import listed
from divulge.errors import InputError

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.floating[Any]]
NUMERAL = re.compile(r"-?(0|[1-9][0-9]{0,14})")


def share_right(predictions: ArrayLike, labels: ArrayLike) -> Floats:
    """Each record's share of right predictions, from q predictions already made: give it as a signal.

        Evidence.from_splits({…, "signals": {"label_only": share_right(predictions, labels)}}, …)

    Args:
        predictions: (n, q) class labels of the labels' kind, numbers or text; where labels are 0 and 1 also binary
            scores (probabilities, cut at 0.5, where all lie in 0..1, else logits, cut at 0). (n, q, c) class scores,
            the largest counts. NaN and "" are no predictions, left out of the record's share.
        labels: (n,) of any kind; of class scores, 0..c-1. Several labels a record: (n, c) of 0 and 1 with (n, q, c)
            predictions, read as binary scores are; the share is that of all labels.

    Returns:
        (n,) float64 in [0, 1], of q + 1 values, higher = more member-like; NaN where no prediction is left.

    Raises:
        InputError: DV002, DV003, DV004, shapes; DV020, DV021, predictions of another kind than the labels.

    Source: Choquette-Choo et al. 2021 (label-only).

    >>> share_right([["cat", "cat", "dog"], ["dog", "", "dog"]], ["cat", "dog"]).round(2).tolist()
    [0.67, 1.0]
    """
    given, truth = to_array(predictions, "predictions", set()), to_array(labels, "labels", set())
    if given.ndim not in (2, 3) or truth.ndim not in (1, 2) or 0 in given.shape[1:] or truth.ndim > given.ndim - 1:
        raise InputError(
            "DV003",
            f"predictions are of shape {given.shape} and labels of {truth.shape}; expected (n, q) labels or (n, q, c) "
            "scores for labels (n,), and (n, q, c) for (n, c)",
        )
    if len(given) != len(truth) or (truth.ndim == 2 and given.shape[2:] != truth.shape[1:]):
        raise InputError("DV004", f"predictions {given.shape} and labels {truth.shape} do not belong together")
    if truth.dtype.kind == "f" and not np.isin(truth, np.rint(truth)).all():
        raise InputError("DV020", f"labels are {listed(distinct(truth)[0])}, expected classes: whole numbers or text")
    scores = given.ndim == 3 and truth.ndim == 1
    if is_text(given) and given.ndim == 3:
        raise InputError("DV020", f"predictions are text of shape {given.shape}, expected text as (n, q) labels")
    cut = None if scores else _cut(given, truth)
    if scores and (truth.dtype.kind not in "biuf" or not np.isin(truth, np.arange(given.shape[2])).all()):
        raise InputError(
            "DV021",
            f"expected labels 0..{given.shape[2] - 1}, the columns of the scores; got {listed(distinct(truth)[0])}",
        )
    shares = np.full(len(given), np.nan)
    for start, block in row_blocks(given):
        rows = slice(start, start + len(block))
        gaps = _gaps(block)
        if scores:
            block, gaps = np.where(gaps, 0, block).argmax(axis=2), np.asarray(gaps.any(axis=2))
        right = np.asarray((block if cut is None else block > cut) == truth[rows, None])
        asked = (~gaps).reshape(len(block), -1).sum(axis=1)
        np.divide((right & ~gaps).reshape(len(block), -1).sum(axis=1), asked, out=shares[rows], where=asked > 0)
    return shares


def _cut(given: NDArray[Any], truth: NDArray[Any]) -> float | None:
    """Where binary scores are cut; None where these are labels, to be compared as they are."""
    if is_text(given) != is_text(truth):
        raise InputError(
            "DV020", f"predictions are {given.dtype} and labels {truth.dtype}; expected both as numbers or both as text"
        )
    if is_text(given):
        return None
    known = given[~_gaps(given)]
    low, high, whole = known.min(initial=0), known.max(initial=0), bool((known == np.rint(known)).all())
    bits = bool(np.isin(truth, (0, 1)).all())
    if truth.ndim == 2 and not bits:
        raise InputError("DV020", "expected labels (n, c) of 0 and 1, one column a label")
    if truth.ndim == 1 and not whole and given.shape[1:] == (2,) and np.allclose(given.sum(axis=1), 1, atol=1e-4):
        raise InputError(
            "DV003",
            "predictions of two columns sum to 1: one query's class probabilities, which would be read as two queries. "
            "Give labels (n, q), or scores (n, q, 2): predictions[:, None, :]",
        )
    if truth.ndim == 1 and whole:
        if len(known) and (known.min() - 1, high - 1) == (truth.min(), truth.max()) == (0, max(high - 1, 2)):
            raise InputError(
                "DV021",
                f"predictions are 1..{high:g} and labels 0..{high - 1:g}: numbered otherwise. Subtract 1 of them",
            )
        if low < 0 and truth.min(initial=0) >= 0:
            raise InputError(
                "DV021", f"a prediction is {low}, and no label is below 0. If it marks what is missing, put NaN there"
            )
        return None
    if not bits:
        raise InputError(
            "DV020", f"predictions are not whole numbers, and labels are {listed(distinct(truth)[0])}; expected classes"
        )
    return 0.5 if low >= 0 and high <= 1 else 0.0


def _gaps(answers: NDArray[Any]) -> NDArray[np.bool_]:
    """Where there is no answer."""
    if is_text(answers):
        return np.asarray(answers == "", bool)
    return np.isnan(answers) if answers.dtype.kind == "f" else np.zeros(answers.shape, bool)


@dataclass
class _Reading:
    """One way to understand numbers as classes.

    codes: (b,) or (b, c) numbers -> 0..c-1, or whether the label applies.     fits: whether all can be meant so.
    right: (n,) right answers so far, were this the way.     fallback: only where no other way is left.
    """

    codes: Callable[[Floats], NDArray[Any]]
    fits: Callable[[Floats], bool]
    right: NDArray[np.int64]
    fallback: bool = False


class Answers:
    """The answers of several calls. How numbers are meant is settled by all of them: not block by block.

    >>> from divulge.evidence import Evidence
    >>> answers = Answers(Evidence(np.array([True, False]), labels=np.array([1, 0])))
    >>> answers.count(answers.numbers([0.9, 0.7], 2), np.array([0, 1]))
    >>> answers.shares().tolist()
    [1.0, 0.0]
    """

    def __init__(self, evidence: Evidence) -> None:
        """Evidence with class labels; its outputs and `classes` tell how many classes there are."""
        assert evidence.labels is not None
        self._labels, self._classes, outputs = evidence.labels, evidence.classes, evidence.outputs
        self._asked = np.zeros(len(self._labels), np.int64)
        self._readings: list[_Reading] = []
        self._coded: bool | None = None
        self._graded = False  # whether a number was a fraction or below 0, as logits are
        self._exact = True
        if self._labels.ndim == 2:
            self._width = self._labels.shape[1]
        elif self._classes is not None or outputs is not None:
            self._width = len(self._classes or ()) or (2 if outputs is None or outputs.ndim == 1 else outputs.shape[1])
        else:
            self._exact = False  # there may be classes that no record has
            self._width = max(int(self._labels.max(initial=0)) + 1, 2)

    def numbers(self, given: object, expected: int) -> Floats:
        """One call's answer, (b,) or (b, c), as float64, NaN where there is none; texts and class scores as 0..c-1.

        Raises:
            InputError: DV002, DV003, DV004, DV024, DV075.
        """
        answer = to_array(given, "what predict gave", set())
        if answer.ndim == 0 or len(answer) != expected:
            raise InputError(
                "DV004", f"predict gave {answer.shape} for {expected:,} records; expected one label, or row, for each"
            )
        several = self._labels.ndim == 2
        if answer.shape[1:] == (1,) and not several:
            answer = answer[:, 0]
        wide = answer.shape[1:]
        fits = wide == (self._width,) or (not self._exact and len(wide) == 1 and wide[0] > self._width)
        if not (fits or (wide == () and not several)) or (is_text(answer) and (several or wide)):
            labels = "" if several else " or labels (b,)"
            raise InputError(
                "DV075",
                f"predict gave {answer.dtype} of shape {answer.shape}, expected scores (b, {self._width}){labels}, "
                f"with b = {expected:,} here",
            )
        coded = is_text(answer) or (answer.ndim == 2 and not several)
        if self._coded not in (None, coded):
            raise InputError("DV003", "predict gave labels as numbers once and as text or scores another time")
        self._coded = coded
        if is_text(answer):
            return self._named(answer)
        if not coded:
            return answer.astype(np.float64)
        gaps = _gaps(answer)
        return np.where(gaps.any(axis=1), np.nan, np.where(gaps, 0, answer).argmax(axis=1))

    def count(self, numbers: Floats, rows: NDArray[np.int64]) -> None:
        """Adds what was answered about some rows.

        Raises:
            InputError: DV021, numbers that are no labels here.
        """
        if not self._readings:
            self._readings = self._possible()
        known = ~np.isnan(numbers)
        labels = self._labels[rows]
        self._asked[rows] += known.reshape(len(rows), -1).sum(axis=1)
        found = numbers[known]
        self._graded = self._graded or bool((found < 0).any() or (found != np.rint(found)).any())
        self._readings = [reading for reading in self._readings if reading.fits(found)]
        if not self._readings:
            raise self._strange(found)
        for reading in self._readings:
            right = known & (reading.codes(numbers) == labels)
            reading.right[rows] += right.reshape(len(rows), -1).sum(axis=1)

    def shares(self) -> Floats:
        """(n,) float64 shares of right answers; NaN without any.

        Raises:
            InputError: DV021, whole numbers that are no labels; DV022, numbers that can be meant in two ways.
        """
        sure = [reading for reading in self._readings if not reading.fallback]
        if len(sure) > 1 and not np.array_equal(sure[0].right, sure[1].right):
            raise InputError(
                "DV022",
                f"predict gave numbers that may be the labels' values ({listed(self._classes or ())}) or their places "
                f"0..{self._width - 1}. Give class scores, or the values as text: "
                "predict=lambda x: model.predict(x).astype(str)",
            )
        shares = np.full(len(self._asked), np.nan)
        if self._readings:
            if not sure and not self._graded:
                raise self._strange(None)
            right = (sure or self._readings)[0].right
            np.divide(right, self._asked, out=shares, where=self._asked > 0)
        return shares

    def _possible(self) -> list[_Reading]:
        """In order of preference."""

        def reading(codes: Callable[[Floats], NDArray[Any]], fits: Callable[[Floats], bool]) -> _Reading:
            return _Reading(codes, fits, np.zeros(len(self._asked), np.int64))

        if self._coded:
            return [reading(lambda x: x, lambda x: True)]
        ways = []
        names = self._classes or ()
        numerals = all(NUMERAL.fullmatch(name) for name in names)
        if self._labels.ndim == 1 and numerals and names != tuple(map(str, range(len(names)))):
            values = np.array([int(name) for name in names], np.float64)
            order = np.argsort(values)

            def places(x: Floats) -> NDArray[Any]:
                at = np.searchsorted(values[order], np.nan_to_num(x))
                return np.asarray(order[at.clip(max=len(values) - 1)])

            ways.append(reading(places, lambda x: bool(np.isin(x, values).all())))
        if self._labels.ndim == 2 or self._width == 2:
            ways.append(reading(lambda x: x > 0.5, lambda x: bool(((x >= 0) & (x <= 1)).all())))
            ways.append(reading(lambda x: x > 0, lambda x: True))
            ways[-1].fallback = True
        else:
            most = self._width - 1 if self._exact else np.inf
            ways.append(reading(lambda x: x, lambda x: bool(((x == np.rint(x)) & (x >= 0) & (x <= most)).all())))
        return ways

    def _named(self, answer: NDArray[Any]) -> Floats:
        number: dict[str, float] = {name: at for at, name in enumerate(self._classes or map(str, range(self._width)))}
        names, which = distinct(answer)
        strange = [name for name in names.tolist() if name not in number and name]
        if strange:
            raise InputError(
                "DV024", f"predict gave the labels {listed(strange)}; expected some of {listed(number)}, the evidence's"
            )
        return np.array([number.get(name, np.nan) for name in names.tolist()])[which]

    def _strange(self, found: Floats | None) -> InputError:
        some = "" if found is None else f" such as {listed(np.unique(found).tolist(), 3)}"
        if self._labels.ndim == 2 or self._width == 2:
            expected = "0 and 1, probabilities or logits"
        else:
            expected = f"whole numbers 0..{self._width - 1}, names of classes, or scores (b, {self._width})"
        return InputError(
            "DV021",
            f"predict gave numbers{some} that are no labels here; expected {expected}. Other numbering: give the "
            "evidence classes=[…], the label values in their order, or let predict give 0..c-1",
        )
