"""A store of runs on Redis, and what may become of its server and of other processes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
from redis import Redis

from sseflask.store import append_queue
from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.redis import address, run_news, run_scripts, run_upkeep
from sseflask.store.redis import run_store as module
from sseflask.store.redis.run_store import RedisRunStore
from sseflask.store.run_api import (
    Ending,
    Run,
    RunAppend,
    RunFrames,
    RunKey,
    RunLimits,
    StoreFull,
    size_of,
)
from tests import redis_server
from tests.contract.run_stores import (
    DAY,
    ENDINGS,
    FINISHED,
    STOPPED,
    Listener,
    begun,
    everything,
    fresh,
    numbered,
    put,
)
from tests.live.kit.waiting import until
from tests.processes import go_on, line, process, report_of
from tests.unit.store.redis.run_process import key, opened
from tests.unit.store.redis.run_processes import write

Process = tuple[RedisRunStore, Listener]

#: Options of a server that loses nothing when it is killed.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@contextmanager
def running(url: str, *, seconds: float = DAY, max_bytes: float = DAY**2) -> Iterator[Process]:
    store, listener = RedisRunStore(url, RunLimits(seconds, max_bytes), ENDINGS), Listener()
    store.follow(listener)
    try:
        yield store, listener
    finally:
        store.close()


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture
def server(options: tuple[str, ...]) -> Iterator[redis_server.RedisServerProcess]:
    with redis_server.running(redis_server.redis(), *options) as server:
        yield server


@pytest.fixture
def own(url: str) -> Iterator[Process]:
    with running(url) as own:
        yield own


@pytest.fixture
def other(url: str) -> Iterator[Process]:
    # Another process has another connection to the server.
    with running(f"{url}&socket_timeout=6") as other:
        yield other


def usable(process: Process) -> bool:
    """Whether a run can be begun, written and ended."""
    store, listener = process
    try:
        run = begun(store)
    except StoreError:
        return False
    put(store, run, 1, 1, FINISHED)
    return listener.wait_for_end(run).outcome == b"finished"


# -- lost connections, scripts, data ---------------------------------------------------------------


@pytest.mark.parametrize("fault", ["CLIENT KILL TYPE normal", "SCRIPT FLUSH"])
def test_nothing_is_lost_or_doubled_by_a_fault_that_passes(
    own: Process, other: Process, client: Redis, fault: str
) -> None:
    runs = [begun(own[0]) for _ in range(5)]
    for run in runs:
        other[0].attach(run.key)
    for number in range(1, 301):
        for run in runs:
            put(own[0], run, number, 1)
        if number % 20 == 0:
            client.execute_command(fault)
            # If a new connection is killed as well, the server is away for a moment.
            until(lambda: own[0].health() == "available", "it can be used")
    for run in runs:
        put(own[0], run, 301, 0, FINISHED)
    for run in runs:
        assert own[1].wait_for_end(run) == other[1].wait_for_end(run)
        assert own[1].seen[run.key] == other[1].seen[run.key] == numbered(1, 300)
        assert everything(other[0], run) == numbered(1, 300)
    assert len(own[1].ends) == len(other[1].ends) == len(runs)
    assert own[1].gone == other[1].gone == []


def test_runs_are_lost_with_the_data(own: Process, other: Process, client: Redis) -> None:
    run, watched = begun(own[0]), begun(own[0])
    put(own[0], watched, 1, 1)
    other[0].attach(watched.key)
    client.flushall()
    put(own[0], run, 1, 1)
    own[1].wait(lambda: len(own[1].gone) == 2, "it is told of both")
    other[1].wait(lambda: other[1].gone, "the other as well")
    assert {key for key, _ in own[1].gone} == {run.key, watched.key}
    assert other[1].gone == [(watched.key, None)]
    assert own[0].find(run.id, "alice") is None
    assert own[0].attach(watched.key) is None
    assert usable(own)
    assert usable(other)
    again = begun(own[0])
    other[0].attach(again.key)
    put(own[0], again, 1, 2)
    other[1].wait_for_frame(again, 2)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are short."""
    monkeypatch.setattr(module, "_BEAT_SECONDS", 0.2)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "parts", [(), ("processes",), ("running",), ("ended",), ("account", "alice"), ("dead",)]
)
def test_runs_survive_the_loss_of_a_list(
    own: Process, other: Process, client: Redis, url: str, parts: tuple[str, ...]
) -> None:
    run = begun(own[0])
    other[0].attach(run.key)
    put(own[0], run, 1, 1)
    other[1].wait_for_frame(run, 1)
    client.delete(key(url, *parts))
    put(own[0], run, 2, 1)
    beats = own[1].beats
    own[1].wait(lambda: own[1].beats > beats + 2, "time passes")
    put(own[0], run, 3, 1, FINISHED)
    assert own[1].wait_for_end(run) == other[1].wait_for_end(run)
    assert own[1].seen[run.key] == other[1].seen[run.key] == numbered(1, 3)
    assert usable(own)


