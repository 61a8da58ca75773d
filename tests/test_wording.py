"""What every form of a report says alike: who the attackers are, and what they know."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB

import divulge
from divulge.attacks import Learned
from divulge.evidence import References
from divulge.report import Report
from divulge.reporters.text import render
from divulge.wording import attackers

OUTPUTS = "an attacker who sees the model's outputs for the records in question, and their labels"


def mine(evidence, rng):
    return evidence.signals["label_only"].astype(float)


@cache
def audited(*attacks: object) -> Report:
    """An audit of 80 records, with whatever the attacks need."""
    n, rng = 80, np.random.default_rng(0)
    member, labels = np.arange(n) % 2 == 0, np.arange(n) // 2 % 2
    trained_on = np.tile([[True], [False]], (4, 1)) ^ (rng.random(n) < 0.5)
    evidence = divulge.Evidence(
        member,
        outputs=rng.normal(size=(n, 2)).astype(np.float32),
        labels=labels,
        kind="logits",
        signals={"label_only": rng.random(n)},
        columns={"age": rng.random(n)},
        traces=rng.random((n, 3)).astype(np.float32),
        references=References(signals={"loss": rng.normal(size=(8, n, 1)).astype(np.float32)}, trained_on=trained_on),
    )
    return divulge.audit(evidence, attacks=list(attacks), controls=())


KNOWN = {
    "loss": f"{OUTPUTS}.",
    "mine": f"{OUTPUTS}.",
    "traces(slope)": "an attacker who sees the loss after every epoch.",
    "label_only": "an attacker who sees labels only, many for each record.",
    "class_wise(label_only)": "an attacker who sees labels only, many for each record.",
    "class_wise(loss)": f"{OUTPUTS}; for class-wise thresholds one who also knows some non-members.",
    "quantile(class)": f"{OUTPUTS}; for quantiles by class one who also knows some non-members.",
    "quantile(linear, age)": f"{OUTPUTS}; for quantiles by input one who also knows some non-members, and what else",
    "learned(logistic)": f"{OUTPUTS}; for learned attacks one who also knows some records of both sides.",
    "learned(logistic, age)": f"{OUTPUTS}; for attacks learned from more than outputs one who also knows some records",
    "bayes": f"{OUTPUTS}; for learned attacks one who also knows some records of both sides.",
    "ratio": f"{OUTPUTS}; for attacks that use reference models one who also knows how to train such models, and has "
    "records of the kind. Reference models: 8, trained for this, each on some of the records.",
}
OWN = {"mine": mine, "bayes": Learned(GaussianNB(), name="bayes")}


@pytest.mark.parametrize("name", KNOWN)
def test_the_attackers_know_what_the_attacks_that_ran_need(name) -> None:
    assert attackers(audited(OWN.get(name, name))).startswith(f"The figures assume {KNOWN[name]}")


def test_attacks_of_several_kinds_have_an_attacker_each() -> None:
    text = attackers(audited("loss", "traces(slope)", "lira"))
    assert text.startswith(f"The figures assume {OUTPUTS}; for attacks on traces one who sees the loss after")
    assert "; for attacks that use reference models one who also knows" in text


@pytest.mark.parametrize("form", ["to_text", "to_markdown", "to_model_card", "to_html"])
def test_every_form_names_the_attackers_and_the_references(form) -> None:
    own = audited("loss", "ratio")
    text = render(own) if form == "to_text" else getattr(own, form)()
    plain = " ".join(text.replace("&#39;", "'").split())
    assert "also knows how to train such models, and has records of the kind" in plain
    assert "8, trained for this, each on some of the records" in plain
