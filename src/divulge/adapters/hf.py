"""Hugging Face: classification models, Trainers and text-classification pipelines, padded by their own collator."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from divulge.adapters.predictor import Predictor
from divulge.adapters.records import origins
from divulge.adapters.torch import scoring
from divulge.errors import InputError

TEXTS = ("text", "sentence")


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """The logits of a model, of a Trainer's or of a pipeline's; text labels are placed by its label2id."""
    whole = model
    model = whole if ("torch", "Module") in origins(whole) else whole.model
    tokenizer = getattr(whole, "processing_class", None) or getattr(whole, "tokenizer", None)
    collate = getattr(whole, "data_collator", None)
    takes = set(inspect.signature(model.forward).parameters)

    def ready(inputs: Any) -> Any:
        if isinstance(inputs, Mapping) and isinstance(next(iter(inputs.values())), list):  # a tokenizer's lists
            inputs = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
        if not isinstance(inputs, list):
            return inputs  # tensors, joined already
        if isinstance(inputs[0], Mapping) and not takes & set(inputs[0]):
            texts = next((name for name in TEXTS if name in inputs[0]), None)
            inputs = [row[texts] for row in inputs] if texts else inputs
        if isinstance(inputs[0], str):
            if tokenizer is None:
                raise InputError(
                    "DV074",
                    f"expected tokenised records for a bare {type(model).__name__}, got texts. Pass a pipeline, "
                    "pipeline('text-classification', model=model, tokenizer=tokenizer), or tokenise them",
                )
            return dict(tokenizer(inputs, padding=True, truncation=True, return_tensors="pt"))
        # As Trainer does: what the model's forward does not take (a text, an id) is left out before padding.
        rows = [{name: value for name, value in row.items() if name in takes} for row in inputs]
        return dict((collate or _collator(tokenizer))(rows))

    config = model.config
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    regression = config.problem_type == "regression" or config.num_labels == 1
    with scoring(model) as scorer:
        yield scorer._replace(
            predict=lambda inputs: scorer.predict(ready(inputs)),
            kind="predictions" if regression else "logits",
            names=names,
        )


def _collator(tokenizer: Any) -> Any:
    from transformers import DataCollatorWithPadding, default_data_collator

    return default_data_collator if tokenizer is None else DataCollatorWithPadding(tokenizer)
