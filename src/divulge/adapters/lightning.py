"""Lightning modules: torch ones whose forward may be missing, and whose batches may be made ready on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divulge.adapters.predictor import Predictor
from divulge.adapters.torch import scoring
from divulge.errors import InputError


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """A LightningModule's outputs by its forward or else its predict_step; a Trainer stands for its module."""
    model = getattr(model, "lightning_module", model)
    if model is None:
        raise InputError("DV070", "the Trainer has no module yet; expected one that trained, or the module itself")
    if _own(model, "on_after_batch_transfer") or _own(model, "on_before_batch_transfer"):
        raise InputError(
            "DV075",
            f"{type(model).__name__} changes its batches as they reach the device (on_…_batch_transfer), with the "
            "labels in them; expected one whose forward takes what the data gives. Pass a function that does both: "
            "divulge.collect(lambda x: model(transform(x)), …)",
        )
    # torch's own forward raises, Lightning's predict_step calls it: a step is for a model that has no forward.
    step = None if _own(model, "forward") else lambda inputs: model.predict_step(inputs, 0)
    with scoring(model, step) as predictor:
        yield predictor


def _own(model: Any, method: str) -> bool:
    """Whether the user's class, not Lightning, defines this."""
    maker = next(kind for kind in type(model).__mro__ if method in vars(kind))
    return maker.__module__.partition(".")[0] not in ("lightning", "pytorch_lightning", "torch")
