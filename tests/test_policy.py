"""Policies: what may stand in one, and verdicts of reports whose bounds are known."""

import datetime
import functools
import math

import numpy as np
import pytest

import divulge
from divulge import DivulgeError, Evidence, Policy, PolicyError, Report, Verdict
from divulge.metrics import named
from divulge.policy import Gate, Waiver, judge
from divulge.report import LADDER, table_of

audit = functools.partial(divulge.audit, controls=())
NAN = float("nan")
TODAY = datetime.date(2026, 11, 23)
STEP = 0.01  # by which bounds widen at each level of the ladder

EXAMPLE = """
[gate]
score = { max = 0.10 }
auc = { max = 0.60, max_increase = 0.02 }      # increase against --baseline run.json
tail = { max_lift = 10 }
"tpr@0.001" = { max = 0.005 }
score_slice = { max = 0.20, min_n = 50 }
inconclusive = "keep"                          # keep | fail | pass
[[waive]]
code = "DV102"
slice = "correct=no"
reason = "known, see DPIA-17"
expires = 2027-03-01
"""


def figure(
    low, high, *, metric="score", attack="loss", slice="everyone", n=1000, reason=None, fpr=NAN, prior=NAN, value=None
):
    """A row of the results; its interval, which widens by STEP a level."""
    return {
        "attack": attack,
        "slice": slice,
        "metric": metric,
        "fpr": fpr,
        "prior": prior,
        "value": (low + high) / 2 if value is None else value,
        "low": low,
        "high": high,
        "members": n,
        "nonmembers": n,
        "reason": reason,
    }


def undefined(**fields):
    return {**figure(NAN, NAN, **fields), "reason": fields.get("reason") or "needs 100,000 non-members"}


def report(*rows, findings=(), controls=()):
    bounds = [
        {
            "row": at,
            "low": [row["low"] - STEP * step for step in range(len(LADDER))],
            "high": [row["high"] + STEP * step for step in range(len(LADDER))],
        }
        for at, row in enumerate(rows)
        if not math.isnan(row["low"])
    ]
    tables = {
        "results": table_of("results", rows),
        "bounds": table_of("bounds", bounds),
        "findings": table_of("findings", findings),
        "controls": table_of("controls", controls),
    }
    return Report({"confidence": 0.95, "verdict": "NOT_GATED"}, tables)


def policy(gate, waive=(), **more):
    return Policy.from_mapping({"gate": {**gate, **more}, "waive": list(waive)})


def verdict(report, gate, waive=(), baseline=None, **more):
    return judge(report, policy(gate, waive, **more), baseline=baseline, today=TODAY).verdict.value


# ------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(("name", "wrapped"), [("divulge.toml", False), ("pyproject.toml", True)])
def test_the_example_is_read(tmp_path, name, wrapped):
    text = EXAMPLE.replace("[gate]", "[tool.divulge.gate]").replace("[[waive]]", "[[tool.divulge.waive]]")
    (tmp_path / name).write_text(text if wrapped else EXAMPLE)
    found = Policy.load(tmp_path / name)
    assert found.gates == (
        Gate("score", 0.1),
        Gate("auc", 0.6),
        Gate("auc", 0.02, "max_increase"),
        Gate("tail", 10.0),
        Gate("tpr@0.001", 0.005),
        Gate("score_slice", 0.2, min_n=50),
    )
    assert found.waivers == (Waiver("DV102", "known, see DPIA-17", "correct=no", None, datetime.date(2027, 3, 1)),)
    assert found.inconclusive == "keep"
    assert found.source == str(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gates": {}}, "did you mean 'gate'"),
        ({"gate": {"scroe": {"max": 1}}}, "did you mean 'score'"),
        ({"gate": {"score_slices": {"max": 1}}}, "did you mean 'score_slice'"),
        ({"gate": {"score": {"maximum": 1}}}, "did you mean 'max'"),
        ({"gate": {"tail": {"max_lfit": 1}}}, "did you mean 'max_lift'"),
        ({"gate": {"tail": {"max": 1}}}, "Known: max_lift"),
        ({"gate": {"score": {"max": 1, "min_n": 3}}}, "min_n"),
        ({"gate": {"tpr@2": {"max": 1}}}, "unknown key 'tpr@2'"),
        ({"gate": {"tpr@": {"max": 1}}}, "unknown key 'tpr@'"),
        ({"gate": {"ppv@0.01": {"max": 1}}}, "unknown key"),
        ({"gate": {"x" * 100_000: {"max": 1}}}, "unknown key 'xxx"),
        ({"gate": {"inconclusiv": "keep"}}, "did you mean 'inconclusive'"),
        ({"gate": {"score": {"max": 1}}, "waive": [{"code": "DV102", "reason": "x", "expire": 1}]}, "'expires'"),
        ({"gate": {"score": {"max": 1}}, "waive": [{"code": "DV102", "reason": "x", "slise": "a"}]}, "'slice'"),
    ],
)
def test_an_unknown_key_is_refused_with_a_suggestion(content, message):
    with pytest.raises(PolicyError) as raised:
        Policy.from_mapping(content)
    assert message in str(raised.value)
    assert raised.value.code == "DV301"
    assert len(str(raised.value)) < 1000


