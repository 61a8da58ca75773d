"""The pages as a browser shows them: right figures, nothing that axe-core objects to, no request, any width, print."""

from __future__ import annotations

import io
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import browser
import divulge
import reports
from browser import SCHEMES, WIDTHS, contrast, show
from divulge.comparison import Comparison, compare
from divulge.report import Report, Row
from divulge.slices import EVERYONE
from divulge.wording import MARKS, clipped

SECTIONS = {
    "verdict": "Verdict",
    "people": "If an attacker says “this person was in the data”, how often is that right?",
    "gates": "Does the model stay within the policy's limits?",
    "roc": "How many members does an attacker find at few false alarms?",
    "distributions": "Do members score differently from non-members?",
    "attacks": "Which attack works best, and does anything but the model explain it?",
    "slices": "Who is exposed more than others?",
    "records": "Is it everyone a little, or a few people a lot?",
    "baseline": "What changed against the baseline?",
    "tradeoff": "What does privacy cost in accuracy?",
    "validity": "Can this test be trusted, and what could it have seen?",
    "findings": "What was found, and what to do about it?",
    "coverage": "What was not tested?",
    "method": "How was this measured?",
    "meaning": "What does this score not mean?",
}


@cache
def demonstrated() -> dict[str, Report]:
    from divulge.demo import demonstrate

    with tempfile.TemporaryDirectory() as folder:
        return demonstrate(Path(folder)).reports


@cache
def series() -> Comparison:
    runs = [reports.outputs_report(leak).judged(reports.policy(score=0.2)) for leak in (0.0, 0.7, 1.5)]
    return compare(*runs, names=("noise 2", "noise 1", "no noise " + "and a long name " * 10))


KINDS = {"demo": lambda: demonstrated()["overfit"], **reports.KINDS}
PAGES = (*KINDS, "with others", "comparison", "twelve runs", "card")


def page_of(name: str) -> str:
    if name == "with others":
        return reports.leaking().to_html(baseline=reports.sound(), series=series())
    if name == "comparison":
        return series().to_html()
    if name == "twelve runs":
        runs = [reports.outputs_report(0.15 * at, n=300, controls=()) for at in range(12)]
        return compare(*runs, names=[f"noise {3 - 0.25 * at}" for at in range(12)]).to_html()
    if name == "card":
        card = reports.leaking()._repr_html_()
        return f'<!DOCTYPE html><html lang="en"><title>A notebook</title><main><h1>A notebook</h1>{card}</main></html>'
    return KINDS[name]().to_html()


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    driver = browser.started()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("pages")

    @cache
    def written(name: str) -> Path:
        file = folder / f"{name}.html"
        file.write_text(page_of(name), encoding="utf-8")
        return file

    return written


# -------------------------------------------------------------------------------------------------------- content


