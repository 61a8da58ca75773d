"""Reports of every kind, for the tests of the forms that a report takes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

import divulge
from divulge.report import Report, table_of

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![pixel](http://evil.example/p.png)",
    "[click](javascript:alert(1))",
    "http://evil.example",
    "www.evil.example",
    "evil.example",
    "me@evil.example",
    "@maintainer",
    "#123 GH-7 octo/repo#1 deadbeefcafe",
    "a|b\\|c\\",
    "``` fence",
    "`a``b`",
    "`",
    "\\`x`",
    "# heading",
    "> quote",
    "- item",
    "1. one",
    "---",
    "line\n\n# break\r\n::error::x",
    "\x1b[31m\x00\x85\u2028",
    "right\u202eto\u2066left\u200b\ufeff",
    "]]><!-- -->",
    "&amp;&#64;user",
    ":smile: $x$ ~~s~~ **b** _i_",
    "{0} {{1}} %0A,::",
    "\"'\\u0041",
    "...",
    "日本語 \U0001f600",
    "z" * 5000,
    " ",
)


def outputs_report(leak: float = 1.5, n: int = 1000, names: tuple[str, ...] = ("a", "b"), **options: object) -> Report:
    """An audit of a classifier's logits; leak: how much higher a member's true logit is."""
    rng = np.random.default_rng(3)
    member = np.arange(2 * n) < n
    labels = rng.integers(0, len(names), 2 * n)
    outputs = rng.normal(size=(2 * n, len(names)))
    outputs[np.arange(2 * n), labels] += leak * member + 1
    evidence = divulge.Evidence(member=member, outputs=outputs, labels=labels, kind="logits", classes=names)
    return divulge.audit(evidence, **{"slices": ["class", "correct"], **options})


def policy(inconclusive: str = "keep", waive: tuple[str, ...] = (), **gates: float) -> divulge.Policy:
    """Limits by the gates' names; each waived code with a reason."""
    limits = {name: {"max_lift" if name == "tail" else "max": limit} for name, limit in gates.items()}
    waivers = [{"code": code, "reason": "known, see <DPIA-17>"} for code in waive]
    return divulge.Policy.from_mapping({"gate": {**limits, "inconclusive": inconclusive}, "waive": waivers})


@cache
def leaking() -> Report:
    """FAIL."""
    return outputs_report().judged(policy(score=0.1, tail=2, auc=0.99, score_slice=0.2))


@cache
def sound() -> Report:
    """PASS."""
    return outputs_report(0.0).judged(policy(score=0.4, auc=0.9))


@cache
def undecided() -> Report:
    """INCONCLUSIVE."""
    own = outputs_report()
    return own.judged(policy(score=own.score.value, auc=0.9))


@cache
def invalid() -> Report:
    """INVALID: a control says so."""
    own = outputs_report()
    control = {"control": "shift", "code": "DV201", "status": "invalid", "value": 0.9, "low": 0.8, "high": 0.95}
    control |= {"text": "members and non-members are told apart without the model: AUC 0.900 [0.800, 0.950]"}
    rows = [control, *(row for row in own.rows("controls") if row["control"] != "shift")]
    return replace(own, tables={**own.tables, "controls": table_of("controls", rows)}).judged(policy(score=0.1))


@cache
def sliced() -> Report:
    """1,000 slices, FAIL."""
    rng = np.random.default_rng(5)
    n, count = 60_000, 1000
    member = np.arange(n) % 2 == 0
    site = np.array([f"site-{at:04d}" for at in range(count)])[rng.integers(0, count, n)]
    loss = rng.normal(size=n) - 1.5 * member * (site < "site-0400")
    evidence = divulge.Evidence(member=member, signals={"loss": -loss}, columns={"site": site})
    report = divulge.audit(evidence, slices=["site"], min_n=10, controls=())
    return report.judged(policy(score_slice=0.3))


@cache
def loss_only() -> Report:
    """A loss and nothing else, no policy: NOT_GATED, and the low false-positive rates cannot be measured."""
    n = np.arange(300)
    return divulge.audit(divulge.Evidence(member=n < 150, signals={"loss": np.sin(n * n) + 0.5 * (n < 150)}))


@cache
def hostile() -> Report:
    """Names from outside that would be markup wherever they could, in every place that takes a name; FAIL."""
    own = outputs_report(n=3000, names=HOSTILE, min_n=20, slices=["class"])
    renamed = dict(zip([row["attack"] for row in own.rows("attacks")], HOSTILE[:20], strict=False))
    text = " and ".join(HOSTILE)
    tables = {}
    for name, table in own.judged(policy(score=0.1, score_slice=0.1, waive=("DV101",))).tables.items():
        rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
        for row in rows:
            if "attack" in row:
                row["attack"] = renamed.get(row["attack"], row["attack"])
            row |= {key: f"{row[key]} {text}" for key in ("text", "fix", "reason") if row.get(key)}
        tables[name] = table_of(name, rows)
    controls = [
        {"control": bad, "code": "DV202", "status": status, "text": bad, "reason": bad}
        for bad, status in zip(HOSTILE, ["warning", "not run"] * len(HOSTILE), strict=False)
    ]
    tables["controls"] = table_of("controls", controls)
    meta = {**own.meta, "verdict": "FAIL", "policy": HOSTILE[2], "command": HOSTILE[2], "created": HOSTILE[20]}
    return Report(meta, tables)


KINDS = {
    "leaking": leaking,
    "sound": sound,
    "undecided": undecided,
    "invalid": invalid,
    "sliced": sliced,
    "loss_only": loss_only,
    "hostile": hostile,
}
