"""DP-SGD for torch: Opacus behind our door, its accountant against ours, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import private_training
from divulge.dp import torch as dp_torch
from divulge.dp.accounting import epsilon
from divulge.errors import InputError
from private_training import CANARY, CANARY_STEPS, TRIALS, assert_poisson, canary_data, documented, is_noise, toy

# Opacus says each time that its generator is not cryptographic, torch that hooks see the first layer: both are known.
pytestmark = pytest.mark.filterwarnings("ignore:Secure RNG", "ignore:Full backward hook")


@pytest.fixture
def torch(require):
    require("opacus")
    torch = require("torch")
    torch.manual_seed(0)
    return torch


def dense(torch):
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))


def data(torch, x, y):
    return torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))


def private(torch, model, x, y, rate=0.5, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    chosen = {"clip": 1.0, "noise": 1.0, "delta": 1e-5, "batch_size": 40, "seed": 5, **settings}
    return dp_torch.private(model, optimizer, data(torch, x, y), **chosen)


def train(torch, training, epochs=1, loss=None):
    loss = loss or torch.nn.functional.cross_entropy
    sizes = []
    for _ in range(epochs):
        for x, y in training.loader:
            training.optimizer.zero_grad()
            loss(training.model(x), y).backward()
            training.optimizer.step()
            sizes.append(len(x))
    return sizes


def weights(model):
    return np.concatenate([part.detach().numpy().ravel() for part in model.parameters()]).astype(np.float64)


@pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [(0.7, 0.01, 2000), (1.0, 0.01, 2000), (2.0, 0.01, 2000), (1.0, 0.1, 300), (4.0, 0.5, 50)],
)
def test_opacus_and_dp_accounting_agree(torch, noise, rate, steps) -> None:
    from opacus.accountants import PRVAccountant

    theirs = PRVAccountant()
    theirs.history = [(noise, rate, steps)]
    assert theirs.get_epsilon(1e-5) == pytest.approx(epsilon(noise, rate, steps, 1e-5), rel=0.02)


def test_the_statement_counts_the_steps_that_ran(torch) -> None:
    model = dense(torch)
    training = private(torch, model, *toy(), noise=0.9)
    assert training.privacy().epsilon == 0
    sizes = train(torch, training, epochs=2)
    privacy = training.privacy()
    assert len(sizes) == privacy.steps == 20 and len(set(sizes)) > 5
    assert privacy.epsilon == epsilon(0.9, 0.1, 20, 1e-5)
    assert (privacy.rate, privacy.clip) == (0.1, 1.0)
    assert model[0].weight is next(iter(training.model.parameters()))


def test_batches_are_poisson_samples_of_the_stated_rate(torch) -> None:
    rows = np.arange(60)
    training = private(torch, dense(torch), np.float32(rows)[:, None].repeat(8, 1), rows % 2, batch_size=6)
    assert_poisson(
        [x[:, 0].long().tolist() for _ in range(300) for x, _ in training.loader], 60, training.privacy().rate
    )


@pytest.mark.parametrize("clip", [0.05, 5.0])
def test_one_step_against_a_loop_over_records(torch, clip) -> None:
    """With so little noise that it cannot be seen."""
    x, y = toy()
    x[::3] *= 5
    model = dense(torch)
    training = private(torch, model, x, y, clip=clip, noise=1e-3 * 0.02 / clip, rate=1.0)
    start = weights(model)
    batch_x, batch_y = next(iter(training.loader))
    total = 0.0
    plain = dense(torch)
    plain.load_state_dict(model.state_dict())
    for one_x, one_y in zip(batch_x, batch_y, strict=True):
        plain.zero_grad()
        torch.nn.functional.cross_entropy(plain(one_x[None]), one_y[None]).backward()
        gradient = np.concatenate([part.grad.numpy().ravel() for part in plain.parameters()])
        total = total + gradient * min(1.0, clip / np.linalg.norm(gradient))
    torch.nn.functional.cross_entropy(training.model(batch_x), batch_y).backward()
    training.optimizer.step()
    assert start - weights(model) == pytest.approx(total / 40, abs=1e-5)


def test_noise_by_its_moments_and_an_empty_batch_has_it_too(torch) -> None:
    model = torch.nn.Linear(8, 500)
    training = private(torch, model, *toy(40), clip=2.0, noise=1.5, rate=1.0, batch_size=1)
    path, sizes = [weights(model)], []
    for x, _ in training.loader:
        training.optimizer.zero_grad()
        (0 * training.model(x)).sum().backward()
        training.optimizer.step()
        path.append(weights(model))
        sizes.append(len(x))
    moved = np.diff(path, axis=0)
    assert 0 in sizes and training.privacy().steps == 40
    assert is_noise(moved, 1.5 * 2.0) and is_noise(moved[np.array(sizes) == 0], 1.5 * 2.0)
    assert not is_noise(moved, 1.5) and not is_noise(moved, 1.5 * 2.0 * 1.02)


def test_an_epsilon_is_kept_and_no_step_goes_beyond_it(torch) -> None:
    training = private(torch, dense(torch), *toy(), noise=None, epsilon=3.0, epochs=2)
    train(torch, training, epochs=2)
    assert 2.95 < training.privacy().epsilon <= 3.0
    before = weights(training.model)
    with pytest.raises(InputError, match="20 steps") as error:
        train(torch, training)
    assert error.value.code == "DV505" and (weights(training.model) == before).all()
    assert training.privacy().steps == 20


def test_the_same_seed_gives_the_same_weights_and_none_does_not(torch) -> None:
    def trained(seed):
        torch.manual_seed(0)
        model = dense(torch)
        train(torch, private(torch, model, *toy(), seed=seed))
        return weights(model)

    assert (trained(1) == trained(1)).all()
    assert np.abs(trained(1) - trained(2)).max() > 0.01
    assert np.abs(trained(None) - trained(None)).max() > 0.01


def test_the_callers_generators_stay_as_they_are(torch) -> None:
    loader = torch.utils.data.DataLoader(data(torch, *toy()), batch_size=40, shuffle=True)
    model = dense(torch)
    state = torch.get_rng_state()
    dp_torch.private(model, torch.optim.SGD(model.parameters()), loader, clip=1.0, noise=1.0, delta=1e-5)
    assert loader.generator is None and (torch.get_rng_state() == state).all()


def test_a_changed_noise_is_not_stated(torch) -> None:
    training = private(torch, dense(torch), *toy())
    train(torch, training)
    training.optimizer.noise_multiplier = 0.5
    train(torch, training)
    with pytest.raises(InputError, match="changed"):
        training.privacy()


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        ("BatchNorm1d(16)", "BatchNorm1d"),
        ("BatchNorm1d(16, affine=False)", "BatchNorm1d"),  # Opacus lets it pass, and its statistics follow the records
        ("LSTM(16, 16)", "DPLSTM"),
    ],
)
def test_layers_that_cannot_be_private_are_refused_with_the_reason(torch, layer, word) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), eval(f"torch.nn.{layer}"), torch.nn.Linear(16, 2))
    with pytest.raises(InputError, match=word) as error:
        private(torch, model, *toy())
    assert error.value.code == "DV503"


def test_evaluation_mode_is_refused(torch) -> None:
    with pytest.raises(InputError, match="training mode"):
        private(torch, dense(torch).eval(), *toy())


def test_loaders_of_their_own_order_are_refused(torch) -> None:
    model, records = dense(torch), data(torch, *toy())
    optimizer, utils = torch.optim.SGD(model.parameters()), torch.utils.data
    weighted = utils.DataLoader(records, batch_size=40, sampler=utils.WeightedRandomSampler(torch.ones(400), 400))

    class Stream(utils.IterableDataset):
        def __iter__(self):
            return iter(records)

    for one in (weighted, utils.DataLoader(Stream(), batch_size=40)):
        with pytest.raises(InputError) as error:
            dp_torch.private(model, optimizer, one, clip=1.0, noise=1.0, delta=1e-5)
        assert error.value.code == "DV502"


def test_a_loader_of_some_of_the_records_is_refused(torch) -> None:
    utils, records = torch.utils.data, data(torch, *toy())
    some = utils.DataLoader(records, batch_size=40, sampler=utils.RandomSampler(records, num_samples=100))
    model = dense(torch)
    with pytest.raises(InputError, match="of 100") as error:
        dp_torch.private(model, torch.optim.SGD(model.parameters()), some, clip=1.0, noise=1.0, delta=1e-5)
    assert error.value.code == "DV502"


def backward(torch, training, x, y):
    training.mean(torch.nn.functional.cross_entropy(training.model(x), y, reduction="none")).backward()


def own_loader(torch, training, x, y):
    for batch in torch.utils.data.DataLoader(data(torch, x, y), batch_size=40, shuffle=True):
        backward(torch, training, *batch)
        training.optimizer.step()


def own_batch(torch, training, x, y):
    drawn, _ = next(iter(training.loader))
    backward(torch, training, torch.from_numpy(x[: len(drawn) + 1]), torch.from_numpy(y[: len(drawn) + 1]))
    training.optimizer.step()


def same_batch(torch, training, x, y):
    batch = next(iter(training.loader))
    for _ in range(2):
        training.optimizer.zero_grad()
        backward(torch, training, *batch)
        training.optimizer.step()


def accumulated(torch, training, x, y):
    batches = iter(training.loader)
    for _ in range(2):
        backward(torch, training, *next(batches))
    training.optimizer.step()


def passed_over(torch, training, x, y):
    batches = iter(training.loader)
    next(batches)
    backward(torch, training, *next(batches))
    training.optimizer.step()


def twice(torch, training, x, y):
    batch = next(iter(training.loader))
    backward(torch, training, *batch)
    backward(torch, training, *batch)
    training.optimizer.step()


def manager(torch, training, x, y):
    from opacus.utils.batch_memory_manager import BatchMemoryManager

    with BatchMemoryManager(
        data_loader=training.loader, max_physical_batch_size=8, optimizer=training.optimizer
    ) as small:
        for batch in small:
            training.optimizer.zero_grad()
            backward(torch, training, *batch)
            training.optimizer.step()


def smuggled(torch, training, x, y):
    """A batch of one's own, whose step is skipped and added to the next."""
    training.optimizer.signal_skip_step(True)
    backward(torch, training, torch.from_numpy(x[:40]), torch.from_numpy(y[:40]))
    training.optimizer.step()
    training.optimizer.zero_grad()
    backward(torch, training, *next(iter(training.loader)))
    training.optimizer.step()