@pytest.mark.parametrize("kind", KINDS)
def test_fifteen_sections_stand_in_order_and_the_contents_lead_to_each(driver, path, kind) -> None:
    show(driver, path(kind))
    found = driver.execute_script(
        "return [...document.querySelectorAll('main > section')].map(s => [s.id, s.querySelector('h2').textContent])"
    )
    assert found == [[key, f"{at} {heading}"] for at, (key, heading) in enumerate(SECTIONS.items(), 1)]
    links = driver.execute_script("return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    assert links == [f"#{key}" for key in SECTIONS]


def test_a_click_in_the_contents_shows_its_section(driver, path) -> None:
    show(driver, path("demo"))
    for key in SECTIONS:
        driver.find_element("css selector", f"nav a[href='#{key}']").click()
        target, top = driver.execute_script(
            "const t = document.querySelector(':target'); return [t.id, t.getBoundingClientRect().top]"
        )
        assert target == key and 0 <= top < 900
        driver.execute_script("scrollTo(0, 0)")


@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_and_the_main_figures_are_the_reports(driver, path, kind) -> None:
    report = KINDS[kind]()
    show(driver, path(kind))
    word = driver.find_element("css selector", "#verdict .word").text
    assert word == f"{MARKS[report.verdict]} {report.verdict.value.replace('_', ' ')}"
    big = driver.execute_script(
        "return [...document.querySelectorAll('#verdict .big')].map(b => [b.textContent, b.dataset.n ?? ''])"
    )
    for (text, numbers), estimate in zip(big, (report.score, report.tail.lift), strict=True):
        if estimate.value == estimate.value:
            agrees(text.replace("×", ""), numbers, Figure("", estimate[:3]))
        else:
            assert text == "not measurable" and numbers == ""


class Figure(NamedTuple):
    """What a cell must show: a metric's value with its interval."""

    metric: str
    ends: tuple[float, ...]


SHARES = {"tpr", "tail_tpr", "ppv", "member_accuracy", "nonmember_accuracy"}  # written in per cent
POINTS = "points"  # differences of shares
FIGURE = re.compile(r"([+-]?[\d.,]+)( %)?(?: \[(-?[\d.]+), (-?[\d.]+)\])?")


def agrees(text: str, numbers: str, wanted: Figure) -> None:
    """The machine's numbers are the report's to six digits, and the text that people read says the same."""
    defined = [end for end in wanted.ends if end is not None and end == end]
    if not defined:
        assert text in ("not measurable", "") and numbers == ""
        return
    assert [float(number) for number in numbers.split()] == [float(f"{end:.6g}") for end in defined]
    if text == "<0.0001":
        assert defined[0] < 0.0001
        return
    match = FIGURE.fullmatch(text.replace("\u00a0", " "))
    assert match, text
    assert bool(match[2]) == (wanted.metric in SHARES), text
    written = [part.replace(",", "") for part in (match[1], match[3], match[4]) if part]
    assert len(written) == (3 if len(defined) == 3 else 1), "an interval has two ends"
    factor = 100 if wanted.metric in SHARES | {POINTS} else 1
    for part, end in zip(written, defined, strict=False):
        last = 10.0 ** -len(part.partition(".")[2])
        assert float(part) == pytest.approx(end * factor, abs=0.5000001 * last)


def whole(number: int) -> Figure:
    return Figure("", (number,))


def shown_name(name: str) -> str:
    return clipped(name, 80) if name.strip() else "(blank)"


def own(row: Row, *keys: str) -> tuple[float, ...]:
    return tuple(row[key] for key in keys or ("value", "low", "high"))


def of(report: Report, metric: str, fpr: float | None = None) -> dict[str, Figure]:
    return {
        row["attack"]: Figure(metric, own(row))
        for row in report.rows("results")
        if row["metric"] == metric and row["slice"] == EVERYONE and fpr in (None, row["fpr"])
    }


def people_table(report: Report) -> list[list[Any]]:
    tail = report.tail
    told = tail.tpr.value == tail.tpr.value and report.verdict != "INVALID"
    rows: list[list[Any]] = []
    for prior in (0.5, 0.1, 0.01) if told else ():
        members = round(1000 * prior)
        right = tuple(prior * lift / (prior * lift + 1 - prior) for lift in tail.lift[:3])
        named = members * tail.tpr.value, (1000 - members) * tail.fpr
        rows.append([f"{members} of 1,000", *map(whole, named), Figure("ppv", right)])
    return rows


def gates_table(report: Report) -> list[list[Any]]:
    metrics = {"score": "score", "score_slice": "score", "tail": "tail_lift", "auc": "auc"}
    return [
        [None, f"{MARKS[row['outcome']]} {row['outcome']}", Figure(metrics[row["gate"]], own(row)), None, None]
        for row in report.rows("gates")
    ]


def roc_table(report: Report) -> list[list[Any]]:
    fprs = dict.fromkeys(row["fpr"] for row in report.rows("results") if row["metric"] == "tpr")
    columns = [column for column in (of(report, "auc"), *(of(report, "tpr", fpr) for fpr in fprs)) if column]
    names = [row["attack"] for row in report.rows("attacks") if row["status"] == "ran"]
    return [[shown_name(name), *(column.get(name, "") for column in columns)] for name in names]


def distributions_table(report: Report) -> list[list[Any]]:
    attack = next(row["attack"] for row in report.rows("results") if row["metric"] == "score")
    return [
        [None, None, whole(row["members"]), whole(row["nonmembers"])]
        for row in report.rows("distribution")
        if row["attack"] == attack
    ]


def attacks_table(report: Report) -> list[list[Any]]:
    columns = [column for column in (of(report, metric) for metric in ("auc", "advantage", "epsilon")) if column]
    return [
        [shown_name(row["attack"]), row["status"], *(c.get(row["attack"], "") for c in columns), None]
        for row in report.rows("attacks")
    ]


def slices_table(report: Report) -> list[list[Any]]:
    about = {row["slice"]: row for row in report.rows("slices")}
    rows = [row for row in report.rows("results") if row["metric"] == "score" and row["slice"] != EVERYONE]
    undefined = [row for row in rows if row["low"] != row["low"]]
    rows = [*sorted((row for row in rows if row["low"] == row["low"]), key=lambda row: -row["low"]), *undefined]
    return [
        [
            shown_name(row["slice"]),
            Figure("score", own(row)),
            Figure("", (about[row["slice"]]["p"],)),
            whole(row["members"]),
            whole(row["nonmembers"]),
        ]
        for row in rows
    ]


def records_table(report: Report) -> list[list[Any]]:
    return [
        [None, Figure("ppv", own(row, "probability", "low", "high")), whole(row["members"]), whole(row["nonmembers"])]
        for row in (report.rows("bands") if report.verdict != "INVALID" else ())
    ]


def validity_table(report: Report) -> list[list[Any]]:
    return [[shown_name(row["control"]), None, None, None] for row in report.rows("controls")]


def comparison_table(found: Comparison) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in found.rows():
        change = POINTS if row["metric"] in SHARES else row["metric"]
        difference = Figure(change, own(row, "difference", "diff_low", "diff_high"))
        rows.append([None, None, Figure(row["metric"], own(row)), difference, None])
    return rows


def tradeoff_table(found: Comparison) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name in found.names:
        ours = {row["metric"]: row for row in found.rows() if row["run"] == name}
        shown = [Figure(metric, own(ours[metric])) for metric in ("score", "nonmember_accuracy", "member_accuracy")]
        rows.append([None, *shown])
    return rows


TABLES = {
    "people": people_table,
    "gates": gates_table,
    "roc": roc_table,
    "distributions": distributions_table,
    "attacks": attacks_table,
    "slices": slices_table,
    "records": records_table,
    "validity": validity_table,
}

READ = """
return Object.fromEntries([...document.querySelectorAll('main > section')].map(s => [s.id,
  [...s.querySelectorAll('table')].map(t => [...t.tBodies[0].rows].map(r =>
    [...r.cells].map(c => [c.textContent, c.dataset.n ?? ''])))]))
"""


def compared(shown: list[list[list[str]]], wanted: list[list[Any]]) -> None:
    """Every cell of every row."""
    assert len(shown) == len(wanted)
    for cells, expected in zip(shown, wanted, strict=True):
        for (text, numbers), cell in zip(cells, expected, strict=True):
            if isinstance(cell, Figure):
                agrees(text, numbers, cell)
            elif cell is not None:
                assert text == cell


@pytest.mark.parametrize("kind", KINDS)
def test_every_table_holds_the_reports_numbers_and_says_them(driver, path, kind) -> None:
    report = KINDS[kind]()
    show(driver, path(kind))
    shown = driver.execute_script(READ)
    for key, wanted in TABLES.items():
        rows = wanted(report)
        compared(shown[key][0] if shown[key] else [], rows)
    assert sum(len(tables) for tables in shown.values()) == sum(bool(wanted(report)) for wanted in TABLES.values())


def test_the_tables_of_several_runs_hold_the_comparisons_numbers(driver, path) -> None:
    show(driver, path("comparison"))
    shown = driver.execute_script(READ)
    compared(shown["runs"][0], comparison_table(series()))
    compared(shown["tradeoff"][0], tradeoff_table(series()))
    for table, report in zip(shown["roc"], series().reports, strict=True):
        compared(table, roc_table(report))
    show(driver, path("with others"))
    shown = driver.execute_script(READ)
    compared(shown["baseline"][0], comparison_table(compare(reports.sound(), reports.leaking())))
    compared(shown["tradeoff"][0], tradeoff_table(series()))


# -------------------------------------------------------------------------------------------------- accessibility


@pytest.fixture(scope="module")
def axe() -> str:
    return browser.axe_source()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_axe_objects_to_nothing(driver, path, axe, name, scheme) -> None:
    for width in WIDTHS:
        show(driver, path(name), width=width, scheme=scheme)
        assert browser.violations(driver, axe) == []


def test_axe_sees_what_is_wrong(driver, tmp_path, axe) -> None:
    page = tmp_path / "wrong.html"
    page.write_text("<!DOCTYPE html><html><title>Wrong</title><main><img src=''></main></html>", encoding="utf-8")
    show(driver, page)
    assert {found.partition(":")[0] for found in browser.violations(driver, axe)} >= {"html-has-lang", "image-alt"}


def test_the_keyboard_reaches_and_opens_everything(driver, path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(driver, path("demo"))
    seen = []
    for _ in range(60):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        here = driver.switch_to.active_element
        if here.tag_name == "body":
            break
        outline = here.value_of_css_property("outline-style")
        assert outline == "solid", "the place of the focus can be seen"
        if here.tag_name == "summary":
            opened = "return arguments[0].parentElement.open"
            assert not driver.execute_script(opened, here)
            here.send_keys(Keys.ENTER)
            assert driver.execute_script(opened, here)
            here.send_keys(Keys.ENTER)
        seen.append((here.tag_name, here.get_attribute("href") or ""))
    places = [href.partition("#")[2] for tag, href in seen if tag == "a"]
    assert places[0] == "main" and places[1:16] == list(SECTIONS)
    total = driver.execute_script("return document.querySelectorAll('summary').length")
    assert sum(tag == "summary" for tag, _ in seen) == total > 5


def test_the_skip_link_shows_itself_and_skips(driver, path) -> None:
    from selenium.webdriver.common.keys import Keys

    show(driver, path("demo"))
    skip = driver.find_element("css selector", ".skip")
    assert skip.rect["x"] < 0
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert skip.rect["x"] >= 0
    skip.send_keys(Keys.ENTER)
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert driver.execute_script("return document.activeElement.closest('main') !== null")


# ---------------------------------------------------------------------------------------------------- on its own


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_requested_and_nothing_runs(driver, path, name) -> None:
    driver.get("about:blank")
    browser.requests(driver)
    driver.get_log("browser")
    show(driver, path(name))
    driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.requests(driver) == [path(name).as_uri()]
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert driver.execute_script("return document.scripts.length") == 0
    attributes = driver.execute_script(
        "return [...new Set([...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()))]"
    )
    assert not {a for a in attributes if a.startswith("on")} | ({"src", "srcset", "action", "data"} & set(attributes))


@pytest.mark.parametrize("name", ["demo", "comparison"])
def test_the_page_forbids_scripts_and_loads(driver, path, name) -> None:
    show(driver, path(name))
    refused = driver.execute_async_script("""
        const done = arguments[0], refused = []
        addEventListener('securitypolicyviolation', e => {
          refused.push(e.effectiveDirective); if (refused.length == 2) done([refused, window.ran ?? null]) })
        const script = document.createElement('script'), image = document.createElement('img')
        script.textContent = 'window.ran = true'
        image.src = 'picture.png'
        document.body.append(script, image)
    """)
    assert sorted(refused[0]) == ["img-src", "script-src-elem"] and refused[1] is None


# ------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_wider_than_the_window(driver, path, name) -> None:
    for width in (360, *WIDTHS):
        show(driver, path(name), width=width)
        for opened in (False, True):
            driver.execute_script(f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})")
            wide = driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} of {width} pixels"


