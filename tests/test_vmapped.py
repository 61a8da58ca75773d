"""Models trained at once are the models trained one by one."""

from __future__ import annotations

import copy
import functools
import gc
import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest

from divulge.errors import InputError
from divulge.fits import Torch, Views
from divulge.fits.batches import own, shared, shuffled
from divulge.references import design, fit_references

N, FEATURES, CLASSES = 120, 12, 3
EVERYONE = np.arange(N)
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def torch(require):
    return require("torch")


def data(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, FEATURES)).astype(np.float32)
    return x, (x[:, :CLASSES] + rng.standard_normal((N, CLASSES))).argmax(axis=1)


def halves(models=4, seed=1, spread=3):
    """Rows of each model: about half, of several sizes."""
    rng = np.random.default_rng(seed)
    return [np.sort(rng.permutation(N)[: N // 2 + i % spread * 5]) for i in range(models)]


def mlp():
    from torch import nn

    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def cnn():
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, CLASSES)
    )


def normalised():
    """With batch normalisation; in float64, since in float32 it makes much of rounding."""
    from torch import nn

    return nn.Sequential(
        nn.Linear(FEATURES, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)
    ).double()


def dropping():
    from torch import nn

    return nn.Sequential(nn.Linear(FEATURES, 16), nn.Dropout(0.5), nn.Linear(16, CLASSES))


def sgd(parameters):
    import torch

    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3)


def adam(parameters):
    import torch

    return torch.optim.Adam(parameters, lr=1e-2)


def adamw(parameters):
    import torch

    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1)


def asked(predicts, records):
    return np.stack([predict(records, EVERYONE, 0) for predict in predicts])


def assert_same(fit, rows, records, close=CLOSE):
    seeds = [7 + i for i in range(len(rows))]
    one_by_one = asked([fit(records, part, seed) for part, seed in zip(rows, seeds, strict=True)], records)
    at_once = asked(fit.fit_many(records, rows, seeds), records)
    assert np.abs(one_by_one[0] - one_by_one[1]).max() > 100 * close, "models that are alike show nothing"
    np.testing.assert_allclose(at_once, one_by_one, rtol=0, atol=close)
    alone = asked(fit.fit_many(records, rows[:1], seeds[:1]), records)
    np.testing.assert_allclose(alone, one_by_one[:1], rtol=0, atol=close)


@pytest.mark.parametrize("batches", ["own", "shared"])
@pytest.mark.parametrize("optimizer", [sgd, adam, adamw])
@pytest.mark.parametrize("build", [mlp, cnn])
def test_the_same_as_one_by_one(build, optimizer, batches):
    fit = Torch(build, epochs=3, batch_size=16, optimizer=optimizer, batches=batches)
    assert_same(fit, halves(), data())


