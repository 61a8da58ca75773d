"""The label-only attack: without scores, records are told apart by how well their labels withstand changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.answers import Answers
from divulge.attacks.perturbations import Noise, Perturbation
from divulge.errors import InputError, Unavailable
from divulge.hashes import array_hashes

if TYPE_CHECKING:
    from divulge.evidence import Evidence

Floats = NDArray[np.floating[Any]]
Predict: TypeAlias = Callable[[Any], Any]
Perturb: TypeAlias = Perturbation | Callable[[Any, np.random.Generator], Any]

SIGNAL = "label_only"


@dataclass(frozen=True, repr=False)
class LabelOnly:
    """The share of a record's copies that the model labels right: members stand further from where labels change.

    The first of the q queries is the record as it is, the others are perturbed, so one query is the gap attack
    (`correct`). The score has q + 1 values (more for several labels a record); ties stay ties. A signal "label_only"
    (or of the attack's name) in the evidence is used as it is, and nothing is asked of a model then.

    Copies depend on the record's features and the generator alone, not on other rows, their order or `batch`; only the
    units of noise and the shares of categories are those of all records. Equal records have equal copies. A perturb
    function of the user's own gets distinct rows in an order that their features tell: its copies do not depend on how
    rows stand, but on which there are, and on `batch`.

    It is strong where the model is smooth between records: neural networks, nearest neighbours. Trees remember records
    with noisy labels as islands, which changes leave at once: there `correct` is stronger, and an attack that learns
    from both is stronger still. Choose moves of images that the model was trained with (see `Images`).

    Attributes:
        predict: inputs (b, d) or (b, *shape) -> labels (b,), the evidence's 0..c-1 or its `classes`; or class scores
            (b, c), of which the largest counts; or a binary score (b,): a probability, cut at 0.5, where no answer
            leaves 0..1, else a logit, cut at 0; several labels a record: (b, c) of either. A NaN or an empty text is
            no answer.
        perturb: `Noise`, `Tabular`, `Images`, or a function (inputs, rng) -> one changed copy of each.
        queries: q, at least 1: the cost is q predictions of every record.
        batch: records a call of predict.
        shape: of one input; None: (d,), as features are.
        name: what the report calls it; None: label_only.

    Raises:
        InputError: DV056, a setting that cannot be used. DV003, DV004, DV021, DV022, DV024, DV075, when it runs:
            what perturb or predict gave. What these raise themselves is not touched.

    Source: Choquette-Choo et al. 2021, Label-only membership inference attacks.

    >>> from divulge.evidence import Evidence
    >>> x = np.array([[0.9], [0.02]])
    >>> evidence = Evidence(np.array([True, False]), labels=np.array([1, 1]), features=x)
    >>> attack = LabelOnly(lambda inputs: (inputs[:, 0] > 0).astype(int), Noise(sigmas=(0.1,)))
    >>> [round(float(share), 1) for share in attack(evidence, np.random.default_rng(0))]
    [1.0, 0.6]
    """

    predict: Predict | None = None
    perturb: Perturb = field(default_factory=Noise)
    queries: int = 20
    batch: int = 4096
    shape: tuple[int, ...] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name in ("predict", "perturb"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name == "perturb"):
                raise InputError("DV056", f"LabelOnly: expected {name} to be a function, got {value!r:.80}")
        for name in ("queries", "batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError("DV056", f"LabelOnly: expected {name} as a whole number from 1 up, got {value!r:.80}")
        sides = (1,) if self.shape is None else self.shape
        if not isinstance(sides, tuple) or not all(isinstance(side, int) and side > 0 for side in sides):
            raise InputError(
                "DV056", f"LabelOnly: expected shape as one input's, such as (1, 28, 28), got {self.shape!r:.80}"
            )

    def __str__(self) -> str:
        return self.name or SIGNAL

    def __repr__(self) -> str:
        return (
            f"LabelOnly(predict={_name(self.predict)}, perturb={_name(self.perturb)}, queries={self.queries}, "
            f"batch={self.batch}, shape={self.shape})"
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """Signals to compute beforehand: its own, if it was given."""
        return (str(self),)

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """(n,) float in [0, 1], higher = more member-like; NaN where the model gave no answer."""
        if str(self) in evidence.signals:
            return evidence.signals[str(self)]
        return self.prepare(evidence, rng)[str(self)]

    def prepare(self, evidence: Evidence, rng: np.random.Generator) -> dict[str, Floats]:
        """Asks the model: the signal that does not depend on who is a member, once for an audit.

        Args:
            evidence: n records with features and class labels, one or several a record.
            rng: the only source of chance.

        Returns:
            {"label_only": (n,) float64 in [0, 1]}, or nothing where the evidence has it.

        Raises:
            Unavailable: neither the signal nor what it takes to ask for it.
            InputError: as in the class.
        """
        if str(self) in evidence.signals:
            return {}
        features, labels = evidence.features, evidence.labels
        if labels is None or labels.dtype.kind == "f" or evidence.task == "regression":
            raise Unavailable("needs class labels; a label that is a number is never quite right")
        if self.predict is None or features is None:
            missing = "a model to ask (LabelOnly(predict=…))" if self.predict is None else "features"
            raise Unavailable(f"needs {missing}, or answers that it gave (a signal label_only: see share_right)")
        if self.shape is not None and prod(self.shape) != features.shape[1]:
            raise InputError(
                "DV003",
                f"LabelOnly: shape {self.shape} is {prod(self.shape)} numbers a record, and features have "
                f"{features.shape[1]}: give the shape of the inputs that the rows of features are",
            )
        if features.dtype.kind != "f":
            features = features.astype(np.float32)
        return {str(self): self._shares(self.predict, features, evidence, rng)}

    def _shares(self, predict: Predict, features: Floats, evidence: Evidence, rng: np.random.Generator) -> Floats:
        """Rows in the order of their hashes, equal ones together and asked about once, `batch` at a time."""
        hashes = array_hashes(features, int(rng.integers(2**63)))
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        ends = np.append(first, len(order))
        copy = self.perturb.over(features, order) if isinstance(self.perturb, Perturbation) else None
        answers = Answers(evidence)
        for start in range(0, len(first), self.batch):
            stop = min(start + self.batch, len(first))
            rows = order[first[start:stop]]
            block, keys = features[rows], hashes[rows]
            shape = (len(block), *(self.shape or block.shape[1:]))
            for query in range(self.queries):
                inputs: Any
                if query == 0:
                    inputs = block.copy().reshape(shape)  # a copy, since predict may write into it
                elif copy is not None:
                    inputs = copy(block, keys, query - 1).reshape(shape)
                else:
                    inputs = self._changed(block.copy().reshape(shape), rng)
                given = answers.numbers(predict(inputs), len(block))
                repeats = np.diff(ends[start : stop + 1])
                answers.count(np.repeat(given, repeats, axis=0), order[ends[start] : ends[stop]])
        return answers.shares()

    def _changed(self, inputs: Floats, rng: np.random.Generator) -> Any:
        shape = inputs.shape
        changed = self.perturb(inputs, rng)
        if isinstance(changed, np.ndarray) and changed.shape != shape:
            raise InputError(
                "DV003",
                f"perturb gave shape {changed.shape} for inputs of shape {shape}, expected one copy of each row",
            )
        return changed


def _name(function: Any) -> str:
    """What a function is called, without its place in memory."""
    if function is None or isinstance(function, Perturbation):
        return repr(function)
    return str(getattr(function, "__qualname__", type(function).__qualname__))
