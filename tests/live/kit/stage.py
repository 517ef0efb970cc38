"""Runs of the service: started, read in each format, and traced to the worker that has them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil

from tests.live.kit.clients import Sent, Stream, open_stream
from tests.live.kit.runs import connect_to, owner_of, run_of
from tests.live.kit.servers import Server
from tests.live.kit.services import KEY, SECRET, SERVICE, Upstream, service

FORMATS = ("chunks", "text", "events", "ui")
#: What `chunks` says of a run that did not finish, by the error's type.
CHUNK_OUTCOMES = {"run_stopped": "stopped", "run_cancelled": "cancelled"}


@dataclass(frozen=True)
class Stage:
    """A service with two workers, and the upstream it asks.

    Args:
        server: the service; this machine needs no token.
        upstream: npm's aimock, for this service alone.
    """

    server: Server
    upstream: Upstream


def stage_service(
    directory: Path,
    upstream: Upstream | int,
    *options: str,
    workers: int = 2,
    settings: Mapping[str, str] | None = None,
    application: str = SERVICE,
) -> AbstractContextManager[Server]:
    """The service in front of aimock, or of the port of something in front of it."""
    port = upstream if isinstance(upstream, int) else upstream.port
    changes = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "OPENAI_API_KEY": KEY,
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_RATE_LIMIT": "off",
        **(settings or {}),
    }
    return service(directory, *options, workers=workers, settings=changes, application=application)


def path(message: str, **parameters: str) -> str:
    """Where a run with this message is started."""
    return "/sse/openai_out?" + urlencode({"user_message": message, **parameters})


def start(server: Server | int, message: str, **parameters: str) -> Stream:
    """Start a run, as somebody who reads it."""
    stream = open_stream(server, path(message, **parameters), method="POST")
    assert stream.head.status == 200, stream.head
    return stream


def attach(
    server: Server | int, run: str, form: str = "text", headers: Mapping[str, str] | None = None
) -> Stream:
    """Read a run, from its start unless the headers have a Last-Event-ID."""
    stream = open_stream(server, f"/runs/{run}?format={form}", headers=headers)
    assert stream.head.status == 200, stream.head
    assert run_of(stream) == run
    return stream


def whole(text: str) -> str:
    """Text whose characters were cut in two where UTF-16 was: put together again.

    A half without its other one is left out: so it is at the end of a text that goes on.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")


@dataclass
class Told:
    """What a run has told.

    Args:
        events: all of them, the terminal one last.
        form: their format.
    """

    events: Sequence[Sent]
    form: str
    text: str = ""
    reasoning: str = ""
    usage: list[dict[str, Any]] = field(default_factory=list)
    #: finished, stopped, cancelled or failed; empty while there is no terminal event.
    outcome: str = ""
    #: What the model gave as its reason, as each format spells it.
    reason: str | None = None
    error: Any = None
    terminals: int = 0
    #: How many events had text.
    pieces: int = 0

    def __post_init__(self) -> None:
        # When to come back is said once for each connection, and nothing of the run's.
        self.events = [replace(event, retry=None) for event in self.events]
        for event in self.events:
            assert not self.outcome or (self.form == "ui" and event.data == "[DONE]"), (
                f"{event} comes after the end: {self.events[-4:]}"
            )
            getattr(self, f"_{self.form}")(event)
        self.text = whole(self.text)
        self.reasoning = whole(self.reasoning)
        if self.form == "ui" and self.outcome:
            assert self.events[-1].data == "[DONE]"
            assert [event.data for event in self.events].count("[DONE]") == 1

    def _say(self, text: str) -> None:
        self.text += text
        self.pieces += bool(text)

    def _end(self, outcome: str) -> None:
        self.outcome = outcome
        self.terminals += 1
        assert self.terminals == 1

    def _chunks(self, event: Sent) -> None:
        assert event.event is None
        if event.data == "[DONE]":
            return self._end("finished")
        data = json.loads(event.data or "")
        if "error" in data:
            self.error = data["error"]
            assert {"message", "type", "param", "code"} <= set(self.error)
            return self._end(CHUNK_OUTCOMES.get(self.error["type"], "failed"))
        if data.get("usage"):
            self.usage.append(data["usage"])
        for choice in data["choices"]:
            self._say(choice["delta"].get("content") or "")
            self.reasoning += choice["delta"].get("reasoning_content") or ""
            self.reason = choice["finish_reason"] or self.reason
        return None

    def _text(self, event: Sent) -> None:
        if event.event is None:
            self._say(event.data or "")
        else:
            self._done_or_failure(event)

    def _events(self, event: Sent) -> None:
        data = json.loads(event.data or "")
        if event.event == "text":
            self._say(data["text"])
        elif event.event == "reasoning":
            self.reasoning += data["text"]
        elif event.event == "usage":
            self.usage.append(data)
        elif event.event != "tool_call":
            self._done_or_failure(event)

    def _done_or_failure(self, event: Sent) -> None:
        data = json.loads(event.data or "")
        if event.event == "done":
            self.reason = data["finish_reason"]
            given_up = self.reason in ("stopped", "cancelled")
            return self._end(str(self.reason) if given_up else "finished")
        assert event.event == "failure", event
        self.error = data["error"]
        assert {"message", "type", "param", "code"} <= set(self.error)
        return self._end("failed")

    def _ui(self, event: Sent) -> None:
        assert event.event is None
        if event.data == "[DONE]":
            return
        data = json.loads(event.data or "")
        kind = data["type"]
        if kind == "text-delta":
            self._say(data["delta"])
        elif kind == "reasoning-delta":
            self.reasoning += data["delta"]
        elif kind == "finish":
            self.reason = data["finishReason"]
            self._end("finished")
        elif kind == "abort":
            self._end(data["reason"])
        elif kind == "error":
            self.error = data["errorText"]
            self._end("failed")


def read(stream: Stream, form: str, before: Sequence[Sent] = ()) -> Told:
    """The rest of a run, to its one terminal event and the end of the response.

    Args:
        stream: what is read.
        form: its format.
        before: what of it has been read already.
    """
    told = Told([*before, *stream.rest()], form)
    assert told.outcome, f"no terminal event: {told.events[-3:]}"
    return told


def ended(server: Server | int, run: str, form: str = "text") -> Told:
    """A run from its start to its end; who asks for it before it has ended waits for it."""
    with attach(server, run, form) as stream:
        return read(stream, form)


def take(stream: Stream, pieces: int, form: str = "text") -> list[Sent]:
    """The next events until so many of them had text (or half a character); none may be the end."""
    events: list[Sent] = []
    while pieces:
        event = stream.next()
        told = Told([event], form)
        assert not told.outcome, event
        events.append(event)
        pieces -= bool(told.pieces)
    return events


def writer(server: Server, stream: Stream) -> psutil.Process:
    """The worker that writes a run: the one that serves the request which began it."""
    return owner_of(server, stream.connection)


def other(server: Server, worker: psutil.Process) -> psutil.Process:
    """The other one of two workers."""
    (found,) = [each for each in server.workers() if each.pid != worker.pid]
    return found


@contextlib.contextmanager
def attach_at(
    server: Server,
    worker: psutil.Process,
    run: str,
    form: str = "text",
    headers: Mapping[str, str] | None = None,
) -> Iterator[Stream]:
    """Read a run from this worker, from its start unless the headers have a Last-Event-ID."""
    with connect_to(server, worker) as connection:
        connection.request(f"/runs/{run}?format={form}", headers=headers)
        stream = Stream(connection)
        assert stream.head.status == 200, stream.head
        yield stream
