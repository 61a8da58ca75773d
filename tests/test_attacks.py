"""Every attack: a row of one table, and what all of them must pass. Then those that threshold a signal; then names."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from divulge import Evidence, InputError, References, Unavailable, audit, metrics, signals
from divulge.attacks import (
    AttackR,
    ClassWise,
    Difficulty,
    LabelOnly,
    Learned,
    Lira,
    Quantile,
    Ratio,
    Rmia,
    Threshold,
    Traces,
    all_named,
    named,
)
from divulge.attacks.budgets import default, quick, thorough
from divulge.attacks.choosing import Chosen
from divulge.attacks.reference import RATIO_BASE
from divulge.attacks.threshold import FOLDS, POOLED_ROWS
from divulge.folds import folds, halves
from divulge.model_outputs import signals_of
from divulge.roc import exact


def largest_output(evidence, rng):
    """A user's own attack: a plain function."""
    return evidence.outputs.max(axis=1)


class Row(NamedTuple):
    attack: object
    row_wise: bool = True  # a row's score depends on that row alone
    name: str = ""
    seeds: int = 200  # of the null test; fewer than 100 of an attack that takes long: then it is a slow test
    given: str = ""  # what the toy has besides outputs and labels: "features", "columns", "traces", "references" …


ATTACKS = {
    **{name: Row(Threshold(name), name=name) for name in signals.NAMES},
    "class_wise(loss)": Row(ClassWise("loss"), row_wise=False, name="class_wise(loss)"),
    "class_wise(modified_entropy)": Row(
        ClassWise("modified_entropy"), row_wise=False, name="class_wise(modified_entropy)"
    ),
    "largest_output": Row(largest_output, name="largest_output"),
    **{
        f"learned({model})": Row(Learned(model), row_wise=False, name=f"learned({model})", seeds=seeds)
        for model, seeds in {
            "logistic": 200,
            "per_class": 200,
            "spline": 60,
            "knn": 60,
            "boosting": 30,
            "mlp": 30,
        }.items()
    },
    "learned(logistic, age, class)": Row(
        Learned("logistic", ("age", "class")),
        row_wise=False,
        name="learned(logistic, age, class)",
        seeds=60,
        given="columns",
    ),
    "learned(GaussianNB)": Row(Learned(GaussianNB()), row_wise=False, name="learned(GaussianNB)"),
    "quantile(class)": Row(Quantile("class"), row_wise=False, name="quantile(class)"),
    "quantile(linear)": Row(Quantile(), row_wise=False, name="quantile(linear)", seeds=60, given="features"),
    "quantile(boosting)": Row(
        Quantile("boosting"), row_wise=False, name="quantile(boosting)", seeds=30, given="features"
    ),
    **{
        f"traces({kind})": Row(Traces(kind), name=f"traces({kind})", given="traces")
        for kind in ("iqr", "mean", "slope")
    },
    "label_only": Row(LabelOnly(), name="label_only", given="label_only"),
    **{
        str(attack): Row(attack, row_wise=row_wise, name=str(attack), given="references")
        for attack, row_wise in (
            (Lira(), False),
            (Lira("pooled"), False),
            (Lira("per-example"), True),
            (Lira(mode="offline"), False),
            (Ratio(), True),
            (RATIO_BASE, True),
            (Rmia(), False),
            (Difficulty(), True),
            (AttackR(), True),
        )
    },
    "references": Row(Chosen(), row_wise=False, name="references", seeds=30, given="references"),
}


def toy(n=1000, leak=0.0, seed=0, classes=4, spread=0.0, given=""):
    """A classifier's logits; a leak raises the members' true logit, a spread makes classes unlike each other."""
    rng = np.random.default_rng(seed)
    member = rng.permutation(n) < n // 2
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 2 + leak * member + spread * labels
    made = {
        "": dict,
        "features": lambda: {"features": rng.normal(size=(n, 3))},
        "columns": lambda: {"columns": {"age": rng.normal(size=n)}},
        # Losses that fall from 2, a leak faster, so that they are lower, moved further and have the steeper slope.
        "traces": lambda: {
            "traces": 2 * np.exp(-np.outer(1 + leak * member, np.arange(6) / 6)) + rng.gamma(2, 0.1, (n, 6))
        },
        "label_only": lambda: {"signals": {"label_only": rng.binomial(20, 0.6 + 0.1 * leak * member) / 20}},
        "references": lambda: {"references": references(labels, leak, classes, spread, rng)},
    }
    return Evidence(member, outputs=logits.astype(np.float32), labels=labels, kind="logits", **made[given]())


