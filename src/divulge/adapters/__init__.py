"""From a model and its records to `Evidence`: the only place that imports a framework, each inside a function.

A framework is one file with one function, `predictor(model, sample)`, and one line in `ADAPTERS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import chain
from os import PathLike
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import Adapter, Predictor
from divulge.adapters.records import Batches, batches, count, origins, take
from divulge.controls.models import BATCH, TOLERANCE, same_in_any_batch
from divulge.controls.setting import OK
from divulge.doors.arrays import to_array
from divulge.errors import InputError
from divulge.evidence import Evidence

logger = logging.getLogger("divulge")

#: The package that a model's class, or one that it derives from, comes from -> the file here that knows it.
ADAPTERS = {
    "catboost": "catboost",
    "flax": "jax",
    "jax": "jax",
    "jaxlib": "jax",
    "keras": "keras",
    "lightgbm": "lightgbm",
    "lightning": "lightning",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "pytorch_lightning": "lightning",
    "sklearn": "sklearn",
    "torch": "torch",
    "transformers": "hf",
    "xgboost": "xgboost",
}
#: Records that are scored twice to see whether the model's mode is right.
CHECKED = 32
#: How far the sum of a row may be from 1 for probabilities; half precision rounds each of them.
NEAR_ONE = 1e-2

Progress = Callable[[int, int | None, str], None]
Pair = tuple[object, object]


def collect(
    model: Any,
    members: Any,
    nonmembers: Any,
    *,
    batch_size: int = 256,
    columns: Mapping[str, Pair] | None = None,
    ids: Pair | None = None,
    groups: Pair | None = None,
    classes: Sequence[object] | None = None,
    progress: Progress | None = None,
    check: bool = True,
) -> Evidence:
    """Evidence from a trained model and its records, scored in evaluation mode, in order, batch by batch.

    The outputs are logits wherever the model has them: a last softmax or sigmoid layer is left out; where that cannot
    be done they are probabilities, and the log says so. The model is left as it was.

    Args:
        model: of Keras, torch, Lightning, Hugging Face (model, Trainer, text-classification pipeline), Flax,
            scikit-learn, XGBoost, LightGBM, CatBoost, ONNX (session or path); or any function from a batch of inputs
            to its logits, (b, c) or (b,).
        members: the records it was trained on, without augmentation, as its framework has them: (x, y), a DataLoader
            that does not shuffle, a Dataset, a tf.data.Dataset or PyDataset, dicts with labels, batches of (x, y).
        nonmembers: records that neither trained nor chose it, in the same form.
        batch_size: records a batch; a loader keeps its own.
        columns: name -> (members' values, non-members' values), to slice by.
        ids: (members', non-members'), the records.
        groups: (members', non-members'), the persons or households.
        classes: the c label values in the order of the output columns, where the model does not know them.
        progress: called with (records done, all or None, "members" or "nonmembers").
        check: score some records twice to see that outputs do not depend on the batch.

    Raises:
        InputError: DV070 to DV075; DV215, the model stays in training mode; else as `Evidence.from_splits`.

    >>> x, y = np.eye(3), np.arange(3)
    >>> evidence = collect(lambda batch: 4 * batch - 1, (x, y), (x[:2], y[:2]))
    >>> evidence.kind, evidence.outputs.shape, int(evidence.member.sum())
    ('logits', (5, 3), 3)
    """
    adapter = adapter_of(model)
    if batch_size < 1:
        raise InputError("DV074", f"expected a batch_size of at least 1, got {batch_size!r}")
    sides = {name: batches(data, batch_size, name) for name, data in (("members", members), ("nonmembers", nonmembers))}
    first = next(sides["members"].blocks, None)
    if first is None:
        raise _empty("members")
    with adapter.predictor(model, first.inputs) as predictor:
        if check:
            _check_mode(predictor, first.inputs)
        sides["members"] = sides["members"]._replace(blocks=chain([first], sides["members"].blocks))
        del first  # one batch at a time
        scored = {name: _scored(predictor, side, name, progress) for name, side in sides.items()}
        apart = predictor.apart()
    kind = _kind(predictor, list(scored.values()))
    if kind != "predictions" and _one_of_several(list(scored.values()), apart):
        logger.warning(
            "each class has a probability of its own (a sigmoid), and each record one label: outputs are probabilities"
        )
        scored, kind = {name: _normalised(side, apart) for name, side in scored.items()}, "probs"
    told: dict[str, dict[str, object]] = {
        name: {kind: side.outputs, "labels": side.labels} for name, side in scored.items()
    }
    for key, pair in (("ids", ids), ("groups", groups)):
        if pair is not None:
            told["members"][key], told["nonmembers"][key] = _pair(key, pair)
    if classes is None:
        text = scored["members"].labels.dtype.kind in "UO"
        classes = predictor.names if predictor.names is not None and text else predictor.classes
    del scored
    return Evidence.from_splits(told["members"], told["nonmembers"], columns=columns, classes=classes)


def _pair(name: str, pair: Pair) -> Pair:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError("DV003", f"{name} is a {type(pair).__name__}, expected (members' values, non-members' values)")
    return pair[0], pair[1]


def adapter_of(model: Any) -> Adapter:
    """The module that knows the model's framework: its own class's first, then those it derives from."""
    if isinstance(model, str | PathLike):
        if str(model).endswith(".onnx"):
            return _module("onnx")
        raise InputError("DV070", f"expected a model, or the path of an .onnx file, got {str(model)!r:.200}")
    for package, _ in origins(model):
        if package in ADAPTERS:
            return _module(ADAPTERS[package])
    if callable(model):
        return _module("function")
    raise InputError(
        "DV070",
        f"expected a model of {', '.join(sorted(set(ADAPTERS.values())))}, or a function from a batch of inputs to its "
        f"logits; got {type(model).__module__}.{type(model).__qualname__}. Wrap it: "
        "divulge.collect(lambda x: model.logits(x), …)",
    )


def _module(name: str) -> Adapter:
    return cast(Adapter, import_module(f"divulge.adapters.{name}"))


class _Scored(NamedTuple):
    """One side: its outputs and labels, whether all outputs lie in 0..1, and whether all rows sum to 1 too."""

    outputs: NDArray[Any]
    labels: NDArray[Any]
    unit: bool
    sums: bool


def _scored(predictor: Predictor, side: Batches, name: str, progress: Progress | None) -> _Scored:
    outputs, labels, notes = list[NDArray[Any]](), list[NDArray[Any]](), set[str]()
    done, unit, sums = 0, True, True
    for inputs, given in side.blocks:
        labels.append(to_array(given, "labels", notes))
        outputs.append(_rows(predictor.predict(inputs), len(labels[-1]), name, notes))
        if outputs[-1].shape[1:] != outputs[0].shape[1:]:
            raise InputError(
                "DV075",
                f"the model gave outputs of shape {outputs[-1].shape} for a batch of {name}, expected "
                f"{outputs[0].shape[1:]} after the first axis, as in the first batch",
            )
        unit = unit and bool((outputs[-1].min() >= 0) & (outputs[-1].max() <= 1))
        sums = sums and unit and _sums_to_one(outputs[-1])
        done += len(labels[-1])
        if progress is not None:
            progress(done, side.total, name)
    if not done:
        raise _empty(name)
    for note in sorted(notes):
        logger.info(note)
    return _Scored(_joined(outputs), _joined(labels), unit, sums)


def _rows(given: Any, n: int, name: str, notes: set[str]) -> NDArray[Any]:
    """One batch's outputs as numpy: n rows."""
    if isinstance(given, Mapping | tuple) or (isinstance(given, list) and given and np.ndim(given[0]) > 1):
        raise InputError(
            "DV075",
            f"the model gives {len(given)} outputs, expected one: a row of numbers for each record. Switch it to "
            "evaluation mode and pass a function that picks one: divulge.collect(lambda x: model(x)[0], …)",
        )
    outputs = to_array(given, "outputs", notes)
    if len(outputs) != n:
        raise InputError(
            "DV004", f"the model gave {len(outputs):,} rows for {n:,} records of {name}; expected one for each"
        )
    if outputs.ndim > 2 or outputs.dtype.kind not in "fiu":
        raise InputError(
            "DV075",
            f"the model gave {outputs.dtype} of shape {outputs.shape}, expected (b, c) or (b,) numbers: a row a record",
        )
    return outputs[:, 0] if outputs.shape[1:] == (1,) else outputs