@pytest.fixture
def looks_at_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process looks every second whether it lacks something: it has to be told."""
    monkeypatch.setattr(run_news, "_LOOK_AT", 0)


@pytest.mark.usefixtures("looks_at_nothing", "quick")
@pytest.mark.parametrize("seen", [None, b"99999999999999-0"])
def test_the_loss_of_an_inbox_loses_no_frames(
    own: Process,
    other: Process,
    client: Redis,
    url: str,
    seen: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if the server's clock was put back meanwhile, by which entries get their ids."""
    monkeypatch.setattr(module, "_WAIT_MILLISECONDS", 20)
    run, ends = begun(own[0]), begun(own[0])
    for each in (run, ends):
        other[0].attach(each.key)
    put(own[0], run, 1, 1)
    other[1].wait_for_frame(run, 1)
    if seen:
        beats, other[0]._scripts.seen = other[1].beats, seen
        other[1].wait(lambda: other[1].beats > beats + 2, "it waits for what comes behind that")
    assert client.delete(key(url, "inbox", other[0]._scripts.token))
    put(own[0], run, 2, 5)
    put(own[0], ends, 1, 2, FINISHED)
    assert other[1].wait_for_end(ends).last == 2
    other[1].wait_for_frame(run, 6)
    put(own[0], run, 7, 1, FINISHED)
    other[1].wait_for_end(run)
    assert other[1].seen[run.key] == numbered(1, 7)


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_evicted_is_lost_for_all(
    own: Process, other: Process, client: Redis, url: str
) -> None:
    run, quiet = begun(own[0], fresh("k")), begun(own[0])
    for each in (run, quiet):
        other[0].attach(each.key)
        put(own[0], each, 1, 2)
        other[1].wait_for_frame(each, 2)
    client.delete(key(url, "run", run.id), key(url, "run", quiet.id))
    put(own[0], run, 3, 1)
    for listener in (own[1], other[1]):
        listener.wait(lambda listener=listener: len(listener.gone) == 2, "it is told")  # type: ignore[misc]  # mypy knows no default of a lambda
    assert other[1].seen[run.key] == numbered(1, 2)
    assert own[0].frames(run.key, 0, 10) == []
    assert begun(own[0], fresh("k")).key != run.key


@pytest.mark.usefixtures("looks_at_nothing")
def test_a_writer_whose_run_was_evicted_is_told(own: Process, client: Redis, url: str) -> None:
    run = begun(own[0])
    client.delete(key(url, "run", run.id))
    put(own[0], run, 1, 1)
    own[1].wait(lambda: own[1].gone, "it is told")
    assert own[1].gone == [(run.key, None)]


