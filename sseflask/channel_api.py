"""What an application does with its channels: the methods of `sseflask.SSE` for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flask import Flask, request

from sseflask.channels.channels import Channels
from sseflask.channels.event_frames import EARLIEST, Cursor, check_types, has_ended, stored
from sseflask.channels.history import ChannelHistory
from sseflask.defaults import setting
from sseflask.errors import ChannelError
from sseflask.json_text import json_text
from sseflask.response import EventSourceResponse
from sseflask.store.api import StoreError
from sseflask.store.names import Pattern, check_name
from sseflask.store.unavailable import store_unavailable
from sseflask.web.cursor import last_event_id
from sseflask.web.refusals import is_event_source

__all__ = ["ChannelMethods"]


class ChannelMethods:
    """Publish, subscribe, and what applications need around that.

    All methods but `subscribe` can be called from any thread and without a request: in a script, a
    task, ``flask shell``. An application context is needed only if the extension is registered with
    several applications. All block the calling greenlet or thread alone.
    """

    def publish(
        self, channel: str, data: Any, event: str | None = None, retry: int | None = None
    ) -> str:
        """Publish an event: store it, and have it delivered to all subscribers of this machine.

        Blocks until it is stored.

        Args:
            channel: 1 to 128 of the characters ``A-Z a-z 0-9 _ . : -``.
            data: text as it is, or any other value as the application's JSON.
            event: its type; not ``gap`` or ``failure``, which are the server's own.
            retry: the reconnection time it sets, in milliseconds.

        Returns:
            its id.

        Raises:
            ChannelError: that is no channel's name.
            EventError: the format can't represent the event, or its type is the server's own.
            Failure: 503, the log can't store it now.
            RuntimeError: this is not registered with the application.
        """
        text = data if isinstance(data, str) else json_text(data, self._app().json)
        frames = [stored(text, event, retry)]
        with _telling():
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
        """Answer the current request with what is published to some channels.

        A client that comes back with ``Last-Event-ID`` (or in the query, see
        `sseflask.last_event_id`; also ``earliest``) first gets what it has missed, or
        ``event: gap`` where that is not there any more. Blocks for the opening of the log, the
        first time in a process.

        With ``until`` the stream ends properly after the first event of such a type, whichever of
        the channels it comes from, and whether it is read from the log or published meanwhile. The
        id of that event ends with ``.end``. Who comes back with it gets 204, so that an EventSource
        stops by itself; who comes back with an earlier id gets the rest and the end. What counts is
        what comes after the client's place: an event of such a type before it ends nothing.

        Args:
            channels: names, and patterns of names: in ``orders.*`` the star is any one segment, in
                ``orders.**`` any number of them.
            since: where a client begins that presents no cursor of its own: ``earliest`` or a
                cursor, such as `position` gives; by default with what is published from here on.
            until: the type of an event, or some; ``message`` is the type of those without one.
            heartbeat: as for `EventSourceResponse`.
            lifetime: seconds until the client is sent back to resume; by default
                ``SSEFLASK_LIFETIME``.
            expires_at: the Unix time at which the stream ends with a ``token_expired`` failure.
            headers: further response headers.

        Raises:
            ChannelError: something that is neither a name nor a pattern, or nothing at all.
            ValueError: ``since`` is no text, or ``until`` no type that an event can be published
                with.
            Failure: 503, the log has not been open yet and can't be opened now.
            RuntimeError: this is not registered with the current application, or there is no
                request.
        """
        patterns = _patterns(channels, "subscribe to")
        if since is not None and since != "":
            _check_cursor("since", since)
        types = frozenset[bytes]() if until is None else check_types(until)
        own = last_event_id()
        presented = own or since or None
        if types and presented and has_ended(presented):
            return EventSourceResponse((), status=204, headers=headers)
        with _telling():
            subscription = self._channels().subscribe(
                patterns,
                own,
                since=since or None,
                until=types,
                announce=is_event_source(request),
                retry_jitter=setting(self._app().config, "SSEFLASK_RETRY_JITTER"),
            )
        response = EventSourceResponse(
            subscription,
            headers=headers,
            first_byte=0,
            heartbeat=heartbeat,
            lifetime=lifetime,
            expires_at=expires_at,
        )
        if own is None and (presented is None or Cursor.parse(presented)):
            response.headers.setdefault("Last-Event-ID", str(subscription.start))
        return response

    def position(self) -> str:
        """Give a cursor behind everything that has been published so far, by any process.

        For a page that is rendered first and subscribes then: take the position, read what the page
        shows, and let the page subscribe from the position. No event is lost in between. What is
        published while the page is made comes once more, as an event; `history` and its ``cursor``
        are for pages that must not get it twice.

        Returns:
            what ``since`` and a client's ``last_event_id`` take.

        Raises:
            Failure: 503, the log can't be read now.
        """
        with _telling():
            return self._channels().position()

    def history(self, channel: str, after: str = EARLIEST, limit: int = 100) -> ChannelHistory:
        """Read what a channel has been given, as far as it is kept; ends with what is there now.

        What was published before the call is in it, by whichever process.

        Args:
            channel: a name or pattern, as for `subscribe`.
            after: the id of an event, or any other cursor; ``earliest`` for the first event that is
                kept.
            limit: how many events at most.

        Returns:
            the events with their ids, whether something is missing before them, and a cursor to go
            on from.

        Raises:
            ChannelError: that is neither a name nor a pattern.
            ValueError: ``after`` is no text, or ``limit`` no whole number from 1.
            Failure: 503, the log can't be read now.
        """
        pattern = Pattern.parse(channel)
        _check_cursor("after", after)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ValueError(f"limit must be a whole number from 1, not {limit!r:.80}")
        with _telling():
            return self._channels().history(pattern, after, limit)

    def close(self, *channels: str) -> None:
        """End the streams of those who have subscribed to some channels, on all workers.

        A stream is ended if one of the names and patterns that it was opened with is one of these,
        or means nothing but channels of these: ``user.7`` ends the streams that name ``user.7``,
        also beside other channels; ``user.*`` those that name any user's channel, or ``user.*``
        itself. Neither ends a stream of ``**``.

        What was published before reaches them first, unless they are behind; what is published
        from here on does not. They end as at a shutdown, with a jittered ``retry:`` and nothing
        lost, so an EventSource comes back: the view has to refuse it, with 204 or any other status
        but 200, which an EventSource takes for the end. At a logout end the session first, and
        close then.

        Returns when it is stored; other workers follow within milliseconds. One that stands still
        does so when it goes on.

        Args:
            channels: names and patterns; at least one.

        Raises:
            ChannelError: something that is neither a name nor a pattern, or nothing at all.
            Failure: 503, the log can't store it now.
        """
        patterns = _patterns(channels, "close")
        with _telling():
            self._channels().close_subscriptions(patterns)

    def subscribers(self, pattern: str = "**") -> int:
        """Count the streams that `close` would end, on all workers.

        Each worker is asked, and counts in the moment in which it is: there is no moment at which
        all of them had so many. A dead worker has none; one that does not answer within a second is
        left out. A client that has left is counted until its server knows. Takes some milliseconds
        and writes to the log: not for every event.

        Args:
            pattern: a name or pattern.

        Raises:
            ChannelError: that is neither a name nor a pattern.
            Failure: 503, the log can't store the question now.
        """
        parsed = Pattern.parse(pattern)
        with _telling():
            return self._channels().count(parsed)

    def _app(self) -> Flask:
        """The application that is meant."""
        raise NotImplementedError

    def _channels(self) -> Channels:
        """Its channels."""
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
def _telling() -> Iterator[None]:
    """Turn what the log can't do into what a client is told."""
    try:
        yield
    except StoreError as error:
        raise store_unavailable() from error
