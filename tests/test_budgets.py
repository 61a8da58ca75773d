"""Which attacks run, by budget and name; what they cost; what they ask of the model; and that many raise few alarms."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import divulge
from divulge import Evidence, InputError, Unavailable
from divulge.attacks import BUDGETS, ClassWise, Learned, Quantile, Threshold, Traces, all_named, named
from divulge.attacks.budgets import thorough
from divulge.cli import main, terminal
from simulations import LEAKS, refuted

SEEDS = int(os.environ.get("DIVULGE_SEEDS", "20"))
whole = pytest.mark.default_budget
slow = pytest.mark.slow


def rng_of(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def classifier(n: int = 300, leak: float = 0.5, seed: int = 0, **fields: Any) -> Evidence:
    """n records, half of them members; a leak raises the members' true logit."""
    rng = rng_of(seed)
    member, labels = rng.permutation(n) < n // 2, rng.integers(0, 4, n)
    logits = rng.normal(size=(n, 4))
    logits[np.arange(n), labels] += 1 + leak * member
    return Evidence(member, **{"outputs": logits.astype(np.float32), "labels": labels, "kind": "logits"} | fields)


def only(**fields: Any) -> Evidence:
    return Evidence(rng_of(3).permutation(300) < 150, **fields)


EVIDENCE: dict[str, Callable[[], Evidence]] = {
    "classes": classifier,
    "classes as probabilities": lambda: classifier(outputs=rng_of().dirichlet(np.ones(4), 300), kind="probs"),
    "unlabelled": lambda: classifier(labels=None),
    "binary": lambda: classifier(outputs=rng_of().normal(size=300), labels=np.arange(300) % 2),
    "multi-label": lambda: classifier(labels=rng_of().random((300, 4)) < 0.4),
    "regression": lambda: classifier(outputs=rng_of().normal(size=300), labels=rng_of(1).normal(size=300), kind=None),
    "regression with deviations": lambda: classifier(
        outputs=rng_of().random((300, 2)) + 0.1, labels=rng_of(1).normal(size=300), kind=None
    ),
    "loss": lambda: only(signals={"loss": rng_of().normal(size=300)}),
    "loss and labels": lambda: only(signals={"loss": rng_of().normal(size=300)}, labels=np.arange(300) % 3),
    "traces": lambda: only(traces=rng_of().gamma(2, size=(300, 5))),
    "everything": lambda: classifier(
        features=rng_of().normal(size=(300, 5)),
        traces=rng_of().gamma(2, size=(300, 5)),
        signals={"label_only": rng_of().integers(0, 11, 300) / 10},
        columns={"age": rng_of().normal(size=300)},
        groups=np.arange(300) // 2,
    ),
}


# ----------------------------------------------------------------------------------------------- budgets and evidence


@whole
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("kind", EVIDENCE)
def test_each_budget_runs_on_each_kind_of_evidence(kind: str, budget: str) -> None:
    evidence = EVIDENCE[kind]()
    if kind == "traces" and budget != "thorough":
        with pytest.raises(InputError, match=r"no attack fits this evidence.*the budget thorough"):
            divulge.audit(evidence, attacks=budget, controls=())
        return
    report = divulge.audit(evidence, attacks=budget, controls=())
    rows = report.rows("attacks")
    assert [row["attack"] for row in rows] == [str(attack) for attack in BUDGETS[budget](evidence)]
    assert {row["status"] for row in rows} <= {"ran", "skipped"}
    for row in rows:
        assert row["status"] == "ran" or len(row["reason"]) > 10
        if row["status"] == "ran":
            assert 0 <= report.estimate("auc", attack=row["attack"]).value <= 1
    if kind == "everything":
        assert [row["attack"] for row in rows if row["status"] != "ran"] == ["learned(mlp)"] * (budget == "thorough")


@whole
def test_no_budget_is_the_default_one() -> None:
    evidence = classifier()
    names = [row["attack"] for row in divulge.audit(evidence, controls=()).rows("attacks")]
    assert names == [str(attack) for attack in BUDGETS["default"](evidence)]
    assert "learned(logistic)" in names


