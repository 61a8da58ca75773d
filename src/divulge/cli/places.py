"""Where a command writes a report: the forms that were asked for, and what GitHub Actions shows of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from divulge.cli import terminal
from divulge.cli.terminal import logger
from divulge.errors import InputError
from divulge.report import Report

FORMS = {
    "json": "Write the run file; - is stdout, for any one form.",
    "html": "Write the report as one page.",
    "markdown": "Write it as a pull request's comment.",
    "junit": "Write gates and controls as JUnit XML.",
    "sarif": "Write the findings as SARIF, for code scanning.",
    "model_card": "Write it as a Hugging Face model card.",
}
"""The forms of a report, the run file first: it holds all that the others show."""


@dataclass(frozen=True)
class Places:
    """Where a report goes.

    Attributes:
        forms: a path, or "-" for stdout, by form; only those asked for.
        github: annotate, and add to the job's summary.

    >>> Places({"json": "run.json", "html": "-"}).piped
    True
    """

    forms: Mapping[str, str]
    github: bool = False

    @property
    def piped(self) -> bool:
        """Whether stdout carries a form, so that all else goes to stderr."""
        return "-" in self.forms.values()

    def check(self, *sources: str | None, rewritten: str | None = None) -> None:
        """Refuse before the long work what could not be written after it, or would cost the user what is read.

        Args:
            sources: files that are read; none of them is overwritten.
            rewritten: a run file that is read, and that only its successor may replace.

        Raises:
            InputError: DV035, a place that cannot be written to.
            click.UsageError: a place that is read, or that two forms want.
        """
        taken: dict[str, str] = {}
        for form, place in self.forms.items():
            name = named(form)
            where = place if place == "-" else os.path.normcase(os.path.realpath(place))
            if where in taken:
                raise click.UsageError(f"{taken[where]} and {name} both name {place}")
            taken[where] = name
            if place == "-":
                continue
            for source in (*sources, None if form == "json" else rewritten):
                if source is not None and _holds(Path(source), Path(place)):
                    raise click.UsageError(f"{name} {place} would overwrite a file that is read")
            terminal.check_writable(Path(place))
        if self.github and (summary := _job_summary()):
            _room(summary)

    def write(self, report: Report, *, source: str, baseline: Report | None) -> None:
        """Write every form and the job's summary; stdout last, where a reader may be gone.

        Args:
            report: what is written.
            source: the file that was audited, or the run that was judged: SARIF shows findings at it.
            baseline: the earlier run that the page shows beside this one.

        Raises:
            InputError: DV035, a place that cannot be written to.
        """
        for form, place in self.forms.items():
            if place != "-":
                with terminal.writing(Path(place)):
                    _form(report, form, place, source, baseline)
        if self.github:
            _add_to_job_summary(report)
        for form, place in self.forms.items():
            if place == "-":
                terminal.out_json(_form(report, form, None, source, baseline))
            else:
                logger.info("wrote %s", place)


def named(form: str) -> str:
    """The option that asks for a form.

    >>> named("model_card")
    '--model-card'
    """
    return f"--{form.replace('_', '-')}"


def _holds(source: Path, place: Path) -> bool:
    """Whether a place is what is read, or a part of it."""
    if not (source.exists() and place.exists()):
        return False
    if source.is_dir():
        return place.suffix == ".parquet" and source.resolve() in place.resolve().parents
    return place.samefile(source)


def _form(report: Report, form: str, path: str | None, source: str, baseline: Report | None) -> str:
    match form:
        case "json":
            if path is not None:
                report.save(path)
            return report.to_json() if path is None else ""
        case "html":
            return report.to_html(path, baseline=baseline)
        case "markdown":
            return report.to_markdown(path)
        case "junit":
            return report.to_junit(path)
        case "sarif":
            return report.to_sarif(path, artifact=_relative(source))
        case _:
            return report.to_model_card(path)


def _relative(source: str) -> str:
    """A file's path within the working directory; of one elsewhere, its name."""
    path, here = Path(os.path.abspath(source)), Path.cwd()
    return path.relative_to(here).as_posix() if here in path.parents else path.name


# ---------------------------------------------------------------------------------------------- the job's summary


def _job_summary() -> Path | None:
    named = os.environ.get("GITHUB_STEP_SUMMARY")
    return Path(named) if named else None


def _room(summary: Path) -> int:
    """Bytes that the job's summary still takes."""
    from divulge.reporters.markdown import LEAST, SUMMARY

    if not summary.exists():
        terminal.check_writable(summary)
        return SUMMARY
    if not summary.is_file() or not os.access(summary, os.W_OK):
        raise InputError("DV035", f"cannot write {summary}, which GITHUB_STEP_SUMMARY names: no file to write to")
    room = SUMMARY - summary.stat().st_size
    if room < LEAST + 2:
        raise InputError("DV035", f"cannot write {summary}: earlier lines of this step fill the job's summary")
    return room


def _add_to_job_summary(report: Report) -> None:
    from divulge.reporters import markdown

    summary = _job_summary()
    if summary is None:
        logger.info("GITHUB_STEP_SUMMARY is not set: annotations only")
        return
    text = markdown.render(report, limit=_room(summary) - 2)
    with terminal.writing(summary), summary.open("ab") as file:
        # A blank line ends whatever an earlier command of the step left open.
        file.write((("\n\n" if file.tell() else "") + text).encode("utf-8"))
