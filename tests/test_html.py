"""The pages as files: the same bytes, small, nothing of a record, no markup from outside, true words on odd reports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest

import divulge
import reports
from divulge.comparison import compare
from divulge.metrics import Estimate
from divulge.report import Report, table_of
from reports import KINDS, outputs_report, policy

MEGABYTE = 1_000_000
HTML = "{http://www.w3.org/1999/xhtml}"

Element = Any


@cache
def parsed(text: str) -> Element:
    """The page's tree; any parse error of HTML5 is an error."""
    return html5lib.HTMLParser(strict=True).parse(text)


def elements(tree: Element) -> Iterator[Element]:
    return (element for element in tree.iter() if isinstance(element.tag, str))


def words(text: str, key: str | None = None) -> str:
    """What people read on a page or in one of its sections, in one line."""
    tree = parsed(text)
    if key is not None:
        tree = next(element for element in elements(tree) if element.get("id") == key)
    skipped = {HTML + "style", HTML + "script"}
    return " ".join(" ".join(_texts(tree, skipped)).split())


def _texts(element: Element, skipped: set[str]) -> Iterator[str]:
    if not isinstance(element.tag, str) or element.tag in skipped:
        return
    yield element.text or ""
    for child in element:
        yield from _texts(child, skipped)
        yield child.tail or ""


@cache
def series() -> Any:
    audits = [outputs_report(0.4 * at, n=300, controls=()).judged(policy(score=0.2)) for at in range(3)]
    return compare(*audits, names=("a", "b", "c"))


@cache
def pages() -> dict[str, str]:
    found = {name: report().to_html() for name, report in KINDS.items()}
    found["with others"] = reports.leaking().to_html(baseline=reports.sound(), series=series())
    found["comparison"] = series().to_html()
    return found


PAGES = (*KINDS, "with others", "comparison")

# ---------------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_report_gives_the_same_bytes(kind, tmp_path) -> None:
    report = KINDS[kind]()
    text = report.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes().decode() == text == pages()[kind]
    report.save(tmp_path / "run.json")
    assert Report.load(tmp_path / "run.json").to_html() == text


FRESH = """
import hashlib, numpy as np, divulge
n = np.arange(600)
sites = np.array(["north", "south", "<b>east</b>"])[n % 3]
def made(leak):
    loss = np.sin(n * n) + leak * (n < 300)
    evidence = divulge.Evidence(member=n < 300, signals={"loss": loss, "other": -loss}, columns={"site": sites})
    return divulge.audit(evidence, slices=["site"], attacks=["loss", "other"], controls=())
one, two = made(0.2), made(0.6)
both = divulge.compare(one, two, names=("one", "two"))
for text in (one.to_html(baseline=two, series=both), both.to_html(), one._repr_html_()):
    print(hashlib.sha256(text.encode()).hexdigest(), "1970-01-01T00:00:00" in text)
"""


def test_another_process_gives_the_same_bytes() -> None:
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": "0"}
        done = subprocess.run(
            [sys.executable, "-c", FRESH], capture_output=True, text=True, env=environment, timeout=300, check=True
        )
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert [line.split()[1] for line in outputs[0].splitlines()] == ["True", "False", "False"]


def test_a_page_that_cannot_be_written_is_refused(tmp_path) -> None:
    with pytest.raises(divulge.InputError, match="DV035"):
        reports.sound().to_html(tmp_path / "nowhere" / "report.html")


@cache
def longest() -> Report:
    """1,000 slices with names of 10,000 characters, each with a finding."""
    own = reports.sliced()
    tables = {name: dict(table) for name, table in own.tables.items()}
    for table in ("results", "slices"):
        tables[table]["slice"] = [
            name if name == "everyone" else name + "\u200b\u202e" * 5000 for name in tables[table]["slice"]
        ]
    names = [name for name in tables["slices"]["slice"] if name != "everyone"]
    finding = {"code": "DV102", "severity": "warning", "attack": "z" * 10_000, "fix": "f" * 10_000, "waived": False}
    found = [{**finding, "slice": name, "text": f"in {name} " + "x" * 10_000} for name in names]
    meta = {**own.meta, "policy": "p" * 10_000, "command": "c" * 100_000, "slices": names}
    return Report(meta, {**tables, "findings": table_of("findings", found)})


