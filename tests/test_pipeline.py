"""audit(): what it promises of any evidence, attacks, slices and metrics."""

import functools
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import divulge
from divulge import Estimate, Evidence, InputError, Policy, Unavailable, Verdict, attacks, blocks, measuring
from divulge.attacks import ClassWise, Threshold
from divulge.evidence import References
from divulge.folds import halves
from divulge.identity import content_hashes, identified
from divulge.metrics import TprAtFpr
from divulge.report import LADDER
from divulge.slices import Partition

audit = functools.partial(divulge.audit, controls=())  # tests/test_controls.py has the controls


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")


def classifier(n=1200, leak=0.0, seed=0, **fields):
    rng = np.random.default_rng(seed)
    member, labels = rng.permutation(n) < n // 2, rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4)).astype(np.float32)
    logits[np.arange(n), labels] += 1 + leak * member
    columns = {"age": rng.normal(size=n), "sex": rng.choice(["f", "m"], n)}
    given = {"outputs": logits, "labels": labels, "kind": "logits", "columns": columns, **fields}
    return Evidence(member, **given)


def losses(values, **fields):
    return Evidence(np.arange(len(values)) % 2 == 0, signals={"loss": np.asarray(values)}, **fields)


def rng_of(seed=0):
    return np.random.default_rng(seed)


EVIDENCE = {
    "classes": lambda: classifier(leak=0.5),
    "float64": lambda: classifier(outputs=rng_of().normal(size=(1200, 4))),
    "ids": lambda: classifier(ids=np.arange(1200)),
    "groups": lambda: classifier(groups=np.array([f"person {i // 4}" for i in range(1200)])),
    "multi-label": lambda: classifier(labels=rng_of().random((1200, 4)) < 0.4),
    "binary": lambda: classifier(outputs=rng_of().random(1200), labels=np.arange(1200) % 2, kind="probs"),
    "losses with ties": lambda: losses(
        rng_of().integers(0, 30, 1200) / 7, columns={"age": rng_of(1).normal(size=1200)}
    ),
    "duplicates": lambda: classifier(
        outputs=np.repeat(rng_of().normal(size=(300, 4)), 4, axis=0), labels=np.zeros(1200, int)
    ),
    "regression": lambda: classifier(outputs=rng_of().normal(size=1200), labels=np.zeros(1200), kind=None),
    "large": lambda: losses(rng_of().normal(size=300_000), columns={"age": rng_of(1).integers(0, 90, 300_000)}),
}


def slices_of(evidence):
    names = ["age"]
    if evidence.task in ("multiclass", "multilabel", "binary"):
        names += ["class", "correct", "loss/3"]
    return names


# --------------------------------------------------------------------------------------------------- the same again


@pytest.mark.parametrize("kind", EVIDENCE)
def test_the_order_of_the_rows_does_not_change_a_byte(kind):
    evidence = EVIDENCE[kind]()
    shuffled = evidence.take(rng_of(3).permutation(len(evidence)))
    assert (
        audit(shuffled, slices=slices_of(evidence)).to_json() == audit(evidence, slices=slices_of(evidence)).to_json()
    )


@pytest.mark.parametrize("kind", ["classes", "multi-label", "large"])
def test_cores_and_blocks_do_not_change_a_byte(monkeypatch, kind):
    evidence = EVIDENCE[kind]()
    before = audit(evidence, slices=slices_of(evidence)).to_json()
    monkeypatch.setattr(blocks, "cores", lambda: 1)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 5000)
    assert audit(evidence, slices=slices_of(evidence)).to_json() == before


def test_another_seed_moves_the_halves_and_not_the_auc():
    evidence = classifier(leak=0.5)
    first, second = audit(evidence, seed=1), audit(evidence, seed=2)
    assert first.estimate("auc", attack="loss") == second.estimate("auc", attack="loss")
    assert first.score != second.score


