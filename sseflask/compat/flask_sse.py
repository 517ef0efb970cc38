"""Flask-SSE's interface on channels: ``from sseflask.compat.flask_sse import sse`` is the change.

Its documented examples run as they are (https://flask-sse.readthedocs.io, version 1.0.0), without a
Redis server, and gain history, resuming by ``Last-Event-ID``, heartbeats, and an end of streams
whose clients have gone. `ServerSentEventsBlueprint` lists the differences.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Flask, Response, current_app, json, request

from sseflask.channels.event_frames import encode_event
from sseflask.channels.subscription import Subscription
from sseflask.errors import ChannelError
from sseflask.event import Event, MessageEvent
from sseflask.extension import SSE, channels_of
from sseflask.frame import lines_of
from sseflask.json_text import json_text
from sseflask.logs.once import warn_once
from sseflask.store.api import StoreError, store_unavailable
from sseflask.store.names import Pattern, check_name
from sseflask.wire import Decoder

__all__ = ["Message", "ServerSentEventsBlueprint", "sse"]


@dataclass(repr=False)
class Message:
    """A message to publish, as in Flask-SSE; data that is no text is sent as JSON."""

    data: Any
    type: str | None = None
    id: str | int | None = None
    retry: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are set."""
        fields = {"type": self.type, "id": self.id, "retry": self.retry}
        return {"data": self.data, **{name: value for name, value in fields.items() if value}}

    def __repr__(self) -> str:
        data, *others = self.to_dict().items()
        fields = "".join(f", {name}={value!r}" for name, value in others)
        return f"{self.__class__.__name__}({data[1]!r}{fields})"

    def __str__(self) -> str:
        """The event, in Flask-SSE's order and without spaces.

        Raises:
            EventError: the format can't represent it; in Flask-SSE it would break the stream.
        """
        event = Event(_text(self.data), self.type or None, self.id or None, self.retry or None)
        lines = [f"data:{line}" for line in lines_of(event.data or "")]
        if event.event:
            lines.insert(0, f"event:{event.event}")
        if event.id:
            lines.append(f"id:{event.id}")
        if event.retry:
            lines.append(f"retry:{event.retry}")
        return "\n".join(lines) + "\n\n"


class ServerSentEventsBlueprint(Blueprint):
    """Flask-SSE's blueprint: a view that streams a channel, and `publish`.

    Registering it also registers `sseflask.SSE`, unless the application has that already. Compared
    with Flask-SSE:

    - Ids are the store's, so that clients can resume; an ``id`` of the application is not sent, and
      `messages` gives none.
    - `publish` returns the event's id, not a number of subscribers.
    - ``REDIS_URL`` and ``SSE_REDIS_URL`` are not read, and there is no ``redis``: one file serves
      all workers of the machine.
    - Values that the format can't represent (a line break in a type, NaN, a lone surrogate, a
      ``retry`` that is not a number) raise `EventError`, and so do the reserved types ``gap`` and
      ``failure``. Data is split at CR, LF and CRLF only, and empty data is sent.

    A channel may have any name. One that `sseflask` does not allow (``user@example.org``, ``a/b``)
    exists for this blueprint alone, which stores it under another name.
    """

    def register(self, app: Flask, options: dict[str, Any]) -> None:  # type: ignore[override]  # Flask's stubs name the base of Flask and Quart
        super().register(app, options)
        if "sseflask" not in app.extensions:
            SSE(app)

    def publish(
        self,
        data: Any,
        type: str | None = None,
        id: str | int | None = None,
        retry: int | None = None,
        channel: str = "sse",
    ) -> str:
        """Publish an event to the current application's subscribers; see `sseflask.SSE.publish`.

        Args:
            data: text, or any other value, which the application's JSON encoder writes.
            id: accepted and not sent.
            retry: the reconnection time, in milliseconds.
        """
        if id is not None:
            warn_once(
                "an id was given to publish: it is not sent, as clients resume from the store's "
                "ids. Put yours into the data."
            )
        frame = encode_event(_text(data), event=type or None, retry=retry or None)
        if not isinstance(data, str):
            frame = _DATA.sub(_JSON_DATA, frame, count=1)
        try:
            ids = channels_of(current_app).publish(_name(channel), [frame])
        except StoreError as error:
            raise store_unavailable() from error
        assert isinstance(ids, list)  # without a key nothing can be reused
        return ids[0]

    def messages(self, channel: str = "sse") -> Iterator[Message]:
        """The messages that are published to a channel from now on; blocks for each."""
        patterns = [Pattern.parse(_name(channel))]
        return _messages(channels_of(current_app).subscribe(patterns, None))

    def stream(self) -> Response:
        """The view: streams the channel that ``channel`` in the query names, by default ``sse``."""
        # A name only: a check of Flask-SSE's users for one channel must not allow a pattern.
        channel = _name(request.args.get("channel") or "sse")
        extension: SSE = current_app.extensions["sseflask"]
        return extension.subscribe(channel)


#: A frame of JSON has no space here: so `messages` distinguishes it from text. To clients both are
#: the same (WHATWG HTML, section 9.2.6).
_DATA, _JSON_DATA = re.compile(rb"^data: ", re.MULTILINE), b"data:"


def _name(channel: str) -> str:
    """The channel's name in the store."""
    try:
        return check_name(channel)
    except ChannelError:
        name = channel if isinstance(channel, str) else repr(channel)
        return f"flask_sse:{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()}"


def _messages(subscription: Subscription) -> Iterator[Message]:
    try:
        for frames in subscription.frames():
            for frame in frames.split(b"\n\n"):
                for event in Decoder().feed(frame + b"\n\n"):
                    yield _message(event, frame)
    finally:
        subscription.close()


def _message(event: MessageEvent, frame: bytes) -> Message:
    retry = _RETRY.search(frame)
    return Message(
        event.data if _DATA.search(frame) else json.loads(event.data),
        None if event.event == "message" else event.event,
        retry=int(retry[1]) if retry else None,
    )


_RETRY = re.compile(rb"^retry: ([0-9]+)$", re.MULTILINE)


def _text(data: Any) -> str:
    return data if isinstance(data, str) else json_text(data, json)


sse = ServerSentEventsBlueprint("sse", __name__)
"""The blueprint to register: ``app.register_blueprint(sse, url_prefix="/stream")``."""
sse.add_url_rule(rule="", endpoint="stream", view_func=sse.stream)
