"""Ctrl-C where a library swallows it: scikit-learn's networks end their fit with a warning, half trained."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def heard() -> Iterator[None]:
    """Raises KeyboardInterrupt at the end of the block where a Ctrl-C came within and what runs there went on.

    In the main thread, where Ctrl-C is heard at all; elsewhere nothing is changed.

    Raises:
        KeyboardInterrupt: it was swallowed.

    >>> with heard():
    ...     done = True
    >>> done
    True
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    rung = []

    def ring(number: int, frame: FrameType | None) -> None:
        rung.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if rung:
        raise KeyboardInterrupt
