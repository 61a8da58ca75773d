"""ONNX Runtime: a session, or a model (file) whose last softmax is cut out of the graph."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from divulge.adapters.predictor import Predictor, needed
from divulge.adapters.records import count, take
from divulge.errors import InputError

HEADS = ("Softmax", "LogSoftmax", "Sigmoid")
DTYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "int64": np.int64, "int32": np.int32}


@contextmanager
def predictor(model: Any, sample: Any) -> Iterator[Predictor]:
    """The output called logits, else the first with one row of floats a record, else a ZipMap's."""
    runtime = needed("onnxruntime", "onnx")
    session, sigmoids = (model, set()) if isinstance(model, runtime.InferenceSession) else _session(model, runtime)
    outputs = session.get_outputs()
    floats = [one for one in outputs if one.type in ("tensor(float)", "tensor(double)", "tensor(float16)")]
    maps = [one for one in outputs if one.type.startswith("seq(map(")]
    named = [one for one in floats if "logit" in one.name.lower()]
    if not floats and not maps:
        raise InputError("DV075", f"expected an output of floats, got {[f'{one.name}: {one.type}' for one in outputs]}")
    chosen = (named or floats or maps)[0]
    inputs = session.get_inputs()
    fixed = inputs[0].shape[0] if inputs[0].shape and isinstance(inputs[0].shape[0], int) else None

    def run(batch: Any) -> Any:
        return session.run([chosen.name], _fed(batch, inputs))[0]

    def predict(batch: Any) -> Any:
        n = count(batch)
        if fixed is None:
            return run(batch)
        # A graph of a fixed batch: the last rows again until it is full.
        starts = range(0, n, fixed)
        parts = [run(take(batch, np.minimum(np.arange(start, start + fixed), n - 1))) for start in starts]
        return [row for part in parts for row in part][:n] if chosen in maps else np.concatenate(parts)[:n]

    if chosen not in maps:
        yield Predictor(predict, apart=lambda: chosen.name in sigmoids)
        return
    classes = list(run(sample if fixed is None else take(sample, np.zeros(fixed, np.int64)))[0])
    yield Predictor(lambda batch: _matrix(predict(batch), classes), kind="probs", classes=classes)


def _session(model: Any, runtime: Any) -> tuple[Any, set[str]]:
    """A session of a file or a ModelProto, without the softmax or sigmoid at its end; outputs that had a sigmoid."""
    path = os.fspath(model) if isinstance(model, str | os.PathLike) else None
    if path is not None and not os.path.isfile(path):
        raise InputError("DV030", f"expected an .onnx file, got {path!r}, which is none")
    onnx = needed("onnx", "onnx")
    # The weights may lie in files of their own: only the graph is needed to look for a softmax.
    proto = onnx.load(path, load_external_data=False) if path is not None else model
    makers = {name: node for node in proto.graph.node for name in node.output}
    ends = [(output, makers[output.name]) for output in proto.graph.output if output.name in makers]
    cut = [(output, node) for output, node in ends if node.op_type in HEADS]
    if not cut:
        source = path or proto.SerializeToString()
        return runtime.InferenceSession(source, providers=runtime.get_available_providers()), set()
    # A copy: the user's stays as it is.
    proto = onnx.load(path) if path is not None else onnx.ModelProto.FromString(proto.SerializeToString())
    for output in proto.graph.output:
        for end, node in cut:
            if output.name == end.name:
                output.name = node.input[0]
    session = runtime.InferenceSession(proto.SerializeToString(), providers=runtime.get_available_providers())
    return session, {node.input[0] for _, node in cut if node.op_type == "Sigmoid"}


def _fed(batch: Any, inputs: Any) -> dict[str, NDArray[Any]]:
    """Arrays by the names of the graph's inputs, in their types."""
    parts = batch if isinstance(batch, Mapping) else None
    if parts is None:
        parts = dict(zip((one.name for one in inputs), batch if isinstance(batch, tuple) else (batch,), strict=False))
    missing = [one.name for one in inputs if one.name not in parts]
    if missing:
        raise InputError(
            "DV074",
            f"the graph has inputs {missing} that the data lacks; expected x as a mapping of their names to arrays",
        )
    return {one.name: np.asarray(parts[one.name], DTYPES.get(one.type[7:-1])) for one in inputs}


def _matrix(maps: list[dict[Any, float]], classes: list[Any]) -> NDArray[np.float32]:
    """(b, c) from a ZipMap's dicts, one a record."""
    return np.array([[row[name] for name in classes] for row in maps], np.float32)
