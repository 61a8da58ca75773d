"""The command line: `divulge demo | audit | gate | compare | references | recipe | explain`.

Results go to stdout, all else to stderr; `divulge.cli.terminal` says what each exit status means.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from divulge.cli import terminal
from divulge.cli.guides import demo_command, explain_command, recipe_command
from divulge.cli.options import with_loudness
from divulge.cli.references import references_command
from divulge.cli.runs import compare_command
from divulge.cli.verdicts import audit_command, gate_command
from divulge.version import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None: the process's.

    Returns:
        The exit status.

    >>> main(["explain", "DV101"])  # doctest: +ELLIPSIS
    DV101  the model tells members from non-members
    ...
    0
    """
    given = sys.argv[1:] if argv is None else list(argv)
    return terminal.status_of(
        lambda: program.main(
            args=given,
            obj=given,
            prog_name="divulge",
            standalone_mode=False,
            windows_expand_args=False,
        )
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="divulge")
@with_loudness
def program() -> None:
    """Measure how much a trained model gives away about who was in its training set.

    Start with `divulge demo`; for your own model, `divulge recipe sklearn` (or torch, keras …) prints the lines that
    write predictions.npz, and `divulge audit predictions.npz` reads it.
    """


for _command in (
    demo_command,
    audit_command,
    gate_command,
    compare_command,
    references_command,
    recipe_command,
    explain_command,
):
    program.add_command(_command)