SCORE = {"score": {"max": 0.1}}


@pytest.mark.parametrize(
    "content",
    [
        {"gate": {"score": 0.1}},
        {"gate": {"score": [0.1]}},
        {"gate": {"score": {}}},
        {"gate": {"score": {"max": "0.1"}}},
        {"gate": {"score": {"max": True}}},
        {"gate": {"score": {"max": NAN}}},
        {"gate": {"score": {"max": math.inf}}},
        {"gate": {"score": {"max": 10**400}}},
        {"gate": {"score": {"max": [1]}}},
        {"gate": {"score": {"max": None}}},
        {"gate": {"auc": {"max": 0.6, "max_increase": "x"}}},
        {"gate": {"tail": {"max_lift": datetime.date(2026, 1, 1)}}},
        {"gate": {"score_slice": {"max": 0.1, "min_n": -1}}},
        {"gate": {"score_slice": {"max": 0.1, "min_n": 1.5}}},
        {"gate": {"score_slice": {"max": 0.1, "min_n": True}}},
        {"gate": {"score_slice": {"min_n": 3}}},
        {"gate": {**SCORE, "inconclusive": "maybe"}},
        {"gate": {**SCORE, "inconclusive": True}},
        {"gate": {**SCORE, "inconclusive": ["keep"]}},
        {"gate": SCORE, "waive": {"code": "DV102"}},
        {"gate": SCORE, "waive": "DV102"},
        {"gate": SCORE, "waive": ["DV102"]},
        {"gate": SCORE, "waive": [{}]},
        {"gate": SCORE, "waive": [{"reason": "x"}]},
        {"gate": SCORE, "waive": [{"code": "DV102"}]},
        {"gate": SCORE, "waive": [{"code": "DV102", "reason": " "}]},
        {"gate": SCORE, "waive": [{"code": "DV102", "reason": 3}]},
        {"gate": SCORE, "waive": [{"code": "DV999", "reason": "x"}]},
        {"gate": SCORE, "waive": [{"code": 102, "reason": "x"}]},
        {"gate": SCORE, "waive": [{"code": ["DV102"], "reason": "x"}]},
        {"gate": SCORE, "waive": [{"code": "DV102", "reason": "x", "expires": "2027-03-01"}]},
        {"gate": SCORE, "waive": [{"code": "DV102", "reason": "x", "expires": 2027}]},
        {"gate": SCORE, "waive": [{"code": "DV102", "reason": "x", "slice": 3}]},
        {"gate": SCORE, "waive": [{"code": "DV102", "reason": "x", "attack": ["loss"]}]},
    ],
)
def test_a_value_that_cannot_be_used_is_refused(content):
    with pytest.raises(PolicyError) as raised:
        Policy.from_mapping(content)
    assert raised.value.code == "DV302"