TEXTS = """
return [...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.getBoundingClientRect()
  return [svg.getAttribute('aria-label'), [...svg.querySelectorAll('text')].map(t => {
    const b = t.getBoundingClientRect(), m = t.getCTM()
    return [t.textContent, b.left - box.left, b.right - box.left, b.top - box.top, b.bottom - box.top,
            Math.abs(m.b) < 1e-6, box.width]})]})
"""


@pytest.mark.parametrize("name", PAGES)
def test_words_in_pictures_stay_inside_and_apart(driver, path, name) -> None:
    show(driver, path(name))
    pictures = driver.execute_script(TEXTS)
    assert pictures
    for _, texts in pictures:
        for text, left, right, *_, width in texts:
            assert left >= -1.5 and right <= width + 1.5, text
        upright = [text for text in texts if text[5]]
        for at, (first, *a) in enumerate(upright):
            for second, *b in upright[at + 1 :]:
                apart = min(a[1], b[1]) - max(a[0], b[0]) <= 1 or min(a[3], b[3]) - max(a[2], b[2]) <= 3
                assert apart, f"{first!r} over {second!r}"


@pytest.mark.parametrize("name", PAGES)
def test_a_picture_is_one_image_with_one_text(driver, path, name) -> None:
    show(driver, path(name))
    told = driver.execute_script("""
        const inner = s => [...s.querySelectorAll('*')].flatMap(e => e.getAttributeNames())
        return [...document.querySelectorAll('figure svg')].map(s => [s.getAttribute('role'),
          s.getAttribute('aria-label'), inner(s).filter(a => /^(role|aria|tabindex)/.test(a))])
    """)
    assert told
    for role, label, inner in told:
        assert role == "img" and len(label) > 40 and inner == []
        assert not re.search(r"\bnan\b|None|undefined|null\b|\[\]", label)
    others = driver.execute_script(
        "return [...document.querySelectorAll('svg:not(figure svg)')].map(s => s.ariaHidden)"
    )
    assert set(others) <= {"true"}


