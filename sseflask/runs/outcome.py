"""What a run's generator gives: frames, and how the run ended; and how that is stored. No I/O."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from sseflask.errors import Failure
from sseflask.runs import failures
from sseflask.store.run_api import Ending, Run

Kind: TypeAlias = Literal["finished", "failed", "stopped", "cancelled"]

OutcomeType = TypeVar("OutcomeType", bound="Outcome")


class ReportedFailure(Failure):
    """A failure that is reported with an error object of its own.

    Args:
        status: the HTTP status, as long as no byte has been sent.
        error: the error object, with ``message``, ``type``, ``param`` and ``code`` at least.
        headers: further response headers.
    """

    def __init__(
        self, status: int, error: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(
            error["message"],
            status=status,
            type=error["type"],
            param=error["param"],
            code=error["code"],
            headers=headers,
        )
        self.error = error

    def body(self) -> dict[str, dict[str, Any]]:
        """The error object, with all its fields."""
        return {"error": self.error}


@dataclass(frozen=True)
class Outcome:
    """The one end that every run has.

    What further is to be known of an end is in a subclass, with its own `further`, `of`, `details`
    and `size`.

    Args:
        kind: the generator finished or failed, somebody stopped the run, or it was cancelled
            because nobody was there to read it.
        reason: of a finished run, why it ends, in the words of its generator.
        failure: of a failed run, what went wrong.
    """

    kind: Kind
    reason: str | None = None
    failure: Failure | None = None

    @classmethod
    def failed(cls: type[OutcomeType], failure: Failure) -> OutcomeType:
        """The outcome of a run that failed."""
        return cls("failed", failure=failure)

    def as_failure(self) -> Failure | None:
        """What a client gets that knows only complete answers, which give ``None``, and errors."""
        if self.kind == "finished":
            return None
        if self.kind == "stopped":
            return failures.stopped()
        if self.kind == "cancelled":
            return failures.cancelled()
        return self.failure or failures.internal()

    # -- for a store, and the server's log ---------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes that count for the run beside its frames."""
        return 0

    def ending(self) -> Ending:
        """The outcome as a store takes it."""
        failure = self.failure
        failed = failure and [failure.status, failure.body()["error"], failure.headers]
        stored = {"kind": self.kind, "reason": self.reason, "failure": failed, **self.further()}
        passing = failure is not None and failure.may_repeat
        return Ending(json.dumps(stored).encode(), frees_key=passing)

    def further(self) -> dict[str, Any]:
        """What further is stored, as values of JSON."""
        return {}

    @classmethod
    def of(cls, run: Run) -> Outcome:
        """The outcome of a run that has ended.

        Raises:
            ValueError, LookupError, TypeError: what is stored is no outcome.
        """
        stored = cls.stored(run)
        return cls(stored["kind"], stored["reason"], stored["failure"])

    @staticmethod
    def stored(run: Run) -> dict[str, Any]:
        """What `ending` has stored; raises as `of` does."""
        stored: dict[str, Any] = json.loads(run.outcome or b"")
        failure = stored["failure"]
        stored["failure"] = failure and ReportedFailure(*failure)
        return stored

    def details(self) -> str:
        """What the server's log says further."""
        return ""


class NotedFrames(NamedTuple):
    """Frames of a run, and for each what its generator knows of the run up to it, see `Append`."""

    frames: list[bytes]
    notes: list[bytes]


Generated: TypeAlias = Generator[list[bytes] | NotedFrames | Outcome, None, None]
"""What a run is: gives frames as they come, and at last how it ended. Advanced once more then, it
may deal with what its source has left, which may take a moment; closing it cancels its source."""
