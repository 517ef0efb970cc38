"""Flask responses that stream events, and choose the transport that sends them.

If a stream fails before its first event, ``after_request`` functions run twice. They run for the
stream, as its headers may have to be sent before that event. They run for the error response, which
needs what they add (CORS, security headers). Flask does the same if one of these functions fails.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Response
from werkzeug.wsgi import ClosingIterator

from sseflask import flask_context
from sseflask.defaults import setting
from sseflask.error_reports import report
from sseflask.errors import Failure
from sseflask.event import MOST_JITTER, MOST_RETRY, Event
from sseflask.items import check_iterable, encode_item, encode_piece
from sseflask.logs.once import warn_once
from sseflask.transport.choose import transport
from sseflask.transport.failures import failure_event, failure_frame
from sseflask.transport.source import UNREADABLE, Source
from sseflask.transport.stream import Body, EarlyError, Stream, has_header
from sseflask.wire import encode

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = logging.getLogger("sseflask")

#: The longest time that can be set; timers overflow above it.
_MOST_SECONDS = 31_536_000

#: The headers of every stream's response, unless the view sets them.
_HEADERS = {
    "cache-control": ("Cache-Control", "no-store, no-transform"),
    "x-accel-buffering": ("X-Accel-Buffering", "no"),
    "x-content-type-options": ("X-Content-Type-Options", "nosniff"),
}

#: One text for all: werkzeug would make one of each number.
_OK = "200 OK"

#: The headers that werkzeug completes when a response is sent.
_ADDRESSES = frozenset(("location", "content-location"))

_RETRY_LIMITS = {"SSEFLASK_RETRY": MOST_RETRY, "SSEFLASK_RETRY_JITTER": MOST_JITTER}


class _StreamResponse(Response):
    """What both kinds of streaming responses share: from Flask's response to a transport.

    Attributes:
        app: the application whose configuration counts; ``None`` for that of the active context.
    """

    app: Flask | None = None

    default_mimetype = "text/event-stream"
    automatically_set_content_length = False

    # Class attributes: an upgraded response did not run our constructor.
    _frames_only = True
    _heartbeat: float | None = None
    _first_byte: float | None = None
    _lifetime: float | None = None
    _expires_at: float | None = None
    _failure_event: Callable[[Failure], Event] = staticmethod(failure_event)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; called by Flask."""
        if environ["REQUEST_METHOD"] == "HEAD" or self.status_code in (204, 304):
            start_response(self.status, self._headers(environ))
            return ClosingIterator((), self.close)
        if has_header(self.headers, "content-encoding"):
            warn_once(
                f"An event stream is encoded ({self.headers['Content-Encoding']}) before it is "
                "sent: the encoder delays its events, and there are no heartbeats. Exclude "
                "text/event-stream from it (Flask-Compress: COMPRESS_MIMETYPES)."
            )
            return super().__call__(environ, start_response)
        # No closures here: a stream keeps this frame as long as it runs.
        app = self.app or flask_context.current_app()
        try:
            stream = self._stream(app, environ)
        except ValueError as error:
            self.close()
            return flask_context.error_response(app, environ, error)(environ, start_response)
        if stream.keeps_view:
            try:
                flask_context.release_resources()
            except BaseException:
                self.close()
                raise
        body: Body | None = None
        try:
            body = transport(stream, environ, start_response)
            body.begin()
        except EarlyError as early:
            (body or self).close()
            return flask_context.error_response(app, environ, early.error)(environ, start_response)
        except BaseException:
            (body or self).close()
            raise
        return body

    def _headers(self, environ: WSGIEnvironment) -> list[tuple[str, str]]:
        # A list, because reading werkzeug's Headers takes 10 µs.
        headers = self.headers.to_wsgi_list()
        names = [name.lower() for name, _ in headers]
        if (
            self.status_code != 200
            or not _ADDRESSES.isdisjoint(names)
            or type(self).get_wsgi_headers is not Response.get_wsgi_headers
        ):
            headers = self.get_wsgi_headers(environ).to_wsgi_list()
            names = [name.lower() for name, _ in headers]
        if "cache-control" in names:
            headers = _without_transform(headers)
        headers += [header for name, header in _HEADERS.items() if name not in names]
        if self.status_code in (204, 304):
            # There is no content.
            headers = [header for header in headers if header[0].lower() != "content-type"]
        return headers

    def _stream(self, app: Flask | None, environ: WSGIEnvironment) -> Stream:
        config: Mapping[str, Any] = app.config if app else {}

        def seconds(value: float | None, key: str) -> float:
            if value is None:
                value = setting(config, key)
                positive = key == "SSEFLASK_HEARTBEAT"
                if not _are_seconds(value, positive):
                    raise _no_seconds(f"app.config[{key!r}]", value, positive)
            return value

        # A source runs no code of the application, which could need the view's contexts.
        keeps_view = not self._frames_only and not isinstance(self.response, Source)
        says_retry = not self._frames_only and self.mimetype == "text/event-stream"
        own_failures = self._failure_event is not failure_event
        return Stream(
            items=self.response,
            encode=self._encoder(app),
            status=self.status,
            headers=self._headers(environ),
            frames_only=self._frames_only,
            heartbeat=seconds(self._heartbeat, "SSEFLASK_HEARTBEAT"),
            first_byte=seconds(self._first_byte, "SSEFLASK_FIRST_BYTE"),
            lifetime=seconds(self._lifetime, "SSEFLASK_LIFETIME"),
            expires_at=self._expires_at,
            detachable=not self._on_close,
            retry=_milliseconds(config, "SSEFLASK_RETRY") if says_retry else None,
            retry_jitter=_milliseconds(config, "SSEFLASK_RETRY_JITTER") or 0,
            keeps_view=keeps_view,
            context=flask_context.view_context() if keeps_view else contextlib.nullcontext,
            path=environ.get("PATH_INFO", ""),
            reporter=_reporter_of(app),
            failure_frame=self._failure_frame if own_failures else failure_frame,
            response=self,
        )

    def _failure_frame(self, failure: Failure) -> bytes:
        try:
            return encode(self._failure_event(failure))
        except Exception:
            log.exception("failure_event failed; the client gets the usual event")
            return failure_frame(failure)

    def _encoder(self, app: Flask | None) -> Callable[[Any], bytes]:
        raise NotImplementedError


