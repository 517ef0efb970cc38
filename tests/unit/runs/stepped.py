"""The runs of a process, a step at a time: one thread plays all parts.

The store's thread and the event loop do what they have to when a test says so, and each in order. A
greenlet that would wait for them lets them go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.loop.callbacks import EventLoop
from sseflask.runs import runs
from sseflask.runs.process import RunProcess
from sseflask.runs.runs import Runs
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Writer
from sseflask.store.run_api import Endings, RunLimits
from sseflask.store.sqlite.run_store import SqliteRunStore
from sseflask.transport.detached.group import Group
from tests.unit.store.sqlite.run_databases import INTERRUPTED


class SteppedStore(SqliteRunStore):
    """A store whose thread is none."""

    def __init__(self, process: Stepped, path: Path, clock: Callable[[], float]) -> None:
        self.process_of_test = process
        endings = Endings(INTERRUPTED, INTERRUPTED, INTERRUPTED)
        super().__init__(str(path), RunLimits(1e9), endings, clock)

    def start(self) -> None:
        self.database = self._make()
        self._look(self.database)
        assert self._open

    def step(self) -> bool:
        """Do the next thing that was handed over. Returns whether there was one."""
        if not self._calls:
            return False
        self._serve(self.database)
        return True

    def look(self) -> None:
        """See what others have written."""
        self._look(self.database)

    def tick(self) -> None:
        """What is done every second."""
        self._tick(self.database)

    def _wait_for(self, call: Any, patience: float = 0.0) -> Any:  # noqa: ARG002  # nobody waits
        """Something else may happen before the answer is there."""
        answers: list[tuple[Any, Exception | None]] = []
        self.submit(call, lambda result, error: answers.append((result, error)))
        process = self.process_of_test
        interruption, process.interruption = process.interruption, None
        if interruption is not None:
            interruption()
        while not answers:
            assert self.step() or process.turn(), "nobody will ever answer"
        ((result, error),) = answers
        if error is not None:
            raise error
        return result


class SteppedViewer(Viewer):
    """A viewer that lets the others go on instead of blocking."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._has_id = True  # or it would wait for the first id

    def _wait(self, timeout: float | None) -> None:
        assert timeout is not None, "nobody would wake it"
        process = self._reader
        assert isinstance(process, Stepped)
        process.settle()
        process.store.look()
        process.settle()


class Stepped(RunProcess):
    """The runs of one process, and what its detached streams are sent."""

    store: SteppedStore

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        send: Callable[[Group, bytes], None],
        finish: Callable[[Group], None],
    ) -> None:
        self.loop: deque[Callable[[], object]] = deque()
        self.interruption: Callable[[], None] | None = None
        event_loop = SimpleNamespace(call_soon_threadsafe=self.call_soon)
        with mock.patch.object(EventLoop, "current", return_value=event_loop):
            store = SteppedStore(self, path, clock)
        super().__init__(store, CompletionOutcome.of)
        self._send_to, self._finish_one = send, finish
        detached: Any = SimpleNamespace(
            jobs=SimpleNamespace(submit=self.call_soon), send=self.send, end=self.end
        )
        self._detached = detached
        self.runs = Runs(lambda: str(path), seconds=1e9, max_running=1000)
        self.runs._process = SimpleNamespace(get=lambda: self)  # type: ignore[assignment]  # for tests

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        self.loop.append(partial(function, *arguments))

    def send(self, batch: Sequence[tuple[Group, bytes]]) -> None:
        for group, body in batch:
            self._send_to(group, body)

    def end(self, groups: Sequence[Group], reason: str) -> None:
        assert reason == "done"
        for group in groups:
            self._finish_one(group)

    def turn(self) -> bool:
        """Let the loop do the next thing. Returns whether there was one."""
        if not self.loop:
            return False
        self.loop.popleft()()
        return True

    def settle(self) -> None:
        """Do all that is to be done."""
        while self.turn() or self.store.step():
            pass

    def close(self) -> None:
        self._withdraw_gauge()
        self.store.database.close()
        self.store._wakeup.close()


@contextmanager
def stepped() -> Iterator[None]:
    """Make processes that run step by step; their writers do nothing by themselves."""
    with (
        mock.patch.object(runs, "Viewer", SteppedViewer),
        mock.patch.object(Writer, "start", return_value=None),
    ):
        yield
