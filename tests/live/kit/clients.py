"""Clients that see the bytes: an event stream on a raw connection, and curl."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.live.kit.connection import Connection, Head, fetch
from tests.live.kit.events import EventParser, Sent
from tests.live.kit.servers import Server


@dataclass
class Stream:
    """An event stream being read; comments and retry lines are noted as they pass.

    Args:
        connection: where the request has been sent.
    """

    connection: Connection
    head: Head = field(init=False)
    comments: list[str] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        self.head = self.connection.head()
        self._items = self._read()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *raised: object) -> None:
        self.connection.close()

    def __iter__(self) -> Iterator[Sent]:
        """The events; comments are noted in passing."""
        return (item for item in self._items if isinstance(item, Sent))

    def next(self) -> Sent:
        """The next event; fails when the stream ends instead."""
        event = next(iter(self), None)
        assert event is not None, "the stream has ended"
        return event

    def next_comments(self, count: int) -> list[str]:
        """The next comments; fails when an event or the end comes instead."""
        comments = [next(self._items, None) for _ in range(count)]
        assert all(isinstance(comment, str) for comment in comments), comments
        return self.comments[-count:]

    def data(self, count: int) -> list[str | None]:
        """The data of the next events."""
        return [self.next().data for _ in range(count)]

    def rest(self) -> list[Sent]:
        """All events up to the end; fails unless the end is a proper one."""
        events = list(self)
        assert self.ended, "the stream was cut short"
        return events

    def _read(self) -> Iterator[Sent | str]:
        parser = EventParser(self.retries)
        for piece in self.connection.pieces(self.head):
            for item in parser.feed(piece):
                if isinstance(item, str):
                    self.comments.append(item)
                yield item
        assert not parser.unfinished(), parser.unfinished()
        self.ended = self.connection.complete


def open_stream(
    where: Server | Connection | int,
    path: str,
    *,
    receive_buffer: int | None = None,
    method: str = "GET",
    version: str = "1.1",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Stream:
    """Request a stream, on this connection or a new one, and read the response's head.

    Leaving the block closes.
    """
    connection = where if isinstance(where, Connection) else Connection(where, receive_buffer)
    try:
        connection.request(path, method=method, version=version, headers=headers, body=body)
        return Stream(connection)
    except BaseException:
        connection.close()
        raise


def wake(server: Server | int, tag: str) -> None:
    """Let the probe's generators with this tag go on."""
    assert fetch(server, f"/wake?tag={tag}", method="POST").status == 200


def curl(
    server: Server, path: str, *options: str, seconds: int = 30
) -> subprocess.CompletedProcess[str]:
    """curl as people type it; its exit code says whether the body was complete."""
    return subprocess.run(
        ["curl", "-sS", "-N", "--max-time", str(seconds), *options, server.url + path],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=seconds + 10,
    )


@contextlib.contextmanager
def curl_in_background(
    server: Server, path: str, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """curl, still reading while the test goes on; killed if the test leaves first."""
    process = subprocess.Popen(
        ["curl", "-sS", "-N", *options, server.url + path],
        bufsize=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