def references(labels, leak, classes, spread, rng, models=10):
    """Models of the same kind, each trained on another half of the records."""
    n = len(labels)
    half = rng.permuted(np.tile(np.arange(n) % 2 == 0, (models // 2, 1)), axis=1)
    trained_on = np.concatenate([half, ~half])
    logits = rng.normal(size=(models, n, classes))
    logits[:, np.arange(n), labels] += 2 + leak * trained_on + spread * labels
    names = ("log_odds", "loss", "log_prob@T=2")
    found = np.stack([signals_of(z, labels, names, "logits") for z in logits])
    return References(signals={name: found[:, at, :, None] for at, name in enumerate(names)}, trained_on=trained_on)


def scores_of(attack, evidence, seed=5):
    return np.asarray(attack(evidence, np.random.default_rng(seed)))


@pytest.fixture(params=ATTACKS)
def row(request):
    return ATTACKS[request.param]


NULL = [pytest.param(name, marks=[pytest.mark.slow] * (row.seeds < 50)) for name, row in ATTACKS.items()]


def test_direction_members_score_higher_on_a_leaky_model(row):
    evidence = toy(leak=1.5, given=row.given)
    assert roc_auc_score(evidence.member, scores_of(row.attack, evidence)) > 0.55


@pytest.mark.parametrize("name", NULL)
def test_null_random_membership_raises_few_alarms(name):
    row, error = ATTACKS[name], 0.05
    fitted = named(row.attack, toy(n=20)).fitted
    alarms = 0
    for seed in range(row.seeds):
        evidence = toy(n=600 if row.seeds < 50 else 300, seed=seed, given=row.given)  # a network needs more
        roc = exact(scores_of(row.attack, evidence, seed), evidence.member, halves(evidence, seed), fitted=fitted)
        alarms += metrics.auc(roc, error).low > 0.5
    assert binomtest(alarms, row.seeds, error / 2, alternative="greater").pvalue > 0.01, alarms


def test_row_permutation_permutes_the_scores(row):
    evidence = toy(given=row.given)
    order = np.random.default_rng(3).permutation(len(evidence))
    assert np.array_equal(scores_of(row.attack, evidence.take(order)), scores_of(row.attack, evidence)[order])


def test_take_slice_then_score_is_score_then_slice(row):
    evidence = toy(given=row.given)
    rows = np.random.default_rng(3).permutation(1000)[:600]
    before, after = scores_of(row.attack, evidence.take(rows)), scores_of(row.attack, evidence)[rows]
    assert np.allclose(before, after, rtol=1e-6, atol=0) == row.row_wise


def test_scores_are_a_number_a_row_and_do_not_change_between_calls(row):
    evidence = toy(given=row.given)
    scores = scores_of(row.attack, evidence)
    assert scores.shape == (1000,) and np.isfinite(scores).all()
    assert np.array_equal(scores, scores_of(row.attack, evidence))


def test_the_name_is_that_of_the_table(row):
    assert named(row.attack, toy()).name == row.name


def test_the_table_has_every_attack_that_a_budget_runs():
    names = {str(attack) for attack in [*thorough(toy()), *thorough(toy(given="references"))]}
    assert names - set(ATTACKS) == {"learned(boosting, features)"}  # boosting, and columns, have rows of their own


# -------------------------------------------------------------------------------------------------- class-wise


def naive_class_wise(evidence, values, seed):
    """O(n²), as written in the formulas."""
    fold = folds(evidence, FOLDS, int(np.random.default_rng(seed).integers(2**63)))
    scores = []
    for i in range(len(evidence)):
        fit = ~evidence.member & (fold != fold[i])
        own = fit & (evidence.labels == evidence.labels[i])

        def place(rows, value=values[i]):
            below, equal = values[rows] < value, values[rows] == value
            return below.mean() + equal.mean() / 2 if rows.any() else 0.5

        n = own.sum()
        scores.append((n * place(own) + POOLED_ROWS * place(fit)) / (n + POOLED_ROWS))
    return np.array(scores)


@pytest.mark.parametrize("levels", [3, 1000], ids=["many ties", "few ties"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "classes"), [(10, 3), (300, 4), (400, 150)])
def test_class_wise_equals_its_naive_twin(n, classes, dtype, levels):
    rng = np.random.default_rng(0)
    values = (rng.integers(-levels, levels, n) / 7).astype(dtype)
    evidence = Evidence(np.arange(n) < n // 2, labels=rng.integers(0, classes, n), signals={"mine": values})
    found = scores_of(ClassWise("mine"), evidence)
    np.testing.assert_allclose(found, naive_class_wise(evidence, values, 5), rtol=0, atol=1e-12)


def test_class_wise_finds_a_leak_that_differences_between_classes_hide():
    evidence = toy(n=4000, leak=1.0, classes=8, spread=3.0)
    plain, own = (roc_auc_score(evidence.member, scores_of(a, evidence)) for a in (Threshold(), ClassWise()))
    assert own > plain + 0.05


def test_class_wise_gives_no_member_an_advantage_over_non_members_of_its_fold():
    """Members and non-members of a fold are placed by one fit: equal signals in one class and fold, equal scores."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 5, 600).astype(float)
    evidence = Evidence(np.arange(600) < 300, labels=rng.integers(0, 2, 600), signals={"mine": values})
    scores = scores_of(ClassWise("mine"), evidence)
    fold = folds(evidence, FOLDS, int(np.random.default_rng(5).integers(2**63)))
    for key in set(zip(fold, evidence.labels, values, strict=True)):
        same = (fold == key[0]) & (evidence.labels == key[1]) & (values == key[2])
        assert len(set(scores[same])) == 1


def test_class_wise_cannot_score_what_has_no_signal():
    values = np.random.default_rng(0).normal(size=100)
    values[[3, 60]] = np.nan
    evidence = Evidence(np.arange(100) < 50, labels=np.arange(100) % 2, signals={"mine": values})
    assert np.flatnonzero(np.isnan(scores_of(ClassWise("mine"), evidence))).tolist() == [3, 60]


@pytest.mark.parametrize(
    "fields",
    [
        {"signals": {"loss": np.zeros(4)}},
        {"labels": np.zeros((4, 2), bool), "outputs": np.zeros((4, 2)), "kind": "logits"},
        {"labels": np.zeros(4), "outputs": np.zeros(4)},
        {"labels": np.array([0.5, 1.5, 2.5, 3.5]), "signals": {"loss": np.zeros(4)}},
    ],
    ids=["no labels", "multi-label", "regression", "regression by its loss alone"],
)
def test_class_wise_needs_one_class_a_record(fields):
    evidence = Evidence(np.arange(4) < 2, **fields)
    with pytest.raises(Unavailable, match="one class label a record"):
        ClassWise("loss")(evidence, np.random.default_rng(0))
    ran = {row["attack"]: row for row in audit(evidence, controls=()).rows("attacks")}
    assert (ran["loss"]["status"], ran["class_wise(loss)"]["status"]) == ("ran", "skipped")
    assert "one class label a record" in ran["class_wise(loss)"]["reason"]


# ----------------------------------------------------------------------------------------------- what runs, by name

MULTICLASS = {"outputs": np.zeros((4, 3)), "labels": np.zeros(4, int), "kind": "logits"}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (MULTICLASS, ["loss", "modified_entropy", "class_wise(loss)"]),
        ({**MULTICLASS, "labels": None}, ["confidence", "entropy", "class_wise(confidence)"]),
        ({"outputs": np.zeros(4), "labels": np.zeros(4, int), "kind": "probs"}, ["loss", "class_wise(loss)"]),
        (
            {"outputs": np.zeros((4, 2)), "labels": np.zeros((4, 2), bool), "kind": "logits"},
            ["loss", "class_wise(loss)"],
        ),
        ({"outputs": np.zeros(4), "labels": np.zeros(4)}, ["loss", "class_wise(loss)"]),
        ({"signals": {"loss": np.zeros(4)}}, ["loss", "class_wise(loss)"]),
        ({"signals": {"mine": np.zeros(4), "loss": np.zeros(4)}}, ["mine", "loss", "class_wise(loss)"]),
        ({"signals": {"mine": np.zeros(4)}, "labels": np.zeros(4, int)}, ["mine", "class_wise(mine)"]),
        ({**MULTICLASS, "signals": {"loss": np.zeros(4)}}, ["loss", "modified_entropy", "class_wise(loss)"]),
        ({"traces": np.zeros((4, 3))}, []),
        ({}, []),
    ],
)
def test_the_quick_attacks_are_what_the_evidence_supports(fields, names):
    assert [str(attack) for attack in quick(Evidence(np.arange(4) < 2, **fields))] == names


def test_each_budget_runs_what_the_one_before_it_runs_and_more():
    few, more, most = ([str(attack) for attack in budget(toy())] for budget in (quick, default, thorough))
    assert set(few) < set(more) < set(most)
    assert all(len(set(names)) == len(names) for names in (few, more, most))


@pytest.mark.parametrize("budget", [default, thorough])
def test_without_anything_to_attack_there_is_no_attack(budget):
    assert budget(Evidence(np.arange(4) < 2, labels=np.zeros(4, int), features=np.zeros((4, 2)))) == []


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in ("largest_output", "learned(GaussianNB)")])
def test_names_become_attacks(name):
    assert named(name, toy()).call == ATTACKS[name].attack


def test_class_wise_alone_is_that_of_the_loss():
    assert named("class_wise", toy()).call == ClassWise("loss")


def test_the_repr_is_the_provenance():
    assert repr(ClassWise("margin")) == "ClassWise(signal='margin')"
    assert eval(repr(Threshold("margin"))) == Threshold("margin")


def test_one_attack_need_not_be_a_list():
    assert [attack.name for attack in all_named("margin", toy())] == ["margin"]
    assert [attack.name for attack in all_named(largest_output, toy())] == ["largest_output"]


def test_a_named_attack_is_required_and_a_default_one_is_not():
    assert {attack.required for attack in all_named("default", toy())} == {False}
    assert {attack.required for attack in all_named(["loss"], toy())} == {True}


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ("los", "did you mean 'loss'"),
        (["loss", "modified-entropy"], "did you mean 'modified_entropy'"),
        ("classwise", "did you mean 'class_wise'"),
        ("class_wise(los)", "class_wise"),
        ("class_wise(loss", "class_wise"),
        ("class_wiseloss", "class_wise"),
        ("x" * 100_000, "there is no attack 'xxx"),
        ("", "there is no attack ''"),
        (["loss", "loss"], "two attacks are called 'loss'"),
        ([Threshold("loss"), "loss"], "two attacks are called 'loss'"),
        ([], "no attack was named"),
        ([3], "expected an attack's name, a callable or a scikit-learn classifier, got int"),
        ([None], "got NoneType"),
    ],
)
def test_attacks_that_are_none_are_refused(attacks, message):
    with pytest.raises(InputError) as raised:
        all_named(attacks, toy(n=20))
    assert message in str(raised.value)
    assert raised.value.code == "DV052"
    assert len(str(raised.value)) < 2000


def test_evidence_that_no_attack_fits_is_refused():
    with pytest.raises(InputError, match="no attack fits") as raised:
        all_named("default", Evidence(np.arange(4) < 2, labels=np.zeros(4, int)))
    assert raised.value.code == "DV052"


# ------------------------------------------------------------------------------------------- attacks of one's own


def test_an_attack_may_not_write_into_the_data():
    """One that did changed the caller's arrays and what later attacks saw, and the audit said nothing."""
    evidence = Evidence(np.arange(200) < 100, signals={"loss": np.sin(np.arange(200.0))})

    def spoiler(evidence, rng):
        evidence.member[:] = False
        return np.zeros(len(evidence))

    with pytest.raises(ValueError, match="read-only"):
        audit(evidence, attacks=["loss", spoiler], controls=())
    assert evidence.member.sum() == 100
    assert evidence.member.flags.writeable


def test_an_attack_that_scores_nobody_cannot_run():
    evidence = Evidence(np.arange(200) < 100, signals={"loss": np.sin(np.arange(200.0))})
    with pytest.raises(Unavailable, match="it scored none of the 200 records"):
        audit(evidence, attacks=lambda evidence, rng: np.full(len(evidence), np.nan), controls=())


def test_ragged_scores_are_an_error_with_a_code():
    evidence = Evidence(np.arange(20) < 10, signals={"loss": np.sin(np.arange(20.0))})
    with pytest.raises(InputError, match="DV057"):
        audit(evidence, attacks=lambda evidence, rng: [[1.0], [1.0, 2.0]], controls=())


def test_two_functions_without_a_name_are_told_how_to_get_one():
    evidence = Evidence(np.arange(20) < 10, signals={"loss": np.sin(np.arange(20.0))})
    with pytest.raises(InputError, match="define one by def"):
        all_named([lambda e, r: e.signals["loss"], lambda e, r: -e.signals["loss"]], evidence)


@pytest.mark.parametrize(
    ("name", "way"),
    [("lira", "`divulge references run`, then --references"), ("quantile(linear)", "quantile(linear, age)")],
)
def test_what_an_attack_lacks_is_said_with_its_way_out_in_the_shell(name, way) -> None:
    evidence = Evidence(np.arange(60) < 30, signals={"loss": np.sin(np.arange(60.0))})
    with pytest.raises(Unavailable) as caught:
        audit(evidence, attacks=[name], controls=())
    assert way in caught.value.message
