"""Leaving while the upstream is silent, the way gevent's transports do it: an exception thrown in.

Needs gevent's patched standard library, hence a process of its own.
"""

from __future__ import annotations

import pytest

from tests.processes import run_program

PROGRAM = """
from gevent import monkey
monkey.patch_all()

import sys
import threading

import gevent

from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.config import load
from tests.scripted_upstream import frame, upstream
from tests.service import environment

moment = sys.argv[1]
waiting, left = threading.Event(), threading.Event()
ended = []


class Leave(BaseException):
    pass


def script(exchange):
    if moment == "between tokens":
        exchange.begin()
        exchange.chunk(frame("one"))
    else:
        waiting.set()
    assert exchange.left()
    left.set()


with upstream(script) as server:
    with environment(OPENAI_BASE_URL=server.url):
        there = Upstream(load())

    def consume():
        try:
            for _ in there.stream(CompletionRequest("/chat/completions", b"{}")):
                waiting.set()
        except Leave:
            ended.append("left")

    consumer = gevent.spawn(consume)
    assert waiting.wait(10)
    gevent.sleep(0)  # the consumer goes on until it blocks
    assert not left.is_set()
    consumer.kill(Leave)
    assert left.wait(5), "the upstream was not cancelled"
    assert ended == ["left"]
    there.close()
print("cancelled")
"""


@pytest.mark.parametrize("moment", ["before the first token", "between tokens"])
def test_an_exception_thrown_in_cancels_the_upstream(moment: str) -> None:
    done = run_program(PROGRAM, moment)
    assert (done.returncode, done.stdout) == (0, "cancelled\n"), done.stderr