@pytest.mark.parametrize("content", [{}, {"gate": {}}, {"gate": []}, {"gate": 3}, {"gate": {"inconclusive": "fail"}}])
def test_a_policy_without_a_gate_is_refused(content):
    """It would pass everything."""
    with pytest.raises(PolicyError, match="would pass everything") as raised:
        Policy.from_mapping(content)
    assert raised.value.code == "DV303"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.toml", None),
        ("bad.toml", b"[gate\nscore"),
        ("binary.toml", b"\xff\xfe\x00"),
        ("empty.toml", b""),
        ("twice.toml", b"[gate]\nscore = {max=1}\nscore = {max=2}"),
        ("pyproject.toml", b"[project]\nname = 'x'"),
        ("pyproject.toml", b"tool = 3"),
        ("pyproject.toml", b"[tool]\nother = 1"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PolicyError) as raised:
        Policy.load(tmp_path / name)
    assert raised.value.code == "DV303"


# --------------------------------------------------------------------------------------------- three-way verdicts


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.11, 0.2, "FAIL"),
        (0.1, 0.2, "INCONCLUSIVE"),
        (0.05, 0.15, "INCONCLUSIVE"),
        (-0.05, 0.1, "PASS"),
        (-0.2, -0.1, "PASS"),
    ],
)
def test_bounds_against_a_limit_of_one_tenth(low, high, outcome):
    found = judge(report(figure(low, high)), policy(SCORE), today=TODAY)
    assert found.verdict.value == outcome
    assert [gate["outcome"] for gate in found.gates] == [outcome]
    assert (found.gates[0]["low"], found.gates[0]["high"], found.gates[0]["checked"]) == (low, high, 1)


def test_a_failing_gate_makes_a_finding_and_a_passing_one_none():
    found = judge(report(figure(0.2, 0.3)), policy(SCORE), today=TODAY).findings
    assert [(row["code"], row["severity"], row["slice"], row["attack"]) for row in found] == [
        ("DV101", "fail", "everyone", "loss")
    ]
    assert "lower bound 0.2" in found[0]["text"] and "limit 0.1" in found[0]["text"]
    assert judge(report(figure(0, 0.05)), policy(SCORE), today=TODAY).findings == []


@pytest.mark.parametrize(
    ("gate", "row", "code"),
    [
        ({"score": {"max": 0}}, figure(0.2, 0.3), "DV101"),
        ({"score_slice": {"max": 0}}, figure(0.2, 0.3, slice="class=3"), "DV102"),
        ({"tail": {"max_lift": 0}}, figure(2, 3, metric="tail_lift", fpr=0.01), "DV103"),
        ({"auc": {"max": 0}}, figure(0.6, 0.7, metric="auc"), "DV105"),
        ({"tpr@0.01": {"max": 0}}, figure(0.6, 0.7, metric="tpr", fpr=0.01), "DV106"),
    ],
)
def test_each_gate_has_its_code(gate, row, code):
    (finding,) = judge(report(row), policy(gate), today=TODAY).findings
    assert (finding["code"], finding["severity"]) == (code, "fail")


def test_an_undefined_figure_is_inconclusive_with_its_reason():
    found = judge(report(undefined(metric="tpr", fpr=0.001)), policy({"tpr@0.001": {"max": 0.9}}), today=TODAY)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.gates[0]["reason"] == "needs 100,000 non-members"
    assert "needs 100,000 non-members" in found.findings[0]["text"]