def test_a_function_of_ones_own_leaves_no_address_in_the_report():
    """The same audit in another process gives the same bytes; so do two functions of one definition."""

    def make():
        def mine(evidence, rng):
            return evidence.signals["loss"]

        return mine

    first, again = (audit(losses(np.arange(100.0)), attacks=[make()]).to_json() for _ in range(2))
    assert first == again
    assert " at 0x" not in first


def test_the_evidence_is_not_changed_and_need_not_be_writable():
    evidence = classifier()
    for array in (evidence.member, evidence.outputs, evidence.labels, *evidence.columns.values()):
        array.flags.writeable = False
    audit(evidence, slices=["class", "age", "sex*correct"])
    assert dict(evidence.signals) == {}


# ------------------------------------------------------------------------------------------------------ attacks


def of_attack(report, name):
    return [
        row
        for row in report.rows("results")
        if row["attack"] == name and not row["metric"].startswith(("score", "tail"))
    ]


def noise(evidence, rng):
    """An attack with randomness of its own."""
    return rng.normal(size=len(evidence))


def test_an_attacks_result_does_not_depend_on_which_others_run():
    evidence, names = classifier(), ["modified_entropy", "class_wise(loss)", noise, "margin"]
    together = audit(evidence, attacks=names, slices="class")
    backwards = audit(evidence, attacks=names[::-1], slices="class")
    for name in names:
        alone = audit(evidence, attacks=[name], slices="class")
        name = getattr(name, "__name__", name)
        np.testing.assert_equal(of_attack(together, name), of_attack(alone, name))
        np.testing.assert_equal(of_attack(backwards, name), of_attack(alone, name))
        assert len(of_attack(alone, name)) > 20


def test_the_scores_an_attack_gives_are_those_that_are_measured():
    evidence = classifier(leak=0.5)
    for attack in (Threshold("margin"), ClassWise("loss"), lambda evidence, rng: evidence.outputs[:, 0]):
        report = audit(evidence, attacks=attack, seed=7)
        if isinstance(attack, ClassWise):
            continue  # its folds come from the audit's own generator
        scores = attack(evidence, rng_of())
        assert report.estimate("auc").value == pytest.approx(roc_auc_score(evidence.member, scores), abs=1e-12)


def unavailable(evidence, rng):
    raise Unavailable("it needs the training traces")


def test_a_named_attack_that_cannot_run_is_an_error():
    with pytest.raises(Unavailable, match="the attack unavailable cannot run: it needs the training traces") as raised:
        audit(classifier(), attacks=["loss", unavailable])
    assert raised.value.code == "DV040"


def test_a_named_signal_that_cannot_be_had_is_an_error():
    with pytest.raises(Unavailable, match="the attack margin cannot run"):
        audit(losses(np.arange(100.0)), attacks=["margin"])


def test_a_default_attack_that_cannot_run_is_skipped_with_its_reason(monkeypatch):
    monkeypatch.setitem(attacks.BUDGETS, "default", lambda evidence: [Threshold("loss"), unavailable])
    report = audit(classifier())
    assert report.rows("attacks") == [
        {"attack": "loss", "status": "ran", "reason": None},
        {"attack": "unavailable", "status": "skipped", "reason": "it needs the training traces"},
    ]
    assert not of_attack(report, "unavailable")


def test_no_attack_that_can_run_is_an_error(monkeypatch):
    monkeypatch.setitem(attacks.BUDGETS, "default", lambda evidence: [unavailable])
    with pytest.raises(Unavailable, match=r"no attack could run .*unavailable: it needs the training traces"):
        audit(classifier())


def test_rows_that_an_attack_cannot_score_are_counted_a_side_and_lowest():
    evidence = classifier()
    scores = rng_of().normal(size=1200)
    scores[np.flatnonzero(evidence.member)[:3]] = np.nan
    scores[np.flatnonzero(~evidence.member)[:5]] = np.nan

    def mine(evidence, rng):
        return scores

    report = audit(evidence, attacks=[mine])
    reason = "3 members and 5 non-members not scored: counted lowest"
    assert report.rows("attacks") == [{"attack": "mine", "status": "ran", "reason": reason}]
    wanted = roc_auc_score(evidence.member, np.where(np.isnan(scores), -1e9, scores))
    assert report.estimate("auc").value == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("scores", [[3, 1, 2], [True, False, True], [3.5, 1.5, 2.5]])
