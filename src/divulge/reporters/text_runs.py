"""The terminal summary of several runs, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from divulge.report import Row, Verdict
from divulge.reporters.page import Page
from divulge.reporters.pairings import pairings
from divulge.reporters.text import STYLES
from divulge.wording import MARKS, change, rate, run_figure, run_label, worded

if TYPE_CHECKING:
    from divulge.comparison import Comparison


def render_comparison(
    comparison: Comparison, *, width: int | None = None, color: bool = False, ascii: bool = False
) -> str:
    """Runs side by side, or one under the other where the width does not carry them; arguments as for `text.render`.

    Returns:
        Lines, each ended by a newline.
    """
    page = Page(width, color, ascii)
    rows = comparison.rows()
    lines = {label: [row for row in rows if run_label(row) == label] for label in dict.fromkeys(map(run_label, rows))}
    if 22 + 26 * len(comparison.names) <= page.width:
        _beside(page, comparison, lines)
    else:
        _below(page, comparison, lines)
    for reason in dict.fromkeys(str(row["reason"]) for row in rows if row["reason"]):
        page.line((f"not measurable: {reason}", "dim"), hang=2)
    first = page.name(comparison.names[0], 40)
    note = f"score 0 = chance; lift 1 = chance; AUC 0.5 = chance. Intervals at {rate(comparison.confidence)}; "
    page.line((note + f"change: against {first}.", "dim"), hang=2)
    for said in pairings(comparison):
        page.line((said, "dim"), hang=2)
    return page.text()


_Lines = Mapping[str, Sequence[Row]]


def _marked(verdict: Verdict) -> str:
    return f"{MARKS[verdict]} {worded(verdict)}"


def _beside(page: Page, comparison: Comparison, lines: _Lines) -> None:
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in comparison.names:
        table.add_column(page.of("").append(page.name(name, 24)), overflow="fold", min_width=24)
    table.add_row("verdict", *(page.of(_marked(verdict), STYLES[verdict]) for verdict in comparison.verdicts))
    for label, rows in lines.items():
        table.add_row(page.of(label), *(page.of(run_figure(row)) for row in rows))
        changes = [change(row) for row in rows[1:]]
        if any(changes):
            table.add_row(page.of("  change", "dim"), "", *(page.of(text, "dim") for text in changes))
    page.print(Padding(table, (0, 0, 0, 2)))


def _below(page: Page, comparison: Comparison, lines: _Lines) -> None:
    from rich.cells import cell_len, set_cell_size

    names = [page.name(name, 24) for name in comparison.names]
    limit = max(cell_len(name) for name in names)
    names = [set_cell_size(name, limit) for name in names]
    page.print(page.of("verdict", "bold"))
    for name, verdict in zip(names, comparison.verdicts, strict=True):
        page.line(f"{name}  ", (_marked(verdict), STYLES[verdict]))
    for label, rows in lines.items():
        page.print(page.of(label, "bold"))
        for name, row in zip(names, rows, strict=True):
            page.line(f"{name}  {run_figure(row)}", hang=limit + 2)
            if text := change(row):
                page.line((f"change {text}", "dim"), indent=limit + 4)
