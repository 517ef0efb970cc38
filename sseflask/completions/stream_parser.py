"""What the parsers of both APIs' streams have in common. No I/O."""

from __future__ import annotations

from sseflask.completions import failures
from sseflask.completions.frame_errors import bare_error
from sseflask.completions.outcome import CompletionOutcome
from sseflask.errors import Failure

__all__ = ["DONE", "End", "StreamParser"]

#: The end of a stream: an outcome, or a failure that has no frame of its own in the API.
End = CompletionOutcome | Failure
#: The data of the last frame of Chat Completions; some servers write it as JSON.
DONE = (b"[DONE]", b'"[DONE]"')


class StreamParser:
    """Follows the frames of one completion to its end. Not thread-safe, never blocks.

    Attributes:
        idle_limit: seconds of silence after which the completion is complete, as nothing of it is
            missing but perhaps its usage; ``None`` before that.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self.idle_limit: float | None = None
        self._secrets = secrets

    def feed(self, frames: list[bytes]) -> tuple[list[bytes], End | None]:
        """Parse the next frames.

        Returns:
            those of them to be relayed, up to the end if they bring it, and the end.
        """
        raise NotImplementedError

    def finish(self, rest: bytes) -> End:
        """The end of a stream that has ended without saying so.

        Args:
            rest: the bytes of its last frame, which was not complete.
        """
        return bare_error(rest, self._secrets) or failures.broken_off()
