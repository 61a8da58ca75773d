"""Markdown: what it says, what it leaves out over a limit, and that no name becomes markup, a link or a mention."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

import divulge
from divulge.report import Report, table_of
from divulge.reporters import gfm
from divulge.reporters.markdown import COMMENT, LEAST, SUMMARY, render
from reports import HOSTILE, KINDS, outputs_report, policy

GFM = MarkdownIt("gfm-like")
HARMLESS = {
    "heading", "paragraph", "inline", "text", "code_inline", "table", "thead", "tbody", "tr", "th", "td",
    "bullet_list", "list_item", "softbreak",
}  # fmt: skip


def tokens(text: str) -> list[Token]:
    """All tokens, those within paragraphs too."""
    found = GFM.parse(text)
    return found + [child for token in found for child in token.children or []]


def kinds(text: str) -> set[str]:
    return {re.sub("_(open|close)$", "", token.type) for token in tokens(text)}


def words(text: str) -> str:
    """What stands outside of code: what GitHub looks for mentions, issues and addresses in."""
    return "\n".join(token.content for token in tokens(text) if token.type == "text")


def tables(text: str) -> list[list[int]]:
    """The number of cells of each row of each table."""
    found: list[list[int]] = []
    for token in GFM.parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append(0)
        elif token.type in ("th_open", "td_open"):
            found[-1][-1] += 1
    return found


@pytest.mark.parametrize("limit", [COMMENT, SUMMARY])
@pytest.mark.parametrize("kind", KINDS)
def test_every_report_is_headings_tables_lists_and_words_under_the_limit(kind, limit) -> None:
    text = render(KINDS[kind](), limit=limit)
    assert len(text.encode()) < limit
    assert kinds(text) <= HARMLESS
    assert text == render(KINDS[kind](), limit=limit)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert sum(map(len, tables(text))) == len(rows) - len(tables(text)), "a table broke"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_outside_of_code_is_a_trigger(kind) -> None:
    said = words(render(KINDS[kind](), limit=SUMMARY))
    assert not re.search(r"@|\$|://|www\.|`|[0-9a-f]{7}|(?i:gh-\d)|:\w+:|#\d|\.example", said)
    assert all(character.isprintable() for character in said.replace("\n", ""))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_a_name_alone_in_a_cell_a_text_and_a_list(name) -> None:
    table = "\n".join([gfm.heading(("a", "b")), gfm.row([gfm.code(name), gfm.prose(name)])])
    assert tables(table) == [[2, 2]]
    for text in (table, f"x {gfm.code(name)}", f"x {gfm.prose(name)}", f"- x: {gfm.prose(name)}"):
        assert kinds(text) <= HARMLESS


@given(st.text(alphabet="`|\\[]()<>!@#$*_~&;:/.-=+ \n\tahtpw1é", max_size=40))
def test_no_text_becomes_markup(name) -> None:
    table = "\n".join([gfm.heading(("a", "b")), gfm.row([gfm.code(name), gfm.prose(name)])])
    assert tables(table) == [[2, 2]] and kinds(table) <= HARMLESS
    assert kinds(f"x {gfm.prose(name)} {gfm.code(name)} y") <= HARMLESS


@given(st.text(alphabet="`ab|\\ ", min_size=1, max_size=20))
def test_a_name_reads_as_it_is(name) -> None:
    shown = [token.content for token in tokens(f"x {gfm.code(name)}") if token.type == "code_inline"]
    assert shown == [name] or not name.strip()


def test_it_says_the_verdict_the_figures_the_gates_and_the_fix() -> None:
    report = KINDS["leaking"]()
    text = report.to_markdown()
    assert text.startswith("## ✗ FAIL: a figure is credibly above its limit\n")
    assert f"| {report.score.value:.3f} [{report.score.low:.3f}, {report.score.high:.3f}] | 0 | `loss` |" in text
    assert "| tail lift ≤ 2 |" in text and "worst of" in text
    assert "`DV101`: Stop training earlier" in text and "not a DP guarantee" in text
    assert report.meta["data"]["digest"] in text
    assert text.count("| `DV101` |") == 1, "a leak is told once"


def test_what_is_invalid_comes_before_the_gates() -> None:
    text = KINDS["invalid"]().to_markdown()
    assert text.startswith("## ! INVALID")
    assert text.index("told apart without the model") < text.index("### Gates")


def test_without_a_policy_it_says_so_and_what_cannot_be_measured() -> None:
    text = KINDS["loss_only"]().to_markdown()
    assert text.startswith("## · NOT GATED: nothing was gated") and "### Gates\n\nNone" in text
    assert "not measurable: needs 200 non-members" in text and "nan" not in text.lower()


def test_a_comment_shows_30_slices_and_a_summary_all() -> None:
    report = KINDS["sliced"]()
    counts = [render(report, limit=limit).count("\n| `site=") for limit in (COMMENT, SUMMARY)]
    said = sum(row["slice"].startswith("site=") for row in report.rows("results") if row["metric"] == "score")
    assert counts[0] < 50 and counts[1] >= said == 1000
    assert "Worst 30 of 1,000" in render(report)


@pytest.mark.parametrize("limit", [LEAST, 20_000, 30_000])
def test_over_the_limit_it_says_what_is_left_out(limit) -> None:
    text = render(KINDS["hostile"](), limit=limit)
    assert len(text.encode()) < limit and kinds(text) <= HARMLESS
    assert "left out" in text and "the run file holds all" in text


def test_rows_go_before_sections_and_the_limits_of_the_test_stay() -> None:
    report = KINDS["sliced"]()
    text = render(report, limit=LEAST)
    assert "What this does not show" in text and "### Method" in text
    many = render(report, limit=COMMENT + 1)
    assert re.search(r"[\d,]+ more rows left out; the run file holds all", many)
    assert len(many.encode()) > 60_000, "what fits is shown"


def test_a_limit_under_the_least_is_refused() -> None:
    with pytest.raises(divulge.InputError, match="DV061"):
        render(KINDS["sound"](), limit=LEAST - 1)


def test_names_as_long_as_can_be_stay_under_the_least() -> None:
    report = outputs_report(n=60)
    rows = report.rows("results")
    for row in rows:
        row["attack"] = "\U000e0001" * 9999
        row["reason"] = "\U000e0001" * 9999 if row["reason"] else None
    report = replace(report, tables={**report.tables, "results": table_of("results", rows)})
    assert len(render(report, limit=LEAST).encode()) < LEAST


def test_a_waived_finding_is_shown_as_waived() -> None:
    text = outputs_report().judged(policy(score=0.1, waive=("DV101",))).to_markdown()
    assert "| `DV101` | waived |" in text


def test_it_is_written_whole_and_reads_the_same_when_loaded(tmp_path) -> None:
    report = KINDS["leaking"]()
    text = report.to_markdown(tmp_path / "report.md")
    assert (tmp_path / "report.md").read_bytes().decode() == text
    report.save(tmp_path / "run.json")
    assert Report.load(tmp_path / "run.json").to_markdown() == text
    with pytest.raises(divulge.InputError, match="DV035"):
        report.to_markdown(tmp_path / "nowhere" / "report.md")