def test_a_budget_may_stand_in_a_list() -> None:
    evidence = classifier()
    chosen = all_named(["quick", "margin", Learned("knn")], evidence)
    assert [attack.name for attack in chosen] == [*map(str, BUDGETS["quick"](evidence)), "margin", "learned(knn)"]
    assert [attack.name for attack in chosen if attack.required] == ["margin", "learned(knn)"]
    assert [attack.name for attack in all_named(["margin", "quick"], evidence)][-1] == "margin"


def test_what_is_named_beside_its_budget_is_required_once() -> None:
    chosen = {attack.name: attack for attack in all_named(["quick", Threshold("loss")], classifier())}
    assert chosen["loss"].required and not chosen["modified_entropy"].required
    assert len(chosen) == len(BUDGETS["quick"](classifier()))
    with pytest.raises(InputError, match="two attacks are called 'loss'"):
        all_named(["quick", "loss", "loss"], classifier())


def test_two_budgets_are_the_larger() -> None:
    evidence = classifier()
    both = {attack.name for attack in all_named(["quick", "default"], evidence)}
    assert both == {attack.name for attack in all_named("default", evidence)}


def test_what_was_named_and_cannot_run_is_an_error_where_a_budgets_own_is_skipped() -> None:
    with pytest.raises(Unavailable, match=r"the attack quantile\(linear\) cannot run: needs the model's inputs"):
        divulge.audit(classifier(), attacks=["quick", "quantile"], controls=())
    rows = divulge.audit(classifier(), attacks="thorough", controls=()).rows("attacks")
    skipped = {row["attack"]: row["reason"] for row in rows if row["status"] == "skipped"}
    assert {"quantile(linear)", "traces(iqr)", "label_only", "learned(boosting, features)"} <= set(skipped)
    assert all(skipped.values())


# ------------------------------------------------------------------------------------------------------------- names

GIVEN = {"label_only": np.zeros(300)}
NAMED = [
    *thorough(EVIDENCE["everything"]()),
    ClassWise("mine"),
    ClassWise("label_only"),
    Learned("logistic", ("age",)),
    Learned("mlp", ("age", "class", "features")),
    Learned("knn", ("my age", "age (years)")),
    Quantile("linear", "mine"),
    Quantile("boosting", "loss", ("age", "sex")),
    Quantile("class", "margin"),
]


@pytest.mark.parametrize("attack", NAMED, ids=str)
def test_a_name_is_an_attack_and_back(attack: Any) -> None:
    evidence = replace(EVIDENCE["everything"](), signals={"mine": np.zeros(300)} | GIVEN)
    found = named(str(attack), evidence)
    assert (found.call, found.name) == (attack, str(attack))


