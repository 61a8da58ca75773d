"""What a private training guarantees: (epsilon, delta) of Poisson-sampled Gaussian DP-SGD, by dp-accounting.

Every step draws each record on its own with probability `rate`, clips each record's gradient to norm `clip`, sums, and
adds Gaussian noise of standard deviation noise * clip to each coordinate. Two data sets are neighbours when one is the
other with one record added or removed.

Source: Abadi et al. 2016 (DP-SGD); Koskela et al. 2020 and Doroshenko et al. 2022 (privacy loss distributions).
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

from divulge.adapters.predictor import needed
from divulge.errors import InputError

ADJACENCY = "add or remove one record"
SMALLEST_DELTA = 1e-12  # below it the mass that the numerics cut off (1e-15 a step) would be seen
SMALLEST_NOISE, LARGEST_NOISE = 0.01, 1e4  # of the search in noise_for; epsilon is in the 100,000s below the first


class Privacy(NamedTuple):
    """What may be said of a training: it is (epsilon, delta)-differentially private.

    Attributes:
        epsilon: nats; an upper bound.
        delta: the probability with which the bound may fail.
        noise: noise multiplier: standard deviation of the noise / clip.
        rate: probability with which a step draws a record.
        steps: steps that ran, with those whose batch was empty.
        clip: L2 norm to which each record's gradient was clipped; None where the accounting stands alone.
        adjacency: which data sets are neighbours.
        accountant: method and library with its version.
        seeded: a seed was given: whoever has it can take the noise away.

    >>> print(Privacy(2.584, 1e-5, 1.0, 0.01, 2000, 1.0, ADJACENCY, "PLD, dp-accounting 0.6.0"))
    (2.59, 1e-05)-differentially private: add or remove one record; 2000 steps, rate 0.01, noise 1, clip 1; PLD, \
