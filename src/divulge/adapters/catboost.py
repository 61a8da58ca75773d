"""CatBoost: raw formula values are logits where they make the probabilities; arrays, frames and Pools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divulge.adapters.predictor import Predictor, gives
from divulge.adapters.records import take


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A classifier's raw values, (b,) for two classes, or else its probabilities; a regressor's predictions."""
    classes = list(model.classes_)  # none for a regression
    if classes:

        def predict(inputs: Any, of: str) -> Any:
            return model.predict(inputs, prediction_type=of)

        few = take(sample, slice(0, 64))
        raw, probs = predict(few, "RawFormulaVal"), predict(few, "Probability")
        if gives(raw, probs):
            apart = not gives(raw, probs, apart=False)
            yield Predictor(lambda inputs: predict(inputs, "RawFormulaVal"), classes=classes, apart=lambda: apart)
        else:
            yield Predictor(lambda inputs: predict(inputs, "Probability"), kind="probs", classes=classes)
    else:
        yield Predictor(model.predict, kind="predictions")