def test_an_inbox_is_emptied_while_it_is_read(
    url: str, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEAT_SECONDS", 60.0)
    monkeypatch.setattr(module, "_MANY_ENTRIES", 20)
    with running(url) as own, running(f"{url}&socket_timeout=6") as other:
        run = begun(own[0])
        other[0].attach(run.key)
        for number in range(1, 101):
            put(own[0], run, number, 1)
            other[1].wait_for_frame(run, number)
        assert client.xlen(key(url, "inbox", other[0]._scripts.token)) < 30


@pytest.mark.usefixtures("looks_at_nothing")
def test_a_process_that_did_not_read_for_a_while_misses_nothing(
    own: Process, other: Process, client: Redis, url: str
) -> None:
    """Its inbox overflows meanwhile; one run has ended before that."""
    runs = [begun(own[0]) for _ in range(10)]
    for run in runs:
        other[0].attach(run.key)
    put(own[0], runs[0], 1, 1)
    other[1].wait_for_frame(runs[0], 1)
    early, first, *others = runs[1], runs[0], *runs[2:]
    with other[1].changed:  # what it is called with waits
        put(own[0], early, 1, 9)
        own[1].wait_for_frame(early, 9)
        until(lambda: other[0]._runs.given(early.key) == 9, "it gives that, and reads no more")
        put(own[0], early, 10, 0, FINISHED)
        own[1].wait_for_end(early)
        for number in range(1, 601):
            for run in others:
                put(own[0], run, number, 1)
            if number % 10 == 0:
                own[1].wait_for_frame(others[-1], number)
        assert client.xlen(key(url, "inbox", other[0]._scripts.token)) < 4000
    assert other[1].wait_for_end(early).last == 9
    assert other[1].seen[early.key] == numbered(1, 9)
    for run in others:
        put(own[0], run, 601, 0, FINISHED)
    for run in others:
        assert other[1].wait_for_end(run) == own[1].wait_for_end(run)
        assert other[1].seen[run.key] == numbered(1, 600)
    put(own[0], first, 2, 0, FINISHED)
    assert other[1].wait_for_end(first).last == 1


# -- a server that goes and comes ------------------------------------------------------------------


@pytest.mark.parametrize("options", [DURABLE])
def test_a_restart_with_its_data_is_not_noticed_by_runs(
    own: Process, other: Process, server: redis_server.RedisServerProcess
) -> None:
    run = begun(own[0])
    other[0].attach(run.key)
    put(own[0], run, 1, 1)
    other[1].wait_for_frame(run, 1)
    server.stop()
    for number in range(2, 30):
        put(own[0], run, number, 1)
    with pytest.raises(StoreError):
        own[0].find(run.id, "alice")
    assert own[0].health() == "unavailable"
    server.start()
    own[1].wait_for_frame(run, 29)
    put(own[0], run, 30, 1, FINISHED)
    assert own[1].wait_for_end(run) == other[1].wait_for_end(run)
    assert own[1].seen[run.key] == other[1].seen[run.key] == numbered(1, 30)
    assert own[0].health() == "available"
    assert own[0].durability() == "disk"
    assert own[1].gone == other[1].gone == []


def test_a_restart_without_its_data_loses_what_goes_on(
    own: Process, other: Process, server: redis_server.RedisServerProcess
) -> None:
    run = begun(own[0])
    other[0].attach(run.key)
    server.stop()
    server.start()
    for listener in (own[1], other[1]):
        listener.wait(lambda listener=listener: listener.gone, "it is told")  # type: ignore[misc]  # mypy knows no default of a lambda
        assert listener.gone == [(run.key, None)]
    until(lambda: usable(own), "it goes on")
    assert own[0].durability() == "ephemeral"


def test_while_the_server_is_away_every_call_fails_at_once(
    own: Process, server: redis_server.RedisServerProcess
) -> None:
    run = begun(own[0], fresh("k"))
    server.stop()
    until(lambda: own[0].health() == "unavailable", "it is noticed")
    before = time.monotonic()
    for _ in range(20):
        for call in (
            lambda: own[0].claim(fresh()),
            lambda: own[0].find(run.id, "alice"),
            lambda: own[0].attach(run.key),
            lambda: own[0].end(run.key, STOPPED),
            lambda: own[0].frames(run.key, 0, 10),
            own[0].extent,
        ):
            with pytest.raises(StoreError):
                call()
    assert time.monotonic() - before < 2.0
    own[0].end_soon(run.key, STOPPED)
    own[0].leave()


def test_what_could_not_be_stored_is_given_up_and_its_run_ends_later(
    own: Process, client: Redis
) -> None:
    run = begun(own[0])
    put(own[0], run, 1, 1)
    own[1].wait_for_frame(run, 1)
    client.config_set("min-replicas-to-write", 1)
    with mock.patch.object(append_queue, "_PATIENCE", 0.0):
        put(own[0], run, 2, 1)
        own[1].wait(lambda: own[1].gone, "it is told")
    ((lost, error),) = own[1].gone
    assert lost == run.key
    assert isinstance(error, StoreError)
    client.config_set("min-replicas-to-write", 0)
    ended = own[1].wait_for_end(run)
    assert (ended.outcome, ended.last) == (b"unavailable", 1)
    assert own[1].seen[run.key] == numbered(1, 1)
    assert usable(own)


@pytest.mark.parametrize("options", [DURABLE])
def test_a_claim_is_withdrawn_when_the_server_is_back(
    own: Process, server: redis_server.RedisServerProcess
) -> None:
    claim = fresh("k")
    run = begun(own[0], claim)
    server.stop()
    until(lambda: own[0].health() == "unavailable", "it is noticed")
    own[0].withdraw(claim)
    server.start()
    assert own[1].wait_for_end(run).outcome == b"interrupted"
    assert begun(own[0], fresh("k")).key != run.key


def test_a_server_that_became_a_replica_is_refused_until_it_is_a_master(
    own: Process, client: Redis
) -> None:
    run = begun(own[0])
    client.replicaof("127.0.0.1", "1")
    put(own[0], run, 1, 1)
    until(lambda: own[0].health() == "unavailable", "it is noticed")
    with pytest.raises(StoreError, match="replica"):
        own[0].claim(fresh())
    client.replicaof("NO", "ONE")
    own[1].wait_for_frame(run, 1)
    until(lambda: own[0].health() == "available", "it is noticed")
    assert usable(own)


@pytest.mark.usefixtures("quick")
def test_a_server_without_memory_begins_nothing_and_ends_what_goes_on(
    own: Process, other: Process, client: Redis
) -> None:
    run, waits = begun(own[0]), begun(own[0])
    other[0].attach(run.key)
    put(own[0], run, 1, 1)
    own[1].wait_for_frame(run, 1)
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    with pytest.raises(StoreFull):
        own[0].claim(fresh())
    put(own[0], waits, 1, 1)
    ended = other[0].end(run.key, STOPPED)
    assert own[1].wait_for_end(run) == ended
    beats = own[1].beats
    own[1].wait(lambda: own[1].beats > beats + 1, "signs of life go on")
    assert own[1].ended_as(waits.key) == []
    client.config_set("maxmemory", 0)
    own[1].wait_for_frame(waits, 1)
    put(own[0], waits, 2, 1, FINISHED)
    assert own[1].wait_for_end(waits).outcome == b"finished"


def test_a_server_that_evicts_keeps_a_run_whole_or_not_at_all(own: Process, client: Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + (6 << 20))
    frames = [b"x" * 20_000] * 10
    runs: list[Run] = []
    for _ in range(60):
        run = begun(own[0])
        runs.append(run)
        own[0].append(RunAppend(run.key, 1, [*frames], [b""] * 10, size_of(frames), FINISHED))
        own[1].wait(lambda run=run: own[1].ended_as(run.key) or own[1].gone, "its end")  # type: ignore[misc]  # mypy knows no default of a lambda
    found = [own[0].find(run.id, "alice") for run in runs]
    assert None in found
    assert any(found)
    for run, there in zip(runs, found, strict=True):
        read = everything(own[0], run)
        # It may be evicted between the two answers.
        assert len(read) in ((0, 10) if there else (0,))


@pytest.mark.waits_long
def test_a_server_that_answers_nothing_holds_nobody_up_for_long(
    own: Process, server: redis_server.RedisServerProcess
) -> None:
    run = begun(own[0])
    put(own[0], run, 1, 1)
    own[1].wait_for_frame(run, 1)
    server.freeze()
    put(own[0], run, 2, 1)
    before = time.monotonic()
    with pytest.raises(StoreError):
        own[0].find(run.id, "alice")
    assert time.monotonic() - before < address.COMMAND_SECONDS + 3
    assert own[0].health() in ("busy", "unavailable")
    server.thaw()
    own[1].wait_for_frame(run, 2)
    until(lambda: usable(own), "it goes on")
    assert everything(own[0], run) == own[1].seen[run.key] == numbered(1, 2)


def test_a_slow_server_is_waited_for(own: Process, client: Redis) -> None:
    run = begun(own[0])
    for number in range(1, 4):
        client.client_pause(1500)
        put(own[0], run, number, 1)
        begun(own[0])
        own[1].wait_for_frame(run, number)
    put(own[0], run, 4, 0, FINISHED)
    assert own[1].wait_for_end(run).last == 3


def test_the_rights_that_suffice(server: redis_server.RedisServerProcess, client: Redis) -> None:
    rights = (
        "on >secret resetkeys ~{shop}:* -@all +@read +@write +@connection +@scripting"
        " -@dangerous +info +time"
    )
    client.execute_command("ACL", "SETUSER", "shop", *rights.split())
    client.execute_command("ACL", "SETUSER", "default", "off")
    url = f"unix://shop:secret@{server.socket}?prefix=shop"
    with running(url) as own, running(f"{url}&socket_timeout=6") as other:
        run = begun(own[0], fresh("k"))
        other[0].attach(run.key)
        put(own[0], run, 1, 2)
        other[1].wait_for_frame(run, 2)
        assert other[0].end(run.key, STOPPED) == own[1].wait_for_end(run)
        assert everything(other[0], run) == numbered(1, 2)
        beats = own[1].beats
        own[1].wait(lambda: own[1].beats > beats + 1, "it goes on")
        assert own[0]._reported == ""
        assert own[0].extent().bytes > 0
        assert usable(own)


# -- other processes -------------------------------------------------------------------------------


@pytest.fixture
def soon_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_scripts, "DEAD_SECONDS", 1.0)


