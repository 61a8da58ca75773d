"""Signals against naive twins: fifty-digit arithmetic for a few rows, float64 for many."""

from decimal import Context, Decimal, localcontext

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from divulge import Evidence, Unavailable, blocks
from divulge.signals import LABELLED, NAMES, UNLABELLED, compute, signal, why_unavailable

FLOATS = (np.float16, np.float32, np.float64)
PROBABILITY_LIKE = ("loss", "modified_entropy", "entropy", "confidence")  # one sign: errors are relative to them


def multiclass(logits, labels, kind="logits"):
    n = len(logits)
    return Evidence(np.arange(n) < n // 2, outputs=np.asarray(logits), labels=np.asarray(labels), kind=kind)


def draw(n=200, c=10, dtype=np.float32, spread=4.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(scale=spread, size=(n, c)).astype(dtype), rng.integers(0, c, n)


# ----------------------------------------------------------------------------------------------- naive twins


def exact_row(z, y, digits=60):
    """All signals of one row of logits in `digits` digits, from the definitions; floats."""
    with localcontext(Context(prec=digits, Emin=-(10**9), Emax=10**9)):
        z = [Decimal(float(x)) for x in z]
        top = max(z)
        weights = [(x - top).exp() for x in z]
        total = sum(weights)
        others = [sum(w for i, w in enumerate(weights) if i != j) for j in range(len(z))]
        p = [w / total for w in weights]
        rest = [w / total for w in others]  # 1 - p_j without the subtraction
        modified = rest[y] * p[y].ln() + sum(p[j] * rest[j].ln() for j in range(len(z)) if j != y)
        return {
            "log_odds": float((weights[y] / others[y]).ln()),
            "loss": float(p[y].ln()),
            "margin": float(z[y] - max(x for j, x in enumerate(z) if j != y)),
            "modified_entropy": float(modified),
            "correct": float(z[y] == top),
            "entropy": float(sum(x * x.ln() for x in p)),
            "confidence": float(max(p).ln()),
        }


def exact_rows(z, labels, digits=60):
    rows = [exact_row(row, label, digits) for row, label in zip(z, labels, strict=True)]
    return {name: np.array([row[name] for row in rows]) for name in NAMES}


def many_rows(z, labels):
    """The same in float64 for many rows whose margins are moderate."""
    z = np.asarray(z, np.float64)
    n = np.arange(len(z))
    log_p = log_softmax(z, axis=1)
    p = np.exp(log_p)
    others = z.copy()
    others[n, labels] = -np.inf
    own = p[n, labels]
    terms = p * np.log1p(-p)
    terms[n, labels] = 0
    return {
        "log_odds": z[n, labels] - logsumexp(others, axis=1),
        "loss": log_p[n, labels],
        "margin": z[n, labels] - others.max(axis=1),
        "modified_entropy": (1 - own) * np.log(own) + terms.sum(axis=1),
        "correct": (z.argmax(axis=1) == labels).astype(float),
        "entropy": (p * log_p).sum(axis=1),
        "confidence": log_p.max(axis=1),
    }


def assert_close(found, wanted, name, relative):
    """Relative to the signal where it has one sign, else to one nat or more."""
    scale = np.abs(wanted) if name in PROBABILITY_LIKE else np.maximum(np.abs(wanted), 1)
    error = np.abs(np.asarray(found, np.float64) - wanted)
    worst = int(np.argmax(error - relative * scale))
    assert (error <= relative * scale).all(), (name, worst, found[worst], wanted[worst])


# ------------------------------------------------------------------------------------------------ multi-class


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("c", [2, 3, 10, 1000])
def test_logits_equal_the_definitions(c, dtype):
    z, y = draw(n=40 if c < 1000 else 5, c=c, dtype=dtype)
    wanted = exact_rows(z, y)
    tolerance = 2e-7 if dtype is np.float64 else 2e-5
    for name, found in compute(multiclass(z, y), NAMES).items():
        assert_close(found, wanted[name], name, tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("c", [2, 3, 10, 1000])
def test_probabilities_equal_the_definitions(c, dtype):
    z, y = draw(n=40 if c < 1000 else 5, c=c, spread=1.0)
    p = np.exp(log_softmax(z.astype(np.float64), axis=1)).astype(dtype)
    wanted = exact_rows(np.log(p.astype(np.float64)), y)
    tolerance = 2e-7 if dtype is np.float64 else 1e-4
    for name, found in compute(multiclass(p, y, "probs"), NAMES).items():
        assert_close(found, wanted[name], name, tolerance)


@pytest.mark.parametrize("c", [2, 10, 100])
def test_many_rows_equal_scipys_log_softmax_and_keep_its_order(c):
    z, y = draw(n=20_000, c=c, spread=2.0)
    wanted = many_rows(z, y)
    for name, found in compute(multiclass(z, y), NAMES).items():
        assert_close(found, wanted[name], name, 1e-4)
        order = np.argsort(wanted[name], kind="stable")
        steps = np.diff(found[order].astype(np.float64))
        assert (steps >= -1e-5 * (1 + np.abs(wanted[name][order][1:]))).all(), name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_signals_do_not_depend_on_a_shift_or_on_the_order_of_classes(name, kind):
    z, y = draw(c=7)
    if kind == "probs":
        z = np.exp(log_softmax(z, axis=1))
    order = np.random.default_rng(1).permutation(7)
    before = signal(multiclass(z, y, kind), name)
    shifted = z + np.float32(100) * (kind == "logits")
    after = signal(multiclass(shifted[:, order], np.argsort(order)[y], kind), name)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_logits_of_ten_thousand_give_finite_signals_without_a_warning(name, dtype):
    z = 1e4 * np.array([[1, -1, -1], [-1, 1, 1], [1, 1, 1], [-1, -1, 1], [0, 1, -1]], dtype)
    for label in range(3):
        found = signal(multiclass(z, np.full(5, label)), name)
        assert np.isfinite(found).all()


def test_sure_right_and_sure_wrong_rows_of_ten_thousand_have_their_log_odds_and_loss():
    z = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    found = compute(multiclass(z, np.zeros(2, int)), ["log_odds", "loss", "margin"])
    assert found["log_odds"].tolist() == [2e4, -2e4]
    assert found["margin"].tolist() == [2e4, -2e4]
    assert found["loss"][1] == -2e4
    assert -1e-290 < found["loss"][0] < 0


@pytest.mark.parametrize("name", ["log_odds", "loss", "modified_entropy", "confidence"])
def test_margins_up_to_ten_thousand_keep_their_order(name):
    """Beyond 745 a loss is 0 even in float64; unscaled linear models have such margins."""
    z = confident(np.linspace(20, 1e4, 1000, dtype=np.float32))
    values = signal(multiclass(z, np.zeros(1000, int)), name)
    assert (np.diff(values) > 0).all()


def confident(margins, c=10):
    """(n, c) float32 logits with these margins; the other classes lie 0 to 3 below the second."""
    z = np.tile(-np.linspace(0, 3, c, dtype=np.float32), (len(margins), 1))
    z[:, 0] = margins
    z[:, 1] = 0
    return z


@pytest.mark.parametrize("name", ["log_odds", "loss", "margin", "modified_entropy", "entropy", "confidence"])
@pytest.mark.parametrize("c", [2, 10])
def test_margins_of_15_to_40_keep_1000_distinct_values_in_order_in_float32(name, c):
    found = signal(multiclass(confident(np.linspace(15, 40, 1000), c), np.zeros(1000, int)), name)
    assert len(np.unique(found)) == 1000
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("name", ["log_odds", "loss", "modified_entropy", "entropy", "confidence"])
def test_margins_up_to_300_keep_distinct_values_in_order_in_float32(name):
    found = signal(multiclass(confident(np.linspace(1, 300, 1000)), np.zeros(1000, int)), name)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("name", ["log_odds", "loss", "confidence"])
def test_margins_up_to_600_keep_distinct_values_in_order_in_float32(name):
    found = signal(multiclass(confident(np.linspace(1, 600, 1000)), np.zeros(1000, int)), name)
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("name", ["loss", "modified_entropy", "entropy", "confidence"])
def test_confident_rows_are_accurate_and_not_only_in_order(name, c):
    z = confident(np.array([1, 8, 15, 16, 17, 40, 80, 150]), c)
    wanted = exact_rows(z, np.zeros(8, int), digits=160)[name]
    assert_close(signal(multiclass(z, np.zeros(8, int)), name), wanted, name, 1e-4)


@pytest.mark.parametrize("c", [2, 3, 10])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_modified_entropy_of_sure_errors_is_accurate(c, dtype):
    margins = np.array([-0.1, -1, -5, -15, -17, -40, -90, -150, -400, -700], dtype)
    z = confident(margins, c).astype(dtype)
    wanted = exact_rows(z, np.zeros(len(z), int), digits=60)["modified_entropy"]
    assert_close(signal(multiclass(z, np.zeros(len(z), int)), "modified_entropy"), wanted, "modified_entropy", 1e-4)


@pytest.mark.parametrize("third", [-1e4, -5e3, 5e3])
def test_modified_entropy_of_errors_as_sure_as_ten_thousand(third):
    """Song and Mittal: about log p_y + log(1 - p_wrong), the second by the next most likely class."""
    z = np.array([[-1e4, 1e4, third]], np.float32)
    second = max(-1e4, third) - 1e4
    found = signal(multiclass(z, [0]), "modified_entropy")
    np.testing.assert_allclose(found, -2e4 + second, rtol=1e-4)


def test_modified_entropy_falls_as_the_wrong_class_gets_surer():
    found = signal(multiclass(confident(np.linspace(-600, -1, 1000)), np.zeros(1000, int)), "modified_entropy")
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", FLOATS)
def test_saturated_probabilities_are_finite(name, dtype):
    p = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 0, 1]], dtype)
    assert np.isfinite(signal(multiclass(p, np.zeros(4, int), "probs"), name)).all()


