"""Native locks are not held over a switch: that this would be found, and what is native."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
from gevent import monkey
monkey.patch_all()
from tests.switches import watch_switches
found = watch_switches()
import threading
import gevent
from sseflask.counters.counts import LOCK
from sseflask.loop import native

rlock = native.rlock()
condition = threading.Condition(rlock)

def well_behaved():
    with LOCK, rlock, rlock:
        pass
    gevent.sleep(0)
    with rlock, condition:
        condition.wait(0.01)  # lets go of the lock meanwhile
    gevent.sleep(0)

def holds_lock():
    with LOCK:
        gevent.sleep(0)

def holds_rlock():
    with rlock:
        with rlock:
            pass
        gevent.sleep(0)

def waits_elsewhere():
    with rlock:
        native_event = threading.Event()
        native_event.wait(0.01)

{name}()
print(any("{name}" in each for each in found), len(found) > 0)
"""


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("well_behaved", False),
        ("holds_lock", True),
        ("holds_rlock", True),
        ("waits_elsewhere", True),
    ],
)
def test_a_switch_with_a_lock_held_is_found(name: str, found: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{name}", name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{found} {found}\n", done.stderr