@pytest.mark.parametrize("name", ["max_advantage", "epsilon", "auc_slice", "advantage_slice", "tpr@0.01_slice"])
def test_a_gate_that_could_never_be_decided_is_refused(name):
    """With inconclusive = "pass" it would pass whatever the model gives away."""
    with pytest.raises(PolicyError) as raised:
        policy({name: {"max": 0.1}})
    assert raised.value.code == "DV302"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Policy(()),
        lambda: Policy((Gate("score", 0.1),), inconclusive="failed"),
        lambda: Gate("score", NAN),
        lambda: Gate("score", 0.1, "maximum"),
        lambda: Gate("scroe", 0.1),
        lambda: Gate("tail_slice", 2.0),
    ],
)
def test_policies_made_in_python_are_checked_too(make):
    with pytest.raises(DivulgeError):
        make()


def test_a_figure_that_the_report_lacks_does_not_pass_as_doubt():
    lenient = {"auc": {"max": 1}, "inconclusive": "pass"}
    assert judge(report(figure(0, 0.1)), policy(lenient), today=TODAY).verdict.value == "INCONCLUSIVE"


def test_a_figure_that_the_report_lacks_is_inconclusive():
    found = judge(report(figure(0, 0.1)), policy({"auc": {"max": 1}}), today=TODAY)
    assert (found.verdict.value, found.gates[0]["reason"]) == ("INCONCLUSIVE", "the report has no such figure")


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        (["PASS", "PASS"], "PASS"),
        (["PASS", "INCONCLUSIVE"], "INCONCLUSIVE"),
        (["INCONCLUSIVE", "FAIL"], "FAIL"),
        (["FAIL", "PASS"], "FAIL"),
    ],
)
def test_fail_goes_before_inconclusive_before_pass(outcomes, result):
    ends = {"PASS": (0.0, 0.05), "INCONCLUSIVE": (0.0, 0.3), "FAIL": (0.3, 0.4)}
    rows = [figure(*ends[outcome], metric=metric) for outcome, metric in zip(outcomes, ["score", "auc"], strict=True)]
    assert verdict(report(*rows), {**SCORE, "auc": {"max": 0.1}}) == result


@pytest.mark.parametrize("status", ["ok", "warning", "not run", "invalid"])
@pytest.mark.parametrize("gates", [None, SCORE])
def test_an_invalid_control_goes_before_everything(gates, status):
    controlled = report(figure(0.2, 0.3), controls=[{"control": "shift", "code": "DV201", "status": status}])
    found = judge(controlled, None if gates is None else policy(gates), today=TODAY).verdict.value
    assert found == ("INVALID" if status == "invalid" else "NOT_GATED" if gates is None else "FAIL")


@pytest.mark.parametrize(
    ("way", "result", "severity"),
    [("keep", "INCONCLUSIVE", "info"), ("fail", "FAIL", "fail"), ("pass", "PASS", "info")],
)
def test_what_becomes_of_doubt_is_the_policys_choice(way, result, severity):
    found = judge(report(figure(0, 0.3)), policy(SCORE, inconclusive=way), today=TODAY)
    assert found.verdict.value == result
    assert found.gates[0]["outcome"] == "INCONCLUSIVE"
    assert [(row["code"], row["severity"]) for row in found.findings] == [("DV306", severity)]


def test_doubt_that_passes_does_not_pass_a_failure():
    rows = report(figure(0.2, 0.3), figure(0, 0.3, metric="auc"))
    assert verdict(rows, {**SCORE, "auc": {"max": 0.1}}, inconclusive="pass") == "FAIL"


def test_without_a_policy_nothing_is_gated():
    found = judge(report(figure(0.9, 1.0)), None)
    assert (found.verdict.value, found.gates) == ("NOT_GATED", [])


def test_a_gate_of_an_attacks_metric_holds_every_attack():
    rows = [figure(0.2, 0.3, metric="auc", attack=name) for name in "ab"] + [
        figure(0.65, 0.7, metric="auc", attack="c")
    ]
    found = judge(report(*rows), policy({"auc": {"max": 0.5}}), today=TODAY)
    assert found.gates[0]["attack"] == "c"
    assert found.gates[0]["checked"] == 3
    assert found.verdict.value == "FAIL"


