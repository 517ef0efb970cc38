"""What the transports use of gevent's loop below its public interface."""

from __future__ import annotations

import os
import time
from typing import Any

import gevent
import gevent.socket
import pytest

from sseflask.logs import once
from sseflask.transport import event_loop
from sseflask.transport.event_loop import WaitHook

SECONDS = 10.0


def turns(number: int) -> None:
    for _ in range(number):
        gevent.sleep(0.001)


def order_of(priority: int) -> tuple[list[str], WaitHook]:
    """What a hook and a greenlet that wakes in the same turn of the loop do, in their order."""
    happened: list[str] = []
    hook = WaitHook(lambda: happened.append("hook"), priority)
    turns(30)
    woken = gevent.event.Event()

    def wait() -> None:
        woken.wait(SECONDS)
        happened.append("greenlet")

    def wake() -> None:
        happened.clear()
        woken.set()

    greenlet = gevent.spawn(wait)
    turns(1)
    timer = event_loop.start_timer(0.001, wake)
    greenlet.join(SECONDS)
    turns(2)
    timer.close()
    return happened, hook


@pytest.fixture(autouse=True)
def _nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once, "_warned", set())


def test_the_watcher_that_a_socket_has_for_reading() -> None:
    """It is called while something can be read. Once it is stopped a greenlet reads as usual."""
    here, there = gevent.socket.socketpair()
    with here, there:
        read: list[bytes] = []
        watcher = event_loop.read_watcher(here)
        watcher.start(lambda: read.append(os.read(here.fileno(), 100)))
        there.sendall(b"one")
        turns(3)
        assert (read, watcher.active) == ([b"one"], True)
        watcher.stop()
        gevent.spawn_later(0.01, there.sendall, b"two")
        assert here.recv(100) == b"two"
        assert read == [b"one"]


def test_the_hook_is_called_after_the_greenlets_of_a_turn() -> None:
    happened, hook = order_of(-2)
    assert hook.available
    assert hook.reliable
    assert happened[:2] == ["greenlet", "hook"]


def test_a_loop_of_another_order_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    happened, hook = order_of(0)
    assert hook.available
    assert not hook.reliable
    assert happened[:2] == ["hook", "greenlet"]
    assert [record.getMessage()[:15] for record in caplog.records] == ["This event loop"]


def test_it_is_tried_out_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a turn with much to do gevent leaves some callbacks to the next one."""

    def work() -> None:
        until = time.monotonic() + 0.0005
        while time.monotonic() < until:
            pass

    def reliable() -> bool:
        for _ in range(400):
            event_loop.run_soon(work)
        hook = WaitHook(lambda: None)
        turns(30)
        return hook.reliable

    assert reliable()
    monkeypatch.setattr(event_loop, "_TRIALS", 1)
    assert not reliable()


def test_a_loop_may_have_no_such_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = without_hooks(monkeypatch)
    turns(5)
    assert not hook.available
    assert not hook.reliable


def without_hooks(monkeypatch: pytest.MonkeyPatch) -> WaitHook:
    class Loop:
        """As libuv's."""

        def prepare(self, **_: Any) -> None:
            raise TypeError("prepare watchers are not currently supported in libuv.")

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    loop = gevent.get_hub().loop
    with monkeypatch.context() as patched:
        patched.setattr(gevent.get_hub(), "loop", Loop())
        return WaitHook(lambda: None)


def test_a_timer_fires_once() -> None:
    fired: list[int] = []
    timer = event_loop.start_timer(0.0, lambda: fired.append(1))
    turns(5)
    assert fired == [1]
    timer.close()
    timer.close()


def test_a_descriptor_is_watched_until_it_is_stopped() -> None:
    readable, writable = os.pipe()
    seen: list[bytes] = []
    watcher = event_loop.watch(readable, event_loop.READ)
    assert not watcher.active
    watcher.start(lambda: seen.append(os.read(readable, 10)))
    os.write(writable, b"one")
    turns(3)
    watcher.stop()
    assert not watcher.active
    os.write(writable, b"two")
    turns(3)
    assert seen == [b"one"]
    watcher.close()
    os.close(readable)
    os.close(writable)


def test_an_exception_is_thrown_into_a_greenlet_that_waits() -> None:
    class Private(GeneratorExit):
        pass

    def wait() -> str:
        try:
            gevent.sleep(SECONDS)
        except Private:
            return "thrown"
        return "slept"

    greenlet = gevent.spawn(wait)
    turns(1)
    event_loop.run_soon(lambda: event_loop.throw(greenlet, Private))
    assert greenlet.get(timeout=SECONDS) == "thrown"
