"""What goes on in a thread while a test does something else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Self = TypeVar("_Self", bound="Background")


class Background(ABC):
    """Has `run` in a thread of its own until the block is left, which fails if `run` has failed."""

    going_on = True
    _running: Future[None]

    @abstractmethod
    def run(self) -> None:
        """Do it, and return soon after `going_on` has become false."""

    def __enter__(self: _Self) -> _Self:
        thread = ThreadPoolExecutor(1)
        self._running = thread.submit(self.run)
        thread.shutdown(wait=False)
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let it end, and wait for that; may be called again."""
        self.going_on = False
        self._running.result(40)

    def check(self) -> None:
        """Raise what it has raised."""
        if self._running.done():
            self._running.result()
