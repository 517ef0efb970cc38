from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sseflask.loop.callbacks import Timeout, cooperative, wait_for_callback
from tests.processes import report_of, run_program

Done = Callable[[Any, Exception | None], None]


def in_a_thread(result: Any, error: Exception | None = None) -> Callable[[Done], None]:
    return lambda done: threading.Thread(target=done, args=(result, error)).start()


def test_results_and_errors_come_over() -> None:
    assert not cooperative()
    assert wait_for_callback(in_a_thread(7), 10) == 7
    with pytest.raises(KeyError):
        wait_for_callback(in_a_thread(None, KeyError("x")), 10)
    with pytest.raises(Timeout):
        wait_for_callback(lambda _done: None, 0.01)


PROGRAM = """
from gevent import monkey
monkey.patch_all()
import threading
import gevent
from gevent.event import Event
from sseflask.loop.callbacks import (
    EventLoop, Timeout, call_outside_loop, cooperative, wait_for_callback
)
start_native = monkey.get_original("_thread", "start_new_thread")

assert cooperative()
turns = []
def tick():
    while True:
        turns.append(1)
        gevent.sleep(0.001)
ticking = gevent.spawn(tick)

def slowly(done):
    # The answer comes when the loop has gone round some more: it must not stand still.
    def wait():
        original = monkey.get_original("time", "sleep")
        before = len(turns)
        while len(turns) < before + 5:
            original(0.001)
        done("answer", None)
    start_native(wait, ())

assert wait_for_callback(slowly, 10) == "answer"
try:
    wait_for_callback(lambda done: start_native(done, (None, KeyError("x"))), 10)
except KeyError:
    pass
else:
    raise SystemExit("no KeyError")
try:
    wait_for_callback(lambda done: None, 0.01)
except Timeout:
    pass
else:
    raise SystemExit("no Timeout")

# What comes together is called in order, and one that fails does not take the others with it.
called = []
event_loop = EventLoop.current()
event_loop.call_soon_threadsafe(called.append, 1)
event_loop.call_soon_threadsafe(called.index, "not there")
event_loop.call_soon_threadsafe(called.append, 2)
gevent.sleep(0.01)
assert called == [1, 2], called

# A lock that somebody else has: the loop must not wait for it, a greenlet may.
lock = threading.RLock()
held, free = Event(), Event()


def hold():
    with lock:
        held.set()
        free.wait()


def log():
    with lock:
        called.append(3)


gevent.spawn(hold)
held.wait()
event_loop.call_soon_threadsafe(call_outside_loop, log)
gevent.sleep(0.01)
assert called == [1, 2], called
free.set()
gevent.sleep(0.01)
assert called == [1, 2, 3], called
call_outside_loop(log)
assert called == [1, 2, 3, 3], called
print("fine")
"""


def test_under_gevent_the_loop_goes_on() -> None:
    done = run_program(PROGRAM)
    assert done.stdout == "fine\n", done.stderr


def test_threads_of_gevents_pool_begin_read_stop_publish_and_subscribe(tmp_path: Path) -> None:
    report = report_of("tests.unit.loop.pool", tmp_path / "runs.db")
    assert report["switches"] == [], "with a native lock held"
    whole = ["one", "two", "three", '{"finish_reason":"stop"}']
    assert report["read"] == [whole] * 10
    assert report["stopped"] == '{"finish_reason":"stopped"}'
    assert report["added"] == 4_000_000
    assert report["subscribed"] == [["first"], ["first", "second"]]
