"""What the command line says, and its exit status: streams, log, progress, signals, errors.

0 1 3 4      a verdict (`Verdict.exit_code`)
2            usage, configuration or input error
70           divulge itself failed: a crash never looks like a verdict
130 141 143  Ctrl-C, closed pipe, SIGTERM
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO, TypedDict

import click

from divulge.errors import DivulgeError, InputError
from divulge.wording import printable

logger = logging.getLogger("divulge")

USAGE, INTERNAL, INTERRUPTED, CLOSED_PIPE, TERMINATED = 2, 70, 130, 141, 143
ROOM_FOR_BAR = 60  # columns of a terminal


class Terminated(BaseException):
    """SIGTERM came. An exception, so that what is half written is cleaned up on the way out."""


class Unwritten(Exception):
    """A stream took not all of the text. Not an OSError: click has an answer of its own to some of those."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Look(TypedDict):
    """How to render for a stream: the arguments of the text reporter."""

    color: bool
    ascii: bool


def look(stream: TextIO) -> Look:
    """Colour only for a terminal without NO_COLOR, ASCII where the encoding has no more.

    >>> import io
    >>> sum(look(io.StringIO()).values())
    0
    """
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return {"color": not plain and stream.isatty(), "ascii": _ascii(stream)}


def _ascii(stream: TextIO) -> bool:
    try:
        "✓✗×≤…→".encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def out(text: str) -> None:
    """A result, to stdout."""
    write(sys.stdout, text)


def say(text: str) -> None:
    """A line about the run, to stderr; what stands in it from outside is made harmless."""
    with contextlib.suppress(Unwritten):  # nobody listens: no reason to fail
        write(sys.stderr, printable(text, ascii=_ascii(sys.stderr)) + "\n")


def write(stream: TextIO | None, text: str) -> None:
    """All of the text, or the error of it, now: a report that a full disk swallowed must not end in status 0."""
    if stream is None:  # closed by the caller (>&-): they want the status only
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except OSError as error:
        raise Unwritten(error) from error


def out_json(text: str) -> None:
    """A form of the report to stdout, in UTF-8 whatever the terminal's encoding."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.buffer.flush()
    except OSError as error:
        raise Unwritten(error) from error


# -------------------------------------------------------------------------------------------- log and progress


class _ToStderr(logging.Handler):
    """Log lines to whatever stderr is at the time: a live bar replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def quiet() -> bool:
    """Whether -q was given."""
    return logger.level >= logging.WARNING


def verbose() -> bool:
    """Whether -v was given."""
    return logger.level <= logging.DEBUG


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    handler, level, propagate = _ToStderr(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def time_left(seconds: float | None) -> str:
    """How long it still takes, as minutes and seconds; empty where nobody knows.

    >>> time_left(61.2), time_left(7322), time_left(None)
    ('about 1:01 left', 'about 2:02:02 left', '')
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    text = f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
    return f"about {text} left"


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Gives a function to call with (done, all, what): a bar and the time left on a terminal, else lines under -v."""
    if quiet() or verbose() or not sys.stderr.isatty():
        yield lambda done, total, what: logger.debug("%d/%d %s", done, total, what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Left(ProgressColumn):
        """How long it still takes; nothing as long as nobody knows."""

        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            return Text(time_left(task.time_remaining))

    what = TextColumn("{task.fields[what]}", markup=False, table_column=Column(ratio=1, no_wrap=True))
    console = Console(stderr=True, emoji=False, highlight=False)
    columns = (*([BarColumn(20)] if console.width >= ROOM_FOR_BAR else []), Left(Column(no_wrap=True)), what)
    # The speed is that of the whole run: one attack may take longer than the 30 s that rich looks back.
    with Progress(*columns, console=console, transient=True, speed_estimate_period=math.inf) as bar:
        task = bar.add_task("", total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=printable(what[:60]))


# ------------------------------------------------------------------------------------------------------ files


def check_writable(path: Path) -> None:
    """Refuse a place for a file before the work that is to fill it.

    Raises:
        InputError: DV035, the folder is not there or not writable, or the path is no file's.
    """
    folder = path.parent
    if path.is_dir():
        reason = "it is a folder. Give the name of a file."
    elif path.exists() and not path.is_file():
        reason = "it is no regular file. Use - for a pipe."
    elif not folder.is_dir():
        reason = f"there is no folder {folder}. Make it first, or choose another."
    elif not os.access(folder, os.W_OK | os.X_OK):
        reason = f"the folder {folder} is not writable. Choose another."
    else:
        return
    raise InputError("DV035", f"cannot write {path}: {reason}")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk or a folder that went is an error of the place, not of divulge.

    Raises:
        InputError: DV035, the operating system refused.
    """
    try:
        yield
    except OSError as error:
        raise InputError("DV035", f"cannot write {path}: {error.strerror or error}") from error


# ----------------------------------------------------------------------------------------------------- status


def status_of(command: Callable[[], Any]) -> int:
    """Run a click command (standalone_mode=False) and give its exit status; says errors on stderr.

    >>> status_of(lambda: 3)
    3
    """
    with _logging(), _terminable():
        status = _status(command)
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            return _unwritten(error)
    return status


def _status(command: Callable[[], Any]) -> int:
    try:
        return int(command() or 0)
    except click.exceptions.Abort as abort:
        return _failed(abort.__cause__) if isinstance(abort.__cause__, EOFError) else _stopped(INTERRUPTED)
    except KeyboardInterrupt:
        return _stopped(INTERRUPTED)
    except Terminated:
        return _stopped(TERMINATED)
    except click.ClickException as error:
        error.show()
        return USAGE
    except DivulgeError as error:
        say(str(error))
        say(f"divulge explain {error.code}")
        return USAGE
    except Unwritten as unwritten:
        return _unwritten(unwritten.error)
    except SystemExit:  # click's answer, in any mode, to a pipe that closes under its own help
        return _unwritten(BrokenPipeError())
    except BaseException as error:
        return _failed(error)


def _stopped(status: int) -> int:
    say("stopped")
    return status


def _failed(error: BaseException) -> int:
    if verbose():
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line)
    say(f"DV901 divulge itself failed: {type(error).__name__}: {error}")
    say("divulge explain DV901" if verbose() else "divulge explain DV901; the same command with -v shows the traceback")
    return INTERNAL


def _unwritten(error: OSError) -> int:
    """Stdout is gone. What is still buffered goes nowhere, lest the interpreter complains about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    if isinstance(error, BrokenPipeError) or error.errno == errno.EPIPE:
        return CLOSED_PIPE
    say(f"DV035 cannot write to standard output: {error.strerror or error}")
    return USAGE


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the stack, once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # cleaning up is not interrupted
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
