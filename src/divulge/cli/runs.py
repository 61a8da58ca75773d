"""`divulge compare`: run files side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from divulge import atomic
from divulge.cli import terminal
from divulge.cli.options import with_loudness
from divulge.cli.places import Places
from divulge.cli.terminal import logger
from divulge.errors import InputError


@click.command("compare", short_help="Show run files side by side.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN …")
@click.option(
    "--evidence", metavar="FILE", multiple=True, help="What a run was audited with, once for each run in order: pairs."
)
@click.option("--html", metavar="PATH", help="Write the comparison as a page; - is stdout.")
@click.option("--json", "output", metavar="PATH", help="Write its rows; - is stdout.")
@with_loudness
def compare_command(runs: tuple[str, ...], evidence: tuple[str, ...], html: str | None, output: str | None) -> int:
    """Show two or more run files side by side; exit status 0 whatever the verdicts.

    A folder stands for all run files in it, by name, or as its series.json orders and names them. With the evidence of
    every run, runs are paired by record ids.
    """
    from divulge.comparison import compare
    from divulge.reporters import text_runs
    from divulge.series import INDEX, Series

    found, series = _run_files(runs), None
    if len(found) < 2:
        raise click.UsageError("give two or more run files to compare")
    asked = {"html": html, "json": output}
    Places({form: place for form, place in asked.items() if place is not None}).check(*found, *evidence)
    if len(runs) == 1 and Path(runs[0], INDEX).is_file():
        series = replace(Series.load(runs[0]), evidence=evidence or None)
    comparison = compare(*found, evidence=evidence or None) if series is None else series.comparison
    page = comparison if series is None else series
    if output == "-":
        terminal.out_json(comparison.to_json())
    elif output is not None:
        with terminal.writing(Path(output)), atomic.replacing(output) as temporary:
            temporary.write_text(comparison.to_json(), encoding="utf-8")
    if html == "-":
        terminal.out(page.to_html())
    elif html is not None:
        with terminal.writing(Path(html)):
            page.to_html(html)
    piped = "-" in (html, output)
    stream = sys.stderr if piped else sys.stdout
    if stream is not None and not (terminal.quiet() and piped):
        terminal.write(stream, text_runs.render_comparison(comparison, **terminal.look(stream)))
    for place in (html, output):
        if place not in (None, "-"):
            logger.info("wrote %s", place)
    return 0


def _run_files(runs: Sequence[str]) -> list[str]:
    """The run files that were named, and those of the folders that were; what else lies there is said."""
    from divulge.series import in_folder

    found: list[str] = []
    for run in runs:
        if not Path(run).is_dir():
            found.append(run)
            continue
        inside, others = in_folder(run)
        for other in others:
            logger.warning("skipped %s: not a run file of divulge", other)
        if not inside:
            raise InputError("DV055", f"expected run files in the folder {run!r}, and it holds none")
        found += map(str, inside)
    return found