@pytest.mark.parametrize("report", [reports.sliced, longest])
def test_a_page_of_1000_slices_is_under_a_megabyte(report) -> None:
    own = report()
    assert sum(row["slice"].startswith("site=") for row in own.rows("slices")) == 1000
    text = own.to_html(baseline=reports.sound(), series=series())
    assert len(text.encode()) < MEGABYTE
    assert text.count("site=site-0999") >= 1


def test_a_page_of_12_runs_is_under_a_megabyte() -> None:
    own = reports.leaking()
    both = compare(*[own] * 12, names=[f"{at}{'n' * 10_000}" for at in range(12)])
    assert len(both.to_html().encode()) < MEGABYTE


# ----------------------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_valid_html5_and_its_ids_are_one_of_a_kind(page) -> None:
    tree = parsed(pages()[page])
    found = [element.get("id") for element in elements(tree) if element.get("id")]
    assert len(found) == len(set(found)) > 5
    for element in elements(tree):
        for name in ("aria-labelledby", "href"):
            if element.get(name) and element.tag != HTML + "link":
                assert element.get(name).removeprefix("#") in found
    assert tree.get("lang") == "en"
    assert [element.tag for element in elements(tree)].count(HTML + "main") == 1


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_no_address_and_nothing_that_runs(page) -> None:
    tree = parsed(pages()[page])
    for element in elements(tree):
        assert element.tag.rpartition("}")[2] not in {
            "script",
            "iframe",
            "object",
            "embed",
            "img",
            "link",
            "base",
            "form",
        }
        for name, value in element.attrib.items():
            assert not str(name).startswith("on")
            if str(name).rpartition("}")[2] in ("href", "src"):
                assert value.startswith("#")
            if name not in ("aria-label", "content"):
                assert "url(" not in value.replace("url(#", "")
    style = "".join(element.text for element in elements(tree) if element.tag == HTML + "style")
    assert "url(" not in style and "@import" not in style and "http" not in style
    policies = [e.get("content") for e in elements(tree) if e.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_a_notebooks_card_is_a_fragment_with_one_picture() -> None:
    for report in KINDS.values():
        text = report()._repr_html_()
        fragment = html5lib.HTMLParser(strict=True).parseFragment(text)
        tags = Counter(element.tag.rpartition("}")[2] for element in elements(fragment))
        assert tags["figure"] <= 1 and not {"html", "body", "script", "h1"} & set(tags)
        assert len(text.encode()) < 60_000
        assert report().verdict.value.replace("_", " ") in text


def test_headings_are_never_a_level_too_deep() -> None:
    for text in pages().values():
        levels = [int(e.tag[-1]) for e in elements(parsed(text)) if re.fullmatch(re.escape(HTML) + "h[1-6]", e.tag)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(second <= first + 1 for first, second in pairwise(levels))


# ------------------------------------------------------------------------------------------------ names from outside

HOSTILE = (
    *(name for name in reports.HOSTILE if name.strip()),
    "--><img src=x onerror=alert(1)>",
    "</title></style></svg><script>alert(2)</script>",
    "' onmouseover='alert(3)",
    '" style="position:fixed" x="',
    "{{7*7}}{% raw %}${7*7}",
    "<!--",
    "<![CDATA[x]]>",
    "\x00\x01\x08\x0b\x0c\x1f\x7f\ufdd0\uffff",
    "مرحبا שלום",
    "\U0001f469\u200d\U0001f52c" * 9,
    "&lt;script&gt;",
    "javascript:alert(1)",
    "x" * 10_000,
)
HARMLESS = tuple(f"name{at:02d}" for at in range(len(HOSTILE)))


def named(names: tuple[str, ...]) -> tuple[str, str, str]:
    """A report's page, a comparison's page and a card that take their names, in every place there is, from these."""
    rng = np.random.default_rng(11)
    n, count = 60 * len(names), len(names)
    member = np.arange(n) % 2 == 0
    labels = np.arange(n) // 2 % count
    outputs = rng.normal(size=(n, count)) + 2.0 * (labels[:, None] == np.arange(count)) * (1 + member[:, None])
    column, attack, source, command, model = names[0], names[1], names[2], names[3], names[4]
    signal = outputs[np.arange(n), labels]
    attacks: list[Any] = ["loss"]
    for at, own in enumerate((attack, *names[5:8])):

        def score(evidence: Any, rng: Any, at: int = at) -> Any:
            return signal + np.random.default_rng(at).normal(size=len(signal)) * at

        score.__name__ = own
        attacks.append(score)
    evidence = divulge.Evidence(
        member=member,
        outputs=outputs,
        labels=labels,
        kind="logits",
        classes=names,
        columns={column: np.array(names, object)[labels].astype(str)},
    )
    made = divulge.audit(evidence, attacks=attacks, slices=["class", column], min_n=20, name=model, controls=())
    limits = {"gate": {"score": {"max": 0.1}, "score_slice": {"max": 0.1}}}
    made = made.judged(divulge.Policy.from_mapping(limits, source=source))
    texts = [{**row, "text": f"{row['text']} {names[8]}", "fix": f"{row['fix']} {names[9]}"} for row in made.findings]
    tables = {**made.tables, "findings": table_of("findings", texts)}
    made = Report({**made.meta, "command": command, "created": "2026-01-01T00:00:00+00:00"}, tables)
    both = compare(made, made, made, names=(names[0], names[1], names[-1]))
    return made.to_html(baseline=made, series=both), both.to_html(), made._repr_html_()


def inventory(text: str) -> Counter[tuple[str, tuple[str, ...]]]:
    """Elements with their attributes' names, and how many there are of each."""
    return Counter((element.tag, tuple(sorted(map(str, element.attrib)))) for element in elements(parsed(text)))


def test_names_from_outside_add_no_element_and_no_attribute() -> None:
    rotated = [HOSTILE[at:] + HOSTILE[:at] for at in range(0, len(HOSTILE), 11)]
    wanted = named(HARMLESS)
    for names in rotated:
        for text, harmless in zip(named(names)[:2], wanted, strict=False):
            assert inventory(text) == inventory(harmless)


def test_names_from_outside_can_be_read_and_cannot_be_obeyed() -> None:
    text, several, card = named(HOSTILE)
    shown = words(text)
    assert "<script>alert(1)</script>" in shown and "{{7*7}}" in shown
    assert "--><img src=x onerror=alert(1)>" in shown
    for page in (text, several, card):
        assert not set(page) & {
            chr(code) for code in (0, 1, 8, 11, 12, 31, 127, 0x202E, 0x2066, 0xFDD0, 0xFFFF, 0xFEFF)
        }
        assert "x" * 200 not in page and "z" * 200 not in page
    for name in ("مرحبا שלום", "日本語"):
        holders = [e for e in elements(parsed(text)) if e.tag == HTML + "bdi" and name in (e.text or "")]
        assert holders, "a name of another direction turns nothing else round"


# ---------------------------------------------------------------------------------------------------- no record's data


def test_nothing_of_a_single_record_is_on_a_page() -> None:
    rng = np.random.default_rng(0)
    n = 1200
    member = np.arange(n) % 2 == 0
    features = rng.normal(size=(n, 2))
    loss = rng.exponential(size=n) + 0.6 * ~member
    evidence = divulge.Evidence(
        member=member,
        signals={"loss": -loss},
        ids=np.array([f"patient-{at:05d}" for at in range(n)]),
        groups=np.array([f"family-{at // 2:05d}" for at in range(n)]),
        features=features,
        columns={
            "site": np.array(["north", "south"])[np.arange(n) % 3 // 2],
            "diagnosis": np.array([f"icd-{at}" for at in range(n)]),
        },
    )
    own = divulge.audit(evidence, slices=["site", "loss/10"])
    both = compare(own, own, names=("a", "b"), evidence=(evidence, evidence))
    for text in (own.to_html(baseline=own, series=both), both.to_html(), own._repr_html_()):
        assert not re.search(r"patient-\d|family-\d|icd-\d", text)
        numbers = set(re.findall(r"\d+\.\d{4,}", text))
        for values in (loss, features):
            exact = {f"{abs(value):.{digits}g}" for value in values.ravel() for digits in (6, 8, 17)}
            assert not numbers & {number for number in exact if len(number) > 6}
    assert "north" in own.to_html() and "diagnosis" in own.to_html()


# ----------------------------------------------------------------------------------------------------- odd reports


def loss_report(n: int = 2000, **options: Any) -> Report:
    rng = np.random.default_rng(0)
    member = np.arange(n) < n // 2
    evidence = divulge.Evidence(member=member, signals={"loss": -(rng.exponential(size=n) + 0.5 * ~member)})
    return divulge.audit(evidence, **{"controls": (), **options})


def nan_everywhere() -> Report:
    own = reports.leaking()
    rows = [row | dict.fromkeys(("value", "low", "high"), np.nan) for row in own.rows("results")]
    rows = [row | {"reason": "the reason why"} for row in rows]
    bands = [row | dict.fromkeys(("probability", "low", "high"), np.nan) for row in own.rows("bands")]
    tables = {"results": table_of("results", rows), "bands": table_of("bands", bands)}
    return replace(own, tables={**own.tables, **tables}).judged(policy(score=0.1))


def older() -> Report:
    own = reports.leaking()
    kept = {name: table for name, table in own.tables.items() if name not in ("distribution", "bands")}
    return replace(own, tables=kept)


def mostly_skipped() -> Report:
    own = loss_report()
    rows = [
        *own.rows("attacks"),
        *({"attack": f"lira {at}", "status": "skipped", "reason": "no fits"} for at in (1, 2)),
    ]
    return replace(own, tables={**own.tables, "attacks": table_of("attacks", rows)})


def regression() -> Report:
    rng = np.random.default_rng(0)
    member, target = np.arange(2000) < 1000, rng.normal(size=2000)
    guess = target + rng.normal(size=2000) * np.where(member, 0.5, 1)
    return divulge.audit(divulge.Evidence(member=member, outputs=guess, labels=target), controls=())


def multilabel() -> Report:
    rng = np.random.default_rng(0)
    member, labels = np.arange(2000) < 1000, rng.integers(0, 2, (2000, 4))
    logits = rng.normal(size=(2000, 4)) + labels * np.where(member, 2, 1)[:, None]
    return divulge.audit(divulge.Evidence(member=member, outputs=logits, labels=labels, kind="logits"), controls=())


def constant() -> Report:
    member = np.arange(400) < 200
    return divulge.audit(divulge.Evidence(member=member, signals={"loss": np.ones(400)}))


def median_gap(roc: Any, error: float) -> Estimate:
    """A metric of a person's own."""
    return Estimate(0.25, 0.125, 0.5)


ODD = {
    "no policy": (loss_report, {"gates": "Nothing was gated: there is no policy", "verdict": "NOT GATED"}),
    "no AUC": (
        lambda: loss_report(metrics=["tpr@0.01"]),
        {
            "attacks": "No AUC was asked for",
            "roc": "TPR at 1 % FPR",
            "distributions": "The further the two shapes part",
        },
    ),
    "no slices": (loss_report, {"slices": "No slice was asked for, or none is large enough."}),
    "60 a side": (
        lambda: outputs_report(n=60, min_n=10).judged(policy(tail=3)),
        {
            "verdict": "not measurable needs 200 non-members at FPR 0.05, has 60",
            "people": "The share of members who can be told is not measurable: needs 200 non-members at FPR 0.05",
            "gates": "? INCONCLUSIVE: needs 200 non-members",
            "roc": "Rates at few false alarms are not measurable: needs 200 non-members",
        },
    ),
    "3 a side": (
        lambda: outputs_report(n=3, min_n=2),
        {"records": "too few of them", "verdict": "fewer than 50 records"},
    ),
    "1 a side": (lambda: outputs_report(n=1), {"verdict": "too few rows", "slices": "none is large enough"}),
    "regression": (regression, {"verdict": "regression", "method": "1 a record"}),
    "multilabel": (multilabel, {"verdict": "multilabel", "method": "4 a record"}),
    "constant": (
        constant,
        {"records": "too few of them or of their scores", "roc": "all scores are equal"},
    ),
    "user metric": (lambda: loss_report(metrics=["auc", median_gap]), {"roc": "AUC", "verdict": "NOT GATED"}),
    "nan": (
        nan_everywhere,
        {
            "verdict": "Vulnerability score not measurable the reason why",
            "people": "is not measurable: the reason why.",
            "roc": "Rates at few false alarms are not measurable: the reason why.",
            "attacks": "No AUC is measurable: the reason why.",
            "slices": "No slice's score is measurable, of 3.",
            "records": "too few of them or of their scores, or an older run file",
        },
    ),
    "older": (
        older,
        {"distributions": "The report holds no distribution of scores of 'loss'.", "records": "an older run file"},
    ),
    "one attack ran": (
        mostly_skipped,
        {"attacks": "lira 2 skipped", "coverage": "Skipped: lira 1 : no fits .", "roc": "loss"},
    ),
    "waived": (
        lambda: outputs_report().judged(policy(score=0.1, auc=0.9, waive=("DV101",))),
        {
            "verdict": "a limit is exceeded, and what exceeds it is waived",
            "gates": "✓ PASS: every figure above the limit is waived",
            "findings": "waived",
        },
    ),
    "invalid": (
        reports.invalid,
        {
            "verdict": "INVALID , control shift: members and non-members are told apart without the model",
            "people": "The test itself cannot be trusted, so it says nothing about people.",
            "attacks": "Without the model, the two sides are told apart at 0.900 [0.800, 0.950] (square).",
        },
    ),
    "sound": (
        reports.sound,
        {
            "verdict": "every limit holds",
            "slices": "0 of 4 slices leak credibly",
            "records": "Bands at chance mean that nobody stands out",
            "findings": "Nothing: no finding.",
        },
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_report_is_shown_in_true_words(name) -> None:
    of, wanted = ODD[name]
    text = of().to_html()
    for key, said in wanted.items():
        assert said in words(text, key)
    assert not re.search(r"\b(nan|NaN|None(?! was given)|inf|Infinity)\b", words(text))
    assert not re.search(r"  |\.\.(?!\.)|\[\]|\(\)| ,(?! control)", words(text).replace(" , ", ", "))
    assert of()._repr_html_()


@pytest.mark.parametrize("name", ["lira(shrunk)", "ratio", "rmia(gamma=4)", "difficulty", "attack_r", "references"])
@pytest.mark.parametrize("status", ["ran", "skipped"])
def test_attacks_with_reference_models_are_untested_unless_one_ran(name, status) -> None:
    own = loss_report()
    rows = [
        *own.rows("attacks"),
        {"attack": name, "status": status, "reason": "no models" if status == "skipped" else None},
    ]
    page = replace(own, tables={**own.tables, "attacks": table_of("attacks", rows)}).to_html()
    assert ("attacks with reference models" in words(page, "coverage")) == (status == "skipped")


def test_a_page_never_calls_a_model_harmless() -> None:
    for of in (reports.sound, constant):
        assert not re.search(r"\bsafe\b|anonymous|\bno leak|\bsecure\b|harmless", words(of().to_html()).lower())


def test_a_baseline_is_shown_or_why_not() -> None:
    own = reports.leaking()
    shown = words(own.to_html(baseline=reports.sound()), "baseline")
    gap = own.score.value - reports.sound().score.value
    assert f"this run: the score differs by +{gap:.3f}" in shown
    assert words(own.to_html(), "baseline").endswith("None was given: --baseline run.json shows an earlier run here.")
    other = outputs_report(n=300, confidence=0.9, controls=())
    shown = words(own.to_html(baseline=other), "baseline")
    assert "The baseline cannot be shown: the runs have intervals of different confidence" in shown


def test_twelve_runs_are_shown_and_told_apart_whatever_they_are_called() -> None:
    own = outputs_report(n=300, controls=()).judged(policy(score=0.2))
    names = [*("z" * length for length in range(500, 511)), " "]
    text = compare(*[own] * 12, names=names).to_html()
    headings = [e for e in elements(parsed(text)) if e.tag == HTML + "h3"]
    called = ["".join(e.itertext()) for e in headings]
    assert len(called) == len(set(called)) == 12 and "(blank)" in called
    assert "The first 5 of 12 runs" in words(text, "roc")
    assert "12 runs: privacy comparison" in words(text)


def test_runs_without_scores_are_compared_in_true_words() -> None:
    own = loss_report(n=20)
    text = compare(own, own, names=("one", "two")).to_html()
    assert "needs two runs or more with a valid test" in words(text, "tradeoff").lower()
    assert not re.search(r"\bnan\b|\bNone\b", words(text))


def test_a_page_does_not_say_where_it_was_made() -> None:
    for text in pages().values():
        assert str(Path.cwd()) not in text and str(Path.home()) not in text


def test_a_run_whose_test_is_invalid_is_no_result_among_others() -> None:
    text = compare(reports.invalid(), reports.leaking(), reports.sound(), names=("broken", "leaks", "holds")).to_html()
    said = words(text, "tradeoff")
    assert "The lowest score is that of holds" in said and "Left out: 1 of 3 runs, whose test is invalid" in said
    assert "the figures on this page say nothing about the model" in words(text, "verdicts")
    assert "the baseline's test is INVALID" in words(reports.leaking().to_html(baseline=reports.invalid()), "baseline")
    page = reports.invalid().to_html()
    for section in ("people", "records"):
        assert "it says nothing about people" in words(page, section)


def test_what_is_no_report_is_refused() -> None:
    for arguments in (
        {"baseline": compare(reports.leaking(), reports.sound())},
        {"series": [reports.leaking(), reports.sound()]},
    ):
        with pytest.raises(divulge.InputError) as error:
            reports.leaking().to_html(**arguments)
        assert error.value.code == "DV061"


def test_figures_do_not_break_at_a_lines_end() -> None:
    text = reports.leaking().to_html()
    shown = re.sub(r"<(style|svg).*?</\1>|<[^>]*>", "", text, flags=re.DOTALL)
    assert re.search(r"\d\u00a0%", shown) and re.search(r"\[[\d.]+,\u00a0[\d.]+\]", shown)
    assert not re.search(r"\d %|\[[-\d.]+, [-\d.]+\]", shown)


def test_an_attack_that_was_skipped_is_marked_so_in_the_method() -> None:
    own = reports.loss_only()
    rows = [{"attack": "quantile(linear)", "status": "skipped", "reason": "no features"}, *own.rows("attacks")]
    meta = {**own.meta, "attacks": {"quantile(linear)": "Quantile()", **own.meta["attacks"]}}
    shown = words(
        replace(own, meta=meta, tables={**own.tables, "attacks": table_of("attacks", rows)}).to_html(), "method"
    )
    assert "attack quantile(linear) skipped: Quantile()" in shown and "attack loss Threshold" in shown
