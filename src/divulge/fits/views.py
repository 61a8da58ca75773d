"""Several queries a record: a model is asked about views of it, as it was trained on augmented ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.records import take
from divulge.errors import InputError
from divulge.fits.naming import shown
from divulge.fits.outputs import Predict
from divulge.references.jobs import AT_ONCE


@dataclass(frozen=True, repr=False)
class Views:
    """A fit whose models say of query i what they say of views[i](inputs).

    Attributes:
        fit: any fit; training sees the records as they are.
        views: functions from the inputs of some records to as many: the first mostly lambda x: x, then mirrored or
            shifted ones, as an attacker would try them. Give as many queries to `fit_references`.

    Source: Carlini et al. 2022, Membership inference attacks from first principles, section VI.

    >>> fit = lambda data, rows, seed: lambda data, rows, query: data[0][rows]
    >>> predict = Views(fit, [abs, np.negative])((np.array([-1.0, 2.0]), [0, 1]), np.array([0]), 0)
    >>> [predict((np.array([-1.0, 2.0]), [0, 1]), np.array([0, 1]), query).tolist() for query in (0, 1)]
    [[1.0, 2.0], [1.0, -2.0]]
    """

    fit: Callable[..., Any]
    views: Sequence[Callable[[Any], Any]]

    def __repr__(self) -> str:
        return shown(self)

    @property
    def at_once(self) -> int:
        """How many models `many` is given in a batch."""
        return int(getattr(self.fit, "at_once", AT_ONCE))

    @property
    def device(self) -> Any:
        """Where the models are trained, if the fit says so."""
        return getattr(self.fit, "device", None)

    @property
    def gpus(self) -> float:
        """How much of a GPU a model takes on a cluster, if the fit says so."""
        return float(getattr(self.fit, "gpus", 0))

    def __call__(self, data: Any, rows: NDArray[np.int64], seed: int) -> Predict:
        """A model trained on these rows of (x, y): `predict(data, rows, query)` -> (k, c) or (k,)."""
        return self._viewed(self.fit(data, rows, seed))

    def fit_many(self, data: Any, rows: Sequence[NDArray[np.int64]], seeds: Sequence[int]) -> list[Predict]:
        """Models trained at once, where the fit can.

        Raises:
            InputError: DV405, it cannot.
        """
        if not hasattr(self.fit, "fit_many"):
            raise InputError(
                "DV405",
                f"expected a fit with fit_many(data, rows, seeds), got a {type(self.fit).__name__}. Use "
                "divulge.fits.Torch or Jax, or executor='processes'",
            )
        return [self._viewed(predict) for predict in self.fit.fit_many(data, rows, seeds)]

    def brief(self) -> tuple[Views, float]:
        """The fit's own short training."""
        if not hasattr(self.fit, "brief"):
            return self, 1.0
        short, share = self.fit.brief()
        return replace(self, fit=short), share

    def _viewed(self, predict: Predict) -> Predict:
        def viewed(data: Any, rows: NDArray[np.int64], query: int) -> NDArray[Any]:
            if query >= len(self.views):
                raise InputError("DV003", f"expected queries below {len(self.views)}, one a view, got {query}")
            # The labels stay whole: they tell which classes there are.
            return predict((self.views[query](take(data[0], rows)), data[1]), np.arange(len(rows)), 0)

        return viewed