def test_a_gate_of_a_rate_looks_at_that_rate_only():
    rows = [figure(0.5, 0.6, metric="tpr", fpr=0.01), figure(0, 0.001, metric="tpr", fpr=0.001)]
    assert verdict(report(*rows), {"tpr@0.001": {"max": 0.1}}) == "PASS"
    assert verdict(report(*rows), {"tpr@0.01": {"max": 0.1}}) == "FAIL"


def test_a_gate_of_a_prior_looks_at_that_prior_only():
    rows = [figure(0.5, 0.6, metric="ppv", fpr=0.01, prior=0.5), figure(0, 0.1, metric="ppv", fpr=0.01, prior=0.01)]
    assert verdict(report(*rows), {"ppv@0.01,0.01": {"max": 0.2}}) == "PASS"


# -------------------------------------------------------------------------------------------- error, shared


def shared_level(attacks, slices, gates):
    """The ladder's first level of at most 1 / (A S G), by hand."""
    return next(step for step in range(len(LADDER)) if 4.0**step >= attacks * slices * gates - 1e-9)


@pytest.mark.parametrize("attacks", [1, 2, 5])
@pytest.mark.parametrize("gates", [1, 2, 4])
def test_a_failing_bound_is_at_the_level_shared_by_attacks_and_gates(attacks, gates):
    rows = [figure(0.5, 0.6, metric="auc", attack=f"a{i}") for i in range(attacks)]
    names = ["auc", *(f"tpr@{0.1 * i:.1f}" for i in range(1, gates))]
    rows += [figure(0, 0.1, metric="tpr", fpr=named(name).fpr) for name in names[1:]]
    low = 0.5 - STEP * shared_level(attacks, 1, gates)
    others = {name: {"max": 1} for name in names[1:]}
    assert verdict(report(*rows), {"auc": {"max": low - 1e-6}, **others}) == "FAIL"
    assert verdict(report(*rows), {"auc": {"max": low + 1e-6}, **others}) == "INCONCLUSIVE"


@pytest.mark.parametrize("slices", [1, 3, 16, 17, 1000])
def test_a_failing_bound_is_at_the_level_shared_by_slices(slices):
    rows = [figure(0.5, 0.6, slice=f"class={i}") for i in range(slices)]
    low = 0.5 - STEP * shared_level(1, slices, 1)
    found = judge(report(*rows), policy({"score_slice": {"max": low - 1e-6}}), today=TODAY)
    assert len(found.findings) == slices
    assert found.gates[0]["low"] == pytest.approx(low)
    assert verdict(report(*rows), {"score_slice": {"max": low + 1e-6}}) == "INCONCLUSIVE"


def test_a_passing_bound_is_not_widened_by_what_else_is_looked_at():
    rows = [figure(0, 0.2, slice=f"class={i}") for i in range(1000)]
    assert verdict(report(*rows), {"score_slice": {"max": 0.2}}) == "PASS"


def test_a_slice_too_small_for_the_gate_is_left_out_and_costs_no_error():
    rows = [figure(0.5, 0.6, slice="class=0", n=100), *(figure(0.9, 1, slice=f"class={i}", n=49) for i in range(1, 9))]
    found = judge(report(*rows), policy({"score_slice": {"max": 0.499, "min_n": 50}}), today=TODAY)
    assert (found.gates[0]["checked"], found.gates[0]["slice"]) == (1, "class=0")
    assert found.verdict.value == "FAIL"


def test_no_slice_large_enough_is_inconclusive():
    found = judge(report(figure(0, 0.1, slice="class=0", n=3)), policy({"score_slice": {"max": 1, "min_n": 50}}))
    assert (found.verdict.value, found.gates[0]["reason"]) == (
        "INCONCLUSIVE",
        "no slice was asked for, or none is large enough",
    )


def test_a_gate_of_everyone_does_not_look_at_slices_nor_the_other_way_round():
    rows = [figure(0, 0.05), figure(0.5, 0.6, slice="class=0")]
    assert verdict(report(*rows), SCORE) == "PASS"
    assert verdict(report(*rows), {"score_slice": {"max": 0.1}}) == "FAIL"