@pytest.mark.parametrize("way", [own_loader, own_batch, same_batch, accumulated, passed_over, twice, manager, smuggled])
def test_batches_that_are_not_the_loaders_are_refused(torch, way) -> None:
    training = private(torch, dense(torch), *toy())
    # Opacus itself forbids a second backward before a step.
    expected = ValueError if way in (accumulated, twice) else InputError
    with pytest.raises(expected, match=r"DV502|Poisson") as error:
        way(torch, training, *toy())
    assert getattr(error.value, "code", "DV502") == "DV502" and training.privacy().steps == (way is same_batch)


def test_the_loader_is_one_still_and_works_with_workers(torch) -> None:
    records = data(torch, *toy())
    loader = torch.utils.data.DataLoader(records, batch_size=40, num_workers=2)
    model = dense(torch)
    optimizer = torch.optim.SGD(model.parameters())
    training = dp_torch.private(model, optimizer, loader, clip=1.0, noise=1.0, delta=1e-5)
    assert len(training.loader) == 10 and training.loader.dataset is records and training.loader.sample_rate == 0.1
    assert training.loader.num_workers == 2 and training.loader.pin_memory is False
    assert len(training.loader.collate_fn([records[0]])[0]) == 1
    train(torch, training)
    assert training.privacy().steps == 10 and "seed" not in str(training.privacy())


