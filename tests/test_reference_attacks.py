"""Attacks with reference models: naive twins, the formulas' claims, counts of models, names; controls; the choice."""

import math
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, expit, polygamma
from sklearn.metrics import roc_auc_score

from divulge import Evidence, InputError, References, Unavailable, audit, design, references_from_outputs
from divulge.attacks import AttackR, Difficulty, Lira, Ratio, Rmia, all_named, named
from divulge.attacks.choosing import Chosen, candidates, choose, pseudo_targets
from divulge.attacks.moments import means, prior, sides
from divulge.attacks.reference import RATIO_BASE, declared, every
from divulge.controls import OF_REFERENCES
from divulge.influence import memorisation
from divulge.model_outputs import signals_of

RNG = np.random.default_rng(0)
SEEDS = range(int(os.environ.get("DIVULGE_SEEDS", "20")))


def pairs(models, rows, rng):
    """Complementary halves, as `design` makes them."""
    half = rng.permuted(np.tile(np.arange(rows) % 2 == 0, (models // 2, 1)), axis=1)
    return np.stack([half, ~half], axis=1).reshape(models, rows)


def toy(models=8, rows=300, queries=1, gap=1.5, seed=0, trained_on=None, dtype=np.float32):
    """Records of different difficulty and spread, whose models with them say `gap` spreads more."""
    rng = np.random.default_rng(seed)
    trained_on = pairs(models, rows, rng) if trained_on is None else trained_on
    member = rng.permutation(rows) < rows // 2
    mean = 3 * rng.normal(size=(rows, 1))
    spread, gaps = np.exp(0.4 * rng.normal(size=(rows, 1))), gap * np.exp(0.5 * rng.normal(size=(rows, 1)))
    within = np.vstack([trained_on, member])[:, :, None]
    values = mean + spread * (rng.normal(size=(len(within), rows, queries)) + gaps * within)
    signals = {"log_odds": values, "log_prob@T=2": -np.logaddexp(0, -values / 2)}
    references = References(
        signals={name: x[:-1].astype(dtype) for name, x in signals.items()},
        target={name: x[-1] for name, x in signals.items()},
        trained_on=trained_on,
    )
    return Evidence(member, references=references)


def scores(attack, evidence):
    return attack(evidence, np.random.default_rng(0))


def auc(attack, evidence):
    return roc_auc_score(evidence.member, scores(attack, evidence))


# ------------------------------------------------------------------------------------------------------- twins


def naive_prior(variances, df):
    e = [math.log(v) - digamma(d / 2) + math.log(d / 2) for v, d in zip(variances, df, strict=True) if v > 0]
    trigammas = [float(polygamma(1, d / 2)) for v, d in zip(variances, df, strict=True) if v > 0]
    spread = np.var(e, ddof=1) - np.mean(trigammas)
    if spread <= 0:
        return math.inf, math.exp(np.mean(e))
    low, high = 1e-9, 1e9
    for _ in range(300):  # bisection on a logarithmic scale
        middle = math.sqrt(low * high)
        low, high = (middle, high) if float(polygamma(1, middle)) > spread else (low, middle)
    return 2 * low, math.exp(np.mean(e) + digamma(low) - math.log(low))


def naive_lira(evidence, variance, mode):
    """Row by row and query by query, as the formulas have it."""
    references = evidence.references
    values, target, within = references.signals["log_odds"], references.target["log_odds"], references.trained_on
    r, n, q = values.shape
    total = np.zeros((n, q))
    for query in range(q):
        x = values[:, :, query].astype(float)
        side = {}
        for name, of_side in (("in", within), ("out", ~within)):
            rows = [x[of_side[:, i], i] for i in range(n)]
            side[name] = {
                "mean": [np.mean(row) if len(row) else math.nan for row in rows],
                "var": [np.var(row, ddof=1) if len(row) > 1 else math.nan for row in rows],
                "n": [len(row) for row in rows],
            }
            known = [(v, k - 1) for v, k in zip(side[name]["var"], side[name]["n"], strict=True) if k > 1]
            side[name]["pooled"] = sum(v * d for v, d in known) / max(sum(d for _, d in known), 1)
            side[name]["prior"] = naive_prior(*zip(*known, strict=True)) if known else (math.inf, math.nan)
        few = r < 32  # then the variance about the own side's mean is one for both
        if few:
            joint = [
                (
                    max(a - 1, 0) * (0 if a < 2 else v) + max(b - 1, 0) * (0 if b < 2 else w),
                    max(a - 1, 0) + max(b - 1, 0),
                )
                for v, a, w, b in zip(
                    side["in"]["var"], side["in"]["n"], side["out"]["var"], side["out"]["n"], strict=True
                )
            ]
            d0, s0 = naive_prior([squares / d for squares, d in joint if d], [d for _, d in joint if d])
            one = [s0 if math.isinf(d0) else (d0 * s0 + squares) / (d0 + d) for squares, d in joint]
            freedom = [d0 + d for _, d in joint]
        shrunk = {}
        for name, found in side.items():
            d0, s0 = found["prior"]
            shrunk[name] = []
            for v, k in zip(found["var"], found["n"], strict=True):
                d = max(k - 1, 0)
                own = d * v if d else 0.0
                shrunk[name].append(s0 if math.isinf(d0) else (d0 * s0 + own) / (d0 + d))
        both = [math.sqrt((a + b) / 2) for a, b in zip(shrunk["in"], shrunk["out"], strict=True)]
        both = [math.sqrt(v) for v in one] if few else both
        noise = [1 / max(a, 1) + 1 / max(b, 1) for a, b in zip(side["in"]["n"], side["out"]["n"], strict=True)]
        gaps = [(a - b) / s for a, b, s in zip(side["in"]["mean"], side["out"]["mean"], both, strict=True)]
        known = [i for i in range(n) if np.isfinite(gaps[i])]
        spread, middle = 0.0, 0.0
        if known:
            middle = np.mean([gaps[i] for i in known])
            spread = max(0.0, np.var([gaps[i] for i in known], ddof=1) - np.mean([noise[i] for i in known]))
        for i in range(n):
            if variance == "shrunk":
                d0 = {name: found["prior"][0] for name, found in side.items()}
                s = {name: both[i] if few else math.sqrt(shrunk[name][i]) for name in side}
                df = {name: d0[name] + max(side[name]["n"][i] - 1, 0) for name in side}
                if few:
                    df = dict.fromkeys(side, freedom[i])
                wide = {name: s[name] * math.sqrt(1 + 1 / max(side[name]["n"][i], 1)) for name in side}
            else:
                s = {}
                for name in side:
                    own = side[name]["var"][i]
                    s[name] = math.sqrt(own if variance == "per-example" and own > 0 else side[name]["pooled"])
                df, wide = dict.fromkeys(side, math.inf), s
            at, mean_out = target[i, query], side["out"]["mean"][i]
            if mode == "offline":
                total[i, query] = (at - mean_out) / wide["out"]
                continue
            mean_in = side["in"]["mean"][i]
            if variance == "shrunk":
                weight = spread / (spread + noise[i])
                mean_in = mean_out + both[i] * (middle + weight * (gaps[i] - middle))
            density = {
                name: stats.norm(mean, wide[name]) if math.isinf(df[name]) else stats.t(df[name], mean, wide[name])
                for name, mean in (("in", mean_in), ("out", mean_out))
            }
            total[i, query] = density["in"].logpdf(at) - density["out"].logpdf(at)
    return total.mean(axis=1)


def naive_ratio(evidence, a=0.3, offline=False, name="log_prob@T=2"):
    references = evidence.references
    values, target = np.exp(references.signals[name].astype(float)), references.target[name]
    found = []
    for i in range(len(evidence)):
        per_query = []
        for query in range(values.shape[2]):
            p = values[:, i, query]
            p_in, p_out = p[references.trained_on[:, i]], p[~references.trained_on[:, i]]
            if offline or not len(p_in):
                mean = ((1 + a) * p_out.mean() + (1 - a)) / 2
            elif not len(p_out):
                mean = p_in.mean()
            else:
                mean = (p_in.mean() + p_out.mean()) / 2
            per_query.append(target[i, query] - math.log(mean))
        found.append(np.mean(per_query))
    return np.array(found)


@pytest.mark.parametrize("models", [4, 8, 40])
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("variance", ["shrunk", "pooled", "per-example"])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_lira_equals_its_naive_twin(models, queries, variance, mode):
    evidence = toy(models, rows=60, queries=queries)
    found = scores(Lira(variance, mode), evidence)
    np.testing.assert_allclose(found, naive_lira(evidence, variance, mode), rtol=1e-10, atol=1e-10)


def test_lira_equals_its_twin_where_records_are_in_different_numbers_of_models():
    uneven = np.random.default_rng(4).random((12, 50)) < 0.5
    evidence = toy(trained_on=uneven, rows=50)
    assert np.unique(uneven.sum(axis=0)).size > 3
    for variance in ("shrunk", "pooled", "per-example"):
        found = scores(Lira(variance), evidence)
        expected = naive_lira(evidence, variance, "online")
        few = (uneven.sum(axis=0) < 2) | ((~uneven).sum(axis=0) < 2)
        assert np.array_equal(np.isnan(found), few)
        np.testing.assert_allclose(found[~few], expected[~few], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("queries", [1, 3])
def test_the_ratio_equals_its_naive_twin(queries):
    even = toy(6, rows=80, queries=queries)
    np.testing.assert_allclose(scores(Ratio(), even), naive_ratio(even), rtol=1e-10, atol=1e-10)
    offline = scores(Ratio("offline", a=0.5), even)
    np.testing.assert_allclose(offline, naive_ratio(even, 0.5, offline=True), rtol=1e-10, atol=1e-10)
    mixed = toy(trained_on=np.random.default_rng(1).random((2, 80)) < 0.5, rows=80, queries=queries)
    np.testing.assert_allclose(scores(Ratio(), mixed), naive_ratio(mixed), rtol=1e-10, atol=1e-10)


def test_a_balanced_ratio_divides_by_the_mean_of_all_models():
    evidence = toy(6)
    p = np.exp(evidence.references.signals["log_prob@T=2"].astype(float)).mean(axis=0)[:, 0]
    expected = evidence.references.target["log_prob@T=2"][:, 0] - np.log(p)
    np.testing.assert_allclose(scores(Ratio(), evidence), expected, atol=1e-12)


def test_rmia_is_the_share_of_records_that_a_record_dominates():
    evidence = toy(6, rows=200)
    ratio = np.exp(scores(Ratio(), evidence))
    table = ratio[:, None] / ratio[None] >= 2
    assert np.array_equal(scores(Rmia(), evidence), table.mean(axis=1))
    assert np.array_equal(scores(Rmia(gamma=1), evidence) == 1, ratio == ratio.max())


def test_difficulty_and_attack_r_equal_their_twins():
    evidence = toy(10, rows=70, queries=2)
    references = evidence.references
    values, target, out = references.signals["log_odds"], references.target["log_odds"], ~references.trained_on
    for i, (difficulty, rank) in enumerate(
        zip(scores(Difficulty(), evidence), scores(AttackR(), evidence), strict=True)
    ):
        x = values[out[:, i], i].astype(float)
        assert difficulty == pytest.approx((target[i] - x.mean(axis=0)).mean(), abs=1e-12)
        assert rank == pytest.approx(((x < target[i]).mean(axis=0) + (x == target[i]).mean(axis=0) / 2).mean())


def test_the_prior_finds_what_variances_were_drawn_from():
    rng = np.random.default_rng(0)
    true = 2.0 * 6 / rng.chisquare(6, 50_000)
    found = prior(true * rng.chisquare(3, 50_000) / 3, np.full(50_000, 3.0))
    assert found.df == pytest.approx(6, rel=0.05) and found.variance == pytest.approx(2, rel=0.03)
    twin = naive_prior([1.0, 2.0, 9.0, 0.2], [2.0, 3.0, 2.0, 5.0])
    assert prior(np.array([1.0, 2.0, 9.0, 0.2]), np.array([2.0, 3.0, 2.0, 5.0])) == pytest.approx(twin)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_means_and_variances_are_numpys_far_from_zero_too(shift):
    trained_on = pairs(6, 40, np.random.default_rng(0))
    values = np.random.default_rng(1).normal(size=(6, 40, 2)) + shift
    found = sides(values, trained_on)
    for i in range(40):
        for mean, variance, rows in (
            (found.mean_in, found.var_in, trained_on[:, i]),
            (found.mean_out, found.var_out, ~trained_on[:, i]),
        ):
            np.testing.assert_allclose(mean[i], values[rows, i].mean(axis=0), rtol=1e-14, atol=1e-14)
            np.testing.assert_allclose(variance[i], values[rows, i].var(axis=0, ddof=1), rtol=1e-9, atol=1e-9)
    for one, other in zip(means(values, trained_on), found[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)


# -------------------------------------------------------------------------------------- what the formulas say of them


@pytest.mark.parametrize("a_side", [2, 4, 8])
def test_the_shrunk_variance_finds_more_than_the_records_own_with_few_models(a_side):
    own, shrunk = (
        np.mean([auc(Lira(variance), toy(2 * a_side, 2000, gap=0.8, seed=s)) for s in range(5)])
        for variance in ("per-example", "shrunk")
    )
    assert shrunk > own + {2: 0.05, 4: 0.02, 8: 0.005}[a_side]


def test_with_many_models_the_variances_agree():
    evidence = toy(128, 2000, gap=0.8)
    assert auc(Lira(), evidence) == pytest.approx(auc(Lira("per-example"), evidence), abs=0.01)


def test_references_tell_hard_records_from_members():
    evidence = toy(8, 2000)
    plain = roc_auc_score(evidence.member, evidence.references.target["log_odds"][:, 0])
    for attack in (Lira(), Lira(mode="offline"), Ratio(), Difficulty(), AttackR(), Rmia()):
        assert auc(attack, evidence) > plain + 0.05, attack


@pytest.mark.parametrize("attack", [Lira(), Lira(mode="offline"), Lira("pooled"), Ratio(), Difficulty(), AttackR()])
def test_a_target_that_saw_neither_side_is_at_chance(attack):
    found = []
    for seed in range(50):
        evidence = toy(8, 200, gap=1.5, seed=seed)
        # A target like the models without the records: its membership is a coin.
        stranger = toy(8, 200, gap=1.5, seed=seed, trained_on=None)
        pool = stranger.references
        lone = References(
            signals={name: x[1:] for name, x in pool.signals.items()},
            target={name: x[0] for name, x in pool.signals.items()},
            trained_on=pool.trained_on[1:],
        )
        found.append(auc(attack, replace(evidence, references=lone)))
    assert abs(np.mean(found) - 0.5) < 4 * np.std(found) / math.sqrt(50)
    assert np.std(found) < 0.06


def test_scores_do_not_depend_on_the_order_of_records_or_models():
    evidence = toy(10, 300, queries=2)
    order, models = RNG.permutation(300), RNG.permutation(10)
    references = evidence.references
    shuffled = replace(
        references,
        signals={name: x[models] for name, x in references.signals.items()},
        trained_on=references.trained_on[models],
    )
    for attack in (Lira(), Lira("pooled"), Lira(mode="offline"), Ratio(), Rmia(), Difficulty(), AttackR()):
        plain = scores(attack, evidence)
        assert np.array_equal(scores(attack, evidence.take(order)), plain[order]), attack
        np.testing.assert_allclose(scores(attack, replace(evidence, references=shuffled)), plain, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------- what they are given


def classifier(kind, seed=0):
    """Evidence and references of the same five-class outputs, as logits or as a forest's coarse probabilities."""
    rng = np.random.default_rng(seed)
    n, r = 200, 6
    labels, trained_on, member = rng.integers(0, 5, n), pairs(r, n, rng), rng.permutation(n) < n // 2
    every_z = rng.normal(size=(r + 1, n, 5))
    every_z[:, np.arange(n), labels] += 1 + np.vstack([trained_on, member])
    if kind == "probs":
        p = np.exp(every_z) / np.exp(every_z).sum(axis=2, keepdims=True)
        every_z = np.stack([[rng.multinomial(20, row) / 20 for row in rows] for rows in p])
    names = ("log_odds", "log_prob@T=2")
    stacked = np.stack([signals_of(z, labels, names, kind) for z in every_z[:-1]])
    references = References(
        signals={name: stacked[:, at, :, None] for at, name in enumerate(names)}, trained_on=trained_on
    )
    return Evidence(member, outputs=every_z[-1], labels=labels, kind=kind, references=references)


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_the_targets_own_signals_are_computed_as_the_references_are(kind):
    evidence = classifier(kind)
    names = ("log_odds", "log_prob@T=2")
    own = signals_of(evidence.outputs, evidence.labels, names, kind)
    given = replace(
        evidence, references=replace(evidence.references, target=dict(zip(names, own[..., None], strict=True)))
    )
    for attack in (Lira(), Ratio(), Difficulty()):
        np.testing.assert_allclose(scores(attack, evidence), scores(attack, given), rtol=1e-5, atol=1e-6)
        assert np.isfinite(scores(attack, evidence)).all()


def test_a_probability_of_zero_is_half_the_smallest_above_it_or_as_far_below_a_hundredth():
    found = signals_of([[1.0, 0.0], [0.98, 0.02]], [0, 1], ["log_odds"], "probs")[0]
    np.testing.assert_allclose(found, [math.log(1 / 0.01), math.log(0.02 / 0.98)], rtol=1e-6)
    found = signals_of([[1.0, 0.0], [0.75, 0.25]], [0, 1], ["log_odds"], "probs")[0]
    np.testing.assert_allclose(found, [math.log(1 / 8e-4), math.log(0.25 / 0.75)], rtol=1e-6)
    found = signals_of([[1.0, 0.0], [0.999, 0.001]], [0, 1], ["log_odds"], "probs")[0]
    np.testing.assert_allclose(found, [math.log(1 / 5e-4), math.log(0.001 / 0.999)], rtol=1e-6)


@pytest.mark.parametrize("columns", ["a column a class", "one column"])
def test_models_that_say_0_or_1_are_read_as_sure(columns):
    """A tree, the nearest neighbour: memorisation is what the labels say, its interval holds that, and attacks work."""
    rng = np.random.default_rng(0)
    n, y, trained_on = 600, rng.integers(0, 2, 600), design(600, 17)
    right = trained_on | (rng.random((17, n)) < 0.8)
    said = np.where(right, y, 1 - y).astype(float)
    outputs = said if columns == "one column" else np.stack([1 - said, said], axis=2)
    signals = np.stack([signals_of(one, y, ["log_odds"], "probs")[0] for one in outputs])[..., None]
    assert set(np.sign(signals).ravel().tolist()) == {-1.0, 1.0}
    references = References(signals={"log_odds": signals[1:]}, trained_on=trained_on[1:])
    evidence = Evidence(trained_on[0], outputs=outputs[0], labels=y, kind="probs", references=references)
    found = memorisation(references, evidence.task, 0.05)
    truth = [1 - right[1:][~trained_on[1:, i], i].mean() for i in range(n)]
    np.testing.assert_allclose(found.value, truth, atol=0.001)
    assert ((found.low <= 0.2) & (found.high >= 0.2)).mean() > 0.85  # of few models that say 0 or 1 it takes few values
    assert roc_auc_score(evidence.member, scores(Ratio(), evidence)) > 0.55


def test_ratio_reads_the_probability_from_what_there_is():
    evidence = toy(6, rows=50)
    only_odds = replace(
        evidence.references,
        signals={"log_odds": evidence.references.signals["log_odds"]},
        target={"log_odds": evidence.references.target["log_odds"]},
    )
    found = scores(Ratio(temperature=1), replace(evidence, references=only_odds))
    p = expit(only_odds.signals["log_odds"][:, :, 0].astype(float)).mean(axis=0)
    np.testing.assert_allclose(
        found, np.log(expit(only_odds.target["log_odds"][:, 0])) - np.log(p), rtol=1e-9, atol=1e-12
    )


def test_base_is_the_ratio_at_temperature_one_without_a():
    assert str(RATIO_BASE) == "ratio(base)" and (RATIO_BASE.a, RATIO_BASE.temperature) == (1.0, 1.0)


def without(references, models):
    return References(
        signals={name: x[:models] for name, x in references.signals.items()},
        target=references.target,
        trained_on=np.zeros((models, references.trained_on.shape[1]), bool),
    )


@pytest.mark.parametrize(
    ("models", "offline", "names"),
    [
        (2, False, ["ratio", "difficulty"]),
        (4, False, ["ratio"]),
        (8, False, ["ratio"]),
        (16, False, ["ratio", "lira(shrunk)"]),
        (1, True, ["ratio", "difficulty"]),
        (16, True, ["ratio", "difficulty"]),
    ],
)
def test_what_runs_by_default_is_declared_by_the_number_of_models(models, offline, names):
    references = toy(max(models, 2)).references
    references = without(references, models) if offline else references
    assert [str(attack) for attack in declared(references)] == names
    evidence = Evidence(toy().member, references=references)
    assert [attack.name for attack in all_named("default", evidence)][: len(names)] == names
    assert all(np.isfinite(scores(attack, evidence)).any() for attack in every(references))


@pytest.mark.parametrize("models", [4, 8, 14])
def test_of_a_regression_lira_runs_where_there_is_no_probability(models):
    rng = np.random.default_rng(0)
    trained_on, member = pairs(models, 600, rng), np.arange(600) < 300
    spread = np.where(np.vstack([trained_on, member]), 0.4, 1.0)
    residual = (spread * np.abs(rng.normal(size=(models + 1, 600)))).astype(np.float32)
    references = References(signals={"loss": -residual[:-1, :, None]}, trained_on=trained_on)
    evidence = Evidence(member, outputs=residual[-1], labels=np.zeros(600), references=references)
    report = audit(evidence, attacks="quick", controls=())
    assert {row["attack"]: row["status"] for row in report.rows("attacks")}["lira(shrunk)"] == "ran"


@pytest.mark.parametrize("variance", ["pooled", "per-example", "shrunk"])
def test_a_record_of_which_a_model_said_nothing_spoils_its_own_score_only(variance):
    references = toy().references
    values = references.signals["log_odds"].copy()
    values[2, 5] = np.nan
    evidence = Evidence(toy().member, references=replace(references, signals={"log_odds": values}))
    assert np.flatnonzero(np.isnan(scores(Lira(variance), evidence))).tolist() == [5]


@pytest.mark.parametrize(
    ("attack", "references", "reason"),
    [
        (Lira(), None, "needs reference models"),
        (Lira(), "one", "two models with each record"),
        (Lira(mode="offline"), "one", "two models without a record"),
        (AttackR(), "one", "needs 4 models"),
        (Ratio("online"), "one", "needs a model with each record"),
        (Difficulty(), "all", "not trained on each record"),
        (Lira(), "bagging", "no attack"),
        (Ratio(), "bagging", "no attack"),
        (Ratio(), "margins", "the probability of each record's label"),
        (Lira(), "constant", "one value"),
        (Chosen(), "one", "needs 4 reference models"),
    ],
)
def test_an_attack_that_cannot_run_says_why(attack, references, reason):
    whole = toy(4)
    made = {
        None: lambda: None,
        "one": lambda: without(whole.references, 1),
        "all": lambda: replace(whole.references, trained_on=np.ones_like(whole.references.trained_on)),
        "bagging": lambda: replace(whole.references, source="bagging"),
        "margins": lambda: replace(
            whole.references,
            signals={"margin": whole.references.signals["log_odds"]},
            target={"margin": whole.references.target["log_odds"]},
        ),
        "constant": lambda: replace(whole.references, signals={"log_odds": np.zeros((4, 300, 1), np.float32)}),
    }[references]()
    with pytest.raises(Unavailable, match=reason):
        scores(attack, replace(whole, references=made))


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("lira", Lira()),
        ("lira(shrunk)", Lira()),
        ("lira(per-example)", Lira("per-example")),
        ("lira(offline)", Lira(mode="offline")),
        ("lira(offline, pooled)", Lira("pooled", "offline")),
        ("lira(shrunk, signal=loss)", Lira(signal="loss")),
        ("ratio", Ratio()),
        ("ratio(offline, a=0.5, T=4)", Ratio("offline", 0.5, 4.0)),
        ("ratio(base)", RATIO_BASE),
        ("rmia(gamma=3)", Rmia(3.0)),
        ("difficulty(signal=loss)", Difficulty("loss")),
        ("attack_r", AttackR()),
        ("references(tpr@0.01)", Chosen("tpr@0.01")),
        ("references", Chosen()),
    ],
)
def test_names_are_attacks_and_attacks_their_names(name, attack):
    assert named(name, toy()).call == attack
    assert named(str(attack), toy()).call == attack


@pytest.mark.parametrize("name", ["lira(pooled, shrunk)", "ratio(b=1)", "ratio(a=x)", "rmia(2)", "lira(median)"])
def test_a_setting_that_no_attack_takes_is_refused(name):
    with pytest.raises(InputError, match="DV052"):
        named(name, toy())


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Lira("own"), "variance"),
        (lambda: Lira(mode="both"), "mode"),
        (lambda: Ratio(a=0), "above 0"),
        (lambda: Ratio(temperature=-1), "temperature"),
        (lambda: Rmia(gamma=0.5), "gamma"),
        (lambda: Chosen("f1"), "choose by"),
    ],
)
def test_settings_out_of_range_are_refused(make, what):
    with pytest.raises(InputError, match=what):
        make()


# ---------------------------------------------------------------------------------------------------- controls


def controls(evidence, attacks=("ratio",), names=OF_REFERENCES):
    report = audit(evidence, attacks=list(attacks), controls=names)
    return {row["control"]: row for row in report.rows("controls") if row["control"] in names}


def test_sound_references_pass_their_controls():
    assert {row["status"] for row in controls(toy(8, 600)).values()} == {"ok"}


def test_without_references_their_controls_are_not_spoken_of():
    report = audit(Evidence(np.arange(400) < 200, signals={"loss": np.sin(np.arange(400.0))}))
    assert not {row["control"] for row in report.rows("controls")} & set(OF_REFERENCES)


def test_a_design_that_knows_the_members_makes_the_audit_invalid():
    evidence = toy(8, 600)
    favoured = evidence.references.trained_on | (evidence.member & (np.arange(8)[:, None] < 3))
    report = controls(replace(evidence, references=replace(evidence.references, trained_on=favoured)))
    assert report["design_balance"]["status"] == "invalid" and report["design_balance"]["code"] == "DV413"


def test_references_of_another_size_than_the_target_are_warned_of():
    few = np.random.default_rng(0).permuted(np.tile(np.arange(600) % 5 == 0, (8, 1)), axis=1)
    assert controls(toy(trained_on=few, rows=600))["design_balance"]["status"] == "warning"


def test_references_for_which_members_are_harder_make_the_audit_invalid():
    evidence = toy(8, 600)
    tilted = {
        name: (x - 2 * evidence.member[None, :, None]).astype(np.float32)
        for name, x in evidence.references.signals.items()
    }
    report = audit(replace(evidence, references=replace(evidence.references, signals=tilted)), attacks=["difficulty"])
    row = next(row for row in report.rows("controls") if row["control"] == "exchangeable")
    assert (row["status"], row["code"], report.verdict) == ("invalid", "DV414", "INVALID")


def test_references_that_were_trained_otherwise_are_warned_of():
    evidence = toy(8, 600)
    weaker = {name: x - 3 for name, x in evidence.references.signals.items()}
    found = controls(replace(evidence, references=replace(evidence.references, signals=weaker)))
    assert found["mimicry"]["status"] == "warning" and "mean probability" in found["mimicry"]["text"]


@pytest.mark.parametrize("gap", [0.0, 1.5])
def test_a_target_among_its_references_makes_the_audit_invalid(gap):
    """lira would find a record's own answer on its own side: a leak where there is none."""
    evidence = toy(8, 600, gap=gap)
    references = evidence.references
    inside = replace(references, target={name: x[0].astype(float) for name, x in references.signals.items()})
    found = controls(Evidence(references.trained_on[0], references=inside))["mimicry"]
    assert found["status"] == "invalid" and "reference 0 is the target itself" in found["text"]
    base = replace(without(references, 1), target=inside.target, source="base")
    assert controls(Evidence(references.trained_on[0], references=base))["mimicry"]["status"] == "invalid"


@pytest.mark.parametrize("models", [1, 8])
def test_references_in_another_order_than_the_evidence_are_warned_of(models):
    evidence = toy(8, 900)
    references = evidence.references if models > 1 else without(evidence.references, 1)
    sound = controls(replace(evidence, references=references))["mimicry"]
    mixed = replace(references.take(np.random.default_rng(1).permutation(900)), target=references.target)
    found = controls(replace(evidence, references=mixed))["mimicry"]
    assert sound["status"] in ("ok", "not run") and found["status"] == "warning" and "in the order" in found["text"]


def test_a_gap_in_what_a_reference_says_stops_no_audit():
    references = toy(8, 600).references
    values = references.signals["log_odds"].copy()
    values[3, 7] = np.nan
    evidence = Evidence(toy(8, 600).member, references=replace(references, signals={"log_odds": values}))
    assert controls(evidence)["mimicry"]["status"] == "ok"


@pytest.mark.slow
def test_controls_of_sound_references_seldom_speak():
    bad, warned = 0, 0
    for seed in SEEDS:
        statuses = [row["status"] for row in controls(toy(6, 200, seed=seed)).values()]
        bad, warned = bad + ("invalid" in statuses), warned + ("warning" in statuses)
    n = len(SEEDS)
    assert stats.binom.sf(bad - 1, n, 0.02) > 0.01 and stats.binom.sf(warned - 1, n, 0.1) > 0.01, (bad, warned)


def test_the_trials_pass_on_every_reference_attack():
    """The planted leak is found, and membership that is dealt out at random is not, whatever the number of models."""
    for evidence in (toy(16, 800), toy(2, 800), classifier("probs"), toy(8, 800, queries=3)):
        attacks = every(evidence.references)
        report = audit(evidence, attacks=attacks, controls=["null", "positive", "scored"])
        statuses = {row["control"]: row["status"] for row in report.rows("controls")}
        assert "invalid" not in statuses.values(), report.rows("controls")
        assert statuses["null"] == "ok"


def forest(seed=0, models=16):
    """A forest that leaks, and references of it: of most members' labels it is as sure as it can be."""
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(seed).permutation(len(y))[:400]
    x, y = x[rows], y[rows]
    trained_on = design(len(y), models + 2, seed=seed)
    outputs = [RandomForestClassifier(15, random_state=seed).fit(x[w], y[w]).predict_proba(x) for w in trained_on]
    references = references_from_outputs(outputs[2:], trained_on[2:], y, kind="probs")
    return Evidence(trained_on[0], outputs=outputs[0], labels=y, kind="probs", references=references)


@pytest.mark.slow
def test_no_reference_attack_fails_its_positive_control_on_a_leaking_forest():
    for seed in SEEDS:
        evidence = forest(seed)
        found = controls(evidence, attacks=every(evidence.references), names=["positive"])["positive"]
        assert found["status"] == "ok", found["text"]


def test_a_rank_that_gives_the_planted_records_its_highest_passes_its_positive_control():
    evidence = forest(models=8)
    assert controls(evidence, attacks=[AttackR()], names=["positive"])["positive"]["status"] == "ok"


def test_a_value_without_bound_does_not_hide_what_is_planted():
    evidence = toy(models=8)
    evidence.references.signals["log_odds"][2, 5] = np.inf
    assert controls(evidence, attacks=[Difficulty()], names=["positive"])["positive"]["status"] == "ok"


def test_an_attack_that_reads_the_references_backwards_fails_its_positive_control():
    def backwards(evidence, rng):
        return -Difficulty()(evidence, rng)

    report = audit(toy(8, 1000, gap=0.0), attacks=[backwards], controls=["positive"])
    assert report.verdict == "INVALID"


def test_rows_of_cross_validation_share_fits():
    evidence = toy(2)
    shared = replace(evidence, references=replace(without(evidence.references, 1), source="cv"))
    assert named("difficulty", shared).fitted and not named("difficulty", evidence).fitted


# -------------------------------------------------------------------------------------------- the choice of attack


def test_a_pseudo_target_leaves_out_itself_and_its_opposite():
    references = toy(10).references
    for evidence in pseudo_targets(references):
        others = evidence.references
        assert len(others.trained_on) == 8
        assert not (others.trained_on == evidence.member).all(axis=1).any()
        assert (others.trained_on.sum(axis=0) == 4).all()  # whichever side a record is on


@pytest.mark.parametrize("fraction", [0.25, 0.75])
def test_a_pseudo_target_without_an_opposite_has_as_many_models_on_each_side_of_every_record(fraction):
    """Else the numbers alone tell the sides apart: lira's AUC on pseudo-targets was 0 or 1 where nothing leaks."""
    references = toy(trained_on=design(600, 8, fraction=fraction), rows=600, gap=0.0).references
    for evidence in pseudo_targets(references):
        others = evidence.references
        assert (others.trained_on.sum(axis=0) == 8 * fraction - 1).all() and len(others.trained_on) == 6
        for i in (0, 599):  # each value stands with its own model's word on the record
            every_one, left = (
                set(zip(one.signals["log_odds"][:, i, 0], one.trained_on[:, i], strict=True))
                for one in (references, others)
            )
            assert left < every_one and len(left) == 6
    found = {row["attack"]: row["value"] for row in choose(references).rows if row["metric"] == "auc"}
    assert all(abs(value - 0.5) < 0.05 for value in found.values()), found


def test_the_choice_is_the_best_on_pseudo_targets_and_near_it_on_the_target():
    evidence = toy(16, 2000)
    choice = choose(evidence.references)
    value = {row["attack"]: row["value"] for row in choice.rows if row["metric"] == "auc"}
    assert value[str(choice.attack)] == max(value.values())
    on_target = {str(attack): auc(attack, evidence) for attack in candidates(evidence.references)}
    assert on_target[str(choice.attack)] > max(on_target.values()) - 0.02
    assert auc(Chosen(), evidence) == on_target[str(choose(evidence.references, seed=5).attack)]


def test_the_choice_does_not_look_at_the_target():
    evidence = toy(8)
    other = replace(evidence.references, target={n: -x for n, x in evidence.references.target.items()})
    assert choose(evidence.references).rows == choose(other).rows


def test_thresholds_give_about_their_rate_on_the_target():
    evidence = toy(16, 4000)
    choice = choose(evidence.references, [Lira()])
    score = scores(choice.attack, evidence)
    for rate, threshold in choice.thresholds.items():
        false = (score[~evidence.member] > threshold).mean()
        assert abs(false - rate) < 5 * math.sqrt(rate / 2000) + 0.3 * rate
    assert set(choice.thresholds) == {0.01, 0.05}


def test_choosing_asks_for_what_it_needs():
    evidence = toy(8)
    with pytest.raises(InputError, match="got none"):
        choose(evidence.references, [])
    with pytest.raises(Unavailable, match="none of the attacks can run"):
        choose(toy(4).references, [Lira()])  # one model with each record is left, and one without
    with pytest.raises(Unavailable, match="more non-members"):
        choose(evidence.references, by="tpr@0.001")


def test_an_audit_of_references_alone_does_not_depend_on_the_order_of_records():
    evidence = toy(8, 600)
    one = audit(evidence, attacks=["ratio", "lira"], controls=())
    other = audit(evidence.take(RNG.permutation(600)), attacks=["ratio", "lira"], controls=())
    assert one.score == other.score and one.meta["data"] == other.meta["data"]
    changed = replace(evidence.references, trained_on=~evidence.references.trained_on)
    digest = audit(replace(evidence, references=changed), attacks=["ratio"], controls=()).meta["data"]["digest"]
    assert digest != one.meta["data"]["digest"]
