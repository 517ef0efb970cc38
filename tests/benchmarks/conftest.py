"""The load client as it is when nobody looks at the figures."""

from __future__ import annotations

import pytest

from benchmarks.client import load


@pytest.fixture(autouse=True)
def waiting_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the load client wait for its server: asking again and again would take a core."""
    monkeypatch.setattr(load, "WAIT", 0.001)
