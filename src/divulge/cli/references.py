"""`divulge references plan | run | status`."""

from __future__ import annotations

import json
import math
import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from numpy.typing import NDArray

from divulge.cli import terminal
from divulge.cli.options import with_loudness
from divulge.cli.terminal import logger
from divulge.errors import InputError

if TYPE_CHECKING:
    from divulge.references.definition import Definition
    from divulge.references.store import Status

EXECUTORS = ("auto", "loop", "processes", "vmapped", "ray")
WORDS = {"loop": "one by one", "processes": "in processes", "vmapped": "many at once"}


@click.group("references", short_help="Train reference models, for the strongest attacks.")
@with_loudness
def references_command() -> None:
    """Train reference models as the target was trained, each on half of the records, for the strongest attacks.

    FILE.py is run as it stands: use only your own. It defines `data`, (x, y) of all records, members and non-members,
    or a function that returns it; and `fit`, an estimator of scikit-learn, one of divulge.fits, or a function
    fit(data, rows, seed) that returns predict(data, rows, query). It may define labels, ids, groups, member, signal,
    queries, kind, target, fraction and tag, as divulge.fit_references has them: with ids and member,
    `divulge audit predictions.npz --references DIR` finds the records in any order.
    """


_MODELS = click.option(
    "--models",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="How many; an even number gives each its complement.",
)
_SEED = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same models."
)
_WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Processes; default: the cores.")


@references_command.command("plan", short_help="What the models would cost.")
@click.argument("file", metavar="FILE.py")
@_MODELS
@_WORKERS
@_SEED
@with_loudness
def _plan(file: str, models: int, workers: int | None, seed: int) -> int:
    """Try briefly what training the models of FILE.py would take, by each way to train them, and which is picked."""
    from divulge.references.definition import blamed, defined
    from divulge.references.planning import measure

    with terminal.progress() as tell, defined(file) as given:
        tell(0, 1, "trying")
        with blamed(given.path):
            plan = measure(given.fit, given.data, _design(given, models, seed), seed=seed, workers=workers)
    lines = [f"{models} reference models of {given.rows:,} records, by each way to train them:"]
    for name, seconds in sorted(plan.seconds.items(), key=lambda item: item[1]):
        mark = "  <- picked" if name == plan.executor else ""
        lines.append(f"  {name:<10} {WORDS.get(name, ''):<13} about {_duration(seconds)}{mark}")
    terminal.out("\n".join(lines) + "\n")
    logger.info(plan.text)
    return 0


@references_command.command("run", short_help="Train those that are missing.")
@click.argument("file", metavar="FILE.py")
@click.option("--store", metavar="DIR", required=True, help="Where finished models are kept, and found again.")
@_MODELS
@click.option(
    "--executor", metavar="NAME", default="auto", show_default=True, help=f"{', '.join(EXECUTORS)} or ray://host:port."
)
@_WORKERS
@_SEED
@with_loudness
def _run(file: str, store: str, models: int, executor: str, workers: int | None, seed: int) -> int:
    """Train the reference models of FILE.py that DIR does not hold yet; stop it when you like, and call it again.

    Exit status: 0 all are there, 2 error, 130 Ctrl-C, 143 ended from outside; finished models are kept in any case.
    """
    from divulge.references import fit_references
    from divulge.references.definition import blamed, defined

    _check_executor(executor)
    _check_store(Path(store))
    place = Path(store).absolute()  # FILE.py may change the working directory
    finished = 0
    with terminal.progress() as tell, defined(file) as given:
        found: int | None = None

        def progress(done: int, total: int, what: str) -> None:
            nonlocal finished, found
            found = done if found is None else found  # what was there took no time, and says nothing of the time left
            finished = done
            tell(done - found, total - found, f"{done} of {total} models")

        try:
            with blamed(given.path):
                fit_references(
                    given.fit,
                    given.data,
                    _design(given, models, seed),
                    labels=given.labels,
                    signal=given.signal,
                    queries=given.queries,
                    kind=given.kind,
                    seed=seed,
                    tag=given.tag,
                    target=given.target,
                    executor=executor,
                    workers=workers,
                    store=place,
                    progress=progress,
                    ids=given.ids,
                    member=given.member,
                )
        except (KeyboardInterrupt, terminal.Terminated):
            terminal.say(f"{finished} of {models} models are finished and kept in {store}; the same command goes on")
            raise
    terminal.out(f"{models} reference models of {given.rows:,} records are in {store}. Now audit with them:\n")
    terminal.out(f"  divulge audit predictions.npz --references {shlex.quote(store)}\n")
    return 0


@references_command.command("status", short_help="How many models of a store are finished.")
@click.argument("store", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="As JSON, to stdout.")
@with_loudness
def _status(store: str, as_json: bool) -> int:
    """Say how many models of the latest run in DIR are finished, and which files are damaged; every file is read."""
    from divulge.references.store import status

    found = status(store)
    if as_json:
        seconds = None if math.isnan(found.seconds) else found.seconds
        terminal.out_json(json.dumps({**found._asdict(), "seconds": seconds}, indent=1) + "\n")
    else:
        terminal.out(_told(store, found))
    return 0


def _told(store: str, found: Status) -> str:
    left = found.models - found.finished
    lines = [f"{found.finished} of {found.models} reference models are finished"]
    if found.finished:
        each = f"  {_duration(found.seconds)} a model"
        lines.append(each + (f", about {_duration(left * found.seconds)} left one by one" if left else ""))
    lines.append(f"  {found.rows:,} records; {', '.join(found.signals)}; seed {found.parts.get('seed')}")
    if found.tag:
        lines.append(f"  tag: {found.tag}")
    if found.bad:
        lines.append(f"  damaged or foreign, trained again by the next run: {len(found.bad)}")
        lines += [f"    {name}" for name in found.bad]
    if not left:
        lines.append(f"  divulge audit predictions.npz --references {shlex.quote(store)}")
    return "\n".join(lines) + "\n"


def _design(given: Definition, models: int, seed: int) -> NDArray[np.bool_]:
    from divulge.references import design

    return design(given.rows, models, fraction=given.fraction, groups=given.groups, seed=seed)


def _check_executor(name: str) -> None:
    if name in EXECUTORS or name.startswith("ray://"):
        return
    close = get_close_matches(name, EXECUTORS, 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    raise click.UsageError(f"There is no executor {name!r}. {hint}Known: {', '.join(EXECUTORS)}, ray://host:port")


def _check_store(store: Path) -> None:
    """Refuse a place before the work that is to fill it."""
    if store.exists() and not store.is_dir():
        raise InputError("DV035", f"cannot write to {store}: it is a file. Give a folder, which is made if need be.")
    nearest = next(path for path in (store, *store.absolute().parents) if path.exists())
    if not store.exists():
        terminal.check_writable(nearest / "divulge")


def _duration(seconds: float) -> str:
    """A time as a person says it.

    >>> _duration(6e-6), _duration(0.04), _duration(75), _duration(9000)
    ('0.01 s or less', '0.04 s', '1 min 15 s', '2 h 30 min')
    """
    if seconds < 0.01:
        return "0.01 s or less"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
