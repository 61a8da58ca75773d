"""What all tests share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from hypothesis import settings

from divulge.attacks.budgets import BUDGETS, quick

# A shared machine may be slow at any moment; and what CI looks at should not depend on the day.
settings.register_profile("divulge", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("divulge")

os.environ.setdefault("KERAS_BACKEND", "jax")  # the lightest of its backends; one a process


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Most tests are of what comes after the attacks: there "default" is the quick set, which is ten times as fast.

    What depends on the default set itself is marked `default_budget`.
    """
    before = BUDGETS["default"]
    if item.get_closest_marker("default_budget") is None:
        BUDGETS["default"] = quick
    try:
        return (yield)
    finally:
        BUDGETS["default"] = before


@pytest.fixture
def require() -> Callable[[str], ModuleType]:
    """Imports a framework; a missing one skips the test, or fails it where DIVULGE_REQUIRE=all (the full run)."""

    def imported(name: str) -> ModuleType:
        if os.environ.get("DIVULGE_REQUIRE") == "all":
            return importlib.import_module(name)
        return pytest.importorskip(name)

    return imported