def test_more_figures_than_the_ladder_can_share_are_inconclusive_and_never_a_failure():
    rows = report(*(figure(0.9, 1.0, slice=f"class={i}") for i in range(1025)))
    names = [f"tpr@{i / 2000:.4f}" for i in range(1, 1024)]
    found = verdict(rows, {"score_slice": {"max": 0.1}, **{name: {"max": 1} for name in names}})
    assert found == "INCONCLUSIVE"


# ------------------------------------------------------------------------------------------------------- tail

TAIL = {"tail": {"max_lift": 10}}


def lift(low, high, fpr, **fields):
    return figure(low, high, metric="tail_lift", fpr=fpr, **fields)


def test_a_tail_is_held_at_every_rate_that_was_measured():
    rows = [undefined(metric="tail_lift", fpr=0.0001), lift(1, 5, 0.001), lift(12, 15, 0.01)]
    found = judge(report(*rows), policy(TAIL), today=TODAY)
    assert (found.verdict.value, found.gates[0]["checked"]) == ("FAIL", 2)
    assert verdict(report(*rows[:2]), TAIL) == "PASS"


def test_a_tails_error_is_shared_by_the_measured_rates_only():
    rows = [undefined(metric="tail_lift", fpr=0.0001), undefined(metric="tail_lift", fpr=0.001), lift(10.001, 12, 0.01)]
    assert verdict(report(*rows), TAIL) == "FAIL"
    assert verdict(report(*rows, lift(0, 1, 0.05)), TAIL) == "INCONCLUSIVE"


def test_a_tail_that_nowhere_can_be_measured_is_inconclusive():
    rows = [undefined(metric="tail_lift", fpr=fpr) for fpr in (0.001, 0.01)]
    found = judge(report(*rows), policy(TAIL), today=TODAY)
    assert (found.verdict.value, found.gates[0]["reason"]) == ("INCONCLUSIVE", "needs 100,000 non-members")


# --------------------------------------------------------------------------------------------------- increases


def mover(value, low, high, other, other_low, other_high):
    """Zou and Donner 2008, by hand."""
    difference = value - other
    return (
        difference - math.sqrt((value - low) ** 2 + (other_high - other) ** 2),
        difference + math.sqrt((high - value) ** 2 + (other - other_low) ** 2),
    )


def test_an_increase_is_the_difference_to_the_baseline_with_movers_interval():
    now, before = report(figure(0.58, 0.66, metric="auc")), report(figure(0.50, 0.53, metric="auc"))
    low, high = mover(0.62, 0.58, 0.66, 0.515, 0.50, 0.53)
    gates = {"auc": {"max_increase": low - 1e-9}}
    found = judge(now, policy(gates), baseline=before, today=TODAY)
    assert found.verdict.value == "FAIL"
    assert found.gates[0]["value"] == pytest.approx(0.105)
    assert found.gates[0]["low"] == pytest.approx(low)
    assert [row["code"] for row in found.findings] == ["DV107"]
    assert verdict(now, {"auc": {"max_increase": low + 1e-9}}, baseline=before) == "INCONCLUSIVE"
    assert verdict(now, {"auc": {"max_increase": high + 1e-9}}, baseline=before) == "PASS"
    assert verdict(now, {"auc": {"max_increase": high - 1e-9}}, baseline=before) == "INCONCLUSIVE"


def test_an_increase_shares_its_error_too():
    """Two gates of two attacks: a quarter of the error, one level down the ladder, on both reports."""
    both = [figure(0.58, 0.66, metric="auc", attack=a) for a in "ab"]
    others = [figure(0.50, 0.53, metric="auc", attack=a) for a in "ab"]
    low, _ = mover(0.62, 0.58 - STEP, 0.66 + STEP, 0.515, 0.50 - STEP, 0.53 + STEP)
    for limit, outcome in ((low - 1e-9, "FAIL"), (low + 1e-9, "INCONCLUSIVE")):
        gates = {"auc": {"max": 1, "max_increase": limit}}
        assert verdict(report(*both), gates, baseline=report(*others)) == outcome


