"""The accounting of private training: published values, a naive twin, refusals."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from divulge.dp.accounting import ADJACENCY, Privacy, check, epsilon, noise_for, statement, warn_of_delta
from divulge.errors import InputError
from private_training import documented
from test_package import HEAVY, run_python


@pytest.fixture(autouse=True)
def _dp_accounting(require) -> None:
    require("dp_accounting")


def rdp(noise, rate, steps, delta):
    """Renyi accounting: another method, looser, never below the truth."""
    import dp_accounting as dp

    accountant = dp.rdp.RdpAccountant()
    accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), steps)
    return accountant.get_epsilon(delta)


def one_step_delta(noise, rate, eps):
    """Naive: the hockey-stick divergence of one step, both ways, integrated over the output."""
    from scipy.integrate import quad
    from scipy.stats import norm

    def without(z):
        return norm.pdf(z, 0, noise)

    def with_record(z):
        return (1 - rate) * norm.pdf(z, 0, noise) + rate * norm.pdf(z, 1, noise)

    def divergence(p, q):
        reach = 12 * noise
        return quad(lambda z: max(p(z) - math.exp(eps) * q(z), 0.0), -reach, 1 + reach, limit=500)[0]

    return max(divergence(with_record, without), divergence(without, with_record))


@pytest.mark.parametrize(("noise", "published"), [(0.7, 6.21), (1.0, 2.58), (2.0, 0.90)])
def test_published_values(noise, published) -> None:
    assert epsilon(noise, 0.01, 2000, 1e-5) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(("noise", "rate"), [(0.5, 0.1), (1.0, 0.01), (1.0, 0.5), (3.0, 0.2)])
@pytest.mark.parametrize("delta", [1e-6, 1e-3])
def test_one_step_against_the_definition(noise, rate, delta) -> None:
    bound = epsilon(noise, rate, 1, delta)
    assert one_step_delta(noise, rate, bound) <= delta * 1.001
    assert one_step_delta(noise, rate, bound * 0.99 - 1e-3) > delta  # and it is not loose


@pytest.mark.parametrize("noise", [0.4, 1.0, 5.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.001, 100), (0.01, 2000), (0.2, 500), (1.0, 10)])
def test_renyi_accounting_is_above(noise, rate, steps) -> None:
    value = epsilon(noise, rate, steps, 1e-5)
    assert 0 < value <= rdp(noise, rate, steps, 1e-5)


def test_no_sampling_is_the_gaussian_mechanism() -> None:
    from scipy.special import ndtr

    value, mu = epsilon(2.0, 1.0, 9, 1e-5), math.sqrt(9) / 2.0
    delta = ndtr(-value / mu + mu / 2) - math.exp(value) * ndtr(-value / mu - mu / 2)
    assert delta == pytest.approx(1e-5, rel=1e-3)
    assert epsilon(2.0, 0.999999, 9, 1e-5) == pytest.approx(value, rel=1e-3)  # the two ways to compute it meet


def test_more_noise_fewer_steps_and_rarer_draws_cost_less() -> None:
    base = epsilon(1.0, 0.02, 500, 1e-5)
    assert epsilon(1.1, 0.02, 500, 1e-5) < base < epsilon(1.0, 0.02, 600, 1e-5)
    assert epsilon(1.0, 0.01, 500, 1e-5) < base < epsilon(1.0, 0.02, 500, 1e-6)


@pytest.mark.parametrize("noise", [0.01, 0.05, 0.2])
def test_little_noise_gives_a_large_number_and_not_a_long_wait(noise) -> None:
    value = epsilon(noise, 0.1, 400, 1e-5)
    assert 100 < value < 400 * (0.5 / noise**2 + 10 / noise)


@pytest.mark.parametrize("target", [0.1, 2.58, 30.0])
def test_noise_for_keeps_epsilon_and_wastes_little(target) -> None:
    noise = noise_for(target, 0.05, 200, 1e-5)
    assert target * 0.99 < epsilon(noise, 0.05, 200, 1e-5) <= target
    assert epsilon(noise / 1.0011, 0.05, 200, 1e-5) > target


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta", "word"),
    [
        (1e-3, 0.01, 10, 1e-5, "states nothing"),
        (0.0, 0.01, 10, 1e-5, "infinite"),
        (-1.0, 0.01, 10, 1e-5, "infinite"),
        (math.nan, 0.01, 10, 1e-5, "infinite"),
        (math.inf, 0.01, 10, 1e-5, "at most"),
        (1.0, 0.0, 10, 1e-5, "rate"),
        (1.0, 1.01, 10, 1e-5, "rate"),
        (1.0, math.nan, 10, 1e-5, "rate"),
        (1.0, 0.01, -1, 1e-5, "steps"),
        (1.0, 0.01, 1.5, 1e-5, "steps"),
        (1.0, 0.01, True, 1e-5, "steps"),
        (1.0, 0.01, 10, 0.0, "delta"),
        (1.0, 0.01, 10, 1.0, "delta"),
        (1.0, 0.01, 10, 1e-16, "delta"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(noise, rate, steps, delta, word) -> None:
    with pytest.raises(InputError, match=word) as error:
        epsilon(noise, rate, steps, delta)
    assert error.value.code == "DV501"


@pytest.mark.parametrize(("target", "steps"), [(0.0, 10), (math.inf, 10), (math.nan, 10), (1.0, 0), (1e-6, 10**6)])
def test_no_noise_is_found_for_what_cannot_be_kept(target, steps) -> None:
    with pytest.raises(InputError) as error:
        noise_for(target, 0.5, steps, 1e-9)
    assert error.value.code == "DV501"


def test_shuffled_batches_are_refused() -> None:
    with pytest.raises(InputError, match="shuffl") as error:
        statement(noise=1.0, rate=0.01, steps=10, delta=1e-5, sampling="shuffling")
    assert error.value.code == "DV502"


def test_a_delta_as_large_as_one_record_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="1 / records"):
        statement(noise=1.0, rate=0.01, steps=10, delta=1e-3, records=1000)
    warn_of_delta(0.9e-3, 1000)
    check(1.0, 1.0, 1e-5)


def test_a_statement_says_what_it_rests_on() -> None:
    privacy = statement(noise=1.0, rate=0.01, steps=2000, delta=1e-5, clip=0.5, records=60_000)
    assert privacy.epsilon == epsilon(1.0, 0.01, 2000, 1e-5)
    assert privacy._replace(epsilon=0.0, accountant="") == Privacy(0.0, 1e-5, 1.0, 0.01, 2000, 0.5, ADJACENCY, "")
    for word in ("(2.59, 1e-05)", "add or remove one record", "2000 steps", "rate 0.01", "clip 0.5", "PLD", "not for"):
        assert word in str(privacy)  # 2.584: rounded up
    assert statement(noise=1.0, rate=0.01, steps=0, delta=1e-5).epsilon == 0
    seeded = statement(noise=1.0, rate=0.01, steps=1, delta=1e-5, seeded=True)
    assert "known seed nothing is guaranteed" in str(seeded) and "seed" not in str(privacy)


def test_numbers_of_numpy_are_numbers() -> None:
    assert epsilon(np.float32(1), np.float64(0.01), np.int64(100), 1e-5) == epsilon(1.0, 0.01, 100, 1e-5)


def test_no_framework_is_loaded_before_it_is_called() -> None:
    code = "import sys, divulge; print('divulge.dp' in sys.modules); import divulge.dp.accounting, divulge.dp.keras, "
    code += "divulge.dp.torch, divulge.dp.jax; print(*{name.partition('.')[0] for name in sys.modules})"
    first, loaded = run_python(code).splitlines()
    assert first == "False"
    assert not {*HEAVY, "dp_accounting", "opacus", "jax_privacy", "optax"} & set(loaded.split())
    assert "divulge" in sys.modules


def test_the_document(capsys) -> None:
    exec(documented("What is guaranteed"), {})
    noise, value = map(float, capsys.readouterr().out.split())
    assert 0.5 < noise < 1.5 and 2.97 < value <= 3.0
