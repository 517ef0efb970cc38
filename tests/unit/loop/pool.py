"""``python -m tests.unit.loop.pool <path>``: gevent's thread pool at work; prints a report."""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from tests.switches import watch_switches

switches = watch_switches()  # before other modules make their locks

import json
import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import gevent
from flask import Flask

from sseflask import SSE
from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import CHAT
from sseflask.completions.formats import FORMATS
from sseflask.runs.outcome import Generated
from sseflask.runs.runs import Beginning, Runs, Started
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms, Writer
from sseflask.transport.source import Source
from sseflask.wire import Decoder
from tests.scripted_upstream import frame

Value = TypeVar("Value")

app = Flask(__name__)
app.testing = True
sse = SSE(app)


def spawn(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in the pool. Returns gevent's result."""
    return gevent.get_hub().threadpool.spawn(function, *arguments)


def in_pool(function: Callable[[], Value]) -> Value:
    value: Value = spawn(function).get(timeout=30)
    return value


def data_of(body: bytes) -> list[str]:
    return [event.data for event in Decoder().feed(body)]


def text_of(viewer: Viewer) -> list[str]:
    return data_of(b"".join(viewer.frames()))


def words() -> Generated:
    for word in ("one", "two", "three"):
        gevent.sleep(0.01)
        yield [frame(word)]
    yield CompletionOutcome("finished", "stop")


def endless() -> Generated:
    while True:
        gevent.sleep(0.01)
        yield [frame("more")]


def begin(runs: Runs, answer: Callable[[], Generated] = words) -> Started:
    started = runs.start(
        lambda _: answer(),
        Beginning(
            subject="alice",
            account="alice",
            label=CHAT,
            terms=Terms(math.inf, runs.bounds.max_run_bytes, runs.bounds.run_seconds),
        ),
        FORMATS["text"],
    )
    assert isinstance(started, Started)
    return started


def added_in_pool(runs: Runs) -> int:
    """How much a thread has added to a run: more than may wait to be stored."""

    def answer(writer: Writer) -> Generated:
        in_pool(lambda: [writer.write([frame("x" * 100_000)]) for _ in range(40)])
        yield CompletionOutcome("finished", "stop")

    started = runs.start(
        answer, Beginning("alice", "alice", CHAT, Terms(bytes=1e8)), FORMATS["text"]
    )
    return len("".join(text_of(started.viewer)[:-1]))


def publish(text: str) -> None:
    with app.app_context():
        sse.publish("news", text)


def subscribed(last: str) -> list[str]:
    """What a subscriber gets, up to some text."""
    body = b""
    with app.test_request_context("/?last_event_id=earliest"):
        pieces = cast(Source, sse.subscribe("news").response).frames()
        while last not in data_of(body):
            body += next(pieces)
    return data_of(body)


def waits_for_what_comes() -> list[str]:
    reader = spawn(subscribed, "second")
    publish("second")
    read: list[str] = reader.get(timeout=30)
    return read


def main(path: str) -> dict[str, Any]:
    runs = Runs(lambda: path, seconds=100, max_running=1000, outcome_of=CompletionOutcome.of)
    read = [in_pool(lambda: text_of(begin(runs).viewer))]  # their first use
    read.append(text_of(in_pool(lambda: begin(runs)).viewer))
    at_once = [spawn(lambda: text_of(begin(runs).viewer)) for _ in range(8)]
    read += [each.get(timeout=30) for each in at_once]
    going = in_pool(lambda: begin(runs, endless))
    in_pool(lambda: runs.stop(going.run))
    stopped = text_of(going.viewer)[-1]
    added = added_in_pool(runs)
    runs.close()
    in_pool(lambda: publish("first"))
    return {
        "switches": switches,
        "read": read,
        "stopped": stopped,
        "added": added,
        "subscribed": [in_pool(lambda: subscribed("first")), waits_for_what_comes()],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