def test_one_by_one_is_the_loop_that_one_would_write(torch):
    x, y = data()
    rows = halves()[0]
    fit = Torch(mlp, epochs=3, batch_size=16, optimizer=sgd)
    torch.manual_seed(5)
    module = mlp()
    optimizer = sgd(module.parameters())
    for epoch in range(3):
        order = rows[np.random.default_rng((5, epoch)).permutation(len(rows))]
        for start in range(0, len(rows), 16):
            part = order[start : start + 16]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(torch.tensor(x[part])), torch.tensor(y[part])).backward()
            optimizer.step()
    want = module(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(fit((x, y), rows, 5)((x, y), EVERYONE, 0), want, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_batch_normalisation_is_each_models_own(optimizer):
    fit = Torch(normalised, epochs=3, batch_size=16, optimizer=optimizer)
    rows = [part[:-1] for part in halves(models=5, spread=2)]  # a last batch of one has no variance
    assert_same(fit, rows, data(), close=1e-7)


def test_shared_batches_leave_rows_of_other_models_out_of_batch_normalisation():
    x, y = data()
    fit = Torch(normalised, epochs=2, batch_size=32, optimizer=sgd, batches="shared")
    rows = halves()[0]
    others = x.copy()
    others[np.setdiff1d(EVERYONE, rows)] += 100
    before, after = (fit((inputs, y), rows, 0)((x, y), EVERYONE, 0) for inputs in (x, others))
    np.testing.assert_array_equal(before, after)
    with pytest.raises(InputError, match=r"DV405 .* batch normalisation"):
        fit.fit_many((x, y), halves(), range(4))


@pytest.mark.parametrize("batches", ["own", "shared"])
def test_rows_that_a_model_does_not_have_change_nothing(batches):
    x, y = data()
    rows = halves()
    fit = Torch(mlp, epochs=2, batch_size=16, optimizer=sgd, batches=batches)
    others = x.copy()
    others[np.setdiff1d(EVERYONE, rows[0])] *= 1000
    before, after = (fit.fit_many((inputs, y), rows, range(4))[0]((x, y), EVERYONE, 0) for inputs in (x, others))
    np.testing.assert_array_equal(before, after)


def test_schedule_loss_frozen_and_tied_weights(torch):
    x, _ = data()
    y = (x[:, 0] - x[:, 1]).astype(np.float64) + 3

    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(FEATURES, FEATURES)
            self.second = torch.nn.Linear(FEATURES, FEATURES)
            self.second.weight = self.first.weight
            self.last = torch.nn.Linear(FEATURES, 1)
            self.last.weight.requires_grad_(False)

        def forward(self, x):
            return self.last(self.second(torch.tanh(self.first(x))))

    fit = Torch(
        Tied,
        epochs=3,
        batch_size=16,
        optimizer=sgd,
        loss=lambda outputs, targets: (outputs.reshape(-1) - targets) ** 2 / 10,
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.1, total_steps=steps, cycle_momentum=False
        ),
    )
    assert_same(fit, halves(spread=1), (x, y))


def test_one_output_and_mappings_of_inputs(torch):
    rng = np.random.default_rng(0)
    x = {"word": rng.integers(0, 9, N), "size": rng.standard_normal((N, 2)).astype(np.float32), "other": rng.random(N)}

    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(9, 4)
            self.last = torch.nn.Linear(6, 1)

        def forward(self, word, size):
            return self.last(torch.cat([self.words(word), size], dim=-1))

    fit = Torch(Words, epochs=3, batch_size=16, optimizer=adam)
    assert_same(fit, halves(), (x, np.where(rng.random(N) < 0.5, "yes", "no")))


def test_threads_change_nothing(torch):
    fit, records, before = Torch(mlp, epochs=2, batch_size=16, optimizer=sgd), data(), torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(asked(fit.fit_many(records, halves(5), range(5)), records))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(made[0], made[1], rtol=0, atol=CLOSE)


def test_dropout_draws_masks_of_its_own_and_the_same_again():
    fit, records = Torch(dropping, epochs=2, batch_size=16, optimizer=sgd), data()
    rows = [halves()[0]] * 2
    first, again = (asked(fit.fit_many(records, rows, [3, 3]), records) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - first[1]).max() > 1e-3, "two models of one seed have different masks"
    alone = fit(records, rows[0], 3)(records, EVERYONE, 0)
    assert 1e-3 < np.abs(first[0] - alone).max() < 2


@pytest.mark.parametrize("name", ["LBFGS", "Muon", "Adafactor", "SparseAdam"])
def test_optimisers_that_look_at_whole_tensors_are_refused(torch, name):
    kind = getattr(torch.optim, name, None)
    if kind is None:
        pytest.skip(f"this version of torch has no {name}")
    fit = Torch(mlp, epochs=1, optimizer=kind)
    with pytest.raises(InputError, match=f"DV405 .*{name}.*executor='processes'"):
        fit.fit_many(data(), halves(), range(4))


@pytest.mark.parametrize("name", ["RMSprop", "NAdam", "RAdam", "ASGD", "Rprop", "Adagrad", "Adadelta", "Adamax"])
def test_optimisers_that_look_at_numbers_one_by_one_are_not(torch, name):
    assert_same(Torch(mlp, epochs=2, optimizer=getattr(torch.optim, name)), halves(2), data())


def test_an_optimiser_that_treats_biases_by_their_axes_is_refused(torch):
    def optimizer(parameters):
        decayed = [one for one in parameters if one.ndim > 1]
        plain = [one for one in parameters if one.ndim == 1]
        groups = [{"params": decayed, "weight_decay": 0.5}, {"params": plain, "weight_decay": 0.0}]
        return torch.optim.SGD([group for group in groups if group["params"]], lr=0.1)

    with pytest.raises(InputError, match="DV405"):
        Torch(mlp, epochs=1, optimizer=optimizer).fit_many(data(), halves(), range(4))


def by_numbers(parameters):
    import torch

    groups = [{"params": [one], "lr": 0.5 if one.numel() > 50 else 0.01} for one in parameters]
    return torch.optim.SGD(groups, lr=0.1)


def by_width(parameters):
    import torch

    return torch.optim.SGD([{"params": [one], "lr": 1 / one.shape[-1]} for one in parameters], lr=0.1)


def by_tensor(parameters):
    import torch

    rates = [torch.tensor(1.0 + one.numel()) / 1000 for one in parameters]
    return torch.optim.Adam(
        [{"params": [one], "lr": lr} for one, lr in zip(parameters, rates, strict=True)], foreach=False
    )


def without_vectors(parameters):
    """Leaves out what has few numbers, as some leave out biases."""
    import torch

    return torch.optim.SGD([one for one in parameters if one.numel() > 20], lr=0.1)


@pytest.mark.parametrize("optimizer", [by_numbers, by_width, by_tensor, without_vectors])
def test_an_optimiser_that_looks_at_shapes_is_refused(optimizer):
    """Stacks have another number of numbers, and some their axes in another order."""
    fit = Torch(mlp, epochs=1, optimizer=optimizer)
    with pytest.raises(InputError, match=rf"DV405 .*{optimizer.__name__}, whose settings of .*(weight|bias) differ"):
        fit.fit_many(data(), halves(), range(4))


def test_an_optimiser_with_groups_by_place_is_not_refused(torch):
    def optimizer(parameters):
        first, *rest = parameters
        return torch.optim.SGD([{"params": [first], "lr": torch.tensor(0.05)}, {"params": rest}], lr=0.1, foreach=False)

    assert_same(Torch(mlp, epochs=2, batch_size=16, optimizer=optimizer), halves(), data())


def spectral():
    """vmap takes it in evaluation mode; in training its power iteration fails there."""
    from torch import nn

    normalised = nn.utils.parametrizations.spectral_norm(nn.Linear(FEATURES, 16))
    return nn.Sequential(normalised, nn.ReLU(), nn.Linear(16, CLASSES))


def test_a_module_that_cannot_be_stacked_in_training_is_refused_and_auto_trains_it_otherwise(caplog):
    fit, records, trained_on = Torch(spectral, epochs=2, batch_size=16, optimizer=sgd), data(), design(N, 4)
    with pytest.raises(InputError, match=r"DV405 .*Sequential, which fails there in a step of the training: .*process"):
        fit.fit_many(records, halves(), range(4))
    with caplog.at_level(logging.INFO, logger="divulge"):
        found = fit_references(fit, records, trained_on, executor="auto", workers=1)
    assert "Not at once: expected a module that torch.func.vmap can run" in caplog.text
    loop = fit_references(fit, records, trained_on, executor="loop")
    np.testing.assert_allclose(found.signals["log_odds"], loop.signals["log_odds"], atol=1e-4)


def test_lbfgs_trains_one_by_one(torch):
    x, y = data()
    fit = Torch(mlp, epochs=3, batch_size=N, optimizer=functools.partial(torch.optim.LBFGS, max_iter=5))
    assert (fit((x, y), EVERYONE, 0)((x, y), EVERYONE, 0).argmax(axis=1) == y).mean() > 0.8


def test_modules_that_stacking_would_change_are_refused(torch):
    class Projected(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.directions = torch.randn(FEATURES, 5)  # neither parameter nor buffer
            self.last = torch.nn.Linear(5, CLASSES)

        def forward(self, x):
            return self.last(x @ self.directions)

    class Branching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.last = torch.nn.Linear(FEATURES, CLASSES)

        def forward(self, x):
            return self.last(x) if x.mean().item() > self.last.bias.sum().item() else -self.last(x)

    def unlike():
        return torch.nn.Linear(FEATURES, CLASSES, bias=bool(torch.rand(()) < 0.5))

    for build, words in ((Projected, "register_buffer"), (Branching, "vmap"), (unlike, "one shape")):
        with pytest.raises(InputError, match=f"DV405 .*{words}"):
            Torch(build, epochs=1, optimizer=sgd).fit_many(data(), halves(8), range(8))


def test_a_module_that_is_not_new_is_refused(torch):
    """What it learned of one model's rows would stay in it for the next."""
    kept, body = mlp(), torch.nn.Linear(FEATURES, 4)

    def half_new():
        return torch.nn.Sequential(body, torch.nn.Linear(4, CLASSES))

    for build in (lambda: kept, half_new):
        fit = Torch(build, epochs=1, optimizer=sgd)
        fit(data(), halves()[0], 0)
        for again in (
            lambda fit=fit: fit(data(), halves()[1], 1),
            lambda fit=fit: fit.fit_many(data(), halves(), range(4)),
        ):
            with pytest.raises(InputError, match=r"DV003 .*new module"):
                again()
    other = mlp()
    with pytest.raises(InputError, match=r"DV003 .*new module"):
        Torch(lambda: other, epochs=1, optimizer=sgd).fit_many(data(), halves(), range(4))
    for part in body.parameters():
        part.requires_grad_(False)  # what is not trained may be one for all
    assert_same(Torch(half_new, epochs=2, optimizer=sgd), halves(), data())
    assert_same(Torch(lambda: copy.deepcopy(other), epochs=2, optimizer=sgd), halves(), data())


def test_an_error_in_one_thread_stops_the_others(torch):
    before, calls = torch.get_num_threads(), []

    def loss(outputs, targets):
        calls.append(len(outputs))
        if len(calls) == 20:
            raise RuntimeError("enough")
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="none")

    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError, match="enough"):
            Torch(mlp, epochs=10_000, optimizer=sgd, loss=loss).fit_many(data(), halves(4, spread=1), range(4))
        assert torch.get_num_threads() == 2
        assert len(calls) < 5_000, "of 20,000 steps and more"
    finally:
        torch.set_num_threads(before)


