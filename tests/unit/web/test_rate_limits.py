"""How requests are counted."""

from __future__ import annotations

import threading
import time

import pytest

from sseflask.errors import Failure
from sseflask.web import rate_limits as limits


def test_counting_starts_no_thread() -> None:
    counting = limits.Limits("off", "1000/minute")
    before = threading.enumerate()
    for number in range(100):
        counting.count("publications", f"subject {number}")
    assert threading.enumerate() == before


def test_each_account_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    counting = limits.Limits("off", "2/minute")

    def waits(account: str) -> str | None:
        try:
            counting.count("publications", account)
        except Failure as failure:
            return dict(failure.headers)["Retry-After"]
        return None

    assert [waits("a"), waits("a"), waits("a")] == [None, None, "60"]
    now += 40
    assert [waits("a"), waits("b")] == ["20", None]
    now += 20
    assert [waits("a"), waits("b"), waits("b")] == [None, None, "40"]
    now += 40
    assert waits("b") is None
