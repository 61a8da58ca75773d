"""XGBoost: Booster and the scikit-learn wrappers; raw margins are the logits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divulge.adapters.predictor import Predictor
from divulge.adapters.records import origins
from divulge.errors import InputError


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A classifier's margins, a regressor's predictions, by the objective it was trained for.

    A wrapper uses the trees up to its best iteration, a Booster all of them, as their own predict does.
    """
    import xgboost

    wrapped = isinstance(model, xgboost.XGBModel)
    booster = model.get_booster() if wrapped else model
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    margin = objective.startswith(("binary:", "multi:"))
    if not margin and not objective.startswith(("reg:", "count:")):
        raise InputError(
            "DV075", f"the model was trained for {objective}; expected a classifier's objective or a regression's"
        )

    best = int(booster.attr("best_iteration") or -1) + 1 if wrapped else 0  # 0: all trees

    def predict(inputs: Any) -> Any:
        matrix = ("xgboost", "DMatrix") in origins(inputs)
        if wrapped and not matrix:
            return model.predict(inputs, output_margin=margin)
        inputs = inputs if matrix else xgboost.DMatrix(inputs, enable_categorical=True)
        return booster.predict(inputs, output_margin=margin, iteration_range=(0, best))

    classes = getattr(model, "classes_", None) if margin else None
    # A function of one's own is saved as a regression's objective, whatever it was for.
    doubtful = not margin and (not wrapped or callable(model.objective))
    yield Predictor(predict, kind="logits" if margin else "predictions", classes=classes, doubtful=doubtful)
