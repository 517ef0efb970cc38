"""Tests of applications that stream: event streams through Flask's test client."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from sseflask.event import MessageEvent
from sseflask.transport.portable import join_threads
from sseflask.wire import Decoder

__all__ = ["ClientStream", "open_stream"]


class ClientStream:
    """One open stream of a test client.

    Attributes:
        response: the test client's response: status, headers.
        decoder: has the stream's ``last_event_id`` and ``retry`` so far.
    """

    def __init__(self, response: TestResponse) -> None:
        self.response = response
        self.decoder = Decoder()
        self._events = self._decode()

    def events(self) -> Iterator[MessageEvent]:
        """The events after those that were read; blocks for each, and ends with the stream."""
        return self._events

    def read(self, count: int) -> list[MessageEvent]:
        """The next ``count`` events, fewer if the stream ends before; blocks for them."""
        return list(islice(self._events, count))

    def _decode(self) -> Iterator[MessageEvent]:
        for chunk in self.response.iter_encoded():
            yield from self.decoder.feed(chunk)


@contextmanager
def open_stream(
    client: FlaskClient, path: str, *, method: str = "GET", timeout: float = 5.0, **kwargs: Any
) -> Iterator[ClientStream]:
    """Open a stream, endless ones too; leaving the block closes the stream.

    Args:
        client: ``app.test_client()``.
        path: the path to request.
        method: the HTTP method.
        timeout: seconds that a generator has to end after the block was left.
        kwargs: as for ``client.open``: ``headers``, ``json``, ...

    Raises:
        RuntimeError: a generator did not end in time: its thread would outlive the test.
    """
    response = client.open(path, method=method, **kwargs)
    try:
        yield ClientStream(response)
    finally:
        response.close()
        if left := join_threads(timeout):
            raise RuntimeError(
                f"{len(left)} generators did not end within {timeout} s after their stream was "
                "closed: a generator can only be ended when it yields, so let it yield, or make "
                "what it waits for return"
            )
