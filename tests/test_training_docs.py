"""The lines of docs/training.md run as they stand."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test_callbacks import D, Texts, net, sides, torch_sides

TEXT = (Path(__file__).parent.parent / "docs/training.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))


@pytest.fixture
def torch(require):
    found = require("torch")
    found.set_num_threads(1)
    return found


def follow(name: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(compile(BLOCKS[name], f"docs/training.md, {name}", "exec"), names)
    return names


def test_every_block_is_run_here() -> None:
    assert set(BLOCKS) == {"torch", "keras", "lightning", "hf", "after", "stop"}
    assert TEXT.count("```python") == len(BLOCKS)


def test_a_bare_loop_of_torch_and_what_comes_after(require, torch, tmp_path, monkeypatch) -> None:
    require("tensorboardX")
    monkeypatch.chdir(tmp_path)
    train_data, test_data = torch_sides(torch)
    model = net(torch)
    names = follow(
        "torch",
        {
            "train_data": train_data,
            "test_data": test_data,
            "train_loader": torch.utils.data.DataLoader(train_data, batch_size=32, shuffle=True),
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), 0.1),
            "loss": torch.nn.CrossEntropyLoss(),
            "epochs": 4,
        },
    )
    assert names["monitor"].epochs == (2, 4) and list(Path("runs/mine").iterdir())
    after = follow("after", names)
    assert after["traces"].shape == (2 * len(train_data), 2)
    assert Path("watched/series.json").exists() and Path("watched.png").stat().st_size > 5_000


def test_keras_and_stopping(require, tmp_path, monkeypatch) -> None:
    backend = os.environ["KERAS_BACKEND"]
    require(backend)
    keras = require("keras")
    monkeypatch.chdir(tmp_path)
    (x_train, y_train), (x_test, y_test) = sides()
    model = keras.Sequential([keras.layers.Input((D,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    data = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    names = follow("keras", {**data, "model": model, "epochs": 2})
    assert names["monitor"].epochs == (1, 2)
    names = follow("stop", names)
    assert names["report"].meta["data"]["members"] == len(x_train) // 2
    assert names["monitor"].best_epoch in (1, 2)


@pytest.mark.filterwarnings("ignore")
def test_lightning(require, torch, tmp_path, monkeypatch) -> None:
    lightning = require("lightning.pytorch")
    monkeypatch.chdir(tmp_path)

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(torch)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, at: int) -> Any:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    train_data, test_data = torch_sides(torch)
    loader = torch.utils.data.DataLoader(train_data, batch_size=32, shuffle=True)
    given = {"train_data": train_data, "test_data": test_data, "train_loader": loader, "model": Net(), "epochs": 2}
    assert follow("lightning", given)["monitor"].epochs == (1, 2)


def test_hugging_face(require, torch, tmp_path) -> None:
    transformers = require("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True
    )
    model = transformers.BertForSequenceClassification(config)
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Texts(0))
    monitor = follow("hf", {"trainer": trainer, "train_data": Texts(0), "test_data": Texts(1)})["monitor"]
    assert monitor.epochs == (1, 2) and np.isfinite(monitor.evidence.traces).all()
