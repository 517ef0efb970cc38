"""Durable generators as clients see them: an application on every kind of server, and its runs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.durable.probe import gates
from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Answer, Connection
from tests.live.kit.events import Sent
from tests.live.kit.publishing import error_of
from tests.live.kit.runs import ask, path_of, run_of
from tests.live.kit.servers import GUNICORN, ROOT, WORKER, Server, environment, free_port, running
from tests.live.kit.waiting import until
from tests.live.kit.workers import listening, wait_for_workers

APP = "tests.live.durable.probe.app:app"
#: Within this time a run whose worker has died is ended or taken over: the issue says so.
LIMIT = 10.0

#: Our worker and the plain one: a stop reaches a generator wherever it blocks.
GEVENT = ["gunicorn-worker", "gunicorn-gevent"]
#: A stop reaches a generator at its next yield.
THREADS = ["gunicorn-gthread", "waitress"]
#: Those with a second worker.
WORKERS = ["gunicorn-worker", "gunicorn-gevent", "gunicorn-gthread"]
#: The main ones again, with their runs on a Redis server.
REDIS = ["gunicorn-worker redis", "gunicorn-gthread redis"]

EVERYWHERE = [*GEVENT, *THREADS, *REDIS]

everywhere = pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
on_gevent = pytest.mark.parametrize("place", [*GEVENT, REDIS[0]], indirect=True)
on_threads = pytest.mark.parametrize("place", [*THREADS, REDIS[1]], indirect=True)
with_two_workers = pytest.mark.parametrize("place", [*WORKERS, *REDIS], indirect=True)
#: For what does not depend on the server: once under gevent, once in threads.
on_two = pytest.mark.parametrize("place", ["gunicorn-worker", "waitress"], indirect=True)


def command(kind: str, port: int, workers: int = 2, *options: str) -> list[str]:
    """How the application is served."""
    bind = ["--bind", f"127.0.0.1:{port}", "--graceful-timeout", "6", "--keep-alive", "20"]
    bind += ["-w", str(workers), "--worker-connections", "4000", *options]
    if kind == "gunicorn-worker":
        return [*GUNICORN, *bind, "-k", WORKER, APP]
    if kind == "gunicorn-gevent":
        return [*GUNICORN, "-c", "sseflask/gunicorn_conf.py", *bind, "-k", "gevent", APP]
    if kind == "gunicorn-gthread":
        return [*GUNICORN, *bind, "-k", "gthread", "--threads", "60", APP]
    if kind == "waitress":
        listen = ["--listen", f"127.0.0.1:{port}", "--threads", "80"]
        return [sys.executable, "-m", "waitress", *listen, APP]
    raise ValueError(kind)


@dataclass
class Place:
    """The application on a server: its runs are begun, viewed and stopped.

    Args:
        server: what serves it.
        directory: where its generators note what happens, and where gates are.
        runs: where the runs are stored: a path, or a URL.
    """

    server: Server
    directory: Path
    runs: str
    workers: int

    # -- what generators do --------------------------------------------------------------------

    def marks(self, tag: str) -> list[str]:
        path = self.directory / tag
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(self, tag: str, mark: str, *, seconds: float = 15.0) -> None:
        """Wait until this was noted."""
        until(
            lambda: mark in self.marks(tag),
            f"{mark!r} among the marks of {tag}: {self.marks(tag)}",
            seconds=seconds,
        )

    def allow(self, tag: str, number: int) -> None:
        """Let the generators of a tag make so many items in all."""
        gates.allow(self.directory, tag, number)

    def starts(self, tag: str) -> list[int]:
        """The processes that have run a generator of this tag."""
        marks = [mark.split() for mark in self.marks(tag)]
        return [int(words[1]) for words in marks if words[0] == "started"]

    def writer(self, tag: str) -> psutil.Process:
        """The process in which the only generator of this tag runs."""
        until(lambda: self.starts(tag), f"a generator of {tag} has begun")
        (pid,) = self.starts(tag)
        return psutil.Process(pid)

    # -- what clients do -----------------------------------------------------------------------

    def run(
        self,
        name: str,
        tag: str,
        *,
        where: Connection | None = None,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> Stream:
        """Begin a run and view it; it goes on when its viewers have left, unless it is asked."""
        asked = {"on_disconnect": "continue", **asked}
        path = path_of(f"/run/{name}", tag=tag, **asked)
        return open_stream(where or self.server, path, method=method, headers=headers)

    def view(self, path: str, *, where: Connection | None = None, **headers: str) -> Stream:
        """Begin a run with a view of its own."""
        return open_stream(where or self.server, path, headers=headers)

    def attach(
        self,
        run: str,
        last: str | None = None,
        *,
        where: Connection | None = None,
        headers: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> Stream:
        cursor = {} if last is None else {"Last-Event-ID": last}
        path = path_of(f"/attach/{run}", **asked)
        return open_stream(where or self.server, path, headers={**cursor, **(headers or {})})

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return ask(self.server, path, method, headers)

    def start(self, name: str, tag: str, *, path: str = "/start", **asked: Any) -> str:
        """``sse.start``; the run's id."""
        asked = {"on_disconnect": "continue", **asked}
        answer = self.ask(path_of(f"{path}/{name}", tag=tag, **asked), "POST")
        assert answer.status == 200, f"{answer.status} {answer.body!r}"
        run = json.loads(answer.body)["run"]
        assert isinstance(run, str)
        return run

    def stop(self, run: str, where: Connection | None = None, **asked: str) -> str:
        """``sse.stop``; the state that the run has then. Closes the connection."""
        path = path_of(f"/runs/{run}", **asked)
        with where or Connection(self.server) as connection:
            connection.request(path, method="DELETE")
            head = connection.head()
            answer = Answer(head.status, head.headers, connection.body(head))
        assert answer.status == 200, f"{answer.status} {answer.body!r}"
        state = json.loads(answer.body)["state"]
        assert isinstance(state, str)
        return state

    def result(self, run: str, **asked: str) -> dict[str, Any]:
        """``sse.result``: state, outcome, items."""
        answer = self.ask(path_of(f"/result/{run}", **asked))
        assert answer.status == 200, f"{answer.status} {answer.body!r}"
        said: dict[str, Any] = json.loads(answer.body)
        return said

    def wait_for_state(self, run: str, state: str, *, seconds: float = 15.0) -> dict[str, Any]:
        """Wait until ``sse.result`` says this; fails at once if it is another end."""

        def result() -> dict[str, Any] | None:
            said = self.result(run)
            assert said["state"] in ("running", state), said
            return said if said["state"] == state else None

        found = until(result, f"{run} is {state}", seconds=seconds)
        assert found is not None
        return found

    def read(self, run: str, last: str | None = None, **asked: Any) -> Story:
        """A run, from its start or after an id to its end, for which this waits."""
        with self.attach(run, last, **asked) as stream:
            assert stream.head.status == 200, stream.head
            assert run_of(stream) == run
            return Story.of(run, stream.rest())

    def cli(self, *arguments: str) -> subprocess.Popen[str]:
        """The application's command line, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", APP, *arguments],
            cwd=ROOT,
            env=environment(PROBE_MARKS=str(self.directory), PROBE_RUNS=self.runs),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_until_whole(self) -> None:
        """Wait until it has all its workers, whatever an earlier test has done to them."""
        if self.workers > 1:
            until(
                lambda: len(listening(self.server)) == len(self.server.workers()) == self.workers,
                "all workers listen",
                seconds=30,
            )
            wait_for_workers(self.server, self.workers)


def kill(process: psutil.Process) -> None:
    """SIGKILL, and wait until it is gone: it takes no connection any more."""
    process.kill()
    process.wait(10)


def settings(directory: Path, runs: str, **changes: str) -> dict[str, str]:
    """The environment of the application."""
    return {"PROBE_MARKS": str(directory), "PROBE_RUNS": runs, **changes}


@contextlib.contextmanager
def durable(
    kind: str,
    directory: Path,
    runs: str = "",
    *options: str,
    workers: int = 2,
    notes: Path | None = None,
    port: int = 0,
) -> Iterator[Place]:
    """The application on a server of this kind.

    Args:
        kind: see `command`.
        directory: for the server's log, and for its runs unless they are elsewhere.
        runs: where the runs are: a path, or a URL.
        options: gunicorn's.
        workers: how many.
        notes: where generators note what they do, if several servers share it.
        port: where it listens; a free one unless a test starts it twice.
    """
    if kind == "waitress":
        workers = 1
    notes, port = notes or directory / "notes", port or free_port()
    notes.mkdir(parents=True, exist_ok=True)
    runs = runs or str(directory / "runs.sqlite")
    started = command(kind, port, workers, *options)
    with running(kind, started, port, directory, settings(notes, runs), "/healthz") as server:
        wait_for_workers(server, workers)
        yield Place(server, notes, runs, workers)
    server.assert_log_is_clean()
    assert "secret detail" not in _without_tracebacks(server.log())


def _without_tracebacks(log: str) -> str:
    """A log without the lines of the errors on purpose, which are for the operator."""
    return "\n".join(line for line in log.splitlines() if "ProbeError" not in line)


# -- ends ------------------------------------------------------------------------------------------

#: How a run that was given up may be told: as the reason of `done`, or as the code of a failure.
GIVEN_UP = ("stopped", "cancelled")


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        state: finished, stopped, cancelled or failed.
        code: of a failure.
        value: what the generator returned.
        error: of a failure, as OpenAI has it.
    """

    state: str
    code: str = ""
    value: Any = None
    error: Any = None

    @classmethod
    def of(cls, event: Sent) -> End:
        assert event.event in ("done", "failure"), f"{event} is not terminal"
        assert event.data is not None, "an EventSource dispatches no event without data"
        said = json.loads(event.data)
        if event.event == "done":
            if said["status"] in GIVEN_UP:
                assert set(said) == {"status"}
                return cls(said["status"])
            assert said["status"] == "finished"
            return cls("finished", value=said.get("result"))
        assert set(said) == {"error"}
        error = said["error"]
        assert {"message", "type", "param", "code"} <= set(error)
        if error["code"] in GIVEN_UP:
            return cls(error["code"])
        return cls("failed", code=error["code"], error=error)