def test_a_seed_is_in_the_statement(torch) -> None:
    assert "known seed" in str(private(torch, dense(torch), *toy()).privacy())


def test_the_mean_is_over_records(torch) -> None:
    assert dp_torch.mean(torch.tensor([1.0, 2.0, 6.0])) == 3.0 and dp_torch.mean(torch.zeros(0)) == 0.0
    for wrong in (torch.tensor(1.0), torch.zeros(3, 2), 1.0):
        with pytest.raises(InputError, match='reduction="none"') as error:
            dp_torch.mean(wrong)
        assert error.value.code == "DV503"


def forward_of(torch, forward, buffer=False):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 2)
            if buffer:
                self.register_buffer("centre", torch.zeros(8))

        def forward(self, x):
            return forward(self, x)

    return Own()


def kept_in_place(self, x):
    self.centre.mul_(0.9).add_(0.1 * x.detach().mean(0))
    return self.layer(x)


def kept_anew(self, x):
    self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
    return self.layer(x)


@pytest.mark.parametrize("forward", [kept_in_place, kept_anew])
def test_statistics_in_buffers_are_refused(torch, forward) -> None:
    model = forward_of(torch, forward, buffer=True)
    training, before = private(torch, model, *toy()), weights(model)
    assert (model.centre == 0).all()  # whatever was tried, was on a copy
    with pytest.raises(InputError, match="centre") as error:
        train(torch, training)
    assert error.value.code == "DV503" and (weights(model) == before).all() and training.privacy().steps == 0


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: self.layer(__import__("torch").nn.functional.batch_norm(x, None, None, training=True)),
        lambda self, x: self.layer(x - x.mean(0)),
        lambda self, x: self.layer(x).softmax(0),
    ],
)
def test_models_that_mix_records_are_refused(torch, forward) -> None:
    with pytest.raises(InputError, match="mixes records") as error:
        private(torch, forward_of(torch, forward), *toy())
    assert error.value.code == "DV503"