def test_the_scores_best_attack_may_have_changed():
    now, before = report(figure(0.5, 0.6)), report(figure(0.0, 0.1, attack="entropy"))
    assert verdict(now, {"score": {"max_increase": 0.1}}, baseline=before) == "FAIL"


def test_an_attacks_figure_is_compared_with_its_own():
    now = report(figure(0.5, 0.6, metric="auc"))
    before = report(figure(0.0, 0.1, metric="auc", attack="entropy"))
    found = judge(now, policy({"auc": {"max_increase": 0.1}}), baseline=before, today=TODAY)
    assert (found.verdict.value, found.gates[0]["reason"]) == ("INCONCLUSIVE", "the baseline has no such figure")


def test_a_figure_that_the_baseline_could_not_measure_is_inconclusive_with_its_reason():
    now, before = (report(row) for row in (figure(0.1, 0.2, metric="auc"), undefined(metric="auc", reason="constant")))
    found = judge(now, policy({"auc": {"max_increase": 0.1}}), baseline=before, today=TODAY)
    assert (found.verdict.value, found.gates[0]["reason"]) == ("INCONCLUSIVE", "constant")


def test_an_increase_without_a_baseline_is_refused():
    with pytest.raises(PolicyError, match="baseline") as raised:
        judge(report(figure(0, 1)), policy({"auc": {"max_increase": 0.1}}))
    assert raised.value.code == "DV304"


# ------------------------------------------------------------------------------------------------------ waivers

LEAK = {"code": "DV102", "severity": "warning", "slice": "class=3", "attack": "loss", "text": "t", "fix": "f"}


def waiver(code, **fields):
    return {"code": code, "reason": "known", **fields}


@pytest.mark.parametrize(
    ("fields", "waived"),
    [
        ({}, True),
        ({"slice": "class=3"}, True),
        ({"attack": "loss"}, True),
        ({"slice": "class=3", "attack": "loss"}, True),
        ({"slice": "class=4"}, False),
        ({"attack": "entropy"}, False),
        ({"slice": "class=3", "attack": "entropy"}, False),
        ({"expires": TODAY}, True),
        ({"expires": TODAY - datetime.timedelta(days=1)}, False),
        ({"expires": datetime.datetime(2026, 11, 23, 23, 59)}, True),
    ],
)
def test_what_a_waiver_covers(fields, waived):
    rows = report(figure(0, 0.05), figure(0.3, 0.4, slice="class=3"), findings=[LEAK])
    gates = {**SCORE, "score_slice": {"max": 0.1}}
    found = judge(rows, policy(gates, [waiver("DV102", **fields)]), today=TODAY)
    assert found.verdict.value == ("PASS" if waived else "FAIL")
    assert {row["waived"] for row in found.findings if row["code"] == "DV102"} == {waived}
    assert {row["severity"] for row in found.findings if row["code"] == "DV102"} == {"warning", "fail"}


def test_a_waiver_that_expired_is_a_finding():
    waive = waiver("DV102", slice="class=3", expires=datetime.date(2026, 11, 22))
    found = judge(report(figure(0, 0.05)), policy(SCORE, [waive]), today=TODAY).findings
    assert [(row["code"], row["severity"], row["slice"]) for row in found] == [("DV305", "info", "class=3")]
    assert "2026-11-22: known" in found[0]["text"]


def test_a_waiver_that_matches_nothing_is_a_finding():
    found = judge(report(figure(0, 0.05)), policy(SCORE, [waiver("DV102", slice="class=3")]), today=TODAY).findings
    assert [(row["code"], row["severity"], row["slice"]) for row in found] == [("DV307", "info", "class=3")]


