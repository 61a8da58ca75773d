"""Recipes: each is Python; scikit-learn's runs as it stands, others where the framework is installed."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import divulge
from divulge.cli.guides import RECIPES, recipe_text

NAMES = {"logits_train", "labels_train", "logits_test", "labels_test"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def data(classes: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    y = np.argmax(x[:, :classes] + 0.5 * rng.normal(size=(300, classes)), axis=1)
    return {"train": (x[:150], y[:150]), "test": (x[150:], y[150:])}


def follow(name: str, **have: Any) -> divulge.Evidence:
    exec(compile(recipe_text(name), name, "exec"), have)
    return divulge.Evidence.load("predictions.npz")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_short_python_that_writes_the_names_divulge_reads(name) -> None:
    text = recipe_text(name)
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.savez"
    ]
    written = {keyword.arg for call in calls for keyword in call.keywords}
    assert {argument.replace("probs", "logits") for argument in written} - {"classes"} == NAMES
    assert len(text.splitlines()) <= 30 and max(map(len, text.splitlines())) <= 120
    assert 'np.savez(\n    "predictions.npz",' in text and "divulge audit predictions.npz" in text


def test_recipes_of_the_folder_are_the_ones_offered() -> None:
    folder = Path(divulge.__file__).parent / "recipes"
    assert {path.stem for path in folder.glob("*.txt")} == set(RECIPES)


@pytest.mark.parametrize("words", [None, np.array(["ant", "bee", "cat"])])
def test_sklearn(folder, words) -> None:
    from sklearn.linear_model import LogisticRegression

    (x, y), (x_test, y_test) = data().values()
    if words is not None:
        y, y_test = words[y], words[y_test]
    model = LogisticRegression().fit(x, y)
    evidence = follow("sklearn", model=model, X_train=x, y_train=y, X_test=x_test, y_test=y_test)
    np.testing.assert_array_equal(evidence.outputs, model.predict_proba(np.concatenate((x, x_test))))
    right = np.concatenate((model.predict(x) == y, model.predict(x_test) == y_test))
    np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)
    assert evidence.member.tolist() == [True] * 150 + [False] * 150


def test_torch(folder, require) -> None:
    torch = require("torch")
    (x, y), (x_test, y_test) = ((torch.from_numpy(a), torch.from_numpy(b)) for a, b in data().values())
    model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Dropout(0.5))
    sets = {"train_dataset": (x, y), "test_dataset": (x_test, y_test)}
    evidence = follow(
        "torch", model=model, **{name: torch.utils.data.TensorDataset(*pair) for name, pair in sets.items()}
    )
    with torch.no_grad():
        np.testing.assert_allclose(evidence.outputs, model(torch.cat((x, x_test))).numpy(), rtol=1e-5)
    assert evidence.kind == "logits"


def test_keras(folder, require) -> None:
    keras = require("keras")
    (x, y), (x_test, y_test) = data().values()
    model = keras.Sequential(
        [keras.layers.Input((5,)), keras.layers.Dense(3, "softmax"), keras.layers.Dropout(0.5)][:2]
    )
    evidence = follow("keras", model=model, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    probs = np.exp(evidence.outputs) / np.exp(evidence.outputs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, model.predict(np.concatenate((x, x_test)), verbose=0), atol=1e-5)


def test_jax(folder, require) -> None:
    jax = require("jax")
    (x, y), (x_test, y_test) = data().values()
    weights = jax.numpy.eye(5, 3)
    evidence = follow("jax", predict=lambda x: x @ weights, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.testing.assert_allclose(evidence.outputs, np.concatenate((x, x_test))[:, :3], rtol=1e-5)


def test_hf(folder, require) -> None:
    torch, transformers = require("torch"), require("transformers")

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(5, 3)

        def forward(self, x: Any, labels: Any) -> Any:
            z = self.linear(x)
            return {"loss": torch.nn.functional.cross_entropy(z, labels), "logits": z, "hidden_states": x}

    model, sets = Classifier(), data()
    arguments = transformers.TrainingArguments("out", report_to=[], use_cpu=True, disable_tqdm=True)
    given = {
        f"{name}_dataset": [{"x": row, "labels": int(label)} for row, label in zip(*pair, strict=True)]
        for name, pair in sets.items()
    }
    evidence = follow("hf", trainer=transformers.Trainer(model=model, args=arguments), **given)
    with torch.no_grad():
        logits = model.linear(torch.from_numpy(np.concatenate((sets["train"][0], sets["test"][0]))))
    np.testing.assert_allclose(evidence.outputs, logits.numpy(), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_xgboost(folder, require, classes) -> None:
    xgboost = require("xgboost")
    (x, y), (x_test, y_test) = data(classes).values()
    model = xgboost.XGBClassifier(n_estimators=5).fit(x, y)
    evidence = follow("xgboost", model=model, X_train=x, y_train=y, X_test=x_test, y_test=y_test)
    assert evidence.task == ("binary" if classes == 2 else "multiclass")
    right = model.predict(np.concatenate((x, x_test))) == np.concatenate((y, y_test))
    np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)


@pytest.mark.parametrize("words", [None, np.array(["cat", "ant", "bee"])])
@pytest.mark.parametrize("name", ["lightgbm", "catboost"])
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_other_boosting(folder, require, name, words) -> None:
    library = require(name)
    (x, y), (x_test, y_test) = data().values()
    if words is not None:
        y, y_test = words[y], words[y_test]
    model = (
        library.LGBMClassifier(n_estimators=5, verbose=-1)
        if name == "lightgbm"
        else library.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False)
    ).fit(x, y)
    evidence = follow(name, model=model, X_train=x, y_train=y, X_test=x_test, y_test=y_test)
    right = np.ravel(model.predict(np.concatenate((x, x_test)))) == np.concatenate((y, y_test))
    np.testing.assert_array_equal(divulge.signals.signal(evidence, "correct"), right)


def test_onnx(folder, require) -> None:
    onnx, onnxruntime = require("onnx"), require("onnxruntime")
    h, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = np.eye(5, 3, dtype=np.float32)
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["logits"])],
        "g",
        [h.make_tensor_value_info("x", kind, [None, 5])],
        [h.make_tensor_value_info("logits", kind, [None, 3])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (x, y), (x_test, y_test) = data().values()
    evidence = follow("onnx", session=session, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    np.testing.assert_allclose(evidence.outputs, np.concatenate((x, x_test))[:, :3], rtol=1e-5)


def test_recipes_are_shipped() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert "src/divulge" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
