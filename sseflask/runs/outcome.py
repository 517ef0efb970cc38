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
        fields = {name: error[name] for name in ("type", "param", "code")}
        super().__init__(error["message"], status=status, headers=headers, **fields)
        self.error = error

    def body(self) -> dict[str, dict[str, Any]]:
        """The error object, with all its fields."""
        return {"error": self.error}


@dataclass(frozen=True)
class Outcome:
    """The one end that every run has.

    A subclass says what else is known of the end of its runs: in `further`, `of`, `details` and
    `size`.

    Args:
        kind: the generator finished or failed, a client stopped the run, or it was cancelled as it
            had no viewers.
        reason: why a finished run ended, in the words of its generator.
        failure: why a failed run failed.
    """

    kind: Kind
    reason: str | None = None
    failure: Failure | None = None

    @classmethod
    def failed(cls: type[OutcomeType], failure: Failure) -> OutcomeType:
        """The outcome of a run that failed."""
        return cls("failed", failure=failure)

    def as_failure(self) -> Failure | None:
        """What a client gets that knows only complete answers and errors; ``None`` if complete."""
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
        """What else is stored, as values of JSON."""
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
        """What the server's log says at the end of its line."""
        return ""


class NotedFrames(NamedTuple):
    """Frames of a run, and notes for each of them, see `Append`."""

    frames: list[bytes]
    notes: list[bytes]


Generated: TypeAlias = Generator[list[bytes] | NotedFrames | Outcome, None, None]
"""The generator of a run: yields frames as they come, and at last the outcome. Then it is advanced
once more, so that it can tidy up, which may block. Closing it cancels its work."""
