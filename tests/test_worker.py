"""What the worker class does to its own process, in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("before", "expected"),
    [("", "(10000, 10, 100)"), ("gc.set_threshold(5000, 7, 7)", "(5000, 7, 7)")],
)
def test_the_collector_is_held_back_unless_the_application_has_set_it(
    before: str, expected: str
) -> None:
    program = (
        "import gc\n"
        "from sseflask.transport.worker import _calm_collector\n"
        f"{before}\n"
        "_calm_collector()\n"
        "print(gc.get_threshold(), gc.get_freeze_count() > 1000)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == f"{expected} True"
