"""ONNX Runtime: graphs built by hand and from scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import divulge
from adapting import D, assert_same, everything, records

SIDES = records()
RNG = np.random.default_rng(0)
WEIGHTS, BIAS = RNG.normal(size=(D, 3)).astype(np.float32), RNG.normal(size=3).astype(np.float32)
LOGITS = everything(SIDES)[0] @ WEIGHTS + BIAS


@pytest.fixture
def onnx(require):
    require("onnxruntime")
    return require("onnx")


def graph(onnx, end=None, batch=None, label=False):
    """x @ WEIGHTS + BIAS, and what follows."""
    h, kinds = onnx.helper, onnx.TensorProto
    nodes = [h.make_node("Gemm", ["x", "w", "b"], ["scores" if end or label else "out"])]
    outputs = [h.make_tensor_value_info("out", kinds.FLOAT, [batch, 3])]
    if end:
        nodes.append(h.make_node(end, ["scores"], ["out"]))
    if label:
        nodes.append(h.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, h.make_tensor_value_info("label", kinds.INT64, [batch]))
    weights = [onnx.numpy_helper.from_array(WEIGHTS, "w"), onnx.numpy_helper.from_array(BIAS, "b")]
    x = h.make_tensor_value_info("x", kinds.FLOAT, [batch, D])
    made = h.make_graph(nodes, "g", [x], outputs, weights)
    return h.make_model(made, opset_imports=[h.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("batch", [None, 16])
@pytest.mark.parametrize("end", [None, "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("form", ["path", "str", "model"])
def test_a_last_softmax_is_cut_out_of_the_graph(onnx, tmp_path, end, batch, form):
    model = graph(onnx, end, batch)
    onnx.save(model, tmp_path / "model.onnx")
    before = model.SerializeToString()
    given = {"path": tmp_path / "model.onnx", "str": str(tmp_path / "model.onnx"), "model": model}[form]
    assert_same(divulge.collect(given, *SIDES, batch_size=20), LOGITS, SIDES)
    assert model.SerializeToString() == before


def test_a_sigmoid_a_class_is_undone_only_for_several_labels_a_record(onnx):
    probs = 1 / (1 + np.exp(-LOGITS))
    evidence = divulge.collect(graph(onnx, "Sigmoid"), *SIDES, batch_size=20)
    assert (evidence.kind, evidence.task) == ("probs", "multiclass")
    np.testing.assert_allclose(evidence.outputs, probs / probs.sum(axis=1, keepdims=True), atol=1e-5)
    several = [(x, np.maximum(np.eye(3)[y], x[:, :3] > 1)) for x, y in SIDES]
    evidence = divulge.collect(graph(onnx, "Sigmoid"), *several)
    assert (evidence.kind, evidence.task) == ("logits", "multilabel")
    np.testing.assert_allclose(evidence.outputs, LOGITS, atol=1e-4)


def test_a_session_is_taken_as_it_is(onnx, caplog):
    import onnxruntime

    plain = onnxruntime.InferenceSession(graph(onnx).SerializeToString())
    assert_same(divulge.collect(plain, *SIDES, batch_size=20), LOGITS, SIDES)
    ending = onnxruntime.InferenceSession(graph(onnx, "Softmax", label=True).SerializeToString())
    evidence = divulge.collect(ending, *SIDES)
    assert evidence.kind == "probs" and "could not be undone" in caplog.text
    np.testing.assert_allclose(
        np.log(evidence.outputs), LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True)), atol=1e-4
    )


def test_the_output_called_logits_is_preferred(onnx):
    model = graph(onnx, "Softmax", label=True)
    h = onnx.helper
    model.graph.node.append(h.make_node("Identity", ["scores"], ["logits"]))
    model.graph.output.append(h.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [None, 3]))
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert_same(divulge.collect(session, *SIDES), LOGITS, SIDES)


@pytest.mark.parametrize("zipmap", [True, False])
def test_scikit_learns_models(onnx, require, zipmap):
    skl2onnx = require("skl2onnx")
    from sklearn.linear_model import LogisticRegression

    names = np.array(["zebra", "ant", "cat"])
    model = LogisticRegression().fit(SIDES[0][0], names[SIDES[0][1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = skl2onnx.to_onnx(model, SIDES[0][0][:1], options={"zipmap": zipmap})
    sides = [(x, names[y]) for x, y in SIDES]
    evidence = divulge.collect(made, *sides, batch_size=20, classes=None if zipmap else model.classes_)
    assert evidence.classes == ("ant", "cat", "zebra")
    probs = model.predict_proba(everything(SIDES)[0])
    if evidence.kind == "probs":
        np.testing.assert_allclose(evidence.outputs, probs, atol=1e-5)
    right = model.predict(everything(SIDES)[0]) == everything(sides)[1]
    np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)


def test_what_is_refused(onnx, tmp_path):
    with pytest.raises(divulge.InputError, match=r"DV030 expected an .onnx file"):
        divulge.collect(tmp_path / "none.onnx", *SIDES)
    with pytest.raises(divulge.InputError, match=r"DV074 the graph has inputs .'x'. that the data lacks"):
        divulge.collect(graph(onnx), *[({"pixels": x}, y) for x, y in SIDES])
    classes = graph(onnx, label=True)
    del classes.graph.output[1]
    with pytest.raises(divulge.InputError, match=r"DV075 expected an output of floats, got .'label: tensor"):
        divulge.collect(classes, *SIDES)
