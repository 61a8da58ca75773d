"""What all tests share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import settings

# A shared machine may be slow at any moment; and what CI looks at should not depend on the day.
settings.register_profile("divulge", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("divulge")

os.environ.setdefault("KERAS_BACKEND", "jax")  # the lightest of its backends; one a process


@pytest.fixture
def require() -> Callable[[str], ModuleType]:
    """Imports a framework; a missing one skips the test, or fails it where DIVULGE_REQUIRE=all (the full run)."""

    def imported(name: str) -> ModuleType:
        if os.environ.get("DIVULGE_REQUIRE") == "all":
            return importlib.import_module(name)
        return pytest.importorskip(name)

    return imported
