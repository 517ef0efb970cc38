"""Set up for the whole suite: Hypothesis profiles and the marker of the slowest tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import hypothesis
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "fresh_clone: clones the repository and installs it; needs the package index"
    )
    config.addinivalue_line(
        "markers",
        "waits_long: begins before other tests: the suite shall not end with it",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that wait longest first: others run meanwhile in the other processes."""
    items.sort(key=lambda item: item.get_closest_marker("waits_long") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the garbage collector away from modules and tests: none of them is garbage.

    It would go through all of them again and again, which takes as long as to import them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keeps tokens out of the names of tests: every process must collect the same names.

    A token differs from second to second. Old versions of pytest put it into the name.
    """
    return argname if isinstance(val, str | bytes) and len(val) > 60 else None


# No deadline for one example: the machine that runs the suite may be busy with something else.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=5000)
hypothesis.settings.register_profile("short", deadline=None, max_examples=20)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