def test_global_random_numbers_stay(torch):
    records = data()
    fit = Torch(dropping, epochs=1, optimizer=sgd)
    torch.manual_seed(0)
    np.random.seed(0)
    want = torch.rand(3), np.random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    fit(records, halves()[0], 1)(records, EVERYONE, 0)
    fit.fit_many(records, halves(), range(4))[1](records, EVERYONE, 0)
    assert torch.equal(torch.rand(3), want[0]) and np.random.random() == want[1]


def test_predicts_of_stacked_models_share_the_stack(torch):
    def held():
        gc.collect()
        tensors = (
            one for one in gc.get_objects() if issubclass(type(one), torch.Tensor) and one.dtype == torch.float32
        )
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
        return sum(storages.values())

    def wide():
        return torch.nn.Sequential(torch.nn.Linear(FEATURES, 5000), torch.nn.Linear(5000, CLASSES))

    records, models = data(), 6
    one = 4 * sum(parameter.numel() for parameter in wide().parameters())
    before = held()
    predicts = Torch(wide, epochs=1, optimizer=sgd).fit_many(records, halves(models, spread=1), range(models))
    for predict in predicts:
        predict(records, EVERYONE, 0)
    assert models * one <= held() - before < (models + 2) * one


def test_fit_references_vmapped_is_the_loop():
    records = data()
    fit = Torch(mlp, epochs=2, batch_size=16, optimizer=sgd, at_once=3)
    trained_on = design(N, 8)
    loop, vmapped = (fit_references(fit, records, trained_on, executor=name) for name in ("loop", "vmapped"))
    for name, signals in loop.signals.items():
        np.testing.assert_allclose(vmapped.signals[name], signals, rtol=0, atol=1e-4)


