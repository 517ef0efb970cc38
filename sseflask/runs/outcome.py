"""What a run's generator gives: frames, and how the run ended; why runs fail. No I/O."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from sseflask.errors import SHOULD_RETRY, Failure
from sseflask.store.run_api import Ending, Run

OutcomeKind: TypeAlias = Literal["finished", "failed", "stopped", "cancelled"]

OutcomeType = TypeVar("OutcomeType", bound="Outcome")


class ReportedFailure(Failure):
    """A failure with an error object of its own, which has all fields of OpenAI's at least."""

    def __init__(
        self, status: int, error: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        fields = {name: error[name] for name in ("type", "param", "code")}
        super().__init__(error["message"], status=status, headers=headers, **fields)
        self.error = error

    def body(self) -> dict[str, dict[str, Any]]:
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

    kind: OutcomeKind
    reason: str | None = None
    failure: Failure | None = None

    @classmethod
    def failed(cls: type[OutcomeType], failure: Failure) -> OutcomeType:
        return cls("failed", failure=failure)

    def as_failure(self) -> Failure | None:
        """The error for a client that waits for a complete answer; ``None`` if it is complete."""
        if self.kind == "finished":
            return None
        if self.kind == "failed":
            return self.failure or internal()
        message = f"The run was {self.kind} before it was complete"
        message += "." if self.kind == "stopped" else ": it had no viewers."
        return Failure(message, status=409, type=f"run_{self.kind}", code=self.kind)

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
        """The outcome of a run that has ended, as `ending` has stored it."""
        stored = cls.stored(run)
        return cls(stored["kind"], stored["reason"], stored["failure"])

    @staticmethod
    def stored(run: Run) -> dict[str, Any]:
        stored: dict[str, Any] = json.loads(run.outcome or b"")
        failure = stored["failure"]
        stored["failure"] = failure and ReportedFailure(*failure)
        return stored

    def details(self) -> str:
        """What the server's log says at the end of its line."""
        return ""


class NotedFrames(NamedTuple):
    """Frames of a run, and notes for each of them, see `RunAppend`."""

    frames: list[bytes]
    notes: list[bytes]


Generated: TypeAlias = Generator[list[bytes] | NotedFrames | Outcome, None, None]
"""The generator of a run: yields frames as they come, and at last the outcome. Then it is advanced
once more, so that it can tidy up, which may block. Closing it cancels its work."""


def interrupted() -> Failure:
    """The failure of a run whose worker died, or was shut down, before its end."""
    return Failure(
        "The server that ran this stopped before it was complete; please ask again.",
        status=503,
        code="interrupted",
        headers={"Retry-After": "5"},
    )


def internal() -> Failure:
    """The failure of a run whose generator raised an error, which only the server's log has."""
    return Failure("The run failed on the server.", code="internal_error")


def too_large(most: float) -> Failure:
    return Failure(
        f"The run has more than the {most:.0f} bytes that this server stores of one run "
        "(SSEFLASK_MAX_RUN_BYTES, and a quarter of SSEFLASK_RUN_LOG_BYTES): it was ended, and what "
        "came before can be read.",
        status=502,
        code="run_too_large",
        headers={SHOULD_RETRY: "false"},
    )


def too_long(most: float) -> Failure:
    return Failure(
        f"The run took the {most:g} s that this server allows for one run "
        "(SSEFLASK_MAX_RUN_SECONDS): it was ended, and what came before can be read.",
        status=504,
        code="run_too_long",
        headers={SHOULD_RETRY: "false"},
    )


def too_many(running: int) -> Failure:
    """The failure of a run that can't begin because too many of its account are running."""
    return Failure(
        f"{running} runs of yours are running, the most that this server allows at once "
        "(SSEFLASK_MAX_RUNS): wait for one to end, or stop one.",
        status=429,
        type="rate_limit_error",
        code="too_many_runs",
        headers={"Retry-After": "5"},
        transient=True,
    )


def store_full() -> Failure:
    """The failure of a run that can't begin, or had to end, because running ones fill the store."""
    return Failure(
        "Running runs fill the server's store (SSEFLASK_RUN_LOG_BYTES, or the memory of its Redis "
        "server): please try again when some of them have ended.",
        status=503,
        code="run_log_full",
        headers={"Retry-After": "5"},
        transient=True,
    )
