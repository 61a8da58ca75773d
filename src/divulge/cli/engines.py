"""`divulge audit --engine`: records in memory, or read as a stream, here or on Ray."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

from divulge.cli import terminal
from divulge.cli.options import Command
from divulge.doors.tables import Overrides
from divulge.evidence import Evidence
from divulge.files import load
from divulge.streams import Stream

ENGINES = ("memory", "stream", "ray")


@dataclass(frozen=True)
class Engine:
    """How FILE is read. The attributes are the options of the same names."""

    engine: str
    address: str | None
    workers: int | None
    checkpoint: str | None
    skip_bad_files: bool

    def records(self, file: str, columns: Overrides) -> Evidence | Stream:
        """What is audited.

        Raises:
            InputError: as `Evidence.load`, in memory.

        >>> Engine("stream", None, 2, None, False).records("folder", Overrides()).workers
        2
        """
        if self.engine == "memory":
            return load(file, columns)
        where = "threads" if self.engine == "stream" else self.address or "ray"
        return Stream(file, columns, self.workers, where, self.checkpoint, self.skip_bad_files)

    @contextmanager
    def stops_said(self) -> Iterator[None]:
        """Where a stop ends the block, what was counted is said to be kept."""
        try:
            yield
        except (KeyboardInterrupt, terminal.Terminated):
            if self.checkpoint is not None:
                terminal.say(f"files that were counted are kept in {self.checkpoint}; the same command goes on")
            raise


def with_engine(command: Command) -> Command:
    """The options of a stream, as one argument: `engine`."""

    @functools.wraps(command)
    def collected(
        *,
        engine: str,
        address: str | None,
        workers: int | None,
        checkpoint: str | None,
        skip_bad_files: bool,
        **given: Any,
    ) -> Any:
        found = Engine(engine, address, workers, checkpoint, skip_bad_files)
        if engine == "memory" and found != Engine(engine, None, None, None, False):
            raise click.UsageError(
                "--address, --workers, --checkpoint and --skip-bad-files need --engine stream or ray"
            )
        if address is not None and engine != "ray":
            raise click.UsageError("--address is Ray's: add --engine ray")
        return command(engine=found, **given)

    for option in (
        click.option("--skip-bad-files", is_flag=True, help="Leave out files that cannot be read; the report says so."),
        click.option("--checkpoint", metavar="PATH", help="Keep there what is counted; the same call goes on from it."),
        click.option("--workers", type=click.IntRange(min=1), help="Readers at a time; default: one a core."),
        click.option("--address", metavar="RAY", help="Ray's cluster, ray://host:port; default: one of this machine."),
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default="memory",
            show_default=True,
            help="stream: Parquet of any size, read once, counted in bins. ray: the same on a cluster.",
        ),
    ):
        collected = option(collected)
    return collected
