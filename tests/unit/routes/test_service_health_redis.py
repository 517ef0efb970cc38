"""``/readyz`` says what a Redis server refuses, why and since when, for each of its faults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests import redis_server
from tests.live.kit.waiting import until
from tests.redis_server import RedisServerProcess
from tests.service import service

_WAYS = {
    "memory full": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "too few replicas": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    "a replica": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "a right of scripts": (
        ("ACL", "SETUSER", "default", "-xadd"),
        ("ACL", "SETUSER", "default", "+xadd"),
    ),
    "no scripts": (
        ("ACL", "SETUSER", "default", "-evalsha"),
        ("ACL", "SETUSER", "default", "+evalsha"),
    ),
}
_SAID = {
    "memory full": ("read_only", "OOM command not allowed"),
    "too few replicas": ("read_only", "NOREPLICAS"),
    "a replica": ("unavailable", "READONLY "),
    "a right of scripts": ("unavailable", "NOPERM no right to use xadd"),
    "no scripts": ("unavailable", "evalsha"),
}


@pytest.fixture(params=redis_server.programs() or ["redis"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServerProcess]:
    assert redis_server.programs(), redis_server.NONE
    options = ("--save", "", "--appendonly", "no", "--dbfilename", "dump")
    with redis_server.running(redis_server.programs()[request.param], *options) as server:
        yield server


@contextmanager
def on(server: RedisServerProcess) -> Iterator[Flask]:
    with service(REDIS_URL=server.place(), SSEFLASK_CHANNEL_LOG="", SSEFLASK_RUN_LOG="") as app:
        until(lambda: state(app)["log"] == "available", "the store to be opened")
        yield app


def state(app: Flask, what: str = "channels") -> Any:
    answer = app.test_client().get("/readyz")
    assert answer.status_code == 200
    assert answer.json is not None
    return answer.json[what]


def do(server: RedisServerProcess, *command: str) -> None:
    server.command(*command)


@pytest.mark.parametrize("fault", _WAYS)
def test_what_is_refused_and_why(server: RedisServerProcess, fault: str) -> None:
    breaks, mends = _WAYS[fault]
    log, reason = _SAID[fault]
    with on(server) as app:
        assert not {"refused", "reason", "since"} & state(app).keys()
        began = int(time.time())
        do(server, *breaks)
        until(lambda: state(app)["log"] == log, "the fault to be noticed")
        for what, refused in (("channels", "publishing"), ("completions", "new completions")):
            found = state(app, what)
            assert reason in found["reason"]
            assert server.socket not in str(found)
            assert found["refused"].startswith(refused)
            since = datetime.strptime(found["since"], "%Y-%m-%dT%H:%M:%SZ")
            assert began <= since.replace(tzinfo=timezone.utc).timestamp() <= time.time()
        assert app.test_client().get("/healthz").status_code == 200
        do(server, *mends)
        until(lambda: state(app)["log"] == "available", "the fault to be over")
        assert "reason" not in state(app, "completions")


def test_a_disk_that_is_full(server: RedisServerProcess) -> None:
    with on(server) as app, server.client() as client:
        Path(server.socket).with_name("dump").mkdir()  # so it can't be replaced
        client.config_set("save", "3600 1")
        client.set("something", "new")
        client.bgsave()
        until(lambda: state(app)["log"] == "read_only", "the fault to be noticed")
        assert state(app)["reason"].startswith("MISCONF ")
        client.config_set("stop-writes-on-bgsave-error", "no")
        until(lambda: state(app)["log"] == "available", "the fault to be over")


def test_a_router_that_asks_for_the_stores(server: RedisServerProcess) -> None:
    with on(server) as app:
        client = app.test_client()
        assert client.get("/readyz?stores=required").status_code == 200
        do(server, "CONFIG", "SET", "maxmemory", "1")
        # Subscribers and readers of history are served here as well as elsewhere.
        assert client.get("/readyz?stores=required").status_code == 200
        server.stop()
        until(lambda: state(app)["log"] == "unavailable", "the fault to be noticed")
        answer = client.get("/readyz?stores=required")
        assert answer.status_code == 503
        assert answer.json is not None
        assert answer.json["status"] == "unavailable"
        assert answer.json["channels"]["reason"] == "it can't be reached"


def test_when_it_began_is_known_though_nobody_asked(server: RedisServerProcess) -> None:
    with on(server) as app:
        store = app.extensions["sseflask.channels"].store
        do(server, "CONFIG", "SET", "maxmemory", "1")
        until(lambda: store.problem() is not None, "it to be noticed")
        begun = store.problem().since
        assert store.health() == "read_only"
        assert store.problem().since == begun
