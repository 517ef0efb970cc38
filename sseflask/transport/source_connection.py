"""A connection whose items are a source: it can go on without a greenlet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from sseflask.transport.connection import Connection
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.item_sender import Stop


class SourceConnection(Connection):
    """One subscriber, or viewer of a run. Under our own worker class it gives its greenlet back
    when nothing is left but to wait."""

    __slots__ = ("_adopt", "_detached_stream", "_group", "_source")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert self.stream.source is not None
        self._source = self._sender.writer.source = self.stream.source
        self._adopt = self.server.adopt if self.stream.detachable else None
        self._group: Group | None = None
        self._detached_stream: DetachedStream | None = None

    def begin(self) -> None:
        super().begin()
        stream = self._detached_stream
        if self._adopt is not None and stream is not None:
            ends_at, due = self._timer.end(time.monotonic())
            stream.expires = due == "expiry"
            self.server.adopted = True
            self._adopt(stream, ends_at, self.server, self.environ)

    def _begin_items(self) -> bool:
        sender = self._sender
        if sender.greenlet.stopping:
            raise Stop  # while it can still be another response
        left = self._timer.first_byte_at - time.monotonic()
        self._send(self._source.first(max(0.0, left)))
        sender.send_opening()
        if self._adopt is not None:
            self._group = self._catch_up()
            sender.complete = self._group is None
            return False
        sender.items = self._source.frames()
        return True

    def _send(self, items: Iterator[bytes]) -> None:
        """Send some of the items; they are not all."""
        self._sender.items = items
        self._sender.send()
        self._sender.complete = False

    def _catch_up(self) -> Group | None:
        """Send what is there already, until a group can do the rest, or there is none."""
        source, sender, writer = self._source, self._sender, self._sender.writer
        while True:
            self._send(source.history())
            writer.flush()
            writer.wait_until_sent(or_stopping=True)
            if sender.greenlet.stopping:
                raise Stop
            if source.ended:
                return None
            if writer.unsent is None:
                group = source.join(bool(writer.chunked), self.stream.heartbeat)
                if group is not None:
                    group.retry_jitter = self.stream.retry_jitter
                    return group

    def _detached(self) -> bool:
        if self._group is None:
            return False
        sender, writer = self._sender, self._sender.writer
        self._reader.close()
        writer.close()
        # Not a copy of the descriptor: libev would go on watching this one.
        stream = DetachedStream(
            writer.socket.detach(), self._group, sender.began, writer.body_sent, writer.events_sent
        )
        stream.log_fields, sender.counted = sender.log_fields, False
        if sender.reusable and not self.server.has_proxy_line:
            connection: Any = getattr(self.environ["gunicorn.socket"], "connection", None)
            stream.listener = connection and connection.listener
        self._detached_stream = stream
        return True

    def _close_items(self) -> None:
        if self._sender.reconnects and not self._closed:
            self._source.will_reconnect()
        super()._close_items()
