"""torch and Lightning: the same log-probabilities as by hand, flags restored, what changes order refused."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import divulge
from adapting import D, M, N, assert_same, everything, records

SIDES = records()


@pytest.fixture
def torch(require):
    torch = require("torch")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch


def network(torch, *end):
    nn = torch.nn
    return nn.Sequential(nn.Linear(D, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3), *end)


def by_hand(torch, model):
    flags = model.training
    with torch.no_grad():
        outputs = model.eval()(torch.from_numpy(everything(SIDES)[0])).double().numpy()
    model.train(flags)
    return outputs


def data_set(torch, side):
    return torch.utils.data.TensorDataset(*map(torch.from_numpy, side))


def forms(torch):
    loader = torch.utils.data.DataLoader

    class Dicts(torch.utils.data.Dataset):
        def __init__(self, side):
            self.side = side

        def __len__(self):
            return len(self.side[1])

        def __getitem__(self, i):
            return {"input": torch.from_numpy(self.side[0][i]), "label": int(self.side[1][i])}

    class Stream(torch.utils.data.IterableDataset):
        def __init__(self, side):
            self.side = side

        def __iter__(self):
            return zip(*map(torch.from_numpy, self.side), strict=True)

    return {
        "arrays": lambda side: side,
        "float64": lambda side: (side[0].astype(np.float64), side[1]),
        "tensors": lambda side: tuple(map(torch.from_numpy, side)),
        "Dataset": lambda side: data_set(torch, side),
        "Subset": lambda side: torch.utils.data.Subset(data_set(torch, side), range(len(side[1]))),
        "dicts": Dicts,
        "loader": lambda side: loader(data_set(torch, side), batch_size=16),
        "loader of dicts": lambda side: loader(Dicts(side), batch_size=16),
        "stream": Stream,
        "loader of a stream": lambda side: loader(Stream(side), batch_size=16),
    }


FORMS = ["arrays", "float64", "tensors", "Dataset", "Subset", "dicts", "loader", "loader of dicts", "stream"]
FORMS += ["loader of a stream"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data(torch, form):
    model = network(torch)
    evidence = divulge.collect(model, *map(forms(torch)[form], SIDES), batch_size=20)
    assert_same(evidence, by_hand(torch, model), SIDES)
    assert evidence.outputs.dtype == np.float32


def test_flags_of_every_submodule_and_random_numbers_are_as_before(torch):
    model = network(torch).train()
    model[1].eval()  # a frozen normalisation
    flags = [module.training for module in model.modules()]
    before, statistics = torch.get_rng_state(), model[1].running_mean.clone()
    loaders = [torch.utils.data.DataLoader(data_set(torch, side), batch_size=16) for side in SIDES]
    divulge.collect(model, *loaders)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model[1].running_mean, statistics)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_leaves_the_model_as_it_was(torch, error):
    model = network(torch, torch.nn.Softmax(dim=1)).train()

    def stop(done, everything, what):
        raise error

    with pytest.raises(error):
        divulge.collect(model, *SIDES, progress=stop)
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_a_model_trains_on_afterwards(torch):
    """Tensors that a module keeps from a pass in inference mode could not be used in training."""

    class Caching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.kept = torch.nn.Linear(D, 3), None

        def forward(self, x):
            if self.kept is None:
                self.kept = torch.ones(D) * 0.5
            return self.linear(x * self.kept)

    model = Caching()
    divulge.collect(model, *SIDES)
    model(torch.from_numpy(SIDES[0][0]).requires_grad_()).sum().backward()
    assert model.linear.weight.grad is not None


def heads(torch):
    nn = torch.nn

    class Own(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body, self.gate, self.softmax = body, nn.Sigmoid(), nn.Softmax(dim=-1)

        def forward(self, x):
            return self.softmax(self.body(x * self.gate(x)))

    return {
        "Softmax": (network(torch, nn.Softmax(dim=1)), lambda model, x: model[:-1](x)),
        "LogSoftmax": (network(torch, nn.LogSoftmax(dim=1)), lambda model, x: model[:-1](x)),
        "nested": (nn.Sequential(network(torch, nn.Softmax(dim=1))), lambda model, x: model[0][:-1](x)),
        "in forward": (Own(network(torch)), lambda model, x: model.body(x * model.gate(x))),
        "a Sigmoid inside": (nn.Sequential(nn.Linear(D, 4), nn.Sigmoid(), nn.Linear(4, 3)), lambda model, x: model(x)),
    }


@pytest.mark.parametrize("head", ["Softmax", "LogSoftmax", "nested", "in forward", "a Sigmoid inside"])
def test_a_last_softmax_is_undone_through_the_layer(torch, head):
    model, before = heads(torch)[head]
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 8  # probabilities that float32 rounds to 1, logits that it does not
        logits = before(model.eval(), torch.from_numpy(everything(SIDES)[0])).numpy()
    evidence = divulge.collect(model, *SIDES, batch_size=20)
    np.testing.assert_allclose(evidence.outputs, logits, rtol=1e-4, atol=1e-4)
    assert evidence.kind == "logits"


def test_a_sigmoid_that_is_squeezed_is_undone_also_for_a_batch_of_one(torch):
    class Squeezing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.sigmoid = torch.nn.Linear(D, 1), torch.nn.Sigmoid()

        def forward(self, x):
            return self.sigmoid(self.linear(x)).squeeze()

    model, sides = Squeezing(), records(classes=2)
    evidence = divulge.collect(model, *sides, batch_size=M - 1)  # 69 and 1
    with torch.no_grad():
        logits = model.linear(torch.from_numpy(everything(sides)[0]))[:, 0].numpy()
    assert_same(evidence, logits, sides)


def test_a_softmax_that_is_a_function_gives_probabilities_and_says_so(torch, caplog):
    class Functional(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(D, 3)

        def forward(self, x):
            return self.linear(x).softmax(1)

    assert divulge.collect(Functional(), *SIDES).kind == "probs"
    assert caplog.text.count("could not be undone") == 1


def test_a_model_that_stays_in_training_mode_is_caught(torch):
    class Dropping(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(D, 3)

        def forward(self, x):
            return self.linear(torch.nn.functional.dropout(x, 0.3, training=True))

    with pytest.raises(divulge.InputError, match="DV215"):
        divulge.collect(Dropping(), *SIDES)
    batchwise = torch.nn.Sequential(torch.nn.BatchNorm1d(D, track_running_stats=False), torch.nn.Linear(D, 3))
    with pytest.raises(divulge.InputError, match="DV215"):
        divulge.collect(batchwise, *SIDES)


def test_loaders_that_change_the_order_or_drop_records_are_refused(torch):
    data, model = data_set(torch, SIDES[0]), network(torch)
    make = torch.utils.data.DataLoader
    samplers = torch.utils.data
    for loader in (
        make(data, batch_size=16, shuffle=True),
        make(data, batch_size=16, drop_last=True),
        make(data, batch_size=16, sampler=samplers.SubsetRandomSampler(range(M))),
        make(data, batch_sampler=samplers.BatchSampler(samplers.RandomSampler(data), 8, False)),
        make(data, batch_sampler=[[3, 1], [2, 0]]),
        make(data, batch_sampler=samplers.BatchSampler(samplers.SequentialSampler(data), 16, True)),
    ):
        with pytest.raises(divulge.InputError, match=r"DV073 .*(Sampler|drop_last|list)"):
            divulge.collect(model, loader, SIDES[1])
        with pytest.raises(divulge.InputError, match="DV073 expected for nonmembers"):
            divulge.collect(model, SIDES[0], loader)
    whole = make(data, batch_size=M // 2, drop_last=True)  # drops nothing
    assert_same(divulge.collect(model, whole, data_set(torch, SIDES[1])), by_hand(torch, model), SIDES)


def test_a_model_of_several_inputs(torch):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(D, 3)

        def forward(self, left, right):
            return {"logits": self.linear(torch.cat((left, right), 1))}

    model = Two()
    logits = model.linear(torch.from_numpy(everything(SIDES)[0])).detach().numpy()
    for cut in (lambda x: (x[:, :3], x[:, 3:]), lambda x: {"right": x[:, 3:], "left": x[:, :3], "unused": x}):
        assert_same(divulge.collect(model, *[(cut(x), y) for x, y in SIDES], batch_size=16), logits, SIDES)


def test_bfloat16_models_are_read(torch):
    model = network(torch).to(torch.bfloat16)
    evidence = divulge.collect(model, *SIDES)
    assert evidence.outputs.dtype == np.float32 and np.isfinite(evidence.outputs).all()


def test_compiled_models_are_scored_uncompiled(torch):
    model = network(torch)
    assert_same(divulge.collect(torch.compile(model), *SIDES), by_hand(torch, model), SIDES)


def test_no_graph_and_no_more_than_a_few_batches_are_kept(torch):
    alive, most = set(), 0

    class Batches:
        def __iter__(self):
            nonlocal most
            for _ in range(30):
                x = torch.ones(8, 200_000)[:, :D] + torch.arange(8)[:, None]
                alive.add(x.data_ptr())
                import weakref

                weakref.finalize(x, alive.discard, x.data_ptr())
                most = max(most, len(alive))
                yield x, torch.arange(8) % 3

    evidence = divulge.collect(network(torch), Batches(), Batches())
    gc.collect()
    assert most <= 3 and not alive and len(evidence) == 480


def test_on_a_gpu_where_there_is_one(torch):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    model = network(torch, torch.nn.Softmax(dim=1))
    logits = by_hand(torch, model[:-1])
    evidence = divulge.collect(model.to("cuda"), *SIDES, batch_size=20)
    np.testing.assert_allclose(evidence.outputs, logits, atol=1e-3)
    loaders = [torch.utils.data.DataLoader(data_set(torch, side), batch_size=16) for side in SIDES]
    np.testing.assert_array_equal(divulge.collect(model, *loaders, batch_size=20).member, evidence.member)
    assert next(model.parameters()).device.type == "cuda"


# ----------------------------------------------------------------------------------------------------- Lightning


@pytest.fixture
def lightning(torch, require):
    return require("lightning")


def test_lightning_by_forward_by_predict_step_and_by_its_trainer(torch, lightning):
    class Forward(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network(torch)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    class Step(lightning.LightningModule):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def predict_step(self, batch, batch_idx):
            return self.net(batch)

    model = Forward()
    loaders = [torch.utils.data.DataLoader(data_set(torch, side), batch_size=16) for side in SIDES]
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, loaders[0])
    logits = by_hand(torch, model.net)
    for way in (model, Step(model.net), trainer):
        assert_same(divulge.collect(way, *loaders), logits, SIDES)
    assert model.training


def test_lightning_modules_that_change_batches_on_the_device_are_refused(torch, lightning):
    class Changing(lightning.LightningModule):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch

    with pytest.raises(divulge.InputError, match="DV075 Changing changes its batches"):
        divulge.collect(Changing(), *SIDES)


assert N < M  # the sides differ in length, so that none is taken for the other


def test_a_sigmoid_a_class_is_undone_only_for_several_labels_a_record(torch, caplog):
    model = network(torch, torch.nn.Sigmoid())
    probs = by_hand(torch, model)
    evidence = divulge.collect(model, *SIDES, batch_size=20)
    assert evidence.kind == "probs" and caplog.text.count("a probability of its own") == 1
    np.testing.assert_allclose(evidence.outputs, probs / probs.sum(axis=1, keepdims=True), atol=1e-6)
    hot = [(x, np.eye(3)[y]) for x, y in SIDES]  # each label by itself, as the model has it
    evidence = divulge.collect(model, *hot)
    assert (evidence.kind, evidence.task) == ("probs", "multilabel")
    np.testing.assert_allclose(evidence.outputs, probs, atol=1e-6)
    several = [(x, np.maximum(y, x[:, :3] > 1)) for x, y in hot]
    evidence = divulge.collect(model, *several)
    assert (evidence.kind, evidence.task) == ("logits", "multilabel")
    np.testing.assert_allclose(1 / (1 + np.exp(-evidence.outputs)), probs, atol=1e-6)


class Two:
    """Records ((x, k), y)."""

    def __init__(self, torch, side):
        self.x, self.y = torch.from_numpy(side[0]), torch.from_numpy(side[1])

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return (self.x[i, :2], self.x[i, 2:]), self.y[i]


@pytest.mark.parametrize("size", [2, 3, 44, 1000])
def test_two_inputs_of_a_data_set_and_its_loader(torch, size):
    class Joined(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network(torch)

        def forward(self, x, k):
            return self.net(torch.cat((x, k), dim=1))

    class Pairs(Two, torch.utils.data.Dataset):
        pass

    model = Joined()
    logits = by_hand(torch, model.net)
    sets = [Pairs(torch, side) for side in SIDES]
    assert_same(divulge.collect(model, *sets, batch_size=size), logits, SIDES)
    loaders = [torch.utils.data.DataLoader(one, batch_size=size) for one in sets]
    assert_same(divulge.collect(model, *loaders), logits, SIDES)
    rows = [[one[i] for i in range(len(one))] for one in sets]
    assert_same(divulge.collect(model, *rows, batch_size=size), logits, SIDES)
    watched = divulge.Monitor(*loaders, records=20)
    assert watched(model, 1)["nonmember_accuracy"] >= 0


def test_three_tensors_are_refused(torch):
    x, y = map(torch.from_numpy, SIDES[0])
    three = torch.utils.data.TensorDataset(x, y, y)
    for data in (three, torch.utils.data.DataLoader(three, batch_size=9)):
        with pytest.raises(divulge.InputError, match=r"DV074 .*\(x, y, weights\) or \(\(x, k\), y\)"):
            divulge.collect(network(torch), data, data_set(torch, SIDES[1]))
    weighted = torch.utils.data.TensorDataset(x, y, torch.ones(M))
    assert len(divulge.collect(network(torch), weighted, data_set(torch, SIDES[1]))) == M + N