class UpgradedResponse(_StreamResponse):
    """A plain ``Response(generator(), mimetype="text/event-stream")``, sent like a stream.

    Its pieces are ready-made frames, sent unchanged, or an `Event` or `Comment`; its view and its
    generator run as before. Made by `sseflask.SSE`.
    """

    def make_sequence(self) -> None:
        """As Flask's: reads all events before they are sent."""
        if not self.is_sequence:
            warn_once(f"{UNREADABLE} This one is delayed until its end.")
        super().make_sequence()

    def _encoder(self, app: Flask | None) -> Callable[[Any], bytes]:  # noqa: ARG002  # the base's signature
        return encode_piece


class EventSourceResponse(_StreamResponse):
    """A response that sends what an iterable yields as a ``text/event-stream``.

    It is more robust than a plain streamed response: heartbeats while the iterable is silent, its
    ``finally`` when the client leaves, errors in band, a clean end when the server stops. The
    iterable is advanced by one greenlet or thread, inside the Flask request context of the view; it
    may block.

    Args:
        events: any synchronous iterable of `Event`, `Comment`, ``str`` and JSON-able values
            (both are data), and ``bytes`` (ready-made frames).
        status: the HTTP status.
        headers: further response headers.
        heartbeat: seconds of silence until a heartbeat is sent; by default the app's
            ``SSEFLASK_HEARTBEAT`` (15).
        first_byte: seconds that the headers wait for the first event, so that an exception
            raised before it becomes an error response; by default ``SSEFLASK_FIRST_BYTE`` (1).
        lifetime: seconds until a stream whose last event had an id is ended, to be resumed by its
            client; by default ``SSEFLASK_LIFETIME`` (0, never).
        expires_at: Unix time at which the stream ends with a ``token_expired`` failure.
        failure_event: makes the event of a failure after the first byte; by default an event
            ``failure`` with OpenAI's error object as its data.

    Raises:
        TypeError: ``events`` is not a synchronous iterable of items.
        ValueError: a time that is not allowed.
    """

    _frames_only = False
    implicit_sequence_conversion = False

    def __init__(
        self,
        events: Iterable[Any],
        status: int | str | None = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        *,
        heartbeat: float | None = None,
        first_byte: float | None = None,
        lifetime: float | None = None,
        expires_at: float | None = None,
        failure_event: Callable[[Failure], Event] | None = None,
    ) -> None:
        if not isinstance(events, Source):
            check_iterable(events)
        check_times(heartbeat, first_byte, lifetime)
        # werkzeug looks for a type among the headers; to find none takes it 3 µs.
        mimetype = self.default_mimetype if headers is None else None
        super().__init__(None, _OK if status == 200 else status, headers, mimetype)
        self.response = events
        self._heartbeat = heartbeat
        self._first_byte = first_byte
        self._lifetime = lifetime
        self._expires_at = expires_at
        if failure_event is not None:
            self._failure_event = failure_event

    def iter_encoded(self) -> Iterator[bytes]:
        """The frames, for code that reads a finite stream without a server."""
        encoder = self._encoder(None)
        items = iter(self.response)  # here, so that a subscription raises at once
        return (item if isinstance(item, bytes) else encoder(item) for item in items)

    def get_data(self, as_text: Any = False) -> Any:
        """The body, if the events are a list.

        Raises:
            RuntimeError: the events are not a list.
        """
        self._check_readable()
        return super().get_data(as_text)

    data = property(get_data, Response.set_data)

    def freeze(self) -> None:
        """As Flask's, if the events are a list.

        Raises:
            RuntimeError: the events are not a list.
        """
        self._check_readable()
        super().freeze()

    def _check_readable(self) -> None:
        if not self.is_sequence:
            raise RuntimeError(UNREADABLE)

    def _encoder(self, app: Flask | None) -> Callable[[Any], bytes]:
        return _encoder_of(app)


