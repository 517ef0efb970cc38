"""The WSGI body of a stream's response."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sseflask.transport.stream import Stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@dataclass(slots=True, eq=False)
class Body:
    """A WSGI body whose first piece is known before the server gets it.

    `begin` is called while the application is being called: middleware that wraps
    ``start_response``, and code at the end of Flask's context, see the status of what is sent.
    """

    stream: Stream
    environ: WSGIEnvironment
    start_response: StartResponse

    def begin(self) -> None:
        """Advance the items until the status is known, and call ``start_response``.

        Blocks for the first piece, at most the stream's ``first_byte`` if the transport can.

        Raises:
            EarlyError: they failed before; an error can be answered in place of the stream.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece."""
        raise NotImplementedError

    def close(self) -> None:
        """Called by the server when it is done with the response, whatever happened."""
        raise NotImplementedError


class EarlyError(Exception):
    """The items failed before anything was sent."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
