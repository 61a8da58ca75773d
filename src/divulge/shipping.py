"""What travels to workers that cannot import it: the code of the user's own modules goes with it."""

from __future__ import annotations

import functools
import importlib.util
import pickle
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from divulge.doors.names import shown
from divulge.errors import InputError


@functools.cache
def installed(module: str | None) -> bool:
    """Whether a module is Python's own or was installed, and so has a version; the user's own are read."""
    if not module or module == "__main__":
        return False
    root = module.partition(".")[0]
    if root in sys.builtin_module_names or root in sys.stdlib_module_names or root == __name__.partition(".")[0]:
        return True  # divulge itself, wherever it lies
    file = getattr(sys.modules.get(root), "__file__", None)
    if file is None:
        try:
            found = importlib.util.find_spec(root)
        except (ImportError, ValueError, AttributeError):
            return False
        if found is None:
            return False
        file = found.origin or next(iter(found.submodule_search_locations or ()), "")
    places = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")}
    path = Path(file)
    return {"site-packages", "dist-packages"} & set(path.parts) != set() or any(
        place is not None and path.is_relative_to(place) for place in places
    )


@contextmanager
def shipped(modules: Iterable[Any]) -> Iterator[None]:
    """What these modules define is pickled with its code while the block runs: workers could not import it."""
    import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    added = [module for module in modules if module.__name__ not in known]
    for module in added:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in added:
            cloudpickle.unregister_pickle_by_value(module)


def pickled(thing: object, *, expected: str, hint: str) -> bytes:
    """Bytes of a thing, with the code of all of the user's own modules that it reaches: workers may not find those.

    Args:
        thing: with its functions, classes and data.
        expected: what should have been given, for the error.
        hint: how to mend it.

    Raises:
        InputError: DV405, it cannot be sent.

    >>> import pickle
    >>> pickle.loads(pickled([1, 2], expected="numbers", hint=""))
    [1, 2]
    """
    import cloudpickle

    own: dict[str, ModuleType] = {}

    class Looking(cloudpickle.Pickler):  # type: ignore[misc]
        def persistent_id(self, met: object) -> None:
            if isinstance(met, FunctionType | type) and _is_own(met.__module__):
                own[met.__module__] = sys.modules[met.__module__]

    try:
        while True:
            known = len(own)
            with shipped(own.values()):
                # Arrays are passed over by the callback, and bytes by the sink: only names are looked for.
                Looking(_Nowhere(), pickle.HIGHEST_PROTOCOL, buffer_callback=lambda buffer: None).dump(thing)
                if len(own) == known:  # what is sent with its code may name further modules
                    return bytes(cloudpickle.dumps(thing, protocol=pickle.HIGHEST_PROTOCOL))
    except Exception as error:  # each type says in its own way that it cannot be pickled
        raise InputError(
            "DV405", f"expected {expected}, got {type(error).__name__}: {shown(str(error))}. {hint}"
        ) from error


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def _is_own(module: str | None) -> bool:
    """Whether it is a file of the user's own, which is not installed."""
    return module not in (None, "__main__") and module in sys.modules and not installed(module)
