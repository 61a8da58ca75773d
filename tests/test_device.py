"""Audits on a device against those of numpy, with torch tensors on the CPU: what runs on a GPU is the same code."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divulge import Evidence, InputError, Unavailable, audit, copies, folds, identity
from divulge.adapters import device
from divulge.roc import exact
from divulge.signals import NAMES, UNLABELLED, compute

PROBABILITY_LIKE = ("loss", "modified_entropy", "entropy", "confidence")  # one sign: errors are relative to them


@pytest.fixture
def torch(require):
    return require("torch")


def evidence_of(outputs, labels, kind="logits", member=None):
    n = len(outputs)
    return Evidence(np.arange(n) < n // 2 if member is None else member, outputs=outputs, labels=labels, kind=kind)


def assert_same_signals(torch, outputs, labels, kind="logits", tolerance=1e-6, names=NAMES):
    """Within the tolerance, and the dtype too.

    Of float32 the tolerance is that of log-odds x: the last digit of x is a share abs(x) times as large of exp(-x).
    """
    tolerance = 1e-12 if outputs.dtype == np.float64 else tolerance
    wanted = compute(evidence_of(outputs, labels, kind), [*names, *(() if labels is None else ("log_odds",))])
    given_labels = None if labels is None else torch.from_numpy(labels)
    found = device.signals_on(torch.from_numpy(outputs), given_labels, names, kind)
    assert list(found) == list(names)
    odds = np.abs(wanted.get("log_odds", np.zeros(1))).astype(np.float64)
    if "confidence" in wanted and outputs.ndim == 2:  # of the most likely class, not the label's
        odds = np.maximum(odds, np.log(-1 / np.minimum(wanted["confidence"].astype(np.float64), -1e-300)))
    for name in names:
        here, there = found[name].numpy(), wanted[name]
        assert here.dtype == there.dtype, name
        there, here = there.astype(np.float64), here.astype(np.float64)
        scale = np.abs(there) if name in PROBABILITY_LIKE else np.maximum(np.abs(there), 1)
        if outputs.dtype != np.float64 and name in PROBABILITY_LIKE:
            scale = scale * np.maximum(odds, 1)
        error = np.abs(here - there)
        worst = int(np.argmax(error - tolerance * scale))
        assert (error <= tolerance * scale).all(), (name, worst, here[worst], there[worst])


# ----------------------------------------------------------------------------------------------------- signals

FLOATS = (np.float16, np.float32, np.float64)


@pytest.mark.parametrize("spread", [1.0, 8.0, 100.0])
@pytest.mark.parametrize("c", [2, 10, 1000])
@pytest.mark.parametrize("dtype", FLOATS)
def test_signals_of_logits(torch, dtype, c, spread):
    rng = np.random.default_rng(c)
    n = 4000 if c < 1000 else 300
    z = (rng.normal(size=(n, c)) * spread).astype(dtype)
    assert_same_signals(torch, z, rng.integers(0, c, n), tolerance=1e-6 if c < 1000 else 2e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_signals_of_probabilities_with_zeros_and_ones(torch, dtype):
    rng = np.random.default_rng(1)
    p = np.exp(rng.normal(size=(3000, 10)) * 6)
    p = (p / p.sum(axis=1, keepdims=True)).astype(dtype)
    p[:500] = np.eye(10)[rng.integers(0, 10, 500)]
    p[500:700] = 0.1
    p[700:900] = np.repeat([[0.5, 0.0], [0.5, 0.0]], 5, axis=1)[rng.integers(0, 2, 200)]
    p[700:900, :] = np.where(np.arange(10) < 2, 0.5, 0)
    assert_same_signals(torch, p, rng.integers(0, 10, 3000), "probs")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_signals_of_extreme_logits_and_ties(torch, dtype):
    rng = np.random.default_rng(2)
    z = rng.choice([-1e4, -600, -50, 0, 1, 3, 50, 600, 1e4], (6000, 4)).astype(dtype)
    y = rng.integers(0, 4, 6000)
    assert_same_signals(torch, z, y)
    loss = device.signals_on(torch.from_numpy(z), torch.from_numpy(y), ["loss"])["loss"]
    assert loss.dtype == torch.float64  # float32 would tie the most confident


@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_signals_of_two_classes(torch, dtype, kind):
    rng = np.random.default_rng(3)
    z = rng.normal(size=5000) * 8
    z[:60] = np.repeat([1e4, -1e4, 0.0], 20)
    x = (z if kind == "logits" else 1 / (1 + np.exp(-np.clip(z, -700, 700)))).astype(dtype)
    assert_same_signals(torch, x, rng.integers(0, 2, 5000), kind)


@pytest.mark.parametrize("shape", [(500,), (500, 5)])
def test_signals_without_labels(torch, shape):
    z = np.random.default_rng(4).normal(size=shape).astype(np.float32) * 4
    assert_same_signals(torch, z, None, names=UNLABELLED)
    with pytest.raises(Unavailable, match="needs labels"):
        device.signals_on(torch.from_numpy(z), None, ["loss"])


def test_bfloat16_is_worked_on_as_float32(torch):
    z = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = torch.arange(400) % 6
    narrow, wide = (device.signals_on(x, y, NAMES) for x in (z, z.float()))
    for name in NAMES:
        assert torch.equal(narrow[name], wide[name])
    member = torch.arange(400) < 200
    assert torch.equal(device.halves_on(z, y, member), device.halves_on(z.float(), y, member))


@pytest.mark.parametrize("shape", [(1000,), (1000, 7)])
def test_signals_and_halves_do_not_depend_on_the_blocks(torch, shape, monkeypatch):
    rng = np.random.default_rng(5)
    z = torch.from_numpy(rng.normal(size=shape) * 30)
    y = torch.from_numpy(rng.integers(0, 2, 1000))
    z[300:400], y[300:400] = z[:100], y[:100]  # copies
    member = torch.arange(1000) < 500
    whole, halves = device.signals_on(z, y, NAMES), device.halves_on(z, y, member)
    monkeypatch.setattr(device.tensors, "BLOCK_NUMBERS", 70)
    blocks = device.signals_on(z, y, NAMES)
    for name in NAMES:
        torch.testing.assert_close(blocks[name], whole[name], rtol=1e-14, atol=0)
    assert torch.equal(device.halves_on(z, y, member), halves)


def test_the_outputs_are_left_as_they_were(torch):
    z = torch.randn(100, 4, requires_grad=True, generator=torch.Generator().manual_seed(1))
    before = z.detach().clone()
    found = device.signals_on(z, torch.arange(100) % 4, NAMES)
    device.halves_on(z, torch.arange(100) % 4, torch.arange(100) < 50)
    assert torch.equal(z.detach(), before)
    assert not any(values.requires_grad for values in found.values())


def test_tensors_in_any_layout(torch):
    z = torch.randn(60, 9, generator=torch.Generator().manual_seed(2))
    y = torch.arange(60) % 8
    member = torch.arange(60) < 30
    part = z[:, 1:]  # starts at an odd number, rows apart
    turned = z[:, 1:].T.contiguous().T
    halves = device.halves_on(part.clone(), y, member)
    for view in (part, turned):
        assert torch.equal(device.halves_on(view, y, member), halves)
        assert torch.equal(
            device.signals_on(view, y, ["margin"])["margin"], device.signals_on(part.clone(), y, ["margin"])["margin"]
        )
    odd = torch.randn(61)[1:]  # of two classes
    assert torch.equal(device.halves_on(odd, y % 2, member), device.halves_on(odd.clone()[:, None], y % 2, member))


# ---------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("code", "outputs", "labels", "kind"),
    [
        ("DV002", lambda t: np.zeros((4, 2)), None, "logits"),
        ("DV002", lambda t: t.zeros(4, 2, dtype=t.int64), None, "logits"),
        ("DV003", lambda t: t.zeros(4, 2, 2), None, "logits"),
        ("DV003", lambda t: t.zeros(4, 2), None, "scores"),
        ("DV003", lambda t: t.zeros(4, 2), [[0, 1]] * 4, "logits"),
        ("DV004", lambda t: t.zeros(4, 2), [0, 1, 0], "logits"),
        ("DV006", lambda t: t.tensor([[0.0, 9.0], [0.0, float("nan")]]), None, "logits"),
        ("DV006", lambda t: t.tensor([0.0, 9.0, float("inf")]), None, "logits"),
        ("DV012", lambda t: t.full((4, 2), 0.6), None, "probs"),
        ("DV013", lambda t: t.full((4, 2), 0.5), None, "logits"),
        ("DV014", lambda t: t.tensor([[0.5, 1.5]]), None, "probs"),
        ("DV020", lambda t: t.zeros(2, 2), [0.5, 1.0], "logits"),
        ("DV021", lambda t: t.zeros(2, 2), [1, 2], "logits"),
        ("DV022", lambda t: t.zeros(2), [1, 2], "logits"),
    ],
)
def test_what_is_no_evidence_is_refused(torch, code, outputs, labels, kind):
    with pytest.raises(InputError) as error:
        device.signals_on(outputs(torch), labels, ["confidence"], kind)
    assert error.value.code == code


def test_unknown_signals_and_sides_are_refused(torch):
    with pytest.raises(Unavailable, match="no signal 'los'"):
        device.signals_on(torch.zeros(2, 2), torch.tensor([0, 1]), ["los"])
    with pytest.raises(InputError) as error:
        device.halves_on(torch.zeros(2, 2), None, torch.tensor([0, 1]))
    assert error.value.code == "DV003"
    with pytest.raises(InputError) as error:
        device.roc_on(torch.tensor([0, 1]), torch.tensor([True, False]), torch.tensor([0, 1]))
    assert error.value.code == "DV003"


def test_labels_of_minus_one_and_one(torch):
    z, y = torch.tensor([3.0, -2.0, 0.5]), torch.tensor([1, -1, -1])
    one, other = (device.signals_on(z, labels, NAMES) for labels in (y, (y + 1) // 2))
    assert all(torch.equal(one[name], other[name]) for name in NAMES)


# ------------------------------------------------------------------------------------------------------ counts


def assert_same_roc(torch, scores, member, halves):
    wanted = exact(scores, member, halves)
    found = device.roc_on(torch.from_numpy(scores), torch.from_numpy(member), torch.from_numpy(halves))
    for name in ("thresholds", "tp", "fp", "members", "nonmembers"):
        here, there = getattr(found, name), getattr(wanted, name)
        assert here.dtype == there.dtype, name
        np.testing.assert_array_equal(here, there, err_msg=name)
    assert found.placement == pytest.approx(wanted.placement, nan_ok=True, abs=0)


BEYOND_FLOAT32 = 1 + np.arange(8) * 2.0**-40  # eight doubles, one float32
AWKWARD = [-0.0, 0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.0, -1.0, 3.4028235e38, -3.4028235e38]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])  # a module has no state here
@given(data=st.data())
def test_counts_equal_numpys(torch, data):
    dtype = data.draw(st.sampled_from(FLOATS))
    width = 8 * np.dtype(dtype).itemsize
    numbers = st.floats(width=width) | st.integers(-3, 3).map(float)
    values = AWKWARD if dtype != np.float16 else [-0.0, 0.0, np.inf, -np.inf, np.nan, 6e-8, -6e-8]
    numbers |= st.sampled_from([*values, *(BEYOND_FLOAT32 if dtype == np.float64 else []), *([1e300] * (width == 64))])
    rows = data.draw(st.lists(st.tuples(numbers, st.booleans(), st.integers(0, 1)), min_size=2, max_size=40))
    scores, member, halves = (np.array(column) for column in zip(*rows, strict=True))
    member[:2] = True, False
    assert_same_roc(torch, scores.astype(dtype), member, halves.astype(np.uint8))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("ties", [False, True])
def test_counts_of_many_rows(torch, dtype, ties):
    rng = np.random.default_rng(6)
    scores = rng.normal(size=200_000) * (3 if ties else 1)
    scores = (np.rint(scores) if ties else scores).astype(dtype)
    assert_same_roc(torch, scores, rng.random(200_000) < 0.3, rng.integers(0, 2, 200_000).astype(np.uint8))


def test_bfloat16_scores(torch):
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(3)).bfloat16()
    member, halves = torch.arange(1000) % 3 == 0, (torch.arange(1000) % 2).to(torch.uint8)
    found = device.roc_on(scores, member, halves)
    np.testing.assert_array_equal(found.tp, exact(scores.float().numpy(), member.numpy(), halves.numpy()).tp)


# ------------------------------------------------------------------------------------------------------ halves


def assert_same_halves(torch, outputs, labels, member, kind="logits", seed=0):
    """Of ids, groups of copies, digest, effective shares and halves, bit for bit."""
    evidence = evidence_of(outputs, labels, kind, member)
    contents = identity.content_hashes(evidence)
    wanted = copies.with_copies_grouped(identity.identified(evidence, contents), contents)
    tensors = torch.from_numpy(outputs), None if labels is None else torch.from_numpy(labels), torch.from_numpy(member)
    found = device.halves.identified(*tensors, kind)
    np.testing.assert_array_equal(found.ids.numpy().view(np.uint64), wanted.ids)
    assert (found.groups is None) == (wanted.groups is None)
    if wanted.groups is not None:
        np.testing.assert_array_equal(found.groups.numpy().view(np.uint64), wanted.groups)
    assert found.digest == identity.digest(evidence, contents)
    assert found.effective == folds.effective_shares(wanted.member, wanted.groups)
    halves = device.halves_on(*tensors, kind=kind, seed=seed)
    assert halves.dtype == torch.uint8
    np.testing.assert_array_equal(halves.numpy(), folds.halves(wanted, seed))
    return found


@pytest.mark.parametrize("exact_below", [0, 900, 1 << 16])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("width", [None, 2, 3, 8])
@pytest.mark.parametrize("dtype", FLOATS)
def test_halves_equal_those_of_numpy(torch, dtype, width, labelled, exact_below, monkeypatch):
    """exact_below: no side, one side or both are so small that they are dealt out evenly."""
    monkeypatch.setattr(folds, "EXACT_BELOW", exact_below)
    rng = np.random.default_rng(7)
    n = 2000
    outputs = (rng.normal(size=n if width is None else (n, width)) * 5).astype(dtype)
    labels = rng.integers(0, 2, n) if labelled else None
    assert_same_halves(torch, outputs, labels, rng.permutation(n) < 800, seed=12345678901234567)


@pytest.mark.parametrize("exact_below", [0, 480, 1 << 16])  # 480: between the members' number and that of their groups
@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("across", [0, 2, 40])
def test_halves_where_records_stand_several_times(torch, kind, across, exact_below, monkeypatch):
    """across: how many of the copies are on the other side; a few are copies by chance, many are outputs alike."""
    monkeypatch.setattr(folds, "EXACT_BELOW", exact_below)
    rng = np.random.default_rng(8)
    n = 1000
    outputs = rng.normal(size=(n, 4)).astype(np.float32)
    if kind == "probs":
        outputs = np.exp(outputs)
        outputs /= outputs.sum(axis=1, keepdims=True)
        outputs[:30] = np.eye(4)[0]  # sure, and so alike for another reason
        outputs[500:540] = np.eye(4)[1]
    labels = rng.integers(0, 4, n)
    member = np.arange(n) < 500
    for first, last, source in ((100, 119, 99), (400, 419, 399), (600, 603, 599), (200, 230, 150), (700, 701, 698)):
        outputs[first:last], labels[first:last] = outputs[source], labels[source]  # 30 + 1 are more than copies
    outputs[900 : 900 + across], labels[900 : 900 + across] = outputs[300 : 300 + across], labels[300 : 300 + across]
    shuffled = rng.permutation(n)
    arrays = outputs[shuffled], labels[shuffled], member[shuffled]
    found = assert_same_halves(torch, *arrays, kind=kind, seed=3)
    assert (found.groups is None) == (across == 40)


def test_halves_of_outputs_that_take_few_values(torch):
    rng = np.random.default_rng(9)
    outputs = rng.integers(-3, 4, 3000).astype(np.float32)
    assert_same_halves(torch, outputs, rng.integers(0, 2, 3000), rng.random(3000) < 0.5)


def test_halves_by_hash_alone(torch):
    """With no side below the limit, as it is set."""
    rng = np.random.default_rng(10)
    n = 2 * folds.EXACT_BELOW
    outputs = rng.normal(size=(n, 2)).astype(np.float32)
    assert_same_halves(torch, outputs, rng.integers(0, 2, n), np.arange(n) % 2 == 0)


# ------------------------------------------------------------------------------------------------------- audit


def leaky(dtype, c=5, n=3000, seed=11):
    rng = np.random.default_rng(seed)
    labels, member = rng.integers(0, c or 2, n), rng.permutation(n) < n // 2
    logits = rng.normal(size=n if c is None else (n, c)) * 2
    if c is None:
        logits += member * (2 * labels - 1)
    else:
        logits[np.arange(n), labels] += member
    return logits.astype(dtype), labels, member


def both_reports(torch, outputs, labels, member, kind="logits", attacks=("loss", "modified_entropy"), **settings):
    """From the device and from numpy."""
    tensors = torch.from_numpy(outputs), None if labels is None else torch.from_numpy(labels), torch.from_numpy(member)
    ours = device.audit_on_device(*tensors, kind=kind, attacks=attacks, **settings)
    evidence = evidence_of(outputs, labels, kind, member)
    return ours, audit(evidence, attacks=attacks, controls=(), **settings)


def assert_same_tables(ours, theirs, relative):
    assert ours.tables.keys() == theirs.tables.keys()
    for name, table in theirs.tables.items():
        for column, wanted in table.items():
            found = ours.tables[name][column]
            if len(wanted) and isinstance(wanted[0], float):
                np.testing.assert_allclose(found, wanted, rtol=relative, err_msg=f"{name}.{column}")
            else:
                assert_alike(found, wanted, relative)


def assert_alike(found, wanted, relative):
    assert len(found) == len(wanted)
    for here, there in zip(found, wanted, strict=True):
        if isinstance(there, list):
            assert_alike(here, there, relative)
        else:
            assert here == there or here == pytest.approx(there, rel=relative, nan_ok=True)


@pytest.mark.parametrize("c", [None, 2, 5])
def test_reports_of_float64_are_the_same(torch, c, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    names = [name for name in NAMES if name != "correct"]
    ours, theirs = both_reports(torch, *leaky(np.float64, c), attacks=names, seed=4, confidence=0.9, name="mine")
    assert ours.meta == theirs.meta
    assert_same_tables(ours, theirs, 1e-9)


@pytest.mark.parametrize("copies", [0, 60])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_reports_of_float32_are_as_near_as_its_digits(torch, dtype, copies, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    outputs, labels, member = leaky(dtype)
    mine = np.flatnonzero(member)[: 2 * copies]
    outputs[mine[:copies]], labels[mine[:copies]] = outputs[mine[copies:]], labels[mine[copies:]]
    ours, theirs = both_reports(torch, outputs, labels, member)
    assert ours.meta == theirs.meta
    assert ours.score[:3] == pytest.approx(theirs.score[:3], abs=2e-3)
    for attack in ("loss", "modified_entropy"):
        assert ours.estimate("auc", attack=attack)[:3] == pytest.approx(
            theirs.estimate("auc", attack=attack)[:3], abs=1e-6
        )
        for fpr in (0.01, 0.05):
            here, there = (report.estimate("tpr", attack=attack, fpr=fpr) for report in (ours, theirs))
            assert here[:3] == pytest.approx(there[:3], abs=2e-3, nan_ok=True)


def test_report_without_labels(torch, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    outputs, _, member = leaky(np.float64)
    ours, theirs = both_reports(torch, outputs, None, member, attacks="confidence")
    assert ours.meta == theirs.meta
    assert_same_tables(ours, theirs, 1e-9)
    with pytest.raises(Unavailable, match="needs labels"):
        device.audit_on_device(torch.from_numpy(outputs), None, member)


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_reports_of_what_enters_by_a_door(torch, kind, monkeypatch):
    """As people have them: half precision, labels of bytes."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    outputs, labels, member = leaky(np.float32)
    outputs = torch.from_numpy(outputs)
    outputs = outputs.bfloat16() if kind == "logits" else outputs.softmax(dim=1).half()
    labels = torch.from_numpy(labels).to(torch.uint8)
    order = np.argsort(~member, kind="stable")  # a door puts members first
    outputs, labels = outputs[order], labels[order]
    m = int(member.sum())
    sides = [{kind: outputs[part], "labels": labels[part]} for part in (slice(0, m), slice(m, None))]
    theirs = audit(Evidence.from_splits(*sides), attacks=["loss"], controls=())
    ours = device.audit_on_device(outputs, labels, np.arange(len(labels)) < m, kind=kind, attacks=["loss"])
    assert ours.meta == theirs.meta
    assert ours.score[:3] == pytest.approx(theirs.score[:3], abs=2e-3)


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("DV005", {"member": np.ones(3000, bool)}),
        ("DV052", {"attacks": "class_wise(loss)"}),
        ("DV052", {"attacks": "los"}),
        ("DV052", {"attacks": "log_prob@T=2"}),
        ("DV056", {"confidence": 1.0}),
        ("DV056", {"seed": -1}),
    ],
)
def test_audits_that_cannot_be_are_refused(torch, code, change):
    outputs, labels, member = leaky(np.float32)
    given_all = {"labels": torch.from_numpy(labels), "member": torch.from_numpy(member)} | change
    with pytest.raises(InputError) as error:
        device.audit_on_device(torch.from_numpy(outputs), **given_all)
    assert error.value.code == code


def test_the_examples_print_what_they_say(torch):
    """They are skipped as doctests, since torch may not be there."""
    source = device.__file__
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for function in (device.signals_on, device.halves_on, device.roc_on, device.audit_on_device):
        text = function.__doc__.replace("# doctest: +SKIP", "")
        runner.run(parser.get_doctest(text, dict(vars(device)), function.__name__, source, 0))
    assert runner.summarize(verbose=False).failed == 0
    assert runner.summarize(verbose=False).attempted >= 12
