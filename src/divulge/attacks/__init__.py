"""Attacks: `attack(evidence, rng) -> (n,) scores`, higher = more member-like.

Ours are frozen dataclasses, one file a family; any callable of the same shape is an attack too, and so is a
scikit-learn classifier. Which run by default, and how a name becomes an attack, is said here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from divulge import signals
from divulge.attacks import label_only, learned, quantile, reference, traces
from divulge.attacks.answers import share_right
from divulge.attacks.columns import FEATURES
from divulge.attacks.label_only import LabelOnly
from divulge.attacks.learned import Learned
from divulge.attacks.moments import VARIANCES
from divulge.attacks.perturbations import Images, Noise, Tabular
from divulge.attacks.quantile import Quantile
from divulge.attacks.reference import MODES, AttackR, Difficulty, Lira, Ratio, Rmia
from divulge.attacks.threshold import ClassWise, Threshold
from divulge.attacks.traces import Traces
from divulge.errors import InputError

if TYPE_CHECKING:
    from divulge.evidence import Evidence

__all__ = [
    "BUDGETS",
    "Attack",
    "AttackR",
    "ClassWise",
    "Difficulty",
    "Images",
    "LabelOnly",
    "Learned",
    "Lira",
    "NamedAttack",
    "Noise",
    "Quantile",
    "Ratio",
    "Rmia",
    "Tabular",
    "Threshold",
    "Traces",
    "all_named",
    "named",
    "share_right",
]

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


def quick(evidence: Evidence) -> list[Attack]:
    """Thresholds on signals, of all records and class by class: one pass over the outputs; and what references are for.

    Signals whose ROC is another's by construction (log_odds is loss, on another scale) are left out.

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

    >>> from divulge.evidence import Evidence
    >>> evidence = Evidence(member=np.array([True, False]), signals={"loss": np.array([-.1, -2.])})
    >>> len(thorough(evidence))
    16
    """
    models: list[Attack] = [Learned(model) for model in learned.MODELS]
    models += [Quantile(model) for model in quantile.MODELS]
    models += [Learned("boosting", (FEATURES,)), *(Traces(kind) for kind in traces.KINDS)]
    models += [] if label_only.SIGNAL in evidence.signals else [LabelOnly()]  # else it is one of the thresholds
    models += [] if evidence.references is None else reference.every(evidence.references)
    thresholds = quick(evidence)
    return [*thresholds, *models] if thresholds or evidence.traces is not None else []


BUDGETS: dict[str, Callable[[Evidence], list[Attack]]] = {"quick": quick, "default": default, "thorough": thorough}
"""Sets of attacks by what they cost; docs/attacks.md has the times."""


def named(attack: str | Attack, evidence: Evidence) -> NamedAttack:
    """An attack from its name (a signal, "learned(boosting)" …), the user's own callable, or a classifier.

    Raises:
        InputError: DV052, no attack of that name; DV056, a setting that it does not take.
    """
    call: Any = _from_text(attack, evidence) if isinstance(attack, str) else attack
    if _is_classifier(call):
        call = Learned(call)
    if not callable(call) or isinstance(call, type):
        raise InputError(
            "DV052",
            "expected an attack's name, a callable or a scikit-learn classifier, "
            f"got {type(call).__name__}: {call!r:.80}",
        )
    name = without_address(str(getattr(call, "__name__", call)))
    needs, fitted = getattr(call, "needs", ()), getattr(call, "fitted", False)
    fitted = bool(fitted(evidence) if callable(fitted) else fitted)
    return NamedAttack(name, call, needs, fitted, True, getattr(call, "cost", 1.0), getattr(call, "prepare", None))


def _is_classifier(thing: object) -> bool:
    return not callable(thing) and hasattr(thing, "fit") and hasattr(thing, "get_params")


def without_address(text: str) -> str:
    """An object's text without its place in memory, which another run would not repeat.

    >>> len(without_address("<function f at 0x7f00>"))
    12
    """
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def all_named(attacks: str | Attack | Iterable[str | Attack], evidence: Evidence) -> list[NamedAttack]:
    """Normalise the `attacks` argument of `audit`: budgets, names, callables, alone or several.

    Raises:
        InputError: DV052, an unknown name, two attacks of one name, or none at all.
    """
    several = isinstance(attacks, Iterable) and not isinstance(attacks, str) and not _is_classifier(attacks)
    given: list[Any] = list(attacks) if several else [attacks]  # type: ignore[arg-type]
    found: dict[str, NamedAttack] = {}
    budgets = [item for item in given if isinstance(item, str) and item in BUDGETS]
    for budget in budgets:
        found |= {str(call): named(call, evidence)._replace(required=False) for call in BUDGETS[budget](evidence)}
    if given and not found and len(budgets) == len(given):
        watched = "; traces alone are attacked with the budget thorough" if evidence.traces is not None else ""
        raise InputError(
            "DV052", f"no attack fits this evidence: give outputs (logits, probs) or a signal (loss){watched}"
        )
    for item in given:
        if isinstance(item, str) and item in BUDGETS:
            continue
        attack = named(item, evidence)
        if attack.name in found and found[attack.name].required:
            way_out = "; name one: Learned(model, name='mine')" if isinstance(attack.call, Learned) else ""
            raise InputError("DV052", f"two attacks are called {attack.name!r}{way_out}")
        found[attack.name] = attack
    if not found:
        raise InputError("DV052", "no attack was named")
    return list(found.values())


_FAMILIES: dict[str, Callable[..., Attack]] = {
    "class_wise": lambda *signal: ClassWise(*signal),
    "learned": lambda model="logistic", *columns: Learned(model, columns),
    "quantile": lambda model="linear", *rest: _quantile(model, rest),
    "traces": lambda *kind: Traces(*kind),
    "label_only": lambda: LabelOnly(),
    "lira": lambda *words: _lira(words),
    "ratio": lambda *words: _ratio(words),
    "rmia": lambda *words: Rmia(**_settings(words, {"gamma": float})),
    "difficulty": lambda *words: Difficulty(**_settings(words, {"signal": str})),
    "references": lambda *by: _chosen(*by),
    "attack_r": lambda *words: AttackR(**_settings(words, {"signal": str})),
}


def _settings(words: tuple[str, ...], known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """NAME=VALUE words as arguments; TypeError where one is none of the known, as too many words are."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise TypeError(word)
        try:
            found[name] = known[name](value)
        except ValueError as error:
            raise TypeError(word) from error
    return found