@dataclass(frozen=True)
class Story:
    """What was read of a run up to its end: all of it is checked when it is made."""

    run: str
    items: list[Sent]
    end: End
    last: str

    @classmethod
    def of(cls, run: str, events: Sequence[Sent]) -> Story:
        """Of all events to the end of the stream, of which the last has to be the terminal one."""
        items = checked(run, events)
        assert items, "not even an end"
        *items, last = items
        assert last.id is not None, "the end has the last id"
        assert not [each for each in items if each.event in ("done", "failure")], "one end, last"
        return cls(run, items, End.of(last), last.id)

    @property
    def data(self) -> list[str | None]:
        return [item.data for item in self.items]


def checked(run: str, events: Sequence[Sent]) -> list[Sent]:
    """Events without the id that only says where a stream begins; fails unless ids ascend."""
    found = [each for each in events if (each.data, each.event) != (None, None)]
    numbers = []
    for event in found:
        if event.id is not None:
            of, _, number = event.id.partition(".")
            assert of == run, f"{event.id} is no id of {run}"
            assert number.isdecimal(), event.id
            numbers.append(int(number))
    assert numbers == sorted(set(numbers)), "ids ascend, each once"
    assert not numbers or numbers[0] > 0
    return found


def take(stream: Stream, count: int) -> list[Sent]:
    """The next items of a run; none may be its end."""
    found: list[Sent] = []
    while len(found) < count:
        event = stream.next()
        assert event.event not in ("done", "failure"), event
        found += [event] if event.data is not None else []
    return found


def texts(tag: str, count: int, first: int = 0) -> list[str]:
    """What the counting generators yield."""
    return [f"{tag}:{n}" for n in range(first, count)]


def refused(answer: Answer | Stream, *statuses: int) -> dict[str, Any]:
    """The error of a refusal, in the shape that all have."""
    if isinstance(answer, Stream):
        head = answer.head
        with answer:
            answer = Answer(head.status, head.headers, answer.connection.body(head))
    return error_of(answer, *statuses)
