"""A Ray cluster to work on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from divulge.doors.names import shown
from divulge.errors import InputError

RETRIES = 3
"""How often Ray begins again what a lost worker or node was doing."""

TICK = 1.0
"""Seconds after which a wait looks up, so that Ctrl-C is heard."""


@contextmanager
def connected(address: str, setting: str) -> Iterator[Any]:
    """Ray, connected to a cluster while the block runs; a connection that this process has is used, and stays.

    Args:
        address: "ray" for the cluster that this process is in, or that runs on this machine, else one that is started
            and ended here; "ray://host:port" for that one.
        setting: what the user wrote to choose Ray, such as "engine='ray'"; for the error.

    Raises:
        InputError: DV071, Ray is not installed; DV404, the cluster is not there.
    """
    from divulge.adapters.predictor import needed

    ray = needed("ray", "ray")
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=None if address == "ray" else address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise InputError(
                "DV404",
                f"expected a Ray cluster at {shown(address)}, got {type(error).__name__}: {shown(str(error))}. Start "
                f"one with `ray start`, or give {setting} for one of this machine.",
            ) from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
