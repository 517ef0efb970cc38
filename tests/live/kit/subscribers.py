"""A subscriber that checks every byte, and resumes with the last id that it has received.

It does no waiting: its owner (`swarm.py`) feeds it what its socket has.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.live.kit.events import EventParser, Sent

#: What a browser's EventSource sends, by the standards.
EVENT_SOURCE = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}


class Received(NamedTuple):
    """An event as a client dispatches it."""

    id: str
    event: str
    data: str


class Subscriber:
    """One client of a stream of events, over as many connections as it takes.

    Args:
        path: what it asks for.
        event_source: whether it takes its first id from the stream, as an EventSource has to,
            or from the response's header.
        last_id: where it begins; None is now.
        breaking: how likely it breaks off at a piece it has received, somewhere within it.
        headers: further request headers.
        receive_buffer: SO_RCVBUF, for a client that takes little at a time.
    """

    def __init__(
        self,
        path: str,
        *,
        event_source: bool = False,
        last_id: str | None = None,
        breaking: float = 0.0,
        headers: Mapping[str, str] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.path = path
        self.event_source = event_source
        self.last_id = last_id
        self.breaking = breaking
        self.receive_buffer = receive_buffer
        self.headers = {**(EVENT_SOURCE if event_source else {}), **(headers or {})}
        self.events: list[Received] = []
        self.gaps: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.retries: list[str] = []
        self.comments = 0
        self.connected = 0
        self.refused: list[int] = []
        self.proper_ends = 0
        self.truncated = 0
        self.broken_off = 0
        self.problems: list[str] = []
        self.socket: socket.socket | None = None
        self._server_port = 0
        self._begin()

    def _begin(self) -> None:
        self._raw = b""
        self._status = 0
        self._chunked = False
        self._complete = False
        self._parser = EventParser(self.retries)

    @property
    def over(self) -> bool:
        """Whether the response has ended, or was none of the kind that goes on."""
        return self._complete or self._status not in (0, 200)

    def ports(self) -> tuple[int, int]:
        """Those of its connection, of this end and of the server's; 0 while it has none."""
        if self.socket is None:
            return 0, 0
        return int(self.socket.getsockname()[1]), self._server_port

    def data(self) -> list[str]:
        return [event.data for event in self.events]

    def summary(self) -> str:
        """What has become of it, for a failure's message."""
        return (
            f"{self.path}: {len(self.events)} events, the last {self.events[-1:]}, last id "
            f"{self.last_id}, {self.connected} responses, refused {self.refused[-3:]}, "
            f"{self.proper_ends} proper ends, {self.truncated} truncated, {self.broken_off} "
            f"broken off, gaps {self.gaps[:3]}, failures {self.failures}, {self.problems[:3]}"
        )

    def connect(self, address: tuple[str, int]) -> socket.socket:
        """Send the request on a new connection."""
        self._begin()
        connection = socket.socket()
        connection.settimeout(10)
        self.socket = connection
        self._server_port = address[1]
        if self.receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        connection.connect(address)
        fields = {"Host": f"{address[0]}:{address[1]}", **self.headers}
        if self.last_id is not None:
            fields["Last-Event-ID"] = self.last_id
        lines = [f"GET {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        connection.setblocking(False)
        return connection

    def feed(self, piece: bytes) -> None:
        """Make sense of what has come."""
        self._raw += piece
        if not self._status and not self._head():
            return
        if self._status != 200:
            return
        if not self._chunked:
            piece, self._raw = self._raw, b""
            self._text(piece)
            return
        raw, at, body = self._raw, 0, []
        while (end := raw.find(b"\r\n", at)) >= 0:
            size = int(raw[at:end], 16)
            stop = end + 2 + size
            if len(raw) < stop + 2:
                break
            if raw[stop : stop + 2] != b"\r\n":
                self.problems.append(f"a chunk is not as long as it says: {raw[at : stop + 9]!r}")
            body.append(raw[end + 2 : stop])
            at = stop + 2
            self._complete = self._complete or size == 0
        self._raw = raw[at:]
        self._text(b"".join(body))

    def _head(self) -> bool:
        head, end, rest = self._raw.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self._raw = rest
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._status = int(first.split(" ")[1])
        if self._status != 200:
            self.refused.append(self._status)
            return True
        if not headers.get("content-type", "").startswith("text/event-stream"):
            self.problems.append(f"not an event stream: {headers}")
        if self.last_id is None and not self.event_source:
            self.last_id = headers.get("last-event-id")
        self.connected += 1
        return True

    def _text(self, body: bytes) -> None:
        for item in self._parser.feed(body):
            if isinstance(item, str):
                self.comments += 1
            else:
                self._dispatch(item)

    def _dispatch(self, event: Sent) -> None:
        if event.id is not None:
            self.last_id = event.id
        if event.data is None:
            return
        if event.event in ("gap", "failure"):
            said = self.gaps if event.event == "gap" else self.failures
            said.append(json.loads(event.data))
        else:
            self.events.append(Received(self.last_id or "", event.event or "message", event.data))

    def end(self) -> None:
        """The connection has ended; how?"""
        if self._status == 200:
            if self._complete or not self._chunked:
                self.proper_ends += 1
                if unfinished := self._parser.unfinished():
                    self.problems.append(unfinished)
            else:
                self.truncated += 1
        self.close()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None
