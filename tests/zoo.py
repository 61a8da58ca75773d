"""Models to attack: small ones that people train every day; shared by test_zoo.py and benchmarks/attacks.py.

Declared before any attack's results on it were looked at, and kept whatever they are. So is how it is judged:

- Of each target and replicate the sides are drawn afresh (a replicate of "noisy" is a fresh problem) and a model is
  trained on the members; of a leak-free target on a third set of rows, as many, so that it saw neither side. The
  evidence is judged twice: outputs and labels alone, and with the model's inputs as `features`.
- A gain is score(default set) - score(loss alone), or thorough - default, in one replicate, by the value of
  `divulge.audit(..., controls=()).score`. Its mean over the replicates has a 95 % t-interval. Replicates share a data
  set, so the interval speaks of that data set.
- "At least the loss, within noise": the interval's high end is 0 or more. "Credibly above": its low end is above 0.
- A target *leaks* where the mean score of the thorough set over the replicates is credibly above 0.02.
- AUC likewise: the AUC on one half of the audit (`divulge.folds.halves`) of the attack whose AUC is the largest on the
  other half, both ways, averaged.
- A leak-free target's replicate is an alarm where the low end of a set's score is above 0: at most 5 % may be.

Fashion-MNIST is read from the folder where Debian's package dataset-fashion-mnist puts it. Environment variable
DIVULGE_FASHION: another folder, or "keras" for the loader of Keras, which downloads it.
"""

from __future__ import annotations

import copy
import gzip
import importlib.util
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t
from sklearn import datasets
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from divulge import Evidence, Unavailable, selection
from divulge.attacks import NamedAttack
from divulge.folds import halves
from divulge.identity import identified
from divulge.metrics import Estimate
from divulge.roc import Roc, exact_slices, rank, tags
from divulge.scoring import scores_of, with_signals

ERROR = 0.05
LEAKS = 0.02
VALIDATION = 1000  # records that choose when to stop, on neither side
FASHION = "/usr/share/datasets/fashion-mnist"


class Rows(NamedTuple):
    """x: (n, d) float32 inputs; y: (n,) int64 classes."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Rows:
        return Rows(self.x[rows], self.y[rows])


Predict = Callable[[NDArray[np.float32]], NDArray[Any]]
Fit = Callable[[Rows, Rows, int], Predict]


@dataclass(frozen=True)
class Target:
    """A kind of model on a data set.

    Attributes:
        name: of this target, nobody else's.
        data: "digits", "cancer", "wine", "noisy" or "fashion".
        fit: (rows to train on, validation rows, seed) -> the trained model's outputs of inputs.
        kind: what those are: "probs" (float64) or "logits" (float32).
        overfit: made to fit its training rows (nearly) without a mistake.
        leak_free: trained on neither side.
        members, nonmembers: how many.
        replicates: how often it is drawn and trained.
    """

    name: str
    data: str
    fit: Fit
    kind: str
    overfit: bool
    leak_free: bool
    members: int
    nonmembers: int
    replicates: int

    def __str__(self) -> str:
        return self.name

    def evidence(self, replicate: int) -> Evidence:
        """Draw both sides, train, and ask the model; the same for the same name and replicate."""
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), replicate])
        third = self.members if self.leak_free else 0
        validation = VALIDATION if self.data == "fashion" else 0
        sizes = (self.members, self.nonmembers, third, validation)
        rows = DATA[self.data](sum(sizes), rng)
        parts = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
        members, others, unseen, held = (rows.take(part) for part in parts)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # how long each trains is declared, converged or not
            predict = self.fit(unseen if self.leak_free else members, held, int(rng.integers(2**31)))
        sides = [{self.kind: predict(side.x), "labels": side.y, "features": side.x} for side in (members, others)]
        return Evidence.from_splits(*sides)


def views(evidence: Evidence) -> dict[str, Evidence]:
    """What the attacker may know: outputs and labels alone, and with them the model's inputs."""
    return {"outputs": replace(evidence, features=None), "features": evidence}


# --------------------------------------------------------------------------------------------------- the data


@cache
def _bundled(name: str) -> Rows:
    loader = {"digits": datasets.load_digits, "cancer": datasets.load_breast_cancer, "wine": datasets.load_wine}[name]
    x, y = loader(return_X_y=True)
    return Rows(x.astype(np.float32), y.astype(np.int64))


