"""How an address chooses a store, and what is said of one that can't be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sseflask.store.api import EventLimits
from sseflask.store.open import event_store_problem, open_event_store, run_store_problem
from sseflask.store.redis.event_store import RedisEventStore

LIMITS = EventLimits(10, 60.0)


@pytest.mark.parametrize("address", ["redis://h", "rediss+cluster://h:1", "unix:///s?prefix=a"])
def test_urls_mean_redis(address: str) -> None:
    assert isinstance(open_event_store(address, LIMITS), RedisEventStore)
    assert event_store_problem(address) == run_store_problem(address) == ""


def test_what_is_wrong_with_a_url() -> None:
    assert "unknown argument" in event_store_problem("redis://h?what=1")
    assert "lacks the master's name" in run_store_problem("redis+sentinel://h")


def test_redis_is_not_imported_before_it_is_needed() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from sseflask.store.open import event_store_problem, open_event_store\n"
        "from sseflask.store.api import EventLimits\n"
        "open_event_store('a.db', EventLimits(1, 1.0))\n"
        "assert 'gevent' not in sys.modules\n"
        "print(event_store_problem('redis://h'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert 'pip install "sseflask[redis]"' in done.stdout
