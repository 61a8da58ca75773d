"""Options that several commands have."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import click

from divulge.cli.places import FORMS, Places, named
from divulge.cli.terminal import logger
from divulge.limits import INCONCLUSIVE_WAYS

Command = Callable[..., Any]

_POLICY = "Limits, in TOML; else divulge.toml or [tool.divulge] of pyproject.toml here."


def with_loudness(command: Command) -> Command:
    """-q and -v, which set the log's level.

    >>> len(with_loudness(lambda: 0).__click_params__)
    2
    """
    for short, name, text in (
        ("-v", "verbose", "Say more, tracebacks too."),
        ("-q", "quiet", "Say the verdict and errors only."),
    ):
        option = click.option(short, f"--{name}", is_flag=True, expose_value=False, callback=_loudness, help=text)
        command = option(command)
    return command


def _loudness(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        logger.setLevel(logging.DEBUG if option.name == "verbose" else logging.WARNING)


def with_judging(command: Command) -> Command:
    """The options of the two commands that end in a verdict."""
    for option in (
        click.option("--inconclusive", type=click.Choice(INCONCLUSIVE_WAYS), help="What an undecided gate becomes."),
        click.option("--baseline", metavar="RUN", help="An earlier run file, for limits on an increase."),
        click.option("--policy", "policy_path", metavar="FILE", help=_POLICY),
    ):
        command = option(command)
    return command


def with_places(command: Command) -> Command:
    """The options that say where the report goes, as one argument: `places`."""

    @functools.wraps(command)
    def collected(*, github: bool, **given: Any) -> Any:
        asked = {form: given.pop(form) for form in FORMS}
        places = {form: place for form, place in asked.items() if place is not None}
        return command(places=Places(places, github), **given)

    collected = click.option("--github", is_flag=True, help="Annotate, and add to the job's summary.")(collected)
    for form, text in reversed(FORMS.items()):
        collected = click.option(named(form), form, metavar="PATH", help=text)(collected)
    return collected
