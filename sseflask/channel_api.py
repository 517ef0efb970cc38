"""The methods of `sseflask.SSE` for channels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Flask

from sseflask.channels.channels import Channels
from sseflask.channels.event_frames import EARLIEST, Cursor, check_types, encode_event, has_ended
from sseflask.channels.history import ChannelHistory, read_history
from sseflask.defaults import setting
from sseflask.errors import ChannelError
from sseflask.flask_context import current_request
from sseflask.json_text import json_text
from sseflask.response import EventSourceResponse
from sseflask.store.api import StoreError, store_unavailable
from sseflask.store.names import Pattern, check_name
from sseflask.web.cursor import cursor_of
from sseflask.web.refusals import is_event_source

__all__ = ["ChannelMethods"]


class ChannelMethods:
    """Publish, subscribe, and more.

    All methods but `subscribe` can be called from any thread and without a request: in a script, a
    task, ``flask shell``. An application context is needed only if the extension is registered with
    several applications. All block the calling greenlet or thread only.
    """

    def publish(
        self, channel: str, data: Any, event: str | None = None, retry: int | None = None
    ) -> str:
        """Publish an event: it is stored, and delivered to all subscribers on this machine.

        Blocks until it is stored.

        Args:
            channel: 1 to 128 of the characters ``A-Z a-z 0-9 _ . : -``.
            data: text as it is, or any other value as the application's JSON.
            event: its type; not ``gap`` or ``failure``, which are reserved.
            retry: the reconnection time it sets, in milliseconds.

        Returns:
            its id.

        Raises:
            ChannelError: this is not a channel's name.
            EventError: the format can't represent the event, or its type is reserved.
            Failure: 503, the store can't store it now.
            RuntimeError: this is not registered with the application.
        """
        text = data if isinstance(data, str) else json_text(data, self._app().json)
        frames = [encode_event(text, event, retry)]
        with _unavailable_as_failure():
            ids = self._channels().publish(check_name(channel), frames)
        assert isinstance(ids, list)  # without a key nothing can be reused
        return ids[0]

    def subscribe(
        self,
        *channels: str,
        since: str | None = None,
        until: str | Iterable[str] | None = None,
        heartbeat: float | None = None,
        lifetime: float | None = None,
        expires_at: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> EventSourceResponse:
        """Answer the current request with the events of some channels.

        A client that resumes with ``Last-Event-ID`` (or in the query, see
        `sseflask.last_event_id`; also ``earliest``) first gets the events that it has missed, or
        ``event: gap`` for those that are not stored any more. The first call in a process blocks
        until the store is open.

        With ``until`` the stream ends properly after the first event of such a type, in any of the
        channels, stored or new. The id of that event ends with ``.end``. A client that resumes with
        this id gets 204, so that an EventSource stops by itself; one that resumes with an earlier
        id gets the rest and the end. Only events after the client's cursor end the stream.

        Args:
            channels: names, and patterns of names: in ``orders.*`` the star is any one segment, in
                ``orders.**`` any number of them.
            since: the start of a client without a cursor: ``earliest`` or a cursor, such as from
                `position`; by default new events only.
            until: a type of events, or several; ``message`` is the type of events without one.
            heartbeat: as for `EventSourceResponse`.
            lifetime: seconds until the stream ends and the client resumes; by default
                ``SSEFLASK_LIFETIME``.
            expires_at: the Unix time at which the stream ends with a ``token_expired`` failure.
            headers: further response headers.

        Raises:
            ChannelError: one of them is neither a name nor a pattern, or there is none.
            ValueError: ``since`` is not a text, or ``until`` has a type that no event can have.
            Failure: 503, the store can't be opened now.
            RuntimeError: this is not registered with the current application, or there is no
                request.
        """
        patterns = _patterns(channels, "subscribe to")
        if since is not None and since != "":
            _check_cursor("since", since)
        types = frozenset[bytes]() if until is None else check_types(until)
        request, app = current_request(), self._app()
        own = cursor_of(request)
        presented = own or since or None
        if types and presented and has_ended(presented):
            return EventSourceResponse((), status=204, headers=headers)
        try:  # not by the context manager, which takes eight calls for each subscriber
            subscription = self._channels(app).subscribe(
                patterns,
                own,
                since=since or None,
                until=types,
                announce=is_event_source(request.environ),
                retry_jitter=setting(app.config, "SSEFLASK_RETRY_JITTER"),
            )
        except StoreError as error:
            raise store_unavailable() from error
        response = EventSourceResponse(
            subscription,
            headers=headers,
            first_byte=0,
            heartbeat=heartbeat,
            lifetime=lifetime,
            expires_at=expires_at,
        )
        if own is None and (presented is None or Cursor.parse(presented)):
            start = str(subscription.start)
            if headers is None:
                response.headers.add("Last-Event-ID", start)  # there is none yet
            else:
                response.headers.setdefault("Last-Event-ID", start)
        return response

    def position(self) -> str:
        """A cursor after everything that any process has published so far.

        For a page that is rendered first and subscribes then: take the position, read the page's
        data, and let the page subscribe from the position. No event is lost in between. An event
        that is published while the page is made may be in the data too; a page that must not get it
        twice uses `history` and its ``cursor``.

        Returns:
            a cursor for ``since`` and a client's ``last_event_id``.

        Raises:
            Failure: 503, the store can't be read now.
        """
        with _unavailable_as_failure():
            return self._channels().position()

    def history(self, channel: str, after: str = EARLIEST, limit: int = 100) -> ChannelHistory:
        """Read the stored events of a channel, up to now.

        They include everything that any process has published before the call.

        Args:
            channel: a name or pattern, as for `subscribe`.
            after: the id of an event, or any other cursor, or ``earliest``.
            limit: the most events.

        Returns:
            the events with their ids, whether some are missing before them, and a cursor to
            continue.

        Raises:
            ChannelError: this is neither a name nor a pattern.
            ValueError: ``after`` is not a text, or ``limit`` not a whole number from 1.
            Failure: 503, the store can't be read now.
        """
        pattern = Pattern.parse(channel)
        _check_cursor("after", after)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"limit must be a whole number from 1, not {limit!r:.80}")
        with _unavailable_as_failure():
            return read_history(self._channels().store, pattern, after, limit)

    def close(self, *channels: str) -> None:
        """End the streams of the subscribers of some channels, on all workers.

        A stream ends if one of its names and patterns is covered by one of these: ``user.7`` ends
        the streams with the name ``user.7``, also if they have other channels; ``user.*`` those
        with the name of any user's channel, or with ``user.*``. Neither ends a stream of ``**``.

        Subscribers get the events that were published before, unless they are behind, and none that
        are published later. Their streams end as at a shutdown, with a jittered ``retry:``, so an
        EventSource reconnects. The view has to refuse it, with 204 or any other status but 200:
        that stops an EventSource. At a logout end the session first, and close then.

        Returns when it is stored. Other workers follow within milliseconds; a worker that is
        suspended follows when it runs again.

        Args:
            channels: names and patterns; at least one.

        Raises:
            ChannelError: one of them is neither a name nor a pattern, or there is none.
            Failure: 503, the store can't store it now.
        """
        patterns = _patterns(channels, "close")
        with _unavailable_as_failure():
            self._channels().store.close_subscriptions(patterns)

    def subscribers(self, pattern: str = "**") -> int:
        """Count the streams that `close` would end, on all workers.

        Each worker counts at a slightly different moment. A dead worker has none; one that does not
        answer within a second is left out. A client that has left is counted until its server
        notices. Takes some milliseconds and writes to the store: not for every event.

        Args:
            pattern: a name or pattern.

        Raises:
            ChannelError: this is neither a name nor a pattern.
            Failure: 503, the store can't be written now.
        """
        parsed = Pattern.parse(pattern)
        with _unavailable_as_failure():
            return self._channels().store.count_subscriptions(parsed)

    def _app(self) -> Flask:
        """The application of this call."""
        raise NotImplementedError

    def _channels(self, app: Flask | None = None) -> Channels:
        """Its channels, or those of another application."""
        raise NotImplementedError


def _patterns(channels: Iterable[str], to: str) -> list[Pattern]:
    patterns = [Pattern.parse(channel) for channel in channels]
    if not patterns:
        raise ChannelError(f"name at least one channel or pattern to {to}")
    return patterns


def _check_cursor(name: str, cursor: object) -> None:
    if not isinstance(cursor, str) or not cursor:
        raise ValueError(
            f"{name} must be a cursor (the id of an event, or what position() gives) or "
            f"{EARLIEST!r}, not {cursor!r:.80}"
        )


@contextlib.contextmanager
def _unavailable_as_failure() -> Iterator[None]:
    """Raise a `StoreError` as the `Failure` that a client gets."""
    try:
        yield
    except StoreError as error:
        raise store_unavailable() from error