@pytest.mark.parametrize("dtype", [None, np.float16, np.uint8, np.int64])
def test_scores_may_be_any_numbers(scores, dtype):
    scores = np.tile(np.asarray(scores, dtype), 100)
    report = audit(losses(np.zeros(300)), attacks=[lambda evidence, rng: scores])
    wanted = roc_auc_score(np.arange(300) % 2 == 0, scores.astype(float))
    assert report.estimate("auc").value == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "got"),
    [
        (np.zeros(99), r"shape \(99,\)"),
        (np.zeros((100, 1)), r"shape \(100, 1\)"),
        (0.5, r"shape \(\)"),
        (np.array(["a"] * 100), "<U1 scores"),
        (np.zeros(100, complex), "complex128 scores"),
        (np.array([None] * 100), "object scores"),
        (None, "object scores"),
    ],
)
def test_scores_of_a_wrong_shape_or_type_are_refused(scores, got):
    with pytest.raises(InputError, match=rf"the attack mine gave .*{got}|{got}.*") as raised:
        audit(losses(np.arange(100.0)), attacks=[named("mine", scores)])
    assert raised.value.code == "DV057"
    assert "shape (100,)" in str(raised.value)


def named(name, scores):
    def attack(evidence, rng):
        return scores

    attack.__name__ = name
    return attack


@dataclass(frozen=True)
class Fitted:
    """An attack that says what it needs and that it is fitted on membership."""

    needs: tuple[str, ...] = ("margin",)
    fitted: bool = True

    def __call__(self, evidence, rng):
        return evidence.signals["margin"]


def test_what_an_attack_needs_is_computed_beforehand_and_a_fitted_one_has_a_wider_interval():
    evidence = classifier(leak=0.5)
    fitted, plain = (
        audit(evidence, attacks=[Fitted()]).estimate("auc"),
        audit(evidence, attacks=["margin"]).estimate("auc"),
    )
    assert fitted.value == plain.value
    assert (fitted.high - fitted.low) / (plain.high - plain.low) == pytest.approx(np.sqrt(2), rel=0.01)


def test_a_given_signal_is_attacked_as_it_is():
    own = rng_of().normal(size=1200)
    report = audit(classifier(signals={"loss": own}))
    wanted = roc_auc_score(classifier().member, own)
    assert report.estimate("auc", attack="loss").value == pytest.approx(wanted, abs=1e-12)


# ------------------------------------------------------------------------------------------------------- slices


@pytest.mark.parametrize("kind", ["classes", "multi-label", "losses with ties", "float64"])
def test_each_slices_auc_is_that_of_its_rows(kind):
    evidence = EVIDENCE[kind]()

    def mine(evidence):
        rows, codes = np.nonzero(rng_of(5).random((1200, 6)) < 0.3)
        return Partition("mine", codes.astype(np.int32), tuple(f"mine={i}" for i in range(6)), rows)

    report = audit(evidence, slices=[mine], attacks=["loss"])
    scores = np.asarray(Threshold("loss")(evidence, rng_of()))
    for i, rows in enumerate(rng_of(5).random((1200, 6)).T < 0.3):
        row = report.rows("slices")[1 + i]
        assert (row["members"], row["nonmembers"]) == (evidence.member[rows].sum(), (~evidence.member[rows]).sum())
        wanted = roc_auc_score(evidence.member[rows], scores[rows])
        assert report.estimate("auc", slice=f"mine={i}").value == pytest.approx(wanted, abs=1e-12)


def test_a_slice_has_an_auc_an_advantage_and_one_tpr_of_each_attack_and_a_score():
    report = audit(classifier(), slices="sex")
    found = [(row["metric"], row["attack"]) for row in report.rows("results") if row["slice"] == "sex=f"]
    names = [row["attack"] for row in report.rows("attacks")]
    assert sorted(m for m, a in found if a == names[0] and m != "score") == ["advantage", "auc", "tpr"]
    assert len(found) == 3 * len(names) + 1
    assert len({label for *_, label in [(row["slice"],) for row in report.rows("curve")]}) == 1


