"""Which attacks run where none is named: sets by what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from divulge import signals
from divulge.attacks import classifiers, label_only, quantile, reference, traces
from divulge.attacks.attack import Attack
from divulge.attacks.columns import FEATURES
from divulge.attacks.label_only import LabelOnly
from divulge.attacks.learned import Learned
from divulge.attacks.quantile import Quantile
from divulge.attacks.threshold import ClassWise, Threshold
from divulge.attacks.traces import Traces

if TYPE_CHECKING:
    from divulge.evidence import Evidence


def quick(evidence: Evidence) -> list[Attack]:
    """Thresholds on signals, of all records and class by class: one pass over the outputs; and what references are for.

    Signals whose ROC is another's by construction (log_odds is loss, on another scale) are left out.

    >>> import numpy as np
    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> [str(attack) for attack in quick(evidence)]
    ['loss', 'class_wise(loss)']
    """
    names = list(evidence.signals)
    chosen = {"multiclass": ["loss", "modified_entropy"], "unlabelled": ["confidence", "entropy"]}
    names += [name for name in chosen.get(evidence.task, ["loss"]) if name not in names]
    names = [name for name in names if signals.why_unavailable(evidence, name) is None]
    attacks: list[Attack] = [Threshold(name) for name in names]
    attacks += [ClassWise("loss" if "loss" in names else names[0])] if names else []
    return attacks if evidence.references is None else [*attacks, *reference.declared(evidence.references)]


def default(evidence: Evidence) -> list[Attack]:
    """And logistic regressions of membership, one for all records and one a class; quantiles given class and features.

    >>> import numpy as np
    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> len(default(evidence))
    6
    """
    more: list[Attack] = [Learned("logistic"), Learned("per_class"), Quantile("class"), Quantile("linear")]
    thresholds = quick(evidence)
    return [*thresholds, *more] if thresholds else []


def thorough(evidence: Evidence) -> list[Attack]:
    """And every other attack that finds something of its own; those of what was not given are skipped.

    >>> import numpy as np
    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> len(thorough(evidence))
    16
    """
    models: list[Attack] = [Learned(model) for model in classifiers.MODELS]
    models += [Quantile(model) for model in quantile.MODELS]
    models += [Learned("boosting", (FEATURES,)), *(Traces(kind) for kind in traces.KINDS)]
    models += [] if label_only.SIGNAL in evidence.signals else [LabelOnly()]  # else it is one of the thresholds
    models += [] if evidence.references is None else reference.every(evidence.references)
    thresholds = quick(evidence)
    return [*thresholds, *models] if thresholds or evidence.traces is not None else []


BUDGETS: dict[str, Callable[[Evidence], list[Attack]]] = {"quick": quick, "default": default, "thorough": thorough}
"""Sets of attacks by what they cost; docs/attacks.md has the times."""
