"""The attacks on trial: membership dealt out at random, and a leak of known size planted."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from divulge import folds, metrics
from divulge.attacks import NamedAttack
from divulge.attacks.moments import means, target_of
from divulge.controls.setting import (
    CONTROL_ERROR,
    INVALID,
    OK,
    Outcome,
    Setting,
    how_many,
    more_often,
    not_run,
    number,
    subsample,
)
from divulge.doors.arrays import distinct
from divulge.errors import Unavailable
from divulge.folds import effective_shares
from divulge.metrics import NAN, Estimate
from divulge.roc import exact

if TYPE_CHECKING:
    from divulge.evidence import Evidence, References

PERMUTATIONS = 9
NULL_ERROR = CONTROL_ERROR / 10  # one-sided, shared by the attacks: an attack that cheats is seen from far
UNEVEN = CONTROL_ERROR / 10
TRIAL_SAMPLE = 2_000  # rows a side that an attack is tried on
TRIALS = PERMUTATIONS + 2  # about how often: the positive control takes two, four where an attack misses


def scored(setting: Setting) -> Outcome:
    """Whether an attack failed to score more records of one side than of the other."""
    text = "every attack scored every record"
    if any(k or j for k, j in setting.unscored.values()):
        text = "every attack left as many records of one side unscored as of the other"
    p = _unevenness(setting)
    worst = min(p, key=lambda name: p[name])
    if p[worst] >= UNEVEN:
        return Outcome("scored", "DV212", OK, number(p[worst]), text)
    text = "{} could not score {:,} members and {:,} non-members".format(worst, *setting.unscored[worst])
    return Outcome("scored", "DV212", INVALID, number(p[worst]), text)


def _unevenness(setting: Setting) -> dict[str, float]:
    """Each attack's p that it leaves members and non-members unscored at one rate, for all attacks together."""
    m, n = setting.sizes
    tests = 2 * len(setting.unscored)
    return {
        name: min(1.0, tests * min(more_often(k, m, j, n), more_often(j, n, k, m)))
        for name, (k, j) in setting.unscored.items()
    }


def _tried(setting: Setting) -> list[NamedAttack]:
    """The attacks worth a trial: not those of which `scored` has said enough."""
    p = _unevenness(setting)
    return [attack for attack in setting.attacks if p[attack.name] >= UNEVEN]


def _permuted(evidence: Evidence, rng: np.random.Generator) -> Evidence:
    """Membership dealt out again, to whole groups where there are groups."""
    if evidence.groups is None:
        return replace(evidence, member=rng.permutation(evidence.member))
    _, group = distinct(evidence.groups)
    mostly = np.bincount(group, weights=evidence.member) * 2 > np.bincount(group)
    return replace(evidence, member=rng.permutation(mostly)[group])


def null(setting: Setting) -> Outcome:
    """Membership dealt out at random: an attack that still tells the sides apart cheats."""
    from scipy.special import stdtrit

    rng = setting.rng("null")
    part = subsample(_raw(setting), TRIAL_SAMPLE, setting.seed)
    attacks = _tried(setting)
    if not attacks:
        return not_run("null", "DV208", "no attack scored both sides alike")
    aucs = {attack.name: np.zeros(PERMUTATIONS) for attack in attacks}
    for at in range(PERMUTATIONS):
        dealt = _permuted(part, rng)
        if not 2 <= int(dealt.member.sum()) <= len(dealt) - 2:
            return not_run("null", "DV208", "too few records, or groups, to deal membership out again")
        halves = folds.halves(dealt, setting.seed)
        for attack in attacks:
            aucs[attack.name][at] = exact(setting.run(attack, dealt), dealt.member, halves).placement.auc
    quantile = float(stdtrit(PERMUTATIONS - 1, 1 - NULL_ERROR / len(aucs)))
    lows = {name: x.mean() - quantile * x.std(ddof=1) / math.sqrt(PERMUTATIONS) for name, x in aucs.items()}
    worst = max(lows, key=lambda name: lows[name])
    mean = float(aucs[worst].mean())
    text = f"with membership dealt out at random {PERMUTATIONS} times ({how_many(part, setting.sizes)})"
    measured = Estimate(mean, float(lows[worst]), NAN)
    if lows[worst] > 0.5:
        text = f"{worst} still reaches AUC {mean:.3f} {text}: it sees membership where there is none"
        return Outcome("null", "DV208", INVALID, measured, text)
    return Outcome("null", "DV208", OK, measured, f"the attacks stay at chance {text}")