def test_a_slice_is_measured_on_the_audits_own_halves():
    """The advantage of a slice, by hand: the threshold of each half measured on the other, averaged by precision."""
    evidence = classifier(leak=0.5)
    half = halves(identified(evidence, content_hashes(evidence)), 0)
    scores = np.asarray(Threshold("loss")(evidence, rng_of()))
    rows = evidence.columns["sex"] == "f"
    measured, weights = [], []
    for chosen in (0, 1):
        on, off = rows & (half == chosen), rows & (half != chosen)
        sides = [(scores[on & evidence.member], scores[on & ~evidence.member])]
        best, gap = np.inf, 0.0
        for threshold in sorted(set(scores[on]), reverse=True):
            height = (sides[0][0] >= threshold).mean() - (sides[0][1] >= threshold).mean()
            if height > gap + 1e-12:
                best, gap = threshold, height
        tpr, fpr = ((scores[off & side] >= best).mean() for side in (evidence.member, ~evidence.member))
        measured.append(tpr - fpr)
        weights.append(1 / (1 / (off & evidence.member).sum() + 1 / (off & ~evidence.member).sum()))
    wanted = np.average(measured, weights=weights)
    report = audit(evidence, attacks=["loss"], slices="sex")
    assert report.estimate("advantage", slice="sex=f").value == pytest.approx(wanted, abs=1e-12)
    assert report.estimate("score", slice="sex=f").value == pytest.approx(wanted, abs=1e-12)


def test_small_slices_are_merged_and_named():
    cities = np.where(np.arange(1200) < 40, "small", np.where(np.arange(1200) < 80, "tiny", "large"))
    report = audit(classifier(columns={"city": cities}), slices="city", min_n=30)
    rows = {row["slice"]: row for row in report.rows("slices")}
    assert set(rows) == {"everyone", "city=large", "city=(rest)"}
    assert rows["city=(rest)"]["merged"] == ["city=small", "city=tiny"]
    assert rows["city=large"]["merged"] == []
    assert rows["city=(rest)"]["members"] + rows["city=(rest)"]["nonmembers"] == 80


def test_a_rest_that_is_too_small_is_named_and_has_no_estimate():
    cities = np.where(np.arange(1200) < 6, "small", "large")
    report = audit(classifier(columns={"city": cities}), slices="city")
    assert [row["slice"] for row in report.rows("slices")] == ["everyone", "city=large", "city=(rest)"]
    assert not [row for row in report.rows("results") if row["slice"] == "city=(rest)"]
    assert np.isnan(report.rows("slices")[-1]["p"])


def test_a_value_that_ends_like_the_rest_is_not_given_its_names():
    cities = np.where(np.arange(1200) < 40, "small", np.where(np.arange(1200) % 2, "a(rest)", "b"))
    report = audit(classifier(columns={"city": cities}), slices="city")
    merged = {row["slice"]: row["merged"] for row in report.rows("slices")}
    assert merged["city=a(rest)"] == []
    assert merged["city=(rest)"] == ["city=small"]


@pytest.mark.parametrize("slices", [["class", "class"], ["class", "sex", "class"]])
def test_a_partition_that_is_asked_for_twice_is_refused_or_measured_once(slices):
    """Twice, it would cost error and leave no estimate that can be looked up."""
    try:
        report = audit(classifier(), slices=slices)
    except InputError as error:
        assert error.code == "DV053"
        return
    assert report.estimate("auc", attack="loss", slice="class=1").value > 0


@pytest.mark.parametrize("metrics", [["auc", "auc"], ["tpr@0.05", TprAtFpr(0.05)]])
def test_a_metric_that_is_asked_for_twice_is_refused_or_measured_once(metrics):
    try:
        report = audit(classifier(), metrics=metrics)
    except InputError as error:
        assert error.code == "DV051"
        return
    assert report.estimate("auc" if "auc" in metrics else "tpr@0.05", attack="loss").value > 0