@pytest.mark.usefixtures("soon_dead")
def test_the_runs_of_a_killed_process_are_ended(other: Process, url: str) -> None:
    with process(write, url, 3) as writer:
        runs = line(writer).split()
        assert len(runs) == 3
        attached = [other[0].attach(run) for run in runs[:2]]
        writer.kill()
        for found in attached:
            assert found is not None
            ended = other[1].wait_for_end(found)
            assert (ended.outcome, ended.last, ended.notes) == (b"interrupted", 1, b"notes 1")
        other[1].wait(lambda: len(other[1].ends) == 3, "that which nobody follows as well")
        assert all(here for _, here in other[1].ends)


@pytest.mark.usefixtures("soon_dead", "quick")
def test_a_process_that_has_begun_nothing_ends_what_dead_ones_left(url: str) -> None:
    with opened(url) as dead, running(f"{url}&socket_timeout=6") as idle:
        run = dead.begin()
        assert idle[1].wait_for_end(run).outcome == b"interrupted"
        assert idle[1].ends == [(dead.now(run), True)]


@pytest.mark.usefixtures("soon_dead")
def test_a_process_that_stood_still_is_refused_when_it_comes_back(other: Process, url: str) -> None:
    with process(write, url, 2) as writer:
        runs = line(writer).split()
        attached = other[0].attach(runs[0])
        assert attached is not None
        writer.send_signal(signal.SIGSTOP)
        other[1].wait_for_end(attached)
        other[1].wait(lambda: len(other[1].ends) == 2, "both")
        go_on(writer)  # it appends as soon as it can
        writer.send_signal(signal.SIGCONT)
        assert line(writer) == "1", "what it knows of the end"
        assert line(writer) == "2", "each once"
        assert everything(other[0], attached) == numbered(1, 1)
        go_on(writer)
        writer.wait(30)