def positive(setting: Setting) -> Outcome:
    """A leak of known size planted where there is none: an attack that misses it twice cannot be trusted to find one.

    Membership is dealt out at random first, so that a real leak cannot help; then some of the pseudo-members' true
    class is made certain, and their given signals raised, so many that a working attack finds them 99 times in 100.
    """
    rng = setting.rng("positive")
    part = _as_logits(subsample(_raw(setting), TRIAL_SAMPLE, setting.seed))
    members = int(part.member.sum())
    of_members, of_nonmembers = effective_shares(part.member, part.groups)
    m, n = of_members * members, of_nonmembers * (len(part) - members)
    share = (math.sqrt(2) * 1.96 + 2.33) * math.sqrt((1 / m + 1 / n) / 4)
    if share > 0.5:
        few = "records" if part.groups is None else "records, or groups"
        return not_run("positive", "DV209", f"needs a planted advantage of {share:.2f} in so few {few}")
    left = attacks = _tried(setting)
    if not attacks:
        return not_run("positive", "DV209", "no attack scored both sides alike")
    blind: list[str] = []
    for _ in range(2):
        dealt = _permuted(part, rng)
        if not 2 <= int(dealt.member.sum()) <= len(dealt) - 2:
            return not_run("positive", "DV209", "too few records, or groups, to deal membership out again")
        members_of = np.flatnonzero(dealt.member)
        rows = rng.choice(members_of, math.ceil(share * len(members_of)), replace=False)
        planted = _planted(dealt, rows, rng)
        halves = folds.halves(planted, setting.seed)
        still = []
        for attack in left:
            before, after = setting.run(attack, dealt), setting.run(attack, planted)
            roc = exact(after, planted.member, halves)
            two_valued = len(roc.thresholds) == 3 or attack.needs == ("correct",)
            if two_valued or (not roc.constant and np.array_equal(before, after, equal_nan=True)):
                blind.append(attack.name)  # it reads other fields, or has but two values: nothing was planted for it
            elif not (metrics.advantage(roc, 0.05).low > 0 or _at_the_top(before, after, rows)):
                still.append(attack)
        left = still
    text = f"an advantage of {share:.2f} planted in {how_many(part, setting.sizes)}"
    if left:
        text = f"{left[0].name} failed its positive control ({text}): a low number from it means nothing"
        return Outcome("positive", "DV209", INVALID, number(share), text)
    if len(set(blind)) == len(attacks):
        return not_run("positive", "DV209", "the attacks read neither outputs nor given signals")
    return Outcome("positive", "DV209", OK, number(share), f"every attack found {text}")


def _at_the_top(before: NDArray[Any], after: NDArray[Any], rows: NDArray[np.int64]) -> bool:
    """Whether an attack raised the planted rows to the highest score it has: a rank cannot tell them from its best."""
    best = np.nanmax(after) if np.isfinite(after).any() else np.nan
    return bool((after[rows] == best).all() and (before[rows] < best).any())


def _raw(setting: Setting) -> Evidence:
    """The records without the signals that the audit computed: they are computed anew where something is planted."""
    evidence = setting.part
    return replace(evidence, signals={name: evidence.signals[name] for name in setting.given})


def _as_logits(evidence: Evidence) -> Evidence:
    """Outputs as float64 logits, so that a certain record can be made more certain than all others."""
    outputs = evidence.outputs
    if outputs is None or evidence.kind != "probs":
        return evidence if outputs is None else replace(evidence, outputs=outputs.astype(np.float64))
    p = np.clip(outputs.astype(np.float64), 1e-37, None)
    one_of_many = outputs.ndim == 2 and (evidence.labels is None or evidence.labels.ndim == 1)
    z = np.log(p) if one_of_many else np.log(p) - np.log(np.clip(1 - p, 1e-37, None))
    return replace(evidence, outputs=z, kind="logits")


