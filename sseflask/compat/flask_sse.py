"""Flask-SSE's interface on channels: ``from sseflask.compat.flask_sse import sse`` is the change.

Its documented examples run as they are (https://flask-sse.readthedocs.io, version 1.0.0), without a
Redis server, and gain history, resuming by ``Last-Event-ID``, heartbeats, and an end of streams
whose clients have gone. What differs is said at `ServerSentEventsBlueprint`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request

from sseflask.channels.names import Pattern, check_name
from sseflask.channels.subscription import Subscription
from sseflask.event import Event
from sseflask.extension import SSE, channels_of
from sseflask.wire import Decoder, encode

__all__ = ["Message", "ServerSentEventsBlueprint", "sse"]

log = logging.getLogger("sseflask")


@dataclass
class Message:
    """What is published, as in Flask-SSE.

    Args:
        data: text, or any other value, which is sent as JSON.
        type: the event's type.
        id: the event's id.
        retry: the reconnection time, in milliseconds.
    """

    data: Any
    type: str | None = None
    id: str | None = None
    retry: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set."""
        fields = {"type": self.type, "id": self.id, "retry": self.retry}
        return {"data": self.data, **{name: value for name, value in fields.items() if value}}

    def __str__(self) -> str:
        return encode(Event(_text(self.data), self.type or None, self.id, self.retry)).decode()


class ServerSentEventsBlueprint(Blueprint):
    """Flask-SSE's blueprint: a view that streams a channel, and `publish`.

    Registering it also registers `sseflask.SSE`, unless the application has that already. Compared
    with Flask-SSE:

    - Ids are the log's own, so that clients can resume; an ``id`` that is given is not sent.
    - Channel names are those of `sseflask`; others get a 400, or a `ChannelError` on publishing.
    - `publish` returns the event's id, not a number of subscribers.
    - ``REDIS_URL`` is not read: one file serves all workers of the machine.
    """

    def register(self, app: Flask, options: dict[str, Any]) -> None:  # type: ignore[override]  # Flask's stubs name the base of Flask and Quart
        """Called by Flask."""
        super().register(app, options)
        if "sseflask" not in app.extensions:
            SSE(app)

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        channel: str = "sse",
    ) -> str:
        """Publish an event to the current application's subscribers; see `sseflask.SSE.publish`.

        Args:
            data: text, or any other value, which the application's JSON encoder turns into it.
            type: the event's type.
            id: accepted and not sent.
            retry: the reconnection time, in milliseconds.
            channel: only who listens to it gets the event.
        """
        if id is not None:
            _warn_about_id()
        extension: SSE = current_app.extensions["sseflask"]
        return extension.publish(channel, _text(data), event=type or None, retry=retry or None)

    def messages(self, channel: str = "sse") -> Iterator[Message]:
        """Give the messages that are published to a channel from here on; blocks for each."""
        patterns = [Pattern.parse(check_name(channel))]
        return _messages(channels_of(current_app).subscribe(patterns, None))

    def stream(self) -> Response:
        """The view: streams the channel that ``channel`` in the query names, by default ``sse``."""
        # A name only: what Flask-SSE's users allow for one channel must not open many.
        channel = check_name(request.args.get("channel") or "sse")
        extension: SSE = current_app.extensions["sseflask"]
        return extension.subscribe(channel)


def _messages(subscription: Subscription) -> Iterator[Message]:
    decoder = Decoder()
    try:
        for frames in subscription:
            for event in decoder.feed(frames):
                type = None if event.event == "message" else event.event
                yield Message(event.data, type, event.last_event_id)
    finally:
        subscription.close()


def _text(data: Any) -> str:
    return data if isinstance(data, str) else current_app.json.dumps(data)


@functools.cache  # once is enough
def _warn_about_id() -> None:
    log.warning(
        "an id was given to publish: it is not sent, as the log's own ids are what clients "
        "resume from. Put yours into the data."
    )


sse = ServerSentEventsBlueprint("sse", __name__)
"""The blueprint to register: ``app.register_blueprint(sse, url_prefix="/stream")``."""
sse.add_url_rule(rule="", endpoint="stream", view_func=sse.stream)
