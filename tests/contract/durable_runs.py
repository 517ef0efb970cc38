"""Processes with an application whose runs a test directs: this one, and others that can be killed.

Only the library's public calls are used, but for `close`, which has none.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
from collections.abc import Generator, Iterator
from typing import Any
from unittest import mock

from flask import Flask, request
from flask.typing import ResponseReturnValue

from sseflask import SSE, Failure
from sseflask.store.redis import run_scripts
from sseflask.store.sqlite import leases
from sseflask.testing import open_stream
from tests.processes import ROOT

#: Seconds after which a process that does not beat is taken for dead: for tests, less than usual.
DEAD_SECONDS = 1.5


class Refused(Exception):
    """An error of a call, by its status."""


class Actor:
    """An application in one process. Its generators yield what the test hands them.

    Args:
        address: where the runs are stored.
    """

    def __init__(self, address: str) -> None:
        self.app = Flask("actor")
        self.app.config["SSEFLASK_STORE" if "://" in address else "SSEFLASK_RUN_LOG"] = address
        self.app.config["SSEFLASK_HEARTBEAT"] = 0.5
        self.sse: Any = SSE(self.app)
        self._queues: dict[str, queue.Queue[tuple[str, Any]]] = {}
        self._events: dict[str, list[str]] = {}

        @self.app.get("/attach/<run_id>")
        def attach(run_id: str) -> ResponseReturnValue:
            owner = request.args.get("owner")
            response: ResponseReturnValue = self.sse.attach(run_id, owner=owner)
            return response

    def _generator(self, name: str) -> Generator[Any, None, Any]:
        self._events[name].append("started")
        try:
            while True:
                what, value = self._queues[name].get()
                if what == "item":
                    yield value
                elif what == "return":
                    return value
                elif what == "raise":
                    raise Failure(value, code="on_purpose")
        finally:
            self._events[name].append("finally")

    def begin(self, name: str, owner: str | None, key: str | None, keep: float | None) -> str:
        """``sse.start``; a generator that is not needed is never advanced."""
        self._queues[name], self._events[name] = queue.Queue(), []
        more = {} if keep is None else {"keep": keep}
        with self.app.app_context():
            run: str = self.sse.start(
                self._generator(name),
                owner=owner,
                idempotency_key=key,
                on_disconnect="continue",
                **more,
            )
        return run

    def hand(self, name: str, what: str, value: Any) -> None:
        """What the generator of this name does next: item, return, raise, or nothing."""
        self._queues[name].put((what, value))

    def events(self, name: str) -> list[str]:
        """Whether the generator has been started, and has ended."""
        return list(self._events.get(name, ()))

    def stop(self, run: str, owner: str | None) -> str:
        with self.app.app_context():
            state: str = self.sse.stop(run, owner=owner)
        return state

    def result(self, run: str, owner: str | None) -> tuple[str, list[Any]]:
        with self.app.app_context():
            said = self.sse.result(run, owner=owner)
        return said.state, [event.data for event in said.events]

    def read(
        self, run: str, owner: str | None, last: str | None, count: int
    ) -> tuple[int, list[tuple[str, str, str]]]:
        """Attach, read so many events (fewer if the stream ends), and drop the connection."""
        headers = {} if last is None else {"Last-Event-ID": last}
        path = f"/attach/{run}" + (f"?owner={owner}" if owner else "")
        with open_stream(self.app.test_client(), path, headers=headers) as stream:
            status = stream.response.status_code
            events = stream.read(count) if status == 200 else []
        return status, [(event.last_event_id, event.event, event.data) for event in events]

    def close(self) -> None:
        """Let all generators end, and close what is open."""
        for each in self._queues.values():
            each.put(("return", None))
        for name, thing in self.app.extensions.items():
            if name.startswith("sseflask.") and hasattr(thing, "close"):
                thing.close()


class Here:
    """An actor of this process, called in the way of `There`."""

    def __init__(self, address: str) -> None:
        self._actor = Actor(address)

    def call(self, method: str, *arguments: Any) -> Any:
        return answer(self._actor, method, arguments)

    def close(self) -> None:
        self._actor.close()


class There:
    """An actor in a process of its own, which can be killed."""

    def __init__(self, address: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def call(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the other process has ended in {method}{arguments}"
        said = json.loads(line)
        if "refused" in said:
            raise Refused(said["refused"])
        return said["value"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def answer(actor: Actor, method: str, arguments: Any) -> Any:
    """Call it; a refusal is a `Refused` with the status."""
    try:
        return getattr(actor, method)(*arguments)
    except Failure as failure:
        raise Refused(failure.status) from failure


@contextlib.contextmanager
def sooner() -> Iterator[None]:
    """The dead are noticed soon."""
    with (
        mock.patch.object(leases, "DEAD_SECONDS", DEAD_SECONDS),
        mock.patch.object(run_scripts, "DEAD_SECONDS", DEAD_SECONDS),
    ):
        yield


def main(address: str) -> None:
    """Answer calls, a line each."""
    with sooner():
        actor = Actor(address)
        for line in sys.stdin:
            method, *arguments = json.loads(line)
            try:
                said = {"value": answer(actor, method, arguments)}
            except Refused as refused:
                said = {"refused": refused.args[0]}
            print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
