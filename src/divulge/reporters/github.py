"""A report as GitHub Actions annotations: workflow commands, which the runner finds in what a step prints."""

from divulge.codes import CODES
from divulge.report import Report
from divulge.reporters.figures import main_figures, told_findings
from divulge.slices import EVERYONE
from divulge.wording import clipped, why, worded

SHOWN = 10
"""Annotations of one kind that GitHub shows of a step."""

_KINDS = {"fail": "error", "warning": "warning", "info": "notice"}


def annotations(report: Report) -> str:
    """The verdict and the findings that are not waived, one command a line; the rest of a kind counted in one.

    Args:
        report: of `audit`, or loaded.

    Returns:
        Lines such as `::error title=DV101 …::…`, each ended by a newline.
    """
    verdict = report.verdict
    score = main_figures(report)[0].text()
    stops = verdict.exit_code != 0
    lines: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    kind = "error" if stops else "notice"
    lines[kind].append(_command(kind, f"divulge: {worded(verdict)}", f"{why(report)}; score {score}"))
    for row in told_findings(report):
        if row["waived"]:
            continue
        kind = _KINDS[row["severity"]]
        title = f"{row['code']} {CODES[row['code']].title}" if row["code"] in CODES else str(row["code"])
        places = [clipped(row[key], 60) for key in ("slice", "attack") if row[key] and row[key] != EVERYONE]
        where = f" ({', '.join(places)})" if places else ""
        text = f"{clipped(row['text'], 400)}{where}. {clipped(row['fix'], 800)}"
        lines[kind].append(_command(kind, title, text))
    return "".join(f"{line}\n" for kind, own in lines.items() for line in _shown(kind, own))


def muted(text: str, token: str) -> str:
    r"""Text in which the runner looks for no commands: a name in it may read like one.

    Args:
        text: lines to print.
        token: a word that the text cannot know.

    >>> print(muted("::error::not one\n", "4f1c"), end="")
    ::stop-commands::4f1c
    ::error::not one
    ::4f1c::
    """
    return f"::stop-commands::{token}\n{text}::{token}::\n"


def _shown(kind: str, commands: list[str]) -> list[str]:
    if len(commands) <= SHOWN:
        return commands
    rest = len(commands) - SHOWN + 1
    return [*commands[: SHOWN - 1], _command(kind, "divulge", f"{rest:,} more findings; the run file holds all")]


def _command(kind: str, title: str, text: str) -> str:
    escaped = _escaped(clipped(title, 120)).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={escaped}::{_escaped(clipped(text, 1_300))}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
