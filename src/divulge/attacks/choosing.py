"""Choice of attack, its settings and its thresholds on pseudo-targets: each reference attacked by the others.

The target plays no part, so what is chosen costs its audit nothing: no allowance for having tried several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.moments import references_of
from divulge.attacks.reference import Ratio, every
from divulge.errors import InputError, Unavailable
from divulge.metrics import FPRS, NAN, allowed_rank, too_few
from divulge.roc import exact

if TYPE_CHECKING:
    from divulge.attacks.attack import Attack
    from divulge.evidence import Evidence, References

PSEUDO_TARGETS = 8
_A = (0.1, 0.3, 0.6, 1.0)  # the second is the usual one


class Choice(NamedTuple):
    """What did best on the pseudo-targets.

    attack: the one of the largest mean `by`.
    thresholds: false-positive rate -> the score above which such a share of the pseudo-targets' non-members lies; a
        float for each rate that their number carries.
    rows: one dict a candidate and figure: attack, metric ("auc" or "tpr"), fpr, value (mean over pseudo-targets), low,
        high (Student's t over them, 95 %, pointwise: pseudo-targets share models, so read it as a rough guide),
        pseudo_targets.
    """

    attack: Attack
    thresholds: dict[float, float]
    rows: list[dict[str, Any]]


def candidates(references: References) -> list[Any]:
    """The attacks that these references can serve: the ratio at each temperature, and at several a if one counts.

    >>> from divulge.evidence import References
    >>> one = References(signals={"loss": np.zeros((1, 9, 1), np.float32)}, trained_on=np.zeros((1, 9), bool))
    >>> len(candidates(one))
    7
    """
    within = references.trained_on.sum(axis=0)
    one_sided = bool(((within == 0) | (within == len(references.trained_on))).any())
    temperatures = {float(name.partition("@T=")[2]) for name in references.signals if name.startswith("log_prob@T=")}
    grid = [Ratio(a=a, temperature=t) for t in sorted(temperatures | {1.0}) for a in (_A if one_sided else _A[1:2])]
    found = [*every(references), *grid]
    return list({str(attack): attack for attack in found}.values())


def choose(
    references: References, attacks: Sequence[Attack] | None = None, *, by: str = "auc", seed: int = 0
) -> Choice:
    """The attack that does best on pseudo-targets.

    At most 8 references, chosen by the seed, are attacked by the others, less the one whose training records are the
    pseudo-target's non-members, or, of each record, one by lot of those on its other side: then each record is in as
    many of the rest, whichever its side.

    Args:
        references: at least 4 models, each trained on some of the records.
        attacks: to choose from, of `divulge.attacks.reference`; None: `candidates`.
        by: "auc", or "tpr@0.01" and other rates of 0.001, 0.01, 0.05, 0.1.
        seed: of which references are attacked, and of the attacks.

    Raises:
        InputError: DV056, `by` is none of these, or no attacks.
        Unavailable: too few references, or none of the attacks can run on them.

    >>> from divulge.evidence import References
    >>> rng = np.random.default_rng(0)
    >>> half = rng.random((4, 400)) < 0.5
    >>> trained_on = np.stack([half, ~half], axis=1).reshape(8, 400)
    >>> values = 3 * rng.normal(size=400) + rng.normal(size=(8, 400)) + trained_on
    >>> values = values[:, :, None].astype(np.float32)
    >>> str(choose(References(signals={"log_odds": values}, trained_on=trained_on)).attack)
    'lira(shrunk)'
    """
    fpr = _rate(by)
    tried = list(candidates(references) if attacks is None else attacks)
    if not tried:
        raise InputError("DV056", "expected attacks to choose from, got none")
    pseudo = list(pseudo_targets(references, seed))
    if not pseudo:
        raise Unavailable(
            "attacks are chosen on pseudo-targets: needs 4 reference models that were each trained on some of the "
            f"records, has {len(references.trained_on)} of source {references.source!r}"
        )
    scores: dict[str, list[NDArray[np.float64]]] = {}
    reasons = []
    for attack in tried:
        try:
            scores[str(attack)] = [
                np.asarray(attack(evidence, np.random.default_rng([seed, at])), np.float64)
                for at, evidence in enumerate(pseudo)
            ]
        except Unavailable as reason:
            reasons.append(f"{attack}: {reason.message}")
    if not scores:
        raise Unavailable(f"none of the attacks can run on pseudo-targets ({'; '.join(reasons)})")
    members = [evidence.member for evidence in pseudo]
    rows = [row for name, of_attack in scores.items() for row in _figures(name, of_attack, members)]
    wanted = ("auc", None) if fpr is None else ("tpr", fpr)
    value = {row["attack"]: row["value"] for row in rows if (row["metric"], row["fpr"]) == wanted}
    if not value:
        raise Unavailable(f"{by} needs more non-members a pseudo-target than there are")
    best = max(value, key=lambda name: value[name])
    nonmembers = np.concatenate([score[~member] for score, member in zip(scores[best], members, strict=True)])
    nonmembers = -np.sort(-np.where(np.isnan(nonmembers), -np.inf, nonmembers))
    least = min(int((~member).sum()) for member in members)
    carried = [rate for rate in FPRS if least >= 10 / rate]
    thresholds = {rate: float(nonmembers[allowed_rank(rate, len(nonmembers))]) for rate in carried}
    return Choice(next(attack for attack in tried if str(attack) == best), thresholds, rows)


def pseudo_targets(references: References, seed: int = 0) -> list[Evidence]:
    """Evidence in which a reference is the target and the others its references, at most 8; none if too few are left.

    Args:
        references: r models.
        seed: of which of them are taken.
    """
    from divulge.evidence import Evidence, References

    trained_on = references.trained_on
    if references.source not in ("trained", "outputs"):
        return []
    share = trained_on.mean(axis=1)
    order = np.random.default_rng(seed).permutation(np.flatnonzero((share > 0) & (share < 1)))
    found = []
    for k in order[:PSEUDO_TARGETS]:
        index = _others(trained_on, k, np.random.default_rng([seed, int(k)]))
        if len(index) < 2:
            continue
        found.append(
            Evidence(
                trained_on[k],
                references=References(
                    signals={n: np.take_along_axis(x, index[:, :, None], 0) for n, x in references.signals.items()},
                    target={name: values[k] for name, values in references.signals.items()},
                    trained_on=np.take_along_axis(trained_on, index, 0),
                    source=references.source,
                ),
            )
        )
    return found


def _others(trained_on: NDArray[np.bool_], k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(r - 2, 1 or n) the models that attack model k: without it, and without one of the other side of each record.

    The latter is its complement, if there is one, else one by lot for each record, or the number of models that had a
    record would tell its side.
    """
    apart = trained_on != trained_on[k]
    opposite = np.flatnonzero(apart.all(axis=1))
    if len(opposite):
        models = np.arange(len(trained_on))
        return np.flatnonzero((models != k) & (models != opposite[0]))[:, None]
    left_out = np.where(apart, 1 + rng.random(apart.shape, np.float32), 0)
    left_out[k] = 3
    return np.argsort(left_out, axis=0, kind="stable")[:-2]


def _figures(name: str, scores: Sequence[NDArray[np.float64]], members: Sequence[NDArray[np.bool_]]) -> list[Any]:
    from scipy.special import stdtrit

    by_figure: dict[tuple[str, float | None], list[float]] = {}
    for score, member in zip(scores, members, strict=True):
        roc = exact(score, member, np.arange(len(member)) % 2)
        by_figure.setdefault(("auc", None), []).append(roc.placement.auc)
        nonmembers = -np.sort(-np.where(np.isnan(score[~member]), -np.inf, score[~member]))
        for rate in FPRS:
            if too_few(roc, rate) is None:
                above = score[member] > nonmembers[allowed_rank(rate, len(nonmembers))]
                by_figure.setdefault(("tpr", rate), []).append(float(above.mean()))
    rows = []
    for (metric, fpr), values in by_figure.items():
        k = len(values)
        half = NAN if k < 2 else float(stdtrit(k - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(k))
        mean = float(np.mean(values))
        figure = {"attack": name, "metric": metric, "fpr": fpr, "value": mean, "low": mean - half, "high": mean + half}
        rows.append({**figure, "pseudo_targets": k})
    return rows


def _rate(by: str) -> float | None:
    known = {"auc": None, **{f"tpr@{rate:g}": rate for rate in FPRS}}
    if by not in known:
        raise InputError("DV056", f"expected to choose by one of {', '.join(known)}, got {by!r:.80}")
    return known[by]


@dataclass(frozen=True)
class Chosen:
    """The reference attack that does best on pseudo-targets, chosen when it runs; the target plays no part in that.

    Attributes:
        by: what it is to be best in; see `choose`.

    Raises:
        InputError: DV056, `by` is not known.

    >>> str(Chosen("tpr@0.01"))
    'references(tpr@0.01)'
    """

    by: str = "auc"

    def __post_init__(self) -> None:
        _rate(self.by)

    def __str__(self) -> str:
        return "references" if self.by == "auc" else f"references({self.by})"

    @property
    def cost(self) -> float:
        """About how many times as long as a threshold attack it takes."""
        return 400.0

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """(n,) float64 scores of the chosen attack; raises as `choose`."""
        references = replace(references_of(evidence), target=None)
        choice = choose(references, by=self.by, seed=int(rng.integers(2**31)))
        return np.asarray(choice.attack(evidence, rng), np.float64)