def test_slices_that_cannot_be_had_are_errors():
    with pytest.raises(Unavailable, match="class labels"):
        audit(losses(np.arange(100.0)), slices="class")
    with pytest.raises(InputError, match="did you mean 'sex'") as raised:
        audit(classifier(), slices=["sexx"])
    assert raised.value.code == "DV053"


def test_a_thousand_slices_are_all_measured():
    n = 110_000
    values = rng_of().normal(size=n)
    evidence = losses(values, columns={"city": np.arange(n) // 2 % 1000})
    evidence = replace(evidence, columns={"city": evidence.columns["city"].astype(str)})
    report = audit(evidence, slices="city")
    assert len(report.rows("slices")) == 1001
    assert report.meta["tests"] == 1000 + 3 + 1
    rows = evidence.columns["city"] == "77"
    wanted = roc_auc_score(evidence.member[rows], values[rows])
    assert report.estimate("auc", slice="city=77").value == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("leak", [0.1, 0.3, 0.5, 1.0])
def test_a_slices_p_is_the_smallest_level_at_which_its_low_end_is_above_zero(leak):
    def one(evidence):
        return Partition("mine", np.where(np.arange(1200) % 2, 0, -1).astype(np.int32), ("mine=a",))

    report = audit(classifier(leak=leak), slices=one, attacks=["loss"])
    p = report.rows("slices")[1]["p"]
    at = next(i for i, row in enumerate(report.rows("results")) if (row["metric"], row["slice"]) == ("score", "mine=a"))
    lows = next(row["low"] for row in report.rows("bounds") if row["row"] == at)
    assert [low > 0 for low in lows] == [0.025 * level > p for level in LADDER]


def test_holm_equals_its_naive_twin():
    raw = [0.04, 0.001, float("nan"), 0.01, 0.5, 0.01, 0.9]
    rows = [{"p": p} for p in raw]
    measuring.holm(rows)
    tested = sorted(p for p in raw if p == p)
    wanted = {p: min(1, max(q * (len(tested) - tested.index(q)) for q in tested if q <= p)) for p in tested}
    for row, p in zip(rows, raw, strict=True):
        assert np.isnan(row["p"]) if np.isnan(p) else row["p"] == pytest.approx(wanted[p])


# ------------------------------------------------------------------------------------------------------ metrics


def median_gap(roc, error):
    """A user's own metric."""
    return Estimate(0.25, 0.2, 0.3)


def test_metrics_may_be_names_objects_and_functions():
    report = audit(classifier(), metrics=["auc", TprAtFpr(0.05), median_gap], attacks="loss", slices="sex")
    assert report.estimate("median_gap") == Estimate(0.25, 0.2, 0.3)
    assert report.estimate("median_gap", slice="sex=f") == Estimate(0.25, 0.2, 0.3)
    assert report.estimate("tpr@0.05").value > 0
    everyone = {
        row["metric"] for row in report.rows("results") if row["attack"] == "loss" and row["slice"] == "everyone"
    }
    assert everyone - {"score", "tail_tpr", "tail_lift"} == {"auc", "tpr", "median_gap"}


def test_an_unknown_metric_is_refused():
    with pytest.raises(InputError, match="unknown metric 'acu'") as raised:
        audit(classifier(), metrics="acu")
    assert raised.value.code == "DV051"


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_the_confidence_is_that_of_the_intervals(confidence):
    evidence = classifier(leak=0.4)
    found, usual = (audit(evidence, confidence=c).estimate("auc", attack="loss") for c in (confidence, 0.95))
    assert found.value == usual.value
    assert (found.high - found.low > usual.high - usual.low) == (confidence > 0.95)


# ------------------------------------------------------------------------------------------ findings, edges, inputs


def test_a_leak_is_found_and_none_where_there_is_none():
    assert [row["code"] for row in audit(classifier(leak=1.5, n=300)).findings][:1] == ["DV101"]
    assert audit(classifier()).findings == []


def test_a_leak_of_one_slice_is_found_there():
    evidence = classifier(n=4000)
    logits = evidence.outputs.copy()
    rows = np.flatnonzero(evidence.member & (evidence.labels == 2))
    logits[rows, 2] += 3
    findings = audit(replace(evidence, outputs=logits), slices="class", attacks=["loss"]).findings
    assert {row["slice"] for row in findings if row["code"] == "DV102"} == {"class=2"}
    assert {row["severity"] for row in findings} == {"warning"}


def test_a_leak_of_a_few_is_found_in_the_tail():
    evidence = classifier(n=4000)
    logits = evidence.outputs.copy()
    rows = np.flatnonzero(evidence.member)[:100]
    logits[rows, evidence.labels[rows]] += 30
    report = audit(replace(evidence, outputs=logits), attacks=["loss"])
    assert "DV103" in {row["code"] for row in report.findings}
    assert report.tail.lift.low > 3 and report.score.value < 0.1


def test_an_attack_in_the_wrong_direction_is_found_and_not_flipped():
    evidence = classifier(leak=-2.0)
    report = audit(evidence, attacks=["loss"])
    assert [row["code"] for row in report.findings] == ["DV104"]
    assert report.estimate("auc").value < 0.3
    assert report.score.value <= 0.05


def test_every_finding_says_what_to_do():
    for row in audit(classifier(leak=1.5), slices="class").findings:
        assert row["fix"] and row["text"] and row["slice"] and row["waived"] is False


@pytest.mark.parametrize("value", [0.0, -1.0, 1e30])
def test_constant_scores_are_chance_with_a_reason_and_no_finding(value):
    report = audit(losses(np.full(400, value), columns={"sex": np.array(["f", "m", "m", "f"] * 100)}), slices="sex")
    for name in ("everyone", "sex=f"):
        found = report.estimate("auc", slice=name)
        assert (found.value, found.reason) == (0.5, "all scores are equal: the attack says nothing")
        assert np.isnan(found.low) and np.isnan(found.high)
    assert report.score.value == 0
    assert report.findings == []


def test_one_class_only():
    report = audit(classifier(labels=np.zeros(1200, int)), slices=["class", "correct"])
    assert [row["slice"] for row in report.rows("slices") if row["partition"] == "class"] == ["class=0"]
    assert report.estimate("auc", attack="loss", slice="class=0").value == report.estimate("auc", attack="loss").value


def test_two_rows_a_side():
    report = audit(classifier(n=4), slices=["class", "correct"])
    assert 0 <= report.estimate("auc", attack="loss").value <= 1
    assert np.isnan(report.tail.tpr.value)
    assert report.findings == []


def test_one_row_a_side_has_no_score_and_says_why():
    report = audit(losses([2.0, 1.0]))
    assert np.isnan(report.score.value) and "too few rows" in report.score.reason
    assert report.findings == []


@pytest.mark.parametrize("side", [True, False])
def test_one_side_only_is_refused(side):
    evidence = Evidence(np.full(10, side), signals={"loss": np.zeros(10)})
    with pytest.raises(InputError, match=f"no {'non-members' if side else 'members'} among 10") as raised:
        audit(evidence)
    assert raised.value.code == "DV056"


@pytest.mark.parametrize(
    "arguments",
    [
        {"confidence": 1},
        {"confidence": 0.05},
        {"confidence": 95},
        {"confidence": float("nan")},
        {"min_n": 1},
        {"min_n": -5},
        {"seed": -1},
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(arguments):
    with pytest.raises(InputError) as raised:
        audit(classifier(n=40), **arguments)
    assert raised.value.code == "DV056"


def test_numpys_numbers_may_be_arguments(tmp_path):
    report = audit(classifier(n=40), seed=np.int64(3), min_n=np.int32(5), confidence=np.float32(0.9))
    report.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["meta"]["seed"] == 3


def test_the_models_own_accuracy_is_told_by_side():
    evidence = classifier(leak=1.0)
    right = evidence.outputs.argmax(axis=1) == evidence.labels
    report = audit(evidence)
    found = report.estimate("member_accuracy"), report.estimate("nonmember_accuracy")
    assert found[0].value == pytest.approx(right[evidence.member].mean())
    assert found[1].value == pytest.approx(right[~evidence.member].mean())
    assert all(one.low < one.value < one.high for one in found)


def test_the_report_says_what_was_audited():
    meta = audit(classifier(n=400), attacks=["loss"], slices=["class", "sex"], seed=3, min_n=20).meta
    assert meta["data"] | {"digest": ""} == {
        "members": 200,
        "nonmembers": 200,
        "task": "multiclass",
        "kind": "logits",
        "outputs": 4,
        "dtype": "float32",
        "given": [],
        "columns": ["age", "sex"],
        "digest": "",
        "references": None,
    }
    assert (meta["seed"], meta["confidence"], meta["min_n"], meta["slices"]) == (3, 0.95, 20, ["class", "sex"])
    assert meta["attacks"] == {"loss": "Threshold(signal='loss')"}


def reference_models(evidence, models=4, target=True):
    rng = rng_of(1)
    n = len(evidence.member)
    signals = {name: rng.normal(size=(models, n, 2)).astype(np.float32) for name in ("log_odds", "loss")}
    return References(
        signals=signals,
        target={name: rng.normal(size=(n, 2)) for name in signals} if target else None,
        trained_on=rng.random((models, n)) < 0.5,
        source="outputs",
    )


def test_the_report_says_which_reference_models_there_were():
    evidence = classifier(n=400)
    evidence = replace(evidence, references=reference_models(evidence))

    def said(evidence):
        return audit(evidence, attacks=["loss"]).meta["data"]

    first = said(evidence)
    assert first["references"] | {"digest": ""} == {
        "models": 4,
        "source": "outputs",
        "signals": ["log_odds", "loss"],
        "digest": "",
    }
    assert said(evidence.take(rng_of(2).permutation(400))) == first
    own = evidence.references
    within = own.trained_on.copy()
    within[2, 7] ^= True
    odds = own.signals["log_odds"].copy()
    odds[3, 9, 1] += 1
    swapped = own.trained_on[[1, 0, 2, 3]]
    others = [
        replace(own, trained_on=within),
        replace(own, trained_on=swapped),
        replace(own, signals={**own.signals, "log_odds": odds}),
        replace(own, signals={"log_odds": own.signals["loss"], "loss": own.signals["log_odds"]}),
        replace(own, target=None),
        own.take(np.arange(400)[::-1]),
    ]
    digests = [said(replace(evidence, references=one))["references"]["digest"] for one in others]
    assert len({first["references"]["digest"], *digests}) == len(others) + 1


def test_progress_says_when_records_are_looked_at():
    calls = []
    audit(classifier(), records=True, progress=lambda *call: calls.append(call))
    done, totals, texts = zip(*calls, strict=True)
    assert list(done) == sorted(done) and done[-1] == totals[0] and "records" in texts


def test_a_policy_is_judged_at_once():
    held = Policy.from_mapping({"gate": {"score": {"max": 0.01}}})
    assert audit(classifier(leak=1.5), policy=held).verdict is Verdict.FAIL
    assert audit(classifier(leak=1.5)).verdict is Verdict.NOT_GATED


def test_progress_is_told_from_none_to_all():
    calls = []
    audit(classifier(), slices=["class", "sex"], progress=lambda *call: calls.append(call))
    done, totals, texts = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[0] == 0 and done[-1] == totals[0]
    assert {"attack loss", "attack class_wise(loss)"} <= set(texts)


def test_progress_that_is_interrupted_ends_the_audit():
    def stop(done, total, what):
        if what == "measuring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(classifier(), progress=stop)


@pytest.mark.parametrize("clock", ["abc", "-1", "1.5", "", "9" * 30])
def test_a_clock_that_is_no_time_is_refused(monkeypatch, clock):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", clock)
    with pytest.raises(InputError) as raised:
        audit(classifier(n=40), controls=())
    assert raised.value.code == "DV056"