def test_a_waived_failure_leaves_the_others():
    rows = report(*(figure(0.3, 0.4, slice=f"class={i}") for i in (3, 4)))
    found = judge(rows, policy({"score_slice": {"max": 0.1}}, [waiver("DV102", slice="class=3")]), today=TODAY)
    assert (found.verdict.value, found.gates[0]["slice"], found.gates[0]["checked"]) == ("FAIL", "class=4", 2)


def test_a_gate_whose_failures_are_all_waived_says_so():
    rows = report(figure(0.3, 0.4, slice="class=3"))
    found = judge(rows, policy({"score_slice": {"max": 0.1}}, [waiver("DV102")]), today=TODAY)
    assert (found.verdict.value, found.gates[0]["outcome"]) == ("PASS", "PASS")
    assert "waived" in found.gates[0]["reason"]


def test_a_waived_failure_does_not_waive_the_doubt_beside_it():
    """One attack's tail fails at one rate, which is waived, and is in doubt at another, which nobody accepted."""
    rows = report(lift(12, 15, 0.01), lift(5, 15, 0.05))
    assert verdict(rows, TAIL, [waiver("DV103")]) == "INCONCLUSIVE"


def test_waivers_of_findings_without_a_gate_do_not_change_the_verdict():
    rows = report(figure(0.3, 0.4), findings=[LEAK])
    found = judge(rows, policy(SCORE, [waiver("DV102")]), today=TODAY)
    assert found.verdict.value == "FAIL"
    assert {row["code"]: row["waived"] for row in found.findings} == {"DV101": False, "DV102": True}


# ------------------------------------------------------------------------------------------------- judged again


@pytest.fixture(scope="module")
def evidence():
    rng = np.random.default_rng(0)
    member = np.arange(2000) < 1000
    return Evidence(
        member,
        signals={"loss": rng.normal(size=2000) + 0.4 * member, "other": rng.normal(size=2000)},
        columns={"sex": rng.choice(["f", "m"], 2000)},
    )


GATED = {
    "gate": {
        "score": {"max": 0.05},
        "score_slice": {"max": 0.1},
        "tail": {"max_lift": 3},
        "auc": {"max_increase": 0.01},
    },
    "waive": [{"code": "DV102", "slice": "sex=m", "reason": "known", "expires": datetime.date(2999, 1, 1)}],
}


def test_a_saved_run_judged_again_is_as_if_it_had_been_judged_at_once(evidence, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    held = Policy.from_mapping(GATED)
    baseline = audit(evidence, slices="sex", seed=1)
    audit(evidence, slices="sex").save(tmp_path / "run.json")
    again = Report.load(tmp_path / "run.json").judged(held, baseline=baseline)
    at_once = audit(evidence, slices="sex", policy=held, baseline=baseline)
    for table in at_once.tables:
        np.testing.assert_equal(again.rows(table), at_once.rows(table))
    assert again.meta == at_once.meta
    assert at_once.verdict is Verdict.FAIL


def test_judging_twice_is_judging_once(evidence):
    held = Policy.from_mapping(GATED)
    report = audit(evidence, slices="sex")
    once = report.judged(held, baseline=report)
    np.testing.assert_equal(once.judged(held, baseline=report).rows("findings"), once.rows("findings"))
    np.testing.assert_equal(once.judged(None).rows("findings"), report.rows("findings"))
    assert once.judged(None).verdict is Verdict.NOT_GATED


def test_the_day_of_judgement_may_be_given(evidence):
    held = Policy.from_mapping(GATED)
    report = audit(evidence, slices="sex")
    late = report.judged(held, baseline=report, today=datetime.date(2999, 1, 2))
    assert "DV305" in {row["code"] for row in late.findings}
    assert "DV305" not in {row["code"] for row in report.judged(held, baseline=report).findings}


def test_a_report_is_not_changed_by_being_judged(evidence):
    report = audit(evidence)
    before = report.to_json()
    report.judged(policy(SCORE))
    assert report.to_json() == before
