"""Groups that end, and those whose members have nowhere to resume."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from sseflask.completions.formats.ui import ui_failure
from sseflask.errors import Failure
from sseflask.transport.detached import delivery
from sseflask.transport.detached.group import Group
from sseflask.transport.failures import failure_frame, shutting_down, token_expired
from sseflask.wire import encode
from tests.segments import without_data
from tests.unit.transport.detached.test_registry import SECONDS, Crowd, at_end, received, until


@pytest.fixture(params=[False, True])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    made = Crowd(chunked=request.param)
    yield made
    made.close()


def body_of(crowd: Crowd, data: bytes) -> bytes:
    """What came, without the chunks' sizes; asserts that it has come to its end."""
    if not crowd.group.chunked:
        return data
    body = b""
    while True:
        size, data = data.split(b"\r\n", 1)
        if not int(size, 16):
            assert data == b"\r\n"
            return body
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]


def test_finished_streams_end_behind_their_last_bytes(crowd: Crowd) -> None:
    for _ in range(delivery.SOCKETS_AT_ONCE + 3):
        crowd.client()

    def end() -> None:
        crowd.detached.send([(crowd.group, b"data: [DONE]\n\n")])
        crowd.detached.end([crowd.group], "done")

    crowd.job(end)
    for client in crowd.clients:
        assert body_of(crowd, at_end(client)) == b"data: [DONE]\n\n"
        client.close()
    assert crowd.detached.wait_until_empty(SECONDS)
    assert [sent for _, sent in crowd.ends.ended] == [14] * len(crowd.clients)
    assert crowd.dissolved == [crowd.group]


def test_what_a_client_has_sent_ahead_is_its_next_request(crowd: Crowd) -> None:
    next_requests: list[tuple[int, object, bytes]] = []
    idle = crowd.detached.table.idle
    idle.go_on = lambda *request: next_requests.append(request)
    ahead = crowd.client(came_by="one", unread=b"GET /")
    left = crowd.client(came_by="one", unread=b"GET /more")
    crowd.clients[1].close()
    until(lambda: crowd.ends.closed == 1, "it has left")
    assert [member for member, _ in crowd.ends.ended] == [left]
    assert len(crowd.detached.table._unread) == 1, "its descriptor may soon be another client's"
    crowd.job(lambda: crowd.detached.end([crowd.group], "done"))
    assert next_requests == [(ahead.descriptor, "one", b"GET /")]
    os.close(ahead.descriptor)


@pytest.mark.parametrize("crowd", [True], indirect=True, ids=["chunked"])
def test_a_connection_is_closed_while_another_one_is_served(crowd: Crowd) -> None:
    """Events of both were reported at once: nothing more is asked of a descriptor that is gone."""
    idle = crowd.detached.table.idle
    idle.seconds = SECONDS
    for _ in range(2):
        crowd.client(came_by="one")
    crowd.job(lambda: crowd.detached.end([crowd.group], "done"))
    assert len(idle) == 2

    def serve(descriptor: int, *_: object) -> None:
        os.close(descriptor)
        idle.close_some(1)

    idle.go_on = serve
    first, second = crowd.clients
    first.send(b"GET /")
    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    second.close()
    crowd.detached._on_events()
    assert len(idle) == 0


def test_a_slow_one_gets_all_of_it_before_it_ends(crowd: Crowd) -> None:
    crowd.client(buffer=4096)
    crowd.send(b"x" * 300_000)
    assert crowd.group.slow
    crowd.job(lambda: crowd.detached.end([crowd.group], "done"))
    assert body_of(crowd, at_end(crowd.clients[0])) == b"x" * 300_000
    crowd.clients[0].close()
    assert crowd.detached.wait_until_empty(SECONDS)
    assert [sent for _, sent in crowd.ends.ended] == [300_000]


@pytest.mark.parametrize("crowd", [True], indirect=True, ids=["chunked"])
def test_the_end_of_the_connection_comes_with_the_last_chunk(crowd: Crowd) -> None:
    crowd.client()
    (client,) = crowd.clients
    before = without_data(client)
    crowd.job(lambda: crowd.detached.end([crowd.group], "done"))
    assert at_end(client) == b"0\r\n\r\n"
    assert without_data(client) == before, "the FIN came by itself"


def test_finishing_twice_or_nobody_is_harmless(crowd: Crowd) -> None:
    crowd.client()
    nobodys = Group(True, 1.0, crowd.dissolved.append)
    for _ in range(2):
        crowd.job(lambda: crowd.detached.end([crowd.group, nobodys], "done"))
    crowd.job(lambda: crowd.detached.end([], "done"))
    assert body_of(crowd, at_end(crowd.clients[0])) == b""


def test_the_drain_ends_only_streams_that_can_be_resumed(crowd: Crowd) -> None:
    crowd.client()
    staying, crowd.group = (
        crowd.group,
        Group(crowd.group.chunked, 1000.0, crowd.dissolved.append),
    )
    staying.resumable = False
    crowd.client()
    crowd.detached.drain()
    assert body_of(crowd, at_end(crowd.clients[1])).startswith(b"retry: ")
    assert received(crowd.clients[0]) == b""
    crowd.job(lambda: crowd.detached.send([(staying, b"the rest")]))
    crowd.job(lambda: crowd.detached.end([staying], "done"))
    assert body_of(crowd, at_end(crowd.clients[0])) == b"the rest"


def test_those_that_can_not_resume_are_told_before_the_worker_goes(crowd: Crowd) -> None:
    crowd.group.resumable = False
    crowd.client()
    crowd.client(buffer=4096)
    crowd.send(b"x" * 300_000)
    crowd.detached.drain()
    crowd.detached.fail_rest()
    failed = failure_frame(shutting_down())
    assert body_of(crowd, at_end(crowd.clients[0])) == b"x" * 300_000 + failed
    assert body_of(crowd, at_end(crowd.clients[1])) == b"x" * 300_000 + failed, "as soon as it can"


def test_an_expired_token_is_reported_in_the_words_of_its_group(crowd: Crowd) -> None:
    def tell(failure: Failure) -> bytes:
        return encode(ui_failure(failure))

    crowd.group = Group(
        crowd.group.chunked, 1000.0, crowd.dissolved.append, resumable=False, failure_frame=tell
    )
    crowd.client(ends_at=time.monotonic() + 0.02, expires=True)
    last = body_of(crowd, at_end(crowd.clients[0]))
    assert last == tell(token_expired())
    crowd.clients[0].close()
    until(lambda: crowd.ends.closed == 1, "closed")
