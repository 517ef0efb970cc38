"""Completions that are not streamed: one JSON document, stored like a stream of one frame."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from sseflask.completions.formats.formats import Format
from sseflask.completions.frame_splitter import fields
from sseflask.completions.outcome import Outcome
from sseflask.completions.upstream import CompletionRequest, Upstream

__all__ = ["DOCUMENT", "NOT_STREAMED", "stream_document"]

#: The name that stands in the place of a dialect's.
NOT_STREAMED = "whole"

#: Lines that a document keeps; with more it could take a hundred times its size.
_MOST_LINES = 100_000
_SPACES = bytes.maketrans(b"\r\n", b"  ")


def stream_document(
    upstream: Upstream, request: CompletionRequest, headers: dict[str, str] | None = None
) -> Generator[list[bytes] | Outcome, None, None]:
    """Ask for an answer in one piece; see `Upstream.complete`."""
    with contextlib.ExitStack() as memory:
        body = upstream.complete(request, headers, memory)
        yield [_frame(body)]
        del body
        yield Outcome("finished")


def _frame(body: bytes) -> bytes:
    # In JSON a line end is nothing but space, so it does not matter which one it was.
    if body.count(b"\n") + body.count(b"\r") > _MOST_LINES:
        body = body.translate(_SPACES)
    lines = body.splitlines()
    if body.endswith((b"\n", b"\r")):
        lines.append(b"")  # the body stays byte for byte what it is
    return b"".join([*(b"data: %b\n" % line for line in lines), b"\n"])


class _Document:
    """The view of who waits for the document, and takes nothing else."""

    def __init__(self) -> None:
        self._body = b""

    def take(self, _number: int, frame: bytes) -> bytes:
        """See `View`."""
        self._body = fields(frame)[1] or b""
        return b""

    def end(self, _number: int, outcome: Outcome) -> bytes:
        """See `View`.

        Raises:
            Failure: there is no document.
        """
        failure = outcome.told_as_failure()
        if failure is not None:
            raise failure
        return self._body


#: The whole document at the end, or an error response.
DOCUMENT = Format(lambda _run, _dialect: _Document(), resumable=False)
