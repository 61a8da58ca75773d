"""Perturbed copies of records, for the label-only attack: noise, changed categories, moved images.

A copy's random numbers come from a hash of the record's features and the copy's number (SplitMix64), so they are the
same whichever other records there are and in whatever order and blocks. What is learned from all records, such as each
feature's standard deviation, is learned once, by `over`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from divulge.attacks.draws import normals, stream, uniforms
from divulge.blocks import BLOCK_BYTES, over_rows
from divulge.errors import InputError
from divulge.hashes import Hashes, array_hashes

Floats = NDArray[np.floating[Any]]
Copier = Callable[[Floats, Hashes, int], Floats]
"""(b, d) features, (b,) hashes and a copy's number -> (b, d) copies in the features' dtype."""

LEVELS = (0.02, 0.05, 0.1, 0.2)
CHANCES = (0.02, 0.05, 0.1, 0.2)


class Perturbation(ABC):
    """Makes copies of records. Called with inputs and a generator, it gives one copy of each row of these."""

    @abstractmethod
    def over(self, features: Floats, order: NDArray[np.int64]) -> Copier:
        """What makes the copies, having learned what it needs from all records.

        Args:
            features: (n, d) float.
            order: (n,) int, the rows in an order of their own, so that sums do not depend on how they stand.

        Raises:
            InputError: DV056, features that do not fit the settings.
        """
        ...

    def __call__(self, inputs: Floats, rng: np.random.Generator) -> Floats:
        """One copy of each row, of a level drawn by chance; units are those of these inputs.

        Args:
            inputs: (b, ...) float.
            rng: the only source of chance.

        Returns:
            As the inputs in shape and dtype, whole numbers as float32.
        """
        flat = inputs.reshape(len(inputs), -1)
        flat = flat if flat.dtype.kind == "f" else flat.astype(np.float32)
        copy = self.over(flat, np.arange(len(flat)))
        keys = rng.integers(2**64, size=len(flat), dtype=np.uint64)
        return copy(flat, keys, int(rng.integers(2**16))).reshape(inputs.shape)


@dataclass(frozen=True)
class Noise(Perturbation):
    """Gaussian noise on every feature: for numbers of any kind and embeddings.

    Attributes:
        sigmas: standard deviations of the noise, in units of the feature's; the copies take turns.
        scale: those units, one for all features or (d,); None: each feature's standard deviation over the records.

    Source: Choquette-Choo et al. 2021 (robustness to random noise).

    >>> copies = Noise(sigmas=(0.1,), scale=1.0)(np.zeros((1000, 4)), np.random.default_rng(0))
    >>> round(float(copies.std()), 2)
    0.1
    """

    sigmas: tuple[float, ...] = LEVELS
    scale: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_levels("sigmas", self.sigmas, np.inf)
        scale = () if self.scale is None else np.atleast_1d(self.scale).tolist()
        if not all(isfinite(unit) and unit >= 0 for unit in scale):
            raise InputError("DV056", f"Noise: expected scale of finite numbers from 0 up, got {self.scale!r:.80}")

    def over(self, features: Floats, order: NDArray[np.int64]) -> Copier:
        """See `Perturbation.over`."""
        scale = moments(features, order).deviation() if self.scale is None else np.atleast_1d(self.scale)
        if len(scale) not in (1, features.shape[1]):
            raise InputError(
                "DV056", f"Noise: expected a scale for each of {features.shape[1]} features, or one; got {len(scale)}"
            )
        units = scale.astype(np.float32)

        def copy(rows: Floats, keys: Hashes, number: int) -> Floats:
            sigma = np.float32(self.sigmas[number % len(self.sigmas)])
            return (rows + normals(stream(keys, number), rows.shape[1]) * (units * sigma)).astype(rows.dtype)

        return copy


@dataclass(frozen=True)
class Tabular(Perturbation):
    """Noise on numbers, flips of binary columns, other categories drawn as often as the records hold them.

    The copies take turns through the levels: copy t takes each tuple's t-th value, cyclically.

    Attributes:
        sigmas: of the noise on all columns that are not named below, as in `Noise`.
        binary: columns of two values.
        categorical: columns that hold a category each, or tuples of columns that hold one together (one-hot).
        chances: of a binary column to be flipped, of a category to be drawn anew (it may come out the same).

    Source: Choquette-Choo et al. 2021 (flips of binary features).

    >>> table = np.tile([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], (500, 1))
    >>> changed = Tabular(binary=(0,), categorical=((1, 2),), chances=(0.1,))(table, np.random.default_rng(0))
    >>> round(float((changed[:, 0] != table[:, 0]).mean()), 1), sorted(set(changed[:, 1:].sum(axis=1).tolist()))
    (0.1, [1.0])
    """

    sigmas: tuple[float, ...] = LEVELS
    binary: tuple[int, ...] = ()
    categorical: tuple[int | tuple[int, ...], ...] = ()
    chances: tuple[float, ...] = CHANCES

    def __post_init__(self) -> None:
        check_levels("sigmas", self.sigmas, np.inf)
        check_levels("chances", self.chances, 1)
        named: list[object] = [self.binary, self.categorical]
        if isinstance(self.binary, tuple) and isinstance(self.categorical, tuple):
            named = [*self.binary, *(column for group in self._groups() for column in group)]
        if any(not isinstance(column, int) or column < 0 for column in named) or len(set(named)) < len(named):
            raise InputError(
                "DV056", f"Tabular: expected each column once, whole numbers from 0 up, got {named!r:.80}; a one-hot "
                "category is a tuple of its columns: categorical=(0, (3, 4, 5))"
            )  # fmt: skip

    def over(self, features: Floats, order: NDArray[np.int64]) -> Copier:
        """See `Perturbation.over`."""
        width, groups = features.shape[1], self._groups()
        named = [*self.binary, *(column for group in groups for column in group)]
        if max(named, default=0) >= width:
            raise InputError("DV056", f"Tabular: column {max(named)} is named, and features have {width} (0 to n - 1)")
        units = moments(features, order).deviation().astype(np.float32)
        units[named] = 0
        pairs = [_two_values(features[:, column], column) for column in self.binary]
        mixes = [_mix_of(features[:, group]) for group in groups]

        def copy(rows: Floats, keys: Hashes, number: int) -> Floats:
            keys = stream(keys, number)
            chance = self.chances[number % len(self.chances)]
            sigma = np.float32(self.sigmas[number % len(self.sigmas)])
            copies = (rows + normals(keys, width) * (units * sigma)).astype(rows.dtype)
            draws = uniforms(stream(keys, 1), len(pairs) + 2 * len(mixes))
            changed = draws < chance
            for at, (column, (low, high)) in enumerate(zip(self.binary, pairs, strict=True)):
                other = np.where(rows[:, column] == low, high, np.where(rows[:, column] == high, low, np.nan))
                flipped = changed[:, at] & ~np.isnan(rows[:, column])
                copies[flipped, column] = other[flipped]
            for at, (group, (values, below)) in enumerate(zip(groups, mixes, strict=True), len(pairs)):
                drawn = np.flatnonzero(changed[:, at])
                which = np.searchsorted(below, draws[drawn, len(mixes) + at], side="right")
                copies[drawn[:, None], np.array(group)] = values[which]
            return copies

        return copy

    def _groups(self) -> list[tuple[int, ...]]:
        return [group if isinstance(group, tuple) else (group,) for group in self.categorical]


@dataclass(frozen=True)
class Images(Perturbation):
    """Images made noisy and, if asked, moved by whole pixels, mirrored and turned; what moves in continues the edge.

    Ask for the moves that the model was trained with, and for no more: those separate members best, others blur what
    the labels tell. (A network on Fashion-MNIST trained with shifts by one pixel: AUC .64 with shift=1, .61 with noise
    alone, .58 from the labels as they are; trained without: .55, .60, .58.)

    Attributes:
        shape: (h, w), (c, h, w) or (h, w, c) of the image in a row of features; of three axes the shorter of the first
            and the last is the channels'.
        shift: the most pixels along each axis; every whole number up to it is drawn alike, to both sides.
        flip: whether every other copy, by chance, is mirrored left to right.
        rotate: the most degrees, to both sides, about the middle, interpolated linearly.
        sigma: standard deviation of the noise, in units of all pixels' over the records.

    Raises:
        InputError: DV056, a setting out of its range.

    Source: Choquette-Choo et al. 2021 (translations and rotations).

    >>> image = np.eye(5).reshape(1, 25)
    >>> moved = Images((5, 5), shift=1, sigma=0.0)(np.repeat(image, 900, axis=0), np.random.default_rng(1))
    >>> len(np.unique(moved, axis=0))
    9
    """

    shape: tuple[int, ...]
    shift: int = 0
    flip: bool = False
    rotate: float = 0.0
    sigma: float = 0.2

    def __post_init__(self) -> None:
        sides = self.shape if isinstance(self.shape, tuple) else ()
        if len(sides) not in (2, 3) or not all(isinstance(side, int) and side > 0 for side in sides):
            raise InputError("DV056", f"Images: expected shape (h, w), (c, h, w) or (h, w, c), got {self.shape!r:.80}")
        check_levels("rotate", (self.rotate,), 180)
        check_levels("sigma", (self.sigma,), np.inf)
        if not isinstance(self.shift, int) or self.shift < 0:
            raise InputError("DV056", f"Images: expected shift in whole pixels from 0 up, got {self.shift!r:.80}")

    def over(self, features: Floats, order: NDArray[np.int64]) -> Copier:
        """See `Perturbation.over`."""
        last = len(self.shape) == 3 and self.shape[2] < self.shape[0]
        channels, height, width = (1, *self.shape)[-3:] if not last else (self.shape[2], *self.shape[:2])
        if features.shape[1] != channels * height * width:
            raise InputError(
                "DV056",
                f"Images: expected {channels * height * width} features a record for shape {self.shape}, got "
                f"{features.shape[1]}: give the shape of the images that the rows of features are",
            )
        unit = np.float32(self.sigma and self.sigma * moments(features, order).pooled())

        moves = self.shift or self.flip or self.rotate

        def copy(rows: Floats, keys: Hashes, number: int) -> Floats:
            keys, copies = stream(keys, number), np.empty_like(rows) if moves else rows
            draws = uniforms(stream(keys, 1), 4).astype(np.float64)

            def block(part: slice) -> None:
                images = rows[part].reshape(-1, height * width, channels) if last else rows[part].reshape(
                    -1, channels, height * width
                ).swapaxes(1, 2)  # fmt: skip
                moved = self._moved(images, draws[part], height, width)
                copies[part] = (moved if last else moved.swapaxes(1, 2)).reshape(len(images), -1)

            if moves:
                over_rows(block, len(rows), 16 * rows[:1].nbytes)
            return copies.copy() if not unit else (copies + normals(keys, rows.shape[1]) * unit).astype(rows.dtype)

        return copy

    def _moved(self, images: Floats, draws: NDArray[np.float64], height: int, width: int) -> Floats:
        """(b, h * w, c) images, each pixel read where it comes from: (b, 4) draws tell shifts, flip and angle."""
        span = 2 * self.shift + 1
        down, right = (np.floor(draws[:, at, None, None] * span) - self.shift for at in (0, 1))
        y, x = np.arange(height)[:, None] - down, np.arange(width)[None, :] - right
        if self.rotate:
            angle = np.deg2rad(self.rotate) * (2 * draws[:, 3, None, None] - 1)
            y, x = y - (height - 1) / 2, x - (width - 1) / 2
            y, x = np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x
            y, x = y + (height - 1) / 2, x + (width - 1) / 2
        if self.flip:
            x = np.where(draws[:, 2, None, None] < 0.5, x, width - 1 - x)
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)

        def pixels(y: NDArray[np.intp], x: NDArray[np.intp]) -> Floats:
            places = (y * width + x).reshape(len(images), -1, 1)
            return np.asarray(np.take_along_axis(images, places, axis=1))

        if not self.rotate:
            return pixels(top, left)
        below, beside = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
        down, right = ((at - np.floor(at)).reshape(len(images), -1, 1) for at in np.broadcast_arrays(y, x))
        upper = pixels(top, left) * (1 - right) + pixels(top, beside) * right
        lower = pixels(below, left) * (1 - right) + pixels(below, beside) * right
        return np.asarray((upper * (1 - down) + lower * down).astype(images.dtype))


# -------------------------------------------------------------------------------------------- what records are like


class Moments(NamedTuple):
    """(d,) float64 numbers of finite values, their means and variances."""

    number: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    def deviation(self) -> NDArray[np.float64]:
        """(d,) standard deviations."""
        return np.sqrt(self.variance)

    def pooled(self) -> float:
        """The standard deviation of all values of all columns together."""
        share = self.number / max(self.number.sum(), 1)
        return float(np.sqrt(share @ (self.variance + (self.mean - share @ self.mean) ** 2)))


def moments(features: Floats, order: NDArray[np.int64]) -> Moments:
    """Of each column's finite values, summed in the given order, a block at a time in float64.

    >>> [round(float(x), 2) for x in moments(np.array([[1.0], [3.0], [np.nan]]), np.arange(3)).deviation()]
    [1.0]
    """
    step = max(1, 4 * BLOCK_BYTES // max(features[:1].nbytes, 1))

    def summed(of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
        total = np.zeros(features.shape[1])
        for start in range(0, len(order), step):
            part = features[order[start : start + step]].astype(np.float64)
            total += np.where(np.isfinite(part), of(np.where(np.isfinite(part), part, 0)), 0).sum(axis=0)
        return total

    number = summed(np.ones_like)
    mean = summed(lambda part: part) / np.maximum(number, 1)
    return Moments(number, mean, summed(lambda part: (part - mean) ** 2) / np.maximum(number, 1))


def check_levels(name: str, levels: Iterable[float], most: float) -> None:
    """Refuse what is not one or more numbers from 0 to `most`."""
    if not isinstance(levels, tuple) or not levels or not all(
        isinstance(level, int | float) and isfinite(level) and 0 <= level <= most for level in levels
    ):  # fmt: skip
        raise InputError("DV056", f"expected {name} as a tuple of numbers from 0 to {most:g}, got {levels!r:.80}")


def _two_values(column: Floats, number: int) -> tuple[float, float]:
    values = np.unique(column[~np.isnan(column)])
    if len(values) > 2:
        raise InputError(
            "DV056",
            f"Tabular: column {number} is named binary and holds {len(values)} values; name it under categorical, or "
            "leave it out if it is a number",
        )
    return (float(values[0]), float(values[-1])) if len(values) else (np.nan, np.nan)


def _mix_of(columns: Floats) -> tuple[Floats, NDArray[np.float64]]:
    """(k, g) the distinct rows of one category's columns, and (k,) the shares of records up to each."""
    _, first, number = np.unique(array_hashes(columns), return_index=True, return_counts=True)
    below = np.cumsum(number) / max(number.sum(), 1)
    below[-1:] = np.inf
    return columns[first], below
