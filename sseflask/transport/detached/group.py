"""Sockets that wait for the same bytes, each a small record instead of a greenlet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sseflask.counters.counts import COUNTS, Kind, Reason
from sseflask.errors import Failure
from sseflask.transport.accounting import LogFields
from sseflask.transport.failures import failure_frame
from sseflask.wire import events_in

__all__ = ["Backlog", "DetachedStream", "Group"]

_LAST_CHUNK = b"0\r\n\r\n"


class Backlog:
    """What a stream's socket has not taken yet.

    Attributes:
        pieces: what is to be written, in order; shared with other streams, never copied.
        done: bytes of the first piece that were written already.
        size: bytes that are to be written.
        progress: the monotonic time at which the client last took something.
        waiting: bytes that it had not acknowledged when that was last looked at.
        last: why the stream ends when all of it is written, ``None`` if it goes on.
        events: how many there were in all that was added.
        bytes: bytes of the body that were added.
    """

    __slots__ = ("bytes", "done", "events", "last", "pieces", "progress", "size", "waiting")

    def __init__(self, piece: bytes, done: int, now: float, events: int, body: int) -> None:
        self.pieces = deque([piece])
        self.done = done
        self.size = len(piece) - done
        self.progress = now
        self.waiting = -1
        self.last: Reason | None = None
        self.events = events
        self.bytes = body

    def add(self, data: bytes, events: int, body: int) -> None:
        """Have more written after what is there.

        Args:
            data: the bytes.
            events: how many there are in it.
            body: how many bytes of the body it carries.
        """
        self.pieces.append(data)
        self.size += len(data)
        self.events += events
        self.bytes += body

    @property
    def events_left(self) -> int:
        """How many events are still to be written."""
        if not self.pieces:
            return 0
        first, *others = self.pieces
        # From the byte before: a blank line may have been written up to its middle.
        return sum(map(events_in, others), events_in(first[max(0, self.done - 1) :]))


class DetachedStream:
    """One detached stream. The fewer fields, the more subscribers a worker holds.

    Attributes:
        descriptor: the socket's.
        group: what it gets.
        index: its place in the group's lists, -1 while it is not in them.
        backlog: what its socket has not taken, or ``None``.
        began: the monotonic time at which the request began.
        sent: bytes of the body that were sent before it joined, less those of the group by then.
        events: the same for events.
        due: when it has to end, as `sseflask.transport.detached.deadlines` counts it, 0 for never.
        expires: whether it ends then because its token does.
        line: what `sseflask.transport.gunicorn.access_log` logs at its end, if anything.
        log_fields: what `sseflask.transport.accounting` is to log at its end.
        retry_jitter: see `sseflask.transport.stream.Stream`.
        listener: what the connection came by, where it is kept after the stream's end.
        unread: what was read of its next request.
    """

    __slots__ = (
        "backlog",
        "began",
        "descriptor",
        "due",
        "events",
        "expires",
        "group",
        "index",
        "line",
        "listener",
        "log_fields",
        "retry_jitter",
        "sent",
        "unread",
    )

    def __init__(
        self, descriptor: int, group: Group, began: float, sent: int, events: int = 0
    ) -> None:
        self.descriptor = descriptor
        self.group = group
        self.index = -1
        self.backlog: Backlog | None = None
        self.began = began
        self.sent = sent - group.sent
        self.events = events - group.events
        self.log_fields: LogFields | None = None
        self.due = 0
        self.expires = False
        self.line: object | None = None
        self.retry_jitter = 0
        self.listener: object = None
        self.unread = b""


class Group:
    """Detached streams that get the same bytes. Belongs to the loop's thread.

    Args:
        chunked: whether bodies are sent in chunks.
        heartbeat: seconds of silence after which it sends a heartbeat.
        on_empty: called when the last stream has gone.
        resumable: whether a client that is sent away comes back to where it was.
        failure_frame: encodes what a stream is told when its stream fails.
        kind: what its streams are counted as.

    Attributes:
        streams: those whose sockets take everything, in no order.
        descriptors: theirs, in the same order.
        lagging: those with a backlog.
        sent: bytes of the body that were sent to each stream.
        events: how many events.
        counts: where its streams' streams are counted.
        last_sent: the monotonic time at which something was.
        last_reconnect: the monotonic time at which a stream last was, to come back; 0 for never.
    """

    __slots__ = (
        "chunked",
        "counts",
        "descriptors",
        "events",
        "failure_frame",
        "heartbeat",
        "kind",
        "lagging",
        "last_reconnect",
        "last_sent",
        "on_empty",
        "resumable",
        "sent",
        "streams",
        "watched",
    )

    def __init__(
        self,
        chunked: bool,
        heartbeat: float,
        on_empty: Callable[[Group], None],
        *,
        resumable: bool = True,
        failure_frame: Callable[[Failure], bytes] = failure_frame,
        kind: Kind = "channel",
    ) -> None:
        self.chunked = chunked
        self.heartbeat = heartbeat
        self.on_empty = on_empty
        self.resumable = resumable
        self.failure_frame = failure_frame
        self.kind = kind
        self.counts = COUNTS.streams[kind]
        self.streams: list[DetachedStream] = []
        self.descriptors: list[int] = []
        self.lagging: set[DetachedStream] | None = None  # made when needed: most groups are small
        self.sent = 0
        self.events = 0
        self.last_sent = 0.0
        self.last_reconnect = 0.0
        self.watched = False

    def add(self, stream: DetachedStream) -> None:
        """Take in a stream whose socket takes everything."""
        if self.lagging is not None:
            self.lagging.discard(stream)
        stream.index = len(self.streams)
        self.streams.append(stream)
        self.descriptors.append(stream.descriptor)

    def fall_behind(self, stream: DetachedStream) -> None:
        """The stream has a backlog from here on."""
        self._take_out(stream)
        if self.lagging is None:
            self.lagging = set()
        self.lagging.add(stream)

    def remove(self, stream: DetachedStream) -> None:
        """Forget a stream."""
        self._take_out(stream)
        if self.lagging is not None:
            self.lagging.discard(stream)
        if not self.count:
            self.on_empty(self)

    @property
    def count(self) -> int:
        """How many streams there are in it."""
        return len(self.streams) + len(self.lagging or ())

    def _take_out(self, stream: DetachedStream) -> None:
        index = stream.index
        if index < 0:
            return
        # The last one takes the place, so that nobody has to move up.
        last, descriptor = self.streams.pop(), self.descriptors.pop()
        if last is not stream:
            self.streams[index], self.descriptors[index] = last, descriptor
            last.index = index
        stream.index = -1

    def framed(self, body: bytes) -> bytes:
        """The bytes that carry a piece of the body."""
        return b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body

    def ending(self, body: bytes) -> bytes:
        """The bytes that carry the last piece of the body, which may be empty, and its end."""
        # An empty chunk would be the last one.
        data = self.framed(body) if body else b""
        return data + _LAST_CHUNK if self.chunked else data
