"""The server of a process: calls from everywhere, when it is away, and what is checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.redis.link import Link, ServerInfo
from sseflask.store.redis.server import RedisServer
from tests import redis_server
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until
from tests.redis_server import RedisServerProcess


@pytest.fixture
def own(server: RedisServerProcess) -> Iterator[RedisServer]:
    own = RedisServer.open(server.place())
    yield own
    own.close()


def ping(link: Link) -> object:
    return link.command("PING")


def test_calls_of_many_threads_at_once(own: RedisServer) -> None:
    results: list[int] = []

    def count() -> None:
        for _ in range(50):
            results.append(own.call(lambda link: link.command("INCR", own.key("count"))))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == list(range(1, 401))
    clients = own.call(lambda link: link.command("CLIENT", "LIST"))
    assert len(clients.splitlines()) <= 4, "connections, however many calls"


def test_keys_have_the_prefix_as_their_hash_tag(server: RedisServerProcess) -> None:
    own = RedisServer.open(f"{server.url}?prefix=shop")
    assert own.key("e", "meta") == b"{shop}:e:meta"
    own.close()


def test_a_server_is_shared_until_the_last_user_leaves(server: RedisServerProcess) -> None:
    url = server.place()
    one, two = RedisServer.open(url), RedisServer.open(url)
    assert one is two
    one.close()
    assert two.call(ping) == b"PONG"
    two.close()
    with pytest.raises(StoreError, match="closed"):
        two.call(ping)
    assert two.health() == "unavailable"
    three = RedisServer.open(url)
    assert three is not two
    assert three.call(ping) == b"PONG"
    three.close()


def test_closing_ends_what_blocks(server: RedisServerProcess) -> None:
    own = RedisServer.open(server.place())
    ended = threading.Event()

    def wait() -> None:
        link = own.link()
        with pytest.raises(StoreError):
            link.command("BLPOP", own.key("nothing"), 4)
        ended.set()

    own.start(wait)
    blocked = b"blocked_clients:1"
    until(lambda: blocked in own.call(lambda link: link.command("INFO", "clients")), "it to block")
    began = time.monotonic()
    own.close()
    assert ended.wait(3)
    assert time.monotonic() - began < 3


def test_a_link_that_has_ended_makes_no_connection(own: RedisServer) -> None:
    link = own.link()
    assert link.command("PING") == b"PONG"
    link.end()
    with pytest.raises(StoreError, match="is closed"):
        link.command("PING")
    assert own.available
    assert own.call(ping) == b"PONG"


def test_a_call_that_takes_too_long_goes_on_alone(own: RedisServer) -> None:
    key = own.key("list")
    with pytest.raises(StoreBusy, match=r"within 0\.1 s"):
        own.call(lambda link: link.command("BLPOP", key, 4), 0.1)
    assert own.health() == "available"
    own.call(lambda link: link.command("RPUSH", key, "a"))
    until(lambda: own.call(lambda link: link.command("LLEN", key)) == 0, "the call to go on")


def test_what_a_call_raises_reaches_its_caller(own: RedisServer) -> None:
    def fail(_link: Link) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        own.call(fail)
    with pytest.raises(StoreError, match=r"another application .*wrong kind"):
        own.call(
            lambda link: (
                link.command("SET", own.key("a"), "b"),
                link.command("LPOP", own.key("a")),
            )
        )
    assert own.call(ping) == b"PONG"


def test_while_it_is_away_calls_fail_at_once_and_one_link_tries(
    server: RedisServerProcess, own: RedisServer
) -> None:
    assert own.call(ping) == b"PONG"
    server.stop()
    with pytest.raises(StoreError, match="can't be reached"):
        own.call(ping)
    assert not own.available
    assert own.health() == "unavailable"
    assert not own.wait_until_available(0.01)
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(StoreError, match="can't be reached"):
            own.call(ping)
    assert time.monotonic() - began < 1
    server.start()
    began = time.monotonic()
    assert own.wait_until_available(10)
    assert time.monotonic() - began < 2
    assert own.call(ping) == b"PONG"


def test_when_it_is_there_again_all_connections_are_made_anew(own: RedisServer) -> None:
    """They were open all the time, and may lead nowhere: a firewall may have forgotten them."""
    links = [own.link() for _ in range(3)]
    before = [link.command("CLIENT", "ID") for link in links]
    assert [link.command("CLIENT", "ID") for link in links] == before
    own.set_away(StoreError("it did not answer in time"))
    assert own.wait_until_available(10)
    after = [link.command("CLIENT", "ID") for link in links]
    assert set(after).isdisjoint(before)


def test_a_server_that_is_not_there_yet(server: RedisServerProcess) -> None:
    server.stop()
    own = RedisServer.open(server.place())
    with pytest.raises(StoreError, match="can't be reached"):
        own.call(ping)
    server.start()
    assert own.wait_until_available(10)
    assert own.call(ping) == b"PONG"
    own.close()


def test_checks_come_first_and_again_for_another_server(
    server: RedisServerProcess, own: RedisServer
) -> None:
    seen: list[ServerInfo] = []

    def check(link: Link, info: ServerInfo) -> None:
        link.command("INCR", own.key("checks"))
        seen.append(info)

    def value(link: Link) -> object:
        return link.command("GET", own.key("checks"))

    own.add_check(check)
    assert own.call(value) == b"1"
    server.command("CLIENT", "KILL", "TYPE", "normal")
    assert own.call(value) == b"1"  # the same server
    server.stop()
    server.start()
    until(lambda: _has(own, b"1"), "the check of the new server")
    assert len(seen) == 2
    assert seen[0].identity != seen[1].identity
    # Links that have been made before have this one checked too.
    late: list[ServerInfo] = []
    own.add_check(lambda _link, info: late.append(info))
    assert own.call(value) == b"1"
    assert late == seen[1:]
    own.remove_check(check)


def _has(own: RedisServer, value: bytes) -> bool:
    try:
        found: bytes = own.call(lambda link: link.command("GET", own.key("checks")))
    except StoreError:
        return False
    return found == value


def test_a_check_that_fails_lets_nothing_through(own: RedisServer) -> None:
    failing = True

    def check(_link: Link, _info: ServerInfo) -> None:
        if failing:
            raise StoreError("not this one")

    own.add_check(check)
    for _ in range(2):
        with pytest.raises(StoreError, match="not this one"):
            own.call(ping)
    failing = False
    assert own.call(ping) == b"PONG"


def test_a_user_who_may_not_ask_what_the_server_is(
    server: RedisServerProcess, own: RedisServer
) -> None:
    seen: list[str] = []
    own.add_check(lambda _link, info: seen.append(info.identity))
    server.command("ACL", "SETUSER", "default", "-info")
    assert own.call(ping) == b"PONG"
    server.command("CLIENT", "KILL", "TYPE", "normal")
    assert own.call(ping) == b"PONG"
    # Every connection is checked.
    assert seen == ["", ""]


def test_what_it_says_of_itself(server: RedisServerProcess, own: RedisServer) -> None:
    assert own.health() == "available"
    assert own.durability() == "ephemeral"
    before = own.used_bytes()
    own.call(lambda link: link.command("SET", own.key("large"), b"x" * 1_000_000))
    assert own.used_bytes() > before + 900_000
    with closing(server.client()) as client:
        client.config_set("appendonly", "yes")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")
    own.health()
    assert own.durability() == "disk"


@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_hosts_of_which_none_answers_are_away(kind: str) -> None:
    own = RedisServer.open(f"redis+{kind}://127.0.0.1:1{'/main' if kind == 'sentinel' else ''}")
    try:
        with pytest.raises(StoreError, match="can't be reached") as caught:
            own.call(ping)
        assert len(str(caught.value)) < 120
        assert not own.available
    finally:
        own.close()


def test_a_server_whose_commands_have_other_names(program: str) -> None:
    options = ("--save", "", "--rename-command", "INFO", "")
    with redis_server.running(program, *options) as server:
        own = RedisServer.open(server.place())
        try:
            assert own.call(ping) == b"PONG"
        finally:
            own.close()


def test_tls_where_there_is_none(program: str) -> None:
    with redis_server.running(program, port=free_port()) as server:
        own = RedisServer.open(f"rediss://127.0.0.1:{server.port}?socket_timeout=3")
        try:
            with pytest.raises(StoreError, match="TLS"):
                own.call(ping)
            assert not own.available
        finally:
            own.close()
