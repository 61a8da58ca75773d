"""The terminal summary: right figures, any width, any encoding, no markup or control character from outside."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len

import divulge
from divulge.codes import CODES
from divulge.comparison import Comparison, compare
from divulge.report import Report, table_of
from divulge.reporters.text import render, render_code, render_codes, render_verdict
from divulge.reporters.text_runs import render_comparison
from divulge.wording import MARKS, figure, printable, rate

WIDTHS = (40, 60, 80, 120)
HOSTILE = (
    "[red]markup[/red]",
    "[/]",
    "\x1b[31mescape",
    "right\u202eto left",
    "line\nbreak\ttab",
    "z" * 5000,
    "日本語" * 100,
    "e\u0301" * 500,
    ":smile:",
    "\\backslash",
    "zero\u200bwidth",
)


def report(leak: float = 1.5, n: int = 1000, names: tuple[str, ...] = ("a", "b"), **options: object) -> Report:
    rng = np.random.default_rng(3)
    member = np.arange(2 * n) < n
    labels = rng.integers(0, len(names), 2 * n)
    outputs = rng.normal(size=(2 * n, len(names)))
    outputs[np.arange(2 * n), labels] += leak * member
    evidence = divulge.Evidence(member=member, outputs=outputs, labels=labels, kind="logits", classes=names)
    return divulge.audit(evidence, **{"slices": ["class"], "controls": (), **options})


@pytest.fixture(scope="module")
def leaky() -> Report:
    gates = {"score": {"max": 0.01}, "tail": {"max_lift": 2}, "auc": {"max": 0.99}, "score_slice": {"max": 0.2}}
    return report().judged(divulge.Policy.from_mapping({"gate": gates}))


@pytest.fixture(scope="module")
def hostile() -> Report:
    return report(names=HOSTILE, n=2000, slices=["class", "class*correct"], min_n=20)


def flat(text: str) -> str:
    """One line, single spaces: what is said, wherever it breaks."""
    return " ".join(text.split())


# ------------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("width", WIDTHS)
def test_it_says_verdict_figures_gates_slices_fix_and_limits(leaky, width) -> None:
    text = flat(render(leaky, width=width))
    score, tail = leaky.score, leaky.tail
    assert text.startswith("✗ FAIL")
    assert f"score {score.value:.3f} [{score.low:.3f}, {score.high:.3f}] 0 = chance" in text
    assert f"{tail.lift.value:.1f}× [{tail.lift.low:.1f}, {tail.lift.high:.1f}]" in text and "1 = chance" in text
    for attack in ("loss", "modified_entropy", "class_wise(loss)"):
        auc = leaky.estimate("auc", attack=attack)
        assert f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in text
    assert "TPR at 1 % FPR" in text
    assert "TPR at 0.1 % FPR: not measurable: needs 10,000 non-members at FPR 0.001, has 1,000" in text
    for row in leaky.rows("gates"):
        assert f"{MARKS[row['outcome']]} {row['outcome']}" in text
        assert f"≤ {row['limit']:g}" in text
    assert "class=a" in text
    assert flat(leaky.findings[0]["fix"]) in text
    assert "not a DP guarantee" in text and "not a probability that a given person was in the data" in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of", ["leaky", "hostile"])
def test_no_line_is_wider_than_the_page(request, of, width) -> None:
    lines = render(request.getfixturevalue(of), width=width).splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert all(line == line.rstrip() for line in lines)


def test_figures_stay_whole_from_60_columns_on(leaky) -> None:
    for width in (60, 80, 120):
        assert not re.search(r"\[[-\d.]+,\n", render(leaky, width=width))


def test_it_never_calls_a_model_harmless() -> None:
    for own in (report(0.0), report(0.0).judged(divulge.Policy.from_mapping({"gate": {"score": {"max": 0.9}}}))):
        words = render(own, width=80).lower()
        assert not re.search(r"\bsafe\b|anonymous|\bno leak|\bsecure\b", words)


def test_without_a_policy_it_says_that_nothing_was_gated() -> None:
    text = flat(render(report(), width=80))
    assert text.startswith("· NOT GATED nothing was gated") and "--policy" in text


@pytest.mark.parametrize(
    ("way", "verdict", "why"),
    [
        ("keep", "INCONCLUSIVE", "could not be decided"),
        ("fail", "FAIL", "could not be decided, and that fails, as asked"),
        ("pass", "PASS", "gates that could not be decided pass, as asked"),
    ],
)
def test_a_mapped_verdict_says_that_it_was_mapped(way, verdict, why) -> None:
    own = report()
    policy = divulge.Policy.from_mapping({"gate": {"score": {"max": own.score.value}, "inconclusive": way}})
    text = flat(render(own.judged(policy), width=120))
    assert text.startswith(f"{MARKS[verdict]} {verdict} ") and why in text
    assert "? INCONCLUSIVE score" in text


def test_an_invalid_control_stands_next_to_the_verdict() -> None:
    control = {"control": "shift", "code": "DV201", "status": "invalid", "text": "sides differ without the model"}
    own = report()
    own = replace(own, tables={**own.tables, "controls": table_of("controls", [control])}).judged(None)
    lines = render(own, width=80).splitlines()
    assert lines[0].startswith("! INVALID") and "sides differ without the model" in "".join(lines[1:4])


def test_undefined_figures_say_why_and_never_nan() -> None:
    for own in (report(n=60), report(n=150, metrics=["auc", "tpr@0.5"]), report(n=3, min_n=2), report(n=1)):
        gates = {"score": {"max": 0.1}, "tail": {"max_lift": 2}, "tpr@0.001": {"max": 0.1}}
        for judged in (own, own.judged(divulge.Policy.from_mapping({"gate": gates}))):
            text = flat(render(judged, width=80))
            assert not re.search(r"\bnan\b", text.lower())
            assert "tail not measurable: needs" in text


def test_constant_scores_are_chance_with_their_reason() -> None:
    member = np.arange(400) < 200
    own = divulge.audit(divulge.Evidence(member=member, signals={"loss": np.ones(400)}))
    assert "all scores are equal" in flat(render(own, width=80))


def test_slices_are_ordered_by_the_lower_end_of_their_score(hostile) -> None:
    rows = [row for row in hostile.rows("results") if row["metric"] == "score" and row["slice"] != "everyone"]
    worst = sorted(rows, key=lambda row: -row["low"])[:5]
    shown = re.findall(r"(-?\d\.\d{3}) \[(-?\d\.\d{3}), ", render(hostile, width=120).partition("exposed")[2])
    assert [value for value, _ in shown] == [f"{row['value']:.3f}".replace("-0.000", "0.000") for row in worst]


@pytest.mark.parametrize(
    ("findings", "first"),
    [
        ([("DV205", "warning"), ("DV101", "warning")], "DV101"),
        ([("DV101", "warning"), ("DV201", "fail")], "DV201"),
        ([("DV306", "info"), ("DV205", "warning")], "DV205"),
    ],
)
def test_what_to_try_first_is_the_most_urgent(findings, first) -> None:
    rows = [
        {
            "code": code,
            "severity": severity,
            "slice": "everyone",
            "attack": "loss",
            "text": "",
            "fix": "do",
            "waived": False,
        }
        for code, severity in findings
    ]
    own = report()
    own = replace(own, tables={**own.tables, "findings": table_of("findings", rows)})
    assert f"more: divulge explain {first}" in render(own, width=80)


def test_controls_that_did_not_run_are_named() -> None:
    assert "Not checked: groups: no groups were given" in flat(render(report(controls="default"), width=80))
    assert "No control looked" in flat(render(report(), width=80))


def test_a_waived_finding_is_counted_and_not_what_to_try_first() -> None:
    waivers = [{"code": code, "reason": "known"} for code in ("DV101", "DV102", "DV103")]
    policy = divulge.Policy.from_mapping({"gate": {"score": {"max": 0.01}}, "waive": waivers})
    text = flat(render(report().judged(policy), width=80))
    assert "waived:" in text and "more: divulge explain DV101" not in text


def test_a_report_reads_the_same_when_loaded_again(leaky, tmp_path) -> None:
    leaky.save(tmp_path / "run.json")
    assert render(Report.load(tmp_path / "run.json"), width=80) == render(leaky, width=80)


# -------------------------------------------------------------------------------------------- colour and encoding


def test_colour_changes_nothing_but_colour(leaky) -> None:
    coloured = render(leaky, width=80, color=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == render(leaky, width=80).split()


@pytest.mark.parametrize("setting", ["NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "JUPYTER_COLUMNS"])
def test_the_arguments_decide_and_not_the_environment(leaky, monkeypatch, setting) -> None:
    plain = render(leaky, width=80)
    monkeypatch.setenv(setting, "1")
    assert render(leaky, width=80) == plain
    assert "\x1b[" in render(leaky, width=80, color=True)


def test_the_width_is_the_terminals_within_limits(leaky, monkeypatch) -> None:
    for columns, width in {"60": 60, "10": 40, "500": 120}.items():
        monkeypatch.setenv("COLUMNS", columns)
        assert render(leaky) == render(leaky, width=width)


@pytest.mark.parametrize("of", ["leaky", "hostile"])
def test_ascii_is_ascii(request, of) -> None:
    own = request.getfixturevalue(of)
    assert render(own, width=60, ascii=True).isascii()
    assert render_comparison(compare(own, own, names=["日本", "\u202e"]), width=60, ascii=True).isascii()
    assert render_codes(width=60, ascii=True).isascii()


@pytest.mark.parametrize("width", WIDTHS)
def test_names_from_outside_are_shown_and_not_obeyed(hostile, width) -> None:
    text = render(hostile, width=width)
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert "z" * (width + 1) not in text


def test_hostile_names_are_legible() -> None:
    own = report(names=("[red]x[/red]", "\x1b[31my", "a\u202eb"))
    text = render(own, width=80)
    assert "class=[red]x[/red]" in text and r"class=\x1b[31my" in text and r"class=a\u202eb" in text


def test_a_hostile_attack_name_is_shown_and_not_obeyed() -> None:
    member = np.arange(400) < 200
    evidence = divulge.Evidence(member=member, signals={"[b]\x1b[1m\n": np.sin(np.arange(400.0)) + member})
    for width in WIDTHS:
        text = render(divulge.audit(evidence), width=width)
        assert r"[b]\x1b[1m\n" in text and "\x1b" not in text


@pytest.mark.parametrize("character", ["\x00", "\x7f", "\x9b", "\u2028", "\u2066", "\ufeff", "\ud800", "\U000e0001"])
def test_printable_shows_what_would_not_show(character) -> None:
    shown = printable(f"a{character}b")
    assert shown.isascii() and shown.isprintable() and shown.startswith("a\\")


# ----------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("metric", "numbers", "text"),
    [
        ("score", (-0.0001, -0.05, 0.05), "0.000 [-0.050, 0.050]"),
        ("score", (0.1, np.nan, np.nan), "0.100"),
        ("score", (np.nan, np.nan, np.nan), "not measurable"),
        ("tpr", (0.0, 0.0, 0.01), "0.0 % [0.0, 1.0]"),
        ("tpr", (0.00123, 0.0001, 0.002), "0.12 % [0.01, 0.20]"),
        ("tpr", (0.5, 0.4, 0.6), "50.0 % [40.0, 60.0]"),
        ("tail_lift", (8.94, 0.25, 17.7), "8.9 [0.2, 17.7]"),
        ("member_accuracy", (1.0, 0.995, 1.0), "100.0 % [99.5, 100.0]"),
    ],
)
def test_figures(metric, numbers, text) -> None:
    assert figure(metric, *numbers) == text


def test_rates() -> None:
    assert [rate(value) for value in (0.0001, 0.001, 0.01, 0.05)] == ["0.01 %", "0.1 %", "1 %", "5 %"]


# -------------------------------------------------------------------------------------------- comparison, codes


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_comparison_shows_every_run_at_every_width(leaky, width, count) -> None:
    names = [f"run{at}" for at in range(count)]
    comparison = compare(leaky, *[report(0.0)] * (count - 1), names=names)
    text = render_comparison(comparison, width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert all(name in text for name in names) and "FAIL" in text and "NOT GATED" in text
    row = comparison.rows()[1]
    assert f"{row['difference']:.3f}" in text and f"{row['diff_low']:.3f}" in text
    assert "nan" not in text


def test_hostile_run_names_are_shown_and_not_obeyed(leaky) -> None:
    for width in WIDTHS:
        text = render_comparison(compare(leaky, leaky, names=["[red]\x1b[1m", "z" * 300]), width=width)
        assert r"[red]\x1b[1m" in text and "z" * 30 not in text


def paired(kept: slice, seed: int = 0, **fields: object) -> Comparison:
    """Two runs over the same records; the second holds those that are kept."""
    n = np.arange(2000)
    given = [
        divulge.Evidence(member=n < 1000, ids=n, signals={"loss": np.sin(n * n) + leak * (n < 1000)})
        for leak in (0, 0.2)
    ]
    given[1] = replace(given[1].take(kept), **fields)
    reports = [divulge.audit(own, controls=(), seed=at) for own, at in zip(given, (0, seed), strict=True)]
    return compare(*reports, names=["old", "new"], evidence=given)


def test_runs_without_evidence_are_said_to_be_unpaired(leaky) -> None:
    assert "Unpaired: intervals of a change as of independent samples" in flat(render_comparison(compare(leaky, leaky)))


@pytest.mark.parametrize("width", WIDTHS)
def test_pairing_is_said_with_its_numbers(width) -> None:
    text = flat(render_comparison(paired(slice(None)), width=width))
    assert "new is paired with old by record: 1,000 members and 1,000 non-members are in both." in text
    assert "left out" not in text and "seed" not in text
    assert "As of independent samples where unpaired: lift at 1 % FPR, lift at 5 % FPR." in text


def test_what_a_paired_change_leaves_out_is_said() -> None:
    text = flat(render_comparison(paired(slice(100, None), seed=3)))
    assert "900 members and 1,000 non-members are in both, 100 records of old and 0 of new are left out." in text
    assert "Paired changes of new are of the records in both" in text
    assert "Paired changes of new are at seed 0, that of old; its values at 3." in text


def test_why_a_run_is_unpaired_is_said() -> None:
    text = flat(render_comparison(paired(slice(None), ids=np.arange(2000) + 1000)))
    assert "new is unpaired: only 0 members and 0 non-members are in both" in text
    assert "1,000 are members of the one and non-members of the other" in text and "too narrow" in text
    comparison = replace(paired(slice(None)), pairings=(None, None))
    assert "Unpaired: " in flat(render_comparison(comparison))


def test_a_verdict_is_one_line(leaky) -> None:
    score = leaky.score
    assert render_verdict(leaky) == f"FAIL  score {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_codes_are_explained_within_the_width(width) -> None:
    for code in CODES:
        text = render_code(code, width=width)
        assert max(map(len, text.splitlines())) <= width and flat(CODES[code].cause) in flat(text)


@pytest.mark.parametrize("width", range(60, 121, 5))
def test_no_line_breaks_inside_an_interval_or_before_a_percent_sign(leaky, width) -> None:
    text = render(leaky, width=width) + render_comparison(compare(leaky, leaky), width=width)
    assert "[" in text and "%" in text and "\ue000" not in text
    assert not re.search(r"\[[-\d.]+,\s*\n|\d\n\s*%", text)
    assert all(line.count("[") == line.count("]") for line in text.splitlines())
