"""What the tests of both SQLite stores share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's store is."""
    return tmp_path / "store.db"
