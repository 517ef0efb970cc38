"""What a run is made of. No I/O."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from flask import Flask

from sseflask.runs.outcome import Generated
from sseflask.runs.writer import Writer


class RunSource(ABC):
    """What one run is made of; used once.

    Attributes:
        label: says of which `sseflask.runs.kinds.Kind` the run is.
        digest: stands for its content, which has to be the same in a repetition; ``None`` if
            nothing but the request can say.
        used: it has become a run, which closes it.
    """

    label: str
    digest: bytes | None = None
    used = False

    @property
    def headers(self) -> Mapping[str, str]:
        """Response headers of its own, complete when the first frame has come."""
        return {}

    def within(self, app: Flask) -> None:  # noqa: B027  # for sources that run its code
        """Note the application, and the contexts of the current call. Before anything else."""

    def close(self) -> None:  # noqa: B027  # for sources that hold something
        """Let go of what it is made of: it is not used."""

    @abstractmethod
    def generate(self, writer: Writer) -> Generated:
        """Give the generator, not begun. Never blocks."""


@contextlib.contextmanager
def closing_unless_used(source: RunSource) -> Iterator[None]:
    """Close what a run would have been made of, if it does not become one."""
    try:
        yield
    finally:
        if not source.used:
            source.close()