def _sums_to_one(outputs: NDArray[Any]) -> bool:
    return outputs.ndim == 2 and bool((np.abs(outputs.sum(axis=1, dtype=np.float64) - 1) <= NEAR_ONE).all())


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    together = np.concatenate(parts)
    parts.clear()
    return together


def _kind(predictor: Predictor, sides: Sequence[_Scored]) -> Literal["logits", "probs", "predictions"]:
    """What the outputs are; probabilities are called so, whatever the model's last layer promised."""
    outputs, labels = sides[0].outputs, sides[0].labels
    if predictor.kind == "predictions":
        if outputs.ndim == 2:  # Evidence would read two as mean and standard deviation
            raise InputError(
                "DV075", f"the model predicts {outputs.shape[1]} targets, expected one. Audit them one by one"
            )
        if predictor.doubtful and not all(side.unit for side in sides) and _are_bits(sides):
            raise InputError(
                "DV075",
                f"expected predictions within 0..1 for labels of 0 and 1, got {outputs.min():.4g} to "
                f"{outputs.max():.4g}: logits of a classifier with an objective of its own, which its file does not "
                "tell from a regression's. Pass a function that gives them: divulge.collect(lambda x: "
                "booster.predict(xgboost.DMatrix(x), output_margin=True), …); if it is a regression, its predictions: "
                "Evidence.from_splits({'predictions': …, 'labels': …}, …)",
            )
        return "predictions"
    if outputs.ndim == 1 and labels.dtype.kind == "f" and not np.isin(labels, (-1, 0, 1)).all():
        logger.info("labels are floats other than 0 and 1, and the model has one output: read as a regression")
        return "predictions"
    if predictor.kind == "probs":
        logger.info("outputs are probabilities: this model has no logits")
        return "probs"
    single = outputs.ndim == 1 or labels.shape[1:] not in ((), (1,))  # a probability each, not one distribution
    if all(side.unit and (side.sums or single) for side in sides):
        logger.warning(
            "outputs are probabilities: the model's last layer could not be undone. Logits would tell confident "
            "records apart; give a function that returns them"
        )
        return "probs"
    return "logits"


