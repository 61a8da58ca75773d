"""A monitor in real training loops: nothing of the training changes, it stops when told, the best weights come back."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import divulge
from divulge.adapters.callbacks import hf_callback, keras_callback, lightning_callback
from divulge.errors import InputError
from divulge.monitor import Monitor

M, D = 96, 6
LEAKS = [0.0, 0.0, 1.0, 4.0, 4.0, 4.0]  # what a scripted monitor sees at each look: it crosses a limit at the fourth
BACKEND = os.environ["KERAS_BACKEND"]


def sides() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * M, D)).astype(np.float32)
    y = np.argmax(x[:, :3] + rng.normal(size=(2 * M, 3)), axis=1)
    return (x[:M], y[:M]), (x[M:], y[M:])


def scripted(**options: Any) -> Monitor:
    """A monitor that sees the script, whatever the model; its best epoch is the second."""
    looks = iter(range(len(LEAKS)))

    def collect(model: Any, members: Any, nonmembers: Any, **others: Any) -> divulge.Evidence:
        at = next(looks)
        rng = np.random.default_rng(1)
        member, labels = np.arange(400) < 200, rng.integers(0, 3, 400)
        outputs = rng.normal(size=(400, 3))
        outputs[np.arange(400), labels] += (2.0 if at == 1 else 0.5) + LEAKS[at] * member
        return divulge.Evidence(member, labels=labels, outputs=outputs, kind="logits", ids=np.arange(400))

    return Monitor(*sides(), collect=collect, stop_at_score=0.45, slices=(), **options)


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(np.asarray(value), np.asarray(other[name])) for name, value in one.items())


# ---------------------------------------------------------------------------------------------------------- torch


@pytest.fixture
def torch(require):
    found = require("torch")
    found.set_num_threads(1)
    return found


def net(torch: Any) -> Any:
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))


def torch_sides(torch: Any) -> list[Any]:
    return [torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)) for x, y in sides()]


def bare_loop(torch: Any, watched: bool) -> dict[str, Any]:
    members, nonmembers = torch_sides(torch)
    model, loss = net(torch), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters())
    loader = torch.utils.data.DataLoader(members, batch_size=16, shuffle=True)
    monitor = Monitor(loader, nonmembers, every=2, slices=("class", "correct"), controls="default") if watched else None
    for epoch in range(1, 5):
        for x, y in loader:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        if monitor is not None:
            monitor(model, epoch)
            assert all(module.training for module in model.modules())
    assert monitor is None or len(monitor.series) == 2
    return {"random": torch.get_rng_state(), **model.state_dict()}


def test_a_bare_loop_of_torch_comes_out_the_same_bit_for_bit(torch) -> None:
    assert alike(bare_loop(torch, False), bare_loop(torch, True))


# ------------------------------------------------------------------------------------------------------ Lightning


def lightning_fit(require: Any, torch: Any, folder: Any, monitor: Monitor | None, restore: bool = False) -> Any:
    """The module, and its weights at the end of each epoch."""
    lightning = require("lightning.pytorch")
    each: list[dict[str, Any]] = []

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net(torch)

        def forward(self, x: Any) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, at: int) -> Any:
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters())

    class Recording(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            assert pl_module.training
            each.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    callbacks = [Recording()] if monitor is None else [lightning_callback(monitor, restore_best=restore), Recording()]
    module = Net()
    lightning.Trainer(
        max_epochs=6,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    ).fit(module, torch.utils.data.DataLoader(torch_sides(torch)[0], batch_size=16, shuffle=True))
    return module, each


@pytest.mark.filterwarnings("ignore")
def test_lightning_comes_out_the_same(require, torch, tmp_path) -> None:
    free, _ = lightning_fit(require, torch, tmp_path, None)
    random = torch.get_rng_state()
    steps: list[int] = []
    monitor = Monitor(*torch_sides(torch), log=lambda figures, step: steps.append(step))
    watched, _ = lightning_fit(require, torch, tmp_path, monitor)
    assert alike(free.state_dict(), watched.state_dict()) and torch.equal(random, torch.get_rng_state())
    assert monitor.epochs == (1, 2, 3, 4, 5, 6) and monitor.overhead.share > 0
    assert steps[:6] == [6, 12, 18, 24, 30, 36]  # the trainer's own


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("restore", [False, True])
def test_lightning_stops_and_restores(require, torch, tmp_path, restore) -> None:
    monitor = scripted()
    module, each = lightning_fit(require, torch, tmp_path, monitor, restore)
    assert len(each) == 4 == monitor.epochs[-1] and monitor.best_epoch == 2
    assert alike(module.state_dict(), each[1 if restore else 3])
    assert not alike(each[1], each[3])


# --------------------------------------------------------------------------------------------------- Hugging Face


class Texts:
    """Token numbers and labels, as a tokenised data set gives them."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.rows = [
            {"input_ids": rng.integers(4, 30, 6).tolist(), "attention_mask": [1] * 6, "labels": int(at % 3)}
            for at in range(48)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> dict[str, Any]:
        return dict(self.rows[at])


