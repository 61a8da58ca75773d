"""What reference models buy: AUC and TPR at low FPR by number of references and attack, and what they cost.

    python benchmarks/references.py                          # tables in Markdown; an hour on two cores
    python benchmarks/references.py --only digits/forest     # one of them; --targets 2 --most 4: small
    python benchmarks/references.py --only cost              # seconds a model, one by one and side by side
    python benchmarks/references.py --only scoring           # attacks on 50,000 rows x 128 references

Half of the records train each model. 33 complementary pairs are trained; a target is the first of one of the first
eight pairs, its references are models of the 32 other pairs, so that each record is in half of them whichever its side.
"free": a five-fold cross-validation of the target's own members. Figures are means over the targets, which share data
and models: their range says how far one audit may be off, and is no interval. Finished models are kept (--store).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from divulge import Evidence, References, design, fit_references, references_from_cv
from divulge.attacks import AttackR, Difficulty, Lira, Ratio, Rmia
from divulge.attacks.reference import RATIO_BASE
from divulge.blocks import cores
from divulge.errors import Unavailable
from divulge.fits import Sklearn, Torch
from divulge.references.pinning import pinned
from zoo import DATA

PAIRS, TARGETS = 33, 8
COUNTS = (1, 2, 4, 16, 64)
ATTACKS = (
    Ratio(),
    RATIO_BASE,
    Rmia(),
    Difficulty(),
    Lira(),
    Lira("pooled"),
    Lira("per-example"),
    Lira(mode="offline"),
    AttackR(),
)
SIGNALS = ("log_odds", "log_prob@T=2", "loss")
FPRS = (0.01, 0.001)
SCORED = (50_000, 128)
LIMIT = 5.0  # scoring, in passes of numpy's mean and variance over the same array
UNDEFINED = "–"


def mlp() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))


def cnn() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def adam(parameters: Any) -> Any:
    import torch

    return torch.optim.Adam(parameters, lr=1e-3)


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y


def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Digits, a fifth of their labels drawn anew."""
    x, y = digits()
    rng = np.random.default_rng(0)
    return x, np.where(rng.random(len(y)) < 0.2, rng.integers(0, 10, len(y)), y)


def fashion() -> tuple[np.ndarray, np.ndarray]:
    rows = DATA["fashion"](5_000, np.random.default_rng(0))
    return rows.x, rows.y


MODELS: dict[str, tuple[Callable[[], Any], Any]] = {
    "digits/forest": (digits, Sklearn(RandomForestClassifier(100))),
    "digits/mlp": (digits, Torch(mlp, epochs=200, batch_size=32, optimizer=adam)),
    "noisy digits/mlp": (noisy, Torch(mlp, epochs=200, batch_size=32, optimizer=adam)),
    "fashion/cnn": (fashion, Torch(cnn, epochs=60, batch_size=64, optimizer=adam)),
}


