"""When an iterable that blocks is interrupted, and when it is not."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from sseflask.transport.stream_greenlet import Killed, StreamGreenlet

SECONDS = 10.0


class Stream:
    """A greenlet that advances something which blocks, or waits for its client."""

    def __init__(self, run: Callable[[StreamGreenlet], Any]) -> None:
        self.ended_by: list[str] = []
        self.greenlet: StreamGreenlet | None = None
        self.running = gevent.spawn(self._run, run)
        gevent.sleep(0)

    def _run(self, run: Callable[[StreamGreenlet], Any]) -> None:
        self.greenlet = StreamGreenlet()
        try:
            run(self.greenlet)
        except Killed:
            self.ended_by.append("kill")
        # What the greenlet does next, such as its connection's next request.
        gevent.sleep(0.01)
        self.ended_by.append("end")

    def end(self, how: str) -> list[str]:
        assert self.greenlet is not None
        getattr(self.greenlet, how)()
        self.running.join(SECONDS)
        assert self.running.successful()
        return self.ended_by


def block(greenlet: StreamGreenlet) -> None:
    greenlet.advancing = True
    try:
        gevent.sleep(SECONDS)
    finally:
        greenlet.advancing = False


def wait(greenlet: StreamGreenlet) -> None:
    greenlet.advancing = True
    greenlet.wait(SECONDS)
    greenlet.advancing = False


def test_an_iterable_that_blocks_is_interrupted_once() -> None:
    stream = Stream(block)
    assert stream.greenlet is not None
    stream.greenlet.stop()
    assert stream.end("client_gone") == ["kill", "end"]
    assert stream.greenlet.stopping
    assert stream.greenlet.client_left


def test_a_wait_of_the_transport_is_ended_without_an_exception() -> None:
    assert Stream(wait).end("stop") == ["end"]
    assert Stream(wait).end("wake") == ["end"]


def test_what_does_not_advance_is_not_interrupted() -> None:
    assert Stream(lambda _: gevent.sleep(0.01)).end("stop") == ["end"]


def test_a_stream_that_is_to_end_buffers_nothing_more() -> None:
    greenlet = StreamGreenlet()
    assert (greenlet.may_end, greenlet.stopping) == (False, False)
    greenlet.stop()
    assert (greenlet.may_end, greenlet.stopping) == (True, True)
    assert not greenlet.client_left


@pytest.mark.parametrize(("number", "slow"), [(errno.ETIMEDOUT, True), (errno.ECONNRESET, False)])
def test_a_connection_that_the_system_has_ended_is_remembered(number: int, slow: bool) -> None:
    greenlet = StreamGreenlet()
    greenlet.client_gone(OSError(number, "as of read"))
    greenlet.client_gone(OSError(errno.EPIPE, "as of a later write"))
    assert greenlet.client_left
    assert greenlet.timed_out == slow
