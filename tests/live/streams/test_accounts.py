"""The account of a stream: what is logged when it opens and when it ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.kinds import on_every_server, on_gevent
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until


@contextlib.contextmanager
def logged(server: Server) -> Iterator[None]:
    assert fetch(server, "/accounts?on", method="POST").status == 200
    try:
        yield
    finally:
        assert fetch(server, "/accounts", method="POST").status == 200


def account(server: Server, tag: str) -> list[dict[str, Any]]:
    """The two records of the one stream with a tag."""
    until(lambda: len(server.marks(f"{tag}.account")) >= 2, "the end of the stream is logged")
    return [json.loads(line) for line in server.marks(f"{tag}.account")]


@on_every_server
def test_a_stream_that_comes_to_its_end(server: Server, tag: str) -> None:
    with logged(server):
        body = fetch(server, f"/numbers?tag={tag}&count=5").body
        opened, ended = account(server, tag)
    common = {"request_id": tag, "kind": "stream", "method": "GET", "path": "/numbers"}
    assert opened == {"message": "stream opened", **common, "peer": "127.0.0.1"}
    seconds = ended.pop("seconds")
    assert ended == {
        **opened,
        "message": "stream ended",
        "events": 5,
        "bytes": len(body),
        "reason": "done",
    }
    assert 0 <= seconds < 10


@on_every_server
def test_a_stream_that_fails(server: Server, tag: str) -> None:
    with logged(server):
        body = fetch(server, f"/error?tag={tag}&after=2").body
        _, ended = account(server, tag)
    assert (ended["reason"], ended["events"]) == ("failed", 3), "the failure is an event as well"
    assert ended["bytes"] == len(body)


@on_every_server
def test_a_client_that_leaves(server: Server, tag: str) -> None:
    with logged(server):
        with open_stream(server, f"/numbers?tag={tag}&count=100000&interval=0.01") as stream:
            stream.data(3)
        _, ended = account(server, tag)
    assert ended["reason"] == "left"
    assert 3 <= ended["events"] < 100000


@on_gevent
def test_a_stream_that_is_sent_back(server: Server, tag: str) -> None:
    path = f"/numbers?tag={tag}&ids&count=100000&interval=0.01&lifetime=0.2"
    with logged(server):
        body = fetch(server, path).body
        _, ended = account(server, tag)
    assert (ended["reason"], ended["events"]) == ("lifetime", body.count(b"data: "))
    assert ended["bytes"] == len(body)


@on_gevent
def test_a_client_that_takes_nothing(server: Server, tag: str) -> None:
    with logged(server):
        path = f"/flood?tag={tag}&heartbeat=0.2"
        with open_stream(server, path, receive_buffer=4096):
            _, ended = account(server, tag)
    assert ended["reason"] == "slow"
    assert ended["bytes"] >= ended["events"] * 65536 > 0


@on_gevent
def test_nothing_is_logged_unless_it_is_asked_for(server: Server, tag: str) -> None:
    assert fetch(server, f"/numbers?tag={tag}&count=2").status == 200
    with logged(server):
        fetch(server, f"/numbers?tag={tag}-2&count=2")
        account(server, f"{tag}-2")
    assert not server.marks(f"{tag}.account")
