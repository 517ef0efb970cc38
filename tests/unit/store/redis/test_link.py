"""A link repeats what was lost, and says in words for people what Redis says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from redis.connection import AbstractConnection

from sseflask.store.api import StoreError
from sseflask.store.redis.link import Link
from sseflask.store.redis.server import RedisServer
from tests.redis_server import RedisServerProcess


@pytest.fixture
def own(server: RedisServerProcess) -> Iterator[RedisServer]:
    own = RedisServer.open(server.place())
    yield own
    own.close()


@pytest.fixture
def link(own: RedisServer) -> Link:
    return own.link()


def kill(server: RedisServerProcess) -> None:
    server.command("CLIENT", "KILL", "TYPE", "normal")


def test_what_was_lost_is_repeated_unless_it_must_not(
    server: RedisServerProcess, own: RedisServer, link: Link
) -> None:
    assert link.command("INCR", own.key("a")) == 1
    kill(server)
    assert link.command("INCR", own.key("a")) == 2
    kill(server)
    with pytest.raises(StoreError, match="can't be reached"):
        link.command("INCR", own.key("a"), repeat=False)


def test_replies_are_bytes_numbers_and_lists(own: RedisServer, link: Link) -> None:
    key = own.key("h")
    assert link.command("HSET", key, "a", b"\x00", "b", 2) == 2
    assert link.command("HGETALL", key) == [b"a", b"\x00", b"b", b"2"]
    assert link.command("GET", own.key("none")) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ([("CONFIG", "SET", "maxmemory", "1")], "memory of the Redis server"),
        ([("REPLICAOF", "127.0.0.1", "1")], "is a replica"),
        ([("CONFIG", "SET", "min-replicas-to-write", "1")], "lacks replicas"),
        ([("ACL", "SETUSER", "default", "-set")], "lacks a permission"),
        ([("ACL", "SETUSER", "default", "resetkeys")], "lacks a permission"),
    ],
)
def test_refusals(
    server: RedisServerProcess, own: RedisServer, settings: list[tuple[str, ...]], says: str
) -> None:
    with closing(server.client()) as client:
        for command in settings:
            client.execute_command(*command)
    with pytest.raises(StoreError, match=says):
        own.link().command("SET", own.key("a"), "b")


def test_a_password_that_is_wanted(server: RedisServerProcess, own: RedisServer) -> None:
    with closing(server.client()) as client:
        client.config_set("requirepass", "secret")
        with pytest.raises(StoreError, match="refuses the user or the password"):
            own.link().command("PING")
        assert own.health() == "unavailable"
        client.config_set("requirepass", "")
    assert own.wait_until_available(10)


def test_a_link_gives_up_soon_if_nobody_listens(server: RedisServerProcess, link: Link) -> None:
    server.stop()
    began = time.monotonic()
    with pytest.raises(StoreError):
        link.command("PING")
    assert time.monotonic() - began < 1


def test_a_connection_that_is_closed_while_it_is_read(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under gevent redis-py's parser then fails in ways of its own."""
    link.connect()
    read, close = AbstractConnection.read_response, link.renew
    closed: list[AbstractConnection] = []

    def read_response(connection: AbstractConnection, *arguments: Any, **options: Any) -> Any:
        if not closed:
            closed.append(connection)
            close()
            raise ValueError("I/O operation on closed file.")
        return read(connection, *arguments, **options)

    monkeypatch.setattr(AbstractConnection, "read_response", read_response)
    assert link.command("PING") == b"PONG"
    closed.clear()
    close = link.end
    with pytest.raises(StoreError, match="closed"):
        link.command("PING")


def test_who_refuses_what_a_connection_begins_with_is_away(
    server: RedisServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    own = RedisServer.open(f"{server.place()}&db=9999")
    try:
        for _ in range(3):
            with pytest.raises(StoreError, match="out of range"):
                own.call(ping)
        assert not own.available
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    finally:
        own.close()


def ping(link: Link) -> object:
    return link.command("PING")