@lru_cache(maxsize=4)
def _encoder_of(app: Flask | None) -> Callable[[Any], bytes]:
    """One for all streams of an application: each would take memory."""
    return partial(encode_item, app)


@lru_cache(maxsize=4)
def _reporter_of(app: Flask | None) -> Callable[[str, Exception], Failure]:
    """One for all streams of an application, as `_encoder_of`."""
    return partial(report, app)


def _without_transform(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Add ``no-transform`` to the view's Cache-Control: compressors in between delay events.

    RFC 9111, section 5.2.2.6; npm's compression is one that obeys it.
    """
    control = ", ".join(value for name, value in headers if name.lower() == "cache-control")
    if "no-transform" in control.lower():
        return headers
    others = [header for header in headers if header[0].lower() != "cache-control"]
    return [*others, ("Cache-Control", f"{control}, no-transform")]


def check_times(heartbeat: float | None, first_byte: float | None, lifetime: float | None) -> None:
    """Refuse a time that is not allowed, with ValueError; see `EventSourceResponse`."""
    if heartbeat is not None and not _are_seconds(heartbeat, True):
        raise _no_seconds("heartbeat", heartbeat, True)
    if first_byte is not None and not _are_seconds(first_byte):
        raise _no_seconds("first_byte", first_byte)
    if lifetime is not None and not _are_seconds(lifetime):
        raise _no_seconds("lifetime", lifetime)


def _are_seconds(value: object, positive: bool = False) -> bool:
    return (
        isinstance(value, (int, float))
        and value.__class__ is not bool
        and 0 <= value <= _MOST_SECONDS
        and (value > 0 or not positive)
    )


def _no_seconds(name: str, value: object, positive: bool = False) -> ValueError:
    allowed = f"{'more than 0' if positive else 'from 0'} to {_MOST_SECONDS} (a year)"
    return ValueError(f"{name} must be seconds, {allowed}, not {value!r}")


def _milliseconds(config: Mapping[str, Any], key: str) -> int | None:
    value: int | None = setting(config, key)
    most = _RETRY_LIMITS[key]
    if value is not None and (
        not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most
    ):
        raise ValueError(
            f"app.config[{key!r}] must be milliseconds, a whole number from 0 to {most}, "
            f"not {value!r}"
        )
    return value
