"""Writing to detached streams: a piece to all sockets of a group, or their last bytes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

from sseflask.counters.counts import Reason
from sseflask.loop.callbacks import yield_to_loop
from sseflask.transport.detached.group import Backlog, DetachedStream, Group, Piece
from sseflask.transport.detached.stream_table import StreamTable
from sseflask.transport.failures import shutting_down, token_expired
from sseflask.transport.sockets import send_last
from sseflask.wire import HEARTBEAT

#: Sockets that are written to, and bytes, between two turns of the loop: about 2 ms.
SOCKETS_AT_ONCE, BYTES_AT_ONCE = 256, 4 << 20

#: Returned instead of a number of bytes if the socket is dead.
_GONE = -1


class Delivery:
    """Writes to the streams of a table, in one greenlet only."""

    def __init__(self, table: StreamTable) -> None:
        self._table = table
        self._unbroken = 0.0

    def send(self, bodies: Sequence[tuple[Group, bytes]]) -> None:
        """Send, and let the loop run every few hundred sockets."""
        now = time.monotonic()
        with self._table.closing.postponed():
            announced = []
            pieces: dict[tuple[bool, int], Piece] = {}
            for group, body in bodies:
                key = (group.chunked, id(body))  # one body is for many groups
                piece = pieces.get(key)
                if piece is None:
                    piece = pieces[key] = group.piece(body)
                group.sent += piece.size
                group.events += piece.events
                group.last_sent = now
                if group.slow:
                    for stream in list(group.slow):
                        if not self._table.slow.add(stream, piece):
                            self._table.cut(stream)
                announced.append((group, piece, list(group.streams)))
            for each in announced:
                self._write(*each)

    def send_heartbeats(self, groups: Sequence[Group]) -> None:
        """Send each group a heartbeat; slow streams need none."""
        with self._table.closing.postponed():
            for group in groups:
                piece = group.piece(HEARTBEAT, events=0)
                group.sent += piece.size
                self._write(group, piece, list(group.streams))

    def end(self, streams: Sequence[DetachedStream], reason: Reason | None = None) -> None:
        """Send each its last bytes, for a reason, or because its time is over."""
        with self._table.closing.postponed():
            for count, stream in enumerate(streams, 1):
                backlog = self._table.slow.backlogs.get(stream)
                ends = backlog is not None and backlog.last is not None
                if self._table.streams.get(stream.descriptor) is stream and not ends:
                    self._end(stream, *_last_bytes(stream, reason))
                if not count % SOCKETS_AT_ONCE:
                    yield_to_loop()

    def _write(self, group: Group, piece: Piece, descriptors: Sequence[int]) -> None:
        """Write a piece to each socket, and count those that took it at once."""
        missed = 0
        for descriptor, sent in self._write_each(piece.data, descriptors):
            missed += 1
            stream = self._table.streams.get(descriptor)
            if sent == _GONE:
                self._table.client_gone(descriptor)
            elif stream is not None and descriptor in group.streams:  # it has not left since
                group.mark_slow(stream)
                self.keep(stream, piece, sent)
        taken = len(descriptors) - missed
        group.counts.events += piece.events * taken
        group.counts.bytes += piece.size * taken

    def _write_each(self, data: bytes, descriptors: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Give each descriptor that did not take all, and how much it took, or `_GONE`."""
        size, write = len(data), os.write
        at_once = min(SOCKETS_AT_ONCE, BYTES_AT_ONCE // size) or 1
        for start in range(0, len(descriptors), at_once):
            part = descriptors[start : start + at_once]
            share = len(part) / at_once
            # Over several pieces: many small groups hold the loop as long as a large one.
            self._unbroken += share
            if self._unbroken > 1:
                self._unbroken = share
                yield_to_loop()
            for descriptor in part:
                try:
                    sent = write(descriptor, data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    sent = _GONE
                if sent != size:
                    yield descriptor, sent

    def keep(
        self, stream: DetachedStream, piece: Piece, sent: int, last: Reason | None = None
    ) -> None:
        """The stream is slow: keep what its socket did not take."""
        backlog = Backlog(sent, time.monotonic(), last=last)
        backlog.add(piece)
        try:
            self._table.slow.take_in(stream, backlog)
        except OSError:  # it could not be watched in the first place
            self._table.cut(stream)

    def _end(self, stream: DetachedStream, last: bytes, reason: Reason) -> None:
        group, backlog = stream.group, self._table.slow.backlogs.get(stream)
        piece = group.last_piece(last)
        stream.sent_offset += group.sent + piece.size
        stream.events_offset += group.events + piece.events
        group.remove(stream)
        self._table.deadlines.forget(stream)
        if backlog is not None:
            backlog.add(piece)
            backlog.last = reason
            return
        # If the socket is closed afterwards, the FIN goes into the same packet.
        write = send_last if stream.listener is None else os.write
        try:
            sent = write(stream.descriptor, piece.data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._table.release(stream)
            return
        if sent < len(piece.data):
            self.keep(stream, piece, sent, reason)
            return
        group.counts.events += piece.events
        group.counts.bytes += piece.size
        self._table.finish(stream, reason)


def _last_bytes(stream: DetachedStream, reason: Reason | None) -> tuple[bytes, Reason]:
    if reason == "done":
        return b"", reason
    if reason is None and stream.expires:
        return stream.group.failure_frame(token_expired()), "expired"
    if reason == "drain" and not stream.group.resumable:
        return stream.group.failure_frame(shutting_down()), reason
    line = stream.group.reconnect_line()
    if reason is not None:
        return line, reason
    # Its lifetime is over, at a moment of its own: it need not be told when to reconnect.
    return b"", "lifetime"
