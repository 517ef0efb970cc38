"""The WSGI body of a stream's response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sseflask.errors import Failure
from sseflask.transport.stream import Stream

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["Body", "EarlyError", "Refused"]


class Body:
    """A WSGI body whose first piece is known before the server gets it.

    `begin` is called while the application is being called: whoever has wrapped ``start_response``,
    or looks at the end of Flask's context, sees the status of what is really sent.
    """

    __slots__ = ("environ", "start_response", "stream")

    def __init__(
        self, stream: Stream, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self.stream = stream
        self.environ = environ
        self.start_response = start_response

    def begin(self) -> None:
        """Advance the items until the status is known, and call ``start_response``.

        Blocks for the first piece, at most the stream's ``first_byte`` where that can be.

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


class Refused(Body):
    """The body of a stream that never begins."""

    def __init__(self, failure: Failure, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._failure = failure

    def begin(self) -> None:
        raise EarlyError(self._failure)

    def close(self) -> None:
        self.stream.close()


class EarlyError(Exception):
    """The items failed before anything was sent."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