def _drawn(name: str) -> Callable[[int, np.random.Generator], Rows]:
    """Rows of a data set that scikit-learn brings, in random order."""

    def draw(n: int, rng: np.random.Generator) -> Rows:
        rows = _bundled(name)
        return rows.take(rng.permutation(len(rows.y))[:n])

    return draw


def _noisy(n: int, rng: np.random.Generator) -> Rows:
    """A fresh problem; one label in five is drawn at random, so to know it is to have seen the record."""
    x, y = datasets.make_classification(
        n, n_features=20, n_informative=10, n_classes=5, flip_y=0.2, random_state=int(rng.integers(2**31))
    )
    return Rows(x.astype(np.float32), y.astype(np.int64))


@cache
def _fashion() -> Rows:
    place = os.environ.get("DIVULGE_FASHION", FASHION)
    if place == "keras":
        import keras

        (x, y), _ = keras.datasets.fashion_mnist.load_data()
    else:
        x, y = (_idx(Path(place) / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
    return Rows((x.reshape(len(x), -1) / 255).astype(np.float32), y.astype(np.int64))


def _idx(path: Path) -> NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(content[3])]
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _images(n: int, rng: np.random.Generator) -> Rows:
    rows = _fashion()
    return rows.take(rng.permutation(len(rows.y))[:n])


DATA: dict[str, Callable[[int, np.random.Generator], Rows]] = {
    "digits": _drawn("digits"),
    "cancer": _drawn("cancer"),
    "wine": _drawn("wine"),
    "noisy": _noisy,
    "fashion": _images,
}


def missing(target: Target) -> str | None:
    """What is not installed that this target needs, or None where nothing is."""
    if target.data != "fashion":
        return None
    place = os.environ.get("DIVULGE_FASHION", FASHION)
    if importlib.util.find_spec("torch") is None:
        return "torch"
    if place == "keras":
        return None if importlib.util.find_spec("keras") else "keras"
    file = Path(place) / "train-images-idx3-ubyte.gz"
    return None if file.is_file() else f"{file} (Debian's package dataset-fashion-mnist; or DIVULGE_FASHION)"


# ------------------------------------------------------------------------------------------------- the models


def _sklearn(make: Callable[[int], Any]) -> Fit:
    def fit(rows: Rows, held: Rows, seed: int) -> Predict:
        model = make(seed).fit(rows.x, rows.y)
        return lambda x: model.predict_proba(x).astype(np.float64)

    return fit


def _scaled(model: Any) -> Any:
    return make_pipeline(StandardScaler(), model)


class Model(NamedTuple):
    """How one is made from a seed, and whether it is made to fit its training rows without a mistake."""

    make: Callable[[int], Any]
    overfit: bool


MODELS = {
    "forest": Model(lambda seed: RandomForestClassifier(100, random_state=seed), True),
    "boosting": Model(lambda seed: HistGradientBoostingClassifier(random_state=seed), True),
    "mlp": Model(lambda seed: _scaled(MLPClassifier((256,), max_iter=300, random_state=seed)), True),
    "logistic": Model(lambda seed: _scaled(LogisticRegression(C=100, max_iter=1000)), False),
    "knn": Model(lambda seed: _scaled(KNeighborsClassifier(5)), False),
    # In float64: its float32 log-likelihoods lose so many digits that some probabilities do not sum to 1.
    "bayes": Model(lambda seed: make_pipeline(FunctionTransformer(np.float64), GaussianNB()), False),
}


def _cnn(patience: int | None) -> Fit:
    """Two convolutions of 16 and 32 channels, a dense layer of 64, Adam at 0.002, batches of 32, 25 epochs.

    patience: stop after so many epochs without a better accuracy on the validation rows, and keep the best epoch's
    weights; None: never.
    """

    def fit(rows: Rows, held: Rows, seed: int) -> Predict:
        import torch

        def tensor(x: NDArray[np.float32]) -> torch.Tensor:
            return torch.from_numpy(x.reshape(-1, 1, 28, 28))

        def predict(x: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.no_grad():
                return np.concatenate(
                    [net(tensor(x[start : start + 1000])).numpy() for start in range(0, len(x), 1000)]
                )

        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
            torch.manual_seed(seed)
            net = torch.nn.Sequential(
                torch.nn.Conv2d(1, 16, 3, padding=1),
                torch.nn.ReLU(),
                torch.nn.MaxPool2d(2),
                torch.nn.Conv2d(16, 32, 3, padding=1),
                torch.nn.ReLU(),
                torch.nn.MaxPool2d(2),
                torch.nn.Flatten(),
                torch.nn.Linear(32 * 7 * 7, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, 10),
            )
            optimizer = torch.optim.Adam(net.parameters(), 2e-3)
            x, y = tensor(rows.x), torch.from_numpy(rows.y)
            best, since, weights = -1.0, 0, None
            for _ in range(25):
                for batch in torch.randperm(len(y)).split(32):
                    optimizer.zero_grad()
                    torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
                    optimizer.step()
                if patience is None:
                    continue
                right = float((predict(held.x).argmax(axis=1) == held.y).mean())
                best, since, weights = (
                    (right, 0, copy.deepcopy(net.state_dict())) if right > best else (best, since + 1, weights)
                )
                if since >= patience:
                    break
            if weights is not None:
                net.load_state_dict(weights)
        return predict

    return fit


# ---------------------------------------------------------------------------------------------------- the zoo

SIZES = {"digits": (898, 899, 10), "cancer": (284, 285, 10), "wine": (89, 89, 10), "noisy": (2000, 10_000, 5)}


def _target(data: str, model: str) -> Target:
    made = MODELS[model]
    return Target(f"{data}/{model}", data, _sklearn(made.make), "probs", made.overfit, False, *SIZES[data])


def _network(name: str, patience: int | None, leak_free: bool = False) -> Target:
    overfit = patience is None
    return Target(f"fashion/{name}", "fashion", _cnn(patience), "logits", overfit, leak_free, 2000, 10_000, 3)


def _leak_free(target: Target, **changes: int) -> Target:
    return replace(target, name=f"{target.name}/leak-free", leak_free=True, **changes)


ZOO: tuple[Target, ...] = (
    *(_target(data, model) for data in SIZES for model in MODELS),
    _network("cnn-overfit", None),
    _network("cnn-early-stopping", 2),
    _leak_free(_target("digits", "forest"), members=599, nonmembers=599, replicates=20),
    _leak_free(_target("digits", "mlp"), members=599, nonmembers=599, replicates=20),
    _leak_free(_target("noisy", "forest")),
    _leak_free(_target("noisy", "boosting")),
    _leak_free(_network("cnn-overfit", None)),
)


# ------------------------------------------------------------------------------------------------ the judging


class Scored(NamedTuple):
    """What one attack made of the evidence. auc: (2,) within each half of the audit; seconds: without the signals'."""

    roc: Roc
    auc: tuple[float, float]
    seconds: float


class Attacked(NamedTuple):
    """By attack's name: its scores' figures, or why it could not run."""

    scored: dict[str, Scored]
    skipped: dict[str, str]

    def score(self, names: Iterable[str]) -> Estimate:
        """The vulnerability score of a set of attacks, as an audit by these alone gives it."""
        return selection.score({name: self.scored[name].roc for name in names if name in self.scored}, ERROR)

    def auc(self, names: Iterable[str]) -> float:
        """The AUC of the attack whose AUC is the largest on the other half, averaged over both ways."""
        aucs = np.array([self.scored[name].auc for name in names if name in self.scored])
        return float(np.mean([aucs[np.argmax(aucs[:, 1 - half]), half] for half in (0, 1)]))


def attacked(evidence: Evidence, attacks: Sequence[NamedAttack], seed: int = 0) -> Attacked:
    """Run each attack once, as the pipeline does; what sets of them find is then read from the same scores."""
    evidence = with_signals(identified(evidence), attacks)
    half = halves(evidence, seed)
    tag = tags(evidence.member, half)
    found = Attacked({}, {})
    for attack in attacks:
        start = time.perf_counter()
        try:
            scores = scores_of(attack, evidence, seed)
        except Unavailable as reason:
            found.skipped[attack.name] = reason.message
            continue
        seconds = time.perf_counter() - start
        ranked = rank(scores)
        roc = next(exact_slices(ranked, tag, np.zeros(1, np.int32), 1, fitted=attack.fitted))
        order = (~ranked.keys).astype(np.float64)  # finite, and tied where the scores are
        auc = tuple(float(roc_auc_score(evidence.member[half == side], order[half == side])) for side in (0, 1))
        found.scored[attack.name] = Scored(roc, auc, seconds)
    return found


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean and its 95 % t-interval; without ends for fewer than two values."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(mean, float("nan"), float("nan"), "one replicate")
    reach = float(t.ppf(1 - ERROR / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - reach, mean + reach)


def leaks(scores: Sequence[float]) -> bool:
    """Whether the thorough set's mean score over the replicates is credibly above 0.02."""
    return mean_interval(scores).low > LEAKS