@pytest.mark.parametrize(
    "layers",
    [
        "nn.Linear(8, 2), nn.Dropout(0.5)",
        "nn.Linear(8, 6), nn.GroupNorm(2, 6), nn.Linear(6, 2)",
        "nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4), nn.Flatten(), nn.Linear(8, 2)",
        "nn.RReLU(), nn.Linear(8, 2)",
    ],
)
def test_models_that_take_records_alone_are_not_refused(torch, layers) -> None:
    model = torch.nn.Sequential(*eval(f"[{layers}]", {"nn": torch.nn}))
    state = torch.get_rng_state()
    training = private(torch, model, *toy(), seed=None)
    assert (torch.get_rng_state() == state).all()
    assert all(module.p == 0.5 for module in model if isinstance(module, torch.nn.Dropout))
    train(torch, training)
    assert training.privacy().steps == 10


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": 0.0},
        {"noise": None},
        {"epsilon": 1.0, "epochs": 1},
        {"noise": None, "epsilon": 1.0},
        {"clip": 0.0},
        {"delta": 1.0},
        {"batch_size": None},
    ],
)
def test_settings_that_mean_nothing_are_refused(torch, settings) -> None:
    with pytest.raises(InputError) as error:
        private(torch, dense(torch), *toy(), **settings)
    assert error.value.code == "DV501"


def test_with_little_noise_it_learns(torch) -> None:
    model = dense(torch)
    train(torch, private(torch, model, *toy(), noise=0.3), epochs=8)
    x, y = toy(300, 1)
    assert (model(torch.from_numpy(x)).argmax(1).numpy() == y).mean() > 0.9


def test_a_gradient_that_is_no_number_spoils_the_weights_as_is_documented(torch) -> None:
    x, y = toy()
    x[:] = np.nan
    model = dense(torch)
    train(torch, private(torch, model, x, y))
    assert np.isnan(weights(model)).any()


def test_the_document(torch, capsys) -> None:
    model = dense(torch)
    have = {
        "torch": torch,
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters()),
        "dataset": data(torch, *toy(2000)),
    }
    exec(documented("torch"), have)
    assert have["privacy"]().epsilon <= 8.0 and "-differentially private" in capsys.readouterr().out


def last_weights(torch, canary, clip):
    """The canary's weight after each of many short trainings, started anew every few steps."""
    model = torch.nn.Linear(4, 1, bias=False)
    x, y = canary_data(canary)
    settings = {key: CANARY[key] for key in ("batch_size", "delta")}
    noise = CANARY["noise"] * CANARY["clip"] / clip  # of the same size, whatever is clipped
    training = private(torch, model, x, y, rate=1.0, clip=clip, noise=noise, **settings)
    found = []
    for _ in range(TRIALS):
        torch.nn.init.zeros_(model.weight)
        for _ in range(CANARY_STEPS // len(training.loader)):
            train(torch, training, loss=torch.nn.functional.mse_loss)
        found.append(model.weight[0, 3].item())
    return np.array(found)


@pytest.mark.slow
def test_a_canary_shows_no_more_than_was_stated_unless_nothing_is_clipped(torch) -> None:
    stated = epsilon(CANARY["noise"], CANARY["batch_size"] / CANARY["records"], CANARY_STEPS, CANARY["delta"])
    sound = [last_weights(torch, canary, CANARY["clip"]) for canary in (False, True)]
    assert private_training.shown_epsilon(*sound) <= stated
    unclipped = [last_weights(torch, canary, 1e4) for canary in (False, True)]
    assert private_training.shown_epsilon(*unclipped) > stated
