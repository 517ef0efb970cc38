"""How a completion ended: its upstream's own last frame, and the tokens it took. No I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sseflask.completions.usage import usage_of
from sseflask.runs.outcome import Outcome
from sseflask.store.run_api import Run, size_of


@dataclass(frozen=True)
class CompletionOutcome(Outcome):
    """The one end that every completion has.

    The reason is the upstream's ``finish_reason`` (``stop``, ``length``, ``content_filter``,
    ``tool_calls``, ...); ``None`` if it never said.

    Args:
        kind: see `Outcome`.
        reason: see `Outcome`.
        failure: see `Outcome`.
        frame: the upstream's own last frame if its API has one (`response.completed` and its
            like), without our key.
        usage: the tokens that it took. Not stored with the outcome: see
            `sseflask.completions.usage`.
    """

    frame: bytes | None = None
    usage: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """See `Outcome`."""
        return 0 if self.frame is None else size_of((self.frame,))

    def further(self) -> dict[str, Any]:
        """See `Outcome`."""
        frame = self.frame
        return {} if frame is None else {"frame": frame.decode(errors="surrogateescape")}

    @classmethod
    def of(cls, run: Run) -> CompletionOutcome:
        """See `Outcome`."""
        stored = cls.stored(run)
        frame: str | None = stored.get("frame")
        last = None if frame is None else frame.encode(errors="surrogateescape")
        usage = usage_of(run.notes, last)
        return cls(stored["kind"], stored["reason"], stored["failure"], last, usage)

    def details(self) -> str:
        """See `Outcome`."""
        return f", usage {json.dumps(self.usage)}"
