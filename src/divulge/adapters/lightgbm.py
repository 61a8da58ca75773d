"""LightGBM: Booster and the scikit-learn wrappers; raw scores, times the sigmoid's slope, are logits where they fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from divulge.adapters.predictor import Predictor, gives
from divulge.adapters.records import take
from divulge.errors import InputError

REGRESSIONS = ("regression", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie")


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A classifier's raw scores, or its probabilities (of a random forest), a regressor's predictions, by objective."""
    import lightgbm

    booster = model.booster_ if isinstance(model, lightgbm.LGBMModel) else model
    # Such as "binary sigmoid:1", "multiclass num_class:3", "regression"; a function of one's own leaves it out.
    objective, *options = booster.dump_model(num_iteration=1).get("objective", "custom").split()
    slope = next((float(option[8:]) for option in options if option.startswith("sigmoid:")), 1.0)
    if objective in ("binary", "multiclass", "multiclassova", "cross_entropy", "custom"):
        classes = getattr(model, "classes_", None)

        def raw(inputs: Any) -> Any:
            return slope * model.predict(inputs, raw_score=True)

        def probs(inputs: Any) -> Any:
            # Not predict_proba: what it would give beside the raw scores of a function of one's own are those scores.
            return model.predict_proba(inputs) if booster is not model else model.predict(inputs)

        few = take(sample, slice(0, 64))
        if objective == "custom" or gives(raw(few), np.asarray(probs(few))):
            yield Predictor(raw, classes=classes, apart=lambda: objective == "multiclassova")
        else:
            yield Predictor(probs, kind="probs", classes=classes)
    elif objective.startswith(REGRESSIONS):
        yield Predictor(model.predict, kind="predictions")
    else:
        raise InputError(
            "DV075", f"the model was trained for {objective}; expected a classifier's objective or a regression's"
        )
