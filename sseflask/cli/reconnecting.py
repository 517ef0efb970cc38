"""Reads a server's stream, and opens it again after its last event if an error is temporary."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import httpx2

from sseflask.cli.client import describe, error_in, error_of
from sseflask.event import MessageEvent
from sseflask.wire import Decoder

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Errors that a new request would get again.
_FINAL = frozenset({"insufficient_quota", "internal_error"})
#: Seconds between two requests unless the server sends another time, and the most jitter.
_RETRY, _MOST_JITTER = 1.0, 30.0


class Failed(click.ClickException):
    """The stream is over, and opening it again would not help."""


@dataclass(frozen=True)
class Reconnect:
    """The stream has ended early, and is opened again.

    Args:
        seconds: the wait before.
        cause: why it ended; empty for an end without an error.
        cursor: the last id.
    """

    seconds: float
    cause: str
    cursor: str


@dataclass
class Stream:
    """One stream of a server.

    Args:
        client: the HTTP client.
        method: a POST needs a body and an ``Idempotency-Key``.
        url: the address.
        headers: sent with each request.
        body: sent with each request, as JSON.
        until_done: the stream is over at the first ``done`` or ``[DONE]``. Otherwise it is over
            with these only if it ends there: on a channel they are ordinary events.

    Attributes:
        cursor: the last id; sent as ``Last-Event-ID``.
        response: the last response.
    """

    client: httpx2.Client
    method: str
    url: httpx2.URL
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    until_done: bool = True
    cursor: str = ""
    response: httpx2.Response | None = None

    def __iter__(self) -> Iterator[MessageEvent | Reconnect]:
        """Its events, ``done`` and ``[DONE]`` too, and its reconnects. Blocks.

        Raises:
            Failed: it is over; the message says why.
            httpx2.TransportError: the server can't be reached the first time.
        """
        self._retry, tries = _RETRY, 0
        while True:
            wait, cause, continued, done = 0.0, "", False, False
            headers = httpx2.Headers(
                {"Accept": "text/event-stream", **self.headers}, encoding="utf-8"
            )
            if self.cursor:
                headers["Last-Event-ID"] = self.cursor
            try:
                with self.client.stream(
                    self.method, self.url, headers=headers, json=self.body
                ) as response:
                    self.response = response
                    if response.status_code == 204:
                        return
                    if not _is_stream(response):
                        response.read()
                        wait, cause = _refused(response)
                    else:
                        self.cursor = self.cursor or response.headers.get("Last-Event-ID", "")
                        decoder = Decoder(self.cursor)
                        for piece in response.iter_bytes():
                            for event in decoder.feed(piece):
                                tries = 0
                                moved = event.last_event_id != self.cursor
                                self.cursor = event.last_event_id
                                yield event
                                done = event.event == "done" or event.data == "[DONE]"
                                if done and self.until_done:
                                    return
                                if event.event == "failure":
                                    cause = _failure(event, final=moved or not self.cursor)
                            self.cursor = decoder.last_event_id
                            if decoder.retry is not None:
                                # The server has the client come back, whatever the last event.
                                self._retry, continued = decoder.retry / 1000, True
                                decoder.retry, done = None, False
                        if done or not (cause or self.cursor or continued):
                            return  # no error, and nothing to resume: that was all
            except httpx2.TransportError as error:
                if self.response is None:
                    raise  # no response so far: perhaps the address is wrong
                cause = describe(error)
            seconds = max(wait, self._retry) + random.uniform(
                0, min(_MOST_JITTER, 2.0 ** min(tries, 10))
            )
            tries += 1
            yield Reconnect(seconds, cause, self.cursor)
            time.sleep(seconds)


def _failure(event: MessageEvent, *, final: bool) -> str:
    """The message of an error in band; without an id only the connection has failed."""
    message, code = error_in(event.data)
    if final or code in _FINAL:
        raise Failed(message)
    return message


def _is_stream(response: httpx2.Response) -> bool:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return response.status_code == 200 and kind == "text/event-stream"


def _refused(response: httpx2.Response) -> tuple[float, str]:
    """Seconds to wait and the reason, if another request may succeed."""
    reason = error_of(response)
    temporary = (
        response.status_code in _TEMPORARY and response.headers.get("X-Should-Retry") != "false"
    )
    if response.status_code == 200:
        reason = f"not an event stream, but {response.headers.get('Content-Type', 'no type')!r}"
    if not temporary or any(f"({code})" in reason for code in _FINAL):
        raise Failed(reason)
    return _seconds(response.headers.get("Retry-After", "")), reason


def _seconds(value: str) -> float:
    """The seconds of a Retry-After: a number or a date (RFC 9110, section 10.2.3)."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