def _are_bits(sides: Sequence[_Scored]) -> bool:
    return all(side.labels.dtype.kind in "biuf" and bool(np.isin(side.labels, (0, 1)).all()) for side in sides)


def _one_of_several(sides: Sequence[_Scored], apart: bool) -> bool:
    """Whether each of several columns is a probability of its own, while a record has one label, as a softmax has it.

    Args:
        sides: what was scored.
        apart: whether the model says that a sigmoid of each column is undone; else their values tell.
    """
    if any(side.outputs.ndim != 2 for side in sides):
        return False
    hot = any(side.labels.shape[1:] not in ((), (1,)) for side in sides)
    if hot:  # probabilities: with those Evidence can tell such labels from one-hot ones
        return apart and all(bool((np.count_nonzero(side.labels, axis=1) == 1).all()) for side in sides)
    unit = all(side.unit and bool((side.outputs.sum(axis=1) > 0).all()) for side in sides)
    return apart or (unit and not all(side.sums for side in sides))


def _normalised(side: _Scored, apart: bool) -> _Scored:
    """Probabilities, of each column by itself if the labels have columns too, else such that each row sums to 1.

    Args:
        side: its outputs are what goes into a sigmoid if `apart`, else what comes out of one.
        apart: see above.
    """
    outputs = side.outputs.astype(np.result_type(side.outputs.dtype, np.float32))
    if apart:
        outputs = -np.logaddexp(np.zeros((), outputs.dtype), -outputs)
        if side.labels.shape[1:] in ((), (1,)):
            outputs -= outputs.max(axis=1, keepdims=True)  # of confident records all columns may be near 0
        outputs = np.exp(outputs)
    if side.labels.shape[1:] in ((), (1,)):
        outputs /= outputs.sum(axis=1, keepdims=True)
    return side._replace(outputs=outputs)


def _check_mode(predictor: Predictor, inputs: Any) -> None:
    n = min(CHECKED, count(inputs))
    coarse = False

    def predict(rows: NDArray[np.int64]) -> NDArray[Any]:
        nonlocal coarse
        outputs = _rows(predictor.predict(take(inputs, rows)), len(rows), "members", set())
        coarse = coarse or _is_coarse(outputs)
        return outputs

    predict(np.arange(min(BATCH, n)))  # tells how finely the outputs are rounded
    outcome = same_in_any_batch(
        lambda rows: predict(np.asarray(rows)), np.arange(n), tolerance=TOLERANCE * (1 + 9 * coarse)
    )
    if outcome.status == OK:
        logger.info(f"evaluation mode: {outcome.text}")
    else:
        logger.warning(f"evaluation mode is not checked: {outcome.reason}. Give batches of at least that many")


def _is_coarse(outputs: NDArray[Any]) -> bool:
    """Whether these are of half precision: float16, or bfloat16 read as float32, which leaves the lower bits empty."""
    if outputs.dtype == np.float32:
        return not (np.ascontiguousarray(outputs).view(np.uint32) & 0xFFFF).any()
    return outputs.dtype.itemsize <= 2


def _empty(name: str) -> InputError:
    return InputError(
        "DV005", f"expected records among {name}, got none. An audit compares records of both sides: check the data"
    )