dp-accounting 0.6.0. This holds for the weights: not for training metrics, nor for choices made by looking at the data.
    """

    epsilon: float
    delta: float
    noise: float
    rate: float
    steps: int
    clip: float | None
    adjacency: str
    accountant: str
    seeded: bool = False

    def __str__(self) -> str:
        # Rounded up: a statement must not promise more than was computed.
        shown = math.ceil(self.epsilon * 100 - 1e-9) / 100
        clip = "" if self.clip is None else f", clip {self.clip:g}"
        return (
            f"({shown:g}, {self.delta:g})-differentially private: {self.adjacency}; {self.steps} steps, rate "
            f"{self.rate:.4g}, noise {self.noise:.4g}{clip}; {self.accountant}. This holds for the weights: not for "
            "training metrics, nor for choices made by looking at the data."
            + " With a known seed nothing is guaranteed: whoever has it can take the noise away."
            * self.seeded
        )


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """Upper bound on epsilon (nats) of so many steps of DP-SGD with Poisson sampling; 0 for no step.

    Args:
        noise: noise multiplier: standard deviation of the noise / clip.
        rate: probability with which a step draws a record, above 0 and at most 1 (1: no sampling).
        steps: number of steps.
        delta: of the (epsilon, delta) statement.

    Raises:
        InputError: DV501: no statement can be made: noise 0, a rate that is no probability, delta out of reach.

    Source: dp-accounting's PLD accountant, pessimistic (rounded against the claim).

    >>> round(epsilon(1.0, 0.01, 2000, 1e-5), 2)  # doctest: +SKIP
    2.58
    """
    check(noise, rate, delta)
    if isinstance(steps, bool) or int(steps) != steps or steps < 0:
        raise InputError("DV501", f"expected a number of steps, 0 or more, got {steps!r}.")
    return _epsilon(float(noise), float(rate), int(steps), float(delta))


def noise_for(epsilon: float, rate: float, steps: int, delta: float) -> float:
    """The smallest noise multiplier (to 0.1 %, rounded up) with which so many steps stay within (epsilon, delta).

    Args:
        epsilon: nats; the bound to keep.
        rate, steps, delta: as of `epsilon`; at least one step.

    Raises:
        InputError: DV501: an argument out of its range, or an epsilon that no noise multiplier up to 10,000 reaches.

    >>> round(noise_for(2.58, 0.01, 2000, 1e-5), 2)  # doctest: +SKIP
    1.0
    """
    check(1.0, rate, delta)
    if not (math.isfinite(epsilon) and epsilon > 0 and steps >= 1):
        raise InputError("DV501", f"expected epsilon > 0 and at least one step, got {epsilon!r} and {steps!r}.")

    def kept(noise: float) -> bool:
        return _epsilon(noise, float(rate), int(steps), float(delta)) <= epsilon

    if not kept(LARGEST_NOISE):
        raise InputError("DV501", f"epsilon {epsilon:g} at delta {delta:g} cannot be kept over {steps} steps.")
    low, high = 0.5, 0.5
    while not kept(high):
        low, high = high, high * 2
    while low == high or kept(low):  # downwards only from here: accounting is slowest where noise is least
        low, high = low / 2, low
        if low < SMALLEST_NOISE:
            return high
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if kept(middle) else (middle, high)
    return high


def statement(
    *,
    noise: float,
    rate: float,
    steps: int,
    delta: float,
    clip: float | None = None,
    records: int | None = None,
    sampling: str = "poisson",
    seeded: bool = False,
) -> Privacy:
    """The statement that a training of so many steps supports.

    Args:
        noise, rate, steps, delta: as of `epsilon`; steps that ran, summed over processes that went on with the same
            weights, data and settings.
        clip: L2 norm to which each record's gradient was clipped.
        records: number of records; a delta of 1 / records or more is warned of.
        sampling: "poisson". Nothing else is accounted for.
        seeded: batches and noise came from a seed that was given, and the statement says so.

    Raises:
        InputError: DV501: as of `epsilon`; DV502: batches that are not Poisson samples.

    >>> statement(noise=1.0, rate=0.01, steps=0, delta=1e-5).epsilon  # doctest: +SKIP
    0.0
    """
    from importlib.metadata import version

    if sampling != "poisson":
        raise InputError(
            "DV502",
            f"batches by {sampling!r} are not accounted for, only Poisson samples. Batches by shuffling have no known "
            "epsilon as low as that of sampling: taken as it is, an epoch of them is one step at rate 1.",
        )
    value = epsilon(noise, rate, steps, delta)
    if records is not None:
        warn_of_delta(delta, records)
    accountant = f"PLD, dp-accounting {version('dp-accounting')}"
    return Privacy(value, float(delta), float(noise), float(rate), int(steps), clip, ADJACENCY, accountant, seeded)


def check(noise: float, rate: float, delta: float) -> None:
    """Refuses what no finite epsilon can be stated for.

    Raises:
        InputError: DV501.

    >>> check(0.0, 0.01, 1e-5)
    Traceback (most recent call last):
        ...
    divulge.errors.InputError: DV501 noise 0: without noise epsilon is infinite, and nothing is guaranteed.
    """
    if not noise > 0:
        raise InputError("DV501", f"noise {noise:g}: without noise epsilon is infinite, and nothing is guaranteed.")
    if not noise <= LARGEST_NOISE:
        raise InputError("DV501", f"expected a noise multiplier of at most {LARGEST_NOISE:g}, got {noise:g}.")
    if not 0 < rate <= 1:
        raise InputError(
            "DV501", f"expected a sampling rate above 0 and at most 1 (batch size / records), got {rate:g}."
        )
    if not SMALLEST_DELTA <= delta < 1:
        raise InputError(
            "DV501",
            f"expected delta from {SMALLEST_DELTA:g} up to, not including, 1, got {delta:g}. Usual: 1e-5, "
            "or a tenth of 1 / records, whichever is less.",
        )


def check_training(*, clip: float, noise: float, records: int, batch_size: int, delta: float) -> None:
    """Refuses settings that no training should start with; noise 0 may train, though nothing can be stated of it.

    Raises:
        InputError: DV501.

    >>> check_training(clip=1.0, noise=0.0, records=1000, batch_size=50, delta=1e-5)
    """
    check(noise if noise != 0 else 1.0, batch_size / max(records, 1), delta)
    if not (math.isfinite(clip) and clip > 0):
        raise InputError("DV501", f"expected clip, a norm above 0, got {clip!r}.")
    warn_of_delta(delta, records)


def warn_of_delta(delta: float, records: int) -> None:
    """Warns where delta is so large that publishing a random record whole would be within it.

    >>> warn_of_delta(1e-5, 1000)
    """
    if delta >= 1 / records:
        warnings.warn(
            f"delta {delta:g} is not below 1 / records = {1 / records:.3g}: publishing one record of the data, picked "
            "at random, would satisfy it. Choose a tenth of that or less.",
            stacklevel=3,
        )


def _epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    dp = needed("dp_accounting", "accounting")
    if steps == 0:
        return 0.0
    if noise < SMALLEST_NOISE:  # the losses would fill the memory
        raise InputError("DV501", f"noise {noise:g}: epsilon is in the 100,000s, and states nothing. Give 0.3 or more.")
    if rate == 1:  # Gaussian noise composes exactly
        return float(dp.get_epsilon_gaussian(noise / math.sqrt(steps), delta))

    def bound(interval: float) -> float:
        accountant = dp.pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, interval)
        accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), steps)
        return float(accountant.get_epsilon(delta))

    # Large losses would need a grid of millions of points: a first pass on a coarse one says how fine it must be. Any
    # grid rounds the loss upwards, so that each pass is a bound.
    coarse = bound(min(1e-2 * max(1.0, (0.5 / noise) ** 3), 10.0))
    value = min(coarse, bound(min(1e-4 * max(1.0, coarse / 3), 10.0))) if math.isfinite(coarse) else coarse
    if not math.isfinite(value):
        raise InputError("DV501", f"no finite epsilon at delta {delta:g} with noise {noise:g} over {steps} steps.")
    return value
