"""The demonstration: two models that are right equally often, of which one gives its training set away."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from divulge import atomic
from divulge.comparison import Comparison, compare
from divulge.errors import InputError
from divulge.evidence import Evidence
from divulge.pipeline import audit
from divulge.policy import Policy
from divulge.report import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0
MEMBERS = 797  # of 1,797 images: the other 1,000 are just enough to measure the tail at 1 %
SLICES = ("class", "correct", "loss/10")
POLICY = """\
# Limits of the demonstration. `divulge explain DV101` says what the score means.
[gate]
score = { max = 0.15 }
tail = { max_lift = 10 }

[test_split]
used_for_selection = false
"""


class Demonstration(NamedTuple):
    """What was trained and audited, by model name, and the files that hold it.

    evidence, reports: under "overfit" and "regularised". comparison: of both, paired by image. files: in the order they
    were written.
    """

    evidence: dict[str, Evidence]
    reports: dict[str, Report]
    comparison: Comparison
    files: list[Path]


def demonstrate(folder: Path, *, progress: Callable[[int, int, str], None] | None = None) -> Demonstration:
    """Train two classifiers on scikit-learn's digits, audit both, write what came out.

    Args:
        folder: gets compare.html, a page and a run file of each model, predictions.npz (the overfit model's) and
            demo.toml (the policy).
        progress: called with (steps done, all steps, what is being done).

    Raises:
        InputError: DV035, the folder cannot be written to.
    """
    _check(folder)
    tell = progress or (lambda done, total, what: None)
    policy = Policy.from_mapping(tomllib.loads(POLICY), source="the demo")
    evidence: dict[str, Evidence] = {}
    for at, name in enumerate(("overfit", "regularised")):
        tell(at, 5, f"training the {name} model")
        evidence[name] = trained(name)
    reports: dict[str, Report] = {}
    for at, (name, rows) in enumerate(evidence.items()):
        tell(2 + at, 5, f"auditing the {name} model")
        reports[name] = audit(rows, slices=SLICES, policy=policy, seed=SEED, name=f"{name}, digits")
    tell(4, 5, "drawing the pages")
    comparison = compare(*reports.values(), names=list(reports), evidence=list(evidence.values()))
    files = _written(folder, evidence["overfit"], reports, comparison)
    tell(5, 5, "done")
    return Demonstration(evidence, reports, comparison, files)


def _check(folder: Path) -> None:
    """Refuse a folder before the training, without making it."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        reason = "is not writable" if nearest.is_dir() else "is not a folder"
        raise InputError("DV035", f"cannot write to {folder}: {nearest} {reason}. Choose another place.")


def trained(name: str) -> Evidence:
    """The evidence of one of the two models, trained in one thread, so that a machine gives one result.

    Args:
        name: "overfit", boosted deep trees, which learn each record by heart; or "regularised", a small neural
            network with weight decay.

    >>> len(trained("overfit"))
    1797
    """
    from sklearn.datasets import load_digits
    from threadpoolctl import threadpool_limits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    members, others = order[:MEMBERS], order[MEMBERS:]
    model = _model(name)
    with threadpool_limits(limits=1):
        model.fit(images[members] / 16, labels[members])
        probs = [model.predict_proba(images[rows] / 16) for rows in (members, others)]
    sides: list[dict[str, NDArray[Any]]] = [
        {"probs": of_side, "labels": labels[rows], "ids": rows}
        for of_side, rows in zip(probs, (members, others), strict=True)
    ]
    return Evidence.from_splits(*sides)


def _model(name: str) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.neural_network import MLPClassifier

    if name == "overfit":
        return GradientBoostingClassifier(max_depth=6, max_features="sqrt", subsample=0.7, random_state=SEED)
    return MLPClassifier((128,), alpha=2.0, max_iter=400, random_state=SEED)


def _written(folder: Path, predictions: Evidence, reports: dict[str, Report], comparison: Comparison) -> list[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("DV035", f"cannot make the folder {folder}: {error.strerror}") from error
    files = [folder / "compare.html"]
    comparison.to_html(files[0])
    for name, report in reports.items():
        files += [folder / f"{name}.html", folder / f"{name}.json"]
        report.to_html(files[-2], series=comparison)
        report.save(files[-1])
    predictions.save(folder / "predictions.npz")
    with atomic.replacing(folder / "demo.toml") as temporary:
        temporary.write_text(POLICY, encoding="utf-8")
    return [*files, folder / "predictions.npz", folder / "demo.toml"]
