"""What runs for the completions of a process, a step at a time: one thread plays all parts.

The log's thread and the event loop do what they have to when a test says so, and each in order; who
waits for them lets them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from sseflask.loop.callbacks import Done
from sseflask.runs import process as process_of_runs
from sseflask.runs import runs
from sseflask.runs.runs import Runs
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Writer
from sseflask.store.sqlite.run_thread import RunThread
from sseflask.store.sqlite.runs import RunLog
from sseflask.transport.detached.group import Group


class SteppedThread(RunThread):
    """A thread of the log that is none."""

    def start(self) -> None:
        self.store = self._make()
        self._look(self.store)
        assert self._open

    def step(self) -> bool:
        """Do the next thing that was handed over; whether there was one."""
        if not self._calls:
            return False
        self._serve(self.store)
        return True

    def look(self) -> None:
        """See what others have written."""
        self._look(self.store)

    def tick(self) -> None:
        """What is done every second."""
        self._tick(self.store)


class SteppedViewer(Viewer):
    """One that lets the others go on where it would block."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._knows_where = True  # or it would wait for the first id

    def _wait(self, timeout: float | None) -> None:
        assert timeout is not None, "nobody would wake it"
        running = self._reading
        assert isinstance(running, Stepped)
        running.settle()
        running.thread.look()
        running.settle()


class Stepped(process_of_runs.RunProcess):
    """The runs of one process, and what its detached streams are sent."""

    thread: SteppedThread

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float],
        send: Callable[[Group, bytes], None],
        finish: Callable[[Group], None],
    ) -> None:
        self.loop: deque[Callable[[], None]] = deque()
        self.interruption: Callable[[], None] | None = None
        super().__init__(lambda: RunLog(str(path), seconds=1e9, clock=clock), None)
        self._in_loop = self.loop.append
        self.batches._in_loop = self.loop.append
        self._send = self.loop.append
        self._deliver_to, self._finish = send, finish
        self._detached: Any = self
        self.runs = Runs(lambda: str(path), seconds=1e9, most=1000)
        self.runs._running = SimpleNamespace(get=lambda: self)  # type: ignore[assignment]  # for tests

    def send(self, batch: Sequence[tuple[Group, bytes]]) -> None:
        for group, body in batch:
            self._deliver_to(group, body)

    def finish(self, groups: Sequence[Group]) -> None:
        for group in groups:
            self._finish(group)

    def wait(self, start: Callable[[Done], None], patience: float = 0.0) -> Any:  # noqa: ARG002  # nobody waits
        """Something else may happen before the answer is there."""
        answers: list[tuple[Any, Exception | None]] = []
        start(lambda result, error: answers.append((result, error)))
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()
        while not answers:
            assert self.thread.step() or self.turn(), "nobody will ever answer"
        ((result, error),) = answers
        if error is not None:
            raise error
        return result

    def turn(self) -> bool:
        """Have the loop do the next thing; whether there was one."""
        if not self.loop:
            return False
        self.loop.popleft()()
        return True

    def settle(self) -> None:
        """Do all that is to be done."""
        while self.turn() or self.thread.step():
            pass

    def close(self) -> None:
        self.thread.store.close()
        self.thread._wakeup.close()


@contextmanager
def stepped() -> Iterator[None]:
    """Have processes made of steps, whose writers do nothing by themselves."""
    with (
        mock.patch.object(process_of_runs, "RunThread", SteppedThread),
        mock.patch.object(runs, "Viewer", SteppedViewer),
        mock.patch.object(Writer, "start", return_value=None),
    ):
        yield