@pytest.mark.parametrize(
    ("text", "attack"),
    [
        ("learned", Learned("logistic")),
        ("learned()", Learned("logistic")),
        ("learned(boosting,age ,  sex)", Learned("boosting", ("age", "sex"))),
        ("quantile", Quantile("linear")),
        ("quantile(class, signal=loss)", Quantile("class", "loss")),
        ("traces", Traces("iqr")),
        ("class_wise", ClassWise("loss")),
        ("class_wise(margin)", ClassWise("margin")),
    ],
)
def test_a_familys_name_alone_is_its_first(text: str, attack: Any) -> None:
    assert named(text, classifier()).call == attack


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("learnd(mlp)", "DV052", "did you mean"),
        ("thorugh", "DV052", "there is no attack 'thorugh'"),
        ("learned(forest)", "DV056", "logistic, per_class"),
        ("quantile(median)", "DV056", "linear, boosting, class"),
        ("traces(iqr, mean)", "DV052", "there is no attack"),
        ("traces(max)", "DV056", "iqr, mean, slope"),
        ("label_only(3)", "DV052", "there is no attack"),
        ("learned(mlp", "DV052", "there is no attack"),
        ("loss(3)", "DV052", "there is no attack"),
    ],
)
def test_a_name_that_is_none_says_what_is_known(text: str, code: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        all_named(text, classifier())
    assert raised.value.code == code
    assert message in str(raised.value)


# -------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    classifier(columns={"age": rng_of().normal(size=300)}).save("evidence.npz")
    EVIDENCE["traces"]().save("traces.npz")
    return tmp_path


def ran(*arguments: str) -> list[str]:
    assert main(["audit", "evidence.npz", "--json", "run.json", "--control", "power", *arguments]) == 0
    return [row["attack"] for row in divulge.Report.load("run.json").rows("attacks") if row["status"] == "ran"]


@whole
def test_the_budget_is_an_option(folder: Any) -> None:
    few, usual, many = ran("--budget", "quick"), ran(), ran("--budget", "thorough")
    assert few == ["loss", "modified_entropy", "class_wise(loss)"]
    assert usual == ran("--budget", "default") == [*few, "learned(logistic)", "learned(per_class)", "quantile(class)"]
    assert set(usual) < set(many)


def test_an_attack_alone_or_besides_a_budget(folder: Any) -> None:
    assert ran("--attack", "learned(logistic, age)") == ["learned(logistic, age)"]
    assert ran("--budget", "quick", "--attack", "margin")[-1] == "margin"
    assert ran("--attack", "quick", "--attack", "margin")[-1] == "margin"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--budget", "huge"], "'quick', 'default', 'thorough'"),
        (["--attack", "traces"], "the attack traces(iqr) cannot run"),
        (["--budget", "quick", "--attack", "label_only"], "the attack label_only cannot run"),
        (["--attack", "learned(logistic, aeg)"], "there is no column 'aeg'; known here: age"),
        (["--attack", "learned(forest)"], "DV056"),
    ],
)
def test_what_cannot_run_is_an_error_of_the_command(folder: Any, capsys: Any, arguments: list[str], said: str) -> None:
    assert main(["audit", "evidence.npz", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_traces_alone_say_which_budget_attacks_them(folder: Any, capsys: Any) -> None:
    assert main(["audit", "traces.npz"]) == 2
    assert "budget thorough" in " ".join(capsys.readouterr().err.split())
    assert main(["audit", "traces.npz", "--budget", "thorough", "--control", "power"]) == 0


# ----------------------------------------------------------------------------------------------------------- progress


@whole
@pytest.mark.parametrize("budget", ["quick", "default"])
@pytest.mark.parametrize("controls", ["default", ()])
def test_progress_never_falls_and_ends_at_all(budget: str, controls: Any) -> None:
    told: list[tuple[int, int, str]] = []
    divulge.audit(
        classifier(), attacks=budget, slices=["class"], controls=controls, progress=lambda *step: told.append(step)
    )
    done, totals, texts = zip(*told, strict=True)
    assert all(type(number) is int for number in (*done, *totals))
    assert list(done) == sorted(done) and done[0] == 0
    assert list(totals) == sorted(totals, reverse=True)  # what is skipped is no part of the whole
    assert len(set(totals)) == (2 if budget == "default" else 1)
    assert totals[-1] == done[-1] > done[-2]
    assert {"attack loss", "measuring", "controls", "measuring slices", "done"} <= set(texts)
    assert any(text.startswith("controls: ") for text in texts) == (controls == "default")


def test_what_takes_long_counts_for_much() -> None:
    """The same attack under another cost: its share of the steps grows."""

    def share(cost: float) -> float:
        told: list[tuple[int, int, str]] = []

        def dear(evidence: Evidence, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
            return rng.normal(size=len(evidence))

        dear.cost = cost  # type: ignore[attr-defined]
        divulge.audit(classifier(), attacks=["loss", dear], controls=(), progress=lambda *step: told.append(step))
        at = [text for *_, text in told].index("measuring")
        return told[at][0] / told[at][1]

    assert share(100.0) > share(1.0)
    assert share(100.0) > 0.9


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal.logger, "level", logging.INFO)  # as the command sets it
    with terminal.progress() as told:
        for at, done in ((0, 0), (100, 10), (200, 20), (300, 30)):  # 10 s a step, an update in 100 s
            now[0] = float(at)
            told(done, 100, "attack learned(mlp)")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stderr.getvalue())  # type: ignore[attr-defined]
    assert "attack learned(mlp)" in shown
    assert "about 11:40 left" in shown, shown  # 70 steps of 10 s


@pytest.mark.parametrize(("columns", "bar"), [(60, True), (59, False)])
def test_a_narrow_terminal_has_no_bar(monkeypatch: pytest.MonkeyPatch, columns: int, bar: bool) -> None:
    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(terminal.logger, "level", logging.INFO)
    with terminal.progress() as told:
        told(0, 100, "attack learned(mlp)")
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("━" in shown) == bar and "attack learned(mlp)" in shown and "left" not in shown


# ------------------------------------------------------------------------------------------------ asking the model


@dataclass(frozen=True)
class Asking:
    """Asks the model once, whoever is a member; scores by the answer."""

    gives: Any = None
    fails: bool = False
    asked: list[NDArray[np.bool_]] = field(default_factory=list)

    def __str__(self) -> str:
        return "asking"

    def prepare(self, evidence: Evidence, rng: np.random.Generator) -> dict[str, Any]:
        self.asked.append(evidence.member)
        if self.fails:
            raise Unavailable("there is no model to ask")
        answer = rng.normal(size=len(evidence)) + evidence.outputs[:, 0]
        return {"answer": answer if self.gives is None else self.gives}

    def __call__(self, evidence: Evidence, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        if "answer" not in evidence.signals:
            raise Unavailable("nobody answered")
        return evidence.signals["answer"]


def test_the_model_is_asked_once_an_audit_and_the_controls_see_the_answers() -> None:
    attack = Asking()
    report = divulge.audit(classifier(), attacks=["loss", attack])
    assert len(attack.asked) == 1
    found = {row["control"]: row for row in report.rows("controls")}
    assert found["null"]["status"] == found["positive"]["status"] == "ok"
    assert "every attack found" in found["positive"]["text"]
    assert not any(row["control"] == "positive" and "blind" in (row["reason"] or "") for row in report.rows("controls"))


def test_the_answers_are_those_of_the_audits_seed_and_of_no_other_attack() -> None:
    def auc(*attacks: Any, seed: int = 0) -> float:
        return (
            divulge.audit(classifier(), attacks=attacks, controls=(), seed=seed).estimate("auc", attack="asking").value
        )

    assert auc(Asking()) == auc("margin", Asking(), "loss") != auc(Asking(), seed=1)


@pytest.mark.parametrize("gives", [np.zeros(299), np.zeros((300, 1)), 3.0])
def test_answers_of_a_wrong_shape_are_refused(gives: Any) -> None:
    with pytest.raises(InputError, match="the attack asking prepared a signal 'answer' of shape") as raised:
        divulge.audit(classifier(), attacks=[Asking(gives)], controls=())
    assert raised.value.code == "DV057"


def test_a_model_that_cannot_be_asked_is_an_error_where_it_was_named_and_a_reason_where_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attack = Asking(fails=True)
    with pytest.raises(Unavailable, match="the attack asking cannot run: nobody answered"):
        divulge.audit(classifier(), attacks=[attack], controls=())
    monkeypatch.setitem(BUDGETS, "default", lambda evidence: [Threshold("loss"), attack])
    rows = divulge.audit(classifier(), controls=()).rows("attacks")
    assert rows[1] == {"attack": "asking", "status": "skipped", "reason": "nobody answered"}


def test_the_evidence_that_was_given_keeps_its_signals() -> None:
    evidence = classifier()
    report = divulge.audit(evidence, attacks=[Asking()], controls=())
    assert dict(evidence.signals) == {}
    assert report.meta["data"]["given"] == []


# --------------------------------------------------------------------------------------------------------- simulations

TEN = ["default", "learned(spline)", "learned(knn)", "entropy"]


def leak_free(seed: int, kind: str) -> Evidence:
    """Members and non-members of one distribution, outputs and inputs that depend on each other and the class."""
    members, nonmembers = {"200": (200, 200), "1,000": (1000, 1000), "20 and 2,000": (20, 2000)}.get(kind, (300, 300))
    rng = rng_of(seed)
    n = members + nonmembers
    unit = np.arange(n) // 4 if kind == "groups" else np.arange(n)  # of a group all but a hundredth is shared
    own = 0.1 if kind == "groups" else 0.0
    labels = rng.integers(0, 5, n)[unit]
    features = rng.standard_normal((n, 6))[unit] + own * rng.standard_normal((n, 6))
    logits = rng.standard_normal((n, 5))[unit] + own * rng.standard_normal((n, 5))
    logits[np.arange(n), labels] += 1.5 + features[:, 0] + 0.3 * labels
    member = (
        (np.arange(n) < members)[rng.permutation(n)] if kind != "groups" else (rng.permutation(n // 4) < n // 8)[unit]
    )
    if kind == "ties":
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        outputs, form = p.round(1), "probs"
        outputs[np.arange(n), outputs.argmax(axis=1)] += 1 - outputs.sum(axis=1)
    else:
        outputs, form = logits, "logits"
    groups = unit if kind == "groups" else None
    return Evidence(
        member, outputs=outputs.astype(np.float32), labels=labels, kind=form, features=features, groups=groups
    )


@slow
@whole
@pytest.mark.parametrize("kind", ["200", "1,000", "20 and 2,000", "groups", "ties"])
def test_ten_attacks_without_a_leak_raise_few_alarms(kind: str, record_property: Any) -> None:
    """The score in at most 2.5 % of audits, everything that is called a leak in at most 5 %."""
    found: Counter[str] = Counter()
    for seed in range(2 * SEEDS):
        report = divulge.audit(leak_free(seed, kind), attacks=TEN, slices=["class"], controls=(), seed=seed)
        ran = [row["attack"] for row in report.rows("attacks") if row["status"] == "ran"]
        assert len(ran) == 10
        codes = {row["code"] for row in report.findings if row["code"] in LEAKS}
        found.update({"score": report.score.low > 0, "leak": bool(codes), **dict.fromkeys(codes, True)})
    print(kind, 2 * SEEDS, dict(found))
    record_property("alarms", dict(found))
    assert not refuted(found["score"], 2 * SEEDS, 0.025)
    assert not refuted(found["DV103"], 2 * SEEDS, 0.025)
    assert not refuted(found["leak"], 2 * SEEDS, 0.05)


@slow
@whole
@pytest.mark.parametrize("leak", [0.0, 1.0])
def test_controls_of_the_default_set_call_little_that_is_sound_invalid(leak: float, record_property: Any) -> None:
    """INVALID in at most 2 % of audits, any warning in at most 10 %, where there is a leak and where not."""
    found: Counter[str] = Counter()
    for seed in range(SEEDS):
        evidence = leak_free(seed, "300")
        raised = evidence.outputs + leak * evidence.member[:, None] * np.eye(5)[evidence.labels]
        report = divulge.audit(replace(evidence, outputs=raised.astype(np.float32)), seed=seed)
        alarmed = {row["control"]: row["status"] for row in report.rows("controls")}
        found.update(f"{name} {status}" for name, status in alarmed.items() if status in ("warning", "invalid"))
        found.update({"INVALID": "invalid" in alarmed.values(), "warning": "warning" in alarmed.values()})
        found["found"] += report.score.low > 0
    print(leak, SEEDS, dict(found))
    record_property("alarms", dict(found))
    assert not refuted(found["INVALID"], SEEDS, 0.02)
    assert not refuted(found["warning"], SEEDS, 0.10)
    assert leak == 0 or found["found"] >= 0.9 * SEEDS


def plantable() -> Iterator[Any]:
    for attack in thorough(EVIDENCE["everything"]()):
        yield pytest.param(str(attack), marks=[slow] * any(word in str(attack) for word in ("boosting", "mlp")))


@pytest.mark.parametrize("name", list(plantable()))
def test_every_attack_finds_what_the_positive_control_plants(name: str) -> None:
    n, rng = 2000, rng_of(1)
    evidence = classifier(
        n=n,
        leak=0.0,
        features=rng.normal(size=(n, 5)),
        traces=2 * np.exp(-np.outer(rng.random(n) + 0.5, np.arange(6))),
        signals={"label_only": rng.integers(0, 11, n) / 10},
    )
    (row,) = [
        row
        for row in divulge.audit(evidence, attacks=[name], controls=["positive"]).rows("controls")
        if row["control"] == "positive"
    ]
    assert (row["status"], row["text"][:18]) == ("ok", "every attack found")