def _planted(evidence: Evidence, rows: NDArray[np.int64], rng: np.random.Generator) -> Evidence:
    """Some members made certain: true class and given signals above everybody's."""
    raised = {}
    for name, values in evidence.signals.items():
        known = values[np.isfinite(values)]
        top = float(known.max()) if len(known) else 0.0
        spread = max(float(np.ptp(known)) if len(known) else 0.0, 1.0)
        raised[name] = values.astype(np.float64)
        raised[name][rows] = top + spread * (0.1 + rng.random(len(rows)))
    return replace(
        evidence,
        signals=raised,
        outputs=_certain(evidence, rows, rng),
        traces=_learned(evidence, rows, rng),
        references=_remembered(evidence, rows, rng),
    )


def _remembered(evidence: Evidence, rows: NDArray[np.int64], rng: np.random.Generator) -> References | None:
    """The references and the target's signals with some rows that whoever was trained on them knows by heart.

    Models without such a row say the least of it that any says of any, on average; those with it, and the target, more
    than all. How the models are spread about their mean stays as it is.
    """
    references = evidence.references
    if references is None or references.source == "bagging":
        return references
    signals, targets, within = {}, {}, references.trained_on[:, rows, None]
    for name, values in references.signals.items():
        try:
            target = target_of(evidence, name)
        except Unavailable:
            continue
        few = values[:, rows].astype(np.float64)
        known = np.concatenate([x[np.isfinite(x)] for x in (values, target)])
        if not len(known):
            continue
        top, low = float(known.max()), float(known.min())
        few = np.where(np.isfinite(few), few, low)
        spread = max(top - low, 1.0)
        height = of_models = top + spread * (0.1 + rng.random((len(rows), target.shape[1])))
        if top <= 0 and (name == "loss" or name.startswith("log_prob")):
            height = -1e-3 * rng.random(height.shape)  # of a probability's logarithm 0 is the most
            apart = 0.25 if name == "loss" else 0.5  # else a ratio to their mean is 2 at most, which others reach
            of_models = height + apart * (low - height)
        mean_in, mean_out = means(few, references.trained_on[:, rows])
        few = np.where(within, few - mean_in + of_models, few - mean_out + low)
        signals[name] = values.astype(np.float64)
        signals[name][:, rows] = np.minimum(few, 0.0) if height.max() <= 0 else few
        targets[name] = target.copy()
        targets[name][rows] = height
    return replace(references, signals=signals or references.signals, target=targets or references.target)


def _learned(evidence: Evidence, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any] | None:
    """The traces with some rows' losses falling early, from the highest to far below all others."""
    traces = evidence.traces
    if traces is None or not np.isfinite(traces).any():
        return traces
    traces = traces.astype(np.float64)
    top, low = np.nanmax(traces), np.nanmin(traces)
    depth = max(top - low, 1.0) * (5 + rng.random(len(rows)))
    traces[rows] = low - depth[:, None]
    traces[np.ix_(rows, np.arange(math.ceil(0.3 * traces.shape[1])))] = top
    return traces


def _certain(evidence: Evidence, rows: NDArray[np.int64], rng: np.random.Generator) -> NDArray[Any] | None:
    """The outputs with some rows' predictions right and surer than all others; unlabelled: just surer."""
    outputs, labels = evidence.outputs, evidence.labels
    if outputs is None:
        return None
    outputs = outputs.copy()
    if evidence.task == "regression":
        assert labels is not None
        if outputs.ndim == 2:
            outputs[rows, 0] = labels[rows]
            outputs[rows, 1] = outputs[:, 1].min() * (0.1 + 0.8 * rng.random(len(rows)))
            return outputs
        # All others are moved away: near predictions are common, and no gap would set the planted ones apart.
        away = outputs - labels
        widest = max(float(np.nanmax(np.abs(away))), 1e-6)
        away += np.where(away < 0, -widest, widest)
        away[rows] = 0.1 * widest * rng.random(len(rows))
        return np.asarray(labels + away)
    part = outputs[rows]
    height = (np.abs(outputs).max() + 1) * (2.1 + rng.random(len(rows)))
    if part.ndim == 2 and (labels is None or labels.ndim == 1):
        target = part.argmax(axis=1) if labels is None else labels[rows]
        part[np.arange(len(rows)), target] = height
    else:
        sign = np.where(part > 0 if labels is None else labels[rows], 1.0, -1.0)
        part = sign * (height if part.ndim == 1 else height[:, None])
    outputs[rows] = part
    return outputs
