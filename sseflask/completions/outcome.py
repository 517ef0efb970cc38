"""How a completion ended, and how that is stored. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sseflask.completions import failures
from sseflask.completions.failures import UpstreamFailure
from sseflask.errors import Failure

__all__ = ["Kind", "Outcome"]

Kind: TypeAlias = Literal["finished", "failed", "stopped", "cancelled"]


@dataclass(frozen=True)
class Outcome:
    """The one end that every completion has.

    Args:
        kind: finished as the upstream said, failed, stopped by somebody, or cancelled because
            nobody was there to read it.
        finish_reason: of a finished one, why it ends, as the upstream says it (``stop``,
            ``length``, ``content_filter``, ``tool_calls``, ...); ``None`` where it never said.
        failure: of a failed one, what went wrong.
        frame: the upstream's own last frame where its API has one (`response.completed` and its
            like), without our key.
        usage: the tokens it took, as the upstream counts them, or what is known of them.
    """

    kind: Kind
    finish_reason: str | None = None
    failure: UpstreamFailure | Failure | None = None
    frame: bytes | None = None
    usage: dict[str, Any] | None = None

    @classmethod
    def failed(cls, failure: Failure) -> Outcome:
        """The outcome of a completion that failed."""
        return cls("failed", failure=failure)

    def told_as_failure(self) -> Failure | None:
        """What is told where the only ends are a complete answer, which gives ``None``, and errors.

        Also for an outcome of the kind ``failed`` that has no failure.
        """
        if self.kind == "finished":
            return None
        if self.kind == "stopped":
            return failures.stopped()
        if self.kind == "cancelled":
            return failures.cancelled()
        return self.failure or Failure("The completion failed.", code="internal_error")

    def to_json(self) -> str:
        """All of it as ASCII text on one line."""
        frame = None if self.frame is None else self.frame.decode(errors="surrogateescape")
        return json.dumps(
            {
                "kind": self.kind,
                "finish_reason": self.finish_reason,
                "failure": None if self.failure is None else _from_failure(self.failure),
                "frame": frame,
                "usage": self.usage,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The outcome that `to_json` gave as this text.

        Raises:
            ValueError, LookupError, TypeError: it is no such text.
        """
        stored = json.loads(text)
        failure, frame = stored["failure"], stored["frame"]
        return cls(
            kind=stored["kind"],
            finish_reason=stored["finish_reason"],
            failure=None if failure is None else _to_failure(failure),
            frame=None if frame is None else frame.encode(errors="surrogateescape"),
            usage=stored["usage"],
        )


def _from_failure(failure: Failure) -> dict[str, Any]:
    return {
        "upstream": isinstance(failure, UpstreamFailure),
        "status": failure.status,
        "error": failure.body()["error"],
        "headers": failure.headers,
    }


def _to_failure(stored: dict[str, Any]) -> Failure:
    status, error, headers = stored["status"], stored["error"], stored["headers"]
    if stored["upstream"]:
        return UpstreamFailure(status, error, headers)
    return Failure(
        error["message"],
        status=status,
        type=error["type"],
        param=error["param"],
        code=error["code"],
        headers=headers,
    )
