"""``python -m tests.unit.runs.greenlets <path>``: runs under gevent; prints a report.

Writers in greenlets store through a store that now and then fails, seen by viewers of their process
and of another's; a first frame comes while others are paced.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from tests.switches import watch_switches

switches = watch_switches()  # before other modules make their locks

import json
import logging
import math
import random
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar
from unittest import mock

import gevent
from gevent.event import Event as Signal

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import CHAT
from sseflask.completions.formats import FORMATS
from sseflask.runs.outcome import Generated
from sseflask.runs.process import RunProcess
from sseflask.runs.runs import Beginning, Runs, Started
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms, Writer
from sseflask.store.api import StoreError
from sseflask.store.run_api import Run, RunAppend
from sseflask.store.sqlite import run_store as module
from sseflask.store.sqlite.run_database import RunDatabase
from sseflask.store.sqlite.run_store import SqliteRunStore
from sseflask.wire import Decoder
from tests.scripted_upstream import frame
from tests.unit.store.sqlite.run_databases import DAY, FINISHED

RUNS, FRAMES = 40, 100


class Failing(RunDatabase):
    """Counts its transactions, and fails in one of ten."""

    sizes: ClassVar[list[int]] = []
    chance = random.Random(1)

    def append(self, appends: Sequence[RunAppend]) -> tuple[list[RunAppend], list[Run]]:
        if self.chance.random() < 0.1:
            raise StoreError("the disk is busy")
        self.sizes.append(sum(len(append.frames) for append in appends))
        return super().append(appends)


def answer() -> Generated:
    for number in range(1, FRAMES + 1):
        gevent.sleep(0.01)
        yield [frame(f"{number} ")]
    yield FINISHED


def begin(runs: Runs, what: Generated, alone_seconds: float = math.inf) -> Started:
    started = runs.start(
        lambda _: what,
        Beginning("alice", "alice", CHAT, Terms(alone_seconds)),
        FORMATS["text"],
    )
    assert isinstance(started, Started)
    return started


def text_of(viewer: Viewer) -> list[str]:
    return [event.data for event in Decoder().feed(b"".join(viewer.frames()))]


def cancelled_at_once(runs: Runs) -> bool:
    """Whether an upstream that is silent is left when its last viewer goes."""
    waiting, left = Signal(), Signal()

    def silent() -> Generated:
        try:
            yield [frame("one")]
            waiting.set()
            gevent.sleep(60)
        finally:
            left.set()
        yield FINISHED

    started = begin(runs, silent(), alone_seconds=0.0)
    waiting.wait(10)
    started.viewer.close()
    return bool(left.wait(10))


def cleans_up(runs: Runs) -> bool:
    """Whether an upstream that closes slowly is closed once only, however often it is asked."""
    waiting, left = Signal(), Signal()

    def slow() -> Generated:
        try:
            waiting.set()
            gevent.sleep(60)
            yield []
        finally:
            gevent.sleep(0.05)
            left.set()
        yield FINISHED

    started = begin(runs, slow())
    waiting.wait(10)
    live = runs._process.get().live_runs.get(started.run.key)
    assert live is not None
    assert live.writer is not None
    live.writer.cancel()
    gevent.sleep(0.01)
    runs.stop(started.run)
    return bool(left.wait(1))


def leaves_what_is_too_large(runs: Runs) -> bool:
    """Whether an upstream that is silent is left when what another greenlet adds is too large."""
    left = Signal()

    def silent(writer: Writer) -> Generated:
        try:
            gevent.spawn(writer.write, [frame("x" * 1000)])
            gevent.sleep(60)
        finally:
            left.set()
        yield FINISHED

    started = runs.start(
        silent, Beginning("alice", "alice", CHAT, Terms(bytes=500)), FORMATS["text"]
    )
    return bool(left.wait(10)) and '"run_too_large"' in text_of(started.viewer)[-1]


def closes_slowly_what_is_too_large(runs: Runs) -> bool:
    """Whether who adds too much to its own run may close slowly: it knows already."""
    left = Signal()

    def large(writer: Writer) -> Generated:
        try:
            writer.write([frame("x" * 1000)])
        finally:
            gevent.sleep(0.2)
            left.set()
        yield FINISHED

    runs.start(large, Beginning("alice", "alice", CHAT, Terms(bytes=500)), FORMATS["text"])
    return bool(left.wait(10))


def remaining(process: RunProcess) -> int:
    """Runs, and appends to them, that the process still knows."""
    assert isinstance(process.store, SqliteRunStore)
    queue = process.store._queue
    return len(process.live_runs._runs) + len(queue._waiting) + len(queue._storing)


def reads_the_rest(runs: Runs) -> bool:
    """Whether an upstream whose answer has ended may go on ending its response."""
    told, over = Signal(), Signal()

    def ending() -> Generated:
        yield FINISHED
        told.wait(10)
        gevent.sleep(0.05)
        over.set()

    started = begin(runs, ending())
    text_of(started.viewer)
    told.set()
    return bool(over.wait(10))


def logged_at_close(runs: Runs) -> bool:
    """Whether the store has the ends of runs that are written when the process ends."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]  # for a test
    log = logging.getLogger("sseflask")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    run = begin(runs, answer()).run
    gevent.sleep(0.05)
    runs.close()  # the loop does not run any more then
    log.removeHandler(handler)
    return any(line.startswith(f"run {run.id}: failed (interrupted)") for line in lines)


@mock.patch.object(module, "RunDatabase", Failing)
def main(path: str) -> dict[str, Any]:
    runs, other = (
        Runs(lambda: path, seconds=DAY, max_running=1000, outcome_of=CompletionOutcome.of)
        for _ in range(2)
    )
    expected = [f"{number} " for number in range(1, FRAMES + 1)]
    expected.append('{"finish_reason":"stop"}')
    started = [begin(runs, answer()) for _ in range(RUNS)]
    viewers = [each.viewer for each in started]
    viewers += [other.view(each.run, FORMATS["text"]) for each in started]
    greenlets = [gevent.spawn(text_of, viewer) for viewer in viewers]
    gevent.joinall(greenlets, timeout=60)
    texts = [greenlet.value for greenlet in greenlets]
    transactions = len(Failing.sizes)
    began = time.monotonic()
    cancelled = cancelled_at_once(runs)
    cancelled_in = time.monotonic() - began
    cleaned = cleans_up(runs)
    reused = reads_the_rest(runs)
    too_large = leaves_what_is_too_large(runs) and closes_slowly_what_is_too_large(runs)
    silent = begin(runs, answer())
    runs._process.get().interrupt()
    interrupted = text_of(silent.viewer)[-1]
    done = runs._process.get().wait_until_done(10)
    own = runs._process.get()
    # The last of it happens in the loop, soon after the store has it.
    until = time.monotonic() + 10
    while (left := remaining(own)) and time.monotonic() < until:
        gevent.sleep(0.01)
    logged = logged_at_close(runs)
    other.close()
    return {
        "switches": switches,
        "right": sum(text == expected for text in texts),
        "transactions": transactions,
        "largest": max(Failing.sizes),
        "cancelled": cancelled and cancelled_in < 5,
        "cleaned": cleaned,
        "reused": reused,
        "too_large": too_large,
        "interrupted": '"interrupted"' in interrupted and done,
        "left": left,
        "logged": logged,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
