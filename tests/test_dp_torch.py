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
