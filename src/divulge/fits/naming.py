"""What a fit is called: all that changes the training, and no address of memory, which changes from run to run."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any


def shown(fit: Any) -> str:
    """The text of a dataclass with its functions by name; a partial one with what it fixes.

    >>> from divulge.fits import Torch
    >>> shown(Torch(dict, epochs=3, optimizer=functools.partial(sorted, reverse=True)))
    "Torch(dict, epochs=3, batch_size=64, optimizer=sorted(reverse=True), loss=None, device=None, batches='own', \
order_seed=0, schedule=None, at_once=16)"
    """
    parts = [f"{field.name}={value(getattr(fit, field.name))}" for field in fields(fit)]
    parts[0] = parts[0].partition("=")[2]
    return f"{type(fit).__name__}({', '.join(parts)})"


def value(thing: object) -> str:
    """The text of one value.

    >>> value(value), value(3)
    ('value', '3')
    """
    if isinstance(thing, functools.partial):
        given = [value(one) for one in thing.args] + [f"{name}={value(one)}" for name, one in thing.keywords.items()]
        return f"{value(thing.func)}({', '.join(given)})"
    if hasattr(thing, "get_params") and not isinstance(thing, type):  # whose own text leaves out and shortens
        parameters = [f"{name}={value(one)}" for name, one in thing.get_params(deep=False).items()]
        return f"{type(thing).__name__}({', '.join(parameters)})"
    if isinstance(thing, list | tuple):
        parts = ", ".join(value(one) for one in thing)
        return f"[{parts}]" if isinstance(thing, list) else f"({parts})"
    if isinstance(thing, dict):
        return "{" + ", ".join(f"{key!r}: {value(one)}" for key, one in thing.items()) + "}"
    name = getattr(thing, "__qualname__", None)
    return name if isinstance(name, str) else repr(thing)
