"""Controls: is the test itself valid? Each measures one way in which a membership test misleads.

A control is a function of a `Setting` that gives an `Outcome`: ok, warning, invalid, or not run with its reason.
INVALID goes before every other verdict: a number from a broken test is worse than none. `audit()` runs them all.

Where the answer allows it a control looks at a subsample, and says so. Subsamples are chosen by the rows' hashes, so
they do not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from divulge.controls.blind import shift
from divulge.controls.labels import alignment, label_mix
from divulge.controls.order import drift
from divulge.controls.records import duplicates, groups, kind, shared_records, ties
from divulge.controls.references import design_balance, exchangeable, mimicry
from divulge.controls.sample import power, rows_for_score, smallest_score
from divulge.controls.setting import CONTROL_ERROR, SAMPLE, Control, Outcome, Setting, Shared, not_run, subsample
from divulge.controls.trials import TRIAL_SAMPLE, TRIALS, null, positive, scored
from divulge.errors import InputError, Unavailable

__all__ = [
    "CONTROLS",
    "CONTROL_ERROR",
    "OF_REFERENCES",
    "SAMPLE",
    "TRIALS",
    "TRIAL_SAMPLE",
    "Control",
    "Outcome",
    "Setting",
    "Shared",
    "all_named",
    "rows_for_score",
    "run",
    "shared_records",
    "smallest_score",
    "subsample",
]

CONTROLS: dict[str, Control] = {
    "shift": shift,
    "label_mix": label_mix,
    "duplicates": duplicates,
    "groups": groups,
    "ties": ties,
    "kind": kind,
    "alignment": alignment,
    "scored": scored,
    "null": null,
    "drift": drift,
    "positive": positive,
    "mimicry": mimicry,
    "design_balance": design_balance,
    "exchangeable": exchangeable,
    "power": power,
}
OF_REFERENCES = ("mimicry", "design_balance", "exchangeable")
"""Said nothing of where there are no reference models."""


def all_named(controls: str | Iterable[str]) -> list[str]:
    """Normalise the `controls` argument of `audit`: "default" is all; a name with "-" before it is left out.

    Raises:
        InputError: DV058, an unknown name.

    >>> len(all_named("default")) - len(all_named(["-shift"]))
    1
    """
    names = [] if controls == "default" else [controls] if isinstance(controls, str) else list(controls)
    for name in names:
        if name.removeprefix("-") not in CONTROLS:
            close = get_close_matches(name.removeprefix("-"), CONTROLS, 1)
            minus = "-" if name.startswith("-") else ""
            hint = f"did you mean {minus + close[0]!r}? " if close else ""
            raise InputError("DV058", f"there is no control {name!r}; {hint}known: {', '.join(CONTROLS)}")
    wanted = [name for name in names if not name.startswith("-")]
    left_out = {name[1:] for name in names if name.startswith("-")}
    if controls != "default" and not names:
        return []
    return [name for name in (wanted or CONTROLS) if name not in left_out]


def run(names: Sequence[str], setting: Setting | None) -> list[Outcome]:
    """The outcomes of the named controls, and a row for each that was turned off; no names need no setting."""
    outcomes = []
    for name, control in CONTROLS.items():
        if name in OF_REFERENCES and (setting is None or setting.evidence.references is None):
            continue
        if name not in names or setting is None:
            outcomes.append(not_run(name, "", "turned off"))
            continue
        try:
            outcomes.append(control(setting))
        except Unavailable as reason:
            outcomes.append(not_run(name, "", reason.message))
    return outcomes
