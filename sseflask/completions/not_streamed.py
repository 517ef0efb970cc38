"""Completions that are not streamed: a JSON document is stored like a stream of one frame."""

from __future__ import annotations

from collections.abc import Generator

from sseflask.completions.frame_splitter import fields
from sseflask.completions.outcome import CompletionOutcome
from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.runs.formats import Format

__all__ = ["DOCUMENT", "NOT_STREAMED", "stream_document"]

#: Stands in the place of a dialect's name.
NOT_STREAMED = "whole"

#: Lines that a document keeps; with more it could take a hundred times its size.
_MAX_LINES = 100_000
_SPACES = bytes.maketrans(b"\r\n", b"  ")


def stream_document(
    upstream: Upstream, request: CompletionRequest, headers: dict[str, str] | None = None
) -> Generator[list[bytes] | CompletionOutcome, None, None]:
    """Run a completion that is not streamed, and give its document as one frame and its outcome.

    See `Upstream.document`.
    """
    with upstream.document(request, headers) as document:
        frames = [_frame(document)]
        del document
        yield frames
        del frames
        yield CompletionOutcome("finished")


def _frame(document: bytes) -> bytes:
    # In JSON a line end is nothing but space, so it does not matter which one it was.
    if document.count(b"\n") + document.count(b"\r") > _MAX_LINES:
        document = document.translate(_SPACES)
    lines = document.splitlines()
    if document.endswith((b"\n", b"\r")):
        lines.append(b"")  # it stays byte for byte what it is
    return b"".join([*(b"data: %b\n" % line for line in lines), b"\n"])


class _Document:
    """The view of a run whose client waits for the document."""

    def __init__(self) -> None:
        self._body = b""

    def take(self, _number: int, frame: bytes) -> bytes:
        """See `View`."""
        self._body = fields(frame)[1] or b""
        return b""

    def end(self, _number: int, outcome: CompletionOutcome) -> bytes:
        """See `View`.

        Raises:
            Failure: there is no document.
        """
        failure = outcome.as_failure()
        if failure is not None:
            raise failure
        return self._body


#: The document at the end, or an error response.
DOCUMENT = Format(lambda _run, _dialect: _Document(), resumable=False)