def test_views_are_queries():
    records = data()
    plain = Torch(mlp, epochs=2, batch_size=16, optimizer=sgd)
    fit = Views(plain, [lambda x: x, np.negative])
    rows = halves(2)
    for predict in (fit(records, rows[0], 0), fit.fit_many(records, rows, [0, 1])[0]):
        want = plain(records, rows[0], 0)
        np.testing.assert_allclose(predict(records, EVERYONE, 0), want(records, EVERYONE, 0), atol=CLOSE)
        negative = (-records[0], records[1])
        np.testing.assert_allclose(predict(records, EVERYONE, 1), want(negative, EVERYONE, 0), atol=CLOSE)
        with pytest.raises(InputError, match="DV003"):
            predict(records, EVERYONE, 2)
    with pytest.raises(InputError, match=r"DV003 .*divulge\.fits\.Views"):
        plain(records, rows[0], 0)(records, EVERYONE, 1)
    assert fit.brief()[0].fit.epochs == 1 and fit.at_once == 16
    with pytest.raises(InputError, match="DV405"):
        Views(lambda data, rows, seed: None, [np.negative]).fit_many(records, rows, [0, 1])


def test_wrong_values():
    records, rows = data(), halves()
    fit = Torch(mlp, epochs=1, optimizer=sgd)
    for wrong in ({"epochs": 0}, {"batch_size": 0}, {"at_once": 0}, {"batches": "everyone's"}):
        with pytest.raises(InputError, match=rf"DV003 .*{next(iter(wrong))}"):
            replace(fit, **wrong)
    with pytest.raises(InputError, match=r"DV003 .*regression"):
        fit((records[0], records[0][:, 0]), rows[0], 0)
    with pytest.raises(InputError, match=r"DV003 .*loss of each row"):
        replace(fit, loss=lambda outputs, targets: outputs.mean())(records, rows[0], 0)
    with pytest.raises(InputError, match="DV074"):
        fit((["one", "two"] * (N // 2), records[1]), rows[0], 0)


def test_fits_travel_and_tell_what_they_are():
    fit = Torch(mlp, epochs=2, batch_size=16, optimizer=functools.partial(sgd))
    assert "0x" not in repr(fit) and "epochs=2" in repr(fit) and "mlp" in repr(fit) and "sgd" in repr(fit)
    records, rows = data(), halves()[0]
    again = pickle.loads(pickle.dumps(fit))
    assert repr(again) == repr(fit)
    np.testing.assert_array_equal(*(one(records, rows, 3)(records, EVERYONE, 0) for one in (fit, again)))
    assert (fit(records, rows, 3)(records, EVERYONE, 0) != fit(records, rows, 4)(records, EVERYONE, 0)).any()


@pytest.mark.parametrize("size", [1, 7, 16, 60, 200])
def test_batches_are_those_of_a_plain_loop(size):
    rows, seeds = halves(3), [4, 5, 6]
    last = -(-max(map(len, rows)) // size)
    rows = [part for part in rows if -(-len(part) // size) == last]
    for epoch in range(2):
        batches = own(rows, seeds[: len(rows)], epoch, size)
        for i, part in enumerate(rows):
            order = part[np.random.default_rng((seeds[i], epoch)).permutation(len(part))]
            for number, batch in enumerate(batches):
                want = order[number * size : (number + 1) * size]
                counts = batch.weight[i] > 0
                assert batch.rows[i][counts].tolist() == want.tolist()
                assert np.isin(batch.rows[i], part).all(), "what fills up is the model's own"
                np.testing.assert_allclose(batch.weight[i][counts], 1 / len(want))
        trained_on = np.array([np.isin(EVERYONE, part) for part in rows])
        order = shuffled(N, 9, epoch)
        common = shared(trained_on, 9, epoch, size)
        assert np.concatenate([batch.rows for batch in common]).tolist() == order.tolist()
        for i, part in enumerate(rows):
            for batch in common:
                np.testing.assert_array_equal(batch.weight[i] > 0, np.isin(batch.rows, part))
                assert batch.weight[i].sum() == pytest.approx(1) or not np.isin(batch.rows, part).any()
