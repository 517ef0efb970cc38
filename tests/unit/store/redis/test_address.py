"""What URLs of Redis servers mean, and that they lead to the server that can be written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import trustme
from redis.exceptions import AuthenticationError, ClusterDownError, RedisError

from sseflask.store.api import StoreError
from sseflask.store.redis import is_redis
from sseflask.store.redis.address import RedisAddress
from tests import redis_server
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until
from tests.redis_cluster import CLUSTERED, OPTIONS, cluster, do, follow, node_port, sentinel
from tests.redis_server import RedisServerProcess


def ping(url: str) -> None:
    connection = RedisAddress(url).connect()
    try:
        connection.send_command("PING")
        assert connection.read_response() == b"PONG"
    finally:
        connection.disconnect()


def port_of(url: str) -> int:
    """Of the server that one gets to."""
    connection = RedisAddress(url).connect()
    try:
        connection.send_command("INFO", "server")
        lines = connection.read_response().decode().splitlines()
    finally:
        connection.disconnect()
    return next(int(line[9:]) for line in lines if line.startswith("tcp_port:"))


@pytest.mark.parametrize(
    ("url", "name", "prefix"),
    [
        ("redis://", "localhost:6379", "sseflask"),
        ("redis://example.org", "example.org:6379", "sseflask"),
        ("redis://user:secret@example.org:7000/3", "example.org:7000", "sseflask"),
        ("rediss://:secret@[::1]:7000?prefix=shop", "[::1]:7000", "shop"),
        ("valkey://h:1", "h:1", "sseflask"),
        ("valkeys://h:1?db=2&prefix=a.b:c", "h:1", "a.b:c"),
        ("unix:///run/redis.sock", "/run/redis.sock", "sseflask"),
        ("redis+unix:///run/redis.sock?prefix=x", "/run/redis.sock", "x"),
        ("redis+sentinel://a,b:7/main/2", "a:26379,b:7", "sseflask"),
        ("rediss+sentinel://:secret@[::1]:5,b/main", "[::1]:5,b:26379", "sseflask"),
        ("redis+cluster://a:1,b?prefix=x", "a:1,b:6379", "x"),
    ],
)
def test_what_urls_mean(url: str, name: str, prefix: str) -> None:
    assert is_redis(url)
    address = RedisAddress(url)
    assert (address.name, address.prefix) == (name, prefix)
    assert "secret" not in address.name


@pytest.mark.parametrize("path", ["", "events.db", "/var/lib/redis/events.db", ":memory:", "redis"])
def test_paths_are_no_urls(path: str) -> None:
    assert not is_redis(path)


@pytest.fixture
def on_port(program: str) -> Iterator[RedisServerProcess]:
    with redis_server.running(program, port=free_port()) as server:
        yield server


def test_a_user_and_a_database(on_port: RedisServerProcess) -> None:
    with closing(on_port.client()) as client:
        client.execute_command("ACL", "SETUSER", "me", "on", ">it's %me", "+@all", "~*")
        client.config_set("requirepass", "other")
    where = f"127.0.0.1:{on_port.port}"
    connection = RedisAddress(f"redis://me:it's%20%25me@{where}/3").connect()
    connection.send_command("CLIENT", "INFO")
    text = connection.read_response()
    assert b"user=me" in text
    assert b"db=3" in text
    connection.disconnect()
    with pytest.raises(AuthenticationError):
        ping(f"redis://me:wrong@{where}")


def test_nobody_is_there() -> None:
    with pytest.raises(RedisError):
        ping(f"redis://127.0.0.1:{free_port()}")
    for kind in ("sentinel", "cluster"):
        with pytest.raises((RedisError, StoreError)):
            ping(f"redis+{kind}://127.0.0.1:{free_port()}{'/main' if kind == 'sentinel' else ''}")


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    port = free_port()
    options = [
        "--tls-port", port, "--tls-cert-file", tmp_path / "cert",
        "--tls-key-file", tmp_path / "key", "--tls-auth-clients", "no", "--save", "",
    ]  # fmt: skip
    with redis_server.running(redis_server.redis(), *map(str, options)):
        ping(f"rediss://localhost:{port}?ssl_ca_certs={tmp_path / 'ca'}")
        with pytest.raises(RedisError, match="CERTIFICATE_VERIFY_FAILED"):
            ping(f"rediss://localhost:{port}")
        ping(f"rediss://localhost:{port}?ssl_cert_reqs=none")


def test_the_node_of_a_cluster_that_has_the_keys(program: str) -> None:
    with cluster(program, masters=2) as made:
        ports = [each.port for each in made.masters]
        url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{ports[1]}?prefix="
        assert port_of(url + made.prefix) == ports[0]
        # These are in both halves.
        assert {port_of(url + prefix) for prefix in ("a", "b", "c", "d", "e")} == {*ports}
        with redis_server.running(program, *CLUSTERED, port=node_port()) as parted:
            # It has what it had before, and may do nothing without the others.
            do(parted, "CLUSTER", "ADDSLOTS", made.slot)
            url = f"redis+cluster://127.0.0.1:{parted.port},127.0.0.1:{ports[1]}?prefix="
            assert port_of(url + made.prefix) == ports[0]
            with pytest.raises(ClusterDownError):
                ping(f"redis+cluster://127.0.0.1:{parted.port}?prefix={made.prefix}")


def test_the_master_as_sentinels_say(tmp_path: Path) -> None:
    program = redis_server.redis()
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(redis_server.running(program, *OPTIONS, port=free_port()))
            for _ in range(2)
        )
        follow(two, one)
        watching = stack.enter_context(sentinel(program, tmp_path, one))

        def fails_over() -> bool:
            try:
                watching.do("FAILOVER", "main")
            except RedisError:  # it knows of no replica yet
                return False
            return True

        port = watching.port
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/main/0"
        assert port_of(url) == one.port
        until(fails_over, "the sentinel to know the replica")
        until(lambda: port_of(url) == two.port, "the replica to be the master")
        with pytest.raises(RedisError):
            ping(f"redis+sentinel://127.0.0.1:{port}/other")