def _lira(words: tuple[str, ...]) -> Lira:
    chosen = {"mode": [word for word in words if word in MODES], "variance": [w for w in words if w in VARIANCES]}
    rest = tuple(word for word in words if word not in (*MODES, *VARIANCES))
    if any(len(found) > 1 for found in chosen.values()):
        raise TypeError(words)
    return Lira(**{name: found[0] for name, found in chosen.items() if found}, **_settings(rest, {"signal": str}))


def _chosen(*by: str) -> Attack:
    from divulge.references.choosing import Chosen  # it tries the attacks that are named here

    return Chosen(*by)


def _ratio(words: tuple[str, ...]) -> Ratio:
    mode = next((word for word in words if word in MODES), None)
    rest = tuple(word for word in words if word not in (*MODES, "base"))
    base = {"a": 1.0, "temperature": 1.0} if "base" in words else {}
    named = {"temperature" if name == "T" else name: x for name, x in _settings(rest, {"a": float, "T": float}).items()}
    return Ratio(mode, **{**base, **named})


def _quantile(model: str, rest: tuple[str, ...]) -> Quantile:
    given = next((word for word in rest if word.startswith("signal=")), f"signal={Quantile.signal}")
    columns = tuple(word for at, word in enumerate(rest) if at != (rest.index(given) if given in rest else -1))
    return Quantile(model, given.removeprefix("signal="), columns)


def _from_text(text: str, evidence: Evidence) -> Attack:
    """NAME, a signal's or a family's, or FAMILY(WORD, WORD …)."""
    known = [*evidence.signals, *signals.NAMES]
    if text in known:
        return Threshold(text)
    call = re.fullmatch(r"(\w+)(?:\((.*)\))?", text, re.DOTALL)
    if call and call[1] in _FAMILIES:
        words = [word.strip() for word in (call[2] or "").split(",") if word.strip()]
        if call[1] != "class_wise" or not words or words[0] in [*known, "label_only"]:
            try:
                return _FAMILIES[call[1]](*words)
            except TypeError:
                pass  # more words than it takes
    names = list(dict.fromkeys([*known, *_FAMILIES, *map(str, thorough(evidence))]))
    close = get_close_matches(text[:200], names, 1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError("DV052", f"there is no attack {text[:80]!r}; {hint}known here: {', '.join(names)}")