COLORS = """
const of = e => getComputedStyle(e)
return [...document.querySelectorAll('figure svg')].map(svg => {
  let e = svg
  while (of(e).backgroundColor == 'rgba(0, 0, 0, 0)') e = e.parentElement
  return [of(e).backgroundColor, [...svg.querySelectorAll('text')].map(t => [t.textContent, of(t).fill])]})
"""


def color(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in re.findall(r"[\d.]+", text)[:3])


@pytest.mark.parametrize("name", ["demo", "undecided", "with others", "comparison", "card"])
def test_words_in_pictures_can_be_read_in_light_and_dark(driver, path, name) -> None:
    seen = {}
    for scheme in SCHEMES:
        show(driver, path(name), scheme=scheme)
        seen[scheme] = driver.execute_script(COLORS)
        words = [(paper, *word) for paper, texts in seen[scheme] for word in texts]
        assert words
        for paper, text, fill in words:
            assert contrast(color(fill), color(paper)) >= 4.5, text
    for (light, texts), (dark, others) in zip(seen["light"], seen["dark"], strict=True):
        assert light != dark
        assert all(first[1] != second[1] for first, second in zip(texts, others, strict=True))


# --------------------------------------------------------------------------------------------------------- prints


@pytest.mark.parametrize("kind", ["demo", "sliced", "with others", "comparison"])
def test_it_prints_on_a4(driver, path, kind) -> None:
    try:
        from pypdf import PdfReader
    except ImportError:
        browser.needed(None, "pypdf")
    show(driver, path(kind), scheme="dark")
    sheets = PdfReader(io.BytesIO(browser.printed(driver))).pages
    assert 1 < len(sheets) <= 20
    assert {
        (round(sheet.mediabox.width / 72 * 25.4), round(sheet.mediabox.height / 72 * 25.4)) for sheet in sheets
    } == {(210, 297)}
    text = unicodedata.normalize("NFKC", " ".join(" ".join(sheet.extract_text() for sheet in sheets).split()))
    verdict = KINDS[kind]().verdict if kind in KINDS else divulge.Verdict.FAIL
    assert verdict.value in text and "not a DP guarantee" in text
    if kind == "demo":
        assert all(heading in text for heading in SECTIONS.values())
        scores = [row for row in demonstrated()["overfit"].rows("results") if row["metric"] == "score"]
        for row in scores:  # of tables that are closed on the screen
            assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in text


def test_it_can_be_looked_at(driver, path, tmp_path) -> None:
    """Both modes at both widths, in a folder of the test's or the one that DIVULGE_SCREENSHOTS names."""
    wanted = os.environ.get("DIVULGE_SCREENSHOTS")
    folder = Path(wanted or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAGES if wanted else ("demo",):
        for width in WIDTHS:
            shots = []
            for scheme in SCHEMES:
                show(driver, path(name), width=width, scheme=scheme)
                shots.append(browser.screenshot(driver))
                (folder / f"{name}-{width}-{scheme}.png").write_bytes(shots[-1])
            assert shots[0] != shots[1]
            assert [int.from_bytes(shot[16:20], "big") for shot in shots] == [width, width]
