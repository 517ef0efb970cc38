"""Sockets that get the same bytes, each a small record instead of a greenlet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sseflask.counters.counts import COUNTS, Kind, Reason, StreamCounts
from sseflask.errors import Failure
from sseflask.transport.accounting import LogFields
from sseflask.transport.failures import failure_frame
from sseflask.transport.stream import reconnect_line
from sseflask.wire import events_in

_LAST_CHUNK = b"0\r\n\r\n"


class Piece(NamedTuple):
    """A piece of the body, of ``size`` bytes, and as it is sent: perhaps framed as a chunk."""

    data: bytes
    size: int
    events: int


@dataclass(slots=True, eq=False)
class Backlog:
    """What the socket of a slow stream has not taken yet.

    Attributes:
        pieces: what is to be written, in order; shared with other streams, never copied.
        done: bytes of the first piece that were written already.
        progress: the monotonic time at which the client last took something.
        size: bytes that are to be written.
        events, bytes: of the body, in all that was added.
        unacknowledged: bytes that the client had not acknowledged at the last look; ``None`` if it
            was not looked at since the client last took something.
        last: why the stream ends when all of it is written, ``None`` if it goes on.
    """

    done: int
    progress: float
    pieces: deque[bytes] = field(default_factory=deque)
    size: int = field(init=False)
    events: int = 0
    bytes: int = 0
    unacknowledged: int | None = None
    last: Reason | None = None

    def __post_init__(self) -> None:
        self.size = -self.done

    def add(self, piece: Piece) -> None:
        self.pieces.append(piece.data)
        self.size += len(piece.data)
        self.events += piece.events
        self.bytes += piece.size

    @property
    def waiting(self) -> int:
        """Bytes to be written, without those of the piece that is being written."""
        return self.size - len(self.pieces[0]) + self.done

    @property
    def events_left(self) -> int:
        if not self.pieces:
            return 0
        first, *others = self.pieces
        # From the byte before: a blank line may have been written up to its middle.
        return sum(map(events_in, others), events_in(first[max(0, self.done - 1) :]))


@dataclass(slots=True, eq=False)
class DetachedStream:
    """One detached stream. The fewer fields, the more of them a worker holds.

    Attributes:
        sent_offset: bytes of the body that were sent before it was detached, minus the group's
            `sent` at that moment: add the group's to get the total. `events_offset` likewise.
        due: when it ends, as `sseflask.transport.timing` counts it, 0 for never.
        expires: whether it ends then because its token does.
        log_entry, log_fields: for `access_log` and `accounting` at its end.
        listener: the name of the listening socket, if the connection is kept after the end.
    """

    descriptor: int
    group: Group
    began: float
    sent_offset: int
    events_offset: int = 0
    due: int = 0
    expires: bool = False
    log_entry: object | None = None
    log_fields: LogFields | None = None
    listener: object = None

    def __post_init__(self) -> None:
        self.sent_offset -= self.group.sent
        self.events_offset -= self.group.events


@dataclass(slots=True, eq=False)
class Group:
    """Detached streams that get the same bytes. Belongs to the loop's thread.

    Attributes:
        streams: those whose sockets take everything, by their descriptors.
        slow: those with a backlog; made when needed, as most groups are small.
        sent: bytes of the body that were sent to each stream, at last at `last_sent`.
        retry_jitter: over how many milliseconds clients of streams that end together reconnect.
        last_reconnect: the monotonic time at which a stream last ended to be resumed; 0 for never.
        scheduled: whether `Deadlines` has its heartbeats.
    """

    chunked: bool
    heartbeat: float
    on_empty: Callable[[Group], None]
    resumable: bool = True
    failure_frame: Callable[[Failure], bytes] = failure_frame
    kind: Kind = "channel"
    counts: StreamCounts = field(init=False)
    streams: dict[int, DetachedStream] = field(default_factory=dict)
    slow: set[DetachedStream] | None = None
    sent: int = 0
    events: int = 0
    last_sent: float = 0.0
    retry_jitter: int = 0
    last_reconnect: float = 0.0
    scheduled: bool = False

    def __post_init__(self) -> None:
        self.counts = COUNTS.streams[self.kind]

    @property
    def count(self) -> int:
        return len(self.streams) + len(self.slow or ())

    @property
    def all_streams(self) -> list[DetachedStream]:
        return [*self.streams.values(), *(self.slow or ())]

    def __contains__(self, stream: DetachedStream) -> bool:
        return self.streams.get(stream.descriptor) is stream or stream in (self.slow or ())

    def add(self, stream: DetachedStream) -> None:
        """Take in a stream whose socket takes everything."""
        if self.slow is not None:
            self.slow.discard(stream)
        self.streams[stream.descriptor] = stream

    def mark_slow(self, stream: DetachedStream) -> None:
        """The stream has a backlog from here on."""
        self.streams.pop(stream.descriptor, None)
        if self.slow is None:
            self.slow = set()
        self.slow.add(stream)

    def remove(self, stream: DetachedStream) -> None:
        self.streams.pop(stream.descriptor, None)
        if self.slow is not None:
            self.slow.discard(stream)
        if not self.count:
            self.on_empty(self)

    def reconnect_line(self) -> bytes:
        """The last bytes of a stream that ends together with others, to be resumed."""
        self.last_reconnect = time.monotonic()
        return reconnect_line(self.retry_jitter)

    def piece(self, body: bytes, events: int | None = None) -> Piece:
        """Frame a piece of the body, which is not empty."""
        data = b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body
        return Piece(data, len(body), events_in(body) if events is None else events)

    def last_piece(self, body: bytes) -> Piece:
        """Frame the last piece of the body, which may be empty, and its end."""
        # An empty chunk would be the last one.
        piece = self.piece(body) if body else Piece(b"", 0, 0)
        return Piece(piece.data + _LAST_CHUNK, piece.size, piece.events) if self.chunked else piece