@pytest.mark.usefixtures("looks_at_nothing")
def test_a_process_that_was_taken_for_dead_gets_what_it_follows_all_the_same(
    own: Process, other: Process, client: Redis, url: str
) -> None:
    run = begun(own[0])
    other[0].attach(run.key)
    put(own[0], run, 1, 1)
    other[1].wait_for_frame(run, 1)
    token = other[0]._scripts.token
    client.zrem(key(url, "processes"), token)
    client.delete(key(url, "inbox", token))
    put(own[0], run, 2, 1)
    other[1].wait_for_frame(run, 2)
    put(own[0], run, 3, 1, FINISHED)
    other[1].wait_for_end(run)
    assert other[1].seen[run.key] == numbered(1, 3)


@pytest.mark.usefixtures("quick")
def test_a_run_whose_claim_or_end_was_lost_is_ended(
    own: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a replica that took over without the last writes: nobody writes that run."""
    monkeypatch.setattr(run_upkeep, "_STRAY_SECONDS", 0.5)
    run = begun(own[0])
    other[0].attach(run.key)
    own[0]._runs.forget(run.key)
    assert other[1].wait_for_end(run).outcome == b"interrupted"
    assert usable(own)


def test_a_run_that_lost_frames_is_ended_and_not_continued(
    own: Process, other: Process, client: Redis, url: str
) -> None:
    """As by a replica that took over without the last writes."""
    run = begun(own[0])
    other[0].attach(run.key)
    put(own[0], run, 1, 5)
    other[1].wait_for_frame(run, 5)
    client.hset(key(url, "run", run.id), "last", 3)
    put(own[0], run, 6, 1)
    ended = own[1].wait_for_end(run)
    assert (ended.outcome, ended.last, ended.ended) == (b"interrupted", 3, 6)
    assert other[1].wait_for_end(run) == other[0].find(run.id, "alice") == ended
    assert everything(other[0], run) == numbered(1, 3)
    assert other[1].seen[run.key] == numbered(1, 5)


# -- in this process -------------------------------------------------------------------------------


@pytest.mark.usefixtures("looks_at_nothing")
def test_an_attachment_gets_what_comes_before_its_answer(
    own: Process, other: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(own[0])
    put(own[0], run, 1, 2)
    own[1].wait_for_frame(run, 2)
    attach = other[0]._scripts.attach
    begin = other[0]._runs._missed

    def attach_late(link: object, key: str) -> Run | None:
        found = attach(link, key)  # type: ignore[arg-type]  # it is a link
        put(own[0], run, 3, 2, FINISHED)
        until(lambda: key in begin, "the inbox was read")
        return found

    monkeypatch.setattr(other[0]._scripts, "attach", attach_late)
    found = other[0].attach(run.key)
    assert found is not None
    assert found.last == 2
    assert other[1].wait_for_end(run).last == 4
    assert other[1].seen[run.key] == numbered(3, 2)


@pytest.mark.usefixtures("looks_at_nothing")
def test_attaching_again_gives_what_was_missed(
    url: str, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEAT_SECONDS", 60.0)
    with running(url) as own, running(f"{url}&socket_timeout=6") as other:
        run = begun(own[0])
        other[0].attach(run.key)
        client.delete(key(url, "inbox", other[0]._scripts.token))
        put(own[0], run, 1, 3)
        own[1].wait_for_frame(run, 3)
        assert run.key not in other[1].seen
        assert other[0].attach(run.key) == run._replace(last=3)
        assert other[1].seen[run.key] == numbered(1, 3)


def test_a_process_attaches_to_its_own_run_after_what_its_listener_has(own: Process) -> None:
    """More may be stored: the answer to that is on its way."""
    run = begun(own[0])
    assert own[0].attach(run.key) == run
    put(own[0], run, 1, 3)
    own[1].wait_for_frame(run, 3)
    own[0]._runs._given[run.key] = 2
    assert own[0].attach(run.key) == run._replace(last=2)


def test_what_a_process_has_left_it_has_left_for_its_next_call(
    own: Process, other: Process
) -> None:
    run = begun(own[0])
    other[0].attach(run.key)
    over = threading.Event()
    other[0]._jobs.submit(lambda _link: over.wait(30), lambda *_: None)
    other[0].detach(run.key)
    found: list[Run | None] = []
    call = threading.Thread(target=lambda: found.append(other[0].find(run.id, "alice")))
    call.start()
    put(own[0], run, 1, 1)
    own[1].wait_for_frame(run, 1)
    assert own[0].find(run.id, "alice") is not None, "a call of that kind takes less time"
    assert found == []
    over.set()
    call.join(30)
    assert found == [run._replace(last=1)]
    assert other[0]._runs.followed() == []


def test_a_process_that_asked_is_told_at_once_of_another_one(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEAT_SECONDS", 60.0)
    with running(url) as own, running(f"{url}&socket_timeout=6") as other:
        run = begun(own[0])
        for follow in (other[0].attach, other[0].detach) * 2:
            answers: list[set[RunKey]] = []
            own[0].attached_elsewhere([run.key], answers.append)
            until(lambda answers=answers: answers, "it is answered")  # type: ignore[misc]  # mypy knows no default of a lambda
            beats = own[1].beats
            follow(run.key)
            own[1].wait(lambda beats=beats: own[1].beats == beats + 1, "it is told")  # type: ignore[misc]  # mypy knows no default of a lambda
        follow_unasked = own[1].beats
        other[0].attach(run.key)
        put(own[0], run, 1, 1)
        other[1].wait_for_frame(run, 1)
        assert own[1].beats == follow_unasked, "it has not asked again"


@pytest.mark.usefixtures("quick")
def test_what_is_done_every_second_does_not_pile_up(own: Process) -> None:
    over = threading.Event()
    own[0]._jobs.submit(lambda _link: over.wait(30), lambda *_: None)
    beats = own[1].beats
    own[1].wait(lambda: own[1].beats > beats + 2, "signs of life do not wait")
    assert own[0]._jobs.waiting == 1
    over.set()


def test_room_is_made_while_it_is_written(url: str) -> None:
    with running(url, max_bytes=500_000) as (store, listener):
        runs = []
        for _ in range(60):
            runs.append(begun(store))
            frames = [b"x" * 20_000]
            store.append(RunAppend(runs[-1].key, 1, frames, [b""], size_of(frames), Ending(b"")))
            listener.wait_for_end(runs[-1])
        until(lambda: store.extent().bytes < 500_000, "it is below its limit")
        assert store.find(runs[0].id, "alice") is None
        assert store.find(runs[-1].id, "alice") is not None


def test_a_run_that_fills_the_room_ends_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the next second."""
    monkeypatch.setattr(module, "_BEAT_SECONDS", 60.0)
    with running(url, max_bytes=500_000) as (store, listener):
        small, large = begun(store), begun(store)
        put(store, small, 1, 1)
        size = 0
        for number in range(1, 30):
            frames = [b"x" * 20_000]
            size += size_of(frames)
            store.append(RunAppend(large.key, number, frames, [b""], size))
            listener.wait(
                lambda number=number: (  # type: ignore[misc]  # mypy knows no default of a lambda
                    listener.ended_as(large.key) or len(listener.seen.get(large.key, ())) >= number
                ),
                "it is stored",
            )
        assert listener.wait_for_end(large).outcome == b"full"
        assert listener.ended_as(small.key) == []


def test_all_that_is_to_be_deleted_is_deleted_soon(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though one call deletes a few."""
    monkeypatch.setattr(module, "_BEAT_SECONDS", 60.0)
    with running(url, seconds=0.0) as (store, listener):
        for _ in range(120):
            run = begun(store)
            put(store, run, 1, 1, FINISHED)
            listener.wait_for_end(run)
        store._jobs.call(store._upkeep.do, 20.0)
        until(lambda: store.extent().bytes == 0, "all are gone")


def test_after_its_end_a_store_says_so(url: str) -> None:
    with ExitStack() as stack:
        store, listener = stack.enter_context(running(url))
        run = begun(store)
        store.leave()
        before = time.monotonic()
        store.close()
        assert time.monotonic() - before < 1.0
        assert listener.wait_for_end(run).outcome == b"interrupted", "begun before"
        for call in (lambda: store.claim(fresh()), lambda: store.attach(run.key)):
            with pytest.raises(StoreError, match="closed"):
                call()
        store.end_soon(run.key, STOPPED)
        store.close()


def test_threads_of_a_store_end_with_it(url: str, server: redis_server.RedisServerProcess) -> None:
    with server.client() as client:
        before = threading.active_count(), len(client.client_list())
        for _ in range(3):
            with running(url) as process:
                assert usable(process)
        until(lambda: len(client.client_list()) <= before[1], "its connections are closed")


def test_a_call_in_order_that_takes_too_long_is_given_up(
    own: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    over = threading.Event()
    own[0]._jobs.submit(lambda _link: over.wait(30), lambda *_: None)
    run = Run("f" * 32, "f" * 32, "", 0)
    with pytest.raises(StoreBusy):
        own[0].attach(run.key)
    over.set()
    own[0]._runs.deliver([RunFrames(run.key, 1, [b"x"])])
    assert own[1].seen == {}


def test_under_gevent_greenlets_do_the_work_and_the_loop_goes_on(url: str) -> None:
    report = report_of("tests.unit.store.redis.run_greenlets", url)
    assert report.pop("waited") > 0.9
    assert report.pop("longest pause") < 0.5
    assert report == {
        "switches": [],
        "whole": True,
        "from the pool": 10,
        "left": True,
        "in the loop": True,
    }


def test_an_attach_that_nobody_waited_for_is_undone(
    own: Process, other: Process, client: Redis, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(own[0])
    go_on_now = threading.Event()
    attach = other[0]._scripts.attach

    def attach_late(*arguments: Any) -> Run | None:
        go_on_now.wait(20)
        return attach(*arguments)

    monkeypatch.setattr(other[0]._scripts, "attach", attach_late)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    with pytest.raises(StoreBusy):
        other[0].attach(run.key)
    other[0].detach(run.key)
    go_on_now.set()
    monkeypatch.undo()
    other[0].find(run.id, "subject")  # after what was called before
    assert not client.hget(key(url, "run", run.key), "watchers")
