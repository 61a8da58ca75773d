"""How a name, a callable or a classifier becomes an attack."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from divulge import signals
from divulge.attacks.attack import Attack, NamedAttack, without_address
from divulge.attacks.budgets import BUDGETS, thorough
from divulge.attacks.choosing import Chosen
from divulge.attacks.label_only import LabelOnly
from divulge.attacks.learned import Learned
from divulge.attacks.moments import VARIANCES
from divulge.attacks.quantile import Quantile
from divulge.attacks.reference import MODES, AttackR, Difficulty, Lira, Ratio, Rmia
from divulge.attacks.threshold import ClassWise, Threshold
from divulge.attacks.traces import Traces
from divulge.errors import InputError

if TYPE_CHECKING:
    from divulge.evidence import Evidence


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
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    fitted = bool(fitted(evidence) if callable(fitted) else fitted)
    return NamedAttack(name, call, needs, fitted, True, getattr(call, "cost", 1.0), getattr(call, "prepare", None))


def _is_classifier(thing: object) -> bool:
    return not callable(thing) and hasattr(thing, "fit") and hasattr(thing, "get_params")


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
            named_by = isinstance(attack.call, Learned | LabelOnly)
            way_out = "give one another name=" if named_by else "define one by def, or set its __name__"
            raise InputError("DV052", f"two attacks are called {attack.name!r}: {way_out}")
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
    "references": lambda *by: Chosen(*by),
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
