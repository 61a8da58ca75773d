"""Options that all commands have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import click

from divulge.terminal import logger

Command = Callable[..., Any]


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
