"""CatBoost: raw formula values are the logits; arrays, frames and Pools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divulge.adapters.predictor import Predictor


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A classifier's raw values, (b,) for two classes; a regressor's predictions."""
    classes = list(model.classes_)  # none for a regression
    if classes:
        yield Predictor(lambda inputs: model.predict(inputs, prediction_type="RawFormulaVal"), classes=classes)
    else:
        yield Predictor(model.predict, kind="predictions")