def test_saturated_probabilities_order_right_above_undecided_above_wrong():
    p = np.array([[0, 1, 0], [0.5, 0.5, 0], [1, 0, 0]], np.float32)
    for name in ("log_odds", "loss", "margin", "modified_entropy"):
        assert (np.diff(signal(multiclass(p, np.zeros(3, int), "probs"), name)) > 0).all(), name


def test_log_odds_of_probabilities_near_one_come_from_the_other_classes():
    rest = np.geomspace(1e-30, 1e-8, 50).astype(np.float32)
    p = np.stack((np.ones(50, np.float32), rest, rest / 2), axis=1)
    found = signal(multiclass(p, np.zeros(50, int), "probs"), "log_odds")
    np.testing.assert_allclose(found, -np.log(1.5 * rest.astype(np.float64)), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_more_confident_right_record_has_a_higher_signal(name):
    z = np.zeros((20, 4), np.float32)
    z[:, 2] = np.linspace(0.5, 12, 20)
    found = signal(multiclass(z, np.full(20, 2)), name)
    assert (np.diff(found) > 0).all() if name != "correct" else (found == 1).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_signals_are_float32_unless_the_outputs_are_float64(kind, dtype):
    z, y = draw(dtype=dtype, spread=1.0)
    if kind == "probs":
        z = np.exp(log_softmax(z, axis=1)).astype(dtype)
    wanted = np.float64 if dtype is np.float64 else np.float32
    assert {x.dtype.type for x in compute(multiclass(z, y, kind), NAMES).values()} == {wanted}


def test_float16_outputs_give_what_their_float32_values_give():
    z, y = draw(dtype=np.float16)
    narrow, wide = (compute(multiclass(x, y), NAMES) for x in (z, z.astype(np.float32)))
    for name in NAMES:
        assert np.array_equal(narrow[name], wide[name]), name


def test_outputs_are_not_written_to():
    z, y = draw()
    before = z.copy()
    z.flags.writeable = False
    compute(multiclass(z, y), NAMES)
    assert np.array_equal(z, before)


def test_several_signals_in_one_pass_are_the_same_as_each_alone():
    z, y = draw()
    together = compute(multiclass(z, y), NAMES)
    for name in NAMES:
        assert np.array_equal(together[name], signal(multiclass(z, y), name)), name


# ------------------------------------------------------------------------------------- binary and multi-label


def exact_label(z, y, digits=200):
    """One yes-or-no label as two classes, logits 0 and z."""
    return exact_row([0.0, z], int(y), digits)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_one_logit_equals_two_classes(name, dtype):
    rng = np.random.default_rng(0)
    z = np.append(rng.normal(scale=5, size=30), [20.0, -20.0, 60.0, -60.0, 300.0, -300.0]).astype(dtype)
    y = rng.integers(0, 2, len(z))
    wanted = np.array([exact_label(float(s), label)[name] for s, label in zip(z, y, strict=True)])
    found = signal(Evidence(np.arange(len(z)) < 9, outputs=z, labels=y, kind="logits"), name)
    assert_close(found, wanted, name, 1e-12 if dtype is np.float64 else 1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_one_probability_equals_two_classes(name, dtype):
    p = np.array([0.001, 0.02, 0.3, 0.5625, 0.75, 0.99, 0.999], dtype)
    z = np.log(p.astype(np.float64)) - np.log1p(-p.astype(np.float64))
    for label in (0, 1):
        wanted = np.array([exact_label(s, label, 40)[name] for s in z])
        evidence = Evidence(np.arange(7) < 3, outputs=p, labels=np.full(7, label), kind="probs")
        assert_close(signal(evidence, name), wanted, name, 1e-12 if dtype is np.float64 else 2e-5)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_saturated_yes_no_probabilities_are_finite(dtype, shape):
    p = np.broadcast_to(np.array([0, 1, 0, 1], dtype).reshape(4, *[1] * (len(shape) - 1)), shape)
    labels = np.array([0, 0, 1, 1]) if len(shape) == 1 else np.broadcast_to([[False], [False], [True], [True]], shape)
    evidence = Evidence(np.arange(4) < 2, outputs=p.copy(), labels=labels.copy(), kind="probs")
    for name, found in compute(evidence, NAMES).items():
        assert np.isfinite(found).all(), name
        if name in LABELLED:
            assert found[0] > found[1], name


@pytest.mark.parametrize("name", NAMES)
def test_multi_label_signals_are_sums_over_labels(name):
    rng = np.random.default_rng(0)
    z, y = rng.normal(scale=4, size=(25, 6)).astype(np.float32), rng.random((25, 6)) < 0.4
    per_label = [
        [exact_label(float(s), b, 60)[name] for s, b in zip(*row, strict=True)] for row in zip(z, y, strict=True)
    ]
    wanted = np.mean(per_label, axis=1) if name == "correct" else np.sum(per_label, axis=1)
    found = signal(Evidence(np.arange(25) < 9, outputs=z, labels=y, kind="logits"), name)
    assert_close(found, wanted, name, 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_multi_label_logits_of_ten_thousand_are_finite(name):
    z = 1e4 * np.array([[1, -1], [1, 1], [-1, -1]], np.float32)
    y = np.array([[True, True], [False, False], [True, False]])
    assert np.isfinite(signal(Evidence(np.arange(3) < 1, outputs=z, labels=y, kind="logits"), name)).all()


@pytest.mark.parametrize("name", ["log_odds", "loss", "modified_entropy", "confidence"])
@pytest.mark.parametrize("margins", [(15, 40), (1, 300)])
def test_confident_yes_no_rows_keep_their_order_in_float32(name, margins):
    z = np.linspace(*margins, 1000).astype(np.float32)
    found = signal(Evidence(z > 20, outputs=z, labels=np.ones(1000, int), kind="logits"), name)
    assert (np.diff(found) > 0).all()


# -------------------------------------------------------------------------------------- regression, no labels


@pytest.mark.parametrize("outputs", FLOATS)
@pytest.mark.parametrize("labels", FLOATS)
def test_the_loss_of_a_regression_is_minus_the_residual(outputs, labels):
    predicted, target = np.array([1, 2.5, -3], outputs), np.array([1.5, 2.5, -1], labels)
    found = signal(Evidence(np.arange(3) < 1, outputs=predicted, labels=target), "loss")
    assert found.tolist() == [-0.5, 0, -2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_of_a_regression_with_deviations_is_the_log_density(dtype):
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    mean, deviation, target = rng.normal(size=50), rng.gamma(2, size=50), rng.normal(size=50)
    evidence = Evidence(
        np.arange(50) < 9, outputs=np.stack((mean, deviation), axis=1).astype(dtype), labels=target.astype(dtype)
    )
    wanted = norm.logpdf(target, mean, deviation)
    np.testing.assert_allclose(signal(evidence, "loss"), wanted, rtol=1e-4, atol=1e-4)


def test_without_labels_entropy_and_confidence_are_those_with_labels():
    z, y = draw()
    bare = Evidence(np.arange(200) < 9, outputs=z, kind="logits")
    wanted = compute(multiclass(z, y), UNLABELLED)
    for name, found in compute(bare, UNLABELLED).items():
        assert np.array_equal(found, wanted[name])


@pytest.mark.parametrize("name", UNLABELLED)
def test_one_output_without_labels_has_entropy_and_confidence(name):
    z = np.linspace(-30, 30, 41).astype(np.float32)
    wanted = np.array([exact_label(float(s), 0, 60)[name] for s in z])
    assert_close(signal(Evidence(z > 0, outputs=z, kind="logits"), name), wanted, name, 1e-6)


# -------------------------------------------------------------------------------- given, unavailable, how


def test_a_given_signal_goes_before_a_computed_one():
    z, y = draw(n=4)
    own = np.array([4.0, 3, 2, 1])
    evidence = Evidence(np.arange(4) < 2, outputs=z, labels=y, kind="logits", signals={"loss": own})
    found = compute(evidence, ["loss", "log_odds"])
    assert found["loss"] is own
    assert np.array_equal(found["log_odds"], signal(multiclass(z, y), "log_odds"))


@pytest.mark.parametrize(
    ("fields", "name", "reason"),
    [
        ({}, "loss", "needs outputs"),
        ({"labels": np.zeros(2, int)}, "correct", "needs outputs"),
        ({"outputs": np.zeros((2, 3)), "kind": "logits"}, "loss", "needs labels"),
        ({"outputs": np.zeros(2), "kind": "probs"}, "margin", "needs labels"),
        ({"outputs": np.zeros(2), "labels": np.zeros(2)}, "entropy", "no meaning for regression"),
        ({"outputs": np.zeros(2), "labels": np.zeros(2)}, "correct", "no meaning for regression"),
        ({"signals": {"mine": np.zeros(2)}}, "yours", "there is no signal 'yours'; known here: mine, log_odds"),
    ],
)
def test_what_is_missing_is_said(fields, name, reason):
    evidence = Evidence(np.array([True, False]), **fields)
    assert reason in why_unavailable(evidence, name)
    with pytest.raises(Unavailable, match=reason) as raised:
        signal(evidence, name)
    assert raised.value.code == "DV040"


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary"])
@pytest.mark.parametrize("size", [1, 100_000])
def test_signals_do_not_depend_on_the_size_of_blocks(monkeypatch, kind, size):
    rng = np.random.default_rng(0)
    shape = (3000,) if kind == "binary" else (3000, 5)
    z = rng.normal(scale=5, size=shape).astype(np.float32)
    labels = rng.random((3000, 5)) < 0.3 if kind == "multilabel" else rng.integers(0, 2, 3000)
    evidence = Evidence(np.arange(3000) < 9, outputs=z, labels=labels, kind="logits")
    whole = compute(evidence, NAMES)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    for name, found in compute(evidence, NAMES).items():
        assert np.array_equal(found, whole[name]), name


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("c", [20, 1000])
def test_there_is_never_a_wide_copy_of_all_outputs(peak_memory, dtype, c):
    n = 24_000_000 // c
    evidence = multiclass(np.zeros((n, c), dtype), np.zeros(n, np.int64))
    result_bytes = len(NAMES) * n * 8 * 2  # the widest results, and their last step in float64
    blocks_bytes = 40 * blocks.BLOCK_BYTES * blocks.cores()
    assert peak_memory(lambda: compute(evidence, NAMES)) < result_bytes + min(blocks_bytes, evidence.outputs.nbytes)


@pytest.fixture
def peak_memory():
    """Bytes that a call has in use at most, beyond what was there before."""
    import tracemalloc

    def measure(call):
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