def table(name: str, targets: int, most: int, store: Path | None) -> None:
    make, fit = MODELS[name]
    data = make()
    n, pairs = len(data[1]), min(PAIRS, max(most // 2, 1) + 1)
    trained_on = design(n, 2 * pairs, seed=0)
    start = time.perf_counter()
    all_models = fit_references(fit, data, trained_on, signal=SIGNALS, executor="processes", store=store)
    seconds = time.perf_counter() - start
    targets = min(targets, pairs)
    found: dict[tuple[str, str], list[list[float]]] = {}
    right: list[list[float]] = []
    for t in range(targets):
        k = 2 * t
        member = trained_on[k]
        own = {signal: values[k] for signal, values in all_models.signals.items()}
        right.append([float((own["loss"][rows, 0] > -math.log(2)).mean()) for rows in (member, ~member)])
        add(found, ("0", "loss"), member, own["loss"][:, 0])
        others = [2 * j + side for step in range(pairs) for side in (0, 1) if (j := (t + 1 + step) % pairs) != t]
        for label, references in some(all_models, others, own, most, free(fit, data, member, own, t)):
            for attack in ATTACKS:
                evidence = Evidence(member, references=references)
                try:
                    score = attack(evidence, np.random.default_rng(t))
                except Unavailable:
                    continue
                if not np.isnan(score).any():
                    add(found, (label, str(attack)), member, score)
    side = np.mean(right, axis=0)
    print(f"\n### {name}: {n // 2:,} members of {n:,}, {targets} targets\n")
    print(f"Label given more than half: {side[0]:.1%} of members, {side[1]:.1%} of non-members. ", end="")
    print(f"{2 * pairs} models in {seconds:.0f} s" + (" (those that were not kept)" if store else "") + ".\n")
    print("| references | attack | AUC | TPR at 1 % | TPR at 0.1 % |\n|---|---|--:|--:|--:|")
    for (label, attack), values in found.items():
        cells = [shown([value[at] for value in values]) for at in range(3)]
        print(f"| {label} | `{attack}` | " + " | ".join(cells) + " |", flush=True)


def some(
    models: References, others: list[int], own: dict[str, np.ndarray], most: int, free: References
) -> Iterator[tuple[str, References]]:
    yield "free (5-fold CV)", free
    for count in (count for count in COUNTS if count <= min(most, len(others))):
        chosen = others[:count]
        yield (
            str(count),
            References(
                signals={name: values[chosen] for name, values in models.signals.items()},
                target=own,
                trained_on=models.trained_on[chosen],
            ),
        )


def free(fit: Any, data: Any, member: np.ndarray, own: dict[str, np.ndarray], seed: int) -> References:
    """References from a cross-validation of the members, by the recipe that trained the target."""
    rows = np.flatnonzero(member)
    splits = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(rows, data[1][rows]))

    def model(number: int) -> Callable[[Any], Any]:
        predict = fit(data, np.sort(rows[splits[number][0]]), seed * 5 + number)
        return lambda numbers: predict(data, numbers, 0)

    numbered = np.arange(len(member)), data[1]  # a record's "inputs" are its number
    references = references_from_cv([model(k) for k in range(5)], numbered, splits, member=member, signal=SIGNALS)
    return References(signals=references.signals, target=own, trained_on=references.trained_on, source="cv")


def add(
    found: dict[tuple[str, str], list[list[float]]], key: tuple[str, str], member: np.ndarray, score: np.ndarray
) -> None:
    nonmembers = np.sort(score[~member])[::-1]
    tprs = [float((score[member] > nonmembers[math.floor(fpr * len(nonmembers))]).mean()) for fpr in FPRS]
    found.setdefault(key, []).append([float(roc_auc_score(member, score)), *tprs])


def shown(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def scoring(rows: int, models: int, repeats: int) -> None:
    """Each attack against one pass of mean and variance over the same array, in the same run."""
    rng = np.random.default_rng(0)
    trained_on, member = design(rows, models, seed=0), rng.random(rows) < 0.5
    values = rng.normal(size=(models + 1, rows)) + 3 * rng.normal(size=rows)
    values += np.vstack([trained_on, member])
    signals = {"log_odds": values, "log_prob@T=2": -np.logaddexp(0, -values / 2)}
    references = References(
        signals={name: x[:-1, :, None].astype(np.float32) for name, x in signals.items()},
        target={name: x[-1, :, None] for name, x in signals.items()},
        trained_on=trained_on,
    )
    evidence = Evidence(member, references=references)
    array = references.signals["log_odds"]
    print(f"\n{rows:,} rows x {models} references, float32; one pass: array.mean(0), array.var(0)\n")
    for attack in ATTACKS:
        ratios, times = [], []
        for _ in range(repeats + 1):
            pass_ = seconds_of(lambda: (array.mean(axis=0), array.var(axis=0)))
            times.append(seconds_of(lambda attack=attack: attack(evidence, rng)))
            ratios.append(times[-1] / pass_)
        ratios, times = ratios[1:], times[1:]  # the first loads and warms up
        spread = f"[{min(ratios):.2f}, {max(ratios):.2f}]"
        print(f"{attack!s:20} {np.median(ratios):.2f} {spread} passes, limit {LIMIT:g}; {np.median(times):.3f} s")


def cost(models: int) -> None:
    """Seconds of one of so many models: in a loop on one thread, and side by side on as many threads as cores."""
    print("\n| models | one by one | side by side |\n|---|--:|--:|")
    for name, (make, fit) in MODELS.items():
        data = make()
        rows = [np.flatnonzero(row) for row in design(len(data[1]), models)]
        with pinned(0):
            alone = seconds_of(lambda fit=fit, data=data, rows=rows: [fit(data, rows[k], k) for k in range(2)]) / 2
        together = "–"
        if isinstance(fit, Torch):
            with pinned(0, threads=cores()):
                many = seconds_of(lambda fit=fit, data=data, rows=rows: fit.many(data, rows, range(models))) / models
            together = f"{many:.2f} s"
        print(f"| {name} | {alone:.2f} s | {together} |", flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=(*MODELS, "cost", "scoring"), nargs="+", default=[*MODELS, "cost", "scoring"])
    parser.add_argument("--targets", type=int, default=TARGETS, help=f"at most {PAIRS}")
    parser.add_argument("--most", type=int, default=max(COUNTS), help="references")
    parser.add_argument("--store", type=Path, help="a folder that keeps what is trained; default: a temporary one")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows of scoring")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    for name in (name for name in options.only if name in MODELS):
        with tempfile.TemporaryDirectory() as folder:
            table(
                name,
                options.targets,
                options.most,
                Path(options.store or folder) / name.replace("/", "-").replace(" ", "-"),
            )
    if "cost" in options.only:
        cost(min(options.most, 32))
    if "scoring" in options.only:
        scoring(max(int(SCORED[0] * options.scale), 100), SCORED[1], options.repeats)


if __name__ == "__main__":
    main()
