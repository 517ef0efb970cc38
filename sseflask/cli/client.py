"""The HTTP client of the commands: its options, errors as one line, and streams that reconnect."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import httpx2

from sseflask.event import MessageEvent
from sseflask.wire import Decoder

_CONNECT_SECONDS = 10.0
#: Seconds of silence after which a connection counts as lost: six default heartbeats.
_SILENCE = 90.0

_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Errors that a new request would get again.
_FINAL = frozenset({"insufficient_quota", "internal_error"})
#: Seconds between two requests unless the server sends another time, and the most jitter.
_RETRY, _MOST_JITTER = 1.0, 30.0


def url_of(context: click.Context, option: click.Parameter, value: str) -> httpx2.URL:
    """The address of a server or of one of its routes; a callback of click."""
    try:
        url = httpx2.URL(value if "://" in value else f"http://{value}")
    except httpx2.InvalidURL as error:
        raise click.BadParameter(f"{value!r} is not an address: {error}", context, option) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise click.BadParameter(
            f"{value!r} is not an address: write http:// or https:// and a host", context, option
        )
    return url


def _header(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    headers = []
    for value in values:
        name, colon, text = value.partition(":")
        if not colon or not name.strip() or not name.isascii():
            raise click.BadParameter(
                f"{value!r} is not a header: write 'Name: value'", context, option
            )
        headers.append((name.strip(), text.strip()))
    return headers


def with_client(command: Callable[..., object]) -> Callable[..., None]:
    """Give a command the options ``--token`` and ``--header``, and a client that sends them."""

    @click.option(
        "--token",
        envvar="SSEFLASK_TOKEN",
        metavar="TOKEN",
        help="Sent as Authorization: Bearer. Default: SSEFLASK_TOKEN in the environment.",
    )
    @click.option(
        "--header",
        "-H",
        "headers",
        multiple=True,
        callback=_header,
        metavar="'NAME: VALUE'",
        help="A header to send; can be repeated.",
    )
    @functools.wraps(command)
    def with_options(token: str | None, headers: list[tuple[str, str]], **options: Any) -> None:
        with connected(token, headers) as client:
            command(client=client, **options)

    return with_options


@contextlib.contextmanager
def connected(token: str | None, headers: list[tuple[str, str]]) -> Iterator[httpx2.Client]:
    """A client with these credentials; an error of the network ends the command with one line."""
    sent = [("User-Agent", "sseflask"), *headers]
    if token:
        sent.append(("Authorization", f"Bearer {token}"))
    timeout = httpx2.Timeout(_SILENCE, connect=_CONNECT_SECONDS)
    try:
        with httpx2.Client(
            headers=httpx2.Headers(sent, encoding="utf-8"), timeout=timeout, follow_redirects=True
        ) as client:
            yield client
    except httpx2.HTTPError as error:
        raise click.ClickException(describe(error)) from error


def describe(error: httpx2.HTTPError) -> str:
    """An error of a connection, as one line."""
    reason = str(error) or type(error).__name__
    with contextlib.suppress(RuntimeError):  # an error without a request
        return f"{error.request.url.copy_with(query=None)}: {reason}"
    return reason


def route(url: httpx2.URL, path: str) -> httpx2.URL:
    return url.copy_with(path=url.path.rstrip("/") + path)


def error_in(text: str) -> tuple[str, str | None]:
    """The message and the code of an error of this service; of another text the text itself."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return " ".join(text.split())[:200], None


def error_of(response: httpx2.Response) -> str:
    """The error of a response as one line; of a 5xx with the request's id, which is in the log.

    The body must have been read.
    """
    message, code = error_in(response.text)
    status = f"{response.status_code} {response.reason_phrase}".strip()
    line = f"{status}{f' ({code})' if code else ''}: {message}" if message else status
    id = response.headers.get("X-Request-Id", "")[:128]
    return f"{line} [request {id}]" if response.status_code >= 500 and id else line


class Failed(click.ClickException):
    """The stream is over, and opening it again would not help."""


@dataclass(frozen=True)
class Reconnect:
    """The stream has ended early, and is opened again.

    The cause is empty if it ended without an error, the cursor is its last id.
    """

    seconds: float
    cause: str
    cursor: str


@dataclass
class ReconnectingStream:
    """One stream of a server, opened again after its last event if an error is temporary.

    Args:
        method: a POST needs a body and an ``Idempotency-Key``.
        body: sent with each request, as JSON.
        until_done: the stream is over at the first ``done`` or ``[DONE]``. Otherwise it is over
            with these only if it ends there: on a channel they are ordinary events.

    Attributes:
        cursor: the last id; sent as ``Last-Event-ID``.
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
                    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
                    if response.status_code != 200 or kind.lower() != "text/event-stream":
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