def hf_fit(
    require: Any, torch: Any, folder: Any, monitor: Monitor | None, restore: bool = False, **options: Any
) -> Any:
    transformers = require("transformers")
    each: list[dict[str, Any]] = []
    transformers.set_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    model = transformers.BertForSequenceClassification(config)

    class Recording(transformers.TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            assert others["model"].training
            each.append({name: value.clone() for name, value in others["model"].state_dict().items()})

    callbacks = [Recording()] if monitor is None else [hf_callback(monitor, restore_best=restore), Recording()]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=6,
        per_device_train_batch_size=16,
        learning_rate=1e-2,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
        **options,
    )
    transformers.Trainer(model=model, args=arguments, train_dataset=Texts(0), callbacks=callbacks).train()
    return model, each


def test_hugging_face_comes_out_the_same(require, torch, tmp_path) -> None:
    free, _ = hf_fit(require, torch, tmp_path, None)
    steps: list[int] = []
    monitor = Monitor(Texts(0), Texts(1), every=2, log=lambda figures, step: steps.append(step))
    watched, _ = hf_fit(require, torch, tmp_path, monitor)
    assert alike(free.state_dict(), watched.state_dict())
    assert monitor.epochs == (2, 4, 6) and steps[:3] == [6, 12, 18]
    assert monitor.evidence.traces.shape == (96, 3) and monitor.evidence.kind == "logits"


@pytest.mark.parametrize(("steps", "epochs"), [(7, (1, 2, 3)), (4, (1, 2)), (3, (1,)), (8, (1, 2, 3))])
def test_hugging_face_counts_an_epoch_that_max_steps_cuts(require, torch, tmp_path, steps, epochs) -> None:
    monitor = Monitor(Texts(0), Texts(1))
    hf_fit(require, torch, tmp_path, monitor, max_steps=steps)
    assert monitor.epochs == epochs


@pytest.mark.parametrize("restore", [False, True])
def test_hugging_face_stops_and_restores(require, torch, tmp_path, restore) -> None:
    monitor = scripted()
    model, each = hf_fit(require, torch, tmp_path, monitor, restore)
    assert len(each) == 4 and monitor.best_epoch == 2
    assert alike(model.state_dict(), each[1 if restore else 3]) and not alike(each[1], each[3])


@pytest.mark.parametrize("framework", ["lightning", "hf"])
def test_several_processes_are_refused(require, framework) -> None:
    from types import SimpleNamespace

    several = SimpleNamespace(world_size=2)
    with pytest.raises(InputError, match="one process"):
        if framework == "lightning":
            require("lightning.pytorch")
            lightning_callback(scripted()).on_fit_start(several, None)
        else:
            require("transformers")
            hf_callback(scripted()).on_train_begin(several, None, None)


# ---------------------------------------------------------------------------------------------------------- Keras


@pytest.fixture
def keras(require):
    require({"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}[BACKEND])
    found = require("keras")
    assert found.backend.backend() == BACKEND
    return found


def keras_fit(keras: Any, monitor: Monitor | None, restore: bool = False, epochs: int = 6) -> Any:
    keras.utils.set_random_seed(0)
    layers, each = keras.layers, []
    model = keras.Sequential(
        [
            layers.Input((D,)),
            layers.Dense(16, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    recording = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: each.append(model.get_weights()))
    callbacks = [recording] if monitor is None else [keras_callback(monitor, restore_best=restore), recording]
    x, y = sides()[0]
    model.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=callbacks)
    return model.get_weights(), each


def test_keras_comes_out_the_same(keras) -> None:
    free, _ = keras_fit(keras, None, epochs=3)
    monitor = Monitor(*sides(), every=2)
    watched, _ = keras_fit(keras, monitor, epochs=3)
    assert monitor.epochs == (2,) and monitor.evidence.kind == "logits"
    for one, other in zip(free, watched, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("restore", [False, True])
def test_keras_stops_and_restores(keras, restore) -> None:
    monitor = scripted()
    weights, each = keras_fit(keras, monitor, restore)
    assert len(each) == 4 and monitor.best_epoch == 2
    for end, then in zip(weights, each[1 if restore else 3], strict=True):
        np.testing.assert_array_equal(end, then)
    assert any(not np.array_equal(one, other) for one, other in zip(each[1], each[3], strict=True))


@pytest.mark.parametrize("backend", sorted({"tensorflow", "jax", "torch"} - {BACKEND}))
def test_keras_on_its_other_backends(backend) -> None:
    """One backend a process."""
    if os.environ.get("DIVULGE_TEST_KERAS_ONLY"):
        pytest.skip("this is the other process")
    if os.environ.get("DIVULGE_REQUIRE") != "all" and not all(map(importlib.util.find_spec, ("keras", backend))):
        pytest.skip(f"Keras on {backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "DIVULGE_TEST_KERAS_ONLY": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        __file__,
        "-k",
        "keras_comes or keras_stops",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "3 passed" in done.stdout
